"""Atomic writing: a file is complete or not there at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".npstyle-*.tmp"  # name of a file while it is written


def temporary_name(path: Path) -> Path:
    """An unused name in the same folder."""
    return path.with_name(TEMPORARY.replace("*", secrets.token_hex(4)))


@contextmanager
def atomic_write(path: Path, rename: Callable[[Path, Path], None] = os.replace) -> Iterator[BinaryIO]:
    """A binary file to write to, which gets its name only when everything is written and on the disk.

    At any time `path` is the old file or the new one, never part of one. `rename` is called with the
    temporary name and the final one. If the block raises, the temporary file is removed.
    """
    path = Path(os.path.realpath(path))  # through a symbolic link, to where it points
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
