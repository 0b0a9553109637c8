"""Kernels as 8-bit indices into a table: a PyTorch file with Keras's names of VGG19's layers.

A layer is the indices block4_conv2_W_q (K, C, 3, 3), the elements that they stand for, block4_conv2_W_table
(256,), and the bias block4_conv2_b (K,). As in Keras's file, the filters expect "caffe".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npstyle._typing import AnyArray
from npstyle.architecture import block_of
from npstyle.errors import UserError
from npstyle.weights.formats.common import check_layer
from npstyle.weights.formats.tensors import Tensor
from npstyle.weights.types import ConvWeights

BITS = 8


def is_quantized(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of such a file."""
    return f"{_prefix('conv1_1')}_W_q" in tensors


def read_layers(
    path: Path, tensors: Mapping[str, Tensor], wanted_layers: Sequence[str]
) -> dict[str, ConvWeights]:
    """Read layers; what these do not need stays unread.

    Raises
    ------
    UserError
        A layer lacks a part, or is not as in VGG19.
    """
    layers: dict[str, ConvWeights] = {}
    for name in wanted_layers:
        parts = {end: tensors.get(f"{_prefix(name)}_{end}") for end in ("W_q", "W_table", "b")}
        indices, table, bias = parts.values()
        if indices is None and table is None and bias is None:
            continue
        if indices is None or table is None or bias is None:
            missing = next(end for end, tensor in parts.items() if tensor is None)
            expected = "indices, table and bias"
            raise UserError(f"weights: {path}", f"{name} without {missing}", expected, "fetch the file again")
        if table.shape != (1 << BITS,) or len(indices.shape) != 4 or indices.dtype != np.uint8:
            found = f"{name} with indices {indices.shape} {indices.dtype} into a table {table.shape}"
            expected = f"indices (K, C, 3, 3) uint8 into a table ({1 << BITS},)"
            raise UserError(f"weights: {path}", found, expected, "fetch the file again")
        layers[name] = check_layer(path, name, _Kernel(indices, table), bias)
    return layers


def _prefix(name: str) -> str:
    """block4_conv2 for conv4_2."""
    return f"block{block_of(name)}_conv{name[6:]}"


class _Kernel:
    """Shape and type of a kernel (3, 3, C, K); `numpy.asarray` reads indices and table."""

    def __init__(self, indices: Tensor, table: Tensor) -> None:
        self._indices, self._table = indices.transpose(2, 3, 1, 0), table
        self.shape, self.dtype = self._indices.shape, table.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        indices = np.ascontiguousarray(np.asarray(self._indices))  # a quarter of the bytes to transpose
        kernel: AnyArray = np.asarray(self._table)[indices]
        return kernel if dtype is None else kernel.astype(dtype, copy=False)
