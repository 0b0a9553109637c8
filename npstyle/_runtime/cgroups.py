"""Control groups: limits that Linux sets a container, in files that any process may read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def control_groups(controller: str, system: Path = Path("/")) -> Iterator[Path]:
    """Folders that may have a limit, of "cpu" or "memory", for this process; not all of them exist.

    A line of /proc/self/cgroup is number:controllers:/path. Version 2 has one tree and names no
    controllers; version 1 has a tree for each, and "unified" beside them where both are in use.
    """
    mounts = system / "sys/fs/cgroup"
    lines = text(system / "proc/self/cgroup")
    for controllers, path in re.findall(r"^\d+:([^:\n]*):/(.*)$", lines, re.MULTILINE):
        own = Path(path)
        if ".." in own.parts:  # outside of what this process can see
            continue
        if not controllers:
            trees = ["", "unified"]
        else:
            trees = [controller, controllers] if controller in controllers.split(",") else []
        for tree in trees:
            # A container may see its own folder as the root of the tree, and yet its path from outside.
            yield from (mounts / tree / group for group in (own, *own.parents))


def text(file: Path) -> str:
    """The file's text, or "" if it can't be read, as on systems other than Linux."""
    try:
        return file.read_text("utf-8", "surrogateescape")
    except (OSError, ValueError):
        return ""
