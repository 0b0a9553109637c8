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
#define SUMS 2 /* of each product at a time: a processor adds while earlier additions are under way */

TARGET static void NAME(widen)(const void *a_, idx count, double *wide)
{
    const REAL *a = (const REAL *)a_;
    for (idx i = 0; i < count; i++)
        wide[i] = a[i];
}

/* sums (2, 2): += the products of two vectors, `stride` elements apart, with b and with c. Two at a time: it is
   loads that they wait for, and b and c are as long as four of them. */
TARGET static void NAME(dot)(const void *a_, idx stride, idx count, const double *b, const double *c,
                             double *sums)
{
    const REAL *rows[2] = {(const REAL *)a_, (const REAL *)a_ + stride};
    const NAME(wide) zero = {0};
    NAME(wide) sum[SUMS][4];
    idx i = 0;
    UNROLL
    for (int k = 0; k < SUMS; k++)
        UNROLL
        for (int j = 0; j < 4; j++)
            sum[k][j] = zero;
    for (; i + SUMS * WIDE_LANES <= count; i += SUMS * WIDE_LANES)
        UNROLL
        for (int k = 0; k < SUMS; k++) {
            const NAME(wide) vb = LOAD_WIDE(b + i + k * WIDE_LANES), vc = LOAD_WIDE(c + i + k * WIDE_LANES);
            UNROLL
            for (int r = 0; r < 2; r++) {
                const NAME(wide) v = (NAME(wide))WIDEN(rows[r] + i + k * WIDE_LANES);
                sum[k][2 * r] += v * vb;
                sum[k][2 * r + 1] += v * vc;
            }
        }
    UNROLL
    for (int j = 0; j < 4; j++) {
        NAME(wide) total = sum[0][j];
        UNROLL
        for (int k = 1; k < SUMS; k++)
            total += sum[k][j];
        for (int lane = 0; lane < WIDE_LANES; lane++)
            sums[j] += LANE(total, lane);
    }
    for (; i < count; i++)
        for (int r = 0; r < 2; r++) {
            sums[2 * r] += rows[r][i] * b[i];
            sums[2 * r + 1] += rows[r][i] * c[i];
        }
}

/* sum = weight a */
TARGET static void NAME(scale)(const void *a_, idx count, double weight, double *sum)
{
    const REAL *a = (const REAL *)a_;
    for (idx i = 0; i < count; i++)
        sum[i] = weight * a[i];
}

/* sum += four weighted vectors, `stride` elements apart */
TARGET static void NAME(add)(const void *a_, idx stride, idx count, const double *weights, double *sum)
{
    const REAL *a = (const REAL *)a_, *b = a + stride, *c = b + stride, *d = c + stride;
    const double wa = weights[0], wb = weights[1], wc = weights[2], wd = weights[3];
    for (idx i = 0; i < count; i++)
        sum[i] = sum[i] + wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
}

TARGET static void NAME(narrow)(const double *sum, idx count, void *out_)
{
    REAL *out = (REAL *)out_;
    for (idx i = 0; i < count; i++)
        out[i] = (REAL)sum[i];
}

static const lbfgs_steps NAME(steps) = {NAME(widen), NAME(dot), NAME(scale), NAME(add), NAME(narrow)};

#undef WIDE_LANES
#undef LOAD_WIDE
#undef SUMS
