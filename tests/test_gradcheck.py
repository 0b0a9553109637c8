"""The checkers see planted errors, and pass what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradcheck import adjoint_error, directional_error
from npstyle.layers import AveragePool, Conv2D, ReLU
from npstyle.losses import content_loss, gram_matrix, style_loss
from tolerances import ADJOINT, DIRECTIONAL

Array = NDArray[Any]
RNG = np.random.default_rng(7)
X = RNG.standard_normal((7, 9, 3))
CONV = Conv2D(RNG.standard_normal((3, 3, 3, 4)), RNG.standard_normal(4))


def forward(x: Array) -> Array:
    return CONV.forward(x)[0]


def unflipped(dy: Array) -> Array:
    """The kernel with its channels exchanged, but not turned by 180 degrees."""
    wrong = Conv2D(CONV.kernel.swapaxes(2, 3), np.zeros(3))
    return wrong.forward(dy)[0]


@pytest.mark.parametrize(
    ("backward", "right"),
    [
        (CONV.backward, True),
        (unflipped, False),
        (lambda dy: CONV.backward(dy) * 2, False),
        (lambda dy: CONV.backward(np.ascontiguousarray(dy[::-1])), False),
    ],
    ids=["right", "unflipped kernel", "factor 2", "turned upside down"],
)
def test_adjoint_checker_tells_right_from_wrong(backward: Any, right: bool) -> None:
    error = adjoint_error(forward, backward, X)
    assert error < ADJOINT[X.dtype] if right else error > 1e-2


def test_a_cotangent_of_ones_would_miss_the_unflipped_kernel() -> None:
    """Why the checkers take random ones: away from the border this error sums up to nothing."""
    inner = np.zeros_like(X)
    inner[3, 4] = 1.0
    ones = np.ones((7, 9, 4))
    assert np.vdot(unflipped(ones), inner) == pytest.approx(np.vdot(CONV.backward(ones), inner))


@pytest.mark.parametrize("broken", [False, True], ids=["right", "forgotten mask"])
def test_directional_checker_sees_a_forgotten_relu_mask(broken: bool) -> None:
    relu = ReLU()
    x = np.where(np.abs(X) < 0.01, 0.5, X)  # away from the kink
    _, mask = relu.forward(x)
    error = directional_error(
        lambda x: relu.forward(x)[0], lambda v: v if broken else relu.backward(v, mask), x
    )
    assert error > 1e-2 if broken else error < DIRECTIONAL


@pytest.mark.parametrize("factor", [1.0, 0.5, -1.0])
def test_directional_checker_sees_a_missing_factor(factor: float) -> None:
    A = gram_matrix(RNG.standard_normal((5, 5, 3))) / 25
    error = directional_error(lambda F: style_loss(F, A)[0], lambda v: v * factor * style_loss(X, A)[1], X)
    assert error < DIRECTIONAL if factor == 1 else error > 0.1


def test_directional_checker_sees_a_forgotten_term() -> None:
    """The content loss with P taken for F: right at one point only."""
    P = RNG.standard_normal(X.shape)
    error = directional_error(lambda F: content_loss(F, P)[0], lambda v: v * X, X)
    assert error > 1e-2


def test_adjoint_checker_sees_a_lost_quarter() -> None:
    pool = AveragePool()
    shape = X.shape
    error = adjoint_error(lambda x: pool.forward(x)[0], lambda dy: pool.backward(4 * dy, shape), X)
    assert error > 0.1
