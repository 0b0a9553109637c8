"""Pictures in and out: whatever Pillow reads becomes RGB; a file is written whole or not at all."""

from __future__ import annotations

import os
import secrets
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from npstyle.errors import UserError

Picture = NDArray[np.uint8]

# How each kind of file is written: Pillow's format name and its options.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),  # 4:4:4, colours at full resolution
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95, "method": 5}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}

LONGEST = {"JPEG": 65500, "WEBP": 16383}  # pixels on a side, where a format has a limit


def read(path: str | os.PathLike[str]) -> Picture:
    """Picture of a file as (H, W, 3) uint8 RGB: upright, on white where it is transparent.

    Grey, palette, CMYK, 16-bit and floating-point pictures are converted; 16 bits become 8.
    Of an animation the first frame is taken.

    Raises
    ------
    UserError
        Missing, not a picture, damaged, or too large to be believed (Pillow's limit).
    """
    path = Path(path)
    if not os.path.isfile(path):  # Path.is_file may raise
        raise UserError(f"picture: {path}", what_is_there(path), "a picture file", "check the name")
    try:
        with warnings.catch_warnings():
            # Pillow warns at half its limit; only the limit itself is an error here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError as error:
        found = "an empty file" if path.stat().st_size == 0 else "something that is no picture"
        raise UserError(f"picture: {path}", found, "a format Pillow reads", "convert it to PNG") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UserError(
            f"picture: {path}", "too many pixels", f"at most {limit} million", "make it smaller first"
        ) from error
    except PermissionError as error:
        raise UserError(
            f"picture: {path}", f"{error.strerror}", "a readable file", "check its permissions"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise anything
        raise UserError(
            f"picture: {path}", f"a damaged file ({error})", "a whole one", "copy it again"
        ) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bits(image)
    if image.mode in ("LA", "La", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """One channel of more than 8 bits to grey; Pillow's own conversion would cut off at 255.

    What is white stands in no file: 16 bits have 65535; in 32 bits and floats it is the smallest of 1
    (floats only), 255 and 65535 that nothing exceeds by more than resampling may have added, or else
    the largest number there is.
    """
    values = np.nan_to_num(np.asarray(image, np.float64))
    whites = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(image.mode, (65535.0,))
    full = next((white for white in whites if values.max() <= 1.5 * white), values.max())
    return Image.fromarray(np.rint(np.clip(values / full, 0, 1) * 255).astype(np.uint8))


def as_picture(picture: ArrayLike, name: str) -> NDArray[Any]:
    """Check an array that is to be a picture: (H, W, 3), finite numbers, and not in the range 0..1."""
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
            "numbers of shape (H, W, 3), RGB, 0..255",
            "npstyle.images.read makes one from a file",
        )
    if not np.isfinite(array).all():
        raise UserError(
            name, "NaN or infinity", "finite numbers from 0 to 255", "look at where it comes from"
        )
    if np.abs(array).max() > (255 if array.dtype.kind in "ui" else 10_000):  # floats may overshoot
        raise UserError(
            name, f"numbers up to {array.max()}", "numbers from 0 to 255", "divide 16 bits by 257"
        )
    if array.dtype.kind == "f" and 0 < array.max() <= 1:
        raise UserError(name, "numbers from 0 to 1", "numbers from 0 to 255", "multiply them by 255")
    return array


def fitted_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height with the longer side `size`, in proportion; never larger than they are.

    Examples
    --------
    >>> fitted_size(1024, 768, 512)
    (512, 384)
    >>> fitted_size(300, 200, 512)
    (300, 200)
    """
    longer = max(width, height)
    if longer <= size:
        return width, height
    return max(1, round(width * size / longer)), max(1, round(height * size / longer))


def fit(picture: NDArray[Any], size: int) -> NDArray[Any]:
    """Reduce a picture (H, W, 3) so that its longer side is `size`; see `fitted_size`."""
    H, W, _ = picture.shape
    return resize(picture, *fitted_size(W, H, size))


def resize(picture: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """Resample a picture (H, W, 3) with Lanczos' filter, wide enough to take in every pixel when reducing.

    uint8 stays uint8; anything else becomes float32.
    """
    H, W, _ = picture.shape
    if (width, height) == (W, H):
        return picture if picture.dtype == np.uint8 else np.asarray(picture, np.float32)
    if picture.dtype == np.uint8:
        return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
    channels = [
        Image.fromarray(np.ascontiguousarray(picture[:, :, c], np.float32)).resize(
            (width, height), Image.Resampling.LANCZOS
        )
        for c in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=2)


def to_uint8(pixels: NDArray[Any]) -> Picture:
    """Round to whole numbers and clip to 0..255."""
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)


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
    path = Path(path)
    if os.path.isdir(path):
        raise UserError(f"output: {path}", "a folder", "a file name", "add a name to it")
    _format_of(path)
    if os.path.lexists(path) and not overwrite:
        raise _exists(path)
    probe = _temporary_name(Path(os.path.realpath(path)))
    try:
        probe.write_bytes(b"npstyle")
        with suppress(FileNotFoundError):
            os.lstat(path)  # the name itself may be too long
    except OSError as error:
        raise UserError(
            f"output: {path}",
            f"{error.strerror} on writing there",
            "a name in a folder that can be written to",
            "choose another",
        ) from error
    finally:
        with suppress(OSError):
            probe.unlink()
    return path


def check_dimensions(path: Path, width: int, height: int) -> None:
    """Make sure, before a long run, that a picture of this size fits into the file format."""
    form, _ = _format_of(path)
    longest = LONGEST.get(form)
    if longest and max(width, height) > longest:
        raise UserError(
            f"output: {path}", f"{width} x {height} pixels", f"at most {longest} in {form}", "write a PNG"
        )


def write(path: str | os.PathLike[str], picture: Picture, overwrite: bool = True) -> None:
    """Write a picture in the format of its extension: to a temporary file beside it, then renamed.

    Whoever looks at `path` finds the old file or the new one, never half of one.

    Raises
    ------
    UserError
        The disk is full, the folder is gone, the format has no room for that many pixels; or the file
        exists and `overwrite` is False.
    """
    form, options = _format_of(Path(path))
    path = Path(os.path.realpath(path))  # through a symbolic link, to where it points
    temporary = _temporary_name(path)
    try:
        with temporary.open("wb") as file:
            Image.fromarray(picture).save(file, format=form, **options)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            _rename_if_free(temporary, path)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"output: {path}",
            f"{getattr(error, 'strerror', None) or error} on writing",
            "a folder with room and a format for this size",
            "choose another",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _rename_if_free(temporary: Path, path: Path) -> None:
    """Give the file its name unless another has it, also if that came a moment ago."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise _exists(path) from None
        os.replace(temporary, path)


def _format_of(path: Path) -> tuple[str, dict[str, Any]]:
    """Pillow's name of the format that the extension stands for, and options for it."""
    if path.suffix.lower() not in FORMATS:
        stem = path.name.strip(".")
        stem = Path(stem).stem if stem and f".{stem.lower()}" not in FORMATS else "picture"
        raise UserError(
            f"output: {path}",
            f"the extension {path.suffix!r}" if path.suffix else "no extension",
            "one of " + " ".join(FORMATS),
            f"take for example {path.parent / (stem + '.png')}",
        )
    return FORMATS[path.suffix.lower()]


def what_is_there(path: str | os.PathLike[str]) -> str:
    """In words, what stands where a file was expected."""
    if os.path.isdir(path):
        return "a folder"
    return "something that is no regular file" if os.path.exists(path) else "no such file"


def _exists(path: Path) -> UserError:
    return UserError(
        f"output: {path}", "a file of that name", "a new name", "choose another or add --overwrite"
    )


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".npstyle-{secrets.token_hex(4)}.tmp")
