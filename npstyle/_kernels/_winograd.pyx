"""3x3 convolution by Winograd's minimal filtering F(6x6, 3x3), with the ReLU that follows it.

A tile of 6 x 6 outputs looks at 8 x 8 inputs. Directly that takes 36 . 9 = 324 multiplications for each
pair of channels; after a linear transform of tile and filter it takes 64, and one more transform gives
the outputs. Over all tiles and channels those are 64 matrix products. Small layers, where much of such tiles
would overhang, take F(4x4, 3x3). The steps are in winograd_tile.h, this file decides what is done when,
by whom, and where it is kept. See docs/winograd.md.
"""
from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.stdint cimport uint8_t
from libc.string cimport memset

from npstyle._kernels._openmp cimport npstyle_thread

cdef extern from "winograd.h" nogil:
    ctypedef struct winograd_shape:
        Py_ssize_t H, W, C, K
    ctypedef struct winograd_stack:
        Py_ssize_t step, row
    ctypedef struct winograd_steps:
        const char* name
        Py_ssize_t tile, panel, rows
        void (*input)(
            const void* x, const uint8_t* mask, const void* zeros, winograd_shape s, Py_ssize_t first,
            Py_ssize_t count, void* v, winograd_stack at,
        ) noexcept nogil
        void (*gather)(const void* w, winograd_shape s, int flip, Py_ssize_t panel, void* g) noexcept nogil
        void (*kernel)(const void* g, Py_ssize_t C, int row, void* u) noexcept nogil
        void (*multiply)(
            const void* v, winograd_stack at, Py_ssize_t points, Py_ssize_t count, Py_ssize_t C,
            const void* u, void* m, winograd_stack to, int ahead,
        ) noexcept nogil
        void (*output)(
            const void* m, winograd_stack at, winograd_shape s, Py_ssize_t first, Py_ssize_t count,
            Py_ssize_t panel, const void* bias, uint8_t* mask, int add, void* y,
        ) noexcept nogil
    ctypedef struct winograd_sizes:
        winograd_steps large, small
    const winograd_sizes* winograd_find(const char* name, int bytes)

cdef const winograd_sizes* steps_float
cdef const winograd_sizes* steps_double


def use(name=None):
    """Choose an instruction set, "avx512", "avx2" or "plain"; None takes the best. Returns its name."""
    global steps_float, steps_double
    cdef bytes text = b"" if name is None else name.encode()
    cdef const char* wanted = NULL
    if name is not None:
        wanted = text
    if winograd_find(wanted, 4) == NULL:
        raise ValueError(f"this processor, or this build, has no {name}")
    steps_float = winograd_find(wanted, 4)
    steps_double = winograd_find(wanted, 8)
    return steps_float.large.name.decode()


use()


# Sizes, measured best. None depends on the number of threads.
cdef enum:
    BLOCK = 32       # tiles that a job transforms and multiplies: 1 MB, in its own cache, for 64 channels
    BATCH = 128      # tiles that are transformed for all threads together, in the third-level cache
    LARGE = 65536    # C K above which transformed weights, 16 MB then, would fill that cache
    MIDDLING = 1024  # tiles below which blocks are half as large, for threads to end at one time
    FEW = 256        # tiles below which there is not a block for every thread
    MANY = 8         # panels, and more, are work enough to be dealt out without dividing a batch
    WEIGHTS = 10     # tiles whose products take as long as to transform the weights for them
    PAD = 16         # numbers between matrices and rows: powers of two apart, they would share cache lines


cdef struct Plan:
    const winograd_steps* steps
    Py_ssize_t points  # places in a tile, and so products
    bint by_panels     # a job is a panel of output channels for a batch of tiles, or a block of tiles
    Py_ssize_t tiles   # of the picture
    Py_ssize_t batch   # tiles that are transformed before any is multiplied
    Py_ssize_t block   # tiles of a job
    Py_ssize_t panels  # of the layer
    Py_ssize_t g, u_row, u, v, m  # numbers: a panel of filters, and transformed; transformed input; products
    winograd_stack v_at, m_at


cdef Py_ssize_t tiles_of(const winograd_steps* steps, winograd_shape s) noexcept nogil:
    cdef Py_ssize_t out = steps.tile - 2
    return ((s.H + out - 1) // out) * ((s.W + out - 1) // out)


cdef Py_ssize_t cost(const winograd_steps* steps, winograd_shape s) noexcept nogil:
    """Of the products, and of the weights for them, in rows multiplied."""
    cdef Py_ssize_t tiles = tiles_of(steps, s)
    return steps.tile * steps.tile * ((tiles + steps.rows - 1) // steps.rows * steps.rows + WEIGHTS)


cdef Plan plan(const winograd_sizes* sizes, winograd_shape s) noexcept nogil:
    cdef Plan p
    p.steps = &sizes.large if cost(&sizes.large, s) <= cost(&sizes.small, s) else &sizes.small
    p.tiles = tiles_of(p.steps, s)
    p.by_panels = s.C * s.K > LARGE or p.tiles < FEW
    cdef Py_ssize_t block = BLOCK if p.by_panels or p.tiles >= MIDDLING else BLOCK // 2
    block = (block + p.steps.rows - 1) // p.steps.rows * p.steps.rows
    p.points = p.steps.tile * p.steps.tile
    p.panels = s.K // p.steps.panel
    p.batch = min((p.tiles + block - 1) // block, BATCH // BLOCK) * block if p.by_panels else block
    p.block = p.batch if p.panels >= MANY else block
    p.v_at = winograd_stack(p.batch * (s.C + PAD) + PAD, s.C + PAD)
    p.m_at = winograd_stack(p.block * p.steps.panel + PAD, p.steps.panel)
    p.g = 9 * s.C * p.steps.panel
    p.u_row = p.steps.tile * s.C * p.steps.panel
    p.u = p.steps.tile * p.u_row
    p.v = p.points * p.v_at.step
    p.m = p.points * p.m_at.step
    return p


def winograd_tile(Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, int itemsize):
    """Inputs of a tile in each direction, 8 or 6, as the functions below take it."""
    return plan(steps_float if itemsize == 4 else steps_double, winograd_shape(H, W, C, K)).steps.tile


def winograd_work(Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, int itemsize, int threads):
    """How many numbers of memory to work in the functions below need: x (H, W, C) to y (H, W, K)."""
    cdef Plan p = plan(steps_float if itemsize == 4 else steps_double, winograd_shape(H, W, C, K))
    if p.by_panels:
        return C + p.v + threads * (p.g + p.u_row + p.m)
    return C + p.panels * p.u + threads * (p.g + p.v + p.m)


cdef void convolve_by_blocks(
    Plan p, winograd_shape s, const floating* x, const uint8_t* x_mask,
    const floating* w, bint flip, const floating* b, floating* y, uint8_t* y_mask, bint add,
    floating* work, int threads,
) noexcept nogil:
    """Shallow layers: all weights are transformed, then each job takes a block of tiles from x to y."""
    cdef const winograd_steps* steps = p.steps
    cdef floating* zeros = work
    cdef floating* u = zeros + s.C
    cdef floating* room = u + p.panels * p.u  # of each thread: g, v, m
    cdef Py_ssize_t blocks = (p.tiles + p.block - 1) // p.block
    cdef Py_ssize_t job, panel, first, count
    cdef int row
    cdef floating* g
    cdef floating* v
    with parallel(num_threads=threads):
        g = room + npstyle_thread() * (p.g + p.v + p.m)
        v = g + p.g
        for panel in prange(p.panels, schedule="dynamic"):
            steps.gather(w, s, flip, panel, g)
            for row in range(steps.tile):
                steps.kernel(g, s.C, row, u + panel * p.u + row * p.u_row)
        for job in prange(blocks, schedule="dynamic"):
            first = job * p.block
            count = min(p.block, p.tiles - first)
            steps.input(x, x_mask, zeros, s, first, count, v, p.v_at)
            for panel in range(p.panels):
                steps.multiply(v, p.v_at, p.points, count, s.C, u + panel * p.u, v + p.v, p.m_at, False)
                steps.output(v + p.v, p.m_at, s, first, count, panel, b, y_mask, add, y)


cdef void convolve_by_panels(
    Plan p, winograd_shape s, const floating* x, const uint8_t* x_mask,
    const floating* w, bint flip, const floating* b, floating* y, uint8_t* y_mask, bint add,
    floating* work, int threads,
) noexcept nogil:
    """Deep layers, whose weights are larger than the picture there, and small pictures: all tiles of a
    batch are transformed, then each job makes a panel of weights, a row at a time in its cache, and sends
    the batch, or a block of it, through.
    """
    cdef const winograd_steps* steps = p.steps
    cdef floating* zeros = work
    cdef floating* v = zeros + s.C
    cdef floating* room = v + p.v  # of each thread: g, a row of u, m
    cdef Py_ssize_t batch, start, jobs, job, blocks, panel, first, count
    cdef int row
    cdef floating* g
    cdef floating* m
    with parallel(num_threads=threads):
        g = room + npstyle_thread() * (p.g + p.u_row + p.m)
        m = g + p.g + p.u_row
        for batch in range((p.tiles + p.batch - 1) // p.batch):
            start = batch * p.batch
            jobs = (min(p.batch, p.tiles - start) + steps.rows - 1) // steps.rows
            for job in prange(jobs, schedule="dynamic"):
                first = job * steps.rows
                count = min(steps.rows, p.tiles - start - first)
                steps.input(x, x_mask, zeros, s, start + first, count, v + first * p.v_at.row, p.v_at)
            blocks = (min(p.batch, p.tiles - start) + p.block - 1) // p.block
            jobs = p.panels * blocks
            for job in prange(jobs, schedule="dynamic"):
                panel = job // blocks
                first = job % blocks * p.block
                count = min(p.block, p.tiles - start - first)
                steps.gather(w, s, flip, panel, g)
                for row in range(steps.tile):
                    steps.kernel(g, s.C, row, g + p.g)
                    steps.multiply(
                        v + row * steps.tile * p.v_at.step + first * p.v_at.row, p.v_at, steps.tile, count,
                        s.C, g + p.g, m + row * steps.tile * p.m_at.step, p.m_at, True,
                    )
                steps.output(m, p.m_at, s, start + first, count, panel, b, y_mask, add, y)


cdef void convolve(
    winograd_shape s, const floating* x, const uint8_t* x_mask, const floating* w, bint flip,
    const floating* b, floating* y, uint8_t* y_mask, bint add, floating* work, int threads,
) noexcept nogil:
    cdef Plan p = plan(steps_float if floating is float else steps_double, s)
    memset(work, 0, s.C * sizeof(floating))  # what stands outside the picture
    if p.by_panels:
        convolve_by_panels(p, s, x, x_mask, w, flip, b, y, y_mask, add, work, threads)
    else:
        convolve_by_blocks(p, s, x, x_mask, w, flip, b, y, y_mask, add, work, threads)


def winograd(
    const floating[:, :, ::1] x,  # IN (H, W, C)
    const floating[:, ::1] w,     # IN (9C, K)
    const floating[::1] b,        # IN (K,)
    floating[:, :, ::1] y,        # OUT (H, W, K)
    uint8_t[::1] mask,            # OUT (H W K / 8,)
    floating[::1] work,           # numbers to work in, as many as winograd_work says
    int threads,
):
    cdef winograd_shape s = winograd_shape(x.shape[0], x.shape[1], x.shape[2], w.shape[1])
    with nogil:
        convolve(
            s, &x[0, 0, 0], NULL, &w[0, 0], False, &b[0], &y[0, 0, 0], &mask[0], False, &work[0], threads
        )


def winograd_backward(
    const floating[:, :, ::1] dy,  # IN (H, W, K)
    const uint8_t[::1] mask,       # IN (H W K / 8,)
    const floating[:, ::1] w,      # IN (9C, K)
    floating[:, :, ::1] dx,        # OUT (H, W, C), IN, too, with add
    bint add,
    floating[::1] work,            # numbers to work in, as many as winograd_work says
    int threads,
):
    # Forward with the roles of C and K exchanged.
    cdef winograd_shape s = winograd_shape(dy.shape[0], dy.shape[1], dy.shape[2], dx.shape[2])
    with nogil:
        convolve[floating](
            s, &dy[0, 0, 0], &mask[0], &w[0, 0], True, NULL, &dx[0, 0, 0], NULL, add, &work[0], threads
        )
