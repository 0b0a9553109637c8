"""Style losses of moments and of Gaussians: formulas, derivatives, regions, and channels without variance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from helpers import normal
from npstyle import statistics
from npstyle.gradcheck import directional
from npstyle.losses import guided_style_loss, style_loss
from npstyle.statistics import (
    REGULARIZATION,
    Gaussian,
    Moments,
    Transport,
    blended,
    feature_sums,
    gaussian,
    moments,
    moments_loss,
    wasserstein_loss,
)
from tolerances import DIRECTIONAL, SAME

Array = NDArray[Any]
C = 6
SOFT = np.random.default_rng(4).uniform(0, 1, (5, 7)) * (np.arange(7) > 2)


def rectified(H: int, W: int, seed: int = 0, channels: int = C) -> Array:
    """A feature map after a ReLU, whose first channel is silent."""
    F: Array = np.maximum(normal(H, W, channels, seed=seed) + 1, 0)
    F[:, :, 0] = 0
    return F


STYLE = rectified(9, 4, seed=2)
TARGET = moments(STYLE)
Loss = Callable[[Array, Array | None], tuple[float, Array]]
LOSSES: dict[str, Loss] = {
    "moments": lambda F, T: moments_loss(F, 2 * TARGET.second, TARGET, 0.7, 0.3, T),
    "wasserstein": lambda F, T: wasserstein_loss(F, Transport(gaussian(STYLE)), 0.7, T),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def reference_moments_loss(F: Array, A: Array, target: Moments) -> tuple[float, Array]:
    """In plain NumPy, by the formulas of docs/losses.md."""
    f = F.reshape(-1, C)
    mu, sigma, D = f.mean(axis=0), f.std(axis=0), f.T @ f / len(f) - A
    differences = mu - target.mean, sigma - target.std
    value = 0.7 * np.square(D).sum() + 0.3 * sum(np.square(d).sum() for d in differences)
    ratio = np.divide(differences[1], sigma, out=np.zeros(C), where=sigma > 0)
    gradient = 0.7 * 4 * f @ D + 0.3 * 2 * (differences[0] + ratio * (f - mu))
    return float(value), np.asarray(gradient / len(f)).reshape(F.shape)


def reference_wasserstein_loss(F: Array, target: Gaussian) -> tuple[float, Array]:
    f, eye = F.reshape(-1, C), np.eye(C)
    mu = f.mean(axis=0)
    Sigma, Sigma_s = (S + REGULARIZATION * eye for S in (np.cov(f.T, bias=True), target.covariance))
    R = scipy.linalg.sqrtm(Sigma_s).real
    root = scipy.linalg.sqrtm(R @ Sigma @ R).real
    value = np.square(mu - target.mean).sum() + np.trace(Sigma + Sigma_s - 2 * root)
    transport_map = R @ np.linalg.inv(root) @ R
    gradient = 2 / len(f) * ((f - mu) @ (eye - transport_map) + mu - target.mean)
    return float(0.7 * value), 0.7 * gradient.reshape(F.shape)


REFERENCES: dict[str, Callable[[Array], tuple[float, Array]]] = {
    "moments": lambda F: reference_moments_loss(F, 2 * TARGET.second, TARGET),
    "wasserstein": lambda F: reference_wasserstein_loss(F, gaussian(STYLE)),
}


@every_loss
@pytest.mark.parametrize(("H", "W"), [(5, 7), (2, 2), (40, 31)])
def test_value_and_gradient_are_those_of_the_reference(name: str, H: int, W: int) -> None:
    F = rectified(H, W)
    value, gradient = LOSSES[name](F, None)
    expected_value, expected = REFERENCES[name](F)
    assert value == pytest.approx(expected_value, rel=1e-8)
    np.testing.assert_allclose(gradient, expected, atol=1e-7 * np.abs(expected).max())


def derivative_error(loss: Callable[[Array], tuple[float, Array]], F: Array) -> float:
    """In directions that leave silent channels silent; they have no derivative of their own."""
    fires = F.any(axis=(0, 1))
    return directional(lambda F: loss(F * fires)[0], lambda v: v * fires * loss(F)[1], F).error


@every_loss
@pytest.mark.parametrize("T", [None, SOFT], ids=["whole", "region"])
def test_directional_derivative(name: str, T: Array | None) -> None:
    assert derivative_error(lambda F: LOSSES[name](F, T), rectified(5, 7)) < DIRECTIONAL


@every_loss
def test_directional_derivative_with_fewer_positions_than_channels(name: str) -> None:
    assert derivative_error(lambda F: LOSSES[name](F, None), rectified(2, 2)) < DIRECTIONAL


@pytest.mark.parametrize("T", [None, np.array([[0.5, 1.0, 0.0]])], ids=["whole", "region"])
def test_few_vectors_are_compared_in_the_dimensions_they_have(T: Array | None) -> None:
    """The same as in all dimensions, where most variances are the regularization."""
    F, style = rectified(1, 3, channels=40), rectified(2, 2, 1, channels=40)
    (value, gradient), (expected_value, expected) = (
        wasserstein_loss(F, Transport(gaussian(style), vectors=vectors), 0.7, T) for vectors in (4, None)
    )
    assert value == pytest.approx(expected_value, rel=1e-9)
    np.testing.assert_allclose(gradient, expected, atol=1e-7 * np.abs(expected).max())
    reduced = Transport(gaussian(style), vectors=4)
    assert derivative_error(lambda F: wasserstein_loss(F, reduced, 0.7, T), F) < DIRECTIONAL


FEW = rectified(2, 2, 1, channels=40)  # 4 vectors, which span 3 dimensions around their mean


@pytest.mark.parametrize(("H", "W"), [(1, 3), (8, 9)])
@pytest.mark.parametrize("T", [None, "soft"], ids=["whole", "region"])
def test_axes_without_variance_may_be_left_out(H: int, W: int, T: str | None) -> None:
    F, mask = rectified(H, W, channels=40), None if T is None else np.linspace(0.1, 1, H * W).reshape(H, W)
    fewer = Transport(gaussian(FEW), 1e-9, least_variance=1e-3)
    value, gradient = wasserstein_loss(F, fewer, 0.7, mask)
    expected_value, expected = wasserstein_loss(F, Transport(gaussian(FEW), 1e-9), 0.7, mask)
    assert fewer.axes.shape == (40, 3)
    assert value == pytest.approx(expected_value, rel=1e-3)
    np.testing.assert_allclose(gradient, expected, atol=1e-2 * np.abs(expected).max())
    assert derivative_error(lambda F: wasserstein_loss(F, fewer, 0.7, mask), F) < DIRECTIONAL


@pytest.mark.parametrize("axes", [1, 3, 5])
def test_target_is_isotropic_in_the_complement_of_its_axes(axes: int) -> None:
    """Where it is one, and the other is, too, distance and map are those with all axes."""
    large, rotation = 2.0 + np.arange(axes), np.linalg.qr(normal(C, C))[0]
    target, other = (
        Gaussian(normal(C, seed=seed), rotation * np.append(np.full(C - axes, small), along) @ rotation.T)
        for seed, small, along in ((1, 0.5, large), (2, 0.3, large[::-1]))
    )
    fewer, whole = Transport(target, least_variance=1.0), Transport(target)
    assert fewer.axes.shape == (C, axes)
    (distance, transport_map), (expected, expected_map) = (t.distance_and_map(other) for t in (fewer, whole))
    assert distance == pytest.approx(expected, rel=1e-12)
    assert fewer.distance(other) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(transport_map, expected_map, atol=1e-10)


@pytest.mark.parametrize("least_variance", [1e-3, 3.0, 1e6])
def test_target_is_at_no_distance_from_itself_whatever_axes_are_left_out(least_variance: float) -> None:
    style = gaussian(STYLE)
    fewer = Transport(style, least_variance=least_variance)
    distance, transport_map = fewer.distance_and_map(style)
    assert distance == pytest.approx(0, abs=1e-10)
    if least_variance < 1e6:  # else along none of the axes, and only as large as the isotropic part
        np.testing.assert_allclose(transport_map, np.eye(C), atol=1e-6)


def test_style_of_one_color_has_no_axes() -> None:
    """Transport moves everything to next to its mean."""
    F, mean = rectified(3, 4), np.arange(float(C))
    flat = Transport(Gaussian(mean, np.zeros((C, C))), 1e-12, vectors=9, least_variance=1e-6)
    value, gradient = wasserstein_loss(F, flat)
    assert flat.axes.shape == (C, 0)
    assert value == pytest.approx(float(np.mean(np.sum(np.square(F - mean), axis=2))), rel=1e-5)
    np.testing.assert_allclose(gradient, 2 / 12 * (F - mean), atol=1e-5)


def test_few_vectors_have_a_smaller_eigendecomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    eigh = np.linalg.eigh
    target, flat = (Transport(gaussian(FEW), vectors=4, least_variance=least) for least in (0, 1e-6))

    def recorded(K: Array, UPLO: Any) -> Any:
        sizes.append(len(K))
        return eigh(K, UPLO)

    monkeypatch.setattr(np.linalg, "eigh", recorded)
    for H, W in ((1, 3), (8, 9)):
        wasserstein_loss(rectified(H, W, channels=40), target)
    assert sizes == [7, 40]
    sizes.clear()
    wasserstein_loss(rectified(8, 9, channels=40), flat)
    assert sizes == [3]


@every_loss
def test_float32_agrees_with_float64_and_keeps_its_dtype(name: str) -> None:
    F = rectified(30, 40)
    value, gradient = LOSSES[name](F, None)
    value32, gradient32 = LOSSES[name](F.astype(np.float32), None)
    assert isinstance(value32, float)
    assert gradient32.dtype == np.float32
    assert value32 == pytest.approx(value, rel=SAME[gradient32.dtype])
    np.testing.assert_allclose(gradient32, gradient, atol=SAME[gradient32.dtype] * np.abs(gradient).max())


@every_loss
def test_gradient_is_written_to_out_and_the_argument_kept(name: str) -> None:
    F = rectified(5, 7)
    F.flags.writeable = False
    out = np.empty_like(F)
    target = Transport(gaussian(STYLE))
    value, gradient = (
        moments_loss(F, TARGET.second, TARGET, out=out)
        if name == "moments"
        else wasserstein_loss(F, target, out=out)
    )
    assert gradient is out
    assert np.isfinite(out).all()
    assert value > 0


@every_loss
def test_region_is_its_positions(name: str) -> None:
    F, inside = rectified(5, 7), np.zeros((5, 7))
    inside[1:4, 2:6] = 1
    value, gradient = LOSSES[name](F, inside)
    expected_value, expected = LOSSES[name](np.ascontiguousarray(F[1:4, 2:6]), None)
    assert value == pytest.approx(expected_value, rel=1e-9)
    np.testing.assert_allclose(gradient[1:4, 2:6], expected, atol=1e-9 * np.abs(expected).max())
    assert not (gradient * (1 - inside[:, :, None])).any()


def test_weights_of_positions_are_the_squares_of_the_mask() -> None:
    """As of the guided Gram matrix: half a T counts as a quarter of a position."""
    F = normal(1, 3, C)
    found = moments(F, np.array([[1.0, 0.5, 0.0]]))
    f = F[0]
    np.testing.assert_allclose(found.mean, (f[0] + f[1] / 4) / 1.25)
    np.testing.assert_allclose(found.second, (np.outer(f[0], f[0]) + np.outer(f[1], f[1]) / 4) / 1.25)


@every_loss
def test_no_loss_at_the_style_itself(name: str) -> None:
    value, gradient = (
        moments_loss(STYLE, TARGET.second, TARGET)
        if name == "moments"
        else wasserstein_loss(STYLE, Transport(gaussian(STYLE)))
    )
    assert value == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_without_moments_it_is_the_style_loss() -> None:
    F = rectified(5, 7)
    for T in (None, SOFT):
        value, gradient = moments_loss(F, TARGET.second, TARGET, 0.7, 0.0, T)
        expected_value, expected = (
            style_loss(F, TARGET.second, 0.7) if T is None else guided_style_loss(F, T, TARGET.second, 0.7)
        )
        assert value == pytest.approx(expected_value, rel=1e-12)
        np.testing.assert_allclose(gradient, expected, atol=1e-12 * np.abs(expected).max())


@every_loss
def test_channel_that_does_not_vary(name: str) -> None:
    """Constant, where the style's varies: no division by zero."""
    F = rectified(5, 7)
    F[:, :, 2] = 3
    value, gradient = LOSSES[name](F, None)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    value, gradient = LOSSES[name](np.zeros((5, 7, C)), None)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@every_loss
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_diverged_features_have_no_finite_loss(name: str, number: float) -> None:
    """So that a run ends with its last good picture, and not in LAPACK."""
    F = rectified(5, 7)
    F[1, 2, 3] = number
    with np.errstate(invalid="ignore", over="ignore"):
        assert not np.isfinite(LOSSES[name](F, None)[0])


def test_moments_by_hand() -> None:
    found = moments(np.array([[[1.0, 2.0], [3.0, 2.0]]]))
    np.testing.assert_array_equal(found.mean, [2, 2])
    np.testing.assert_array_equal(found.second, [[5, 4], [4, 4]])
    np.testing.assert_array_equal(found.std, [1, 0])
    np.testing.assert_array_equal(found.covariance, [[1, 0], [0, 0]])
    assert found.size == 9
    assert moments(np.zeros((2, 2, 3))).size == 3


def test_blend_has_the_covariance_of_all_vectors_together() -> None:
    one, two = normal(2, 6, C), 3 + normal(3, 2, C, seed=1)
    found = blended([(feature_sums(one), 2 / 3), (feature_sums(two), 1 / 3)])
    together = np.concatenate([one.reshape(-1, C), two.reshape(-1, C)])
    np.testing.assert_allclose(found.mean, together.mean(axis=0))
    np.testing.assert_allclose(found.covariance, np.cov(together.T, bias=True))


def test_transport_map_leads_to_the_target() -> None:
    other, target = (gaussian(normal(8, 5, C, seed=seed) @ normal(C, C, seed=seed)) for seed in (0, 1))
    _, transport_map = Transport(target).distance_and_map(other)
    Sigma, Sigma_s = (g.covariance + REGULARIZATION * np.eye(C) for g in (other, target))
    np.testing.assert_allclose(transport_map @ Sigma @ transport_map, Sigma_s, rtol=1e-8)
    np.testing.assert_allclose(transport_map, transport_map.T, rtol=1e-12)
    assert np.linalg.eigvalsh(transport_map).min() > 0
    _, back = Transport(other).distance_and_map(target)
    np.testing.assert_allclose(back @ transport_map, np.eye(C), atol=1e-7)


def test_distance_with_and_without_the_map_agree() -> None:
    other, target = (gaussian(normal(8, 5, C, seed=seed)) for seed in (0, 1))
    transport = Transport(target)
    assert transport.distance(other) == pytest.approx(transport.distance_and_map(other)[0], rel=1e-12)


def test_forgetting_the_mean_in_the_covariance_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "mean_in_covariance", lambda dSigma, mu: np.zeros_like(mu))
    for loss in LOSSES.values():
        assert derivative_error(lambda F, loss=loss: loss(F, None), rectified(5, 7)) > 1e-3  # type: ignore[misc]
