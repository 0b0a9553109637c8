"""Mistakes in backward passes, to be planted and found: `npstyle gradcheck --break MISTAKE`.

Each is one that people make when they write a backward pass by hand. The picture would still change and the
loss often fall; a gradient check finds it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from npstyle import layers, losses, objective, padding, pixel_losses, statistics, temporal
from npstyle._typing import AnyArray
from npstyle.fused import FirstLayerConvReLU, WinogradConvReLU, WinogradConvReLUPool

# From a right function to one that is wrong.
Corruption = Callable[[Any], Any]


class Mistake(NamedTuple):
    """A mistake in words, and the functions it corrupts: owner, attribute, and how."""

    about: str
    corruptions: Sequence[tuple[Any, str, Corruption]]


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant a mistake in the program, and remove it afterwards; None plants nothing.

    It is set as an attribute of the installed classes and modules. Not thread-safe: everything that runs
    in this process meanwhile computes wrong gradients.
    """
    corruptions = MISTAKES[name].corruptions if name else []
    originals = [vars(owner)[attribute] for owner, attribute, _ in corruptions]
    try:
        for (owner, attribute, corrupt), original in zip(corruptions, originals, strict=True):
            setattr(owner, attribute, corrupt(original))
        yield
    finally:
        for (owner, attribute, _), original in zip(corruptions, originals, strict=True):
            setattr(owner, attribute, original)


# ------------------------------------------------------------------------------------------------
# Ways to corrupt a function
# ------------------------------------------------------------------------------------------------


def _with_kernel(change: Callable[[AnyArray], AnyArray]) -> Corruption:
    """Run `backward` with another kernel (3, 3, C, K)."""

    def corrupt(original: Any) -> Any:
        def backward(layer: Any, dy: AnyArray, cache: Any = None, accumulate_into: Any = None) -> Any:
            K = layer.bias.size
            kernel = layer.kernel if isinstance(layer, layers.Conv2D) else layer.matrix
            wrong_kernel = change(kernel.reshape(3, 3, -1, K))
            wrong_layer = type(layer)(wrong_kernel, layer.bias, threads=layer.threads, arena=layer.arena)
            return original(wrong_layer, dy, cache, accumulate_into)

        return backward

    return corrupt


def _with_arguments(change: Callable[[AnyArray, Any], tuple[AnyArray, Any]]) -> Corruption:
    """Run `backward` with another dy or another cache."""

    def corrupt(original: Any) -> Any:
        def backward(layer: Any, dy: AnyArray, cache: Any = None, accumulate_into: Any = None) -> Any:
            return original(layer, *change(dy, cache), accumulate_into)

        return backward

    return corrupt


def _replaced(wrong: Callable[[AnyArray], AnyArray]) -> Corruption:
    """Replace `backward` by another function of dy."""

    def corrupt(original: Any) -> Any:
        def backward(layer: Any, dy: AnyArray, cache: Any = None, accumulate_into: Any = None) -> Any:
            dx = np.ascontiguousarray(wrong(dy))
            return dx if accumulate_into is None else np.add(accumulate_into, dx, out=accumulate_into)

        return backward

    return corrupt


def _without_copies(original: Any) -> Any:
    """Run `backward` as if the padding were zeros."""

    def backward(layer: Any, dy: AnyArray, cache: Any = None, accumulate_into: Any = None) -> Any:
        wrong_layer = copy(layer)
        wrong_layer.replicate = False
        return original(wrong_layer, dy, cache, accumulate_into)

    return backward


def _scaled(factor: float) -> Corruption:
    """Multiply the gradient of a loss by a factor."""

    def corrupt(original: Any) -> Any:
        def loss(*arguments: Any, **options: Any) -> tuple[float, AnyArray]:
            value, gradient = original(*arguments, **options)
            return value, np.multiply(gradient, factor, out=gradient)

        return loss

    return corrupt


def _unguided(original: Any) -> Any:
    """The guided style loss without the second factor T in its gradient."""

    def loss(F: AnyArray, T: AnyArray, A_mean: Any, scale: float = 1.0, *_: Any) -> tuple[float, AnyArray]:
        M = losses.sum_of_squares(T)
        return losses.style_loss(F * T[:, :, None], A_mean, scale, positions=M)

    return loss


def _without_mask(original: Any) -> Any:
    """The temporal loss whose gradient does not know which pixels count."""

    def loss(x: AnyArray, target: AnyArray, mask: AnyArray | None, scale: float) -> tuple[float, AnyArray]:
        value, _ = original(x, target, mask, scale)
        return value, original(x, target, None, scale)[1]

    return loss


def _without_laplacian(original: Any) -> Any:
    def edge_map_backward(
        dy: AnyArray, p: int, shape: tuple[int, ...], wrap: bool = False, rows: Any = None
    ) -> AnyArray:
        h, w = dy.shape
        dx = np.zeros(shape)
        dx[: h * p, : w * p] = np.kron(dy / p**2, np.ones((p, p)))[:, :, None]
        return dx[slice(*rows)] if rows else dx

    return edge_map_backward


def _backward_of(corruption: Corruption, *layer_types: Any) -> list[tuple[Any, str, Corruption]]:
    return [(layer_type, "backward", corruption) for layer_type in layer_types]


def _loss_everywhere(name: str, corruption: Corruption) -> list[tuple[Any, str, Corruption]]:
    """A loss where it is defined, and where other modules have imported it."""
    modules = (losses, pixel_losses, temporal, statistics, objective)
    return [(module, name, corruption) for module in modules if hasattr(module, name)]


def _twice_the_map(original: Any) -> Any:
    """The eigenvalues of K, and twice the transport map."""

    def eigenvalues_and_map(*arguments: Any) -> tuple[AnyArray, AnyArray]:
        eigenvalues, transport_map = original(*arguments)
        return eigenvalues, 2 * transport_map

    return eigenvalues_and_map


# ------------------------------------------------------------------------------------------------
# All mistakes
# ------------------------------------------------------------------------------------------------


def _unflipped(kernel: AnyArray) -> AnyArray:
    """Rotated by 180 degrees beforehand: `backward` rotates it back."""
    return kernel[::-1, ::-1]


def _untransposed(kernel: AnyArray) -> AnyArray:
    """The kernel (3, 3, C, K) that `backward` transposes to what a reshape to (3, 3, K, C) gives."""
    _, _, C, K = kernel.shape
    return kernel.reshape(3, 3, K, C).swapaxes(2, 3)


CONVOLUTIONS = (layers.Conv2D, WinogradConvReLU, WinogradConvReLUPool, FirstLayerConvReLU)
RECTIFIERS = (layers.ReLU, WinogradConvReLU, FirstLayerConvReLU)
MISTAKES = {
    "unflipped-kernel": Mistake(
        "the backward pass of convolutions uses a kernel that is not rotated by 180 degrees",
        _backward_of(_with_kernel(_unflipped), *CONVOLUTIONS),
    ),
    "untransposed-channels": Mistake(
        "the backward pass of convolutions reshapes the kernel's channels instead of transposing them",
        _backward_of(_with_kernel(_untransposed), *CONVOLUTIONS),
    ),
    "forgotten-mask": Mistake(
        "ReLU passes every derivative through",
        [
            *_backward_of(_with_arguments(lambda dy, bits: (dy, np.full_like(bits, 255))), *RECTIFIERS),
            *_backward_of(
                _with_arguments(lambda dy, cache: (dy, (np.full_like(cache[0], 255), cache[1]))),
                WinogradConvReLUPool,
            ),
        ],
    ),
    "forgotten-quarter": Mistake(
        "average pooling gives all of dy to each of the four pixels",
        _backward_of(
            _with_arguments(lambda dy, cache: (4 * dy, cache)), layers.AveragePool, WinogradConvReLUPool
        ),
    ),
    "forgotten-argmax": Mistake(
        "maximum pooling gives dy to the first of the four pixels, not to the largest",
        _backward_of(
            _with_arguments(lambda dy, cache: (dy, (np.zeros_like(cache[0]), cache[1]))), layers.MaxPool
        ),
    ),
    "channels-not-reversed": Mistake(
        "the derivative reaches the pixels in the order blue, green, red",
        _backward_of(_replaced(lambda dy: dy), layers.CaffeInput),
    ),
    "forgotten-std": Mistake(
        "the derivative is divided by 255, but not by the standard deviation",
        _backward_of(_replaced(lambda dy: dy / 255), layers.TorchvisionInput),
    ),
    "forgotten-border": Mistake(
        "the derivatives of the duplicated border are not added to the pixels it was copied from",
        [
            *_backward_of(_replaced(lambda dy: dy[1:-1, 1:-1]), padding.ReplicatePad),
            *_backward_of(_without_copies, FirstLayerConvReLU),
        ],
    ),
    "same-border": Mistake(
        "the derivatives of the wrapped border are added where they are, not at the opposite border",
        _backward_of(_replaced(padding.ReplicatePad().backward), padding.WrapPad),
    ),
    "shifted-crop": Mistake(
        "the backward pass of the crop is one row too low",
        _backward_of(_with_arguments(lambda dy, shape: (np.roll(dy, 1, axis=0), shape)), padding.Crop),
    ),
    "content-sign": Mistake("P - F instead of F - P", _loss_everywhere("content_loss", _scaled(-1))),
    "lost-factor-2": Mistake(
        "F dG instead of F (dG + dG'), as if G = F'F had only one factor F",
        _loss_everywhere("style_loss", _scaled(0.5)),
    ),
    "forgotten-region": Mistake(
        "the derivative of the guided style loss is not multiplied by T again",
        _loss_everywhere("guided_style_loss", _unguided),
    ),
    "forgotten-mean": Mistake(
        "variances and covariances, S - mu mu', are differentiated as if mu were constant",
        [(statistics, "mean_in_covariance", lambda _: lambda dSigma, mu: np.zeros_like(mu))],
    ),
    "forgotten-half": Mistake(
        "the derivative of tr K^(1/2) is K^(-1/2), without the 1/2 of the root",
        [(statistics.Transport, "eigenvalues_and_map", _twice_the_map)],
    ),
    "tv-lost-factor-2": Mistake(
        "the derivative of total variation without the 2 that comes from the square",
        _loss_everywhere("total_variation", _scaled(0.5)),
    ),
    "forgotten-reliability": Mistake(
        "the derivative of the temporal loss in pixels that the frame before does not show, too",
        _loss_everywhere("temporal_loss", _without_mask),
    ),
    "lost-target": Mistake(
        "the content loss joined with the temporal one pulls to the content alone",
        [(objective, "joined_target", lambda right: lambda P, a, Q, b: (P, *right(P, a, Q, b)[1:]))],
    ),
    "forgotten-laplacian": Mistake(
        "the derivative of the edges' distance with the adjoint of the means, but not of the Laplacian",
        [(pixel_losses, "edge_map_backward", _without_laplacian)],
    ),
}
