"""The losses of the paper and their gradients, written out.

Notation: F, P (H, W, C) are one layer's feature maps of the generated picture and of the content picture,
M = H W; G = F'F (C, C) is the Gram matrix of F as an (M, C) matrix, F' its transpose; A_mean (C, C) is that
of a style picture, divided by its own M.

Every function returns the value (a Python float, accumulated in float64) and the gradient with respect to
its first argument, in that argument's shape and dtype. `scale` is a factor of the loss; `out`, if given, is
the array that the gradient is written to.

Source, unless stated otherwise: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural
Networks", CVPR 2016.
"""

from __future__ import annotations

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._typing import Array, Double

ELEMENTS_PER_SUM = 65536


def sum_of_squares(x: Array) -> float:
    """Sum of x**2 over all elements, accumulated in float64; in pieces, which stay in cache."""
    flat = x.reshape(-1)
    piece = ELEMENTS_PER_SUM
    return sum(
        float(np.sum(np.square(flat[i : i + piece]), dtype=np.float64)) for i in range(0, flat.size, piece)
    )


def content_loss(F: Array, P: Array, scale: float = 1.0, out: Array | None = None) -> tuple[float, Array]:
    """Half the squared distance of two feature maps, equations 1 and 2.

        L = scale / 2 . sum (F - P)^2        dL/dF = scale (F - P)

    The paper's case distinction, no gradient where F < 0, is the derivative of the ReLU before F.
    """
    difference = np.subtract(F, P, out=out)
    value = scale / 2 * sum_of_squares(difference)
    return value, np.multiply(difference, scale, out=difference)


def gram_matrix(
    F: Array, threads: int | None = None, arena: Arena | None = None, workspace: Array | None = None
) -> Double:
    """G = F'F over all positions, equation 3: (C, C) in float64, for F (H, W, C)."""
    arena = arena or Arena()
    C = F.shape[2]
    f = F.reshape(-1, C)
    G = arena.borrow((C, C), np.float64)
    _kernels.gram(f, G, _workspace(f, threads, arena) if workspace is None else workspace, threads)
    return G


def style_loss(
    F: Array,
    A_mean: Double,
    scale: float = 1.0,
    threads: int | None = None,
    out: Array | None = None,
    arena: Arena | None = None,
    positions: float | None = None,
) -> tuple[float, Array]:
    """Squared distance of two Gram matrices, each divided by its number of positions.

        L = scale . sum D^2,   D = G / M - A_mean        dL/dF = 4 scale / M . F D

    With scale = 1 / (4 C^2) and pictures of one size this is E of equation 4,
    1 / (4 C^2 M^2) sum (G - A)^2, and equation 6, 1 / (C^2 M^2) F (G - A). Dividing each Gram matrix
    by its own M allows a style picture of another size. `positions` replaces M = H W.

    Step by step: dL/dG = 2 scale D / M, and dL/dF = F (dG + dG'), as F occurs twice in G = F'F.
    """
    arena = arena or Arena()
    H, W, C = F.shape
    M = positions or H * W
    f = F.reshape(-1, C)
    workspace = _workspace(f, threads, arena)
    G = gram_matrix(F, threads, arena, workspace)
    value, dG = gram_distance(G, M, A_mean, scale)
    dF = np.empty(F.shape, F.dtype) if out is None else out
    _kernels.gram_backward(f, dG, dF.reshape(-1, C), workspace, threads)
    arena.release(workspace)
    arena.release(G)
    return value, dF


def gram_distance(G: Double, M: float, A_mean: Double, scale: float) -> tuple[float, Double]:
    """The loss of `style_loss` for a Gram matrix that is known, and dL/dG, which takes the place of G.

    See docs/losses.md.
    """
    D = np.subtract(np.divide(G, M, out=G), A_mean, out=G)
    return scale * sum_of_squares(D), np.multiply(D, 2 * scale / M, out=D)


def guided_style_loss(
    F: Array,
    T: Array,
    A_mean: Double,
    scale: float = 1.0,
    threads: int | None = None,
    arena: Arena | None = None,
) -> tuple[float, Array]:
    """`style_loss` of a region of F: of T F with M = sum T^2; the chain rule multiplies by T once more.

    T (H, W) is a guidance mask, 1 inside and 0 outside. Gatys, Ecker, Bethge, Hertzmann, Shechtman,
    "Controlling Perceptual Factors in Neural Style Transfer", CVPR 2017, section 4; they divide T by the root
    of that sum beforehand. See docs/losses.md#regions.
    """
    region = T[:, :, None]
    value, dF = style_loss(F * region, A_mean, scale, threads, None, arena, sum_of_squares(T))
    return value, np.multiply(dF, region, out=dF)


def _workspace(f: Array, threads: int | None, arena: Arena) -> Array:
    M, C = f.shape
    return arena.borrow((_kernels.gram_workspace(M, C, f.itemsize, threads),), f.dtype)
