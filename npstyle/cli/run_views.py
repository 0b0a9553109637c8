"""What shows a run beside the terminal: the page of --watch, the file of --report, and E and C of --judge."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle._runtime.paths import as_path
from npstyle.cli.run_files import files_read, same_file
from npstyle.cli.session import count_of, format_bytes, save_or_refuge
from npstyle.cli.terminal import Parser, print_err
from npstyle.errors import UserError

if TYPE_CHECKING:
    from npstyle.run import Progress, Request, StyleResult
    from npstyle.studio.watch import Watch
    from npstyle.weights import Weights

EXTENSIONS = (".html", ".htm")
MEANING = {
    "E": "style that is missing, from 0 (the painting's) to 1 (the photograph's)",
    "C": "drawing that is lost, from 0 (none) to 1 (as unlike the photograph as the painting)",
}
MAX_HEAD = 4096  # bytes at the beginning of a report, in which it says what it is


def add_views(parser: argparse.ArgumentParser) -> None:
    """Add the options of this module."""
    add = parser.add_argument_group("to look at").add_argument
    text = "see it being painted on a page in the browser, and stop it there (needs the extra studio)"
    add("--watch", action="store_true", help=text)
    add("--no-browser", action="store_true", help="print the address of --watch's page only")
    text = "write a page with the picture, the curves of the loss and all settings, in one file"
    add("--report", type=as_path, metavar="FILE.html", help=text)
    add("--judge", action="store_true", help="measure E and C of the picture: docs/judge.md")


def check_views(parser: Parser, options: argparse.Namespace) -> None:
    """Wrong usage where options contradict each other, and UserError where --watch lacks what it needs."""
    if options.no_browser and not options.watch:
        parser.error("--no-browser: found no --watch; expected it; leave --no-browser out")
    if options.judge and len(options.style) > 1:
        found = count_of(len(options.style), "painting")
        parser.error(f"--judge: found {found}; expected one, which it compares with; leave --judge out")
    if options.watch:
        from npstyle.cli.studio import require_extra

        require_extra("--watch")


def check_report_file(options: argparse.Namespace, output: Path) -> None:
    """Make sure, before the run, that the file of --report can be written, and is nobody else's."""
    from npstyle._runtime.atomic import check_writable

    path = options.report
    if path is None:
        return
    name = f"--report: {path}"
    if path.suffix.lower() not in EXTENSIONS:
        found = path.suffix or "no extension"
        raise UserError(name, found, "the name of a page", "give one such as report.html")
    for file in (output, *([options.log] if options.log else []), *files_read(options)):
        if same_file(path, file):
            found = "a file that this run reads, writes or continues from"
            raise UserError(name, found, "a file of its own", "choose another name")
    try:
        check_writable(path, options.overwrite)
        if os.path.exists(path) and not _is_report(path):
            raise UserError(name, "a file that is no report of npstyle", "a new name", "choose another")
    except UserError as error:
        raise UserError(name, error.found, error.expected, error.cure) from None
    except OSError as error:
        found = f"{error.strerror} on opening it"
        raise UserError(name, found, "a file to write to", "choose another") from error


def _is_report(path: Path) -> bool:
    from npstyle.studio.report import GENERATOR

    with path.open("rb") as file:
        return GENERATOR in file.read(MAX_HEAD)


class Views:
    """Those of one run, as a context: whatever ends the run, its page says so.

    Parameters
    ----------
    options : Namespace
    output : Path
        The picture's file.
    request : Request
    text : mapping of str to str
        The settings: `npstyle.images.metadata.as_text`.
    memory : str
        What the run takes, in words.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        output: Path,
        request: Request,
        text: Mapping[str, str],
        memory: str,
    ) -> None:
        self.options, self.output, self.request, self.memory = options, output, request, memory
        self._points: list[dict[str, Any]] = []
        self._peak: float | None = None
        self._watch = _watch(request, text) if options.watch else None

    def __enter__(self) -> Views:
        if self._watch is not None:
            self._watch.__enter__()
            print_err(f"watch it at {self._watch.url}")
            if not self.options.no_browser:
                self._watch.open_browser()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._watch is not None:
            self._watch.__exit__(*exception)

    def after_iteration(self, progress: Progress) -> None:
        """Take in an iteration; StopIteration if the page asks for the picture as it is."""
        if self.options.report is not None:
            from npstyle.studio.follower import point_of

            self._points.append(point_of(progress))
            self._peak = peak_memory()  # now: a judge takes memory, too
        if self._watch is not None:
            self._watch.after_iteration(progress)

    def finish(
        self, result: StyleResult, text: Mapping[str, str], seconds: float, judged: Mapping[str, float]
    ) -> None:
        """Write the report of a picture that was saved, and show the picture on the page."""
        try:
            if self.options.report is not None:
                self._write_report(result, text, seconds, judged)
        finally:
            if self._watch is not None:
                self._watch.finish(result, seconds, self.output.name)

    def _write_report(
        self, result: StyleResult, text: Mapping[str, str], seconds: float, judged: Mapping[str, float]
    ) -> None:
        from npstyle._runtime.atomic import open_replacing
        from npstyle.studio.report import completed, report

        facts = self._facts(result, seconds, judged)
        points = completed([*self._logged(), *self._points], result)
        page = report(self.request, result, text, points, facts)

        def write(path: Path, overwrite: bool) -> None:
            with open_replacing(path, overwrite) as file:
                file.write(page)

        save_or_refuge(self.options.report, write, self.options.overwrite, ".html", "the report is")

    @property
    def _first(self) -> int:
        """The iteration with which the run has begun, or was continued."""
        return self._points[0]["iteration"] if self._points else 1

    def _logged(self) -> list[dict[str, Any]]:
        """What the log of the same run says of iterations before it was continued."""
        if self.options.log is None or not self.options.resume:
            return []
        from npstyle.cli.run_log import iterations_in

        return [point for point in iterations_in(self.options.log) if point["iteration"] < self._first]

    def _facts(self, result: StyleResult, seconds: float, judged: Mapping[str, float]) -> dict[str, str]:
        """What the report says of the run."""
        losses = result.levels[-1].losses if result.levels else ()
        memory = self.memory
        if self._peak:
            memory = (
                f"{format_bytes(self._peak)} at most, all of Python included; announced for the run: {memory}"
            )
        part = " since it was continued" if self._first > 1 else ""
        return {
            "file": self.output.name,
            "iterations": f"{result.nit}, with {result.nfev} evaluations of loss and gradient",
            "loss at the last level": f"{losses[0]:.4g} → {result.loss:.4g}" if losses else "",
            "time": f"{seconds:.1f} s{part}",
            "memory": memory,
            **{name: f"{value:.3f}, {MEANING[name]}" for name, value in judged.items()},
        }


def _watch(request: Request, text: Mapping[str, str]) -> Watch:
    from npstyle.images.metadata import command_line, picture_names
    from npstyle.studio.watch import Watch

    return Watch(request, command_line(text), picture_names(text))


def peak_memory() -> float | None:
    """The most that this process has taken so far, in bytes; None where that is not known."""
    try:
        # ru_maxrss would include the parent's, from before exec.
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(1024.0 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


# ------------------------------------------------------------------------------------------------
# E and C
# ------------------------------------------------------------------------------------------------


def layers_needed(options: argparse.Namespace, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a run, and with --judge the judge's."""
    if not options.judge:
        return layers
    from npstyle.study.judging import LAYERS

    return (*layers, *LAYERS)


def check_judge(options: argparse.Namespace, request: Request, weights: Weights, free: float | None) -> None:
    """Make sure, before the run, that --judge can judge its picture."""
    if not options.judge:
        return
    from npstyle import images
    from npstyle.cli.judge import judging_memory
    from npstyle.study.judging import JUDGED_SIZE, check_judged, trained_weights

    trained_weights(weights)
    width, height = images.fitted_size(*request.result_size, JUDGED_SIZE)
    check_judged(request.content.shape, (height, width, 3), "--judge")
    needed = judging_memory([(height, width), request.styles[0].shape[:2]], max(height, width))
    if free is not None and needed > free and not options.force:
        found, expected = f"{format_bytes(free)} of memory", f"about {format_bytes(needed)}"
        raise UserError("--judge", found, expected, "leave it out, or free some")


def judged(
    options: argparse.Namespace, request: Request, weights: Weights, result: StyleResult
) -> dict[str, float]:
    """E and C of the picture, as `npstyle judge` has them; nothing of one whose run was interrupted."""
    if not options.judge or result.interrupted or result.diverged:
        return {}
    from npstyle import images
    from npstyle.study.judging import JUDGED_SIZE, Judge

    judge = Judge(request.content, request.styles[0], weights, options.threads)
    found = judge(images.fit(result.image, JUDGED_SIZE))
    return {"E": found.missing_style, "C": found.lost_content}
