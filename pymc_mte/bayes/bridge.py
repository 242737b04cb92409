"""Bridge sampling: the integral of a density from draws of it and draws of a normal fitted to them."""

from dataclasses import dataclass

import arviz as az
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]

ITERATIONS, SETTLED = 1_000, 1e-10

SHRINK = 1e-3
"""Share of its diagonal that a fitted covariance gets on top."""


@dataclass(frozen=True, kw_only=True)
class Normal:
    """A multivariate normal fitted to draws.

    Attributes
    ----------
    mean : ndarray of shape (n,)
        Centre.
    root : ndarray of shape (n, n)
        Lower Cholesky factor of the covariance.
    """

    mean: Array
    root: Array

    @classmethod
    def fitted(cls, flat: Array) -> "Normal":
        """Fit to draws (draws, n)."""
        covariance = np.atleast_2d(np.cov(flat, rowvar=False))
        covariance[np.diag_indices_from(covariance)] *= 1 + SHRINK
        covariance[np.diag_indices_from(covariance)] += 1e-12
        return cls(mean=flat.mean(axis=0), root=np.linalg.cholesky(covariance))

    def log_density(self, flat: Array) -> Array:
        """Log-density at points (points, n)."""
        z = np.linalg.solve(self.root, (flat - self.mean).T)
        constant = np.log(np.diag(self.root)).sum() + 0.5 * len(self.mean) * np.log(2 * np.pi)
        return np.asarray(-0.5 * (z * z).sum(axis=0) - constant)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n points."""
        return np.asarray(self.mean + rng.normal(size=(n, len(self.mean))) @ self.root.T)


def bridge(at_draws: Array, at_proposals: Array) -> tuple[float, float]:
    """Log of the integral of a density by the optimal bridge, and its standard error.

    Parameters
    ----------
    at_draws : ndarray of shape (chains, draws)
        Log density minus log proposal density at draws of the density, in the order of their chains.
    at_proposals : ndarray of shape (n,)
        The same at independent draws of the proposal; minus infinity outside the region integrated.

    Returns
    -------
    log_integral, error : float
        The error is that of the logarithm; it allows for autocorrelation of the draws. Minus infinity with
        an infinite error where no proposal lies in the region.

    Notes
    -----
    With ``l`` the ratio of the two densities, the integral solves
    ``r = mean(l / (s1 l + s2 r)) / mean(1 / (s1 l + s2 r))``, the first mean over proposals, the second
    over draws, and ``s1``, ``s2`` the shares of (effective) draws and of proposals.

    References
    ----------
    .. [1] Meng, X.-L. and Wong, W. H. (1996). Simulating ratios of normalizing constants via a simple
       identity. Statistica Sinica 6.
    .. [2] Fruehwirth-Schnatter, S. (2004). Estimating marginal likelihoods for mixture and Markov
       switching models using bridge sampling techniques. Econometrics Journal 7.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 500)), rng.normal(0, 1.2, size=1_000)
    >>> def ratio(v):  # exp(-v^2 / 2), whose integral is sqrt(2 pi), against a normal of SD 1.2
    ...     return -0.5 * v**2 + 0.5 * (v / 1.2) ** 2 + np.log(1.2 * np.sqrt(2 * np.pi))
    >>> value, error = bridge(ratio(x), ratio(y))
    >>> bool(abs(value - 0.5 * np.log(2 * np.pi)) < 4 * error)
    True
    """
    if not np.isfinite(at_proposals).any():
        return -np.inf, np.inf
    centre = float(np.median(at_draws))
    one, two = at_draws - centre, at_proposals - centre
    flat = one.ravel()
    effective = _effective(one)
    share = effective / (effective + len(two))
    log_s1, log_s2 = np.log(share), np.log1p(-share)
    value = 0.0
    for _ in range(ITERATIONS):
        top = logsumexp(two - np.logaddexp(log_s1 + two, log_s2 + value)) - np.log(len(two))
        bottom = logsumexp(-np.logaddexp(log_s1 + flat, log_s2 + value)) - np.log(len(flat))
        value, before = float(top - bottom), value
        if abs(value - before) < SETTLED:
            break
    log_two = two - np.logaddexp(log_s1 + two, log_s2 + value)
    log_one = -np.logaddexp(log_s1 + one, log_s2 + value)
    f_two, f_one = (np.exp(terms - terms.max()) for terms in (log_two, log_one))  # none underflows as a whole
    relative = f_two.var() / f_two.mean() ** 2 / len(two)
    relative += f_one.var() / f_one.mean() ** 2 / _effective(f_one)
    return value + centre, float(np.sqrt(relative))


def _effective(values: Array) -> float:
    """Effective number of draws behind the mean of a series (chains, draws)."""
    if values.shape[1] < 4 or np.ptp(values) == 0:
        return float(values.size)
    series = xr.Dataset({"value": (("chain", "draw"), values)})
    found = float(az.ess(series, method="mean")["value"])
    return min(found, float(values.size)) if np.isfinite(found) else float(values.size)
