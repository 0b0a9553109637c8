"""Layers by rows: which rows of its input a layer needs for which of its output, and how it computes them.

All elements are computed by the same operations as in the whole picture: a convolution's strips begin where a
tile or a call of BLAS does. `npstyle.strips` goes through the layers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from npstyle import _kernels
from npstyle._kernels import Strip
from npstyle._typing import AnyArray
from npstyle.fused import FirstLayerConvReLU, WinogradConvReLU
from npstyle.layers import AveragePool, Conv2D, Layer, MaxPool, ReLU
from npstyle.padding import Crop, ReplicatePad
from npstyle.rows import Span

MAX_ROWS = 24  # of a layer at a time
# And about so many elements: in wide pictures a row of tiles is enough for several threads.
MAX_ELEMENTS = 1 << 20


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


class Portion(NamedTuple):
    """Rows that a layer computes at a time: at least so many, unless the picture ends, and at most.

    They begin at multiples of `step`.
    """

    least: int = 1
    most: int = MAX_ROWS
    step: int = 1

    def of(self, first: int, last: int, end: int) -> int:
        """Which row to compute up to, where rows from `first` to `last` can be; the layer's end at `end`."""
        if last - first < self.least and last < end:
            return first
        # No single row is left for another time: of an odd last one, a pooling has no gradient.
        return last if last - first <= self.most + 1 else first + self.most


class Link(NamedTuple):
    """A layer in a chain by rows: the name of the feature map it completes, and the shape of its rows."""

    layer: RowLayer
    feature_map: str | None
    row: tuple[int, int]
    forward: Portion
    backward: Portion


def links(
    steps: Sequence[tuple[Layer, str | None]], shape: tuple[int, ...], dtype: Any, tiles: int
) -> list[Link]:
    """The chain of a network's steps for an input (H, W, C).

    Winograd's convolutions compute at least so many tiles at a time.
    """
    H, W, C = shape
    chain: list[Link] = []
    remaining = deque(steps)
    while remaining:
        layer, name = remaining.popleft()
        by_rows: RowLayer
        forward = backward = Portion()
        if isinstance(layer, (Conv2D, WinogradConvReLU, FirstLayerConvReLU)):
            relu: ReLU | None = None
            if isinstance(layer, Conv2D):
                following, name = remaining.popleft()
                assert isinstance(following, ReLU)
                relu = following
            K = layer.bias.size
            of_winograd, itemsize = isinstance(layer, WinogradConvReLU), np.dtype(dtype).itemsize
            steps_ = tuple(_step(layer, H, W, *channels, itemsize) for channels in ((C, K), (K, C)))
            at_least, wider = tiles if of_winograd else 1, max(C, K)
            forward, backward = (portion(step, W, at_least, rows_at_a_time(W, wider)) for step in steps_)
            by_rows = Neighbors(layer, relu, H, (steps_[0], steps_[1]))
            C = K
        elif isinstance(layer, (AveragePool, MaxPool)):
            by_rows, W = Halves(layer, H), W // 2
            backward = Portion(step=2)  # of whole cells
        elif isinstance(layer, ReplicatePad):
            by_rows, W = Padded(layer, H), W + 2
            forward = backward = Portion(most=H + 2)
        elif isinstance(layer, Crop):
            by_rows, W = Cropped(layer, H), W - 2
            forward = backward = Portion(most=H)
        else:
            by_rows = Pointwise(layer, H)
        H = by_rows.height
        chain.append(Link(by_rows, name, (W, C), forward, backward))
    return chain


def rows_at_a_time(W: int, C: int) -> int:
    """At most so many rows (W, C) of a layer are computed at a time."""
    return min(MAX_ROWS, max(1, MAX_ELEMENTS // max(1, W * C)))


def portion(step: int, W: int, tiles: int, rows: int = 1) -> Portion:
    """At least so many tiles of a convolution, whose strips begin at multiples of a step, or so many rows."""
    in_row = max(1, -(-W // step))  # none: too small a picture, of which only the memory is asked
    least = step * -(-tiles // in_row)
    return Portion(least, max(least, rows // step * step), step)


def _step(layer: Layer, H: int, W: int, C: int, K: int, itemsize: int) -> int:
    """Rows that a convolution computes together."""
    if isinstance(layer, WinogradConvReLU):
        return _kernels.winograd_rows(H, W, C, K, itemsize)
    rows = _kernels.first_layer_rows if isinstance(layer, FirstLayerConvReLU) else _kernels.conv3x3_rows
    return rows(W)
