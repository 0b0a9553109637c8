"""PyTorch's state dicts, as `torch.save` writes them since version 1.6 (zip) and wrote them before (legacy).

PyTorch is not needed. Neither format states the preprocessing; see `quantized` for a convention that does.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from npstyle.weights.formats import quantized
from npstyle.weights.formats.common import Contents
from npstyle.weights.formats.naming import read_layers
from npstyle.weights.formats.pickle_machine import MAX_PICKLE_BYTES, PickleMachine, check_type
from npstyle.weights.formats.tensors import CODES, ByteOrder, Tensor

ZIP_MAGIC = b"PK\x03\x04"
# The pickled number at the start of a legacy file, after the two bytes of the protocol.
LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_VERSION = 1001
BYTE_ORDERS: dict[bytes, ByteOrder] = {b"little": "<", b"big": ">"}


def read(path: Path, wanted_layers: Sequence[str]) -> Contents:
    """Read layers; what these do not need stays unread."""
    with open_tensors(path) as tensors:
        if quantized.is_quantized(tensors):
            return Contents(quantized.read_layers(path, tensors, wanted_layers), "caffe", quantized.BITS)
        return Contents(read_layers(path, tensors, wanted_layers), None)


@contextmanager
def open_tensors(path: Path) -> Iterator[dict[str, Tensor]]:
    """Open a file of either format and yield its tensors by name; they can be read until it is closed."""
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    with (_open_zip if is_zip else _open_legacy)(path) as tensors:
        yield tensors


def is_torch_zip(path: Path) -> bool:
    """Whether a zip archive is PyTorch's, and not NumPy's."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return bool(_pickle_name(archive))


@contextmanager
def _open_zip(path: Path) -> Iterator[dict[str, Tensor]]:
    """Open a zip archive of a pickle, data.pkl, and a member for each storage."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        folder = _pickle_name(archive).removesuffix("data.pkl")

        def read(name: str, start: int, size: int) -> bytes:
            return _read_member(archive, f"{folder}data/{name}", start, size)

        byte_order = b"little"
        if f"{folder}byteorder" in archive.namelist():
            byte_order = _read_member(archive, f"{folder}byteorder")
        machine = PickleMachine(path, read, BYTE_ORDERS[byte_order])
        yield _state_dict(machine.run(io.BytesIO(_read_member(archive, f"{folder}data.pkl"))))


def _pickle_name(archive: zipfile.ZipFile) -> str:
    """The name of PyTorch's pickle in a zip archive, empty if there is none."""
    names = [name for name in archive.namelist() if name.count("/") <= 1]
    return next((name for name in names if name.split("/")[-1] == "data.pkl"), "")


def _read_member(archive: zipfile.ZipFile, name: str, start: int = 0, size: int | None = None) -> bytes:
    """Part of a member, or all of it; zipfile verifies the checksum of what is read to its end."""
    info = archive.getinfo(name)
    if size is None:
        if info.file_size > MAX_PICKLE_BYTES:
            raise ValueError(f"{name} of {info.file_size} bytes")
        size = info.file_size
    if start + size > info.file_size:
        raise ValueError(f"{name} is too short")
    with archive.open(info) as file:
        if start:
            file.seek(start)
        return file.read(size)


@contextmanager
def _open_legacy(path: Path) -> Iterator[dict[str, Tensor]]:
    """Open a file of five pickles followed by the storages.

    The pickles are a magic number, the version of the format, a description of the machine, the object, and
    the names of the storages in their order. A storage is its number of elements and the elements,
    little-endian whichever machine wrote them.
    """
    starts: dict[str, int] = {}
    with path.open("rb") as file:

        def read(name: str, start: int, size: int) -> bytes:
            file.seek(starts[name] + start)
            return file.read(size)

        machine = PickleMachine(path, read)
        pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        _, version, _, contents, names = (machine.run(pickles) for _ in range(5))
        if version != LEGACY_VERSION:
            raise ValueError(f"an unknown version {version!r} of PyTorch's format")
        position, file_size = pickles.tell(), os.fstat(file.fileno()).st_size
        for name in check_type(list, names):
            storage = machine.storages[check_type(str, name)]
            file.seek(position)
            (count,) = struct.unpack("<q", file.read(8))
            starts[name] = position + 8
            position += 8 + count * np.dtype(CODES[storage.element_type]).itemsize
            if count != storage.count or position > file_size:
                raise ValueError(f"storage {name} is too short")
        yield _state_dict(contents)


def _state_dict(contents: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of a training checkpoint that contains one."""
    if isinstance(contents, dict):
        for candidate in (contents.get("state_dict"), contents.get("model"), contents):
            if isinstance(candidate, dict):
                tensors = {str(key): item for key, item in candidate.items() if isinstance(item, Tensor)}
                if tensors:
                    return tensors
    return {}
