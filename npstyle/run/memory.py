"""What a run will take of the machine's memory, and what there is.

The arrays of a run are few and known: the responses of two neighboring layers, the gradients of the
losses that wait for the backward pass, a bit for each element rectified, room to convolve in, and what
the optimizer remembers. They are added up here, as `VGG19`, `Objective` and `stylize` hold them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path

from npstyle import _kernels
from npstyle._runtime.cgroups import control_groups, text
from npstyle._runtime.threads import resolve
from npstyle.architecture import (
    CONVOLUTIONS,
    LAYERS,
    block_of,
    channels,
    convolutions_up_to,
    deepest,
    log2_stride,
)
from npstyle.optimize import bytes_per_pixel
from npstyle.settings import Settings
from npstyle.vgg import method_of

Size = tuple[int, int]  # height, width
WORKSPACES = {
    "im2col": _kernels.conv3x3_workspace,
    "winograd": _kernels.winograd_workspace,
    "first_layer": _kernels.first_layer_workspace,
}

# Runs over several scales, with colors or masks, were seen to take up to 1.11 of what is added up here.
MARGIN = 1.12
LIBRARIES = 100e6  # bytes that the optimizer's libraries, BLAS and the threads take; measured
BESIDE = 3  # arrays of pixels in double that the run and the losses hold beside the optimizer's own


def run_memory(
    content: Size,
    styles: Iterable[Size],
    settings: Settings,
    convolution: str,
    threads: int | None,
    masks: bool = False,
) -> float:
    """Bytes that a run will take at most, besides what Python and the pictures take already.

    Its last scale takes the most. Arguments as in `stylize`; `masks` if there are any.
    """
    H, W = content
    threads, layers = resolve(threads), settings.layers
    optimizer = H * W * (bytes_per_pixel(settings) + 8 * 3 * BESIDE)
    run = optimizer + evaluation_memory(H, W, layers, convolution, threads)
    targets = [evaluation_memory(h, w, layers, convolution, threads, backward=False) for h, w in styles]
    weights = 4 * sum(9 * prod(CONVOLUTIONS[name]) for name in convolutions_up_to(deepest(layers)))
    turned = 2 if convolution == "im2col" else 1  # im2col keeps the kernels that go backward, too
    masked = 3 * _largest_response(H, W, settings.effective_style_weights) if masks else 0.0
    return MARGIN * (LIBRARIES + turned * weights + max(run + masked, *targets))


def _largest_response(H: int, W: int, layers: Iterable[str]) -> float:
    """Bytes of the largest of some layers' responses; what a mask is applied to is a copy."""
    return max(4.0 * (H * W >> 2 * log2_stride(name)) * channels(name) for name in layers)


def evaluation_memory(
    H: int, W: int, layers: Iterable[str], convolution: str, threads: int, backward: bool = True
) -> float:
    """Bytes of one loss and its gradient, or of the responses only, as far as targets need them."""
    wanted = set(layers)
    kept: float = 4 * 12 * H * W  # a few arrays of pixels
    peak, room, x, C = 0.0, 0, 0, 3
    outputs: list[tuple[str, int]] = []
    for name in LAYERS[: LAYERS.index(deepest(wanted)) + 1]:
        h, w = H >> (block_of(name) - 1), W >> (block_of(name) - 1)
        K = CONVOLUTIONS[name][1] if name in CONVOLUTIONS else C
        if name in CONVOLUTIONS:
            workspace = WORKSPACES[method_of(convolution, name, h, w)]
            room = max(room, 4 * workspace(h, w, C, K, 4, threads))
        else:
            h, w = h // 2, w // 2
        if name in wanted:
            room = max(room, 4 * _kernels.gram_workspace(h * w, K, 4, threads))
        y = 4 * h * w * K
        waiting = y if backward and name in wanted else 0
        peak = max(peak, kept + x + y + waiting)
        kept += waiting + (y / 32 if backward else 0)
        outputs.append((name, y))
        x, C = y, K
    # On the way back the gradient with respect to a response is either the one that waited or a new array.
    for (name, y), (below, x) in zip(reversed(outputs), reversed([("", 0), *outputs[:-1]]), strict=True):
        new = (0 if name in wanted else y) + (0 if below in wanted else x)
        peak = max(peak, kept + new if backward else 0)
        kept -= y if name in wanted else 0
    return peak + room


def largest(fits: Callable[[int], bool], least: int, most: int) -> int:
    """The largest number in least ... most that fits, where all smaller ones fit, too; 0 if none does."""
    if not fits(least):
        return 0
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def available_memory(system: Path = Path("/")) -> float | None:
    """Bytes that may still be taken: what Linux says is free, less where a container allows less.

    None where nobody says so: on other systems.
    """
    free = re.search(r"^MemAvailable:\s*(\d+) kB", text(system / "proc/meminfo"), re.MULTILINE)
    found = [1024.0 * int(free[1])] if free else []
    for group in control_groups("memory", system):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                left = int(text(group / limit)) - int(text(group / used))
            except ValueError:  # "max", or no such file
                continue
            # Files read lately count as used, and give way.
            files = re.search(r"^(?:total_)?inactive_file (\d+)", text(group / "memory.stat"), re.MULTILINE)
            found.append(left + (int(files[1]) if files else 0))
    return max(0.0, min(found)) if found else None
