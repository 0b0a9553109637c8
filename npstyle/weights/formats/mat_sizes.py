"""A check of the sizes in a MATLAB file before SciPy reads it and allocates whatever memory they ask for.

The file is a sequence of elements, each with a type and a length: variables, plain or compressed. The
elements of a variable are its flags, its dimensions, its name, and values or further variables, one for each
cell or field.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO

MAX_DEPTH = 16  # of variables within variables; MatConvNet has 5
MAX_VARIABLES = 100_000  # MatConvNet has a few thousand
MAX_INFLATED_BYTES = 1 << 30  # VGG19 with its classifier has 575 million
MAX_METADATA_BYTES = 1 << 16  # of dimensions, of a name, of field names

MATRIX, COMPRESSED = 14, 15  # types of elements
CELL, STRUCT, OBJECT, CHARACTERS, SPARSE, LAST_NUMERIC = 1, 2, 3, 4, 5, 15  # classes of variables
COMPLEX_FLAG = 0x800


def check_sizes(path: Path, variable_name: bytes) -> None:
    """Raise ValueError unless the variable of that name, if there is one, has as many bytes as it states."""
    with path.open("rb") as file:
        header = file.read(128)
        byte_order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        if byte_order is None:
            raise ValueError("a header of an unknown form")
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            element_type, length = struct.unpack(f"{byte_order}II", file.read(8).ljust(8, b"\0"))
            end = file.tell() + length
            if end > size or element_type not in (MATRIX, COMPRESSED):
                raise ValueError("an element that extends beyond the file or is not a variable")
            checker = _VariableChecker(file, length, element_type == COMPRESSED, byte_order)
            if checker.check(variable_name):
                return
            file.seek(end)


class _VariableChecker:
    """Walks through the elements of a variable without keeping them."""

    def __init__(self, file: IO[bytes], length: int, compressed: bool, byte_order: str) -> None:
        self.file, self.unread, self.byte_order = file, length, byte_order
        self.decompressor = zlib.decompressobj() if compressed else None
        self.buffer = b""
        self.inflated_bytes = self.variables = 0

    def check(self, variable_name: bytes) -> bool:
        """False if the variable has another name; ValueError if it states more than is in the file."""
        if self.decompressor and self.integers(self.take(8), "I")[0] != MATRIX:
            raise ValueError("a compressed element that is not a variable")
        return self.check_matrix(0, variable_name)

    def check_matrix(self, depth: int, variable_name: bytes | None = None) -> bool:
        self.variables += 1
        if depth > MAX_DEPTH or self.variables > MAX_VARIABLES:
            raise ValueError("too many variables, or too deeply nested")
        flags, *_ = self.integers(self.metadata(), "I")
        dimensions = self.integers(self.metadata(), "i")
        name = self.metadata()
        if variable_name not in (None, name):
            return False
        if min(dimensions, default=0) < 0:
            raise ValueError("negative dimensions")
        matlab_class, count = flags & 0xFF, math.prod(dimensions)
        if matlab_class in (CELL, STRUCT, OBJECT):
            self.check_children(matlab_class, count, depth)
        elif matlab_class == CHARACTERS:
            if count > self.skip():
                raise ValueError("fewer characters than stated")
        elif matlab_class <= LAST_NUMERIC:
            for _ in range((3 if matlab_class == SPARSE else 1) + bool(flags & COMPLEX_FLAG)):
                self.skip()
        else:
            raise ValueError(f"a variable of class {matlab_class}")
        return True

    def check_children(self, matlab_class: int, count: int, depth: int) -> None:
        """Check one variable for each cell, or for each field of each structure."""
        if count > MAX_VARIABLES:
            raise ValueError("too many variables, or too deeply nested")
        if matlab_class == OBJECT:
            self.metadata()
        if matlab_class != CELL:
            (name_length, *_), names = self.integers(self.metadata(), "i"), self.metadata()
            if name_length < 1:
                raise ValueError("fields without names")
            count *= len(names) // name_length
        for _ in range(count):
            element_type, length = self.integers(self.take(8), "I")
            if element_type != MATRIX:
                raise ValueError("a cell or field that is not a variable")
            if length:  # an empty one has no elements
                self.check_matrix(depth + 1)

    def metadata(self) -> bytes:
        """The data of the next element, which has to be short."""
        length, data = self.tag()
        if length > MAX_METADATA_BYTES:
            raise ValueError("too long a name")
        if data is None:
            data = self.take(length)
            self.take(-length % 8)
        return data

    def skip(self) -> int:
        """Skip an element and return its length in bytes."""
        length, data = self.tag()
        remaining = 0 if data is not None else length + -length % 8
        while remaining > len(self.buffer):
            remaining -= len(self.buffer)
            self.buffer = self.read_some()
        self.buffer = self.buffer[remaining:]
        return length

    def tag(self) -> tuple[int, bytes | None]:
        """The length of the next element, and its data if it is in the tag itself: up to 4 bytes may be."""
        tag = self.take(8)
        element_type, length = self.integers(tag, "I")
        if element_type >> 16:
            return element_type >> 16, tag[4:][: element_type >> 16]
        return length, None

    def integers(self, data: bytes, code: str) -> tuple[int, ...]:
        count = len(data) // 4
        if not count:
            raise ValueError("no integer where one was expected")
        return struct.unpack(f"{self.byte_order}{count}{code}", data[: 4 * count])

    def take(self, count: int) -> bytes:
        """The next bytes of the variable."""
        while len(self.buffer) < count:
            self.buffer += self.read_some()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_some(self) -> bytes:
        """Read a few more bytes; decompression may multiply them by a thousand."""
        data = b""
        while not data:
            compressed = self.file.read(min(self.unread, 4096))
            if not compressed:
                raise ValueError("a variable that ends too soon")
            self.unread -= len(compressed)
            data = self.decompressor.decompress(compressed) if self.decompressor else compressed
        self.inflated_bytes += len(data)
        if self.decompressor and self.inflated_bytes > MAX_INFLATED_BYTES:
            raise ValueError(f"more than {MAX_INFLATED_BYTES} bytes after decompression")
        return data
