"""`npstyle cache`: list and remove the states of interrupted runs, from which --resume continues.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from npstyle.cli.session import count_of, format_bytes
from npstyle.cli.terminal import DONE, FAILED, Parser, print_err, print_out

if TYPE_CHECKING:
    from npstyle.run.saved import SavedRun


def main(argv: list[str]) -> int:
    """Do what the word after `npstyle cache` says, and return the exit status."""
    text = "Interrupted runs in the user's cache. Downloaded filters are not touched."
    parser = Parser(prog="npstyle cache", description=text, allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add_command(name: str, function: Callable[[], int], text: str) -> None:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(command=function)

    add_command("list", _list, "Size and age of each.")
    add_command("clear", _clear, "Remove them all: none can be continued with --resume afterwards.")
    options: argparse.Namespace = parser.parse_args(argv)
    command: Callable[[], int] = options.command
    return command()


def summary(runs: Sequence[SavedRun]) -> str:
    """As "2 interrupted runs, 372 MB"."""
    return f"{count_of(len(runs), 'interrupted run')}, {format_bytes(sum(run.size for run in runs))}"


def _list() -> int:
    from npstyle.run.saved import saved_folder, saved_runs
    from npstyle.weights.registry import why_unreadable

    runs = saved_runs()
    for run in runs:
        days = max(0.0, time.time() - run.modified) / 86400
        print_out(f"{format_bytes(run.size):>8}, {days:4.1f} days old, {run.path.name}")
    print_out(f"{saved_folder()}: {why_unreadable(saved_folder()) or summary(runs)}")
    return DONE


def _clear() -> int:
    from npstyle._runtime.atomic import TEMPORARY
    from npstyle.run.saved import remove, saved_folder, saved_runs
    from npstyle.weights.registry import why_unreadable

    # A temporary file that is recent is just being written.
    runs = [run for run in saved_runs() if not (run.path.match(TEMPORARY) and run.is_recent)]
    removed = remove(runs)
    print_out(f"{saved_folder()}: {why_unreadable(saved_folder()) or f'removed {summary(removed)}'}")
    for run in runs:
        if run not in removed:
            print_err(
                f"npstyle: cache: found {run.path}, which can't be removed; check the folder's permissions"
            )
    return DONE if len(removed) == len(runs) else FAILED
