"""The preprocessing that filters expect, for files that do not state it.

With another preprocessing than in training, filters give wrong pictures without an error, so it is never
guessed. Two things identify a file: the values of the published filters, also if each filter has been
multiplied by a factor as in the paper's normalized network, and the checksum of the file. The magnitude of
the values identifies nothing: the published conv1_1, whose inputs are of order 100, has values that would
suit inputs of order 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npstyle._typing import Array, Preprocessing
from npstyle.errors import UserError
from npstyle.weights.types import ConvWeights, Weights

# The first 8 digits of the SHA-256 of PyTorch files: torchvision's vgg19, and the published filters as
# converted for jcjohnson's neural-style.
BY_CHECKSUM: dict[str, Preprocessing] = {"dcbb9e9d": "torchvision", "d01eb7cb": "caffe"}
# Of the first three published filters of conv1_1: the central elements for blue, green, red, and the bias.
PUBLISHED = (
    (0.08978214, 0.10385381, 0.09986369, 0.7301776),
    (0.18505956, 0.08851637, -0.06240906, 0.06493629),
    (0.15264879, 0.2392226, 0.07442063, 0.03428847),
)
TOLERANCE = 2**-7  # relative; what truncation to bfloat16 (8 significant bits) may change


def recognize_filters(path: Path, layers: dict[str, ConvWeights], sha256: str, label: str) -> Weights:
    """Weights of a file, with this checksum, and the preprocessing that its filters are known to expect.

    Published filters whose input channels are stored as red, green, blue are converted to blue, green, red.

    Raises
    ------
    UserError
        Neither values nor checksum are known.
    """
    kernel, bias = layers["conv1_1"]
    if _are_published(kernel, bias):
        source = f"{path} (recognized as the published filters: caffe)"
        return Weights(layers, source, preprocessing="caffe", label=label)
    if _are_published(kernel[:, :, ::-1], bias):
        bgr = ConvWeights(np.ascontiguousarray(kernel[:, :, ::-1]), bias)
        source = f"{path} (recognized as the published filters, converted from RGB to BGR: caffe)"
        return Weights({**layers, "conv1_1": bgr}, source, preprocessing="caffe", label=label)
    preprocessing = BY_CHECKSUM.get(sha256[:8])
    if preprocessing is not None:
        source = f"{path} (recognized by checksum: {preprocessing})"
        return Weights(layers, source, preprocessing=preprocessing, label=label)
    raise UserError(
        f"weights: {path}",
        "filters whose preprocessing is not known",
        "caffe (BGR, 0 to 255, minus the mean) or torchvision (RGB, 0 to 1, mean and standard deviation)",
        "give --preprocessing caffe or --preprocessing torchvision",
    )


def _are_published(kernel: Array, bias: Array) -> bool:
    """Whether the first filters are the published ones, each up to a positive factor, to TOLERANCE."""
    published = np.array(PUBLISHED)
    count = len(published)
    filters = np.column_stack([kernel[1, 1, :, :count].T, bias[:count]]).astype(np.float64)
    factors = (np.linalg.norm(filters, axis=1) / np.linalg.norm(published, axis=1))[:, np.newaxis]
    return bool((factors > 0).all() and np.allclose(filters, published * factors, rtol=TOLERANCE, atol=0))
