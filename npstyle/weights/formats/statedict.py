"""Tensors by name from PyTorch's files and from .safetensors, without PyTorch; nothing in a file is run.

What `torch.save` writes is a pickle: a program for a small machine with a stack, which may have any function
of any module called. Python's own machine is not used, not even with every function forbidden: it takes as
much memory as a number in the file says, and overruns its stack where tuples are nested deeply. The machine
below knows text, numbers, containers and tensors, and calls nothing.

A tensor is a place in a file until NumPy asks for its numbers, so what nobody asks for is not read.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickletools import genops
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle.architecture import BLOCKS, CONVOLUTIONS, canonical
from npstyle.errors import UserError

# How a PyTorch file before 1.6 begins, after the two bytes that name the protocol: one large number.
LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_VERSION = 1001
# Bytes that a table of contents may have. VGG19's take less than ten thousand.
MOST_CONTENTS = 4 << 20

# NumPy's codes of the kinds of numbers there are. bfloat16 is the upper half of a float32.
CODES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "?",
}
STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
# What a pickle may name. Each stands for something that is done here, and none is ever imported.
ADMITTED = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *STORAGES,
    *(f"torch.{kind}" for kind in CODES),
}
SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Order = Literal["<", ">"]  # of the bytes of a number: the lowest first, or the highest
# Bytes of the storage of that name, from the `begin`-th on, so many; an exception if they are not there.
Read = Callable[[str, int, int], bytes]


@dataclass(frozen=True)
class Storage:
    """Numbers in a row somewhere in a file."""

    kind: str
    count: int
    order: Order
    read: Callable[[int, int], bytes]


class Tensor:
    """Shape and type of an array in a file; `numpy.asarray` reads it.

    Parameters
    ----------
    storage : Storage
    offset : int
        Where in the storage its first number is.
    shape, strides : sequences of int
        Strides are counted in numbers, not in bytes.
    """

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any) -> None:
        if not (_are_counts([offset]) and _are_counts(shape) and _are_counts(strides)):
            raise ValueError("a tensor whose offset, shape or strides are not a few whole numbers from 0")
        if len(shape) != len(strides) or not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage or with too few strides")
        self.storage = storage
        self.offset: int = offset
        self.shape: tuple[int, ...] = tuple(shape)
        self.strides: tuple[int, ...] = tuple(strides)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What it is read as."""
        kind = self.storage.kind
        if kind not in CODES:
            raise ValueError(f"numbers of the type {kind}")
        return np.dtype("float32" if kind == "bfloat16" else kind)

    def transposed(self, *axes: int) -> Tensor:
        """The same numbers with the axes in another order."""
        shape, strides = zip(*((self.shape[axis], self.strides[axis]) for axis in axes), strict=True)
        return Tensor(self.storage, self.offset, shape, strides)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        # From the slowest axis to the fastest: in that order the numbers lie in a row.
        axes = sorted(range(len(self.shape)), key=lambda axis: (-self.strides[axis], axis))
        count = 1
        for axis in reversed(axes):
            if self.shape[axis] != 1 and self.strides[axis] != count:
                raise ValueError("a tensor whose numbers overlap or have gaps between them")
            count *= self.shape[axis]
        if self.offset + count > self.storage.count:
            raise ValueError("a tensor that reaches beyond its storage")
        plain = np.dtype(CODES[self.storage.kind]).newbyteorder(self.storage.order)
        data = self.storage.read(self.offset * plain.itemsize, count * plain.itemsize)
        numbers = np.frombuffer(data, plain, count)
        if self.storage.kind == "bfloat16":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        array = numbers.reshape([self.shape[axis] for axis in axes]).transpose(np.argsort(axes))
        return array if dtype is None else array.astype(dtype)


def _are_counts(values: Any) -> bool:
    """Whether these are numbers that a file may count things with, and not too many of them."""
    return (
        isinstance(values, (tuple, list))
        and len(values) <= 8
        and all(isinstance(value, int) and 0 <= value < 2**63 for value in values)
    )


class _Name(NamedTuple):
    """What a pickle has named: a function, a kind of storage, a type of numbers."""

    full: str


class _Machine:
    """Runs a pickle as far as it makes text, numbers, containers and tensors; refuses everything else.

    Parameters
    ----------
    path : Path
        For messages.
    read : callable
        What storages are read with.
    order : {"<", ">"}
        Of the bytes of a number in them.

    Attributes
    ----------
    storages : dict of str to Storage
        Those that were named.
    """

    LITERALS = (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
    NEW: Mapping[str, Callable[[], Any]] = {
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_TUPLE": tuple,
        "EMPTY_LIST": list,
        "EMPTY_DICT": dict,
    }

    def __init__(self, path: Path, read: Read, order: Order = "<") -> None:
        self.path, self.read, self.order = path, read, order
        self.storages: dict[str, Storage] = {}
        self.copied = 0

    def run(self, pickle: io.BytesIO) -> Any:
        """What the pickle makes; the file is left standing behind it."""
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what Python says of odd backslashes in text
            for opcode, argument, _ in genops(pickle):
                self._step(opcode.name, argument)
        return self.stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in self.LITERALS:
            stack.append(argument)
        elif name in self.NEW:
            stack.append(self.NEW[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in ("TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS"):
            self.stack = self.below.pop()
            self._gather(name, stack)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = tuple(stack.pop() for _ in range(int(name[-1])))
            stack.append(items[::-1])
        elif name in ("APPEND", "SETITEM"):
            items = tuple(stack.pop() for _ in range(1 if name == "APPEND" else 2))
            self._gather(name + "S", items[::-1])
        elif name == "GLOBAL":
            stack.append(self._named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self._named(module, attribute))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._made(function, arguments))
        elif name == "BUILD":  # attributes, such as an OrderedDict's _metadata: not wanted
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise ValueError(f"attributes of {type(stack[-1]).__name__}")
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name not in ("PROTO", "FRAME", "STOP"):
            if name == "INST":  # a name and a call of it in one
                self._named(*argument.split(" ", 1))
            raise ValueError(f"the pickle instruction {name}")

    def _gather(self, name: str, items: Any) -> None:
        """Put items into a new container on the stack, or into the one that is there."""
        if name == "TUPLE":
            self.stack.append(tuple(items))
        elif name == "LIST":
            self.stack.append(list(items))
        elif name == "APPENDS":
            _as(list, self.stack[-1]).extend(items)
        else:
            if name == "DICT":
                self.stack.append({})
            into = _as(dict, self.stack[-1])
            for key, value in zip(items[::2], items[1::2], strict=True):
                into[_as_key(key)] = value

    def _named(self, module: Any, attribute: Any) -> _Name:
        full = f"{module}.{attribute}"
        if full not in ADMITTED:
            raise UserError(
                f"weights: {self.path}",
                f"the name {ascii(full)[1:-1][:100]} in a pickle, which may run anything",
                "tensors and plain data",
                "save model.state_dict() and nothing else",
            )
        return _Name(full)

    def _made(self, function: Any, arguments: Any) -> Any:
        """What the call of a function that was named comes to."""
        name, given = _as(_Name, function).full, _as(tuple, arguments)
        if name == "collections.OrderedDict":
            pairs = _as(list, given[0]) if given else []
            self.copied += len(pairs)
            if self.copied > MOST_CONTENTS:  # one list may be named again and again
                raise ValueError("too much in it")
            return {_as_key(key): value for key, value in pairs}
        if name == "torch._utils._rebuild_parameter":
            return _as(Tensor, given[0])
        if name.startswith("torch._utils._rebuild_tensor"):
            if any(given[6:]):
                raise ValueError("a tensor that is the conjugate or the negative of its numbers")
            return Tensor(*given[:4])
        raise ValueError(f"a call of {name}")

    def _storage(self, what: Any) -> Storage:
        """What stands for numbers outside the pickle: ("storage", kind, name, device, count)."""
        kind, key, _, count, *view = _as(tuple, what)[1:]
        if what[0] != "storage" or not _are_counts([count]) or any(view):
            raise ValueError("a storage of an unknown form")
        read = partial(self.read, _as(str, key))
        self.storages[key] = Storage(STORAGES[_as(_Name, kind).full], count, self.order, read)
        return self.storages[key]


def _as(kind: type, value: Any) -> Any:
    """The value, if it is of that kind."""
    if not isinstance(value, kind):
        raise ValueError(f"{type(value).__name__} where {kind.__name__.strip('_')} was expected")
    return value


def _as_key(key: Any) -> Any:
    """A key that can be hashed whatever the file holds: hashing a tuple may go deeper than the stack."""
    if not isinstance(key, (str, int)):
        raise ValueError(f"{type(key).__name__} as a key")
    return key


@contextmanager
def open_zip(path: Path) -> Iterator[dict[str, Tensor]]:
    """Tensors of what `torch.save` writes since PyTorch 1.6: a zip file of a pickle and its storages."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        folder = pickle_in(archive).removesuffix("data.pkl")

        def read(key: str, begin: int, size: int) -> bytes:
            return _piece(archive, f"{folder}data/{key}", begin, size)

        order = b"little"
        if f"{folder}byteorder" in archive.namelist():
            order = _piece(archive, f"{folder}byteorder", 0, None)
        orders: dict[bytes, Order] = {b"little": "<", b"big": ">"}
        machine = _Machine(path, read, orders[order])
        yield _tensors(machine.run(io.BytesIO(_piece(archive, f"{folder}data.pkl", 0, None))))


def pickle_in(archive: zipfile.ZipFile) -> str:
    """The name of PyTorch's pickle in a zip file, or nothing."""
    names = [name for name in archive.namelist() if name.count("/") <= 1]
    return next((name for name in names if name.split("/")[-1] == "data.pkl"), "")


def _piece(archive: zipfile.ZipFile, name: str, begin: int, size: int | None) -> bytes:
    """Part of a file in an archive; read whole, its checksum is compared."""
    info = archive.getinfo(name)
    if size is None:
        if info.file_size > MOST_CONTENTS:
            raise ValueError(f"{name} of {info.file_size} bytes")
        size = info.file_size
    if begin + size > info.file_size:
        raise ValueError(f"{name} is too short")
    with archive.open(info) as file:
        if begin:
            file.seek(begin)
        return file.read(size)


@contextmanager
def open_legacy(path: Path) -> Iterator[dict[str, Tensor]]:
    """Tensors of what `torch.save` wrote before PyTorch 1.6: five pickles, and then the storages in a row.

    The pickles are a magic number, the version, what machine wrote it, the object, and the storages' names.
    Numbers have their lowest byte first, whatever machine wrote them.
    """
    begins: dict[str, int] = {}
    with path.open("rb") as file:

        def read(key: str, begin: int, size: int) -> bytes:
            file.seek(begins[key] + begin)
            return file.read(size)

        machine = _Machine(path, read)
        head = io.BytesIO(file.read(MOST_CONTENTS))
        _, version, _, contents, keys = (machine.run(head) for _ in range(5))
        if version != LEGACY_VERSION:
            raise ValueError(f"an unknown version {version!r} of PyTorch's format")
        position = head.tell()
        for key in _as(list, keys):
            storage = machine.storages[_as(str, key)]
            file.seek(position)
            (count,) = struct.unpack("<q", file.read(8))
            begins[key] = position + 8
            position += 8 + count * np.dtype(CODES[storage.kind]).itemsize
            if count != storage.count or position > os.fstat(file.fileno()).st_size:
                raise ValueError(f"storage {key} is too short")
        yield _tensors(contents)


def _tensors(contents: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of a checkpoint that has one in it."""
    if isinstance(contents, dict):
        for inner in (contents.get("state_dict"), contents.get("model"), contents):
            if isinstance(inner, dict):
                found = {key: tensor for key, tensor in inner.items() if isinstance(tensor, Tensor)}
                if found:
                    return {str(key): tensor for key, tensor in found.items()}
    return {}


@contextmanager
def open_safetensors(path: Path) -> Iterator[dict[str, Tensor]]:
    """Tensors of a .safetensors file: the length of a header, the header in JSON, and the numbers."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        room = os.fstat(file.fileno()).st_size - 8 - length
        if length > MOST_CONTENTS or room < 0:
            raise ValueError(f"a header of {length} bytes")
        header = _as(dict, json.loads(file.read(length)))

        def tensor(entry: Any) -> Tensor:
            (begin, end), shape = entry["data_offsets"], entry["shape"]
            if not (_are_counts([begin, end]) and begin <= end <= room and _are_counts(shape)):
                raise ValueError("a tensor that reaches beyond the file or has no shape")

            def read(start: int, size: int) -> bytes:
                if start + size > end - begin:
                    raise ValueError("a tensor that reaches beyond its numbers")
                file.seek(8 + length + begin + start)
                return file.read(size)

            kind = SAFETENSORS.get(entry["dtype"], entry["dtype"])
            strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
            return Tensor(Storage(kind, math.prod(shape), "<", read), 0, shape, strides)

        yield {key: tensor(entry) for key, entry in header.items() if key != "__metadata__"}


def _indices(counts: tuple[int, ...], modules: int) -> tuple[int, ...]:
    """Numbers of the convolutions in a row of modules: each brings `modules`, a pooling closes each block."""
    indices: list[int] = []
    at = 0
    for count in counts:
        indices += range(at, at + modules * count, modules)
        at += modules * count + 1
    return tuple(indices)


# As torchvision numbers them: convolution and ReLU, or convolution, batch normalization and ReLU.
INDICES = _indices(tuple(count for count, _ in BLOCKS), 2)
OTHERS = {
    _indices(counts, modules): name + ending
    for name, counts in {
        "VGG11": (1, 1, 2, 2, 2),
        "VGG13": (2, 2, 2, 2, 2),
        "VGG16": (2, 2, 3, 3, 3),
        "VGG19": (2, 2, 4, 4, 4),
    }.items()
    for modules, ending in ((2, ""), (3, " with batch normalization"))
}

Parts = dict[str, Tensor]  # "weight", "bias", and whatever else a module has


def convolutions(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Kernel (3, 3, C, K) and bias (K,) of each convolution of the VGG19 among the tensors.

    A module is called by its number, as in torchvision (`features.0.weight`), or by its name
    (`conv1_1.weight`); before it may stand the name of whatever it is part of (`module.`, `vgg.features.`).

    Raises
    ------
    UserError
        Another network, or several.
    """
    networks = _networks(tensors)
    if len(networks) > 1:
        names = ", ".join(repr(prefix) for prefix in networks)
        raise UserError(f"weights: {path}", f"several networks ({names})", "one", "save VGG19's alone")
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for modules in networks.values():
        kernels = {label for label, parts in modules.items() if _is_kernel(parts)}
        _check_network(path, kernels, any("running_mean" in parts for parts in modules.values()))
        for label in kernels:
            if "bias" not in modules[label]:
                raise UserError(
                    f"weights: {path}", f"{label} without a bias", "kernel and bias", "take another file"
                )
            kernel, bias = modules[label]["weight"], modules[label]["bias"]
            found[_name_of(label)] = kernel.transposed(2, 3, 1, 0), bias
    return found


def _networks(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Parts]]:
    """Modules by what stands before their names; only what has a first convolution."""
    groups: dict[str, dict[str, Parts]] = {}
    for key, tensor in tensors.items():
        module, _, part = key.rpartition(".")
        prefix, _, label = module.rpartition(".")
        groups.setdefault(prefix, {}).setdefault(label, {})[part] = tensor
    return {
        prefix: modules
        for prefix, modules in groups.items()
        if any(_is_kernel(parts) and _name_of(label) == "conv1_1" for label, parts in modules.items())
    }


def _is_kernel(parts: Parts) -> bool:
    return "weight" in parts and len(parts["weight"].shape) == 4


def _name_of(label: str) -> str:
    """conv1_2 for "2", for "conv1_2" and for "block1_conv2"; nothing for what is none of VGG19's."""
    if label.isascii() and label.isdigit() and len(label) < 4:
        number = int(label)
        return list(CONVOLUTIONS)[INDICES.index(number)] if number in INDICES else ""
    try:
        return canonical(label)
    except UserError:
        return ""


def _check_network(path: Path, kernels: set[str], normalize_network: bool) -> None:
    """Hold the convolutions against VGG19's: all of them, or its lower ones without a gap."""
    if {_name_of(label) for label in kernels} == set(
        list(CONVOLUTIONS)[: len(kernels)]
    ) and not normalize_network:
        return
    labels = sorted(kernels, key=lambda label: (len(label), label))
    numbers = tuple(int(label) for label in labels if label.isascii() and label.isdigit())
    there = "batch normalization" if normalize_network else "the convolutions " + ", ".join(labels[:20])
    raise UserError(
        f"weights: {path}",
        OTHERS.get(numbers, there),
        "VGG19 without batch normalization, or its lower layers",
        "take a state dict of torchvision's vgg19",
    )
