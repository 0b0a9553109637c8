"""Pictures in and out: whatever Pillow reads becomes RGB; a file is written whole or not at all."""

from __future__ import annotations

import io
import json
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps, PngImagePlugin, UnidentifiedImageError, features

from npstyle._runtime.atomic import check_writable, open_replacing
from npstyle.errors import UserError

Picture = NDArray[np.uint8]
Mask = NDArray[np.float32]

# How each kind of file is written: Pillow's format name and its options.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),  # 4:4:4, colors at full resolution
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95, "method": 5}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}

LONGEST = {"JPEG": 65500, "WEBP": 16383}  # pixels on a side, where a format has a limit
WITH_ALPHA = ("PNG", "WEBP", "TIFF")
WITH_16_BITS = ("PNG", "TIFF")

# A picture of this format is a program, which Pillow has Ghostscript run, for as long as it likes.
PROGRAMS = ("EPS",)
# What Pillow logs about a damaged file would else stand on standard error, beside what is said here.
logging.getLogger("PIL").addHandler(logging.NullHandler())

KEY = "npstyle"  # what the settings are filed under in a picture
DESCRIPTION = 270  # the tag ImageDescription, of TIFF and EXIF
# How finely LittleCMS samples a profile before it converts: gray at every level, as with its default shadows
# would be 10 levels off; the rest at its high resolution. Pillow's names are younger than the oldest Pillow
# that will do.
SAMPLING: dict[str, Any] = {"L": 255 << 16, "RGB": 0x400, "CMYK": 0x400}


class ProfileWarning(UserWarning):
    """A picture's color profile can't be used, so its numbers are taken as if it had none."""


class Description(NamedTuple):
    """What `describe` finds in a file: format, upright size, Pillow's mode, colors and stored text."""

    kind: str
    width: int
    height: int
    mode: str
    profile: str
    text: dict[str, str]


def read(path: str | os.PathLike[str]) -> Picture:
    """Picture of a file as (H, W, 3) uint8 sRGB: upright, on white where it is transparent.

    Gray, palette, CMYK, 16-bit and floating-point pictures are converted; 16 bits become 8. Colors are
    converted from the profile that the file carries; what sRGB can't show becomes the nearest it can.
    Of an animation the first frame is taken.

    Raises
    ------
    UserError
        Missing, not a picture, damaged, or too large to be believed (Pillow's limit).

    Warns
    -----
    ProfileWarning
        The profile is damaged or not for such a picture. Its numbers are taken as if it had none.
    """
    with _opened(path) as image:
        return np.array(_as_rgb(ImageOps.exif_transpose(image), f"picture: {path}"))


def read_alpha(path: str | os.PathLike[str]) -> Picture | None:
    """Opacity of a file's pixels as (H, W) uint8, upright: 0 transparent, 255 opaque; None if it has none.

    Raises
    ------
    UserError
        As `read`.
    """
    with _opened(path) as image:
        _, alpha = _separated(ImageOps.exif_transpose(image))
        return None if alpha is None else np.array(alpha)


def read_mask(path: str | os.PathLike[str]) -> Mask:
    """Mask of a file as (H, W) float32, upright: 1 (inside) where it is white, 0 (outside) where it is black.

    Every picture is good that `read` reads; colors count by their luma. What is transparent lies outside,
    whatever its color, and what is half transparent counts half: white on nothing is white on black.
    White is 255, or 65535 of 16 bits; a mask of zeros and ones is nearly black. A mask is numbers, not
    colors: its profile does not matter.

    Raises
    ------
    UserError
        As `read`.
    """
    with _opened(path) as image:
        return _as_mask(image)


def read_text(path: str | os.PathLike[str]) -> dict[str, str]:
    """What `write` was given to store in the file as `text`; empty, if nothing was.

    Raises
    ------
    UserError
        As `read`, or what is stored is damaged.
    """
    return describe(path).text


def describe(path: str | os.PathLike[str]) -> Description:
    """What a file carries besides its pixels.

    Raises
    ------
    UserError
        As `read`, or the text stored in it is damaged.
    """
    with _opened(path) as image:
        # Pillow may show fewer bits than there are; its decoder's name tells. Once loaded that is gone.
        mode = image.mode + (", 16 bits" if ";16" in str(image.tile) else "")
        width, height = ImageOps.exif_transpose(image).size  # loads it: a text may stand behind the pixels
        return Description(
            image.format or "", width, height, mode, _profile_in_words(image), _text_in(image, path)
        )


class _Patient(io.BufferedReader):
    """A file that is asked for gigabytes without making room for more than it has."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.end = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None else min(size, max(0, self.end - self.tell())))


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[ImageFile.ImageFile]:
    """A picture file for as long as it is looked at; whatever goes wrong meanwhile becomes a UserError."""
    path = Path(path)
    if not os.path.isfile(path):  # Path.is_file may raise
        raise UserError(f"picture: {path}", what_is_there(path), "a picture file", "check the name")
    try:
        with warnings.catch_warnings():
            # Pillow warns at half its limit; only the limit itself is an error here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Damage that it reads around, in EXIF for example, is nothing that anyone could act on.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            # By its name, Pillow maps some files into memory, and mistakes rows for columns where a gray TIFF
            # lies on its side.
            with _Patient(path) as file, Image.open(file) as image:
                if image.format in PROGRAMS:
                    raise UnidentifiedImageError
                yield image
    except (MemoryError, UserError, ProfileWarning):  # the last where warnings are made errors
        raise
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
    except Exception as error:  # a damaged file can make Pillow raise anything
        raise UserError(
            f"picture: {path}", f"a damaged file ({error})", "a whole one", "copy it again"
        ) from error


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    """In sRGB, on white."""
    colors, alpha = _separated(image)
    try:
        colors = _in_srgb(colors, image.info)
    except ImageCms.PyCMSError as error:
        text = f"{name}: its color profile is not used, its numbers are taken as they are: {error}"
        warnings.warn(text, ProfileWarning, stacklevel=4)
        colors = colors.convert("RGB")
    return _on(colors, alpha, "white")


def _as_mask(image: Image.Image) -> Mask:
    """Luma of the numbers, on black, from 0 to 1."""
    colors, alpha = _separated(ImageOps.exif_transpose(image))
    luma = _on(colors.convert("RGB"), alpha, "black").convert("L")
    return np.asarray(luma, np.float32) / np.float32(255)


def _separated(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colors of 8 bits (see `_kind`), as they are under any transparency; and the alpha channel, if any."""
    kind = _kind(image.mode)
    if _is_deep(image.mode):
        image = _to_8_bits(image)
    alpha = None
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    return image.convert(kind), alpha


def _kind(mode: str) -> str:
    """How the colors of a mode are understood: L, RGB or CMYK."""
    if mode in ("1", "L", "LA", "La") or _is_deep(mode):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


def _is_deep(mode: str) -> bool:
    return mode in ("I", "F") or mode.startswith("I;16")


def _on(colors: Image.Image, alpha: Image.Image | None, background: str) -> Image.Image:
    """RGB as it looks on a background."""
    if alpha is None:
        return colors
    front = colors.copy()
    front.putalpha(alpha)
    behind = Image.new("RGBA", front.size, background)
    return Image.alpha_composite(behind, front).convert("RGB")


def _in_srgb(colors: Image.Image, info: Mapping[Any, Any]) -> Image.Image:
    """L, RGB or CMYK from the profile in `info` to sRGB; PyCMSError with the reason if that can't be done."""
    if not _has_profile(info) or _is_ours(info["icc_profile"]):
        return colors.convert("RGB")
    profile, mode = _usable_profile(info["icc_profile"], colors.mode)
    converted = ImageCms.profileToProfile(
        colors.convert(mode),
        profile,
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.PERCEPTUAL,  # as viewers show photographs; the darkest ink becomes black
        "RGB",
        flags=SAMPLING[mode],
    )
    assert converted is not None  # only in place
    return converted


def _has_profile(info: Mapping[Any, Any]) -> bool:
    """Does the file have one? Pillow puts None where it couldn't make it out."""
    return "icc_profile" in info and info["icc_profile"] != b""


def _is_ours(profile: object) -> bool:
    """What we have written ourselves is to come back to the last bit."""
    return profile is not None and profile == srgb_profile()


def _usable_profile(profile: object, mode: str) -> tuple[ImageCms.ImageCmsProfile, str]:
    """The profile, and the mode it is for: L, RGB or CMYK."""
    if not features.check("littlecms2"):
        raise ImageCms.PyCMSError("Pillow was built without LittleCMS")
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile if isinstance(profile, bytes) else b""))
    except OSError:
        raise ImageCms.PyCMSError("it is damaged") from None
    space = opened.profile.xcolor_space.strip()
    wanted = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space, "")
    if wanted != mode and (wanted, mode) != ("RGB", "L"):  # gray is a color of RGB, too
        kind = "GRAY" if mode == "L" else mode
        raise ImageCms.PyCMSError(f"it is for {printable(space)}, the picture is {kind}")
    return opened, wanted


@cache
def srgb_profile() -> bytes | None:
    """The profile that goes into files, the same bytes every time; None if Pillow has no LittleCMS.

    Without a profile, colors are taken for sRGB everywhere, so that nothing is lost but the statement.
    """
    if not features.check("littlecms2"):
        return None
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Bytes 24 to 35 are the time at which LittleCMS made it: year, month, day, hour, minute, second.
    return made[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + made[36:]


def _profile_in_words(image: Image.Image) -> str:
    if not _has_profile(image.info):
        return "sRGB" if "srgb" in image.info else "none"
    profile = image.info["icc_profile"]
    if _is_ours(profile):
        return "sRGB"
    try:
        opened, _ = _usable_profile(profile, _kind(image.mode))
        return printable(ImageCms.getProfileDescription(opened).strip()) or "without a name"
    except ImageCms.PyCMSError as error:
        return f"not used: {error}"


def _text_in(image: Image.Image, path: str | os.PathLike[str]) -> dict[str, str]:
    """What `_labels` has put there."""
    stored = image.info.get(KEY)
    if stored is None:
        for comment in (image.info.get("comment"), image.getexif().get(DESCRIPTION)):
            words = comment.decode("latin-1") if isinstance(comment, bytes) else str(comment)
            if words.startswith(f'{{"{KEY}":'):
                stored = words
    if stored is None:
        return {}
    try:
        text = json.loads(stored)[KEY]
        if isinstance(text, dict) and all(isinstance(value, str) for value in text.values()):
            return text
    except (TypeError, ValueError, LookupError):
        pass
    raise UserError(
        f"picture: {path}", "damaged settings in it", "those that npstyle wrote", "take another copy"
    )


def printable(text: str) -> str:
    """On one line, and nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """One channel of more than 8 bits to gray; Pillow's own conversion would cut off at 255.

    What is white stands in no file: 16 bits have 65535; in 32 bits and floats it is the smallest of 1
    (floats only), 255 and 65535 that nothing exceeds by more than resampling may have added, or else
    the largest number there is.
    """
    with np.errstate(invalid="ignore"):  # some kinds of NaN are told of when they are converted
        values = np.nan_to_num(np.asarray(image, np.float64))
    whites = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(image.mode, (65535.0,))
    full = next((white for white in whites if values.max() <= 1.5 * white), values.max())
    gray = Image.fromarray(np.rint(np.clip(values / full, 0, 1) * 255).astype(np.uint8))
    if "transparency" in image.info:  # one of the 65536 values; of the 256 several may be meant
        gray.putalpha(
            Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
        )
    return gray


def from_pillow(source: Any) -> Any:
    """A Pillow image as `read` would give it; anything else as it is."""
    if not isinstance(source, Image.Image):
        return source
    return np.array(_as_rgb(ImageOps.exif_transpose(source), "Pillow image"))


def mask_from_pillow(source: Any) -> Any:
    """A Pillow image as `read_mask` would give it; anything else as it is."""
    if not isinstance(source, Image.Image):
        return source
    return _as_mask(source)


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
    """Resample a picture (H, W, 3), or one channel (H, W), with Lanczos' filter.

    It is wide enough to take in every pixel when reducing. uint8 stays uint8; anything else becomes float32.
    """
    H, W = picture.shape[:2]
    if (width, height) == (W, H):
        return picture if picture.dtype == np.uint8 else np.asarray(picture, np.float32)
    if picture.dtype == np.uint8:
        return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
    if picture.ndim == 3:
        return np.stack([resize(channel, width, height) for channel in np.moveaxis(picture, 2, 0)], axis=2)
    channel = Image.fromarray(np.ascontiguousarray(picture, np.float32))
    return np.array(channel.resize((width, height), Image.Resampling.LANCZOS))


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
    if not os.path.isdir(path):
        _format_of(path)
    check_writable(path, overwrite)
    return path


def check_dimensions(path: Path, width: int, height: int) -> None:
    """Make sure, before a long run, that a picture of this size fits into the file format."""
    form, _ = _format_of(path)
    longest = LONGEST.get(form)
    if longest and max(width, height) > longest:
        raise UserError(
            f"output: {path}", f"{width} x {height} pixels", f"at most {longest} in {form}", "write a PNG"
        )


def check_alpha(path: str | os.PathLike[str]) -> None:
    """Make sure, before a long run, that the file format has room for transparency."""
    _check_format(Path(path), WITH_ALPHA, "which has no transparency")


def check_depth(path: str | os.PathLike[str], depth: int) -> None:
    """Make sure, before a long run, that the file format has so many bits for each number: 8 or 16."""
    if depth not in (8, 16):
        raise UserError("depth", repr(depth), "8 or 16", "take one of these")
    if depth == 16:
        _check_format(Path(path), WITH_16_BITS, "which has 8 bits")


def _check_format(path: Path, able: tuple[str, ...], lack: str) -> None:
    form, _ = _format_of(path)
    if form not in able:
        cure = f"take for example {path.with_suffix('.png')}"
        raise UserError(f"output: {path}", f"{form}, {lack}", " or ".join(able), cure)


def write(
    path: str | os.PathLike[str],
    picture: NDArray[Any],
    overwrite: bool = True,
    *,
    alpha: Picture | None = None,
    depth: int = 8,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write a picture in the format of its extension: to a temporary file beside it, then renamed.

    Whoever looks at `path` finds the old file or the new one, never half of one. The colors are labeled
    as sRGB. The same arguments make the same bytes.

    Parameters
    ----------
    path : path
    picture : (H, W, 3) array
        sRGB from 0 to 255; of numbers that are not uint8, what lies outside is clipped.
    overwrite : bool
    alpha : (H, W) uint8 array, optional
        How opaque each pixel is, as from `read_alpha`. Not in JPEG.
    depth : {8, 16}
        Bits of each number. 16 only in PNG and TIFF.
    text : mapping of str to str, optional
        Kept in the file, for `read_text`.

    Raises
    ------
    UserError
        The disk is full, the folder is gone, the format has no room for that many pixels, for transparency or
        for 16 bits; or the file exists and `overwrite` is False.
    """
    form, options = _format_of(Path(path))
    check_depth(path, depth)
    values = picture
    if depth == 16:
        values = _to_16_bits(picture)
    elif picture.dtype != np.uint8:
        values = to_uint8(picture)
    if alpha is not None:
        check_alpha(path)
        values = _with_alpha(values, alpha)
    try:
        with open_replacing(Path(path), overwrite) as file:
            if depth == 16:
                WRITERS_OF_16_BITS[form](file, values, text)
            else:
                Image.fromarray(values).save(file, format=form, **options, **_labels(form, text))
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"output: {path}",
            f"{getattr(error, 'strerror', None) or error} on writing",
            "a folder with room and a format for this size",
            "choose another",
        ) from error


def _with_alpha(picture: NDArray[Any], alpha: Picture) -> NDArray[Any]:
    """(H, W, 4), in the picture's type."""
    H, W, _ = picture.shape
    if np.shape(alpha) != (H, W) or alpha.dtype != np.uint8:
        found = f"{alpha.dtype} array of shape {np.shape(alpha)}"
        raise UserError("alpha", found, f"uint8 of shape {(H, W)}", "npstyle.images.resize it")
    deep = alpha if picture.dtype == np.uint8 else alpha.astype(np.uint16) * 257
    return np.dstack([picture, deep])


def _to_16_bits(pixels: NDArray[Any]) -> NDArray[np.uint16]:
    """From 0..255 to 0..65535, rounded and clipped."""
    scaled = np.multiply(np.clip(pixels, 0, 255), 257, dtype=np.float32)
    return np.asarray(np.rint(scaled), np.uint16)


def _labels(form: str, text: Mapping[str, str] | None) -> dict[str, Any]:
    """Options for Pillow: that the colors are sRGB, and the text to keep."""
    if form == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add(b"sRGB", b"\0")  # 0: perceptual, as for photographs
        if text:
            chunks.add_text(KEY, _json(text))
        return {"pnginfo": chunks}
    labels: dict[str, Any] = {"icc_profile": srgb_profile()}
    if text and form == "JPEG":
        labels["comment"] = _json(text).encode("ascii")
    elif text and form == "TIFF":
        labels["tiffinfo"] = {DESCRIPTION: _json(text)}
    elif text:
        labels["exif"] = Image.Exif()
        labels["exif"][DESCRIPTION] = _json(text)
    return labels


def _json(text: Mapping[str, str]) -> str:
    """In ASCII, so that no format's encoding matters."""
    return json.dumps({KEY: dict(text)})


def _bands(values: NDArray[np.uint16]) -> Iterator[NDArray[np.uint16]]:
    """The rows of a picture (H, W, C), about a megabyte at a time."""
    rows = _rows_of_a_band(values)
    for top in range(0, len(values), rows):
        yield values[top : top + rows]


def _rows_of_a_band(values: NDArray[np.uint16]) -> int:
    return min(len(values), max(1, 2**20 // int(values[0].nbytes)))


def _write_png16(file: BinaryIO, values: NDArray[np.uint16], text: Mapping[str, str] | None) -> None:
    """A PNG file of 16 bits, (H, W, 3) or with alpha (H, W, 4), which Pillow can't write."""

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    H, W, C = values.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 16, 2 if C == 3 else 6, 0, 0, 0))
    chunk(b"sRGB", b"\0")
    if text:
        chunk(b"tEXt", f"{KEY}\0{_json(text)}".encode("ascii"))
    packer, above = zlib.compressobj(), np.zeros((1, 2 * W * C), np.uint8)
    for band in _bands(values):
        rows = band.astype(">u2").reshape(len(band), -1).view(np.uint8)
        # Each row begins with its filter: 2, the difference to the row above, byte by byte.
        filtered = np.insert(rows - np.vstack([above, rows[:-1]]), 0, 2, axis=1)
        chunk(b"IDAT", packer.compress(filtered.tobytes()))
        above = rows[-1:]
    chunk(b"IDAT", packer.flush())
    chunk(b"IEND", b"")


def _write_tiff16(file: BinaryIO, values: NDArray[np.uint16], text: Mapping[str, str] | None) -> None:
    """A TIFF file of 16 bits, (H, W, 3) or with alpha (H, W, 4), which Pillow can't write."""
    H, W, C = values.shape
    if values.nbytes > 2**32 - 2**24:  # deflated it may need a little more than it was
        raise ValueError("more than the 4 GB of TIFF")
    file.write(b"II*\0" + bytes(4))  # where the directory stands is put there at the end
    starts, lengths = [], []
    for band in _bands(values):
        # The predictor: each number less the one of the pixel to its left.
        packed = zlib.compress(np.diff(band.astype("<u2"), axis=1, prepend=np.uint16(0)).tobytes())
        starts.append(file.tell())
        lengths.append(file.write(packed))
    fields: dict[int, tuple[str, Any]] = {
        256: ("I", [W]),
        257: ("I", [H]),
        258: ("H", [16] * C),  # bits of each sample
        259: ("H", [8]),  # deflate
        262: ("H", [2]),  # RGB
        DESCRIPTION: ("s", _json(text).encode("ascii") + b"\0" if text else b""),
        273: ("I", starts),
        277: ("H", [C]),
        278: ("I", [_rows_of_a_band(values)]),
        279: ("I", lengths),
        284: ("H", [1]),  # the samples of a pixel stand together
        317: ("H", [2]),  # the predictor
        338: ("H", [2] * (C - 3)),  # the fourth sample is alpha, not multiplied into the colors
        34675: ("p", srgb_profile() or b""),
    }
    directory = [_tiff_field(file, tag, *field) for tag, field in fields.items() if field[1]]
    where = _even(file)
    file.write(struct.pack("<H", len(directory)) + b"".join(directory) + bytes(4))
    file.seek(4)
    file.write(struct.pack("<I", where))


def _tiff_field(file: BinaryIO, tag: int, kind: str, values: Any) -> bytes:
    """An entry of the directory. What needs more than its 4 bytes is written to the file first."""
    code = {"s": 2, "H": 3, "I": 4, "p": 7}[kind]  # ASCII, SHORT, LONG, UNDEFINED
    data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{kind}", *values)
    if len(data) > 4:
        where = _even(file)
        file.write(data)
        data = struct.pack("<I", where)
    return struct.pack("<HHI", tag, code, len(values)) + data.ljust(4, b"\0")


def _even(file: BinaryIO) -> int:
    """Where the file goes on, at an even place."""
    file.write(bytes(file.tell() % 2))
    return file.tell()


WRITERS_OF_16_BITS = {"PNG": _write_png16, "TIFF": _write_tiff16}


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


def png(picture: Picture) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()
