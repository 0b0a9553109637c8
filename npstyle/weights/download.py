"""The registry of weights files, and how one of them gets from its address into the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from npstyle.errors import UserError

# Without a network the user waits this long at most before the program goes on or gives up.
PATIENCE = 15.0
# Seconds for one connection, one name look-up, one silence while reading.
TIMEOUT = 5.0


@dataclass(frozen=True)
class Entry:
    """A weights file that is known.

    Attributes
    ----------
    name : str
    checksum : str
        "md5:...", "sha256:..." or, where its publisher tells no more, "sha256-prefix:" and 8 digits.
    addresses : tuple of str
    megabytes : int, optional
        About how large it is.
    """

    name: str
    checksum: str
    addresses: tuple[str, ...]
    megabytes: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .+-]*", self.name):  # TypeError, if it is no text
            raise ValueError(f"name {self.name!r}")
        if not re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|sha256-prefix:[0-9a-f]{8}", self.checksum):
            raise ValueError(f"checksum {self.checksum!r}")

    @property
    def algorithm(self) -> str:
        return self.checksum.split(":")[0].removesuffix("-prefix")

    @property
    def whole(self) -> bool:
        """Whether the checksum is known to its last digit."""
        return "-prefix:" not in self.checksum


def registry() -> list[Entry]:
    """The files known, the preferred first; NPSTYLE_REGISTRY names another list, such as a mirror's.

    Raises
    ------
    UserError
        The list can't be read.
    """
    other = os.environ.get("NPSTYLE_REGISTRY")
    file = Path(other) if other else resources.files("npstyle._registry") / "registry.json"
    try:
        return [
            Entry(item["name"], item["checksum"], tuple(item["addresses"]), item.get("megabytes"))
            for item in json.loads(file.read_text(encoding="utf-8"))["files"]
        ]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"registry: {file}",
            f"no list of weights files ({error!r})",
            "a file such as weights/registry.json",
            "correct it or unset NPSTYLE_REGISTRY",
        ) from error


def project_folder() -> Path:
    """`weights/` of a checkout; inside site-packages where the package was installed from a wheel."""
    return Path(str(resources.files("npstyle._registry")))


def cache_folder() -> Path:
    """Where downloads are kept: NPSTYLE_CACHE, or the place the system has for such things."""
    import pooch

    return Path(os.path.expanduser(os.environ.get("NPSTYLE_CACHE") or pooch.os_cache("npstyle")))


def intact(path: Path, entry: Entry) -> bool:
    """Whether the file's checksum is the registered one."""
    return digest(path, entry.algorithm).startswith(entry.checksum.split(":")[1])


def digest(path: Path, algorithm: str) -> str:
    """The file's checksum, in hexadecimal digits."""
    found = hashlib.new(algorithm)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def fetch_any(
    progress: bool = False, entries: Sequence[Entry] | None = None
) -> tuple[Path | None, list[str]]:
    """Download the first file that can be had, from the first address that has it.

    Parameters
    ----------
    progress : bool
        Show a bar on standard error.
    entries : sequence of Entry, optional
        In place of the whole registry.

    Returns
    -------
    path : Path or None
    failures : list of str
        What went wrong at each address tried.
    """
    failures: list[str] = []
    deadline = time.monotonic() + PATIENCE
    for entry in registry() if entries is None else entries:
        for address in entry.addresses:
            begun = time.monotonic()
            if begun > deadline:
                return None, [*failures, f"gave up after {PATIENCE:.0f} s"]
            download = _Download(entry, progress)
            try:
                return _fetch(entry, address, download), failures
            except Exception as error:  # whatever the network does, the next address is tried
                failures.append(f"{address} ({_reason(error)})")
            if download.began:  # there is a network: patience is for the case that there is none
                deadline += time.monotonic() - begun
    return None, failures


class _Download:
    """Pooch's download over HTTP, which remembers whether anything arrived.

    Pooch compares the whole of a checksum; the beginning of one is compared here, before the temporary
    file gets its name.
    """

    def __init__(self, entry: Entry, progress: bool) -> None:
        self.entry = entry
        self.progress = progress
        self.began = False

    def __call__(self, url: str, output_file: str, caller: Any) -> None:
        import pooch

        http = pooch.HTTPDownloader(progressbar=self.progress, timeout=TIMEOUT)
        try:
            http(url, output_file, caller)
        finally:
            self.began = os.path.getsize(output_file) > 0
        if not self.entry.whole and not intact(Path(output_file), self.entry):
            raise ValueError(f"{self.entry.algorithm} is not the known hash")


def _fetch(entry: Entry, address: str, download: _Download) -> Path:
    """Download to a temporary name, compare the checksum, then give the file its own name."""
    import pooch

    parts = urlsplit(address)
    if parts.scheme not in getproxies():  # a proxy looks names up itself
        _look_up(parts.hostname or "")
    there = cache_folder() / entry.name
    if not entry.whole and there.exists() and not intact(there, entry):
        there.unlink()  # without a whole checksum, Pooch would take whatever is there
    with _quiet(pooch.get_logger()):
        path = pooch.retrieve(
            address,
            known_hash=entry.checksum if entry.whole else None,
            fname=entry.name,
            path=cache_folder(),
            downloader=download,
        )
    return Path(path)


def _look_up(host: str) -> None:
    """Fail within TIMEOUT if the name can't be resolved: the system's own look-up may take a minute."""
    failure: list[Exception] = []

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            failure.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if thread.is_alive():
        raise TimeoutError(f"no answer on the name {host} within {TIMEOUT:.0f} s")
    if failure:
        raise failure[0]


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """The innermost plain words of an exception wrapped in exceptions."""
    if isinstance(error, socket.gaierror):
        return "no network, or the name is unknown"
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    text = " ".join(str(error).split())
    for words in ("timed out", "refused", "known hash", "unreachable", "certificate", "IncompleteRead"):
        if words.lower() in text.lower():
            return {
                "known hash": "wrong checksum",
                "refused": "connection refused",
                "IncompleteRead": "connection cut",
                "certificate": "certificate not accepted",
            }.get(words, words)
    return text[:120] or type(error).__name__
