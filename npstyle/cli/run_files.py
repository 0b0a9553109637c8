"""Files that a run writes beside its picture: intermediate pictures, the checkpoint, the log.

Before the run it is made sure that none of them replaces another file of the user's.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from npstyle._runtime.paths import as_path
from npstyle.cli.interrupts import HOW_TO_RESUME
from npstyle.cli.session import format_bytes
from npstyle.cli.terminal import print_err
from npstyle.errors import UserError, check_nonnegative

if TYPE_CHECKING:
    from npstyle.run import Request, StyleResult


MUCH = 1e9  # bytes of a checkpoint that are worth a word


def intermediate(output: Path, iteration: int) -> Path:
    """The name of the picture after an iteration: out-00050.png."""
    return output.with_stem(f"{output.stem}-{iteration:05d}")


def check_save_every(options: argparse.Namespace, output: Path, request: Request) -> None:
    """Make sure, before the run, that the pictures of --save-every replace nothing that they may not."""
    from npstyle import images

    every, total = options.save_every, _count_iterations(request)
    if every is None or every > total:
        return
    *paths, last = (intermediate(output, n) for n in range(every, total + 1, every))
    others = [*files_read(options), *([options.log] if options.log else [])]
    names = {Path(path or "").name for path in (options.checkpoint, options.log)}
    for path in [*(path for path in paths if path.name in names or os.path.lexists(path)), last]:
        name = f"--save-every: {path}"
        if any(same_file(path, file) for file in others):
            found = "a file that this run reads, continues from or logs to"
            raise UserError(name, found, "a new name", "choose another name for the output")
        try:
            images.check_output(path, options.overwrite)
        except UserError as error:
            raise UserError(name, error.found, error.expected, error.cure) from None


def check_no_input(name: str, output: Path, inputs: Iterable[Path | str | None], cure: str) -> None:
    """Make sure, before anything takes time, that an output replaces none of the files that are read.

    --overwrite does not mean those: a photograph would be lost, and with it what an interrupted run, whose
    picture is saved, continues from.
    """
    if any(path is not None and same_file(output, as_path(path)) for path in inputs):
        raise UserError(name, "a file that this command reads", "a new name", cure)


def check_log_file(options: argparse.Namespace, output: Path) -> None:
    """Make sure, before the run, that the file of --log is a new one, or a log that may be written to."""
    from npstyle.cli.run_log import check_log

    if options.log is None:
        return
    for file in (output, *files_read(options)):
        if same_file(options.log, file):
            found = "the output" if file == output else "a file that this run reads or continues from"
            raise UserError(f"--log: {options.log}", found, "a file of its own", "choose another name")
    check_log(options.log, options.overwrite, bool(options.resume))


def _count_iterations(request: Request) -> int:
    """Iterations over all levels, at most."""
    from npstyle.run.pyramid import level_sizes

    return sum(request.settings.level_iterations(level_sizes(request)))


def files_read(options: argparse.Namespace) -> list[Path]:
    """Every file that the options name and the run reads."""
    checkpoint = [options.checkpoint] if options.checkpoint else []
    return [*inputs(options), *checkpoint]


def inputs(options: argparse.Namespace) -> list[Path]:
    """The pictures, masks and filters that the options name."""
    masks = [*options.content_mask, *options.style_mask, options.keep_mask]
    weights = [options.weights, os.environ.get("NPSTYLE_WEIGHTS")]
    named = [options.content, *options.style, *masks, options.init, *weights]
    return [as_path(path) for path in named if path]


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, be it there or not."""
    with suppress(OSError):  # one of them is not there
        return os.path.samefile(one, other)
    with suppress(OSError):  # the current folder is gone
        return os.path.realpath(one) == os.path.realpath(other)
    return False


def checkpoint_place(options: argparse.Namespace, output: Path) -> Path | None:
    """Where the state of the run is saved: the file that is named, or a folder in the user's cache."""
    from npstyle.run.checkpoint_writer import check_place, folder

    if options.no_checkpoint:
        return None
    if options.checkpoint:
        path = Path(options.checkpoint)
        if same_file(path, output):
            raise UserError(f"checkpoint: {path}", "the output", "another name", "choose one such as run.npz")
        check_place(path)
        return path
    try:
        path = folder(tidy=not options.resume)  # no checkpoint is too old to be resumed
        check_place(path)
        return path
    except OSError as error:
        name, found = f"checkpoint: {error.filename}", error.strerror
        print_err(f"npstyle: {name}: found {found}; expected a folder to write to; continuing without")
    except UserError as error:
        print_err(f"npstyle: {error}; continuing without checkpoints")
    return None


def describe_checkpoint(place: Path | None, request: Request) -> str:
    """What checkpoints take, where that is much, for the line before the run; a line where it is too much.

    A new one is written beside the last one, so there has to be room for both.
    """
    from npstyle.run.memory import checkpoint_bytes

    if place is None:
        return ""
    needed = checkpoint_bytes(request)
    folder = place if place.is_dir() else place.absolute().parent
    with suppress(OSError):
        free = shutil.disk_usage(folder).free
        if free < 2 * needed:
            found, expected = f"{format_bytes(free)} free in {folder}", f"about {format_bytes(2 * needed)}"
            cure = "--checkpoint names another place; continuing, with those that there is room for"
            print_err(f"npstyle: checkpoint: found {found}; expected {expected}; {cure}")
    return f", checkpoints of {format_bytes(needed)}" if needed >= MUCH else ""


def checkpoint_every() -> float:
    """Seconds between two checkpoints; a variable for those who test runs that are killed."""
    return check_nonnegative("NPSTYLE_CHECKPOINT_EVERY", os.environ.get("NPSTYLE_CHECKPOINT_EVERY", 60))


def tidy_checkpoint(options: argparse.Namespace, output: Path, result: StyleResult) -> None:
    """Say how to resume an interrupted run; remove the checkpoint of one that is complete."""
    if result.checkpoint is None or result.diverged:
        return
    if not result.interrupted:
        if not same_file(result.checkpoint, output):  # file systems may ignore case
            with suppress(OSError):
                os.unlink(result.checkpoint)
    elif not options.quiet and os.path.exists(result.checkpoint):
        size = format_bytes(os.path.getsize(result.checkpoint))
        print_err(f"{HOW_TO_RESUME} (its state: {size}, {result.checkpoint})")
