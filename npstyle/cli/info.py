"""`npstyle info`: what this installation is made of, and where the next run would get its filters."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version

from npstyle._runtime.paths import as_path
from npstyle._version import __version__
from npstyle.architecture import MIN_SIZE
from npstyle.cli.arguments import command_parser
from npstyle.cli.cache import summary
from npstyle.cli.terminal import DONE, print_out
from npstyle.errors import UserError

MAX_SIDE = 65536  # pixels; larger squares are not tried


def main(argv: list[str]) -> int:
    """Print the lines, and return the exit status."""
    command_parser("info", "Versions, kernels, BLAS, threads, weights.").parse_args(argv)
    for name, value in lines():
        print_out(f"{name + ':':<12}{value}")
    return DONE


def lines() -> Iterator[tuple[str, str]]:
    """Name and value of each line."""
    from threadpoolctl import threadpool_info

    from npstyle import _kernels
    from npstyle._runtime import threads as _threads
    from npstyle.run.saved import saved_runs
    from npstyle.weights.registry import cache_in_words

    yield "npstyle", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in ("numpy", "scipy", "pillow", "h5py"):
        yield package, version(package)
    slow = ", plain NumPy and slow (NPSTYLE_KERNELS)" if _kernels.IMPLEMENTATION == "reference" else ""
    yield "kernels", _kernels.IMPLEMENTATION + slow
    without = "not used by these kernels" if slow else "no: one thread, whatever --threads says"
    yield "vectors", _kernels.current_isa()
    yield "OpenMP", "yes" if _kernels.OPENMP else without
    cores, threads = _threads.available(), _threads.default()
    fewer = f", {threads} by default (OMP_NUM_THREADS)" if threads < min(cores, _threads.MAX_THREADS) else ""
    yield "threads", f"{cores} available{fewer}"
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            kind = f"{pool['internal_api']} {pool.get('version')} for {pool.get('architecture')}"
            yield "BLAS", f"{kind}, {pool['filepath']}"
    yield "memory", _memory()
    yield "weights", _weights()
    yield "cache", cache_in_words()
    runs = saved_runs()
    yield "saved", summary(runs) + (" (npstyle cache clear removes them)" if runs else "")


def _memory() -> str:
    """What is free, and the largest squares that the default recipe paints in it.

    In strips these are with L-BFGS in float32, which a run takes where there is too little for SciPy's.
    """
    from npstyle.cli.session import format_bytes
    from npstyle.presets import preset
    from npstyle.run import memory
    from npstyle.run.pyramid import levels

    free = memory.available_memory()
    if free is None:
        return "this system does not say what is free"
    settings = preset("default")
    plans = memory.possible_plans(settings.layers)

    def side(plan: int) -> int:
        def fits(n: int) -> bool:
            sizes = [(side, side) for side in levels(n, settings.min_size)]
            last = replace(settings, iterations=settings.level_iterations(sizes)[-1])
            last = replace(last, optimizer="lbfgs32" if plan else "lbfgs")
            return memory.run_memory_of_sizes((n, n), [(n, n)], last, plan=plan) <= free

        return memory.largest(fits, MIN_SIZE, MAX_SIDE)

    sides = {plan: side(plan) for plan in plans}
    largest = max(sides.values())
    strips = f", {largest} x {largest} in strips" if largest > sides[0] else ""
    return f"{format_bytes(free)} free, for pictures of {sides[0]} x {sides[0]} pixels{strips}"


def _weights() -> str:
    """Where the next run would get its filters, or why it would get none."""
    from npstyle.weights import find_weights
    from npstyle.weights.registry import torch_folder

    named = os.environ.get("NPSTYLE_WEIGHTS")
    if named:
        missing = "" if os.path.isfile(as_path(named)) else ": no file of that name"
        return f"{named} (NPSTYLE_WEIGHTS){missing}"
    try:
        found, tried = find_weights()
        instead, _ = (None, []) if found else find_weights([torch_folder()])
    except UserError as error:
        return str(error)
    if instead:
        return f"a download or, without a network, {instead}"
    return str(found or "none here: " + "; ".join(tried))
