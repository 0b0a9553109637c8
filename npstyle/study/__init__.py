"""For those who study: pictures rebuilt from one part of the loss, the paper's figures, what layers see.

Everything here looks at the network and the loss from outside; nothing that paints depends on it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from npstyle import images
from npstyle.architecture import CONVOLUTIONS, LAYERS, canonical, convolutions_up_to, deepest
from npstyle.errors import UserError, check_choice, check_integer
from npstyle.images import Picture
from npstyle.initialize import data_dependent_init
from npstyle.losses import gram_matrix, sum_of_squares, total_variation
from npstyle.objective import Objective
from npstyle.run import Progress, StyleResult, stylize
from npstyle.run.inputs import Source, as_array
from npstyle.settings import PAPER_STYLE_LAYERS, Settings
from npstyle.vgg import VGG19, Filters
from npstyle.weights import Weights

Array = NDArray[Any]
Double = NDArray[np.float64]
Loaded = Mapping[str, Filters]
Named = Loaded | str | os.PathLike[str]

# ------------------------------------------------------------------------------------------------
# Pictures rebuilt from one part of the loss, from noise
# ------------------------------------------------------------------------------------------------


def reconstruction(layer: str, iterations: int = 200, tv_weight: float = 0.0) -> Settings:
    """Settings of equation 1 alone: content without style, from white noise, at one size.

    Examples
    --------
    >>> settings = reconstruction("relu4_2")
    >>> settings.content_layers, settings.style_layers, settings.init
    (('conv4_2',), (), 'noise')
    """
    return Settings(
        content_layers=(canonical(layer),),
        style_layers=(),
        tv_weight=tv_weight,
        init="noise",
        min_size=0,
        iterations=iterations,
    )


def synthesis(layers: str | Iterable[str], iterations: int = 200, tv_weight: float = 0.0) -> Settings:
    """Settings of equation 5 alone: style without content, from white noise, at one size.

    Examples
    --------
    >>> synthesis("conv1_1,conv2_1").effective_style_weights
    {'conv1_1': 0.5, 'conv2_1': 0.5}
    """
    return Settings(
        content_layers=(),
        style_layers=tuple(layers.split(",") if isinstance(layers, str) else layers),
        style_weight=1.0,
        tv_weight=tv_weight,
        init="noise",
        min_size=0,
        iterations=iterations,
    )


def reconstruct(
    picture: Source,
    layer: str,
    *,
    weights: Named = "auto",
    size: int = 256,
    iterations: int = 200,
    seed: int = 0,
    init: Source | None = None,
    tv_weight: float = 0.0,
    threads: int | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> StyleResult:
    """A picture that has the given one's responses in one layer, found from noise.

    What it has in common with the given picture, the layer keeps; what differs, the layer has lost.

    Parameters
    ----------
    picture : path, Pillow image or (H, W, 3) array
    layer : str
    tv_weight : float
        Smoothness counts nothing unless asked for: noise that a layer does not see is left as it is.
    weights, size, iterations, seed, init, threads, callback
        See `npstyle.stylize`.

    Returns
    -------
    StyleResult
        Its loss is the squared distance of the responses as a share of the given picture's own.

    Examples
    --------
    >>> picture = np.random.default_rng(1).uniform(0, 255, (16, 20, 3))
    >>> result = reconstruct(picture, "conv1_1", weights="random", iterations=20)
    >>> 0 < result.loss < result.losses[0] / 20
    True
    """
    settings = reconstruction(layer, iterations, tv_weight)
    options: dict[str, Any] = {"weights": weights, "size": size, "seed": seed, "init": init}
    return stylize(picture, [], settings=settings, threads=threads, callback=callback, **options)


def texture(
    picture: Source,
    layers: str | Iterable[str] = PAPER_STYLE_LAYERS,
    *,
    width: int | None = None,
    height: int | None = None,
    weights: Named = "auto",
    size: int = 256,
    iterations: int = 200,
    seed: int = 0,
    init: Source | None = None,
    tv_weight: float = 0.0,
    threads: int | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> StyleResult:
    """A picture that has the given one's Gram matrices in some layers, found from noise.

    Parameters
    ----------
    picture : path, Pillow image or (H, W, 3) array
        Reduced so that its longer side is `size`.
    layers : str or iterable of str
    width, height : int, optional
        Of the result, in pixels; the reduced picture's, if left out. Means over positions are compared, so
        any size will do.
    weights, iterations, seed, init, tv_weight, threads, callback
        See `reconstruct`.

    Examples
    --------
    >>> picture = np.random.default_rng(0).uniform(0, 255, (16, 20, 3))
    >>> texture(picture, "conv1_1", weights="random", iterations=5, width=30).image.shape
    (16, 30, 3)
    """
    settings = synthesis(layers, iterations, tv_weight)
    size = check_integer("size", size, 1)
    array = images.fit(as_array(picture, "style"), size)
    H, W, _ = array.shape
    W = W if width is None else check_integer("width", width, 1)
    H = H if height is None else check_integer("height", height, 1)
    # Of the content picture only its size matters; the style picture keeps its own.
    canvas = np.zeros((H, W, 3), np.uint8)
    side = max(H, W)
    options: dict[str, Any] = {"weights": weights, "size": side, "seed": seed, "init": init}
    options["style_scale"] = max(array.shape) / side
    return stylize(canvas, array, settings=settings, threads=threads, callback=callback, **options)


def ready(weights: Loaded, pictures: Sequence[ArrayLike], layers: Iterable[str]) -> Loaded:
    """The filters as they are, or, if they were never trained, calibrated to the pictures, once for all."""
    if isinstance(weights, Weights) and weights.random:
        return data_dependent_init(weights, pictures, layers)
    return weights


# ------------------------------------------------------------------------------------------------
# The paper's figures
# ------------------------------------------------------------------------------------------------

# Gatys, Ecker, Bethge 2016, figure 1.
CONTENT_LAYERS = ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2")
# alpha / beta, where each layer's distance is a share of what it is measured against.
RATIOS = (0.001, 0.01, 0.1, 1.0)


class Panel(NamedTuple):
    """One picture of a figure: its caption, and how it is made.

    Without settings it is a picture given, `of` says which: "content" or "style". With them, `of` is what
    it starts from where that is no matter of the settings.
    """

    caption: str
    settings: Settings | None = None
    of: str | None = None


class _Layers:
    """Which layers the weights have, and what has to be said about the others."""

    def __init__(self, weights: Loaded) -> None:
        self.weights = weights
        self.notes: list[str] = []

    def held(self, name: str) -> bool:
        return all(needed in self.weights for needed in convolutions_up_to(name))

    def some(self, names: Sequence[str]) -> list[str]:
        """Those of the layers that there are; the others are noted."""
        missing = [name for name in names if not self.held(name)]
        if len(missing) == len(names):
            there = ", ".join(name for name in CONVOLUTIONS if name in self.weights)
            raise UserError(
                "weights", f"none of {', '.join(names)} (there is {there or 'nothing'})", "one", ""
            )
        if missing:
            self.notes.append(f"left out: {', '.join(missing)}, which the weights do not have")
        return [name for name in names if name not in missing]

    def sets(self) -> list[tuple[str, ...]]:
        """The paper's nested sets of style layers."""
        names = self.some(PAPER_STYLE_LAYERS)
        return [tuple(names[:count]) for count in range(1, len(names) + 1)]

    def content(self, wanted: str = "conv4_2") -> str:
        """The paper's content layer, or the highest of figure 1 that there is."""
        if self.held(wanted):
            return wanted
        found = [name for name in CONTENT_LAYERS if self.held(name)]
        if not found:
            self.some([wanted])
        self.notes.append(f"content layer {found[-1]} in place of {wanted}, which the weights do not have")
        return found[-1]


def set_in_words(names: Sequence[str]) -> str:
    """A nested set of layers in a caption.

    Examples
    --------
    >>> set_in_words(("conv1_1", "conv2_1")), set_in_words(("conv1_1", "conv2_1", "conv3_1"))
    ('conv1_1, conv2_1', 'conv1_1 to conv3_1')
    """
    return ", ".join(names) if len(names) < 3 else f"{names[0]} to {names[-1]}"


GIVEN = [Panel("photograph", of="content"), Panel("painting", of="style")]


def _content(there: _Layers) -> list[list[Panel]]:
    made = [Panel(layer, reconstruction(layer)) for layer in there.some(CONTENT_LAYERS)]
    return [[Panel("picture", of="content"), *made]]


def _style(there: _Layers) -> list[list[Panel]]:
    made = [Panel(set_in_words(names), synthesis(names)) for names in there.sets()]
    return [[Panel("picture", of="content"), *made]]


def _layer_sets(there: _Layers) -> list[list[Panel]]:
    content = there.content()
    made = [Panel(set_in_words(names), _transfer(content, names)) for names in there.sets()]
    return [GIVEN, made]


def _ratio(there: _Layers) -> list[list[Panel]]:
    content = there.content()
    rows = [
        [
            Panel(f"{set_in_words(names)}; alpha/beta {ratio:g}", _transfer(content, names, ratio))
            for ratio in RATIOS
        ]
        for names in there.sets()
    ]
    return [GIVEN, *rows]


def _content_layer(there: _Layers) -> list[list[Panel]]:
    names = there.sets()[-1]
    contents = dict.fromkeys([there.content("conv2_2"), there.content("conv4_2")])
    return [[*GIVEN, *(Panel(f"content layer {layer}", _transfer(layer, names)) for layer in contents)]]


def _starts(there: _Layers) -> list[list[Panel]]:
    settings = _transfer(there.content(), there.sets()[-1])
    made = [
        Panel("from the photograph", settings),
        Panel("from the painting", settings, of="style"),
        Panel("from noise", replace(settings, init="noise")),
    ]
    return [[*GIVEN, *made]]


def _transfer(content_layer: str, style_layers: Sequence[str], ratio: float | None = None) -> Settings:
    """The default recipe at one size; `ratio` is alpha / beta, and then the start is noise, as in the paper:
    what a small alpha takes from the photograph is not to be what was there from the start."""
    settings = Settings(content_layers=(content_layer,), style_layers=tuple(style_layers), min_size=0)
    if ratio is None:
        return settings
    return replace(settings, content_weight=ratio, style_weight=1.0, init="noise")


FIGURES: dict[str, Callable[[_Layers], list[list[Panel]]]] = {
    "content": _content,
    "style": _style,
    "layers": _layer_sets,
    "ratio": _ratio,
    "content-layer": _content_layer,
    "starts": _starts,
}


def plan(name: str, weights: Loaded, iterations: int = 200) -> tuple[list[list[Panel]], list[str]]:
    """The panels of a figure, row by row, and what is to be said about layers that the weights do not have.

    Parameters
    ----------
    name : {"content", "style", "layers", "ratio", "content-layer", "starts"}
        Reconstructions by content layer, or by set of style layers; transfers by set of style layers, by
        that and alpha/beta, by content layer, or by start.
    weights : mapping of str to filters
        They may stop anywhere.
    iterations : int
        Of each panel.

    Examples
    --------
    >>> import npstyle
    >>> rows, notes = plan("content", npstyle.load_weights("random", deepest="conv2_2"))
    >>> [panel.caption for panel in rows[0]]
    ['picture', 'conv1_2', 'conv2_2']
    >>> notes
    ['left out: conv3_2, conv4_2, conv5_2, which the weights do not have']
    """
    check_choice("figure", name, FIGURES)
    there = _Layers(weights)
    rows = FIGURES[name](there)
    return [[_with(panel, iterations) for panel in row] for row in rows], list(dict.fromkeys(there.notes))


def _with(panel: Panel, iterations: int) -> Panel:
    if panel.settings is None:
        return panel
    return panel._replace(settings=replace(panel.settings, iterations=iterations))


class Tile(NamedTuple):
    """A picture and what stands below it."""

    caption: str
    image: Picture


class Drawn(NamedTuple):
    """A figure, whether Ctrl-C ended it early, and what went wrong in which panel."""

    image: Picture
    interrupted: bool
    diverged: list[str]


def draw(
    rows: Sequence[Sequence[Panel]],
    content: Array,
    style: Array | None,
    weights: Loaded,
    *,
    seed: int = 0,
    threads: int | None = None,
    callback: Callable[[int, Panel, Progress], None] | None = None,
) -> Drawn:
    """Make the panels of a figure one after the other, all from the same noise.

    Parameters
    ----------
    rows
        From `plan`.
    content, style : (H, W, 3) arrays
        At the size the figure is to have them.
    weights : mapping of str to filters
        From `ready`, if they were never trained.
    callback : callable, optional
        Called after each iteration with the panel's number from 1, the panel and `npstyle.Progress`.

    Returns
    -------
    Drawn
        Also on Ctrl-C, once there is something to show; the panels that are missing are blank.
    """
    given = {"content": content, "style": style}
    made: dict[int, Picture] = {}
    diverged: list[str] = []
    interrupted = False
    panels = [panel for row in rows for panel in row]
    jobs = [number for number, panel in enumerate(panels) if panel.settings is not None]
    for count, number in enumerate(jobs, 1):
        panel = panels[number]
        step = None if callback is None else _numbered(callback, count, panel)
        try:
            result = _paint(panel, given, weights, seed, threads, step)
        except KeyboardInterrupt:
            if not made:
                raise  # there is nothing yet that is worth keeping
            interrupted = True
            break
        made[number] = result.image
        if result.diverged:
            diverged.append(f"{panel.caption}: {result.message}")
        if result.interrupted:
            interrupted = True
            break
    blank = np.full_like(images.to_uint8(content), 255)
    shown = [
        Tile(panel.caption, made.get(number, blank) if panel.settings else images.to_uint8(_of(panel, given)))
        for number, panel in enumerate(panels)
    ]
    rest = iter(shown)
    return Drawn(compose([[next(rest) for _ in row] for row in rows]), interrupted, diverged)


def blank_figure(rows: Sequence[Sequence[Panel]], content: Array) -> Picture:
    """The figure without its pictures: what size it will have."""
    blank = np.full_like(images.to_uint8(content), 255)
    return compose([[Tile(panel.caption, blank) for panel in row] for row in rows])


def _paint(
    panel: Panel,
    given: Mapping[str, Array | None],
    weights: Loaded,
    seed: int,
    threads: int | None,
    callback: Callable[[Progress], None] | None,
) -> StyleResult:
    """One panel of a figure; with style layers alone, of the picture that stands where the content does."""
    settings, content = panel.settings, given["content"]
    assert settings is not None  # the others are given
    assert content is not None
    size = max(content.shape)
    options: dict[str, Any] = {"weights": weights, "seed": seed, "threads": threads, "callback": callback}
    if not settings.effective_content_weights:
        return stylize(np.zeros_like(content), content, settings=settings, size=size, **options)
    styles = [] if not settings.effective_style_weights else [_of(Panel("", of="style"), given)]
    init = None if panel.of is None else _of(panel, given)
    return stylize(content, styles, settings=settings, size=size, init=init, **options)


def _of(panel: Panel, given: Mapping[str, Array | None]) -> Array:
    picture = given[panel.of or "content"]
    if picture is None:
        raise UserError("style", "none", "a style picture for this figure", "give one")
    return picture


def _numbered(
    callback: Callable[[int, Panel, Progress], None], number: int, panel: Panel
) -> Callable[[Progress], None]:
    return lambda progress: callback(number, panel, progress)


# ------------------------------------------------------------------------------------------------
# Grids with captions
# ------------------------------------------------------------------------------------------------

GAP = 8  # pixels between panels
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def compose(rows: Sequence[Sequence[Tile]], heading: str = "") -> Picture:
    """Pictures side by side on white, row by row, each with its caption below.

    Text is drawn with the font that Pillow brings along.

    Examples
    --------
    >>> black = np.zeros((40, 60, 3), np.uint8)
    >>> compose([[Tile("one", black), Tile("two", black)], [Tile("three", black)]]).shape[1]
    144
    """
    width = max(tile.image.shape[1] for row in rows for tile in row)
    font = _font(max(11, min(16, width // 12)))
    line = _line_height(font)
    full = GAP + max(map(len, rows)) * (width + GAP)
    top = _lines(heading, font, full - 2 * GAP)
    captions = [[_lines(tile.caption, font, width) for tile in row] for row in rows]
    heights = [
        max(tile.image.shape[0] for tile in row) + 2 + line * max(map(len, texts))
        for row, texts in zip(rows, captions, strict=True)
    ]
    sheet = Image.new("RGB", (full, GAP + len(top) * line + sum(heights) + GAP * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    y = GAP
    for text in top:
        pen.text((GAP, y), text, "black", font)
        y += line
    for row, texts, height in zip(rows, captions, heights, strict=True):
        for column, (tile, wrapped) in enumerate(zip(row, texts, strict=True)):
            x = GAP + column * (width + GAP)
            sheet.paste(Image.fromarray(tile.image), (x, y))
            for n, text in enumerate(wrapped):
                pen.text((x, y + tile.image.shape[0] + 2 + n * line), text, "black", font)
        y += height + GAP
    return np.array(sheet)


def _font(size: int) -> Font:
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):  # a Pillow that was built without FreeType has one size only
        return ImageFont.load_default()


def _line_height(font: Font) -> int:
    _, top, _, bottom = font.getbbox("Agj|")
    return math.ceil(bottom - min(0, top)) + 2


def _lines(text: str, font: Font, width: float) -> list[str]:
    """The text broken between words so that it fits into the width."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def in_rows(tiles: Sequence[Tile], columns: int) -> list[list[Tile]]:
    """Tiles in rows of so many."""
    return [list(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]


# ------------------------------------------------------------------------------------------------
# What a layer answers
# ------------------------------------------------------------------------------------------------

ALMOST_ALL = 99.5  # per cent of a layer's responses; the few above are as white as that


def strongest(F: Array) -> NDArray[np.intp]:
    """Channels of a response (H, W, C) by their mean square, the largest first.

    Examples
    --------
    >>> strongest(np.array([[[1.0, 3.0, 2.0]]])).tolist()
    [1, 2, 0]
    """
    energy = np.square(F, dtype=np.float64).mean(axis=(0, 1))
    return np.argsort(-energy, kind="stable")


def white_level(F: Array) -> float:
    """The response drawn as white: 99.5 of 100 of the layer's responses other than 0 are below it."""
    firing = F[F > 0]
    return float(np.percentile(firing, ALMOST_ALL)) if firing.size else 1.0


def response_tiles(F: Array, count: int, least: int = 64) -> list[Tile]:
    """The strongest channels of a response (H, W, C) in gray: 0 is black, `white_level` white in all.

    Parameters
    ----------
    F : (H, W, C) array
    count : int
        How many channels.
    least : int
        Pixels; a response with a shorter longer side is enlarged by a whole number, so that it can be seen.
    """
    level = white_level(F)
    H, W, _ = F.shape
    times = max(1, math.ceil(least / max(H, W)))
    energy = np.square(F, dtype=np.float64).mean(axis=(0, 1))
    share = energy / (energy.sum() or 1.0)
    tiles = []
    for channel in strongest(F)[:count]:
        gray = images.to_uint8(255 * (F[:, :, channel] / level))
        gray = gray.repeat(times, axis=0).repeat(times, axis=1)
        tiles.append(Tile(f"{channel}: {share[channel]:.1%}", np.repeat(gray[:, :, None], 3, axis=2)))
    return tiles


# ------------------------------------------------------------------------------------------------
# Gram matrices as heat maps
# ------------------------------------------------------------------------------------------------

# From nothing to the largest: each color is lighter than the one before, so it reads in gray, too.
HEAT = np.array([(0, 0, 0), (58, 15, 110), (190, 45, 75), (245, 145, 40), (255, 250, 215)], np.float64)
DECADES = 4


def heat(values: ArrayLike) -> Picture:
    """Colors (..., 3) of numbers from 0 (black) to 1 (almost white).

    Examples
    --------
    >>> heat([0, 1]).tolist()
    [[0, 0, 0], [255, 250, 215]]
    """
    v = np.clip(np.asarray(values, np.float64), 0, 1) * (len(HEAT) - 1)
    return images.to_uint8(
        np.stack([np.interp(v, np.arange(len(HEAT)), HEAT[:, channel]) for channel in range(3)], axis=-1)
    )


def gram_map(G: Array, largest: float | None = None, decades: float = DECADES, least: int = 256) -> Picture:
    """A Gram matrix (C, C) as a picture, on a logarithmic scale.

    Parameters
    ----------
    G : (C, C) array
        Not below 0, as it is of responses after a ReLU.
    largest : float, optional
        What is drawn as 1; the matrix's own largest number, if left out.
    decades : float
        What is 10 to the power of this smaller, or less, is black.
    least : int
        Pixels; a smaller matrix is enlarged by a whole number.
    """
    largest = largest or float(G.max()) or 1.0
    floor = 10.0**-decades
    shown = 1 + np.log10(np.maximum(np.asarray(G, np.float64) / largest, floor)) / decades
    times = max(1, least // len(G))
    return heat(shown.repeat(times, axis=0).repeat(times, axis=1))


def mean_gram(F: Array, threads: int | None = None) -> Double:
    """G / M: the Gram matrix of a response (H, W, C), divided by its number of positions."""
    G = gram_matrix(F, threads)
    G /= F.shape[0] * F.shape[1]
    return G


def style_distance(G: Double, A: Double) -> float:
    """Squared distance of two Gram matrices (means over positions), as a share of the second's own."""
    return sum_of_squares(G - A) / (sum_of_squares(A) or float(A.size))


# ------------------------------------------------------------------------------------------------
# What each part of the loss asks of the pixels
# ------------------------------------------------------------------------------------------------


class Term(NamedTuple):
    """One part of the loss: its value, and its derivative with respect to the pixels (H, W, 3)."""

    loss: float
    gradient: Array


def terms(
    network: VGG19, content: Array, style: Array | None, settings: Settings, at: Array
) -> dict[str, Term]:
    """Every part of the loss by itself, at a picture of the content picture's size.

    They are named as in `Objective.terms`, and add up to `Objective`'s loss and gradient. Without a style
    picture there are no style terms.

    Examples
    --------
    >>> import npstyle
    >>> settings = Settings(content_layers=("conv1_2",), style_layers=("conv1_1",), tv_weight=1.0)
    >>> network = npstyle.VGG19.for_settings(npstyle.load_weights("random", deepest="conv1_2"), settings)
    >>> photo, painting = np.random.default_rng(0).uniform(0, 255, (2, 16, 24, 3))
    >>> list(terms(network, photo, painting, settings, photo))
    ['content/conv1_2', 'style/conv1_1', 'total_variation']
    """
    alone: dict[str, Any] = {"content_layer_weights": None, "style_layer_weights": None, "tv_weight": 0.0}
    alone |= {"normalize_layer_weights": True, "style_layer_exponent": 1.0}
    none: dict[str, Any] = {"content_layers": (), "style_layers": ()}
    found: dict[str, Term] = {}
    for layer, share in settings.effective_content_weights.items():
        mine = {"content_layers": (layer,), "content_weight": settings.content_weight * share}
        objective = Objective(network, content, [], replace(settings, **{**alone, **none, **mine}))
        found[f"content/{layer}"] = Term(*_copied(objective(at)))
    styles = [] if style is None else [style]
    for layer, share in settings.effective_style_weights.items() if styles else ():
        mine = {"style_layers": (layer,), "style_weight": settings.style_weight * share}
        objective = Objective(network, content, styles, replace(settings, **{**alone, **none, **mine}))
        found[f"style/{layer}"] = Term(*_copied(objective(at)))
    if settings.tv_weight:
        x = np.asarray(at)
        x = x if x.dtype == np.float64 else x.astype(np.float32)
        found["total_variation"] = Term(*total_variation(x, settings.tv_weight, settings.tv_form))
    return found


def _copied(found: tuple[float, Array]) -> tuple[float, Array]:
    """Its memory may be used again by the network."""
    return found[0], found[1].copy()


def gradient_picture(gradient: Array) -> Picture:
    """Minus the gradient (H, W, 3) as a picture: what the loss asks for.

    Gray is no change, lighter red more red, darker less; the scale is that of the gradient's own largest
    numbers (the 99.5th percentile of what is not 0).
    """
    size = np.abs(gradient)
    level = white_level(size)
    return images.to_uint8(127.5 - 127.5 * np.clip(gradient / level, -1, 1))


# ------------------------------------------------------------------------------------------------
# What a response sees of the picture
# ------------------------------------------------------------------------------------------------


class ReceptiveField(NamedTuple):
    """The pixels that a layer's responses depend on: the same along rows and columns.

    Response number i depends on the pixels from first + i stride up to size more, as far as there are any.
    """

    size: int
    stride: int
    first: int

    def span(self, index: int, length: int) -> tuple[int, int]:
        """The first pixel and the one after the last, for a picture with so many.

        Examples
        --------
        >>> receptive_field("conv2_1").span(0, 100)
        (0, 6)
        """
        start = self.first + index * self.stride
        return max(0, start), min(length, start + self.size)


def receptive_field(layer: str) -> ReceptiveField:
    """Size, stride and place of a layer's receptive fields, from the architecture alone.

    A 3 x 3 convolution sees one more of the responses below on each side, a 2 x 2 pooling one more at the
    end, after which there are half as many.

    Examples
    --------
    >>> receptive_field("conv1_1"), receptive_field("pool1").stride, receptive_field("conv5_1").size
    (ReceptiveField(size=3, stride=1, first=-1), 2, 156)
    """
    size, stride, first = 1, 1, 0
    for name in LAYERS[: LAYERS.index(canonical(layer)) + 1]:
        if name in CONVOLUTIONS:
            size, first = size + 2 * stride, first - stride
        else:
            size, stride = size + stride, 2 * stride
    return ReceptiveField(size, stride, first)


def field_tile(picture: Picture, layer: str) -> Tile:
    """The picture (H, W, 3) with what the middlemost response of a layer sees of it; the rest is pale."""
    field = receptive_field(layer)
    H, W, _ = picture.shape
    spans = [field.span(length // field.stride // 2, length) for length in (H, W)]
    (top, bottom), (left, right) = spans
    shown = np.asarray((picture.astype(np.uint16) + 2 * 255) // 3, np.uint8)
    shown[top:bottom, left:right] = picture[top:bottom, left:right]
    # The line runs around it, as fields of 3 pixels have no room for one.
    sheet = Image.fromarray(shown)
    ImageDraw.Draw(sheet).rectangle((left - 1, top - 1, right, bottom), outline=(220, 0, 0))
    return Tile(f"{layer}: {field.size} x {field.size}, every {field.stride}", np.array(sheet))


# ------------------------------------------------------------------------------------------------
# All of that about one picture
# ------------------------------------------------------------------------------------------------


# Those of the default recipe, and smoothness, which has none there, as in docs/recipe.md.
INSPECTED: dict[str, Any] = {"content_weight": 1.0, "style_weight": 50.0, "tv_weight": 1e-3}


class Inspection(NamedTuple):
    """What there is to see: pictures by name, and a table, line by line."""

    pictures: dict[str, Picture]
    table: list[str]


def names_of_pictures(layers: Sequence[str]) -> list[str]:
    """What `inspect` will call its pictures."""
    by_layer = [f"{kind}-{layer}" for layer in layers for kind in ("responses", "gram")]
    return ["receptive-fields", *by_layer, "gradients"]


def inspect(
    picture: Array,
    style: Array | None,
    layers: Sequence[str],
    weights: Loaded,
    *,
    content_layer: str | None = None,
    at: Array | None = None,
    channels: int = 36,
    threads: int | None = None,
) -> Inspection:
    """Look at a picture, and at a style picture beside it, as the network and the loss do.

    Parameters
    ----------
    picture, style : (H, W, 3) uint8 arrays
    layers : names
        Whose responses and Gram matrices are shown; the style loss has them, too.
    weights : mapping of str to filters
        From `ready`, if they were never trained.
    content_layer : str, optional
        Of the content loss; the deepest of `layers`, if left out.
    at : (H, W, 3) array, optional
        Where the loss's gradients are taken, of the picture's size; at the picture itself, if left out.
    channels : int
        How many of each layer's channels are shown, the strongest first.

    Examples
    --------
    >>> import npstyle
    >>> picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    >>> seen = inspect(picture, None, ["conv1_1"], npstyle.load_weights("random", deepest="conv1_1"))
    >>> list(seen.pictures)
    ['receptive-fields', 'responses-conv1_1', 'gram-conv1_1', 'gradients']
    """
    layers = sorted({canonical(layer) for layer in layers}, key=LAYERS.index)
    settings = Settings(
        content_layers=(content_layer or deepest(layers),), style_layers=tuple(layers), **INSPECTED
    )
    network = VGG19.for_settings(weights, settings, threads=threads)
    responses = network.forward(picture, layers)
    grams = {layer: mean_gram(F, threads) for layer, F in responses.items()}
    likes = {} if style is None else _mean_grams(network, style, layers)
    shown = {"receptive-fields": compose(in_rows([field_tile(picture, layer) for layer in layers], 4))}
    for layer, F in responses.items():
        tiles = response_tiles(F, channels)
        columns = max(1, math.ceil(math.sqrt(len(tiles) * tiles[0].image.shape[0] / tiles[0].image.shape[1])))
        heading = f"{layer}: strongest channels, share of the layer's energy; white {white_level(F):.3g}"
        shown[f"responses-{layer}"] = compose(in_rows(tiles, columns), heading)
        shown[f"gram-{layer}"] = compose([_gram_tiles(grams[layer], likes.get(layer))], f"{layer}: G / M")
    found = terms(network, picture, style, settings, picture if at is None else at)
    tiles = [
        Tile(f"{name}: loss {term.loss:.3g}", gradient_picture(term.gradient)) for name, term in found.items()
    ]
    shown["gradients"] = compose(in_rows(tiles, 4), "minus the gradient, each on its own scale; gray is 0")
    return Inspection(shown, [*_layer_table(responses, grams, likes), "", *_term_table(found)])


def _mean_grams(network: VGG19, picture: Array, layers: Sequence[str]) -> dict[str, Double]:
    return {layer: mean_gram(F, network.threads) for layer, F in network.walk(picture, layers)}


def _gram_tiles(G: Double, A: Double | None) -> list[Tile]:
    """On one scale, so that they can be compared."""
    largest = max(float(M.max()) for M in (G, A) if M is not None)
    below = f"brightest {largest:.3g}, black below 1/{10**DECADES} of it"
    tiles = [Tile(f"picture; {below}", gram_map(G, largest))]
    if A is not None:
        text = f"style; distance {style_distance(G, A):.3g} of its own size"
        tiles.append(Tile(text, gram_map(A, largest)))
    return tiles


def _layer_table(
    responses: Mapping[str, Array], grams: Mapping[str, Double], likes: Mapping[str, Double]
) -> list[str]:
    """Of each layer: how large, what it sees, how many channels are silent, how far it is from the style."""
    lines = [f"{'layer':9}{'response':>16}{'sees':>7}{'every':>7}{'silent':>8}{'mean':>10}{'to style':>10}"]
    for layer, F in responses.items():
        field, (H, W, C) = receptive_field(layer), F.shape
        silent = int(np.count_nonzero(~F.any(axis=(0, 1))))
        line = f"{layer:9}{f'{H} x {W} x {C}':>16}{field.size:7}{field.stride:7}{silent:8}"
        line += f"{float(F.mean(dtype=np.float64)):10.3g}"
        far = f"{style_distance(grams[layer], likes[layer]):.3g}" if layer in likes else "-"
        lines.append(line + f"{far:>10}")
    return lines


def _term_table(found: Mapping[str, Term]) -> list[str]:
    form = "weights: content {content_weight:g}, style {style_weight:g}, smoothness {tv_weight:g}"
    lines = [form.format(**INSPECTED)]
    lines += [f"{'part of the loss':20}{'loss':>10}{'mean |gradient|':>18}{'largest':>10}"]
    for name, (loss, gradient) in found.items():
        size = np.abs(gradient)
        lines.append(
            f"{name:20}{loss:10.3g}{float(size.mean(dtype=np.float64)):18.3g}{float(size.max()):10.3g}"
        )
    return lines
