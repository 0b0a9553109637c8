/* Compile STEPS for float and double, and for each instruction set of cpu.h, so that one build runs anywhere
   and at the full speed of the machine it runs on.

   STEPS is a file written with vectors.h. It ends in a struct NAME(steps); a table of pointers to these
   structs, FOR_EACH_ISA(TABLE_ROW), is indexed by [isa][is_double]. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"

typedef ptrdiff_t idx;

/* Terms that are accumulated in registers before the sum is added to memory. A panel of as many rows fits
   the first-level cache, and short sums round less: half the error of 256 terms at 512 channels, for 1 or 2
   percent of the time; 64 terms would take 13 percent more at 256 channels. */
#define DEPTH 128
/* Outputs of at least as many bytes bypass the caches, as they would be evicted before they are read. With
   prefetching of the next tile: 0.84 of the time at 64 channels, 0.90 at 128. */
#define MIN_BYTES_TO_STREAM 12000000

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(f) JOIN(f, SUFFIX)
#define TABLE_ROW(isa) {&steps_##isa##_float, &steps_##isa##_double},

/* GNU C's vectors are plain arithmetic that compiles to whatever the target has. */
#if GNU_VECTORS
#define INLINE static inline __attribute__((always_inline)) TARGET
/* Sums are only kept in registers where the loops over them are gone. Clang heeds GCC's pragma too late. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
/* The cache line `offset` elements from p. It may lie outside the array, hence no pointer arithmetic. */
#define PREFETCH_TO(level, p, offset)                                                                  \
    __builtin_prefetch((const void *)((uintptr_t)(p) + (offset) * sizeof(REAL)), 0, level)
#define PREFETCH(p, offset) PREFETCH_TO(3, p, offset)
/* Only to the second-level cache, for what comes from memory: the first has room for too few requests, 24 on a
   Zen 4, to hide its latency. Input transform of conv1_2: 6.5 ms instead of 12.6. */
#define PREFETCH_L2(p, offset) PREFETCH_TO(2, p, offset)
/* Four elements of two vectors of four, by their numbers. */
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (__typeof__(a)){__VA_ARGS__})
#endif
/* Keeps the compiler from collecting prefetches into bursts. */
#define BARRIER() __asm__ volatile("")
#else
#define INLINE static inline
#define BARRIER() ((void)0)
#define UNROLL
#define PREFETCH(p, offset) ((void)0)
#define PREFETCH_L2(p, offset) ((void)0)
#endif

#if X86_VECTORS

#include <immintrin.h>
#ifdef _MSC_VER /* for clang-cl, older versions of it include only what the whole file is compiled for */
#include <smmintrin.h>
#include <avxintrin.h>
#include <avx512fintrin.h>
#endif

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#define ROWS 8
#define SUFFIX avx512_float
#define REAL float
#define INTEGER int32_t
#define LANES 16
#define POSITIVE(v) _mm512_cmp_ps_mask((__m512)(v), _mm512_setzero_ps(), _CMP_GT_OQ)
#define MASKED(v, bits) ((VEC)_mm512_maskz_mov_ps((__mmask16)(bits), (__m512)(v)))
#define STREAM(p, v) _mm512_stream_ps(p, (__m512)(v))
#define WIDEN(p) _mm512_cvtps_pd(_mm256_loadu_ps(p))
#include "vectors.h"
#include STEPS
#include "undef.h"
#define SUFFIX avx512_double
#define REAL double
#define INTEGER int64_t
#define LANES 8
#define POSITIVE(v) _mm512_cmp_pd_mask((__m512d)(v), _mm512_setzero_pd(), _CMP_GT_OQ)
#define MASKED(v, bits) ((VEC)_mm512_maskz_mov_pd((__mmask8)(bits), (__m512d)(v)))
#define STREAM(p, v) _mm512_stream_pd(p, (__m512d)(v))
#include "vectors.h"
#include STEPS
#include "undef.h"
#undef TARGET
#undef ROWS

#define TARGET __attribute__((target("avx2,fma")))
#define ROWS 6
#define SUFFIX avx2_float
#define REAL float
#define INTEGER int32_t
#define LANES 8
#define POSITIVE(v) (unsigned)_mm256_movemask_ps((__m256)((v) > 0))
#define STREAM(p, v) _mm256_stream_ps(p, (__m256)(v))
#define WIDEN(p) _mm256_cvtps_pd(_mm_loadu_ps(p))
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
#undef ROWS

#endif

#define TARGET
#define ROWS 6
#define SUFFIX plain_float
#define REAL float
#define INTEGER int32_t
#define LANES (GNU_VECTORS ? 4 : 1)
#include "vectors.h"
#include STEPS
#include "undef.h"
#define SUFFIX plain_double
#define REAL double
#define INTEGER int64_t
#define LANES (GNU_VECTORS ? 2 : 1)
#include "vectors.h"
#include STEPS
#include "undef.h"
#undef TARGET
#undef ROWS
