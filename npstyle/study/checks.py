"""The gradient checks of `npstyle gradcheck`: every layer, every loss, and the whole objective twice.

Everything is computed in float64 with fixed seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np

from npstyle import layers, losses, objective, padding, pixel_losses, statistics, temporal
from npstyle._typing import AnyArray, Double, Preprocessing
from npstyle.architecture import deepest
from npstyle.fused import FirstLayerConvReLU, WinogradConvReLU, WinogradConvReLUPool
from npstyle.gradcheck import Compared, adjoint, directional
from npstyle.settings import Settings
from npstyle.vgg import VGG19
from npstyle.weights import Weights, load_weights


class Check(NamedTuple):
    """One gradient check.

    Attributes
    ----------
    name : str
        Of the layer or loss.
    method : {"adjoint", "directional"}
        A function of `npstyle.gradcheck`, and a key of its BOUNDS.
    compare : callable
        Runs the check.
    about : str
        Where the check is made, if that matters.
    """

    name: str
    method: Literal["adjoint", "directional"]
    compare: Callable[[], Compared]
    about: str = ""


def _normal(*shape: int, seed: int = 0) -> Double:
    return np.random.default_rng(seed).standard_normal(shape)


# ------------------------------------------------------------------------------------------------
# Layers
# ------------------------------------------------------------------------------------------------


def _check_layer(compare: Callable[..., Compared], layer: layers.Layer, x: AnyArray) -> Compared:
    """Check a layer with the cache of its forward pass at x."""
    _, cache = layer.forward(x)
    return compare(lambda x: layer.forward(x)[0], lambda v: layer.backward(v, cache), x)


def _affine(make_layer: Callable[[], layers.Layer]) -> Compared:
    return _check_layer(adjoint, make_layer(), _normal(7, 9, 3))


def _conv2d() -> layers.Layer:
    return layers.Conv2D(_normal(3, 3, 3, 4, seed=1), _normal(4, seed=2))


def _fused(layer_type: Any, C: int, compare: Callable[..., Compared], bias: AnyArray) -> Compared:
    """Check a convolution with its ReLU; `bias` is so large that no output is near the kink."""
    return _check_layer(compare, layer_type(_normal(3, 3, C, 64, seed=1), bias), _normal(13, 11, C))


def _fused_positive(layer_type: Any, C: int) -> Compared:
    return _fused(layer_type, C, adjoint, np.full(64, 1e3))


def _fused_mixed_signs(layer_type: Any, C: int) -> Compared:
    return _fused(layer_type, C, directional, 1e3 * np.sign(_normal(64, seed=2)))


def _relu() -> Compared:
    x = _normal(7, 9, 3)
    return _check_layer(directional, layers.ReLU(), np.where(np.abs(x) < 0.01, 0.5, x))


def _max_pool() -> Compared:
    """Check where all elements are at least 7 apart, so that no step changes an argmax."""
    x = np.random.default_rng(0).permutation(7.0 * np.arange(7 * 9 * 3)).reshape(7, 9, 3)
    return _check_layer(directional, layers.MaxPool(), x)


# ------------------------------------------------------------------------------------------------
# Losses
# ------------------------------------------------------------------------------------------------


def _loss(name: str, *arguments: Any) -> Compared:
    """Check a loss of a feature map with 6 channels, looked up by name to meet a planted mistake."""
    module = losses if hasattr(losses, name) else pixel_losses
    loss, F = getattr(module, name), _normal(5, 7, 6)
    return directional(lambda F: loss(F, *arguments)[0], lambda v: v * loss(F, *arguments)[1], F)


def _style_loss() -> Compared:
    return _loss("style_loss", _mean_gram(), 0.7)


def _guided_style_loss() -> Compared:
    return _loss("guided_style_loss", _soft_mask(), _mean_gram(), 0.7)


def _mean_gram() -> Double:
    return losses.gram_matrix(_normal(9, 4, 6, seed=2)) / 36


def _moments_loss(T: AnyArray | None = None) -> Compared:
    """With a channel that is silent, and another Gram matrix than the moments' own, as for some scalings."""
    F, target = _rectified(5, 7), statistics.moments(_rectified(9, 4, seed=2))
    return _of_statistics(statistics.moments_loss, F, 2 * target.second, target, 0.7, 0.3, T)


def _wasserstein_loss(
    H: int, W: int, T: AnyArray | None = None, vectors: int | None = None, least_variance: float = 0.0
) -> Compared:
    style = statistics.gaussian(_rectified(vectors or 36, 1, seed=2))
    target = statistics.Transport(style, vectors=vectors, least_variance=least_variance)
    return _of_statistics(statistics.wasserstein_loss, _rectified(H, W), target, 0.7, T)


def _of_statistics(loss: Callable[..., tuple[float, AnyArray]], F: Double, *arguments: Any) -> Compared:
    """Check the loss in all directions that keep a silent channel silent, as filters that don't fire do."""
    fires = F.any(axis=(0, 1))

    def value(F: AnyArray) -> float:
        return loss(F * fires, *arguments)[0]

    return directional(value, lambda v: v * fires * loss(F, *arguments)[1], F)


def _rectified(H: int, W: int, seed: int = 0) -> Double:
    """A feature map with 6 channels after a ReLU, of which the first is silent."""
    F = np.maximum(_normal(H, W, 6, seed=seed) + 1, 0)
    F[:, :, 0] = 0
    return F


def _soft_mask() -> Double:
    return np.random.default_rng(4).uniform(0, 1, (5, 7)) * (np.arange(7) > 2)


def _temporal_loss() -> Compared:
    x, target = _normal(5, 7, 3), _normal(5, 7, 3, seed=1)
    return _of_pixels(lambda x: temporal.temporal_loss(x, target, _soft_mask(), 0.7), x)


def _joined_content_losses() -> Compared:
    """The gradient of the joined loss is that of two content losses, whose values are added here."""
    F, P, Q = (_normal(5, 7, 6, seed=seed) for seed in range(3))

    def joined(F: AnyArray) -> tuple[float, AnyArray]:
        target, factor, _ = objective.joined_target(P, 0.3, Q, 0.9)
        _, gradient = losses.content_loss(F, target, factor)
        return losses.content_loss(F, P, 0.3)[0] + losses.content_loss(F, Q, 0.9)[0], gradient

    return _of_pixels(joined, F)


def _of_pixels(loss: Callable[[AnyArray], tuple[float, AnyArray]], x: AnyArray) -> Compared:
    return directional(lambda x: loss(x)[0], lambda v: v * loss(x)[1], x)


def _edge_map() -> Compared:
    x = _normal(19, 23, 3)
    return adjoint(
        lambda x: pixel_losses.edge_map(x, 4), lambda v: pixel_losses.edge_map_backward(v, 4, x.shape), x
    )


def _edges_loss() -> Compared:
    return _loss("edges_loss", _normal(5, 7, 6, seed=1), {1: 0.7, 2: 1.9})


# ------------------------------------------------------------------------------------------------
# The objective through all 16 convolutions
# ------------------------------------------------------------------------------------------------

# The weights give content, style and total variation about the same influence, so that a mistake in any of
# them shows. conv5_4 is the last of the 16 convolutions.
PAPER_OBJECTIVE = Settings(
    content_layers=("conv1_2", "conv4_2"),
    style_layers=("conv1_1", "conv1_2", "conv2_1", "conv3_1", "conv4_1", "conv5_4"),
    style_weight=1e4,
    tv_weight=1e4,
    scaling="paper",
    statistics="gram",
    tv_form="mean-squares",
    pooling="average",
    padding="zero",
)
RELATIVE_OBJECTIVE = replace(
    PAPER_OBJECTIVE,
    scaling="relative",
    style_weight=2e-3,
    tv_weight=5e-9,
    keep_edges=2e-3,
    tv_form="power-1.25",
    pooling="max",
    padding="replicate",
)


def _paper_objective() -> Compared:
    network = _network(PAPER_OBJECTIVE, "caffe")
    content, style, x = _pictures()
    return _objective(objective.Objective(network, content, [style], PAPER_OBJECTIVE), x)


def _relative_objective_with_regions() -> Compared:
    network = _network(RELATIVE_OBJECTIVE, "torchvision")
    content, style, x = _pictures()
    left = np.tile(np.arange(35) < 17, (32, 1))
    upper = np.tile(np.arange(20)[:, None] < 10, (1, 40))
    masks: dict[str, Any] = {"content_masks": [left, ~left], "style_masks": [upper, ~upper]}
    return _objective(objective.Objective(network, content, [style], RELATIVE_OBJECTIVE, **masks), x)


def _film_objective() -> Compared:
    settings = replace(PAPER_OBJECTIVE, scaling="relative", style_weight=2e-3, tv_weight=0.0)
    content, style, x = _pictures()
    loss = objective.Objective(_network(settings, "caffe"), x, [style], settings)
    mask = np.tile(np.arange(35) < 17, (32, 1)).astype(np.float64)
    anchor = temporal.Anchor(content + 40, mask, 5e-3, content[::-1], content[:, ::-1], 0.7)
    return _objective(loss.for_frame(content, anchor), x)


def _objective(loss: objective.Objective, x: AnyArray) -> Compared:
    gradient = loss(x)[1]
    return directional(lambda x: loss(x)[0], lambda v: v * gradient, x)


def _network(settings: Settings, preprocessing: Preprocessing) -> VGG19:
    """VGG19 with random filters, by im2col: Winograd rounds too coarsely for the difference of two losses."""
    random_weights = _random_weights(deepest(settings.layers))
    weights = Weights(random_weights, random_weights.source, random=True, preprocessing=preprocessing)
    return VGG19.for_settings(weights, settings, convolution="im2col")


@cache
def _random_weights(deepest: str) -> Weights:
    return load_weights("random", seed=1, deepest=deepest)


def _pictures() -> tuple[Double, Double, Double]:
    """Content picture, style picture, and the pixels where the gradient is checked."""
    shapes = ((32, 35, 3), (20, 40, 3), (32, 35, 3))
    content, style, x = (np.random.default_rng(n).uniform(0, 255, shape) for n, shape in enumerate(shapes))
    return content, style, x


# ------------------------------------------------------------------------------------------------
# All checks
# ------------------------------------------------------------------------------------------------

WINOGRAD, FIRST_LAYER = (WinogradConvReLU, 32), (FirstLayerConvReLU, 3)
POOLED = (WinogradConvReLUPool, 32)
REPLICATING = (partial(FirstLayerConvReLU, replicate=True), 3)
ALL_POSITIVE = "where all outputs are positive"
NO_KINK = "away from the kink"
SOFT_REGION = "of a region with soft edges"
CHECKS = [
    Check("Conv2D", "adjoint", lambda: _affine(_conv2d), "one matrix product, 3 to 4 channels"),
    Check("WinogradConvReLU", "adjoint", lambda: _fused_positive(*WINOGRAD), ALL_POSITIVE),
    Check("WinogradConvReLU", "directional", lambda: _fused_mixed_signs(*WINOGRAD), NO_KINK),
    Check("WinogradConvReLUPool", "adjoint", lambda: _fused_positive(*POOLED), ALL_POSITIVE),
    Check("WinogradConvReLUPool", "directional", lambda: _fused_mixed_signs(*POOLED), NO_KINK),
    Check("FirstLayerConvReLU", "adjoint", lambda: _fused_positive(*FIRST_LAYER), ALL_POSITIVE),
    Check("FirstLayerConvReLU", "adjoint", lambda: _fused_positive(*REPLICATING), "the border duplicated"),
    Check("FirstLayerConvReLU", "directional", lambda: _fused_mixed_signs(*FIRST_LAYER), NO_KINK),
    Check("ReLU", "directional", _relu, NO_KINK),
    Check("AveragePool", "adjoint", lambda: _affine(layers.AveragePool), "odd height and width"),
    Check("MaxPool", "directional", _max_pool, "odd height and width, away from ties"),
    Check("CaffeInput", "adjoint", lambda: _affine(layers.CaffeInput), "RGB to BGR, minus the mean"),
    Check("TorchvisionInput", "adjoint", lambda: _affine(layers.TorchvisionInput), "shifted and scaled"),
    Check("ReplicatePad", "adjoint", lambda: _affine(padding.ReplicatePad), "the border duplicated"),
    Check("WrapPad", "adjoint", lambda: _affine(padding.WrapPad), "the opposite border duplicated"),
    Check("Crop", "adjoint", lambda: _affine(padding.Crop), "the border removed"),
    Check("content", "directional", lambda: _loss("content_loss", _normal(5, 7, 6, seed=1), 0.3)),
    Check("style", "directional", _style_loss),
    Check("guided-style", "directional", _guided_style_loss, SOFT_REGION),
    Check("moments", "directional", _moments_loss, "one silent channel"),
    Check("guided-moments", "directional", lambda: _moments_loss(_soft_mask()), SOFT_REGION),
    Check("wasserstein", "directional", lambda: _wasserstein_loss(5, 7), "one silent channel"),
    Check("wasserstein-few", "directional", lambda: _wasserstein_loss(2, 2), "fewer positions than channels"),
    Check(
        "wasserstein-reduced",
        "directional",
        lambda: _wasserstein_loss(1, 2, vectors=2),
        "so few that most dimensions have no variance",
    ),
    Check(
        "wasserstein-isotropic",
        "directional",
        lambda: _wasserstein_loss(5, 7, least_variance=0.5),
        "isotropic in the complement of some axes",
    ),
    Check("guided-wasserstein", "directional", lambda: _wasserstein_loss(5, 7, _soft_mask()), SOFT_REGION),
    Check("tv-mean-squares", "directional", lambda: _loss("total_variation", 1.7)),
    Check("tv-sum-squares", "directional", lambda: _loss("total_variation", 1.7, "sum-squares")),
    Check("tv-power-1.25", "directional", lambda: _loss("total_variation", 1.7, "power-1.25")),
    Check("tv-nine-point", "directional", lambda: _loss("total_variation", 1.7, "nine-point")),
    Check("tv-wrap", "directional", lambda: _loss("total_variation", 1.7, "power-1.25", True), "a torus"),
    Check("edges-map", "adjoint", _edge_map, "means, then the Laplacian; odd height and width"),
    Check("edges", "directional", _edges_loss, "at two scales"),
    Check("temporal", "directional", _temporal_loss, "pixels of which some are known in part"),
    Check("joined-content", "directional", _joined_content_losses, "two content losses in one"),
    Check(
        "objective-paper",
        "directional",
        _paper_objective,
        "all 16 convolutions, average pooling, zero padding, the paper's scaling",
    ),
    Check(
        "objective-relative",
        "directional",
        _relative_objective_with_regions,
        "the same with two regions, edges, maximum pooling, replicate padding, relative scaling",
    ),
    Check("objective-film", "directional", _film_objective, "of a frame, held to the one before"),
]
CHECK_NAMES = list(dict.fromkeys(check.name for check in CHECKS))
