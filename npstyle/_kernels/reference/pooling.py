"""2x2 pooling with stride 2: docs/pooling-and-relu.md."""

from __future__ import annotations

import numpy as np

from npstyle._typing import Array, Bytes


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
    """y = maximum of each 2x2 cell, argmax its index (the first of equals). y, argmax (H // 2, W // 2, C)."""
    argmax[...] = quarters(x).argmax(axis=0)
    y[...] = quarters(x).max(axis=0)


def max_pool_backward(dy: Array, argmax: Bytes, dx: Array, threads: int) -> None:
    """dx = dy at the argmax of the cell, else 0. dy, argmax (H // 2, W // 2, C), dx (H, W, C)."""
    scatter_quarters(np.stack([np.where(argmax == index, dy, 0) for index in range(4)]), dx)
