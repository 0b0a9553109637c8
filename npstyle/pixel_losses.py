"""The losses of the pixels themselves, and their gradients: total variation, and the edges of the photograph.

They are not in the paper. Notation and conventions are those of `npstyle.losses`; all work on chunks of rows,
and add up fixed pieces, so that sums do not depend on the chunks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from npstyle._runtime.chunks import chunks
from npstyle._typing import AnyArray, Array, TotalVariationForm
from npstyle.losses import ELEMENTS_PER_SUM, sum_of_squares

# Of two forms of total variation: L = scale . factor . sum (d^2 + e^2)^power.
FACTORS = {"sum-squares": 0.5, "power-1.25": 1.0}
POWERS = {"sum-squares": 1.0, "power-1.25": 1.25}


class RunningSum:
    """A sum of elements that come in one after the other, accumulated in float64.

    It is that of fixed pieces, each added up by itself, so that it has the same bits however they come in:
    docs/large-pictures.md#the-same-bits.
    """

    def __init__(self) -> None:
        self._rest: Array | None = None  # less than a piece
        self._parts: list[float] = []

    def add(self, values: Array) -> None:
        """Take over elements of any shape, in C order."""
        flat, n = values.reshape(-1), ELEMENTS_PER_SUM
        if self._rest is not None:
            missing = n - self._rest.size
            self._rest, flat = np.concatenate([self._rest, flat[:missing]]), flat[missing:]
            if self._rest.size < n:
                return
            self._parts.append(float(np.sum(self._rest, dtype=np.float64)))
        whole = flat.size // n * n
        self._parts += [float(np.sum(flat[i : i + n], dtype=np.float64)) for i in range(0, whole, n)]
        self._rest = flat[whole:].copy()

    @property
    def total(self) -> float:
        rest = [] if self._rest is None or not self._rest.size else [self._rest]
        return sum([*self._parts, *(float(np.sum(one, dtype=np.float64)) for one in rest)])


def total_variation(
    x: Array,
    scale: float = 1.0,
    form: TotalVariationForm = "mean-squares",
    wrap: bool = False,
    accumulate_into: Array | None = None,
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

    It is computed in chunks of rows, each with the rows above and below it. Where there is none of these, the
    outermost row takes its place, so that a difference to it is 0. The gradient is added to
    `accumulate_into`, if that is given, and then returned.
    """
    dx = np.zeros_like(x) if accumulate_into is None else accumulate_into
    of_chunk = _nine_point_variation if form == "nine-point" else _variation
    sums = RunningSum(), RunningSum(), RunningSum(), RunningSum()
    for first, last in chunks(x):
        rows = np.arange(first - 1, last + 1)
        z = x.take(rows, axis=0, mode="wrap" if wrap else "clip")
        dx[first:last] += of_chunk(z, x.shape, first, scale, form, wrap, sums)
    if form == "nine-point":
        factors = [scale * weight / size for weight, size in _nine_points(x.shape, wrap)]
        return sum(factor * one.total for factor, one in zip(factors, sums, strict=True)), dx
    d, e, *_ = (one.total for one in sums)
    if form == "mean-squares":
        down, right = _differences(x.shape, wrap)
        return scale * (d / down + e / right), dx
    return scale * FACTORS[form] * d, dx


def _differences(shape: tuple[int, ...], wrap: bool) -> tuple[int, int]:
    """How many differences there are to the neighbors below, and at the right; at least 1."""
    H, W, C = shape
    return (H * W * C, H * W * C) if wrap else (max(1, (H - 1) * W * C), max(1, H * (W - 1) * C))


def _nine_points(shape: tuple[int, ...], wrap: bool) -> list[tuple[float, int]]:
    """Weights and numbers of the four kinds of differences; the border's cells belong to the picture's."""
    H, W, C = shape
    cells = H * W * C if wrap else (H + 1) * (W + 1) * C
    return [(2 / 3, H * W * C), (2 / 3, H * W * C), (1 / 6, cells), (1 / 6, cells)]


def _variation(
    z: Array,
    shape: tuple[int, ...],
    first: int,
    scale: float,
    form: TotalVariationForm,
    wrap: bool,
    sums: Sequence[RunningSum],
) -> Array:
    """dL/dx of `total_variation` in a chunk of a picture of this shape, z with the rows above and below it.

    The values are added to the sums.
    """
    H, W, _ = shape
    rows, columns = (H, W) if wrap else (H - 1, W - 1)  # that have a neighbor
    d, e = z[1:] - z[:-1], np.zeros_like(z[:-1])  # of the row above the chunk, too
    e[:, : W - 1] = z[:-1, 1:] - z[:-1, :-1]
    if wrap:
        e[:, -1] = z[:-1, 0] - z[:-1, -1]
    own = slice(1, 1 + min(len(z) - 2, rows - first))  # rows of the chunk that have one below
    if form == "mean-squares":
        down, right = _differences(shape, wrap)
        sums[0].add(np.square(d[own]))
        sums[1].add(np.square(e[1:, :columns]))
        dL_dd, dL_de = 2 * scale / down * d, 2 * scale / right * e
    else:
        power, factor = POWERS[form], FACTORS[form]
        if not wrap:
            d[:, -1] = 0  # there is no neighbor at the right
            e[max(0, 1 + rows - first) :] = 0
        squares = np.square(d) + np.square(e)
        sums[0].add(squares[own, :columns] ** power)
        slope = scale * factor * power * 2 * squares ** (power - 1)
        dL_dd, dL_de = slope * d, slope * e
    return dL_dd[:-1] - dL_dd[1:] + np.roll(dL_de[1:], 1, axis=1) - dL_de[1:]


def _nine_point_variation(
    z: Array,
    shape: tuple[int, ...],
    first: int,
    scale: float,
    form: TotalVariationForm,
    wrap: bool,
    sums: Sequence[RunningSum],
) -> Array:
    """As `_variation`, with diagonal differences."""
    begins, ends = first == 0 and not wrap, first + len(z) - 2 == shape[0] and not wrap
    padded = np.pad(z, ((0, 0), (1, 1), (0, 0)), "wrap" if wrap else "edge")
    dpadded = np.zeros_like(padded)
    inner, before, own, whole = slice(1, -1), slice(None, -1), slice(1, None), slice(None)
    # By the row and column that a cell begins in. Without wrap, some begin in the border.
    cells = slice(1 if wrap else 0, None if wrap or ends else -1), own if wrap else whole
    kinds = (
        ((own, inner), (before, inner), (own, whole)),
        ((inner, own), (inner, before), (whole, own)),
        ((own, own), (before, before), cells),
        ((own, before), (before, own), cells),
    )
    counts = _nine_points(shape, wrap)
    for (end, start, counted), (weight, size), total in zip(kinds, counts, sums, strict=True):
        d = padded[end] - padded[start]
        factor = scale * weight / size
        total.add(np.square(d[counted]))
        dpadded[end] += 2 * factor * d
        dpadded[start] -= 2 * factor * d
    # The adjoint of copying the border is adding the copies' derivatives to what they were copied from.
    if begins:
        dpadded[1] += dpadded[0]
    if ends:
        dpadded[-2] += dpadded[-1]
    if not wrap:
        dpadded[:, 1] += dpadded[:, 0]
        dpadded[:, -2] += dpadded[:, -1]
    return dpadded[inner, inner]


def edges_loss(
    x: Array,
    content: AnyArray,
    scales: Mapping[int, float],
    wrap: bool = False,
    accumulate_into: Array | None = None,
) -> tuple[float, Array]:
    """Squared distance of the edges of two pictures at several scales, here by size of cell p.

        L = sum over p of scales[p] . sum (E_p x - E_p c)^2
        dL/dx = sum over p of 2 scales[p] . E_p'(E_p (x - c))

    E_p, c: `edge_map` and the content picture. Li et al., "Laplacian-Steered Neural Style Transfer", ACM
    Multimedia 2017; see docs/losses.md#edges-not-in-the-paper. The gradient is added to `accumulate_into`,
    if that is given, and then returned.
    """
    value, gradients = 0.0, {}
    for p, scale in scales.items():
        edges = edge_map(x, p, wrap, content)  # E_p is linear
        value += scale * sum_of_squares(edges)
        gradients[p] = 2 * scale * edges
    dx = np.zeros_like(x) if accumulate_into is None else accumulate_into
    for first, last in chunks(x, math.lcm(*scales)):
        dx[first:last] += sum(
            edge_map_backward(dy, p, x.shape, wrap, (first, last)) for p, dy in gradients.items()
        )
    return value, dx


def edge_map(
    x: AnyArray, p: int, wrap: bool = False, minus: AnyArray | None = None, dtype: DTypeLike | None = None
) -> Array:
    """E x (H // p, W // p) for x (H, W, C): the Laplacian of means over cells of p x p, summed over channels.

    Rows and columns that do not fill a cell are dropped, as by pooling. With `minus` it is E (x - minus);
    `dtype` is that of x, if left out. See docs/losses.md#edges-not-in-the-paper.
    """
    H, W, C = x.shape
    h, w = H // p, W // p
    means = np.empty((h, w), dtype or x.dtype)
    for first, last in chunks(x[: h * p], p):
        chunk = x[first:last].astype(means.dtype, copy=False)
        if minus is not None:
            chunk = np.subtract(chunk, minus[first:last], dtype=means.dtype)
        rows = chunk[:, : w * p].reshape(-1, p, w * p * C).sum(axis=1)  # first, as it is the faster way
        means[first // p : last // p] = rows.reshape(-1, w, p * C).sum(axis=2) / p**2
    return laplacian(means, wrap)


def edge_map_backward(
    dy: Array, p: int, shape: tuple[int, ...], wrap: bool = False, rows: tuple[int, int] | None = None
) -> Array:
    """dx of a shape (H, W, C): the Laplacian of dy (h, w), divided by p^2, in all pixels of a cell.

    `rows` are those of dx that are wanted, the first one and the one after the last, from a cell's first row
    on; all, if left out. See docs/losses.md#edges-not-in-the-paper.
    """
    h, w = dy.shape
    H, W, C = shape
    begin, end = rows or (0, H)
    first, last = begin // p, min(h, -(-end // p))
    dx = np.zeros((end - begin, W, C), dy.dtype)
    above, below = (1, 1) if wrap else (min(1, first), min(1, h - last))
    around = dy.take(np.arange(first - above, last + below), axis=0, mode="wrap")
    cells = (laplacian(around, wrap)[above : above + last - first] / p**2).repeat(p, axis=0)
    dx[: len(cells), : w * p] = cells.repeat(p, axis=1)[: end - begin, :, None]
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
