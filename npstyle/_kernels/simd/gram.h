/* Gram matrix and its gradient: what the steps take, and the choice between instruction sets. */

#include <stddef.h>

typedef struct {
    const char *name;
    ptrdiff_t panel; /* columns that are multiplied at a time */
    void (*gram)(const void *f, ptrdiff_t count, ptrdiff_t C, void *pack, void *g);
    void (*times)(const void *f, ptrdiff_t count, ptrdiff_t C, const void *s, void *df);
} gram_steps;

#define STEPS "gram_steps.h"
#include "instruction_sets.h"

static const gram_steps *gram_find(const char *name, int bytes) { FIND(name, bytes) }
