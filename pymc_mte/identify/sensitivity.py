"""`sensitivity`: how the answers move when one forbidden edge is allowed with a stated strength."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.polynomial import chebyshev, legendre
from numpy.typing import NDArray
from scipy import optimize, special, stats

from pymc_mte.data import data_notes, resolve
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.identify.extra_edge import ExtraEdge, Fit, check_edge
from pymc_mte.identify.likelihood import few_features
from pymc_mte.model import CausalModel
from pymc_mte.moments.likelihood import ordered_fit
from pymc_mte.moments.positivity import ArmSupport, arm_support, failing_arms, refused_mask
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.moments.rank import MIN_BOOT, measure_ranks
from pymc_mte.moments.rank_report import rank_notes
from pymc_mte.results import INTERVAL
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]
Shift = tuple[float, ...]

FIRST_INTERVALS = {1: 8, 2: 4}
"""Intervals per side of the first grid of fits, by the number of shifts; 2 with more of them."""

MAX_FITS, MAX_REFINED = 729, 100
"""Largest first grid of fits (six arms), and largest one that a grid is refined to."""

FINE = {1: 201, 2: 61, 3: 15, 4: 7}
"""Nodes per side of the quadrature over shifts, by their number; 5 with more of them."""

MISSED, BENT = 0.1, 0.01
"""The grid is refined until it foretells the log-likelihood at the posterior's peak to the first, and
answers between its points to the second, a share of the range that they can have at all."""

BETWEEN = 0.85
"""Where answers are foretold: this share of the strength, on either side of every shift."""

RESOLUTION = 1e-4
"""Ends of a range are pursued down to this share of the range that the answer can have at all."""


def sensitivity(
    model: CausalModel,
    data: Any = None,
    *,
    edge: tuple[str, str],
    strength: float | Sequence[float] = (0.0, 0.25, 0.5),
    level: float = INTERVAL,
) -> pd.DataFrame:
    """Bound the answers while one edge that the graph forbids is allowed.

    The edge shifts its child by at most ``strength``: in log-odds for a binary child, in pooled
    standard deviations for a continuous one, per pooled standard deviation of the parent, whose levels
    count 0, 1, 2, ... The shift is alike in all classes. A child that also depends on the treatment may
    be shifted by another amount, even another sign, in every arm. Each shift is held fixed while the
    rest of the model is fitted again by maximum likelihood.

    Parameters
    ----------
    model : CausalModel
        A model with treatment and outcome, whose graph lacks the edge.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    edge : tuple of str
        Parent and child. The parent must be discrete, the child bernoulli, normal or student_t.
    strength : float or sequence of float
        Largest shifts, not negative; 0 gives the answer of the graph as it is.
    level : float
        Confidence of the intervals whose ends are bounded, between 0 and 1. At 0.9 the bounds of several
        answers at once miss one of them oftener than one time in ten; 0.999 allows for many answers.

    Returns
    -------
    pandas.DataFrame
        Indexed by functional (``effect[class 0]``) and strength; answers in units of the outcome.
        ``low``, ``high``: range of the estimates over the shifts up to the strength;
        ``low_90``, ``high_90`` (named by the level): the same for the ends of each shift's interval (a
        sandwich error, by cluster and weight), cut at what the answer can be;
        ``posterior_mean``, ``posterior_low``, ``posterior_high``: mean and 90% interval over shifts
        drawn from Normal(0, strength / 2), cut at the strength, and weighted by how well they fit;
        ``misfit``: log-likelihood that the best shift gains over none. NaN where an arm is empty or
        lacks positivity, or the likelihood does not fix the answer; all but ``low`` and ``high`` are
        NaN for shares. ``attrs["notes"]``: statuses with advice, as JSON.

    Raises
    ------
    ModelError
        If the edge is in the graph already, closes a cycle, or joins variables of other families; if
        a strength is negative or not finite; if the level is not between 0 and 1.
    RefusedError
        If the model has covariates, linear parents or strata.

    Notes
    -----
    The estimates are found at Chebyshev points of all shifts and interpolated between them; the
    ends of the range are fitted themselves. Other optima of the likelihood are looked for at the
    corners. Given the shift, the other parameters have Jeffreys' prior: it cancels the determinant of
    Laplace's approximation, so that shifts weigh by their profile likelihood, scaled by the scores'
    variance where rows have weights or come in clusters. Where a shift fits as well as none, only the
    prior speaks.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> table = sensitivity(model, simulate(model, 2_000, rng=1), edge=("x", "y"), strength=[0, 0.5])
    >>> bool(table.loc[("ate", 0.5), "low"] <= table.loc[("ate", 0.0), "low"])
    True
    """
    wanted = _strengths(strength)
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1, as in 0.9; got {level!r}")
    model, table = resolve(model, data)
    parent, child = check_edge(model, edge)
    if model.covariates or model.strata:
        raise RefusedError("sensitivity fits the graph's likelihood, which takes no covariates or strata yet")
    problem = problem_of(model, table)
    allowed = ExtraEdge(problem, parent, child)
    if 3**allowed.n_shifts > MAX_FITS:
        raise ModelError(
            f"edge: {child!r} is shifted apart in {allowed.n_shifts} arms, more than 6; merge arms"
        )
    support = arm_support(model, problem.columns, problem.counts)
    notes = [*data_notes(table), *problem.z.notes, *problem.x.notes, *_doubts(problem, support)]
    counted = table["count"].dtype.kind == "i"
    if not counted:
        notes.append(Note(Status.SHARES_ONLY, "count"))
    start = allowed.start(ordered_fit(problem))
    none = allowed.fit([start], np.zeros(allowed.n_shifts))
    open_ones = _not_fixed(problem, none)
    if open_ones.any():
        names = ", ".join(label for (_, label, _), o in zip(allowed.answers, open_ones, strict=True) if o)
        notes.append(Note(Status.NOT_CONVERGED, names, "not fixed by the likelihood"))
    blank = open_ones | _refused(allowed, support)
    rows: list[dict[str, object]] = []
    fits = [none]
    for s in wanted:
        found = _explore(allowed, none, s, float(stats.norm.ppf(0.5 + level / 2)))
        fits += found.fits  # a larger strength allows what a smaller one does
        rows += _rows(allowed, found, fits, blank, counted, level)
        if found.rough:
            notes.append(Note(Status.NOT_CONVERGED, f"strength {s:g}", "answers jump as the shift grows"))
    answers = pd.DataFrame(rows).set_index(["functional", "strength"]).sort_index(kind="stable")
    answers.attrs = {"edge": f"{parent} -> {child}", "notes": dump_notes(notes)}
    return answers


def _strengths(strength: float | Sequence[float]) -> list[float]:
    try:
        wanted = sorted({float(s) for s in np.atleast_1d(np.asarray(strength, dtype=float))})
    except (TypeError, ValueError):
        raise ModelError(f"strength must list numbers, as in [0, 0.5]; got {strength!r}") from None
    if not wanted or wanted[0] < 0 or not np.isfinite(wanted).all():
        raise ModelError(f"strength must list finite numbers that are not negative, got {strength!r}")
    return wanted


def _doubts(problem: Problem, support: tuple[ArmSupport, ...]) -> Iterable[Note]:
    """Note what makes the answers doubtful before any edge is added: positivity, features, strength."""
    model = problem.model
    for arm in support:
        if arm.arm in failing_arms(model, support) and arm.share > 0:
            detail = f"only {arm.lowest:.2%} of the rows with {arm.place} have it"
            yield Note(Status.POSITIVITY, f"{model.treatment} = {model.arms[arm.arm]}", detail)
    yield from few_features(model)
    if _narrow(problem) < model.classes:
        detail = f"{_narrow(problem)} features on one side for {model.classes} classes"
        yield Note(Status.TOO_FEW_FEATURES, "proxies", detail)
    elif model.classes > 1 and len(problem.arms) > 1:
        yield from rank_notes(problem, measure_ranks(problem, MIN_BOOT, np.random.default_rng(problem.seed)))


def _narrow(problem: Problem) -> int:
    return int(min(problem.z.values.shape[1], problem.x.values.shape[1]))


def _not_fixed(problem: Problem, none: Fit) -> NDArray[np.bool_]:
    """Answers that the likelihood leaves open: by its information, or as the data lack proxies."""
    lacking = _narrow(problem) < problem.model.classes and not few_features(problem.model)
    return np.asarray(~np.isfinite(none.error) | lacking)


def _refused(allowed: ExtraEdge, support: tuple[ArmSupport, ...]) -> NDArray[np.bool_]:
    """Answers that would extrapolate an arm to a class that (almost) never gets it, or use an empty one."""
    model = allowed.model
    failing, empty = failing_arms(model, support), {arm.arm for arm in support if arm.share == 0}
    unseen = np.array([bool(empty & set(contrast)) for contrast in model.contrasts])
    out = []
    for name, _, index in allowed.answers:
        mask = refused_mask(model, name, failing)
        if name != "class_weight":
            mask = mask | unseen
        out.append(bool(np.ravel(mask)[index[-1] if mask.size > 1 else 0]))
    return np.array(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explored:
    """Answers over all shifts up to one strength.

    Attributes
    ----------
    strength : float
        Largest shift.
    fits : list of Fit
        All that were fitted.
    value, error : ndarray of shape (nodes, answers)
        Interpolated at the nodes of the quadrature.
    weight : ndarray of shape (nodes,)
        Posterior weight of the nodes.
    misfit : float
        Log-likelihood gained by the best shift.
    rough : bool
        Whether the finest grid still does not foretell what lies between its points.
    """

    strength: float
    fits: list[Fit]
    value: Array
    error: Array
    weight: Array
    misfit: float
    rough: bool


def _explore(allowed: ExtraEdge, none: Fit, strength: float, z: float) -> _Explored:
    """Fit a grid of shifts that is fine enough for one strength, and the ends of the ranges."""
    if strength == 0:
        return _Explored(
            strength=0.0,
            fits=[none],
            value=none.value[None],
            error=_finite(allowed, none.error)[None],
            weight=np.ones(1),
            misfit=0.0,
            rough=False,
        )
    d = allowed.n_shifts
    corners = [np.array(corner) for corner in product((-strength, strength), repeat=d)]
    starts = allowed.starts(none.free, corners)
    fits: dict[Shift, Fit] = {(0.0,) * d: none}

    def fit(shift: Iterable[float]) -> Fit:
        key = tuple(float(v) for v in shift)
        if key not in fits:
            near = [_nearest(fits, key).free] if intervals > first else []
            fits[key] = allowed.fit([*starts, *near], np.array(key))
        return fits[key]

    nodes, log_prior = _quadrature(strength, d)
    first = intervals = FIRST_INTERVALS.get(d, 2)
    width = np.diff(allowed.limits(), axis=1)[:, 0]
    while True:
        points = _chebyshev_points(strength, intervals)
        grid = [fit(shift) for shift in product(points, repeat=d)]
        packed = np.array([[f.log_likelihood, *f.value, *_finite(allowed, f.error)] for f in grid])
        smooth = _interpolate(packed.reshape(*[len(points)] * d, -1), points, strength, d)
        log_weight = smooth[:, 0] / none.inflation + log_prior
        peak = int(log_weight.argmax())
        between = _between(strength, nodes)
        checks = [fit(nodes[i]) for i in (peak, *between)]
        missed = abs(checks[0].log_likelihood - smooth[peak, 0]) / none.inflation
        found = np.array([check.value for check in checks])
        bent = np.abs(found - smooth[[peak, *between], 1 : len(width) + 1]) / width
        rough = bool(missed > MISSED or bent.max() > BENT)
        if not rough or (2 * intervals + 1) ** d > MAX_REFINED:
            break
        intervals *= 2
    weight = np.exp(log_weight - log_weight.max())
    q = len(width)
    value, error = smooth[:, 1 : q + 1], np.maximum(smooth[:, q + 1 :], 0.0)
    for shift in _extreme_shifts(allowed, list(fits.values()), nodes, value, error, z):
        fit(shift)
    gain = max(f.log_likelihood for f in fits.values()) - none.log_likelihood
    fitted = np.array([f.value for f in fits.values()])
    return _Explored(
        strength=strength,
        fits=list(fits.values()),
        value=np.clip(value, fitted.min(axis=0), fitted.max(axis=0)),
        error=error,
        weight=weight / weight.sum(),
        misfit=gain / none.inflation,
        rough=rough,
    )


def _finite(allowed: ExtraEdge, error: Array) -> Array:
    """Errors no larger than the range that an answer can have at all."""
    return np.minimum(error, np.diff(allowed.limits(), axis=1)[:, 0])


def _nearest(fits: dict[Shift, Fit], shift: Shift) -> Fit:
    return min(fits.items(), key=lambda item: sum((a - b) ** 2 for a, b in zip(item[0], shift, strict=True)))[
        1
    ]


def _between(strength: float, nodes: Array) -> list[int]:
    """Places of the nodes nearest to the corners of a smaller box."""
    corners = product((-BETWEEN * strength, BETWEEN * strength), repeat=nodes.shape[1])
    return [int(((nodes - np.array(corner)) ** 2).sum(axis=1).argmin()) for corner in corners]


def _chebyshev_points(strength: float, intervals: int) -> Array:
    """List the extremes of a Chebyshev polynomial, exactly symmetric; doubling the intervals keeps all."""
    right = np.cos(np.pi * np.arange(intervals // 2) / intervals) * strength
    return np.concatenate([-right, [0.0], right[::-1]])


def _fine_nodes(d: int) -> tuple[Array, Array]:
    node, weight = legendre.leggauss(FINE.get(d, 5))
    return np.asarray(node), np.asarray(weight)


def _quadrature(strength: float, d: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes over the box of shifts: (nodes, shifts), and the log of prior times weight."""
    node, weight = _fine_nodes(d)
    log_prior = np.log(weight) - 0.5 * (2 * node) ** 2
    nodes = np.array(list(product(node * strength, repeat=d)))
    return nodes, np.array([sum(each) for each in product(log_prior, repeat=d)])


def _interpolate(table: Array, points: Array, strength: float, d: int) -> Array:
    """Polynomial interpolation of a table over d axes of points, at the quadrature's nodes."""
    degree = len(points) - 1
    inverse = np.linalg.inv(chebyshev.chebvander(points / strength, degree))
    onto = chebyshev.chebvander(_fine_nodes(d)[0], degree) @ inverse
    for axis in range(d):
        table = np.moveaxis(np.tensordot(onto, table, axes=(1, axis)), 0, axis)
    return np.asarray(table.reshape(-1, table.shape[-1]))


def _extreme_shifts(
    allowed: ExtraEdge, fits: list[Fit], nodes: Array, value: Array, error: Array, z: float
) -> list[Array]:
    """Shifts at which the interpolated answers or their limits go beyond all that were fitted."""
    fitted = np.array([f.value for f in fits])
    spread = np.array([_finite(allowed, f.error) for f in fits])
    slack = RESOLUTION * np.diff(allowed.limits(), axis=1)[:, 0]
    found = set()
    for times in (0.0, z):
        for sign in (-1.0, 1.0):
            reach, reached = sign * value + times * error, sign * fitted + times * spread
            best = reach.argmax(axis=0)
            beyond = reach.max(axis=0) > reached.max(axis=0) + slack
            found |= set(best[beyond].tolist())
    return [nodes[i] for i in sorted(found)]


def _rows(
    allowed: ExtraEdge,
    found: _Explored,
    fits: list[Fit],
    blank: NDArray[np.bool_],
    counted: bool,
    level: float,
) -> Iterable[dict[str, object]]:
    """One row per answer: the range over the fits, and the posterior over the nodes."""
    value = np.array([f.value for f in fits])
    error = stats.norm.ppf(0.5 + level / 2) * np.array([_finite(allowed, f.error) for f in fits])
    for a, (_, label, _) in enumerate(allowed.answers):
        least, most = allowed.limits()[a]
        low, high = value[:, a].min(), value[:, a].max()
        row = {
            "low": low,
            "high": high,
            f"low_{100 * level:g}": min(low, max(least, (value - error)[:, a].min())),
            f"high_{100 * level:g}": max(high, min(most, (value + error)[:, a].max())),
            "posterior_mean": float(found.weight @ found.value[:, a]),
        }
        ends = _mixture_interval(found.value[:, a], found.error[:, a], found.weight)
        row["posterior_low"], row["posterior_high"] = np.clip(ends, min(low, least), max(high, most))
        row["misfit"] = found.misfit
        for name in row:
            if (blank[a] and name != "misfit") or (not counted and name not in ("low", "high")):
                row[name] = np.nan
        yield {"functional": label, "strength": found.strength} | row


def _mixture_interval(mean: Array, sd: Array, weight: Array) -> tuple[float, float]:
    """Equal-tailed interval of a mixture of normals."""
    kept = weight > 1e-9 * weight.max()
    mean, sd, weight = mean[kept], np.maximum(sd[kept], 1e-12), weight[kept] / weight[kept].sum()
    ends = float((mean - 8 * sd).min()), float((mean + 8 * sd).max())

    def below(x: float) -> float:
        return float(weight @ special.ndtr((x - mean) / sd))

    tail = (1 - INTERVAL) / 2
    low = optimize.brentq(lambda x: below(x) - tail, *ends)
    high = optimize.brentq(lambda x: below(x) - 1 + tail, *ends)
    return float(low), float(high)
