"""The checkers pass correct gradients and detect wrong ones; `npstyle gradcheck --break` has many more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import normal
from npstyle.gradcheck import adjoint, directional
from npstyle.layers import Conv2D, ReLU
from tolerances import ADJOINT, DIRECTIONAL

Array = NDArray[Any]
X = normal(7, 9, 3)
CONV = Conv2D(normal(3, 3, 3, 4, seed=1), normal(4, seed=2))


def unflipped(dy: Array) -> Array:
    """The kernel with its channels exchanged, but not rotated by 180 degrees."""
    wrong = Conv2D(CONV.kernel.swapaxes(2, 3), np.zeros(3))
    return wrong.forward(dy)[0]


@pytest.mark.parametrize(
    ("backward", "correct"),
    [
        (CONV.backward, True),
        (unflipped, False),
        (lambda dy: CONV.backward(np.ascontiguousarray(dy[::-1])), False),
    ],
    ids=["correct", "unflipped kernel", "rows reversed"],
)
def test_adjoint_checker_tells_correct_from_wrong(backward: Any, correct: bool) -> None:
    error = adjoint(lambda x: CONV.forward(x)[0], backward, X).error
    assert error < ADJOINT[X.dtype] if correct else error > 1e-2


def test_cotangent_of_ones_misses_the_unflipped_kernel() -> None:
    """Why the checkers take random ones: away from the border the errors of this one cancel."""
    inner = np.zeros_like(X)
    inner[3, 4] = 1.0
    ones = np.ones((7, 9, 4))
    assert np.vdot(unflipped(ones), inner) == pytest.approx(np.vdot(CONV.backward(ones), inner))


@pytest.mark.parametrize("correct", [True, False], ids=["correct", "forgotten mask"])
def test_directional_checker_detects_a_forgotten_relu_mask(correct: bool) -> None:
    relu = ReLU()
    x = np.where(np.abs(X) < 0.01, 0.5, X)  # away from the kink
    _, mask = relu.forward(x)
    backward = (lambda v: relu.backward(v, mask)) if correct else (lambda v: v)
    error = directional(lambda x: relu.forward(x)[0], backward, x).error
    assert error < DIRECTIONAL if correct else error > 1e-2
