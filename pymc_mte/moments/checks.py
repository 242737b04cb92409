"""Checks of a mixture without proxies: rank, runs, fit, optima, information. NumPy and SciPy only."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.functionals import functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.bootstrap import robust_se
from pymc_mte.moments.classes import ClassProblem, draws_of, separation
from pymc_mte.moments.coins import rank_eigenvalues
from pymc_mte.moments.methods import Values, class_profile, pooled_scales
from pymc_mte.moments.multistart import rough_maximum
from pymc_mte.moments.problem import Problem, make_problem
from pymc_mte.moments.reassembly import disagreement
from pymc_mte.moments.runs import two_group_table
from pymc_mte.moments.scores import Scores, gradient, information, inverse_information
from pymc_mte.network import log_joint, log_sum_classes
from pymc_mte.status import Note, Status

Array = NDArray[np.float64]

RANK_SHOWN = "rank: classes that the moments show"

Z_RANK = 3.0
"""A moment matrix has full rank when its smallest eigenvalue stands out by so many standard errors."""

MIN_SEPARATION = 3.0
"""Neighbouring coins closer than this many of their standard errors: the design is too weak."""

N_PAIRED = 60
"""Resamples that both moments and likelihood see, for their difference."""

MAX_WEIGHT_ERROR = 0.5
"""A class weight whose standard error exceeds this share of it: the design is too weak."""

MIN_INFORMATION = 1e-5
"""A probability whose log-odds carry less information per row than this is at 0 or 1."""

MISFIT_P = 0.001
CLOSE = 2.0
"""Log-likelihood units within which a second optimum is worth telling."""

ROWS_PER_CELL = 5.0
"""The test of fit needs so many rows per cell of the full table."""

MAX_SIZE = 300_000
"""Information, paired resamples and other numbers of classes are left out when patterns x parameters is
larger: they would take minutes."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report on a fit.

    Attributes
    ----------
    check : str
        What was looked at.
    where : str
        The run, variable or class concerned.
    value : float
        The measured number.
    verdict : str
        ``ok``, ``doubt``, ``fail`` or empty.
    advice : str
        What to do about it.
    """

    check: str
    where: str
    value: float
    verdict: str = ""
    advice: str = ""


def run_checks(
    setup: ClassProblem, method: str, point: Values, draws: Values, notes: list[Note]
) -> list[Check]:
    """Check a fit and note what is doubtful."""
    out = data_checks(setup, notes) + _validity(setup, method, point, notes)
    out += _separation(setup, point, draws)
    if method == "polished":
        out += _optima(setup, notes) + _fit(setup, notes)
        size = len(setup.problem.counts) * (n_free(setup.model) + 1)
        if np.isfinite(setup.rows) and size <= MAX_SIZE:
            out += _cross_check(setup, point)
            out += _information(setup, notes) + _evidence(setup, notes)
    return out


def data_checks(setup: ClassProblem, notes: list[Note]) -> list[Check]:
    """Check what needs no fit: how many classes the data show, and the runs of the moment route."""
    return _rank(setup, notes) + _route(setup, notes)


def _rank(setup: ClassProblem, notes: list[Note]) -> list[Check]:
    """How many classes the moments alone show: at least so many."""
    k = setup.model.classes
    if not np.isfinite(setup.rows):
        return []
    if setup.kind == "coins":
        value = rank_eigenvalues(setup.moments(setup.problem.counts[None]), k)[0]
        resampled = setup.problem.sampling.redraw(200, np.random.default_rng(setup.problem.seed))
        se = robust_se(rank_eigenvalues(setup.moments(resampled), k))
        z = np.concatenate([[np.inf], value[1:] / se[1:]])  # one class there always is
        shown = int((np.nan_to_num(z) > Z_RANK).sum())
        out = [Check("rank: eigenvalue, z", f"{i + 1} classes", float(z[i])) for i in range(1, len(z))]
    elif setup.solution is not None:
        runs = setup.solution.runs[0]
        shown = max(_visible(setup, r) for r in range(runs.share.shape[1]))
        out = []
    else:
        return []
    verdict = "ok" if shown == k else "doubt"
    advice = "" if shown == k else (Status.OTHER_CLASSES if shown > k else Status.WEAK_DESIGN).value
    if shown > k:
        notes.append(Note(Status.OTHER_CLASSES, "rank", f"the moments show at least {shown} classes"))
    return [*out, Check(RANK_SHOWN, "", shown, verdict, advice)]


def _visible(setup: ClassProblem, run: int) -> int:
    """Singular values of a run's two-group table that are above its sampling error."""
    assert setup.solution is not None
    runs = setup.solution.runs[0]
    n = setup.rows * runs.share[0, run]
    if n <= 0:
        return 0
    table = two_group_table(setup.model, setup.problem.columns, setup.problem.counts, runs, run)
    return int((np.linalg.svd(table, compute_uv=False) * np.sqrt(n) > 2.0).sum())


def _route(setup: ClassProblem, notes: list[Note]) -> list[Check]:
    """Report the runs of the moment route, their matching, and how far they agree."""
    if setup.plan is None:
        return []
    if not setup.plan.families:
        notes.append(Note(Status.NO_PLAN, "graph"))
        return []
    if setup.solution is None:
        notes.append(Note(Status.RUNS_LOST, "moments", "no run could be used"))
        return [Check("runs used", "", 0.0, "fail", Status.RUNS_LOST.value)]
    found, lost = setup.solution, setup.solution.lost[0]
    runs, alignment = found.runs[0], found.alignments[0]
    quality = runs.quality[0]
    worst, middle = float(quality.min()), float(np.median(quality))
    if lost > 0.2:
        notes.append(Note(Status.RUNS_LOST, "moments", f"{lost:.0%} of the rows"))
    where = str(runs.family)
    out = [
        Check("runs used", where, float(alignment.reached.sum())),
        Check("runs planned", where, float(len(alignment.reached))),
        Check("share of rows lost", where, lost, "doubt" if lost > 0.2 else "ok"),
        Check("run quality, worst", where, worst, "ok" if worst >= 3 else "doubt"),
        Check("run quality, median", where, middle, "ok" if middle >= 3 else "doubt"),
        Check("gap between classes, worst run", where, float(runs.gap[0].min())),
        Check("left undiagonalised, worst run", where, float(runs.residual[0].max())),
        Check("runs with complex roots", where, float(runs.complex_roots[0].sum())),
        Check("matching, weakest edge", where, alignment.weakest, "ok" if alignment.weakest > 9 else "doubt"),
        Check("matching, contradictions", where, alignment.inconsistent),
        Check("Kruskal sum", where, float(_kruskal(setup)), "", f"{2 * setup.model.classes + 2} are enough"),
    ]
    if len(found.runs) > 1:
        out.append(Check("class weights, spread over families", "", disagreement(found)))
    return out


def _kruskal(setup: ClassProblem) -> int:
    """Sum of the numerical ranks of the three groups in the run with the best quality."""
    assert setup.solution is not None
    runs = setup.solution.runs[0]
    best = int(np.argmax(runs.quality[0]))
    total = 0
    for group in runs.grouping[best]:
        table = np.ones((setup.model.classes, 1))
        for i in group:
            table = (table[:, :, None] * runs.blocks[i][0, best][:, None, :]).reshape(setup.model.classes, -1)
        if np.isfinite(table).all():
            total += int(np.linalg.matrix_rank(table, tol=1e-6))
    return total


def _validity(setup: ClassProblem, method: str, point: Values, notes: list[Note]) -> list[Check]:
    """Estimates outside their ranges, before anything is clipped."""
    if method == "polished":
        return []
    tables = [point[f"p_{v}"] for v in setup.model.discrete_variables]
    low = min(float(np.nanmin(t, initial=1.0)) for t in tables)
    high = max(float(np.nanmax(t, initial=0.0)) for t in tables)
    weight = point["class_weight"]
    outside = max(-low, high - 1)
    if outside > 1e-9:
        notes.append(Note(Status.PROBABILITY_OUTSIDE, method, f"between {low:.3g} and {high:.3g}"))
    if (weight < -1e-9).any() or (weight > 1 + 1e-9).any():
        notes.append(Note(Status.WEIGHT_OUTSIDE, "class_weight", f"{np.round(weight, 3).tolist()}"))
    return [Check("probability, farthest outside [0, 1]", method, max(outside, 0.0))]


def _separation(setup: ClassProblem, point: Values, draws: Values) -> list[Check]:
    model = setup.model
    own = {n: v[None] for n, v in point.items() if n in model.dims}
    found = separation(model, own)
    spread = separation(model, {n: v for n, v in draws.items() if n in model.dims}) if draws else {}
    out = []
    for name, value in found.items():
        se = f"standard error {float(robust_se(spread[name])):.3g}" if name in spread else ""
        out.append(Check("separation of the closest classes", name, float(value[0]), "", se))
    lightest = int(np.argmin(point["class_weight"]))
    out.append(Check("smallest class weight", f"class {lightest}", float(point["class_weight"][lightest])))
    return out


def _cross_check(setup: ClassProblem, point: Values) -> list[Check]:
    """Class weights by moments against those of the likelihood, by paired resamples."""
    model = setup.model
    method = {"coins": "pencil", "product": "spectral", "network": "network"}[setup.kind]
    if setup.moment_start is None:
        return []
    scales = pooled_scales(model, setup.problem.columns, setup.problem.counts)
    own = {n: v[None] for n, v in point.items() if n in model.dims}
    pivot = class_profile(model, own, scales)[0]

    def gap(counts: Array) -> Array:
        pair = []
        for name in (method, "polished"):
            found = setup.values(name, counts)
            order = match_classes(found["profile"], pivot)[0]
            pair.append(take_classes(found["class_weight"], order, 1))
        return np.asarray(pair[0] - pair[1])

    resamples = setup.problem.sampling.redraw(N_PAIRED, np.random.default_rng(setup.problem.seed + 1))
    error = robust_se(gap(resamples))
    with np.errstate(all="ignore"):
        z = gap(setup.problem.counts[None])[0] / np.where(error > 1e-7, error, np.nan)
    if not np.isfinite(z).any():
        return []
    worst = float(np.nanmax(np.abs(z)))
    verdict = "ok" if worst <= Z_RANK else "doubt"
    return [Check("class weights, moments minus likelihood, z", method, worst, verdict)]


def _optima(setup: ClassProblem, notes: list[Note]) -> list[Check]:
    found = setup.optima
    gap = found.log_likelihood - found.second_log_likelihood
    if gap < CLOSE:
        notes.append(Note(Status.SECOND_OPTIMUM, "likelihood", f"{gap:.2g} log-likelihood units below"))
    if not found.converged:
        notes.append(Note(Status.NOT_CONVERGED, "polished", "in the point estimate"))
    out = [
        Check("log-likelihood", "", found.log_likelihood),
        Check("starts at the best optimum, share", f"{found.n_starts} starts", found.share),
        Check("second optimum, log-likelihood below", "", gap, "doubt" if gap < CLOSE else ""),
        Check("moment start, log-likelihood below", "", found.log_likelihood - found.moment_start),
    ]
    if found.second is not None and setup.model.treatment is not None:
        ate = np.ravel(functionals(setup.model, found.second)["ate"])[0]
        out.append(Check("second optimum, ate", "", float(ate)))
    return out


def n_free(model: CausalModel) -> int:
    """Count the free parameters, class weights included."""
    return sum(int(np.prod(model.free_shape(name))) for name in model.dims)


def _fit(setup: ClassProblem, notes: list[Note]) -> list[Check]:
    """Observed against fitted table: G2 with its test where the table is filled, and distance."""
    model, problem = setup.model, setup.problem
    if model.continuous_variables:
        return []
    counts = problem.counts
    fitted = np.exp(log_sum_classes(log_joint(model, setup.optima.parameters, problem.columns))[0])
    share = counts / counts.sum()
    seen = share > 0
    kl = float((share[seen] * np.log(share[seen] / fitted[seen])).sum())
    distance = (np.abs(share - fitted).sum() + max(0.0, 1 - fitted.sum())) / 2
    out = [Check("distance of fitted and observed table", "total variation", float(distance))]
    if not np.isfinite(setup.rows):
        return out
    g2, df = 2 * counts.sum() * kl, model.n_cells - 1 - n_free(model)
    p = float(stats.chi2.sf(g2, df)) if df > 0 and setup.rows >= ROWS_PER_CELL * model.n_cells else np.nan
    if p < MISFIT_P:
        notes.append(Note(Status.MISFIT, "table", f"G2 = {g2:.4g} on {df} degrees of freedom"))
    verdict = "" if np.isnan(p) else "fail" if p < MISFIT_P else "ok"
    return [
        *out,
        Check("G2", f"{df} degrees of freedom", float(g2), verdict),
        Check("G2, p", "", p, verdict, "" if p == p else "too few rows for the table, or none left over"),
    ]


def _information(setup: ClassProblem, notes: list[Note]) -> list[Check]:
    """Cramer-Rao standard errors at the estimate, and whether they leave the classes apart."""
    model, problem, point = setup.model, setup.problem, setup.optima.parameters
    if model.classes == 1:
        return []
    scores = Scores(model, problem.columns).by_pattern(point)
    matrix = information(scores, problem.counts)
    inner = np.diag(matrix) > MIN_INFORMATION * setup.rows  # the others end at 0 or 1
    matrix = matrix[np.ix_(inner, inner)]
    size = np.sqrt(np.diag(matrix))
    smallest = float(np.linalg.eigvalsh(matrix / np.outer(size, size))[0])
    first = next(iter(model.variables))
    names = ["class_weight"] + ([f"p_{first}"] if setup.kind == "coins" else [])
    slope = gradient(model, point, lambda p: {n: p[n] for n in names})
    slope = {n: g[..., inner] for n, g in slope.items()}
    cover = inverse_information(matrix, cutoff=1e-14)
    error = {n: np.sqrt(np.einsum("...i,ij,...j->...", g, cover, g)) for n, g in slope.items()}
    share = float((error["class_weight"] / point["class_weight"][0]).max())
    out = [
        Check("information, smallest eigenvalue", "scaled to unit diagonal", smallest),
        Check("parameters at their boundary", "", float((~inner).sum())),
        Check("Cramer-Rao error of a class weight, share of it", "worst", share),
    ]
    weak = []
    if share > MAX_WEIGHT_ERROR:
        weak.append(f"the standard error of a class weight is {share:.0%} of it")
    if setup.kind == "coins":
        p = point[f"p_{first}"][0]
        order = np.argsort(p)
        step = np.diff(slope[f"p_{first}"][order], axis=0)
        gap = np.diff(p[order]) / np.maximum(np.sqrt(np.einsum("ki,ij,kj->k", step, cover, step)), 1e-300)
        out.append(Check("gap between neighbouring classes, in standard errors", "worst", float(gap.min())))
        if gap.min() < MIN_SEPARATION:
            weak.append(f"two classes are {gap.min():.2g} standard errors apart")
        if draws_of(model) < 2 * model.classes:
            weak.append(
                f"{draws_of(model)} draws per row leave no degree of freedom to test K = {model.classes}"
            )
    if weak:
        notes.append(Note(Status.WEAK_DESIGN, setup.kind, "; ".join(weak)))
    return out


def _evidence(setup: ClassProblem, notes: list[Note]) -> list[Check]:
    """BIC of one class fewer, as many, and one more."""
    model, problem = setup.model, setup.problem
    found = {}
    for k in (model.classes - 1, model.classes, model.classes + 1):
        if k < 1:
            continue
        other = model.with_classes(k)
        if k == model.classes:
            top = setup.optima.log_likelihood
        else:
            own = make_problem(other, problem.columns, problem.sampling, problem.seed)
            top = rough_maximum(own)
        found[k] = -2 * top + n_free(other) * np.log(setup.rows)
    best = min(found, key=lambda k: found[k])
    if best != model.classes:
        better = found[model.classes] - found[best]
        notes.append(Note(Status.OTHER_CLASSES, "BIC", f"{best} classes are better by {better:.3g}"))
    return [Check("BIC", f"{k} classes", v, "ok" if k == best else "") for k, v in found.items()]


def cramer_rao(
    problem: Problem,
    parameters: Parameters,
    functional: Callable[[Parameters], dict[str, Array]],
) -> dict[str, Array]:
    """Cramer-Rao standard errors of functionals of the parameters, for the problem's counts.

    Parameters
    ----------
    problem : Problem
        Columns and counts; expected counts give the bound at known parameters.
    parameters : mapping of str to ndarray
        With a batch axis of length 1.
    functional : callable
        Takes parameters with a batch axis, returns named arrays with it.
    """
    model, columns = problem.model, problem.columns
    matrix = information(Scores(model, columns).by_pattern(parameters), problem.counts)
    cover = inverse_information(matrix)
    slope = gradient(model, parameters, functional)
    return {n: np.sqrt(np.einsum("...i,ij,...j->...", g, cover, g)) for n, g in slope.items()}
