"""The states of interrupted runs in the user's cache: how many, how large, and which are removed."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from npstyle._runtime.atomic import TEMPORARY
from npstyle.errors import UserError
from npstyle.weights.registry import cache_folder

MAX_BYTES = 10 * 10**9  # of all of them, before the next run begins; one of 2000 x 2000 pixels has 2.8 GB
RECENT = 3600.0  # seconds in which a file may belong to a run that has not ended
NAME = re.compile(r"[0-9a-f]{24}\.npz", re.ASCII)  # see `npstyle.run.checkpoint.name_of`


class SavedRun(NamedTuple):
    """A file with the state of a run, or one that a killed run left half written.

    Attributes
    ----------
    path : Path
    size : int
        In bytes.
    modified : float
        Seconds since the epoch.
    """

    path: Path
    size: int
    modified: float

    @property
    def is_recent(self) -> bool:
        return time.time() - self.modified < RECENT


def saved_folder() -> Path:
    """The folder, which may not exist yet."""
    return cache_folder() / "checkpoints"


def saved_runs(folder: Path | None = None) -> list[SavedRun]:
    """Those in the user's cache or another folder, the newest first; only files that npstyle has named."""
    runs = []
    with suppress(OSError, UserError):  # no such folder, or no cache at all
        for path in (saved_folder() if folder is None else folder).iterdir():
            if not (NAME.fullmatch(path.name) or path.match(TEMPORARY)):
                continue
            with suppress(OSError):  # its run has ended meanwhile
                status = path.stat()
                runs.append(SavedRun(path, status.st_size, status.st_mtime))
    return sorted(runs, key=lambda run: run.modified, reverse=True)


def beyond_limit(runs: Sequence[SavedRun]) -> list[SavedRun]:
    """The oldest ones, which with the newer ones exceed MAX_BYTES; never the newest, or recent ones."""
    total, excess = 0, []
    for run in runs:
        total += run.size
        if total > MAX_BYTES and run is not runs[0] and not run.is_recent:
            excess.append(run)
    return excess


def remove(runs: Sequence[SavedRun]) -> list[SavedRun]:
    """Remove files, and return those that could be removed."""
    removed = []
    for run in runs:
        with suppress(OSError):
            run.path.unlink()
            removed.append(run)
    return removed
