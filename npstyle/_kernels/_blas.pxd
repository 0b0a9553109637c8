"""Matrix products on C-ordered arrays, through the BLAS that SciPy brings.

BLAS thinks in columns: an (M, N) array in C order is to it an (N, M) matrix, so each product is asked
for with its factors exchanged, (A B)' = B' A'. Only this file knows.
"""
from cython cimport floating
from scipy.linalg.cython_blas cimport dgemm, sgemm


cdef inline void matmul(
    int M, int N, int K, const floating* a, const floating* b, floating beta, floating* c, int row
) noexcept nogil:
    """c (M, N) = a (M, K) b (K, N) + beta c; b and c are columns of matrices with rows of `row` numbers."""
    cdef floating one = 1
    if floating is float:
        sgemm("N", "N", &N, &M, &K, &one, <float*>b, &row, <float*>a, &K, &beta, c, &row)
    else:
        dgemm("N", "N", &N, &M, &K, &one, <double*>b, &row, <double*>a, &K, &beta, c, &row)
