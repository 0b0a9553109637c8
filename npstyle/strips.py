"""All layers in strips, from the top of the picture down.

A row of a layer's output needs a few rows of its input only (`npstyle.row_layers`). So pixels can be given
some rows at a time: each layer then computes the rows that it has all inputs for, and what no layer needs any
more is dropped (`ForwardPass`). Gradients follow in the same way from the top layer to the pixels
(`BackwardPass`). Nothing is computed twice, and everything with the bits that it has in the whole picture.

Where the padding wraps, the picture is repeated above and below, and a pass begins some rows above it and
ends some rows below it.

A pass goes step by step, a layer by a few rows, and the next step is always the one nearest to the end: so no
more rows wait than have to (`run`).

docs/large-pictures.md has a drawing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from npstyle._runtime.arena import Arena
from npstyle._typing import AnyArray
from npstyle.row_layers import Link
from npstyle.rows import Pieces, Rows, Span, Visitor


def run(*steps: Callable[[], bool]) -> None:
    """Take steps, the first that is possible each time, until none is: each says whether it was."""
    while any(step() for step in steps):
        pass


class ForwardPass:
    """A chain of layers, computed as far as there is input.

    Parameters
    ----------
    chain : list of Link
    source : Rows
        The input, which somebody else extends.
    whole : array, optional
        Where all of the output is kept.
    visitors : mapping of str to Visitor
        Of feature maps by their names.
    saves : int, optional
        For a backward pass, the caches of layers from this one on are kept.
    below : str, optional
        The feature map that is the input, if it is one.
    continued : bool
        Somebody else reads the output, and drops its rows.
    spans : sequence of Span, optional
        The rows that are computed, of the source and each output; all if omitted.
    """

    def __init__(
        self,
        chain: Sequence[Link],
        source: Rows,
        arena: Arena,
        visitors: Mapping[str, Visitor],
        whole: AnyArray | None = None,
        saves: int | None = None,
        below: str | None = None,
        continued: bool = False,
        spans: Sequence[Span] | None = None,
    ) -> None:
        self.chain, self.below = chain, below
        self.spans = spans or [(0, source.height), *((0, link.layer.height) for link in chain)]
        self.rows = [source]
        for link, (first, _) in zip(chain, self.spans[1:], strict=True):
            last = whole if link is chain[-1] else None
            self.rows.append(Rows(link.layer.height, link.row, source.dtype, arena, last, first))
        kept = self.spans[1:][saves:] if saves is not None else []
        self.caches = {n: Pieces(first) for n, (first, _) in enumerate(kept, saves or 0)}
        self._visitors, self._continued = visitors, continued
        self._seen = source.first  # rows of the input that its visitor has been shown
        self._topmost = min(0, len(chain) - 1)  # the layer above which there can't be new inputs

    @property
    def output(self) -> Rows:
        return self.rows[-1]

    def step(self) -> bool:
        """Compute some rows of the topmost layer that there are inputs for, if there is one."""
        if self.rows[0].end > self._seen:
            self._visit(self.below, self.rows[0])
            self._seen = self.rows[0].end
        for n in range(self._topmost, -1, -1):
            if self._compute(n):
                self._topmost = min(n + 1, len(self.chain) - 1)
                return True
        self._topmost = min(0, len(self.chain) - 1)
        return False

    def _compute(self, n: int) -> bool:
        layer, name, _, portion, _ = self.chain[n]
        x, y, end = self.rows[n], self.rows[n + 1], self.spans[n + 1][1]
        first, last = y.end, portion.of(y.end, min(layer.outputs(x.end), end), end)
        if last <= first:
            return False
        cache = layer.forward(x[layer.inputs(first, last)], first, y.extend(last - first))
        if n in self.caches and cache is not None:
            self.caches[n].push(cache)
        x.drop(layer.inputs(last, last)[0] if last < end else x.end)
        self._visit(name, y)
        if y is self.output and not self._continued:
            y.drop(y.end)
        return True

    def _visit(self, name: str | None, rows: Rows) -> None:
        if name is not None and name in self._visitors:
            rows.held = self._visitors[name].visit(rows)


def rows_by_themselves(chain: Sequence[Link], pixels: Rows, dtype: Any, span: Span, arena: Arena) -> AnyArray:
    """Rows of a chain's output from the pixels that they depend on, with nothing from rows before.

    Returned is an array of the arena.
    """
    if not chain:
        return pixels[span].astype(dtype)
    layer, _, row, portion, _ = chain[-1]
    first, last = portion.aligned(*span)
    x = rows_by_themselves(chain[:-1], pixels, dtype, layer.inputs(first, last), arena)
    y = arena.borrow((last - first, *row), dtype)
    layer.forward(x, first, y)
    arena.release(x)
    return y[span[0] - first : span[1] - first]


def spans_below(chain: Sequence[Link], wanted: Sequence[Span | None]) -> list[Span]:
    """The rows of the input and each output that have to be computed, so that all that are wanted are."""
    spans = list(wanted)
    for n in reversed(range(len(chain))):
        span = spans[n + 1]
        assert span is not None  # of the topmost layer there are some
        spans[n + 1] = first, last = chain[n].forward.aligned(*span)
        needed, also = chain[n].layer.inputs(first, last), spans[n]
        spans[n] = needed if also is None else (min(needed[0], also[0]), max(needed[1], also[1]))
    return [span for span in spans if span is not None]


def spans_above(chain: Sequence[Link], span: Span) -> list[Span]:
    """The rows of the gradients with respect to input and outputs that those of the input depend on."""
    spans: list[Span] = []
    for link in chain:
        first, last = link.backward.aligned(*span)
        spans.append((first, last))
        span = link.layer.of_gradient(first, last)
    return [*spans, span]


class Waiting(Protocol):
    """The gradient of a loss with respect to a feature map, whose rows the backward pass takes one by one."""

    @property
    def end(self) -> int:
        """Rows that there have been until now."""

    def take(self, out: AnyArray) -> None:
        """The next rows, as many as `out` has."""


class BackwardPass:
    """The gradients of a chain, from its output to its input, as far as the forward pass is.

    Parameters
    ----------
    chain : list of Link
    forward : ForwardPass
        Of the whole chain, or of its lower layers, which saves all of their caches.
    saved : mapping of int to Pieces
        The caches of the other layers, which are there already.
    top, bottom : Rows
        The gradients with respect to the output and the input. Somebody else extends the one, unless it is
        that of a loss, and takes the rows of the other.
    waiting : mapping of str to Waiting
        Gradients of losses with respect to feature maps, as far as the forward pass is.
    spans : sequence of Span
        The rows that are computed, of the gradients with respect to the input and each output.
    """

    def __init__(
        self,
        chain: Sequence[Link],
        forward: ForwardPass,
        saved: Mapping[int, Pieces],
        top: Rows,
        bottom: Rows,
        waiting: Mapping[str | None, Waiting],
        arena: Arena,
        spans: Sequence[Span],
    ) -> None:
        self._chain, self._forward, self._waiting, self._spans = chain, forward, waiting, spans
        self._caches = {**forward.caches, **saved}
        inner = [
            Rows(link.layer.height, link.row, top.dtype, arena, first=first)
            for link, (first, _) in zip(chain[:-1], spans[1:-1], strict=True)
        ]
        self.rows = [bottom, *inner, top]
        # Layers below this one can't have new gradients, unless one above is computed.
        self._lowest = self._limited = min(len(forward.chain), len(chain) - 1)

    def step(self) -> bool:
        """Compute some rows of the lowest gradient that there are those above and caches for, if any."""
        for n in range(self._lowest, len(self._chain)):
            if self._compute(n):
                self._lowest = max(n - 1, 0)
                return True
        self._lowest = self._limited
        return self._begin()

    def _compute(self, n: int) -> bool:
        layer, _, _, _, portion = self._chain[n]
        dx, dy, caches = self.rows[n], self.rows[n + 1], self._caches[n]
        end = self._spans[n][1]
        possible = min(layer.gradients(min(dy.end, self._reached(n + 1))), end)
        first, last = dx.end, portion.of(dx.end, possible, end)
        if last <= first:
            return False
        span = layer.of_gradient(first, last)
        out = dx.extend(last - first)
        below = self._chain[n - 1].feature_map if n else self._forward.below
        if below in self._waiting:
            self._waiting[below].take(out)
        cache = caches.rows(span) if caches.end > caches.first else None
        layer.backward(dy[span], cache, first, out, below in self._waiting)
        needed = layer.of_gradient(last, last)[0] if last < end else dy.end
        dy.drop(needed)
        caches.drop(needed)
        return True

    def _reached(self, n: int) -> int:
        """As far as the forward pass is, so many rows of the input of layer n could have been computed."""
        forward = self._forward
        if not forward.chain:  # nothing is computed again
            return sys.maxsize
        computed = min(n, len(forward.chain))
        rows = forward.rows[computed].end
        for link in self._chain[computed:n]:
            rows = link.layer.outputs(rows)
        return rows

    def _begin(self) -> bool:
        """Fetch rows of the gradient with respect to the output, where that is a loss's."""
        top, dy = self._chain[-1].feature_map, self.rows[-1]
        if top not in self._waiting:
            return False
        # Not further than the forward pass: a gradient that is computed again is there from the beginning.
        there = min(self._waiting[top].end, self._spans[-1][1], self._forward.output.end)
        new = min(there - dy.end, self._chain[-1].backward.most)
        if new > 0:
            self._waiting[top].take(dy.extend(new))
        return new > 0
