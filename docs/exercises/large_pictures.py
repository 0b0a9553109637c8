"""Exercises to docs/large-pictures.md. Notation as there; arrays are float64, unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def pixel_rows(layers: Sequence[str], row: int, H: int) -> tuple[int, int]:
    """The first and the last row of a picture of H rows that a row of the last layer's output depends on.

    `layers` are "conv" (3x3, zeros around) and "pool" (2 x 2, an odd last row dropped), from the pixels up.
    """
    raise NotImplementedError


def convolve_in_strips(convolve: Callable[[Array], Array], x: Array, rows: int) -> Array:
    """`convolve`(x) for x (H, W, C), where `convolve` is never given more than rows + 2 rows.

    It pads with zeros on all sides. `rows` is the height of a strip.
    """
    raise NotImplementedError


def gram_in_strips(strips: Sequence[Array], rows: int) -> Array:
    """G = F'F in float64, where F, in float32, comes in strips (n, C) of any heights, from the first row on.

    With the same bits whatever the strips: those of products of `rows` rows each, computed in float32, which
    are added up in float64 from the first to the last. The last one may be of fewer rows.
    """
    raise NotImplementedError
