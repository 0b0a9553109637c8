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

# Two sizes, and many iterations of little work: what is killed is as often at a checkpoint as at its sums.
RECIPE = ["--weights", "random", "--style-layers", "conv1_1,conv2_1", "--content-layers", "conv2_1"]
SIZES = ["--min-size", "68", "--threads", "1", "--quiet"]
CHECKPOINT, OUTPUT = "kept.npz", "painted.png"
PATIENCE = 120.0


class Told(NamedTuple):
    """What became of a run: kills, those before there was a checkpoint, those while one was written."""

    picture: bytes
    kills: int
    from_the_start: int
    half_written: int


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
    """The picture, and the seconds it took."""
    began = time.monotonic()
    process = start(folder, optimizer, iterations, "-o", OUTPUT, "--no-checkpoint")
    _, said = process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise RuntimeError(said.decode())
    picture = (folder / OUTPUT).read_bytes()
    (folder / OUTPUT).unlink()
    return picture, time.monotonic() - began


def killed(folder: Path, optimizer: str, iterations: int, dice: random.Random, longest: float) -> Told:
    """Kill a run after up to `longest` seconds, resume it, and so on until it ends by itself."""
    kills = from_the_start = 0
    kept, output = folder / CHECKPOINT, folder / OUTPUT
    while True:
        resume = ["--resume"] if kept.exists() else []
        from_the_start += kills > 0 and not kept.exists()
        process = start(folder, optimizer, iterations, "-o", OUTPUT, "--checkpoint", CHECKPOINT, *resume)
        try:
            _, said = process.communicate(timeout=dice.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate(timeout=PATIENCE)
        kills += process.returncode == -signal.SIGKILL
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(said.decode())
        if process.returncode == 0 or (output.exists() and not kept.exists()):
            break
    halves = list(folder.glob(".npstyle-*.tmp"))
    told = Told(output.read_bytes(), kills, from_the_start, len(halves))
    for path in [*halves, output]:
        path.unlink()
    return told


def soak(optimizer: str, kills: int, seed: int, iterations: int = 150) -> bool:
    """Runs one after the other until so many kills were suffered; tell, and whether all ended alike."""
    dice, done, runs, alike = random.Random(seed), 0, 0, 0
    starts = halves = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder)
        expected, seconds = undisturbed(folder, optimizer, iterations)
        while done < kills:
            told = killed(folder, optimizer, iterations, dice, longest=0.8 * seconds)
            done, runs, alike = done + told.kills, runs + 1, alike + (told.picture == expected)
            starts, halves = starts + told.from_the_start, halves + told.half_written
    print(
        f"{optimizer}: {done} kills in {runs} runs of {seconds:.1f} s; {starts} began again, before a first "
        f"checkpoint; {halves} left half a file; {alike} of {runs} pictures are the undisturbed run's",
        flush=True,
    )
    return alike == runs


if __name__ == "__main__":
    wanted, first = (int(text) for text in (sys.argv[1:] + ["50", "0"][len(sys.argv) - 1 :]))
    both = [soak(optimizer, wanted, first) for optimizer in ("lbfgs", "adam")]
    sys.exit(not all(both))
