"""The way down: L-BFGS or Adam over the pixels of one picture.

L-BFGS works in float64, the network in float32: this is the only border between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle._lbfgsb import Lbfgsb, copy_state
from npstyle.errors import UserError
from npstyle.settings import Settings

Single = NDArray[np.float32]
Double = NDArray[np.float64]

# Adam's decay of the mean of gradients and of their squares, and what keeps it from dividing by zero: the
# values of its authors, which every system takes.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def most_pixels(settings: Settings) -> int:
    """SciPy's L-BFGS counts the numbers it works on, about (2 history + 5) a variable, in 32 bits."""
    per_pixel = 3 * (2 * settings.history + 5)
    return (2**31 - 1) // (per_pixel if settings.optimizer == "lbfgs" else 1)


def bytes_per_pixel(settings: Settings) -> int:
    """What the optimiser remembers: L-BFGS in double; Adam two pictures, the gradient and two means."""
    return 8 * 3 * (2 * settings.history + 5) if settings.optimizer == "lbfgs" else 4 * 3 * 5


class Evaluate(Protocol):
    """Loss and gradient of a picture, and the parts of the loss."""

    @property
    def terms(self) -> Mapping[str, float]: ...

    def __call__(self, pixels: ArrayLike) -> tuple[float, NDArray[Any]]: ...


class Outcome(NamedTuple):
    """What a descent ends with: the best picture, and why it ended."""

    pixels: Single
    loss: float
    history: list[float]
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


class Descent:
    """One continuous run of an optimiser.

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
        Its optimiser, and that one's options.
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
        self.history: list[float] = []
        self.optimizer: _Lbfgs | _Adam = (
            _Lbfgs(start, settings) if settings.optimizer == "lbfgs" else _Adam(start, settings)
        )
        if state is not None:
            self._restore(state)

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """Everything, after an iteration."""
        return {"history": np.array(self.history), **self.optimizer.state}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        history = np.asarray(state.get("history"))
        if history.ndim != 1 or history.dtype != np.float64 or not history.size:
            raise ValueError("history is not that of this run")
        self.optimizer.restore(state)
        self.history = history.tolist()
        self.pixels, self.loss = self.optimizer.best.reshape(self.shape).copy(), min(self.history)

    def outcome(self) -> Outcome:
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
                return Outcome(self.pixels.astype(np.float32), self.loss, self.history, message, **flags)
            except KeyboardInterrupt:  # too late to interrupt anything: the picture is finished
                flags["interrupted"] = True

    @property
    def _done(self) -> int:
        return max(0, len(self.history) - 1)

    def _descend(self) -> str:
        if not self.history:
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
            self.history.append(self.loss)
        if self.history[0] == 0:
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

    def _keep(self, pixels: NDArray[Any], loss: float) -> None:
        """An iteration is over."""
        if loss < self.loss:
            self.pixels, self.loss = pixels.reshape(self.shape).copy(), loss
        self.history.append(loss)
        if self.callback is not None:
            try:
                self.callback(self.pixels.astype(np.float32), loss, self.evaluate.terms)
            except StopIteration:
                raise _StoppedError from None


Function = Callable[[NDArray[Any]], tuple[float, NDArray[Any]]]


class _Lbfgs:
    """SciPy's, of the loss divided by its value at the start."""

    def __init__(self, start: NDArray[Any], settings: Settings) -> None:
        self.scipy = Lbfgsb(start, settings.history)
        self.loss = math.nan
        self.first: tuple[float, NDArray[Any]] | None = None

    def begin(self, loss: float, gradient: NDArray[Any]) -> None:
        self.loss, self.first = loss, (loss, gradient)

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        return {"unit": np.array(self.loss), **self.scipy.state}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.scipy.restore(state)
        self.loss = float(state["unit"])

    @property
    def best(self) -> NDArray[Any]:
        return self.scipy.state["x"]

    def iterations(self, function: Function) -> Iterator[tuple[NDArray[Any], float]]:
        def scaled(x: NDArray[Any]) -> tuple[float, NDArray[Any]]:
            # The routine begins at the start, where the loss is known already.
            loss, gradient = self.first or function(x)
            self.first = None
            return loss / self.loss, np.divide(gradient.reshape(-1), self.loss, dtype=np.float64)

        for x, value in self.scipy.iterations(scaled):
            yield x, value * self.loss


class _Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1."""

    def __init__(self, start: NDArray[Any], settings: Settings) -> None:
        self.rate = settings.learning_rate
        self.loss = math.nan
        x = start.astype(np.float32).reshape(-1)
        names = ("x", "best", "gradient", "mean", "square")
        self.state: dict[str, NDArray[Any]] = {name: np.zeros_like(x) for name in names}
        self.state["x"][...] = self.state["best"][...] = x
        self.state["t"], self.state["lowest"] = np.array(0), np.array(math.inf)

    def begin(self, loss: float, gradient: NDArray[Any]) -> None:
        self.loss = loss
        self.state["gradient"][...] = gradient.reshape(-1)
        self.state["lowest"][...] = loss

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        copy_state(state, self.state)

    @property
    def best(self) -> NDArray[Any]:
        return self.state["best"]

    def iterations(self, function: Function) -> Iterator[tuple[NDArray[Any], float]]:
        s = self.state
        x, gradient, mean, square = s["x"], s["gradient"], s["mean"], s["square"]
        while True:
            s["t"] += 1
            mean += (1 - BETA_1) * (gradient - mean)
            square += (1 - BETA_2) * (gradient**2 - square)
            rate = np.float32(self.rate / (1 - BETA_1 ** int(s["t"])))
            x -= rate * mean / (np.sqrt(square / (1 - BETA_2 ** int(s["t"]))) + EPSILON)
            loss, new = function(x)
            gradient[...] = new.reshape(-1)
            if loss < s["lowest"]:
                s["lowest"][...], s["best"][...] = loss, x
            yield x, loss


def _iterations(count: int) -> str:
    return f"{count} iteration" + "s" * (count != 1)
