"""Packed rows: some elements of each row one after the other, and a bit for each element.

Elements are copied as integers, so that they keep all their bits. A part of a row is a job, and where its
elements begin among those stored is known before: threads write side by side.
"""
from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

ctypedef fused number:
    float
    double
    uint32_t
    uint64_t

ctypedef fused word:
    uint32_t
    uint64_t

cdef enum:
    PART = 8192    # elements of a row in a job: whole bytes of bits, and several jobs in a row of a strip
    LEAST = 32768  # elements for a thread: more work than it takes to start it


def packing_parts(Py_ssize_t N):
    """Parts of a row of N elements."""
    return parts_of(N)


cdef Py_ssize_t parts_of(Py_ssize_t N) noexcept nogil:
    return (N + PART - 1) // PART


cdef int threads_for(Py_ssize_t elements, Py_ssize_t jobs, int threads) noexcept nogil:
    return max(1, min(threads, jobs, elements // LEAST))


cdef Py_ssize_t mark_part(const number* x, Py_ssize_t n, uint8_t* bits) noexcept nogil:
    """The bits of n elements; returned is how many are set."""
    cdef Py_ssize_t byte, bit, count = 0
    cdef int mask
    cdef number[8] eight  # as in _relu.pyx, for vectors
    for byte in range(n // 8):
        mask = 0
        for bit in range(8):
            eight[bit] = x[bit]
        for bit in range(8):
            mask |= (eight[bit] > 0) << bit
        bits[byte] = mask
        x += 8
    if n % 8:
        mask = 0
        for bit in range(n % 8):
            mask |= (x[bit] > 0) << bit
        bits[n // 8] = mask
    for byte in range((n + 7) // 8):
        mask = bits[byte]
        mask = mask - ((mask >> 1) & 0x55)
        mask = (mask & 0x33) + ((mask >> 2) & 0x33)
        count += (mask + (mask >> 4)) & 0x0f
    return count


# Both loops below go without branches while at least eight elements are left: signs are too random to
# predict. Each of the eight is written, or read, whether its bit is set or not, at most seven places on: so
# the last few elements take loops with branches, and nothing beyond them is touched, where another thread
# writes.

cdef void pack_part(
    const word* x, const uint8_t* bits, Py_ssize_t n, word* values, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t byte = 0, bit, stored = 0
    cdef int mask
    while byte < n // 8 and stored + 8 <= count:
        mask = bits[byte]
        for bit in range(8):
            values[stored] = x[8 * byte + bit]
            stored += (mask >> bit) & 1
        byte += 1
    while byte < (n + 7) // 8 and stored < count:
        mask = bits[byte]
        for bit in range(8):
            if (mask >> bit) & 1 and stored < count:
                values[stored] = x[8 * byte + bit]
                stored += 1
        byte += 1


cdef void unpack_part(
    const word* values, Py_ssize_t count, const uint8_t* bits, Py_ssize_t n, word* y
) noexcept nogil:
    cdef Py_ssize_t byte = 0, bit, done = 0, i
    cdef int mask
    while byte < n // 8 and done + 8 <= count:
        mask = bits[byte]
        for bit in range(8):
            y[8 * byte + bit] = values[done] & (0 - <word>((mask >> bit) & 1))
            done += (mask >> bit) & 1
        byte += 1
    for i in range(8 * byte, n):
        if (bits[i // 8] >> (i % 8)) & 1 and done < count:
            y[i] = values[done]
            done += 1
        else:
            y[i] = 0


def mark(
    const floating[:, ::1] x,   # IN (rows, N)
    uint8_t[:, ::1] bits,       # OUT (rows, ceil(N / 8)), bit j of byte i is that of element 8i + j
    int64_t[::1] starts,        # OUT (rows * parts + 1,), of each part, and the number of all
    bint positive,              # set where x > 0, or else where x has any bit set
    int threads,
):
    cdef Py_ssize_t rows = x.shape[0], N = x.shape[1], parts = parts_of(N), i, row, first
    threads = threads_for(rows * N, rows * parts, threads)
    for i in prange(rows * parts, nogil=True, num_threads=threads, schedule="static"):
        row = i // parts
        first = i % parts * PART
        if positive:
            starts[i + 1] = mark_part(&x[row, first], min(PART, N - first), &bits[row, first // 8])
        elif floating is float:
            starts[i + 1] = mark_part(
                <const uint32_t*>&x[row, first], min(PART, N - first), &bits[row, first // 8]
            )
        else:
            starts[i + 1] = mark_part(
                <const uint64_t*>&x[row, first], min(PART, N - first), &bits[row, first // 8]
            )
    starts[0] = 0
    for i in range(rows * parts):
        starts[i + 1] += starts[i]


def pack(
    const word[:, ::1] x,         # IN (rows, N)
    const uint8_t[:, ::1] bits,   # IN (rows, ceil(N / 8))
    const int64_t[::1] starts,    # IN (rows * parts + 1,)
    word[::1] values,             # OUT (starts[-1],)
    int threads,
):
    cdef Py_ssize_t rows = x.shape[0], N = x.shape[1], parts = parts_of(N), i, row, first
    if starts[0] == starts[rows * parts]:  # values may be empty
        return
    cdef word* out = &values[0]
    threads = threads_for(rows * N, rows * parts, threads)
    for i in prange(rows * parts, nogil=True, num_threads=threads, schedule="static"):
        row = i // parts
        first = i % parts * PART
        pack_part(
            &x[row, first], &bits[row, first // 8], min(PART, N - first), out + starts[i],
            starts[i + 1] - starts[i],
        )


def unpack(
    const word[::1] values,       # IN (at least starts[-1],)
    const uint8_t[:, ::1] bits,   # IN (rows, ceil(N / 8))
    const int64_t[::1] starts,    # IN (rows * parts + 1,)
    word[:, ::1] y,               # OUT (rows, N)
    int threads,
):
    cdef Py_ssize_t rows = y.shape[0], N = y.shape[1], parts = parts_of(N), i, row, first
    if starts[0] == starts[rows * parts]:
        memset(&y[0, 0], 0, rows * N * sizeof(word))
        return
    cdef const word* stored = &values[0]
    threads = threads_for(rows * N, rows * parts, threads)
    for i in prange(rows * parts, nogil=True, num_threads=threads, schedule="static"):
        row = i // parts
        first = i % parts * PART
        unpack_part(
            stored + starts[i], starts[i + 1] - starts[i], &bits[row, first // 8], min(PART, N - first),
            &y[row, first],
        )
