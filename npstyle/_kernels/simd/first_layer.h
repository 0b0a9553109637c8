/* Convolution of a picture of few channels, conv1_1: the steps, and the table of them by instruction set. */

#include <stddef.h>
#include <stdint.h>

typedef struct {
    ptrdiff_t H, W, C, K; /* height, width, few channels in, many channels out */
    int replicate;        /* beyond the border are the outermost pixels, not zeros */
} first_layer_shape;

typedef struct {
    ptrdiff_t panel; /* columns that are multiplied at a time */
    void (*forward)(const void *x, first_layer_shape s, const void *w, const void *b, ptrdiff_t row,
                    void *workspace, void *y, uint8_t *mask);
    void (*backward)(const void *dy, const uint8_t *mask, first_layer_shape s, const void *w, ptrdiff_t first,
                     ptrdiff_t last, void *workspace, void *dx);
} first_layer_steps;

/* Pixels of a row that are computed at a time: what is computed of them stays in the first-level cache. A
   multiple of ROWS with every instruction set. */
enum { PIXELS = 48 };

#define STEPS "first_layer_steps.h"
#include "instruction_sets.h"

static const first_layer_steps *const first_layer_table[ISA_COUNT][2] = {FOR_EACH_ISA(TABLE_ROW)};
