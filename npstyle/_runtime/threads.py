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
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController

from npstyle._runtime.cgroups import control_groups, text
from npstyle.errors import check_integer

# More than this has no use, and every thread of a kernel has a buffer of its own.
MOST = 256


def available(system: Path = Path("/")) -> int:
    """Cores that this process may use: its affinity mask where the system has one, else all.

    In a container, no more than the time it is given would keep busy.
    """
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on; PYTHON_CPU_COUNT overrides the mask
        cores = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min([cores, *cpu_limits(system)])


@cache
def cpu_limits(system: Path) -> frozenset[int]:
    """Cores that Linux's control groups (containers) allow: this process's own and all above them.

    Read once, as kernels ask at every call, and so that buffers made for a number of threads go on fitting.
    """
    return frozenset(limit for group in control_groups("cpu", system) if (limit := _cpu_limit(group)))


def _cpu_limit(group: Path) -> int | None:
    """Cores that a control group's time would keep busy, rounded up; None where it sets no limit.

    Microseconds in every so many: "150000 100000" in one file (version 2) or in two (version 1).
    """
    both = text(group / "cpu.max")
    both = both or f"{text(group / 'cpu.cfs_quota_us')} {text(group / 'cpu.cfs_period_us')}"
    try:
        quota, period = map(int, both.split())
    except ValueError:  # "max 100000", or no such file
        return None
    return -(-quota // period) if quota > 0 and period > 0 else None  # version 1 says -1 for no limit


def resolve(threads: int | None) -> int:
    """Thread count to use for what a caller asked: None means every core available."""
    if threads is None:
        return min(available(), MOST)
    return min(check_integer("threads", threads, 1), MOST)


@contextmanager
def openmp_that_sleeps() -> Iterator[None]:
    """Load OpenMP inside the block, and its threads will sleep while they wait, but for a moment at first.

    On a busy machine threads that spin keep those that work from their cores: two runs side by side took six
    times as long. But to sleep and wake takes longer than most waits here (docs/performance.md). The
    variables are read once, when the library is loaded; what the user has set stays.
    """
    ours = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": SPINS}
    if any(name in os.environ for name in ours):
        yield
        return
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


SPINS = "1000"  # of GCC's OpenMP, some microseconds

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
            _let_this_thread_decide()
            _limit = _controller().limit(limits=1, user_api="blas")
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _let_this_thread_decide()
                _limit.restore_original_limits()
                _let_this_thread_decide()
                _limit = None


def _let_this_thread_decide() -> None:
    """Free what newer versions of threadpoolctl keep for the thread that set a limit first.

    They ignore all other threads, silently. Here the last one out may be another than the first one in.
    """
    for library in _controller().lib_controllers:
        free = getattr(library, "clear_controlling_thread", None)
        if free is not None:
            free(force=True)
