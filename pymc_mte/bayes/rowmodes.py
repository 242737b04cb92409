"""Modes of the row-wise posterior: climbs without covariates on part of the rows, then EM with all of it."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes
from pymc_mte.bayes.modes import WINDOW, Modes, given_start
from pymc_mte.bayes.rowlayout import Orthogonal, orthogonalise
from pymc_mte.bayes.rowstart import GAIN, STEPS, climb_given
from pymc_mte.bayes.start import PENALTY
from pymc_mte.coefficients import takes_covariates, with_linear_parents, without_linear
from pymc_mte.data import complete_rows, effective_weights
from pymc_mte.families import LINKS
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import Maximiser, em, random_starts
from pymc_mte.moments.methods import class_profile, pooled_scales
from pymc_mte.moments.optima import ALIKE, DistinctOptima, distinct_optima, relabelled
from pymc_mte.moments.problem import make_problem
from pymc_mte.network import Columns, log_sum_classes
from pymc_mte.regression import centred_covariates, log_joint_given, regressors
from pymc_mte.results import class_order
from pymc_mte.standardised import functionals_given

Array = NDArray[np.float64]

MAX_START_ROWS = 4_000
"""Rows, drawn at random, on which many climbs are tried; their distinct ends go on with all rows."""

MAX_CLIMBED = 6
"""Ends that go on."""

FEW_STARTS = 8
"""Random starts where too few rows are complete for the climbs of complete rows."""

SAME = 1.0
"""Ends this close in the objective and alike in their classes are one mode: these climbs stop early."""


def row_modes(model: CausalModel, table: xr.Dataset, start: xr.DataTree | None, seed: int) -> Modes:
    """Find the modes within 10 log units of the best, their classes numbered by effect at the best.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : xarray.Dataset
        Tabulated data.
    start : DataTree, optional
        An answer of `estimate`, used as one more start.
    seed : int
        Seed of the rows tried first and of random starts.

    Returns
    -------
    Modes
        The objective is the log-likelihood and the default prior of tables and class weights. Shares are
        those of the starts on part of the rows. Optima of the likelihood alone are not looked for.
    """
    weight = effective_weights(table)
    covariates, share = centred_covariates(table), weight / weight.sum()
    columns = {name: np.asarray(table[name].values) for name in model.variables}
    directions = row_directions(model, columns, covariates, share)
    plain = _adjusted(model, columns, weight, directions.get("class"))
    tried, met, n_starts = _first_climbs(without_linear(model), table, plain, weight, start, seed)
    if not directions:
        counts = np.repeat(weight[None], len(met), axis=0)
        fitted = em(model, plain, counts, tried, penalty=PENALTY, max_iterations=STEPS, tolerance=GAIN)
        ends = fitted.parameters
    else:
        points = [{n: v[j] for n, v in tried.items()} for j in range(len(met))]
        climbed = [climb_given(model, columns, weight, directions, point) for point in points]
        ends = {n: np.stack([point[n] for point in climbed]) for n in climbed[0]}
    found = functionals_given(model, ends, covariates, share)
    ends = {n: v for n, v in (ends | found).items() if n in model.posterior_dims}
    likelihood = log_sum_classes(log_joint_given(model, ends, columns, covariates)) @ weight
    under_prior = ends | {"class_weight": ends["baseline_weight"]} if model.covariates else ends
    objective = likelihood + Maximiser(without_linear(model), columns, PENALTY).log_penalty(under_prior)
    order = class_order(model, {n: v[int(objective.argmax())] for n, v in (ends | found).items()})
    profile = class_profile(model, ends, pooled_scales(model, columns, weight))
    kept, shares = _distinct(profile, objective, met)
    matched = match_classes(profile[kept], profile[kept[0]])[0]
    ends = relabelled(model, {n: v[kept] for n, v in ends.items()}, matched)
    modes = DistinctOptima(
        parameters=relabelled(model, ends, np.repeat(order[None], len(kept), axis=0)),
        objective=objective[kept],
        log_likelihood=likelihood[kept],
        share=shares / n_starts,
        n_starts=n_starts,
    )
    return Modes(posterior=modes, likelihood=modes, penalty=PENALTY)


def _distinct(profile: Array, objective: Array, met: Array) -> tuple[NDArray[np.int64], Array]:
    """Places of the distinct ends within the window, best first, and how many starts led to each."""
    kept: list[int] = []
    shares: list[float] = []
    for i in map(int, np.argsort(-objective, kind="stable")):
        if kept and not objective[i] > objective[kept[0]] - WINDOW:
            continue
        twin = next((j for j, k in enumerate(kept) if _same(profile, objective, k, i)), -1)
        if twin >= 0:
            shares[twin] += met[i]
        else:
            kept.append(i)
            shares.append(met[i])
    return np.array(kept), np.array(shares)


def _same(profile: Array, objective: Array, a: int, b: int) -> bool:
    """Whether two ends are one mode, whatever their labels."""
    order = match_classes(profile[b : b + 1], profile[a])[0][0]
    alike = np.abs(profile[b][order] - profile[a]).max() < ALIKE
    return bool(alike and abs(objective[a] - objective[b]) < SAME)


def row_directions(
    model: CausalModel, columns: Columns, covariates: Array | None, share: Array
) -> dict[str, Orthogonal]:
    """Directions of everything with a linear part, by variable or ``class``; empty without any."""
    shared = {} if covariates is None else {"class": orthogonalise(covariates, share)}
    linear = regressors(model, columns, covariates, with_linear_parents(model))
    own = {name: orthogonalise(terms, share) for name, terms in linear.items()}
    return {**shared, **{name: own[name] if name in own else shared["class"] for name in model.regressed}}


def _adjusted(
    model: CausalModel, columns: dict[str, Array], weight: Array, directions: Orthogonal | None
) -> dict[str, Array]:
    """Take the linear part of the covariates out of a continuous outcome."""
    out = dict(columns)
    if directions is not None:
        for name in model.regressed:
            link = LINKS[model.variables[name].family][1]
            if link == "identity" and takes_covariates(model, name):
                seen = ~np.isnan(columns[name])
                q, w = directions.values[seen], weight[seen]
                value = columns[name][seen] - np.average(columns[name][seen], weights=w)
                slope = np.linalg.lstsq(q.T @ (w[:, None] * q), q.T @ (w * value), rcond=None)[0]
                out[name] = columns[name] - directions.values @ slope
    return out


def _first_climbs(
    model: CausalModel,
    table: xr.Dataset,
    columns: Columns,
    weight: Array,
    start: xr.DataTree | None,
    seed: int,
) -> tuple[Parameters, Array, int]:
    """Climb many times on part of the complete rows, on part of all rows where few are complete.

    Returns the distinct ends, how many starts met each, and the number of starts.
    """
    rng = np.random.default_rng(seed)
    marked = table.assign(_row=("pattern", np.arange(table.sizes["pattern"])))
    rows = complete_rows(model, marked)["_row"].values
    enough = len(rows) >= min(MAX_START_ROWS, len(weight)) / 4
    rows = rows if enough else np.arange(len(weight))
    if len(rows) > MAX_START_ROWS:
        rows = np.sort(rng.choice(rows, MAX_START_ROWS, replace=False))
    part, counts = {n: c[rows] for n, c in columns.items()}, weight[rows]
    if enough:
        problem = make_problem(model, part, counts, seed=seed)
        found = distinct_optima(problem, penalty=PENALTY, given=given_start(problem, start), window=WINDOW)
        met = (found.share * found.n_starts)[:MAX_CLIMBED]
        return {n: v[:MAX_CLIMBED] for n, v in found.parameters.items()}, met, found.n_starts
    tried = np.repeat(counts[None], FEW_STARTS, axis=0)
    ends = em(model, part, tried, random_starts(model, part, tried, rng), penalty=PENALTY, tolerance=GAIN)
    usable = np.flatnonzero(np.isfinite(ends.log_likelihood))
    return {n: v[usable] for n, v in ends.parameters.items()}, np.ones(len(usable)), FEW_STARTS
