"""Keras HDF5 files (.h5): groups block1_conv1 ..., each with a 4-D kernel and a 1-D bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from npstyle.architecture import CONVOLUTIONS, LAYERS, block_of
from npstyle.errors import UserError
from npstyle.weights.formats.common import MAX_PREPROCESSING_BYTES, Contents, check_layer, wrong_shapes
from npstyle.weights.types import ConvWeights, Weights

if TYPE_CHECKING:
    import h5py

# HDF5 allocates memory for a whole chunk of a dataset; VGG19's largest kernel has 2.4 million elements.
MAX_CHUNK_ELEMENTS = 1 << 24


def read(path: Path, wanted_layers: Sequence[str]) -> Contents:
    """Read layers, from the top level or the group `model_weights`; Keras's own files expect "caffe"."""
    with open_hdf5(path) as file:
        root = _group(file, "model_weights") or file
        return Contents(dict(_layers(path, root, wanted_layers)), _preprocessing(file))


@contextmanager
def open_hdf5(path: Path, mode: Literal["r", "w"] = "r") -> Iterator[h5py.File]:
    """Open a file without locking it, which fails where another program has it open, and on some clusters."""
    import h5py

    try:
        file = h5py.File(path, mode, locking=False)
    except OSError as error:
        if "lock file" not in str(error):
            raise
        raise UserError(  # HDF5_USE_FILE_LOCKING=TRUE in the environment has the last word
            f"weights: {path}",
            "a file that can't be locked",
            "one that no other program has open, or no locking",
            "set HDF5_USE_FILE_LOCKING=FALSE",
        ) from error
    with file:
        yield file


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


def _preprocessing(file: h5py.File) -> str:
    """The attribute `preprocessing`, of fixed length: HDF5 may hang on a damaged one of variable length."""
    if "preprocessing" not in file.attrs:
        return "caffe"
    attribute = file.attrs.get_id("preprocessing")
    dtype = attribute.dtype
    if attribute.shape != () or dtype.kind != "S" or dtype.itemsize > MAX_PREPROCESSING_BYTES:
        raise ValueError("a preprocessing that is not a short string of fixed length")
    return bytes(file.attrs["preprocessing"]).decode()


def _group(parent: h5py.Group, name: str) -> h5py.Group | None:
    """The group of that name in the file itself: a soft or external link could lead to any other file."""
    import h5py

    hard_link = isinstance(parent.get(name, getlink=True), h5py.HardLink)
    group = parent.get(name) if hard_link else None
    return group if isinstance(group, h5py.Group) else None


def _layers(path: Path, root: h5py.Group, names: Sequence[str]) -> Iterator[tuple[str, ConvWeights]]:
    for name in names:
        group = _group(root, _keras_name(name))
        if group is None:
            continue
        datasets = _datasets(group)
        by_rank = {len(dataset.shape): dataset for dataset in datasets}
        if len(datasets) != 2 or set(by_rank) != {1, 4}:
            shapes = ", ".join(str(dataset.shape) for dataset in datasets) or "nothing"
            raise wrong_shapes(path, name, shapes)
        for dataset in datasets:
            _check_storage(dataset)
        yield name, check_layer(path, name, by_rank[4], by_rank[1])


def _datasets(group: h5py.Group) -> list[Any]:
    """All datasets of a group and of the groups within it."""
    items: list[Any] = []
    group.visititems(lambda _, item: items.append(item))
    return [item for item in items if hasattr(item, "shape")]


def _check_storage(dataset: Any) -> None:
    """Refuse elements that are stored in other files, or in chunks much larger than any kernel."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name!a} is stored in other files")
    if dataset.chunks and math.prod(dataset.chunks) > MAX_CHUNK_ELEMENTS:
        raise ValueError(f"{dataset.name!a} in chunks of {dataset.chunks}")


def _keras_name(name: str) -> str:
    """block4_conv2 for conv4_2, block4_pool for pool4."""
    return f"block{block_of(name)}_" + (f"conv{name[6:]}" if name in CONVOLUTIONS else "pool")
