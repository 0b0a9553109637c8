"""Filters in 8 bits: indices into a table for each kernel, in a PyTorch file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import reading_error
from npstyle.cli.main import main
from npstyle.weights import read_weights
from npstyle.weights.registry import file_digest
from torch_files import Array, Contents, Layers, eight_bit_layers, legacy, quantized, zipped

FILTERS = eight_bit_layers("conv2_1")


def assert_same_bits(got: Layers, expected: Layers) -> None:
    assert list(got) == list(expected)
    for name, layer in got.items():
        for part, original in zip(layer, expected[name], strict=True):
            assert part.flags.c_contiguous
            assert part.dtype == np.float32
            np.testing.assert_array_equal(part.view(np.uint32), original.view(np.uint32))


@pytest.mark.parametrize("write", [legacy, zipped])
def test_kernels_are_looked_up_exactly(write: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write(path, Contents().add_arrays(quantized(FILTERS)))
    weights = read_weights(path)
    assert_same_bits(weights, FILTERS)
    assert (weights.preprocessing, weights.random) == ("caffe", False)
    assert weights.source == f"{path} (8-bit)"
    assert weights.label == f"x.bin (8-bit, sha256 {file_digest(path, 'sha256')[:8]})"


def test_only_layers_asked_for_are_read(tmp_path: Path) -> None:
    arrays = quantized(FILTERS)
    arrays["block2_conv1_W_table"] = np.zeros(64, np.float32)
    legacy(tmp_path / "x", Contents().add_arrays(arrays))
    first = {name: FILTERS[name] for name in ("conv1_1", "conv1_2")}
    assert_same_bits(read_weights(tmp_path / "x", "conv1_2"), first)
    assert "conv2_1 with indices (128, 64, 3, 3) uint8 into a table (64,)" in reading_error(tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("block1_conv2_W_q", None, "conv1_2 without W_q; expected indices, table and bias"),
        ("block1_conv2_W_table", None, "conv1_2 without W_table; expected indices, table and bias"),
        ("block1_conv2_b", None, "conv1_2 without b; expected indices, table and bias"),
        (
            "block1_conv1_W_q",
            np.zeros((64, 3, 3, 3), np.float32),
            "conv1_1 with indices (64, 3, 3, 3) float32 into a table (256,); expected indices (K, C,",
        ),
        (
            "block1_conv1_W_q",
            np.zeros((64, 27), np.uint8),
            "conv1_1 with indices (64, 27) uint8 into a table (256,)",
        ),
        (
            "block1_conv1_W_q",
            np.zeros((64, 3, 5, 5), np.uint8),
            "conv1_1 with kernel (5, 5, 3, 64) and bias (64,); expected kernel (3, 3, 3, 64)",
        ),
        (
            "block1_conv1_W_table",
            np.zeros(255, np.float32),
            "conv1_1 with indices (64, 3, 3, 3) uint8 into a table (255,)",
        ),
        (
            "block1_conv1_W_table",
            np.arange(256, dtype=np.uint8),
            "conv1_1 of types uint8 and float32; expected floating-point numbers",
        ),
        (
            "block1_conv1_W_table",
            np.full(256, np.nan, np.float32),
            "NaN or infinity in conv1_1",
        ),
    ],
)
def test_incomplete_and_odd_layers_are_refused(
    name: str, array: Array | None, words: str, tmp_path: Path
) -> None:
    arrays = {**quantized(FILTERS), name: array}
    present = {key: value for key, value in arrays.items() if value is not None}
    legacy(tmp_path / "x", Contents().add_arrays(present))
    assert words in reading_error(tmp_path / "x")


@pytest.mark.parametrize("fraction", [0.1, 0.9, 0.999])
def test_truncated_file_is_damaged(fraction: float, tmp_path: Path) -> None:
    legacy(tmp_path / "x", Contents().add_arrays(quantized(FILTERS)))
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[: int(fraction * len(content))])
    assert "damaged file" in reading_error(tmp_path / "x")


@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_convert_writes_the_same_filters(ending: str, tmp_path: Path, capsys: Any) -> None:
    legacy(tmp_path / "x.bin", Contents().add_arrays(quantized(FILTERS)))
    target = tmp_path / f"x.{ending}"
    assert main(["weights", "convert", str(tmp_path / "x.bin"), str(target)]) == 0
    assert "(3 of 16), caffe, from" in capsys.readouterr().out
    assert_same_bits(read_weights(target), FILTERS)
