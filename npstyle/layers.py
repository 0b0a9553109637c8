"""The layers VGG19 is made of, backward directly under forward.

A layer keeps nothing between calls. `forward` returns its output and a cache, which is whatever
`backward` needs; so one layer serves any number of pictures at once. As the weights are never
trained there is no gradient with respect to them.

Notation: x, y are a layer's input and output, dx, dy the derivatives of a loss with respect to them;
arrays are (height, width, channels) = (H, W, C) in, (H, W, K) out, float32 or float64.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from npstyle import _kernels
from npstyle._runtime.arena import Arena

Array = NDArray[np.floating]
Bytes = NDArray[np.uint8]
Shape = tuple[int, ...]


class Layer(Protocol):
    """What every layer can do; `cache` is the layer's own business."""

    def forward(self, x: Array) -> tuple[Array, Any]:
        """Output y and the cache that `backward` needs."""

    def backward(self, dy: Array, cache: Any, accumulate_into: Array | None = None) -> Array:
        """Derivative dx for the derivative dy of the output; added to `accumulate_into` where given."""


def _added(dx: Array, accumulate_into: Array | None) -> Array:
    return dx if accumulate_into is None else np.add(accumulate_into, dx, out=accumulate_into)


class Conv2D:
    """3x3 convolution, stride 1, zero padding: a picture in, a picture of the same size out.

    y[h, w, k] = b[k] + sum over i, j, c of x[h + i - 1, w + j - 1, c] kernel[i, j, c, k]

    Parameters
    ----------
    kernel : (3, 3, C, K) array
        In the order height, width, in, out; its dtype is the dtype computed in.
    bias : (K,) array
    threads : int, optional
        Every available core, if left out.
    arena : Buffers, optional
        Where outputs get their memory from.

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

    def forward(self, x: Array) -> tuple[Array, None]:
        """Responses y (H, W, K) to x (H, W, C). Nothing needs to be remembered."""
        return self._convolve(x, self.kernel, self.bias), None

    def backward(self, dy: Array, cache: None = None, accumulate_into: Array | None = None) -> Array:
        """Derivative dx (H, W, C) for dy (H, W, K).

        x[h, w, c] went into y[h - i + 1, w - j + 1, k] with the factor kernel[i, j, c, k], so

            dx[h, w, c] = sum over i, j, k of dy[h - i + 1, w - j + 1, k] kernel[i, j, c, k].

        Renaming i to 2 - i and j to 2 - j makes this a convolution again, of dy, with the kernel
        turned by 180 degrees and its channels exchanged. The bias has no part in it.
        """
        no_bias = np.zeros(self.kernel.shape[2], self.kernel.dtype)
        return _added(self._convolve(dy, self.flipped, no_bias), accumulate_into)

    @cached_property
    def flipped(self) -> Array:
        """The kernel that goes backward, (3, 3, K, C): flipped[i, j, k, c] = kernel[2 - i, 2 - j, c, k]."""
        return np.ascontiguousarray(self.kernel[::-1, ::-1].swapaxes(2, 3))

    def _convolve(self, x: Array, kernel: Array, bias: Array) -> Array:
        H, W, _ = x.shape
        _, _, C, K = kernel.shape
        y: Array = self.arena.borrow((H, W, K), x.dtype)
        _kernels.conv3x3(x, kernel.reshape(9 * C, K), bias, y, self.threads)
        return y


class WinogradConvReLU:
    """What `Conv2D` and `ReLU` do one after the other, in one pass and with a fifth of the multiplications.

    y = max(x * kernel + bias, 0), by Winograd's minimal filtering F(6x6, 3x3). In float32 it rounds to some
    1e-6 of the size of y, ten times as much as `Conv2D`.

    Parameters
    ----------
    kernel : (3, 3, C, K) array
        C and K are multiples of 32.
    bias : (K,) array
    threads : int, optional
        Every available core, if left out.
    arena : Buffers, optional
        Where outputs, and room to work in, get their memory from.

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

    def forward(self, x: Array) -> tuple[Array, Bytes]:
        """Rectified y (H, W, K) of x (H, W, C), and the mask y > 0 packed into bits."""
        H, W, _ = x.shape
        K = self.bias.size
        y: Array = self.arena.borrow((H, W, K), x.dtype)
        mask = np.empty(y.size // 8, np.uint8)
        work = self._room(x, K)
        _kernels.winograd(x, self.matrix, self.bias, y, mask, work, self.threads)
        self.arena.release(work)
        return y, mask

    def backward(self, dy: Array, cache: Bytes, accumulate_into: Array | None = None) -> Array:
        """Derivative dx (H, W, C): dy where y > 0, convolved with the kernel turned by 180 degrees."""
        H, W, _ = dy.shape
        C = self.matrix.shape[0] // 9
        dx: Array = self.arena.borrow((H, W, C), dy.dtype) if accumulate_into is None else accumulate_into
        work = self._room(dy, C)
        add = accumulate_into is not None
        _kernels.winograd_backward(dy, cache, self.matrix, dx, add, work, self.threads)
        self.arena.release(work)
        return dx

    def _room(self, x: Array, K: int) -> Array:
        H, W, C = x.shape
        size = _kernels.winograd_workspace(H, W, C, K, x.itemsize, self.threads)
        return self.arena.borrow((size,), x.dtype)


class FirstLayerConvReLU:
    """What `Conv2D` and `ReLU` do one after the other, for pictures of few channels: conv1_1.

    y = max(x * kernel + bias, 0). Forward by im2col, as `Conv2D`: a patch is short, 9C numbers. Backward by
    its adjoint, col2im, where `Conv2D` would gather 9K numbers to make C: docs/convolution.md.

    Parameters
    ----------
    kernel : (3, 3, C, K) array
        K is a multiple of 32.
    bias : (K,) array
    threads : int, optional
        Every available core, if left out.
    arena : Buffers, optional
        Where outputs get their memory from.
    """

    def __init__(
        self, kernel: Array, bias: Array, threads: int | None = None, arena: Arena | None = None
    ) -> None:
        _, _, C, K = kernel.shape
        self.matrix = np.ascontiguousarray(kernel).reshape(9 * C, K)
        self.bias = np.ascontiguousarray(bias)
        self.threads = threads
        self.arena = arena or Arena()

    def forward(self, x: Array) -> tuple[Array, Bytes]:
        """Rectified y (H, W, K) of x (H, W, C), and the mask y > 0 packed into bits."""
        H, W, _ = x.shape
        y: Array = self.arena.borrow((H, W, self.bias.size), x.dtype)
        mask = np.empty(y.size // 8, np.uint8)
        workspace = self._workspace(x)
        _kernels.first_layer(x, self.matrix, self.bias, y, mask, workspace, self.threads)
        self.arena.release(workspace)
        return y, mask

    def backward(self, dy: Array, cache: Bytes, accumulate_into: Array | None = None) -> Array:
        """Derivative dx (H, W, C), of (2) in docs/convolution.md: dP = dy Q' where y > 0, dx = col2im(dP)."""
        H, W, _ = dy.shape
        dx: Array = self.arena.borrow((H, W, self.matrix.shape[0] // 9), dy.dtype)
        workspace = self._workspace(dx)
        _kernels.first_layer_backward(dy, cache, self.matrix, dx, workspace, self.threads)
        self.arena.release(workspace)
        return _added(dx, accumulate_into)

    def _workspace(self, x: Array) -> Array:
        H, W, C = x.shape
        size = _kernels.first_layer_workspace(H, W, C, self.bias.size, x.itemsize, self.threads)
        return self.arena.borrow((size,), x.dtype)


class ReLU:
    """y = max(x, 0), element by element: docs/pooling-and-relu.md#relu.

    Parameters
    ----------
    in_place : bool
        Write y over x, and dx over dy; for a network, whose arrays nobody else holds.
    threads : int, optional
        Every available core, if left out.
    """

    def __init__(self, in_place: bool = False, threads: int | None = None) -> None:
        self.in_place = in_place
        self.threads = threads

    def forward(self, x: Array) -> tuple[Array, Bytes]:
        """Rectified y, and the mask x > 0 packed into bits."""
        y = x if self.in_place else np.empty(x.shape, x.dtype)
        mask = np.empty((x.size + 7) // 8, np.uint8)
        _kernels.relu(x, y, mask, self.threads)
        return y, mask

    def backward(self, dy: Array, cache: Bytes, accumulate_into: Array | None = None) -> Array:
        """dx = dy where x > 0, else 0 (also at x = 0, where there is no derivative)."""
        dx = dy if self.in_place else np.empty(dy.shape, dy.dtype)
        _kernels.relu_backward(dy, cache, dx, self.threads)
        return _added(dx, accumulate_into)


class AveragePool:
    """y[h, w] = mean of the cell x[2h : 2h + 2, 2w : 2w + 2]; an odd last row or column is left out.

    See docs/pooling-and-relu.md#average-pooling.
    """

    def __init__(self, threads: int | None = None, arena: Arena | None = None) -> None:
        self.threads = threads
        self.arena = arena or Arena()

    def forward(self, x: Array) -> tuple[Array, Shape]:
        """Means y (H // 2, W // 2, C), and the shape of x."""
        H, W, C = x.shape
        y: Array = self.arena.borrow((H // 2, W // 2, C), x.dtype)
        _kernels.average_pool(x, y, self.threads)
        return y, x.shape

    def backward(self, dy: Array, cache: Shape, accumulate_into: Array | None = None) -> Array:
        """dx = dy / 4 in all four pixels of the cell, 0 in what was left out."""
        dx: Array = self.arena.borrow(cache, dy.dtype)
        _kernels.average_pool_backward(dy, dx, self.threads)
        return _added(dx, accumulate_into)


class MaxPool:
    """y[h, w] = largest of the cell x[2h : 2h + 2, 2w : 2w + 2]; an odd last row or column is left out.

    See docs/pooling-and-relu.md#maximum-pooling.
    """

    def __init__(self, threads: int | None = None, arena: Arena | None = None) -> None:
        self.threads = threads
        self.arena = arena or Arena()

    def forward(self, x: Array) -> tuple[Array, tuple[Bytes, Shape]]:
        """Largest y (H // 2, W // 2, C), and which of the four it was (the first of equals)."""
        H, W, C = x.shape
        y: Array = self.arena.borrow((H // 2, W // 2, C), x.dtype)
        argmax = np.empty(y.shape, np.uint8)
        _kernels.max_pool(x, y, argmax, self.threads)
        return y, (argmax, x.shape)

    def backward(self, dy: Array, cache: tuple[Bytes, Shape], accumulate_into: Array | None = None) -> Array:
        """dx = dy at the winner of the cell, 0 elsewhere."""
        argmax, shape = cache
        dx: Array = self.arena.borrow(shape, dy.dtype)
        _kernels.max_pool_backward(dy, argmax, dx, self.threads)
        return _added(dx, accumulate_into)


class CaffeInput:
    """From pixels to what the published filters were trained on: BGR with the mean color taken off.

    The filters were trained in Caffe, a program that read pictures with their channels in that order.

    y[..., c] = x[..., 2 - c] - mean[c], for x (H, W, 3) in RGB, 0..255, and no scaling; see
    weights/README.md#what-the-filters-were-trained-on.
    """

    MEAN_BGR = (103.939, 116.779, 123.68)  # of the ImageNet training pictures

    def forward(self, x: Array) -> tuple[Array, None]:
        """Centered BGR y (H, W, 3)."""
        return np.ascontiguousarray(x[:, :, ::-1] - np.array(self.MEAN_BGR, x.dtype)), None

    def backward(self, dy: Array, cache: None = None, accumulate_into: Array | None = None) -> Array:
        """dx[..., c] = dy[..., 2 - c]."""
        return _added(np.ascontiguousarray(dy[:, :, ::-1]), accumulate_into)


class TorchvisionInput:
    """From pixels to what torchvision's filters were trained on: RGB from 0 to 1, shifted and scaled.

    y[..., c] = (x[..., c] / 255 - mean[c]) / deviation[c], for x (H, W, 3) in RGB, 0..255; see
    weights/README.md#what-the-filters-were-trained-on.
    """

    MEAN = (0.485, 0.456, 0.406)
    STD = (0.229, 0.224, 0.225)

    def forward(self, x: Array) -> tuple[Array, None]:
        """Shifted and scaled y (H, W, 3)."""
        return (x / x.dtype.type(255) - np.array(self.MEAN, x.dtype)) / np.array(self.STD, x.dtype), None

    def backward(self, dy: Array, cache: None = None, accumulate_into: Array | None = None) -> Array:
        """dx = dy / (255 deviation)."""
        return _added(dy / (255 * np.array(self.STD, dy.dtype)), accumulate_into)


class ReplicatePad:
    """One more row and column on each side, copies of the outermost: y (H + 2, W + 2, C) of x (H, W, C).

    Why conv1_1 may see its picture so: docs/recipe.md#what-was-tried.
    """

    def forward(self, x: Array) -> tuple[Array, None]:
        """Padded y."""
        return np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge"), None

    def backward(self, dy: Array, cache: None = None, accumulate_into: Array | None = None) -> Array:
        """dx: what went into several places gets the sum of their derivatives."""
        rows = dy[1:-1].copy()
        rows[0] += dy[0]
        rows[-1] += dy[-1]
        dx = rows[:, 1:-1].copy()
        dx[:, 0] += rows[:, 0]
        dx[:, -1] += rows[:, -1]
        return _added(dx, accumulate_into)


class Crop:
    """The picture without its outermost rows and columns: y (H - 2, W - 2, C) of x (H, W, C).

    It undoes what `ReplicatePad` adds: docs/recipe.md#what-was-tried.
    """

    def __init__(self, arena: Arena | None = None) -> None:
        self.arena = arena or Arena()

    def forward(self, x: Array) -> tuple[Array, Shape]:
        """Cropped y, and the shape of x."""
        H, W, C = x.shape
        y: Array = self.arena.borrow((H - 2, W - 2, C), x.dtype)
        y[...] = x[1:-1, 1:-1]
        return y, x.shape

    def backward(self, dy: Array, cache: Shape, accumulate_into: Array | None = None) -> Array:
        """dx = dy inside, 0 in what was left out."""
        dx: Array = self.arena.borrow(cache, dy.dtype)
        dx[0] = dx[-1] = dx[:, 0] = dx[:, -1] = 0
        dx[1:-1, 1:-1] = dy
        return _added(dx, accumulate_into)
