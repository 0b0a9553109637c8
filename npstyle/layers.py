"""The layers VGG19 is made of, backward directly under forward.

A layer is stateless. `forward` returns its output and a cache, which is whatever `backward` needs; so one
layer serves any number of pictures at once. The filters are frozen: no gradient with respect to them is ever
needed.

Notation: x, y are a layer's input and output, dx, dy the gradients of a loss with respect to them; arrays
are (height, width, channels) = (H, W, C) in, (H, W, K) out, float32 or float64.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._typing import Array, Bytes

Shape = tuple[int, ...]


class Layer(Protocol):
    """The interface of all layers; what a cache contains is the layer's own business."""

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Output y and the cache for `backward`."""

    def backward(self, dy: Array, cache: Any, accumulate_into: Array | None = None) -> Array:
        """Gradient dx for the gradient dy, added to `accumulate_into` if that is given."""


def _accumulate(dx: Array, accumulate_into: Array | None) -> Array:
    """Return dx, or add it to another gradient of the same array: gradients of several paths add up."""
    return dx if accumulate_into is None else np.add(accumulate_into, dx, out=accumulate_into)


class Conv2D:
    """3x3 convolution with stride 1 and zero padding: the output has the height and width of the input.

    y[h, w, k] = b[k] + sum over i, j, c of x[h + i - 1, w + j - 1, c] kernel[i, j, c, k]

    Parameters
    ----------
    kernel : (3, 3, C, K) array
        In the order height, width, in, out; its dtype is the dtype computed in.
    bias : (K,) array
    threads : int, optional
        All available cores if omitted.
    arena : Arena, optional
        Where outputs are allocated.

    See Also
    --------
    docs/convolution.md : from this sum to one matrix product, and its adjoint.
    """

    def __init__(
        self, kernel: Array, bias: Array, threads: int | None = None, arena: Arena | None = None
    ) -> None:
        self.kernel = np.ascontiguousarray(kernel)
        self.bias = np.ascontiguousarray(bias)
        self.threads = threads
        self.arena = arena or Arena()

    def forward(
        self, x: Array, out: Array | None = None, strip: _kernels.Strip | None = None
    ) -> tuple[Array, None]:
        """Feature map y (H, W, K) of x (H, W, C). The layer is linear, so backward needs no cache.

        y is written to `out`, if that is given; it may be a strip of the feature map.
        """
        return self._convolve(x, self.kernel, self.bias, out, strip), None

    def backward(
        self,
        dy: Array,
        cache: None = None,
        accumulate_into: Array | None = None,
        out: Array | None = None,
        strip: _kernels.Strip | None = None,
    ) -> Array:
        """Gradient dx (H, W, C) for dy (H, W, K); `out` and `strip` as in `forward`.

        x[h, w, c] contributes to y[h - i + 1, w - j + 1, k] with the factor kernel[i, j, c, k], so

            dx[h, w, c] = sum over i, j, k of dy[h - i + 1, w - j + 1, k] kernel[i, j, c, k].

        Substituting 2 - i for i and 2 - j for j makes this a convolution again, of dy, with the kernel
        rotated by 180 degrees and its channels exchanged. The bias drops out.
        """
        no_bias = np.zeros(self.kernel.shape[2], self.kernel.dtype)
        if out is None and accumulate_into is not None:
            out = self.arena.borrow(accumulate_into.shape, dy.dtype)
        return _accumulate(self._convolve(dy, self.flipped, no_bias, out, strip), accumulate_into)

    @cached_property
    def flipped(self) -> Array:
        """The kernel of the backward pass, (3, 3, K, C): flipped[i, j, k, c] = kernel[2 - i, 2 - j, c, k]."""
        return np.ascontiguousarray(self.kernel[::-1, ::-1].swapaxes(2, 3))

    def _convolve(
        self, x: Array, kernel: Array, bias: Array, out: Array | None, strip: _kernels.Strip | None
    ) -> Array:
        H, W, _ = x.shape
        _, _, C, K = kernel.shape
        y: Array = self.arena.borrow((H, W, K), x.dtype) if out is None else out
        _kernels.conv3x3(x, kernel.reshape(9 * C, K), bias, y, self.threads, strip)
        return y


class ReLU:
    """y = max(x, 0), element by element: docs/pooling-and-relu.md#relu.

    Parameters
    ----------
    in_place : bool
        Overwrite x with y, and dy with dx; for a network, where nobody else uses these arrays.
    threads : int, optional
        All available cores if omitted.
    """

    def __init__(self, in_place: bool = False, threads: int | None = None) -> None:
        self.in_place = in_place
        self.threads = threads

    def forward(self, x: Array) -> tuple[Array, Bytes]:
        """Rectified y; cache: the mask x > 0, one bit per element."""
        y = x if self.in_place else np.empty(x.shape, x.dtype)
        mask = np.empty((x.size + 7) // 8, np.uint8)
        _kernels.relu(x, y, mask, self.threads)
        return y, mask

    def backward(self, dy: Array, cache: Bytes, accumulate_into: Array | None = None) -> Array:
        """dx = dy where x > 0, else 0 (also at x = 0, where there is no derivative)."""
        dx = dy if self.in_place else np.empty(dy.shape, dy.dtype)
        _kernels.relu_backward(dy, cache, dx, self.threads)
        return _accumulate(dx, accumulate_into)


class AveragePool:
    """y[h, w] = mean of the cell x[2h : 2h + 2, 2w : 2w + 2]; an odd last row or column is dropped.

    See docs/pooling-and-relu.md#average-pooling.
    """

    def __init__(self, threads: int | None = None, arena: Arena | None = None) -> None:
        self.threads = threads
        self.arena = arena or Arena()

    def forward(self, x: Array, out: Array | None = None) -> tuple[Array, Shape]:
        """Means y (H // 2, W // 2, C), in `out` if that is given; cache: the shape of x."""
        H, W, C = x.shape
        y: Array = self.arena.borrow((H // 2, W // 2, C), x.dtype) if out is None else out
        _kernels.average_pool(x, y, self.threads)
        return y, x.shape

    def backward(
        self, dy: Array, cache: Shape, accumulate_into: Array | None = None, out: Array | None = None
    ) -> Array:
        """dx = dy / 4 in all four pixels of the cell, 0 in dropped rows and columns."""
        dx: Array = self.arena.borrow(cache, dy.dtype) if out is None else out
        _kernels.average_pool_backward(dy, dx, self.threads)
        return _accumulate(dx, accumulate_into)


class MaxPool:
    """y[h, w] = maximum of the cell x[2h : 2h + 2, 2w : 2w + 2]; an odd last row or column is dropped.

    See docs/pooling-and-relu.md#maximum-pooling.
    """

    def __init__(self, threads: int | None = None, arena: Arena | None = None) -> None:
        self.threads = threads
        self.arena = arena or Arena()

    def forward(self, x: Array, out: Array | None = None) -> tuple[Array, tuple[Bytes, Shape]]:
        """Maxima y (H // 2, W // 2, C); cache: the argmax in each cell (the first of equals), shape of x."""
        H, W, C = x.shape
        y: Array = self.arena.borrow((H // 2, W // 2, C), x.dtype) if out is None else out
        argmax = np.empty(y.shape, np.uint8)
        _kernels.max_pool(x, y, argmax, self.threads)
        return y, (argmax, x.shape)

    def backward(
        self,
        dy: Array,
        cache: tuple[Bytes, Shape],
        accumulate_into: Array | None = None,
        out: Array | None = None,
    ) -> Array:
        """dx = dy at the argmax of the cell, 0 elsewhere."""
        argmax, shape = cache
        dx: Array = self.arena.borrow(shape, dy.dtype) if out is None else out
        _kernels.max_pool_backward(dy, argmax, dx, self.threads)
        return _accumulate(dx, accumulate_into)


class Given:
    """The identity, where a network begins with a feature map that is given: docs/large-pictures.md."""

    def forward(self, x: Array) -> tuple[Array, None]:
        """y = x."""
        return x, None

    def backward(self, dy: Array, cache: None = None, accumulate_into: Array | None = None) -> Array:
        """dx = dy."""
        return _accumulate(dy, accumulate_into)


class CaffeInput:
    """Preprocessing of the published filters, which were trained in Caffe: BGR minus the mean color.

    y[..., c] = x[..., 2 - c] - mean[c], for x (H, W, 3) in RGB, 0..255, without scaling; see
    weights/README.md#preprocessing.
    """

    MEAN_BGR = (103.939, 116.779, 123.68)  # of the ImageNet training pictures

    def forward(self, x: Array) -> tuple[Array, None]:
        """Centered BGR y (H, W, 3)."""
        y = np.empty(x.shape, x.dtype)
        for c, mean in enumerate(self.MEAN_BGR):  # all three at once takes NumPy six times as long
            np.subtract(x[:, :, 2 - c], x.dtype.type(mean), out=y[:, :, c])
        return y, None

    def backward(self, dy: Array, cache: None = None, accumulate_into: Array | None = None) -> Array:
        """dx[..., c] = dy[..., 2 - c]."""
        dx = np.empty(dy.shape, dy.dtype)
        for c in range(3):
            dx[:, :, c] = dy[:, :, 2 - c]
        return _accumulate(dx, accumulate_into)


class TorchvisionInput:
    """Preprocessing of torchvision's filters: RGB from 0 to 1, standardized.

    y[..., c] = (x[..., c] / 255 - mean[c]) / std[c], for x (H, W, 3) in RGB, 0..255; see
    weights/README.md#preprocessing.
    """

    MEAN = (0.485, 0.456, 0.406)
    STD = (0.229, 0.224, 0.225)

    def forward(self, x: Array) -> tuple[Array, None]:
        """Standardized y (H, W, 3)."""
        return (x / x.dtype.type(255) - np.array(self.MEAN, x.dtype)) / np.array(self.STD, x.dtype), None

    def backward(self, dy: Array, cache: None = None, accumulate_into: Array | None = None) -> Array:
        """dx = dy / (255 std)."""
        return _accumulate(dy / (255 * np.array(self.STD, dy.dtype)), accumulate_into)
