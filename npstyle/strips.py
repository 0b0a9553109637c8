"""All layers in strips, from the top of the picture down.

A row of a layer's output needs a few rows of its input only (`npstyle.row_layers`). So pixels can be given
strip by strip: each layer then computes the rows that it has all inputs for, and what no layer needs any more
is dropped (`ForwardPass`). Gradients follow in the same way from the top layer to the pixels
(`BackwardPass`). Nothing is computed twice, and everything with the bits that it has in the whole picture.

docs/large-pictures.md has a drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from npstyle._runtime.arena import Arena
from npstyle._typing import AnyArray
from npstyle.row_layers import Link
from npstyle.rows import Pieces, Rows, Visitor


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
