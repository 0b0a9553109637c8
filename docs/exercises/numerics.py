"""Exercises to docs/numerics.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Single = NDArray[np.float32]


def sum_in_blocks(x: Single, block: int) -> float:
    """Sum of x (N,): in float32 one by one within blocks of this size, the sums of blocks in float64.

    `np.cumsum(part, dtype=np.float32)[-1]` adds one by one; `np.sum` adds pairwise.
    """
    raise NotImplementedError


def sum_with_correction(x: Single) -> np.float32:
    """Sum of x (N,), computed in float32 only, as accurate as float32 can represent it.

    Besides the sum, store what the last addition lost: after t = s + x, (t - s) - x would be zero in
    exact arithmetic. Subtract it from the next x. A loop over x is fine.
    """
    raise NotImplementedError


def central_errors(
    f: Callable[[float], float], slope: float, x: float, steps: Sequence[float]
) -> list[float]:
    """Relative error of the central difference of f at x for each step; `slope` is the exact derivative."""
    raise NotImplementedError


def gram_difference(F: Single, F_a: Single) -> Single:
    """F'F - F_a'F_a (C, C) for F, F_a (M, C) that are nearly equal, in float32 only, without cancellation.

    a^2 - b^2 is (a - b)(a + b); what is it for matrices? F - F_a is exact where elements are nearly equal.
    """
    raise NotImplementedError
