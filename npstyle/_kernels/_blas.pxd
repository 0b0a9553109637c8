"""Matrix products of C-ordered arrays by the BLAS that SciPy comes with.

BLAS stores matrices by columns: it sees an (M, N) array in C order as an (N, M) matrix. So its product is
called with the factors exchanged, (A B)' = B' A'.
"""
from cython cimport floating
from scipy.linalg.cython_blas cimport dgemm, sgemm


cdef inline void gemm(
    int M, int N, int K, const floating* a, const floating* b, floating beta, floating* c, int row
) noexcept nogil:
    """c (M, N) = a (M, K) b (K, N) + beta c; rows of b and c begin `row` elements apart."""
    cdef floating one = 1
    if floating is float:
        sgemm("N", "N", &N, &M, &K, &one, <float*>b, &row, <float*>a, &K, &beta, c, &row)
    else:
        dgemm("N", "N", &N, &M, &K, &one, <double*>b, &row, <double*>a, &K, &beta, c, &row)
