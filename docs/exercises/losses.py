"""Exercises to docs/losses.md. Notation as there; F is a matrix (M, C), arrays are float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def style_derivative(F: Array, A: Array) -> Array:
    """dE/dF (M, C) of equation 4, E = 1/(4 C^2 M^2) sum (G - A)^2 with G = F'F; A (C, C) is symmetric."""
    raise NotImplementedError


def which_are_right(
    loss: Callable[[Array], float], derivatives: Sequence[Callable[[Array], Array]], F: Array
) -> list[bool]:
    """Whether each of the derivatives is that of the loss at F, by a directional derivative.

    Without npstyle.gradcheck. 1.0001 times the derivative is wrong, too: in float64 the check sees far less.
    """
    raise NotImplementedError


def guided_style_derivative(F: Array, T: Array, A_mean: Array) -> Array:
    """dL/dF (M, C) of L = sum D^2 with D = (T F)'(T F) / sum T^2 - A_mean, for T (M,)."""
    raise NotImplementedError


def moments_derivative(F: Array, mean: Array, std: Array) -> Array:
    """dL/dF (M, C) of another style loss: L = sum over channels of (mu - mean)^2 + (s - std)^2.

    mu (C,) are the means of F over positions, s (C,) its standard deviations, s^2 = 1/M sum (F - mu)^2.
    It compares 2 C statistics instead of C (C + 1) / 2.
    """
    raise NotImplementedError


def transport_map(Sigma: Array, Sigma_a: Array) -> Array:
    """The symmetric, positive matrix T (C, C) with T Sigma T = Sigma_a, for two positive covariances."""
    raise NotImplementedError


def normalize(
    kernel: Array, bias: Array, next_kernel: Array, activation: Array
) -> tuple[Array, Array, Array]:
    """Kernel (3, 3, C, K), bias (K,), next kernel (3, 3, K, N) of the same function in other units.

    The K feature maps of the first layer, after its ReLU, are divided by `activation` (K,); those of the
    second layer do not change.
    """
    raise NotImplementedError
