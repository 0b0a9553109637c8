"""npstyle's own .npz files: arrays conv1_1/kernel, conv1_1/bias ... and the string `preprocessing`.

A file without that string is somebody else's, and no convention says what its filters expect.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npstyle._runtime.npy import Member
from npstyle.weights.formats.common import MAX_PREPROCESSING_BYTES, Contents, check_layer
from npstyle.weights.types import ConvWeights, Weights


def read(path: Path, wanted_layers: Sequence[str]) -> Contents:
    """Read layers, and the preprocessing if the file states it."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        layers: dict[str, ConvWeights] = {}
        for name in wanted_layers:
            keys = f"{name}/kernel", f"{name}/bias"
            if all(key in members for key in keys):
                layers[name] = check_layer(path, name, *(Member(archive, members[key]) for key in keys))
        stated = _string(Member(archive, members["preprocessing"])) if "preprocessing" in members else None
        return Contents(layers, stated)


def write(path: Path, weights: Weights) -> None:
    """Write all layers and the preprocessing."""
    arrays: dict[str, Any] = {"preprocessing": np.array(weights.preprocessing)}
    for name, layer in weights.items():
        arrays |= {f"{name}/kernel": layer.kernel, f"{name}/bias": layer.bias}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _string(member: Member) -> str:
    if member.shape != () or member.dtype.kind not in "US" or member.nbytes > MAX_PREPROCESSING_BYTES:
        raise ValueError("a preprocessing that is not a short string")
    value = np.asarray(member)[()]
    return value.decode() if isinstance(value, bytes) else str(value)
