"""Convolution and ReLU in one pass, which is what runs unless `convolution="im2col"` is chosen.

Each class here equals `Conv2D` followed by `ReLU` up to rounding, and saves a pass over memory and, by
Winograd's minimal filtering, most of the multiplications. The textbook is `npstyle.layers`; read it first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._typing import Array, Bytes, Convolution
from npstyle.architecture import CONVOLUTIONS
from npstyle.layers import Layer, _accumulate

MIN_PIXELS_FOR_WINOGRAD = 60  # pixels of a layer: below, im2col is faster (docs/performance.md)


class WinogradConvReLU:
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

    def __init__(
        self, kernel: Array, bias: Array, threads: int | None = None, arena: Arena | None = None
    ) -> None:
        _, _, C, K = kernel.shape
        self.matrix = np.ascontiguousarray(kernel).reshape(9 * C, K)
        self.bias = np.ascontiguousarray(bias)
        self.threads = threads
        self.arena = arena or Arena()

    def forward(
        self, x: Array, out: Array | None = None, strip: _kernels.Strip | None = None
    ) -> tuple[Array, Bytes]:
        """Rectified y (H, W, K) for x (H, W, C); cache: the mask y > 0, one bit per element.

        y is written to `out`, if that is given; it may be a strip of the feature map.
        """
        H, W, _ = x.shape
        y: Array = self.arena.borrow((H, W, self.bias.size), x.dtype) if out is None else out
        mask = np.empty(y.size // 8, np.uint8)
        workspace = self._workspace(x, y, strip)
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
        workspace = self._workspace(dy, dx, strip)
        _kernels.winograd_backward(dy, cache, self.matrix, dx, add, workspace, self.threads, strip)
        self.arena.release(workspace)
        return dx

    def _workspace(self, x: Array, y: Array, strip: _kernels.Strip | None) -> Array:
        H, W, K = y.shape
        height = H if strip is None else strip.height
        elements = _kernels.winograd_workspace(H, W, x.shape[2], K, x.itemsize, self.threads, height)
        return self.arena.borrow((elements,), x.dtype)


class FirstLayerConvReLU:
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
    """

    def __init__(
        self, kernel: Array, bias: Array, threads: int | None = None, arena: Arena | None = None
    ) -> None:
        _, _, C, K = kernel.shape
        self.matrix = np.ascontiguousarray(kernel).reshape(9 * C, K)
        self.bias = np.ascontiguousarray(bias)
        self.threads = threads
        self.arena = arena or Arena()

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
        _kernels.first_layer(x, self.matrix, self.bias, y, mask, workspace, self.threads, strip)
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
        _kernels.first_layer_backward(dy, cache, self.matrix, dx, workspace, self.threads, strip)
        self.arena.release(workspace)
        return _accumulate(dx, accumulate_into)

    def _workspace(self, H: int, x: Array) -> Array:
        _, W, C = x.shape
        elements = _kernels.first_layer_workspace(H, W, C, self.bias.size, x.itemsize, self.threads)
        return self.arena.borrow((elements,), x.dtype)


FUSED: dict[str, Callable[..., Layer]] = {"winograd": WinogradConvReLU, "first_layer": FirstLayerConvReLU}


def method_of(convolution: Convolution, name: str, H: int, W: int) -> str:
    """How a layer of H x W pixels is computed: "im2col", or by which of `FUSED`."""
    if name not in CONVOLUTIONS or convolution == "im2col":
        return "im2col"
    if CONVOLUTIONS[name][0] == 3:
        return "first_layer"
    if convolution == "auto":
        # In plain NumPy the transforms take longer than the multiplications that they save.
        faster = H * W >= MIN_PIXELS_FOR_WINOGRAD and _kernels.IMPLEMENTATION == "compiled"
        return "winograd" if faster else "im2col"
    return convolution
