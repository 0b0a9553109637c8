"""npstyle.study: pictures reconstructed from one layer, and textures from Gram matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import picture
from npstyle import VGG19, Settings, UserError, images, load_weights, study
from npstyle.weights import Weights

Array = NDArray[Any]

# Treated as trained: not initialized to the pictures of each run.
WEIGHTS = Weights(load_weights("random", deepest="conv2_2"), "as if trained")
PHOTO = picture(24, 32, dtype=np.uint8)
PAINTING = picture(5, 4, 1, np.uint8).repeat(8, axis=0).repeat(8, axis=1)[:, :28]  # squares of 8 x 8
EXAMPLE = Path(__file__).parents[1] / "examples" / "content.jpg"


def mean_error(result: Array, original: Array) -> float:
    return float(np.abs(result.astype(float) - original).mean())


def noise_of(settings: Settings, H: int, W: int, seed: int = 0) -> Array:
    """Pixels of the white noise that a run with these settings starts from."""
    assert settings.init == "noise"
    noise: Array = np.random.default_rng(seed).uniform(0, 255, (H, W, 3))
    return noise


def feature_map(pixels: Array, layer: str) -> Array:
    network = VGG19.for_settings(WEIGHTS, Settings())
    return network.forward(pixels.astype(np.float32), [layer])[layer]


def mean_gram(pixels: Array, layer: str) -> Array:
    """Mean of f f' over all positions, by another formula than the program's."""
    F = feature_map(pixels, layer)
    return np.asarray(np.einsum("hwc,hwk->ck", F, F, dtype=np.float64) / (F.shape[0] * F.shape[1]))


def test_lowest_layer_reconstructs_picture() -> None:
    result = study.reconstruct(PHOTO, "conv1_1", weights=WEIGHTS, iterations=60)
    noise = noise_of(study.reconstruction_settings("conv1_1"), 24, 32)
    assert result.loss < result.losses[0] / 1000
    assert mean_error(result.image, PHOTO) < mean_error(noise, PHOTO) / 20


def test_reconstruction_loss_is_relative_distance_of_feature_maps() -> None:
    result = study.reconstruct(PHOTO, "conv1_1", weights=WEIGHTS, iterations=10)
    F, P = feature_map(result.pixels, "conv1_1"), feature_map(PHOTO, "conv1_1")
    assert result.loss == pytest.approx(float(((F - P) ** 2).sum() / (P**2).sum()), rel=1e-3)


def test_higher_layers_of_real_filters_lose_more_pixels(real_weights: str) -> None:
    photo = images.fit(images.read(EXAMPLE), 48)
    errors = []
    for layer in ("conv1_1", "conv2_1", "conv3_1"):
        result = study.reconstruct(photo, layer, weights=real_weights, iterations=40)
        assert result.loss < result.losses[0] / 20
        errors.append(mean_error(result.image, photo))
    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0]


def test_tv_weight_smooths_reconstruction() -> None:
    rough, smooth = (
        study.reconstruct(PHOTO, "conv2_1", weights=WEIGHTS, iterations=20, tv_weight=weight).pixels
        for weight in (0.0, 1e-2)
    )
    assert np.square(np.diff(smooth, axis=0)).mean() < np.square(np.diff(rough, axis=0)).mean() / 2


def test_reconstruction_starts_from_init_or_noise_of_seed() -> None:
    options: dict[str, Any] = {"weights": WEIGHTS, "iterations": 0}
    assert np.array_equal(study.reconstruct(PHOTO, "conv1_1", init=PHOTO, **options).image, PHOTO)
    settings = study.reconstruction_settings("conv1_1")
    for seed in (1, 2):
        result = study.reconstruct(PHOTO, "conv1_1", seed=seed, **options)
        assert np.allclose(result.pixels, noise_of(settings, 24, 32, seed), atol=1e-3)


@pytest.mark.parametrize("layers", ["conv1_1", "conv1_1,conv2_1"])
def test_texture_has_gram_matrices_of_style(layers: str) -> None:
    result = study.texture(PAINTING, layers, weights=WEIGHTS, iterations=150, width=56, height=44)
    assert result.image.shape == (44, 56, 3)
    start = noise_of(study.texture_settings(layers), 44, 56)
    for layer in layers.split(","):
        A = mean_gram(PAINTING, layer)
        before, after = (np.linalg.norm(mean_gram(x, layer) - A) for x in (start, result.pixels))
        assert after < before / 30
        assert after < 0.02 * np.linalg.norm(A)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (40, 28, 3)),
        ({"size": 24}, (24, 17, 3)),
        ({"size": 24, "width": 50}, (24, 50, 3)),
        ({"height": 17}, (17, 28, 3)),
    ],
)
def test_texture_size(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert study.texture(PAINTING, "conv1_1", weights=WEIGHTS, iterations=0, **options).image.shape == shape


def test_style_of_texture_keeps_its_own_size() -> None:
    """However large the texture, the loss at its start is the one relative to the reduced painting."""
    result = study.texture(PAINTING, "conv1_1", weights=WEIGHTS, iterations=0, size=30, width=90, height=70)
    style = images.fit(PAINTING, 30)
    A, G = mean_gram(style, "conv1_1"), mean_gram(result.pixels, "conv1_1")
    assert result.loss == pytest.approx(((G - A) ** 2).sum() / (A**2).sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: study.reconstruct(PHOTO, "conv9_1", weights=WEIGHTS), "layer: found 'conv9_1'"),
        (lambda: study.reconstruct(PHOTO, "conv3_1", weights=WEIGHTS), "weights: found no conv3_1"),
        (lambda: study.texture(PHOTO, "conv1_1", weights=WEIGHTS, width=0), "width: found 0"),
        (lambda: study.texture(PHOTO, "conv1_1", weights=WEIGHTS, size=0), "size: found 0"),
        (lambda: study.texture(PHOTO, "", weights=WEIGHTS), "settings: found neither"),
    ],
)
def test_errors_name_argument(call: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(message)
