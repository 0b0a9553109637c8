"""The home folder and addresses among paths, and what is said of a path that is not a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import error_line, picture
from npstyle import images, stylize
from npstyle._runtime.paths import as_input, as_path, what_is_there
from npstyle.run import checkpoint
from npstyle.settings import Settings
from npstyle.weights import load_weights, read_weights, write_weights


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


def test_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    assert as_path("~/a.png") == as_path(Path("~/a.png")) == Path("/home/me/a.png")
    assert as_path("a~/b.png") == Path("a~/b.png")
    assert as_path("~nobody-of-that-name/a.png") == Path("~nobody-of-that-name/a.png")
    assert as_path(as_path("./~/a.png")) == tmp_path / "~" / "a.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty name; expected a file; name one"),
        (
            "HTTP://a.org/b.jpg",
            "found the address HTTP://a.org/b.jpg; expected a file; fetch it first: curl -LO HTTP://a.org/b.jpg",
        ),
        (
            Path("https://a.org/b.jpg"),
            "found the address https://a.org/b.jpg; expected a file; "
            "fetch it first: curl -LO https://a.org/b.jpg",
        ),
        ("s3://bucket/b.jpg", "found the address s3://bucket/b.jpg; expected a file; copy it here"),
        (
            "file:///my%20photos/b.jpg",
            "found the address file:///my%20photos/b.jpg; expected a path; name it as '/my photos/b.jpg'",
        ),
    ],
)
def test_address_is_no_path(text: str | Path, message: str) -> None:
    assert error_line(lambda: as_input(text, "picture"), "picture") == message
    for path in ("c:/b.jpg", "https", "https:", "photos:/b.jpg"):
        assert as_input(path, "picture") == Path(path)


def test_library_expands_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    photo = picture(32, 32, dtype=np.uint8)
    images.write("~/photo.png", photo)
    images.write("~/painting.png", picture(32, 32, seed=1, dtype=np.uint8))
    assert images.check_output("~/other.png") == tmp_path / "other.png"
    np.testing.assert_array_equal(images.read("~/photo.png"), photo)
    assert images.describe("~/photo.png").width == 32
    write_weights("~/weights.npz", load_weights("random", deepest="conv1_1"))
    settings = Settings(style_layers="conv1_1", content_layers="conv1_1", min_size=0, iterations=3)
    result = stylize(
        "~/photo.png",
        "~/painting.png",
        init="~/painting.png",
        weights="~/weights.npz",
        settings=settings,
        threads=1,
        checkpoint="~/run.npz",
        callback=interrupt,
    )
    assert result.checkpoint == tmp_path / "run.npz"
    assert checkpoint.read("~/run.npz").nit == 1


def interrupt(progress: object) -> None:
    raise KeyboardInterrupt
