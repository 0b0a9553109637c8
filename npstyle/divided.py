"""Loss and gradient of one picture by several processes: each computes a band of it, in strips.

A band is some sections of rows (`npstyle.partial.SECTION`). It is given the pixels that its gradient depends
on, which are several hundred rows more on both sides, and nothing is exchanged between bands but sums: those
of sections, which `DividedObjective` adds up in the order in which one process does, and what the gradient of
a loss is multiplied by. So the bits are the same, however many processes there are.

`Workers` says where the functions below run: docs/large-pictures.md#on-several-machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from npstyle._typing import AnyArray, Array, Double
from npstyle.architecture import LAYERS, deepest
from npstyle.errors import UserError
from npstyle.objective import CONTENT_SCALES, Objective, feature_shape
from npstyle.partial import (
    SECTION,
    ContentTerm,
    LayerGradient,
    Pack,
    RunningDistance,
    RunningSums,
    Together,
    add_sums,
    empty_sums,
    has_sections,
    layer_values,
    section_rows,
)
from npstyle.plans import ALL_BLOCKS, Strips
from npstyle.rows import Packed, RepeatedRows, Rows, Span
from npstyle.settings import Settings
from npstyle.statistics import OfSums, StyleTerm
from npstyle.vgg import VGG19

Result = TypeVar("Result")


class WorkerLostError(Exception):
    """A worker is gone, and with it what it had computed: it has to be given everything again."""


class Workers(Protocol):
    """Processes that compute functions of a network, which all of them have."""

    count: int

    def send(self, band: int, pixels: Pixels) -> Any:
        """A handle of what several functions of a band are given, so that it is sent once."""

    def submit(self, band: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Begin function(network, *arguments), preferably where this band's were computed before.

        Returned is a handle of the result, which can be an argument of other functions.
        """

    def results(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for results; `WorkerLostError` if they can't be had."""


class Band(NamedTuple):
    """Sections first ... last - 1 of a picture (H, W, 3)."""

    sections: Span
    shape: tuple[int, ...]

    @property
    def rows(self) -> Span:
        """Of pixels."""
        first, last = self.sections
        return first * SECTION, min(last * SECTION, self.shape[0])

    def strips(self, network: VGG19, pixels: Pixels | None, top: str, dtype: np.dtype) -> Strips:
        """Up to a layer; without pixels to see which are needed."""
        first, array = pixels or (0, np.empty((0, *self.shape[1:]), dtype))
        rows = Rows.of(array, network.arena, first, self.shape[0])
        return Strips(network, rows, top, dtype, band=self.rows)


class Pixels(NamedTuple):
    """Rows of a picture, from `first` on."""

    first: int
    rows: AnyArray


class Layers(NamedTuple):
    """The layers of a loss: their names, the guidance masks of their style terms, and the topmost."""

    content: tuple[str, ...]
    style: dict[str, list[Array | None]]
    top: str

    @property
    def names(self) -> list[str]:
        return [*dict.fromkeys([*self.content, *self.style])]


class BandSums(NamedTuple):
    """Of a band, by layer: sums by style term and section, and squared distances by section."""

    style: dict[str, list[list[tuple[Double, Double]]]]
    content: dict[str, list[float]]


def divided_among(shape: tuple[int, ...], count: int) -> list[Band]:
    """So many bands of about the same height, or as many as there are sections."""
    sections = -(-shape[0] // SECTION)
    ends = [round(sections * n / min(count, sections)) for n in range(min(count, sections) + 1)]
    return [Band(span, shape) for span in pairwise(ends)]


# ------------------------------------------------------------------------------------------------
# What is computed of a band
# ------------------------------------------------------------------------------------------------


def content_of_band(
    network: VGG19, band: Band, pixels: Pixels, layers: Layers, dtype: np.dtype
) -> dict[str, Packed]:
    """The content targets that `sums_of_band` and `gradient_of_band` need; they stay where they are."""
    strips = band.strips(network, pixels, layers.top, dtype)
    around = strips.rows_around()
    stored = {name: Pack(*around[name], network.threads) for name in layers.content}
    if stored:
        strips.forward_around(stored)
    return {name: pack.target for name, pack in stored.items()}


def squares_of_band(network: VGG19, band: Band, targets: Mapping[str, Packed]) -> dict[str, list[float]]:
    """Sums of squares of content targets, by section."""
    squares: dict[str, list[float]] = {}
    for name, P in targets.items():
        shape, rows = feature_shape(name, band.shape), section_rows(name)
        squares[name] = []
        for section in range(*band.sections):
            F = np.empty((min(rows, shape[0] - section * rows), *shape[1:]), P.dtype)
            P.copy_to(section * rows, F)
            running = RunningDistance(shape, rows, None, (section, section + 1))
            running.visit(Rows.of(F, network.arena, section * rows, shape[0]))
            squares[name] += running.sums
    return squares


def sums_of_band(
    network: VGG19,
    band: Band,
    pixels: Pixels,
    layers: Layers,
    dtype: np.dtype,
    targets: Mapping[str, Packed],
) -> BandSums:
    """What values and gradients of losses are computed from, once it is there of all bands."""
    style = {
        name: list(_running_sums(network, band, name, masks, dtype)) for name, masks in layers.style.items()
    }
    content = {
        name: RunningDistance(feature_shape(name, band.shape), section_rows(name), P, band.sections)
        for name, P in targets.items()
    }
    visitors = {
        name: Together([*style.get(name, ()), *([content[name]] if name in content else ())])
        for name in layers.names
    }
    band.strips(network, pixels, layers.top, dtype).forward(visitors)
    network.arena.trim()
    by_term = {name: [running.by_section for running in terms] for name, terms in style.items()}
    return BandSums(by_term, {name: running.sums for name, running in content.items()})


def gradient_of_band(
    network: VGG19,
    band: Band,
    pixels: Pixels,
    layers: Layers,
    dtype: np.dtype,
    targets: Mapping[str, Packed],
    scales: Mapping[str, float],
    found: Mapping[str, Sequence[OfSums]],
) -> Array:
    """The gradient with respect to the band's pixels."""
    losses = [
        LayerGradient(
            name,
            found.get(name, ()),
            layers.style.get(name, ()),
            ContentTerm(targets[name], scales[name]) if name in targets else None,
            network.threads,
            network.arena,
        )
        for name in layers.names
    ]
    gradient = band.strips(network, pixels, layers.top, dtype).gradient(losses, None)
    network.arena.trim()
    return np.ascontiguousarray(gradient)


def _running_sums(
    network: VGG19, band: Band, name: str, masks: Sequence[Array | None], dtype: np.dtype
) -> list[RunningSums]:
    shape, rows = feature_shape(name, band.shape), section_rows(name)
    return [RunningSums(shape, T, dtype, network.threads, network.arena, rows, band.sections) for T in masks]


# ------------------------------------------------------------------------------------------------
# All bands together
# ------------------------------------------------------------------------------------------------


class DividedObjective(Objective):
    """An `Objective` that others compute, a band each, with the same bits.

    Parameters
    ----------
    network : VGG19
    content : (H, W, 3) array
    styles : sequence of (h, w, 3) arrays
        Their targets are computed here.
    settings : Settings
    workers : Workers
    blend, content_masks, style_masks
        As for `Objective`.

    Raises
    ------
    UserError
        Also for a picture with fewer positions than channels in a layer, and where workers are lost again and
        again.
    """

    ATTEMPTS = 5

    def __init__(
        self,
        network: VGG19,
        content: ArrayLike,
        styles: Sequence[ArrayLike],
        settings: Settings,
        workers: Workers,
        blend: Sequence[float] | None = None,
        content_masks: Sequence[ArrayLike] = (),
        style_masks: Sequence[ArrayLike] = (),
    ) -> None:
        self._workers = workers
        shape = np.shape(content)
        self._bands = divided_among(shape, workers.count)
        self._targets: dict[np.dtype[Any], list[Any]] = {}
        check_width(shape, settings)
        super().__init__(
            network, content, styles, settings, blend, content_masks, style_masks, plan=ALL_BLOCKS
        )

    def _content_terms(self, dtype: np.dtype[Any]) -> dict[str, ContentTerm]:
        def squares() -> list[dict[str, list[float]]]:
            targets = enumerate(self._content_targets_in(dtype))
            return self._results((n, squares_of_band, self._bands[n], P) for n, P in targets)

        of_bands = self._persistently(squares)
        s, weights = self.settings, self.settings.effective_content_weights
        terms: dict[str, ContentTerm] = {}
        for name, weight in weights.items():
            total = sum(square for squares in of_bands for square in squares[name])
            size = prod(feature_shape(name, self.content.shape))
            scale = s.content_weight * weight * CONTENT_SCALES[s.scaling](total, size)
            terms[name] = ContentTerm(Packed(), scale)
        return terms

    def _of_network(
        self,
        x: Array,
        content: dict[str, ContentTerm],
        style: dict[str, list[StyleTerm]],
        terms: dict[str, float],
    ) -> Array:
        def evaluated() -> tuple[dict[str, float], Array]:
            targets = self._content_targets_in(x.dtype)
            layers = self._layers(content, style)
            pixels = [self._sent(n, x) for n in range(len(self._bands))]
            each = list(zip(range(len(targets)), self._bands, pixels, targets, strict=True))
            sums = self._results((n, sums_of_band, band, p, layers, x.dtype, P) for n, band, p, P in each)
            values, found = self._losses(sums, content, style)
            scales = {name: term.scale for name, term in content.items()}
            parts = self._results(
                (n, gradient_of_band, band, p, layers, x.dtype, P, scales, found) for n, band, p, P in each
            )
            return values, np.concatenate(parts)

        values, gradient = self._persistently(evaluated)
        terms.update(values)
        return gradient

    def _losses(
        self,
        of_bands: Sequence[BandSums],
        content: Mapping[str, ContentTerm],
        style: Mapping[str, Sequence[StyleTerm]],
    ) -> tuple[dict[str, float], dict[str, list[OfSums]]]:
        """The values by their names in `terms`, and what the gradients of the style terms are made of."""
        values: dict[str, float] = {}
        found: dict[str, list[OfSums]] = {}
        for name in sorted({*content, *style}, key=LAYERS.index):
            shape, found[name] = feature_shape(name, self.content.shape), []
            for n, term in enumerate(style.get(name, ())):
                sums = empty_sums(shape, term.mask)
                for gram, total in (part for band in of_bands for part in band.style[name][n]):
                    add_sums(sums, gram, total)
                found[name].append(term.of_sums(sums, None))
            squares = [square for band in of_bands for square in band.content.get(name, ())]
            values |= layer_values(name, found[name], content.get(name), sum(squares))
        return values, found

    def _content_targets_in(self, dtype: np.dtype[Any]) -> list[Any]:
        """Handles of the targets, which stay with the workers."""
        if dtype not in self._targets:
            layers = self._layers(self.settings.effective_content_weights, {})
            self._targets[dtype] = [
                self._workers.submit(n, content_of_band, band, self._sent(n, self.content), layers, dtype)
                for n, band in enumerate(self._bands)
            ]
        return self._targets[dtype]

    def _layers(self, content: Iterable[str], style: Mapping[str, Sequence[StyleTerm]]) -> Layers:
        masks = {name: [term.mask for term in terms] for name, terms in style.items()}
        return Layers(tuple(content), masks, self._top)

    def _sent(self, n: int, picture: AnyArray) -> Any:
        """A handle of the pixels that the gradient of the n-th band depends on."""
        span = self._bands[n].strips(self.network, None, self._top, picture.dtype).pixel_rows()
        rows = RepeatedRows(picture, self.network.arena)[span]  # beyond the border where the padding wraps
        return self._workers.send(n, Pixels(span[0], np.ascontiguousarray(rows)))

    @property
    def _top(self) -> str:
        return deepest(self.settings.layers)

    def _results(self, tasks: Iterable[tuple[Any, ...]]) -> list[Any]:
        return self._workers.results([self._workers.submit(*task) for task in tasks])

    def _persistently(self, compute: Callable[[], Result]) -> Result:
        """Once more from the content targets on where a worker was lost."""
        for _ in range(self.ATTEMPTS):
            try:
                return compute()
            except WorkerLostError as error:
                self._targets.clear()
                lost = str(error)
        expected = "some that live longer than an evaluation takes"
        raise UserError("workers", f"{self.ATTEMPTS} losses ({lost})", expected, "look at the workers' logs")


def check_width(shape: tuple[int, ...], settings: Settings) -> None:
    """A UserError where the Wasserstein distance needs all positions in one place, as there are so few."""
    for name in settings.effective_style_weights if settings.statistics == "wasserstein" else ():
        H, W, C = feature_shape(name, shape)
        if has_sections(shape[0]) and H * W <= C:
            found = f"{shape[1]} pixels of width"
            raise UserError(
                "workers", found, f"more than {C} positions in {name}", "paint it without workers"
            )
