"""Files of JSON lines: one object a line, each written at once and whole, also after a line that was cut."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO


class JsonLines:
    """A file of JSON lines, open for appending; `tail -f` shows each line as it is written.

    A line that a killed process or a full disk has cut is ended by the next one, so that it costs no other.

    Parameters
    ----------
    path : path
        A symbolic link is followed.
    flags : int
        More flags for `os.open`, such as `os.O_EXCL`.
    """

    def __init__(self, path: Path, flags: int = 0) -> None:
        flags |= os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        descriptor = os.open(os.path.realpath(path), flags, 0o666)
        self._file: BinaryIO = open(descriptor, "ab+", buffering=0)  # noqa: SIM115 - closed by `close`
        self._whole = False  # whether the file is known to end with a whole line

    def write(self, values: Mapping[str, Any]) -> None:
        """Append an object; what JSON does not know is written as `str` has it.

        Raises
        ------
        OSError
            There is no room for it.
        """
        line = json.dumps(values, default=str).encode() + b"\n"
        if not self._whole and not self._ends_with_line():
            line = b"\n" + line
        self._whole = False
        if self._file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._whole = True

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def _ends_with_line(self) -> bool:
        """Whether nothing follows the last line."""
        if not self._file.seek(0, os.SEEK_END):
            return True
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"
