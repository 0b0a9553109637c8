"""What a picture will take, before it is painted: memory, and roughly the time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npstyle.architecture import deepest
from npstyle.errors import UserError
from npstyle.presets import preset
from npstyle.run import Request, paint
from npstyle.run.memory import (
    available_memory,
    choose_plan,
    fit_optimizer,
    largest,
    least_memory,
    run_memory,
    time_factor,
)
from npstyle.run.pyramid import level_sizes
from npstyle.run.time_left import OVERHEAD
from npstyle.studio.inputs import Inputs
from npstyle.studio.orders import Order
from npstyle.weights import load_weights

# Seconds for a pixel and an iteration, very roughly, until `measure_rate` has ended. Measured: 6.6e-6 of
# processor time with AVX-512, up to 256 pixels, on two cores.
TYPICAL_RATE = 3e-6
TRIAL_SIDE, TRIAL_ITERATIONS = 128, 4  # of the picture that `measure_rate` paints: 2 s in all on two cores


@dataclass(frozen=True)
class Estimate:
    """What a picture will take.

    Attributes
    ----------
    order : Order
        The one that was estimated; with another optimizer, if there is too little memory for that one.
    width, height, levels, iterations : int
        Of the result; and of the run.
    memory : float
        Bytes.
    free : float or None
        Bytes; None if that is not known.
    work : float
        Pixels times iterations, with an overhead for each of these.
    note : str
        What will be done in another way than it was asked for.
    """

    order: Order
    width: int
    height: int
    levels: int
    iterations: int
    memory: float
    free: float | None
    work: float
    note: str = ""

    def as_json(self, rate: float | None, trial_rate: float | None = None) -> dict[str, Any]:
        """For the page; `rate` is the seconds that a unit of work took here so far, or in a trial."""
        facts = {name: getattr(self, name) for name in ("width", "height", "levels", "iterations", "memory")}
        seconds = self.work * (rate or trial_rate or TYPICAL_RATE)
        return {
            **facts,
            "free": self.free,
            "seconds": seconds,
            "measured": rate is not None,
            "tried": trial_rate is not None,
            "note": self.note,
        }


def estimate(
    order: Order,
    sizes: Inputs[tuple[int, int]],
    threads: int | None = None,
    random: bool = False,
) -> Estimate:
    """What it takes to paint pictures of these widths and heights.

    Raises
    ------
    UserError
        They can't be painted so: too small, masks that do not fit, or too little memory.
    """
    request = order.blank_request(sizes, random)
    free = available_memory(threads)
    note = ""
    if "optimizer" not in order.options:
        fitting = fit_optimizer(request, free, threads=threads)
        if fitting is not request:
            names = ("optimizer", "maxcor")
            changes = {name: getattr(fitting.settings, name) for name in names}
            request, order = fitting, replace(order, options={**order.options, **changes})
            note = "there is too little memory for the usual optimizer: one that takes less is used"
    if free is not None and least_memory(request, threads=threads) > free:
        raise _too_large(request, free, threads)
    settings = request.settings
    plan = choose_plan(lambda plan: run_memory(request, threads=threads, plan=plan), free, settings.layers)
    levels = level_sizes(request)
    iterations = settings.level_iterations(levels)
    work = sum(n * (w * h + OVERHEAD) for (w, h), n in zip(levels, iterations, strict=True))
    return Estimate(
        order=order,
        width=levels[-1][0],
        height=levels[-1][1],
        levels=len(levels),
        iterations=sum(iterations),
        memory=run_memory(request, threads=threads, plan=plan),
        free=free,
        work=work * time_factor(plan, settings.padding, levels[-1][1]),
        note=note,
    )


def measure_rate(threads: int | None = None) -> float:
    """Seconds for a unit of `Estimate.work` on this machine: of a small picture with random filters."""
    noise = np.random.default_rng(0).uniform(0, 255, (TRIAL_SIDE, TRIAL_SIDE, 3))
    settings = replace(preset("default"), min_size=0, iterations=TRIAL_ITERATIONS)
    request = Request.read(noise, noise[::-1], settings=settings)
    ends: list[float] = []
    weights = load_weights("random", deepest=deepest(settings.layers))
    paint(request, weights, threads=threads, callback=lambda progress: ends.append(time.monotonic()))
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)  # the first one includes preparations
    return seconds / (TRIAL_SIDE**2 + OVERHEAD)


def _too_large(request: Request, free: float, threads: int | None) -> UserError:
    """The error about a size for which there is too little memory, with one that fits."""

    def fits(size: int) -> bool:
        try:
            return least_memory(request.at_size(size), threads=threads) <= free
        except (UserError, ArithmeticError):  # too small to be painted at all
            return True

    size = largest(fits, 16, max(request.result_size))
    found = f"{request.size} pixels, which take {least_memory(request, threads=threads) / 1e9:.1f} GB"
    return UserError("size", found, f"less than the {free / 1e9:.1f} GB that are free", f"try {size}")
