"""Losses that hold the frames of a film together, and their gradients; docs/video.md derives them.

Notation: x and c (H, W, 3) are the generated and the content picture of a frame, F and P a layer's feature
maps of them; x', c', F', P' are those of an earlier frame, whose x' is finished. Nothing of an earlier frame
depends on x, so each loss is a squared distance to a target that is known, and the gradient is that of a
square.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npstyle._typing import AnyArray, Array
from npstyle.losses import sum_of_squares

UNIT = 255.0  # gray levels: the range of pixels, in which `temporal_loss` measures


class Anchor(NamedTuple):
    """What the frame of a film is compared with, besides its content and the styles.

    Attributes
    ----------
    target : (H, W, 3) array
        What the pixels should be: the warped frame before, or `difference_target`.
    mask : (H, W) array from 0 to 1, or None
        How much that is known of each pixel: 0 where the frame before does not show it. None: 1 everywhere.
    weight : float
        Of `temporal_loss`.
    previous, previous_content : (H, W, 3) arrays or None
        x' and c', for the target F' + P - P' of the content layers' feature maps.
    feature_weight : float
        Of the distance to it, in the units of the content loss.
    """

    target: AnyArray
    mask: AnyArray | None = None
    weight: float = 0.0
    previous: AnyArray | None = None
    previous_content: AnyArray | None = None
    feature_weight: float = 0.0


def temporal_loss(x: Array, target: AnyArray, mask: AnyArray | None, scale: float) -> tuple[float, Array]:
    """Mean squared distance of the pixels to a target t where m, the mask (H, W), is 1.

        L = scale / N . sum m (x - t)^2        dL/dx = 2 scale / N . m (x - t)        N = 3 H W

    x and t in parts of 255 gray levels. Ruder, Dosovitskiy, Brox, "Artistic Style Transfer for Videos", GCPR
    2016, with t the warped frame before: docs/video.md.
    """
    difference = np.subtract(x, target, dtype=x.dtype)
    weighted = difference if mask is None else difference * np.asarray(mask, x.dtype)[:, :, None]
    factor = scale / (x.size * UNIT**2)
    if mask is None:
        value = factor * sum_of_squares(difference)
    else:
        value = factor * float(np.vdot(weighted.astype(np.float64), difference))
    return value, 2 * factor * weighted


def difference_target(previous: AnyArray, now: AnyArray, before: AnyArray) -> AnyArray:
    """x' + c - c', with which (x - x') - (c - c') is the difference of x; of feature maps F' + P - P'.

    The change of the picture should be the change of what it shows: docs/video.md.
    """
    return np.asarray(previous + (now - before))


def joined_target(P: Array, a: float, Q: Array, b: float) -> tuple[AnyArray, float, float]:
    """One target for the content loss to P and that to Q, with factors a and b: the target, factor, constant.

        a/2 |F - P|^2 + b/2 |F - Q|^2  =  (a + b)/2 |F - T|^2 + constant
        T = (a P + b Q) / (a + b)         constant = a b / (2 (a + b)) . |P - Q|^2

    So two losses take the time of one. See docs/video.md.
    """
    total = a + b
    T = np.asarray(P + (b / total) * (Q - P), P.dtype)
    return T, total, a * b / (2 * total) * sum_of_squares(P - Q)
