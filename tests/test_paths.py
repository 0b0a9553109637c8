"""What is said of a path that is not a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import error_line
from npstyle import images
from npstyle._runtime.paths import what_is_there
from npstyle.weights import read_weights


def test_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    assert what_is_there(tmp_path) == ("a folder", "check the name")
    assert what_is_there(tmp_path / "link") == ("a link to nothing", "check the name")
    for name in ("missing", "a" * 300, "null\0", "missing/x"):
        assert what_is_there(tmp_path / name) == ("no such file", "check the name")
    assert what_is_there(os.devnull) == ("something that is not a regular file", "check the name")


@pytest.mark.parametrize(("read", "name"), [(images.read, "picture"), (read_weights, "weights")])
def test_file_in_a_folder_without_search_permission_is_not_called_missing(
    read: Callable[[Path], object], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "closed" / "x"
    real = os.stat

    def refusing(where: object, **options: object) -> os.stat_result:  # as for anyone but root
        if os.fspath(where) == str(path):  # type: ignore[call-overload]
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(where, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refusing)
    line = error_line(lambda: read(path), f"{name}: {path}")
    assert line.startswith("found a folder on its way that may not be searched (Permission denied); ")
    assert line.endswith("; check its permissions")
