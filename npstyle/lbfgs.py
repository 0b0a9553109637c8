"""SciPy's L-BFGS-B, entered one evaluation at a time, so that its state can be kept and taken up again.

`scipy.optimize.minimize` runs the same routine, `setulb`, but only from beginning to end. The routine itself
works by reverse communication: it returns when it wants the function's value somewhere, and all it knows lies
in arrays that its caller holds. It is no part of SciPy's public interface, so `tests/test_lbfgsb.py` holds
every step against those of `minimize`.

Byrd, Lu, Nocedal, Zhu, "A Limited Memory Algorithm for Bound Constrained Optimization", 1995; docs/lbfgs.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import _lbfgsb

from npstyle._runtime.threads import one_blas_thread

Double = NDArray[np.float64]
Function = Callable[[Double], tuple[float, NDArray[Any]]]

# What the routine writes into task[0], and steps that a line search may take (SciPy's own bound).
ITERATION, EVALUATE = 1, 3
COUNT = 29  # where it counts iterations in isave
COUNTERS = [21, 29, 30, 32, 33]  # of what has happened: nothing is looked up by them
LINE_SEARCH_STEPS = 20


class Lbfgsb:
    """A minimization without bounds and without tests for convergence, from x (n,) on.

    Parameters
    ----------
    x : (n,) array
    maxcor : int
        Pairs of steps and changes of the gradient that are remembered.

    Attributes
    ----------
    state : dict of str to array
        Everything; `restore` takes it up again, at whatever moment it was copied.
    """

    def __init__(self, x: NDArray[Any], maxcor: int) -> None:
        n, m = x.size, maxcor
        self.maxcor = m
        self.state: dict[str, NDArray[Any]] = {
            "x": np.array(x, np.float64).reshape(-1),
            "f": np.array(0.0),
            "g": np.zeros(n),
            "wa": np.zeros(2 * m * n + 5 * n + 11 * m * m + 8 * m),
            "iwa": np.zeros(3 * n, np.int32),
            "task": np.zeros(2, np.int32),
            "line_task": np.zeros(2, np.int32),
            "lsave": np.zeros(4, np.int32),
            "isave": np.zeros(44, np.int32),
            "dsave": np.zeros(29),
        }
        self._no_bounds = np.zeros(n), np.zeros(n), np.zeros(n, np.int32)

        self._step()  # it lays out its memory, and asks for the value at x

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state that was kept; ValueError if it is none of this problem.

        What the routine takes for places in its memory has to lie there: the state may come from a file.
        """
        fits(state, self.state)
        n, m = self.state["x"].size, self.maxcor
        index, bounded, other = np.split(state["iwa"], 3)
        most = np.zeros(44, np.int64)
        most[COUNTERS], most[[26, 27, 28]], most[[37, 39]] = 2**31 - 1, [m - 1, m, m - 1], n
        most[[24, 35, 36, 42, 43]] = LINE_SEARCH_STEPS
        least = np.where(np.arange(44) == 36, -1, 0)
        layout, counts = state["isave"][:16], state["isave"]
        good = (
            np.array_equal(layout, self.state["isave"][:16])
            and ((least <= counts) & (counts <= most))[16:].all()
            and ((index >= 0) & (index < n) & (other >= 0) & (other < n) & (bounded == -1)).all()
            and not state["lsave"][:3].any()
            and state["lsave"][3] in (0, 1)
            and tuple(state["task"]) in ((ITERATION, 0), (EVALUATE, 301), (EVALUATE, 302))
            and (abs(state["line_task"]) < 1000).all()
        )
        if not good:
            raise ValueError("isave, iwa, lsave or task are nothing that L-BFGS-B writes")
        copy_state(state, self.state)

    def iterations(self, function: Function) -> Iterator[tuple[Double, float]]:
        """Yield the point and its value after each iteration, until no step lowers the value any more."""
        s = self.state
        while True:
            if s["task"][0] == EVALUATE:  # at once, where a value was still missing when the state was kept
                s["f"][...], s["g"][...] = function(s["x"])
            self._step()
            if s["task"][0] == ITERATION:
                yield s["x"], float(s["f"])
            elif s["task"][0] != EVALUATE:
                return

    def _step(self) -> None:
        """Let the routine go on until it wants something.

        Its dot products are BLAS's, which from 10,000 numbers on would add them up in another order with
        every number of threads. They wait for memory, not for arithmetic: one thread loses little.
        """
        s = self.state
        with one_blas_thread():
            _lbfgsb.setulb(
                self.maxcor,
                s["x"],
                self._no_bounds[0],
                self._no_bounds[1],
                self._no_bounds[2],
                s["f"],
                s["g"],
                0.0,
                0.0,
                s["wa"],
                s["iwa"],
                s["task"],
                s["lsave"],
                s["isave"],
                s["dsave"],
                LINE_SEARCH_STEPS,
                s["line_task"],
            )

    @property
    def done(self) -> int:
        """Iterations so far."""
        return int(self.state["isave"][COUNT])


def fits(kept: Mapping[str, NDArray[Any]], state: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError unless arrays of all these names, shapes and types are there."""
    for name, array in state.items():
        found = kept.get(name)
        if found is None or found.shape != array.shape or found.dtype != array.dtype:
            raise ValueError(f"{name} is not that of this minimization")


def copy_state(kept: Mapping[str, NDArray[Any]], state: Mapping[str, NDArray[Any]]) -> None:
    """Copy arrays by name, if all are there and fit."""
    fits(kept, state)
    for name, array in state.items():
        array[...] = kept[name]
