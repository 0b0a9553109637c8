/* Vectors of LANES numbers, and the one matrix product that everything comes down to, for one type of number
   and one instruction set. instruction_sets.h includes this, then the STEPS written with it.

   ROWS rows by PANEL columns are multiplied at a time, their sums in registers:

       m (ROWS, PANEL)  =  v (ROWS, C)  u (C, PANEL)

   A matrix u of more columns is kept in panels, (columns / PANEL, C, PANEL): one panel is read from its first
   element to its last. */

/* No two panels share a byte of a mask. */
#define PANEL (LANES < 4 ? 8 : 2 * LANES)
#define WIDTH (PANEL / LANES)

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
#else
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

/* m (rows, PANEL) = v (rows, C) u (C, PANEL), or += with `accumulate`. Rows of m begin m_row elements apart,
   rows of v v_row and columns of v v_column. `prefetch` reads ahead in the next rows of v: 0.89 of the time
   where v is in the third-level cache, but slower where it is in the second. With `stream`, m bypasses the
   caches. */
INLINE void NAME(gemm_microkernel)(const int rows, const REAL *v, idx v_row, idx v_column, idx C,
                                   const REAL *u, int accumulate, REAL *m, idx m_row, const int prefetch,
                                   const int stream)
{
    const VEC zero = {0};
    VEC sum[ROWS][WIDTH];
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int i = 0; i < WIDTH; i++)
            sum[r][i] = zero;
    for (idx c = 0; c < C; c++, u += PANEL) {
        VEC column[WIDTH];
        if (prefetch)
            PREFETCH(v, (rows + c % ROWS) * v_row + c / ROWS * ROWS);
        UNROLL
        for (int i = 0; i < WIDTH; i++)
            column[i] = LOAD(u + i * LANES);
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int i = 0; i < WIDTH; i++)
                sum[r][i] += v[r * v_row + c * v_column] * column[i];
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
