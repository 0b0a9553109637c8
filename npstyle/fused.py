"""Convolution and ReLU in one pass, which is what runs unless `convolution="im2col"` is chosen.

Each class here equals `Conv2D` followed by `ReLU` up to rounding, and saves a pass over memory and, by
Winograd's minimal filtering, most of the multiplications. One has the average pooling after them in the same
pass, another the replicated border. The textbook is `npstyle.layers`; read it first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._typing import Array, Bytes, Convolution
from npstyle.architecture import CONVOLUTIONS
from npstyle.layers import AveragePool, Layer, _accumulate

MIN_PIXELS_FOR_WINOGRAD = 60  # pixels of a layer: below, im2col is faster (docs/performance.md)


Shape = tuple[int, ...]


class Step(NamedTuple):
    """One layer in the chain, and the name of the feature map it completes (None: it is not complete yet)."""

    layer: Layer
    feature_map: str | None


class _ConvReLU:
    """Filters (3, 3, C, K) as a matrix, and biases."""

    def __init__(
        self, kernel: Array, bias: Array, threads: int | None = None, arena: Arena | None = None
    ) -> None:
        _, _, C, K = kernel.shape
        self.matrix = np.ascontiguousarray(kernel).reshape(9 * C, K)
        self.bias = np.ascontiguousarray(bias)
        self.threads = threads
        self.arena = arena or Arena()


class WinogradConvReLU(_ConvReLU):
    """3x3 convolution and ReLU by Winograd's minimal filtering F(6x6, 3x3): y = max(x * kernel + bias, 0).

    It needs about a fifth of the multiplications of `Conv2D`. In float32 its rounding error is 3e-6 to 4e-6
    of the size of y, 13 to 15 times that of `Conv2D` (docs/numerics.md).

    Parameters
    ----------
    kernel : (3, 3, C, K) array
        C and K are multiples of 32.
    bias : (K,) array
    threads : int, optional
        All available cores if omitted.
    arena : Arena, optional
        Where outputs and workspace are allocated.

    See Also
    --------
    docs/winograd.md : where the transforms come from and what they cost.
    """

    def forward(
        self, x: Array, out: Array | None = None, strip: _kernels.Strip | None = None
    ) -> tuple[Array, Bytes]:
        """Rectified y (H, W, K) for x (H, W, C); cache: the mask y > 0, one bit per element.

        y is written to `out`, if that is given; it may be a strip of the feature map.
        """
        H, W, _ = x.shape
        y: Array = self.arena.borrow((H, W, self.bias.size), x.dtype) if out is None else out
        mask = np.empty(y.size // 8, np.uint8)
        workspace = _winograd_workspace(self, y.shape, x, strip)
        _kernels.winograd(x, self.matrix, self.bias, y, mask, workspace, self.threads, strip)
        self.arena.release(workspace)
        return y, mask

    def backward(
        self,
        dy: Array,
        cache: Bytes,
        accumulate_into: Array | None = None,
        out: Array | None = None,
        strip: _kernels.Strip | None = None,
    ) -> Array:
        """Gradient dx (H, W, C): dy where y > 0, convolved with the kernel rotated by 180 degrees."""
        H, W, _ = dy.shape
        add, out = accumulate_into is not None, out if accumulate_into is None else accumulate_into
        dx: Array = self.arena.borrow((H, W, self.matrix.shape[0] // 9), dy.dtype) if out is None else out
        workspace = _winograd_workspace(self, dx.shape, dy, strip)
        _kernels.winograd_backward(dy, cache, self.matrix, dx, add, workspace, self.threads, strip)
        self.arena.release(workspace)
        return dx


class WinogradConvReLUPool(_ConvReLU):
    """`WinogradConvReLU` and `AveragePool` in one pass, with the same bits.

    What is between them, four times as large as the result, is never in memory, nor is its gradient: tiles
    of outputs are pooled in the cache, and the gradient of each mean is read for four pixels.

    Parameters
    ----------
    kernel : (3, 3, C, K) array
        C and K are multiples of 32.
    bias : (K,) array
    threads : int, optional
        All available cores if omitted.
    arena : Arena, optional
        Where outputs and workspace are allocated.
    """

    def forward(
        self, x: Array, out: Array | None = None, strip: _kernels.Strip | None = None
    ) -> tuple[Array, tuple[Bytes, Shape]]:
        """Means y (H // 2, W // 2, K) of rectified outputs; cache: their mask, and the shape of dx.

        y is written to `out`, if that is given; it may be those of a strip. That of the last means has an odd
        last row, too.
        """
        (H, W, C), K = x.shape, self.bias.size
        y: Array = self.arena.borrow((H // 2, W // 2, K), x.dtype) if out is None else out
        if strip is not None:
            last = strip.first // 2 + len(y) == strip.height // 2
            H = strip.height - strip.first if last else 2 * len(y)
        mask = np.empty(H * W * K // 8, np.uint8)
        workspace = _winograd_workspace(self, (H, W, K), x, strip)
        _kernels.winograd(x, self.matrix, self.bias, y, mask, workspace, self.threads, strip, pooled=True)
        self.arena.release(workspace)
        return y, (mask, (H, W, C))

    def backward(
        self,
        dy: Array,
        cache: tuple[Bytes, Shape],
        accumulate_into: Array | None = None,
        out: Array | None = None,
        strip: _kernels.Strip | None = None,
    ) -> Array:
        """Gradient dx (H, W, C): a quarter of dy in each pixel where the output is positive, convolved.

        In a strip dy and the mask have the neighbors of its rows, too, which for dy are in whole cells.
        """
        (mask, shape), add = cache, accumulate_into is not None
        out = out if accumulate_into is None else accumulate_into
        dx: Array = self.arena.borrow(shape, dy.dtype) if out is None else out
        workspace = _winograd_workspace(self, shape, dy, strip)
        arguments = (dy, mask, self.matrix, dx, add, workspace, self.threads, strip)
        _kernels.winograd_backward(*arguments, pooled=True)
        self.arena.release(workspace)
        return dx


def _winograd_workspace(
    layer: _ConvReLU, shape: Shape, x: Array, strip: _kernels.Strip | None = None
) -> Array:
    """For outputs of this shape."""
    H, W, K = shape
    height = H if strip is None else strip.height
    elements = _kernels.winograd_workspace(H, W, x.shape[2], K, x.itemsize, layer.threads, height)
    return layer.arena.borrow((elements,), x.dtype)


class FirstLayerConvReLU(_ConvReLU):
    """3x3 convolution and ReLU for inputs of few channels, as in conv1_1: y = max(x * kernel + bias, 0).

    Forward by im2col, like `Conv2D`: a patch has only 9C elements. Backward by its adjoint, col2im, where
    `Conv2D` would gather 9K elements to compute C: docs/convolution.md.

    Parameters
    ----------
    kernel : (3, 3, C, K) array
        K is a multiple of 32.
    bias : (K,) array
    threads : int, optional
        All available cores if omitted.
    arena : Arena, optional
        Where outputs and workspaces are allocated.
    replicate : bool
        The padding is copies of the outermost pixels, not zeros, as with `ReplicatePad` before the layer and
        `Crop` after it, with the same bits.
    """

    def __init__(
        self,
        kernel: Array,
        bias: Array,
        threads: int | None = None,
        arena: Arena | None = None,
        replicate: bool = False,
    ) -> None:
        super().__init__(kernel, bias, threads, arena)
        self.replicate = replicate

    def forward(
        self, x: Array, out: Array | None = None, strip: _kernels.Strip | None = None
    ) -> tuple[Array, Bytes]:
        """Rectified y (H, W, K) for x (H, W, C); cache: the mask y > 0, one bit per element.

        y is written to `out`, if that is given; it may be a strip of the feature map.
        """
        H, W, _ = x.shape
        y: Array = self.arena.borrow((H, W, self.bias.size), x.dtype) if out is None else out
        mask = np.empty(y.size // 8, np.uint8)
        workspace = self._workspace(len(y), x)
        arguments = (x, self.matrix, self.bias, y, mask, workspace)
        _kernels.first_layer(*arguments, self.threads, strip, self.replicate)
        self.arena.release(workspace)
        return y, mask

    def backward(
        self,
        dy: Array,
        cache: Bytes,
        accumulate_into: Array | None = None,
        out: Array | None = None,
        strip: _kernels.Strip | None = None,
    ) -> Array:
        """Gradient dx (H, W, C) by (2) of docs/convolution.md: dP = dy Q' where y > 0, dx = col2im(dP)."""
        H, W, _ = dy.shape
        dx: Array = self.arena.borrow((H, W, self.matrix.shape[0] // 9), dy.dtype) if out is None else out
        workspace = self._workspace(len(dx), dx)
        arguments = (dy, cache, self.matrix, dx, workspace)
        _kernels.first_layer_backward(*arguments, self.threads, strip, self.replicate)
        self.arena.release(workspace)
        return _accumulate(dx, accumulate_into)

    def _workspace(self, H: int, x: Array) -> Array:
        _, W, C = x.shape
        elements = _kernels.first_layer_workspace(H, W, C, self.bias.size, x.itemsize, self.threads)
        return self.arena.borrow((elements,), x.dtype)


def with_poolings(steps: Iterable[Step], names: Collection[str]) -> Iterator[Step]:
    """The steps, with each average pooling joined to the convolution before it.

    Not where the feature map between them is one of the names.
    """
    waiting: Step | None = None
    for step in steps:
        if waiting is not None and isinstance(step.layer, AveragePool):
            step, waiting = Step(_with_pooling(waiting.layer), step.feature_map), None
        if waiting is not None:
            yield waiting
        waiting = step if isinstance(step.layer, WinogradConvReLU) and step.feature_map not in names else None
        if waiting is None:
            yield step
    if waiting is not None:
        yield waiting


def _with_pooling(layer: Layer) -> WinogradConvReLUPool:
    assert isinstance(layer, WinogradConvReLU)
    K = layer.bias.size
    return WinogradConvReLUPool(layer.matrix.reshape(3, 3, -1, K), layer.bias, layer.threads, layer.arena)


def method_of(convolution: Convolution, name: str, H: int, W: int) -> str:
    """How a layer of H x W pixels is computed: "im2col", "winograd" or "first_layer"."""
    if name not in CONVOLUTIONS or convolution == "im2col":
        return "im2col"
    if CONVOLUTIONS[name][0] == 3:
        return "first_layer"
    if convolution == "auto":
        # In plain NumPy the transforms take longer than the multiplications that they save.
        faster = H * W >= MIN_PIXELS_FOR_WINOGRAD and _kernels.IMPLEMENTATION == "compiled"
        return "winograd" if faster else "im2col"
    return convolution
