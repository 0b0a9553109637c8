/* Convolution of a picture of few channels, for one type of number and one instruction set: included by
   instruction_sets.h, after vectors.h. K is a multiple of 32.

   A patch has 9C numbers, 27 in conv1_1, so im2col is cheap on the way there, y = P Q + b. On the way back it
   would gather 9K numbers, 576, to make C, 3. Instead dP = dy Q' is made, 9C numbers a pixel, and col2im adds
   each to where it came from (docs/convolution.md, the adjoint). */

/* Products of `count` rows of v with panels u (columns / PANEL, C, PANEL): m (count, columns). */
INLINE void NAME(rows_times)(const REAL *v, idx count, idx v_row, idx C, const REAL *u, idx columns, REAL *m)
{
    for (idx j = 0; j < columns; j += PANEL) {
        idx r = 0;
        for (; r + ROWS <= count; r += ROWS)
            NAME(product)(ROWS, v + r * v_row, v_row, 1, C, u + j * C, 0, m + r * columns + j, columns, 0, 0);
        for (; r < count; r++)
            NAME(product)(1, v + r * v_row, v_row, 1, C, u + j * C, 0, m + r * columns + j, columns, 0, 0);
    }
}

/* One row of y (H, W, K) = max(x (H, W, C) * w + b, 0) and its mask; w in panels of rows (i, j, c).
   room: (W, 9C) patches and (W, K) products. */
TARGET static void NAME(forward)(const void *x_, first_layer_shape s, const void *w, const void *b, idx row,
                                 void *room, void *y_, uint8_t *mask)
{
    const idx run = 3 * s.C;
    REAL *patches = (REAL *)room, *m = patches + (s.W * 9 * s.C + 15) / 16 * 16;
    memset(patches, 0, s.W * 9 * s.C * sizeof(REAL));
    for (int i = 0; i < 3; i++) {
        const idx h = row + i - 1;
        if (h < 0 || h >= s.H)
            continue;
        const REAL *x = (const REAL *)x_ + h * s.W * s.C;
        for (idx c = 0; c < s.W; c++) {
            const idx skip = c == 0 ? s.C : 0, cut = c == s.W - 1 ? s.C : 0; /* outside the picture */
            const REAL *from = x + (c - 1) * s.C;
            REAL *to = patches + (c * 3 + i) * run;
            for (idx n = skip; n < run - cut; n++)
                to[n] = from[n];
        }
    }
    NAME(rows_times)(patches, s.W, 9 * s.C, 9 * s.C, (const REAL *)w, s.K, m);
    const int stream = s.H * s.W * s.K * (idx)sizeof(REAL) >= STREAMED && (uintptr_t)y_ % 64 == 0;
    for (idx c = 0; c < s.W; c++)
        for (idx k = 0; k < s.K; k += LANES) {
            const idx element = (row * s.W + c) * s.K + k;
            const VEC value = LOAD(m + c * s.K + k) + LOAD((const REAL *)b + k);
            NAME(write_bits)(mask, element, POSITIVE(value));
            if (stream)
                STREAM((REAL *)y_ + element, RECTIFY(value));
            else
                STORE((REAL *)y_ + element, RECTIFY(value));
        }
    FENCE();
}

/* Rows first ... last - 1 of dx (H, W, C), from dy (H, W, K) where its mask has a bit; w is the transposed
   matrix, in panels of columns (i, j, c), rounded up with zeros.
   room: (W, K) of dy, (W, columns) of dP, and rows of dx with a pixel more at both ends. */
TARGET static void NAME(backward)(const void *dy_, const uint8_t *mask, first_layer_shape s, const void *w, idx first,
                                  idx last, void *room, void *dx_)
{
    const idx run = 3 * s.C, columns = (9 * s.C + PANEL - 1) / PANEL * PANEL, wide = (s.W + 2) * s.C;
    REAL *dy = (REAL *)room, *dp = dy + s.W * s.K, *sums = dp + s.W * columns;
    memset(sums, 0, (last - first) * wide * sizeof(REAL));
    for (idx row = first - 1; row <= last; row++) { /* outputs that looked at these rows */
        if (row < 0 || row >= s.H)
            continue;
        for (idx n = 0; n < s.W * s.K; n += LANES) {
            const idx element = row * s.W * s.K + n;
            STORE(dy + n, KEEP(LOAD((const REAL *)dy_ + element), NAME(read_bits)(mask, element)));
        }
        NAME(rows_times)(dy, s.W, s.K, s.K, (const REAL *)w, columns, dp);
        for (int i = 0; i < 3; i++) {
            const idx h = row + i - 1;
            if (h < first || h >= last)
                continue;
            for (idx c = 0; c < s.W; c++) {
                REAL *sum = sums + (h - first) * wide + c * s.C;
                const REAL *part = dp + c * columns + i * run;
                for (idx n = 0; n < run; n++)
                    sum[n] += part[n];
            }
        }
    }
    for (idx h = first; h < last; h++)
        memcpy((REAL *)dx_ + h * s.W * s.C, sums + (h - first) * wide + s.C, s.W * s.C * sizeof(REAL));
}

static const first_layer_steps NAME(steps) = {ISA, PANEL, NAME(forward), NAME(backward)};
