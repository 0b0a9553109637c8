"""Pictures of more than 8 bits per channel: their conversion, and the 16-bit PNG and TIFF files.

Pillow writes neither format in color with 16 bits, and reads only the upper 8 bits of such files. Nor does it
write TIFF in tiles, so that large files of 8 bits are written here, too.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from npstyle._runtime.chunks import in_chunks
from npstyle.images.arrays import PictureWarning
from npstyle.images.icc import srgb_profile
from npstyle.images.metadata import IMAGE_DESCRIPTION, TEXT_KEY, encoded

Deep = NDArray[np.uint16]

CHUNK_BYTES = 2**20  # compressed at a time, so that the memory needed does not grow with the picture
MAX_CLIPPED = 0.01  # the part of a floating-point picture that may be lights beyond its white
MAX_TIFF_BYTES = 2**32 - 2**24  # 32 bits for offsets; deflated data may be slightly larger than the input
# Larger TIFF files are written in tiles: who looks at a part of such a picture need not read whole rows.
MAX_PIXELS_IN_STRIPS = 2**25
TILE = 256  # pixels in both directions


def is_deep(mode: str) -> bool:
    """Whether a mode of Pillow has one channel of more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


class Scale(NamedTuple):
    """What a file says of a deep image's values."""

    white: float | None = None  # None where it is guessed
    unsigned: bool = False  # 32 bits that Pillow returns as if they had a sign
    inverted: bool = False  # 0 is white


def scale_of(image: Image.Image) -> Scale:
    """The scale of a deep image as Pillow opened it; it is lost in copies."""
    if image.format in ("PNG", "PPM"):
        return Scale(65535.0)
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return Scale(65535.0) if image.mode.startswith("I;16") else Scale()
    bits, kind = (int(tags.get(tag, (1,))[0]) for tag in (258, 339))  # BitsPerSample, SampleFormat
    inverted = tags.get(262) == 0  # PhotometricInterpretation: WhiteIsZero
    if kind == 3 or bits > 16:
        return Scale(None, kind == 1, inverted)
    return Scale(2.0 ** (bits - (kind == 2)) - 1, False, inverted)


def to_8_bits(image: Image.Image, scale: Scale, name: str) -> Image.Image:
    """Convert a deep image to gray, mode L, or LA if it has a transparent value.

    Pillow's own conversion would clip at 255. Of 16 bits white is 65535, with a sign 32767, of 12 bits 4095.
    For 32 bits and floating point no file says which value is white: it is the smallest of 1 (floating point
    only), 255 and 65535 that no value exceeds by more than half, which leaves room for the overshoot of
    resampling, or else the largest value. Floating-point pictures whose lights are beyond 1 in a few places
    only (HDR) are clipped there.

    Warns
    -----
    PictureWarning
        About `name`: some values are beyond white, or all are far below it.
    """
    values = np.asarray(image)
    if scale.unsigned and values.dtype == np.int32:
        values = values.view(np.uint32)
    with np.errstate(invalid="ignore"):  # converting a signaling NaN would warn
        values = values.astype(np.float64)
    largest = np.max(values, initial=0, where=np.isfinite(values))
    values = np.nan_to_num(values, posinf=largest or 1)
    white = scale.white if scale.white is not None else _white(values, image.mode == "F", name)
    levels = np.clip(values / white, 0, 1) if white > 0 else np.zeros_like(values)
    gray = Image.fromarray(np.rint((1 - levels if scale.inverted else levels) * 255).astype(np.uint8))
    if "transparency" in image.info:  # one of 65536 values: its neighbors share its 8 bits, but are opaque
        opaque = values != image.info["transparency"]
        gray.putalpha(Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8)))
    return gray


def _white(values: NDArray[np.float64], floating: bool, name: str) -> float:
    """Which value is white, guessed from all of them."""
    largest = float(values.max())
    whites = (1.0, 255.0, 65535.0) if floating else (255.0, 65535.0)
    white = next((white for white in whites if largest <= 1.5 * white), largest)
    beyond = float(np.mean(values > 1.5))
    if floating and 0 < beyond <= MAX_CLIPPED:
        text = f"{name}: {100 * beyond:.2g} percent of the values are beyond white, 1, up to {largest:.3g}"
        warnings.warn(f"{text}; they are clipped: tone-map it first", PictureWarning, stacklevel=2)
        return 1.0
    bright = float(np.quantile(values, 1 - MAX_CLIPPED))
    if white > 1 and bright < white / 4:
        text = f"{name}: nearly all values are below {bright:.3g}, and {white:.3g} is taken for white"
        warnings.warn(f"{text}; if it is too dark, tone-map it to 0..1 first", PictureWarning, stacklevel=2)
    return white


def to_16_bits(pixels: NDArray[Any]) -> Deep:
    """Scale from 0..255 to 0..65535, round to the nearest integer (ties to even) and clip."""

    def of_rows(rows: NDArray[Any]) -> Deep:
        scaled = np.multiply(np.clip(rows, 0, 255), 257, dtype=np.float32)
        return np.asarray(np.rint(scaled), np.uint16)

    return in_chunks(of_rows, pixels)


def write_png16(file: BinaryIO, values: Deep, text: Mapping[str, str] | None) -> None:
    """Write a 16-bit PNG file, labeled as sRGB.

    Parameters
    ----------
    file : binary file
    values : (H, W, 3) array, or (H, W, 4) with alpha
    text : mapping of str to str, or None
        As for `npstyle.images.write`.

    Notes
    -----
    Source: W3C, "Portable Network Graphics (PNG) Specification".
    """

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    H, W, C = values.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 16, 2 if C == 3 else 6, 0, 0, 0))
    chunk(b"sRGB", b"\0")
    if text:
        chunk(b"tEXt", f"{TEXT_KEY}\0{encoded(text)}".encode("ascii"))
    compressor, above = zlib.compressobj(), np.zeros((1, 2 * W * C), np.uint8)
    for part in _row_chunks(values):
        rows = part.astype(">u2").reshape(len(part), -1).view(np.uint8)
        # Each row begins with the number of its filter. Filter 2, "up": each byte minus the one above it.
        filtered = np.insert(rows - np.vstack([above, rows[:-1]]), 0, 2, axis=1)
        chunk(b"IDAT", compressor.compress(filtered.tobytes()))
        above = rows[-1:]
    chunk(b"IDAT", compressor.flush())
    chunk(b"IEND", b"")


def is_tiled(values: NDArray[Any]) -> bool:
    """Whether a picture is so large that its TIFF file is written in tiles."""
    H, W = values.shape[:2]
    return bool(H * W > MAX_PIXELS_IN_STRIPS)


def write_tiff(file: BinaryIO, values: NDArray[Any], text: Mapping[str, str] | None) -> None:
    """Write a TIFF file, deflated, with an sRGB profile; BigTIFF if it might be larger than 4 GB.

    It is in strips, or in tiles where it is large: `is_tiled`.

    Parameters
    ----------
    file : binary file
        Seekable.
    values : (H, W, 3) array, or (H, W, 4) with alpha
        Of 8 or 16 bits.
    text : mapping of str to str, or None
        As for `npstyle.images.write`.

    Notes
    -----
    Source: Adobe, "TIFF Revision 6.0", 1992, sections 6 (RGB), 14 (predictor), 15 (tiles) and 18 (alpha);
    deflate is from "Adobe Photoshop TIFF Technical Notes", 2002. BigTIFF: offsets and counts of 64 bits, as
    in libtiff.
    """
    H, W, C = values.shape
    tiled, itemsize = is_tiled(values), values.itemsize
    stored = (H + -H % TILE) * (W + -W % TILE) * C * itemsize if tiled else values.nbytes
    form = BIG if stored > MAX_TIFF_BYTES else CLASSIC
    file.write(form.head)  # little-endian; the offset of the directory is filled in at the end
    offsets, lengths = [], []
    for part in _tiles(values) if tiled else _row_chunks(values):
        # The predictor: each value minus the same channel's value in the pixel to its left.
        differences = np.diff(part, axis=1, prepend=values.dtype.type(0))
        compressed = zlib.compress(differences.astype(f"<u{itemsize}", copy=False).tobytes())
        offsets.append(file.tell())
        lengths.append(file.write(compressed))
    if tiled:  # TileWidth, TileLength, TileOffsets, TileByteCounts
        places = {322: _longs(TILE), 323: _longs(TILE), 324: _offsets(form, offsets), 325: _longs(*lengths)}
    else:  # StripOffsets, RowsPerStrip, StripByteCounts
        places = {273: _offsets(form, offsets), 278: _longs(_rows_per_chunk(values)), 279: _longs(*lengths)}
    fields = places | {
        256: _longs(W),  # ImageWidth
        257: _longs(H),  # ImageLength
        258: _shorts(*[8 * itemsize] * C),  # BitsPerSample
        259: _shorts(8),  # Compression: deflate
        262: _shorts(2),  # PhotometricInterpretation: RGB
        IMAGE_DESCRIPTION: _ascii(encoded(text) if text else ""),
        277: _shorts(C),  # SamplesPerPixel
        282: _rational(1, 1),  # XResolution
        283: _rational(1, 1),  # YResolution
        284: _shorts(1),  # PlanarConfiguration: the channels of a pixel are adjacent
        296: _shorts(1),  # ResolutionUnit: none; the two resolutions only say that pixels are square
        317: _shorts(2),  # Predictor: horizontal differences
        338: _shorts(*[2] * (C - 3)),  # ExtraSamples: alpha, not multiplied into the colors
        34675: _undefined(srgb_profile() or b""),  # the ICC profile
    }
    entries = [_directory_entry(file, form, *field) for field in sorted(fields.items()) if field[1].length]
    offset = _even_offset(file)
    file.write(struct.pack(form.entries, len(entries)) + b"".join(entries) + bytes(form.offset_bytes))
    file.seek(len(form.head) - form.offset_bytes)
    file.write(struct.pack(form.offset, offset))


class _Form(NamedTuple):
    """How a kind of TIFF begins, and its structures in the notation of `struct`."""

    head: bytes  # it ends with the offset of the directory
    entries: str  # their number
    entry: str  # tag, type, number of values
    offset: str
    offset_bytes: int
    offset_type: int


CLASSIC = _Form(b"II*\0" + bytes(4), "<H", "<HHI", "<I", 4, 4)
BIG = _Form(b"II+\0" + struct.pack("<HH", 8, 0) + bytes(8), "<Q", "<HHQ", "<Q", 8, 16)

DEEP_WRITERS = {"PNG": write_png16, "TIFF": write_tiff}


def _row_chunks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The rows of a picture (H, W, C), about `CHUNK_BYTES` at a time."""
    rows = _rows_per_chunk(values)
    for top in range(0, len(values), rows):
        yield values[top : top + rows]


def _tiles(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """A picture (H, W, C) in tiles, row by row; the last are filled with copies of the outermost pixels."""
    for top in range(0, len(values), TILE):
        for left in range(0, values.shape[1], TILE):
            tile = values[top : top + TILE, left : left + TILE]
            h, w, _ = tile.shape
            yield np.pad(tile, ((0, TILE - h), (0, TILE - w), (0, 0)), "edge")


def _rows_per_chunk(values: NDArray[Any]) -> int:
    return min(len(values), max(1, CHUNK_BYTES // int(values[0].nbytes)))


class _Field(NamedTuple):
    """The content of a TIFF field: the code of its type, how many values, and their bytes."""

    type_code: int
    length: int
    data: bytes


def _ascii(text: str) -> _Field:
    data = text.encode("ascii") + b"\0" if text else b""
    return _Field(2, len(data), data)


def _shorts(*values: int) -> _Field:
    return _Field(3, len(values), struct.pack(f"<{len(values)}H", *values))


def _longs(*values: int) -> _Field:
    return _Field(4, len(values), struct.pack(f"<{len(values)}I", *values))


def _rational(numerator: int, denominator: int) -> _Field:
    return _Field(5, 1, struct.pack("<II", numerator, denominator))


def _undefined(data: bytes) -> _Field:
    return _Field(7, len(data), data)


def _offsets(form: _Form, values: Sequence[int]) -> _Field:
    return _Field(form.offset_type, len(values), struct.pack(f"<{len(values)}{form.offset[-1]}", *values))


def _directory_entry(file: BinaryIO, form: _Form, tag: int, field: _Field) -> bytes:
    """An entry of the directory. Data longer than an offset is written to the file first."""
    data = field.data
    if len(data) > form.offset_bytes:
        offset = _even_offset(file)
        file.write(data)
        data = struct.pack(form.offset, offset)
    return struct.pack(form.entry, tag, field.type_code, field.length) + data.ljust(form.offset_bytes, b"\0")


def _even_offset(file: BinaryIO) -> int:
    """The current offset, after a padding byte if it was odd: TIFF requires even ones."""
    file.write(bytes(file.tell() % 2))
    return file.tell()
