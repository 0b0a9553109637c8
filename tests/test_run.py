"""The run: starts, sizes, what it ends with, how it can be ended, and what it does with bad numbers."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import npstyle.images
import npstyle.images.color
from npstyle import Progress, RandomFiltersWarning, Settings, UserError, load_weights, preset, stylize
from npstyle._typing import Color, Optimizer
from npstyle.run import levels, prepare, starting_picture
from npstyle.weights import Weights

Array = NDArray[Any]

# Not calibrated to the pictures of each run.
FIXED = Weights(load_weights("random", deepest="conv2_2"), "not initialized")
SHALLOW = Settings(content_layers=("conv2_2",), style_layers=("conv1_1", "conv2_1"))


def picture(H: int, W: int, seed: int = 0) -> Array:
    """Something with structure: noise at two scales."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (H // 8 + 1, W // 8 + 1, 3)).repeat(8, axis=0).repeat(8, axis=1)[:H, :W]
    return np.clip(coarse + rng.normal(0, 10, (H, W, 3)), 0, 255).astype(np.uint8)


def run(**changes: Any) -> Any:
    options: dict[str, Any] = {
        "content": picture(32, 48),
        "styles": [picture(40, 40, 1)],
        "settings": SHALLOW,
        "weights": "random",
        "iterations": 5,
    }
    return stylize(**{**options, **changes})


def test_the_loss_falls_in_every_iteration() -> None:
    result = run(iterations=12)
    assert len(result.losses) == 13
    assert all(b < a for a, b in zip(result.losses, result.losses[1:], strict=False))
    assert result.loss == result.losses[-1] < result.losses[0] / 3
    assert result.message == "did the 12 iterations asked for"
    assert not result.interrupted
    assert result.image.dtype == np.uint8
    assert result.image.shape == (32, 48, 3)


def test_the_result_moves_from_the_content_towards_the_style() -> None:
    content, style = picture(32, 48), np.clip(picture(40, 40, 1) // 4 + 180, 0, 255).astype(np.uint8)
    result = run(content=content, styles=[style], iterations=25, settings=replace(SHALLOW, style_weight=1e3))
    before, after = (abs(p.mean() - style.mean()) for p in (content, result.image))
    assert after < before / 2


def test_pillow_images_and_preset_names_will_do() -> None:
    content, style = Image.fromarray(picture(32, 48)), Image.fromarray(picture(40, 40, 1))
    result = run(content=content, styles=style, settings="random", iterations=1)
    expected = run(settings=preset("random"), iterations=1)
    np.testing.assert_array_equal(result.image, expected.image)


def test_a_picture_too_large_for_the_optimizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npstyle.run.inputs.most_pixels", lambda settings: 1000)
    with pytest.raises(UserError, match="content: found 48 x 32 pixels; expected at most"):
        run()


def test_the_same_seed_gives_the_same_picture_whatever_the_threads() -> None:
    noisy = replace(SHALLOW, init="noise")
    first = run(settings=noisy, seed=3, threads=1)
    np.testing.assert_array_equal(first.image, run(settings=noisy, seed=3, threads=2).image)
    assert (first.image != run(settings=noisy, seed=4, threads=1).image).any()


def test_size_is_the_longer_side_and_never_enlarges() -> None:
    assert run(size=24, iterations=1).image.shape == (16, 24, 3)
    assert run(size=4000, iterations=1).image.shape == (32, 48, 3)


def test_one_style_needs_no_list() -> None:
    style = picture(40, 40, 1)
    np.testing.assert_array_equal(run(styles=style).image, run(styles=[style]).image)


def test_without_iterations_the_picture_is_the_start() -> None:
    result = run(iterations=0)
    np.testing.assert_array_equal(result.image, picture(32, 48))
    assert result.message == "no iterations were asked for: the picture is the start"
    assert len(result.losses) == 1


def start(content: Array, kind: str, seed: int = 0, **changes: float) -> Array:
    return starting_picture(content, Settings(init=kind, **changes), seed)  # type: ignore[arg-type]


def test_starts() -> None:
    content = picture(16, 24)
    np.testing.assert_array_equal(start(content, "content"), content)
    noise = start(content, "noise")
    assert noise.shape == content.shape
    assert 0 <= noise.min() < 10
    assert 245 < noise.max() <= 255
    np.testing.assert_array_equal(start(content, "noisy-content"), (content + noise) / 2)
    np.testing.assert_allclose(
        start(content, "noisy-content", init_noise=0.25), 0.75 * content + 0.25 * noise
    )
    assert (start(content, "noise", 1) != noise).any()


def test_normal_noise_is_around_the_mean_color() -> None:
    noise = start(picture(64, 64), "noise", noise_std=3.0)
    np.testing.assert_allclose(noise.mean(axis=(0, 1)), (123.68, 116.779, 103.939), atol=0.3)
    np.testing.assert_allclose(noise.std(axis=(0, 1)), 3, rtol=0.1)


def test_the_start_can_be_a_picture() -> None:
    start = picture(64, 96, 5)
    result = run(init=start, iterations=0)
    assert result.image.shape == (32, 48, 3)
    assert (result.image != picture(32, 48)).any()


def test_the_callback_sees_each_iteration() -> None:
    seen: list[Progress] = []
    result = run(callback=seen.append)
    assert [progress.iteration for progress in seen] == [1, 2, 3, 4, 5]
    assert [progress.loss for progress in seen] == result.losses[1:]
    assert sum(seen[-1].terms.values()) == pytest.approx(result.loss)
    np.testing.assert_array_equal(seen[-1].image, result.image)


def test_stop_iteration_ends_the_run() -> None:
    def enough(progress: Progress) -> None:
        if progress.iteration == 2:
            raise StopIteration

    result = run(callback=enough)
    assert len(result.losses) == 3
    assert result.message == "stopped by the callback after 2 iterations"
    assert not result.interrupted


def test_ctrl_c_ends_the_run_with_the_picture_so_far() -> None:
    pictures: list[Array] = []

    def interrupt(progress: Progress) -> None:
        pictures.append(progress.image)
        if progress.iteration == 3:
            raise KeyboardInterrupt

    result = run(callback=interrupt)
    assert result.interrupted
    assert result.message == "interrupted after 3 iterations"
    np.testing.assert_array_equal(result.image, pictures[-1])


def test_a_loss_that_is_no_number_ends_the_run_with_the_last_good_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from npstyle.objective import Objective

    calls = []
    evaluate = Objective.__call__

    def spoiled(self: Objective, pixels: Array) -> tuple[float, Array]:
        calls.append(pixels)
        loss, gradient = evaluate(self, pixels)
        return (loss if len(calls) < 6 else float("nan")), gradient

    monkeypatch.setattr(Objective, "__call__", spoiled)
    result = run(iterations=50)
    assert result.diverged
    assert "not a finite number" in result.message
    assert "last good one" in result.message
    assert np.isfinite(result.loss)
    assert result.loss < result.losses[0]


def test_a_start_without_any_loss_is_said_to_be_done() -> None:
    result = run(settings=Settings(style_layers=(), content_layers=("conv1_1",)))
    assert result.message == "nothing to do: the start has no loss at all"


def test_without_settings_the_recipe_fits_the_filters() -> None:
    pictures = [picture(32, 48)]
    settings, filters = prepare(None, "random", pictures)
    assert settings == preset("random")
    assert "conv3_2" in filters
    trained = {name: filters[name] for name in filters}  # a plain mapping is taken as it is
    settings, same = prepare(None, trained, pictures)
    assert settings == preset("default")
    assert same is trained


def test_random_filters_are_calibrated_to_the_pictures() -> None:
    raw = load_weights("random", seed=0)
    _, filters = prepare(None, raw, [picture(32, 48)])
    assert np.abs(filters["conv1_1"].kernel).max() < np.abs(raw["conv1_1"].kernel).max()
    assert filters["conv1_1"].bias.any()


def test_the_fallback_to_random_filters_warns() -> None:
    with pytest.warns(RandomFiltersWarning, match="RANDOM FILTERS"):
        run(weights="auto", iterations=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(weights="random", iterations=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"size": 8},
            "content: found 8 x 5 pixels; expected at least 16 x 16; give a size above 8",
        ),
        (
            {"styles": [picture(8, 400)]},
            "style: found 400 x 8 pixels; expected at least 16 x 16; take a larger picture",
        ),
        ({"styles": [picture(40, 40), picture(8, 400)]}, "style 2: found 400 x 8 pixels"),
        ({"content": np.full((8, 8, 3), 20.0)}, "take a larger picture"),
        ({"content": np.full((32, 32, 3), 1e30)}, "content: found values up to"),
        ({"settings": "papper"}, "did you mean paper"),
        ({"settings": replace(SHALLOW, style_weight=1e300)}, "loss: found no finite number at the start"),
        ({"weights": load_weights("random", deepest="conv1_1")}, "no conv1_2 (there is conv1_1)"),
        ({"threads": 1.5}, "threads: found 1.5"),
        ({"content": np.full((32, 32, 3), 0.5)}, "content: found values from 0 to 1"),
        ({"content": np.full((32, 32, 3), 3000, np.uint16)}, "content: found values up to 3000"),
        ({"size": 0}, "size: found 0"),
        ({"iterations": -1}, "iterations: found -1"),
        ({"iterations": 2.5}, "iterations: found 2.5"),
        ({"seed": -1}, "seed: found -1"),
        ({"content": np.zeros((32, 32))}, "content: found float64 array of shape"),
        ({"content": np.full((32, 32, 3), np.nan)}, "content: found NaN"),
        ({"styles": []}, "styles: found none"),
        ({"styles": [np.zeros((32, 32, 4))]}, "style: found"),
        ({"init": np.zeros((4, 4))}, "init: found"),
        ({"weights": "nowhere.h5"}, "no such file"),
        ({"threads": 0}, "threads: found 0"),
        ({"convolution": "fft"}, "convolution: found 'fft'"),
        ({"blend": [1, 2]}, "blend: found 2; expected 1 weights"),
        ({"style_scale": 0}, "style_scale: found 0"),
        ({"style_scale": 0.02}, "style: found 10 x 10"),
        ({"keep": np.ones((5, 5))}, "keep: found 5 x 5 pixels; expected 48 x 32"),
        ({"content_masks": [np.ones((32, 48))]}, "masks: found 1 for the content and 0 for the style"),
        ({"keep": "nowhere.png"}, "no such file"),
        ({"content": "nowhere.png"}, "no such file"),
    ],
)
def test_what_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        run(**change)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scales() -> None:
    assert levels(512, 128) == [128, 181, 256, 362, 512]
    assert levels(700, 128) == [124, 175, 247, 350, 495, 700]
    assert levels(100, 128) == levels(100, 0) == [100]


def test_each_scale_starts_with_the_result_of_the_one_before() -> None:
    seen: list[Progress] = []
    result = run(
        content=picture(64, 96),
        styles=[picture(70, 80, 1)],
        settings=replace(SHALLOW, min_size=48),
        iterations=4,
        callback=seen.append,
    )
    assert [progress.iterate.shape[:2] for progress in seen[::4]] == [(32, 48), (45, 68), (64, 96)]
    assert [progress.iteration for progress in seen] == list(range(1, 13))
    assert {(progress.iterations, progress.levels) for progress in seen} == {(12, 3)}
    assert [progress.level for progress in seen[::4]] == [1, 2, 3]
    assert result.image.shape == (64, 96, 3)
    assert len(result.losses) == 5
    single = run(content=picture(64, 96), styles=[picture(70, 80, 1)], iterations=0)
    assert result.losses[0] < single.losses[0]


def test_a_scale_too_small_for_the_layers_is_left_out() -> None:
    seen: list[Progress] = []
    wide = picture(32, 256)
    run(content=wide, settings=replace(SHALLOW, min_size=32), iterations=1, callback=seen.append)
    assert [progress.iterate.shape[:2] for progress in seen] == [(16, 128), (23, 181), (32, 256)]


def test_ctrl_c_at_a_small_scale_enlarges_the_picture() -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    settings = replace(SHALLOW, min_size=32)
    result = run(content=picture(64, 96), settings=settings, iterations=4, callback=interrupt)
    assert result.interrupted
    assert result.image.shape == (64, 96, 3)
    assert result.message == "interrupted after 1 iteration; the picture is enlarged from 34 x 23 pixels"


def test_adam_paints_too() -> None:
    result = run(settings=replace(SHALLOW, optimizer="adam"), iterations=15)
    assert result.loss < result.losses[0] / 2
    assert len(result.losses) == 16


def test_paths_and_images_and_arrays_are_the_same(tmp_path: Path) -> None:
    content, style, mask = picture(32, 48), picture(40, 40, 1), np.zeros((32, 48), np.uint8)
    mask[:, 24:] = 255
    for name, array in (("content", content), ("style", style), ("mask", mask)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    by_array = run(content=content, styles=[style], keep=mask / 255, init=style)
    by_path = run(
        content=tmp_path / "content.png",
        styles=str(tmp_path / "style.png"),
        keep=tmp_path / "mask.png",
        init=tmp_path / "style.png",
    )
    by_image = run(
        content=Image.fromarray(content),
        styles=[Image.fromarray(style)],
        keep=Image.fromarray(mask),
        init=Image.fromarray(style),
    )
    np.testing.assert_array_equal(by_array.image, by_path.image)
    np.testing.assert_array_equal(by_array.image, by_image.image)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("color", ["style", "luminance"])
def test_what_is_kept_stays(optimizer: Optimizer, color: Color) -> None:
    keep = np.zeros((32, 48))
    keep[:, 24:] = 1
    result = run(keep=keep, settings=replace(SHALLOW, optimizer=optimizer, color=color))
    np.testing.assert_array_equal(result.image[:, 24:], picture(32, 48)[:, 24:])
    assert (result.image[:, :24] != picture(32, 48)[:, :24]).any()


def test_luminance_alone_keeps_the_colors() -> None:
    seen: list[Progress] = []
    content = picture(32, 48) // 2 + 64
    result = run(content=content, settings=replace(SHALLOW, color="luminance"), callback=seen.append)
    gray = seen[-1].iterate
    np.testing.assert_allclose(gray[..., 0], gray[..., 2], atol=1e-3)
    chroma = result.pixels - npstyle.images.color.luma(result.pixels)[..., None]
    np.testing.assert_allclose(
        chroma, content - npstyle.images.color.luma(content.astype(float))[..., None], atol=0.01
    )
    np.testing.assert_array_equal(seen[-1].image, result.image)


def test_luma_afterwards_keeps_the_colors_and_match_beforehand_the_mean() -> None:
    content, style = picture(32, 48) // 2 + 64, picture(40, 40, 1) // 4
    plain = run(content=content, styles=style)
    luma = run(content=content, styles=style, settings=replace(SHALLOW, color="luma"))
    np.testing.assert_allclose(
        luma.pixels, npstyle.images.color.transfer_luma(plain.pixels, content), atol=1e-3
    )
    strong = replace(SHALLOW, style_weight=1e4)
    dark = run(content=content, styles=style, settings=strong, iterations=30)
    match_color_statistics = run(
        content=content, styles=style, settings=replace(strong, color="match"), iterations=30
    )
    means = [abs(p.image.mean() - content.mean()) for p in (match_color_statistics, dark)]
    assert means[0] < means[1] / 2


def test_the_size_of_the_style_beside_the_result() -> None:
    assert run(style_scale=1.0).loss != run(style_scale=0.5, size=48).loss
    stretched = run(weights=FIXED, settings=replace(SHALLOW, style_as_content=True), iterations=0)
    by_hand = run(weights=FIXED, styles=npstyle.images.resize(picture(40, 40, 1), 48, 32), iterations=0)
    assert stretched.loss == pytest.approx(by_hand.loss, rel=1e-6)


def test_how_much_each_style_counts() -> None:
    styles = [picture(40, 40, 1), picture(40, 40, 2)]
    alone = run(weights=FIXED, styles=styles[1])
    np.testing.assert_array_equal(run(weights=FIXED, styles=styles, blend=[0, 3]).image, alone.image)
    assert (run(weights=FIXED, styles=styles).image != alone.image).any()


def test_regions_are_painted_by_their_styles() -> None:
    """The left half by a dark style, the right half by a light one."""
    dark, light = picture(40, 40, 1) // 4, picture(40, 40, 2) // 4 + 190
    left = np.zeros((32, 48))
    left[:, :24] = 1
    everything = np.ones((40, 40))
    result = run(
        styles=[dark, light],
        content_masks=[left, 1 - left],
        style_masks=[everything, everything],
        settings=replace(SHALLOW, style_weight=1e4),
        iterations=40,
    )
    halves = result.image[:, :20].mean(), result.image[:, 28:].mean()
    assert halves[0] < dark.mean() + 40
    assert halves[1] > light.mean() - 40


def test_a_result_shows_itself() -> None:
    shown = Image.open(io.BytesIO(run(iterations=0)._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), picture(32, 48))


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """A module called like a function would replace it as soon as somebody imports it."""
    for name in npstyle.__all__:
        assert find_spec(f"npstyle.{name}") is None
