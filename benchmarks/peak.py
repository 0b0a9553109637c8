"""The true peak: fused multiply-adds in registers, in GFLOP/s, by instruction set and threads.

    python benchmarks/peak.py [--threads N]

It compiles `peak.c` with the C compiler of this machine (CC, or cc), GCC or Clang. A product of matrices
(sgemm) stays below this peak, and Winograd's products could not exceed it: `layers.py` divides by it. The
time is that of the processor in each thread, so other programs disturb it little.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from npstyle import _kernels
from npstyle._runtime import threads as _threads

LANES = {"avx512": 16, "avx2": 8, "plain": 4}
REPEATS = 2_000_000
TRIES = 5


@cache
def library() -> Any:
    """The compiled functions."""
    source = Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "peak.so")
        compiler = os.environ.get("CC", "cc").split()
        flags = ["-O2", "-ffp-contract=fast", "-shared", "-fPIC"]
        subprocess.run([*compiler, *flags, "-o", target, source], check=True)
        return ctypes.CDLL(str(target))


def rate(name: str) -> float:
    """GFLOP/s of one thread, the calling one: the best of some tries."""
    function = getattr(library(), f"peak_{name}")
    function.restype = ctypes.c_float
    times = []
    for _ in range(TRIES):
        began = time.thread_time()
        function(ctypes.c_long(REPEATS), ctypes.c_float(0.999))
        times.append(time.thread_time() - began)
    return 2 * 12 * LANES[name] * REPEATS / min(times) / 1e9


def peak(name: str, threads: int) -> float:
    """GFLOP/s of so many threads at the same time."""
    library()
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(rate, [name] * threads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    for name in _kernels.instruction_sets():
        for threads in sorted({1, _threads.resolve(options.threads)}):
            print(f"{name:<8}{threads:>4} thread{'s' * (threads > 1):<2}{peak(name, threads):>8.0f} GFLOP/s")


if __name__ == "__main__":
    main()
