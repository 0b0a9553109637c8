"""What tells one picture from another: its settings, and the checksums of the files it is painted from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npstyle._runtime.paths import what_is_there
from npstyle.errors import UserError
from npstyle.images.metadata import as_text
from npstyle.jobs.picture import PictureJob
from npstyle.weights.registry import file_digest

FILES = ("content_masks", "style_masks", "keep", "init")  # arguments of a request that name files


class Checksums:
    """The SHA-256 of files, each read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, job: PictureJob) -> dict[str, str]:
        """The files of a job with their checksums, in order.

        Raises
        ------
        UserError
            One of them can't be read.
        """
        found = {}
        for path in files_of(job):
            if path not in self._known:
                try:
                    self._known[path] = file_digest(path, "sha256")
                except OSError as error:
                    found_there, cure = str(error.strerror), "check its permissions"
                    if not path.is_file():
                        found_there, cure = what_is_there(path)
                    raise UserError(f"picture: {path}", found_there, "a picture file", cure) from error
            found[str(path)] = self._known[path]
        return found


def files_of(job: PictureJob) -> list[Path]:
    """All files that a job reads, but for its filters."""
    named: list[Any] = [job.content, *job.styles]
    for name in FILES:
        value = job.request.get(name)
        named += value if isinstance(value, (list, tuple)) else [value]
    return [Path(file) for file in named if file is not None]


def key_of(job: PictureJob, inputs: Mapping[str, str]) -> str:
    """A digest that two jobs share only if they make the same picture file, with any version of npstyle.

    `inputs` are the checksums of its files.
    """
    text = as_text(job.recorded, filters=job.filters.label)
    del text["version"]
    settings = {**text, "format": job.output.suffix.lower()}
    facts = [settings, list(inputs.values())]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
