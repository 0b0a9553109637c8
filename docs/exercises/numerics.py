"""Exercises to docs/numerics.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Single = NDArray[np.float32]


def sum_in_blocks(x: Single, block: int) -> float:
    """Sum of x (N,): blocks of so many numbers one after another in float32, the blocks' sums in double.

    `np.cumsum(part, dtype=np.float32)[-1]` adds one after another; `np.sum` has tricks of its own.
    """
    raise NotImplementedError


def sum_with_correction(x: Single) -> np.float32:
    """Sum of x (N,), in float32 alone, as good as float32 can hold it.

    Keep beside the sum a second number, what the last addition lost: after t = s + x, the number
    (t - s) - x would be zero in exact arithmetic. Take it off the next x. A loop over x is fine.
    """
    raise NotImplementedError


def central_errors(
    f: Callable[[float], float], slope: float, x: float, steps: Sequence[float]
) -> list[float]:
    """Relative error of the central difference of f at x for each of the steps; `slope` is the right one."""
    raise NotImplementedError


def gram_difference(F: Single, F_a: Single) -> Single:
    """F'F - F_a'F_a (C, C) for F, F_a (M, C) that are nearly equal, in float32 alone, without cancellation.

    a^2 - b^2 is (a - b)(a + b); what is it for matrices? F - F_a is exact where numbers are nearly equal.
    """
    raise NotImplementedError
