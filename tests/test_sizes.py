"""Sizes of the result: longer side, exact width and height, larger than the content picture."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import npstyle
from helpers import error_line, picture, structured_picture
from npstyle import images
from npstyle.cli import main as cli
from npstyle.images import PictureWarning
from npstyle.presets import preset
from npstyle.run import Request, memory
from npstyle.run.checkpoint import fingerprint
from npstyle.run.level import Level
from npstyle.run.pyramid import level_sizes
from npstyle.weights import random_weights

Captured = pytest.CaptureFixture[str]
CONTENT, STYLE = picture(80, 120), picture(50, 40, 1)  # H, W
SETTINGS = npstyle.Settings(content_layers=("conv1_2",), style_layers=("conv1_1",), min_size=0, iterations=2)
FAST = ["--style-layers", "conv1_1", "--content-layers", "conv1_2", "--weights", "random", "--iterations"]
FAST += ["2", "--threads", "1"]


def request(**options: Any) -> Request:
    return Request.read(CONTENT, STYLE, **{"settings": SETTINGS, **options})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (120, 80)),
        ({"size": 60}, (60, 40)),
        ({"size": 60, "enlarge": True}, (60, 40)),
        ({"size": 240}, (120, 80)),
        ({"size": 10**400, "style_scale": 1e307}, (120, 80)),
        ({"size": 240, "enlarge": True}, (240, 160)),
        ({"enlarge": True}, (512, 341)),
        ({"width": 30}, (30, 20)),
        ({"height": 30}, (45, 30)),
        ({"height": 81, "enlarge": True}, (122, 81)),
        ({"width": 70, "height": 71}, (70, 71)),
        ({"width": 300, "height": 50, "enlarge": True}, (300, 50)),
    ],
)
def test_size_of_result_is_the_one_asked_for(options: dict[str, Any], expected: tuple[int, int]) -> None:
    asked = request(**options)
    assert asked.result_size == expected
    assert level_sizes(asked)[-1] == expected
    result = npstyle.stylize(CONTENT, STYLE, settings=SETTINGS, weights="random", threads=1, **options)
    assert result.image.shape == (expected[1], expected[0], 3)


@pytest.mark.parametrize(
    ("options", "name", "line"),
    [
        (
            {"width": 121},
            "width",
            "found 121 pixels; expected at most 120, the content picture's; add enlarge",
        ),
        (
            {"height": 99},
            "height",
            "found 99 pixels; expected at most 80, the content picture's; add enlarge",
        ),
        (
            {"width": 100, "height": 100},
            "width, height",
            "found 100 x 100 pixels; expected at most 80 x 80, ",
        ),
        (
            {"width": 20, "size": 20},
            "size",
            "found width, too; expected the one or the other; leave size out",
        ),
        ({"width": 2, "height": 2, "size": 2}, "size", "found width and height, too;"),
        ({"width": 0}, "width", "found 0;"),
        ({"height": 20.5}, "height", "found 20.5;"),
        (
            {"size": 10**400, "enlarge": True},
            "content",
            "found 1000000000 x 666666667 pixels;",
        ),
        ({"width": 10**400, "enlarge": True}, "content", "found 1000000000 x 666666667 pixels;"),
        ({"style_scale": 1e307, "enlarge": True}, "style", "found 800000000 x 1000000000 pixels;"),
        ({"size": 10**6, "enlarge": True}, "content", "found 1000000 x 666667 pixels; expected at most"),
    ],
)
def test_size_that_can_not_be_is_refused_with_a_cure(options: dict[str, Any], name: str, line: str) -> None:
    assert error_line(lambda: request(**options), name).startswith(line)


def test_content_and_what_belongs_to_it_are_cropped_around_the_center() -> None:
    keep, sky = (np.zeros((80, 120)) for _ in range(2))
    keep[:, 50:] = 1
    sky[:, :60] = 1
    init = picture(160, 240, 2)  # of the whole content picture, twice as large
    whole = {"keep": keep, "content_masks": [sky], "style_masks": [np.ones((50, 40))], "init": init}
    cropped = request(width=40, height=40, **whole)
    np.testing.assert_array_equal(cropped.content, CONTENT[:, 20:100])
    np.testing.assert_array_equal(cropped.keep, keep[:, 20:100])
    np.testing.assert_array_equal(cropped.content_masks[0], sky[:, 20:100])
    np.testing.assert_array_equal(cropped.init, init[:, 40:200])
    again = request(width=40, height=40, init=init[:, 40:200])  # already of these proportions
    np.testing.assert_array_equal(again.init, init[:, 40:200])
    tall = request(width=120, height=40)
    np.testing.assert_array_equal(tall.content, CONTENT[20:60])


def test_masks_outside_of_the_cropped_part_are_refused() -> None:
    mask = np.zeros((80, 120))
    mask[:, :15] = 1
    regions = {"content_masks": [mask], "style_masks": [np.ones((50, 40))]}
    for name, options in (("keep", {"keep": mask}), ("content mask 1", regions)):
        line = error_line(lambda options=options: request(width=40, height=40, **options), name)  # type: ignore[misc]
        assert line.startswith("found nothing inside of the part that is painted; expected something white")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            request(width=40, **options)


@pytest.mark.parametrize("name", ["keep", "color"])
def test_enlarged_result_keeps_what_it_is_to_keep(name: str) -> None:
    photo = structured_picture(32, 48)
    options: dict[str, Any] = {"weights": "random", "settings": SETTINGS, "size": 96, "enlarge": True}
    if name == "keep":
        keep = np.zeros((32, 48))
        keep[:, 24:] = 1
        painted = npstyle.stylize(photo, STYLE, keep=keep, **options).image
        enlarged = images.resize(photo, 96, 64)
        assert np.abs(painted[:, 56:].astype(int) - enlarged[:, 56:]).max() <= 1
        assert (painted[:, :40] != enlarged[:, :40]).any()
    else:
        options["settings"] = npstyle.Settings(style_layers=("conv1_1",), color="luma", iterations=1)
        assert npstyle.stylize(photo, STYLE, **options).image.shape == (64, 96, 3)


def test_style_pictures_are_enlarged_only_by_style_scale_and_enlarge() -> None:
    def style_size(**options: Any) -> tuple[int, int]:
        asked = request(**options)
        ((size),) = asked.style_sizes(*asked.result_size)
        return size

    assert style_size(size=240, enlarge=True) == (40, 50)
    assert style_size(size=240, enlarge=True, style_scale=1) == (192, 240)
    assert style_size(size=240, enlarge=True, style_scale=2) == (384, 480)
    assert style_size(size=60, style_scale=2) == (40, 50)
    assert style_size(width=30) == (24, 30)  # as with size=30
    assert style_size(width=60, style_scale=0.5) == (24, 30)
    assert style_size(width=20, height=30) == (24, 30)


def test_levels_of_exact_sizes_have_their_proportions() -> None:
    settings = npstyle.Settings(style_layers=("conv1_1",), content_layers=("conv1_2",), min_size=32)
    sizes = level_sizes(request(settings=settings, width=200, height=100, enlarge=True))
    assert sizes == [(35, 18), (50, 25), (71, 36), (100, 50), (141, 70), (200, 100)]
    level = Level(request(settings=settings, width=200, height=100, enlarge=True), *sizes[0])
    assert level.content.shape == (18, 35, 3)
    few = Request.read(picture(16, 16), STYLE, settings=settings, width=320, height=45, enlarge=True)
    assert few.content.shape == (2, 16, 3)
    assert level_sizes(few)[-3:] == [(160, 22), (226, 32), (320, 45)]


def test_random_filters_are_initialized_to_the_enlarged_picture() -> None:
    """The photograph alone is too small for the layers."""
    result = npstyle.stylize(
        picture(3, 3), picture(3, 3, 1), settings=preset("random"), weights="random", threads=1,
        size=64, enlarge=True, style_scale=1, iterations=1,
    )  # fmt: skip
    assert result.image.shape == (64, 64, 3)


def test_memory_of_enlarged_and_exact_sizes() -> None:
    large = Request.read(picture(160, 240), STYLE, settings=SETTINGS)
    needed = memory.run_memory(large)
    for options in ({"size": 240, "enlarge": True}, {"width": 240, "height": 160, "enlarge": True}):
        asked = request(**options)
        assert memory.run_memory(asked) == pytest.approx(needed, rel=0.01)  # the content may be a copy
        assert memory.largest_size(asked, needed) == 240
        half = memory.least_memory(asked.at_size(120))
        assert half < needed
        assert 105 <= memory.largest_size(asked, half) <= 120  # tiles overhang: not every size less is enough
        assert asked.at_size(120).result_size == (120, 80)


def test_sizes_are_part_of_the_fingerprint() -> None:
    weights = random_weights(0, "conv1_2")
    options: list[dict[str, Any]] = [{"size": 60}, {"size": 60, "enlarge": True}, {"width": 60}]
    options += [{"width": 60, "height": 40}, {"size": 60, "enlarge": True, "style_scale": 1}]
    texts = {str(sorted(fingerprint(request(**one), weights).items())) for one in options}
    assert len(texts) == len(options)


# ------------------------------------------------------------------------------------------------
# The command line
# ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a photograph that is transparent on its left, and a painting."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 48, 4), np.uint8)
    pixels[:, :, 3] = np.where(np.arange(48) < 16, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "painting.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "size", "words"),
    [
        ("--size 96 --enlarge", (96, 64), "96 x 64 pixels (enlarged from 48 x 32), "),
        ("--enlarge --width 96 --style-scale 1", (96, 64), "96 x 64 pixels (enlarged from 48 x 32), "),
        ("--height 16", (24, 16), "24 x 16 pixels, "),
        ("--width 24 --height 24", (24, 24), "24 x 24 pixels (cropped from 48 x 32), "),
        (
            "--enlarge --width 64 --height 64",
            (64, 64),
            "64 x 64 pixels (cropped and enlarged from 48 x 32), ",
        ),
    ],
)
def test_picture_of_the_size_and_its_settings(
    folder: Path, options: str, size: tuple[int, int], words: str, capsys: Captured
) -> None:
    pictures = ["photo.png", "painting.png"]
    assert cli.main([*pictures, *FAST, *options.split(), "--alpha", "-o", "out.png"]) == 0
    assert capsys.readouterr().err.startswith(words)
    painted = np.asarray(Image.open("out.png"))
    assert painted.shape == (size[1], size[0], 4)
    transparent = 1 / 3 if size[0] != size[1] else 1 / 4  # cropped to columns 8 to 40
    assert abs((painted[:, :, 3] < 128).mean() - transparent) < 0.03
    assert cli.main(["show", "out.png"]) == 0
    command = capsys.readouterr().out.partition("settings: npstyle ")[2].split()
    assert ("--size" in command) == ("--size" in options)
    assert ("--enlarge" in command) == ("--enlarge" in options)
    assert cli.main([*command, "--quiet", "-o", "again.png"]) == 0
    assert (folder / "again.png").read_bytes() == (folder / "out.png").read_bytes()


def test_size_and_exact_sizes_are_wrong_usage(folder: Path, capsys: Captured) -> None:
    for exact, found in ((["--width", "20"], "--width"), (["--height", "20"], "--height")):
        with pytest.raises(SystemExit) as caught:
            cli.main(["photo.png", "painting.png", "--size", "20", *exact])
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--size: found {found}, too; expected the one or the other; leave --size out" in line


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ("--size 4000 --enlarge", "try --size "),
        ("--width 4000 --enlarge", "try --width "),
        ("--width 4000 --height 2000 --enlarge", "try --width "),
    ],
)
def test_too_little_memory_names_the_options_that_were_given(
    folder: Path, options: str, cure: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda *_: 1e9)
    command = ["photo.png", "painting.png", *FAST]
    assert cli.main([*command, *options.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert cure in line
    fitting = line.partition("try ")[2].partition(",")[0].split()
    assert (
        fitting[::2] == [word for word in options.split()[::2] if word.startswith("--")][: len(fitting) // 2]
    )
    monkeypatch.setattr("npstyle.run.paint", lambda *_, **__: pytest.fail("far enough"))
    with pytest.raises(pytest.fail.Exception, match="far enough"):  # this size fits
        cli.main([*command, *fitting, "--enlarge"])


def test_levels_of_tiles_are_multiples_of_the_stride() -> None:
    settings = replace(preset("gram"), padding="wrap", min_size=64)
    sizes = level_sizes(request(settings=settings, width=256, height=96, enlarge=True))
    assert sizes == [(64, 32), (96, 32), (128, 48), (176, 64), (256, 96)]
    small = level_sizes(request(settings=settings, width=128, height=16, enlarge=True))
    assert small == [(128, 16)]  # nothing smaller is left of the height


def test_size_that_leaves_seams_is_named() -> None:
    settings = replace(preset("gram"), padding="wrap")
    expected = r"padding: found 90 x 60 pixels; expected multiples of 16, .*; --width 80 --height 48 has none"
    with pytest.warns(PictureWarning, match=expected):
        request(settings=settings, width=90, height=60, enlarge=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request(settings=settings, width=80, height=48, enlarge=True)
        request(width=90, height=60, enlarge=True)
