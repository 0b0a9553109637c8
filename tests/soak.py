"""Runs that are killed at random moments and resumed, and the picture they end with.

The short form is in test_faults.py; the long one, with figures, is python tests/soak.py [KILLS] [SEED].
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

# Two levels, and many short iterations: a kill hits the writing of a checkpoint as often as an evaluation.
RECIPE = ["--weights", "random", "--style-layers", "conv1_1,conv2_1", "--content-layers", "conv2_1"]
SIZES = ["--min-size", "68", "--threads", "1", "--quiet"]
CHECKPOINT, OUTPUT = "kept.npz", "painted.png"
TIMEOUT = 120.0  # seconds


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


def start(folder: Path, optimizer: str, iterations: int, *more: str) -> subprocess.Popen[bytes]:
    recipe = [*RECIPE, *SIZES, "--optimizer", optimizer, "--iterations", str(iterations)]
    return subprocess.Popen(
        [sys.executable, "-m", "npstyle", "photo.png", "painting.png", *recipe, *more, "--overwrite"],
        cwd=folder,
        env={**os.environ, "NPSTYLE_CHECKPOINT_EVERY": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def undisturbed(folder: Path, optimizer: str, iterations: int) -> tuple[bytes, float]:
    """The picture of a run that is not killed, and the seconds it took."""
    began = time.monotonic()
    process = start(folder, optimizer, iterations, "-o", OUTPUT, "--no-checkpoint")
    _, errors = process.communicate(timeout=TIMEOUT)
    if process.returncode:
        raise RuntimeError(errors.decode())
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
        try:
            _, errors = process.communicate(timeout=rng.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate(timeout=TIMEOUT)
        kills += process.returncode == -signal.SIGKILL
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(errors.decode())
        if process.returncode == 0 or (output.exists() and not checkpoint.exists()):
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
