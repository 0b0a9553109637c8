"""Pictures from standard input and to standard output, for which `-` is the name of the file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from npstyle.errors import UserError

if TYPE_CHECKING:
    from npstyle.images import PictureFile

STANDARD = Path("-")
# The path of what is written to standard output, without its extension: what errors call it.
OUTPUT = "standard output"
FORMATS = ("png", "jpg", "webp", "tif")


def add_format(parser: argparse.ArgumentParser) -> None:
    text = "the format of -o -, which writes to standard output (png)"
    parser.add_argument("--format", choices=FORMATS, help=text)


def check_streams(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Wrong usage where standard input or output would have to be two things."""
    if [options.content, *options.style].count(STANDARD) > 1:
        parser.error("-: found it twice; expected one picture on standard input; name the other one's file")
    to_output = options.output == STANDARD
    if options.format and not to_output:
        parser.error("--format: found no -o -; expected it; a file's format is its extension")
    if to_output and options.json:
        parser.error("--json: found -o -, too; expected one of them on standard output; name a file")
    if to_output and options.save_every:
        parser.error("--save-every: found -o -; expected a file, whose name they get; leave it out")


def is_standard(path: Path) -> bool:
    """Whether a path stands for standard input or output."""
    return path == STANDARD or path.stem == OUTPUT


def checked_output(path: Path, overwrite: bool, extension: str | None) -> Path:
    """`images.check_output`; of standard output, a name with the extension of its format."""
    from npstyle import images

    if path != STANDARD:
        return images.check_output(path, overwrite)
    if sys.stdout is None or sys.stdout.isatty():
        found = "nothing" if sys.stdout is None else "a terminal"
        raise UserError(OUTPUT, found, "a file or a pipe", "add >out.png, or name a file with -o")
    return Path(f"{OUTPUT}.{extension or FORMATS[0]}")


def read_standard_input(paths: Sequence[Path]) -> list[PictureFile]:
    """The same paths, but for `-` the contents of standard input."""
    from npstyle.images import FileContents

    return [FileContents("standard input", _read()) if path == STANDARD else path for path in paths]


def _read() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        found = "nothing" if sys.stdin is None else "a terminal"
        raise UserError("picture: -", found, "a picture on standard input", "add <photo.jpg, or name a file")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise UserError("picture: -", f"{error.strerror} on reading", "a picture", "name a file") from error


def write_standard_output(data: bytes) -> None:
    """Write a picture file to standard output.

    Raises
    ------
    OSError
        Its reader is gone, or its disk full.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        raise
