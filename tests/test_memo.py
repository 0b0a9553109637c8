"""What is kept of style pictures from one painting to the next: it is computed once, and changes no bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import npstyle
from helpers import picture
from npstyle import objective
from npstyle._runtime.memo import Memo
from npstyle.run import Request, paint
from npstyle.vgg import VGG19
from npstyle.weights import Weights, random_weights

LAYERS = ("conv1_1", "conv2_1")
WEIGHTS = Weights(random_weights(0, "conv2_1"), "as if trained")


def request(content: int, style: int = 9, **changes: Any) -> Request:
    fields = {"content_layers": ("conv2_1",), "style_layers": LAYERS, "iterations": 2, "min_size": 24}
    settings = replace(npstyle.preset("default"), **{**fields, **changes})
    return Request.read(picture(32, 48, content), picture(40, 40, style), settings=settings, size=48)


def style_passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the style pictures that go through the network from now on."""
    shapes: list[tuple[int, ...]] = []
    sums = objective.Objective._sums

    def counted(self: Any, style: Any, *rest: Any) -> Any:
        shapes.append(style.shape[:2])
        return sums(self, style, *rest)

    monkeypatch.setattr(objective.Objective, "_sums", counted)
    return shapes


@pytest.mark.parametrize("statistics", ["gram", "gram+moments", "wasserstein"])
def test_styles_are_computed_once_for_each_size_to_the_same_bits(
    statistics: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(content, statistics=statistics) for content in (1, 2, 3)]
    alone = [paint(one, WEIGHTS, threads=1) for one in requests]
    shapes, memo = style_passes(monkeypatch), Memo()
    together = [paint(one, WEIGHTS, threads=1, memo=memo) for one in requests]
    assert len(shapes) == len(set(shapes)) == len(alone[0].levels) == 3
    transports = len(LAYERS) * len(shapes) if statistics == "wasserstein" else 0
    assert memo.computed == len(shapes) + transports
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.losses == other.losses


@pytest.mark.parametrize(
    "changes",
    [{"pooling": "max"}, {"padding": "zero"}, {"style_layers": ("conv1_2",)}, {"color": "match"}],
    ids=str,
)
def test_other_settings_have_other_targets(changes: dict[str, Any]) -> None:
    memo = Memo()
    paint(request(1), WEIGHTS, threads=1, memo=memo)
    other = request(2, **changes)
    kept = paint(other, WEIGHTS, threads=1, memo=memo)
    np.testing.assert_array_equal(kept.pixels, paint(other, WEIGHTS, threads=1).pixels)


def test_another_style_has_other_targets() -> None:
    memo = Memo()
    paint(request(1), WEIGHTS, threads=1, memo=memo)
    kept = paint(request(1, 8), WEIGHTS, threads=1, memo=memo)
    np.testing.assert_array_equal(kept.pixels, paint(request(1, 8), WEIGHTS, threads=1).pixels)


def test_random_filters_differ_from_picture_to_picture() -> None:
    memo = Memo()
    for content in (1, 2):
        kept = paint(request(content), random_weights(0, "conv2_1"), threads=1, memo=memo)
        alone = paint(request(content), random_weights(0, "conv2_1"), threads=1)
        np.testing.assert_array_equal(kept.pixels, alone.pixels)
    assert memo.computed == 0


def test_masked_styles_are_not_kept() -> None:
    memo = Memo()
    mask, style = np.zeros((32, 48)), np.zeros((40, 40))
    mask[:16], style[:20] = 1, 1
    masked = replace(request(1), content_masks=(mask,), style_masks=(style,))
    kept = paint(masked, WEIGHTS, threads=1, memo=memo)
    np.testing.assert_array_equal(kept.pixels, paint(masked, WEIGHTS, threads=1).pixels)


def test_results_are_kept_up_to_a_number_of_bytes() -> None:
    memo = Memo(max_bytes=250)

    def get(n: int) -> float:
        return float(memo.get((n,), lambda: np.full(12, float(n)))[0])  # 96 bytes

    assert [get(n) for n in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert memo.computed == 4  # 2 was the oldest when 3 came
    memo.get(("large",), lambda: np.zeros(100))
    assert [get(n) for n in (1, 2)] == [1, 2]
    assert memo.computed == 5


def test_kept_arrays_can_not_be_written_to() -> None:
    result = Memo().get((np.arange(3), "a"), lambda: {"x": (np.zeros(2),)})
    with pytest.raises(ValueError, match="read-only"):
        result["x"][0][0] = 1


def test_copies_of_a_network_have_no_memo() -> None:
    network = VGG19(WEIGHTS)
    network.memo = Memo()
    assert copy.deepcopy(network).memo is None
