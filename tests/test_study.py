"""What those who study are shown: rebuilt pictures, figures, responses, Gram matrices, receptive fields."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from npstyle import VGG19, Objective, Progress, Settings, UserError, images, load_weights, study
from npstyle._typing import Padding, Pooling
from npstyle.architecture import CONVOLUTIONS, LAYERS, log2_stride
from npstyle.run.level import starting_picture
from npstyle.weights import ConvWeights, Weights

Array = NDArray[Any]

# Not calibrated to the pictures of each run.
FIXED = Weights(load_weights("random", deepest="conv2_2"), "not initialized")
TRAINED_UP_TO_CONV3_4 = Weights(load_weights("random", deepest="conv3_4"), "as if trained")


def picture(H: int, W: int, seed: int = 0) -> Array:
    """Something with structure: noise at two scales."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (H // 8 + 1, W // 8 + 1, 3)).repeat(8, axis=0).repeat(8, axis=1)[:H, :W]
    return np.clip(coarse + rng.normal(0, 10, (H, W, 3)), 0, 255).astype(np.uint8)


PHOTO, PAINTING = picture(24, 32), picture(40, 28, 1)


def error(result: Array, like: Array) -> float:
    return float(np.abs(result.astype(float) - like).mean())


# Reconstructions


def test_the_lowest_layer_gives_the_picture_back() -> None:
    result = study.reconstruct(PHOTO, "conv1_1", weights=FIXED, iterations=60)
    noise = starting_picture(PHOTO, study.reconstruction("conv1_1"), 0, "caffe")
    assert result.loss < result.losses[0] / 1000
    assert error(result.image, PHOTO) < error(noise, PHOTO) / 20
    # In an independent formula: the squared distance of the responses as a share of the picture's own.
    network = VGG19(FIXED, padding="replicate")
    F, P = (network.forward(x.astype(np.float32), ["conv1_1"])["conv1_1"] for x in (result.pixels, PHOTO))
    assert result.loss == pytest.approx(float(((F - P) ** 2).sum() / (P**2).sum()), rel=1e-3)


def test_real_filters_lose_pixels_as_they_go_up(real_weights: str) -> None:
    photo = images.fit(picture(64, 64), 48)
    errors = []
    for layer in ("conv1_1", "conv2_1", "conv3_1"):
        result = study.reconstruct(photo, layer, weights=real_weights, iterations=40)
        assert result.loss < result.losses[0] / 20
        errors.append(error(result.image, photo))
    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0]


def test_noise_that_a_layer_does_not_see_goes_with_smoothness() -> None:
    rough, smooth = (
        study.reconstruct(PHOTO, "conv2_1", weights=FIXED, iterations=20, tv_weight=weight).pixels
        for weight in (0.0, 1e-2)
    )
    assert np.square(np.diff(smooth, axis=0)).mean() < np.square(np.diff(rough, axis=0)).mean() / 2


def test_a_reconstruction_starts_where_it_is_told() -> None:
    options: dict[str, Any] = {"weights": FIXED, "iterations": 0}
    assert np.array_equal(study.reconstruct(PHOTO, "conv1_1", init=PHOTO, **options).image, PHOTO)
    one, two = (study.reconstruct(PHOTO, "conv1_1", seed=seed, **options).image for seed in (1, 2))
    assert not np.array_equal(one, two)


def mean_gram(pixels: Array, layer: str) -> Array:
    F = VGG19(FIXED, padding="replicate").forward(pixels.astype(np.float32), [layer])[layer]
    return np.asarray(np.einsum("hwc,hwk->ck", F, F, dtype=np.float64) / (F.shape[0] * F.shape[1]))


@pytest.mark.parametrize("layers", ["conv1_1", "conv1_1,conv2_1"])
def test_a_texture_has_the_gram_matrices_of_the_style(layers: str) -> None:
    result = study.texture(PAINTING, layers, weights=FIXED, iterations=150, width=56, height=44)
    assert result.image.shape == (44, 56, 3)
    start = starting_picture(result.image, study.synthesis(layers), 0, "caffe")
    for layer in layers.split(","):
        A = mean_gram(PAINTING, layer)
        before, after = (np.linalg.norm(mean_gram(x, layer) - A) for x in (start, result.pixels))
        assert after < before / 30
        assert after < 0.02 * np.linalg.norm(A)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (40, 28, 3)),
        ({"size": 24}, (24, 17, 3)),
        ({"size": 24, "width": 50}, (24, 50, 3)),
        ({"height": 17}, (17, 28, 3)),
    ],
)
def test_a_texture_is_as_large_as_asked(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert study.texture(PAINTING, "conv1_1", weights=FIXED, iterations=0, **options).image.shape == shape


def test_a_texture_s_target_is_of_the_style_at_its_own_size() -> None:
    """However large the result: the loss at its start is that against the reduced painting."""
    result = study.texture(PAINTING, "conv1_1", weights=FIXED, iterations=0, size=30, width=90, height=70)
    style = images.fit(PAINTING, 30)
    A, G = mean_gram(style, "conv1_1"), mean_gram(result.pixels, "conv1_1")
    assert result.loss == pytest.approx(((G - A) ** 2).sum() / (A**2).sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: study.reconstruct(PHOTO, "conv9_1", weights=FIXED), "layer: found 'conv9_1'"),
        (lambda: study.reconstruct(PHOTO, "conv3_1", weights=FIXED), "weights: found no conv3_1"),
        (lambda: study.texture(PHOTO, "conv1_1", weights=FIXED, width=0), "width: found 0"),
        (lambda: study.texture(PHOTO, "conv1_1", weights=FIXED, size=0), "size: found 0"),
        (lambda: study.texture(PHOTO, "", weights=FIXED), "settings: found neither"),
        (lambda: study.plan("nothing", FIXED), "figure: found 'nothing'"),
        (lambda: study.plan("content", {}), "weights: found none of conv1_2"),
        (lambda: study.receptive_field("conv0_1"), "layer: found 'conv0_1'"),
    ],
)
def test_what_can_not_be_is_told(call: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(message)


# Receptive fields


def positive_filters() -> dict[str, ConvWeights]:
    """With them every response depends on all that it can see, and no ReLU hides it."""
    rng = np.random.default_rng(0)
    return {
        name: ConvWeights(rng.uniform(0.5, 1, (3, 3, C, K)) / (9 * C), np.zeros(K))
        for name, (C, K) in list(CONVOLUTIONS.items())[:10]
    }


SEEN_UP_TO = LAYERS[: LAYERS.index("conv4_2") + 1]


# A maximum sees a pixel only if it wins, which at the border it need not.
PLACES = [
    ("average", "zero", 0, 0),
    ("average", "zero", 21, 30),
    ("average", "zero", 47, 63),
    ("average", "replicate", 46, 1),
    ("average", "replicate", 0, 33),
    ("max", "zero", 21, 30),
]


@pytest.mark.parametrize(("pooling", "padding", "h", "w"), PLACES)
def test_receptive_fields_by_brute_force(pooling: Pooling, padding: Padding, h: int, w: int) -> None:
    """Change one pixel: the responses that move are those that the formula says see it."""
    H, W = 48, 64
    network = VGG19(positive_filters(), pooling, padding, "im2col", preprocessing="caffe")
    white = np.full((H, W, 3), 250.0)
    changed = white.copy()
    changed[h, w] += 5.0
    before, after = (network.forward(x, SEEN_UP_TO) for x in (white, changed))
    for layer in SEEN_UP_TO:
        moved = (before[layer] != after[layer]).any(axis=2)
        field = study.receptive_field(layer)
        rows, columns = moved.shape
        sees_h = [a <= h < b for a, b in (field.span(i, H) for i in range(rows))]
        sees_w = [a <= w < b for a, b in (field.span(j, W) for j in range(columns))]
        assert np.array_equal(moved, np.outer(sees_h, sees_w)), layer


def test_receptive_fields_grow_and_are_halved_as_often_as_the_picture() -> None:
    fields = [study.receptive_field(layer) for layer in LAYERS]
    sizes = [field.size for field in fields]
    assert sizes == sorted(set(sizes))
    assert [field.stride for field in fields] == [2 ** log2_stride(layer) for layer in LAYERS]
    for field in fields:  # in the middle of what they stand for, to half a pixel
        assert 2 * field.first + field.size - field.stride in (0, 1)


def test_a_field_is_drawn_where_it_is() -> None:
    tile = study.field_tile(np.zeros((64, 64, 3), np.uint8), "conv2_1")
    field = study.receptive_field("conv2_1")
    top, bottom = field.span(16, 64)
    black = (tile.image == 0).all(axis=2)
    expected = np.zeros((64, 64), bool)
    expected[top:bottom, top:bottom] = True
    assert np.array_equal(black, expected)
    red = (tile.image == (220, 0, 0)).all(axis=2)
    assert red.sum() == 4 * (field.size + 1)
    assert tile.caption == "conv2_1: 10 x 10, every 2"


# Figures


@pytest.mark.parametrize("name", study.FIGURES)
def test_figures_leave_out_what_the_weights_do_not_have(name: str) -> None:
    rows, notes = study.plan(name, TRAINED_UP_TO_CONV3_4, iterations=7)
    settings = [panel.settings for row in rows for panel in row if panel.settings]
    assert settings
    assert all(layer in TRAINED_UP_TO_CONV3_4 for one in settings for layer in one.layers)
    assert {one.iterations for one in settings} == {7}
    assert notes
    assert all("which the weights do not have" in note for note in notes)
    whole, nothing = study.plan(name, load_weights("random"))
    assert nothing == []
    assert sum(map(len, whole)) >= sum(map(len, rows))


def captions(name: str, weights: Any) -> list[list[str]]:
    return [[panel.caption for panel in row] for row in study.plan(name, weights)[0]]


def test_the_panels_are_those_of_the_paper() -> None:
    whole = load_weights("random")
    sets = ["conv1_1", "conv1_1, conv2_1", "conv1_1 to conv3_1", "conv1_1 to conv4_1", "conv1_1 to conv5_1"]
    given = ["photograph", "painting"]
    assert captions("content", whole) == [["picture", "conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2"]]
    assert captions("style", whole) == [["picture", *sets]]
    assert captions("layers", whole) == [given, sets]
    assert captions("ratio", whole)[1:] == [
        [f"{names}; alpha/beta {ratio:g}" for ratio in study.RATIOS] for names in sets
    ]
    assert captions("content-layer", whole) == [[*given, "content layer conv2_2", "content layer conv4_2"]]
    assert captions("content-layer", TRAINED_UP_TO_CONV3_4)[0][2:] == [
        "content layer conv2_2",
        "content layer conv3_2",
    ]
    assert captions("content-layer", FIXED)[0][2:] == ["content layer conv2_2"]
    rows, _ = study.plan("ratio", whole)
    for row, count in zip(rows[1:], range(1, 6), strict=True):
        for panel, ratio in zip(row, study.RATIOS, strict=True):
            assert panel.settings is not None
            assert panel.settings.content_weight / panel.settings.style_weight == pytest.approx(ratio)
            assert len(panel.settings.style_layers) == count


def shown(drawn: Array, like: Array, column: int) -> Array:
    """What a figure of one row has in one of its places."""
    H, W, _ = like.shape
    x = study.GAP + column * (W + study.GAP)
    return drawn[study.GAP :][:H, x : x + W]


def test_a_figure_has_what_the_runs_have() -> None:
    rows, _ = study.plan("content", FIXED, iterations=3)
    seen: list[tuple[int, int]] = []

    def note(number: int, panel: study.Panel, progress: Progress) -> None:
        seen.append((number, progress.iteration))

    drawn = study.draw(rows, PHOTO, None, FIXED, seed=4, callback=note)
    assert seen == [(number, step) for number in (1, 2) for step in (1, 2, 3)]
    assert not drawn.interrupted
    assert drawn.diverged == []
    assert drawn.image.shape == study.blank_figure(rows, PHOTO).shape
    assert np.array_equal(shown(drawn.image, PHOTO, 0), PHOTO)
    for column, layer in enumerate(("conv1_2", "conv2_2"), 1):
        alone = study.reconstruct(PHOTO, layer, weights=FIXED, iterations=3, seed=4).image
        assert np.array_equal(shown(drawn.image, PHOTO, column), alone)


def test_starts_are_what_they_are_called() -> None:
    rows, _ = study.plan("starts", FIXED, iterations=0)
    drawn = study.draw(rows, PHOTO, PAINTING[:24], FIXED)
    H, W, _ = PHOTO.shape
    painting = images.resize(PAINTING[:24], W, H)
    noise = images.to_uint8(starting_picture(PHOTO, Settings(init="noise"), 0, "caffe"))
    for column, start in enumerate((PHOTO, painting, noise), 2):
        assert np.abs(shown(drawn.image, PHOTO, column) - start.astype(float)).max() <= 1


def test_an_interrupted_figure_has_the_panels_so_far() -> None:
    rows, _ = study.plan("style", FIXED, iterations=3)

    def stop(number: int, panel: study.Panel, progress: Progress) -> None:
        if number == 2:
            raise KeyboardInterrupt

    drawn = study.draw(rows, PHOTO, None, FIXED, callback=stop)
    assert drawn.interrupted
    assert (shown(drawn.image, PHOTO, 1) < 255).any()
    with pytest.raises(UserError, match="style: found none"):
        study.draw(study.plan("starts", FIXED, 1)[0], PHOTO, None, FIXED)


def test_a_figure_interrupted_at_once_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = study.plan("style", FIXED, iterations=3)
    monkeypatch.setattr(study, "stylize", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        study.draw(rows, PHOTO, None, FIXED)


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_panels_that_are_missing_are_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = study.plan("content", FIXED, iterations=1)
    real, calls = study.stylize, 0

    def second_one_is_interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return _interrupt() if calls == 2 else real(*arguments, **options)

    monkeypatch.setattr(study, "stylize", second_one_is_interrupted)
    drawn = study.draw(rows, PHOTO, None, FIXED)
    assert drawn.interrupted
    assert (shown(drawn.image, PHOTO, 1) < 255).any()
    assert (shown(drawn.image, PHOTO, 2) == 255).all()


def test_never_trained_filters_are_calibrated_once_for_all() -> None:
    random = load_weights("random", deepest="conv1_2")
    filters = study.ready(random, [PHOTO], ["conv1_2"])
    F = VGG19(filters).forward(PHOTO, ["conv1_2"])["conv1_2"]
    assert np.allclose(F.mean(axis=(0, 1)), 1, atol=1e-3)
    assert study.ready(TRAINED_UP_TO_CONV3_4, [PHOTO], ["conv1_2"]) is TRAINED_UP_TO_CONV3_4


# Grids


def test_a_grid_holds_its_pictures_unchanged() -> None:
    tiles = [study.Tile(f"number {n}", picture(20 + n, 70, n)) for n in range(5)]
    grid = study.compose(study.in_rows(tiles, 3))
    assert grid.shape[1] == 3 * 70 + 4 * study.GAP
    for n in range(3):
        x = study.GAP + n * (70 + study.GAP)
        assert np.array_equal(grid[study.GAP :][: 20 + n, x : x + 70], tiles[n].image)
        caption = grid[study.GAP + 22 :][:12, x : x + 70]
        assert caption.min() < 100  # there is text
    places = np.lib.stride_tricks.sliding_window_view(grid[:, study.GAP : study.GAP + 70], (23, 70, 3))
    found = [y for y, place in enumerate(places[:, 0, 0]) if np.array_equal(place, tiles[3].image)]
    assert len(found) == 1


def test_long_captions_are_broken_and_make_room() -> None:
    tile = study.Tile("short", np.zeros((30, 80, 3), np.uint8))
    long = tile._replace(caption="a caption of many words that needs more than one line")
    one, several = study.compose([[tile]]), study.compose([[long]])
    assert one.shape[1] == several.shape[1]
    assert several.shape[0] > one.shape[0] + 20
    assert (several[:, -study.GAP :] == 255).all()  # no text beside the picture
    assert study.compose([[tile]], "a heading").shape[0] > one.shape[0]
    assert study.compose([[tile._replace(caption="")]]).shape[0] < one.shape[0]


# Responses


def test_responses_are_shown_strongest_first_on_one_scale() -> None:
    rng = np.random.default_rng(0)
    F = rng.uniform(0, 1, (20, 30, 4)) * np.array([1.0, 3.0, 0.0, 2.0])
    tiles = study.response_tiles(F, 3)
    assert [tile.caption.split(":")[0] for tile in tiles] == ["1", "3", "0"]
    energy = np.square(F).sum(axis=(0, 1)) / np.square(F).sum()
    assert tiles[0].caption == f"1: {100 * energy[1]:.1f}%"
    assert tiles[0].image.shape == (60, 90, 3)  # three times as large, so that it can be seen
    level = study.white_level(F)
    assert np.mean(F[F > 0] < level) == pytest.approx(0.995, abs=0.002)
    expected = np.clip(np.rint(255 * F[:, :, 3] / level), 0, 255)
    assert np.array_equal(tiles[1].image[::3, ::3, 0], expected)
    assert study.response_tiles(F, 3, least=10)[0].image.shape == (20, 30, 3)


def test_a_silent_layer_is_black() -> None:
    F = np.zeros((8, 8, 2), np.float32)
    assert study.white_level(F) == 1
    assert not study.response_tiles(F, 2)[0].image.any()
    assert study.style_distance(study.mean_gram(F), study.mean_gram(F)) == 0


# Heat maps


def test_the_colors_of_heat_rise_in_brightness() -> None:
    colors = study.heat(np.linspace(0, 1, 200)).astype(float)
    luma = colors @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) > -0.6).all()  # rounding to whole numbers
    assert luma[0] == 0
    assert luma[-1] > 245
    assert np.array_equal(study.heat([-1, 2]), study.heat([0, 1]))
    assert study.heat(np.zeros((3, 5))).shape == (3, 5, 3)


def test_gram_maps_are_logarithmic() -> None:
    G = np.array([[1000.0, 10.0], [0.1, 0.0]])
    shown = study.gram_map(G, least=1)
    assert np.array_equal(shown, study.heat(np.array([[1, 0.5], [0, 0]])))
    assert study.gram_map(G, least=7).shape == (6, 6, 3)
    assert np.array_equal(study.gram_map(G, least=7)[::3, ::3], shown)
    assert np.array_equal(study.gram_map(G, largest=1e5, least=1), study.heat(np.array([[0.5, 0], [0, 0]])))
    assert not study.gram_map(np.zeros((4, 4)), least=1).any()


def test_mean_gram_is_that_of_the_definition() -> None:
    F = np.random.default_rng(0).uniform(0, 1, (5, 7, 3))
    expected = sum(np.outer(f, f) for f in F.reshape(-1, 3)) / 35
    assert np.allclose(study.mean_gram(F), expected)


# Gradients

EVERYTHING = Settings(
    content_layers="conv1_2:3,conv2_2:1",
    style_layers=("conv1_1", "conv2_1"),
    style_layer_exponent=2.0,
    tv_weight=1e-2,
)


@pytest.mark.parametrize("average", [True, False])
def test_the_parts_of_the_loss_add_up(average: bool) -> None:
    settings = replace(EVERYTHING, normalize_layer_weights=average)
    network = VGG19.for_settings(FIXED, settings)
    at = picture(24, 32, 5).astype(np.float64)
    whole = Objective(network, PHOTO, [PAINTING], settings)
    loss, gradient = whole(at)
    parts = study.terms(network, PHOTO, PAINTING, settings, at)
    assert {name: part.loss for name, part in parts.items()} == pytest.approx(whole.terms)
    assert sum(part.loss for part in parts.values()) == pytest.approx(loss)
    total = np.sum([part.gradient for part in parts.values()], axis=0)
    assert np.allclose(total, gradient, rtol=1e-9, atol=1e-9 * np.abs(gradient).max())


def test_at_the_picture_itself_content_asks_for_nothing() -> None:
    parts = study.terms(VGG19.for_settings(FIXED, EVERYTHING), PHOTO, None, EVERYTHING, PHOTO)
    assert list(parts) == ["content/conv1_2", "content/conv2_2", "total_variation"]
    assert parts["content/conv2_2"].loss == 0
    assert not parts["content/conv2_2"].gradient.any()
    assert (study.gradient_picture(parts["content/conv2_2"].gradient) == 128).all()


def test_what_the_loss_asks_for_is_lighter() -> None:
    gradient = np.zeros((2, 2, 3))
    gradient[0, 0, 0], gradient[1, 1, 2] = 4.0, -4.0
    shown = study.gradient_picture(gradient)
    assert shown[0, 0].tolist() == [0, 128, 128]
    assert shown[1, 1].tolist() == [128, 128, 255]
    assert np.array_equal(study.gradient_picture(1e-9 * gradient), shown)


def test_inspect_shows_every_layer_asked_for() -> None:
    layers = ["conv2_1", "conv1_1"]
    seen = study.inspect(PHOTO, PAINTING, layers, FIXED, channels=5)
    assert list(seen.pictures) == study.names_of_pictures(["conv1_1", "conv2_1"])
    header, one, two = seen.table[:3]
    assert header.split() == ["layer", "response", "sees", "every", "silent", "mean", "to", "style"]
    assert one.split()[:7] == ["conv1_1", "24", "x", "32", "x", "64", "3"]
    assert two.split()[:8] == ["conv2_1", "12", "x", "16", "x", "128", "10", "2"]
    distance = study.style_distance(*(mean_gram(x, "conv1_1") for x in (PHOTO, PAINTING)))
    assert float(one.split()[-1]) == pytest.approx(distance, rel=0.01)
    rows = {line.split()[0]: line.split()[1:] for line in seen.table[6:]}
    assert list(rows) == ["content/conv2_1", "style/conv1_1", "style/conv2_1", "total_variation"]
    assert rows["content/conv2_1"] == ["0", "0", "0"]
    assert float(rows["style/conv1_1"][0]) == pytest.approx(25 * distance, rel=0.01)
    elsewhere = study.inspect(PHOTO, PAINTING, layers, FIXED, at=picture(24, 32, 5), content_layer="conv1_1")
    assert any(line.startswith("content/conv1_1 ") and line.split()[1] != "0" for line in elsewhere.table)
    assert not any(line.startswith("style/") for line in study.inspect(PHOTO, None, layers, FIXED).table)
