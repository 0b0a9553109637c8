"""What a layer's style is taken for, `Settings.statistics`: Gram matrix, moments, or a Gaussian to move onto.

Notation as in `npstyle.losses`; mu (C,) is the mean of the M feature vectors, S = F'F / M (C, C) their mean
Gram matrix, Sigma = S - mu mu' their covariance, and the index s the style picture's. A prime transposes.

All losses go through mu and S, which add up over styles and regions. A loss of them gives dS and dmu, its
derivatives with respect to S and mu; that with respect to F is (F (dS + dS') + 1 dmu') / M, where 1 dmu' adds
dmu to every row. Derivations: docs/losses.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from npstyle import _kernels
from npstyle._runtime.arena import Arena
from npstyle._runtime.threads import one_blas_thread
from npstyle._typing import Array, Double
from npstyle.losses import gram_distance, guided_style_loss, style_loss, sum_of_squares

# Added to the variances, so that no direction is without any; feature maps of trained filters have mean
# squares of 10^3 to 10^5 (0.3 to 30 with torchvision's filters).
REGULARIZATION = 1e-4
# Of the mean square of the style's activations, with relative scaling: in the orthogonal complement of the
# axes with more variance the style counts as isotropic. There is up to 0.3 % of its variance; of conv4_1's
# dimensions those are a third at 256 pixels, an eighth at 512, and all but 40 at 64 (docs/losses.md).
LEAST_VARIANCE = 1e-2
# Up to this fraction of the dimensions, it is faster to look for those in which there is any variance.
MAX_SUBSPACE = 0.75


class Sums(NamedTuple):
    """Sums over the positions of a feature map F, or of a region R = T F of it, which add up over strips.

    Attributes
    ----------
    gram : (C, C) array
        R'R.
    total : (C,) array
        R'T: the sum of f T^2.
    positions : float
        The sum of T^2: M = H W without a mask.
    vectors : int
        How many they are sums of. There are no more dimensions than that.
    """

    gram: Double
    total: Double
    positions: float
    vectors: int


class Moments(NamedTuple):
    """Mean mu (C,) and mean Gram matrix S (C, C) of feature vectors: their first and second moments."""

    mean: Double
    second: Double

    @property
    def std(self) -> Double:
        """Standard deviation of each channel (C,)."""
        return np.sqrt(np.maximum(np.diag(self.second) - np.square(self.mean), 0))

    @property
    def covariance(self) -> Double:
        """Sigma = S - mu mu' (C, C)."""
        return self.second - np.outer(self.mean, self.mean)

    @property
    def size(self) -> float:
        """tr S = |mu|^2 + |sigma|^2, the mean square of a feature vector; where it is 0, C."""
        return float(np.trace(self.second)) or float(len(self.mean))


class Gaussian(NamedTuple):
    """Mean (C,) and covariance (C, C) of a layer's feature vectors."""

    mean: Double
    covariance: Double


class Derivatives(NamedTuple):
    """A loss, and its derivatives with respect to the moments: dS (C, C) and dmu (C,)."""

    value: float
    second: Double
    mean: Double


# ------------------------------------------------------------------------------------------------
# Moments and back
# ------------------------------------------------------------------------------------------------


def feature_sums(F: Array, T: Array | None = None, threads: int | None = None) -> Sums:
    """The sums of F (H, W, C); with a guidance mask T (H, W), those of a region (docs/losses.md#regions)."""
    R, arena = _region(F, T), Arena()
    return _sums(R, T, threads, arena, _workspace(R, threads, arena))


def _region(F: Array, T: Array | None) -> Array:
    return F if T is None else F * T[:, :, None]


def _workspace(R: Array, threads: int | None, arena: Arena) -> Array:
    H, W, C = R.shape
    return arena.borrow((_kernels.gram_workspace(H * W, C, R.itemsize, threads),), R.dtype)


def _sums(R: Array, T: Array | None, threads: int | None, arena: Arena, workspace: Array) -> Sums:
    H, W, C = R.shape
    G, total = arena.borrow((C, C), np.float64), np.empty(C)
    _kernels.gram(R.reshape(-1, C), G, workspace, threads, total)
    if T is None:
        return Sums(G, total, float(H * W), H * W)
    total = masked_total(np.zeros(C), R.reshape(-1, C), T.reshape(-1), _kernels.gram_rows_per_sum(H * W))
    return Sums(G, total, sum_of_squares(T), int(np.count_nonzero(T)))


def masked_total(total: Double, r: Array, t: Array, rows: int) -> Double:
    """R'T added to a total: sums of so many rows of r (M, C) each, one after the other, as in `gram`."""
    weighted, whole = r * t[:, None], len(r) // rows * rows
    for one in weighted[:whole].reshape(-1, rows, r.shape[1]).sum(axis=1, dtype=np.float64):
        total += one
    if whole < len(r):
        total += weighted[whole:].sum(axis=0, dtype=np.float64)
    return total


def moments(F: Array, T: Array | None = None, threads: int | None = None) -> Moments:
    """Mean and mean Gram matrix of the feature vectors of F (H, W, C), or of a region of it."""
    return blended([(feature_sums(F, T, threads), 1.0)])


def blended(weighted: Sequence[tuple[Sums, float]]) -> Moments:
    """The moments of a mixture of styles, whose weights sum to 1.

    It is mu and S that are averaged, not Sigma: S - mu mu' then is the covariance of all feature vectors of
    the mixture together, which also spread because the styles' means differ.
    """
    mean = np.sum([sums.total / sums.positions * weight for sums, weight in weighted], axis=0)
    second = np.sum([sums.gram / sums.positions * weight for sums, weight in weighted], axis=0)
    return Moments(mean, second)


def gaussian(F: Array, threads: int | None = None) -> Gaussian:
    """Mean and covariance of the feature vectors of F (H, W, C)."""
    found = moments(F, threads=threads)
    return Gaussian(found.mean, found.covariance)


class Vectors(NamedTuple):
    """The feature vectors r (M, C) of a picture, or of a region, where each is multiplied by its T (M,)."""

    r: Array
    T: Array | None

    def centered(self, mu: Double) -> Double:
        """X (M, C), in float64, with the covariance X'X: T (f - mu), divided by the root of sum T^2."""
        T = np.ones(len(self.r)) if self.T is None else self.T.astype(np.float64)
        return np.asarray((self.r - np.outer(T, mu)) / np.sqrt(sum_of_squares(T)))


def loss_of_moments(
    compare: Callable[[Moments, Vectors], Derivatives],
    F: Array,
    T: Array | None = None,
    threads: int | None = None,
    out: Array | None = None,
    arena: Arena | None = None,
) -> tuple[float, Array]:
    """A loss of the moments of F, or of a region of it, and its gradient with respect to F.

    With R = T F the gradient is T (R (dS + dS') + T dmu') / M, M = sum T^2: each position's vector is
    multiplied by T in the forward pass, and its gradient in the backward pass.
    """
    arena = arena or Arena()
    R = _region(F, T)
    r = R.reshape(-1, F.shape[2])
    workspace = _workspace(R, threads, arena)
    sums = _sums(R, T, threads, arena, workspace)
    M = sums.positions
    found = Moments(sums.total / M, np.divide(sums.gram, M, out=sums.gram))
    value, dS, dmu = compare(found, Vectors(r, None if T is None else T.reshape(-1)))
    dF = np.empty(F.shape, F.dtype) if out is None else out
    row = None if T is not None else dmu / M
    _kernels.gram_backward(r, dS / M, dF.reshape(r.shape), workspace, threads, row)
    if T is not None:
        dF += T[:, :, None] * (dmu / M).astype(F.dtype)
        dF *= T[:, :, None]
    arena.release(workspace)
    arena.release(sums.gram)
    return value, dF


def mean_in_covariance(dSigma: Double, mu: Double) -> Double:
    """What Sigma = S - mu mu' adds to dmu: -(dSigma + dSigma') mu, as mu occurs in it twice.

    The other part of the derivative is dS = dSigma.
    """
    return np.asarray(-np.sum((dSigma + dSigma.T) * mu, axis=1))  # without BLAS, whose bits depend on threads


# ------------------------------------------------------------------------------------------------
# Gram matrix, means and standard deviations
# ------------------------------------------------------------------------------------------------


def moments_loss(
    F: Array,
    A_mean: Double,
    target: Moments,
    scale: float = 1.0,
    moments_scale: float = 1.0,
    T: Array | None = None,
    threads: int | None = None,
    out: Array | None = None,
    arena: Arena | None = None,
) -> tuple[float, Array]:
    """`style_loss`, and the squared distance of the channels' means and standard deviations sigma.

        L = scale . sum (S - A_mean)^2 + moments_scale ( |mu - mu_s|^2 + |sigma - sigma_s|^2 )

    A Gram matrix has mean and variance in one sum, diag S = mu^2 + sigma^2: different ones may have the same
    (Risser, Wilmot, Barnes, "Stable and Controllable Neural Texture Synthesis and Style Transfer Using
    Histogram Losses", 2017). Galerne et al., "Scaling Painting Style Transfer", CGF 2024, add these terms.

    By sigma^2 = diag S - mu^2, d sigma = (d diag S - 2 mu dmu) / (2 sigma). A channel without any variance
    has no derivative of its sigma and gets none: its vectors are all at the mean.
    """

    def compare(found: Moments, _: Vectors) -> Derivatives:
        return compare_moments(found, A_mean, target, scale, moments_scale)

    return loss_of_moments(compare, F, T, threads, out, arena)


def compare_moments(
    found: Moments, A_mean: Double, target: Moments, scale: float, moments_scale: float
) -> Derivatives:
    """The loss of `moments_loss` for moments that are known, and its derivatives with respect to them."""
    target_std = target.std
    D, mean, std = found.second - A_mean, found.mean - target.mean, found.std
    value = scale * sum_of_squares(D)
    value += moments_scale * (sum_of_squares(mean) + sum_of_squares(std - target_std))
    ratio = np.divide(std - target_std, std, out=np.zeros_like(std), where=std > 0)
    dvariance = np.diag(moments_scale * ratio)
    dmu = 2 * moments_scale * mean + mean_in_covariance(dvariance, found.mean)
    return Derivatives(value, 2 * scale * D + dvariance, dmu)


# ------------------------------------------------------------------------------------------------
# Wasserstein distance of Gaussians
# ------------------------------------------------------------------------------------------------


class Transport:
    """A Gaussian that others are moved onto, by the map that moves them least.

    With the covariances Sigma of another and Sigma_s = B B' of this one, K = B' Sigma B, and the means mu and
    mu_s, the least mean squared distance and the map that has it are

        |mu - mu_s|^2 + tr(Sigma + Sigma_s - 2 K^(1/2)),    x -> mu_s + T (x - mu),   T = B K^(-1/2) B'

    the squared Wasserstein-2 distance (Dowson and Landau, "The Frechet distance between multivariate normal
    distributions", 1982). To both covariances `regularization` times the unit matrix is added.

    With `least_variance` K is smaller: B has only the axes of the target with more variance than that. In
    their orthogonal complement both count as isotropic, so the other's variance there, b in total, is scaled
    to the target's r: the distance gets b + r - 2 (b r)^(1/2), and T (r / b)^(1/2) times the projection.

    Parameters
    ----------
    target : Gaussian
    regularization : float
    vectors : int, optional
        How many vectors the target was computed from; in further dimensions it has no variance but rounding.
    least_variance : float
        Of an axis; 0 for all axes.
    """

    def __init__(
        self,
        target: Gaussian,
        regularization: float = REGULARIZATION,
        vectors: int | None = None,
        least_variance: float = 0.0,
    ) -> None:
        C = len(target.mean)
        self.mean = target.mean
        self.regularization = regularization
        self.rank = C if vectors is None else min(C, vectors)
        self.complement: Double | None = None  # the projection (C, C) on it, if axes are left out
        with one_blas_thread():
            variances, self.axes = np.linalg.eigh(target.covariance)
            variances[: C - self.rank] = 0
            self.variances = np.maximum(variances, 0) + regularization
            self.total = float(self.variances.sum())
            if least_variance:
                first = int(np.searchsorted(variances, least_variance, side="right"))
                self.axes = np.ascontiguousarray(self.axes[:, first:])
                self.variances = self.variances[first:]
                self.complement = np.eye(C) - self.axes @ self.axes.T if first else None

    def distance(self, other: Gaussian) -> float:
        """The squared Wasserstein-2 distance."""
        Sigma, Q, roots = self._regularized(other.covariance), self.axes, np.sqrt(self.variances)
        with one_blas_thread():
            inside = Q.T @ (Sigma @ Q)
            eigenvalues = np.linalg.eigvalsh(roots[:, None] * inside * roots)
        product, _ = self._isotropic_part(Sigma, inside)
        return self._distance(other.mean, float(np.trace(Sigma)), np.append(eigenvalues, product))

    def distance_and_map(self, other: Gaussian) -> tuple[float, Double]:
        """The distance and T (C, C), from one eigendecomposition; NaN where the other one is not finite."""
        Sigma, Q = self._regularized(other.covariance), self.axes
        with one_blas_thread():
            inside = Q.T @ (Sigma @ Q)
            eigenvalues, transport_map = self.eigenvalues_and_map(Q, self.variances, inside)
        product, ratio = self._isotropic_part(Sigma, inside)
        if self.complement is not None:
            transport_map += ratio * self.complement
        eigenvalues = np.append(eigenvalues, product)
        return self._distance(other.mean, float(np.trace(Sigma)), eigenvalues), transport_map

    def is_faster_by_vectors(self, M: int) -> bool:
        """Whether `distance_and_map_of` so many vectors has less to do, and can be used."""
        return self.complement is None and self.rank + M <= MAX_SUBSPACE * len(self.mean)

    def distance_and_map_of(self, mu: Double, X: Double) -> tuple[float, Double]:
        """The same for few vectors, with the mean mu and the covariance X'X, X (M, C): `Vectors.centered`.

        The target has all of its axes. Where neither they nor the target have any variance, both have the
        regularization's, and T is 1. The other dimensions are those of the target's axes and of the vectors.
        They are spanned by the columns of Q (C, k), k = rank + M, among them the axes, so that Q' Sigma_s Q
        is diagonal; and with X' = Q Y it is Q' Sigma Q = Y Y'.
        """
        M, C = X.shape
        k = self.rank + M
        variances = np.append(np.full(M, self.regularization), self.variances[C - self.rank :])
        with one_blas_thread():
            Q, upper = np.linalg.qr(np.hstack([self.axes[:, C - self.rank :], X.T]))
            Q, Y = np.roll(Q, M, axis=1), np.roll(upper[:, self.rank :], M, axis=0)  # the axes last
            Sigma = self._regularized(Y @ Y.T)
            eigenvalues, transport_map = self.eigenvalues_and_map(Q, variances, Sigma)
            transport_map += np.eye(C) - Q @ Q.T
        least = np.full(C - k, self.regularization)
        trace = float(np.trace(Sigma) + least.sum())
        return self._distance(mu, trace, np.append(eigenvalues, least**2)), transport_map

    def eigenvalues_and_map(self, Q: Double, variances: Double, Sigma: Double) -> tuple[Double, Double]:
        """Eigenvalues of K, and T in the directions of the columns of Q, in which Sigma_s is diagonal.

        Its variances should grow. Then so do the elements of K, from the first row to the last, and LAPACK's
        reduction of the upper triangle, which goes the other way, keeps the digits of the small eigenvalues.
        """
        roots = np.sqrt(variances)
        K = roots[:, None] * Sigma * roots
        if not np.isfinite(K).all():  # a diverged run
            return np.full(len(K), np.nan), np.full((len(Q),) * 2, np.nan)
        eigenvalues, V = np.linalg.eigh(K, UPLO="U")
        # Below the least that there can be they are rounding, and the distance does not depend on them.
        large = eigenvalues > self.regularization**2
        B = Q @ (roots[:, None] * V * np.where(large, np.abs(eigenvalues), np.inf) ** -0.25)
        return eigenvalues, B @ B.T

    def _isotropic_part(self, Sigma: Double, inside: Double) -> tuple[list[float], float]:
        """b r, if axes are left out, and (r / b)^(1/2); `inside` is Sigma along the others."""
        if self.complement is None:
            return [], 1.0
        r = self.total - float(self.variances.sum())
        b = float(np.trace(Sigma) - np.trace(inside))
        return [b * r], float(np.sqrt(r / b))

    def _regularized(self, covariance: Double) -> Double:
        return covariance + self.regularization * np.eye(len(covariance))

    def _distance(self, mean: Double, trace: float, eigenvalues: Double) -> float:
        """From the trace of Sigma and the eigenvalues of K."""
        roots = np.sqrt(np.maximum(eigenvalues, self.regularization**2))
        distance = sum_of_squares(mean - self.mean) + trace + self.total - 2 * float(roots.sum())
        return 0.0 if distance < 0 else distance  # below 0 is rounding; NaN stays


def wasserstein_loss(
    F: Array,
    target: Transport,
    scale: float = 1.0,
    T: Array | None = None,
    threads: int | None = None,
    out: Array | None = None,
    arena: Arena | None = None,
) -> tuple[float, Array]:
    """Squared Wasserstein-2 distance of the Gaussians with the mean and covariance of F, and of the target.

        L = scale ( |mu - mu_s|^2 + tr(Sigma + Sigma_s - 2 K^(1/2)) )
        dL/dF = 2 scale / M ( (F - 1 mu') (I - Map) + 1 (mu - mu_s)' )

    with K and the optimal transport map of `Transport`: each feature vector f is pulled to where transport
    would take it, mu_s + Map (f - mu). `T` is a guidance mask.
    """

    def compare(found: Moments, vectors: Vectors) -> Derivatives:
        return compare_gaussians(found, vectors, target, scale)

    return loss_of_moments(compare, F, T, threads, out, arena)


def compare_gaussians(
    found: Moments, vectors: Vectors | None, target: Transport, scale: float
) -> Derivatives:
    """The loss of `wasserstein_loss` for moments that are known, and its derivatives with respect to them.

    The vectors may be left out if there are more than channels.
    """
    if vectors is not None and target.is_faster_by_vectors(len(vectors.r)):
        distance, transport_map = target.distance_and_map_of(found.mean, vectors.centered(found.mean))
    else:
        distance, transport_map = target.distance_and_map(Gaussian(found.mean, found.covariance))
    dSigma = scale * (np.eye(len(found.mean)) - transport_map)
    dmu = 2 * scale * (found.mean - target.mean) + mean_in_covariance(dSigma, found.mean)
    return Derivatives(scale * distance, dSigma, dmu)


# ------------------------------------------------------------------------------------------------
# The terms of an objective
# ------------------------------------------------------------------------------------------------


class OfSums(NamedTuple):
    """A loss computed from sums, and its derivatives with respect to these: dG, and dtotal or None."""

    value: float
    gram: Double
    total: Double | None


class StyleTerm(Protocol):
    """The style loss of one layer for one target, and its gradient; `out` as in `style_loss`.

    Where F is computed in parts, the loss is `of_sums`, and `gradient_of_part` its gradient.
    """

    @property
    def mask(self) -> Array | None: ...

    def __call__(
        self, F: Array, threads: int | None, out: Array | None, arena: Arena | None
    ) -> tuple[float, Array]: ...

    def of_sums(self, sums: Sums, vectors: Vectors | None) -> OfSums:
        """The sums' Gram matrix may be overwritten; for `vectors` see `compare_gaussians`."""


def divided(found: Derivatives, M: float) -> OfSums:
    """Derivatives with respect to the sums that the moments are means of."""
    return OfSums(found.value, found.second / M, found.mean / M)


def moments_of(sums: Sums) -> Moments:
    """Means of M positions, in place."""
    return Moments(sums.total / sums.positions, np.divide(sums.gram, sums.positions, out=sums.gram))


def gradient_of_part(
    part: OfSums, F: Array, T: Array | None, out: Array, threads: int | None, arena: Arena
) -> Array:
    """The gradient of a loss of sums with respect to some rows F (h, W, C), for the mask's same rows T."""
    R = _region(F, T)
    r = R.reshape(-1, F.shape[2])
    workspace = _workspace(R, threads, arena)
    row = part.total if T is None else None
    _kernels.gram_backward(r, part.gram, out.reshape(r.shape), workspace, threads, row)
    arena.release(workspace)
    if T is not None:
        if part.total is not None:
            out += T[:, :, None] * part.total.astype(F.dtype)
        out *= T[:, :, None]
    return out


@dataclass(frozen=True)
class GramTerm:
    """Distance of Gram matrices."""

    A_mean: Double
    scale: float
    mask: Array | None = None

    def __call__(
        self, F: Array, threads: int | None, out: Array | None, arena: Arena | None
    ) -> tuple[float, Array]:
        if self.mask is None:
            return style_loss(F, self.A_mean, self.scale, threads, out, arena)
        return guided_style_loss(F, self.mask, self.A_mean, self.scale, threads, arena)

    def of_sums(self, sums: Sums, vectors: Vectors | None) -> OfSums:
        return OfSums(*gram_distance(sums.gram, sums.positions, self.A_mean, self.scale), None)


@dataclass(frozen=True)
class MomentsTerm:
    """Distance of Gram matrices, means and standard deviations."""

    A_mean: Double
    target: Moments
    scale: float
    moments_scale: float
    mask: Array | None = None

    def __call__(
        self, F: Array, threads: int | None, out: Array | None, arena: Arena | None
    ) -> tuple[float, Array]:
        scales = self.scale, self.moments_scale
        return moments_loss(F, self.A_mean, self.target, *scales, self.mask, threads, out, arena)

    def of_sums(self, sums: Sums, vectors: Vectors | None) -> OfSums:
        scales, M = (self.scale, self.moments_scale), sums.positions
        return divided(compare_moments(moments_of(sums), self.A_mean, self.target, *scales), M)


@dataclass(frozen=True)
class WassersteinTerm:
    """Distance of Gaussians."""

    target: Transport
    scale: float
    mask: Array | None = None

    def __call__(
        self, F: Array, threads: int | None, out: Array | None, arena: Arena | None
    ) -> tuple[float, Array]:
        return wasserstein_loss(F, self.target, self.scale, self.mask, threads, out, arena)

    def of_sums(self, sums: Sums, vectors: Vectors | None) -> OfSums:
        found, M = moments_of(sums), sums.positions
        return divided(compare_gaussians(found, vectors, self.target, self.scale), M)
