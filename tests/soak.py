"""Runs that are killed at random moments and resumed, and the picture they end with.

The short form is in test_faults.py; the long one, with figures, is python tests/soak.py [KILLS] [SEED].
Each run is a process of its own, forked from one that has imported everything, so that kills hit runs.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

# Two levels, and many short iterations: a kill hits the writing of a checkpoint as often as an evaluation.
RECIPE = ["--weights", "random", "--style-layers", "conv1_1,conv2_1", "--content-layers", "conv2_1"]
SIZES = ["--min-size", "68", "--threads", "1", "--quiet"]
CHECKPOINT, OUTPUT = "kept.npz", "painted.png"
ERRORS = "errors.txt"
TIMEOUT = 120.0  # seconds
MODULES = ["npstyle.cli.main", "npstyle.cli.paint", "npstyle.run"]  # imported before the fork


class KilledRun(NamedTuple):
    """A run that was killed and resumed: its picture, and how often it was killed, and when."""

    picture: bytes
    kills: int
    restarts: int  # before there was a checkpoint
    half_written: int  # checkpoints


def make_pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shape in (("photo.png", (64, 96, 3)), ("painting.png", (60, 60, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)


def paint(folder: Path, arguments: list[str]) -> None:
    """The program, in a process of its own."""
    from npstyle.cli.main import main

    multiprocessing.set_start_method("fork", force=True)  # else tqdm's lock is missed when this is killed
    os.chdir(folder)
    os.environ["NPSTYLE_CHECKPOINT_EVERY"] = "0"
    os.dup2(os.open(ERRORS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    sys.exit(main(arguments))


def start(folder: Path, optimizer: str, iterations: int, *more: str) -> BaseProcess:
    recipe = [*RECIPE, *SIZES, "--optimizer", optimizer, "--iterations", str(iterations)]
    arguments = ["photo.png", "painting.png", *recipe, *more, "--overwrite"]
    return started(paint, folder, arguments)


def started(function: Callable[..., object], *arguments: object) -> BaseProcess:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(MODULES)
    process = forks.Process(target=function, args=arguments)
    process.start()
    return process


def check(process: BaseProcess, folder: Path) -> None:
    """RuntimeError if it has failed, and was not killed."""
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError((folder / ERRORS).read_text())


def undisturbed(folder: Path, optimizer: str, iterations: int) -> tuple[bytes, float]:
    """The picture of a run that is not killed, and the seconds it took."""
    started(int).join(TIMEOUT)  # what is forked is there from now on
    began = time.monotonic()
    process = start(folder, optimizer, iterations, "-o", OUTPUT, "--no-checkpoint")
    process.join(TIMEOUT)
    check(process, folder)
    picture = (folder / OUTPUT).read_bytes()
    (folder / OUTPUT).unlink()
    return picture, time.monotonic() - began


def killed(folder: Path, optimizer: str, iterations: int, rng: random.Random, longest: float) -> KilledRun:
    """Kill a run after at most `longest` seconds, resume it, and so on until it ends by itself."""
    kills = restarts = 0
    checkpoint, output = folder / CHECKPOINT, folder / OUTPUT
    while True:
        resume = ["--resume"] if checkpoint.exists() else []
        restarts += kills > 0 and not checkpoint.exists()
        process = start(folder, optimizer, iterations, "-o", OUTPUT, "--checkpoint", CHECKPOINT, *resume)
        process.join(rng.uniform(0, longest))
        if process.exitcode is None:
            process.kill()
            process.join(TIMEOUT)
        check(process, folder)
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0 or (output.exists() and not checkpoint.exists()):
            break
    halves = list(folder.glob(".npstyle-*.tmp"))
    run = KilledRun(output.read_bytes(), kills, restarts, len(halves))
    for path in [*halves, output]:
        path.unlink()
    return run


def soak(optimizer: str, kills: int, seed: int, iterations: int = 150) -> bool:
    """Kill runs until there were so many kills; print the numbers, and whether all pictures are equal."""
    rng, done, runs, equal = random.Random(seed), 0, 0, 0
    restarts = half_written = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder)
        expected, seconds = undisturbed(folder, optimizer, iterations)
        while done < kills:
            run = killed(folder, optimizer, iterations, rng, longest=0.8 * seconds)
            done, runs, equal = done + run.kills, runs + 1, equal + (run.picture == expected)
            restarts, half_written = restarts + run.restarts, half_written + run.half_written
    print(
        f"{optimizer}: {done} kills in {runs} runs of {seconds:.1f} s; {restarts} restarts before a first "
        f"checkpoint; {half_written} checkpoints half written; {equal} of {runs} pictures are those of a run "
        "that is not killed",
        flush=True,
    )
    return equal == runs


if __name__ == "__main__":
    kills, seed = (int(text) for text in (sys.argv[1:] + ["50", "0"][len(sys.argv) - 1 :]))
    passed = [soak(optimizer, kills, seed) for optimizer in ("lbfgs", "lbfgs32", "adam")]
    sys.exit(not all(passed))
