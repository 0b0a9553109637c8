"""SciPy's L-BFGS-B stepped from outside: every step is that of `minimize`, and it can be taken up again."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, rosen, rosen_der

from npstyle.lbfgs import COUNTERS, Lbfgsb

Array = NDArray[Any]
START = np.random.default_rng(0).uniform(-2, 2, 60)


def function(x: Array) -> tuple[float, Array]:
    return float(rosen(x)), rosen_der(x)


def steps_of_minimize(maxcor: int, iterations: int) -> list[Array]:
    steps: list[Array] = []
    minimize(
        function,
        START,
        jac=True,
        method="L-BFGS-B",
        callback=lambda x: steps.append(x.copy()),
        options={"maxcor": maxcor, "maxiter": iterations, "maxfun": 10**6, "ftol": 0.0, "gtol": 0.0},
    )
    return steps


@pytest.mark.parametrize("maxcor", [1, 3, 10, 17])
def test_every_step_is_that_of_minimize(maxcor: int) -> None:
    expected = steps_of_minimize(maxcor, 50)
    found = [x.copy() for x, _ in islice(Lbfgsb(START, maxcor).iterations(function), 50)]
    np.testing.assert_array_equal(found, expected)


def test_it_ends_where_minimize_ends() -> None:
    expected = steps_of_minimize(10, 10_000)
    lbfgs = Lbfgsb(START, 10)
    found = [(x.copy(), value) for x, value in lbfgs.iterations(function)]
    assert len(found) == len(expected) < 10_000
    np.testing.assert_array_equal(found[-1][0], expected[-1])
    assert found[-1][1] == rosen(expected[-1])


@pytest.mark.parametrize("after", [1, 2, 5, 13, 49])
def test_taken_up_again_it_takes_the_same_steps(after: int) -> None:
    expected = steps_of_minimize(10, 60)
    first = Lbfgsb(START, 10)
    for _ in islice(first.iterations(function), after):
        pass
    kept = {name: array.copy() for name, array in first.state.items()}
    second = Lbfgsb(np.zeros_like(START), 10)
    second.restore(kept)
    found = [x.copy() for x, _ in islice(second.iterations(function), 60 - after)]
    np.testing.assert_array_equal(found, expected[after:])


@pytest.mark.parametrize("array", ["isave", "iwa", "lsave", "task"])
@pytest.mark.parametrize("number", [2**30, -(2**30)])
def test_a_forged_state_is_refused(array: str, number: int) -> None:
    """Its places in memory are the routine's word alone."""
    lbfgs = Lbfgsb(START, 10)
    for _ in islice(lbfgs.iterations(function), 15):
        pass
    for place in range(lbfgs.state[array].size):
        forged = {name: kept.copy() for name, kept in lbfgs.state.items()}
        forged[array][place] = number
        if array == "isave" and place in COUNTERS and number > 0:
            continue  # nothing is looked up by them
        with pytest.raises(ValueError, match="nothing that L-BFGS-B writes"):
            Lbfgsb(START, 10).restore(forged)


def test_a_state_of_something_else_is_refused() -> None:
    lbfgs = Lbfgsb(START, 10)
    for other in (Lbfgsb(START[1:], 10), Lbfgsb(START, 9)):
        with pytest.raises(ValueError, match="is not that of this minimization"):
            lbfgs.restore(other.state)
    with pytest.raises(ValueError, match="x is not"):
        lbfgs.restore({})
    single = {name: array.astype(np.float32) for name, array in lbfgs.state.items()}
    with pytest.raises(ValueError, match="is not"):
        lbfgs.restore(single)
