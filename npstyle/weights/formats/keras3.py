"""The layout of Keras 3's weights: groups conv2d, conv2d_1 ... in the model's order.

Each has vars/0, the kernel, and vars/1, the bias. It is the same in .weights.h5 files and in the member of
.keras files. Layers do not go by their own names there, so that order and shapes decide. A model that is a
layer of another has such groups, one level deeper.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from npstyle.architecture import CONVOLUTIONS
from npstyle.weights.formats.hdf5 import subgroup

if TYPE_CHECKING:
    import h5py

MEMBER = "model.weights.h5"  # of a .keras file
CONVOLUTION = re.compile(r"conv2d(?:_(\d{1,6}))?", re.ASCII)
BATCH_NORMALIZATION = re.compile(r"batch_normalization(_\d+)?", re.ASCII)


def convolutions(container: h5py.Group, names: Sequence[str]) -> list[tuple[Any, Any]]:
    """Kernel and bias of each convolution in a group of layers, in the model's order.

    Empty unless the first one is like conv1_1, and where batch normalization follows every convolution.
    """
    numbers = {name: int(match[1] or 0) for name in names if (match := CONVOLUTION.fullmatch(name))}
    normalizations = sum(BATCH_NORMALIZATION.fullmatch(name) is not None for name in names)
    if not numbers or normalizations >= len(numbers):
        return []
    pairs = [_variables(container, name) for name in sorted(numbers, key=lambda name: numbers[name])]
    if pairs[0] is None or not _fits("conv1_1", pairs[0]):
        return []
    found = []
    for pair in pairs:
        if pair is None:  # a convolution without a bias is none of VGG19's
            break
        found.append(pair)
    return found


def first_mismatch(pairs: Sequence[tuple[Any, Any]]) -> tuple[str, tuple[Any, Any]] | None:
    """The first layer whose shapes are not VGG19's; what comes after its last layer is another part."""
    for name, pair in zip(CONVOLUTIONS, pairs, strict=False):
        if not _fits(name, pair):
            return name, pair
    return None


def _fits(name: str, pair: tuple[Any, Any]) -> bool:
    C, K = CONVOLUTIONS[name]
    return tuple(pair[0].shape) == (3, 3, C, K) and tuple(pair[1].shape) == (K,)


def _variables(container: h5py.Group, name: str) -> tuple[Any, Any] | None:
    """The datasets vars/0 and vars/1 of a layer, if it has just these."""
    import h5py

    layer = subgroup(container, name)
    variables = None if layer is None else subgroup(layer, "vars")
    if variables is None or set(variables) != {"0", "1"}:
        return None
    for key in variables:
        if not isinstance(variables.get(key, getlink=True), h5py.HardLink):
            return None
    kernel, bias = variables["0"], variables["1"]
    return (kernel, bias) if all(isinstance(item, h5py.Dataset) for item in (kernel, bias)) else None
