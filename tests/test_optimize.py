"""The optimizers: on functions whose minimum is known, on bad numbers, and how they say why they stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from npstyle import Settings, UserError
from npstyle.optimize import Minimizer, OptimizeResult, bytes_per_pixel, most_pixels

Array = NDArray[Any]
GOAL = np.linspace(0, 255, 4 * 5 * 3, dtype=np.float32).reshape(4, 5, 3)
LBFGS = Settings(iterations=20)
ADAM = Settings(optimizer="adam", iterations=200, learning_rate=5)


class Valley:
    """1/2 sum curvature (x - GOAL)^2, as the network would answer: loss and gradient in float32."""

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


def descend(settings: Settings, valley: Valley | None = None, callback: Any = None) -> OptimizeResult:
    return Minimizer(valley or Valley(), np.full(GOAL.shape, 128.0), settings, callback).outcome()


@pytest.mark.parametrize("settings", [LBFGS, ADAM], ids=["lbfgs", "adam"])
def test_it_finds_the_minimum(settings: Settings) -> None:
    outcome = descend(settings)
    assert outcome.pixels.dtype == np.float32
    np.testing.assert_allclose(outcome.pixels, GOAL, atol=2)
    assert len(outcome.losses) == settings.iterations + 1
    assert outcome.loss == min(outcome.losses) < 1e-3 * outcome.losses[0]
    assert outcome.message == f"did the {settings.iterations} iterations asked for"
    assert not outcome.ended_early


def test_adam_takes_the_steps_of_its_authors() -> None:
    """Two steps by hand: the first is the rate in the direction of the sign, whatever the gradient's size."""
    settings = replace(ADAM, iterations=2)
    seen: list[Array] = []
    descend(settings, callback=lambda pixels, *_: seen.append(pixels))
    curvature, x = Valley().curvature.astype(np.float64), np.full(GOAL.shape, 128.0)
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t in (1, 2):
        g = curvature * (x - GOAL)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - 5 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(seen[t - 1], x, atol=1e-3)


def test_of_adam_the_best_picture_is_kept() -> None:
    """A rate so large that it jumps over the valley."""
    outcome = descend(replace(ADAM, iterations=9, learning_rate=300))
    assert outcome.losses[-1] > min(outcome.losses)
    assert outcome.loss == min(outcome.losses)
    assert Valley()(outcome.pixels)[0] == pytest.approx(outcome.loss)


@pytest.mark.parametrize("settings", [LBFGS, ADAM], ids=["lbfgs", "adam"])
def test_a_loss_that_is_no_number_keeps_the_last_good_picture(settings: Settings) -> None:
    outcome = descend(settings, Valley(lambda call, loss: loss if call < 5 else float("nan")))
    assert outcome.diverged
    assert outcome.ended_early
    assert "not a finite number; the picture is the last good one" in outcome.message
    assert np.isfinite(outcome.pixels).all()
    assert outcome.loss == min(outcome.losses)


@pytest.mark.parametrize("settings", [LBFGS, ADAM], ids=["lbfgs", "adam"])
def test_a_start_without_a_finite_loss_is_refused(settings: Settings) -> None:
    with pytest.raises(UserError, match="loss: found no finite number at the start"):
        descend(settings, Valley(lambda call, loss: float("inf")))


@pytest.mark.parametrize("settings", [LBFGS, ADAM], ids=["lbfgs", "adam"])
def test_ctrl_c_and_stop_iteration_end_it_with_the_picture_so_far(settings: Settings) -> None:
    for exception, flag in ((KeyboardInterrupt, "interrupted"), (StopIteration, "stopped")):
        seen: list[Array] = []

        def enough(pixels: Array, *_: Any, seen: Any = seen, exception: Any = exception) -> None:
            seen.append(pixels)
            if len(seen) == 3:
                raise exception

        outcome = descend(settings, callback=enough)
        assert getattr(outcome, flag)
        assert "after 3 iterations" in outcome.message
        np.testing.assert_array_equal(outcome.pixels, seen[-1])


def test_ctrl_c_before_the_first_iteration_is_passed_on() -> None:
    def interrupted(call: int, loss: float) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        descend(LBFGS, Valley(interrupted))


def test_nothing_to_do() -> None:
    outcome = Minimizer(Valley(), GOAL.astype(np.float64), LBFGS).outcome()
    assert outcome.message.startswith("nothing to do")
    assert descend(replace(LBFGS, iterations=0)).message.startswith("no iterations were asked for")


def test_adam_remembers_less_and_takes_larger_pictures() -> None:
    assert bytes_per_pixel(ADAM) < bytes_per_pixel(replace(LBFGS, maxcor=1)) < bytes_per_pixel(LBFGS) == 600
    assert most_pixels(ADAM) > most_pixels(LBFGS) > 28e6


def test_a_minimum_ends_it() -> None:
    """Where no step can lower the loss."""
    outcome = descend(replace(LBFGS, iterations=10_000))
    assert 20 < len(outcome.losses) < 5000
    assert "no step lowers the loss any more" in outcome.message
    np.testing.assert_allclose(outcome.pixels, GOAL, atol=0.01)


@pytest.mark.parametrize("settings", [LBFGS, replace(ADAM, iterations=20)], ids=["lbfgs", "adam"])
@pytest.mark.parametrize("after", [1, 7, 19])
def test_taken_up_again_it_ends_in_the_same_picture(settings: Settings, after: int) -> None:
    expected = descend(settings)
    kept: dict[str, Array] = {}

    def stop(*_: Any) -> None:
        if len(descent.losses) == after + 1:
            kept.update({name: array.copy() for name, array in descent.state.items()})
            raise StopIteration

    descent = Minimizer(Valley(), np.full(GOAL.shape, 128.0), settings, stop)
    descent.outcome()
    found = Minimizer(Valley(), np.zeros(GOAL.shape), settings, state=kept).outcome()
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.losses == expected.losses
    assert (found.loss, found.message) == (expected.loss, expected.message)


@pytest.mark.parametrize("settings", [LBFGS, replace(ADAM, iterations=20)], ids=["lbfgs", "adam"])
@pytest.mark.parametrize("calls", [2, 3, 9, 10, 15])
def test_interrupted_inside_an_evaluation_it_goes_on_to_the_same_picture(
    settings: Settings, calls: int
) -> None:
    expected = descend(settings)

    def interrupt(call: int, loss: float) -> float:
        if call == calls:
            raise KeyboardInterrupt
        return loss

    descent = Minimizer(Valley(interrupt), np.full(GOAL.shape, 128.0), settings)
    with contextlib.suppress(KeyboardInterrupt):
        descent.outcome()
    found = Minimizer(Valley(), np.zeros(GOAL.shape), settings, state=descent.state).outcome()
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.losses == expected.losses


@pytest.mark.parametrize("settings", [LBFGS, replace(ADAM, iterations=20)], ids=["lbfgs", "adam"])
def test_interrupted_before_an_iteration_is_noted_it_goes_on_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = descend(settings)
    descent = Minimizer(Valley(), np.full(GOAL.shape, 128.0), settings)
    keep = descent._keep

    def interrupted(pixels: Array, loss: float) -> None:
        if len(descent.losses) == 6:
            raise KeyboardInterrupt
        keep(pixels, loss)

    monkeypatch.setattr(descent, "_keep", interrupted)
    descent.outcome()
    state = descent.state
    assert len(state["losses"]) == 7
    found = Minimizer(Valley(), np.zeros(GOAL.shape), settings, state=state).outcome()
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.losses == expected.losses


def test_a_state_of_another_run_is_refused() -> None:
    kept = Minimizer(Valley(), np.zeros(GOAL.shape), LBFGS).state
    kept["losses"] = np.array([1.0])
    for settings in (replace(LBFGS, maxcor=3), ADAM):
        with pytest.raises(ValueError, match="is not that of this minimization"):
            Minimizer(Valley(), np.zeros(GOAL.shape), settings, state=kept)
    with pytest.raises(ValueError, match="losses"):
        Minimizer(Valley(), np.zeros(GOAL.shape), LBFGS, state={})
