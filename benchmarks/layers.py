"""Each convolution of VGG19 by im2col and by Winograd, compared with the peaks of the same run.

    python benchmarks/layers.py [--size 512] [--repeats 9] [--threads N] [--instructions avx2]

Both include the ReLU. Rates are in GFLOP/s of direct convolution, so Winograd can exceed the peak. All
methods take turns. "used" is the share of the true peak (`peak.py`) that Winograd really uses: its rate,
divided by the 5.06 that F(6x6, 3x3) saves at most, and by that peak.

The two poolings are in GB/s of what they read and write.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from loss_and_gradient import LAYERS, MATRIX, sgemm
from peak import peak

from npstyle import _kernels
from npstyle._runtime import threads as _threads
from npstyle._runtime.arena import Arena
from npstyle.architecture import CONVOLUTIONS, block_of
from npstyle.fused import WinogradConvReLU
from npstyle.layers import AveragePool, Conv2D, Layer, MaxPool, ReLU

SAVED = 9 * 36 / 64  # direct multiplications for one of F(6x6, 3x3)
ROWS = tuple[str, int, int, int, float, list[tuple[str, float, float]]]


def used(rate: float, true_peak: float) -> float:
    """Share of the true peak that Winograd really uses, at this rate of direct convolution."""
    return rate / SAVED / true_peak


def passes(C: int, K: int, side: int, threads: int | None) -> dict[str, tuple[Any, Any]]:
    """Forward and backward functions of each method."""
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
    """Median time of each, in turns, after a warm-up turn."""
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
        # BLAS is limited to one thread while a kernel runs, as in VGG19; the peak is that of all threads.
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


def poolings(size: int, repeats: int, threads: int | None) -> Iterator[tuple[str, float, float]]:
    """Name, and GB/s forward and backward, of the first pooling of a picture."""
    arena = Arena()
    x = np.random.default_rng(0).standard_normal((size, size, 64)).astype(np.float32)
    dy = np.ascontiguousarray(x[::2, ::2])
    layers: list[Layer] = [AveragePool(threads, arena), MaxPool(threads, arena)]
    for layer in layers:
        _, cache = layer.forward(x)

        def forward(layer: Layer = layer) -> None:
            arena.release(layer.forward(x)[0])

        def backward(layer: Layer = layer, cache: Any = cache) -> None:
            arena.release(layer.backward(dy, cache))

        there, back = (1.25 * x.nbytes / spent / 1e9 for spent in seconds([forward, backward], repeats))
        yield type(layer).__name__, there, back


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--instructions", choices=_kernels.instruction_sets())
    options = parser.parse_args()
    _kernels.set_isa(options.instructions)
    true_peak = peak(_kernels.current_isa(), _threads.resolve(options.threads))
    print(f"{_kernels.current_isa()}, fused multiply-adds in registers: {true_peak:.0f} GFLOP/s")
    print(f"{'layer':<9}{'side':>5}{'C':>5}{'K':>5}{'sgemm':>7}   forward, backward in GFLOP/s")
    for name, side, C, K, sgemm_peak, methods in rows(options.size, options.repeats, options.threads):
        rates = "   ".join(f"{method} {there:.0f}, {back:.0f}" for method, there, back in methods)
        shares = "".join(
            f"   used {used(there, true_peak):.0%}, {used(back, true_peak):.0%}"
            for method, there, back in methods
            if method == "Winograd"
        )
        print(f"{name:<9}{side:>5}{C:>5}{K:>5}{sgemm_peak:>7.0f}   {rates}{shares}", flush=True)
    for name, there, back in poolings(options.size, options.repeats, options.threads):
        print(f"{name:<12} {there:.1f}, {back:.1f} GB/s")


if __name__ == "__main__":
    main()
