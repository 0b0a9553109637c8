"""Pictures as arrays: what is accepted, sizes, resampling, rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import error_line
from npstyle import images
from pictures import PICTURE


@pytest.mark.parametrize(
    ("width", "height", "size", "expected"),
    [
        (1024, 768, 512, (512, 384)),
        (768, 1024, 512, (384, 512)),
        (1000, 333, 100, (100, 33)),
        (1000, 335, 200, (200, 67)),
        (512, 512, 512, (512, 512)),
        (300, 200, 512, (300, 200)),
        (511, 3, 512, (511, 3)),
        (3000, 2, 16, (16, 1)),
        (1, 5000, 10, (1, 10)),
    ],
)
def test_fitted_size(width: int, height: int, size: int, expected: tuple[int, int]) -> None:
    assert images.fitted_size(width, height, size) == expected


def test_fit_never_enlarges() -> None:
    assert images.fit(PICTURE, 15).shape == (10, 15, 3)
    assert images.fit(PICTURE.transpose(1, 0, 2), 15).shape == (15, 10, 3)
    assert images.fit(PICTURE, 31) is PICTURE


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("size", [(7, 13), (30, 20), (77, 50)])
def test_resize_constant_picture(dtype: type, size: tuple[int, int]) -> None:
    color: NDArray[Any] = np.array([10, 200, 255], dtype)
    resized = images.resize(np.broadcast_to(color, (20, 30, 3)), *size)
    assert resized.shape == (size[1], size[0], 3)
    assert resized.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    np.testing.assert_allclose(resized, np.broadcast_to(color, resized.shape), rtol=1e-6)


@pytest.mark.parametrize("size", [(11, 9), (29, 20), (64, 48)])
def test_resize_uint8_and_float_agree(size: tuple[int, int]) -> None:
    muted = PICTURE // 2 + 64  # Pillow clips uint8 between its two passes, where the filter overshoots
    integers, floats = images.resize(muted, *size), images.resize(muted.astype(np.float32), *size)
    assert np.abs(integers.astype(int) - images.to_uint8(floats)).max() <= 1


def test_resize_averages_all_pixels() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    reduced = images.resize(np.repeat(board[:, :, None].astype(np.uint8), 3, axis=2), 8, 8)
    assert np.abs(reduced.astype(int) - 127.5).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("size", [(7, 13), (29, 20), (30, 20), (64, 48)])
def test_resize_one_channel_is_bit_identical_to_a_picture(dtype: type, size: tuple[int, int]) -> None:
    picture = PICTURE if dtype == np.uint8 else (PICTURE / 255 - 0.3).astype(dtype)
    resized = images.resize(picture, *size)
    for c in range(3):
        channel = images.resize(picture[:, :, c], *size)
        assert channel.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
        assert channel.shape == size[::-1]
        assert channel.tobytes() == resized[:, :, c].tobytes()


RAGGED = [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        (np.zeros((4, 5)), "float64 array of shape (4, 5); expected values of shape (H, W, 3), RGB, 0..255"),
        (np.zeros((4, 5, 4), np.uint8), "uint8 array of shape (4, 5, 4)"),
        (np.zeros((0, 5, 3)), "float64 array of shape (0, 5, 3)"),
        (np.zeros((1, 4, 5, 3)), "float64 array of shape (1, 4, 5, 3)"),
        (np.zeros((4, 5, 3), bool), "bool array of shape (4, 5, 3)"),
        (np.zeros((4, 5, 3), complex), "complex128 array of shape (4, 5, 3)"),
        ("photo.jpg", "<U9 array of shape ()"),
        (None, "object array of shape ()"),
        (RAGGED, "rows of unequal length; expected an array (H, W, 3)"),
        ([[[0, 0, np.nan]]], "NaN or infinity; expected finite values from 0 to 255"),
        ([[[0, 0, -np.inf]]], "NaN or infinity; expected finite values from 0 to 255"),
        ([[[0, 0, 256]]], "values up to 256; expected values from 0 to 255"),
        (np.full((2, 2, 3), 3000, np.uint16), "values up to 3000; expected values from 0 to 255"),
        (np.full((2, 2, 3), 10_001.0), "values up to 10001.0; expected values from 0 to 255"),
        (np.full((2, 2, 3), 1.0), "values from 0 to 1; expected values from 0 to 255"),
        ([[[-1.0, 0, 1]]], "values from -1 to 1; expected values from 0 to 255"),
        ([[[-2.1, 0, 2.64]]], "values from -2.1 to 2.6; expected values from 0 to 255"),
    ],
)
def test_as_picture_errors(picture: Any, found: str) -> None:
    assert error_line(lambda: images.as_picture(picture, "style"), "style").startswith(f"found {found};")


def test_as_picture_returns_the_values_unchanged() -> None:
    assert images.as_picture(PICTURE, "content") is PICTURE
    assert images.as_picture(PICTURE.tolist(), "content").tolist() == PICTURE.tolist()
    overshooting = PICTURE * 1.1 - 10.0
    assert images.as_picture(overshooting, "content") is overshooting
    dark = np.array([[[-0.5, 0, 4]]])
    assert images.as_picture(dark, "content") is dark


def test_to_uint8_rounds_and_clips() -> None:
    pixels = np.array([-300, -0.6, 0.4, 0.6, 1.5, 2.5, 254.4, 254.6, 255.6, 1e9])
    rounded = images.to_uint8(pixels)
    assert rounded.dtype == np.uint8
    assert rounded.tolist() == [0, 0, 0, 1, 2, 2, 254, 255, 255, 255]


@pytest.mark.parametrize(("H", "W"), [(64, 32), (8, 24), (16, 16), (2, 3)])
def test_wrapped_resize_goes_on_at_the_opposite_border(H: int, W: int) -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (16, 16, 3))
    resized = images.resize_wrapped(picture, W, H)
    assert resized.shape == (H, W, 3)
    assert resized.dtype == np.float32
    inside = images.resize(np.tile(picture, (5, 5, 1)), 5 * W, 5 * H)[2 * H : 3 * H, 2 * W : 3 * W]
    np.testing.assert_allclose(resized, inside, atol=1e-2)
