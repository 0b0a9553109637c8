"""An arena: memory for feature maps and gradients that is used again in every evaluation.

The system provides a new array of tens of megabytes as pages that it clears one by one when they are first
touched, which takes longer than pooling does. So a network keeps a few slabs of memory and hands out parts of
them again and again.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Slab = NDArray[np.uint8]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector; loads across two lines take twice as long
# Where arrays come and go, slabs are so large that the system gets them back: glibc keeps smaller ones in its
# heap. In one slab for many small arrays free parts meet. What was never written to takes no memory.
RETURNED_SLAB, SLAB_OF_SMALL = (1 << 25) + 4096, 1 << 28

_lock = threading.Lock()  # of all arenas: it is held for microseconds


def _after_fork_in_child() -> None:
    """Let go of what another thread held during the fork: that thread does not exist here.

    At worst the part that it was about to borrow or release is lost to its arena.
    """
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Part:
    """Bytes start ... end - 1 of a slab."""

    __slots__ = ("end", "size", "slab", "start")  # an evaluation makes some 180 of them

    def __init__(self, slab: Slab, start: int, end: int) -> None:
        self.slab, self.start, self.end = slab, start, end
        self.size = end - start


class Arena:
    """Parts of slabs that are borrowed as arrays and released again.

    An array that was not released comes back when the last reference to it, or to a view of it, is gone.
    Releasing an array that is still used is the caller's mistake, as with any allocator. Threads may share an
    arena. A copy of it, also by pickling, is a new arena without memory.

    Attributes
    ----------
    least_slab : int
        Bytes of a slab, at least, where there is so much address space.

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
        self.least_slab = 0
        self._free: list[Part] = []
        # Borrowed parts by the id of the array that all views of the part refer to.
        self._borrowed: dict[int, tuple[weakref.ref[Slab], Part]] = {}
        # Ids of such arrays that were collected as garbage, which may happen at any moment.
        self._collected: deque[int] = deque()

    def __reduce__(self) -> tuple[type[Arena], tuple[()]]:
        return Arena, ()

    def borrow(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Uninitialized array at a cache line, in the smallest free part that holds it or in a new slab."""
        length = math.prod(shape) * np.dtype(dtype).itemsize
        size = max(length + -length % ALIGNMENT, ALIGNMENT)
        with _lock:
            self._collect()
            part = None
            for free in self._free:
                if free.size >= size and (part is None or free.size < part.size):
                    part = free
            if part is None:
                self._drop_free_slabs()
                part = self._new_slab(size)
            else:
                self._free.remove(part)
            if part.size > size:
                self._free.append(Part(part.slab, part.start + size, part.end))
            part = Part(part.slab, part.start, part.start + size)
            # From a memoryview, so that views of the array refer to it and not past it to the slab.
            owner = np.frombuffer(part.slab.data, np.uint8, length, part.start)
            key = id(owner)
            self._collect()  # an array collected just now may have had the same id
            self._borrowed[key] = weakref.ref(owner, lambda _: self._collected.append(key)), part
        return owner.view(dtype).reshape(shape)

    def _new_slab(self, size: int) -> Part:
        """All of a new slab of at least so many bytes."""
        try:
            slab = aligned((max(size, self.least_slab),), np.uint8)
        except MemoryError:
            if size >= self.least_slab:
                raise
            slab = aligned((size,), np.uint8)
        return Part(slab, 0, slab.size)

    def release(self, array: NDArray[Any]) -> None:
        """Take an array back; does nothing for arrays from elsewhere or released before."""
        with _lock:
            self._collect()
            borrowed = self._borrowed.get(id(array.base))  # an id is unique while its object lives
            if borrowed is not None:
                del self._borrowed[id(array.base)]
                self._release(borrowed[1])

    def trim(self) -> None:
        """Free the slabs of which nothing is borrowed."""
        with _lock:
            self._collect()
            self._drop_free_slabs()

    @property
    def nbytes(self) -> int:
        """Size of all parts, borrowed and free."""
        with _lock:
            return sum(part.size for part in [*self._free, *(part for _, part in self._borrowed.values())])

    def _collect(self) -> None:
        """Release arrays that nobody refers to any more."""
        while self._collected:
            borrowed = self._borrowed.get(key := self._collected.popleft())
            # Otherwise it was released before, or its id now belongs to a new array.
            if borrowed is not None and borrowed[0]() is None:
                del self._borrowed[key]
                self._release(borrowed[1])

    def _release(self, part: Part) -> None:
        """Add a part to the free ones, joined with its free neighbors."""
        for free in list(self._free):
            if free.slab is part.slab and (free.end == part.start or part.end == free.start):
                self._free.remove(free)
                part = Part(part.slab, min(free.start, part.start), max(free.end, part.end))
        self._free.append(part)

    def _drop_free_slabs(self) -> None:
        """Free slabs of which nothing is borrowed: they are too small, from a smaller picture."""
        self._free = [free for free in self._free if free.size < free.slab.size]


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A new uninitialized array that begins at a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
