"""Layers by rows: which rows of its input a layer needs for which of its output, and how it computes them.

All elements are computed by the same operations as in the whole picture: a convolution's strips begin where a
tile or a call of BLAS does. `npstyle.strips` goes through the layers.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from npstyle import _kernels
from npstyle._kernels import Strip
from npstyle._typing import AnyArray
from npstyle.fused import FirstLayerConvReLU, WinogradConvReLU, WinogradConvReLUPool
from npstyle.layers import AveragePool, Conv2D, Layer, MaxPool, ReLU
from npstyle.padding import Crop, ReplicatePad, WrapPad
from npstyle.rows import Span

OF_WINOGRAD = WinogradConvReLU, WinogradConvReLUPool


class Amount(NamedTuple):
    """How much of a layer is computed at a time, as far as its inputs are there.

    Attributes
    ----------
    rows : int
        At most.
    elements : int
        About so many at most: in wide pictures a few rows are enough.
    tiles : int
        Of a Winograd convolution, at least. Its filters' transforms take as long as 10 of them; but gradients
        wait until so many are there.
    """

    rows: int
    elements: int
    tiles: int

    def of_rows(self, W: int, C: int) -> int:
        """At most so many rows (W, C)."""
        return min(self.rows, max(1, self.elements // max(1, W * C)))


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
        return _convolved(inputs, self.H, self.forward_step)

    def gradients(self, rows: int) -> int:
        return _convolved(rows, self.H, self.backward_step)

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
        return min(first // 2, self.height - 1), min(self.height, (last + 1) // 2)

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        if len(dx) == 1:  # an odd last row, by itself
            _put(np.zeros_like(dx), dx, add)
            return
        of_layer: Any = dx.shape if cache is None else (cache, dx.shape)
        if add:
            self.layer.backward(dy, of_layer, dx)
        else:
            self.layer.backward(dy, of_layer, None, dx)


class PooledNeighbors:
    """Convolution, ReLU and average pooling in one pass: `Neighbors` and `Halves`, and nothing between them.

    Rows of y are rows of means. An odd last row of what they are of has none, and its gradient is 0.
    """

    def __init__(self, layer: WinogradConvReLUPool, H: int, steps: Span) -> None:
        self.layer, self.H, self.height = layer, H, H // 2
        self.forward_step, self.backward_step = steps  # in rows of pixels: multiples of two

    def outputs(self, inputs: int) -> int:
        return _convolved(inputs, self.H, self.forward_step) // 2

    def inputs(self, first: int, last: int) -> Span:
        return max(0, 2 * first - 1), min(self.H, 2 * last + 1)

    def forward(self, x: AnyArray, first: int, out: AnyArray) -> AnyArray | None:
        _, (mask, (rows, _, _)) = self.layer.forward(x, out, Strip(2 * first, self.H))
        # The bits of two rows for each row of means.
        return mask.reshape(rows, -1)[: 2 * len(out)].reshape(len(out), -1)

    def gradients(self, rows: int) -> int:
        return _convolved(self.H if rows == self.height else 2 * rows, self.H, self.backward_step)

    def of_gradient(self, first: int, last: int) -> Span:
        return max(0, first // 2 - 1), min(self.height, last // 2 + 1)

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        assert cache is not None
        start, end = max(0, first - 1), min(self.H, first + len(dx) + 1)
        by_row: Any = cache.reshape(2 * len(cache), -1)[start % 2 :]
        if end > self.height * 2:  # the odd last row: any bits
            by_row = np.concatenate([by_row, by_row[-1:]])
        mask = by_row[: end - start].reshape(-1)
        onto, out = (dx, None) if add else (None, dx)
        self.layer.backward(dy, (mask, dx.shape), onto, out, Strip(first, self.H))


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


class Wrapped:
    """The opposite border, in `Repeated` pictures: it is the row next to the own border.

    With row h of the copy n called (n, h), from 0 to H - 1 in x and dx and to H + 1 in y and dy,

        y(n, h) = x(n, h - 1), where (n, -1) is (n - 1, H - 1), and (n, H) is (n + 1, 0);
        dx(n, h) = dy(n, h + 1), and dy(n + 1, 0) in the last row, and dy(n - 1, H + 1) in the first one.
    """

    def __init__(self, layer: WrapPad, H: int) -> None:
        self.layer, self.H, self.height = layer, H, H + 2

    def outputs(self, inputs: int) -> int:
        copy, rows = divmod(inputs, self.H)
        return copy * self.height + (rows + 1 if rows else -1)  # y(n - 1, H + 1) needs x(n, 0)

    def inputs(self, first: int, last: int) -> Span:
        copy, row = divmod(first, self.height)
        start = copy * self.H + min(row, self.H) - 1  # y(n, H + 1) is further down than y(n + 1, 0)
        copy, row = divmod(last - 1, self.height)
        return start, copy * self.H + max(row, 1)

    def forward(self, x: AnyArray, first: int, out: AnyArray) -> AnyArray | None:
        start = first % self.height > self.H  # y(n, H + 1) only
        self.layer.forward_of_rows(x[start : start + len(out)], out)
        return None

    def gradients(self, rows: int) -> int:
        copy, row = divmod(rows, self.height)
        return copy * self.H + (min(row - 1, self.H - 1) if row else -1)  # dx(n - 1, H - 1) needs dy(n, 0)

    def of_gradient(self, first: int, last: int) -> Span:
        copy, row = divmod(first, self.H)
        start = copy * self.height + (row + 1 if row else -1)
        copy, row = divmod(last - 1, self.H)
        return start, copy * self.height + row + (4 if row == self.H - 1 else 2)

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        row = first % self.H
        own = dy[0 if row else 2 :][: len(dx)]
        of_last, of_first = dy[-1] if row + len(dx) == self.H else None, None if row else dy[0]
        self.layer.backward_of_rows(own, of_last, of_first, dx, add)


class Repeated:
    """A layer in a picture that is repeated without end above and below, each copy computed by itself.

    Rows are numbered through: 0 to H - 1 are the picture's, -1 is the last one of the copy above. Rows that
    are computed together are of one copy.
    """

    def __init__(self, layer: RowLayer) -> None:
        self.layer, self.H, self.height = layer, layer.H, layer.height

    def outputs(self, inputs: int) -> int:
        copy, rows = divmod(inputs, self.H)
        return copy * self.height + self.layer.outputs(rows)

    def inputs(self, first: int, last: int) -> Span:
        return self._span(self.layer.inputs, first, last, self.height, self.H)

    def forward(self, x: AnyArray, first: int, out: AnyArray) -> AnyArray | None:
        first %= self.height
        assert first + len(out) <= self.height
        return self.layer.forward(x, first, out)

    def gradients(self, rows: int) -> int:
        copy, row = divmod(rows, self.height)
        return copy * self.H + self.layer.gradients(row)

    def of_gradient(self, first: int, last: int) -> Span:
        return self._span(self.layer.of_gradient, first, last, self.H, self.height)

    def backward(self, dy: AnyArray, cache: AnyArray | None, first: int, dx: AnyArray, add: bool) -> None:
        first %= self.H
        assert first + len(dx) <= self.H
        self.layer.backward(dy, cache, first, dx, add)

    @staticmethod
    def _span(needed: Callable[[int, int], Span], first: int, last: int, height: int, below: int) -> Span:
        """What rows need that may be of several copies, of this height; those needed have the other one."""
        copy, row = divmod(first, height)
        start = copy * below + needed(row, height)[0]
        copy, row = divmod(last - 1, height)
        return start, copy * below + needed(0, row + 1)[1]


def _convolved(rows: int, H: int, step: int) -> int:
    """How many rows of H can be computed from so many, each of which is needed by its neighbors."""
    return H if rows == H else max(0, rows - 1) // step * step


def _put(computed: AnyArray, dx: AnyArray, add: bool) -> None:
    if add:
        np.add(dx, computed, out=dx)
    else:
        dx[...] = computed


class Portion(NamedTuple):
    """Rows that a layer computes at a time: at least so many, unless the picture ends, and at most.

    They begin at multiples of `step` in a picture of this height, or in one of its copies above and below.
    """

    least: int = 1
    most: int = sys.maxsize
    step: int = 1
    height: int = sys.maxsize

    def of(self, first: int, last: int, end: int) -> int:
        """Which row to compute up to, where rows from `first` to `last` can be, and `end` is the last."""
        end = min(end, self.end_of_copy(first))
        last = min(last, end)
        if last - first < self.least and last < end:
            return first
        # No single row is left for another time: of an odd last one, a pooling has no gradient.
        return last if last - first <= self.most + 1 else first + self.most

    def of_means(self) -> Portion:
        """The same in rows of means, each of two rows."""
        return self._replace(least=self.least // 2, most=self.most // 2, step=self.step // 2)

    def end_of_copy(self, row: int) -> int:
        """The end of the picture that a row belongs to."""
        return (row // self.height + 1) * self.height

    def aligned(self, first: int, last: int) -> Span:
        """These rows, with those that have to be computed together with them."""
        copy, row = divmod(first, self.height)
        start = copy * self.height + row // self.step * self.step
        copy, row = divmod(last - 1, self.height)
        return start, copy * self.height + min(self.height, (row // self.step + 1) * self.step)


class Link(NamedTuple):
    """A layer in a chain by rows: the name of the feature map it completes, and the shape of its rows."""

    layer: RowLayer
    feature_map: str | None
    row: tuple[int, int]
    forward: Portion
    backward: Portion


def links(
    steps: Sequence[tuple[Layer, str | None]],
    shape: tuple[int, ...],
    dtype: Any,
    amount: Amount,
    repeated: bool,
) -> list[Link]:
    """The chain of a network's steps for an input (H, W, C), or for one that is repeated above and below."""
    H, W, C = shape
    chain: list[Link] = []
    remaining = deque(steps)
    while remaining:
        layer, name = remaining.popleft()
        by_rows: RowLayer
        forward = backward = Portion(most=amount.rows)
        if isinstance(layer, (Conv2D, FirstLayerConvReLU, *OF_WINOGRAD)):
            relu: ReLU | None = None
            if isinstance(layer, Conv2D):
                following, name = remaining.popleft()
                assert isinstance(following, ReLU)
                relu = following
            K = layer.bias.size
            of_winograd, itemsize = isinstance(layer, OF_WINOGRAD), np.dtype(dtype).itemsize
            steps_ = tuple(_step(layer, H, W, *channels, itemsize) for channels in ((C, K), (K, C)))
            forward, backward = (portion(step, W, max(C, K), amount, of_winograd) for step in steps_)
            if isinstance(layer, WinogradConvReLUPool):
                by_rows, W = PooledNeighbors(layer, H, (steps_[0], steps_[1])), W // 2
                forward = forward.of_means()
            else:
                by_rows = Neighbors(layer, relu, H, (steps_[0], steps_[1]))
            C = K
        elif isinstance(layer, (AveragePool, MaxPool)):
            by_rows, W = Halves(layer, H), W // 2
            backward = Portion(most=max(2, amount.rows // 2 * 2), step=2)  # of whole cells
        elif isinstance(layer, ReplicatePad):
            by_rows, W = Padded(layer, H), W + 2
            forward = backward = Portion(most=H + 2)
        elif isinstance(layer, WrapPad):
            by_rows, W = Wrapped(layer, H), W + 2
            forward = backward = Portion(most=H + 2)
        elif isinstance(layer, Crop):
            by_rows, W = Cropped(layer, H), W - 2
            forward = backward = Portion(most=H)
        else:
            by_rows = Pointwise(layer, H)
        if repeated and not isinstance(by_rows, (Wrapped, Pointwise)):
            by_rows = Repeated(by_rows)
        forward, backward = forward._replace(height=by_rows.height), backward._replace(height=H)
        H = by_rows.height
        chain.append(Link(by_rows, name, (W, C), forward, backward))
    return chain


def portion(step: int, W: int, C: int, amount: Amount, of_tiles: bool) -> Portion:
    """Rows (W, C) of a convolution, whose strips begin at multiples of a step, which tiles are high."""
    in_row = max(1, -(-W // step))  # none: too small a picture, of which only the memory is asked
    enough = step * -(-amount.tiles // in_row) if of_tiles else step
    least = min(enough, max(step, amount.rows // step * step))
    return Portion(least, max(least, amount.of_rows(W, C) // step * step), step)


def _step(layer: Layer, H: int, W: int, C: int, K: int, itemsize: int) -> int:
    """Rows that a convolution computes together."""
    if isinstance(layer, OF_WINOGRAD):
        return _kernels.winograd_rows(H, W, C, K, itemsize)
    rows = _kernels.first_layer_rows if isinstance(layer, FirstLayerConvReLU) else _kernels.conv3x3_rows
    return rows(W)
