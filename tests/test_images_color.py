"""Luma and chroma; color statistics matched, also of pictures that lack color or contrast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from npstyle.errors import UserError
from npstyle.images.color import gray, luma, match_color_statistics, match_luma_statistics, transfer_luma
from tolerances import SAME

Array = NDArray[Any]

EXACT = SAME[np.dtype(np.float64)]


def pixels(*colors: tuple[float, ...], dtype: type = np.float64) -> Array:
    """One line of pixels, (1, W, 3)."""
    return np.array([colors], dtype)


def colorful(H: int, W: int, spread: Array | float, seed: int) -> Array:
    """Pixels distributed uniformly around a color, rotated at random; bounded, so that nothing is clipped."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    picture: Array = (spread * rng.uniform(-1, 1, (H, W, 3))) @ rotation + rng.uniform(110, 145, 3)
    return picture


def every_color_of(values: Sequence[float]) -> Array:
    """One pixel for each combination of R, G and B from the values."""
    return np.stack(np.meshgrid(*[np.array(values, np.float64)] * 3), axis=-1).reshape(1, -1, 3)


def moments(picture: Array) -> tuple[Array, Array]:
    flat = picture.reshape(-1, 3).astype(np.float64)
    return flat.mean(axis=0), np.cov(flat.T, bias=True)


def chroma(picture: Array) -> Array:
    """Cb and Cr of BT.601."""
    Y = 0.299 * picture[:, :, 0] + 0.587 * picture[:, :, 1] + 0.114 * picture[:, :, 2]
    return np.stack([(picture[:, :, 2] - Y) / 1.772, (picture[:, :, 0] - Y) / 1.402], axis=2)


SPREAD = np.array([6.0, 15.0, 30.0])
STYLE = colorful(12, 17, SPREAD, seed=1)
CONTENT = colorful(9, 23, SPREAD, seed=2)

# Pictures that lack color, contrast, or all but one pixel.
LACKING: dict[str, Array] = {
    "gray": np.repeat(colorful(8, 9, 25.0, seed=3)[:, :, :1], 3, axis=2),
    "nearly gray": np.repeat(colorful(8, 9, 25.0, seed=4)[:, :, :1], 3, axis=2)
    + np.random.default_rng(5).uniform(-0.5, 0.5, (8, 9, 3)),
    "flat": np.full((7, 5, 3), 77.7),
    "nearly flat": 120 + np.random.default_rng(6).uniform(-0.5, 0.5, (9, 9, 3)),
    "black": np.zeros((6, 4, 3)),
    "one color": np.broadcast_to([130.0, 90.0, 20.0], (5, 5, 3)),
    "two colors": np.tile(pixels((120, 100, 90), (140, 110, 95)), (3, 2, 1)),
    "reds": np.stack([colorful(6, 6, 20.0, seed=7)[:, :, 0], *np.full((2, 6, 6), 100.0)], axis=2),
    "no blue": np.concatenate([STYLE[:, :, :2], np.full((12, 17, 1), 128.0)], axis=2),
    "one pixel": pixels((100, 120, 150)),
}
PICTURES = {"colorful": STYLE, **LACKING}

FUNCTIONS: dict[str, Callable[[Array, Array], Array]] = {
    "luma": lambda style, content: luma(style),
    "gray": lambda style, content: gray(style),
    "transfer_luma": lambda style, content: transfer_luma(style, content[:1, :1].repeat(12, 0).repeat(17, 1)),
    "match_color_statistics": match_color_statistics,
    "match_luma_statistics": lambda style, content: match_luma_statistics(style[:, :, 0], content[:, :, 1]),
}


def test_luma_by_hand() -> None:
    picture = pixels((255, 0, 0), (0, 100, 0), (0, 0, 100), (10, 20, 30))
    np.testing.assert_allclose(luma(picture), [[76.245, 58.7, 11.4, 18.15]], rtol=EXACT)


def test_gray_by_hand() -> None:
    expected = pixels((58.7, 58.7, 58.7), (200, 200, 200))
    np.testing.assert_allclose(gray(pixels((0, 100, 0), (200, 200, 200))), expected, rtol=EXACT)


@pytest.mark.parametrize(
    ("dtype", "result_dtype"), [(np.uint8, np.float32), (np.float32, np.float32), (np.float64, np.float64)]
)
def test_dtypes_and_unmodified_arguments(dtype: type, result_dtype: type) -> None:
    style, content = np.rint(STYLE), np.rint(CONTENT)
    expected = [function(style, content) for function in FUNCTIONS.values()]
    style, content = style.astype(dtype), content.astype(dtype)
    style.flags.writeable = content.flags.writeable = False
    for (name, function), reference in zip(FUNCTIONS.items(), expected, strict=True):
        result = function(style, content)
        assert result.dtype == result_dtype, name
        assert result.flags.writeable, name
        assert not np.shares_memory(result, style), name
        np.testing.assert_allclose(result, reference, rtol=SAME[result.dtype], err_msg=name)


def test_transfer_luma_by_hand() -> None:
    content, painted = pixels((100, 50, 0), (250, 100, 20)), pixels((70, 70, 70), (0, 0, 0))
    Y = 0.299 * 250 + 0.587 * 100 + 0.114 * 20
    expected = pixels((100 + 10.75, 50 + 10.75, 10.75), (250 - Y, 100 - Y, 20 - Y))  # 59.25 is the first luma
    np.testing.assert_allclose(transfer_luma(painted, content), expected, rtol=EXACT)


def test_transfer_luma_has_painted_luma_and_content_chroma() -> None:
    rng = np.random.default_rng(9)
    painted, content = rng.uniform(0, 255, (2, 11, 13, 3))
    result = transfer_luma(painted, content)
    assert result.min() < 0
    assert result.max() > 255  # not clipped
    np.testing.assert_allclose(luma(result), luma(painted), atol=255 * EXACT)
    np.testing.assert_allclose(chroma(result), chroma(content), atol=255 * EXACT)


def test_transfer_luma_of_a_picture_to_itself_or_its_gray() -> None:
    np.testing.assert_array_equal(transfer_luma(STYLE, STYLE), STYLE)
    np.testing.assert_allclose(transfer_luma(gray(STYLE), STYLE), STYLE, rtol=EXACT)
    np.testing.assert_allclose(transfer_luma(STYLE, gray(STYLE)), gray(STYLE), rtol=EXACT)


def test_transfer_luma_needs_equal_sizes() -> None:
    with pytest.raises(UserError) as caught:
        transfer_luma(STYLE, CONTENT)
    assert str(caught.value) == (
        "painted picture: found 17 x 12 pixels; expected 23 x 9, the size of the content picture; "
        "resize one of them"
    )


def test_match_color_statistics_by_hand() -> None:
    """Uncorrelated channels: each is stretched by the ratio of its standard deviations."""
    corners = every_color_of([-1, 1])
    style, content = 50 + corners * [2, 4, 8], np.array([100, 110, 120]) + corners[::-1] * [6, 4, 2]
    expected = np.array([100, 110, 120]) + corners * [6, 4, 2]
    np.testing.assert_allclose(match_color_statistics(style, content), expected, rtol=EXACT)


def test_match_color_statistics_has_mean_and_covariance_of_content() -> None:
    result = match_color_statistics(STYLE, CONTENT)
    assert result.min() > 0
    assert result.max() < 255  # nothing was clipped
    mean, covariance = moments(result)
    expected_mean, expected = moments(CONTENT)
    np.testing.assert_allclose(mean, expected_mean, rtol=EXACT)
    np.testing.assert_allclose(covariance, expected, atol=EXACT * np.abs(expected).max())


def test_match_color_statistics_is_idempotent() -> None:
    once = match_color_statistics(STYLE, CONTENT)
    np.testing.assert_allclose(match_color_statistics(once, CONTENT), once, rtol=EXACT)
    np.testing.assert_allclose(match_color_statistics(STYLE, STYLE), STYLE, rtol=EXACT)


def test_monge_kantorovich_map_moves_colors_least() -> None:
    """All other maps are A S_s^(1/2) R S_s^(-1/2) with an orthogonal R; they give the same moments."""
    mean, S_s = moments(STYLE)
    root, mapped = np.linalg.cholesky(S_s), match_color_statistics(STYLE, CONTENT) - moments(CONTENT)[0]
    A = np.linalg.lstsq((STYLE - mean).reshape(-1, 3), mapped.reshape(-1, 3), rcond=None)[0].T
    np.testing.assert_allclose(A, A.T, atol=EXACT)
    moved = np.square(mapped - (STYLE - mean)).mean()
    for seed in range(20):
        R, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
        other = (STYLE - mean) @ (A @ root @ R @ np.linalg.inv(root)).T
        np.testing.assert_allclose(moments(other)[1], moments(CONTENT)[1], atol=1e-9)
        assert np.square(other - (STYLE - mean)).mean() > moved


@pytest.mark.parametrize("content_name", LACKING)
def test_colorful_style_matches_any_content_exactly(content_name: str) -> None:
    content = LACKING[content_name]
    result = match_color_statistics(STYLE, content)
    expected_mean, expected = moments(content) if content.size > 3 else (content[0, 0], np.zeros((3, 3)))
    mean, covariance = moments(result)
    np.testing.assert_allclose(mean, expected_mean, atol=255 * EXACT)
    np.testing.assert_allclose(covariance, expected, atol=1e-9)
    np.testing.assert_allclose(match_color_statistics(result, content), result, atol=1e-6)


@pytest.mark.parametrize("content", PICTURES)
@pytest.mark.parametrize("style", LACKING)
def test_style_lacking_colors_is_stretched_at_most_tenfold(style: str, content: str) -> None:
    """The mean is the content's, no variance exceeds the content's, and differences grow at most tenfold."""
    before, reference = LACKING[style], PICTURES[content]
    result = match_color_statistics(before, reference)
    assert result.shape == before.shape
    assert np.isfinite(result).all()
    (mean_s, _), (mean_c, S_c), (mean, S) = moments(before), moments(reference), moments(result)
    np.testing.assert_allclose(mean, mean_c, atol=1e-9)
    assert np.linalg.eigvalsh(S_c - S).min() > -1e-9
    distance = np.linalg.norm(before - mean_s, axis=2)
    assert (np.linalg.norm(result - mean, axis=2) <= 10 * distance + 1e-9).all()


@pytest.mark.parametrize("style", ["flat", "black", "one color", "one pixel"])
def test_flat_style_becomes_mean_color_of_content(style: str) -> None:
    expected = np.broadcast_to(moments(CONTENT)[0], LACKING[style].shape)
    np.testing.assert_allclose(match_color_statistics(LACKING[style], CONTENT), expected, rtol=EXACT)


def test_gray_style_is_tinted_by_regression_on_brightness() -> None:
    """The regression of the content's colors on R + G + B is along S_c (1, 1, 1); raising S_s costs 2 %."""
    mean, S_c = moments(CONTENT)
    direction = S_c @ np.ones(3)
    style = LACKING["gray"]
    per_std = direction / np.sqrt(np.ones(3) @ direction)  # the change of color for one std of the gray
    standardized = (style[:, :, :1] - style.mean()) / style[:, :, 0].std()
    np.testing.assert_allclose(
        match_color_statistics(style, CONTENT) - mean,
        standardized * per_std,
        atol=0.02 * np.abs(standardized * per_std).max(),
    )


def test_gray_style_matches_content_of_one_hue_nearly_exactly() -> None:
    for content in ("reds", "two colors"):
        expected = moments(LACKING[content])[1]
        covariance = moments(match_color_statistics(LACKING["gray"], LACKING[content]))[1]
        np.testing.assert_allclose(covariance, expected, atol=0.02 * expected.max())


def test_rounding_noise_of_gray_style_is_stretched_at_most_tenfold() -> None:
    """The channels of a gray, each rounded differently, with a standard deviation of 0.29."""
    clean = LACKING["gray"]
    noisy = np.rint(clean + np.random.default_rng(10).uniform(-0.5, 0.5, clean.shape))
    difference = match_color_statistics(noisy, CONTENT) - match_color_statistics(clean, CONTENT)
    assert np.abs(difference).max() <= 10 * np.sqrt(3)


def test_match_color_statistics_clips() -> None:
    style, content = every_color_of([0, 0, 0, 0, 100]), every_color_of([0, 255])
    # The style's mean of 20 is half a standard deviation above 0, and two below 100.
    dark, light = 127.5 - 127.5 / 2, 255
    np.testing.assert_allclose(
        match_color_statistics(style, content), np.where(style == 0, dark, light), rtol=EXACT
    )


def test_match_luma_statistics_by_hand() -> None:
    style, content = np.array([[10.0, 30.0]]), np.array([[100.0], [140.0], [100.0], [140.0]])
    np.testing.assert_allclose(match_luma_statistics(style, content), [[100, 140]], rtol=EXACT)


@pytest.mark.parametrize("to_gray", [luma, gray])
def test_match_luma_statistics_has_mean_and_std_of_content(to_gray: Any) -> None:
    style, content = to_gray(STYLE), to_gray(CONTENT)
    result = match_luma_statistics(style, content)
    assert result.shape == style.shape
    assert result.mean() == pytest.approx(content.mean(), rel=EXACT)
    assert result.std() == pytest.approx(content.std(), rel=EXACT)
    np.testing.assert_allclose(match_luma_statistics(result, content), result, rtol=EXACT)
    np.testing.assert_allclose(np.corrcoef(result.ravel(), style.ravel()), 1, rtol=EXACT)


@pytest.mark.parametrize("content", PICTURES)
@pytest.mark.parametrize("style", LACKING)
def test_match_luma_statistics_without_contrast(style: str, content: str) -> None:
    before, reference = luma(LACKING[style]), luma(PICTURES[content])
    result = match_luma_statistics(before, reference)
    assert result.mean() == pytest.approx(reference.mean(), abs=1e-9)
    assert result.std() <= min(reference.std(), 10 * before.std()) + 1e-9


def test_match_luma_statistics_stretches_at_most_tenfold() -> None:
    style = np.array([[127.0, 129.0]])
    np.testing.assert_allclose(
        match_luma_statistics(style, np.array([[91.0, 109.0]])), [[91, 109]], rtol=EXACT
    )
    np.testing.assert_allclose(
        match_luma_statistics(style, np.array([[50.0, 150.0]])), [[90, 110]], rtol=EXACT
    )


def test_match_luma_statistics_clips() -> None:
    style, content = np.array([[0.0, 0, 0, 0, 100]]), np.array([[0.0, 255.0]])
    np.testing.assert_allclose(match_luma_statistics(style, content), [[63.75] * 4 + [255]], rtol=EXACT)
