"""Two-stage least squares with proxies, and its first-stage strength. NumPy and SciPy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.errors import ModelError
from pymc_mte.moments.truncated import independent, matrix, partial, truncated_solution

Array = NDArray[np.float64]

UNSUPPORTED = 0.05
"""A direction with a larger p-value is not told from noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyDirections:
    """Canonical correlations between the proxies of the two sides, given arm and covariates.

    Attributes
    ----------
    arm : float or None
        Value of the treatment; None for all arms together.
    n : float
        Rows.
    correlation, p_value : ndarray of shape (directions,)
        Largest first; Bartlett's test that this and all smaller correlations are zero.
    z, x : ndarray of shape (d, directions)
        Weights of the directions, per unit of the treatment-side and the outcome-side proxies.
    """

    arm: float | None
    n: float
    correlation: Array
    p_value: Array
    z: Array
    x: Array

    @property
    def unsupported(self) -> tuple[int, ...]:
        """Numbers (from 0) of the directions that are not told from noise."""
        return tuple(np.flatnonzero(~(np.maximum.accumulate(self.p_value) < UNSUPPORTED)).tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStageResult:
    """Two-stage least squares beside the ordinary regression, in units of the outcome.

    Attributes
    ----------
    effect, se : ndarray of shape (arms - 1,)
        Effect of every arm against the lowest; HC0 sandwich standard errors.
    ordinary, se_ordinary : ndarray of shape (arms - 1,)
        The same from the regression on treatment, all proxies and covariates.
    rank : int
        Proxy directions used (the constant not counted).
    directions : tuple of ProxyDirections
        First-stage strength: all arms together first, then every arm.
    """

    effect: Array
    se: Array
    ordinary: Array
    se_ordinary: Array
    rank: int
    directions: tuple[ProxyDirections, ...]


def two_stage(
    outcome: Array,
    treatment: NDArray[np.generic],
    outcome_proxy: Array,
    treatment_proxy: Array,
    covariates: Array | None = None,
    weights: Array | None = None,
    *,
    rank: int | None = None,
) -> TwoStageResult:
    r"""Estimate a constant effect by two-stage least squares: the linear outcome bridge.

    First stage: each outcome-side proxy on treatment, treatment-side proxies and covariates. Second
    stage: the outcome on treatment, fitted proxies and covariates.

    Parameters
    ----------
    outcome : ndarray of shape (rows,)
        Outcome, in its units.
    treatment : ndarray of shape (rows,)
        Arm of every row; its lowest value is the reference.
    outcome_proxy, treatment_proxy : ndarray of shape (rows, d)
        Proxies, any units; linear.
    covariates : ndarray of shape (rows, p), optional
        Observed covariates; columns that repeat others do no harm.
    weights : ndarray of shape (rows,), optional
        How often each row occurs.
    rank : int, optional
        Keep this many canonical directions between the partialled proxies; all by default.

    Notes
    -----
    Standard errors are HC0 (no correction for degrees of freedom). They trust the first stage: with
    an unsupported direction they are far too small, see ``directions``. With fewer directions than
    there are, the choice of directions adds to the standard error to first order.

    References
    ----------
    .. [1] Tchetgen Tchetgen, E. J., Ying, A., Cui, Y., Shi, X. and Miao, W. (2024). An introduction
       to proximal causal inference. Statistical Science 39(3), 375-390.
    """
    y, n_rows = np.asarray(outcome, dtype=float), len(outcome)
    w = np.ones(n_rows) if weights is None else np.asarray(weights, dtype=float)
    z, x = matrix(treatment_proxy), matrix(outcome_proxy)
    free = np.ones((n_rows, 1)) if covariates is None else np.column_stack([np.ones(n_rows), covariates])
    arms = np.unique(treatment[w > 0])
    if len(arms) < 2:
        raise ModelError("two_stage needs at least two arms with rows")
    share, total = w / w.sum(), float(w.sum())
    dummies = (np.asarray(treatment)[:, None] == arms[1:]).astype(float)
    full = np.column_stack([free, dummies])
    rest = partial(np.column_stack([z, x]), full, share)
    to_z, to_x = _root(rest[:, : z.shape[1]], share), _root(rest[:, z.shape[1] :], share)
    zw = rest[:, : z.shape[1]] @ to_z
    effect, influence, kept = _solve_stages(y, dummies, free, zw, x @ to_x, share, rank)
    ordinary, se_ordinary = _regress(y, dummies, np.column_stack([free, z, x]), share, total)
    strength = [proxy_directions(z, x, full, w)]
    strength += [proxy_directions(z, x, free, w * (treatment == t), float(t)) for t in arms]
    return TwoStageResult(
        effect=effect,
        se=np.sqrt(share @ influence**2 / total),
        ordinary=ordinary,
        se_ordinary=se_ordinary,
        rank=kept,
        directions=tuple(strength),
    )


def _solve_stages(
    y: Array, dummies: Array, free: Array, zw: Array, x: Array, share: Array, rank: int | None
) -> tuple[Array, Array, int]:
    """Effects, their influence functions and the rank; ``zw`` is partialled and whitened, ``x`` whitened."""
    full = np.column_stack([free, dummies])
    xw = partial(x, full, share)
    # The treatment, partialled for the covariates, gives its coefficients once the bridge is known.
    own = partial(dummies, free, share)
    own = own @ np.linalg.pinv(own.T @ (share[:, None] * own))
    most = min(zw.shape[1], xw.shape[1])
    kept = most if rank is None else min(rank, most)
    moments, target = zw.T @ (share[:, None] * xw), zw.T @ (share * y)
    solved = truncated_solution(moments, target, own.T @ (share[:, None] * x), kept)
    effect = own.T @ (share * y) - solved.value
    residual = partial((y - x @ solved.coefficients)[:, None], full, share)
    influence = own * residual - (zw @ solved.by_target.T) * residual
    if kept < most:
        turning = solved.by_moments + solved.by_target[:, :, None] * solved.coefficients
        influence -= ((zw @ turning) * xw).sum(axis=2).T
    return effect, influence, kept


def _root(columns: Array, share: Array) -> Array:
    """Map columns of mean zero to uncorrelated ones of variance 1."""
    mapping = independent(columns, share)
    if not mapping.shape[1]:
        raise ModelError("the proxies of one side are constant given treatment and covariates")
    return mapping


def _regress(y: Array, dummies: Array, others: Array, share: Array, total: float) -> tuple[Array, Array]:
    own = partial(dummies, others, share)
    own = own @ np.linalg.pinv(own.T @ (share[:, None] * own))
    residual = partial(y[:, None], np.column_stack([others, dummies]), share)
    return own.T @ (share * y), np.sqrt(share @ (own * residual) ** 2 / total)


def proxy_directions(
    z: Array, x: Array, given: Array, weights: Array, arm: float | None = None
) -> ProxyDirections:
    """Find the canonical directions of two sets of proxies given covariates.

    Parameters
    ----------
    z, x : ndarray of shape (rows, d)
        Proxies of the two sides.
    given : ndarray of shape (rows, p)
        Covariates, the constant among them.
    weights : ndarray of shape (rows,)
        How often each row occurs; 0 outside the arm.
    arm : float, optional
        Value of the treatment, kept in the answer.
    """
    share, n = weights / weights.sum(), float(weights.sum())
    rest = partial(np.column_stack([z, x]), given, share)
    zr, xr = rest[:, : z.shape[1]], rest[:, z.shape[1] :]
    to_z, to_x = _root(zr, share), _root(xr, share)
    u, r, vt = np.linalg.svd((zr @ to_z).T @ (share[:, None] * (xr @ to_x)), full_matrices=False)
    gain = -np.log1p(-(np.minimum(r, 1 - 1e-12) ** 2))
    dz, dx, p = to_z.shape[1], to_x.shape[1], independent(given, share).shape[1]
    scale = max(n - p - (dz + dx + 1) / 2, 0.0)
    p_value = [stats.chi2.sf(scale * gain[i:].sum(), (dz - i) * (dx - i)) for i in range(len(r))]
    return ProxyDirections(arm=arm, n=n, correlation=r, p_value=np.array(p_value), z=to_z @ u, x=to_x @ vt.T)
