"""What all commands do alike: progress, Ctrl-C and SIGTERM, memory, filters, warnings, saving, exit status.

Everything slow to import is imported where it is used, so that --help is instant.
"""

from __future__ import annotations

import argparse
import math
import secrets
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npstyle.cli.terminal import DONE, FAILED, INTERRUPTED, TERMINATED, print_err, print_out
from npstyle.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from npstyle.run import Progress, StyleResult
    from npstyle.study import Panel
    from npstyle.weights import Weights

REPEAT_SECONDS = 2.0  # a second Ctrl-C within this time counts as the same one
MIN_TIME_LEFT = 10.0  # seconds; less is not worth a line of its own

# Printed on Ctrl-C and SIGTERM, beside the line about the picture that was saved.
NOTHING_WRITTEN = "interrupted; nothing was written"
FIGURE_INTERRUPTED = "interrupted, with the panels made so far"
HOW_TO_RESUME = "run the same command with --resume --overwrite to continue"

WRITE_ERRORS = (UserError, OSError, MemoryError)  # what writing a picture may raise

# ------------------------------------------------------------------------------------------------
# Signals
# ------------------------------------------------------------------------------------------------


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command like Ctrl-C, but with an exit status of its own."""


class Signals:
    """Inside this context Ctrl-C and SIGTERM raise KeyboardInterrupt, once, however often they come.

    Signals that were ignored stay ignored, as in a job in the background.

    Attributes
    ----------
    terminated : bool
        Whether SIGTERM was among them.
    """

    def __init__(self) -> None:
        self.terminated = False
        self._last = -math.inf
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):
                    self._handlers[number] = handler
                    signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def ignore(self) -> None:
        """Let nothing interrupt what follows: there is a picture to save."""
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)

    def _interrupt(self, number: int, _: object) -> None:
        # Python swallows exceptions in some places: after a while, the signal is taken for a new one.
        repeated, self._last = time.monotonic() - self._last < REPEAT_SECONDS, time.monotonic()
        self.terminated |= number == signal.SIGTERM
        if not repeated:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def exit_status(signals: Signals, interrupted: bool, diverged: bool) -> int:
    """The exit status of a command whose picture was saved."""
    if diverged:
        return FAILED
    if interrupted:
        return TERMINATED if signals.terminated else INTERRUPTED
    return DONE


# ------------------------------------------------------------------------------------------------
# Warnings
# ------------------------------------------------------------------------------------------------


@contextmanager
def session() -> Iterator[Signals]:
    """The context of a command that runs the network: its signals, and its warnings printed as lines."""
    with Signals() as signals, warnings_as_lines():
        yield signals


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print npstyle's warnings to standard error, each once, whatever filters Python was started with."""
    from npstyle.images import ProfileWarning
    from npstyle.run import CheckpointWarning
    from npstyle.weights import RandomFiltersWarning

    printed: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) in printed:
            return
        printed.add(str(message))
        if isinstance(message, RandomFiltersWarning):
            rule = "=" * 78
            print_err(f"{rule}\nnpstyle: WARNING: {message}\n{rule}")
        else:
            print_err(f"npstyle: {message}")

    with warnings.catch_warnings():
        for category in (ProfileWarning, CheckpointWarning, RandomFiltersWarning):
            warnings.simplefilter("always", category)
        # What runs in another way than it was meant to, such as L-BFGS with another version of SciPy.
        warnings.filterwarnings("always", category=RuntimeWarning, module=r"npstyle\.")
        warnings.showwarning = show
        yield


# ------------------------------------------------------------------------------------------------
# Memory, filters and the picture to start from
# ------------------------------------------------------------------------------------------------


def check_memory(options: argparse.Namespace, bytes_at: Callable[[int], float], longest: int) -> str:
    """Refuse a run for which there is too little memory, unless --force is given.

    Parameters
    ----------
    options
        Those of `arguments.add_run`.
    bytes_at : callable
        Bytes that the run takes with a --size.
    longest : int
        The longer side of the picture, beyond which --size changes nothing.

    Returns
    -------
    str
        The memory that the run takes, in words.

    Raises
    ------
    UserError
        With a size that fits, if any does.
    """
    from npstyle.run import memory

    needed = bytes_at(options.size)
    free = memory.available_memory(options.threads)
    if free is not None and needed > free and not options.force:
        size = memory.largest(lambda size: bytes_at(size) <= free, 16, min(options.size, longest))
        cure = f"try --size {size}" if size else "free some"
        raise UserError(
            "memory",
            f"{_format_bytes(free)} free",
            f"about {_format_bytes(needed)}",
            f"{cure}, or --force to run all the same",
        )
    return f"about {_format_bytes(needed)} of memory"


def announce(options: argparse.Namespace, run: str, memory: str) -> None:
    """Print what is run and the memory it takes; and, also with --quiet, what makes it slow."""
    warn_if_slow(options.threads)
    if not options.quiet:
        print_err(f"{run}: {memory}")


def warn_if_slow(threads: int | None) -> None:
    """Print, in every run, what makes it many times slower than it could be."""
    from npstyle import _kernels

    if _kernels.IMPLEMENTATION == "reference":
        print_err("npstyle: NPSTYLE_KERNELS=reference: plain NumPy, many times slower")
    _kernels.warn_without_openmp(threads)  # here, as a command may compute before it has a network


def count_of(number: int, noun: str) -> str:
    """As "1 iteration" and "2 iterations"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _format_bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def load_weights(options: argparse.Namespace, deepest: str) -> Weights:
    """The filters that --weights names, up to a layer; a bar shows a download on a terminal."""
    from npstyle import weights

    return weights.load_weights(
        options.weights,
        options.seed,
        deepest,
        progress=shows_bars(options.quiet),
        preprocessing=options.preprocessing,
    )


def read_init(init: str | None, kinds: Sequence[str]) -> NDArray[Any] | None:
    """The picture that --init names, or None if it names a kind of start or is not given."""
    from npstyle import images

    if init is None or init in kinds:
        return None
    try:
        return images.read(init)
    except UserError as error:
        expected = f"{', '.join(kinds)} or a picture file"
        raise UserError(f"--init: {init}", error.found, expected, error.cure) from None


# ------------------------------------------------------------------------------------------------
# Progress
# ------------------------------------------------------------------------------------------------


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


# ------------------------------------------------------------------------------------------------
# Saving
# ------------------------------------------------------------------------------------------------


def save_or_refuge(
    output: Path, write: Callable[[Path, bool], None], overwrite: bool, extension: str = ".png"
) -> None:
    """Write the result of a long run; to the folder for temporary files, if that has become impossible.

    Parameters
    ----------
    output : Path
        A picture, or a folder for several.
    write : callable
        Writes to a path, and may replace what is there if its second argument is True.
    extension : str
        Of the path in the folder for temporary files.

    Raises
    ------
    UserError
        It could not be written to `output`; it says where it is instead.
    """
    try:
        write(output, overwrite)
        return
    except WRITE_ERRORS as error:
        failure = write_error(error, output)
    refuge = Path(tempfile.gettempdir(), f"npstyle-{secrets.token_hex(4)}-{output.stem[:50]}{extension}")
    try:
        write(refuge, False)
    except WRITE_ERRORS as error:
        cure = f"the picture is lost, as {refuge} can't be written either ({error})"
        raise UserError(failure.name, failure.found, failure.expected, cure) from error
    cure = f"the picture is in {refuge}"
    raise UserError(failure.name, failure.found, failure.expected, cure) from failure


def write_error(error: BaseException, output: Path) -> UserError:
    """What one of WRITE_ERRORS says, in the form of a UserError."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):  # the current folder itself is gone
        return UserError(f"output: {output}", f"{error.strerror} on writing", "a folder", "choose another")
    return UserError(f"output: {output}", "too little memory to write it", "more", "close other programs")


def report(output: Path, result: StyleResult, seconds: float, quiet: bool) -> None:
    """Print the line about a picture that was saved; an error if its run diverged."""
    if result.diverged:
        print_err(f"npstyle: {output}: {result.message}")
    elif not quiet:
        H, W, _ = result.image.shape
        losses = result.levels[-1].losses if result.levels else ()
        change = f", loss {losses[0]:.4g} -> {result.loss:.4g}" if losses else ""
        print_out(f"{output}: {W} x {H} pixels, {result.message} in {seconds:.0f} s{change}")
