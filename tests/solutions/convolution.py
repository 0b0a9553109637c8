"""Answers to docs/exercises/convolution.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def convolve(x: Array, kernel: Array, bias: Array) -> Array:
    """Nine shifted pictures, each multiplied by one of the nine matrices of the kernel."""
    H, W, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    y = np.zeros((H, W, kernel.shape[3])) + bias
    for i in range(3):
        for j in range(3):
            y += padded[i : i + H, j : j + W] @ kernel[i, j]
    return y


def patches(x: Array) -> Array:
    """The same nine pictures, side by side."""
    H, W, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    shifted = [padded[i : i + H, j : j + W] for i in range(3) for j in range(3)]
    return np.concatenate(shifted, axis=2).reshape(H * W, -1)


def back_from_patches(dP: Array, H: int, W: int) -> Array:
    """Each of the nine pictures is added where it was taken from; what belongs to the padding is dropped."""
    C = dP.shape[1] // 9
    padded = np.zeros((H + 2, W + 2, C))
    shifted = dP.reshape(H, W, 3, 3, C)
    for i in range(3):
        for j in range(3):
            padded[i : i + H, j : j + W] += shifted[:, :, i, j]
    return padded[1:-1, 1:-1]


def backward(dy: Array, kernel: Array) -> Array:
    """The kernel rotated by 180 degrees, its channels exchanged."""
    return convolve(dy, kernel[::-1, ::-1].swapaxes(2, 3), np.zeros(kernel.shape[2]))


def kernel_derivative(x: Array, dy: Array) -> Array:
    """dQ = P' dy."""
    C, K = x.shape[2], dy.shape[2]
    dQ: Array = patches(x).T @ dy.reshape(-1, K)
    return dQ.reshape(3, 3, C, K)
