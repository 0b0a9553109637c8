"""Results of functions, kept by what they were computed from."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

MAX_BYTES = 128e6  # a style of the default recipe at 512 pixels takes 40e6


class Memo:
    """Results with arrays in them, by the arguments that led to them; the oldest unused ones go first.

    It is for functions whose result depends on their arguments alone: who gets a kept result gets the same
    bits as if it were computed again. Threads may share a memo.

    Parameters
    ----------
    max_bytes : float
        Of the arrays in all results that are kept.

    Examples
    --------
    >>> memo, squares = Memo(), np.arange(3.0) ** 2
    >>> [memo.get(("sum", squares), lambda: (squares.sum(),)) for _ in range(2)], memo.computed
    ([(np.float64(5.0),), (np.float64(5.0),)], 1)
    """

    def __init__(self, max_bytes: float = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.computed = 0  # how often a result had to be
        self._results: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, arguments: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """The result for these arguments (arrays, and what `repr` tells apart), computed where it is new.

        The arrays in it can't be written to: others may have them, too.
        """
        key = _digest(arguments)
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                kept: T = self._results[key][0]
                return kept
        result = compute()
        arrays = list(_arrays(result))
        for array in arrays:
            array.flags.writeable = False
        self._keep(key, result, sum(array.nbytes for array in arrays))
        return result

    def _keep(self, key: bytes, result: Any, size: int) -> None:
        with self._lock:
            self.computed += 1
            if key not in self._results and size <= self.max_bytes:
                self._results[key] = result, size
                self._bytes += size
            while self._bytes > self.max_bytes:
                _, (_, oldest) = self._results.popitem(last=False)
                self._bytes -= oldest


def _digest(arguments: tuple[Any, ...]) -> bytes:
    digest = hashlib.sha256()
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            digest.update(f"{argument.dtype.str} {argument.shape} ".encode())
            digest.update(np.ascontiguousarray(argument).data)
        else:
            digest.update(repr(argument).encode())
        digest.update(b"\0")
    return digest.digest()


def _arrays(result: Any) -> Iterator[NDArray[Any]]:
    """All arrays in a result: in tuples, mappings, and attributes of objects."""
    if isinstance(result, np.ndarray):
        yield result
    elif isinstance(result, dict):
        yield from (array for value in result.values() for array in _arrays(value))
    elif isinstance(result, (tuple, list)):
        yield from (array for value in result for array in _arrays(value))
    elif hasattr(result, "__dict__"):
        yield from _arrays(vars(result))
