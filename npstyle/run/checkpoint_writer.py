"""When a run's checkpoints are written, where, and what they may replace."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from npstyle._runtime.atomic import check_writable
from npstyle._runtime.paths import as_path
from npstyle.errors import UserError
from npstyle.run import saved
from npstyle.run.checkpoint import (
    Checkpoint,
    check_fingerprint,
    check_same_run,
    name_of,
    progress,
    read,
    read_file,
    write,
)
from npstyle.run.results import LevelResult

Resume = bool | Literal["must", "quietly"]

MAX_AGE = 14 * 24 * 3600.0  # seconds, in the user's cache
NOTHING = (-1, -1)  # less than the progress of any checkpoint


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written, is missing or is not continued, or old ones were removed."""


class CheckpointWriter:
    """Writes the checkpoints of one run at intervals, and reads the one that an earlier run left.

    It replaces and removes nothing but checkpoints of the same run, and none that is further.

    Parameters
    ----------
    path : Path
        A file, or a folder, in which the name follows from the fingerprint.
    every : float
        Seconds between two checkpoints, at least.
    fingerprint : dict of str to str
    """

    def __init__(self, path: Path, every: float, fingerprint: dict[str, str]) -> None:
        self.path = path / name_of(fingerprint) if os.path.isdir(path) else path
        self.every = every
        self.fingerprint = fingerprint
        self.next = time.monotonic() + every
        self.failed = False
        self._progress = NOTHING  # of the checkpoint that is stored
        self._known: tuple[int, ...] | None = None  # the file it is in, if that is this run's

    def begin(self, resume: Resume) -> Checkpoint | None:
        """The checkpoint to continue from, if there is one and `resume` says so.

        Raises
        ------
        UserError
            At this path there is something else, or, with "must", nothing.
        """
        if resume == "must" and not os.path.exists(self.path):
            found = f"no checkpoint of this run at {self.path}"
            cure = "give what that run was given, or resume without 'must'"
            raise UserError("resume", found, "one to continue from", cure)
        stored = self._look(resume=bool(resume))
        if resume and resume != "quietly" and stored is None:
            text = f"resume: no checkpoint of this run at {self.path}; beginning with its first iteration"
            warnings.warn(text, CheckpointWarning, stacklevel=2)
        elif stored is not None and not resume:
            iterations = f"{stored.nit} iteration" if stored.nit == 1 else f"{stored.nit} iterations"
            text = (
                f"checkpoint: {self.path}: an interrupted run like this one, {iterations}, "
                f"{_age(self.path)} old; it is kept until this run is further (resume continues it)"
            )
            warnings.warn(text, CheckpointWarning, stacklevel=2)
        return stored if resume else None

    @property
    def due(self) -> bool:
        return time.monotonic() >= self.next

    @property
    def stored(self) -> bool:
        """Whether there is a checkpoint of this run, unchanged since it was read or written."""
        return self._known is not None and _identify(self.path) == self._known

    def write(self, levels: Sequence[LevelResult], state: dict[str, NDArray[Any]]) -> None:
        """Write a checkpoint, unless an earlier run left one that is as far.

        Where that fails, warn once and stop writing at intervals.
        """
        began = time.monotonic()
        try:
            if _identify(self.path) != self._known:  # somebody else wrote or removed it meanwhile
                self._look(resume=False)
            if progress(levels, state) > self._progress:
                write(self.path, Checkpoint(self.fingerprint, tuple(levels), state))
                self._progress, self._known = progress(levels, state), _identify(self.path)
        except UserError as error:
            if not self.failed:  # between two levels and at the end it is tried again, without a warning
                warnings.warn(f"{error}; continuing without checkpoints", CheckpointWarning, stacklevel=2)
            self.next, self.failed = math.inf, True
            return
        self.failed = False
        now = time.monotonic()
        # Large pictures have large states: at most a twentieth of the time is spent on writing them.
        self.next = now + max(self.every, 20 * (now - began))

    def _look(self, resume: bool) -> Checkpoint | None:
        """The checkpoint at the path, if there is one; UserError if what is there is not this run's."""
        self._progress, self._known = NOTHING, None
        if not os.path.exists(self.path):
            return None
        known = _identify(self.path)
        stored = read(self.path)
        if resume:
            check_fingerprint(stored, self.fingerprint, self.path)
        else:
            check_same_run(stored, self.fingerprint, self.path)
        self._progress, self._known = stored.progress, known
        return stored


def check_place(path: str | os.PathLike[str]) -> None:
    """Make sure, before a run, that checkpoints can be written to a file or folder and destroy nothing there.

    Raises
    ------
    UserError
        There is a file that is no checkpoint, or the folder does not permit to write to it.
    """
    path = as_path(path)
    file = path / name_of({}) if os.path.isdir(path) else path
    name = f"checkpoint: {path}"
    if os.path.exists(file):
        if not os.path.isfile(file):
            raise UserError(name, "a device or a pipe", "a file", "choose another name")
        read_file(file, read_arrays=False)
    try:
        check_writable(file, overwrite=True)
    except UserError as error:
        raise UserError(name, error.found, error.expected, error.cure) from error


def _identify(path: Path) -> tuple[int, ...] | None:
    """What changes if another file comes to this path, or the file is written to; None without one."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _age(path: Path) -> str:
    """How long ago a file was written, in words."""
    with suppress(OSError):
        seconds = time.time() - path.stat().st_mtime
        for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
            if seconds >= length:
                count = int(seconds // length)
                return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "less than a minute"


def folder(tidy: bool = True) -> Path:
    """Where checkpoints are stored if no other place is named: in the user's cache.

    With `tidy`, files older than a fortnight are removed, also those that killed runs left half written; and
    with a warning the oldest ones, if all together are larger than `saved.MAX_BYTES`.
    """
    path = saved.saved_folder()
    path.mkdir(parents=True, exist_ok=True)
    if not tidy:
        return path
    saved.remove([run for run in saved.saved_runs(path) if time.time() - run.modified > MAX_AGE])
    removed = saved.remove(saved.beyond_limit(saved.saved_runs(path)))
    if removed:
        limit = f"more than {saved.MAX_BYTES / 1e9:.0f} GB of interrupted runs in {path}"
        warnings.warn(f"{limit}: removed the oldest, {len(removed)}", CheckpointWarning, stacklevel=2)
    return path
