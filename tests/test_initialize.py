"""Filters rescaled by pictures: random ones to mean 0 before the ReLU and 1 after it, trained ones to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npstyle import VGG19, UserError, load_weights
from npstyle._typing import Pooling, Preprocessing
from npstyle.initialize import FLOOR, data_dependent_init, mean_activations, normalize_network
from npstyle.layers import CaffeInput, Conv2D
from npstyle.weights import ConvWeights, Weights, random_weights

LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv3_1")
MEDIAN: Any = "median"  # no such pooling


def pictures() -> list[Any]:
    rng = np.random.default_rng(0)
    return [np.rint(rng.uniform(0, 255, shape)).astype(np.uint8) for shape in ((48, 64, 3), (40, 40, 3))]


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_every_filter_has_the_same_influence(pooling: Pooling) -> None:
    weights = data_dependent_init(load_weights("random", seed=0), pictures(), LAYERS, pooling)
    network = VGG19(weights, pooling=pooling)
    features = [network.forward(picture, LAYERS) for picture in pictures()]
    for name in LAYERS:
        F = np.concatenate([each[name].reshape(-1, each[name].shape[2]) for each in features])
        np.testing.assert_allclose(F.mean(axis=0), 1, atol=1e-3)
        # With a mean of 0 before the ReLU, about half of the outputs pass it.
        active = (F > 0).mean(axis=0)
        assert active.min() > 0.2
        assert active.max() < 0.8


def test_mean_before_the_relu_is_zero() -> None:
    weights = data_dependent_init(load_weights("random", seed=0), pictures(), ["conv1_1"])
    layer = Conv2D(*weights["conv1_1"])
    z = np.concatenate(
        [layer.forward(CaffeInput().forward(p.astype(np.float32))[0])[0].reshape(-1, 64) for p in pictures()]
    )
    np.testing.assert_allclose(z.mean(axis=0) / z.std(axis=0), 0, atol=1e-4)


def test_filter_of_zeros_is_no_division_by_zero() -> None:
    raw = load_weights("random", seed=0, deepest="conv1_2")
    raw["conv1_1"].kernel[..., 5] = 0
    weights = data_dependent_init(raw, pictures(), ["conv1_2"])
    assert not weights["conv1_1"].kernel[..., 5].any()
    assert all(np.isfinite(array).all() for layer in weights.values() for array in layer)


def test_only_needed_layers_are_initialized_and_weights_not_modified() -> None:
    weights = load_weights("random", seed=0)
    before = weights["conv1_1"].kernel.copy()
    initialized = data_dependent_init(weights, pictures(), ["conv1_2"])
    assert list(initialized) == ["conv1_1", "conv1_2"]
    assert (initialized.random, initialized.preprocessing) == (False, "caffe")
    assert initialized.source == f"{weights.source}, initialized to the pictures"
    np.testing.assert_array_equal(weights["conv1_1"].kernel, before)


def test_unknown_pooling_and_missing_filters_are_rejected() -> None:
    weights = load_weights("random", seed=0, deepest="conv1_1")
    with pytest.raises(UserError, match="pooling: found 'median'"):
        data_dependent_init(weights, pictures(), ["conv1_1"], pooling=MEDIAN)
    with pytest.raises(UserError, match="no conv1_2"):
        data_dependent_init(weights, pictures(), ["conv2_1"])


@pytest.mark.parametrize("preprocessing", ["caffe", "torchvision"])
def test_initialization_is_for_the_preprocessing_told(preprocessing: Preprocessing) -> None:
    """Carried by the weights or as an argument; with the other one the means would not be 1."""
    raw = random_weights(0, "conv1_2")
    carried = data_dependent_init(Weights(raw, "test", preprocessing=preprocessing), pictures(), ["conv1_2"])
    given = data_dependent_init(dict(raw), pictures(), ["conv1_2"], preprocessing=preprocessing)
    assert carried.preprocessing == given.preprocessing == preprocessing
    for name, mean in over(carried).items():
        np.testing.assert_array_equal(carried[name].kernel, given[name].kernel)
        np.testing.assert_allclose(mean, 1, atol=1e-3)
    swapped = Weights(carried, "test", preprocessing="torchvision" if preprocessing == "caffe" else "caffe")
    assert np.abs(over(swapped)["conv1_1"] - 1).max() > 0.1


def test_preprocessing_is_not_guessed() -> None:
    plain = dict(random_weights(0, "conv1_1"))
    for function in (
        lambda: data_dependent_init(plain, pictures(), ["conv1_1"]),
        lambda: normalize_network(plain, pictures()),
        lambda: mean_activations(plain, pictures()),
    ):
        with pytest.raises(UserError, match="preprocessing: found none"):
            function()


def filters(deepest: str = "conv3_1") -> Weights:
    """Filters whose mean activations differ much from filter to filter, with biases."""
    rng = np.random.default_rng(5)
    layers = {}
    for name, (kernel, bias) in random_weights(5, deepest).items():
        spread = np.exp(rng.normal(0, 1, bias.size)).astype(np.float32)
        size = 20 if name == "conv1_1" else 5
        layers[name] = ConvWeights(kernel * spread, size * rng.standard_normal(bias.shape, np.float32))
    return Weights(layers, "here", preprocessing="caffe")


def over(weights: Any, pooling: Pooling = "average") -> dict[str, Any]:
    """Mean activations over all positions of all pictures, all at once."""
    network = VGG19(weights, pooling)
    features = [network.forward(picture.astype(np.float64), list(weights)) for picture in pictures()]
    return {
        name: np.concatenate([each[name].reshape(-1, each[name].shape[2]) for each in features]).mean(axis=0)
        for name in weights
    }


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("preprocessing", ["caffe", "torchvision"])
def test_every_mean_activation_becomes_1(pooling: Pooling, preprocessing: Preprocessing) -> None:
    weights = Weights(filters(), "here", preprocessing=preprocessing)
    scaled = normalize_network(weights, pictures(), 0, pooling)
    assert (scaled.preprocessing, scaled.source) == (preprocessing, "here, normalized to mean activation 1")
    assert list(scaled) == list(weights)
    before = over(weights, pooling)
    for name, mean in over(scaled, pooling).items():
        assert before[name].max() > 5 * np.median(before[name])
        # A filter that is hardly ever active is so by the last digits of large numbers.
        active = before[name] > 0.05 * np.median(before[name])
        np.testing.assert_allclose(mean[active], 1, rtol=1e-4)
        np.testing.assert_allclose(mean, before[name] > 0, rtol=0.02, atol=1e-9)


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_normalized_network_is_the_same_function_in_other_units(pooling: Pooling) -> None:
    weights = filters()
    scaled = normalize_network(weights, pictures(), pooling=pooling)
    other = np.random.default_rng(9).uniform(0, 255, (37, 50, 3))  # not one of those it was normalized with
    layers = [*weights, "pool1", "pool2"]
    one, two = (VGG19(each, pooling).forward(other, layers) for each in (weights, scaled))
    unit = {name: floored(mean) for name, mean in over(weights, pooling).items()}
    unit |= {"pool1": unit["conv1_2"], "pool2": unit["conv2_2"]}
    for name in layers:
        np.testing.assert_allclose(two[name] * unit[name], one[name], rtol=1e-4, atol=1e-6 * one[name].max())


def floored(mean: Any, floor: float = FLOOR) -> Any:
    return np.maximum(mean, floor * np.median(mean[mean > 0]))


@pytest.mark.parametrize("floor", [0.1, 0.5, 1])
def test_filters_that_are_hardly_ever_active_are_not_amplified(floor: float) -> None:
    weights = filters("conv1_2")
    means = over(weights)
    after = over(normalize_network(weights, pictures(), floor))
    low = 0
    for name, mean in means.items():
        np.testing.assert_allclose(after[name], mean / floored(mean, floor), rtol=1e-4, atol=1e-9)
        low += int(np.count_nonzero(after[name] < 0.99))
    assert low > 0
    assert max(mean.max() for mean in after.values()) < 1.001


def test_default_floor_is_a_tenth_of_the_median() -> None:
    weights = filters("conv1_2")
    one, two = normalize_network(weights, pictures()), normalize_network(weights, pictures(), 0.1)
    np.testing.assert_array_equal(one["conv1_2"].kernel, two["conv1_2"].kernel)


@pytest.mark.parametrize("floor", [0, 0.1])
def test_filter_that_is_never_active_stays_silent(floor: float) -> None:
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


def test_layer_that_is_never_active_is_not_modified() -> None:
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
def test_weights_may_stop_at_any_layer(deepest: str) -> None:
    weights = random_weights(0, deepest)
    before = {name: layer.kernel.copy() for name, layer in weights.items()}
    scaled = normalize_network(dict(weights), pictures()[1:], 0, preprocessing="caffe")
    assert list(scaled) == list(weights)
    assert scaled.source == "filters, normalized to mean activation 1"
    for name, mean in mean_activations(scaled, pictures()[1:]).items():
        np.testing.assert_allclose(mean[mean > 0], 1, rtol=1e-3)
        np.testing.assert_array_equal(weights[name].kernel, before[name])


def test_invalid_input_is_rejected() -> None:
    weights = filters("conv1_2")
    with pytest.raises(UserError, match=r"^normalize: found no pictures; expected at least one picture"):
        normalize_network(weights, [])
    with pytest.raises(UserError, match=r"^normalize: found no filters"):
        normalize_network({}, pictures(), preprocessing="caffe")
    with pytest.raises(UserError, match="no conv1_2"):
        normalize_network(
            {name: layer for name, layer in filters("conv2_1").items() if name != "conv1_2"},
            pictures(),
            preprocessing="caffe",
        )
    with pytest.raises(UserError, match=r"^floor: found -1; expected a finite number from 0"):
        normalize_network(weights, pictures(), -1)
    with pytest.raises(UserError, match=r"^floor: found 1.5; expected a number from 0 to 1"):
        normalize_network(weights, pictures(), 1.5)
    with pytest.raises(UserError, match=r"^pooling: found 'median'"):
        normalize_network(weights, pictures(), pooling=MEDIAN)
    with pytest.raises(UserError, match=r"^picture: found 8 x 8 pixels"):
        normalize_network(weights, [np.zeros((8, 8, 3))])


def test_real_filters_normalized(real_weights: str) -> None:
    weights = load_weights(real_weights, deepest="conv3_4")
    scaled = normalize_network(weights, pictures())
    for name, mean in mean_activations(scaled, pictures()).items():
        assert np.median(mean) == pytest.approx(1, abs=1e-3)
        assert mean.max() < 1.001
        assert np.median(mean_activations(weights, pictures())[name]) > 5
