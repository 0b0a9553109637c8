"""Checks of the arguments of kernels, which themselves check nothing."""

from __future__ import annotations

import numpy as np

from npstyle._typing import AnyArray, Array
from npstyle.errors import UserError

CHANNELS = 32  # several kernels take multiples of as many channels, for the widest vectors there are

# Arguments whose dtype is not that of the input.
BYTES, DOUBLES = ("mask", "argmax", "bits"), ("g", "dg", "total", "row", "products", "weights")
DTYPES = {**dict.fromkeys(BYTES, np.uint8), **dict.fromkeys(DOUBLES, np.float64), "starts": np.int64}


def check_arrays(kernel: str, x: Array, /, **arrays: tuple[AnyArray, tuple[int, ...]]) -> None:
    """Check the dtype and shape of the input x, and shape, dtype and layout of each array by its name."""
    if x.dtype not in (np.float32, np.float64):
        raise UserError(kernel, f"{x.dtype} input", "float32 or float64", "convert it with astype")
    if min(x.shape, default=0) < 1:
        raise UserError(kernel, f"an input of shape {x.shape}", "no empty dimension", "give it data")
    for name, (array, shape) in arrays.items():
        dtype = DTYPES.get(name, x.dtype)
        if array.shape != shape:
            raise UserError(
                f"{kernel}: {name}", f"shape {array.shape}", f"{shape}", "check the layer's sizes"
            )
        if array.dtype != dtype:
            raise UserError(
                f"{kernel}: {name}", f"{array.dtype}", f"{np.dtype(dtype)}", "convert it with astype"
            )
        if not array.flags.c_contiguous:
            raise UserError(
                f"{kernel}: {name}", "an array with gaps", "C order", "use numpy.ascontiguousarray"
            )


def check_channels(kernel: str, C: int, K: int) -> None:
    """Check that both numbers of channels are multiples of CHANNELS."""
    if C % CHANNELS or K % CHANNELS:
        raise UserError(kernel, f"{C} to {K} channels", f"multiples of {CHANNELS}", "use conv3x3")
