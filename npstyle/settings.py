"""Settings: all that defines a result except pictures and filters, from the loss to the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from npstyle._typing import (
    Color,
    Init,
    Mixture,
    Optimizer,
    Padding,
    Pooling,
    Scaling,
    Statistics,
    TotalVariationForm,
)
from npstyle.architecture import PADDINGS, POOLING_METHODS, canonical, log2_stride
from npstyle.errors import UserError, check_choice, check_integer, check_nonnegative

STARTS: tuple[Init, ...] = get_args(Init)
CHOICES: dict[str, tuple[str | bool, ...]] = {
    "scaling": get_args(Scaling),
    "statistics": get_args(Statistics),
    "tv_form": get_args(TotalVariationForm),
    "mixture": get_args(Mixture),
    "pooling": POOLING_METHODS,
    "padding": PADDINGS,
    "init": STARTS,
    "optimizer": get_args(Optimizer),
    "color": get_args(Color),
    "normalize_layer_weights": (False, True),
    "style_as_content": (False, True),
}
NONNEGATIVE = (
    "style_layer_exponent",
    "content_weight",
    "style_weight",
    "tv_weight",
    "moments_weight",
    "keep_edges",
    "init_noise",
    "noise_std",
    "iterations_falloff",
    "learning_rate",
)
FRACTIONS = ("init_noise", "iterations_falloff")  # of the former, those that are not above 1
INTEGERS = {"maxcor": 1, "min_size": 0}  # and their minimum

LARGE = 1024  # pixels: the longer side of a pyramid level above which `iterations_falloff` counts
MIN_LARGE_ITERATIONS = 8  # that it leaves, if there are as many below: docs/large-pictures.md

EDGE_CELLS = (4, 16)  # pixels: the sides of the cells in which edges are compared

PAPER_STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")


class LayerWeights(tuple[float, ...]):
    """Weights of layers that know their layers, and are dropped where other layers are chosen."""

    names: tuple[str, ...]

    def __new__(cls, weights: Iterable[float], names: Iterable[str] = ()) -> LayerWeights:
        self = super().__new__(cls, weights)
        self.names = tuple(names)
        return self

    def __getnewargs__(self) -> tuple[tuple[float, ...], tuple[str, ...]]:  # for copies and pickles
        return tuple(self), self.names


# How they were chosen: docs/recipe.md.
DEFAULT_STYLE_LAYERS = PAPER_STYLE_LAYERS[:4]
DEFAULT_STYLE_WEIGHTS = LayerWeights((4.0, 4.0, 4.0, 1.0), DEFAULT_STYLE_LAYERS)


@dataclass(frozen=True)
class Settings:
    """A recipe: loss, network, start, optimizer, pyramid and color. Modify one with `dataclasses.replace`.

    With F, P the feature maps (M, C) of one layer for the generated and the content picture, G, A the Gram
    matrices of the generated and of a style picture, M and M_a their numbers of positions, the loss is

        content_weight . sum over content layers of  v_l c_l . 1/2 sum (F - P)^2
        + style_weight . sum over style layers of    w_l s_l . sum (G / M - A / M_a)^2
        + tv_weight . total variation
        + keep_edges . mean over two scales of       e_p . sum (E_p x - E_p c)^2.

    v_l and w_l are the weights of the layers, c_l and s_l the units that a layer's distance is measured in.
    E_p x is the Laplacian of the picture's means over cells of p x p pixels, p = 4 and 16, E_p c the content
    picture's.

    The fields concern, in this order,

    * the loss: `content_layers` to `style_as_content`,
    * the network: `pooling` and `padding`,
    * the start: `init`, `init_noise` and `noise_std`,
    * the optimizer: `optimizer`, `learning_rate`, `maxcor`, `iterations` and `iterations_falloff`,
    * the pyramid of sizes: `min_size`,
    * and `color`.

    Parameters
    ----------
    content_layers, style_layers : str or sequence of str
        Names, or one string with commas; "conv1_1:2" gives a layer its weight, too. Either may be
        empty. Once created, the settings hold them as a tuple of the paper's names.
    content_layer_weights, style_layer_weights : sequence of float, optional
        One for each layer; None for equal weights. The default weights are those of the default style
        layers. Where `dataclasses.replace` changes the layers, their weights become equal.
    style_layer_exponent : float
        The weight of the n-th style layer is multiplied by the (n - 1)-th power of this.
    normalize_layer_weights : bool
        Divide v and w by their sums; otherwise they are used as they are.
    content_weight, style_weight, tv_weight, keep_edges : float
        At least 0.
    scaling : {"relative", "paper", "mean", "keras", "udacity"}
        "relative": each layer's distance is divided by the size of its target, c_l = 2 / sum P^2 and
        s_l = 1 / sum (A / M_a)^2; so a weight means the same in every layer, at every size and for
        every set of filters. Edges likewise: e_p = 1 / sum (E_p c)^2. In all other scalings they are
        compared by means over positions.
        "paper": c_l = 1 and s_l = 1 / (4 C^2), equations 1 and 4.
        "mean": means over all elements, of Gram matrices divided by M C: c_l = 2 / (M C), s_l = 1 / C^4.
        "keras": sums, c_l = 2, and 1 / (36 N^2) . sum (G - A)^2, for N pixels of the generated picture.
        "udacity": c_l = 2 / (M C), and 1 / (M C^3) . sum (G - A)^2.
        Distances of means, standard deviations and Gaussians (`statistics`): r_l = 1 / tr(A / M_a) for
        "relative", otherwise 1 / C, the mean over channels.
    statistics : {"gram", "gram+moments", "wasserstein"}
        What a layer's style is taken for, with mu the mean, sigma the standard deviations and Sigma the
        covariance of the feature vectors, and the index a the style picture's:
        "gram": Gram matrices, as above.
        "gram+moments": besides, moments_weight . w_l r_l (|mu - mu_a|^2 + |sigma - sigma_a|^2).
        "wasserstein": instead, w_l r_l (|mu - mu_a|^2 + tr(Sigma + Sigma_a - 2 (R Sigma R)^(1/2))) with
        R = Sigma_a^(1/2), the Wasserstein distance of Gaussians. To the variances 1e-4 is added, for
        "relative" 1e-4 / (r_l C); and for "relative", in the complement of those axes in which the style has
        more variance than 1e-2 / (r_l C), both count as isotropic (docs/losses.md).
    moments_weight : float
        "gram+moments" only: weight of means and standard deviations beside the Gram matrices.
    tv_form : {"mean-squares", "sum-squares", "power-1.25", "nine-point"}
        With d, e the differences of a pixel to its neighbors below and to the right, in each channel:
        "mean-squares" is mean d^2 + mean e^2, "sum-squares" 1/2 sum (d^2 + e^2) and "power-1.25"
        sum (d^2 + e^2)^1.25, the latter two over the pixels that have both neighbors. "nine-point" has
        diagonal differences, too: see `npstyle.pixel_losses.total_variation`.
    mixture : {"targets", "losses"}
        With several style pictures, either their Gram matrices (and means) are averaged into one target,
        or the loss is the mean of the losses for each of them.
    style_as_content : bool
        Resize style pictures to the content picture's height and width, ignoring their proportions.
    pooling : {"average", "max"}
        See `VGG19`.
    padding : {"zero", "replicate", "wrap"}
        What conv1_1 sees beyond the border: the mean color, or copies of the outermost pixels. "wrap": all
        layers, total variation and edges see the opposite border, so that the result can be laid out in
        tiles without seams; its sides must be multiples of `stride`.
    init : {"content", "noise", "noisy-content"}
        Start: the content picture, noise, or a mixture of the two.
    init_noise : float
        Weight of the noise in "noisy-content", 0 to 1.
    noise_std : float
        Standard deviation of normal noise around the mean color of the network's training pictures;
        0 for the paper's white noise, uniform from 0 to 255.
    optimizer : {"lbfgs", "lbfgs32", "adam"}
        "lbfgs": SciPy's L-BFGS, in float64. "lbfgs32": L-BFGS with vectors in float32, which takes less than
        half the memory and pictures of any size.
    learning_rate : float
        Adam only: about how far a step may move a pixel, in gray levels of 0..255.
    maxcor : int
        L-BFGS only: number of pairs it approximates the Hessian with; 48 bytes per pixel each, or 24 in
        float32.
    iterations : int or sequence of int
        At each pyramid level. A sequence has those of the last levels, from coarse to fine; the levels before
        them take its first number.
    iterations_falloff : float
        A level that is longer than 1024 pixels has this fraction of the iterations of the level before it, 0
        to 1, but not less than 8: what takes most of the time changes least (docs/large-pictures.md). 1: as
        many at all levels. Without effect on a sequence of iterations, and on the first level.
    min_size : int
        Longer side, approximately, of the first level, in pixels; each level is sqrt(2) times as
        large as the one before and starts from its result. 0 for one level only.
    color : {"style", "luma", "match", "luminance"}
        "style": the style's colors. "luma": the content picture's, restored after the run. "match":
        before the run, the style pictures are given mean and covariance of the content picture's colors.
        "luminance": only brightness is painted.

    Raises
    ------
    UserError
        Unknown layer or choice, a weight that is negative or not finite, nothing to minimize.

    Examples
    --------
    >>> from dataclasses import replace
    >>> replace(Settings(), style_layers=["relu1_1", "block2_conv1"]).style_layers
    ('conv1_1', 'conv2_1')
    >>> Settings(style_layers="conv1_1:3,conv2_1:1").effective_style_weights
    {'conv1_1': 0.75, 'conv2_1': 0.25}
    """

    content_layers: Sequence[str] | str = ("conv3_4", "conv4_2")
    style_layers: Sequence[str] | str = DEFAULT_STYLE_LAYERS
    content_layer_weights: Sequence[float] | None = None
    style_layer_weights: Sequence[float] | None = DEFAULT_STYLE_WEIGHTS
    style_layer_exponent: float = 1.0
    normalize_layer_weights: bool = True
    content_weight: float = 1.0
    style_weight: float = 24.0
    tv_weight: float = 0.0
    keep_edges: float = 0.0
    scaling: Scaling = "relative"
    statistics: Statistics = "wasserstein"
    moments_weight: float = 1.0
    tv_form: TotalVariationForm = "mean-squares"
    mixture: Mixture = "targets"
    style_as_content: bool = False

    pooling: Pooling = "average"
    padding: Padding = "replicate"

    init: Init = "content"
    init_noise: float = 0.5
    noise_std: float = 0.0

    optimizer: Optimizer = "lbfgs"
    learning_rate: float = 10.0
    maxcor: int = 10
    iterations: int | Sequence[int] = 16
    iterations_falloff: float = 0.5

    min_size: int = 64

    color: Color = "style"

    def __post_init__(self) -> None:
        for field in ("content_layers", "style_layers"):
            weights_field = field.replace("_layers", "_layer_weights")
            names, weights = parse_layers(field, getattr(self, field), getattr(self, weights_field))
            object.__setattr__(self, field, names)
            object.__setattr__(self, weights_field, weights)
        for field in NONNEGATIVE:
            object.__setattr__(self, field, check_nonnegative(field, getattr(self, field)))
        for field, minimum in INTEGERS.items():
            object.__setattr__(self, field, check_integer(field, getattr(self, field), minimum))
        object.__setattr__(self, "iterations", check_iterations("iterations", self.iterations))
        for field, choices in CHOICES.items():
            check_choice(field, getattr(self, field), choices)
        for field in FRACTIONS:
            if getattr(self, field) > 1:
                cure = "1 is noise alone" if field == "init_noise" else "1 is as many at all levels"
                raise UserError(field, f"{getattr(self, field):g}", "a number from 0 to 1", cure)
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
        """v of each content layer; layers of weight 0 are left out."""
        if not self.content_weight:
            return {}
        weights = self.content_layer_weights or (1.0,) * len(self.content_layers)
        return self._effective(self.content_layers, weights)

    @property
    def effective_style_weights(self) -> dict[str, float]:
        """w of each style layer; layers of weight 0 are left out."""
        if not self.style_weight:
            return {}
        weights = self.style_layer_weights or (1.0,) * len(self.style_layers)
        powers = [weight * self.style_layer_exponent**n for n, weight in enumerate(weights)]
        return self._effective(self.style_layers, powers)

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers of the loss: those with a weight above 0."""
        return tuple(dict.fromkeys([*self.effective_content_weights, *self.effective_style_weights]))

    @property
    def stride(self) -> int:
        """Pixels from one position to the next in the coarsest map that the loss compares."""
        strides = [1 << log2_stride(name) for name in self.layers]
        coarsest: int = max(strides)
        return max(coarsest, *EDGE_CELLS) if self.keep_edges else coarsest

    def level_iterations(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """Iterations at each of the levels, of which these are widths and heights.

        Examples
        --------
        >>> sizes = [(512, 400), (1024, 800), (1448, 1131), (2048, 1600), (2896, 2262)]
        >>> Settings(iterations=16).level_iterations(sizes)
        (16, 16, 8, 8, 8)
        >>> Settings(iterations=(100, 60, 25)).level_iterations(sizes)
        (100, 100, 100, 60, 25)
        """
        if not isinstance(self.iterations, int):
            numbers, levels = tuple(self.iterations), len(sizes)
            return (numbers[0],) * (levels - len(numbers)) + numbers[-levels:]
        falling = [self.iterations]
        for size in sizes[1:]:
            fewer = max(MIN_LARGE_ITERATIONS, round(self.iterations_falloff * falling[-1]))
            falling.append(min(falling[-1], fewer) if max(size) > LARGE else falling[-1])
        return tuple(falling)

    def _effective(self, names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
        total = sum(weights) if self.normalize_layer_weights else 1.0
        return {name: weight / total for name, weight in zip(names, weights, strict=True) if weight}


def parse_layers(
    field: str, layers: str | Iterable[str], weights: Iterable[float] | None
) -> tuple[tuple[str, ...], LayerWeights | None]:
    """Layers by the paper's names, each once, and their weights; in "name:weight" a layer brings its own.

    `LayerWeights` of other layers are dropped.

    Examples
    --------
    >>> parse_layers("style_layers", "relu1_1:3,conv2_1", None)
    (('conv1_1', 'conv2_1'), (3.0, 1.0))
    """
    weights_field = field.replace("_layers", "_layer_weights")
    parts = [str(name) for name in (layers.split(",") if isinstance(layers, str) else layers)]
    pairs = [part.partition(":") for part in parts if part.strip()]
    names = [_canonical(name, field) for name, _, _ in pairs]
    if isinstance(weights, LayerWeights) and weights.names != tuple(names):
        weights = None  # they belong to the layers that were there before
    if any(colon for _, colon, _ in pairs):
        weights = [check_nonnegative(f"{field}: {name}", x if colon else 1) for name, colon, x in pairs]
    if weights is None:
        return tuple(dict.fromkeys(names)), None
    numbers = [check_nonnegative(weights_field, weight) for weight in weights]
    if len(numbers) != len(names):
        raise UserError(
            weights_field, f"{len(numbers)}", f"one for each of {len(names)} layers", "give as many"
        )
    by_name = dict(zip(names, numbers, strict=True))
    return tuple(by_name), LayerWeights(by_name.values(), by_name)


def _canonical(name: str, field: str) -> str:
    try:
        return canonical(name)
    except UserError as error:
        raise UserError(field, error.found, error.expected, error.cure) from None


def check_iterations(name: str, value: Any) -> int | tuple[int, ...]:
    """A number of iterations, or those of the last levels; a sequence of one number is that number."""
    if not isinstance(value, (list, tuple)):
        return check_integer(name, value, 0)
    if not value:
        raise UserError(name, "no number", "one, or one for each of the last levels", "give at least one")
    numbers = tuple(check_integer(name, number, 0) for number in value)
    return numbers if len(numbers) > 1 else numbers[0]


def check_settings(settings: Any) -> Settings:
    """Return the settings, or raise UserError if they are something else, a dict for example."""
    if isinstance(settings, Settings):
        return settings
    found, cure = f"a {type(settings).__name__}", 'give npstyle.preset("default") or npstyle.Settings(...)'
    raise UserError("settings", found, "npstyle.Settings", cure)


def format_field(settings: Settings, field: str) -> str:
    """A field as the command line takes it; layers with their weights, if they have any."""
    value = getattr(settings, field)
    weights = getattr(settings, field.replace("layers", "layer_weights"), None) if "layers" in field else None
    if isinstance(value, tuple) and weights is not None:
        return ",".join(f"{name}:{format_value(weight)}" for name, weight in zip(value, weights, strict=True))
    return format_value(value)


def format_value(value: Any) -> str:
    """A number, a name, yes or no, or several of them, as the command line takes them."""
    if isinstance(value, tuple):
        return ",".join(map(format_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
