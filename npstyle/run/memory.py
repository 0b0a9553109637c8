"""How much memory a run needs, and how much is available.

The arrays of a run are few and known: the feature maps of two neighboring layers, the gradients of the
losses that wait for the backward pass, a bit for each element rectified, the convolutions' workspace, and
what the optimizer stores. They are added up here, as `VGG19`, `Objective` and `stylize` allocate them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path

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
from npstyle.fused import method_of
from npstyle.optimize import optimizer_bytes, with_possible_optimizer
from npstyle.padding import is_padded
from npstyle.run.inputs import Request
from npstyle.settings import Settings

Size = tuple[int, int]  # width, height

# By method of convolution: elements of its workspace, of (H, W, C, K, itemsize, threads).
WORKSPACES = {
    "im2col": _kernels.conv3x3_workspace,
    "winograd": _kernels.winograd_workspace,
    "first_layer": _kernels.first_layer_workspace,
}

# By how much the resident memory of runs grew, relative to the sum below without this factor: 0.65 (Adam) to
# 0.82 at one level, 1.05 to 1.08 with several levels, colors or masks; 64 to 512 pixels, two threads.
SAFETY_FACTOR = 1.12
# What they grew by besides their arrays: 66 MB at 64 pixels, 127 MB at 384 pixels after four levels.
LIBRARY_BYTES = 100e6
# By statistics: matrices (C, C) that every style target keeps in each layer, and that one layer's loss takes,
# LAPACK's copies among them.
MATRICES = {"gram": (1, 2), "gram+moments": (2, 6), "wasserstein": (2, 14)}
# Start, best picture and scaled gradient, in float64 (`Minimizer`).
PIXEL_ARRAYS = 3
BLAS_BUFFER = 64e6  # bytes a thread, rounded up: OpenBLAS takes 32 MiB, and a stack has 8


def run_memory(request: Request, convolution: Convolution = "auto", threads: int | None = None) -> float:
    """Bytes that a run will need at most, in addition to what Python and its pictures occupy already.

    Parameters
    ----------
    request : Request
    convolution, threads
        See `VGG19`.
    """
    size = request.result_size
    styles = request.style_sizes(*size)
    masks = bool(request.content_masks)
    return run_memory_of_sizes(size, styles, request.settings, convolution, threads, masks)


def run_memory_of_sizes(
    content_size: Size,
    style_sizes: Iterable[Size],
    settings: Settings,
    convolution: Convolution = "auto",
    threads: int | None = None,
    masks: bool = False,
) -> float:
    """`run_memory` of a run with pictures of these sizes, (width, height), at its last level.

    The last level needs the most. `masks` is whether there are pairs of regions.
    """
    W, H = content_size
    threads, layers, padding = resolve(threads), settings.layers, settings.padding
    settings = with_possible_optimizer(settings, H * W)
    optimizer = optimizer_bytes(settings, H * W) + H * W * 8 * 3 * PIXEL_ARRAYS
    run = optimizer + evaluation_memory(H, W, layers, convolution, threads, padding=padding)
    targets = [
        evaluation_memory(h, w, layers, convolution, threads, backward=False, padding=padding)
        for w, h in style_sizes
    ]
    weights = 4 * sum(9 * prod(CONVOLUTIONS[name]) for name in convolutions_up_to(deepest(layers)))
    copies = 2 if convolution == "im2col" else 1  # im2col also stores the kernels of the backward pass
    masked = 3 * _largest_feature_map(H, W, settings.effective_style_weights) if masks else 0.0
    run += masked + statistics_bytes(settings, len(targets))
    return SAFETY_FACTOR * (LIBRARY_BYTES + copies * weights + max([run, *targets]))


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
        return run_memory(request.at_size(size), convolution, threads) <= available

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
    padding: Padding = "zero",
) -> float:
    """Bytes of one loss and its gradient, or of the feature maps only, as far as targets need them."""
    loss_layers = set(layers)
    stored: float = 4 * 12 * H * W  # a few arrays of pixels
    peak, workspace_bytes, x, C = 0.0, 0, 0, 3
    outputs: list[tuple[str, int, int, int]] = []
    for name in LAYERS[: LAYERS.index(deepest(loss_layers)) + 1]:
        h, w = H >> (block_of(name) - 1), W >> (block_of(name) - 1)
        K = CONVOLUTIONS[name][1] if name in CONVOLUTIONS else C
        x_padded = y_padded = 0  # bytes of a convolution's own input and output, where it has those
        if name in CONVOLUTIONS:
            workspace = WORKSPACES[method_of(convolution, name, h, w)]
            border = 2 * is_padded(name, padding)
            workspace_bytes = max(workspace_bytes, 4 * workspace(h + border, w + border, C, K, 4, threads))
            if border:
                x_padded, y_padded = (4 * (h + border) * (w + border) * depth for depth in (C, K))
        else:
            h, w = h // 2, w // 2
        if name in loss_layers:
            workspace_bytes = max(workspace_bytes, 4 * _kernels.gram_workspace(h * w, K, 4, threads))
        y = 4 * h * w * K
        waiting = y if backward and name in loss_layers else 0
        peak = max(peak, stored + max(x + y + waiting, x + x_padded, x_padded + y_padded, y_padded + y))
        stored += waiting + (max(y, y_padded) / 32 if backward else 0)
        outputs.append((name, y, x_padded, y_padded))
        x, C = y, K
    # In the backward pass the gradient with respect to a feature map is the one that waited, or a new array.
    inputs = [("", 0, 0, 0), *outputs[:-1]]
    for (name, y, x_padded, y_padded), (below, x, *_) in zip(outputs[::-1], inputs[::-1], strict=True):
        dy, dx = (0 if name in loss_layers else y), (0 if below in loss_layers else x)
        new = max(dy + dx, dy + y_padded, y_padded + x_padded, x_padded + dx)
        peak = max(peak, stored + new if backward else 0)
        stored -= y if name in loss_layers else 0
    return peak + workspace_bytes


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
