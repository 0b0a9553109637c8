"""Keras's files: HDF5 (.h5), weights and whole models, and since Keras 3 .weights.h5 and .keras.

In .h5 files a layer is a group of its own name, block1_conv1 ..., with a 4-D kernel and a 1-D bias; of a
model that is a layer of another, one group deeper. See `keras3` for the others.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npstyle.architecture import CONVOLUTIONS, LAYERS, block_of
from npstyle.errors import UserError
from npstyle.weights.formats import keras3
from npstyle.weights.formats.common import MAX_PREPROCESSING_BYTES, Contents, check_layer, wrong_shapes
from npstyle.weights.formats.hdf5 import (
    check_storage,
    datasets_of,
    groups_below,
    open_hdf5,
    open_member,
    subgroup,
)
from npstyle.weights.types import ConvWeights, Weights

if TYPE_CHECKING:
    import h5py

Arrays = tuple[Any, Any]  # kernel and bias, datasets that are not read yet

OPTIMIZER = frozenset({"optimizer", "optimizer_weights"})  # its moments go by the names of the layers


def read(path: Path, wanted_layers: Sequence[str]) -> Contents:
    """Read layers; Keras's own files expect "caffe"."""
    with open_hdf5(path) as file:
        return _contents(path, file, wanted_layers)


def read_zip(path: Path, wanted_layers: Sequence[str]) -> Contents:
    """Read layers from a .keras file, a zip archive with the weights in one member."""
    with open_member(path, keras3.MEMBER) as file:
        return _contents(path, file, wanted_layers)


def is_keras_zip(path: Path) -> bool:
    """Whether a zip archive is a .keras file."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return keras3.MEMBER in archive.namelist()


def write(path: Path, weights: Weights) -> None:
    """Write the convolutional part of VGG19 so that Keras can read it, and an attribute `preprocessing`."""
    names = LAYERS[: LAYERS.index(list(weights)[-1]) + 1]
    with open_hdf5(path, "w") as file:
        file.attrs["preprocessing"] = np.bytes_(weights.preprocessing)  # fixed length: see `_preprocessing`
        file.attrs["layer_names"] = [_keras_name(name).encode() for name in names]
        for name in names:
            group = file.create_group(_keras_name(name))
            arrays = dict(zip("Wb", weights[name], strict=True)) if name in CONVOLUTIONS else {}
            datasets = {f"{_keras_name(name)}_{letter}_1:0": array for letter, array in arrays.items()}
            group.attrs["weight_names"] = np.array([key.encode() for key in datasets], "S40")
            for key, array in datasets.items():
                group[key] = array


def _contents(path: Path, file: h5py.File, wanted_layers: Sequence[str]) -> Contents:
    root = subgroup(file, "model_weights") or file
    layers: dict[str, ConvWeights] = {}
    for name, arrays in (_by_name(path, root, wanted_layers) or _by_order(path, root)).items():
        if name in wanted_layers:
            for array in arrays:
                check_storage(array)
            layers[name] = check_layer(path, name, *arrays)
    return Contents(layers, _preprocessing(file))


def _preprocessing(file: h5py.File) -> str:
    """The attribute `preprocessing`, of fixed length: HDF5 may hang on a damaged one of variable length."""
    if "preprocessing" not in file.attrs:
        return "caffe"
    attribute = file.attrs.get_id("preprocessing")
    dtype = attribute.dtype
    if attribute.shape != () or dtype.kind != "S" or dtype.itemsize > MAX_PREPROCESSING_BYTES:
        raise ValueError("a preprocessing that is not a short string of fixed length")
    return bytes(file.attrs["preprocessing"]).decode()


def _by_name(path: Path, root: h5py.Group, wanted_layers: Sequence[str]) -> dict[str, Arrays]:
    """Layers whose groups have Keras's names, from the only group that has a block1_conv1."""
    networks = _networks(root)
    if len(networks) > 1:
        raise _several(path, networks)
    layers: dict[str, Arrays] = {}
    for network in networks:
        for name in wanted_layers:
            group = subgroup(network, _keras_name(name))
            if group is not None:
                layers[name] = _kernel_and_bias(path, name, group)
    return layers


def _networks(root: h5py.Group) -> list[h5py.Group]:
    """The outermost groups with a block1_conv1: a layer's group may have one of its own name in it."""
    first, found = _keras_name("conv1_1"), []
    for group, names in groups_below(root, OPTIMIZER):
        if first in names and group.name.rpartition("/")[2] != first:
            found.append(group)
    return found


def _by_order(path: Path, root: h5py.Group) -> dict[str, Arrays]:
    """Layers whose groups are numbered: the longest sequence of convolutions of VGG19's shapes."""
    networks = [
        (group, convolutions)
        for group, names in groups_below(root, OPTIMIZER)
        if (convolutions := keras3.convolutions(group, names))
    ]
    mismatches = [keras3.first_mismatch(convolutions) for _, convolutions in networks]
    if mismatches and mismatches[0] and all(mismatches):
        name, (kernel, bias) = mismatches[0]
        raise wrong_shapes(path, name, f"kernel {kernel.shape} and bias {bias.shape}")
    fitting = [network for network, wrong in zip(networks, mismatches, strict=True) if not wrong]
    longest = max((len(convolutions) for _, convolutions in fitting), default=0)
    best = [network for network in fitting if len(network[1]) == longest]
    if len(best) > 1:
        raise _several(path, [group for group, _ in best])
    return dict(zip(CONVOLUTIONS, best[0][1], strict=False)) if best else {}


def _several(path: Path, groups: Sequence[h5py.Group]) -> UserError:
    names = ", ".join(ascii(group.name) for group in groups[:5])
    return UserError(f"weights: {path}", f"several networks ({names})", "one", "save VGG19's alone")


def _kernel_and_bias(path: Path, name: str, group: h5py.Group) -> Arrays:
    datasets = datasets_of(group)
    by_rank = {len(dataset.shape): dataset for dataset in datasets}
    if len(datasets) != 2 or set(by_rank) != {1, 4}:
        shapes = ", ".join(str(dataset.shape) for dataset in datasets) or "nothing"
        raise wrong_shapes(path, name, shapes)
    return by_rank[4], by_rank[1]


def _keras_name(name: str) -> str:
    """block4_conv2 for conv4_2, block4_pool for pool4."""
    return f"block{block_of(name)}_" + (f"conv{name[6:]}" if name in CONVOLUTIONS else "pool")
