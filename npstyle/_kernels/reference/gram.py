"""Gram matrix G = F'F of a feature map, and the gradient with respect to F: docs/losses.md."""

from __future__ import annotations

import numpy as np

from npstyle._typing import Array, Double

STRIP = 1024  # rows that are converted to float64, and summed, at a time


def gram_rows_per_sum(M: int) -> int:
    """Those that are summed at a time: a sum has other bits in another order."""
    return STRIP


def gram_workspace(M: int, C: int, itemsize: int, threads: int) -> int:
    """0: NumPy allocates what it needs."""
    return 0


def gram(
    f: Array,
    g: Double,
    workspace: Array,
    threads: int,
    total: Double | None = None,
    start: int = 0,
    whole: int | None = None,
) -> None:
    """g = f'f, and total = the sum of f's rows, accumulated in float64. f (M, C), g (C, C), total (C,).

    If f are rows of a `whole`, from a `start` above 0 on, their sums are added to g and total.
    """
    sums = [g] if total is None else [g, total]
    for array in sums if not start else []:
        array[...] = 0
    for first in range(0, len(f), STRIP):
        rows = f[first : first + STRIP].astype(np.float64)
        g += rows.T @ rows
        if total is not None:
            total += rows.sum(axis=0)


def gram_backward(
    f: Array, dg: Double, df: Array, workspace: Array, threads: int, row: Double | None = None
) -> None:
    """df = f (dg + dg'): each f[m, c] has a part in row c and in column c of g. f, df (M, C), dg (C, C).

    `row` (C,), the gradient with respect to the sum of f's rows, is added to each row of df.
    """
    # Each row by itself, which has the same bits among any others, and takes little longer.
    np.matmul(f[:, None], (dg + dg.T).astype(f.dtype), out=df[:, None])
    if row is not None:
        df += row.astype(f.dtype)
