"""The loss and gradient of a picture: formulas, names of the terms, derivative, dtypes, bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradcheck import directional_error
from npstyle import VGG19, Objective, Settings, UserError, load_weights, preset
from npstyle.architecture import CONVOLUTION_METHODS
from npstyle.losses import gram_matrix
from tolerances import ADJOINT, DIRECTIONAL, SAME

Array = NDArray[Any]

EVERY_LAYER = Settings(
    content_layers=("conv1_2", "conv4_2"),
    style_layers=("conv1_1", "conv1_2", "conv2_1", "conv3_1", "conv4_1", "conv5_4"),
    tv_weight=1e-3,
)


def picture(H: int, W: int, seed: int = 0, dtype: Any = np.float64) -> Array:
    return np.random.default_rng(seed).uniform(0, 255, (H, W, 3)).astype(dtype)


@pytest.fixture(scope="module")
def network() -> VGG19:
    return VGG19(load_weights("random", seed=0))


@pytest.mark.parametrize("scaling", ["paper", "relative"])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_the_derivative_through_all_16_layers(scaling: str, pooling: str) -> None:
    # By im2col: Winograd's larger rounding would drown the difference of two losses.
    network = VGG19(load_weights("random", seed=1), pooling=pooling, convolution="im2col")
    settings = replace(EVERY_LAYER, scaling=scaling)
    objective = Objective(network, picture(32, 35), [picture(20, 40, 1)], settings)
    x = picture(32, 35, 2)
    gradient = objective(x)[1]
    assert gradient.shape == x.shape
    assert gradient.dtype == np.float64
    error = directional_error(lambda x: objective(x)[0], lambda v: v * gradient, x, step=1e-5)
    assert error < DIRECTIONAL


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_both_ways_to_convolve_have_the_same_derivative(pooling: str) -> None:
    """In float64, where they differ by rounding only."""
    weights = load_weights("random", seed=1)
    x = picture(45, 38, 2)
    found = []
    for convolution in ("im2col", "winograd"):
        network = VGG19(weights, pooling=pooling, convolution=convolution)
        found.append(Objective(network, picture(45, 38), [picture(20, 40, 1)], EVERY_LAYER)(x))
    (loss, gradient), (other_loss, other_gradient) = found
    assert other_loss == pytest.approx(loss, rel=ADJOINT[x.dtype])
    assert np.linalg.norm(gradient - other_gradient) < ADJOINT[x.dtype] * np.linalg.norm(gradient)


@pytest.mark.parametrize("convolution", CONVOLUTION_METHODS)
def test_the_gradient_in_float32_is_that_in_float64(convolution: str) -> None:
    """For the recipe of the paper, in a picture so small that rounding turns no response's sign.

    One sign of two million has been seen to change a gradient by 6e-4.
    """
    network = VGG19(load_weights("random", seed=1), convolution=convolution)
    objective = Objective(network, picture(64, 48), [picture(70, 90, 1)], preset("paper"))
    x = picture(64, 48, 2)
    _, exact = objective(x)
    _, found = objective(x.astype(np.float32))
    assert np.linalg.norm(found - exact) < SAME[found.dtype] * np.linalg.norm(exact)


def test_the_paper_preset_is_the_formula_of_the_paper(network: VGG19) -> None:
    content, style, x = picture(24, 32), picture(30, 17, 1), picture(24, 32, 2)
    settings = preset("paper")
    loss, _ = Objective(network, content, [style], settings)(x)
    responses = [network.forward(p, settings.layers) for p in (x, content, style)]
    F, P, Fa = responses
    expected = 1e-3 * 0.5 * np.square(F["conv4_2"] - P["conv4_2"]).sum()
    for name in ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"):
        C = F[name].shape[2]
        G, A = gram_matrix(F[name]) / F[name][..., 0].size, gram_matrix(Fa[name]) / Fa[name][..., 0].size
        expected += 1 / 5 / (4 * C**2) * np.square(G - A).sum()
    assert loss == pytest.approx(expected, rel=1e-12)


def test_relative_losses_are_shares_of_their_targets(network: VGG19) -> None:
    """Where the response is zero, each distance is all of its target: every mean is 1."""
    silent = VGG19({name: w._replace(kernel=0 * w.kernel) for name, w in network.weights.items()})  # type: ignore[attr-defined]
    objective = Objective(
        network,
        picture(16, 16),
        [picture(16, 20, 1)],
        Settings(content_layers=("conv3_1", "conv4_2"), style_weight=3.0),
    )
    objective.network = silent  # the float32 targets are made already
    loss, gradient = objective(picture(16, 16, 2, np.float32))
    assert loss == pytest.approx(1.0 + 3.0, rel=1e-6)
    assert not gradient.any()


def test_terms_are_weighted_named_and_add_up(network: VGG19) -> None:
    objective = Objective(network, picture(16, 24), [picture(16, 16, 1)], EVERY_LAYER)
    loss, _ = objective(picture(16, 24, 2))
    assert set(objective.terms) == {
        *(f"content/{name}" for name in EVERY_LAYER.content_layers),
        *(f"style/{name}" for name in EVERY_LAYER.style_layers),
        "total_variation",
    }
    assert loss == sum(objective.terms.values())
    twice = Objective(network, picture(16, 24), [picture(16, 16, 1)], replace(EVERY_LAYER, tv_weight=2e-3))
    twice(picture(16, 24, 2))
    assert twice.terms["total_variation"] == pytest.approx(2 * objective.terms["total_variation"])


def test_the_content_picture_has_no_content_loss(network: VGG19) -> None:
    content = picture(16, 24)
    objective = Objective(network, content, [], Settings(style_layers=()))
    loss, gradient = objective(content)
    assert loss == 0
    assert not gradient.any()


def test_the_style_picture_has_no_style_loss(network: VGG19) -> None:
    style = picture(16, 24)
    objective = Objective(network, picture(16, 24, 1), [style], Settings(content_layers=()))
    loss, gradient = objective(style)
    assert loss == 0
    assert not gradient.any()


def test_a_weight_of_zero_leaves_its_layers_out(network: VGG19) -> None:
    settings = replace(preset("paper"), content_weight=0.0)
    objective = Objective(network, picture(16, 24), [picture(16, 16, 1)], settings)
    objective(picture(16, 24, 2))
    assert not any(name.startswith("content/") for name in objective.terms)


def test_of_several_styles_the_target_is_the_mean(network: VGG19) -> None:
    styles = [picture(16, 20, 1), picture(24, 16, 2)]
    settings = replace(preset("paper"), content_weight=0.0, style_layers=("conv2_1",))
    x = picture(16, 16, 3)
    loss, _ = Objective(network, picture(16, 16), styles, settings)(x)

    def mean_gram(p: Array) -> Array:
        F = network.forward(p, ["conv2_1"])["conv2_1"]
        return gram_matrix(F) / F[..., 0].size

    target = (mean_gram(styles[0]) + mean_gram(styles[1])) / 2
    assert loss == pytest.approx(np.square(mean_gram(x) - target).sum() / (4 * 128**2), rel=1e-10)


def test_dtypes(network: VGG19) -> None:
    content, style, x = (np.rint(picture(16, 24, seed)).astype(np.uint8) for seed in range(3))
    objective = Objective(network, content, [style], preset("paper"))
    whole, gradient = objective(x)
    assert gradient.dtype == np.float32
    single, gradient32 = objective(x.astype(np.float32))
    double, gradient64 = objective(x.astype(np.float64))
    assert whole == single
    np.testing.assert_array_equal(gradient, gradient32)
    assert gradient64.dtype == np.float64
    assert single == pytest.approx(double, rel=1e-5)
    assert np.linalg.norm(gradient32 - gradient64) < 1e-4 * np.linalg.norm(gradient64)


def test_evaluations_do_not_disturb_each_other(network: VGG19) -> None:
    objective = Objective(network, picture(16, 24), [picture(16, 16, 1)], EVERY_LAYER)
    x, other = picture(16, 24, 2), picture(16, 24, 3)
    loss, gradient = objective(x)
    kept = gradient.copy()
    objective(other)
    np.testing.assert_array_equal(gradient, kept)
    again = objective(x)
    assert again[0] == loss
    np.testing.assert_array_equal(again[1], gradient)


def test_threads_do_not_change_a_bit() -> None:
    weights = load_weights("random", seed=0)
    runs = []
    for threads in (1, 2, 3):
        network = VGG19(weights, threads=threads)
        objective = Objective(network, picture(50, 37, 0, np.float32), [picture(40, 40, 1)], EVERY_LAYER)
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
def test_bad_pictures_are_refused(network: VGG19, change: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {"content": picture(16, 16), "styles": [picture(16, 16, 1)]}
    with pytest.raises(UserError, match=words):
        Objective(network, **{**good, **change}, settings=preset("paper"))


def test_pixels_must_have_the_size_of_the_content(network: VGG19) -> None:
    objective = Objective(network, picture(16, 24), [picture(16, 16, 1)], EVERY_LAYER)
    with pytest.raises(UserError, match=r"\(24, 16, 3\).*\(16, 24, 3\)"):
        objective(picture(24, 16))


def test_the_targets_stay_when_the_caller_goes_on_with_his_array(network: VGG19) -> None:
    content = picture(16, 24)
    objective = Objective(network, content, [], Settings(style_layers=()))
    content += 20
    loss, _ = objective(content)
    assert loss > 0


def test_a_layer_may_serve_content_and_style(network: VGG19) -> None:
    x, content, style = picture(16, 24, 2), picture(16, 24), picture(16, 16, 1)
    both = Settings(content_layers=("conv2_1",), style_layers=("conv2_1",))
    gradients = [
        Objective(network, content, [style], settings)(x)[1]
        for settings in (both, replace(both, content_weight=0.0), replace(both, style_weight=0.0))
    ]
    np.testing.assert_allclose(gradients[0], gradients[1] + gradients[2], rtol=1e-9, atol=1e-15)


def test_a_layer_that_is_silent_has_no_size_to_compare_with(network: VGG19) -> None:
    """Then a sum over its elements takes the place of a share: no division by zero."""
    silent = VGG19({name: w._replace(kernel=0 * w.kernel) for name, w in network.weights.items()})  # type: ignore[attr-defined]
    objective = Objective(silent, picture(16, 16), [picture(16, 20, 1)], Settings())
    loss, gradient = objective(picture(16, 16, 2))
    assert loss == 0
    assert not gradient.any()


def test_the_style_targets_stay_when_the_caller_goes_on_with_his_array(network: VGG19) -> None:
    style = picture(16, 24)
    objective = Objective(network, picture(16, 24), [style], Settings(content_layers=()))
    style += 20
    loss, _ = objective(style)
    assert loss > 0
