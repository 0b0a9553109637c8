"""What is to be minimized, from where and by what: Settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from npstyle.architecture import PADDINGS, POOLING_METHODS, canonical
from npstyle.errors import UserError, check_choice, check_integer, check_nonnegative

SCALINGS = ("relative", "paper", "mean", "keras", "udacity")
TV_FORMS = ("mean-squares", "sum-squares", "power-1.25")
MIXTURES = ("targets", "losses")
STARTS = ("content", "noise", "noisy-content")
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
    normalize_layer_weights : bool
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
    tv_form : {"mean-squares", "sum-squares", "power-1.25"}
        With d, e the differences of a pixel to its neighbors below and to the right, in each channel,
        "mean-squares": mean d^2 + mean e^2. "sum-squares": 1/2 sum (d^2 + e^2), "power-1.25":
        sum (d^2 + e^2)^1.25, both over
        the pixels that have both neighbors.
    mixture : {"targets", "losses"}
        With several style pictures: their Gram matrices are blended into one target, or the loss is the
        mean of the losses of each.
    style_as_content : bool
        Style pictures are resized to the content picture's height and width, whatever their proportions.
    pooling : {"average", "max"}
    padding : {"zero", "replicate"}
        What conv1_1 sees beyond the border: the mean color, or the picture's outermost pixels again.
    init : {"content", "noise", "noisy-content"}
        The start: the content picture, noise in its place, or both, the noise with the share `init_noise`.
    init_noise : float
        0 to 1.
    noise_std : float
        Standard deviation of normal noise around the mean color of the network's training pictures. 0 for
        the paper's white noise: every value from 0 to 255 as likely.
    optimizer : {"lbfgs", "adam"}
    learning_rate : float
        Of Adam: pixel values that a step may change.
    maxcor : int
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
    >>> replace(Settings(), style_layers=["relu1_1", "block2_conv1"]).style_layers
    ('conv1_1', 'conv2_1')
    >>> Settings(style_layers="conv1_1:3,conv2_1:1").effective_style_weights
    {'conv1_1': 0.75, 'conv2_1': 0.25}
    """

    content_layers: tuple[str, ...] = ("conv4_2",)
    style_layers: tuple[str, ...] = PAPER_STYLE_LAYERS
    content_layer_weights: tuple[float, ...] | None = None
    style_layer_weights: tuple[float, ...] | None = None
    style_layer_exponent: float = 1.0
    normalize_layer_weights: bool = True
    content_weight: float = 1.0
    style_weight: float = 50.0
    tv_weight: float = 0.0
    scaling: str = "relative"
    tv_form: str = "mean-squares"
    mixture: str = "targets"
    style_as_content: bool = False
    pooling: str = "average"
    padding: str = "replicate"
    init: str = "content"
    init_noise: float = 0.5
    noise_std: float = 0.0
    optimizer: str = "lbfgs"
    learning_rate: float = 10.0
    maxcor: int = 10
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
        for field, least in (("maxcor", 1), ("iterations", 0), ("min_size", 0)):
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
        total = sum(weights) if self.normalize_layer_weights else 1.0
        return {name: weight / total for name, weight in zip(names, weights, strict=True) if weight}


WEIGHTS = (
    "style_layer_exponent",
    "content_weight",
    "style_weight",
    "tv_weight",
    "init_noise",
    "noise_std",
    "learning_rate",
)
CHOICES: dict[str, tuple[str | bool, ...]] = {
    "scaling": SCALINGS,
    "tv_form": TV_FORMS,
    "mixture": MIXTURES,
    "pooling": POOLING_METHODS,
    "padding": PADDINGS,
    "init": STARTS,
    "optimizer": OPTIMIZERS,
    "color": COLORS,
    "normalize_layer_weights": (False, True),
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
