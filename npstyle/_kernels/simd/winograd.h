/* Winograd convolution: what its steps take, and the choice between instruction sets.
   The mathematics stands in docs/winograd.md. */

#include <stddef.h>
#include <stdint.h>

#define SQRT2 1.41421356237309504880

/* Sizes of the picture and its division into tiles. */
typedef struct {
    ptrdiff_t H, W, C, K; /* height, width, channels in, channels out */
} winograd_shape;

/* A stack of matrices, one for each place in a tile: numbers from one matrix to the next, and from row to row. */
typedef struct {
    ptrdiff_t step, row;
} winograd_stack;

typedef struct {
    const char *name;
    ptrdiff_t tile; /* inputs of a tile, in each direction: two more than outputs */
    ptrdiff_t panel; /* output channels that are multiplied at a time */
    ptrdiff_t rows;  /* tiles that are multiplied at a time: blocks of tiles are multiples of it */
    void (*input)(const void *x, const uint8_t *mask, const void *zeros, winograd_shape s, ptrdiff_t first,
                  ptrdiff_t count, void *v, winograd_stack at);
    void (*gather)(const void *w, winograd_shape s, int flip, ptrdiff_t panel, void *g);
    void (*kernel)(const void *g, ptrdiff_t C, int row, void *u);
    void (*multiply)(const void *v, winograd_stack at, ptrdiff_t points, ptrdiff_t count, ptrdiff_t C, const void *u, void *m,
                     winograd_stack to, int ahead);
    void (*output)(const void *m, winograd_stack at, winograd_shape s, ptrdiff_t first, ptrdiff_t count, ptrdiff_t panel,
                   const void *bias, uint8_t *mask, int add, void *y);
} winograd_steps;

/* F(6x6, 3x3) has fewer products, F(4x4, 3x3) covers small layers with less beyond their borders. */
typedef struct {
    winograd_steps large, small;
} winograd_sizes;

#define STEPS "winograd_steps.h"
#include "instruction_sets.h"

static const winograd_sizes *winograd_find(const char *name, int bytes) { FIND(name, bytes) }
