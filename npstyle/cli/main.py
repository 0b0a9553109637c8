"""The entry point: which command the words are for, and how its errors end."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from npstyle.cli.interrupts import NOTHING_WRITTEN
from npstyle.cli.terminal import FAILED, INTERRUPTED, USAGE, print_err
from npstyle.errors import UserError

# Modules and their functions; a module is imported when its command is called.
COMMANDS = {
    "info": ("npstyle.cli.info", "main"),
    "presets": ("npstyle.cli.presets", "main"),
    "weights": ("npstyle.cli.weights", "main"),
    "show": ("npstyle.cli.show", "main"),
    "cache": ("npstyle.cli.cache", "main"),
    "gradcheck": ("npstyle.cli.gradcheck", "main"),
    "reconstruct": ("npstyle.cli.study", "main_reconstruct"),
    "texture": ("npstyle.cli.study", "main_texture"),
    "figure": ("npstyle.cli.study", "main_figure"),
    "inspect": ("npstyle.cli.inspect", "main"),
    "judge": ("npstyle.cli.judge", "main"),
    "batch": ("npstyle.cli.batch", "main"),
    "sheet": ("npstyle.cli.sheet", "main"),
    "video": ("npstyle.cli.video", "main"),
    "studio": ("npstyle.cli.studio", "main"),
}
MAIN_JOB = ("npstyle.cli.paint", "main")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or the main job where the first word names none, and return the exit status.

    It is 0 if all went well, 1 if the command failed (with one line on standard error), 2 for wrong usage,
    130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP; then the picture so far was saved, if there was
    one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    is_command = bool(arguments) and arguments[0] in COMMANDS
    meant = _meant(arguments[0]) if arguments and not is_command else None
    if meant:
        found = f"found {arguments[0]!r}; expected a command or a picture file; did you mean {meant}?"
        print_err(f"npstyle: wrong usage: {found}; see npstyle --help")
        return USAGE
    module, function = COMMANDS[arguments.pop(0)] if is_command else MAIN_JOB
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for file names that the encoding does not have
    try:
        command: Callable[[list[str]], int] = getattr(import_module(module), function)
        return command(arguments)
    except UserError as error:
        from npstyle.cli.recipe import by_option

        print_err(f"npstyle: {by_option(error)}")
    except ImportError as error:
        print_err(f"npstyle: {error}")
    except MemoryError as error:
        details = f" ({error})" if str(error) else ""
        print_err(f"npstyle: memory: found too little{details}; expected more; try a smaller --size")
    except KeyboardInterrupt as error:
        print_err(f"\nnpstyle: {NOTHING_WRITTEN}")
        return getattr(error, "status", INTERRUPTED)
    return FAILED


def _meant(word: str) -> str | None:
    """The command that a first word is a misspelling of, if it can be nothing else."""
    if not word.isalpha() or os.path.lexists(word):  # options and the names of pictures have other characters
        return None
    from difflib import get_close_matches

    return next(iter(get_close_matches(word.lower(), COMMANDS, 1, 0.7)), None)
