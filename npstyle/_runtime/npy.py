"""Arrays in a zip archive (.npz): no memory is allocated before the header agrees with the file's size."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

PIECE_BYTES = 1 << 20  # of an array, read at a time
MAX_HEADER_BYTES = 1 << 14  # NumPy's are shorter than 200 for an array of numbers


class Member:
    """Shape and dtype of an array in an archive; only `numpy.asarray` reads its elements.

    Parameters
    ----------
    archive : ZipFile
        It has to stay open.
    info : ZipInfo
        The member, stored or deflated as NumPy does: other methods may allocate memory of their own.
    """

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename!a} is compressed by method {info.compress_type}")
        self.archive, self.info = archive, info
        with archive.open(info) as file:
            head = io.BytesIO(file.read(MAX_HEADER_BYTES))
        self.shape, self.fortran, self.dtype = _header(head)
        self.begin = head.tell()
        if self.dtype.hasobject:
            raise ValueError(f"{info.filename!a} holds pickled objects, which may run anything")
        if min(self.shape, default=0) < 0 or self.begin + self.nbytes != info.file_size:
            raise ValueError(f"{info.filename!a} does not hold what it says")

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        data = np.empty(self.nbytes, np.uint8)  # filled in pieces: read at once, it would be there twice
        with self.archive.open(self.info) as file:
            file.read(self.begin)
            for start in range(0, self.nbytes, PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                piece[...] = np.frombuffer(file.read(len(piece)), np.uint8)
        array = np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")
        return array if dtype is None else array.astype(dtype)


def _header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran order, and dtype."""
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"an array in NumPy's format {version}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file written by Python 2 is read all the same
            header: tuple[tuple[int, ...], bool, np.dtype[Any]] = readers[version](file)
    except MemoryError:  # from Python's parser, for deep nesting
        raise ValueError("an array whose header is no header") from None
    return header
