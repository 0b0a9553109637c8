"""Shared by several test modules: random pictures and numbers, the program as a process, failing streams."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from npstyle import _kernels
from npstyle._runtime import threads
from npstyle.cli.main import main
from npstyle.errors import UserError
from npstyle.weights import read_weights

# All sizes, settings and repetitions of tests that take long; without it some of each, which show the same.
THOROUGH = bool(os.environ.get("NPSTYLE_TEST_THOROUGH"))


def only_thoroughly(*values: Any) -> Any:
    """A parameter of tests that are skipped unless all are to be run."""
    return pytest.param(
        *values, marks=pytest.mark.skipif(not THOROUGH, reason="NPSTYLE_TEST_THOROUGH is not set")
    )


# Options of a run that takes a moment: two layers, one iteration, filters that need no file.
SHALLOW = ["--weights", "random", "--iterations", "1", "--threads", "1"]
SHALLOW += ["--style-layers", "conv1_1", "--content-layers", "conv1_2"]


def picture(H: int, W: int, seed: int = 0, dtype: Any = np.float64) -> NDArray[Any]:
    """A picture (H, W, 3) of independent pixels, each channel uniform from 0 to 255."""
    return np.random.default_rng(seed).uniform(0, 255, (H, W, 3)).astype(dtype)


def structured_picture(H: int, W: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of colored squares, with a little noise on them."""
    rng = np.random.default_rng(seed)
    squares = rng.uniform(0, 255, (H // 8 + 1, W // 8 + 1, 3)).repeat(8, axis=0).repeat(8, axis=1)[:H, :W]
    return np.clip(squares + rng.normal(0, 10, (H, W, 3)), 0, 255).astype(np.uint8)


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> NDArray[Any]:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def run_program(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m npstyle` with these arguments, in a folder, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "npstyle", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def reading_error(path: Path, **options: Any) -> str:
    """The message of the UserError that reading a weights file ends with, after a look at its form."""
    with pytest.raises(UserError) as caught:
        read_weights(path, **options)
    error, line = caught.value, str(caught.value)
    assert error.name == f"weights: {path}"
    assert line == f"{error.name}: found {error.found}; expected {error.expected}; {error.cure}"
    assert line.splitlines() == [line]
    return line


def without_openmp(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the kernels were built without OpenMP, on a machine with so many cores."""
    monkeypatch.setattr(_kernels, "OPENMP", False)
    monkeypatch.setattr(_kernels, "_warned_without_openmp", False, raising=False)  # once in a process
    monkeypatch.setattr(threads, "available", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def error_line(call: Callable[[], object], name: str) -> str:
    """The message of the UserError that a call raises, without the name, after a check of its form."""
    with pytest.raises(UserError) as caught:
        call()
    error, line = caught.value, str(caught.value)
    assert error.name == name
    assert line == " ".join(f"{name}: found {error.found}; expected {error.expected}; {error.cure}".split())
    assert line.splitlines() == [line]
    return line.removeprefix(f"{name}: ")


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line that a command of the main job ends with, before it has taken a step."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npstyle.optimize.Minimizer.run", None)
        assert main(list(words)) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file, with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


class FailingStream:
    """Standard output that takes nothing more: its reader has gone, or its disk is full."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error
