"""The strongest channels of a feature map, as gray pictures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from npstyle import images
from npstyle._typing import AnyArray, Double
from npstyle.study.sheet import Tile

WHITE_PERCENTILE = 99.5  # of a layer's positive activations; the few above it are white, too


def strongest_channels(F: AnyArray) -> NDArray[np.intp]:
    """Channels of a feature map (H, W, C) by their energy (mean square), the largest first.

    Examples
    --------
    >>> strongest_channels(np.array([[[1.0, 3.0, 2.0]]])).tolist()
    [1, 2, 0]
    """
    return np.argsort(-_energy(F), kind="stable")


def white_level(F: AnyArray) -> float:
    """The value drawn as white: the 99.5th percentile of the elements above 0; 1 if there are none."""
    positive = F[F > 0]
    return float(np.percentile(positive, WHITE_PERCENTILE)) if positive.size else 1.0


def feature_map_tiles(F: AnyArray, count: int, min_size: int = 64) -> list[Tile]:
    """The strongest channels of a feature map (H, W, C) in gray, all on one scale.

    0 is black and `white_level` white. A caption has the channel's number and its fraction of the energy.

    Parameters
    ----------
    F : (H, W, C) array
    count : int
        How many channels.
    min_size : int
        In pixels. A feature map whose longer side is shorter is enlarged by an integer factor.
    """
    level = white_level(F)
    H, W, _ = F.shape
    zoom = max(1, math.ceil(min_size / max(H, W)))
    energy = _energy(F)
    fractions = energy / (energy.sum() or 1.0)
    tiles = []
    for channel in strongest_channels(F)[:count]:
        gray = images.to_uint8(255 * (F[:, :, channel] / level))
        gray = gray.repeat(zoom, axis=0).repeat(zoom, axis=1)
        tiles.append(Tile(f"{channel}: {fractions[channel]:.1%}", np.repeat(gray[:, :, None], 3, axis=2)))
    return tiles


def _energy(F: AnyArray) -> Double:
    energy: Double = np.square(F, dtype=np.float64).mean(axis=(0, 1))
    return energy
