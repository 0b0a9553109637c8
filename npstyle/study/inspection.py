"""What a picture looks like to the network and to the loss: pictures by name, and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from npstyle._typing import AnyArray, Double
from npstyle.architecture import LAYERS, canonical, deepest
from npstyle.images import Picture
from npstyle.presets import preset
from npstyle.settings import Settings
from npstyle.study.feature_maps import feature_map_tiles, white_level
from npstyle.study.heatmap import DECADES, gram_map, mean_gram, style_distance
from npstyle.study.loss_terms import Term, gradient_picture, terms
from npstyle.study.receptive import field_tile, receptive_field
from npstyle.study.sheet import Tile, compose, in_rows
from npstyle.vgg import VGG19, Filters

# The default recipe has no total variation; a picture of its gradient needs some weight (docs/recipe.md).
TV_WEIGHT = 1e-3


class Inspection(NamedTuple):
    """Pictures by name, and two tables as lines of text: of the layers, and of the terms of the loss."""

    pictures: dict[str, Picture]
    table: list[str]


def picture_names(layers: Sequence[str]) -> list[str]:
    """Names of the pictures that `inspect` makes for some layers, in their order."""
    by_layer = [f"{kind}-{layer}" for layer in layers for kind in ("feature-maps", "gram")]
    return ["receptive-fields", *by_layer, "gradients"]


def inspect(
    picture: AnyArray,
    style: AnyArray | None,
    layers: Sequence[str],
    weights: Mapping[str, Filters],
    *,
    content_layer: str | None = None,
    at: AnyArray | None = None,
    channels: int = 36,
    keep_edges: float = 0.0,
    threads: int | None = None,
) -> Inspection:
    """Show what the network and the loss compute for a picture, next to a style picture if there is one.

    Parameters
    ----------
    picture, style : (H, W, 3) uint8 arrays
    layers : sequence of str
        Whose feature maps and Gram matrices are shown; they are also the style layers of the loss.
    weights : mapping of str to filters
        Used as they are: random ones should go through `initialize_once` first.
    content_layer : str, optional
        Of the content loss; the deepest of `layers` by default.
    at : (H, W, 3) array, optional
        Where the gradients are taken, of the picture's size; at the picture itself by default.
    channels : int
        How many of each layer's channels are shown, the strongest first.
    keep_edges : float
        Weight of the edges' term in the loss, whose gradient is shown if it has one.
    threads : int, optional
        See `npstyle.VGG19`.

    Returns
    -------
    Inspection

    Raises
    ------
    UserError
        Unknown layer, no filters for it, or a picture that is too small for it.

    Examples
    --------
    >>> import npstyle
    >>> picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    >>> inspection = inspect(picture, None, ["conv1_1"], npstyle.load_weights("random", deepest="conv1_1"))
    >>> list(inspection.pictures)
    ['receptive-fields', 'feature-maps-conv1_1', 'gram-conv1_1', 'gradients']
    """
    layers = sorted({canonical(layer) for layer in layers}, key=LAYERS.index)
    settings = Settings(
        content_layers=(content_layer or deepest(layers),),
        style_layers=tuple(layers),
        style_weight=preset("gram").style_weight,
        statistics="gram",
        tv_weight=TV_WEIGHT,
        keep_edges=keep_edges,
    )
    network = VGG19.for_settings(weights, settings, threads=threads)
    feature_maps = network.forward(picture, layers)
    grams = {layer: mean_gram(F, threads) for layer, F in feature_maps.items()}
    style_grams = {} if style is None else _mean_grams(network, style, layers)
    by_term = terms(network, picture, style, settings, picture if at is None else at)
    pictures = {"receptive-fields": compose(in_rows([field_tile(picture, layer) for layer in layers], 4))}
    for layer, F in feature_maps.items():
        pictures[f"feature-maps-{layer}"] = _feature_map_sheet(layer, F, channels)
        pictures[f"gram-{layer}"] = _gram_sheet(layer, grams[layer], style_grams.get(layer))
    pictures["gradients"] = _gradient_sheet(by_term)
    table = [*_layer_table(feature_maps, grams, style_grams), "", *_term_table(settings, by_term)]
    return Inspection(pictures, table)


def _mean_grams(network: VGG19, picture: AnyArray, layers: Sequence[str]) -> dict[str, Double]:
    return {layer: mean_gram(F, network.threads) for layer, F in network.walk(picture, layers)}


def _feature_map_sheet(layer: str, F: AnyArray, channels: int) -> Picture:
    tiles = feature_map_tiles(F, channels)
    h, w, _ = tiles[0].image.shape
    columns = max(1, math.ceil(math.sqrt(len(tiles) * h / w)))  # about as wide as high
    heading = f"{layer}: strongest channels, fraction of the layer's energy; white {white_level(F):.3g}"
    return compose(in_rows(tiles, columns), heading)


def _gram_sheet(layer: str, G: Double, A: Double | None) -> Picture:
    """The Gram matrices of the picture and of the style picture, on one scale to be comparable."""
    max_value = max(float(matrix.max()) for matrix in (G, A) if matrix is not None)
    scale = f"brightest {max_value:.3g}, black below 1/{10**DECADES} of it"
    tiles = [Tile(f"picture; {scale}", gram_map(G, max_value))]
    if A is not None:
        caption = f"style; distance {style_distance(G, A):.3g} of its own size"
        tiles.append(Tile(caption, gram_map(A, max_value)))
    return compose([tiles], f"{layer}: G / M")


def _gradient_sheet(by_term: Mapping[str, Term]) -> Picture:
    tiles = [
        Tile(f"{name}: loss {term.loss:.3g}", gradient_picture(term.gradient))
        for name, term in by_term.items()
    ]
    return compose(in_rows(tiles, 4), "minus the gradient, each on its own scale; gray is 0")


def _layer_table(
    feature_maps: Mapping[str, AnyArray], grams: Mapping[str, Double], style_grams: Mapping[str, Double]
) -> list[str]:
    """For each layer: shape, receptive field, stride, channels that are 0, mean, distance to the style."""
    lines = [
        f"{'layer':9}{'H x W x C':>16}{'field':>7}{'stride':>7}{'silent':>8}{'mean':>10}{'to style':>10}"
    ]
    for layer, F in feature_maps.items():
        field, (H, W, C) = receptive_field(layer), F.shape
        silent = int(np.count_nonzero(~F.any(axis=(0, 1))))
        mean = float(F.mean(dtype=np.float64))
        line = f"{layer:9}{f'{H} x {W} x {C}':>16}{field.size:7}{field.stride:7}{silent:8}{mean:10.3g}"
        has_style = layer in style_grams
        distance = f"{style_distance(grams[layer], style_grams[layer]):.3g}" if has_style else "-"
        lines.append(f"{line}{distance:>10}")
    return lines


def _term_table(settings: Settings, by_term: Mapping[str, Term]) -> list[str]:
    """For each term of the loss: its value, and how large its gradient is."""
    s = settings
    weights = f"content {s.content_weight:g}, style {s.style_weight:g}, total variation {s.tv_weight:g}"
    weights += f", edges {s.keep_edges:g}" if s.keep_edges else ""
    lines = [f"weights: {weights}"]
    lines.append(f"{'term of the loss':20}{'loss':>10}{'mean |gradient|':>18}{'maximum':>10}")
    for name, (loss, gradient) in by_term.items():
        size = np.abs(gradient)
        mean = float(size.mean(dtype=np.float64))
        lines.append(f"{name:20}{loss:10.3g}{mean:18.3g}{float(size.max()):10.3g}")
    return lines
