"""Reading: every mode of Pillow, upright and on white; masks; damaged files; what a file carries."""

from __future__ import annotations

import errno
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import error_line, png_chunk
from icc_profiles import P3, rgb_profile
from npstyle import images
from npstyle.images.reading import _BoundedReader
from pictures import (
    BLACK,
    BLUE,
    GREEN,
    PICTURE,
    RED,
    SMOOTH,
    UPRIGHT,
    WHITE,
    Patch,
    gray,
    orientation_exif,
    palette,
    raises,
    row,
)

Reader = Callable[[Path], object]
READERS = (images.read, images.read_alpha, images.read_mask, images.read_text, images.describe)


def read_row(image: Image.Image, path: Path, **options: Any) -> list[tuple[int, ...]]:
    """The one row of pixels that `images.read` returns for an image saved by Pillow."""
    image.save(path, **options)
    picture = images.read(path)
    assert picture.dtype == np.uint8
    assert picture.shape == (1, image.width, 3)
    return [tuple(pixel) for pixel in picture[0].tolist()]


# Pixels of CMYK, 0 to 255: red, white, black, green.
INKS = np.array([(0, 255, 255, 0), (0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 255, 0)], np.uint8).tobytes()


MODES: list[tuple[str, str, Image.Image, Any]] = [
    ("RGB", "png", row((1, 2, 3), (4, 5, 6)), [(1, 2, 3), (4, 5, 6)]),
    ("L", "png", row(0, 100, 255), gray(0, 100, 255)),
    ("1", "png", row(1, 0, 0, dtype=bool), gray(255, 0, 0)),
    ("P", "png", palette(), [RED, GREEN, BLUE]),
    ("LA", "png", row((100, 0), (100, 255), (0, 128)), gray(255, 100, 127)),
    ("RGBA", "png", row((9, 9, 9, 0), (1, 2, 3, 255), (*RED, 51)), [WHITE, (1, 2, 3), (255, 204, 204)]),
    ("CMYK", "tif", Image.frombytes("CMYK", (4, 1), INKS), [RED, WHITE, BLACK, GREEN]),
    ("I;16", "png", row(0, 128, 129, 25700, 65535, dtype=np.uint16), gray(0, 0, 1, 100, 255)),
    ("I", "tif", row(-5, 0, 25700, 65535, dtype=np.int32), gray(0, 0, 100, 255)),
    ("I", "tif", row(0, 100, 200, dtype=np.int32), gray(0, 100, 200)),
    ("I", "tif", row(0, 500_000, 10**6, dtype=np.int32), gray(0, 128, 255)),
    ("F", "tif", row(0, 0.5, 1.0, 1.2, dtype=np.float32), gray(0, 128, 255, 255)),
]


@pytest.mark.parametrize(("mode", "kind", "image", "expected"), MODES, ids=[case[0] for case in MODES])
def test_read_every_mode(mode: str, kind: str, image: Image.Image, expected: Any, tmp_path: Path) -> None:
    assert read_row(image, tmp_path / f"x.{kind}") == expected
    with Image.open(tmp_path / f"x.{kind}") as stored:
        assert stored.mode.startswith(mode.split(";")[0])  # older Pillow has I for I;16


@pytest.mark.parametrize(
    ("image", "which", "expected"),
    [
        (palette(), 1, [RED, WHITE, BLUE]),
        (palette(), b"\x00\xff\x80", [WHITE, GREEN, (127, 127, 255)]),
        (row(RED, GREEN), RED, [WHITE, GREEN]),
        (row(7, 8), 7, [WHITE, (8, 8, 8)]),
    ],
)
def test_read_composites_on_white(image: Any, which: Any, expected: Any, tmp_path: Path) -> None:
    assert read_row(image, tmp_path / "x.png", transparency=which) == expected


# In 255ths: white is inside, black and transparent are outside.
MASKS: list[tuple[str, Image.Image, Any, list[int]]] = [
    ("L", row(0, 100, 255), None, [0, 100, 255]),
    ("L, one transparent", row(255, 254), 255, [0, 254]),
    ("1", row(1, 0, 0, dtype=bool), None, [255, 0, 0]),
    ("P", palette(), None, [76, 150, 29]),
    ("P, some transparent", palette(), b"\x00\xff\x80", [0, 150, 15]),
    ("RGB", row(RED, GREEN, BLUE, WHITE, BLACK), None, [76, 150, 29, 255, 0]),
    ("RGB, one transparent", row(WHITE, GREEN), WHITE, [0, 150]),
    ("LA", row((255, 255), (255, 0), (0, 255), (0, 0), (255, 128)), None, [255, 0, 0, 0, 128]),
    ("RGBA", row((*WHITE, 255), (*WHITE, 0), (*GREEN, 255), (*WHITE, 51)), None, [255, 0, 150, 51]),
    ("I;16", row(0, 128, 129, 25700, 65535, dtype=np.uint16), None, [0, 0, 1, 100, 255]),
]


@pytest.mark.parametrize(
    ("image", "transparency", "expected"), [case[1:] for case in MASKS], ids=[case[0] for case in MASKS]
)
def test_read_mask_of_every_mode(
    image: Image.Image, transparency: Any, expected: Any, tmp_path: Path
) -> None:
    image.save(tmp_path / "x.png", **({} if transparency is None else {"transparency": transparency}))
    mask = images.read_mask(str(tmp_path / "x.png"))
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, np.array([expected], np.float32) / 255)


def test_transparent_value_of_16_bit_gray(tmp_path: Path) -> None:
    """Its neighbor is opaque, though both become the same 8 bits. Older Pillow can't write such a file."""
    path = tmp_path / "x.png"
    row(65534, 65535, 25700, dtype=np.uint16).save(path)
    data, transparency = path.read_bytes(), png_chunk(b"tRNS", struct.pack(">H", 65535))
    at = data.index(b"IDAT") - 4
    path.write_bytes(data[:at] + transparency + data[at:])
    np.testing.assert_array_equal(255 * images.read_mask(path), [[255, 0, 100]])
    assert images.read(path)[0].tolist() == [[255] * 3, [255] * 3, [100] * 3]
    path.write_bytes(data)
    np.testing.assert_array_equal(255 * images.read_mask(path), [[255, 255, 100]])


def test_read_mask_of_float_and_cmyk(tmp_path: Path) -> None:
    row(0, 0.2, 1.0, 1.2, dtype=np.float32).save(tmp_path / "floats.tif")
    Image.frombytes("CMYK", (4, 1), INKS).save(tmp_path / "inks.tif")
    floats, inks = images.read_mask(tmp_path / "floats.tif"), images.read_mask(tmp_path / "inks.tif")
    np.testing.assert_array_equal(255 * floats, [[0, 51, 255, 255]])
    np.testing.assert_array_equal(255 * inks, [[76, 255, 0, 150]])


@pytest.mark.parametrize("full", [1, 255, 65535])
def test_read_float_finds_white(full: float, tmp_path: Path) -> None:
    image = row(-full, 0, 0.2 * full, 0.6 * full, np.nan, dtype=np.float32)
    assert image.mode == "F"
    assert read_row(image, tmp_path / "x.tif") == gray(0, 0, 51, 153, 0)


def test_read_large_float_scales_by_maximum(tmp_path: Path) -> None:
    assert read_row(row(0, 2e5, 1e6, dtype=np.float32), tmp_path / "x.tif") == gray(0, 51, 255)


def test_read_nan_and_infinity_as_black(tmp_path: Path) -> None:
    """Without a warning, for the signaling NaN as well."""
    bits = [0x7FA00000, 0x7FC00000, 0xFF800000, 0x3F000000, 0x3F800000]  # NaN signaling, quiet; -inf, 0.5, 1
    Image.fromarray(np.array([bits], np.uint32).view(np.float32)).save(tmp_path / "x.tif")
    assert images.read(tmp_path / "x.tif")[0].tolist() == [[value] * 3 for value in (0, 0, 0, 128, 255)]


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_read_applies_exif_orientation(orientation: int, kind: str, tmp_path: Path) -> None:
    exif = orientation_exif(orientation)
    Image.fromarray(PICTURE).save(tmp_path / f"x.{kind}", exif=exif)
    np.testing.assert_array_equal(images.read(tmp_path / f"x.{kind}"), UPRIGHT[orientation](PICTURE))
    Image.fromarray(PICTURE[:, :, 0]).save(tmp_path / f"mask.{kind}", exif=exif)
    expected = UPRIGHT[orientation](PICTURE)[:, :, 0] / np.float32(255)
    np.testing.assert_allclose(images.read_mask(tmp_path / f"mask.{kind}"), expected, rtol=1e-6)


def test_read_first_frame_of_animation(tmp_path: Path) -> None:
    black = row(BLACK, BLACK, BLACK)
    pixels = read_row(palette(), tmp_path / "x.gif", save_all=True, append_images=[black])
    assert pixels == [RED, GREEN, BLUE]
    with Image.open(tmp_path / "x.gif") as image:
        assert getattr(image, "n_frames", 1) == 2


UNREADABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "found no such file; expected a picture file; check the name"),
    "a folder": (Path.mkdir, "found a folder; expected a picture file; check the name"),
    "empty": (Path.touch, "found an empty file; expected a format that Pillow reads; convert it to PNG"),
    "text": (lambda path: path.write_text("hello"), "found a file that is not a picture; expected a format"),
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("make", "line"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_read_not_a_picture(read: Reader, make: Callable[[Path], Any], line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    make(path)
    assert error_line(lambda: read(path), f"picture: {path}").startswith(line)


def test_read_name_too_long(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 300 + ".png")
    assert error_line(lambda: images.read(path), f"picture: {path}").startswith("found no such file;")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "webp"])
def test_truncated_file_is_damaged(kind: str, read: Reader, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    Image.fromarray(SMOOTH).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    line = error_line(lambda: read(path), f"picture: {path}")
    assert line.startswith("found a damaged file (")
    assert line.endswith("); expected an intact one; copy it again")


DAMAGED = "found a damaged file (odd); expected an intact one; copy it again"


REFUSED = "found Permission denied; expected a readable file; check its permissions"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("odd"), DAMAGED),
        (struct.error("odd"), DAMAGED),
        (SyntaxError("odd"), DAMAGED),
        (PermissionError(errno.EACCES, "Permission denied"), REFUSED),
    ],
)
def test_any_exception_of_pillow_is_a_damaged_file(
    error: Any, line: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    path = tmp_path / "x.png"
    path.touch()
    monkeypatch.setattr(Image, "open", raises(error))
    assert error_line(lambda: images.read(path), f"picture: {path}") == line


def test_memory_error_is_not_a_damaged_file(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "x.png").touch()
    monkeypatch.setattr(Image, "open", raises(MemoryError()))
    with pytest.raises(MemoryError):
        images.read(tmp_path / "x.png")


def test_read_pixel_limit(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    path = tmp_path / "x.png"
    Image.new("1", (1001, 2000)).save(path)
    line = error_line(lambda: images.read(path), f"picture: {path}")
    assert line == "found too many pixels; expected at most 2 million; make it smaller first"
    Image.new("1", (1000, 2000)).save(path)  # Pillow only warns of this one
    assert images.read(path).shape == (2000, 1000, 3)


def test_bounded_reader_allocates_no_more_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    tracemalloc.start()
    with _BoundedReader(tmp_path / "x") as file:
        assert file.read(1) == b"a"
        assert file.read(2**32) == b"bc"
        assert file.read(2**32) == b""
        file.seek(0)
        assert file.read() == b"abc"
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


DESCRIBED: list[tuple[str, Image.Image, dict[str, Any], tuple[str, int, int, str, str]]] = [
    ("png", Image.fromarray(PICTURE), {}, ("PNG", 30, 20, "RGB", "none")),
    ("jpg", Image.fromarray(PICTURE[:, :, 0]), {}, ("JPEG", 30, 20, "L", "none")),
    ("png", row(1, 2, dtype=np.uint16), {}, ("PNG", 2, 1, "I;16, 16 bits", "none")),
    (
        "tif",
        Image.fromarray(PICTURE),
        {"icc_profile": rgb_profile(P3, 1.0, "My \x1b P3")[0]},
        ("TIFF", 30, 20, "RGB", "My \\x1b P3"),
    ),
    ("gif", palette(), {}, ("GIF", 3, 1, "P", "none")),
]


@pytest.mark.parametrize(("kind", "image", "options", "expected"), DESCRIBED)
def test_describe(kind: str, image: Image.Image, options: Any, expected: Any, tmp_path: Path) -> None:
    image.save(tmp_path / f"x.{kind}", **options)
    description = images.describe(tmp_path / f"x.{kind}")
    assert tuple(description)[:3] == expected[:3]
    # Older Pillow has the mode I for I;16.
    assert description.mode.replace("I;16", "I") == expected[3].replace("I;16", "I")
    assert (description.profile, description.text) == (expected[4], {})


def test_describe_upright_size(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "x.jpg", exif=orientation_exif(6))
    description = images.describe(tmp_path / "x.jpg")
    assert (description.width, description.height) == (20, 30)
    assert images.read(tmp_path / "x.jpg").shape == (30, 20, 3)


@pytest.mark.parametrize("orientation", sorted(UPRIGHT))
def test_size_is_that_of_the_upright_picture(orientation: int, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "x.jpg", exif=orientation_exif(orientation))
    height, width, _ = images.read(tmp_path / "x.jpg").shape
    assert images.read_size(tmp_path / "x.jpg") == (width, height)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_contents_are_read_as_their_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    images.write(path, PICTURE, text={"note": "here"})
    contents = images.FileContents("sent", path.read_bytes())
    np.testing.assert_array_equal(images.read(contents), images.read(path))
    np.testing.assert_array_equal(images.read_mask(contents), images.read_mask(path))
    assert images.read_alpha(contents) is None
    assert images.describe(contents) == images.describe(path)
    assert images.read_size(contents) == (30, 20)


@pytest.mark.parametrize("reader", READERS)
def test_damaged_contents_are_named(reader: Callable[[object], object], tmp_path: Path) -> None:
    images.write(tmp_path / "x.png", PICTURE)
    damaged = images.FileContents("sent", (tmp_path / "x.png").read_bytes()[:300])
    assert "damaged file" in error_line(lambda: reader(damaged), "picture: sent")
