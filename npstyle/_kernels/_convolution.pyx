"""3x3 convolution by im2col in strips: copy the patches of some pixels into a matrix and multiply it.

    y[h, w, k] = b[k] + sum over i, j, c of x[h + i - 1, w + j - 1, c] kernel[i, j, c, k]

with zeros outside the picture. Written as one matrix product it is y = P Q + b, where the rows of P are the
patches around the pixels, 9C elements each, and Q is the kernel as a (9C, K) matrix, here the argument w.
All of P would be nine times the input, so it is computed by rows, in a buffer that stays in the cache.
See docs/convolution.md.
"""
import numpy as np

from cython cimport floating
from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from npstyle._kernels._blas cimport gemm
from npstyle._kernels._openmp cimport npstyle_thread


cdef void im2col(
    const floating* x, Py_ssize_t H, Py_ssize_t W, Py_ssize_t C,
    Py_ssize_t first, Py_ssize_t last, floating* patches,
) noexcept nogil:
    """Patches (last - first, 9C) of the pixels first ... last - 1, counted row by row of the picture.

    In an (H, W, C) array the three pixels of one row of a patch are contiguous: a run of 3C elements.
    """
    cdef Py_ssize_t pixel, h, w, i, left, right
    cdef Py_ssize_t run = 3 * C
    for pixel in range(first, last):
        h = pixel // W
        w = pixel - h * W
        left = 1 if w == 0 else 0  # columns of this patch outside the picture
        right = 1 if w == W - 1 else 0
        for i in range(h - 1, h + 2):
            if i < 0 or i >= H:
                memset(patches, 0, run * sizeof(floating))
            else:
                if left:
                    memset(patches, 0, C * sizeof(floating))
                memcpy(
                    patches + left * C,
                    x + (i * W + w - 1 + left) * C,
                    (3 - left - right) * C * sizeof(floating),
                )
                if right:
                    memset(patches + 2 * C, 0, C * sizeof(floating))
            patches += run


cdef enum:
    # Pixels of a job at most: the fastest of 64 to 2048, measured in every layer. More do not fit the cache;
    # with fewer, BLAS packs the weights more often.
    MAX_PIXELS = 512
    # Where a small picture has fewer jobs, output channels are divided as well, so that there are some for
    # all threads: 62 ms instead of 86 for an evaluation at 64 x 64 pixels.
    MIN_JOBS = 4


cdef struct Jobs:
    Py_ssize_t rows    # of the picture in a job, if they are short
    Py_ssize_t pieces  # of a long row, a job each
    Py_ssize_t parts   # of the output channels
    Py_ssize_t buffer  # elements of the patches of a job


cdef Jobs divide(Py_ssize_t height, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K) noexcept nogil:
    """By rows of the picture: so a strip of it makes the same calls of BLAS, whose bits depend on sizes."""
    cdef Jobs jobs
    W, height = max(1, W), max(1, height)  # memory is also estimated for pictures that are too small
    jobs.rows = max(1, MAX_PIXELS // W)
    jobs.pieces = (W + MAX_PIXELS - 1) // MAX_PIXELS
    jobs.parts = (height + jobs.rows - 1) // jobs.rows * jobs.pieces
    jobs.parts = min(K, max(1, MIN_JOBS // jobs.parts))
    jobs.buffer = min(jobs.rows, height) * ((W + jobs.pieces - 1) // jobs.pieces) * 9 * C
    return jobs


def conv3x3_rows(Py_ssize_t W):
    """Rows of a picture of this width that are computed together: strips begin at multiples of it."""
    return divide(1, W, 1, 1).rows


def conv3x3_workspace(Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, int itemsize, int threads):
    """Elements that the function below allocates for x (H, W, C) and y (H, W, K)."""
    cdef Jobs jobs = divide(H, W, C, K)
    return min(threads, (H + jobs.rows - 1) // jobs.rows * jobs.pieces * jobs.parts) * jobs.buffer


def conv3x3(
    const floating[:, :, ::1] x,  # IN (H, W, C)
    const floating[:, ::1] w,     # IN (9C, K)
    const floating[::1] b,        # IN (K,)
    floating[:, :, ::1] y,        # OUT (H, W, K)
    int threads,
    strip=None,                   # first row and height, if y is a strip, which begins with a job
):
    cdef Py_ssize_t H = x.shape[0], W = x.shape[1], C = x.shape[2], K = w.shape[1], rows = y.shape[0]
    cdef bint above = strip is not None and strip[0] > 0  # x has a row above y
    cdef Jobs jobs = divide(strip[1] if strip else H, W, C, K)
    cdef Py_ssize_t parts = jobs.parts, pieces = jobs.pieces
    cdef Py_ssize_t count = (rows + jobs.rows - 1) // jobs.rows * pieces * parts
    cdef Py_ssize_t job, piece, row, first, last, pixel, left, right
    cdef floating[:, ::1] buffers
    cdef floating* patches
    cdef floating* first_y = &y[0, 0, 0] - above * W * K  # of the first row of x

    threads = min(threads, count)  # waiting for threads without work takes time
    buffers = np.empty((threads, jobs.buffer), dtype=np.float32 if floating is float else np.float64)
    # Jobs are the same for any number of threads, and no two write the same elements: so the result is the
    # same to the last bit.
    for job in prange(count, nogil=True, num_threads=threads, schedule="dynamic"):
        piece = job // parts % pieces
        row = job // parts // pieces * jobs.rows
        first = (above + row) * W + piece * W // pieces
        last = (above + min(row + jobs.rows, rows) - 1) * W + (piece + 1) * W // pieces
        left = job % parts * K // parts
        right = (job % parts + 1) * K // parts
        patches = &buffers[npstyle_thread(), 0]
        im2col(&x[0, 0, 0], H, W, C, first, last, patches)
        for pixel in range(first, last):
            memcpy(first_y + pixel * K + left, &b[left], (right - left) * sizeof(floating))
        gemm(
            last - first, right - left, 9 * C, patches, &w[0, left], <floating>1,
            first_y + first * K + left, K,
        )
