"""VGG19's filters in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

from npstyle._typing import Array, Preprocessing
from npstyle.architecture import PREPROCESSINGS, canonical
from npstyle.errors import UserError, check_choice


class WeightsWarning(UserWarning):
    """Something about a weights file, or about filters, that does not stop a run."""


class ConvWeights(NamedTuple):
    """Kernel and bias of one convolution.

    Attributes
    ----------
    kernel : (3, 3, C, K) float32 array
        Height, width, input channels, output channels.
    bias : (K,) float32 array
    """

    kernel: Array
    bias: Array


class Weights(Mapping[str, ConvWeights]):
    """Kernels and biases by layer name, the preprocessing they expect, and where they come from.

    Layers go by any name that `npstyle.architecture.canonical` accepts: `weights["relu1_2"]` is
    `weights["conv1_2"]`.

    Parameters
    ----------
    layers : mapping of str to ConvWeights
        By canonical name.
    source : str
    random : bool
    preprocessing : {"caffe", "torchvision"}, optional
        Required unless `layers` has this attribute, as other Weights do.
    label : str, optional
        `source` if left out.

    Attributes
    ----------
    source : str
        A description for people, such as the path of a file.
    label : str
        A short description that is stored in pictures: of a file its name, without folders, and the first
        digits of its checksum.
    random : bool
        Whether the filters were drawn at random; these are initialized to the pictures before use.
    path : Path or None
        The file that they were read from.
    preprocessing : {"caffe", "torchvision"}
        What the filters expect the network to do to a picture first. "caffe": blue, green, red from 0 to 255,
        minus the mean color. "torchvision": red, green, blue from 0 to 1, minus the mean, divided by the
        standard deviation. The input channels of conv1_1's kernel are in that order.
    """

    def __init__(
        self,
        layers: Mapping[str, ConvWeights],
        source: str,
        random: bool = False,
        preprocessing: Preprocessing | None = None,
        label: str | None = None,
    ) -> None:
        if preprocessing is None:
            preprocessing = getattr(layers, "preprocessing", None)
        check_choice("preprocessing", preprocessing, PREPROCESSINGS)
        self._layers = dict(layers)
        self.source = source
        self.label = source if label is None else label
        self.random = random
        self.path: Path | None = None
        self.preprocessing = cast(Preprocessing, preprocessing)

    def __getitem__(self, name: str) -> ConvWeights:
        if name not in self:
            raise KeyError(name)
        return self._layers[canonical(name)]

    def __contains__(self, name: object) -> bool:
        try:
            return canonical(str(name)) in self._layers
        except UserError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"<Weights of {len(self)} layers: {self.source}>"
