/* Winograd convolution: the steps, and the table of them by instruction set. The mathematics is in
   docs/winograd.md. */

#include <stddef.h>
#include <stdint.h>

#define SQRT2 1.41421356237309504880

typedef struct {
    ptrdiff_t H, W, C, K; /* height, width, channels in, channels out */
} winograd_shape;

/* A stack of matrices, one for each point: elements from one matrix to the next, and from row to row. */
typedef struct {
    ptrdiff_t matrix, row;
} winograd_strides;

/* The steps with tiles of one size. Arguments are explained in winograd_tile.h. */
typedef struct {
    ptrdiff_t tile;  /* inputs of a tile in each direction: two more than outputs */
    ptrdiff_t panel; /* output channels that are multiplied at a time */
    ptrdiff_t rows;  /* tiles that are multiplied at a time: blocks of tiles are multiples of it */
    void (*transform_input)(const void *x, const uint8_t *mask, const void *zeros, winograd_shape s,
                            ptrdiff_t first, ptrdiff_t count, void *v, winograd_strides v_strides,
                            int pooled);
    void (*pack_filter)(const void *w, winograd_shape s, int flip, ptrdiff_t panel, void *g);
    void (*transform_filter)(const void *g, ptrdiff_t C, int row, void *u, ptrdiff_t u_matrix);
    void (*gemm)(const void *v, winograd_strides v_strides, ptrdiff_t points, ptrdiff_t count, ptrdiff_t C,
                 const void *u, ptrdiff_t u_matrix, void *m, winograd_strides m_strides, int near);
    void (*transform_output)(const void *m, winograd_strides m_strides, winograd_shape s, ptrdiff_t first,
                             ptrdiff_t count, ptrdiff_t panel, const void *bias, uint8_t *mask,
                             int accumulate, void *y, int pooled);
} winograd_steps;

/* F(6x6, 3x3) needs fewer products, F(4x4, 3x3) covers small layers with less overhang. */
typedef struct {
    winograd_steps large, small;
} winograd_tiles;

#define STEPS "winograd_steps.h"
#include "instruction_sets.h"

static const winograd_tiles *const winograd_table[ISA_COUNT][2] = {FOR_EACH_ISA(TABLE_ROW)};
