"""The table of VGG19: which layers there are, in what order, of what sizes, and what they are called.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015,
table 1, column E, without the classifier.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from npstyle.errors import UserError

# Convolutions in each block and their channels; a pooling layer closes every block.
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


POOLING_METHODS = ("average", "max")
PADDINGS = ("zero", "replicate")
CONVOLUTION_METHODS = ("auto", "im2col", "winograd")


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
    """Name of a layer as the paper has it; `relu4_2` and Keras's `block4_conv2` are `conv4_2`.

    A layer's response is taken after its ReLU, whichever name is used.

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
    """The one of these layers that is furthest from the pixels."""
    return max(map(canonical, names), key=LAYERS.index)


def block_of(name: str) -> int:
    """Which of the five blocks a layer belongs to, from 1."""
    return int(re.sub(r"\D", "", name)[0])


def channels(name: str) -> int:
    """Channels of a layer's response."""
    return BLOCKS[block_of(name) - 1][1]


def log2_stride(name: str) -> int:
    """How often the picture has been halved when it comes to the response of a layer."""
    return block_of(name) - (name in CONVOLUTIONS)


def convolutions_up_to(name: str) -> tuple[str, ...]:
    """The convolutions needed for the response of a layer, from the pixels up."""
    layers = LAYERS[: LAYERS.index(canonical(name)) + 1]
    return tuple(layer for layer in layers if layer in CONVOLUTIONS)
