/* Convolution of a picture of few channels, for one type of number and one instruction set: included by
   instruction_sets.h, after vectors.h. K is a multiple of 32.

   A patch has 9C elements, 27 in conv1_1, so im2col is cheap in the forward pass, y = P Q + b. In the
   backward pass it would gather 9K elements, 576, to compute C, 3. Instead dP = dy Q' is computed, 9C
   elements a pixel, and col2im adds each to the pixel it came from (docs/convolution.md, the adjoint). */

/* m (count, columns) = v (count, C) u, where u is in panels (columns / PANEL, C, PANEL). */
INLINE void NAME(gemm_panels)(const REAL *v, idx count, idx C, const REAL *u, idx columns, REAL *m)
{
    for (idx j = 0; j < columns; j += PANEL) {
        const REAL *panel = u + j * C;
        REAL *to = m + j;
        idx row = 0;
        for (; row + ROWS <= count; row += ROWS)
            NAME(gemm_panel)(ROWS, v + row * C, C, 1, C, panel, 0, to + row * columns, columns, 0, 0, 0);
        for (; row < count; row++)
            NAME(gemm_panel)(1, v + row * C, C, 1, C, panel, 0, to + row * columns, columns, 0, 0, 0);
    }
}

/* One row of y (H, W, K) = max(x (H, W, C) * w + b, 0) and its mask; w is in panels of rows (i, j, c).
   workspace: patches (W, 9C), rounded up to 16 elements, and products (W, K). */
TARGET static void NAME(forward)(const void *x_, first_layer_shape s, const void *w, const void *b, idx row,
                                 void *workspace, void *y_, uint8_t *mask)
{
    const idx run = 3 * s.C; /* elements of a patch that are neighbors in x, too */
    REAL *patches = (REAL *)workspace, *m = patches + (s.W * 9 * s.C + 15) / 16 * 16;
    memset(patches, 0, s.W * 9 * s.C * sizeof(REAL));
    for (int i = 0; i < 3; i++) {
        const idx h = row + i - 1;
        if (h < 0 || h >= s.H)
            continue;
        const REAL *x = (const REAL *)x_ + h * s.W * s.C;
        for (idx pixel = 0; pixel < s.W; pixel++) {
            /* Elements of the run that are left and right of the picture. */
            const idx outside_left = pixel == 0 ? s.C : 0, outside_right = pixel == s.W - 1 ? s.C : 0;
            REAL *to = patches + (pixel * 3 + i) * run;
            for (idx n = outside_left; n < run - outside_right; n++)
                to[n] = x[(pixel - 1) * s.C + n];
        }
    }
    NAME(gemm_panels)(patches, s.W, 9 * s.C, (const REAL *)w, s.K, m);
    const int stream = s.H * s.W * s.K * (idx)sizeof(REAL) >= MIN_BYTES_TO_STREAM && (uintptr_t)y_ % 64 == 0;
    for (idx pixel = 0; pixel < s.W; pixel++)
        for (idx k = 0; k < s.K; k += LANES) {
            const idx element = (row * s.W + pixel) * s.K + k;
            const VEC value = LOAD(m + pixel * s.K + k) + LOAD((const REAL *)b + k);
            NAME(write_bits)(mask, element, POSITIVE(value));
            if (stream)
                STREAM((REAL *)y_ + element, RELU(value));
            else
                STORE((REAL *)y_ + element, RELU(value));
        }
    FENCE();
}

/* Rows first ... last - 1 of dx (H, W, C), from dy (H, W, K) where its mask has a bit; w is the transposed
   matrix, in panels of columns (i, j, c), padded with zeros to a whole number of panels.
   workspace: a row of masked dy (W, K), of dP (W, columns), and rows of dx with a pixel more at each end. */
TARGET static void NAME(backward)(const void *dy_, const uint8_t *mask, first_layer_shape s, const void *w,
                                  idx first, idx last, void *workspace, void *dx_)
{
    const idx run = 3 * s.C, columns = (9 * s.C + PANEL - 1) / PANEL * PANEL, padded_row = (s.W + 2) * s.C;
    REAL *dy = (REAL *)workspace, *dp = dy + s.W * s.K, *sums = dp + s.W * columns;
    memset(sums, 0, (last - first) * padded_row * sizeof(REAL));
    for (idx row = first - 1; row <= last; row++) { /* outputs that depend on these rows of x */
        if (row < 0 || row >= s.H)
            continue;
        for (idx n = 0; n < s.W * s.K; n += LANES) {
            const idx element = row * s.W * s.K + n;
            STORE(dy + n, MASKED(LOAD((const REAL *)dy_ + element), NAME(read_bits)(mask, element)));
        }
        NAME(gemm_panels)(dy, s.W, s.K, (const REAL *)w, columns, dp);
        for (int i = 0; i < 3; i++) {
            const idx h = row + i - 1;
            if (h < first || h >= last)
                continue;
            for (idx pixel = 0; pixel < s.W; pixel++) {
                REAL *sum = sums + (h - first) * padded_row + pixel * s.C;
                const REAL *part = dp + pixel * columns + i * run;
                for (idx n = 0; n < run; n++)
                    sum[n] += part[n];
            }
        }
    }
    for (idx h = first; h < last; h++)
        memcpy((REAL *)dx_ + h * s.W * s.C, sums + (h - first) * padded_row + s.C, s.W * s.C * sizeof(REAL));
}

static const first_layer_steps NAME(steps) = {PANEL, NAME(forward), NAME(backward)};
