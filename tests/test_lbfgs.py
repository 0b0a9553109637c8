"""SciPy's private L-BFGS-B: its steps are those of `minimize`, any state can be continued; its fallback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, rosen, rosen_der

import npstyle
from helpers import structured_picture as picture
from npstyle import Progress, Settings, UserError, lbfgs, stylize
from npstyle.lbfgs import COUNTERS, FallbackWarning, PrivateLbfgsb, PublicLbfgsb
from npstyle.weights import Weights, load_weights

Array = NDArray[Any]
Patch = pytest.MonkeyPatch
START = np.random.default_rng(0).uniform(-2, 2, 60)
BOTH = pytest.mark.parametrize("minimizer", [PrivateLbfgsb, PublicLbfgsb])


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


def steps_of(minimizer: PrivateLbfgsb | PublicLbfgsb, iterations: int) -> list[Array]:
    """The points after the iterations up to this one."""
    steps: list[Array] = []
    minimizer.run(function, lambda x, value: steps.append(x.copy()), iterations)
    return steps


@BOTH
@pytest.mark.parametrize("maxcor", [1, 3, 10, 17])
def test_every_step_is_that_of_minimize(maxcor: int, minimizer: Any) -> None:
    expected = steps_of_minimize(maxcor, 50)
    np.testing.assert_array_equal(steps_of(minimizer(START, maxcor), 50), expected)


@BOTH
def test_end_is_that_of_minimize(minimizer: Any) -> None:
    """Where no step lowers the value any more."""
    expected = steps_of_minimize(10, 10_000)
    run = minimizer(START, 10)
    steps: list[tuple[Array, float]] = []
    calls: list[int] = []

    def counted(x: Array) -> tuple[float, Array]:
        calls.append(1)
        return function(x)

    run.run(counted, lambda x, value: steps.append((x.copy(), value)), 10_000)
    assert len(steps) == len(expected) == run.nit < 10_000
    assert run.nfev == len(calls)
    np.testing.assert_array_equal(steps[-1][0], expected[-1])
    assert steps[-1][1] == rosen(expected[-1])


@BOTH
def test_nit_and_nfev_count_iterations_and_evaluations(minimizer: Any) -> None:
    """Also while an evaluation runs, which does not count before it has ended."""
    run = minimizer(START, 10)
    before: list[int] = []
    after: list[tuple[int, int, int]] = []

    def counted(x: Array) -> tuple[float, Array]:
        before.append(run.nfev)
        return function(x)

    assert (run.nit, run.nfev) == (0, 0)
    run.run(counted, lambda x, value: after.append((run.nit, run.nfev, len(before))), 50)
    assert before == list(range(len(before)))
    assert [nit for nit, _, _ in after] == list(range(1, 51))
    assert all(nfev == calls for _, nfev, calls in after)
    assert run.nfev > 51


@pytest.mark.parametrize("after", [1, 2, 5, 13, 49])
def test_restored_state_continues_with_the_same_steps(after: int) -> None:
    expected = steps_of_minimize(10, 60)
    first = PrivateLbfgsb(START, 10)
    steps_of(first, after)
    stored = {name: array.copy() for name, array in first.state.items()}
    second = PrivateLbfgsb(np.zeros_like(START), 10)
    second.restore(stored)
    assert (second.nit, second.nfev) == (first.nit, first.nfev)
    np.testing.assert_array_equal(steps_of(second, 60), expected[after:])


@pytest.mark.parametrize("array", ["isave", "iwa", "lsave", "task"])
@pytest.mark.parametrize("number", [2**30, -(2**30)])
def test_forged_state_is_refused(array: str, number: int) -> None:
    """The routine uses these as indices, unchecked."""
    run = PrivateLbfgsb(START, 10)
    steps_of(run, 15)
    for place in range(run.state[array].size):
        forged = {name: stored.copy() for name, stored in run.state.items()}
        forged[array][place] = number
        if array == "isave" and place in COUNTERS and number > 0:
            continue  # they are no indices
        with pytest.raises(ValueError, match="nothing that L-BFGS-B writes"):
            PrivateLbfgsb(START, 10).restore(forged)


def test_state_of_another_problem_is_refused() -> None:
    run = PrivateLbfgsb(START, 10)
    for other in (PrivateLbfgsb(START[1:], 10), PrivateLbfgsb(START, 9)):
        with pytest.raises(ValueError, match="is not that of this minimization"):
            run.restore(other.state)
    with pytest.raises(ValueError, match="x is not"):
        run.restore({})
    single = {name: array.astype(np.float32) for name, array in run.state.items()}
    with pytest.raises(ValueError, match="is not"):
        run.restore(single)


# --- SciPy's private routine is another one ---


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The check of SciPy's routine has not been made yet, and is made again afterwards."""
    lbfgs.private_routine_works.cache_clear()
    yield
    lbfgs.private_routine_works.cache_clear()


def scaled_steps(*arguments: Any) -> None:
    """A routine that behaves slightly differently: its gradients are a millionth larger."""
    arguments[6][...] *= 1 + 1e-6
    REAL.setulb(*arguments)


REAL = lbfgs._lbfgsb
scaled_steps.__doc__ = lbfgs.SIGNATURE


def fails(*_: Any) -> None:
    raise TypeError("setulb() takes 18 arguments")


fails.__doc__ = lbfgs.SIGNATURE


def other_arguments(*arguments: Any) -> None:
    """setulb(n,m,x,f,g)"""
    raise AssertionError("called, though its arguments are not known")


OTHERS: dict[str, tuple[Any, str]] = {
    "no module": (None, "scipy.optimize._lbfgsb.setulb is missing"),
    "no routine": (SimpleNamespace(), "scipy.optimize._lbfgsb.setulb is missing"),
    "other arguments": (SimpleNamespace(setulb=other_arguments), r"has other arguments \(setulb\(n,m,x,f,g"),
    "fails": (SimpleNamespace(setulb=fails), r"setulb fails \(setulb\(\) takes 18"),
    "other steps": (SimpleNamespace(setulb=scaled_steps), "takes other steps than minimize"),
}


def test_installed_scipy_has_the_known_routine(unchecked: None) -> None:
    assert lbfgs.private_routine_works()
    assert isinstance(lbfgs.lbfgsb(START, 3), PrivateLbfgsb)


@pytest.mark.parametrize("name", OTHERS)
def test_unknown_private_routine_is_replaced_with_a_warning(
    name: str, unchecked: None, monkeypatch: Patch
) -> None:
    module, words = OTHERS[name]
    monkeypatch.setattr(lbfgs, "_lbfgsb", module)
    with pytest.warns(FallbackWarning, match=f"{words}.*only between two levels"):
        run = lbfgs.lbfgsb(START, 3)
    assert isinstance(run, PublicLbfgsb)
    lbfgs.lbfgsb(START, 3)  # warned once
    np.testing.assert_array_equal(steps_of(run, 20), steps_of_minimize(3, 20))


WEIGHTS = Weights(dict(load_weights("random", deepest="conv2_1")), "fixed", preprocessing="caffe")
SETTINGS = Settings(content_layers=("conv2_1",), style_layers=("conv1_1",), min_size=32, iterations=4)


def run(callback: Callable[[Progress], None] | None = None, **options: Any) -> npstyle.StyleResult:
    content, style = picture(32, 48), picture(40, 40, 1)
    return stylize(content, style, settings=SETTINGS, weights=WEIGHTS, callback=callback, **options)


def interrupt_at(iteration: int) -> Callable[[Progress], None]:
    def callback(progress: Progress) -> None:
        if progress.iteration == iteration:
            raise KeyboardInterrupt

    return callback


@pytest.fixture
def without_private_routine(unchecked: None, monkeypatch: Patch) -> None:
    monkeypatch.setattr(lbfgs, "_lbfgsb", None)
    with pytest.warns(FallbackWarning):
        assert not lbfgs.private_routine_works()


@pytest.fixture
def expected() -> npstyle.StyleResult:
    """By the private routine."""
    return run()


def test_run_by_minimize_has_the_same_result(
    expected: npstyle.StyleResult, without_private_routine: None, monkeypatch: Patch
) -> None:
    calls: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return minimize(*arguments, **options)

    monkeypatch.setattr(lbfgs, "minimize", counted)
    result = run()
    assert len(calls) == len(result.levels) == 2
    np.testing.assert_array_equal(result.pixels, expected.pixels)
    assert result.levels == expected.levels
    assert (result.nit, result.nfev, result.message) == (expected.nit, expected.nfev, expected.message)


def test_run_by_minimize_can_be_interrupted_and_stopped(without_private_routine: None) -> None:
    def stop(progress: Progress) -> None:
        if progress.iteration == 6:
            raise StopIteration

    assert run(stop).message == "stopped by the callback after 2 iterations"
    assert run(interrupt_at(3)).message.startswith("interrupted after 3 iterations; the picture is enlarged")


def test_run_by_minimize_resumes_at_the_last_level_that_began(
    expected: npstyle.StyleResult, without_private_routine: None, tmp_path: Path
) -> None:
    seen: list[int] = []
    options: dict[str, Any] = {"checkpoint": tmp_path / "x", "checkpoint_every": 0.0}
    assert run(interrupt_at(6), **options).interrupted
    result = run(lambda progress: seen.append(progress.iteration), resume=True, **options)
    assert seen == [5, 6, 7, 8]
    np.testing.assert_array_equal(result.pixels, expected.pixels)
    assert result.levels == expected.levels


def test_run_by_minimize_refuses_a_state_inside_a_level(
    unchecked: None, monkeypatch: Patch, tmp_path: Path
) -> None:
    assert run(interrupt_at(6), checkpoint=tmp_path / "x").interrupted
    lbfgs.private_routine_works.cache_clear()
    monkeypatch.setattr(lbfgs, "_lbfgsb", None)
    with (
        pytest.warns(FallbackWarning),
        pytest.raises(UserError, match=r"resume: found a checkpoint in the middle of a level.*begin again"),
    ):
        run(checkpoint=tmp_path / "x", resume=True)
