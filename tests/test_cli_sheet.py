"""`npstyle sheet`: every photograph in every style on one picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import SHALLOW as FAST
from helpers import structured_picture
from npstyle.cli import main as cli
from npstyle.cli import sheet


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for n, name in enumerate(("a.png", "b.png", "x.png", "y.png")):
        Image.fromarray(structured_picture(48, 64, n)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiles(monkeypatch: pytest.MonkeyPatch) -> list[list[list[Any]]]:
    """The tiles of every sheet that is composed from now on."""
    from npstyle.study import sheet as composing

    composed: list[list[list[Any]]] = []
    compose = composing.compose

    def compose_seen(rows: list[list[Any]]) -> Any:
        composed.append(rows)
        return compose(rows)

    monkeypatch.setattr(composing, "compose", compose_seen)
    return composed


def test_sheet_has_contents_styles_and_what_is_painted_of_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    composed = tiles(monkeypatch)
    assert cli.main(["sheet", "a.png", "b.png", "--styles", "x.png", "y.png", "--size", "40", *FAST]) == 0
    (rows,) = composed
    assert [[tile.caption for tile in row] for row in rows] == [
        ["", "x.png", "y.png"],
        ["a.png", "", ""],
        ["b.png", "", ""],
    ]
    for n, content in enumerate("ab", 1):
        for m, style in enumerate("xy", 1):
            single = ["-o", "single.png", "--size", "40", "--quiet", "--overwrite"]
            assert cli.main([f"{content}.png", f"{style}.png", *single, *FAST]) == 0
            with Image.open("single.png") as image:
                np.testing.assert_array_equal(rows[n][m].image, image)
    with Image.open("sheet.png") as image:
        assert capsys.readouterr().out.startswith(
            f"sheet.png: 4 of 4 pictures, {image.size[0]} x {image.size[1]}"
        )


def test_sheet_is_small_and_quick_by_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def see(options: Any, _: object) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(sheet, "_sheet", see)
    for words in ([], ["--preset", "gram"], ["--width", "50"], ["--iterations", "3", "--size", "99"]):
        assert cli.main(["sheet", "a.png", "--styles", "x.png", *words]) == 0
    assert [(one.size, one.width, one.iterations) for one in seen] == [
        (sheet.SIZE, None, sheet.ITERATIONS),
        (sheet.SIZE, None, None),
        (None, 50, sheet.ITERATIONS),
        (99, None, 3),
    ]


def test_a_failure_costs_one_tile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.png").write_bytes(Path("a.png").read_bytes()[:200])
    composed = tiles(monkeypatch)
    words = ["sheet", "a.png", "broken.png", "--styles", "x.png", "-o", "out.jpg"]
    assert cli.main([*words, *FAST]) == 1
    assert [[tile.caption for tile in row] for row in composed[0]] == [
        ["", "x.png"],
        ["a.png", ""],
        ["broken.png: can't be read", "failed"],
    ]
    out, err = capsys.readouterr()
    assert out.startswith("out.jpg: 1 of 2 pictures")
    assert "npstyle: broken.png with x.png: picture: broken.png: found a damaged file" in err
    os.unlink("out.jpg")
    assert cli.main(["sheet", "broken.png", "--styles", "x.png", "-o", "out.jpg", *FAST]) == 1
    assert "output: out.jpg: found no picture to put on it" in capsys.readouterr().err
    assert not Path("out.jpg").exists()


def test_sheet_replaces_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("b.png").read_bytes()
    assert cli.main(["sheet", "a.png", "--styles", "x.png", "-o", "b.png", *FAST]) == 1
    assert "output: b.png: found a file of that name" in capsys.readouterr().err
    assert Path("b.png").read_bytes() == before


def test_interrupted_sheet_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("npstyle.cli.many.BatchBar.part", interrupt)
    assert cli.main(["sheet", "a.png", "--styles", "x.png", *FAST]) == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err
    assert not Path("sheet.png").exists()
