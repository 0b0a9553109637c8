"""Shots: frames that belong together, the pictures that are read and written for them, which are finished."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from npstyle import images
from npstyle.errors import UserError


class Frame(NamedTuple):
    """One frame of a shot.

    Attributes
    ----------
    number : int
        In the film, from 1.
    content : Path or FileContents
        The picture to read.
    output : Path
        The one to write.
    key : str
        What the frame depends on, as a checksum: settings, weights, styles, and all frames of the shot up to
        this one. It is kept in the finished picture, which so tells that it is the one.
    painted : Path or FileContents, optional
        Where the finished picture is, for a process that can't read it from `output`.
    """

    number: int
    content: images.PictureFile
    output: Path
    key: str
    painted: images.PictureFile | None = None

    @property
    def name(self) -> str:
        """What it is called in errors."""
        contents = self.content
        return f"frame: {contents.name if isinstance(contents, images.FileContents) else contents}"


class Shot(NamedTuple):
    """Frames between two cuts, in order."""

    frames: tuple[Frame, ...]


def chain(film_key: str, checksums: Sequence[str]) -> list[str]:
    """The keys of a shot's frames, each of the one before and the checksum of what the frame is read from."""
    keys, key = [], film_key
    for checksum in checksums:
        key = hashlib.sha256(f"{key} {checksum}".encode()).hexdigest()[:24]
        keys.append(key)
    return keys


def is_finished(frame: Frame) -> bool:
    """Whether the frame's file is there, and is this frame.

    Raises
    ------
    UserError
        Another file has its name.
    """
    if not frame.output.exists():
        return False
    found = "a file that is not of this film, or of other settings"
    error = UserError(f"frame: {frame.output}", found, "a new name", "choose another or add --overwrite")
    try:
        if images.read_text(frame.output).get("key") == frame.key:
            return True
    except UserError:
        raise error from None
    raise error


def missing_frames(shot: Shot, overwrite: bool = False) -> list[int]:
    """Which frames of a shot are not finished, from 0.

    Raises
    ------
    UserError
        Another file has the name of one, and `overwrite` is False.
    """

    def is_missing(frame: Frame) -> bool:
        try:
            return not is_finished(frame)
        except UserError:
            if overwrite:
                return True
            raise

    return [n for n, frame in enumerate(shot.frames) if is_missing(frame)]
