"""Arrays in PyTorch's and .safetensors files that are read when NumPy asks for their elements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from npstyle._typing import AnyArray

# NumPy's codes of the stored element types. bfloat16 is the upper half of a float32.
CODES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "?",
}
MAX_AXES = 8

ByteOrder = Literal["<", ">"]  # little-endian, big-endian
ReadBytes = Callable[[int, int], bytes]  # (start, size) -> that part of a storage; raises if there is none


@dataclass(frozen=True)
class Storage:
    """A one-dimensional run of elements in a file, which several tensors may share.

    Attributes
    ----------
    element_type : str
        A key of CODES, or the name of a type that can't be read.
    count : int
        Elements.
    byte_order : {"<", ">"}
    read : callable
        See ReadBytes.
    """

    element_type: str
    count: int
    byte_order: ByteOrder
    read: ReadBytes


class Tensor:
    """Shape and type of an array in a file; `numpy.asarray` reads its elements.

    Parameters
    ----------
    storage : Storage
    offset : int
        Index of the first element in the storage.
    shape, strides : sequences of int
        Strides count elements, not bytes.

    Raises
    ------
    ValueError
        An argument is of another type or out of range: they come from a file.
    """

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any) -> None:
        if not (are_sizes([offset]) and are_sizes(shape) and are_sizes(strides)):
            raise ValueError(
                f"a tensor whose offset, shape or strides are not at most {MAX_AXES} integers from 0 to 2**63"
            )
        if len(shape) != len(strides) or not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage, or with shape and strides of different lengths")
        self.storage = storage
        self.offset: int = offset
        self.shape: tuple[int, ...] = tuple(shape)
        self.strides: tuple[int, ...] = tuple(strides)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype it is read as: float32 for bfloat16, else the stored one."""
        element_type = self.storage.element_type
        if element_type not in CODES:
            raise ValueError(f"elements of the type {element_type}")
        return np.dtype("float32" if element_type == "bfloat16" else element_type)

    def transpose(self, *axes: int) -> Tensor:
        """The same elements with the axes in another order."""
        shape, strides = zip(*((self.shape[axis], self.strides[axis]) for axis in axes), strict=True)
        return Tensor(self.storage, self.offset, shape, strides)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        axes = sorted(range(len(self.shape)), key=lambda axis: (-self.strides[axis], axis))
        count = self._check_dense(axes)
        stored = np.dtype(CODES[self.storage.element_type]).newbyteorder(self.storage.byte_order)
        data = self.storage.read(self.offset * stored.itemsize, count * stored.itemsize)
        elements = np.frombuffer(data, stored, count)
        if self.storage.element_type == "bfloat16":
            elements = (elements.astype(np.uint32) << 16).view(np.float32)
        array = elements.reshape([self.shape[axis] for axis in axes]).transpose(np.argsort(axes))
        return array if dtype is None else array.astype(dtype)

    def _check_dense(self, axes: list[int]) -> int:
        """The number of elements, if these are contiguous with the axes ordered from slowest to fastest."""
        count = 1
        for axis in reversed(axes):
            if self.shape[axis] != 1 and self.strides[axis] != count:
                raise ValueError("a tensor whose elements overlap or have gaps between them")
            count *= self.shape[axis]
        if self.offset + count > self.storage.count:
            raise ValueError("a tensor that extends beyond its storage")
        return count


def are_sizes(values: Any) -> bool:
    """Whether these values from a file can be sizes or offsets: at most MAX_AXES integers from 0."""
    return (
        isinstance(values, (tuple, list))
        and len(values) <= MAX_AXES
        and all(isinstance(value, int) and 0 <= value < 2**63 for value in values)
    )
