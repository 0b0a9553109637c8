"""Filters that were never trained, scaled by the pictures they are to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle.architecture import LAYERS, deepest
from npstyle.errors import one_of
from npstyle.layers import CaffeInput, Conv2D, ReLU
from npstyle.vgg import POOLINGS, Filters, filters_of
from npstyle.weights import ConvWeights

Array = NDArray[np.floating]


def calibrated(
    weights: Mapping[str, Filters],
    pictures: Sequence[ArrayLike],
    layers: Iterable[str],
    pooling: str = "average",
    threads: int | None = None,
) -> dict[str, ConvWeights]:
    """Give every filter the same say over some pictures: mean zero before its ReLU, mean 1 after it.

    Layer by layer from the pixels up, with z = a filter's output before its ReLU, over all positions
    of all pictures: z becomes (z - mean(z)) / sd(z), and then a multiple of that for which the mean of
    max(z, 0) is the paper's mean activation of 1 (section 2); kernel and bias are changed accordingly.
    Random filters need it: left alone, many would hardly ever fire, or always, and carry nothing.

    Parameters
    ----------
    weights : mapping of str to filters
        Left as they are.
    pictures : sequence of (H, W, 3) arrays
        RGB, 0..255.
    layers : iterable of str
        Calibrated are the convolutions up to the deepest of them.

    Returns
    -------
    dict of str to ConvWeights
        A new function of the pixels; not the old one in other units.
    """
    one_of("pooling", pooling, POOLINGS)
    responses = [CaffeInput().forward(np.asarray(picture, np.float32))[0] for picture in pictures]
    pool, relu = POOLINGS[pooling](threads=threads), ReLU(in_place=True, threads=threads)
    result: dict[str, ConvWeights] = {}
    for name in LAYERS[: LAYERS.index(deepest(layers)) + 1]:
        if name.startswith("pool"):
            responses = [pool.forward(x)[0] for x in responses]
            continue
        kernel, bias = filters_of(weights, name)
        convolution = Conv2D(kernel, bias, threads=threads)
        responses = [convolution.forward(x)[0] for x in responses]
        mean, deviation = _moments(responses)
        for x in responses:
            x -= mean
            x /= deviation
            relu.forward(x)
        activation = _not_zero(_moments(responses)[0])
        for x in responses:
            x /= activation
        gain = 1 / (deviation * activation)
        result[name] = ConvWeights(kernel * gain, (bias - mean) * gain)
    return result


def _moments(responses: Sequence[Array]) -> tuple[Array, Array]:
    """Mean and standard deviation of every channel, over all positions of all pictures."""
    count = sum(x.shape[0] * x.shape[1] for x in responses)
    mean = sum(x.sum(axis=(0, 1), dtype=np.float64) for x in responses) / count
    mean = np.asarray(mean, np.float32)
    squares = sum(np.square(x - mean).sum(axis=(0, 1), dtype=np.float64) for x in responses)
    return mean, _not_zero(np.sqrt(np.asarray(squares) / count).astype(np.float32))


def _not_zero(x: Array) -> Array:
    """A filter that answers the same everywhere, such as one of zeros, is left as it is."""
    return np.where(x > 1e-6, x, np.float32(1))
