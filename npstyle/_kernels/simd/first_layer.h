/* Convolution of a picture of few channels, conv1_1: what its steps take, and the choice between
   instruction sets. */

#include <stddef.h>
#include <stdint.h>

typedef struct {
    ptrdiff_t H, W, C, K; /* height, width, few channels, many channels */
} first_layer_shape;

typedef struct {
    const char *name;
    ptrdiff_t panel; /* columns that are multiplied at a time */
    void (*forward)(const void *x, first_layer_shape s, const void *w, const void *b, ptrdiff_t row, void *room,
                    void *y, uint8_t *mask);
    void (*backward)(const void *dy, const uint8_t *mask, first_layer_shape s, const void *w, ptrdiff_t first,
                     ptrdiff_t last, void *room, void *dx);
} first_layer_steps;

#define STEPS "first_layer_steps.h"
#include "instruction_sets.h"

static const first_layer_steps *first_layer_find(const char *name, int bytes) { FIND(name, bytes) }
