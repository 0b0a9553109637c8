"""The paper's figures: which panels each of them has. `npstyle.study.drawing` paints them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from npstyle.architecture import CONVOLUTIONS, convolutions_up_to
from npstyle.errors import UserError, check_choice
from npstyle.presets import preset
from npstyle.settings import PAPER_STYLE_LAYERS, Settings
from npstyle.study.reconstruction import reconstruction_settings, texture_settings
from npstyle.vgg import Filters

# Gatys, Ecker, Bethge 2016, figure 1.
CONTENT_LAYERS = ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2")
# alpha / beta, in units where each layer's distance is relative to its target.
RATIOS = (0.001, 0.01, 0.1, 1.0)


class Panel(NamedTuple):
    """One picture of a figure, and how it is made.

    Attributes
    ----------
    caption : str
    settings : Settings or None
        Of the run that paints the panel. None: the panel shows an input picture.
    picture : {"content", "style"} or None
        The input picture that is shown; with settings, the one that the run starts from, if that is
        not `settings.init`.
    """

    caption: str
    settings: Settings | None = None
    picture: Literal["content", "style"] | None = None


Rows = list[list[Panel]]
INPUT_PANELS = [Panel("photograph", picture="content"), Panel("painting", picture="style")]


class AvailableLayers:
    """Which layers the weights have; `notes` says which ones a figure has to do without."""

    def __init__(self, weights: Mapping[str, Filters]) -> None:
        self.weights = weights
        self.notes: list[str] = []

    def has(self, layer: str) -> bool:
        """Whether the weights have all convolutions up to a layer."""
        return all(name in self.weights for name in convolutions_up_to(layer))

    def among(self, layers: Sequence[str]) -> list[str]:
        """Those of some layers that the weights have; a note names the others.

        Raises
        ------
        UserError
            The weights have none of them.
        """
        missing = [layer for layer in layers if not self.has(layer)]
        if len(missing) == len(layers):
            available = ", ".join(name for name in CONVOLUTIONS if name in self.weights) or "nothing"
            raise UserError(
                "weights",
                f"none of {', '.join(layers)} (there is {available})",
                "filters for at least one of them",
                "choose other weights",
            )
        if missing:
            self.notes.append(f"left out: {', '.join(missing)}, which the weights do not have")
        return [layer for layer in layers if layer not in missing]

    def style_sets(self) -> list[tuple[str, ...]]:
        """The paper's nested sets of style layers: the first one, the first two, and so on."""
        layers = self.among(PAPER_STYLE_LAYERS)
        return [tuple(layers[:count]) for count in range(1, len(layers) + 1)]

    def content_layer(self, preferred: str = "conv4_2") -> str:
        """The preferred content layer, or else the deepest one of figure 1 that the weights have."""
        if self.has(preferred):
            return preferred
        available = [layer for layer in CONTENT_LAYERS if self.has(layer)] or self.among([preferred])
        self.notes.append(
            f"content layer {available[-1]} instead of {preferred}, which the weights do not have"
        )
        return available[-1]


def layer_set_caption(layers: Sequence[str]) -> str:
    """A nested set of layers in a caption.

    Examples
    --------
    >>> layer_set_caption(("conv1_1", "conv2_1")), layer_set_caption(("conv1_1", "conv2_1", "conv3_1"))
    ('conv1_1, conv2_1', 'conv1_1 to conv3_1')
    """
    return ", ".join(layers) if len(layers) < 3 else f"{layers[0]} to {layers[-1]}"


def _content_figure(available: AvailableLayers) -> Rows:
    panels = [Panel(layer, reconstruction_settings(layer)) for layer in available.among(CONTENT_LAYERS)]
    return [[Panel("picture", picture="content"), *panels]]


def _style_figure(available: AvailableLayers) -> Rows:
    panels = [Panel(layer_set_caption(layers), texture_settings(layers)) for layers in available.style_sets()]
    return [[Panel("picture", picture="content"), *panels]]


def _style_layers_figure(available: AvailableLayers) -> Rows:
    content_layer = available.content_layer()
    panels = [
        Panel(layer_set_caption(layers), _transfer_settings(content_layer, layers))
        for layers in available.style_sets()
    ]
    return [INPUT_PANELS, panels]


def _ratio_figure(available: AvailableLayers) -> Rows:
    content_layer = available.content_layer()
    rows = [
        [
            Panel(
                f"{layer_set_caption(layers)}; alpha/beta {ratio:g}",
                _transfer_settings(content_layer, layers, ratio),
            )
            for ratio in RATIOS
        ]
        for layers in available.style_sets()
    ]
    return [INPUT_PANELS, *rows]


def _content_layer_figure(available: AvailableLayers) -> Rows:
    style_layers = available.style_sets()[-1]
    content_layers = dict.fromkeys([available.content_layer("conv2_2"), available.content_layer("conv4_2")])
    panels = [
        Panel(f"content layer {layer}", _transfer_settings(layer, style_layers)) for layer in content_layers
    ]
    return [[*INPUT_PANELS, *panels]]


def _starts_figure(available: AvailableLayers) -> Rows:
    settings = _transfer_settings(available.content_layer(), available.style_sets()[-1])
    panels = [
        Panel("from the photograph", settings),
        Panel("from the painting", settings, picture="style"),
        Panel("from noise", replace(settings, init="noise")),
    ]
    return [[*INPUT_PANELS, *panels]]


def _transfer_settings(
    content_layer: str, style_layers: Sequence[str], ratio: float | None = None
) -> Settings:
    """The preset "gram" at one size, with `ratio` as alpha / beta.

    With a ratio the run starts from noise, as in the paper: what is left of the photograph then shows
    alpha, not the start.
    """
    settings = replace(
        preset("gram"), content_layers=(content_layer,), style_layers=tuple(style_layers), min_size=0
    )
    if ratio is None:
        return settings
    return replace(settings, content_weight=ratio, style_weight=1.0, init="noise")


FIGURES: dict[str, Callable[[AvailableLayers], Rows]] = {
    "content": _content_figure,
    "style": _style_figure,
    "layers": _style_layers_figure,
    "ratio": _ratio_figure,
    "content-layer": _content_layer_figure,
    "starts": _starts_figure,
}


def plan(name: str, weights: Mapping[str, Filters], iterations: int = 200) -> tuple[Rows, list[str]]:
    """Plan a figure: its panels row by row, and notes about layers that the weights do not have.

    Parameters
    ----------
    name : {"content", "style", "layers", "ratio", "content-layer", "starts"}
        Reconstructions by content layer or by set of style layers; transfers by set of style layers, by
        set of style layers and alpha/beta, by content layer, or by start.
    weights : mapping of str to filters
        They may end at any layer.
    iterations : int
        Of each panel.

    Returns
    -------
    rows : list of lists of Panel
    notes : list of str

    Raises
    ------
    UserError
        Unknown figure, or weights without any layer that it needs.

    Examples
    --------
    >>> import npstyle
    >>> rows, notes = plan("content", npstyle.load_weights("random", deepest="conv2_2"))
    >>> [panel.caption for panel in rows[0]]
    ['picture', 'conv1_2', 'conv2_2']
    >>> notes
    ['left out: conv3_2, conv4_2, conv5_2, which the weights do not have']
    """
    check_choice("figure", name, FIGURES)
    available = AvailableLayers(weights)
    rows = [[_with_iterations(panel, iterations) for panel in row] for row in FIGURES[name](available)]
    return rows, list(dict.fromkeys(available.notes))


def _with_iterations(panel: Panel, iterations: int) -> Panel:
    if panel.settings is None:
        return panel
    return panel._replace(settings=replace(panel.settings, iterations=iterations))
