"""Dot products and linear combinations of long vectors: docs/lbfgs.md#l-bfgs-in-float32."""

from __future__ import annotations

import numpy as np

from npstyle._typing import Array, Double


def dot_products(a: Array, b: Array, c: Array, products: Double, threads: int) -> None:
    """Each row of a with b and with c, in float64. a (rows, N), b, c (N,), products (rows, 2)."""
    b, c = b.astype(np.float64), c.astype(np.float64)
    for row, sums in zip(a, products, strict=True):
        sums[...] = np.sum(row * b), np.sum(row * c)


def linear_combination(a: Array, b: Array, weights: Double, y: Array, threads: int) -> None:
    """y = the rows of a and b by their weights, rounded once. a (rows, N), b, y (N,), weights (rows + 1,)."""
    total = weights[-1] * b.astype(np.float64)
    for row, weight in zip(a, weights, strict=False):
        total += weight * row.astype(np.float64)
    y[...] = total
