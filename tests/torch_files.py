"""PyTorch's files as `torch.save` writes them, without PyTorch."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from npstyle.architecture import CONVOLUTIONS
from npstyle.weights import ConvWeights, random_weights

Array = NDArray[Any]
Layers = Mapping[str, ConvWeights]

# torchvision's indices of the sixteen convolutions.
INDICES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
KINDS = {"float64": "Double", "float32": "Float", "float16": "Half", "int64": "Long", "uint8": "Byte"}


def stand_ins() -> dict[str, ModuleType]:
    """Modules with the names that PyTorch's pickles have in them."""
    torch, utils, models = (ModuleType(name) for name in ("torch", "torch._utils", "torch.nn.modules"))
    for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Byte"):
        setattr(torch, f"{kind}Storage", type(f"{kind}Storage", (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_anything"):
        setattr(utils, name, type(name, (), {"__module__": "torch._utils"}))
    models.Conv2d = type("Conv2d", (), {"__module__": "torch.nn.modules"})  # type: ignore[attr-defined]
    return {module.__name__: module for module in (torch, utils, models)}


MODULES = stand_ins()


class Stored:
    """Pickled as a reference to a storage."""

    def __init__(self, kind: str, key: str, count: Any, view: Any = None) -> None:
        self.kind, self.key, self.count, self.view = kind, key, count, view


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, Stored):
            return None
        kind = getattr(MODULES["torch"], f"{thing.kind}Storage")
        return "storage", kind, thing.key, "cpu", thing.count, thing.view


def dump(thing: Any, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    with mock.patch.dict(sys.modules, MODULES):
        Pickler(file, protocol).dump(thing)
    return file.getvalue()


def utils(name: str) -> Any:
    return getattr(MODULES["torch._utils"], name)


def rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a C-contiguous array."""
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def tensor(
    storage: Stored, shape: Any, strides: Any = None, offset: Any = 0, how: str = "_rebuild_tensor_v2"
) -> Call:
    more: tuple[Any, ...] = () if how == "_rebuild_tensor" else (False, OrderedDict())
    return Call(utils(how), storage, offset, shape, rows(shape) if strides is None else strides, *more)


def parameter(thing: Call) -> Call:
    return Call(utils("_rebuild_parameter"), thing, True, OrderedDict())


class Contents:
    """A state dict and the storages that it refers to."""

    def __init__(self) -> None:
        self.tensors: dict[str, Any] = OrderedDict()
        self.storages: dict[str, bytes] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, array: Array, kind: str = "", **options: Any) -> None:
        key = str(len(self.storages))
        self.storages[key], self.counts[key] = array.tobytes(), array.size
        storage = Stored(kind or KINDS[array.dtype.name], key, array.size)
        self.tensors[name] = tensor(storage, array.shape, **options)

    def add_layers(self, layers: Layers, form: str = "features.{index}", dtype: str = "float32") -> Contents:
        for index, name in zip(INDICES, CONVOLUTIONS, strict=True):
            if name in layers:
                label = form.format(index=index, name=name)
                kernel, bias = layers[name]
                self.add(f"{label}.weight", kernel.transpose(3, 2, 0, 1).astype(dtype))
                self.add(f"{label}.bias", bias.astype(dtype))
        return self

    def add_arrays(self, arrays: Mapping[str, Array]) -> Contents:
        for name, array in arrays.items():
            self.add(name, array)
        return self


def quantized(layers: Layers) -> dict[str, Array]:
    """Kernels as 8-bit indices into tables of the values that they have, at most 256."""
    arrays: dict[str, Array] = {}
    for name, (kernel, bias) in layers.items():
        values, indices = np.unique(kernel, return_inverse=True)
        indices = indices.reshape(kernel.shape).transpose(3, 2, 0, 1)
        prefix = f"block{name[4]}_conv{name[6]}"
        arrays[f"{prefix}_W_q"] = np.ascontiguousarray(indices, np.uint8)
        arrays[f"{prefix}_W_table"] = np.pad(values, (0, 256 - len(values)))
        arrays[f"{prefix}_b"] = bias
    return arrays


def zipped(
    path: Path,
    contents: Contents,
    thing: Any = None,
    protocol: int = 2,
    folder: str = "archive/",
    order: bytes | None = b"little",
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """A file as torch.save writes it since 1.6."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        pickled = thing if isinstance(thing, bytes) else dump(thing or contents.tensors, protocol)
        archive.writestr(f"{folder}data.pkl", pickled)
        if order is not None:
            archive.writestr(f"{folder}byteorder", order)
        for key, data in contents.storages.items():
            archive.writestr(f"{folder}data/{key}", data)
        archive.writestr(f"{folder}version", b"3\n")


SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def eight_bit_layers(deepest: str, seed: int = 0) -> dict[str, ConvWeights]:
    """Filters with at most 256 values in each kernel."""
    layers = {}
    for name, (kernel, bias) in random_weights(seed, deepest).items():
        rng = np.random.default_rng(seed)
        table = rng.standard_normal(256, np.float32)
        layers[name] = ConvWeights(
            rng.choice(table, kernel.shape), rng.standard_normal(bias.shape, np.float32)
        )
    return layers


def legacy(path: Path, contents: Contents, thing: Any = None, protocol: int = 2, version: int = 1001) -> None:
    """A file as torch.save wrote it before 1.6."""
    pickled = thing if isinstance(thing, bytes) else dump(thing or contents.tensors, protocol)
    pickles = [dump(each, protocol) for each in (0x1950A86A20F9469CFC6C, version, SYSTEM)]
    keys = dump(list(contents.storages), protocol)
    storages = [struct.pack("<q", contents.counts[key]) + data for key, data in contents.storages.items()]
    path.write_bytes(b"".join([*pickles, pickled, keys, *storages]))
