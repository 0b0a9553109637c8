"""All that a run looks at: pictures and masks from files, Pillow images or arrays, checked beforehand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle import images
from npstyle.architecture import MIN_SIZE, check_size
from npstyle.errors import UserError, check_integer, check_nonnegative
from npstyle.optimize import most_pixels
from npstyle.regions import as_mask, style_targets
from npstyle.settings import Settings

Array = NDArray[Any]
Source = ArrayLike | str | os.PathLike[str]


class Pictures(NamedTuple):
    """All that a run looks at, read and checked."""

    content: Array
    styles: list[Array]
    content_masks: list[Array]
    style_masks: list[Array]
    keep: Array | None
    init: Array | None


def read_all(
    content: Source,
    styles: Sequence[Source] | Source,
    size: int,
    settings: Settings,
    blend: Sequence[float] | None = None,
    style_scale: float = 1.0,
    content_masks: Sequence[Source] = (),
    style_masks: Sequence[Source] = (),
    keep: Source | None = None,
    init: Source | None = None,
) -> Pictures:
    """Everything a run looks at, as arrays; a UserError here, before anything takes time, if it won't do."""
    size = check_integer("size", size, 1)
    if not check_nonnegative("style_scale", style_scale):
        raise UserError("style_scale", "0", "a number above 0", "1 is the size of the result")
    photo = as_array(content, "content")
    paintings = [as_array(style, name) for style, name in _named(styles)]
    masks = [
        [as_mask_array(mask, f"{whose} mask {n}") for n, mask in enumerate(several, 1)]
        for whose, several in (("content", content_masks), ("style", style_masks))
    ]
    kept = None if keep is None else as_mask(as_mask_array(keep, "keep"), photo, "keep", "content")
    style_targets(photo, paintings, blend, False, *masks)
    start = None if init is None else as_array(init, "init")
    check_fit(photo, size, settings, "content")
    for painting, (_, name) in zip(paintings, _named(styles), strict=True):
        check_fit(painting, max(1, round(size * style_scale)), settings, name)
    return Pictures(photo, paintings, masks[0], masks[1], kept, start)


def as_array(source: Source, name: str) -> Array:
    """A picture from a file, a Pillow image or an array."""
    if isinstance(source, (str, os.PathLike)):
        return images.read(source)
    return images.as_picture(images.from_pillow(source), name)


def as_mask_array(source: Source, name: str) -> Array:
    """A mask (H, W), from 0 to 1, from a file, a Pillow image or an array."""
    if isinstance(source, (str, os.PathLike)):
        return images.read_mask(source)
    return np.asarray(images.mask_from_pillow(source))


def check_fit(picture: Array, size: int, settings: Settings, name: str) -> None:
    """Once reduced to `size`: large enough for the layers, but not too large for the optimizer?"""
    H, W, _ = picture.shape
    w, h = images.fitted_size(W, H, size)
    reduced = (w, h) != (W, H) and min(H, W) >= MIN_SIZE
    check_size((h, w), settings.layers, name, f"give a size above {size}" if reduced else "")
    most = most_pixels(settings)
    if h * w > most:
        expected = f"at most {most // 10**6} million pixels with {settings.optimizer}"
        raise UserError(name, f"{w} x {h} pixels", expected, "give a smaller size")


def _named(styles: Sequence[Source] | Source) -> list[tuple[Source, str]]:
    """One picture or a sequence of them, as a list, and what to call each."""
    several: list[Any] = list(styles) if isinstance(styles, (list, tuple)) else [styles]
    # A list of rows is one picture.
    if any(isinstance(one, (list, tuple, np.ndarray)) and np.ndim(one) == 2 for one in several):
        several = [styles]
    return [(one, f"style {n}" if len(several) > 1 else "style") for n, one in enumerate(several, 1)]


def large_enough(size: tuple[int, int], settings: Settings) -> bool:
    """Whether the layers have something left to look at in a picture of this width and height."""
    try:
        check_size(size[::-1], settings.layers, "content")
    except UserError:
        return False
    return True


def resized_mask(mask: Array, width: int, height: int) -> Array:
    """A mask (H, W), from 0 to 1, of another size."""
    three = np.repeat(np.asarray(mask, np.float32)[:, :, None], 3, axis=2)
    resized: Array = images.resize(three, width, height)[:, :, 0]
    return np.clip(resized, 0, 1)
