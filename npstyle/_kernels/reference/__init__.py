"""The kernels in plain NumPy: what each computes, in as few lines as it can be said.

Same names and arguments as the compiled ones, which are tested against these. `threads` is taken and
ignored. Nothing here is fast, and `conv3x3` makes the whole patch matrix, nine times its input:
about 600 MB for the second layer at 512 x 512 pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.floating]
Bytes = NDArray[np.uint8]


def im2col(x: Array) -> Array:
    """Patch matrix P (H W, 9C) of x (H, W, C): row h W + w is the zero-padded 3x3 patch around (h, w)."""
    H, W, C = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    windows = sliding_window_view(padded, (3, 3), axis=(0, 1))  # (H, W, C, 3, 3)
    return windows.transpose(0, 1, 3, 4, 2).reshape(H * W, 9 * C)


def col2im(patches: Array, shape: tuple[int, int, int]) -> Array:
    """Adjoint of `im2col`: each number of the patches (H W, 9C) is added back to where it came from."""
    H, W, C = shape
    padded = np.zeros((H + 2, W + 2, C), patches.dtype)
    windows = patches.reshape(H, W, 3, 3, C)
    for i in range(3):
        for j in range(3):
            padded[i : i + H, j : j + W] += windows[:, :, i, j]
    return padded[1:-1, 1:-1]


def conv3x3(x: Array, w: Array, b: Array, y: Array, threads: int) -> None:
    """y = P Q + b with P = im2col(x), Q = w. x (H, W, C), w (9C, K), b (K,), y (H, W, K)."""
    y[...] = (im2col(x) @ w + b).reshape(y.shape)


def conv3x3_backward(dy: Array, w: Array, dx: Array) -> None:
    """dx = col2im(dP) with dP = dy Q', Q = w: the adjoint of `conv3x3`, read off its formula.

    dy (H, W, K), w (9C, K), dx (H, W, C). Only to show and to test: `npstyle.layers.Conv2D` goes
    backward by `conv3x3` with the kernel flipped, where no two outputs share an address.
    """
    K = dy.shape[2]
    dx[...] = col2im(dy.reshape(-1, K) @ w.T, dx.shape)


# Points of Winograd's transforms, by the outputs of a tile in each direction; infinity belongs to all.
POINTS = {
    6: (0, 1, -1, 2, -2, 1 / 2, -1 / 2),
    4: (0, np.sqrt(1 / 2), -np.sqrt(1 / 2), np.sqrt(2), -np.sqrt(2)),
}


def winograd_transforms(out: int) -> tuple[Array, Array, Array]:
    """The matrices B' (n, n), G (n, 3) and A' (out, n) of F(out, 3), n = out + 2: a row or column a point.

    Toom and Cook's construction: see docs/winograd.md, equation 3.
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
    H, W, _ = x.shape
    padded = np.pad(x, ((1, 1 + -H % out), (1, 1 + -W % out), (0, 0)))
    windows = sliding_window_view(padded, (out + 2, out + 2), axis=(0, 1))[::out, ::out]
    tiles: Array = windows.transpose(0, 1, 3, 4, 2)
    return tiles


def winograd_convolution(x: Array, kernel: Array, out: int = 6) -> Array:
    """y (H, W, K) of x (H, W, C) and kernel (3, 3, C, K): V = B'dB, U = GgG', M = VU, y = A'MA."""
    H, W, _ = x.shape
    B, G, A = (matrix.astype(x.dtype) for matrix in winograd_transforms(out))
    d = winograd_tiles(x, out)
    V = np.einsum("pi,qj,rsijc->pqrsc", B, B, d, optimize=True)
    U = np.einsum("pi,qj,ijck->pqck", G, G, kernel, optimize=True)
    M = np.einsum("pqrsc,pqck->pqrsk", V, U, optimize=True)  # a matrix product for each (p, q)
    y: Array = np.einsum("ip,jq,pqrsk->risjk", A, A, M, optimize=True)
    rows, _, columns, _, K = y.shape
    return y.reshape(rows * out, columns * out, K)[:H, :W]


def winograd_work(H: int, W: int, C: int, K: int, itemsize: int, threads: int) -> int:
    """NumPy finds its own memory."""
    return 0


def winograd(x: Array, w: Array, b: Array, y: Array, mask: Bytes, work: Array, threads: int) -> None:
    """y = max(x * w + b, 0), mask as in `relu`. x (H, W, C), w (9C, K), b (K,), y (H, W, K)."""
    kernel = w.reshape(3, 3, x.shape[2], y.shape[2])
    y[...] = winograd_convolution(x, kernel) + b
    relu(y.reshape(-1), y.reshape(-1), mask, threads)


def winograd_backward(
    dy: Array, mask: Bytes, w: Array, dx: Array, add: bool, work: Array, threads: int
) -> None:
    """dx = dy, where the mask has a bit, convolved with the kernel turned by 180 degrees; or dx +=."""
    dz = np.empty(dy.shape, dy.dtype)
    relu_backward(dy.reshape(-1), mask, dz.reshape(-1), threads)
    kernel = w.reshape(3, 3, dx.shape[2], dy.shape[2])
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    dx[...] = winograd_convolution(dz, flipped) + (dx if add else 0)


def first_layer(x: Array, w: Array, b: Array, y: Array, mask: Bytes, threads: int) -> None:
    """y = max(P Q + b, 0), mask as in `relu`. x (H, W, C), w (9C, K), b (K,), y (H, W, K)."""
    conv3x3(x, w, b, y, threads)
    relu(y.reshape(-1), y.reshape(-1), mask, threads)


def first_layer_backward(dy: Array, mask: Bytes, w: Array, dx: Array, threads: int) -> None:
    """dx = col2im(dP), where dP = dy Q' for dy where the mask has a bit."""
    dz = np.empty(dy.shape, dy.dtype)
    relu_backward(dy.reshape(-1), mask, dz.reshape(-1), threads)
    conv3x3_backward(dz, w, dx)


def relu(x: Array, y: Array, mask: Bytes, threads: int) -> None:
    """y = max(x, 0); mask has one bit per element, x > 0. x, y (N,), mask (ceil(N / 8),)."""
    mask[...] = np.packbits(x > 0, bitorder="little")
    np.maximum(x, 0, out=y)


def relu_backward(dy: Array, mask: Bytes, dx: Array, threads: int) -> None:
    """dx = dy where x > 0, else 0. dy, dx (N,), mask (ceil(N / 8),)."""
    positive = np.unpackbits(mask, count=dy.size, bitorder="little").astype(bool)
    dx[...] = np.where(positive, dy, 0)


def quarters(x: Array) -> Array:
    """The four pixels of each 2x2 cell, row by row: (4, H // 2, W // 2, C), without an odd edge."""
    H, W, C = x.shape
    cells = x[: H // 2 * 2, : W // 2 * 2].reshape(H // 2, 2, W // 2, 2, C)
    return cells.transpose(1, 3, 0, 2, 4).reshape(4, H // 2, W // 2, C)


def scatter_quarters(four: Array, x: Array) -> None:
    """Adjoint of `quarters`: put the four pixels of each cell back into x (H, W, C), zeros elsewhere."""
    H, W, _ = x.shape
    x[...] = 0
    for index, quarter in enumerate(four):
        x[index // 2 : H // 2 * 2 : 2, index % 2 : W // 2 * 2 : 2] = quarter


def average_pool(x: Array, y: Array, threads: int) -> None:
    """y = mean of each 2x2 cell. x (H, W, C), y (H // 2, W // 2, C)."""
    y[...] = quarters(x).mean(axis=0)


def average_pool_backward(dy: Array, dx: Array, threads: int) -> None:
    """dx = dy / 4 in each pixel of the cell. dy (H // 2, W // 2, C), dx (H, W, C)."""
    scatter_quarters(np.stack([dy / 4] * 4), dx)


def max_pool(x: Array, y: Array, argmax: Bytes, threads: int) -> None:
    """y = largest of each 2x2 cell, winner = which (the first of equals). y, winner (H // 2, W // 2, C)."""
    argmax[...] = quarters(x).argmax(axis=0)
    y[...] = quarters(x).max(axis=0)


def max_pool_backward(dy: Array, argmax: Bytes, dx: Array, threads: int) -> None:
    """dx = dy at the winner of the cell, else 0. dy, winner (H // 2, W // 2, C), dx (H, W, C)."""
    scatter_quarters(np.stack([np.where(argmax == index, dy, 0) for index in range(4)]), dx)


def gram_work(M: int, C: int, itemsize: int, threads: int) -> int:
    """NumPy finds its own memory."""
    return 0


def gram(f: Array, g: NDArray[np.float64], work: Array, threads: int) -> None:
    """g = f'f, in double. f (M, C), g (C, C)."""
    f = f.astype(np.float64)
    g[...] = f.T @ f


def gram_backward(f: Array, dg: NDArray[np.float64], df: Array, work: Array, threads: int) -> None:
    """df = f (dg + dg'): each f[m, c] stands in row c and in column c of g. f, df (M, C), dg (C, C)."""
    df[...] = f @ (dg + dg.T).astype(f.dtype)
