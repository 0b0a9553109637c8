"""Files that must not be taken for what they are not: cameras' RAW files, formats that Pillow lacks."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import error_line
from npstyle import images

Fields = dict[int, tuple[str, list[int]]]  # tag: type (B, H or I) and values
TYPE_CODES = {"B": 1, "H": 3, "I": 4}


def page(width: int, height: int, at: int, **changes: tuple[str, list[int]]) -> Fields:
    """The fields of an uncompressed gray picture whose pixels are at an offset of the file."""
    fields: Fields = {254: ("I", [0]), 256: ("I", [width]), 257: ("I", [height]), 258: ("H", [8])}
    fields |= {259: ("H", [1]), 262: ("H", [1]), 273: ("I", [at]), 277: ("H", [1]), 278: ("I", [height])}
    fields |= {279: ("I", [width * height])}
    return dict(sorted((fields | {int(tag[1:]): field for tag, field in changes.items()}).items()))


def tiff(pages: list[Fields], below: list[Fields], order: str = "<", big: bool = False) -> bytes:
    """A TIFF file of 4096 bytes of pixels and directories; those `below` are the first one's SubIFDs."""
    word, entry_form = ("Q", "HHQ") if big else ("I", "HHI")
    size, start = struct.calcsize(f"<{word}"), 16 + 4096
    every = [*below, *pages]
    offsets = [start + 1000 * n for n in range(len(every))]
    data = bytearray(start + 1000 * len(every))
    data[:4] = struct.pack(f"{order}2sH", b"II" if order == "<" else b"MM", 43 if big else 42)
    if big:
        data[4:8] = struct.pack(f"{order}HH", 8, 0)
    struct.pack_into(f"{order}{word}", data, 8 if big else 4, offsets[len(below)])
    if below:
        pages[0][330] = ("I", offsets[: len(below)])
    for n, (fields, at) in enumerate(zip(every, offsets, strict=True)):
        extra = at + 700
        struct.pack_into(f"{order}{'Q' if big else 'H'}", data, at, len(fields))
        at += 8 if big else 2
        for tag, (form, values) in sorted(fields.items()):
            packed = struct.pack(f"{order}{len(values)}{form}", *values)
            struct.pack_into(f"{order}{entry_form}", data, at, tag, TYPE_CODES[form], len(values))
            at += struct.calcsize(f"<{entry_form}")
            if len(packed) > size:
                data[extra : extra + len(packed)] = packed
                packed = struct.pack(f"{order}{word}", extra)
                extra += 100
            data[at : at + len(packed)] = packed
            at += size
        following = offsets[n + 1] if len(below) <= n < len(every) - 1 else 0
        struct.pack_into(f"{order}{word}", data, at, following)
    return bytes(data)


THUMBNAIL = {"t254": ("I", [1])}
SENSOR = {"t262": ("H", [32803])}
RAW: dict[str, tuple[list[Fields], list[Fields]]] = {
    "NEF: a thumbnail, and the sensor's values below it": (
        [page(8, 4, 16, **THUMBNAIL)],
        [page(16, 8, 16, **THUMBNAIL), page(64, 32, 16, **SENSOR)],
    ),
    "DNG: the same with its version": (
        [page(8, 4, 16, **THUMBNAIL, t50706=("B", [1, 4, 0, 0]))],
        [page(64, 32, 16, **SENSOR)],
    ),
    "DNG without a thumbnail": ([page(64, 32, 16, t50706=("B", [1, 4, 0, 0]))], []),
    "PEF: the sensor's values first": ([page(64, 32, 16, **SENSOR), page(8, 4, 16, **THUMBNAIL)], []),
    "a larger picture below the first": ([page(8, 4, 16)], [page(64, 32, 16)]),
    "a thumbnail before the page": ([page(8, 4, 16, **THUMBNAIL), page(64, 32, 16)], []),
}


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize(("pages", "below"), RAW.values(), ids=RAW.keys())
def test_raw_file_is_refused_instead_of_its_thumbnail(
    pages: list[Fields], below: list[Fields], order: str, big: bool, tmp_path: Path
) -> None:
    path = tmp_path / "photo.nef"
    path.write_bytes(tiff(pages, below, order, big))
    for read in (images.read, images.read_alpha, images.read_mask, images.describe):
        line = error_line(lambda read=read: read(path), f"picture: {path}")  # type: ignore[misc]
        assert line.startswith("found a camera's RAW file")
        assert line.endswith("; expected a finished picture; develop it to a 16-bit TIFF first")


@pytest.mark.parametrize(
    "head",
    [b"FUJIFILMCCD-RAW 0201", b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0", b"FOVb", b"\0\0\0\x18ftypcrx \0\0\0\1"],
)
def test_raw_file_of_its_own_format_is_named(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.raw"
    path.write_bytes(head + bytes(200))
    assert error_line(lambda: images.read(path), f"picture: {path}").startswith("found a camera's RAW file;")


def test_canon_raw_file_is_refused_by_its_mark(tmp_path: Path) -> None:
    """Its first directory is a preview that nothing but the mark distinguishes from a picture."""
    path = tmp_path / "photo.cr2"
    data = bytearray(tiff([page(8, 4, 16)], []))
    at = struct.unpack_from("<I", data, 4)[0]
    data[16 : 16 + 200] = data[at : at + 200]
    struct.pack_into("<I4s", data, 4, 16, b"CR\x02\0")
    path.write_bytes(data)
    assert error_line(lambda: images.read(path), f"picture: {path}").startswith("found a camera's RAW file;")


@pytest.mark.parametrize("order", ["<", ">"])
def test_first_page_and_largest_of_a_pyramid_are_read(order: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(tiff([page(8, 4, 16), page(64, 32, 16)], [page(4, 2, 16, **THUMBNAIL)], order))
    assert images.read(path).shape == (4, 8, 3)


def test_pillow_image_of_a_raw_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.nef"
    path.write_bytes(tiff(*RAW["NEF: a thumbnail, and the sensor's values below it"]))
    for convert in (images.from_pillow, images.mask_from_pillow):
        with Image.open(path) as image:
            for _ in range(2):
                line = error_line(lambda c=convert, i=image: c(i), "Pillow image")  # type: ignore[misc]
                assert line.startswith("found a camera's RAW file")
                image.load()  # its file is closed now


def test_directories_in_a_circle_end(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    first = page(8, 4, 16)
    data = bytearray(tiff([first, page(8, 4, 16)], [page(4, 2, 16)]))
    offset = struct.unpack_from("<I", data, 4)[0]
    struct.pack_into("<I", data, offset + 2 + 12 * len(first), offset)  # the first is followed by itself
    path.write_bytes(data)
    assert images.read(path).shape == (4, 8, 3)


UTF16_SVG = '<?xml version="1.0" encoding="UTF-16"?><svg/>'.encode("utf-16")
NAMED: list[tuple[bytes, str, str]] = [
    (b"\xff\x0a\xfa\x1f", "a JPEG XL file", "convert it to PNG"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file", "convert it to PNG"),
    (b"\x76\x2f\x31\x01\x02\0\0\0", "an OpenEXR file", "tone-map it"),
    (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "a Radiance HDR file", "tone-map it"),
    (b"%PDF-1.7\n", "a PDF document", "export it as PNG or TIFF first"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript program", "export it as PNG or TIFF first"),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing", "export it as PNG or TIFF first"),
    (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a -->\n<svg/>', "an SVG drawing", "export it"),
    (UTF16_SVG, "an SVG drawing", "export it as PNG or TIFF first"),
    (b"\n<!DOCTYPE html><html><svg/></html>", "a web page", "save the picture itself"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"gimp xcf v011", "a project of GIMP (XCF)", "export it as PNG or TIFF first"),
    (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video", "save one frame as PNG"),
    (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", "run git lfs pull"),
    (b"hello, <svg> is a word", "a file that is not a picture", "convert it to PNG"),
]


@pytest.mark.parametrize(("head", "found", "cure"), NAMED, ids=[found for _, found, _ in NAMED])
def test_format_that_pillow_lacks_is_named(head: bytes, found: str, cure: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(head)
    line = error_line(lambda: images.read(path), f"picture: {path}")
    assert line.startswith(f"found {found}")
    assert cure in line


def test_heic_without_pillow_heif_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "x.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    line = error_line(lambda: images.read(path), f"picture: {path}")
    assert line.startswith("found a HEIC file; ")
    assert "pip install pillow-heif" in line


def test_heic_is_read_with_pillow_heif(tmp_path: Path) -> None:
    pillow_heif: Any = pytest.importorskip("pillow_heif")
    path = tmp_path / "x.heic"
    color = np.full((64, 96, 3), (200, 100, 50), np.uint8)
    pillow_heif.from_bytes("RGB", (96, 64), color.tobytes()).save(path, quality=90)
    picture = images.read(path)
    assert picture.shape == color.shape
    assert np.abs(picture.astype(int) - color).max() < 8


UNSUPPORTED: dict[str, tuple[int, int, int]] = {
    "3 x 32-bit floating-point": (3, 32, 3),
    "1 x 16-bit floating-point": (1, 16, 3),
    "1 x 64-bit floating-point": (1, 64, 3),
    "2 x 16-bit integer": (2, 16, 1),
    "3 x 32-bit integer": (3, 32, 1),
    "3 x 16-bit signed integer": (3, 16, 2),
    "1 x 8-bit signed integer": (1, 8, 2),  # Pillow takes -1 for 255
    "1 x 64-bit complex": (1, 64, 6),
}


@pytest.mark.parametrize(("found", "samples"), UNSUPPORTED.items(), ids=UNSUPPORTED.keys())
def test_tiff_of_values_that_pillow_lacks_says_which(
    found: str, samples: tuple[int, int, int], tmp_path: Path
) -> None:
    count, bits, kind = samples
    path = tmp_path / "x.tif"
    changes = {"t258": ("H", [bits] * count), "t262": ("H", [2 if count == 3 else 1])}
    changes |= {"t277": ("H", [count]), "t339": ("H", [kind] * count)}
    path.write_bytes(tiff([page(8, 4, 16, **changes)], []))
    line = error_line(lambda: images.read(path), f"picture: {path}")
    assert line == (
        f"found a TIFF file of {found} values; expected values that Pillow reads; "
        "convert them to unsigned 8 or 16 bits"
    )


GRAY: list[tuple[str, Any, dict[str, tuple[str, list[int]]], list[int]]] = [
    ("unsigned 32 bits", np.array([0, 2**31, 2**32 - 1], np.uint32), {}, [0, 128, 255]),
    ("16 bits, 0 is white", np.array([0, 13107, 65535], np.uint16), {"t262": ("H", [0])}, [255, 204, 0]),
    ("floats, 0 is white", np.array([0, 0.2, 1], np.float32), {"t262": ("H", [0])}, [255, 204, 0]),
    ("signed 16 bits", np.array([-5, 16384, 32767], np.int16), {}, [0, 128, 255]),
    ("dark 16 bits", np.array([0, 257, 514], np.uint16), {}, [0, 1, 2]),
    ("12 bits", np.frombuffer(b"\x00\x08\x00\xff\xf0", np.uint8), {"t258": ("H", [12])}, [0, 128, 255]),
]


@pytest.mark.parametrize(("values", "changes", "expected"), [g[1:] for g in GRAY], ids=[g[0] for g in GRAY])
def test_tiff_of_deep_gray(values: Any, changes: Any, expected: list[int], tmp_path: Path) -> None:
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    changes = {"t258": ("H", [8 * values.itemsize]), "t339": ("H", [kind]), **changes}
    data = bytearray(tiff([page(3, 1, 16, t279=("I", [values.nbytes]), **changes)], []))
    data[16 : 16 + values.nbytes] = values.tobytes()
    path = tmp_path / "x.tif"
    path.write_bytes(data)
    assert images.read(path)[0, :, 0].tolist() == expected
    np.testing.assert_array_equal(images.read_mask(path)[0] * 255, expected)
    with Image.open(path) as image:
        assert images.from_pillow(image)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("largest", [50.0, 1e6, np.inf])
def test_few_lights_of_an_hdr_picture_are_clipped_with_a_warning(largest: float, tmp_path: Path) -> None:
    values = np.full((20, 30), 0.2, np.float32)
    values[0, :2] = 40, largest
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.warns(images.PictureWarning, match=r"0.33 percent of the values are beyond white"):
        picture = images.read(tmp_path / "x.tif")
    assert picture[0, :3, 0].tolist() == [255, 255, 51]


def test_guess_of_white_that_leaves_a_picture_dark_gives_a_warning(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 20, 600, dtype=np.float32).reshape(20, 30)).save(tmp_path / "x.tif")
    with pytest.warns(images.PictureWarning, match="below 19.8, and 255 is taken for white"):
        images.read(tmp_path / "x.tif")


def test_dark_16_bit_pgm_stays_dark(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([0, 257], ">u2").tobytes())
    assert images.read(tmp_path / "x.pgm")[0, :, 0].tolist() == [0, 1]
