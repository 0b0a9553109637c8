"""Gram matrix G = F'F of a response F (M, C), and the gradient it sends back to F.

The products stand in gram_steps.h; C is a multiple of 32 there.
"""
import numpy as np

from cython cimport floating
from cython.parallel cimport prange

from npstyle._buffers import aligned
from npstyle._kernels._openmp cimport npstyle_thread

cdef extern from "gram.h" nogil:
    enum:
        DEPTH
    ctypedef struct gram_steps:
        const char* name
        Py_ssize_t panel
        void (*gram)(const void* f, Py_ssize_t count, Py_ssize_t C, void* pack, void* g) noexcept nogil
        void (*times)(
            const void* f, Py_ssize_t count, Py_ssize_t C, const void* s, void* df
        ) noexcept nogil
    const gram_steps* gram_find(const char* name, int bytes)

cdef const gram_steps* steps_float
cdef const gram_steps* steps_double


def use(name=None):
    """Choose an instruction set, "avx512", "avx2" or "plain"; None takes the best. Returns its name."""
    global steps_float, steps_double
    cdef bytes text = b"" if name is None else name.encode()
    cdef const char* wanted = NULL
    if name is not None:
        wanted = text
    if gram_find(wanted, 4) == NULL:
        raise ValueError(f"this processor, or this build, has no {name}")
    steps_float = gram_find(wanted, 4)
    steps_double = gram_find(wanted, 8)
    return steps_float.name.decode()


use()

# Rows of F that one job takes.
cdef enum:
    SUMMED = 512
    MULTIPLIED = 256


def gram(
    const floating[:, ::1] f,  # IN (M, C)
    double[:, ::1] g,          # OUT (C, C)
    int threads,
):
    cdef const gram_steps* steps = steps_float if floating is float else steps_double
    cdef Py_ssize_t M = f.shape[0], C = f.shape[1], i, first, row
    cdef Py_ssize_t blocks = (M + SUMMED - 1) // SUMMED
    dtype = np.float32 if floating is float else np.float64
    cdef floating[:, :, ::1] partial = aligned((blocks, C, C), dtype)
    threads = min(threads, blocks)
    cdef floating[:, ::1] pack = aligned((threads, DEPTH * steps.panel), dtype)
    for i in prange(blocks, nogil=True, num_threads=threads, schedule="dynamic"):
        first = i * SUMMED
        steps.gram(&f[first, 0], min(SUMMED, M - first), C, &pack[npstyle_thread(), 0], &partial[i, 0, 0])
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
    cdef const gram_steps* steps = steps_float if floating is float else steps_double
    cdef Py_ssize_t M = f.shape[0], C = f.shape[1], i, first
    cdef Py_ssize_t blocks = (M + MULTIPLIED - 1) // MULTIPLIED
    cdef Py_ssize_t panels = C // steps.panel, panel, row, column
    # s = dg + dg', the columns of a panel side by side.
    cdef floating[:, :, ::1] s = aligned(
        (panels, C, steps.panel), np.float32 if floating is float else np.float64
    )
    for panel in prange(panels, nogil=True, num_threads=min(threads, panels), schedule="dynamic"):
        for row in range(C):
            for column in range(steps.panel):
                i = panel * steps.panel + column
                s[panel, row, column] = <floating>(dg[row, i] + dg[i, row])
    threads = min(threads, blocks)
    for i in prange(blocks, nogil=True, num_threads=threads, schedule="dynamic"):
        first = i * MULTIPLIED
        steps.times(&f[first, 0], min(MULTIPLIED, M - first), C, &s[0, 0, 0], &df[first, 0])
