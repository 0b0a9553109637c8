"""Filters from files of every format, random filters, messages about unusable files, and writing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from helpers import reading_error
from npstyle._typing import Preprocessing
from npstyle.architecture import CONVOLUTIONS, PREPROCESSINGS
from npstyle.cli.main import main
from npstyle.errors import UserError
from npstyle.weights import (
    ConvWeights,
    RandomFiltersWarning,
    Weights,
    check_target,
    load_weights,
    random_weights,
    read_weights,
    recognize,
    write_weights,
)
from npstyle.weights import download as _download
from npstyle.weights import registry as _registry
from npstyle.weights.formats import WRITERS as FILE_WRITERS

Layers = dict[str, ConvWeights]
Writer = Callable[[Path, Layers], None]
Patch = pytest.MonkeyPatch
Output = pytest.CaptureFixture[str]


def filters(deepest: str = "conv2_2") -> Layers:
    """Filters to write into a file, with biases that are not zero."""
    rng = np.random.default_rng(7)
    return {
        name: ConvWeights(kernel, rng.standard_normal(bias.shape, np.float32))
        for name, (kernel, bias) in random_weights(7, deepest).items()
    }


def keras(path: Path, layers: Layers, level: str = "/", new: bool = False, classifier: bool = False) -> None:
    """HDF5 as Keras writes it: `block1_conv1_W_1:0` in old files, `kernel:0` one group deeper in new ones."""
    with h5py.File(path, "w") as file:
        root = file.require_group(level)
        groups: dict[str, tuple[Any, Any]] = {f"block{n[4]}_conv{n[6]}": layer for n, layer in layers.items()}
        root.create_group("block1_pool").attrs["weight_names"] = np.array([], "S1")
        if classifier:
            groups["fc1"] = (np.zeros((4, 2), np.float32), np.zeros(2, np.float32))
        for name, arrays in groups.items():
            names = [f"{name}/kernel:0", f"{name}/bias:0"] if new else [f"{name}_W_1:0", f"{name}_b_1:0"]
            group = root.create_group(name)
            group.attrs["weight_names"] = [text.encode() for text in names]
            for text, array in zip(names, arrays, strict=True):
                group[text] = array


def npz(path: Path, layers: Mapping[str, tuple[Any, Any]], **others: Any) -> None:
    arrays = {f"{name}/kernel": kernel for name, (kernel, _) in layers.items()}
    arrays |= {f"{name}/bias": bias for name, (_, bias) in layers.items()}
    others.setdefault("preprocessing", np.array("caffe"))
    with path.open("wb") as file:
        np.savez(file, **arrays, **others)


def cells(*items: Any) -> NDArray[np.object_]:
    array = np.empty((1, len(items)), object)
    for index, item in enumerate(items):
        array[0, index] = item
    return array


def mat(path: Path, layers: Layers, old: bool = False, nested: bool = False) -> None:
    """A MatConvNet file: conv1_1 for red, green, blue; a layer without filters and one without a name."""
    structs: list[Any] = [{"name": "relu1_1", "type": "relu"}, {"name": "", "type": "relu"}]
    for name, (kernel, bias) in layers.items():
        turned = kernel[:, :, ::-1] if name == "conv1_1" else kernel
        row = bias.reshape(1, -1)
        pair: dict[str, Any] = {"filters": turned, "biases": row} if old else {"weights": cells(turned, row)}
        structs.append({"name": name, "type": "conv", **pair})
    savemat(path, {"layers": cells(*(cells(struct) if nested else struct for struct in structs))})


def keras3(
    path: Path, layers: Mapping[str, ConvWeights], level: str = "layers", more: Sequence[Any] = ()
) -> None:
    """HDF5 as Keras 3 writes it, with vars/0 and vars/1 in each group; `more` are other convolutions."""
    with h5py.File(path, "w") as file:
        file.create_group(f"{level}/input_layer/vars")
        for number, arrays in enumerate([*layers.values(), *more]):
            group = file.create_group(f"{level}/conv2d{f'_{number}' if number else ''}/vars")
            for key, array in enumerate(arrays):
                group[str(key)] = array
            moments = file.require_group("optimizer/vars")
            moments[str(len(moments))] = arrays[0]


def keras_zip(path: Path, layers: Layers, level: str = "layers", method: int = zipfile.ZIP_STORED) -> None:
    """A .keras file of Keras 3."""
    keras3(path, layers, level)
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.9.0"}')
        archive.writestr("config.json", '{"class_name": "Functional"}')
        archive.writestr("model.weights.h5", content)


WRITERS: dict[str, Writer] = {
    "keras old": keras,
    "keras new": partial(keras, new=True),
    "keras old with classifier": partial(keras, classifier=True),
    "keras new with classifier": partial(keras, new=True, classifier=True),
    "keras old in model_weights": partial(keras, level="model_weights"),
    "keras new in model_weights": partial(keras, level="model_weights", new=True, classifier=True),
    "keras old in a larger model": partial(keras, level="model_weights/vgg19"),
    "keras new in a larger model": partial(keras, level="model_weights/vgg19", new=True),
    "keras 3": keras3,
    "keras 3 in a larger model": partial(keras3, level="layers/functional/layers"),
    "keras 3 in an early version": partial(keras3, level="_layer_checkpoint_dependencies"),
    "keras 3 zip": keras_zip,
    "keras 3 zip in a larger model": partial(keras_zip, level="vgg/layers"),
    "matconvnet newer": mat,
    "matconvnet older": partial(mat, old=True),
    "matconvnet newer nested": partial(mat, nested=True),
    "matconvnet older nested": partial(mat, old=True, nested=True),
    "npz": npz,
}
every_format = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
three_formats = pytest.mark.parametrize("write", [keras, mat, npz], ids=["keras", "mat", "npz"])


@every_format
def test_read_weights_returns_exact_values(write: Writer, tmp_path: Path) -> None:
    path, layers = tmp_path / "any.name", filters()
    write(path, layers)
    got = read_weights(path)
    assert list(got) == ["conv1_1", "conv1_2", "conv2_1", "conv2_2"]
    for name, layer in got.items():
        for part, original in zip(layer, layers[name], strict=True):
            assert part.dtype == np.float32
            assert part.flags.c_contiguous
            np.testing.assert_array_equal(part, original)
    assert (got.source, got.random) == (str(path), False)
    assert repr(got) == f"<Weights of 4 layers: {path}>"


@every_format
def test_layers_above_deepest_are_not_read(write: Writer, tmp_path: Path) -> None:
    layers = filters()
    layers["conv2_1"].bias[0] = np.nan
    write(tmp_path / "x", layers)
    assert list(read_weights(tmp_path / "x", deepest="pool1")) == ["conv1_1", "conv1_2"]
    assert list(read_weights(tmp_path / "x", deepest="relu1_1")) == ["conv1_1"]
    assert "NaN or infinity in conv2_1" in reading_error(tmp_path / "x")


@three_formats
@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_float_types_become_float32(write: Writer, dtype: str, tmp_path: Path) -> None:
    layer = ConvWeights(*(part.astype(dtype) for part in ONE))
    write(tmp_path / "x", {"conv1_1": layer})
    got = read_weights(tmp_path / "x")["conv1_1"].kernel
    assert got.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(got, layer.kernel.astype(np.float32))


def test_weights_accept_all_layer_names() -> None:
    weights = random_weights(0, "conv1_2")
    assert weights["relu1_2"] is weights["block1_conv2"] is weights["conv1_2"]
    assert "block1_conv1" in weights
    assert "conv2_1" not in weights
    with pytest.raises(KeyError, match="relu2_1"):
        weights["relu2_1"]
    assert "fc1" not in weights
    assert weights.get("fc1") is None


def test_random_weights_depend_on_seed_only() -> None:
    one, same, other = (random_weights(seed, "conv1_1")["conv1_1"].kernel for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1


def test_random_weights_of_layer_do_not_depend_on_deepest() -> None:
    few, many = random_weights(5, "conv1_2"), random_weights(5, "conv3_3")
    assert (len(few), len(many)) == (2, 7)
    for name in few:
        np.testing.assert_array_equal(few[name].kernel, many[name].kernel)
    assert not np.array_equal(many["conv3_2"].kernel, many["conv3_3"].kernel)


@pytest.mark.parametrize("name", ["conv1_2", "conv2_2", "conv3_1"])
def test_random_weights_have_documented_variance(name: str) -> None:
    layer, (C, K) = random_weights(0, name)[name], CONVOLUTIONS[name]
    assert layer.kernel.shape == (3, 3, C, K)
    assert layer.kernel.dtype == np.float32
    unit = layer.kernel.astype(np.float64) / np.sqrt(2 / (9 * C))
    assert unit.mean() == pytest.approx(0, abs=0.02)
    assert unit.var() == pytest.approx(1, rel=0.02)
    assert (unit**4).mean() == pytest.approx(3, rel=0.04)  # as of a normal distribution
    assert layer.bias.tolist() == [0.0] * K


@pytest.mark.parametrize("seed", [-1, 1.5, "a", "1", None, True, float("nan"), float("inf"), [1]])
def test_random_weights_refuse_bad_seed(seed: Any) -> None:
    with pytest.raises(UserError) as caught:
        random_weights(seed, "conv1_1")
    assert str(caught.value) == f"seed: found {seed!r}; expected an integer from 0; give one such as 0"


ONE = filters("conv1_1")["conv1_1"]
SMALL = Weights({"conv1_1": ONE}, "here", preprocessing="caffe")
WRONG_SHAPES = [((5, 5, 3, 64), (64,)), ((64, 3, 3, 3), (64,)), ((3, 3, 3, 64), (65,)), ((3, 3, 64), (64,))]
NO_FILTERS = "no filters of VGG19; expected at least conv1_1 (block1_conv1); take a file named in weights/"
FORMATS = (
    "expected Keras HDF5 or .keras, MatConvNet .mat, .npz, a PyTorch state dict or .safetensors; "
    "take a file named"
)
NO_FILE = "expected a weights file; check the name"
PICKLED = "holds pickled objects, which may run anything); expected an intact one"
UNUSABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, f"found no such file; {NO_FILE}"),
    "a folder": (Path.mkdir, f"found a folder; {NO_FILE}"),
    "empty": (Path.touch, f"found an empty file; {FORMATS}"),
    "text": (lambda path: path.write_text("conv1_1: 0.5"), f"found an unknown format; {FORMATS}"),
    "keras of another network": (lambda path: keras(path, {}, classifier=True), NO_FILTERS),
    "mat of something else": (lambda path: savemat(path, {"x": 1.0}), NO_FILTERS),
    "mat of another network": (lambda path: mat(path, {}), NO_FILTERS),
    "npz of something else": (lambda path: npz(path, {}, x=np.zeros(3)), NO_FILTERS),
    "npz without a bias": (lambda path: npz(path, {}, **{"conv1_1/kernel": ONE.kernel}), NO_FILTERS),
    "pickled objects": (lambda path: npz(path, {"conv1_1": (np.array([{}]), ONE.bias)}), PICKLED),
}


@pytest.mark.parametrize(("make", "words"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable_file_is_reported(make: Callable[[Path], Any], words: str, tmp_path: Path) -> None:
    make(tmp_path / "file")
    assert words in reading_error(tmp_path / "file")


@pytest.mark.parametrize("name", ["a" * 300, "~nobody-of-this-name/x.h5"])
def test_impossible_name_is_reported_as_missing(name: str) -> None:
    with pytest.raises(UserError, match="found no such file"):
        read_weights(name)


@every_format
@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_truncated_file_is_reported_as_damaged(write: Writer, fraction: float, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, filters("conv1_2"))
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    line = reading_error(path)
    assert re.search(r"found a damaged file \(.+\); expected an intact one; fetch it again$", line)


def conv(C: int, K: int) -> ConvWeights:
    return ConvWeights(np.zeros((3, 3, C, K), np.float32), np.zeros(K, np.float32))


def test_keras3_layers_are_in_numerical_order(tmp_path: Path) -> None:
    layers = filters("conv4_1")  # conv2d_10 stands before conv2d_2 in the file
    keras3(tmp_path / "x", layers, more=[conv(512, 512)] * 7 + [conv(512, 3)])
    got = read_weights(tmp_path / "x")
    assert list(got) == list(CONVOLUTIONS)
    for name, layer in layers.items():
        np.testing.assert_array_equal(got[name].kernel, layer.kernel)


def test_keras3_file_of_vgg16_is_refused(tmp_path: Path) -> None:
    layers = list(filters("conv3_3").items())
    keras3(tmp_path / "x", dict(layers), more=[conv(256, 512)])
    with pytest.raises(UserError, match=r"conv3_4 with kernel \(3, 3, 256, 512\) and bias \(512,\)"):
        read_weights(tmp_path / "x", deepest="conv1_1")


def test_keras3_file_with_batch_normalization_is_refused(tmp_path: Path) -> None:
    keras3(tmp_path / "x", {"conv1_1": ONE})
    with h5py.File(tmp_path / "x", "r+") as file:
        file.create_group("layers/batch_normalization/vars")
    assert NO_FILTERS in reading_error(tmp_path / "x")


def test_keras3_network_among_other_convolutions_is_found(tmp_path: Path) -> None:
    layers = filters("conv1_2")
    keras3(tmp_path / "x", layers, level="layers/functional/layers")
    with h5py.File(tmp_path / "x", "r+") as file:
        for key, array in enumerate(conv(3, 64)):  # like conv1_1, but followed by nothing
            file[f"layers/conv2d/vars/{key}"] = array
    np.testing.assert_array_equal(read_weights(tmp_path / "x")["conv1_2"].kernel, layers["conv1_2"].kernel)


@pytest.mark.parametrize("write", [keras, partial(keras3, level="/")], ids=["keras", "keras 3"])
def test_keras_file_with_two_networks_is_refused(write: Writer, tmp_path: Path) -> None:
    write(tmp_path / "one", {"conv1_1": ONE})
    with h5py.File(tmp_path / "one") as one, h5py.File(tmp_path / "x", "w") as both:
        for name in ("layers/one", "layers/two"):
            both.copy(one["/"], name)
    found = "found several networks ('/layers/one', '/layers/two'); expected one; save VGG19's alone"
    assert found in reading_error(tmp_path / "x")


def test_moments_of_the_optimizer_are_no_network(tmp_path: Path) -> None:
    keras(tmp_path / "x", {"conv1_1": ONE}, level="model_weights/vgg19", new=True)
    with h5py.File(tmp_path / "x", "r+") as file:
        file["model_weights/optimizer_weights/adam/block1_conv1/m"] = np.zeros_like(ONE.kernel)
    np.testing.assert_array_equal(read_weights(tmp_path / "x")["conv1_1"].kernel, ONE.kernel)


def test_keras_file_that_holds_itself_is_read_to_an_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x", "w") as file:
        file["layers/again"] = file["/"]
        file["layers/once_more"] = file["/"]
    assert NO_FILTERS in reading_error(tmp_path / "x")


def test_keras_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    keras3(tmp_path / "other.h5", {"conv1_1": ONE})
    with h5py.File(tmp_path / "x", "w") as file:
        file["layers"] = h5py.ExternalLink("other.h5", "layers")
        file["model/conv2d/vars/0"] = h5py.ExternalLink("other.h5", "layers/conv2d/vars/0")
        file["model/conv2d/vars/1"] = ONE.bias
    assert NO_FILTERS in reading_error(tmp_path / "x")


def test_keras_zip_with_compressed_weights_says_what_to_do(tmp_path: Path) -> None:
    keras_zip(tmp_path / "x", {"conv1_1": ONE}, method=zipfile.ZIP_DEFLATED)
    expected = "expected stored, as Keras writes it; extract model.weights.h5 and name that"
    assert f"found model.weights.h5 compressed; {expected}" in reading_error(tmp_path / "x")


def test_keras_zip_with_changed_byte_is_damaged(tmp_path: Path) -> None:
    keras_zip(tmp_path / "x", {"conv1_1": ONE})
    content = bytearray((tmp_path / "x").read_bytes())
    content[content.index(ONE.kernel.tobytes()) + 1] ^= 1
    (tmp_path / "x").write_bytes(content)
    assert "found a damaged file (Bad CRC-32" in reading_error(tmp_path / "x")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A good HDF5 file that another program holds a lock on."""
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "locked.h5"
    keras(path, {"conv1_1": ONE})
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        yield path


def test_locked_hdf5_file_is_read(locked: Path) -> None:
    np.testing.assert_array_equal(read_weights(locked)["conv1_1"].kernel, ONE.kernel)


def test_locked_hdf5_file_is_not_called_damaged(locked: Path, monkeypatch: Patch) -> None:
    opened = h5py.File  # the variable HDF5_USE_FILE_LOCKING is read once, when HDF5 is loaded
    monkeypatch.setattr(h5py, "File", lambda path, mode, locking: opened(path, mode, locking=True))
    cure = "expected one that no other program has open, or no locking; set HDF5_USE_FILE_LOCKING=FALSE"
    assert f"found a file that can't be locked; {cure}" in reading_error(locked)


@three_formats
@pytest.mark.parametrize(("kernel", "bias"), WRONG_SHAPES)
def test_wrong_shapes_are_reported(write: Writer, kernel: Any, bias: Any, tmp_path: Path) -> None:
    write(tmp_path / "x", {"conv1_1": ConvWeights(np.zeros(kernel, np.float32), np.zeros(bias, np.float32))})
    line = reading_error(tmp_path / "x")
    assert str(kernel) in line
    assert str(bias) in line
    assert "expected kernel (3, 3, 3, 64) and bias (64,); take a file of VGG19 (weights/README.md)" in line


def test_keras_group_with_third_dataset_is_refused(tmp_path: Path) -> None:
    keras(tmp_path / "x", {"conv1_1": ONE})
    with h5py.File(tmp_path / "x", "r+") as file:
        file["block1_conv1/gamma"] = np.zeros(64)
    assert "conv1_1 with (3, 3, 3, 64), (64,), (64,)" in reading_error(tmp_path / "x")


@three_formats
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("part", [0, 1])
def test_nan_and_infinity_are_reported(write: Writer, value: float, part: int, tmp_path: Path) -> None:
    arrays = [array.astype(np.float64) for array in ONE]
    arrays[part].flat[-1] = value
    write(tmp_path / "x", {"conv1_1": ConvWeights(*arrays)})
    expected = "found NaN or infinity in conv1_1; expected finite values; fetch the file again"
    assert reading_error(tmp_path / "x").endswith(expected)


@three_formats
@pytest.mark.parametrize(("kernel", "bias"), [("int32", "float32"), ("float32", "uint8")])
def test_integer_elements_are_refused(write: Writer, kernel: str, bias: str, tmp_path: Path) -> None:
    write(tmp_path / "x", {"conv1_1": ConvWeights(ONE.kernel.astype(kernel), ONE.bias.astype(bias))})
    expected = f"conv1_1 of types {kernel} and {bias}; expected floating-point numbers; take another file"
    assert expected in reading_error(tmp_path / "x")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A good file in the home folder."""
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    npz(tmp_path / "good.npz", filters("conv1_2"))
    return tmp_path / "good.npz"


@pytest.mark.parametrize("form", [Path, str, lambda path: f"~/{path.name}"], ids=["Path", "str", "home"])
def test_load_weights_accepts_path(form: Callable[[Path], Any], file: Path) -> None:
    weights = load_weights(form(file), deepest="conv1_1")
    assert (weights.source, weights.random, list(weights)) == (str(file), False, ["conv1_1"])


@pytest.mark.parametrize("source", ["auto", "imagenet"])
def test_npstyle_weights_variable_names_file(source: str, file: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(file))
    assert load_weights(source).source == str(file)
    assert load_weights("random", seed=9, deepest="conv1_1").source == "random filters (seed 9)"
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(file) + ".gone")
    with pytest.raises(UserError) as caught:
        load_weights(source)
    assert (
        str(caught.value)
        == f"NPSTYLE_WEIGHTS: {file}.gone: found no such file; expected a weights file; check the name"
    )


def test_auto_warns_and_returns_random_filters(alone: Path) -> None:
    with pytest.warns(RandomFiltersWarning) as caught:
        weights = load_weights("auto", seed=2, deepest="conv1_1")
    assert (weights.random, weights.source) == (True, "random filters (seed 2)")
    assert caught[0].filename == __file__
    text = str(caught[0].message)
    assert "RANDOM FILTERS, never trained" in text
    assert f"Tried: {_registry.project_folder()} (no registered file);" in text
    assert f"{alone} (no registered file).\nFor the ImageNet filters: " in text
    assert "--weights FILE or NPSTYLE_WEIGHTS=FILE" in text


def test_imagenet_raises_without_file_and_network(alone: Path) -> None:
    tried = f"{_registry.project_folder()} (no registered file); {alone} (no registered file)"
    words = f"weights: found no ImageNet filters: {tried}; expected a file or a network; fetch "
    with pytest.raises(UserError, match=r"^" + re.escape(words)):
        load_weights("imagenet")


def checksum(algorithm: str, content: bytes) -> str:
    plain = algorithm.removesuffix("-prefix")
    return f"{algorithm}:{hashlib.new(plain, content).hexdigest()[: 8 if algorithm != plain else None]}"


def register(alone: Path, file: Path, algorithm: str) -> Path:
    """Put the file into the cache and on the list, without an address."""
    alone.mkdir()
    cached = alone / file.name
    shutil.copy(file, cached)
    entry = {"name": file.name, "checksum": checksum(algorithm, file.read_bytes()), "addresses": []}
    (alone.parent / "registry.json").write_text(json.dumps({"files": [entry]}))
    return cached


@pytest.mark.parametrize("algorithm", ["md5", "sha256", "sha256-prefix"])
def test_cached_file_is_used_if_checksum_matches(algorithm: str, file: Path, alone: Path) -> None:
    cached = register(alone, file, algorithm)
    assert load_weights("auto").source == load_weights("imagenet").source == str(cached)
    cached.write_bytes(cached.read_bytes() + b"x")
    with pytest.raises(UserError) as caught:
        load_weights("imagenet")
    plain = algorithm.removesuffix("-prefix")
    assert f"{cached} (damaged: its {plain} is not the registered one); expected" in str(caught.value)
    assert f"fetch {file.name} on a machine with a network" in str(caught.value)


def test_unreadable_cached_file_is_reported(file: Path, alone: Path, monkeypatch: Patch) -> None:
    cached = register(alone, file, "md5")
    monkeypatch.setattr(
        _registry, "matches_checksum", Mock(side_effect=PermissionError(13, "Permission denied"))
    )
    with pytest.raises(UserError, match=re.escape(f"{cached} (Permission denied)")):
        load_weights("imagenet")


def test_registry_order_takes_precedence_over_folder(file: Path, alone: Path, monkeypatch: Patch) -> None:
    project = file.parent / "project"
    project.mkdir()
    alone.mkdir()
    monkeypatch.setattr(_registry, "project_folder", lambda: project)
    entries = []
    for name, folder, seed in (("first.npz", alone, 1), ("second.npz", project, 2)):
        npz(folder / name, random_weights(seed, "conv1_1"))
        digest = checksum("sha256", (folder / name).read_bytes())
        entries.append({"name": name, "checksum": digest, "addresses": []})
    (alone.parent / "registry.json").write_text(json.dumps({"files": entries}))
    assert load_weights("auto").source == str(alone / "first.npz")
    (alone / "first.npz").write_bytes(b"damaged")
    assert load_weights("auto").source == str(project / "second.npz")
    (project / "second.npz").unlink()
    damaged = f"{alone / 'first.npz'} (damaged: its sha256 is not the registered one)"
    with pytest.raises(UserError) as caught:
        load_weights("imagenet")
    assert f"no ImageNet filters: {project} (no registered file); {damaged}; expected" in str(caught.value)


@pytest.mark.parametrize("variable", [True, False], ids=["named by a variable", "in the home folder"])
@pytest.mark.parametrize("program", ["keras", "torch"])
def test_files_that_keras_or_torch_downloaded_are_found(
    program: str, variable: bool, file: Path, alone: Path, monkeypatch: Patch, capsys: Output
) -> None:
    for name in ("KERAS_HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = file.parent / {"keras": ".keras", "torch": ".cache/torch"}[program]
    if variable:
        home = file.parent / "elsewhere"
        monkeypatch.setenv(f"{program.upper()}_HOME", str(home))
    cached = register(alone, file, "sha256")
    folder = home / {"keras": "models", "torch": "hub/checkpoints"}[program]
    folder.mkdir(parents=True)
    theirs = cached.rename(folder / cached.name)
    assert load_weights("auto").source == load_weights("imagenet").source == str(theirs)
    assert main(["weights", "list"]) == main(["info"]) == 0
    assert capsys.readouterr().out.count(str(theirs)) == 2
    theirs.write_bytes(theirs.read_bytes() + b"x")
    with pytest.raises(UserError, match=re.escape(f"{theirs} (damaged: its sha256 is not the registered")):
        load_weights("imagenet")
    assert theirs.is_file()


def test_download_comes_before_filters_of_torch(file: Path, alone: Path, monkeypatch: Patch) -> None:
    cached = register(alone, file, "sha256")
    theirs = _registry.torch_folder() / file.name
    theirs.parent.mkdir(parents=True)
    cached.rename(theirs)
    monkeypatch.setattr(_download, "fetch_any", lambda *_: (file, []))
    assert load_weights("auto").source == str(file)
    monkeypatch.setattr(_download, "fetch_any", lambda *_: (None, ["no network"]))
    assert load_weights("auto").source == str(theirs)


def test_project_registry_is_valid(monkeypatch: Patch) -> None:
    monkeypatch.delenv("NPSTYLE_REGISTRY")
    entries = _registry.registry()
    assert len({entry.name for entry in entries}) == len(entries) > 0
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+\.(h5|bin|mat|pth)", entry.name)
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|sha256-prefix:[0-9a-f]{8}", entry.checksum)
        assert isinstance(entry.megabytes, int)
        assert bool(entry.addresses) != bool(entry.package)
        assert all(re.fullmatch(rf"https://[\w./-]+/{entry.name}", each) for each in entry.addresses)
    # torchvision's are other filters: whoever asks for none in particular gets the published ones.
    assert entries[0].name.endswith("_notop.h5")
    assert [entry.name for entry in entries if entry.name.endswith(".pth")] == [entries[-1].name]


@every_format
def test_keras_and_matconvnet_default_to_caffe(write: Writer, tmp_path: Path) -> None:
    path = tmp_path / "x"
    write(path, filters("conv1_1"))  # an .npz file states it
    assert read_weights(path).preprocessing == "caffe"
    assert load_weights(path, preprocessing="torchvision").preprocessing == "torchvision"


def test_npz_that_states_no_preprocessing_is_refused_unless_recognized(tmp_path: Path) -> None:
    """npstyle has not written it, and the wrong preprocessing gives wrong pictures without an error."""
    path = tmp_path / "x.npz"
    kernel, bias = filters("conv1_1")["conv1_1"]
    arrays: dict[str, Any] = {"conv1_1/kernel": kernel, "conv1_1/bias": bias}
    np.savez(path, **arrays)
    line = reading_error(path)
    assert "found filters whose preprocessing is not known; expected caffe (BGR" in line
    assert line.endswith("; give --preprocessing caffe or --preprocessing torchvision")
    for known in PREPROCESSINGS:
        assert read_weights(path, preprocessing=known).preprocessing == known
    kernel[1, 1, :, :3] = np.array(recognize.PUBLISHED)[:, :3].T
    bias[:3] = np.array(recognize.PUBLISHED)[:, 3]
    np.savez(path, **arrays)
    assert read_weights(path).preprocessing == "caffe"
    assert "recognized as the published filters" in read_weights(path).source


def test_preprocessing_argument_is_validated(file: Path, alone: Path) -> None:
    unknown: Any = "rgb"
    with pytest.raises(UserError, match=r"^preprocessing: found 'rgb'; expected 'caffe' or 'torchvision'"):
        load_weights(file, preprocessing=unknown)
    with pytest.raises(UserError, match=r"^preprocessing: found 'rgb'"):
        Weights({}, "nowhere", preprocessing=unknown)
    with pytest.raises(UserError, match=r"^preprocessing: found 'torchvision'; expected 'caffe' for random"):
        load_weights("random", preprocessing="torchvision")
    assert load_weights("random", preprocessing="caffe", deepest="conv1_1").preprocessing == "caffe"
    register(alone, file, "md5")
    assert load_weights("auto", preprocessing="torchvision").preprocessing == "torchvision"


def test_weights_require_or_inherit_preprocessing() -> None:
    with pytest.raises(UserError, match=r"^preprocessing: found None; expected 'caffe' or 'torchvision'"):
        Weights({"conv1_1": ONE}, "here")
    original = Weights({"conv1_1": ONE}, "here", preprocessing="torchvision")
    assert Weights(original, "copy").preprocessing == "torchvision"
    assert Weights(original, "copy", preprocessing="caffe").preprocessing == "caffe"
    with pytest.raises(UserError, match=r"^preprocessing: found None"):
        Weights(dict(original), "copy")


def test_preprocessing_argument_applies_to_npstyle_weights_variable(file: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(file))
    assert load_weights("auto", preprocessing="torchvision").preprocessing == "torchvision"


both_kinds = pytest.mark.parametrize("ending", [".npz", ".h5", ".H5"])


@both_kinds
@pytest.mark.parametrize("preprocessing", ["caffe", "torchvision"])
@pytest.mark.parametrize("deepest", ["conv1_1", "conv2_2", "conv3_1"])
def test_write_weights_round_trip(
    ending: str, preprocessing: Preprocessing, deepest: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x{ending}"
    weights = Weights(filters(deepest), "here", preprocessing=preprocessing)
    assert write_weights(path, weights) == path
    got = read_weights(path)
    assert (got.preprocessing, list(got)) == (preprocessing, list(weights))
    for name in weights:
        for part, original in zip(got[name], weights[name], strict=True):
            np.testing.assert_array_equal(part, original)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def text(name: Any) -> str:
    """As Keras does: h5py's versions differ in what they make of such an attribute."""
    return name.decode() if isinstance(name, bytes) else str(name)


def test_written_h5_has_names_keras_expects(tmp_path: Path) -> None:
    write_weights(tmp_path / "x.h5", Weights(filters("conv2_1"), "here", preprocessing="caffe"))
    with h5py.File(tmp_path / "x.h5") as file:
        layers = [text(name) for name in file.attrs["layer_names"]]
        assert layers == ["block1_conv1", "block1_conv2", "block1_pool", "block2_conv1"]
        for name in layers:
            named = [text(each) for each in file[name].attrs["weight_names"]]
            shapes = [file[name][each].shape for each in named]
            assert len(shapes) == (0 if name == "block1_pool" else 2)
            assert [len(shape) for shape in shapes] == [4, 1][: len(shapes)]


@both_kinds
def test_unknown_preprocessing_in_file_is_reported(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    if ending == ".npz":
        npz(path, {"conv1_1": ONE}, preprocessing=np.array("rgb"))
    else:
        keras(path, {"conv1_1": ONE})
        with h5py.File(path, "r+") as file:
            file.attrs["preprocessing"] = np.bytes_("rgb")
    expected = "expected caffe or torchvision; give --preprocessing caffe or torchvision"
    assert f"found the preprocessing 'rgb'; {expected}" in reading_error(path)
    assert read_weights(path, preprocessing="caffe").preprocessing == "caffe"


@pytest.mark.parametrize("attribute", ["caffe", np.array([b"caffe"]), np.bytes_("x" * 2000), 5])
def test_hdf5_preprocessing_must_be_short_fixed_length_string(attribute: Any, tmp_path: Path) -> None:
    keras(tmp_path / "x", {"conv1_1": ONE})
    with h5py.File(tmp_path / "x", "r+") as file:
        file.attrs["preprocessing"] = attribute
    found = "found a damaged file (a preprocessing that is not a short string of fixed length)"
    assert found in reading_error(tmp_path / "x")


def refusal(path: Path, overwrite: bool = False) -> str:
    """The message of check_target, which is that of write_weights, too; neither leaves a file behind."""
    before = sorted(path.parent.iterdir()) if path.parent.is_dir() else None
    with pytest.raises(UserError) as caught:
        check_target(path, overwrite)
    with pytest.raises(UserError) as again:
        write_weights(path, SMALL, overwrite)
    assert str(again.value) == str(caught.value)
    assert (sorted(path.parent.iterdir()) if path.parent.is_dir() else None) == before
    return str(caught.value)


def test_write_weights_overwrites_only_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"mine")
    expected = "found a file of that name; expected a new name; choose another or add --overwrite"
    assert refusal(path) == f"output: {path}: {expected}"
    assert path.read_bytes() == b"mine"
    write_weights(path, SMALL, overwrite=True)
    np.testing.assert_array_equal(read_weights(path)["conv1_1"].kernel, ONE.kernel)


def test_write_weights_keeps_file_created_meanwhile(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "x.npz"

    def slow(temporary: Path, _: Weights) -> None:
        temporary.write_bytes(b"new")
        path.write_bytes(b"mine")

    monkeypatch.setitem(FILE_WRITERS, ".npz", slow)
    with pytest.raises(UserError, match="found a file of that name"):
        write_weights(path, SMALL)
    assert path.read_bytes() == b"mine"
    assert [each.name for each in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("no room")])
def test_write_weights_keeps_old_file_on_full_disk(
    error: Exception, tmp_path: Path, monkeypatch: Patch
) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"mine")

    def fails(temporary: Path, _: Weights) -> None:
        temporary.write_bytes(b"half")
        raise error

    monkeypatch.setitem(FILE_WRITERS, ".h5", fails)
    with pytest.raises(UserError, match=r"found (No space left on device|no room) on writing; "):
        write_weights(path, SMALL, overwrite=True)
    assert path.read_bytes() == b"mine"
    assert [each.name for each in tmp_path.iterdir()] == ["x.h5"]


def test_check_target_reports_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "folder.h5").mkdir()
    assert refusal(tmp_path / "folder.h5", overwrite=True).endswith(
        "found a folder; expected a file name; add a name to it"
    )
    assert "on writing there; expected a name in a folder that can be" in refusal(tmp_path / "gone" / "x.h5")
    assert "on writing there; expected a name in a folder that can be" in refusal(
        tmp_path / ("a" * 300 + ".h5")
    )
    for name, found in (("x.pth", "the extension '.pth'"), ("x", "no extension")):
        assert (
            refusal(tmp_path / name)
            == f"output: {tmp_path / name}: found {found}; expected .npz or .h5; give one of these"
        )


def test_write_weights_follows_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "x.npz"
    try:
        link.symlink_to(tmp_path / "folder" / "y.npz")
    except OSError:
        pytest.skip("no symbolic links here")
    write_weights(link, SMALL, overwrite=True)
    assert link.is_symlink()
    assert (tmp_path / "folder" / "y.npz").is_file()
