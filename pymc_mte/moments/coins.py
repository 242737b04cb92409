r"""Mixtures of one repeated mechanism (k coins): class means and weights from factorial moments.

A row shows how often each of n draws of one coin came up; the latent class chooses the coin. The
moments :math:`\mu_r = E[p_u^r]` of the hidden success probability are what the counts reveal, and a
Hankel pencil, or Prony's polynomial, turns :math:`\mu_0, \dots, \mu_{2K-1}` into coins and weights.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pymc_mte.errors import DataError
from pymc_mte.moments.mixture import eig_real, solve_batched
from pymc_mte.moments.pencil import companion

Array = NDArray[np.float64]

N_REFINEMENTS = 5
"""Newton steps on the moment equations, with residuals in extended precision."""

OUTSIDE = 0.5
"""Roots further outside [0, 1] than this are not refined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coins:
    """Solutions of the moment equations.

    Attributes
    ----------
    mean : ndarray of shape (..., K)
        Success probability of each class, ascending; unclipped.
    weight : ndarray of shape (..., K)
        Class weights; unclipped.
    complex_roots : ndarray of bool, shape (...,)
        Whether some roots were complex, so that the nearest real ones are returned.
    singular : ndarray of bool, shape (...,)
        Whether fewer classes than K explain the moments.
    """

    mean: Array
    weight: Array
    complex_roots: NDArray[np.bool_]
    singular: NDArray[np.bool_]


def histogram(rows: Array, trials: int | None = None) -> Array:
    """Count how many rows have each number of successes.

    Parameters
    ----------
    rows : ndarray of shape (rows, draws) of 0/1, or of shape (rows,)
        The draws themselves, or their sums.
    trials : int, optional
        Draws per row; needed with sums.

    Returns
    -------
    ndarray of shape (trials + 1,)
        Rows with 0, 1, ..., trials successes.

    Examples
    --------
    >>> histogram(np.array([[1, 0], [1, 1], [0, 1]])).tolist()
    [0.0, 2.0, 1.0]
    """
    rows = np.asarray(rows)
    if rows.ndim == 2:
        if not np.isin(rows, (0, 1)).all():
            raise DataError("draws must be 0 or 1; pass sums together with `trials` instead")
        rows, trials = rows.sum(axis=1), rows.shape[1]
    if trials is None or rows.min() < 0 or rows.max() > trials:
        raise DataError(f"sums must lie between 0 and `trials`, got trials = {trials}")
    return np.bincount(rows.astype(int), minlength=trials + 1).astype(float)


def factorial_moments(counts: Array, order: int) -> Array:
    r"""Unbiased moments of the hidden success probability from counts of successes.

    Parameters
    ----------
    counts : ndarray of shape (..., trials + 1)
        Rows with 0, ..., trials successes.
    order : int
        Highest moment, at most ``trials``.

    Returns
    -------
    ndarray of shape (..., order + 1)
        :math:`\mu_r = E[\binom{S}{r}] / \binom{n}{r}`, the first being 1.
    """
    trials = counts.shape[-1] - 1
    if order > trials:
        raise DataError(
            f"{trials} draws per row give {trials} moments, and {order} are needed; use more draws"
        )
    s, r = np.arange(trials + 1)[:, None], np.arange(order + 1)
    share = counts / counts.sum(axis=-1, keepdims=True)
    return np.asarray(share @ (special.comb(s, r) / special.comb(trials, r)))


def solve_coins(moments: Array, classes: int, roots: Literal["pencil", "prony"] = "pencil") -> Coins:
    """Recover coins and weights from 2K moments.

    Parameters
    ----------
    moments : ndarray of shape (..., 2K or more)
        Moments of the hidden success probability, the first being 1.
    classes : int
        Number of classes K.
    roots : {"pencil", "prony"}
        Coins as eigenvalues of the Hankel pencil, or as roots of Prony's polynomial.

    Returns
    -------
    Coins
        Ascending in the success probability.

    Notes
    -----
    With 2K - 1 draws the 2K - 1 unknowns fill the table and the solution, if valid, is the maximum
    of the likelihood too. Further moments would need weights; the likelihood has them right. Rounding
    of the moments is magnified by the inverse of the map: with five classes 0.1 apart up to 1e8
    times, so moments in extended precision (``numpy.longdouble``) are used as they are given.

    Examples
    --------
    >>> found = solve_coins(np.array([1.0, 0.5, 0.29, 0.185]), 2)
    >>> found.mean.round(6).tolist(), found.weight.round(6).tolist()
    ([0.3, 0.7], [0.5, 0.5])
    """
    if moments.shape[-1] < 2 * classes:
        raise DataError(f"{classes} classes need {2 * classes} moments, got {moments.shape[-1]}")
    exact = np.asarray(moments)[..., : 2 * classes]
    moments = exact.astype(float)
    matrix, singular = companion(moments, classes, roots)
    mean, _, complex_roots = eig_real(matrix)
    mean = np.sort(np.where(singular[..., None], np.nan, mean), axis=-1)
    vandermonde = mean[..., None, :] ** np.arange(classes)[:, None]
    weight, collapsed = solve_batched(vandermonde, moments[..., :classes, None])
    weight = weight[..., 0]
    steady = ~(singular | collapsed | complex_roots)
    steady &= (mean > -OUTSIDE).all(axis=-1) & (mean < 1 + OUTSIDE).all(axis=-1)
    refined = _refine(exact, mean, weight)
    better = steady & np.isfinite(refined).all(axis=(-2, -1))
    mean = np.where(better[..., None], refined[..., 0, :], mean)
    weight = np.where(better[..., None], refined[..., 1, :], weight)
    return Coins(mean=mean, weight=weight, complex_roots=complex_roots, singular=singular | collapsed)


def _refine(moments: Array, mean: Array, weight: Array) -> Array:
    """Newton steps on the 2K moment equations; the residual is what rounding would spoil."""
    k = mean.shape[-1]
    power = np.arange(2 * k)
    m, w = mean.astype(np.longdouble), weight.astype(np.longdouble)
    target = np.asarray(moments, dtype=np.longdouble)
    for _ in range(N_REFINEMENTS):
        vandermonde = m[..., None, :] ** power[:, None]
        residual = target - (vandermonde * w[..., None, :]).sum(axis=-1)
        slope = power[:, None] * m[..., None, :] ** np.maximum(power - 1, 0)[:, None] * w[..., None, :]
        jacobian = np.concatenate([slope, vandermonde], axis=-1).astype(float)
        step, failed = solve_batched(jacobian, residual.astype(float)[..., None])
        step = np.where(failed[..., None], 0.0, step[..., 0])
        m, w = m + step[..., :k], w + step[..., k:]
    return np.stack([m, w], axis=-2).astype(float)


def rank_eigenvalues(moments: Array, classes: int) -> Array:
    """Smallest eigenvalue of the Hankel matrices of 1 to ``classes`` + 1 classes: (..., classes + 1).

    With K classes the matrices up to K are positive definite and the next one is singular, so the
    last of these numbers that stands out from its sampling error tells the number of classes.
    Sizes that the moments do not fill give NaN.
    """
    out = []
    for size in range(1, classes + 2):
        if 2 * size - 1 > moments.shape[-1]:
            out.append(np.full(moments.shape[:-1], np.nan))
            continue
        index = np.add.outer(np.arange(size), np.arange(size))
        out.append(np.linalg.eigvalsh(moments[..., index])[..., 0])
    return np.stack(out, axis=-1)
