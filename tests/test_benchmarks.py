"""The benchmarks that paint and judge do what they say, at a tiny size and with random filters."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
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


def test_film(pair: str, monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setattr(importlib.import_module("film"), "FAR", 2)
    fast = "--iterations 1 --frame-iterations 1 --preset paper"
    words = ["--pictures", "photo.png,painting.png", "--style", "painting.png", "--size", "32"]
    words += ["--frames", "3", "--sequences", "cut", "-o", "films", "--recipe", fast]
    words += ["--method", f"steady=--method difference {fast}"]
    run("film", monkeypatch, *words)
    table = capsys.readouterr().out
    alone, steady = (json.loads(line) for line in Path("films/results.jsonl").read_text().splitlines())
    assert (alone["method"], alone["shots"]) == ("one by one", 3)
    assert (steady["method"], steady["shots"]) == ("steady", 2)
    assert all(row["near"] > 0 and row["E"] > 0 and row["seconds"] > 0 for row in (alone, steady))
    assert f"| cut | steady | {steady['near']:.0f} ({steady['near'] / alone['near']:.1%}) | " in table
    assert images.read("films/strip-cut.png").shape == (5 * 26 - 4, 3 * 36 - 4, 3)

    # Again: nothing is painted twice.
    monkeypatch.setattr("npstyle.film.painting.paint_shot", None)
    run("film", monkeypatch, *words)
    assert capsys.readouterr().out == table


def test_profile_of_a_run(pair: str, monkeypatch: Patch, capsys: Captured) -> None:
    words = ["photo.png", "painting.png", "--size", "32", "--iterations", "2", "-o", "out.png"]
    with pytest.raises(SystemExit) as ended:
        run("profile_run", monkeypatch, *words)
    assert ended.value.code == 0
    assert Path("out.png").exists()
    printed = capsys.readouterr().out
    assert re.search(r"^\| npstyle\._kernels: \w+ \| \d+\.\d\d \| \d+\.\d% \|$", printed, re.MULTILINE)
    shares = [float(share) for share in re.findall(r"([\d.]+)% \|$", printed, re.MULTILINE)]
    assert abs(sum(shares) - 100) < 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are in /proc on Linux only")
def test_run_stages(monkeypatch: Patch) -> None:
    """A stage of each kind; that of the total variation returns its gradient, 12 bytes a pixel."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    stages = importlib.import_module("run_stages")
    for name in ("read rgb.png", "level, --color match", "checkpoint, lbfgs32, 3 pairs", "finish, keep"):
        assert stages.measure(name, 64).startswith(f"{name} | ")
    # In a process of its own, as by default: here memory is free that others have used.
    line = [sys.executable, str(BENCHMARKS / "run_stages.py"), "--size", "1000", "--stage"]
    name = "total variation, mean-squares"
    row = subprocess.run([*line, name], check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    _, given, peak, *_ = row.split(" | ")
    assert int(given) <= 40
    assert 10 <= int(peak) <= 30


def test_layers_table_has_share_of_true_peak(monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    tables, layers = importlib.import_module("tables"), importlib.import_module("layers")
    monkeypatch.setattr(tables, "peak", lambda isa, threads: 100.0)
    monkeypatch.setattr(layers, "LAYERS", ["conv1_1", "conv1_2"])
    monkeypatch.setattr(layers, "sgemm", lambda size, threads: None)
    monkeypatch.setattr(
        layers, "seconds", lambda functions, repeats: [1e-3 * (i + 1) for i in range(len(functions))]
    )
    tables.by_layer(32, 1)
    *_, head, rule, conv1_1, conv1_2, _, _ = capsys.readouterr().out.split("\n")
    assert head.endswith("| Winograd / sgemm | of the true peak, used |")
    assert head.count("|") == rule.count("|") == conv1_2.count("|")
    assert conv1_1.startswith("| conv1_1 | 32 | 3 | 64 |")
    # 75.5 million operations in 3 and 4 ms, of which Winograd executes 64 in 324.
    assert conv1_2.split(" | ")[6] == "25 / 19"
    assert conv1_2.endswith("| 5% / 4% |")


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
