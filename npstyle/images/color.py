"""Combine the luma of one picture with the chroma of another, and match color statistics.

Pictures are (H, W, 3), RGB, 0..255, uint8 or floating point; arguments are not modified. float64 stays
float64, any other dtype becomes float32; means and covariances are accumulated in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npstyle._runtime.chunks import in_chunks
from npstyle.errors import UserError

Array = NDArray[np.floating]
Float64 = NDArray[np.float64]

RED, GREEN, BLUE = 0.299, 0.587, 0.114  # weights of luma, ITU-R BT.601

# Differences of colors are stretched by at most this factor, as a style with hardly any contrast is mostly
# noise. A painting of the night and a photograph by day, each matched to the other, needed a factor of 1.8.
MAX_STRETCH = 10.0
# A standard deviation that counts as none: rounding to integers alone gives 0.29.
MIN_STD = 0.1


def luma(picture: NDArray[Any]) -> Array:
    """The luma (H, W) of a picture (H, W, 3).

        Y = 0.299 R + 0.587 G + 0.114 B

    Source: ITU-R BT.601; it is the Y of YIQ and of YCbCr.

    Examples
    --------
    >>> luma(np.array([[[255.0, 0.0, 0.0], [10.0, 20.0, 30.0]]])).round(3).tolist()
    [[76.245, 18.15]]
    """
    rgb = _as_float(picture)
    Y: Array = RED * rgb[:, :, 0] + GREEN * rgb[:, :, 1] + BLUE * rgb[:, :, 2]
    return Y


def gray(picture: NDArray[Any]) -> Array:
    """The picture's luma Y in all three channels, (H, W, 3): R = G = B = Y."""
    return in_chunks(lambda rows: np.repeat(luma(rows)[:, :, None], 3, axis=2), picture)


def transfer_luma(painted: NDArray[Any], content: NDArray[Any]) -> Array:
    """The luma of the painted picture with the chroma of the content picture.

        content + (Y(painted) - Y(content)),      the same difference in all three channels

    This sets Y and leaves B - Y and R - Y unchanged, of which Cb and Cr are multiples.

    Parameters
    ----------
    painted, content : (H, W, 3) array
        Two pictures of the same size.

    Returns
    -------
    (H, W, 3) array
        Values may lie outside 0..255. `npstyle.images.write` clips each channel by itself; a clipped pixel
        has less color, and is less bright or less dark than it was painted.

    Raises
    ------
    UserError
        The pictures differ in size.

    Notes
    -----
    Source: Gatys, Bethge, Hertzmann, Shechtman, "Preserving Color in Neural Artistic Style Transfer", 2016,
    on transfer in luminance. "-original_colors" of jcjohnson's neural-style and "--preserve-colors" of
    anishathalye's do it after the run, as npstyle does.
    """
    (h, w), (H, W) = painted.shape[:2], content.shape[:2]
    if (h, w) != (H, W):
        raise UserError(
            "painted picture",
            f"{w} x {h} pixels",
            f"{W} x {H}, the size of the content picture",
            "resize one of them",
        )

    def of_rows(painted: NDArray[Any], content: NDArray[Any]) -> Array:
        return _as_float(content) + (luma(painted) - luma(content))[:, :, None]

    return in_chunks(of_rows, painted, content)


def match_color_statistics(style: NDArray[Any], content: NDArray[Any]) -> Array:
    """The style picture, recolored to the mean and covariance of the content picture's colors.

        x -> A (x - mean_s) + mean_c,      A S_s A' = S_c

    for each pixel x (3,), where mean_s (3,) and S_s (3, 3) are the mean and covariance over the pixels of the
    style, mean_c and S_c those of the content picture. Many A satisfy this. The one used here, the
    Monge-Kantorovich map, is symmetric and positive semidefinite; of all, it changes the colors least (in the
    mean square):

        A = S_s^(-1/2) (S_s^(1/2) S_c S_s^(1/2))^(1/2) S_s^(-1/2)

    S_c^(1/2) S_s^(-1/2), as in image analogies, rotates colors as well, and stretches some of them further.

    Parameters
    ----------
    style, content : (H, W, 3) array
        The two may differ in size.

    Returns
    -------
    (H, W, 3) array
        Of the style's size. Clipped to 0..255, as no painting has other values and the network was trained on
        none; the statistics are exact where nothing is clipped. In a painting of the night, matched to a
        photograph by day, 7 % of the values were clipped, which moved the mean by up to 2 and the covariance
        by 6 %.

    Notes
    -----
    For a gray or flat style S_s^(-1/2) does not exist, and for a nearly gray one it amplifies noise. So S_s
    is raised to at least F = S_c / 10^2 + 0.1^2 I, by adding the positive part of F - S_s. This limits the
    stretching of any difference of colors to a factor of ten, and changes nothing where S_s - F is positive
    semidefinite. Otherwise the mean still equals the content's, and no variance exceeds the content's. A
    gray style is tinted, nearly by the regression of the content picture's colors on R + G + B.

    Source: Gatys, Ecker, Bethge, Hertzmann, Shechtman, "Controlling Perceptual Factors in Neural Style
    Transfer", CVPR 2017, section 5, for the matching; Pitié, Kokaram, "The Linear Monge-Kantorovitch Linear
    Colour Mapping for Example-Based Colour Transfer", CVMP 2007, for this A. The limit F is npstyle's own.
    """
    mean_s, S_s = _mean_and_covariance(style)
    mean_c, S_c = _mean_and_covariance(content)
    A = _monge_kantorovich_map(S_s, S_c)

    def of_rows(rows: NDArray[Any]) -> Array:
        pixels = _as_float(rows)
        return np.clip((pixels - mean_s) @ A + mean_c, 0, 255).astype(pixels.dtype)  # A' = A

    return in_chunks(of_rows, style)


def match_luma_statistics(style_gray: NDArray[Any], content_gray: NDArray[Any]) -> Array:
    """The gray style picture with the mean and standard deviation of the gray content picture.

        Y -> (Y - mean_s) std_c / std_s + mean_c

    Parameters
    ----------
    style_gray, content_gray : (H, W) array, as from `luma`, or (H, W, 3) array, as from `gray`
        The two may differ in size.

    Returns
    -------
    array
        Of the style's shape. As in `match_color_statistics`, contrast is stretched at most tenfold, so that a
        flat style stays flat, and values are clipped to 0..255.

    Notes
    -----
    Source: Gatys, Ecker, Bethge, Hertzmann, Shechtman, "Controlling Perceptual Factors in Neural Style
    Transfer", CVPR 2017, section 5.1.
    """
    mean_s, std_s = _mean_and_std(style_gray)
    mean_c, std_c = _mean_and_std(content_gray)
    stretch = std_c / max(std_s, std_c / MAX_STRETCH, MIN_STD)

    def of_rows(rows: NDArray[Any]) -> Array:
        Y = _as_float(rows)
        return np.clip((Y.astype(np.float64) - mean_s) * stretch + mean_c, 0, 255).astype(Y.dtype)

    return in_chunks(of_rows, style_gray)


def _as_float(picture: NDArray[Any]) -> Array:
    return picture if picture.dtype == np.float64 else np.asarray(picture, np.float32)


def _mean_and_covariance(picture: NDArray[Any]) -> tuple[Float64, Float64]:
    """Mean (3,) and covariance (3, 3) of the pixels."""
    centered = np.array(picture, np.float64).reshape(-1, 3)
    mean = centered.mean(axis=0)
    centered -= mean
    return mean, centered.T @ centered / len(centered)


def _mean_and_std(values: NDArray[Any]) -> tuple[float, float]:
    return float(np.mean(values, dtype=np.float64)), float(np.std(values, dtype=np.float64))


def _monge_kantorovich_map(S_s: Float64, S_c: Float64) -> Float64:
    """The symmetric A with A S_s A = S_c, after S_s has been raised; see `match_color_statistics`."""
    floor = S_c / MAX_STRETCH**2 + MIN_STD**2 * np.eye(3)
    S_s = S_s + _map_eigenvalues(_positive_part, floor - S_s)
    root, inverse_root = _map_eigenvalues(np.sqrt, S_s), _map_eigenvalues(lambda values: values**-0.5, S_s)
    middle = _map_eigenvalues(lambda values: np.sqrt(_positive_part(values)), root @ S_c @ root)
    return inverse_root @ middle @ inverse_root


def _positive_part(values: Float64) -> Float64:
    return np.maximum(values, 0)


def _map_eigenvalues(function: Callable[[Float64], Float64], matrix: Float64) -> Float64:
    """The symmetric matrix with the same eigenvectors, and the function applied to each eigenvalue."""
    values, vectors = np.linalg.eigh(matrix)
    result: Float64 = (vectors * function(values)) @ vectors.T
    return result
