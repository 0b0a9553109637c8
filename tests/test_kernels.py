"""Each compiled kernel against its reference, over shapes, dtypes, instruction sets and threads."""

from __future__ import annotations

import ctypes
import inspect
import mmap
import os
import platform
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers import normal
from npstyle import _kernels
from npstyle._kernels import _loading, reference
from npstyle._runtime.threads import one_blas_thread
from npstyle.errors import UserError
from tolerances import SAME

Array = NDArray[Any]

DTYPES = [np.float32, np.float64]
THREADS = [1, 2, 3, 8]
# Height and width: single pixels and rows, odd and even, and more pixels than one strip or block has.
SIZES = [(1, 1), (1, 6), (5, 1), (2, 2), (3, 4), (17, 23), (33, 20), (64, 64), (97, 131)]
POOL_SIZES = [(2, 2), (3, 2), (2, 5), (17, 23), (64, 48)]
COMPILED, _, _ = _loading.load("compiled")
INSTRUCTION_SETS = _kernels.instruction_sets()
# Those to test kernels with: with NPSTYLE_TEST_ONE_ISA the best one, where others are tested elsewhere.
TESTED_SETS = INSTRUCTION_SETS[: 1 if os.environ.get("NPSTYLE_TEST_ONE_ISA") else None]

# Random shapes: the same ones in every run, and few enough to be quick.
random_shapes = settings(max_examples=30, derandomize=True, database=None, deadline=None)
any_dtype = st.sampled_from(DTYPES)
any_isa = st.sampled_from(TESTED_SETS)
any_threads = st.integers(1, 4)
any_size = st.integers(1, 40)
multiple_of_32 = st.integers(1, 5).map(lambda n: 32 * n)


@pytest.fixture(autouse=True)
def best_instruction_set_afterwards() -> Iterator[None]:
    yield
    _kernels.set_isa(None)


@pytest.fixture(autouse=True, scope="module")
def one_thread_of_blas_for_the_reference() -> Iterator[None]:
    """Several wait for each other in loops, for five times as long as they compute beside other programs."""
    with one_blas_thread():
        yield


def run_both(name: str, inputs: tuple[Array, ...], outputs: tuple[Array, ...], threads: int) -> Any:
    """Outputs of the compiled kernel, which were filled with 77 before, each with that of the reference."""
    results = []
    for functions in (COMPILED, reference):
        filled = [np.full_like(output, 77) for output in outputs]
        getattr(functions, name)(*inputs, *filled, threads)
        results.append(filled)
    return zip(*results, strict=True)


def assert_close(actual: Array, expected: Array) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=SAME[expected.dtype] * scale)


def bits(mask: Array, shape: tuple[int, ...]) -> Array:
    return np.unpackbits(mask, bitorder="little").reshape(shape)


def nan_workspace(size: int, dtype: Any) -> Array:
    """Filled with NaN, so that an element used before it is written is seen in the result."""
    return np.full(size, np.nan, dtype)


def gram_workspace(f: Array, threads: int = 2) -> Array:
    M, C = f.shape
    return nan_workspace(_kernels.gram_workspace(M, C, f.itemsize, threads), f.dtype)


def winograd_workspace(H: int, W: int, C: int, K: int, dtype: Any, threads: int | None = None) -> Array:
    itemsize = np.dtype(dtype).itemsize
    return nan_workspace(_kernels.winograd_workspace(H, W, C, K, itemsize, threads), dtype)


def first_layer_workspace(H: int, W: int, C: int, K: int, dtype: Any, threads: int | None = None) -> Array:
    itemsize = np.dtype(dtype).itemsize
    return nan_workspace(_kernels.first_layer_workspace(H, W, C, K, itemsize, threads), dtype)


def convolution_arrays(H: int, W: int, C: int, K: int, dtype: Any) -> tuple[Array, ...]:
    """x, w, b, and memory for y and mask."""
    w = (normal(9 * C, K, seed=1, dtype=dtype) / np.sqrt(9 * C)).astype(dtype)
    mask = np.empty(H * W * K // 8, np.uint8)
    return normal(H, W, C, dtype=dtype), w, normal(K, seed=2, dtype=dtype), np.empty((H, W, K), dtype), mask


def check_conv3x3(H: int, W: int, C: int, K: int, dtype: Any, threads: int = 2) -> None:
    x, w, b, y, _ = convolution_arrays(H, W, C, K, dtype)
    for actual, expected in run_both("conv3x3", (x, w, b), (y,), threads):
        assert_close(actual, expected)


def check_relu(N: int, dtype: Any, threads: int = 3) -> None:
    x = normal(N, dtype=dtype)
    x[:: max(1, N // 5)] = 0
    mask = np.empty((N + 7) // 8, np.uint8)
    for actual, expected in run_both("relu", (x,), (np.empty_like(x), mask), threads):
        np.testing.assert_array_equal(actual, expected)


def check_relu_backward(N: int, dtype: Any, threads: int = 3) -> None:
    dy = normal(N, dtype=dtype)
    mask = np.random.default_rng(1).integers(0, 256, (N + 7) // 8).astype(np.uint8)
    for actual, expected in run_both("relu_backward", (dy, mask), (np.empty_like(dy),), threads):
        np.testing.assert_array_equal(actual, expected)


def packed(x: Array, positive: bool = True, threads: int = 1) -> tuple[Array, Array, Array]:
    """By the public functions: bits, starts, values."""
    N = x[0].size
    of_rows = np.empty((len(x), (N + 7) // 8), np.uint8)
    starts = np.empty(len(x) * _kernels.packing_parts(N) + 1, np.int64)
    _kernels.mark(x, of_rows, starts, positive, threads)
    values = np.full(starts[-1], 77, x.dtype)
    _kernels.pack(x, of_rows, starts, values, threads)
    return of_rows, starts, values


def check_packing(rows: int, N: int, share: float, dtype: Any, threads: int = 3) -> None:
    """With so many of the elements stored; then some of the rows unpacked."""
    chosen = np.random.default_rng(1).random((rows, N))
    F, dF = np.where(chosen < share, 1 - chosen, -chosen).astype(dtype), normal(rows, N, dtype=dtype)
    parts = reference.packing_parts(N)
    marked, starts = np.empty((rows, (N + 7) // 8), np.uint8), np.empty(rows * parts + 1, np.int64)
    for positive in (False, True):
        reference.mark(F, marked, starts, positive, 1)
        found, found_starts = np.full_like(marked, 77), np.full_like(starts, 77)
        COMPILED.mark(F, found, found_starts, positive, threads)
        np.testing.assert_array_equal(found, marked)
        np.testing.assert_array_equal(found_starts, starts)
    words, values = dF.view(f"u{dF.itemsize}"), np.empty(starts[-1], f"u{dF.itemsize}")
    for actual, expected in run_both("pack", (words, marked, starts), (values,), threads):
        np.testing.assert_array_equal(actual, expected)
        values = actual
    first = rows // 2
    inputs = values, marked[first:], starts[first * parts :]
    for actual, expected in run_both("unpack", inputs, (np.empty_like(words[first:]),), threads):
        np.testing.assert_array_equal(actual, expected)
        np.testing.assert_array_equal(actual.view(dtype), np.where(F > 0, dF, 0)[first:])


def check_pooling(H: int, W: int, C: int, dtype: Any, threads: int = 2) -> None:
    x = np.rint(2 * normal(H, W, C, dtype=dtype))  # integers, so that there are equals
    y = np.empty((H // 2, W // 2, C), dtype)
    argmax = np.empty(y.shape, np.uint8)
    for actual, expected in run_both("average_pool", (x,), (y,), threads):
        assert_close(actual, expected)
    for actual, expected in run_both("max_pool", (x,), (y, argmax), threads):
        np.testing.assert_array_equal(actual, expected)


def check_pooling_backward(H: int, W: int, C: int, dtype: Any, threads: int = 2) -> None:
    dy = normal(H // 2, W // 2, C, dtype=dtype)
    argmax = np.random.default_rng(1).integers(0, 4, dy.shape).astype(np.uint8)
    dx = np.empty((H, W, C), dtype)
    for actual, expected in run_both("average_pool_backward", (dy,), (dx,), threads):
        np.testing.assert_array_equal(actual, expected)
    for actual, expected in run_both("max_pool_backward", (dy, argmax), (dx,), threads):
        np.testing.assert_array_equal(actual, expected)


def check_gram(M: int, C: int, dtype: Any, threads: int = 2) -> None:
    """By the public functions, which pad the channels where necessary."""
    f, dg = normal(M, C, dtype=dtype), normal(C, C, seed=1)
    g, expected_g = np.full((C, C), np.nan), np.empty((C, C))
    df, expected_df = np.full_like(f, np.nan), np.empty_like(f)
    _kernels.gram(f, g, gram_workspace(f, threads), threads)
    reference.gram(f, expected_g, f, 1)
    np.testing.assert_allclose(g, expected_g, atol=SAME[f.dtype] * M)
    np.testing.assert_array_equal(g, g.T)
    _kernels.gram_backward(f, dg, df, gram_workspace(f, threads), threads)
    reference.gram_backward(f, dg, expected_df, f, 1)
    assert_close(df, expected_df)
    check_total(f, g, dg, df, threads)


def check_total(f: Array, g: Array, dg: Array, df: Array, threads: int) -> None:
    """The sum of the rows of f, which changes no bit of g, and the gradient with respect to it."""
    C = f.shape[1]
    total, expected_total, row = np.full(C, np.nan), np.empty(C), normal(C, seed=2)
    again, with_row, expected_df = np.empty_like(g), np.full_like(f, np.nan), np.empty_like(f)
    _kernels.gram(f, again, gram_workspace(f, threads), threads, total)
    reference.gram(f, np.empty_like(g), f, 1, expected_total)
    np.testing.assert_array_equal(again, g)
    np.testing.assert_allclose(total, expected_total, atol=SAME[f.dtype] * len(f))
    _kernels.gram_backward(f, dg, with_row, gram_workspace(f, threads), threads, row)
    reference.gram_backward(f, dg, expected_df, f, 1, row)
    assert_close(with_row, expected_df)
    np.testing.assert_array_equal(with_row, df + row.astype(f.dtype))


def check_vectors(N: int, rows: int, dtype: Any, threads: int = 2) -> None:
    a, b, c = normal(rows, N, dtype=dtype), normal(N, seed=1, dtype=dtype), normal(N, seed=2, dtype=dtype)
    for actual, expected in run_both("dot_products", (a, b, c), (np.empty((rows, 2)),), threads):
        assert_close(actual, expected)
    weights = normal(rows + 1, seed=3)
    for actual, expected in run_both("linear_combination", (a, b, weights), (np.empty(N, dtype),), threads):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 if dtype is np.float32 else 1e-13)


class Expected(NamedTuple):
    """Arguments of a fused kernel, forward and backward, and what its reference implementation computes."""

    x: Array
    w: Array
    b: Array
    y: Array
    mask: Array
    dy: Array
    dx: Array
    added: Array  # dx, accumulated into x


@lru_cache(maxsize=1)  # tests of one shape and dtype follow each other, with all instruction sets
def expected_results(kernel: str, H: int, W: int, C: int, K: int, dtype: Any) -> Expected:
    x, w, b, y, mask = convolution_arrays(H, W, C, K, dtype)
    dy, dx, added = normal(*y.shape, seed=3, dtype=dtype), np.empty_like(x), x.copy()
    if kernel == "winograd":
        reference.winograd(x, w, b, y, mask, y, 1)
        reference.winograd_backward(dy, mask, w, dx, False, y, 1)
        reference.winograd_backward(dy, mask, w, added, True, y, 1)
    else:
        reference.first_layer(x, w, b, y, mask, y, 1)
        reference.first_layer_backward(dy, mask, w, dx, y, 1)
    return Expected(x, w, b, y, mask, dy, dx, added)


def assert_same_mask(actual: Array, y: Array, expected: Expected) -> None:
    """Bits may differ only where the sum is about zero, and so in few places."""
    differ = bits(actual, y.shape) != bits(expected.mask, y.shape)
    assert np.maximum(y, expected.y)[differ].max(initial=0) < SAME[y.dtype]
    assert differ.sum() <= max(1, 1e-3 * differ.size)


def check_winograd(H: int, W: int, C: int, K: int, dtype: Any, threads: int | None = None) -> None:
    expected = expected_results("winograd", H, W, C, K, dtype)
    x, w, b, mask, dy = expected.x, expected.w, expected.b, expected.mask, expected.dy
    y, actual_mask, dx = (np.full_like(array, 77) for array in (expected.y, mask, x))
    workspace = winograd_workspace(H, W, C, K, dtype, threads)
    _kernels.winograd(x, w, b, y, actual_mask, workspace, threads)
    assert_close(y, expected.y)
    assert_same_mask(actual_mask, y, expected)
    workspace = winograd_workspace(H, W, K, C, dtype, threads)
    _kernels.winograd_backward(dy, mask, w, dx, False, workspace, threads)
    assert_close(dx, expected.dx)
    added, workspace = x.copy(), winograd_workspace(H, W, K, C, dtype, threads)
    _kernels.winograd_backward(dy, mask, w, added, True, workspace, threads)
    assert_close(added, expected.added)
    if min(H, W) > 1:
        check_pooled_winograd(expected, y, actual_mask, threads)


def check_pooled_winograd(given: Expected, y: Array, mask: Array, threads: int | None) -> None:
    """Against two kernels one after the other, bit by bit; y and mask are what `winograd` has computed."""
    (H, W, C), K, dtype = given.x.shape, y.shape[2], y.dtype
    expected, means = (np.full((H // 2, W // 2, K), 77, dtype) for _ in range(2))
    bits_found, workspace = np.full_like(mask, 77), winograd_workspace(H, W, C, K, dtype, threads)
    _kernels.average_pool(y, expected, threads)
    _kernels.winograd(given.x, given.w, given.b, means, bits_found, workspace, threads, pooled=True)
    np.testing.assert_array_equal(means, expected)
    np.testing.assert_array_equal(bits_found, mask)
    dmeans, dy = given.dy[: H // 2, : W // 2].copy(), np.empty_like(y)
    _kernels.average_pool_backward(dmeans, dy, threads)
    for accumulate in (False, True):
        expected, dx = given.x.copy(), given.x.copy()
        for array, gradient, pooled in ((expected, dy, False), (dx, dmeans, True)):
            workspace = winograd_workspace(H, W, K, C, dtype, threads)
            _kernels.winograd_backward(
                gradient, mask, given.w, array, accumulate, workspace, threads, pooled=pooled
            )
        np.testing.assert_array_equal(dx, expected)


def check_first_layer(H: int, W: int, C: int, K: int, dtype: Any, threads: int | None = None) -> None:
    expected = expected_results("first_layer", H, W, C, K, dtype)
    x, w, b, mask, dy = expected.x, expected.w, expected.b, expected.mask, expected.dy
    y, actual_mask, dx = (np.full_like(array, 77) for array in (expected.y, mask, x))
    workspace = first_layer_workspace(H, W, C, K, dtype, threads)
    _kernels.first_layer(x, w, b, y, actual_mask, workspace, threads)
    assert_close(y, expected.y)
    assert_same_mask(actual_mask, y, expected)
    workspace = first_layer_workspace(H, W, C, K, dtype, threads)
    _kernels.first_layer_backward(dy, mask, w, dx, workspace, threads)
    assert_close(dx, expected.dx)
    y_expected, mask_expected, dx_expected = (np.full_like(array, 77) for array in (y, mask, x))
    reference.first_layer(x, w, b, y_expected, mask_expected, y, 1, replicate=True)
    reference.first_layer_backward(dy, mask, w, dx_expected, y, 1, replicate=True)
    workspace = first_layer_workspace(H, W, C, K, dtype, threads)
    _kernels.first_layer(x, w, b, y, actual_mask, workspace, threads, replicate=True)
    assert_close(y, y_expected)
    assert_same_mask(actual_mask, y, expected._replace(y=y_expected, mask=mask_expected))
    workspace = first_layer_workspace(H, W, C, K, dtype, threads)
    _kernels.first_layer_backward(dy, mask, w, dx, workspace, threads, replicate=True)
    assert_close(dx, dx_expected)


def test_every_kernel_has_a_reference_with_the_same_arguments() -> None:
    for name in _loading.NAMES:
        compiled = list(inspect.signature(getattr(COMPILED, name)).parameters)
        slow = list(inspect.signature(getattr(reference, name)).parameters)
        public = list(inspect.signature(getattr(_kernels, name)).parameters)
        assert compiled == slow == public, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("C", "K"), [(3, 5), (1, 1), (8, 3)])
def test_conv3x3(size: tuple[int, int], C: int, K: int, dtype: Any) -> None:
    check_conv3x3(*size, C, K, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [64, 512])
def test_conv3x3_with_channels_of_vgg19(C: int, dtype: Any) -> None:
    check_conv3x3(9, 11, C, 64, dtype)


@given(any_size, any_size, any_size, any_size, any_dtype, any_threads)
@random_shapes
def test_conv3x3_of_random_shapes(H: int, W: int, C: int, K: int, dtype: Any, threads: int) -> None:
    check_conv3x3(H, W, C, K, dtype, threads)


# ------------------------------------------------------------------------------------------------
# Strips: the same bits as in the whole picture
# ------------------------------------------------------------------------------------------------


def strips(H: int, rows: int) -> Iterator[tuple[int, int, _kernels.Strip]]:
    """First and last row of strips as high as that many rows, twice, and what they are part of."""
    for first in range(0, H, 2 * rows):
        yield first, min(H, first + 2 * rows), _kernels.Strip(first, H)


@pytest.fixture(params=["compiled", "reference"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one that the kernels are, whatever they were at import."""
    if request.param == "reference":
        monkeypatch.setattr(_kernels, "IMPLEMENTATION", "reference")
        monkeypatch.setattr(_kernels, "_kernels", reference)
    elif _kernels.IMPLEMENTATION != "compiled":
        pytest.skip("nothing is compiled")
    return str(request.param)


def with_neighbors(x: Array, first: int, last: int) -> Array:
    return np.ascontiguousarray(x[max(0, first - 1) : last + 1])


def cells_of_neighbors(means: Array, first: int, last: int) -> Array:
    return np.ascontiguousarray(means[max(0, first // 2 - 1) : last // 2 + 1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", TESTED_SETS)
@pytest.mark.parametrize(("H", "W", "C"), [(61, 37, 64), (25, 18, 256), (40, 5, 32)])
def test_winograd_has_the_same_bits_in_strips(H: int, W: int, C: int, isa: str, dtype: Any) -> None:
    _kernels.set_isa(isa)
    x, w, b, y, mask = convolution_arrays(H, W, C, 64, dtype)
    dy, dx, size = normal(*y.shape, seed=3, dtype=dtype), np.empty_like(x), np.dtype(dtype).itemsize
    _kernels.winograd(x, w, b, y, mask, winograd_workspace(H, W, C, 64, dtype, 2), 2)
    _kernels.winograd_backward(dy, mask, w, dx, False, winograd_workspace(H, W, 64, C, dtype, 2), 2)
    by_row = mask.reshape(H, -1)
    for first, last, strip in strips(H, _kernels.winograd_rows(H, W, C, 64, size)):
        found, bits_found = np.empty_like(y[first:last]), np.empty((last - first) * W * 8, np.uint8)
        workspace = np.full(_kernels.winograd_workspace(last - first, W, C, 64, size, 1, H), np.nan, dtype)
        _kernels.winograd(with_neighbors(x, first, last), w, b, found, bits_found, workspace, 1, strip)
        np.testing.assert_array_equal(found, y[first:last])
        np.testing.assert_array_equal(bits_found, by_row[first:last].reshape(-1))
        found = np.empty_like(x[first:last])
        workspace = np.full(_kernels.winograd_workspace(last - first, W, 64, C, size, 1, H), np.nan, dtype)
        given, given_bits = with_neighbors(dy, first, last), with_neighbors(by_row, first, last).reshape(-1)
        _kernels.winograd_backward(given, given_bits, w, found, False, workspace, 1, strip)
        np.testing.assert_array_equal(found, dx[first:last])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", TESTED_SETS)
@pytest.mark.parametrize(
    ("H", "W", "C"), [(17, 777, 32), (61, 37, 64), (59, 38, 64), (25, 18, 256), (40, 5, 32), (7, 9, 32)]
)
def test_pooled_winograd_has_the_same_bits_in_strips(
    H: int, W: int, C: int, isa: str, dtype: Any, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By blocks and panels, large tiles and small ones; odd last rows have no cell, also by themselves."""
    _kernels.set_isa(isa)
    monkeypatch.setattr(import_module("npstyle._kernels.reference.winograd"), "MAX_STRIP", 100)
    x, w, b, _, mask = convolution_arrays(H, W, C, 64, dtype)
    means, size = np.empty((H // 2, W // 2, 64), dtype), x.itemsize
    of_means, dx = normal(*means.shape, seed=3, dtype=dtype), x.copy()
    pooled: dict[str, Any] = {"pooled": True}
    _kernels.winograd(x, w, b, means, mask, winograd_workspace(H, W, C, 64, dtype, 2), 2, **pooled)
    workspace = winograd_workspace(H, W, 64, C, dtype, 2)
    _kernels.winograd_backward(of_means, mask, w, dx, True, workspace, 2, **pooled)
    by_row = mask.reshape(H, -1)
    for n, (first, last, strip) in enumerate(strips(H, _kernels.winograd_rows(H, W, C, 64, size))):
        threads, rows, bits_found = 1 + 2 * (n % 2), last - first, ~by_row[first:last].reshape(-1)
        if rows > 1:
            found = np.full_like(means[first // 2 : last // 2], 77)
            workspace = nan_workspace(_kernels.winograd_workspace(rows, W, C, 64, size, threads, H), dtype)
            part = with_neighbors(x, first, last)
            _kernels.winograd(part, w, b, found, bits_found, workspace, threads, strip, **pooled)
            np.testing.assert_array_equal(found, means[first // 2 : last // 2])
            np.testing.assert_array_equal(bits_found, by_row[first:last].reshape(-1))
        found = x[first:last].copy()
        workspace = nan_workspace(_kernels.winograd_workspace(rows, W, 64, C, size, threads, H), dtype)
        given, given_bits = cells_of_neighbors(of_means, first, last), with_neighbors(by_row, first, last)
        given_bits = given_bits.reshape(-1)
        _kernels.winograd_backward(given, given_bits, w, found, True, workspace, threads, strip, **pooled)
        np.testing.assert_array_equal(found, dx[first:last])


def at_a_wall(x: Array, behind: bool) -> Array:
    """A copy right after a page that nobody may read, or right before one."""
    pages = -(-x.nbytes // mmap.PAGESIZE) + 1
    memory = np.frombuffer(mmap.mmap(-1, pages * mmap.PAGESIZE), np.uint8)
    wall = memory.ctypes.data + (pages - 1) * mmap.PAGESIZE * behind
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(wall), mmap.PAGESIZE, 0) == 0
    start = memory.size - mmap.PAGESIZE - x.nbytes if behind else mmap.PAGESIZE
    copied = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copied[...] = x
    return copied


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect is called as in Linux")
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("H", [25, 30])
def test_strips_are_all_that_is_read(H: int, isa: str, behind: bool) -> None:
    """Otherwise this process ends here: the sanitizer misses what is far from the array, or in another."""
    _kernels.set_isa(isa)
    W, C = 18, 64
    x, w, b, y, mask = convolution_arrays(H, W, C, C, np.float32)
    for first, last, strip in strips(H, _kernels.winograd_rows(H, W, C, C, 4)):
        out, bits_found = y[first:last].copy(), np.empty((last - first) * W * C // 8, np.uint8)
        part = with_neighbors(x, first, last)
        given_bits = with_neighbors(mask.reshape(H, -1), first, last).reshape(-1)
        workspace = np.empty(_kernels.winograd_workspace(last - first, W, C, C, 4, 1, H), np.float32)
        cells = np.ones((H // 2, W // 2, C), np.float32)
        arrays = part, given_bits, out, bits_found, workspace, cells_of_neighbors(cells, first, last)
        of_input, of_bits, out, bits_found, workspace, of_cells = (at_a_wall(one, behind) for one in arrays)
        _kernels.winograd(of_input, w, b, out, bits_found, workspace, 1, strip)
        _kernels.winograd_backward(of_input, of_bits, w, out, False, workspace, 1, strip)
        _kernels.winograd_backward(of_cells, of_bits, w, out, False, workspace, 1, strip, pooled=True)
        if last - first > 1:
            means = at_a_wall(cells[first // 2 : last // 2], behind)
            _kernels.winograd(of_input, w, b, means, bits_found, workspace, 1, strip, pooled=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", TESTED_SETS)
@pytest.mark.parametrize("replicate", [False, True])
def test_first_layer_has_the_same_bits_in_strips(replicate: bool, isa: str, dtype: Any) -> None:
    _kernels.set_isa(isa)
    H, W, K = 29, 19, 64
    x, w, b, y, mask = convolution_arrays(H, W, 3, K, dtype)
    dy, dx = normal(*y.shape, seed=3, dtype=dtype), np.empty_like(x)
    workspace = first_layer_workspace(H, W, 3, K, dtype, 2)
    _kernels.first_layer(x, w, b, y, mask, workspace, 2, replicate=replicate)
    _kernels.first_layer_backward(dy, mask, w, dx, workspace, 2, replicate=replicate)
    by_row = mask.reshape(H, -1)
    for first, last, strip in strips(H, 3):
        found, bits_found = np.empty_like(y[first:last]), np.empty((last - first) * W * 8, np.uint8)
        workspace = first_layer_workspace(last - first, W, 3, K, dtype, 1)
        part = with_neighbors(x, first, last)
        _kernels.first_layer(part, w, b, found, bits_found, workspace, 1, strip, replicate)
        np.testing.assert_array_equal(found, y[first:last])
        np.testing.assert_array_equal(bits_found, by_row[first:last].reshape(-1))
        found = np.empty_like(x[first:last])
        given, given_bits = with_neighbors(dy, first, last), with_neighbors(by_row, first, last).reshape(-1)
        _kernels.first_layer_backward(given, given_bits, w, found, workspace, 1, strip, replicate)
        np.testing.assert_array_equal(found, dx[first:last])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("H", "W"), [(61, 37), (9, 700), (70, 5)])
def test_conv3x3_has_the_same_bits_in_strips(H: int, W: int, dtype: Any, implementation: str) -> None:
    x, w, b, y, _ = convolution_arrays(H, W, 32, 64, dtype)
    _kernels.conv3x3(x, w, b, y, 2)
    for first, last, strip in strips(H, _kernels.conv3x3_rows(W)):
        found = np.empty_like(y[first:last])
        _kernels.conv3x3(with_neighbors(x, first, last), w, b, found, 1, strip)
        np.testing.assert_array_equal(found, y[first:last])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("M", [300, 5000])
def test_gram_has_the_same_bits_in_parts(M: int, dtype: Any, implementation: str) -> None:
    f, g, found = normal(M, 64, dtype=dtype), np.empty((64, 64)), np.empty((64, 64))
    total, found_total = np.empty(64), np.empty(64)
    _kernels.gram(f, g, gram_workspace(f), 2, total)
    rows = 2 * _kernels.gram_rows_per_sum(M)
    for start in range(0, M, rows):
        part = f[start : start + rows]
        _kernels.gram(part, found, gram_workspace(part, 1), 1, found_total, start, M)
    np.testing.assert_array_equal(found, g)
    np.testing.assert_array_equal(found_total, total)
    df, found_df = np.empty_like(f), np.empty_like(f)
    _kernels.gram_backward(f, g, df, gram_workspace(f), 2, total)
    for start in range(0, M, 71):
        part = f[start : start + 71]
        _kernels.gram_backward(part, g, found_df[start : start + 71], gram_workspace(part, 1), 1, total)
    np.testing.assert_array_equal(found_df, df)
    if implementation == "reference":
        return
    narrow = normal(8, 33, dtype=dtype)
    with pytest.raises(UserError, match="33 channels"):
        _kernels.gram(narrow, np.empty((33, 33)), gram_workspace(narrow), 2, None, 0, 16)


def test_strips_of_the_reference_are_those_of_the_kernels() -> None:
    x, w, b, y, mask = convolution_arrays(20, 9, 32, 32, np.float64)
    dy = normal(*y.shape, seed=3)
    reference.first_layer(x, w, b, y, mask, y, 1)
    dx, expected = np.empty_like(x), y.copy()
    reference.first_layer_backward(dy, mask, w, dx, y, 1)
    first, last, strip = 6, 12, _kernels.Strip(6, 20)
    given, given_dy = with_neighbors(x, first, last), with_neighbors(dy, first, last)
    given_bits = with_neighbors(mask.reshape(20, -1), first, last).reshape(-1)
    found, found_dx = np.empty_like(y[first:last]), np.empty_like(x[first:last])
    for forward in (reference.winograd, reference.first_layer):
        forward(given, w, b, found, np.empty(6 * 9 * 4, np.uint8), y, 1, strip)
        assert_close(found, expected[first:last])
    reference.winograd_backward(given_dy, given_bits, w, found_dx, False, y, 1, strip)
    assert_close(found_dx, dx[first:last])
    reference.first_layer_backward(given_dy, given_bits, w, found_dx, y, 1, strip)
    assert_close(found_dx, dx[first:last])
    # Inside of the picture there is nothing to replicate.
    reference.first_layer(given, w, b, found, np.empty(6 * 9 * 4, np.uint8), y, 1, strip, True)
    assert_close(found[:, 1:-1], expected[first:last, 1:-1])
    reference.first_layer_backward(given_dy, given_bits, w, found_dx, y, 1, strip, True)
    assert_close(found_dx[:, 1:-1], dx[first:last, 1:-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 7, 8, 9, 1000, 32768 * 2 + 3])
def test_relu(N: int, dtype: Any) -> None:
    check_relu(N, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [1, 7, 8, 9, 1000, 32768 * 2 + 3])
def test_relu_backward(N: int, dtype: Any) -> None:
    check_relu_backward(N, dtype)


@given(st.integers(1, 100_000), any_dtype, any_threads)
@random_shapes
def test_relu_of_random_sizes(N: int, dtype: Any, threads: int) -> None:
    check_relu(N, dtype, threads)
    check_relu_backward(N, dtype, threads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_in_place(dtype: Any) -> None:
    x = normal(1001, dtype=dtype)
    y, mask = x.copy(), np.empty(126, np.uint8)
    _kernels.relu(y, y, mask)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    dy = normal(1001, seed=1, dtype=dtype)
    dx = dy.copy()
    _kernels.relu_backward(dx, mask, dx)
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, 0))


def test_nan_stays_nan() -> None:
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


# Rows of less than a byte of bits, of whole bytes and not, of several parts, and work for several threads.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "N"), [(1, 1), (3, 7), (2, 8), (5, 9), (4, 1000), (1, 8192 * 9), (3, 8192 * 5 + 8), (4, 20003)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_packing(rows: int, N: int, threads: int, dtype: Any) -> None:
    for share in (0, 0.01, 0.5, 0.99, 1):
        check_packing(rows, N, share, dtype, threads)


@given(st.integers(1, 5), st.integers(1, 40_000), st.floats(0, 1), any_dtype, any_threads)
@random_shapes
def test_packing_of_random_shapes(rows: int, N: int, share: float, dtype: Any, threads: int) -> None:
    check_packing(rows, N, share, dtype, threads)


def test_parts_of_the_reference_are_those_of_packing() -> None:
    for N in (1, 8191, 8192, 8193, 100_000):
        assert reference.packing_parts(N) == COMPILED.packing_parts(N)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_of_rows_are_those_of_relu(dtype: Any) -> None:
    x = normal(3, 5, 32, dtype=dtype)
    bits_of_rows, _, _ = packed(x)
    mask = np.empty(x.size // 8, np.uint8)
    _kernels.relu(x, np.empty_like(x), mask)
    np.testing.assert_array_equal(bits_of_rows.reshape(-1), mask)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packing_keeps_all_bits(dtype: Any) -> None:
    """Also those of a signaling NaN, which arithmetic would make a quiet one."""
    x = np.array([[0, 1, -1, -0.0, np.nan, -np.nan, np.inf, -np.inf, 5e-324, 1e-45, 0, 2]], dtype)
    words = x.view(f"u{x.itemsize}")
    words[0, 5] = words[0, 6] | words.dtype.type(1)
    bits_of_rows, starts, values = packed(x, positive=False)
    kept = words != 0
    np.testing.assert_array_equal(bits(bits_of_rows, (1, 16))[:, :12], kept)
    assert values.tobytes() == x[kept].tobytes()
    y = np.full_like(x, 77)
    _kernels.unpack(values, bits_of_rows, starts, y)
    assert y.tobytes() == x.tobytes()
    _, _, values = packed(x)
    numbers = x[0, [1, 6, 8, 9, 11]]  # older versions of NumPy warn where a signaling NaN is compared
    np.testing.assert_array_equal(values, numbers[numbers > 0])


@pytest.mark.parametrize("share", [0.3, 1])
def test_packing_writes_nothing_beyond(share: float) -> None:
    """Stored elements lie between others here, as those of another thread do, and so do rows."""
    x = np.where(np.random.default_rng(0).random((3, 20_001)) < share, 5.0, 0.0)
    bits_of_rows, starts, _ = packed(x)
    for functions in (COMPILED, reference):
        around = np.full(starts[-1] + 20, 77.0)
        values = around[10:-10]
        functions.pack(x.view("u8"), bits_of_rows, starts, values.view("u8"), 1)
        np.testing.assert_array_equal(values, 5)
        assert (around[:10] == 77).all()
        assert (around[-10:] == 77).all()
        y = np.full((5, 20_001), 77.0)
        functions.unpack(values.view("u8"), bits_of_rows, starts, y[1:-1].view("u8"), 1)
        np.testing.assert_array_equal(y[1:-1], x)
        assert (y[[0, -1]] == 77).all()


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect is called as in Linux")
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("N", [9000, 9003])
def test_packed_rows_are_all_that_is_read(N: int, behind: bool) -> None:
    """Otherwise this process ends here, as in `test_strips_are_all_that_is_read`."""
    x = normal(2, N)
    x[:, -20:-10] = 0  # after some of what is stored, and before the rest
    for end in (N, N - 10):
        x[:, end:] = 0
        bits_of_rows, starts, values = (at_a_wall(array, behind) for array in packed(x))
        rows = at_a_wall(x, behind)
        _kernels.mark(rows, bits_of_rows, starts)
        _kernels.pack(rows, bits_of_rows, starts, values)
        _kernels.unpack(values, bits_of_rows, starts, rows)
        np.testing.assert_array_equal(rows, np.maximum(x, 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", POOL_SIZES)
@pytest.mark.parametrize("C", [1, 3, 64])
def test_pooling(size: tuple[int, int], C: int, dtype: Any) -> None:
    check_pooling(*size, C, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", POOL_SIZES)
@pytest.mark.parametrize("C", [1, 3, 64])
def test_pooling_backward(size: tuple[int, int], C: int, dtype: Any) -> None:
    check_pooling_backward(*size, C, dtype)


@given(st.integers(2, 40), st.integers(2, 40), any_size, any_dtype, any_threads)
@random_shapes
def test_pooling_of_random_shapes(H: int, W: int, C: int, dtype: Any, threads: int) -> None:
    check_pooling(H, W, C, dtype, threads)
    check_pooling_backward(H, W, C, dtype, threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", TESTED_SETS)
@pytest.mark.parametrize(("M", "C"), [(1, 32), (5, 96), (4099, 64), (777, 288)])
def test_gram(M: int, C: int, isa: str, dtype: Any) -> None:
    _kernels.set_isa(isa)
    check_gram(M, C, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("M", "C"), [(1, 1), (5, 3), (600, 65)])
def test_gram_of_any_number_of_channels(M: int, C: int, dtype: Any) -> None:
    check_gram(M, C, dtype)


@given(st.integers(1, 3000), st.integers(1, 200), any_isa, any_dtype, any_threads)
@random_shapes
def test_gram_of_random_shapes(M: int, C: int, isa: str, dtype: Any, threads: int) -> None:
    _kernels.set_isa(isa)
    check_gram(M, C, dtype, threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", TESTED_SETS)
@pytest.mark.parametrize(("N", "rows"), [(1, 1), (7, 2), (1023, 5), (1025, 4), (64 * 4096 + 1, 3)])
def test_vectors(N: int, rows: int, isa: str, dtype: Any) -> None:
    _kernels.set_isa(isa)
    check_vectors(N, rows, dtype)


@given(st.integers(1, 100_000), st.integers(1, 9), any_isa, any_dtype, any_threads)
@random_shapes
def test_vectors_of_random_sizes(N: int, rows: int, isa: str, dtype: Any, threads: int) -> None:
    _kernels.set_isa(isa)
    check_vectors(N, rows, dtype, threads)


@pytest.mark.parametrize("isa", TESTED_SETS)
def test_vectors_do_not_depend_on_number_of_threads(isa: str) -> None:
    _kernels.set_isa(isa)
    a, b, weights = normal(5, 100_001, dtype=np.float32), normal(100_001, dtype=np.float32), normal(6)
    results = []
    for threads in THREADS:
        products, y = np.empty((5, 2)), np.empty_like(b)
        _kernels.dot_products(a, b, a[1], products, threads)
        _kernels.linear_combination(a, b, weights, y, threads)
        results.append((products, y))
    for products, y in results[1:]:
        np.testing.assert_array_equal(products, results[0][0])
        np.testing.assert_array_equal(y, results[0][1])


def test_vectors_are_multiplied_and_added_in_float64() -> None:
    """What cancels would be lost in float32."""
    a = np.array([[1, 1e-4, -1], [1, 2**-24, -1]], np.float32)
    products, y = np.empty((2, 2)), np.empty(3, np.float32)
    _kernels.dot_products(a, np.ones(3, np.float32), a[0], products)
    np.testing.assert_allclose(products[:, 0], [1e-4, 2**-24], rtol=1e-7)
    _kernels.linear_combination(a, a[1], np.array([0.0, -1.0, 1 + 2**-30]), y)
    np.testing.assert_array_equal(y, (a[1] * 2.0**-30).astype(np.float32))


def test_gram_accumulates_blocks_in_float64() -> None:
    """2^33 from the first block, 512 from the second: in float32 the sum would stay 2^33."""
    f = np.repeat(np.array([4096, 1], np.float32), 512)[:, None] * np.ones((1, 32), np.float32)
    g, total = np.empty((32, 32)), np.empty(32)
    _kernels.gram(f, g, gram_workspace(f), 2, total)
    assert (g == 2**33 + 512).all()
    assert (total == 2**21 + 512).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_number_of_threads(dtype: Any) -> None:
    x, w, b = normal(97, 131, 3, dtype=dtype), normal(27, 16, dtype=dtype), normal(16, dtype=dtype)
    F = normal(97 * 131, 16, dtype=dtype)
    runs = []
    for threads in THREADS:
        y, g, df = np.empty((97, 131, 16), dtype), np.empty((16, 16)), np.empty_like(F)
        _kernels.conv3x3(x, w, b, y, threads)
        total = np.empty(16)
        _kernels.gram(F, g, gram_workspace(F, threads), threads, total)
        _kernels.gram_backward(F, g, df, gram_workspace(F, threads), threads, total)
        pooled, spread = np.empty((48, 65, 16), dtype), np.empty_like(y)
        _kernels.average_pool(y, pooled, threads)
        _kernels.average_pool_backward(pooled, spread, threads)
        mask = np.empty((y.size + 7) // 8, np.uint8)
        _kernels.relu(y.reshape(-1), y.reshape(-1), mask, threads)
        runs.append((y, g, df, pooled, spread, mask))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one, other)


# VGG19's channel counts, and others that are not powers of two; feature maps of one, few and many tiles.
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", WINOGRAD_SIZES)
@pytest.mark.parametrize(("C", "K"), WINOGRAD_CHANNELS)
def test_winograd_equals_im2col_and_relu(size: tuple[int, int], C: int, K: int, dtype: Any) -> None:
    x, w, b, y, mask = convolution_arrays(*size, C, K, dtype)
    _kernels.winograd(x, w, b, y, mask, winograd_workspace(*size, C, K, dtype))
    z = np.empty_like(y)
    _kernels.conv3x3(x, w, b, z)
    assert_close(y, np.maximum(z, 0))
    # Bits may differ only where the sum is about zero.
    differ = bits(mask, z.shape) != (z > 0)
    assert np.abs(z[differ]).max(initial=0) < SAME[x.dtype]

    dy, dx = normal(*y.shape, seed=3, dtype=dtype), np.full_like(x, np.nan)
    _kernels.winograd_backward(dy, mask, w, dx, False, winograd_workspace(*size, K, C, dtype))
    expected = np.empty_like(x)
    reference.conv3x3_backward(dy * bits(mask, y.shape).astype(dtype), w, expected)
    assert_close(dx, expected)
    before = normal(*x.shape, seed=4, dtype=dtype)
    total = before.copy()
    _kernels.winograd_backward(dy, mask, w, total, True, winograd_workspace(*size, K, C, dtype))
    np.testing.assert_array_equal(total, before + dx)


@pytest.mark.parametrize("isa", TESTED_SETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("H", "W", "C", "K"), WINOGRAD_SHAPES)
def test_winograd(H: int, W: int, C: int, K: int, isa: str, dtype: Any) -> None:
    _kernels.set_isa(isa)
    check_winograd(H, W, C, K, dtype)


@given(
    st.integers(1, 60), st.integers(1, 60), multiple_of_32, multiple_of_32, any_isa, any_dtype, any_threads
)
@random_shapes
def test_winograd_of_random_shapes(
    H: int, W: int, C: int, K: int, isa: str, dtype: Any, threads: int
) -> None:
    _kernels.set_isa(isa)
    check_winograd(H, W, C, K, dtype, threads)


@pytest.mark.parametrize("isa", TESTED_SETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("H", "W", "C", "K"),
    [(1, 1, 3, 64), (5, 7, 3, 64), (17, 33, 1, 32), (9, 200, 2, 96), (200, 250, 3, 64)],
)
def test_first_layer(H: int, W: int, C: int, K: int, isa: str, dtype: Any) -> None:
    _kernels.set_isa(isa)
    check_first_layer(H, W, C, K, dtype)


@given(any_size, any_size, st.integers(1, 7), multiple_of_32, any_isa, any_dtype, any_threads)
@random_shapes
def test_first_layer_of_random_shapes(
    H: int, W: int, C: int, K: int, isa: str, dtype: Any, threads: int
) -> None:
    _kernels.set_isa(isa)
    check_first_layer(H, W, C, K, dtype, threads)


def test_first_layer_does_not_depend_on_number_of_threads() -> None:
    runs = []
    for threads in THREADS:
        x, w, b, y, mask = convolution_arrays(97, 131, 3, 64, np.float32)
        workspace = first_layer_workspace(97, 131, 3, 64, np.float32, threads)
        _kernels.first_layer(x, w, b, y, mask, workspace, threads)
        _kernels.first_layer_backward(y, mask, w, x, workspace, threads)
        runs.append((x, y, mask))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("out", reference.POINTS)
def test_winograd_transforms_are_exact_in_one_dimension(out: int) -> None:
    """A' [(G g) . (B' d)] is the correlation of d with g, unit vector by unit vector."""
    B, G, A = reference.winograd_transforms(out)
    for i in range(3):
        for j in range(out + 2):
            d, g = np.eye(out + 2)[j], np.eye(3)[i]
            expected = np.zeros(out)
            if 0 <= j - i < out:
                expected[j - i] = 1
            np.testing.assert_allclose(A @ ((G @ g) * (B @ d)), expected, atol=1e-13)


@pytest.mark.parametrize("out", reference.POINTS)
def test_winograd_reference_is_a_convolution(out: int) -> None:
    x, w = normal(7, 10, 3), normal(27, 4, seed=1)
    expected = reference.convolution(x, w, np.zeros(4))
    assert_close(reference.winograd_convolution(x, w.reshape(3, 3, 3, 4), out), expected)


def test_small_layers_have_small_tiles() -> None:
    """And the shapes tested above have both sizes."""
    module = import_module("npstyle._kernels._winograd")
    assert [module.winograd_tile(side, side, 512, 512, 4) for side in (8, 16, 32, 64)] == [6, 6, 6, 8]
    for isa in INSTRUCTION_SETS:
        _kernels.set_isa(isa)
        assert {module.winograd_tile(*shape, 4) for shape in WINOGRAD_SHAPES} == {6, 8}


def test_winograd_keeps_nan_and_its_bit_is_zero() -> None:
    x, w, b, y, mask = convolution_arrays(6, 6, 32, 32, np.float32)
    b[3] = np.nan
    _kernels.winograd(x, w, b, y, mask, winograd_workspace(6, 6, 32, 32, np.float32))
    assert np.isnan(y[:, :, 3]).all()
    assert not np.isnan(np.delete(y, 3, 2)).any()
    assert not bits(mask, y.shape)[:, :, 3].any()


@pytest.mark.parametrize("isa", TESTED_SETS)
@pytest.mark.parametrize(("H", "W", "C", "K"), [(101, 107, 64, 64), (60, 90, 64, 64), (33, 70, 288, 256)])
def test_winograd_does_not_depend_on_number_of_threads(H: int, W: int, C: int, K: int, isa: str) -> None:
    _kernels.set_isa(isa)
    runs = []
    for threads in THREADS:
        x, w, b, y, mask = convolution_arrays(H, W, C, K, np.float32)
        workspace = winograd_workspace(H, W, C, K, np.float32, threads)
        _kernels.winograd(x, w, b, y, mask, workspace, threads)
        workspace = winograd_workspace(H, W, K, C, np.float32, threads)
        _kernels.winograd_backward(y, mask, w, x, True, workspace, threads)
        runs.append((x, y, mask))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w": np.ones((288, 33), np.float32)}, ["32 to 33 channels", "multiples of 32", "conv3x3"]),
        ({"mask": np.ones(5, np.uint8)}, ["mask", "(5,)", "(80,)"]),
        ({"workspace": np.ones(5, np.float32)}, ["workspace", "(5,)"]),
        ({"y": np.ones((4, 5, 32))}, ["y", "float64", "float32"]),
    ],
)
def test_winograd_arguments_are_checked(change: dict[str, Any], words: list[str]) -> None:
    x, w, b, y, mask = convolution_arrays(4, 5, 32, 32, np.float32)
    workspace = winograd_workspace(4, 5, 32, 32, np.float32)
    arguments = {"x": x, "w": w, "b": b, "y": y, "mask": mask, "workspace": workspace}
    with pytest.raises(UserError) as caught:
        _kernels.winograd(**{**arguments, **change})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("isa", TESTED_SETS)
def test_unavailable_instruction_set_changes_nothing(isa: str) -> None:
    _kernels.set_isa(isa)
    with pytest.raises(UserError, match=r"instructions: found 'mmx'; expected one of .*plain"):
        _kernels.set_isa("mmx")
    assert _kernels.instruction_sets() == INSTRUCTION_SETS
    assert _kernels.current_isa() == isa


@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="not /proc/cpuinfo's words"
)
def test_instruction_sets_are_those_of_the_processor() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    has = set(next(line for line in lines if line.startswith("flags")).split())
    needs: dict[str, set[str]] = {
        "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
        "avx2": {"avx2", "fma"},
        "plain": set(),
    }
    expected = [isa for isa in _kernels._cpu.COMPILED if needs[isa] <= has]
    assert expected == INSTRUCTION_SETS


def test_best_instruction_set_is_the_default() -> None:
    assert python("from npstyle import _kernels; print(_kernels.current_isa())").stdout.split() == [
        INSTRUCTION_SETS[0]
    ]
    _kernels.set_isa("plain")
    _kernels.set_isa(None)
    assert _kernels.current_isa() == INSTRUCTION_SETS[0]


@pytest.mark.parametrize("kernel", ["winograd", "first_layer", "gram"])
def test_set_isa_reaches_kernel(kernel: str) -> None:
    """What is left in the workspace shows it: blocks of rows or columns differ, or the rounding.

    The first layer's does not tell AVX2 from AVX-512: both fuse operations. A debug build fuses nothing.
    """
    module = import_module("npstyle._kernels._winograd")
    if b"Out of bounds on buffer access" in Path(str(module.__file__)).read_bytes():
        pytest.skip("in a debug build all instruction sets round alike")
    left = set()
    for isa in INSTRUCTION_SETS:
        _kernels.set_isa(isa)
        workspace = nan_workspace(1_000_000, np.float32)
        if kernel == "gram":
            COMPILED.gram(normal(100, 64, dtype=np.float32), np.empty((64, 64)), workspace, 1)
        else:
            arrays = convolution_arrays(12, 12, 32, 64, np.float32)
            getattr(COMPILED, kernel)(*arrays, workspace, 1)
        left.add(workspace.tobytes())
    fused = {"avx512", "avx2"} & set(INSTRUCTION_SETS)
    alike = len(fused) - 1 if kernel == "first_layer" and fused else 0
    assert len(left) == len(INSTRUCTION_SETS) - alike


def test_reference_has_no_instruction_sets() -> None:
    code = (
        "from npstyle import _kernels\n"
        "_kernels.set_isa(None)\n"
        "print(_kernels.instruction_sets(), _kernels.current_isa())\n"
        "try:\n    _kernels.set_isa('plain')\n"
        "except ValueError as error:\n    print(error)"
    )
    lines = python(code, NPSTYLE_KERNELS="reference").stdout.splitlines()
    assert lines[0] == "[] NumPy's"
    assert lines[1].startswith("instructions: found 'plain'; expected one of none")


@pytest.mark.parametrize("threads", [1, 2, 300])
@pytest.mark.parametrize("shape", [(1, 1, 3, 1), (9, 11, 64, 32), (70, 61, 3, 64)])
def test_conv3x3_allocates_its_workspace(shape: tuple[int, int, int, int], threads: int) -> None:
    x, w, b, y, _ = convolution_arrays(*shape, np.float32)
    _kernels.conv3x3(x, w, b, y, threads)  # what a first call allocates once is not meant
    tracemalloc.start()
    try:
        _kernels.conv3x3(x, w, b, y, threads)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = 4 * _kernels.conv3x3_workspace(*shape, 4, threads)
    assert size <= peak <= size + 20_000


def test_workspace_of_empty_feature_map() -> None:
    """An estimate of memory may ask for one: the layer of a picture that is too small for it."""
    assert _kernels.conv3x3_workspace(0, 5, 64, 64, 4) == 0
    assert _kernels.winograd_workspace(0, 5, 64, 64, 4) >= 0
    assert _kernels.first_layer_workspace(0, 5, 3, 64, 4) >= 0
    assert _kernels.gram_workspace(0, 64, 4) >= 0


@pytest.mark.parametrize("strip", [1, 23, 50, 10_000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reference_in_strips_equals_the_definition(
    strip: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("npstyle._kernels.reference.convolution"), "MAX_STRIP", strip)
    monkeypatch.setattr(import_module("npstyle._kernels.reference.gram"), "STRIP", strip)
    x, w, b, y, _ = convolution_arrays(17, 23, 3, 5, dtype)
    y[...] = 77
    reference.conv3x3(x, w, b, y, 1)
    assert_close(y, reference.convolution(x, w, b))
    dx = np.full_like(x, 77)
    reference.conv3x3_backward(y, w, dx)
    assert_close(dx, reference.convolution_backward(y, w))
    f, g, total = y.reshape(-1, 5), np.full((5, 5), 77.0), np.full(5, 77.0)
    reference.gram(f, g, f, 1, total)
    assert_close(g, f.T.astype(np.float64) @ f)
    assert_close(total, f.astype(np.float64).sum(axis=0))


def test_reference_convolution_makes_a_strip_of_patches_at_a_time() -> None:
    """It runs where there is no compiler: all patches of a layer would be nine times its input."""
    x, w, b, y, _ = convolution_arrays(128, 128, 32, 8, np.float32)
    tracemalloc.start()
    try:
        reference.conv3x3(x, w, b, y, 1)
        reference.conv3x3_backward(y, w, x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    workspace = 4 * reference.conv3x3_workspace(128, 128, 32, 8, 4, 1)
    assert workspace < 0.2 * 9 * x.nbytes
    assert workspace <= peak <= 1.1 * workspace


@pytest.mark.parametrize("threads", [None, 2])
def test_build_without_openmp_warns_once(monkeypatch: pytest.MonkeyPatch, threads: int | None) -> None:
    monkeypatch.setattr(_kernels, "OPENMP", False)
    monkeypatch.setattr(_kernels, "_warned_without_openmp", False)
    monkeypatch.setattr(_kernels, "resolve", lambda threads: threads or 4)
    monkeypatch.setattr(_kernels, "available", lambda: 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _kernels.warn_without_openmp(1)
        assert not caught
        for _ in range(2):
            _kernels.warn_without_openmp(threads)
    assert [warning.category for warning in caught] == [_kernels.OpenMPWarning]
    assert issubclass(_kernels.OpenMPWarning, RuntimeWarning)
    assert "built without OpenMP, which run on one of 4 cores" in str(caught[0].message)


def test_build_with_openmp_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernels, "OPENMP", True)
    monkeypatch.setattr(_kernels, "_warned_without_openmp", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _kernels.warn_without_openmp(2)


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
def test_conv3x3_arguments_are_checked(change: dict[str, Any], words: list[str]) -> None:
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


def test_reference_is_chosen_by_environment_variable_only() -> None:
    code = (
        "from npstyle import _kernels; print(_kernels.IMPLEMENTATION, _kernels._kernels.conv3x3.__module__)"
    )
    assert python(code).stdout.split() == ["compiled", "npstyle._kernels._convolution"]
    chosen = python(code, NPSTYLE_KERNELS="reference").stdout.split()
    assert chosen == ["reference", "npstyle._kernels.reference.convolution"]
    wrong = python(code, NPSTYLE_KERNELS="fast")
    assert wrong.returncode == 1
    assert "'compiled' or 'reference'" in wrong.stderr


def test_missing_compiled_kernels_are_an_error() -> None:
    code = (
        "import sys; sys.modules['npstyle._kernels._gram'] = None\n"
        "try:\n    import npstyle._kernels\n"
        "except ImportError as error:\n    print(error)"
    )
    message = python(code).stdout
    assert "pip install -e ." in message
    assert "NPSTYLE_KERNELS=reference" in message
