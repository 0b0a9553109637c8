"""`-`, `--format` and `--json`: pictures and results through standard input and output."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers import SHALLOW as FAST
from helpers import structured_picture
from npstyle.cli import main as cli


class Stream:
    """A standard stream of bytes, that is no terminal unless it is said to be."""

    def __init__(self, data: bytes = b"", terminal: bool = False) -> None:
        self.buffer = io.BytesIO(data)
        self.isatty = lambda: terminal

    def write(self, text: str) -> int:
        return self.buffer.write(text.encode())

    def flush(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for n, name in enumerate(("photo.png", "painting.png")):
        Image.fromarray(structured_picture(24, 32, n)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def through(monkeypatch: pytest.MonkeyPatch, data: bytes, *words: str) -> bytes:
    """What a command that succeeds writes to standard output, with the data on standard input."""
    output = Stream()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Stream(data))
        patch.setattr(sys, "stdout", output)
        assert cli.main([*words, *FAST]) == 0
    return output.buffer.getvalue()


@pytest.mark.parametrize("end", ["png", "jpg", "webp", "tif"])
def test_picture_through_standard_streams(folder: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    data = Path("photo.png").read_bytes()
    form = [] if end == "png" else ["--format", end]
    written = through(monkeypatch, data, "-", "painting.png", "-o", "-", *form, "--quiet")
    assert cli.main(["photo.png", "painting.png", "-o", f"out.{end}", "--quiet", *FAST]) == 0
    one, other = (Image.open(file) for file in (io.BytesIO(written), f"out.{end}"))
    with one, other:
        assert one.format == other.format
        assert one.tobytes() == other.tobytes()


def test_nothing_but_the_picture_on_standard_output(folder: Path) -> None:
    command = [sys.executable, "-m", "npstyle", "photo.png", "-", "-o", "-", *FAST]
    done = subprocess.run(command, input=Path("painting.png").read_bytes(), capture_output=True, check=True)
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert image.size == (32, 24)
    assert b"32 x 24 pixels, did the 1 iteration asked for" in done.stderr


def test_name_of_the_picture_of_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    through(monkeypatch, Path("photo.png").read_bytes(), "-", "painting.png", "--quiet")
    assert Path("stdin-painting.png").is_file()


def test_show_names_standard_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    through(monkeypatch, Path("photo.png").read_bytes(), "-", "painting.png", "-o", "out.png")
    assert cli.main(["show", "out.png"]) == 0
    assert "npstyle - painting.png --size 512" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-", "-"], "-: found it twice; expected one picture on standard input"),
        (["photo.png", "painting.png", "--format", "jpg"], "--format: found no -o -"),
        (["photo.png", "painting.png", "-o", "-", "--json"], "--json: found -o -, too"),
        (["photo.png", "painting.png", "-o", "-", "--save-every", "1"], "--save-every: found -o -"),
    ],
)
def test_streams_that_would_be_two_things(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*words, *FAST])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "picture: standard input: found an empty file"),
        (b"no picture", "picture: standard input: found a file that is not a picture"),
    ],
)
def test_standard_input_without_a_picture(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: bytes,
    message: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(data))
    assert cli.main(["-", "painting.png", *FAST]) == 1
    assert message in capsys.readouterr().err


def test_terminals_are_no_pictures(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Stream(terminal=True))
        assert cli.main(["-", "painting.png", *FAST]) == 1
        patch.setattr(sys, "stdout", Stream(terminal=True))
        assert cli.main(["photo.png", "painting.png", "-o", "-", *FAST]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("npstyle: picture: -: found a terminal; expected a picture on standard input")
    assert second.startswith("npstyle: standard output: found a terminal; expected a file or a pipe")


def test_picture_is_in_temporary_folder_if_the_reader_is_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Closed(Stream):
        def flush(self) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    os.mkdir("tmp")
    monkeypatch.setattr("tempfile.gettempdir", lambda: folder / "tmp")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Closed())
        assert cli.main(["photo.png", "painting.png", "-o", "-", "--quiet", *FAST]) == 1
        sys.stdout.close()  # it leads nowhere now
    (refuge,) = Path("tmp").iterdir()
    line = capsys.readouterr().err.splitlines()[-1]
    assert "Broken pipe on writing" in line
    assert str(refuge.name) in line
    with Image.open(refuge) as image:
        assert image.size == (32, 24)


def test_json_of_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["photo.png", "painting.png", "-o", "out.png", "--json", *FAST]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found["output"], found["content"], found["styles"]) == ("out.png", "photo.png", ["painting.png"])
    assert (found["outcome"], found["width"], found["height"], found["iterations"]) == ("done", 32, 24, 1)
    assert found["loss"] < found["first_loss"]
    assert found["filters"].startswith("random filters")
