"""A look at a MATLAB file before SciPy reads it, which gives it all the memory that a number in it asks for.

The file is a row of elements, each with its type and its length: variables, deflated or not. A variable's
elements are what it is, its dimensions, its name, and numbers or further variables, one for each cell or
field.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO

DEEPEST = 16  # variables within variables; MatConvNet has 5
MOST_VARIABLES = 100_000  # MatConvNet has a few thousand
MOST_INFLATED = 1 << 30  # bytes; VGG19 with its classifier has 575 million
LONGEST_WORDS = 1 << 16  # bytes of dimensions, of a name, of the names of fields

MATRIX, DEFLATED = 14, 15  # types of elements
CELL, STRUCT, OBJECT, CHARACTERS, SPARSE, LAST_NUMERIC = 1, 2, 3, 4, 5, 15  # kinds of variables
COMPLEX = 0x800


def check(path: Path, wanted: bytes) -> None:
    """Raise ValueError unless the variable `wanted`, if there is one, holds as much as it says it does."""
    with path.open("rb") as file:
        head = file.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
        if order is None:
            raise ValueError("a header of an unknown form")
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            kind, length = struct.unpack(f"{order}II", file.read(8).ljust(8, b"\0"))
            end = file.tell() + length
            if end > size or kind not in (MATRIX, DEFLATED):
                raise ValueError("a variable that reaches beyond the file or is none")
            if _Variable(file, length, kind == DEFLATED, order).is_good(wanted):
                return
            file.seek(end)


class _Variable:
    """The elements of a variable, one after the other."""

    def __init__(self, file: IO[bytes], length: int, deflated: bool, order: str) -> None:
        self.file, self.left, self.order = file, length, order
        self.inflate = zlib.decompressobj() if deflated else None
        self.ready = b""
        self.given = self.variables = 0

    def is_good(self, wanted: bytes) -> bool:
        """False if it has another name; ValueError if it promises what is not there."""
        if self.inflate and self.numbers(self.take(8), "I")[0] != MATRIX:
            raise ValueError("a variable that is none")
        return self.matrix(0, wanted)

    def matrix(self, depth: int, wanted: bytes | None = None) -> bool:
        self.variables += 1
        if depth > DEEPEST or self.variables > MOST_VARIABLES:
            raise ValueError("too much in it")
        flags, *_ = self.numbers(self.words(), "I")
        dimensions = self.numbers(self.words(), "i")
        name = self.words()
        if wanted not in (None, name):
            return False
        if min(dimensions, default=0) < 0:
            raise ValueError("negative dimensions")
        kind, count = flags & 0xFF, math.prod(dimensions)
        if kind in (CELL, STRUCT, OBJECT):
            self.children(kind, count, depth)
        elif kind == CHARACTERS:
            if count > self.skip():
                raise ValueError("fewer characters than it says")
        elif kind <= LAST_NUMERIC:
            for _ in range((3 if kind == SPARSE else 1) + bool(flags & COMPLEX)):
                self.skip()
        else:
            raise ValueError(f"a variable of kind {kind}")
        return True

    def children(self, kind: int, count: int, depth: int) -> None:
        """As many variables as there are cells, or fields of structures."""
        if count > MOST_VARIABLES:
            raise ValueError("too much in it")
        if kind == OBJECT:
            self.words()
        if kind != CELL:
            (length, *_), names = self.numbers(self.words(), "i"), self.words()
            if length < 1:
                raise ValueError("fields without names")
            count *= len(names) // length
        for _ in range(count):
            what, length = self.numbers(self.take(8), "I")
            if what != MATRIX:
                raise ValueError("a variable that is none")
            if length:  # nothing at all stands for an empty one
                self.matrix(depth + 1)

    def words(self) -> bytes:
        """A short element."""
        length, data = self.tag()
        if length > LONGEST_WORDS:
            raise ValueError("a name that is too long")
        if data is None:
            data = self.take(length)
            self.take(-length % 8)
        return data

    def skip(self) -> int:
        """Pass over an element, and tell how many bytes it has."""
        length, data = self.tag()
        left = 0 if data is not None else length + -length % 8
        while left > len(self.ready):
            left -= len(self.ready)
            self.ready = self.more()
        self.ready = self.ready[left:]
        return length

    def tag(self) -> tuple[int, bytes | None]:
        """The length of an element, and what is in it if it is so short that it stands within its tag."""
        tag = self.take(8)
        kind, length = self.numbers(tag, "I")
        if kind >> 16:
            return kind >> 16, tag[4:][: kind >> 16]
        return length, None

    def numbers(self, data: bytes, code: str) -> tuple[int, ...]:
        found = struct.unpack(f"{self.order}{len(data) // 4}{code}", data[: len(data) // 4 * 4])
        if not found:
            raise ValueError("no number where one was expected")
        return found

    def take(self, count: int) -> bytes:
        while len(self.ready) < count:
            self.ready += self.more()
        data, self.ready = self.ready[:count], self.ready[count:]
        return data

    def more(self) -> bytes:
        """The next few bytes; deflated ones may become a thousand times as many."""
        data = b""
        while not data:
            packed = self.file.read(min(self.left, 4096))
            if not packed:
                raise ValueError("it ends too soon")
            self.left -= len(packed)
            data = self.inflate.decompress(packed) if self.inflate else packed
        self.given += len(data)
        if self.inflate and self.given > MOST_INFLATED:
            raise ValueError("too much in it")
        return data
