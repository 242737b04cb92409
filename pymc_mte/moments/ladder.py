"""The ladder of estimators, each resting on more than the one before, and tests of their gaps.

Bridge (averages, level ATE), spectral (level MTE, no likelihood) and the maximum-likelihood fit of the
graph answer the same questions from the same rows. NumPy and SciPy only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.functionals import functionals
from pymc_mte.hierarchy import hierarchy
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.bootstrap import Sampling, replicate, robust_se
from pymc_mte.moments.likelihood import ordered_fit, refit
from pymc_mte.moments.methods import Values, bridge_values, spectral_values
from pymc_mte.moments.positivity import PER_ARM, arm_support, failing_arms, refused_mask
from pymc_mte.moments.problem import Problem, make_problem
from pymc_mte.network import cell_columns, log_joint, log_sum_classes
from pymc_mte.results import dims_of, labels

Array = NDArray[np.float64]
Entry = tuple[str, str, tuple[Any, ...]]
"""A functional's name, its label and the index of one of its numbers."""

PAIRS = (("bridge", "spectral"), ("spectral", "ml"), ("bridge", "ml"))
"""Rungs that are set against each other; ``ml`` is the likelihood of the graph, without a prior."""

SMOOTH = ("ate", "att", "effect", "class_weight", "potential_outcome")
"""Functionals whose sampling error is normal in large samples."""

CLASS_AXES = {"class_weight": 1, "effect": 1, "potential_outcome": 1}

MAX_CELLS = 1 << 14
"""Tables up to this size are drawn anew from the fitted graph; of larger ones the rows are resampled."""

WINSOR = 4.0
"""Replicates are pulled in to this many robust standard deviations."""

RANK = 0.1
"""Directions of the gaps with a smaller share of the largest variance (on the scale of correlations) count
as sampling noise of second order and are left out of the joint test."""

COINCIDE = 1e-7
"""Rungs whose gap varies less than this share of the answer's own error are the same estimator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Two rungs set against each other.

    Attributes
    ----------
    rungs : (str, str)
        The one that rests on less first.
    entries : tuple of Entry
        The numbers that both rungs give.
    gap, se, z : ndarray of shape (entries,)
        First rung minus second, its standard error if the graph is right, and their ratio; NaN for ``z``
        where the two coincide.
    statistic : float
        Hausman's: the squared length of all gaps at once, in units of their covariance.
    df : int
        Numerical rank of that covariance; 0 where the rungs coincide.
    p_value : float
        Hotelling's, which allows for the covariance being estimated; NaN with ``df = 0``.
    root : ndarray of shape (entries, df)
        Gaps times this matrix are uncorrelated, of variance 1 if the graph is right.
    """

    rungs: tuple[str, str]
    entries: tuple[Entry, ...]
    gap: Array
    se: Array
    z: Array
    statistic: float
    df: int
    p_value: float
    root: Array

    def places(self, label: str) -> list[int]:
        """Places of a label among the entries: one or none."""
        return [i for i, entry in enumerate(self.entries) if entry[1] == label]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """All rungs on one data set.

    Attributes
    ----------
    values : dict of str to ndarray
        ``spectral_ate``, ``ml_effect``, ...: point values, with a batch axis of length 1.
    se : dict of str to ndarray
        Their robust bootstrap standard errors; empty without replicates.
    gaps : tuple of Gap
        One per pair of rungs that the graph has; none for shares, which carry no sampling error.
    simulated : bool
        Whether the replicates behind the gaps were drawn from the fitted graph (else rows were resampled).
    point : mapping of str to ndarray
        The maximum-likelihood parameters.
    """

    values: Values
    se: Values
    gaps: tuple[Gap, ...]
    simulated: bool
    point: Parameters


class Rungs:
    """Every rung on the same counts, the classes matched to a pivot.

    Parameters
    ----------
    problem : Problem
        The data set.
    point : mapping of str to ndarray, optional
        The data's maximum-likelihood estimate, from which resamples start; found if not given.
    pivot : ndarray of shape (classes, 1 + arms), optional
        Weights and potential outcomes (in SDs) of the classes to match; those of ``point`` by default.
    """

    def __init__(self, problem: Problem, point: Parameters | None = None, pivot: Array | None = None) -> None:
        self.problem, self.model = problem, problem.model
        self.level = hierarchy(problem.model).level
        self.usable = min(problem.z.values.shape[1], problem.x.values.shape[1]) >= problem.model.classes
        self.point = ordered_fit(problem) if point is None else point
        self.pivot = class_profile(problem, answers(self.model, self.point))[0] if pivot is None else pivot

    def __call__(self, counts: Array) -> Values:
        """Compute all rungs: names prefixed by ``bridge_``, ``spectral_`` or ``ml_``."""
        found = answers(self.model, refit(self.problem, counts, self.point).parameters)
        out = {f"ml_{n}": v for n, v in self.aligned(found).items()}
        if self.usable and self.level in ("mixture", "MTE"):
            values = self.aligned(spectral_values(self.problem, counts))
            out |= {f"spectral_{n}": values[n] for n in found if n in values}
        if self.usable and self.level in ("mixture", "MTE", "ATE"):
            values = bridge_values(self.problem, counts)
            out |= {f"bridge_{n}": values[n] for n in ("ate", "att")}
        return out

    def aligned(self, values: Values) -> Values:
        """Give the classes the numbers that the pivot has."""
        order, _ = match_classes(class_profile(self.problem, values), self.pivot)
        return {n: take_classes(v, order, CLASS_AXES[n]) if n in CLASS_AXES else v for n, v in values.items()}


def class_profile(problem: Problem, values: Values) -> Array:
    """Describe classes on comparable scales: (batch, classes, 1 + arms)."""
    outcome = values["potential_outcome"] / problem.outcome_sd
    return np.concatenate([values["class_weight"][..., None], outcome], axis=-1)


def answers(model: CausalModel, parameters: Parameters) -> Values:
    """Class weights and functionals of parameters."""
    return {"class_weight": parameters["class_weight"], **functionals(model, parameters)}


def climb_ladder(
    problem: Problem,
    n_boot: int,
    rng: np.random.Generator,
    *,
    point: Parameters | None = None,
    pivot: Array | None = None,
    errors: bool = True,
) -> Ladder:
    """Compute every rung that the graph has, and test the gaps between them.

    Parameters
    ----------
    problem : Problem
        A model with treatment and outcome.
    n_boot : int
        Paired replicates: all rungs see the same counts.
    rng : numpy.random.Generator
        Source of the replicates.
    point, pivot
        See `Rungs`.
    errors : bool
        Whether the rungs' own standard errors are wanted too, at the price of as many resamples.

    Notes
    -----
    Resampled rows exaggerate gaps: their distance from the fitted graph is the data's own plus that of
    the resample, and where a gap is of second order its spread doubles. So, where the table of a
    discrete model can be drawn anew, replicates come from the fitted graph, which is the hypothesis;
    otherwise rows are resampled and the gap of the data is taken out.

    References
    ----------
    .. [1] Hausman, J. A. (1978). Specification tests in econometrics. Econometrica 46, 1251-1271.
    """
    rungs = Rungs(problem, point, pivot)
    values = rungs(problem.counts[None])
    if n_boot < 2 or not problem.sampling.whole:
        return Ladder(values=values, se={}, gaps=(), simulated=False, point=rungs.point)
    null = fitted_table(problem, rungs.point)
    resampled = replicate(problem.sampling, n_boot, rng, rungs) if errors or null is None else {}
    draws = resampled
    if null is not None:
        anew = Rungs(null, rungs.point, rungs.pivot)
        draws = replicate(Sampling(counts=law_counts(null, rungs.point)), n_boot, rng, anew)
    gaps = []
    for pair in PAIRS:
        entries = _entries(problem, values, pair)
        if entries:
            gap = stacked(values, pair, entries)[0]
            spread = stacked(draws, pair, entries) - (0.0 if null is not None else gap)
            size = robust_se(np.stack([draws[f"{pair[1]}_{n}"][:, *i] for n, _, i in entries], axis=1))
            gaps.append(_tested(pair, entries, gap, spread, size))
    se = {name: robust_se(value) for name, value in resampled.items()}
    return Ladder(values=values, se=se, gaps=tuple(gaps), simulated=null is not None, point=rungs.point)


def fitted_table(problem: Problem, point: Parameters) -> Problem | None:
    """Lay the data out over all cells, to draw tables from the fitted graph; None if that is not possible."""
    model = problem.model
    if model.continuous_variables or model.n_cells > MAX_CELLS or problem.covariates is not None:
        return None
    columns = [np.asarray(problem.columns[v]) for v in model.discrete_variables]
    if not problem.sampling.simple or min(int(c.min()) for c in columns) < 0:
        return None
    cell = np.ravel_multi_index(columns, tuple(model.size(v) for v in model.discrete_variables))
    counts = np.bincount(cell, weights=problem.counts, minlength=model.n_cells)
    full = make_problem(
        model, cell_columns(model), counts, problem.seed, interactions=bool(problem.interactions)
    )
    same = full.z.values.shape[1] == problem.z.values.shape[1]
    return full if same and full.x.values.shape[1] == problem.x.values.shape[1] else None


def law_counts(full: Problem, point: Parameters) -> Array:
    """Compute the expected counts of all cells under the fitted graph."""
    law = np.exp(log_sum_classes(log_joint(full.model, point, full.columns)))[0]
    return np.asarray(full.counts.sum() * law / law.sum())


def refused_entries(problem: Problem, name: str) -> Callable[[tuple[Any, ...]], bool]:
    """Say per entry whether positivity forbids it (see `pymc_mte.moments.positivity`)."""
    model = problem.model
    mask = refused_mask(model, name, failing_arms(model, arm_support(model, problem.columns, problem.counts)))
    axis, dims = "treatment" if name in PER_ARM else "contrast", dims_of(model)[name]
    if mask.ndim and axis in dims:
        place = dims.index(axis)
        return lambda index: bool(mask[index[place]])
    return lambda index: bool(mask.any())


def _entries(problem: Problem, values: Values, pair: tuple[str, str]) -> tuple[Entry, ...]:
    """Numbers that both rungs give, that are finite, and that positivity allows."""
    out: list[Entry] = []
    for name in SMOOTH:
        if not all(f"{rung}_{name}" in values for rung in pair):
            continue
        refused = refused_entries(problem, name)
        for label, index in labels(problem.model, name):
            known = all(np.isfinite(values[f"{rung}_{name}"][(0, *index)]) for rung in pair)
            if known and not refused(index):
                out.append((name, label, index))
    return tuple(out)


def stacked(values: Values, pair: tuple[str, str], entries: tuple[Entry, ...]) -> Array:
    """Subtract the second rung from the first: (batch, entries)."""
    one, two = pair
    return np.stack(
        [values[f"{one}_{n}"][:, *i] - values[f"{two}_{n}"][:, *i] for n, _, i in entries], axis=1
    )


def _tested(pair: tuple[str, str], entries: tuple[Entry, ...], gap: Array, spread: Array, size: Array) -> Gap:
    """Test gaps against their replicates under the hypothesis, one by one and all at once."""
    spread = spread[np.isfinite(spread).all(axis=1)]
    middle, width = np.median(spread, axis=0), WINSOR * robust_se(spread)
    pulled = np.clip(spread, middle - width, middle + width)
    se = pulled.std(axis=0, ddof=1)
    moving = se > COINCIDE * np.maximum(size, 1e-300)
    z = np.where(moving, gap / np.where(moving, se, 1.0), np.nan)
    scale = np.where(moving, 1 / np.where(moving, se, 1.0), 0.0)
    centre = pulled.mean(axis=0)
    value, vector = np.linalg.eigh(np.cov((pulled - centre) * scale, rowvar=False).reshape(len(gap), -1))
    kept = value > RANK * max(value.max(), 1e-300)
    kept &= bool(moving.any())
    root = scale[:, None] * vector[:, kept] / np.sqrt(value[kept])
    df = int(kept.sum())
    statistic = float((((gap - centre) @ root) ** 2).sum())
    n = len(spread)
    f_value = statistic * (n - df) / (max(df, 1) * (n - 1))  # Hotelling: the covariance is estimated
    return Gap(
        rungs=pair,
        entries=entries,
        gap=gap,
        se=se,
        z=z,
        statistic=statistic if df else 0.0,
        df=df,
        p_value=float(stats.f.sf(f_value, df, n - df)) if df else np.nan,
        root=root,
    )
