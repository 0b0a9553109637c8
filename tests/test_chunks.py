"""Functions of whole pictures that work a few rows at a time: their results, and the memory they take."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import picture
from npstyle import images, preset
from npstyle._runtime import chunks
from npstyle.images.color import gray, match_color_statistics, match_luma_statistics, transfer_luma
from npstyle.images.deep import to_16_bits
from npstyle.pixel_losses import edge_map, edges_loss, total_variation
from npstyle.run.finish import mixed
from npstyle.run.level import starting_picture

Array = NDArray[Any]

H, W = 400, 150
CONTENT, PIXELS = picture(H, W, dtype=np.uint8), picture(H, W, 1, np.float32)
KEEP = np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W)
GRAY = gray(CONTENT)
NOISE = replace(preset("paper"), optimizer="adam", init="noise")

FUNCTIONS: dict[str, Callable[[], Array]] = {
    "to_uint8": lambda: images.to_uint8(PIXELS),
    "to_16_bits": lambda: to_16_bits(PIXELS),
    "gray": lambda: gray(CONTENT),
    "transfer_luma": lambda: transfer_luma(PIXELS, CONTENT),
    "match_luma_statistics": lambda: match_luma_statistics(GRAY, GRAY[:50]),
    "match_color_statistics": lambda: match_color_statistics(CONTENT, CONTENT[:50]),
    "mixed": lambda: mixed(KEEP, CONTENT, PIXELS),
    "noise": lambda: starting_picture(CONTENT, NOISE, 0, "caffe"),
    "edge_map": lambda: edge_map(CONTENT, 4, dtype=np.float64),
    "edges_loss": lambda: edges_loss(PIXELS, CONTENT, {4: 1.0, 16: 1.0})[1],
    "total_variation": lambda: total_variation(PIXELS)[1],
    "resize": lambda: images.resize(PIXELS, 300, 300),
    "resize_wrapped": lambda: images.resize_wrapped(PIXELS, 300, 300),
}
# Besides the result, bytes a pixel of it: what is computed of the whole picture all the same.
MORE = {
    "match_color_statistics": 24,  # a copy in float64 for the covariance
    "match_luma_statistics": 50,  # of np.std
    "total_variation": 10,  # two pieces of a sum
    "edges_loss": 12,  # maps of edges, and chunks of 16 rows
    "edge_map": 60,  # of cells of 4 x 4 pixels
    "resize": 8,  # one channel
    "resize_wrapped": 8,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_result_is_that_of_the_whole_picture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for elements in (10**6, 8_000, 1):
        monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", elements)
        results.append(FUNCTIONS[name]())
    for result in results[1:]:
        assert result.dtype == results[0].dtype
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_memory_is_that_of_the_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", 4 * W * 3)
    tracemalloc.start()
    try:
        result = FUNCTIONS[name]()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    at_work = 20 * 8 * chunks.CHUNK_ELEMENTS  # not more arrays of a chunk than that
    assert peak < result.nbytes + MORE.get(name, 0) * result.shape[0] * result.shape[1] + at_work


def test_function_of_no_rows() -> None:
    assert chunks.in_chunks(np.negative, np.empty((0, 3))).shape == (0, 3)
