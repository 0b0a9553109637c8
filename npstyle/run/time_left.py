"""An estimate of the time that a run still takes, over levels whose pictures become larger and larger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from npstyle.run.results import Progress

SAMPLES = 3  # iterations of a level that have to be timed before it says anything
MIN_TIMED = 2.0  # seconds of iterations that have to be timed: less is mostly noise

# What an iteration costs whatever the picture's size, in pixels that cost as much: filters are read and
# transformed, Gram matrices compared. Measured: 5,000 to 11,000 with the default layers, 2,000 with layers up
# to conv3_2.
OVERHEAD = 8000.0
# How much OVERHEAD counts beside a level that was timed. Timings are off by 10 to 20 % on a machine that does
# other things too, OVERHEAD by a factor of 2 or 3 with other layers, threads and processors.
PRIOR_WEIGHT = 0.3


@dataclass
class _Level:
    """The iterations of a level that were timed: all but the first one, which includes preparations."""

    number: int
    pixels: int
    first: int
    began: float
    count: int = 0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        """Seconds an iteration."""
        return self.seconds / self.count


class TimeLeft:
    """The time that one run still takes, from the time that its iterations took so far.

    An iteration takes a + b N seconds with N pixels. a / b is OVERHEAD while there is nothing but the first
    level, and fits the levels' times better with each one more; the scale is always that of the last level.
    """

    def __init__(self) -> None:
        self._levels: list[_Level] = []

    def update(self, progress: Progress, now: float) -> None:
        """Take in that an iteration is done."""
        if not self._levels or self._levels[-1].number != progress.level:
            h, w, _ = progress.iterate.shape
            self._levels.append(_Level(progress.level, w * h, progress.level_iteration, now))
        level = self._levels[-1]
        level.count, level.seconds = progress.level_iteration - level.first, now - level.began

    def estimate(self, progress: Progress, runs: int = 0) -> float | None:
        """Seconds to the end of this run and of so many more like it; None while too little is known."""
        levels = [level for level in self._levels if level.count >= SAMPLES]
        if not levels or sum(level.seconds for level in self._levels) < MIN_TIMED:
            return None
        cost = _fit(levels)
        work = sum(cost(pixels) * iterations for pixels, iterations in _work_left(progress, runs))
        return levels[-1].mean * work / cost(levels[-1].pixels)


def _work_left(progress: Progress, runs: int) -> Iterator[tuple[int, int]]:
    """Pixels of each level, and how many iterations it still has in this run and in `runs` more."""
    for number, level in enumerate(progress.schedule, 1):
        done = level.iterations if number < progress.level else 0
        if number == progress.level:
            done = progress.level_iteration
        yield level.width * level.height, level.iterations - done + runs * level.iterations


def _fit(levels: list[_Level]) -> Callable[[int], float]:
    """a + b N by least squares of relative errors, with a = b OVERHEAD as one more, uncertain equation."""
    import numpy as np

    rows = [(1 / level.mean, level.pixels / level.mean) for level in levels]
    scale = PRIOR_WEIGHT / levels[-1].mean
    matrix = np.array([*rows, (scale, -scale * OVERHEAD)])
    solution = np.linalg.lstsq(matrix, np.array([1.0] * len(rows) + [0.0]), rcond=None)[0]
    a, b = (max(0.0, float(x)) for x in solution)  # a larger picture is never the faster one
    return lambda pixels: a + b * pixels
