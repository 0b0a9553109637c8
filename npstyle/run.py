"""The run: from pictures, settings and weights to a painted picture, by SciPy's L-BFGS over the pixels.

This is the only border between float64, which the optimiser works in, and float32, which the network
works in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from npstyle import images
from npstyle.architecture import deepest
from npstyle.calibration import calibrated
from npstyle.errors import UserError, whole_number
from npstyle.objective import Objective
from npstyle.settings import Settings, preset
from npstyle.vgg import SMALLEST, VGG19, Filters, check_size
from npstyle.weights import Weights, load_weights

Double = NDArray[np.float64]

HISTORY = 10  # pairs of steps and gradient changes that L-BFGS remembers
# SciPy's L-BFGS counts the numbers it works on, about (2 HISTORY + 5) a variable, in 32 bits.
MOST_PIXELS = (2**31 - 1) // (3 * (2 * HISTORY + 5))


@dataclass(frozen=True)
class Progress:
    """What a callback is given after each iteration."""

    iteration: int
    loss: float
    terms: Mapping[str, float]
    pixels: NDArray[np.float32]

    @property
    def image(self) -> images.Picture:
        """The picture so far, (H, W, 3) uint8."""
        return images.to_uint8(self.pixels)


@dataclass(frozen=True)
class StyleResult:
    """What a run ends with.

    Attributes
    ----------
    image : (H, W, 3) uint8 array
    loss : float
        Of the picture before it was rounded to whole numbers.
    history : list of float
        The loss at the start and after each iteration.
    message : str
        Why the run stopped, in plain words.
    interrupted : bool
        By Ctrl-C; the picture is the best up to then.
    diverged : bool
        Loss or gradient were no longer finite numbers; the picture is the last good one.
    pixels : (H, W, 3) float32 array
        The picture before rounding and clipping.
    """

    image: images.Picture
    loss: float
    history: list[float]
    message: str
    interrupted: bool
    diverged: bool
    pixels: NDArray[np.float32] = field(repr=False)


def stylize(
    content: ArrayLike,
    styles: Sequence[ArrayLike] | ArrayLike,
    *,
    settings: Settings | str | None = None,
    weights: Mapping[str, Filters] | str | os.PathLike[str] = "auto",
    size: int = 512,
    iterations: int = 300,
    seed: int = 0,
    init: ArrayLike | None = None,
    convolution: str = "auto",
    threads: int | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> StyleResult:
    """Paint the content picture in the manner of the style pictures.

    Parameters
    ----------
    content : (H, W, 3) array
        RGB, 0..255.
    styles : (h, w, 3) array, or a sequence of them
        RGB, 0..255, of any sizes.
    settings : Settings or name of a preset, optional
        If left out, `preset("default")`, or `preset("random")` with random filters.
    weights : mapping, str or path
        Filters, or what `load_weights` is to load.
    size : int
        Longer side of the result and of the style pictures, in pixels; smaller pictures stay as they are.
    iterations : int
        Of L-BFGS; one takes more than one loss and gradient, now and then two or three.
    seed : int
        Of noise in the start, and of random filters.
    init : (h, w, 3) array, optional
        A picture to start from, in place of `settings.init`; resized to the content picture's size.
    convolution, threads
        See `VGG19`.
    callback : callable, optional
        Called with a `Progress` after each iteration. It may raise StopIteration to end the run.

    Returns
    -------
    StyleResult
        Also on Ctrl-C (KeyboardInterrupt) after the first iteration, which ends the run with the picture
        so far.

    Raises
    ------
    UserError
        Something given can't be used; the message says what, and what would do.
    """
    size, seed = whole_number("size", size, 1), whole_number("seed", seed, 0)
    iterations = whole_number("iterations", iterations, 0)
    if isinstance(settings, str):
        settings = preset(settings)
    layers = (settings or preset("random")).layers
    photo = fitted(content, size, layers, "content")
    paintings = several(styles, size, layers)
    settings, filters = prepare(settings, weights, [photo, *paintings], seed, threads)
    network = VGG19(filters, pooling=settings.pooling, convolution=convolution, threads=threads)
    objective = Objective(network, photo, paintings, settings)
    start = starting_picture(photo, settings.init, init, seed)
    return _Run(objective, start, iterations, callback).result()


def prepare(
    settings: Settings | None,
    weights: Mapping[str, Filters] | str | os.PathLike[str],
    pictures: Sequence[ArrayLike],
    seed: int = 0,
    threads: int | None = None,
) -> tuple[Settings, Mapping[str, Filters]]:
    """Settings and filters of a run: loaded where they are named, calibrated where they are random."""
    if isinstance(weights, (str, os.PathLike)):
        top = deepest((settings or preset("default")).layers)
        weights = load_weights(weights, seed=seed, deepest=top)
    random = isinstance(weights, Weights) and weights.random
    settings = settings or preset("random" if random else "default")
    if random:
        weights = calibrated(weights, pictures, settings.layers, settings.pooling, threads)
    return settings, weights


def starting_picture(content: ArrayLike, kind: str, init: ArrayLike | None, seed: int) -> Double:
    """The picture a run starts from, (H, W, 3).

    "content": the content picture. "noise": every channel of every pixel uniform in 0..255, as the
    paper's white noise. "blend": half of each. Or `init`, resized to the content picture.
    """
    picture = np.asarray(content, np.float64)
    H, W, _ = picture.shape
    if init is not None:
        return images.resize(images.as_picture(init, "init"), W, H).astype(np.float64)
    if kind == "content":
        return picture.copy()
    noise = np.random.default_rng(seed).uniform(0, 255, picture.shape)
    return noise if kind == "noise" else (picture + noise) / 2


def fitted(picture: ArrayLike, size: int, layers: Sequence[str], name: str) -> NDArray[Any]:
    """The picture reduced to `size`, and large enough for the layers but not too large for the optimiser."""
    array = images.as_picture(picture, name)
    small = images.fit(array, size)
    reduced = small.shape != array.shape and min(array.shape[:2]) >= SMALLEST
    check_size(small.shape, layers, name, f"give a size above {size}" if reduced else "")
    H, W, _ = small.shape
    if H * W > MOST_PIXELS:
        expected = f"at most {MOST_PIXELS // 10**6} million pixels"
        raise UserError(name, f"{W} x {H} pixels", expected, "give a smaller size")
    return small


def several(styles: Sequence[ArrayLike] | ArrayLike, size: int, layers: Sequence[str]) -> list[NDArray[Any]]:
    """One picture or a sequence of them, as a list of pictures reduced to `size`."""
    pictures = [np.asarray(style) for style in styles] if isinstance(styles, (list, tuple)) else []
    if not isinstance(styles, (list, tuple)) or any(picture.ndim == 2 for picture in pictures):
        pictures = [np.asarray(styles)]
    numbers = [f"style {i}" if len(pictures) > 1 else "style" for i in range(1, len(pictures) + 1)]
    return [fitted(picture, size, layers, name) for picture, name in zip(pictures, numbers, strict=True)]


class _DivergedError(Exception):
    """Loss or gradient is no longer a finite number."""


class _StoppedError(Exception):
    """The callback has seen enough."""


class _Run:
    """One continuous run of L-BFGS.

    The optimiser sees the loss divided by its value at the start: numbers of order 1, whatever the
    network, the size and the weights. Its own tests for convergence are switched off (ftol = gtol = 0):
    it stops after the iterations asked for, or when no step along its direction lowers the loss any more.
    """

    def __init__(
        self,
        objective: Objective,
        start: Double,
        iterations: int,
        callback: Callable[[Progress], None] | None,
    ) -> None:
        self.objective = objective
        self.iterations = iterations
        self.callback = callback
        self.shape = start.shape
        self.pixels = start
        self.history: list[float] = []
        self.unit = 1.0
        self.terms: dict[str, float] = {}
        self.at_start: tuple[float, NDArray[np.float32]] | None = None

    def result(self) -> StyleResult:
        """Run to the end, or to Ctrl-C, and tell how it went."""
        interrupted = diverged = False
        try:
            message = self._minimize()
        except KeyboardInterrupt:
            if not self._done:
                raise  # there is nothing yet that is worth keeping
            interrupted = True
            message = f"interrupted after {_iterations(self._done)}"
        except _DivergedError as error:
            diverged = True
            message = f"stopped after {_iterations(self._done)}: {error}; the picture is the last good one"
        except _StoppedError:
            message = f"stopped by the callback after {_iterations(self._done)}"
        while True:
            try:
                pixels = self.pixels.astype(np.float32)
                image = images.to_uint8(pixels)
                loss = self.history[-1]
                return StyleResult(image, loss, self.history, message, interrupted, diverged, pixels)
            except KeyboardInterrupt:  # too late to interrupt anything: the picture is finished
                interrupted = True

    @property
    def _done(self) -> int:
        return max(0, len(self.history) - 1)

    def _minimize(self) -> str:
        try:
            loss, gradient = self._evaluate(self.pixels)
        except _DivergedError as error:
            raise UserError(
                "loss",
                f"no finite number at the start ({error})",
                "one",
                "take smaller weights or other filters",
            ) from None
        self.history.append(loss)
        if loss == 0:
            return "nothing to do: the start has no loss at all"
        if self.iterations == 0:
            return "no iterations were asked for: the picture is the start"
        self.unit = loss
        self.at_start = loss, gradient
        outcome = minimize(
            self._scaled,
            self.pixels.reshape(-1),
            jac=True,
            method="L-BFGS-B",
            callback=self._after_iteration,
            options={
                "maxiter": self.iterations,
                "maxfun": 25 * self.iterations,
                "maxcor": HISTORY,
                "ftol": 0.0,
                "gtol": 0.0,
            },
        )
        return _in_plain_words(outcome, self._done)

    def _evaluate(self, pixels: Double) -> tuple[float, NDArray[np.float32]]:
        # Overflow is looked for below, in the result.
        with np.errstate(over="ignore", invalid="ignore"):
            loss, gradient = self.objective(pixels.astype(np.float32))
        if not (math.isfinite(loss) and np.isfinite(gradient).all()):
            raise _DivergedError("loss or gradient is not a finite number")
        self.terms = self.objective.terms
        return loss, gradient

    def _scaled(self, x: Double) -> tuple[float, Double]:
        # SciPy begins at the start, where the loss is known already.
        loss, gradient = self.at_start or self._evaluate(x.reshape(self.shape))
        self.at_start = None
        return loss / self.unit, np.divide(gradient.reshape(-1), self.unit, dtype=np.float64)

    def _after_iteration(self, intermediate_result: Any) -> None:
        self.pixels = intermediate_result.x.reshape(self.shape).copy()
        self.history.append(float(intermediate_result.fun) * self.unit)
        if self.callback is not None:
            progress = Progress(self._done, self.history[-1], self.terms, self.pixels.astype(np.float32))
            try:
                self.callback(progress)
            except StopIteration:
                raise _StoppedError from None


def _in_plain_words(outcome: Any, done: int) -> str:
    """Why SciPy's L-BFGS stopped."""
    text = str(outcome.message).upper()
    if "ITERATIONS" in text:
        return f"did the {_iterations(done)} asked for"
    if "ABNORMAL" in text:
        return (
            f"stopped after {_iterations(done)}: no step lowers the loss any more, as far as float32 can tell"
        )
    if "EVALUATIONS" in text:
        return f"stopped after {_iterations(done)}: too many evaluations"
    return f"converged after {_iterations(done)} ({outcome.message})"


def _iterations(count: int) -> str:
    return f"{count} iteration" + "s" * (count != 1)
