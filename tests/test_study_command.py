"""`npstyle reconstruct`, `texture`, `figure` and `inspect`: what they write, print, and how they exit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npstyle import UserError, images, study
from npstyle.cli import study as study_command
from npstyle.cli.study import FIGURES, main_figure, main_inspect, main_reconstruct, main_texture
from npstyle.weights import Weights, random_weights, write_weights

Capture = pytest.CaptureFixture[str]
Main = Callable[[list[str]], int]


@pytest.fixture(scope="module")
def filters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of filters up to conv2_2, as if they were trained: not calibrated."""
    layers = dict(random_weights(0, "conv2_2"))
    return write_weights(
        tmp_path_factory.mktemp("filters") / "filters.npz", Weights(layers, "here", preprocessing="caffe")
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a photograph and a painting."""
    rng = np.random.default_rng(0)
    for name, shape in (("photo.png", (24, 32, 3)), ("painting.png", (30, 20, 3))):
        images.write(tmp_path / name, rng.integers(0, 256, shape, dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(text: str, filters: Path) -> list[str]:
    return [*text.split(), "--weights", str(filters), "--threads", "1"]


def test_reconstruct_writes_what_the_library_makes(here: Path, filters: Path, capsys: Capture) -> None:
    assert main_reconstruct(words("photo.png --layer conv1_1 --iterations 3 --seed 5", filters)) == 0
    photo = images.read("photo.png")
    expected = study.reconstruct(photo, "conv1_1", weights=filters, iterations=3, seed=5)
    assert np.array_equal(images.read("photo-conv1_1.png"), expected.image)
    out, err = capsys.readouterr()
    assert out.startswith("photo-conv1_1.png: 32 x 24 pixels, did the 3 iterations asked for in ")
    assert out.rstrip().endswith(f"-> {expected.loss:.4g}")
    assert err == ""


def test_options_of_reconstruct_reach_the_run(here: Path, filters: Path, capsys: Capture) -> None:
    given = "photo.png --layer relu2_1 --iterations 2 --size 24 --init painting.png --tv-weight 0.5 -o x.png"
    assert main_reconstruct(words(f"{given} --quiet", filters)) == 0
    expected = study.reconstruct(
        "photo.png", "conv2_1", weights=filters, iterations=2, size=24, init="painting.png", tv_weight=0.5
    )
    assert np.array_equal(images.read("x.png"), expected.image)
    assert capsys.readouterr() == ("", "")


def test_texture_of_any_size(here: Path, filters: Path, capsys: Capture) -> None:
    assert main_texture(words("painting.png --width 40 --height 17 --iterations 2", filters)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("painting-texture.png: 40 x 17 pixels")
    assert err == "npstyle: left out: conv3_1, conv4_1, conv5_1, which the weights do not have\n"
    options: dict[str, Any] = {"weights": filters, "iterations": 2, "width": 40, "height": 17}
    expected = study.texture("painting.png", "conv1_1,conv2_1", **options)
    assert np.array_equal(images.read("painting-texture.png"), expected.image)
    assert main_texture(words("painting.png --layers conv1_2 --iterations 1 -o x.png", filters)) == 0
    assert images.read("x.png").shape == (30, 20, 3)
    assert capsys.readouterr().err == ""


def test_the_figures_of_the_command_are_those_of_the_library() -> None:
    assert list(FIGURES) == list(study.FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_made(name: str, here: Path, filters: Path, capsys: Capture) -> None:
    style = " painting.png" if FIGURES[name][0] else ""
    assert main_figure(words(f"{name} photo.png{style} --iterations 1", filters)) == 0
    out, err = capsys.readouterr()
    rows, notes = study.plan(name, random_weights(0, "conv2_2"), 1)
    H, W, _ = study.blank_figure(rows, images.read("photo.png")).shape
    made = [panel for row in rows for panel in row if panel.settings]
    assert out.startswith(f"photo-{name}.png: {W} x ")
    assert f" {len(made)} panels made in " in out
    told = [f"{n} of {len(made)}: {panel.caption}" for n, panel in enumerate(made, 1)]
    assert err.splitlines() == [*(f"npstyle: {note}" for note in notes), *told]
    picture = images.read(f"photo-{name}.png")
    assert picture.shape[1] == W
    assert picture.shape[0] >= H


def test_inspect_fills_a_folder(here: Path, filters: Path, capsys: Capture) -> None:
    given = words("photo.png painting.png --layer conv1_1,conv2_1 -o seen --channels 4", filters)
    assert main_inspect(given) == 0
    names = study.names_of_pictures(["conv1_1", "conv2_1"])
    assert sorted(path.name for path in (here / "seen").iterdir()) == sorted(f"{n}.png" for n in names)
    out, err = capsys.readouterr()
    photo, painting = images.read("photo.png"), images.read("painting.png")
    layers = ["conv1_1", "conv2_1"]
    expected = study.inspect(photo, painting, layers, random_weights(0, "conv2_2"), channels=4)
    assert out.splitlines()[: len(expected.table)] == expected.table
    for name in names:
        assert np.array_equal(images.read(f"seen/{name}.png"), expected.pictures[name])
    assert err == ""
    with pytest.raises(UserError, match=r"output: seen/receptive-fields\.png: found a file of that name"):
        main_inspect(given)
    assert main_inspect([*given, "--overwrite", "--at", "painting.png"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [float(row[1]) > 0 for row in rows if row and row[0] == "content/conv2_1"] == [True]


def test_inspect_takes_the_layers_there_are(here: Path, filters: Path, capsys: Capture) -> None:
    assert main_inspect(words("photo.png --channels 1", filters)) == 0
    assert (here / "photo-inspected" / "gram-conv2_1.png").is_file()
    assert capsys.readouterr().err.startswith("npstyle: left out: conv3_1, conv4_1, conv5_1")


def test_random_filters_do_as_well(here: Path, capsys: Capture) -> None:
    given = ["--weights", "random", "--quiet", "--iterations", "1"]
    assert main_reconstruct(["photo.png", "--layer", "conv1_1", *given]) == 0
    assert main_figure(["content-layer", "photo.png", "painting.png", *given]) == 0
    assert main_inspect(["photo.png", "--weights", "random", "--layer", "conv1_1", "--channels", "1"]) == 0
    assert capsys.readouterr().err == ""


USAGE: list[tuple[Main, str, str]] = [
    (main_reconstruct, "photo.png", "the following arguments are required: --layer"),
    (main_reconstruct, "photo.png --layer conv7_1", "found 'conv7_1'; expected conv1_1 ... conv5_4"),
    (main_reconstruct, "photo.png --layer conv1_1 --size 8", "expected an integer from 16"),
    (main_reconstruct, "photo.png --layer conv1_1 --iterations x", "found 'x'; expected an integer"),
    (main_reconstruct, "photo.png --layer conv1_1 --tv-weight -1", "expected a finite number from 0"),
    (main_texture, "photo.png --layers ,", "found none; expected at least one"),
    (main_texture, "photo.png --width 3", "expected an integer from 16"),
    (main_figure, "everything photo.png", "invalid choice: 'everything'"),
    (main_figure, "ratio photo.png", "ratio: found no STYLE"),
    (main_figure, "content photo.png painting.png", "content: found STYLE"),
    (main_inspect, "photo.png --layer conv1_9", "did you mean"),
    (main_inspect, "photo.png --channels 0", "expected an integer from 1"),
]


@pytest.mark.parametrize(("main", "text", "message"), USAGE)
def test_wrong_usage(main: Main, text: str, message: str, here: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(text.split())
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("npstyle: wrong usage: ")
    assert message in line
    assert line.endswith(" --help")


WRONG: list[tuple[Main, str, str]] = [
    (main_reconstruct, "missing.png --layer conv1_1", "picture: missing.png: found no such file"),
    (main_reconstruct, "photo.png --layer conv1_1 -o x.gif", "output: x.gif: found the extension '.gif'"),
    (main_reconstruct, "photo.png --layer conv1_1 -o photo.png", "output: photo.png: found a file of that"),
    (main_reconstruct, "photo.png --layer conv1_1 -o no/x.png", "output: no/x.png: found No such file"),
    (main_reconstruct, "photo.png --layer conv3_1", "weights: found no conv3_1"),
    (
        main_reconstruct,
        "photo.png --layer conv1_1 --init noisy",
        "--init: noisy: found no such file; expected",
    ),
    (main_reconstruct, "photo.png --layer pool5", "picture: photo.png: found 32 x 24 pixels"),
    (main_texture, "photo.png --layers conv3_1", "weights: found no conv3_1"),
    (main_texture, "photo.png --layers conv1_1 --width 70000 -o x.jpg", "output: x.jpg: found 70000 x 24"),
    (main_figure, "layers photo.png missing.png", "picture: missing.png: found no such file"),
    (main_inspect, "photo.png -o no/folder", "output: no/folder: found No such file"),
    (main_inspect, "photo.png -o photo.png", "output: photo.png: found File exists"),
    (main_inspect, "photo.png --at missing.png", "picture: missing.png: found no such file"),
    (main_inspect, "photo.png --layer conv1_1,conv3_1", "weights: found no conv3_1"),
]


@pytest.mark.parametrize(("main", "text", "message"), WRONG)
def test_what_can_not_be_done_is_told(
    main: Main, text: str, message: str, here: Path, filters: Path, capsys: Capture
) -> None:
    before = sorted(here.iterdir())
    with pytest.raises(UserError) as caught:
        main(words(text, filters))
    assert str(caught.value).startswith(message)
    assert sorted(here.iterdir()) == before


def test_ctrl_c_saves_the_picture_so_far(
    here: Path, filters: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Any, progress: Any) -> None:
        if progress.iteration == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(study_command._Bar, "step", interrupt)
    monkeypatch.setattr(study_command._Bar, "panel", lambda self, number, panel, at: interrupt(self, at))
    assert main_reconstruct(words("photo.png --layer conv1_1", filters)) == 130
    assert "interrupted after 2 iterations" in capsys.readouterr().out
    assert images.read("photo-conv1_1.png").shape == (24, 32, 3)
    assert main_texture(words("photo.png --layers conv1_1", filters)) == 130
    assert images.read("photo-texture.png").shape == (24, 32, 3)
    assert main_figure(words("content photo.png", filters)) == 130
    assert "interrupted, with the panels so far" in capsys.readouterr().out
    figure = images.read("photo-content.png")
    assert (figure[study.GAP :][:24, study.GAP + 2 * (32 + study.GAP) :] == 255).all()


def test_an_output_that_is_there_is_replaced_if_asked(here: Path, filters: Path) -> None:
    given = words("photo.png --layer conv1_1 --iterations 0 -o painting.png", filters)
    with pytest.raises(UserError, match="a file of that name"):
        main_reconstruct(given)
    assert main_reconstruct([*given, "--overwrite"]) == 0
    assert images.read("painting.png").shape == (24, 32, 3)
