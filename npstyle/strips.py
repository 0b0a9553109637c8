"""Layers by rows, from the top of the picture down: what is computed of a feature map, and kept, at a time.

A row of a layer's output needs a few rows of its input only. So pixels can be given strip by strip: each
layer then computes the rows that it has all inputs for, and what no layer needs any more is dropped
(`ForwardPass`). Gradients follow in the same way from the top layer to the pixels (`BackwardPass`). Nothing
is computed twice, and all elements are computed by the same operations as in the whole picture: a
convolution's strips begin where a tile or a call of BLAS does.

docs/large-pictures.md has a drawing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from npstyle import _kernels
from npstyle._kernels import Strip
from npstyle._runtime.arena import Arena
from npstyle._typing import AnyArray
from npstyle.fused import FirstLayerConvReLU, WinogradConvReLU
from npstyle.layers import AveragePool, Conv2D, Layer, MaxPool, ReLU
from npstyle.padding import Crop, ReplicatePad

Span = tuple[int, int]  # rows first ... last - 1


class Rows:
    """Rows first ... end - 1 of an array of `height` rows, which grows below and is dropped above.

    Parameters
    ----------
    height : int
    shape : tuple of int
        Of a row.
    whole : array, optional
        All rows, which are kept.
    """

    def __init__(
        self, height: int, shape: tuple[int, ...], dtype: Any, arena: Arena, whole: AnyArray | None = None
    ) -> None:
        self.height, self.shape, self.dtype = height, shape, dtype
        self.first = self.end = 0
        self.held = height  # the first row that a loss still needs; `drop` keeps it
        self._arena, self._whole, self._rows = arena, whole, whole

    def extend(self, count: int) -> AnyArray:
        """Further rows, uninitialized."""
        if self._whole is None:
            kept = self.end - self.first
            rows = self._arena.borrow((kept + count, *self.shape), self.dtype)
            if self._rows is not None:
                rows[:kept] = self._rows
                self._arena.release(self._rows)
            self._rows = rows
        self.end += count
        return self[self.end - count, self.end]

    def __getitem__(self, span: Span) -> AnyArray:
        assert self._rows is not None
        assert self.first <= span[0] <= span[1] <= self.end, (span, self.first, self.end)
        return self._rows[span[0] - self.first : span[1] - self.first]

    def drop(self, before: int) -> None:
        """Rows before this one are not needed any more; what is left of a large array becomes a small one."""
        before = min(before, self.end, self.held)
        if self._whole is not None or before <= self.first or self._rows is None:
            return
        left: AnyArray | None = None
        if before < self.end:
            left = self._arena.borrow((self.end - before, *self.shape), self.dtype)
            left[...] = self._rows[before - self.first :]
        self._arena.release(self._rows)
        self._rows, self.first = left, before


class Pieces:
    """Rows that wait for the backward pass, in the pieces that they came in."""

    def __init__(self) -> None:
        self.end = 0
        self._pieces: deque[tuple[int, AnyArray]] = deque()

    def push(self, rows: AnyArray) -> None:
        self._pieces.append((self.end, rows))
        self.end += len(rows)

    def copy_to(self, first: int, out: AnyArray) -> None:
        """Rows from `first` on, as many as `out` has."""
        last = first + len(out)
        for start, piece in self._pieces:
            a, b = max(first, start), min(last, start + len(piece))
            if a < b:
                out[a - first : b - first] = piece[a - start : b - start]

    def rows(self, span: Span) -> AnyArray:
        first, last = span
        for start, piece in self._pieces:
            if start <= first and last <= start + len(piece):
                return piece[first - start : last - start]
        out = np.empty((last - first, *self._pieces[0][1].shape[1:]), self._pieces[0][1].dtype)
        self.copy_to(first, out)
        return out

    def drop(self, before: int, release: Callable[[AnyArray], None] = lambda piece: None) -> None:
        while self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) <= before:
            release(self._pieces.popleft()[1])


# ------------------------------------------------------------------------------------------------
# Which rows depend on which, and how they are computed
# ------------------------------------------------------------------------------------------------


class RowLayer(Protocol):
    """A layer whose input is H rows high, and its output `height`."""

    H: int
    height: int

    def outputs(self, inputs: int) -> int:
        """How many rows of the output can be computed from so many of the input."""

    def inputs(self, first: int, last: int) -> Span:
        """The rows of the input that these rows of the output are computed from."""

    def forward(self, x: AnyArray, first: int, out: AnyArray) -> AnyArray | None:
        """Compute rows of the output, the first of which is `first`; returned is a cache by rows, or None."""

    def gradients(self, rows: int) -> int:
        """How many rows of dx can be computed from so many of dy."""

    def of_gradient(self, first: int, last: int) -> Span:
        """The rows of dy that these rows of dx are computed from."""

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        """Compute rows of dx, or add to them; `cache` has the same rows as dy."""


class Neighbors:
    """Convolution with its ReLU: a row more on both sides, and strips that begin at multiples of a step."""

    def __init__(
        self, layer: Conv2D | WinogradConvReLU | FirstLayerConvReLU, relu: ReLU | None, H: int, steps: Span
    ) -> None:
        self.layer, self.relu = layer, relu
        self.H = self.height = H
        self.forward_step, self.backward_step = steps

    def outputs(self, inputs: int) -> int:
        return self._reached(inputs, self.forward_step)

    def gradients(self, rows: int) -> int:
        return self._reached(rows, self.backward_step)

    def _reached(self, rows: int, step: int) -> int:
        return self.H if rows == self.H else max(0, rows - 1) // step * step

    def inputs(self, first: int, last: int) -> Span:
        return max(0, first - 1), min(self.H, last + 1)

    of_gradient = inputs

    def forward(self, x: AnyArray, first: int, out: AnyArray) -> AnyArray | None:
        _, cache = self.layer.forward(x, out, Strip(first, self.H))
        if self.relu is not None:
            _, cache = self.relu.forward(out)
        assert cache is not None
        return cache.reshape(len(out), -1)

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        assert cache is not None
        mask: Any = cache.reshape(-1)
        if self.relu is not None:
            dy, mask = self.relu.backward(dy, mask), None
        onto, out = (dx, None) if add else (None, dx)
        self.layer.backward(dy, mask, onto, out, Strip(first, self.H))


class Halves:
    """Pooling of 2 x 2 cells; an odd last row is dropped."""

    def __init__(self, layer: AveragePool | MaxPool, H: int) -> None:
        self.layer, self.H, self.height = layer, H, H // 2

    def outputs(self, inputs: int) -> int:
        return inputs // 2

    def inputs(self, first: int, last: int) -> Span:
        return 2 * first, 2 * last

    def forward(self, x: AnyArray, first: int, out: AnyArray) -> AnyArray | None:
        if isinstance(self.layer, MaxPool):
            return self.layer.forward(x, out)[1][0]
        self.layer.forward(x, out)
        return None

    def gradients(self, rows: int) -> int:
        return self.H if rows == self.height else 2 * rows

    def of_gradient(self, first: int, last: int) -> Span:
        return min(first // 2, self.height), min(self.height, (last + 1) // 2)

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        of_layer: Any = dx.shape if cache is None else (cache, dx.shape)
        if add:
            self.layer.backward(dy, of_layer, dx)
        else:
            self.layer.backward(dy, of_layer, None, dx)


class Pointwise:
    """A layer without neighbors, such as the preprocessing."""

    def __init__(self, layer: Layer, H: int) -> None:
        self.layer = layer
        self.H = self.height = H

    def outputs(self, inputs: int) -> int:
        return inputs

    def inputs(self, first: int, last: int) -> Span:
        return first, last

    gradients, of_gradient = outputs, inputs

    def forward(self, x: AnyArray, first: int, out: AnyArray) -> AnyArray | None:
        out[...] = self.layer.forward(x)[0]
        return None

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        _put(self.layer.backward(dy, cache), dx, add)


class Padded:
    """The border replicated: one row more above and below."""

    def __init__(self, layer: ReplicatePad, H: int) -> None:
        self.layer, self.H, self.height = layer, H, H + 2

    def outputs(self, inputs: int) -> int:
        return self.height if inputs == self.H else inputs + (inputs > 0)

    def inputs(self, first: int, last: int) -> Span:
        return max(0, first - 1), min(self.H, last - 1)

    def forward(self, x: AnyArray, first: int, out: AnyArray) -> AnyArray | None:
        y, _ = self.layer.forward(x)
        start = first - self.inputs(first, first + len(out))[0]
        out[...] = y[start : start + len(out)]
        return None

    def gradients(self, rows: int) -> int:
        return self.H if rows == self.height else max(0, rows - 2)

    def of_gradient(self, first: int, last: int) -> Span:
        return first, last + 2

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        dy = dy.copy()
        if first > 0:  # not a copy of the border
            dy[0] = 0
        if first + len(dx) < self.H:
            dy[-1] = 0
        _put(self.layer.backward(dy), dx, add)


class Cropped:
    """The border removed: one row less above and below."""

    def __init__(self, layer: Crop, H: int) -> None:
        self.layer, self.H, self.height = layer, H, H - 2

    def outputs(self, inputs: int) -> int:
        return max(0, inputs - 2)

    def inputs(self, first: int, last: int) -> Span:
        return first, last + 2

    def forward(self, x: AnyArray, first: int, out: AnyArray) -> AnyArray | None:
        y, _ = self.layer.forward(x)
        out[...] = y
        self.layer.arena.release(y)
        return None

    def gradients(self, rows: int) -> int:
        return self.H if rows == self.height else rows + (rows > 0)

    def of_gradient(self, first: int, last: int) -> Span:
        return max(0, first - 1), min(self.height, last - 1)

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        h, w, K = dy.shape
        padded = self.layer.backward(dy, (h + 2, w + 2, K))
        start = first - self.of_gradient(first, first + len(dx))[0]
        _put(padded[start : start + len(dx)], dx, add)
        self.layer.arena.release(padded)


def _put(computed: AnyArray, dx: AnyArray, add: bool) -> None:
    if add:
        np.add(dx, computed, out=dx)
    else:
        dx[...] = computed


class Link(NamedTuple):
    """A layer in a chain by rows: the name of the feature map it completes, and the shape of its rows."""

    layer: RowLayer
    feature_map: str | None
    row: tuple[int, int]


def links(steps: Sequence[tuple[Layer, str | None]], shape: tuple[int, ...], dtype: Any) -> list[Link]:
    """The chain of a network's steps for an input (H, W, C)."""
    H, W, C = shape
    chain: list[Link] = []
    remaining = deque(steps)
    while remaining:
        layer, name = remaining.popleft()
        by_rows: RowLayer
        relu: ReLU | None = None
        if isinstance(layer, (Conv2D, WinogradConvReLU, FirstLayerConvReLU)):
            if isinstance(layer, Conv2D):
                following, name = remaining.popleft()
                assert isinstance(following, ReLU)
                relu = following
            K = layer.bias.size
            by_rows = Neighbors(layer, relu, H, _steps(layer, (H, W, C, K), np.dtype(dtype).itemsize))
            C = K
        elif isinstance(layer, (AveragePool, MaxPool)):
            by_rows, W = Halves(layer, H), W // 2
        elif isinstance(layer, ReplicatePad):
            by_rows, W = Padded(layer, H), W + 2
        elif isinstance(layer, Crop):
            by_rows, W = Cropped(layer, H), W - 2
        else:
            by_rows = Pointwise(layer, H)
        H = by_rows.height
        chain.append(Link(by_rows, name, (W, C)))
    return chain


def _steps(layer: Layer, shape: tuple[int, int, int, int], itemsize: int) -> Span:
    """Rows that a convolution computes together, forward and backward."""
    H, W, C, K = shape
    if isinstance(layer, WinogradConvReLU):
        return _kernels.winograd_rows(H, W, C, K, itemsize), _kernels.winograd_rows(H, W, K, C, itemsize)
    return (1, 1) if isinstance(layer, FirstLayerConvReLU) else (_kernels.conv3x3_rows(W),) * 2


# ------------------------------------------------------------------------------------------------
# All layers
# ------------------------------------------------------------------------------------------------


class Visitor(Protocol):
    """What is done with a feature map as it is computed."""

    def visit(self, rows: Rows) -> int:
        """Called after there are new rows; returned is the first one that it still needs."""


class ForwardPass:
    """A chain of layers, computed as far as there is input.

    Parameters
    ----------
    chain : list of Link
    source : Rows
        The input. Whoever calls `advance` extends it before.
    whole : array, optional
        Where all of the output is kept. Otherwise whoever calls `advance` drops its rows.
    visitors : mapping of str to Visitor
        Of feature maps by their names.
    saves : bool
        Whether there is a backward pass.
    below : str, optional
        The feature map that is the input, if it is one.
    """

    def __init__(
        self,
        chain: Sequence[Link],
        source: Rows,
        arena: Arena,
        visitors: Mapping[str, Visitor],
        whole: AnyArray | None = None,
        saves: bool = False,
        below: str | None = None,
    ) -> None:
        self.chain, self.below = chain, below
        self.rows = [source]
        for link in chain:
            last = whole if link is chain[-1] else None
            self.rows.append(Rows(link.layer.height, link.row, source.dtype, arena, last))
        self.caches = [Pieces() for _ in chain] if saves else []
        self._visitors = visitors
        self._seen = 0  # rows of the input that its visitor has been shown

    @property
    def output(self) -> Rows:
        return self.rows[-1]

    def advance(self) -> None:
        """Compute all rows that there are inputs for."""
        if self.rows[0].end > self._seen:
            self._visit(self.below, self.rows[0])
            self._seen = self.rows[0].end
        for n, (layer, name, _) in enumerate(self.chain):
            x, y = self.rows[n], self.rows[n + 1]
            first, last = y.end, layer.outputs(x.end)
            if last <= first:
                continue
            cache = layer.forward(x[layer.inputs(first, last)], first, y.extend(last - first))
            if self.caches and cache is not None:
                self.caches[n].push(cache)
            x.drop(layer.inputs(last, last)[0] if last < layer.height else x.end)
            self._visit(name, y)

    def _visit(self, name: str | None, rows: Rows) -> None:
        if name is not None and name in self._visitors:
            rows.held = self._visitors[name].visit(rows)


class BackwardPass:
    """The gradients of a `ForwardPass`, from its output to its input, as far as both are there.

    Parameters
    ----------
    forward : ForwardPass
        With `saves`.
    top, bottom : Rows
        The gradients with respect to the output and the input. Whoever calls `advance` extends the one,
        unless it is that of a loss, and takes the rows of the other.
    waiting : mapping of str to Pieces
        Gradients of losses with respect to feature maps: rows are there as soon as the forward pass has them.
    """

    def __init__(
        self,
        forward: ForwardPass,
        top: Rows,
        bottom: Rows,
        waiting: Mapping[str | None, Pieces],
        arena: Arena,
    ) -> None:
        self._forward, self._waiting, self._arena = forward, waiting, arena
        inner = [Rows(rows.height, rows.shape, rows.dtype, arena) for rows in forward.rows[1:-1]]
        self.rows = [bottom, *inner, top]

    def advance(self) -> None:
        """Compute all rows that there are gradients and caches for."""
        top = self._forward.chain[-1].feature_map
        if top in self._waiting:
            new = self._waiting[top].end - self.rows[-1].end
            if new:
                first = self.rows[-1].end
                self._take(top, first, self.rows[-1].extend(new))
        for n in reversed(range(len(self._forward.chain))):
            layer, _, _ = self._forward.chain[n]
            dx, dy, caches = self.rows[n], self.rows[n + 1], self._forward.caches[n]
            first, last = dx.end, layer.gradients(min(dy.end, self._forward.rows[n + 1].end))
            if last <= first:
                continue
            span = layer.of_gradient(first, last)
            out = dx.extend(last - first)
            below = self._forward.chain[n - 1].feature_map if n else self._forward.below
            if below in self._waiting:
                self._take(below, first, out)
            cache = caches.rows(span) if caches.end else None
            layer.backward(dy[span], cache, first, out, below in self._waiting)
            needed = layer.of_gradient(last, last)[0] if last < layer.H else dy.end
            dy.drop(needed)
            caches.drop(needed)

    def _take(self, name: str | None, first: int, out: AnyArray) -> None:
        """The waiting gradient of a loss, its rows from `first` on."""
        self._waiting[name].copy_to(first, out)
        self._waiting[name].drop(first + len(out), self._arena.release)
