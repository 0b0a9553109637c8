"""`--jobs FILE.toml`: pictures to paint, each with options of its own.

A table `[[job]]` is one command of the main job: `content`, `style`, and any option that concerns its
picture, without the dashes. What stands above the first table holds for all of them, and options on the
command line come before both.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from npstyle._runtime.paths import as_input, what_is_there
from npstyle.cli.paint import painting_parser
from npstyle.cli.terminal import Parser
from npstyle.errors import UserError
from npstyle.settings import STARTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Options of the main job that do not concern its picture.
OTHER_OPTIONS = {"help", "version", "overwrite", "quiet", "json", "format", "force", "threads", "memory"}
OTHER_OPTIONS |= {"resume", "resume=must", "checkpoint", "no-checkpoint", "log", "log-every", "save-every"}
OTHER_OPTIONS |= {"output", "content", "style", "watch", "no-browser", "report", "judge"}
FILES = ("content-mask", "style-mask", "keep-mask")
# Options whose values are files, or one of these.
NAMED = {"init": STARTS, "weights": ("auto", "imagenet", "8bit", "random")}
EXAMPLE = 'content = "photo.jpg" and style = "painting.jpg"'


class Entry(NamedTuple):
    """A picture of the file: its options, and the name of the result, if it has one."""

    options: argparse.Namespace
    output: str | None


class _JobParser(Parser):
    """The main job's, whose errors are those of a table of the file."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(" ".join(message.split()))


def read_jobs(path: Path, given: Mapping[str, Any]) -> list[Entry]:
    """The pictures that a file lists, with the options `given` on the command line in place of its own.

    Raises
    ------
    UserError
        It is missing, no TOML, or a table in it is no job.
    """
    name = f"--jobs: {path}"
    if not os.path.isfile(path):
        found, cure = what_is_there(path)
        raise UserError(name, found, "a TOML file of jobs", cure)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(name, reason, "a TOML file of jobs", f"a job is [[job]], then {EXAMPLE}") from error
    jobs = tables.pop("job", None)
    if not isinstance(jobs, list) or not jobs or not all(isinstance(job, dict) for job in jobs):
        raise UserError(name, "no table [[job]]", "one for each picture", f"each has {EXAMPLE}")
    return [
        _entry({**tables, **job}, path.parent, given, f"{name}, job {n}") for n, job in enumerate(jobs, 1)
    ]


def _entry(job: dict[str, Any], folder: Path, given: Mapping[str, Any], name: str) -> Entry:
    output = job.pop("output", None)
    if output is not None and not isinstance(output, str):
        raise UserError(f"{name}: output", repr(output), "a name", "write it in quotation marks")
    parser = painting_parser(_JobParser)
    files = {key: _as_list(job.pop(key, [])) for key in ("content", "style")}
    if len(files["content"]) != 1 or not files["style"]:
        raise UserError(name, "no pair of pictures", EXAMPLE, "several styles are blended")
    words = [str(_beside(folder, file, name)) for file in (*files["content"], *files["style"])]
    try:
        options = [word for key, value in job.items() for word in _words(parser, key, value, folder, name)]
        parsed = parser.parse_args([*options, "--", *words])
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise _of_job(name, str(error)) from None
    parsed.content, parsed.style = parsed.content, list(parsed.style)
    for option, value in given.items():
        if hasattr(parsed, option):
            setattr(parsed, option, value)
    return Entry(parsed, output)


def _of_job(name: str, message: str) -> UserError:
    """The parser's message as an error about a job."""
    one = re.fullmatch("argument (--[^:]+): found (.+); expected (.+?); (.+)", message)
    if one:
        option, found, expected, cure = one.groups()
        return UserError(f"{name}: {option[2:]}", found, expected, cure)
    return UserError(name, message, "an option of npstyle", "npstyle --help lists them")


def _words(parser: Parser, key: str, value: Any, folder: Path, name: str) -> Iterator[str]:
    """An entry of a table as words of a command line."""
    known = parser._option_string_actions
    if f"--{key}" not in known or key in OTHER_OPTIONS:
        found = f"{key}, which is no option of a picture"
        raise UserError(name, found, "an option of npstyle", "npstyle --help lists them")
    if key in FILES or (key in NAMED and value not in NAMED[key]):
        value = [str(_beside(folder, file, name)) for file in _as_list(value)]
    elif isinstance(value, list):
        value = ",".join(map(str, value))
    if value is False:
        yield from [f"--no-{key}"] if f"--no-{key}" in known else []
    elif value is True:
        yield f"--{key}"
    else:
        yield from (f"--{key}={one}" for one in _as_list(value))


def _beside(folder: Path, file: Any, name: str) -> Path:
    """A file that is named relative to the folder of the jobs' file."""
    if not isinstance(file, str):
        raise UserError(name, repr(file), "the name of a picture", "write it in quotation marks")
    path = folder / as_input(file, name)
    if not os.path.isfile(path):
        found, cure = what_is_there(path)
        raise UserError(f"{name}: {path}", found, "a picture", cure)
    return path


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
