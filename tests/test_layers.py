"""Each layer: values by hand, the exact adjoint, a directional derivative, the formula of the docstring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import normal
from npstyle import UserError
from npstyle._kernels import reference
from npstyle.fused import FirstLayerConvReLU, WinogradConvReLU, WinogradConvReLUPool
from npstyle.gradcheck import adjoint, directional
from npstyle.layers import (
    AveragePool,
    CaffeInput,
    Conv2D,
    MaxPool,
    ReLU,
    TorchvisionInput,
)
from npstyle.padding import Crop, ReplicatePad, WrapPad
from tolerances import ADJOINT, DIRECTIONAL, SAME

Array = NDArray[Any]

DTYPES = [np.float32, np.float64]
SIZES = [(2, 2), (3, 5), (8, 8), (17, 13)]


def conv(C: int = 3, K: int = 4, dtype: Any = np.float64) -> Conv2D:
    return Conv2D(normal(3, 3, C, K, dtype=dtype, seed=1), normal(K, dtype=dtype, seed=2))


def test_convolution_is_the_sum_of_the_docstring() -> None:
    layer, x = conv(), normal(4, 5, 3)
    y, _ = layer.forward(x)
    for h, w, k in [(0, 0, 0), (3, 4, 3), (2, 1, 2), (0, 3, 1)]:
        total = layer.bias[k]
        for i in range(3):
            for j in range(3):
                if 0 <= h + i - 1 < 4 and 0 <= w + j - 1 < 5:
                    total += x[h + i - 1, w + j - 1] @ layer.kernel[i, j, :, k]
        assert y[h, w, k] == pytest.approx(total, rel=1e-12)


def test_convolution_by_hand() -> None:
    kernel = np.arange(9.0).reshape(3, 3, 1, 1)
    x = np.zeros((3, 3, 1))
    x[1, 1] = 1  # an impulse: the output is the kernel, rotated by 180 degrees
    y, _ = Conv2D(kernel, np.array([10.0])).forward(x)
    np.testing.assert_array_equal(y[:, :, 0], 10 + np.arange(9.0)[::-1].reshape(3, 3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_convolution_backward_is_the_adjoint(size: tuple[int, int], dtype: Any) -> None:
    layer = conv(dtype=dtype)
    x = normal(*size, 3, dtype=dtype)
    assert adjoint(lambda x: layer.forward(x)[0], layer.backward, x).error < ADJOINT[x.dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_flipped_kernel_and_col2im_are_the_same_adjoint(size: tuple[int, int], dtype: Any) -> None:
    layer, dy = conv(dtype=dtype), normal(*size, 4, dtype=dtype)
    expected = np.empty((*size, 3), dtype)
    reference.conv3x3_backward(dy, layer.kernel.reshape(27, 4), expected)
    np.testing.assert_allclose(layer.backward(dy), expected, atol=SAME[dy.dtype] * np.abs(expected).max())


def test_im2col_and_col2im_are_adjoint() -> None:
    x = normal(5, 7, 3)
    assert adjoint(reference.im2col, lambda p: reference.col2im(p, (5, 7, 3)), x).error < ADJOINT[x.dtype]


@pytest.mark.parametrize("size", SIZES)
def test_convolution_directional(size: tuple[int, int]) -> None:
    layer = conv()
    assert directional(lambda x: layer.forward(x)[0], layer.backward, normal(*size, 3)).error < DIRECTIONAL


FUSED = [(WinogradConvReLU, 32), (FirstLayerConvReLU, 3)]


def fused(make: Any, C: int, bias: Array) -> Any:
    return make(normal(3, 3, C, bias.size, dtype=bias.dtype, seed=1), bias)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*SIZES, (50, 70)])
@pytest.mark.parametrize(("make", "C"), FUSED)
def test_fused_layers_backward_is_the_adjoint(make: Any, C: int, size: tuple[int, int], dtype: Any) -> None:
    """Where every output is positive, the layer is a convolution, and affine."""
    layer = fused(make, C, np.full(64, 1e3, dtype))
    x = normal(*size, C, dtype=dtype)
    _, mask = layer.forward(x)
    assert np.unpackbits(mask).all()
    error = adjoint(lambda x: layer.forward(x)[0], lambda v: layer.backward(v, mask), x).error
    assert error < ADJOINT[x.dtype]


@pytest.mark.parametrize("size", [*SIZES, (50, 70)])
@pytest.mark.parametrize(("make", "C"), FUSED)
def test_fused_layers_directional_away_from_the_kink(make: Any, C: int, size: tuple[int, int]) -> None:
    """With biases so large, of either sign, that no output is near zero."""
    layer, x = fused(make, C, 1e3 * np.sign(normal(64, seed=2))), normal(*size, C)
    y, mask = layer.forward(x)
    assert 0.2 < (y > 0).mean() < 0.8
    error = directional(lambda x: layer.forward(x)[0], lambda v: layer.backward(v, mask), x).error
    assert error < DIRECTIONAL


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("make", "C"), FUSED)
def test_fused_layers_equal_conv2d_and_relu(make: Any, C: int, dtype: Any) -> None:
    layer, x = fused(make, C, normal(64, dtype=dtype, seed=2)), normal(9, 14, C, dtype=dtype)
    conv2d, relu = Conv2D(layer.matrix.reshape(3, 3, C, 64), layer.bias), ReLU()
    y, mask = layer.forward(x)
    expected, mask_expected = relu.forward(conv2d.forward(x)[0])
    np.testing.assert_allclose(y, expected, atol=SAME[x.dtype] * expected.max())
    dy = normal(*y.shape, dtype=dtype, seed=3)
    dx = conv2d.backward(relu.backward(dy, mask_expected))
    np.testing.assert_allclose(layer.backward(dy, mask), dx, atol=SAME[x.dtype] * np.abs(dx).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*SIZES, (50, 70), (61, 37)])
def test_convolution_and_pooling_in_one_pass_have_the_bits_of_two(size: tuple[int, int], dtype: Any) -> None:
    layer = fused(WinogradConvReLU, 32, normal(64, dtype=dtype, seed=2))
    joined, pool = fused(WinogradConvReLUPool, 32, layer.bias), AveragePool()
    x = normal(*size, 32, dtype=dtype)
    F, mask = layer.forward(x)
    expected, shape = pool.forward(F)
    y, cache = joined.forward(x)
    np.testing.assert_array_equal(y, expected)
    dy, given = normal(*y.shape, dtype=dtype, seed=3), normal(*x.shape, dtype=dtype, seed=4)
    dF = pool.backward(dy, shape)
    np.testing.assert_array_equal(joined.backward(dy, cache), layer.backward(dF, mask))
    added = layer.backward(dF, mask, given.copy())
    np.testing.assert_array_equal(joined.backward(dy, cache, given.copy()), added)


@pytest.mark.parametrize("size", [*SIZES, (50, 70)])
def test_convolution_and_pooling_in_one_pass_directional(size: tuple[int, int]) -> None:
    layer, x = fused(WinogradConvReLUPool, 32, 1e3 * np.sign(normal(64, seed=2))), normal(*size, 32)
    _, cache = layer.forward(x)
    error = directional(lambda x: layer.forward(x)[0], lambda v: layer.backward(v, cache), x).error
    assert error < DIRECTIONAL


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*SIZES, (1, 1), (50, 70)])
def test_first_layer_that_replicates_has_the_bits_of_padding_and_crop(
    size: tuple[int, int], dtype: Any
) -> None:
    zeros, pad, crop = fused(FirstLayerConvReLU, 3, normal(64, dtype=dtype, seed=2)), ReplicatePad(), Crop()
    layer = FirstLayerConvReLU(zeros.matrix.reshape(3, 3, 3, 64), zeros.bias, replicate=True)
    x = normal(*size, 3, dtype=dtype)
    padded, mask = zeros.forward(pad.forward(x)[0])
    expected, shape = crop.forward(padded)
    y, bits = layer.forward(x)
    np.testing.assert_array_equal(y, expected)
    dy, given = normal(*y.shape, dtype=dtype, seed=3), normal(*x.shape, dtype=dtype, seed=4)
    dx = pad.backward(zeros.backward(crop.backward(dy, shape), mask))
    np.testing.assert_array_equal(layer.backward(dy, bits), dx)
    np.testing.assert_array_equal(layer.backward(dy, bits, given.copy()), given + dx)


LAYERS = [
    (lambda: conv(), (4, 5, 3)),
    (lambda: fused(WinogradConvReLU, 32, normal(64, seed=2)), (4, 5, 32)),
    (lambda: fused(WinogradConvReLUPool, 32, normal(64, seed=2)), (4, 5, 32)),
    (lambda: fused(FirstLayerConvReLU, 3, normal(64, seed=2)), (4, 5, 3)),
    (ReLU, (4, 5, 3)),
    (lambda: ReLU(in_place=True), (4, 5, 3)),
    (AveragePool, (4, 5, 3)),
    (MaxPool, (4, 5, 3)),
    (CaffeInput, (4, 5, 3)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_backward_accumulates(make: Any, shape: tuple[int, ...]) -> None:
    layer, x, accumulate_into = make(), normal(*shape), normal(*shape, seed=5)
    y, cache = layer.forward(x.copy())
    dy = normal(*y.shape, seed=6)
    alone = layer.backward(dy.copy(), cache).copy()
    before = accumulate_into.copy()
    added = layer.backward(dy.copy(), cache, accumulate_into)
    assert added is accumulate_into
    np.testing.assert_allclose(added, before + alone, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("in_place", [False, True])
def test_relu_by_hand(in_place: bool) -> None:
    layer = ReLU(in_place=in_place)
    x = np.array([-1.0, 0.0, 2.0]).reshape(1, 1, 3)
    y, mask = layer.forward(x)
    np.testing.assert_array_equal(y.ravel(), [0, 0, 2])
    assert (y is x) == in_place
    dy = np.array([5.0, 6.0, 7.0]).reshape(1, 1, 3)
    np.testing.assert_array_equal(layer.backward(dy, mask).ravel(), [0, 0, 7])


@pytest.mark.parametrize("size", SIZES)
def test_relu_directional_away_from_the_kink(size: tuple[int, int]) -> None:
    layer, x = ReLU(), normal(*size, 3)
    x = np.where(np.abs(x) < 0.01, 0.5, x)
    _, mask = layer.forward(x)
    assert (
        directional(lambda x: layer.forward(x)[0], lambda v: layer.backward(v, mask), x).error < DIRECTIONAL
    )


def test_average_pool_by_hand() -> None:
    x = np.arange(12.0).reshape(3, 4, 1)
    y, shape = AveragePool().forward(x)
    np.testing.assert_array_equal(y[:, :, 0], [[2.5, 4.5]])
    dx = AveragePool().backward(np.array([4.0, 8.0]).reshape(1, 2, 1), shape)
    np.testing.assert_array_equal(dx[:, :, 0], [[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 0, 0]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_average_pool_backward_is_the_adjoint(size: tuple[int, int], dtype: Any) -> None:
    layer, x = AveragePool(), normal(*size, 3, dtype=dtype)
    error = adjoint(lambda x: layer.forward(x)[0], lambda v: layer.backward(v, x.shape), x).error
    assert error < ADJOINT[x.dtype]


def test_max_pool_by_hand() -> None:
    x = np.array([[1.0, 7, 3, 3], [5, 2, 3, 3], [9, 9, 9, 9]]).reshape(3, 4, 1)
    y, cache = MaxPool().forward(x)
    np.testing.assert_array_equal(y[:, :, 0], [[7, 3]])
    dx = MaxPool().backward(np.array([4.0, 8.0]).reshape(1, 2, 1), cache)
    np.testing.assert_array_equal(dx[:, :, 0], [[0, 4, 8, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("size", SIZES)
def test_max_pool_directional(size: tuple[int, int]) -> None:
    layer = MaxPool()
    # All values a distance apart, so that no step changes an argmax.
    x = np.random.default_rng(0).permutation(size[0] * size[1] * 3).reshape(*size, 3).astype(np.float64)
    _, cache = layer.forward(x)
    error = directional(lambda x: layer.forward(x)[0], lambda v: layer.backward(v, cache), x).error
    assert error < DIRECTIONAL


def test_caffe_input_is_centered_bgr() -> None:
    x = np.array([123.68 + 3, 116.779 + 2, 103.939 + 1]).reshape(1, 1, 3)
    np.testing.assert_allclose(CaffeInput().forward(x)[0].ravel(), [1, 2, 3])
    x = normal(4, 5, 3)
    layer = CaffeInput()
    assert adjoint(lambda x: layer.forward(x)[0], layer.backward, x).error < ADJOINT[x.dtype]


def test_arrays_with_gaps_are_rejected() -> None:
    """Reshaping a transposed view makes a copy, and what a kernel writes to that would be lost."""
    x = normal(6, 4, 3).transpose(1, 0, 2)
    for layer in (ReLU(), ReLU(in_place=True)):
        with pytest.raises(UserError, match="an array with gaps"):
            layer.forward(x)
        with pytest.raises(UserError, match="an array with gaps"):
            layer.backward(x, np.zeros(9, np.uint8))
    with pytest.raises(UserError, match="an array with gaps"):
        conv().forward(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(3, 3), (3, 5), (8, 8), (17, 13)])
@pytest.mark.parametrize("make", [TorchvisionInput, ReplicatePad, WrapPad, Crop])
def test_affine_layers_backward_is_the_adjoint(make: Any, size: tuple[int, int], dtype: Any) -> None:
    layer, x = make(), normal(*size, 3, dtype=dtype)
    _, cache = layer.forward(x)
    error = adjoint(lambda x: layer.forward(x)[0], lambda v: layer.backward(v, cache), x).error
    assert error < ADJOINT[x.dtype]
    accumulate_into = normal(*size, 3, dtype=dtype, seed=1)
    dy = normal(*layer.forward(x)[0].shape, dtype=dtype, seed=2)
    expected = accumulate_into + layer.backward(dy, cache)
    np.testing.assert_allclose(layer.backward(dy, cache, accumulate_into), expected, rtol=1e-6, atol=1e-6)


def test_replicate_pad_and_crop_by_hand() -> None:
    x = np.array([[1.0, 2.0], [3.0, 4.0]])[:, :, None]
    y, _ = ReplicatePad().forward(x)
    np.testing.assert_array_equal(y[:, :, 0], [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
    np.testing.assert_array_equal(Crop().forward(y)[0], x)


def test_wrap_pad_by_hand() -> None:
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[:, :, None]
    y, _ = WrapPad().forward(x)
    np.testing.assert_array_equal(
        y[:, :, 0], [[6, 4, 5, 6, 4], [3, 1, 2, 3, 1], [6, 4, 5, 6, 4], [3, 1, 2, 3, 1]]
    )
    np.testing.assert_array_equal(Crop().forward(y)[0], x)
    one_pixel = normal(1, 1, 3)
    np.testing.assert_array_equal(WrapPad().forward(one_pixel)[0], np.tile(one_pixel, (3, 3, 1)))
    np.testing.assert_allclose(WrapPad().backward(np.ones((3, 3, 3))), np.full((1, 1, 3), 9.0))


def test_torchvision_input_by_hand() -> None:
    y, _ = TorchvisionInput().forward(np.array([[[255.0, 0.0, 127.5]]]))
    np.testing.assert_allclose(y, [[[(1 - 0.485) / 0.229, -0.456 / 0.224, (0.5 - 0.406) / 0.225]]])
