"""ReLU, y = max(x, 0), and its derivative, which needs one bit per element: x > 0."""
from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uint8_t

cdef enum:
    BLOCK = 32768  # elements of a job: whole bytes of the mask, and more work than it takes to start it


# Both loops below read eight elements before they write any: then compilers use vectors. With branches, which
# signs as random as these mispredict every other time, ReLU took 122 ms instead of 14 (docs/performance.md).

cdef void relu_block(
    const floating* x, floating* y, uint8_t* mask, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t byte, bit
    cdef int bits
    cdef floating[8] eight
    for byte in range(n // 8):
        bits = 0
        for bit in range(8):
            eight[bit] = x[bit]
        for bit in range(8):
            bits |= (eight[bit] > 0) << bit
        # Not "x if x > 0": a NaN has to stay a NaN.
        for bit in range(8):
            y[bit] = 0 if eight[bit] < 0 else eight[bit]
        mask[byte] = bits
        x += 8
        y += 8
    if n % 8:
        bits = 0
        for bit in range(n % 8):
            bits |= (x[bit] > 0) << bit
            y[bit] = 0 if x[bit] < 0 else x[bit]
        mask[n // 8] = bits


cdef void relu_backward_block(
    const floating* dy, const uint8_t* mask, floating* dx, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t byte, bit
    cdef int bits
    cdef floating[8] eight
    for byte in range(n // 8):
        bits = mask[byte]
        for bit in range(8):
            eight[bit] = dy[bit]
        for bit in range(8):
            dx[bit] = eight[bit] if (bits & (1 << bit)) else 0
        dy += 8
        dx += 8
    for bit in range(n % 8):
        dx[bit] = dy[bit] if (mask[n // 8] >> bit) & 1 else 0


def relu(
    const floating[::1] x,  # IN (N,)
    floating[::1] y,        # OUT (N,), may be x
    uint8_t[::1] mask,      # OUT (ceil(N / 8),), bit j of byte i is element 8i + j
    int threads,
):
    cdef Py_ssize_t N = x.shape[0], i, first
    cdef Py_ssize_t blocks = (N + BLOCK - 1) // BLOCK
    threads = min(threads, blocks)
    for i in prange(blocks, nogil=True, num_threads=threads, schedule="static"):
        first = i * BLOCK
        relu_block(&x[first], &y[first], &mask[first // 8], min(BLOCK, N - first))


def relu_backward(
    const floating[::1] dy,    # IN (N,)
    const uint8_t[::1] mask,   # IN (ceil(N / 8),)
    floating[::1] dx,          # OUT (N,), may be dy
    int threads,
):
    cdef Py_ssize_t N = dy.shape[0], i, first
    cdef Py_ssize_t blocks = (N + BLOCK - 1) // BLOCK
    threads = min(threads, blocks)
    for i in prange(blocks, nogil=True, num_threads=threads, schedule="static"):
        first = i * BLOCK
        relu_backward_block(&dy[first], &mask[first // 8], &dx[first], min(BLOCK, N - first))
