"""Paths as users name them, and what a path is that should have been a file."""

from __future__ import annotations

import os
import re
import shlex
import stat
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from npstyle.errors import UserError

ADDRESS = re.compile(r"(https?|ftps?|s3|gs|file):/+(?=.)", re.IGNORECASE)


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path that a user names: "~" and "~user" are expanded, as a shell does only where a word begins."""
    text = os.fspath(path)
    named = Path(os.path.expanduser(text))
    if str(named).startswith("~") and not text.startswith("~"):  # ./~, which would be expanded the next time
        with suppress(OSError):  # the current folder is gone
            return named.absolute()
    return named


def as_input(path: str | os.PathLike[str], name: str) -> Path:
    """`as_path` of a file that is to be read; `name` is what it is to the caller, for the error.

    Raises
    ------
    UserError
        It is empty, or an address on the web.
    """
    text = os.fspath(path)
    if not text:
        raise UserError(name, "an empty name", "a file", "name one")
    address = ADDRESS.match(text)
    if not address:
        return as_path(path)
    scheme, rest = address[1].lower(), text[address.end() :]
    if scheme == "file":
        raise UserError(
            name, f"the address {text}", "a path", f"name it as {shlex.quote('/' + unquote(rest))}"
        )
    whole = f"{address[1]}://{rest}"  # pathlib makes one slash of two
    cure = "copy it here" if scheme in ("s3", "gs") else f"fetch it first: curl -LO {shlex.quote(whole)}"
    raise UserError(name, f"the address {whole}", "a file", cure)


def what_is_there(path: str | os.PathLike[str]) -> tuple[str, str]:
    """What is at a path that is not a regular file, and what to do about it."""
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        return f"a folder on its way that may not be searched ({error.strerror})", "check its permissions"
    except (OSError, ValueError):  # missing, or no name that there could be
        return ("a link to nothing" if os.path.islink(path) else "no such file"), "check the name"
    return "a folder" if stat.S_ISDIR(mode) else "something that is not a regular file", "check the name"
