"""What a run is asked to do: pictures and masks from files, Pillow images or arrays, read and checked."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle import images
from npstyle.architecture import MIN_SIZE, check_size, log2_stride
from npstyle.errors import UserError, check_integer, check_nonnegative
from npstyle.optimize import max_pixels, with_possible_optimizer
from npstyle.presets import as_settings
from npstyle.regions import as_mask, style_targets
from npstyle.settings import Settings

Array = NDArray[Any]
Source = ArrayLike | images.PictureFile
FILE = (str, os.PathLike, images.FileContents)  # a Source that is read

MAX_MASK_DISTORTION = 0.01  # to which a mask of another size may be resized, as a part of its width or height
SIZE = 512  # longer side of the result where nothing else is asked for
MAX_SIDE = 10**9  # pixels; longer than any picture, and short enough to calculate with
MIN_MASK_CONTRAST = 0.05  # between the darkest and the lightest value of a mask; less is hardly meant


@dataclass(frozen=True, eq=False)
class Request:
    """A run that could begin: everything but the weights, read and checked. `Request.read` makes one.

    Attributes
    ----------
    content : (H, W, 3) array
        RGB, 0..255, of any size; cropped, if `width` and `height` are given.
    styles : tuple of (h, w, 3) arrays
    settings : Settings
    size : int
        Longer side of the result, in pixels; smaller content pictures keep their size unless `enlarge`. Not
        used for the result if `width` or `height` is given, but by `Request.read` set to its longer side.
    blend : tuple of float, optional
        The weight of each style picture; equal, if left out.
    style_scale : float, optional
        The style pictures' longer side is `size` times this; smaller ones keep their size, unless `enlarge`.
        If left out, it is 1, and they keep their size also then.
    content_masks, style_masks : tuples of (H, W) arrays from 0 to 1
        Pairs of regions.
    keep : (H, W) array from 0 to 1, optional
        What is left as it is in the content picture.
    init : (h, w, 3) array, optional
        The picture to start from, in place of `settings.init`.
    seed : int
        Of the noise in the start.
    enlarge : bool
        Whether the result may be larger than the content picture.
    width, height : int, optional
        Of the result, exactly. One of them keeps the content picture's proportions.
    """

    content: Array
    styles: tuple[Array, ...]
    settings: Settings
    size: int = SIZE
    blend: tuple[float, ...] | None = None
    style_scale: float | None = None
    content_masks: tuple[Array, ...] = ()
    style_masks: tuple[Array, ...] = ()
    keep: Array | None = None
    init: Array | None = None
    seed: int = 0
    enlarge: bool = False
    width: int | None = None
    height: int | None = None

    @classmethod
    def read(
        cls,
        content: Source,
        styles: Sequence[Source] | Source,
        *,
        settings: Settings | str,
        size: int | None = None,
        blend: Sequence[float] | None = None,
        style_scale: float | None = None,
        content_masks: Sequence[Source] = (),
        style_masks: Sequence[Source] = (),
        keep: Source | None = None,
        init: Source | None = None,
        seed: int = 0,
        enlarge: bool = False,
        width: int | None = None,
        height: int | None = None,
    ) -> Request:
        """Read and check everything a run looks at; parameters as in `npstyle.stylize`.

        Raises
        ------
        UserError
            Something can't be used: now, before anything takes time.
        """
        seed = check_integer("seed", seed, 0)
        size, width, height = _check_sizes(size, width, height)
        if style_scale is not None and not check_nonnegative("style_scale", style_scale):
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
            size=SIZE if size is None else size,
            blend=None if blend is None else _listed(blend, "blend"),
            style_scale=style_scale,
            content_masks=_masks(content_masks, "content", [picture]),
            style_masks=_masks(style_masks, "style", style_pictures),
            keep=keep_mask,
            init=None if init is None else as_array(init, "init"),
            seed=seed,
            enlarge=bool(enlarge),
            width=width,
            height=height,
        )._cropped()
        if request.exact:
            request = replace(request, size=max(request.result_size))
        request.check()
        _check_contrasts(request)
        _check_tiles(request)
        return request

    def check(self) -> None:
        """Raise UserError where pictures, masks, weights and sizes do not go together."""
        if self.keep is not None:
            as_mask(self.keep, self.content, "keep", "content")
        style_targets(self.content, self.styles, self.blend, False, self.content_masks, self.style_masks)
        self._check_enlarged()
        check_fit(self.result_size, self.settings, "content", self._size_cure())
        for n, style in enumerate(self.styles, 1):
            name = f"style {n}" if len(self.styles) > 1 else "style"
            check_fit(self._style_size(style), self.settings, name, self._style_cure(style))

    @property
    def exact(self) -> bool:
        """Whether the result's width or height is given, rather than its longer side."""
        return self.width is not None or self.height is not None

    @property
    def crops(self) -> bool:
        """Whether the content picture is cropped to the proportions of the result."""
        return self.width is not None and self.height is not None

    @property
    def result_size(self) -> tuple[int, int]:
        """Width and height of the result."""
        H, W, _ = self.content.shape
        if not self.exact:
            return images.fitted_size(W, H, self.size, self.enlarge)
        width = self.width or max(1, round(W * (self.height or H) / H))
        return width, self.height or max(1, round(H * width / W))

    def size_at(self, longer: int) -> tuple[int, int]:
        """Width and height of the result, reduced or enlarged so that this is its longer side."""
        H, W, _ = self.content.shape
        width, height = self.result_size if self.exact else (W, H)
        return images.fitted_size(width, height, longer, enlarge=True)

    def at_size(self, longer: int) -> Request:
        """The same request for a result whose longer side is this, as far as `enlarge` permits."""
        width, height = self.size_at(longer)
        return replace(self, size=longer, width=self.width and width, height=self.height and height)

    def style_sizes(self, width: int, height: int) -> list[tuple[int, int]]:
        """Widths and heights of the style pictures at the level where the result is width x height."""
        if self.settings.style_as_content:
            return [(width, height)] * len(self.styles)
        return [self._style_size(style, (width, height)) for style in self.styles]

    @property
    def enlarges_styles(self) -> bool:
        """Whether style pictures may become larger than they are."""
        return self.enlarge and self.style_scale is not None

    def _style_size(self, style: Array, level: tuple[int, int] | None = None) -> tuple[int, int]:
        """Width and height of a style picture, at the last level or where the result has another size."""
        H, W, _ = style.shape
        longer = self.size * (1.0 if self.style_scale is None else self.style_scale)
        if level is not None:
            longer = longer * max(level) / max(self.result_size)
        return images.fitted_size(W, H, max(1, round(min(longer, MAX_SIDE))), self.enlarges_styles)

    def _size_cure(self) -> str:
        """How to make a result larger that is too small for the layers; empty if the content picture is."""
        H, W, _ = self.content.shape
        needed = smallest_size(W, H, self.settings.layers)
        if needed is None:
            return ""
        return "give a larger width and height" if self.exact else f"give --size {needed}"

    def _style_cure(self, style: Array) -> str:
        """How to make a style picture larger that is too small for the layers; empty if it is so itself."""
        H, W, _ = style.shape
        needed = smallest_size(W, H, self.settings.layers)
        return "" if needed is None else f"give --style-scale {math.ceil(100 * needed / self.size) / 100:g}"

    def _cropped(self) -> Request:
        """The request for the part of the content picture that has the proportions of `width` and `height`.

        Its masks are cropped with it, and the picture to start from, which may be larger or smaller.
        """
        if self.width is None or self.height is None:
            return self
        size = self.width, self.height

        def mask(array: Array, name: str) -> Array:
            part = images.crop(array, *size)
            if array.any() and not part.any():
                found = "nothing inside of the part that is painted"
                expected = "something white there"
                raise UserError(name, found, expected, "give the width or the height only, or leave it out")
            return part

        return replace(
            self,
            content=images.crop(self.content, *size),
            content_masks=tuple(mask(m, f"content mask {n}") for n, m in enumerate(self.content_masks, 1)),
            keep=None if self.keep is None else mask(self.keep, "keep"),
            init=None if self.init is None else images.crop(self.init, *size),
        )

    def _check_enlarged(self) -> None:
        """Raise UserError where an exact size is beyond the content picture without `enlarge`."""
        (w, h), (H, W) = self.result_size, self.content.shape[:2]
        if not self.exact or self.enlarge or (w <= W and h <= H):
            return
        if self.crops:
            name, found = "width, height", f"{w} x {h}"
            most = f"{W} x {H}, what the content picture has in these proportions"
        elif self.width:
            name, found, most = "width", f"{w}", f"{W}, the content picture's"
        else:
            name, found, most = "height", f"{h}", f"{H}, the content picture's"
        raise UserError(name, f"{found} pixels", f"at most {most}", "add enlarge (--enlarge), or give less")


def _check_sizes(*sizes: int | None) -> Iterator[int | None]:
    """Size, width and height, each None or a number of pixels; not the first and another one."""
    names = ("size", "width", "height")
    given = [name for name, value in zip(names, sizes, strict=True) if value is not None]
    if "size" in given and len(given) > 1:
        raise UserError("size", f"{' and '.join(given[1:])}, too", "the one or the other", "leave size out")
    for name, value in zip(names, sizes, strict=True):
        yield None if value is None else min(MAX_SIDE, check_integer(name, value, 1))


def as_array(source: Source, name: str) -> Array:
    """A picture from a file, a Pillow image or an array."""
    if isinstance(source, FILE):
        return images.read(source)
    return images.as_picture(images.from_pillow(source, name), name)


def as_mask_array(source: Source, name: str) -> Array:
    """A mask (H, W), from 0 to 1, from a file, a Pillow image or an array."""
    if isinstance(source, FILE):
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


def nearest_multiple(side: int, step: int) -> int:
    """The multiple of a step that is nearest to a side, at least one step; of two the larger.

    Examples
    --------
    >>> [nearest_multiple(side, 16) for side in (3, 23, 24, 48)]
    [16, 16, 32, 48]
    """
    return max(1, (2 * side + step) // (2 * step)) * step


def _check_tiles(request: Request) -> None:
    """Warn where a padding that wraps leaves seams, as the last row or column of a layer has no cell."""
    (W, H), step = request.result_size, request.settings.stride
    if request.settings.padding != "wrap" or not (W % step or H % step):
        return
    w, h = (max(step, side // step * step) for side in (W, H))
    text = f"padding: found {W} x {H} pixels; expected multiples of {step}, or tiles have seams"
    warnings.warn(f"{text}; --width {w} --height {h} has none", images.PictureWarning, stacklevel=3)


def check_fit(size: tuple[int, int], settings: Settings, name: str, cure: str) -> None:
    """Raise UserError unless a picture of (width, height) suits the network's layers and the optimizer.

    `cure` says how to make it larger; it is empty where the picture itself is too small.
    """
    w, h = size
    check_size((h, w), settings.layers, name, cure)
    settings = with_possible_optimizer(settings, h * w)
    limit = max_pixels(settings)
    if h * w > limit:
        in_float32 = replace(settings, optimizer="lbfgs32")
        if settings.optimizer == "lbfgs" and max_pixels(in_float32) > limit:  # which would have replaced it
            settings, limit = in_float32, max_pixels(in_float32)
        most = f"{limit // 10**6} million" if limit >= 10**6 else f"{limit}"
        many_pairs = settings.optimizer != "adam" and settings.maxcor > Settings.maxcor
        expected = f"at most {most} pixels with " + (
            f"maxcor={settings.maxcor}" if many_pairs else settings.optimizer
        )
        cure = "give a smaller maxcor, or a smaller size" if many_pairs else "give a smaller size"
        raise UserError(name, f"{w} x {h} pixels", expected, cure)


def check_reduced(shape: tuple[int, ...], size: int, layers: Iterable[str], name: str) -> None:
    """Raise UserError where a picture of some shape, reduced to a longer side of `size`, is too small.

    The error names the size that is large enough, unless the picture itself is too small.
    """
    H, W = shape[:2]
    layers = list(layers)
    needed = smallest_size(W, H, layers)
    w, h = images.fitted_size(W, H, size)
    check_size((h, w), layers, name, "" if needed is None else f"give --size {needed}")


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
