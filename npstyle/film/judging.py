"""How steady a painted film is: its warping error, where the flow is known or estimated. docs/video.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npstyle.film.flow import Flow, warp

Array = NDArray[Any]


def warping_error(earlier: Array, later: Array, backward: Flow, known: NDArray[np.bool_]) -> float:
    """Mean squared difference of a frame and the warped earlier one, of the pixels that both show.

    In squared gray levels. Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018.
    NaN if no pixel is known.
    """
    difference = np.asarray(later, np.float64) - warp(np.asarray(earlier, np.float64), backward)
    return float(np.mean(np.square(difference[known]))) if known.any() else float("nan")


def mean_warping_error(
    frames: Sequence[Array], flows: Sequence[tuple[Flow, NDArray[np.bool_]]], step: int = 1
) -> float:
    """The mean over all pairs of frames that are `step` apart; pairs without a known pixel are left out.

    The n-th flow is that from frame n + step to frame n.
    """
    pairs = zip(frames, frames[step:], flows, strict=False)
    errors = [warping_error(a, b, flow, known) for a, b, (flow, known) in pairs if known.any()]
    return float(np.mean(errors))
