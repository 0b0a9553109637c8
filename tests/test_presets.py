"""Every published preset against its formula: losses and gradients that another program differentiated.

golden/make_presets.py computed them, from the formulas and not from npstyle's settings; this needs no
framework. Loss and gradient agree to 1e-10 and 1e-9 in float64, to 1e-5 and 1e-4 in float32.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from npstyle import VGG19, Objective, Settings, load_weights, preset
from npstyle._typing import Padding, Pooling
from npstyle.presets import PRESETS

Array = NDArray[Any]

with np.load(Path(__file__).parent / "golden" / "presets.npz") as file:
    GOLDEN: dict[str, Array] = dict(file)
CASES: dict[str, dict[str, Any]] = json.loads(str(GOLDEN["cases"]))
WITH_CONTENT = [name for name in CASES if f"{name}: content" in GOLDEN]
every_case = pytest.mark.parametrize("name", CASES)

OURS = {"default", "gram", "random"}
# What a case changes in its preset: content layers mixed 1 to 3, style layers each half of the previous one.
CHANGES: dict[str, dict[str, Any]] = {
    "anishathalye, other weights": {"content_layer_weights": (0.25, 0.75), "style_layer_exponent": 0.5}
}
LOSS = {"float64": 1e-10, "float32": 1e-5}
GRADIENT = {"float64": 1e-9, "float32": 1e-4}
# By how much larger the bounds are for a preset. The root of a covariance loses digits where its variances
# are many times the 1e-4 that is added to them; the golden values avoid it by singular values.
COARSER = {"crowsonkb": 20}
FIVE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
EVERYTHING = {"loss", "terms", "gradient"}


class Result(NamedTuple):
    """A loss, its terms that are not 0, and its gradient."""

    loss: float
    terms: dict[str, float]
    gradient: Array


@functools.cache
def network(pooling: Pooling, padding: Padding) -> VGG19:
    return VGG19(load_weights("random", seed=0, deepest="conv5_2"), pooling, padding, "im2col")


def picture(seed: int, n: int, size: Sequence[int], smoothed: int) -> Array:
    """Integers, 0..255: noise, each pixel then averaged with three neighbors, `smoothed` times."""
    x: Array = np.random.default_rng([seed, n]).integers(0, 256, (*size, 3))
    for _ in range(smoothed):
        x = (x + np.roll(x, 1, 0) + np.roll(x, 1, 1) + np.roll(x, 1, (0, 1))) // 4
    return x


def pictures(name: str) -> list[Array]:
    """The generated, the content and the style pictures of a case."""
    case = CASES[name]
    kinds = [(case["size"], 1), (case["size"], 2), *((size, 0) for size in case["styles"])]
    return [picture(case["seed"], n, size, smoothed) for n, (size, smoothed) in enumerate(kinds)]


def settings_of(name: str) -> Settings:
    return replace(preset(name.split(",")[0]), **CHANGES.get(name, {}))


def evaluate(
    name: str, settings: Settings, dtype: str = "float64", blend: Sequence[float] | None = None
) -> Result:
    """What npstyle computes for the pictures of a case."""
    x, content, *styles = pictures(name)
    blend = blend or CASES[name]["blend"]
    objective = Objective(network(settings.pooling, settings.padding), content, styles, settings, blend)
    loss, gradient = objective(x.astype(dtype))
    assert gradient.dtype == np.dtype(dtype)
    return Result(loss, {term: value for term, value in objective.terms.items() if value}, gradient)


def golden(name: str) -> Result:
    terms = {term: value for term, value in CASES[name]["terms"].items() if value}
    return Result(CASES[name]["loss"], terms, GOLDEN[name])


def golden_content(name: str) -> Result:
    """The same without style and total variation."""
    terms = {term: value for term, value in golden(name).terms.items() if term.startswith("content/")}
    return Result(sum(terms.values()), terms, GOLDEN[f"{name}: content"])


def content_alone(settings: Settings) -> Settings:
    return replace(settings, style_weight=0.0, tv_weight=0.0)


def differences(
    result: Result, expected: Result, dtype: str = "float64", coarser: int = 1
) -> dict[str, float]:
    """What differs by more than rounding, and its relative error: loss, worst term, gradient."""
    assert set(result.terms) == set(expected.terms)
    errors = {
        "loss": abs(result.loss / expected.loss - 1),
        "terms": max(abs(result.terms[term] / value - 1) for term, value in expected.terms.items()),
        "gradient": float(
            np.linalg.norm(result.gradient - expected.gradient) / np.linalg.norm(expected.gradient)
        ),
    }
    bounds = {"loss": LOSS[dtype], "terms": LOSS[dtype], "gradient": GRADIENT[dtype]}
    return {what: error for what, error in errors.items() if not error < coarser * bounds[what]}


def test_every_published_preset_has_golden_values() -> None:
    assert {name.split(",")[0] for name in CASES} == set(PRESETS) - OURS
    assert {name.split(",")[0] for name in WITH_CONTENT} == set(PRESETS) - OURS
    assert set(RECIPES) == set(PRESETS) - OURS
    assert set(CHANGES) <= set(CASES)
    assert "PyTorch" in str(GOLDEN["made_by"])


@every_case
def test_the_pictures_are_those_of_the_golden_values(name: str) -> None:
    """If they are not, NumPy draws other random numbers than it did: make the golden values again."""
    drawn = pictures(name)
    assert zlib.crc32(b"".join(x.astype(np.uint8).tobytes() for x in drawn)) == CASES[name]["pictures"]


def test_the_filters_are_those_of_the_golden_values() -> None:
    weights = load_weights("random", seed=0, deepest="conv5_2")
    sums = [np.sum(np.square(layer.kernel, dtype=np.float64)) for layer in weights.values()]
    np.testing.assert_allclose(sums, GOLDEN["filters"], rtol=1e-9)
    assert not any(layer.bias.any() for layer in weights.values())


@every_case
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_preset_is_its_published_formula(name: str, dtype: str) -> None:
    coarser = COARSER.get(name.split(",")[0], 1)
    assert differences(evaluate(name, settings_of(name), dtype), golden(name), dtype, coarser) == {}


@pytest.mark.parametrize("name", WITH_CONTENT)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_content_loss_is_the_published_one(name: str, dtype: str) -> None:
    """On its own: next to udacity's style it is a trillionth of the loss."""
    settings = content_alone(settings_of(name))
    assert differences(evaluate(name, settings, dtype), golden_content(name), dtype) == {}


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        ("paper, small", "style_weight"),
        ("keras, odd sizes", "style_weight"),
        ("keras, odd sizes", "tv_weight"),
        ("anishathalye, other weights", "style_weight"),
        ("anishathalye, other weights", "style_layer_exponent"),
        ("anishathalye, two styles", "tv_weight"),
        ("jcjohnson, two styles", "style_weight"),
        ("jcjohnson, two styles", "tv_weight"),
        ("gatys-pytorch, small", "style_weight"),
        ("udacity, odd sizes", "style_weight"),
        ("crowsonkb, odd sizes", "style_weight"),
        ("crowsonkb, odd sizes", "tv_weight"),
        ("spst, small", "style_weight"),
        ("spst, small", "moments_weight"),
    ],
)
def test_constant_off_by_a_thousandth_is_detected(name: str, constant: str) -> None:
    settings = settings_of(name)
    wrong = replace(settings, **{constant: 1.001 * getattr(settings, constant)})
    assert set(differences(evaluate(name, wrong), golden(name))) == EVERYTHING
    assert "terms" in differences(evaluate(name, wrong, "float32"), golden(name), "float32")


@pytest.mark.parametrize("name", WITH_CONTENT)
def test_content_weight_off_by_a_thousandth_is_detected(name: str) -> None:
    settings = content_alone(settings_of(name))
    wrong = replace(settings, content_weight=1.001 * settings.content_weight)
    assert set(differences(evaluate(name, wrong), golden_content(name))) == EVERYTHING


@pytest.mark.parametrize("layer", range(5))
def test_layer_weight_off_by_a_thousandth_is_detected(layer: int) -> None:
    name = "udacity, other sizes"
    weights = [1, 0.75, 0.2, 0.2, 0.2]
    weights[layer] *= 1.001
    wrong = replace(settings_of(name), style_layer_weights=tuple(weights))
    assert set(differences(evaluate(name, wrong), golden(name))) == EVERYTHING


@pytest.mark.parametrize(
    "name", ["anishathalye, two styles", "jcjohnson, two styles", "crowsonkb, two styles"]
)
def test_blend_off_by_a_thousandth_is_detected(name: str) -> None:
    wrong = evaluate(name, settings_of(name), blend=(1, 3.003))
    assert set(differences(wrong, golden(name))) == EVERYTHING


@pytest.mark.parametrize(
    ("name", "choice", "seen"),
    [
        ("paper, small", {"pooling": "max"}, EVERYTHING),
        ("paper, small", {"scaling": "mean"}, EVERYTHING),
        ("keras, odd sizes", {"scaling": "udacity"}, EVERYTHING),
        ("keras, odd sizes", {"tv_form": "sum-squares"}, EVERYTHING),
        ("jcjohnson, two styles", {"tv_form": "mean-squares"}, EVERYTHING),
        ("jcjohnson, two styles", {"normalize_layer_weights": True}, EVERYTHING),
        ("udacity, odd sizes", {"pooling": "average"}, EVERYTHING),
        ("crowsonkb, odd sizes", {"statistics": "gram"}, EVERYTHING),
        ("crowsonkb, odd sizes", {"padding": "zero"}, EVERYTHING),
        ("crowsonkb, odd sizes", {"tv_form": "mean-squares"}, EVERYTHING),
        ("crowsonkb, two styles", {"mixture": "losses"}, EVERYTHING),
        ("spst, small", {"statistics": "gram"}, EVERYTHING),
        ("spst, small", {"scaling": "paper"}, EVERYTHING),
        # The mean distance from several targets is the distance from their mean, and a constant.
        ("jcjohnson, two styles", {"mixture": "losses"}, {"loss", "terms"}),
        ("anishathalye, two styles", {"mixture": "targets"}, {"loss", "terms"}),
    ],
)
def test_another_choice_is_detected(name: str, choice: dict[str, Any], seen: set[str]) -> None:
    wrong = replace(settings_of(name), **choice)
    assert set(differences(evaluate(name, wrong), golden(name))) == seen


def test_jcjohnson_with_other_weights_is_gatys_pytorch() -> None:
    name = "gatys-pytorch, odd sizes"
    renamed = replace(preset("jcjohnson"), content_weight=1.0, style_weight=1000.0, tv_weight=0.0)
    assert differences(evaluate(name, renamed), golden(name)) == {}


def test_the_paper_weighs_512_channels_64_times_more_than_jcjohnson() -> None:
    """Against 64 channels: each layer's weights differ by C^2."""
    name = "paper, odd sizes"
    jcjohnson = evaluate(name, replace(preset("jcjohnson"), pooling="average")).terms
    ratio = {layer: golden(name).terms[f"style/{layer}"] / jcjohnson[f"style/{layer}"] for layer in FIVE}
    assert ratio["conv5_1"] / ratio["conv1_1"] == pytest.approx(64, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_weights_multiply_the_published_terms(seed: int) -> None:
    """For random weights: the loss is the weighted sum of the golden terms."""
    name = "jcjohnson, two styles"
    content, style, tv, *layers = np.random.default_rng(seed).uniform(0.1, 10, 8).tolist()
    settings = replace(
        preset("jcjohnson"),
        content_weight=5 * content,
        style_weight=100 * style,
        tv_weight=1e-3 * tv,
        style_layer_weights=tuple(layers),
    )
    expected = dict(golden(name).terms)
    expected["content/conv4_2"] *= content
    expected["total_variation"] *= tv
    for layer, weight in zip(FIVE, layers, strict=True):
        expected[f"style/{layer}"] *= style * weight
    result = evaluate(name, settings)
    assert result.terms == pytest.approx(expected, rel=LOSS["float64"])
    assert result.loss == pytest.approx(sum(expected.values()), rel=LOSS["float64"])


RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"pooling": "average", "init": "noise", "noise_std": 0.0, "optimizer": "lbfgs"},
    "keras": {"pooling": "max", "init": "content", "optimizer": "lbfgs", "style_as_content": True},
    "anishathalye": {
        "pooling": "max",
        "init": "noise",
        "noise_std": 0.256,
        "optimizer": "adam",
        "learning_rate": 10.0,
        "iterations": 1000,
        "style_as_content": False,
    },
    "jcjohnson": {
        "pooling": "max",
        "init": "noise",
        "noise_std": 0.001,
        "optimizer": "lbfgs",
        "iterations": 1000,
        "style_as_content": False,
    },
    "gatys-pytorch": {"pooling": "max", "init": "content", "optimizer": "lbfgs", "iterations": 500},
    "crowsonkb": {
        "pooling": "max",
        "padding": "replicate",
        "init": "content",
        "optimizer": "adam",
        "learning_rate": pytest.approx(0.02 * 255),
        "iterations": 500,
        "min_size": 128,
        "style_as_content": False,
    },
    "spst": {"pooling": "max", "init": "content", "optimizer": "lbfgs", "iterations": 600},
    # A rate of 0.003 for a picture from 0 to 1, divided by the standard deviations of ImageNet's channels.
    "udacity": {
        "pooling": "max",
        "init": "content",
        "optimizer": "adam",
        "learning_rate": pytest.approx(0.003 * 255 * (0.229 + 0.224 + 0.225) / 3, rel=1e-3),
        "style_as_content": True,
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_rest_of_the_recipe_is_the_published_one(name: str) -> None:
    settings = preset(name)
    # Zero padding, one size, colors as they come, unless it says otherwise.
    plain = {"padding": "zero", "min_size": 0, "color": "style"}
    for field, value in {**plain, **RECIPES[name]}.items():
        assert getattr(settings, field) == value, field
    assert list(settings.effective_content_weights) == ["conv5_2" if name == "keras" else "conv4_2"]
    assert tuple(settings.effective_style_weights) == FIVE
