"""VGG19's filters: find them, fetch them, check them, load them, write them; or draw random ones.

In memory they are what the Keras file has: kernels (3, 3, C, K) float32 in the order height, width, in,
out; the first layer's input channels in the order blue, green, red, or red, green, blue where the filters
were trained on torchvision's preprocessing of pictures.
"""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle._runtime.atomic import check_writable, replacing
from npstyle._runtime.npy import Member
from npstyle.architecture import CONVOLUTIONS, LAYERS, block_of, canonical, convolutions_up_to
from npstyle.errors import UserError, check_choice, check_integer
from npstyle.weights import download as _download
from npstyle.weights.formats import matfile as _matfile
from npstyle.weights.formats import statedict as _statedict

Array = NDArray[np.floating]

TOP = "conv5_4"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
MAT_MAGIC = b"MATLAB"
LONGEST_WORD = 1000  # bytes of the name of a preprocessing

# What pictures go through before the network: see Weights.
PREPROCESSINGS = ("caffe", "torchvision")
# How the sha256 of a PyTorch file begins that is known by it: torchvision's vgg19, and the published
# filters as they were converted for jcjohnson's neural-style.
BY_CHECKSUM = {"dcbb9e9d": "torchvision", "d01eb7cb": "caffe"}
# Numbers in a piece of an HDF5 dataset, which is read whole; VGG19's largest kernel has 2.4 million.
MOST_IN_A_CHUNK = 1 << 24
# By these numbers the published filters are known in any file: of the first three filters of conv1_1, the
# center for blue, green and red, and the bias.
PUBLISHED = (
    (0.08978214, 0.10385381, 0.09986369, 0.7301776),
    (0.18505956, 0.08851637, -0.06240906, 0.06493629),
    (0.15264879, 0.2392226, 0.07442063, 0.03428847),
)


class ConvWeights(NamedTuple):
    """Filters of one convolution."""

    kernel: Array  # (3, 3, C, K)
    bias: Array  # (K,)


class Weights(Mapping[str, ConvWeights]):
    """Filters by layer name, and where they come from.

    Attributes
    ----------
    source : str
        In words, for people.
    random : bool
        Never trained: to be calibrated to the pictures before use.
    preprocessing : {"caffe", "torchvision"}
        What the filters are to be shown. "caffe": blue, green, red from 0 to 255, minus the mean color.
        "torchvision": red, green, blue from 0 to 1, minus the mean, divided by the standard deviation.
    """

    def __init__(
        self,
        layers: Mapping[str, ConvWeights],
        source: str,
        random: bool = False,
        preprocessing: str = "caffe",
    ) -> None:
        check_choice("preprocessing", preprocessing, PREPROCESSINGS)
        self._layers = dict(layers)
        self.source = source
        self.random = random
        self.preprocessing = preprocessing

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


class RandomFiltersWarning(UserWarning):
    """The ImageNet filters could not be had, and random ones take their place."""


def load_weights(
    source: str | os.PathLike[str] = "auto",
    seed: int = 0,
    deepest: str = TOP,
    progress: bool = False,
    preprocessing: str | None = None,
) -> Weights:
    """Filters of VGG19: from a file, found or fetched, or drawn at random.

    Parameters
    ----------
    source : str or path
        "auto": the file that NPSTYLE_WEIGHTS names; else one from the registry that lies in
        `weights/` or in the user's cache; else a download; else random filters, with a warning.
        "imagenet": as "auto", but an error where "auto" takes random filters.
        "random": Gaussian filters. A path: that file, Keras HDF5, MatConvNet .mat, .npz, a PyTorch
        state dict or .safetensors.
    seed : int
        Of the random filters.
    deepest : str
        The deepest layer wanted; nothing deeper is read.
    progress : bool
        Show a bar on standard error while downloading.
    preprocessing : {"caffe", "torchvision"}, optional
        What a file's filters are to be shown (see `Weights`), whatever it says itself. It is needed for
        PyTorch's and .safetensors files that are not known.

    Returns
    -------
    Weights
        A file that holds only the lower layers is a good file; it gives what it has.

    Raises
    ------
    UserError
        The file is missing, damaged, or not VGG19's; its preprocessing is not known; or nothing was found
        for "imagenet".

    Warns
    -----
    RandomFiltersWarning
        "auto" found no file and no network. It says what was tried.

    Examples
    --------
    >>> weights = load_weights("random", seed=0)
    >>> weights["conv1_1"].kernel.shape
    (3, 3, 3, 64)
    """
    if preprocessing is not None:
        check_choice("preprocessing", preprocessing, PREPROCESSINGS)
    if source == "random":
        if preprocessing not in (None, "caffe"):
            raise UserError(
                "preprocessing", repr(preprocessing), "'caffe' for random filters", "leave it out"
            )
        return random_weights(seed, deepest)
    if source not in ("auto", "imagenet"):
        return read_weights(source, deepest, preprocessing=preprocessing)
    named = os.environ.get("NPSTYLE_WEIGHTS")
    if named:
        return read_weights(named, deepest, origin="NPSTYLE_WEIGHTS", preprocessing=preprocessing)
    found, tried = find()
    if found is None:
        found, failures = _download.fetch_any(progress)
        tried += failures
    if found is not None:
        return read_weights(found, deepest, preprocessing=preprocessing)
    names = " or ".join(entry.name for entry in _download.registry()) or "a file of VGG19"
    cure = (
        f"fetch {names} on a machine with a network (addresses in weights/README.md) and put it into "
        f"{_download.cache_folder()}, or name it with --weights FILE or NPSTYLE_WEIGHTS=FILE"
    )
    if source == "imagenet":
        raise UserError("weights", "no ImageNet filters: " + "; ".join(tried), "a file or a network", cure)
    warnings.warn(
        "the ImageNet filters of VGG19 could not be had. Going on with RANDOM FILTERS, never trained: "
        "palette and grain of the style will come through, but much more roughly.\n"
        "Tried: " + ";\n       ".join(tried) + f".\nFor the real ones: {cure}.",
        RandomFiltersWarning,
        stacklevel=2,
    )
    return random_weights(seed, deepest)


def find() -> tuple[Path | None, list[str]]:
    """The first registered file that is already here, whole; and the places where none was."""
    tried: dict[Path, list[str]] = {_download.project_folder(): [], _download.cache_folder(): []}
    for entry in _download.registry():
        for folder, found in tried.items():
            path = folder / entry.name
            if os.path.isfile(path):
                try:
                    if _download.intact(path, entry):
                        return path, []
                    found.append(f"{path} (damaged: its {entry.algorithm} is not the registered one)")
                except OSError as error:
                    found.append(f"{path} ({error.strerror})")
    return None, [
        line for folder, found in tried.items() for line in found or [f"{folder} (no registered file)"]
    ]


def random_weights(seed: int = 0, deepest: str = TOP) -> Weights:
    """Gaussian filters with variance 2 / (9 C), no bias.

    The variance keeps the size of the responses from layer to layer (He et al., "Delving Deep into
    Rectifiers", 2015, equation 10). Each layer has a stream of its own, so that a layer's filters do not
    depend on how many layers are made.
    """
    seed = check_integer("seed", seed, 0)
    layers = {}
    for name in convolutions_up_to(deepest):
        C, K = CONVOLUTIONS[name]
        rng = np.random.default_rng([seed, list(CONVOLUTIONS).index(name)])
        kernel = rng.standard_normal((3, 3, C, K), np.float32) * np.float32(np.sqrt(2 / (9 * C)))
        layers[name] = ConvWeights(kernel, np.zeros(K, np.float32))
    return Weights(layers, f"random filters (seed {seed})", random=True)


def read_weights(
    path: str | os.PathLike[str],
    deepest: str = TOP,
    origin: str = "weights",
    preprocessing: str | None = None,
) -> Weights:
    """Filters from a file; its format is told by its first bytes, not by its name.

    Raises
    ------
    UserError
        In one line: missing, unreadable, damaged, another format, wrong shapes, NaN or infinity; or it is not
        known what the filters are to be shown.
    """
    if not os.fspath(path):
        raise UserError(origin, "an empty name", "a weights file, or 'auto'", "name one")
    path = Path(os.path.expanduser(path))
    reader = _reader_of(path, origin)
    wanted = convolutions_up_to(deepest)
    try:
        layers, said = reader(path, wanted)
    except (UserError, MemoryError, ImportError):
        raise
    except Exception as error:  # a damaged file can make its library raise anything
        raise UserError(
            f"{origin}: {path}", f"a damaged file ({error})", "a whole one", "fetch it again"
        ) from error
    if "conv1_1" not in layers:
        raise UserError(
            f"{origin}: {path}",
            "no filters of VGG19",
            "at least conv1_1 (block1_conv1)",
            "take a file named in weights/README.md",
        )
    layers = {name: layers[name] for name in wanted if name in layers}
    preprocessing = preprocessing or said
    if preprocessing is None:
        return _recognized(path, layers)
    if preprocessing not in PREPROCESSINGS:
        expected = " or ".join(PREPROCESSINGS)
        raise UserError(f"{origin}: {path}", f"the preprocessing {preprocessing!r}", expected, "name one")
    return Weights(layers, str(path), preprocessing=preprocessing)


def _recognized(path: Path, layers: dict[str, ConvWeights]) -> Weights:
    """Filters of a file that doesn't say what they are to be shown, where that is known nevertheless.

    The published filters are known by their numbers, also each in units of its own as in the paper's
    normalized network; whatever else is known, by its checksum. How large the numbers are tells nothing: the
    published ones of conv1_1, which see numbers of order 100, are of the size that suits numbers of order 1.
    """
    kernel, bias = layers["conv1_1"]
    if _are_published(kernel, bias):
        return Weights(layers, f"{path} (the published filters, by their numbers: caffe)")
    if _are_published(kernel[:, :, ::-1], bias):
        layers["conv1_1"] = ConvWeights(np.ascontiguousarray(kernel[:, :, ::-1]), bias)
        return Weights(layers, f"{path} (the published filters, by their numbers: caffe, turned to BGR)")
    preprocessing = BY_CHECKSUM.get(_download.digest(path, "sha256")[:8])
    if preprocessing is not None:
        return Weights(layers, f"{path} (by its checksum: {preprocessing})", preprocessing=preprocessing)
    raise UserError(
        f"weights: {path}",
        "filters of which it is not known what they were trained on",
        "caffe (BGR, 0 to 255, minus the mean) or torchvision (RGB, 0 to 1, mean and deviation)",
        "say --preprocessing caffe or --preprocessing torchvision",
    )


def _are_published(kernel: Array, bias: Array) -> bool:
    """Whether the first filters are the published ones, each times any factor; 8 bits of a number count."""
    known = np.array(PUBLISHED)
    found = np.column_stack([kernel[1, 1, :, : len(known)].T, bias[: len(known)]]).astype(np.float64)
    size = np.sqrt(np.square(found).sum(axis=1) / np.square(known).sum(axis=1))[:, None]
    return bool((size > 0).all() and np.allclose(found, known * size, rtol=2**-7, atol=0))


class Contents(NamedTuple):
    """What a file holds: filters, and what it says itself that they are to be shown."""

    layers: dict[str, ConvWeights]
    preprocessing: str | None


Found = Iterable[tuple[str, ConvWeights]]
Reader = Callable[[Path, tuple[str, ...]], Contents]


def _reader_of(path: Path, origin: str) -> Reader:
    if not os.path.isfile(path):  # Path.is_file may raise
        what = "a folder" if os.path.isdir(path) else "no such file"
        words = "" if origin == "NPSTYLE_WEIGHTS" else ", 'auto', 'imagenet' or 'random'"
        raise UserError(f"{origin}: {path}", what, f"a weights file{words}", "check the name")
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise UserError(
            f"{origin}: {path}", f"{error.strerror}", "a readable file", "check its permissions"
        ) from error
    if head.startswith(b"MATLAB 7.3"):
        raise UserError(
            f"{origin}: {path}", "a MATLAB 7.3 file", "MATLAB version 5", "save it again with -v7 or as .npz"
        )
    for magic, reader in ((HDF5_MAGIC, _read_keras), (ZIP_MAGIC, _read_zip), (MAT_MAGIC, _read_matconvnet)):
        if head.startswith(magic):
            return reader
    if head.startswith(b"\x80") and _statedict.LEGACY_MAGIC in head:
        return partial(_read_tensors, _statedict.open_legacy)
    if head[4:9] == b"\0\0\0\0{":  # the upper half of a length, and the JSON it is the length of
        return partial(_read_tensors, _statedict.open_safetensors)
    raise UserError(
        f"{origin}: {path}",
        "an empty file" if not head else "an unknown format",
        "Keras HDF5, MatConvNet .mat, .npz, a PyTorch state dict or .safetensors",
        "take a file named in weights/README.md",
    )


def _read_keras(path: Path, wanted: tuple[str, ...]) -> Contents:
    """Groups block1_conv1 ..., each with a 4-D kernel and a 1-D bias, under whichever names."""
    import h5py

    with h5py.File(path, "r") as file:
        root = _keras_group(file, "model_weights") or file
        layers = dict(_keras_layers(path, root, wanted))
        return Contents(layers, _said_in(file))


def _said_in(file: Any) -> str:
    """The attribute `preprocessing`; none of variable length, as over a damaged one HDF5 never comes back."""
    if "preprocessing" not in file.attrs:
        return "caffe"
    there = file.attrs.get_id("preprocessing")
    if there.shape != () or there.dtype.kind != "S" or there.dtype.itemsize > LONGEST_WORD:
        raise ValueError("a preprocessing that is no word")
    return _word(file.attrs["preprocessing"])


def _word(said: Any) -> str:
    return said.decode() if isinstance(said, bytes) else str(said)


def _keras_group(root: Any, name: str) -> Any:
    """The group of that name, if it is in the file itself: a link may lead to any other file."""
    import h5py

    group = root.get(name) if isinstance(root.get(name, getlink=True), h5py.HardLink) else None
    return group if isinstance(group, h5py.Group) else None


def _keras_layers(path: Path, root: Any, wanted: tuple[str, ...]) -> Found:
    for name in wanted:
        group = _keras_group(root, _keras_name(name))
        if group is None:
            continue
        datasets: list[Any] = []
        group.visititems(lambda _, item, into=datasets: into.append(item) if hasattr(item, "shape") else None)
        by_rank = {len(dataset.shape): dataset for dataset in datasets}
        if len(datasets) != 2 or set(by_rank) != {1, 4}:
            shapes = ", ".join(str(dataset.shape) for dataset in datasets) or "nothing"
            raise _wrong_shapes(path, name, shapes)
        for dataset in datasets:
            _check_storage(dataset)
        # Shapes are held against the table before anything is read.
        yield name, _checked(path, name, by_rank[4], by_rank[1])


def _check_storage(dataset: Any) -> None:
    """Its numbers are in the file itself, and in pieces not much larger than all of them together."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name!a} is kept in other files")
    if dataset.chunks and math.prod(dataset.chunks) > MOST_IN_A_CHUNK:
        raise ValueError(f"{dataset.name!a} in pieces of {dataset.chunks}")


def _keras_name(name: str) -> str:
    """block4_conv2 for conv4_2, block4_pool for pool4."""
    return f"block{block_of(name)}_" + (f"conv{name[6:]}" if name in CONVOLUTIONS else "pool")


def _read_zip(path: Path, wanted: tuple[str, ...]) -> Contents:
    """A zip file is NumPy's, or PyTorch's if it has a pickle in it."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        torch = bool(_statedict.pickle_in(archive))
    return _read_tensors(_statedict.open_zip, path, wanted) if torch else _read_npz(path, wanted)


def _read_npz(path: Path, wanted: tuple[str, ...]) -> Contents:
    """Arrays conv1_1/kernel and conv1_1/bias ... as in memory; a text `preprocessing` may be among them."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        layers: dict[str, ConvWeights] = {}
        for name in wanted:
            kernel, bias = f"{name}/kernel", f"{name}/bias"
            if kernel in members and bias in members:
                layers[name] = _checked(
                    path, name, Member(archive, members[kernel]), Member(archive, members[bias])
                )
        said = Member(archive, members["preprocessing"]) if "preprocessing" in members else None
        if said and (said.shape != () or said.dtype.kind not in "US" or said.nbytes > LONGEST_WORD):
            raise ValueError("a preprocessing that is no word")
        return Contents(layers, _word(np.asarray(said)[()]) if said else "caffe")


def _read_matconvnet(path: Path, wanted: tuple[str, ...]) -> Contents:
    """A list of layers with name and weights {kernel, bias}, or in older files filters and biases.

    MatConvNet's networks take red, green, blue: the first kernel's input channels are turned round.
    """
    from scipy.io import loadmat

    _matfile.check(path, b"layers")
    found: dict[str, ConvWeights] = {}
    layers = loadmat(path, variable_names=["layers"], simplify_cells=True).get("layers", ())
    for layer in np.atleast_1d(np.asarray(layers, dtype=object)):
        name = layer.get("name") if isinstance(layer, dict) else None
        if not isinstance(name, str) or name not in wanted:  # an empty name is an array
            continue
        pair = layer["weights"] if "weights" in layer else (layer.get("filters"), layer.get("biases"))
        kernel, bias = (np.asarray(part) for part in pair)
        if name == "conv1_1" and kernel.ndim == 4:
            kernel = kernel[:, :, ::-1]
        found[name] = _checked(path, name, kernel, bias.reshape(-1))
    return Contents(found, "caffe")


def _read_tensors(
    opened: Callable[[Path], AbstractContextManager[dict[str, _statedict.Tensor]]],
    path: Path,
    wanted: tuple[str, ...],
) -> Contents:
    """PyTorch's files and .safetensors, which don't say what their filters are to be shown."""
    with opened(path) as tensors:
        pairs = _statedict.convolutions(path, tensors)
        return Contents({name: _checked(path, name, *pairs[name]) for name in wanted if name in pairs}, None)


def _checked(path: Path, name: str, kernel: Any, bias: Any) -> ConvWeights:
    """Hold shape, kind and values against what VGG19 needs, in that order."""
    C, K = CONVOLUTIONS[name]
    if tuple(kernel.shape) != (3, 3, C, K) or tuple(bias.shape) != (K,):
        raise _wrong_shapes(path, name, f"kernel {tuple(kernel.shape)} and bias {tuple(bias.shape)}")
    if kernel.dtype.kind != "f" or bias.dtype.kind != "f":
        raise UserError(
            f"weights: {path}",
            f"{name} of types {kernel.dtype} and {bias.dtype}",
            "floating-point numbers",
            "take another file",
        )
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinity
        arrays = ConvWeights(*(np.ascontiguousarray(part, np.float32) for part in (kernel, bias)))
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(
            f"weights: {path}", f"NaN or infinity in {name}", "finite numbers", "fetch the file again"
        )
    return arrays


def _wrong_shapes(path: Path, name: str, found: str) -> UserError:
    C, K = CONVOLUTIONS[name]
    return UserError(
        f"weights: {path}",
        f"{name} with {found}",
        f"kernel (3, 3, {C}, {K}) and bias ({K},)",
        "take a file of VGG19 (weights/README.md)",
    )


def write_weights(path: str | os.PathLike[str], weights: Weights, overwrite: bool = False) -> Path:
    """Write filters as .npz or as Keras HDF5 (.h5), with what they are to be shown; whole or not at all.

    Raises
    ------
    UserError
        It can't be written, or it exists and `overwrite` is False.
    """
    path = check_target(path, overwrite)
    try:
        with replacing(path, overwrite) as temporary:
            WRITERS[path.suffix.lower()](temporary, weights)
    except (OSError, RuntimeError) as error:  # RuntimeError: what h5py makes of a full disk
        raise UserError(
            f"output: {path}",
            f"{getattr(error, 'strerror', None) or error} on writing",
            "a folder with room that can be written to",
            "choose another",
        ) from error
    return path


def check_target(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Make sure, before long work, that filters can be written there: extension, folder, name."""
    path = Path(os.path.expanduser(path))
    if path.suffix.lower() not in WRITERS:
        found = f"the extension {path.suffix!r}" if path.suffix else "no extension"
        raise UserError(f"output: {path}", found, " or ".join(WRITERS), "give one of these")
    check_writable(path, overwrite)
    return path


def _write_npz(path: Path, weights: Weights) -> None:
    arrays: dict[str, Any] = {"preprocessing": np.array(weights.preprocessing)}
    for name, layer in weights.items():
        arrays |= {f"{name}/kernel": layer.kernel, f"{name}/bias": layer.bias}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _write_keras(path: Path, weights: Weights) -> None:
    """As Keras writes the convolutional part of VGG19, so that it can read it, too."""
    import h5py

    top = LAYERS.index(list(weights)[-1])
    with h5py.File(path, "w") as file:
        file.attrs["preprocessing"] = np.bytes_(weights.preprocessing)  # of fixed length: see `_said_in`
        file.attrs["layer_names"] = [_keras_name(name).encode() for name in LAYERS[: top + 1]]
        for name in LAYERS[: top + 1]:
            group = file.create_group(_keras_name(name))
            parts = {} if name.startswith("pool") else dict(zip("Wb", weights[name], strict=True))
            names = [f"{_keras_name(name)}_{part}_1:0" for part in parts]
            group.attrs["weight_names"] = np.array([each.encode() for each in names], "S40")
            for each, array in zip(names, parts.values(), strict=True):
                group[each] = array


WRITERS: dict[str, Callable[[Path, Weights], None]] = {".npz": _write_npz, ".h5": _write_keras}
