"""The estimate of the time that a run still takes, over runs whose iterations take known times."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator

import numpy as np
import pytest

from npstyle.cli.progress import ProgressBar
from npstyle.run import PlannedLevel, Progress
from npstyle.run.time_left import TimeLeft
from npstyle.study import Panel

SIDES = (64, 91, 128, 181, 256, 362)
PYRAMID = tuple(PlannedLevel(side, side, 50) for side in SIDES)
FALLING = tuple(
    PlannedLevel(side, side, n) for side, n in zip(SIDES, (200, 150, 100, 60, 30, 10), strict=True)
)


def steps(
    plan: tuple[PlannedLevel, ...], overhead: float, rate: float = 1e-5
) -> Iterator[tuple[Progress, float]]:
    """Every iteration of a run, and when it is done; `overhead` takes as long as so many pixels."""
    now, iteration = 0.0, 0
    for number, level in enumerate(plan, 1):
        now += 1.0  # preparations
        for done in range(1, level.iterations + 1):
            now += rate * (overhead + level.width * level.height)
            iteration += 1
            iterate = np.broadcast_to(np.float32(0), (level.height, level.width, 3))
            yield Progress(iteration, number, plan, 1.0, {}, iterate, done), now


def errors(plan: tuple[PlannedLevel, ...], overhead: float, start: int = 0) -> dict[int, list[float]]:
    """By level, estimates relative to the time that is really left, up to 5 s before the end."""
    run = list(steps(plan, overhead))[start:]
    end = run[-1][1]
    time_left = TimeLeft()
    ratios: dict[int, list[float]] = {}
    for progress, now in run:
        time_left.update(progress, now)
        estimate = time_left.estimate(progress)
        if estimate is not None and now < end - 5:
            ratios.setdefault(progress.level, []).append(estimate / (end - now))
    return ratios


@pytest.mark.parametrize("plan", [PYRAMID, FALLING], ids=["equal", "falling"])
@pytest.mark.parametrize("overhead", [4000.0, 8000.0, 12000.0])
def test_estimates_are_near_from_the_first_level_on(plan: tuple[PlannedLevel, ...], overhead: float) -> None:
    ratios = errors(plan, overhead)
    assert sorted(ratios) == [1, 2, 3, 4, 5, 6]
    assert all(1 / 1.5 < ratio < 1.5 for level in ratios.values() for ratio in level)


@pytest.mark.parametrize("overhead", [0.0, 2000.0, 25000.0])
def test_levels_that_were_timed_correct_a_wrong_overhead(overhead: float) -> None:
    ratios = errors(PYRAMID, overhead)
    assert not 1 / 1.5 < ratios[1][-1] < 1.5
    assert all(1 / 1.25 < ratio < 1.25 for level in (4, 5, 6) for ratio in ratios[level])


def test_resumed_run_is_timed_from_where_it_continues() -> None:
    ratios = errors(PYRAMID, 8000.0, start=130)
    assert sorted(ratios) == [3, 4, 5, 6]
    assert all(1 / 1.1 < ratio < 1.1 for level in ratios.values() for ratio in level)


def test_nothing_is_said_before_iterations_were_timed() -> None:
    time_left = TimeLeft()
    said = []
    for progress, now in steps(PYRAMID, 8000.0):
        time_left.update(progress, now)
        said.append(time_left.estimate(progress) is not None)
    # An iteration of the first level takes 0.121 s, and the first one is not timed: 2 s are 17 of the others.
    assert said == [False] * 17 + [True] * (len(said) - 17)
    time_left = TimeLeft()
    slow = [progress for progress, _ in steps(PYRAMID, 8000.0)][:4]
    for n, progress in enumerate(slow):
        time_left.update(progress, 10.0 * n)
        assert (time_left.estimate(progress) is None) == (n < 3)


def test_more_runs_like_it_are_added() -> None:
    time_left = TimeLeft()
    *_, (last, now) = run = list(steps(PYRAMID[:1], 8000.0))
    for progress, then in run:
        time_left.update(progress, then)
    iteration = (now - run[0][1]) / 49
    assert time_left.estimate(last) == 0
    assert time_left.estimate(last, runs=3) == pytest.approx(150 * iteration)


def test_bar_says_the_time_left_and_not_tqdms(monkeypatch: pytest.MonkeyPatch) -> None:
    """tqdm takes all iterations to be equally long, and so most of a pyramid's time to be over too early."""
    now = [0.0]
    monkeypatch.setattr("npstyle.cli.progress.shows_bars", lambda quiet: not quiet)
    monkeypatch.setattr("npstyle.cli.progress.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    with ProgressBar(False) as bar:
        for progress, now[0] in steps(PYRAMID, 8000.0):
            bar.update(progress)
            if progress.iteration == 40:
                break
        line = str(bar._bar)
    assert "| 40/300 [" in line
    assert re.search(r", 64 x 64, loss 1, about \d+ (s|min) left\]$", line)
    assert "<" not in line


def test_time_left_of_a_panel_is_not_that_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("npstyle.cli.progress.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    with ProgressBar(False, panels=2, log_every=1.0) as bar:
        for number, seconds in ((1, 10.0), (2, 1.0)):
            for n in range(1, 6):
                now[0] += seconds
                progress = Progress(
                    n, 1, (PlannedLevel(8, 8, 5),), 1.0, {}, np.zeros((8, 8, 3), np.float32), n
                )
                bar.update_panel(number, Panel("layer"), progress)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(", ")[2] for line in lines if "iteration 4" in line] == [
        "about 60 s left",
        "about 1 s left",
    ]
