/* Vectors of LANES numbers, and the one product that everything comes down to, for one type of number and
   one instruction set. instruction_sets.h includes this, then the STEPS written with it. */

/* Columns that are multiplied at a time: no two panels share a byte of a mask. */
#define PANEL (LANES < 4 ? 8 : 2 * LANES)
#define WIDTH (PANEL / LANES)

#if defined(__GNUC__)
typedef REAL NAME(vec) __attribute__((vector_size(LANES * sizeof(REAL))));
typedef INTEGER NAME(bits) __attribute__((vector_size(LANES * sizeof(REAL))));
/* The same at any address. */
typedef REAL NAME(loose) __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define VEC NAME(vec)
#define LOAD(p) ((VEC) * (const NAME(loose) *)(p))
#define STORE(p, v) (*(NAME(loose) *)(p) = (v))
#define LANE(v, i) ((v)[i])
/* Not "v if v > 0": a NaN is to come out as a NaN, not as a silent zero. */
#define RECTIFY(v) ((VEC)((NAME(bits))(v) & ~(NAME(bits))((v) < 0)))
#else
typedef REAL NAME(vec);
#define VEC NAME(vec)
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define LANE(v, i) (v)
#define RECTIFY(v) ((v) < 0 ? 0 : (v))
#endif
#define N(number) ((REAL)(number))

/* Bits of a mask that belong to LANES numbers from element i on; fewer than 8 of them share a byte. */
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

/* To memory, past the caches, where the instruction set can: whole cache lines only. */
#ifdef STREAM
#define FENCE() _mm_sfence()
#else
#define STREAM(p, v) STORE(p, v)
#define FENCE() ((void)0)
#endif

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

#ifndef KEEP
INLINE VEC NAME(keep)(VEC v, unsigned bits)
{
#if defined(__GNUC__)
    NAME(bits) lane;
    for (int i = 0; i < LANES; i++)
        lane[i] = 1 << i;
    return (VEC)((NAME(bits))v & (NAME(bits))(((INTEGER)bits & lane) != 0));
#else
    return bits ? v : 0;
#endif
}
#define KEEP(v, bits) NAME(keep)(v, bits)
#endif

/* m (rows, PANEL) = v (rows, C) u (C, PANEL), or += with `more`; the sums stay in registers. v, m have
   so many numbers from row to row, v has `v_next` from column to column. With `ahead` the next rows of v
   are fetched meanwhile, which helps where v is not in the second-level cache, and costs where it is; with
   `stream`, m goes past the caches. */
INLINE void NAME(product)(const int rows, const REAL *v, idx v_row, idx v_next, idx C, const REAL *u,
                          int more, REAL *m, idx m_row, const int ahead, const int stream)
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
        if (ahead)
            PREFETCH(v + (rows + c % ROWS) * v_row + c / ROWS * ROWS);
        UNROLL
        for (int i = 0; i < WIDTH; i++)
            column[i] = LOAD(u + i * LANES);
        UNROLL
        for (int r = 0; r < rows; r++)
            UNROLL
            for (int i = 0; i < WIDTH; i++)
                sum[r][i] += v[r * v_row + c * v_next] * column[i];
    }
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int i = 0; i < WIDTH; i++)
            if (stream)
                STREAM(m + r * m_row + i * LANES, sum[r][i]);
            else
                STORE(m + r * m_row + i * LANES, more ? LOAD(m + r * m_row + i * LANES) + sum[r][i] : sum[r][i]);
}
