"""Each compiled kernel against its NumPy twin, over dtypes, odd sizes and thread counts."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from npstyle import _kernels
from npstyle._kernels import reference
from npstyle.errors import UserError
from tolerances import SAME

Array = NDArray[Any]

DTYPES = [np.float32, np.float64]
THREADS = [1, 2, 3, 8]
# Height and width: single pixels and rows, odd and even, and more pixels than one strip or block has.
SIZES = [(1, 1), (1, 6), (5, 1), (2, 2), (3, 4), (17, 23), (33, 20), (64, 64), (97, 131)]
POOL_SIZES = [(2, 2), (3, 2), (2, 5), (17, 23), (64, 48)]
COMPILED, _ = _kernels._load("compiled")
INSTRUCTION_SETS = _kernels.instruction_sets()


@pytest.fixture(autouse=True)
def the_best_instructions_afterwards() -> Iterator[None]:
    yield
    _kernels.use(None)


def normal(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def both(name: str, inputs: tuple[Array, ...], outputs: tuple[Array, ...], threads: int) -> Any:
    """Run the compiled kernel and its twin on outputs filled with rubbish; return both sets of outputs."""
    results = []
    for functions in (COMPILED, reference):
        filled = [np.full_like(output, 77) for output in outputs]
        getattr(functions, name)(*inputs, *filled, threads)
        results.append(filled)
    return zip(*results, strict=True)


def gram_room(f: Array, threads: int = 2) -> Array:
    M, C = f.shape
    return np.empty(_kernels.gram_work(M, C, f.itemsize, threads), f.dtype)


def assert_close(found: Array, expected: Array) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=SAME[expected.dtype] * scale)


def test_every_kernel_has_a_twin_with_the_same_arguments() -> None:
    for name in _kernels.NAMES:
        compiled = list(inspect.signature(getattr(COMPILED, name)).parameters)
        twin = list(inspect.signature(getattr(reference, name)).parameters)
        checked = list(inspect.signature(getattr(_kernels, name)).parameters)
        assert compiled == twin == checked, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("C", "K"), [(3, 5), (1, 1), (8, 3)])
def test_conv3x3(size: tuple[int, int], C: int, K: int, dtype: Any) -> None:
    inputs = normal((*size, C), dtype), normal((9 * C, K), dtype, 1), normal((K,), dtype, 2)
    for found, expected in both("conv3x3", inputs, (np.empty((*size, K), dtype),), threads=2):
        assert_close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [64, 512])
def test_conv3x3_with_the_channels_of_vgg19(C: int, dtype: Any) -> None:
    inputs = normal((9, 11, C), dtype), normal((9 * C, 64), dtype, 1), normal((64,), dtype, 2)
    for found, expected in both("conv3x3", inputs, (np.empty((9, 11, 64), dtype),), threads=2):
        assert_close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 7, 8, 9, 1000, 32768 * 2 + 3])
def test_relu(N: int, dtype: Any) -> None:
    x = normal((N,), dtype)
    x[:: max(1, N // 5)] = 0
    mask = np.empty((N + 7) // 8, np.uint8)
    for found, expected in both("relu", (x,), (np.empty_like(x), mask), threads=3):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 7, 8, 9, 1000, 32768 * 2 + 3])
def test_relu_backward(N: int, dtype: Any) -> None:
    dy = normal((N,), dtype)
    mask = np.random.default_rng(1).integers(0, 256, (N + 7) // 8).astype(np.uint8)
    for found, expected in both("relu_backward", (dy, mask), (np.empty_like(dy),), threads=3):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_in_place(dtype: Any) -> None:
    x = normal((1001,), dtype)
    y, mask = x.copy(), np.empty(126, np.uint8)
    _kernels.relu(y, y, mask)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    dy = normal((1001,), dtype, 1)
    dx = dy.copy()
    _kernels.relu_backward(dx, mask, dx)
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, 0))


def test_nan_is_not_swallowed() -> None:
    x = np.full((2, 2, 1), np.nan)
    y, mask = np.zeros(4), np.zeros(1, np.uint8)
    _kernels.relu(x.reshape(-1), y, mask)
    assert np.isnan(y).all()
    for position in range(4):
        cell = np.arange(4.0)
        cell[position] = np.nan
        small, argmax = np.zeros((1, 1, 1)), np.zeros((1, 1, 1), np.uint8)
        _kernels.max_pool(cell.reshape(2, 2, 1), small, argmax)
        assert np.isnan(small).all()
        assert argmax.item() == position


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", POOL_SIZES)
@pytest.mark.parametrize("C", [1, 3, 64])
def test_pooling(size: tuple[int, int], C: int, dtype: Any) -> None:
    x = np.rint(2 * normal((*size, C), dtype))  # whole numbers, so that there are equals
    small = np.empty((size[0] // 2, size[1] // 2, C), dtype)
    argmax = np.empty(small.shape, np.uint8)
    for found, expected in both("average_pool", (x,), (small,), threads=2):
        assert_close(found, expected)
    for found, expected in both("max_pool", (x,), (small, argmax), threads=2):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", POOL_SIZES)
@pytest.mark.parametrize("C", [1, 3, 64])
def test_pooling_backward(size: tuple[int, int], C: int, dtype: Any) -> None:
    dy = normal((size[0] // 2, size[1] // 2, C), dtype)
    argmax = np.random.default_rng(1).integers(0, 4, dy.shape).astype(np.uint8)
    dx = np.empty((*size, C), dtype)
    for found, expected in both("average_pool_backward", (dy,), (dx,), threads=2):
        np.testing.assert_array_equal(found, expected)
    for found, expected in both("max_pool_backward", (dy, argmax), (dx,), threads=2):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize(("M", "C"), [(1, 32), (5, 96), (4099, 64), (777, 288)])
def test_gram(M: int, C: int, isa: str, dtype: Any) -> None:
    _kernels.use(isa)
    f = normal((M, C), dtype)
    outputs = np.empty((C, C)), gram_room(f)
    for found, expected in [*both("gram", (f,), outputs, threads=2)][:1]:
        np.testing.assert_allclose(found, expected, atol=SAME[f.dtype] * M)
        np.testing.assert_array_equal(found, found.T)
    dg = normal((C, C), np.float64, 1)
    for found, expected in [*both("gram_backward", (f, dg), (np.empty_like(f), gram_room(f)), threads=2)][:1]:
        assert_close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("M", "C"), [(1, 1), (5, 3), (600, 65)])
def test_gram_of_any_number_of_channels(M: int, C: int, dtype: Any) -> None:
    f, dg, g, df = normal((M, C), dtype), normal((C, C), np.float64, 1), np.empty((C, C)), np.empty((M, C))
    _kernels.gram(f, g, gram_room(f), 2)
    np.testing.assert_allclose(g, f.astype(np.float64).T @ f, atol=SAME[f.dtype] * M)
    df = np.empty_like(f)
    _kernels.gram_backward(f, dg, df, gram_room(f), 2)
    assert_close(df, (f @ (dg + dg.T)).astype(dtype))


def test_gram_blocks_are_added_in_double() -> None:
    """2^33 from the first block, 512 from the second: in float32 the sum would stay 2^33."""
    f = np.repeat(np.array([4096, 1], np.float32), 512)[:, None] * np.ones((1, 32), np.float32)
    g = np.empty((32, 32))
    _kernels.gram(f, g, gram_room(f), 2)
    assert (g == 2**33 + 512).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_number_of_threads(dtype: Any) -> None:
    x, w, b = normal((97, 131, 3), dtype), normal((27, 16), dtype), normal((16,), dtype)
    F = normal((97 * 131, 16), dtype)
    runs = []
    for threads in THREADS:
        y, g, df = np.empty((97, 131, 16), dtype), np.empty((16, 16)), np.empty_like(F)
        _kernels.conv3x3(x, w, b, y, threads)
        _kernels.gram(F, g, gram_room(F, threads), threads)
        _kernels.gram_backward(F, g, df, gram_room(F, threads), threads)
        pooled, spread = np.empty((48, 65, 16), dtype), np.empty_like(y)
        _kernels.average_pool(y, pooled, threads)
        _kernels.average_pool_backward(pooled, spread, threads)
        mask = np.empty((y.size + 7) // 8, np.uint8)
        _kernels.relu(y.reshape(-1), y.reshape(-1), mask, threads)
        runs.append((y, g, df, pooled, spread, mask))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one, other)


# VGG19's channel counts, and some that are no power of two; maps of one tile, of few, and of many.
WINOGRAD_CHANNELS = [
    (64, 64),
    (64, 128),
    (128, 128),
    (128, 256),
    (256, 256),
    (256, 512),
    (512, 512),
    (32, 96),
]
WINOGRAD_SIZES = [(1, 1), (6, 6), (7, 13), (40, 23)]


# A single tile; by panels, in one batch and in several; by blocks; with tiles of both sizes.
WINOGRAD_SHAPES = [
    (5, 4, 32, 64),
    (13, 20, 96, 160),
    (60, 90, 32, 64),
    (101, 107, 32, 64),
    (33, 40, 288, 256),
    (72, 90, 288, 256),
]


def winograd_arrays(H: int, W: int, C: int, K: int, dtype: Any) -> tuple[Array, ...]:
    """x, w, b, and room for y and mask."""
    w = (normal((9 * C, K), dtype, 1) / np.sqrt(9 * C)).astype(dtype)
    mask = np.empty(H * W * K // 8, np.uint8)
    return normal((H, W, C), dtype), w, normal((K,), dtype, 2), np.empty((H, W, K), dtype), mask


def room(H: int, W: int, C: int, K: int, dtype: Any, threads: int | None = None) -> Array:
    """Filled with NaN, so that nothing in it is used before it is written."""
    return np.full(_kernels.winograd_work(H, W, C, K, np.dtype(dtype).itemsize, threads), np.nan, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", WINOGRAD_SIZES)
@pytest.mark.parametrize(("C", "K"), WINOGRAD_CHANNELS)
def test_winograd_computes_what_im2col_and_relu_compute(
    size: tuple[int, int], C: int, K: int, dtype: Any
) -> None:
    x, w, b, y, mask = winograd_arrays(*size, C, K, dtype)
    _kernels.winograd(x, w, b, y, mask, room(*size, C, K, dtype))
    z = np.empty_like(y)
    _kernels.conv3x3(x, w, b, z)
    assert_close(y, np.maximum(z, 0))
    # Bits may differ only where the sum is about zero.
    differ = np.unpackbits(mask, bitorder="little").reshape(z.shape) != (z > 0)
    assert np.abs(z[differ]).max(initial=0) < SAME[x.dtype]

    dy, dx = normal(y.shape, dtype, 3), np.full_like(x, np.nan)
    bits = np.unpackbits(mask, bitorder="little").reshape(y.shape).astype(dtype)
    _kernels.winograd_backward(dy, mask, w, dx, False, room(*size, K, C, dtype))
    expected = np.empty_like(x)
    reference.conv3x3_backward(dy * bits, w, expected)
    assert_close(dx, expected)
    accumulate_into = normal(x.shape, dtype, 4)
    added = accumulate_into.copy()
    _kernels.winograd_backward(dy, mask, w, added, True, room(*size, K, C, dtype))
    np.testing.assert_array_equal(added, accumulate_into + dx)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("H", "W", "C", "K"), WINOGRAD_SHAPES)
def test_winograd(H: int, W: int, C: int, K: int, isa: str, dtype: Any) -> None:
    assert _kernels.use(isa) == isa
    x, w, b, y, mask = winograd_arrays(H, W, C, K, dtype)
    work = room(H, W, C, K, dtype)
    twins = y.copy(), mask.copy()
    _kernels.winograd(x, w, b, y, mask, work)
    reference.winograd(x, w, b, *twins, work, 1)
    assert_close(y, twins[0])
    bits, twin_bits = (np.unpackbits(m, bitorder="little").reshape(y.shape) for m in (mask, twins[1]))
    differ = bits != twin_bits
    assert np.maximum(y, twins[0])[differ].max(initial=0) < SAME[x.dtype]
    assert differ.mean() < 1e-3

    dy, dx = normal(y.shape, dtype, 3), normal(x.shape, dtype, 4)
    twin = dx.copy()
    for add in (True, False):
        _kernels.winograd_backward(dy, mask, w, dx, add, room(H, W, K, C, dtype))
        reference.winograd_backward(dy, mask, w, twin, add, work, 1)
        assert_close(dx, twin)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("H", "W", "C", "K"),
    [(1, 1, 3, 64), (5, 7, 3, 64), (17, 33, 1, 32), (9, 200, 2, 96), (200, 250, 3, 64)],
)
def test_thin(H: int, W: int, C: int, K: int, isa: str, dtype: Any) -> None:
    _kernels.use(isa)
    x, w, b, y, mask = winograd_arrays(H, W, C, K, dtype)
    twins = y.copy(), mask.copy()
    _kernels.first_layer(x, w, b, y, mask)
    reference.first_layer(x, w, b, *twins, 1)
    assert_close(y, twins[0])
    bits, twin_bits = (np.unpackbits(m, bitorder="little").reshape(y.shape) for m in (mask, twins[1]))
    assert np.maximum(y, twins[0])[bits != twin_bits].max(initial=0) < SAME[x.dtype]
    dy, dx = normal(y.shape, dtype, 3), np.full_like(x, np.nan)
    twin = dx.copy()
    _kernels.first_layer_backward(dy, mask, w, dx)
    reference.first_layer_backward(dy, mask, w, twin, 1)
    assert_close(dx, twin)


def test_thin_does_not_depend_on_the_number_of_threads() -> None:
    runs = []
    for threads in THREADS:
        x, w, b, y, mask = winograd_arrays(97, 131, 3, 64, np.float32)
        _kernels.first_layer(x, w, b, y, mask, threads)
        _kernels.first_layer_backward(y, mask, w, x, threads)
        runs.append((x, y, mask))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("out", reference.POINTS)
def test_winograds_transforms_are_exact_for_one_row(out: int) -> None:
    """A' [(G g) . (B' d)] is the correlation of d with g, unit vector by unit vector."""
    B, G, A = reference.winograd_transforms(out)
    for position in range(3):
        for place in range(out + 2):
            d, g = np.eye(out + 2)[place], np.eye(3)[position]
            expected = np.zeros(out)
            if 0 <= place - position < out:
                expected[place - position] = 1
            np.testing.assert_allclose(A @ ((G @ g) * (B @ d)), expected, atol=1e-13)


@pytest.mark.parametrize("out", reference.POINTS)
def test_winograds_twin_is_a_convolution(out: int) -> None:
    x, w = normal((7, 10, 3), np.float64), normal((27, 4), np.float64, 1)
    expected = (reference.im2col(x) @ w).reshape(7, 10, 4)
    assert_close(reference.winograd_convolution(x, w.reshape(3, 3, 3, 4), out), expected)


def test_small_layers_take_small_tiles() -> None:
    """And the sizes tested above take both."""
    module = import_module("npstyle._kernels._winograd")
    assert [module.winograd_tile(side, side, 512, 512, 4) for side in (8, 16, 32, 64)] == [6, 6, 6, 8]
    for isa in INSTRUCTION_SETS:
        _kernels.use(isa)
        assert {module.winograd_tile(*shape, 4) for shape in WINOGRAD_SHAPES} == {6, 8}


def test_winograd_passes_nan_on_and_counts_it_as_not_positive() -> None:
    x, w, b, y, mask = winograd_arrays(6, 6, 32, 32, np.float32)
    b[3] = np.nan
    _kernels.winograd(x, w, b, y, mask, room(6, 6, 32, 32, np.float32))
    assert np.isnan(y[:, :, 3]).all()
    assert not np.isnan(np.delete(y, 3, 2)).any()
    assert not np.unpackbits(mask, bitorder="little").reshape(y.shape)[:, :, 3].any()


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize(("H", "W", "C", "K"), [(101, 107, 64, 64), (60, 90, 64, 64), (33, 70, 288, 256)])
def test_winograd_does_not_depend_on_the_number_of_threads(H: int, W: int, C: int, K: int, isa: str) -> None:
    _kernels.use(isa)
    runs = []
    for threads in THREADS:
        x, w, b, y, mask = winograd_arrays(H, W, C, K, np.float32)
        _kernels.winograd(x, w, b, y, mask, room(H, W, C, K, np.float32, threads), threads)
        _kernels.winograd_backward(y, mask, w, x, True, room(H, W, K, C, np.float32, threads), threads)
        runs.append((x, y, mask))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w": np.ones((288, 33), np.float32)}, ["32 to 33 channels", "multiples of 32", "conv3x3"]),
        ({"mask": np.ones(5, np.uint8)}, ["mask", "(5,)", "(80,)"]),
        ({"work": np.ones(5, np.float32)}, ["work", "(5,)"]),
        ({"y": np.ones((4, 5, 32))}, ["y", "float64", "float32"]),
    ],
)
def test_winograds_arguments_are_checked(change: dict[str, Any], words: list[str]) -> None:
    x, w, b, y, mask = winograd_arrays(4, 5, 32, 32, np.float32)
    arguments = {"x": x, "w": w, "b": b, "y": y, "mask": mask, "work": room(4, 5, 32, 32, np.float32)}
    with pytest.raises(UserError) as caught:
        _kernels.winograd(**{**arguments, **change})
    for word in words:
        assert word in str(caught.value)


def test_instruction_sets_that_are_not_here_are_refused() -> None:
    assert _kernels.use(None) in INSTRUCTION_SETS
    with pytest.raises(UserError, match="no such instructions here"):
        _kernels.use("mmx")


def test_inputs_may_be_read_only() -> None:
    x, w, b, y = np.ones((4, 4, 3)), np.ones((27, 2)), np.ones(2), np.empty((4, 4, 2))
    for array in (x, w, b):
        array.flags.writeable = False
    _kernels.conv3x3(x, w, b, y)
    assert y[1, 1, 0] == 28  # 27 products of ones and the bias
    assert y[0, 0, 0] == 13  # a corner sees four pixels of three channels


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w": np.ones((26, 2))}, ["w", "(26, 2)", "(27, 2)"]),
        ({"b": np.ones(3)}, ["b", "(3,)", "(2,)"]),
        ({"y": np.ones((4, 5, 2))}, ["y", "(4, 5, 2)", "(4, 4, 2)"]),
        ({"w": np.ones((27, 2), np.float32)}, ["w", "float32", "float64"]),
        ({"x": np.ones((4, 4, 3), np.int64)}, ["int64", "float32 or float64"]),
        ({"x": np.ones((4, 4, 6))[:, :, ::2]}, ["x", "gaps", "ascontiguousarray"]),
        ({"x": np.ones((0, 4, 3)), "y": np.ones((0, 4, 2))}, ["(0, 4, 3)", "no empty dimension"]),
        ({"threads": 0}, ["threads", "0", "from 1"]),
    ],
)
def test_arguments_are_checked_before_the_kernel_is_entered(change: dict[str, Any], words: list[str]) -> None:
    arguments: dict[str, Any] = {
        "x": np.ones((4, 4, 3)),
        "w": np.ones((27, 2)),
        "b": np.ones(2),
        "y": np.ones((4, 4, 2)),
        "threads": 1,
    }
    with pytest.raises(UserError) as caught:
        _kernels.conv3x3(**{**arguments, **change})
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_reference_is_chosen_by_environment_variable_only() -> None:
    code = (
        "from npstyle import _kernels; print(_kernels.IMPLEMENTATION, _kernels._kernels.conv3x3.__module__)"
    )
    assert python(code).stdout.split() == ["compiled", "npstyle._kernels._convolution"]
    chosen = python(code, NPSTYLE_KERNELS="reference").stdout.split()
    assert chosen == ["reference", "npstyle._kernels.reference"]
    wrong = python(code, NPSTYLE_KERNELS="fast")
    assert wrong.returncode == 1
    assert "'compiled' or 'reference'" in wrong.stderr


def test_missing_compiled_kernels_are_an_error_and_no_fallback() -> None:
    code = (
        "import sys; sys.modules['npstyle._kernels._gram'] = None\n"
        "try:\n    import npstyle._kernels\n"
        "except ImportError as error:\n    print(error)"
    )
    told = python(code).stdout
    assert "pip install -e ." in told
    assert "NPSTYLE_KERNELS=reference" in told
