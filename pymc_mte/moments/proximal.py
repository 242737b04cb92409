"""Outcome and treatment bridges with covariates, and errors without resampling. NumPy only."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pymc_mte.errors import ModelError
from pymc_mte.moments.bridge import solve_bridge
from pymc_mte.moments.features import build_moments
from pymc_mte.moments.truncated import beyond, independent, matrix, truncated_solution

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Link = Literal["linear", "logistic"]

SOLVED = 1e-6
"""A treatment bridge whose moments miss by more, in standard deviations of a feature, does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeEstimate:
    """Average potential outcomes by one or both bridges, in units of the outcome.

    Attributes
    ----------
    arm_mean : ndarray of shape (arms,)
        E[Y(t)] over everybody.
    influence : ndarray of shape (patterns, arms)
        Influence function of ``arm_mean``.
    weights : ndarray of shape (patterns,)
        Counts.
    outcome_bridge, treatment_bridge : ndarray of shape (patterns, arms)
        ``h_t(X)``, in units of the outcome, and ``q_t(Z)``, dimensionless and near 1/P(T=t).
    unsolved : ndarray of shape (arms,)
        Largest moment of the treatment bridge that is not zero, in standard deviations of a feature.
    """

    arm_mean: Array
    influence: Array
    weights: Array
    outcome_bridge: Array
    treatment_bridge: Array
    unsolved: Array

    @property
    def covariance(self) -> Array:
        """Covariance of ``arm_mean``: (arms, arms)."""
        total = float(self.weights.sum())
        return np.asarray(self.influence.T @ (self.weights[:, None] * self.influence) / total**2)

    def contrast(self, arm: int, reference: int = 0) -> tuple[float, float]:
        """Average effect of an arm against another, and its standard error."""
        c = np.eye(len(self.arm_mean))[arm] - np.eye(len(self.arm_mean))[reference]
        return float(c @ self.arm_mean), float(np.sqrt(c @ self.covariance @ c))


def outcome_bridge(
    outcome: Array,
    arm: Ints,
    z: Array,
    x: Array,
    covariates: Array | None = None,
    weights: Array | None = None,
    *,
    rank: int | None = None,
) -> BridgeEstimate:
    """Average ``h_t(X, C)``, which solves ``E[(phi_Z, C) (Y - h_t) 1(T=t)] = 0``; see `doubly_robust`."""
    return _bridges("outcome", outcome, arm, z, x, covariates, weights, rank, "linear")


def treatment_bridge(
    outcome: Array,
    arm: Ints,
    z: Array,
    x: Array,
    covariates: Array | None = None,
    weights: Array | None = None,
    *,
    rank: int | None = None,
    link: Link = "linear",
) -> BridgeEstimate:
    """Average ``q_t(Z, C) Y`` in arm t, ``E[(q_t 1(T=t) - 1) (phi_X, C)] = 0``; see `doubly_robust`."""
    return _bridges("treatment", outcome, arm, z, x, covariates, weights, rank, link)


def doubly_robust(
    outcome: Array,
    arm: Ints,
    z: Array,
    x: Array,
    covariates: Array | None = None,
    weights: Array | None = None,
    *,
    rank: int | None = None,
    link: Link = "linear",
) -> BridgeEstimate:
    r"""Combine both bridges: average ``1(T=t) q_t (Y - h_t) + h_t``.

    Parameters
    ----------
    outcome : ndarray of shape (patterns,)
        Outcome, in its units.
    arm : ndarray of int, shape (patterns,)
        Treatment arm, counted from 0; every arm needs rows.
    z, x : ndarray of shape (patterns, d)
        Features of the two sides, the constant 1 first, any units.
    covariates : ndarray of shape (patterns, p), optional
        Covariates, linear, appended to the features of both sides.
    weights : ndarray of shape (patterns,), optional
        Counts.
    rank : int, optional
        Canonical directions kept per arm, the constant counted: the number of classes. The directions
        of the covariates are always kept. All by default.
    link : {"linear", "logistic"}
        Form of the treatment bridge: linear in (phi_Z, C), or 1 + exp of it.

    Notes
    -----
    With linear bridges in the same directions, the outcome bridge, the treatment bridge and the
    doubly robust average are one number, with covariates and at any rank. With the logistic link the
    last two agree; where no such function solves the moments (``unsolved`` not 0), both are NaN.

    References
    ----------
    .. [1] Cui, Y., Pu, H., Shi, X., Miao, W. and Tchetgen Tchetgen, E. (2024). Semiparametric proximal
       causal inference. Journal of the American Statistical Association 119, 1348-1359.
    """
    return _bridges("both", outcome, arm, z, x, covariates, weights, rank, link)


def _bridges(
    which: str,
    outcome: Array,
    arm: Ints,
    z: Array,
    x: Array,
    covariates: Array | None,
    weights: Array | None,
    rank: int | None,
    link: Link,
) -> BridgeEstimate:
    if link not in ("linear", "logistic"):
        raise ModelError(f"link {link!r} is unknown; choose linear or logistic")
    y, n_rows = np.asarray(outcome, dtype=float), len(outcome)
    w = np.ones(n_rows) if weights is None else np.asarray(weights, dtype=float)
    more = np.zeros((n_rows, 0)) if covariates is None else matrix(covariates)
    share = w / w.sum()
    parts = []
    for t in range(int(arm.max()) + 1):
        inside = share * (arm == t)
        if not inside.sum() > 0:
            raise ModelError(f"arm {t} has no rows; number the arms that occur from 0")
        parts.append(_one_arm(which, y, inside, z, x, more, share, rank, link))
    mean, influence, h, q, unsolved = (np.stack(column, axis=-1) for column in zip(*parts, strict=True))
    return BridgeEstimate(
        arm_mean=mean,
        influence=influence,
        weights=w,
        outcome_bridge=h,
        treatment_bridge=q,
        unsolved=unsolved,
    )


def _one_arm(
    which: str,
    y: Array,
    inside: Array,
    z: Array,
    x: Array,
    more: Array,
    share: Array,
    rank: int | None,
    link: Link,
) -> tuple[Array, Array, Array, Array, Array]:
    """Mean, influence, both bridges and the unsolved moment of one arm."""
    p = inside.sum()
    within = inside / p
    base = np.column_stack([z[:, :1], more])
    base = base @ independent(base, within)
    # Orthonormal within the arm, covariates first: the moments are then 1 for these and the canonical
    # correlations of the proxies given them, so that truncation only ever drops directions of proxies.
    rest = [beyond(side[:, 1:], base, within) for side in (z, x)]
    zw, xw = (np.column_stack([base, own @ independent(own, within)]) for own in rest)
    kept = min(zw.shape[1], xw.shape[1])
    kept = kept if rank is None else min(kept, base.shape[1] + rank - 1)
    moments, target, everybody = zw.T @ (within[:, None] * xw), zw.T @ (within * y), share @ xw
    solved = truncated_solution(moments, target, everybody[None], kept)
    h, q = xw @ solved.coefficients, zw @ solved.by_target[0] / p
    mine = np.divide(inside, share, out=np.zeros_like(share), where=share > 0)
    u, _, vt = np.linalg.svd(moments)
    zk, xk = zw @ u[:, :kept], xw @ vt[:kept].T
    slope = h
    if link == "logistic" and which != "outcome":
        q, slope = _logistic(y, zk, xk, inside, share, zw[0, 0] * u[0, :kept])
    unsolved = np.abs((inside * q) @ xk - share @ xk).max()
    if link == "logistic" and which != "outcome" and unsolved > SOLVED:
        q = np.full_like(q, np.nan)  # no positive function has these moments: there is no answer to report
    if which == "both":
        psi = mine * q * (y - h) + h
    elif link == "logistic" and which == "treatment":
        psi = mine * q * (y - slope) + slope
        psi += (inside * q) @ y - share @ psi
    else:
        turned = ((zw @ solved.by_moments[0]) * xw).sum(axis=1) / p
        psi = mine * (turned + q * y) + h
        psi += solved.value[0] - share @ psi
    mean = share @ psi
    return mean, psi - mean, h, q, unsolved


def _logistic(
    y: Array, z: Array, x: Array, inside: Array, share: Array, constant: Array
) -> tuple[Array, Array]:
    """Treatment bridge ``1 + exp(z b)`` by damped Newton steps, and the outcome's slope on its moments."""
    goal, p = share @ x - inside @ x, inside.sum()
    b = constant * np.log(max(1 / p - 1, 1e-3))
    short = np.inf
    for _ in range(100):
        odds = inside * np.exp(np.clip(z @ b, -30, 30))
        gap = x.T @ odds - goal
        short = float(np.linalg.norm(gap))
        step = np.linalg.lstsq((x * odds[:, None]).T @ z, gap, rcond=None)[0]
        for half in range(20):
            tried = b - step * 0.5**half
            new = x.T @ (inside * np.exp(np.clip(z @ tried, -30, 30))) - goal
            if np.linalg.norm(new) < short:
                b = tried
                break
        else:  # no way down: solved to rounding, or without a solution
            break
    odds = np.exp(np.clip(z @ b, -30, 30))
    left = z.T @ ((inside * odds)[:, None] * x)
    slope = x @ np.linalg.lstsq(left, z.T @ (inside * odds * y), rcond=None)[0]
    return 1 + odds, slope


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeErrors:
    """Averages of `solve_bridge` with standard errors without resampling, in units of the outcome.

    Attributes
    ----------
    arm_mean : ndarray of shape (..., arms)
        E[Y(t)] over everybody.
    among : ndarray of shape (..., arms, arms)
        ``among[..., t, s]`` = E[Y(t)] among those who got arm s.
    covariance : ndarray of shape (..., arms + arms**2, arms + arms**2)
        Of ``arm_mean`` and ``among`` (row by row), joined.
    """

    arm_mean: Array
    among: Array
    covariance: Array

    def _contrast(self, plus: int, minus: int) -> tuple[Array, Array]:
        values = np.concatenate([self.arm_mean, self.among.reshape(*self.among.shape[:-2], -1)], axis=-1)
        c = np.eye(values.shape[-1])[plus] - np.eye(values.shape[-1])[minus]
        return values @ c, np.sqrt(np.maximum(self.covariance @ c @ c, 0.0))

    @property
    def se_arm_mean(self) -> Array:
        """Standard errors of ``arm_mean``."""
        arms = self.arm_mean.shape[-1]
        return np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1)[..., :arms])

    def ate(self, arm: int, reference: int = 0) -> tuple[Array, Array]:
        """Average effect over everybody, and its standard error: each of shape (...)."""
        return self._contrast(arm, reference)

    def att(self, arm: int, reference: int = 0) -> tuple[Array, Array]:
        """Average effect among those who got ``arm``, and its standard error: each of shape (...)."""
        arms = self.arm_mean.shape[-1]
        return self._contrast(arms + arm * arms + arm, arms + reference * arms + arm)


def bridge_errors(
    weights: Array, z: Array, x: Array, arm: Ints, n_arms: int, outcome: Array, rank: int
) -> BridgeErrors:
    """Delta-method errors of the outcome bridge at a rank, for a batch of counts.

    Parameters
    ----------
    weights : ndarray of shape (replicates, patterns)
        Counts.
    z, x : ndarray of shape (patterns, d)
        Whitened features, taken as given: at the true rank their whitening adds nothing to first order.
    arm : ndarray of int, shape (patterns,)
        Treatment arm; an arm without rows gives NaN.
    n_arms : int
        Number of arms.
    outcome : ndarray of shape (patterns,)
        Outcome, in its units.
    rank : int
        Singular values kept in every arm: the number of classes.
    """
    y = np.asarray(outcome, dtype=float)
    moments = build_moments(weights, z, x, arm, n_arms, y[None])
    solved = solve_bridge(moments, rank)
    total = weights.sum(axis=1, keepdims=True)
    share = weights / total
    is_arm = (arm == np.arange(n_arms)[:, None]).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_arm = is_arm / moments.arm_share[..., None]
    goals = np.concatenate([moments.mean_x[:, None], moments.mean_x_by_arm], axis=1)
    goals = np.nan_to_num(np.broadcast_to(goals[:, None], (len(share), n_arms, *goals.shape[1:])))
    found = truncated_solution(moments.m, moments.n[:, 0, :, :, 0], goals, rank)
    part = np.zeros((len(share), n_arms, n_arms + 1, len(y)))
    for t in range(n_arms):
        rows = arm == t
        turned = np.einsum("nz,rtzx,nx->rtn", z[rows], found.by_moments[:, t], x[rows], optimize=True)
        part[:, t, :, rows] = np.moveaxis(turned + y[rows] * (found.by_target[:, t] @ z[rows].T), 2, 0)
    h = solved.coefficients @ x.T
    part[:, :, 0] += h
    part[:, :, 1:] += per_arm[:, None] * (h[:, :, None] - solved.among[..., None])
    own = np.arange(n_arms)
    part[:, own, own + 1] = per_arm * (y - solved.among[:, own, own, None])
    influence = np.concatenate([part[:, :, 0], part[:, :, 1:].reshape(len(share), -1, len(y))], axis=1)
    influence -= np.einsum("rkn,rn->rk", influence, share)[..., None]
    spread = (influence * share[:, None]) @ np.swapaxes(influence, -1, -2)
    return BridgeErrors(arm_mean=solved.arm_mean, among=solved.among, covariance=spread / total[..., None])
