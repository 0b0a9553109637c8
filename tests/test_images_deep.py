"""16-bit files, decoded here to the last bit: Pillow reads only their upper 8 bits."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from helpers import error_line
from npstyle import images
from npstyle.images import deep
from pictures import PICTURE, Patch, png_chunks, raises


def decode_png16(path: Path) -> NDArray[np.int64]:
    """The values (H, W, C) of a 16-bit PNG file that uses the filters 0 and 2."""
    chunks = png_chunks(path)
    W, H, bits, color, *rest = struct.unpack(">IIBBBBB", dict(chunks)[b"IHDR"])
    assert (bits, rest) == (16, [0, 0, 0])
    C = {2: 3, 6: 4}[color]
    rows = np.frombuffer(
        zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT")), np.uint8
    )
    rows = rows.reshape(H, 1 + 2 * W * C)
    above, decoded = np.zeros(2 * W * C, np.uint8), []
    for filtered in rows:
        assert filtered[0] in (0, 2)
        above = filtered[1:] + (above if filtered[0] == 2 else np.uint8(0))
        decoded.append(above)
    return np.stack(decoded).view(">u2").astype(np.int64).reshape(H, W, C)


def tiff_fields(data: bytes) -> dict[int, Any]:
    """The fields of a little-endian TIFF file with one directory."""
    assert data[:4] == b"II*\0"
    (at,) = struct.unpack_from("<I", data, 4)
    assert at % 2 == 0
    (entries,) = struct.unpack_from("<H", data, at)
    fields: dict[int, Any] = {}
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        tag, type_code, count = struct.unpack_from("<HHI", data, entry)
        form = {2: f"{count}s", 3: f"{count}H", 4: f"{count}I", 5: f"{2 * count}I", 7: f"{count}s"}[type_code]
        inline = struct.calcsize(f"<{form}") <= 4
        offset = entry + 8 if inline else struct.unpack_from("<I", data, entry + 8)[0]
        assert offset % 2 == 0
        values = struct.unpack_from(f"<{form}", data, offset)
        assert tag > max(fields, default=0)
        fields[tag] = values[0] if len(values) == 1 else list(values)
    assert data[at + 2 + 12 * entries : at + 6 + 12 * entries] == bytes(4)  # no second directory
    return fields


def decode_tiff16(path: Path) -> NDArray[np.int64]:
    """The values (H, W, C) of a deflated 16-bit TIFF file with differences along its rows."""
    data = path.read_bytes()
    field = tiff_fields(data)
    C = field[277]
    assert field[258] == [16] * C
    assert (field[259], field[262], field[284], field[317]) == (8, 2, 1, 2)
    assert field.get(338) == (2 if C == 4 else None)
    assert (field[282], field[283], field[296]) == ([1, 1], [1, 1], 1)  # required by baseline TIFF
    offsets, lengths = np.atleast_1d(field[273]).tolist(), np.atleast_1d(field[279]).tolist()
    strips = [zlib.decompress(data[at : at + n]) for at, n in zip(offsets, lengths, strict=True)]
    assert all(len(strip) == 2 * C * field[256] * field[278] for strip in strips[:-1])
    rows = np.frombuffer(b"".join(strips), "<u2").reshape(field[257], field[256], C)
    return np.cumsum(rows, axis=1, dtype=np.int64) % 65536


DECODERS: dict[str, Callable[[Path], NDArray[np.int64]]] = {"x.png": decode_png16, "x.tif": decode_tiff16}


@pytest.mark.parametrize("opaque", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 700), (900, 1), (300, 1000)], ids=str)
@pytest.mark.parametrize("name", DECODERS)
def test_16_bits_round_trip(name: str, size: tuple[int, int], opaque: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(size)
    values = rng.integers(0, 65536, (*size, 3))
    alpha = None if opaque else rng.integers(0, 256, size, dtype=np.uint8)
    # Up to 0.4 away from an integer of 16 bits.
    pixels = np.asarray((values + rng.uniform(-0.4, 0.4, values.shape)) / 257, np.float32)
    images.write(tmp_path / name, pixels, depth=16, alpha=alpha)
    expected = values if alpha is None else np.dstack([values, alpha.astype(np.int64) * 257])
    np.testing.assert_array_equal(DECODERS[name](tmp_path / name), expected)
    with Image.open(tmp_path / name) as image:
        np.testing.assert_array_equal(np.asarray(image), expected >> 8)


@pytest.mark.parametrize("name", DECODERS)
def test_16_bits_are_rounded_and_clipped(name: str, tmp_path: Path) -> None:
    pixels = np.array([[[-3.0, 255.4, 1e6], [0.5, 254.9999, 100 + 1 / 257]]])
    images.write(tmp_path / name, pixels, depth=16)
    expected = [[[0, 65535, 65535], [128, 65535, 25701]]]  # 0.5 is 128.5 of 16 bits, a tie: to even
    assert DECODERS[name](tmp_path / name).tolist() == expected
    images.write(tmp_path / name, PICTURE, overwrite=True, depth=16)
    np.testing.assert_array_equal(DECODERS[name](tmp_path / name), PICTURE.astype(int) * 257)
    np.testing.assert_array_equal(images.read(tmp_path / name), PICTURE)


@pytest.mark.parametrize("opaque", [True, False])
def test_tiff_beyond_4_gb_is_bigtiff(opaque: bool, tmp_path: Path, monkeypatch: Patch) -> None:
    """Whose offsets have 64 bits; here of a small picture, in several strips, with text and a profile."""
    monkeypatch.setattr(deep, "MAX_TIFF_BYTES", 1000)
    rng = np.random.default_rng(0)
    pixels, alpha = (
        rng.integers(0, 256, (300, 1000, 3), np.uint8),
        rng.integers(0, 256, (300, 1000), np.uint8),
    )
    path = tmp_path / "big.tif"
    images.write(path, pixels, depth=16, alpha=None if opaque else alpha, text={"seed": "1"})
    assert path.read_bytes()[:8] == b"II+\0\x08\0\0\0"
    with Image.open(path) as image:
        expected = pixels if opaque else np.dstack([pixels, alpha])
        np.testing.assert_array_equal(np.asarray(image), expected)
    described = images.describe(path)
    assert (described.mode.split(",")[0], described.profile) == ("RGB" if opaque else "RGBA", "sRGB")
    assert described.text == {"seed": "1"}


@pytest.mark.parametrize("size", [(256, 512), (257, 511), (300, 700), (9, 5)], ids=str)
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("big", [False, True])
def test_large_tiff_is_tiled(
    big: bool, depth: int, size: tuple[int, int], tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(deep, "MAX_PIXELS_IN_STRIPS", 10)
    monkeypatch.setattr(deep, "MAX_TIFF_BYTES", 1000 if big else 2**30)
    rng = np.random.default_rng(size)
    pixels, alpha = rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 256, size, np.uint8)
    for opacity in (None, alpha):
        path = tmp_path / f"{opacity is None}.tif"
        images.write(path, pixels, depth=depth, alpha=opacity, text={"seed": "1"})
        assert path.read_bytes()[:4] == (b"II+\0" if big else b"II*\0")
        with Image.open(path) as image:
            assert isinstance(image, TiffImageFile)
            fields, found = dict(image.tag_v2), np.asarray(image)
        assert (fields[322], fields[323], 273 in fields) == (256, 256, False)
        assert np.size(fields[324]) == -(-size[0] // 256) * -(-size[1] // 256)
        np.testing.assert_array_equal(found, pixels if opacity is None else np.dstack([pixels, alpha]))
        described = images.describe(path)
        assert (described.profile, described.text) == ("sRGB", {"seed": "1"})


def test_tiff_of_8_bits_is_tiled_as_that_of_16(tmp_path: Path, monkeypatch: Patch) -> None:
    images.write(tmp_path / "small.tif", PICTURE)
    monkeypatch.setattr(deep, "MAX_PIXELS_IN_STRIPS", 10)
    images.write(tmp_path / "large.tif", PICTURE)
    np.testing.assert_array_equal(images.read(tmp_path / "large.tif"), images.read(tmp_path / "small.tif"))


@pytest.mark.parametrize("name", DECODERS)
def test_full_disk_keeps_old_16_bit_file(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    full = os.strerror(errno.ENOSPC)
    monkeypatch.setattr(os, "fsync", raises(OSError(errno.ENOSPC, full)))
    line = error_line(lambda: images.write(path, PICTURE, overwrite=True, depth=16), f"output: {path}")
    assert line.startswith(f"found {full} on writing; expected a folder with room")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
