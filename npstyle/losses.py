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

from collections.abc import Mapping

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._typing import AnyArray, Array, Double, TotalVariationForm

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


def total_variation(
    x: Array, scale: float = 1.0, form: TotalVariationForm = "mean-squares", wrap: bool = False
) -> tuple[float, Array]:
    """Total variation, a measure of roughness; not in the paper: docs/losses.md.

    With d = x[h + 1, w] - x[h, w] and e = x[h, w + 1] - x[h, w], for each channel,

        "mean-squares":  L = scale . (mean d^2 + mean e^2)
        "sum-squares":   L = scale / 2 . sum (d^2 + e^2)
        "power-1.25":    L = scale . sum (d^2 + e^2)^1.25

    the latter two over the (H - 1) x (W - 1) pixels that have both neighbors. With f and g the differences
    to the neighbors below at the right and at the left, in a picture with its border replicated once,

        "nine-point":    L = scale . (2/3 mean d^2 + 2/3 mean e^2 + 1/6 mean f^2 + 1/6 mean g^2)

    where d and e are taken for the pixels of the picture, f and g for all cells of 2 x 2 pixels. With means,
    a weight is right for every size. In dL/dx, a pixel at the end of a difference d receives dL/dd, one at
    its start -dL/dd. With `wrap` the first row follows the last one, the first column the last one, and all
    pixels have both neighbors.
    """
    if form == "nine-point":
        return _nine_point_variation(x, scale, wrap)
    if wrap:
        d, e = np.roll(x, -1, axis=0) - x, np.roll(x, -1, axis=1) - x
    else:
        d, e = x[1:] - x[:-1], x[:, 1:] - x[:, :-1]
    if form == "mean-squares":
        # A picture of a single row or column has no differences in one direction.
        dL_dd, dL_de = 2 * scale / max(1, d.size) * d, 2 * scale / max(1, e.size) * e
        value = scale * (sum_of_squares(d) / max(1, d.size) + sum_of_squares(e) / max(1, e.size))
    else:
        d, e = (d, e) if wrap else (d[:, :-1], e[:-1])
        power, factor = (1.0, 0.5) if form == "sum-squares" else (1.25, 1.0)
        squares = np.square(d) + np.square(e)
        value = scale * factor * float(np.sum(squares**power, dtype=np.float64))
        slope = scale * factor * power * 2 * squares ** (power - 1)
        dL_dd, dL_de = slope * d, slope * e
    if wrap:
        return value, np.roll(dL_dd, 1, axis=0) - dL_dd + np.roll(dL_de, 1, axis=1) - dL_de
    dx = np.zeros_like(x)
    H, W, _ = dL_dd.shape
    dx[1:, :W] += dL_dd
    dx[:H, :W] -= dL_dd
    H, W, _ = dL_de.shape
    dx[:H, 1:] += dL_de
    dx[:H, :W] -= dL_de
    return value, dx


def _nine_point_variation(x: Array, scale: float, wrap: bool = False) -> tuple[float, Array]:
    """`total_variation` with diagonal differences."""
    if wrap:
        value, dx = 0.0, np.zeros_like(x)
        for steps, weight in (((-1, 0), 2 / 3), ((0, -1), 2 / 3), ((-1, -1), 1 / 6), ((-1, 1), 1 / 6)):
            d = np.roll(x, steps, axis=(0, 1)) - x
            factor = scale * weight / d.size
            value += factor * sum_of_squares(d)
            dx += 2 * factor * (np.roll(d, (-steps[0], -steps[1]), axis=(0, 1)) - d)
        return value, dx
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), "edge")
    dpadded, value = np.zeros_like(padded), 0.0
    inner, after, first, last = slice(1, -1), slice(2, None), slice(None, -1), slice(1, None)
    for end, start, weight in (
        ((after, inner), (inner, inner), 2 / 3),
        ((inner, after), (inner, inner), 2 / 3),
        ((last, last), (first, first), 1 / 6),
        ((last, first), (first, last), 1 / 6),
    ):
        d = padded[end] - padded[start]
        factor = scale * weight / d.size
        value += factor * sum_of_squares(d)
        dpadded[end] += 2 * factor * d
        dpadded[start] -= 2 * factor * d
    # The adjoint of copying the border is adding the copies' derivatives to what they were copied from.
    dpadded[1] += dpadded[0]
    dpadded[-2] += dpadded[-1]
    dpadded[:, 1] += dpadded[:, 0]
    dpadded[:, -2] += dpadded[:, -1]
    return value, np.ascontiguousarray(dpadded[1:-1, 1:-1])


def edges_loss(
    x: Array, content: AnyArray, scales: Mapping[int, float], wrap: bool = False
) -> tuple[float, Array]:
    """Squared distance of the edges of two pictures at several scales, here by size of cell p.

        L = sum over p of scales[p] . sum (E_p x - E_p c)^2
        dL/dx = sum over p of 2 scales[p] . E_p'(E_p (x - c))

    E_p, c: `edge_map` and the content picture. Li et al., "Laplacian-Steered Neural Style Transfer", ACM
    Multimedia 2017; see docs/losses.md#edges-not-in-the-paper.
    """
    difference = np.subtract(x, content, dtype=x.dtype)
    value, dx = 0.0, np.zeros_like(difference)
    for p, scale in scales.items():
        edges = edge_map(difference, p, wrap)  # E_p is linear
        value += scale * sum_of_squares(edges)
        dx += edge_map_backward(2 * scale * edges, p, x.shape, wrap)
    return value, dx


def edge_map(x: Array, p: int, wrap: bool = False) -> Array:
    """E x (H // p, W // p) for x (H, W, C): the Laplacian of means over cells of p x p, summed over channels.

    Rows and columns that do not fill a cell are dropped, as by pooling. See
    docs/losses.md#edges-not-in-the-paper.
    """
    H, W, C = x.shape
    h, w = H // p, W // p
    rows = x[: h * p, : w * p].reshape(h, p, w * p * C).sum(axis=1)  # first, as it is the faster way
    return laplacian(rows.reshape(h, w, p * C).sum(axis=2) / p**2, wrap)


def edge_map_backward(dy: Array, p: int, shape: tuple[int, ...], wrap: bool = False) -> Array:
    """dx of a shape (H, W, C): the Laplacian of dy (h, w), divided by p^2, in all pixels of a cell.

    See docs/losses.md#edges-not-in-the-paper.
    """
    h, w = dy.shape
    dx = np.zeros(shape, dy.dtype)
    cells = laplacian(dy, wrap) / p**2
    dx[: h * p, : w * p] = cells.repeat(p, axis=0).repeat(p, axis=1)[:, :, None]
    return dx


def laplacian(u: Array, wrap: bool = False) -> Array:
    """The differences of each element of u (h, w) to its neighbors in four directions, added up.

    That is 4 u minus the four neighbors, where there are four. Symmetric, and so its own adjoint:
    docs/losses.md#edges-not-in-the-paper.
    """
    if wrap:
        rows = np.roll(u, 1, axis=0) + np.roll(u, -1, axis=0)
        return 4 * u - rows - np.roll(u, 1, axis=1) - np.roll(u, -1, axis=1)
    y = np.zeros_like(u)
    d, e = u[1:] - u[:-1], u[:, 1:] - u[:, :-1]
    y[1:] += d
    y[:-1] -= d
    y[:, 1:] += e
    y[:, :-1] -= e
    return y
