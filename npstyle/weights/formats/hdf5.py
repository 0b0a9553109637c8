"""HDF5 files, opened without locking, and of their contents only what is in the file itself.

A soft or external link could lead to any other file, and a damaged file may hold a group within itself.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from npstyle.errors import UserError

if TYPE_CHECKING:
    import h5py

# HDF5 allocates memory for a whole chunk of a dataset; VGG19's largest kernel has 2.4 million elements.
MAX_CHUNK_ELEMENTS = 1 << 24
MAX_GROUPS = 10_000  # that are looked into; a model of a thousand layers has a few thousand
MAX_DEPTH = 16  # of groups within groups
LOCAL_HEADER_BYTES = 30  # before a member of a zip archive, and before its name
READ_BYTES = 1 << 20


@contextmanager
def open_hdf5(path: Path, mode: Literal["r", "w"] = "r") -> Iterator[h5py.File]:
    """Open a file without locking it, which fails where another program has it open, and on some clusters."""
    import h5py

    try:
        file = h5py.File(path, mode, locking=False)
    except OSError as error:
        if "lock file" not in str(error):
            raise
        raise UserError(  # HDF5_USE_FILE_LOCKING=TRUE in the environment has the last word
            f"weights: {path}",
            "a file that can't be locked",
            "one that no other program has open, or no locking",
            "set HDF5_USE_FILE_LOCKING=FALSE",
        ) from error
    with file:
        yield file


@contextmanager
def open_member(path: Path, name: str) -> Iterator[h5py.File]:
    """Open an HDF5 file inside of a zip archive, where it is stored without compression.

    Raises
    ------
    UserError
        It is compressed.
    """
    import h5py

    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        info = archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            expected, cure = "stored, as Keras writes it", f"extract {name} and name that"
            raise UserError(f"weights: {path}", f"{name} compressed", expected, cure)
        with archive.open(info) as member:
            while member.read(READ_BYTES):  # to its end, where zipfile verifies the checksum
                pass
        file.seek(info.header_offset + LOCAL_HEADER_BYTES - 4)
        name_length, extra_length = (int.from_bytes(file.read(2), "little") for _ in range(2))
        with h5py.File(_Part(file, file.tell() + name_length + extra_length, info.file_size), "r") as hdf5:
            yield hdf5


class _Part(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: IO[bytes], begin: int, size: int) -> None:
        self._file, self._begin, self._size, self._position = file, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[
            whence
        ] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._begin + self._position)
        data = self._file.read(max(0, min(len(buffer), self._size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def subgroup(parent: h5py.Group, name: str) -> h5py.Group | None:
    """The group of that name in the file itself, if there is one."""
    import h5py

    hard_link = isinstance(parent.get(name, getlink=True), h5py.HardLink)
    group = parent.get(name) if hard_link else None
    return group if isinstance(group, h5py.Group) else None


def groups_below(root: h5py.Group, skip: frozenset[str]) -> Iterator[tuple[h5py.Group, list[str]]]:
    """A group and all groups within it, breadth first, each with the names of its own groups.

    Those whose name is in `skip` are left out, with all that is in them.
    """
    level, count = [root], 0
    for _ in range(MAX_DEPTH):
        below = []
        for group in level:
            children = {name: child for name in group if (child := subgroup(group, name)) is not None}
            count += len(children)
            if count > MAX_GROUPS:
                raise ValueError(f"more than {MAX_GROUPS} groups")
            yield group, list(children)
            below += [child for name, child in children.items() if name not in skip]
        level = below


def datasets_of(group: h5py.Group) -> list[Any]:
    """All datasets of a group and of the groups within it."""
    items: list[Any] = []
    group.visititems(lambda _, item: items.append(item))
    return [item for item in items if hasattr(item, "shape")]


def check_storage(dataset: Any) -> None:
    """Refuse elements that are stored in other files, or in chunks much larger than any kernel."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name!a} is stored in other files")
    if dataset.chunks and math.prod(dataset.chunks) > MAX_CHUNK_ELEMENTS:
        raise ValueError(f"{dataset.name!a} in chunks of {dataset.chunks}")
