"""Exercises to docs/convolution.md. Notation as there; arrays are float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def convolve(x: Array, kernel: Array, bias: Array) -> Array:
    """Equation (1): y (H, W, K) of x (H, W, C), kernel (3, 3, C, K) and bias (K,), with zeros outside.

    Loops over i and j are enough; np.pad adds the zeros.
    """
    raise NotImplementedError


def patches(x: Array) -> Array:
    """im2col: P (H W, 9 C) of x (H, W, C), the elements of a row in the order (i, j, c).

    `patches(x) @ kernel.reshape(9 * C, K) + bias` is then equation (2).
    """
    raise NotImplementedError


def back_from_patches(dP: Array, H: int, W: int) -> Array:
    """col2im: dx (H, W, C) of dP (H W, 9 C), the adjoint of `patches`."""
    raise NotImplementedError


def backward(dy: Array, kernel: Array) -> Array:
    """dx (H, W, C) for dy (H, W, K) and kernel (3, 3, C, K): equation (4), one call of `convolve`."""
    raise NotImplementedError


def kernel_derivative(x: Array, dy: Array) -> Array:
    """dL/dkernel (3, 3, C, K) for dy (H, W, K), which training needs; npstyle's filters are frozen.

    From (2): the gradient of the product with respect to Q.
    """
    raise NotImplementedError
