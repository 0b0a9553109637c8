"""Downloads of registered weights files into the user's cache folder."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from npstyle.errors import UserError
from npstyle.weights.registry import Entry, cache_folder, matches_checksum, registry

# Seconds after which no further address is tried, without the time of downloads that received anything.
MAX_WAIT = 15.0
# Seconds for one connection, for one name look-up, and between two packets.
TIMEOUT = 5.0

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
        The addresses that failed, each with the reason; or that there is no cache folder.
    """
    failures: list[str] = []
    try:
        cache_folder()
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
                return _fetch(entry, address, downloader), failures
            except Exception as error:  # whatever went wrong, the next address is tried
                failures.append(f"{address} ({_reason(error)})")
            if downloader.received:
                deadline += time.monotonic() - start
    return None, failures


class _Downloader:
    """Pooch's HTTP download; records whether anything was received.

    Pooch verifies full checksums only, so that a prefix is verified here, before Pooch renames the
    temporary file.
    """

    def __init__(self, entry: Entry, progress: bool) -> None:
        self.entry = entry
        self.progress = progress
        self.received = False

    def __call__(self, url: str, output_file: str, pooch_instance: Any) -> None:
        import pooch

        download = pooch.HTTPDownloader(progressbar=self.progress, timeout=TIMEOUT)
        try:
            download(url, output_file, pooch_instance)
        finally:
            self.received = os.path.getsize(output_file) > 0
        if not self.entry.has_full_checksum and not matches_checksum(Path(output_file), self.entry):
            raise ValueError("the checksum does not match the known hash")


def _fetch(entry: Entry, address: str, downloader: _Downloader) -> Path:
    """Download one file, verify its checksum and move it into the cache folder."""
    import pooch

    parts = urlsplit(address)
    if parts.scheme not in getproxies():  # a proxy resolves names itself
        _resolve(parts.hostname or "")
    cached = cache_folder() / entry.name
    if not entry.has_full_checksum and cached.exists() and not matches_checksum(cached, entry):
        cached.unlink()  # without a full checksum, Pooch would take it as it is
    with _warnings_only(pooch.get_logger()):
        path = pooch.retrieve(
            address,
            known_hash=entry.checksum if entry.has_full_checksum else None,
            fname=entry.name,
            path=cache_folder(),
            downloader=downloader,
        )
    return Path(path)


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


@contextmanager
def _warnings_only(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


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
