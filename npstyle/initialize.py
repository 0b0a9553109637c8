"""Rescale filters by the pictures they see: initialize random ones; the paper's normalized network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from npstyle._typing import Array, Double, Pooling, Preprocessing
from npstyle.architecture import CONVOLUTIONS, LAYERS, deepest
from npstyle.errors import UserError, check_choice, check_nonnegative
from npstyle.filters import Filters, filters_of, preprocessing_of
from npstyle.layers import Conv2D, Layer, ReLU
from npstyle.vgg import INPUTS, POOLINGS, VGG19
from npstyle.weights import ConvWeights, Weights

# A mean activation below this fraction of its layer's median is raised to it. Of the published filters up to
# conv3_4, less than one in a hundred is below on a photograph and a painting.
FLOOR = 0.1


def data_dependent_init(
    weights: Mapping[str, Filters],
    pictures: Sequence[ArrayLike],
    layers: Iterable[str],
    pooling: Pooling = "average",
    threads: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> Weights:
    """Give every filter the same influence over some pictures: mean 0 before its ReLU, mean 1 after it.

    Layer by layer from the pixels up, with z a filter's output before its ReLU, mean and std over all
    positions of all pictures: z becomes (z - mean(z)) / std(z), and then a multiple of that for which the
    mean of max(z, 0) is the paper's mean activation of 1 (section 2); kernel and bias are changed
    accordingly. Random filters need it: without it many would hardly ever be active, or always, and pass on
    no information. The idea is Kraehenbuehl et al., "Data-dependent Initializations of Convolutional Neural
    Networks", and Mishkin and Matas, "All you need is a good init" (LSUV), both ICLR 2016.

    Parameters
    ----------
    weights : mapping of str to Filters
        Not modified.
    pictures : sequence of (H, W, 3) arrays
        RGB, 0..255.
    layers : iterable of str
        The convolutions up to the deepest of them are initialized.
    pooling : {"average", "max"}
    threads : int, optional
    preprocessing : {"caffe", "torchvision"}, optional
        See `VGG19`.

    Returns
    -------
    Weights
        A new function of the pixels, not the old one in other units; with the preprocessing it is for.
    """
    check_choice("pooling", pooling, POOLINGS)
    preprocessing = preprocessing_of(weights, preprocessing)
    features = [INPUTS[preprocessing]().forward(np.asarray(picture, np.float32))[0] for picture in pictures]
    pool, relu = POOLINGS[pooling](threads=threads), ReLU(in_place=True, threads=threads)
    initialized: dict[str, ConvWeights] = {}
    for name in LAYERS[: LAYERS.index(deepest(layers)) + 1]:
        if name not in CONVOLUTIONS:
            _replace(features, pool)
            continue
        kernel, bias = filters_of(weights, name)
        convolution = Conv2D(kernel, bias, threads=threads)
        _replace(features, convolution)
        mean, std = _mean_and_std(features)
        for x in features:
            x -= mean
            x /= std
            relu.forward(x)
        activation = _zero_to_one(_mean_and_std(features)[0])
        for x in features:
            x /= activation
        gain = 1 / (std * activation)
        initialized[name] = ConvWeights(kernel * gain, (bias - mean) * gain)
    source, label = (
        f"{getattr(weights, name, 'filters')}, initialized to the pictures" for name in ("source", "label")
    )
    return Weights(initialized, source, preprocessing=preprocessing, label=label)


def _replace(features: list[Array], layer: Layer) -> None:
    """Put a layer's outputs in the place of its inputs, one by one, so that few of both are there at once."""
    for n, x in enumerate(features):
        features[n] = layer.forward(x)[0]


def _mean_and_std(features: Sequence[Array]) -> tuple[Array, Array]:
    """Of every channel, over all positions of all pictures."""
    count = sum(x.shape[0] * x.shape[1] for x in features)
    mean = sum(x.sum(axis=(0, 1), dtype=np.float64) for x in features) / count
    mean = np.asarray(mean, np.float32)
    squares = sum(_squared(x - mean).sum(axis=(0, 1), dtype=np.float64) for x in features)
    return mean, _zero_to_one(np.sqrt(np.asarray(squares) / count).astype(np.float32))


def _squared(x: Array) -> Array:
    """x^2 in the place of x."""
    return np.square(x, out=x)


def _zero_to_one(x: Array) -> Array:
    """A divisor that leaves filters with a constant output, such as one of zeros, as they are."""
    return np.where(x > 1e-6, x, np.float32(1))


def normalize_network(
    weights: Mapping[str, Filters],
    pictures: Iterable[ArrayLike],
    floor: float = FLOOR,
    pooling: Pooling = "average",
    threads: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> Weights:
    """The paper's normalized network: the same function, in units in which mean activations are 1.

    With a_l the mean activations of layer l over all positions of all pictures, kernel and bias of its
    filters are divided by a_l, and the next layer's kernel is multiplied by a_l, channel by channel. ReLU and
    both poolings pass on a positive factor unchanged, so every feature map is the old one divided by a_l
    (section 2).

    Parameters
    ----------
    weights : mapping of str to Filters
        Not modified; they may stop at any layer.
    pictures : (H, W, 3) arrays
        RGB, 0..255, of any sizes.
    floor : float
        Filters that are hardly ever active would be amplified to noise: a mean activation below this fraction
        of its layer's median (of those that are not 0) is raised to it, 0 to 1: above, those around the
        median would not get a mean of 1. 0 for none; a filter that is never active then keeps its units.
    pooling : {"average", "max"}
    threads : int, optional
    preprocessing : {"caffe", "torchvision"}, optional
        See `VGG19`.

    Raises
    ------
    UserError
        No picture, or one too small for the deepest layer of the weights; a floor that is no fraction.

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
    if floor > 1:
        raise UserError("floor", f"{floor:g}", "a number from 0 to 1", f"give one such as {FLOOR}")
    preprocessing = preprocessing_of(weights, preprocessing)
    means = mean_activations(weights, pictures, pooling, threads, preprocessing)
    layers: dict[str, ConvWeights] = {}
    previous_unit = np.ones(3)
    for name, mean in means.items():
        kernel, bias = filters_of(weights, name)
        unit = _units(mean, floor)
        layers[name] = ConvWeights(
            np.asarray(kernel * previous_unit[:, None] / unit, np.float32),
            np.asarray(bias / unit, np.float32),
        )
        previous_unit = unit
    source, label = (
        f"{getattr(weights, name, 'filters')}, normalized to mean activation 1"
        for name in ("source", "label")
    )
    return Weights(layers, source, preprocessing=preprocessing, label=label)


def mean_activations(
    weights: Mapping[str, Filters],
    pictures: Iterable[ArrayLike],
    pooling: Pooling = "average",
    threads: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> dict[str, Double]:
    """Mean (K,) of every filter's output after its ReLU, over all positions of all pictures, by layer."""
    network = VGG19(weights, pooling, threads=threads, preprocessing=preprocessing)
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
    """The divisor of each filter of a layer."""
    active = mean[mean > 0]
    minimum = floor * np.median(active) if active.size else 0.0
    unit = np.maximum(mean, minimum)
    return np.where(unit > 0, unit, 1.0)
