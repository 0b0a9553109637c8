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
    """Whether a step of length t decreases enough, and whether it is long enough.

    `value` and `slope` are those at the start of the line, `value_t` and `slope_t` those after the step.
    """
    raise NotImplementedError


def minimize(
    function: Callable[[Array], tuple[float, Array]], x: Array, iterations: int, history: int = 10
) -> Array:
    """L-BFGS starting at x; the function returns value and gradient; at most `iterations` steps.

    Along each direction find a step that satisfies `wolfe`: begin with t = 1 (the first time 1/|g|). If the
    value decreases too little, the step must be shorter; if the slope is still too steep, longer. Double t
    until it is bracketed, then bisect. Stop if the slope is not below zero, or after 50 trials.
    """
    raise NotImplementedError
