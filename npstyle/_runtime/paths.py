"""What a path is that should have been a file."""

from __future__ import annotations

import os
import stat


def what_is_there(path: str | os.PathLike[str]) -> tuple[str, str]:
    """What is at a path that is not a regular file, and what to do about it."""
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        return f"a folder on its way that may not be searched ({error.strerror})", "check its permissions"
    except (OSError, ValueError):  # missing, or no name that there could be
        return ("a link to nothing" if os.path.islink(path) else "no such file"), "check the name"
    return "a folder" if stat.S_ISDIR(mode) else "something that is not a regular file", "check the name"
