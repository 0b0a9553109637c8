"""Files that are written completely or not at all, and the check that they can be before long work begins.

A new file is written beside the old one and renamed. The old one's mode and owner are kept. Where a rename
can't keep what the old one is (it has several hard links, or an owner that may not be set), or is not
possible (the file is a mount point, or its folder takes no new files), the new one, once it is complete, is
copied into the old one.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from npstyle.errors import UserError

TEMPORARY = ".npstyle-*.tmp"  # the name of a file while it is being written

# What renaming over a file ends with where it can still be overwritten in place.
NOT_RENAMED = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.EROFS)
MOUNTS = Path("/proc/self/mountinfo")


def check_writable(path: Path, overwrite: bool) -> None:
    """Make sure, before long work, that its result can be written to `path`.

    The folder has to exist and permit new files, the name must not be too long, and neither a folder, a FIFO
    or a device nor, unless `overwrite`, a file may have it already. A file that can only be overwritten in
    place has to permit that.

    Raises
    ------
    UserError
        Named "output: PATH".
    """
    _check_kind(path)
    if os.path.lexists(path) and not overwrite:
        raise _exists(path)
    try:
        target = Path(os.path.realpath(path))
        old = _status(target)  # the probe's name is short; this one may be too long
        temporary = _temporary_name(target, old)
        try:
            with _create(temporary, private=old is not None) as file:
                file.write(b"npstyle")
            beside = temporary.parent == target.parent and not _is_mount_point(target)
            if old:
                _check_open(target, in_place=not (_take_over(temporary, old) and beside))
        finally:
            with suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise UserError(
            f"output: {path}",
            f"{error.strerror} on writing there",
            "a name in a folder that can be written to",
            "choose another",
        ) from error


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path; the file written there becomes `path` on a normal exit.

    The temporary path is in the same folder, if that takes new files. Readers of `path` see the old file or
    the complete new one, never a part of it, unless the old one has to be overwritten in place (see the
    module). The new one is flushed to the disk before it is renamed, and has the old one's mode and owner.
    After an exception the temporary file is removed and `path` is as it was, except where the disk fails in
    the middle of overwriting in place. A symbolic link is followed: the file that it points to is replaced.

    Parameters
    ----------
    path : Path
    overwrite : bool
        False: never replace an existing file, even one created while the new one was being written.

    Raises
    ------
    UserError
        A file of that name exists, and `overwrite` is False; or it is a folder, a FIFO or a device.
    OSError
        The file can't be flushed or renamed.
    """
    _check_kind(path)
    target = Path(os.path.realpath(path))
    old = _status(target) if overwrite else None
    temporary = _temporary_name(target, old)
    try:
        if old:
            _create(temporary, private=True).close()  # as long as it has not the old one's mode
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if overwrite:
            old = _status(target) or old
            _rename(temporary, target, in_place=old is not None and not _take_over(temporary, old))
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


def set_aside(path: Path) -> Path:
    """Rename a file to NAME.old, or NAME.old-2 and so on if there is one already, and return its new path."""
    aside, number = path.with_name(f"{path.name}.old"), 2
    while os.path.lexists(aside):
        aside, number = path.with_name(f"{path.name}.old-{number}"), number + 1
    os.rename(path, aside)
    return aside


def _temporary_name(target: Path, old: os.stat_result | None) -> Path:
    """A name in the same folder that no other file has; elsewhere, if only the old file can be written to."""
    folder = target.parent
    if old and not os.access(folder, os.W_OK | os.X_OK):
        folder = Path(tempfile.gettempdir())
    return folder / TEMPORARY.replace("*", secrets.token_hex(4))


def _create(path: Path, private: bool) -> BinaryIO:
    """A new file; what is not for everyone is readable by its owner alone until it is complete."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return open(os.open(path, flags, 0o600 if private else 0o666), "wb")


def _status(path: Path) -> os.stat_result | None:
    """What is known of a file; None if there is none."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _check_kind(path: Path) -> None:
    """Refuse what has the name but is no file: writing to a FIFO may wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISDIR(mode):
        raise UserError(f"output: {path}", "a folder", "a file name", "add a name to it")
    if not stat.S_ISREG(mode):
        found = "a FIFO" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise UserError(f"output: {path}", found, "a file", "choose another name")


def _take_over(temporary: Path, old: os.stat_result) -> bool:
    """Give a file the mode and owner of the one that it is to replace; False if it can't become the same."""
    if old.st_nlink > 1:
        return False
    try:
        if _owner(os.stat(temporary)) != _owner(old):
            os.chown(temporary, *_owner(old))
        os.chmod(temporary, stat.S_IMODE(old.st_mode))
    except OSError:
        return False
    return True


def _owner(status: os.stat_result) -> tuple[int, int]:
    return status.st_uid, status.st_gid


def _is_mount_point(target: Path) -> bool:
    """Whether a single file is mounted there, as into a container: nothing can be renamed over it."""
    name = re.sub(rb"[ \t\n\\]", lambda match: b"\\%03o" % match[0][0], os.fsencode(target))
    try:
        return any(line.split()[4] == name for line in MOUNTS.read_bytes().splitlines())
    except (OSError, IndexError):  # not Linux
        return False


def _check_open(target: Path, in_place: bool) -> None:
    """OSError if a file can't be overwritten; it may be read-only unless that has to be done in place."""
    try:
        target.open("rb+").close()
    except PermissionError as error:
        if in_place or error.errno != errno.EACCES:  # EPERM: the file is immutable
            raise


def _rename(temporary: Path, target: Path, in_place: bool) -> None:
    """Rename; copy into the old file instead if it has to be kept, or can't be renamed over."""
    if in_place and os.path.lexists(target):
        _copy_into(target, temporary)
        return
    try:
        os.replace(temporary, target)
    except OSError as error:
        if error.errno not in NOT_RENAMED or not os.path.isfile(target):
            raise
        _copy_into(target, temporary)


def _copy_into(target: Path, source: Path) -> None:
    """Overwrite a file in place, once there is room for all of it."""
    with source.open("rb") as new, target.open("rb+") as file:
        size, old_size = os.fstat(new.fileno()).st_size, os.fstat(file.fileno()).st_size
        if size > old_size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError:
                file.truncate(old_size)
                raise
        shutil.copyfileobj(new, file)
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())


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
