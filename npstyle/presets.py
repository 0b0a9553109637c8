"""Recipes by name: those of published systems, exact in every constant, and npstyle's own."""

from __future__ import annotations

import difflib
from typing import Any

from npstyle.errors import UserError
from npstyle.settings import PAPER_STYLE_LAYERS, LayerWeights, Settings, check_settings

# Of the preset "gram"; dropped where other layers are chosen.
GRAM_STYLE_WEIGHTS = LayerWeights((8.0, 8.0, 4.0, 1.0, 0.25), PAPER_STYLE_LAYERS)


def _published(**fields: Any) -> Settings:
    """Settings of another system (docs/presets.md): one size, and nothing that npstyle adds by default."""
    own = {
        "content_layers": ("conv4_2",),
        "style_layers": PAPER_STYLE_LAYERS,
        "style_layer_weights": None,
        "statistics": "gram",
        "tv_weight": 0.0,
        "keep_edges": 0.0,
        "padding": "zero",
        "iterations": 300,
        "iterations_falloff": 1.0,
        "min_size": 0,
    }
    return Settings(**{**own, **fields})


PRESETS = {
    # Used if no preset is named. How it was chosen: docs/recipe.md.
    "default": Settings(),
    # The same with the paper's Gram matrices at its five layers: docs/recipe.md, too.
    "gram": Settings(
        content_layers=("conv4_2",),
        style_layers=PAPER_STYLE_LAYERS,
        style_layer_weights=GRAM_STYLE_WEIGHTS,
        style_weight=45.0,
        statistics="gram",
        keep_edges=0.0,
        iterations=50,
    ),
    # Gatys, Ecker, Bethge 2016; for their normalized network.
    "paper": _published(content_weight=1e-3, style_weight=1.0, scaling="paper", init="noise"),
    # The style transfer example of Keras.
    "keras": _published(
        content_layers=("conv5_2",),
        content_weight=0.025,
        style_weight=1.0,
        tv_weight=1.0,
        scaling="keras",
        tv_form="power-1.25",
        style_as_content=True,
        pooling="max",
    ),
    # github.com/anishathalye/neural-style
    "anishathalye": _published(
        content_layers=("conv4_2", "conv5_2"),
        content_layer_weights=(1.0, 0.0),
        content_weight=5.0,
        style_weight=500.0,
        tv_weight=100.0,
        scaling="mean",
        mixture="losses",
        pooling="max",
        init="noise",
        noise_std=0.256,
        optimizer="adam",
        iterations=1000,
    ),
    # github.com/jcjohnson/neural-style
    "jcjohnson": _published(
        content_weight=5.0,
        style_weight=100.0,
        tv_weight=1e-3,
        normalize_layer_weights=False,
        scaling="mean",
        tv_form="sum-squares",
        pooling="max",
        init="noise",
        noise_std=0.001,
        iterations=1000,
    ),
    # The notebook of the paper's first author, in PyTorch.
    "gatys-pytorch": _published(
        style_weight=1000.0, normalize_layer_weights=False, scaling="mean", pooling="max", iterations=500
    ),
    # The notebook of Udacity's course; its rate is 0.003 for pictures from 0 to 1, divided by about 0.226.
    "udacity": _published(
        style_weight=1e6,
        style_layer_weights=(1.0, 0.75, 0.2, 0.2, 0.2),
        normalize_layer_weights=False,
        scaling="udacity",
        style_as_content=True,
        pooling="max",
        optimizer="adam",
        learning_rate=0.173,
        iterations=2000,
    ),
    # github.com/crowsonkb/style-transfer-pytorch; its pixels are 0..1, and its filters torchvision's.
    "crowsonkb": _published(
        content_weight=0.015,
        style_weight=1.0,
        style_layer_weights=(256.0, 64.0, 16.0, 4.0, 1.0),
        tv_weight=2 / 255**2,
        scaling="mean",
        statistics="wasserstein",
        tv_form="nine-point",
        pooling="max",
        padding="replicate",
        optimizer="adam",
        learning_rate=5.1,
        iterations=500,
        min_size=128,
    ),
    # github.com/bgalerne/scaling_painting_style_transfer
    "spst": _published(
        style_weight=1000.0,
        normalize_layer_weights=False,
        scaling="mean",
        statistics="gram+moments",
        moments_weight=10.0,
        pooling="max",
        iterations=600,
    ),
    # For random filters. Chosen by eye and by the distances that trained filters measure: deeper layers add
    # nothing, and a little total variation removes grain.
    "random": Settings(
        min_size=0,
        iterations=300,
        padding="zero",
        content_layers=("conv3_1",),
        style_layers=("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2"),
        style_weight=60.0,
        statistics="gram",
        tv_weight=1e-4,
        keep_edges=0.0,
    ),
}


def preset(name: str) -> Settings:
    """Settings of a published system or one of npstyle's own, "default" and "random".

    `npstyle presets` lists them.

    Raises
    ------
    UserError
        There is no such preset.
    """
    if not isinstance(name, str) or name not in PRESETS:
        near = difflib.get_close_matches(str(name), PRESETS, n=1)
        cure = f"did you mean {near[0]}?" if near else "take one of these"
        raise UserError("preset", repr(name), " or ".join(map(repr, PRESETS)), cure)
    return PRESETS[name]


def as_settings(settings: Settings | str) -> Settings:
    """Settings as they are, or the preset of this name; UserError for anything else."""
    return preset(settings) if isinstance(settings, str) else check_settings(settings)
