"""Mechanisms given covariates: class membership, treatment and outcome of every row. NumPy only.

Covariates enter linearly, as deviations from their means: in log-odds of class membership (multinomial
logit) and of discrete variables, in the mean of continuous ones. So ``baseline_weight``, tables and
means are those of a row whose covariates are at their means, and ``coef_class``, ``coef_t`` are changes
per unit of a covariate. Parameters may have any leading axes (chain, draw).
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from pymc_mte.covariates import covariate_matrix, covariate_names
from pymc_mte.data import effective_weights
from pymc_mte.families import LINKS, binomial_coefficients
from pymc_mte.functionals import (
    arm_weight,
    effects_from_classes,
    functionals,
    mean_among,
    potential_outcomes,
)
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.network import (
    TINY,
    Columns,
    draw_variable,
    gathered,
    log_density,
    log_joint,
    with_class_axis,
)

Array = NDArray[np.float64]

MAX_BLOCK = 4_000_000
"""Numbers (draws x rows x classes x levels) that are held at once while draws are averaged over rows."""


def covariate_means(table: xr.Dataset) -> dict[str, float]:
    """Means of the covariates over rows, by column; empty without any."""
    weight = effective_weights(table)
    return {name: float(np.average(table[name].values, weights=weight)) for name in covariate_names(table)}


def centred_covariates(table: xr.Dataset) -> Array | None:
    """Deviations of the covariates from their means over rows (patterns, columns); None without any."""
    values = covariate_matrix(table)
    if values is None:
        return None
    moved = values - list(covariate_means(table).values())
    return np.asarray(np.where(np.ptp(values, axis=0) == 0, 0.0, moved))  # no rounding errors of constants


def given_rows(model: CausalModel, table: xr.Dataset) -> tuple[Array | None, Array]:
    """Centred covariates of the rows, or None, and every row's share."""
    weight = effective_weights(table)
    return centred_covariates(table), weight / weight.sum()


def log_class(model: CausalModel, parameters: Parameters, covariates: Array | None) -> Array:
    """Log P(class | covariates): (..., class, row), or (..., class, 1) without covariates."""
    if covariates is None:
        return np.asarray(np.log(np.maximum(parameters["class_weight"], TINY))[..., None])
    total = np.log(np.maximum(parameters["baseline_weight"], TINY))[..., None]
    if "coef_class" in parameters:
        total = total + parameters["coef_class"] @ covariates.T
    return np.asarray(total - special.logsumexp(total, axis=-2, keepdims=True))


def _shift(model: CausalModel, variable: str, parameters: Parameters, covariates: Array) -> Array:
    """Linear part of a variable: (..., row), with a level axis in front where levels have their own."""
    return np.asarray(parameters[f"coef_{variable}"] @ covariates.T)


def log_table_given(model: CausalModel, variable: str, parameters: Parameters, covariates: Array) -> Array:
    """Log P(level | class, parents, covariates): (..., row, class or 1, *parents, level)."""
    var = model.variables[variable]
    lead = len(var.parents) + 1
    shift = _shift(model, variable, parameters, covariates)
    if var.trials is not None:
        rate = with_class_axis(model, f"p_{variable}", parameters[f"p_{variable}"])
        odds = np.expand_dims(special.logit(rate), rate.ndim - lead)
        odds = (odds + shift.reshape(*shift.shape, *(1,) * lead))[..., None]
        s = np.arange(var.trials + 1)
        log_p = s * special.log_expit(odds) + (var.trials - s) * special.log_expit(-odds)
        return np.asarray(np.log(binomial_coefficients(var.trials)) + log_p)
    table = np.log(np.maximum(with_class_axis(model, f"p_{variable}", parameters[f"p_{variable}"]), TINY))
    table = np.expand_dims(table, table.ndim - lead - 1)
    if var.family == "bernoulli":
        shift = np.stack([np.zeros_like(shift), shift], axis=-1)
    else:
        shift = np.swapaxes(shift, -1, -2)
    total = table + shift.reshape(*shift.shape[:-1], *(1,) * lead, shift.shape[-1])
    return np.asarray(total - special.logsumexp(total, axis=-1, keepdims=True))


def log_density_given(
    model: CausalModel, variable: str, parameters: Parameters, columns: Columns, covariates: Array
) -> Array:
    """Log-density of a shifted variable per class and row: (..., class or 1, row)."""
    column = np.asarray(columns[variable])
    var = model.variables[variable]
    if not var.discrete:
        own, (parameter, link) = gathered(model, variable, parameters, columns), LINKS[var.family]
        shift = _shift(model, variable, parameters, covariates)[..., None, :]
        own[parameter] = own[parameter] + shift if link == "identity" else own[parameter] * np.exp(shift)
        missing = np.isnan(column)
        return np.where(missing, 0.0, var.spec.log_density(np.where(missing, 1.0, column), **own))
    log_p = log_table_given(model, variable, parameters, covariates)
    lead = len(model.variables[variable].parents) + 2
    index: tuple[Any, ...] = tuple(
        np.asarray(columns[p]) for p in (*model.variables[variable].parents, variable)
    )
    log_p = np.moveaxis(log_p, log_p.ndim - lead, 0)  # classes first, so that rows are picked one by one
    picked = np.moveaxis(log_p[(..., np.arange(len(column)), *index)], 0, -2)
    return np.where(column < 0, 0.0, picked)


def log_joint_given(
    model: CausalModel,
    parameters: Parameters,
    columns: Columns,
    covariates: Array | None,
    variables: tuple[str, ...] | None = None,
) -> Array:
    """Log P(class, row | covariates) of all or some variables: (..., class, row). Missing ones drop out."""
    if covariates is None:
        return log_joint(model, parameters, columns, variables)
    total = log_class(model, parameters, covariates)
    for name in model.variables if variables is None else variables:
        if name in model.regressed:
            total = total + log_density_given(model, name, parameters, columns, covariates)
        else:
            total = total + log_density(model, name, parameters, columns)
    return total


def row_parameters(model: CausalModel, parameters: Parameters, covariates: Array) -> Parameters:
    """Parameters of every row's own network, from draws: (draw, row or 1, ...).

    ``class_weight`` becomes P(class | covariates), tables and means those at the row's covariates.
    """
    out: Parameters = {n: parameters[n][:, None] for n in model.owners}
    out["class_weight"] = np.moveaxis(np.exp(log_class(model, parameters, covariates)), -1, 1)
    for name in model.regressed:
        parameter, link = LINKS[model.variables[name].family]
        key = f"{parameter}_{name}"
        value = out[key]
        if link == "logit" and model.variables[name].trials is None:
            table = np.exp(log_table_given(model, name, parameters, covariates))
            out[key] = table if model.variables[name].latent else table[:, :, 0]
            continue
        shift = _shift(model, name, parameters, covariates)
        shift = shift.reshape(*shift.shape, *(1,) * (value.ndim - 2))
        if link == "logit":
            out[key] = special.expit(special.logit(value) + shift)
        else:
            out[key] = value + shift if link == "identity" else value * np.exp(shift)
    return out


def functionals_given(
    model: CausalModel, parameters: Parameters, covariates: Array | None, share: Array
) -> dict[str, Array]:
    """All functionals of draws, averaged over the rows' covariates.

    Parameters
    ----------
    model : CausalModel
        The graph.
    parameters : mapping of str to ndarray
        Draws, with any leading axes.
    covariates : ndarray of shape (row, columns), optional
        Deviations from the means; None without covariates.
    share : ndarray of shape (row,)
        Share of every row, summing to 1.

    Returns
    -------
    dict of str to ndarray
        As from `functionals`, and with covariates ``class_weight`` (..., class), the average of
        P(class | covariates). ``potential_outcome`` averages over the covariates of a class's members.
    """
    if covariates is None:
        return functionals(model, parameters) if model.treatment is not None else {}
    lead = parameters["baseline_weight"].shape[:-1]
    flat = {n: v.reshape(-1, *v.shape[len(lead) :]) for n, v in parameters.items()}
    draws = len(flat["baseline_weight"])
    size = len(covariates) * model.classes * 2 * max(len(model.arms), 2)
    parts = [
        averaged(model, row_parameters(model, {n: v[block] for n, v in flat.items()}, covariates), share)
        for block in np.array_split(np.arange(draws), max(1, draws * size // MAX_BLOCK))
    ]
    joined = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
    return {n: v.reshape(*lead, *v.shape[1:]) for n, v in joined.items()}


def averaged(model: CausalModel, own: Parameters, share: Array) -> dict[str, Array]:
    """Functionals averaged over rows, or groups of them, whose networks differ: (draw, ...).

    Parameters
    ----------
    model : CausalModel
        The graph.
    own : mapping of str to ndarray
        Parameters of every row's network: (draw, row or 1, ...), ``class_weight`` (draw, row, class).
    share : ndarray of shape (row,)
        Share of every row, summing to 1.
    """
    weight = np.einsum("r,drk->dk", share, own["class_weight"])
    outcomes = potential_outcomes(model, own)
    mean = np.einsum(
        "r,drk,drka->dka",
        share,
        own["class_weight"],
        np.broadcast_to(outcomes, (*own["class_weight"].shape, outcomes.shape[-1])),
    )
    out = {"class_weight": weight, "potential_outcome": mean / weight[..., None]}
    out |= effects_from_classes(model, weight, out["potential_outcome"])
    got = arm_weight(model, own).sum(axis=-2)
    att = []
    for b, a in model.contrasts:
        gain = mean_among(model, own, b, b) - mean_among(model, own, a, b)
        att.append(((gain * got[..., b]) @ share) / (got[..., b] @ share))
    out["att"] = att[0] if len(att) == 1 else np.stack(att, axis=-1)
    return out


def draw_given(
    model: CausalModel, parameters: Parameters, covariates: Array | None, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Draw classes and variables of ``n`` rows, one per row of the covariates where there are any."""
    log_p = log_class(model, parameters, covariates)
    latent = (log_p + rng.gumbel(size=(model.classes, n))).argmax(axis=0)
    columns: dict[str, NDArray[Any]] = {}
    rows = np.arange(n)
    for name in model.order:
        if covariates is None or name not in model.regressed:
            columns[name] = draw_variable(model, name, parameters, latent, columns, rng)
        elif not model.variables[name].discrete:
            shift = _shift(model, name, parameters, covariates)
            columns[name] = draw_variable(model, name, parameters, latent, columns, rng, shift)
        else:
            log_table = log_table_given(model, name, parameters, covariates)
            own = latent if model.variables[name].latent else 0
            index = tuple(columns[p] for p in model.variables[name].parents)
            chance = log_table[(rows, own, *index)]
            columns[name] = (chance + rng.gumbel(size=chance.shape)).argmax(axis=-1)
    return latent, columns
