"""Filters from every kind of file, random filters, and what is said about files that can't be used."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from npstyle import weights
from npstyle.architecture import CONVOLUTIONS
from npstyle.errors import UserError
from npstyle.weights import (
    ConvWeights,
    RandomFiltersWarning,
    Weights,
    check_target,
    load_weights,
    random_weights,
    read_weights,
    write_weights,
)
from npstyle.weights import download as _download

Layers = dict[str, ConvWeights]
Writer = Callable[[Path, Layers], None]


def filters(deepest: str = "conv2_2") -> Layers:
    """Filters to put into a file, with a bias that is not zero."""
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


WRITERS: dict[str, Writer] = {
    "keras old": keras,
    "keras new": partial(keras, new=True),
    "keras old with classifier": partial(keras, classifier=True),
    "keras new with classifier": partial(keras, new=True, classifier=True),
    "keras old in model_weights": partial(keras, level="model_weights"),
    "keras new in model_weights": partial(keras, level="model_weights", new=True, classifier=True),
    "matconvnet newer": mat,
    "matconvnet older": partial(mat, old=True),
    "matconvnet newer nested": partial(mat, nested=True),
    "matconvnet older nested": partial(mat, old=True, nested=True),
    "npz": npz,
}
every_format = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
three_formats = pytest.mark.parametrize("write", [keras, mat, npz], ids=["keras", "mat", "npz"])


def complaint(path: Path) -> str:
    """What reading the file ends with, after a look at its form."""
    with pytest.raises(UserError) as caught:
        read_weights(path)
    error, line = caught.value, str(caught.value)
    assert error.name == f"weights: {path}"
    assert line == f"{error.name}: found {error.found}; expected {error.expected}; {error.cure}"
    assert line.splitlines() == [line]
    return line


@every_format
def test_filters_come_back_exactly(write: Writer, tmp_path: Path) -> None:
    path, put = tmp_path / "any.name", filters()
    write(path, put)
    got = read_weights(path)
    assert list(got) == ["conv1_1", "conv1_2", "conv2_1", "conv2_2"]
    for name, layer in got.items():
        for part, original in zip(layer, put[name], strict=True):
            assert part.dtype == np.float32
            assert part.flags.c_contiguous
            np.testing.assert_array_equal(part, original)
    assert (got.source, got.random) == (str(path), False)
    assert repr(got) == f"<Weights of 4 layers: {path}>"


@every_format
def test_deeper_layers_stay_unread(write: Writer, tmp_path: Path) -> None:
    put = filters()
    put["conv2_1"].bias[0] = np.nan
    write(tmp_path / "x", put)
    assert list(read_weights(tmp_path / "x", deepest="pool1")) == ["conv1_1", "conv1_2"]
    assert list(read_weights(tmp_path / "x", deepest="relu1_1")) == ["conv1_1"]
    assert "NaN or infinity in conv2_1" in complaint(tmp_path / "x")


@three_formats
@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_floats_become_float32(write: Writer, dtype: str, tmp_path: Path) -> None:
    put = ConvWeights(*(part.astype(dtype) for part in ONE))
    write(tmp_path / "x", {"conv1_1": put})
    got = read_weights(tmp_path / "x")["conv1_1"].kernel
    assert got.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(got, put.kernel.astype(np.float32))


def test_layers_go_by_any_of_their_names() -> None:
    weights = random_weights(0, "conv1_2")
    assert weights["relu1_2"] is weights["block1_conv2"] is weights["conv1_2"]
    assert "block1_conv1" in weights
    assert "conv2_1" not in weights
    with pytest.raises(KeyError, match="relu2_1"):
        weights["relu2_1"]
    assert "fc1" not in weights
    assert weights.get("fc1") is None


def test_random_filters_are_reproducible_and_differ_by_seed() -> None:
    one, same, other = (random_weights(seed, "conv1_1")["conv1_1"].kernel for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1


def test_random_filters_do_not_depend_on_how_many_layers_are_made() -> None:
    few, many = random_weights(5, "conv1_2"), random_weights(5, "conv3_3")
    assert (len(few), len(many)) == (2, 7)
    for name in few:
        np.testing.assert_array_equal(few[name].kernel, many[name].kernel)
    assert not np.array_equal(many["conv3_2"].kernel, many["conv3_3"].kernel)


@pytest.mark.parametrize("name", ["conv1_2", "conv2_2", "conv3_1"])
def test_random_filters_have_the_documented_variance(name: str) -> None:
    layer, (C, K) = random_weights(0, name)[name], CONVOLUTIONS[name]
    assert layer.kernel.shape == (3, 3, C, K)
    assert layer.kernel.dtype == np.float32
    unit = layer.kernel.astype(np.float64) / np.sqrt(2 / (9 * C))
    assert unit.mean() == pytest.approx(0, abs=0.02)
    assert unit.var() == pytest.approx(1, rel=0.02)
    assert (unit**4).mean() == pytest.approx(3, rel=0.04)  # as of a normal distribution
    assert layer.bias.tolist() == [0.0] * K


@pytest.mark.parametrize("seed", [-1, 1.5, "a", "1", None, True, float("nan"), float("inf"), [1]])
def test_bad_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(UserError) as caught:
        random_weights(seed, "conv1_1")
    assert str(caught.value) == f"seed: found {seed!r}; expected an integer from 0; give one such as 0"


ONE = filters("conv1_1")["conv1_1"]
WRONG_SHAPES = [((5, 5, 3, 64), (64,)), ((64, 3, 3, 3), (64,)), ((3, 3, 3, 64), (65,)), ((3, 3, 64), (64,))]
NO_FILTERS = "no filters of VGG19; expected at least conv1_1 (block1_conv1); take a file named in weights/"
FORMATS = (
    "expected Keras HDF5, MatConvNet .mat, .npz, a PyTorch state dict or .safetensors; take a file named"
)
NO_FILE = "expected a weights file, 'auto', 'imagenet' or 'random'; check the name"
PICKLED = "holds pickled objects, which may run anything); expected a whole one"
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
def test_an_unusable_file_is_told(make: Callable[[Path], Any], words: str, tmp_path: Path) -> None:
    make(tmp_path / "file")
    assert words in complaint(tmp_path / "file")


@pytest.mark.parametrize("name", ["a" * 300, "~nobody-of-this-name/x.h5"])
def test_an_impossible_name_is_no_such_file(name: str) -> None:
    with pytest.raises(UserError, match="found no such file"):
        read_weights(name)


@every_format
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_damaged(write: Writer, share: float, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, filters("conv1_2"))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert re.search(r"found a damaged file \(.+\); expected a whole one; fetch it again$", complaint(path))


@three_formats
@pytest.mark.parametrize(("kernel", "bias"), WRONG_SHAPES)
def test_wrong_shapes_are_told(write: Writer, kernel: Any, bias: Any, tmp_path: Path) -> None:
    write(tmp_path / "x", {"conv1_1": ConvWeights(np.zeros(kernel, np.float32), np.zeros(bias, np.float32))})
    line = complaint(tmp_path / "x")
    assert str(kernel) in line
    assert str(bias) in line
    assert "expected kernel (3, 3, 3, 64) and bias (64,); take a file of VGG19 (weights/README.md)" in line


def test_a_group_with_more_than_a_kernel_and_a_bias_is_refused(tmp_path: Path) -> None:
    keras(tmp_path / "x", {"conv1_1": ONE})
    with h5py.File(tmp_path / "x", "r+") as file:
        file["block1_conv1/gamma"] = np.zeros(64)
    assert "conv1_1 with (3, 3, 3, 64), (64,), (64,)" in complaint(tmp_path / "x")


@three_formats
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("part", [0, 1])
def test_values_not_finite_are_told(write: Writer, value: float, part: int, tmp_path: Path) -> None:
    arrays = [array.astype(np.float64) for array in ONE]
    arrays[part].flat[-1] = value
    write(tmp_path / "x", {"conv1_1": ConvWeights(*arrays)})
    expected = "found NaN or infinity in conv1_1; expected finite numbers; fetch the file again"
    assert complaint(tmp_path / "x").endswith(expected)


@three_formats
@pytest.mark.parametrize(("kernel", "bias"), [("int32", "float32"), ("float32", "uint8")])
def test_whole_numbers_are_refused(write: Writer, kernel: str, bias: str, tmp_path: Path) -> None:
    write(tmp_path / "x", {"conv1_1": ConvWeights(ONE.kernel.astype(kernel), ONE.bias.astype(bias))})
    expected = f"conv1_1 of types {kernel} and {bias}; expected floating-point numbers; take another file"
    assert expected in complaint(tmp_path / "x")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good file in the home folder."""
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    npz(tmp_path / "good.npz", filters("conv1_2"))
    return tmp_path / "good.npz"


@pytest.mark.parametrize("form", [Path, str, lambda path: f"~/{path.name}"], ids=["Path", "str", "home"])
def test_load_weights_takes_a_path(form: Callable[[Path], Any], file: Path) -> None:
    weights = load_weights(form(file), deepest="conv1_1")
    assert (weights.source, weights.random, list(weights)) == (str(file), False, ["conv1_1"])


@pytest.mark.parametrize("source", ["auto", "imagenet"])
def test_the_environment_names_a_file(source: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_auto_falls_back_to_random_filters_and_says_what_was_tried(alone: Path) -> None:
    with pytest.warns(RandomFiltersWarning) as caught:
        weights = load_weights("auto", seed=2, deepest="conv1_1")
    assert (weights.random, weights.source) == (True, "random filters (seed 2)")
    assert caught[0].filename == __file__
    text = str(caught[0].message)
    assert "RANDOM FILTERS, never trained" in text
    assert f"Tried: {_download.project_folder()} (no registered file);" in text
    assert f"{alone} (no registered file).\nFor the real ones: " in text
    assert "--weights FILE or NPSTYLE_WEIGHTS=FILE" in text


def test_imagenet_never_falls_back(alone: Path) -> None:
    tried = f"{_download.project_folder()} (no registered file); {alone} (no registered file)"
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
def test_a_registered_file_in_the_cache_is_used_if_whole(algorithm: str, file: Path, alone: Path) -> None:
    cached = register(alone, file, algorithm)
    assert load_weights("auto").source == load_weights("imagenet").source == str(cached)
    cached.write_bytes(cached.read_bytes() + b"x")
    with pytest.raises(UserError) as caught:
        load_weights("imagenet")
    plain = algorithm.removesuffix("-prefix")
    assert f"{cached} (damaged: its {plain} is not the registered one); expected" in str(caught.value)
    assert f"fetch {file.name} on a machine with a network" in str(caught.value)


def test_a_file_in_the_cache_that_may_not_be_read_is_told(
    file: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = register(alone, file, "md5")
    monkeypatch.setattr(_download, "intact", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(UserError, match=re.escape(f"{cached} (Permission denied)")):
        load_weights("imagenet")


def test_the_order_of_the_list_counts_more_than_the_place(
    file: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = file.parent / "project"
    project.mkdir()
    alone.mkdir()
    monkeypatch.setattr(_download, "project_folder", lambda: project)
    entries = []
    for name, folder, seed in (("first.npz", alone, 1), ("second.npz", project, 2)):
        npz(folder / name, random_weights(seed, "conv1_1"))
        found = checksum("sha256", (folder / name).read_bytes())
        entries.append({"name": name, "checksum": found, "addresses": []})
    (alone.parent / "registry.json").write_text(json.dumps({"files": entries}))
    assert load_weights("auto").source == str(alone / "first.npz")
    (alone / "first.npz").write_bytes(b"damaged")
    assert load_weights("auto").source == str(project / "second.npz")
    (project / "second.npz").unlink()
    damaged = f"{alone / 'first.npz'} (damaged: its sha256 is not the registered one)"
    with pytest.raises(UserError) as caught:
        load_weights("imagenet")
    assert f"no ImageNet filters: {project} (no registered file); {damaged}; expected" in str(caught.value)


def test_the_projects_registry_is_well_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NPSTYLE_REGISTRY")
    entries = _download.registry()
    assert len({entry.name for entry in entries}) == len(entries) > 0
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+\.(h5|mat|pth)", entry.name)
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|sha256-prefix:[0-9a-f]{8}", entry.checksum)
        assert isinstance(entry.megabytes, int)
        assert entry.addresses
        assert all(re.fullmatch(rf"https://[\w./-]+/{entry.name}", each) for each in entry.addresses)
    # torchvision's are other filters: whoever asks for none in particular gets the published ones.
    assert entries[0].name.endswith("_notop.h5")
    assert [entry.name for entry in entries if entry.name.endswith(".pth")] == [entries[-1].name]


def test_known_values_of_the_real_filters(real_weights: str) -> None:
    layer = read_weights(real_weights, "conv1_1")["conv1_1"]
    assert layer.kernel[0, 0, 0, 0] == pytest.approx(0.34119523, rel=1e-6)
    assert layer.bias[0] == pytest.approx(0.7301776, rel=1e-6)


@every_format
def test_files_are_caffes_unless_they_say_otherwise(write: Writer, tmp_path: Path) -> None:
    path = tmp_path / "x"
    write(path, filters("conv1_1"))
    assert read_weights(path).preprocessing == "caffe"
    assert load_weights(path, preprocessing="torchvision").preprocessing == "torchvision"


def test_a_preprocessing_is_one_of_two(file: Path, alone: Path) -> None:
    with pytest.raises(UserError, match=r"^preprocessing: found 'rgb'; expected 'caffe' or 'torchvision'"):
        load_weights(file, preprocessing="rgb")
    with pytest.raises(UserError, match=r"^preprocessing: found 'rgb'"):
        Weights({}, "nowhere", preprocessing="rgb")
    with pytest.raises(UserError, match=r"^preprocessing: found 'torchvision'; expected 'caffe' for random"):
        load_weights("random", preprocessing="torchvision")
    assert load_weights("random", preprocessing="caffe", deepest="conv1_1").preprocessing == "caffe"
    register(alone, file, "md5")
    assert load_weights("auto", preprocessing="torchvision").preprocessing == "torchvision"


def test_the_environments_file_may_be_told_its_preprocessing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPSTYLE_WEIGHTS", str(file))
    assert load_weights("auto", preprocessing="torchvision").preprocessing == "torchvision"


both_kinds = pytest.mark.parametrize("ending", [".npz", ".h5", ".H5"])


@both_kinds
@pytest.mark.parametrize("preprocessing", ["caffe", "torchvision"])
@pytest.mark.parametrize("deepest", ["conv1_1", "conv2_2", "conv3_1"])
def test_what_is_written_is_read_again(ending: str, preprocessing: str, deepest: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    put = Weights(filters(deepest), "here", preprocessing=preprocessing)
    assert write_weights(path, put) == path
    got = read_weights(path)
    assert (got.preprocessing, list(got)) == (preprocessing, list(put))
    for name in put:
        for part, original in zip(got[name], put[name], strict=True):
            np.testing.assert_array_equal(part, original)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def text(name: Any) -> str:
    """As Keras does: h5py's versions differ in what they make of such an attribute."""
    return name.decode() if isinstance(name, bytes) else str(name)


def test_keras_finds_its_names_in_what_is_written(tmp_path: Path) -> None:
    write_weights(tmp_path / "x.h5", Weights(filters("conv2_1"), "here"))
    with h5py.File(tmp_path / "x.h5") as file:
        layers = [text(name) for name in file.attrs["layer_names"]]
        assert layers == ["block1_conv1", "block1_conv2", "block1_pool", "block2_conv1"]
        for name in layers:
            named = [text(each) for each in file[name].attrs["weight_names"]]
            shapes = [file[name][each].shape for each in named]
            assert len(shapes) == (0 if name == "block1_pool" else 2)
            assert [len(shape) for shape in shapes] == [4, 1][: len(shapes)]


@both_kinds
def test_an_unknown_preprocessing_in_a_file_is_told(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    if ending == ".npz":
        npz(path, {"conv1_1": ONE}, preprocessing=np.array("rgb"))
    else:
        keras(path, {"conv1_1": ONE})
        with h5py.File(path, "r+") as file:
            file.attrs["preprocessing"] = np.bytes_("rgb")
    assert "found the preprocessing 'rgb'; expected caffe or torchvision; name one" in complaint(path)
    assert read_weights(path, preprocessing="caffe").preprocessing == "caffe"


@pytest.mark.parametrize("said", ["caffe", np.array([b"caffe"]), np.bytes_("x" * 2000), 5])
def test_a_preprocessing_in_hdf5_is_one_short_word_of_fixed_length(said: Any, tmp_path: Path) -> None:
    keras(tmp_path / "x", {"conv1_1": ONE})
    with h5py.File(tmp_path / "x", "r+") as file:
        file.attrs["preprocessing"] = said
    assert "found a damaged file (a preprocessing that is no word)" in complaint(tmp_path / "x")


def refusal(path: Path, overwrite: bool = False) -> str:
    """What writing there ends with, before and after the work is done."""
    with pytest.raises(UserError) as caught:
        check_target(path, overwrite)
    with pytest.raises(UserError) as again:
        write_weights(path, Weights({"conv1_1": ONE}, "here"), overwrite)
    assert str(again.value) == str(caught.value)
    assert not list(path.parent.glob(".npstyle-*")) if path.parent.is_dir() else True
    return str(caught.value)


def test_a_file_is_replaced_only_if_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"mine")
    expected = "found a file of that name; expected a new name; choose another or add --overwrite"
    assert refusal(path) == f"output: {path}: {expected}"
    assert path.read_bytes() == b"mine"
    write_weights(path, Weights({"conv1_1": ONE}, "here"), overwrite=True)
    np.testing.assert_array_equal(read_weights(path)["conv1_1"].kernel, ONE.kernel)


def test_a_file_that_came_a_moment_ago_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"

    def slow(temporary: Path, _: Weights) -> None:
        temporary.write_bytes(b"new")
        path.write_bytes(b"mine")

    monkeypatch.setitem(weights.WRITERS, ".npz", slow)
    with pytest.raises(UserError, match="found a file of that name"):
        write_weights(path, Weights({"conv1_1": ONE}, "here"))
    assert path.read_bytes() == b"mine"
    assert [each.name for each in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("no room")])
def test_a_full_disk_leaves_the_old_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"mine")

    def fails(temporary: Path, _: Weights) -> None:
        temporary.write_bytes(b"half")
        raise error

    monkeypatch.setitem(weights.WRITERS, ".h5", fails)
    with pytest.raises(UserError, match=r"found (No space left on device|no room) on writing there"):
        write_weights(path, Weights({"conv1_1": ONE}, "here"), overwrite=True)
    assert path.read_bytes() == b"mine"
    assert [each.name for each in tmp_path.iterdir()] == ["x.h5"]


def test_places_that_cannot_be_written_to_are_told(tmp_path: Path) -> None:
    (tmp_path / "folder.h5").mkdir()
    assert refusal(tmp_path / "folder.h5", overwrite=True).endswith(
        "found a folder; expected a file name; add a name to it"
    )
    assert "on writing there; expected a name in a folder with room" in refusal(tmp_path / "gone" / "x.h5")
    assert "on writing there; expected a name in a folder with room" in refusal(
        tmp_path / ("a" * 300 + ".h5")
    )
    for name, found in (("x.pth", "the extension '.pth'"), ("x", "no extension")):
        assert (
            refusal(tmp_path / name)
            == f"output: {tmp_path / name}: found {found}; expected .npz or .h5; give one of these"
        )


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "x.npz"
    try:
        link.symlink_to(tmp_path / "there" / "y.npz")
    except OSError:
        pytest.skip("no symbolic links here")
    write_weights(link, Weights({"conv1_1": ONE}, "here"), overwrite=True)
    assert link.is_symlink()
    assert (tmp_path / "there" / "y.npz").is_file()
