"""How much memory a run needs, and how much is available.

The arrays of a run are few and known: the feature maps of two neighboring layers, the gradients of the
losses that wait for the backward pass, a bit for each element rectified, the convolutions' workspace, and
what the optimizer stores. They are added up here, as `VGG19`, `Objective` and `stylize` allocate them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle import _kernels
from npstyle._runtime.cgroups import control_groups, text
from npstyle._runtime.threads import resolve
from npstyle._typing import Convolution, Padding
from npstyle.architecture import (
    CONVOLUTIONS,
    LAYERS,
    MIN_SIZE,
    block_of,
    channels,
    convolutions_up_to,
    deepest,
    log2_stride,
)
from npstyle.errors import UserError
from npstyle.fused import method_of
from npstyle.optimize import optimizer_bytes, stored_bytes, with_possible_optimizer
from npstyle.padding import is_padded
from npstyle.plans import ALL_BLOCKS, divided, possible_plans
from npstyle.rows import GROWTH
from npstyle.run.inputs import Request
from npstyle.run.pyramid import level_sizes
from npstyle.run.strip_memory import PACKED, WORKSPACES, joins_pooling, strips_memory
from npstyle.settings import Settings
from npstyle.vgg import NetworkSettings

Size = tuple[int, int]  # width, height

# By how much the resident memory of runs grew, relative to the sum below without this factor: 0.93 to 1.08,
# for all optimizers, colors and masks, one level and several, with strips and without; 0.6 to 1.1 megapixels.
SAFETY_FACTOR = 1.05
# What they grow by besides their arrays: threads, BLAS, parts of libraries.
LIBRARY_BYTES = 20e6
# By statistics: matrices (C, C) that every style target keeps in each layer, and that one layer's loss takes,
# LAPACK's copies among them.
MATRICES = {"gram": (1, 2), "gram+moments": (2, 6), "wasserstein": (2, 14)}
# Where the padding wraps, arrays with and without a border follow each other, which leaves gaps in the arena.
GAPS = 1.1
# L-BFGS stores so many pairs where there is too little memory for as many as are asked for.
FEWER_PAIRS = (5, 3)
# Of an evaluation with each plan, relative to none (docs/large-pictures.md#time-and-memory).
TIME_FACTORS = {0: 1.0, 1: 1.1, 2: 1.2, 3: 1.3, ALL_BLOCKS: 1.8}
# Where the padding wraps, rows around the picture are computed, too: what that takes, in rows of it without
# a plan (docs/large-pictures.md#a-picture-without-a-border).
ROWS_AROUND = {0: 0, 1: 2, 2: 40, 3: 350, ALL_BLOCKS: 1300}
BLAS_BUFFER = 64e6  # bytes a thread, rounded up: OpenBLAS takes 32 MiB, and a stack has 8


def run_memory(
    request: Request, convolution: Convolution = "auto", threads: int | None = None, plan: int = 0
) -> float:
    """Bytes that a run will need at most, in addition to what Python and its pictures occupy already.

    That is at its last level, or at a smaller one with more iterations, for which L-BFGS stores more pairs.

    Parameters
    ----------
    request : Request
    convolution, threads
        See `VGG19`.
    plan : int
        See `Objective`.
    """
    sizes = level_sizes(request)
    largest = dict(zip(request.settings.level_iterations(sizes), sizes, strict=True))
    return max(level_memory(request, size, convolution, threads, plan) for size in largest.values())


def level_memory(
    request: Request, size: Size, convolution: Convolution, threads: int | None, plan: int
) -> float:
    """`run_memory` of a level of this size, (width, height)."""
    sizes = level_sizes(request)
    iterations = dict(zip(sizes, request.settings.level_iterations(sizes), strict=True))[size]
    settings = replace(request.settings, iterations=iterations)
    styles, masks = request.style_sizes(*size), bool(request.content_masks)
    network = run_memory_of_sizes(size, styles, settings, convolution, threads, masks, plan)
    return network + SAFETY_FACTOR * picture_bytes(request, size)


def checkpoint_bytes(request: Request) -> float:
    """Bytes of the largest checkpoint that a run writes; see `npstyle.run.checkpoint`."""
    sizes = level_sizes(request)
    numbers = request.settings.level_iterations(sizes)
    stored = (
        stored_bytes(with_possible_optimizer(replace(request.settings, iterations=n), w * h), w * h)
        for (w, h), n in zip(sizes, numbers, strict=True)
    )
    return max(stored)


def picture_bytes(request: Request, size: Size) -> float:
    """Bytes of the pictures and masks of a level of this size, (width, height), and of the one before."""
    W, H = size
    gray = request.settings.color == "luminance"
    content = _copies(request.content, size, gray)
    styles = sum(
        _copies(style, at, gray or request.settings.color == "match")
        for style, at in zip(request.styles, request.style_sizes(*size), strict=True)
    )
    # Masks are resized in float32 and converted to float64; conv1_1 needs one in float32, too.
    masks = len(request.content_masks) * (4 + 8 + 4) * H * W
    keep = 0 if request.keep is None else 2 * 4 * H * W
    below = [area for area in (w * h for w, h in level_sizes(request)) if area < H * W]
    return content + styles + masks + keep + 4 * 3 * max(below, default=0)


def _copies(picture: NDArray[Any], size: Size, changed: bool) -> float:
    """Bytes of a level's copies of a picture: one of this size, (width, height), and the objective's."""
    W, H = size
    element = 1 if picture.dtype == np.uint8 and not changed else 4
    own = changed or picture.shape[:2] != (H, W)
    return element * 3 * W * H * (1 + own)


def with_less_memory(request: Request) -> Iterator[Request]:
    """The request with optimizers that take less memory, from the most to the least.

    Adam is not among them: it takes about as much as L-BFGS with three pairs, and comes to another picture.
    """
    if request.settings.optimizer == "lbfgs":
        request = replace(request, settings=replace(request.settings, optimizer="lbfgs32"))
        yield request
    for pairs in FEWER_PAIRS:
        if request.settings.optimizer == "lbfgs32" and pairs < request.settings.maxcor:
            yield replace(request, settings=replace(request.settings, maxcor=pairs))


def fit_optimizer(
    request: Request, free: float | None, convolution: Convolution = "auto", threads: int | None = None
) -> Request:
    """The request with the first optimizer of `with_less_memory` that fits; as it is, if it fits itself.

    If none does, the first of them; it is as it is, too, where nothing takes less, or `free` is not known.
    """
    if free is None or least_memory(request, convolution, threads) <= free:
        return request
    possible = list(with_less_memory(request))
    fitting = (one for one in possible if least_memory(one, convolution, threads) <= free)
    return next(fitting, possible[0] if possible else request)


def choose_plan(bytes_with: Callable[[int], float], available: float | None, layers: Iterable[str]) -> int:
    """The fastest plan that needs no more than the available bytes; if there is none, that of the fewest.

    Parameters
    ----------
    bytes_with : callable
        Bytes that are needed with a plan.
    available : float or None
        Unknown, if None: then none is needed.
    layers
        Of the settings.
    """
    possible = possible_plans(layers)
    if available is None:
        return 0
    needed = {plan: bytes_with(plan) for plan in possible}
    fitting = (plan for plan in possible if needed[plan] <= available)
    return next(fitting, min(possible, key=lambda plan: needed[plan]))


def least_memory(request: Request, convolution: Convolution = "auto", threads: int | None = None) -> float:
    """`run_memory` with the plan that needs the least."""
    plans = possible_plans(request.settings.layers)
    return min(run_memory(request, convolution, threads, plan) for plan in plans)


def time_factor(plan: int, padding: Padding, H: int) -> float:
    """About how long an evaluation of a picture of H rows takes with a plan, relative to none."""
    return TIME_FACTORS[plan] + (ROWS_AROUND[plan] / H if padding == "wrap" else 0)


def plan_in_words(plan: int, padding: Padding, H: int) -> str:
    """As "blocks 1 to 2 in strips, about 1.2 times the time"; nothing without a plan."""
    if not plan:
        return ""
    blocks = {1: "block 1", ALL_BLOCKS: "all blocks"}.get(plan, f"blocks 1 to {plan}")
    return f"{blocks} in strips, about {time_factor(plan, padding, H):.2g} times the time"


def as_bytes(memory: float | str) -> float:
    """Bytes, of a number of them or of words such as "8GB" and "500 MB"."""
    words = f"{memory:.0f}" if isinstance(memory, (int, float)) else str(memory)
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kMGT]?)(i?)B?\s*", words, re.IGNORECASE)
    number = float(match[1]) if match else 0.0
    if not match or not number:
        raise UserError("memory", repr(memory), "a size such as 8GB or 500MB", "give one")
    return float(number * (1024 if match[3] else 1000) ** " kmgt".index(match[2].lower() or " "))


def run_memory_of_sizes(
    content_size: Size,
    style_sizes: Iterable[Size],
    settings: Settings,
    convolution: Convolution = "auto",
    threads: int | None = None,
    masks: bool = False,
    plan: int = 0,
) -> float:
    """`run_memory` of a level with pictures of these sizes, (width, height), without those pictures.

    `masks` is whether there are pairs of regions, `plan` see `Objective`.
    """
    W, H = content_size
    threads, layers = resolve(threads), settings.layers
    settings = with_possible_optimizer(settings, H * W)
    # The best picture is there as well. But the point, and the gradient that an evaluation returns, are
    # counted twice where the optimizer stores them as they are, in float32; and in strips, two of the four
    # arrays of pixels that are counted for an evaluation are not there in a run.
    arrays = (1 if settings.optimizer == "lbfgs" else -1) - (2 if plan else 0)
    run = float(optimizer_bytes(settings, H * W) + arrays * 4 * 3 * H * W)
    run += objective_bytes(H, W, settings, convolution, threads, plan)
    targets = [
        evaluation_memory(h, w, layers, convolution, threads, False, settings, plan) for w, h in style_sizes
    ]
    weights = 4 * sum(9 * prod(CONVOLUTIONS[name]) for name in convolutions_up_to(deepest(layers)))
    copies = 2 if convolution == "im2col" else 1  # im2col also stores the kernels of the backward pass
    masked = 3 * _largest_feature_map(H, W, settings.effective_style_weights) if masks and not plan else 0.0
    run += masked + statistics_bytes(settings, len(targets))
    return SAFETY_FACTOR * (LIBRARY_BYTES + copies * weights + max([run, *targets]))


def objective_bytes(
    H: int, W: int, settings: Settings, convolution: Convolution, threads: int, plan: int
) -> float:
    """Bytes of an `Objective`: its content targets, and one loss and gradient."""
    layers = settings.layers
    evaluation = evaluation_memory(H, W, layers, convolution, threads, True, settings, plan)
    content = settings.effective_content_weights
    targets = sum(4.0 * (H * W >> 2 * log2_stride(name)) * channels(name) for name in content)
    # Where a layer has both losses, the gradient of the second one is added to that of the first.
    both = [] if plan else [name for name in content if name in settings.effective_style_weights]
    return evaluation + targets * (PACKED if plan else 1) + _largest_feature_map(H, W, both)


def statistics_bytes(settings: Settings, targets: int) -> float:
    """Bytes of the (C, C) matrices of the style loss, in float64: those kept, and those of one evaluation."""
    squares = [8.0 * channels(name) ** 2 for name in settings.effective_style_weights]
    kept, working = MATRICES[settings.statistics]
    return kept * targets * sum(squares) + working * max(squares, default=0.0)


def normalization_memory(sizes: Iterable[Size], layers: Iterable[str], threads: int | None = None) -> float:
    """Bytes that `npstyle.initialize.normalize_network` takes over pictures of these sizes, one by one.

    `layers` are those of the weights, which are there twice in the end, and a kernel in float64 meanwhile.
    """
    layers, threads = list(layers), resolve(threads)
    kernels = [9.0 * prod(CONVOLUTIONS[name]) for name in layers]
    walks = [evaluation_memory(h, w, layers, "auto", threads, backward=False) for w, h in sizes]
    return SAFETY_FACTOR * (LIBRARY_BYTES + 2 * 4 * sum(kernels) + max(*walks, 2 * 8 * max(kernels)))


def largest_size(
    request: Request, available: float, convolution: Convolution = "auto", threads: int | None = None
) -> int:
    """The largest `size` at which the request needs no more than the available bytes; 0 if none does.

    Nothing beyond the content picture's longer side is tried, or beyond the result's, if that is enlarged.
    """

    def fits(size: int) -> bool:
        return least_memory(request.at_size(size), convolution, threads) <= available

    return largest(fits, MIN_SIZE, max(*request.content.shape[:2], *request.result_size))


def _largest_feature_map(H: int, W: int, layers: Iterable[str]) -> float:
    """Bytes of the largest of some layers' feature maps; a mask is applied to a copy of one."""
    return max((4.0 * (H * W >> 2 * log2_stride(name)) * channels(name) for name in layers), default=0.0)


def evaluation_memory(
    H: int,
    W: int,
    layers: Iterable[str],
    convolution: Convolution,
    threads: int,
    backward: bool = True,
    network: NetworkSettings | None = None,
    plan: int = 0,
) -> float:
    """Bytes of one loss and its gradient, or of the feature maps only, as far as targets need them.

    `network` has pooling and padding; without it they are average and zero.
    """
    pixels = 4 * 12 * H * W  # a few arrays of them
    network = network or Settings(pooling="average", padding="zero")
    if not plan:
        return pixels + _memory_above(None, H, W, layers, convolution, threads, backward, network)
    if not backward:
        top = deepest(layers)
        return pixels + strips_memory(H, W, top, layers, convolution, network, threads, False, False).peak
    lower, above = divided(plan, layers)
    top = f"pool{plan}" if above else deepest(layers)
    needed, saved = strips_memory(H, W, top, lower, convolution, network, threads, True, bool(above))
    if above:
        needed = max(needed, saved + _memory_above(top, H, W, above, convolution, threads, True, network))
    return pixels + needed


class _Computed(NamedTuple):
    """What one pass computes: a convolution, a pooling, or both (`npstyle.fused`); bytes."""

    name: str  # of the feature map
    y: int
    bits: float  # that the backward pass needs
    workspace: int
    x_padded: int = 0  # a convolution's own input and output, where it has those
    y_padded: int = 0


def _computed(
    below: str | None,
    H: int,
    W: int,
    losses: set[str],
    convolution: Convolution,
    threads: int,
    network: NetworkSettings,
) -> Iterator[_Computed]:
    """From the pixels (H, W) or from the feature map `below` up to the topmost loss."""
    first = 0 if below is None else LAYERS.index(below) + 1
    names = list(LAYERS[first : LAYERS.index(deepest(losses)) + 1])
    while names:
        name = names.pop(0)
        h, w, K = H >> block_of(name) - 1, W >> block_of(name) - 1, channels(name)
        y, means = 4 * h * w * K, 4 * (h // 2) * (w // 2) * K
        if name not in CONVOLUTIONS:
            yield _Computed(name, means, means / 4 if network.pooling == "max" else 0, 0)
            continue
        method, C = method_of(convolution, name, h, w), CONVOLUTIONS[name][0]
        padded = is_padded(name, network.padding, method)
        workspace = 4 * WORKSPACES[method](h + 2 * padded, w + 2 * padded, C, K, 4, threads)
        around = [4 * (h + 2) * (w + 2) * depth for depth in (C, K)] if padded else [0, 0]
        if name not in losses and joins_pooling(names, method, padded, network):
            yield _Computed(names.pop(0), means, y / 32, workspace)
        else:
            yield _Computed(name, y, max(y, around[1]) / 32, workspace, *around)


def _memory_above(
    below: str | None,
    H: int,
    W: int,
    layers: Iterable[str],
    convolution: Convolution,
    threads: int,
    backward: bool,
    network: NetworkSettings,
) -> float:
    """Bytes of an evaluation without strips from the pixels (H, W) or from the feature map `below` on.

    In the latter case gradients of losses are computed some rows at a time, and wait packed.
    """
    losses = set(layers)
    stored, peak, x, packs = 0.0, 0.0, 0, below is not None
    if below is not None:
        x = 4 * (H >> log2_stride(below)) * (W >> log2_stride(below)) * channels(below)
    computed = list(_computed(below, H, W, losses, convolution, threads, network))
    # The largest workspace stays in the arena, which is trimmed only where gradients are packed.
    workspace = max(each.workspace for each in computed)
    waiting: dict[str, float] = {}
    for name, y, bits, own, x_padded, y_padded in computed:
        if name in losses:
            K, elements = channels(name), min(y // 4, GROWTH) if packs else y // 4
            sums = 4 * _kernels.gram_workspace(elements // K, K, 4, threads)
            waiting[name] = y * (PACKED if packs and name in CONVOLUTIONS else 1) if backward else 0
            if packs:  # its input is not there any more
                peak = max(peak, stored + y + waiting[name] + sums + 4 * elements)
            else:
                workspace = max(workspace, sums)
        added = own if packs else waiting.get(name, 0)
        peak = max(peak, stored + max(x + y + added, x + x_padded, x_padded + y_padded, y_padded + y))
        stored += waiting.get(name, 0) + (bits if backward else 0)
        x = y
    # In the backward pass the gradient with respect to a feature map is the one that waited, or a new array,
    # to which a packed one is unpacked.
    there = set() if packs else losses
    for n, (name, y, _, own, x_padded, y_padded) in reversed(list(enumerate(computed))):
        x, lower = (computed[n - 1].y, computed[n - 1].name) if n else (0, "")
        dy, dx = (0 if name in there else y), (0 if lower in there else x)
        new: float = max(dy + dx, dy + y_padded, y_padded + x_padded, x_padded + dx)
        if packs:
            new += own - waiting.get(name, 0)
        peak = max(peak, stored + new if backward else 0)
        stored -= waiting.get(name, 0)
    peak *= GAPS if network.padding == "wrap" else 1
    return peak if packs else peak + workspace


def largest(fits: Callable[[int], bool], least: int, most: int) -> int:
    """The largest number from least to most that fits, if all smaller ones fit, too; 0 if none does."""
    if not fits(least):
        return 0
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def available_memory(threads: int | None = None, system: Path = Path("/")) -> float | None:
    """Bytes that this process may still allocate; None on systems that do not say.

    The least of what Linux has available, what the limits of containers leave, and what `ulimit -v` leaves
    for a run with so many threads.
    """
    free = re.search(r"^MemAvailable:\s*(\d+) kB", text(system / "proc/meminfo"), re.MULTILINE)
    limits = [1024.0 * int(free[1])] if free else []
    for group in control_groups("memory", system):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                left = int(text(group / limit)) - int(text(group / used))
            except ValueError:  # "max", or no such file
                continue
            # The cache of files that were read lately counts as used, but is given up for others.
            files = re.search(r"^(?:total_)?inactive_file (\d+)", text(group / "memory.stat"), re.MULTILINE)
            limits.append(left + (int(files[1]) if files else 0))
    limits += _address_space_left(threads, system)
    return max(0.0, min(limits)) if limits else None


def _address_space_left(threads: int | None, system: Path) -> list[float]:
    """What `ulimit -v` leaves, less what the threads' buffers take; nothing if there is no limit.

    BLAS asks for a buffer and a stack for each thread, again and again without end where it gets none.
    """
    try:
        import resource
    except ImportError:  # Windows
        return []
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = re.match(r"\d+", text(system / "proc/self/statm"))
    if limit == resource.RLIM_INFINITY or not pages:
        return []
    occupied = int(pages[0]) * resource.getpagesize()
    return [limit - occupied - BLAS_BUFFER * (1 + resolve(threads))]
