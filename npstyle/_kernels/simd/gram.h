/* Gram matrix and its gradient: the steps, and the table of them by instruction set. */

#include <stddef.h>

typedef struct {
    ptrdiff_t panel; /* columns that are multiplied at a time */
    void (*gram)(const void *f, ptrdiff_t count, ptrdiff_t C, void *pack, void *g);
    void (*gemm)(const void *f, ptrdiff_t count, ptrdiff_t C, const void *s, void *df);
} gram_steps;

#define STEPS "gram_steps.h"
#include "instruction_sets.h"

static const gram_steps *const gram_table[ISA_COUNT][2] = {FOR_EACH_ISA(TABLE_ROW)};
