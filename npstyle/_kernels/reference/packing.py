"""Packed rows: what of a feature map or its gradient waits in strips, docs/large-pictures.md#what-waits."""

from __future__ import annotations

import numpy as np

from npstyle._typing import AnyArray, Bytes

PART = 8192  # elements of a row that the compiled kernel packs at a time


def packing_parts(N: int) -> int:
    """Parts of a row of N elements."""
    return -(-N // PART)


def mark(x: AnyArray, bits: Bytes, starts: AnyArray, positive: bool, threads: int) -> None:
    """Bits of x > 0, or of anything but +0; how many are set before each part of a row, and in all.

    x (rows, N), bits (rows, ceil(N / 8)), starts (rows * parts + 1,).
    """
    chosen = x > 0 if positive else x.view(f"u{x.itemsize}") != 0
    bits[...] = np.packbits(chosen, axis=1, bitorder="little")
    counts = [np.count_nonzero(row[i : i + PART]) for row in chosen for i in range(0, len(row), PART)]
    starts[0] = 0
    np.cumsum(counts, out=starts[1:])


def pack(x: AnyArray, bits: Bytes, starts: AnyArray, values: AnyArray, threads: int) -> None:
    """The elements of x (rows, N) whose bit is set, row by row; values (starts[-1],)."""
    parts = packing_parts(x.shape[1])
    for n, (row, of_row) in enumerate(zip(x, bits, strict=True)):
        np.take(row, _places(of_row, len(row)), out=values[starts[n * parts] : starts[(n + 1) * parts]])


def unpack(values: AnyArray, bits: Bytes, starts: AnyArray, y: AnyArray, threads: int) -> None:
    """y (rows, N) has `values` where a bit is set, and zeros elsewhere."""
    parts = packing_parts(y.shape[1])
    for n, (row, of_row) in enumerate(zip(y, bits, strict=True)):
        row[...] = 0
        row[_places(of_row, len(row))] = values[starts[n * parts] : starts[(n + 1) * parts]]


def _places(bits: Bytes, N: int) -> AnyArray:
    """Where bits are set: of booleans NumPy finds that four times as fast as of bytes."""
    return np.unpackbits(bits, count=N, bitorder="little").view(bool).nonzero()[0]
