"""Files that Pillow does not read: what they are, by their first bytes, and what to do about it."""

from __future__ import annotations

from contextlib import suppress
from typing import BinaryIO

from npstyle.errors import UserError
from npstyle.images.tiff import check_tiff, directories, raw_error, unreadable_samples

READABLE = "a format that Pillow reads"
HEAD_BYTES = 4096  # of a file, looked at

EXPORT, CONVERT = "export it as PNG or TIFF first", "convert it to PNG"
TONE_MAP = "tone-map it and save it as PNG or 16-bit TIFF first"
HEIF = f"pip install pillow-heif (npstyle's extra heif), or {CONVERT}"
# Where in a file, which bytes, what it is, and the cure.
SIGNATURES: list[tuple[int, bytes, str, str]] = [
    (0, b"\x89PNG\r\n\x1a\n", "a damaged file (PNG)", "copy it again"),
    (0, b"\xff\xd8\xff", "a damaged file (JPEG)", "copy it again"),
    (0, b"GIF8", "a damaged file (GIF)", "copy it again"),
    (0, b"\xff\x0a", "a JPEG XL file", CONVERT),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file", CONVERT),
    (0, b"II\xbc\x01", "a JPEG XR file", CONVERT),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR file", TONE_MAP),
    (0, b"#?RADIANCE", "a Radiance HDR file", TONE_MAP),
    (0, b"#?RGBE", "a Radiance HDR file", TONE_MAP),
    (0, b"%PDF", "a PDF document", EXPORT),
    (0, b"%!PS", "a PostScript program", EXPORT),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript program", EXPORT),
    (0, b"gimp xcf", "a project of GIMP (XCF)", EXPORT),
    (0, b"8BPS", "a document of Photoshop (PSD)", EXPORT),
    (0, b"AT&TFORM", "a DjVu document", EXPORT),
    (0, b"PK\x03\x04", "a ZIP archive (also NPZ, ORA, KRA, DOCX)", "unpack it, or export it as PNG first"),
    (0, b"\x1f\x8b", "a file compressed by gzip", "unpack it first"),
    (0, b"\x93NUMPY", "a NumPy array", "pass the array to npstyle.stylize"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "run git lfs pull"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", "save one frame as PNG"),
    (8, b"AVI ", "a video (AVI)", "save one frame as PNG"),
]
TEXTS = [
    (b"<!doctype html", "a web page", "save the picture itself"),
    (b"<html", "a web page", "save the picture itself"),
    (b"<svg", "an SVG drawing", EXPORT),
]
# Cameras' files that are not quite TIFF: Olympus, Panasonic, Fujifilm, Sigma, Canon, Minolta.
RAW_SIGNATURES = [(0, b"IIRO"), (0, b"IIRS"), (0, b"MMOR"), (0, b"IIU\0"), (0, b"FUJIFILMCCD-RAW")]
RAW_SIGNATURES += [(0, b"FOVb"), (6, b"HEAPCCDR"), (4, b"ftypcrx "), (0, b"\0MRM")]
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")


def prepare(file: BinaryIO, name: str) -> None:
    """Refuse a camera's RAW file, and let Pillow read HEIC if pillow-heif is installed."""
    head = _head(file)
    if any(head[at:].startswith(mark) for at, mark in RAW_SIGNATURES):
        raise raw_error(name)
    check_tiff(file, name)
    if _is_heif(head):
        with suppress(ImportError):
            import pillow_heif  # an extra, slow to load

            pillow_heif.register_heif_opener()
    file.seek(0)


def unidentified(file: BinaryIO, name: str) -> UserError:
    """The error about a file that Pillow does not know."""
    head = _head(file)
    if not head:
        return UserError(name, "an empty file", READABLE, CONVERT)
    pages, _ = directories(file)
    if pages:
        return unreadable_samples(pages[0], name)
    found, cure = _kind(head)
    return UserError(name, found, READABLE, cure)


def _kind(head: bytes) -> tuple[str, str]:
    """What a file is that begins with these bytes, and what to do about it."""
    for at, mark, found, cure in SIGNATURES:
        if head[at:].startswith(mark):
            return found, cure
    if _is_heif(head):
        return "a HEIC file", HEIF
    if head[4:8] == b"ftyp":
        if head[8:12] in AVIF_BRANDS:
            return "an AVIF file", CONVERT
        return "a video", "save one frame as PNG"
    text = head.lower().replace(b"\0", b"")  # UTF-16 becomes ASCII
    if text.lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t").startswith(b"<"):
        for mark, found, cure in TEXTS:
            if mark in text:
                return found, cure
    return "a file that is not a picture", CONVERT


def _is_heif(head: bytes) -> bool:
    """Whether it is HEIC or a relative; the first brand may be as general as mif1, which AVIF has, too."""
    brands = head[8 : int.from_bytes(head[:4], "big")]
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and not any(b in brands for b in AVIF_BRANDS)


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(HEAD_BYTES)
