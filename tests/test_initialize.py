"""Filters scaled by pictures: random ones to mean zero before the ReLU and 1 after it, trained ones to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npstyle import VGG19, UserError, load_weights
from npstyle.initialize import FLOOR, data_dependent_init, mean_activations, normalize_network
from npstyle.layers import CaffeInput, Conv2D
from npstyle.weights import ConvWeights, Weights, random_weights

LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv3_1")


def pictures() -> list[Any]:
    rng = np.random.default_rng(0)
    return [np.rint(rng.uniform(0, 255, shape)).astype(np.uint8) for shape in ((48, 64, 3), (40, 40, 3))]


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_every_filter_has_the_same_say(pooling: str) -> None:
    weights = data_dependent_init(load_weights("random", seed=0), pictures(), LAYERS, pooling)
    network = VGG19(weights, pooling=pooling)
    responses = [network.forward(picture, LAYERS) for picture in pictures()]
    for name in LAYERS:
        together = np.concatenate(
            [response[name].reshape(-1, response[name].shape[2]) for response in responses]
        )
        np.testing.assert_allclose(together.mean(axis=0), 1, atol=1e-3)
        # Around a mean of zero, about half of what a filter sees lets it fire.
        firing = (together > 0).mean(axis=0)
        assert firing.min() > 0.2
        assert firing.max() < 0.8


def test_before_the_relu_the_mean_is_zero() -> None:
    weights = data_dependent_init(load_weights("random", seed=0), pictures(), ["conv1_1"])
    layer = Conv2D(*weights["conv1_1"])
    z = np.concatenate(
        [layer.forward(CaffeInput().forward(p.astype(np.float32))[0])[0].reshape(-1, 64) for p in pictures()]
    )
    np.testing.assert_allclose(z.mean(axis=0) / z.std(axis=0), 0, atol=1e-4)


def test_a_filter_of_zeros_is_no_division_by_zero() -> None:
    raw = dict(load_weights("random", seed=0, deepest="conv1_2"))
    raw["conv1_1"].kernel[..., 5] = 0
    weights = data_dependent_init(raw, pictures(), ["conv1_2"])
    assert not weights["conv1_1"].kernel[..., 5].any()
    assert all(np.isfinite(array).all() for layer in weights.values() for array in layer)


def test_only_what_is_needed_is_made_and_the_filters_given_stay_as_they_are() -> None:
    weights = load_weights("random", seed=0)
    before = weights["conv1_1"].kernel.copy()
    assert list(data_dependent_init(weights, pictures(), ["conv1_2"])) == ["conv1_1", "conv1_2"]
    np.testing.assert_array_equal(weights["conv1_1"].kernel, before)


def test_unknown_pooling_and_missing_filters_are_named() -> None:
    weights = load_weights("random", seed=0, deepest="conv1_1")
    with pytest.raises(UserError, match="pooling: found 'median'"):
        data_dependent_init(weights, pictures(), ["conv1_1"], pooling="median")
    with pytest.raises(UserError, match="no conv1_2"):
        data_dependent_init(weights, pictures(), ["conv2_1"])


def filters(deepest: str = "conv3_1") -> Weights:
    """Filters whose mean activations differ much from filter to filter, with biases."""
    rng = np.random.default_rng(5)
    layers = {}
    for name, (kernel, bias) in random_weights(5, deepest).items():
        spread = np.exp(rng.normal(0, 1, bias.size)).astype(np.float32)
        size = 20 if name == "conv1_1" else 5
        layers[name] = ConvWeights(kernel * spread, size * rng.standard_normal(bias.shape, np.float32))
    return Weights(layers, "here")


def over(weights: Any, pooling: str = "average") -> dict[str, Any]:
    """Mean activations over all positions of all pictures, all at once."""
    network = VGG19(weights, pooling)
    responses = [network.forward(picture.astype(np.float64), list(weights)) for picture in pictures()]
    return {
        name: np.concatenate([each[name].reshape(-1, each[name].shape[2]) for each in responses]).mean(axis=0)
        for name in weights
    }


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("preprocessing", ["caffe", "torchvision"])
def test_every_mean_activation_becomes_1(pooling: str, preprocessing: str) -> None:
    weights = Weights(filters(), "here", preprocessing=preprocessing)
    scaled = normalize_network(weights, pictures(), 0, pooling)
    assert (scaled.preprocessing, scaled.source) == (preprocessing, "here, normalized to mean activation 1")
    assert list(scaled) == list(weights)
    before = over(weights, pooling)
    for name, mean in over(scaled, pooling).items():
        assert before[name].max() > 5 * np.median(before[name])
        # What hardly ever fires does so by the last digits of large numbers.
        often = before[name] > 0.05 * np.median(before[name])
        np.testing.assert_allclose(mean[often], 1, rtol=1e-4)
        np.testing.assert_allclose(mean, before[name] > 0, rtol=0.02, atol=1e-9)


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_the_function_stays_the_same_in_other_units(pooling: str) -> None:
    weights = filters()
    scaled = normalize_network(weights, pictures(), pooling=pooling)
    other = np.random.default_rng(9).uniform(0, 255, (37, 50, 3))  # a picture it has not been made with
    layers = [*weights, "pool1", "pool2"]
    one, two = (VGG19(each, pooling).forward(other, layers) for each in (weights, scaled))
    unit = {name: floored(mean) for name, mean in over(weights, pooling).items()}
    unit |= {"pool1": unit["conv1_2"], "pool2": unit["conv2_2"]}
    for name in layers:
        np.testing.assert_allclose(two[name] * unit[name], one[name], rtol=1e-4, atol=1e-6 * one[name].max())


def floored(mean: Any, floor: float = FLOOR) -> Any:
    return np.maximum(mean, floor * np.median(mean[mean > 0]))


@pytest.mark.parametrize("floor", [0.1, 0.5, 2])
def test_filters_that_hardly_ever_fire_are_not_blown_up(floor: float) -> None:
    weights = filters("conv1_2")
    means = over(weights)
    after = over(normalize_network(weights, pictures(), floor))
    low = 0
    for name, mean in means.items():
        np.testing.assert_allclose(after[name], mean / floored(mean, floor), rtol=1e-4, atol=1e-9)
        low += int(np.count_nonzero(after[name] < 0.99))
    assert low > 0
    assert max(mean.max() for mean in after.values()) < 1.001


def test_without_a_word_the_floor_is_a_tenth_of_the_median() -> None:
    weights = filters("conv1_2")
    one, two = normalize_network(weights, pictures()), normalize_network(weights, pictures(), 0.1)
    np.testing.assert_array_equal(one["conv1_2"].kernel, two["conv1_2"].kernel)


@pytest.mark.parametrize("floor", [0, 0.1])
def test_a_filter_that_never_fires_stays_silent(floor: float) -> None:
    weights = filters("conv1_2")
    for name, k in (("conv1_1", 5), ("conv1_2", 9)):
        weights[name].kernel[..., k] = 0
        weights[name].bias[k] = -1
    scaled = normalize_network(weights, pictures(), floor)
    after = over(scaled)
    for name, k in (("conv1_1", 5), ("conv1_2", 9)):
        assert after[name][k] == 0
        unit = 0.1 * np.median(over(weights)[name][over(weights)[name] > 0]) if floor else 1
        assert scaled[name].bias[k] == pytest.approx(-1 / unit, rel=1e-5)
    assert all(np.isfinite(array).all() for layer in scaled.values() for array in layer)


def test_a_layer_that_never_fires_stays_as_it_is() -> None:
    weights = filters("conv1_2")
    weights["conv1_2"].kernel[...] = 0
    weights["conv1_2"].bias[...] = -3
    assert normalize_network(weights, pictures())["conv1_2"].bias.tolist() == [-3.0] * 64


def test_normalizing_twice_changes_nothing() -> None:
    once = normalize_network(filters("conv2_1"), pictures(), 0)
    twice = normalize_network(once, pictures(), 0)
    for name in once:
        for one, two in zip(once[name], twice[name], strict=True):
            np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("deepest", ["conv1_1", "conv5_4"])
def test_filters_may_stop_anywhere(deepest: str) -> None:
    weights = random_weights(0, deepest)
    before = {name: layer.kernel.copy() for name, layer in weights.items()}
    scaled = normalize_network(dict(weights), pictures()[1:], 0)
    assert list(scaled) == list(weights)
    assert scaled.source == "filters, normalized to mean activation 1"
    for name, mean in mean_activations(scaled, pictures()[1:]).items():
        np.testing.assert_allclose(mean[mean > 0], 1, rtol=1e-3)
        np.testing.assert_array_equal(weights[name].kernel, before[name])


def test_what_cannot_be_normalized_is_told() -> None:
    weights = filters("conv1_2")
    with pytest.raises(UserError, match=r"^normalize: found no pictures; expected at least one picture"):
        normalize_network(weights, [])
    with pytest.raises(UserError, match=r"^normalize: found no filters"):
        normalize_network({}, pictures())
    with pytest.raises(UserError, match="no conv1_2"):
        normalize_network(
            {name: layer for name, layer in filters("conv2_1").items() if name != "conv1_2"}, pictures()
        )
    with pytest.raises(UserError, match=r"^floor: found -1; expected a finite number from 0"):
        normalize_network(weights, pictures(), -1)
    with pytest.raises(UserError, match=r"^pooling: found 'median'"):
        normalize_network(weights, pictures(), pooling="median")
    with pytest.raises(UserError, match=r"^picture: found 8 x 8 pixels"):
        normalize_network(weights, [np.zeros((8, 8, 3))])


def test_the_real_filters_normalized(real_weights: str) -> None:
    weights = load_weights(real_weights, deepest="conv3_4")
    scaled = normalize_network(weights, pictures())
    for name, mean in mean_activations(scaled, pictures()).items():
        assert np.median(mean) == pytest.approx(1, abs=1e-3)
        assert mean.max() < 1.001
        assert np.median(mean_activations(weights, pictures())[name]) > 5
