"""One level of the pyramid: pictures and masks at its size, and the picture it starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle import images
from npstyle._runtime.chunks import chunks
from npstyle.divided import DividedObjective, Workers
from npstyle.images.color import gray, match_color_statistics, match_luma_statistics
from npstyle.layers import CaffeInput, TorchvisionInput
from npstyle.objective import Objective
from npstyle.partial import has_sections
from npstyle.run.finish import Finish, RestrictedObjective, mixed, resized_mask
from npstyle.run.inputs import Request
from npstyle.settings import Settings
from npstyle.vgg import VGG19

Array = NDArray[Any]

# Mean color, RGB from 0 to 255, of the pictures the network was trained on, as its preprocessing has it.
MEAN_COLORS = {
    "caffe": np.array(CaffeInput.MEAN_BGR[::-1]),
    "torchvision": 255 * np.array(TorchvisionInput.MEAN),
}


class Level:
    """A request at one size: what the network is shown there.

    Attributes
    ----------
    content : (height, width, 3) array
        Gray where only brightness is painted.
    styles : list of (h, w, 3) arrays
        In the content's colors where the settings ask for that.
    content_masks, style_masks : lists of arrays
    keep : (height, width) array or None
    finish : Finish
        Makes the shown picture from the network's.
    """

    def __init__(self, request: Request, width: int, height: int) -> None:
        self.request = request
        self.size = width, height
        self.gray = request.settings.color == "luminance"
        sizes = request.style_sizes(width, height)
        self.content = images.resize(request.content, width, height)
        self.styles = [images.resize(style, *size) for style, size in zip(request.styles, sizes, strict=True)]
        if request.settings.color == "match":
            self.styles = [match_color_statistics(style, self.content) for style in self.styles]
        if self.gray:
            self.content = gray(self.content)
            self.styles = [match_luma_statistics(gray(style), self.content) for style in self.styles]
        # All masks are parts of the one style picture, or each of its own.
        mask_sizes = sizes if len(sizes) > 1 else sizes * len(request.style_masks)
        self.content_masks = [resized_mask(mask, width, height) for mask in request.content_masks]
        self.style_masks = [
            resized_mask(mask, *size) for mask, size in zip(request.style_masks, mask_sizes, strict=False)
        ]
        self.keep = None if request.keep is None else resized_mask(request.keep, width, height)
        self.finish = Finish(request, width, height)

    def objective(self, network: VGG19, plan: int = 0, workers: Workers | None = None) -> RestrictedObjective:
        """What the optimizer minimizes at this level; for `plan` see `Objective`.

        Workers compute it if the picture has several sections of rows.
        """
        pictures = self.content, self.styles, self.request.settings
        more = self.request.blend, self.content_masks, self.style_masks
        if workers is not None and has_sections(self.size[1]):
            objective: Objective = DividedObjective(network, *pictures, workers, *more)
        else:
            objective = Objective(network, *pictures, *more, plan)
        return RestrictedObjective(objective, self.gray, self.keep)

    def start(self, previous: Array | None, preprocessing: str) -> Array:
        """The picture that the level starts from: the previous level's, or the request's start."""
        if previous is None:
            start = self._first_start(preprocessing)
        else:
            start = resampled(previous, *self.size, self.request.settings)
        return start if self.keep is None else mixed(self.keep, self.content, start)

    def _first_start(self, preprocessing: str) -> Array:
        request = self.request
        if request.init is not None:
            start = images.resize(request.init, *self.size).astype(_dtype(request.settings))
        else:
            start = starting_picture(self.content, request.settings, request.seed, preprocessing)
        return gray(start) if self.gray else start


def resampled(pixels: Array, width: int, height: int, settings: Settings) -> Array:
    """A painted picture at another size: beyond its border is what the network sees there, if it wraps."""
    return (images.resize_wrapped if settings.padding == "wrap" else images.resize)(pixels, width, height)


def starting_picture(content: ArrayLike, settings: Settings, seed: int, preprocessing: str) -> Array:
    """The picture a run starts from, (H, W, 3) in the optimizer's dtype: see `Settings.init`.

    Normal noise has the mean color that the network's `preprocessing` subtracts.
    """
    picture = np.asarray(content)
    if settings.init == "content":
        return picture.astype(_dtype(settings))
    rng = np.random.default_rng(seed)
    weight = 1.0 if settings.init == "noise" else settings.init_noise
    start = np.empty(picture.shape, _dtype(settings))
    for first, last in chunks(picture):
        rows = picture[first:last].astype(np.float64)
        if settings.noise_std:
            noise = MEAN_COLORS[preprocessing] + settings.noise_std * rng.standard_normal(rows.shape)
        else:
            noise = rng.uniform(0, 255, rows.shape)
        start[first:last] = noise if weight == 1 else (1 - weight) * rows + weight * noise
    return start


def _dtype(settings: Settings) -> type[np.floating[Any]]:
    """Of the optimizer's vectors: what it takes in float32 anyway need not be there in float64."""
    return np.float64 if settings.optimizer == "lbfgs" else np.float32
