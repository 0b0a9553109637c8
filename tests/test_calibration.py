"""Calibrated random filters: mean zero before the ReLU, mean 1 after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npstyle import VGG19, UserError, load_weights
from npstyle.calibration import calibrated
from npstyle.layers import CaffeInput, Conv2D

LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv3_1")


def pictures() -> list[Any]:
    rng = np.random.default_rng(0)
    return [np.rint(rng.uniform(0, 255, shape)).astype(np.uint8) for shape in ((48, 64, 3), (40, 40, 3))]


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_every_filter_has_the_same_say(pooling: str) -> None:
    weights = calibrated(load_weights("random", seed=0), pictures(), LAYERS, pooling)
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
    weights = calibrated(load_weights("random", seed=0), pictures(), ["conv1_1"])
    layer = Conv2D(*weights["conv1_1"])
    z = np.concatenate(
        [layer.forward(CaffeInput().forward(p.astype(np.float32))[0])[0].reshape(-1, 64) for p in pictures()]
    )
    np.testing.assert_allclose(z.mean(axis=0) / z.std(axis=0), 0, atol=1e-4)


def test_a_filter_of_zeros_is_no_division_by_zero() -> None:
    raw = dict(load_weights("random", seed=0, deepest="conv1_2"))
    raw["conv1_1"].kernel[..., 5] = 0
    weights = calibrated(raw, pictures(), ["conv1_2"])
    assert not weights["conv1_1"].kernel[..., 5].any()
    assert all(np.isfinite(array).all() for layer in weights.values() for array in layer)


def test_only_what_is_needed_is_made_and_the_filters_given_stay_as_they_are() -> None:
    weights = load_weights("random", seed=0)
    before = weights["conv1_1"].kernel.copy()
    assert list(calibrated(weights, pictures(), ["conv1_2"])) == ["conv1_1", "conv1_2"]
    np.testing.assert_array_equal(weights["conv1_1"].kernel, before)


def test_unknown_pooling_and_missing_filters_are_named() -> None:
    weights = load_weights("random", seed=0, deepest="conv1_1")
    with pytest.raises(UserError, match="pooling: found 'median'"):
        calibrated(weights, pictures(), ["conv1_1"], pooling="median")
    with pytest.raises(UserError, match="no conv1_2"):
        calibrated(weights, pictures(), ["conv2_1"])
