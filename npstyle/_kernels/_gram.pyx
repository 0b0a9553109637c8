"""Gram matrix G = F'F of a feature map F (M, C), and the gradient with respect to F.

The matrix products are in gram_steps.h; there C is a multiple of 32.
"""
from cython cimport floating
from cython.parallel cimport prange

from npstyle._kernels._cpu cimport isa
from npstyle._kernels._openmp cimport npstyle_thread

cdef extern from "gram.h" nogil:
    enum:
        DEPTH
    ctypedef struct gram_steps:
        Py_ssize_t panel
        void (*gram)(const void* f, Py_ssize_t count, Py_ssize_t C, void* pack, void* g) noexcept nogil
        void (*gemm)(
            const void* f, Py_ssize_t count, Py_ssize_t C, const void* s, void* df
        ) noexcept nogil
    const gram_steps* gram_table[1][2]

# None of these sizes depends on the number of threads, so neither do the results.
cdef enum:
    # Rows of F whose products are summed in the dtype of F, by one job; fewer (a quarter of all, but at least
    # DEPTH) in small feature maps, so that there are jobs for all threads.
    MAX_ROWS_PER_SUM = 512
    # Rows of F that one job multiplies in the backward pass; fewer (an eighth of all) in small feature maps.
    MAX_ROWS_PER_PRODUCT = 256
    # Rows of G that one job accumulates. The mirrored columns then fill cache lines: with workspace that is
    # used again, 5.2 ms instead of 8.8 for the five Gram matrices of an evaluation at 256 x 256 pixels.
    G_ROWS = 8


cdef Py_ssize_t rows_per_sum(Py_ssize_t M) noexcept nogil:
    return min(MAX_ROWS_PER_SUM, max(DEPTH, M // 4))


cdef Py_ssize_t count_sums(Py_ssize_t M) noexcept nogil:
    return (M + rows_per_sum(M) - 1) // rows_per_sum(M)


def gram_rows_per_sum(Py_ssize_t M):
    """Rows of F (M, C) whose products are summed in its dtype: parts of F begin at multiples of it."""
    return rows_per_sum(M)


def gram_workspace(Py_ssize_t M, Py_ssize_t C, int itemsize, int threads):
    """Elements of workspace that the functions below need for F (M, C)."""
    cdef const gram_steps* steps = gram_table[isa][itemsize == 8]
    return max(count_sums(M) * C * (C + 1) + threads * DEPTH * steps.panel, C * (C + 1))


def gram(
    const floating[:, ::1] f,    # IN (M, C)
    double[:, ::1] g,            # OUT (C, C)
    floating[::1] workspace,     # gram_workspace(...) elements
    int threads,
    double[::1] total=None,      # OUT (C), if it is given
    Py_ssize_t start=0,          # row of all of F that f begins with; above 0, g and total are added to
    whole=None,                  # rows of all of F, if f is a part of it
):
    cdef const gram_steps* steps = gram_table[isa][floating is double]
    cdef Py_ssize_t M = f.shape[0], C = f.shape[1], i, first, row, column
    cdef Py_ssize_t rows = rows_per_sum(whole or M), sums = (M + rows - 1) // rows
    cdef bint with_total = total is not None
    cdef floating* partial = &workspace[0]  # (sums, C, C)
    cdef floating* partial_total = partial + sums * C * C  # (sums, C)
    cdef floating* pack = partial_total + sums * C  # (DEPTH, panel) for each thread
    for i in prange(sums, nogil=True, num_threads=min(threads, sums), schedule="dynamic"):
        first = i * rows
        steps.gram(
            &f[first, 0], min(rows, M - first), C, pack + npstyle_thread() * DEPTH * steps.panel,
            partial + i * C * C,
        )
        if with_total:
            sum_rows(&f[first, 0], min(rows, M - first), C, partial_total + i * C)
    if with_total:
        for column in range(C):
            total[column] = total[column] if start else 0
            for i in range(sums):
                total[column] += partial_total[i * C + column]
    for row in prange(0, C, G_ROWS, nogil=True, num_threads=min(threads, C // G_ROWS), schedule="dynamic"):
        accumulate_rows(partial, sums, C, row, start > 0, g)


cdef void sum_rows(const floating* f, Py_ssize_t count, Py_ssize_t C, floating* total) noexcept nogil:
    """The sum (C) of so many rows of F, which the product before it has left in the cache."""
    cdef Py_ssize_t row, column
    for column in range(C):
        total[column] = f[column]
    for row in range(1, count):
        for column in range(C):
            total[column] += f[row * C + column]


cdef void accumulate_rows(
    const floating* partial, Py_ssize_t sums, Py_ssize_t C, Py_ssize_t first, bint add, double[:, ::1] g
) noexcept nogil:
    """G_ROWS rows of the lower triangle of G, and by symmetry as many columns of the upper one.

    Accumulated in float64 and in a fixed order: a loss subtracts Gram matrices that are nearly equal.
    """
    cdef Py_ssize_t i, row, column
    cdef const floating* part
    cdef double* total
    for row in range(first, first + G_ROWS):
        total = &g[row, 0]
        if not add:
            for column in range(row + 1):
                total[column] = 0
        for i in range(sums):
            part = partial + (i * C + row) * C
            for column in range(row + 1):
                total[column] += part[column]
    for column in range(first + G_ROWS):
        for row in range(max(first, column), first + G_ROWS):
            g[column, row] = g[row, column]


def gram_backward(
    const floating[:, ::1] f,    # IN (M, C)
    const double[:, ::1] dg,     # IN (C, C)
    floating[:, ::1] df,         # OUT (M, C)
    floating[::1] workspace,     # gram_workspace(...) elements
    int threads,
    const double[::1] row=None,  # IN (C), if it is given
):
    cdef const gram_steps* steps = gram_table[isa][floating is double]
    cdef Py_ssize_t M = f.shape[0], C = f.shape[1], i, first, column
    cdef bint with_row = row is not None
    cdef Py_ssize_t rows = min(MAX_ROWS_PER_PRODUCT, max(G_ROWS, M // 8)), blocks = (M + rows - 1) // rows
    cdef Py_ssize_t panels = C // steps.panel, panel
    cdef floating* s = &workspace[0]  # dg + dg', (C / panel, C, panel)
    cdef floating* added = s + C * C  # row (C), in the dtype of F
    if with_row:
        for column in range(C):
            added[column] = <floating>row[column]
    for panel in prange(panels, nogil=True, num_threads=min(threads, panels), schedule="dynamic"):
        pack_symmetric(dg, panel, steps.panel, s + panel * C * steps.panel)
    threads = min(threads, blocks)
    for i in prange(blocks, nogil=True, num_threads=threads, schedule="dynamic"):
        first = i * rows
        steps.gemm(&f[first, 0], min(rows, M - first), C, s, &df[first, 0])
        if with_row:
            add_to_rows(&df[first, 0], min(rows, M - first), C, added)


cdef void add_to_rows(floating* df, Py_ssize_t count, Py_ssize_t C, const floating* added) noexcept nogil:
    cdef Py_ssize_t row, column
    for row in range(count):
        for column in range(C):
            df[row * C + column] += added[column]


cdef void pack_symmetric(
    const double[:, ::1] dg, Py_ssize_t panel, Py_ssize_t columns, floating* s
) noexcept nogil:
    """One panel of dg + dg': s (C, columns)."""
    cdef Py_ssize_t first = panel * columns, block, row, column
    for block in range(dg.shape[0] // G_ROWS):
        for column in range(columns):
            for row in range(block * G_ROWS, (block + 1) * G_ROWS):
                s[row * columns + column] = <floating>(dg[row, first + column] + dg[first + column, row])
