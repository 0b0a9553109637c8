"""How much memory layers in strips take: the rows at work, and those that wait for the backward pass.

What `npstyle.strips` keeps is counted in the middle of a tall picture, where all layers are at work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from npstyle import _kernels
from npstyle._typing import Convolution, Padding
from npstyle.architecture import CONVOLUTIONS, LAYERS, block_of, channels
from npstyle.fused import method_of
from npstyle.padding import is_padded
from npstyle.plans import CHEAP, DELAYED_BLOCKS, LARGE, SMALL, SMALL_WITHOUT_GRADIENT, strip_rows
from npstyle.row_layers import Amount, portion

# By method of convolution: elements of its workspace, of (H, W, C, K, itemsize, threads).
WORKSPACES = {
    "im2col": _kernels.conv3x3_workspace,
    "winograd": _kernels.winograd_workspace,
    "first_layer": _kernels.first_layer_workspace,
}
# Of a feature map, packed: its elements above 0, and a bit for each. Half of them with random filters; with
# trained ones a third in conv3_1, and fewer above.
PACKED = 0.5 + 1 / 32
# Slabs of the arena beside what is borrowed, as far as they are written to.
FRAGMENTATION = 1.05
AFTER_CHEAP = LAYERS[LAYERS.index(CHEAP) + 1]


class ByRows(NamedTuple):
    """A layer from x to y: bytes of their rows, and how many are computed and kept at a time."""

    name: str
    x_row: int
    y_row: int
    height: int  # of y
    new: int
    kept: float  # of x, on the way up
    kept_dy: float  # on the way down
    workspace: int  # bytes
    border: int = 0  # of its padding: rows of y that are kept to be cropped


def strips_bytes(
    H: int,
    W: int,
    top: str,
    layers: Iterable[str],
    convolution: Convolution,
    padding: Padding,
    threads: int,
    backward: bool,
    above: bool,
) -> float:
    """Bytes of all layers up to `top` in strips, of a picture (H, W).

    `above` says whether there are layers above, for which the topmost feature map and the gradient with
    respect to it are kept whole.
    """
    losses = set(layers)
    names = LAYERS[: LAYERS.index(top) + 1]
    how = convolution, padding, threads
    chain = [_by_rows(name, H, W, *how, LARGE if above else SMALL_WITHOUT_GRADIENT) for name in names]
    whole = chain[-1].y_row * chain[-1].height if above else 0
    forward = whole + FRAGMENTATION * (_at_work(chain, losses) + _tails(chain, False))
    if not backward:
        return forward
    middle = DELAYED_BLOCKS if not above and block_of(top) > DELAYED_BLOCKS + 1 else 0
    chain = [_by_rows(name, H, W, *how, LARGE if above else SMALL) for name in names]
    shallow = [layer for layer in chain if block_of(layer.name) <= middle]
    parts = [part for part in (shallow, chain[len(shallow) :]) if part]
    tails = sum(_tails(part, True) for part in parts) + _tails(shallow, False)
    waiting = sum(_waiting(part, losses) for part in parts)
    return max(forward, whole + waiting + FRAGMENTATION * (_at_work(chain, losses) + tails))


def _by_rows(
    name: str, H: int, W: int, convolution: Convolution, padding: Padding, threads: int, amount: Amount
) -> ByRows:
    h, w, new = (size >> block_of(name) - 1 for size in (H, W, strip_rows(amount, W)))
    K = channels(name)
    if name not in CONVOLUTIONS:
        return ByRows(name, 4 * w * K, 4 * (w // 2) * K, h // 2, new // 2, 0, 1, 0)
    method, C = method_of(convolution, name, h, w), CONVOLUTIONS[name][0]
    border = 2 * is_padded(name, padding, method)
    h, w = h + border, w + border
    least, kept = _least_and_kept(method, h, w, C, K, amount.tiles)
    least_dx, kept_dy = _least_and_kept(method, h, w, K, C, amount.tiles)
    new = min(max(new, least, least_dx), h)
    workspace = 4 * WORKSPACES[method](new, w, C, K, 4, threads)
    return ByRows(name, 4 * w * C, 4 * w * K, h, new, min(kept, h), min(kept_dy, h), workspace, border)


def _least_and_kept(method: str, h: int, w: int, C: int, K: int, tiles: int) -> tuple[int, float]:
    """Rows that a convolution computes at a time, and how many are kept for the next time, in the mean."""
    if method == "winograd":
        step = _kernels.winograd_rows(h, w, C, K, 4)
    else:
        step, tiles = (_kernels.first_layer_rows if method == "first_layer" else _kernels.conv3x3_rows)(w), 1
    least = portion(step, w, tiles).least
    return least, (least + step) / 2 + 1


def _at_work(chain: Sequence[ByRows], losses: set[str]) -> float:
    """New rows of a layer's input and output with its workspace, or of a loss's gradient."""
    most = 0.0
    for y in chain:
        again = y.x_row if y.name == AFTER_CHEAP and CHEAP in losses else 0
        most = max(most, y.new * (y.x_row + y.y_row + again) + y.workspace)
        if y.name in losses:
            K = channels(y.name)
            gram = 4 * _kernels.gram_workspace(y.new * y.y_row // (4 * K), K, 4, 1)
            most = max(most, 2 * y.new * y.y_row + gram)
    return most


def _tails(chain: Sequence[ByRows], backward: bool) -> float:
    """What all layers of a pass keep for their next rows, and those of a backward pass, if one follows."""
    up = sum(y.x_row * y.kept + y.y_row * y.border for y in chain)
    return up + sum(y.y_row * y.kept_dy for y in chain) if backward else up


def _waiting(chain: Sequence[ByRows], losses: set[str]) -> float:
    """Gradients of losses, and bits, of the rows that the backward pass has not reached."""
    behind, total = 0.0, 0.0  # rows of y
    for y in reversed(chain):
        rows = min(behind + y.new, y.height)
        packed = PACKED if block_of(y.name) < block_of(chain[-1].name) else 1.0
        loss = y.name in losses and y.name != CHEAP
        total += rows * y.y_row * ((packed if loss else 0) + 1 / 32)
        # A convolution waits for its rows on the way up, and on the way down.
        behind = behind + y.kept + y.kept_dy - 2 if y.name in CONVOLUTIONS else 2 * behind
    return total
