"""Answers to docs/exercises/large_pictures.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def pixel_rows(layers: Sequence[str], row: int, H: int) -> tuple[int, int]:
    """From the top down; each layer's height bounds its rows."""
    heights = [H]
    for layer in layers[:-1]:
        heights.append(heights[-1] // 2 if layer == "pool" else heights[-1])
    first = last = row
    for layer, height in zip(reversed(layers), reversed(heights), strict=True):
        first, last = (2 * first, 2 * last + 1) if layer == "pool" else (first - 1, last + 1)
        first, last = max(0, first), min(height - 1, last)
    return first, last


def convolve_in_strips(convolve: Callable[[Array], Array], x: Array, rows: int) -> Array:
    """A row more on both sides, whose own outputs are dropped."""
    H = len(x)
    parts = []
    for first in range(0, H, rows):
        last, above = min(H, first + rows), min(1, first)
        parts.append(convolve(x[first - above : last + 1])[above : above + last - first])
    return np.concatenate(parts)


def gram_in_strips(strips: Sequence[Array], rows: int) -> Array:
    """What does not fill a part waits for the next strip."""
    C = strips[0].shape[1]
    G, left = np.zeros((C, C)), strips[0][:0]
    for strip in strips:
        left = np.concatenate([left, strip])
        while len(left) >= rows:
            G += left[:rows].T @ left[:rows]
            left = left[rows:]
    return G + left.T @ left if len(left) else G
