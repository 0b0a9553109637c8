"""The function that is minimized: targets computed once, then pixels -> (loss, gradient)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from npstyle._typing import AnyArray, Array, Double, Scaling
from npstyle.architecture import channels, deepest, log2_stride
from npstyle.errors import UserError
from npstyle.losses import content_loss, sum_of_squares
from npstyle.partial import (
    ContentTerm,
    Copy,
    Gradients,
    LayerGradient,
    Pack,
    PartialLosses,
    RunningDistance,
    RunningSums,
    Together,
    has_sections,
    section_rows,
)
from npstyle.pixel_losses import edge_map, edges_loss, total_variation
from npstyle.plans import Strips, check_plan, divided
from npstyle.regions import downsample_mask, style_targets
from npstyle.rows import Packed, Rows, Visitor
from npstyle.settings import EDGE_CELLS, Settings, check_settings
from npstyle.statistics import (
    LEAST_VARIANCE,
    REGULARIZATION,
    Gaussian,
    GramTerm,
    Moments,
    MomentsTerm,
    StyleTerm,
    Sums,
    Transport,
    WassersteinTerm,
    blended,
)
from npstyle.temporal import Anchor, difference_target, joined_target, temporal_loss
from npstyle.vgg import VGG19, Tape


class Terms(NamedTuple):
    """All terms of the loss in one dtype, by layer; a layer has a style term for each style target."""

    content: dict[str, ContentTerm]
    style: dict[str, list[StyleTerm]]


# Factors of 1/2 sum (F - P)^2, by the sum of P^2 and the size of P; of sum (G / M - A / M_a)^2 for N pixels;
# and of squared distances of means, standard deviations and Gaussians: see Settings.
CONTENT_SCALES: dict[Scaling, Callable[[float, int], float]] = {
    "relative": lambda squares, size: 2 / (squares or size),
    "paper": lambda squares, size: 1.0,
    "mean": lambda squares, size: 2 / size,
    "keras": lambda squares, size: 2.0,
    "udacity": lambda squares, size: 2 / size,
}
STYLE_SCALES: dict[Scaling, Callable[[Array, float, int], float]] = {
    "relative": lambda A, M, N: 1 / _size_of_target(A),
    "paper": lambda A, M, N: 1 / (4 * len(A) ** 2),
    "mean": lambda A, M, N: 1 / len(A) ** 4,
    "keras": lambda A, M, N: M**2 / (36 * N**2),
    "udacity": lambda A, M, N: M / len(A) ** 3,
}
MOMENTS_SCALES: dict[Scaling, Callable[[Moments], float]] = {
    **dict.fromkeys(get_args(Scaling), lambda target: 1 / len(target.mean)),
    "relative": lambda target: 1 / target.size,
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
    plan : {0, 1, 2, 3, 5}
        The blocks of the network that are computed in strips, from the first on, which takes less memory and
        more time. Loss and gradient have the same bits; see docs/large-pictures.md.

    Attributes
    ----------
    terms : dict of str to float
        The weighted terms of the last loss: "content/conv4_2", "style/conv1_1", "total_variation", and
        "edges" and "temporal" if they have a weight.
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
        plan: int = 0,
    ) -> None:
        _check_network(network, check_settings(settings))
        self.network = network
        self.settings = settings
        self.plan = check_plan(plan)
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
        self.anchor: Anchor | None = None
        # By dtype: a float64 gradient needs float64 targets.
        self._content: dict[np.dtype[Any], dict[str, ContentTerm]] = {}
        self._style: dict[np.dtype[Any], dict[str, list[StyleTerm]]] = {}
        self._terms_in(np.dtype(np.float32))

    def for_frame(self, content: ArrayLike, anchor: Anchor | None = None) -> Objective:
        """The objective of another frame of a film: another content picture, the same style targets.

        Parameters
        ----------
        content : (H, W, 3) array
            Of the same size.
        anchor : Anchor, optional
            What holds the frame to earlier ones.
        """
        frame = copy.copy(self)
        frame.content = np.array(content)
        if frame.content.shape != self.content.shape:
            expected = f"the first frame's, {self.content.shape}"
            raise UserError("content", f"shape {frame.content.shape}", expected, "resize it")
        frame.edge_scales = edge_scales(frame.content, self.settings)
        frame.anchor, frame.terms, frame._content = anchor, {}, {}
        frame._terms_in(np.dtype(np.float32))
        return frame

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
        content, style = self._terms_in(x.dtype)
        terms: dict[str, float] = {}
        gradient = self._of_network(x, content, style, terms)
        terms["total_variation"] = 0.0
        if self.settings.tv_weight:
            terms["total_variation"], _ = total_variation_term(x, self.settings, gradient)
        if self.edge_scales:
            wrap = self.settings.padding == "wrap"
            terms["edges"], _ = edges_loss(x, self.content, self.edge_scales, wrap, gradient)
        if self.anchor is not None and self.anchor.weight:
            target, mask, weight, *_ = self.anchor
            terms["temporal"], dx = temporal_loss(x, target, mask, weight)
            gradient += dx
        self.terms = terms
        return sum(terms.values()), gradient

    def _of_network(
        self,
        x: Array,
        content: dict[str, ContentTerm],
        style: dict[str, list[StyleTerm]],
        terms: dict[str, float],
    ) -> Array:
        """The gradient of the terms of all layers with respect to the pixels; the terms are added."""
        if self.plan:
            return self._in_strips(x, content, style, terms)
        tape: Tape = []
        walk = self.network.walk(x, {**content, **style}, tape)
        return self._whole(walk, tape, content, style, terms)

    def _whole(
        self,
        walk: Iterator[tuple[str, Array]],
        tape: Tape,
        content: dict[str, ContentTerm],
        style: dict[str, list[StyleTerm]],
        terms: dict[str, float],
    ) -> Array:
        """The gradient with respect to what the walk starts from; the terms of its layers are added."""
        if self.plan:
            packed = {name: self._packed_gradient(name, F, content, style, terms) for name, F in walk}
            return self.network.backward(tape, packed, overwrite=True)
        gradients: dict[str, Array] = {}
        network = self.network
        for name, F in walk:
            dF = gradients[name] = network.arena.borrow(F.shape, F.dtype)
            if has_sections(self.content.shape[0]):
                of_layer = self._partial_losses(name, content, style, F.dtype)
                of_layer.visit(Rows.of(F, network.arena))
                values, gradient = of_layer.finish()
                terms.update(values)
                gradient.of_rows(F, 0, dF)
                continue
            losses: list[float] = []
            for term in style.get(name, ()):
                losses.append(self._style_loss(term, F, dF, add=bool(losses)))
            if losses:
                terms[f"style/{name}"] = sum(losses)
            if name in content:
                P, scale, constant = content[name]
                assert isinstance(P, np.ndarray)  # it is packed only where there is a plan
                value, content_dF = content_loss(F, P, scale, None if losses else dF)
                terms[f"content/{name}"] = value + constant
                if losses:
                    dF += content_dF
        return network.backward(tape, gradients, overwrite=True)

    def _packed_gradient(
        self,
        name: str,
        F: Array,
        content: dict[str, ContentTerm],
        style: dict[str, list[StyleTerm]],
        terms: dict[str, float],
    ) -> Packed:
        """The gradient with respect to a whole feature map; the terms of its layer are added."""
        arena, of_layer = self.network.arena, self._partial_losses(name, content, style, F.dtype)
        for rows in Rows.growing(F, arena):
            of_layer.visit(rows)
        values, gradient = of_layer.finish()
        terms.update(values)
        packing = Gradients(gradient, arena, packed=True)
        for rows in Rows.growing(F, arena):
            packing.visit(rows)
        return packing.waiting

    def _in_strips(
        self,
        x: Array,
        content: dict[str, ContentTerm],
        style: dict[str, list[StyleTerm]],
        terms: dict[str, float],
    ) -> Array:
        """The gradient with respect to the pixels; the terms of all layers are added."""
        network, (lower, upper) = self.network, divided(self.plan, {**content, **style})
        losses = [self._partial_losses(name, content, style, x.dtype) for name in lower]
        top = f"pool{self.plan}" if upper else lower[-1]
        strips = Strips(network, x, top, x.dtype, large=bool(upper))
        F = strips.forward({one.name: one for one in losses}, bool(upper))
        layers: list[LayerGradient] = []
        for one in losses:
            values, layer = one.finish()
            terms.update(values)
            layers.append(layer)
        above: Array | None = None
        if F is not None:
            tape: Tape = []
            walk = network.walk_above(top, F, x.shape, upper, tape)
            del F  # it is released by the walk
            above = self._whole(walk, tape, content, style, terms)
        gradient = strips.gradient(layers, above)
        if above is not None:
            network.arena.release(above)
        return gradient

    def _partial_losses(
        self,
        name: str,
        content: dict[str, ContentTerm],
        style: dict[str, list[StyleTerm]],
        dtype: np.dtype[Any],
    ) -> PartialLosses:
        shape, network = feature_shape(name, self.content.shape), self.network
        return PartialLosses(
            name, style.get(name, ()), content.get(name), shape, dtype, network.threads, network.arena
        )

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

    def _style_loss(self, term: StyleTerm, F: Array, dF: Array, add: bool) -> float:
        """A term's loss; its gradient is written to dF, or added to it."""
        value, gradient = term(F, self.network.threads, None if add else dF, self.network.arena)
        if add:
            dF += gradient
        elif gradient is not dF:
            np.copyto(dF, gradient)
        return value

    def _terms_in(self, dtype: np.dtype[Any]) -> Terms:
        if dtype not in self._style:
            self._style[dtype] = self._style_terms(dtype)
        if dtype not in self._content:
            self._content[dtype] = self._content_terms(dtype)
        return Terms(self._content[dtype], self._style[dtype])

    def _content_terms(self, dtype: np.dtype[Any]) -> dict[str, ContentTerm]:
        s, weights = self.settings, self.settings.effective_content_weights
        anchored = self.anchor is not None and bool(self.anchor.feature_weight)
        targets = self._content_targets(self.content, weights, dtype, packs=not anchored)
        scales = {
            name: CONTENT_SCALES[s.scaling](squares, prod(feature_shape(name, self.content.shape)))
            for name, (_, squares) in targets.items()
        }
        terms = {
            name: ContentTerm(P, s.content_weight * weights[name] * scales[name])
            for name, (P, _) in targets.items()
        }
        return self._anchored(terms, {name: weights[name] * scales[name] for name in terms}, dtype)

    def _anchored(
        self, terms: dict[str, ContentTerm], scales: dict[str, float], dtype: np.dtype[Any]
    ) -> dict[str, ContentTerm]:
        """The content terms joined with the distances to F' + P - P'; the same without an anchor for them."""
        anchor = self.anchor
        if anchor is None or not anchor.feature_weight:
            return terms
        pictures = (np.asarray(p) for p in (anchor.previous, anchor.previous_content))
        previous, previous_content = (
            self._content_targets(picture, terms, dtype, packs=False) for picture in pictures
        )
        joined = {}
        for name, (P, scale, _) in terms.items():
            assert isinstance(P, np.ndarray)  # `_content_terms` has not packed it
            Q = difference_target(previous[name][0], P, previous_content[name][0])
            joined[name] = ContentTerm(*joined_target(P, scale, Q, anchor.feature_weight * scales[name]))
        return joined

    def _content_targets(
        self, picture: AnyArray, layers: Iterable[str], dtype: np.dtype[Any], packs: bool
    ) -> dict[str, tuple[Any, float]]:
        """Feature maps of a picture, and their sums of squares; with a plan they may be packed."""
        packs = packs and self.plan > 0
        shapes = {name: feature_shape(name, picture.shape) for name in layers}
        stored = {
            name: Pack(0, shape[0], self.network.threads) if packs else Copy(np.empty(shape, dtype))
            for name, shape in shapes.items()
        }
        squares = {name: RunningDistance(shape, section_rows(name)) for name, shape in shapes.items()}
        self._show(picture, {name: Together([stored[name], squares[name]]) for name in shapes}, dtype)
        return {name: (stored[name].target, sum(squares[name].sums)) for name in shapes}

    def _show(self, picture: AnyArray, visitors: Mapping[str, Visitor], dtype: np.dtype[Any]) -> None:
        """Compute feature maps of a picture, for the visitors of some."""
        if self.plan and visitors:
            Strips(self.network, picture, deepest(visitors), dtype).forward(visitors)
            self.network.arena.trim()
        elif visitors:
            for name, F in self.network.walk(picture.astype(dtype), visitors):
                visitors[name].visit(Rows.of(F, self.network.arena))

    def _style_terms(self, dtype: np.dtype[Any]) -> dict[str, list[StyleTerm]]:
        sums = self._style_sums(dtype)
        by_layer = {
            name: list(self._style_terms_of(name, weight, sums, dtype))
            for name, weight in self.settings.effective_style_weights.items()
        }
        return {name: terms for name, terms in by_layer.items() if terms}

    def _style_terms_of(
        self,
        name: str,
        layer_weight: float,
        sums: dict[tuple[str, int, int], Sums],
        dtype: np.dtype[Any],
    ) -> Iterator[StyleTerm]:
        depth = log2_stride(name)
        H, W, _ = self.content.shape
        for n, (mask, weight, regions) in enumerate(self.style_targets):
            T = None if mask is None else downsample_mask(mask, depth, dtype)
            M = float((H >> depth) * (W >> depth)) if T is None else sum_of_squares(T)
            weighted = [(sums[name, n, region.style], region.weight) for region in regions]
            if M == 0 or any(one.positions == 0 for one, _ in weighted):
                continue  # at this layer's resolution nothing is left of a region
            yield self._style_term(weighted, self.settings.style_weight * layer_weight * weight, T, M)

    def _style_term(
        self, weighted: Sequence[tuple[Sums, float]], weight: float, T: Array | None, M: float
    ) -> StyleTerm:
        """The term of a mixture of styles, for the M positions of the picture or of its region T."""
        s = self.settings
        H, W, _ = self.content.shape
        undivided = s.scaling in SUMS
        A = np.sum(
            [one.gram / (M if undivided else one.positions) * fraction for one, fraction in weighted], axis=0
        )
        scale = weight * STYLE_SCALES[s.scaling](A, M, H * W)
        if s.statistics == "gram":
            return GramTerm(A, scale, T)
        target = blended(weighted)
        moments_scale = weight * MOMENTS_SCALES[s.scaling](target)
        if s.statistics == "gram+moments":
            return MomentsTerm(A, target, scale, s.moments_weight * moments_scale, T)
        regularization, least_variance = REGULARIZATION, 0.0
        if s.scaling == "relative":  # in the units of the distance, and so these are relative, too
            mean_square = target.size / len(A)
            regularization, least_variance = REGULARIZATION * mean_square, LEAST_VARIANCE * mean_square
        vectors = sum(one.vectors for one, _ in weighted)
        gaussian = Gaussian(target.mean, target.covariance)
        arguments = gaussian, regularization, vectors, least_variance
        transport = self.network.keep("transport", (*gaussian, *arguments[1:]), lambda: Transport(*arguments))
        return WassersteinTerm(transport, moments_scale, T)

    def _style_sums(self, dtype: np.dtype[Any]) -> dict[tuple[str, int, int], Sums]:
        """What the statistics are made of, by layer, style target and style picture in it."""
        sums: dict[tuple[str, int, int], Sums] = {}
        for style, picture in enumerate(self.styles):
            masks = [
                (n, region.mask)
                for n, target in enumerate(self.style_targets)
                for region in target.regions
                if region.style == style
            ]
            compute = partial(self._sums, picture, dtype, masks)
            if masks and all(mask is None for _, mask in masks):
                names, targets = tuple(self.settings.effective_style_weights), [n for n, _ in masks]
                found = self.network.keep("sums", (picture, names, targets, dtype), compute)
            else:
                found = compute()
            sums |= {(name, n, style): of_layer for (name, n), of_layer in found.items()}
        return sums

    def _sums(
        self, picture: AnyArray, dtype: np.dtype[Any], masks: Sequence[tuple[int, Array | None]]
    ) -> dict[tuple[str, int], Sums]:
        """Those of one style picture, by layer and style target, whose mask comes with it."""
        sums: dict[tuple[str, int], Sums] = {}
        visitors: dict[str, Together] = {}
        for name in self.settings.effective_style_weights:
            visitors[name] = Together()
            for n, running in self._running_sums(name, picture.shape, dtype, masks):
                sums[name, n] = running.sums
                if running not in visitors[name]:
                    visitors[name].append(running)
        self._show(picture, {name: visitor for name, visitor in visitors.items() if visitor}, dtype)
        return sums

    def _running_sums(
        self,
        name: str,
        picture: tuple[int, ...],
        dtype: np.dtype[Any],
        masks: Sequence[tuple[int, Array | None]],
    ) -> Iterator[tuple[int, RunningSums]]:
        """Sums of one layer of a style picture of this shape, by style target; several may be the same."""
        shape, network, section = feature_shape(name, picture), self.network, section_rows(name)
        whole: RunningSums | None = None  # computed once, though several targets may use it
        for n, mask in masks:
            T = None if mask is None else downsample_mask(mask, log2_stride(name), dtype)
            if T is not None or whole is None:
                running = RunningSums(shape, T, dtype, network.threads, network.arena, section)
                whole = running if T is None else whole
            else:
                running = whole
            yield n, running


def feature_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of a layer's feature map, for pixels of this shape."""
    return shape[0] >> log2_stride(name), shape[1] >> log2_stride(name), channels(name)


def total_variation_term(
    x: Array, settings: Settings, accumulate_into: Array | None = None
) -> tuple[float, Array]:
    """Total variation of the pixels as the settings have it, and its gradient: see `total_variation`."""
    wrap = settings.padding == "wrap"
    return total_variation(x, settings.tv_weight, settings.tv_form, wrap, accumulate_into)


def edge_scales(content: AnyArray, settings: Settings) -> dict[int, float]:
    """Factors of `edges_loss` by size of cell; none if edges have no weight."""
    if not settings.keep_edges:
        return {}
    wrap = settings.padding == "wrap"
    maps = {p: edge_map(content, p, wrap, dtype=np.float64) for p in EDGE_CELLS}
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
