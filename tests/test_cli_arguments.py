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


# ------------------------------------------------------------------------------------------------
# Options in errors
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ("--content-layers conv9_1", 2, "wrong usage: --content-layers: found 'conv9_1'; "),
        ("--style-layers conv1_1:x", 2, "wrong usage: --style-layers: conv1_1: found 'x'; "),
        ("--learning-rate 0", 2, "wrong usage: --learning-rate: found 0; "),
        (
            "--resume=yes",
            2,
            "wrong usage: argument --resume: found 'yes'; expected no value or --resume=must; ",
        ),
        ("--overwrite=yes", 2, "wrong usage: argument --overwrite: found 'yes'; expected no value; "),
        ("--style-scale 0", 1, "--style-scale: found 0; "),
        ("--blend 1,2", 1, "--blend: found 2; "),
        ("--keep-mask painting.png", 1, "--keep-mask: found 40 x 40 pixels; "),
        ("--content-mask photo.png", 1, "--content-mask, --style-mask: found 1 for the content and 0 "),
        ("--weights random --preprocessing torchvision", 1, "--preprocessing: found 'torchvision'; "),
    ],
)
def test_errors_name_the_option_once(
    options: str, status: int, words: str, here: Path, capsys: Capture
) -> None:
    assert error(f"photo.png painting.png --quiet {options}", status, capsys).startswith(words)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ("--optimizer adam --maxcor 5", ["--maxcor: no effect with --optimizer adam, only with lbfgs"]),
        ("--preset udacity --maxcor 5", ["--maxcor: no effect with --optimizer adam, only with lbfgs"]),
        ("--learning-rate 3", ["--learning-rate: no effect with --optimizer lbfgs, only with adam"]),
        ("--init-noise 0.3", ["--init-noise: no effect with --init content, only with noisy-content"]),
        ("--noise-std 1", ["--noise-std: no effect with --init content, only with noise or noisy-content"]),
        # What `npstyle show` prints, the values of a preset among it, can be given without a word.
        ("--optimizer adam --maxcor 10 --learning-rate 3 --init-noise 0.5", []),
        ("--maxcor 5 --init noise --noise-std 1", []),
    ],
)
def test_option_without_effect_is_said(
    options: str, lines: list[str], parsed: Callable[[str], argparse.Namespace], capsys: Capture
) -> None:
    parsed(f"photo.png painting.png {options}")
    assert capsys.readouterr().err.splitlines() == [f"npstyle: {line}" for line in lines]
