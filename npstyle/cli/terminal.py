"""Exit statuses, a parser whose errors are one line, and printing to streams that may be closed or full."""

from __future__ import annotations

import argparse
import errno
import os
import re
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TextIO

from npstyle.errors import UserError

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class _Store(argparse._StoreAction):
    """argparse's own action, but a second file is an error: the first one would be ignored without a word.

    Of numbers and names the last one counts, as in most programs: so the options of a script are changed.
    """

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if option_string and isinstance(values, Path):
            if self.dest in parser.files:
                found = f"{parser.files[self.dest]} and {values}"
                raise argparse.ArgumentError(self, f"found {found}; expected one file; leave one out")
            parser.files[self.dest] = values
        super().__call__(parser, namespace, values, option_string)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports wrong usage in one line, with exit status 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.files: dict[str, Path] = {}  # by options, so far
        self.register("action", None, _Store)
        self.register("action", "store", _Store)

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        with_value = re.fullmatch("argument ([^ ]+): ignored explicit argument (.+)", line)
        if with_value:
            option, value = with_value.groups()
            forms = [form for form in self._option_string_actions if form.startswith(f"{option}=")]
            expected = " or ".join(["no value", *forms])
            line = f"argument {option}: found {value}; expected {expected}; leave it out"
        unknown = re.fullmatch("unrecognized arguments: (-.*)", line)
        if unknown and os.path.lexists(unknown[1]):
            line += f"; a file of that name is ./{unknown[1]}"
        self.exit(USAGE, f"npstyle: wrong usage: {line}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for word in args or ():
            if re.fullmatch("(-[a-z]|--[a-z-]+=)--", word):  # Python before 3.13 makes an empty list of it
                self.error(f"found {word}; expected a value that is not --")
        self.files.clear()
        return super().parse_known_args(self._positionals_together(args), namespace)

    def _positionals_together(self, words: Sequence[str] | None) -> Sequence[str] | None:
        """The same words, options first, where options stand between positional arguments.

        argparse gives positionals to an argument only as far as they stand together, and calls the others
        unrecognized. Its `parse_intermixed_args` loses what `--` means. An option with several values takes
        all words up to the next option.
        """
        positionals = self._get_positional_actions()
        if words is None or not positionals or any(action.nargs == argparse.PARSER for action in positionals):
            return words
        options: list[str] = []
        others: list[str] = []
        remaining = iter(words)
        several = False  # whether the last option takes any number of values
        for word in remaining:
            if word == "--":
                others += remaining
            elif self._parse_optional(word) is None:
                (options if several else others).append(word)
            else:
                options.append(word)
                action = self._option_string_actions.get(word)
                several = action is not None and action.nargs == argparse.ONE_OR_MORE
                if action is not None and action.nargs is None:
                    options += islice(remaining, 1)
        return [*options, "--", *others] if options and others else words


def print_err(text: str) -> None:
    """Print to standard error; if it is closed, nothing is printed and nothing fails."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def print_out(text: str) -> None:
    """Print to standard output.

    Raises
    ------
    UserError
        The disk is full. A reader that closes the pipe early, such as `head`, is no error, nor is a terminal
        that was closed.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        gone = isinstance(error, BrokenPipeError) or (error.errno == errno.EIO and _is_device(sys.stdout))
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        if not gone:
            name, found = "standard output", str(error.strerror)
            raise UserError(name, found, "room to write to", "free some") from error


def _is_device(stream: TextIO) -> bool:
    """Whether a stream is a terminal, even one that was closed, of which isatty says no."""
    try:
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):  # no file at all
        return False
