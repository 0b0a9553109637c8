"""What the tests of `npstyle.images` share: small pictures, orientations, PNG files chunk by chunk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from helpers import png_chunk

Pixels = NDArray[np.uint8]
Patch = pytest.MonkeyPatch

PICTURE: Pixels = np.random.default_rng(11).integers(0, 256, (20, 30, 3), dtype=np.uint8)
ROW, COLUMN = np.mgrid[0:40, 0:60].astype(np.float32)
SMOOTH: Pixels = np.stack([4 * COLUMN, 6 * ROW, 255 - 2 * (ROW + COLUMN)], axis=2).astype(np.uint8)

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112  # the EXIF tag
# How to turn a stored picture upright, by its EXIF orientation.
UPRIGHT: dict[int, Callable[[NDArray[Any]], Any]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


def row(*pixels: Any, dtype: type = np.uint8) -> Image.Image:
    """An image of one row of pixels, in the mode that Pillow has for them."""
    return Image.fromarray(np.array([pixels], dtype))


def gray(*values: int) -> list[tuple[int, int, int]]:
    return [(value, value, value) for value in values]


def palette() -> Image.Image:
    """The indices 0, 1, 2 of a palette of red, green, blue."""
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    return image


def orientation_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def raises(error: BaseException) -> Callable[..., Any]:
    """A function that raises the error, whatever its arguments."""

    def function(*_: object, **__: object) -> None:
        raise error

    return function


def png_chunks(path: Path) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG file, whose checksums must be right: kinds and contents."""
    data = path.read_bytes()
    assert data[:8] == PNG_SIGNATURE
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert data[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(kind + content))
        chunks.append((kind, content))
        at += 12 + length
    return chunks


def write_png_chunks(path: Path, chunks: dict[bytes, bytes]) -> None:
    path.write_bytes(PNG_SIGNATURE + b"".join(png_chunk(kind, data) for kind, data in chunks.items()))
