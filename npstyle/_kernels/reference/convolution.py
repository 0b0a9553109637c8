"""3x3 convolution as one matrix product, and the adjoint: docs/convolution.md.

The definitions are `convolution` and its adjoint `convolution_backward`, with the whole patch matrix P, which
is nine times the input. The kernels compute the same a few rows of the picture at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from npstyle._kernels.reference.relu import relu, relu_backward
from npstyle._typing import AnyArray, Array, Bytes

Strip = tuple[int, int] | None  # first row of an output, and the height of the picture that it is a strip of

# Pixels whose patches are in memory at a time: 2.4 MB at 64 channels, about what a core's cache holds. With
# 16,384, all of them at 128 x 128 pixels, such a layer took three times as long.
MAX_STRIP = 1024


def convolution(x: Array, w: Array, b: Array) -> Array:
    """y = P Q + b with P = im2col(x), Q = w. x (H, W, C), w (9C, K), b (K,), y (H, W, K)."""
    H, W, _ = x.shape
    y: Array = (im2col(x) @ w + b).reshape(H, W, -1)
    return y


def convolution_backward(dy: Array, w: Array) -> Array:
    """dx = col2im(dP) with dP = dy Q', Q = w: the adjoint of `convolution`, read off its formula.

    dy (H, W, K), w (9C, K), dx (H, W, C). `npstyle.layers.Conv2D` computes it by another `conv3x3`, with the
    kernel flipped, so that no two outputs share an address.
    """
    H, W, K = dy.shape
    return col2im(dy.reshape(-1, K) @ w.T, (H, W, len(w) // 9))


def im2col(x: Array) -> Array:
    """Patch matrix P (H W, 9C) of x (H, W, C): row h W + w is the zero-padded 3x3 patch around (h, w)."""
    return patches_within(np.pad(x, ((1, 1), (1, 1), (0, 0))))


def col2im(patches: Array, shape: tuple[int, int, int]) -> Array:
    """Adjoint of `im2col`: each element of the patches (H W, 9C) is added to the pixel it came from."""
    H, W, C = shape
    padded = np.zeros((H + 2, W + 2, C), patches.dtype)
    add_patches(patches, padded)
    return padded[1:-1, 1:-1]


def patches_within(padded: Array) -> Array:
    """The 3x3 patches (H W, 9C) of a picture (H + 2, W + 2, C) that has its padding."""
    H, W, C = np.subtract(padded.shape, (2, 2, 0))
    windows = sliding_window_view(padded, (3, 3), axis=(0, 1))  # (H, W, C, 3, 3)
    return windows.transpose(0, 1, 3, 4, 2).reshape(H * W, 9 * C)


def add_patches(patches: Array, padded: Array) -> None:
    """Adjoint of `patches_within`: add each element of patches (H W, 9C) to where it came from."""
    H, W, C = np.subtract(padded.shape, (2, 2, 0))
    windows = patches.reshape(H, W, 3, 3, C)
    for i in range(3):
        for j in range(3):
            padded[i : i + H, j : j + W] += windows[:, :, i, j]


def strips(H: int, W: int) -> Iterator[slice]:
    """Rows of a picture, at most MAX_STRIP pixels at a time, but at least one row."""
    rows = conv3x3_rows(W)
    return (slice(first, min(first + rows, H)) for first in range(0, H, rows))


def conv3x3_workspace(H: int, W: int, C: int, K: int, itemsize: int, threads: int) -> int:
    """Elements of the padded input, and of a strip of patches."""
    return (H + 2) * (W + 2) * C + min(H * W, max(W, MAX_STRIP)) * 9 * C


def conv3x3_rows(W: int) -> int:
    """Those of a matrix product: a row may have other bits in a product of another size."""
    return max(1, MAX_STRIP // max(1, W))


def conv3x3(x: Array, w: Array, b: Array, y: Array, threads: int, strip: Strip = None) -> None:
    """y = `convolution(x, w, b)`, some rows at a time.

    With a `strip` (first row, height of the picture), y are those rows of the picture that begin there, and x
    has one more above and below, where the picture has.
    """
    _convolve(np.pad(x, ((1, 1), (1, 1), (0, 0))), w, b, y, strip)


def _convolve(padded: Array, w: Array, b: Array, y: Array, strip: Strip) -> None:
    """`conv3x3` of what has its padding."""
    H, W, K = y.shape
    padded = padded[int(strip is not None and strip[0] > 0) :]
    for rows in strips(H, W):
        np.matmul(patches_within(padded[rows.start : rows.stop + 2]), w, out=y[rows].reshape(-1, K))
    y += b


def rows_of_strip(computed: AnyArray, rows: int, strip: Strip) -> AnyArray:
    """Of what was computed from the rows of a strip and their neighbors, the strip's rows."""
    above = int(strip is not None and strip[0] > 0)
    return computed[above : above + rows]


def conv3x3_backward(dy: Array, w: Array, dx: Array) -> None:
    """dx = `convolution_backward(dy, w)`, a row of dy at a time, so that a strip may begin at any."""
    H, W, _ = dy.shape
    padded = np.zeros((H + 2, W + 2, dx.shape[2]), dx.dtype)
    for row in range(H):
        add_patches(dy[row] @ w.T, padded[row : row + 3])
    dx[...] = padded[1:-1, 1:-1]


def first_layer_workspace(H: int, W: int, C: int, K: int, itemsize: int, threads: int) -> int:
    """0: NumPy allocates what it needs."""
    return 0


def first_layer(
    x: Array,
    w: Array,
    b: Array,
    y: Array,
    mask: Bytes,
    workspace: Array,
    threads: int,
    strip: Strip = None,
    replicate: bool = False,
) -> None:
    """y = max(P Q + b, 0), mask as in `relu`. x (H, W, C), w (9C, K), b (K,), y (H, W, K).

    Beyond the border of x are zeros, or, to replicate, its outermost pixels.
    """
    _convolve(np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge" if replicate else "constant"), w, b, y, strip)
    relu(y.reshape(-1), y.reshape(-1), mask, threads)


def first_layer_backward(
    dy: Array,
    mask: Bytes,
    w: Array,
    dx: Array,
    workspace: Array,
    threads: int,
    strip: Strip = None,
    replicate: bool = False,
) -> None:
    """dx = col2im(dP) with dP = dz Q', where dz is dy where the mask has a bit, else 0.

    To replicate, pixels at the border get the gradients of their copies, too.
    """
    dz = np.empty(dy.shape, dy.dtype)
    relu_backward(dy.reshape(-1), mask, dz.reshape(-1), threads)
    if replicate:
        dz = np.pad(dz, ((1, 1), (1, 1), (0, 0)))
    computed = np.empty((*dz.shape[:2], dx.shape[2]), dx.dtype)
    conv3x3_backward(dz, w, computed)
    if replicate:
        computed[1] += computed[0]
        computed[-2] += computed[-1]
        computed[:, 1] += computed[:, 0]
        computed[:, -2] += computed[:, -1]
        computed = computed[1:-1, 1:-1]
    dx[...] = rows_of_strip(computed, len(dx), strip)
