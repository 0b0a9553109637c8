"""Damaged files whose pixels are all there: PNG chunks beside the pixels, the end of a JPEG file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageChops, ImageFile, PngImagePlugin

from npstyle.images.arrays import PictureWarning

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_LOST = 0.01  # the part of a JPEG picture that may be missing at its end
CONTENTS = {b"tRNS": "its transparency", b"iCCP": "its color profile", b"eXIf": "EXIF"}


class Chunk(NamedTuple):
    """A chunk of a PNG file beside those with its pixels, from `start` to `end`."""

    kind: bytes
    data: bytes
    start: int
    end: int
    intact: bool


def without_bad_chunks(file: BinaryIO, name: str) -> BinaryIO:
    """The PNG file without the ancillary chunks for which Pillow would refuse it; any other as it is.

    These are chunks with a wrong checksum, and texts and profiles that inflate to more than Pillow's limit.

    Warns
    -----
    PictureWarning
        About `name`: something other than a text is left out.
    """
    bad, text_bytes = [], 0
    for chunk in _ancillary_chunks(file):
        size = _inflated_size(chunk)
        is_text = chunk.kind in (b"tEXt", b"zTXt", b"iTXt")
        too_large = chunk.kind != b"tEXt" and size > PngImagePlugin.MAX_TEXT_CHUNK
        if is_text and text_bytes + size > PngImagePlugin.MAX_TEXT_MEMORY:
            too_large = True
        if chunk.intact and not too_large:
            text_bytes += size if is_text else 0
            continue
        bad.append(chunk)
        if not (chunk.intact and is_text):
            what = CONTENTS.get(chunk.kind, "text" if is_text else "not its pixels")
            reason = "too large" if chunk.intact else "damaged"
            text = f"{name}: its {chunk.kind.decode('latin-1')} chunk ({what}) is {reason} and left out"
            warnings.warn(text, PictureWarning, stacklevel=2)
    return _without(file, bad)


def with_end(image: ImageFile.ImageFile, file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """The image of a JPEG file, loaded, even if the last bytes of the file are missing.

    Raises
    ------
    OSError
        More than that is missing: of Pillow.

    Warns
    -----
    PictureWarning
        About `name`: its end is missing.
    """
    try:
        image.load()
        return image
    except OSError:
        file.seek(0)
        data = file.read().removesuffix(b"\xff")
        # What is there is decoded the same whatever follows; bytes behind the last pixel are ignored.
        tails = (b"\xff\xd9", b"\xa5" * 4096 + b"\xff\xd9")
        completed, other = (Image.open(io.BytesIO(data + tail)) for tail in tails)
        box = ImageChops.difference(completed, other).getbbox() or (0, 0, 0, 0)
        lost = (box[2] - box[0]) * (box[3] - box[1]) / (completed.width * completed.height)
        if lost > MAX_LOST:
            raise
        text = f"{name}: the end of the file is missing; {'a few' if lost else 'no'} pixels are lost"
        warnings.warn(text, PictureWarning, stacklevel=2)
        return completed


def _ancillary_chunks(file: BinaryIO) -> Iterator[Chunk]:
    """The chunks of a PNG file that a reader may ignore, up to its end or to where it is damaged."""
    file.seek(0)
    if file.read(8) != PNG_SIGNATURE:
        return
    end = file.seek(0, io.SEEK_END)
    at = 8
    while at + 12 <= end:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        following = at + 12 + length
        if following > end or kind == b"IEND" or not kind.isalpha():
            return
        # APNG's frames are never read.
        if kind[:1].islower() and kind not in (b"fdAT", b"fcTL"):
            data, (crc,) = file.read(length), struct.unpack(">I", file.read(4))
            yield Chunk(kind, data, at, following, crc == zlib.crc32(kind + data))
        at = following


def _inflated_size(chunk: Chunk) -> int:
    """How many bytes a chunk's text or profile has, as far as Pillow's limit and one more."""
    rest = chunk.data.partition(b"\0")[2]
    if chunk.kind in (b"zTXt", b"iCCP"):
        compressed = rest[1:]
    elif chunk.kind == b"iTXt" and rest[:1] == b"\1":
        compressed = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        return len(chunk.data)
    try:
        return len(zlib.decompressobj().decompress(compressed, PngImagePlugin.MAX_TEXT_CHUNK + 1))
    except zlib.error:  # Pillow ignores it, too
        return 0


def _without(file: BinaryIO, chunks: list[Chunk]) -> BinaryIO:
    """The file without some chunks, in memory; itself if there are none."""
    file.seek(0)
    if not chunks:
        return file
    parts = []
    for chunk in chunks:
        parts.append(file.read(chunk.start - file.tell()))
        file.seek(chunk.end)
    return io.BytesIO(b"".join([*parts, file.read()]))
