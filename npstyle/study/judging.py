"""How much of the style a result still lacks, and how much of the drawing it has lost.

Both are measured in layers that the default recipe does not optimize, so that a recipe can't be tuned to its
judge by accident. See docs/judge.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from npstyle import images
from npstyle._runtime.threads import one_blas_thread
from npstyle._typing import AnyArray, Double
from npstyle.architecture import check_size, convolutions_up_to, deepest
from npstyle.errors import UserError
from npstyle.losses import sum_of_squares
from npstyle.run.inputs import MAX_MASK_DISTORTION, Source, as_array
from npstyle.settings import PAPER_STYLE_LAYERS
from npstyle.statistics import Gaussian, Transport, gaussian
from npstyle.study.heatmap import mean_gram, style_distance
from npstyle.vgg import VGG19, Filters
from npstyle.weights import Weights, load_weights

WASSERSTEIN_LAYERS = ("conv1_2", "conv2_2", "conv3_2", "conv4_3")
SIMILARITY_LAYERS = ("conv3_3", "conv4_3")
CORRELATION_LAYER = "conv4_2"
LAYERS = tuple(
    dict.fromkeys([*WASSERSTEIN_LAYERS, *SIMILARITY_LAYERS, *PAPER_STYLE_LAYERS, CORRELATION_LAYER])
)
JUDGED_SIZE = 1024  # to which results are reduced, unless another size is asked for
GRID = 28  # positions along each side, that self-similarities are taken between


@dataclass(frozen=True)
class Judgment:
    """What `judge` finds of a result. Lower is better, except for the correlation.

    Attributes
    ----------
    missing_style : float
        E, how much of the style is still missing: 0 is the style's statistics, 1 the content picture's.
    lost_content : float
        C, how much of the drawing is lost: 0 is the content picture, 1 as little like it as the painting is.
    style_distances : dict of str to float
        sum (G/M - A/M_a)^2 / sum (A/M_a)^2 of each layer of the paper's style loss, for the Gram matrices G
        of the result and A of the style picture.
    content_correlation : float
        Of the activations of conv4_2, between the result and the content picture.
    """

    missing_style: float
    lost_content: float
    style_distances: dict[str, float]
    content_correlation: float


@dataclass(frozen=True)
class Statistics:
    """What is compared of one picture: by layer, but for the activations (M C,) of one of them."""

    gaussians: dict[str, Gaussian]
    similarities: dict[str, Double]
    grams: dict[str, Double]
    activations: AnyArray


def judge(
    content: Source,
    style: Source,
    result: Source,
    *,
    weights: Mapping[str, Filters] | str | os.PathLike[str] = "auto",
    threads: int | None = None,
) -> Judgment:
    """Measure how much of the style a result lacks (E), and how much of the drawing it has lost (C).

    With W the `wasserstein_distance` of two pictures' feature vectors in a layer, and D the mean absolute
    difference of their `self_similarity` matrices,

        E = mean of  W(result, style) / W(content, style)    over conv1_2, conv2_2, conv3_2, conv4_3
        C = mean of  D(result, content) / D(style, content)  over conv3_3, conv4_3

    The content picture is resized to the result's size, and the style picture so that its longer side is as
    long as the result's, if it is longer. The network has average pooling. E and C depend on the size of the
    result: compare results of one size.

    Parameters
    ----------
    content, style, result : path, Pillow image or (H, W, 3) array
        An array is RGB, 0..255.
    weights : mapping, str or path
        Trained filters up to conv5_1, or what `load_weights` is to load.
    threads : int, optional
        See `VGG19`.

    Returns
    -------
    Judgment

    Raises
    ------
    UserError
        A picture can't be used, the result has other proportions than the content picture, or the filters
        are random.

    Notes
    -----
    E is the distance that Heitz et al., "A Sliced Wasserstein Loss for Neural Texture Synthesis", CVPR 2021,
    approximate, for Gaussians, which are told apart by mean and covariance. C is the content loss of Kolkin,
    Salavon, Shakhnarovich, "Style Transfer by Relaxed Optimal Transport and Self-Similarity", CVPR 2019,
    equation 7, with similarities of centered vectors. Why two numbers: Yeh et al., "Improving Style Transfer
    with Calibrated Metrics", WACV 2020.

    Examples
    --------
    >>> import npstyle.weights
    >>> rng = np.random.default_rng(0)
    >>> photo, painting = rng.uniform(0, 255, (2, 48, 64, 3))
    >>> weights = npstyle.weights.Weights(npstyle.load_weights("random"), "as if trained")
    >>> found = judge(photo, painting, photo, weights=weights)
    >>> found.missing_style, found.lost_content
    (1.0, 0.0)
    """
    loaded = trained_weights(weights)
    pictures = as_array(content, "content"), as_array(style, "style"), as_array(result, "result")
    return Judge(pictures[0], pictures[1], loaded, threads)(pictures[2])


def trained_weights(weights: Mapping[str, Filters] | str | os.PathLike[str]) -> Mapping[str, Filters]:
    """The filters of a judge, loaded where they are named; UserError for random ones or too few layers."""
    if isinstance(weights, (str, os.PathLike)):
        source = "imagenet" if weights == "auto" else weights
        weights = load_weights(source, deepest=deepest(LAYERS))
    if isinstance(weights, Weights) and weights.random:
        cure = "run npstyle weights fetch, or name a file of them"
        raise UserError("weights", "random filters", "trained ones, which alone can judge", cure)
    missing = [name for name in convolutions_up_to(deepest(LAYERS)) if name not in weights]
    if missing:
        expected = f"all layers up to {deepest(LAYERS)}"
        raise UserError("weights", f"no {missing[0]}", expected, "take a file that has them")
    return weights


class Judge:
    """Judges results for one content and one style picture, which are looked at once for each size.

    Parameters
    ----------
    content, style : (H, W, 3) array
        RGB, 0..255, of any size.
    weights : mapping
        From `trained_weights`.
    threads : int, optional
        See `VGG19`.
    """

    def __init__(
        self, content: AnyArray, style: AnyArray, weights: Mapping[str, Filters], threads: int | None = None
    ) -> None:
        if np.array_equal(content, style):
            raise UserError("style", "the content picture", "another picture", "name the painting")
        self.content = content
        self.style = style
        self.network = VGG19(weights, pooling="average", padding="zero", threads=threads)
        self._targets: dict[tuple[int, int], tuple[Statistics, Statistics]] = {}

    def __call__(self, result: AnyArray, name: str = "result") -> Judgment:
        """The judgment of a result (H, W, 3), RGB, 0..255, called `name` in errors."""
        H, W, _ = result.shape
        check_judged(self.content.shape, result.shape, name)
        with one_blas_thread():  # the same bits for any number of threads
            b, c = self._statistics_at(H, W)
            return _compared(self._statistics(result), b, c)

    def _statistics_at(self, H: int, W: int) -> tuple[Statistics, Statistics]:
        """Those of the content and of the style picture, for a result of H x W pixels."""
        if (H, W) not in self._targets:
            style = images.fit(self.style, max(H, W))
            check_size(style.shape[:2], LAYERS, "style")
            content = self._statistics(images.resize(self.content, W, H))
            self._targets = {(H, W): (content, self._statistics(style))}
        return self._targets[H, W]

    def _statistics(self, picture: AnyArray) -> Statistics:
        gaussians, similarities, grams = {}, {}, {}
        activations: AnyArray = np.empty(0)
        for name, F in self.network.walk(np.asarray(picture, np.float32), LAYERS):
            if name in WASSERSTEIN_LAYERS:
                gaussians[name] = gaussian(F, self.network.threads)
            if name in SIMILARITY_LAYERS:
                similarities[name] = self_similarity(F)
            if name in PAPER_STYLE_LAYERS:
                grams[name] = mean_gram(F, self.network.threads)
            if name == CORRELATION_LAYER:
                activations = F.flatten()
        return Statistics(gaussians, similarities, grams, activations)


def _compared(a: Statistics, content: Statistics, style: Statistics) -> Judgment:
    """The judgment of a result with the statistics a."""
    b, c = content, style
    return Judgment(
        missing_style=_mean_ratio(
            [wasserstein_distance(a.gaussians[n], c.gaussians[n]) for n in WASSERSTEIN_LAYERS],
            [wasserstein_distance(b.gaussians[n], c.gaussians[n]) for n in WASSERSTEIN_LAYERS],
        ),
        lost_content=_mean_ratio(
            [float(np.abs(a.similarities[n] - b.similarities[n]).mean()) for n in SIMILARITY_LAYERS],
            [float(np.abs(c.similarities[n] - b.similarities[n]).mean()) for n in SIMILARITY_LAYERS],
        ),
        style_distances={n: style_distance(a.grams[n], c.grams[n]) for n in PAPER_STYLE_LAYERS},
        content_correlation=_correlation(a.activations, b.activations),
    )


def check_judged(content: tuple[int, ...], result: tuple[int, ...], name: str = "result") -> None:
    """Raise UserError where a result of this shape can't be judged beside a content picture."""
    (H, W, _), (h, w, _) = content, result
    check_size((h, w), LAYERS, name)
    # A side is rounded to whole pixels, so the proportions of small pictures differ more.
    if abs(w * H - h * W) > max(MAX_MASK_DISTORTION * w * H, H, W):
        found, expected = f"{w} x {h} pixels", f"the proportions of the content picture ({W} x {H})"
        raise UserError(name, found, expected, "judge a picture that was painted from it")


# ------------------------------------------------------------------------------------------------
# Style: the distance of two Gaussians
# ------------------------------------------------------------------------------------------------


def wasserstein_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Wasserstein-2 distance of two Gaussians (`Transport`), divided by their dimension C."""
    return Transport(b).distance(a) / len(a.mean)


# ------------------------------------------------------------------------------------------------
# Content: self-similarity
# ------------------------------------------------------------------------------------------------


def self_similarity(F: AnyArray, n: int = GRID) -> Double:
    """Cosine similarities (n n, n n) of the feature vectors of F (H, W, C) at n x n positions.

    F is averaged to n x n positions, and the mean over these is subtracted. What is left does not change with
    brightness or palette as F does: it tells which parts of the picture are like each other.
    """
    H, W, C = F.shape
    rows = np.tensordot(averages(H, n), F.astype(np.float64), axes=1)
    f = np.tensordot(averages(W, n), rows, axes=(1, 1)).swapaxes(0, 1).reshape(n * n, C)
    f -= f.mean(axis=0)
    f /= np.maximum(np.linalg.norm(f, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return f @ f.T


def averages(H: int, n: int) -> Double:
    """The matrix (n, H) that averages H positions to n; their intervals overlap if H / n is no integer.

    Examples
    --------
    >>> averages(4, 2)
    array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]])
    """
    matrix = np.zeros((n, H))
    for i in range(n):
        interval = slice(i * H // n, -(-(i + 1) * H // n))
        matrix[i, interval] = 1 / (interval.stop - interval.start)
    return matrix


# ------------------------------------------------------------------------------------------------


def _mean_ratio(distances: list[float], units: list[float]) -> float:
    tiny = float(np.finfo(np.float32).tiny)  # so that 0 / 0 is 0
    return float(np.mean([d / max(u, tiny) for d, u in zip(distances, units, strict=True)]))


def _correlation(F: AnyArray, P: AnyArray) -> float:
    """Pearson's correlation of two feature maps, each flattened; 0 where one of them is constant."""
    f, p = F - F.mean(dtype=np.float64), P - P.mean(dtype=np.float64)
    size = np.sqrt(sum_of_squares(f) * sum_of_squares(p))
    return float(f @ p / size) if size else 0.0
