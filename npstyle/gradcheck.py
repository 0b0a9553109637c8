"""Two ways to check a backward pass against its forward pass; `npstyle gradcheck` shows them at work.

Notation: J is the Jacobian of a function at a point x, J' its transpose. A backward pass maps a cotangent v,
the gradient of some loss with respect to the function's output, to J'v. J itself is never computed: one
number <v, J d> is enough, computed once through the forward pass and once through the backward pass.

Cotangents are random. A cotangent of ones would not detect an unflipped kernel, as the sum of its entries is
the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npstyle._typing import AnyArray

# Relative errors in float64. An adjoint is exact except for rounding: sums of some thousand terms, of either
# sign, lose a few of sixteen digits. A central difference has an error of its own, about
# step^2 + 2e-16 / step. Both bounds are generous; a wrong factor or index is an error of order 1.
BOUNDS = {"adjoint": 1e-11, "directional": 1e-6}


class Compared(NamedTuple):
    """One number, computed through the backward pass (analytic) and through the forward pass (numeric)."""

    analytic: float
    numeric: float

    @property
    def error(self) -> float:
        """Their difference relative to the larger one."""
        largest = max(abs(self.analytic), abs(self.numeric), 1e-300)
        return abs(self.numeric - self.analytic) / largest


def adjoint(
    forward: Callable[[AnyArray], AnyArray],
    backward: Callable[[AnyArray], AnyArray],
    x: AnyArray,
    seed: int = 0,
) -> Compared:
    """<x, A'v> and <A x, v> for a linear or affine map A and a random v.

    In exact arithmetic they are equal for all x and v: that is the definition of the adjoint. There is no
    step and no approximation, so a float32 map can be checked, too.

    Parameters
    ----------
    forward : function
        From x to A x, plus a constant if the map is affine; the constant is subtracted.
    backward : function
        From v, of the shape of A x, to A'v.
    x : array
        Any of the map's input shape, preferably random; its dtype is the dtype computed in.
    seed : int
        For v.

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
    forward: Callable[[AnyArray], AnyArray | float],
    backward: Callable[[AnyArray], AnyArray],
    x: AnyArray,
    step: float = 1e-5,
    seed: int = 0,
) -> Compared:
    """<J'v, d> and <v, J d>, the latter by a central difference, for random v and d.

        v . J d is about v . (f(x + step d) - f(x - step d)) / (2 step)

    One direction is enough: if J'v is wrong by e, the two numbers differ by <e, d>, and a random d is
    orthogonal to e with probability zero. The function must be smooth between x - step d and x + step d:
    keep x away from the kinks of ReLU and of maximum pooling.

    Parameters
    ----------
    forward : function
        From x to f(x), an array or, for a loss, a number.
    backward : function
        From v, of the shape of f(x), to J'v; for a loss, v has the shape ().
    x : float64 array
        In float32, rounding would leave the difference five digits at best (docs/numerics.md).
    step : float
        If it is too large, f is not linear over it; if too small, f(x + step d) - f(x - step d) has no digits
        left.
    seed : int
        For v and d.

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
