"""The filters of a network as every function here takes them: a mapping from layer names, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from npstyle._typing import Array, Preprocessing
from npstyle.architecture import CONVOLUTIONS, PREPROCESSINGS
from npstyle.errors import UserError, check_choice


class Filters(Protocol):
    """Filters of one convolution: kernel (3, 3, C, K) in the order height, width, in, out; bias (K,)."""

    @property
    def kernel(self) -> Array: ...

    @property
    def bias(self) -> Array: ...


def filters_of(weights: Mapping[str, Filters], name: str) -> tuple[Array, Array]:
    """Kernel (3, 3, C, K) and bias (K,) of a layer.

    Raises
    ------
    UserError
        The mapping has no such layer, or one of other shapes than VGG19's.
    """
    if name not in weights:
        present = ", ".join(layer for layer in CONVOLUTIONS if layer in weights)
        raise UserError(
            "weights",
            f"no {name} (there is {present or 'nothing'})",
            "filters for every layer up to the deepest one used",
            "choose lower content and style layers, or weights that have it",
        )
    kernel, bias = weights[name].kernel, weights[name].bias
    C, K = CONVOLUTIONS[name]
    if kernel.shape != (3, 3, C, K) or bias.shape != (K,):
        raise UserError(
            f"weights: {name}",
            f"kernel {kernel.shape} and bias {bias.shape}",
            f"(3, 3, {C}, {K}) and ({K},)",
            "order a kernel as height, width, in, out",
        )
    return kernel, bias


def preprocessing_of(
    weights: Mapping[str, Filters], preprocessing: Preprocessing | None = None
) -> Preprocessing:
    """What is done to pixels before the first layer: what the filters were trained with.

    It is never guessed: with the wrong one the network computes something else without any error.

    Parameters
    ----------
    weights : mapping of str to Filters
        `npstyle.weights.Weights` carry theirs in an attribute `preprocessing`.
    preprocessing : {"caffe", "torchvision"}, optional
        Required for a mapping that has no such attribute, such as a dict.

    Raises
    ------
    UserError
        Neither says it, or they contradict each other; or the weights are no mapping.
    """
    if not isinstance(weights, Mapping):
        expected = "a mapping from names of layers to filters, or in a run the name of a file"
        raise UserError("weights", f"{weights!r:.60}", expected, "npstyle.load_weights makes one")
    carried: Preprocessing | None = getattr(weights, "preprocessing", None)
    choice = carried if preprocessing is None else preprocessing
    if choice is None:
        raise UserError(
            "preprocessing",
            f"none (weights of type {type(weights).__name__} do not carry it)",
            "'caffe' or 'torchvision', as the filters were trained",
            "give preprocessing='caffe' for filters of Caffe or Keras, 'torchvision' for torchvision's, "
            "or put them into npstyle.weights.Weights, which carries it",
        )
    check_choice("preprocessing", choice, PREPROCESSINGS)
    if carried not in (None, choice):
        raise UserError(
            "preprocessing",
            repr(choice),
            f"{carried!r}, which the weights carry",
            "leave it out, or load the weights with the other preprocessing",
        )
    return choice
