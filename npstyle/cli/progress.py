"""How far a command is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

from npstyle.cli.terminal import print_err

if TYPE_CHECKING:
    from npstyle.run import Progress
    from npstyle.run.time_left import TimeLeft
    from npstyle.study import Panel

LOG_EVERY = 60.0  # seconds between two lines about the progress, where there is no bar
MIN_TIME_LEFT = 10.0  # seconds; less is not worth a line of its own
# Without tqdm's own time left, which is wrong here: it takes all iterations to be equally long.
BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


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

    def __init__(self, quiet: bool, panels: int = 1, log_every: float | None = None) -> None:
        from tqdm import tqdm

        on_terminal = shows_bars(quiet)
        self._lines = not quiet and not on_terminal
        self._panels, self._panel, self._caption = panels, 0, ""
        self._start = self._last_line = time.monotonic()
        every = log_every if log_every is not None else 0 if on_terminal else LOG_EVERY
        self._log_every = math.inf if quiet or not every else every
        self._time_left = _new_estimate()  # of the panel's run
        self._printed_time_left = False
        self._bar = tqdm(disable=not on_terminal, bar_format=BAR_FORMAT, dynamic_ncols=True)

    @property
    def seconds(self) -> float:
        """Since the bar was made."""
        return time.monotonic() - self._start

    def update(self, progress: Progress) -> None:
        """Show an iteration; the callback of `npstyle.run.paint`."""
        panel = max(1, self._panel)
        self._time_left.update(progress, time.monotonic())
        seconds = self._time_left.estimate(progress, self._panels - panel)
        h, w, _ = progress.iterate.shape
        left = "" if seconds is None else f", about {_format_duration(seconds)} left"
        self._bar.total = self._panels * progress.iterations
        state = f"{self._caption or f'{w} x {h}'}, loss {progress.loss:.4g}{left}"
        self._bar.set_postfix_str(state, refresh=False)
        self._bar.update((panel - 1) * progress.iterations + progress.iteration - self._bar.n)
        if self._lines and seconds is not None and not self._printed_time_left:
            self._printed_time_left = True
            if seconds > MIN_TIME_LEFT:
                print_err(left.removeprefix(", "))
        if time.monotonic() - self._last_line >= self._log_every:
            self._last_line = time.monotonic()
            with self._bar.external_write_mode(file=sys.stderr):  # above the bar, if there is one
                print_err(self._describe(progress) + left)

    def update_panel(self, number: int, panel: Panel, progress: Progress) -> None:
        """Show an iteration of one panel, from 1; the callback of `npstyle.study.draw`."""
        if number != self._panel:
            self._panel, self._caption = number, panel.caption
            self._time_left = _new_estimate()
            if self._lines:
                print_err(f"{number} of {self._panels}: {panel.caption}")
        self.update(progress)

    def _describe(self, progress: Progress) -> str:
        """Level, iteration and loss, as a line."""
        h, w, _ = progress.iterate.shape
        place = f"level {progress.level} of {progress.levels} ({w} x {h} pixels)"
        if self._panels > 1:
            place = f"{self._panel} of {self._panels}, {self._caption}"
        of_level = progress.schedule[progress.level - 1].iterations
        return f"{place}, iteration {progress.level_iteration} of {of_level}, loss {progress.loss:.4g}"

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


class FrameBar:
    """A bar of the frames of a film on a terminal, with the time left; elsewhere a line now and then.

    Parameters
    ----------
    quiet : bool
        Show neither.
    noun : str
        What is counted.
    finished : int
        Frames that were finished before.
    log_every : float, optional
        As of `ProgressBar`.
    """

    def __init__(self, quiet: bool, noun: str, finished: int = 0, log_every: float | None = None) -> None:
        from tqdm import tqdm

        on_terminal = shows_bars(quiet)
        self._noun, self._finished = noun, finished
        self._start = self._last_line = time.monotonic()
        every = log_every if log_every is not None else 0 if on_terminal else LOG_EVERY
        self._log_every = math.inf if quiet or not every else every
        self._bar = tqdm(disable=not on_terminal, bar_format=BAR_FORMAT, dynamic_ncols=True)

    @property
    def seconds(self) -> float:
        """Since the bar was made."""
        return time.monotonic() - self._start

    def update(self, done: int, total: int, number: int = 0, progress: Progress | None = None) -> None:
        """Show how many are done, and an iteration at the frame of this number."""
        self._bar.total = total
        painted = done - self._finished
        seconds = self.seconds / painted * (total - done) if painted > 1 else None
        left = "" if seconds is None else f", about {_format_duration(seconds)} left"
        state = f"frame {number}, loss {progress.loss:.4g}" if progress else self._noun
        self._bar.set_postfix_str(f"{state}{left}", refresh=False)
        self._bar.update(done - self._bar.n)
        if time.monotonic() - self._last_line >= self._log_every:
            self._last_line = time.monotonic()
            with self._bar.external_write_mode(file=sys.stderr):
                print_err(f"{done} of {total} {self._noun}{left}")

    def __enter__(self) -> FrameBar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def _format_duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _new_estimate() -> TimeLeft:
    from npstyle.run.time_left import TimeLeft  # here, so that --help is instant

    return TimeLeft()
