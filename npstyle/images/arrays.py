"""Pictures as arrays: the check of what a caller passes, resizing, and rounding to 8 bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from npstyle._runtime.chunks import in_chunks
from npstyle.errors import UserError

Picture = NDArray[np.uint8]
Mask = NDArray[np.float32]


class PictureWarning(UserWarning):
    """A picture or a mask is used, but perhaps not as it was meant: what is missing or odd about it."""


# Floating-point values up to this one are taken for an overshoot of resampling or of the optimizer, not for
# another range.
MAX_OVERSHOOT = 10_000
# Negative values where none is of a larger magnitude are no overshoot: a picture normalized for a network has
# values from -1 to 1, or from -2.1 to 2.6 with the mean and standard deviation of ImageNet.
MAX_NORMALIZED = 3


def as_picture(picture: ArrayLike, name: str) -> NDArray[Any]:
    """Check that an array is a picture.

    Parameters
    ----------
    picture : array_like, (H, W, 3)
        RGB, integers or floating point, from 0 to 255; floating-point values may overshoot.
    name : str
        What the picture is to the caller, for the error.

    Returns
    -------
    ndarray, (H, W, 3)
        The same values in the same dtype; the same array, if it was one.

    Raises
    ------
    UserError
        Another shape or dtype, NaN or infinity, or values that look like another range: 0 to 1, normalized,
        or 16 bits.
    """
    try:
        array = np.asarray(picture)
    except ValueError as error:
        raise UserError(
            name, "rows of unequal length", "an array (H, W, 3)", "npstyle.images.read makes one from a file"
        ) from error
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape or array.dtype.kind not in "uif":
        raise UserError(
            name,
            f"{array.dtype} array of shape {array.shape}",
            "values of shape (H, W, 3), RGB, 0..255",
            "npstyle.images.read makes one from a file",
        )
    if not np.isfinite(array).all():
        raise UserError(name, "NaN or infinity", "finite values from 0 to 255", "check where they come from")
    if max(float(array.max()), -float(array.min())) > (255 if array.dtype.kind in "ui" else MAX_OVERSHOOT):
        raise UserError(
            name, f"values up to {array.max()}", "values from 0 to 255", "divide 16-bit values by 257"
        )
    if array.dtype.kind == "f" and -MAX_NORMALIZED <= array.min() < 0 < array.max() <= MAX_NORMALIZED:
        found = f"values from {array.min():.2g} to {array.max():.2g}"
        cure = "undo their normalization, and multiply values from 0 to 1 by 255"
        raise UserError(name, found, "values from 0 to 255", cure)
    if array.dtype.kind == "f" and 0 < array.max() <= 1:
        raise UserError(name, "values from 0 to 1", "values from 0 to 255", "multiply them by 255")
    return array


def fitted_size(width: int, height: int, size: int, enlarge: bool = False) -> tuple[int, int]:
    """Width and height scaled so that the longer side is `size`.

    Where it is shorter already they are unchanged, unless `enlarge`.

    Examples
    --------
    >>> fitted_size(1024, 768, 512)
    (512, 384)
    >>> fitted_size(300, 200, 512)
    (300, 200)
    >>> fitted_size(300, 200, 512, enlarge=True)
    (512, 341)
    """
    longer = max(width, height)
    if longer <= size and not enlarge:
        return width, height
    return max(1, round(width * size / longer)), max(1, round(height * size / longer))


def fit(picture: NDArray[Any], size: int, enlarge: bool = False) -> NDArray[Any]:
    """Resize a picture (H, W, 3) so that its longer side is `size`; see `fitted_size`."""
    H, W, _ = picture.shape
    return resize(picture, *fitted_size(W, H, size, enlarge))


def crop(picture: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """The largest part of a picture or mask, around its center, with the proportions width : height.

    To the nearest pixel; the same array if it has these proportions.

    Examples
    --------
    >>> crop(np.zeros((200, 300, 3)), 64, 64).shape
    (200, 200, 3)
    """
    H, W = picture.shape[:2]
    scale = max(width / W, height / H)
    w = min(W, max(1, round(width / scale)))
    h = min(H, max(1, round(height / scale)))
    if (w, h) == (W, H):
        return picture
    x, y = (W - w) // 2, (H - h) // 2
    return np.ascontiguousarray(picture[y : y + h, x : x + w])


def resize(picture: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """Resample a picture with the Lanczos filter (a = 3), widened by the scale when reducing.

    Parameters
    ----------
    picture : (H, W, 3) or (H, W) array
        A picture, or one channel: each channel of a picture is resampled as it would be alone.
    width, height : int
        Pixels.

    Returns
    -------
    (height, width, 3) or (height, width) array
        uint8 stays uint8; any other dtype becomes float32. Of the same size, it may be the array passed.
    """
    H, W = picture.shape[:2]
    if (width, height) == (W, H):
        return picture if picture.dtype == np.uint8 else np.asarray(picture, np.float32)
    if picture.dtype == np.uint8:
        return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
    return _resize_channels(picture, width, height)


def resize_wrapped(picture: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """`resize` of a picture (H, W, 3) that is laid out in tiles: it continues at the opposite border."""
    H, W, _ = picture.shape
    # Lanczos reaches three pixels of the smaller picture.
    y, x = (math.ceil(3 * max(1, scale)) + 1 for scale in (H / height, W / width))
    return _resize_channels(picture, width, height, (y, x))


def _resize_channels(
    picture: NDArray[Any], width: int, height: int, margins: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Resample in float32, one channel after the other, so that there are never copies of all of them.

    With `margins` so many rows and columns of the opposite border are seen beyond each border.
    """
    H, W = picture.shape[:2]
    resized = np.empty((height, width, *picture.shape[2:]), np.float32)
    box = None
    for index in np.ndindex(*picture.shape[2:]):
        channel = np.ascontiguousarray(picture[(..., *index)], np.float32)
        if margins is not None:
            y, x = margins
            channel, box = np.pad(channel, ((y, y), (x, x)), mode="wrap"), (x, y, x + W, y + H)
        image = Image.fromarray(channel)
        resized[(..., *index)] = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box))
    return resized


def to_uint8(pixels: NDArray[Any]) -> Picture:
    """Round to the nearest integer (ties to even) and clip to 0..255."""
    return in_chunks(lambda rows: np.asarray(np.clip(np.rint(rows), 0, 255), np.uint8), pixels)
