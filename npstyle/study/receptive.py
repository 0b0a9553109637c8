"""Receptive fields: which pixels an activation depends on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from npstyle.architecture import CONVOLUTIONS, LAYERS, canonical
from npstyle.images import Picture
from npstyle.study.sheet import Tile

OUTLINE_COLOR = (220, 0, 0)


class ReceptiveField(NamedTuple):
    """The pixels that a layer's activations depend on, along rows as along columns.

    Activation i depends on the pixels from first + i stride to first + i stride + size - 1, as far as the
    picture reaches.
    """

    size: int
    stride: int
    first: int

    def span(self, index: int, length: int) -> tuple[int, int]:
        """First pixel, and the one after the last, that an activation sees of a row of `length` pixels.

        Examples
        --------
        >>> receptive_field("conv2_1").span(0, 100)
        (0, 6)
        """
        start = self.first + index * self.stride
        return max(0, start), min(length, start + self.size)


def receptive_field(layer: str) -> ReceptiveField:
    """Size, stride and position of a layer's receptive fields, from the architecture alone.

    A 3 x 3 convolution adds one activation of the layer below on each side; a 2 x 2 pooling adds one at the
    end, and doubles the stride.

    Raises
    ------
    UserError
        Unknown layer.

    Examples
    --------
    >>> receptive_field("conv1_1"), receptive_field("pool1").stride, receptive_field("conv5_1").size
    (ReceptiveField(size=3, stride=1, first=-1), 2, 156)
    """
    size, stride, first = 1, 1, 0
    for name in LAYERS[: LAYERS.index(canonical(layer)) + 1]:
        if name in CONVOLUTIONS:
            size, first = size + 2 * stride, first - stride
        else:
            size, stride = size + stride, 2 * stride
    return ReceptiveField(size, stride, first)


def field_tile(picture: Picture, layer: str) -> Tile:
    """The picture (H, W, 3), faded except for the receptive field of the layer's middle activation."""
    field = receptive_field(layer)
    H, W, _ = picture.shape
    top, bottom = field.span(H // field.stride // 2, H)
    left, right = field.span(W // field.stride // 2, W)
    faded = np.asarray((picture.astype(np.uint16) + 2 * 255) // 3, np.uint8)
    faded[top:bottom, left:right] = picture[top:bottom, left:right]
    image = Image.fromarray(faded)
    # The outline runs outside: a field of 3 pixels has no room for one.
    ImageDraw.Draw(image).rectangle((left - 1, top - 1, right, bottom), outline=OUTLINE_COLOR)
    return Tile(f"{layer}: {field.size} x {field.size}, every {field.stride}", np.array(image))
