"""Readers and writers of weights files, one module for each format.

A format is a module with `read(path, wanted_layers) -> Contents` and, if npstyle writes it,
`write(path, weights)`. READERS and WRITERS below are the only places that list them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from npstyle._runtime.paths import what_is_there
from npstyle.errors import UserError
from npstyle.weights.formats import keras, matconvnet, npz, safetensors, torch
from npstyle.weights.formats.common import Contents
from npstyle.weights.types import Weights

Reader = Callable[[Path, Sequence[str]], Contents]
Writer = Callable[[Path, Weights], None]


def _read_zip(path: Path, wanted_layers: Sequence[str]) -> Contents:
    """NumPy, PyTorch and Keras 3 all write zip archives."""
    if torch.is_torch_zip(path):
        return torch.read(path, wanted_layers)
    return (keras.read_zip if keras.is_keras_zip(path) else npz.read)(path, wanted_layers)


MAGIC_BYTES = 32  # that are read to tell the format
READABLE = "Keras HDF5 or .keras, MatConvNet .mat, .npz, a PyTorch state dict or .safetensors"
# A regular expression for the first bytes of a file, and the reader.
READERS: tuple[tuple[bytes, Reader], ...] = (
    (rb"\x89HDF\r\n\x1a\n", keras.read),
    (rb"MATLAB", matconvnet.read),
    (re.escape(torch.ZIP_MAGIC), _read_zip),
    (rb"\x80.*" + re.escape(torch.LEGACY_MAGIC), torch.read),
    (rb".{4}\0{4}\{", safetensors.read),  # the length of a header, below 2**32, and the header's first byte
)
WRITERS: dict[str, Writer] = {".npz": npz.write, ".h5": keras.write}


def check_file(path: Path, origin: str = "weights", expected: str = "a weights file") -> None:
    """Raise UserError, about what `origin` names, unless there is a file."""
    if not os.path.isfile(path):  # Path.is_file may raise
        found, cure = what_is_there(path)
        raise UserError(f"{origin}: {path}", found, expected, cure)


def reader_of(path: Path, origin: str = "weights") -> Reader:
    """The reader for a file by its first bytes; the name does not count.

    Raises
    ------
    UserError
        The file is missing, not readable, or of another format. `origin` is what named it.
    """
    name = f"{origin}: {path}"
    check_file(path, origin)
    try:
        with path.open("rb") as file:
            head = file.read(MAGIC_BYTES)
    except OSError as error:
        raise UserError(name, f"{error.strerror}", "a readable file", "check its permissions") from error
    for pattern, reader in READERS:
        if re.match(pattern, head, re.DOTALL):
            return reader
    found = "an unknown format" if head else "an empty file"
    raise UserError(name, found, READABLE, "take a file named in weights/README.md")
