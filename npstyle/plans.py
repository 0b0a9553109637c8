"""Evaluation plans: which blocks of the network are computed in strips and forgotten, to save memory.

Memory is in the shallow layers, multiplications are in the deep ones. With the plan k, blocks 1 ... k are
computed strip by strip, and only pool_k is kept whole; above, all is as without a plan, down to the gradient
with respect to pool_k. Then the strips are computed once more, each with its backward pass. With the plan
`ALL_BLOCKS` there is no part that is kept whole.

Results have the same bits whatever the plan: see `npstyle.strips` and docs/large-pictures.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._typing import AnyArray, Array
from npstyle.architecture import LAYERS, block_of, check_size, deepest
from npstyle.errors import UserError
from npstyle.partial import Gradients, PartialLosses
from npstyle.row_layers import Link, links
from npstyle.rows import Rows, Visitor
from npstyle.strips import BackwardPass, ForwardPass, Waiting, rows_by_themselves, run
from npstyle.vgg import VGG19

ALL_BLOCKS = 5
PLANS = (0, 1, 2, 3, ALL_BLOCKS)
# With all blocks in strips, gradients of blocks 1 and 2 would wait for those of block 5, 750 rows of pixels
# behind. So these two are computed a third time, when the gradient with respect to pool2 is there.
DELAYED_BLOCKS = 2
STRIP = 24  # rows of pixels that are given to the network at a time
# Winograd's tiles that are computed at a time, at least. The filters' transforms take as long as 10 of them;
# but gradients wait until so many are there.
TILES, TILES_WITHOUT_GRADIENT = 20, 100
CHEAP = "conv1_1"  # a two-hundredth of the multiplications: rather than let gradients wait, compute it again


def check_plan(plan: int, padding: str) -> int:
    """Return the plan; a UserError where there is none such, or not with the same bits."""
    if isinstance(plan, bool) or plan not in PLANS:
        raise UserError("plan", repr(plan), f"one of {', '.join(map(str, PLANS))}", "choose one of these")
    if plan and padding == "wrap":
        cure = "leave the plan out, or choose another padding"
        raise UserError("plan", f"{plan} with the padding 'wrap'", "0: the whole picture at once", cure)
    if plan and _kernels.IMPLEMENTATION == "reference":  # NumPy's products have other bits in strips
        expected = "0 with the reference implementations of the kernels"
        raise UserError("plan", repr(plan), expected, "unset NPSTYLE_KERNELS")
    return plan


def possible_plans(padding: str, layers: Iterable[str]) -> tuple[int, ...]:
    """The plans of a loss of these layers, from the fastest on; `check_plan` refuses the others."""
    if padding == "wrap" or _kernels.IMPLEMENTATION == "reference" or not (names := list(layers)):
        return (0,)
    blocks = block_of(deepest(names))
    return tuple(plan for plan in PLANS if plan < blocks or plan == ALL_BLOCKS)


def divided(plan: int, layers: Iterable[str]) -> tuple[list[str], list[str]]:
    """The layers of losses that are computed in strips, and those above, from the pixels up."""
    names = sorted(layers, key=LAYERS.index)
    above = [name for name in names if LAYERS.index(name) > LAYERS.index(f"pool{plan}")] if plan else names
    if plan and above and f"pool{plan}" in names:
        above.insert(0, f"pool{plan}")  # its loss is added to what comes from above
    return [name for name in names if name not in above], above


class Recomputed:
    """Gradients of `PartialLosses` whose feature map is computed again when the backward pass is there."""

    def __init__(self, losses: PartialLosses, chain: Sequence[Link], pixels: AnyArray, arena: Arena) -> None:
        self.end = chain[-1].layer.height
        self._losses, self._chain, self._pixels, self._arena = losses, chain, pixels, arena
        self._taken = 0

    def take(self, out: AnyArray) -> None:
        span = self._taken, self._taken + len(out)
        F = rows_by_themselves(self._chain, self._pixels, out.dtype, span, self._arena)
        self._losses.gradient(F, span[0], out)
        self._arena.release(F)
        self._taken = span[1]


class Strips:
    """Feature maps and gradients of one picture in strips.

    Parameters
    ----------
    network : VGG19
    pixels : (H, W, 3) array
    top : str
        The topmost layer.
    dtype : dtype
        float32 or float64, which pixels are converted to strip by strip.
    """

    def __init__(self, network: VGG19, pixels: AnyArray, top: str, dtype: np.dtype[Any]) -> None:
        check_size(pixels.shape, [top], "picture")
        self._network, self._pixels, self._top, self._dtype = network, pixels, top, dtype
        self._arena = network.arena

    def forward(self, visitors: Mapping[str, Visitor], whole: bool = False) -> Array | None:
        """Show all rows to the visitors of layers; returned is the topmost feature map, if it is wanted."""
        source, chain = self._source(), self._chain(self._top, tiles=TILES_WITHOUT_GRADIENT)
        output: Array | None = None
        if whole:
            output = self._arena.borrow((chain[-1].layer.height, *chain[-1].row), self._dtype)
        forward = ForwardPass(chain, source, self._arena, visitors, output)
        run(forward.step, lambda: self._next(source))
        return output

    def gradient(self, losses: Sequence[PartialLosses], above: Array | None) -> Array:
        """The gradient with respect to the pixels.

        Parameters
        ----------
        losses : sequence of PartialLosses
            Whose values are known.
        above : array, optional
            The gradient with respect to the topmost feature map of what is above it. Otherwise there is
            nothing above, and the topmost layer has a loss.
        """
        dx = np.empty(self._pixels.shape, self._dtype)
        bottom = Rows(len(dx), dx.shape[1:], dx.dtype, self._arena, dx)
        if above is None and block_of(self._top) > DELAYED_BLOCKS + 1:
            self._gradient_in_two(losses, bottom)
            return dx
        source = self._source()
        forward, backward = self._passes(self._chain(self._top), source, losses, bottom, above=above)
        run(backward.step, forward.step, lambda: self._next(source))
        return dx

    def _gradient_in_two(self, losses: Sequence[PartialLosses], bottom: Rows) -> None:
        """`gradient`, where a second computation of the lower blocks follows that of all blocks."""
        middle = f"pool{DELAYED_BLOCKS}"
        shallow = [one for one in losses if LAYERS.index(one.name) < LAYERS.index(middle)]
        deep = [one for one in losses if one not in shallow]
        source, again = self._source(), self._source()
        lower = ForwardPass(self._chain(middle), source, self._arena, {}, continued=True)
        between = Rows(lower.output.height, lower.output.shape, bottom.dtype, self._arena)
        chain = self._chain(self._top, middle, lower.output)
        upper, upper_back = self._passes(chain, lower.output, deep, between, middle)
        following, back = self._passes(lower.chain, again, shallow, bottom, gradient=between)

        def follow() -> bool:
            """Let pixels in again, where there is the gradient of what they become."""
            there = following.output.end < between.end or between.end == between.height
            return there and self._next(again)

        steps = (back.step, following.step, follow, upper_back.step, upper.step, lower.step)
        run(*steps, lambda: self._next(source))

    def _passes(
        self,
        chain: Sequence[Link],
        source: Rows,
        losses: Sequence[PartialLosses],
        bottom: Rows,
        below: str | None = None,
        above: Array | None = None,
        gradient: Rows | None = None,
    ) -> tuple[ForwardPass, BackwardPass]:
        """Both passes over a chain; the gradient at its top is an array, or comes in rows, or is a loss's."""
        visitors: dict[str, Visitor] = {}
        waiting: dict[str | None, Waiting] = {}
        top_block = block_of(chain[-1].feature_map or self._top)
        for one in losses:
            if one.name == CHEAP:
                waiting[CHEAP] = Recomputed(one, self._chain(CHEAP), self._pixels, self._arena)
                continue
            # Those of the topmost block do not wait for long.
            visitors[one.name] = Gradients(one, self._arena, packed=block_of(one.name) < top_block)
            waiting[one.name] = one.waiting
        forward = ForwardPass(chain, source, self._arena, visitors, saves=True, below=below)
        out = forward.output
        if gradient is None:
            gradient = Rows(out.height, out.shape, out.dtype, self._arena, above)
            gradient.end = out.height if above is not None else 0
        return forward, BackwardPass(forward, gradient, bottom, waiting, self._arena)

    def _source(self) -> Rows:
        return Rows(len(self._pixels), self._pixels.shape[1:], self._dtype, self._arena)

    def _next(self, source: Rows) -> bool:
        """Let the next strip of the pixels in, if there is one."""
        first = source.end
        strip = self._pixels[first : first + STRIP]
        if len(strip):
            source.extend(len(strip))[...] = strip
        return len(strip) > 0

    def _chain(
        self, top: str, below: str | None = None, source: Rows | None = None, tiles: int | None = None
    ) -> list[Link]:
        dtype = self._dtype
        steps = self._network.steps(top, self._pixels.shape, dtype, below)
        shape = self._pixels.shape if source is None else (source.height, *source.shape)
        named = [(step.layer, step.feature_map) for step in steps]
        return links(named, shape, dtype, tiles or TILES)
