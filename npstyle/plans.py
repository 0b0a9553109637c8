"""Evaluation plans: which blocks of the network are computed in strips and forgotten, to save memory.

Memory is in the shallow layers, multiplications are in the deep ones. With the plan k, blocks 1 ... k are
computed strip by strip, and only pool_k is kept whole; above, all is as without a plan, down to the gradient
with respect to pool_k. Then the strips are computed once more, each with its backward pass. With the plan
`ALL_BLOCKS` there is no part that is kept whole.

Results have the same bits whatever the plan: see `npstyle.strips` and docs/large-pictures.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from npstyle._runtime.arena import RETURNED_SLAB, SLAB_OF_SMALL, Arena
from npstyle._typing import AnyArray, Array
from npstyle.architecture import LAYERS, block_of, channels, check_size, deepest, log2_stride
from npstyle.errors import UserError
from npstyle.fused import with_poolings
from npstyle.partial import Gradients, LayerGradient
from npstyle.row_layers import Amount, Link, links
from npstyle.rows import Pieces, RepeatedRows, Rows, Span, Visitor
from npstyle.strips import (
    BackwardPass,
    ForwardPass,
    Waiting,
    rows_by_themselves,
    run,
    spans_above,
    spans_below,
)
from npstyle.vgg import VGG19

ALL_BLOCKS = 5
PLANS = (0, 1, 2, 3, ALL_BLOCKS)
# With all blocks in strips, gradients of blocks 1 and 2 would wait for those of block 5, 750 rows of pixels
# behind. So these two are computed a third time, when the gradient with respect to pool2 is there.
DELAYED_BLOCKS = 2
MIDDLE = f"pool{DELAYED_BLOCKS}"
LEAST_STRIP = 6  # rows of pixels that are given to the network at a time: a row of tiles
# Small strips are for the second pass of all blocks, in which everything waits at once. Otherwise there is
# memory for large ones, which take less time.
LARGE = Amount(rows=48, elements=1 << 22, tiles=256)
SMALL = Amount(rows=24, elements=3 << 19, tiles=20)  # 12 rows of conv1_1 at 2048 pixels
CHEAP = "conv1_1"  # a two-hundredth of the multiplications: rather than let gradients wait, compute it again


def check_plan(plan: int) -> int:
    """Return the plan; a UserError where there is none such."""
    if isinstance(plan, bool) or plan not in PLANS:
        raise UserError("plan", repr(plan), f"one of {', '.join(map(str, PLANS))}", "choose one of these")
    return plan


def possible_plans(layers: Iterable[str]) -> tuple[int, ...]:
    """The plans of a loss of these layers that differ, from the fastest on."""
    if not (names := list(layers)):
        return (0,)
    blocks = block_of(deepest(names))
    return tuple(plan for plan in PLANS if plan < blocks or plan == ALL_BLOCKS)


def strip_rows(amount: Amount, W: int) -> int:
    """Rows of pixels of this width that are given to the network at a time."""
    return max(LEAST_STRIP, amount.of_rows(W, channels(CHEAP)))


def divided(plan: int, layers: Iterable[str]) -> tuple[list[str], list[str]]:
    """The layers of losses that are computed in strips, and those above, from the pixels up."""
    names = sorted(layers, key=LAYERS.index)
    above = [name for name in names if LAYERS.index(name) > LAYERS.index(f"pool{plan}")] if plan else names
    if plan and above and f"pool{plan}" in names:
        above.insert(0, f"pool{plan}")  # its loss is added to what comes from above
    return [name for name in names if name not in above], above


def computed_again(feature_maps: Sequence[str | None], losses: Collection[str]) -> int:
    """How many of these layers the second pass computes again: those up to the topmost with a loss.

    Of the others it needs caches only. And `CHEAP` is computed by itself, from the pixels.
    """
    with_loss = (n for n, name in enumerate(feature_maps) if name in losses and name != CHEAP)
    return 1 + max(with_loss, default=-1)


class Recomputed:
    """Rows of a `LayerGradient` whose feature map is computed again when the backward pass is there."""

    def __init__(
        self, gradient: LayerGradient, chain: Sequence[Link], pixels: Rows, span: Span, arena: Arena
    ) -> None:
        self._gradient, self._chain, self._pixels, self._arena = gradient, chain, pixels, arena
        self._taken, self.end = span

    def take(self, out: AnyArray) -> None:
        span = self._taken, self._taken + len(out)
        F = rows_by_themselves(self._chain, self._pixels, out.dtype, span, self._arena)
        self._gradient.of_rows(F, span[0], out)
        self._arena.release(F)
        self._taken = span[1]


class SpansInTwo(NamedTuple):
    """Rows of input and outputs: of the lower blocks, the upper ones, the lower ones again; of gradients."""

    first: list[Span]
    upper: list[Span]
    upper_back: list[Span]
    again: list[Span]
    lower_back: list[Span]


class Strips:
    """Feature maps and gradients of one picture in strips, or of a band of it.

    Parameters
    ----------
    network : VGG19
    pixels : (H, W, 3) array or Rows
        Where the padding wraps, rows are those of a picture that is repeated above and below.
    top : str
        The topmost layer.
    dtype : dtype
        float32 or float64, which pixels are converted to strip by strip.
    large : bool
        There is memory for large strips.
    band : (int, int), optional
        Rows of pixels, of which sums and gradient are wanted: all if omitted. They begin and end at multiples
        of 16, or with the picture. `pixels` has those that they depend on, too: `pixel_rows`.
    """

    def __init__(
        self,
        network: VGG19,
        pixels: AnyArray | Rows,
        top: str,
        dtype: np.dtype[Any],
        large: bool = False,
        band: Span | None = None,
    ) -> None:
        self._network, self._top, self._dtype = network, top, dtype
        self._amount = LARGE if large else SMALL
        self._arena = network.arena
        self._arena.least_slab = RETURNED_SLAB if large else SLAB_OF_SMALL
        self._repeated = network.padding == "wrap"
        self._pixels = pixels if isinstance(pixels, Rows) else self._all_rows(pixels)
        self._shape = (self._pixels.height, *self._pixels.shape)
        check_size(self._shape, [top], "picture")
        self._band = band or (0, self._shape[0])
        # By their place in the chain: layers that the second pass need not compute again, and their caches.
        self._saved: dict[int, Pieces] = {}

    def forward(self, visitors: Mapping[str, Visitor], whole: bool = False) -> Array | None:
        """Show all rows to the visitors of layers; returned is the topmost feature map, if it is wanted.

        Then `gradient` follows, and what it needs of layers above the topmost visitor is saved.
        """
        chain = self._chain(self._top, shown=visitors, amount=LARGE)
        output: Array | None = None
        if whole:
            output = self._arena.borrow((chain[-1].layer.height, *chain[-1].row), self._dtype)
        spans = spans_below(chain, self._wanted(chain, set(visitors)))
        source = self._source(spans)
        # Of a band, and of a picture that is repeated, the gradient depends on more rows than these.
        saves = whole and not self._repeated and self._band == (0, self._shape[0])
        from_here = computed_again([link.feature_map for link in chain], visitors) if saves else None
        forward = ForwardPass(chain, source, self._arena, visitors, output, from_here, spans=spans)
        run(forward.step, lambda: self._next(source, spans))
        self._saved = forward.caches
        return output

    def gradient(self, losses: Sequence[LayerGradient], above: Array | None) -> Array:
        """The gradient with respect to the pixels, or the band of them.

        Parameters
        ----------
        losses : sequence of LayerGradient
        above : array, optional
            The gradient with respect to the topmost feature map of what is above it. Otherwise there is
            nothing above, and the topmost layer has a loss.
        """
        chain = self._chain(self._top, shown=[one.name for one in losses])
        first, last = spans_above(chain, self._band)[0]
        dx = np.empty((last - first, *self._shape[1:]), self._dtype)
        bottom = Rows(self._shape[0], self._shape[1:], self._dtype, self._arena, dx, first)
        if above is None and self._in_two():
            self._gradient_in_two(losses, bottom)
        else:
            back = spans_above(chain, self._band)
            spans = spans_below(chain, back)
            source = self._source(spans)
            saved, self._saved = self._saved, {}  # they are gone afterwards
            passes = self._passes(chain, source, losses, bottom, (spans, back), above=above, saved=saved)
            follow = bool(passes[0].chain)
            run(passes[1].step, passes[0].step, lambda: follow and self._next(source, spans))
        assert bottom.end == last, (bottom.end, last)
        return dx[self._band[0] - first : self._band[1] - first]

    def pixel_rows(self) -> Span:
        """The rows of pixels that the gradient with respect to the band depends on."""
        if self._in_two():
            spans = self._spans_in_two()
            both = spans.first[0], spans.again[0]
            return min(first for first, _ in both), max(last for _, last in both)
        chain = self._chain(self._top)
        return spans_below(chain, spans_above(chain, self._band))[0]

    def forward_around(self, visitors: Mapping[str, Visitor]) -> None:
        """Show visitors all rows of feature maps that `gradient` will compare with something."""
        chain = self._chain(deepest(visitors), shown=visitors, amount=LARGE)
        rows = self.rows_around()
        wanted = [None, *(rows[name] if (name := link.feature_map) in visitors else None for link in chain)]
        spans = spans_below(chain, wanted)
        source = self._source(spans)
        forward = ForwardPass(chain, source, self._arena, visitors, spans=spans)
        run(forward.step, lambda: self._next(source, spans))

    def rows_around(self) -> dict[str | None, Span]:
        """The rows of feature maps, by name, that are computed on the way to the gradient of the band."""
        if not self._in_two():
            chain = self._chain(self._top)
            rows = spans_below(chain, spans_above(chain, self._band))[1:]
            return {link.feature_map: span for link, span in zip(chain, rows, strict=True)}
        spans = self._spans_in_two()
        lower, upper = self._chain(MIDDLE), self._chain(self._top, MIDDLE)
        return {
            link.feature_map: span
            for chain, rows in ((lower, spans.again), (upper, spans.upper))
            for link, span in zip(chain, rows[1:], strict=True)
        }

    def _in_two(self) -> bool:
        return block_of(self._top) > DELAYED_BLOCKS + 1

    def _spans_in_two(self, shown: Collection[str] = LAYERS) -> SpansInTwo:
        lower, upper = self._chain(MIDDLE, shown=shown), self._chain(self._top, MIDDLE, shown)
        lower_back = spans_above(lower, self._band)
        upper_back = spans_above(upper, lower_back[-1])
        of_upper = spans_below(upper, upper_back)
        first = spans_below(lower, [*[None] * len(lower), of_upper[0]])
        return SpansInTwo(first, of_upper, upper_back, spans_below(lower, lower_back), lower_back)

    def _gradient_in_two(self, losses: Sequence[LayerGradient], bottom: Rows) -> None:
        """`gradient`, where a second computation of the lower blocks follows that of all blocks."""
        shown = [one.name for one in losses]
        spans = self._spans_in_two(shown)
        shallow = [one for one in losses if LAYERS.index(one.name) < LAYERS.index(MIDDLE)]
        deep = [one for one in losses if one not in shallow]
        source, again = self._source(spans.first), self._source(spans.again)
        chain, above = self._chain(MIDDLE, shown=shown), self._chain(self._top, MIDDLE, shown)
        saves = computed_again([link.feature_map for link in chain], [one.name for one in shallow])
        lower = ForwardPass(chain, source, self._arena, {}, None, saves, continued=True, spans=spans.first)
        out, (first, end) = lower.output, spans.upper_back[0]
        between = Rows(out.height, out.shape, self._dtype, self._arena, first=first)
        both = spans.upper, spans.upper_back
        upper, upper_back = self._passes(above, out, deep, between, both, below=MIDDLE)
        both = spans.again, spans.lower_back
        passes = self._passes(chain, again, shallow, bottom, both, gradient=between, saved=lower.caches)
        following, back = passes

        def follow() -> bool:
            """Let pixels in again, where there is the gradient of what they become."""
            rows = following.output.end
            for link in chain[len(following.chain) :]:
                rows = link.layer.outputs(rows)
            there = rows < between.end or between.end == end
            return bool(following.chain) and there and self._next(again, spans.again)

        steps = (back.step, following.step, follow, upper_back.step, upper.step, lower.step)
        run(*steps, lambda: self._next(source, spans.first))

    def _passes(
        self,
        chain: Sequence[Link],
        source: Rows,
        losses: Sequence[LayerGradient],
        bottom: Rows,
        spans: tuple[Sequence[Span], Sequence[Span]],
        below: str | None = None,
        above: Array | None = None,
        gradient: Rows | None = None,
        saved: Mapping[int, Pieces] | None = None,
    ) -> tuple[ForwardPass, BackwardPass]:
        """Both passes over a chain; the gradient at its top is an array, or comes in rows, or is a loss's.

        The forward pass is without the uppermost layers, if their caches were saved.
        """
        names = [below, *(link.feature_map for link in chain)]
        by_name = dict(zip(names, spans[1], strict=True))
        visitors: dict[str, Visitor] = {}
        waiting: dict[str | None, Waiting] = {}
        top_block = block_of(chain[-1].feature_map or self._top)
        for one in losses:
            span = by_name[one.name]
            if one.name == CHEAP:
                waiting[CHEAP] = Recomputed(one, self._chain(CHEAP), self._pixels, span, self._arena)
                continue
            # Those of the topmost block do not wait for long.
            gradients = Gradients(one, self._arena, block_of(one.name) < top_block, span[0])
            visitors[one.name], waiting[one.name] = gradients, gradients.waiting
        saved = saved or {}
        lower = chain[: len(chain) - len(saved)]
        forward = ForwardPass(
            lower, source, self._arena, visitors, None, 0, below, spans=spans[0][: len(lower) + 1]
        )
        out = forward.output
        if above is not None:
            gradient = self._all_rows(above)
        elif gradient is None:
            gradient = Rows(out.height, out.shape, out.dtype, self._arena, first=spans[1][-1][0])
        back = BackwardPass(chain, forward, saved, gradient, bottom, waiting, self._arena, spans[1])
        return forward, back

    def _wanted(self, chain: Sequence[Link], names: set[str | None]) -> list[Span | None]:
        """The band's rows of the feature maps of these names and of the topmost one, by input and outputs."""
        wanted: list[Span | None] = [None]
        for link in chain:
            shown = link is chain[-1] or link.feature_map in names
            wanted.append(self._rows_of_band(link) if shown else None)
        return wanted

    def _rows_of_band(self, link: Link) -> Span:
        first, last = self._band
        if link.feature_map is None:
            return 0, link.layer.height
        depth = log2_stride(link.feature_map)
        return first >> depth, link.layer.height if last == self._shape[0] else last >> depth

    def _all_rows(self, y: AnyArray) -> Rows:
        """Those of an array, and where the padding wraps, the same again above and below."""
        return RepeatedRows(y, self._arena) if self._repeated else Rows.of(y, self._arena)

    def _source(self, spans: Sequence[Span]) -> Rows:
        return Rows(self._shape[0], self._shape[1:], self._dtype, self._arena, first=spans[0][0])

    def _next(self, source: Rows, spans: Sequence[Span]) -> bool:
        """Let the next strip of the pixels in, if there is one."""
        count = strip_rows(self._amount, self._shape[1])
        first, last = source.end, min(source.end + count, spans[0][1])
        if first < last:
            source.extend(last - first)[...] = self._pixels[first, last]
        return first < last

    def _chain(
        self,
        top: str,
        below: str | None = None,
        shown: Collection[str] = LAYERS,
        amount: Amount | None = None,
    ) -> list[Link]:
        """The layers from the feature map `below`, or the pixels, to that of `top`.

        Feature maps that are not shown to anybody may be missing, where a pooling is computed with the layer
        before it. The rows of the others that depend on each other are the same.
        """
        steps = with_poolings(self._network.steps(top, self._shape, self._dtype, below), shown)
        shape = self._shape
        if below is not None:
            depth = log2_stride(below)
            shape = (shape[0] >> depth, shape[1] >> depth, channels(below))
        named = [(step.layer, step.feature_map) for step in steps]
        return links(named, shape, self._dtype, amount or self._amount, self._repeated)
