"""The process that paints one picture: `python -m npstyle.studio.worker FOLDER WEIGHTS THREADS`.

It reads JOB and the pictures in the folder of a painting, and continues from the checkpoint there, if there
is one. On standard output it writes events, a line of JSON each; on standard input it is told "stop", to keep
the picture as it is, "pause", or "next 2", to end level 2. The end of standard input means that the server
has ended: that is a pause, too, from which the next server continues to the same picture.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from npstyle import images
from npstyle._runtime.json_lines import JsonLines
from npstyle._runtime.locks import lock
from npstyle.architecture import deepest
from npstyle.errors import UserError
from npstyle.images.metadata import as_text
from npstyle.jobs.picture import facts_of
from npstyle.run import CheckpointWarning, NextLevel, Progress, Request, StyleResult, paint
from npstyle.studio.folder import (
    BEFORE,
    CHECKPOINT,
    JOB,
    LOCK,
    LOSSES,
    PICTURE,
    PICTURE_16_BITS,
    PREVIEW,
    RESULT,
    Job,
    write_file,
    write_json,
)
from npstyle.studio.follower import Follower, level_facts, point_of
from npstyle.studio.inputs import Inputs
from npstyle.weights import RandomFiltersWarning, Weights, WeightsWarning, load_weights

STOP, PAUSE, NEXT = "stop", "pause", "next"
CHECKPOINT_SECONDS = 10.0


class Worker:
    """The painting of one picture.

    Parameters
    ----------
    folder : Path
        Of the painting.
    weights : str
        What `load_weights` is to load, unless the order asks for random filters.
    threads : int, optional
    """

    def __init__(self, folder: Path, weights: str = "auto", threads: int | None = None) -> None:
        self.folder, self.threads = folder, threads
        self.job = Job.parse(folder.name, (folder / JOB).read_bytes())
        self.source = self.job.options.get("weights", "auto")
        self.source = weights if self.source == "auto" else self.source
        self.told = ""  # STOP or PAUSE
        self.ended_level = 0  # that NEXT has ended
        self._continued = (folder / CHECKPOINT).exists()
        self._follower = Follower(lambda values: self.send("progress", **values), self._show)

    def paint(self) -> None:
        """From the pictures in the folder to the painted one there, or to the checkpoint.

        Raises
        ------
        UserError
            Something can't be used, or the run diverged.
        """
        self.send("phase", phase="filters")
        request, weights = self._prepare()
        began = time.monotonic()
        before = images.resize(request.content, *request.result_size)
        write_file(self.folder / BEFORE, images.encode("x.jpg", images.to_uint8(before)))
        self.send("phase", phase="start")  # with something to look at
        self._losses = JsonLines(self.folder / LOSSES)
        result = paint(
            request,
            weights,
            threads=self.threads,
            callback=self.after_iteration,
            checkpoint=self.folder / CHECKPOINT,
            checkpoint_every=CHECKPOINT_SECONDS,
            resume="quietly",
        )
        if result.interrupted:
            self.send("paused")
        elif result.diverged:
            cure = "give a smaller strength, or another recipe"
            raise UserError("picture", result.message, "a loss that is a finite number", cure)
        else:
            self._save(request, result, weights, time.monotonic() - began)
            self.send("done")

    def _prepare(self) -> tuple[Request, Weights]:
        """The request, and its filters."""
        order, random = self.job.order, self.source == "random"
        contents: dict[str, images.PictureFile] = {
            file: images.FileContents(name, (self.folder / file).read_bytes())
            for file, name in self.job.names.items()
        }
        files = Inputs.of(contents)
        request = order.request(files, random)
        weights = load_weights(self.source, request.seed, deepest(request.settings.layers))
        if weights.random and not random:  # there were no others
            request = order.request(files, True)
        return request, weights

    def after_iteration(self, progress: Progress) -> None:
        """Send what there is to see, and do what the server has asked for."""
        with suppress(OSError):  # a full disk costs the curves, not the picture
            self._losses.write(point_of(progress))
        self._follower.after_iteration(progress)
        if self.told == STOP:
            raise StopIteration
        if self.told == PAUSE:
            raise KeyboardInterrupt
        if self.ended_level == progress.level < progress.levels:
            raise NextLevel

    def _show(self, preview: bytes) -> bool:
        with suppress(UserError):  # the disk is full
            write_file(self.folder / PREVIEW, preview)
            return True
        return False

    def _save(self, request: Request, result: StyleResult, weights: Weights, seconds: float) -> None:
        """The picture in 8 and in 16 bits with its settings inside, and last how it was made."""
        job, source = self.job, "random" if weights.random else self.source
        if source == "auto":
            source = os.environ.get("NPSTYLE_WEIGHTS", source)
        settings, iterations = request.settings, [level.nit for level in result.levels]
        whole = (result.levels[-1].width, result.levels[-1].height) == request.result_size
        cut = whole and not result.success  # what was done can be asked for then, and is the same picture
        if cut:
            settings = replace(settings, iterations=tuple(iterations))
        recorded = job.order.recorded(job.names, settings, source)
        text = as_text(recorded, note=result.message, filters=result.weights)
        for name, pixels, depth in ((PICTURE, result.image, 8), (PICTURE_16_BITS, result.pixels, 16)):
            write_file(self.folder / name, images.encode(name, pixels, depth=depth, text=text))
        facts = {**facts_of(result), "seconds": round(seconds, 3)}
        facts["stopped"] = self.told == STOP and not (whole and result.levels[-1].success)
        facts["levels"] = [level_facts(level) for level in result.levels]
        facts["continued"] = self._continued  # the seconds are those of its last part then
        if cut:
            facts["command"] = job.order.command(job.names, self.source, iterations)
        facts["enlarged"] = not whole
        write_json(self.folder / RESULT, facts)
        for name in (CHECKPOINT, PREVIEW):
            (self.folder / name).unlink(missing_ok=True)

    def listen(self) -> None:
        """Take in what the server says, to its end."""
        for line in sys.stdin:
            word, _, level = line.strip().partition(" ")
            if word in (STOP, PAUSE):
                self.told = word
            elif word == NEXT and level.isdecimal():
                self.ended_level = int(level)
        self.told = self.told or PAUSE

    def send(self, event: str, **values: Any) -> None:
        """Send an event; without a server, none is sent, and the run is to end."""
        try:
            print(json.dumps({"event": event, **values}), flush=True)
        except OSError:
            self.told = self.told or PAUSE


def main(words: list[str]) -> None:
    """Paint, and say how it ended."""
    folder, weights, threads = Path(words[0]), words[1], words[2]
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal sends it to the server, too, which says what to do
    with (folder / LOCK).open("ab") as file:
        lock(file.fileno(), wait=True)  # the process of a server that was killed may still be ending
        if (folder / RESULT).exists():
            print(json.dumps({"event": "done"}), flush=True)
            return
        worker = Worker(folder, weights, int(threads) if threads else None)
        threading.Thread(target=worker.listen, daemon=True).start()
        with warnings.catch_warnings():
            _send_warnings(worker)
            try:
                worker.paint()
            except (UserError, MemoryError, OSError) as error:
                text = str(error) or "too little memory; try a smaller size"
                worker.send("failed", error=text)


def _send_warnings(worker: Worker) -> None:
    """Send npstyle's warnings as events, each once."""
    sent: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in sent:
            sent.add(str(message))
            worker.send("warning", text=str(message))

    for category in (images.PictureWarning, CheckpointWarning, WeightsWarning, RandomFiltersWarning):
        warnings.simplefilter("always", category)
    warnings.showwarning = show


if __name__ == "__main__":
    main(sys.argv[1:])
