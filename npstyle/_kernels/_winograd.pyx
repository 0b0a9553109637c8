"""3x3 convolution by Winograd's minimal filtering F(6x6, 3x3), with the ReLU that follows it.

A tile of 6 x 6 outputs depends on 8 x 8 inputs. Directly that takes 36 . 9 = 324 multiplications for each
pair of channels; after a linear transform of tile and filter it takes 64, and one more transform gives
the outputs. Over all tiles and channels those are 64 matrix products. Small layers, which such tiles would
overhang by much, use F(4x4, 3x3). The steps are in winograd_tile.h; this file decides in which order they
run, on which thread, and where their results are kept. See docs/winograd.md.
"""
from cython cimport floating
from cython.parallel cimport parallel, prange
from libc.stdint cimport uint8_t
from libc.string cimport memset

from npstyle._kernels._cpu cimport isa
from npstyle._kernels._openmp cimport (
    npstyle_add, npstyle_barrier, npstyle_get, npstyle_set, npstyle_thread, npstyle_yield,
)

cdef extern from "winograd.h" nogil:
    ctypedef struct winograd_shape:
        Py_ssize_t H, W, C, K
    ctypedef struct winograd_strides:
        Py_ssize_t matrix, row
    ctypedef struct winograd_steps:
        Py_ssize_t tile, panel, rows
        void (*transform_input)(
            const void* x, const uint8_t* mask, const void* zeros, winograd_shape s, Py_ssize_t first,
            Py_ssize_t count, void* v, winograd_strides v_strides, int pooled,
        ) noexcept nogil
        void (*pack_filter)(
            const void* w, winograd_shape s, int flip, Py_ssize_t panel, void* g
        ) noexcept nogil
        void (*transform_filter)(
            const void* g, Py_ssize_t C, int row, void* u, Py_ssize_t u_matrix
        ) noexcept nogil
        void (*gemm)(
            const void* v, winograd_strides v_strides, Py_ssize_t points, Py_ssize_t count, Py_ssize_t C,
            const void* u, Py_ssize_t u_matrix, void* m, winograd_strides m_strides, int near,
        ) noexcept nogil
        void (*transform_output)(
            const void* m, winograd_strides m_strides, winograd_shape s, Py_ssize_t first, Py_ssize_t count,
            Py_ssize_t panel, const void* bias, uint8_t* mask, int accumulate, void* y, int pooled,
        ) noexcept nogil
    ctypedef struct winograd_tiles:
        winograd_steps large, small
    const winograd_tiles* winograd_table[1][2]

# None of these sizes depends on the number of threads, so neither do the results. The times are from
# docs/performance.md, "What was tried": two cores with AVX-512, float32.
cdef enum:
    # Tiles of a job, in layers computed by blocks. Their transformed input and a panel of products are 0.9 MB
    # at 64 channels, for the second-level cache of one core.
    MAX_BLOCK_TILES = 32
    # Fewer tiles than this are divided into blocks half as large, so that threads finish at about the same
    # time: 0.92 to 0.98 of the time at 128 x 128 pixels.
    MIN_TILES_FOR_FULL_BLOCKS = 1024
    # Layers of fewer tiles are computed by panels: there would not be a block for every thread.
    MIN_TILES_BY_BLOCKS = 256
    # C K of the largest layers computed by blocks: every block reads their transformed filters, 8 MB, from
    # the third-level cache. At 256 x 256 channels, 17 MB, blocks take 57 ms and panels 49 (AVX-512), or 67
    # and 53 (AVX2).
    MAX_CHANNEL_PAIRS_BY_BLOCKS = 32768
    # Tiles transformed before any is multiplied, in layers computed by panels: 17 MB at 512 channels, for the
    # third-level cache. Batches of 64 tiles took 35 ms instead of 29: filters are transformed twice as often.
    MAX_BATCH_TILES = 128
    # With fewer panels of output channels than this, a batch is divided into blocks, to have enough jobs.
    MIN_PANELS_FOR_FULL_BATCH = 8
    # Transforming the filters takes as long as the products of this many tiles. With it `cost` chooses the
    # size of tiles that was faster at 512 channels: small ones up to 32 x 32 pixels (6.5 ms instead of 7.7).
    FILTER_TRANSFORM_TILES = 10
    # Elements between matrices and between rows: at a distance of powers of two they would share cache sets.
    # With 512 channels filters are transformed in 2.2 ms instead of 3.8 (one thread, AVX2).
    PADDING = 16


cdef struct Arrays:
    # What a pass reads and writes, of `floating`. Pooled arrays have a mean, or the gradient of one, for each
    # 2 x 2 pixels.
    const void* x
    const uint8_t* x_mask
    bint x_pooled
    const void* w
    bint flip
    const void* b
    void* y
    uint8_t* y_mask
    bint y_pooled
    bint accumulate


cdef struct Plan:
    const winograd_steps* steps
    Py_ssize_t points  # elements of a transformed tile, and so matrix products
    bint by_panels     # a job is a panel of output channels for a batch of tiles, else a block of tiles
    Py_ssize_t tiles   # that are computed
    Py_ssize_t first   # of them: a strip counts one row of tiles that is above it
    Py_ssize_t batch   # tiles that are transformed before any is multiplied
    Py_ssize_t block   # tiles of a job
    Py_ssize_t panels  # of the layer
    # Elements: a panel of packed filters; a matrix of it transformed, one row of them, and all; transformed
    # input; products.
    Py_ssize_t g, u_matrix, u_row, u, v, m
    winograd_strides v_strides, m_strides


cdef Py_ssize_t count_tiles(const winograd_steps* steps, winograd_shape s) noexcept nogil:
    cdef Py_ssize_t out = steps.tile - 2
    return ((s.H + out - 1) // out) * ((s.W + out - 1) // out)


cdef Py_ssize_t cost(const winograd_steps* steps, winograd_shape s) noexcept nogil:
    """Time of the products and of the filters' transforms, in rows multiplied."""
    cdef Py_ssize_t tiles = count_tiles(steps, s)
    cdef Py_ssize_t rows = (tiles + steps.rows - 1) // steps.rows * steps.rows
    return steps.tile * steps.tile * (rows + FILTER_TRANSFORM_TILES)


cdef const winograd_steps* chosen(const winograd_tiles* tiles, winograd_shape s) noexcept nogil:
    return &tiles.large if cost(&tiles.large, s) <= cost(&tiles.small, s) else &tiles.small


cdef Plan plan(const winograd_tiles* tiles, winograd_shape s, Py_ssize_t height) noexcept nogil:
    """For a strip (s.H, s.W, s.C) of a picture of this height, which decides on the size of tiles."""
    cdef Plan p
    p.steps = chosen(tiles, winograd_shape(height, s.W, s.C, s.K))
    p.tiles = count_tiles(p.steps, s)
    p.first = 0
    p.by_panels = s.C * s.K > MAX_CHANNEL_PAIRS_BY_BLOCKS or p.tiles < MIN_TILES_BY_BLOCKS
    cdef bint full = p.by_panels or p.tiles >= MIN_TILES_FOR_FULL_BLOCKS
    cdef Py_ssize_t block = MAX_BLOCK_TILES if full else MAX_BLOCK_TILES // 2
    block = (block + p.steps.rows - 1) // p.steps.rows * p.steps.rows
    p.points = p.steps.tile * p.steps.tile
    p.panels = s.K // p.steps.panel
    p.batch = block
    if p.by_panels:
        p.batch *= min((p.tiles + block - 1) // block, MAX_BATCH_TILES // MAX_BLOCK_TILES)
    p.block = p.batch if p.panels >= MIN_PANELS_FOR_FULL_BATCH else block
    p.v_strides = winograd_strides(p.batch * (s.C + PADDING) + PADDING, s.C + PADDING)
    p.m_strides = winograd_strides(p.block * p.steps.panel + PADDING, p.steps.panel)
    p.g = 9 * s.C * p.steps.panel
    p.u_matrix = s.C * p.steps.panel + PADDING
    p.u_row = p.steps.tile * p.u_matrix
    p.u = p.steps.tile * p.u_row
    p.v = p.points * p.v_strides.matrix
    p.m = p.points * p.m_strides.matrix
    return p


def winograd_tile(Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, int itemsize):
    """Inputs of a tile in each direction, 8 or 6, in a layer of this size."""
    return chosen(winograd_table[isa][itemsize == 8], winograd_shape(H, W, C, K)).tile


def winograd_rows(Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, int itemsize):
    """Rows of outputs of a tile: strips begin at multiples of them."""
    return winograd_tile(H, W, C, K, itemsize) - 2


def winograd_workspace(
    Py_ssize_t H, Py_ssize_t W, Py_ssize_t C, Py_ssize_t K, int itemsize, int threads, height=None
):
    """Elements of workspace that the functions below need: y (H, W, K), of a picture of this height."""
    cdef Plan p = plan(winograd_table[isa][itemsize == 8], winograd_shape(H, W, C, K), height or H)
    if p.by_panels:
        return C + shared_elements(threads, itemsize) + p.v + threads * (p.g + p.u_row + p.m)
    return C + p.panels * p.u + threads * (p.g + p.v + p.m)


cdef void convolve_by_blocks(
    Plan p, winograd_shape s, Arrays a, floating* workspace, int threads
) noexcept nogil:
    """Shallow layers: all filters are transformed, then each job takes a block of tiles from x to y."""
    cdef const winograd_steps* steps = p.steps
    cdef floating* zeros = workspace
    cdef floating* u = zeros + s.C
    cdef floating* work = u + p.panels * p.u  # g, v and m for each thread
    cdef Py_ssize_t blocks = (p.tiles + p.block - 1) // p.block
    cdef Py_ssize_t job, panel, first, count
    cdef int row
    cdef floating* g
    cdef floating* v
    cdef floating* m
    with parallel(num_threads=threads):
        g = work + npstyle_thread() * (p.g + p.v + p.m)
        v = g + p.g
        m = v + p.v
        for panel in prange(p.panels, schedule="dynamic"):
            steps.pack_filter(a.w, s, a.flip, panel, g)
            for row in range(steps.tile):
                steps.transform_filter(g, s.C, row, u + panel * p.u + row * p.u_row, p.u_matrix)
        npstyle_barrier()
        for job in prange(blocks, schedule="dynamic"):
            first = job * p.block
            count = min(p.block, p.tiles - first)
            steps.transform_input(
                a.x, a.x_mask, zeros, s, p.first + first, count, v, p.v_strides, a.x_pooled
            )
            for panel in range(p.panels):
                steps.gemm(
                    v, p.v_strides, p.points, count, s.C, u + panel * p.u, p.u_matrix, m, p.m_strides, False
                )
                steps.transform_output(
                    m, p.m_strides, s, p.first + first, count, panel, a.b, a.y_mask, a.accumulate, a.y,
                    a.y_pooled,
                )


cdef struct Shared:
    # Work that threads do together: the panels of a batch, or the rows of points of a panel.
    long taken, done  # parts of it
    Py_ssize_t panel, first, count  # of a panel: its number, the first of the batch's tiles and how many
    Py_ssize_t apart[11]  # so that each has cache lines of its own


cdef void convolve_by_panels(
    Plan p, winograd_shape s, Arrays a, floating* workspace, int threads
) noexcept nogil:
    """Deep layers, whose filters are larger than their feature maps, and small pictures.

    All tiles of a batch are transformed, and then multiplied by one panel of filters after the other.
    """
    cdef const winograd_steps* steps = p.steps
    cdef floating* zeros = workspace
    cdef Shared* shared = <Shared*>(zeros + s.C)  # a panel of each thread, and two batches in turn
    cdef floating* v = zeros + s.C + shared_elements(threads, sizeof(floating))
    cdef floating* work = v + p.v  # g, a row of u, and m for each thread
    cdef Py_ssize_t batch, start, jobs, job, first, count
    cdef int thread
    memset(shared, 0, (threads + 2) * sizeof(Shared))
    for thread in range(threads):
        shared[thread].taken = steps.tile  # nothing to do yet
    with parallel(num_threads=threads):
        for batch in range((p.tiles + p.batch - 1) // p.batch):
            start = batch * p.batch
            jobs = (min(p.batch, p.tiles - start) + steps.rows - 1) // steps.rows
            for job in prange(jobs, schedule="dynamic"):
                first = job * steps.rows
                count = min(steps.rows, p.tiles - start - first)
                steps.transform_input(
                    a.x, a.x_mask, zeros, s, p.first + start + first, count, v + first * p.v_strides.row,
                    p.v_strides, a.x_pooled,
                )
            npstyle_barrier()
            multiply_batch(p, s, a, batch, v, work, shared, npstyle_thread(), threads)


cdef void multiply_batch(
    Plan p, winograd_shape s, Arrays a, Py_ssize_t batch, const floating* v, floating* work, Shared* shared,
    int thread, int threads,
) noexcept nogil:
    """Each job transforms the filters of one panel, and multiplies the batch, or a block of it, by them.

    Both a row of points at a time, in its core's cache. Threads that find no job left take rows of the
    others' panels, so that none waits for long.
    """
    cdef const winograd_steps* steps = p.steps
    cdef Py_ssize_t start = batch * p.batch, size = p.g + p.u_row + p.m
    cdef Py_ssize_t blocks = (min(p.batch, p.tiles - start) + p.block - 1) // p.block
    cdef long jobs = p.panels * blocks, job
    cdef Shared* panels = shared + threads + batch % 2
    cdef Shared* mine = shared + thread
    cdef floating* g = work + thread * size
    cdef floating* u = g + p.g
    cdef floating* m = u + p.u_row
    cdef int n, other
    if thread == 0:  # no thread is at the next batch before all have left this one
        memset(shared + threads + (batch + 1) % 2, 0, sizeof(Shared))
    job = npstyle_add(&panels.taken, 1)
    while job < jobs:
        mine.panel = job // blocks
        mine.first = job % blocks * p.block
        mine.count = min(p.block, p.tiles - start - mine.first)
        steps.pack_filter(a.w, s, a.flip, mine.panel, g)
        mine.done = 0
        npstyle_set(&mine.taken, 0)  # from now on there are rows to take
        multiply_rows(p, s, v, mine, g, u, m)
        while npstyle_get(&mine.done) < steps.tile:
            npstyle_yield()
        steps.transform_output(
            m, p.m_strides, s, p.first + start + mine.first, mine.count, mine.panel, a.b, a.y_mask,
            a.accumulate, a.y, a.y_pooled,
        )
        npstyle_add(&panels.done, 1)
        job = npstyle_add(&panels.taken, 1)
    while npstyle_get(&panels.done) < jobs:
        for n in range(1, threads):
            other = (thread + n) % threads
            g = work + other * size
            multiply_rows(p, s, v, shared + other, g, u, g + p.g + p.u_row)
        npstyle_yield()


cdef void multiply_rows(
    Plan p, winograd_shape s, const floating* v, Shared* panel, const floating* g, floating* u, floating* m
) noexcept nogil:
    """Those rows of points of a panel that no other thread takes."""
    cdef const winograd_steps* steps = p.steps
    cdef long row
    while npstyle_get(&panel.taken) < steps.tile:
        row = npstyle_add(&panel.taken, 1)
        if row < steps.tile:
            steps.transform_filter(g, s.C, row, u, p.u_matrix)
            steps.gemm(
                v + row * steps.tile * p.v_strides.matrix + panel.first * p.v_strides.row, p.v_strides,
                steps.tile, panel.count, s.C,
                u, p.u_matrix, m + row * steps.tile * p.m_strides.matrix, p.m_strides, True,
            )
            npstyle_add(&panel.done, 1)


cdef Py_ssize_t shared_elements(int threads, int itemsize) noexcept nogil:
    """Of workspace, for what threads share."""
    return (threads + 2) * sizeof(Shared) // itemsize


cdef void convolve(
    winograd_shape s, Py_ssize_t first, Py_ssize_t height, Arrays a, floating* workspace, int threads
) noexcept nogil:
    """Rows first ... first + s.H - 1 of a picture of this height; x has one more where the picture continues.

    The steps get the strip as a picture of its own. Where there is something above it, one row of tiles is,
    too, which is not computed, and of whose inputs there is only the last row; or the cell that this is in.
    """
    cdef Plan p = plan(winograd_table[isa][floating is double], s, height)
    cdef Py_ssize_t above = p.steps.tile - 2 if first else 0
    if above:
        p.first = (s.W + above - 1) // above
        if a.x_pooled:
            a.x = <const floating*>a.x - (above // 2 - 1) * (s.W // 2) * s.C
        else:
            a.x = <const floating*>a.x - (above - 1) * s.W * s.C
        if a.y_pooled:
            a.y = <floating*>a.y - above // 2 * (s.W // 2) * s.K
        else:
            a.y = <floating*>a.y - above * s.W * s.K
        if a.x_mask != NULL:
            a.x_mask -= (above - 1) * s.W * s.C // 8
        if a.y_mask != NULL:
            a.y_mask -= above * s.W * s.K // 8
    # With the second of the next rows there is a cell of the first; an odd last row of the picture has none.
    s.H = above + min(height - first, s.H + (2 if a.x_pooled else 1))
    memset(workspace, 0, s.C * sizeof(floating))  # a pixel outside the picture
    if p.by_panels:
        convolve_by_panels[floating](p, s, a, workspace, threads)
    else:
        convolve_by_blocks[floating](p, s, a, workspace, threads)


def winograd(
    const floating[:, :, ::1] x,  # IN (H, W, C)
    const floating[:, ::1] w,     # IN (9C, K)
    const floating[::1] b,        # IN (K,)
    floating[:, :, ::1] y,        # OUT (H, W, K), pooled (H // 2, W // 2, K)
    uint8_t[::1] mask,            # OUT (H W K / 8,)
    floating[::1] workspace,      # winograd_workspace(...) elements
    int threads,
    strip=None,                   # first row and height, if y is a strip, which begins with a row of tiles
    bint pooled=False,
):
    cdef Py_ssize_t H = 8 * mask.shape[0] // (x.shape[1] * w.shape[1]) if pooled else y.shape[0]
    cdef winograd_shape s = winograd_shape(H, x.shape[1], x.shape[2], w.shape[1])
    cdef Py_ssize_t first = strip[0] if strip else 0, height = strip[1] if strip else H
    cdef Arrays a = Arrays(
        &x[0, 0, 0], NULL, False, &w[0, 0], False, &b[0], &y[0, 0, 0], &mask[0], pooled, False
    )
    with nogil:
        convolve[floating](s, first, height, a, &workspace[0], threads)


def winograd_backward(
    const floating[:, :, ::1] dy,  # IN (H, W, K), pooled the cells of these rows
    const uint8_t[::1] mask,       # IN (H W K / 8,)
    const floating[:, ::1] w,      # IN (9C, K)
    floating[:, :, ::1] dx,        # OUT (H, W, C); IN as well with accumulate
    bint accumulate,
    floating[::1] workspace,       # winograd_workspace(...) elements, for dy as the input
    int threads,
    strip=None,                    # as above, if dx is one
    bint pooled=False,
):
    # Forward with the roles of C and K exchanged.
    cdef winograd_shape s = winograd_shape(dx.shape[0], dx.shape[1], dy.shape[2], dx.shape[2])
    cdef Py_ssize_t first = strip[0] if strip else 0, height = strip[1] if strip else s.H
    cdef Arrays a = Arrays(
        &dy[0, 0, 0], &mask[0], pooled, &w[0, 0], True, NULL, &dx[0, 0, 0], NULL, False, accumulate
    )
    with nogil:
        convolve[floating](s, first, height, a, &workspace[0], threads)
