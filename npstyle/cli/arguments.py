"""The options of the main job, and how they change a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from npstyle._version import __version__
from npstyle.architecture import CONVOLUTION_METHODS
from npstyle.cli.terminal import Parser
from npstyle.errors import UserError
from npstyle.presets import PRESETS, preset
from npstyle.settings import CHOICES, STARTS, Settings


def _whole(least: int) -> Callable[[str], int]:
    def check_integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number from {least}")
        return value

    return check_integer


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected numbers such as 2,1") from None


# Options that change a field of the same name in Settings: its type, and what to call it; None for a choice.
RECIPE: dict[str, tuple[Any, str | None, str]] = {
    "iterations": (_whole(0), "N", "steps at each size"),
    "min-size": (_whole(0), "N", "longer side at which to begin, doubling in two steps; 0 for one size only"),
    "content-weight": (float, "X", "how much the drawing counts"),
    "style-weight": (float, "X", "how much the manner counts"),
    "tv-weight": (float, "X", "how much smoothness counts"),
    "content-layers": (str, "A,B", "as conv4_2 or conv4_2:2,conv5_2:1 with weights"),
    "style-layers": (str, "A,B", "likewise"),
    "content-layer-balance": (
        float,
        "X",
        "the share of conv4_2, the rest of conv5_2, in place of --content-layers",
    ),
    "style-layer-exponent": (float, "X", "the n-th style layer counts X^(n-1) times as much"),
    "normalize-layer-weights": (bool, None, "divide the layers' weights by their sum"),
    "scaling": (str, None, "in what a layer's distance is measured"),
    "tv-form": (str, None, "the formula of smoothness"),
    "mixture": (str, None, "of several styles: one mean target, or the mean of the losses of each"),
    "style-as-content": (bool, None, "stretch styles to the size of the photograph"),
    "pooling": (str, None, "of the network"),
    "padding": (str, None, "beyond the border of the picture"),
    "init": (str, "START", "content, noise, noisy-content or a picture file"),
    "init-noise": (float, "X", "fraction of noise in noisy-content"),
    "noise-std": (float, "X", "deviation of normal noise around the mean color; 0 for uniform noise"),
    "optimizer": (str, None, "what moves the pixels"),
    "learning-rate": (float, "X", "of Adam"),
    "maxcor": (_whole(1), "N", "steps that L-BFGS remembers"),
    "color": (
        str,
        None,
        "the style's colors; the photograph's by luma afterwards, by a match beforehand, or luminance only",
    ),
}

EPILOG = """\
examples:
  npstyle photo.jpg painting.jpg                     photo-painting.png, at most 512 pixels wide or high
  npstyle photo.jpg painting.jpg -o out.jpg --size 800 --iterations 100
  npstyle photo.jpg painting.jpg --style-weight 1000 more of the style
  npstyle photo.jpg painting.jpg --preset paper      the formula of the paper, starting from noise
  npstyle photo.jpg painting.jpg --color match       in the colors of the photograph

other commands, each with --help:
  presets, info, show, weights        recipes by name; this installation; how a picture was made; filters
  reconstruct, texture, figure,       what layers and Gram matrices hold, in pictures
  inspect, gradcheck                  and whether every derivative is right
"""


def painting_parser() -> argparse.ArgumentParser:
    """Options of the main job."""
    parser = Parser(
        prog="npstyle",
        description="Paint a photograph in the manner of a painting (neural style transfer).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("content", metavar="CONTENT", type=Path, help="the photograph")
    add("style", metavar="STYLE", type=Path, nargs="+", help="the painting; several are mixed")
    add(
        "-o", "--output", type=Path, metavar="OUT", help="picture to write (CONTENT-STYLE.png in this folder)"
    )
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add(
        "--size",
        type=_whole(16),
        default=512,
        metavar="N",
        help="longer side in pixels, never enlarging (512)",
    )
    add("--preset", choices=list(PRESETS), help="a recipe by name, see npstyle presets; options change it")
    add("--seed", type=_whole(0), default=0, help="of noise and random filters (0)", metavar="N")
    add("--weights", default="auto", metavar="W", help="auto, imagenet, random or a file (auto)")
    add("--preprocessing", choices=("caffe", "torchvision"), help="what a weights file was trained on")
    methods = CONVOLUTION_METHODS
    add("--convolution", choices=methods, default="auto", help="how convolutions are computed (auto)")
    add("--threads", type=_whole(1), help="(every core this process may use)", metavar="N")
    add("--force", action="store_true", help="go on where the memory seems too small")
    add("--quiet", action="store_true", help="say nothing but warnings and errors")
    long = parser.add_argument_group("long runs").add_argument
    long("--save-every", type=_whole(1), metavar="N", help="write a picture after every N iterations")
    long(
        "--checkpoint", type=Path, metavar="FILE", help="state of the run, each minute (in the user's cache)"
    )
    long("--no-checkpoint", action="store_true", help="write none")
    long(
        "--resume", nargs="?", const=True, metavar="FILE", help="go on from FILE, or where this run was ended"
    )
    add("--depth", type=int, choices=(8, 16), default=8, help="bits of a channel; 16 for PNG and TIFF (8)")
    add("--alpha", action="store_true", help="keep the photograph's transparency")
    add("--version", action="version", version=f"npstyle {__version__}")

    add = parser.add_argument_group("several styles, and regions").add_argument
    add("--blend", type=_numbers, metavar="X,X", help="how much each style counts (evenly)")
    add("--style-scale", type=float, default=1.0, metavar="X", help="size of the styles beside --size (1)")
    for option, meaning in (
        ("content", "white where the n-th style mask applies; repeat for more regions"),
        ("style", "white in the part of the style picture that is for that region"),
    ):
        add(f"--{option}-mask", action="append", default=[], type=Path, metavar="MASK", help=meaning)
    add("--keep-mask", type=Path, metavar="MASK", help="white where the photograph is left as it is")

    group = parser.add_argument_group("the recipe, instead of the preset's")
    for option, (kind, metavar, meaning) in RECIPE.items():
        field = option.replace("-", "_")
        text = f"{meaning} ({_presets_have(field)})" if hasattr(Settings, field) else meaning
        if kind is bool:
            group.add_argument(f"--{option}", action=argparse.BooleanOptionalAction, help=text)
        elif metavar is None:
            group.add_argument(f"--{option}", choices=CHOICES[field], help=text)
        else:
            group.add_argument(f"--{option}", type=kind, metavar=metavar, help=text)
    return parser


def _presets_have(field: str) -> str:
    """What a field is by default."""
    return _text(getattr(Settings(), field))


def _text(value: Any) -> str:
    """A field of Settings as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def settings_from(options: argparse.Namespace, otherwise: str = "default") -> Settings:
    """The preset named, or else the one given, with the options of the command line over it."""
    given = {option.replace("-", "_"): getattr(options, option.replace("-", "_")) for option in RECIPE}
    changes = {field: value for field, value in given.items() if value is not None}
    for kind in ("content", "style"):  # layers without weights of their own do not keep the preset's
        if f"{kind}_layers" in changes:
            changes[f"{kind}_layer_weights"] = None
    share = changes.pop("content_layer_balance", None)
    if share is not None:
        if not 0 <= share <= 1:
            raise UserError(
                "content_layer_balance", f"{share:g}", "a share from 0 to 1", "1 is conv4_2 alone"
            )
        changes["content_layers"] = ("conv4_2", "conv5_2")
        changes["content_layer_weights"] = (share, 1 - share)
    if changes.get("init") not in (None, *STARTS):
        del changes["init"]  # a file
    return replace(preset(options.preset or otherwise), **changes)


def shown(settings: Settings, field: str) -> str:
    """A field as the command line takes it, layers with their weights."""
    value = getattr(settings, field)
    weights = getattr(settings, field.replace("layers", "layer_weights"), None) if "layers" in field else None
    if isinstance(value, tuple) and weights is not None:
        return ",".join(f"{name}:{_text(weight)}" for name, weight in zip(value, weights, strict=True))
    return _text(value)
