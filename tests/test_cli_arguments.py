"""Arguments of the command line: their order, paths and addresses among them, and options in errors."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npstyle.cli import paint
from npstyle.cli.main import main
from pictures import Patch

Capture = pytest.CaptureFixture[str]
ADDRESS = "https://example.org//a.jpg?size=1&b=2"
QUICK = "--weights random --iterations 1 --threads 1 --quiet"
SHALLOW = "--style-layers conv1_1 --content-layers conv1_1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The current and the home folder, with a photograph, a painting and a long, narrow picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    rng = np.random.default_rng(0)
    for name, shape in (
        ("photo.png", (32, 48, 3)),
        ("painting.png", (40, 40, 3)),
        ("long.png", (30, 4000, 3)),
    ):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def parsed(monkeypatch: Patch) -> Callable[[str], argparse.Namespace]:
    """The options that a run of the main job would have."""
    seen: list[argparse.Namespace] = []

    def record(options: argparse.Namespace, *_: object) -> int:
        seen.append(options)
        return 0

    def parse(line: str) -> argparse.Namespace:
        assert main(shlex.split(line)) == 0
        return seen[-1]

    monkeypatch.setattr(paint, "_paint", record)
    return parse


def error(line: str, status: int, capsys: Capture) -> str:
    """The one line that a command line ends in."""
    try:
        actual: object = main(shlex.split(line))
    except SystemExit as caught:
        actual = caught.code
    output, errors = capsys.readouterr()
    assert (actual, output) == (status, "")
    (message,) = errors.splitlines()
    assert isinstance(message, str)
    return message.removeprefix("npstyle: ")


# ------------------------------------------------------------------------------------------------
# Sizes
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "cure"),
    [
        ("long.png painting.png", "content", "--size 2067"),
        ("photo.png painting.png --size 16", "content", "--size 24"),
        ("photo.png long.png", "style", "--style-scale 4.04"),
        ("photo.png painting.png --size 32 --style-scale 0.1", "style", "--style-scale 0.5"),
        ("reconstruct long.png --layer conv5_1", "picture: long.png", "--size 2067"),
        ("texture photo.png --layers conv5_1 --size 16", "picture: photo.png", "--size 24"),
        ("figure content photo.png --size 16", "picture: photo.png", "--size 24"),
        ("inspect photo.png --size 16", "picture: photo.png", "--size 24"),
    ],
)
def test_size_that_would_do_is_named(line: str, name: str, cure: str, here: Path, capsys: Capture) -> None:
    message = error(f"{line} --weights random", 1, capsys)
    assert message.startswith(f"{name}: found ")
    assert message.endswith(f"; expected at least 16 x 16; give {cure}")
