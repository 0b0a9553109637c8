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

INLINE idx NAME(clamped)(idx i, idx count)
{
    return i < 0 ? 0 : i < count ? i : count - 1;
}

/* Patches (count, 9C) of pixels first ... first + count - 1 of a row of x; `run` is 3C, constant where it is
   inlined for three channels. */
INLINE void NAME(im2col)(const REAL *x, first_layer_shape s, idx row, idx first, idx count, const idx run,
                         REAL *patches)
{
    const idx C = run / 3;
    for (int i = 0; i < 3; i++) {
        const idx below = row + i - 1, h = s.replicate ? NAME(clamped)(below, s.H) : below;
        const int inside = 0 <= h && h < s.H;
        REAL *to = patches + i * run;
        for (idx pixel = first; pixel < first + count; pixel++, to += 3 * run) {
            const idx left = (h * s.W + pixel - 1) * C;
            if (inside && 0 < pixel && pixel < s.W - 1)
                for (idx n = 0; n < run; n++)
                    to[n] = x[left + n];
            else
                for (idx n = 0; n < run; n++) {
                    const idx at = pixel - 1 + n / C, w = s.replicate ? NAME(clamped)(at, s.W) : at;
                    to[n] = inside && 0 <= w && w < s.W ? x[(h * s.W + w) * C + n % C] : 0;
                }
        }
    }
}

/* One row of y (H, W, K) = max(x (H, W, C) * w + b, 0) and its mask; w is in panels of rows (i, j, c).
   workspace: patches (PIXELS, 9C), rounded up to 16 elements, and products (PIXELS, K). */
TARGET static void NAME(forward)(const void *x_, first_layer_shape s, const void *w, const void *b, idx row,
                                 void *workspace, void *y_, uint8_t *mask)
{
    const REAL *x = (const REAL *)x_;
    REAL *patches = (REAL *)workspace, *m = patches + (PIXELS * 9 * s.C + 15) / 16 * 16;
    const int stream = s.H * s.W * s.K * (idx)sizeof(REAL) >= MIN_BYTES_TO_STREAM && (uintptr_t)y_ % 64 == 0;
    for (idx first = 0; first < s.W; first += PIXELS) {
        const idx count = s.W - first < PIXELS ? s.W - first : PIXELS;
        if (s.C == 3)
            NAME(im2col)(x, s, row, first, count, 9, patches);
        else
            NAME(im2col)(x, s, row, first, count, 3 * s.C, patches);
        NAME(gemm_panels)(patches, count, 9 * s.C, (const REAL *)w, s.K, m);
        for (idx pixel = 0; pixel < count; pixel++)
            for (idx k = 0; k < s.K; k += LANES) {
                const idx element = (row * s.W + first + pixel) * s.K + k;
                const VEC value = LOAD(m + pixel * s.K + k) + LOAD((const REAL *)b + k);
                NAME(write_bits)(mask, element, POSITIVE(value));
                if (stream)
                    STREAM((REAL *)y_ + element, RELU(value));
                else
                    STORE((REAL *)y_ + element, RELU(value));
            }
    }
    FENCE();
}

/* Add runs of dP (count, columns) to the pixels of a row of dx that they come from; `run` as in `im2col`. */
INLINE void NAME(col2im)(const REAL *dp, idx count, idx columns, const idx run, REAL *sum)
{
    for (idx pixel = 0; pixel < count; pixel++, dp += columns, sum += run / 3)
        for (idx n = 0; n < run; n++)
            sum[n] += dp[n];
}

INLINE void NAME(add)(REAL *sum, const REAL *x, idx count)
{
    for (idx n = 0; n < count; n++)
        sum[n] += x[n];
}

/* Rows first ... last - 1 of dx (H, W, C), from dy (H, W, K) where its mask has a bit; w is the transposed
   matrix, in panels of columns (i, j, c), padded with zeros to full panels.
   workspace: masked dy (PIXELS, K), dP (PIXELS, columns), and rows of dx with a pixel more at each end. With
   `replicate` a pixel of the border also gets what belongs to its copies: there is a row more at each end, too. */
TARGET static void NAME(backward)(const void *dy_, const uint8_t *mask, first_layer_shape s, const void *w,
                                  idx first, idx last, void *workspace, void *dx_)
{
    const idx run = 3 * s.C, columns = (9 * s.C + PANEL - 1) / PANEL * PANEL, padded_row = (s.W + 2) * s.C;
    const idx top = first - (s.replicate && first == 0), bottom = last + (s.replicate && last == s.H);
    REAL *dy = (REAL *)workspace, *dp = dy + PIXELS * s.K, *workspace_sums = dp + PIXELS * columns;
    REAL *sums = workspace_sums + (first - top) * padded_row; /* of row `first` */
    memset(workspace_sums, 0, (bottom - top) * padded_row * sizeof(REAL));
    for (idx row = first - 1; row <= last; row++) { /* outputs that depend on these rows of x */
        if (row < 0 || row >= s.H)
            continue;
        for (idx left = 0; left < s.W; left += PIXELS) {
            const idx count = s.W - left < PIXELS ? s.W - left : PIXELS;
            for (idx n = 0; n < count * s.K; n += LANES) {
                const idx element = (row * s.W + left) * s.K + n;
                if (n % LINE == 0)
                    PREFETCH_L2(dy_, element + count * s.K);
                STORE(dy + n, MASKED(LOAD((const REAL *)dy_ + element), NAME(read_bits)(mask, element)));
            }
            NAME(gemm_panels)(dy, count, s.K, (const REAL *)w, columns, dp);
            for (int i = 0; i < 3; i++) {
                const idx h = row + i - 1;
                if (h < top || h >= bottom)
                    continue;
                REAL *sum = sums + (h - first) * padded_row + left * s.C;
                const REAL *part = dp + i * run;
                if (s.C == 3)
                    NAME(col2im)(part, count, columns, 9, sum);
                else
                    NAME(col2im)(part, count, columns, run, sum);
            }
        }
    }
    if (top < first)
        NAME(add)(sums, workspace_sums, padded_row);
    if (bottom > last)
        NAME(add)(sums + (last - 1 - first) * padded_row, sums + (last - first) * padded_row, padded_row);
    for (idx h = first; s.replicate && h < last; h++) {
        REAL *sum = sums + (h - first) * padded_row;
        NAME(add)(sum + s.C, sum, s.C);
        NAME(add)(sum + s.W * s.C, sum + (s.W + 1) * s.C, s.C);
    }
    for (idx h = first; h < last; h++)
        memcpy((REAL *)dx_ + h * s.W * s.C, sums + (h - first) * padded_row + s.C, s.W * s.C * sizeof(REAL));
}

static const first_layer_steps NAME(steps) = {PANEL, NAME(forward), NAME(backward)};
