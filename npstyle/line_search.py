"""A line search for the strong Wolfe conditions, one trial at a time: docs/lbfgs.md.

The caller evaluates the function and its slope at `LineSearch.t` and hands them to `advance`, which says
whether that step is accepted or which one is tried next. All its state is in numbers, so that it can be
stored at any moment.

Nocedal, Wright, "Numerical Optimization", 2nd edition, 2006, algorithms 3.5 and 3.6, with the cubic
interpolation of equation 3.59; constants as in SciPy's L-BFGS-B.
"""

from __future__ import annotations

import math
from typing import NamedTuple

C1, C2 = 1e-3, 0.9  # sufficient decrease, and how much flatter the slope has to become
MAX_STEPS = 20
MAX_T = 1e10
NARROW = 0.1  # width of a bracket, as a part of its end, within which the best step is good enough
LEAST_EXPANSION, GREATEST_EXPANSION = 1.1, 4.0  # by how many times the last change of t it grows
MARGIN = 0.1  # of a bracket's width, to its ends
SHRINKS = 2 / 3  # a bracket that shrank to no less than this is halved

TRY, ACCEPT, FAIL = "try", "accept", "fail"


class LineSearch(NamedTuple):
    """Where a line search is; all numbers, of p(t), the function along the direction.

    Attributes
    ----------
    value, slope : float
        p(0) and p'(0), which is negative.
    t : float
        The step that is tried next.
    low, low_value, low_slope : float
        The step with the least value so far, and p and p' there. Unless it is 0 it decreases p sufficiently.
    high, high_value, high_slope : float
        The other end of the bracket; or the `low` before, as long as there is no bracket.
    bracketed : float
        1 if there is an acceptable step between low and high, else 0.
    width : float
        Of the bracket before the last trial.
    steps : float
        Values that the caller has handed over.
    """

    value: float
    slope: float
    t: float
    low: float
    low_value: float
    low_slope: float
    high: float
    high_value: float
    high_slope: float
    bracketed: float = 0.0
    width: float = math.inf
    steps: float = 0.0


def begin(value: float, slope: float, t: float) -> LineSearch:
    """A line search whose first trial is t."""
    return LineSearch(value, slope, min(t, MAX_T), *(0.0, value, slope) * 2)


def advance(search: LineSearch, value: float, slope: float) -> tuple[LineSearch, str]:
    """Judge the step `search.t`, where p has this value and slope: TRY another, ACCEPT it, or FAIL."""
    s = search._replace(steps=search.steps + 1)
    sufficient = value <= s.value + C1 * s.t * s.slope
    if sufficient and (abs(slope) <= C2 * abs(s.slope) or s.t == s.low):  # t is low: the search has returned
        return s, ACCEPT
    s = _with_point(s, value, slope, sufficient)
    width = abs(s.high - s.low)
    narrow = bool(s.bracketed) and width <= NARROW * max(s.low, s.high)
    if narrow or s.steps >= MAX_STEPS - 1 or (s.t >= MAX_T and not s.bracketed):
        if s.low == s.t:
            return s, ACCEPT
        if s.low and s.steps < MAX_STEPS:
            return s._replace(t=s.low), TRY
        if narrow or s.steps >= MAX_STEPS:
            return s, FAIL
    t = _inside(s, width) if s.bracketed else _beyond(s)
    return s._replace(t=t, width=width if s.bracketed else math.inf), TRY


def _with_point(s: LineSearch, value: float, slope: float, sufficient: bool) -> LineSearch:
    """Take the trial for one end of the bracket, or of what may become one."""
    if not sufficient or value >= s.low_value:
        return s._replace(high=s.t, high_value=value, high_slope=slope, bracketed=1.0)
    # The old low is kept where p falls toward it, or while every trial has still led further down.
    toward_high = s.high > s.low or not s.bracketed
    if (slope >= 0) == toward_high or not s.bracketed:
        bracketed = 1.0 if s.bracketed or slope >= 0 else 0.0
        s = s._replace(high=s.low, high_value=s.low_value, high_slope=s.low_slope, bracketed=bracketed)
    return s._replace(low=s.t, low_value=value, low_slope=slope)


def _inside(s: LineSearch, width: float) -> float:
    """A step in the bracket: by interpolation, or its middle where interpolation has not narrowed it much."""
    left, right = min(s.low, s.high), max(s.low, s.high)
    t = _cubic_minimum(s)
    if t is None or width > SHRINKS * s.width:
        return (left + right) / 2
    return min(max(t, left + MARGIN * width), right - MARGIN * width)


def _beyond(s: LineSearch) -> float:
    """A longer step: by extrapolation, but not much longer."""
    change = s.low - s.high
    least, most = s.low + LEAST_EXPANSION * change, s.low + GREATEST_EXPANSION * change
    t = _cubic_minimum(s)
    return min(most if t is None or t <= s.low else min(max(t, least), most), MAX_T)


def _cubic_minimum(s: LineSearch) -> float | None:
    """Where the cubic with the values and slopes at both ends has its minimum; None if it has none."""
    change = s.low - s.high
    if not change:
        return None
    d = s.high_slope + s.low_slope - 3 * (s.high_value - s.low_value) / -change
    square = d * d - s.high_slope * s.low_slope
    if not 0 <= square < math.inf:
        return None
    root = math.copysign(math.sqrt(square), change)
    denominator = s.low_slope - s.high_slope + 2 * root
    t = s.low - change * (s.low_slope + root - d) / denominator if denominator else math.nan
    return t if math.isfinite(t) else None
