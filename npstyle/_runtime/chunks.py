"""Pictures a few rows at a time: what is computed meanwhile takes little memory, however large they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CHUNK_ELEMENTS = 1 << 18  # of a picture: a megabyte in float32, which stays in a cache


def chunks(array: Array, step: int = 1, elements: int | None = None) -> Iterator[tuple[int, int]]:
    """The rows of an array in chunks of `CHUNK_ELEMENTS`, or so many: the first, and the one after the last.

    All but the last chunk have a multiple of `step` rows.
    """
    rows = max(1, (elements or CHUNK_ELEMENTS) // max(1, step * array[:1].size)) * step
    for first in range(0, len(array), rows):
        yield first, min(first + rows, len(array))


def in_chunks(function: Callable[..., Array], *arrays: Array) -> Array:
    """The function of arrays of equal height, in chunks of their rows, if it computes each row by itself.

    Examples
    --------
    >>> in_chunks(np.add, np.ones((3, 2)), np.arange(3)[:, None])
    array([[1., 1.],
           [2., 2.],
           [3., 3.]])
    """
    result: Array | None = None
    for first, last in chunks(max(arrays, key=lambda array: array.size)):
        chunk = function(*(array[first:last] for array in arrays))
        if result is None:
            result = np.empty((len(arrays[0]), *chunk.shape[1:]), chunk.dtype)
        result[first:last] = chunk
    return function(*arrays) if result is None else result
