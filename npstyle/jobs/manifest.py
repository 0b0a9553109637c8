"""The manifest of a batch: a line of JSON for each picture that was painted or failed, in a folder with them.

A picture's line is written before the picture, with the checksum of its file. So a process that is killed at
any moment leaves at most a line too many, whose picture is painted again, and never a picture without a line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from npstyle._runtime.atomic import open_replacing
from npstyle._runtime.json_lines import JsonLines
from npstyle._runtime.locks import lock
from npstyle._version import __version__
from npstyle.errors import UserError
from npstyle.weights.registry import file_digest

NAME = "manifest.jsonl"
START = b'{"npstyle": "'  # of every line
MISSING, DONE, OUTDATED, FOREIGN = "missing", "done", "outdated", "foreign"


class Manifest:
    """The manifest in a folder, which one batch at a time may have, as a context.

    Parameters
    ----------
    folder : Path
        Of the pictures; it is made on entering the context, and removed where nothing was written to it.

    Raises
    ------
    UserError
        On entering the context: the folder can't be written to, another batch is at work in it, or the file
        of the manifest's name is something else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME
        self._made: dict[str, dict[str, dict[str, Any]]] = {}  # lines about pictures, by output and checksum
        self._lines: JsonLines | None = None
        self._made_folder = False

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest in a folder as it is, if there is one; nothing is made or locked.

        Raises
        ------
        UserError
            The file of its name is something else, or can't be read.
        """
        manifest = cls(folder)
        if os.path.lexists(manifest.path):
            manifest._check()
            try:
                manifest._read()
            except OSError as error:
                found = f"{error.strerror} on reading"
                raise UserError(
                    f"manifest: {manifest.path}", found, "a readable file", "check its permissions"
                ) from error
        return manifest

    def __enter__(self) -> Manifest:
        name = f"manifest: {self.path}"
        try:
            self._made_folder = not os.path.lexists(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check()
            self._lines = JsonLines(self.path)
            if not lock(self._lines.fileno()):
                raise another_batch(name)
            if not os.path.samestat(os.fstat(self._lines.fileno()), os.stat(self.path)):
                raise another_batch(name)  # that has just removed it
            self._read()
        except OSError as error:
            self.close()
            found = f"{error.strerror} on writing there"
            raise UserError(name, found, "a folder that can be written to", "choose another") from error
        except UserError:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if not self.path.stat().st_size:
                self.path.unlink()
                if self._made_folder:
                    self.folder.rmdir()  # fails where there is something in it
        self.close()

    def close(self) -> None:
        """Let other batches have it."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def _check(self) -> None:
        if not is_manifest(self.path):
            found, cure = "a file that no batch wrote", "choose another folder, or rename the file"
            raise UserError(f"manifest: {self.path}", found, "a manifest, or none", cure)

    def _read(self) -> None:
        self._made.clear()
        for line in lines_of(self.path):
            self._add(line)

    @property
    def outputs(self) -> list[Path]:
        """The paths of all pictures that were painted."""
        return [self.folder / name for name in self._made]

    def line(self, output: Path) -> dict[str, Any]:
        """The line about the picture that is there."""
        return self._made[self._name(output)][file_digest(output, "sha256")]

    def state(self, output: Path, key: str) -> str:
        """What is at an output path: MISSING, DONE, OUTDATED (of other settings or inputs) or FOREIGN.

        FOREIGN is what this folder's batches did not paint, or what was changed since.
        """
        if not os.path.lexists(output):
            return MISSING
        made = self._made.get(self._name(output), {})
        if not made or not os.path.isfile(output):
            return FOREIGN
        painted = made.get(file_digest(output, "sha256"))
        if painted is None:
            return FOREIGN
        return DONE if painted["key"] == key else OUTDATED

    def save(self, output: Path, key: str, file: bytes, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the line about a picture, and then its file; return the line.

        Raises
        ------
        UserError
            One of them can't be written; or there is meanwhile a file of that name that no batch painted.
        """
        line = self._line(output, {**facts, "key": key, "sha256": hashlib.sha256(file).hexdigest()})
        replace = self.state(output, key) in (DONE, OUTDATED)
        try:
            self._write(line)
            output.parent.mkdir(parents=True, exist_ok=True)
            with open_replacing(output, overwrite=replace) as target:
                target.write(file)
        except OSError as error:
            found = f"{error.strerror or error} on writing"
            cure = "make some, and the same command continues"
            raise UserError(f"output: {output}", found, "a folder with room", cure) from error
        self._add(line)
        return line

    def fail(self, output: Path, error: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the line about a picture that could not be painted, if there is room; return it."""
        line = self._line(output, {**facts, "error": error})
        with suppress(OSError):
            self._write(line)
        return line

    def _line(self, output: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {"npstyle": __version__, "output": self._name(output), **facts}

    def _name(self, output: Path) -> str:
        return output.relative_to(self.folder).as_posix()

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._lines is not None, "outside of its context"
        self._lines.write(line)

    def _add(self, line: dict[str, Any]) -> None:
        output, digest, key = (line.get(name) for name in ("output", "sha256", "key"))
        if all(isinstance(value, str) for value in (output, digest, key)):
            self._made.setdefault(str(output), {})[str(digest)] = line


def outputs_in(folder: Path) -> set[Path]:
    """The pictures that were painted into a folder, by their real paths; none where it has no manifest."""
    try:
        return {path.resolve() for path in Manifest.read(folder).outputs}
    except UserError:  # said later, when it matters
        return set()


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest, or could become one; it may be cut after any byte."""
    if not os.path.lexists(path):
        return True
    if not os.path.isfile(path):
        return False
    with path.open("rb") as file:
        head = file.read(len(START))
    return START.startswith(head)


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a manifest, without those that were cut."""
    with path.open("rb") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line


def another_batch(name: str) -> UserError:
    found, cure = "another batch at work in its folder", "wait for it, or choose another folder"
    return UserError(name, found, "one at a time", cure)
