"""Writing: formats, alpha, completely or not at all, and the checks of an output before a long run."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from helpers import error_line
from npstyle import images
from npstyle.errors import UserError
from pictures import ORIENTATION, PICTURE, SMOOTH, Patch, orientation_exif, raises


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.tiff", "x.PNG"])
def test_lossless_formats_round_trip(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"old")
    images.write(tmp_path / name, PICTURE, overwrite=True)
    np.testing.assert_array_equal(images.read(tmp_path / name), PICTURE)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


@pytest.mark.parametrize("name", ["x.jpg", "x.jpeg", "x.JPG", "x.webp"])
def test_lossy_formats_round_trip(name: str, tmp_path: Path) -> None:
    images.write(tmp_path / name, SMOOTH)
    difference = np.abs(images.read(tmp_path / name).astype(int) - SMOOTH)
    assert 0 < difference.mean() < 1.5
    assert difference.max() < 20


@pytest.mark.parametrize("extension", images.FORMATS)
def test_extension_selects_format(extension: str, tmp_path: Path) -> None:
    images.write(tmp_path / f"x{extension}", SMOOTH)
    with Image.open(tmp_path / f"x{extension}") as image:
        assert image.format == Image.registered_extensions()[extension]
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jpg", "x.webp"])
def test_write_rounds_floats(name: str, tmp_path: Path) -> None:
    images.write(tmp_path / name, images.to_uint8(SMOOTH + 0.3))
    expected = (tmp_path / name).read_bytes()
    images.write(tmp_path / name, SMOOTH + np.float32(0.3), overwrite=True)
    assert (tmp_path / name).read_bytes() == expected


def failing_save(error: BaseException) -> Callable[..., None]:
    def save(_: Image.Image, file: Any, **__: object) -> None:
        file.write(b"half a picture")
        raise error

    return save


DISK_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


WRITE_CURE = "expected a folder with room and a format for this size; choose another"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DISK_FULL, os.strerror(errno.ENOSPC)),
        (OSError("encoder error -2"), "encoder error -2"),
        (ValueError("too wide for\nWebP"), "too wide for WebP"),
    ],
)
def test_failed_write_keeps_old_file(error: Any, reason: str, tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", failing_save(error))
    with pytest.raises(UserError) as caught:
        images.write(path, PICTURE, overwrite=True)
    assert str(caught.value) == f"output: {path}: found {reason} on writing; {WRITE_CURE}"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_leaves_no_file(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Image.Image, "save", failing_save(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        images.write(tmp_path / "x.png", PICTURE)
    assert list(tmp_path.iterdir()) == []


EXTENSIONS = "expected one of .png .jpg .jpeg .webp .tif .tiff; try "


@pytest.mark.parametrize("call", [images.check_output, partial(images.write, picture=PICTURE)])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("x.gif", f"found the extension '.gif'; {EXTENSIONS}"),
        ("x", f"found no extension; {EXTENSIONS}"),
        ("missing/x.png", f"found {os.strerror(errno.ENOENT)} on writing"),
        ("file/x.png", f"found {os.strerror(errno.ENOTDIR)} on writing"),
        ("a" * 300 + ".png", f"found {os.strerror(errno.ENAMETOOLONG)} on writing"),
    ],
)
def test_invalid_output_path(call: Callable[[Path], Any], name: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert error_line(lambda: call(tmp_path / name), f"output: {tmp_path / name}").startswith(line)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("name", ["", ".", "/", "folder.png"])
def test_check_output_of_a_folder(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    line = error_line(lambda: images.check_output(name, overwrite=True), f"output: {Path(name)}")
    assert line == "found a folder; expected a file name; add a name to it"


def test_check_output_of_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    line = error_line(lambda: images.check_output(path), f"output: {path}")
    assert line == "found a file of that name; expected a new name; choose another or add --overwrite"
    assert images.check_output(path, overwrite=True) == path
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["x.png", "x.JPG", "x.jpeg", "x.webp", "x.tif", "x.tiff"])
def test_check_output_leaves_no_file(name: str, tmp_path: Path) -> None:
    assert images.check_output(str(tmp_path / name)) == tmp_path / name
    assert list(tmp_path.iterdir()) == []


def test_check_output_in_a_read_only_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", raises(PermissionError(errno.EACCES, "Permission denied")))
        line = error_line(lambda: images.check_output(tmp_path / "x.png"), f"output: {tmp_path / 'x.png'}")
    expected = (
        "found Permission denied on writing there; expected a name in a folder that can be written to; "
        "choose another"
    )
    assert line == expected


def test_write_follows_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "store" / "blob")
    images.write(images.check_output(link, overwrite=True), np.zeros((4, 5, 3), np.uint8))
    assert link.is_symlink()
    with Image.open(tmp_path / "store" / "blob") as image:
        assert (image.format, image.size) == ("PNG", (5, 4))
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["blob"]


def test_check_output_of_a_dangling_symbolic_link(tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "nowhere" / "x.png")
    with pytest.raises(UserError, match="No such file or directory on writing there"):
        images.check_output(link, overwrite=True)
    with pytest.raises(UserError, match="a file of that name"):
        images.check_output(link)


@pytest.mark.parametrize("hard_links", [True, False])
def test_write_does_not_replace_a_file_by_default(
    hard_links: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    if not hard_links:
        monkeypatch.setattr(os, "link", raises(OSError(errno.EPERM, "Operation not permitted")))
    images.write(tmp_path / "new.png", PICTURE)
    path = tmp_path / "old.png"
    path.write_bytes(b"old")
    line = error_line(lambda: images.write(path, PICTURE), f"output: {path}")
    assert line == "found a file of that name; expected a new name; choose another or add --overwrite"
    assert path.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.png", "old.png"]
    images.write(path, PICTURE, overwrite=True)
    np.testing.assert_array_equal(images.read(path), PICTURE)


def test_same_picture_gives_same_bytes_later(tmp_path: Path) -> None:
    def written() -> dict[str, bytes]:
        images.srgb_profile.cache_clear()  # as in another process
        files: dict[str, bytes] = {}
        for extension, depth in [
            *((extension, 8) for extension in images.FORMATS),
            (".png", 16),
            (".tif", 16),
        ]:
            path = tmp_path / f"x{extension}"
            images.write(path, SMOOTH, overwrite=True, depth=depth, text={"seed": "1"})
            files[f"{extension} {depth}"] = path.read_bytes()
        return files

    first = written()
    time.sleep(1.1)  # LittleCMS profiles contain their time of creation in seconds
    assert written() == first


@pytest.mark.parametrize("orientation", [3, 6])
def test_no_orientation_is_written(orientation: int, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "photo.png", exif=orientation_exif(orientation))
    picture = images.read(tmp_path / "photo.png")
    for name in ("x.png", "x.tif", "x.jpg", "x.webp"):
        images.write(tmp_path / name, picture, text={"a": "b"})
        with Image.open(tmp_path / name) as image:
            assert ORIENTATION not in image.getexif()
        assert images.read(tmp_path / name).shape == picture.shape


@pytest.mark.parametrize(
    ("name", "depth"), [("x.png", 8), ("x.png", 16), ("x.tif", 8), ("x.tif", 16), ("x.webp", 8)]
)
def test_alpha_round_trip(name: str, depth: int, tmp_path: Path) -> None:
    picture, alpha = SMOOTH[:20, :30], np.arange(600, dtype=np.uint8).reshape(20, 30)
    images.write(tmp_path / name, picture, alpha=alpha, depth=depth, text={"a": "b"})
    stored = images.read_alpha(tmp_path / name)
    assert stored is not None
    np.testing.assert_array_equal(stored, alpha)
    opacity = alpha[:, :, None] / 255
    difference = np.abs(images.read(tmp_path / name) - (opacity * picture + (1 - opacity) * 255))
    assert difference.max() < (20 if name == "x.webp" else 1.1)
    assert images.describe(tmp_path / name).mode == ("RGBA, 16 bits" if depth == 16 else "RGBA")
    assert images.read_text(tmp_path / name) == {"a": "b"}


def test_jpeg_has_no_alpha(tmp_path: Path) -> None:
    for name in ("x.png", "x.webp", "x.TIF"):
        images.check_alpha(tmp_path / name)
    path, alpha = tmp_path / "x.jpg", np.zeros((20, 30), np.uint8)
    line = error_line(lambda: images.check_alpha(path), f"output: {path}")
    assert line == (
        f"found JPEG, which has no transparency; expected PNG or WEBP or TIFF; try {tmp_path / 'x.png'}"
    )
    assert error_line(lambda: images.write(path, PICTURE, alpha=alpha), f"output: {path}") == line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("picture", ["photo.jpg", None, np.zeros(3), np.zeros((2, 2, 3), complex), [[], []]])
def test_what_is_no_picture_is_not_written(picture: Any, tmp_path: Path) -> None:
    line = error_line(lambda: images.write(tmp_path / "x.png", picture), "picture")
    assert " array of shape " in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "alpha", [np.zeros((30, 20), np.uint8), np.zeros((20, 30)), np.zeros((20, 30, 1), np.uint8)]
)
def test_alpha_of_wrong_shape_or_dtype(alpha: Any, tmp_path: Path) -> None:
    line = error_line(lambda: images.write(tmp_path / "x.png", PICTURE, alpha=alpha), "alpha")
    assert line.startswith(
        f"found {alpha.dtype} array of shape {alpha.shape}; expected uint8 of shape (20, 30);"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_formats_of_8_bits_only(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{form.lower()}"
    images.check_depth(path, 8)
    images.check_depth(tmp_path / "x.png", 16)
    line = error_line(lambda: images.check_depth(path, 16), f"output: {path}")
    assert line == (f"found {form}, which has 8 bits; expected PNG or TIFF; try {tmp_path / 'x.png'}")
    assert error_line(lambda: images.write(path, PICTURE, depth=16), f"output: {path}") == line
    assert (
        error_line(lambda: images.check_depth(path, 12), "depth")
        == "found 12; expected 8 or 16; choose one of these"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.tif"])
@pytest.mark.parametrize("depth", [8, 16])
def test_encoded_bytes_are_those_of_the_file(name: str, depth: int, tmp_path: Path) -> None:
    path = tmp_path / name
    if depth == 16 and name in ("x.jpg", "x.webp"):
        error_line(lambda: images.encode(path, PICTURE, depth=depth), f"output: {path}")
        return
    images.write(path, PICTURE, depth=depth, text={"note": "here"})
    assert images.encode(name, PICTURE, depth=depth, text={"note": "here"}) == path.read_bytes()


def test_what_no_format_can_hold_is_one_line_when_encoded() -> None:
    wide = np.zeros((1, 70_000, 3), np.uint8)
    line = error_line(lambda: images.encode("x.jpg", wide), "output: x.jpg")
    assert "on encoding it; expected a format for this size" in line
