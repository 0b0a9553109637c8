"""The way down: L-BFGS or Adam over the pixels of one picture.

L-BFGS works in float64, the network in float32: this is the only border between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle.errors import UserError
from npstyle.lbfgs import ITERATION, Lbfgsb, copy_state
from npstyle.settings import Settings

Single = NDArray[np.float32]
Double = NDArray[np.float64]

# Adam's decay of the mean of gradients and of their squares, and what keeps it from dividing by zero: the
# values of its authors, which every system takes.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def most_pixels(settings: Settings) -> int:
    """SciPy's L-BFGS counts the numbers it works on, about (2 maxcor + 5) a variable, in 32 bits."""
    per_pixel = 3 * (2 * settings.maxcor + 5)
    return (2**31 - 1) // (per_pixel if settings.optimizer == "lbfgs" else 1)


def bytes_per_pixel(settings: Settings) -> int:
    """What the optimizer remembers: L-BFGS in double; Adam four arrays, twice for a moment, and the best."""
    return 8 * 3 * (2 * settings.maxcor + 5) if settings.optimizer == "lbfgs" else 4 * 3 * 9


class Evaluate(Protocol):
    """Loss and gradient of a picture, and the parts of the loss."""

    @property
    def terms(self) -> Mapping[str, float]: ...

    def __call__(self, pixels: ArrayLike) -> tuple[float, NDArray[Any]]: ...


class OptimizeResult(NamedTuple):
    """What a descent ends with: the best picture, and why it ended."""

    pixels: Single
    loss: float
    losses: list[float]
    message: str
    interrupted: bool = False
    diverged: bool = False
    stopped: bool = False

    @property
    def ended_early(self) -> bool:
        return self.interrupted or self.diverged or self.stopped


class _DivergedError(Exception):
    """Loss or gradient is no longer a finite number."""


class _StoppedError(Exception):
    """The callback has seen enough."""


class Minimizer:
    """One continuous run of an optimizer.

    L-BFGS sees the loss divided by its value at the start: numbers of order 1, whatever the network, the
    size and the weights. There are no tests for convergence: it stops after the iterations asked for, or
    when no step along its direction lowers the loss any more.

    Adam takes a step whatever it does to the loss; what counts is the picture with the lowest.

    Parameters
    ----------
    evaluate : callable
        Loss and gradient, float32.
    start : (H, W, 3) array
    settings : Settings
        Its optimizer, and that one's options.
    callback : callable, optional
        Called after each iteration with the best picture so far, the loss, and its terms. StopIteration
        ends the run.
    state : mapping of str to array, optional
        What `state` was after an iteration of an earlier run, which goes on as if it had never ended.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        start: NDArray[Any],
        settings: Settings,
        callback: Callable[[Single, float, Mapping[str, float]], None] | None = None,
        state: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.evaluate = evaluate
        self.settings = settings
        self.callback = callback
        self.shape = start.shape
        self.pixels = start
        self.loss = math.inf
        self.losses: list[float] = []
        self.optimizer: _Lbfgs | _Adam = (
            _Lbfgs(start, settings) if settings.optimizer == "lbfgs" else _Adam(start, settings)
        )
        if state is not None:
            self._restore(state)

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """Everything; at whatever moment it is asked for, an earlier run goes on from it to the same end."""
        finished = self.optimizer.finished
        if finished is not None and self.optimizer.done == len(self.losses):
            self._note(*finished)  # interrupted between the end of an iteration and its note
        kept = {"losses": np.array(self.losses), "pixels": np.asarray(self.pixels, np.float64)}
        return {**kept, **self.optimizer.state}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        losses, pixels = np.asarray(state.get("losses")), np.asarray(state.get("pixels"))
        if losses.ndim != 1 or losses.dtype != np.float64 or not losses.size:
            raise ValueError("losses is not that of this run")
        if pixels.shape != self.shape or pixels.dtype != np.float64:
            raise ValueError("pixels are not those of this run")
        self.optimizer.restore(state)
        self.losses = losses.tolist()
        self.pixels, self.loss = pixels, min(self.losses)

    def outcome(self) -> OptimizeResult:
        """Run to the end, or to Ctrl-C, and tell how it went."""
        flags = {"interrupted": False, "diverged": False, "stopped": False}
        try:
            message = self._descend()
        except KeyboardInterrupt:
            if not self._done:
                raise  # there is nothing yet that is worth keeping
            flags["interrupted"] = True
            message = f"interrupted after {_iterations(self._done)}"
        except _DivergedError as error:
            flags["diverged"] = True
            message = f"stopped after {_iterations(self._done)}: {error}; the picture is the last good one"
        except _StoppedError:
            flags["stopped"] = True
            message = f"stopped by the callback after {_iterations(self._done)}"
        while True:
            try:
                return OptimizeResult(
                    self.pixels.astype(np.float32), self.loss, self.losses, message, **flags
                )
            except KeyboardInterrupt:  # too late to interrupt anything: the picture is finished
                flags["interrupted"] = True

    @property
    def _done(self) -> int:
        return max(0, len(self.losses) - 1)

    def _descend(self) -> str:
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
        if self.settings.iterations == 0:
            return "no iterations were asked for: the picture is the start"
        if self._done < self.settings.iterations:
            for pixels, loss in self.optimizer.iterations(lambda x: self._evaluate(x.reshape(self.shape))):
                self._keep(pixels, loss)
                if self._done == self.settings.iterations:
                    break
            else:
                return (
                    f"stopped after {_iterations(self._done)}: no step lowers the loss any more, as far as "
                    "float32 can tell"
                )
        return f"did the {_iterations(self._done)} asked for"

    def _evaluate(self, pixels: NDArray[Any]) -> tuple[float, Single]:
        # Overflow is looked for below, in the result.
        with np.errstate(over="ignore", invalid="ignore"):
            loss, gradient = self.evaluate(pixels.astype(np.float32, copy=False))
        if not (math.isfinite(loss) and np.isfinite(gradient).all()):
            raise _DivergedError("loss or gradient is not a finite number")
        return loss, gradient

    def _note(self, pixels: NDArray[Any], loss: float) -> None:
        if loss < self.loss:
            self.pixels, self.loss = pixels.reshape(self.shape).copy(), loss
        self.losses.append(loss)

    def _keep(self, pixels: NDArray[Any], loss: float) -> None:
        """An iteration is over."""
        self._note(pixels, loss)
        if self.callback is not None:
            try:
                self.callback(self.pixels.astype(np.float32), loss, self.evaluate.terms)
            except StopIteration:
                raise _StoppedError from None


Function = Callable[[NDArray[Any]], tuple[float, NDArray[Any]]]


class _Lbfgs:
    """SciPy's, of the loss divided by its value at the start."""

    def __init__(self, start: NDArray[Any], settings: Settings) -> None:
        self.scipy = Lbfgsb(start, settings.maxcor)
        self.loss = math.nan
        self.first: tuple[float, NDArray[Any]] | None = None

    def begin(self, loss: float, gradient: NDArray[Any]) -> None:
        self.loss, self.first = loss, (loss, gradient)

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        return {"unit": np.array(self.loss), **self.scipy.state}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        unit = state.get("unit")
        if unit is None or unit.shape != () or not 0 < abs(float(unit)) < math.inf:
            raise ValueError("unit is not that of this minimization")
        self.scipy.restore(state)
        self.loss = float(unit)

    @property
    def done(self) -> int:
        return self.scipy.done

    @property
    def finished(self) -> tuple[NDArray[Any], float] | None:
        """Point and value of an iteration that is over, while the next one has not begun."""
        s = self.scipy.state
        return (s["x"], float(s["f"]) * self.loss) if s["task"][0] == ITERATION else None

    def iterations(self, function: Function) -> Iterator[tuple[NDArray[Any], float]]:
        def scaled(x: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            # The routine begins at the start, where the loss is known already.
            loss, gradient = self.first or function(x)
            self.first = None
            with np.errstate(over="ignore"):  # a unit from a file may be anything above 0
                return loss / self.loss, np.divide(gradient.reshape(-1), self.loss, dtype=np.float64)

        for x, value in self.scipy.iterations(scaled):
            yield x, value * self.loss


class _Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1.

    Its state is replaced as a whole, so that whoever interrupts it finds one that fits together.
    """

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

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        copy_state(state, self.state)

    @property
    def done(self) -> int:
        return int(self.state["t"])

    @property
    def finished(self) -> tuple[NDArray[Any], float] | None:
        """Point and value of the last iteration."""
        return self.state["x"], float(self.state["loss"])

    def iterations(self, function: Function) -> Iterator[tuple[NDArray[Any], float]]:
        while True:
            s, t = self.state, int(self.state["t"]) + 1
            mean = s["mean"] + np.float32(1 - BETA_1) * (s["gradient"] - s["mean"])
            square = s["square"] + np.float32(1 - BETA_2) * (s["gradient"] ** 2 - s["square"])
            rate, share = np.float32(self.rate / (1 - BETA_1**t)), np.float32(1 - BETA_2**t)
            x = s["x"] - rate * mean / (np.sqrt(square / share) + np.float32(EPSILON))
            loss, gradient = function(x)
            names = {"x": x, "mean": mean, "square": square, "gradient": gradient.reshape(-1)}
            self.state = {**names, "t": np.array(t), "loss": np.array(loss)}
            yield x, loss


def _iterations(count: int) -> str:
    return f"{count} iteration" + "s" * (count != 1)
