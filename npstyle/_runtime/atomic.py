"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".npstyle-*.tmp"  # what a file is called while it is written


def temporary_name(path: Path) -> Path:
    """A name beside a file that nothing else has."""
    return path.with_name(TEMPORARY.replace("*", secrets.token_hex(4)))


@contextmanager
def written_whole(path: Path, place: Callable[[Path, Path], None] = os.replace) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name only when all is written and on the disk.

    Whoever looks at `path` finds the old file or the new one, never half of one. `place` gives the file its
    name, from the temporary one.
    """
    path = Path(os.path.realpath(path))  # through a symbolic link, to where it points
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        place(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
