"""Answers to docs/exercises/numerics.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Single = NDArray[np.float32]


def sum_in_blocks(x: Single, block: int) -> float:
    """Python's floats are float64."""
    parts = (x[i : i + block] for i in range(0, x.size, block))
    return sum(float(np.cumsum(part, dtype=np.float32)[-1]) for part in parts)


def sum_with_correction(x: Single) -> np.float32:
    """Kahan's sum."""
    total = lost = np.float32(0)
    for element in x:
        corrected = element - lost
        larger = total + corrected
        lost = (larger - total) - corrected
        total = larger
    return total


def central_errors(
    f: Callable[[float], float], slope: float, x: float, steps: Sequence[float]
) -> list[float]:
    """The formula, step by step."""
    return [abs((f(x + h) - f(x - h)) / (2 * h) - slope) / abs(slope) for h in steps]


def gram_difference(F: Single, F_a: Single) -> Single:
    """F'F - F_a'F_a = (F - F_a)'F + F_a'(F - F_a)."""
    change = F - F_a
    return np.add(change.T @ F, F_a.T @ change, dtype=np.float32)
