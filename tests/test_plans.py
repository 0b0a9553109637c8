"""Evaluation plans: the same bits as without, and the memory that they are said to take."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from helpers import error_line, only_thoroughly, picture
from npstyle import VGG19, Objective, Settings, _kernels, load_weights, plans, preset, row_layers, stylize
from npstyle._runtime.arena import Arena
from npstyle._typing import Array, Convolution, Padding
from npstyle.partial import Gradients, LayerGradient
from npstyle.rows import Packed, Rows, has_bits
from npstyle.run import memory
from npstyle.run.inputs import Request

WEIGHTS = load_weights("random", seed=0)
PAPER = preset("paper")
PLANS = (1, 2, 3, plans.ALL_BLOCKS)
# Layers of all kinds: at both sides of a pooling, poolings at the top of strips, above them, and two losses.
MANY = Settings(
    content_layers=("conv1_1", "conv2_2", "pool2", "conv3_1", "conv5_1"),
    style_layers=("conv1_2", "pool2", "pool3", "conv3_1", "conv4_4", "pool4"),
    padding="zero",
)
SETTINGS = {
    "paper": PAPER,
    "maximum": replace(PAPER, pooling="max"),
    "replicate": replace(PAPER, padding="replicate", pooling="max"),
    "moments": replace(PAPER, statistics="gram+moments"),
    "wasserstein": replace(PAPER, statistics="wasserstein"),
    "losses": replace(PAPER, mixture="losses"),
    "relative": replace(PAPER, scaling="relative"),
    "many": MANY,
    "up to pool3": replace(MANY, content_layers=("pool3",), style_layers=("conv1_2", "pool2")),
    "conv1_1": replace(MANY, content_layers=("conv1_1",), style_layers=("conv1_1",)),
}


@pytest.fixture(autouse=True)
def low_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small pictures have several, and layers go on with any tile."""
    monkeypatch.setattr(plans, "STRIP", 10)
    monkeypatch.setattr(plans, "TILES", 1)


def result(
    settings: Settings,
    size: tuple[int, int],
    plan: int,
    threads: int = 1,
    dtype: Any = np.float32,
    convolution: Convolution = "auto",
    **masks: Any,
) -> tuple[float, dict[str, float], Array]:
    """Loss, terms and gradient of the second call."""
    network = VGG19.for_settings(WEIGHTS, settings, convolution, threads)
    styles = [picture(40, 31, seed=1), picture(27, 34, seed=2)]
    objective = Objective(network, picture(*size, seed=3), styles, settings, plan=plan, **masks)
    pixels = picture(*size, dtype=dtype)
    objective(pixels)
    loss, gradient = objective(pixels)
    return loss, objective.terms, gradient


def assert_same_bits(settings: Settings, size: tuple[int, int], *tried: int, **options: Any) -> None:
    loss, terms, gradient = result(settings, size, 0, **options)
    for n, plan in enumerate(tried):
        found = result(settings, size, plan, 1 + n % 2, **options)
        assert found[0] == loss, plan
        assert list(found[1].items()) == list(terms.items()), plan
        np.testing.assert_array_equal(found[2], gradient, str(plan))


@pytest.mark.parametrize("name", ["paper", "wasserstein", "many"])
def test_sums_of_tall_pictures_are_accumulated_by_sections(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, size = SETTINGS[name], (203, 34)
    by_one_section = result(settings, size, 0)
    monkeypatch.setattr("npstyle.partial.SECTION", 96)
    masks = {
        "content_masks": [picture(*size, seed=4 + n)[:, :, 0] / 255 for n in range(2)],
        "style_masks": [picture(*shape, seed=6)[:, :, 0] / 255 for shape in ((40, 31), (27, 34))],
    }
    assert_same_bits(settings, size, 2, plans.ALL_BLOCKS)
    if name != "many":
        assert_same_bits(settings, size, plans.ALL_BLOCKS, **masks)
    loss, _, gradient = result(settings, size, 0)
    assert loss == pytest.approx(by_one_section[0], rel=1e-6)
    np.testing.assert_allclose(gradient, by_one_section[2], rtol=0, atol=1e-4 * np.abs(gradient).max())


@pytest.mark.parametrize("size", [(203, 34), (45, 61), (16, 16)])
def test_loss_and_gradient_have_the_same_bits_with_every_plan(size: tuple[int, int]) -> None:
    assert_same_bits(PAPER, size, *PLANS)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "paper"])
def test_so_they_have_with_other_settings(name: str) -> None:
    assert_same_bits(SETTINGS[name], (53, 35), 1, plans.ALL_BLOCKS)


@pytest.mark.parametrize("name", ["paper", "moments", "wasserstein"])
def test_so_they_have_in_regions(name: str) -> None:
    soft = np.random.default_rng(4).uniform(0, 1, (53, 35))
    left = np.tile(np.arange(35) < 17, (53, 1)).astype(float)
    masks = {"content_masks": [soft, left], "style_masks": [np.ones((40, 31)), np.ones((27, 34))]}
    assert_same_bits(SETTINGS[name], (53, 35), plans.ALL_BLOCKS, **masks)


@pytest.mark.parametrize(("convolution", "dtype"), [("im2col", np.float32), ("winograd", np.float64)])
@pytest.mark.parametrize("name", ["paper", "replicate"])
def test_so_they_have_with_other_kernels(name: str, convolution: Convolution, dtype: Any) -> None:
    assert_same_bits(SETTINGS[name], (53, 35), plans.ALL_BLOCKS, convolution=convolution, dtype=dtype)


@pytest.mark.parametrize(("rows", "tiles"), [(1, 1), (7, 30), (50, 8), (10_000, 1)])
def test_so_they_have_with_strips_of_any_height(
    rows: int, tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "STRIP", rows)
    monkeypatch.setattr(plans, "TILES", tiles)
    monkeypatch.setattr(row_layers, "MAX_ROWS", 12)
    assert_same_bits(PAPER, (53, 35), 2, plans.ALL_BLOCKS)


def test_layers_compute_neither_a_few_rows_nor_all_that_wait() -> None:
    portion = row_layers.portion(6, 60, 20, row_layers.MAX_ROWS)  # 10 tiles in a row of them
    assert tuple(portion) == (12, row_layers.MAX_ROWS, 6)
    assert portion.of(12, 18, 100) == 12  # later
    assert portion.of(12, 24, 100) == 24
    assert portion.of(12, 90, 100) == 12 + row_layers.MAX_ROWS
    assert portion.of(96, 100, 100) == 100  # the last ones
    assert portion.of(0, row_layers.MAX_ROWS + 1, row_layers.MAX_ROWS + 1) == row_layers.MAX_ROWS + 1
    # Of wide pictures fewer.
    assert row_layers.rows_at_a_time(60, 64) == row_layers.MAX_ROWS
    assert tuple(row_layers.portion(6, 2048, 20, row_layers.rows_at_a_time(2048, 64))) == (6, 6, 6)
    assert row_layers.rows_at_a_time(1 << 20, 64) == 1


def test_packed_rows_are_what_they_were() -> None:
    rows = np.array([[0, 1, -0.0], [np.nan, 0, 2], [0, 0, 0], [3, 4, 5]], np.float32)
    packed, out = Packed(), np.empty((2, 3), np.float32)
    packed.push(rows[:3], has_bits(rows[:3]))
    packed.push(rows[3:])
    assert packed.end == 4
    packed.take(out)
    assert out.tobytes() == rows[:2].tobytes()
    packed.copy_to(2, out)
    packed.take(out[:1])
    packed.take(out[1:])
    assert out.tobytes() == rows[2:].tobytes()


def test_packed_rows_leave_the_arena_as_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npstyle.rows.GROWTH", 4 * 64)
    x, arena, seen = picture(32, 64)[:, :, 0] - 128, Arena(), []
    packed = Packed(0, arena)
    for rows in Rows.growing(x, arena):
        packed.push(rows[packed.end, rows.end], rows[packed.end, rows.end] > 0)
    assert packed.end == 32
    assert arena.nbytes < 0.7 * x.nbytes

    def take(out: Array) -> None:
        Packed.take(packed, out)
        seen.append(arena.nbytes)

    monkeypatch.setattr(packed, "take", take)
    np.testing.assert_array_equal(packed.unpacked(x.shape, x.dtype, arena), np.where(x > 0, x, 0))
    assert len(seen) == 8
    assert seen[-1] < 1.2 * x.nbytes


def test_gradients_wait_packed_where_they_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, bool] = {}

    class Seen(Gradients):
        def __init__(self, gradient: LayerGradient, arena: Arena, packed: bool, first: int) -> None:
            super().__init__(gradient, arena, packed, first)
            stored[gradient.name] = packed

    monkeypatch.setattr(plans, "Gradients", Seen)
    result(PAPER, (53, 35), plans.ALL_BLOCKS)
    # conv1_1 does not wait at all, but is computed again.
    assert stored == {"conv2_1": False, "conv3_1": True, "conv4_1": True, "conv4_2": True, "conv5_1": False}


def test_plans_that_there_are_not() -> None:
    content, style = picture(32, 32), picture(32, 32, 1)
    wrap = replace(PAPER, padding="wrap")

    def objective(settings: Settings, plan: Any) -> Objective:
        return Objective(VGG19.for_settings(WEIGHTS, settings), content, [style], settings, plan=plan)

    for plan in (4, -1, True, "2"):
        assert "expected one of 0, 1, 2, 3, 5" in error_line(partial(objective, PAPER, plan), "plan")
    assert "the padding 'wrap'" in error_line(lambda: objective(wrap, 2), "plan")
    assert plans.possible_plans("wrap", PAPER.layers) == (0,)
    assert plans.possible_plans("zero", ["conv2_1"]) == (0, 1, 5)


@pytest.mark.parametrize("convolution", ["auto", "winograd"])
def test_so_they_have_with_the_reference_implementations(
    convolution: Convolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kernels, "IMPLEMENTATION", "reference")
    monkeypatch.setattr(_kernels, "_kernels", _kernels.reference)
    for name, size in (("convolution", "MAX_STRIP"), ("winograd", "MAX_STRIP"), ("gram", "STRIP")):
        monkeypatch.setattr(import_module(f"npstyle._kernels.reference.{name}"), size, 100)
    settings = replace(SETTINGS["moments"], content_layers=("conv2_2",), style_layers=("conv1_1", "conv3_1"))
    assert_same_bits(settings, (41, 35), 2, plans.ALL_BLOCKS, convolution=convolution)


def test_rows_are_kept_as_long_as_they_are_needed() -> None:
    rows = Rows(6, (2,), np.float32, VGG19(WEIGHTS).arena)
    rows.extend(3)[...] = np.arange(6).reshape(3, 2)
    rows.held = 1
    rows.drop(2)
    rows.extend(2)[...] = 9
    np.testing.assert_array_equal(rows[1, 5], [[2, 3], [4, 5], [9, 9], [9, 9]])


# ------------------------------------------------------------------------------------------------
# Memory
# ------------------------------------------------------------------------------------------------

EVALUATION = """
import resource, sys
import numpy as np
import npstyle
H, W, plan = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
settings = npstyle.preset("paper")
network = npstyle.VGG19.for_settings(npstyle.load_weights("random", deepest="conv5_1"), settings, threads=2)
start = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
content = rng.integers(0, 255, (H, W, 3), np.uint8).astype(np.float32)
objective = npstyle.Objective(network, content, [content[:64, :64]], settings, plan=plan)
objective(content[::-1])
with open("/proc/self/status") as file:  # ru_maxrss would include the parent's, from before exec
    found = next(line for line in file if line.startswith("VmHWM"))
print(1024 * int(found.split()[1]) - start)
"""


def peak(H: int, W: int, plan: int) -> float:
    arguments = [sys.executable, "-c", EVALUATION, *map(str, (H, W, plan))]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NPSTYLE_KERNELS": "compiled"}
    ended = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    return float(ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in /proc on Linux only")
@pytest.mark.parametrize(
    ("plan", "size"),
    [
        *((plan, (1600, 320)) for plan in (0, *PLANS)),
        *(only_thoroughly(plan, (960, 640)) for plan in (0, 1, 2, 3)),
        (plans.ALL_BLOCKS, (960, 640)),
    ],
)
def test_memory_of_an_evaluation_is_what_is_estimated(plan: int, size: tuple[int, int]) -> None:
    libraries = 20e6  # what they grow by in a first evaluation, with two threads: 0 to 60 MB were seen
    estimated = libraries + memory.objective_bytes(*size, PAPER, "auto", 2, plan)
    assert peak(*size, plan) == pytest.approx(estimated, rel=0.15)


def test_plans_are_chosen_by_memory() -> None:
    request = Request.read(picture(640, 480).astype(np.uint8), picture(64, 64), settings="paper", size=640)
    needed = {plan: memory.run_memory(request, plan=plan) for plan in (0, *PLANS)}

    def chosen(available: float | None, padding: Padding = "zero") -> int:
        return memory.choose_plan(lambda plan: needed[plan], available, padding, PAPER.layers)

    assert chosen(None) == chosen(needed[0]) == 0
    assert chosen(needed[0] - 1) == 1
    assert chosen(needed[2]) == 2
    assert needed[chosen(1e6)] == min(needed.values()) == memory.least_memory(request)
    assert chosen(1e6, "wrap") == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [("8GB", 8e9), ("500 MB", 5e8), ("1.5g", 1.5e9), ("2GiB", 2**31), (1e9, 1e9), ("64000k", 64e6)],
)
def test_sizes_in_words(words: Any, expected: float) -> None:
    assert memory.as_bytes(words) == expected


@pytest.mark.parametrize("words", ["much", "-1GB", "0", "8 giga", "", None])
def test_sizes_that_are_none(words: Any) -> None:
    error_line(lambda: memory.as_bytes(words), "memory")


def test_stylize_has_the_same_bits_in_any_memory() -> None:
    pictures = picture(60, 44), picture(40, 40, 1)
    settings = replace(preset("default"), iterations=2, min_size=0)
    results = [
        stylize(*pictures, settings=settings, weights=WEIGHTS, threads=1, memory=amount)
        for amount in (None, "1MB")
    ]
    np.testing.assert_array_equal(results[0].pixels, results[1].pixels)
    assert results[0].losses == results[1].losses
