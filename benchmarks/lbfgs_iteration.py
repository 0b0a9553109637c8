"""An iteration of L-BFGS in float32 beside one of SciPy's: what each takes for itself, without evaluations.

    python benchmarks/lbfgs_iteration.py [--size 512] [--iterations 25] [--maxcor 10] [--repeats 3]

On a quadratic of size x size x 3 variables, after as many iterations as there are pairs. Both take turns.
Shown is the time that passes, and that of all cores together, which other programs do not lengthen.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle.lbfgs import lbfgsb
from npstyle.lbfgs32 import Lbfgs32

Array = NDArray[Any]


class Cost(NamedTuple):
    """Of an iteration, without its evaluations: seconds that pass, and seconds of all cores together."""

    wall: float
    cpu: float


class Quadratic:
    """1/2 sum curvature (x - goal)^2 in float32, and a clock that stands still while it is evaluated."""

    def __init__(self, n: int) -> None:
        self.curvature = np.geomspace(1, 1e4, n, dtype=np.float32)
        self.goal = np.random.default_rng(0).uniform(0, 255, n).astype(np.float32)
        self.wall = self.cpu = 0.0

    def __call__(self, x: Array) -> tuple[float, Array]:
        wall, cpu = time.perf_counter(), time.process_time()
        d = x.astype(np.float32) - self.goal
        gradient = self.curvature * d
        value = 0.5 * float(np.sum(gradient * d, dtype=np.float64))
        result = value, gradient if x.dtype == np.float32 else gradient.astype(np.float64)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return result

    def clocks(self) -> Cost:
        """Time so far outside of evaluations."""
        return Cost(time.perf_counter() - self.wall, time.process_time() - self.cpu)


def costs(minimizer: Callable[[Array], Any], n: int, first: int, iterations: int) -> list[Cost]:
    """Of each iteration after the first ones."""
    quadratic = Quadratic(n)
    run = minimizer(np.full(n, 128.0, np.float32))
    if isinstance(run, Lbfgs32):
        run.begin(*quadratic(run.state["x"]))
    ends: list[Cost] = []
    run.run(quadratic, lambda x, value: ends.append(quadratic.clocks()), first + iterations)
    pairs = zip(ends[first - 1 :], ends[first:], strict=False)
    return [Cost(after.wall - before.wall, after.cpu - before.cpu) for before, after in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=25)
    parser.add_argument("--maxcor", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    n, maxcor = 3 * options.size**2, options.maxcor
    minimizers: dict[str, Callable[[Array], Any]] = {
        "lbfgs, SciPy's in float64": lambda start: lbfgsb(start, maxcor),
        "lbfgs32": lambda start: Lbfgs32(start, maxcor, options.threads),
    }
    found: dict[str, list[Cost]] = {name: [] for name in minimizers}
    for _ in range(options.repeats):
        for name, minimizer in minimizers.items():
            found[name] += costs(minimizer, n, maxcor + 2, options.iterations)
    print(f"{n} variables, {maxcor} pairs: an iteration without its evaluations, medians\n")
    print("| optimizer | ms | least ms | ms of all cores | ms / lbfgs |\n|---|---|---|---|---|")
    medians = {name: statistics.median(cost.wall for cost in many) for name, many in found.items()}
    reference = next(iter(medians.values()))
    for name, many in found.items():
        least, cpu = min(cost.wall for cost in many), statistics.median(cost.cpu for cost in many)
        figures = f"{1e3 * medians[name]:.1f} | {1e3 * least:.1f} | {1e3 * cpu:.1f}"
        print(f"| {name} | {figures} | {medians[name] / reference:.2f} |")


if __name__ == "__main__":
    main()
