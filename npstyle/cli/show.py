"""`npstyle show`: what a picture carries, and the command line that would make it again.

Exit status as of `npstyle`: 0 done, 1 a file can't be read, 2 wrong usage.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from npstyle.cli.arguments import input_file
from npstyle.cli.session import warnings_as_lines
from npstyle.cli.terminal import DONE, FAILED, Parser, print_err, print_out
from npstyle.errors import UserError


def main(argv: list[str]) -> int:
    """Print what each file carries, also after one that can't be read, and return the exit status."""
    parser = Parser(
        prog="npstyle show",
        description="Show what picture files contain: size, colors, and how npstyle made them.",
        allow_abbrev=False,
    )
    parser.add_argument("files", metavar="FILE", type=input_file, nargs="+", help="a picture file")
    status = DONE
    for path in parser.parse_args(argv).files:
        try:
            with warnings_as_lines():
                lines = list(_lines(path))
        except UserError as error:
            print_err(f"npstyle: {error}")
            status = FAILED
        else:
            print_out("\n".join([f"{path}", *(f"    {name + ':':<10}{value}" for name, value in lines)]))
    return status


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Name and value of each line about a file."""
    from npstyle import images
    from npstyle.images.metadata import FACTS, command_line

    found = images.describe(path)
    yield "size", f"{found.width} x {found.height} pixels"
    yield "mode", f"{found.format}, {found.mode}"
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
