"""Frames of a film as picture files: a folder of them, looked through once before anything takes time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle import images
from npstyle._runtime.paths import what_is_there
from npstyle.errors import UserError

BINS = 16  # of the histogram of each channel, by which cuts are found


class SourceFrame(NamedTuple):
    """A frame that is to be painted.

    Attributes
    ----------
    path : Path
    checksum : str
        Of the file.
    histogram : (3 BINS,) array
        Of each channel's values, as fractions of the pixels.
    """

    path: Path
    checksum: str
    histogram: NDArray[np.float64]


class Survey(NamedTuple):
    """All frames, and the size they have in common."""

    frames: list[SourceFrame]
    width: int
    height: int

    @property
    def number(self) -> int:
        return len(self.frames)


def list_frames(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names: frame_2.png before frame_10.png.

    Raises
    ------
    UserError
        There are none; two have the same name but for the extension.
    """
    if not folder.is_dir():
        found, cure = what_is_there(folder)
        raise UserError(f"film: {folder}", found, "a film or a folder of frames", cure)
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in images.FORMATS]
    except OSError as error:
        name = f"film: {folder}"
        raise UserError(name, str(error.strerror), "a film or a folder of frames", "check it") from error
    paths = sorted((path for path in paths if not path.name.startswith(".")), key=_natural)
    if not paths:
        found, cure = "no pictures in it", "name the folder of the frames"
        raise UserError(f"film: {folder}", found, "frames such as frame_0001.png", cure)
    stems: dict[str, Path] = {}
    for path in paths:
        other = stems.setdefault(path.stem.lower(), path)
        if other is not path:
            found = f"{other.name} and {path.name}"
            raise UserError(f"film: {folder}", found, "one picture for each frame", "remove one of the two")
    return paths


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """A key that sorts numbers in names as numbers."""
    parts = re.split(r"(\d+)", path.stem)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts], path.name


def survey(paths: Sequence[Path], progress: Callable[[int, int], None] = lambda done, total: None) -> Survey:
    """Read all frames once: that none is broken or of another size, and what cuts are found by.

    Raises
    ------
    UserError
        About the first frame that can't be used.
    """
    frames: list[SourceFrame] = []
    size = (0, 0)
    for path in paths:
        frame = images.read(path)
        H, W, _ = frame.shape
        size = size if frames else (W, H)
        if size != (W, H):
            expected = f"{size[0]} x {size[1]}, as {paths[0].name}"
            raise UserError(f"frame: {path}", f"{W} x {H} pixels", expected, "resize it, or remove it")
        frames.append(SourceFrame(path, file_checksum(path), histogram(frame)))
        progress(len(frames), len(paths))
    return Survey(frames, *size)


def file_checksum(path: Path) -> str:
    """The SHA-256 of a file.

    Raises
    ------
    UserError
        It can't be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        name = f"file: {path}"
        raise UserError(name, str(error.strerror), "a readable file", "check it") from error
    return digest.hexdigest()


def histogram(picture: NDArray[Any]) -> NDArray[np.float64]:
    """The fractions of the pixels (H, W, 3) uint8 in each of BINS intervals of each channel."""
    counts = [np.bincount(picture[..., c].ravel() // (256 // BINS), minlength=BINS) for c in range(3)]
    return np.asarray(np.concatenate(counts) / (picture.shape[0] * picture.shape[1]))
