"""The files of the page, in `static`."""

from __future__ import annotations

from importlib import resources

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def read_static() -> dict[str, bytes]:
    """The files by name: no request's name is ever looked for on the disk."""
    folder = resources.files("npstyle.studio") / "static"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.is_file() and file.name[file.name.rfind(".") :] in TYPES
    }
