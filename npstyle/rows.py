"""Feature maps and gradients of which some rows are there: what is kept of a picture computed in strips.

`npstyle.strips` computes them, and docs/large-pictures.md has a drawing.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._runtime.chunks import chunks
from npstyle._typing import AnyArray, Bytes

Span = tuple[int, int]  # rows first ... last - 1

GROWTH = 1 << 22  # elements of an array at a time: enough for several threads


class Rows:
    """Rows first ... end - 1 of an array of `height` rows, which grows below and is dropped above.

    Parameters
    ----------
    height : int
    shape : tuple of int
        Of a row.
    whole : array, optional
        Where all rows are kept.
    first : int, optional
        Rows above this one are not needed.
    """

    def __init__(
        self,
        height: int,
        shape: tuple[int, ...],
        dtype: Any,
        arena: Arena,
        whole: AnyArray | None = None,
        first: int = 0,
    ) -> None:
        self.height, self.shape, self.dtype = height, shape, dtype
        self.first = self.end = first
        self.held = sys.maxsize  # the first row that a loss still needs; `drop` keeps it
        self._arena, self._whole, self._rows = arena, whole, whole

    @classmethod
    def of(cls, y: AnyArray, arena: Arena, first: int = 0, height: int | None = None) -> Rows:
        """All rows of an array, or some of an array that is higher."""
        rows = cls(height or len(y), y.shape[1:], y.dtype, arena, y, first)
        rows.end = first + len(y)
        return rows

    @classmethod
    def growing(cls, y: AnyArray, arena: Arena) -> Iterator[Rows]:
        """The rows of an array, some more each time, so that what is computed of them takes little memory."""
        rows = cls(len(y), y.shape[1:], y.dtype, arena, y)
        for first, last in chunks(y, elements=GROWTH):
            rows.extend(last - first)
            yield rows

    def extend(self, count: int) -> AnyArray:
        """Further rows, uninitialized."""
        if self._whole is None:
            kept = self.end - self.first
            rows = self._arena.borrow((kept + count, *self.shape), self.dtype)
            if self._rows is not None:
                rows[:kept] = self._rows
                self._arena.release(self._rows)
            self._rows = rows
        self.end += count
        return self[self.end - count, self.end]

    def __getitem__(self, span: Span) -> AnyArray:
        assert self._rows is not None
        assert self.first <= span[0] <= span[1] <= self.end, (span, self.first, self.end)
        return self._rows[span[0] - self.first : span[1] - self.first]

    def drop(self, before: int) -> None:
        """Rows before this one are not needed any more; what is left of a large array becomes a small one."""
        before = min(before, self.end, self.held)
        if self._whole is not None or before <= self.first or self._rows is None:
            return
        left: AnyArray | None = None
        if before < self.end:
            left = self._arena.borrow((self.end - before, *self.shape), self.dtype)
            left[...] = self._rows[before - self.first :]
        self._arena.release(self._rows)
        self._rows, self.first = left, before


class RepeatedRows(Rows):
    """An array that is repeated without end above and below: row -1 is the last one of the copy above."""

    def __init__(self, y: AnyArray, arena: Arena) -> None:
        super().__init__(len(y), y.shape[1:], y.dtype, arena, y, -sys.maxsize)
        self.end = sys.maxsize
        self._array = y

    def __getitem__(self, span: Span) -> AnyArray:
        first, count = span[0] % self.height, span[1] - span[0]
        if first + count <= self.height:
            return self._array[first : first + count]
        return self._array.take(np.arange(*span), axis=0, mode="wrap")


class Pieces:
    """Rows that wait for the backward pass, in the pieces that they came in."""

    def __init__(self, first: int = 0) -> None:
        self.first = self.end = first
        self._pieces: deque[tuple[int, AnyArray]] = deque()

    def push(self, rows: AnyArray) -> None:
        self._pieces.append((self.end, rows))
        self.end += len(rows)

    def rows(self, span: Span) -> AnyArray:
        first, last = span
        for start, piece in self._pieces:
            if start <= first and last <= start + len(piece):
                return piece[first - start : last - start]
        out = np.empty((last - first, *self._pieces[0][1].shape[1:]), self._pieces[0][1].dtype)
        for start, piece in self._pieces:
            a, b = max(first, start), min(last, start + len(piece))
            if a < b:
                out[a - first : b - first] = piece[a - start : b - start]
        return out

    def drop(self, before: int) -> None:
        while self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) <= before:
            self._pieces.popleft()


class PackedRows:
    """Rows of which the elements are stored whose bit is set: `_kernels.mark` says how."""

    def __init__(self, values: AnyArray, bits: Bytes, starts: AnyArray, threads: int | None) -> None:
        self.values, self._bits, self._starts, self._threads = values, bits, starts, threads
        self._parts = (len(starts) - 1) // len(bits)  # of each row

    def __len__(self) -> int:
        return len(self._bits)

    def copy_to(self, first: int, out: AnyArray) -> None:
        """Rows from `first` on, as many as `out` has."""
        last = first + len(out)
        starts = self._starts[first * self._parts : last * self._parts + 1]
        _kernels.unpack(self.values, self._bits[first:last], starts, out, self._threads)


class WholeRows:
    """Rows of which all elements are stored."""

    def __init__(self, values: AnyArray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def copy_to(self, first: int, out: AnyArray) -> None:
        out[...] = self.values[first : first + len(out)]


class Packed:
    """Rows of which only some elements are stored, and a bit for each; the others are read as 0.

    A feature map has many zeros after its ReLU, and the gradient with respect to it does not matter there.
    With an arena, elements are stored there, for a while: the heap would not shrink when they are gone.
    """

    def __init__(self, first: int = 0, arena: Arena | None = None, threads: int | None = None) -> None:
        self.end = self._taken = first
        self._pieces: deque[PackedRows | WholeRows] = deque()  # what was pushed together
        self._first = first  # of the first piece
        self._empty = np.empty if arena is None else arena.borrow
        self._threads = threads

    @property
    def dtype(self) -> Any:
        """Of the elements; there has to be a row."""
        return self._pieces[0].values.dtype

    def push(self, rows: AnyArray, F: AnyArray | None = None, positive: bool = True) -> None:
        """Further rows: their elements where F is positive, or, if not `positive`, where it is not +0.

        Without F all of them, which takes less time.
        """
        self._pieces.append(self._whole(rows) if F is None else self._packed(rows, F, positive))
        self.end += len(rows)

    def _whole(self, rows: AnyArray) -> WholeRows:
        values = self._empty(rows.shape, rows.dtype)
        values[...] = rows
        return WholeRows(values)

    def _packed(self, rows: AnyArray, F: AnyArray, positive: bool) -> PackedRows:
        count, N = len(rows), rows[0].size
        bits = np.empty((count, (N + 7) // 8), np.uint8)
        starts = np.empty(count * _kernels.packing_parts(N) + 1, np.int64)
        _kernels.mark(F, bits, starts, positive, self._threads)
        values = self._empty((int(starts[-1]),), rows.dtype)
        _kernels.pack(rows, bits, starts, values, self._threads)
        return PackedRows(values, bits, starts, self._threads)

    def copy_to(self, first: int, out: AnyArray) -> None:
        """Rows from `first` on, as many as `out` has; after the last row they begin again."""
        done = 0
        while done < len(out):
            row = self._taken + (first + done - self._taken) % (self.end - self._taken)
            start = self._first
            for piece in self._pieces:
                if row < start + len(piece):
                    break
                start += len(piece)
            count = min(start + len(piece) - row, len(out) - done)
            piece.copy_to(row - start, out[done : done + count])
            done += count

    def take(self, out: AnyArray) -> None:
        """The next rows, as many as `out` has: they are not there any longer.

        What they were stored in is let go of with the last of the rows that were pushed together.
        """
        self.copy_to(self._taken, out)
        self._taken += len(out)
        while self._pieces and self._first + len(self._pieces[0]) <= self._taken:
            self._first += len(self._pieces.popleft())

    def unpacked(self, shape: tuple[int, ...], dtype: Any, arena: Arena) -> AnyArray:
        """All rows in an array of the arena; they are stored no longer."""
        out = arena.borrow(shape, dtype)
        for first, last in chunks(out, elements=GROWTH):
            self.take(out[first:last])
        return out


class Visitor(Protocol):
    """What is done with a feature map as it is computed."""

    def visit(self, rows: Rows) -> int:
        """Called after there are new rows; returned is the first one that it still needs."""
