"""Memory for responses and gradients, used again in every evaluation.

A fresh array of tens of megabytes comes from the system as pages that are cleared one by one when they
are first touched, which costs more than pooling the array does. So the network keeps a few slabs of
memory, and hands out parts of them again and again.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Slab = NDArray[np.uint8]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector; loads across two lines take twice as long


@dataclass(frozen=True, eq=False)
class Part:
    """Bytes start ... end - 1 of a slab."""

    slab: Slab
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


class Arena:
    """Parts of slabs that are borrowed as arrays and given back.

    An array that is never given back comes back by itself with the last reference to it or to a view of
    it. Giving back an array while it is still being read is the caller's mistake, as with any allocator.

    Examples
    --------
    >>> arena = Arena()
    >>> large = arena.borrow((100, 100), np.float32)
    >>> arena.release(large)
    >>> small, other = arena.borrow((10, 100), np.float64), arena.borrow((10, 100), np.float32)
    >>> np.shares_memory(large, small), np.shares_memory(large, other), np.shares_memory(small, other)
    (True, True, False)
    """

    def __init__(self) -> None:
        self._free: list[Part] = []
        # Lent parts by the id of the array that all views of the part refer to.
        self._borrowed: dict[int, tuple[weakref.ref[Slab], Part]] = {}
        # Ids of such arrays that are gone: noted by the garbage collector, which may come at any moment.
        self._gone: deque[int] = deque()
        self._lock = threading.Lock()

    def borrow(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Uninitialized array at a cache line, in the smallest free part that holds it or in a new slab."""
        length = math.prod(shape) * np.dtype(dtype).itemsize
        size = max(length + -length % ALIGNMENT, ALIGNMENT)
        with self._lock:
            self._collect()
            part = min(
                (free for free in self._free if free.size >= size),
                key=lambda free: free.size,
                default=None,
            )
            if part is None:
                self._drop_free_slabs()
                part = Part(aligned((size,), np.uint8), 0, size)
            else:
                self._free.remove(part)
                if part.size > size:
                    self._free.append(Part(part.slab, part.start + size, part.end))
            part = Part(part.slab, part.start, part.start + size)
            # From a memoryview, so that views of the array refer to it and not past it to the slab.
            owner = np.frombuffer(part.slab.data, np.uint8, length, part.start)
            key = id(owner)
            self._collect()  # before an array that is gone, and had the same id, is forgotten
            self._borrowed[key] = weakref.ref(owner, lambda _: self._gone.append(key)), part
        return owner.view(dtype).reshape(shape)

    def release(self, array: NDArray[Any]) -> None:
        """Take an array back; arrays from elsewhere, or that were given back before, are left alone."""
        with self._lock:
            self._collect()
            borrowed = self._borrowed.get(id(array.base))  # an id is of one object as long as that lives
            if borrowed is not None:
                del self._borrowed[id(array.base)]
                self._release(borrowed[1])

    @property
    def nbytes(self) -> int:
        """Bytes held, borrowed or free."""
        with self._lock:
            return sum(part.size for part in [*self._free, *(part for _, part in self._borrowed.values())])

    def _collect(self) -> None:
        """Take back what nobody refers to any more."""
        while self._gone:
            borrowed = self._borrowed.get(key := self._gone.popleft())
            if borrowed is not None and borrowed[0]() is None:  # given back, or its id was given away again
                del self._borrowed[key]
                self._release(borrowed[1])

    def _release(self, part: Part) -> None:
        """Add a part to the free ones, joined with its free neighbors."""
        for free in [free for free in self._free if free.slab is part.slab]:
            if free.end == part.start or part.end == free.start:
                self._free = [other for other in self._free if other is not free]
                part = Part(part.slab, min(free.start, part.start), max(free.end, part.end))
        self._free.append(part)

    def _drop_free_slabs(self) -> None:
        """Forget slabs that are free from end to end: they are too small, made for smaller pictures."""
        self._free = [free for free in self._free if free.size < free.slab.size]


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Uninitialized array of its own that begins at a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
