"""What holds the frames of a film together: the losses, and the objective of a frame."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import error_line, normal, picture
from npstyle import VGG19, Objective, Settings, load_weights
from npstyle.gradcheck import BOUNDS, directional
from npstyle.losses import content_loss
from npstyle.temporal import Anchor, difference_target, joined_target, temporal_loss

SETTINGS = Settings(content_layers=("conv2_2",), style_layers=("conv1_1", "conv2_1"))
MASK = np.tile(np.linspace(0, 1, 20), (16, 1))


def objective(content: NDArray[Any], plan: int = 0, **changes: Any) -> Objective:
    settings = dataclasses.replace(SETTINGS, **changes)
    network = VGG19.for_settings(load_weights("random"), settings, convolution="im2col", threads=1)
    return Objective(network, content, [picture(24, 24, 9)], settings, plan=plan)


def anchor(feature_weight: float = 0.7) -> Anchor:
    return Anchor(picture(16, 20, 3), MASK, 50.0, picture(16, 20, 4), picture(16, 20, 5), feature_weight)


@pytest.mark.parametrize("mask", [None, MASK])
def test_temporal_loss_is_the_mean_of_its_equation(mask: NDArray[Any] | None) -> None:
    x, target = picture(16, 20), picture(16, 20, 1)
    m = np.ones((16, 20)) if mask is None else mask
    expected = 3.0 * np.mean(m[:, :, None] * ((x - target) / 255) ** 2)
    value, gradient = temporal_loss(x, target, mask, 3.0)
    assert value == pytest.approx(expected, rel=1e-12)
    assert gradient.dtype == np.float64
    compared = directional(
        lambda x: temporal_loss(x, target, mask, 3.0)[0],
        lambda v: v * temporal_loss(x, target, mask, 3.0)[1],
        x,
    )
    assert compared.error < BOUNDS["directional"]


def test_temporal_loss_weighs_the_same_at_any_size() -> None:
    x, target = picture(16, 20), picture(16, 20, 1)
    larger, larger_target = (np.tile(array, (3, 2, 1)) for array in (x, target))
    assert temporal_loss(larger, larger_target, None, 2.0)[0] == pytest.approx(
        temporal_loss(x, target, None, 2.0)[0]
    )


def test_temporal_loss_keeps_float32() -> None:
    x = picture(16, 20, dtype=np.float32)
    assert temporal_loss(x, picture(16, 20, 1), MASK, 1.0)[1].dtype == np.float32


def test_difference_is_that_of_the_content() -> None:
    """(x - x') - (c - c') is x minus the target."""
    x, previous, now, before = (picture(4, 5, seed) for seed in range(4))
    np.testing.assert_allclose(
        x - difference_target(previous, now, before), (x - previous) - (now - before), atol=1e-12
    )


def test_joined_target_is_two_content_losses() -> None:
    F, P, Q = (normal(5, 7, 6, seed=seed) for seed in range(3))
    target, factor, constant = joined_target(P, 0.3, Q, 0.9)
    (value, gradient), (first, dF), (second, dG) = (
        content_loss(F, target, factor),
        content_loss(F, P, 0.3),
        content_loss(F, Q, 0.9),
    )
    assert value + constant == pytest.approx(first + second, rel=1e-12)
    np.testing.assert_allclose(gradient, dF + dG, atol=1e-12)


@pytest.mark.parametrize("plan", [0, 1])
def test_frame_has_the_terms_of_its_content_and_its_anchor(plan: int) -> None:
    """Recomputed from the feature maps, one by one; blocks in strips have the same."""
    x, content = picture(16, 20, 7), picture(16, 20, 6)
    film = objective(picture(16, 20), plan)
    frame = film.for_frame(content, anchor())
    loss, _ = frame(x)
    F, P, previous, before = (
        film.network.forward(np.asarray(p, np.float64), ["conv2_2"])["conv2_2"]
        for p in (x, content, picture(16, 20, 4), picture(16, 20, 5))
    )
    scale = 2 / float(np.sum(P**2))
    expected = content_loss(F, P, scale)[0] + 0.7 * content_loss(F, previous + P - before, scale)[0]
    assert frame.terms["content/conv2_2"] == pytest.approx(expected, rel=1e-5)
    assert frame.terms["temporal"] == pytest.approx(temporal_loss(x, picture(16, 20, 3), MASK, 50.0)[0])
    assert loss == pytest.approx(sum(frame.terms.values()))


def test_frame_has_the_style_of_the_first_and_the_content_of_its_own() -> None:
    x, content = picture(16, 20, 7), picture(16, 20, 6)
    first = objective(picture(16, 20))
    frame, alone = first.for_frame(content), objective(content)
    np.testing.assert_array_equal(frame(x)[1], alone(x)[1])
    assert frame.terms == alone.terms
    assert first.content is not frame.content  # the first frame's objective is as it was
    first(x)
    assert first.terms["content/conv2_2"] != frame.terms["content/conv2_2"]


def test_style_targets_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = objective(picture(16, 20))
    monkeypatch.setattr(Objective, "_style_terms", None)
    first.for_frame(picture(16, 20, 1), anchor())


def test_frame_of_another_size_is_refused() -> None:
    line = error_line(lambda: objective(picture(16, 20)).for_frame(picture(20, 16)), "content")
    assert line == "found shape (20, 16, 3); expected the first frame's, (16, 20, 3); resize it"


def test_edges_are_those_of_the_frame() -> None:
    first = objective(picture(16, 20), keep_edges=1.0)
    frame = first.for_frame(picture(16, 20, 6))
    frame(picture(16, 20, 6))
    assert frame.terms["edges"] == 0
