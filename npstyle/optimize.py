"""L-BFGS, SciPy's or in float32, and Adam over the pixels of one picture.

SciPy's L-BFGS stores points, gradients and their changes in float64. The network and the losses compute in
float32 what they are given in float32, so the point is rounded for each evaluation and the gradient widened
after it; both happen in `Minimizer`. The network's own arithmetic is float32 (accumulated in float64 in the
losses), and only a gradient check calls it with float64. The arrays of L-BFGS in float32 (`lbfgs32`) and of
Adam are float32 throughout.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle.errors import UserError
from npstyle.lbfgs import INTEGER, MAX_INTEGER, adopted, lbfgsb, workspace_size
from npstyle.lbfgs32 import MAX_MAXCOR, Lbfgs32, bytes_of
from npstyle.settings import Settings

Single = NDArray[np.float32]
Double = NDArray[np.float64]

# Adam's decay of the mean of gradients and of their squares, and what keeps it from dividing by zero: the
# values of its authors, which every system takes.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def first_step(start: NDArray[Any]) -> float:
    """The length of L-BFGS's first step, along the gradient: about one gray level for each variable.

    A step of length 1, as SciPy takes it, moves no pixel of a picture, and the line search then spends three
    evaluations on making it longer, at every level. From 0.3 to 3 gray levels it makes no difference
    (docs/recipe.md). A power of two, so that scaling by it changes no digit.
    """
    return float(2.0 ** round(math.log2(math.sqrt(start.size))))


def max_pixels(settings: Settings) -> int:
    """The largest picture: SciPy's L-BFGS indexes its `workspace` by integers. 0 if `maxcor` is too large."""
    if settings.optimizer != "lbfgs":
        return MAX_INTEGER if settings.optimizer == "adam" or settings.maxcor <= MAX_MAXCOR else 0
    fixed = workspace_size(0, settings.maxcor)
    return max(0, MAX_INTEGER - fixed) // (workspace_size(3, settings.maxcor) - fixed)


class OptimizerWarning(RuntimeWarning):
    """The picture is larger than SciPy's L-BFGS can index; L-BFGS in float32 replaces it."""


def with_possible_optimizer(settings: Settings, pixels: int) -> Settings:
    """The settings; with L-BFGS in float32 in place of SciPy's where only that takes so many pixels."""
    in_float32 = replace(settings, optimizer="lbfgs32")
    if settings.optimizer == "lbfgs" and max_pixels(settings) < pixels <= max_pixels(in_float32):
        return in_float32
    return settings


def warn_of_optimizer(settings: Settings, possible: Settings) -> None:
    """Say that another optimizer runs than the one asked for, if so."""
    if possible.optimizer != settings.optimizer:
        warnings.warn(
            f"optimizer: found more pixels than SciPy's L-BFGS can index with maxcor={settings.maxcor} "
            f'({max_pixels(settings)}); "{possible.optimizer}" runs in its place, with vectors in float32',
            OptimizerWarning,
            stacklevel=3,
        )


def pairs_used(settings: Settings) -> int:
    """How many pairs L-BFGS stores: the last iteration has those of all before it, if that is fewer."""
    return min(settings.maxcor, max(1, _iterations_of(settings) - 1))


def _iterations_of(settings: Settings) -> int:
    """Of a single level."""
    return settings.iterations if isinstance(settings.iterations, int) else settings.iterations[-1]


def stored_bytes(settings: Settings, pixels: int) -> int:
    """Bytes of the state of a minimization in the end, as a checkpoint has it: `Minimizer.state`."""
    n = 3 * pixels
    if settings.optimizer == "lbfgs32":
        return bytes_of(n, pairs_used(settings))  # the best picture in place of the direction
    if settings.optimizer == "adam":
        return 4 * n * (4 + 1)
    return optimizer_bytes(settings, pixels) + 4 * n


def optimizer_bytes(settings: Settings, pixels: int) -> int:
    """Memory of the optimizer for a picture of so many pixels, at a level of `settings.iterations`.

    L-BFGS: its workspace, point and gradient in float64, and 3 arrays of integers. In float32: see
    `lbfgs32.bytes_of`. Adam, in float32: point, gradient, mean and mean square, all twice while a step is
    made.
    """
    n = 3 * pixels
    if settings.optimizer == "lbfgs32":
        return bytes_of(n, pairs_used(settings))
    if settings.optimizer == "adam":
        return 4 * n * 2 * 4
    return 8 * (workspace_size(n, pairs_used(settings)) + 2 * n) + np.dtype(INTEGER).itemsize * 3 * n


class Evaluate(Protocol):
    """Loss and gradient of a picture, and the parts of the loss."""

    @property
    def terms(self) -> Mapping[str, float]: ...

    def __call__(self, pixels: ArrayLike) -> tuple[float, NDArray[Any]]: ...


class OptimizeResult(NamedTuple):
    """The best picture that a minimization came to, and why it stopped.

    Attributes
    ----------
    pixels : (H, W, 3) float32 array
    loss : float
        Of these pixels: the lowest.
    losses : list of float
        At the start and after each iteration.
    nit, nfev : int
        Iterations, and evaluations of loss and gradient.
    success : bool
        All iterations were done, or no step lowers the loss any more.
    message : str
    interrupted, diverged, stopped, exhausted : bool
        Ended by Ctrl-C, by numbers that are not finite, by the callback, or for lack of memory.
    """

    pixels: Single
    loss: float
    losses: list[float]
    nit: int
    nfev: int
    success: bool
    message: str
    interrupted: bool = False
    diverged: bool = False
    stopped: bool = False
    exhausted: bool = False

    @property
    def ended_early(self) -> bool:
        return self.interrupted or self.diverged or self.stopped or self.exhausted


class _DivergedError(Exception):
    """Loss or gradient is no longer a finite number."""


class _StoppedError(Exception):
    """The callback raised StopIteration."""


class Minimizer:
    """One continuous run of an optimizer.

    SciPy's L-BFGS sees the loss divided by its value at the start, numbers of order 1, whatever the network,
    the size and the weights, and the pixels divided by the length of the first step. L-BFGS in float32 takes
    the same steps in any unit. There are no tests for convergence: both stop after the iterations asked for,
    or when no step along their direction lowers the loss any more.

    Adam takes its steps whether or not they lower the loss; the result is the picture with the lowest.

    Parameters
    ----------
    evaluate : callable
        Loss and gradient, float32.
    start : (H, W, 3) array
    settings : Settings
        Its optimizer, and the options of that one.
    callback : callable, optional
        Called after each iteration with the best picture so far, the loss, and its terms. StopIteration
        ends the run.
    state : mapping of str to array, optional
        The `state` of an earlier run, which is continued to the same result as if it had never stopped. Its
        arrays are taken over.
    threads : int, optional
        Of the optimizer's own kernels; results do not depend on it.

    Raises
    ------
    ValueError
        The state is not one of this minimization.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        start: NDArray[Any],
        settings: Settings,
        callback: Callable[[Single, float, Mapping[str, float]], None] | None = None,
        state: Mapping[str, NDArray[Any]] | None = None,
        threads: int | None = None,
    ) -> None:
        self.evaluate = evaluate
        self.settings = settings
        self.callback = callback
        self.shape = start.shape
        self.pixels: Single = start.astype(np.float32)  # replaced, never written to: others may hold it
        self.loss = math.inf
        self.losses: list[float] = []
        self.optimizer = _optimizer(start, settings, threads)
        if state is not None:
            self._restore(state)

    @property
    def resumable(self) -> bool:
        """Whether there is a `state` to continue from: not if L-BFGS runs by SciPy's public interface."""
        return self.optimizer.resumable

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """Everything, at whatever moment: a later run continues from it to the same result."""
        finished = self.optimizer.finished
        if finished is not None and self.optimizer.nit == len(self.losses):
            self._record(*finished)  # interrupted between the end of an iteration and its record
        own = {"losses": np.array(self.losses), "pixels": self.pixels}
        return {**own, **self.optimizer.stored}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        losses, pixels = np.asarray(state.get("losses")), np.asarray(state.get("pixels"))
        if losses.ndim != 1 or losses.dtype != np.float64 or not losses.size:
            raise ValueError("losses is not that of this run")
        if pixels.shape != self.shape or pixels.dtype != np.float32:
            raise ValueError("pixels are not those of this run")
        self.optimizer.restore(state)
        self.losses = losses.tolist()
        self.pixels, self.loss = pixels, min(self.losses)

    @property
    def nit(self) -> int:
        """Iterations so far."""
        return max(0, len(self.losses) - 1)

    def run(self) -> OptimizeResult:
        """Minimize to the end, or to Ctrl-C."""
        interrupted = diverged = stopped = exhausted = False
        try:
            message = self._minimize()
        except KeyboardInterrupt:
            if not self.nit:
                raise  # there is no picture yet
            interrupted = True
            message = f"interrupted after {_iterations(self.nit)}"
        except _DivergedError as error:
            diverged = True
            message = f"stopped after {_iterations(self.nit)}: {error}; the picture is the last good one"
        except _StoppedError:
            stopped = True
            message = f"stopped by the callback after {_iterations(self.nit)}"
        except MemoryError:
            if not self.nit:
                raise
            exhausted = True
            message = f"stopped after {_iterations(self.nit)}, as there was too little memory for another"
        while True:
            try:
                return OptimizeResult(
                    pixels=self.pixels,
                    loss=self.loss,
                    losses=self.losses,
                    nit=self.nit,
                    nfev=self.optimizer.nfev + diverged,  # the evaluation that was not finite
                    success=not (interrupted or diverged or stopped or exhausted),
                    message=message,
                    interrupted=interrupted,
                    diverged=diverged,
                    stopped=stopped,
                    exhausted=exhausted,
                )
            except KeyboardInterrupt:  # too late to interrupt anything: the picture is finished
                interrupted = True

    def _minimize(self) -> str:
        """Run the optimizer to the end, and say why it stopped."""
        iterations = _iterations_of(self.settings)
        if not self.losses:
            try:
                self.optimizer.begin(*self._evaluate(self.pixels))
            except _DivergedError as error:
                raise UserError(
                    "loss",
                    f"no finite number at the start ({error})",
                    "one",
                    "take smaller weights or other filters",
                ) from None
            self.loss = self.optimizer.loss
            self.losses.append(self.loss)
        if self.losses[0] == 0:
            return "nothing to do: the start has no loss at all"
        if iterations == 0:
            return "no iterations were asked for: the picture is the start"
        self.optimizer.run(lambda x: self._evaluate(x.reshape(self.shape)), self._after_iteration, iterations)
        if self.nit < iterations:
            return (
                f"stopped after {_iterations(self.nit)}: no step lowers the loss any more, as far as "
                "float32 can tell"
            )
        return f"did the {_iterations(self.nit)} asked for"

    def _evaluate(self, pixels: NDArray[Any]) -> tuple[float, Single]:
        # Overflow is detected below, in the result.
        with np.errstate(over="ignore", invalid="ignore"):
            loss, gradient = self.evaluate(pixels.astype(np.float32, copy=False))
        if not (math.isfinite(loss) and np.isfinite(gradient).all()):
            raise _DivergedError("loss or gradient is not a finite number")
        return loss, gradient

    def _record(self, pixels: NDArray[Any], loss: float) -> None:
        if loss < self.loss:
            self.pixels, self.loss = np.array(pixels, np.float32).reshape(self.shape), loss
        self.losses.append(loss)

    def _after_iteration(self, pixels: NDArray[Any], loss: float) -> None:
        self._record(pixels, loss)
        if self.callback is not None:
            best = self.pixels.view()
            best.flags.writeable = False
            try:
                self.callback(best, loss, self.evaluate.terms)
            except StopIteration:
                raise _StoppedError from None


def _optimizer(start: NDArray[Any], settings: Settings, threads: int | None) -> _Lbfgs | Lbfgs32 | _Adam:
    if settings.optimizer == "lbfgs":
        return _Lbfgs(start, pairs_used(settings))
    if settings.optimizer == "lbfgs32":
        return Lbfgs32(start, pairs_used(settings), threads, first_step(start))
    return _Adam(start, settings)


Function = Callable[[NDArray[Any]], tuple[float, NDArray[Any]]]
AfterIteration = Callable[[NDArray[Any], float], None]


class _Lbfgs:
    """SciPy's L-BFGS-B of the loss divided by its value at the start, over pixels divided by `length`.

    Its first step has the length 1; all that follows does not depend on the unit of the variables.
    """

    def __init__(self, start: NDArray[Any], maxcor: int) -> None:
        self.length = first_step(start)
        self.scipy = lbfgsb(start / self.length, maxcor)
        self.resumable = self.scipy.resumable
        self.loss = math.nan  # at the start: the unit
        self.first: tuple[float, NDArray[Any]] | None = None

    def begin(self, loss: float, gradient: NDArray[Any]) -> None:
        self.loss, self.first = loss, (loss, gradient)

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        return {"unit": np.array(self.loss), **self.scipy.state}

    stored = state

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        unit = state.get("unit")
        if unit is None or unit.shape != () or not 0 < abs(float(unit)) < math.inf:
            raise ValueError("unit is not that of this minimization")
        self.scipy.restore(state)
        self.loss = float(unit)

    @property
    def nit(self) -> int:
        return self.scipy.nit

    @property
    def nfev(self) -> int:
        return max(self.scipy.nfev, 0 if math.isnan(self.loss) else 1)  # the start, before SciPy asks for it

    @property
    def finished(self) -> tuple[NDArray[Any], float] | None:
        """Point and loss after an iteration, as long as the next one has not begun."""
        finished = self.scipy.finished
        return None if finished is None else (self._pixels(finished[0]), finished[1] * self.loss)

    def run(self, function: Function, after_iteration: AfterIteration, iterations: int) -> None:
        def scaled(x: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            # The routine begins at the start, where the loss is known already.
            loss, gradient = self.first or function(self._pixels(x))
            self.first = None
            with np.errstate(over="ignore"):  # a unit from a file may be anything above 0
                unit = self.loss / self.length
                return loss / self.loss, np.divide(gradient.reshape(-1), unit, dtype=np.float64)

        def after(x: NDArray[Any], value: float) -> None:
            after_iteration(self._pixels(x), value * self.loss)

        self.scipy.run(scaled, after, iterations)

    def _pixels(self, x: NDArray[Any]) -> Single:
        pixels: Single = np.multiply(x, self.length, dtype=np.float32, casting="same_kind")
        return pixels


class _Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1.

    Its state is replaced as a whole, so that an interruption always leaves a consistent one.
    """

    resumable = True

    def __init__(self, start: NDArray[Any], settings: Settings) -> None:
        self.rate = settings.learning_rate
        self.loss = math.nan
        x = start.astype(np.float32).reshape(-1)
        self.state: dict[str, NDArray[Any]] = {
            name: np.zeros_like(x) for name in ("gradient", "mean", "square")
        }
        self.state |= {"x": x, "t": np.array(0), "loss": np.array(math.nan)}

    def begin(self, loss: float, gradient: NDArray[Any]) -> None:
        self.loss = loss
        self.state = {**self.state, "gradient": gradient.reshape(-1), "loss": np.array(loss)}

    @property
    def stored(self) -> dict[str, NDArray[Any]]:
        return self.state

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.state = adopted(state, self.state)

    @property
    def nit(self) -> int:
        return int(self.state["t"])

    @property
    def nfev(self) -> int:
        return self.nit + (not math.isnan(self.state["loss"]))  # one an iteration, and the start's

    @property
    def finished(self) -> tuple[NDArray[Any], float] | None:
        """Point and loss after the last iteration."""
        return self.state["x"], float(self.state["loss"])

    def run(self, function: Function, after_iteration: AfterIteration, iterations: int) -> None:
        while self.nit < iterations:
            s, t = self.state, self.nit + 1
            mean = s["mean"] + np.float32(1 - BETA_1) * (s["gradient"] - s["mean"])
            square = s["square"] + np.float32(1 - BETA_2) * (s["gradient"] ** 2 - s["square"])
            rate, correction = np.float32(self.rate / (1 - BETA_1**t)), np.float32(1 - BETA_2**t)
            x = s["x"] - rate * mean / (np.sqrt(square / correction) + np.float32(EPSILON))
            loss, gradient = function(x)
            names = {"x": x, "mean": mean, "square": square, "gradient": gradient.reshape(-1)}
            self.state = {**names, "t": np.array(t), "loss": np.array(loss)}
            after_iteration(x, loss)


def _iterations(count: int) -> str:
    return f"{count} iteration" + "s" * (count != 1)
