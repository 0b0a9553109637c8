"""Answers to docs/exercises/losses.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def style_derivative(F: Array, A: Array) -> Array:
    """Equation 6."""
    M, C = F.shape
    derivative: Array = F @ (F.T @ F - A) / (C**2 * M**2)
    return derivative


def which_are_right(
    loss: Callable[[Array], float], derivatives: Sequence[Callable[[Array], Array]], F: Array
) -> list[bool]:
    """One direction is enough for all of them."""
    d, step = np.random.default_rng(0).standard_normal(F.shape), 1e-5
    numeric = (loss(F + step * d) - loss(F - step * d)) / (2 * step)
    analytic = [float(np.vdot(derivative(F), d)) for derivative in derivatives]
    return [abs(product - numeric) < 1e-6 * abs(numeric) for product in analytic]


def guided_style_derivative(F: Array, T: Array, A_mean: Array) -> Array:
    """F is multiplied by T in the forward pass, and the gradient by T in the backward pass."""
    region, M = T[:, None] * F, np.sum(T**2)
    D = region.T @ region / M - A_mean
    derivative: Array = T[:, None] * (4 / M * region @ D)
    return derivative


def moments_derivative(F: Array, mean: Array, std: Array) -> Array:
    """d mu / dF = 1/M; s ds/dF = 1/M (F - mu), as the part through mu is a sum of F - mu, which is zero."""
    M, _ = F.shape
    mu, s = F.mean(axis=0), F.std(axis=0)
    derivative: Array = 2 * (mu - mean) / M + 2 * (s - std) * (F - mu) / (M * s)
    return derivative


def transport_map(Sigma: Array, Sigma_a: Array) -> Array:
    """B K^(-1/2) B' with K = B' Sigma B, for the Cholesky factor B of Sigma_a."""
    B = np.linalg.cholesky(Sigma_a)
    eigenvalues, Q = np.linalg.eigh(B.T @ Sigma @ B)
    T: Array = B @ (Q / np.sqrt(eigenvalues)) @ Q.T @ B.T
    return T


def normalize(
    kernel: Array, bias: Array, next_kernel: Array, activation: Array
) -> tuple[Array, Array, Array]:
    """Divide the output of one layer, multiply the input of the next."""
    return kernel / activation, bias / activation, next_kernel * activation[:, None]
