"""Groupings of rows by their covariates alone: the baselines that a mixture of effects is set against. NumPy.

All work on patterns with counts.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_STARTS = 10
MAX_ROUNDS = 500
TOLERANCE = 1e-8

RIDGE = 1e-6
"""Share of the pooled variance that a covariance never falls below."""


def k_means(points: Array, counts: Array, k: int, rng: np.random.Generator) -> Array:
    """Group points around the k means that leave the least squared distance: (groups, patterns), 0 or 1.

    Parameters
    ----------
    points : ndarray of shape (patterns, features)
        On comparable scales.
    counts : ndarray of shape (patterns,)
        Rows per pattern.
    k : int
        Number of groups; fewer are found where fewer distinct points exist.
    rng : numpy.random.Generator
        Source of the starts; the best of ten is kept.

    Examples
    --------
    >>> points = np.array([[0.0], [0.1], [5.0]])
    >>> sorted(k_means(points, np.ones(3), 2, np.random.default_rng(0)).sum(axis=1).tolist())
    [1.0, 2.0]
    """
    best, least = np.zeros(len(points), dtype=int), np.inf
    for _ in range(N_STARTS):
        centre = points[rng.choice(len(points), size=k, p=counts / counts.sum())]
        group = np.full(len(points), -1)
        for _ in range(MAX_ROUNDS):
            distance = ((points[:, None] - centre[None]) ** 2).sum(axis=-1)
            nearest = distance.argmin(axis=1)
            if (nearest == group).all():
                break
            group = nearest
            for j in np.unique(group):
                inside = group == j
                centre[j] = counts[inside] @ points[inside] / counts[inside].sum()
        cost = float(counts @ distance.min(axis=1))
        if cost < least:
            best, least = group, cost
    return np.asarray(best == np.arange(k)[:, None], dtype=float)


def gaussian_mixture(points: Array, counts: Array, k: int, rng: np.random.Generator) -> Array:
    """Group probabilities under a mixture of normals with one shared covariance: (groups, patterns).

    Parameters
    ----------
    points, counts, k, rng
        As for `k_means`, whose groups are the start.

    Notes
    -----
    A covariance per group has an unbounded likelihood where a column has few distinct values.
    """
    share = counts / counts.sum()
    pooled = np.cov(points.T, aweights=counts, ddof=0).reshape(points.shape[1], -1)
    member = 0.9 * k_means(points, counts, k, rng) + 0.1 / k
    before = -np.inf
    for _ in range(MAX_ROUNDS):
        mass = member * share
        weight = mass.sum(axis=1)
        centre = mass @ points / weight[:, None]
        residual = points[None] - centre[:, None]
        spread = np.einsum("kn,kni,knj->ij", mass, residual, residual)
        spread += RIDGE * np.diag(np.diag(pooled)) + 1e-12 * np.eye(len(pooled))
        half = np.linalg.solve(np.linalg.cholesky(spread), residual.reshape(-1, len(pooled)).T)
        log_p = np.log(weight)[:, None] - 0.5 * (half**2).sum(axis=0).reshape(k, -1)
        top = log_p.max(axis=0)
        total = top + np.log(np.exp(log_p - top).sum(axis=0))
        member = np.exp(log_p - total)
        now = float(share @ total) - 0.5 * float(np.linalg.slogdet(spread)[1])
        if now - before < TOLERANCE:
            break
        before = now
    return np.asarray(member)


def contrast(
    outcome: Array, arm: NDArray[np.int64], counts: Array, pair: tuple[int, int]
) -> tuple[float, float]:
    """Difference of an outcome's means between two arms, and its standard error.

    NaN where an arm has no rows; a single row (or less, in shares) gives no standard error.
    """
    mean, variance = [], 0.0
    for t in pair:
        mass = counts * (arm == t)
        n = float(mass.sum())
        if not n > 0:
            return np.nan, np.nan
        mean.append(float(mass @ outcome) / n)
        variance += float(mass @ (outcome - mean[-1]) ** 2) / n / n if n > 1 else np.nan
    return mean[0] - mean[1], float(np.sqrt(variance))


def regression(outcome: Array, treated: Array, covariates: Array, counts: Array) -> tuple[float, float]:
    """Coefficient of the treatment in a linear regression, with its heteroscedasticity-robust error.

    The error is NaN where there are no more rows than coefficients, and residuals vanish by themselves.

    Parameters
    ----------
    outcome, treated : ndarray of shape (patterns,)
        Outcome and treatment (0 or 1).
    covariates : ndarray of shape (patterns, p)
        Columns to adjust for; the constant is added.
    counts : ndarray of shape (patterns,)
        Rows per pattern.
    """
    design = np.column_stack([treated, np.ones(len(outcome)), covariates])
    inverse = np.linalg.pinv(design.T @ (counts[:, None] * design))
    slope = inverse @ (design.T @ (counts * outcome))
    score = design * (outcome - design @ slope)[:, None]
    variance = inverse @ (score.T @ (counts[:, None] * score)) @ inverse
    enough = counts.sum() > np.linalg.matrix_rank(design[counts > 0])
    return float(slope[0]), float(np.sqrt(variance[0, 0])) if enough else np.nan
