"""Two ways to check a backward pass against its forward pass; `npstyle gradcheck` shows them at work.

Notation: J is the derivative of a function at a point x, a matrix; J' its transpose. A backward pass maps
a cotangent v, the derivative of some loss with respect to the function's output, to J'v. Nobody makes J:
a number <v, J d> is enough, made once through the forward pass and once through the backward pass.

Both ways take random cotangents. With a cotangent of ones an unflipped kernel would go unseen, as the sum
of its entries is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What float64 leaves of the two numbers' difference, beside them. An adjoint is exact but for rounding: sums
# of some thousand terms, of either sign, lose a few digits of sixteen. A central difference has an error of
# its own, about step^2 + 2e-16 / step. Both leave room; a wrong factor or index is an error of order 1.
BOUNDS = {"adjoint": 1e-11, "directional": 1e-6}


class Compared(NamedTuple):
    """One number in two ways: through the backward pass, and through the forward pass."""

    analytic: float
    numeric: float

    @property
    def error(self) -> float:
        """Their difference, as a share of the larger one."""
        largest = max(abs(self.analytic), abs(self.numeric), 1e-300)
        return abs(self.numeric - self.analytic) / largest


def adjoint(
    forward: Callable[[Array], Array], backward: Callable[[Array], Array], x: Array, seed: int = 0
) -> Compared:
    """<x, A'v> and <A x, v> for a linear or affine map A and a random v.

    They are equal in exact numbers, for any x and v: this is what an adjoint is. There is no step and
    nothing is approximated, so that a float32 map can be checked, too.

    Parameters
    ----------
    forward : function
        From x to A x, plus a constant where the map is affine; the constant is taken off.
    backward : function
        From v, of the shape of A x, to A'v.
    x : array
        Any of the map's input shape, best a random one; its dtype is the dtype computed in.
    seed : int
        Of v.

    Returns
    -------
    Compared
        analytic <x, A'v>, numeric <A x, v>.

    Examples
    --------
    >>> Q = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> right = adjoint(lambda x: x @ Q, lambda v: v @ Q.T, np.array([1.0, -2.0]))
    >>> right.error < 1e-15
    True
    >>> wrong = adjoint(lambda x: x @ Q, lambda v: v @ Q.reshape(3, 2), np.array([1.0, -2.0]))
    >>> wrong.error > 0.1
    True
    """
    rng = np.random.default_rng(seed)
    image = forward(x) - forward(np.zeros_like(x))
    v = rng.standard_normal(image.shape).astype(image.dtype)
    numeric = float(np.vdot(image.astype(np.float64), v.astype(np.float64)))
    analytic = float(np.vdot(x.astype(np.float64), backward(v).astype(np.float64)))
    return Compared(analytic, numeric)


def directional(
    forward: Callable[[Array], Array | float],
    backward: Callable[[Array], Array],
    x: Array,
    step: float = 1e-5,
    seed: int = 0,
) -> Compared:
    """<J'v, d> and <v, J d>, the latter by a central difference, for random v and d.

        v . J d is about v . (f(x + step d) - f(x - step d)) / (2 step)

    One direction is enough: if J'v is off by e, the two numbers differ by <e, d>, and a random d is
    perpendicular to e with probability zero. The function must be smooth between x - step d and x + step d:
    keep x away from the kinks of ReLU and of maximum pooling.

    Parameters
    ----------
    forward : function
        From x to f(x), an array or, of a loss, a number.
    backward : function
        From v, of the shape of f(x), to J'v; of a loss, v has the shape ().
    x : float64 array
        In float32 the difference of two neighbors would be nothing but rounding.
    step : float
        Too large, and the curve is not straight; too small, and f(x + step d) - f(x - step d) has no digits
        left.
    seed : int
        Of v and d.

    Returns
    -------
    Compared
        analytic <J'v, d>, numeric <v, J d>.

    Examples
    --------
    >>> x = np.array([1.0, -2.0, 3.0])
    >>> right = directional(lambda x: float(np.sum(x**2)), lambda v: v * 2 * x, x)
    >>> right.error < 1e-8
    True
    >>> wrong = directional(lambda x: float(np.sum(x**2)), lambda v: v * x, x)
    >>> round(wrong.error, 6)
    0.5
    """
    assert x.dtype == np.float64
    rng = np.random.default_rng(seed)
    d = rng.standard_normal(x.shape)
    plus, minus = np.asarray(forward(x + step * d)), np.asarray(forward(x - step * d))
    v = rng.standard_normal(plus.shape)
    numeric = float(np.vdot(v, plus - minus)) / (2 * step)
    analytic = float(np.vdot(backward(v), d))
    return Compared(analytic, numeric)


def adjoint_error(
    forward: Callable[[Array], Array], backward: Callable[[Array], Array], x: Array, seed: int = 0
) -> float:
    """Relative difference of the two numbers that `adjoint` compares.

    Examples
    --------
    >>> adjoint_error(lambda x: 3 * x + 1, lambda v: 3 * v, np.array([1.0, 2.0])) < 1e-15
    True
    """
    return adjoint(forward, backward, x, seed).error


def directional_error(
    forward: Callable[[Array], Array | float],
    backward: Callable[[Array], Array],
    x: Array,
    step: float = 1e-5,
    seed: int = 0,
) -> float:
    """Relative difference of the two numbers that `directional` compares.

    Examples
    --------
    >>> x = np.array([0.5, 2.0])
    >>> directional_error(np.sin, lambda v: v * np.cos(x), x) < 1e-8
    True
    """
    return directional(forward, backward, x, step, seed).error
