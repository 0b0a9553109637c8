"""What a run is asked to do: pictures and masks from files, Pillow images or arrays, read and checked."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle import images
from npstyle.architecture import MIN_SIZE, check_size, log2_stride
from npstyle.errors import UserError, check_integer, check_nonnegative
from npstyle.optimize import max_pixels
from npstyle.presets import as_settings
from npstyle.regions import as_mask, style_targets
from npstyle.settings import Settings

Array = NDArray[Any]
Source = ArrayLike | str | os.PathLike[str]

MAX_MASK_DISTORTION = 0.01  # to which a mask of another size may be resized, as a part of its width or height
MIN_MASK_CONTRAST = 0.05  # between the darkest and the lightest value of a mask; less is hardly meant


@dataclass(frozen=True, eq=False)
class Request:
    """A run that could begin: everything but the weights, read and checked. `Request.read` makes one.

    Attributes
    ----------
    content : (H, W, 3) array
        RGB, 0..255, of any size.
    styles : tuple of (h, w, 3) arrays
    settings : Settings
    size : int
        Longer side of the result, in pixels; smaller content pictures keep their size.
    blend : tuple of float, optional
        The weight of each style picture; equal, if left out.
    style_scale : float
        The style pictures' longer side is `size` times this; smaller ones keep their size.
    content_masks, style_masks : tuples of (H, W) arrays from 0 to 1
        Pairs of regions.
    keep : (H, W) array from 0 to 1, optional
        What is left as it is in the content picture.
    init : (h, w, 3) array, optional
        The picture to start from, in place of `settings.init`.
    seed : int
        Of the noise in the start.
    """

    content: Array
    styles: tuple[Array, ...]
    settings: Settings
    size: int = 512
    blend: tuple[float, ...] | None = None
    style_scale: float = 1.0
    content_masks: tuple[Array, ...] = ()
    style_masks: tuple[Array, ...] = ()
    keep: Array | None = None
    init: Array | None = None
    seed: int = 0

    @classmethod
    def read(
        cls,
        content: Source,
        styles: Sequence[Source] | Source,
        *,
        settings: Settings | str,
        size: int = 512,
        blend: Sequence[float] | None = None,
        style_scale: float = 1.0,
        content_masks: Sequence[Source] = (),
        style_masks: Sequence[Source] = (),
        keep: Source | None = None,
        init: Source | None = None,
        seed: int = 0,
    ) -> Request:
        """Read and check everything a run looks at; parameters as in `npstyle.stylize`.

        Raises
        ------
        UserError
            Something can't be used: now, before anything takes time.
        """
        seed, size = check_integer("seed", seed, 0), check_integer("size", size, 1)
        if not check_nonnegative("style_scale", style_scale):
            raise UserError("style_scale", "0", "a number above 0", "1 is the size of the result")
        picture = as_array(content, "content")
        style_pictures = tuple(as_array(style, name) for style, name in _named(styles))
        if keep is None:
            keep_mask = None
        else:
            keep_mask = _fitted_mask(as_mask_array(keep, "keep"), picture, "keep", "content")
        request = cls(
            content=picture,
            styles=style_pictures,
            settings=as_settings(settings),
            size=size,
            blend=None if blend is None else _listed(blend, "blend"),
            style_scale=style_scale,
            content_masks=_masks(content_masks, "content", [picture]),
            style_masks=_masks(style_masks, "style", style_pictures),
            keep=keep_mask,
            init=None if init is None else as_array(init, "init"),
            seed=seed,
        )
        request.check()
        _check_contrasts(request)
        return request

    def check(self) -> None:
        """Raise UserError where pictures, masks, weights and sizes do not go together."""
        if self.keep is not None:
            as_mask(self.keep, self.content, "keep", "content")
        style_targets(self.content, self.styles, self.blend, False, self.content_masks, self.style_masks)
        check_fit(self.content, self.size, self.settings, "content")
        for n, style in enumerate(self.styles, 1):
            name = f"style {n}" if len(self.styles) > 1 else "style"
            check_fit(style, self.size, self.settings, name, self.style_scale)

    @property
    def result_size(self) -> tuple[int, int]:
        """Width and height of the result."""
        H, W, _ = self.content.shape
        return images.fitted_size(W, H, self.size)

    def style_sizes(self, width: int, height: int) -> list[tuple[int, int]]:
        """Widths and heights of the style pictures at the level where the result is width x height."""
        if self.settings.style_as_content:
            return [(width, height)] * len(self.styles)
        scale = self.size * self.style_scale
        longer = max(1, round(scale * max(width, height) / max(self.result_size)))
        return [images.fitted_size(W, H, longer) for H, W, _ in (style.shape for style in self.styles)]


def as_array(source: Source, name: str) -> Array:
    """A picture from a file, a Pillow image or an array."""
    if isinstance(source, (str, os.PathLike)):
        return images.read(source)
    return images.as_picture(images.from_pillow(source, name), name)


def as_mask_array(source: Source, name: str) -> Array:
    """A mask (H, W), from 0 to 1, from a file, a Pillow image or an array."""
    if isinstance(source, (str, os.PathLike)):
        return images.read_mask(source)
    mask = images.mask_from_pillow(source, name)
    try:
        return np.asarray(mask)
    except ValueError as error:
        cure = "npstyle.images.read_mask makes one from a file"
        raise UserError(name, "rows of unequal length", "an array (H, W)", cure) from error


def _listed(values: Any, name: str) -> tuple[Any, ...]:
    """The elements of a sequence; a string, a path or a number is none, and one mask is none of masks."""
    one_array = isinstance(values, np.ndarray) and values.ndim != (1 if name == "blend" else 3)
    one = isinstance(values, (str, bytes, Mapping)) or one_array
    if one or not isinstance(values, Iterable):
        raise UserError(name, f"a single {type(values).__name__}", "a list", "put it into brackets")
    return tuple(values)


def _masks(sources: Sequence[Source], owner: str, pictures: Sequence[Array]) -> tuple[Array, ...]:
    """The masks of a picture, or one of each picture, in the size of theirs."""
    listed = _listed(sources, f"{owner}_masks")
    masks = [as_mask_array(mask, f"{owner} mask {n}") for n, mask in enumerate(listed, 1)]
    if len(pictures) == 1:
        pictures = [pictures[0]] * len(masks)
    if len(masks) != len(pictures):  # Request.check says so
        return tuple(masks)
    names = [f"{owner} mask {n}" for n in range(1, len(masks) + 1)]
    return tuple(_fitted_mask(*each, owner) for each in zip(masks, pictures, names, strict=True))


def _fitted_mask(mask: Array, picture: Array, name: str, whose: str) -> Array:
    """The mask in the size of its picture, if it has its proportions; `Request.check` refuses any other."""
    if mask.ndim != 2 or mask.dtype.kind not in "buif" or not mask.size:
        return mask
    (H, W), (h, w) = picture.shape[:2], mask.shape
    if (h, w) != (H, W) and abs(w * H - h * W) <= MAX_MASK_DISTORTION * max(w * H, h * W):
        text = f"{name}: resized from {w} x {h} to {W} x {H} pixels, the size of the {whose} picture"
        warnings.warn(text, images.PictureWarning, stacklevel=4)
        mask = np.clip(images.resize(mask.astype(np.float32), W, H), mask.min(), mask.max())
    return mask


def _check_contrasts(request: Request) -> None:
    """Refuse masks that are nearly black; warn of those that are nearly the same everywhere."""
    for owner, masks in (("content", request.content_masks), ("style", request.style_masks)):
        for n, mask in enumerate(masks, 1):
            _check_contrast(mask, f"{owner} mask {n}")
    if request.keep is not None:
        _check_contrast(request.keep, "keep")


def _check_contrast(mask: Array, name: str) -> None:
    low, high = float(mask.min()), float(mask.max())
    if high < MIN_MASK_CONTRAST:
        found = f"values up to {high:.2g} of 1 (it is nearly black)"
        raise UserError(
            name, found, "white inside, black outside", "multiply it: 255 is white, or 65535 of 16 bits"
        )
    # A white mask of a style is an ordinary way to say: all of it.
    if high - low < MIN_MASK_CONTRAST and not (low > 1 - MIN_MASK_CONTRAST and name.startswith("style")):
        text = f"{name}: it has nearly the same value everywhere ({high:.2g}; 0 is outside, 1 is inside)"
        warnings.warn(text, images.PictureWarning, stacklevel=5)


def check_fit(
    picture: Array, size: int, settings: Settings, name: str, style_scale: float | None = None
) -> None:
    """Raise UserError unless the picture, reduced to `size`, suits the network's layers and the optimizer."""
    w, h = check_reduced(picture.shape, size, settings.layers, name, style_scale)
    limit = max_pixels(settings)
    if h * w > limit:
        most = f"{limit // 10**6} million" if limit >= 10**6 else f"{limit}"
        many_pairs = settings.optimizer == "lbfgs" and settings.maxcor > Settings.maxcor
        expected = f"at most {most} pixels with " + (
            f"maxcor={settings.maxcor}" if many_pairs else settings.optimizer
        )
        cure = "give a smaller maxcor, or a smaller size" if many_pairs else "give a smaller size"
        raise UserError(name, f"{w} x {h} pixels", expected, cure)


def check_reduced(
    shape: tuple[int, ...], size: int, layers: Iterable[str], name: str, style_scale: float | None = None
) -> tuple[int, int]:
    """Width and height of a picture of some shape, reduced to a longer side of `size`.

    That of a style picture is `size` times `style_scale`.

    Raises
    ------
    UserError
        It is then too small for the layers. The error names the size, or style scale, that is large enough,
        unless the picture itself is too small.
    """
    H, W = shape[:2]
    layers = list(layers)
    w, h = images.fitted_size(W, H, max(1, round(size * (1 if style_scale is None else style_scale))))
    needed = smallest_size(W, H, layers)
    cure = ""
    if needed is not None:
        scale = math.ceil(100 * needed / size) / 100
        cure = f"give --size {needed}" if style_scale is None else f"give --style-scale {scale:g}"
    check_size((h, w), layers, name, cure)
    return w, h


def smallest_size(width: int, height: int, layers: Iterable[str]) -> int | None:
    """The smallest size that leaves a picture large enough for the layers; None if it is not itself.

    Examples
    --------
    >>> smallest_size(4000, 30, ["conv4_2"])
    2067
    >>> images.fitted_size(4000, 30, 2067)
    (2067, 16)
    >>> smallest_size(4000, 15, ["conv4_2"])
    """
    needed = max([MIN_SIZE, *(2 ** log2_stride(name) for name in layers)])
    shorter, longer = sorted((width, height))
    if shorter < needed:
        return None
    sizes = range((needed - 1) * longer // shorter, longer + 1)
    return next(size for size in sizes if min(images.fitted_size(width, height, size)) >= needed)


def _named(styles: Sequence[Source] | Source) -> list[tuple[Source, str]]:
    """One picture or a sequence of them, as a list, with a name for each."""
    sources: list[Any] = list(styles) if isinstance(styles, (list, tuple)) else [styles]
    # A list of rows is one picture.
    if any(isinstance(one, (list, tuple, np.ndarray)) and np.ndim(one) == 2 for one in sources):
        sources = [styles]
    return [(one, f"style {n}" if len(sources) > 1 else "style") for n, one in enumerate(sources, 1)]


def large_enough(size: tuple[int, int], settings: Settings) -> bool:
    """Whether a picture of this width and height has at least one pixel left in every layer."""
    try:
        check_size(size[::-1], settings.layers, "content")
    except UserError:
        return False
    return True
