"""Style targets: which style pictures, or regions of them, the picture or a region of it should look like.

A guidance mask is (H, W) like its picture, 1 inside the region and 0 outside; values between count in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle._typing import AnyArray, Array
from npstyle.errors import UserError, check_nonnegative


class StyleRegion(NamedTuple):
    """A style picture, given by its index, or a masked region of it, and its weight in a target."""

    style: int
    mask: Array | None
    weight: float


class StyleTarget(NamedTuple):
    """What the generated picture, or a masked region of it, should look like: a weighted mean of styles."""

    mask: Array | None
    weight: float
    regions: Sequence[StyleRegion]


def style_targets(
    content: AnyArray,
    styles: Sequence[AnyArray],
    blend: Sequence[float] | None,
    separate: bool,
    content_masks: Sequence[ArrayLike] = (),
    style_masks: Sequence[ArrayLike] = (),
) -> list[StyleTarget]:
    """All style targets of a loss; their weights sum to 1.

    Without masks there is one target, a mixture of the styles, or with `separate` one target for each style.
    With masks the n-th region of the content picture should look like the n-th region of the style picture;
    if there are several style pictures, like the region of the n-th. A region's weight is proportional to its
    area.
    """
    weights = normalized_blend(blend, len(styles))
    if not len(content_masks) and not len(style_masks):
        whole = [StyleRegion(style, None, weight) for style, weight in enumerate(weights) if weight]
        if separate:
            return [StyleTarget(None, region.weight, [region._replace(weight=1.0)]) for region in whole]
        return [StyleTarget(None, 1.0, whole)] if whole else []
    _check_counts(len(content_masks), len(style_masks), len(styles))
    targets = []
    for n, (content_mask, style_mask) in enumerate(zip(content_masks, style_masks, strict=True)):
        style = n if len(styles) > 1 else 0
        mask = as_mask(content_mask, content, f"content mask {n + 1}", "content")
        region = StyleRegion(style, as_mask(style_mask, styles[style], f"style mask {n + 1}", "style"), 1.0)
        targets.append(StyleTarget(mask, float(mask.sum()) * weights[style], [region]))
    total = sum(target.weight for target in targets)
    return [target._replace(weight=target.weight / total) for target in targets]


def normalized_blend(blend: Sequence[float] | None, count: int) -> list[float]:
    """Weights of the style pictures, which sum to 1; equal ones if `blend` is omitted."""
    weights = [1.0] * count if blend is None else [check_nonnegative("blend", weight) for weight in blend]
    if len(weights) != count or (count and not sum(weights)):
        found = f"{len(weights)}" if len(weights) != count else "zeros only"
        expected = f"{count} weights, one for each style picture, not all of them 0"
        raise UserError("blend", found, expected, "give as many, such as 1 for each")
    return [weight / sum(weights) for weight in weights]


def as_mask(mask: ArrayLike, picture: AnyArray, name: str, whose: str) -> NDArray[np.float64]:
    """Check a mask against its picture: the same size, values from 0 to 1, not all of them 0."""
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise UserError(name, f"{array.dtype} of shape {array.shape}", "numbers (H, W)", "give one channel")
    (H, W), (h, w) = picture.shape[:2], array.shape
    if (h, w) != (H, W):
        expected = f"{W} x {H}, the size of the {whose} picture"
        raise UserError(name, f"{w} x {h} pixels", expected, "make them the same size")
    values = array.astype(np.float64)
    if not (values.min() >= 0 and values.max() <= 1):  # a NaN is neither
        raise UserError(name, f"values up to {values.max():g}", "0 (outside) to 1 (inside)", "divide by 255")
    if not values.any():
        raise UserError(name, "nothing inside (it is black)", "something white", "paint the region white")
    return values


def downsample_mask(mask: Array, log2_stride: int, dtype: Any) -> Array:
    """A mask at the resolution of a layer after so many poolings: means of 2 x 2 cells, odd edges dropped."""
    for _ in range(log2_stride):
        H, W = mask.shape
        mask = mask[: H // 2 * 2, : W // 2 * 2].reshape(H // 2, 2, W // 2, 2).mean(axis=(1, 3))
    return np.ascontiguousarray(mask, dtype)


def _check_counts(content_masks: int, style_masks: int, styles: int) -> None:
    if content_masks != style_masks:
        found = f"{content_masks} for the content and {style_masks} for the style"
        raise UserError("masks", found, "pairs", "give as many of each")
    if styles > 1 and style_masks != styles:
        found = f"{style_masks} for {styles} style pictures"
        raise UserError("masks", found, "one pair for each style", "give as many")
