"""The line search: every step it accepts satisfies its conditions, on functions that are hard for it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npstyle.line_search import (
    ACCEPT,
    C1,
    C2,
    FAIL,
    MAX_STEPS,
    MAX_T,
    NARROW,
    TRY,
    LineSearch,
    advance,
    begin,
)

Curve = Callable[[float], tuple[float, float]]  # value and slope


def search_along(curve: Curve, first: float) -> tuple[LineSearch, str, list[float]]:
    """Where a search ends, its verdict, and all steps that were tried."""
    search, verdict = begin(*curve(0), first), TRY
    tried: list[float] = []
    while verdict == TRY:
        tried.append(search.t)
        search, verdict = advance(LineSearch(*map(float, search)), *curve(search.t))
    return search, verdict, tried


def decreases(curve: Curve, t: float) -> bool:
    (value, slope), (new_value, _) = curve(0), curve(t)
    return new_value <= value + C1 * t * slope


def is_flat_or_narrow(curve: Curve, search: LineSearch) -> bool:
    """The slope is flatter, or the bracket as narrow as it has to be where no slope is."""
    if abs(curve(search.t)[1]) <= C2 * abs(curve(0)[1]):
        return True
    ends = search.low, search.high
    return bool(search.bracketed) and max(ends) - min(ends) <= NARROW * max(ends) and search.t in ends


# "rational" and "power" are the first two test functions of Moré and Thuente, 1994.
CURVES: dict[str, Curve] = {
    "parabola": lambda t: ((t - 3) ** 2, 2 * (t - 3)),
    "rational": lambda t: (-t / (t**2 + 2), (t**2 - 2) / (t**2 + 2) ** 2),
    "power": lambda t: ((t + 0.004) ** 5 - 2 * (t + 0.004) ** 4, 5 * (t + 0.004) ** 4 - 8 * (t + 0.004) ** 3),
    "waves": lambda t: (0.3 * math.sin(5 * t) - 3 * t + 0.1 * t * t, 1.5 * math.cos(5 * t) - 3 + 0.2 * t),
    "wall": lambda t: (-t if t < 1e-3 else 1e6 * (t - 1e-3) ** 2 - t, -1 + 2e6 * max(0.0, t - 1e-3)),
}


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("name", CURVES)
def test_accepted_step_satisfies_conditions(name: str, first: float) -> None:
    search, verdict, tried = search_along(CURVES[name], first)
    assert verdict == ACCEPT
    assert decreases(CURVES[name], search.t)
    assert is_flat_or_narrow(CURVES[name], search)
    assert len(tried) == search.steps <= 13


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("name", ["parabola", "rational", "waves"])
def test_slope_is_flat_where_there_is_room(name: str, first: float) -> None:
    search, _, _ = search_along(CURVES[name], first)
    assert abs(CURVES[name](search.t)[1]) <= C2 * abs(CURVES[name](0)[1])


@given(st.floats(0.01, 100), st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 9), st.floats(-4, 4))
@settings(max_examples=100, derandomize=True, database=None, deadline=None)
def test_wavy_parabolas(minimum: float, height: float, more: float, waves: float, exponent: float) -> None:
    """A step is accepted if any decreases the function sufficiently, whatever the waves."""

    def curve(t: float) -> tuple[float, float]:
        value = (t - minimum) ** 2 + height * math.sin(waves * t) + more * math.cos(2 * waves * t)
        slope = 2 * (t - minimum) + height * waves * math.cos(waves * t)
        return value, slope - 2 * more * waves * math.sin(2 * waves * t)

    if curve(0)[1] >= -1e-3:
        return
    search, verdict, _ = search_along(curve, 10**exponent)
    assert verdict == ACCEPT
    assert decreases(curve, search.t)


def test_kink_is_accepted_where_no_slope_is_flat() -> None:
    """|t - 1| has slopes of -1 and 1 only: the best step of a narrow bracket is enough."""
    search, verdict, _ = search_along(lambda t: (abs(t - 1), math.copysign(1, t - 1)), 0.3)
    assert verdict == ACCEPT
    assert search.t == pytest.approx(1, abs=0.1)


def test_no_step_that_lowers_the_value_fails() -> None:
    """The slope promises a decrease that there is not."""
    search, verdict, tried = search_along(lambda t: (t, -1.0), 1.0)
    assert verdict == FAIL
    assert len(tried) == MAX_STEPS
    assert tried == sorted(tried, reverse=True)
    assert search.low == 0


def test_function_without_a_minimum_ends_at_the_longest_step() -> None:
    search, verdict, tried = search_along(lambda t: (-t, -1.0), 1.0)
    assert verdict == ACCEPT
    assert max(tried) == search.t <= MAX_T


def test_search_returns_to_the_best_step() -> None:
    """Where the bracket has become narrow at a step that is not its best, that one is evaluated again."""

    def curve(t: float) -> tuple[float, float]:
        # Beyond 0.5 there is a cliff, before it the slope does not change.
        return (-t, -1.0) if t <= 0.5 else (5.0, -1.0)

    search, verdict, tried = search_along(curve, 0.48)
    assert verdict == ACCEPT
    assert search.t <= 0.5
    assert curve(search.t)[0] == min(curve(t)[0] for t in tried)
