"""Memory for responses and gradients, used again in every evaluation.

A fresh array of tens of megabytes comes from the system as pages that are cleared one by one when they
are first touched, which costs more than pooling the array does. So the network keeps a few blocks and
hands them out again.
"""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Block = NDArray[np.uint8]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector; loads across two lines take twice as long


class Buffers:
    """Blocks of memory that are lent as arrays and given back.

    An array that is never given back is simply freed with its last reference. Giving back an array
    while it is still being read is the caller's mistake, as with any allocator.

    Examples
    --------
    >>> buffers = Buffers()
    >>> large = buffers.empty((100, 100), np.float32)
    >>> buffers.give(large)
    >>> small = buffers.empty((10, 100), np.float64)
    >>> np.shares_memory(large, small)
    True
    """

    def __init__(self) -> None:
        self._free: list[Block] = []
        self._ours: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Uninitialised array, in the smallest free block that holds it or else in a new one."""
        size = math.prod(shape) * np.dtype(dtype).itemsize + ALIGNMENT
        with self._lock:
            fitting = [block for block in self._free if block.nbytes >= size]
            if fitting:
                block = min(fitting, key=lambda block: block.nbytes)
                self._free = [other for other in self._free if other is not block]
            else:
                # What is free is too small, and was made for smaller pictures: let it go.
                self._free.clear()
                block = np.empty(size, np.uint8)
                self._ours[id(block)] = block
        return _aligned(block, shape, dtype)

    def give(self, array: NDArray[Any]) -> None:
        """Take an array back; arrays from elsewhere are left alone."""
        with self._lock:  # an id is of one object as long as that lives
            ours = self._ours.get(id(array.base))
            if ours is not None and all(block is not ours for block in self._free):
                self._free.append(ours)


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Uninitialised array of its own that begins at a cache line."""
    return _aligned(np.empty(math.prod(shape) * np.dtype(dtype).itemsize + ALIGNMENT, np.uint8), shape, dtype)


def _aligned(block: Block, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    start = -block.ctypes.data % ALIGNMENT
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return block[start : start + size].view(dtype).reshape(shape)
