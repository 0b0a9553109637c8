"""What is to be minimised and from where: Settings, and the presets by name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass

from npstyle.architecture import POOLING_METHODS, canonical
from npstyle.errors import UserError, one_of

SCALINGS = ("relative", "paper")
STARTS = ("content", "noise", "blend")

PAPER_STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")


def _layer_names(names: str | Iterable[str]) -> tuple[str, ...]:
    split = names.split(",") if isinstance(names, str) else names
    return tuple(dict.fromkeys(canonical(name) for name in split if str(name).strip()))


def _weight(field: str, value: float) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(field, repr(value), "a finite number from 0", "give it as 0.5 or 1e3")
    return weight


@dataclass(frozen=True)
class Settings:
    """The loss, the pooling and the start of a run. Change one with `dataclasses.replace`.

    With F, P the responses (M, C) of one layer to the generated and to the content picture, G, A the Gram
    matrices of the generated and of a style picture, M and M_a their numbers of positions, the loss is

        content_weight . sum over content layers of  c_l . 1/2 sum (F - P)^2
        + style_weight . mean over style layers of   s_l . sum (G / M - A / M_a)^2
        + tv_weight . mean squared difference of neighbouring pixels.

    Parameters
    ----------
    content_layers, style_layers : names
        Either may be empty.
    content_weight, style_weight, tv_weight : float
        From 0.
    scaling : {"relative", "paper"}
        "paper": c_l = 1 and s_l = 1 / (4 C^2), equations 1 and 4.
        "relative": each layer's distance as a share of what it is measured against,
        c_l = 2 / (n sum P^2) for n content layers, s_l = 1 / sum (A / M_a)^2; so the weights mean the
        same in every layer, at every size and for every set of filters.
    pooling : {"average", "max"}
    init : {"content", "noise", "blend"}
        The start: the content picture, noise in its place, or half of each.

    Raises
    ------
    UserError
        Unknown layer or name, a weight below zero or not finite, nothing to minimise.

    Examples
    --------
    >>> from dataclasses import replace
    >>> replace(preset("paper"), style_layers=["relu1_1", "block2_conv1"]).style_layers
    ('conv1_1', 'conv2_1')
    """

    content_layers: tuple[str, ...] = ("conv4_2",)
    style_layers: tuple[str, ...] = PAPER_STYLE_LAYERS
    content_weight: float = 1.0
    style_weight: float = 100.0
    tv_weight: float = 0.0
    scaling: str = "relative"
    pooling: str = "average"
    init: str = "content"

    def __post_init__(self) -> None:
        for field in ("content_layers", "style_layers"):
            object.__setattr__(self, field, _layer_names(getattr(self, field)))
        for field in ("content_weight", "style_weight", "tv_weight"):
            object.__setattr__(self, field, _weight(field, getattr(self, field)))
        for field, names in (("scaling", SCALINGS), ("pooling", POOLING_METHODS), ("init", STARTS)):
            one_of(field, getattr(self, field), names)
        active = (self.content_weight if self.content_layers else 0) + (
            self.style_weight if self.style_layers else 0
        )
        if active == 0:
            raise UserError(
                "settings",
                "neither a content nor a style loss",
                "at least one layer with a weight above 0",
                "give a layer and its weight",
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers the loss looks at: those with a weight above 0."""
        content = self.content_layers if self.content_weight else ()
        style = self.style_layers if self.style_weight else ()
        return tuple(dict.fromkeys(content + style))


PRESETS = {
    # What a run without options gets. How its weights were chosen stands in docs/losses.md.
    "default": Settings(),
    # Gatys, Ecker, Bethge 2016, to the last constant. Meant for their normalised network.
    "paper": Settings(content_weight=1e-3, style_weight=1.0, scaling="paper", init="noise"),
    # For filters that were never trained. Chosen by looking, and by the distances that real filters see:
    # deeper layers add nothing, a little smoothness takes off the grain that no stroke explains.
    "random": Settings(
        content_layers=("conv3_1",),
        style_layers=("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2"),
        style_weight=200.0,
        tv_weight=1e-4,
    ),
}


def preset(name: str) -> Settings:
    """Settings of a published system, or of ours: "default", "paper", "random".

    Raises
    ------
    UserError
        There is no such preset.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(str(name), PRESETS, n=1)
        cure = f"did you mean {near[0]}?" if near else "take one of these"
        raise UserError("preset", repr(name), " or ".join(map(repr, PRESETS)), cure)
    return PRESETS[name]
