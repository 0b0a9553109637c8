"""The optimizers: on a function whose minimum is known, on bad numbers, and why they stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from npstyle import Settings, UserError
from npstyle._typing import Optimizer
from npstyle.lbfgs import MAX_INTEGER, workspace_size
from npstyle.optimize import (
    Minimizer,
    OptimizeResult,
    max_pixels,
    optimizer_bytes,
    pairs_used,
    stored_bytes,
    with_possible_optimizer,
)

Array = NDArray[Any]
GOAL = np.linspace(0, 255, 4 * 5 * 3, dtype=np.float32).reshape(4, 5, 3)
LBFGS = Settings(iterations=20)
LBFGS32 = Settings(optimizer="lbfgs32", iterations=20)
ADAM = Settings(optimizer="adam", iterations=200, learning_rate=5)


class Valley:
    """1/2 sum curvature (x - GOAL)^2, loss and gradient in float32 as from the network."""

    def __init__(self, spoil: Callable[[int, float], float] = lambda call, loss: loss) -> None:
        self.terms: Mapping[str, float] = {"all": 1.0}
        self.curvature = np.linspace(0.1, 1, GOAL.size, dtype=np.float32).reshape(GOAL.shape)
        self.spoil = spoil
        self.calls = 0

    def __call__(self, pixels: ArrayLike) -> tuple[float, Array]:
        x = np.asarray(pixels)
        assert x.dtype == np.float32
        self.calls += 1
        d = x - GOAL
        return self.spoil(self.calls, float(0.5 * np.sum(self.curvature * d * d))), self.curvature * d


@pytest.mark.parametrize("settings", [LBFGS, LBFGS32], ids=["lbfgs", "lbfgs32"])
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_first_step_of_lbfgs_is_about_a_gray_level(settings: Settings, unit: float) -> None:
    tried: list[Array] = []

    class Noted(Valley):
        def __call__(self, pixels: ArrayLike) -> tuple[float, Array]:
            tried.append(np.array(pixels))
            loss, gradient = super().__call__(pixels)
            return loss * unit, gradient * np.float32(unit)

    minimize(replace(settings, iterations=1), Noted())
    assert 0.7 < np.sqrt(np.mean(np.square(tried[1] - tried[0]))) < 1.5


def minimize(settings: Settings, valley: Valley | None = None, callback: Any = None) -> OptimizeResult:
    return Minimizer(valley or Valley(), np.full(GOAL.shape, 128.0), settings, callback).run()


@pytest.mark.parametrize("settings", [LBFGS, LBFGS32, ADAM], ids=["lbfgs", "lbfgs32", "adam"])
def test_minimum_is_found(settings: Settings) -> None:
    valley = Valley()
    result = minimize(settings, valley)
    assert result.nfev == valley.calls > result.nit
    assert result.pixels.dtype == np.float32
    np.testing.assert_allclose(result.pixels, GOAL, atol=2)
    (iterations,) = settings.level_iterations([(4, 5)])
    assert len(result.losses) == iterations + 1
    assert result.loss == min(result.losses) < 1e-3 * result.losses[0]
    assert result.message == f"did the {iterations} iterations asked for"
    assert result.success
    assert not result.ended_early
    assert result.nit == settings.iterations


def test_adam_takes_published_steps() -> None:
    """Two steps by hand: the first is the rate in the direction of the sign, whatever the gradient's size."""
    settings = replace(ADAM, iterations=2)
    seen: list[Array] = []
    minimize(settings, callback=lambda pixels, *_: seen.append(pixels))
    curvature, x = Valley().curvature.astype(np.float64), np.full(GOAL.shape, 128.0)
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t in (1, 2):
        g = curvature * (x - GOAL)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - 5 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(seen[t - 1], x, atol=1e-3)


def test_adam_returns_best_picture() -> None:
    """A rate so large that it jumps over the valley."""
    result = minimize(replace(ADAM, iterations=9, learning_rate=300))
    assert result.losses[-1] > min(result.losses)
    assert result.loss == min(result.losses)
    assert Valley()(result.pixels)[0] == pytest.approx(result.loss)


@pytest.mark.parametrize("settings", [LBFGS, LBFGS32, ADAM], ids=["lbfgs", "lbfgs32", "adam"])
def test_a_loss_that_is_no_number_keeps_the_last_good_picture(settings: Settings) -> None:
    result = minimize(settings, Valley(lambda call, loss: loss if call < 5 else float("nan")))
    assert result.diverged
    assert result.ended_early
    assert not result.success
    assert result.nfev == 5
    assert "not a finite number; the picture is the last good one" in result.message
    assert np.isfinite(result.pixels).all()
    assert result.loss == min(result.losses)


@pytest.mark.parametrize("settings", [LBFGS, LBFGS32, ADAM], ids=["lbfgs", "lbfgs32", "adam"])
def test_start_without_finite_loss_is_refused(settings: Settings) -> None:
    with pytest.raises(UserError, match="loss: found no finite number at the start"):
        minimize(settings, Valley(lambda call, loss: float("inf")))


@pytest.mark.parametrize("settings", [LBFGS, LBFGS32, ADAM], ids=["lbfgs", "lbfgs32", "adam"])
def test_ctrl_c_and_stop_iteration_return_picture_so_far(settings: Settings) -> None:
    for exception, flag in ((KeyboardInterrupt, "interrupted"), (StopIteration, "stopped")):
        seen: list[Array] = []

        def enough(pixels: Array, *_: Any, seen: Any = seen, exception: Any = exception) -> None:
            seen.append(pixels)
            if len(seen) == 3:
                raise exception

        result = minimize(settings, callback=enough)
        assert getattr(result, flag)
        assert not result.success
        assert result.nit == 3
        assert "after 3 iterations" in result.message
        np.testing.assert_array_equal(result.pixels, seen[-1])


def test_ctrl_c_before_first_iteration_is_raised() -> None:
    def interrupted(call: int, loss: float) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minimize(LBFGS, Valley(interrupted))


def test_no_loss_and_no_iterations_end_at_the_start() -> None:
    at_minimum = Minimizer(Valley(), GOAL.astype(np.float64), LBFGS).run()
    assert at_minimum.message.startswith("nothing to do")
    no_iterations = minimize(replace(LBFGS, iterations=0))
    assert no_iterations.message.startswith("no iterations were asked for")
    for result in (at_minimum, no_iterations):
        assert (result.success, result.nit, result.nfev) == (True, 0, 1)


def test_adam_needs_less_memory_and_takes_larger_pictures() -> None:
    adam, least, usual = (
        optimizer_bytes(settings, 10**6) for settings in (ADAM, replace(LBFGS, maxcor=1), LBFGS)
    )
    assert adam < least < usual
    assert usual == pytest.approx(684e6, rel=1e-4)
    assert max_pixels(ADAM) > max_pixels(LBFGS) > 28e6


def test_lbfgs32_replaces_lbfgs_only_where_it_can_not_index_so_many_pixels() -> None:
    limit = max_pixels(LBFGS)
    assert with_possible_optimizer(LBFGS, limit) is LBFGS
    assert with_possible_optimizer(LBFGS, limit + 1) == replace(LBFGS, optimizer="lbfgs32")
    for settings in (ADAM, LBFGS32):
        assert with_possible_optimizer(settings, limit + 1) is settings
    many_pairs = replace(LBFGS, maxcor=100_000)
    assert with_possible_optimizer(many_pairs, 1000) is many_pairs
    assert optimizer_bytes(LBFGS32, limit) < 0.45 * optimizer_bytes(LBFGS, limit)


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32"])
@pytest.mark.parametrize("maxcor", [1, 10, 400])
def test_memory_of_lbfgs_is_what_it_allocates(maxcor: int, optimizer: Optimizer) -> None:
    """Where there are many pairs of steps it is their products that count, not the pixels."""
    settings = replace(LBFGS, maxcor=maxcor, optimizer=optimizer, iterations=500)
    start = np.zeros((5, 7, 3))
    state = Minimizer(Valley(), start, settings).optimizer.state
    allocated = sum(array.nbytes for array in state.values())
    assert optimizer_bytes(settings, 35) == pytest.approx(allocated, abs=1000)
    assert optimizer_bytes(replace(LBFGS, maxcor=100_000, iterations=10**6), 64 * 64) > 880e9


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32"])
def test_few_iterations_have_few_pairs(optimizer: Optimizer) -> None:
    """Those that an iteration could use, with the same bits as with more of them."""
    settings = replace(LBFGS, optimizer=optimizer, iterations=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npstyle.optimize.pairs_used", lambda settings: 10)
        expected = minimize(settings)
    np.testing.assert_array_equal(minimize(settings).pixels, expected.pixels)
    pairs = [pairs_used(replace(settings, iterations=n)) for n in (0, 1, 2, 5, 11, 300)]
    assert pairs == [1, 1, 1, 4, 10, 10]
    pixels = 10**6
    saved = optimizer_bytes(replace(settings, iterations=300), pixels) - optimizer_bytes(settings, pixels)
    assert saved >= 6 * 2 * 3 * pixels * (4 if optimizer == "lbfgs32" else 8)


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32", "adam"])
def test_stored_bytes_are_those_of_the_state(optimizer: Optimizer) -> None:
    settings = replace(LBFGS, optimizer=optimizer, iterations=12)
    minimizer = Minimizer(Valley(), np.full(GOAL.shape, 128.0), settings)
    minimizer.run()
    stored = sum(array.nbytes for array in minimizer.state.values())
    assert stored_bytes(settings, GOAL.size // 3) == pytest.approx(stored, rel=0.06, abs=1500)


def test_too_little_memory_ends_a_run_with_the_best_picture() -> None:
    def exhausted(call: int, loss: float) -> float:
        if call == calls:
            raise MemoryError
        return loss

    calls = 8
    result = minimize(LBFGS, Valley(exhausted))
    assert result.exhausted
    assert result.ended_early
    assert not result.success
    assert "too little memory for another" in result.message
    assert result.loss == min(result.losses) < result.losses[0]
    calls = 1
    with pytest.raises(MemoryError):
        minimize(LBFGS, Valley(exhausted))


def test_more_pairs_than_lbfgs_can_index_are_no_pixels() -> None:
    limits = [max_pixels(replace(LBFGS, maxcor=maxcor)) for maxcor in (10, 1000, 13_000, 100_000)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == 0
    for maxcor, limit in zip((10, 1000, 13_000), limits, strict=False):
        assert workspace_size(3 * limit, maxcor) <= MAX_INTEGER < workspace_size(3 * limit + 3, maxcor)


def test_lbfgs_stops_where_no_step_lowers_the_loss() -> None:
    """Where no step can lower the loss."""
    valley = Valley()
    result = minimize(replace(LBFGS, iterations=10_000), valley)
    assert result.nfev == valley.calls
    assert 20 < len(result.losses) < 5000
    assert "no step lowers the loss any more" in result.message
    assert result.success
    np.testing.assert_allclose(result.pixels, GOAL, atol=0.01)


@pytest.mark.parametrize(
    "settings", [LBFGS, LBFGS32, replace(ADAM, iterations=20)], ids=["lbfgs", "lbfgs32", "adam"]
)
@pytest.mark.parametrize("after", [1, 7, 19])
def test_restored_state_continues_to_same_result(settings: Settings, after: int) -> None:
    expected = minimize(settings)
    state: dict[str, Array] = {}

    def stop(*_: Any) -> None:
        if len(minimizer.losses) == after + 1:
            state.update({name: array.copy() for name, array in minimizer.state.items()})
            raise StopIteration

    minimizer = Minimizer(Valley(), np.full(GOAL.shape, 128.0), settings, stop)
    minimizer.run()
    resumed = Minimizer(Valley(), np.zeros(GOAL.shape), settings, state=state).run()
    np.testing.assert_array_equal(resumed.pixels, expected.pixels)
    assert (resumed.losses, resumed.nfev) == (expected.losses, expected.nfev)
    assert resumed._replace(pixels=expected.pixels) == expected


@pytest.mark.parametrize(
    "settings", [LBFGS, LBFGS32, replace(ADAM, iterations=20)], ids=["lbfgs", "lbfgs32", "adam"]
)
@pytest.mark.parametrize("calls", [2, 3, 9, 10, 15])
def test_interrupted_evaluation_is_repeated_after_resume(settings: Settings, calls: int) -> None:
    expected = minimize(settings)

    def interrupt(call: int, loss: float) -> float:
        if call == calls:
            raise KeyboardInterrupt
        return loss

    minimizer = Minimizer(Valley(interrupt), np.full(GOAL.shape, 128.0), settings)
    with contextlib.suppress(KeyboardInterrupt):
        minimizer.run()
    resumed = Minimizer(Valley(), np.zeros(GOAL.shape), settings, state=minimizer.state).run()
    np.testing.assert_array_equal(resumed.pixels, expected.pixels)
    assert (resumed.losses, resumed.nfev) == (expected.losses, expected.nfev)


@pytest.mark.parametrize(
    "settings", [LBFGS, LBFGS32, replace(ADAM, iterations=20)], ids=["lbfgs", "lbfgs32", "adam"]
)
def test_iteration_interrupted_before_its_record_is_resumed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = minimize(settings)
    minimizer = Minimizer(Valley(), np.full(GOAL.shape, 128.0), settings)
    after_iteration = minimizer._after_iteration

    def interrupted(pixels: Array, loss: float) -> None:
        if len(minimizer.losses) == 6:
            raise KeyboardInterrupt
        after_iteration(pixels, loss)

    monkeypatch.setattr(minimizer, "_after_iteration", interrupted)
    minimizer.run()
    state = minimizer.state
    assert len(state["losses"]) == 7
    resumed = Minimizer(Valley(), np.zeros(GOAL.shape), settings, state=state).run()
    np.testing.assert_array_equal(resumed.pixels, expected.pixels)
    assert (resumed.losses, resumed.nfev) == (expected.losses, expected.nfev)


def test_state_of_another_run_is_refused() -> None:
    stored = Minimizer(Valley(), np.zeros(GOAL.shape), LBFGS).state
    stored["losses"] = np.array([1.0])
    for settings in (replace(LBFGS, maxcor=3), ADAM):
        with pytest.raises(ValueError, match="is not that of this minimization"):
            Minimizer(Valley(), np.zeros(GOAL.shape), settings, state=stored)
    with pytest.raises(ValueError, match="losses"):
        Minimizer(Valley(), np.zeros(GOAL.shape), LBFGS, state={})
