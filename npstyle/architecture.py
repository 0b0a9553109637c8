"""The architecture of VGG19: its layers, their order, sizes and names, and how it may be computed.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015,
table 1, column E, without the classifier.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache
from typing import get_args

from npstyle._typing import Convolution, Padding, Pooling, Preprocessing
from npstyle.errors import UserError

# Convolutions in each block and their channels; a pooling layer ends every block.
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
MIN_SIZE = 16  # pixels on a side: in a smaller picture nothing would be left of it in block 5

PREPROCESSINGS: tuple[Preprocessing, ...] = get_args(Preprocessing)
POOLING_METHODS: tuple[Pooling, ...] = get_args(Pooling)
PADDINGS: tuple[Padding, ...] = get_args(Padding)
CONVOLUTION_METHODS: tuple[Convolution, ...] = get_args(Convolution)


def _table() -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    convolutions: dict[str, tuple[int, int]] = {}
    layers: list[str] = []
    C = 3
    for block, (count, K) in enumerate(BLOCKS, start=1):
        for index in range(1, count + 1):
            convolutions[f"conv{block}_{index}"] = (C, K)
            layers.append(f"conv{block}_{index}")
            C = K
        layers.append(f"pool{block}")
    return convolutions, tuple(layers)


CONVOLUTIONS, LAYERS = _table()
"""Channels in and out (C, K) of the 16 convolutions; names of all 21 layers, from the pixels up."""

_SYNONYMS = (
    (re.compile(r"relu([1-5]_[1-4])"), "conv{}"),
    (re.compile(r"block([1-5])_conv([1-4])"), "conv{}_{}"),
    (re.compile(r"block([1-5])_pool"), "pool{}"),
)


def canonical(name: str) -> str:
    """The paper's name of a layer; `relu4_2` and Keras's `block4_conv2` are `conv4_2`.

    Whichever name is used, a layer's feature map is its output after the ReLU.

    Raises
    ------
    UserError
        VGG19 has no such layer.

    Examples
    --------
    >>> canonical("block4_conv2")
    'conv4_2'
    """
    plain = str(name).strip()
    for pattern, form in _SYNONYMS:
        match = pattern.fullmatch(plain)
        if match:
            plain = form.format(*match.groups())
    if plain not in LAYERS:
        near = difflib.get_close_matches(plain, LAYERS, n=1)
        cure = f"did you mean {near[0]}?" if near else "take a name such as conv4_2"
        raise UserError("layer", repr(name), "conv1_1 ... conv5_4 or pool1 ... pool5", cure)
    return plain


def deepest(names: Iterable[str]) -> str:
    """The layer furthest from the pixels."""
    return max(map(canonical, names), key=LAYERS.index)


@cache  # asked for some 20 times in an evaluation
def block_of(name: str) -> int:
    """Number of the block a layer belongs to, 1 to 5."""
    return int(re.sub(r"\D", "", name)[0])


def channels(name: str) -> int:
    """Channels of a layer's feature map."""
    return BLOCKS[block_of(name) - 1][1]


def log2_stride(name: str) -> int:
    """How many poolings lie between the pixels and a layer's feature map; each halves height and width."""
    return block_of(name) - (name in CONVOLUTIONS)


def convolutions_up_to(name: str) -> tuple[str, ...]:
    """The convolutions that a layer's feature map is computed by, from the pixels up."""
    layers = LAYERS[: LAYERS.index(canonical(name)) + 1]
    return tuple(layer for layer in layers if layer in CONVOLUTIONS)


def check_size(shape: tuple[int, ...], layers: Iterable[str], name: str, cure: str = "") -> None:
    """Raise a UserError, about `name`, if a picture of this height and width is too small for the layers."""
    H, W = shape[:2]
    found = f"{W} x {H} pixels"
    if min(H, W) < MIN_SIZE:
        raise UserError(name, found, f"at least {MIN_SIZE} x {MIN_SIZE}", cure or "take a larger picture")
    for layer in sorted(layers, key=LAYERS.index):
        stride = 2 ** log2_stride(layer)
        if min(H, W) < stride:
            expected = f"at least {stride} x {stride} for layer {layer}"
            raise UserError(name, found, expected, cure or "take a larger picture or a lower layer")
