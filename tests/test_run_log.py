"""`--log FILE.jsonl` and `--log-every`: what a run tells while it lasts, and what it may write to."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import helpers
from helpers import error_line
from npstyle import __version__
from npstyle._runtime import json_lines
from npstyle.cli import main as cli
from npstyle.cli import progress, run_log
from npstyle.cli.progress import ProgressBar
from npstyle.run import PlannedLevel, Progress, checkpoint, time_left
from npstyle.weights import random_weights, write_weights

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
COMMAND = ["photo.png", "painting.png", "--style-layers", "conv1_1", "--content-layers", "conv1_2"]
COMMAND += ["--weights", "random", "--iterations", "3", "--threads", "1", "--quiet", "-o", "out.png"]
UPDATE = ProgressBar.update


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The current folder, with a photograph, a painting, filters and a note."""
    rng = np.random.default_rng(0)
    for name in ("photo.png", "painting.png"):
        Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)).save(tmp_path / name)
    write_weights(tmp_path / "weights.npz", random_weights(0, "conv1_2"))
    (tmp_path / "note.txt").write_text("precious")
    (tmp_path / "empty.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entries(path: str = "run.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def events(path: str = "run.jsonl") -> list[Any]:
    return [entry.get("iteration", entry["event"]) for entry in entries(path)]


def interrupt_at(iteration: int, monkeypatch: Patch, number: int = signal.SIGINT) -> None:
    def update(self: Any, progress: Any) -> None:
        UPDATE(self, progress)
        if progress.iteration == iteration:
            signal.raise_signal(number)

    monkeypatch.setattr(ProgressBar, "update", update)


# ------------------------------------------------------------------------------------------------
# What is in a log
# ------------------------------------------------------------------------------------------------


def test_log_holds_start_iterations_and_end(folder: Path) -> None:
    assert cli.main([*COMMAND, "--min-size", "32", "--log", "run.jsonl", "--seed", "4"]) == 0
    start, *iterations, end = entries()
    assert (start["event"], start["npstyle"]) == ("start", __version__)
    assert (start["content"], start["style"], start["output"]) == ("photo.png", ["painting.png"], "out.png")
    assert (start["weights"], start["preprocessing"], start["seed"]) == (
        "random filters (seed 4)",
        "caffe",
        4,
    )
    assert (start["width"], start["height"], start["levels"]) == (48, 32, [[34, 23], [48, 32]])
    assert (start["iterations"], start["settings"]["iterations"], start["settings"]["min_size"]) == (6, 3, 32)
    assert start["settings"]["style_layers"] == ["conv1_1"]
    assert [entry["iteration"] for entry in iterations] == [1, 2, 3, 4, 5, 6]
    assert [entry["level"] for entry in iterations] == [1, 1, 1, 2, 2, 2]
    assert [entry["level_iteration"] for entry in iterations] == [1, 2, 3, 1, 2, 3]
    assert [(entry["width"], entry["height"]) for entry in iterations] == 3 * [(34, 23)] + 3 * [(48, 32)]
    for entry in iterations:
        assert set(entry["terms"]) == {"content/conv1_2", "style/conv1_1", "total_variation"}
        assert math.isclose(sum(entry["terms"].values()), entry["loss"], rel_tol=1e-12)
    assert (end["event"], end["outcome"], end["output"]) == ("end", "done", "out.png")
    assert (end["iterations"], end["loss"]) == (6, iterations[-1]["loss"])
    seconds = [entry["seconds"] for entry in entries()]
    assert seconds == sorted(seconds)


def test_edges_and_levels_of_a_tile_are_in_the_log(folder: Path) -> None:
    options = ["--min-size", "32", "--keep-edges", "0.3", "--padding", "wrap", "--log", "run.jsonl"]
    assert cli.main([*COMMAND, *options]) == 0
    start, *iterations, _ = entries()
    assert start["levels"] == [[32, 16], [48, 32]]
    assert (start["settings"]["keep_edges"], start["settings"]["padding"]) == (0.3, "wrap")
    assert all(entry["terms"]["edges"] >= 0 for entry in iterations)
    assert iterations[-1]["terms"]["edges"] > 0


def test_each_line_can_be_read_while_the_run_lasts(folder: Path, monkeypatch: Patch) -> None:
    seen: list[int] = []

    def update(self: Any, progress: Any) -> None:
        UPDATE(self, progress)
        seen.append(len(entries()))

    monkeypatch.setattr(ProgressBar, "update", update)
    assert cli.main([*COMMAND, "--log", "run.jsonl"]) == 0
    assert seen == [2, 3, 4]  # the start, and all iterations so far


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_log_of_interrupted_run_ends_with_the_outcome(folder: Path, name: str, monkeypatch: Patch) -> None:
    interrupt_at(2, monkeypatch, getattr(signal, name))
    assert cli.main([*COMMAND, "--log", "run.jsonl", "--checkpoint", "kept.npz"]) > 128
    *_, end = entries()
    assert events() == ["start", 1, 2, "end"]
    assert (end["outcome"], end["output"], end["checkpoint"]) == ("interrupted", "out.png", "kept.npz")


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [(KeyboardInterrupt(), "interrupted", "nothing was written"), (MemoryError(), "failed", "MemoryError")],
)
def test_log_of_run_without_a_picture_ends_with_the_outcome(
    folder: Path, error: BaseException, outcome: str, message: str, monkeypatch: Patch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("npstyle.optimize.Minimizer.run", fail)
    assert cli.main([*COMMAND, "--log", "run.jsonl"]) != 0
    start, end = entries()
    assert start["event"] == "start"
    assert (end["event"], end["outcome"], end["message"]) == ("end", outcome, message)


def test_log_of_picture_that_could_not_be_saved_says_where_it_is(folder: Path, monkeypatch: Patch) -> None:
    def update(self: Any, progress: Any) -> None:
        Path("out.png").write_text("another program's")

    monkeypatch.setattr(ProgressBar, "update", update)
    assert cli.main([*COMMAND, "--log", "run.jsonl"]) == 1
    *_, end = entries()
    assert end["outcome"] == "failed"
    assert "the picture is in " in end["message"]
    os.unlink(end["message"].split("the picture is in ")[1])


# ------------------------------------------------------------------------------------------------
# What a log may replace
# ------------------------------------------------------------------------------------------------


def test_resumed_run_appends_to_its_log(folder: Path, monkeypatch: Patch) -> None:
    command = [*COMMAND, "--log", "run.jsonl", "--checkpoint", "kept.npz", "--overwrite"]
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(2, patch)
        assert cli.main(command) == 130
    before = Path("run.jsonl").read_text()
    with Path("run.jsonl").open("a") as file:
        file.write('{"event": "iter')  # as after a power failure
    assert cli.main([*command, "--resume"]) == 0
    lines = Path("run.jsonl").read_text().splitlines()
    assert lines[:4] == before.splitlines()
    rest = [json.loads(line) for line in lines[5:]]
    assert [entry.get("iteration", entry["event"]) for entry in rest] == ["start", 3, "end"]
    assert (rest[0]["resume"], rest[1]["level_iteration"]) == (True, 3)


def refusal(capsys: Captured, *arguments: str) -> str:
    return helpers.refusal(capsys, *COMMAND, *arguments)


def test_log_is_replaced_only_with_overwrite(folder: Path, capsys: Captured) -> None:
    assert cli.main([*COMMAND, "--log", "run.jsonl"]) == 0
    first = Path("run.jsonl").read_text()
    line = helpers.refusal(capsys, *COMMAND[:-1], "b.png", "--log", "run.jsonl")
    assert line == (
        "npstyle: --log: run.jsonl: found a log of that name; expected a new name; choose another, or add "
        "--overwrite to replace it, or --resume to continue its run\n"
    )
    assert Path("run.jsonl").read_text() == first
    os.chmod("run.jsonl", 0o600)
    assert cli.main([*COMMAND, "--seed", "1", "--log", "run.jsonl", "--overwrite"]) == 0
    assert events() == ["start", 1, 2, 3, "end"]
    assert Path("run.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("more", [[], ["--overwrite"], ["--resume"], ["--resume", "--overwrite"]])
def test_log_that_is_another_file_is_refused(folder: Path, more: list[str], capsys: Captured) -> None:
    checkpoint.write("other.npz", checkpoint.Checkpoint({"seed": "5"}, (), {}))
    Path("data.jsonl").write_text('{"event": "start"}\n')
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for name in ("note.txt", "weights.npz", "other.npz", "empty.jsonl", "data.jsonl"):
        line = refusal(capsys, "--log", name, *more)
        assert f"--log: {name}: found a file that is no log of npstyle; expected a new name" in line
    for name in ("photo.png", f"../{folder.name}/painting.png"):
        line = refusal(capsys, "--log", name, *more)
        assert f"--log: {name}: found a file that this run reads or continues from;" in line
    assert "--log: out.png: found the output" in refusal(capsys, "--log", "out.png", *more)
    assert "found a file that" in refusal(capsys, "--log", "new.npz", "--checkpoint", "new.npz", *more)
    line = refusal(capsys, "--log", "out-00002.png", "--save-every", "1", "--no-checkpoint", "--overwrite")
    assert "--save-every: out-00002.png: found a file that this run reads, continues from or logs to" in line
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_place_of_the_log_is_probed_before_the_run(folder: Path, capsys: Captured) -> None:
    (folder / "maps").mkdir()
    for name in ("nowhere/run.jsonl", "note.txt/run.jsonl", 300 * "x", "maps"):
        line = refusal(capsys, "--log", name)
        assert line.startswith(f"npstyle: --log: {name}: found ")
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")
        assert "--log: pipe: found a FIFO; expected a file" in refusal(capsys, "--log", "pipe")
    assert cli.main([*COMMAND, "--log", "run.jsonl"]) == 0
    os.chmod("run.jsonl", 0o444)
    if not os.access("run.jsonl", os.W_OK):  # as root everything can be written to
        line = helpers.refusal(capsys, *COMMAND[:-1], "b.png", "--log", "run.jsonl", "--overwrite")
        assert line.startswith("npstyle: --log: run.jsonl: found Permission denied on opening it")


def test_file_that_appears_before_the_first_line_is_not_replaced(folder: Path) -> None:
    log = run_log.RunLog(Path("run.jsonl"), overwrite=False, resume=False)
    Path("run.jsonl").write_text("precious")
    line = error_line(log.__enter__, "--log: run.jsonl")
    assert line == "found File exists on writing; expected a new file; choose another"
    assert Path("run.jsonl").read_text() == "precious"


class FullDisk(io.BytesIO):
    """A file on a disk that has room for so many bytes, and later for more."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = data[: self.room]
        self.room -= len(part)
        return super().write(part)


def test_full_disk_does_not_end_the_run_and_warns_once(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    disk, contents = FullDisk(10_000), io.BytesIO()

    def open_on_disk(descriptor: int, *_: object, **__: object) -> FullDisk:
        os.close(descriptor)
        return disk

    monkeypatch.setattr(json_lines, "open", open_on_disk, raising=False)
    monkeypatch.setattr(disk, "close", lambda: contents.write(disk.getvalue()))

    def update(self: Any, progress: Any) -> None:
        disk.room = {1: 20, 2: 0, 3: 10_000}[progress.iteration]  # for the next line

    monkeypatch.setattr(ProgressBar, "update", update)
    assert cli.main([*COMMAND, "--log", "run.jsonl"]) == 0
    assert capsys.readouterr().err == (
        "npstyle: --log: run.jsonl: found No space left on device on writing; continuing, without the lines "
        "that have no room\n"
    )
    assert Path("out.png").is_file()
    start, first, cut, end = contents.getvalue().decode().splitlines()
    assert [json.loads(line)["event"] for line in (start, first, end)] == ["start", "iteration", "end"]
    assert len(cut) == 20


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full here")
def test_log_on_a_device_is_refused(folder: Path, capsys: Captured) -> None:
    assert "--log: /dev/full: found a device" in refusal(capsys, "--log", "/dev/full", "--overwrite")


# ------------------------------------------------------------------------------------------------
# --log-every
# ------------------------------------------------------------------------------------------------

LOUD = [word for word in COMMAND if word != "--quiet"]


@pytest.mark.parametrize(
    ("options", "default", "expected"),
    [
        (["--log-every", "1e-9"], 60.0, 3),
        ([], 1e-9, 3),
        ([], 60.0, 0),
        (["--log-every", "0"], 1e-9, 0),
        (["--log-every", "1e-9", "--quiet"], 1e-9, 0),
    ],
)
def test_lines_between_start_and_end(
    folder: Path, options: list[str], default: float, expected: int, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY", default)
    assert cli.main([*LOUD, *options]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("level ")]
    assert len(lines) == expected
    for n, line in enumerate(lines, 1):
        assert line.startswith(f"level 1 of 1 (48 x 32 pixels), iteration {n} of 3, loss ")


def test_study_commands_print_lines_too(folder: Path, capsys: Captured) -> None:
    study = ["--weights", "weights.npz", "--iterations", "2", "--threads", "1", "--log-every", "1e-9"]
    assert cli.main(["reconstruct", "photo.png", "--layer", "conv1_1", *study]) == 0
    assert capsys.readouterr().err.count("level 1 of 1 (48 x 32 pixels), iteration ") == 2
    assert cli.main(["figure", "style", "painting.png", *study]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if ", iteration 2 of 2, loss " in line]
    assert lines
    assert lines[0].startswith(f"1 of {len(lines)}, ") or len(lines) == 1


PLAN = tuple(PlannedLevel(side, side, 10) for side in (64, 91, 128, 181))


def state(iteration: int, level: int, level_iteration: int) -> Progress:
    w, h, _ = PLAN[level - 1]
    return Progress(iteration, level, PLAN, 0.5, {}, np.zeros((h, w, 3), np.float32), level_iteration)


def test_line_has_level_iteration_loss_and_time_left(monkeypatch: Patch, capsys: Captured) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(time_left, "OVERHEAD", 0.0)
    monkeypatch.setattr(time_left, "SAMPLES", 2)
    with ProgressBar(False, log_every=10) as bar:
        for seconds, *counts in ((1, 1, 1, 1), (9, 2, 1, 2), (12, 3, 1, 3), (30, 4, 4, 1)):
            now[0] = 100.0 + seconds
            bar.update(state(*counts))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("level ")]
    assert lines == [
        # 5.5 s an iteration; 7 are left here, and 10 at each level with 2, 4 and 8 times as many pixels.
        "level 1 of 4 (64 x 64 pixels), iteration 3 of 10, loss 0.5, about 13 min left",
        # Those before ended early. An iteration of the first one took 5.5 s, one here takes 8 times as long.
        "level 4 of 4 (181 x 181 pixels), iteration 1 of 10, loss 0.5, about 7 min left",
    ]


def test_on_a_terminal_lines_are_printed_only_if_asked_for(monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setattr(progress, "shows_bars", lambda quiet: not quiet)
    monkeypatch.setattr(progress, "LOG_EVERY", 1e-9)
    for every, expected in ((None, 0), (1e-9, 1)):
        with ProgressBar(False, log_every=every) as bar:
            bar.update(state(1, 1, 1))
        assert (
            capsys.readouterr().err.count("level 1 of 4 (64 x 64 pixels), iteration 1 of 10, loss 0.5\n")
            == expected
        )
