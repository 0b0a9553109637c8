"""One loss and gradient with each of `--statistics`, as a ratio to that with Gram matrices.

    python benchmarks/style_statistics.py [--sizes 128 256 512] [--repeats 7] [--threads N] [--weights FILE]

VGG19 to conv5_1 with the default recipe's layers, float32, on square pictures of noise. The statistics take
turns of one evaluation. Printed are the medians of the ratios of seconds, and the ratios of the least
processor times, which other programs on the machine disturb less. With several threads the first is larger
than the second: an eigendecomposition runs on one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import NamedTuple, get_args

import numpy as np

import npstyle
from npstyle._typing import Statistics

CHOICES: tuple[Statistics, ...] = get_args(Statistics)


class Turn(NamedTuple):
    """Seconds and processor time of one evaluation."""

    seconds: float
    processor: float


def turns(size: int, repeats: int, threads: int | None, weights: str) -> dict[Statistics, list[Turn]]:
    """So many turns of each, after one that is not counted."""
    rng = np.random.default_rng(0)
    content, style = (rng.uniform(0, 255, (size, size, 3)).astype(np.float32) for _ in range(2))
    settings = npstyle.preset("gram")
    filters = npstyle.load_weights(weights, deepest="conv5_1")
    network = npstyle.VGG19.for_settings(filters, settings, threads=threads)
    objectives = {
        name: npstyle.Objective(network, content, [style], replace(settings, statistics=name))
        for name in CHOICES
    }
    taken: dict[Statistics, list[Turn]] = {name: [] for name in CHOICES}
    for _ in range(repeats + 1):
        for name, objective in objectives.items():
            began, processor = time.perf_counter(), time.process_time()
            objective((content + style) / 2)
            taken[name].append(Turn(time.perf_counter() - began, time.process_time() - processor))
    return {name: list_of_turns[1:] for name, list_of_turns in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--weights", default="random")
    options = parser.parse_args()
    print(f"{'size':>6}  {'statistics':<14}{'seconds / gram':>16}{'processor time / gram':>24}")
    for size in options.sizes:
        taken = turns(size, options.repeats, options.threads, options.weights)
        gram = taken["gram"]
        for name, found in taken.items():
            seconds = statistics.median(a.seconds / b.seconds for a, b in zip(found, gram, strict=True))
            processor = min(a.processor for a in found) / min(b.processor for b in gram)
            print(f"{size:>6}  {name:<14}{seconds:>16.2f}{processor:>24.2f}")


if __name__ == "__main__":
    main()
