"""Gram matrix G = F'F of a response F (M, C), and the gradient it sends back to F."""
import numpy as np

from cython cimport floating
from cython.parallel cimport prange

from npstyle._kernels._blas cimport lower_gram, matmul

# Rows of F a thread takes at a time.
cdef enum:
    BLOCK = 2048


def gram(
    const floating[:, ::1] f,  # IN (M, C)
    double[:, ::1] g,          # OUT (C, C)
    int threads,
):
    cdef Py_ssize_t M = f.shape[0], C = f.shape[1], i, first, row
    cdef Py_ssize_t blocks = (M + BLOCK - 1) // BLOCK
    cdef floating[:, :, ::1] partial = np.empty(
        (blocks, C, C), dtype=np.float32 if floating is float else np.float64
    )
    for i in prange(blocks, nogil=True, num_threads=min(threads, blocks), schedule="dynamic"):
        first = i * BLOCK
        lower_gram(min(BLOCK, M - first), C, &f[first, 0], &partial[i, 0, 0])
    for row in prange(C, nogil=True, num_threads=min(threads, C), schedule="dynamic"):
        add_row(partial, g, row)


cdef void add_row(const floating[:, :, ::1] partial, double[:, ::1] g, Py_ssize_t row) noexcept nogil:
    """One row of the lower triangle of G, and by symmetry one column of the upper one.

    Blocks are added in double, and in order: a loss compares Gram matrices that are nearly equal.
    """
    cdef Py_ssize_t i, column
    cdef double* total = &g[row, 0]
    for column in range(row + 1):
        total[column] = partial[0, row, column]
    for i in range(1, partial.shape[0]):
        for column in range(row + 1):
            total[column] += partial[i, row, column]
    for column in range(row):
        g[column, row] = total[column]


def gram_backward(
    const floating[:, ::1] f,  # IN (M, C)
    const double[:, ::1] dg,   # IN (C, C)
    floating[:, ::1] df,       # OUT (M, C)
    int threads,
):
    cdef Py_ssize_t M = f.shape[0], C = f.shape[1], i, first
    cdef Py_ssize_t blocks = (M + BLOCK - 1) // BLOCK
    cdef floating[:, ::1] s = np.add(dg, np.transpose(dg)).astype(
        np.float32 if floating is float else np.float64
    )
    threads = min(threads, blocks)
    for i in prange(blocks, nogil=True, num_threads=threads, schedule="dynamic"):
        first = i * BLOCK
        matmul(min(BLOCK, M - first), C, C, &f[first, 0], &s[0, 0], <floating>0, &df[first, 0], C)
