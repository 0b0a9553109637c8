"""The padding of convolutions: what they see beyond the picture's border.

A 3x3 convolution pads its input with zeros, which after the preprocessing are the mean color of the training
pictures. Another padding is a layer before the convolution, and the border that this adds to the feature map
is removed by a layer after it. (`FirstLayerConvReLU` can do both itself, which saves two large arrays.)

"replicate" shows conv1_1 the outermost pixels again; deeper layers see zeros. "wrap" shows all convolutions
the opposite border, so that a picture has no border at all: it is repeated without end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from npstyle._runtime.arena import Arena
from npstyle._typing import Array, Padding
from npstyle.layers import Layer, _accumulate

Shape = tuple[int, ...]


def is_padded(name: str, padding: Padding, method: str) -> bool:
    """Whether there are layers for the padding of this convolution, which it can't do itself.

    All methods pad with zeros, "first_layer" (`npstyle.fused`) with the outermost pixels, too.
    """
    return padding == "wrap" or (padding == "replicate" and name == "conv1_1" and method != "first_layer")


def padding_layers(name: str, padding: Padding, method: str, arena: Arena) -> tuple[Layer, Layer] | None:
    """The layers before and after the convolution of this name, or None where it needs none."""
    if not is_padded(name, padding, method):
        return None
    return WrapPad(arena) if padding == "wrap" else ReplicatePad(), Crop(arena)


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


class WrapPad:
    """Pad by one pixel on each side with the opposite border: y (H + 2, W + 2, C) for x (H, W, C).

    As if x were laid out in tiles: docs/convolution.md#beyond-the-border.
    """

    def __init__(self, arena: Arena | None = None) -> None:
        self.arena = arena or Arena()

    def forward(self, x: Array) -> tuple[Array, None]:
        """Padded y."""
        H, W, C = x.shape
        y: Array = self.arena.borrow((H + 2, W + 2, C), x.dtype)
        self.forward_of_rows(x, y[1:-1])
        self.forward_of_rows(x[-1:], y[:1])
        self.forward_of_rows(x[:1], y[-1:])
        return y, None

    @staticmethod
    def forward_of_rows(x: Array, y: Array) -> None:
        """Pad rows by one pixel on the left and on the right: y (h, W + 2, C) for x (h, W, C)."""
        y[:, 1:-1] = x
        y[:, 0], y[:, -1] = x[:, -1], x[:, 0]

    def backward(self, dy: Array, cache: None = None, accumulate_into: Array | None = None) -> Array:
        """dx: a pixel that was copied receives the sum of the gradients of its copies."""
        H, W, C = dy.shape
        add, dx = accumulate_into is not None, accumulate_into
        if dx is None:
            dx = _in_place_of_padded(self.arena, (H - 2, W - 2, C), dy.dtype)
        self.backward_of_rows(dy[1:-1], dy[0], dy[-1], dx, add)
        return dx

    @staticmethod
    def backward_of_rows(
        dy: Array, of_last: Array | None, of_first: Array | None, dx: Array, add: bool
    ) -> None:
        """Compute some rows of dx (h, W, C), or add to them, from the same rows of dy (h, W + 2, C).

        `of_last` and `of_first` are the rows of dy that are copies of the last row of x and of the first, for
        the last row of dx and the first; None if that is another one.
        """
        if add:
            np.add(dx, dy[:, 1:-1], out=dx)
        else:
            dx[...] = dy[:, 1:-1]
        for copy, other_side, side in ((of_last, 0, -1), (of_first, -1, 0)):
            if copy is not None:
                dx[side] += copy[1:-1]
                dx[side, -1] += copy[0]
                dx[side, 0] += copy[-1]
            dx[:, side] += dy[:, other_side]


class Crop:
    """Remove one pixel on each side, the inverse of both: y (H - 2, W - 2, C) for x (H, W, C).

    Where it is used: docs/recipe.md#what-was-tried.
    """

    def __init__(self, arena: Arena | None = None) -> None:
        self.arena = arena or Arena()

    def forward(self, x: Array) -> tuple[Array, Shape]:
        """Cropped y; cache: the shape of x."""
        H, W, C = x.shape
        y = _in_place_of_padded(self.arena, (H - 2, W - 2, C), x.dtype)
        y[...] = x[1:-1, 1:-1]
        return y, x.shape

    def backward(self, dy: Array, cache: Shape, accumulate_into: Array | None = None) -> Array:
        """dx = dy inside, 0 on the removed border."""
        dx: Array = self.arena.borrow(cache, dy.dtype)
        dx[0] = dx[-1] = dx[:, 0] = dx[:, -1] = 0
        dx[1:-1, 1:-1] = dy
        return _accumulate(dx, accumulate_into)


def _in_place_of_padded(arena: Arena, shape: Shape, dtype: DTypeLike) -> Array:
    """An array as large in the arena as a padded one, which can then have its memory when it is released."""
    H, W, C = shape
    memory: Array = arena.borrow(((H + 2) * (W + 2) * C,), dtype)
    return memory[: H * W * C].reshape(shape)
