"""Pictures in every mode Pillow has, upright and on white; sizes; files written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import os
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, JpegImagePlugin, features

from npstyle import images
from npstyle.errors import UserError

Pixels = NDArray[np.uint8]
Patch = pytest.MonkeyPatch
Reader = Callable[[Path], NDArray[Any]]

RNG = np.random.default_rng(11)
PICTURE: Pixels = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
ROW, COLUMN = np.mgrid[0:40, 0:60].astype(np.float32)
SMOOTH: Pixels = np.stack([4 * COLUMN, 6 * ROW, 255 - 2 * (ROW + COLUMN)], axis=2).astype(np.uint8)

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def row(*pixels: Any, dtype: type = np.uint8) -> Image.Image:
    """One line of pixels, as a picture in the mode that Pillow has for them."""
    return Image.fromarray(np.array([pixels], dtype))


def gray(*values: int) -> list[tuple[int, int, int]]:
    return [(value, value, value) for value in values]


def palette() -> Image.Image:
    """Indices 0, 1, 2 of a palette of red, green, blue."""
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    return image


def read_back(image: Image.Image, path: Path, **options: Any) -> list[tuple[int, ...]]:
    """The line of pixels `images.read` gives for a picture that Pillow has written."""
    image.save(path, **options)
    picture = images.read(path)
    assert picture.dtype == np.uint8
    assert picture.shape == (1, image.width, 3)
    return [tuple(pixel) for pixel in picture[0].tolist()]


def complaint(call: Callable[[], object], name: str) -> str:
    """What the call ends with, after a look at its form."""
    with pytest.raises(UserError) as caught:
        call()
    error, line = caught.value, str(caught.value)
    assert error.name == name
    assert line == " ".join(f"{name}: found {error.found}; expected {error.expected}; {error.cure}".split())
    assert line.splitlines() == [line]
    return line.removeprefix(f"{name}: ")


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
def test_every_mode_becomes_rgb(
    mode: str, kind: str, image: Image.Image, expected: Any, tmp_path: Path
) -> None:
    assert read_back(image, tmp_path / f"x.{kind}") == expected
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
def test_transparent_colors_lie_on_white(image: Any, which: Any, expected: Any, tmp_path: Path) -> None:
    assert read_back(image, tmp_path / "x.png", transparency=which) == expected


# In 255ths: what is white lies inside, what is black or transparent outside.
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
def test_masks_of_every_mode(image: Image.Image, transparency: Any, expected: Any, tmp_path: Path) -> None:
    image.save(tmp_path / "x.png", **({} if transparency is None else {"transparency": transparency}))
    mask = images.read_mask(str(tmp_path / "x.png"))
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, np.array([expected], np.float32) / 255)


def test_of_16_bits_one_value_may_be_transparent(tmp_path: Path) -> None:
    """Its neighbor is none, though both become the same 8 bits. Older Pillow can't write such a file."""
    path = tmp_path / "x.png"
    row(65534, 65535, 25700, dtype=np.uint16).save(path)
    written, chunk = path.read_bytes(), b"tRNS" + struct.pack(">H", 65535)
    where = written.index(b"IDAT") - 4
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(written[:where] + chunk + written[where:])
    np.testing.assert_array_equal(255 * images.read_mask(path), [[255, 0, 100]])
    assert images.read(path)[0].tolist() == [[255] * 3, [255] * 3, [100] * 3]
    path.write_bytes(path.read_bytes().replace(chunk, b""))
    np.testing.assert_array_equal(255 * images.read_mask(path), [[255, 255, 100]])


def test_masks_of_floats_and_inks(tmp_path: Path) -> None:
    row(0, 0.2, 1.0, 1.2, dtype=np.float32).save(tmp_path / "floats.tif")
    Image.frombytes("CMYK", (4, 1), INKS).save(tmp_path / "inks.tif")
    floats, inks = images.read_mask(tmp_path / "floats.tif"), images.read_mask(tmp_path / "inks.tif")
    np.testing.assert_array_equal(255 * floats, [[0, 51, 255, 255]])
    np.testing.assert_array_equal(255 * inks, [[76, 255, 0, 150]])


@pytest.mark.parametrize("full", [1, 255, 65535])
def test_floats_are_scaled_by_what_they_must_mean(full: float, tmp_path: Path) -> None:
    image = row(-full, 0, 0.2 * full, 0.6 * full, np.nan, dtype=np.float32)
    assert image.mode == "F"
    assert read_back(image, tmp_path / "x.tif") == gray(0, 0, 51, 153, 0)


def test_larger_floats_are_scaled_by_the_largest(tmp_path: Path) -> None:
    assert read_back(row(0, 2e5, 1e6, dtype=np.float32), tmp_path / "x.tif") == gray(0, 51, 255)


# What undoes the turn that the EXIF orientation says was made.
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


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(orientation: int, kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PICTURE).save(tmp_path / f"x.{kind}", exif=exif)
    np.testing.assert_array_equal(images.read(tmp_path / f"x.{kind}"), UPRIGHT[orientation](PICTURE))
    Image.fromarray(PICTURE[:, :, 0]).save(tmp_path / f"mask.{kind}", exif=exif)
    expected = UPRIGHT[orientation](PICTURE)[:, :, 0] / np.float32(255)
    np.testing.assert_allclose(images.read_mask(tmp_path / f"mask.{kind}"), expected, rtol=1e-6)


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    black = row(BLACK, BLACK, BLACK)
    got = read_back(palette(), tmp_path / "x.gif", save_all=True, append_images=[black])
    assert got == [RED, GREEN, BLUE]
    with Image.open(tmp_path / "x.gif") as image:
        assert getattr(image, "n_frames", 1) == 2


UNREADABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "found no such file; expected a picture file; check the name"),
    "a folder": (Path.mkdir, "found a folder; expected a picture file; check the name"),
    "empty": (Path.touch, "found an empty file; expected a format Pillow reads; convert it to PNG"),
    "text": (lambda path: path.write_text("hello"), "found something that is no picture; expected a format"),
}


@pytest.mark.parametrize("read", [images.read, images.read_mask])
@pytest.mark.parametrize(("make", "words"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_no_picture_is_told(
    read: Reader, make: Callable[[Path], Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.png"
    make(path)
    assert complaint(lambda: read(path), f"picture: {path}").startswith(words)


def test_an_impossible_name_is_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 300 + ".png")
    assert complaint(lambda: images.read(path), f"picture: {path}").startswith("found no such file;")


@pytest.mark.parametrize("read", [images.read, images.read_mask])
@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "webp"])
def test_a_truncated_picture_is_damaged(kind: str, read: Reader, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    Image.fromarray(SMOOTH).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    line = complaint(lambda: read(path), f"picture: {path}")
    assert line.startswith("found a damaged file (")
    assert line.endswith("); expected a whole one; copy it again")


def raises(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


DAMAGED = "found a damaged file (odd); expected a whole one; copy it again"
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
def test_whatever_pillow_raises_is_told(error: Any, line: str, tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "x.png"
    path.touch()
    monkeypatch.setattr(Image, "open", raises(error))
    assert complaint(lambda: images.read(path), f"picture: {path}") == line


def test_too_little_memory_is_no_damaged_file(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "x.png").touch()
    monkeypatch.setattr(Image, "open", raises(MemoryError()))
    with pytest.raises(MemoryError):
        images.read(tmp_path / "x.png")


def test_a_picture_too_large_to_be_believed_is_refused(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    path = tmp_path / "x.png"
    Image.new("1", (1001, 2000)).save(path)
    line = complaint(lambda: images.read(path), f"picture: {path}")
    assert line == "found too many pixels; expected at most 2 million; make it smaller first"
    Image.new("1", (1000, 2000)).save(path)  # Pillow only warns of this one
    assert images.read(path).shape == (2000, 1000, 3)


@pytest.mark.parametrize(
    ("width", "height", "size", "expected"),
    [
        (1024, 768, 512, (512, 384)),
        (768, 1024, 512, (384, 512)),
        (1000, 333, 100, (100, 33)),
        (1000, 335, 200, (200, 67)),
        (512, 512, 512, (512, 512)),
        (300, 200, 512, (300, 200)),
        (511, 3, 512, (511, 3)),
        (3000, 2, 16, (16, 1)),
        (1, 5000, 10, (1, 10)),
    ],
)
def test_fitted_size(width: int, height: int, size: int, expected: tuple[int, int]) -> None:
    assert images.fitted_size(width, height, size) == expected


def test_fit_reduces_and_never_enlarges() -> None:
    assert images.fit(PICTURE, 15).shape == (10, 15, 3)
    assert images.fit(PICTURE.transpose(1, 0, 2), 15).shape == (15, 10, 3)
    assert images.fit(PICTURE, 31) is PICTURE


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("size", [(7, 13), (30, 20), (77, 50)])
def test_a_constant_picture_stays_constant(dtype: type, size: tuple[int, int]) -> None:
    color: NDArray[Any] = np.array([10, 200, 255], dtype)
    resized = images.resize(np.broadcast_to(color, (20, 30, 3)), *size)
    assert resized.shape == (size[1], size[0], 3)
    assert resized.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    np.testing.assert_allclose(resized, np.broadcast_to(color, resized.shape), rtol=1e-6)


@pytest.mark.parametrize("size", [(11, 9), (29, 20), (64, 48)])
def test_whole_numbers_and_floats_are_resized_alike(size: tuple[int, int]) -> None:
    muted = PICTURE // 2 + 64  # Pillow clips uint8 between its two passes, where the filter overshoots
    whole, floating = images.resize(muted, *size), images.resize(muted.astype(np.float32), *size)
    assert np.abs(whole.astype(int) - images.to_uint8(floating)).max() <= 1


def test_reducing_takes_in_every_pixel() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    reduced = images.resize(np.repeat(board[:, :, None].astype(np.uint8), 3, axis=2), 8, 8)
    assert np.abs(reduced.astype(int) - 127.5).max() <= 1


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.tiff", "x.PNG"])
def test_lossless_formats_come_back_exactly(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"old")
    images.write(tmp_path / name, PICTURE)
    np.testing.assert_array_equal(images.read(tmp_path / name), PICTURE)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("name", ["x.jpg", "x.jpeg", "x.JPG", "x.webp"])
def test_other_formats_come_back_nearly(name: str, tmp_path: Path) -> None:
    images.write(tmp_path / name, SMOOTH)
    difference = np.abs(images.read(tmp_path / name).astype(int) - SMOOTH)
    assert 0 < difference.mean() < 1.5
    assert difference.max() < 20


@pytest.mark.parametrize("extension", images.FORMATS)
def test_the_extension_decides_the_format(extension: str, tmp_path: Path) -> None:
    images.write(tmp_path / f"x{extension}", SMOOTH)
    with Image.open(tmp_path / f"x{extension}") as image:
        assert image.format == Image.registered_extensions()[extension]
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


def failing(error: BaseException) -> Callable[..., None]:
    def save(_: Image.Image, file: Any, **__: object) -> None:
        file.write(b"half a picture")
        raise error

    return save


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
NO_ROOM = "expected a folder with room and a format for this size; choose another"


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (FULL, os.strerror(errno.ENOSPC)),
        (OSError("encoder error -2"), "encoder error -2"),
        (ValueError("too wide for\nWebP"), "too wide for WebP"),
    ],
)
def test_a_failure_leaves_the_old_file(error: Any, found: str, tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", failing(error))
    with pytest.raises(UserError) as caught:
        images.write(path, PICTURE)
    assert str(caught.value) == f"output: {path}: found {found} on writing; {NO_ROOM}"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Image.Image, "save", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        images.write(tmp_path / "x.png", PICTURE)
    assert list(tmp_path.iterdir()) == []


ENDINGS = "expected one of .png .jpg .jpeg .webp .tif .tiff; take for example "


@pytest.mark.parametrize("call", [images.check_output, partial(images.write, picture=PICTURE)])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("x.gif", f"found the extension '.gif'; {ENDINGS}"),
        ("x", f"found no extension; {ENDINGS}"),
        ("missing/x.png", f"found {os.strerror(errno.ENOENT)} on writing"),
        ("file/x.png", f"found {os.strerror(errno.ENOTDIR)} on writing"),
        ("a" * 300 + ".png", f"found {os.strerror(errno.ENAMETOOLONG)} on writing"),
    ],
)
def test_what_can_be_no_output_is_told(
    call: Callable[[Path], Any], name: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert complaint(lambda: call(tmp_path / name), f"output: {tmp_path / name}").startswith(line)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("name", ["", ".", "/", "folder.png"])
def test_a_folder_is_no_output(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    line = complaint(lambda: images.check_output(name, overwrite=True), f"output: {Path(name)}")
    assert line == "found a folder; expected a file name; add a name to it"


def test_an_existing_output_needs_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    line = complaint(lambda: images.check_output(path), f"output: {path}")
    assert line == "found a file of that name; expected a new name; choose another or add --overwrite"
    assert images.check_output(path, overwrite=True) == path
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["x.png", "x.JPG", "x.jpeg", "x.webp", "x.tif", "x.tiff"])
def test_checking_an_output_leaves_nothing(name: str, tmp_path: Path) -> None:
    assert images.check_output(str(tmp_path / name)) == tmp_path / name
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Path, "write_bytes", raises(PermissionError(errno.EACCES, "Permission denied")))
    line = complaint(lambda: images.check_output(tmp_path / "x.png"), f"output: {tmp_path / 'x.png'}")
    expected = (
        "found Permission denied on writing there; expected a name in a folder that can be written to; "
        "choose another"
    )
    assert line == expected


RAGGED = [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        (np.zeros((4, 5)), "float64 array of shape (4, 5); expected numbers of shape (H, W, 3), RGB, 0..255"),
        (np.zeros((4, 5, 4), np.uint8), "uint8 array of shape (4, 5, 4)"),
        (np.zeros((0, 5, 3)), "float64 array of shape (0, 5, 3)"),
        (np.zeros((1, 4, 5, 3)), "float64 array of shape (1, 4, 5, 3)"),
        (np.zeros((4, 5, 3), bool), "bool array of shape (4, 5, 3)"),
        (np.zeros((4, 5, 3), complex), "complex128 array of shape (4, 5, 3)"),
        ("photo.jpg", "<U9 array of shape ()"),
        (None, "object array of shape ()"),
        (RAGGED, "rows of unequal length; expected an array (H, W, 3)"),
        ([[[0, 0, np.nan]]], "NaN or infinity; expected finite numbers from 0 to 255"),
        ([[[0, 0, -np.inf]]], "NaN or infinity; expected finite numbers from 0 to 255"),
    ],
)
def test_what_is_no_picture_array_is_told(picture: Any, found: str) -> None:
    assert complaint(lambda: images.as_picture(picture, "style"), "style").startswith(f"found {found};")


def test_numbers_of_the_right_shape_are_a_picture() -> None:
    assert images.as_picture(PICTURE, "content") is PICTURE
    assert images.as_picture(PICTURE.tolist(), "content").tolist() == PICTURE.tolist()


def test_to_uint8_rounds_and_clips() -> None:
    pixels = np.array([-300, -0.6, 0.4, 0.6, 1.5, 2.5, 254.4, 254.6, 255.6, 1e9])
    got = images.to_uint8(pixels)
    assert got.dtype == np.uint8
    assert got.tolist() == [0, 0, 0, 1, 2, 2, 254, 255, 255, 255]


def test_through_a_symbolic_link_to_where_it_points(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "store" / "blob")
    images.write(images.check_output(link, overwrite=True), np.zeros((4, 5, 3), np.uint8))
    assert link.is_symlink()
    with Image.open(tmp_path / "store" / "blob") as image:
        assert (image.format, image.size) == ("PNG", (5, 4))
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["blob"]


def test_a_link_into_nowhere_is_found_before_the_run(tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "nowhere" / "x.png")
    with pytest.raises(UserError, match="No such file or directory on writing there"):
        images.check_output(link, overwrite=True)
    with pytest.raises(UserError, match="a file of that name"):
        images.check_output(link)


@pytest.mark.parametrize("linked", [True, False], ids=["links", "no links"])
def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path: Path, linked: bool, monkeypatch: Patch) -> None:
    if not linked:
        monkeypatch.setattr(os, "link", raises(OSError(errno.EPERM, "Operation not permitted")))
    picture = np.zeros((4, 5, 3), np.uint8)
    images.write(tmp_path / "free.png", picture, overwrite=False)
    (tmp_path / "taken.png").write_bytes(b"other")
    with pytest.raises(UserError, match="a file of that name"):
        images.write(tmp_path / "taken.png", picture, overwrite=False)
    assert (tmp_path / "taken.png").read_bytes() == b"other"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free.png", "taken.png"]


# Color profiles, made here: a matrix and a gamma for RGB, a gamma for gray, a table for CMYK.

Array = NDArray[np.float64]
Model = Callable[[Array], Array]  # from numbers (..., C), 0 to 1, to linear sRGB (..., 3)

D50 = (0.9642, 1.0, 0.8249)
# Columns: red, green and blue of sRGB as XYZ under D50, from the standard.
SRGB: Array = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
P3: Array = np.array(
    [[0.515121, 0.291977, 0.157104], [0.241196, 0.692245, 0.066574], [-0.001053, 0.041886, 0.784073]]
)


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def xyz(values: Any) -> bytes:
    return b"XYZ \0\0\0\0" + fixed(*values)


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH2x", 1, round(gamma * 256))


def icc(space: bytes, pcs: bytes, tags: dict[bytes, bytes], name: str = "made for a test") -> bytes:
    """An ICC profile, version 2.4."""
    words = name.encode("ascii") + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + bytes(78)
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(D50), **tags}
    start, table, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        table += tag + struct.pack(">2I", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    device = b"prtr" if space == b"CMYK" else b"mntr"
    date = struct.pack(">6H", 2001, 2, 3, 4, 5, 6)
    head = struct.pack(">2I", 0, 0x02400000) + device + space + pcs + date + b"acsp" + bytes(28) + fixed(*D50)
    head = struct.pack(">I", start + len(body)) + head + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def rgb_profile(primaries: Array, gamma: float, name: str = "made for a test") -> tuple[bytes, Model]:
    tags = {letter + b"XYZ": xyz(primaries[:, c]) for c, letter in enumerate((b"r", b"g", b"b"))}
    tags |= {letter + b"TRC": gamma_curve(gamma) for letter in (b"r", b"g", b"b")}
    to_srgb = np.linalg.inv(SRGB) @ primaries
    return icc(b"RGB ", b"XYZ ", tags, name), lambda rgb: rgb**gamma @ to_srgb.T


def gray_profile(gamma: float) -> tuple[bytes, Model]:
    data = icc(b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(gamma)})
    return data, lambda gray: np.repeat(gray[..., :1] ** gamma, 3, axis=-1)


# Inks printed alone, as Lab; over one another they are black.
PAPER, CYAN, MAGENTA, YELLOW, SOOT = (100, 0, 0), (60, -20, -30), (50, 50, -10), (85, 0, 60), (0, 0, 0)
PRINTS: dict[tuple[int, ...], tuple[int, int, int]] = {
    (0, 0, 0, 0): PAPER,
    (1, 0, 0, 0): CYAN,
    (0, 1, 0, 0): MAGENTA,
    (0, 0, 1, 0): YELLOW,
}


def cmyk_profile() -> tuple[bytes, Model]:
    """A table with a node for none and all of each ink; the model holds at the nodes."""
    straight = bytes(range(256))
    colors = [PRINTS.get(inks, SOOT) for inks in itertools.product((0, 1), repeat=4)]
    nodes = b"".join(bytes([round(L * 2.55), a + 128, b + 128]) for L, a, b in colors)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)

    def model(inks: Array) -> Array:
        lab = np.array([PRINTS.get(tuple(row), SOOT) for row in inks.reshape(-1, 4).astype(int).tolist()])
        y = (lab[:, 0] + 16) / 116
        f = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
        linear = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * D50 @ np.linalg.inv(SRGB).T
        return linear.reshape(*inks.shape[:-1], 3)

    return icc(b"CMYK", b"Lab ", {b"A2B0": table + straight * 4 + nodes + straight * 3}), model


def shown(linear: Array) -> Array:
    """Linear light, 0 to 1, as sRGB's numbers."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# What they are for, their bytes, and what they do.
PROFILES: dict[str, tuple[str, bytes, Model]] = {
    "sRGB with a gamma": ("RGB", *rgb_profile(SRGB, 2.19921875)),
    "P3": ("RGB", *rgb_profile(P3, 2.19921875)),
    "linear, channels exchanged": ("RGB", *rgb_profile(SRGB[:, [1, 2, 0]], 1.0)),
    "gray 1.0": ("L", *gray_profile(1.0)),
    "gray 1.75": ("L", *gray_profile(1.75)),
    "inks": ("CMYK", *cmyk_profile()),
}
UNUSABLE = {"damaged": b"profile" * 40, "cut off": PROFILES["P3"][1][:200]}


def colors_of(mode: str, rng: np.random.Generator) -> tuple[Image.Image, NDArray[np.uint8], Pixels | None]:
    """A picture of some size in a mode: its numbers (H, W, 1, 3 or 4), and how opaque they are."""
    H, W = rng.integers(2, 9, 2)
    alpha = rng.choice(np.array([0, 255, 40, 200], np.uint8), (H, W))
    gray, rgb = (
        rng.integers(0, 256, (H, W, 1), dtype=np.uint8),
        rng.integers(0, 256, (H, W, 3), dtype=np.uint8),
    )
    if mode == "1":
        return Image.fromarray(gray[:, :, 0] > 127), (gray > 127) * np.uint8(255), None
    if mode == "L":
        return Image.fromarray(gray[:, :, 0]), gray, None
    if mode == "I;16":
        return Image.fromarray(gray[:, :, 0] * np.uint16(257)), gray, None
    if mode == "LA":
        return Image.fromarray(np.dstack([gray, alpha])), gray, alpha
    if mode == "RGB":
        return Image.fromarray(rgb), rgb, None
    if mode == "RGBA":
        return Image.fromarray(np.dstack([rgb, alpha])), rgb, alpha
    if mode == "CMYK":
        inks = 255 * np.eye(5, 4, dtype=np.uint8)[rng.integers(0, 5, (H, W))]
        return Image.frombytes("CMYK", (int(W), int(H)), inks.tobytes()), inks, None
    entries, indices = (
        rng.integers(0, 256, (7, 3), dtype=np.uint8),
        rng.integers(0, 7, (H, W), dtype=np.uint8),
    )
    image = Image.frombytes("P", (int(W), int(H)), indices.tobytes())
    image.putpalette(entries.tobytes())
    if mode == "P":
        return image, entries[indices], None
    opacities = np.array([255, 0, 100, 255, 7, 200, 255], np.uint8)
    image.info["transparency"] = opacities.tobytes()
    return image, entries[indices], opacities[indices]


def without_profile(numbers: NDArray[np.uint8]) -> Array:
    """RGB of numbers that no profile explains."""
    values = numbers.astype(np.float64)
    if numbers.shape[2] == 4:
        return (255 - values[:, :, :3]) * (255 - values[:, :, 3:]) / 255
    return np.repeat(values, 3 // numbers.shape[2], axis=2)


def expected_of(numbers: NDArray[np.uint8], profile: str | None) -> tuple[Array, bool]:
    """What the model says of a picture with a profile, and whether the profile is any good for it."""
    kind = {1: "L", 3: "RGB", 4: "CMYK"}[numbers.shape[2]]
    purpose, _, model = PROFILES.get(str(profile), ("", b"", shown))
    if purpose != kind and (purpose, kind) != ("RGB", "L"):
        return without_profile(numbers), profile is None
    values = numbers / 255
    return shown(model(np.repeat(values, 3, axis=2) if purpose == "RGB" and kind == "L" else values)), True


@contextlib.contextmanager
def complains(about: str | None) -> Iterator[None]:
    """A ProfileWarning that says this, exactly once, or none at all."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [item.category for item in caught] == ([] if about is None else [images.ProfileWarning])
    assert all(str(about) in str(item.message) for item in caught)


@pytest.mark.parametrize("profile", [None, *PROFILES, *UNUSABLE])
@pytest.mark.parametrize("mode", ["1", "L", "I;16", "LA", "RGB", "RGBA", "P", "P, some transparent", "CMYK"])
def test_modes_with_profiles_in_every_orientation(mode: str, profile: str | None, tmp_path: Path) -> None:
    data = None if profile is None else PROFILES[profile][1] if profile in PROFILES else UNUSABLE[profile]
    for orientation, upright in UPRIGHT.items():
        image, numbers, alpha = colors_of(mode, np.random.default_rng(orientation))
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{'tif' if mode == 'CMYK' else 'png'}"
        image.save(path, exif=exif, icc_profile=data)
        expected, usable = expected_of(numbers, profile)
        share = 1.0 if alpha is None else alpha[:, :, None] / 255
        seen = upright(share * expected + (1 - share) * 255)
        with complains(None if usable else f"picture: {path}: its color profile is not used, its numbers"):
            picture = images.read(path)
        assert picture.shape == seen.shape
        assert np.abs(picture - seen).max() < 2
        found = images.read_alpha(path)
        if alpha is None:
            assert found is None
        else:
            np.testing.assert_array_equal(found, upright(alpha[:, :, None])[:, :, 0])
        # A mask is numbers: no profile changes it, and none is complained of.
        luma = (share * without_profile(numbers)) @ np.array([[0.299], [0.587], [0.114]])
        assert np.abs(255 * images.read_mask(path) - upright(luma)[:, :, 0]).max() < 1.6
        # Not by its name: then Pillow mistakes rows for columns in some TIFF files on their side.
        with path.open("rb") as file, complains(None if usable else "Pillow image: its color profile"):
            opened = Image.open(file)
            np.testing.assert_array_equal(images.from_pillow(opened), picture)


def test_every_level_of_gray_is_converted_well(tmp_path: Path) -> None:
    """A profile that is sampled too coarsely is wrong in the shadows first."""
    ramp: Pixels = np.arange(256, dtype=np.uint8)[None, :, None]
    for name in ("gray 1.0", "gray 1.75"):
        _, data, model = PROFILES[name]
        Image.fromarray(ramp[:, :, 0]).save(tmp_path / "x.png", icc_profile=data)
        assert np.abs(images.read(tmp_path / "x.png") - shown(model(ramp / 255))).max() < 0.6


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_profiles_of_every_format(kind: str, tmp_path: Path) -> None:
    _, data, model = PROFILES["linear, channels exchanged"]
    Image.fromarray(SMOOTH).save(tmp_path / f"x.{kind}", icc_profile=data, quality=100)
    with Image.open(tmp_path / f"x.{kind}") as image:
        stored = np.array(image)
    difference = np.abs(images.read(tmp_path / f"x.{kind}") - shown(model(stored / 255)))
    assert difference.max() < 1
    assert np.abs(images.read(tmp_path / f"x.{kind}").astype(int) - stored).max() > 100  # it matters


def test_a_jpeg_of_inks_with_a_profile(tmp_path: Path) -> None:
    _, data, model = PROFILES["inks"]
    inks: Pixels = np.repeat(255 * np.eye(5, 4, dtype=np.uint8), 16, axis=0)[None].repeat(16, axis=0)
    Image.frombytes("CMYK", (80, 16), inks.tobytes()).save(tmp_path / "x.jpg", icc_profile=data, quality=100)
    with complains(None):
        difference = np.abs(images.read(tmp_path / "x.jpg") - shown(model(inks / 255)))
    assert difference.mean() < 1.5


REASONS: list[tuple[str, str, bytes, str]] = [
    ("RGB", "png", PROFILES["inks"][1], "it is for CMYK, the picture is RGB"),
    ("RGB", "jpg", PROFILES["gray 1.0"][1], "it is for GRAY, the picture is RGB"),
    ("L", "png", PROFILES["inks"][1], "it is for CMYK, the picture is GRAY"),
    ("CMYK", "jpg", PROFILES["P3"][1], "it is for RGB, the picture is CMYK"),
    ("RGB", "tif", UNUSABLE["damaged"], "it is damaged"),
    (
        "RGB",
        "tif",
        PROFILES["P3"][1].replace(b"RGB XYZ", b"\x1b[2JXYZ"),
        "it is for \\x1b[2J, the picture is",
    ),
]


@pytest.mark.parametrize(("mode", "kind", "profile", "reason"), REASONS)
def test_why_a_profile_is_not_used(mode: str, kind: str, profile: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    image = Image.fromarray(SMOOTH).convert(mode)
    image.save(path)
    plain = images.read(path)
    image.save(path, icc_profile=profile)
    text = f"picture: {path}: its color profile is not used, its numbers are taken as they are: {reason}"
    with complains(text):
        np.testing.assert_array_equal(images.read(path), plain)
    assert images.describe(path).profile.startswith(f"not used: {reason}")


def test_a_profile_that_pillow_cannot_take_out_is_damaged(tmp_path: Path) -> None:
    image = Image.fromarray(SMOOTH)
    image.save(tmp_path / "x.png", icc_profile=PROFILES["P3"][1])
    break_profile(tmp_path / "x.png")
    image.save(tmp_path / "x.jpg", icc_profile=PROFILES["P3"][1])
    written = (tmp_path / "x.jpg").read_bytes()
    assert b"ICC_PROFILE\0\1\1" in written
    (tmp_path / "x.jpg").write_bytes(written.replace(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\1\2"))
    for name in ("x.png", "x.jpg"):
        with complains("it is damaged"):
            images.read(tmp_path / name)
        assert images.describe(tmp_path / name).profile == "not used: it is damaged"


def test_where_warnings_are_errors_it_is_no_damaged_file(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "x.png", icc_profile=UNUSABLE["damaged"])
    with pytest.raises(images.ProfileWarning):  # as they are in all tests
        images.read(tmp_path / "x.png")


@pytest.fixture
def without_littlecms(monkeypatch: Patch) -> Iterator[None]:
    images.srgb_profile.cache_clear()
    monkeypatch.setattr(features, "check", lambda feature: False)
    yield
    images.srgb_profile.cache_clear()


@pytest.mark.usefixtures("without_littlecms")
def test_without_littlecms_pictures_are_still_read_and_written(tmp_path: Path) -> None:
    for extension in images.FORMATS:
        images.write(tmp_path / f"x{extension}", SMOOTH)
        images.read(tmp_path / f"x{extension}")
        with Image.open(tmp_path / f"x{extension}") as image:
            assert "icc_profile" not in image.info
    images.write(tmp_path / "deep.tif", SMOOTH, depth=16)
    np.testing.assert_array_equal(images.read(tmp_path / "deep.tif"), SMOOTH)
    Image.fromarray(SMOOTH).save(tmp_path / "x.png", icc_profile=PROFILES["P3"][1])
    with complains("Pillow was built without LittleCMS"):
        np.testing.assert_array_equal(images.read(tmp_path / "x.png"), SMOOTH)
    break_profile(tmp_path / "x.png")
    with complains("Pillow was built without LittleCMS"):
        np.testing.assert_array_equal(images.read(tmp_path / "x.png"), SMOOTH)


def test_what_npstyle_wrote_is_not_converted(tmp_path: Path, monkeypatch: Patch) -> None:
    images.write(tmp_path / "x.tif", PICTURE)
    monkeypatch.setattr(ImageCms, "profileToProfile", raises(RuntimeError("converted")))
    np.testing.assert_array_equal(images.read(tmp_path / "x.tif"), PICTURE)


# What is written beside the pixels.


def chunks(path: Path) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG file, each with a sound checksum."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert data[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(kind + body))
        found.append((kind, body))
        at += 12 + length
    return found


def write_chunks(path: Path, kinds: dict[bytes, bytes]) -> None:
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in kinds.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def break_profile(path: Path) -> None:
    """Leave a PNG file a profile that can't be inflated."""
    write_chunks(path, {**dict(chunks(path)), b"iCCP": b"name\0\0" + b"nothing deflated"})


@pytest.mark.parametrize("depth", [8, 16])
def test_png_files_say_srgb_before_the_pixels(depth: int, tmp_path: Path) -> None:
    images.write(tmp_path / "x.png", PICTURE, depth=depth, text={"a": "b"})
    kinds = [kind for kind, _ in chunks(tmp_path / "x.png")]
    assert kinds[0] == b"IHDR"
    assert kinds.index(b"sRGB") < kinds.index(b"IDAT")
    assert kinds.index(b"tEXt") < kinds.index(b"IDAT")
    assert dict(chunks(tmp_path / "x.png"))[b"sRGB"] == b"\0"
    assert b"iCCP" not in kinds
    assert kinds[-1] == b"IEND"


@pytest.mark.parametrize(("name", "depth"), [("x.jpg", 8), ("x.webp", 8), ("x.tif", 8), ("x.tif", 16)])
def test_other_files_carry_a_profile_of_srgb(name: str, depth: int, tmp_path: Path) -> None:
    images.write(tmp_path / name, SMOOTH, depth=depth)
    with Image.open(tmp_path / name) as image:
        profile = image.info["icc_profile"]
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    assert ImageCms.getProfileDescription(opened).startswith("sRGB")
    levels: Pixels = np.random.default_rng(5).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    linear = shown(np.where(levels > 10, ((levels / 255 + 0.055) / 1.055) ** 2.4, levels / 255 / 12.92))
    back = ImageCms.profileToProfile(Image.fromarray(levels), opened, ImageCms.createProfile("sRGB"))
    assert np.abs(np.asarray(back) - linear).max() < 2
    assert images.describe(tmp_path / name).profile == "sRGB"


def test_the_same_picture_makes_the_same_bytes_later(tmp_path: Path) -> None:
    def written() -> dict[str, bytes]:
        images.srgb_profile.cache_clear()  # as in another process
        found: dict[str, bytes] = {}
        for extension, depth in [
            *((extension, 8) for extension in images.FORMATS),
            (".png", 16),
            (".tif", 16),
        ]:
            path = tmp_path / f"x{extension}"
            images.write(path, SMOOTH, depth=depth, text={"seed": "1"})
            found[f"{extension} {depth}"] = path.read_bytes()
        return found

    first = written()
    time.sleep(1.1)  # LittleCMS dates its profiles to the second
    assert written() == first


@pytest.mark.parametrize("orientation", [3, 6])
def test_what_was_turned_upright_is_not_turned_again(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PICTURE).save(tmp_path / "photo.png", exif=exif)
    picture = images.read(tmp_path / "photo.png")
    for name in ("x.png", "x.tif", "x.jpg", "x.webp"):
        images.write(tmp_path / name, picture, text={"a": "b"})
        with Image.open(tmp_path / name) as image:
            assert 0x0112 not in image.getexif()
        assert images.read(tmp_path / name).shape == picture.shape


@pytest.mark.parametrize(
    ("name", "depth"), [("x.png", 8), ("x.png", 16), ("x.tif", 8), ("x.tif", 16), ("x.webp", 8)]
)
def test_alpha_comes_back_exactly(name: str, depth: int, tmp_path: Path) -> None:
    picture, alpha = SMOOTH[:20, :30], np.arange(600, dtype=np.uint8).reshape(20, 30)
    images.write(tmp_path / name, picture, alpha=alpha, depth=depth, text={"a": "b"})
    found = images.read_alpha(tmp_path / name)
    assert found is not None
    np.testing.assert_array_equal(found, alpha)
    share = alpha[:, :, None] / 255
    difference = np.abs(images.read(tmp_path / name) - (share * picture + (1 - share) * 255))
    assert difference.max() < (20 if name == "x.webp" else 1.1)
    assert images.describe(tmp_path / name).mode == ("RGBA, 16 bits" if depth == 16 else "RGBA")
    assert images.read_text(tmp_path / name) == {"a": "b"}


def test_jpeg_has_no_transparency(tmp_path: Path) -> None:
    for name in ("x.png", "x.webp", "x.TIF"):
        images.check_alpha(tmp_path / name)
    path, alpha = tmp_path / "x.jpg", np.zeros((20, 30), np.uint8)
    line = complaint(lambda: images.check_alpha(path), f"output: {path}")
    assert line == (
        "found JPEG, which has no transparency; expected PNG or WEBP or TIFF; "
        f"take for example {tmp_path / 'x.png'}"
    )
    assert complaint(lambda: images.write(path, PICTURE, alpha=alpha), f"output: {path}") == line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "alpha", [np.zeros((30, 20), np.uint8), np.zeros((20, 30)), np.zeros((20, 30, 1), np.uint8)]
)
def test_alpha_of_another_shape_or_type_is_told(alpha: Any, tmp_path: Path) -> None:
    line = complaint(lambda: images.write(tmp_path / "x.png", PICTURE, alpha=alpha), "alpha")
    assert line.startswith(
        f"found {alpha.dtype} array of shape {alpha.shape}; expected uint8 of shape (20, 30);"
    )
    assert list(tmp_path.iterdir()) == []


def test_alpha_is_resized_like_a_picture() -> None:
    three = images.resize(PICTURE, 11, 7)
    for c in range(3):
        np.testing.assert_array_equal(images.resize(PICTURE[:, :, c], 11, 7), three[:, :, c])
    single = images.resize(PICTURE[:, :, 0].astype(np.float64), 11, 7)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, images.resize(PICTURE.astype(np.float64), 11, 7)[:, :, 0])


# 16 bits. Pillow reads their upper half; the whole of them is decoded here.


def png16(path: Path) -> NDArray[np.int64]:
    """(H, W, C) of a PNG file of 16 bits that uses the filters 0 and 2."""
    found = chunks(path)
    W, H, bits, color, *rest = struct.unpack(">IIBBBBB", dict(found)[b"IHDR"])
    assert (bits, rest) == (16, [0, 0, 0])
    C = {2: 3, 6: 4}[color]
    rows = np.frombuffer(zlib.decompress(b"".join(body for kind, body in found if kind == b"IDAT")), np.uint8)
    rows = rows.reshape(H, 1 + 2 * W * C)
    above, decoded = np.zeros(2 * W * C, np.uint8), []
    for filtered in rows:
        assert filtered[0] in (0, 2)
        above = filtered[1:] + (above if filtered[0] == 2 else np.uint8(0))
        decoded.append(above)
    return np.stack(decoded).view(">u2").astype(np.int64).reshape(H, W, C)


def tiff_fields(data: bytes) -> dict[int, Any]:
    """The one directory of a little-endian TIFF file."""
    assert data[:4] == b"II*\0"
    (at,) = struct.unpack_from("<I", data, 4)
    assert at % 2 == 0
    (number,) = struct.unpack_from("<H", data, at)
    found: dict[int, Any] = {}
    for place in range(at + 2, at + 2 + 12 * number, 12):
        tag, kind, count = struct.unpack_from("<HHI", data, place)
        letter = {2: "s", 3: "H", 4: "I", 7: "s"}[kind]
        size = struct.calcsize(f"<{count}{letter}")
        where = place + 8 if size <= 4 else struct.unpack_from("<I", data, place + 8)[0]
        assert where % 2 == 0
        values = struct.unpack_from(f"<{count}{letter}", data, where)
        assert tag > max(found, default=0)
        found[tag] = values[0] if letter == "s" or count == 1 else list(values)
    assert data[at + 2 + 12 * number : at + 6 + 12 * number] == bytes(4)  # no second directory
    return found


def tiff16(path: Path) -> NDArray[np.int64]:
    """(H, W, C) of a deflated TIFF file of 16 bits with differences along its rows."""
    data = path.read_bytes()
    field = tiff_fields(data)
    C = field[277]
    assert field[258] == [16] * C
    assert (field[259], field[262], field[284], field[317]) == (8, 2, 1, 2)
    assert field.get(338) == (2 if C == 4 else None)
    starts, lengths = np.atleast_1d(field[273]).tolist(), np.atleast_1d(field[279]).tolist()
    strips = [zlib.decompress(data[start : start + n]) for start, n in zip(starts, lengths, strict=True)]
    assert all(len(strip) == 2 * C * field[256] * field[278] for strip in strips[:-1])
    rows = np.frombuffer(b"".join(strips), "<u2").reshape(field[257], field[256], C)
    return np.cumsum(rows, axis=1, dtype=np.int64) % 65536


DECODED: dict[str, Callable[[Path], NDArray[np.int64]]] = {"x.png": png16, "x.tif": tiff16}


@pytest.mark.parametrize("opaque", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 700), (900, 1), (300, 1000)], ids=str)
@pytest.mark.parametrize("name", DECODED)
def test_16_bits_come_back_exactly(name: str, size: tuple[int, int], opaque: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(size)
    values = rng.integers(0, 65536, (*size, 3))
    alpha = None if opaque else rng.integers(0, 256, size, dtype=np.uint8)
    # Off a whole number by up to 0.4.
    pixels = np.asarray((values + rng.uniform(-0.4, 0.4, values.shape)) / 257, np.float32)
    images.write(tmp_path / name, pixels, depth=16, alpha=alpha)
    expected = values if alpha is None else np.dstack([values, alpha.astype(np.int64) * 257])
    np.testing.assert_array_equal(DECODED[name](tmp_path / name), expected)
    with Image.open(tmp_path / name) as image:
        np.testing.assert_array_equal(np.asarray(image), expected >> 8)


@pytest.mark.parametrize("name", DECODED)
def test_16_bits_are_clipped_and_hold_all_of_8(name: str, tmp_path: Path) -> None:
    pixels = np.array([[[-3.0, 255.4, 1e6], [0.5, 254.9999, 100 + 1 / 257]]])
    images.write(tmp_path / name, pixels, depth=16)
    expected = [[[0, 65535, 65535], [128, 65535, 25701]]]  # 0.5 is between two, the even one is taken
    assert DECODED[name](tmp_path / name).tolist() == expected
    images.write(tmp_path / name, PICTURE, depth=16)
    np.testing.assert_array_equal(DECODED[name](tmp_path / name), PICTURE.astype(int) * 257)
    np.testing.assert_array_equal(images.read(tmp_path / name), PICTURE)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jpg", "x.webp"])
def test_floats_are_written_as_the_nearest_of_8_bits(name: str, tmp_path: Path) -> None:
    images.write(tmp_path / name, images.to_uint8(SMOOTH + 0.3))
    expected = (tmp_path / name).read_bytes()
    images.write(tmp_path / name, SMOOTH + np.float32(0.3))
    assert (tmp_path / name).read_bytes() == expected


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_some_formats_have_8_bits_only(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{form.lower()}"
    images.check_depth(path, 8)
    images.check_depth(tmp_path / "x.png", 16)
    line = complaint(lambda: images.check_depth(path, 16), f"output: {path}")
    assert line == (
        f"found {form}, which has 8 bits; expected PNG or TIFF; take for example {tmp_path / 'x.png'}"
    )
    assert complaint(lambda: images.write(path, PICTURE, depth=16), f"output: {path}") == line
    words = "found 12; expected 8 or 16; take one of these"
    assert complaint(lambda: images.check_depth(path, 12), "depth") == words
    assert list(tmp_path.iterdir()) == []


def test_tiff_ends_at_4_gb() -> None:
    large = np.broadcast_to(np.uint16(0), (30000, 30000, 3))  # takes no memory
    with pytest.raises(ValueError, match="more than the 4 GB of TIFF"):
        images._write_tiff16(io.BytesIO(), large, None)


@pytest.mark.parametrize("name", DECODED)
def test_a_full_disk_leaves_the_old_file_of_16_bits(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    def fail(*_: object) -> None:
        raise FULL

    (tmp_path / name).write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    line = complaint(lambda: images.write(tmp_path / name, PICTURE, depth=16), f"output: {tmp_path / name}")
    assert line == f"found {os.strerror(errno.ENOSPC)} on writing; {NO_ROOM}"
    assert (tmp_path / name).read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / name]


# Settings in the file.

TEXTS: list[dict[str, str]] = [
    {"version": "0.1.0", "seed": "7"},
    {"content": "Ä 'quoted' \"name\" \\ 写真.jpg", "note": "two\nlines\t\x1b[0m", "empty": ""},
    {"long": "x" * 5000},
]
PLACES = [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".jpg", 8), (".webp", 8)]


@pytest.mark.parametrize("text", TEXTS, ids=["plain", "odd", "long"])
@pytest.mark.parametrize(("extension", "depth"), PLACES)
def test_text_comes_back(extension: str, depth: int, text: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / f"x{extension}"
    images.write(path, PICTURE, depth=depth, text=text)
    assert images.read_text(path) == text
    assert list(images.read_text(path)) == list(text)
    images.write(path, PICTURE, depth=depth)
    assert images.read_text(path) == {}
    images.write(path, PICTURE, depth=depth, text={})
    assert images.read_text(path) == {}


def test_pixels_do_not_depend_on_the_text(tmp_path: Path) -> None:
    for extension, depth in PLACES:
        path = tmp_path / f"x{extension}"
        images.write(path, SMOOTH, depth=depth)
        plain = images.read(path)
        images.write(path, SMOOTH, depth=depth, text=TEXTS[1])
        np.testing.assert_array_equal(images.read(path), plain)


def test_a_text_too_long_for_jpeg_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    line = complaint(lambda: images.write(path, PICTURE, text={"a": "x" * 70000}), f"output: {path}")
    assert "on writing; expected" in line
    assert list(tmp_path.iterdir()) == []


def test_what_others_have_noted_is_none_of_ours(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "x.jpg", comment=b'a photograph {"npstyle": 1}')
    Image.fromarray(PICTURE).save(tmp_path / "x.tif", tiffinfo={270: '{"other": {}}'})
    for name in ("x.jpg", "x.tif"):
        assert images.read_text(tmp_path / name) == {}


BROKEN = [
    '{"npstyle": {"a": "b"',
    '{"npstyle": []}',
    '{"npstyle": {"a": 1}}',
    '{"npstyle": "a"}',
    '{"npstyle":',
]


@pytest.mark.parametrize("words", BROKEN)
def test_a_damaged_text_is_told(words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(PICTURE).save(path, comment=words.encode())
    line = complaint(lambda: images.read_text(path), f"picture: {path}")
    assert line == "found damaged settings in it; expected those that npstyle wrote; take another copy"
    images.read(path)  # the pixels are good


def test_png_text_behind_the_pixels_is_found(tmp_path: Path) -> None:
    images.write(tmp_path / "x.png", PICTURE, text={"a": "b"})
    kinds = dict(chunks(tmp_path / "x.png"))
    kinds = {**{kind: kinds.pop(kind) for kind in (b"IHDR", b"IDAT")}, b"tEXt": kinds[b"tEXt"], b"IEND": b""}
    write_chunks(tmp_path / "x.png", kinds)
    assert images.read_text(tmp_path / "x.png") == {"a": "b"}


def test_the_text_is_json_under_one_key(tmp_path: Path) -> None:
    """Anyone can read it, without npstyle."""
    text, found = TEXTS[1], []
    for name in ("x.png", "x.jpg", "x.tif", "x.webp"):
        images.write(tmp_path / name, PICTURE, text=text)
        with Image.open(tmp_path / name) as image:
            info = image.info
            found.append(info.get("npstyle") or info.get("comment") or image.getexif()[270])
    assert [json.loads(words) for words in found] == [{"npstyle": text}] * 4


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
    found = images.describe(tmp_path / f"x.{kind}")
    assert tuple(found)[:3] == expected[:3]
    assert found.mode.replace("I;16", "I") == expected[3].replace("I;16", "I")  # older Pillow has I for I;16
    assert (found.profile, found.text) == (expected[4], {})


def test_describe_tells_the_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "x.jpg", exif=exif)
    found = images.describe(tmp_path / "x.jpg")
    assert (found.width, found.height) == (20, 30)
    assert images.read(tmp_path / "x.jpg").shape == (30, 20, 3)


@pytest.mark.parametrize("read", [images.read_alpha, images.read_text, images.describe])
@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_truncated_picture_is_damaged_for_all(
    read: Callable[[Path], Any], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x.{kind}"
    images.write(path, SMOOTH, text={"a": "b"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert complaint(lambda: read(path), f"picture: {path}").startswith("found a damaged file (")


def test_no_kind_of_nan_is_warned_of(tmp_path: Path) -> None:
    bits = np.array([[0x7FA00000, 0x7FC00000, 0xFF800000, 0]], np.uint32)  # signalling NaN, NaN, -infinity
    Image.fromarray(bits.view(np.float32)).save(tmp_path / "x.tif")
    assert images.read(tmp_path / "x.tif").shape == (1, 4, 3)


def test_a_length_in_a_file_is_not_believed_on_reading(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    tracemalloc.start()
    with images._Patient(tmp_path / "x") as file:
        assert file.read(1) == b"a"
        assert file.read(2**32) == b"bc"
        assert file.read(2**32) == b""
        file.seek(0)
        assert file.read() == b"abc"
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
