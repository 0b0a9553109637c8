"""`npstyle show`: what a picture carries, and the command line that would make it again.

Exit status as of `npstyle`: 0 done, 1 a file can't be read, 2 wrong usage.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from npstyle._version import __version__
from npstyle.cli.terminal import DONE, FAILED, Parser, print_err, print_out
from npstyle.errors import UserError

# What is stored beside options: npstyle's version, and whatever else there is to say of the run.
FACTS = ("version", "note")


def main(argv: list[str]) -> int:
    """Tell of each file, and return the exit status. One that can't be read does not keep the others back."""
    parser = Parser(
        prog="npstyle show",
        description="What pictures carry: size, colors, and how npstyle made them.",
        allow_abbrev=False,
    )
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+")
    status = DONE
    for path in parser.parse_args(argv).files:
        try:
            lines = list(_lines(path))
        except UserError as error:
            print_err(f"npstyle: {error}")
            status = FAILED
        else:
            print_out("\n".join([f"{path}", *(f"    {name + ':':<10}{value}" for name, value in lines)]))
    return status


def as_text(options: Mapping[str, Any], note: str = "") -> dict[str, str]:
    """The options of a run, to be stored in its picture: see `npstyle.images.write`.

    Parameters
    ----------
    options : mapping of str to anything
        By their names on the command line, with "content" and "style" for what has none. True is an option
        alone, False its --no- form, None and an empty list no option at all; a list is the option repeated.
        Of a path only the last part is kept, of a string with slashes as well: folders are nobody's business.
    note : str
        What no option says, such as that the run was interrupted.

    Examples
    --------
    >>> text = as_text({"content": "holidays/photo.jpg", "style": ["a.jpg", "b c.jpg"], "tv_weight": 0.1})
    >>> text["content"], text["style"], text["tv-weight"]
    ('photo.jpg', "a.jpg 'b c.jpg'", '0.1')
    """
    text = {"version": __version__, **({"note": note} if note else {})}
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            text[option if value else f"no-{option}"] = ""
        elif value is not None and value != [] and value != ():
            words = value if isinstance(value, (list, tuple)) else [value]
            text[option] = shlex.join(map(_word, words))
    return text


def command_line(text: Mapping[str, str]) -> str:
    """What `as_text` has stored, as a command that a shell takes.

    Raises
    ------
    UserError
        It is nothing that `as_text` stores.

    Examples
    --------
    >>> command_line({"content": "photo.jpg", "style": "a.jpg 'b c.jpg'", "size": "512", "overwrite": ""})
    "npstyle photo.jpg a.jpg 'b c.jpg' --size 512 --overwrite"
    """
    words = ["npstyle"]
    for name in ("content", "style"):
        # A name that begins with a dash is no option.
        words += [f"./{word}" if word.startswith("-") else word for word in _split(text.get(name, ""))]
    for name, value in text.items():
        if name in ("content", "style", *FACTS):
            continue
        if not re.fullmatch("[a-z][a-z0-9-]*", name):
            raise _damaged(name)
        words += [f"--{name}"] if value == "" else []
        for word in _split(value):
            words += [f"--{name}={word}"] if word.startswith("-") else [f"--{name}", word]
    return shlex.join(words)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Name and value of each line about a file."""
    from npstyle import images

    found = images.describe(path)
    yield "size", f"{found.width} x {found.height} pixels"
    yield "mode", f"{found.kind}, {found.mode}"
    yield "profile", found.profile
    if not found.text:
        yield "settings", "no settings of npstyle in it"
        return
    for fact in FACTS:
        if found.text.get(fact):
            yield fact, images.printable(found.text[fact])
    try:
        yield "settings", images.printable(command_line(found.text))
    except UserError as error:
        raise UserError(f"picture: {path}", error.found, error.expected, error.cure) from None


def _word(value: Any) -> str:
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1]


def _split(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:  # a quotation that does not end
        raise _damaged(value) from None


def _damaged(what: str) -> UserError:
    found = f"{what!r} among the settings"
    return UserError("settings", found, "those that npstyle wrote", "take another copy")
