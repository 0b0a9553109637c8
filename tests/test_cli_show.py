"""`npstyle show`: what it prints about good, foreign, damaged and malicious files."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import FailingStream
from npstyle import __version__, images
from npstyle.cli import show
from npstyle.cli.main import main
from npstyle.errors import UserError
from npstyle.images.metadata import as_text
from npstyle.weights import random_weights, write_weights

Capture = pytest.CaptureFixture[str]


PICTURE = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)


TEXT = as_text({"content": "photo.jpg", "style": ["painting.jpg"], "size": 800, "seed": 7})


COMMAND = "npstyle photo.jpg painting.jpg --size 800 --seed 7"


@pytest.fixture
def painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Callable[..., list[str]]:
    """Function that paints out.png with some options and returns the lines of `npstyle show out.png`."""
    monkeypatch.chdir(tmp_path)
    images.write(tmp_path / "photo.png", PICTURE)

    def paint(*options: str) -> list[str]:
        fast = ["--iterations", "1", "--style-layers", "conv1_1", "--content-layers", "conv1_1", "--quiet"]
        assert main(["photo.png", "photo.png", "-o", "out.png", "--overwrite", *fast, *options]) == 0
        capsys.readouterr()
        assert main(["show", "out.png"]) == 0
        return capsys.readouterr().out.splitlines()

    return paint


@pytest.mark.parametrize("options", [[], ["--preprocessing", "torchvision"]], ids=" ".join)
def test_show_tells_of_random_filters_by_fallback(
    options: list[str], painted: Callable[..., list[str]], tmp_path: Path
) -> None:
    *_, filters, _, settings = painted("--seed", "7", *options)
    assert filters == "    filters:  random filters (seed 7)"
    assert " --seed 7 --weights random " in settings
    command = settings.partition("npstyle ")[2].split()
    assert main([*command, "-o", "again.png", "--quiet"]) == 0  # the same picture without a fallback
    np.testing.assert_array_equal(images.read(tmp_path / "again.png"), images.read(tmp_path / "out.png"))


STUDY = [
    "reconstruct photo.png --layer conv1_1 --iterations 2 --seed 3 --tv-weight 0.5",
    "texture photo.png --layers conv1_2,conv1_1 --width 20 --iterations 1 --init painting.png",
    "figure content-layer photo.png painting.png --iterations 0 --size 24",
    "inspect photo.png painting.png --layers conv1_1 --channels 2 --at painting.png",
]


@pytest.mark.parametrize("words", STUDY, ids=lambda words: words.split()[0])
def test_show_tells_how_study_pictures_were_made(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """With random filters by fallback, too; the command that it prints makes the same picture."""
    monkeypatch.chdir(tmp_path)
    images.write("photo.png", PICTURE)
    images.write("painting.png", PICTURE[::-1])
    folder = words.startswith("inspect")
    outputs = [Path("one"), Path("two")] if folder else [Path("one.png"), Path("two.png")]
    assert main([*words.split(), "--quiet", "--threads", "1", "-o", str(outputs[0])]) == 0
    pictures = [path / "gradients.png" if folder else path for path in outputs]
    capsys.readouterr()
    assert main(["show", str(pictures[0])]) == 0
    lines = capsys.readouterr().out.splitlines()
    seed = "3" if "--seed 3" in words else "0"
    assert f"    filters:  random filters (seed {seed})" in lines
    command = lines[-1].partition("npstyle ")[2].split()
    positional = words.partition(" --")[0].split()
    assert command[: len(positional)] == positional
    assert ("--weights", "random") in pairwise(command)
    assert not {"--threads", "--quiet", "--output", "--overwrite"} & set(command)
    assert main([*command, "--quiet", "--threads", "1", "-o", str(outputs[1])]) == 0
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


@pytest.mark.parametrize("by", ["variable", "option", "cache"])
def test_show_tells_name_and_checksum_of_weights_file(
    by: str, painted: Callable[..., list[str]], tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.mkdir()
    path = write_weights(alone / "mine.npz", random_weights(3, "conv1_1"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if by == "variable":
        monkeypatch.setenv("NPSTYLE_WEIGHTS", str(path))
    if by == "cache":
        entry = {"name": path.name, "checksum": f"sha256:{digest}", "addresses": []}
        (alone.parent / "registry.json").write_text(json.dumps({"files": [entry]}))
    *_, filters, _, settings = painted(*(["--weights", str(path)] if by == "option" else []))
    assert filters == f"    filters:  mine.npz (sha256 {digest[:8]})"
    assert f" --weights {'auto' if by == 'cache' else 'mine.npz'} " in settings


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.webp"])
def test_show_prints_size_profile_and_settings(name: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / name
    images.write(path, PICTURE, text=TEXT)
    assert show.main([str(path)]) == 0
    kind = {"x.png": "PNG", "x.jpg": "JPEG", "x.tif": "TIFF", "x.webp": "WEBP"}[name]
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        str(path),
        "    size:     30 x 20 pixels",
        f"    mode:     {kind}, RGB",
        "    profile:  sRGB",
        f"    version:  {__version__}",
        f"    settings: {COMMAND}",
    ]
    assert err == ""


def test_show_prints_depth_and_note(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.png"
    text = as_text({"content": "a", "style": "b"}, note="interrupted")
    images.write(path, PICTURE, depth=16, alpha=PICTURE[:, :, 0], text=text)
    assert show.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "    mode:     PNG, RGBA, 16 bits" in lines
    assert "    note:     interrupted" in lines
    assert lines[-1] == "    settings: npstyle a b"


def test_show_file_without_settings(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.gif"
    Image.fromarray(PICTURE[:, :, 0]).save(path)
    assert show.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["    profile:  none", "    settings: no settings of npstyle in it"]


def test_show_continues_after_unreadable_file(tmp_path: Path, capsys: Capture) -> None:
    images.write(tmp_path / "good.png", PICTURE, text=TEXT)
    (tmp_path / "empty.png").touch()
    status = show.main([str(tmp_path / name) for name in ("missing.png", "good.png", "empty.png")])
    out, err = capsys.readouterr()
    assert status == 1
    assert COMMAND in out
    assert out.count("settings:") == 1
    missing, empty = err.splitlines()
    assert missing.startswith(f"npstyle: picture: {tmp_path / 'missing.png'}: found no such file;")
    assert empty.startswith(f"npstyle: picture: {tmp_path / 'empty.png'}: found an empty file;")


@pytest.mark.parametrize("argv", [[], ["--color", "x.png"]])
def test_wrong_usage(argv: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        show.main(argv)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("npstyle: wrong usage: ")
    assert line.endswith("see npstyle show --help")


@pytest.mark.parametrize("text", [{"Size": "1"}, {"size": "'unclosed"}])
def test_show_foreign_settings(text: Any, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.png"
    images.write(path, PICTURE, text=text)
    assert show.main([str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"npstyle: picture: {path}: found ")
    assert "among the settings" in line


def test_show_malicious_settings_are_quoted_and_escaped(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.png"
    evil = "'$(touch x)' ';' '\x1b[2J\nnext'"
    images.write(path, PICTURE, text={"content": "a", "style": "b", "weights": evil, "note": "\x1b[31m\r"})
    assert show.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[-2:] == [
        "    note:     \\x1b[31m\\r",
        "    settings: npstyle a b --weights '$(touch x)' --weights ';' --weights '\\x1b[2J\\nnext'",
    ]


def test_show_on_failing_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that has closed the pipe, such as `head`, is no error; a full disk is."""
    images.write(tmp_path / "x.png", PICTURE)
    monkeypatch.setattr(sys, "stdout", FailingStream(BrokenPipeError()))
    assert show.main([str(tmp_path / "x.png")]) == 0
    sys.stdout.close()
    monkeypatch.setattr(sys, "stdout", FailingStream(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="standard output: found No space left on device"):
        show.main([str(tmp_path / "x.png")])
    sys.stdout.close()


def test_show_of_a_file_with_a_damaged_chunk_says_so_in_one_line(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.png"
    images.write(path, PICTURE, text=TEXT)
    path.write_bytes(path.read_bytes().replace(b"painting.jpg", b"PAINTING.jpg"))  # the checksum is wrong now
    assert show.main([str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == f"npstyle: picture: {path}: its tEXt chunk (text) is damaged and left out\n"
    assert "no settings of npstyle in it" in out
