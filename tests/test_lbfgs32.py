"""L-BFGS in float32: its direction, its minima beside SciPy's, any state can be continued, noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import rosen, rosen_der

from helpers import structured_picture as picture
from npstyle import VGG19, Objective, Settings, _kernels, load_weights
from npstyle.lbfgs import PrivateLbfgsb
from npstyle.lbfgs32 import FINISHED, IN_LINE_SEARCH, PAIRS, TASK, Lbfgs32, bytes_of, direction_weights
from npstyle.optimize import Minimizer

Array = NDArray[Any]
Function = Callable[[Array], tuple[float, Array]]
START = np.random.default_rng(0).uniform(-2, 2, 60)


def rosenbrock(x: Array) -> tuple[float, Array]:
    wide = x.astype(np.float64)
    return float(rosen(wide)), rosen_der(wide).astype(x.dtype)


class Quadratic:
    """1/2 sum curvature (x - goal)^2; with noise, relative to the value and to each gradient element."""

    def __init__(self, condition: float, noise: float = 0.0, n: int = 500) -> None:
        self.curvature, self.goal = np.geomspace(1, condition, n), np.linspace(0, 255, n)
        self.noise, self.rng = noise, np.random.default_rng(1)

    def __call__(self, x: Array) -> tuple[float, Array]:
        d = x.astype(np.float64) - self.goal
        gradient = self.curvature * d
        value = 0.5 * float(np.sum(gradient * d))
        gradient *= 1 + self.noise * self.rng.standard_normal(d.size)
        return value * (1 + 1e-2 * self.noise * self.rng.standard_normal()), gradient.astype(x.dtype)


def begun(function: Function, start: Array, maxcor: int = 10, threads: int | None = 1) -> Lbfgs32:
    run = Lbfgs32(start, maxcor, threads)
    run.begin(*function(run.state["x"]))
    return run


def values_of(run: Any, function: Function, iterations: int) -> list[float]:
    values: list[float] = []
    run.run(function, lambda x, value: values.append(value), iterations)
    return values


def two_loops(g: Array, pairs: list[tuple[Array, Array]]) -> Array:
    """-H g, as docs/lbfgs.md has it."""
    q: Array = g.astype(np.float64)
    coefficients = []
    for s, y in reversed(pairs):
        a = (s @ q) / (s @ y)
        q = q - a * y
        coefficients.append(a)
    s, y = pairs[-1]
    q = q * (s @ y) / (y @ y)
    for (s, y), a in zip(pairs, reversed(coefficients), strict=True):
        q = q + (a - (y @ q) / (s @ y)) * s
    return -q


@pytest.mark.parametrize("pairs", [1, 2, 7])
@pytest.mark.parametrize("oldest", [0, 3])
def test_direction_is_that_of_the_two_loops(pairs: int, oldest: int) -> None:
    rng = np.random.default_rng(pairs)
    hessian = np.diag(rng.uniform(1, 9, 20))
    steps = rng.standard_normal((pairs, 20))
    changes, g = steps @ hessian, rng.standard_normal(20)
    order = (oldest + np.arange(pairs)) % pairs
    rows = np.stack([steps, changes], axis=1).reshape(-1, 20)
    products = np.stack([rows @ g, rows @ g], axis=1)
    weights = direction_weights(order, steps @ changes.T, changes @ changes.T, products)
    expected = two_loops(g, [(steps[i], changes[i]) for i in order])
    np.testing.assert_allclose(weights @ np.vstack([rows, g]), expected, rtol=1e-9)


@pytest.mark.parametrize("maxcor", [1, 3, 10, 17])
def test_rosenbrock_beside_scipy(maxcor: int) -> None:
    """The same minimum, down to what float32 can tell, in about as many evaluations."""
    ours, scipys = begun(rosenbrock, START, maxcor), PrivateLbfgsb(START, maxcor)
    values, expected = values_of(ours, rosenbrock, 2000), values_of(scipys, rosenbrock, 2000)
    np.testing.assert_allclose(ours.state["x"], np.ones(60), atol=1e-3)
    assert values[-1] < 1e-7
    assert ours.state["counters"][TASK] == FINISHED
    assert (np.diff(values) < 0).all()
    evaluations = [sum(value > 1e-3 for value in run) for run in (values, expected)]
    assert evaluations[0] < 1.25 * evaluations[1]
    assert ours.nfev < 1.25 * scipys.nfev


@pytest.mark.parametrize("noise", [0.0, 1e-5])
@pytest.mark.parametrize(("condition", "margin"), [(1e2, 0.0), (1e4, 1.3), (1e6, 1.3)])
def test_quadratics_beside_scipy(condition: float, margin: float, noise: float) -> None:
    """Also where the gradient has the noise of a network in float32, and more."""
    start = np.full(500, 128.0)
    runs: tuple[Lbfgs32, Any] = (begun(Quadratic(condition, noise), start), PrivateLbfgsb(start, 10))
    ours, scipys = (values_of(run, Quadratic(condition, noise), 60) for run in runs)
    assert ours[-1] <= margin * scipys[-1] + 1e-9 * ours[0]
    assert runs[0].nfev <= 1.3 * runs[1].nfev
    assert (np.diff(ours) < 0).all()


def test_step_along_which_nothing_curves_leaves_the_pairs() -> None:
    """Its s . y is 0, or rounding: as a pair it would make all others worthless."""
    quadratic = Quadratic(1e2)
    run = begun(quadratic, np.full(500, 128.0))
    values_of(run, quadratic, 5)
    x, g, value = (run.state[name].astype(np.float64) for name in ("x", "g", "f"))

    def plane_with_a_kink(point: Array) -> tuple[float, Array]:
        way = float(g @ (point - x))
        beyond = way < -0.5 * value
        rise = -1000 * (way + 0.5 * value) if beyond else 0.0
        return float(value + way + rise), (g - 1000 * g if beyond else g).astype(point.dtype)

    values_of(run, plane_with_a_kink, 6)
    assert run.loss < 0.9 * value
    run._begin_line_search()
    assert (run.state["counters"][PAIRS], run.state["counters"][TASK]) == (5, IN_LINE_SEARCH)


@pytest.fixture(scope="module")
def objective() -> Objective:
    settings = Settings(content_layers=("conv2_1",), style_layers=("conv1_1", "conv2_1"))
    network = VGG19.for_settings(load_weights("random"), settings, threads=1)
    return Objective(network, picture(24, 32), [picture(24, 24, 1)], settings)


def test_objective_beside_scipy(objective: Objective) -> None:
    start, results = np.random.default_rng(0).uniform(0, 255, (24, 32, 3)), {}
    for optimizer in ("lbfgs", "lbfgs32"):
        settings = Settings(optimizer=optimizer, iterations=60)
        results[optimizer] = Minimizer(objective, start, settings).run()
    assert results["lbfgs32"].nit == 60
    assert (np.diff(results["lbfgs32"].losses) < 0).all()
    assert results["lbfgs32"].loss < 1.1 * results["lbfgs"].loss < 0.1 * results["lbfgs"].losses[0]
    assert results["lbfgs32"].nfev < 1.2 * results["lbfgs"].nfev


def test_scale_of_the_loss_does_not_matter() -> None:
    """A power of two changes no rounding; so every step is the same, in bits."""
    quadratic, points = Quadratic(100), []
    for scale in (1.0, 2.0**-60, 2.0**60):

        def scaled(x: Array, scale: float = scale) -> tuple[float, Array]:
            value, gradient = quadratic(x)
            return scale * value, (scale * gradient).astype(x.dtype)

        run = begun(scaled, np.full(500, 128.0))
        values_of(run, scaled, 20)
        points.append(run.state["x"])
    np.testing.assert_array_equal(points[1], points[0])
    np.testing.assert_array_equal(points[2], points[0])


def test_threads_do_not_change_a_bit() -> None:
    quadratic, points = Quadratic(1e4, n=70_000), []
    for threads in (1, 2, 3):
        run = begun(quadratic, np.full(70_000, 128.0), 3, threads)
        values_of(run, quadratic, 8)
        points.append(run.state["x"])
    np.testing.assert_array_equal(points[1], points[0])
    np.testing.assert_array_equal(points[2], points[0])


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("place", ["function", "subtract", "linear_combination", "dot_products", "replace"])
@pytest.mark.parametrize("call", [3, 14, 41])
def test_interruption_anywhere_is_resumed_to_the_same_bits(
    place: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also inside a step, where some of the arrays have been written already."""
    expected = begun(rosenbrock, START, 4)
    values_of(expected, rosenbrock, 60)
    calls = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            calls[0] += 1
            if calls[0] == call:
                raise StopHereError
            return result

        return wrapped

    first, evaluate = begun(rosenbrock, START, 4), rosenbrock
    with monkeypatch.context() as patch:
        if place == "function":
            evaluate = counted(rosenbrock)
        elif place == "subtract":
            patch.setattr(np, "subtract", counted(np.subtract))
        elif place == "replace":
            patch.setattr(first, "_replace", counted(first._replace))
        else:
            patch.setattr(f"npstyle._kernels.{place}", counted(getattr(_kernels, place)))
        with pytest.raises(StopHereError):
            values_of(first, evaluate, 60)
    second = Lbfgs32(np.zeros_like(START), 4, 1)
    second.restore({name: array.copy() for name, array in first.stored.items()})
    assert (second.nit, second.nfev) == (first.nit, first.nfev)
    values_of(second, rosenbrock, 60)
    assert second.nit == expected.nit == 60
    for name in ("x", "g", "f", "pairs", "sy", "yy", "counters"):
        np.testing.assert_array_equal(second.state[name], expected.state[name], err_msg=name)


def test_stored_state_has_no_more_than_is_needed() -> None:
    run = begun(rosenbrock, START, 10)
    assert run.stored["pairs"].shape == (0, START.size)
    values_of(run, rosenbrock, 4)
    assert run.stored["pairs"].shape == (2 * 3, START.size)
    assert run.stored["direction"].size == 0
    values_of(run, rosenbrock, 15)
    assert run.stored["pairs"].shape == (2 * 10, START.size)


def test_pairs_that_are_never_there_change_nothing() -> None:
    """So a run of few iterations need not have memory for them."""
    few, many = begun(rosenbrock, START, 4), begun(rosenbrock, START, 10)
    assert values_of(few, rosenbrock, 5) == values_of(many, rosenbrock, 5)
    np.testing.assert_array_equal(few.state["x"], many.state["x"])


def test_pairs_that_rounding_has_made_worthless_are_discarded() -> None:
    """A gradient that turns against the step: the run goes on along the gradient."""
    run = begun(rosenbrock, START, 4)
    values_of(run, rosenbrock, 10)
    assert run.state["counters"][PAIRS] == 4
    run.state["g"] = -1e3 * (run.state["x"] - run.state["start"])
    run._begin_line_search()
    assert run.state["counters"][PAIRS] == 0
    g = run.state["start_g"].astype(np.float64)
    np.testing.assert_allclose(run.state["direction"], -g / np.linalg.norm(g), rtol=1e-6)


def test_memory_is_what_is_allocated() -> None:
    for n, maxcor in ((50, 1), (1000, 10), (5, 100)):
        allocated = sum(array.nbytes for array in Lbfgs32(np.zeros(n), maxcor).state.values())
        assert bytes_of(n, maxcor) == pytest.approx(allocated, abs=300)
    assert bytes_of(10**6, 10) == pytest.approx(100e6, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "place", "number"),
    [
        *(("counters", place, -1) for place in range(6)),
        *(("counters", place, 11) for place in (0, 3, 4, 5)),
        ("sy", (2, 2), -1.0),
        ("yy", (2, 2), 0.0),
        ("sy", (0, 1), np.inf),
        ("f", (), np.nan),
        ("search", 2, np.nan),
    ],
)
def test_forged_state_is_refused(name: str, place: Any, number: float) -> None:
    run = begun(rosenbrock, START)
    values_of(run, rosenbrock, 15)
    forged = {key: stored.copy() for key, stored in run.state.items()}
    Lbfgs32(START, 10).restore(forged)
    forged[name][place] = number
    with pytest.raises(ValueError, match="nothing that L-BFGS writes"):
        Lbfgs32(START, 10).restore(forged)


def test_state_of_another_problem_is_refused() -> None:
    run = begun(rosenbrock, START)
    for other in (Lbfgs32(START[1:], 10), Lbfgs32(START, 9), PrivateLbfgsb(START, 10)):
        with pytest.raises(ValueError, match="is not that of this minimization"):
            run.restore(other.state)
