"""What is compared with what: style pictures and their shares, or regions of pictures that belong together.

A mask is (H, W) like its picture, 1 inside and 0 outside; what lies between counts in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle.errors import UserError, check_nonnegative

Mask = NDArray[np.floating]


class Part(NamedTuple):
    """A style picture, by its number, or the masked part of it, and its share in a target."""

    style: int
    mask: Mask | None
    weight: float


class StyleTarget(NamedTuple):
    """The generated picture, or the masked part of it, is to look like the mean of some parts of styles."""

    mask: Mask | None
    weight: float
    parts: Sequence[Part]


def style_targets(
    content: NDArray[Any],
    styles: Sequence[NDArray[Any]],
    blend: Sequence[float] | None,
    each: bool,
    content_masks: Sequence[ArrayLike] = (),
    style_masks: Sequence[ArrayLike] = (),
) -> list[StyleTarget]:
    """All comparisons of a loss; their weights add up to 1.

    Without masks the styles are mixed into one target, or with `each` compared with one by one. With masks
    the n-th region of the content picture is compared with the n-th of the style picture, or, of several
    style pictures, with that of the n-th; a region's weight is its share of the area of all.
    """
    shares = normalized_blend(blend, len(styles))
    if not len(content_masks) and not len(style_masks):
        parts = [Part(style, None, share) for style, share in enumerate(shares) if share]
        if each:
            return [StyleTarget(None, share, [Part(style, None, 1.0)]) for style, _, share in parts]
        return [StyleTarget(None, 1.0, parts)] if parts else []
    _check_numbers(len(content_masks), len(style_masks), len(styles))
    regions = []
    for n, (inside, like) in enumerate(zip(content_masks, style_masks, strict=True)):
        style = n if len(styles) > 1 else 0
        mask = as_mask(inside, content, f"content mask {n + 1}", "content")
        part = as_mask(like, styles[style], f"style mask {n + 1}", "style")
        regions.append(StyleTarget(mask, float(mask.sum()) * shares[style], [Part(style, part, 1.0)]))
    total = sum(region.weight for region in regions)
    return [region._replace(weight=region.weight / total) for region in regions]


def normalized_blend(blend: Sequence[float] | None, count: int) -> list[float]:
    """The weights of the style pictures divided by their sum; even, if left out."""
    weights = [1.0] * count if blend is None else [check_nonnegative("blend", weight) for weight in blend]
    if len(weights) != count or (count and not sum(weights)):
        found = f"{len(weights)}" if len(weights) != count else "zeros only"
        raise UserError("blend", found, f"{count} weights, one for each style picture", "give as many")
    return [weight / sum(weights) for weight in weights]


def as_mask(mask: ArrayLike, picture: NDArray[Any], name: str, whose: str) -> Mask:
    """Check a mask against its picture: the same size, numbers from 0 to 1, not all of them 0."""
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise UserError(name, f"{array.dtype} of shape {array.shape}", "numbers (H, W)", "give one channel")
    (H, W), (h, w) = picture.shape[:2], array.shape
    if (h, w) != (H, W):
        raise UserError(
            name, f"{w} x {h} pixels", f"{W} x {H}, the size of the {whose} picture", "make them of one size"
        )
    found = array.astype(np.float64)
    if not (found.min() >= 0 and found.max() <= 1):  # a NaN is neither
        raise UserError(name, f"numbers up to {found.max():g}", "0 (outside) to 1 (inside)", "divide by 255")
    if not found.any():
        raise UserError(name, "nothing inside (it is black)", "something white", "paint the region white")
    return found


def downsample_mask(mask: Mask, log2_stride: int, dtype: Any) -> Mask:
    """The mask as a layer after so many poolings sees it: means of 2 x 2 cells, odd edges left out."""
    for _ in range(log2_stride):
        H, W = mask.shape
        mask = mask[: H // 2 * 2, : W // 2 * 2].reshape(H // 2, 2, W // 2, 2).mean(axis=(1, 3))
    return np.ascontiguousarray(mask, dtype)


def _check_numbers(contents: int, likes: int, styles: int) -> None:
    if contents != likes:
        raise UserError(
            "masks", f"{contents} for the content and {likes} for the style", "pairs", "give as many of each"
        )
    if styles > 1 and likes != styles:
        raise UserError(
            "masks", f"{likes} for {styles} style pictures", "one pair for each style", "give as many"
        )
