"""Faults during a run: kills, signals, full disks, too little memory, clocks, other runs."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

import soak
from npstyle import Settings, images, weights
from npstyle._runtime.atomic import TEMPORARY
from npstyle.cli import main as cli
from npstyle.cli.interrupts import SIGNALS, Signals
from npstyle.cli.progress import ProgressBar
from npstyle.lbfgs import PrivateLbfgsb
from npstyle.objective import Objective
from npstyle.optimize import Minimizer
from npstyle.run import checkpoint, checkpoint_writer, memory
from npstyle.weights import registry

Array = NDArray[Any]
Patch = pytest.MonkeyPatch
Captured = pytest.CaptureFixture[str]

FAST = ["--weights", "random", "--style-layers", "conv1_1", "--content-layers", "conv1_2"]
COMMAND = ["photo.png", "painting.png", *FAST, "--iterations", "4", "--min-size", "34", "--quiet"]
RESUME = ["--overwrite", "--resume", "--checkpoint", "kept.npz"]
UPDATE = ProgressBar.update


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The current folder, with a photograph and a painting."""
    rng = np.random.default_rng(0)
    for name, shape in (("photo.png", (32, 48, 4)), ("painting.png", (40, 40, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def whole(folder: Path) -> bytes:
    """The picture of an undisturbed run."""
    assert cli.main([*COMMAND, "-o", "whole.png", "--no-checkpoint"]) == 0
    return (folder / "whole.png").read_bytes()


def at_iteration(number: int, action: Callable[[], object], monkeypatch: Patch, once: bool = False) -> None:
    """Do something after an iteration of every run that follows, or of the first one only."""
    done: list[bool] = []

    def update(self: Any, progress: Any) -> None:
        UPDATE(self, progress)
        if progress.iteration == number and not (once and done):
            done.append(True)
            action()

    monkeypatch.setattr(ProgressBar, "update", update)


def resumed(folder: Path, monkeypatch: Patch) -> bytes:
    monkeypatch.setattr(ProgressBar, "update", UPDATE)
    assert cli.main([*COMMAND, "-o", "out.png", "--overwrite", "--resume"]) == 0
    return (folder / "out.png").read_bytes()


def program(*arguments: str, limit: tuple[str, int] | None = None, **environment: str) -> Any:
    """The command line in a process of its own, below one limit of the system."""

    def set_limit() -> None:
        if limit:
            import resource

            name, value = limit
            resource.setrlimit(getattr(resource, name), (value, value))

    if limit:
        pytest.importorskip("resource")
    return subprocess.run(
        [sys.executable, "-m", "npstyle", *arguments],
        env={**os.environ, **environment},
        preexec_fn=set_limit if limit else None,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def refuge_in(message: str) -> Path:
    """The file in the folder for temporary files that a message names."""
    return Path(re.split("; the (?:picture is|pictures are|filters are) in ", message)[1].strip())


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_run_killed_at_random_resumes_to_same_picture(tmp_path: Path, optimizer: str) -> None:
    soak.make_pictures(tmp_path)
    expected, seconds = soak.undisturbed(tmp_path, optimizer, 40)
    outcome = soak.killed(tmp_path, optimizer, 40, random.Random(1), longest=0.8 * seconds)
    assert outcome.kills > 0
    assert outcome.picture == expected


@pytest.mark.parametrize(
    ("signals", "status"),
    [([number], 128 + number) for number in SIGNALS[1:]] + [([signal.SIGINT] * 2, 130)],
    ids=[*(number.name for number in SIGNALS[1:]), "Ctrl-C twice"],
)
@pytest.mark.parametrize("iteration", [3, 4, 7])
def test_signals_save_picture_and_checkpoint(
    folder: Path, whole: bytes, signals: list[signal.Signals], status: int, iteration: int, monkeypatch: Patch
) -> None:
    def raise_all() -> None:
        for one in signals:
            signal.raise_signal(one)

    at_iteration(iteration, raise_all, monkeypatch)
    assert cli.main([*COMMAND, "-o", "out.png"]) == status
    with Image.open(folder / "out.png") as image:
        assert image.size == (48, 32)
    assert resumed(folder, monkeypatch) == whole


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a system without SIGHUP")
def test_hangup_below_nohup_changes_nothing(folder: Path, whole: bytes, monkeypatch: Patch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        at_iteration(3, lambda: signal.raise_signal(signal.SIGHUP), monkeypatch)
        assert cli.main([*COMMAND, "-o", "out.png"]) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (folder / "out.png").read_bytes() == whole


def test_a_closed_terminal_does_not_cost_the_picture(folder: Path) -> None:
    """The terminal's other end is closed during the run: SIGHUP comes, and nothing can be printed."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # room for a bar
    own_terminal = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    run = "import runpy; runpy.run_module('npstyle', run_name='__main__')"
    words = [argument for argument in COMMAND if argument != "--quiet"]
    words[words.index("--iterations") + 1] = "100000"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{own_terminal}\n{run}", *words, "--optimizer", "adam", "-o", "out.png"],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    printed = b""
    while b"loss" not in printed:
        printed += os.read(terminal, 1000)
    os.close(terminal)
    assert process.wait(timeout=100) == 129
    with Image.open("out.png") as image:
        assert image.size == (48, 32)


def test_the_first_of_several_signals_gives_the_exit_status() -> None:
    with Signals() as signals:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # at once: the same interruption
    assert signals.status == 143


@pytest.mark.parametrize("where", ["__init__", "__call__"], ids=["targets", "first evaluation"])
def test_ctrl_c_between_two_levels_resumes_there(
    folder: Path, whole: bytes, where: str, monkeypatch: Patch, capsys: Captured
) -> None:
    original = getattr(Objective, where)
    ended: list[bool] = []

    def interrupted(self: Objective, *arguments: Any) -> Any:
        if ended:
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    at_iteration(4, lambda: ended.append(True), monkeypatch)
    monkeypatch.setattr(Objective, where, interrupted)
    arguments = [argument for argument in COMMAND if argument != "--quiet"]
    assert cli.main([*arguments, "-o", "out.png"]) == 130
    output, errors = capsys.readouterr()
    assert "enlarged from 34 x 23" in output
    assert "run the same command with --resume" in errors
    monkeypatch.setattr(Objective, where, original)
    assert resumed(folder, monkeypatch) == whole


def test_picture_stored_between_levels_must_fit(folder: Path, monkeypatch: Patch, capsys: Captured) -> None:
    at_iteration(6, lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    assert cli.main([*COMMAND, "-o", "out.png", "--checkpoint", "kept.npz"]) == 130
    capsys.readouterr()
    stored = checkpoint.read("kept.npz")
    for levels, shape in (((), (23, 34, 3)), (stored.levels, (23, 35, 3)), (stored.levels, (3,))):
        state = {"previous_level": np.zeros(shape, np.float32)}
        checkpoint.write("kept.npz", stored._replace(levels=levels, state=state))
        assert cli.main([*COMMAND, "-o", "out.png", *RESUME]) == 1
        line = capsys.readouterr().err
        assert line.startswith("npstyle: checkpoint: kept.npz: found something else (float32 array of shape")
        assert line.count("\n") == 1


def test_levels_of_a_checkpoint_must_be_those_of_the_run(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    at_iteration(6, lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    assert cli.main([*COMMAND, "-o", "out.png", "--checkpoint", "kept.npz"]) == 130
    stored = checkpoint.read("kept.npz")
    [level] = stored.levels
    for levels, words in (
        ((level._replace(width=35),), "found something else (levels of [(35, 23)] pixels)"),
        ((level, level), "found level 3; expected 1 to 2"),
    ):
        checkpoint.write("kept.npz", stored._replace(levels=levels))
        capsys.readouterr()
        assert cli.main([*COMMAND, "-o", "out.png", *RESUME]) == 1
        line = capsys.readouterr().err
        assert words in line
        assert line.count("\n") == 1


def test_ctrl_c_while_the_first_targets_are_computed(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    def interrupted(self: Objective, *_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Objective, "__init__", interrupted)
    assert cli.main([*COMMAND, "-o", "out.png"]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert not (folder / "out.png").exists()


@pytest.mark.parametrize("seconds", ["soon", "-1", "nan"])
def test_the_time_between_checkpoints_is_a_number(folder: Path, seconds: str, capsys: Captured) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NPSTYLE_CHECKPOINT_EVERY", seconds)
        assert cli.main([*COMMAND, "-o", "out.png"]) == 1
    message = capsys.readouterr().err
    assert message.startswith(
        f"npstyle: NPSTYLE_CHECKPOINT_EVERY: found '{seconds}'; expected a finite number"
    )
    assert message.count("\n") == 1


def test_run_continues_without_room_for_checkpoints(folder: Path, whole: bytes) -> None:
    """No file larger than 100 kB: the state is larger, the picture is not."""
    where = ["-o", "out.png", "--checkpoint", "kept.npz"]
    done = program(*COMMAND, *where, limit=("RLIMIT_FSIZE", 100_000), NPSTYLE_CHECKPOINT_EVERY="0")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == (
        "npstyle: checkpoint: kept.npz: found File too large on writing; expected room to write; "
        "choose another place; continuing without checkpoints\n"
    )
    assert (folder / "out.png").read_bytes() == whole
    assert not list(folder.glob(".npstyle-*"))


@pytest.fixture
def full_disk(folder: Path, monkeypatch: Patch) -> Path:
    """A folder `disk` that is full, as some file systems say it: not before a file is to reach the disk."""
    disk = folder / "disk"
    disk.mkdir()
    fsync = os.fsync

    def no_space(descriptor: int) -> None:
        number = os.fstat(descriptor).st_ino
        if any(path.stat().st_ino == number for path in disk.rglob("*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_space)
    return disk


def test_full_disk_leaves_picture_in_temporary_folder(
    folder: Path, whole: bytes, full_disk: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setenv("NPSTYLE_CHECKPOINT_EVERY", "0")
    assert cli.main([*COMMAND, "-o", "disk/out.png", "--checkpoint", "disk/kept.npz"]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    warned, failed = errors.splitlines()
    assert "kept.npz: found No space left on device on writing" in warned
    assert warned.endswith("continuing without checkpoints")
    assert "out.png: found No space left on device on writing" in failed
    assert refuge_in(failed).read_bytes() == whole
    refuge_in(failed).unlink()
    assert not list(full_disk.iterdir())


STUDY_RUN = ["--weights", "random", "--iterations", "4", "--quiet", "--threads", "1"]
STUDY = {
    "reconstruct": ["reconstruct", "painting.png", "--layer", "conv1_1", *STUDY_RUN],
    "texture": ["texture", "painting.png", "--layers", "conv1_1", *STUDY_RUN],
    "figure": ["figure", "content", "painting.png", *STUDY_RUN],
}
INSPECT = ["inspect", "painting.png", "--weights", "random", "--layers", "conv1_1", "--threads", "1"]
NORMALIZE = ["weights", "normalize", "in.npz", "painting.png", "--quiet", "--threads", "1"]


@pytest.fixture
def filters(folder: Path) -> Path:
    """A file of filters for `weights convert` and `normalize`."""
    return weights.write_weights("in.npz", weights.random_weights(deepest="conv1_1"))


@pytest.fixture(params=STUDY)
def study_command(request: pytest.FixtureRequest) -> list[str]:
    """A study command that takes iterations, without its output."""
    return STUDY[request.param]


@pytest.mark.parametrize(
    ("signals", "status"),
    [([number], 128 + number) for number in SIGNALS[1:]] + [([signal.SIGINT] * 2, 130)],
    ids=[*(number.name for number in SIGNALS[1:]), "Ctrl-C twice"],
)
def test_signals_save_picture_of_study_commands(
    folder: Path, study_command: list[str], signals: list[signal.Signals], status: int, monkeypatch: Patch
) -> None:
    def raise_all() -> None:
        for one in signals:
            signal.raise_signal(one)

    at_iteration(2, raise_all, monkeypatch)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    assert cli.main([*study_command, "-o", "out.png"]) == status
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    with Image.open("out.png") as image:
        assert min(image.size) >= 40


@pytest.mark.usefixtures("filters")
@pytest.mark.parametrize("command", ["paint", *STUDY, "inspect", "convert", "normalize"])
def test_a_mounted_output_is_overwritten_in_place(folder: Path, command: str, monkeypatch: Patch) -> None:
    """Nothing can be renamed over a single file that is mounted into a container."""
    output = Path("out.npz" if command in ("convert", "normalize") else "out.png")
    words = {
        "paint": [*COMMAND, "--iterations", "0", "-o"],
        **{name: [*words, "--iterations", "0", "-o"] for name, words in STUDY.items()},
        "inspect": [*INSPECT, "-o"],
        "convert": ["weights", "convert", "in.npz"],
        "normalize": [*NORMALIZE, "-o"],
    }[command]
    words = [*words, str(output)]
    assert cli.main(words) == 0
    if command == "inspect":
        output = min(output.iterdir())
    expected = output.read_bytes()
    output.write_bytes(b"the old one")
    output.chmod(0o600)
    number = output.stat().st_ino

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", busy)
    assert cli.main([*words, "--overwrite"]) == 0
    assert output.read_bytes() == expected
    assert output.stat().st_ino == number
    assert not list(output.parent.glob(TEMPORARY))


def test_ctrl_c_while_a_study_command_saves_does_not_lose_the_picture(
    folder: Path, study_command: list[str], monkeypatch: Patch
) -> None:
    write = images.write

    def interrupted(*arguments: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        write(*arguments, **options)

    monkeypatch.setattr(images, "write", interrupted)
    assert cli.main([*study_command, "-o", "out.png"]) == 0
    assert Path("out.png").is_file()


def test_full_disk_leaves_picture_of_study_commands_in_temporary_folder(
    folder: Path, study_command: list[str], full_disk: Path, capsys: Captured
) -> None:
    assert cli.main([*study_command, "-o", "whole.png"]) == 0
    assert cli.main([*study_command, "-o", "disk/out.png"]) == 1
    (failed,) = capsys.readouterr().err.splitlines()
    assert "out.png: found No space left on device on writing" in failed
    assert refuge_in(failed).read_bytes() == Path("whole.png").read_bytes()
    refuge_in(failed).unlink()
    assert not list(full_disk.iterdir())


def test_folder_that_vanishes_during_study_commands(
    folder: Path, study_command: list[str], monkeypatch: Patch, capsys: Captured
) -> None:
    (folder / "gone").mkdir()
    at_iteration(2, (folder / "gone").rmdir, monkeypatch, once=True)
    assert cli.main([*study_command, "-o", "gone/out.png"]) == 1
    (failed,) = capsys.readouterr().err.splitlines()
    assert "out.png: found No such file or directory" in failed
    with Image.open(refuge_in(failed)) as image:
        assert min(image.size) >= 40
    refuge_in(failed).unlink()


@pytest.mark.usefixtures("filters")
@pytest.mark.parametrize("command", [*STUDY, "inspect", "normalize"])
def test_too_little_memory_for_other_commands_is_refused(
    folder: Path, command: str, monkeypatch: Patch, capsys: Captured
) -> None:
    Image.fromarray(np.zeros((100, 200, 3), np.uint8)).save("large.png")
    output = {"inspect": "out", "normalize": "out.npz"}.get(command, "out.png")
    words = {"inspect": INSPECT, "normalize": NORMALIZE, **STUDY}[command]
    words = [*words, "-o", output, "--size", "200"]
    words[words.index("painting.png")] = "large.png"
    if command in STUDY:
        words[words.index("--iterations") + 1] = "0"
    free = {"figure": 100e6, "normalize": 26e6}.get(command, 36e6)
    monkeypatch.setattr(memory, "available_memory", lambda *_: free)
    assert cli.main(words) == 1
    (failed,) = capsys.readouterr().err.splitlines()
    assert failed.startswith(f"npstyle: memory: found {free / 1e6:.0f} MB free; expected about ")
    assert failed.endswith(", or --force to run all the same")
    size = int(failed.split("try --size ")[1].split(",")[0])
    assert 32 < size < 200
    assert not Path(output).exists()
    words[words.index("--size") + 1] = str(size + 1)
    assert cli.main(words) == 1
    words[words.index("--size") + 1] = str(size)
    assert cli.main(words) == 0
    words[words.index("--size") + 1] = "200"
    assert cli.main([*words, "--overwrite", "--force"]) == 0


def test_sigterm_during_inspect_leaves_nothing_behind(
    folder: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    def terminated(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("npstyle.study.inspect", terminated)
    assert cli.main([*INSPECT, "-o", "out"]) == 143
    assert capsys.readouterr().err.splitlines()[-1] == "npstyle: interrupted; nothing was written"
    assert not (folder / "out").exists()


def test_signals_while_inspect_saves_do_not_lose_pictures(folder: Path, monkeypatch: Patch) -> None:
    write = images.write

    def terminated(*arguments: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        write(*arguments, **options)

    monkeypatch.setattr(images, "write", terminated)
    assert cli.main([*INSPECT, "-o", "out"]) == 0
    assert len(list((folder / "out").iterdir())) == 4


@pytest.mark.usefixtures("filters")
def test_normalized_filters_survive_signals_and_a_full_disk(
    folder: Path, full_disk: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    assert cli.main([*NORMALIZE, "-o", "whole.npz"]) == 0
    assert cli.main([*NORMALIZE, "-o", "disk/out.npz"]) == 1
    (failed,) = capsys.readouterr().err.splitlines()
    assert "out.npz: found No space left on device on writing" in failed
    refuge = refuge_in(failed)
    assert refuge.suffix == ".npz"
    assert refuge.read_bytes() == Path("whole.npz").read_bytes()
    refuge.unlink()
    assert not list(full_disk.iterdir())
    write = weights.write_weights

    def terminated(*arguments: Any) -> Path:
        signal.raise_signal(signal.SIGTERM)
        return write(*arguments)

    monkeypatch.setattr(weights, "write_weights", terminated)  # while they are saved: nothing is lost
    assert cli.main([*NORMALIZE, "-o", "out.npz"]) == 0
    assert Path("out.npz").read_bytes() == Path("whole.npz").read_bytes()
    monkeypatch.setattr("npstyle.initialize.normalize_network", terminated)  # before: nothing is written
    assert cli.main([*NORMALIZE, "-o", "never.npz"]) == 143
    assert capsys.readouterr().err.splitlines()[-1] == "npstyle: interrupted; nothing was written"
    assert not Path("never.npz").exists()


@pytest.mark.usefixtures("filters")
@pytest.mark.parametrize("command", [*STUDY, "inspect", "normalize"])
def test_memory_is_announced_by_all_commands_that_compute(
    folder: Path, command: str, capsys: Captured
) -> None:
    output = {"inspect": "out", "normalize": "out.npz"}.get(command, "out.png")
    words = {"inspect": INSPECT, "normalize": NORMALIZE, **STUDY}[command]
    assert cli.main([*(word for word in words if word != "--quiet"), "-o", output]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert sum(bool(re.search(r": about \d+ MB of memory$", line)) for line in lines) == 1


def test_full_disk_leaves_pictures_of_inspect_in_temporary_folder(
    folder: Path, full_disk: Path, capsys: Captured
) -> None:
    assert cli.main([*INSPECT, "-o", "whole"]) == 0
    capsys.readouterr()
    assert cli.main([*INSPECT, "-o", "disk/out", "--quiet"]) == 1
    (failed,) = capsys.readouterr().err.splitlines()
    assert "No space left on device on writing" in failed
    refuge = refuge_in(failed)
    assert {path.name: path.read_bytes() for path in refuge.iterdir()} == {
        path.name: path.read_bytes() for path in Path("whole").iterdir()
    }
    shutil.rmtree(refuge)
    assert not list(full_disk.iterdir())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_a_limit_of_memory_is_found_before_the_run(folder: Path) -> None:
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save("large.png")
    command = ["large.png", "painting.png", "--weights", "random", "--threads", "1", "--size", "2048"]
    command += ["--preset", "default"]
    done = program(*command, limit=("RLIMIT_AS", 530_000_000), OPENBLAS_NUM_THREADS="1")
    assert done.returncode == 1
    assert done.stderr.startswith("npstyle: memory: found ")
    assert done.stderr.count("\n") == 1


def test_clocks_that_jump_change_nothing(folder: Path, whole: bytes, monkeypatch: Patch) -> None:
    dice, clock = random.Random(0), time.time
    monkeypatch.setattr(time, "time", lambda: clock() + dice.uniform(-1e9, 1e9))
    monkeypatch.setenv("NPSTYLE_CHECKPOINT_EVERY", "0")
    at_iteration(6, lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    assert cli.main([*COMMAND, "-o", "out.png"]) == 130
    assert resumed(folder, monkeypatch) == whole


def test_old_checkpoints_are_removed_but_not_the_resumed_one(
    folder: Path, whole: bytes, alone: Path, monkeypatch: Patch
) -> None:
    at_iteration(3, lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    assert cli.main([*COMMAND, "-o", "out.png"]) == 130
    [stored] = (alone / "checkpoints").iterdir()
    names = (24 * "0" + ".npz", ".npstyle-12345678.tmp", "mine.npz", "other.txt", 24 * "1" + ".npz")
    others = [stored.with_name(name) for name in names]
    for path in others:
        path.touch()
    for path in (stored, *others[:4]):
        os.utime(path, (0, 0))
    assert resumed(folder, monkeypatch) == whole
    assert all(path.exists() for path in others)
    assert checkpoint_writer.folder() == stored.parent
    assert [path.exists() for path in others] == [False, False, True, True, True]


def start_two(*more: str) -> list[tuple[int, str]]:
    """Run two seeds with the same output at once; the exit status and standard error of each."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "npstyle", *COMMAND, "--seed", seed, "-o", "out.png", *more],
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in "12"
    ]
    return [
        (process.returncode, message)
        for process in processes
        for _, message in [process.communicate(timeout=100)]
    ]


def pictures_of_two_seeds() -> list[bytes]:
    for seed in "12":
        assert cli.main([*COMMAND, "--seed", seed, "-o", f"{seed}.png"]) == 0
    return [Path(f"{seed}.png").read_bytes() for seed in "12"]


def test_one_of_two_runs_with_same_output_writes_it(folder: Path) -> None:
    pictures = pictures_of_two_seeds()
    ended = start_two()
    assert sorted(status for status, _ in ended) == [0, 1]
    argmax = [status for status, _ in ended].index(0)
    assert Path("out.png").read_bytes() == pictures[argmax]
    assert ended[argmax][1] == ""
    message = ended[1 - argmax][1]
    assert "out.png: found a file of that name" in message
    assert message.count("\n") == 1
    if "the picture is in" in message:  # else it was found before the run
        assert refuge_in(message).read_bytes() == pictures[1 - argmax]
        refuge_in(message).unlink()


def test_of_two_runs_that_overwrite_a_whole_picture_stays(folder: Path) -> None:
    pictures = pictures_of_two_seeds()
    assert start_two("--overwrite") == [(0, ""), (0, "")]
    assert Path("out.png").read_bytes() in pictures
    assert not list(folder.glob(".npstyle-*"))


@pytest.mark.parametrize("output", ["gone/out.png", "out.png"], ids=["the output's", "the current one"])
def test_a_folder_that_vanishes_during_the_run(
    folder: Path, whole: bytes, output: str, monkeypatch: Patch, capsys: Captured
) -> None:
    gone = folder / "gone"
    gone.mkdir()
    inputs = [str(folder / name) for name in COMMAND[:2]]
    if output == "out.png":
        monkeypatch.chdir(gone)
    at_iteration(2, lambda: shutil.rmtree(gone), monkeypatch)
    more = ["--save-every", "3", "--checkpoint", str(gone / "kept.npz")]
    monkeypatch.setenv("NPSTYLE_CHECKPOINT_EVERY", "0")
    assert cli.main([*inputs, *COMMAND[2:], "-o", output, *more]) == 1
    *warned, failed = capsys.readouterr().err.splitlines()
    assert sorted(line.split("; ")[-1] for line in warned) == [
        "continuing without checkpoints",
        "continuing without intermediate pictures",
    ]
    assert "out.png: found No such file or directory" in failed
    assert refuge_in(failed).read_bytes() == whole
    refuge_in(failed).unlink()
    os.chdir(folder)  # before monkeypatch looks for the folder that it would leave


def test_alpha_is_kept_if_photograph_vanishes(folder: Path, monkeypatch: Patch) -> None:
    alpha = np.asarray(Image.open("photo.png"))[..., 3]
    at_iteration(2, (folder / "photo.png").unlink, monkeypatch)
    assert cli.main([*COMMAND, "-o", "out.png", "--alpha"]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open("out.png"))[..., 3], alpha)


class Liar:
    """Half the square of the distance to 0; from some call on its gradient points the wrong way."""

    terms: Mapping[str, float] = {}

    def __init__(self, honest: int) -> None:
        self.honest = honest

    def __call__(self, pixels: ArrayLike) -> tuple[float, Array]:
        x = np.asarray(pixels)
        weights = np.linspace(0.01, 1, x.size, dtype=np.float32).reshape(x.shape)
        self.honest -= 1
        sign = 1 if self.honest >= 0 else -1
        return float(0.5 * np.sum(weights * x * x)), np.float32(sign) * weights * x


def test_a_line_search_that_goes_wrong_keeps_the_best_picture() -> None:
    start = np.linspace(1, 255, 6 * 5 * 3).reshape(6, 5, 3)
    result = Minimizer(Liar(5), start, Settings(iterations=100)).run()
    assert "no step lowers the loss any more" in result.message
    assert 1 < len(result.losses) < 100
    assert result.loss == min(result.losses)
    assert Liar(1)(result.pixels)[0] == pytest.approx(result.loss, rel=1e-6)


PROCESSES = """
import multiprocessing
import signal
import sys
import warnings
import numpy as np
from npstyle import Settings, stylize

# Layers up to where there are all kernels.
RECIPE = Settings(content_layers=("conv2_2",), style_layers=("conv1_1", "conv3_1"), iterations=1)

def painted(threads):
    if hasattr(signal, "alarm"):
        signal.alarm(50)  # should it hang, it is not to stay
    rng = np.random.default_rng(0)
    photo, painting = rng.uniform(0, 255, (2, 32, 32, 3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = stylize(photo, painting, settings=RECIPE, weights="random", threads=threads)
    return result.image.tobytes(), [warning.category.__name__ for warning in caught]

if __name__ == "__main__":
    for before in map(int, sys.argv[2:]):
        if before:
            painted(before)
        # Two processes, as the main thread forks them: OpenMP's threads belong to the thread that had them.
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            one, two = pool.map(painted, [1, 2], chunksize=1)
        assert one == (painted(1)[0], [])
        assert two[0] == one[0]
        print(before, *two[1])
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_child_processes_paint_the_same_on_one_and_two_threads(tmp_path: Path, method: str) -> None:
    """After import only, and after a run on one or two threads; a child that can't use them says so.

    Only a fork inherits what its parent did before: one that painted on two threads is enough for the others.
    """
    done = python(tmp_path, PROCESSES, method, *("012" if method == "fork" else "2"))
    expected = "0\n1\n2 OpenMPWarning\n" if method == "fork" else "2\n"
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


# The child of a fork prints, for at most 20 s.
FORK = """
import os
import signal
import sys
import threading
import numpy as np
from npstyle._runtime import arena, threads
from npstyle import _kernels  # which loads BLAS

def blas_threads():
    libraries = threads._controller().lib_controllers
    return {library.num_threads for library in libraries if library.user_api == "blas"}

def fork(in_child):
    if pid := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return
    signal.alarm(20)
    in_child()
    sys.stdout.flush()
    os._exit(0)

def in_other_thread(block):
    inside, leave = threading.Event(), threading.Event()
    def stay():
        with block:
            inside.set()
            leave.wait(20)
    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(20)
    return leave

threads._controller().limit(limits=2, user_api="blas")
"""
AFTER_FORKS = {
    "arena": """
network_arena = arena.Arena()
leave = in_other_thread(arena._lock)
fork(lambda: network_arena.release(network_arena.borrow((3, 4), np.float32)))
leave.set()
print(*network_arena.borrow((3, 4), np.float32).shape)
""",
    "limit of another thread": """
leave = in_other_thread(threads.one_blas_thread())
def in_child():
    print(*blas_threads())
    with threads.one_blas_thread():
        print(*blas_threads())
    print(*blas_threads())
fork(in_child)
print(*blas_threads())
leave.set()
""",
    "own limit": """
with threads.one_blas_thread():
    def in_child():
        print(*blas_threads())
        with threads.one_blas_thread():
            print(*blas_threads())
        print(*blas_threads())
    fork(in_child)
print(*blas_threads())
""",
    "own limit, left in the child": """
with threads.one_blas_thread():
    child = not os.fork()
if not child:
    os.wait()
print(*blas_threads())
""",
    "no OpenMP": """
x = np.ones((2, 2, 8), np.float32)
_kernels.average_pool(x, np.empty((1, 1, 8), np.float32), 2)
fork(lambda: print(threads.resolve(2)))
""",
    "network of the parent": """
from npstyle import VGG19, load_weights
network = VGG19(load_weights("random"), threads=2)
pixels = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype(np.float32)
def sum_of_map():
    return float(network.forward(pixels, ["conv3_1"])["conv3_1"].sum())
expected = sum_of_map()
def in_child():
    signal.alarm(20)
    assert threads.resolve(None) == 1
    print(sum_of_map() == expected)
    fork(lambda: print(sum_of_map() == expected))
fork(in_child)
assert threads.resolve(2) == 2
print(sum_of_map() == expected)
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.parametrize(
    ("kind", "printed"),
    [
        ("arena", "3 4"),
        ("limit of another thread", "2 1 2 1"),
        ("own limit", "1 1 1 2"),
        ("own limit, left in the child", "2 2"),
        ("no OpenMP", "2"),
        ("network of the parent", "True True True"),
    ],
)
def test_locks_limits_and_networks_are_right_after_a_fork(
    tmp_path: Path, kind: str, printed: str, monkeypatch: Patch
) -> None:
    if kind == "no OpenMP":
        monkeypatch.setenv("NPSTYLE_KERNELS", "reference")
    done = python(tmp_path, FORK + AFTER_FORKS[kind])
    assert (done.returncode, done.stdout.split()) == (0, printed.split()), done.stderr


def python(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of Python's, in a file, for at most a minute: it may hang."""
    (folder / "program.py").write_text(program)
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "program.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_threads_of_blas_do_not_change_lbfgs_in_any_bit() -> None:
    """In float64, where it shows at once: OpenBLAS splits dot products of more than 10,000 elements."""
    rng = np.random.default_rng(0)
    curvature, goal = rng.uniform(0.1, 10, 96 * 96 * 3), rng.uniform(0, 255, 96 * 96 * 3)

    def function(x: Array) -> tuple[float, Array]:
        d = x - goal
        return float(np.sum(curvature * d**2 + 0.01 * d**4)), 2 * curvature * d + 0.04 * d**3

    points: list[Array] = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            PrivateLbfgsb(np.full(goal.size, 128.0), 10).run(
                function, lambda x, value: points.append(x.copy()), 15
            )
    np.testing.assert_array_equal(points[:15], points[15:])


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_threads_of_kernels_and_blas_do_not_change_a_bit(folder: Path, optimizer: str) -> None:
    rng = np.random.default_rng(0)
    for name in ("square.png", "painting.png"):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(name)
    command = ["square.png", "painting.png", *FAST, "--iterations", "12", "--color", "match"]
    for threads in "12":
        output = ["--depth", "16", "--optimizer", optimizer, "--threads", threads, "-o", f"{threads}.png"]
        done = program(*command, *output, OPENBLAS_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        assert done.returncode == 0, done.stderr
    assert Path("1.png").read_bytes() == Path("2.png").read_bytes()


def test_every_test_that_the_page_names_is_there() -> None:
    tests = Path(__file__).parent
    page = (tests.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    there = {
        name
        for path in tests.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 20
    assert named - there == set()


@pytest.fixture
def homeless(folder: Path, monkeypatch: Patch) -> None:
    """A user whom the system does not know, without HOME: `docker run --user 54321` in some images."""
    pwd = pytest.importorskip("pwd")

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "NPSTYLE_CACHE", "NPSTYLE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


NO_HOME = (
    "cache: found no home folder of this user; expected a folder to write to; set NPSTYLE_CACHE, or HOME"
)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_a_run_goes_on_without_checkpoints(folder: Path, capsys: Captured) -> None:
    assert cli.main([*COMMAND, "-o", "out.png"]) == 0
    assert capsys.readouterr().err == f"npstyle: {NO_HOME}; continuing without checkpoints\n"
    assert (folder / "out.png").is_file()
    assert cli.main([*COMMAND, "-o", "kept.png", "--checkpoint", "kept.npz"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("command", [["info"], ["weights", "list"]], ids=["info", "weights list"])
def test_without_a_home_folder_it_is_said_that_there_is_no_cache(
    command: list[str], capsys: Captured
) -> None:
    assert cli.main(command) == 0
    assert re.search(
        "^cache: *none: found no home folder of this user; set NPSTYLE_CACHE, or HOME$",
        capsys.readouterr().out,
        re.MULTILINE,
    )


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_nothing_is_fetched(monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.delenv("NPSTYLE_REGISTRY")  # npstyle's own
    monkeypatch.setattr(registry, "project_folder", lambda: Path("empty"))
    assert cli.main(["weights", "fetch"]) == 1
    assert capsys.readouterr().err == f"npstyle: {NO_HOME}\n"
    assert weights.find_weights() == (None, ["empty (no registered file)"])
    with pytest.warns(weights.RandomFiltersWarning, match="no home folder of this user"):
        weights.load_weights("auto", deepest="conv1_1")
    monkeypatch.setenv("NPSTYLE_CACHE", "~/cache")
    assert cli.main(["weights", "fetch"]) == 1
    assert capsys.readouterr().err == f"npstyle: {NO_HOME}\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the current folder")
@pytest.mark.parametrize("command", ["paint", *STUDY, "inspect", "convert", "normalize"])
def test_a_current_folder_that_is_gone_is_found_before_the_run(
    folder: Path, command: str, monkeypatch: Patch, capsys: Captured
) -> None:
    words = {
        "paint": COMMAND,
        "inspect": INSPECT,
        **STUDY,
        "convert": ["weights", "convert", "a.npz", "b.npz"],
        "normalize": [*NORMALIZE, "-o", "b.npz"],
    }[command]
    words = [str(folder / word) if word.endswith(".png") else word for word in words]
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    assert cli.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert re.match("npstyle: output: .*: found No such file or directory", line)


INTERRUPTED_IMPORT = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["MODULE"]:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, getattr(signal, os.environ["HANDLER"]))
sys.meta_path.insert(0, Finder())
runpy.run_module("npstyle", run_name="__main__", alter_sys=True)
"""


def run_interrupted(module: str, *words: str, handler: str = "default_int_handler") -> Any:
    """The program, with a Ctrl-C on its import of a module."""
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, *words],
        env={**os.environ, "MODULE": module, "HANDLER": handler},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    "module",
    [
        "npstyle.cli.main",
        "argparse",
        "npstyle.cli.paint",
        "numpy",
        "npstyle._kernels",
        "PIL.Image",
        "npstyle.run",
    ],
)
def test_ctrl_c_during_imports_is_one_line(folder: Path, module: str) -> None:
    done = run_interrupted(module, *COMMAND, "-o", "out.png")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nnpstyle: interrupted\n")
    assert not (folder / "out.png").exists()


def test_ctrl_c_that_is_ignored_stays_ignored_during_imports(folder: Path) -> None:
    done = run_interrupted("npstyle.cli.main", "presets", handler="SIG_IGN")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("error", [ImportError("initialization failed"), SystemError("no error set")])
def test_what_a_late_import_makes_of_a_signal_is_the_interruption(error: Exception) -> None:
    def late_import() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise error from None

    with pytest.raises(KeyboardInterrupt), Signals() as signals:
        late_import()
    assert signals.status == 143
    with pytest.raises(type(error)), Signals():
        raise error


def test_a_lost_picture_is_reported_where_there_is_no_temporary_folder(
    folder: Path, full_disk: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert cli.main([*COMMAND, "-o", "disk/out.png"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the picture is lost, as npstyle-" in line
    assert "No usable temporary directory found" in line
