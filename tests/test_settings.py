"""Settings: canonical names, weights of layers, and invalid values. The presets: test_presets.py."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from npstyle import Settings, UserError, preset
from npstyle.presets import PRESETS
from npstyle.settings import CHOICES


def test_every_preset_can_be_named() -> None:
    published = {
        "paper",
        "keras",
        "anishathalye",
        "jcjohnson",
        "gatys-pytorch",
        "udacity",
        "crowsonkb",
        "spst",
    }
    assert {"default", "gram", "random"} | published == set(PRESETS)
    assert all(isinstance(preset(name), Settings) for name in PRESETS)
    assert preset("default") == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        preset("paper").style_weight = 2.0  # type: ignore[misc]


def test_layer_names_become_canonical() -> None:
    settings = Settings(content_layers="relu3_3", style_layers=["block1_conv1", "conv2_1", "relu2_1"])
    assert settings.content_layers == ("conv3_3",)
    assert settings.style_layers == ("conv1_1", "conv2_1")
    assert settings.layers == ("conv3_3", "conv1_1", "conv2_1")


def test_weights_are_dropped_with_their_layers() -> None:
    default = preset("gram")
    assert default.effective_style_weights["conv5_1"] < default.effective_style_weights["conv1_1"]
    assert replace(default, style_weight=1).style_layer_weights == default.style_layer_weights
    names = ("conv1_1", "conv1_2", "conv2_1", "conv3_1", "conv4_1")  # as many as there were
    assert replace(default, style_layers=names).effective_style_weights == dict.fromkeys(names, 0.2)
    assert replace(default, style_layers="conv3_1").effective_style_weights == {"conv3_1": 1}
    assert replace(default, style_layers=default.style_layers) == default
    for again in (copy.copy(default), copy.deepcopy(default), pickle.loads(pickle.dumps(default))):
        assert again == default
        assert replace(again, style_layers=names).style_layer_weights is None


def test_layers_have_weights() -> None:
    named = Settings(style_layers="relu1_1:3,conv2_1")
    assert named.style_layer_weights == (3, 1)
    assert named.effective_style_weights == {"conv1_1": 0.75, "conv2_1": 0.25}
    assert replace(named, normalize_layer_weights=False).effective_style_weights == {
        "conv1_1": 3,
        "conv2_1": 1,
    }
    assert replace(named, style_layer_exponent=2).effective_style_weights == {"conv1_1": 0.6, "conv2_1": 0.4}
    assert replace(named, style_weight=0).effective_style_weights == {}
    assert Settings(style_layer_weights=[1, 2, 2, 5]).effective_style_weights["conv4_1"] == 0.5


def test_layer_of_weight_zero_is_not_used() -> None:
    assert Settings(content_layers="conv4_2,conv5_2:0").layers[:2] == ("conv4_2", "conv1_1")
    assert preset("anishathalye").layers[0] == "conv4_2"
    assert "conv5_2" not in preset("anishathalye").layers
    assert Settings(style_layer_exponent=0).effective_style_weights == {"conv1_1": 1}


def test_settings_can_be_compared_and_hashed() -> None:
    assert len({Settings(), Settings(), preset("paper")}) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"content_weight": -1}, "content_weight: found -1"),
        ({"style_weight": float("nan")}, "style_weight: found nan"),
        ({"style_weight": float("inf")}, "style_weight: found inf"),
        ({"tv_weight": "much"}, "tv_weight: found 'much'"),
        ({"style_layers": ["conv9_1"]}, "style_layers: found 'conv9_1'"),
        ({"pooling": "median"}, "pooling: found 'median'"),
        ({"init": "black"}, "init: found 'black'"),
        ({"scaling": "none"}, "scaling: found 'none'"),
        ({"style_layers": "conv1_1:-1,conv2_1"}, "style_layers: conv1_1: found '-1'"),
        ({"style_layers": "conv1_1:much"}, "style_layers: conv1_1: found 'much'"),
        ({"style_layer_weights": (1, 2)}, "style_layer_weights: found 2; expected one for each of 5 layers"),
        ({"style_layer_exponent": -1}, "style_layer_exponent: found -1"),
        ({"tv_form": "some"}, "tv_form: found 'some'"),
        ({"statistics": "moments"}, "statistics: found 'moments'"),
        ({"moments_weight": -1}, "moments_weight: found -1"),
        ({"mixture": "some"}, "mixture: found 'some'"),
        ({"padding": "mirror"}, "padding: found 'mirror'"),
        ({"optimizer": "sgd"}, "optimizer: found 'sgd'"),
        ({"color": "red"}, "color: found 'red'"),
        ({"maxcor": 0}, "maxcor: found 0"),
        ({"iterations": -1}, "iterations: found -1"),
        ({"iterations": (5, -1)}, "iterations: found -1"),
        ({"iterations": ()}, "iterations: found no number"),
        ({"iterations": "50"}, "iterations: found '50'"),
        ({"min_size": 1.5}, "min_size: found 1.5"),
        ({"learning_rate": 0}, "learning_rate: found 0"),
        ({"init_noise": 1.5}, "init_noise: found 1.5"),
        ({"noise_std": True}, "noise_std: found True"),
        ({"normalize_layer_weights": "yes"}, "normalize_layer_weights: found 'yes'"),
        ({"style_layers": "conv1_1:0", "content_weight": 0}, "neither a content nor a style loss"),
        ({"content_weight": 0, "style_weight": 0}, "neither a content nor a style loss"),
        ({"content_layers": (), "style_layers": ()}, "neither a content nor a style loss"),
        ({"content_layers": (), "style_weight": 0}, "neither a content nor a style loss"),
    ],
)
def test_invalid_values_are_rejected(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        replace(preset("paper"), **change)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("iterations", "expected"),
    [
        (7, (7, 7, 7)),
        ([7], (7, 7, 7)),
        ((9, 4), (9, 9, 4)),
        ((9, 6, 4), (9, 6, 4)),
        ((9, 8, 6, 4), (8, 6, 4)),
    ],
)
def test_iterations_by_level_are_those_of_the_last_levels(
    iterations: int | Sequence[int], expected: tuple[int, ...]
) -> None:
    settings = Settings(iterations=iterations)
    assert settings.level_iterations([(64, 48), (91, 68), (128, 96)]) == expected
    assert settings.level_iterations([(128, 96)]) == expected[-1:]


LARGE_LEVELS = [(512, 300), (724, 424), (1024, 600), (848, 1448), (2048, 1200), (2896, 1696), (4096, 2400)]


@pytest.mark.parametrize(
    ("iterations", "falloff", "expected"),
    [
        (16, 0.5, (16, 16, 16, 8, 8, 8, 8)),
        (100, 0.5, (100, 100, 100, 50, 25, 12, 8)),
        (16, 1, (16,) * 7),
        (3, 0.5, (3,) * 7),
        (0, 0.5, (0,) * 7),
        (16, 0, (16, 16, 16, 8, 8, 8, 8)),
        ((16, 9), 0.5, (16,) * 6 + (9,)),
    ],
)
def test_large_levels_get_fewer_iterations(
    iterations: Any, falloff: float, expected: tuple[int, ...]
) -> None:
    settings = Settings(iterations=iterations, iterations_falloff=falloff)
    assert settings.level_iterations(LARGE_LEVELS) == expected


def test_a_single_large_level_gets_all_iterations() -> None:
    assert Settings(iterations=16).level_iterations(LARGE_LEVELS[-1:]) == (16,)


def test_published_presets_have_as_many_iterations_at_all_levels() -> None:
    for name in ("paper", "crowsonkb", "spst"):
        (number,) = set(preset(name).level_iterations(LARGE_LEVELS))
        assert number == preset(name).iterations


def test_unknown_preset_is_named() -> None:
    with pytest.raises(UserError, match="did you mean paper"):
        preset("papper")


def test_choices_are_those_of_the_types() -> None:
    hints = get_type_hints(Settings)
    for field, choices in CHOICES.items():
        assert choices == (get_args(hints[field]) or (False, True)), field
    literals = {field for field, hint in hints.items() if get_origin(hint) is Literal}
    assert literals == {field for field, choices in CHOICES.items() if choices != (False, True)}
