"""What a run reports: progress after each iteration, and a result at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle import images

Array = NDArray[Any]


def _as_it_is(pixels: Array) -> Array:
    return pixels


class NextLevel(StopIteration):
    """A callback raises it to end the current level; the next one continues from its picture.

    At the last level it ends the run, as any StopIteration.
    """


class PlannedLevel(NamedTuple):
    """A level of the pyramid: its size, and how many iterations it gets, or has done if it has ended."""

    width: int
    height: int
    iterations: int


@dataclass(frozen=True, eq=False)
class Progress:
    """What a callback receives after each iteration.

    Two of them are equal only if they are the same object, as their arrays have no single truth value. It can
    be pickled, to be shown by another process for example.

    Attributes
    ----------
    iteration, iterations : int
        How many are done, of how many, over all levels.
    level, levels : int
        The current level, from 1, and the number of levels.
    schedule : tuple of PlannedLevel
        Width, height and number of iterations of every level, in order.
    loss : float
        After this iteration.
    terms : mapping of str to float
        The weighted parts of the loss by name, as `Objective.terms`; the loss is their sum.
    iterate : (h, w, 3) float32 array
        The best picture of this level so far, as the network sees it; read-only.
    level_iteration : int
        How many iterations are done at this level.
    """

    iteration: int
    level: int
    schedule: tuple[PlannedLevel, ...]
    loss: float
    terms: Mapping[str, float]
    iterate: NDArray[np.float32]
    level_iteration: int = 0
    _finish: Callable[[Array], Array] = field(repr=False, default=_as_it_is)

    @property
    def iterations(self) -> int:
        return sum(level.iterations for level in self.schedule)

    @property
    def levels(self) -> int:
        return len(self.schedule)

    @property
    def image(self) -> images.Picture:
        """The picture so far, (h, w, 3) uint8, as it would be written."""
        return images.to_uint8(self._finish(self.iterate))


class LevelResult(NamedTuple):
    """How one level of the pyramid ended.

    Attributes
    ----------
    width, height : int
    loss : float
        The lowest.
    losses : list of float
        At the level's start and after each of its iterations: nit + 1 of them.
    nit, nfev : int
        Iterations, and evaluations of loss and gradient.
    success : bool
    message : str
        Why the optimizer stopped.
    """

    width: int
    height: int
    loss: float
    losses: list[float]
    nit: int
    nfev: int
    success: bool
    message: str


@dataclass(frozen=True, eq=False)
class StyleResult:
    """The result of a run. A notebook displays its picture.

    Two results are equal only if they are the same object, as their arrays have no single truth value.

    Attributes
    ----------
    image : (H, W, 3) uint8 array
    pixels : (H, W, 3) float32 array
        The finished picture before rounding and clipping.
    loss : float
        Of the last level's picture, before colors were put back and values rounded.
    losses : list of float
        The loss at the start and after each iteration of every level, one level after the other. It jumps
        where a level begins: the picture is another one there.
    nit, nfev : int
        Iterations, and evaluations of loss and gradient, over all levels.
    success : bool
        All levels were run, and each did its iterations or reached a point from which no step lowers the
        loss. As in `scipy.optimize.minimize`, a run that a callback stopped, or a level of it, is no success;
        unlike there, to have done all iterations is, as they are what was asked for.
    message : str
        Why the run stopped, in plain words.
    interrupted : bool
        By Ctrl-C; the picture is the best up to then.
    diverged : bool
        Loss or gradient were no longer finite numbers; the picture is the last good one.
    levels : tuple of LevelResult
        The same numbers for each level that has begun, also those from before the run was resumed.
    checkpoint : Path or None
        Where the run's state is stored, if it is.
    weights : str
        The filters that were used: `Weights.label`.
    """

    image: images.Picture = field(repr=False)
    pixels: NDArray[np.float32] = field(repr=False)
    loss: float
    losses: list[float] = field(repr=False)
    nit: int
    nfev: int
    success: bool
    message: str
    interrupted: bool
    diverged: bool
    levels: tuple[LevelResult, ...] = field(repr=False)
    checkpoint: Path | None = None
    weights: str = ""

    def _repr_png_(self) -> bytes:
        return images.png(self.image)
