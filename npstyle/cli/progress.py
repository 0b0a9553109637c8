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

LOG_EVERY = 60.0  # seconds between two lines about the progress, where there is no bar
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
    log_every : float, optional
        Seconds between two lines about the progress, also on a terminal; 0 for none. LOG_EVERY if left out,
        and none on a terminal.
    """

    SAMPLES = 3  # iterations from which the time left is estimated

    def __init__(self, quiet: bool, panels: int = 1, log_every: float | None = None) -> None:
        from tqdm import tqdm

        on_terminal = shows_bars(quiet)
        self._lines = not quiet and not on_terminal
        self._panels, self._panel, self._caption = panels, 0, ""
        self._start = self._last_line = time.monotonic()
        every = log_every if log_every is not None else 0 if on_terminal else LOG_EVERY
        self._log_every = math.inf if quiet or not every else every
        self._level = (0, 0)  # panel and level
        self._level_began = (0.0, 0)  # when its first iteration was done, and which one of the level that was
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
        if self._level != (panel, progress.level):
            self._level = panel, progress.level
            self._level_began = time.monotonic(), progress.level_iteration
        if time.monotonic() - self._last_line >= self._log_every:
            self._last_line = time.monotonic()
            with self._bar.external_write_mode(file=sys.stderr):  # above the bar, if there is one
                print_err(self._describe(progress, self._panels - panel))

    def update_panel(self, number: int, panel: Panel, progress: Progress) -> None:
        """Show an iteration of one panel, from 1; the callback of `npstyle.study.draw`."""
        if number != self._panel:
            self._panel, self._caption = number, panel.caption
            if self._lines:
                print_err(f"{number} of {self._panels}: {panel.caption}")
        self.update(progress)

    def _describe(self, progress: Progress, panels_left: int) -> str:
        """Level, iteration, loss and time left, as a line."""
        h, w, _ = progress.iterate.shape
        place = f"level {progress.level} of {progress.levels} ({w} x {h} pixels)"
        if self._panels > 1:
            place = f"{self._panel} of {self._panels}, {self._caption}"
        asked_for = progress.iterations_by_level[progress.level - 1]
        iterations = f"iteration {progress.level_iteration} of {asked_for}"
        began, first = self._level_began
        done = progress.level_iteration - first
        left = ""
        if done:
            waiting = _iterations_left(progress) + panels_left * progress.iterations
            left = f", about {_format_duration((time.monotonic() - began) / done * waiting)} left"
        return f"{place}, {iterations}, loss {progress.loss:.4g}{left}"

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
    numbers = progress.iterations_by_level[progress.level - 1 :]
    return sum(number * 2.0**n for n, number in enumerate(numbers)) - progress.level_iteration


def _format_duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
