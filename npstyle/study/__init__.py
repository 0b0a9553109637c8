"""For study: reconstructions, the paper's figures, what layers and losses see, gradient checks.

Everything here observes the network and the loss from outside; no code that paints depends on it.

| module | |
|---|---|
| reconstruction | pictures from content layers alone, textures from style layers alone |
| figures, drawing | the paper's figures: which panels they have, and painting them |
| sheet | pictures with captions on one sheet |
| feature_maps, heatmap, loss_terms, receptive | one aspect of a layer or of the loss each |
| inspection | all of these for one picture |
| judging | how much style a result lacks, and how much of the drawing it lost |
| checks, mistakes | gradient checks of all layers and losses, and mistakes that they find |
"""

from npstyle.study.drawing import FigureResult, blank_figure, draw, initialize_once
from npstyle.study.feature_maps import feature_map_tiles, strongest_channels, white_level
from npstyle.study.figures import FIGURES, AvailableLayers, Panel, plan
from npstyle.study.heatmap import gram_map, heat, mean_gram, style_distance
from npstyle.study.inspection import Inspection, inspect, picture_names
from npstyle.study.judging import Judge, Judgment, judge
from npstyle.study.loss_terms import Term, gradient_picture, terms
from npstyle.study.receptive import ReceptiveField, field_tile, receptive_field
from npstyle.study.reconstruction import (
    reconstruct,
    reconstruction_settings,
    texture,
    texture_settings,
    tile_size,
)
from npstyle.study.sheet import GAP, Tile, compose, in_rows

__all__ = [
    "FIGURES",
    "GAP",
    "AvailableLayers",
    "FigureResult",
    "Inspection",
    "Judge",
    "Judgment",
    "Panel",
    "ReceptiveField",
    "Term",
    "Tile",
    "blank_figure",
    "compose",
    "draw",
    "feature_map_tiles",
    "field_tile",
    "gradient_picture",
    "gram_map",
    "heat",
    "in_rows",
    "initialize_once",
    "inspect",
    "judge",
    "mean_gram",
    "picture_names",
    "plan",
    "receptive_field",
    "reconstruct",
    "reconstruction_settings",
    "strongest_channels",
    "style_distance",
    "terms",
    "texture",
    "texture_settings",
    "tile_size",
    "white_level",
]
