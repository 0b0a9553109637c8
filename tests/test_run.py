"""The run: starts, sizes, what it ends with, how it can be ended, and what it does with bad numbers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import npstyle
from npstyle import Progress, RandomFiltersWarning, Settings, UserError, load_weights, preset, stylize
from npstyle.run import _in_plain_words, prepare, starting_picture

Array = NDArray[Any]

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
    assert len(result.history) == 13
    assert all(b < a for a, b in zip(result.history, result.history[1:], strict=False))
    assert result.loss == result.history[-1] < result.history[0] / 3
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


def test_a_picture_too_large_for_the_optimiser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npstyle.run.MOST_PIXELS", 1000)
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
    assert len(result.history) == 1


def test_starts() -> None:
    content = picture(16, 24)
    np.testing.assert_array_equal(starting_picture(content, "content", None, 0), content)
    noise = starting_picture(content, "noise", None, 0)
    assert noise.shape == content.shape
    assert 0 <= noise.min() < 10
    assert 245 < noise.max() <= 255
    np.testing.assert_array_equal(starting_picture(content, "blend", None, 0), (content + noise) / 2)
    assert (starting_picture(content, "noise", None, 1) != noise).any()
    flat = np.full((5, 7, 3), 9.0)
    np.testing.assert_allclose(starting_picture(content, "noise", flat, 0), np.full((16, 24, 3), 9.0))


def test_the_start_can_be_a_picture() -> None:
    start = picture(64, 96, 5)
    result = run(init=start, iterations=0)
    assert result.image.shape == (32, 48, 3)
    assert (result.image != picture(32, 48)).any()


def test_the_callback_sees_each_iteration() -> None:
    seen: list[Progress] = []
    result = run(callback=seen.append)
    assert [progress.iteration for progress in seen] == [1, 2, 3, 4, 5]
    assert [progress.loss for progress in seen] == result.history[1:]
    assert sum(seen[-1].terms.values()) == pytest.approx(result.loss)
    np.testing.assert_array_equal(seen[-1].image, result.image)


def test_stop_iteration_ends_the_run() -> None:
    def enough(progress: Progress) -> None:
        if progress.iteration == 2:
            raise StopIteration

    result = run(callback=enough)
    assert len(result.history) == 3
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
    assert result.loss < result.history[0]


def test_a_start_without_any_loss_is_said_to_be_done() -> None:
    result = run(settings=Settings(style_layers=(), content_layers=("conv1_1",)))
    assert result.message == "nothing to do: the start has no loss at all"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT", "iterations asked for"),
        ("ABNORMAL: ", "no step lowers the loss"),
        ("ABNORMAL_TERMINATION_IN_LNSRCH", "no step lowers the loss"),
        ("STOP: TOTAL NO. OF F,G EVALUATIONS EXCEEDS LIMIT", "too many evaluations"),
        ("CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL", "converged"),
    ],
)
def test_why_the_optimiser_stopped_in_plain_words(text: str, words: str) -> None:
    from scipy.optimize import OptimizeResult

    assert words in _in_plain_words(OptimizeResult(message=text), 7)


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
        ({"content": np.full((32, 32, 3), 1e30)}, "content: found numbers up to"),
        ({"settings": "papper"}, "did you mean paper"),
        ({"settings": replace(SHALLOW, style_weight=1e300)}, "loss: found no finite number at the start"),
        ({"weights": load_weights("random", deepest="conv1_1")}, "no conv1_2 (there is conv1_1)"),
        ({"threads": 1.5}, "threads: found 1.5"),
        ({"content": np.full((32, 32, 3), 0.5)}, "content: found numbers from 0 to 1"),
        ({"content": np.full((32, 32, 3), 3000, np.uint16)}, "content: found numbers up to 3000"),
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
    ],
)
def test_what_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        run(**change)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """A module called like a function would replace it as soon as somebody imports it."""
    for name in npstyle.__all__:
        assert find_spec(f"npstyle.{name}") is None
