"""One loss and gradient: VGG19 to conv5_1, the paper's six layers, average pooling, float32.

    python benchmarks/loss_and_gradient.py [--size 512] [--repeats 7] [--threads N] [--avx2]

Every program runs in a process of its own, so that its peak memory can be told apart, and they take turns
of a second or one evaluation, so that each repeat compares them under the same load: read the ratios, not
the seconds. PyTorch takes part if it is installed. The peak is that of NumPy's sgemm, measured in the same
turns. With --avx2 all programs do without AVX-512, as on a processor that has none; PyTorch's bfloat16, which
then takes a hundred times as long, is left out.

For asv: `Evaluation` has time_ and peakmem_ methods.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from npstyle import _kernels
from npstyle._typing import Convolution
from npstyle.architecture import CONVOLUTIONS, block_of

CONTENT_LAYER = "conv4_2"
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
LAYERS = list(CONVOLUTIONS)[: list(CONVOLUTIONS).index("conv5_1") + 1]
MATRIX = 2048
TURN = 1.0  # minimum seconds of work in each turn
# Keeps NumPy's and SciPy's OpenBLAS, PyTorch and its libraries from AVX-512; npstyle: `work`.
WITHOUT_AVX512 = {
    "OPENBLAS_CORETYPE": "Zen",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def gflop(size: int) -> float:
    """Billions of operations of direct convolution, forward and backward to the pixels."""
    total = 0
    for name in LAYERS:
        C, K = CONVOLUTIONS[name]
        side = size // 2 ** (block_of(name) - 1)
        total += 2 * 2 * 9 * C * K * side**2
    return total / 1e9


def pictures(size: int) -> tuple[Any, Any, Any]:
    """Content, style, and a picture between them."""
    rng = np.random.default_rng(0)
    content, style = (rng.uniform(0, 255, (size, size, 3)).astype(np.float32) for _ in range(2))
    return content, style, (content + style) / 2


def npstyle_evaluation(
    size: int, threads: int | None, convolution: Convolution = "auto"
) -> Callable[[], Any]:
    """A function that computes loss and gradient once with npstyle."""
    import npstyle

    content, style, x = pictures(size)
    weights = npstyle.load_weights("random", deepest="conv5_1")
    settings = npstyle.preset("paper")
    network = npstyle.VGG19.for_settings(weights, settings, convolution, threads)
    objective = npstyle.Objective(network, content, [style], settings)
    return lambda: objective(x)


def torch_evaluation(
    size: int, threads: int | None, channels_last: bool, bfloat16: bool = False
) -> Callable[[], Any]:
    """The same work as PyTorch's users write it; with bfloat16, under autocast."""
    import torch
    from torch.nn import functional

    import npstyle

    if threads:
        torch.set_num_threads(threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    weights = npstyle.load_weights("random", deepest="conv5_1")
    filters = {
        name: (
            torch.tensor(weights[name].kernel.transpose(3, 2, 0, 1).copy()).to(memory_format=layout),
            torch.tensor(weights[name].bias),
        )
        for name in LAYERS
    }
    mean = torch.tensor([103.939, 116.779, 123.68])

    def feature_maps(x: Any) -> dict[str, Any]:
        x = (x.flip(-1) - mean).permute(2, 0, 1)[None].contiguous(memory_format=layout)
        maps = {}
        for name in LAYERS:
            if name.endswith("_1") and block_of(name) > 1:
                x = functional.avg_pool2d(x, 2)
            x = functional.relu(functional.conv2d(x, *filters[name], padding=1))
            if name in STYLE_LAYERS or name == CONTENT_LAYER:
                maps[name] = x
        return maps

    def mean_gram(x: Any) -> Any:
        flat = x.flatten(2)[0]
        return flat @ flat.T / flat.shape[1]

    content, style, start = (torch.tensor(picture) for picture in pictures(size))
    precision = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
    with torch.no_grad(), precision:
        P = feature_maps(content)[CONTENT_LAYER]
        A = {name: mean_gram(x) for name, x in feature_maps(style).items() if name in STYLE_LAYERS}

    def evaluate() -> Any:
        x = start.clone().requires_grad_()
        with precision:
            F = feature_maps(x)
            loss = 1e-3 * 0.5 * (F[CONTENT_LAYER] - P).square().sum()
            for name in STYLE_LAYERS:
                scale = 1 / 5 / (4 * A[name].shape[0] ** 2)
                loss = loss + scale * (mean_gram(F[name]) - A[name]).square().sum()
        loss.backward()
        return loss.item(), x.grad

    return evaluate


def sgemm(size: int, threads: int | None) -> Callable[[], Any]:
    """One product of two square matrices, with NumPy's BLAS."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    a, b = (np.random.default_rng(0).random((MATRIX, MATRIX), np.float32) for _ in range(2))
    return lambda: [a @ b for _ in range(8)]


PROGRAMS: dict[str, Callable[[int, int | None], Callable[[], Any]]] = {
    "sgemm": sgemm,
    "npstyle": npstyle_evaluation,
    "npstyle im2col": lambda size, threads: npstyle_evaluation(size, threads, "im2col"),
    "PyTorch NCHW": lambda size, threads: torch_evaluation(size, threads, channels_last=False),
    "PyTorch channels_last": lambda size, threads: torch_evaluation(size, threads, channels_last=True),
    "PyTorch bfloat16": lambda size, threads: torch_evaluation(size, threads, True, bfloat16=True),
}


class Worker:
    """A program in a process of its own, which takes a turn on request."""

    def __init__(self, program: str, size: int, threads: int | None, avx2: bool = False) -> None:
        command = [sys.executable, __file__, "--size", str(size), "--worker", program]
        if threads:
            command += ["--threads", str(threads)]
        if avx2:
            command.append("--avx2")
        environment = {**os.environ, **(WITHOUT_AVX512 if avx2 else {})}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.seconds: list[float] = []
        self.megabytes = 0.0

    def evaluate(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.seconds.append(answer["seconds"])
        self.megabytes = answer["megabytes"]

    def close(self) -> None:
        self.process.communicate()


def work(program: str, size: int, threads: int | None) -> None:
    """Be a worker: take a turn for each line of standard input.

    A turn lasts at least TURN seconds, as a run makes hundreds of evaluations. The first of several is not
    counted: it finds the caches as another program left them.
    """
    evaluate = PROGRAMS[program](size, threads)
    for _ in sys.stdin:
        times: list[float] = []
        while sum(times) < TURN:
            began = time.perf_counter()
            evaluate()
            times.append(time.perf_counter() - began)
        seconds = statistics.mean(times[1:] or times)
        print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes()}), flush=True)


def peak_megabytes() -> float:
    """Peak resident memory of this process."""
    try:
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith("VmHWM"))
            return int(line.split()[1]) / 1024
    except (OSError, StopIteration):  # not Linux; the peak may include the parent's
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_turns(workers: dict[str, Worker], repeats: int) -> None:
    """One turn of each after the other, `repeats` times, after a warm-up turn."""
    for turn in range(repeats + 1):
        for worker in workers.values():
            worker.evaluate()
            if turn == 0:
                worker.seconds.clear()
    for worker in workers.values():
        worker.close()


def ratios(theirs: Worker, ours: Worker) -> tuple[float, float, float]:
    """Minimum, median and maximum of the ratio of times in each turn."""
    found = sorted(their / our for their, our in zip(theirs.seconds, ours.seconds, strict=True))
    return found[0], statistics.median(found), found[-1]


def compare(
    size: int, repeats: int, threads: int | None, avx2: bool = False
) -> tuple[str, list[tuple[Any, ...]]]:
    """A headline, and a row for each program that is installed.

    Name, seconds, GFLOP/s of direct convolution, fraction of the sgemm peak, peak MB, and time / npstyle.
    """
    torch = importlib.util.find_spec("torch") is not None
    workers = {
        name: Worker(name, size, threads, avx2)
        for name in PROGRAMS
        if (torch or not name.startswith("PyTorch")) and not (avx2 and name == "PyTorch bfloat16")
    }
    in_turns(workers, repeats)
    peak = 8 * 2 * MATRIX**3 / 1e9 / statistics.median(workers.pop("sgemm").seconds)
    floor = gflop(size) / 4 / peak
    headline = (
        f"{size} x {size} pixels, {gflop(size):.0f} GFLOP; sgemm peak {peak:.0f} GFLOP/s; "
        f"a quarter of the multiplications at that: {floor:.2f} s"
    )
    rows = []
    for name, worker in workers.items():
        seconds = statistics.median(worker.seconds)
        rate = gflop(size) / seconds
        rows.append((name, seconds, rate, rate / peak, worker.megabytes, *ratios(worker, workers["npstyle"])))
    return headline, rows


def show(headline: str, rows: list[tuple[Any, ...]]) -> None:
    """Print a comparison."""
    print(headline)
    columns = f"{'seconds':>8}{'GFLOP/s':>9}{'of peak':>9}{'peak MB':>9}"
    print(f"{'':<22}{columns}   time / npstyle: min, median, max")
    for name, seconds, rate, fraction, megabytes, low, middle, high in rows:
        print(
            f"{name:<22}{seconds:>8.2f}{rate:>9.0f}{fraction:>9.0%}{megabytes:>9.0f}"
            f"{low:>16.2f}{middle:>9.2f}{high:>9.2f}"
        )


class Evaluation:
    """The same for asv."""

    params = (256, 512)
    param_names = ("size",)

    def setup(self, size: int) -> None:
        self.evaluate = npstyle_evaluation(size, None)

    def time_evaluation(self, size: int) -> None:
        self.evaluate()

    def peakmem_evaluation(self, size: int) -> None:
        self.evaluate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--avx2", action="store_true", help="do without AVX-512")
    parser.add_argument("--worker", choices=PROGRAMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        if options.avx2:
            _kernels.set_isa("avx2")
        work(options.worker, options.size, options.threads)
    else:
        show(*compare(options.size, options.repeats, options.threads, options.avx2))


if __name__ == "__main__":
    main()
