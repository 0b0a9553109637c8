"""The levels of a run: their sizes, and the loop that starts each with the result of the one before."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle import images
from npstyle.divided import Workers
from npstyle.errors import UserError
from npstyle.optimize import Minimizer, OptimizeResult
from npstyle.run.checkpoint import Checkpoint
from npstyle.run.checkpoint_writer import CheckpointWriter
from npstyle.run.finish import Finish
from npstyle.run.inputs import Request, large_enough, nearest_multiple
from npstyle.run.level import Level, resampled
from npstyle.run.results import LevelResult, NextLevel, PlannedLevel, Progress, StyleResult
from npstyle.vgg import VGG19

Array = NDArray[Any]

# In a checkpoint, the picture of the last finished level, in place of the optimizer's state.
PREVIOUS = "previous_level"


def levels(longer: int, min_size: int) -> list[int]:
    """Longer sides of the levels: about `min_size`, then each sqrt(2) times the previous one.

    Examples
    --------
    >>> levels(512, 128)
    [128, 181, 256, 362, 512]
    >>> levels(512, 0)
    [512]
    """
    steps = round(2 * math.log2(longer / min_size)) if 0 < min_size < longer else 0
    return [round(longer / 2 ** (step / 2)) for step in range(steps, -1, -1)]


def level_sizes(request: Request) -> list[tuple[int, int]]:
    """Widths and heights of the levels, in order; without those too small for a layer to see anything.

    Where the padding wraps, sides below the last level are multiples of the loss's stride.
    """
    full = request.result_size
    smaller = [request.size_at(side) for side in levels(max(full), request.settings.min_size)[:-1]]
    if request.settings.padding == "wrap":
        smaller = _without_seams(smaller, full, request.settings.stride)

    def suits(size: tuple[int, int]) -> bool:
        return all(large_enough(one, request.settings) for one in [size, *request.style_sizes(*size)])

    return [*filter(suits, smaller), full]


def _without_seams(
    smaller: Sequence[tuple[int, int]], full: tuple[int, int], stride: int
) -> list[tuple[int, int]]:
    """The smaller sizes with sides rounded to multiples of the stride, each size once."""
    rounded = ((nearest_multiple(w, stride), nearest_multiple(h, stride)) for w, h in smaller)
    return [size for size in dict.fromkeys(rounded) if size[0] < full[0] and size[1] < full[1]]


class _End(NamedTuple):
    """Why the loop over the levels ended."""

    message: str
    interrupted: bool = False
    diverged: bool = False


class Pyramid:
    """The levels of one run, from the smallest to the full size.

    Parameters
    ----------
    request : Request
    network : VGG19
    callback : callable, optional
        Called with a `Progress` after each iteration; StopIteration ends the run, NextLevel the level.
    writer : CheckpointWriter, optional
    plan_of : callable, optional
        The evaluation plan of a level of a width and height: none, if left out.
    workers : Workers, optional
        Who computes tall levels.

    Attributes
    ----------
    sizes : list of (int, int)
        Widths and heights of the levels.
    schedule : tuple of PlannedLevel
        The same with the number of iterations of each: the one that was done, once a level has ended.
    results : list of LevelResult
        Of the levels that have ended.
    """

    def __init__(
        self,
        request: Request,
        network: VGG19,
        callback: Callable[[Progress], None] | None = None,
        writer: CheckpointWriter | None = None,
        plan_of: Callable[[tuple[int, int]], int] = lambda size: 0,
        workers: Workers | None = None,
    ) -> None:
        self.request = request
        self.network = network
        self.callback = callback
        self.writer = writer
        self.plan_of = plan_of
        self.workers = workers
        self.sizes = level_sizes(request)
        iterations = request.settings.level_iterations(self.sizes)
        self.schedule = tuple(PlannedLevel(*size, n) for size, n in zip(self.sizes, iterations, strict=True))
        self.results: list[LevelResult] = []
        self._next_level = False  # the callback has ended the current level, but not the run

    def run(self, checkpoint: Checkpoint | None = None) -> StyleResult:
        """From the first level, or from the checkpoint, to the last one, or to Ctrl-C."""
        state: dict[str, Array] | None = None
        pixels: Array | None = None
        if checkpoint is not None:
            pixels, state = self._restore(checkpoint)
        end = _End(self.results[-1].message) if self.results else None
        for size in self.sizes[len(self.results) :]:
            try:
                if self.writer and pixels is not None:  # for a run that ends before the next iteration
                    self.writer.write(self.results, {PREVIOUS: pixels})
                result = self._minimize(Level(self.request, *size), pixels, state)
            except (KeyboardInterrupt, MemoryError) as error:
                if pixels is None or end is None:
                    raise  # there is no picture yet
                end = _cut_short(end, error)
                break
            pixels, state = result.pixels, None
            self._add(_level_result(size, result))
            end = _End(result.message, result.interrupted, result.diverged)
            if result.ended_early and not (result.stopped and self._next_level):
                break
        assert pixels is not None
        assert end is not None
        return self._finished(pixels, end)

    def _add(self, *results: LevelResult) -> None:
        """Take in how levels ended."""
        self.results += results
        done = tuple(PlannedLevel(level.width, level.height, level.nit) for level in self.results)
        self.schedule = done + self.schedule[len(done) :]

    def _restore(self, checkpoint: Checkpoint) -> tuple[Array | None, dict[str, Array] | None]:
        """Take over the finished levels; the last one's picture, or the state in the middle of the next."""
        count = len(checkpoint.levels)
        if count >= len(self.sizes):
            raise UserError("resume", f"level {count + 1}", f"1 to {len(self.sizes)}", "begin again")
        sizes = [(level.width, level.height) for level in checkpoint.levels]
        if sizes != self.sizes[:count]:
            raise self._mismatch(f"levels of {sizes} pixels")
        self._add(*checkpoint.levels)
        pixels = checkpoint.state.get(PREVIOUS)
        if pixels is None:
            return None, checkpoint.state
        w, h = self.sizes[count - 1]
        if count == 0 or pixels.shape != (h, w, 3) or pixels.dtype != np.float32:
            raise self._mismatch(f"{pixels.dtype} array of shape {pixels.shape} before level {count + 1}")
        return pixels, None

    def _mismatch(self, found: str) -> UserError:
        name = f"checkpoint: {self.writer.path}" if self.writer else "checkpoint"
        return UserError(name, f"something else ({found})", "one of this run", "begin again")

    def _minimize(
        self, level: Level, previous: Array | None, state: dict[str, Array] | None
    ) -> OptimizeResult:
        """Run the optimizer at one level, from the previous level's picture or from a state."""
        writer = self.writer
        objective = level.objective(self.network, self.plan_of(level.size), self.workers)
        done = sum(result.nit for result in self.results)
        number = len(self.results) + 1
        settings = replace(self.request.settings, iterations=self.schedule[number - 1].iterations)
        self._next_level = False

        def after_iteration(pixels: NDArray[np.float32], loss: float, terms: Mapping[str, float]) -> None:
            if writer and writer.due and minimizer.resumable:
                writer.write(self.results, minimizer.state)
            if self.callback is not None:
                nit = minimizer.nit
                progress = Progress(done + nit, number, self.schedule, loss, terms, pixels, nit, level.finish)
                try:
                    self.callback(progress)
                except NextLevel:
                    self._next_level = True
                    raise

        try:
            minimizer = Minimizer(
                objective,
                level.start(previous, self.network.preprocessing),  # not kept here: the minimizer has copies
                settings,
                after_iteration,
                state,
                self.network.threads,
            )
        except UserError:
            raise
        except ValueError as error:  # a state that is none of this minimization's
            raise self._mismatch(str(error)) from error
        if state:  # it is the minimizer's now: kept, it would take as much memory again
            state.clear()
        result = minimizer.run()
        if result.interrupted and writer and minimizer.resumable:
            writer.write(self.results, minimizer.state)
        minimizer.callback = None  # which refers to it, and so kept all the memory of this level
        return result

    def _finished(self, pixels: Array, end: _End) -> StyleResult:
        """The result, enlarged where the run ended at a smaller level."""
        self.network.arena.trim()  # what follows may need that memory
        last, message = self.results[-1], end.message
        size, full = (last.width, last.height), self.sizes[-1]
        complete = len(self.results) == len(self.sizes) and last.success
        if complete and len(self.sizes) > 1:
            message += f" at the last of {len(self.sizes)} levels"
        earlier = enumerate(self.results[:-1], 1)
        short = [f"level {n} after {level.nit}" for n, level in earlier if not level.success]
        if short:
            message += f"; the callback ended {', '.join(short)} already"
        if size != full:
            pixels = resampled(pixels, *full, self.request.settings)
            message += f"; the picture is enlarged from {size[0]} x {size[1]} pixels"
        pixels = np.asarray(Finish(self.request, *full)(pixels), np.float32)
        return StyleResult(
            image=images.to_uint8(pixels),
            pixels=pixels,
            loss=last.loss,
            losses=[loss for result in self.results for loss in result.losses],
            nit=sum(result.nit for result in self.results),
            nfev=sum(result.nfev for result in self.results),
            success=complete and not short and not end.interrupted,
            message=message,
            interrupted=end.interrupted,
            diverged=end.diverged,
            levels=tuple(self.results),
            checkpoint=self.writer.path if self.writer and self.writer.stored else None,
        )


def _level_result(size: tuple[int, int], result: OptimizeResult) -> LevelResult:
    counts = result.nit, result.nfev
    return LevelResult(*size, result.loss, result.losses, *counts, result.success, result.message)


def _cut_short(end: _End, error: BaseException) -> _End:
    """The end of a run in which the next level could not begin."""
    if isinstance(error, KeyboardInterrupt):
        return _End(f"interrupted: {end.message}", interrupted=True)
    return _End(f"{end.message}, then there was too little memory for the next size")
