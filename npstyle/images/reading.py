"""Picture files and Pillow images to arrays: whatever Pillow reads becomes upright sRGB, 8 bits, on white."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from npstyle._runtime.paths import as_input, what_is_there
from npstyle.errors import UserError
from npstyle.images.arrays import Mask, Picture, PictureWarning
from npstyle.images.deep import is_deep, scale_of, to_8_bits
from npstyle.images.formats import prepare, unidentified
from npstyle.images.icc import ProfileWarning, profile_name, to_srgb
from npstyle.images.metadata import printable, stored_text
from npstyle.images.repair import with_end, without_bad_chunks
from npstyle.images.tiff import check_tiff, raw_error

# A picture of this format is a program; Pillow would have Ghostscript run it, without a time limit.
EXECUTABLE_FORMATS = ("EPS",)
ORIENTATION = 0x0112  # the EXIF tag
# Without a handler, what Pillow logs about a damaged file would be printed on standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class FileContents:
    """A picture file that is no file here: one from standard input, or sent by another machine.

    Attributes
    ----------
    name : str
        What it is called in errors.
    data : bytes
        Its contents.
    """

    name: str
    data: bytes = field(repr=False)


PictureFile = str | os.PathLike[str] | FileContents


class Description(NamedTuple):
    """What `describe` finds in a file: format, upright size, Pillow's mode, colors and stored text."""

    format: str
    width: int
    height: int
    mode: str
    profile: str
    text: dict[str, str]


def read(path: PictureFile) -> Picture:
    """Read the picture in a file as (H, W, 3) uint8 sRGB: upright, on white where it is transparent.

    Gray, palette, CMYK, 16-bit and floating-point pictures are converted; 16 bits become 8. Colors are
    converted from the profile that the file carries; those outside sRGB become the nearest inside. Of an
    animation the first frame is read.

    Raises
    ------
    UserError
        Missing, not a picture, damaged, or more pixels than Pillow's limit.

    Warns
    -----
    ProfileWarning
        The profile is damaged or not for such a picture. The picture is read as if it had none.
    """
    with _opened(path) as image:
        return np.array(_as_rgb(image, _name(path)))


def read_alpha(path: PictureFile) -> Picture | None:
    """Read a picture's alpha channel as (H, W) uint8, upright: 0 transparent, 255 opaque; None without one.

    Raises
    ------
    UserError
        As `read`.
    """
    with _opened(path) as image:
        _, alpha = _split_alpha(image, _name(path))
        return None if alpha is None else np.array(alpha)


def read_mask(path: PictureFile) -> Mask:
    """Read a mask as (H, W) float32, upright: 1 (inside) where it is white, 0 (outside) where it is black.

    It may be any picture that `read` reads; of colors the luma counts. Transparent pixels are outside,
    whatever their color, and half transparent ones count half: the mask lies on black. White is 255, or 65535
    of 16 bits; a mask of zeros and ones is nearly black, which a run refuses. The values of a mask are not
    colors: its profile is ignored.

    Raises
    ------
    UserError
        As `read`.
    """
    with _opened(path) as image:
        return _as_mask(image, _name(path))


def read_text(path: PictureFile) -> dict[str, str]:
    """Read the `text` that `write` stored in a file; empty if it stored none.

    Raises
    ------
    UserError
        As `read`, or the stored text is damaged.
    """
    return describe(path).text


def describe(path: PictureFile) -> Description:
    """Describe what a file carries besides its pixels.

    Raises
    ------
    UserError
        As `read`, or the text stored in it is damaged.
    """
    with _opened(path) as image:
        # Pillow's mode may have fewer bits than the file; its tiles know how many, until they are loaded.
        mode = image.mode + (", 16 bits" if ";16" in str(image.tile) else "")
        width, height = ImageOps.exif_transpose(image).size  # loads it: the text may follow the pixels
        profile = printable(profile_name(_profile_info(image), _color_mode(image.mode)))
        text = stored_text(image, _name(path))
        return Description(image.format or "", width, height, mode, profile, text)


def read_size(path: PictureFile) -> tuple[int, int]:
    """Width and height of the upright picture, as its file states them; its pixels are not read.

    Raises
    ------
    UserError
        Missing, or not a picture.
    """
    with _opened(path) as image:
        width, height = image.size
        lying = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
        return (height, width) if lying else (width, height)


def from_pillow(source: Any, name: str = "Pillow image") -> Any:
    """Convert a Pillow image as `read` does; anything else is returned as it is.

    Raises
    ------
    UserError
        It can't be loaded: its file is damaged, or was closed before. `name` is what the error calls it.
    """
    if not isinstance(source, Image.Image):
        return source
    with _loading(name):
        _check_opened(source)
        return np.array(_as_rgb(source, name))


def mask_from_pillow(source: Any, name: str = "Pillow image") -> Any:
    """Convert a Pillow image as `read_mask` does; anything else is returned as it is.

    Raises
    ------
    UserError
        As `from_pillow`.
    """
    if not isinstance(source, Image.Image):
        return source
    with _loading(name):
        _check_opened(source)
        return _as_mask(source, name)


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Make a UserError of any failure of a Pillow image, which loads its pixels when first asked for them."""
    try:
        yield
    except (MemoryError, UserError, ProfileWarning):  # the last where warnings are made errors
        raise
    except Exception as error:  # a damaged file can make Pillow raise anything
        found = f"a Pillow image that can't be loaded ({error})"
        raise UserError(name, found, "an intact one", "open its file again, and close it later") from error


def _check_opened(image: Image.Image) -> None:
    """Refuse an image of Pillow if its file would be refused."""
    file = getattr(image, "fp", None)  # None once it is loaded
    if image.format == "TIFF" and file is not None and not file.closed:
        position = file.tell()
        check_tiff(file, "Pillow image")
        file.seek(position)
    tags = getattr(image, "tag_v2", {})  # they are left when the file is closed
    if tags.get(254) == 1 or 50706 in tags:  # NewSubfileType, DNGVersion
        raise raw_error("Pillow image")


class _BoundedReader(io.BufferedReader):
    """A file whose `read` allocates no more than its size, whatever length a damaged header has."""

    def __init__(self, source: Path | FileContents) -> None:
        if isinstance(source, FileContents):
            super().__init__(io.BytesIO(source.data))  # it does as a raw stream
            self.end = len(source.data)
        else:
            super().__init__(io.FileIO(source))
            self.end = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None else min(size, max(0, self.end - self.tell())))


@contextmanager
def _opened(path: PictureFile) -> Iterator[ImageFile.ImageFile]:
    """An open picture file; any failure, also while it is being decoded, becomes a UserError."""
    source = path if isinstance(path, FileContents) else as_input(path, "picture")
    name = _name(source)
    if not isinstance(source, FileContents) and not os.path.isfile(source):  # Path.is_file may raise
        found, cure = what_is_there(source)
        raise UserError(name, found, "a picture file", cure)
    try:
        with warnings.catch_warnings():
            # Pillow warns at half its limit; only the limit itself is an error here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Damage that Pillow works around, in EXIF for example: users could do nothing about it.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            # A file object, not the name: Pillow would map some files into memory by their name, and
            # then confuses rows and columns of a gray TIFF whose orientation is not upright.
            with _BoundedReader(source) as file:
                prepare(file, name)
                whole = without_bad_chunks(file, name)
                try:
                    image = Image.open(whole)
                except UnidentifiedImageError:
                    raise unidentified(file, name) from None
                with image:
                    if image.format in EXECUTABLE_FORMATS:
                        raise unidentified(file, name)
                    yield with_end(image, file, name) if image.format in ("JPEG", "MPO") else image
    except (MemoryError, UserError, PictureWarning):  # the last where warnings are made errors
        raise
    except Exception as error:  # a damaged file can make Pillow raise anything
        raise _reading_error(name, error) from error


def _name(path: PictureFile) -> str:
    """What a picture file is called in errors."""
    return f"picture: {path.name if isinstance(path, FileContents) else path}"


def _reading_error(name: str, error: Exception) -> UserError:
    """What an exception of Pillow means for the user."""
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        return UserError(name, "too many pixels", f"at most {limit} million", "make it smaller first")
    if isinstance(error, PermissionError):
        return UserError(name, f"{error.strerror}", "a readable file", "check its permissions")
    return UserError(name, f"a damaged file ({error})", "an intact one", "copy it again")


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    """The image in sRGB, upright, on white."""
    colors, alpha = _split_alpha(image, name)
    try:
        colors = to_srgb(colors, _profile_info(image))
    except ImageCms.PyCMSError as error:
        reason = printable(str(error))
        text = f"{name}: its color profile is not used, its values are taken as they are: {reason}"
        warnings.warn(text, ProfileWarning, stacklevel=3)
        colors = colors.convert("RGB")
    return _composite(colors, alpha, "white")


def _profile_info(image: Image.Image) -> dict[Any, Any]:
    """Pillow's `info`, without the profile of CIELAB: such values need none, and Pillow converts them."""
    return {key: value for key, value in image.info.items() if key != "icc_profile" or image.mode != "LAB"}


def _as_mask(image: Image.Image, name: str) -> Mask:
    """The luma of the stored values, upright, on black, from 0 to 1."""
    colors, alpha = _split_alpha(image, name)
    luma = _composite(colors.convert("RGB"), alpha, "black").convert("L")
    return np.asarray(luma, np.float32) / np.float32(255)


def _split_alpha(image: Image.Image, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Upright colors in 8 bits (L, RGB or CMYK), not multiplied by alpha; and the alpha channel, if any."""
    color_mode, scale = _color_mode(image.mode), scale_of(image)
    image = ImageOps.exif_transpose(image)
    if is_deep(image.mode):
        image = to_8_bits(image, scale, name)
    alpha = None
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    return image.convert(color_mode), alpha


def _color_mode(mode: str) -> str:
    """L, RGB or CMYK: the kind of colors in an image of a mode."""
    if mode in ("1", "L", "LA", "La") or is_deep(mode):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


def _composite(colors: Image.Image, alpha: Image.Image | None, background: str) -> Image.Image:
    """The colors over a background color, as RGB."""
    if alpha is None:
        return colors
    foreground = colors.copy()
    foreground.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", foreground.size, background), foreground).convert("RGB")
