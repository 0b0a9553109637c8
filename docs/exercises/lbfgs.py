"""Exercises to docs/lbfgs.md. Notation as there; arrays are float64 of one dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def direction(g: Array, steps: Sequence[Array], changes: Sequence[Array]) -> Array:
    """-H g by the two loops. Pairs s, y are `steps` and `changes`, oldest first; without any pair, -g."""
    raise NotImplementedError


def wolfe(
    value: float, slope: float, t: float, value_t: float, slope_t: float, c1: float = 1e-3, c2: float = 0.9
) -> tuple[bool, bool]:
    """Whether a step of length t satisfies (4), and whether it satisfies (5).

    `value` and `slope` belong to the start of the line, `value_t` and `slope_t` to the end of the step.
    """
    raise NotImplementedError


def minimize(
    function: Callable[[Array], tuple[float, Array]], x: Array, iterations: int, maxcor: int = 10
) -> Array:
    """L-BFGS from x, with at most `iterations` steps; the function returns value and gradient.

    Keep the newest `maxcor` pairs. Along each direction find a step that satisfies both of `wolfe`: begin
    with t = 1 (the first time 1/|g|). A good step is shorter than one that fails (4), or at whose end the
    slope is positive; it is longer than others that fail (5). Double t until both bounds are known, then
    bisect. Stop if the slope at the start is not negative, or if 50 trials did not suffice.
    """
    raise NotImplementedError
