"""2x2 pooling with stride 2; an odd last row or column is ignored, and its gradient is zero."""
from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uint8_t
from libc.string cimport memset

cdef extern from "pooling.h" nogil:
    void max_of_cell_float(
        const float* upper, const float* lower, Py_ssize_t C, float* y, uint8_t* argmax
    ) noexcept
    void max_of_cell_double(
        const double* upper, const double* lower, Py_ssize_t C, double* y, uint8_t* argmax
    ) noexcept
    void where_argmax_float(
        const float* dy, const uint8_t* argmax, int position, Py_ssize_t C, float* dx
    ) noexcept
    void where_argmax_double(
        const double* dy, const uint8_t* argmax, int position, Py_ssize_t C, double* dx
    ) noexcept


def average_pool(
    const floating[:, :, ::1] x,  # IN (H, W, C)
    floating[:, :, ::1] y,        # OUT (H // 2, W // 2, C)
    int threads,
):
    cdef Py_ssize_t h, w, c
    cdef Py_ssize_t W = y.shape[1], C = y.shape[2]
    cdef const floating* upper
    cdef const floating* lower
    cdef floating* out
    threads = min(threads, y.shape[0])
    for h in prange(y.shape[0], nogil=True, num_threads=threads, schedule="static"):
        for w in range(W):
            upper = &x[2 * h, 2 * w, 0]
            lower = &x[2 * h + 1, 2 * w, 0]
            out = &y[h, w, 0]
            for c in range(C):
                out[c] = <floating>0.25 * ((upper[c] + upper[C + c]) + (lower[c] + lower[C + c]))


def average_pool_backward(
    const floating[:, :, ::1] dy,  # IN (H // 2, W // 2, C)
    floating[:, :, ::1] dx,        # OUT (H, W, C)
    int threads,
):
    cdef Py_ssize_t h, w, c
    cdef Py_ssize_t H = dx.shape[0], W = dx.shape[1], C = dx.shape[2]
    cdef Py_ssize_t rows = dy.shape[0], columns = dy.shape[1]
    cdef const floating* d
    cdef floating* out
    threads = min(threads, H)
    for h in prange(H, nogil=True, num_threads=threads, schedule="static"):
        if h // 2 == rows:
            memset(&dx[h, 0, 0], 0, W * C * sizeof(floating))
        else:
            for w in range(2 * columns):
                d = &dy[h // 2, w // 2, 0]
                out = &dx[h, w, 0]
                for c in range(C):
                    out[c] = <floating>0.25 * d[c]
            if W > 2 * columns:
                memset(&dx[h, W - 1, 0], 0, C * sizeof(floating))


def max_pool(
    const floating[:, :, ::1] x,  # IN (H, W, C)
    floating[:, :, ::1] y,        # OUT (H // 2, W // 2, C)
    uint8_t[:, :, ::1] argmax,    # OUT (H // 2, W // 2, C), 2 i + j of the first largest x[2h + i, 2w + j]
    int threads,
):
    cdef Py_ssize_t h, w
    cdef Py_ssize_t W = y.shape[1], C = y.shape[2]
    cdef const floating* upper
    cdef const floating* lower
    threads = min(threads, y.shape[0])
    for h in prange(y.shape[0], nogil=True, num_threads=threads, schedule="static"):
        for w in range(W):
            upper = &x[2 * h, 2 * w, 0]
            lower = &x[2 * h + 1, 2 * w, 0]
            if floating is float:
                max_of_cell_float(upper, lower, C, &y[h, w, 0], &argmax[h, w, 0])
            else:
                max_of_cell_double(upper, lower, C, &y[h, w, 0], &argmax[h, w, 0])


def max_pool_backward(
    const floating[:, :, ::1] dy,       # IN (H // 2, W // 2, C)
    const uint8_t[:, :, ::1] argmax,    # IN (H // 2, W // 2, C)
    floating[:, :, ::1] dx,             # OUT (H, W, C)
    int threads,
):
    cdef Py_ssize_t h, w
    cdef Py_ssize_t H = dx.shape[0], W = dx.shape[1], C = dx.shape[2]
    cdef Py_ssize_t rows = dy.shape[0], columns = dy.shape[1]
    cdef const floating* d
    cdef const uint8_t* cell_argmax
    cdef floating* out
    cdef int position
    threads = min(threads, H)
    for h in prange(H, nogil=True, num_threads=threads, schedule="static"):
        if h // 2 == rows:
            memset(&dx[h, 0, 0], 0, W * C * sizeof(floating))
        else:
            for w in range(2 * columns):
                d = &dy[h // 2, w // 2, 0]
                cell_argmax = &argmax[h // 2, w // 2, 0]
                out = &dx[h, w, 0]
                position = 2 * (h % 2) + w % 2
                if floating is float:
                    where_argmax_float(d, cell_argmax, position, C, out)
                else:
                    where_argmax_double(d, cell_argmax, position, C, out)
            if W > 2 * columns:
                memset(&dx[h, W - 1, 0], 0, C * sizeof(floating))
