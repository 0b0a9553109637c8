"""What a batch paints: pictures from files, folders and patterns, in pairs, and the names of the results."""

from __future__ import annotations

import glob
import os
import string
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

from npstyle._runtime.paths import as_input, what_is_there
from npstyle.errors import UserError

NAMES = "{content}_{style}.png"
FIELDS = ("content", "style", "content_folder", "style_folder", "number")


class Pair(NamedTuple):
    """A picture to paint: its content picture, its style pictures, and the path of the result."""

    content: Path
    styles: tuple[Path, ...]
    output: Path


class Found(NamedTuple):
    """Picture files, each once, and the other files of their folders."""

    pictures: list[Path]
    others: list[Path]


def find_pictures(names: Iterable[str], what: str) -> Found:
    """The pictures that files, folders and patterns such as `*.jpg` name.

    A file is taken as it is; of a folder and a pattern, the files whose extension is a picture's, by name.

    Raises
    ------
    UserError
        About `what`: there is no such file, or no picture in a folder, or the folder may not be read.
    """
    pictures: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for name in names:
        path = as_input(name, what)
        if os.path.isfile(path):
            pictures[path] = None
            continue
        if os.path.isdir(path):
            files = _files_in(path, f"{what}: {path}")
        elif glob.has_magic(str(path)):
            files = sorted(
                Path(file) for file in glob.glob(str(path), recursive=True) if os.path.isfile(file)
            )
        else:
            found, cure = what_is_there(path)
            raise UserError(f"{what}: {path}", found, "a picture, a folder or a pattern", cure)
        visible = [file for file in files if not file.name.startswith(".")]
        inside = [file for file in visible if file.suffix.lower() in picture_extensions()]
        if not inside:
            found = f"files, but no picture ({visible[0].name}, ...)" if visible else "no file"
            raise UserError(f"{what}: {path}", found, "at least one picture", "check the name")
        pictures.update(dict.fromkeys(inside))
        others.update(dict.fromkeys(file for file in visible if file not in set(inside)))
    return Found(list(pictures), list(others))


def _files_in(folder: Path, name: str) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if os.path.isfile(file))
    except OSError as error:
        found, cure = f"a folder that can't be read ({error.strerror})", "check its permissions"
        raise UserError(name, found, "a picture, a folder or a pattern", cure) from error


@cache
def picture_extensions() -> frozenset[str]:
    """The extensions of files that Pillow, with HEIC, might read."""
    from PIL import Image

    Image.init()
    return frozenset(extension for extension, form in Image.EXTENSION.items() if form in Image.OPEN) | {
        ".heic",
        ".heif",
    } - {".pdf", ".eps", ".ps", ".mpg", ".mpeg"}


def pair_up(contents: Sequence[Path], styles: Sequence[Path], pairs: bool) -> list[tuple[Path, Path]]:
    """Every content picture with every style, one style after the other; or the n-th with the n-th.

    Raises
    ------
    UserError
        With `pairs`: there are more of the ones than of the others.
    """
    if not pairs:
        return [(content, style) for style, content in product(styles, contents)]
    if len(contents) != len(styles):
        found = f"{len(contents)} content and {len(styles)} style pictures"
        raise UserError(
            "--pairs", found, "as many of both", "leave it out for every content with every style"
        )
    return list(zip(contents, styles, strict=True))


def check_names(pattern: str) -> None:
    """Raise UserError unless a pattern of names can be used: fields that are known, inside of the folder."""
    cure = f"fields are {', '.join(f'{{{name}}}' for name in FIELDS)}"
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
        named = pattern.format(**{**dict.fromkeys(FIELDS, "x"), "number": 1})
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise UserError(f"--name: {pattern}", f"{error}", f"a name such as {NAMES}", cure) from error
    unknown = fields - set(FIELDS)
    if unknown:
        raise UserError(f"--name: {pattern}", f"the field {min(unknown)!r}", f"a name such as {NAMES}", cure)
    path = Path(named)
    if path.is_absolute() or ".." in path.parts or not path.name:
        found, expected = "a path that leads out of the folder", f"a name such as {NAMES}"
        raise UserError(f"--name: {pattern}", found, expected, "-o names the folder")


def name_of(pattern: str, content: Path, style: Path, number: int) -> str:
    """The name of a result.

    Examples
    --------
    >>> name_of("{number:03}-{content}_{style}.jpg", Path("a/lake.png"), Path("b/wave.jpg"), 7)
    '007-lake_wave.jpg'
    """
    return pattern.format(
        content=content.stem,
        style=style.stem,
        content_folder=content.absolute().parent.name,
        style_folder=style.absolute().parent.name,
        number=number,
    )


def check_collisions(pairs: Sequence[Pair]) -> None:
    """Raise UserError where two results would have one name, also on file systems that ignore case."""
    first: dict[str, Pair] = {}
    for pair in pairs:
        other = first.setdefault(os.path.normpath(pair.output).casefold(), pair)
        if other is not pair:
            found = f"the same for {_inputs(other)} and for {_inputs(pair)}"
            cure = "put {content_folder}, {style_folder} or {number} into --name"
            raise UserError(f"output: {pair.output}", found, "a name for each picture", cure)


def _inputs(pair: Pair) -> str:
    return " with ".join(map(str, (pair.content, *pair.styles)))
