"""Two ways to check a backward pass against its forward pass; tested themselves in test_gradcheck.py.

Both use random cotangents. With a cotangent of ones an unflipped kernel would go unseen, as the sum
of its entries is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def adjoint_error(
    forward: Callable[[Array], Array], backward: Callable[[Array], Array], x: Array, seed: int = 0
) -> float:
    """Relative difference of <A x, v> and <x, A' v> for a linear or affine map A and a random v.

    `x` may be any array of the map's input shape. The constant part of an affine map is taken off.
    """
    rng = np.random.default_rng(seed)
    image = forward(x) - forward(np.zeros_like(x))
    v = rng.standard_normal(image.shape).astype(image.dtype)
    left = float(np.vdot(image.astype(np.float64), v.astype(np.float64)))
    right = float(np.vdot(x.astype(np.float64), backward(v).astype(np.float64)))
    return abs(left - right) / max(abs(left), abs(right), 1e-300)


def directional_error(
    forward: Callable[[Array], Array | float],
    backward: Callable[[Array], Array],
    x: Array,
    step: float = 1e-5,
    seed: int = 0,
) -> float:
    """Relative difference of <v, J d> by central differences and <J' v, d>, for random v and d.

    J is the derivative of `forward` at x (float64), `backward` maps a cotangent v to J' v. Of a loss,
    `backward` gets a cotangent of shape ().
    """
    assert x.dtype == np.float64
    rng = np.random.default_rng(seed)
    d = rng.standard_normal(x.shape)
    plus, minus = np.asarray(forward(x + step * d)), np.asarray(forward(x - step * d))
    v = rng.standard_normal(plus.shape)
    numeric = float(np.vdot(v, plus - minus)) / (2 * step)
    analytic = float(np.vdot(backward(v), d))
    return abs(numeric - analytic) / max(abs(numeric), abs(analytic), 1e-300)
