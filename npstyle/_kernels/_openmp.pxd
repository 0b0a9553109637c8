"""OpenMP where the build has it, one thread where it has not: barriers, and counters that threads share."""

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define NPSTYLE_OPENMP 1
    #define npstyle_thread() omp_get_thread_num()
    #else
    #define NPSTYLE_OPENMP 0
    #define npstyle_thread() 0
    #endif

    static inline void npstyle_barrier(void)
    {
    #ifdef _OPENMP
    #pragma omp barrier
    #endif
    }

    #if !NPSTYLE_OPENMP
    #define npstyle_add(counter, n) ((*(counter) += (n)) - (n))
    #define npstyle_get(counter) (*(counter))
    #define npstyle_set(counter, n) (*(counter) = (n))
    #elif defined(_MSC_VER) && !defined(__clang__)
    #include <intrin.h>
    #define npstyle_add(counter, n) _InterlockedExchangeAdd(counter, n)
    #define npstyle_get(counter) _InterlockedExchangeAdd(counter, 0)
    #define npstyle_set(counter, n) _InterlockedExchange(counter, n)
    #else
    #define npstyle_add(counter, n) __atomic_fetch_add(counter, n, __ATOMIC_ACQ_REL)
    #define npstyle_get(counter) __atomic_load_n(counter, __ATOMIC_ACQUIRE)
    #define npstyle_set(counter, n) __atomic_store_n(counter, n, __ATOMIC_RELEASE)
    #endif

    #if NPSTYLE_OPENMP && !defined(_WIN32)
    #include <sched.h>
    #define npstyle_yield() sched_yield()
    #else
    #define npstyle_yield()
    #endif
    """
    const bint NPSTYLE_OPENMP
    int npstyle_thread() noexcept nogil
    # At the end of a prange within a parallel block nobody waits for the others.
    void npstyle_barrier() noexcept nogil
    # Atomic: who reads a counter also sees what threads wrote before they added to it, or set it.
    long npstyle_add(long* counter, long n) noexcept nogil  # returned is the value before
    long npstyle_get(long* counter) noexcept nogil
    void npstyle_set(long* counter, long n) noexcept nogil
    void npstyle_yield() noexcept nogil  # to another thread, where the system can
