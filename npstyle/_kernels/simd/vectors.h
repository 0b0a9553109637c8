/* Vectors of LANES numbers, and the one matrix product that everything comes down to, for one type of number
   and one instruction set. instruction_sets.h includes this, then the STEPS written with it.

   ROWS rows by COLUMNS columns are multiplied at a time, their sums in registers:

       m (ROWS, COLUMNS)  =  v (ROWS, C)  u (C, COLUMNS)

   A matrix u of more columns is kept in panels, (columns / PANEL, C, PANEL), of two cache lines for each row:
   one line or two are multiplied at a time. ROWS rows of v are read for all of a panel, so that v, which comes
   from further away than u, is read as seldom with narrow vectors as with wide ones. No two panels share a
   byte of a mask. */
#define LINE (64 / (idx)sizeof(REAL))
#define PANEL (2 * LINE)
#define WIDTH (LANES == 1 ? 8 : 2)
#define COLUMNS (WIDTH * LANES)

#if GNU_VECTORS
typedef REAL NAME(vec) __attribute__((vector_size(LANES * sizeof(REAL))));
typedef INTEGER NAME(bits) __attribute__((vector_size(LANES * sizeof(REAL))));
/* The same at any address. */
typedef REAL NAME(unaligned)
    __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define VEC NAME(vec)
#define LOAD(p) ((VEC) * (const NAME(unaligned) *)(p))
#define STORE(p, v) (*(NAME(unaligned) *)(p) = (v))
#define LANE(v, i) ((v)[i])
/* Not "v if v > 0": a NaN has to stay a NaN. */
#define RELU(v) ((VEC)((NAME(bits))(v) & ~(NAME(bits))((v) < 0)))
#else
typedef REAL NAME(vec);
#define VEC NAME(vec)
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define LANE(v, i) (v)
#define RELU(v) ((v) < 0 ? 0 : (v))
#endif
#define N(number) ((REAL)(number))

/* Bits of a mask for LANES elements from element i on; fewer than 8 of them share a byte. */
INLINE unsigned NAME(read_bits)(const uint8_t *mask, idx i)
{
    mask += i / 8;
    if (LANES == 16)
        return mask[0] | (unsigned)mask[1] << 8;
    return ((unsigned)mask[0] >> i % 8) & ((1u << LANES) - 1);
}

INLINE void NAME(write_bits)(uint8_t *mask, idx i, unsigned bits)
{
    mask += i / 8;
    if (LANES >= 8)
        for (int byte = 0; byte < LANES / 8; byte++)
            mask[byte] = (uint8_t)(bits >> 8 * byte);
    else
        mask[0] = (uint8_t)((i % 8 ? mask[0] : 0) | bits << i % 8);
}

/* A store that bypasses the caches, where the instruction set has one; p is aligned to the vector's size. */
#ifdef STREAM
#define FENCE() _mm_sfence()
/* Vectors to store one after the other: a line that is written in halves takes ten times as long. */
#define STREAMED ((int)(LINE / LANES))
#else
#define STREAMED 1
#define STREAM(p, v) STORE(p, v)
#define FENCE() ((void)0)
#endif

/* A bit for each lane that is above zero. */
#ifndef POSITIVE
INLINE unsigned NAME(positive)(VEC v)
{
    unsigned bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (unsigned)(LANE(v, i) > 0) << i;
    return bits;
}
#define POSITIVE(v) NAME(positive)(v)
#endif

/* v in the lanes that have a bit, zero in the others. */
#ifndef MASKED
INLINE VEC NAME(masked)(VEC v, unsigned bits)
{
#if GNU_VECTORS
    NAME(bits) lane;
    for (int i = 0; i < LANES; i++)
        lane[i] = 1 << i;
    return (VEC)((NAME(bits))v & (NAME(bits))(((INTEGER)bits & lane) != 0));
#else
    return bits ? v : 0;
#endif
}
#define MASKED(v, bits) NAME(masked)(v, bits)
#endif

/* A square of as many rows as 16 bytes hold columns, from x transposed to y; rows begin x_row and y_row
   elements apart. Every processor has vectors of 16 bytes. */
#if GNU_VECTORS
#define SQUARE (16 / (int)sizeof(REAL))
typedef int32_t NAME(square_row)
    __attribute__((vector_size(16), aligned(sizeof(REAL)), may_alias));
INLINE void NAME(transpose)(const REAL *x, idx x_row, REAL *y, idx y_row)
{
    NAME(square_row) row[SQUARE], merged[SQUARE];
    UNROLL
    for (int i = 0; i < SQUARE; i++)
        row[i] = *(const NAME(square_row) *)(x + i * x_row);
    /* Each step merges rows that are half a square apart, element by element. */
    UNROLL
    for (int step = 1; step < SQUARE; step *= 2) {
        UNROLL
        for (int i = 0; i < SQUARE / 2; i++) {
            const NAME(square_row) a = row[i], b = row[i + SQUARE / 2];
            merged[2 * i] = SQUARE == 4 ? SHUFFLE(a, b, 0, 4, 1, 5) : SHUFFLE(a, b, 0, 1, 4, 5);
            merged[2 * i + 1] = SQUARE == 4 ? SHUFFLE(a, b, 2, 6, 3, 7) : SHUFFLE(a, b, 2, 3, 6, 7);
        }
        UNROLL
        for (int i = 0; i < SQUARE; i++)
            row[i] = merged[i];
    }
    UNROLL
    for (int i = 0; i < SQUARE; i++)
        *(NAME(square_row) *)(y + i * y_row) = row[i];
}
#else
#define SQUARE 1
INLINE void NAME(transpose)(const REAL *x, idx x_row, REAL *y, idx y_row)
{
    (void)x_row, (void)y_row;
    *y = *x;
}
#endif

/* What `gemm_panel` reads ahead while it multiplies: the next rows of v, and what follows its panel of u, or
   the latter to the second-level cache only. */
#define NEXT_ROWS 1
#define NEXT_PANEL 2
#define NEXT_PANEL_L2 8
/* ROWS steps of its loop in a row: 0.9 of the time with AVX2 where u comes from the third-level cache, 1.04
   where it is in the second, and 1.06 with AVX-512. */
#define UNROLLED 4

/* One step of the product: sum += column c of v times row c of u. */
INLINE void NAME(gemm_step)(const int rows, const REAL *v, idx v_row, idx v_column, const REAL *u, idx c,
                            VEC sum[ROWS][WIDTH])
{
    VEC column[WIDTH];
    UNROLL
    for (int i = 0; i < WIDTH; i++)
        column[i] = LOAD(u + c * PANEL + i * LANES);
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int i = 0; i < WIDTH; i++)
            sum[r][i] += v[r * v_row + c * v_column] * column[i];
}

/* m (rows, COLUMNS) = v (rows, C) u (C, COLUMNS), or += with `accumulate`. Rows of m begin m_row elements
   apart, rows of v v_row and columns of v v_column, rows of u PANEL; after its panel of u comes `next`, and
   `later` elements after v what follows all its rows, if it is not 0. With `stream`, m bypasses the caches.
   Prefetches are spread over the steps: in bursts they wait for each other. */
INLINE void NAME(gemm_microkernel)(const int rows, const REAL *v, idx v_row, idx v_column, idx C,
                                   const REAL *u, const REAL *next, int accumulate, REAL *m, idx m_row,
                                   const int mode, const int stream, idx later)
{
    const VEC zero = {0};
    VEC sum[ROWS][WIDTH];
    /* From v to the element that is prefetched, of each row in turn. */
    const idx first_ahead = mode & NEXT_ROWS ? ROWS * v_row : later;
    idx c = 0, ahead = first_ahead;
    int turns = ROWS;
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int i = 0; i < WIDTH; i++)
            sum[r][i] = zero;
    if (mode & UNROLLED)
        for (; c < C - C % ROWS; c += ROWS)
            UNROLL
            for (int step = 0; step < ROWS; step++) {
                BARRIER();
                if (mode & NEXT_ROWS)
                    PREFETCH(v, (ROWS + step) * v_row + c);
                if (mode & NEXT_PANEL)
                    UNROLL
                    for (int i = 0; i < COLUMNS; i += LINE)
                        PREFETCH(next, (c + step) * PANEL + i);
                if (mode & NEXT_PANEL_L2)
                    UNROLL
                    for (int i = 0; i < COLUMNS; i += LINE)
                        PREFETCH_L2(next, (c + step) * PANEL + i);
                NAME(gemm_step)(rows, v, v_row, v_column, u, c + step, sum);
            }
    for (; c < C; c++) {
        if (first_ahead) {
            if (mode & NEXT_ROWS)
                PREFETCH(v, ahead);
            else
                PREFETCH_L2(v, ahead);
            ahead += v_row;
            if (--turns == 0) {
                turns = ROWS;
                ahead = first_ahead + c;
            }
        }
        if (mode & NEXT_PANEL)
            UNROLL
            for (int i = 0; i < COLUMNS; i += LINE)
                PREFETCH(next, c * PANEL + i);
        NAME(gemm_step)(rows, v, v_row, v_column, u, c, sum);
    }
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int i = 0; i < WIDTH; i++)
            if (stream)
                STREAM(m + r * m_row + i * LANES, sum[r][i]);
            else
                STORE(m + r * m_row + i * LANES,
                      accumulate ? LOAD(m + r * m_row + i * LANES) + sum[r][i] : sum[r][i]);
}

/* The same for a whole panel: m (rows, PANEL) = v (rows, C) u (C, PANEL). */
INLINE void NAME(gemm_panel)(const int rows, const REAL *v, idx v_row, idx v_column, idx C, const REAL *u,
                             int accumulate, REAL *m, idx m_row, const int mode, const int stream, idx later)
{
    const REAL *next = u + C * PANEL;
    NAME(gemm_microkernel)(rows, v, v_row, v_column, C, u, next, accumulate, m, m_row, mode, stream,
                           later);
    for (int i = COLUMNS; i < PANEL; i += COLUMNS)
        NAME(gemm_microkernel)(rows, v, v_row, v_column, C, u + i, next + i, accumulate, m + i, m_row,
                               mode & ~NEXT_ROWS, stream, later);
}
