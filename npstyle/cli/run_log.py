"""`--log FILE.jsonl`: a run as lines of JSON, one for its start, each iteration and its end.

Each line is written at once and whole, so that `tail -f` shows it. The first of a run is its start, with all
settings; the last one is its end, also after Ctrl-C and SIGTERM. A log that is there already is continued by
--resume, or else replaced with --overwrite; a file that is no log of npstyle is left alone in any case.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle._runtime.json_lines import JsonLines
from npstyle._version import __version__
from npstyle.cli.terminal import print_err
from npstyle.errors import UserError

if TYPE_CHECKING:
    from npstyle.run import Progress, Request, StyleResult

MAX_LINE = 1 << 20  # bytes that the first line of a log may have


class RunLog:
    """The log of one run, as a context: whatever ends the run, there is a line that says how.

    A line that can't be written, to a full disk for example, is left out, with a warning the first time.

    Parameters
    ----------
    path : Path, optional
        Without one, nothing is written.
    overwrite, resume : bool
        Replace a log of that name, or continue it.

    Raises
    ------
    UserError
        As `check_log`: on entering the context.
    """

    def __init__(self, path: Path | None, overwrite: bool, resume: bool) -> None:
        self.path = path
        self._start = time.monotonic()
        self._file: JsonLines | None = None
        self._warned = self._ended = False
        if path is not None:
            check_log(path, overwrite, resume)
            replace = os.O_TRUNC if overwrite and not resume else 0
            self._flags = replace if os.path.exists(path) else os.O_EXCL

    def __enter__(self) -> RunLog:
        if self.path is not None:
            try:
                self._file = JsonLines(self.path, self._flags)
            except OSError as error:
                found = f"{error.strerror} on writing"
                raise UserError(f"--log: {self.path}", found, "a new file", "choose another") from error
        return self

    def __exit__(self, _: object, exception: BaseException | None, __: object) -> None:
        if exception is not None and not self._ended:
            interrupted = isinstance(exception, KeyboardInterrupt)
            message = "nothing was written" if interrupted else str(exception) or type(exception).__name__
            self._write("end", outcome="interrupted" if interrupted else "failed", message=message)
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def start(self, request: Request, levels: list[tuple[int, int]], **facts: Any) -> None:
        """The first line: what is run, with `facts` that the request does not know, such as file names."""
        width, height = request.result_size
        names = ("size", "enlarge", "blend", "style_scale", "seed")
        self._write(
            "start",
            npstyle=__version__,
            time=datetime.now().astimezone().isoformat(timespec="seconds"),
            **facts,
            width=width,
            height=height,
            levels=levels,
            iterations=sum(request.settings.level_iterations(levels)),
            **{name: getattr(request, name) for name in names},
            settings=asdict(request.settings),
        )

    def iteration(self, progress: Progress) -> None:
        """The line of an iteration."""
        height, width, _ = progress.iterate.shape
        self._write(
            "iteration",
            iteration=progress.iteration,
            level=progress.level,
            width=width,
            height=height,
            level_iteration=progress.level_iteration,
            loss=progress.loss,
            terms=dict(progress.terms),
        )

    def end(self, result: StyleResult, output: Path) -> None:
        """The last line, of a run whose picture was saved."""
        self._ended = True
        self._write(
            "end",
            outcome="diverged" if result.diverged else "interrupted" if result.interrupted else "done",
            message=result.message,
            iterations=result.nit,
            evaluations=result.nfev,
            loss=result.loss,
            output=str(output),
            checkpoint=None if result.checkpoint is None else str(result.checkpoint),
        )

    def _write(self, event: str, **values: Any) -> None:
        if self._file is None:
            return
        seconds = round(time.monotonic() - self._start, 3)
        try:
            self._file.write({"event": event, "seconds": seconds, **values})
        except OSError as error:
            if not self._warned:
                name, found = f"--log: {self.path}", f"{error.strerror} on writing"
                print_err(f"npstyle: {name}: found {found}; continuing, without the lines that have no room")
            self._warned = True


def check_log(path: Path, overwrite: bool, resume: bool) -> None:
    """Make sure, before a run, that its log can be written, and destroys nothing.

    Raises
    ------
    UserError
        The folder does not permit to write to it; or there is a file already, unless it is a log that is to
        be continued or replaced.
    """
    from npstyle._runtime.atomic import check_writable

    name = f"--log: {path}"
    try:
        check_writable(path, overwrite=True)
        if not os.path.exists(path):
            return
        if not _is_log(path):
            raise UserError(name, "a file that is no log of npstyle", "a new name", "choose another")
        with path.open("ab"):
            pass
    except UserError as error:
        raise UserError(name, error.found, error.expected, error.cure) from None
    except OSError as error:
        raise UserError(
            name, f"{error.strerror} on opening it", "a file to write to", "choose another"
        ) from error
    if not overwrite and not resume:
        cure = "choose another, or add --overwrite to replace it, or --resume to continue its run"
        raise UserError(name, "a log of that name", "a new name", cure)


def iterations_in(path: Path) -> list[dict[str, Any]]:
    """The iterations of a log that can be read, each as it was last done."""
    found: dict[int, dict[str, Any]] = {}
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError):  # cut, when its run was killed
                entry = json.loads(line)
                if entry["event"] == "start" and not entry["resume"]:
                    found.clear()
                if entry["event"] == "iteration":
                    names = ("iteration", "level", "loss", "terms")
                    found[entry["iteration"]] = {name: entry[name] for name in names}
    return [found[iteration] for iteration in sorted(found)]


def _is_log(path: Path) -> bool:
    """Whether a file begins with the first line of a log."""
    with path.open("rb") as file:
        line = file.readline(MAX_LINE)
    try:
        start = json.loads(line)
    except ValueError:
        return False
    return isinstance(start, Mapping) and start.get("event") == "start" and "npstyle" in start
