"""Runs: requests, starts, levels, results, how a run is stopped and resumed, what is refused."""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import re
import tracemalloc
import warnings
import weakref
from collections.abc import Callable
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
from helpers import error_line
from helpers import structured_picture as picture
from npstyle import VGG19, Progress, RandomFiltersWarning, Settings, UserError, load_weights, preset, stylize
from npstyle._typing import Color, Optimizer
from npstyle.gradcheck import directional
from npstyle.optimize import Minimizer, OptimizeResult, OptimizerWarning
from npstyle.run import (
    LevelResult,
    NextLevel,
    PlannedLevel,
    Request,
    StyleResult,
    checkpoint,
    paint,
    prepare,
)
from npstyle.run.finish import resized_mask
from npstyle.run.level import Level, starting_picture
from npstyle.run.pyramid import Pyramid, levels
from npstyle.weights import Weights, write_weights
from tolerances import DIRECTIONAL

Array = NDArray[Any]

# Not initialized to the pictures of each run.
FIXED = Weights(dict(load_weights("random", deepest="conv2_2")), "fixed", preprocessing="caffe")
SHALLOW = Settings(content_layers=("conv2_2",), style_layers=("conv1_1", "conv2_1"))
PYRAMID = replace(SHALLOW, min_size=32)


def run(**changes: Any) -> Any:
    options: dict[str, Any] = {
        "content": picture(32, 48),
        "styles": [picture(40, 40, 1)],
        "settings": SHALLOW,
        "weights": "random",
        "iterations": 5,
    }
    return stylize(**{**options, **changes})


def test_loss_falls_in_every_iteration() -> None:
    result = run(iterations=12)
    assert len(result.losses) == 13
    assert all(b < a for a, b in zip(result.losses, result.losses[1:], strict=False))
    assert result.loss == result.losses[-1] < result.losses[0] / 3
    assert result.message == "did the 12 iterations asked for"
    assert result.success
    assert result.nit == 12 < result.nfev
    assert not result.interrupted
    assert result.image.dtype == np.uint8
    assert result.image.shape == (32, 48, 3)


def test_result_moves_towards_style() -> None:
    content, style = picture(32, 48), np.clip(picture(40, 40, 1) // 4 + 180, 0, 255).astype(np.uint8)
    result = run(content=content, styles=[style], iterations=25, settings=replace(SHALLOW, style_weight=1e3))
    before, after = (abs(p.mean() - style.mean()) for p in (content, result.image))
    assert after < before / 2


def test_pillow_images_and_preset_names_are_accepted() -> None:
    content, style = Image.fromarray(picture(32, 48)), Image.fromarray(picture(40, 40, 1))
    result = run(content=content, styles=style, settings="random", iterations=1)
    expected = run(settings=preset("random"), iterations=1)
    np.testing.assert_array_equal(result.image, expected.image)


def damaged_image(damage: str) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(picture(40, 40)).save(file, "PNG")
    if damage == "truncated":
        return Image.open(io.BytesIO(file.getvalue()[:700]))
    image = Image.open(file)
    if damage == "closed":
        image.close()
    else:
        file.close()
    return image


@pytest.mark.parametrize("damage", ["truncated", "closed", "file closed"])
@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("content", "content"),
        ("styles", "style"),
        ("init", "init"),
        ("keep", "keep"),
        ("content_masks", "content mask 1"),
    ],
)
def test_pillow_images_that_cannot_be_loaded_are_refused(damage: str, argument: str, name: str) -> None:
    image = damaged_image(damage)
    value = [image] if argument.endswith("s") else image
    line = error_line(lambda: run(**{argument: value}), name)
    assert "found a Pillow image that can't be loaded (" in line


@pytest.mark.parametrize(
    ("argument", "value", "name"),
    [
        ("settings", {}, "settings"),
        ("settings", 1, "settings"),
        ("settings", Settings, "settings"),
        ("settings", "papers", "preset"),
        ("callback", {}, "callback"),
        ("checkpoint", 5, "checkpoint"),
        ("blend", 1, "blend"),
        ("blend", "1,2", "blend"),
        ("content_masks", "mask.png", "content_masks"),
        ("style_masks", np.ones((40, 40)), "style_masks"),
        ("content_masks", Image.new("L", (48, 32)), "content_masks"),
        ("keep", [[1.0, 0.0], [1.0]], "keep"),
    ],
)
def test_arguments_of_wrong_types_are_refused(argument: str, value: Any, name: str) -> None:
    error_line(lambda: run(**{argument: value}), name)


@pytest.mark.parametrize("name", [{}, [], 1, None])
def test_presets_are_asked_for_by_name(name: Any) -> None:
    error_line(lambda: preset(name), "preset")


def test_progress_can_be_pickled() -> None:
    seen: list[Progress] = []
    run(iterations=1, callback=seen.append, settings=replace(SHALLOW, color="luma"), keep=np.eye(32, 48))
    bare = Progress(1, 1, (PlannedLevel(3, 2, 1),), 0.0, {}, picture(2, 3).astype(np.float32))
    for progress in (*seen, bare):
        again = pickle.loads(pickle.dumps(progress))
        assert (again.loss, again.terms) == (progress.loss, progress.terms)
        np.testing.assert_array_equal(again.image, progress.image)


def test_picture_too_large_for_scipys_indices_is_painted_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """With SciPy's indices made smaller; the run is that of lbfgs32, and says so."""
    expected = run(settings=replace(SHALLOW, optimizer="lbfgs32"))
    monkeypatch.setattr("npstyle.optimize.MAX_INTEGER", 100_000)
    with pytest.warns(OptimizerWarning, match='more pixels than SciPy.* can index with maxcor=10.*"lbfgs32"'):
        result = run(settings=SHALLOW)
    np.testing.assert_array_equal(result.pixels, expected.pixels)


def test_picture_too_large_for_optimizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npstyle.run.inputs.max_pixels", lambda settings: 1000)
    with pytest.raises(UserError, match="content: found 48 x 32 pixels; expected at most 1000 pixels"):
        run()


def test_limit_of_pixels_is_that_of_the_optimizer_which_would_replace_lbfgs() -> None:
    with pytest.raises(UserError, match="at most 2147 million pixels with lbfgs32; give a smaller size"):
        Request.read(picture(48, 48), picture(40, 40, 1), settings=SHALLOW, size=60_000, enlarge=True)


def test_more_pairs_of_steps_than_scipy_can_index_are_refused() -> None:
    with pytest.raises(UserError, match="0 pixels with maxcor=100000; give a smaller maxcor, or"):
        run(settings=replace(SHALLOW, maxcor=100_000))


def test_seed_determines_picture_for_any_number_of_threads() -> None:
    noisy = replace(SHALLOW, init="noise")
    first = run(settings=noisy, seed=3, threads=1)
    np.testing.assert_array_equal(first.image, run(settings=noisy, seed=3, threads=2).image)
    assert (first.image != run(settings=noisy, seed=4, threads=1).image).any()


def test_size_is_longer_side_and_never_enlarges() -> None:
    assert run(size=24, iterations=1).image.shape == (16, 24, 3)
    assert run(size=4000, iterations=1).image.shape == (32, 48, 3)


def test_single_style_needs_no_list() -> None:
    style = picture(40, 40, 1)
    np.testing.assert_array_equal(run(styles=style).image, run(styles=[style]).image)


def test_zero_iterations_return_the_start() -> None:
    result = run(iterations=0)
    np.testing.assert_array_equal(result.image, picture(32, 48))
    assert result.message == "no iterations were asked for: the picture is the start"
    assert len(result.losses) == 1


def start(settings: Settings, seed: int = 0) -> Array:
    return starting_picture(picture(16, 24), settings, seed, "caffe")


def test_starting_pictures() -> None:
    content = picture(16, 24)
    np.testing.assert_array_equal(start(Settings(init="content")), content)
    noise = start(Settings(init="noise"))
    assert noise.shape == content.shape
    assert 0 <= noise.min() < 10
    assert 245 < noise.max() <= 255
    np.testing.assert_array_equal(start(Settings(init="noisy-content")), (content + noise) / 2)
    quarter = start(Settings(init="noisy-content", init_noise=0.25))
    np.testing.assert_allclose(quarter, 0.75 * content + 0.25 * noise)
    assert (start(Settings(init="noise"), seed=1) != noise).any()


@pytest.mark.parametrize(
    ("preprocessing", "mean"),
    [("caffe", (123.68, 116.779, 103.939)), ("torchvision", (123.675, 116.28, 103.53))],
)
def test_normal_noise_has_mean_color_of_preprocessing(preprocessing: str, mean: tuple[float, ...]) -> None:
    settings = Settings(init="noise", noise_std=1e-3)
    noise = starting_picture(picture(64, 64), settings, 0, preprocessing)
    np.testing.assert_allclose(noise.mean(axis=(0, 1)), mean, atol=1e-3)
    np.testing.assert_allclose(noise.std(axis=(0, 1)), 1e-3, rtol=0.1)


def test_run_starts_from_mean_color_of_its_weights() -> None:
    settings = replace(SHALLOW, init="noise", noise_std=1e-6)
    torchvision = Weights(dict(FIXED), "fixed", preprocessing="torchvision")
    means = [run(weights=w, settings=settings, iterations=0).pixels[0, 0, 2] for w in (FIXED, torchvision)]
    np.testing.assert_allclose(means, (103.939, 103.53), atol=1e-3)


def test_init_picture_is_resized_to_content() -> None:
    start = picture(64, 96, 5)
    result = run(init=start, iterations=0)
    assert result.image.shape == (32, 48, 3)
    assert (result.image != picture(32, 48)).any()


def test_callback_receives_each_iteration() -> None:
    seen: list[Progress] = []
    result = run(callback=seen.append)
    assert [progress.iteration for progress in seen] == [1, 2, 3, 4, 5]
    assert [progress.loss for progress in seen] == result.losses[1:]
    assert sum(seen[-1].terms.values()) == pytest.approx(result.loss)
    np.testing.assert_array_equal(seen[-1].image, result.image)


def test_stop_iteration_in_callback_ends_run() -> None:
    def enough(progress: Progress) -> None:
        if progress.iteration == 2:
            raise StopIteration

    result = run(callback=enough)
    assert result.nit == len(result.losses) - 1 == 2
    assert result.message == "stopped by the callback after 2 iterations"
    assert not result.interrupted
    assert not result.success


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32", "adam"])
def test_next_level_in_callback_ends_the_level_only(optimizer: Any) -> None:
    """A run whose levels were cut short is what a run of as many iterations paints."""
    settings = replace(SHALLOW, min_size=48, optimizer=optimizer)
    seen: list[Progress] = []

    def cut(progress: Progress) -> None:
        seen.append(progress)
        if progress.level < 3 and progress.level_iteration == 1 + progress.level:
            raise NextLevel

    result = run(content=picture(64, 96), settings=settings, iterations=12, callback=cut)
    assert [level.nit for level in result.levels] == [2, 3, 12]
    assert [level.success for level in result.levels] == [False, False, True]
    assert not result.success
    assert result.message == (
        "did the 12 iterations asked for at the last of 3 levels; "
        "the callback ended level 1 after 2, level 2 after 3 already"
    )
    assert [(p.iteration, p.iterations) for p in (seen[1], seen[2], seen[5])] == [(2, 36), (3, 26), (6, 17)]
    assert seen[-1].iteration == seen[-1].iterations
    asked = run(content=picture(64, 96), settings=settings, iterations=(2, 3, 12))
    np.testing.assert_array_equal(asked.pixels, result.pixels)
    assert asked.losses == result.losses


def test_next_level_at_the_last_level_ends_the_run() -> None:
    def cut(progress: Progress) -> None:
        if progress.level_iteration == 2:
            raise NextLevel

    result = run(callback=cut)
    assert result.nit == 2
    assert not result.success
    assert result.message == "stopped by the callback after 2 iterations"


def test_run_resumed_after_a_level_was_cut_short_is_the_same(tmp_path: Path) -> None:
    settings = replace(SHALLOW, min_size=48)
    options: dict[str, Any] = {"content": picture(64, 96), "settings": settings, "iterations": 12}

    def cut(progress: Progress) -> None:
        if progress.level == 1 and progress.level_iteration == 2:
            raise NextLevel

    def interrupt(progress: Progress) -> None:
        cut(progress)
        if progress.level == 2 and progress.level_iteration == 3:
            raise KeyboardInterrupt

    whole = run(callback=cut, **options)
    first = run(callback=interrupt, checkpoint=tmp_path / "run.npz", **options)
    assert first.interrupted
    seen: list[Progress] = []
    resumed = run(callback=seen.append, checkpoint=tmp_path / "run.npz", resume=True, **options)
    np.testing.assert_array_equal(resumed.pixels, whole.pixels)
    assert (resumed.message, resumed.success) == (whole.message, False)
    assert (seen[0].iteration, seen[0].iterations) == (6, 26)


def test_ctrl_c_returns_picture_so_far() -> None:
    pictures: list[Array] = []

    def interrupt(progress: Progress) -> None:
        pictures.append(progress.image)
        if progress.iteration == 3:
            raise KeyboardInterrupt

    result = run(callback=interrupt)
    assert result.interrupted
    assert not result.success
    assert result.message == "interrupted after 3 iterations"
    np.testing.assert_array_equal(result.image, pictures[-1])


def test_nan_loss_ends_run_with_last_good_picture(
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
    assert not result.success
    assert "not a finite number" in result.message
    assert "last good one" in result.message
    assert np.isfinite(result.loss)
    assert result.loss < result.losses[0]


def test_start_without_loss_is_a_success() -> None:
    result = run(settings=Settings(style_layers=(), content_layers=("conv1_1",)))
    assert result.message == "nothing to do: the start has no loss at all"
    assert result.success


def test_default_settings_depend_on_random_weights() -> None:
    trained = Weights(dict(load_weights("random")), "not random", preprocessing="caffe")
    for weights, name in (("random", "random"), (load_weights("random"), "random"), (trained, "default")):
        by_default, by_name = (run(weights=weights, settings=one, iterations=1) for one in (None, name))
        np.testing.assert_array_equal(by_default.image, by_name.image)


def test_random_weights_are_initialized_to_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[npstyle.VGG19] = []

    class Recorded(npstyle.VGG19):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            networks.append(self)

    monkeypatch.setattr("npstyle.run.VGG19", Recorded)
    raw = load_weights("random", deepest="conv2_2")
    run(weights=raw, iterations=0)
    run(weights=FIXED, iterations=0)
    initialized, fixed = (network.weights["conv1_1"] for network in networks)
    assert np.abs(initialized.kernel).max() < np.abs(raw["conv1_1"].kernel).max()
    assert initialized.bias.any()
    np.testing.assert_array_equal(fixed.kernel, raw["conv1_1"].kernel)


def test_random_weights_are_initialized_to_smaller_pictures_where_they_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, ...]] = []

    def initialize(weights: Any, pictures: Any, *_: Any) -> Any:
        seen.extend(picture.shape for picture in pictures)
        return weights

    monkeypatch.setattr("npstyle.run.data_dependent_init", initialize)
    request = Request.read(picture(60, 80), [picture(40, 40), picture(200, 64)], settings="random", size=80)
    prepare(request, load_weights("random", deepest="conv5_1"))
    assert seen == [(60, 80, 3), (40, 40, 3), (80, 26, 3)]
    seen.clear()
    monkeypatch.setattr("npstyle.run.INITIALIZATION_PIXELS", 600)
    prepare(request, load_weights("random", deepest="conv5_1"))
    assert seen == [(32, 32, 3), (32, 32, 3), (43, 26, 3)]  # a short side is hardly reduced


def test_fallback_to_random_weights_warns() -> None:
    with pytest.warns(RandomFiltersWarning, match="RANDOM FILTERS"):
        result = run(weights="auto", iterations=1, seed=4)
    assert result.weights == "random filters (seed 4)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(weights="random", iterations=1)


def test_result_names_the_filters_that_were_used(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "mine.npz", FIXED)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert run(weights=path, iterations=0).weights == f"mine.npz (sha256 {checksum})"
    assert run(weights=FIXED, iterations=0).weights == "fixed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"size": 8},
            "content: found 8 x 5 pixels; expected at least 16 x 16; give --size 24",
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
        ({"weights": 3}, "weights: found 3; expected a mapping"),
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
def test_unusable_arguments_are_refused_in_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        run(**change)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_level_sizes() -> None:
    assert levels(512, 128) == [128, 181, 256, 362, 512]
    assert levels(700, 128) == [124, 175, 247, 350, 495, 700]
    assert levels(100, 128) == levels(100, 0) == [100]


def test_each_level_starts_with_result_of_previous_one() -> None:
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
    single = run(content=picture(64, 96), styles=[picture(70, 80, 1)], iterations=0)
    assert result.levels[-1].losses[0] < single.losses[0]
    assert result.message == "did the 4 iterations asked for at the last of 3 levels"


def test_each_level_does_its_own_number_of_iterations() -> None:
    seen: list[Progress] = []
    settings = replace(SHALLOW, min_size=48, iterations=(4, 2))
    result = run(content=picture(64, 96), settings=settings, iterations=None, callback=seen.append)
    assert [level.nit for level in result.levels] == [4, 4, 2]
    assert {(p.iterations, *(level.iterations for level in p.schedule)) for p in seen} == {(10, 4, 4, 2)}
    by_argument = run(content=picture(64, 96), settings=replace(settings, iterations=1), iterations=(4, 2))
    np.testing.assert_array_equal(by_argument.pixels, result.pixels)


def test_level_too_small_for_layers_is_left_out() -> None:
    seen: list[Progress] = []
    wide = picture(32, 256)
    run(content=wide, settings=replace(SHALLOW, min_size=32), iterations=1, callback=seen.append)
    assert [progress.iterate.shape[:2] for progress in seen] == [(16, 128), (23, 181), (32, 256)]


def test_result_sums_up_its_levels() -> None:
    result = run(content=picture(64, 96), settings=PYRAMID, iterations=4)
    assert [level.width for level in result.levels] == [34, 48, 68, 96]
    assert [level.height for level in result.levels] == [23, 32, 45, 64]
    assert [level.nit for level in result.levels] == [4, 4, 4, 4]
    assert all(level.success and len(level.losses) == level.nit + 1 for level in result.levels)
    assert all(level.nfev > level.nit for level in result.levels)
    assert all(level.loss == min(level.losses) for level in result.levels)
    assert {level.message for level in result.levels} == {"did the 4 iterations asked for"}
    assert result.losses == [loss for level in result.levels for loss in level.losses]
    assert (result.nit, result.nfev) == (16, sum(level.nfev for level in result.levels))
    assert result.loss == result.levels[-1].loss
    assert result.success


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32", "adam"])
def test_nfev_counts_evaluations(optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    from npstyle.objective import Objective

    calls: list[int] = []
    evaluate = Objective.__call__

    def counted(self: Objective, pixels: Array) -> tuple[float, Array]:
        calls.append(1)
        return evaluate(self, pixels)

    monkeypatch.setattr(Objective, "__call__", counted)
    result = run(content=picture(64, 96), settings=replace(PYRAMID, optimizer=optimizer), iterations=6)
    assert result.nfev == len(calls)


def test_results_compare_and_hash_by_identity() -> None:
    seen: list[Progress] = []
    first, second = (run(iterations=1, callback=seen.append) for _ in range(2))
    assert (first == first, first == second) == (True, False)
    assert len({first, second}) == 2
    assert seen[0] != seen[1]
    assert len(set(seen)) == 2
    np.testing.assert_array_equal(first.image, second.image)


def test_request_is_read_once_and_painted_twice(tmp_path: Path) -> None:
    Image.fromarray(picture(32, 48)).save(tmp_path / "content.png")
    request = Request.read(tmp_path / "content.png", picture(40, 40, 1), settings=SHALLOW, blend=[2])
    (tmp_path / "content.png").unlink()
    longer = replace(request, settings=replace(SHALLOW, iterations=2))
    first, second = (paint(longer, FIXED) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.losses == second.losses
    np.testing.assert_array_equal(first.pixels, run(weights=FIXED, iterations=2).pixels)
    assert (request.result_size, request.style_sizes(24, 16)) == ((48, 32), [(40, 40)])
    assert request != longer


def test_mask_is_resized_like_a_picture() -> None:
    mask = np.random.default_rng(0).uniform(0, 1, (40, 30))
    three = npstyle.images.resize(np.repeat(mask[:, :, None], 3, axis=2).astype(np.float32), 17, 23)
    np.testing.assert_array_equal(resized_mask(mask, 17, 23), np.clip(three[:, :, 1], 0, 1))


def interrupt_at(*iterations: int) -> Callable[[Progress], None]:
    def callback(progress: Progress) -> None:
        if progress.iteration in iterations:
            raise KeyboardInterrupt

    return callback


def test_ctrl_c_at_small_level_enlarges_picture() -> None:
    result = run(content=picture(64, 96), settings=PYRAMID, iterations=4, callback=interrupt_at(1))
    assert result.interrupted
    assert not result.success
    assert result.image.shape == (64, 96, 3)
    assert result.message == "interrupted after 1 iteration; the picture is enlarged from 34 x 23 pixels"
    assert [level.success for level in result.levels] == [False]


def same_numbers(result: StyleResult, expected: StyleResult) -> None:
    np.testing.assert_array_equal(result.pixels, expected.pixels)
    assert result.levels == expected.levels
    for name in ("loss", "losses", "nit", "nfev", "success", "message", "interrupted", "diverged"):
        assert getattr(result, name) == getattr(expected, name), name


def in_four_levels(optimizer: Optimizer) -> dict[str, Any]:
    changes = {"content": picture(64, 96), "iterations": 4, "weights": FIXED}
    return {**changes, "settings": replace(PYRAMID, optimizer=optimizer)}


@functools.cache
def undisturbed(optimizer: Optimizer) -> StyleResult:
    result: StyleResult = run(**in_four_levels(optimizer))
    return result


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32", "adam"])
@pytest.mark.parametrize("iterations", [(1,), (3,), (5, 11), (12,), (2, 7, 8, 15, 16)])
def test_resumed_run_has_same_result_as_undisturbed_one(
    optimizer: Optimizer, iterations: tuple[int, ...], tmp_path: Path
) -> None:
    changes = in_four_levels(optimizer)
    result = run(**changes, checkpoint=tmp_path, callback=interrupt_at(iterations[0]))
    seen: list[int] = []
    for stop in (*iterations[1:], None):
        assert result.interrupted
        assert result.nit == sum(level.nit for level in result.levels)

        def callback(progress: Progress, stop: int | None = stop) -> None:
            seen.append(progress.iteration)
            if progress.iteration == stop:
                raise KeyboardInterrupt

        result = run(**changes, checkpoint=tmp_path, resume=True, callback=callback)
    assert seen == list(range(iterations[0] + 1, 17))
    same_numbers(result, undisturbed(optimizer))


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32", "adam"])
def test_run_resumed_between_levels_has_same_result(
    optimizer: Optimizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from npstyle.objective import Objective

    changes: dict[str, Any] = {"content": picture(64, 96), "iterations": 3, "weights": FIXED}
    changes["settings"] = replace(PYRAMID, optimizer=optimizer)
    expected = run(**changes)
    levels_begun: list[int] = []
    init = Objective.__init__

    def interrupted(self: Objective, *arguments: Any) -> None:
        levels_begun.append(1)
        if len(levels_begun) == 3:
            raise KeyboardInterrupt
        init(self, *arguments)

    monkeypatch.setattr(Objective, "__init__", interrupted)
    first = run(**changes, checkpoint=tmp_path)
    assert first.message == (
        "interrupted: did the 3 iterations asked for; the picture is enlarged from 48 x 32 pixels"
    )
    assert len(first.levels) == 2
    assert (first.interrupted, first.success, first.nit) == (True, False, 6)
    levels_begun[:] = [1, 1]
    again = run(**changes, checkpoint=tmp_path, resume=True)  # interrupted at the same place
    same_numbers(again, first)
    same_numbers(run(**changes, checkpoint=tmp_path, resume=True), expected)


@pytest.mark.parametrize(("optimizer", "array"), [("lbfgs", "wa"), ("lbfgs32", "g"), ("adam", "mean")])
def test_resumed_run_makes_no_copy_of_its_state(
    optimizer: Any, array: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, settings = tmp_path / "run.npz", replace(SHALLOW, iterations=5, optimizer=optimizer)
    run(weights=FIXED, settings=settings, checkpoint=stored, callback=interrupt_at(2))
    state = checkpoint.read(stored)
    read = state.state[array]
    made: list[Minimizer] = []

    class Watched(Minimizer):
        def run(self) -> OptimizeResult:
            made.append(self)
            assert self.state[array] is read
            return super().run()

    expected = run(weights=FIXED, settings=settings)
    monkeypatch.setattr("npstyle.run.pyramid.Minimizer", Watched)
    request = Request.read(picture(32, 48), picture(40, 40, 1), settings=settings)
    network = npstyle.VGG19.for_settings(FIXED, request.settings)
    result = Pyramid(request, network).run(state)
    assert len(made) == 1
    assert not state.state
    np.testing.assert_array_equal(result.image, expected.image)


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32", "adam"])
def test_start_of_a_level_is_not_kept(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimizer has copies of its own."""

    def start(self: Level, *arguments: Any) -> Array:
        array = original(self, *arguments)
        starts.append(weakref.ref(array))
        return array

    starts: list[weakref.ref[Array]] = []
    kept: list[bool] = []
    original = Level.start
    monkeypatch.setattr(Level, "start", start)
    settings = replace(SHALLOW, optimizer=optimizer)
    run(
        settings=settings,
        iterations=2,
        weights=FIXED,
        callback=lambda _: kept.append(starts[-1]() is not None),
    )
    assert kept == [False, False]


def test_reading_a_checkpoint_takes_no_more_memory_than_it_holds(tmp_path: Path) -> None:
    arrays = {name: np.full((500, 1000), 1.5) for name in "ab"}
    checkpoint.write(tmp_path / "x", checkpoint.Checkpoint({}, (), arrays))
    tracemalloc.start()
    try:
        stored = checkpoint.read(tmp_path / "x").state
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(stored["b"], arrays["b"])
    assert peak < 1.4 * 8e6


def test_checkpoint_of_older_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    checkpoint.write(tmp_path / "old.npz", checkpoint.Checkpoint({}, (), {}))
    monkeypatch.undo()
    with pytest.raises(UserError) as caught:
        run(checkpoint=tmp_path / "old.npz", resume=True)
    assert str(caught.value) == (
        f"checkpoint: {tmp_path / 'old.npz'}: found a checkpoint of format 1; expected format 3; "
        "choose another name, or begin again without it"
    )


def test_checkpoint_stores_levels_exactly(tmp_path: Path) -> None:
    levels = (
        LevelResult(8, 6, 0.1, [1 / 3, 0.1], 1, 2, True, "did it"),
        LevelResult(16, 12, 5e-324, [0.7, 0.3, 5e-324], 2, 5, False, "\n\u00e9"),
    )
    checkpoint.write(tmp_path / "x", checkpoint.Checkpoint({"a": "b"}, levels, {"x": np.arange(3.0)}))
    stored = checkpoint.read(tmp_path / "x")
    assert (stored.fingerprint, stored.levels) == ({"a": "b"}, levels)
    np.testing.assert_array_equal(stored.state["x"], np.arange(3.0))


@pytest.mark.parametrize(
    "change",
    [
        {"nit": 2},
        {"nit": -1},
        {"nfev": True},
        {"width": 8.0},
        {"loss": float("nan")},
        {"loss": 1},
        {"success": 1},
        {"message": None},
    ],
)
def test_checkpoint_with_invalid_level_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    level = LevelResult(8, 6, 0.1, [0.3, 0.1], 1, 2, True, "did it")._replace(**change)
    checkpoint.write(tmp_path / "x", checkpoint.Checkpoint({}, (level,), {}))
    with pytest.raises(UserError, match="found something else"):
        checkpoint.read(tmp_path / "x")


def test_checkpoint_of_other_preprocessing_is_refused(tmp_path: Path) -> None:
    run(weights=FIXED, checkpoint=tmp_path / "x", callback=interrupt_at(2))
    torchvision = Weights(dict(FIXED), "fixed", preprocessing="torchvision")
    with pytest.raises(UserError, match="resume: preprocessing: found 'torchvision'; expected 'caffe'"):
        run(weights=torchvision, checkpoint=tmp_path / "x", resume=True)


def test_memory_error_at_later_level_returns_previous_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    from npstyle.objective import Objective

    def evaluate(self: Objective, pixels: Array) -> tuple[float, Array]:
        if pixels.shape[1] > 60:
            raise MemoryError
        return original(self, pixels)

    original = Objective.__call__
    monkeypatch.setattr(Objective, "__call__", evaluate)
    result = run(content=picture(64, 96), settings=PYRAMID, iterations=2)
    assert result.message == (
        "did the 2 iterations asked for, then there was too little memory for the next size; "
        "the picture is enlarged from 48 x 32 pixels"
    )
    assert (result.success, result.interrupted, len(result.levels)) == (False, False, 2)


def test_memory_error_within_a_level_returns_its_best_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    from npstyle.objective import Objective

    def evaluate(self: Objective, pixels: Array) -> tuple[float, Array]:
        calls.append(pixels.shape[1])
        if calls.count(96) == 4:
            raise MemoryError
        return original(self, pixels)

    calls: list[int] = []
    original = Objective.__call__
    monkeypatch.setattr(Objective, "__call__", evaluate)
    result = run(content=picture(64, 96), settings=PYRAMID, iterations=4)
    assert re.fullmatch(
        r"stopped after \d iterations?, as there was too little memory for another", result.message
    )
    assert (result.success, result.interrupted, len(result.levels)) == (False, False, 4)
    assert result.levels[-1].loss < result.levels[-1].losses[0]


def test_adam_lowers_loss() -> None:
    result = run(settings=replace(SHALLOW, optimizer="adam"), iterations=15)
    assert result.loss < result.losses[0] / 2
    assert len(result.losses) == 16


def test_paths_images_and_arrays_give_same_result(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("optimizer", ["lbfgs", "lbfgs32", "adam"])
@pytest.mark.parametrize("color", ["style", "luminance"])
def test_keep_mask_leaves_content_unchanged(optimizer: Optimizer, color: Color) -> None:
    keep = np.zeros((32, 48))
    keep[:, 24:] = 1
    result = run(keep=keep, settings=replace(SHALLOW, optimizer=optimizer, color=color))
    np.testing.assert_array_equal(result.image[:, 24:], picture(32, 48)[:, 24:])
    assert (result.image[:, :24] != picture(32, 48)[:, :24]).any()


def test_luminance_keeps_content_colors() -> None:
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


def test_luminance_gives_styles_the_brightness_and_contrast_of_the_photograph() -> None:
    content, style = picture(32, 48) // 2 + 64, picture(40, 40, 1) // 4
    level = Level(Request.read(content, style, settings=replace(SHALLOW, color="luminance")), 48, 32)
    Y = npstyle.images.color.luma(content)
    for gray in (level.content, *level.styles):
        assert (gray == gray[..., :1]).all()
        assert (gray.mean(), gray.std()) == pytest.approx((Y.mean(), Y.std()), rel=1e-3)


def test_gradient_of_brightness_is_the_derivative_along_grays() -> None:
    """The projection on (1, 1, 1): the mean of the channels, and not one of them."""
    request = Request.read(picture(32, 48), picture(40, 40, 1), settings=replace(SHALLOW, color="luminance"))
    network = VGG19.for_settings(FIXED, request.settings)
    objective = Level(request, 48, 32).objective(network)
    gray = np.repeat(picture(32, 48)[..., :1].astype(np.float64), 3, axis=2)
    _, gradient = objective(gray)
    assert (gradient == gradient[..., :1]).all()

    def loss(Y: Any) -> float:
        return objective(np.repeat(Y, 3, axis=2))[0]

    compared = directional(loss, lambda v: v * gradient.sum(axis=2, keepdims=True), gray[..., :1])
    assert compared.error < DIRECTIONAL


def test_resized_mask_stays_between_0_and_1() -> None:
    """Though Lanczos overshoots beside an edge."""
    mask = np.zeros((32, 48), np.float32)
    mask[:, 20:] = 1
    for size in ((30, 20), (70, 50)):
        assert npstyle.images.resize(mask, *size).max() > 1
        resized = resized_mask(mask, *size)
        assert (float(resized.min()), float(resized.max())) == (0, 1)
    assert (float(mask.min()), float(mask.max())) == (0, 1)


def test_luma_keeps_content_colors_and_match_their_mean() -> None:
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


def test_style_scale_and_style_as_content() -> None:
    assert run(style_scale=1.0).loss != run(style_scale=0.5, size=48).loss
    stretched = run(weights=FIXED, settings=replace(SHALLOW, style_as_content=True), iterations=0)
    by_hand = run(weights=FIXED, styles=npstyle.images.resize(picture(40, 40, 1), 48, 32), iterations=0)
    assert stretched.loss == pytest.approx(by_hand.loss, rel=1e-6)


def test_blend_weights_styles() -> None:
    styles = [picture(40, 40, 1), picture(40, 40, 2)]
    alone = run(weights=FIXED, styles=styles[1])
    np.testing.assert_array_equal(run(weights=FIXED, styles=styles, blend=[0, 3]).image, alone.image)
    assert (run(weights=FIXED, styles=styles).image != alone.image).any()


def test_masked_regions_take_their_styles() -> None:
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


def test_result_displays_its_picture() -> None:
    shown = Image.open(io.BytesIO(run(iterations=0)._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), picture(32, 48))


def test_no_module_shadows_a_public_name() -> None:
    """A module called like a function would replace it as soon as somebody imports it."""
    for name in npstyle.__all__:
        assert find_spec(f"npstyle.{name}") is None


def test_filters_in_a_dict_need_their_preprocessing() -> None:
    content = picture(20, 24)
    filters = dict(load_weights("random", deepest="conv2_2"))
    with pytest.raises(UserError, match="preprocessing: found none"):
        stylize(content, content[::-1], settings=SHALLOW, weights=filters)
    told = stylize(content, content[::-1], settings=SHALLOW, weights=filters, preprocessing="caffe")
    weights = Weights(filters, "the same", preprocessing="caffe")
    np.testing.assert_array_equal(
        told.image, stylize(content, content[::-1], settings=SHALLOW, weights=weights).image
    )


def test_request_that_was_changed_is_checked() -> None:
    content = picture(20, 24)
    request = Request.read(content, content[::-1], settings=SHALLOW)
    with pytest.raises(UserError, match="content: found 8 x 7 pixels; expected at least"):
        paint(replace(request, size=8), load_weights("random", deepest="conv2_2"))
