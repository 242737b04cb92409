"""Climbs of the likelihood with linear parts, and the chains' starts of the row-wise posterior."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from pymc_mte.bayes.coefficients import raw_coefficients
from pymc_mte.bayes.priors import prior_width
from pymc_mte.bayes.rowlayout import Orthogonal, row_layout
from pymc_mte.bayes.start import PENALTY, jittered, without_first_levels
from pymc_mte.coefficients import without_linear
from pymc_mte.families import LINKS
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import Maximiser, responsibilities
from pymc_mte.network import Columns, log_sum_classes
from pymc_mte.regression import (
    log_class,
    log_joint_of_terms,
    log_table_given,
)

Array = NDArray[np.float64]

STEPS = 100
GAIN = 1e-6
"""A climb stops when a step gains less than this per row."""


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
