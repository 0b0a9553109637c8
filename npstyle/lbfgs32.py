"""L-BFGS with vectors in float32: 8 bytes a variable and pair, and indices of any size.

Points, gradients and pairs are float32, as the network computes them; values, dot products and the line
search are float64. What is rounded is accounted for: a pair is the difference of the two points that were
evaluated, and not the step that was meant, and its dot products are those of the rounded vectors.

Along a direction all that is needed of the pairs are their dot products with each other and with the
gradient. So an iteration reads the pairs twice, once for the products with the new gradient and the new pair
and once to combine them to a direction, and the two loops run over numbers: docs/lbfgs.md#l-bfgs-in-float32.

Byrd, Nocedal, Schnabel, "Representations of Quasi-Newton Matrices and their Use in Limited Memory Methods",
1994: the same products in matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npstyle import _kernels
from npstyle._typing import AnyArray, Double, Single
from npstyle.lbfgs import adopted
from npstyle.line_search import ACCEPT, FAIL, LineSearch, advance, begin

Function = Callable[[AnyArray], tuple[float, AnyArray]]
AfterIteration = Callable[[AnyArray, float], None]

VECTORS = 5  # beside the pairs: x, where its line search began, the gradients at both, and the direction
MAX_MAXCOR = 32_767  # whose products still fill less memory than a machine could have

# What comes next, counters[TASK], and the other counters.
AT_POINT, IN_LINE_SEARCH, FINISHED = 0, 1, 2
TASK, NIT, NFEV, PAIRS, NEWEST, NEW_PAIR = range(6)
EPSILON = float(np.finfo(np.float32).eps)


def bytes_of(n: int, maxcor: int) -> int:
    """Memory for n variables: vectors, pairs, and the products of pairs."""
    return 4 * n * (VECTORS + 2 * maxcor) + 8 * 2 * maxcor**2


class Lbfgs32:
    """A minimization without bounds and without tests for convergence.

    Parameters
    ----------
    start : array
        Where it begins, of any shape.
    maxcor : int
        Pairs of steps and changes of the gradient that are stored.
    threads : int, optional
        Of the kernels; results do not depend on it.
    first_step : float
        Length of the first step, along the gradient.

    Attributes
    ----------
    state : dict of str to array
        Everything; `restore` continues from it, whenever it was copied. It is replaced as a whole, so that
        an interruption leaves a consistent one: what is written into its arrays before can be written again.
    """

    resumable = True

    def __init__(
        self, start: NDArray[Any], maxcor: int, threads: int | None = None, first_step: float = 1.0
    ) -> None:
        n, m = start.size, maxcor
        self.maxcor, self.threads, self.first_step = m, threads, first_step
        vectors = {name: np.zeros(n, np.float32) for name in ("start", "g", "start_g", "direction")}
        self.state: dict[str, NDArray[Any]] = {
            "x": start.astype(np.float32).reshape(-1),
            **vectors,
            "pairs": np.zeros((2 * m, n), np.float32),  # s and y of one pair after the other
            "sy": np.zeros((m, m)),  # s_i . y_j for pairs j that are not older than i
            "yy": np.zeros((m, m)),
            "f": np.array(math.nan),
            "search": np.array(begin(0.0, 0.0, 0.0)),
            "counters": np.zeros(6, np.int64),
        }

    def begin(self, value: float, gradient: NDArray[Any]) -> None:
        """Take over the value and the gradient at the start."""
        self._replace({NFEV: 1}, f=np.array(value), g=_flat(gradient))

    @property
    def stored(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs: no pairs that are not there yet, and no direction before it is computed."""
        s = self.state
        at_work = s["counters"][TASK] == IN_LINE_SEARCH
        pairs, direction = s["pairs"][: 2 * s["counters"][PAIRS]], s["direction"][: None if at_work else 0]
        return {**s, "pairs": pairs, "direction": direction}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a `stored` state, and take over its arrays; ValueError if it is another problem's."""
        state = adopted(self._completed(state), self.state)
        m, counters = self.maxcor, state["counters"]
        highest = np.array([FINISHED, np.iinfo(np.int64).max, np.iinfo(np.int64).max, m, m - 1, 1])
        used = slice(0, int(counters[PAIRS]))
        plausible = (
            ((counters >= 0) & (counters <= highest)).all()
            and all(np.isfinite(state[name]).all() for name in ("f", "sy", "yy"))
            and all((np.diag(state[name])[used] > 0).all() for name in ("sy", "yy"))
            and not np.isnan(state["search"]).any()
        )
        if not plausible:
            raise ValueError("counters, products or line search are nothing that L-BFGS writes")
        self.state = state

    def _completed(self, state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The state with room for the pairs and the direction that were not stored."""
        complete = dict(state)
        for name in ("pairs", "direction"):
            stored, whole = state.get(name), self.state[name]
            fits = stored is not None and stored.ndim == whole.ndim and stored.dtype == whole.dtype
            if (
                stored is not None
                and fits
                and stored.shape[1:] == whole.shape[1:]
                and len(stored) < len(whole)
            ):
                whole[: len(stored)] = stored
                complete[name] = whole
        return complete

    @property
    def loss(self) -> float:
        """The value after the last iteration."""
        return float(self.state["f"])

    @property
    def nit(self) -> int:
        """Iterations so far."""
        return int(self.state["counters"][NIT])

    @property
    def nfev(self) -> int:
        """Evaluations so far."""
        return int(self.state["counters"][NFEV])

    @property
    def finished(self) -> tuple[Single, float] | None:
        """Point and value after an iteration, as long as the next one has not begun."""
        s = self.state
        return None if s["counters"][TASK] == IN_LINE_SEARCH else (s["x"], float(s["f"]))

    def run(self, function: Function, after_iteration: AfterIteration, iterations: int) -> None:
        """Minimize until so many iterations are done in all, or until no step lowers the value any more.

        After each, `after_iteration` is called with the point and its value.
        """
        while self.nit < iterations:
            task, nit = self.state["counters"][TASK], self.nit
            if task == FINISHED:
                return
            if task == AT_POINT:
                self._begin_line_search()
            else:
                self._try_step(function)
            if self.nit > nit:
                after_iteration(self.state["x"], self.loss)

    def _replace(self, counters: Mapping[int, int], **arrays: NDArray[Any]) -> None:
        """The next state, all at once."""
        changed = self.state["counters"].copy()
        for place, number in counters.items():
            changed[place] = number
        self.state = {**self.state, **arrays, "counters": changed}

    def _begin_line_search(self) -> None:
        s = self.state
        pairs, newest = int(s["counters"][PAIRS]), int(s["counters"][NEWEST])
        sy, yy, products = s["sy"], s["yy"], None
        if s["counters"][NEW_PAIR]:
            pairs, newest, sy, yy, products = self._with_new_pair(pairs, newest)
        elif pairs:
            products = self._products(pairs, s["g"])
        slope = math.nan
        if products is not None:
            order = (newest - np.arange(pairs)[::-1]) % self.maxcor  # from the oldest to the newest
            weights = direction_weights(order, sy, yy, products)
            _kernels.linear_combination(
                s["pairs"][: 2 * pairs], s["g"], weights, s["direction"], self.threads
            )
            slope = self._slope(s["g"])
        if not -math.inf < slope < 0:  # without pairs, or where rounding has made them worthless
            pairs, newest = 0, self.maxcor - 1
            slope = self._steepest_descent()
        search = np.array(begin(float(s["f"]), slope, 1.0))
        vectors = {"start": s["x"], "x": s["start"], "start_g": s["g"], "sy": sy, "yy": yy}
        counters = {TASK: IN_LINE_SEARCH, PAIRS: pairs, NEWEST: newest, NEW_PAIR: 0}
        self._replace(counters, search=search, **vectors)

    def _with_new_pair(self, pairs: int, newest: int) -> tuple[int, int, Double, Double, Double | None]:
        """Store the pair of the last step, in place of the oldest one if there are enough.

        Returned are the number of pairs, where the newest is, their products with each other, and those with
        the gradient; none if rounding has made the pair worthless, and then no pairs at all.
        """
        s = self.state
        newest, pairs = (newest + 1) % self.maxcor, min(pairs + 1, self.maxcor)
        step, change = s["pairs"][2 * newest : 2 * newest + 2]
        np.subtract(s["x"], s["start"], out=step)
        np.subtract(s["g"], s["start_g"], out=change)
        products = self._products(pairs, change)
        sy, yy = s["sy"].copy(), s["yy"].copy()
        sy[:pairs, newest] = products[::2, 1]
        yy[:pairs, newest] = yy[newest, :pairs] = products[1::2, 1]
        if not (sy[newest, newest] > 0 and np.isfinite(products).all()):
            return 0, self.maxcor - 1, s["sy"], s["yy"], None
        return pairs, newest, sy, yy, products

    def _products(self, pairs: int, vector: Single) -> Double:
        """Products of s and y of each pair with the gradient, and with another vector: (2 pairs, 2)."""
        products = np.empty((2 * pairs, 2))
        s = self.state
        _kernels.dot_products(s["pairs"][: 2 * pairs], s["g"], vector, products, self.threads)
        return products

    def _steepest_descent(self) -> float:
        """Make -g the direction and return its slope, 0 where the value falls nowhere.

        It is as long as the first step. Whatever unit the loss has, the step is the same.
        """
        g, direction, products = self.state["g"], self.state["direction"], np.empty((1, 2))
        _kernels.dot_products(g[None], g, g, products, self.threads)
        length = math.sqrt(products[0, 0])
        if not length:
            direction[...] = 0
            return 0.0
        np.divide(g, -length / self.first_step, out=direction, dtype=np.float64, casting="same_kind")
        return self._slope(g)

    def _slope(self, gradient: Single) -> float:
        """Of the function along the direction."""
        products = np.empty((1, 2))
        direction = self.state["direction"]
        _kernels.dot_products(direction[None], gradient, gradient, products, self.threads)
        return float(products[0, 0])

    def _try_step(self, function: Function) -> None:
        """Evaluate the next point along the direction, and judge it."""
        s, search = self.state, LineSearch(*self.state["search"].tolist())
        pairs, nfev = int(s["counters"][PAIRS]), self.nfev
        weights = np.array([search.t, 1.0])
        _kernels.linear_combination(s["direction"][None], s["start"], weights, s["x"], self.threads)
        if _same(s["x"], s["start"]):
            verdict = FAIL  # a step that float32 can't tell from none
        else:
            value, gradient = function(s["x"])
            gradient, nfev = _flat(gradient), nfev + 1
            slope = self._slope(gradient)
            search, verdict = advance(search, value, slope)
        if verdict == ACCEPT:
            useful = search.t * (slope - search.slope) > EPSILON * search.t * abs(search.slope)
            counters = {TASK: AT_POINT, NIT: self.nit + 1, NFEV: nfev, NEW_PAIR: int(useful)}
            self._replace(counters, f=np.array(value), g=gradient)
        elif verdict == FAIL:  # once more along the gradient, if it was not that already
            task = AT_POINT if pairs else FINISHED
            arrays = {"x": s["start"], "start": s["x"], "g": s["start_g"]}
            self._replace({TASK: task, NFEV: nfev, PAIRS: 0, NEWEST: self.maxcor - 1}, **arrays)
        else:
            self._replace({NFEV: nfev}, search=np.array(search))


def direction_weights(order: NDArray[np.int64], sy: Double, yy: Double, products: Double) -> Double:
    """-H g as a combination of the pairs and g: a weight for each s and y, and in the end one for g.

    The two loops, with the dot products that they need computed beforehand.

    Parameters
    ----------
    order : (pairs,) array of int
        Places of the pairs, from the oldest to the newest.
    sy, yy : (m, m) arrays
        s_i . y_j for pairs j that are not older than i, and y_i . y_j.
    products : (2 pairs, ...) array
        In its first column s_i . g and y_i . g, of one pair after the other.
    """
    sy, yy = sy[np.ix_(order, order)], yy[np.ix_(order, order)]
    sg, yg = products[2 * order, 0], products[2 * order + 1, 0]
    pairs, curvature = len(order), np.diag(sy)
    a, b = np.zeros(pairs), np.zeros(pairs)
    for i in reversed(range(pairs)):  # a = rho s . q, where q = g - the sum of a y of newer pairs
        a[i] = (sg[i] - np.sum(a * sy[i])) / curvature[i]
    scale = sy[-1, -1] / yy[-1, -1]
    yq = scale * (yg - np.sum(yy * a, axis=1))
    for i in range(pairs):  # b = rho y . q, where q has got (a - b) s of older pairs
        b[i] = (yq[i] + np.sum((a - b)[:i] * sy[:i, i])) / curvature[i]
    weights = np.empty(2 * pairs + 1)
    weights[2 * order], weights[2 * order + 1], weights[-1] = b - a, scale * a, -scale
    return weights


def _same(a: Single, b: Single) -> bool:
    """Whether two vectors are equal; those that are not mostly differ within the first elements already."""
    return np.array_equal(a[:1000], b[:1000]) and np.array_equal(a, b)


def _flat(gradient: NDArray[Any]) -> Single:
    return np.ascontiguousarray(gradient, np.float32).reshape(-1)
