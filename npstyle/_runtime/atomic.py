"""Files that are written completely or not at all, and the check that they can be before long work begins."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from npstyle.errors import UserError

TEMPORARY = ".npstyle-*.tmp"  # the name of a file while it is being written


def check_writable(path: Path, overwrite: bool) -> None:
    """Make sure, before long work, that its result can be written to `path`.

    The folder has to exist and permit new files, the name must not be too long, and neither a folder nor,
    unless `overwrite`, a file may have it already.

    Raises
    ------
    UserError
        Named "output: PATH".
    """
    if os.path.isdir(path):
        raise UserError(f"output: {path}", "a folder", "a file name", "add a name to it")
    if os.path.lexists(path) and not overwrite:
        raise _exists(path)
    probe = _temporary_name(Path(os.path.realpath(path)))
    try:
        probe.write_bytes(b"npstyle")
        with suppress(FileNotFoundError):
            os.lstat(path)  # the probe's name is short; this one may be too long
    except OSError as error:
        raise UserError(
            f"output: {path}",
            f"{error.strerror} on writing there",
            "a name in a folder that can be written to",
            "choose another",
        ) from error
    finally:
        with suppress(OSError):
            probe.unlink()


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path in the same folder; the file written there becomes `path` on a normal exit.

    Readers of `path` see the old file or the complete new one, never a part of it. The new one is flushed to
    the disk before it is renamed. After an exception the temporary file is removed and `path` is as it was.
    A symbolic link is followed: the file that it points to is replaced.

    Parameters
    ----------
    path : Path
    overwrite : bool
        False: never replace an existing file, even one created while the new one was being written.

    Raises
    ------
    UserError
        A file of that name exists, and `overwrite` is False.
    OSError
        The file can't be flushed or renamed.
    """
    target = Path(os.path.realpath(path))
    temporary = _temporary_name(target)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, target)
        else:
            _rename_if_free(temporary, target, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def open_replacing(path: Path, overwrite: bool = True) -> Iterator[BinaryIO]:
    """`replacing` for whoever writes to an open binary file."""
    with replacing(path, overwrite) as temporary, temporary.open("wb") as file:
        yield file


def _temporary_name(path: Path) -> Path:
    """A name in the same folder that no other file has."""
    return path.with_name(TEMPORARY.replace("*", secrets.token_hex(4)))


def _rename_if_free(temporary: Path, target: Path, path: Path) -> None:
    """Rename unless the name is taken: a hard link fails if it is, where os.replace would overwrite.

    `path` is what the user called the target.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise _exists(path) from None
        os.replace(temporary, target)


def _exists(path: Path) -> UserError:
    return UserError(
        f"output: {path}", "a file of that name", "a new name", "choose another or add --overwrite"
    )
