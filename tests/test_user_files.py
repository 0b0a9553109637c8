"""Files that were there before a run: none loses a byte, but the output with --overwrite."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import helpers
import npstyle
from helpers import error_line
from npstyle.cli import main as cli
from npstyle.cli.paint import painting_parser
from npstyle.cli.progress import ProgressBar
from npstyle.cli.run_files import describe_checkpoint
from npstyle.run import CheckpointWarning, Request, checkpoint, checkpoint_writer
from npstyle.run.memory import checkpoint_bytes
from npstyle.settings import Settings
from npstyle.weights import random_weights, write_weights

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

FAST = ["--style-layers", "conv1_1", "--content-layers", "conv1_2", "--threads", "1", "--quiet"]
PICTURES = ["photo.png", "painting.png"]
COMMAND = [*PICTURES, *FAST, "--weights", "random", "--iterations", "4"]
UPDATE = ProgressBar.update


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The current folder, with a photograph, a painting and other files of a user."""
    rng = np.random.default_rng(0)
    for name in (*PICTURES, "mask.png", "old-00002.png"):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "note.txt").write_text("precious")
    (tmp_path / "empty.npz").touch()
    write_weights(tmp_path / "weights.npz", random_weights(0, "conv1_2"))
    checkpoint.write(tmp_path / "other-run.npz", checkpoint.Checkpoint({"seed": "5"}, (), {}))
    (tmp_path / "link.png").symlink_to("photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def interrupt_at(iteration: int | None, monkeypatch: Patch) -> None:
    """Send Ctrl-C after an iteration of every run that follows; None: no longer."""

    def update(self: Any, progress: Any) -> None:
        UPDATE(self, progress)
        if progress.iteration == iteration:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "update", update)


def refusal(capsys: Captured, *arguments: str) -> str:
    return helpers.refusal(capsys, *COMMAND, *arguments)


@pytest.mark.parametrize("more", [(), ("--overwrite",), ("--resume",), ("--resume=must", "--overwrite")])
@pytest.mark.parametrize(
    "option", ["--checkpoint", "--output", "--init", "--weights", "--keep-mask", "--content", "--log"]
)
def test_no_option_destroys_the_file_that_it_names(
    folder: Path, option: str, more: tuple[str, ...], monkeypatch: Patch
) -> None:
    """Whatever it is: the property of the whole command line."""
    monkeypatch.setenv("NPSTYLE_CHECKPOINT_EVERY", "0")
    for name in [*contents(folder), "old.png"]:
        before = contents(folder)
        named = ["painting.png", "--iterations", "2", "--save-every", "2", *FAST, *more]
        named = [name, *named] if option == "--content" else ["photo.png", *named, option, name]
        output = name if option == "--output" else "new.png"
        named += [] if option == "--weights" else ["--weights", "random"]
        cli.main([*named, *([] if option == "--output" else ["--output", output])])
        after = contents(folder)
        if "--overwrite" in more:  # it is for the output that is not read, and for the pictures before it
            may_change = {os.path.realpath(path) for path in (output, f"{Path(output).stem}-00002.png")}
            may_change -= {os.path.realpath(path) for path in PICTURES}
            before = {key: value for key, value in before.items() if os.path.realpath(key) not in may_change}
        assert {key: after.get(key) for key in before} == before, name
        for new in set(after) - set(before):
            if "--overwrite" not in more:
                (folder / new).unlink()


@pytest.mark.parametrize("more", [[], ["--overwrite"], ["--resume"]])
@pytest.mark.parametrize("name", ["photo.png", "link.png", "note.txt", "empty.npz", "weights.npz"])
def test_checkpoint_that_is_another_file_is_refused(
    folder: Path, name: str, more: list[str], capsys: Captured
) -> None:
    before = contents(folder)
    line = refusal(capsys, "-o", "out.png", "--checkpoint", name, *more)
    assert line.startswith(f"npstyle: checkpoint: {name}: found something else (")
    assert "choose another name" in line
    assert contents(folder) == before


def test_checkpoint_of_another_run_is_not_replaced(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    interrupt_at(2, monkeypatch)
    assert cli.main([*COMMAND, "-o", "out.png", "--checkpoint", "kept.npz"]) == 130
    before = contents(folder)
    line = refusal(capsys, "-o", "b.png", "--checkpoint", "kept.npz", "--seed", "7")
    assert (
        "checkpoint: kept.npz: found the state of another run (seed: 0, not 7); expected a new name" in line
    )
    assert contents(folder) == before


def test_checkpoint_and_output_are_two_files(folder: Path, capsys: Captured) -> None:
    (folder / "also.png").symlink_to("out.png")
    for name in ("out.png", f"../{folder.name}/out.png", "also.png"):
        line = refusal(capsys, "-o", "out.png", "--checkpoint", name)
        assert line.startswith(f"npstyle: checkpoint: {name}: found the output; expected another name")
    for name in ("out-00002.png", "out-00004.png"):
        line = refusal(capsys, "-o", "out.png", "--checkpoint", name, "--save-every", "2")
        assert line.startswith(f"npstyle: --save-every: {name}: found a file that this run reads, continues")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_checkpoint_that_is_no_regular_file_is_refused(folder: Path, capsys: Captured) -> None:
    os.mkfifo(folder / "pipe")
    for name in ("pipe", os.devnull):
        line = refusal(capsys, "-o", "out.png", "--checkpoint", name)
        assert f"checkpoint: {name}: found a device or a pipe; expected a file" in line
    assert (folder / "pipe").is_fifo()


def test_folder_of_the_checkpoint_is_probed_before_the_run(folder: Path, capsys: Captured) -> None:
    for name in ("nowhere/kept.npz", "note.txt/kept.npz", 300 * "x"):
        line = refusal(capsys, "-o", "out.png", "--checkpoint", name)
        assert line.startswith(f"npstyle: checkpoint: {name}: found ")
        assert " on writing there; expected a name in a folder that can be written to" in line


def test_a_cache_that_is_a_file_costs_the_checkpoints_only(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setenv("NPSTYLE_CACHE", str(folder / "note.txt"))
    assert cli.main([*COMMAND, "-o", "out.png"]) == 0
    start, line = (
        f"npstyle: checkpoint: {folder / 'note.txt' / 'checkpoints'}: found ",
        capsys.readouterr().err,
    )
    assert line.startswith(start)
    assert line.endswith("; expected a folder to write to; continuing without\n")
    assert "Errno" not in line
    assert (folder / "note.txt").read_text() == "precious"


def test_writing_checkpoints_takes_a_twentieth_of_the_time_at_most(folder: Path, monkeypatch: Patch) -> None:
    now = 1000.0

    def slow_write(path: Path, stored: checkpoint.Checkpoint) -> None:
        nonlocal now
        now += 10

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(checkpoint_writer, "write", slow_write)
    writer = checkpoint_writer.CheckpointWriter(folder / "kept.npz", 60, {})
    state = {"losses": np.zeros(2)}
    assert not writer.due
    now = 1060
    assert writer.due
    writer.write([], state)
    now += 199
    assert not writer.due
    now += 1
    assert writer.due


def test_run_leaves_a_checkpoint_that_another_run_wrote_meanwhile(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    other = (folder / "other-run.npz").read_bytes()

    def update(self: Any, progress: Any) -> None:
        UPDATE(self, progress)
        if progress.iteration == 2:
            Path("kept.npz").write_bytes(other)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "update", update)
    assert cli.main([*COMMAND, "-o", "out.png", "--checkpoint", "kept.npz"]) == 130
    assert "found the state of another run" in capsys.readouterr().err
    assert (folder / "kept.npz").read_bytes() == other


def test_stylize_does_not_replace_what_is_no_checkpoint(folder: Path) -> None:
    before = contents(folder)
    for name in ("photo.png", "weights.npz", "other-run.npz"):
        for resume in (False, True):

            def paint(name: str = name, resume: bool = resume) -> None:
                options: dict[str, Any] = {"weights": "random", "iterations": 1}
                npstyle.stylize("photo.png", "painting.png", **options, checkpoint=name, resume=resume)

            if resume and name == "other-run.npz":
                error_line(paint, "resume: blend")
            else:
                error_line(paint, f"checkpoint: {name}")
    assert contents(folder) == before
    with pytest.raises(
        npstyle.UserError, match="resume: found 'maybe'; expected False, True, 'must' or 'quietly'"
    ):
        npstyle.stylize("photo.png", "painting.png", checkpoint="x", resume="maybe")  # type: ignore[arg-type]


def test_save_every_replaces_no_file(folder: Path, capsys: Captured) -> None:
    before = contents(folder)
    line = refusal(capsys, "-o", "old.png", "--save-every", "2")
    assert line == (
        "npstyle: --save-every: old-00002.png: found a file of that name; expected a new name; "
        "choose another or add --overwrite\n"
    )
    assert contents(folder) == before
    line = refusal(capsys, "-o", "old.png", "--save-every", "1", "--init", "old-00002.png", "--overwrite")
    assert "--save-every: old-00002.png: found a file that this run reads, continues from or logs to" in line
    assert contents(folder) == before
    assert cli.main([*COMMAND, "-o", "old.png", "--save-every", "3"]) == 0  # 00002 is none of these
    assert {name: contents(folder)[name] for name in before} == before
    assert cli.main([*COMMAND, "-o", "old.png", "--save-every", "2", "--overwrite"]) == 0
    assert contents(folder)["old-00002.png"] != before["old-00002.png"]


def test_save_every_replaces_no_file_that_appears_during_the_run(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    def update(self: Any, progress: Any) -> None:
        Path("out-00002.png").write_text("precious")

    monkeypatch.setattr(ProgressBar, "update", update)
    assert cli.main([*COMMAND, "-o", "out.png", "--save-every", "2"]) == 0
    assert "found a file of that name" in capsys.readouterr().err
    assert Path("out-00002.png").read_text() == "precious"


def test_room_for_checkpoints_is_looked_for_before_the_run(
    tmp_path: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    """In the folder they are written to, whose name the line has; what they take is said where it is much."""
    settings = Settings(optimizer="lbfgs32", iterations=4)
    large = Request(np.zeros((5000, 4000, 3), np.uint8), (), settings, 5000)
    stored = 4 * 3 * 5000 * 4000 * (5 + 2 * 3)
    assert checkpoint_bytes(large) == pytest.approx(stored, rel=0.01)
    place = tmp_path / "run.npz"
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2.1 * stored))
    assert describe_checkpoint(place, large) == ", checkpoints of 2.6 GB"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1.5 * stored))
    describe_checkpoint(place, large)
    assert capsys.readouterr().err == (
        f"npstyle: checkpoint: found 4.0 GB free in {tmp_path}; expected about 5.3 GB; --checkpoint names "
        "another place; continuing, with those that there is room for\n"
    )
    assert describe_checkpoint(None, large) == ""


def test_state_of_an_interrupted_run_is_kept_until_the_new_run_is_further(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setenv("NPSTYLE_CHECKPOINT_EVERY", "0")
    command = [*COMMAND, "-o", "out.png", "--overwrite", "--checkpoint", "kept.npz"]
    expected = {}
    for at, nit in ((2, 2), (1, 2), (3, 3)):
        interrupt_at(at, monkeypatch)
        assert cli.main(command) == 130
        expected[at] = capsys.readouterr().err
        assert checkpoint.read("kept.npz").nit == nit
    assert expected[2] == ""
    assert expected[1] == expected[3]
    assert expected[1] == (
        "npstyle: checkpoint: kept.npz: an interrupted run like this one, 2 iterations, less than a minute "
        "old; it is kept until this run is further (resume continues it)\n"
    )
    os.utime("kept.npz", (0, 0))
    interrupt_at(None, monkeypatch)
    assert cli.main(command) == 0
    assert " days old" in capsys.readouterr().err
    assert not Path("kept.npz").exists()  # the run is complete


def test_resume_begins_if_there_is_nothing_to_continue(folder: Path, capsys: Captured) -> None:
    command = [*COMMAND, "-o", "out.png", "--checkpoint", "kept.npz"]
    assert cli.main([*command, "--resume=must"]) == 1
    assert capsys.readouterr().err == (
        "npstyle: --resume: found no checkpoint of this run at kept.npz; expected one to continue from; "
        "give what that run was given, or resume without 'must'\n"
    )
    assert cli.main([*command, "--resume"]) == 0
    assert capsys.readouterr().err == (
        "npstyle: resume: no checkpoint of this run at kept.npz; beginning with its first iteration\n"
    )
    with pytest.warns(CheckpointWarning, match="no checkpoint of this run"):
        result = npstyle.stylize(
            "photo.png", "painting.png", weights="random", iterations=1, checkpoint="x", resume=True
        )
    assert result.checkpoint is None  # nothing was written


def test_resume_must_is_one_word(capsys: Captured) -> None:
    parse = painting_parser().parse_args
    for words, resume in ((["--resume"], True), (["--resume=must"], "must"), ([], False)):
        options = parse([*words, "must", "painting.jpg"])
        assert (options.resume, str(options.content)) == (resume, "must")
    for word in ("--resume=", "--resume=always", "--resume=true"):
        with pytest.raises(SystemExit):
            parse([word, *PICTURES])
        assert capsys.readouterr().err.count("\n") == 1


STUDY = ["--weights", "weights.npz", "--threads", "1", "--quiet"]
INSPECT = ["inspect", "--layers", "conv1_1", "--channels", "1", *STUDY]


@pytest.mark.parametrize(
    ("command", "reads"),
    [
        (COMMAND, "photo.png"),
        (COMMAND, "painting.png"),
        (COMMAND, "link.png"),
        ([*COMMAND, "--init", "old-00002.png"], "old-00002.png"),
        ([*COMMAND, "--keep-mask", "mask.png"], "mask.png"),
        (["sheet", "photo.png", "--styles", "painting.png", *FAST, "--weights", "random"], "painting.png"),
        (["reconstruct", "photo.png", "--layer", "conv1_1", *STUDY], "photo.png"),
        (["texture", "painting.png", "--init", "photo.png", "--layers", "conv1_1", *STUDY], "photo.png"),
        (["figure", "layers", "photo.png", "painting.png", *STUDY], "painting.png"),
        (["weights", "normalize", "weights.npz", "photo.png", "--quiet"], "weights.npz"),
        (["weights", "convert", "weights.npz"], "weights.npz"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_overwrite_does_not_mean_what_is_read(
    folder: Path, command: list[str], reads: str, capsys: Captured
) -> None:
    """The photograph would be lost, and an interrupted run could not be continued."""
    before = contents(folder)
    option = [] if command[1] == "convert" else ["-o"]
    assert cli.main([*command, *option, reads, "--overwrite"]) == 1
    expected = f"npstyle: output: {reads}: found a file that this command reads; expected a new name; "
    assert capsys.readouterr().err == f"{expected}choose another\n"
    assert contents(folder) == before


def test_overwrite_does_not_mean_what_is_read_from_home(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    command = ["reconstruct", "painting.png", "--layer", "conv1_1", "--init=~/photo.png", *STUDY]
    assert cli.main([*command, "-o", "~/photo.png", "--overwrite"]) == 1
    assert "photo.png: found a file that this command reads" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["picture", "style", "--at"])
def test_inspect_does_not_replace_what_it_reads(folder: Path, role: str, capsys: Captured) -> None:
    """Not even with --overwrite: the names of its pictures were not chosen by the user."""
    (folder / "maps").mkdir()
    (folder / "maps" / "gradients.png").write_bytes((folder / "painting.png").read_bytes())
    (folder / "gram-conv1_1.png").symlink_to("maps/gradients.png")
    before = contents(folder / "maps")
    words = {
        "picture": ["maps/gradients.png"],
        "style": ["photo.png", "gram-conv1_1.png"],
        "--at": ["photo.png", "--at", "maps/gradients.png"],
    }[role]
    assert cli.main([*INSPECT, *words, "-o", "maps", "--overwrite"]) == 1
    line = "npstyle: output: maps/gradients.png: found a file that this command reads; "
    assert capsys.readouterr().err.startswith(line)
    assert contents(folder / "maps") == before


def test_folder_of_inspect_is_probed_before_filters_are_loaded(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    """They may have to be downloaded."""
    monkeypatch.setattr("npstyle.weights.load_weights", None)
    (folder / "maps").mkdir()
    (folder / "maps" / "gradients.png").write_text("precious")
    assert cli.main([*INSPECT, "photo.png", "-o", "maps"]) == 1
    assert "output: maps/gradients.png: found a file of that name" in capsys.readouterr().err
    assert contents(folder / "maps") == {"gradients.png": b"precious"}


@pytest.mark.parametrize(
    "command",
    [
        "reconstruct photo.png --layer conv1_1 --iterations 1 -o new.png --weights",
        "reconstruct photo.png --layer conv1_1 --iterations 1 -o new.png --weights weights.npz --init",
        "texture photo.png --layers conv1_1 --iterations 1 -o new.png --weights weights.npz --init",
        "figure content photo.png --iterations 0 -o new.png --weights",
        "inspect photo.png --layers conv1_1 --channels 1 -o new --weights",
        "inspect photo.png --layers conv1_1 --channels 1 -o new --weights weights.npz --at",
        "weights normalize -o new.npz weights.npz",
        "weights normalize -o new.npz photo.png",
    ],
)
def test_files_that_other_commands_read_are_kept(folder: Path, command: str, capsys: Captured) -> None:
    """Also with --overwrite, which is for the output alone."""
    before = contents(folder)
    for name in [*before, "missing.png"]:
        cli.main([*command.split(), name, "--threads", "1", "--quiet", "--overwrite"])
        after = contents(folder)
        assert {key: after.get(key) for key in before} == before, name


@pytest.mark.parametrize(
    "command",
    [
        ["reconstruct", "photo.png", "--layer", "conv1_1", "--iterations", "1", *STUDY, "-o"],
        ["texture", "painting.png", "--layers", "conv1_1", "--iterations", "1", *STUDY, "-o"],
        ["figure", "style", "painting.png", "--iterations", "1", *STUDY, "-o"],
        ["inspect", "photo.png", "--layers", "conv1_1", "--channels", "1", *STUDY, "-o"],
        ["weights", "convert", "weights.npz"],
        ["weights", "normalize", "weights.npz", "photo.png", "--quiet", "-o"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_no_other_command_destroys_a_file(folder: Path, command: list[str], capsys: Captured) -> None:
    (folder / "maps").mkdir()
    inspected = cli.main(
        ["inspect", "photo.png", "--layers", "conv1_1", "--channels", "1", *STUDY, "-o", "maps"]
    )
    assert inspected == 0
    before = contents(folder), contents(folder / "maps")
    for name in [*before[0], "maps"]:
        assert cli.main([*command, name]) == 1, name
        line = capsys.readouterr().err
        assert line.startswith("npstyle: output: ")
        assert line.count("\n") == 1
        assert (contents(folder), contents(folder / "maps")) == before
