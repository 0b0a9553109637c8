/* Compile STEPS for float and double, and on x86-64 for AVX-512, for AVX2 with FMA, and for what every
   such processor has; elsewhere (arm64, other compilers) once. FIND then asks the processor which to take,
   so one build runs anywhere, at the full speed of where it runs.

   STEPS is a file written with vectors.h; it ends in a struct NAME(steps). */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef ptrdiff_t idx;

/* Terms of a sum that are added up before it is added to what there is: a panel of as many rows fits the L1
   cache, and short sums round less (half as much here as sums of 512 terms). */
#define DEPTH 128
#define STREAMED 12000000 /* bytes of an output from which on it is written past the caches */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, SUFFIX)

/* GNU C's vectors are plain arithmetic that any target compiles to what it has. */
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline)) TARGET
#define UNROLL _Pragma("GCC unroll 16")
#define PREFETCH(p) __builtin_prefetch(p)
#else
#define INLINE static inline
#define UNROLL
#define PREFETCH(p) ((void)0)
#endif

#if defined(__GNUC__) && defined(__x86_64__)

#define X86 1
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define ISA "avx512"
#define ROWS 8
#define SUFFIX avx512_float
#define REAL float
#define INTEGER int32_t
#define LANES 16
#define POSITIVE(v) _mm512_cmp_ps_mask((__m512)(v), _mm512_setzero_ps(), _CMP_GT_OQ)
#define KEEP(v, bits) ((VEC)_mm512_maskz_mov_ps((__mmask16)(bits), (__m512)(v)))
#define STREAM(p, v) _mm512_stream_ps(p, (__m512)(v))
#include "vectors.h"
#include STEPS
#include "undef.h"
#define SUFFIX avx512_double
#define REAL double
#define INTEGER int64_t
#define LANES 8
#define POSITIVE(v) _mm512_cmp_pd_mask((__m512d)(v), _mm512_setzero_pd(), _CMP_GT_OQ)
#define KEEP(v, bits) ((VEC)_mm512_maskz_mov_pd((__mmask8)(bits), (__m512d)(v)))
#define STREAM(p, v) _mm512_stream_pd(p, (__m512d)(v))
#include "vectors.h"
#include STEPS
#include "undef.h"
#undef TARGET
#undef ISA
#undef ROWS

#define TARGET __attribute__((target("avx2,fma")))
#define ISA "avx2"
#define ROWS 6
#define SUFFIX avx2_float
#define REAL float
#define INTEGER int32_t
#define LANES 8
#define POSITIVE(v) (unsigned)_mm256_movemask_ps((__m256)((v) > 0))
#define STREAM(p, v) _mm256_stream_ps(p, (__m256)(v))
#include "vectors.h"
#include STEPS
#include "undef.h"
#define SUFFIX avx2_double
#define REAL double
#define INTEGER int64_t
#define LANES 4
#define POSITIVE(v) (unsigned)_mm256_movemask_pd((__m256d)((v) > 0))
#define STREAM(p, v) _mm256_stream_pd(p, (__m256d)(v))
#include "vectors.h"
#include STEPS
#include "undef.h"
#undef TARGET
#undef ISA
#undef ROWS

#endif

#define TARGET
#define ISA "plain"
#define ROWS 6
#if defined(__GNUC__)
#define BYTES 16
#else
#define BYTES 0 /* no vectors: numbers one by one, for the compiler to do what it can */
#endif
#define SUFFIX plain_float
#define REAL float
#define INTEGER int32_t
#define LANES (BYTES ? 4 : 1)
#include "vectors.h"
#include STEPS
#include "undef.h"
#define SUFFIX plain_double
#define REAL double
#define INTEGER int64_t
#define LANES (BYTES ? 2 : 1)
#include "vectors.h"
#include STEPS
#include "undef.h"
#undef TARGET
#undef ISA
#undef ROWS

#ifdef X86
#define HAS_AVX512                                                                                     \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&                        \
     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
#define HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define FIND_X86(name, bytes)                                                                          \
    __builtin_cpu_init();                                                                              \
    if ((!name || !strcmp(name, "avx512")) && HAS_AVX512)                                              \
        return bytes == 4 ? &steps_avx512_float : &steps_avx512_double;                                \
    if ((!name || !strcmp(name, "avx2")) && HAS_AVX2)                                                  \
        return bytes == 4 ? &steps_avx2_float : &steps_avx2_double;
#else
#define FIND_X86(name, bytes)
#endif

/* The body of a function (name, bytes) -> steps for numbers of so many bytes on that instruction set, or NULL
   where it is not; name NULL: the best there is. */
#define FIND(name, bytes)                                                                              \
    FIND_X86(name, bytes)                                                                              \
    if (!name || !strcmp(name, "plain"))                                                               \
        return bytes == 4 ? &steps_plain_float : &steps_plain_double;                                  \
    return NULL;
