"""The outcome bridge and two-stage least squares given covariates, for a batch of counts. NumPy only.

Everything is a function of second moments within arms, so a replicate costs one matrix product.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEPENDENT = 1e-10
"""Directions with a relatively smaller variance are dependent on others and are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmGrams:
    """Sums of products within arms, columns ordered: constant, covariates, Z, X, outcome.

    Attributes
    ----------
    sums : ndarray of shape (replicates, arms, columns, columns)
        Weighted sums of products, over the total weight.
    n_base : int
        The constant and the covariates.
    d_z, d_x : int
        Proxy features of both sides, without the constant.
    """

    sums: Array
    n_base: int
    d_z: int
    d_x: int

    @property
    def z(self) -> slice:
        """Places of the treatment-side features."""
        return slice(self.n_base, self.n_base + self.d_z)

    @property
    def x(self) -> slice:
        """Places of the outcome-side features."""
        return slice(self.n_base + self.d_z, self.n_base + self.d_z + self.d_x)


def arm_grams(
    weights: Array, z: Array, x: Array, arm: NDArray[np.int64], n_arms: int, outcome: Array, covariates: Array
) -> ArmGrams:
    """Sum products within arms for a batch of counts.

    Parameters
    ----------
    weights : ndarray of shape (replicates, patterns)
        Counts.
    z, x : ndarray of shape (patterns, d)
        Features of the two sides, the constant 1 first.
    arm : ndarray of int, shape (patterns,)
        Arm of every pattern.
    n_arms : int
        Number of arms.
    outcome : ndarray of shape (patterns,)
        Outcome, in its units.
    covariates : ndarray of shape (patterns, p)
        Covariates, any units.
    """
    centred = covariates - covariates.mean(axis=0)
    spread = centred.std(axis=0)
    scaled = centred / np.where(spread > 0, spread, 1.0)
    columns = np.column_stack([np.ones(len(outcome)), scaled, z[:, 1:], x[:, 1:], outcome])
    q = columns.shape[1]
    sums = np.zeros((len(weights), n_arms, q, q))
    for t in range(n_arms):
        own = columns[arm == t]
        for r, row in enumerate(weights[:, arm == t]):
            used = row > 0
            sums[r, t] = own[used].T @ (row[used, None] * own[used])
    total = weights.sum(axis=1)[:, None, None, None]
    return ArmGrams(sums=sums / total, n_base=1 + scaled.shape[1], d_z=z.shape[1] - 1, d_x=x.shape[1] - 1)


def adjusted_averages(grams: ArmGrams, rank: int) -> tuple[Array, Array]:
    """Average potential outcomes by the outcome bridge, linear in the covariates.

    Parameters
    ----------
    grams : ArmGrams
        Second moments within arms.
    rank : int
        Number of classes: one direction for the constant, the others of the proxies given arm and
        covariates. The directions of the covariates are always kept.

    Returns
    -------
    arm_mean : ndarray of shape (replicates, arms)
        E[Y(t)] over everybody.
    among : ndarray of shape (replicates, arms, arms)
        ``among[r, t, s]`` = E[Y(t)] among those who got arm s.
    """
    bridge = _bridge(grams.sums, grams, grams.n_base, rank - 1)
    means = grams.sums[:, :, 0, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        by_arm = means / means[:, :, :1]
    arm_mean = np.einsum("rtq,rq->rt", bridge, means.sum(axis=1))
    among = np.einsum("rtq,rsq->rts", bridge, by_arm)
    arms = np.arange(means.shape[1])
    among[:, arms, arms] = by_arm[:, :, -1]
    return arm_mean, among


def adjusted_effect(grams: ArmGrams) -> Array:
    """Effects of the arms against the first one by two-stage least squares: (replicates, arms - 1).

    One effect for everybody and one bridge for all arms are assumed, and every direction of the
    proxies is used, supported or not; see `two_stage` for its errors.
    """
    pooled, n_arms = grams.sums.sum(axis=1), grams.sums.shape[1]
    own, places = grams.sums[:, 1:, 0, :], np.arange(n_arms - 1)
    dummies = np.zeros((len(pooled), n_arms - 1, n_arms - 1))
    dummies[:, places, places] = own[:, :, 0]
    n = grams.n_base
    joined = np.concatenate([pooled[:, :n], own, pooled[:, n:]], axis=1)
    across = np.concatenate([own[:, :, :n], dummies, own[:, :, n:]], axis=2)
    joined = np.concatenate([joined[:, :, :n], np.swapaxes(across, 1, 2), joined[:, :, n:]], axis=2)
    bridge = _bridge(joined, grams, n + n_arms - 1, min(grams.d_z, grams.d_x))
    return np.asarray(bridge[:, n : n + n_arms - 1])


def adjusted_cross(grams: ArmGrams) -> Array:
    """Cross-covariances of the two sides given arm and covariates, each side whitened there.

    Their singular values are the canonical correlations: (replicates, arms, d_z, d_x).
    """
    given, _ = _partialled(grams.sums, grams.n_base)
    return _whitened(given, grams)[0]


def _bridge(sums: Array, grams: ArmGrams, n_base: int, directions: int) -> Array:
    """Coefficients of the outcome bridge on all columns but the treatment side and the outcome: (..., q).

    Columns that do not enter it get a zero.
    """
    given, regression = _partialled(sums, n_base)
    cross, to_z, to_x = _whitened(given, grams)
    d_z, d_x = grams.d_z, grams.d_x
    left, singular, right = np.linalg.svd(cross, full_matrices=False)
    kept = min(directions, singular.shape[-1])
    solved = singular[..., :kept] > 1e-7
    inverse = np.divide(1.0, singular[..., :kept], out=np.zeros_like(singular[..., :kept]), where=solved)
    target = np.einsum("...zk,...z->...k", to_z, given[..., :d_z, -1])
    slope = np.einsum("...ik,...i->...k", left[..., :kept], target) * inverse
    slope = np.einsum("...xj,...kj,...k->...x", to_x, right[..., :kept, :], slope)
    on_base = regression[..., -1] - np.einsum("...bx,...x->...b", regression[..., d_z : d_z + d_x], slope)
    bridge = np.zeros(sums.shape[:-1])
    bridge[..., :n_base] = on_base
    bridge[..., n_base + d_z : n_base + d_z + d_x] = slope
    return bridge


def _partialled(sums: Array, n_base: int) -> tuple[Array, Array]:
    """Second moments of the later columns given the base, and their regression on it."""
    base, cross = sums[..., :n_base, :n_base], sums[..., :n_base, n_base:]
    regression = np.linalg.pinv(base, rcond=DEPENDENT, hermitian=True) @ cross
    return sums[..., n_base:, n_base:] - np.swapaxes(cross, -1, -2) @ regression, regression


def _whitened(given: Array, grams: ArmGrams) -> tuple[Array, Array, Array]:
    """Cross-moments of both sides in whitened coordinates, and the maps to these."""
    d_z, d_x = grams.d_z, grams.d_x
    z, x = slice(0, d_z), slice(d_z, d_z + d_x)
    to_z, to_x = inverse_root(given[..., z, z]), inverse_root(given[..., x, x])
    return np.swapaxes(to_z, -1, -2) @ given[..., z, x] @ to_x, to_z, to_x


def inverse_root(covariance: Array) -> Array:
    """Inverse square roots of a batch of covariances, zero in directions without variance."""
    value, vector = np.linalg.eigh(covariance)
    good = value > DEPENDENT * np.maximum(value[..., -1:], 1e-300)
    inverse = np.where(good, 1 / np.sqrt(np.where(good, value, 1.0)), 0.0)
    return np.asarray((vector * inverse[..., None, :]) @ np.swapaxes(vector, -1, -2))
