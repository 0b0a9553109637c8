"""`npstyle show`: settings go into a picture as text and come out as the command line they were."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from npstyle import __version__, images
from npstyle.cli import show as show_command
from npstyle.cli.paint import painting_parser
from npstyle.cli.show import as_text, command_line
from npstyle.errors import UserError

Capture = pytest.CaptureFixture[str]

PICTURE = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
TEXT = as_text({"content": "photo.jpg", "style": ["painting.jpg"], "size": 800, "seed": 7})
COMMAND = "npstyle photo.jpg painting.jpg --size 800 --seed 7"

OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"content": "a.jpg", "style": "b.jpg"}, "npstyle a.jpg b.jpg"),
    ({"content": "a.jpg", "style": ["b.jpg", "c d.jpg"]}, "npstyle a.jpg b.jpg 'c d.jpg'"),
    ({"content": "a.jpg", "style": ["-b.jpg"]}, "npstyle a.jpg ./-b.jpg"),
    ({"size": 800, "content": "a", "style": "b"}, "npstyle a b --size 800"),
    ({"normalize_layer_weights": True}, "npstyle --normalize-layer-weights"),
    ({"normalize_layer_weights": False}, "npstyle --no-normalize-layer-weights"),
    ({"content_mask": ["m 1.png", "m2.png"]}, "npstyle --content-mask 'm 1.png' --content-mask m2.png"),
    ({"preset": None, "content_mask": [], "style_mask": ()}, "npstyle"),
    ({"weights": "-odd"}, "npstyle --weights=-odd"),
    ({"weights": ""}, "npstyle --weights ''"),
    ({"weights": "it's"}, """npstyle --weights 'it'"'"'s'"""),
    ({"style_weight": 100.0, "tv_weight": 1e-4}, "npstyle --style-weight 100 --tv-weight 0.0001"),
    ({"learning_rate": 0.1 + 0.2}, "npstyle --learning-rate 0.30000000000000004"),
    ({"content_layers": "conv4_2:2,conv5_2:1"}, "npstyle --content-layers conv4_2:2,conv5_2:1"),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_options_become_a_command_line(options: dict[str, Any], expected: str) -> None:
    assert command_line(as_text(options)) == expected


def test_the_parser_of_the_command_line_understands_it() -> None:
    given: dict[str, Any] = {
        "content": Path("my photo.jpg"),
        "style": [Path("it's.jpg"), Path("-two.jpg")],
        "size": 300,
        "seed": 5,
        "style_weight": 12.5,
        "normalize_layer_weights": False,
        "style_as_content": True,
        "content_mask": [Path("a.png"), Path("b c.png")],
        "keep_mask": Path("face.png"),
        "color": "luma",
        "style_layers": "conv1_1:2,conv2_1",
    }
    words = shlex.split(command_line(as_text(given)))
    assert words[0] == "npstyle"
    parsed = vars(painting_parser().parse_args(words[1:]))
    parsed["style"] = [Path(path.name) for path in parsed["style"]]  # ./-two.jpg
    assert {name: parsed[name] for name in given} == given
    untouched = vars(painting_parser().parse_args(["a", "b"]))
    assert all(parsed[name] == untouched[name] for name in untouched if name not in given)


@pytest.mark.parametrize(
    "path",
    [Path("/home/someone/x y.jpg"), "/home/someone/x y.jpg", "C:\\Users\\someone\\x y.jpg", "../x y.jpg/"],
)
def test_folders_stay_at_home(path: Any) -> None:
    text = as_text({"content": path, "style": [path], "weights": path})
    assert text == {
        "version": __version__,
        "content": "'x y.jpg'",
        "style": "'x y.jpg'",
        "weights": "'x y.jpg'",
    }


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.webp"])
def test_show_tells_what_a_picture_carries(name: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / name
    images.write(path, PICTURE, text=TEXT)
    assert show_command.main([str(path)]) == 0
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


def test_show_tells_more_where_there_is_more(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.png"
    text = as_text({"content": "a", "style": "b"}, note="interrupted")
    images.write(path, PICTURE, depth=16, alpha=PICTURE[:, :, 0], text=text)
    assert show_command.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "    mode:     PNG, RGBA, 16 bits" in lines
    assert "    note:     interrupted" in lines
    assert lines[-1] == "    settings: npstyle a b"


def test_show_says_when_there_is_nothing(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.gif"
    Image.fromarray(PICTURE[:, :, 0]).save(path)
    assert show_command.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["    profile:  none", "    settings: no settings of npstyle in it"]


def test_one_unreadable_file_does_not_hold_up_the_others(tmp_path: Path, capsys: Capture) -> None:
    images.write(tmp_path / "good.png", PICTURE, text=TEXT)
    (tmp_path / "empty.png").touch()
    status = show_command.main([str(tmp_path / name) for name in ("missing.png", "good.png", "empty.png")])
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
        show_command.main(argv)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("npstyle: wrong usage: ")
    assert line.endswith("see npstyle show --help")


@pytest.mark.parametrize(
    "text", [{"Size": "1"}, {"x y": "1"}, {"-x": ""}, {"size;rm": "1"}, {"size": "'never closed"}, {"": "1"}]
)
def test_settings_that_npstyle_never_wrote_are_told(text: Any, tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(UserError, match="among the settings"):
        command_line(text)
    path = tmp_path / "x.png"
    images.write(path, PICTURE, text=text)
    assert show_command.main([str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"npstyle: picture: {path}: found ")


def test_a_picture_can_neither_command_the_shell_nor_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.png"
    evil = "'$(touch x)' ';' '\x1b[2J\nnext'"
    images.write(path, PICTURE, text={"content": "a", "style": "b", "weights": evil, "note": "\x1b[31m\r"})
    assert show_command.main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[-2:] == [
        "    note:     \\x1b[31m\\r",
        "    settings: npstyle a b --weights '$(touch x)' --weights ';' --weights '\\x1b[2J\\nnext'",
    ]


class Closed:
    """Standard output that takes nothing more."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def write(self, _: str) -> None:
        raise self.error

    def flush(self) -> None: ...


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.write(tmp_path / "x.png", PICTURE)
    monkeypatch.setattr(sys, "stdout", Closed(BrokenPipeError()))
    assert show_command.main([str(tmp_path / "x.png")]) == 0
    sys.stdout.close()
    monkeypatch.setattr(sys, "stdout", Closed(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="standard output: found No space left on device"):
        show_command.main([str(tmp_path / "x.png")])
    sys.stdout.close()
