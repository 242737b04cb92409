"""Two ranks: classes that the proxies support, and distinct effects. NumPy and SciPy."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.hierarchy import REACHED, hierarchy
from pymc_mte.moments.bootstrap import replicate, robust_se
from pymc_mte.moments.features import build_moments
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.spectral import subspace_operators
from pymc_mte.moments.strength import bartlett, noise_level, whitened_cross

Array = NDArray[np.float64]
Evidence = Literal["bootstrap", "bartlett", "exact"]

LEVEL = 0.05
"""A rank is rejected below this p-value."""

MIN_BOOT = 100
"""Fewer replicates do not give a null distribution."""

N_BOOT = 200
"""Replicates that suffice: the test needs two moments of the null distribution, not its tail."""

EXACT = 1e-8
"""Without sampling error, what is smaller (on standardised scales) is rounding."""

WINSOR = 4.0
"""Replicates of effect moments are pulled in to this many robust standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRank:
    """How many directions the proxies of the two sides share within one arm.

    Attributes
    ----------
    arm : int
        Level number of the arm.
    n : float
        Rows in the arm, times sampling weights if there are any.
    correlation : ndarray of shape (directions,)
        Canonical correlations, largest first; the constant is left out.
    se : ndarray of shape (directions,)
        Bootstrap standard deviations; NaN without replicates.
    statistic, df, p_value : ndarray of shape (directions,)
        Entry r - 1 tests "at most r classes": canonical correlations r and all smaller are zero.
        ``statistic`` is to be compared with the chi-squared distribution of ``df`` degrees of
        freedom, which need not be whole. NaN for exact shares, whose p-values are 0 or 1.
    noise : ndarray of shape (directions,)
        Entry r - 1: canonical correlation r stays below this in 95 of 100 samples if it and all
        smaller ones are zero. 0 for exact shares.
    """

    arm: int
    n: float
    correlation: Array
    se: Array
    statistic: Array
    df: Array
    p_value: Array
    noise: Array

    @property
    def supported(self) -> int:
        """Classes told from noise in this arm: one more than the ranks rejected in sequence."""
        return 1 + int(np.cumprod(self.p_value < LEVEL).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectRank:
    """How many distinct values the class effects take.

    Attributes
    ----------
    contrast : (int, int)
        Level numbers of the arm and of the reference arm.
    moment : ndarray of shape (2 * classes,)
        ``E[effect^l]``, l = 0, 1, ..., in powers of the outcome's unit: the Hankel matrix of its
        entries has the number of distinct effects as its rank.
    statistic, df, p_value : ndarray of shape (classes - 1,)
        Entry r - 1 tests "at most r distinct effects", on the scale of `ArmRank`.
    """

    contrast: tuple[int, int]
    moment: Array
    statistic: Array
    df: Array
    p_value: Array

    @property
    def distinct(self) -> int:
        """Distinct effects told from noise: one more than the ranks rejected in sequence."""
        return 1 + int(np.cumprod(self.p_value < LEVEL).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Both ranks of one data set, with their evidence.

    Attributes
    ----------
    evidence : {"bootstrap", "bartlett", "exact"}
        Where the p-values come from. Bartlett's approximation stands in where there are too few
        replicates, or counts that are not whole; it knows neither clusters nor effects. Shares that
        sum to 1 carry no sampling error, and their ranks are exact.
    arms : tuple of ArmRank
        Every arm that occurs.
    anchors : tuple of int
        Places in ``arms`` of those with positivity.
    effects : EffectRank or None
        None where the graph does not reach effects per class, an arm of the contrast lacks
        positivity, the proxies have fewer features than classes, or the evidence is Bartlett's.
    """

    evidence: Evidence
    arms: tuple[ArmRank, ...]
    anchors: tuple[int, ...]
    effects: EffectRank | None

    @property
    def supported(self) -> int:
        """Classes that the proxies tell from noise in every arm with positivity."""
        return min(self.arms[i].supported for i in self.anchors)


def measure_ranks(problem: Problem, n_boot: int, rng: np.random.Generator) -> Ranks:
    r"""Test the ranks of the proxies' cross-moments in every arm, and of the effect moments.

    With the singular value decomposition :math:`C = U \Sigma V'` of a whitened cross-covariance,
    "at most r classes" is tested by the sum of squares of the canonical correlations from the
    r-th on. Under it this sum is distributed as :math:`\|U_0' (C^* - C) V_0\|^2`, where the
    directions :math:`U_0, V_0` that the sum uses stay fixed over resamples :math:`C^*`: a weighted sum
    of chi-squared variables, matched in mean and variance.

    "At most r distinct effects" says that some polynomial of degree r vanishes at every effect, so
    that Cov(phi_Z, effect^r) is a combination of the covariances with lower powers. What is left of
    it is tested in the same way.

    Parameters
    ----------
    problem : Problem
        A model with a treatment and proxies on both sides.
    n_boot : int
        Bootstrap replicates at hand; at most 200 are used.
    rng : numpy.random.Generator
        Source of the resamples.

    Returns
    -------
    Ranks

    Notes
    -----
    The smallest singular value resampled about itself is not a valid null distribution: it cannot be
    negative, and grows under resampling. Nor is a square Hankel matrix of effect moments tested by
    its smallest eigenvalue: under the hypothesis its first derivative vanishes. Moments with the
    treatment-side features have the same rank and a normal limit.

    References
    ----------
    .. [1] Chen, Q. and Fang, Z. (2019). Improved inference on the rank of a matrix. Quantitative
       Economics 10, 1787-1824.
    .. [2] Kleibergen, F. and Paap, R. (2006). Generalized reduced rank tests using the singular value
       decomposition. Journal of Econometrics 133, 97-126.
    """
    exact, whole = problem.sampling.exact, problem.sampling.whole
    evidence: Evidence = "exact" if exact else "bootstrap" if whole and n_boot >= MIN_BOOT else "bartlett"
    effects = _EffectMoments.of(problem) if evidence != "bartlett" and _reaches_effects(problem) else None

    def statistic(drawn: Array) -> dict[str, Array]:
        out = {"cross": whitened_cross(problem, drawn)}
        if effects is not None:
            out["effects"] = effects.covariance(drawn)
        return out

    point = statistic(problem.counts[None])
    draws: dict[str, Array] = {}
    if evidence == "bootstrap":
        draws = replicate(problem.sampling, min(n_boot, N_BOOT), rng, statistic)
    sizes = problem.arm_counts(problem.counts[None])[0]
    return Ranks(
        evidence=evidence,
        arms=tuple(
            _arm_rank(
                problem.arms[i],
                float(sizes[i]),
                point["cross"][0, i],
                draws["cross"][:, i] if draws else None,
                exact,
                problem.n_given,
            )
            for i in range(len(problem.arms))
        ),
        anchors=problem.anchors,
        effects=None if effects is None else _effect_rank(effects, point["effects"][0], draws.get("effects")),
    )


def _arm_rank(arm: int, n: float, cross: Array, draws: Array | None, exact: bool, n_given: int) -> ArmRank:
    left, correlation, right = np.linalg.svd(cross)
    correlation = np.clip(correlation, 0.0, 1.0)
    k = len(correlation)
    se = np.full(k, np.nan)
    spread = np.zeros(k)
    if exact:
        statistic, df, p = _exact_tests(correlation)
    elif draws is None:
        statistic, df, p = bartlett(correlation, n - n_given + 1, *cross.shape)
        spread[:] = 1 / max(n, 1.0)
    else:
        turned = left.T @ draws @ right.T
        tests = [_quadratic(np.diag(correlation[r:]), turned[:, r:, r:]) for r in range(k)]
        statistic, df, p = np.array(tests).reshape(k, 3).T
        se = np.linalg.svd(draws, compute_uv=False).std(axis=0, ddof=1)
        variance = turned.var(axis=0, ddof=1)
        spread = np.array([variance[r:, r:].mean() for r in range(k)])
    dz, dx = cross.shape
    return ArmRank(
        arm=arm,
        n=n,
        correlation=correlation,
        se=se,
        statistic=statistic,
        df=df,
        p_value=p,
        noise=np.array([noise_level(dz - r, dx - r, spread[r], LEVEL) for r in range(k)]),
    )


def _exact_tests(size: Array) -> tuple[Array, Array, Array]:
    nothing = np.full(len(size), np.nan)
    return nothing, nothing, np.where(size > EXACT, 0.0, 1.0)


def _quadratic(value: Array, draws: Array) -> tuple[float, float, float]:
    """Compare a sum of squares with its bootstrap null distribution: statistic, df, p-value.

    The traces of the covariance and of its square give mean and variance of the weighted sum of
    chi-squared variables; the noise of the estimated covariance is taken out of the second.
    """
    centred = draws.reshape(len(draws), -1)
    centred = centred - centred.mean(axis=0)
    b = len(centred) - 1
    gram = centred @ centred.T if b < centred.shape[1] else centred.T @ centred
    first = float(np.trace(gram)) / b
    if not first > 0:
        return np.nan, np.nan, 1.0
    second = (float((gram**2).sum()) / b**2 - first**2 / b) / (1 + 1 / b)
    df = float(np.clip(first**2 / max(second, 1e-300), 1.0, centred.shape[1]))
    statistic = float((value**2).sum()) * df / first
    return statistic, df, float(stats.chi2.sf(statistic, df))


def _reaches_effects(problem: Problem) -> bool:
    """Whether distinct effects can be counted: by the graph, the features and positivity."""
    model = problem.model
    if (
        problem.covariates is not None
        or model.censored
        or model.classes < 2
        or not REACHED[hierarchy(model).level] >= {"effect"}
    ):
        return False
    narrow = min(problem.z.values.shape[1], problem.x.values.shape[1])
    sound = {problem.arms[i] for i in problem.anchors}
    return narrow >= model.classes and set(model.contrasts[0]) <= sound


@dataclass(frozen=True, slots=True, kw_only=True)
class _EffectMoments:
    """Moments of powers of the effect with the treatment-side features, for a batch of counts.

    The effect is centred and scaled by numbers from the point estimate.
    """

    problem: Problem
    moment: Array
    centre: float
    scale: float
    rows: Array

    @classmethod
    def of(cls, problem: Problem) -> "_EffectMoments":
        k = problem.model.classes
        point, whole = _effect_moments(problem, problem.counts[None], 0.0, 1.0, 2 * k - 1)
        moment = point[0, :, 0]
        variance = float(moment[2] - moment[1] ** 2)
        floor = 1e-6 * problem.outcome_sd
        return cls(
            problem=problem,
            moment=moment,
            centre=float(moment[1]),
            scale=float(np.sqrt(variance)) if variance > floor**2 else problem.outcome_sd,
            rows=np.linalg.svd(whole[0, 1:])[0][:, : k - 1],
        )

    def covariance(self, counts: Array) -> Array:
        """Cov(phi_Z, effect^l), l = 1..K-1, in the K - 1 directions of phi_Z that tell classes."""
        n_orders = self.problem.model.classes - 1
        moment, _ = _effect_moments(self.problem, counts, self.centre, self.scale, n_orders)
        mean = moment[:, 0, 1:]
        cov = moment[:, 1:, 1:] - moment[:, 1:, :1] * mean[:, None, :]
        return np.asarray(np.swapaxes(cov @ self.rows, -1, -2))


def _effect_moments(
    problem: Problem, counts: Array, centre: float, scale: float, n_orders: int
) -> tuple[Array, Array]:
    """Moments ``E[phi_Z effect^l]``, l = 0..n_orders: (batch, l, d_z); and ``E[phi_Z phi_X'] V``."""
    k = problem.model.classes
    b, a = (problem.arms.index(t) for t in problem.model.contrasts[0])
    arm = np.searchsorted(problem.arms, problem.arm)
    moments = build_moments(
        counts, problem.z.values, problem.x.values, arm, len(problem.arms), problem.outcome[None]
    )
    basis, g = subspace_operators(moments, k, problem.anchors)
    step = (g[:, 0, b] - g[:, 0, a] - centre * np.eye(k)) / scale
    whole = moments.m.sum(axis=-3) @ basis
    power = [basis[:, 0, :, None]]
    for _ in range(n_orders):
        power.append(step @ power[-1])
    return np.stack([(whole @ v)[..., 0] for v in power], axis=1), whole


def _effect_rank(effects: _EffectMoments, point: Array, draws: Array | None) -> EffectRank:
    tests, left = [], []
    if draws is not None:
        draws = draws[np.isfinite(draws).all(axis=(1, 2))]
    for r in range(1, len(point) + 1):
        lower, target = point[:, : r - 1], point[:, r - 1]
        polynomial = np.append(-np.linalg.lstsq(lower, target)[0], 1.0)
        across = np.linalg.qr(lower, mode="complete")[0][:, r - 1 :]
        rest = target @ across
        left.append(float(np.linalg.norm(rest)))
        if draws is None:
            continue
        if len(draws) < MIN_BOOT:
            tests.append((np.nan, np.nan, 1.0))
            continue
        spread = draws[..., :r] @ polynomial @ across
        middle, width = np.median(spread, axis=0), WINSOR * robust_se(spread)
        tests.append(_quadratic(rest, np.clip(spread, middle - width, middle + width)))
    if draws is None:
        statistic, df, p = _exact_tests(np.array(left))
    else:
        statistic, df, p = np.array(tests).T
    model = effects.problem.model
    return EffectRank(
        contrast=model.contrasts[0], moment=effects.moment, statistic=statistic, df=df, p_value=p
    )
