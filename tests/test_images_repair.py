"""Files with damage beside their pixels are read, and what is left out is said."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import error_line, png_chunk
from icc_profiles import P3, rgb_profile
from npstyle import images
from pictures import PICTURE, PNG_SIGNATURE, SMOOTH

READERS = (images.read, images.read_alpha, images.read_mask, images.describe)


def png_with(*chunks: bytes, after: bool = False) -> bytes:
    """A PNG file of PICTURE with these chunks before its pixels, or after them."""
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, "PNG")
    data = stream.getvalue()
    at = len(data) - 12 if after else data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def damaged(chunk: bytes) -> bytes:
    """The chunk with a wrong checksum."""
    return chunk[:-4] + bytes(byte ^ 255 for byte in chunk[-4:])


LONG = zlib.compress(b"a" * (2**20 + 1))
LONG_TEXTS = [
    png_chunk(b"zTXt", b"parameters\0\0" + LONG),
    png_chunk(b"iTXt", b"workflow\0\1\0en\0\0" + LONG),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("chunk", LONG_TEXTS, ids=["zTXt", "iTXt"])
def test_png_with_a_text_that_inflates_beyond_pillows_limit(
    chunk: bytes, after: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(
        png_with(chunk, png_chunk(b"tEXt", b"npstyle\0" + b'{"npstyle": {"a": "b"}}'), after=after)
    )
    for read in READERS:
        read(path)  # without a warning
    np.testing.assert_array_equal(images.read(path), PICTURE)
    assert images.read_text(path) == {"a": "b"}


def test_png_with_too_many_texts(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 2**20))
    path.write_bytes(png_with(*[text] * 65))
    np.testing.assert_array_equal(images.read(path), PICTURE)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("kind", "data"),
    [(b"tEXt", b"Title\0x"), (b"tIME", struct.pack(">H5B", 2020, 1, 1, 0, 0, 0)), (b"eXIf", b"II*\0")],
)
def test_png_with_a_wrong_checksum_beside_its_pixels(
    kind: bytes, data: bytes, after: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png_with(damaged(png_chunk(kind, data)), after=after))
    for read in READERS:
        with pytest.warns(
            images.PictureWarning, match=f"its {kind.decode()} chunk .* is damaged and left out"
        ):
            read(path)
    with pytest.warns(images.PictureWarning):
        np.testing.assert_array_equal(images.read(path), PICTURE)


def test_png_with_a_wrong_checksum_of_its_size_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    data = png_with()
    path.write_bytes(data[:29] + b"abcd" + data[33:])
    assert error_line(lambda: images.read(path), f"picture: {path}").startswith("found a damaged file (")


def test_png_with_a_large_profile_is_read_without_it(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    profile = rgb_profile(P3, 1.0, "P3")[0] + bytes(2**20)
    path.write_bytes(png_with(png_chunk(b"iCCP", b"P3\0\0" + zlib.compress(profile))))
    with pytest.warns(images.PictureWarning, match=r"its iCCP chunk \(its color profile\) is too large"):
        np.testing.assert_array_equal(images.read(path), PICTURE)


def test_png_in_pieces_is_damaged_or_read_but_never_an_odd_exception(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    data = png_with(damaged(png_chunk(b"tEXt", b"Title\0x")))
    for end in range(len(PNG_SIGNATURE), 120, 3):
        path.write_bytes(data[:end])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", images.PictureWarning)
            assert error_line(lambda: images.read(path), f"picture: {path}")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("missing", [1, 2])
def test_jpeg_without_its_last_two_bytes_is_read(missing: int, options: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(SMOOTH).save(path, **options)
    expected = images.read(path)
    path.write_bytes(path.read_bytes()[:-missing])
    for read in READERS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = read(path)
        if read is images.read:
            np.testing.assert_array_equal(result, expected)
        # Pillow reads some of these files without noticing.
        for one in caught:
            assert str(one.message).endswith("the end of the file is missing; no pixels are lost")


def test_jpeg_without_a_few_more_bytes_is_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    expected = images.read(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(images.PictureWarning, match="the end of the file is missing; a few pixels are lost"):
        picture = images.read(path)
    assert np.mean((picture != expected).any(axis=2)) < 0.01


def test_jpeg_of_which_a_part_is_missing_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(SMOOTH).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert error_line(lambda: images.read(path), f"picture: {path}").startswith("found a damaged file (")
