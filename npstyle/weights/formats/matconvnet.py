"""MatConvNet files (.mat, MATLAB version 5): a list of layers with kernels and biases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from npstyle.errors import UserError
from npstyle.weights.formats.common import Contents, check_layer
from npstyle.weights.formats.mat_sizes import check_sizes
from npstyle.weights.types import ConvWeights

VERSION_7_3 = b"MATLAB 7.3"  # HDF5 behind a MATLAB header


def read(path: Path, wanted_layers: Sequence[str]) -> Contents:
    """Read layers: structures with `name` and `weights` {kernel, bias}, or once `filters` and `biases`.

    MatConvNet's networks take red, green, blue: the input channels of conv1_1 are reversed, for "caffe".

    Raises
    ------
    UserError
        A MATLAB 7.3 file, or a layer of another shape.
    """
    from scipy.io import loadmat

    with path.open("rb") as file:
        if file.read(len(VERSION_7_3)) == VERSION_7_3:
            cure = "save it again with -v7 or as .npz"
            raise UserError(f"weights: {path}", "a MATLAB 7.3 file", "MATLAB version 5", cure)
    check_sizes(path, b"layers")
    layers: dict[str, ConvWeights] = {}
    structures = loadmat(path, variable_names=["layers"], simplify_cells=True).get("layers", ())
    for structure in np.atleast_1d(np.asarray(structures, dtype=object)):
        name = structure.get("name") if isinstance(structure, dict) else None
        if not isinstance(name, str) or name not in wanted_layers:  # SciPy reads an empty name as an array
            continue
        has_weights = "weights" in structure
        pair = structure["weights"] if has_weights else (structure.get("filters"), structure.get("biases"))
        kernel, bias = (np.asarray(array) for array in pair)
        if name == "conv1_1" and kernel.ndim == 4:
            kernel = kernel[:, :, ::-1]
        layers[name] = check_layer(path, name, kernel, bias.reshape(-1))
    return Contents(layers, "caffe")
