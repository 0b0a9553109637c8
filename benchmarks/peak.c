/* Fused multiply-adds in registers: benchmarks/peak.py compiles and calls this. The 12 sums are independent,
   more than a processor with two units of four cycles each has underway, and fit 16 registers. */

#define FOR_EACH_OF_12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define START(i) vec sum##i = {(float)i};
#define STEP(i) sum##i = sum##i * factor + term;
#define ADD(i) total += sum##i;

/* `repeats` times 12 vectors of `lanes` numbers; what it returns keeps the compiler from leaving it out. */
#define PEAK(name, lanes, attributes)                                                                  \
    attributes float name(long repeats, float start)                                                   \
    {                                                                                                  \
        typedef float vec __attribute__((vector_size(4 * lanes)));                                     \
        vec factor = {0}, term = {0}, total = {0};                                                     \
        factor += start;                                                                               \
        term += 1e-3f;                                                                                 \
        FOR_EACH_OF_12(START)                                                                          \
        for (long i = 0; i < repeats; i++) {                                                           \
            FOR_EACH_OF_12(STEP)                                                                       \
        }                                                                                              \
        FOR_EACH_OF_12(ADD)                                                                            \
        float all = 0;                                                                                 \
        for (int i = 0; i < lanes; i++)                                                                \
            all += total[i];                                                                           \
        return all;                                                                                    \
    }

#if defined(__x86_64__)
PEAK(peak_avx512, 16, __attribute__((target("avx512f,fma"))))
PEAK(peak_avx2, 8, __attribute__((target("avx2,fma"))))
#endif
PEAK(peak_plain, 4, )
