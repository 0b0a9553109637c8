"""How much memory layers in strips take: the rows at work, and those that wait for the backward pass.

What `npstyle.strips` keeps is counted in the middle of a tall picture, where all layers are at work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from npstyle import _kernels
from npstyle._typing import Convolution, Padding
from npstyle.architecture import CONVOLUTIONS, LAYERS, block_of, channels, log2_stride
from npstyle.fused import method_of
from npstyle.padding import is_padded
from npstyle.plans import DELAYED_BLOCKS, STRIP

# By method of convolution: elements of its workspace, of (H, W, C, K, itemsize, threads).
WORKSPACES = {
    "im2col": _kernels.conv3x3_workspace,
    "winograd": _kernels.winograd_workspace,
    "first_layer": _kernels.first_layer_workspace,
}


class Rows(NamedTuple):
    """A layer's output: bytes of a row, and how many rows are new with each strip, and kept for the next."""

    name: str
    row: int
    new: int
    kept: int
    step: int  # rows that are computed together
    workspace: int  # bytes
    height: int


def strips_bytes(
    H: int,
    W: int,
    top: str,
    layers: Iterable[str],
    convolution: Convolution,
    threads: int,
    backward: bool,
    above: bool,
    padding: Padding,
) -> float:
    """Bytes of all layers up to `top` in strips, of a picture (H, W).

    `above` says whether there are layers above, for which the topmost feature map and the gradient with
    respect to it are kept whole.
    """
    losses = set(layers)
    names = LAYERS[: LAYERS.index(top) + 1]
    chain = [_rows(name, H, W, convolution, threads) for name in names]
    whole = H * chain[-1].row >> log2_stride(top) if above else 0
    forward = whole + _at_work(chain)
    if not backward:
        return forward
    middle = DELAYED_BLOCKS if not above and block_of(top) > DELAYED_BLOCKS + 1 else 0
    if middle:
        low = STRIP
        chain = [
            _rows(name, H, W, convolution, threads, low if block_of(name) <= middle else STRIP)
            for name in names
        ]
    shallow = [layer for layer in chain if block_of(layer.name) <= middle]
    both = 0.0
    for part in (shallow, chain[len(shallow) :]):
        both += _waiting(part, losses) + _tails(part) * 2 if part else 0.0
    if shallow:
        both += _tails(shallow)
    padded = 2 * 4 * 3 * H * W if is_padded("conv1_1", padding) else 0
    return padded + max(forward, whole + both + _at_work(chain))


def _rows(name: str, H: int, W: int, convolution: Convolution, threads: int, strip: int = STRIP) -> Rows:
    h, w, new = (size >> block_of(name) - 1 for size in (H, W, strip))
    K = channels(name)
    if name not in CONVOLUTIONS:
        return Rows(name, 4 * (w // 2) * K, new // 2, 8, 1, 0, h // 2)
    method, C = method_of(convolution, name, h, w), CONVOLUTIONS[name][0]
    step = {"winograd": 6, "first_layer": 1}.get(method) or _kernels.conv3x3_rows(w)
    new = max(new, step)
    return Rows(name, 4 * w * K, new, step + 2, step, 4 * WORKSPACES[method](new, w, C, K, 4, threads), h)


def _at_work(chain: Sequence[Rows]) -> float:
    """The input and the output of one layer, the workspace, and what the other layers keep."""
    below = [None, *chain[:-1]]
    pairs = [
        y.row * (y.new + y.kept) + (x.row * (x.new + x.kept) if x else 0) + y.workspace
        for x, y in zip(below, chain, strict=True)
    ]
    gram = max(
        4 * _kernels.gram_workspace(y.new * y.row // (4 * channels(y.name)), channels(y.name), 4, 1)
        for y in chain
    )
    return max(pairs) + gram + _tails(chain)


def _tails(chain: Sequence[Rows]) -> float:
    return sum(layer.row * layer.kept for layer in chain)


def _waiting(chain: Sequence[Rows], losses: set[str]) -> float:
    """Gradients of losses, and bits, of the rows that the backward pass has not reached."""
    at = 960 * STRIP >> block_of(chain[0].name) - 1  # rows of the chain's input
    reached = []
    for layer in chain:
        at = at // 2 if layer.name not in CONVOLUTIONS else (at - 1) // layer.step * layer.step
        reached.append(at)
    total = 0.0
    for layer, forward in zip(reversed(chain), reversed(reached), strict=True):
        # A piece that came with a strip is there until all of its rows have been taken.
        rows = min(forward - at + 2 * layer.new, layer.height)
        total += rows * layer.row * ((layer.name in losses) + 1 / 32)
        at = 2 * at if layer.name not in CONVOLUTIONS else (at - 1) // layer.step * layer.step
    return total
