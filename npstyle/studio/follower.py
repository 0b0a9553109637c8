"""What a page is told of a run, after each of its iterations."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from npstyle import images
from npstyle.run import LevelResult, Progress, Request
from npstyle.run.time_left import TimeLeft

PREVIEW_SIDE = 1024  # pixels, at most
PREVIEW_SECONDS = 1.0  # at least, between two previews
PREVIEW_FACTOR = 30  # times what the last preview took, at least, between two: they cost little then
EVENT_SECONDS = 0.2  # at least, between two events about the progress


def point_of(progress: Progress) -> dict[str, Any]:
    """An iteration in the curves."""
    point = {name: getattr(progress, name) for name in ("iteration", "level", "loss")}
    return {**point, "terms": dict(progress.terms)}


def level_facts(level: LevelResult) -> dict[str, Any]:
    """What is kept of a level; `whole` is False if it was ended early."""
    size = {"width": level.width, "height": level.height}
    return {**size, "iterations": level.nit, "whole": level.success}


def before(request: Request) -> bytes:
    """The photograph as a JPEG file, in the size in which the result is shown."""
    size = images.fitted_size(*request.result_size, PREVIEW_SIDE)
    return images.encode("x.jpg", images.to_uint8(images.resize(request.content, *size)))


class Follower:
    """Tells how far a run is, and shows the picture so far, now and then.

    Parameters
    ----------
    send : callable
        Takes what an event about the progress says.
    show : callable
        Takes the picture so far as a JPEG file, and returns whether it can be seen now.
    looking : callable
        Whether anybody looks; else there are no previews.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        show: Callable[[bytes], bool],
        looking: Callable[[], bool] = lambda: True,
    ) -> None:
        self._send, self._show, self._looking = send, show, looking
        self._time_left = TimeLeft()
        self._next_event = self._next_preview = 0.0
        self._previews = 0

    def after_iteration(self, progress: Progress) -> None:
        """Tell what there is to tell; the callback of `npstyle.run.paint`."""
        now = time.monotonic()
        self._time_left.update(progress, now)
        last = progress.iteration == progress.iterations
        if (now >= self._next_preview or last) and self._looking():
            self._preview(progress)
        if now >= self._next_event or last:
            height, width, _ = progress.iterate.shape
            left = self._time_left.estimate(progress)
            facts = {"levels": progress.levels, "iterations": progress.iterations, "seconds_left": left}
            facts |= {"width": width, "height": height, "preview": self._previews}
            self._send({**point_of(progress), **facts})
            self._next_event = now + EVENT_SECONDS

    def _preview(self, progress: Progress) -> None:
        began = time.monotonic()
        with suppress(MemoryError):  # the run may have all of it, and is not to end for a preview
            if self._show(images.encode("x.jpg", images.fit(progress.image, PREVIEW_SIDE))):
                self._previews += 1
        now = time.monotonic()
        self._next_preview = now + max(PREVIEW_SECONDS, PREVIEW_FACTOR * (now - began))
