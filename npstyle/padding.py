"""The padding of conv1_1: what it sees beyond the picture's border.

A 3x3 convolution pads its input with zeros, which after the preprocessing are the mean color of the training
pictures. "replicate" shows conv1_1 the outermost pixels again instead: the picture is padded before the
convolution, and the border that this adds to the feature map is removed after it. Deeper layers see zeros.
"""

from __future__ import annotations

import numpy as np

from npstyle._runtime.arena import Arena
from npstyle._typing import Array, Padding
from npstyle.layers import Layer, _accumulate

Shape = tuple[int, ...]


def padding_layers(name: str, padding: Padding, arena: Arena) -> tuple[Layer, Layer] | None:
    """The layers before and after the convolution of this name, or None where it pads with zeros itself."""
    if name == "conv1_1" and padding == "replicate":
        return ReplicatePad(), Crop(arena)
    return None


class ReplicatePad:
    """Pad by one pixel on each side with copies of the border: y (H + 2, W + 2, C) for x (H, W, C).

    Why conv1_1 may be given its input like this: docs/recipe.md#what-was-tried.
    """

    def forward(self, x: Array) -> tuple[Array, None]:
        """Padded y."""
        return np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge"), None

    def backward(self, dy: Array, cache: None = None, accumulate_into: Array | None = None) -> Array:
        """dx: a pixel that was copied receives the sum of the gradients of its copies."""
        rows = dy[1:-1].copy()
        rows[0] += dy[0]
        rows[-1] += dy[-1]
        dx = rows[:, 1:-1].copy()
        dx[:, 0] += rows[:, 0]
        dx[:, -1] += rows[:, -1]
        return _accumulate(dx, accumulate_into)


class Crop:
    """Remove one pixel on each side, the inverse of `ReplicatePad`: y (H - 2, W - 2, C) for x (H, W, C).

    Where it is used: docs/recipe.md#what-was-tried.
    """

    def __init__(self, arena: Arena | None = None) -> None:
        self.arena = arena or Arena()

    def forward(self, x: Array) -> tuple[Array, Shape]:
        """Cropped y; cache: the shape of x."""
        H, W, C = x.shape
        y: Array = self.arena.borrow((H - 2, W - 2, C), x.dtype)
        y[...] = x[1:-1, 1:-1]
        return y, x.shape

    def backward(self, dy: Array, cache: Shape, accumulate_into: Array | None = None) -> Array:
        """dx = dy inside, 0 on the removed border."""
        dx: Array = self.arena.borrow(cache, dy.dtype)
        dx[0] = dx[-1] = dx[:, 0] = dx[:, -1] = 0
        dx[1:-1, 1:-1] = dy
        return _accumulate(dx, accumulate_into)
