"""Filters scaled by the pictures they look at: never trained ones, and the paper's normalized network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npstyle.architecture import CONVOLUTIONS, LAYERS, deepest
from npstyle.errors import UserError, check_choice, check_nonnegative
from npstyle.layers import CaffeInput, Conv2D, ReLU
from npstyle.vgg import POOLINGS, VGG19, Filters, filters_of, preprocessing_of
from npstyle.weights import ConvWeights, Weights

Array = NDArray[np.floating]
Double = NDArray[np.float64]

# Below this share of its layer's median, a mean activation counts as that. Of the published filters up to
# conv3_4, less than one in a hundred is there on a photograph and a painting.
FLOOR = 0.1


def data_dependent_init(
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
    check_choice("pooling", pooling, POOLINGS)
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
        mean, std = _moments(responses)
        for x in responses:
            x -= mean
            x /= std
            relu.forward(x)
        activation = _not_zero(_moments(responses)[0])
        for x in responses:
            x /= activation
        gain = 1 / (std * activation)
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


def normalize_network(
    weights: Mapping[str, Filters],
    pictures: Iterable[ArrayLike],
    floor: float = FLOOR,
    pooling: str = "average",
    threads: int | None = None,
) -> Weights:
    """The paper's normalized network: the same function, in units in which mean activations are 1.

    With a_l the mean activations of layer l over all positions of all pictures, kernel and bias of its
    filters are divided by a_l, and its successor's kernel is multiplied by a_l, channel by channel. ReLU and
    both poolings pass a factor on as it is, so every response is the old one divided by a_l (section 2).

    Parameters
    ----------
    weights : mapping of str to filters
        Left as they are; they may stop anywhere.
    pictures : (H, W, 3) arrays
        RGB, 0..255, of any sizes.
    floor : float
        Filters that hardly ever fire would be blown up to noise: a mean activation below this share of the
        median of its layer's (of those that are not 0) counts as that share. 0 for none; a filter that
        never fires is then left in the units it has.
    pooling : {"average", "max"}
    threads : int, optional
        See `VGG19`.

    Raises
    ------
    UserError
        No picture, or one too small for the deepest layer there is.

    Examples
    --------
    >>> import npstyle
    >>> weights = npstyle.load_weights("random", seed=0, deepest="conv1_2")
    >>> photo = np.random.default_rng(0).uniform(0, 255, (32, 48, 3))
    >>> means = mean_activations(normalize_network(weights, [photo]), [photo])
    >>> bool(abs(np.median(means["conv1_2"]) - 1) < 1e-4)
    True
    """
    floor = check_nonnegative("floor", floor)
    means = mean_activations(weights, pictures, pooling, threads)
    layers: dict[str, ConvWeights] = {}
    below = np.ones(3)
    for name, mean in means.items():
        kernel, bias = filters_of(weights, name)
        unit = _units(mean, floor)
        layers[name] = ConvWeights(
            np.asarray(kernel * below[:, None] / unit, np.float32), np.asarray(bias / unit, np.float32)
        )
        below = unit
    source = f"{getattr(weights, 'source', 'filters')}, normalized to mean activation 1"
    return Weights(layers, source, preprocessing=preprocessing_of(weights))


def mean_activations(
    weights: Mapping[str, Filters],
    pictures: Iterable[ArrayLike],
    pooling: str = "average",
    threads: int | None = None,
) -> dict[str, Double]:
    """Mean (K,) of every filter's response after its ReLU, over all positions of all pictures, by layer."""
    network = VGG19(weights, pooling, threads=threads)
    names = [name for name in CONVOLUTIONS if name in weights]
    sums = {name: np.zeros(CONVOLUTIONS[name][1]) for name in names}
    counts = dict.fromkeys(names, 0)
    for picture in pictures:
        for name, F in network.walk(picture, names):
            sums[name] += F.sum(axis=(0, 1), dtype=np.float64)
            counts[name] += F.shape[0] * F.shape[1]
    if not any(counts.values()):
        found = "no pictures" if names else "no filters"
        raise UserError("normalize", found, "at least one picture and conv1_1", "give some")
    return {name: sums[name] / counts[name] for name in names}


def _units(mean: Double, floor: float) -> Double:
    """What each filter of a layer is divided by."""
    firing = mean[mean > 0]
    least = floor * np.median(firing) if firing.size else 0.0
    unit = np.maximum(mean, least)
    return np.where(unit > 0, unit, 1.0)
