"""How far a command is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

from npstyle.cli.terminal import print_err

if TYPE_CHECKING:
    from npstyle.run import Progress
    from npstyle.study import Panel

MIN_TIME_LEFT = 10.0  # seconds; less is not worth a line of its own


def shows_bars(quiet: bool) -> bool:
    """Whether somebody is looking at standard error, and wants to see bars."""
    return not quiet and sys.stderr is not None and sys.stderr.isatty()


class ProgressBar:
    """A bar with the loss and the time left on a terminal; elsewhere lines, also about a figure's panels.

    Parameters
    ----------
    quiet : bool
        Show neither.
    panels : int
        How many runs there are, one after the other.
    """

    SAMPLES = 3  # iterations from which the time left is estimated

    def __init__(self, quiet: bool, panels: int = 1) -> None:
        from tqdm import tqdm

        on_terminal = shows_bars(quiet)
        self._lines = not quiet and not on_terminal
        self._panels, self._panel, self._caption = panels, 0, ""
        self._start = time.monotonic()
        self._first_update = math.nan
        self._updates = 0
        self._bar = tqdm(disable=not on_terminal, unit="it", dynamic_ncols=True)

    @property
    def seconds(self) -> float:
        """Since the bar was made."""
        return time.monotonic() - self._start

    def update(self, progress: Progress) -> None:
        """Show an iteration; the callback of `npstyle.run.paint`."""
        h, w, _ = progress.iterate.shape
        panel = max(1, self._panel)
        self._bar.total = self._panels * progress.iterations
        self._bar.set_postfix_str(f"{self._caption or f'{w} x {h}'}, loss {progress.loss:.4g}", refresh=False)
        self._bar.update((panel - 1) * progress.iterations + progress.iteration - self._bar.n)
        if self._lines:
            self._print_time_left(progress, self._panels - panel)

    def update_panel(self, number: int, panel: Panel, progress: Progress) -> None:
        """Show an iteration of one panel, from 1; the callback of `npstyle.study.draw`."""
        if number != self._panel:
            self._panel, self._caption = number, panel.caption
            if self._lines:
                print_err(f"{number} of {self._panels}: {panel.caption}")
        self.update(progress)

    def _print_time_left(self, progress: Progress, panels_left: int) -> None:
        self._updates += 1
        if self._updates == 1:  # it included all preparations
            self._first_update = time.monotonic()
        elif self._updates == 1 + self.SAMPLES:
            iterations = _iterations_left(progress) + panels_left * progress.iterations
            seconds = (time.monotonic() - self._first_update) / self.SAMPLES * iterations
            if seconds > MIN_TIME_LEFT:
                print_err(f"about {_format_duration(seconds)} left")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def _iterations_left(progress: Progress) -> float:
    """In iterations of this level; each level has twice as many pixels as the one before."""
    per_level = progress.iterations // progress.levels
    here = progress.level * per_level - progress.iteration
    return here + sum(per_level * 2.0**n for n in range(1, progress.levels - progress.level + 1))


def _format_duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
