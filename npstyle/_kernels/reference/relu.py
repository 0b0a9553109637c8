"""ReLU: docs/pooling-and-relu.md#relu."""

from __future__ import annotations

import numpy as np

from npstyle._typing import Array, Bytes


def relu(x: Array, y: Array, mask: Bytes, threads: int) -> None:
    """y = max(x, 0); mask has one bit per element, x > 0. x, y (N,), mask (ceil(N / 8),)."""
    mask[...] = np.packbits(x > 0, bitorder="little")
    np.maximum(x, 0, out=y)


def relu_backward(dy: Array, mask: Bytes, dx: Array, threads: int) -> None:
    """dx = dy where x > 0, else 0. dy, dx (N,), mask (ceil(N / 8),)."""
    positive = np.unpackbits(mask, count=dy.size, bitorder="little").astype(bool)
    np.copyto(dx, dy)
    np.copyto(dx, 0, where=~positive)
