"""Colors of one picture and brightness of another: taken apart, put back together, matched.

Pictures are (H, W, 3), RGB, 0..255, uint8 or floating; nothing is written to them. float64 stays float64,
anything else becomes float32; means and covariances are taken in double.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npstyle.errors import UserError

Array = NDArray[np.floating]
Double = NDArray[np.float64]

RED, GREEN, BLUE = 0.299, 0.587, 0.114

# Where a style has next to no contrast, noise is most of it. So differences are stretched at most so many
# times; a painting of the night and a photograph by day, each matched to the other, needed 1.8.
STRETCH = 10.0
# A standard deviation that is none: rounding to whole numbers alone makes 0.29.
NONE = 0.1


def luma(picture: NDArray[Any]) -> Array:
    """Brightness of a picture (H, W, 3) as (H, W).

        Y = 0.299 R + 0.587 G + 0.114 B

    Source: ITU-R BT.601; it is the Y of YIQ and of YCbCr.

    Examples
    --------
    >>> luma(np.array([[[255.0, 0.0, 0.0], [10.0, 20.0, 30.0]]])).round(3).tolist()
    [[76.245, 18.15]]
    """
    rgb = _floating(picture)
    Y: Array = RED * rgb[:, :, 0] + GREEN * rgb[:, :, 1] + BLUE * rgb[:, :, 2]
    return Y


def gray(picture: NDArray[Any]) -> Array:
    """The picture's luma Y in all three channels, (H, W, 3): R = G = B = Y."""
    return np.repeat(luma(picture)[:, :, None], 3, axis=2)


def transfer_luma(painted: NDArray[Any], content: NDArray[Any]) -> Array:
    """The painted picture's luma with the content picture's chroma, for pictures (H, W, 3) of one size.

        content + (Y(painted) - Y(content)),      the same number in all three channels

    That sets Y, and leaves B - Y and R - Y alone, which Cb and Cr are multiples of.

    The sum may leave 0..255. Whoever writes the picture clips it, each channel by itself: such pixels then
    have less color, and are less bright or less dark than they were painted.

    Source: Gatys, Bethge, Hertzmann, Shechtman, "Preserving Color in Neural Artistic Style Transfer", 2016,
    on transfer in luminance; "-original_colors" of jcjohnson's neural-style and "--preserve-colors" of
    anishathalye's do it after the run, as here.

    Raises
    ------
    UserError
        The pictures differ in size.
    """
    (h, w), (H, W) = painted.shape[:2], content.shape[:2]
    if (h, w) != (H, W):
        raise UserError(
            "painted picture",
            f"{w} x {h} pixels",
            f"{W} x {H}, the size of the content picture",
            "resize one of them",
        )
    return _floating(content) + (luma(painted) - luma(content))[:, :, None]


def match_color_statistics(style: NDArray[Any], content: NDArray[Any]) -> Array:
    """The style picture in colors that have the mean and covariance of the content picture's.

        x -> A (x - mean_s) + mean_c,      A S_s A' = S_c

    for each pixel x (3,), where mean_s and S_s (3, 3) are mean and covariance over the pixels of the style,
    mean_c and S_c over those of the content picture; the two may differ in size. Many A do that. This one is
    symmetric and has no negative eigenvalue; of all, it moves the colors least (mean square):

        A = S_s^(-1/2) (S_s^(1/2) S_c S_s^(1/2))^(1/2) S_s^(-1/2)

    S_c^(1/2) S_s^(-1/2), image analogies' choice, turns colors as well, and stretches some of them further.

    For a style that is gray or flat there is no S_s^(-1/2), and for one that nearly is, it blows up noise.
    So S_s is raised to F = S_c / 10^2 + 0.1^2 I, by adding the positive part of F - S_s. That stretches no
    difference of colors more than tenfold, and changes nothing where S_s - F has no negative eigenvalue.
    Elsewhere the mean is still the content's, and no variance is larger than the content's. A gray style is
    tinted, nearly by the regression of the content picture's colors on R + G + B.

    Values are clipped to 0..255, as no painting has others and the filters have seen no others. The match is
    exact where nothing is clipped. A painting of the night, matched to a photograph by day, had 7 % of its
    values clipped, which moved the mean by up to 2 and the covariance by 6 %.

    Source: Gatys, Ecker, Bethge, Hertzmann, Shechtman, "Controlling Perceptual Factors in Neural Style
    Transfer", CVPR 2017, section 5, for the matching; Pitié, Kokaram, "The Linear Monge-Kantorovitch Linear
    Colour Mapping for Example-Based Colour Transfer", CVMP 2007, for this A. Raising S_s is ours.
    """
    pixels = _floating(style)
    mean_s, S_s = _moments(style)
    mean_c, S_c = _moments(content)
    A = _monge_kantorovich_map(S_s, S_c)
    return np.clip((pixels - mean_s) @ A + mean_c, 0, 255).astype(pixels.dtype)  # A' = A


def match_luma_statistics(style_gray: NDArray[Any], content_gray: NDArray[Any]) -> Array:
    """The gray style picture with the mean and standard deviation of the gray content picture.

        Y -> (Y - mean_s) sd_c / sd_s + mean_c

    Each is (H, W), as of `luma`, or (H, W, 3), as of `gray`; they may differ in size. As in
    `match_color_statistics`, contrast is stretched at most tenfold, so that a flat style
    stays flat, and values are clipped to 0..255.

    Source: Gatys, Ecker, Bethge, Hertzmann, Shechtman, "Controlling Perceptual Factors in Neural Style
    Transfer", CVPR 2017, section 5.1.
    """
    Y = _floating(style_gray)
    mean_s, sd_s = _mean_and_sd(style_gray)
    mean_c, sd_c = _mean_and_sd(content_gray)
    stretched = (Y.astype(np.float64) - mean_s) * (sd_c / max(sd_s, sd_c / STRETCH, NONE)) + mean_c
    return np.clip(stretched, 0, 255).astype(Y.dtype)


def _floating(picture: NDArray[Any]) -> Array:
    return picture if picture.dtype == np.float64 else np.asarray(picture, np.float32)


def _moments(picture: NDArray[Any]) -> tuple[Double, Double]:
    """Mean (3,) and covariance (3, 3) of the pixels."""
    pixels = np.asarray(picture, np.float64).reshape(-1, 3)
    mean = pixels.mean(axis=0)
    centered = pixels - mean
    return mean, centered.T @ centered / len(centered)


def _mean_and_sd(numbers: NDArray[Any]) -> tuple[float, float]:
    return float(np.mean(numbers, dtype=np.float64)), float(np.std(numbers, dtype=np.float64))


def _monge_kantorovich_map(S_s: Double, S_c: Double) -> Double:
    """The symmetric A with A S_s A = S_c, once S_s is raised; see `match_color_statistics`."""
    floor = S_c / STRETCH**2 + NONE**2 * np.eye(3)
    S_s = S_s + _of_eigenvalues(_positive, floor - S_s)
    root, inverse = _of_eigenvalues(np.sqrt, S_s), _of_eigenvalues(lambda values: values**-0.5, S_s)
    middle = _of_eigenvalues(lambda values: np.sqrt(_positive(values)), root @ S_c @ root)
    return inverse @ middle @ inverse


def _positive(values: Double) -> Double:
    return np.maximum(values, 0)


def _of_eigenvalues(function: Callable[[Double], Double], matrix: Double) -> Double:
    """The symmetric matrix with the same eigenvectors, and the function of each eigenvalue."""
    values, vectors = np.linalg.eigh(matrix)
    result: Double = (vectors * function(values)) @ vectors.T
    return result
