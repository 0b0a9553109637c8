"""OpenMP where the build has it, one thread where it has not."""

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
    """
    const bint NPSTYLE_OPENMP
    int npstyle_thread() noexcept nogil
    # At the end of a prange within a parallel block nobody waits for the others.
    void npstyle_barrier() noexcept nogil
