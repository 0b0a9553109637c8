"""3x3 convolution of a picture of few channels, conv1_1, with the ReLU that follows it.

The steps are in first_layer_steps.h, for one or several rows of the picture.
"""
from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uint8_t

from npstyle._kernels._cpu cimport isa
from npstyle._kernels._openmp cimport npstyle_thread

cdef extern from "first_layer.h" nogil:
    enum:
        PIXELS
    ctypedef struct first_layer_shape:
        Py_ssize_t H, W, C, K
        int replicate
    ctypedef struct first_layer_steps:
        Py_ssize_t panel
        void (*forward)(
            const void* x, first_layer_shape s, const void* w, const void* b, Py_ssize_t row,
            void* workspace, void* y, uint8_t* mask,
        ) noexcept nogil
        void (*backward)(
            const void* dy, const uint8_t* mask, first_layer_shape s, const void* w, Py_ssize_t first,
            Py_ssize_t last, void* workspace, void* dx,
        ) noexcept nogil
    const first_layer_steps* first_layer_table[1][2]

cdef enum:
    # Rows of the picture that one job computes in the backward pass. It multiplies two more than that.
    ROWS_PER_JOB = 16


cdef struct Sizes:
    # Elements of workspace: a multiple of 16 each, so that all begin at a cache line if the first does.
    Py_ssize_t packed        # the filters in panels, forward
    Py_ssize_t forward       # of each thread
    Py_ssize_t transposed    # the transposed filters in panels, backward
    Py_ssize_t backward      # of each thread
    Py_ssize_t columns       # of the transposed filters with their padding


cdef Py_ssize_t rounded(Py_ssize_t elements, Py_ssize_t multiple) noexcept nogil:
    return (elements + multiple - 1) // multiple * multiple


cdef Sizes sizes(Py_ssize_t panel, first_layer_shape s) noexcept nogil:
    cdef Sizes z
    z.columns = rounded(9 * s.C, panel)
    z.packed = rounded(9 * s.C * s.K, 16)
    z.forward = rounded(PIXELS * 9 * s.C, 16) + PIXELS * s.K
    z.transposed = rounded(s.K * z.columns, 16)
    z.backward = rounded(PIXELS * (s.K + z.columns) + (ROWS_PER_JOB + 2) * (s.W + 2) * s.C, 16)
    return z


cdef void pack(
    const floating* w, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t row_stride, Py_ssize_t column_stride,
    Py_ssize_t panel, floating* packed,
) noexcept nogil:
    """Matrix w (rows, columns) as (columns / panel, rows, panel), with zeros in columns beyond the last."""
    cdef Py_ssize_t p, row, column
    for p in range((columns + panel - 1) // panel):
        for row in range(rows):
            for column in range(p * panel, (p + 1) * panel):
                packed[0] = w[row * row_stride + column * column_stride] if column < columns else 0
                packed += 1


def first_layer_workspace(
    Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, int itemsize, int threads
):
    """Elements of workspace that the functions below need: x (H, W, C), y (H, W, K)."""
    cdef Sizes z = sizes(first_layer_table[isa][itemsize == 8].panel, first_layer_shape(H, W, C, K, False))
    return max(z.packed + threads * z.forward, z.transposed + threads * z.backward)


def first_layer(
    const floating[:, :, ::1] x,  # IN (H, W, C)
    const floating[:, ::1] w,     # IN (9C, K)
    const floating[::1] b,        # IN (K,)
    floating[:, :, ::1] y,        # OUT (H, W, K)
    uint8_t[::1] mask,            # OUT (H W K / 8,)
    floating[::1] workspace,      # first_layer_workspace(...) elements
    int threads,
    strip=None,                   # first row and height, if y is a strip: then x has its neighbors, too
    bint replicate=False,         # beyond the border are copies of it, not zeros
):
    cdef const first_layer_steps* steps = first_layer_table[isa][floating is double]
    cdef first_layer_shape s = first_layer_shape(x.shape[0], x.shape[1], x.shape[2], w.shape[1], replicate)
    cdef Sizes z = sizes(steps.panel, s)
    cdef floating* panels = &workspace[0]
    cdef floating* work = panels + z.packed
    cdef Py_ssize_t row, rows = y.shape[0]
    cdef bint above = strip is not None and strip[0] > 0
    cdef floating* first_y = &y[0, 0, 0] - above * s.W * s.K  # of the first row of x
    cdef uint8_t* first_mask = &mask[0] - above * s.W * s.K // 8
    pack(&w[0, 0], 9 * s.C, s.K, s.K, 1, steps.panel, panels)
    for row in prange(above, above + rows, nogil=True, num_threads=min(threads, rows), schedule="dynamic"):
        steps.forward(
            &x[0, 0, 0], s, panels, &b[0], row, work + npstyle_thread() * z.forward, first_y, first_mask
        )


def first_layer_backward(
    const floating[:, :, ::1] dy,  # IN (H, W, K)
    const uint8_t[::1] mask,       # IN (H W K / 8,)
    const floating[:, ::1] w,      # IN (9C, K)
    floating[:, :, ::1] dx,        # OUT (H, W, C)
    floating[::1] workspace,       # first_layer_workspace(...) elements
    int threads,
    strip=None,                    # as above, if dx is one
    bint replicate=False,
):
    cdef const first_layer_steps* steps = first_layer_table[isa][floating is double]
    cdef first_layer_shape s = first_layer_shape(dy.shape[0], dx.shape[1], dx.shape[2], w.shape[1], replicate)
    cdef Sizes z = sizes(steps.panel, s)
    cdef floating* panels = &workspace[0]
    cdef floating* work = panels + z.transposed
    cdef bint above = strip is not None and strip[0] > 0
    cdef Py_ssize_t last = above + dx.shape[0]
    cdef Py_ssize_t jobs = (dx.shape[0] + ROWS_PER_JOB - 1) // ROWS_PER_JOB, job
    cdef floating* first_dx = &dx[0, 0, 0] - above * s.W * s.C  # of the first row of dy
    pack(&w[0, 0], s.K, 9 * s.C, 1, s.K, steps.panel, panels)
    for job in prange(jobs, nogil=True, num_threads=min(threads, jobs), schedule="dynamic"):
        steps.backward(
            &dy[0, 0, 0], &mask[0], s, panels, above + job * ROWS_PER_JOB,
            min(above + (job + 1) * ROWS_PER_JOB, last), work + npstyle_thread() * z.backward, first_dx,
        )
