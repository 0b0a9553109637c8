"""PyTorch's files and .safetensors, made by hand: valid, damaged and malicious; recognition of filters."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import reading_error
from npstyle._typing import Preprocessing
from npstyle.architecture import CONVOLUTIONS
from npstyle.errors import UserError
from npstyle.weights import ConvWeights, load_weights, random_weights, read_weights
from npstyle.weights import recognize as _recognize
from npstyle.weights.formats import pickle_machine
from npstyle.weights.formats import safetensors as _safetensors
from npstyle.weights.registry import file_digest
from torch_files import (
    INDICES,
    MODULES,
    Call,
    Contents,
    Stored,
    dump,
    legacy,
    parameter,
    rows,
    tensor,
    utils,
    zipped,
)

Array = NDArray[Any]
Layers = Mapping[str, ConvWeights]
Patch = pytest.MonkeyPatch


def safetensors(path: Path, arrays: Mapping[str, Array], kind: str = "F32", **header: Any) -> None:
    """A .safetensors file; the keywords replace entries of its header."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        entries[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(entries | header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def flat(layers: Layers, dtype: str = "float32") -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for index, name in zip(INDICES, CONVOLUTIONS, strict=True):
        if name in layers:
            kernel, bias = layers[name]
            arrays[f"features.{index}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), dtype)
            arrays[f"features.{index}.bias"] = bias.astype(dtype)
    return arrays


def filters(top: str = "conv1_2") -> dict[str, ConvWeights]:
    rng = np.random.default_rng(3)
    return {
        name: ConvWeights(kernel, rng.standard_normal(bias.shape, np.float32))
        for name, (kernel, bias) in random_weights(3, top).items()
    }


FILTERS = filters()
ONE = {"conv1_1": FILTERS["conv1_1"]}
Writer = Callable[..., None]
both = pytest.mark.parametrize("write", [zipped, legacy])


def assert_reads(path: Path, expected: Layers, dtype: str = "float32") -> None:
    """Assert that the file has these values, rounded to that type."""
    got = read_weights(path, preprocessing="caffe")
    assert list(got) == list(expected)
    for name, layer in got.items():
        for part, original in zip(layer, expected[name], strict=True):
            assert part.dtype == np.float32
            assert part.flags.c_contiguous
            np.testing.assert_array_equal(part, original.astype(dtype).astype(np.float32))


def tensors_error(path: Path, **options: Any) -> str:
    """The message of the UserError that reading the file raises with the preprocessing given."""
    return reading_error(path, **{"preprocessing": "caffe", **options})


@both
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict_values_are_read_exactly(write: Writer, protocol: int, tmp_path: Path) -> None:
    write(tmp_path / "x", Contents().add_layers(FILTERS), protocol=protocol)
    assert_reads(tmp_path / "x", FILTERS)


@both
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_float_types_become_float32(write: Writer, dtype: str, tmp_path: Path) -> None:
    write(tmp_path / "x", Contents().add_layers(FILTERS, dtype=dtype))
    assert_reads(tmp_path / "x", FILTERS, dtype)


def to_bfloat16(array: Array) -> Array:
    """bfloat16: the upper halves of float32 values, truncated."""
    return np.ascontiguousarray((array.view(np.uint32) >> 16).astype(np.uint16))


def as_float32(halves: Array) -> Array:
    return (halves.astype(np.uint32) << 16).view(np.float32)


@both
def test_bfloat16_is_read_as_upper_half_of_float32(write: Writer, tmp_path: Path) -> None:
    contents = Contents()
    for name, array in flat(ONE).items():
        contents.add(name, to_bfloat16(array), "BFloat16")
    write(tmp_path / "x", contents)
    kernel, bias = read_weights(tmp_path / "x", preprocessing="caffe")["conv1_1"]
    np.testing.assert_array_equal(bias, as_float32(to_bfloat16(ONE["conv1_1"].bias)))
    np.testing.assert_array_equal(kernel, as_float32(to_bfloat16(ONE["conv1_1"].kernel)))
    np.testing.assert_allclose(kernel, ONE["conv1_1"].kernel, rtol=2**-7)


@pytest.mark.parametrize("dtype", [">f4", ">f2", ">f8"])
def test_big_endian_zip(dtype: str, tmp_path: Path) -> None:
    zipped(tmp_path / "x", Contents().add_layers(FILTERS, dtype=dtype), order=b"big")
    assert_reads(tmp_path / "x", FILTERS, dtype)
    zipped(tmp_path / "x", Contents().add_layers(FILTERS), order=b"middle")
    assert "a damaged file (b'middle')" in tensors_error(tmp_path / "x")


@pytest.mark.parametrize("folder", ["", "vgg19-dcbb9e9d/", "a name/"])
def test_zip_with_other_folder_and_compression(folder: str, tmp_path: Path) -> None:
    contents = Contents().add_layers(ONE)
    zipped(tmp_path / "x", contents, folder=folder, order=None, compression=zipfile.ZIP_DEFLATED)
    assert_reads(tmp_path / "x", ONE)


# What PyTorch 2.13 writes for nn.Sequential(nn.Conv2d(3, 64, 3)).state_dict(), without the storages.
REAL_ZIP = (
    b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x08\x00\x00\x000.weightq\x02ctorch._utils\n_rebuild"
    b"_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X\x01\x00\x00\x000q\x06X"
    b"\x03\x00\x00\x00cpuq\x07M\xc0\x06tq\x08QK\x00(K@K\x03K\x03K\x03tq\t(K\x1bK\tK\x03K\x01tq\n\x89h\x00)"
    b"Rq\x0btq\x0cRq\rX\x06\x00\x00\x000.biasq\x0eh\x03((h\x04h\x05X\x01\x00\x00\x001q\x0fh\x07K@tq\x10QK"
    b"\x00K@\x85q\x11K\x01\x85q\x12\x89h\x00)Rq\x13tq\x14Rq\x15u}q\x16X\t\x00\x00\x00_metadataq\x17h\x00)R"
    b"q\x18(X\x00\x00\x00\x00q\x19}q\x1aX\x07\x00\x00\x00versionq\x1bK\x01sX\x01\x00\x00\x000q\x1c}q\x1dh"
    b"\x1bK\x01susb."
)
REAL_LEGACY = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00(X\x10\x00\x00\x00protocol_"
    b"versionq\x01M\xe9\x03X\r\x00\x00\x00little_endianq\x02\x88X\n\x00\x00\x00type_sizesq\x03}q\x04(X\x05"
    b"\x00\x00\x00shortq\x05K\x02X\x03\x00\x00\x00intq\x06K\x04X\x04\x00\x00\x00longq\x07K\x04uu.\x80\x02c"
    b"collections\nOrderedDict\nq\x00)Rq\x01(X\x08\x00\x00\x000.weightq\x02ctorch._utils\n_rebuild_tensor_"
    b"v2\nq\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X\x0e\x00\x00\x0094911888923904q"
    b"\x06X\x03\x00\x00\x00cpuq\x07M\xc0\x06Ntq\x08QK\x00(K@K\x03K\x03K\x03tq\t(K\x1bK\tK\x03K\x01tq\n\x89"
    b"h\x00)Rq\x0btq\x0cRq\rX\x06\x00\x00\x000.biasq\x0eh\x03((h\x04h\x05X\x0e\x00\x00\x0094911888917728q"
    b"\x0fh\x07K@Ntq\x10QK\x00K@\x85q\x11K\x01\x85q\x12\x89h\x00)Rq\x13tq\x14Rq\x15u}q\x16X\t\x00\x00\x00_"
    b"metadataq\x17h\x00)Rq\x18(X\x00\x00\x00\x00q\x19}q\x1aX\x07\x00\x00\x00versionq\x1bK\x01sX\x01\x00"
    b"\x00\x000q\x1c}q\x1dh\x1bK\x01susb.\x80\x02]q\x00(X\x0e\x00\x00\x0094911888917728q\x01X\x0e\x00\x00"
    b"\x0094911888923904q\x02e."
)


def test_files_written_by_pytorch(tmp_path: Path) -> None:
    kernel, bias = (array.tobytes() for array in flat(ONE).values())
    contents = Contents()
    contents.storages = {"0": kernel, "1": bias}
    zipped(tmp_path / "zip", contents, REAL_ZIP)
    assert_reads(tmp_path / "zip", ONE)
    storages = struct.pack("<q", 64) + bias + struct.pack("<q", 27 * 64) + kernel
    (tmp_path / "legacy").write_bytes(REAL_LEGACY + storages)
    assert_reads(tmp_path / "legacy", ONE)


@both
@pytest.mark.parametrize(
    "form", ["module.{name}", "vgg.features.{index}", "{index}", "{name}", "a.b.{index}"]
)
def test_keys_with_prefixes(write: Writer, form: str, tmp_path: Path) -> None:
    write(tmp_path / "x", Contents().add_layers(FILTERS, form))
    assert_reads(tmp_path / "x", FILTERS)


@both
@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_state_dict_within_training_checkpoint(write: Writer, key: str, tmp_path: Path) -> None:
    contents = Contents().add_layers(FILTERS)
    best = tensor(Stored("Float", "0", 1728), (1,))
    more = {"epoch": 7, "rate": 1e-3, "best": best, "state": {0: [None, True, (1, 2)]}, "big": 1 << 99}
    write(tmp_path / "x", contents, {**more, key: contents.tensors})
    assert_reads(tmp_path / "x", FILTERS)


@both
def test_parameters_old_tensors_and_attributes(write: Writer, tmp_path: Path) -> None:
    contents = Contents()
    for name, array in flat(ONE).items():
        contents.add(name, array, how="_rebuild_tensor")
        contents.tensors[name] = parameter(contents.tensors[name])
    contents.tensors._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    write(tmp_path / "x", contents)
    assert_reads(tmp_path / "x", ONE)
    # Python 2 made an ordered dict from a list of pairs.
    write(tmp_path / "x", contents, Call(OrderedDict, [list(pair) for pair in contents.tensors.items()]))
    assert_reads(tmp_path / "x", ONE)


@both
def test_tensors_as_views_of_shared_storage(write: Writer, tmp_path: Path) -> None:
    kernel, bias = ONE["conv1_1"]
    last = kernel.transpose(3, 0, 1, 2)  # channels last, as (K, H, W, C)
    contents = Contents()
    contents.add("features.0.bias", np.concatenate([np.zeros(5, np.float32), bias, last.reshape(-1)]))
    storage = contents.tensors["features.0.bias"].arguments[0]
    contents.tensors["features.0.bias"] = tensor(storage, (64,), offset=5)
    contents.tensors["features.0.weight"] = tensor(storage, (64, 3, 3, 3), (27, 1, 9, 3), 69)
    write(tmp_path / "x", contents)
    assert_reads(tmp_path / "x", ONE)


@both
def test_other_tensors_are_not_read(write: Writer, tmp_path: Path) -> None:
    contents = Contents().add_layers(FILTERS)
    contents.add("classifier.0.weight", np.zeros((600, 10000), np.float32))
    contents.storages["2"] = contents.storages["2"][:-4] + struct.pack("<f", np.nan)  # the last of conv1_2
    write(tmp_path / "x", contents)
    tracemalloc.start()
    assert list(read_weights(tmp_path / "x", "conv1_1", preprocessing="caffe")) == ["conv1_1"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12e6  # the file has 24 MB
    assert "NaN or infinity in conv1_2" in tensors_error(tmp_path / "x")


class MakeFolder:
    """Pickled as a call that makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def malicious(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    folder = tmp_path / "trace"
    conv2d = MODULES["torch.nn.modules"].Conv2d
    yield MakeFolder(folder), f"{os.mkdir.__module__}.mkdir"
    yield {"features.0.weight": [MakeFolder(folder)]}, f"{os.mkdir.__module__}.mkdir"
    yield Call(OrderedDict, MakeFolder(folder)), f"{os.mkdir.__module__}.mkdir"
    yield Call(os.system, f"mkdir {folder}"), f"{os.system.__module__}.system"
    yield Call(eval, f"__import__('os').mkdir({str(folder)!r})"), "builtins.eval"
    yield Call(getattr, Call(__import__, "os"), "mkdir"), "builtins.getattr"
    yield np.float64(1), "numpy"
    yield np.zeros(3), "numpy"
    yield conv2d(), "copyreg._reconstructor"
    yield Call(utils("_rebuild_anything"), 1), "torch._utils._rebuild_anything"
    yield {os.mkdir: 1}, f"{os.mkdir.__module__}.mkdir"


@both
@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("index", range(11))
def test_pickle_executes_nothing(write: Writer, protocol: int, index: int, tmp_path: Path) -> None:
    thing, name = list(malicious(tmp_path))[index]
    if protocol > 1 and "copyreg" in name:
        name = "torch.nn.modules.Conv2d"  # since protocol 2 there is an instruction for it
    # Protocols 0 and 1 call Python's own functions by other names.
    data = dump(thing, protocol)
    write(tmp_path / "x", Contents(), data)
    line = tensors_error(tmp_path / "x")
    module, _, function = name.partition(".")
    old = {"builtins": "__builtin__", "copyreg": "copy_reg"}.get(module, module)
    assert any(f"found the name {each}.{function}" in line for each in (module, old))
    assert "expected tensors and plain data; save model.state_dict() and nothing else" in line
    assert not (tmp_path / "trace").exists()


TENSORS = b"ctorch._utils\n_rebuild_tensor_v2\n"
RAW: dict[str, tuple[bytes, str]] = {
    "an old call": (b"(S'x'\nios\nsystem\n.", "the name os.system in a pickle"),
    "an old call of something good": (b"(icollections\nOrderedDict\n.", "the pickle instruction INST"),
    "a class": (b"(ccollections\nOrderedDict\no.", "the pickle instruction OBJ"),
    "a new object": (b"ccollections\nOrderedDict\n)\x81.", "the pickle instruction NEWOBJ"),
    "an extension": (b"\x82\x01.", "the pickle instruction EXT1"),
    "a name with control characters": (b"cos\x1b[2J\nsystem\n.", r"the name os\x1b[2J.system in a pickle"),
    "a name from numbers": (b"K\x01K\x02\x93.", "the name 1.2 in a pickle"),
    "a call of a type": (b"ctorch\nFloatStorage\n)R.", "a call of torch.FloatStorage"),
    "a call of a text": (b"X\x01\x00\x00\x00a)R.", "str where GlobalName was expected"),
    "a call without a tuple": (b"ccollections\nOrderedDict\n]R.", "list where tuple was expected"),
    "attributes of a function": (b"ccollections\nOrderedDict\n}b.", "attributes of GlobalName"),
    "attributes of a list": (b"]}b.", "attributes of list"),
    "a text as a storage": (b"X\x01\x00\x00\x00aQ.", "str where tuple was expected"),
    "a short storage": (b")Q.", "not enough values to unpack"),
    "a tensor of nothing": (TENSORS + b"(NK\x00)))tR.", "a tensor without a storage"),
    "a tensor of too little": (TENSORS + b")R.", "missing 4 required positional arguments"),
    "a tuple as a key": (b"})K\x01s.", "tuple as a key"),
    "a list as a list": (b"X\x01\x00\x00\x00aK\x01a.", "str where list was expected"),
    "a key without a value": (b"}(K\x01u.", "zip()"),
    "nothing on the stack": (b"R.", "pop from empty list"),
    "no mark": (b"u.", "pop from empty list"),
    "no such memory": (b"h\x07.", "7"),
    "no end": (b"]", "pickle exhausted before seeing STOP"),
    "an unknown instruction": (b"\xff.", "unknown"),
    # What Python's own machine gives memory for, or goes down with.
    "a large memory": (b"]r\xff\xff\xff\xff.", "no filters of VGG19"),
    "a large text": (b"X\xff\xff\xff\xffabc.", "expected 4294967295 bytes in a unicodestring4"),
    "a larger text": (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x0fabc.", "bytes in a unicodestring8"),
    "a large array of bytes": (b"\x96\xff\xff\xff\xff\xff\xff\xff\x0fabc.", "bytes in a bytearray8"),
    "a large number": (b"\x8b\xff\xff\xff\x7fabc.", "not enough data in stream to read long4"),
    "deep tuples": (b"})" + b"\x85" * 300_000 + b"K\x01s.", "tuple as a key"),
    "deep lists": (b"(" * 100_000 + b"l" * 100_000 + b".", "no filters of VGG19"),
}


@both
@pytest.mark.parametrize(("data", "words"), RAW.values(), ids=RAW.keys())
def test_malformed_pickle_is_reported(write: Writer, data: bytes, words: str, tmp_path: Path) -> None:
    write(tmp_path / "x", Contents(), b"\x80\x02" + data)
    if write is legacy and words.startswith("pickle exhausted"):
        words = "damaged file"  # it goes on into the next pickle
    assert words in tensors_error(tmp_path / "x")


@both
def test_repeated_copies_of_list_are_limited(write: Writer, tmp_path: Path) -> None:
    pairs = b"](" + b"".join(b"K" + bytes([n % 256]) + b"K\x00\x86" for n in range(50_000)) + b"eq\x01"
    again = b"ccollections\nOrderedDict\nq\x02" + b"h\x02h\x01\x85R" * 1000
    write(tmp_path / "x", Contents(), b"\x80\x02" + pairs + again + b".")
    assert "a damaged file (too many items)" in tensors_error(tmp_path / "x")


def test_pickle_size_is_limited(tmp_path: Path) -> None:
    long = b"\x80\x02" + b"N" * pickle_machine.MAX_PICKLE_BYTES + b"."
    zipped(tmp_path / "x", Contents(), long, compression=zipfile.ZIP_DEFLATED)
    assert f"archive/data.pkl of {len(long)} bytes" in tensors_error(tmp_path / "x")
    legacy(tmp_path / "x", Contents(), long)
    assert "pickle exhausted before seeing STOP" in tensors_error(tmp_path / "x")


KERNEL = (64, 3, 3, 3)
HUGE = 2**62
# Shape, strides and offset of the kernel; the number of elements that the pickle states; part of the message.
IMPOSSIBLE: dict[str, tuple[Any, Any, Any, Any, str]] = {
    "offset beyond": (KERNEL, rows(KERNEL), 1, 1728, "extends beyond its storage"),
    "offset far beyond": (KERNEL, rows(KERNEL), HUGE, 1728, "extends beyond its storage"),
    "offset below": (KERNEL, rows(KERNEL), -1, 1728, "not at most 8 integers from 0"),
    "storage stated larger": (KERNEL, rows(KERNEL), 1, 1729, "too short"),
    "storage stated huge": (KERNEL, rows(KERNEL), HUGE, 2 * HUGE - 1, "too short|too large"),
    "storage beyond 64 bits": (KERNEL, rows(KERNEL), 0, 2**70, "a storage of an unknown form"),
    "storage of negative size": (KERNEL, rows(KERNEL), 0, -1, "a storage of an unknown form"),
    "strides of 0": (KERNEL, (0, 0, 0, 0), 0, 1728, "overlap or have gaps"),
    "overlapping strides": (KERNEL, (27, 9, 1, 1), 0, 1728, "overlap or have gaps"),
    "strides with gaps": (KERNEL, (54, 18, 6, 2), 0, 1728, "overlap or have gaps"),
    "negative strides": (KERNEL, (27, 9, 3, -1), 2, 1728, "not at most 8 integers from 0"),
    "huge strides": (KERNEL, (HUGE, 9, 3, 1), 0, 1728, "overlap or have gaps"),
    "fewer strides": (KERNEL, (27, 9, 3), 0, 1728, "shape and strides of different lengths"),
    "a huge shape": ((HUGE, 3, 3, 3), rows(KERNEL), 0, 1728, f"(3, 3, 3, {HUGE})"),
    "a shape beyond 64 bits": ((2**70, 3, 3, 3), rows(KERNEL), 0, 1728, "not at most 8 integers from 0"),
    "a negative shape": ((-64, 3, 3, 3), rows(KERNEL), 0, 1728, "not at most 8 integers from 0"),
    "many axes": ((1,) * 5000, (1,) * 5000, 0, 1728, "not at most 8 integers from 0"),
    "a shape of text": (("64", 3, 3, 3), rows(KERNEL), 0, 1728, "not at most 8 integers from 0"),
    "no shape": (None, rows(KERNEL), 0, 1728, "not at most 8 integers from 0"),
}


@both
@pytest.mark.parametrize(
    ("shape", "strides", "offset", "count", "words"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys()
)
def test_impossible_tensors_are_refused(
    write: Writer, shape: Any, strides: Any, offset: Any, count: Any, words: str, tmp_path: Path
) -> None:
    contents = Contents().add_layers(ONE)
    contents.tensors["features.0.weight"] = tensor(Stored("Float", "0", count), shape, strides, offset)
    write(tmp_path / "x", contents)
    line = tensors_error(tmp_path / "x")
    assert any(word in line for word in words.split("|"))


@both
def test_malformed_storages_are_refused(write: Writer, tmp_path: Path) -> None:
    contents = Contents().add_layers(ONE)
    contents.tensors["features.0.bias"] = tensor(Stored("Float", "1", 64, ("1", 0, 64)), (64,))
    write(tmp_path / "view", contents)
    assert "a storage of an unknown form" in tensors_error(tmp_path / "view")
    contents.tensors["features.0.bias"] = tensor(Stored("Float", "../1", 64), (64,))
    write(tmp_path / "name", contents)
    assert "a damaged file (" in tensors_error(tmp_path / "name")
    contents = Contents().add_layers({})
    contents.add("features.0.weight", flat(ONE)["features.0.weight"])
    contents.add("features.0.bias", np.zeros(64, np.int64))
    write(tmp_path / "complete", contents)
    assert "conv1_1 of types float32 and int64" in tensors_error(tmp_path / "complete")
    call = contents.tensors["features.0.weight"]
    contents.tensors["features.0.weight"] = Call(call.function, *call.arguments, {"neg": True})
    write(tmp_path / "negative", contents)
    assert "the conjugate or the negative" in tensors_error(tmp_path / "negative")


def test_legacy_storage_with_wrong_count_is_refused(tmp_path: Path) -> None:
    contents = Contents().add_layers(ONE)
    for count in (1727, 1729, -1728, HUGE):
        contents.counts["0"] = count
        legacy(tmp_path / "x", contents)
        assert "a damaged file (storage 0 is too short)" in tensors_error(tmp_path / "x")
    legacy(tmp_path / "x", Contents().add_layers(ONE), version=1002)
    assert "an unknown version 1002 of PyTorch's format" in tensors_error(tmp_path / "x")


def writers() -> dict[str, Callable[[Path], None]]:
    return {
        "zip": lambda path: zipped(path, Contents().add_layers(ONE)),
        "legacy": lambda path: legacy(path, Contents().add_layers(ONE)),
        "safetensors": lambda path: safetensors(path, flat(ONE)),
    }


every_kind = pytest.mark.parametrize("write", writers().values(), ids=writers().keys())


@every_kind
def test_file_truncated_anywhere_is_reported(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "complete")
    data = (tmp_path / "complete").read_bytes()
    for length in [*range(0, 800, 3), *range(800, len(data), 97), *range(len(data) - 50, len(data))]:
        (tmp_path / "x").write_bytes(data[:length])
        line = tensors_error(tmp_path / "x")
        assert any(word in line for word in ("damaged file (", "an empty file", "an unknown format"))


@every_kind
def test_file_with_wrong_bytes_is_read_or_reported(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "complete")
    data = (tmp_path / "complete").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        wrong = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            wrong[rng.integers(-300, 300)] = rng.integers(0, 256)
        (tmp_path / "x").write_bytes(wrong)
        try:
            read_weights(tmp_path / "x", preprocessing="caffe")
        except UserError:
            refused += 1
    assert refused > 100


def test_zip_checksum_detects_wrong_element(tmp_path: Path) -> None:
    zipped(tmp_path / "x", Contents().add_layers(ONE))
    data = bytearray((tmp_path / "x").read_bytes())
    data[2000] ^= 1
    (tmp_path / "x").write_bytes(data)
    assert "a damaged file (Bad CRC-32 for file 'archive/data/0')" in tensors_error(tmp_path / "x")


def network(counts: tuple[int, ...], batch_normalization: bool = False) -> Contents:
    """Another network of the family, with so many convolutions in each block."""
    contents, index, C = Contents(), 0, 3
    for block, K in zip(counts, (64, 128, 256, 512, 512), strict=True):
        for _ in range(block):
            contents.tensors[f"features.{index}.weight"] = tensor(Stored("Float", "0", 1), (K, C, 3, 3))
            contents.tensors[f"features.{index}.bias"] = tensor(Stored("Float", "0", 1), (K,))
            if batch_normalization:
                for part in ("weight", "bias", "running_mean", "running_var"):
                    name = f"features.{index + 1}.{part}"
                    contents.tensors[name] = tensor(Stored("Float", "0", 1), (K,))
                name = f"features.{index + 1}.num_batches_tracked"
                contents.tensors[name] = tensor(Stored("Long", "0", 1), ())
            index, C = index + 2 + batch_normalization, K
        index += 1
    return contents


OTHERS = {
    "VGG11": network((1, 1, 2, 2, 2)),
    "VGG13": network((2, 2, 2, 2, 2)),
    "VGG16": network((2, 2, 3, 3, 3)),
    "VGG19 with batch normalization": network((2, 2, 4, 4, 4), batch_normalization=True),
    "VGG16 with batch normalization": network((2, 2, 3, 3, 3), batch_normalization=True),
    "batch normalization": network((1, 0, 0, 0, 0), batch_normalization=True),
    "the convolutions 0, 2, 5, 7, 10, 12, 15": network((2, 2, 2, 1, 0)),
}


@pytest.mark.parametrize(("found", "contents"), OTHERS.items(), ids=OTHERS.keys())
def test_other_networks_are_refused_by_name(found: str, contents: Contents, tmp_path: Path) -> None:
    zipped(tmp_path / "x", contents)
    expected = (
        "VGG19 without batch normalization, or its lower layers; take a state dict of torchvision's vgg19"
    )
    for deepest in ("conv1_1", "conv5_4"):
        line = tensors_error(tmp_path / "x", deepest=deepest)
        assert line == f"weights: {tmp_path / 'x'}: found {found}; expected {expected}"


def test_missing_and_duplicate_layers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    zipped(path, Contents().add_layers(filters("conv2_1"), "{name}"))
    assert list(read_weights(path, preprocessing="caffe")) == ["conv1_1", "conv1_2", "conv2_1"]
    contents = Contents().add_layers(filters("conv2_1"), "{name}")
    del contents.tensors["conv1_2.weight"]
    zipped(path, contents)
    assert "found the convolutions conv1_1, conv2_1; expected VGG19" in tensors_error(path)
    contents = Contents().add_layers(FILTERS, "{name}")
    del contents.tensors["conv1_2.bias"]
    zipped(path, contents)
    assert "conv1_2 without a bias" in tensors_error(path)
    zipped(path, Contents().add_layers(ONE, "{name}").add_layers(ONE, "{index}"))
    assert "found the convolutions 0, conv1_1; expected VGG19" in tensors_error(path)
    zipped(path, Contents().add_layers(ONE, "a.{name}").add_layers(ONE, "b.{index}"))
    assert "found several networks ('a', 'b'); expected one; save VGG19's alone" in tensors_error(path)
    zipped(path, Contents().add_layers({}), {"weight": [1, 2]})
    assert "found no filters of VGG19" in tensors_error(path)
    zipped(path, Contents(), dump([1, 2]))
    assert "found no filters of VGG19" in tensors_error(path)


def test_wrong_kernel_size_is_reported(tmp_path: Path) -> None:
    contents = Contents().add_layers(ONE)
    contents.add("features.0.weight", np.zeros((64, 3, 5, 5), np.float32))
    zipped(tmp_path / "x", contents)
    assert "conv1_1 with kernel (5, 5, 3, 64) and bias (64,)" in tensors_error(tmp_path / "x")


@pytest.mark.parametrize(("kind", "dtype"), [("F32", "<f4"), ("F16", "<f2"), ("F64", "<f8")])
def test_safetensors_values_are_read_exactly(kind: str, dtype: str, tmp_path: Path) -> None:
    safetensors(tmp_path / "x", flat(FILTERS, dtype), kind)
    assert_reads(tmp_path / "x", FILTERS, dtype)


def test_safetensors_of_bfloat16(tmp_path: Path) -> None:
    safetensors(tmp_path / "x", {name: to_bfloat16(array) for name, array in flat(ONE).items()}, "BF16")
    bias = read_weights(tmp_path / "x", preprocessing="caffe")["conv1_1"].bias
    np.testing.assert_array_equal(bias, as_float32(to_bfloat16(ONE["conv1_1"].bias)))


def entry(shape: Any, begin: Any, end: Any, kind: Any = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


BEYOND = "extends beyond the file or has no shape"
WRONG_ENTRIES: dict[str, tuple[Any, str]] = {
    "beyond the end": (entry([64], 6912, 7172), BEYOND),
    "far beyond": (entry([64], HUGE, HUGE + 256), BEYOND),
    "before the beginning": (entry([64], -256, 0), BEYOND),
    "backward": (entry([64], 7168, 6912), BEYOND),
    "too few elements": (entry([64], 6912, 7164), "extends beyond its elements"),
    "a negative shape": (entry([-64], 6912, 7168), BEYOND),
    "a shape of text": (entry("64", 6912, 7168), BEYOND),
    "a shape of fractions": (entry([64.0], 6912, 7168), BEYOND),
    "a huge shape": (entry([HUGE], 6912, 7168), f"bias ({HUGE},)"),
    "a shape beyond 64 bits": (entry([2**62] * 6, 6912, 7168), "not at most 8 integers"),
    "many axes": (entry([1] * 100, 6912, 7168), BEYOND),
    "no offsets": ({"dtype": "F32", "shape": [64]}, "data_offsets"),
    "one offset": ({"dtype": "F32", "shape": [64], "data_offsets": [0]}, "not enough values"),
    "no entry": (7, "not subscriptable"),
    "an unknown type": (entry([64], 6912, 7168, "F8_E4M3"), "elements of the type F8_E4M3"),
    "integers": (entry([64], 6912, 7168, "I32"), "elements of the type I32"),
    "a list as a type": (entry([64], 6912, 7168, ["F32"]), "unhashable"),
}


@pytest.mark.parametrize(("bias", "words"), WRONG_ENTRIES.values(), ids=WRONG_ENTRIES.keys())
def test_malformed_safetensors_entry_is_reported(bias: Any, words: str, tmp_path: Path) -> None:
    safetensors(tmp_path / "x", flat(ONE), **{"features.0.bias": bias})
    assert words in tensors_error(tmp_path / "x")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"{", "a damaged file (Expecting property name"),
        (b'{"a": ' + b"[" * 100_000, "a damaged file ("),
        (b'{"a": ' + b"9" * 100_000 + b"}", "a damaged file ("),
        (b"{} x", "a damaged file (Extra data"),
        (b"{}", "no filters of VGG19"),
        (b'{"\xff": 1}', "a damaged file ('utf-8' codec"),
    ],
)
def test_malformed_safetensors_header_is_reported(header: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header)
    assert words in tensors_error(tmp_path / "x")


def test_safetensors_header_size_is_limited(tmp_path: Path) -> None:
    for length in (100, 2**32 - 1, _safetensors.MAX_HEADER_BYTES + 1):
        (tmp_path / "x").write_bytes(struct.pack("<Q", length) + b"{}")
        assert f"a damaged file (a header of {length} bytes)" in tensors_error(tmp_path / "x")
    (tmp_path / "x").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    assert "an unknown format" in tensors_error(tmp_path / "x")


def published(units: Any = 1, rgb: bool = False, scale: float = 1) -> dict[str, ConvWeights]:
    """Filters with the published values at the few places that identify them."""
    kernel, bias = (part.copy() for part in ONE["conv1_1"])
    values = np.array(_recognize.PUBLISHED, np.float32)
    kernel[1, 1, :, :3] = scale * values[:, :3].T
    bias[:3] = values[:, 3]
    kernel, bias = kernel * np.float32(units), bias * np.float32(units)
    return {"conv1_1": ConvWeights(kernel[:, :, ::-1] if rgb else kernel, bias)}


UNITS = np.random.default_rng(1).uniform(0.001, 30, 64)


@pytest.mark.parametrize("units", [1, UNITS], ids=["original", "rescaled"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_published_filters_are_recognized_by_values(units: Any, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    zipped(path, Contents().add_layers(published(units), dtype=dtype))
    got = read_weights(path)
    assert got.preprocessing == "caffe"
    assert got.source == f"{path} (recognized as the published filters: caffe)"
    zipped(path, Contents().add_layers(published(units, rgb=True), dtype=dtype))
    converted = read_weights(path)
    assert (
        converted.source == f"{path} (recognized as the published filters, converted from RGB to BGR: caffe)"
    )
    np.testing.assert_array_equal(converted["conv1_1"].kernel, got["conv1_1"].kernel)
    assert converted["conv1_1"].kernel.flags.c_contiguous


@pytest.mark.parametrize("scale", [255, 1 / 255, -1, 0, 1.1])
def test_other_values_are_not_recognized(scale: float, tmp_path: Path) -> None:
    """Filters for pictures from 0 to 1 would be the published ones times 255, but for the bias."""
    zipped(tmp_path / "x", Contents().add_layers(published(scale=scale)))
    expected = (
        "found filters whose preprocessing is not known; expected caffe (BGR, 0 to 255, minus the mean) or "
        "torchvision (RGB, 0 to 1, mean and standard deviation); give --preprocessing caffe or "
        "--preprocessing torchvision"
    )
    assert tensors_error(tmp_path / "x", preprocessing=None) == f"weights: {tmp_path / 'x'}: {expected}"


def test_zeros_are_not_recognized(tmp_path: Path) -> None:
    zeros = {name: np.zeros_like(array) for name, array in flat(ONE).items()}
    safetensors(tmp_path / "x", zeros)
    assert "filters whose preprocessing is not known" in tensors_error(tmp_path / "x", preprocessing=None)


@every_kind
@pytest.mark.parametrize("preprocessing", ["caffe", "torchvision"])
def test_file_is_recognized_by_checksum(
    write: Writer, preprocessing: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    path = tmp_path / "x"
    write(path)
    monkeypatch.setitem(_recognize.BY_CHECKSUM, file_digest(path, "sha256")[:8], preprocessing)
    got = read_weights(path)
    assert (got.preprocessing, got.source) == (
        preprocessing,
        f"{path} (recognized by checksum: {preprocessing})",
    )
    np.testing.assert_array_equal(got["conv1_1"].kernel, ONE["conv1_1"].kernel)


@pytest.mark.parametrize("preprocessing", ["caffe", "torchvision"])
def test_preprocessing_argument_takes_precedence(preprocessing: Preprocessing, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for layers in (ONE, published(), published(rgb=True)):
        zipped(path, Contents().add_layers(layers))
        got = load_weights(path, preprocessing=preprocessing)
        assert (got.preprocessing, got.source) == (preprocessing, str(path))
        np.testing.assert_array_equal(got["conv1_1"].kernel, layers["conv1_1"].kernel)


def test_imagenet_filters_are_recognized_by_values(real_weights: str, tmp_path: Path) -> None:
    real = read_weights(real_weights, "conv1_2")
    zipped(tmp_path / "x", Contents().add_layers(real))
    got = read_weights(tmp_path / "x")
    assert got.source.endswith("(recognized as the published filters: caffe)")
    np.testing.assert_array_equal(got["conv1_2"].kernel, real["conv1_2"].kernel)


@pytest.mark.parametrize("write", [zipped, legacy])
def test_invalid_escapes_in_pickle_raise_no_warning(write: Writer, tmp_path: Path) -> None:
    write(tmp_path / "x", Contents(), rb"""}S'\u'""" + b"\nK\1s.")
    with pytest.raises(UserError, match="no filters of VGG19"):
        read_weights(tmp_path / "x")
