"""Loss and gradient of a picture: formulas, terms, derivative, dtypes, threads, SciPy, invalid input."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from helpers import picture, structured_picture
from npstyle import VGG19, Objective, Settings, UserError, load_weights, preset
from npstyle._typing import Convolution, Mixture, Padding, Pooling, Scaling, Statistics
from npstyle.architecture import CONVOLUTION_METHODS
from npstyle.gradcheck import directional
from npstyle.losses import gram_matrix
from npstyle.objective import edge_scales
from npstyle.pixel_losses import edges_loss
from npstyle.statistics import WassersteinTerm
from npstyle.weights import ConvWeights, Weights
from tolerances import ADJOINT, DIRECTIONAL, SAME

Array = NDArray[Any]
BEYOND_GRAM: tuple[Statistics, ...] = ("gram+moments", "wasserstein")

EVERY_LAYER = Settings(
    content_layers=("conv1_2", "conv4_2"),
    style_layers=("conv1_1", "conv1_2", "conv2_1", "conv3_1", "conv4_1", "conv5_4"),
    tv_weight=1e-3,
)


@functools.cache
def filters(seed: int) -> Weights:
    return load_weights("random", seed=seed)


def network_for(settings: Settings, convolution: Convolution = "auto", threads: int | None = None) -> VGG19:
    return VGG19.for_settings(filters(0), settings, convolution, threads)


def silent_network(settings: Settings) -> VGG19:
    """Every feature map is 0."""
    zeros = {name: ConvWeights(0 * kernel, bias) for name, (kernel, bias) in filters(0).items()}
    return VGG19.for_settings(zeros, settings, preprocessing="caffe")


def objective_for(settings: Settings, content: Array, styles: Sequence[Array]) -> Objective:
    return Objective(network_for(settings), content, styles, settings)


@pytest.mark.parametrize(
    ("scaling", "pooling", "padding"), [("paper", "max", "replicate"), ("relative", "average", "zero")]
)
def test_derivative_through_all_16_convolutions(scaling: Scaling, pooling: Pooling, padding: Padding) -> None:
    """Other combinations are checks of `npstyle gradcheck`."""
    settings = replace(EVERY_LAYER, scaling=scaling, pooling=pooling, padding=padding)
    # By im2col: the larger rounding error of Winograd would drown the difference of two losses.
    network = VGG19.for_settings(filters(1), settings, "im2col")
    objective = Objective(network, picture(32, 35), [picture(20, 40, 1)], settings)
    x = picture(32, 35, 2)
    gradient = objective(x)[1]
    assert gradient.shape == x.shape
    assert gradient.dtype == np.float64
    error = directional(lambda x: objective(x)[0], lambda v: v * gradient, x, step=1e-5).error
    assert error < DIRECTIONAL


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_im2col_and_winograd_have_the_same_gradient(pooling: Pooling) -> None:
    """In float64, where they differ by rounding only."""
    settings, x = replace(EVERY_LAYER, pooling=pooling), picture(45, 38, 2)
    (loss, gradient), (other_loss, other_gradient) = (
        Objective(network, picture(45, 38), [picture(20, 40, 1)], settings)(x)
        for network in (
            VGG19.for_settings(filters(1), settings, "im2col"),
            VGG19.for_settings(filters(1), settings, "winograd"),
        )
    )
    assert other_loss == pytest.approx(loss, rel=ADJOINT[x.dtype])
    assert np.linalg.norm(gradient - other_gradient) < ADJOINT[x.dtype] * np.linalg.norm(gradient)


@pytest.mark.parametrize("convolution", CONVOLUTION_METHODS)
def test_gradient_in_float32_is_that_in_float64(convolution: Convolution) -> None:
    """For the recipe of the paper, in a picture so small that rounding flips no activation's sign.

    One flipped sign of two million has been seen to change a gradient by 6e-4.
    """
    network = VGG19.for_settings(filters(1), preset("paper"), convolution)
    objective = Objective(network, picture(64, 48), [picture(70, 90, 1)], preset("paper"))
    x = picture(64, 48, 2)
    _, exact = objective(x)
    _, gradient = objective(x.astype(np.float32))
    assert np.linalg.norm(gradient - exact) < SAME[gradient.dtype] * np.linalg.norm(exact)


def test_paper_preset_is_the_formula_of_the_paper() -> None:
    content, style, x = picture(24, 32), picture(30, 17, 1), picture(24, 32, 2)
    settings = preset("paper")
    objective = objective_for(settings, content, [style])
    loss, _ = objective(x)
    F, P, Fa = (objective.network.forward(p, settings.layers) for p in (x, content, style))
    expected = 1e-3 * 0.5 * np.square(F["conv4_2"] - P["conv4_2"]).sum()
    for name in ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"):
        C = F[name].shape[2]
        G, A = gram_matrix(F[name]) / F[name][..., 0].size, gram_matrix(Fa[name]) / Fa[name][..., 0].size
        expected += 1 / 5 / (4 * C**2) * np.square(G - A).sum()
    assert loss == pytest.approx(expected, rel=1e-12)


def test_relative_losses_are_relative_to_their_targets() -> None:
    """If all feature maps are 0, each distance equals the size of its target: every mean is 1."""
    settings = Settings(content_layers=("conv3_1", "conv4_2"), style_weight=3.0, statistics="gram")
    objective = objective_for(settings, picture(16, 16), [picture(16, 20, 1)])
    objective.network = silent_network(settings)  # the float32 targets are computed already
    loss, gradient = objective(picture(16, 16, 2, np.float32))
    assert loss == pytest.approx(1.0 + 3.0, rel=1e-6)
    assert not gradient.any()


@pytest.mark.parametrize("mixture", ["targets", "losses"])
@pytest.mark.parametrize("statistics", BEYOND_GRAM)
@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_derivative_of_moments_of_two_styles(
    statistics: Statistics, scaling: Scaling, mixture: Mixture
) -> None:
    settings = Settings(
        style_layers=("conv1_1", "conv3_1"),
        content_layers=(),
        statistics=statistics,
        scaling=scaling,
        mixture=mixture,
    )
    network = VGG19.for_settings(filters(1), settings, "im2col")
    objective = Objective(
        network, picture(16, 20), [picture(20, 24, 1), picture(16, 30, 3)], settings, [1, 2]
    )
    x = picture(16, 20, 2)
    gradient = objective(x)[1]
    error = directional(lambda x: objective(x)[0], lambda v: v * gradient, x, step=1e-3).error
    assert error < DIRECTIONAL


@pytest.mark.parametrize("statistics", BEYOND_GRAM)
def test_derivative_of_moments_of_regions(statistics: Statistics) -> None:
    settings = Settings(style_layers=("conv1_1", "conv2_1"), content_layers=(), statistics=statistics)
    network = VGG19.for_settings(filters(1), settings, "im2col")
    left, upper = np.tile(np.arange(20) < 9, (16, 1)), np.tile(np.arange(24)[:, None] < 10, (1, 20))
    masks: dict[str, Any] = {"content_masks": [left, ~left], "style_masks": [upper, ~upper]}
    objective = Objective(network, picture(16, 20), [picture(24, 20, 1)], settings, **masks)
    x = picture(16, 20, 2)
    gradient = objective(x)[1]
    error = directional(lambda x: objective(x)[0], lambda v: v * gradient, x, step=1e-3).error
    assert error < DIRECTIONAL


def test_mixtures_of_targets_and_of_losses_differ() -> None:
    """For both, unlike for Gram matrices, by more than a constant."""
    gradients = {}
    for statistics in BEYOND_GRAM:
        for mixture in ("targets", "losses"):
            settings = Settings(
                content_layers=(), style_layers="conv2_1", statistics=statistics, mixture=mixture
            )
            styles = [picture(16, 20, 1), picture(24, 16, 2)]
            objective = objective_for(settings, picture(16, 16), styles)
            gradients[statistics, mixture] = objective(picture(16, 16, 3))[1]
        one, other = gradients[statistics, "targets"], gradients[statistics, "losses"]
        assert np.linalg.norm(one - other) > 1e-3 * np.linalg.norm(one)


def test_relative_moments_are_relative_to_their_targets() -> None:
    """If all feature maps are 0, means and standard deviations miss all of their targets: 1, as Gram does."""
    settings = Settings(content_layers=(), style_weight=3.0, statistics="gram+moments", moments_weight=5.0)
    objective = objective_for(settings, picture(16, 16), [picture(32, 40, 1)])
    objective.network = silent_network(settings)
    loss, gradient = objective(picture(16, 16, 2, np.float32))
    assert loss == pytest.approx(3.0 + 5.0 * 3.0, rel=1e-5)
    assert not gradient.any()


def test_relative_wasserstein_distance_is_relative_to_its_target() -> None:
    """Nearly 1: the variance that is added to both is a hundredth of the target's in its root."""
    settings = Settings(content_layers=(), style_weight=3.0, statistics="wasserstein")
    objective = objective_for(settings, picture(16, 16), [picture(32, 40, 1)])
    objective.network = silent_network(settings)
    loss, gradient = objective(picture(16, 16, 2, np.float32))
    assert 2.9 < loss < 3.0
    assert not gradient.any()


@pytest.mark.parametrize("scaling", ["relative", "mean"])
def test_axes_of_the_style_with_a_hundredth_of_its_mean_square_count(scaling: Scaling) -> None:
    """With relative scaling; the formulas of other systems have all of them."""
    settings = Settings(content_layers=(), style_layers="conv1_1", statistics="wasserstein", scaling=scaling)
    style = structured_picture(32, 40)
    objective = objective_for(settings, picture(16, 16), [style])
    (term,) = objective._style[np.dtype(np.float32)]["conv1_1"]
    F = objective.network.forward(style, ["conv1_1"])["conv1_1"].reshape(-1, 64).astype(np.float64)
    variances = np.linalg.eigvalsh(np.cov(F.T, bias=True))
    axes = int((variances > 1e-2 * np.mean(F**2)).sum())
    assert 3 < axes < 60
    assert isinstance(term, WassersteinTerm)
    assert term.target.axes.shape == (64, axes if scaling == "relative" else 64)


@pytest.mark.parametrize("statistics", get_args(Statistics))
def test_relative_losses_do_not_depend_on_the_units_of_the_filters(statistics: Statistics) -> None:
    """Where all filters of the first layer are a thousand times as large, so are means; the loss stays."""
    settings = Settings(content_layers=(), style_layers="conv1_1", statistics=statistics)
    kernel, bias = filters(0)["conv1_1"]
    losses = []
    for factor in (1, 1000):
        weights = {"conv1_1": ConvWeights(factor * kernel, factor * bias)}
        network = VGG19.for_settings(weights, settings, preprocessing="caffe")
        objective = Objective(network, picture(16, 20), [picture(20, 24, 1)], settings)
        losses.append(objective(picture(16, 20, 2))[0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("statistics", BEYOND_GRAM)
def test_gradient_of_moments_in_float32_is_that_in_float64(statistics: Statistics) -> None:
    settings = Settings(statistics=statistics)
    objective = objective_for(settings, picture(64, 48), [picture(70, 90, 1)])
    x = picture(64, 48, 2)
    value, exact = objective(x)
    value32, gradient = objective(x.astype(np.float32))
    assert value32 == pytest.approx(value, rel=1e-4)
    assert np.linalg.norm(gradient - exact) < 1e-3 * np.linalg.norm(exact)


def test_terms_are_named_weighted_and_sum_to_the_loss() -> None:
    objective = objective_for(EVERY_LAYER, picture(16, 24), [picture(16, 16, 1)])
    loss, _ = objective(picture(16, 24, 2))
    assert set(objective.terms) == {
        *(f"content/{name}" for name in EVERY_LAYER.content_layers),
        *(f"style/{name}" for name in EVERY_LAYER.style_layers),
        "total_variation",
    }
    assert loss == sum(objective.terms.values())
    twice = objective_for(replace(EVERY_LAYER, tv_weight=2e-3), picture(16, 24), [picture(16, 16, 1)])
    twice(picture(16, 24, 2))
    assert twice.terms["total_variation"] == pytest.approx(2 * objective.terms["total_variation"])


@pytest.mark.parametrize("scaling", ["relative", "paper"])
def test_edges_are_a_term_of_their_own(scaling: Scaling) -> None:
    content, style, x = picture(37, 50), picture(16, 16, 1), picture(37, 50, 2)
    settings = Settings(content_layers="conv1_1", style_layers="conv1_1", scaling=scaling)
    without = objective_for(settings, content, [style])
    loss, gradient = without(x)
    assert "edges" not in without.terms
    objective = objective_for(replace(settings, keep_edges=0.5), content, [style])
    loss_with, gradient_with = objective(x)
    edges, d_edges = edges_loss(x, content, objective.edge_scales)
    assert objective.terms == {**without.terms, "edges": edges}
    assert loss_with == pytest.approx(loss + edges, rel=1e-12)
    np.testing.assert_allclose(gradient_with, gradient + d_edges, atol=1e-12 * np.abs(gradient_with).max())
    assert objective(content)[0] == pytest.approx(without(content)[0])  # it has its own edges


def test_relative_edges_of_a_flat_picture_are_lost() -> None:
    """Whatever the picture's size and contrast, the weight is the loss of a picture without any edges."""
    for content in (picture(37, 50), structured_picture(64, 48), 0.1 * picture(100, 80)):
        scales = edge_scales(content, Settings(keep_edges=0.5))
        assert edges_loss(np.full(content.shape, 99.0), content, scales)[0] == pytest.approx(0.5)
    # Means over positions otherwise; nothing is lost where there are no edges.
    assert edge_scales(picture(37, 50), Settings(keep_edges=0.5, scaling="mean")) == {
        4: 0.25 / (9 * 12),
        16: 0.25 / (2 * 3),
    }
    flat = np.full((32, 48, 3), 9.0)
    assert edges_loss(flat, flat, edge_scales(flat, Settings(keep_edges=0.5)))[0] == 0


@pytest.mark.parametrize(
    ("pooling", "convolution", "dtype", "tolerance"),
    [  # each pair of them
        ("average", "im2col", np.float64, 1e-12),
        ("average", "winograd", np.float32, 1e-5),
        ("max", "im2col", np.float32, 1e-5),
        ("max", "winograd", np.float64, 1e-12),
    ],
)
def test_wrapped_objective_does_not_know_where_a_picture_begins(
    pooling: Pooling, convolution: Convolution, dtype: type, tolerance: float
) -> None:
    """Sides and shifts are multiples of the stride: nothing is left over, and cells fall on cells."""
    settings = replace(EVERY_LAYER, pooling=pooling, padding="wrap", keep_edges=0.2)
    assert settings.stride == 16
    network = network_for(settings, convolution, threads=1)
    content, style, x = (picture(*size, n, dtype) for n, size in enumerate([(32, 48), (20, 24), (32, 48)]))

    def rolled(array: Array, by: int = 16) -> Array:
        return np.roll(array, (by, -2 * by), axis=(0, 1))

    loss, gradient = Objective(network, content, [style], settings)(x)
    moved = Objective(network, rolled(content), [style], settings)
    loss_rolled, gradient_rolled = moved(rolled(x))
    assert loss_rolled == pytest.approx(loss, rel=tolerance)
    np.testing.assert_allclose(gradient_rolled, rolled(gradient), atol=tolerance * np.abs(gradient).max())
    assert moved(rolled(x, 8))[0] != pytest.approx(loss, rel=1e-3)


def test_stride_is_that_of_the_coarsest_map() -> None:
    assert Settings(content_layers="conv1_2", style_layers="conv3_1:1,conv5_1:0").stride == 4
    assert Settings(content_layers="conv1_2", style_layers="conv1_1", keep_edges=0.1).stride == 16
    assert Settings(content_layers="pool5").stride == 32


def test_content_picture_has_no_content_loss() -> None:
    content = picture(16, 24)
    objective = objective_for(Settings(style_layers=()), content, [])
    loss, gradient = objective(content)
    assert loss == 0
    assert not gradient.any()


def test_style_picture_has_no_style_loss() -> None:
    style = picture(16, 24)
    objective = objective_for(Settings(content_layers=(), statistics="gram"), picture(16, 24, 1), [style])
    loss, gradient = objective(style)
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("statistics", BEYOND_GRAM)
def test_style_picture_has_next_to_no_loss_of_moments(statistics: Statistics) -> None:
    style = picture(32, 24)
    objective = objective_for(Settings(content_layers=(), statistics=statistics), picture(32, 24, 1), [style])
    loss, _ = objective(style)
    assert 0 <= loss < 1e-9 * objective(picture(32, 24, 1))[0]


def test_weight_of_zero_leaves_its_layers_out() -> None:
    settings = replace(preset("paper"), content_weight=0.0)
    objective = objective_for(settings, picture(16, 24), [picture(16, 16, 1)])
    objective(picture(16, 24, 2))
    assert not any(name.startswith("content/") for name in objective.terms)


def test_target_of_several_styles_is_the_mean() -> None:
    styles = [picture(16, 20, 1), picture(24, 16, 2)]
    settings = replace(preset("paper"), content_weight=0.0, style_layers=("conv2_1",))
    x = picture(16, 16, 3)
    objective = objective_for(settings, picture(16, 16), styles)
    loss, _ = objective(x)

    def mean_gram(p: Array) -> Array:
        F = objective.network.forward(p, ["conv2_1"])["conv2_1"]
        return gram_matrix(F) / F[..., 0].size

    target = (mean_gram(styles[0]) + mean_gram(styles[1])) / 2
    assert loss == pytest.approx(np.square(mean_gram(x) - target).sum() / (4 * 128**2), rel=1e-10)


def test_dtypes() -> None:
    content, style, x = (np.rint(picture(16, 24, seed)).astype(np.uint8) for seed in range(3))
    objective = objective_for(preset("paper"), content, [style])
    whole, gradient = objective(x)
    assert gradient.dtype == np.float32
    single, gradient32 = objective(x.astype(np.float32))
    double, gradient64 = objective(x.astype(np.float64))
    assert whole == single
    np.testing.assert_array_equal(gradient, gradient32)
    assert gradient64.dtype == np.float64
    assert single == pytest.approx(double, rel=1e-5)
    assert np.linalg.norm(gradient32 - gradient64) < 1e-4 * np.linalg.norm(gradient64)


def test_evaluations_do_not_disturb_each_other() -> None:
    objective = objective_for(EVERY_LAYER, picture(16, 24), [picture(16, 16, 1)])
    x, other = picture(16, 24, 2), picture(16, 24, 3)
    loss, gradient = objective(x)
    copy = gradient.copy()
    objective(other)
    np.testing.assert_array_equal(gradient, copy)
    again = objective(x)
    assert again[0] == loss
    np.testing.assert_array_equal(again[1], gradient)


@pytest.mark.parametrize("statistics", get_args(Statistics))
def test_threads_do_not_change_a_bit(statistics: Statistics) -> None:
    settings = replace(EVERY_LAYER, statistics=statistics, moments_weight=2.0)
    runs = []
    for threads in (1, 2, 3):
        network = network_for(settings, threads=threads)
        objective = Objective(network, picture(50, 37, 0, np.float32), [picture(40, 40, 1)], settings)
        runs.append(objective(picture(50, 37, 2, np.float32)))
    for loss, gradient in runs[1:]:
        assert loss == runs[0][0]
        np.testing.assert_array_equal(gradient, runs[0][1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"styles": []}, "styles: found none"),
        ({"content": np.zeros((8, 16, 3))}, "16 x 8 pixels"),
        ({"styles": [np.zeros((40, 8, 3))]}, "8 x 40 pixels"),
        ({"styles": [np.zeros((40, 40))]}, r"\(40, 40\)"),
    ],
)
def test_invalid_pictures_are_rejected(change: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {"content": picture(16, 16), "styles": [picture(16, 16, 1)]}
    with pytest.raises(UserError, match=words):
        objective_for(preset("paper"), **{**good, **change})


def test_pixels_must_have_the_size_of_the_content() -> None:
    objective = objective_for(EVERY_LAYER, picture(16, 24), [picture(16, 16, 1)])
    with pytest.raises(UserError, match=r"\(24, 16, 3\).*\(16, 24, 3\)"):
        objective(picture(24, 16))


def test_content_may_be_modified_afterwards() -> None:
    content = picture(16, 24)
    objective = objective_for(Settings(style_layers=()), content, [])
    content += 20
    loss, _ = objective(content)
    assert loss > 0


def test_layer_may_be_of_content_and_style() -> None:
    x, content, style = picture(16, 24, 2), picture(16, 24), picture(16, 16, 1)
    both = Settings(content_layers=("conv2_1",), style_layers=("conv2_1",))
    gradients = [
        objective_for(settings, content, [style])(x)[1]
        for settings in (both, replace(both, content_weight=0.0), replace(both, style_weight=0.0))
    ]
    np.testing.assert_allclose(gradients[0], gradients[1] + gradients[2], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("statistics", get_args(Statistics))
def test_target_of_zeros_is_no_division_by_zero(statistics: Statistics) -> None:
    """Its number of elements replaces its size."""
    settings = Settings(statistics=statistics)
    objective = Objective(silent_network(settings), picture(16, 16), [picture(16, 20, 1)], settings)
    loss, gradient = objective(picture(16, 16, 2))
    assert loss == pytest.approx(0, abs=1e-15)
    assert not gradient.any()


def test_styles_may_be_modified_afterwards() -> None:
    style = picture(16, 24)
    objective = objective_for(Settings(content_layers=()), picture(16, 24), [style])
    style += 20
    loss, _ = objective(style)
    assert loss > 0


@pytest.mark.parametrize(
    ("pooling", "padding", "message"),
    [
        ("average", "replicate", "pooling: found 'average' in the network; expected 'max'"),
        ("max", "zero", "padding: found 'zero' in the network; expected 'replicate'"),
    ],
)
def test_network_and_settings_must_agree(pooling: Pooling, padding: Padding, message: str) -> None:
    network = VGG19(filters(0), pooling, padding)
    settings = Settings(pooling="max", padding="replicate")
    with pytest.raises(
        UserError, match=f"{message}, as in the settings; make the network with VGG19.for_settings"
    ):
        Objective(network, picture(16, 16), [picture(16, 16, 1)], settings)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flat_is_the_objective_for_vectors(dtype: Any) -> None:
    objective = objective_for(EVERY_LAYER, picture(16, 24), [picture(16, 16, 1)])
    x = picture(16, 24, 2)
    loss, gradient = objective(x.astype(dtype))
    flat_loss, flat_gradient = objective.flat(x.ravel(), dtype)
    assert flat_loss == loss
    assert flat_gradient.dtype == np.float64
    np.testing.assert_array_equal(flat_gradient, gradient.ravel())
    if dtype == np.float32:
        assert objective.flat(x.ravel())[0] == loss
    with pytest.raises(UserError, match=r"x: found shape \(16, 24, 3\); expected \(1152,\)"):
        objective.flat(x)


def test_flat_gradients_may_be_modified() -> None:
    """Optimizers write to them, and the network must not reuse their memory."""
    objective = objective_for(EVERY_LAYER, picture(16, 24), [picture(16, 16, 1)])
    x = picture(16, 24, 2).ravel()
    _, gradient = objective.flat(x, np.float64)
    copy = gradient.copy()
    _, again = objective.flat(x, np.float64)
    again *= 2
    np.testing.assert_array_equal(gradient, copy)


def test_scipy_minimizes_flat() -> None:
    objective = objective_for(preset("random"), picture(16, 24), [picture(20, 20, 1)])
    start = picture(16, 24, 2)
    result = minimize(objective.flat, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 10})
    assert result.nit == 10
    loss, _ = objective(result.x.reshape(start.shape).astype(np.float32))
    assert result.fun == loss
    assert loss < 0.7 * objective(start)[0]


def test_two_python_threads_share_a_network() -> None:
    """Each with an objective of its own: the same losses, terms and gradients as alone."""
    pictures = [picture(33, 40, 2, np.float32), picture(48, 24, 3, np.float32)]
    styles = [picture(40, 40, 1)]
    expected = []
    for x in pictures:
        objective = objective_for(EVERY_LAYER, x[::-1].copy(), styles)
        expected.append((*objective(x), objective.terms))
    network = network_for(EVERY_LAYER)
    barrier = threading.Barrier(2)

    def evaluate_often(x: Array) -> list[tuple[float, Array, dict[str, float]]]:
        barrier.wait()
        objective = Objective(network, x[::-1].copy(), styles, EVERY_LAYER)
        return [(*objective(x), objective.terms) for _ in range(5)]

    with ThreadPoolExecutor(2) as executor:
        results = list(executor.map(evaluate_often, pictures))
    for runs, (loss, gradient, terms) in zip(results, expected, strict=True):
        for loss_of_run, gradient_of_run, terms_of_run in runs:
            assert loss_of_run == loss
            assert terms_of_run == terms
            np.testing.assert_array_equal(gradient_of_run, gradient)
