"""One picture by several processes: the same bits as by one."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers import picture
from npstyle import VGG19, Objective, Settings, UserError, load_weights, preset
from npstyle._typing import Array
from npstyle.divided import DividedObjective, Pixels, WorkerLostError, divided_among

WEIGHTS = load_weights("random", seed=0)
PAPER = preset("paper")
SETTINGS = {
    "paper": PAPER,
    "replicate": replace(PAPER, padding="replicate", pooling="max", tv_weight=0.01),
    "wasserstein": replace(PAPER, statistics="wasserstein", style_layers=("conv1_1", "conv2_1", "conv3_1")),
    "moments": replace(PAPER, statistics="gram+moments", scaling="relative"),
    "shallow": Settings(content_layers=("conv2_2", "pool2"), style_layers=("conv1_1", "conv3_1")),
    "no content": replace(PAPER, content_layers=()),
    "wrap": Settings(
        content_layers=("conv2_2", "pool3"),
        style_layers=("conv1_1", "conv3_1", "conv4_1"),
        statistics="gram+moments",
        padding="wrap",
    ),
}
SIZE = 420, 17


class Here:
    """Workers in this process, all of which were pickled on their way; each has a network of its own."""

    def __init__(self, network: VGG19, count: int, losses: int = 0) -> None:
        self.count, self._losses = count, losses
        self._networks = [pickle.loads(pickle.dumps(network)) for _ in range(count)]
        self.begun: list[str] = []

    def send(self, band: int, pixels: Pixels) -> Pixels:
        return pixels

    def submit(self, band: int, function: Callable[..., Any], *arguments: Any) -> Any:
        self.begun.append(function.__name__)
        return function(self._networks[band], *pickle.loads(pickle.dumps(arguments)))

    def results(self, handles: Sequence[Any]) -> list[Any]:
        if self._losses and self.begun[-1] == "gradient_of_band":
            self._losses -= 1
            raise WorkerLostError("a worker was killed")
        return list(handles)


@pytest.fixture(autouse=True)
def low_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in "partial", "divided":
        monkeypatch.setattr(f"npstyle.{module}.SECTION", 96)


def evaluated(objective: Objective, pixels: Array) -> tuple[float, dict[str, float], Array]:
    loss, gradient = objective(pixels)
    return loss, objective.terms, gradient


def assert_same(
    settings: Settings, count: int, dtype: Any = np.float32, size: tuple[int, int] = SIZE, **masks: Any
) -> None:
    network = VGG19.for_settings(WEIGHTS, settings, threads=2)
    arguments = picture(*size, seed=3), [picture(40, 31, seed=1), picture(27, 34, seed=2)], settings
    pixels = picture(*size, dtype=dtype)
    expected = evaluated(Objective(network, *arguments, **masks), pixels)
    found = evaluated(DividedObjective(network, *arguments, Here(network, count), **masks), pixels)
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    np.testing.assert_array_equal(found[2], expected[2])


@pytest.mark.parametrize("name", SETTINGS)
def test_bands_have_the_bits_of_the_whole_picture(name: str) -> None:
    assert_same(SETTINGS[name], 3)


@pytest.mark.parametrize("name", ["paper", "shallow"])
def test_bands_of_odd_heights(name: str) -> None:
    """397 rows of pixels, 99 in block 3 and 49 in block 4: the last one has no mean, and is beside a tile."""
    assert_same(SETTINGS[name], 2, size=(397, 17))


def test_any_number_of_bands() -> None:
    for count in 1, 5:
        assert_same(SETTINGS["wasserstein"], count)


def test_masks_and_float64() -> None:
    masks: dict[str, Any] = {
        "content_masks": [picture(*SIZE, seed=4 + n)[:, :, 0] / 255 for n in range(2)],
        "style_masks": [picture(*shape, seed=6)[:, :, 0] / 255 for shape in ((40, 31), (27, 34))],
    }
    assert_same(PAPER, 2, **masks)
    assert_same(SETTINGS["shallow"], 2, np.float64)


def test_what_a_lost_worker_had_is_computed_again() -> None:
    settings = SETTINGS["shallow"]
    network = VGG19.for_settings(WEIGHTS, settings, threads=1)
    arguments = picture(*SIZE, seed=3), [picture(40, 31, seed=1)], settings
    pixels = picture(*SIZE)
    workers = Here(network, 2, losses=2)
    expected = evaluated(DividedObjective(network, *arguments, Here(network, 2)), pixels)
    found = evaluated(DividedObjective(network, *arguments, workers), pixels)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[2], expected[2])
    assert workers.begun.count("content_of_band") == 4 * 2  # with the float32
    with pytest.raises(UserError, match="workers: found 5 losses"):
        DividedObjective(network, *arguments, Here(network, 2, losses=100))(pixels)


def test_bands_are_as_high_as_sections_allow() -> None:
    assert [band.rows for band in divided_among((420, 40, 3), 3)] == [(0, 192), (192, 288), (288, 420)]
    assert [band.rows for band in divided_among((90, 40, 3), 3)] == [(0, 90)]
    assert len(divided_among((420, 40, 3), 9)) == 5


def test_a_narrow_picture_is_refused() -> None:
    settings = SETTINGS["wasserstein"]
    network = VGG19.for_settings(WEIGHTS, settings, threads=1)
    found = "workers: found 8 pixels of width; expected more than 256 positions in conv3_1"
    with pytest.raises(UserError, match=found):
        DividedObjective(network, picture(420, 8), [picture(40, 31)], settings, Here(network, 2))
