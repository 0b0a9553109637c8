"""The function that is minimized: targets computed once, then pixels -> (loss, gradient)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from npstyle._typing import AnyArray, Array, Double, Scaling
from npstyle.architecture import log2_stride
from npstyle.errors import UserError
from npstyle.losses import (
    content_loss,
    edge_map,
    edges_loss,
    gram_matrix,
    guided_gram_matrix,
    guided_style_loss,
    style_loss,
    sum_of_squares,
    total_variation,
)
from npstyle.regions import downsample_mask, style_targets
from npstyle.settings import EDGE_CELLS, Settings, check_settings
from npstyle.vgg import VGG19, Tape


class Target(NamedTuple):
    """A target in one layer, the factor of its term in the loss, and the guidance mask it applies to."""

    value: AnyArray  # P (h, w, C), or A / M_a (C, C) in float64
    scale: float
    mask: Array | None = None  # T (h, w)


class Targets(NamedTuple):
    """All targets in one dtype, by layer."""

    content: dict[str, Target]
    style: dict[str, list[Target]]


# Factors of 1/2 sum (F - P)^2, and of sum (G / M - A / M_a)^2 for N pixels: see Settings.
CONTENT_SCALES: dict[Scaling, Callable[[Array], float]] = {
    "relative": lambda P: 2 / _size_of_target(P),
    "paper": lambda P: 1.0,
    "mean": lambda P: 2 / P.size,
    "keras": lambda P: 2.0,
    "udacity": lambda P: 2 / P.size,
}
STYLE_SCALES: dict[Scaling, Callable[[Array, float, int], float]] = {
    "relative": lambda A, M, N: 1 / _size_of_target(A),
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
        With the pooling and padding of the settings: `VGG19.for_settings`.
    content : (H, W, 3) array
        RGB, 0..255. The objective is called with pictures of this size.
    styles : sequence of (h, w, 3) arrays
        Of any sizes.
    settings : Settings
        The loss; start, optimizer, pyramid and color do not concern the objective.
    blend : sequence of float, optional
        Weights of the styles, which are divided by their sum; equal if omitted.
    content_masks, style_masks : sequences of (H, W) arrays, optional
        Pairs of guidance masks, from 0 (outside) to 1: what is in the n-th content mask should look like what
        is in the n-th style mask. All style masks are regions of the one style picture, or each belongs to
        one of several. A region's weight is proportional to its area.

    Attributes
    ----------
    terms : dict of str to float
        The weighted terms of the last loss: "content/conv4_2", "style/conv1_1", "total_variation", and
        "edges" if they have a weight.
        Each call replaces them, so threads that need them must not share an objective; several objectives
        may share a network.

    Raises
    ------
    UserError
        Network and settings differ; no style picture; a picture or mask of the wrong shape or too small;
        filters missing.

    Examples
    --------
    >>> import npstyle
    >>> rng = np.random.default_rng(0)
    >>> photo, painting = rng.uniform(0, 255, (32, 48, 3)), rng.uniform(0, 255, (40, 40, 3))
    >>> settings = npstyle.preset("paper")
    >>> network = npstyle.VGG19.for_settings(npstyle.load_weights("random", seed=0), settings)
    >>> objective = npstyle.Objective(network, photo, [painting], settings)
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
        _check_network(network, check_settings(settings))
        self.network = network
        self.settings = settings
        # Copies: float64 targets are computed when first needed, when the caller may have changed theirs.
        self.content = np.array(content)
        self.styles = [np.array(style) for style in styles]
        self.edge_scales = edge_scales(self.content, settings)
        self.terms: dict[str, float] = {}
        if settings.style_layers and not self.styles:
            raise UserError("styles", "none", "at least one picture", "give one, or no style layers")
        self.style_targets = style_targets(
            self.content, self.styles, blend, settings.mixture == "losses", content_masks, style_masks
        )
        # By dtype: a float64 gradient needs float64 targets.
        self._targets: dict[np.dtype[Any], Targets] = {}
        self._targets_in(np.dtype(np.float32))

    def __call__(self, pixels: ArrayLike) -> tuple[float, Array]:
        """Loss and gradient at pixels (H, W, 3), RGB, 0..255.

        Returns
        -------
        loss : float
        gradient : (H, W, 3) array
            In the dtype of pixels; float32 for integers.
        """
        x = np.asarray(pixels)
        if x.shape != self.content.shape:
            expected = f"the content picture's, {self.content.shape}"
            raise UserError("pixels", f"shape {x.shape}", expected, "resize it")
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
                terms[f"content/{name}"], content_dF = content_loss(F, P, scale, None if losses else dF)
                if losses:
                    dF += content_dF
        gradient = network.backward(tape, gradients, overwrite=True)
        terms["total_variation"] = 0.0
        if self.settings.tv_weight:
            terms["total_variation"], dx = total_variation_term(x, self.settings)
            gradient += dx
        if self.edge_scales:
            wrap = self.settings.padding == "wrap"
            terms["edges"], dx = edges_loss(x, self.content, self.edge_scales, wrap)
            gradient += dx
        self.terms = terms
        return sum(terms.values()), gradient

    def flat(self, x: ArrayLike, dtype: DTypeLike = np.float32) -> tuple[float, Double]:
        """Loss and gradient as optimizers of vectors expect them, such as `scipy.optimize.minimize`.

        Parameters
        ----------
        x : (H * W * 3,) array
            The pixels in C order.
        dtype : {np.float32, np.float64}
            What is computed in, whatever the dtype of x. float32 is what `stylize` uses.

        Returns
        -------
        loss : float
        gradient : (H * W * 3,) float64 array

        Examples
        --------
        >>> import npstyle
        >>> from scipy.optimize import minimize
        >>> rng = np.random.default_rng(0)
        >>> photo, painting = rng.uniform(0, 255, (16, 24, 3)), rng.uniform(0, 255, (20, 20, 3))
        >>> settings = npstyle.preset("random")
        >>> network = npstyle.VGG19.for_settings(npstyle.load_weights("random", seed=0), settings)
        >>> objective = npstyle.Objective(network, photo, [painting], settings)
        >>> result = minimize(objective.flat, photo.ravel(), jac=True, method="CG", options={"maxiter": 3})
        >>> bool(result.fun < objective(photo)[0])
        True
        >>> result.x.reshape(photo.shape).shape
        (16, 24, 3)
        """
        flat = np.asarray(x)
        if flat.shape != (self.content.size,):
            expected = f"({self.content.size},), the pixels of {self.content.shape} in a row"
            raise UserError("x", f"shape {flat.shape}", expected, "give picture.ravel()")
        loss, gradient = self(flat.reshape(self.content.shape).astype(dtype, copy=False))
        return loss, gradient.ravel().astype(np.float64)

    def _style_loss(self, F: Array, target: Target, dF: Array, add: bool) -> float:
        """Distance from one target; its gradient is written to dF, or added to it."""
        A, scale, T = target
        threads, arena = self.network.threads, self.network.arena
        if T is None and not add:
            return style_loss(F, A, scale, threads, dF, arena)[0]
        if T is None:
            value, gradient = style_loss(F, A, scale, threads, None, arena)
        else:
            value, gradient = guided_style_loss(F, T, A, scale, threads, arena)
        np.add(dF, gradient, out=dF) if add else np.copyto(dF, gradient)
        return value

    def _targets_in(self, dtype: np.dtype[Any]) -> Targets:
        if dtype not in self._targets:
            self._targets[dtype] = Targets(self._content_targets(dtype), self._style_targets(dtype))
        return self._targets[dtype]

    def _content_targets(self, dtype: np.dtype[Any]) -> dict[str, Target]:
        s, weights = self.settings, self.settings.effective_content_weights
        features = self.network.forward(self.content.astype(dtype), weights)
        return {
            name: Target(P, s.content_weight * weights[name] * CONTENT_SCALES[s.scaling](P))
            for name, P in features.items()
        }

    def _style_targets(self, dtype: np.dtype[Any]) -> dict[str, list[Target]]:
        grams = self._style_grams(dtype)
        by_layer = {
            name: list(self._style_targets_of(name, weight, grams, dtype))
            for name, weight in self.settings.effective_style_weights.items()
        }
        return {name: targets for name, targets in by_layer.items() if targets}

    def _style_targets_of(
        self,
        name: str,
        layer_weight: float,
        grams: dict[tuple[str, int, int], tuple[Double, float]],
        dtype: np.dtype[Any],
    ) -> Iterator[Target]:
        s, depth = self.settings, log2_stride(name)
        H, W, _ = self.content.shape
        for n, (mask, weight, regions) in enumerate(self.style_targets):
            T = None if mask is None else downsample_mask(mask, depth, dtype)
            M = float((H >> depth) * (W >> depth)) if T is None else sum_of_squares(T)
            weighted = [(*grams[name, n, region.style], region.weight) for region in regions]
            if M == 0 or any(M_a == 0 for _, M_a, _ in weighted):
                continue  # at this layer's resolution nothing is left of a region
            sums = s.scaling in SUMS
            A = np.sum([A / (M if sums else M_a) * fraction for A, M_a, fraction in weighted], axis=0)
            scale = s.style_weight * layer_weight * weight * STYLE_SCALES[s.scaling](A, M, H * W)
            yield Target(A, scale, T)

    def _style_grams(self, dtype: np.dtype[Any]) -> dict[tuple[str, int, int], tuple[Double, float]]:
        """Gram matrix A and number of positions M_a, by layer, style target and style picture in it."""
        grams: dict[tuple[str, int, int], tuple[Double, float]] = {}
        threads = self.network.threads
        for style, picture in enumerate(self.styles):
            for name, F in self.network.walk(picture.astype(dtype), self.settings.effective_style_weights):
                h, w, _ = F.shape
                whole: tuple[Double, float] | None = None  # computed once, though several targets may use it
                for n, target in enumerate(self.style_targets):
                    for _, mask, _ in (region for region in target.regions if region.style == style):
                        if mask is not None:
                            T = downsample_mask(mask, log2_stride(name), dtype)
                            grams[name, n, style] = guided_gram_matrix(F, T, threads), sum_of_squares(T)
                            continue
                        whole = whole or (gram_matrix(F, threads), float(h * w))
                        grams[name, n, style] = whole
        return grams


def total_variation_term(x: Array, settings: Settings) -> tuple[float, Array]:
    """Total variation of the pixels as the settings have it, and its gradient."""
    return total_variation(x, settings.tv_weight, settings.tv_form, settings.padding == "wrap")


def edge_scales(content: AnyArray, settings: Settings) -> dict[int, float]:
    """Factors of `edges_loss` by size of cell; none if edges have no weight."""
    if not settings.keep_edges:
        return {}
    c = content.astype(np.float64)
    maps = {p: edge_map(c, p, settings.padding == "wrap") for p in EDGE_CELLS}
    relative = settings.scaling == "relative"
    units = {p: _size_of_target(edges) if relative else float(edges.size) for p, edges in maps.items()}
    return {p: settings.keep_edges / len(units) / unit for p, unit in units.items()}


def _check_network(network: VGG19, settings: Settings) -> None:
    """Another pooling or padding would silently make it another loss than the settings say."""
    for field in ("pooling", "padding"):
        of_network, of_settings = getattr(network, field), getattr(settings, field)
        if of_network != of_settings:
            raise UserError(
                field,
                f"{of_network!r} in the network",
                f"{of_settings!r}, as in the settings",
                "make the network with VGG19.for_settings(weights, settings)",
            )


def _size_of_target(target: Array) -> float:
    """Sum of squares, the unit of relative distances; for a target of zeros its number of elements."""
    return sum_of_squares(target) or float(target.size)
