"""Gram matrix G = F'F of a response F (M, C), and the gradient it sends back to F.

The products stand in gram_steps.h; C is a multiple of 32 there.
"""
from cython cimport floating
from cython.parallel cimport prange

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

cdef enum:
    SUMMED = 512      # rows of F that one job takes, or a quarter, where that is less
    MULTIPLIED = 256  # the same on the way back, or an eighth
    ROWS = 8          # of G that one job adds up: columns of the upper triangle, a cache line wide


cdef Py_ssize_t summed(Py_ssize_t M) noexcept nogil:
    return min(SUMMED, max(DEPTH, M // 4))


cdef Py_ssize_t blocks_of(Py_ssize_t M) noexcept nogil:
    return (M + summed(M) - 1) // summed(M)


def gram_work(Py_ssize_t M, Py_ssize_t C, int itemsize, int threads):
    """How many numbers of memory to work in the functions below need."""
    cdef const gram_steps* steps = steps_float if itemsize == 4 else steps_double
    return max(blocks_of(M) * C * C + threads * DEPTH * steps.panel, C * C)


def gram(
    const floating[:, ::1] f,  # IN (M, C)
    double[:, ::1] g,          # OUT (C, C)
    floating[::1] work,        # numbers to work in, as many as gram_work says
    int threads,
):
    cdef const gram_steps* steps = steps_float if floating is float else steps_double
    cdef Py_ssize_t M = f.shape[0], C = f.shape[1], i, first, row
    cdef Py_ssize_t rows = summed(M), blocks = blocks_of(M)
    cdef floating* partial = &work[0]  # (blocks, C, C)
    cdef floating* pack = partial + blocks * C * C  # of each thread (DEPTH, panel)
    for i in prange(blocks, nogil=True, num_threads=min(threads, blocks), schedule="dynamic"):
        first = i * rows
        steps.gram(
            &f[first, 0], min(rows, M - first), C, pack + npstyle_thread() * DEPTH * steps.panel,
            partial + i * C * C,
        )
    for row in prange(0, C, ROWS, nogil=True, num_threads=min(threads, C // ROWS), schedule="dynamic"):
        add_rows(partial, blocks, C, row, g)


cdef void add_rows(
    const floating* partial, Py_ssize_t blocks, Py_ssize_t C, Py_ssize_t first, double[:, ::1] g
) noexcept nogil:
    """Some rows of the lower triangle of G, and by symmetry as many columns of the upper one.

    Blocks are added in double, and in order: a loss compares Gram matrices that are nearly equal.
    """
    cdef Py_ssize_t i, row, column
    cdef const floating* part
    cdef double* total
    for row in range(first, first + ROWS):
        total = &g[row, 0]
        part = partial + row * C
        for column in range(row + 1):
            total[column] = part[column]
        for i in range(1, blocks):
            part = partial + (i * C + row) * C
            for column in range(row + 1):
                total[column] += part[column]
    for column in range(first + ROWS):
        for row in range(max(first, column), first + ROWS):
            g[column, row] = g[row, column]


def gram_backward(
    const floating[:, ::1] f,  # IN (M, C)
    const double[:, ::1] dg,   # IN (C, C)
    floating[:, ::1] df,       # OUT (M, C)
    floating[::1] work,        # numbers to work in, as many as gram_work says
    int threads,
):
    cdef const gram_steps* steps = steps_float if floating is float else steps_double
    cdef Py_ssize_t M = f.shape[0], C = f.shape[1], i, first
    cdef Py_ssize_t rows = min(MULTIPLIED, max(ROWS, M // 8)), blocks = (M + rows - 1) // rows
    cdef Py_ssize_t panels = C // steps.panel, panel
    cdef floating* s = &work[0]
    for panel in prange(panels, nogil=True, num_threads=min(threads, panels), schedule="dynamic"):
        add_transposed(dg, panel, steps.panel, s + panel * C * steps.panel)
    threads = min(threads, blocks)
    for i in prange(blocks, nogil=True, num_threads=threads, schedule="dynamic"):
        first = i * rows
        steps.times(&f[first, 0], min(rows, M - first), C, s, &df[first, 0])


cdef void add_transposed(
    const double[:, ::1] dg, Py_ssize_t panel, Py_ssize_t columns, floating* s
) noexcept nogil:
    """A panel of dg + dg', its columns side by side: s (C, columns)."""
    cdef Py_ssize_t first = panel * columns, some, row, column
    for some in range(dg.shape[0] // ROWS):
        for column in range(columns):
            for row in range(some * ROWS, (some + 1) * ROWS):
                s[row * columns + column] = <floating>(dg[row, first + column] + dg[first + column, row])
