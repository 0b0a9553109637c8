"""Exercises to docs/numerics.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Single = NDArray[np.float32]


def sum_in_blocks(x: Single, block: int) -> float:
    """Sum of x (N,): within a block one element after another in float32, the blocks' sums in float64.

    `np.cumsum(part, dtype=np.float32)[-1]` adds one after another; `np.sum` sums in pieces.
    """
    raise NotImplementedError


def sum_with_correction(x: Single) -> np.float32:
    """Sum of x (N,) in float32 alone, as accurate as a float32 result can be.

    Keep a second number beside the sum, the error of the last addition: after t = s + x, the number
    (t - s) - x would be zero in exact arithmetic. Subtract it from the next x. A loop over x is fine.
    """
    raise NotImplementedError


def central_errors(
    f: Callable[[float], float], slope: float, x: float, steps: Sequence[float]
) -> list[float]:
    """Relative error of the central difference of f at x for each step; `slope` is the exact derivative."""
    raise NotImplementedError


def gram_difference(F: Single, F_a: Single) -> Single:
    """F'F - F_a'F_a (C, C) for F, F_a (M, C) that are nearly equal, in float32 alone, without cancellation.

    a^2 - b^2 is (a - b)(a + b); what is it for matrices? F - F_a is exact where the two elements are within a
    factor of 2 of each other.
    """
    raise NotImplementedError
