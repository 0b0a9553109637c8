"""TIFF's directories as far as they say what a file holds: camera RAW, thumbnails, the format of samples."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from npstyle.errors import UserError

NEW_SUBFILE_TYPE, OLD_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, PHOTOMETRIC = 254, 255, 256, 257, 258, 262
SAMPLES, SUB_IFDS, SAMPLE_FORMAT, DNG_VERSION = 277, 330, 339, 50706
TAGS = {
    *(NEW_SUBFILE_TYPE, OLD_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, PHOTOMETRIC),
    *(SAMPLES, SUB_IFDS, SAMPLE_FORMAT, DNG_VERSION),
}
CANON_RAW = (b"\x10\0\0\0CR", b"\0\0\0\x10CR")  # at byte 4: the first directory is at 16, behind a mark
CAMERA_PHOTOMETRIC = (32803, 34892)  # color filter array, LinearRaw
# The types of TIFF whose values are counted here: byte, short, long, IFD, and BigTIFF's long8 and IFD8.
TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
MAX_DIRECTORIES, MAX_ENTRIES, MAX_VALUES = 64, 4096, 64  # of a file that may be malicious
SAMPLE_FORMATS = {1: "integer", 2: "signed integer", 3: "floating-point", 5: "complex integer", 6: "complex"}

Directory = dict[int, tuple[int, ...]]


class Directories(NamedTuple):
    """The directories of a TIFF file: those of the pages, and those that SubIFDs point to."""

    pages: list[Directory]
    below: list[Directory]


def directories(file: BinaryIO) -> Directories:
    """The directories of a TIFF or BigTIFF file, as far as they can be read; none of any other file."""
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    magic = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) == 16 else 0
    if magic not in (42, 43):
        return Directories([], [])
    reader = _Reader(file, order, big=magic == 43)
    (first,) = struct.unpack_from(f"{order}{'Q' if reader.big else 'I'}", head, 8 if reader.big else 4)
    pages = list(reader.chain(first))
    return Directories(pages, [one for page in pages for one in reader.below(page)])


def check_tiff(file: BinaryIO, name: str) -> None:
    """Raise UserError about a TIFF file that Pillow would misread; others are not looked at.

    The first picture in most RAW files of cameras (NEF, DNG, CR2, ARW), which are TIFF, is a thumbnail. And
    Pillow takes signed values of 8 bits for unsigned ones.
    """
    pages, below = directories(file)
    if not pages:
        return
    first, every = pages[0], [*pages, *below]
    file.seek(4)
    is_camera = file.read(6) in CANON_RAW or any(
        DNG_VERSION in one or _value(one, PHOTOMETRIC) in CAMERA_PHOTOMETRIC for one in every
    )
    larger = max((_size(one) for one in below), key=lambda size: size[0] * size[1], default=(0, 0))
    if _value(first, SAMPLE_FORMAT) == 2 and _value(first, BITS) == 8:
        raise unreadable_samples(first, name)
    w, h = _size(first)
    reduced = _value(first, NEW_SUBFILE_TYPE) & 1 or _value(first, OLD_SUBFILE_TYPE) == 2
    if is_camera:
        raise raw_error(name)
    if reduced or larger[0] * larger[1] > w * h:
        found = f"a camera's RAW file, or a TIFF that begins with a thumbnail ({w} x {h} pixels)"
        raise UserError(name, found, "a finished picture", "develop it to a 16-bit TIFF first")


def raw_error(name: str) -> UserError:
    """The error about a camera's RAW file."""
    return UserError(name, "a camera's RAW file", "a finished picture", "develop it to a 16-bit TIFF first")


def unreadable_samples(first: Directory, name: str) -> UserError:
    """The error about a TIFF file whose first directory describes values that Pillow does not know."""
    bits = first.get(BITS, (1,))
    kind = SAMPLE_FORMATS.get(_value(first, SAMPLE_FORMAT, 1), "unknown")
    count = max(len(bits), _value(first, SAMPLES, 1))
    found = f"a TIFF file of {count} x {bits[0]}-bit {kind} values"
    return UserError(name, found, "values that Pillow reads", "convert them to unsigned 8 or 16 bits")


def _value(directory: Directory, tag: int, default: int = 0) -> int:
    return directory.get(tag, (default,))[0]


def _size(directory: Directory) -> tuple[int, int]:
    return _value(directory, WIDTH), _value(directory, HEIGHT)


class _Reader:
    """Reads directories, each once, and gives up silently where the file is damaged: Pillow will say so."""

    def __init__(self, file: BinaryIO, order: str, big: bool) -> None:
        self.file, self.order, self.big = file, order, big
        self.seen: set[int] = set()

    def chain(self, offset: int) -> Iterator[Directory]:
        """The directory at an offset and those that follow it."""
        while offset and offset not in self.seen and len(self.seen) < MAX_DIRECTORIES:
            self.seen.add(offset)
            try:
                directory, offset = self._directory(offset)
            except (struct.error, OSError, OverflowError):
                return
            yield directory

    def below(self, directory: Directory) -> Iterator[Directory]:
        """The directories that a directory's SubIFDs point to, and those below them."""
        for offset in directory.get(SUB_IFDS, ()):
            for one in self.chain(offset):
                yield one
                yield from self.below(one)

    def _unpack(self, form: str, data: bytes, at: int = 0) -> tuple[int, ...]:
        return struct.unpack_from(f"{self.order}{form}", data, at)

    def _directory(self, offset: int) -> tuple[Directory, int]:
        """The directory at an offset, and the offset of the next one."""
        count_form, entry_form, entry_bytes = ("Q", "HHQQ", 20) if self.big else ("H", "HHII", 12)
        self.file.seek(offset)
        (count,) = self._unpack(count_form, self.file.read(struct.calcsize(f"<{count_form}")))
        data = self.file.read(min(count, MAX_ENTRIES) * entry_bytes)
        follows = self.file.read(8 if self.big else 4)
        directory: Directory = {}
        for at in range(0, len(data) - entry_bytes + 1, entry_bytes):
            tag, type_code, length, value = self._unpack(entry_form, data, at)
            if tag in TAGS and type_code in TYPES and length:
                inline = data[at + entry_bytes - (8 if self.big else 4) : at + entry_bytes]
                with suppress(struct.error):
                    directory[tag] = self._values(TYPES[type_code], min(length, MAX_VALUES), inline, value)
        try:
            return directory, self._unpack("Q" if self.big else "I", follows)[0]
        except struct.error:
            return directory, 0

    def _values(self, form: str, length: int, inline: bytes, offset: int) -> tuple[int, ...]:
        """The values of an entry: in it if they fit, else where it points to."""
        size = struct.calcsize(f"<{length}{form}")
        if size > len(inline):
            self.file.seek(offset)
            inline = self.file.read(size)
        return self._unpack(f"{length}{form}", inline)
