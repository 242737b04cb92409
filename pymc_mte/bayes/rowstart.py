"""Starts of the row-wise posterior: climbs without linear parts on some of the rows, then EM with them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from pymc_mte.bayes.coefficients import prior_width, raw_coefficients
from pymc_mte.bayes.rowlayout import Orthogonal, orthogonalise, row_layout
from pymc_mte.bayes.start import PENALTY, jittered, starting_point, without_first_levels
from pymc_mte.coefficients import takes_covariates, with_linear_parents, without_linear
from pymc_mte.data import complete_rows, effective_weights
from pymc_mte.families import LINKS
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import Maximiser, em, random_starts, responsibilities
from pymc_mte.moments.problem import make_problem
from pymc_mte.network import Columns, log_sum_classes
from pymc_mte.regression import (
    centred_covariates,
    log_class,
    log_joint_of_terms,
    log_table_given,
    regressors,
)
from pymc_mte.results import class_order, reorder
from pymc_mte.standardised import functionals_given

Array = NDArray[np.float64]

MAX_START_ROWS = 4_000
"""Rows, drawn at random, on which many climbs are tried; the best goes on with all rows."""

STEPS = 100
GAIN = 1e-6
"""A climb stops when a step gains less than this per row."""


def row_starting_point(
    model: CausalModel, table: xr.Dataset, start: xr.DataTree | None, seed: int
) -> tuple[Parameters, float]:
    """Find the best optimum, its classes ordered by effect; and the share of climbs that ended there.

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
    """
    weight = effective_weights(table)
    covariates, share = centred_covariates(table), weight / weight.sum()
    columns = {name: np.asarray(table[name].values) for name in model.variables}
    directions = row_directions(model, columns, covariates, share)
    plain = _adjusted(model, columns, weight, directions.get("class"))
    point, at_best = _first_climbs(without_linear(model), table, plain, weight, start, seed)
    one = {name: value[None] for name, value in point.items()}
    if not directions:
        best = em(model, plain, weight[None], one, penalty=PENALTY, max_iterations=STEPS, tolerance=GAIN)
        point = {name: value[0] for name, value in best.parameters.items()}
    else:
        point = climb_given(model, columns, weight, directions, point)
    values = {n: v[None] for n, v in point.items()}
    found = {n: v[0] for n, v in functionals_given(model, values, covariates, share).items()}
    point |= {n: v for n, v in found.items() if n == "class_weight"}
    return reorder(model, point, class_order(model, {**point, **found})), at_best


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
    columns: dict[str, Array],
    weight: Array,
    start: xr.DataTree | None,
    seed: int,
) -> tuple[Parameters, float]:
    """Best of many climbs on part of the complete rows; on part of all rows where few are complete."""
    rng = np.random.default_rng(seed)
    marked = table.assign(_row=("pattern", np.arange(table.sizes["pattern"])))
    rows = complete_rows(model, marked)["_row"].values
    enough = len(rows) >= min(MAX_START_ROWS, len(weight)) / 4
    rows = rows if enough else np.arange(len(weight))
    if len(rows) > MAX_START_ROWS:
        rows = np.sort(rng.choice(rows, MAX_START_ROWS, replace=False))
    part, counts = {n: c[rows] for n, c in columns.items()}, weight[rows]
    if enough:
        return starting_point(make_problem(model, part, counts, seed=seed), start)
    tried = np.repeat(counts[None], 8, axis=0)
    found = em(model, part, tried, random_starts(model, part, tried, rng), penalty=PENALTY, tolerance=GAIN)
    best = int(np.nanargmax(found.log_likelihood))
    reached = found.log_likelihood
    at_best = float((reached > reached[best] - 0.1).mean())
    return {n: v[best] for n, v in found.parameters.items()}, at_best


def climb_given(
    model: CausalModel,
    columns: Columns,
    weight: Array,
    directions: Mapping[str, Orthogonal],
    point: Parameters,
) -> Parameters:
    """Climb the likelihood with linear parts by EM; logits take steps of a bound, means exact ones.

    Coefficients on a logarithmic scale (counts, positive numbers) stay at 0: the sampler moves them.

    Returns
    -------
    mapping of str to ndarray
        Parameters and the coefficients per covariate or term; with covariates ``baseline_weight`` in place
        of ``class_weight``.
    """
    terms = {name: directions[name].values for name in model.regressed}
    q = directions["class"].values if model.covariates else None
    now = {n: np.asarray(v) for n, v in point.items()} | {"baseline_weight": point["class_weight"]}
    for name, dims in model.coefficient_dims.items():
        width = directions[name.removeprefix("coef_")].values.shape[1]
        now[name] = np.zeros((*(model.size(d) for d in dims[:-1]), width))
    maximiser = Maximiser(without_linear(model), columns, PENALTY)
    last = -np.inf
    for _ in range(STEPS):
        log_p = log_joint_of_terms(model, now, columns, q, terms)
        value = float(weight @ log_sum_classes(log_p))
        if value - last < GAIN * weight.sum():
            break
        last = value
        mass = responsibilities(log_p) * weight
        if q is not None and model.classes > 1:
            _step_class(model, now, q, mass)
        for name in model.regressed:
            link = LINKS[model.variables[name].family][1]
            if link == "logit":
                _step_logit(model, name, now, columns, terms[name], mass)
            elif link == "identity":
                _step_slope(model, name, now, columns, terms[name], mass)
                rest = np.nan_to_num(columns[name] - now[f"coef_{name}"] @ terms[name].T)
                maximiser.columns = {**maximiser.columns, name: rest}
        stepped = maximiser.step(mass[None], {n: now[n][None] for n in model.owners})
        kept = {f"p_{v}" for v in model.regressed}
        kept |= {"class_weight"} if model.covariates else set()
        now |= {n: v[0] for n, v in stepped.items() if n not in kept}
    for name in model.coefficient_dims:
        now[name] = now[name] @ directions[name.removeprefix("coef_")].to_covariates.T
    unused = "class_weight" if model.covariates else "baseline_weight"
    return {n: v for n, v in now.items() if n != unused}


def _ridge(name: str, directions: int) -> float:
    """Prior precision of a coefficient along one direction."""
    return directions / prior_width(name, None) ** 2


def _step_class(model: CausalModel, now: Parameters, q: Array, mass: Array) -> None:
    """One step of Boehning's bound on class membership."""
    n = mass.sum()
    residual = mass - mass.sum(axis=0) * np.exp(log_class(model, now, q))
    odds = np.log(now["baseline_weight"]) + 2 * residual.sum(axis=1) / n
    now["baseline_weight"] = special.softmax(odds)
    ridge, coef = _ridge("coef_class", q.shape[1]), now["coef_class"]
    now["coef_class"] = coef + (residual @ q - ridge * coef) / (n / 2 + ridge)


def _step_logit(
    model: CausalModel, name: str, now: Parameters, columns: Columns, q: Array, mass: Array
) -> None:
    """One step of the same bound on a discrete variable: coefficients, then its table."""
    var, size = model.variables[name], model.size(name)
    rows, level = np.arange(mass.shape[1]), np.asarray(columns[name])
    seen = level >= 0
    log_p = log_table_given(model, name, now, q)
    index = tuple(np.asarray(columns[p]) for p in var.parents)
    classes = range(model.classes if var.latent else 1)
    part = (mass if var.latent else mass.sum(axis=0, keepdims=True)) * seen
    p = np.stack([np.exp(log_p[(rows, u, *index)]) for u in classes])  # (class, row, level)
    residual = part[..., None] * ((level[:, None] == np.arange(size)) - p)
    n, key = part.sum(), f"coef_{name}"
    ridge, binary = _ridge(key, q.shape[1]), var.trials is not None or var.family == "bernoulli"
    score = residual @ np.arange(size) if binary else residual
    bound = n * (var.trials or 1) / 4 if binary else n / 2
    gradient = (score.sum(axis=0).T @ q) - ridge * now[key]
    now[key] = now[key] + gradient / (bound + ridge)
    if not binary:
        now[key] = now[key] - now[key][:1]
    cell = np.ravel_multi_index(index, tuple(model.size(v) for v in var.parents)) if index else 0 * rows
    cells = int(np.prod([model.size(v) for v in var.parents]))
    count = np.stack([np.bincount(cell, weights=w, minlength=cells) for w in part]) + PENALTY
    columns_of_score = score[..., None] if binary else score
    total = np.stack(
        [
            np.stack([np.bincount(cell, weights=s, minlength=cells) for s in per_class.T], axis=-1)
            for per_class in columns_of_score
        ]
    )
    shape = model.shapes[f"p_{name}"]
    if var.trials is not None:
        odds = special.logit(now[f"p_{name}"]) + (4 / var.trials * total[..., 0] / count).reshape(shape)
        now[f"p_{name}"] = special.expit(odds)
        return
    if binary:
        total = np.concatenate([-total, total], axis=-1)
    odds = np.log(now[f"p_{name}"]) + (2 * total / count[..., None]).reshape(shape)
    now[f"p_{name}"] = special.softmax(odds, axis=-1)


def _step_slope(
    model: CausalModel, name: str, now: Parameters, columns: Columns, q: Array, mass: Array
) -> None:
    """Weighted least squares of a continuous variable's residuals on the directions."""
    var, value = model.variables[name], np.asarray(columns[name], dtype=float)
    seen = ~np.isnan(value)
    lead = model.classes if var.latent else 1
    index: tuple[Any, ...] = tuple(np.asarray(columns[p]) for p in var.parents)
    mean = now[f"mean_{name}"].reshape(lead, *model.shapes[f"mean_{name}"][1 if var.latent else 0 :])
    mean = mean[(slice(None), *index)] if index else mean.reshape(lead, 1)
    sd = now[f"sd_{name}"]
    sd = sd.reshape(lead, *sd.shape[1 if var.latent else 0 :])
    sd = sd[(slice(None), *index)] if var.scale_parents and index else sd.reshape(lead, 1)
    part = (mass if var.latent else mass.sum(axis=0, keepdims=True)) * seen / sd**2
    residual = np.where(seen, value, 0.0) - mean
    if f"nu_{name}" in now:
        nu = now[f"nu_{name}"]
        z = (residual - now[f"coef_{name}"] @ q.T) / sd
        part = part * (nu + 1) / (nu + z * z)
    w, target = part.sum(axis=0), (part * residual).sum(axis=0)
    pooled = np.average((value[seen] - value[seen].mean()) ** 2)
    gram = q.T @ (w[:, None] * q) + _ridge(f"coef_{name}", q.shape[1]) / pooled * np.eye(q.shape[1])
    now[f"coef_{name}"] = np.linalg.solve(gram, q.T @ target)


def chain_start(
    model: CausalModel,
    table: xr.Dataset,
    pivot: Parameters,
    scales: dict[str, float],
    rng: np.random.Generator,
    spread: float,
) -> Parameters:
    """One chain's start: the pivot with noise, as values of the model's random variables."""
    if not model.regressed:
        return without_first_levels(model, jittered(model, pivot, scales, rng, spread))
    weight = "baseline_weight" if model.covariates else "class_weight"
    plain = {n: pivot[weight if n == "class_weight" else n] for n in model.dims}
    start = without_first_levels(model, jittered(model, plain, scales, rng, spread))
    start[weight] = start.pop("class_weight")
    for name, value in raw_coefficients(model, row_layout(model, table), pivot).items():
        scale = scales.get(name.removeprefix("raw_coef_"), 1.0)
        start[name] = value + scale * rng.normal(size=value.shape) / np.sqrt(table["count"].values.sum())
    return start
