/* Dot products and linear combinations of long vectors: the steps, and the table of them by instruction set. */

#include <stddef.h>

typedef struct {
    void (*widen)(const void *a, ptrdiff_t count, double *wide);
    void (*dot)(const void *a, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t count, const double *b,
                const double *c, double *sums);
    void (*combine)(const void *a, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t count, const void *b,
                    const double *weights, double *sum, void *out);
} lbfgs_steps;

#define STEPS "lbfgs_steps.h"
#include "instruction_sets.h"

static const lbfgs_steps *const lbfgs_table[ISA_COUNT][2] = {FOR_EACH_ISA(TABLE_ROW)};
