"""The function that is minimised: targets once, then pixels -> (loss, gradient)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle.errors import UserError
from npstyle.losses import content_loss, gram_matrix, style_loss, sum_of_squares, total_variation
from npstyle.settings import Settings
from npstyle.vgg import VGG19, Tape

Array = NDArray[np.floating]


class Target(NamedTuple):
    """What a layer is compared with, and the factor of that comparison in the loss."""

    value: NDArray[Any]  # P (h, w, C), or A / M_a (C, C) in double
    scale: float


class Objective:
    """Loss of a picture, and its gradient with respect to the pixels.

    Parameters
    ----------
    network : VGG19
    content : (H, W, 3) array
        RGB, 0..255. The pictures the objective is called with have its size.
    styles : sequence of (h, w, 3) arrays
        Of any sizes. With several, the target of a layer is the mean of their A / M_a.
    settings : Settings
        The formula stands there. `settings.pooling` and `settings.init` are the business of whoever makes
        the network and the start.

    Attributes
    ----------
    terms : dict of str to float
        The weighted parts of the last loss: "content/conv4_2", "style/conv1_1", "total_variation", ...

    Raises
    ------
    UserError
        No style picture, a picture of the wrong shape or too small, filters missing.

    Examples
    --------
    >>> import npstyle
    >>> rng = np.random.default_rng(0)
    >>> photo, painting = rng.uniform(0, 255, (32, 48, 3)), rng.uniform(0, 255, (40, 40, 3))
    >>> network = npstyle.VGG19(npstyle.load_weights("random", seed=0))
    >>> objective = npstyle.Objective(network, photo, [painting], npstyle.preset("paper"))
    >>> loss, gradient = objective(photo)
    >>> gradient.shape
    (32, 48, 3)
    >>> objective.terms["content/conv4_2"]
    0.0
    """

    def __init__(
        self, network: VGG19, content: ArrayLike, styles: Sequence[ArrayLike], settings: Settings
    ) -> None:
        self.network = network
        self.settings = settings
        # Copies: float64 targets are made when first needed, and the caller may have moved on by then.
        self.content = np.array(content)
        self.styles = [np.array(style) for style in styles]
        self.terms: dict[str, float] = {}
        if settings.style_layers and not self.styles:
            raise UserError("styles", "none", "at least one picture", "give one, or no style layers")
        # By dtype: a float64 gradient needs float64 targets.
        self._targets: dict[np.dtype[Any], tuple[dict[str, Target], dict[str, Target]]] = {}
        self._targets_in(np.dtype(np.float32))

    def __call__(self, pixels: ArrayLike) -> tuple[float, Array]:
        """Loss and gradient at pixels (H, W, 3), RGB, 0..255.

        Returns
        -------
        loss : float
        gradient : (H, W, 3) array
            In the dtype of pixels, float32 for whole numbers.
        """
        x = np.asarray(pixels)
        if x.shape != self.content.shape:
            raise UserError(
                "pixels", f"shape {x.shape}", f"the content picture's, {self.content.shape}", "resize it"
            )
        if x.dtype != np.float64:
            x = x.astype(np.float32, copy=False)
        content, style = self._targets_in(x.dtype)
        terms: dict[str, float] = {}
        gradients: dict[str, Array] = {}
        tape: Tape = []
        network, buffers = self.network, self.network.buffers
        for name, F in network.walk(x, {**content, **style}, tape):
            dF = gradients[name] = buffers.empty(F.shape, F.dtype)
            if name in style:
                terms[f"style/{name}"], _ = style_loss(F, *style[name], network.threads, dF, buffers)
            if name in content and name not in style:
                terms[f"content/{name}"], _ = content_loss(F, *content[name], out=dF)
            if name in content and name in style:
                terms[f"content/{name}"], second = content_loss(F, *content[name])
                dF += second
        gradient = network.backward(tape, gradients, overwrite=True)
        terms["total_variation"] = 0.0
        if self.settings.tv_weight:
            terms["total_variation"], dx = total_variation(x, self.settings.tv_weight)
            gradient += dx
        self.terms = terms
        return sum(terms.values()), gradient

    def _targets_in(self, dtype: np.dtype[Any]) -> tuple[dict[str, Target], dict[str, Target]]:
        if dtype not in self._targets:
            self._targets[dtype] = self._content_targets(dtype), self._style_targets(dtype)
        return self._targets[dtype]

    def _content_targets(self, dtype: np.dtype[Any]) -> dict[str, Target]:
        s = self.settings
        layers = s.content_layers if s.content_weight else ()
        responses = self.network.forward(self.content.astype(dtype), layers)
        targets = {}
        for name, P in responses.items():
            scale = s.content_weight
            if s.scaling == "relative":
                scale *= 2 / len(layers) / _size_of(P)
            targets[name] = Target(P, scale)
        return targets

    def _style_targets(self, dtype: np.dtype[Any]) -> dict[str, Target]:
        s = self.settings
        layers = s.style_layers if s.style_weight else ()
        if not layers:
            return {}
        targets = {}
        network = self.network
        means: dict[str, list[Array]] = {name: [] for name in layers}
        for picture in self.styles:
            for name, F in network.walk(picture.astype(dtype), layers):
                means[name].append(
                    gram_matrix(F, network.threads, network.buffers) / (F.shape[0] * F.shape[1])
                )
        for name, matrices in means.items():
            A_mean = np.mean(matrices, axis=0)
            scale = s.style_weight / len(layers)
            scale /= _size_of(A_mean) if s.scaling == "relative" else 4 * A_mean.shape[0] ** 2
            targets[name] = Target(A_mean, scale)
        return targets


def _size_of(target: Array) -> float:
    """Sum of squares, to measure a distance against; a layer that is silent everywhere counts as ones."""
    return sum_of_squares(target) or float(target.size)
