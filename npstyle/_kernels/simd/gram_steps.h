/* Gram matrix and its gradient, for one type of number and one instruction set: included by
   instruction_sets.h, after vectors.h. C is a multiple of 32. */

/* Rows i ... of g, in the panel of columns from j on; narrow vectors stop at the diagonal. */
INLINE void NAME(gram_rows)(const int rows, const REAL *f, idx i, idx j, idx depth, idx C, const REAL *pack,
                            int accumulate, REAL *g)
{
    for (idx k = 0; k < PANEL && j + k < i + rows; k += COLUMNS)
        NAME(gemm_microkernel)(rows, f + i, 1, C, depth, pack + k, pack, accumulate, g + i * C + j + k, C, 0, 0,
                               0);
}

/* Lower triangle, and some of the upper, of g (C, C) = f'f for f (count, C). pack (DEPTH, PANEL) is workspace
   for PANEL columns of f, packed row by row. */
TARGET static void NAME(gram)(const void *f_, idx count, idx C, void *pack_, void *g_)
{
    REAL *pack = (REAL *)pack_, *g = (REAL *)g_;
    for (idx first = 0; first < count; first += DEPTH) {
        const idx depth = count - first < DEPTH ? count - first : DEPTH;
        const REAL *f = (const REAL *)f_ + first * C;
        for (idx j = 0; j < C; j += PANEL) {
            for (idx m = 0; m < depth; m++) {
                for (int i = 0; i < PANEL; i += LINE)
                    PREFETCH_L2(f, (m + DEPTH) * C + j + i);
                memcpy(pack + m * PANEL, f + m * C + j, PANEL * sizeof(REAL));
            }
            idx i = j;
            for (; i + ROWS <= C; i += ROWS)
                NAME(gram_rows)(ROWS, f, i, j, depth, C, pack, first > 0, g);
            for (; i + 4 <= C; i += 4)
                NAME(gram_rows)(4, f, i, j, depth, C, pack, first > 0, g);
            for (; i < C; i += 2)
                NAME(gram_rows)(2, f, i, j, depth, C, pack, first > 0, g);
        }
    }
}

/* df (count, C) = f (count, C) s (C, C), where s is in panels: (C / PANEL, C, PANEL). With `stream`, df
   bypasses the caches: it is not needed until much later. That takes sums of one pass, C <= DEPTH. */
INLINE void NAME(gemm_panels)(const REAL *f, idx count, idx C, const REAL *s, REAL *df, const int stream)
{
    for (idx j = 0; j < C; j += PANEL)
        for (idx c = 0; c < C; c += DEPTH) {
            const idx depth = C - c < DEPTH ? C - c : DEPTH;
            const REAL *u = s + j * C + c * PANEL;
            idx row = 0;
            for (; row + ROWS <= count; row += ROWS)
                NAME(gemm_panel)(ROWS, f + row * C + c, C, 1, depth, u, c > 0, df + row * C + j, C, 1,
                                       stream, 0);
            for (; row < count; row++)
                NAME(gemm_panel)(1, f + row * C + c, C, 1, depth, u, c > 0, df + row * C + j, C, 0, 0, 0);
        }
}

TARGET static void NAME(gemm)(const void *f, idx count, idx C, const void *s, void *df)
{
    if (C <= DEPTH && (uintptr_t)df % 64 == 0)
        NAME(gemm_panels)((const REAL *)f, count, C, (const REAL *)s, (REAL *)df, 1);
    else
        NAME(gemm_panels)((const REAL *)f, count, C, (const REAL *)s, (REAL *)df, 0);
    FENCE();
}

static const gram_steps NAME(steps) = {PANEL, NAME(gram), NAME(gemm)};
