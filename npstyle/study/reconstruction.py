"""Pictures reconstructed from noise by one half of the loss: content alone, or style alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from npstyle import images
from npstyle.architecture import canonical
from npstyle.errors import UserError, check_integer
from npstyle.run import Progress, StyleResult, stylize
from npstyle.run.inputs import Source, as_array, nearest_multiple
from npstyle.settings import PAPER_STYLE_LAYERS, Settings
from npstyle.vgg import Filters

WeightsSource = Mapping[str, Filters] | str | os.PathLike[str]


def reconstruction_settings(layer: str, iterations: int = 200, tv_weight: float = 0.0) -> Settings:
    """Settings that minimize equation 1 alone: content without style, from white noise, at one size.

    Examples
    --------
    >>> settings = reconstruction_settings("relu4_2")
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


def texture_settings(
    layers: str | Iterable[str], iterations: int = 200, tv_weight: float = 0.0, tile: bool = False
) -> Settings:
    """Settings that minimize equation 5 alone: style without content, from white noise, at one size.

    With `tile` the picture has no border: `Settings.padding` is "wrap".

    Examples
    --------
    >>> texture_settings("conv1_1,conv2_1").effective_style_weights
    {'conv1_1': 0.5, 'conv2_1': 0.5}
    """
    return Settings(
        content_layers=(),
        style_layers=tuple(layers.split(",") if isinstance(layers, str) else layers),
        style_weight=1.0,
        statistics="gram",
        tv_weight=tv_weight,
        padding="wrap" if tile else Settings.padding,
        init="noise",
        min_size=0,
        iterations=iterations,
    )


def tile_size(
    size: tuple[int, int], layers: Iterable[str], width: int | None = None, height: int | None = None
) -> tuple[int, int]:
    """Width and height of a tile: those asked for, or else those of a size, to the nearest multiple of 16.

    Multiples of 32 for pool5: its positions lie that far apart.

    Raises
    ------
    UserError
        What was asked for is no multiple.

    Examples
    --------
    >>> tile_size((250, 171), ["conv4_1"], width=512)
    (512, 176)
    """
    step = max(16, texture_settings(tuple(layers)).stride)
    for name, side in (("width", width), ("height", height)):
        if side is not None and side % step:
            smaller = side // step * step
            cure = f"give {smaller} or {smaller + step}" if smaller else f"give {step}"
            raise UserError(name, f"{side}", f"a multiple of {step}, for a tile", cure)
    return width or nearest_multiple(size[0], step), height or nearest_multiple(size[1], step)


def reconstruct(
    picture: Source,
    layer: str,
    *,
    weights: WeightsSource = "auto",
    size: int = 256,
    iterations: int = 200,
    seed: int = 0,
    init: Source | None = None,
    tv_weight: float = 0.0,
    threads: int | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> StyleResult:
    """Reconstruct a picture from its feature map in one layer, starting from noise.

    The result shows what the layer keeps of the picture: where the two differ, the layer has lost
    information.

        L = sum (F - P)^2 / sum P^2

    for the feature maps F of the result and P of the picture, plus `tv_weight` times the total variation.

    Parameters
    ----------
    picture : path, Pillow image or (H, W, 3) array
        An array is RGB, 0..255.
    layer : str
        Such as "conv4_2".
    tv_weight : float
        Weight of total variation. 0 by default, which leaves noise that the layer does not see as it is.
    weights, size, iterations, seed, init, threads, callback
        See `npstyle.stylize`.

    Returns
    -------
    StyleResult

    Raises
    ------
    UserError
        Unknown layer, no filters for it, or a picture that is too small for it.

    Notes
    -----
    Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, section 2.1
    and figure 1.

    Examples
    --------
    >>> picture = np.random.default_rng(1).uniform(0, 255, (16, 20, 3))
    >>> result = reconstruct(picture, "conv1_1", weights="random", iterations=20)
    >>> 0 < result.loss < result.losses[0] / 20
    True
    """
    return stylize(
        picture,
        [],
        settings=reconstruction_settings(layer, iterations, tv_weight),
        weights=weights,
        size=size,
        seed=seed,
        init=init,
        threads=threads,
        callback=callback,
    )


def texture(
    picture: Source,
    layers: str | Iterable[str] = PAPER_STYLE_LAYERS,
    *,
    width: int | None = None,
    height: int | None = None,
    weights: WeightsSource = "auto",
    size: int = 256,
    iterations: int = 200,
    seed: int = 0,
    init: Source | None = None,
    tv_weight: float = 0.0,
    tile: bool = False,
    threads: int | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> StyleResult:
    """Synthesize a texture that has a picture's Gram matrices in some layers, starting from noise.

    Parameters
    ----------
    picture : path, Pillow image or (H, W, 3) array
        Reduced so that its longer side is `size` pixels. An array is RGB, 0..255.
    layers : str or iterable of str
        Names, or one text such as "conv1_1,conv2_1".
    width, height : int, optional
        Of the result, in pixels; those of the reduced picture by default. The loss compares means over
        positions, so any size works.
    tile : bool
        Without a border: laid out side by side, the result shows no seams. Its width and height must be
        multiples of 16; those of the picture are rounded.
    weights, iterations, seed, init, tv_weight, threads, callback
        See `reconstruct`.

    Returns
    -------
    StyleResult

    Raises
    ------
    UserError
        Unknown layer, no filters for it, or a picture that is too small for it.

    Notes
    -----
    Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, section 2.2
    and figure 1.

    Examples
    --------
    >>> picture = np.random.default_rng(0).uniform(0, 255, (16, 20, 3))
    >>> texture(picture, "conv1_1", weights="random", iterations=5, width=30).image.shape
    (16, 30, 3)
    """
    settings = texture_settings(layers, iterations, tv_weight, tile)
    style = images.fit(as_array(picture, "style"), check_integer("size", size, 1))
    H, W, _ = style.shape
    width = width if width is None else check_integer("width", width, 1)
    height = height if height is None else check_integer("height", height, 1)
    W, H = tile_size((W, H), settings.layers, width, height) if tile else (width or W, height or H)
    return synthesize(
        style, H, W, settings, weights=weights, seed=seed, init=init, threads=threads, callback=callback
    )


def synthesize(style: images.Picture, H: int, W: int, settings: Settings, **options: Any) -> StyleResult:
    """Run settings without content layers: a picture (H, W, 3) with the style of another, at its own size.

    `options` are those of `npstyle.stylize`.
    """
    # Without content layers only the size of the content picture matters.
    canvas = np.zeros((H, W, 3), np.uint8)
    size = max(H, W)
    # The style picture is resized to size * style_scale: this leaves it as it is.
    style_scale = max(style.shape) / size
    return stylize(canvas, style, settings=settings, size=size, style_scale=style_scale, **options)
