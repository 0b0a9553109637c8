"""Losses of feature maps that are computed from the top down: first sums over rows, then gradients by rows.

A loss of sums over positions, such as a Gram matrix, takes two passes over the rows. The first one adds up
the sums; they decide on the loss, and on a matrix that the second one multiplies each row by. Sums are over
fixed parts of the feature map, accumulated in float64 from the first to the last, as in the whole feature
map: so they have the same bits wherever the rows are divided. In tall pictures they are accumulated by
sections of `SECTION` rows of pixels first, so that several machines can compute some of them each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._typing import AnyArray, Array, Double
from npstyle.architecture import CONVOLUTIONS, log2_stride
from npstyle.losses import ELEMENTS_PER_SUM, sum_of_squares
from npstyle.rows import Packed, Rows, Span, Visitor
from npstyle.statistics import (
    OfSums,
    StyleTerm,
    Sums,
    Vectors,
    gradient_of_part,
    masked_total,
)

SECTION = 960  # rows of pixels: a multiple of a row of tiles in block 5


def has_sections(H: int) -> bool:
    """Whether there are several sections in pictures of this height."""
    return H > SECTION


def section_rows(name: str) -> int:
    """The rows of a layer's feature map that belong to a section of pixels."""
    return SECTION >> log2_stride(name)


class ContentTerm(NamedTuple):
    """The content loss of one layer: its target P (h, w, C), its factor, and what is added to it.

    The target is packed if it is used by rows.
    """

    P: AnyArray | Packed
    scale: float
    constant: float = 0.0


class RunningSums:
    """`statistics.feature_sums` of a feature map (H, W, C), or of a region T of it, as its rows come in.

    They are accumulated over sections of so many rows, and then over these. With `only`, sections of these
    numbers are summed, and not added up: `by_section`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        T: Array | None,
        dtype: np.dtype,
        threads: int | None,
        arena: Arena,
        section: int,
        only: Span | None = None,
    ) -> None:
        H, W, C = shape
        self.M, self.C, self.W = H * W, C, W
        self.t = None if T is None else T.reshape(-1)
        self.sums = empty_sums(shape, T)
        self.by_section: list[tuple[Double, Double]] = []
        self._section = section * W  # positions
        self._apart, self._end = only is not None, min(only[1] * self._section, self.M) if only else self.M
        # Of the section that is not complete; of the only one, those are the sums.
        single = section >= H and not self._apart
        self._gram = self.sums.gram if single else np.zeros((C, C))
        self._total = self.sums.total if single else np.zeros(C)
        # Where there are fewer vectors than channels, the Wasserstein distance takes these themselves.
        self._r = np.empty((self.M, C), dtype) if self.M <= C and not self._apart else None
        self._done = only[0] * self._section if only else 0  # positions
        self._threads, self._arena = threads, arena

    @property
    def vectors(self) -> Vectors | None:
        return None if self._r is None else Vectors(self._r, self.t)

    def visit(self, rows: Rows) -> int:
        f = rows[rows.first, rows.end].reshape(-1, self.C)
        first, last = rows.first * self.W, min(rows.end * self.W, self._end)
        while self._done < last:
            start = self._done // self._section * self._section
            end = min(start + self._section, self.M)
            stop = end if end <= last else start + _whole_parts(last - start, self.M)
            if stop <= self._done:
                break
            self._add(f[self._done - first : stop - first], start)
            if stop == end:
                self._end_section()
        return self._done // self.W if self._done < self._end else rows.end

    def _end_section(self) -> None:
        if self._apart:
            self.by_section.append((self._gram.copy(), self._total.copy()))
        elif self._gram is not self.sums.gram:
            add_sums(self.sums, self._gram, self._total)
        self._total = self._total if self._gram is self.sums.gram else np.zeros(self.C)

    def _add(self, f: Array, section: int) -> None:
        """Further positions of the section that begins at this one."""
        first, last = self._done, self._done + len(f)
        r = f if self.t is None else f * self.t[first:last, None]
        elements = _kernels.gram_workspace(len(f), self.C, f.itemsize, self._threads)
        workspace = self._arena.borrow((elements,), f.dtype)
        total = self._total if self.t is None else None
        _kernels.gram(r, self._gram, workspace, self._threads, total, first - section, self.M)
        self._arena.release(workspace)
        if self.t is not None:
            masked_total(self._total, r, self.t[first:last], _kernels.gram_rows_per_sum(self.M))
        if self._r is not None:
            self._r[first:last] = r
        self._done = last


def empty_sums(shape: tuple[int, int, int], T: Array | None) -> Sums:
    """No sums yet of a feature map (H, W, C), or of its region T."""
    H, W, C = shape
    if T is None:
        return Sums(np.zeros((C, C)), np.zeros(C), float(H * W), H * W)
    return Sums(np.zeros((C, C)), np.zeros(C), sum_of_squares(T), int(np.count_nonzero(T)))


def add_sums(sums: Sums, gram: Double, total: Double) -> None:
    """Add those of a section."""
    np.add(sums.gram, gram, out=sums.gram)
    np.add(sums.total, total, out=sums.total)


def _whole_parts(positions: int, M: int) -> int:
    """So many of the positions as make parts whose products are summed at once."""
    part = _kernels.gram_rows_per_sum(M)
    return positions // part * part


class RunningDistance:
    """Sum of (F - P)^2, or of F^2, as the rows of F come in: of each section of so many rows.

    `losses.content_loss` has the same bits where there is one. `only` as in `RunningSums`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        section: int,
        P: AnyArray | Packed | None = None,
        only: Span | None = None,
    ) -> None:
        H, W, C = shape
        self.sums: list[float] = []
        self._P, self._height, self._row, self._section = P, H, W * C, section
        self._end = min(only[1] * section, H) if only else H
        self._done = only[0] * section * self._row if only else 0  # elements

    def visit(self, rows: Rows) -> int:
        last = min(rows.end, self._end) * self._row
        while self._done < last:
            of_section = self._section * self._row
            start = self._done // of_section * of_section
            end = min(start + of_section, self._height * self._row)
            stop = end if end <= last else start + (last - start) // ELEMENTS_PER_SUM * ELEMENTS_PER_SUM
            if stop <= self._done:
                break
            if self._done == start:
                self.sums.append(0.0)
            for square in self._squares(rows, stop):
                self.sums[-1] += square
            self._done = stop
        return self._done // self._row if self._done < self._end * self._row else rows.end

    def _squares(self, rows: Rows, stop: int) -> Iterator[float]:
        """Sums of parts of the elements up to this one."""
        first = self._done // self._row
        difference = rows[first, -(-stop // self._row)]
        if self._P is not None:
            target = np.empty(difference.shape, difference.dtype)
            copy_rows(self._P, first, target)
            difference = np.subtract(difference, target, out=target)
        flat, offset = difference.reshape(-1), first * self._row
        for one in range(self._done, stop, ELEMENTS_PER_SUM):
            part = flat[one - offset : min(one + ELEMENTS_PER_SUM, stop) - offset]
            yield float(np.sum(np.square(part), dtype=np.float64))


def copy_rows(y: AnyArray | Packed, first: int, out: AnyArray) -> None:
    """Rows from `first` on, as many as `out` has; after the last row of y they begin again."""
    if isinstance(y, Packed):
        y.copy_to(first, out)
    else:
        out[...] = y[first % len(y) :][: len(out)]


class PartialLosses:
    """All losses of one layer: first their values, by `visit` and `finish`, then their gradient by rows.

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
        section = section_rows(name)
        self.name, self._style, self._content = name, style, content
        self._sums = [RunningSums(shape, term.mask, dtype, threads, arena, section) for term in style]
        self._distance = RunningDistance(shape, section, content.P) if content else None
        self._threads, self._arena = threads, arena

    def visit(self, rows: Rows) -> int:
        visitors: list[Visitor] = [*self._sums, *filter(None, [self._distance])]
        return min(one.visit(rows) for one in visitors)

    def finish(self) -> tuple[dict[str, float], LayerGradient]:
        """The values, by their names in `Objective.terms`, and what the gradient is computed from."""
        pairs = zip(self._style, self._sums, strict=True)
        found = [term.of_sums(running.sums, running.vectors) for term, running in pairs]
        distance = sum(self._distance.sums) if self._distance else None
        masks = [term.mask for term in self._style]
        gradient = LayerGradient(self.name, found, masks, self._content, self._threads, self._arena)
        return layer_values(self.name, found, self._content, distance), gradient


def layer_values(
    name: str, found: Sequence[OfSums], content: ContentTerm | None, distance: float | None
) -> dict[str, float]:
    """The values of a layer's style terms, and of the squared distance to its content target."""
    terms = {f"style/{name}": sum(one.value for one in found)} if found else {}
    if content is not None and distance is not None:
        terms[f"content/{name}"] = content.scale / 2 * distance + content.constant
    return terms


class LayerGradient:
    """The gradient of a layer's losses with respect to its feature map, by rows.

    Parameters
    ----------
    name : str
        The layer's.
    found : sequence of OfSums
        Of each style term.
    masks : sequence of array or None
        Likewise.
    content : ContentTerm or None
    """

    def __init__(
        self,
        name: str,
        found: Sequence[OfSums],
        masks: Sequence[Array | None],
        content: ContentTerm | None,
        threads: int | None,
        arena: Arena,
    ) -> None:
        self.name, self._found, self._masks, self._content = name, found, masks, content
        self.threads, self._arena = threads, arena

    def of_rows(self, F: Array, first: int, out: Array) -> None:
        """For rows F of the feature map, the first of which is `first`.

        They may be those of a copy of it above or below, but of one only.
        """
        for n, (found, mask) in enumerate(zip(self._found, self._masks, strict=True)):
            part = self._arena.borrow(F.shape, F.dtype) if n else out
            T = None if mask is None else mask[first % len(mask) :][: len(F)]
            gradient_of_part(found, F, T, part, self.threads, self._arena)
            if n:
                out += part
                self._arena.release(part)
        if self._content:
            difference = np.empty(F.shape, F.dtype) if self._found else out
            copy_rows(self._content.P, first, difference)
            np.subtract(F, difference, out=difference)
            np.multiply(difference, self._content.scale, out=difference)
            if self._found:
                out += difference


class Gradients:
    """The visitor of the second pass: rows of a `LayerGradient`, which wait for the backward pass.

    They are packed where they wait for long.
    """

    def __init__(self, gradient: LayerGradient, arena: Arena, packed: bool, first: int = 0) -> None:
        self.waiting = Packed(first, arena, gradient.threads)
        self._gradient, self._arena = gradient, arena
        # A convolution's ReLU passes on what comes back where its output is above 0, a pooling everything.
        self._packed = packed and gradient.name in CONVOLUTIONS

    def visit(self, rows: Rows) -> int:
        waiting = self.waiting
        if rows.end > waiting.end:
            F = rows[waiting.end, rows.end]
            out = self._arena.borrow(F.shape, F.dtype)
            self._gradient.of_rows(F, waiting.end, out)
            waiting.push(out, F if self._packed else None)
            self._arena.release(out)
        return waiting.end


class Copy:
    """The visitor that stores a feature map."""

    def __init__(self, out: AnyArray) -> None:
        self.target, self._done = out, 0

    def visit(self, rows: Rows) -> int:
        end = min(rows.end, len(self.target))
        if end > self._done:
            self.target[self._done : end] = rows[self._done, end]
            self._done = end
        return self._done if self._done < len(self.target) else rows.end


class Pack:
    """The visitor that stores rows first ... last - 1 of a feature map, packed."""

    def __init__(self, first: int, last: int, threads: int | None = None) -> None:
        self.target, self._last = Packed(first, threads=threads), last

    def visit(self, rows: Rows) -> int:
        end = min(rows.end, self._last)
        if end > self.target.end:
            new = rows[self.target.end, end]
            self.target.push(new, new, positive=False)
        return self.target.end if self.target.end < self._last else rows.end


class Together(list[Visitor]):
    """Several visitors of one feature map."""

    def visit(self, rows: Rows) -> int:
        return min(one.visit(rows) for one in self)
