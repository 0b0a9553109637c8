"""What is to be minimized, from where and by what: Settings, and the presets by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from npstyle.architecture import PADDINGS, POOLING_METHODS, canonical
from npstyle.errors import UserError, check_choice, check_integer, check_nonnegative

SCALINGS = ("relative", "paper", "mean", "keras", "udacity")
SMOOTHNESS = ("mean", "squares", "keras")
MIXTURES = ("blend", "each")
STARTS = ("content", "noise", "blend")
OPTIMIZERS = ("lbfgs", "adam")
COLORS = ("style", "luma", "match", "luminance")

PAPER_STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")


@dataclass(frozen=True)
class Settings:
    """A recipe: loss, network, start, optimizer. Change one with `dataclasses.replace`.

    With F, P the responses (M, C) of one layer to the generated and to the content picture, G, A the Gram
    matrices of the generated and of a style picture, M and M_a their numbers of positions, the loss is

        content_weight . sum over content layers of  v_l c_l . 1/2 sum (F - P)^2
        + style_weight . sum over style layers of    w_l s_l . sum (G / M - A / M_a)^2
        + tv_weight . how much neighboring pixels differ.

    v_l and w_l say how much a layer counts beside the others, c_l and s_l in what its distance is measured.

    Parameters
    ----------
    content_layers, style_layers : names
        Either may be empty. "conv1_1:2" gives a layer its weight, too.
    content_layer_weights, style_layer_weights : numbers, optional
        One for each layer; 1 for all, if left out.
    style_layer_exponent : float
        The n-th style layer's weight is multiplied by the (n - 1)-th power of this.
    average_layers : bool
        v and w are divided by their sums. If not, they are taken as they are.
    content_weight, style_weight, tv_weight : float
        From 0.
    scaling : {"relative", "paper", "mean", "keras", "udacity"}
        "relative": each layer's distance as a share of what it is measured against, c_l = 2 / sum P^2 and
        s_l = 1 / sum (A / M_a)^2; so the weights mean the same in every layer, at every size and for
        every set of filters.
        "paper": c_l = 1 and s_l = 1 / (4 C^2), equations 1 and 4.
        "mean": means over all elements, of Gram matrices divided by M C: c_l = 2 / (M C), s_l = 1 / C^4.
        "keras": sums, c_l = 2, and 1 / (36 N^2) . sum (G - A)^2, for N pixels of the generated picture.
        "udacity": c_l = 2 / (M C), and 1 / (M C^3) . sum (G - A)^2.
    tv : {"mean", "squares", "keras"}
        With d, e the differences of a pixel to its neighbors below and to the right, in each channel,
        "mean": mean d^2 + mean e^2. "squares": 1/2 sum (d^2 + e^2), "keras": sum (d^2 + e^2)^1.25, both over
        the pixels that have both neighbors.
    mixture : {"blend", "each"}
        With several style pictures: their Gram matrices are blended into one target, or the loss is the
        mean of the losses of each.
    style_as_content : bool
        Style pictures are resized to the content picture's height and width, whatever their proportions.
    pooling : {"average", "max"}
    padding : {"zero", "replicate"}
        What conv1_1 sees beyond the border: the mean color, or the picture's outermost pixels again.
    init : {"content", "noise", "blend"}
        The start: the content picture, noise in its place, or both, the noise with the share `init_noise`.
    init_noise : float
        0 to 1.
    noise : float
        Standard deviation of normal noise around the mean color of the network's training pictures. 0 for
        the paper's white noise: every value from 0 to 255 as likely.
    optimizer : {"lbfgs", "adam"}
    learning_rate : float
        Of Adam: pixel values that a step may change.
    history : int
        Steps that L-BFGS remembers; each takes 48 bytes a pixel.
    iterations : int
        At each scale.
    min_size : int
        Longer side, about, of the first of the scales, each sqrt(2) times the one before; its result
        starts the next. 0 for one scale only.
    color : {"style", "luma", "match", "luminance"}
        "style": colors are the style's. "luma": the content picture's, put back after the run. "match": the
        style picture takes the mean and the covariance of the content picture's colors before the run.
        "luminance": only brightness is painted.

    Raises
    ------
    UserError
        Unknown layer or name, a weight below zero or not finite, nothing to minimize.

    Examples
    --------
    >>> from dataclasses import replace
    >>> replace(preset("paper"), style_layers=["relu1_1", "block2_conv1"]).style_layers
    ('conv1_1', 'conv2_1')
    >>> Settings(style_layers="conv1_1:3,conv2_1:1").effective_style_weights
    {'conv1_1': 0.75, 'conv2_1': 0.25}
    """

    content_layers: tuple[str, ...] = ("conv4_2",)
    style_layers: tuple[str, ...] = PAPER_STYLE_LAYERS
    content_layer_weights: tuple[float, ...] | None = None
    style_layer_weights: tuple[float, ...] | None = None
    style_layer_exponent: float = 1.0
    average_layers: bool = True
    content_weight: float = 1.0
    style_weight: float = 50.0
    tv_weight: float = 0.0
    scaling: str = "relative"
    tv: str = "mean"
    mixture: str = "blend"
    style_as_content: bool = False
    pooling: str = "average"
    padding: str = "replicate"
    init: str = "content"
    init_noise: float = 0.5
    noise: float = 0.0
    optimizer: str = "lbfgs"
    learning_rate: float = 10.0
    history: int = 10
    iterations: int = 50
    min_size: int = 128
    color: str = "style"

    def __post_init__(self) -> None:
        for kind in ("content", "style"):
            names, weights = _layers(
                kind, getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_layer_weights")
            )
            object.__setattr__(self, f"{kind}_layers", names)
            object.__setattr__(self, f"{kind}_layer_weights", weights)
        for field in WEIGHTS:
            object.__setattr__(self, field, check_nonnegative(field, getattr(self, field)))
        for field, least in (("history", 1), ("iterations", 0), ("min_size", 0)):
            object.__setattr__(self, field, check_integer(field, getattr(self, field), least))
        for field, choices in CHOICES.items():
            check_choice(field, getattr(self, field), choices)
        if self.init_noise > 1:
            raise UserError("init_noise", f"{self.init_noise:g}", "a share from 0 to 1", "1 is noise alone")
        if self.learning_rate == 0:
            raise UserError("learning_rate", "0", "a number above 0", "give one such as 10")
        if not self.layers:
            raise UserError(
                "settings",
                "neither a content nor a style loss",
                "at least one layer with a weight above 0",
                "give a layer and its weight",
            )

    @property
    def effective_content_weights(self) -> dict[str, float]:
        """v of each content layer, where anything is above 0."""
        return self._shares(self.content_layers, self.content_layer_weights) if self.content_weight else {}

    @property
    def effective_style_weights(self) -> dict[str, float]:
        """w of each style layer, where anything is above 0."""
        weights = self.style_layer_weights or (1.0,) * len(self.style_layers)
        powers = [weight * self.style_layer_exponent**n for n, weight in enumerate(weights)]
        return self._shares(self.style_layers, powers) if self.style_weight else {}

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers the loss looks at: those with a weight above 0."""
        return tuple(dict.fromkeys([*self.effective_content_weights, *self.effective_style_weights]))

    def _shares(self, names: Iterable[str], weights: Iterable[float] | None) -> dict[str, float]:
        names = list(names)
        weights = [1.0] * len(names) if weights is None else list(weights)
        total = sum(weights) if self.average_layers else 1.0
        return {name: weight / total for name, weight in zip(names, weights, strict=True) if weight}


WEIGHTS = (
    "style_layer_exponent",
    "content_weight",
    "style_weight",
    "tv_weight",
    "init_noise",
    "noise",
    "learning_rate",
)
CHOICES: dict[str, tuple[str | bool, ...]] = {
    "scaling": SCALINGS,
    "tv": SMOOTHNESS,
    "mixture": MIXTURES,
    "pooling": POOLING_METHODS,
    "padding": PADDINGS,
    "init": STARTS,
    "optimizer": OPTIMIZERS,
    "color": COLORS,
    "average_layers": (False, True),
    "style_as_content": (False, True),
}


def _layers(
    kind: str, names: str | Iterable[str], weights: Iterable[float] | None
) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Layers by the paper's names, each once, and their weights; "name:weight" gives both."""
    split = [
        str(name) for name in (names.split(",") if isinstance(names, str) else names) if str(name).strip()
    ]
    given = (
        None
        if weights is None
        else [check_nonnegative(f"{kind}_layer_weights", weight) for weight in weights]
    )
    if any(":" in name for name in split):
        pairs = [name.split(":", 1) if ":" in name else [name, "1"] for name in split]
        split = [name for name, _ in pairs]
        given = [check_nonnegative(f"{kind}_layers: {name}", weight) for name, weight in pairs]
    if given is not None and len(given) != len(split):
        raise UserError(
            f"{kind}_layer_weights", f"{len(given)}", f"one for each of {len(split)} layers", "give as many"
        )
    found = dict(zip([canonical(name) for name in split], given or [1.0] * len(split), strict=True))
    return tuple(found), tuple(found.values()) if given is not None else None


def _published(**fields: Any) -> Settings:
    """A recipe of another system, to the last constant (docs/presets.md): one size, nothing of ours."""
    return Settings(**{"min_size": 0, "iterations": 300, "padding": "zero", "tv_weight": 0.0, **fields})


PRESETS = {
    # What a run without options gets. How it was chosen stands in docs/recipe.md.
    "default": Settings(),
    # Gatys, Ecker, Bethge 2016. Meant for their normalized network.
    "paper": _published(content_weight=1e-3, style_weight=1.0, scaling="paper", init="noise"),
    # The style transfer example of Keras.
    "keras": _published(
        content_layers=("conv5_2",),
        content_weight=0.025,
        style_weight=1.0,
        tv_weight=1.0,
        scaling="keras",
        tv="keras",
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
        mixture="each",
        pooling="max",
        init="noise",
        noise=0.256,
        optimizer="adam",
        iterations=1000,
    ),
    # github.com/jcjohnson/neural-style
    "jcjohnson": _published(
        content_weight=5.0,
        style_weight=100.0,
        tv_weight=1e-3,
        average_layers=False,
        scaling="mean",
        tv="squares",
        pooling="max",
        init="noise",
        noise=0.001,
        iterations=1000,
    ),
    # The notebook of the paper's first author, in PyTorch.
    "gatys-pytorch": _published(
        style_weight=1000.0, average_layers=False, scaling="mean", pooling="max", iterations=500
    ),
    # The notebook of Udacity's course; its rate is 0.003 of a picture from 0 to 1 divided by about 0.226.
    "udacity": _published(
        style_weight=1e6,
        style_layer_weights=(1.0, 0.75, 0.2, 0.2, 0.2),
        average_layers=False,
        scaling="udacity",
        style_as_content=True,
        pooling="max",
        optimizer="adam",
        learning_rate=0.173,
        iterations=2000,
    ),
    # For filters that were never trained. Chosen by looking, and by the distances that real filters see:
    # deeper layers add nothing, a little smoothness takes off the grain that no stroke explains.
    "random": Settings(
        min_size=0,
        iterations=300,
        padding="zero",
        content_layers=("conv3_1",),
        style_layers=("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2"),
        style_weight=200.0,
        tv_weight=1e-4,
    ),
}


def preset(name: str) -> Settings:
    """Settings of a published system, or of ours: "default", "random"; `npstyle presets` lists them.

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
