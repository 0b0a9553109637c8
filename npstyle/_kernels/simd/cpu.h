/* The instruction sets that kernels are compiled for, and which of them this processor has.

   GCC and Clang on x86-64 compile for AVX-512, for AVX2 with FMA, and for what every such processor has
   ("plain"). For other processors they compile only "plain". Other compilers do, too, and without vector
   extensions; defining NPSTYLE_SCALAR makes GCC and Clang compile that branch, so that it can be tested.
   clang-cl, which passes for Microsoft's compiler, is Clang. */

#ifndef NPSTYLE_CPU_H
#define NPSTYLE_CPU_H

#if (defined(__GNUC__) || defined(__clang__)) && !defined(NPSTYLE_SCALAR)
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

#if X86_VECTORS

#include <cpuid.h>

/* What the processor has, if the system saves its registers: by CPUID and XGETBV, as __builtin_cpu_supports
   needs a runtime library that clang-cl does not link, and that in zig's build of Clang finds nothing. */
static inline int x86_available(int isa)
{
    const unsigned fma = 1u << 12, osxsave = 1u << 27, avx2 = 1u << 5;
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    const unsigned saved = isa == ISA_avx512 ? 0xe6 : 0x06; /* vectors of 16, 32 bytes; masks, 64 bytes */
    unsigned a, b, c, d, enabled;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & osxsave) || !(c & fma))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(enabled), "=d"(d) : "c"(0));
    if ((enabled & saved) != saved || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & avx2))
        return 0;
    return isa != ISA_avx512 || (b & avx512) == avx512;
}

#else
#define x86_available(isa) 0
#endif

static inline int isa_available(int isa)
{
    return isa == ISA_plain || x86_available(isa);
}

#endif
