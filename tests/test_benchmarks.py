"""The benchmarks that paint and judge do what they say, at a tiny size and with random filters."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import structured_picture
from npstyle import images, judge, load_weights
from npstyle.cli import main as cli
from npstyle.weights import Weights

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
EXACT = Weights(load_weights("random", deepest="conv5_1"), "as if trained")
# Every other channel of a layer 1 % stronger, the others 1 % weaker.
OTHER = Weights(
    {
        name: layer._replace(
            kernel=layer.kernel * np.resize(np.array([1.01, 0.99], np.float32), layer.bias.shape)
        )
        for name, layer in EXACT.items()
    },
    "as if in 8 bits",
    preprocessing="caffe",
)


Patch = pytest.MonkeyPatch
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: Patch) -> str:
    """The current folder with two pictures, and filters that pass for trained ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(BENCHMARKS)
    images.write(tmp_path / "photo.png", structured_picture(24, 32))
    images.write(tmp_path / "painting.png", structured_picture(32, 32, seed=1))

    def load(source: object, **_: Any) -> Weights:
        return OTHER if source == "other" else EXACT

    monkeypatch.setattr("npstyle.load_weights", load)
    monkeypatch.setattr("npstyle.study.judging.load_weights", load)
    return "photo.png,painting.png"


def run(name: str, monkeypatch: Patch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", [name, *words, "--threads", "1"])
    importlib.import_module(name).main()


def test_quality(pair: str, monkeypatch: Patch, capsys: Captured) -> None:
    words = ["--pair", pair, "--size", "32", "--weights", "file", "-o", "figures", "--style-weights", "1,9"]
    words += ["--recipe", "paper=--preset paper --iterations 1"]
    run("quality", monkeypatch, *words)
    folder = Path("figures")
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [row["recipe"] for row in rows] == ["paper 1", "paper 9"]
    assert [row["picture"] for row in rows] == ["0000.png", "0001.png"]
    for row in rows:
        assert images.read(folder / row["picture"]).shape == (24, 32, 3)
    judgment = judge("photo.png", "painting.png", folder / "0001.png", weights=EXACT, threads=1)
    assert (rows[1]["E"], rows[1]["C"]) == pytest.approx((judgment.missing_style, judgment.lost_content))
    table = capsys.readouterr().out
    assert "| E / C | paper 1 | paper 9 |" in table
    assert f"| photo x painting | {rows[0]['E']:.3f} / {rows[0]['C']:.3f}, " in table
    assert (folder / "sheet.png").is_file()

    # Again: nothing is painted twice.
    monkeypatch.setattr("npstyle.stylize", None)
    run("quality", monkeypatch, *words)
    assert capsys.readouterr().out == table


def test_eight_bits(pair: str, monkeypatch: Patch, capsys: Captured) -> None:
    benchmark = importlib.import_module("eight_bits")
    monkeypatch.setattr(benchmark, "SETTINGS", replace(benchmark.SETTINGS, iterations=1))
    run("eight_bits", monkeypatch, "exact", "other", "--pair", pair, "--size", "32")
    layers, gradients, pictures = capsys.readouterr().out.split("###")[1:]
    assert layers.count("| 1.00% |") >= 13  # the kernels from conv1_1 to conv5_1
    assert gradients.count("| photo x painting | content picture | ") == 1
    assert gradients.count("| photo x painting | finished picture | ") == 1
    assert "| 0.0% |" not in gradients
    assert re.search(
        r"\| photo x painting \| 0\.\d+, \d+ \| 0\.0\d, [01] \| ", pictures
    )  # im2col only rounds
    assert benchmark.relative_error(EXACT["conv1_1"].kernel, EXACT["conv1_1"].kernel) == 0


def test_batch(pair: str, monkeypatch: Patch, capsys: Captured) -> None:
    """The commands run in this process, which is ten times as fast to start."""

    def run_here(line: list[str], check: bool) -> None:
        assert line[1:3] == ["-m", "npstyle"]
        assert cli.main(line[3:]) == 0

    monkeypatch.setattr("subprocess.run", run_here)
    files = ["--photo", "photo.png", "--painting", "painting.png", "--pictures", "8", "--size", "24"]
    fast = ["--weights", "random", "--iterations", "1", "--style-layers", "conv1_1"]
    fast += ["--content-layers", "conv1_2"]
    run("batch", monkeypatch, *files, "--workers", "1", "--repeats", "1", "--", *fast)
    title, _, _, turn, _, end = capsys.readouterr().out.splitlines()
    assert title == "8 pictures of 24 pixels, 1 workers"
    assert turn.endswith("same bytes")
    assert re.fullmatch(r"median ratio \d+\.\d\d", end)
