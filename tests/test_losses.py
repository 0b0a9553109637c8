"""Each loss: values by hand, zero at the minimum, its derivative, several dtypes and layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import normal, picture
from npstyle._runtime import chunks
from npstyle._typing import TotalVariationForm
from npstyle.gradcheck import adjoint, directional
from npstyle.losses import (
    ELEMENTS_PER_SUM,
    content_loss,
    gram_matrix,
    guided_style_loss,
    style_loss,
    sum_of_squares,
)
from npstyle.pixel_losses import (
    RunningSum,
    edge_map,
    edge_map_backward,
    edges_loss,
    laplacian,
    total_variation,
)
from tolerances import ADJOINT, DIRECTIONAL, SAME

Array = NDArray[Any]
Loss = Callable[[Array], tuple[float, Array]]


P = normal(5, 7, 6, seed=1)
EDGE_SCALES = {1: 0.7, 2: 1.9}  # by size of cell; 2 leaves a row and a column of 5 x 7 over
T = np.random.default_rng(4).uniform(0, 1, (5, 7)) * (np.arange(7) > 2)
A_MEAN = gram_matrix(normal(9, 4, 6, seed=2)) / 36

LOSSES: dict[str, Loss] = {
    "content": lambda F: content_loss(F, P, 0.3),
    "style": lambda F: style_loss(F, A_MEAN, 0.7),
    "guided style": lambda F: guided_style_loss(F, T.astype(F.dtype), A_MEAN, 0.7),
    "total variation": lambda F: total_variation(F, 1.7),
    "total variation, sum-squares": lambda F: total_variation(F, 1.7, "sum-squares"),
    "total variation, power-1.25": lambda F: total_variation(F, 1.7, "power-1.25"),
    "total variation, nine-point": lambda F: total_variation(F, 1.7, "nine-point"),
    "total variation, wrap": lambda F: total_variation(F, 1.7, wrap=True),
    "total variation, sum-squares, wrap": lambda F: total_variation(F, 1.7, "sum-squares", wrap=True),
    "total variation, power-1.25, wrap": lambda F: total_variation(F, 1.7, "power-1.25", wrap=True),
    "total variation, nine-point, wrap": lambda F: total_variation(F, 1.7, "nine-point", wrap=True),
    "edges": lambda F: edges_loss(F, P, EDGE_SCALES),
    "edges, wrap": lambda F: edges_loss(F, P, EDGE_SCALES, wrap=True),
}


@pytest.mark.parametrize("name", LOSSES)
def test_directional_derivative(name: str) -> None:
    loss, F = LOSSES[name], normal(5, 7, 6)
    assert directional(lambda F: loss(F)[0], lambda v: v * loss(F)[1], F).error < DIRECTIONAL


@pytest.mark.parametrize("name", LOSSES)
def test_float32_agrees_with_float64_and_keeps_its_dtype(name: str) -> None:
    loss, F = LOSSES[name], normal(5, 7, 6)
    value, gradient = loss(F)
    P32 = P.astype(np.float32)
    single = F.astype(np.float32)
    value32, gradient32 = content_loss(single, P32, 0.3) if name == "content" else loss(single)
    assert isinstance(value32, float)
    assert gradient32.dtype == np.float32
    tolerance = SAME[gradient32.dtype]
    assert value32 == pytest.approx(value, rel=tolerance)
    np.testing.assert_allclose(gradient32, gradient, atol=tolerance * np.abs(gradient).max())


@pytest.mark.parametrize("name", LOSSES)
def test_argument_is_not_modified(name: str) -> None:
    F = normal(5, 7, 6)
    F.flags.writeable = False
    LOSSES[name](F)


def test_content_loss_by_hand() -> None:
    F, target = np.array([[[1.0, 2.0]]]), np.array([[[0.0, 4.0]]])
    value, dF = content_loss(F, target)
    assert value == 2.5  # (1 + 4) / 2
    np.testing.assert_array_equal(dF, [[[1, -2]]])


def test_gram_matrix_by_hand() -> None:
    F = np.array([[[1.0, 2.0], [3.0, 4.0]]])  # two positions, two channels
    np.testing.assert_array_equal(gram_matrix(F), [[10, 14], [14, 20]])


def test_style_loss_by_hand() -> None:
    F = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    value, dF = style_loss(F, np.array([[5.0, 7.0], [7.0, 9.0]]))
    assert value == 1  # G / 2 is [[5, 7], [7, 10]]
    np.testing.assert_array_equal(dF, [[[0, 4], [0, 8]]])  # 4 / 2 . F [[0, 0], [0, 1]]


def test_style_loss_is_equation_4_for_pictures_of_one_size() -> None:
    F, Fa = normal(6, 5, 4), normal(6, 5, 4, seed=3)
    M, C = 30, 4
    G, A = gram_matrix(F), gram_matrix(Fa)
    value, dF = style_loss(F, A / M, 1 / (4 * C**2))
    assert value == pytest.approx(np.square(G - A).sum() / (4 * C**2 * M**2), rel=1e-12)
    expected = (F.reshape(M, C) @ (G - A)).reshape(F.shape) / (C**2 * M**2)
    np.testing.assert_allclose(dF, expected, rtol=1e-10)


def test_total_variation_by_hand() -> None:
    x = np.array([[0.0, 1.0], [0.0, 3.0]]).reshape(2, 2, 1)
    value, dx = total_variation(x)
    assert value == (0 + 4) / 2 + (1 + 9) / 2
    np.testing.assert_array_equal(dx[:, :, 0], [[-1, 1 - 2], [-3, 3 + 2]])


def test_total_variation_over_pixels_with_both_neighbors_by_hand() -> None:
    x = np.array([[0.0, 4.0], [3.0, 9.0]]).reshape(2, 2, 1)  # d = 3, e = 4 at the first pixel, the only one
    value, dx = total_variation(x, 2.0, "sum-squares")
    assert value == 25
    np.testing.assert_array_equal(dx[:, :, 0], [[-14, 8], [6, 0]])
    value, dx = total_variation(x, 2.0, "power-1.25")
    assert value == pytest.approx(2 * 25**1.25)
    slope = 2 * 1.25 * 25**0.25
    np.testing.assert_allclose(dx[:, :, 0], slope * np.array([[-14, 8], [6, 0]]), rtol=1e-12)


def test_guided_style_loss_is_that_of_the_positions_inside() -> None:
    F, inside = normal(5, 7, 6), np.zeros((5, 7))
    inside[1:4, 2:6] = 1
    value, dF = guided_style_loss(F, inside, A_MEAN, 0.7)
    expected, d_inside = style_loss(F[1:4, 2:6], A_MEAN, 0.7)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(dF[1:4, 2:6], d_inside, rtol=1e-9, atol=1e-15)
    assert not (dF * (1 - inside[:, :, None])).any()


def test_total_variation_with_nine_points_by_hand() -> None:
    """Two pixels, 0 and 6: one step to the right of 6, and diagonal steps of 6 above, below and between."""
    x = np.array([[0.0, 6.0]]).reshape(1, 2, 1)
    value, dx = total_variation(x, 1.0, "nine-point")
    straight, diagonal = 36 / 2, 2 * 36 / 6  # of 1 x 2 pixels, and of 2 x 3 cells
    assert value == pytest.approx(2 / 3 * straight + 2 * diagonal / 6)
    np.testing.assert_allclose(dx.ravel(), np.array([-1, 1]) * 2 * value / 6)


def test_no_loss_and_no_gradient_at_the_minimum() -> None:
    for value, gradient in (
        content_loss(P, P),
        style_loss(P, gram_matrix(P) / 35),
        total_variation(np.full((4, 4, 3), 9.0)),
        edges_loss(P, P, EDGE_SCALES),
    ):
        assert value == 0
        assert not gradient.any()


def test_gradient_is_written_to_out() -> None:
    F, out = normal(5, 7, 6), np.empty((5, 7, 6))
    for loss, target in ((content_loss, P), (style_loss, A_MEAN)):
        value, gradient = loss(F, target, 2.0, out=out)
        again, expected = loss(F, target, 2.0)
        assert gradient is out
        assert value == again
        np.testing.assert_array_equal(gradient, expected)


def test_sums_are_accumulated_in_float64() -> None:
    """In float32, adding 1 to 2^24 changes nothing."""
    F = np.zeros((2, 1000, 1000), np.float32)
    F[0, 0, 0] = 2**12
    F[1] = 1
    value, _ = content_loss(F, np.zeros_like(F), scale=2)
    assert value == 2**24 + 1e6


def test_feature_map_may_be_non_contiguous() -> None:
    F = normal(7, 5, 6).transpose(1, 0, 2)
    value, dF = style_loss(F, A_MEAN)
    expected_value, expected = style_loss(np.ascontiguousarray(F), A_MEAN)
    assert value == expected_value
    np.testing.assert_array_equal(dF, expected)


def test_total_variation_of_a_single_row() -> None:
    value, dx = total_variation(np.array([[[1.0], [4.0]]]))
    assert value == 9
    np.testing.assert_array_equal(dx.ravel(), [-6, 6])


def test_laplacian_by_hand() -> None:
    u = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(laplacian(u), [[-1, 3, -1], [0, -1, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(laplacian(u, wrap=True), [[-1, 4, -1], [0, -1, 0], [0, 0, 0], [0, -1, 0]])


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("p", [1, 4, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edge_map_has_the_exact_adjoint(p: int, dtype: type, wrap: bool) -> None:
    x = normal(37, 50, 3, dtype=dtype)
    assert edge_map(x, p, wrap).shape == (37 // p, 50 // p)
    compared = adjoint(lambda x: edge_map(x, p, wrap), lambda v: edge_map_backward(v, p, x.shape, wrap), x)
    assert compared.error < ADJOINT[np.dtype(dtype)]


@pytest.mark.parametrize("wrap", [False, True])
def test_edges_loss_is_quadratic(wrap: bool) -> None:
    """L = 1/2 <x - c, dL/dx>, and central differences are exact for any step."""
    x, c, d = normal(37, 50, 3), normal(37, 50, 3, seed=1), normal(37, 50, 3, seed=2)
    scales = {4: 0.7, 16: 1.9}
    value, dx = edges_loss(x, c, scales, wrap)
    assert value == pytest.approx(np.vdot(x - c, dx) / 2, rel=1e-12)
    plus, minus = (edges_loss(x + step * d, c, scales, wrap)[0] for step in (3, -3))
    assert (plus - minus) / 6 == pytest.approx(np.vdot(d, dx), rel=1e-11)


CONTENT = np.random.default_rng(3).integers(0, 256, (167, 151, 3), np.uint8)
OF_PIXELS = [(form, wrap) for form in (*get_args(TotalVariationForm), "edges") for wrap in (False, True)]


def of_pixels(form: Any, wrap: bool, x: Array, accumulate_into: Array | None = None) -> tuple[float, Array]:
    if form == "edges":
        return edges_loss(x, CONTENT, {4: 0.7, 16: 1.9}, wrap, accumulate_into)
    return total_variation(x, 1.7, form, wrap, accumulate_into)


@pytest.mark.parametrize(("form", "wrap"), OF_PIXELS)
def test_losses_of_pixels_have_the_same_bits_in_chunks_of_any_height(
    form: str, wrap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More elements than are added up at a time, and a part of a cell below and at the right."""
    x = picture(167, 151, dtype=np.float32)
    value, dx = of_pixels(form, wrap, x)
    for elements in (1, 16 * 3 * 151, 10_000):
        monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", elements)
        in_chunks, dx_in_chunks = of_pixels(form, wrap, x)
        assert in_chunks == value
        np.testing.assert_array_equal(dx_in_chunks, dx)


@pytest.mark.parametrize(("form", "wrap"), OF_PIXELS)
def test_gradients_of_pixels_are_accumulated(form: str, wrap: bool) -> None:
    x, before = picture(167, 151), normal(*CONTENT.shape)
    into = before.copy()
    value, dx = of_pixels(form, wrap, x, into)
    assert dx is into
    expected, gradient = of_pixels(form, wrap, x)
    assert value == expected
    np.testing.assert_array_equal(dx, before + gradient)


@pytest.mark.parametrize("sizes", [[], [3], [ELEMENTS_PER_SUM], [70_000, 1, 65_535, 200_000, 7]])
def test_running_sum_is_that_of_all_elements(sizes: list[int]) -> None:
    parts = [normal(size, seed=n, dtype=np.float32) for n, size in enumerate(sizes)]
    running = RunningSum()
    for part in parts:
        running.add(np.square(part))
    assert running.total == sum_of_squares(np.concatenate([np.empty(0, np.float32), *parts]))


def test_edges_loss_sees_neither_brightness_nor_a_single_cell() -> None:
    x = normal(16, 20, 3)
    assert edges_loss(x + 7, x, {4: 1.0})[0] < 1e-20  # another brightness everywhere
    assert edges_loss(2 * x, x, {16: 1.0})[0] == 0  # 1 x 1 cells: no neighbors, no edges


@pytest.mark.parametrize("loss", ["edges", "mean-squares", "sum-squares", "power-1.25"])
def test_wrapped_losses_do_not_know_where_a_picture_begins(loss: str) -> None:
    x, c = normal(32, 48, 3), normal(32, 48, 3, seed=1)

    def evaluate(x: Array, c: Array, wrap: bool) -> tuple[float, Array]:
        if loss == "edges":
            return edges_loss(x, c, {4: 0.7, 16: 1.9}, wrap)
        form: Any = loss
        return total_variation(x, 1.7, form, wrap)

    def rolled(array: Array) -> Array:
        return np.roll(array, (16, -32), axis=(0, 1))

    value, dx = evaluate(x, c, True)
    value_rolled, dx_rolled = evaluate(rolled(x), rolled(c), True)
    assert value_rolled == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(dx_rolled, rolled(dx), atol=1e-12)
    assert evaluate(rolled(x), rolled(c), False)[0] != pytest.approx(evaluate(x, c, False)[0], rel=1e-4)
