"""Every term of the loss by itself, with its gradient, and that gradient as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from npstyle import images
from npstyle._typing import AnyArray
from npstyle.images import Picture
from npstyle.objective import Objective, edge_scales, total_variation_term
from npstyle.pixel_losses import edges_loss
from npstyle.settings import Settings
from npstyle.study.feature_maps import white_level
from npstyle.vgg import VGG19


class Term(NamedTuple):
    """One term of the loss: its value, and its gradient with respect to the pixels (H, W, 3)."""

    loss: float
    gradient: AnyArray


def terms(
    network: VGG19, content: AnyArray, style: AnyArray | None, settings: Settings, at: AnyArray
) -> dict[str, Term]:
    """Evaluate every term of the loss by itself.

    Parameters
    ----------
    network : VGG19
        From `VGG19.for_settings`.
    content, style : (H, W, 3) arrays
        RGB, 0..255. Without a style picture there are no style terms.
    settings : Settings
    at : (H, W, 3) array
        Where the terms are evaluated: pixels of the content picture's size.

    Returns
    -------
    dict of str to Term
        Named as in `Objective.terms`; they add up to the loss and the gradient of `Objective`.

    Examples
    --------
    >>> import npstyle
    >>> settings = Settings(content_layers=("conv1_2",), style_layers=("conv1_1",), tv_weight=1.0)
    >>> network = npstyle.VGG19.for_settings(npstyle.load_weights("random", deepest="conv1_2"), settings)
    >>> photo, painting = np.random.default_rng(0).uniform(0, 255, (2, 16, 24, 3))
    >>> list(terms(network, photo, painting, settings, photo))
    ['content/conv1_2', 'style/conv1_1', 'total_variation']
    """
    evaluated: dict[str, Term] = {}
    for name, single in _single_layer_settings(settings, with_style=style is not None):
        styles = [] if style is None or not single.style_layers else [style]
        loss, gradient = Objective(network, content, styles, single)(at)
        evaluated[name] = Term(loss, gradient.copy())  # the network may reuse the memory
    x: AnyArray = np.asarray(at)
    x = x if x.dtype == np.float64 else x.astype(np.float32)
    if settings.tv_weight:
        evaluated["total_variation"] = Term(*total_variation_term(x, settings))
    if settings.keep_edges:
        scales = edge_scales(content, settings)
        evaluated["edges"] = Term(*edges_loss(x, content, scales, settings.padding == "wrap"))
    return evaluated


def _single_layer_settings(settings: Settings, with_style: bool) -> Iterator[tuple[str, Settings]]:
    """For each content and style layer, its term's name and the settings whose loss is that term alone."""
    no_layers: dict[str, Any] = {
        "content_layers": (),
        "style_layers": (),
        "content_layer_weights": None,
        "style_layer_weights": None,
        "style_layer_exponent": 1.0,
        "normalize_layer_weights": True,
        "tv_weight": 0.0,
        "keep_edges": 0.0,
    }
    for layer, weight in settings.effective_content_weights.items():
        content = {"content_layers": (layer,), "content_weight": settings.content_weight * weight}
        yield f"content/{layer}", replace(settings, **{**no_layers, **content})
    for layer, weight in settings.effective_style_weights.items() if with_style else ():
        style = {"style_layers": (layer,), "style_weight": settings.style_weight * weight}
        yield f"style/{layer}", replace(settings, **{**no_layers, **style})


def gradient_picture(gradient: AnyArray) -> Picture:
    """Minus the gradient (H, W, 3) as a picture: the change of the pixels that the loss asks for.

    Gray is no change; more red is lighter in the red channel, less red darker. The scale is the gradient's
    own: the 99.5th percentile of the sizes other than 0.
    """
    level = white_level(np.abs(gradient))
    return images.to_uint8(127.5 - 127.5 * np.clip(gradient / level, -1, 1))
