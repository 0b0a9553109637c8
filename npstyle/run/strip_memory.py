"""How much memory layers in strips take: the rows at work, and those that wait for the backward pass.

What `npstyle.strips` keeps is counted in the middle of a tall picture, where all layers are at work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from npstyle import _kernels
from npstyle._typing import Convolution
from npstyle.architecture import CONVOLUTIONS, LAYERS, block_of, channels
from npstyle.fused import method_of
from npstyle.padding import is_padded
from npstyle.plans import CHEAP, DELAYED_BLOCKS, LARGE, SMALL, computed_again, strip_rows
from npstyle.row_layers import Amount, portion
from npstyle.vgg import NetworkSettings

# By method of convolution: elements of its workspace, of (H, W, C, K, itemsize, threads).
WORKSPACES = {
    "im2col": _kernels.conv3x3_workspace,
    "winograd": _kernels.winograd_workspace,
    "first_layer": _kernels.first_layer_workspace,
}
# Of a feature map, packed: its elements above 0, and a bit for each. Half of them with random filters; with
# trained ones a third in conv3_1, and fewer above.
PACKED = 0.5 + 1 / 32
# Slabs of the arena beside what is borrowed, as far as they are written to: for large strips, for those and
# the borders of their rows where the padding wraps, and for small ones, which have one slab.
FRAGMENTATION, FRAGMENTATION_WITH_BORDERS, FRAGMENTATION_OF_SMALL = 1.3, 1.8, 1.05


class StripsMemory(NamedTuple):
    """Bytes at the peak, and those of them that the first pass saves for the second one."""

    peak: float
    saved: float


class ByRows(NamedTuple):
    """A convolution, a pooling or both, from x to y: bytes of rows, and how many are computed and kept."""

    name: str  # of y
    x_row: int
    y_row: int
    cell: int  # rows of x for one of y, beside their neighbors
    height: int  # of y, and all below but `kept` are rows of y
    new: int
    kept: float  # of x, on the way up
    kept_dy: float  # on the way down
    workspace: int  # bytes
    bits: float  # bytes of a row, for the way down
    border: int = 0  # of its padding: rows of y that are kept to be cropped


def strips_memory(
    H: int,
    W: int,
    top: str,
    layers: Iterable[str],
    convolution: Convolution,
    network: NetworkSettings,
    threads: int,
    backward: bool,
    above: bool,
) -> StripsMemory:
    """Memory of all layers up to `top` in strips, of a picture (H, W).

    `above` says whether there are layers above, for which the topmost feature map and the gradient with
    respect to it are kept whole.
    """
    losses, wraps = set(layers), network.padding == "wrap"
    strip = strip_rows(LARGE if above else SMALL, W)
    how = H, W, top, losses, convolution, network, threads, strip
    chain = list(_chain(*how, LARGE))
    # Where the padding wraps, and with nothing above, the second pass computes all layers again.
    again = _computed_again(chain, losses) if above and not wraps else len(chain)
    saved = _bits(chain[again:], H) if backward else 0.0
    whole = saved + (chain[-1].y_row * chain[-1].height if above else 0)
    fragmentation = FRAGMENTATION_WITH_BORDERS if wraps else FRAGMENTATION
    fragmentation = fragmentation if above else FRAGMENTATION_OF_SMALL
    forward = whole + fragmentation * (_at_work(chain, losses) + _tails(chain))
    if not backward:
        return StripsMemory(forward, saved)
    chain = list(_chain(*how, LARGE if above else SMALL))
    middle = DELAYED_BLOCKS if not above and block_of(top) > DELAYED_BLOCKS + 1 else 0
    shallow = [layer for layer in chain if block_of(layer.name) <= middle]
    waiting, behind = _waiting(chain[len(shallow) :], losses, again)
    tails = _tails(chain[:again]) + sum(y.y_row * y.kept_dy for y in chain)
    if shallow:
        again = _computed_again(shallow, losses)
        waiting += _waiting(shallow, losses, again)[0] + _bits(shallow[again:], behind)
        tails += _tails(shallow[:again])
    both = whole + waiting + fragmentation * (_at_work(chain, losses) + tails)
    return StripsMemory(max(forward, both), saved)


def _computed_again(chain: Sequence[ByRows], losses: set[str]) -> int:
    return computed_again([y.name for y in chain], losses)


def _bits(chain: Sequence[ByRows], rows: float) -> float:
    """Bytes that layers' backward passes need of so many rows of the topmost, or of all."""
    return sum(y.bits * min(y.height, rows * y.height / chain[-1].height) for y in chain)


def _chain(
    H: int,
    W: int,
    top: str,
    losses: set[str],
    convolution: Convolution,
    network: NetworkSettings,
    threads: int,
    strip: int,
    amount: Amount,
) -> Iterator[ByRows]:
    names = list(LAYERS[: LAYERS.index(top) + 1])
    while names:
        name = names.pop(0)
        h, w, new = (size >> block_of(name) - 1 for size in (H, W, strip))
        if name not in CONVOLUTIONS:
            yield _pooling(name, h, w, new, network)
            continue
        method = method_of(convolution, name, h, w)
        padded = is_padded(name, network.padding, method)
        one = _convolution(name, h, w, new, method, 2 * padded, threads, amount)
        if name not in losses and joins_pooling(names, method, padded, network):
            pooling = _pooling(names.pop(0), h, w, one.new, network)
            one = pooling._replace(
                x_row=one.x_row,
                kept=one.kept,
                kept_dy=one.kept_dy / 2,
                workspace=one.workspace,
                bits=2 * one.bits,
            )
        yield one


def joins_pooling(following: Sequence[str], method: str, padded: bool, network: NetworkSettings) -> bool:
    """Whether `npstyle.fused.with_poolings` joins a pooling, the first of these layers, to a convolution.

    Unless the feature map between them is asked for.
    """
    possible = method == "winograd" and not padded and network.pooling == "average"
    return possible and bool(following) and following[0] not in CONVOLUTIONS


def _pooling(name: str, h: int, w: int, new: int, network: NetworkSettings) -> ByRows:
    x_row, y_row = (4 * width * channels(name) for width in (w, w // 2))
    places = y_row / 4 if network.pooling == "max" else 0
    return ByRows(name, x_row, y_row, 2, h // 2, new // 2, 0, 1, 0, places)


def _convolution(
    name: str, h: int, w: int, new: int, method: str, border: int, threads: int, amount: Amount
) -> ByRows:
    C, K = CONVOLUTIONS[name]
    h, w = h + border, w + border
    least, kept = _least_and_kept(method, h, w, C, K, amount)
    least_dx, kept_dy = _least_and_kept(method, h, w, K, C, amount)
    new = min(max(new, least, least_dx), h)
    workspace, kept, kept_dy = 4 * WORKSPACES[method](new, w, C, K, 4, threads), min(kept, h), min(kept_dy, h)
    return ByRows(name, 4 * w * C, 4 * w * K, 1, h, new, kept, kept_dy, workspace, w * K / 8, border)


def _least_and_kept(method: str, h: int, w: int, C: int, K: int, amount: Amount) -> tuple[int, float]:
    """Rows that a convolution computes at a time, and how many are kept for the next time, in the mean."""
    if method == "winograd":
        step = _kernels.winograd_rows(h, w, C, K, 4)
    else:
        step = (_kernels.first_layer_rows if method == "first_layer" else _kernels.conv3x3_rows)(w)
    least = portion(step, w, max(C, K), amount, method == "winograd").least
    return least, (least + step) / 2 + 1


def _at_work(chain: Sequence[ByRows], losses: set[str]) -> float:
    """New rows of a layer's input and output with its workspace, or of a loss's gradient."""
    most, below = 0.0, ""
    for y in chain:
        again = y.x_row if below == CHEAP and CHEAP in losses else 0
        most, below = max(most, y.new * (y.cell * (y.x_row + again) + y.y_row) + y.workspace), y.name
        if y.name in losses:
            K = channels(y.name)
            gram = 4 * _kernels.gram_workspace(y.new * y.y_row // (4 * K), K, 4, 1)
            most = max(most, 2 * y.new * y.y_row + gram)
    return most


def _tails(chain: Sequence[ByRows]) -> float:
    """What all layers of a forward pass keep for their next rows."""
    return sum(y.x_row * y.kept + y.y_row * y.border for y in chain)


def _waiting(chain: Sequence[ByRows], losses: set[str], again: int) -> tuple[float, float]:
    """Gradients of losses, and bits, of the rows that the backward pass has not reached.

    So many layers are computed again, of the others all bits are there. Returned is also how many rows of the
    input those are.
    """
    behind, total = 0.0, 0.0  # rows of y
    for n, y in reversed(list(enumerate(chain))):
        rows = min(behind + y.new, y.height)
        packed = PACKED if block_of(y.name) < block_of(chain[-1].name) else 1.0
        loss = y.name in losses and y.name != CHEAP
        total += rows * (y.y_row * (packed if loss else 0) + (y.bits if n < again else 0))
        # A convolution waits for its rows on the way up, and on the way down.
        behind = y.cell * (behind + y.kept_dy) + y.kept - 2
    return total, behind
