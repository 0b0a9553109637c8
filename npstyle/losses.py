"""The losses of the paper and their derivatives, written out.

Notation: F, P (H, W, C) are one layer's responses to the generated picture and to the content
picture, M = H W; G = F'F (C, C) is the Gram matrix of F as an (M, C) matrix, F' its transpose; A_mean
(C, C) is that of a style picture, divided by its own M.

Every function returns the value (a Python float, summed in double) and the derivative with respect to
its first argument, in that argument's shape and dtype. `scale` is the factor in front of the sum;
`out`, where it is given, is the array that the derivative is written to.

Source: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npstyle import _kernels
from npstyle._buffers import Buffers

Array = NDArray[np.floating]
Double = NDArray[np.float64]


def sum_of_squares(x: Array) -> float:
    """Sum of x**2 over all elements, in double; some at a time, which stay in the cache."""
    flat = x.reshape(-1)
    some = 65536
    return sum(
        float(np.sum(np.square(flat[i : i + some]), dtype=np.float64)) for i in range(0, flat.size, some)
    )


def content_loss(F: Array, P: Array, scale: float = 1.0, out: Array | None = None) -> tuple[float, Array]:
    """Half the squared distance of two responses, equations 1 and 2.

        L = scale / 2 . sum (F - P)^2        dL/dF = scale (F - P)

    The paper's case distinction, no gradient where F < 0, is the derivative of the ReLU before F.
    """
    difference = np.subtract(F, P, out=out)
    value = scale / 2 * sum_of_squares(difference)
    return value, np.multiply(difference, scale, out=difference)


def gram_matrix(F: Array, threads: int | None = None, buffers: Buffers | None = None) -> Double:
    """G = F'F over all positions, equation 3: (C, C) in double, for F (H, W, C)."""
    buffers = buffers or Buffers()
    C = F.shape[2]
    f = F.reshape(-1, C)
    G = buffers.empty((C, C), np.float64)
    work = _room(f, threads, buffers)
    _kernels.gram(f, G, work, threads)
    buffers.give(work)
    return G


def style_loss(
    F: Array,
    A_mean: Double,
    scale: float = 1.0,
    threads: int | None = None,
    out: Array | None = None,
    buffers: Buffers | None = None,
) -> tuple[float, Array]:
    """Squared distance of two Gram matrices, each divided by its number of positions.

        L = scale . sum D^2,   D = G / M - A_mean        dL/dF = 4 scale / M . F D

    With scale = 1 / (4 C^2) and pictures of one size this is E of equation 4,
    1 / (4 C^2 M^2) sum (G - A)^2, and equation 6, 1 / (C^2 M^2) F (G - A). Dividing each Gram matrix
    by its own M lets the style picture have another size.

    Step by step: dL/dG = 2 scale D / M, and dF = F (dG + dG'), as F stands twice in G = F'F.
    """
    buffers = buffers or Buffers()
    H, W, C = F.shape
    M = H * W
    G = gram_matrix(F, threads, buffers)
    D = np.subtract(np.divide(G, M, out=G), A_mean, out=G)
    value = scale * sum_of_squares(D)
    dG = np.multiply(D, 2 * scale / M, out=D)
    dF = np.empty(F.shape, F.dtype) if out is None else out
    f, df = F.reshape(M, C), dF.reshape(M, C)
    work = _room(f, threads, buffers)
    _kernels.gram_backward(f, dG, df, work, threads)
    buffers.give(work)
    buffers.give(G)
    return value, dF


def _room(f: Array, threads: int | None, buffers: Buffers) -> Array:
    M, C = f.shape
    return buffers.empty((_kernels.gram_work(M, C, f.itemsize, threads),), f.dtype)


def total_variation(x: Array, scale: float = 1.0) -> tuple[float, Array]:
    """Mean squared difference of neighbours, down and across; not in the paper, it smooths.

        L = scale . (mean (x[h + 1, w] - x[h, w])^2 + mean (x[h, w + 1] - x[h, w])^2)

    The derivative of one squared difference is twice the difference at its end, and minus that at
    its beginning. Being means, the weight holds at every size.
    """
    down = x[1:] - x[:-1]
    across = x[:, 1:] - x[:, :-1]
    # A picture one pixel high or wide has no differences that way.
    per_down, per_across = scale / max(1, down.size), scale / max(1, across.size)
    value = per_down * sum_of_squares(down) + per_across * sum_of_squares(across)
    down *= 2 * per_down
    across *= 2 * per_across
    dx = np.zeros_like(x)
    dx[1:] += down
    dx[:-1] -= down
    dx[:, 1:] += across
    dx[:, :-1] -= across
    return value, dx
