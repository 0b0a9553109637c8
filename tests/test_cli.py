"""The command line of the main job: what it writes and prints, its errors, signals and exit status."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import npstyle
from helpers import refusal, run_program, without_openmp
from npstyle import preset
from npstyle.cli import interrupts, recipe
from npstyle.cli import main as cli
from npstyle.cli.paint import check_run_memory, painting_parser
from npstyle.cli.progress import ProgressBar, _format_duration
from npstyle.errors import UserError
from npstyle.presets import PRESETS
from npstyle.run import Request, memory

FAST = [
    "--weights",
    "random",
    "--iterations",
    "2",
    "--style-layers",
    "conv1_1",
    "--content-layers",
    "conv1_2",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a photograph and a painting."""
    rng = np.random.default_rng(0)
    for name, shape in (("photo.png", (32, 48, 3)), ("painting.png", (40, 40, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / name)
    return tmp_path


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """As `run_program` in `folder`, but in this process, which is ten times as fast to start."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        try:
            status: Any = cli.main(list(arguments))
        except SystemExit as end:  # wrong usage
            status = end.code
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run


def test_picture_and_lines_of_the_main_job(folder: Path) -> None:
    done = run_program(folder, "photo.png", "painting.png", *FAST)
    assert done.returncode == 0, done.stderr
    memory, filters = done.stderr.splitlines()
    assert filters == "filters: random filters (seed 0)"
    assert re.fullmatch(r"48 x 32 pixels, 2 iterations: about \d\d MB of memory", memory)
    assert done.stdout.startswith("photo-painting.png: 48 x 32 pixels, did the 2 iterations asked for")
    with Image.open(folder / "photo-painting.png") as image:
        assert (image.size, image.mode) == ((48, 32), "RGB")
    assert sorted(path.name for path in folder.iterdir()) == [
        "painting.png",
        "photo-painting.png",
        "photo.png",
    ]


def test_options_reach_the_run(folder: Path, run_here: Run) -> None:
    arguments = ["photo.png", "painting.png", "painting.png", "-o", "out.jpg", "--size", "24", "--quiet"]
    more = [
        "--tv-weight",
        "0.1",
        "--pooling",
        "max",
        "--init",
        "painting.png",
        "--seed",
        "3",
        "--threads",
        "1",
    ]
    done = run_here(*arguments, *FAST, *more, "--preset", "paper", "--convolution", "im2col")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with Image.open(folder / "out.jpg") as image:
        assert (image.size, image.format) == ((24, 16), "JPEG")


def test_every_field_of_the_recipe_is_an_option() -> None:
    fields = {field.name for field in dataclasses.fields(npstyle.Settings)}
    named = {option.replace("-", "_") for option in recipe.RECIPE}
    # Weights of layers are given with their names; content_layer_balance is short for two of them.
    assert named == fields - {"content_layer_weights", "style_layer_weights"} | {"content_layer_balance"}


def settings(*arguments: str) -> npstyle.Settings:
    return recipe.settings_from(painting_parser().parse_args(["photo.png", "painting.png", *arguments]))


def test_options_change_the_preset() -> None:
    assert settings() == preset("default")
    assert settings("--preset", "udacity") == preset("udacity")
    changed = settings(
        "--preset", "udacity", "--style-layers", "relu1_1:2,conv2_1", "--no-normalize-layer-weights"
    )
    assert changed.effective_style_weights == {"conv1_1": 2, "conv2_1": 1}
    assert changed.optimizer == "adam"
    fewer = settings("--preset", "udacity", "--style-layers", "conv1_1,conv2_1", "--normalize-layer-weights")
    assert fewer.effective_style_weights == {"conv1_1": 0.5, "conv2_1": 0.5}
    assert settings("--content-layer-balance", "0.25").effective_content_weights == {
        "conv4_2": 0.25,
        "conv5_2": 0.75,
    }
    assert settings("--init", "some.png").init == preset("default").init
    many = settings("--min-size", "64", "--color", "luma", "--padding", "zero", "--maxcor", "5")
    assert (many.min_size, many.color, many.padding, many.maxcor) == (64, "luma", "zero", 5)


def test_masks_keep_mask_and_blend(folder: Path, run_here: Run) -> None:
    for name, size in (("sky", (48, 32)), ("blue", (40, 40)), ("keep", (48, 32))):
        mask = np.zeros(size[::-1], np.uint8)
        mask[: size[1] // 2] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    regions = ["--content-mask", "sky.png", "--style-mask", "blue.png", "--keep-mask", "keep.png"]
    done = run_here("photo.png", "painting.png", *FAST, *regions, "--color", "match")
    assert done.returncode == 0, done.stderr
    painted, photo = (np.asarray(Image.open(folder / name)) for name in ("photo-painting.png", "photo.png"))
    np.testing.assert_array_equal(painted[:16], photo[:16])
    assert (painted[16:] != photo[16:]).any()
    mixed = ["photo.png", "painting.png", "photo.png", "-o", "mixed.png", "--blend", "3,1"]
    assert run_here(*mixed, *FAST, "--style-scale", "0.9", "--quiet").returncode == 0


def test_pyramid_levels_are_announced(folder: Path, run_here: Run) -> None:
    done = run_here("photo.png", "painting.png", *FAST, "--min-size", "32")
    assert done.returncode == 0, done.stderr
    assert "48 x 32 pixels, 2 iterations at each of 2 levels from 34 pixels up: about" in done.stderr
    different = ["--min-size", "32", "--iterations", "2,1", "-o", "different.png"]
    done = run_here("photo.png", "painting.png", *FAST, *different)
    assert "48 x 32 pixels, 2, 1 iterations at 2 levels from 34 pixels up: about" in done.stderr
    done = run_here("show", "different.png")
    assert "--iterations 2,1" in done.stdout


def test_presets_are_listed(run_here: Run) -> None:
    done = run_here("presets")
    assert done.returncode == 0
    for name in PRESETS:
        assert f"\n{name}\n" in "\n" + done.stdout
    assert "--learning-rate" in done.stdout
    # What is printed is what can be given.
    arguments: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith(" "):
            option, value = line.split(maxsplit=1)
            arguments[name] += [option] if value in ("yes", "no") else [option, value]
            if value == "no":
                arguments[name][-1] = option.replace("--", "--no-")
        else:
            arguments[name := line] = []
    for name, words in arguments.items():
        assert settings(*words) == preset(name)


def test_bytes_do_not_depend_on_threads(folder: Path, run_here: Run) -> None:
    for name, threads in (("one.png", "1"), ("two.png", "2")):
        done = run_here(
            "photo.png", "painting.png", "-o", name, *FAST, "--init", "noise", "--threads", threads
        )
        assert done.returncode == 0
    assert (folder / "one.png").read_bytes() == (folder / "two.png").read_bytes()


def test_random_filters_warning_without_weights_and_network(folder: Path, run_here: Run) -> None:
    done = run_here("photo.png", "painting.png", "--iterations", "1", "--quiet")
    assert done.returncode == 0
    assert "WARNING" in done.stderr
    assert "RANDOM FILTERS" in done.stderr
    assert "Tried:" in done.stderr
    assert "--weights FILE" in done.stderr
    assert (folder / "photo-painting.png").is_file()


def test_imagenet_fails_where_auto_warns(folder: Path, run_here: Run) -> None:
    done = run_here("photo.png", "painting.png", "--weights", "imagenet")
    assert done.returncode == 1
    assert done.stderr.startswith("npstyle: weights: found no ImageNet filters")
    assert not (folder / "photo-painting.png").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["photo.png"], 2, ["STYLE"]),
        (["photo.png", "painting.png", "--color"], 2, ["--color"]),
        (["photo.png", "painting.png", "--size", "8"], 2, ["--size: found 8;", "from 16"]),
        (["photo.png", "painting.png", "--size", "big"], 2, ["--size", "'big'"]),
        (["photo.png", "painting.png", "--iterations", "-3"], 2, ["--iterations"]),
        (["photo.png", "painting.png", "--threads", "0"], 2, ["--threads", "from 1"]),
        (["photo.png", "painting.png", "--style-weight", "-1"], 2, ["--style-weight: found '-1'"]),
        (
            ["photo.png", "painting.png", "--style-layers", "conv1_1,cnv2_1"],
            2,
            ["'cnv2_1'", "did you mean conv2_1"],
        ),
        (["photo.png", "painting.png", "--pooling", "median"], 2, ["--pooling", "'median'"]),
        (["photo.png", "painting.png", "--preset", "monet"], 2, ["--preset", "'monet'"]),
        (["nothing.png", "painting.png"], 1, ["nothing.png", "no such file"]),
        (["photo.png", "."], 1, ["a folder"]),
        (["text.jpg", "painting.png"], 1, ["text.jpg", "not a picture"]),
        (["photo.png", "painting.png", "-o", "out.jgp"], 1, ["'.jgp'", ".png", "out.png"]),
        (["photo.png", "painting.png", "-o", "nowhere/out.png"], 1, ["nowhere", "No such file"]),
        (["photo.png", "painting.png", "-o", "photo.png"], 1, ["a file of that name", "--overwrite"]),
        (["photo.png", "painting.png", "--weights", "text.jpg"], 1, ["text.jpg", "unknown format"]),
        (["photo.png", "painting.png", "--init", "sunrise"], 1, ["sunrise", "no such file"]),
        (["tiny.png", "painting.png"], 1, ["content", "8 x 8", "at least 16 x 16", "a larger picture"]),
        (["photo.png", "painting.png", "tiny.png"], 1, ["style 2", "8 x 8"]),
        (["info", "extra"], 2, ["extra"]),
        (
            ["vidoe", "photo.png", "painting.png"],
            2,
            ["found 'vidoe'; expected a command", "did you mean video?"],
        ),
        (["-dash.png", "painting.png"], 2, ["unrecognized arguments: -dash.png; a file", "is ./-dash.png"]),
        (["presets", "extra"], 2, ["extra"]),
        (["photo.png", "painting.png", "--optimizer", "sgd"], 2, ["--optimizer", "'sgd'"]),
        (["photo.png", "painting.png", "--blend", "some"], 2, ["--blend", "'some'"]),
        (["photo.png", "painting.png", "--blend", "1,2"], 1, ["blend", "found 2", "expected 1"]),
        (["photo.png", "painting.png", "--blend", "-1"], 2, ["--blend: found '-1'"]),
        (["photo.png", "painting.png", "--style-layers", "conv1_1:-2"], 2, ["conv1_1", "'-2'"]),
        (
            ["photo.png", "painting.png", "--content-layer-balance", "2"],
            2,
            ["--content-layer-balance: found '2'", "0 to 1"],
        ),
        (
            ["photo.png", "painting.png", "--content-layer-balance", "1", "--content-layers", "conv1_1"],
            2,
            ["wrong usage: --content-layer-balance: found --content-layers, too"],
        ),
        (
            ["photo.png", "painting.png", "--no-checkpoint", "--checkpoint", "kept.npz"],
            2,
            ["--checkpoint: not allowed with argument --no-checkpoint"],
        ),
        (
            ["photo.png", "painting.png", "--no-checkpoint", "--resume"],
            2,
            ["--resume: found --no-checkpoint"],
        ),
        (["photo.png", "painting.png", "--style-scale", "0"], 1, ["--style-scale", "above 0"]),
        (["photo.png", "painting.png", "--keep-mask", "tiny.png"], 1, ["keep", "8 x 8", "48 x 32"]),
        (
            ["photo.png", "painting.png", "--content-mask", "photo.png"],
            1,
            ["--content-mask, --style-mask", "pairs"],
        ),
        (
            ["photo.png", "painting.png", "--content-mask", "tiny.png", "--style-mask", "painting.png"],
            1,
            ["content mask 1", "8 x 8", "48 x 32"],
        ),
    ],
)
def test_wrong_input_ends_in_one_line(
    folder: Path, run_here: Run, arguments: list[str], status: int, words: list[str]
) -> None:
    (folder / "text.jpg").write_text("no picture at all")
    for name in ("tiny.png", "-dash.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    before = sorted(folder.iterdir())
    done = run_here(*arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("npstyle: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(("arguments", "status"), [(["nothing.png", "painting.png"], 1), (["photo.png"], 2)])
def test_wrong_input_is_the_exit_status_of_the_process(
    folder: Path, arguments: list[str], status: int
) -> None:
    done = run_program(folder, *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("npstyle: ")
    assert done.stderr.count("\n") == 1


def test_layers_missing_in_a_weights_file_are_named(folder: Path, run_here: Run) -> None:
    weights = npstyle.load_weights("random", deepest="conv1_2")
    arrays = {
        f"{name}/{part}": getattr(weights[name], part) for name in weights for part in ("kernel", "bias")
    }
    np.savez(folder / "lower.npz", preprocessing=np.array("caffe"), **arrays)
    done = run_here("photo.png", "painting.png", "--weights", "lower.npz")
    assert done.returncode == 1
    assert "no conv2_1 (there is conv1_1, conv1_2)" in done.stderr
    fitting = run_here("photo.png", "painting.png", *FAST[2:], "--weights", "lower.npz")
    assert fitting.returncode == 0, fitting.stderr


def test_overwrite(folder: Path, run_here: Run) -> None:
    (folder / "out.png").write_bytes(b"old")
    done = run_here("photo.png", "painting.png", "-o", "out.png", "--overwrite", *FAST)
    assert done.returncode == 0
    assert (folder / "out.png").read_bytes()[1:4] == b"PNG"


def wait_for_progress(terminal: int, words: bytes, seconds: float = 60) -> None:
    """Read what a program writes to its terminal until the words appear."""
    seen, deadline = b"", time.monotonic() + seconds
    while words not in seen and time.monotonic() < deadline:
        seen += os.read(terminal, 10000)
    assert words in seen, seen


def interrupt_at(iteration: int, monkeypatch: Any) -> None:
    """Press Ctrl-C in an iteration of all runs that follow."""

    def update(self: Any, progress: Any) -> None:
        if progress.iteration == iteration:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "update", update)


def start_in_terminal(folder: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "npstyle", "photo.png", "painting.png", *FAST, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    return process, ours


def test_ctrl_c_saves_picture_and_bar_shows_loss(folder: Path) -> None:
    # Adam never comes to an end by itself.
    process, terminal = start_in_terminal(folder, "--iterations", "100000", "--optimizer", "adam")
    try:
        wait_for_progress(terminal, b"/100000 ")
        wait_for_progress(terminal, b"loss ")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(terminal)
    assert process.returncode == 130
    assert b"interrupted after" in output
    with Image.open(folder / "photo-painting.png") as image:
        assert image.size == (48, 32)
    assert sorted(path.name for path in folder.iterdir()) == [
        "painting.png",
        "photo-painting.png",
        "photo.png",
    ]


def test_quiet_shows_no_bar_on_a_terminal(folder: Path) -> None:
    process, terminal = start_in_terminal(folder, "--quiet")
    output, _ = process.communicate(timeout=60)
    os.set_blocking(terminal, False)
    try:
        seen = os.read(terminal, 1000)
    except OSError:  # the other end is closed and nothing was left
        seen = b""
    os.close(terminal)
    assert (process.returncode, output, seen) == (0, b"", b"")


def test_resume_is_a_flag(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    """It takes no value: the word after it is the photograph."""
    options = painting_parser().parse_args(["--resume", "photo.jpg", "painting.jpg"])
    assert (options.resume, options.content, options.style) == (
        True,
        Path("photo.jpg"),
        [Path("painting.jpg")],
    )
    monkeypatch.chdir(folder)
    with monkeypatch.context() as patch:
        interrupt_at(1, patch)
        assert cli.main(["photo.png", "painting.png", *FAST]) == 130
    assert cli.main(["--resume", "photo.png", "painting.png", "--overwrite", *FAST]) == 0
    assert "did the 2 iterations asked for" in capsys.readouterr().out


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32", "adam"])
def test_resumed_run_makes_same_picture(
    folder: Path, optimizer: str, alone: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Over two sizes, interrupted once in each."""
    monkeypatch.chdir(folder)
    command = ["photo.png", "painting.png", *FAST, "--min-size", "32", "--iterations", "5"]
    command += ["--optimizer", optimizer]
    assert cli.main([*command, "-o", "whole.png"]) == 0
    update = ProgressBar.update
    for at in (3, 8):
        interrupt_at(at, monkeypatch)
        more = [] if at == 3 else ["--resume", "--overwrite"]
        assert cli.main([*command, "-o", "parts.png", *more]) == 130
        errors = capsys.readouterr().err
        assert "run the same command with --resume --overwrite to continue (its state: " in errors
        assert f" MB, {alone / 'checkpoints'}" in errors
    monkeypatch.setattr(ProgressBar, "update", update)
    assert cli.main([*command, "-o", "parts.png", "--resume", "--overwrite"]) == 0
    whole, parts = (np.asarray(Image.open(folder / name)) for name in ("whole.png", "parts.png"))
    np.testing.assert_array_equal(whole, parts)
    # Of a run that is done nothing is left to go on from.
    assert cli.main([*command, "-o", "parts.png", "--resume=must", "--overwrite"]) == 1
    assert "npstyle: --resume: found no checkpoint of this run at " in capsys.readouterr().err


def test_the_checkpoint_of_another_run_is_refused(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(folder)
    interrupt_at(1, monkeypatch)
    command = ["photo.png", "painting.png", *FAST, "--overwrite", "--quiet"]
    assert cli.main([*command, "--checkpoint", "kept.npz"]) == 130
    for other, words in (
        (["--style-weight", "7"], "resume: style_weight: found 7.0; expected"),
        (["--seed", "7"], "resume: "),
        (["--init", "painting.png"], "resume: init 1: found"),
    ):
        assert cli.main([*command, *other, "--resume", "--checkpoint", "kept.npz"]) == 1
        errors = capsys.readouterr().err
        assert words in errors
        assert errors.count("\n") == 1
    assert cli.main([*command, "--resume", "--checkpoint", "photo.png"]) == 1
    assert "photo.png: found something else" in capsys.readouterr().err


def test_save_every_writes_intermediate_pictures(folder: Path, run_here: Run) -> None:
    done = run_here("photo.png", "painting.png", *FAST, "--iterations", "5", "--save-every", "2")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in folder.glob("photo-painting*"))
    assert names == ["photo-painting-00002.png", "photo-painting-00004.png", "photo-painting.png"]


def test_metadata_depth_and_alpha_of_the_picture(folder: Path, run_here: Run) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (32, 48, 4), np.uint8)).save(folder / "clear.png")
    arguments = [
        "clear.png",
        "painting.png",
        "-o",
        "out.png",
        *FAST,
        "--alpha",
        "--style-layers",
        "conv1_1:2",
    ]
    assert run_here(*arguments, "--depth", "16", "--quiet").returncode == 0
    description = run_here("show", "out.png").stdout
    assert "npstyle clear.png painting.png" in description
    for words in ("--style-layers conv1_1:2", "--seed 0", "--depth 16", "--alpha", "--iterations 2"):
        assert words in description
    with Image.open(folder / "out.png") as image, Image.open(folder / "clear.png") as clear:
        np.testing.assert_array_equal(np.asarray(image)[..., 3], np.asarray(clear)[..., 3])
    refused = run_here(*arguments[:2], "-o", "out.jpg", *FAST, "--alpha")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


def test_ctrl_c_while_loading_writes_nothing(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(folder)
    monkeypatch.setattr("npstyle.weights.load_weights", interrupted)
    assert cli.main(["photo.png", "painting.png"]) == 130
    assert "nothing was written" in capsys.readouterr().err


def test_memory_error_is_one_line(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    def too_much(*_: Any, **__: Any) -> None:
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.chdir(folder)
    monkeypatch.setattr("npstyle.run.paint", too_much)
    assert cli.main(["photo.png", "painting.png", *FAST]) == 1
    assert "try a smaller --size" in capsys.readouterr().err


def test_memory_decides_on_strips_and_the_picture_is_the_same(
    folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    large = np.random.default_rng(0).integers(0, 255, (500, 90, 3), np.uint8)
    Image.fromarray(large).save(folder / "large.png")
    monkeypatch.chdir(folder)
    command = ["large.png", "painting.png", "--iterations", "1", "--weights", "random", "--min-size", "0"]
    command += ["--size", "500", "--preset", "random", "--threads", "1", "--log-every", "0"]
    settings = dataclasses.replace(preset("random"), iterations=1)
    whole = memory.run_memory_of_sizes((90, 500), [(40, 40)], settings, threads=1)
    assert cli.main([*command, "-o", "whole.png", "--memory", "10GB"]) == 0
    assert "strips" not in capsys.readouterr().err
    assert cli.main([*command, "-o", "strips.png", "--memory", f"{whole / 1e6 - 1:.0f}MB"]) == 0
    assert "in strips, about 1." in capsys.readouterr().err
    pictures = [np.asarray(Image.open(folder / name)) for name in ("whole.png", "strips.png")]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    line = refusal(capsys, *command, "-o", "none.png", "--memory", "10MB")
    assert line.startswith("npstyle: memory: found 10 MB allowed by --memory; expected about ")
    for words in ("much", "0"):
        with pytest.raises(SystemExit):
            cli.main([*command, "--memory", words])
        assert "expected a size such as 8GB" in capsys.readouterr().err


def test_too_little_memory_is_refused_before_the_run(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    Image.fromarray(np.zeros((150, 300, 3), np.uint8)).save(folder / "large.png")
    settings = dataclasses.replace(preset("default"), iterations=0)
    enough = 1.01 * memory.run_memory_of_sizes((128, 64), [(40, 40)], settings)  # and the pictures
    monkeypatch.setattr(memory, "available_memory", lambda *_: enough)
    monkeypatch.chdir(folder)
    command = ["large.png", "painting.png", "-o", "out.png", "--iterations", "0", "--weights", "random"]
    command += ["--preset", "default"]
    assert cli.main([*command, "--size", "300"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("npstyle: memory: found ")
    assert "--force to run all the same" in error
    assert error.count("\n") == 1
    advised = error.split("--size ")[1].split(",")[0]
    assert 128 <= int(advised) < 200  # more than 128 with blocks in strips
    assert not (folder / "out.png").exists()
    assert cli.main([*command, "--size", advised]) == 0
    assert cli.main([*command, "--size", "300", "--force", "--overwrite"]) == 0
    monkeypatch.setattr(memory, "available_memory", lambda *_: None)  # not known
    assert cli.main([*command, "--size", "300", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--style-layers", ","], "style"),
        (["--style-weight", "0"], "style"),
        (["--content-layers="], "content"),
    ],
)
def test_missing_loss_is_said(
    folder: Path, monkeypatch: Any, capsys: Any, words: list[str], name: str
) -> None:
    monkeypatch.chdir(folder)
    command = ["photo.png", "painting.png", "--size", "32", "--iterations", "0", "--weights", "random"]
    assert cli.main([*command, *words]) == 0
    assert f"32 x 21 pixels, 0 iterations, without a {name} loss: about " in capsys.readouterr().err


def test_memory_is_checked_with_the_recipe_for_random_filters(
    folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    seen = []

    def record(_: Any, request: Request, *more: Any) -> Any:
        seen.append(request.settings)
        return check_run_memory(_, request, *more)

    monkeypatch.setattr("npstyle.cli.paint.check_run_memory", record)
    monkeypatch.chdir(folder)
    command = ["photo.png", "painting.png", "-o", "out.png", "--size", "32", "--iterations", "0"]
    assert cli.main([*command, "--weights", "random", "--moments-weight", "2"]) == 0
    assert set(seen) == {dataclasses.replace(preset("random"), iterations=0, moments_weight=2)}
    assert "--moments-weight: no effect with --statistics gram," in capsys.readouterr().err


def test_too_little_memory_for_ten_pairs_is_enough_for_three(folder: Path) -> None:
    options = painting_parser().parse_args(["photo.png", "painting.png", "--size", "32"])
    settings = preset("default")
    request = Request.read(folder / "photo.png", folder / "painting.png", settings=settings, size=32)
    *_, least = memory.with_less_memory(request)
    run, _, note = check_run_memory(options, request, memory.least_memory(least))
    assert (run.settings.optimizer, run.settings.maxcor) == ("lbfgs32", 3)
    assert note.endswith(" for lbfgs; lbfgs32 with 3 pairs runs in its place")
    options.memory = memory.least_memory(least) - 1
    with pytest.raises(UserError, match="allowed by --memory"):
        check_run_memory(options, request, options.memory)


def test_too_little_memory_for_scipys_lbfgs_is_enough_for_lbfgs32(
    folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Unless an optimizer is asked for; what runs in its place is said, also with --quiet, and recorded."""
    Image.fromarray(np.zeros((150, 300, 3), np.uint8)).save(folder / "large.png")
    one = dataclasses.replace(preset("random"), iterations=1)
    request = Request.read(folder / "large.png", folder / "painting.png", settings=one)
    smaller = next(memory.with_less_memory(request))
    needed = {one.settings.optimizer: memory.least_memory(one) for one in (request, smaller)}
    monkeypatch.setattr(memory, "available_memory", lambda *_: needed["lbfgs32"])
    monkeypatch.chdir(folder)
    command = ["large.png", "painting.png", "-o", "out.png", "--iterations", "1", "--weights", "random"]
    command += ["--min-size", "0", "--size", "300", "--preset", "random"]
    assert cli.main([*command, "--optimizer", "lbfgs"]) == 1
    assert capsys.readouterr().err.startswith("npstyle: memory: found ")
    assert cli.main([*command, "--quiet"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("npstyle: optimizer: found ")
    assert line.endswith(" for lbfgs; lbfgs32 runs in its place")
    assert cli.main(["show", "out.png"]) == 0
    assert "lbfgs32" in capsys.readouterr().out
    monkeypatch.setattr(memory, "available_memory", lambda *_: needed["lbfgs"])
    assert cli.main([*command, "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr().err == ""


def test_time_left_is_printed_once(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(folder)
    command = ["photo.png", "painting.png", "--weights", "random", "--iterations", "6"]
    monkeypatch.setattr("npstyle.cli.progress.MIN_TIME_LEFT", 0.0)
    monkeypatch.setattr("npstyle.run.time_left.MIN_TIMED", 0.0)
    assert cli.main(command) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("about ")] == [lines[2]]
    assert lines[2].endswith(" s left")
    assert cli.main([*command, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_format_of_durations() -> None:
    assert _format_duration(99.4) == "99 s"
    assert _format_duration(1000) == "17 min"


def test_info(folder: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_here("info")
    assert done.returncode == 0
    for word in (
        "npstyle:",
        "numpy:",
        "scipy:",
        "kernels:    compiled",
        "OpenMP:",
        "threads:",
        "BLAS:",
        "memory:",
        "weights:",
    ):
        assert word in done.stdout
    assert "none here" in done.stdout
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(folder / "w.h5"))
    named = run_here("info").stdout
    assert f"{folder / 'w.h5'} (NPSTYLE_WEIGHTS): no file of that name" in named
    monkeypatch.delenv("NPSTYLE_WEIGHTS")
    monkeypatch.setenv("NPSTYLE_REGISTRY", str(folder / "none.json"))
    wrong = run_here("info")
    assert (wrong.returncode, wrong.stderr) == (0, "")
    assert "registry: " in wrong.stdout
    assert "cache:" in wrong.stdout
    assert "by default" not in run_program(folder, "info", OMP_NUM_THREADS="1000").stdout
    slow = run_program(folder, "info", NPSTYLE_KERNELS="reference").stdout
    assert "reference, plain NumPy and slow" in slow
    assert "OpenMP:     not used by these kernels" in slow


def test_reference_kernels_are_announced_as_slow(folder: Path) -> None:
    done = run_program(folder, "photo.png", "painting.png", *FAST, NPSTYLE_KERNELS="reference")
    assert done.returncode == 0
    assert "NPSTYLE_KERNELS=reference" in done.stderr


@pytest.mark.parametrize("action", ["ignore", "error"])
def test_runtime_warnings_are_lines_whatever_the_filters(
    folder: Path, action: Any, monkeypatch: Any, capsys: Any
) -> None:
    """A fallback is never silent: here that of L-BFGS, for another version of SciPy."""
    from npstyle import lbfgs

    monkeypatch.chdir(folder)
    monkeypatch.setattr(lbfgs, "_problem", lambda: "another routine")
    lbfgs.private_routine_works.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            assert cli.main(["photo.png", "painting.png", *FAST, "--quiet"]) == 0
    finally:
        lbfgs.private_routine_works.cache_clear()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("npstyle: SciPy ")
    assert "another routine; L-BFGS runs by scipy.optimize.minimize" in line


@pytest.mark.parametrize(("threads", "cores", "lines"), [(None, 4, 1), (2, 1, 1), (1, 4, 0), (None, 1, 0)])
def test_one_thread_without_openmp_is_announced(
    folder: Path, threads: int | None, cores: int, lines: int, monkeypatch: Any, capsys: Any
) -> None:
    """Also without --threads, where there is more than one core to use; and with --quiet."""
    without_openmp(cores, monkeypatch)
    monkeypatch.chdir(folder)
    options = ["--quiet", *([] if threads is None else ["--threads", str(threads)])]
    assert cli.main(["photo.png", "painting.png", *FAST, *options]) == 0
    messages = capsys.readouterr().err.splitlines()
    assert len(messages) == lines
    assert all("built without OpenMP" in line for line in messages)


COMMANDS = ["", "info", "presets", "show", "weights", "weights normalize", "cache", "cache clear"]
COMMANDS += ["reconstruct", "texture", "figure", "inspect", "batch", "sheet"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_nothing_that_is_slow_to_import(command: str) -> None:
    words = [*command.split(), "--help"]
    code = (
        "import sys\nfrom npstyle.cli.main import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'scipy', 'PIL', 'h5py', 'pooch', 'tqdm', 'distributed'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    usage, *_, slow = done.stdout.splitlines()
    assert usage.startswith(f"usage: npstyle {command}".rstrip())
    assert slow == "[]"


def test_help_of_the_main_job_has_its_options() -> None:
    text = painting_parser().format_help()
    assert "CONTENT" in text
    for option in ("--size", "--iterations", "--style-weight", "--weights", "--init", "--seed", "--threads"):
        assert f" {option} " in text
    assert "continue where the same command was interrupted" in text
    assert "  --resume  " in text  # no value


def test_version(folder: Path) -> None:
    assert run_program(folder, "--version").stdout == f"npstyle {npstyle.__version__}\n"


@pytest.mark.parametrize("before", [True, False], ids=["the second", "the first"])
def test_ctrl_c_while_saving_does_not_lose_the_picture(
    folder: Path, before: bool, monkeypatch: Any, capsys: Any
) -> None:
    from npstyle import images

    write, to_uint8 = images.write, images.to_uint8

    def impatient(*arguments: Any, **more: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        write(*arguments, **more)

    def impatient_before(pixels: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return to_uint8(pixels)

    monkeypatch.chdir(folder)
    if before:
        interrupt_at(1, monkeypatch)
        monkeypatch.setattr(images, "to_uint8", impatient_before)
    monkeypatch.setattr(images, "write", impatient)
    handler = signal.getsignal(signal.SIGINT)
    assert cli.main(["photo.png", "painting.png", *FAST]) == (130 if before else 0)
    assert signal.getsignal(signal.SIGINT) is handler
    words = "interrupted after 1 iteration in" if before else "did the 2 iterations asked for"
    assert words in capsys.readouterr().out
    assert (folder / "photo-painting.png").is_file()


def test_picture_is_in_temporary_folder_if_output_appears_during_run(
    folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    from npstyle.run import paint

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        (folder / "photo-painting.png").write_bytes(b"somebody else's")
        return paint(*arguments, **options)

    monkeypatch.chdir(folder)
    monkeypatch.setattr("npstyle.run.paint", meanwhile)
    assert cli.main(["photo.png", "painting.png", *FAST]) == 1
    error = capsys.readouterr().err
    assert "a file of that name" in error
    refuge = Path(error.split("the picture is in ")[1].strip())
    with Image.open(refuge) as image:
        assert image.size == (48, 32)
    refuge.unlink()
    assert (folder / "photo-painting.png").read_bytes() == b"somebody else's"


def test_diverged_run_fails_and_saves_last_good_picture(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    from npstyle.objective import Objective

    evaluate, calls = Objective.__call__, [0]

    def spoiled(self: Objective, pixels: Any) -> Any:
        calls[0] += 1
        loss, gradient = evaluate(self, pixels)
        return (loss if calls[0] < 4 else float("nan")), gradient

    monkeypatch.chdir(folder)
    monkeypatch.setattr(Objective, "__call__", spoiled)
    assert cli.main(["photo.png", "painting.png", *FAST, "--iterations", "50", "--quiet"]) == 1
    assert "the picture is the last good one" in capsys.readouterr().err
    assert (folder / "photo-painting.png").is_file()


def test_the_warning_of_random_filters_cannot_be_switched_off(folder: Path) -> None:
    for setting in ("ignore", "error"):
        done = run_program(
            folder, "photo.png", "painting.png", "--iterations", "0", "--overwrite", PYTHONWARNINGS=setting
        )
        assert done.returncode == 0
        assert "RANDOM FILTERS" in done.stderr


def test_closed_pipe_is_no_traceback(folder: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m npstyle info | true",
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_file_name_outside_the_encoding_of_the_terminal(folder: Path) -> None:
    done = run_program(folder, "photo.png", "painting.png", "-o", "é.png", *FAST, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "\\xe9.png" in done.stdout


def test_a_picture_too_large_for_its_format_is_found_before_the_run(folder: Path, run_here: Run) -> None:
    Image.new("RGB", (16400, 16)).save(folder / "long.png")
    done = run_here("long.png", "painting.png", "--size", "20000", "-o", "long.webp", *FAST)
    assert done.returncode == 1
    assert "16400 x 16 pixels; expected at most 16383 in WEBP; write a PNG" in done.stderr


def test_ctrl_c_before_the_first_iteration_writes_nothing(
    folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    from npstyle.objective import Objective

    def interrupted(self: Objective, pixels: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(Objective, "__call__", interrupted)
    assert cli.main(["photo.png", "painting.png", *FAST]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (folder / "photo-painting.png").exists()


def test_second_ctrl_c_later_interrupts_again(monkeypatch: Any) -> None:
    """Python swallows exceptions in some places; pressing again after a while must work."""
    monkeypatch.setattr(interrupts, "REPEAT_SECONDS", 0.0)
    with interrupts.Signals():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(interrupts, "REPEAT_SECONDS", 1e9)
    with interrupts.Signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # at once: the same one


def test_ignored_sigint_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.Signals():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), "too little memory to write it; expected more"),
        (OSError(28, "No space left on device"), "No space left on device on writing; expected"),
    ],
)
def test_lost_picture_is_reported(
    folder: Path, error: Exception, found: str, monkeypatch: Any, capsys: Any
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.chdir(folder)
    monkeypatch.setattr(Image.Image, "save", fails)
    assert cli.main(["photo.png", "painting.png", *FAST, "--quiet"]) == 1
    message = capsys.readouterr().err
    assert re.match(rf"npstyle: output: (\S*/)?photo-painting\.png: found {found}", message)
    assert "; the picture is lost, as " in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("closing", [">&-", "2>&-", "2> >(exit 0)", "> /dev/full"])
def test_closed_streams_do_not_cost_the_picture(folder: Path, closing: str) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash to close streams")
    words = f"{sys.executable} -m npstyle photo.png painting.png --iterations 0 {closing}"
    done = subprocess.run(["bash", "-c", words], cwd=folder, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if "full" in closing else 0)
    assert (folder / "photo-painting.png").is_file()
