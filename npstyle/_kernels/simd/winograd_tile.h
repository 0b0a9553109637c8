/* The steps of a Winograd convolution with tiles of TILE x TILE inputs, for one type of number and one
   instruction set: included by winograd_steps.h for both sizes of tiles.

   With the three transforms written as matrices B' (TILE x TILE), G (TILE x 3) and A' (OUT x TILE),

       V = B' d B      each tile d of the input, TILE x TILE elements of each channel c
       U = G g G'      each 3 x 3 filter g, from channel c to channel k
       M = V U         for each of the POINTS elements of a tile: a product over the channels
       y = A' M A      each tile of the output, OUT x OUT elements of each channel k

   A matrix is applied to columns, then to rows, by the ..._1d functions. The points are, for tiles of 8,
   0, +-1, +-2, +-1/2 and infinity, for tiles of 6, 0, +-sqrt(1/2), +-sqrt(2) and infinity: a pair +-p shares
   its even and its odd part.

   Layouts, from the slowest index to the fastest:

       v  (POINTS, tiles, C)            one matrix of tiles by input channels for each point
       g  (C, 3, 3, PANEL)              filters of one panel of output channels, packed
       u  (POINTS, C, PANEL)            the same, transformed: TILE rows of (TILE, C, PANEL)
       m  (POINTS, tiles, PANEL)        products */

#define OUT (TILE - 2)
#define POINTS (TILE * TILE)
#define TILED(f) JOIN(JOIN(f, TILE), SUFFIX)
#define PACKED_ROWS 8

/* y = B' x for x of TILE vectors: row p of B' has the coefficients of the product of (z - q) over all finite
   points q but p, row infinity those over all of them. At p = 0 the signs of this row and of filter_1d's are
   both reversed, which changes nothing. */
#if TILE == 8
INLINE void TILED(input_1d)(const VEC *x, VEC *y)
{
    VEC even, odd;
    y[0] = x[0] - x[6] + N(5.25) * (x[4] - x[2]);
    even = x[2] + x[6] - N(4.25) * x[4];
    odd = x[1] + x[5] - N(4.25) * x[3];
    y[1] = even + odd;
    y[2] = even - odd;
    even = x[6] + N(0.25) * x[2] - N(1.25) * x[4];
    odd = N(0.5) * x[1] - N(2.5) * x[3] + N(2) * x[5];
    y[3] = even + odd;
    y[4] = even - odd;
    even = x[6] + N(4) * x[2] - N(5) * x[4];
    odd = N(2) * x[1] - N(2.5) * x[3] + N(0.5) * x[5];
    y[5] = even + odd;
    y[6] = even - odd;
    y[7] = x[7] - x[1] + N(5.25) * (x[3] - x[5]);
}
#else
INLINE void TILED(input_1d)(const VEC *x, VEC *y)
{
    VEC even, odd;
    y[0] = x[0] - N(2.5) * x[2] + x[4];
    even = x[4] - N(2) * x[2];
    odd = N(SQRT2 / 2) * (x[3] - N(2) * x[1]);
    y[1] = even + odd;
    y[2] = even - odd;
    even = x[4] - N(0.5) * x[2];
    odd = N(SQRT2) * (x[3] - N(0.5) * x[1]);
    y[3] = even + odd;
    y[4] = even - odd;
    y[5] = x[1] - N(2.5) * x[3] + x[5];
}
#endif

/* y = G x for x of 3 vectors: row p of G is (1, p, p^2) over the product of (p - q), row infinity is
   (0, 0, 1). */
#if TILE == 8
INLINE void TILED(filter_1d)(const VEC *x, VEC *y)
{
    VEC even, odd;
    y[0] = x[0];
    even = N(-2. / 9) * (x[0] + x[2]);
    odd = N(-2. / 9) * x[1];
    y[1] = even + odd;
    y[2] = even - odd;
    even = N(1. / 90) * x[0] + N(4. / 90) * x[2];
    odd = N(2. / 90) * x[1];
    y[3] = even + odd;
    y[4] = even - odd;
    even = N(32. / 45) * x[0] + N(8. / 45) * x[2];
    odd = N(16. / 45) * x[1];
    y[5] = even + odd;
    y[6] = even - odd;
    y[7] = x[2];
}
#else
INLINE void TILED(filter_1d)(const VEC *x, VEC *y)
{
    VEC even, odd;
    y[0] = x[0];
    even = N(-2. / 3) * x[0] - N(1. / 3) * x[2];
    odd = N(-SQRT2 / 3) * x[1];
    y[1] = even + odd;
    y[2] = even - odd;
    even = N(1. / 6) * x[0] + N(1. / 3) * x[2];
    odd = N(SQRT2 / 6) * x[1];
    y[3] = even + odd;
    y[4] = even - odd;
    y[5] = x[2];
}
#endif

/* y = A' x for x of TILE vectors: row i of A' has p^i for every point. */
#if TILE == 8
INLINE void TILED(output_1d)(const VEC *x, VEC *y)
{
    VEC even1 = x[1] + x[2], odd1 = x[1] - x[2];
    VEC even2 = x[3] + x[4], odd2 = x[3] - x[4];
    VEC even3 = x[5] + x[6], odd3 = x[5] - x[6];
    y[0] = x[0] + even1 + even2 + even3;
    y[1] = odd1 + N(2) * odd2 + N(0.5) * odd3;
    y[2] = even1 + N(4) * even2 + N(0.25) * even3;
    y[3] = odd1 + N(8) * odd2 + N(0.125) * odd3;
    y[4] = even1 + N(16) * even2 + N(0.0625) * even3;
    y[5] = odd1 + N(32) * odd2 + N(0.03125) * odd3 + x[7];
}
#else
INLINE void TILED(output_1d)(const VEC *x, VEC *y)
{
    VEC even1 = x[1] + x[2], odd1 = x[1] - x[2];
    VEC even2 = x[3] + x[4], odd2 = x[3] - x[4];
    y[0] = x[0] + even1 + even2;
    y[1] = N(SQRT2 / 2) * odd1 + N(SQRT2) * odd2;
    y[2] = N(0.5) * even1 + N(2) * even2;
    y[3] = N(SQRT2 / 4) * odd1 + N(2 * SQRT2) * odd2 + x[5];
}
#endif

/* Tiles first ... first + count - 1 of x (H, W, C) to rows 0 ... count - 1 of v. With a mask, x counts as
   zero where the mask has no bit. `zeros` (C,) stands for pixels outside the picture and for their bits, as a
   strip's mask has no first byte to read instead. If x is pooled, it is the gradient of an average pooling
   (H / 2, W / 2, C), of which each pixel has a quarter of its cell's; a last odd row or column has none. */
INLINE void TILED(input_of_tiles)(const REAL *x, const uint8_t *mask, const REAL *zeros, winograd_shape s,
                                  idx first, idx count, REAL *tiles, winograd_strides v_strides,
                                  const int pooled)
{
    const idx tiles_per_row = (s.W + OUT - 1) / OUT;
    const idx cell = pooled ? 2 : 1, cells = s.W / cell;
    for (idx tile = first; tile < first + count; tile++) {
        REAL *v = tiles + (tile - first) * v_strides.row;
        const idx top = tile / tiles_per_row * OUT - 1, left = tile % tiles_per_row * OUT - 1;
        const REAL *pixel[POINTS];
        const uint8_t *bits[POINTS];
        for (int i = 0; i < TILE; i++)
            for (int j = 0; j < TILE; j++) {
                const idx h = top + i, w = left + j;
                const int inside = 0 <= h && h < s.H / cell * cell && 0 <= w && w < cells * cell;
                bits[i * TILE + j] = inside && mask ? mask + (h * s.W + w) * s.C / 8 : (const uint8_t *)zeros;
                pixel[i * TILE + j] = inside ? x + (h / cell * cells + w / cell) * s.C : zeros;
            }
        for (idx c = 0; c < s.C; c += LANES) {
            VEC half[TILE][TILE], before[TILE], after[TILE];
            for (int j = 0; j < TILE; j++) {
                for (int i = 0; i < TILE; i++) {
                    before[i] = LOAD(pixel[i * TILE + j] + c);
                    if (pooled)
                        before[i] = N(0.25) * before[i];
                    if (!pooled || (i % 2 && j % 2))
                        PREFETCH_L2(pixel[i * TILE + j], OUT / cell * s.C + c); /* the next tile */
                }
                if (mask)
                    for (int i = 0; i < TILE; i++)
                        before[i] = MASKED(before[i], NAME(read_bits)(bits[i * TILE + j], c));
                TILED(input_1d)(before, after);
                for (int i = 0; i < TILE; i++)
                    half[i][j] = after[i];
            }
            for (int i = 0; i < TILE; i++) {
                TILED(input_1d)(half[i], after);
                for (int j = 0; j < TILE; j++) {
                    STORE(v + (i * TILE + j) * v_strides.matrix + c, after[j]);
                    if (c % LINE == 0) /* a line has to be read before a part of it is written */
                        PREFETCH_L2(v, (i * TILE + j) * v_strides.matrix + c + 2 * LINE);
                }
            }
        }
    }
}

TARGET static void TILED(transform_input)(const void *x_, const uint8_t *mask, const void *zeros_,
                                          winograd_shape s, idx first, idx count, void *v_,
                                          winograd_strides v_strides, int pooled)
{
    const REAL *x = (const REAL *)x_, *zeros = (const REAL *)zeros_;
    REAL *v = (REAL *)v_;
    if (pooled)
        TILED(input_of_tiles)(x, mask, zeros, s, first, count, v, v_strides, 1);
    else
        TILED(input_of_tiles)(x, mask, zeros, s, first, count, v, v_strides, 0);
}

/* The filters of one panel of output channels, g (C, 3, 3, PANEL), from w (3, 3, C, K); with flip, those of
   the backward pass, from w (3, 3, K, C): rotated by 180 degrees, input and output channels exchanged. */
TARGET static void TILED(pack_filter)(const void *w_, winograd_shape s, int flip, idx panel, void *g_)
{
    const REAL *w = (const REAL *)w_;
    REAL *g = (REAL *)g_;
    if (!flip) {
        w += panel * PANEL;
        for (int tap = 0; tap < 9; tap++)
            for (idx c = 0; c < s.C; c++) {
                for (int k = 0; k < PANEL; k += LINE)
                    PREFETCH_L2(w, (tap * s.C + c + 128) * s.K + k);
                memcpy(g + (c * 9 + tap) * PANEL, w + (tap * s.C + c) * s.K, PANEL * sizeof(REAL));
            }
        return;
    }
    /* Some rows of w at a time, so that memory is read in a few streams; and each line of them square
       by square. */
    for (int tap = 0; tap < 9; tap++)
        for (idx k = 0; k < PANEL; k += PACKED_ROWS)
            for (idx c = 0; c < s.C; c += LINE) {
                const REAL *from = w + ((8 - tap) * s.K + panel * PANEL + k) * s.C + c;
                REAL *to = g + (c * 9 + tap) * PANEL + k;
                for (int i = 0; i < PACKED_ROWS; i++)
                    PREFETCH_L2(from, i * s.C + 8 * LINE);
                for (int j = 0; j < LINE; j += SQUARE)
                    for (int i = 0; i < PACKED_ROWS; i += SQUARE)
                        NAME(transpose)(from + i * s.C + j, s.C, to + j * 9 * PANEL + i, 9 * PANEL);
            }
}

/* One row of a panel's transformed filters, u (TILE, C, PANEL), from g (C, 3, 3, PANEL): a row of G applied
   to the columns, then filter_1d to the row that results. The matrices of u begin u_matrix elements apart. */
TARGET static void TILED(transform_filter)(const void *g_, idx C, int row, void *u_, idx u_matrix)
{
    static const REAL G[TILE][3] = {
        {1, 0, 0},
#if TILE == 8
        {N(-2. / 9), N(-2. / 9), N(-2. / 9)},
        {N(-2. / 9), N(2. / 9), N(-2. / 9)},
        {N(1. / 90), N(2. / 90), N(4. / 90)},
        {N(1. / 90), N(-2. / 90), N(4. / 90)},
        {N(32. / 45), N(16. / 45), N(8. / 45)},
        {N(32. / 45), N(-16. / 45), N(8. / 45)},
#else
        {N(-2. / 3), N(-SQRT2 / 3), N(-1. / 3)},
        {N(-2. / 3), N(SQRT2 / 3), N(-1. / 3)},
        {N(1. / 6), N(SQRT2 / 6), N(1. / 3)},
        {N(1. / 6), N(-SQRT2 / 6), N(1. / 3)},
#endif
        {0, 0, 1},
    };
    for (idx c = 0; c < C; c++)
        for (int k = 0; k < PANEL; k += LANES) {
            const REAL *g = (const REAL *)g_ + c * 9 * PANEL + k;
            REAL *u = (REAL *)u_ + c * PANEL + k;
            VEC half[3], after[TILE];
            for (int j = 0; j < 3; j++)
                half[j] = G[row][0] * LOAD(g + j * PANEL) + G[row][1] * LOAD(g + (3 + j) * PANEL) +
                          G[row][2] * LOAD(g + (6 + j) * PANEL);
            TILED(filter_1d)(half, after);
            for (int j = 0; j < TILE; j++)
                STORE(u + j * u_matrix, after[j]);
        }
}

/* A smaller v stays in the second-level cache. */
#define MIN_ELEMENTS_TO_PREFETCH (1048576 / (idx)sizeof(REAL))

/* m (points, count, PANEL) = v u with a panel u (points, C, PANEL), for some of the POINTS elements of a
   tile. The last rows are computed 4 or ROWS at a time; what is beyond `count` is never read. */
INLINE void TILED(gemm_rows)(const REAL *v, winograd_strides v_strides, idx points, idx count, idx C,
                             const REAL *u, idx u_matrix, REAL *m, winograd_strides m_strides, const int mode)
{
    const idx v_row = v_strides.row, m_row = m_strides.row;
    for (idx t = 0; t < points; t++, v += v_strides.matrix, u += u_matrix, m += m_strides.matrix)
        for (idx c = 0; c < C; c += DEPTH) {
            const idx depth = C - c < DEPTH ? C - c : DEPTH;
            const idx next_columns = c + depth < C ? depth : v_strides.matrix - c;
            const idx later = POINTS * v_strides.matrix >= MIN_ELEMENTS_TO_PREFETCH ? next_columns : 0;
            const REAL *panel = u + c * PANEL;
            idx row = 0;
            if (mode & UNROLLED && ROWS < count) {
                NAME(gemm_panel)(ROWS, v + c, v_row, 1, depth, panel, c > 0, m, m_row,
                                 mode | NEXT_ROWS | NEXT_PANEL_L2, 0, later);
                row = ROWS;
            }
            for (; row + ROWS < count; row += ROWS)
                NAME(gemm_panel)(ROWS, v + row * v_row + c, v_row, 1, depth, panel, c > 0, m + row * m_row,
                                 m_row, mode | NEXT_ROWS, 0, later);
            if (count - row > 4)
                NAME(gemm_panel)(ROWS, v + row * v_row + c, v_row, 1, depth, panel, c > 0, m + row * m_row,
                                 m_row, mode | NEXT_PANEL, 0, later);
            else
                NAME(gemm_panel)(4, v + row * v_row + c, v_row, 1, depth, panel, c > 0, m + row * m_row,
                                 m_row, mode | NEXT_PANEL, 0, later);
        }
}

/* `near`: u is in the second-level cache. */
TARGET static void TILED(gemm)(const void *v, winograd_strides v_strides, idx points, idx count, idx C,
                               const void *u, idx u_matrix, void *m, winograd_strides m_strides, int near)
{
    const REAL *rows = (const REAL *)v, *panels = (const REAL *)u;
    REAL *products = (REAL *)m;
    /* Where u is far. AVX2 then prefetches all of the next panel twice, products at 128 and 256 channels take
       0.93 of the time; AVX-512 has no step to spare for it, 1.05. */
    const int mode = LANES == 8 && sizeof(REAL) == 4 ? UNROLLED : 0;
    if (near)
        TILED(gemm_rows)(rows, v_strides, points, count, C, panels, u_matrix, products, m_strides, 0);
    else
        TILED(gemm_rows)(rows, v_strides, points, count, C, panels, u_matrix, products, m_strides, mode);
}

/* One panel of output channels of tiles first ... first + count - 1, to y (H, W, K): plus bias where there is
   one, ReLU with its mask where there is one, added to what y holds with `accumulate`. If y is pooled, it has
   the means of 2 x 2 outputs instead, (H / 2, W / 2, K); a tile has whole cells, but for a last odd row or column,
   which is dropped. A large y bypasses the caches: it would be evicted before it is read, and need not be read
   before it is written. Any other is read, and so prefetched. */
INLINE void TILED(output_of_tiles)(const REAL *products, winograd_strides m_strides, winograd_shape s,
                                   idx first, idx count, idx panel, const REAL *bias, uint8_t *mask,
                                   int accumulate, REAL *picture, const int pooled)
{
    const VEC zero = {0};
    const idx cell = pooled ? 2 : 1, tiles_per_row = (s.W + OUT - 1) / OUT;
    const idx bytes = (s.H / cell) * (s.W / cell) * s.K * (idx)sizeof(REAL);
    const int stream = !accumulate && bytes >= MIN_BYTES_TO_STREAM && (uintptr_t)picture % 64 == 0;
    for (idx tile = first; tile < first + count; tile++) {
        const idx top = tile / tiles_per_row * OUT, left = tile % tiles_per_row * OUT;
        const int rows = (int)(s.H - top < OUT ? s.H - top : OUT);
        const int columns = (int)(s.W - left < OUT ? s.W - left : OUT);
        for (idx k = 0; k < PANEL; k += STREAMED * LANES) {
            const idx channel = panel * PANEL + k;
            const REAL *m = products + (tile - first) * m_strides.row + k;
            VEC half[STREAMED][OUT][TILE], before[TILE], after[STREAMED][OUT], b[STREAMED];
            VEC upper[STREAMED][OUT]; /* sums of two outputs side by side */
            for (int l = 0; l < STREAMED; l++)
                b[l] = bias ? LOAD(bias + channel + l * LANES) : zero;
            for (int l = 0; l < STREAMED; l++)
                for (int j = 0; j < TILE; j++) {
                    for (int i = 0; i < TILE; i++)
                        before[i] = LOAD(m + (i * TILE + j) * m_strides.matrix + l * LANES);
                    TILED(output_1d)(before, after[l]);
                    for (int i = 0; i < OUT; i++)
                        half[l][i][j] = after[l][i];
                }
            for (int i = 0; i < rows; i++) {
                for (int l = 0; l < STREAMED; l++)
                    TILED(output_1d)(half[l][i], after[l]);
                for (int j = 0; j < columns; j++)
                    for (int l = 0; l < STREAMED; l++) {
                        const idx element = ((top + i) * s.W + left + j) * s.K + channel + l * LANES;
                        VEC value = after[l][j] + b[l];
                        if (mask) {
                            NAME(write_bits)(mask, element, POSITIVE(value));
                            value = RELU(value);
                        }
                        if (pooled) {
                            after[l][j] = value;
                            continue;
                        }
                        REAL *y = picture + element;
                        if (!stream && l == 0)
                            PREFETCH_L2(y, OUT * s.K); /* the next tile */
                        if (stream)
                            STREAM(y, value);
                        else
                            STORE(y, accumulate ? value + LOAD(y) : value);
                    }
                for (int j = 0; pooled && j + 1 < columns; j += 2)
                    for (int l = 0; l < STREAMED; l++) {
                        const VEC pair = after[l][j] + after[l][j + 1];
                        if (i % 2 == 0) {
                            upper[l][j] = pair;
                            continue;
                        }
                        const idx at = (top + i) / 2 * (s.W / 2) + (left + j) / 2;
                        REAL *y = picture + at * s.K + channel + l * LANES;
                        const VEC mean = N(0.25) * (upper[l][j] + pair);
                        if (!stream && l == 0)
                            PREFETCH_L2(y, OUT / 2 * s.K);
                        if (stream)
                            STREAM(y, mean);
                        else
                            STORE(y, mean);
                    }
            }
        }
    }
    FENCE();
}

TARGET static void TILED(transform_output)(const void *m_, winograd_strides m_strides, winograd_shape s,
                                           idx first, idx count, idx panel, const void *bias_, uint8_t *mask,
                                           int accumulate, void *y_, int pooled)
{
    const REAL *m = (const REAL *)m_, *bias = (const REAL *)bias_;
    REAL *y = (REAL *)y_;
    if (pooled)
        TILED(output_of_tiles)(m, m_strides, s, first, count, panel, bias, mask, 0, y, 1);
    else
        TILED(output_of_tiles)(m, m_strides, s, first, count, panel, bias, mask, accumulate, y, 0);
}

#undef OUT
#undef POINTS
#undef TILED
#undef PACKED_ROWS
#undef MIN_ELEMENTS_TO_PREFETCH
