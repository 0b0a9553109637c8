"""npstyle.study: receptive fields, feature maps, Gram matrices as heat maps, terms of the loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers import picture
from npstyle import VGG19, Objective, Settings, UserError, load_weights, preset, study
from npstyle._typing import Padding
from npstyle.architecture import CONVOLUTIONS, LAYERS, log2_stride
from npstyle.study.receptive import OUTLINE_COLOR
from npstyle.weights import ConvWeights, Weights

WEIGHTS = Weights(load_weights("random", deepest="conv2_2"), "as if trained")
PHOTO, PAINTING = picture(24, 32, dtype=np.uint8), picture(40, 28, 1, np.uint8)


# Receptive fields


def positive_weights() -> Weights:
    """With positive filters every activation depends on all that it can see, and no ReLU hides it."""
    rng = np.random.default_rng(0)
    layers = {
        name: ConvWeights(rng.uniform(0.5, 1, (3, 3, C, K)) / (9 * C), np.zeros(K))
        for name, (C, K) in list(CONVOLUTIONS.items())[:10]
    }
    return Weights(layers, "positive", preprocessing="caffe")


LAYERS_UP_TO_CONV4_2 = LAYERS[: LAYERS.index("conv4_2") + 1]


# A maximum depends on a pixel only where it is the argmax, which at the border it may not be.
@pytest.mark.parametrize(
    ("pooling", "padding", "h", "w"),
    [
        ("average", "zero", 0, 0),
        ("average", "zero", 21, 30),
        ("average", "zero", 47, 63),
        ("average", "replicate", 46, 1),
        ("average", "replicate", 0, 33),
        ("max", "zero", 21, 30),
    ],
)
def test_activations_depend_on_receptive_field_only(pooling: str, padding: str, h: int, w: int) -> None:
    """Change one pixel: the activations that change are those whose receptive field has it."""
    H, W = 48, 64
    options: dict[str, Any] = {"pooling": pooling, "padding": padding, "convolution": "im2col"}
    network = VGG19(positive_weights(), **options)
    bright = np.full((H, W, 3), 250.0)
    brighter = bright.copy()
    brighter[h, w] += 5.0
    before, after = (network.forward(x, LAYERS_UP_TO_CONV4_2) for x in (bright, brighter))
    for layer in LAYERS_UP_TO_CONV4_2:
        changed = (before[layer] != after[layer]).any(axis=2)
        field = study.receptive_field(layer)
        rows, columns = changed.shape
        sees_h = [start <= h < end for start, end in (field.span(i, H) for i in range(rows))]
        sees_w = [start <= w < end for start, end in (field.span(j, W) for j in range(columns))]
        assert np.array_equal(changed, np.outer(sees_h, sees_w)), layer


def test_receptive_fields_of_all_layers() -> None:
    fields = [study.receptive_field(layer) for layer in LAYERS]
    sizes = [field.size for field in fields]
    assert sizes == sorted(set(sizes))
    assert [field.stride for field in fields] == [2 ** log2_stride(layer) for layer in LAYERS]
    for field in fields:  # centered, to half a pixel, on the pixels that an activation stands for
        assert 2 * field.first + field.size - field.stride in (0, 1)


def test_receptive_field_of_unknown_layer() -> None:
    with pytest.raises(UserError, match="layer: found 'conv0_1'"):
        study.receptive_field("conv0_1")


def test_field_tile_outlines_receptive_field() -> None:
    tile = study.field_tile(np.zeros((64, 64, 3), np.uint8), "conv2_1")
    field = study.receptive_field("conv2_1")
    top, bottom = field.span(16, 64)
    black = (tile.image == 0).all(axis=2)
    expected = np.zeros((64, 64), bool)
    expected[top:bottom, top:bottom] = True
    assert np.array_equal(black, expected)
    red = (tile.image == OUTLINE_COLOR).all(axis=2)
    assert red.sum() == 4 * (field.size + 1)
    assert tile.caption == "conv2_1: 10 x 10, every 2"


# Feature maps


def test_feature_map_tiles_show_strongest_channels_on_one_scale() -> None:
    rng = np.random.default_rng(0)
    F = rng.uniform(0, 1, (20, 30, 4)) * np.array([1.0, 3.0, 0.0, 2.0])
    tiles = study.feature_map_tiles(F, 3)
    assert [tile.caption.split(":")[0] for tile in tiles] == ["1", "3", "0"]
    energy = np.square(F).sum(axis=(0, 1)) / np.square(F).sum()
    assert tiles[0].caption == f"1: {100 * energy[1]:.1f}%"
    assert tiles[0].image.shape == (60, 90, 3)  # enlarged to at least 64 pixels
    level = study.white_level(F)
    assert np.mean(F[F > 0] < level) == pytest.approx(0.995, abs=0.002)
    expected = np.clip(np.rint(255 * F[:, :, 3] / level), 0, 255)
    assert np.array_equal(tiles[1].image[::3, ::3, 0], expected)
    assert study.feature_map_tiles(F, 3, min_size=10)[0].image.shape == (20, 30, 3)


def test_feature_map_of_zeros_is_black() -> None:
    F = np.zeros((8, 8, 2), np.float32)
    assert study.white_level(F) == 1
    assert not study.feature_map_tiles(F, 2)[0].image.any()
    assert study.style_distance(study.mean_gram(F), study.mean_gram(F)) == 0


# Heat maps


def test_heat_colors_get_lighter() -> None:
    colors = study.heat(np.linspace(0, 1, 200)).astype(float)
    luma = colors @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) > -0.6).all()  # but for rounding to integers
    assert luma[0] == 0
    assert luma[-1] > 245
    assert np.array_equal(study.heat([-1, 2]), study.heat([0, 1]))
    assert study.heat(np.zeros((3, 5))).shape == (3, 5, 3)


def test_gram_map_is_logarithmic() -> None:
    G = np.array([[1000.0, 10.0], [0.1, 0.0]])
    heat_map = study.gram_map(G, min_size=1)
    assert np.array_equal(heat_map, study.heat(np.array([[1, 0.5], [0, 0]])))
    assert study.gram_map(G, min_size=7).shape == (6, 6, 3)
    assert np.array_equal(study.gram_map(G, min_size=7)[::3, ::3], heat_map)
    assert np.array_equal(
        study.gram_map(G, max_value=1e5, min_size=1), study.heat(np.array([[0.5, 0], [0, 0]]))
    )
    assert not study.gram_map(np.zeros((4, 4)), min_size=1).any()


def test_mean_gram_by_definition() -> None:
    F = np.random.default_rng(0).uniform(0, 1, (5, 7, 3))
    expected = sum(np.outer(f, f) for f in F.reshape(-1, 3)) / 35
    assert np.allclose(study.mean_gram(F), expected)


# Terms of the loss

SETTINGS = Settings(
    content_layers="conv1_2:3,conv2_2:1",
    style_layers=("conv1_1", "conv2_1"),
    style_layer_exponent=2.0,
    tv_weight=1e-2,
    keep_edges=0.3,
)


def network_for(settings: Settings) -> VGG19:
    return VGG19.for_settings(WEIGHTS, settings)


@pytest.mark.parametrize(("normalize", "padding"), [(True, "replicate"), (False, "wrap")])
def test_terms_add_up_to_objective(normalize: bool, padding: Padding) -> None:
    settings = replace(SETTINGS, normalize_layer_weights=normalize, padding=padding)
    network = network_for(settings)
    at = picture(24, 32, 5)
    objective = Objective(network, PHOTO, [PAINTING], settings)
    loss, gradient = objective(at)
    terms = study.terms(network, PHOTO, PAINTING, settings, at)
    assert {name: term.loss for name, term in terms.items()} == pytest.approx(objective.terms)
    assert sum(term.loss for term in terms.values()) == pytest.approx(loss)
    total = np.sum([term.gradient for term in terms.values()], axis=0)
    assert np.allclose(total, gradient, rtol=1e-9, atol=1e-9 * np.abs(gradient).max())


def test_content_gradient_is_zero_at_content_picture() -> None:
    terms = study.terms(network_for(SETTINGS), PHOTO, None, SETTINGS, PHOTO)
    assert list(terms) == ["content/conv1_2", "content/conv2_2", "total_variation", "edges"]
    assert terms["content/conv2_2"].loss == 0
    assert not terms["content/conv2_2"].gradient.any()
    assert (study.gradient_picture(terms["content/conv2_2"].gradient) == 128).all()


def test_gradient_picture_is_lighter_where_loss_falls() -> None:
    gradient = np.zeros((2, 2, 3))
    gradient[0, 0, 0], gradient[1, 1, 2] = 4.0, -4.0
    image = study.gradient_picture(gradient)
    assert image[0, 0].tolist() == [0, 128, 128]
    assert image[1, 1].tolist() == [128, 128, 255]
    assert np.array_equal(study.gradient_picture(1e-9 * gradient), image)


# Inspection


def mean_gram(pixels: Any, layer: str) -> Any:
    F = network_for(Settings()).forward(pixels.astype(np.float32), [layer])[layer]
    return np.einsum("hwc,hwk->ck", F, F, dtype=np.float64) / (F.shape[0] * F.shape[1])


def loss_table(inspection: study.Inspection) -> dict[str, list[str]]:
    """The lines of the table of terms, by name: loss, mean and maximum of the gradient."""
    start = inspection.table.index("") + 3
    return {line.split()[0]: line.split()[1:] for line in inspection.table[start:]}


def test_inspect_shows_layers_from_pixels_up() -> None:
    inspection = study.inspect(PHOTO, PAINTING, ["conv2_1", "conv1_1"], WEIGHTS, channels=5)
    assert list(inspection.pictures) == study.picture_names(["conv1_1", "conv2_1"])
    header, conv1_1, conv2_1 = (line.split() for line in inspection.table[:3])
    assert header == ["layer", "H", "x", "W", "x", "C", "field", "stride", "silent", "mean", "to", "style"]
    assert conv1_1[:8] == ["conv1_1", "24", "x", "32", "x", "64", "3", "1"]
    assert conv2_1[:8] == ["conv2_1", "12", "x", "16", "x", "128", "10", "2"]
    distance = study.style_distance(*(mean_gram(x, "conv1_1") for x in (PHOTO, PAINTING)))
    assert float(conv1_1[-1]) == pytest.approx(distance, rel=0.01)


def test_inspect_evaluates_gram_recipe_with_total_variation() -> None:
    inspection = study.inspect(PHOTO, PAINTING, ["conv2_1", "conv1_1"], WEIGHTS, channels=5)
    table = loss_table(inspection)
    assert list(table) == ["content/conv2_1", "style/conv1_1", "style/conv2_1", "total_variation"]
    assert table["content/conv2_1"] == ["0", "0", "0"]
    distance = study.style_distance(*(mean_gram(x, "conv1_1") for x in (PHOTO, PAINTING)))
    half_of_style_weight = preset("gram").style_weight / 2
    assert float(table["style/conv1_1"][0]) == pytest.approx(half_of_style_weight * distance, rel=0.01)
    assert "weights: content 1, style 45, total variation 0.001" in inspection.table


def test_inspect_at_other_pixels_and_content_layer() -> None:
    options: dict[str, Any] = {"at": picture(24, 32, 5, np.uint8), "content_layer": "conv1_1"}
    table = loss_table(study.inspect(PHOTO, PAINTING, ["conv1_1", "conv2_1"], WEIGHTS, **options))
    assert float(table["content/conv1_1"][0]) > 0


def test_inspect_without_style() -> None:
    inspection = study.inspect(PHOTO, None, ["conv1_1"], WEIGHTS)
    assert list(loss_table(inspection)) == ["content/conv1_1", "total_variation"]
    assert inspection.table[1].split()[-1] == "-"
