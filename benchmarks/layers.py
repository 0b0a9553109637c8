"""Each convolution of VGG19 by im2col and by Winograd, beside the multiplication peak of the same run.

    python benchmarks/layers.py [--size 512] [--repeats 9] [--threads N]

Both ways include the ReLU. Rates are in GFLOP/s of direct convolution, so that Winograd can be above the
peak; all take turns. `floor` is what Winograd's products alone would take at that peak.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from loss_and_gradient import LAYERS, MATRIX, sgemm

from npstyle._runtime import threads as _threads
from npstyle._runtime.arena import Arena
from npstyle.architecture import CONVOLUTIONS, block_of
from npstyle.fused import WinogradConvReLU
from npstyle.layers import Conv2D, ReLU

ROWS = tuple[str, int, int, int, float, list[tuple[str, float, float]]]


def passes(C: int, K: int, side: int, threads: int | None) -> dict[str, tuple[Any, Any]]:
    """Forward and backward functions by method."""
    rng = np.random.default_rng(0)
    arena = Arena()
    x, dy = (arena.borrow((side, side, channels), np.float32) for channels in (C, K))
    x[...], dy[...] = rng.standard_normal(x.shape), rng.standard_normal(dy.shape)
    kernel = (rng.standard_normal((3, 3, C, K)) / np.sqrt(9 * C)).astype(np.float32)
    conv = Conv2D(kernel, np.zeros(K, np.float32), threads, arena)
    relu = ReLU(in_place=True, threads=threads)
    _, mask = relu.forward(conv.forward(x)[0])

    def forward() -> None:
        arena.release(relu.forward(conv.forward(x)[0])[0])

    def backward() -> None:
        arena.release(conv.backward(relu.backward(dy, mask)))

    found: dict[str, tuple[Any, Any]] = {"im2col": (forward, backward)}
    if C % 32 == 0:
        winograd = WinogradConvReLU(kernel, conv.bias, threads, arena)
        found["Winograd"] = (
            lambda: arena.release(winograd.forward(x)[0]),
            lambda: arena.release(winograd.backward(dy, mask)),
        )
    return found


def seconds(functions: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median time of each, in turns, after one to warm up."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, spent in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            if turn:
                spent.append(time.perf_counter() - began)
    return [statistics.median(spent) for spent in times]


def rows(size: int, repeats: int, threads: int | None) -> Iterator[ROWS]:
    """Layer, side, C, K, sgemm peak in GFLOP/s, and for each method its rates forward and backward."""
    multiply = sgemm(size, threads)
    seen = set()
    for name in LAYERS:
        C, K = CONVOLUTIONS[name]
        side = size // 2 ** (block_of(name) - 1)
        if (C, K, side) in seen:
            continue
        seen.add((C, K, side))
        methods = passes(C, K, side, threads)
        functions = [function for pair in methods.values() for function in pair]
        # BLAS itself is kept to one thread while a kernel runs, as in VGG19; the peak is that of all threads.
        with _threads.one_blas_thread():
            times = seconds(functions, repeats)
        (whole,) = seconds([multiply], 3)
        work = 2 * 9 * C * K * side**2 / 1e9
        rates = [work / spent for spent in times]
        yield (
            name,
            side,
            C,
            K,
            8 * 2 * MATRIX**3 / 1e9 / whole,
            [(method, *rates[2 * i : 2 * i + 2]) for i, method in enumerate(methods)],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    print(f"{'layer':<9}{'side':>5}{'C':>5}{'K':>5}{'sgemm':>7}   forward, backward in GFLOP/s")
    for name, side, C, K, peak, methods in rows(options.size, options.repeats, options.threads):
        rates = "   ".join(f"{method} {there:.0f}, {back:.0f}" for method, there, back in methods)
        print(f"{name:<9}{side:>5}{C:>5}{K:>5}{peak:>7.0f}   {rates}", flush=True)


if __name__ == "__main__":
    main()
