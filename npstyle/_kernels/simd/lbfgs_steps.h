/* Dot products and linear combinations of vectors, for one type of number and one instruction set: included by
   instruction_sets.h, after vectors.h. All arithmetic is in float64.

   The order of sums is written down, by lanes, as compilers may not choose one. What has no sums across
   elements is left to them. */

#if GNU_VECTORS
#define WIDE_LANES ((idx)(LANES * sizeof(REAL) / sizeof(double)))
typedef double NAME(wide) __attribute__((vector_size(LANES * sizeof(REAL))));
typedef double NAME(wide_unaligned)
    __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(double)), may_alias));
/* As many elements as a vector of doubles has, at any address. Where the instruction set has one conversion for
   them, WIDEN is that: GCC makes several of `__builtin_convertvector`. */
#ifndef WIDEN
typedef REAL NAME(narrow_vec) __attribute__((
    vector_size(LANES * sizeof(REAL) * sizeof(REAL) / sizeof(double)), aligned(sizeof(REAL)), may_alias));
#define WIDEN(p) __builtin_convertvector(*(const NAME(narrow_vec) *)(p), NAME(wide))
#endif
#define LOAD_WIDE(p) ((NAME(wide)) * (const NAME(wide_unaligned) *)(p))
#else
#define WIDE_LANES ((idx)1)
typedef double NAME(wide);
#define WIDEN(p) ((double)*(p))
#define LOAD_WIDE(p) (*(p))
#endif
#define DOT_ROWS 4

TARGET static void NAME(widen)(const void *a_, idx count, double *wide)
{
    const REAL *a = (const REAL *)a_;
    for (idx i = 0; i < count; i++)
        wide[i] = a[i];
}

/* sums (rows, 2): += the products of vectors, `stride` elements apart, with b and with c. */
INLINE void NAME(dot_rows)(const int rows, const REAL *a, idx stride, idx count, const double *b,
                           const double *c, double *sums)
{
    const NAME(wide) zero = {0};
    NAME(wide) sum[2 * DOT_ROWS];
    idx i = 0;
    UNROLL
    for (int j = 0; j < 2 * rows; j++)
        sum[j] = zero;
    for (; i + WIDE_LANES <= count; i += WIDE_LANES) {
        const NAME(wide) vb = LOAD_WIDE(b + i), vc = LOAD_WIDE(c + i);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const NAME(wide) v = (NAME(wide))WIDEN(a + r * stride + i);
            sum[2 * r] += v * vb;
            sum[2 * r + 1] += v * vc;
        }
    }
    UNROLL
    for (int j = 0; j < 2 * rows; j++)
        for (int lane = 0; lane < WIDE_LANES; lane++)
            sums[j] += LANE(sum[j], lane);
    for (; i < count; i++)
        for (int r = 0; r < rows; r++) {
            sums[2 * r] += a[r * stride + i] * b[i];
            sums[2 * r + 1] += a[r * stride + i] * c[i];
        }
}

/* Several rows at a time wait less for memory, and for b and c. */
TARGET static void NAME(dot)(const void *a_, idx rows, idx stride, idx count, const double *b,
                             const double *c, double *sums)
{
    const REAL *a = (const REAL *)a_;
    idx r = 0;
    for (; r + DOT_ROWS <= rows; r += DOT_ROWS)
        NAME(dot_rows)(DOT_ROWS, a + r * stride, stride, count, b, c, sums + 2 * r);
    for (; r < rows; r++)
        NAME(dot_rows)(1, a + r * stride, stride, count, b, c, sums + 2 * r);
}

/* sum += four weighted vectors, `stride` elements apart */
INLINE void NAME(add_four)(const REAL *a, idx stride, idx count, const double *weights, double *sum)
{
    const REAL *b = a + stride, *c = b + stride, *d = c + stride;
    const double wa = weights[0], wb = weights[1], wc = weights[2], wd = weights[3];
    for (idx i = 0; i < count; i++)
        sum[i] = sum[i] + wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
}

/* out = b and the rows of a, by their weights; `sum` (count) is workspace */
TARGET static void NAME(combine)(const void *a_, idx rows, idx stride, idx count, const void *b_,
                                 const double *weights, double *sum, void *out_)
{
    const REAL *a = (const REAL *)a_, *b = (const REAL *)b_;
    REAL *out = (REAL *)out_;
    idx r = 0;
    for (idx i = 0; i < count; i++)
        sum[i] = weights[rows] * b[i];
    for (; r + 4 <= rows; r += 4)
        NAME(add_four)(a + r * stride, stride, count, weights + r, sum);
    for (; r < rows; r++)
        for (idx i = 0; i < count; i++)
            sum[i] += weights[r] * a[r * stride + i];
    for (idx i = 0; i < count; i++)
        out[i] = (REAL)sum[i];
}

static const lbfgs_steps NAME(steps) = {NAME(widen), NAME(dot), NAME(combine)};

#undef WIDE_LANES
#undef LOAD_WIDE
#undef DOT_ROWS
