"""How many threads the kernels use, and BLAS limited to one thread while they run.

The kernels divide their work among OpenMP threads and call BLAS from each of them. If BLAS started threads of
its own there, two pools would compete for the same cores, and rounding would depend on the number of threads.
So BLAS is limited to one thread while a kernel runs.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController

from npstyle._runtime.cgroups import control_groups, text
from npstyle.errors import check_integer

# More threads are no faster, and every thread of a kernel has a workspace of its own.
MAX_THREADS = 256
# Of GCC's OpenMP: some microseconds. With 1000 an evaluation at 256 x 256 pixels took 91 ms instead of 99
# without, and two processes side by side at 64 x 64 pixels 44 ms each instead of 40; with 5000, 94 and 63 ms.
SPIN_COUNT = "1000"


class OpenMPWarning(RuntimeWarning):
    """Kernels run on one thread where several were meant."""


def available(system: Path = Path("/")) -> int:
    """Number of cores this process may use: those of its affinity mask where the system has one, else all.

    In a container with a limit of processor time, no more than that would keep busy.
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
    """Numbers of cores that Linux's control groups (containers) allow: the process's own and all above it.

    Read once: kernels ask at every call, and a workspace has to fit the number of threads it was made for.
    """
    return frozenset(limit for group in control_groups("cpu", system) if (limit := _cpu_limit(group)))


def _cpu_limit(group: Path) -> int | None:
    """Number of cores that a control group's time would keep busy, rounded up; None without a limit.

    The limit is a quota of microseconds in every period: "150000 100000" in one file (version 2) or in two
    (version 1).
    """
    limit = text(group / "cpu.max")
    limit = limit or f"{text(group / 'cpu.cfs_quota_us')} {text(group / 'cpu.cfs_period_us')}"
    try:
        quota, period = map(int, limit.split())
    except ValueError:  # "max 100000", or no such file
        return None
    return -(-quota // period) if quota > 0 and period > 0 else None  # version 1 says -1 for no limit


def default() -> int:
    """Number of threads where none is given: every available core, but no more than OMP_NUM_THREADS says.

    Programs that start several processes set it for each, joblib and Dask among them. Of a list, which has
    a number for each level of nested parallel regions, the first one counts; what is no positive integer is
    ignored, as OpenMP does.
    """
    try:
        limit = int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])
    except ValueError:
        limit = 0
    return min(available(), limit if limit > 0 else MAX_THREADS)


# GNU's OpenMP does not survive a fork: its threads do not exist in the child, which waits for them forever.
_several_threads = False  # whether kernels have run on more than one thread in this process
_forked = False  # whether they had in a process that this one was forked from: one thread from then on
_warned_of_fork = False


def resolve(threads: int | None) -> int:
    """Number of threads for the argument of a caller: None means the `default`.

    In a process forked after a kernel has run on several threads it is 1, which OpenMPWarning says once.
    """
    number = default() if threads is None else check_integer("threads", threads, 1)
    number = min(number, MAX_THREADS)
    if number > 1 and _forked:
        _warn_of_fork()
        return 1
    return number


def resolve_to_run(threads: int | None) -> int:
    """As `resolve`, for a kernel that is about to run on so many threads."""
    global _several_threads
    number = resolve(threads)
    _several_threads = _several_threads or number > 1
    return number


def _warn_of_fork() -> None:
    global _warned_of_fork
    if not _warned_of_fork:
        _warned_of_fork = True
        warnings.warn(
            "threads: found a process that was forked after kernels had run on several threads, which OpenMP "
            'does not survive; expected one that was spawned; take multiprocessing.get_context("spawn"), or '
            "threads=1, which is what runs now",
            OpenMPWarning,
            stacklevel=4,
        )


@contextmanager
def passive_openmp_waiting() -> Iterator[None]:
    """Environment in which to load OpenMP: its threads will spin for a moment and then sleep while they wait.

    On a busy machine threads that spin take cores from those that work: two processes side by side took six
    times as long. But sleeping and waking takes longer than most waits here (docs/performance.md). OpenMP
    reads these variables once, when it is loaded, and for the whole process. Values set by the user are kept.
    """
    variables = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": SPIN_COUNT}
    if any(name in os.environ for name in variables):
        yield
        return
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


_lock = threading.RLock()  # held during a fork, so that the child finds the rest in order
_depth = 0  # blocks of `one_blas_thread` that are running
_limit: Any = None  # threadpoolctl's, while there are any
_own = threading.local()  # `depth`: as many of those blocks as run in this thread


@cache
def _controller() -> ThreadpoolController:
    # Made once: finding the loaded libraries takes milliseconds, and the kernels' BLAS is loaded by now.
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread inside the block; nested and concurrent blocks share one limit.

    It is a limit for the whole process, the only kind that BLAS libraries have.
    """
    with _lock:
        _enter_block()
    try:
        yield
    finally:
        with _lock:
            _own.depth -= 1
            _leave_blocks(1)


def _enter_block() -> None:
    global _depth, _limit
    if _depth == 0:
        _clear_controlling_thread()
        _limit = _controller().limit(limits=1, user_api="blas")
    _depth += 1
    _own.depth = getattr(_own, "depth", 0) + 1


def _leave_blocks(number: int) -> None:
    global _depth, _limit
    _depth -= number
    if _depth == 0:
        _clear_controlling_thread()
        _limit.restore_original_limits()
        _clear_controlling_thread()
        _limit = None


def _clear_controlling_thread() -> None:
    """Let any thread set or restore the limit, not only the one that set it first.

    Newer versions of threadpoolctl ignore all others, silently. Here the thread that leaves the last block
    may not be the one that entered the first.
    """
    for library in _controller().lib_controllers:
        clear = getattr(library, "clear_controlling_thread", None)
        if clear is not None:
            clear(force=True)


def _after_fork_in_child() -> None:
    """Only the thread that forked continues here: forget what others held and were doing."""
    global _lock, _forked, _warned_of_fork
    _lock = threading.RLock()
    _forked = _forked or _several_threads
    _warned_of_fork = False
    others = _depth - getattr(_own, "depth", 0)
    if others:
        _leave_blocks(others)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=lambda: _lock.acquire(),
        after_in_parent=lambda: _lock.release(),
        after_in_child=_after_fork_in_child,
    )
