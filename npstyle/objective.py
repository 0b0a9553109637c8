"""The function that is minimized: targets once, then pixels -> (loss, gradient)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle.architecture import log2_stride
from npstyle.errors import UserError
from npstyle.losses import (
    content_loss,
    gram_matrix,
    guided_gram_matrix,
    guided_style_loss,
    style_loss,
    sum_of_squares,
    total_variation,
)
from npstyle.regions import downsample_mask, style_targets
from npstyle.settings import Settings
from npstyle.vgg import VGG19, Tape

Array = NDArray[np.floating]


class Target(NamedTuple):
    """What a layer is compared with, the factor of that comparison in the loss, and where it is made."""

    value: NDArray[Any]  # P (h, w, C), or A / M_a (C, C) in double
    scale: float
    region: Array | None = None  # T (h, w)


# Factors in front of 1/2 sum (F - P)^2, and of sum (G / M - A / M_a)^2 for N pixels: see Settings.
CONTENT_SCALES: dict[str, Callable[[Array], float]] = {
    "relative": lambda P: 2 / _size_of(P),
    "paper": lambda P: 1.0,
    "mean": lambda P: 2 / P.size,
    "keras": lambda P: 2.0,
    "udacity": lambda P: 2 / P.size,
}
STYLE_SCALES: dict[str, Callable[[Array, float, int], float]] = {
    "relative": lambda A, M, N: 1 / _size_of(A),
    "paper": lambda A, M, N: 1 / (4 * len(A) ** 2),
    "mean": lambda A, M, N: 1 / len(A) ** 4,
    "keras": lambda A, M, N: M**2 / (36 * N**2),
    "udacity": lambda A, M, N: M / len(A) ** 3,
}
SUMS = ("keras", "udacity")  # compare G and A themselves, not means over positions


class Objective:
    """Loss of a picture, and its gradient with respect to the pixels.

    Parameters
    ----------
    network : VGG19
    content : (H, W, 3) array
        RGB, 0..255. The pictures the objective is called with have its size.
    styles : sequence of (h, w, 3) arrays
        Of any sizes.
    settings : Settings
        The formula stands there. The network's options, the start and the optimizer are the business of
        whoever makes the network and runs it.
    blend : sequence of float, optional
        How much each style counts; evenly, if left out. Divided by their sum.
    content_masks, style_masks : sequences of (H, W) arrays, optional
        Pairs of regions, from 0 (outside) to 1: what is in the n-th content mask is to look like what is in
        the n-th style mask (guided Gram matrices). All style masks are parts of the one style picture, or
        each of one of several. A region counts by its area.

    Attributes
    ----------
    terms : dict of str to float
        The weighted parts of the last loss: "content/conv4_2", "style/conv1_1", "total_variation", ...

    Raises
    ------
    UserError
        No style picture, a picture or mask of the wrong shape or too small, filters missing.

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
        self,
        network: VGG19,
        content: ArrayLike,
        styles: Sequence[ArrayLike],
        settings: Settings,
        blend: Sequence[float] | None = None,
        content_masks: Sequence[ArrayLike] = (),
        style_masks: Sequence[ArrayLike] = (),
    ) -> None:
        self.network = network
        self.settings = settings
        # Copies: float64 targets are made when first needed, and the caller may have moved on by then.
        self.content = np.array(content)
        self.styles = [np.array(style) for style in styles]
        self.terms: dict[str, float] = {}
        if settings.style_layers and not self.styles:
            raise UserError("styles", "none", "at least one picture", "give one, or no style layers")
        self.style_targets = style_targets(
            self.content, self.styles, blend, settings.mixture == "losses", content_masks, style_masks
        )
        # By dtype: a float64 gradient needs float64 targets.
        self._targets: dict[np.dtype[Any], tuple[dict[str, Target], dict[str, list[Target]]]] = {}
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
        network = self.network
        for name, F in network.walk(x, {**content, **style}, tape):
            dF = gradients[name] = network.arena.borrow(F.shape, F.dtype)
            losses: list[float] = []
            for target in style.get(name, ()):
                losses.append(self._style_loss(F, target, dF, add=bool(losses)))
            if losses:
                terms[f"style/{name}"] = sum(losses)
            if name in content:
                P, scale, _ = content[name]
                terms[f"content/{name}"], another = content_loss(F, P, scale, None if losses else dF)
                if losses:
                    dF += another
        gradient = network.backward(tape, gradients, overwrite=True)
        terms["total_variation"] = 0.0
        if self.settings.tv_weight:
            terms["total_variation"], dx = total_variation(x, self.settings.tv_weight, self.settings.tv_form)
            gradient += dx
        self.terms = terms
        return sum(terms.values()), gradient

    def _style_loss(self, F: Array, target: Target, dF: Array, add: bool) -> float:
        """Distance from one target; its derivative goes to dF, or is added there."""
        A, scale, T = target
        threads, arena = self.network.threads, self.network.arena
        if T is None and not add:
            return style_loss(F, A, scale, threads, dF, arena)[0]
        if T is None:
            value, another = style_loss(F, A, scale, threads, None, arena)
        else:
            value, another = guided_style_loss(F, T, A, scale, threads, arena)
        np.add(dF, another, out=dF) if add else np.copyto(dF, another)
        return value

    def _targets_in(self, dtype: np.dtype[Any]) -> tuple[dict[str, Target], dict[str, list[Target]]]:
        if dtype not in self._targets:
            self._targets[dtype] = self._content_targets(dtype), self._style_targets(dtype)
        return self._targets[dtype]

    def _content_targets(self, dtype: np.dtype[Any]) -> dict[str, Target]:
        s, shares = self.settings, self.settings.effective_content_weights
        responses = self.network.forward(self.content.astype(dtype), shares)
        return {
            name: Target(P, s.content_weight * shares[name] * CONTENT_SCALES[s.scaling](P))
            for name, P in responses.items()
        }

    def _style_targets(self, dtype: np.dtype[Any]) -> dict[str, list[Target]]:
        s, shares = self.settings, self.settings.effective_style_weights
        grams = self._style_grams(dtype)
        H, W, _ = self.content.shape
        targets: dict[str, list[Target]] = {name: [] for name in shares}
        for name in shares:
            depth = log2_stride(name)
            for n, (mask, weight, parts) in enumerate(self.style_targets):
                T = None if mask is None else downsample_mask(mask, depth, dtype)
                M = float((H >> depth) * (W >> depth)) if T is None else sum_of_squares(T)
                found = [(*grams[name, n, style], share) for style, _, share in parts]
                if M == 0 or any(M_a == 0 for _, M_a, _ in found):
                    continue  # a region too small for this layer to see
                sums = s.scaling in SUMS
                A = np.sum([A / (M if sums else M_a) * share for A, M_a, share in found], axis=0)
                scale = s.style_weight * shares[name] * weight * STYLE_SCALES[s.scaling](A, M, H * W)
                targets[name].append(Target(A, scale, T))
        return {name: found for name, found in targets.items() if found}

    def _style_grams(self, dtype: np.dtype[Any]) -> dict[tuple[str, int, int], tuple[Array, float]]:
        """A and M_a of each layer, comparison, and style picture that has a part in it."""
        grams: dict[tuple[str, int, int], tuple[Array, float]] = {}
        for style, picture in enumerate(self.styles):
            for name, F in self.network.walk(picture.astype(dtype), self.settings.effective_style_weights):
                h, w, _ = F.shape
                whole: tuple[Array, float] | None = None
                for n, comparison in enumerate(self.style_targets):
                    for _, mask, _ in (part for part in comparison.parts if part.style == style):
                        if mask is not None:
                            T = downsample_mask(mask, log2_stride(name), dtype)
                            A = guided_gram_matrix(F, T, self.network.threads)
                            grams[name, n, style] = A, sum_of_squares(T)
                            continue
                        whole = whole or (gram_matrix(F, self.network.threads), float(h * w))
                        grams[name, n, style] = whole
        return grams


def _size_of(target: Array) -> float:
    """Sum of squares, to measure a distance against; a layer that is silent everywhere counts as ones."""
    return sum_of_squares(target) or float(target.size)
