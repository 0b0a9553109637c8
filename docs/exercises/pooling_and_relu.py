"""Exercises to docs/pooling-and-relu.md. Notation as there; arrays are float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def kinks(x: Array, d: Array, step: float) -> int:
    """How many elements are positive at one of x - step d and x + step d, but not at the other.

    If there are none, a central difference of a ReLU can be trusted.
    """
    raise NotImplementedError


def leaky_relu_backward(dy: Array, x: Array, slope: float) -> Array:
    """dx for y = x where x > 0, and slope x elsewhere."""
    raise NotImplementedError


def average_pool_backward(dy: Array, H: int, W: int) -> Array:
    """dx (H, W, C) for dy (H // 2, W // 2, C); H and W may be odd."""
    raise NotImplementedError


def square_pool_backward(dy: Array, x: Array) -> Array:
    """dx (H, W, C) for y[h, w] = root mean square of a cell, between average and maximum; H, W even.

    Derive it first. Where a whole cell is zero, y has a kink: take 0.
    """
    raise NotImplementedError


def fair_max_pool_backward(dy: Array, x: Array) -> Array:
    """dx (H, W, C) for maximum pooling that divides dy equally among equal maxima of a cell; H, W even."""
    raise NotImplementedError
