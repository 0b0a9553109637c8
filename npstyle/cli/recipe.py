"""The recipe on the command line: an option for each field of Settings, over a preset."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any, NamedTuple

from npstyle.cli.arguments import fraction, integer, iterations, nonnegative
from npstyle.errors import UserError
from npstyle.presets import preset
from npstyle.settings import CHOICES, STARTS, Settings, format_value


class Option(NamedTuple):
    """How a field is given: its argparse type, its metavar and what it means. A choice has no metavar."""

    type: Any
    metavar: str | None
    help: str


# By their names on the command line. All but content-layer-balance change the field of Settings of that name.
RECIPE: dict[str, Option] = {
    "iterations": Option(
        iterations,
        "N,N",
        "iterations at each pyramid level, or at the last levels: 100,50,25 does 25 at the full size",
    ),
    "iterations-falloff": Option(
        fraction,
        "X",
        "a level above 1024 pixels does X times as many as the one before, but at least 8; 1: as many",
    ),
    "min-size": Option(
        integer(0),
        "N",
        "longer side of the first pyramid level, which doubles every two levels; 0: one level",
    ),
    "content-weight": Option(nonnegative, "X", "weight of the content loss"),
    "style-weight": Option(nonnegative, "X", "weight of the style loss"),
    "tv-weight": Option(nonnegative, "X", "weight of the total variation, which makes the picture smoother"),
    "keep-edges": Option(
        nonnegative, "WEIGHT", "weight of the photograph's edges, which keeps faces and lines; try 0.2"
    ),
    "content-layers": Option(
        str, "A,B", "layers of the content loss: conv4_2, or with weights conv4_2:2,conv5_2:1"
    ),
    "style-layers": Option(str, "A,B", "layers of the style loss, given in the same way"),
    "content-layer-balance": Option(
        fraction,
        "X",
        "instead of --content-layers: fraction of the content loss on conv4_2; the rest is on conv5_2",
    ),
    "style-layer-exponent": Option(nonnegative, "X", "multiply the n-th style layer's weight by X^(n-1)"),
    "normalize-layer-weights": Option(bool, None, "divide the layers' weights by their sum"),
    "scaling": Option(str, None, "units in which a layer's distance is measured"),
    "statistics": Option(
        str, None, "what a layer's style is taken for: Gram matrix, also means, or mean and covariance"
    ),
    "moments-weight": Option(
        nonnegative,
        "X",
        "weight of means and standard deviations in gram+moments",
    ),
    "tv-form": Option(str, None, "formula of the total variation"),
    "mixture": Option(
        str, None, "with several styles, average their statistics (targets) or their losses (losses)"
    ),
    "style-as-content": Option(bool, None, "stretch the styles to the size of the photograph"),
    "pooling": Option(str, None, "pooling layers of the network"),
    "padding": Option(str, None, "what the network sees beyond the border of the picture"),
    "init": Option(str, "START", "content, noise, noisy-content or a picture file"),
    "init-noise": Option(fraction, "X", "fraction of noise in noisy-content"),
    "noise-std": Option(
        nonnegative, "X", "standard deviation of normal noise around the mean color; 0: uniform noise"
    ),
    "optimizer": Option(
        str, None, "method that minimizes the loss; lbfgs32 takes less than half of lbfgs's memory"
    ),
    "learning-rate": Option(nonnegative, "X", "learning rate of Adam"),
    "maxcor": Option(integer(1), "N", "pairs of steps and gradients that L-BFGS keeps"),
    "color": Option(
        str,
        None,
        "the style's colors; the photograph's, by luma after the run or by a match before it; "
        "or luminance only",
    ),
}


PARAMETERS = ("blend", "style_scale", "preprocessing", "resume")
FILM = ("method", "flow", "temporal_weight", "feature_weight", "frame_iterations", "long_term", "backend")
# The options of the library's parameters; those that name files are missing, as errors name the file.
OPTIONS = {
    **{option.replace("-", "_"): f"--{option}" for option in RECIPE},
    **{name: f"--{name.replace('_', '-')}" for name in (*PARAMETERS, *FILM)},
    "keep": "--keep-mask",
    "masks": "--content-mask, --style-mask",
}
# What an option is effective with: another option and its values.
EFFECTIVE_WITH = {
    "learning-rate": ("optimizer", ("adam",)),
    "maxcor": ("optimizer", ("lbfgs", "lbfgs32")),
    "moments-weight": ("statistics", ("gram+moments",)),
    "init-noise": ("init", ("noisy-content",)),
    "noise-std": ("init", ("noise", "noisy-content")),
}


def field_of(option: str) -> str:
    """The field of Settings, and the attribute of the parsed options, that belongs to an option."""
    return option.replace("-", "_")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add an option for each entry of RECIPE; None where it is not given."""
    group = parser.add_argument_group("the recipe, instead of the preset's")
    for option, (kind, metavar, text) in RECIPE.items():
        field = field_of(option)
        if hasattr(Settings, field):
            text = f"{text} ({format_value(getattr(Settings(), field))})"
        if kind is bool:
            group.add_argument(f"--{option}", action=argparse.BooleanOptionalAction, help=text)
        elif metavar is None:
            group.add_argument(f"--{option}", choices=CHOICES[field], help=text)
        else:
            group.add_argument(f"--{option}", type=kind, metavar=metavar, help=text)


def settings_from(options: argparse.Namespace, random: bool = False) -> Settings:
    """Settings of the preset that --preset names, changed by the options of the recipe.

    Without --preset it is the one for random filters where --weights asks for them, or where they are what
    was found (`random`).

    Raises
    ------
    UserError
        The options contradict each other, or name a layer that VGG19 does not have.
    """
    changes = {field_of(option): getattr(options, field_of(option)) for option in RECIPE}
    changes = {field: value for field, value in changes.items() if value is not None}
    for kind in ("content", "style"):
        if f"{kind}_layers" in changes:  # the preset's weights belong to the preset's layers
            changes[f"{kind}_layer_weights"] = None
    balance = changes.pop("content_layer_balance", None)
    if balance is not None and "content_layers" in changes:
        found, cure = "--content-layers, too", "conv4_2:X,conv5_2:Y says the same"
        raise UserError("content_layer_balance", found, "one of the two", cure)
    if balance is not None:
        changes["content_layers"] = ("conv4_2", "conv5_2")
        changes["content_layer_weights"] = (balance, 1 - balance)
    if changes.get("init") not in (None, *STARTS):
        del changes["init"]  # a picture file, which the run is given as such
    default = "random" if random or options.weights == "random" else "default"
    return replace(preset(options.preset or default), **changes)


def by_option(error: UserError) -> UserError:
    """An error about a parameter of the library, with the option that gives it as its name."""
    parameter, colon, detail = error.name.partition(":")
    option = OPTIONS.get(parameter)
    if option is None:
        return error
    return UserError(f"{option}{colon}{detail}", error.found, error.expected, error.cure)


def without_effect(options: argparse.Namespace, settings: Settings) -> list[str]:
    """A line for each option that the other settings leave without effect, though it changes the preset."""
    default = preset(options.preset or "default")
    lines = []
    for option, (other, choices) in EFFECTIVE_WITH.items():
        value, actual = getattr(options, field_of(option)), getattr(settings, other)
        if actual not in choices and value not in (None, getattr(default, field_of(option))):
            lines.append(f"--{option}: no effect with --{other} {actual}, only with {' or '.join(choices)}")
    return lines
