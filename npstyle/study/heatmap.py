"""Gram matrices as heat maps, and the distance between two of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from npstyle import images
from npstyle._typing import AnyArray, Double
from npstyle.images import Picture
from npstyle.losses import gram_matrix, sum_of_squares

# From 0 to 1, in equal steps. Each color is lighter than the one before, so that the map also works in gray.
HEAT_COLORS = np.array([(0, 0, 0), (58, 15, 110), (190, 45, 75), (245, 145, 40), (255, 250, 215)], np.float64)
DECADES = 4


def heat(values: ArrayLike) -> Picture:
    """Colors (..., 3) of values from 0 (black) to 1 (almost white); values beyond are clipped.

    Examples
    --------
    >>> heat([0, 1]).tolist()
    [[0, 0, 0], [255, 250, 215]]
    """
    steps = np.arange(len(HEAT_COLORS))
    v = np.clip(np.asarray(values, np.float64), 0, 1) * steps[-1]
    return images.to_uint8(
        np.stack([np.interp(v, steps, HEAT_COLORS[:, channel]) for channel in range(3)], axis=-1)
    )


def gram_map(
    G: AnyArray, max_value: float | None = None, decades: float = DECADES, min_size: int = 256
) -> Picture:
    """A Gram matrix (C, C) as a heat map on a logarithmic scale.

    Parameters
    ----------
    G : (C, C) array
        Nonnegative, as of feature maps after a ReLU.
    max_value : float, optional
        The value with the lightest color; the largest element of G by default.
    decades : float
        Values of max_value / 10**decades and below are black.
    min_size : int
        In pixels. A smaller matrix is enlarged by an integer factor, as far as it stays within this size.
    """
    max_value = max_value or float(G.max()) or 1.0
    brightness = 1 + np.log10(np.maximum(np.asarray(G, np.float64) / max_value, 10.0**-decades)) / decades
    zoom = max(1, min_size // len(G))
    return heat(brightness.repeat(zoom, axis=0).repeat(zoom, axis=1))


def mean_gram(F: AnyArray, threads: int | None = None) -> Double:
    """G / M (C, C): the Gram matrix of a feature map (H, W, C), divided by its M = H W positions."""
    G = gram_matrix(F, threads)
    G /= F.shape[0] * F.shape[1]
    return G


def style_distance(G: Double, A: Double) -> float:
    """Squared distance of two mean Gram matrices, relative to the second: sum (G - A)^2 / sum A^2."""
    return sum_of_squares(G - A) / (sum_of_squares(A) or float(A.size))
