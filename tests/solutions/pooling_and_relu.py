"""Answers to docs/exercises/pooling_and_relu.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def kinks(x: Array, d: Array, step: float) -> int:
    """The masks at both ends, compared."""
    return int(np.count_nonzero((x - step * d > 0) != (x + step * d > 0)))


def leaky_relu_backward(dy: Array, x: Array, slope: float) -> Array:
    """The slope of the branch x is on."""
    return np.where(x > 0, dy, slope * dy)


def _to_cells(dy: Array) -> Array:
    """Each element of (h, w, C) in all four pixels of its cell: (2 h, 2 w, C)."""
    return dy.repeat(2, axis=0).repeat(2, axis=1)


def average_pool_backward(dy: Array, H: int, W: int) -> Array:
    """A quarter of dy, and zeros in dropped rows and columns."""
    h, w, _ = dy.shape
    return np.pad(_to_cells(dy) / 4, ((0, H - 2 * h), (0, W - 2 * w), (0, 0)))


def _cells(x: Array) -> Array:
    """(h, w, C, 4)."""
    H, W, C = x.shape
    return x.reshape(H // 2, 2, W // 2, 2, C).transpose(0, 2, 4, 1, 3).reshape(H // 2, W // 2, C, 4)


def square_pool_backward(dy: Array, x: Array) -> Array:
    """y^2 = 1/4 sum x^2, so 2 y dy/dx = 2/4 x, and dx = dy x / (4 y)."""
    y = np.sqrt(np.square(_cells(x)).mean(axis=3))
    return _to_cells(np.where(y > 0, dy / np.where(y > 0, 4 * y, 1), 0)) * x


def fair_max_pool_backward(dy: Array, x: Array) -> Array:
    """The maxima of a cell, and how many there are."""
    cells = _cells(x)
    largest = cells.max(axis=3)
    count = (cells == largest[..., None]).sum(axis=3)
    return np.where(x == _to_cells(largest), _to_cells(dy / count), 0)
