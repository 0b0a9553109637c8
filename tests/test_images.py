"""Pictures in every mode Pillow has, upright and on white; sizes; files written whole or not at all."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

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


def grey(*values: int) -> list[tuple[int, int, int]]:
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
    assert line == f"{name}: found {error.found}; expected {error.expected}; {error.cure}"
    assert line.splitlines() == [line]
    return line.removeprefix(f"{name}: ")


INKS = np.array([(0, 255, 255, 0), (0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 255, 0)], np.uint8).tobytes()
MODES: list[tuple[str, str, Image.Image, Any]] = [
    ("RGB", "png", row((1, 2, 3), (4, 5, 6)), [(1, 2, 3), (4, 5, 6)]),
    ("L", "png", row(0, 100, 255), grey(0, 100, 255)),
    ("1", "png", row(1, 0, 0, dtype=bool), grey(255, 0, 0)),
    ("P", "png", palette(), [RED, GREEN, BLUE]),
    ("LA", "png", row((100, 0), (100, 255), (0, 128)), grey(255, 100, 127)),
    ("RGBA", "png", row((9, 9, 9, 0), (1, 2, 3, 255), (*RED, 51)), [WHITE, (1, 2, 3), (255, 204, 204)]),
    ("CMYK", "tif", Image.frombytes("CMYK", (4, 1), INKS), [RED, WHITE, BLACK, GREEN]),
    ("I;16", "png", row(0, 128, 129, 25700, 65535, dtype=np.uint16), grey(0, 0, 1, 100, 255)),
    ("I", "tif", row(-5, 0, 25700, 65535, dtype=np.int32), grey(0, 0, 100, 255)),
    ("I", "tif", row(0, 100, 200, dtype=np.int32), grey(0, 100, 200)),
    ("I", "tif", row(0, 500_000, 10**6, dtype=np.int32), grey(0, 128, 255)),
    ("F", "tif", row(0, 0.5, 1.0, 1.2, dtype=np.float32), grey(0, 128, 255, 255)),
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
def test_transparent_colours_lie_on_white(image: Any, which: Any, expected: Any, tmp_path: Path) -> None:
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
    """Its neighbour is none, though both become the same 8 bits. Older Pillow can't write such a file."""
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
    assert read_back(image, tmp_path / "x.tif") == grey(0, 0, 51, 153, 0)


def test_larger_floats_are_scaled_by_the_largest(tmp_path: Path) -> None:
    assert read_back(row(0, 2e5, 1e6, dtype=np.float32), tmp_path / "x.tif") == grey(0, 51, 255)


# What undoes the turn that the EXIF orientation says was made.
UPRIGHT: dict[int, Callable[[Pixels], Any]] = {
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
    colour: NDArray[Any] = np.array([10, 200, 255], dtype)
    resized = images.resize(np.broadcast_to(colour, (20, 30, 3)), *size)
    assert resized.shape == (size[1], size[0], 3)
    assert resized.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    np.testing.assert_allclose(resized, np.broadcast_to(colour, resized.shape), rtol=1e-6)


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
