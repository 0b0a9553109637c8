"""Threads: an evaluation by number of threads and size, and beside programs that keep processors busy.

    python benchmarks/scaling.py [--sizes 64 128 512 1024] [--repeats 5] [--most N] [--avx2]

The first table has 1, 2, 4, ... threads up to all processors; every count runs in a process of its own, and
they take turns, so read the ratios. The second compares an evaluation on all processors while nothing else
runs with one beside a program that computes all the time, for npstyle and, if it is installed, PyTorch.
A fair share of P processors for P threads beside one more leaves P / (P + 1) of them, so the evaluation
may take (P + 1) / P times as long; what is above that is lost waiting. A kernel that divides processors
among sessions rather than threads (Linux with autogroup) may give the other program a whole processor:
then it is P / (P - 1).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import os
import statistics
from collections.abc import Iterator

from loss_and_gradient import Worker, in_turns, ratios

PROGRAMS = ("npstyle", "PyTorch NCHW", "PyTorch channels_last")


def by_threads(size: int, counts: list[int], repeats: int, avx2: bool) -> None:
    """Print a row for each number of threads: seconds, and how many times as fast as one."""
    workers = {str(count): Worker("npstyle", size, count, avx2) for count in counts}
    in_turns(workers, repeats)
    for count, worker in workers.items():
        speedups = sorted(ratios(workers["1"], worker))
        values = f"{statistics.median(worker.seconds):.3f} | {', '.join(f'{x:.2f}' for x in speedups)}"
        print(f"| {size} x {size} | {count} | {values} |", flush=True)


def compute() -> None:
    """Keep one processor busy, in registers and the first-level cache."""
    x = 0
    while True:
        x = (x * 5 + 3) % 65536


@contextlib.contextmanager
def neighbors(count: int) -> Iterator[None]:
    """Run `count` programs that compute all the time."""
    processes = [multiprocessing.Process(target=compute, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def beside_another(size: int, repeats: int, avx2: bool) -> None:
    """Print how many times as long an evaluation takes beside one busy program, by program."""
    torch = importlib.util.find_spec("torch") is not None
    for program in PROGRAMS if torch else PROGRAMS[:1]:
        worker = Worker(program, size, None, avx2)
        worker.evaluate()
        found = []
        for _ in range(repeats):
            worker.evaluate()
            with neighbors(1):
                worker.evaluate()
            found.append(worker.seconds[-1] / worker.seconds[-2])
        worker.close()
        row = f"{min(found):.2f}, {statistics.median(found):.2f}, {max(found):.2f}"
        print(f"| {size} x {size} | {program} | {row} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 512, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--most", type=int, default=os.cpu_count() or 1, help="most threads")
    parser.add_argument("--avx2", action="store_true", help="do without AVX-512")
    options = parser.parse_args()
    counts = [2**i for i in range(options.most.bit_length())]
    print("\n| pixels | threads | seconds | times as fast as 1 thread: min, median, max |\n|---|---|---|---|")
    for size in options.sizes:
        by_threads(size, counts, options.repeats, options.avx2)
    print("\n| pixels | program | time beside one busy program / alone: min, median, max |\n|---|---|---|")
    for size in options.sizes:
        beside_another(size, options.repeats, options.avx2)


if __name__ == "__main__":
    main()
