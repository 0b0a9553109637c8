"""Arrays in a zip archive (.npz), of which none takes memory before its header is held against its size."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

# Bytes in which a header has to end; NumPy takes less than 200 for an array of numbers.
LONGEST_HEADER = 1 << 14


class Member:
    """Shape and type of an array in an archive; `numpy.asarray` reads it, and nothing else does.

    Parameters
    ----------
    archive : ZipFile
        It has to stay open.
    info : ZipInfo
        The member, stored or deflated as NumPy does: other methods may ask for memory of their own.
    """

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename!a} is compressed by method {info.compress_type}")
        self.archive, self.info = archive, info
        with archive.open(info) as file:
            head = io.BytesIO(file.read(LONGEST_HEADER))
        self.shape, self.fortran, self.dtype = _header(head)
        self.begin = head.tell()
        if self.dtype.hasobject:
            raise ValueError(f"{info.filename!a} holds pickled objects, which may run anything")
        if min(self.shape, default=0) < 0 or self.begin + self.nbytes != info.file_size:
            raise ValueError(f"{info.filename!a} does not hold what it says")

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        with self.archive.open(self.info) as file:
            file.read(self.begin)
            data = bytearray(file.read(self.nbytes))
        array = np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")
        return array if dtype is None else array.astype(dtype)


def _header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the first index runs fastest, and type."""
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"an array in NumPy's format {version}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a file was written by Python 2 is nothing to act on
            found: tuple[tuple[int, ...], bool, np.dtype[Any]] = readers[version](file)
    except MemoryError:  # what Python's parser makes of deep nesting
        raise ValueError("an array whose header is no header") from None
    return found
