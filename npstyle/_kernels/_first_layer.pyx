"""3x3 convolution of a picture of few channels, conv1_1, with the ReLU that follows it.

The steps are in first_layer_steps.h, for one row of the picture or some.
"""
import numpy as np

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uint8_t

from npstyle._runtime.arena import aligned
from npstyle._kernels._openmp cimport npstyle_thread

cdef extern from "first_layer.h" nogil:
    ctypedef struct first_layer_shape:
        Py_ssize_t H, W, C, K
    ctypedef struct first_layer_steps:
        const char* name
        Py_ssize_t panel
        void (*forward)(
            const void* x, first_layer_shape s, const void* w, const void* b, Py_ssize_t row, void* room, void* y,
            uint8_t* mask,
        ) noexcept nogil
        void (*backward)(
            const void* dy, const uint8_t* mask, first_layer_shape s, const void* w, Py_ssize_t first,
            Py_ssize_t last, void* room, void* dx,
        ) noexcept nogil
    const first_layer_steps* first_layer_find(const char* name, int bytes)

cdef const first_layer_steps* steps_float
cdef const first_layer_steps* steps_double


def use(name=None):
    """Choose an instruction set, "avx512", "avx2" or "plain"; None takes the best. Returns its name."""
    global steps_float, steps_double
    cdef bytes text = b"" if name is None else name.encode()
    cdef const char* wanted = NULL
    if name is not None:
        wanted = text
    if first_layer_find(wanted, 4) == NULL:
        raise ValueError(f"this processor, or this build, has no {name}")
    steps_float = first_layer_find(wanted, 4)
    steps_double = first_layer_find(wanted, 8)
    return steps_float.name.decode()


use()

cdef enum:
    TALL = 8  # rows that one job makes on the way back: it multiplies two more than it has


def _panels(matrix, panel):
    """(rows, columns) as (columns / panel, rows, panel), rounded up with zeros."""
    rows, columns = matrix.shape
    count = -(-columns // panel)
    packed = aligned((count, rows, panel), matrix.dtype)
    packed[...] = 0
    for first in range(0, columns, panel):
        part = matrix[:, first:first + panel]
        packed[first // panel, :, :part.shape[1]] = part
    return packed


def _room(threads, numbers, like):
    """So many numbers for each thread, from a cache line on."""
    return aligned((threads, numbers + -numbers % 16), np.asarray(like).dtype)


def first_layer(
    const floating[:, :, ::1] x,  # IN (H, W, C)
    const floating[:, ::1] w,     # IN (9C, K)
    const floating[::1] b,        # IN (K,)
    floating[:, :, ::1] y,        # OUT (H, W, K)
    uint8_t[::1] mask,            # OUT (H W K / 8,)
    int threads,
):
    cdef const first_layer_steps* steps = steps_float if floating is float else steps_double
    cdef first_layer_shape s = first_layer_shape(x.shape[0], x.shape[1], x.shape[2], w.shape[1])
    cdef const floating[:, :, ::1] panels = _panels(np.asarray(w), steps.panel)
    cdef Py_ssize_t row
    threads = min(threads, s.H)
    cdef floating[:, ::1] room = _room(threads, s.W * (9 * s.C + s.K) + 16, w)
    for row in prange(s.H, nogil=True, num_threads=threads, schedule="dynamic"):
        steps.forward(
            &x[0, 0, 0], s, &panels[0, 0, 0], &b[0], row, &room[npstyle_thread(), 0], &y[0, 0, 0], &mask[0]
        )


def first_layer_backward(
    const floating[:, :, ::1] dy,  # IN (H, W, K)
    const uint8_t[::1] mask,       # IN (H W K / 8,)
    const floating[:, ::1] w,      # IN (9C, K)
    floating[:, :, ::1] dx,        # OUT (H, W, C)
    int threads,
):
    cdef const first_layer_steps* steps = steps_float if floating is float else steps_double
    cdef first_layer_shape s = first_layer_shape(dx.shape[0], dx.shape[1], dx.shape[2], w.shape[1])
    cdef const floating[:, :, ::1] panels = _panels(np.asarray(w).T, steps.panel)
    cdef Py_ssize_t columns = panels.shape[0] * steps.panel
    cdef Py_ssize_t jobs = (s.H + TALL - 1) // TALL, job
    threads = min(threads, jobs)
    cdef floating[:, ::1] room = _room(threads, s.W * (s.K + columns) + TALL * (s.W + 2) * s.C, w)
    for job in prange(jobs, nogil=True, num_threads=threads, schedule="dynamic"):
        steps.backward(
            &dy[0, 0, 0], &mask[0], s, &panels[0, 0, 0], job * TALL, min(job * TALL + TALL, s.H),
            &room[npstyle_thread(), 0], &dx[0, 0, 0],
        )
