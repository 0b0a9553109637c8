"""Paint the panels of a figure, and put them on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from npstyle import images
from npstyle._typing import AnyArray
from npstyle.errors import UserError
from npstyle.images import Picture
from npstyle.initialize import data_dependent_init
from npstyle.run import Progress, StyleResult, stylize
from npstyle.settings import Settings
from npstyle.study.figures import Panel
from npstyle.study.reconstruction import synthesize
from npstyle.study.sheet import Tile, compose
from npstyle.vgg import Filters
from npstyle.weights import Weights


@dataclass(frozen=True, eq=False)
class FigureResult:
    """A figure, with blank panels where it is not finished.

    Attributes
    ----------
    image : (H, W, 3) uint8 array
    interrupted : bool
        By Ctrl-C, before all panels were finished.
    diverged : list of str
        Caption and message of each panel whose loss or gradient was no longer finite.
    """

    image: Picture
    interrupted: bool
    diverged: list[str]


def draw(
    rows: Sequence[Sequence[Panel]],
    content: AnyArray,
    style: AnyArray | None,
    weights: Mapping[str, Filters],
    *,
    seed: int = 0,
    threads: int | None = None,
    callback: Callable[[int, Panel, Progress], None] | None = None,
    on_panel: Callable[[FigureResult], None] | None = None,
) -> FigureResult:
    """Paint the panels of a figure one after the other, all from the same noise.

    Parameters
    ----------
    rows : sequence of sequences of Panel
        From `plan`.
    content, style : (H, W, 3) arrays
        RGB, 0..255, in the size that they have in the figure. Reconstructions need no style picture.
    weights : mapping of str to filters
        Random ones are initialized to the pictures, once for all panels: see `initialize_once`.
    seed : int
        Of the noise.
    threads : int, optional
        See `npstyle.VGG19`.
    callback : callable, optional
        Called after each iteration with the number of the panel among those that are painted, from 1, the
        panel, and a `npstyle.Progress`.
    on_panel : callable, optional
        Called after each panel with the figure so far, to save it: a figure can take hours.

    Returns
    -------
    FigureResult
        Also on Ctrl-C (KeyboardInterrupt) once there is something to show.

    Raises
    ------
    UserError
        No style picture where the figure needs one, or a picture that is too small for a layer.
    """
    panels = [panel for row in rows for panel in row]
    runs = [(panel, panel.settings) for panel in panels if panel.settings is not None]
    inputs = _Inputs(content, style)
    if any(_needs_style(panel) for panel in panels):
        inputs.require_style()
    layers = {layer for _, settings in runs for layer in settings.layers}
    weights = initialize_once(weights, inputs.pictures, layers, threads)
    painted: list[Picture] = []
    diverged: list[str] = []
    interrupted = False
    for number, (panel, settings) in enumerate(runs, 1):
        options = {"seed": seed, "threads": threads, "callback": _with_panel(callback, number, panel)}
        try:
            result = _paint(panel, settings, inputs, weights, options)
            painted.append(result.image)
            interrupted = result.interrupted
            if result.diverged:
                diverged.append(f"{panel.caption}: {result.message}")
            if on_panel is not None and not interrupted:
                on_panel(FigureResult(_sheet(rows, inputs, painted), interrupted, list(diverged)))
        except KeyboardInterrupt:
            if not painted:
                raise
            interrupted = True
        if interrupted:
            break
    return FigureResult(_sheet(rows, inputs, painted), interrupted, diverged)


def blank_figure(rows: Sequence[Sequence[Panel]], content: AnyArray) -> Picture:
    """The figure with all panels blank: it has the size of the finished one."""
    blank = _blank(content)
    return compose([[Tile(panel.caption, blank) for panel in row] for row in rows])


def initialize_once(
    weights: Mapping[str, Filters],
    pictures: Sequence[ArrayLike],
    layers: Iterable[str],
    threads: int | None = None,
) -> Mapping[str, Filters]:
    """Initialize random filters to some pictures, so that several runs share the same filters.

    A run initializes random filters to its own pictures; the results of two runs would then differ by
    their filters, too.

    Parameters
    ----------
    weights : mapping of str to filters
        Returned unchanged if they are not random.
    pictures, layers, threads
        See `npstyle.initialize.data_dependent_init`.
    """
    if isinstance(weights, Weights) and weights.random:
        return data_dependent_init(weights, pictures, layers, threads=threads)
    return weights


class _Inputs:
    """The content picture and, if there is one, the style picture."""

    def __init__(self, content: AnyArray, style: AnyArray | None) -> None:
        self.content = content
        self.style = style
        self.pictures = [content] if style is None else [content, style]

    def require_style(self) -> AnyArray:
        if self.style is None:
            raise UserError("style", "none", "a style picture for this figure", "give one")
        return self.style

    def picture(self, name: Literal["content", "style"]) -> AnyArray:
        return self.content if name == "content" else self.require_style()


def _needs_style(panel: Panel) -> bool:
    s = panel.settings
    transfers = s is not None and bool(s.effective_content_weights and s.effective_style_weights)
    return panel.picture == "style" or transfers


def _paint(
    panel: Panel,
    settings: Settings,
    inputs: _Inputs,
    weights: Mapping[str, Filters],
    options: dict[str, Any],
) -> StyleResult:
    """Paint one panel; with style layers alone, the content picture gives the style."""
    content = inputs.content
    if not settings.effective_content_weights:
        H, W, _ = content.shape
        return synthesize(content, H, W, settings, weights=weights, **options)
    styles = [inputs.require_style()] if settings.effective_style_weights else []
    init = None if panel.picture is None else inputs.picture(panel.picture)
    size = max(content.shape)
    return stylize(content, styles, settings=settings, weights=weights, size=size, init=init, **options)


def _with_panel(
    callback: Callable[[int, Panel, Progress], None] | None, number: int, panel: Panel
) -> Callable[[Progress], None] | None:
    """The callback of one panel's run."""
    return None if callback is None else lambda progress: callback(number, panel, progress)


def _sheet(rows: Sequence[Sequence[Panel]], inputs: _Inputs, painted: Iterable[Picture]) -> Picture:
    """The figure with the panels that are painted so far, in the order of the rows."""
    remaining, blank = iter(painted), _blank(inputs.content)

    def image(panel: Panel) -> Picture:
        if panel.settings is not None:
            return next(remaining, blank)
        return images.to_uint8(inputs.picture(panel.picture or "content"))

    return compose([[Tile(panel.caption, image(panel)) for panel in row] for row in rows])


def _blank(content: AnyArray) -> Picture:
    return np.full_like(images.to_uint8(content), 255)
