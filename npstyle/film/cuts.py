"""Cuts, and the shots between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.25  # part of the pixels whose colors change; how it was chosen: docs/video.md


def color_change(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The part of the pixels whose colors are in other bins: half the distance of two histograms, 0 to 1.

    The mean over channels of `npstyle.film.frames.histogram`. Motion keeps colors; a cut replaces them.
    """
    return float(np.abs(a - b).sum()) / 6


def find_shots(histograms: Sequence[NDArray[Any]], threshold: float = THRESHOLD) -> list[range]:
    """The shots, as ranges of frames: a new one begins where more colors change than the threshold.

    Examples
    --------
    >>> red, blue = np.array([1.0, 0, 0, 0, 0, 1]), np.array([0.0, 1, 0, 0, 1, 0])
    >>> find_shots([red, red, blue, blue])
    [range(0, 2), range(2, 4)]
    """
    cuts = [n for n, (a, b) in enumerate(pairwise(histograms), 1) if color_change(a, b) > threshold]
    return [range(first, end) for first, end in zip([0, *cuts], [*cuts, len(histograms)], strict=True)]
