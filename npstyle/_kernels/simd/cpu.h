/* The instruction sets that kernels are compiled for, and which of them this processor has.

   GCC and Clang on x86-64 compile for AVX-512, for AVX2 with FMA, and for what every such processor has
   ("plain"). For other processors they compile only "plain". Other compilers do, too, and without vector
   extensions; defining NPSTYLE_SCALAR makes GCC and Clang compile that branch, so that it can be tested. */

#ifndef NPSTYLE_CPU_H
#define NPSTYLE_CPU_H

#if defined(__GNUC__) && !defined(NPSTYLE_SCALAR)
#define GNU_VECTORS 1
#else
#define GNU_VECTORS 0
#endif

/* X(name) for each, the best first: the order of the tables that are indexed by `isa`. */
#if GNU_VECTORS && defined(__x86_64__)
#define X86_VECTORS 1
#define FOR_EACH_ISA(X) X(avx512) X(avx2) X(plain)
#else
#define X86_VECTORS 0
#define FOR_EACH_ISA(X) X(plain)
#endif

#define ISA_INDEX(name) ISA_##name,
enum { FOR_EACH_ISA(ISA_INDEX) ISA_COUNT };

static inline const char *isa_name(int isa)
{
#define ISA_NAME(name) #name,
    static const char *const names[] = {FOR_EACH_ISA(ISA_NAME)};
    return names[isa];
}

static inline int isa_available(int isa)
{
#if X86_VECTORS
    __builtin_cpu_init();
    if (isa == ISA_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (isa == ISA_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == ISA_plain;
}

#endif
