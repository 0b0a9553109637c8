"""3x3 convolution by Winograd's minimal filtering, and the ReLU that follows it: docs/winograd.md."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from npstyle._kernels.reference.convolution import MAX_STRIP, Strip
from npstyle._kernels.reference.pooling import average_pool, average_pool_backward
from npstyle._kernels.reference.relu import relu, relu_backward
from npstyle._typing import Array, Bytes

# Points of the transforms by the outputs of a tile in each direction; infinity is one more in all of them.
POINTS = {
    6: (0, 1, -1, 2, -2, 1 / 2, -1 / 2),
    4: (0, np.sqrt(1 / 2), -np.sqrt(1 / 2), np.sqrt(2), -np.sqrt(2)),
}


def winograd_transforms(out: int) -> tuple[Array, Array, Array]:
    """The matrices B' (n, n), G (n, 3) and A' (out, n) of F(out, 3), n = out + 2.

    A point each is a row of B' and G and a column of A': the Toom-Cook construction, docs/winograd.md,
    equation 3.
    """
    points = POINTS[out]
    n = len(points)
    B, G, A = np.zeros((n + 1, n + 1)), np.zeros((n + 1, 3)), np.zeros((out, n + 1))
    for row, p in enumerate(points):
        others = [q for q in points if q != p]
        B[row, :n] = np.poly(others)[::-1]  # coefficients of the product of (z - q), z^0 first
        G[row] = np.power(p, np.arange(3.0)) / np.prod([p - q for q in others])
        A[:, row] = np.power(p, np.arange(float(out)))
    B[n], G[n, 2], A[out - 1, n] = np.poly(points)[::-1], 1, 1
    return B, G, A


def winograd_tiles(x: Array, out: int) -> Array:
    """Tiles (rows, columns, out + 2, out + 2, C) of zero-padded x (H, W, C), `out` pixels apart."""
    return tiles_within(np.pad(x, ((1, 1), (1, 1), (0, 0))), out)


def tiles_within(padded: Array, out: int) -> Array:
    """`winograd_tiles` of what has its padding of one pixel on each side."""
    H, W, _ = np.subtract(padded.shape, (2, 2, 0))
    padded = np.pad(padded, ((0, -H % out), (0, -W % out), (0, 0)))
    windows = sliding_window_view(padded, (out + 2, out + 2), axis=(0, 1))[::out, ::out]
    tiles: Array = windows.transpose(0, 1, 3, 4, 2)
    return tiles


def winograd_convolution(x: Array, kernel: Array, out: int = 6) -> Array:
    """y (H, W, K) of x (H, W, C) and kernel (3, 3, C, K): V = B'dB, U = GgG', M = VU, y = A'MA."""
    return convolution_within(np.pad(x, ((1, 1), (1, 1), (0, 0))), transformed(kernel, out), out)


def transformed(kernel: Array, out: int = 6) -> Array:
    """U = GgG (n, n, C, K) of a kernel (3, 3, C, K)."""
    G = winograd_transforms(out)[1].astype(kernel.dtype)
    U: Array = np.einsum("pi,qj,ijck->pqck", G, G, kernel, optimize=True)
    return U


def convolution_within(padded: Array, U: Array, out: int = 6) -> Array:
    """`winograd_convolution` of what has its padding, by a transformed kernel."""
    H, W, _ = np.subtract(padded.shape, (2, 2, 0))
    B, _, A = (matrix.astype(padded.dtype) for matrix in winograd_transforms(out))
    d = tiles_within(padded, out)
    V = np.einsum("pi,qj,rsijc->pqrsc", B, B, d, optimize=True)
    tiles = V.shape[2:4]
    # A matrix product for each (p, q): einsum takes three times as long.
    M = (V.reshape(*V.shape[:2], -1, V.shape[4]) @ U).reshape(*V.shape[:2], *tiles, U.shape[3])
    y: Array = np.einsum("ip,jq,pqrsk->risjk", A, A, M, optimize=True)
    rows, _, columns, _, K = y.shape
    return y.reshape(rows * out, columns * out, K)[:H, :W]


def winograd_rows(H: int, W: int, C: int, K: int, itemsize: int) -> int:
    """Those of tiles multiplied together: a tile may have other bits in a product of another size."""
    return 6 * max(1, MAX_STRIP // (6 * max(1, W)))


def winograd_workspace(
    H: int, W: int, C: int, K: int, itemsize: int, threads: int, height: int | None = None
) -> int:
    """0: NumPy allocates what it needs."""
    return 0


def winograd(
    x: Array,
    w: Array,
    b: Array,
    y: Array,
    mask: Bytes,
    workspace: Array,
    threads: int,
    strip: Strip = None,
    pooled: bool = False,
) -> None:
    """y = max(x * w + b, 0), mask as in `relu`. x (H, W, C), w (9C, K), b (K,), y (H, W, K).

    Or, pooled, y is the means of 2 x 2 of that, (H // 2, W // 2, K).
    """
    (_, W, C), K = x.shape, y.shape[2]
    kernel = w.reshape(3, 3, C, K)
    z = np.empty((8 * mask.size // (W * K), W, K), y.dtype) if pooled else y
    _convolve(x, kernel, z, strip)
    z += b
    relu(z.reshape(-1), z.reshape(-1), mask, threads)
    if pooled:
        average_pool(z, y, threads)


def winograd_backward(
    dy: Array,
    mask: Bytes,
    w: Array,
    dx: Array,
    accumulate: bool,
    workspace: Array,
    threads: int,
    strip: Strip = None,
    pooled: bool = False,
) -> None:
    """dx = dz convolved with the kernel rotated by 180 degrees, its channels exchanged; or dx += that.

    dz is dy where the mask has a bit, else 0. dy (H, W, K), or of the pooled y; w (9C, K), dx (H, W, C).
    """
    if pooled:
        dy = _of_cells(dy, dx.shape[1], mask, int(strip is not None and strip[0] > 0))
    dz = np.empty(dy.shape, dy.dtype)
    relu_backward(dy.reshape(-1), mask, dz.reshape(-1), threads)
    kernel = w.reshape(3, 3, dx.shape[2], dy.shape[2])
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    computed = np.empty(dx.shape, dx.dtype)
    _convolve(dz, flipped, computed, strip)
    dx[...] = computed + (dx if accumulate else 0)


def _of_cells(dy: Array, W: int, mask: Bytes, first: int) -> Array:
    """Gradient (rows, W, K) of the rows that the mask is of, from that of their means, from row `first` on.

    An odd last row has no mean; of the last cell there may be one row only.
    """
    cells, _, K = dy.shape
    last = first + 8 * mask.size // (W * K)
    dz = np.zeros((max(last, 2 * cells), W, K), dy.dtype)
    average_pool_backward(dy, dz[: 2 * cells], 1)
    return dz[first:last]


def _convolve(x: Array, kernel: Array, y: Array, strip: Strip) -> None:
    """y = `winograd_convolution(x, kernel)`, or a strip of it, some rows of tiles at a time."""
    H, W, _ = y.shape
    U, rows = transformed(kernel), winograd_rows(H, W, kernel.shape[2], kernel.shape[3], x.itemsize)
    above = int(strip is not None and strip[0] > 0)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))[above:]
    for first in range(0, H, rows):
        last = min(first + rows, H)
        y[first:last] = convolution_within(padded[first : last + 2], U)
