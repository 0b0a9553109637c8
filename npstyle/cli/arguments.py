"""Argument types, and the options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from npstyle._runtime.paths import as_input, as_path
from npstyle.architecture import PREPROCESSINGS, canonical
from npstyle.cli.terminal import Parser
from npstyle.errors import UserError, check_integer, check_nonnegative
from npstyle.settings import check_iterations

T = TypeVar("T")

# ------------------------------------------------------------------------------------------------
# Types
# ------------------------------------------------------------------------------------------------


def checked(convert: Callable[[str], T]) -> Callable[[str], T]:
    """An argument type from a function whose UserError is wrong usage, in one line."""

    def convert_argument(text: str) -> T:
        try:
            return convert(text)
        except UserError as error:
            message = f"found {error.found}; expected {error.expected}; {error.cure}"
            raise argparse.ArgumentTypeError(message) from error

    return convert_argument


def integer(minimum: int) -> Callable[[str], int]:
    """The type of an integer from `minimum`."""

    def convert(text: str) -> int:
        try:
            value: Any = int(text)
        except ValueError:
            value = text
        return check_integer("argument", value, minimum)

    return checked(convert)


@checked
def iterations(text: str) -> int | tuple[int, ...]:
    """The type of a number of iterations, or of one for each of the last levels."""
    numbers = [integer(0)(number) for number in text.split(",")]
    return check_iterations("argument", numbers)


@checked
def nonnegative(text: str) -> float:
    """The type of a finite number from 0."""
    return check_nonnegative("argument", text)


@checked
def size_in_bytes(text: str) -> float:
    """The type of a size such as 8GB."""
    from npstyle.run.memory import as_bytes

    return as_bytes(text)


@checked
def fraction(text: str) -> float:
    """The type of a number from 0 to 1."""
    value = check_nonnegative("argument", text)
    if value > 1:
        raise UserError("argument", repr(text), "a number from 0 to 1", "give one such as 0.5")
    return value


@checked
def numbers(text: str) -> list[float]:
    """The type of numbers from 0, separated by commas."""
    return [check_nonnegative("argument", part) for part in text.split(",")]


@checked
def input_file(text: str) -> Path:
    """The type of a file that is read: a path, whose "~" is expanded, and no address on the web."""
    return as_input(text, "argument")


@checked
def layer(text: str) -> str:
    """The type of a layer, by the paper's name."""
    return canonical(text)


@checked
def layers(text: str) -> tuple[str, ...]:
    """The type of layers separated by commas, by the paper's names, each once."""
    names = tuple(dict.fromkeys(canonical(name) for name in text.split(",") if name.strip()))
    if not names:
        raise UserError("argument", repr(text), "at least one layer", "give one such as conv1_1")
    return names


# ------------------------------------------------------------------------------------------------
# Options that several commands share
# ------------------------------------------------------------------------------------------------


def command_parser(name: str, description: str) -> Parser:
    """The parser of `npstyle NAME`, without options yet."""
    return Parser(
        prog=f"npstyle {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --output and --overwrite of a command that writes one picture; `default` is said in the help."""
    text = f"picture to write ({default} in this folder)"
    parser.add_argument("-o", "--output", type=as_path, metavar="OUT", help=text)
    add_overwrite(parser)


def add_overwrite(parser: argparse.ArgumentParser, output: str = "OUT") -> None:
    parser.add_argument("--overwrite", action="store_true", help=f"replace {output} if it exists")


def add_size(parser: argparse.ArgumentParser, default: int) -> None:
    text = f"longer side of the pictures in pixels; smaller ones are not enlarged ({default})"
    parser.add_argument("--size", type=integer(16), default=default, metavar="N", help=text)


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    text = "the preprocessing of pixels that the filters of a file expect (as the file says)"
    parser.add_argument("--preprocessing", choices=PREPROCESSINGS, help=text)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print warnings and errors only")


def add_log_every(group: argparse._ActionsContainer) -> None:
    """Add --log-every of a command that shows the progress of a run."""
    text = "print a line about the run's progress every so many seconds; 0: never (60, on a terminal 0)"
    group.add_argument("--log-every", type=nonnegative, metavar="SECONDS", help=text)


def add_resources(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that computes: threads and memory."""
    add = parser.add_argument
    add(
        "--threads",
        type=integer(1),
        metavar="N",
        help="threads (all cores available, or OMP_NUM_THREADS)",
    )
    add("--force", action="store_true", help="run even if there seems to be too little memory")


def add_run(parser: argparse.ArgumentParser, size: int) -> None:
    """Add the options of every command that runs the network: size, filters, threads, memory, --quiet."""
    add = parser.add_argument
    add_size(parser, size)
    add("--seed", type=integer(0), default=0, metavar="N", help="seed of the noise and of random filters (0)")
    text = "filters: auto, imagenet, 8bit, random or a file (auto)"
    add("--weights", default="auto", metavar="W", help=text)
    add_preprocessing(parser)
    add_resources(parser)
    add_quiet(parser)
