"""Ctrl-C, SIGTERM and SIGHUP: how they end a command, what is printed then, and its exit status."""

from __future__ import annotations

import math
import signal
import threading
import time
from typing import Any

from npstyle.cli.terminal import DONE, FAILED, INTERRUPTED

REPEAT_SECONDS = 2.0  # a second Ctrl-C within this time counts as the same one

# SIGHUP: the terminal was closed, or the connection to it. Windows has none.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

# Printed when one of them comes, beside the line about the picture that was saved.
NOTHING_WRITTEN = "interrupted; nothing was written"
FIGURE_INTERRUPTED = "interrupted, with the panels made so far"
HOW_TO_RESUME = "run the same command with --resume --overwrite to continue"


class Interrupted(KeyboardInterrupt):
    """One of SIGNALS has come; `status` is the exit status that a shell gives to a process that it ended."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


class Signals:
    """Inside this context Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, once, however often they come.

    Signals that were ignored stay ignored, as in a job in the background or below nohup.

    Attributes
    ----------
    status : int
        The exit status of a command that they interrupt; of several signals, the one that was raised.
    """

    def __init__(self) -> None:
        self.status = INTERRUPTED
        self._last = -math.inf
        self._raised: Interrupted | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):
                    self._handlers[number] = handler
                    signal.signal(number, self._interrupt)
        return self

    def __exit__(self, _: object, exception: BaseException | None, __: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._raised and isinstance(exception, (ImportError, SystemError)):
            raise self._raised from None  # what an import has made of it: "initialization failed"

    def ignore(self) -> None:
        """Let nothing interrupt what follows: there is a picture to save."""
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)

    def _interrupt(self, number: int, _: object) -> None:
        # Python swallows exceptions in some places: after a while, the signal is taken for a new one.
        repeated, self._last = time.monotonic() - self._last < REPEAT_SECONDS, time.monotonic()
        if not repeated:
            self._raised = Interrupted(number)
            self.status = self._raised.status
            raise self._raised


def exit_status(signals: Signals, interrupted: bool, diverged: bool) -> int:
    """The exit status of a command whose picture was saved."""
    if diverged:
        return FAILED
    if interrupted:
        return signals.status
    return DONE
