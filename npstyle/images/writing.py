"""Arrays to picture files, and the checks before a long run that its picture can be written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from npstyle._runtime.atomic import check_writable, open_replacing
from npstyle._runtime.paths import as_path
from npstyle.errors import UserError
from npstyle.images.arrays import Picture, to_uint8
from npstyle.images.deep import DEEP_WRITERS, is_tiled, to_16_bits
from npstyle.images.metadata import save_options

# Pillow's name of the format, and its options, by extension.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),  # 4:4:4, colors at full resolution
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95, "method": 5}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}

MAX_SIDE = {"JPEG": 65500, "WEBP": 16383}  # pixels, of the formats that have a limit
ALPHA_FORMATS = ("PNG", "WEBP", "TIFF")


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Make sure, before a long run, that its picture can be written: extension, folder, permission, name.

    Returns
    -------
    Path

    Raises
    ------
    UserError
        It can't be written, or it exists and `overwrite` is False.
    """
    path = as_path(path)
    if not os.path.isdir(path):  # of a folder, check_writable says so
        _format_of(path)
    check_writable(path, overwrite)
    return path


def check_format(path: str | os.PathLike[str]) -> None:
    """Raise UserError unless the extension is that of a format that `write` writes."""
    _format_of(as_path(path))


def check_dimensions(path: Path, width: int, height: int) -> None:
    """Make sure, before a long run, that the file format permits a picture of this size in pixels."""
    form, _ = _format_of(path)
    limit = MAX_SIDE.get(form)
    if limit and max(width, height) > limit:
        raise UserError(
            f"output: {path}", f"{width} x {height} pixels", f"at most {limit} in {form}", "write a PNG"
        )


def check_alpha(path: str | os.PathLike[str]) -> None:
    """Make sure, before a long run, that the file format can store transparency."""
    _check_format(as_path(path), ALPHA_FORMATS, "which has no transparency")


def check_depth(path: str | os.PathLike[str], depth: int) -> None:
    """Make sure, before a long run, that the file format can store so many bits per channel: 8 or 16."""
    if depth not in (8, 16):
        raise UserError("depth", repr(depth), "8 or 16", "choose one of these")
    if depth == 16:
        _check_format(as_path(path), tuple(DEEP_WRITERS), "which has 8 bits")


def write(
    path: str | os.PathLike[str],
    picture: NDArray[Any],
    overwrite: bool = False,
    *,
    alpha: Picture | None = None,
    depth: int = 8,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write a picture in the format of its extension, labeled as sRGB.

    The file is written completely or not at all: under a temporary name in the same folder, then renamed.
    The same arguments give the same bytes.

    Parameters
    ----------
    path : path
        Ending in .png, .jpg, .jpeg, .webp, .tif or .tiff.
    picture : (H, W, 3) array
        sRGB from 0 to 255; values of any dtype but uint8 are rounded and clipped.
    overwrite : bool
        Replace an existing file.
    alpha : (H, W) uint8 array, optional
        Opacity of each pixel, as from `read_alpha`. Not in JPEG.
    depth : {8, 16}
        Bits per channel. 16 only in PNG and TIFF.
    text : mapping of str to str, optional
        Stored in the file, for `read_text`.

    Raises
    ------
    UserError
        It is no picture; the file exists and `overwrite` is False; the format can't store that many pixels,
        transparency or 16 bits; the disk is full, or the folder is missing.
    """
    path = as_path(path)
    save = _saver(path, picture, alpha, depth, text)
    try:
        with open_replacing(path, overwrite) as file:
            save(file)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"output: {path}",
            f"{getattr(error, 'strerror', None) or error} on writing",
            "a folder with room and a format for this size",
            "choose another",
        ) from error


def encode(
    path: str | os.PathLike[str],
    picture: NDArray[Any],
    *,
    alpha: Picture | None = None,
    depth: int = 8,
    text: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of the file that `write` would write with the same arguments; none is written."""
    path = as_path(path)
    file = io.BytesIO()
    save = _saver(path, picture, alpha, depth, text)
    try:
        save(file)
    except (OSError, ValueError) as error:
        found = f"{error} on encoding it"
        raise UserError(f"output: {path}", found, "a format for this size", "choose another") from error
    return file.getvalue()


def _saver(
    path: Path, picture: NDArray[Any], alpha: Picture | None, depth: int, text: Mapping[str, str] | None
) -> Callable[[BinaryIO], None]:
    """What writes a picture to an open file, in the format that the path's extension names."""
    form, options = _format_of(path)
    check_depth(path, depth)
    picture = np.asarray(picture)
    if picture.ndim not in (2, 3) or picture.dtype.kind not in "uif" or not picture.size:
        found = f"{picture.dtype} array of shape {picture.shape}"
        raise UserError("picture", found, "values of shape (H, W, 3), RGB, 0..255", "give an array of them")
    values = picture
    if depth == 16:
        values = to_16_bits(picture)
    elif picture.dtype != np.uint8:
        values = to_uint8(picture)
    if alpha is not None:
        check_alpha(path)
        values = _with_alpha(values, alpha)

    def save(file: BinaryIO) -> None:
        if depth == 16 or (form == "TIFF" and is_tiled(values)):
            DEEP_WRITERS[form](file, values, text)
        else:
            Image.fromarray(values).save(file, format=form, **options, **save_options(form, text))

    return save


def png(picture: Picture) -> bytes:
    """The bytes of a PNG file of a picture (H, W, 3), without labels."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


def _with_alpha(picture: NDArray[Any], alpha: Picture) -> NDArray[Any]:
    """The picture with alpha as a fourth channel (H, W, 4), in the picture's dtype."""
    H, W, _ = picture.shape
    if np.shape(alpha) != (H, W) or alpha.dtype != np.uint8:
        found = f"{alpha.dtype} array of shape {np.shape(alpha)}"
        raise UserError("alpha", found, f"uint8 of shape {(H, W)}", "npstyle.images.resize it")
    scaled = alpha if picture.dtype == np.uint8 else alpha.astype(np.uint16) * 257
    return np.dstack([picture, scaled])


def _format_of(path: Path) -> tuple[str, dict[str, Any]]:
    """Pillow's name of the format that the extension stands for, and options for it."""
    if path.suffix.lower() not in FORMATS:
        stem = path.name.strip(".")
        stem = Path(stem).stem if stem and f".{stem.lower()}" not in FORMATS else "picture"
        raise UserError(
            f"output: {path}",
            f"the extension {path.suffix!r}" if path.suffix else "no extension",
            "one of " + " ".join(FORMATS),
            f"try {path.parent / (stem + '.png')}",
        )
    return FORMATS[path.suffix.lower()]


def _check_format(path: Path, able: tuple[str, ...], shortcoming: str) -> None:
    form, _ = _format_of(path)
    if form not in able:
        cure = f"try {path.with_suffix('.png')}"
        raise UserError(f"output: {path}", f"{form}, {shortcoming}", " or ".join(able), cure)
