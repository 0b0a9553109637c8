"""Losses of feature maps that are computed from the top down: first sums over rows, then gradients by rows.

A loss of sums over positions, such as a Gram matrix, takes two passes over the rows. The first one adds up
the sums; they decide on the loss, and on a matrix that the second one multiplies each row by. Sums are over
fixed parts of the feature map, accumulated in float64 from the first to the last, as in the whole feature
map: so they have the same bits wherever the rows are divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._typing import AnyArray, Array
from npstyle.losses import ELEMENTS_PER_SUM, sum_of_squares
from npstyle.statistics import (
    OfSums,
    StyleTerm,
    Sums,
    Vectors,
    gradient_of_part,
    masked_total,
)
from npstyle.strips import Pieces, Rows, Visitor


class ContentTerm(NamedTuple):
    """The content loss of one layer: its target P (h, w, C), its factor in the loss, and what is added."""

    P: AnyArray
    scale: float
    constant: float = 0.0


class RunningSums:
    """`statistics.feature_sums` of a feature map (H, W, C), or of a region T of it, as its rows come in."""

    def __init__(
        self, shape: tuple[int, int, int], T: Array | None, dtype: np.dtype, threads: int | None, arena: Arena
    ) -> None:
        H, W, C = shape
        self.M, self.C, self.W = H * W, C, W
        self.t = None if T is None else T.reshape(-1)
        self.sums = Sums(
            np.zeros((C, C)),
            np.zeros(C),
            float(self.M) if T is None else sum_of_squares(T),
            self.M if T is None else int(np.count_nonzero(T)),
        )
        # Where there are fewer vectors than channels, the Wasserstein distance takes these themselves.
        self._r = np.empty((self.M, C), dtype) if self.M <= C else None
        self._done = 0  # positions
        self._threads, self._arena = threads, arena

    @property
    def vectors(self) -> Vectors | None:
        return None if self._r is None else Vectors(self._r, self.t)

    def visit(self, rows: Rows) -> int:
        step, first = _kernels.gram_rows_per_sum(self.M), rows.first * self.W
        last = rows.end * self.W
        last = last if last == self.M else last // step * step
        if last > self._done:
            f = rows[rows.first, rows.end].reshape(-1, self.C)[self._done - first : last - first]
            self._add(f, self._done, last)
            self._done = last
        return self._done // self.W

    def _add(self, f: Array, first: int, last: int) -> None:
        r = f if self.t is None else f * self.t[first:last, None]
        elements = _kernels.gram_workspace(last - first, self.C, f.itemsize, self._threads)
        workspace = self._arena.borrow((elements,), f.dtype)
        total = self.sums.total if self.t is None else None
        _kernels.gram(r, self.sums.gram, workspace, self._threads, total, first, self.M)
        self._arena.release(workspace)
        if self.t is not None:
            masked_total(self.sums.total, r, self.t[first:last], _kernels.gram_rows_per_sum(self.M))
        if self._r is not None:
            self._r[first:last] = r


class RunningDistance:
    """Sum of (F - P)^2 as the rows of F come in; `losses.content_loss` has the same bits."""

    def __init__(self, P: AnyArray) -> None:
        self.p = P.reshape(-1)
        self.row = int(P[0].size)
        self.parts: list[float] = []

    def visit(self, rows: Rows) -> int:
        n, first, last = ELEMENTS_PER_SUM, rows.first * self.row, rows.end * self.row
        f = rows[rows.first, rows.end].reshape(-1)
        start = len(self.parts) * n
        while start < last and (start + n <= last or last == self.p.size):
            stop = min(start + n, last)
            difference = f[start - first : stop - first] - self.p[start:stop]
            self.parts.append(float(np.sum(np.square(difference), dtype=np.float64)))
            start = stop
        return start // self.row


class PartialLosses:
    """All losses of one layer: first their values, by `visit` and `finish`, then their gradients by rows.

    Parameters
    ----------
    name : str
    style : sequence of StyleTerm
    content : ContentTerm or None
    shape : (int, int, int)
        Of the feature map.
    """

    def __init__(
        self,
        name: str,
        style: Sequence[StyleTerm],
        content: ContentTerm | None,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        threads: int | None,
        arena: Arena,
    ) -> None:
        self.name, self.style, self.content = name, style, content
        self.waiting = Pieces()  # gradients that the backward pass has not reached
        self._sums = [RunningSums(shape, term.mask, dtype, threads, arena) for term in style]
        self._distance = RunningDistance(content.P) if content else None
        self._found: list[OfSums] = []
        self._threads, self._arena = threads, arena

    def visit(self, rows: Rows) -> int:
        visitors: list[Visitor] = [*self._sums, *filter(None, [self._distance])]
        return min(one.visit(rows) for one in visitors)

    def finish(self) -> dict[str, float]:
        """The values, by their names in `Objective.terms`."""
        pairs = zip(self.style, self._sums, strict=True)
        self._found = [term.of_sums(running.sums, running.vectors) for term, running in pairs]
        self._sums = []
        terms = {f"style/{self.name}": sum(found.value for found in self._found)} if self.style else {}
        if self.content and self._distance:
            distance = self.content.scale / 2 * sum(self._distance.parts)
            terms[f"content/{self.name}"] = distance + self.content.constant
        return terms

    def gradient(self, F: Array, first: int, out: Array) -> None:
        """The gradient with respect to rows F of the feature map, the first of which is `first`."""
        span = slice(first, first + len(F))
        for n, (term, found) in enumerate(zip(self.style, self._found, strict=True)):
            T = None if term.mask is None else term.mask[span]
            part = self._arena.borrow(F.shape, F.dtype) if n else out
            gradient_of_part(found, F, T, part, self._threads, self._arena)
            if n:
                out += part
                self._arena.release(part)
        if self.content:
            difference = np.subtract(F, self.content.P[span], out=None if self.style else out)
            np.multiply(difference, self.content.scale, out=difference)
            if self.style:
                out += difference


class Gradients:
    """The visitor of the second pass: gradients of `PartialLosses`, for the backward pass."""

    def __init__(self, losses: PartialLosses, arena: Arena) -> None:
        self._losses, self._arena = losses, arena

    def visit(self, rows: Rows) -> int:
        waiting = self._losses.waiting
        F = rows[waiting.end, rows.end]
        out = self._arena.borrow(F.shape, F.dtype)
        self._losses.gradient(F, waiting.end, out)
        waiting.push(out)
        return rows.end


class Copy:
    """The visitor that stores a feature map."""

    def __init__(self, out: AnyArray) -> None:
        self._out, self._done = out, 0

    def visit(self, rows: Rows) -> int:
        self._out[self._done : rows.end] = rows[self._done, rows.end]
        self._done = rows.end
        return rows.end


class Together(list[RunningSums]):
    """Several visitors of one feature map."""

    def visit(self, rows: Rows) -> int:
        return min(one.visit(rows) for one in self)
