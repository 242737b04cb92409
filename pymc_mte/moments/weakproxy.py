"""A confidence set for the average effect that weak proxies do not spoil. NumPy and SciPy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from pymc_mte.errors import ModelError
from pymc_mte.moments.truncated import independent

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FAR = 1e4
"""Ends of a confidence set beyond this many ranges of the outcome count as infinite."""


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
    columns = (columns @ independent(columns, share))[:, 1:]  # a repeated feature costs no freedom
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
