"""What all commands share: exit statuses, a parser whose errors are one line, and words to the terminal."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from npstyle.errors import UserError

DONE, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class Parser(argparse.ArgumentParser):
    """One line for wrong usage, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        self.exit(USAGE, f"npstyle: wrong usage: {line}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for word in args or ():
            if re.fullmatch("(-[a-z]|--[a-z-]+=)--", word):  # Python before 3.13 makes an empty list of it
                self.error(f"found {word}; expected a value that is not --")
        return super().parse_known_args(args, namespace)


def print_err(text: str) -> None:
    """Print to standard error; that nobody listens there must not end anything."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@contextmanager
def warnings_as_lines(*categories: type[Warning]) -> Iterator[None]:
    """Warnings of these kinds as text on standard error, whatever filters warnings have."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print_err(f"npstyle: {message}")

    with warnings.catch_warnings():
        for category in categories:
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        yield


def print_out(text: str) -> None:
    """Print to standard output.

    Raises
    ------
    UserError
        There is no room to write to. That a reader has seen enough, `head` for example, is no error.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        if not isinstance(error, BrokenPipeError):
            name, found = "standard output", str(error.strerror)
            raise UserError(name, found, "room to write to", "free some") from error
