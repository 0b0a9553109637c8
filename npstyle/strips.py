"""All layers in strips, from the top of the picture down.

A row of a layer's output needs a few rows of its input only (`npstyle.row_layers`). So pixels can be given
some rows at a time: each layer then computes the rows that it has all inputs for, and what no layer needs any
more is dropped (`ForwardPass`). Gradients follow in the same way from the top layer to the pixels
(`BackwardPass`). Nothing is computed twice, and everything with the bits that it has in the whole picture.

A pass goes step by step, a layer by a few rows, and the next step is always the one nearest to the end: so no
more rows wait than have to (`run`).

docs/large-pictures.md has a drawing.
"""

from __future__ import annotations

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
    saves : bool
        Whether there is a backward pass.
    below : str, optional
        The feature map that is the input, if it is one.
    continued : bool
        Somebody else reads the output, and drops its rows.
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
        continued: bool = False,
    ) -> None:
        self.chain, self.below = chain, below
        self.rows = [source]
        for link in chain:
            last = whole if link is chain[-1] else None
            self.rows.append(Rows(link.layer.height, link.row, source.dtype, arena, last))
        self.caches = [Pieces() for _ in chain] if saves else []
        self._visitors, self._continued = visitors, continued
        self._seen = 0  # rows of the input that its visitor has been shown

    @property
    def output(self) -> Rows:
        return self.rows[-1]

    def step(self) -> bool:
        """Compute some rows of the topmost layer that there are inputs for, if there is one."""
        if self.rows[0].end > self._seen:
            self._visit(self.below, self.rows[0])
            self._seen = self.rows[0].end
        return any(self._compute(n) for n in reversed(range(len(self.chain))))

    def _compute(self, n: int) -> bool:
        layer, name, _, portion, _ = self.chain[n]
        x, y = self.rows[n], self.rows[n + 1]
        first, last = y.end, portion.of(y.end, layer.outputs(x.end), layer.height)
        if last <= first:
            return False
        cache = layer.forward(x[layer.inputs(first, last)], first, y.extend(last - first))
        if self.caches and cache is not None:
            self.caches[n].push(cache)
        x.drop(layer.inputs(last, last)[0] if last < layer.height else x.end)
        self._visit(name, y)
        if y is self.output and not self._continued:
            y.drop(y.end)
        return True

    def _visit(self, name: str | None, rows: Rows) -> None:
        if name is not None and name in self._visitors:
            rows.held = self._visitors[name].visit(rows)


def rows_by_themselves(
    chain: Sequence[Link], pixels: AnyArray, dtype: Any, span: Span, arena: Arena
) -> AnyArray:
    """Rows of a chain's output from the pixels that they depend on, with nothing from rows before.

    Returned is an array of the arena.
    """
    if not chain:
        return pixels[slice(*span)].astype(dtype)
    layer, _, row, (least, _), _ = chain[-1]
    # Strips begin at multiples of `least`.
    first, last = span[0] // least * least, min(layer.height, -(-span[1] // least) * least)
    x = rows_by_themselves(chain[:-1], pixels, dtype, layer.inputs(first, last), arena)
    y = arena.borrow((last - first, *row), dtype)
    layer.forward(x, first, y)
    arena.release(x)
    return y[span[0] - first : span[1] - first]


class Waiting(Protocol):
    """The gradient of a loss with respect to a feature map, whose rows the backward pass takes one by one."""

    @property
    def end(self) -> int:
        """Rows that there have been until now."""

    def take(self, out: AnyArray) -> None:
        """The next rows, as many as `out` has."""


class BackwardPass:
    """The gradients of a `ForwardPass`, from its output to its input, as far as both are there.

    Parameters
    ----------
    forward : ForwardPass
        With `saves`.
    top, bottom : Rows
        The gradients with respect to the output and the input. Somebody else extends the one, unless it is
        that of a loss, and takes the rows of the other.
    waiting : mapping of str to Waiting
        Gradients of losses with respect to feature maps, as far as the forward pass is.
    """

    def __init__(
        self,
        forward: ForwardPass,
        top: Rows,
        bottom: Rows,
        waiting: Mapping[str | None, Waiting],
        arena: Arena,
    ) -> None:
        self._forward, self._waiting = forward, waiting
        inner = [Rows(rows.height, rows.shape, rows.dtype, arena) for rows in forward.rows[1:-1]]
        self.rows = [bottom, *inner, top]

    def step(self) -> bool:
        """Compute some rows of the lowest gradient that there are those above and caches for, if any."""
        return any(self._compute(n) for n in range(len(self._forward.chain))) or self._begin()

    def _compute(self, n: int) -> bool:
        layer, _, _, _, portion = self._forward.chain[n]
        dx, dy, caches = self.rows[n], self.rows[n + 1], self._forward.caches[n]
        possible = layer.gradients(min(dy.end, self._forward.rows[n + 1].end))
        first, last = dx.end, portion.of(dx.end, possible, layer.H)
        if last <= first:
            return False
        span = layer.of_gradient(first, last)
        out = dx.extend(last - first)
        below = self._forward.chain[n - 1].feature_map if n else self._forward.below
        if below in self._waiting:
            self._waiting[below].take(out)
        cache = caches.rows(span) if caches.end else None
        layer.backward(dy[span], cache, first, out, below in self._waiting)
        needed = layer.of_gradient(last, last)[0] if last < layer.H else dy.end
        dy.drop(needed)
        caches.drop(needed)
        return True

    def _begin(self) -> bool:
        """Fetch rows of the gradient with respect to the output, where that is a loss's."""
        top, dy = self._forward.chain[-1].feature_map, self.rows[-1]
        if top not in self._waiting:
            return False
        new = min(self._waiting[top].end - dy.end, self._forward.chain[-1].backward.most)
        if new:
            self._waiting[top].take(dy.extend(new))
        return new > 0
