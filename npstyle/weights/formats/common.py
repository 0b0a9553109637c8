"""What readers of all formats return, and the check of every layer that they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npstyle.architecture import CONVOLUTIONS
from npstyle.errors import UserError
from npstyle.weights.types import ConvWeights

MAX_PREPROCESSING_BYTES = 1000  # of the name of a preprocessing in a file


class Contents(NamedTuple):
    """The contents of a weights file.

    Attributes
    ----------
    layers : dict of str to ConvWeights
        Those of the layers asked for that the file has, by canonical name.
    preprocessing : str or None
        As the file or the convention of its format states it, not checked; None where neither does.
    bits : int
        Of each element of a kernel as the file has it, where these are fewer than it has as a number.
    """

    layers: dict[str, ConvWeights]
    preprocessing: str | None
    bits: int | None = None


def check_layer(path: Path, name: str, kernel: Any, bias: Any) -> ConvWeights:
    """A layer as contiguous float32 arrays, after checks of its shapes, dtypes and values, in that order.

    Parameters
    ----------
    path : Path
        Of the file, for messages.
    name : str
        The layer's canonical name.
    kernel, bias : arrays, or objects with shape, dtype and `__array__`
        The latter are read only if shapes and dtypes are right.

    Raises
    ------
    UserError
        The shapes are not those of VGG19, the elements are not floating-point numbers, or not all are finite.
    """
    C, K = CONVOLUTIONS[name]
    if tuple(kernel.shape) != (3, 3, C, K) or tuple(bias.shape) != (K,):
        raise wrong_shapes(path, name, f"kernel {tuple(kernel.shape)} and bias {tuple(bias.shape)}")
    if kernel.dtype.kind != "f" or bias.dtype.kind != "f":
        raise UserError(
            f"weights: {path}",
            f"{name} of types {kernel.dtype} and {bias.dtype}",
            "floating-point numbers",
            "take another file",
        )
    with np.errstate(over="ignore"):  # values beyond the range of float32 become infinite
        layer = ConvWeights(*(np.ascontiguousarray(array, np.float32) for array in (kernel, bias)))
    if not all(np.isfinite(array).all() for array in layer):
        raise UserError(
            f"weights: {path}", f"NaN or infinity in {name}", "finite values", "fetch the file again"
        )
    return layer


def wrong_shapes(path: Path, name: str, found: str) -> UserError:
    """The error for a layer with other arrays than VGG19 has."""
    C, K = CONVOLUTIONS[name]
    return UserError(
        f"weights: {path}",
        f"{name} with {found}",
        f"kernel (3, 3, {C}, {K}) and bias ({K},)",
        "take a file of VGG19 (weights/README.md)",
    )
