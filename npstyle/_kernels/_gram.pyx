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
    cdef Py_ssize_t M = f.shape[0], C = f.shape[1], i, first
    cdef Py_ssize_t blocks = (M + BLOCK - 1) // BLOCK
    cdef floating[:, :, ::1] partial = np.zeros(
        (blocks, C, C), dtype=np.float32 if floating is float else np.float64
    )
    threads = min(threads, blocks)
    for i in prange(blocks, nogil=True, num_threads=threads, schedule="dynamic"):
        first = i * BLOCK
        lower_gram(min(BLOCK, M - first), C, &f[first, 0], &partial[i, 0, 0])
    # Blocks are added in double, and in order: a loss compares Gram matrices that are nearly equal.
    lower = np.asarray(partial).sum(axis=0, dtype=np.float64)
    np.asarray(g)[...] = lower + np.tril(lower, -1).T


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
        matmul(min(BLOCK, M - first), C, C, &f[first, 0], &s[0, 0], <floating>0, &df[first, 0])
