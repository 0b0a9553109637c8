"""VGG19's filters: find them, fetch them, check them, load them; or draw random ones.

In memory they are what the Keras file has: kernels (3, 3, C, K) float32 in the order height, width, in,
out; the first layer's input channels in the order blue, green, red.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npstyle import _download
from npstyle.architecture import CONVOLUTIONS, canonical, convolutions_up_to
from npstyle.errors import UserError, whole_number

Array = NDArray[np.floating]

TOP = "conv5_4"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
MAT_MAGIC = b"MATLAB"


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
    """

    def __init__(self, layers: Mapping[str, ConvWeights], source: str, random: bool = False) -> None:
        self._layers = dict(layers)
        self.source = source
        self.random = random

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
    source: str | os.PathLike[str] = "auto", seed: int = 0, deepest: str = TOP, progress: bool = False
) -> Weights:
    """Filters of VGG19: from a file, found or fetched, or drawn at random.

    Parameters
    ----------
    source : str or path
        "auto": the file that NPSTYLE_WEIGHTS names; else one from the registry that lies in
        `weights/` or in the user's cache; else a download; else random filters, with a warning.
        "imagenet": as "auto", but an error where "auto" takes random filters.
        "random": Gaussian filters. A path: that file, Keras HDF5, MatConvNet .mat, or .npz.
    seed : int
        Of the random filters.
    deepest : str
        The deepest layer wanted; nothing deeper is read.
    progress : bool
        Show a bar on standard error while downloading.

    Returns
    -------
    Weights
        A file that holds only the lower layers is a good file; it gives what it has.

    Raises
    ------
    UserError
        The file is missing, damaged, or not VGG19's; or nothing was found for "imagenet".

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
    if source == "random":
        return random_weights(seed, deepest)
    if source not in ("auto", "imagenet"):
        return read_weights(source, deepest)
    named = os.environ.get("NPSTYLE_WEIGHTS")
    if named:
        return read_weights(named, deepest, origin="NPSTYLE_WEIGHTS")
    found, tried = find()
    if found is None:
        found, failures = _download.fetch_any(progress)
        tried += failures
    if found is not None:
        return read_weights(found, deepest)
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
    """A registered file that is already here, whole; and the places where none was."""
    tried: list[str] = []
    for folder in (_download.project_folder(), _download.cache_folder()):
        before = len(tried)
        for entry in _download.registry():
            path = folder / entry.name
            if os.path.isfile(path):
                try:
                    if _download.intact(path, entry):
                        return path, tried
                    tried.append(f"{path} (damaged: its {entry.algorithm} is not the registered one)")
                except OSError as error:
                    tried.append(f"{path} ({error.strerror})")
        if len(tried) == before:
            tried.append(f"{folder} (no registered file)")
    return None, tried


def random_weights(seed: int = 0, deepest: str = TOP) -> Weights:
    """Gaussian filters with variance 2 / (9 C), no bias.

    The variance keeps the size of the responses from layer to layer (He et al., "Delving Deep into
    Rectifiers", 2015, equation 10). Each layer has a stream of its own, so that a layer's filters do not
    depend on how many layers are made.
    """
    seed = whole_number("seed", seed, 0)
    layers = {}
    for name in convolutions_up_to(deepest):
        C, K = CONVOLUTIONS[name]
        rng = np.random.default_rng([seed, list(CONVOLUTIONS).index(name)])
        kernel = rng.standard_normal((3, 3, C, K), np.float32) * np.float32(np.sqrt(2 / (9 * C)))
        layers[name] = ConvWeights(kernel, np.zeros(K, np.float32))
    return Weights(layers, f"random filters (seed {seed})", random=True)


def read_weights(path: str | os.PathLike[str], deepest: str = TOP, origin: str = "weights") -> Weights:
    """Filters from a file; its format is told by its first bytes, not by its name.

    Raises
    ------
    UserError
        In one line: missing, unreadable, damaged, another format, wrong shapes, NaN or infinity.
    """
    if not os.fspath(path):
        raise UserError(origin, "an empty name", "a weights file, or 'auto'", "name one")
    path = Path(os.path.expanduser(path))
    reader = _reader_of(path, origin)
    wanted = convolutions_up_to(deepest)
    try:
        layers = dict(reader(path, wanted))
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
    return Weights({name: layers[name] for name in wanted if name in layers}, str(path))


Found = Iterable[tuple[str, ConvWeights]]
Reader = Callable[[Path, tuple[str, ...]], Found]


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
    for magic, reader in ((HDF5_MAGIC, _read_keras), (ZIP_MAGIC, _read_npz), (MAT_MAGIC, _read_matconvnet)):
        if head.startswith(magic):
            return reader
    raise UserError(
        f"{origin}: {path}",
        "an empty file" if not head else "an unknown format",
        "Keras HDF5, MatConvNet .mat or .npz",
        "take a file named in weights/README.md",
    )


def _read_keras(path: Path, wanted: tuple[str, ...]) -> Found:
    """Groups block1_conv1 ..., each with a 4-D kernel and a 1-D bias, under whichever names."""
    import h5py

    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        if not isinstance(root, h5py.Group):
            return
        for name in wanted:
            group = root.get("block{}_conv{}".format(*name[4:].split("_")))
            if not isinstance(group, h5py.Group):
                continue
            datasets: list[Any] = []
            group.visititems(
                lambda _, item, into=datasets: into.append(item) if hasattr(item, "shape") else None
            )
            by_rank = {len(dataset.shape): dataset for dataset in datasets}
            if len(datasets) != 2 or set(by_rank) != {1, 4}:
                shapes = ", ".join(str(dataset.shape) for dataset in datasets) or "nothing"
                raise _wrong_shapes(path, name, shapes)
            # Shapes are held against the table before anything is read.
            yield name, _checked(path, name, by_rank[4], by_rank[1])


def _read_npz(path: Path, wanted: tuple[str, ...]) -> Found:
    """Arrays conv1_1/kernel and conv1_1/bias ... as in memory (blue, green, red)."""
    # np.load leaves a damaged file open if it is given a name.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        for name in wanted:
            kernel, bias = f"{name}/kernel", f"{name}/bias"
            if kernel in file and bias in file:
                yield name, _checked(path, name, file[kernel], file[bias])


def _read_matconvnet(path: Path, wanted: tuple[str, ...]) -> Found:
    """A list of layers with name and weights {kernel, bias}, or in older files filters and biases.

    MatConvNet's networks take red, green, blue: the first kernel's input channels are turned round.
    """
    from scipy.io import loadmat

    layers = loadmat(path, variable_names=["layers"], simplify_cells=True).get("layers", ())
    for layer in np.atleast_1d(np.asarray(layers, dtype=object)):
        name = layer.get("name") if isinstance(layer, dict) else None
        if not isinstance(name, str) or name not in wanted:  # an empty name is an array
            continue
        pair = layer["weights"] if "weights" in layer else (layer.get("filters"), layer.get("biases"))
        kernel, bias = (np.asarray(part) for part in pair)
        if name == "conv1_1" and kernel.ndim == 4:
            kernel = kernel[:, :, ::-1]
        yield name, _checked(path, name, kernel, bias.reshape(-1))


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
