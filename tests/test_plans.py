"""Evaluation plans: the same bits as without, and the memory that they are said to take."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from helpers import error_line, normal, only_thoroughly, picture
from npstyle import VGG19, Objective, Settings, _kernels, load_weights, plans, preset, row_layers, stylize
from npstyle._runtime.arena import Arena
from npstyle._typing import Array, Convolution, Padding, Pooling
from npstyle.fused import WinogradConvReLUPool, with_poolings
from npstyle.padding import WrapPad
from npstyle.partial import ContentTerm, Copy, Gradients, LayerGradient, Pack, RunningDistance, RunningSums
from npstyle.row_layers import Amount, PooledNeighbors, links
from npstyle.rows import Packed, RepeatedRows, Rows
from npstyle.run import memory
from npstyle.run.inputs import Request
from npstyle.strips import BackwardPass, ForwardPass, spans_above, spans_below

WEIGHTS = load_weights("random", seed=0)
PAPER = preset("paper")
PLANS = (1, 2, 3, plans.ALL_BLOCKS)
# Layers of all kinds: at both sides of a pooling, poolings at the top of strips, above them, and two losses.
MANY = Settings(
    content_layers=("conv1_1", "conv2_2", "pool2", "conv3_1", "conv5_1"),
    style_layers=("conv1_2", "pool2", "pool3", "conv3_1", "conv4_4", "pool4"),
    padding="zero",
)
# All blocks but the last one: what is around it at the border would take tests the most time.
WRAPPED = Settings(
    content_layers=("conv2_2", "conv3_1"),
    style_layers=("conv1_1", "conv2_1", "pool2", "pool3", "conv4_1"),
    statistics="gram",
    padding="wrap",
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
    "wrap": WRAPPED,
    "wrap, maximum": replace(PAPER, padding="wrap", pooling="max"),
    "wrap, moments": replace(WRAPPED, statistics="gram+moments"),
    "wrap, wasserstein": replace(WRAPPED, statistics="wasserstein", pooling="max"),
    "wrap, conv1_1": replace(WRAPPED, content_layers=("conv1_1",), style_layers=("conv1_1",)),
    "wrap, nothing below": replace(WRAPPED, content_layers=("conv4_2",), style_layers=("pool2", "conv5_1")),
    "wrap, up to pool3": replace(WRAPPED, content_layers=("pool3",), style_layers=("conv1_2", "pool2")),
}


@pytest.fixture(autouse=True)
def low_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small pictures have several, and layers go on with any tile."""
    set_amounts(monkeypatch, Amount(10, 1 << 20, 1))


def set_amounts(monkeypatch: pytest.MonkeyPatch, amount: Amount) -> None:
    for name in ("SMALL", "LARGE"):
        monkeypatch.setattr(plans, name, amount)
    monkeypatch.setattr(plans, "LEAST_STRIP", 1)


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


@pytest.mark.parametrize("size", [(203, 34), (45, 61), (16, 16), (61, 17)])
def test_loss_and_gradient_have_the_same_bits_with_every_plan(size: tuple[int, int]) -> None:
    assert_same_bits(PAPER, size, *PLANS)


@pytest.mark.parametrize(
    ("size", "pooling"), [((46, 35), "average"), ((46, 35), "max"), ((33, 20), "average"), ((16, 17), "max")]
)
def test_so_they_have_where_the_padding_wraps(size: tuple[int, int], pooling: Pooling) -> None:
    """At heights with odd last rows, one of them by itself in a strip (46), and lower than what is around."""
    assert_same_bits(replace(WRAPPED, pooling=pooling), size, *PLANS)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "paper"])
def test_so_they_have_with_other_settings(name: str) -> None:
    assert_same_bits(SETTINGS[name], (53, 35), 1, plans.ALL_BLOCKS)


@pytest.mark.parametrize("name", ["paper", "moments", "wasserstein", "wrap, moments"])
def test_so_they_have_in_regions(name: str) -> None:
    soft = np.random.default_rng(4).uniform(0, 1, (53, 35))
    left = np.tile(np.arange(35) < 17, (53, 1)).astype(float)
    masks = {"content_masks": [soft, left], "style_masks": [np.ones((40, 31)), np.ones((27, 34))]}
    assert_same_bits(SETTINGS[name], (53, 35), plans.ALL_BLOCKS, **masks)


@pytest.mark.parametrize(("convolution", "dtype"), [("im2col", np.float32), ("winograd", np.float64)])
@pytest.mark.parametrize("name", ["paper", "replicate", "wrap"])
def test_so_they_have_with_other_kernels(name: str, convolution: Convolution, dtype: Any) -> None:
    assert_same_bits(SETTINGS[name], (53, 35), plans.ALL_BLOCKS, convolution=convolution, dtype=dtype)


@pytest.mark.parametrize(
    ("name", "rows", "tiles"),
    [
        *(("paper", *sizes) for sizes in ((1, 1), (7, 30), (50, 8), (10_000, 1))),
        ("wrap", 1, 1),
        ("wrap", 7, 30),
    ],
)
def test_so_they_have_with_strips_of_any_height(
    name: str, rows: int, tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_amounts(monkeypatch, Amount(rows, 1 << 20, tiles))
    assert_same_bits(SETTINGS[name], (53, 35), 2, plans.ALL_BLOCKS)


def test_layers_compute_neither_a_few_rows_nor_all_that_wait() -> None:
    amount = Amount(24, 1 << 20, 20)
    portion = row_layers.portion(6, 60, 64, amount, True)  # 10 tiles in a row of them
    assert portion[:3] == (12, 24, 6)
    assert portion.of(12, 18, 100) == 12  # later
    assert portion.of(12, 24, 100) == 24
    assert portion.of(12, 90, 100) == 12 + 24
    assert portion.of(96, 100, 100) == 100  # the last ones
    assert portion.of(0, 25, 25) == 25
    # Of wide pictures fewer.
    assert amount.of_rows(60, 64) == 24
    assert row_layers.portion(6, 2048, 64, amount, True)[:3] == (6, 6, 6)
    assert amount.of_rows(1 << 20, 64) == 1
    # Of narrow ones not more tiles than there are rows for; others than Winograd's have none.
    assert row_layers.portion(6, 12, 64, amount, True)[:3] == (24, 24, 6)
    assert row_layers.portion(6, 12, 64, amount, False)[:3] == (6, 24, 6)


def test_rows_computed_together_are_those_of_one_copy() -> None:
    portion = row_layers.Portion(step=6, height=15)
    assert portion.of(-15, 20, 100) == 0
    assert portion.of(12, 16, 100) == 15
    assert portion.aligned(2, 13) == (0, 15)
    assert portion.aligned(-1, 17) == (-3, 21)
    assert portion.aligned(15, 30) == (15, 30)


@pytest.mark.parametrize("copy", [-1, 0, 1])
@pytest.mark.parametrize("H", [1, 2, 7])
def test_wrapped_rows_are_those_of_the_whole(H: int, copy: int) -> None:
    """Both passes, by any rows of the picture or of a copy."""
    layer, x, dy, dz = WrapPad(), normal(H, 4, 2), normal(H + 2, 6, 2, seed=1), normal(H, 4, 2, seed=2)
    by_rows, x_rows, dy_rows = row_layers.Wrapped(layer, H), *(RepeatedRows(z, layer.arena) for z in (x, dy))
    y, dx, added = layer.forward(x)[0], layer.backward(dy), layer.backward(dy, None, dz.copy())
    for a, b in combinations(range(H + 3), 2):
        first, last = copy * (H + 2) + a, copy * (H + 2) + b
        needed, out = by_rows.inputs(first, last), np.empty_like(y[a:b])
        assert by_rows.outputs(needed[1]) >= last
        by_rows.forward(x_rows[needed], first, out)
        np.testing.assert_array_equal(out, y[a:b])
    for a, b in combinations(range(H + 1), 2):
        first, last = copy * H + a, copy * H + b
        needed, out = by_rows.of_gradient(first, last), dz[a:b].copy()
        assert by_rows.gradients(needed[1]) >= last
        by_rows.backward(dy_rows[needed], None, first, out, True)
        np.testing.assert_array_equal(out, added[a:b])
        by_rows.backward(dy_rows[needed], None, first, out, False)
        np.testing.assert_array_equal(out, dx[a:b])


@pytest.mark.parametrize("H", [6, 11, 13, 14, 24, 25])
def test_rows_of_means_are_those_of_the_whole(H: int) -> None:
    """Both passes, by any rows that strips can have: 13 and 25 have an odd last row beside the last tile."""
    layer = WinogradConvReLUPool(normal(3, 3, 32, 64), normal(64, seed=1), threads=1)
    x, dz = normal(H, 9, 32, seed=2), normal(H, 9, 32, seed=3)
    y, cache = layer.forward(x)
    dy = normal(*y.shape, seed=4)
    dx, added = layer.backward(dy, cache), layer.backward(dy, cache, dz.copy())
    step = _kernels.winograd_rows(H, 9, 32, 64, 8)
    by_rows = PooledNeighbors(layer, H, (step, step))
    bits = np.empty((len(y), 2 * 9 * 64 // 8), np.uint8)
    for first, last in combinations([*range(0, H // 2, step // 2), H // 2], 2):
        a, b = by_rows.inputs(first, last)
        assert by_rows.outputs(b) >= last > by_rows.outputs(b - 1)
        out = np.empty_like(y[first:last])
        found = by_rows.forward(x[a:b], first, out)
        assert found is not None
        bits[first:last] = found
        np.testing.assert_array_equal(out, y[first:last])
    for first, last in combinations([*range(0, H, step), H], 2):
        a, b = by_rows.of_gradient(first, last)
        assert by_rows.gradients(b) >= last > by_rows.gradients(b - 1)
        out = dz[first:last].copy()
        by_rows.backward(dy[a:b], bits[a:b], first, out, True)
        np.testing.assert_array_equal(out, added[first:last])
        by_rows.backward(dy[a:b], bits[a:b], first, out, False)
        np.testing.assert_array_equal(out, dx[first:last])


@pytest.mark.parametrize("padding", ["zero", "wrap"])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_poolings_are_joined_to_convolutions_that_nobody_looks_at(
    pooling: Pooling, padding: Padding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where a feature map between them has a loss or a visitor, nor where its border is to be cropped."""
    seen: list[str | None] = []

    class Seen(ForwardPass):
        def __init__(self, chain: Any, *arguments: Any, **options: Any) -> None:
            seen.extend(link.feature_map for link in chain if isinstance(link.layer, PooledNeighbors))
            super().__init__(chain, *arguments, **options)

    monkeypatch.setattr(plans, "ForwardPass", Seen)
    settings = replace(
        MANY, content_layers=("conv2_2",), style_layers=("conv2_2", "pool3"), pooling=pooling, padding=padding
    )
    result(settings, (32, 32), plans.ALL_BLOCKS)
    assert set(seen) == ({"pool1", "pool3"} if (pooling, padding) == ("average", "zero") else set())


@pytest.mark.parametrize(
    ("plan", "padding", "expected"),
    [
        (1, "zero", [None]),
        (2, "zero", ["conv2_1"]),
        (3, "zero", ["conv3_1"]),
        (plans.ALL_BLOCKS, "zero", ["pool2", "conv5_1", "conv2_1"]),
        (2, "wrap", ["pool2"]),  # the gradient depends on rows that the first pass has not computed
    ],
)
def test_the_second_pass_computes_only_what_losses_need(
    plan: int, padding: Padding, expected: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tops: list[str | None] = []

    class Seen(ForwardPass):
        def __init__(self, chain: Any, *arguments: Any, **options: Any) -> None:
            super().__init__(chain, *arguments, **options)
            tops.append(chain[-1].feature_map if chain else None)

    network = VGG19.for_settings(WEIGHTS, settings := replace(PAPER, padding=padding), threads=1)
    objective = Objective(network, picture(48, 32), [picture(32, 32, 1)], settings, plan=plan)
    monkeypatch.setattr(plans, "ForwardPass", Seen)
    objective(picture(48, 32, 2).astype(np.float32))
    first, *others = tops
    assert first == (f"pool{plan}" if plan < plans.ALL_BLOCKS else "conv5_1")
    assert others == expected


def test_gradients_do_not_run_ahead_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of layers that are not computed again everything is there, and all rows could be computed at once."""
    most = 0

    class Seen(BackwardPass):
        def step(self) -> bool:
            nonlocal most
            stepped = super().step()
            most = max(most, *(rows.end - rows.first for rows in self.rows[1:-1]))
            return stepped

    monkeypatch.setattr(plans, "BackwardPass", Seen)
    result(PAPER, (640, 16), 3)
    assert 0 < most < 50  # of 160 rows of conv3_2


def test_joined_poolings_need_the_same_pixels() -> None:
    network = VGG19.for_settings(WEIGHTS, PAPER, "winograd")
    for H, top in product(range(300, 332), ("pool1", "conv2_1", "conv3_1", "pool3")):
        shape, dtype = (H, 40, 3), np.dtype(np.float32)
        steps = list(network.steps(top, shape, dtype))
        chains = [
            links(one, shape, dtype, plans.SMALL, False) for one in (steps, list(with_poolings(steps, [])))
        ]
        assert len(chains[1]) < len(chains[0])
        for band in (0, H), (0, 16), (128, 144), (H // 16 * 16 - 32, H):
            separate, joined = (spans_below(chain, spans_above(chain, band)) for chain in chains)
            assert separate[0] == joined[0]


def test_rows_are_repeated_above_and_below() -> None:
    rows = RepeatedRows(np.arange(5)[:, None], VGG19(WEIGHTS).arena)
    assert rows[-2, 2].ravel().tolist() == [3, 4, 0, 1]
    assert rows[-10, -7].ravel().tolist() == [0, 1, 2]
    assert rows[3, 14].ravel().tolist() == [3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3]
    rows.drop(4)
    assert rows[0, 5].ravel().tolist() == [0, 1, 2, 3, 4]


def test_rows_below_the_picture_are_neither_summed_nor_kept() -> None:
    F, arena = normal(6, 3, 64), Arena()
    rows, shape = Rows(4, (3, 64), F.dtype, arena), (4, 3, 64)
    rows.extend(6)[...] = F
    sums, distance = RunningSums(shape, None, F.dtype, 1, arena, 4), RunningDistance(shape, 4)
    pack, copy = Pack(0, 4), Copy(np.empty(shape))
    assert [one.visit(rows) for one in (sums, distance, pack, copy)] == [6, 6, 6, 6]
    assert distance.sums == pytest.approx([np.sum(F[:4] ** 2)])
    np.testing.assert_allclose(sums.sums.total, F[:4].sum((0, 1)))
    np.testing.assert_array_equal(copy.target, F[:4])
    assert pack.target.end == 4


def test_gradients_of_rows_of_a_copy_are_those_of_the_picture() -> None:
    F, P, arena = normal(6, 4, 64), normal(6, 4, 64, seed=1), Arena()
    packed = Packed()
    packed.push(P)
    for target in P, packed:
        gradient = LayerGradient("conv1_1", [], [], ContentTerm(target, 0.5), 1, arena)
        for first in (-10, -4, 2, 8):
            out = np.empty((3, 4, 64))
            gradient.of_rows(F[2:5], first, out)
            np.testing.assert_array_equal(out, 0.5 * (F[2:5] - P[2:5]))


@pytest.mark.parametrize(("top", "most"), [("pool1", 15), ("pool2", 57), ("pool3", 248), ("conv5_1", 799)])
def test_rows_around_a_picture_are_few(top: str, most: int) -> None:
    """At all heights, as docs/large-pictures.md says."""
    network = VGG19.for_settings(WEIGHTS, WRAPPED)
    found = 0
    for H in range(512, 512 + 96):
        pixels = np.broadcast_to(np.float32(0), (H, 512, 3))
        first, last = plans.Strips(network, pixels, top, pixels.dtype).pixel_rows()
        found = max(found, -first, last - H)
    assert found == most


def test_packed_rows_are_what_they_were() -> None:
    rows = np.array([[0, 1, -0.0], [np.nan, 0, 2], [0, 0, 0], [3, 4, 5]], np.float32)
    packed, out = Packed(), np.empty((2, 3), np.float32)
    packed.push(rows[:3], rows[:3], positive=False)
    packed.push(rows[3:])
    assert packed.end == 4
    packed.take(out)
    assert out.tobytes() == rows[:2].tobytes()
    packed.copy_to(2, out)
    packed.take(out[:1])
    packed.take(out[1:])
    assert out.tobytes() == rows[2:].tobytes()


def test_packed_rows_begin_again_after_the_last_one() -> None:
    """In pieces of one to four rows, some without any element stored; also what another process gets."""
    x = picture(10, 8) - 128
    x[3:5] = 0
    packed, expected = Packed(2, Arena(), 2), np.where(x > 0, x, 0)
    for first, last in ((0, 1), (1, 3), (3, 5), (5, 9)):
        packed.push(x[first:last], x[first:last])
    packed.push(expected[9:])
    assert packed.end == 12
    packed.take(out := np.empty_like(x[:2]))
    np.testing.assert_array_equal(out, expected[:2])
    left = expected[2:]
    for one in packed, pickle.loads(pickle.dumps(packed)):
        for first in range(4, 25):
            out = np.full((11, 8, 3), np.nan)
            one.copy_to(first, out)
            np.testing.assert_array_equal(out, left.take(range(first - 4, first + 7), axis=0, mode="wrap"))


def test_packed_rows_are_copied_to_arrays_without_gaps() -> None:
    """A copy of another array would be filled, and lost."""
    packed = Packed()
    packed.push(picture(4, 8), picture(4, 8))
    out = np.empty((4, 16, 3))[:, ::2]
    assert "numpy.ascontiguousarray" in error_line(lambda: packed.copy_to(0, out), "unpack: y")


def test_packed_rows_leave_the_arena_as_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npstyle.rows.GROWTH", 4 * 64)
    x, arena, seen = picture(32, 64)[:, :, 0] - 128, Arena(), []
    packed = Packed(0, arena)
    for rows in Rows.growing(x, arena):
        packed.push(rows[packed.end, rows.end], rows[packed.end, rows.end])
    assert packed.end == 32
    assert arena.nbytes < 0.7 * x.nbytes

    def take(out: Array) -> None:
        Packed.take(packed, out)
        arena.trim()  # of what is not borrowed any more
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

    def objective(plan: Any) -> Objective:
        return Objective(VGG19.for_settings(WEIGHTS, PAPER), content, [style], PAPER, plan=plan)

    for plan in (4, -1, True, "2"):
        assert "expected one of 0, 1, 2, 3, 5" in error_line(partial(objective, plan), "plan")
    assert plans.possible_plans(["conv2_1"]) == (0, 1, 5)
    assert plans.possible_plans([]) == (0,)


@pytest.mark.parametrize("name", ["moments", "wrap, moments"])
@pytest.mark.parametrize("convolution", ["auto", "winograd"])
def test_so_they_have_with_the_reference_implementations(
    convolution: Convolution, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kernels, "IMPLEMENTATION", "reference")
    monkeypatch.setattr(_kernels, "_kernels", _kernels.reference)
    for module, size in (("convolution", "MAX_STRIP"), ("winograd", "MAX_STRIP"), ("gram", "STRIP")):
        monkeypatch.setattr(import_module(f"npstyle._kernels.reference.{module}"), size, 100)
    settings = replace(SETTINGS[name], content_layers=("conv2_2",), style_layers=("conv1_1", "conv3_1"))
    assert_same_bits(settings, (33, 19), 2, plans.ALL_BLOCKS, convolution=convolution)


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
import dataclasses, resource, sys
import numpy as np
import npstyle
(H, W, plan), padding = map(int, sys.argv[1:4]), sys.argv[4]
rng = np.random.default_rng(0)
settings = dataclasses.replace(npstyle.preset("paper"), padding=padding)
network = npstyle.VGG19.for_settings(npstyle.load_weights("random", deepest="conv5_1"), settings, threads=2)
start = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
content = rng.integers(0, 255, (H, W, 3), np.uint8).astype(np.float32)
objective = npstyle.Objective(network, content, [content[:64, :64]], settings, plan=plan)
objective(content[::-1])
with open("/proc/self/status") as file:  # ru_maxrss would include the parent's, from before exec
    found = next(line for line in file if line.startswith("VmHWM"))
print(1024 * int(found.split()[1]) - start)
"""


def peak(H: int, W: int, plan: int, padding: Padding) -> float:
    arguments = [sys.executable, "-c", EVALUATION, *map(str, (H, W, plan)), padding]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NPSTYLE_KERNELS": "compiled"}
    ended = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    return float(ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is in /proc on Linux only")
@pytest.mark.parametrize(
    ("plan", "size", "padding"),
    [
        *((plan, (1600, 320), "zero") for plan in (0, *PLANS)),
        *(only_thoroughly(plan, (960, 640), "zero") for plan in (0, 1, 2, 3)),
        (plans.ALL_BLOCKS, (960, 640), "zero"),
        (2, (960, 640), "wrap"),
        *(only_thoroughly(plan, (960, 640), "wrap") for plan in (0, 1, 3, plans.ALL_BLOCKS)),
        *(only_thoroughly(plan, (1600, 320), "wrap") for plan in (0, *PLANS)),
    ],
)
def test_memory_of_an_evaluation_is_what_is_estimated(
    plan: int, size: tuple[int, int], padding: Padding
) -> None:
    libraries = 20e6  # what they grow by in a first evaluation, with two threads: 0 to 60 MB were seen
    settings = replace(PAPER, padding=padding)
    estimated = libraries + memory.objective_bytes(*size, settings, "auto", 2, plan)
    assert peak(*size, plan, padding) == pytest.approx(estimated, rel=0.15)


def test_plans_are_chosen_by_memory() -> None:
    request = Request.read(picture(640, 480).astype(np.uint8), picture(64, 64), settings="paper", size=640)
    needed = {plan: memory.run_memory(request, plan=plan) for plan in (0, *PLANS)}

    def chosen(available: float | None) -> int:
        return memory.choose_plan(lambda plan: needed[plan], available, PAPER.layers)

    assert chosen(None) == chosen(needed[0]) == 0
    assert chosen(needed[0] - 1) == 1
    assert chosen(needed[2]) == 2
    assert needed[chosen(1e6)] == min(needed.values()) == memory.least_memory(request)


def test_time_of_plans_is_said() -> None:
    """Where the padding wraps, rows around the picture are computed as well."""
    assert memory.plan_in_words(0, "wrap", 500) == ""
    assert memory.plan_in_words(2, "zero", 500) == "blocks 1 to 2 in strips, about 1.2 times the time"
    assert memory.plan_in_words(5, "wrap", 500) == "all blocks in strips, about 4.4 times the time"


@pytest.mark.parametrize(
    ("words", "expected"),
    [("8GB", 8e9), ("500 MB", 5e8), ("1.5g", 1.5e9), ("2GiB", 2**31), (1e9, 1e9), ("64000k", 64e6)],
)
def test_sizes_in_words(words: Any, expected: float) -> None:
    assert memory.as_bytes(words) == expected


@pytest.mark.parametrize("words", ["much", "-1GB", "0", "8 giga", "", None])
def test_sizes_that_are_none(words: Any) -> None:
    error_line(lambda: memory.as_bytes(words), "memory")


@pytest.mark.parametrize("padding", ["replicate", "wrap"])
@pytest.mark.filterwarnings("ignore:padding")  # of a size that leaves a seam
def test_stylize_has_the_same_bits_in_any_memory(padding: Padding) -> None:
    pictures = picture(60, 44), picture(40, 40, 1)
    settings = replace(preset("default"), iterations=2, min_size=0, padding=padding)
    results = [
        stylize(*pictures, settings=settings, weights=WEIGHTS, threads=1, memory=amount)
        for amount in (None, "1MB")
    ]
    np.testing.assert_array_equal(results[0].pixels, results[1].pixels)
    assert results[0].losses == results[1].losses
