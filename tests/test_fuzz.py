"""A short fuzzing run, and files made by hand whose headers state more than is in the file."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from helpers import png_chunk
from npstyle import images
from npstyle.errors import UserError
from npstyle.run import checkpoint
from npstyle.weights import random_weights, read_weights

FUZZ = Path(__file__).parent / "fuzz" / "fuzz.py"
MAX_MEMORY = 32 << 20  # bytes that refusing a file may allocate

ONE = random_weights(0, "conv1_1")["conv1_1"]
F4 = "'<f4'"


@pytest.mark.skipif(sys.platform != "linux", reason="limits and measures the process as Linux does")
def test_mutated_input_gives_results_or_one_line_errors() -> None:
    done = subprocess.run(
        [sys.executable, str(FUZZ), "--count", "250", "--seed", "0"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^(\w+): 0 findings, (\d+) refusals, (\d+) results$", done.stdout, re.M)
    assert len(lines) == 5
    assert all(int(refused) > 20 and int(good) > 10 for _, refused, good in lines), done.stdout


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """The message of the UserError that reading raises, with little memory allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_MEMORY
    line = str(caught.value)
    assert line.splitlines() == [line]
    return line


def npy(shape: str, kind: str = F4, data: bytes = b"", version: int = 1) -> bytes:
    """A NumPy file with any header."""
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(text))
        + text
        + data
    )


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


BIAS = npy("(64,)", data=ONE.bias.tobytes())
KERNEL = "(3, 3, 3, 64)"
MEMBERS: dict[str, tuple[bytes, str]] = {
    "terabytes": (npy("(1000000000000,)"), "does not hold what it says"),
    "more than any machine has": (
        npy("(4611686018427387904, 4611686018427387904)"),
        "does not hold what it says",
    ),
    "no data": (npy(KERNEL), "does not hold what it says"),
    "one number too many": (npy(KERNEL, data=ONE.kernel.tobytes() + bytes(4)), "does not hold what it says"),
    "a long text": (npy("()", "'<U99999999'"), "does not hold what it says"),
    "no elements, but a large size": (npy("(0, 1000000000000)"), r"conv1_1 with kernel \(0, 1000000000000\)"),
    "a negative size": (npy("(-3, -3, 3, 64)", data=ONE.kernel.tobytes()), "does not hold what it says"),
    "a deep header": (npy("-" * 9000 + "1"), "a header|Cannot parse|no header"),
    "a long header": (npy(" " * 99_999 + "(1,)", version=2), "header"),
    "gigabytes of a header": (b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(99), "header"),
    "objects": (
        npy("(1,)", "'|O'", b"cos\nsystem\n(S'touch x'\ntR."),
        "pickled objects, which may run anything",
    ),
    "objects inside of records": (npy("(1,)", "[('a', '|O')]", b"cos\nsystem\n."), "pickled objects"),
    "a format to come": (npy("(1,)", version=9), "format"),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize(("member", "words"), MEMBERS.values(), ids=MEMBERS.keys())
def test_npz_array_allocates_no_more_than_file_has(
    member: bytes, words: str, method: int, tmp_path: Path
) -> None:
    zipped(tmp_path / "x", {"conv1_1/kernel.npy": member, "conv1_1/bias.npy": BIAS}, method)
    assert re.search(words, refusal(read_weights, tmp_path / "x"))


def test_npz_array_of_wrong_shape_is_not_decompressed(tmp_path: Path) -> None:
    members = {"conv1_1/kernel.npy": npy("(50000000,)", data=bytes(200_000_000)), "conv1_1/bias.npy": BIAS}
    zipped(tmp_path / "x", members, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "x").stat().st_size < 10**6
    assert "conv1_1 with kernel (50000000,)" in refusal(read_weights, tmp_path / "x")


def test_zip_with_false_sizes_is_refused(tmp_path: Path) -> None:
    zipped(tmp_path / "x", {"conv1_1/kernel.npy": npy(KERNEL), "conv1_1/bias.npy": BIAS})
    data = (tmp_path / "x").read_bytes()
    size = len(npy(KERNEL))
    both = struct.pack("<II", size, size)
    assert data.count(both) == 2
    promised = size + ONE.kernel.nbytes
    for lie in (promised, 0xFFFFFFF0):
        (tmp_path / "x").write_bytes(data.replace(both, struct.pack("<II", lie, lie)))
        assert "a damaged file" in refusal(read_weights, tmp_path / "x")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_npz_with_other_compression_is_refused(method: int, tmp_path: Path) -> None:
    members = {"conv1_1/kernel.npy": npy(KERNEL, data=ONE.kernel.tobytes()), "conv1_1/bias.npy": BIAS}
    zipped(tmp_path / "x", members, method)
    assert "is compressed by method" in refusal(read_weights, tmp_path / "x")
    zipped(tmp_path / "x", members, zipfile.ZIP_DEFLATED)
    weights = read_weights(tmp_path / "x", preprocessing="caffe")
    np.testing.assert_array_equal(weights["conv1_1"].kernel, ONE.kernel)


@pytest.mark.parametrize(
    "member", [npy("()", "'<U999'", bytes(4 * 999)), npy("(2,)", "'<U1'", bytes(8)), npy("()", data=bytes(4))]
)
def test_npz_preprocessing_must_be_short_string(member: bytes, tmp_path: Path) -> None:
    members = {"conv1_1/kernel.npy": npy(KERNEL, data=ONE.kernel.tobytes()), "conv1_1/bias.npy": BIAS}
    zipped(tmp_path / "x", {**members, "preprocessing.npy": member})
    assert "a preprocessing that is not a short string" in refusal(read_weights, tmp_path / "x")


def test_fortran_order_and_python_2_headers_are_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.asfortranarray(ONE.kernel))
    bias = b"\x93NUMPY\1\0" + struct.pack("<H", 60)
    bias += (
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (64L,)}".ljust(59) + b"\n" + ONE.bias.tobytes()
    )
    zipped(tmp_path / "x", {"conv1_1/kernel.npy": file.getvalue(), "conv1_1/bias.npy": bias})
    got = read_weights(tmp_path / "x", preprocessing="caffe")["conv1_1"]
    np.testing.assert_array_equal(got.kernel, ONE.kernel)
    np.testing.assert_array_equal(got.bias, ONE.bias)
    assert got.kernel.flags.c_contiguous


def state(path: Path, **members: bytes) -> None:
    """A checkpoint with any members."""
    checkpoint.write(path, checkpoint.Checkpoint({}, (), {}))
    with zipfile.ZipFile(path, "a") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


@pytest.mark.parametrize(("member", "words"), MEMBERS.values(), ids=MEMBERS.keys())
def test_checkpoint_array_allocates_no_more_than_file_has(member: bytes, words: str, tmp_path: Path) -> None:
    if "conv1_1" in words:
        pytest.skip("a checkpoint's arrays may have any shape")
    state(tmp_path / "x", x=member)
    assert re.search(words, refusal(checkpoint.read, tmp_path / "x"))


def test_checkpoint_with_overlapping_members_is_refused(tmp_path: Path) -> None:
    state(tmp_path / "x", x=npy("(100000,)", data=bytes(400_000)))
    data = (tmp_path / "x").read_bytes()
    *_, count, _, size, begin, _ = struct.unpack("<IHHHHIIH", data[-22:])
    directory = data[begin : begin + size]
    entry = directory[directory.index(b"PK\1\2", 4) :]
    many = directory + entry * 999
    tail = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count + 999, count + 999, len(many), begin, 0)
    (tmp_path / "x").write_bytes(data[:begin] + many + tail)
    assert "more in it than it is long" in refusal(checkpoint.read, tmp_path / "x")


def hdf5(path: Path, make: Callable[[Any], Any]) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("block1_conv1")
        group["bias"] = ONE.bias
        make(group)


LARGE = (1 << 20, 1 << 20, 1 << 10, 64)
DATASETS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "terabytes without room": (
        lambda group: group.create_dataset("kernel", LARGE, "f4"),
        r"conv1_1 with kernel \(1048576, 1048576, 1024, 64\)",
    ),
    "terabytes in pieces": (
        lambda group: group.create_dataset("kernel", LARGE, "f4", chunks=(1, 1, 1, 64)),
        r"conv1_1 with kernel \(1048576, 1048576, 1024, 64\)",
    ),
    "one large piece": (
        lambda group: group.create_dataset(
            "kernel", ONE.kernel.shape, "f4", chunks=(64, 64, 64, 128), maxshape=(None,) * 4, compression=9
        ),
        r"in chunks of \(64, 64, 64, 128\)",
    ),
    "other files": (
        lambda group: group.create_dataset(
            "kernel", ONE.kernel.shape, "f4", external=[("/dev/zero", 0, 6912)]
        ),
        "stored in other files",
    ),
}


@pytest.mark.parametrize(("make", "words"), DATASETS.values(), ids=DATASETS.keys())
def test_hdf5_dataset_allocates_no_more_than_file_has(
    make: Callable[[Any], Any], words: str, tmp_path: Path
) -> None:
    hdf5(tmp_path / "x", make)
    assert (tmp_path / "x").stat().st_size < 10**6
    assert re.search(words, refusal(read_weights, tmp_path / "x"))


def test_virtual_hdf5_dataset_is_refused(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout(ONE.kernel.shape, "f4")
    layout[...] = h5py.VirtualSource(str(tmp_path / "other"), "x", ONE.kernel.shape)
    hdf5(tmp_path / "x", lambda group: group.create_virtual_dataset("kernel", layout))
    assert "stored in other files" in refusal(read_weights, tmp_path / "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("name", ["model_weights", "block1_conv1"])
def test_external_hdf5_link_is_not_opened(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits
    with h5py.File(tmp_path / "x", "w") as file:
        file[name] = h5py.ExternalLink(str(tmp_path / "pipe"), "/")
    assert "no filters of VGG19" in refusal(read_weights, tmp_path / "x")


def element(kind: int, data: bytes) -> bytes:
    """Part of a MATLAB file."""
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def variable(kind: int, shape: tuple[int, ...], content: bytes, name: bytes = b"") -> bytes:
    dimensions = element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, element(6, struct.pack("<II", kind, 0)) + dimensions + element(1, name) + content)


def mat(path: Path, content: bytes, deflated: bool) -> None:
    if deflated:
        packed = zlib.compress(content, 9)
        content = struct.pack("<II", 15, len(packed)) + packed
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + content)


CELL, STRUCT, CHARACTERS, SINGLE = 1, 2, 4, 7
FIELD = element(5, struct.pack("<i", 8)) + element(1, b"a\0\0\0\0\0\0\0" * 1000)


def nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = variable(CELL, (1, 1), content or element(14, b""))
    return content


MATS: dict[str, bytes] = {
    "billions of cells": variable(CELL, (2**31 - 1, 2**20), b"", b"layers"),
    "billions of structures": variable(STRUCT, (2**31 - 1, 1), FIELD, b"layers"),
    "thousands of structures of thousands of fields": variable(STRUCT, (99_999, 1), FIELD, b"layers"),
    "billions of letters": variable(CHARACTERS, (2**31 - 1, 2), element(16, b""), b"layers"),
    "negative dimensions": variable(CELL, (-1, -5), b"", b"layers"),
    "a deep one": variable(CELL, (1, 1), nested(2000), b"layers"),
    "gigabytes of values": variable(SINGLE, (1, 1), struct.pack("<II", 7, 0xFFFFFFF0), b"layers"),
    "gigabytes of a name": variable(CELL, (1, 1), b"", b"")[:-8] + struct.pack("<II", 1, 0xFFFFFFF0),
    "no dimensions": element(14, element(6, bytes(8)) + element(5, b"") + element(1, b"layers")),
    "names without a length": variable(STRUCT, (1, 1), element(5, bytes(4)) + element(1, b"a"), b"layers"),
    "a function": variable(16, (1, 1), b"", b"layers"),
}


@pytest.mark.parametrize("deflated", [False, True], ids=["plain", "deflated"])
@pytest.mark.parametrize("content", MATS.values(), ids=MATS.keys())
def test_mat_variable_allocates_no_more_than_file_has(content: bytes, deflated: bool, tmp_path: Path) -> None:
    mat(tmp_path / "x", content, deflated)
    assert "found a damaged file (" in refusal(read_weights, tmp_path / "x")


def test_mat_with_too_many_empty_cells_is_refused(tmp_path: Path) -> None:
    mat(tmp_path / "x", variable(CELL, (1, 10**6), element(14, b"") * 10**6, b"layers"), deflated=True)
    assert (tmp_path / "x").stat().st_size < 10**5
    assert "too many variables" in refusal(read_weights, tmp_path / "x")


def test_mat_decompression_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npstyle.weights.formats.mat_sizes.MAX_INFLATED_BYTES", 10 << 20)
    numbers = element(7, bytes(20 << 20))
    mat(tmp_path / "x", variable(SINGLE, (5 << 20, 1), numbers, b"layers"), deflated=True)
    assert "more than 10485760 bytes after decompression" in refusal(read_weights, tmp_path / "x")


def test_other_mat_variables_are_ignored(tmp_path: Path) -> None:
    other = variable(CELL, (2**31 - 1, 2**20), b"", b"meta")
    mat(tmp_path / "x", other + variable(CHARACTERS, (1, 1), element(16, b"x"), b"layers"), deflated=False)
    assert "no filters of VGG19" in refusal(read_weights, tmp_path / "x")


def png_of(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(99)))


def tiff_of(width: int, height: int) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 99}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def bmp_of(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def gif_of(width: int, height: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\0;"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame


def jpeg_of(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    data = file.getvalue()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


PICTURES: dict[str, bytes] = {
    "png": png_of(2**31 - 1, 2**31 - 1),
    "png within a line": png_of(2**30, 1),
    "tiff": tiff_of(2**31, 2**31),
    "bmp": bmp_of(2**31 - 1, 2**31 - 1),
    "gif": gif_of(65535, 65535),
    "jpeg": jpeg_of(65500, 65500),
}


@pytest.mark.parametrize("read", [images.read, images.read_alpha, images.read_mask, images.describe])
@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES.keys())
def test_picture_with_too_many_pixels_is_refused_before_decoding(
    data: bytes, read: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(data)
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
    expected = f"found too many pixels; expected at most {limit} million; make it smaller first"
    assert refusal(read, tmp_path / "x") == f"picture: {tmp_path / 'x'}: {expected}"


def test_postscript_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *words: ran.append(words))
    (tmp_path / "x").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n"
    )
    assert "found a PostScript program" in refusal(images.read, tmp_path / "x")
    assert ran == []


def test_damaged_exif_raises_no_warning(tmp_path: Path) -> None:
    exif = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 270, 2, 50, 9999)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.png", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        picture = images.read(tmp_path / "x.png")
        text = images.describe(tmp_path / "x.png").text
    assert [str(warning.message) for warning in caught] == []
    np.testing.assert_array_equal(picture, np.full((8, 8, 3), (255, 0, 0), np.uint8))
    assert text == {}
