"""Tables as in docs/performance.md, measured on this machine and printed in Markdown.

    python benchmarks/tables.py [--sizes 256,512,1024] [--per-pixel 256,512,1024,2048] [--repeats 5]

Takes some minutes, and 5 GB of memory at 2048. PyTorch takes part if it is installed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from datetime import date
from importlib.metadata import version
from itertools import takewhile

import layers
from loss_and_gradient import Worker, compare, in_turns, ratios
from peak import peak

from npstyle import _kernels
from npstyle._runtime import threads as _threads


def processor() -> str:
    """The processor's name, as far as the system knows it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def heading() -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    print(f"## {date.today()}, {_threads.available()} cores of {processor()}\n")
    python = f"{platform.system()}, Python {platform.python_version()}"
    print(f"{python}, {packages}; vectors: {_kernels.current_isa()}.\n")


def whole(sizes: list[int], repeats: int, threads: int | None) -> None:
    for size in sizes:
        headline, rows = compare(size, repeats, threads)
        print(f"### {headline}; threads: {threads or 'all'}\n")
        print("| | seconds | GFLOP/s | of peak | peak MB | time / npstyle: min, median, max |")
        print("|---|---|---|---|---|---|")
        for name, spent, rate, fraction, megabytes, *compared in rows:
            times = ", ".join(f"{ratio:.2f}" for ratio in compared)
            print(f"| {name} | {spent:.2f} | {rate:.0f} | {fraction:.0%} | {megabytes:.0f} | {times} |")
        print(flush=True)


def by_layer(size: int, repeats: int) -> None:
    true_peak = peak(_kernels.current_isa(), _threads.available())
    print(f"### Layers at {size} pixels with their ReLU: GFLOP/s of direct convolution, forward / backward\n")
    print(f"Fused multiply-adds in registers, the true peak: {true_peak:.0f} GFLOP/s.\n")
    print("| layer | side | C | K | sgemm | im2col | Winograd | Winograd / sgemm | of the true peak, used |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, side, C, K, sgemm, methods in layers.rows(size, repeats, None):
        columns: list[object] = [name, side, C, K, f"{sgemm:.0f}"]
        columns += [f"{there:.0f} / {back:.0f}" for _, there, back in methods]
        for there, back in (rates for method, *rates in methods if method == "Winograd"):
            shares = (layers.used(rate, true_peak) for rate in (there, back))
            columns += [f"{there / sgemm:.1f} / {back / sgemm:.1f}", " / ".join(f"{s:.0%}" for s in shares)]
        print("| " + " | ".join(map(str, columns)) + " |", flush=True)
    print()


def in_ratio(title: str, workers: dict[str, Worker], levels: dict[str, float], repeats: int) -> None:
    """Time of each worker, divided by its number of pixels, relative to the first, in turns."""
    in_turns(workers, repeats)
    first = next(iter(workers))
    print(f"### {title}\n")
    print(f"| | seconds | peak MB | relative to {first}: min, median, max |")
    print("|---|---|---|---|")
    for name, worker in workers.items():
        beside = [ratio * levels[first] / levels[name] for ratio in ratios(worker, workers[first])]
        times = ", ".join(f"{ratio:.2f}" for ratio in beside)
        print(f"| {name} | {statistics.median(worker.seconds):.2f} | {worker.megabytes:.0f} | {times} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="64,128,256,512,1024")
    parser.add_argument("--per-pixel", default="512,256,1024,2048")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    heading()
    whole([int(size) for size in options.sizes.split(",")], options.repeats, None)
    by_layer(512, options.repeats)
    sides = options.per_pixel.split(",")
    in_ratio(
        "Cost of a pixel by size",
        {f"{side} x {side}": Worker("npstyle", int(side), None) for side in sides},
        {f"{side} x {side}": float(side) ** 2 for side in sides},
        options.repeats,
    )
    cores = os.cpu_count() or 1
    counts = [str(count) for count in takewhile(lambda n: n <= cores, (2**i for i in range(9)))]
    in_ratio(
        "Threads, 512 x 512 pixels",
        {f"{count} thread{'s' * (count != '1')}": Worker("npstyle", 512, int(count)) for count in counts},
        {f"{count} thread{'s' * (count != '1')}": 1.0 for count in counts},
        options.repeats,
    )


if __name__ == "__main__":
    main()
