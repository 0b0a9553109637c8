"""3x3 convolution by im2col in strips: gather the patches of some pixels, multiply, go on.

    y[h, w, k] = b[k] + sum over i, j, c of x[h + i - 1, w + j - 1, c] kernel[i, j, c, k]

with zeros outside the picture. Written as one product it is y = P Q + b, where the rows of P hold the
patches around the pixels, 9C numbers each, and Q is the kernel as a (9C, K) matrix, here the argument w.
All of P would be nine times the input, so a strip of it is made at a time, in a buffer that stays in
the cache. See docs/convolution.md.
"""
import numpy as np

from cython cimport floating
from cython.parallel cimport prange
from libc.string cimport memcpy, memset

from npstyle._kernels._blas cimport matmul
from npstyle._kernels._openmp cimport npstyle_thread


cdef void im2col(
    const floating* x, Py_ssize_t H, Py_ssize_t W, Py_ssize_t C,
    Py_ssize_t first, Py_ssize_t last, floating* patches,
) noexcept nogil:
    """Write the patches of the pixels first ... last - 1, row by row of the picture, (last - first, 9C).

    In an (H, W, C) array the three pixels of one row of a patch lie side by side: a run of 3C numbers.
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


# Pixels in a strip: measured best from 3 to 512 channels. Longer strips leave the cache, shorter ones
# make BLAS rearrange the weights more often.
cdef enum:
    STRIP = 512
    FEWEST = 4  # jobs: where a small picture has fewer strips, the output channels are divided, too


def conv3x3(
    const floating[:, :, ::1] x,  # IN (H, W, C)
    const floating[:, ::1] w,     # IN (9C, K)
    const floating[::1] b,        # IN (K,)
    floating[:, :, ::1] y,        # OUT (H, W, K)
    int threads,
):
    cdef Py_ssize_t H = x.shape[0], W = x.shape[1], C = x.shape[2], K = w.shape[1]
    cdef Py_ssize_t M = H * W
    cdef Py_ssize_t strips = (M + STRIP - 1) // STRIP
    cdef Py_ssize_t parts = min(K, max(1, FEWEST // strips))
    cdef Py_ssize_t job, first, last, pixel, left, right
    cdef floating[:, ::1] patches
    cdef floating* mine

    threads = min(threads, strips * parts)  # a team with nothing to do costs time to wait for
    patches = np.empty(
        (threads, min(STRIP, M) * 9 * C), dtype=np.float32 if floating is float else np.float64
    )
    # Jobs are the same whatever the number of threads, and each writes numbers of its own:
    # so the result is the same, to the last bit.
    for job in prange(strips * parts, nogil=True, num_threads=threads, schedule="dynamic"):
        first = job // parts * STRIP
        last = min(first + STRIP, M)
        left = job % parts * K // parts
        right = (job % parts + 1) * K // parts
        mine = &patches[npstyle_thread(), 0]
        im2col(&x[0, 0, 0], H, W, C, first, last, mine)
        for pixel in range(first, last):
            memcpy(&y[0, 0, 0] + pixel * K + left, &b[left], (right - left) * sizeof(floating))
        matmul(
            last - first, right - left, 9 * C, mine, &w[0, left], <floating>1,
            &y[0, 0, 0] + first * K + left, K,
        )
