"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

TEMPORARY = ".npstyle-*.tmp"  # what a file is called while it is written


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its name only when all is written and on the disk.

    Whoever looks at `path` finds the old file or the new one, never half of one.
    """
    path = Path(os.path.realpath(path))  # through a symbolic link, to where it points
    temporary = path.with_name(TEMPORARY.replace("*", secrets.token_hex(4)))
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
