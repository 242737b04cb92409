"""Bridges with covariates, errors without resampling, a set for weak proxies. NumPy and SciPy."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from pymc_mte.errors import ModelError
from pymc_mte.moments.bridge import solve_bridge
from pymc_mte.moments.features import build_moments

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Link = Literal["linear", "logistic"]

DEPENDENT = 1e-8
"""A column whose part outside the earlier ones is relatively smaller than this repeats them."""

UNSUPPORTED = 0.05
"""A direction with a larger p-value is not told from noise."""

SOLVED = 1e-6
"""A treatment bridge whose moments miss by more, in standard deviations of a feature, does not exist."""

FAR = 1e4
"""Ends of a confidence set beyond this many ranges of the outcome count as infinite."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedSolution:
    """``e' pinv_r(M) b`` for several ``e``, with its gradients.

    Attributes
    ----------
    value : ndarray of shape (..., targets)
        The functionals.
    by_target : ndarray of shape (..., targets, d_z)
        Gradient by b: coefficients of the treatment bridge.
    by_moments : ndarray of shape (..., targets, d_z, d_x)
        Gradient by M, the turning of the kept directions included.
    coefficients : ndarray of shape (..., d_x)
        Gradient by e: coefficients of the outcome bridge.
    """

    value: Array
    by_target: Array
    by_moments: Array
    coefficients: Array


def truncated_solution(m: Array, b: Array, e: Array, rank: int) -> TruncatedSolution:
    """Solve ``M a = b`` at a rank and differentiate ``e . a``.

    Parameters
    ----------
    m : ndarray of shape (..., d_z, d_x)
        Moments.
    b : ndarray of shape (..., d_z)
        Right-hand sides.
    e : ndarray of shape (..., targets, d_x)
        Functionals of the solution.
    rank : int
        Singular values kept.
    """
    dz, dx = m.shape[-2:]
    k = max(dz, dx)
    left, singular, right = np.linalg.svd(m)
    lead = [(0, 0)] * (m.ndim - 1)
    u, v = np.pad(left, [*lead, (0, k - dz)]), np.pad(np.swapaxes(right, -1, -2), [*lead, (0, k - dx)])
    s = np.pad(singular, [*lead[1:], (0, k - min(dz, dx))])
    kept = (np.arange(k) < min(rank, dz, dx)) & (s > 1e-14)
    inverse = np.divide(1.0, s, out=np.zeros_like(s), where=kept)
    ub, ve = np.einsum("...zk,...z->...k", u, b), np.einsum("...xk,...tx->...tk", v, e)
    solved, adjoint = inverse * ub, inverse[..., None, :] * ve
    # Perturbed moments turn the kept directions j towards the left-out ones i: first-order theory of
    # singular subspaces. Both terms vanish where nothing is left out.
    square = s**2
    gap = square[..., None, :] - square[..., :, None]
    pairs = ~kept[..., :, None] & kept[..., None, :] & (gap > 0)
    weight = np.divide(1.0, gap, out=np.zeros_like(gap), where=pairs)[..., None, :, :]
    turn_v = weight * ve[..., :, None] * solved[..., None, None, :]
    turn_u = weight * ub[..., None, :, None] * adjoint[..., None, :]
    si, sj = s[..., None, :, None], s[..., None, None, :]
    inner = -adjoint[..., :, None] * solved[..., None, None, :]
    inner = inner + si * turn_v + sj * turn_u + np.swapaxes(sj * turn_v + si * turn_u, -1, -2)
    return TruncatedSolution(
        value=np.einsum("...tk,...k->...t", ve, solved),
        by_target=np.einsum("...zk,...tk->...tz", u, adjoint),
        by_moments=np.einsum("...zk,...tkl,...xl->...tzx", u, inner, v),
        coefficients=np.einsum("...xk,...k->...x", v, solved),
    )


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
    z, x = _matrix(treatment_proxy), _matrix(outcome_proxy)
    free = np.ones((n_rows, 1)) if covariates is None else np.column_stack([np.ones(n_rows), covariates])
    arms = np.unique(treatment[w > 0])
    if len(arms) < 2:
        raise ModelError("two_stage needs at least two arms with rows")
    share, total = w / w.sum(), float(w.sum())
    dummies = (np.asarray(treatment)[:, None] == arms[1:]).astype(float)
    full = np.column_stack([free, dummies])
    rest = _partial(np.column_stack([z, x]), full, share)
    to_z, to_x = _root(rest[:, : z.shape[1]], share), _root(rest[:, z.shape[1] :], share)
    zw = rest[:, : z.shape[1]] @ to_z
    effect, influence, kept = _solve_stages(y, dummies, free, zw, x @ to_x, share, rank)
    ordinary, se_ordinary = _regress(y, dummies, np.column_stack([free, z, x]), share, total)
    strength = [_directions(z, x, full, w, None)]
    strength += [_directions(z, x, free, w * (treatment == t), float(t)) for t in arms]
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
    xw = _partial(x, full, share)
    # The treatment, partialled for the covariates, gives its coefficients once the bridge is known.
    own = _partial(dummies, free, share)
    own = own @ np.linalg.pinv(own.T @ (share[:, None] * own))
    most = min(zw.shape[1], xw.shape[1])
    kept = most if rank is None else min(rank, most)
    moments, target = zw.T @ (share[:, None] * xw), zw.T @ (share * y)
    solved = truncated_solution(moments, target, own.T @ (share[:, None] * x), kept)
    effect = own.T @ (share * y) - solved.value
    residual = _partial((y - x @ solved.coefficients)[:, None], full, share)
    influence = own * residual - (zw @ solved.by_target.T) * residual
    if kept < most:
        turning = solved.by_moments + solved.by_target[:, :, None] * solved.coefficients
        influence -= np.einsum("nz,tzx,nx->nt", zw, turning, xw)
    return effect, influence, kept


def _matrix(columns: Array) -> Array:
    return np.asarray(columns, dtype=float).reshape(len(columns), -1)


def _partial(columns: Array, on: Array, share: Array) -> Array:
    """Residuals of a weighted regression; dependent regressors do no harm."""
    basis = on @ _independent(on, share)
    return np.asarray(columns - basis @ (basis.T @ (share[:, None] * columns)))


def _independent(columns: Array, share: Array) -> Array:
    """Map columns to an orthonormal basis in their order, leaving out columns that repeat earlier ones."""
    scale = np.sqrt(share @ columns**2)
    scale[scale == 0] = 1.0
    r = np.linalg.qr(np.sqrt(share)[:, None] * (columns / scale), mode="r")
    keep = np.flatnonzero(np.abs(np.diagonal(r)) > DEPENDENT)
    r = np.linalg.qr(np.sqrt(share)[:, None] * (columns[:, keep] / scale[keep]), mode="r")
    out = np.zeros((columns.shape[1], len(keep)))
    out[keep] = np.linalg.inv(r * np.sign(np.diagonal(r))[:, None]) / scale[keep, None]
    return out


def _root(columns: Array, share: Array) -> Array:
    """Map columns of mean zero to uncorrelated ones of variance 1."""
    mapping = _independent(columns, share)
    if not mapping.shape[1]:
        raise ModelError("the proxies of one side are constant given treatment and covariates")
    return mapping


def _regress(y: Array, dummies: Array, others: Array, share: Array, total: float) -> tuple[Array, Array]:
    own = _partial(dummies, others, share)
    own = own @ np.linalg.pinv(own.T @ (share[:, None] * own))
    residual = _partial(y[:, None], np.column_stack([others, dummies]), share)
    return own.T @ (share * y), np.sqrt(share @ (own * residual) ** 2 / total)


def _directions(z: Array, x: Array, given: Array, weights: Array, arm: float | None) -> ProxyDirections:
    share, n = weights / weights.sum(), float(weights.sum())
    rest = _partial(np.column_stack([z, x]), given, share)
    zr, xr = rest[:, : z.shape[1]], rest[:, z.shape[1] :]
    to_z, to_x = _root(zr, share), _root(xr, share)
    u, r, vt = np.linalg.svd((zr @ to_z).T @ (share[:, None] * (xr @ to_x)), full_matrices=False)
    gain = -np.log1p(-(np.minimum(r, 1 - 1e-12) ** 2))
    dz, dx, p = to_z.shape[1], to_x.shape[1], _independent(given, share).shape[1]
    scale = max(n - p - (dz + dx + 1) / 2, 0.0)
    p_value = [stats.chi2.sf(scale * gain[i:].sum(), (dz - i) * (dx - i)) for i in range(len(r))]
    return ProxyDirections(arm=arm, n=n, correlation=r, p_value=np.array(p_value), z=to_z @ u, x=to_x @ vt.T)


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
    more = np.zeros((n_rows, 0)) if covariates is None else _matrix(covariates)
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
    n_base = _independent(base, within).shape[1]
    both = [np.column_stack([base, side[:, 1:]]) for side in (z, x)]
    # Orthonormal within the arm, covariates first: the moments are then 1 for these and the canonical
    # correlations of the proxies given them, so that truncation only ever drops directions of proxies.
    zw, xw = (side @ _independent(side, within) for side in both)
    kept = min(zw.shape[1], xw.shape[1])
    kept = kept if rank is None else min(kept, n_base + rank - 1)
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
        turned = np.einsum("nz,zx,nx->n", zw, solved.by_moments[0], xw) / p
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceSet:
    """Every average effect that the moments do not reject.

    Attributes
    ----------
    intervals : tuple of (float, float)
        Disjoint, ascending, in units of the outcome; ends may be infinite. Empty: the moments
        reject every value, so that an assumption fails.
    bounded : bool
        Whether all ends are finite.
    df : int
        Degrees of freedom of the chi-square quantile.
    """

    intervals: tuple[tuple[float, float], ...]
    bounded: bool
    df: int

    def contains(self, value: float) -> bool:
        """Whether the set holds this effect."""
        return any(low <= value <= high for low, high in self.intervals)


def anderson_rubin_set(
    outcome: Array,
    arm: Ints,
    z: Array,
    x: Array,
    weights: Array | None = None,
    *,
    contrast: tuple[int, int] = (1, 0),
    level: float = 0.9,
) -> ConfidenceSet:
    r"""Invert a test of the bridge's average effect whose size does not depend on proxy strength.

    With two classes the bridge of an arm is ``c_t + b_t x``. For hypothesised slopes and effect the
    moments are, per arm, the covariances of Z with ``Y - b_t x`` and, once, the effect that the slopes
    imply less the hypothesised one. Their joint quadratic form is asymptotically chi-square whatever
    the strength of Z. The set holds every effect that some pair of slopes carries below the quantile.

    Parameters
    ----------
    outcome : ndarray of shape (patterns,)
        Outcome, in its units.
    arm : ndarray of int, shape (patterns,)
        Treatment arm.
    z : ndarray of shape (patterns, d)
        Treatment-side features without a constant.
    x : ndarray of shape (patterns,)
        One outcome-side score, chosen without a look at Z, T and Y.
    weights : ndarray of shape (patterns,), optional
        Counts.
    contrast : tuple of int
        Arm and reference.
    level : float
        Asymptotic coverage is at least this.

    Notes
    -----
    Degrees of freedom are 2 d + 1. The intercepts, always well identified, are solved for and cost
    none; the slopes are projected out, so the set is conservative: with strong proxies it is 1.5
    times as wide as the delta method's interval at d = 1 and level 0.9.

    References
    ----------
    .. [1] Stock, J. H. and Wright, J. H. (2000). GMM with weak identification. Econometrica 68(5),
       1055-1096.
    """
    y, score = np.asarray(outcome, dtype=float), np.asarray(x, dtype=float)
    w = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=float)
    if score.ndim != 1:
        raise ModelError("anderson_rubin_set takes one outcome-side score: two classes, one slope per arm")
    insides = [w * (arm == t) / w.sum() for t in contrast]
    if any(not inside.sum() > 0 for inside in insides):
        raise ModelError(f"both arms of the contrast {contrast} need rows")
    share, score = w / w.sum(), score - w @ score / w.sum()
    columns = np.column_stack([np.ones(len(y)), z])
    columns = (columns @ _independent(columns, share))[:, 1:]  # a repeated feature costs no freedom
    df = 2 * columns.shape[1] + 1
    flat = any(np.ptp(score[inside > 0]) == 0 for inside in insides)
    if flat or not columns.shape[1]:  # nothing bears on a slope
        return ConfidenceSet(intervals=((-np.inf, np.inf),), bounded=False, df=df)
    sides = [_slopes(y, inside, columns, score) for inside in insides]
    limit = float(stats.chi2.ppf(level, df))
    low, high = _effects_at(sides, float(share @ score**2), limit, float(w.sum()))
    intervals = _joined(low, high, FAR * max(float(np.ptp(y[w > 0])), 1e-300))
    bounded = all(np.isfinite(pair).all() for pair in intervals)
    return ConfidenceSet(intervals=intervals, bounded=bounded, df=df)


def _joined(low: Array, high: Array, far: float) -> tuple[tuple[float, float], ...]:
    """Union of the intervals at all slopes; ends beyond ``far`` become infinite."""
    # Slopes that hang together on the grid give effects that hang together.
    label, n_found = ndimage.label(np.isfinite(low), structure=np.ones((3, 3)))
    index = np.arange(1, n_found + 1)
    first, last = ndimage.minimum(low, label, index), ndimage.maximum(high, label, index)
    joined: list[tuple[float, float]] = []
    for a, b in sorted(zip(np.atleast_1d(first).tolist(), np.atleast_1d(last).tolist(), strict=True)):
        start, end = a if a > -far else -np.inf, b if b < far else np.inf
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slopes:
    """One arm at every slope of a grid: statistic, effect part, and moments with the effect."""

    slope: Array
    mean: Array
    statistic: Array
    shift: Array
    fit: Array
    variance: Array
    residual_x: Array


def _slopes(y: Array, inside: Array, z: Array, x: Array) -> _Slopes:
    """Evaluate the moments of one arm on a grid of slopes; ``x`` has mean zero over everybody."""
    rows = inside > 0
    p = float(inside.sum())
    v = inside[rows] / p
    y, z, x = y[rows], z[rows], x[rows]
    mean_y, mean_x = float(v @ y), float(v @ x)
    yc, zc, xc = y - mean_y, z - v @ z, x - mean_x
    slope = _grid(yc, zc, xc, v)
    # Residuals are linear in the slope, their products quadratic: sums over rows are formed only once.
    one, base, d = np.column_stack([np.ones_like(slope), -slope]), np.stack([yc, xc]), z.shape[1]
    two = (one[:, :, None] * one[:, None]).reshape(-1, 4)
    squares = (v * base[:, None] * base).reshape(4, -1)
    c = one @ ((v * base) @ zc)
    products = (zc[:, :, None] * zc[:, None]).reshape(-1, d * d)
    spread = ((two @ (squares @ products)).reshape(-1, d, d) - c[:, :, None] * c[:, None]) / p
    with_r, with_x = two @ (squares @ zc) / p, one @ ((v * x * base) @ zc) - mean_x * c
    inverse = np.linalg.pinv(spread, rcond=1e-10, hermitian=True)
    own = with_r + slope[:, None] * with_x
    pair = np.stack([c, own, with_x], axis=1)
    form = pair @ inverse @ np.swapaxes(pair, -1, -2)
    residual_x = one @ (base @ (v * x))
    return _Slopes(
        slope=slope,
        mean=mean_y - slope * mean_x,
        statistic=form[:, 0, 0],
        shift=form[:, 0, 1:],
        fit=form[:, 1:, 1:],
        variance=two @ squares.sum(axis=1) / p + 2 * slope * residual_x,
        residual_x=residual_x,
    )


def _grid(y: Array, z: Array, x: Array, v: Array) -> Array:
    """Slopes around the two-stage estimate and around zero, each out to practically infinite."""
    sd_y, sd_x = (max(float(v @ column**2) ** 0.5, 1e-150) for column in (y, x))
    natural = sd_y / sd_x
    zx, zy, zz = z.T @ (v * x), z.T @ (v * y), z.T @ (v[:, None] * z)
    to_z = np.linalg.pinv(zz) @ zx
    first = float(zx @ to_z)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 123)[1:-1]
    far = natural * np.array([1e3, 1e5, 1e7])
    parts = [natural * np.tan(angle), far, -far]
    if first > 1e-20 * sd_x**2:
        center = float(zy @ to_z) / first
        parts += [np.array([center])]
        parts += [center + s * natural * np.tan(angle) for s in (0.1, 0.01)]
    return np.unique(np.concatenate(parts))


def _effects_at(sides: list[_Slopes], var_x: float, limit: float, n: float) -> tuple[Array, Array]:
    """Bound the effects at every pair of slopes; NaN where there are none."""
    one, two = sides
    b1, b0 = one.slope[:, None], two.slope[None, :]
    # The effect's influence function is I_1 - I_0; the spread of x over everybody links the arms.
    center = one.mean[:, None] - two.mean
    center = center - (one.shift[:, :1] - b0 * one.shift[:, 1:])
    center = center + (two.shift[:, 0] - b1 * two.shift[:, 1])
    variance = one.variance[:, None] + two.variance + (b1 - b0) ** 2 * var_x
    variance = variance - 2 * (b0 * one.residual_x[:, None] + b1 * two.residual_x)
    for side, other, axis in ((one, b0, 1), (two, b1, 0)):
        own, cross, square = (
            np.expand_dims(f, axis) for f in (side.fit[:, 0, 0], side.fit[:, 0, 1], side.fit[:, 1, 1])
        )
        variance = variance - (own - 2 * other * cross + other**2 * square)
    room = limit / n - (one.statistic[:, None] + two.statistic)
    half = np.sqrt(np.where(room >= 0, np.maximum(variance, 0.0) * np.maximum(room, 0.0), np.nan))
    return center - half, center + half
