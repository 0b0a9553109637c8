"""Dot products and linear combinations of a few long vectors: all that L-BFGS does to them.

Vectors may be float32, but arithmetic is in float64 (lbfgs_steps.h). Each kernel reads every vector once.
"""
from cython cimport floating
from cython.parallel cimport prange
from libc.stdlib cimport calloc, free

from npstyle._kernels._cpu cimport isa

cdef extern from "lbfgs.h" nogil:
    ctypedef struct lbfgs_steps:
        void (*widen)(const void* a, Py_ssize_t count, double* wide) noexcept nogil
        void (*dot)(
            const void* a, Py_ssize_t rows, Py_ssize_t stride, Py_ssize_t count, const double* b,
            const double* c, double* sums
        ) noexcept nogil
        void (*combine)(
            const void* a, Py_ssize_t rows, Py_ssize_t stride, Py_ssize_t count, const void* b,
            const double* weights, double* sum, void* out
        ) noexcept nogil
    const lbfgs_steps* lbfgs_table[1][2]

# None of these sizes depends on the number of threads, so neither do the results.
cdef enum:
    # Elements of all vectors that are worked on at a time. With 1024, a page of float32, dot products took
    # 5.3 ms instead of 4.8, combinations 5.2 instead of 4.2 (20 vectors of 786,432 elements, AVX2, a thread).
    BLOCK = 4096
    MAX_SUMS = 64  # into which a dot product is divided, one a job


cdef Py_ssize_t elements_per_sum(Py_ssize_t N) noexcept nogil:
    """Whole blocks."""
    cdef Py_ssize_t blocks = (N + BLOCK - 1) // BLOCK
    return (blocks + MAX_SUMS - 1) // MAX_SUMS * BLOCK


cdef void partial_products(
    const lbfgs_steps* steps, const floating* a, Py_ssize_t N, Py_ssize_t rows, const floating* b,
    const floating* c, Py_ssize_t first, Py_ssize_t end, double* sums
) noexcept nogil:
    """Products over the elements from first to end: sums (rows, 2)."""
    cdef double[BLOCK] wide_b, wide_c
    cdef Py_ssize_t count
    while first < end:
        count = min(BLOCK, end - first)
        steps.widen(b + first, count, wide_b)
        steps.widen(c + first, count, wide_c)
        steps.dot(a + first, rows, N, count, wide_b, wide_c, sums)
        first += count


def dot_products(
    const floating[:, ::1] a,    # IN (rows, N)
    const floating[::1] b,       # IN (N,)
    const floating[::1] c,       # IN (N,)
    double[:, ::1] products,     # OUT (rows, 2)
    int threads,
):
    cdef const lbfgs_steps* steps = lbfgs_table[isa][floating is double]
    cdef Py_ssize_t rows = a.shape[0], N = a.shape[1], length = elements_per_sum(N), i, row, column
    cdef Py_ssize_t sums = (N + length - 1) // length
    cdef double* partial = <double*>calloc(sums * rows, 2 * sizeof(double))  # (sums, rows, 2)
    if partial == NULL:
        raise MemoryError
    for i in prange(sums, nogil=True, num_threads=min(threads, sums), schedule="static"):
        partial_products(
            steps, &a[0, 0], N, rows, &b[0], &c[0], i * length, min(N, (i + 1) * length),
            partial + 2 * rows * i,
        )
    for row in range(rows):
        for column in range(2):
            products[row, column] = 0
            for i in range(sums):
                products[row, column] += partial[2 * (rows * i + row) + column]
    free(partial)


cdef void combine_block(
    const lbfgs_steps* steps, const floating* a, Py_ssize_t N, Py_ssize_t rows, const floating* b,
    const double* weights, Py_ssize_t count, floating* out
) noexcept nogil:
    cdef double[BLOCK] sum
    steps.combine(a, rows, N, count, b, weights, sum, out)


def linear_combination(
    const floating[:, ::1] a,    # IN (rows, N)
    const floating[::1] b,       # IN (N,)
    const double[::1] weights,   # IN (rows + 1,), the last one that of b
    floating[::1] y,             # OUT (N,)
    int threads,
):
    cdef const lbfgs_steps* steps = lbfgs_table[isa][floating is double]
    cdef Py_ssize_t rows = a.shape[0], N = a.shape[1], i
    cdef Py_ssize_t blocks = (N + BLOCK - 1) // BLOCK
    threads = min(threads, blocks)
    for i in prange(blocks, nogil=True, num_threads=threads, schedule="static"):
        combine_block(
            steps, &a[0, i * BLOCK], N, rows, &b[i * BLOCK], &weights[0], min(BLOCK, N - i * BLOCK),
            &y[i * BLOCK],
        )
