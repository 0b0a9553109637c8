"""npstyle.study: the paper's figures, which panels they have, how they are drawn, and contact sheets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import picture
from npstyle import VGG19, Progress, Settings, StyleResult, UserError, images, load_weights, study, stylize
from npstyle.study import drawing
from npstyle.study.figures import RATIOS
from npstyle.weights import ConvWeights, Weights

Array = NDArray[Any]

ALL_LAYERS = load_weights("random")
RANDOM_UP_TO_CONV2_2 = load_weights("random", deepest="conv2_2")
UP_TO_CONV2_2 = Weights(RANDOM_UP_TO_CONV2_2, "as if trained")
UP_TO_CONV3_4 = Weights(load_weights("random", deepest="conv3_4"), "as if trained")
PHOTO, PAINTING = picture(24, 32, dtype=np.uint8), picture(24, 28, 1, np.uint8)


# Plans


@pytest.mark.parametrize("name", study.FIGURES)
def test_plan_leaves_out_missing_layers(name: str) -> None:
    rows, notes = study.plan(name, UP_TO_CONV3_4, iterations=7)
    settings = [panel.settings for row in rows for panel in row if panel.settings]
    assert settings
    assert all(layer in UP_TO_CONV3_4 for one in settings for layer in one.layers)
    assert {one.iterations for one in settings} == {7}
    assert notes
    assert all("which the weights do not have" in note for note in notes)


@pytest.mark.parametrize("name", study.FIGURES)
def test_plan_with_all_layers_has_no_notes(name: str) -> None:
    rows, notes = study.plan(name, ALL_LAYERS)
    assert notes == []
    assert sum(map(len, rows)) >= sum(map(len, study.plan(name, UP_TO_CONV3_4)[0]))


def captions(name: str, weights: Mapping[str, ConvWeights]) -> list[list[str]]:
    return [[panel.caption for panel in row] for row in study.plan(name, weights)[0]]


def test_panels_are_those_of_the_paper() -> None:
    sets = ["conv1_1", "conv1_1, conv2_1", "conv1_1 to conv3_1", "conv1_1 to conv4_1", "conv1_1 to conv5_1"]
    inputs = ["photograph", "painting"]
    assert captions("content", ALL_LAYERS) == [
        ["picture", "conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2"]
    ]
    assert captions("style", ALL_LAYERS) == [["picture", *sets]]
    assert captions("layers", ALL_LAYERS) == [inputs, sets]
    assert captions("ratio", ALL_LAYERS)[1:] == [
        [f"{names}; alpha/beta {ratio:g}" for ratio in RATIOS] for names in sets
    ]
    assert captions("content-layer", ALL_LAYERS) == [
        [*inputs, "content layer conv2_2", "content layer conv4_2"]
    ]


def test_content_layer_is_replaced_by_deepest_available() -> None:
    assert captions("content-layer", UP_TO_CONV3_4)[0][2:] == [
        "content layer conv2_2",
        "content layer conv3_2",
    ]
    assert captions("content-layer", UP_TO_CONV2_2)[0][2:] == ["content layer conv2_2"]
    _, notes = study.plan("starts", UP_TO_CONV2_2)
    assert "content layer conv2_2 instead of conv4_2, which the weights do not have" in notes


def test_settings_of_ratio_figure() -> None:
    rows, _ = study.plan("ratio", ALL_LAYERS)
    for row, count in zip(rows[1:], range(1, 6), strict=True):
        for panel, ratio in zip(row, RATIOS, strict=True):
            assert panel.settings is not None
            assert panel.settings.content_weight / panel.settings.style_weight == pytest.approx(ratio)
            assert len(panel.settings.style_layers) == count
            assert panel.settings.init == "noise"


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("nothing", UP_TO_CONV2_2, "figure: found 'nothing'"),
        (
            "content",
            {},
            "weights: found none of conv1_2, conv2_2, conv3_2, conv4_2, conv5_2 (there is nothing)",
        ),
        ("starts", {}, "weights: found none of conv4_2 (there is nothing)"),
        ("style", {"conv2_1": UP_TO_CONV2_2["conv2_1"]}, "weights: found none of conv1_1, conv2_1, "),
    ],
)
def test_plan_refuses_unknown_figure_and_weights_without_layers(
    name: str, weights: Mapping[str, ConvWeights], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        study.plan(name, weights)
    assert str(caught.value).startswith(message)


# Drawing


def panel_pixels(figure: Array, column: int) -> Array:
    """One panel of a figure that has a single row of panels as large as PHOTO."""
    H, W, _ = PHOTO.shape
    x = study.GAP + column * (W + study.GAP)
    return figure[study.GAP :][:H, x : x + W]


def is_blank(figure: Array, column: int) -> bool:
    return bool((panel_pixels(figure, column) == 255).all())


def test_figure_has_images_of_its_runs() -> None:
    rows, _ = study.plan("content", UP_TO_CONV2_2, iterations=3)
    calls: list[tuple[int, str, int]] = []

    def note(number: int, panel: study.Panel, progress: Progress) -> None:
        calls.append((number, panel.caption, progress.iteration))

    figure = study.draw(rows, PHOTO, None, UP_TO_CONV2_2, seed=4, callback=note)
    layers = ("conv1_2", "conv2_2")
    assert calls == [(number, layer, step) for number, layer in enumerate(layers, 1) for step in (1, 2, 3)]
    assert not figure.interrupted
    assert figure.diverged == []
    assert figure.image.shape == study.blank_figure(rows, PHOTO).shape
    assert np.array_equal(panel_pixels(figure.image, 0), PHOTO)
    for column, layer in enumerate(layers, 1):
        alone = study.reconstruct(PHOTO, layer, weights=UP_TO_CONV2_2, iterations=3, seed=4).image
        assert np.array_equal(panel_pixels(figure.image, column), alone)


def test_style_figure_has_textures() -> None:
    rows, _ = study.plan("style", UP_TO_CONV2_2, iterations=2)
    figure = study.draw(rows, PHOTO, None, UP_TO_CONV2_2, seed=1)
    for column, layers in enumerate(("conv1_1", "conv1_1,conv2_1"), 1):
        alone = study.texture(PHOTO, layers, weights=UP_TO_CONV2_2, iterations=2, seed=1).image
        assert np.array_equal(panel_pixels(figure.image, column), alone)


def test_starts_figure_starts_from_photograph_painting_and_noise() -> None:
    rows, _ = study.plan("starts", UP_TO_CONV2_2, iterations=0)
    figure = study.draw(rows, PHOTO, PAINTING, UP_TO_CONV2_2)
    H, W, _ = PHOTO.shape
    painting = images.resize(PAINTING, W, H)
    noise = images.to_uint8(np.random.default_rng(0).uniform(0, 255, (H, W, 3)))
    for column, start in enumerate((PHOTO, painting, noise), 2):
        assert np.abs(panel_pixels(figure.image, column) - start.astype(float)).max() <= 1


def test_on_panel_has_figure_so_far() -> None:
    rows, _ = study.plan("content", UP_TO_CONV2_2, iterations=1)
    figures: list[study.FigureResult] = []
    result = study.draw(rows, PHOTO, None, UP_TO_CONV2_2, on_panel=figures.append)
    first, second = figures
    assert not is_blank(first.image, 1)
    assert is_blank(first.image, 2)
    assert np.array_equal(panel_pixels(first.image, 1), panel_pixels(result.image, 1))
    assert np.array_equal(second.image, result.image)
    assert not first.interrupted


def test_missing_style_is_refused_before_first_panel() -> None:
    rows, _ = study.plan("starts", UP_TO_CONV2_2, 1)
    with pytest.raises(UserError, match="style: found none"):
        study.draw(rows, PHOTO, None, UP_TO_CONV2_2, callback=interrupt)


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_in_second_run_keeps_both_panels() -> None:
    rows, _ = study.plan("content", UP_TO_CONV2_2, iterations=3)

    def stop(number: int, panel: study.Panel, progress: Progress) -> None:
        if number == 2:
            raise KeyboardInterrupt

    figure = study.draw(rows, PHOTO, None, UP_TO_CONV2_2, callback=stop)
    assert figure.interrupted
    assert not is_blank(figure.image, 1)
    assert not is_blank(figure.image, 2)  # the picture so far


def test_ctrl_c_before_first_panel_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = study.plan("content", UP_TO_CONV2_2, iterations=3)
    monkeypatch.setattr(drawing, "stylize", interrupt)
    with pytest.raises(KeyboardInterrupt):
        study.draw(rows, PHOTO, None, UP_TO_CONV2_2)


def test_ctrl_c_before_second_panel_leaves_it_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = study.plan("content", UP_TO_CONV2_2, iterations=1)
    calls = 0

    def interrupt_second(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return interrupt() if calls == 2 else stylize(*arguments, **options)

    monkeypatch.setattr(drawing, "stylize", interrupt_second)
    figure = study.draw(rows, PHOTO, None, UP_TO_CONV2_2)
    assert figure.interrupted
    assert not is_blank(figure.image, 1)
    assert is_blank(figure.image, 2)


def test_ctrl_c_while_figure_is_saved_keeps_it() -> None:
    rows, _ = study.plan("content", UP_TO_CONV2_2, iterations=1)
    figure = study.draw(rows, PHOTO, None, UP_TO_CONV2_2, on_panel=interrupt)
    assert figure.interrupted
    assert not is_blank(figure.image, 1)
    assert is_blank(figure.image, 2)


def test_diverged_panels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = study.plan("content", UP_TO_CONV2_2, iterations=1)

    def diverge_in_conv1_2(*arguments: Any, settings: Settings, **options: Any) -> StyleResult:
        result = stylize(*arguments, settings=settings, **options)
        return replace(result, diverged=settings.content_layers == ("conv1_2",), message="diverged")

    monkeypatch.setattr(drawing, "stylize", diverge_in_conv1_2)
    figure = study.draw(rows, PHOTO, None, UP_TO_CONV2_2)
    assert figure.diverged == ["conv1_2: diverged"]
    assert not figure.interrupted
    assert not is_blank(figure.image, 2)  # the next panel is painted


# Random filters


def test_initialize_once_scales_random_filters_only() -> None:
    weights: Any = study.initialize_once(RANDOM_UP_TO_CONV2_2, [PHOTO], ["conv1_2"])
    network = VGG19(Weights(weights, "initialized"))
    F = network.forward(PHOTO, ["conv1_2"])["conv1_2"]
    assert np.allclose(F.mean(axis=(0, 1)), 1, atol=1e-3)
    assert study.initialize_once(UP_TO_CONV3_4, [PHOTO], ["conv1_2"]) is UP_TO_CONV3_4


def test_panels_share_random_filters_initialized_to_both_pictures() -> None:
    rows, _ = study.plan("content-layer", RANDOM_UP_TO_CONV2_2, iterations=1)
    weights: Any = study.initialize_once(RANDOM_UP_TO_CONV2_2, [PHOTO, PAINTING], ["conv2_2"])
    figures = [
        study.draw(rows, PHOTO, PAINTING, one)
        for one in (RANDOM_UP_TO_CONV2_2, Weights(weights, "initialized"))
    ]
    assert np.array_equal(figures[0].image, figures[1].image)


# Contact sheets


def test_sheet_has_its_pictures_unchanged() -> None:
    tiles = [study.Tile(f"number {n}", picture(20 + n, 70, n, np.uint8)) for n in range(5)]
    sheet = study.compose(study.in_rows(tiles, 3))
    assert sheet.shape[1] == 3 * 70 + 4 * study.GAP
    for n in range(3):
        x = study.GAP + n * (70 + study.GAP)
        assert np.array_equal(sheet[study.GAP :][: 20 + n, x : x + 70], tiles[n].image)
        caption = sheet[study.GAP + 22 :][:12, x : x + 70]
        assert caption.min() < 100  # there is text
    first_column = sheet[:, study.GAP : study.GAP + 70]
    windows = np.lib.stride_tricks.sliding_window_view(first_column, (23, 70, 3))[:, 0, 0]
    assert sum(np.array_equal(window, tiles[3].image) for window in windows) == 1


def test_long_captions_are_wrapped() -> None:
    tile = study.Tile("short", np.zeros((30, 80, 3), np.uint8))
    long = tile._replace(caption="a caption of many words that needs more than one line")
    one, several = study.compose([[tile]]), study.compose([[long]])
    assert one.shape[1] == several.shape[1]
    assert several.shape[0] > one.shape[0] + 20
    assert (several[:, -study.GAP :] == 255).all()  # no text beside the picture


def test_heading_and_captions_need_height() -> None:
    tile = study.Tile("short", np.zeros((30, 80, 3), np.uint8))
    height = len(study.compose([[tile]]))
    assert len(study.compose([[tile]], "a heading")) > height
    assert len(study.compose([[tile._replace(caption="")]])) < height
