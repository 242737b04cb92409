"""Proxy strength: canonical correlations between the two sides, per arm. NumPy and SciPy."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.moments.adjusted import adjusted_cross, inverse_root
from pymc_mte.moments.problem import Problem

Array = NDArray[np.float64]

TRACY_WIDOM = stats.gamma(46.446, loc=-9.84801, scale=0.186054)
"""Chiani's shifted gamma for the Tracy-Widom distribution of order 1."""


def whitened_cross(problem: Problem, counts: Array) -> Array:
    """Cross-covariances of the two sides within each arm, given covariates, each side whitened there.

    Their singular values are the canonical correlations; each arm's rank is one less than the
    number of classes that its proxies tell apart, because the constant is taken out.

    Parameters
    ----------
    problem : Problem
        Features of both sides.
    counts : ndarray of shape (replicates, patterns)
        Counts, per replicate.

    Returns
    -------
    ndarray of shape (replicates, arms, d_z - 1, d_x - 1)
    """
    if problem.covariates is not None:
        return adjusted_cross(problem.grams(counts))
    z, x = problem.z.values[:, 1:], problem.x.values[:, 1:]
    both = np.concatenate([z, x], axis=1)
    d, dz = both.shape[1], z.shape[1]
    out = np.zeros((len(counts), len(problem.arms), dz, d - dz))
    for i, t in enumerate(problem.arms):
        rows = problem.arm == t
        part = counts[:, rows]
        share = part / np.maximum(part.sum(axis=1, keepdims=True), 1e-300)
        mean = share @ both[rows]
        products = (both[rows, :, None] * both[rows, None, :]).reshape(-1, d * d)
        cov = (share @ products).reshape(-1, d, d) - mean[:, :, None] * mean[:, None, :]
        out[:, i] = inverse_root(cov[:, :dz, :dz]) @ cov[:, :dz, dz:] @ inverse_root(cov[:, dz:, dz:])
    return out


def bartlett(correlation: Array, n: float, dz: int, dx: int) -> tuple[Array, Array, Array]:
    """Test that each canonical correlation and all smaller ones are zero.

    Parameters
    ----------
    correlation : ndarray of shape (directions,)
        Canonical correlations, largest first.
    n : float
        Rows.
    dz, dx : int
        Features of the two sides, without the constant.

    Returns
    -------
    statistic, df, p_value : ndarray of shape (directions,)

    References
    ----------
    .. [1] Bartlett, M. S. (1941). The statistical significance of canonical correlations.
       Biometrika 32, 29-37.
    """
    gain = -np.log1p(-(np.minimum(correlation, 1 - 1e-12) ** 2))
    scale = max(n - 1 - (dz + dx + 1) / 2, 0.0)
    statistic = scale * np.cumsum(gain[::-1])[::-1]
    place = np.arange(len(correlation))
    df = ((dz - place) * (dx - place)).astype(float)
    return statistic, df, np.asarray(stats.chi2.sf(statistic, df))


def noise_level(dz: int, dx: int, spread: float, level: float = 0.05) -> float:
    """Size that the largest of several canonical correlations exceeds by noise alone.

    Parameters
    ----------
    dz, dx : int
        Directions of the two sides that share nothing.
    spread : float
        Variance of one entry of their whitened cross-covariance; about one over the number of rows.
    level : float
        How often noise exceeds the size.

    Returns
    -------
    float
        At most 1.

    References
    ----------
    .. [1] Johnstone, I. M. (2001). On the distribution of the largest eigenvalue in principal
       components analysis. Annals of Statistics 29, 295-327.
    .. [2] Chiani, M. (2014). Distribution of the largest eigenvalue for real Wishart and Gaussian
       random matrices and a simple approximation for the Tracy-Widom distribution. Journal of
       Multivariate Analysis 129, 69-81.

    Examples
    --------
    >>> round(noise_level(1, 1, 1 / 1_000), 3), round(noise_level(4, 4, 1 / 1_000), 3)
    (0.063, 0.133)
    """
    a, b = np.sqrt(dz - 0.5), np.sqrt(dx - 0.5)
    largest = (a + b) ** 2 + (a + b) * np.cbrt(1 / a + 1 / b) * TRACY_WIDOM.isf(level)
    return float(min(np.sqrt(spread * largest), 1.0))
