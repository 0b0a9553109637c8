"""How many threads the kernels use, and BLAS kept to one thread while they do.

The kernels split their work over OpenMP threads and call BLAS from each of them. A BLAS that starts
threads of its own inside would have two pools fighting for the same cores, and would round
differently with every thread count. So it is limited to one thread as long as a kernel runs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

from npstyle.errors import whole_number

# More than this has no use, and every thread of a kernel has a buffer of its own.
MOST = 256


def available() -> int:
    """Cores that this process may use: its affinity mask where the system has one, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve(threads: int | None) -> int:
    """Thread count to use for what a caller asked: None means every core available."""
    if threads is None:
        return available()
    return min(whole_number("threads", threads, 1), MOST)


_lock = threading.Lock()
_depth = 0
_limit: Any = None


@cache
def _controller() -> ThreadpoolController:
    # Looking through the loaded libraries takes milliseconds; every kernel's BLAS is loaded by now.
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside the block; nested and concurrent blocks share one limit.

    The limit holds for the whole process, as BLAS libraries know no other kind.
    """
    global _depth, _limit
    with _lock:
        if _depth == 0:
            _limit = _controller().limit(limits=1, user_api="blas")
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _limit.restore_original_limits()
                _limit = None
