"""Answers to docs/exercises/lbfgs.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def direction(g: Array, steps: Sequence[Array], changes: Sequence[Array]) -> Array:
    """Two loops over the pairs, the newest first, then the oldest first."""
    pairs = [(s, y, 1 / np.vdot(s, y)) for s, y in zip(steps, changes, strict=True)]
    q = np.array(g)
    alphas = []
    for s, y, rho in reversed(pairs):
        alphas.append(rho * np.vdot(s, q))
        q -= alphas[-1] * y
    if pairs:
        _, y, rho = pairs[-1]
        q /= rho * np.vdot(y, y)
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q += (alpha - rho * np.vdot(y, q)) * s
    return -q


def wolfe(
    value: float, slope: float, t: float, value_t: float, slope_t: float, c1: float = 1e-3, c2: float = 0.9
) -> tuple[bool, bool]:
    """Sufficient decrease, and the strong curvature condition."""
    return value_t <= value + c1 * t * slope, abs(slope_t) <= c2 * abs(slope)


def minimize(
    function: Callable[[Array], tuple[float, Array]], x: Array, iterations: int, maxcor: int = 10
) -> Array:
    """Directions from `direction`, steps by doubling and halving."""
    value, g = function(x)
    steps: list[Array] = []
    changes: list[Array] = []
    for _ in range(iterations):
        d = direction(g, steps, changes)
        slope = float(np.vdot(g, d))
        if slope >= 0:
            break
        low, high, t = 0.0, math.inf, 1.0 if steps else 1 / float(np.linalg.norm(g))
        for _ in range(50):
            value_t, g_t = function(x + t * d)
            slope_t = float(np.vdot(g_t, d))
            decreased, long_enough = wolfe(value, slope, t, value_t, slope_t)
            if decreased and long_enough:
                break
            if not decreased or slope_t > 0:
                high = t
            else:
                low = t
            t = (low + high) / 2 if high < math.inf else 2 * t
        else:
            break
        steps, changes = [*steps, t * d][-maxcor:], [*changes, g_t - g][-maxcor:]
        x, value, g = x + t * d, value_t, g_t
    return x
