"""A run's state in a file: what run it is, how far it is, and all that its optimizer knows.

The file is a zip archive of NumPy arrays, not compressed (.npz), with what is no array as JSON. Reading one
executes nothing, and takes no more memory than the file is long.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from npstyle._runtime.atomic import TEMPORARY, atomic_write
from npstyle._runtime.npy import Member
from npstyle.errors import UserError
from npstyle.weights.download import cache_folder

Arrays = Mapping[str, NDArray[Any]]

FORMAT = 1
META = "meta.json"
LONGEST_META = 1 << 20
FORTNIGHT = 14 * 24 * 3600.0


class Checkpoint(NamedTuple):
    """How far a run is.

    Attributes
    ----------
    fingerprint : dict of str to str
        What makes a run this one and no other: its settings, checksums of its pictures and filters, versions.
    level : int
        From 1.
    done : int
        Iterations, over all levels.
    state : dict of str to array
        Of the descent at that level.
    """

    fingerprint: dict[str, str]
    level: int
    done: int
    state: dict[str, NDArray[Any]]


def checksum(array: NDArray[Any]) -> str:
    """The first 16 digits of the SHA-256 of an array, its shape and its dtype."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def name_of(fingerprint: Mapping[str, str]) -> str:
    """A file name for the checkpoints of a run."""
    return hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:24] + ".npz"


def folder(tidy: bool = True) -> Path:
    """Where checkpoints are kept if no other place is named.

    To tidy up is to remove what is older than a fortnight, also what was left by runs killed while writing.
    """
    found = cache_folder() / "checkpoints"
    found.mkdir(parents=True, exist_ok=True)
    for path in [*found.glob("*.npz"), *found.glob(TEMPORARY)] if tidy else []:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > FORTNIGHT:
                path.unlink()
    return found


def write(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint, in place of what is there, whole or not at all.

    Raises
    ------
    UserError
        It can't be written: no room, no permission.
    """
    meta = {"npstyle checkpoint": FORMAT, **checkpoint._asdict()}
    del meta["state"]
    try:
        with atomic_write(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(META, json.dumps(meta))
            for name, array in checkpoint.state.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    npy.write_array(member, np.asarray(array), allow_pickle=False)
    except OSError as error:
        raise UserError(
            f"checkpoint: {path}",
            f"{error.strerror or error} on writing",
            "room to write",
            "choose another place",
        ) from error


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    UserError
        Missing, damaged, or something else.
    """
    path = Path(path)
    name, whole = f"checkpoint: {path}", "a whole checkpoint of npstyle"
    if not os.path.isfile(path):
        raise UserError(name, "no such file", "a checkpoint", "check the name")
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            if sum(info.file_size for info in archive.infolist()) > os.fstat(file.fileno()).st_size:
                raise ValueError("more in it than it is long")  # members may lie on one another
            meta = _meta(archive)
            state = {
                info.filename[:-4]: _array(archive, info)
                for info in archive.infolist()
                if info.filename != META
            }
        return Checkpoint(meta["fingerprint"], meta["level"], meta["done"], state)
    except PermissionError as error:
        raise UserError(name, str(error.strerror), "a readable file", "check its permissions") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make its library raise anything
        raise UserError(name, f"something else ({error})", whole, "begin again without it") from error


def check(checkpoint: Checkpoint, fingerprint: Mapping[str, str], path: str | os.PathLike[str]) -> None:
    """Refuse the checkpoint of another run, and name the first thing that differs."""
    for name in sorted({*checkpoint.fingerprint, *fingerprint}):
        kept, given = checkpoint.fingerprint.get(name, "nothing"), fingerprint.get(name, "nothing")
        if kept != given:
            raise UserError(
                f"resume: {name}",
                given,
                f"{kept}, as in {path}",
                "give what that run was given, or begin again",
            )


def _meta(archive: zipfile.ZipFile) -> dict[str, Any]:
    info = archive.getinfo(META)
    if info.file_size > LONGEST_META:
        raise ValueError("its description is too long")
    meta = json.loads(archive.read(info))
    if not isinstance(meta, dict) or meta.get("npstyle checkpoint") != FORMAT:
        raise ValueError("another format")
    fingerprint = meta["fingerprint"]
    if not isinstance(fingerprint, dict) or not all(isinstance(text, str) for text in fingerprint.values()):
        raise ValueError("no identity")
    for count in ("level", "done"):
        if not isinstance(meta[count], int) or isinstance(meta[count], bool) or meta[count] < 0:
            raise ValueError(f"{count} is {meta[count]!r}")
    return meta


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """One member, if its header promises what is there, and no more."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{info.filename!a} is compressed")
    if not info.filename.endswith(".npy"):
        raise ValueError(f"{info.filename!a} in it")
    member = Member(archive, info)
    if member.dtype.kind not in "fiu":
        raise ValueError(f"{info.filename!a} holds no numbers")
    return np.asarray(member)
