"""VGG19's filters: find, download, verify, read and write them, or draw random ones.

In memory they are as in Keras's file: kernels (3, 3, C, K) float32 in the order height, width, in, out. The
input channels of the first layer are blue, green, red; those of filters that expect torchvision's
preprocessing, red, green, blue.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from npstyle._runtime.atomic import check_writable, replacing
from npstyle._runtime.paths import as_input, as_path
from npstyle._typing import Preprocessing
from npstyle.architecture import CONVOLUTIONS, PREPROCESSINGS, convolutions_up_to
from npstyle.errors import UserError, check_choice, check_integer
from npstyle.weights import download as _download
from npstyle.weights import registry as _registry
from npstyle.weights.formats import WRITERS, check_file, reader_of
from npstyle.weights.recognize import recognize_filters
from npstyle.weights.types import ConvWeights, Weights, WeightsWarning

TOP = "conv5_4"
EIGHT_BIT = "8bit"  # the alias of a registered file
LABEL_DIGITS = 8  # of a file's SHA-256 in `Weights.label`, as many as PyTorch has in the names of files


class RandomFiltersWarning(WeightsWarning):
    """Random filters are used because the ImageNet filters are not available."""


def load_weights(
    source: str | os.PathLike[str] = "auto",
    seed: int = 0,
    deepest: str = TOP,
    progress: bool = False,
    preprocessing: Preprocessing | None = None,
) -> Weights:
    """VGG19's filters from a file, which is downloaded if necessary, or drawn at random.

    With "auto" and "imagenet", this function may use the network: if no registered file is in the project's
    `weights/`, in the user's cache or in Keras's, it downloads one of about 80 MB into the cache or, if it
    can't, has pip fetch a package of about 20 MB, which has the same filters in 8 bits in it. Without a
    network it gives up after at most 10 seconds. Run `npstyle weights fetch` beforehand to avoid both. "8bit"
    has the package fetched if need be; a path and "random" never use the network.

    Parameters
    ----------
    source : str or path
        "auto": the file that the environment variable NPSTYLE_WEIGHTS names; else the first registered file
        that `find_weights` finds; else a download or, of filters in 8 bits, a package; else what PyTorch's
        hub has downloaded; else random filters, with a warning.
        "imagenet": as "auto", but an error instead of random filters.
        "8bit": the registered file of 8-bit filters, from this machine or out of a package.
        "random": Gaussian filters, see `random_weights`.
        A path: that file, Keras HDF5 or .keras, MatConvNet .mat, .npz, a PyTorch state dict or .safetensors.
    seed : int
        Of random filters.
    deepest : str
        The deepest layer needed; nothing above it is read.
    progress : bool
        Show a progress bar on standard error while downloading.
    preprocessing : {"caffe", "torchvision"}, optional
        What the file's filters expect (see `Weights`), whatever the file states. Required for .npz files that
        state none, PyTorch's and .safetensors files, unless they are recognized.

    Returns
    -------
    Weights
        With the layers that the file has: a file of only the lower layers is valid.

    Raises
    ------
    UserError
        The file is missing, damaged, or not VGG19's; its preprocessing is not known; or "imagenet" or "8bit"
        was asked for and is not available.

    Warns
    -----
    RandomFiltersWarning
        "auto" found neither a file nor a network. The message lists what was tried.
    WeightsWarning
        A download kept another file of its name in the cache under a new name.

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
            expected = "'caffe' for random filters"
            raise UserError("preprocessing", repr(preprocessing), expected, "leave it out")
        return random_weights(seed, deepest)
    if source in ("auto", "imagenet"):
        named = os.environ.get("NPSTYLE_WEIGHTS")
        if named:
            return read_weights(named, deepest, origin="NPSTYLE_WEIGHTS", preprocessing=preprocessing)
        path, tried = _find_or_fetch_any(progress)
    elif source == EIGHT_BIT:
        path, tried = _find_or_fetch_8bit(progress)
    else:
        expected = "a weights file, 'auto', 'imagenet', '8bit' or 'random'"
        check_file(as_input(source, "weights"), expected=expected)
        return read_weights(source, deepest, preprocessing=preprocessing)
    if path is not None:
        return read_weights(path, deepest, preprocessing=preprocessing)
    cure = _how_to_get_filters()
    if source != "auto":
        kind = "8-bit" if source == EIGHT_BIT else "ImageNet"
        raise UserError("weights", f"no {kind} filters: " + "; ".join(tried), "a file or a network", cure)
    warnings.warn(
        "the ImageNet filters of VGG19 are not available. Continuing with RANDOM FILTERS, never trained: the "
        "result will have the style's colors and texture, but much more coarsely.\n"
        "Tried: " + ";\n       ".join(tried) + f".\nFor the ImageNet filters: {cure}.",
        RandomFiltersWarning,
        stacklevel=2,
    )
    return random_weights(seed, deepest)


def _find_or_fetch_any(progress: bool) -> tuple[Path | None, list[str]]:
    """The file for "auto" and "imagenet", and what was tried in vain."""
    path, tried = find_weights()
    if path is None:
        path, failures = _download.fetch_any(progress)
        tried += failures
    if path is None:  # torchvision's filters are others: better than random ones, but no match for a download
        path, failures = find_weights([_registry.torch_folder()])
        tried += failures
    return path, tried


def _find_or_fetch_8bit(progress: bool) -> tuple[Path | None, list[str]]:
    """The file for "8bit", and what was tried in vain."""
    entry = _registry.find_entry(EIGHT_BIT)
    path, tried = find_weights(entries=[entry])
    if path is None:
        path, failures = _download.fetch_any(progress, [entry])
        tried += failures
    return path, tried


def _how_to_get_filters() -> str:
    """What to do on a machine that has found none and can't fetch any."""
    entries = _registry.registry()
    names = " or ".join(entry.name for entry in entries if entry.addresses or not entry.package)
    cure = (
        f"fetch {names or 'a file of VGG19'} on a machine with a network (addresses in weights/README.md) "
        f"and put it into {_registry.folders()[-1]}, or name it with --weights FILE or NPSTYLE_WEIGHTS=FILE"
    )
    for entry in entries:
        if entry.package:
            cure += f"; or run {entry.package.how_to_fetch}"
    return cure


def find_weights(
    folders: Sequence[Path] | None = None, entries: Sequence[_registry.Entry] | None = None
) -> tuple[Path | None, list[str]]:
    """Look for a registered file, by name and checksum; no download.

    Parameters
    ----------
    folders : sequence of Path, optional
        In place of the project's `weights/`, the user's cache and the folder of Keras's downloads.
    entries : sequence of Entry, optional
        In place of the whole registry.

    Returns
    -------
    path : Path or None
        The first file of the registry that has its registered checksum; one of filters in 8 bits only if
        there is no other.
    failures : list of str
        The places that were searched in vain, each with the reason; empty if a file was found. Folders of
        other programs are named only if there is an unusable file in them.
    """
    failures: dict[Path, list[str]] = {}
    for folder in [*_registry.folders(), _registry.keras_folder()] if folders is None else folders:
        failures[folder] = []
    for entry in sorted(_registry.registry() if entries is None else entries, key=lambda entry: -entry.bits):
        for folder, reasons in failures.items():
            path = folder / entry.name
            if os.path.isfile(path):
                try:
                    if _registry.matches_checksum(path, entry):
                        return path, []
                    reasons.append(f"{path} (damaged: its {entry.algorithm} is not the registered one)")
                except OSError as error:
                    reasons.append(f"{path} ({error.strerror})")
    for folder, reasons in failures.items():
        if not reasons and folder in _registry.folders():
            reasons.append(f"{folder} ({_registry.why_unreadable(folder) or 'no registered file'})")
    return None, [reason for reasons in failures.values() for reason in reasons]


def random_weights(seed: int = 0, deepest: str = TOP) -> Weights:
    """Gaussian kernels with variance 2 / (9 C), and zero biases, for "caffe" preprocessing.

    With this variance activations have the same magnitude in every layer (He et al., "Delving Deep into
    Rectifiers", 2015, equation 10). Each layer has its own random stream, so its filters do not depend on how
    many layers are drawn.

    Parameters
    ----------
    seed : int
        From 0.
    deepest : str
        The deepest layer needed.
    """
    seed = check_integer("seed", seed, 0)
    layers = {}
    for name in convolutions_up_to(deepest):
        C, K = CONVOLUTIONS[name]
        rng = np.random.default_rng([seed, list(CONVOLUTIONS).index(name)])
        kernel = rng.standard_normal((3, 3, C, K), np.float32) * np.float32(np.sqrt(2 / (9 * C)))
        layers[name] = ConvWeights(kernel, np.zeros(K, np.float32))
    return Weights(layers, f"random filters (seed {seed})", random=True, preprocessing="caffe")


def read_weights(
    path: str | os.PathLike[str],
    deepest: str = TOP,
    origin: str = "weights",
    preprocessing: Preprocessing | None = None,
) -> Weights:
    """Read filters from a file, whose format is told by its first bytes, not by its name.

    Parameters
    ----------
    path : path
    deepest, preprocessing
        See `load_weights`.
    origin : str
        What named the file, for messages: a parameter, an environment variable.

    Raises
    ------
    UserError
        The file is missing, unreadable, damaged, of another format or network, has wrong shapes, NaN or
        infinity; or the preprocessing that its filters expect is not known.
    """
    path = as_input(path, origin)
    name = f"{origin}: {path}"
    wanted_layers = convolutions_up_to(deepest)
    reader = reader_of(path, origin)
    try:
        contents = reader(path, wanted_layers)
        sha256 = _registry.file_digest(path, "sha256")
    except (UserError, MemoryError, ImportError):
        raise
    except Exception as error:  # a damaged file can make its library raise anything
        raise UserError(name, f"a damaged file ({error})", "an intact one", "fetch it again") from error
    if "conv1_1" not in contents.layers:
        expected = "at least conv1_1 (block1_conv1)"
        raise UserError(name, "no filters of VGG19", expected, "take a file named in weights/README.md")
    layers = {layer: contents.layers[layer] for layer in wanted_layers if layer in contents.layers}
    bits = f"{contents.bits}-bit" if contents.bits else ""
    label = f"{path.name} ({bits and f'{bits}, '}sha256 {sha256[:LABEL_DIGITS]})"
    source = f"{path} ({bits})" if bits else str(path)
    stated = preprocessing or contents.preprocessing
    if stated is None:
        weights = recognize_filters(path, layers, sha256, label)
    elif stated in PREPROCESSINGS:
        weights = Weights(layers, source, preprocessing=stated, label=label)
    else:
        expected = " or ".join(PREPROCESSINGS)
        raise UserError(name, f"the preprocessing {stated!r}", expected, f"give --preprocessing {expected}")
    weights.path = path
    return weights


def write_weights(path: str | os.PathLike[str], weights: Weights, overwrite: bool = False) -> Path:
    """Write filters and their preprocessing as .npz or Keras HDF5 (.h5), completely or not at all.

    Returns
    -------
    Path

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
    """Make sure, before long work, that filters can be written to `path`.

    Raises
    ------
    UserError
        They can't be written, or the file exists and `overwrite` is False.
    """
    path = as_path(path)
    if path.suffix.lower() not in WRITERS:
        found = f"the extension {path.suffix!r}" if path.suffix else "no extension"
        raise UserError(f"output: {path}", found, " or ".join(WRITERS), "give one of these")
    check_writable(path, overwrite)
    return path
