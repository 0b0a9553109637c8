"""Downloads of registered weights files into the user's cache folder."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from npstyle._runtime.atomic import TEMPORARY, set_aside
from npstyle.errors import UserError
from npstyle.weights.registry import Entry, matches_checksum, registry, writable_cache_folder
from npstyle.weights.types import WeightsWarning

# Seconds after which no further address is tried, without the time of downloads that received anything.
MAX_WAIT = 15.0
# Seconds for one connection, for one name look-up, and between two packets.
TIMEOUT = 5.0

ABANDONED = 3600.0  # seconds after which a file that is half written belongs to no download any more

# What a failed download's message contains, in lower case, and what is reported for it.
REASONS = {
    "timed out": "timed out",
    "refused": "connection refused",
    "known hash": "wrong checksum",
    "unreachable": "unreachable",
    "certificate": "certificate not accepted",
    "incompleteread": "connection cut",
}


def fetch_any(
    progress: bool = False, entries: Sequence[Entry] | None = None
) -> tuple[Path | None, list[str]]:
    """Download the first file that is available, from the first address that has it.

    Parameters
    ----------
    progress : bool
        Show a progress bar on standard error.
    entries : sequence of Entry, optional
        In place of the whole registry.

    Returns
    -------
    path : Path or None
        In the cache folder; its checksum has been verified.
    failures : list of str
        The addresses that failed, each with the reason; or that there is no cache folder to write to.

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
    deadline = time.monotonic() + MAX_WAIT
    for entry in registry() if entries is None else entries:
        for address in entry.addresses:
            start = time.monotonic()
            if start > deadline:
                return None, [*failures, f"gave up after {MAX_WAIT:.0f} s"]
            downloader = _Downloader(entry, progress)
            try:
                return _fetch(entry, address, folder, downloader), failures
            except Exception as error:  # whatever went wrong, the next address is tried
                failures.append(f"{address} ({_reason(error)})")
            if downloader.received:
                deadline += time.monotonic() - start
    return None, failures


class _Downloader:
    """Pooch's HTTP download, verified; records whether anything was received."""

    def __init__(self, entry: Entry, progress: bool) -> None:
        self.entry = entry
        self.progress = progress
        self.received = False

    def __call__(self, address: str, path: Path) -> None:
        import pooch

        download = pooch.HTTPDownloader(progressbar=self.progress, timeout=TIMEOUT)
        try:
            download(address, str(path), None)
        finally:
            self.received = path.exists() and path.stat().st_size > 0
        if not matches_checksum(path, self.entry):
            raise ValueError("the checksum does not match the known hash")


def _fetch(entry: Entry, address: str, folder: Path, downloader: _Downloader) -> Path:
    """Download one file, verify its checksum and move it into the cache folder.

    Another file of that name, which a user may have put there, is kept under a new name.
    """
    cached = folder / entry.name
    if _is_intact(cached, entry):
        return cached
    parts = urlsplit(address)
    if parts.scheme not in getproxies():  # a proxy resolves names itself
        _resolve(parts.hostname or "")
    _remove_abandoned(folder)
    temporary = folder / TEMPORARY.replace("*", secrets.token_hex(4))
    aside = None
    try:
        downloader(address, temporary)
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


def _resolve(host: str) -> None:
    """Fail within TIMEOUT if the host's name can't be resolved: getaddrinfo alone may take a minute."""
    errors: list[Exception] = []

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            errors.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if thread.is_alive():
        raise TimeoutError(f"the name {host} was not resolved within {TIMEOUT:.0f} s")
    if errors:
        raise errors[0]


def _reason(error: Exception) -> str:
    """A few words for an exception of Pooch, Requests or urllib3, which wrap one another's messages."""
    if isinstance(error, socket.gaierror):
        return "no network, or the name is unknown"
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    message = " ".join(str(error).split())
    for pattern, reason in REASONS.items():
        if pattern in message.lower():
            return reason
    return message[:120] or type(error).__name__
