"""`npstyle reconstruct`, `texture`, `figure` and `inspect`: what they write, print, and how they exit."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import without_openmp
from npstyle import UserError, images, study
from npstyle._runtime import threads
from npstyle.cli.inspect import main as main_inspect
from npstyle.cli.progress import ProgressBar
from npstyle.cli.study import FIGURES, main_figure, main_reconstruct, main_texture
from npstyle.cli.weights import main as main_weights
from npstyle.weights import Weights, random_weights, write_weights

Capture = pytest.CaptureFixture[str]
Main = Callable[[list[str]], int]


@pytest.fixture(scope="module")
def filters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of filters up to conv2_2, used as they are, like trained ones."""
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


def test_reconstruct_writes_the_picture_of_the_library(here: Path, filters: Path, capsys: Capture) -> None:
    assert main_reconstruct(words("photo.png --layer conv1_1 --iterations 3 --seed 5", filters)) == 0
    photo = images.read("photo.png")
    expected = study.reconstruct(photo, "conv1_1", weights=filters, iterations=3, seed=5)
    assert np.array_equal(images.read("photo-conv1_1.png"), expected.image)
    out, err = capsys.readouterr()
    assert out.startswith("photo-conv1_1.png: 32 x 24 pixels, did the 3 iterations asked for in ")
    assert out.rstrip().endswith(f"-> {expected.loss:.4g}")
    assert re.fullmatch(r"32 x 24 pixels, 3 iterations: about \d+ MB of memory\nfilters: .*\n", err)


def test_options_of_reconstruct_reach_the_run(here: Path, filters: Path, capsys: Capture) -> None:
    text = "photo.png --layer relu2_1 --iterations 2 --size 24 --init painting.png --tv-weight 0.5 -o x.png"
    assert main_reconstruct(words(f"{text} --quiet", filters)) == 0
    expected = study.reconstruct(
        "photo.png", "conv2_1", weights=filters, iterations=2, size=24, init="painting.png", tv_weight=0.5
    )
    assert np.array_equal(images.read("x.png"), expected.image)
    assert capsys.readouterr() == ("", "")


def test_texture_of_another_size(here: Path, filters: Path, capsys: Capture) -> None:
    assert main_texture(words("painting.png --width 40 --height 17 --iterations 2", filters)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("painting-texture.png: 40 x 17 pixels")
    left_out, memory, source = err.splitlines()
    assert source == f"filters: {filters}"
    assert left_out == "npstyle: left out: conv3_1, conv4_1, conv5_1, which the weights do not have"
    assert memory.startswith("40 x 17 pixels, 2 iterations: about ")
    options: dict[str, Any] = {"weights": filters, "iterations": 2, "width": 40, "height": 17}
    expected = study.texture("painting.png", "conv1_1,conv2_1", **options)
    assert np.array_equal(images.read("painting-texture.png"), expected.image)
    assert main_texture(words("painting.png --layers conv1_2 --iterations 1 -o x.png", filters)) == 0
    assert images.read("x.png").shape == (30, 20, 3)
    assert capsys.readouterr().err.startswith("20 x 30 pixels, 1 iteration: about ")


def test_figures_of_the_command_are_those_of_the_library() -> None:
    assert list(FIGURES) == list(study.FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_figure_writes_all_panels(name: str, here: Path, filters: Path, capsys: Capture) -> None:
    style = " painting.png" if FIGURES[name][0] else ""
    assert main_figure(words(f"{name} photo.png{style} --iterations 1", filters)) == 0
    out, err = capsys.readouterr()
    rows, notes = study.plan(name, random_weights(0, "conv2_2"), 1)
    H, W, _ = study.blank_figure(rows, images.read("photo.png")).shape
    panels = [panel for row in rows for panel in row if panel.settings]
    assert out.startswith(f"photo-{name}.png: {W} x ")
    panels_made = f"{len(panels)} panel" + "s" * (len(panels) > 1)
    assert f" {panels_made} made in " in out
    progress = [f"{n} of {len(panels)}: {panel.caption}" for n, panel in enumerate(panels, 1)]
    lines = err.splitlines()
    memory = lines.pop(len(notes))
    assert lines.pop(len(notes)) == f"filters: {filters}"
    assert memory.startswith(f"{panels_made} of 32 x 24 pixels, 1 iteration each: about ")
    assert lines == [*(f"npstyle: {note}" for note in notes), *progress]
    picture = images.read(f"photo-{name}.png")
    assert picture.shape[1] == W
    assert picture.shape[0] >= H


def test_inspect_writes_a_folder_of_pictures_and_a_table(here: Path, filters: Path, capsys: Capture) -> None:
    arguments = words("photo.png painting.png --layers conv1_1,conv2_1 -o seen --channels 4", filters)
    assert main_inspect(arguments) == 0
    names = study.picture_names(["conv1_1", "conv2_1"])
    assert sorted(path.name for path in (here / "seen").iterdir()) == sorted(f"{n}.png" for n in names)
    out, err = capsys.readouterr()
    photo, painting = images.read("photo.png"), images.read("painting.png")
    layers = ["conv1_1", "conv2_1"]
    expected = study.inspect(photo, painting, layers, random_weights(0, "conv2_2"), channels=4)
    assert out.splitlines()[: len(expected.table)] == expected.table
    for name in names:
        assert np.array_equal(images.read(f"seen/{name}.png"), expected.pictures[name])
    assert re.fullmatch(r"32 x 24 pixels, 2 layers: about \d+ MB of memory\nfilters: .*\n", err)
    with pytest.raises(UserError, match=r"output: seen/receptive-fields\.png: found a file of that name"):
        main_inspect(arguments)
    assert main_inspect([*arguments, "--overwrite", "--at", "painting.png"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [float(row[1]) > 0 for row in rows if row and row[0] == "content/conv2_1"] == [True]


def test_inspect_leaves_out_missing_layers(here: Path, filters: Path, capsys: Capture) -> None:
    assert main_inspect(words("photo.png --channels 1", filters)) == 0
    assert (here / "photo-inspected" / "gram-conv2_1.png").is_file()
    assert capsys.readouterr().err.startswith("npstyle: left out: conv3_1, conv4_1, conv5_1")


def test_study_commands_run_with_random_filters(here: Path, capsys: Capture) -> None:
    arguments = ["--weights", "random", "--quiet", "--iterations", "1"]
    assert main_reconstruct(["photo.png", "--layer", "conv1_1", *arguments]) == 0
    assert main_figure(["content-layer", "photo.png", "painting.png", *arguments]) == 0
    inspected = ["photo.png", "--layers", "conv1_1", "--channels", "1"]
    assert main_inspect([*inspected, "--weights", "random", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


SHORT_RUNS: list[tuple[Main, str]] = [
    (main_reconstruct, "photo.png --layer conv1_1 --iterations 0 --quiet"),
    (main_texture, "photo.png --layers conv1_1 --iterations 0 --quiet"),
    (main_figure, "content photo.png --iterations 0 --quiet"),
    (main_inspect, "photo.png --layers conv1_1 --channels 1 --quiet"),
]


@pytest.mark.parametrize(("main", "text"), SHORT_RUNS)
def test_random_filters_warning_is_framed(
    main: Main, text: str, here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in commands other than the main job, with --quiet, and once."""
    assert main(text.split()) == 0
    lines = capsys.readouterr().err.splitlines()
    rule = "=" * 78
    assert (lines[0], lines[-1], lines.count(rule)) == (rule, rule, 2)
    assert lines[1].startswith("npstyle: WARNING: ")
    assert "RANDOM FILTERS" in lines[1]


@pytest.mark.parametrize(("main", "text"), SHORT_RUNS)
@pytest.mark.parametrize(("threads", "cores", "lines"), [(None, 4, 1), (2, 1, 1), (1, 4, 0), (None, 1, 0)])
def test_one_thread_without_openmp_is_announced(
    main: Main,
    text: str,
    threads: int | None,
    cores: int,
    lines: int,
    here: Path,
    filters: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also without --threads, where there is more than one core to use."""
    without_openmp(cores, monkeypatch)
    options = ["--weights", str(filters), *([] if threads is None else ["--threads", str(threads)])]
    assert main([*text.split(), *options]) == 0
    messages = [line for line in capsys.readouterr().err.splitlines() if "OpenMP" in line]
    assert len(messages) == lines
    assert all("built without OpenMP" in line for line in messages)


@pytest.mark.parametrize(("main", "text"), SHORT_RUNS)
@pytest.mark.parametrize("random", [False, True])
def test_threads_are_those_that_are_asked_for(
    main: Main, text: str, random: bool, here: Path, filters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every step, also where random filters are initialized."""

    def default() -> int:
        raise AssertionError("not the number that was asked for")

    monkeypatch.setattr(threads, "default", default)
    weights = "random" if random else str(filters)
    assert main([*text.split(), "--threads", "1", "--weights", weights]) == 0


def test_tile_is_the_library_s_and_shown_two_by_two(here: Path, filters: Path, capsys: Capture) -> None:
    layers = "conv1_1,conv2_1"
    arguments = words(f"photo.png --tile --layers {layers} --width 48 --iterations 2", filters)
    assert main_texture(arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("photo-texture.png: 48 x 32 pixels")
    assert out.endswith("photo-texture-2x2.png: the same, 2 x 2\n")
    assert err.startswith("48 x 32 pixels (rounded for --tile), 2 iterations")
    expected = study.texture("photo.png", layers, width=48, weights=filters, iterations=2, tile=True)
    assert np.array_equal(images.read("photo-texture.png"), expected.image)
    four = images.read("photo-texture-2x2.png")
    assert np.array_equal(four, np.tile(expected.image, (2, 2, 1)))
    plain = study.texture("photo.png", layers, width=48, height=32, weights=filters, iterations=2)
    assert not np.array_equal(plain.image, expected.image)
    assert images.read_text("photo-texture.png")["tile"] == ""
    assert main_texture(words("photo.png --layers conv1_1 --iterations 0 -o x.png", filters)) == 0
    assert not {"tile", "no-tile"} & images.read_text("x.png").keys()
    assert not (here / "x-2x2.png").exists()


def test_four_tiles_replace_nothing(here: Path, filters: Path) -> None:
    tile = "--tile --layers conv1_1 --iterations 0 -o new.png"
    images.write(here / "new-2x2.png", images.read("photo.png"))
    before = (here / "new-2x2.png").read_bytes()
    with pytest.raises(UserError, match=r"--tile: .*: found a file of that name"):
        main_texture(words(f"photo.png {tile}", filters))
    for pictures in ("new-2x2.png", "photo.png --init new-2x2.png"):
        with pytest.raises(UserError, match=r"--tile: .*: found a file that this command"):
            main_texture(words(f"{pictures} {tile} --overwrite", filters))
    assert (here / "new-2x2.png").read_bytes() == before
    assert not (here / "new.png").exists()
    assert main_texture(words(f"photo.png {tile} --overwrite", filters)) == 0
    assert images.read("new-2x2.png").shape == (64, 64, 3)


# Every option and argument of these commands that names a picture, here X.
PICTURES: list[tuple[Main, str]] = [
    (main_reconstruct, "X --layer conv1_1 --iterations 0"),
    (main_reconstruct, "photo.png --layer conv1_1 --iterations 0 --init X"),
    (main_texture, "X --layers conv1_1 --iterations 0"),
    (main_texture, "photo.png --layers conv1_1 --iterations 0 --init X"),
    (main_figure, "content X --iterations 0"),
    (main_figure, "starts photo.png X --iterations 0"),
    (main_inspect, "X --layers conv1_1 --channels 1"),
    (main_inspect, "photo.png X --layers conv1_1 --channels 1"),
    (main_inspect, "photo.png --at X --layers conv1_1 --channels 1"),
    (main_weights, "normalize filters.npz photo.png X"),
]


@pytest.mark.parametrize(("main", "text"), PICTURES)
def test_every_picture_is_read_with_the_same_care(
    main: Main, text: str, here: Path, filters: Path, capsys: Capture
) -> None:
    """A camera's RAW file is refused, and what is clipped of an HDR picture is said, once."""
    (here / "raw.tif").write_bytes(b"FUJIFILMCCD-RAW 0201" + bytes(200))
    lights = np.full((24, 32), 0.2, np.float32)
    lights[0, :2] = 40
    Image.fromarray(lights).save(here / "hdr.tif")
    (here / "filters.npz").write_bytes(filters.read_bytes())
    output = "out.npz" if main is main_weights else "out" if main is main_inspect else "out.png"
    options = [] if main is main_weights else ["--weights", "filters.npz"]
    options += ["--threads", "1", "--quiet", "-o", output]
    before = sorted(here.iterdir())
    with pytest.raises(UserError, match="found a camera's RAW file"):
        main([*text.replace("X", "raw.tif").split(), *options])
    assert sorted(here.iterdir()) == before
    assert main([*text.replace("X", "hdr.tif").split(), *options]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "of the values are beyond white" in line]) == 1


USAGE: list[tuple[Main, str, str]] = [
    (main_reconstruct, "photo.png", "the following arguments are required: --layer"),
    (main_reconstruct, "photo.png --layer conv7_1", "found 'conv7_1'; expected conv1_1 ... conv5_4"),
    (main_reconstruct, "photo.png --layer conv1_1 --size 8", "expected an integer from 16"),
    (main_reconstruct, "photo.png --layer conv1_1 --iterations x", "found 'x'; expected an integer"),
    (main_reconstruct, "photo.png --layer conv1_1 --tv-weight -1", "expected a finite number from 0"),
    (main_texture, "photo.png --layers ,", "found ','; expected at least one layer"),
    (main_texture, "photo.png --width 3", "expected an integer from 16"),
    (main_figure, "everything photo.png", "invalid choice: 'everything'"),
    (main_figure, "ratio photo.png", "ratio: found no STYLE"),
    (main_figure, "content photo.png painting.png", "content: found STYLE"),
    (main_inspect, "photo.png --layers conv1_9", "did you mean"),
    (main_inspect, "photo.png --channels 0", "expected an integer from 1"),
]


@pytest.mark.parametrize(("main", "text", "message"), USAGE)
def test_wrong_usage_is_one_line(main: Main, text: str, message: str, here: Path, capsys: Capture) -> None:
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
    (
        main_texture,
        "photo.png --tile --width 100",
        "width: found 100; expected a multiple of 16, for a tile; give 96 or 112",
    ),
    (main_inspect, "photo.png -o no/folder", "output: no/folder: found no folder to make it in"),
    (main_inspect, "photo.png -o photo.png", "output: photo.png: found a file; expected a folder"),
    (main_inspect, "photo.png --at missing.png", "picture: missing.png: found no such file"),
    (main_inspect, "photo.png --layers conv1_1,conv3_1", "weights: found no conv3_1"),
]


@pytest.mark.parametrize(("main", "text", "message"), WRONG)
def test_errors_leave_no_files(
    main: Main, text: str, message: str, here: Path, filters: Path, capsys: Capture
) -> None:
    before = sorted(here.iterdir())
    with pytest.raises(UserError) as caught:
        main(words(text, filters))
    assert str(caught.value).startswith(message)
    assert sorted(here.iterdir()) == before


def test_ctrl_c_saves_picture(
    here: Path, filters: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Any, progress: Any) -> None:
        if progress.iteration == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "update", interrupt)
    assert main_reconstruct(words("photo.png --layer conv1_1", filters)) == 130
    assert "interrupted after 2 iterations" in capsys.readouterr().out
    assert images.read("photo-conv1_1.png").shape == (24, 32, 3)
    assert main_texture(words("photo.png --layers conv1_1", filters)) == 130
    assert images.read("photo-texture.png").shape == (24, 32, 3)
    assert main_figure(words("content photo.png", filters)) == 130
    assert "interrupted, with the panels made so far" in capsys.readouterr().out
    figure = images.read("photo-content.png")
    assert (figure[study.GAP :][:24, study.GAP + 2 * (32 + study.GAP) :] == 255).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_figure_has_the_panels_made_so_far(
    number: int, here: Path, filters: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished ones as in the whole figure, the present one as far as it is, the others blank."""
    assert (
        main_figure(words("starts photo.png painting.png --iterations 2 -o whole.png --quiet", filters)) == 0
    )
    update = ProgressBar.update_panel

    def interrupt(self: Any, panel: int, *arguments: Any) -> None:
        update(self, panel, *arguments)
        if panel == 2 and arguments[1].iteration == 1:
            signal.raise_signal(number)

    monkeypatch.setattr(ProgressBar, "update_panel", interrupt)
    status = main_figure(words("starts photo.png painting.png --iterations 2 -o part.png", filters))
    assert status == 128 + number
    assert "interrupted, with the panels made so far" in capsys.readouterr().out
    whole, part = images.read("whole.png"), images.read("part.png")
    assert whole.shape == part.shape
    panels = [
        [image[study.GAP :][:24, study.GAP + column * (32 + study.GAP) :][:, :32] for column in range(2, 5)]
        for image in (whole, part)
    ]
    equal = [np.array_equal(one, other) for one, other in zip(*panels, strict=True)]
    blank = [bool((panel == 255).all()) for panel in panels[1]]
    assert equal == [True, False, False]
    assert blank == [False, False, True]
    assert images.read_text("part.png")["note"] == "interrupted, with the panels made so far"


def test_overwrite_replaces_output(here: Path, filters: Path) -> None:
    arguments = words("photo.png --layer conv1_1 --iterations 0 -o painting.png", filters)
    with pytest.raises(UserError, match="a file of that name"):
        main_reconstruct(arguments)
    assert main_reconstruct([*arguments, "--overwrite"]) == 0
    assert images.read("painting.png").shape == (24, 32, 3)
