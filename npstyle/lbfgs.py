"""SciPy's L-BFGS-B: its private routine, entered one evaluation at a time, or `scipy.optimize.minimize`.

`minimize` runs the routine `setulb` from beginning to end. The routine itself works by reverse
communication: it returns whenever it needs the function's value somewhere, and its whole state is in arrays
that the caller owns. With these a run can be stopped anywhere and continued later; `minimize` hides them.

`setulb` is no part of SciPy's public interface. So it is checked before its first use: it must have the
arguments known here, and must take the same steps as `minimize` on a small problem. If it does not, or is
not there, `minimize` takes its place, with a warning: the steps are the same, but a run can then be
continued only between two levels, not in the middle of one.

Byrd, Lu, Nocedal, Zhu, "A Limited Memory Algorithm for Bound Constrained Optimization", 1995; docs/lbfgs.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import minimize

from npstyle._runtime.threads import one_blas_thread
from npstyle.errors import UserError

try:
    from scipy.optimize import _lbfgsb, _lbfgsb_py
except ImportError:
    _lbfgsb = _lbfgsb_py = None

Double = NDArray[np.float64]
Function = Callable[[Double], tuple[float, NDArray[Any]]]
AfterIteration = Callable[[Double, float], None]

# Arguments of SciPy 1.15 to 1.17. Integers are as wide as SciPy's own caller of the routine has them: if it
# asks whether LAPACK has 64-bit integers (SciPy's gh-24703), its answer counts.
SIGNATURE = "setulb(m,x,l,u,nbd,f,g,factr,pgtol,wa,iwa,task,lsave,isave,dsave,maxls,ln_task)"
INTEGER: type[np.int64] | type[np.int32] = np.int64 if getattr(_lbfgsb_py, "HAS_ILP64", False) else np.int32
MAX_INTEGER = int(np.iinfo(INTEGER).max)

# What the routine writes into task[0], and into task[1] before it needs a value.
ITERATION, EVALUATE, ABNORMAL = 1, 3, 8
AT_START, IN_LINE_SEARCH = 301, 302
MAX_LINE_SEARCH_STEPS = 20  # SciPy's own default
# Places in isave, as the comments of SciPy's C source have them (in Fortran's counting, one more).
LAYOUT = slice(0, 16)  # where the parts of wa begin: the same for all states of a problem
ITERATIONS, EVALUATIONS = 29, 33
COUNTERS = [21, ITERATIONS, 30, 32, EVALUATIONS]  # how often something happened: they are no indices
PAIRS = [26, 27, 28]  # where the newest pair of steps is, how many there are, where the oldest is
VARIABLES = [37, 39]  # numbers of free variables, and of those that enter or leave
STEPS = [24, 35, 36, 42, 43]  # of the line search, and flags


def workspace_size(n: int, maxcor: int) -> int:
    """Numbers that the routine stores for n variables: pairs of steps, and matrices of maxcor rows."""
    return 2 * maxcor * n + 5 * n + 11 * maxcor**2 + 8 * maxcor


class FallbackWarning(RuntimeWarning):
    """SciPy's private L-BFGS-B routine is not the one known here; the public interface replaces it."""


class PrivateLbfgsb:
    """A minimization without bounds and without tests for convergence, by SciPy's private routine.

    Parameters
    ----------
    x : (n,) array
        The start.
    maxcor : int
        Pairs of steps and changes of the gradient that are stored.

    Attributes
    ----------
    state : dict of str to array
        Everything; `restore` continues from it, whenever it was copied.
    """

    resumable = True

    def __init__(self, x: NDArray[Any], maxcor: int) -> None:
        n, m = x.size, maxcor
        self.maxcor = m
        self.state: dict[str, NDArray[Any]] = {
            "x": np.array(x, np.float64).reshape(-1),
            "f": np.array(0.0),
            "g": np.zeros(n),
            "wa": np.zeros(workspace_size(n, m)),
            "iwa": np.zeros(3 * n, INTEGER),
            "task": np.zeros(2, INTEGER),
            "line_task": np.zeros(2, INTEGER),
            "lsave": np.zeros(4, INTEGER),
            "isave": np.zeros(44, INTEGER),
            "dsave": np.zeros(29),
        }
        self._no_bounds = np.zeros(n), np.zeros(n), np.zeros(n, INTEGER)

        self._step()  # it divides its workspace, and asks for the value at x

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a stored state, whose arrays are taken over; ValueError if it is not of this problem.

        What the routine uses as an index must be one: the state may come from a file.
        """
        check_arrays(state, self.state)
        n, m = self.state["x"].size, self.maxcor
        index, bounded, other = np.split(state["iwa"], 3)
        highest = np.zeros(44, np.int64)
        highest[COUNTERS], highest[PAIRS], highest[VARIABLES] = MAX_INTEGER, [m - 1, m, m - 1], n
        highest[STEPS] = MAX_LINE_SEARCH_STEPS
        lowest = np.where(np.arange(44) == 36, -1, 0)
        isave = state["isave"]
        plausible = (
            np.array_equal(isave[LAYOUT], self.state["isave"][LAYOUT])
            and ((lowest <= isave) & (isave <= highest))[LAYOUT.stop :].all()
            and ((index >= 0) & (index < n) & (other >= 0) & (other < n) & (bounded == -1)).all()
            and not state["lsave"][:3].any()
            and state["lsave"][3] in (0, 1)
            and tuple(state["task"]) in ((ITERATION, 0), (EVALUATE, AT_START), (EVALUATE, IN_LINE_SEARCH))
            and (abs(state["line_task"]) < 1000).all()
        )
        if not plausible:
            raise ValueError("isave, iwa, lsave or task are nothing that L-BFGS-B writes")
        self.state = adopted(state, self.state)

    def run(self, function: Function, after_iteration: AfterIteration, iterations: int) -> None:
        """Minimize until so many iterations are done in all, or until no step lowers the value any more.

        After each, `after_iteration` is called with the point and its value.
        """
        s = self.state
        while self.nit < iterations:
            if s["task"][0] == EVALUATE:  # also first of all, if the value was missing in the stored state
                s["f"][...], s["g"][...] = function(s["x"])
            self._step()
            if s["task"][0] == ITERATION:
                after_iteration(s["x"], float(s["f"]))
            elif s["task"][0] != EVALUATE:
                return

    def _step(self) -> None:
        """Enter the routine, which returns when it needs a value or has finished an iteration.

        Its dot products are BLAS's, which from 10,000 elements on accumulates them in another order with
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
                MAX_LINE_SEARCH_STEPS,
                s["line_task"],
            )

    @property
    def nit(self) -> int:
        """Iterations so far; the routine also counts one whose line search failed, its last."""
        return int(self.state["isave"][ITERATIONS]) - int(self.state["task"][0] == ABNORMAL)

    @property
    def nfev(self) -> int:
        """Evaluations so far; the routine counts one in a line search before it gets the value."""
        missing = tuple(self.state["task"]) == (EVALUATE, IN_LINE_SEARCH)
        return int(self.state["isave"][EVALUATIONS]) - missing

    @property
    def finished(self) -> tuple[Double, float] | None:
        """Point and value after an iteration, as long as the next one has not begun."""
        s = self.state
        return (s["x"], float(s["f"])) if s["task"][0] == ITERATION else None


class PublicLbfgsb:
    """The same by `scipy.optimize.minimize`: the same steps, but without a state to continue from."""

    resumable = False
    finished = None

    def __init__(self, x: NDArray[Any], maxcor: int) -> None:
        self.x = np.array(x, np.float64).reshape(-1)
        self.maxcor = maxcor
        self.nit = self.nfev = 0

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        raise RuntimeError("scipy.optimize.minimize has no state that could be stored")

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        raise UserError(
            "resume",
            f"a checkpoint in the middle of a level, which SciPy {scipy.__version__} can't continue from",
            "one between two levels",
            "begin again, or install the SciPy that npstyle asks for",
        )

    def run(self, function: Function, after_iteration: AfterIteration, iterations: int) -> None:
        """As `PrivateLbfgsb.run`."""

        def counted(x: Double) -> tuple[float, NDArray[Any]]:
            value, gradient = function(x)
            self.nfev += 1
            return value, gradient

        def callback(intermediate_result: Any) -> None:
            self.nit += 1
            after_iteration(intermediate_result.x, float(intermediate_result.fun))

        options = {
            "maxcor": self.maxcor,
            "maxiter": iterations,
            "maxfun": np.iinfo(np.int32).max,
            "maxls": MAX_LINE_SEARCH_STEPS,
            "ftol": 0.0,
            "gtol": 0.0,
        }
        with one_blas_thread():
            minimize(counted, self.x, jac=True, method="L-BFGS-B", callback=callback, options=options)


def lbfgsb(x: NDArray[Any], maxcor: int) -> PrivateLbfgsb | PublicLbfgsb:
    """A minimization from x on, by the private routine if it is the one known here."""
    return PrivateLbfgsb(x, maxcor) if private_routine_works() else PublicLbfgsb(x, maxcor)


@cache
def private_routine_works() -> bool:
    """Whether SciPy's private routine is the one known here; if not, a warning says so, once a process."""
    problem = _problem()
    if problem:
        warnings.warn(
            f"SciPy {scipy.__version__}: {problem}; L-BFGS runs by scipy.optimize.minimize: the pictures are "
            "the same, but a run can be resumed only between two levels, not in the middle of one",
            FallbackWarning,
            stacklevel=2,
        )
    return not problem


def _problem() -> str:
    """What is wrong with the private routine, in words; nothing if it is as expected."""
    setulb = getattr(_lbfgsb, "setulb", None)
    if setulb is None:
        return "scipy.optimize._lbfgsb.setulb is missing"
    signature = str(setulb.__doc__).strip()
    if signature != SIGNATURE:
        return f"scipy.optimize._lbfgsb.setulb has other arguments ({signature[:200]})"
    try:
        private, public = _steps(PrivateLbfgsb), _steps(PublicLbfgsb)
    except Exception as error:  # what another routine makes of these arguments
        return f"scipy.optimize._lbfgsb.setulb fails ({error})"
    return "" if private == public else "scipy.optimize._lbfgsb.setulb takes other steps than minimize"


def _steps(minimizer: type[PrivateLbfgsb] | type[PublicLbfgsb]) -> list[tuple[Any, ...]]:
    """Points, values and numbers of evaluations of a small minimization, of more iterations than pairs."""
    curvature, goal = np.array([0.1, 0.5, 1.0, 7.0]), np.array([1.0, -2.0, 3.0, -4.0])

    def quadratic(x: Double) -> tuple[float, Double]:
        d = x - goal
        return float(0.5 * np.sum(curvature * d * d)), curvature * d

    steps: list[tuple[Any, ...]] = []
    run = minimizer(np.zeros(4), 2)
    run.run(quadratic, lambda x, value: steps.append((*x, value, run.nit, run.nfev)), 6)
    return steps


def check_arrays(state: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError unless the state has arrays of all expected names, shapes and types."""
    for name, array in expected.items():
        stored = state.get(name)
        if stored is None or stored.shape != array.shape or stored.dtype != array.dtype:
            raise ValueError(f"{name} is not that of this minimization")


def adopted(
    state: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The expected arrays of a stored state, if all are there and fit. Copies of them might be gigabytes."""
    check_arrays(state, expected)
    return {name: np.require(state[name], requirements=["C", "A", "W"]) for name in expected}
