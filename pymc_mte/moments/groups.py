"""Do the classes differ in their effects? A test, and classes merged where they do not. NumPy, SciPy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

LEVEL = 0.05
EXACT_GAP = 1e-8
"""Without replicates, effects closer than this (relative to their size) are one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualEffects:
    """Wald test that all classes have the same effects.

    Attributes
    ----------
    statistic : float
        Quadratic form of the differences between neighbouring classes.
    df : int
        Rank of their covariance.
    p_value : float
        Upper tail of the chi-squared distribution; NaN without replicates or with one class.
    """

    statistic: float
    df: int
    p_value: float


def equal_effects(effect: Array, replicates: Array) -> EqualEffects:
    """Test equal effects over classes, all contrasts together.

    Parameters
    ----------
    effect : ndarray of shape (classes,) or (classes, contrasts)
        Point estimates, in units of the outcome.
    replicates : ndarray of shape (replicates, classes) or (replicates, classes, contrasts)
        Bootstrap replicates, aligned to the point.
    """
    gap = np.diff(effect, axis=0).ravel()
    draws = np.diff(replicates, axis=1).reshape(len(replicates), -1) if len(replicates) else np.zeros((0, 0))
    draws = draws[np.isfinite(draws).all(axis=1)]
    if gap.size == 0 or len(draws) <= gap.size or not np.isfinite(gap).all():
        return EqualEffects(statistic=np.nan, df=0, p_value=np.nan)
    covariance = np.atleast_2d(_robust_covariance(draws))
    df = int(np.linalg.matrix_rank(covariance, hermitian=True))
    statistic = float(gap @ np.linalg.pinv(covariance, hermitian=True) @ gap)
    return EqualEffects(statistic=statistic, df=df, p_value=float(stats.chi2.sf(statistic, df)))


def _robust_covariance(draws: Array) -> Array:
    """Covariance with quantile-based scales: a few wild replicates do not inflate it."""
    low, high = np.quantile(draws, [0.158655, 0.841345], axis=0)
    scale = np.maximum((high - low) / 2, 1e-300)
    centre = np.median(draws, axis=0)
    ranks = np.clip((draws - centre) / scale, -4, 4)
    with np.errstate(invalid="ignore", divide="ignore"):  # gaps that no replicate moves
        correlation = np.corrcoef(ranks, rowvar=False)
    return np.asarray(np.outer(scale, scale) * np.nan_to_num(correlation, nan=1.0))


def causal_groups(effect: Array, replicates: Array) -> NDArray[np.int64]:
    """Merge classes, sorted by effect, whose neighbouring effects agree.

    Neighbours agree when their gap is no larger than its 5% critical value, adjusted for the number
    of gaps (Holm); without replicates, when it is rounding.

    Parameters
    ----------
    effect : ndarray of shape (classes,)
        Effects of one contrast in any order.
    replicates : ndarray of shape (replicates, classes)
        Aligned replicates; may be empty.

    Returns
    -------
    ndarray of int, shape (classes,)
        Group number of every class, ascending in the effect.
    """
    order = np.argsort(effect, kind="stable")
    gap = np.diff(effect[order])
    if len(replicates) > 1:
        draws = np.diff(replicates[:, order], axis=1)
        low, high = np.nanquantile(draws, [0.158655, 0.841345], axis=0)
        z = gap / np.maximum((high - low) / 2, 1e-300)
        p = 2 * stats.norm.sf(np.abs(z))
        differ = np.zeros(len(gap), dtype=bool)
        for rank, place in enumerate(np.argsort(p)):
            if p[place] > LEVEL / (len(gap) - rank):
                break
            differ[place] = True
    else:
        differ = gap > EXACT_GAP * max(1.0, float(np.abs(effect).max()))
    group = np.zeros(len(effect), dtype=np.int64)
    group[order] = np.concatenate([[0], np.cumsum(differ)]) if len(effect) else 0
    return group
