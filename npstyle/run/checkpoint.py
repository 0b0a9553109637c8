"""Checkpoints: the state of a run in a file, from which it continues to the same result.

The file is a zip archive of NumPy arrays, not compressed (.npz), with what is no array as JSON: which run
it is (its fingerprint), the results of the levels that are finished, and the optimizer's state at the
current one. Reading one executes nothing, and takes no more memory than the file is long.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from npstyle._runtime.atomic import open_replacing
from npstyle._runtime.npy import Member
from npstyle._runtime.paths import as_path, what_is_there
from npstyle.architecture import convolutions_up_to, deepest
from npstyle.errors import UserError
from npstyle.filters import Filters
from npstyle.run.inputs import Request
from npstyle.run.results import LevelResult

Arrays = Mapping[str, NDArray[Any]]

FORMAT = 3
META = "meta.json"
LOSSES = "losses_of_finished_levels"
MAX_META = 1 << 20  # bytes


class Checkpoint(NamedTuple):
    """How far a run is.

    Attributes
    ----------
    fingerprint : dict of str to str
        What distinguishes the run from others: settings, checksums of pictures and weights, versions.
    levels : tuple of LevelResult
        Of the levels that are finished; the current one is the next.
    state : dict of str to array
        Of the optimizer at the current level, or the picture that the level starts from.
    """

    fingerprint: dict[str, str]
    levels: tuple[LevelResult, ...]
    state: dict[str, NDArray[Any]]

    @property
    def progress(self) -> tuple[int, int]:
        """Finished levels, and iterations at the current one: the larger, the further the run is."""
        return progress(self.levels, self.state)

    @property
    def nit(self) -> int:
        """Iterations over all levels."""
        return sum(level.nit for level in self.levels) + self.progress[1]


def progress(levels: Sequence[LevelResult], state: Arrays) -> tuple[int, int]:
    """Finished levels, and iterations at the current one, as `Checkpoint.progress`."""
    losses = state.get("losses")
    return len(levels), 0 if losses is None else max(0, losses.size - 1)


def fingerprint(request: Request, weights: Mapping[str, Filters], **options: str) -> dict[str, str]:
    """What distinguishes a run from others: with any of this changed, the result is another picture.

    `options` are further options of the run, by name.
    """
    items = {name: f"{value!r}" for name, value in options.items()}
    items |= {name: version(name) for name in ("npstyle", "numpy", "scipy")}
    items |= {entry.name: f"{getattr(request.settings, entry.name)!r}" for entry in fields(request.settings)}
    for entry in fields(request):
        value = getattr(request, entry.name)
        if entry.name in ("content", "styles", "content_masks", "style_masks", "keep", "init"):
            arrays = value if isinstance(value, tuple) else () if value is None else (value,)
            items |= {f"{entry.name} {n}": checksum(array) for n, array in enumerate(arrays, 1)}
        elif entry.name != "settings":
            items[entry.name] = f"{value!r}"
    for name in convolutions_up_to(deepest(request.settings.layers)):
        if name in weights:
            items[f"weights of {name}"] = checksum(weights[name].kernel) + checksum(weights[name].bias)
    return items


def checksum(array: NDArray[Any]) -> str:
    """The first 16 digits of the SHA-256 of an array, its shape and its dtype."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def name_of(fingerprint: Mapping[str, str]) -> str:
    """A file name that no other run has."""
    return hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:24] + ".npz"


def write(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint, in place of an older one, whole or not at all.

    Raises
    ------
    UserError
        It can't be written: no room, no permission.
    """
    levels = [{name: getattr(level, name) for name in LEVEL_FIELDS} for level in checkpoint.levels]
    meta = {"npstyle checkpoint": FORMAT, "fingerprint": checkpoint.fingerprint, "levels": levels}
    losses = np.array([loss for level in checkpoint.levels for loss in level.losses], np.float64)
    try:
        with open_replacing(as_path(path)) as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(META, json.dumps(meta))
            for name, array in {LOSSES: losses, **checkpoint.state}.items():
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
        The file is missing, damaged, of an older version, or something else.
    """
    return read_file(as_path(path))


def read_file(path: Path, read_arrays: bool = True) -> Checkpoint:
    """The checkpoint in a file; without `read_arrays`, only its fingerprint."""
    name, expected = f"checkpoint: {path}", "a whole checkpoint of npstyle"
    cure = "choose another name, or begin again without it"
    if not os.path.isfile(path):
        raise no_such_file(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            if sum(info.file_size for info in archive.infolist()) > os.fstat(file.fileno()).st_size:
                raise ValueError("more in it than it is long")  # members may overlap
            meta = _read_meta(archive)
            if not read_arrays:
                return Checkpoint(meta["fingerprint"], (), {})
            state = {
                info.filename[:-4]: _read_array(archive, info)
                for info in archive.infolist()
                if info.filename != META
            }
        return Checkpoint(meta["fingerprint"], _read_levels(meta["levels"], state.pop(LOSSES)), state)
    except _FormatError as error:
        raise UserError(name, f"a checkpoint of format {error}", f"format {FORMAT}", cure) from error
    except PermissionError as error:
        raise UserError(name, str(error.strerror), "a readable file", "check its permissions") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make its library raise anything
        raise UserError(name, f"something else ({error})", expected, cure) from error


def no_such_file(path: Path) -> UserError:
    found, cure = what_is_there(path)
    return UserError(f"checkpoint: {path}", found, "a checkpoint", cure)


def check_fingerprint(
    checkpoint: Checkpoint, fingerprint: Mapping[str, str], path: str | os.PathLike[str]
) -> None:
    """Refuse to continue from the checkpoint of another run, and name the first thing that differs."""
    difference = _difference(checkpoint, fingerprint)
    if difference is not None:
        name, stored, actual = difference
        cure = "give what that run was given, or begin again"
        raise UserError(f"resume: {name}", actual, f"{stored}, as in {path}", cure)


def check_same_run(checkpoint: Checkpoint, fingerprint: Mapping[str, str], path: Path) -> None:
    """Refuse to overwrite the checkpoint of another run."""
    difference = _difference(checkpoint, fingerprint)
    if difference is not None:
        name, stored, actual = difference
        found = f"the state of another run ({name}: {stored}, not {actual})"
        cure = "choose another, or remove it if that run is not to be continued"
        raise UserError(f"checkpoint: {path}", found, "a new name", cure)


def _difference(checkpoint: Checkpoint, fingerprint: Mapping[str, str]) -> tuple[str, str, str] | None:
    """The first thing that differs: its name, what is stored, and what it is in this run."""
    for name in sorted({*checkpoint.fingerprint, *fingerprint}):
        stored, actual = checkpoint.fingerprint.get(name, "nothing"), fingerprint.get(name, "nothing")
        if stored != actual:
            return name, stored, actual
    return None


class _FormatError(Exception):
    """A checkpoint, but of another version of npstyle."""


INTEGERS = ("width", "height", "nit", "nfev")
LEVEL_FIELDS = (*INTEGERS, "loss", "success", "message")


def _read_meta(archive: zipfile.ZipFile) -> dict[str, Any]:
    info = archive.getinfo(META)
    if info.file_size > MAX_META:
        raise ValueError("its description is too long")
    meta: dict[str, Any] = json.loads(archive.read(info))
    version = meta.get("npstyle checkpoint") if isinstance(meta, dict) else None
    if not isinstance(version, int):
        raise ValueError("no checkpoint")
    if version != FORMAT:
        raise _FormatError(version)
    fingerprint = meta["fingerprint"]
    if not isinstance(fingerprint, dict) or not all(isinstance(text, str) for text in fingerprint.values()):
        raise ValueError("no fingerprint")
    return meta


def _read_levels(levels: Any, losses: NDArray[Any]) -> tuple[LevelResult, ...]:
    """The finished levels; ValueError unless every number is one that a run writes."""
    if not isinstance(levels, list) or losses.ndim != 1 or losses.dtype != np.float64:
        raise ValueError("no results of levels")
    for level in levels:
        valid = (
            all(type(level[name]) is int and level[name] >= 0 for name in INTEGERS)
            and type(level["loss"]) is float
            and 0 <= level["loss"] < math.inf
            and type(level["success"]) is bool
            and type(level["message"]) is str
        )
        if not valid:
            raise ValueError("the result of a level is none")
    ends = list(accumulate(level["nit"] + 1 for level in levels))
    if len(losses) != (ends[-1] if ends else 0):
        raise ValueError(f"{len(losses)} losses of {len(levels)} levels")
    begins = [0, *ends]
    return tuple(
        LevelResult(losses=losses[begin:end].tolist(), **{name: level[name] for name in LEVEL_FIELDS})
        for level, begin, end in zip(levels, begins, ends, strict=False)
    )


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """One member, if its header promises what it holds, and no more."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{info.filename!a} is compressed")
    if not info.filename.endswith(".npy"):
        raise ValueError(f"{info.filename!a} in it")
    member = Member(archive, info)
    if member.dtype.kind not in "fiu":
        raise ValueError(f"{info.filename!a} holds no numbers")
    return np.asarray(member)
