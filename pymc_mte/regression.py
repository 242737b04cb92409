"""Mechanisms with a linear part: class membership and variables of every row. NumPy only.

Covariates shift class membership (multinomial logit), treatment and outcome; linear parents shift their
children: log-odds of discrete variables, means of numbers or their logs. Numbers enter by their distance
from their mean, a parent from its centre; levels of a parent by an indicator of each but the first. So
``baseline_weight``, tables and means are those of a row where all of these are zero, and ``coef_class``,
``coef_t`` are changes per unit. Parameters may have any leading axes (chain, draw).
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from pymc_mte.coefficients import takes_covariates
from pymc_mte.covariates import covariate_matrix, covariate_names
from pymc_mte.data import effective_weights
from pymc_mte.families import LINKS, binomial_coefficients
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


def covariate_means(table: xr.Dataset) -> dict[str, float]:
    """Means of the covariates over rows, by column; empty without any."""
    weight = effective_weights(table)
    return {name: float(np.average(table[name].values, weights=weight)) for name in covariate_names(table)}


def covariate_ranges(table: xr.Dataset) -> dict[str, list[float]]:
    """Smallest and largest value of every covariate, by column; empty without any."""
    there = effective_weights(table) > 0
    values = {name: table[name].values[there] for name in covariate_names(table)}
    return {name: [float(column.min()), float(column.max())] for name, column in values.items()}


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


def normalised(log_weight: Array, axis: int) -> Array:
    """Log-weights minus the log of their sum over a short axis, in steps along the other axes."""
    parts = np.moveaxis(log_weight, axis, 0)
    top = parts[0]
    for part in parts[1:]:
        top = np.maximum(top, part)
    total = np.zeros(top.shape)
    for part in parts:
        total += np.exp(part - top)
    return np.asarray(log_weight - np.expand_dims(top + np.log(total), axis))


def shares(log_weight: Array, axis: int) -> Array:
    """Weights divided by their sum over a short axis, from their logarithms: exp of `normalised`, sooner."""
    parts = np.moveaxis(log_weight, axis, 0)
    out = np.exp(parts - reduce(np.maximum, parts))
    out /= reduce(np.add, out)
    return np.moveaxis(out, 0, axis)


def log_class(model: CausalModel, parameters: Parameters, covariates: Array | None) -> Array:
    """Log P(class | covariates): (..., class, row), or (..., class, 1) without covariates."""
    if covariates is None:
        return np.asarray(np.log(np.maximum(parameters["class_weight"], TINY))[..., None])
    return normalised(_class_scores(parameters, covariates), -2)


def class_given(model: CausalModel, parameters: Parameters, covariates: Array | None) -> Array:
    """P(class | covariates), axes as of `log_class`."""
    if covariates is None:
        return np.asarray(parameters["class_weight"][..., None])
    return shares(_class_scores(parameters, covariates), -2)


def _class_scores(parameters: Parameters, covariates: Array) -> Array:
    """Log P(class | covariates) up to a constant per row: (..., class, row)."""
    total = np.log(np.maximum(parameters["baseline_weight"], TINY))[..., None]
    if "coef_class" in parameters:
        total = total + parameters["coef_class"] @ covariates.T
    return np.asarray(np.broadcast_to(total, (*total.shape[:-1], len(covariates))))


def regressors(
    model: CausalModel, columns: Columns, covariates: Array | None, names: Sequence[str]
) -> dict[str, Array]:
    """Columns that shift each variable, as `CausalModel.terms` names them: (row, term)."""
    return {name: _terms(model, name, columns, covariates) for name in names}


def _terms(model: CausalModel, name: str, columns: Columns, covariates: Array | None) -> Array:
    out = []
    if takes_covariates(model, name):
        assert covariates is not None
        out.append(covariates)
    for parent in model.variables[name].linear_parents:
        out.append(np.stack(parent_terms(model, parent, columns[parent]), axis=-1))
    return out[0] if len(out) == 1 else np.concatenate(out, axis=-1)


def parent_terms(model: CausalModel, parent: str, column: NDArray[Any]) -> list[Array]:
    """Terms of one linear parent: its distance from the centre, or indicators of all levels but the first."""
    var = model.variables[parent]
    if var.discrete:
        return [np.asarray(column == level, dtype=float) for level in range(1, model.size(parent))]
    assert var.centre is not None
    return [np.asarray(column, dtype=float) - var.centre]


def shift_of(variable: str, parameters: Parameters, terms: Array) -> Array:
    """Linear part of a variable: (..., row), with a level axis in front where levels have their own."""
    return np.asarray(parameters[f"coef_{variable}"] @ terms.T)


def log_table_given(model: CausalModel, variable: str, parameters: Parameters, terms: Array) -> Array:
    """Log P(level | class, parents, terms): (..., row, class or 1, *parents, level)."""
    var = model.variables[variable]
    if var.trials is not None:
        lead = len(var.parents) + 1
        shift = shift_of(variable, parameters, terms)
        rate = with_class_axis(model, f"p_{variable}", parameters[f"p_{variable}"])
        odds = np.expand_dims(special.logit(rate), rate.ndim - lead)
        odds = (odds + shift.reshape(*shift.shape, *(1,) * lead))[..., None]
        s = np.arange(var.trials + 1)
        log_p = s * special.log_expit(odds) + (var.trials - s) * special.log_expit(-odds)
        return np.asarray(np.log(binomial_coefficients(var.trials)) + log_p)
    return normalised(_table_scores(model, variable, parameters, terms), -1)


def table_given(model: CausalModel, variable: str, parameters: Parameters, terms: Array) -> Array:
    """P(level | class, parents, terms), axes as of `log_table_given`; not for binomial variables."""
    return shares(_table_scores(model, variable, parameters, terms), -1)


def _table_scores(model: CausalModel, variable: str, parameters: Parameters, terms: Array) -> Array:
    """Log P(level | class, parents, terms) up to a constant: (..., row, class or 1, *parents, level)."""
    lead = len(model.variables[variable].parents) + 1
    shift = shift_of(variable, parameters, terms)
    table = np.log(np.maximum(with_class_axis(model, f"p_{variable}", parameters[f"p_{variable}"]), TINY))
    table = np.expand_dims(table, table.ndim - lead - 1)
    if model.variables[variable].family == "bernoulli":
        shift = np.stack([np.zeros_like(shift), shift], axis=-1)
    else:
        shift = np.swapaxes(shift, -1, -2)
    return np.asarray(table + shift.reshape(*shift.shape[:-1], *(1,) * lead, shift.shape[-1]))


def log_density_given(
    model: CausalModel, variable: str, parameters: Parameters, columns: Columns, terms: Array
) -> Array:
    """Log-density of a shifted variable per class and row: (..., class or 1, row)."""
    column = np.asarray(columns[variable])
    var = model.variables[variable]
    if not var.discrete:
        own, (parameter, link) = gathered(model, variable, parameters, columns), LINKS[var.family]
        shift = shift_of(variable, parameters, terms)[..., None, :]
        own[parameter] = own[parameter] + shift if link == "identity" else own[parameter] * np.exp(shift)
        missing = np.isnan(column)
        return np.where(missing, 0.0, var.spec.log_density(np.where(missing, 1.0, column), **own))
    log_p = log_table_given(model, variable, parameters, terms)
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
    if not model.regressed:
        return log_joint(model, parameters, columns, variables)
    wanted = tuple(model.variables) if variables is None else variables
    shifted = [name for name in model.regressed if name in wanted]
    terms = regressors(model, columns, covariates, shifted)
    return log_joint_of_terms(model, parameters, columns, covariates, terms, wanted)


def log_joint_of_terms(
    model: CausalModel,
    parameters: Parameters,
    columns: Columns,
    covariates: Array | None,
    terms: Mapping[str, Array],
    variables: tuple[str, ...] | None = None,
) -> Array:
    """Log P(class, row | covariates) from the terms of the variables: (..., class, row)."""
    total = log_class(model, parameters, covariates)
    for name in model.variables if variables is None else variables:
        if name in terms:
            total = total + log_density_given(model, name, parameters, columns, terms[name])
        else:
            total = total + log_density(model, name, parameters, columns)
    return total


def draw_given(
    model: CausalModel, parameters: Parameters, covariates: Array | None, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Draw classes and variables of ``n`` rows, one per row of the covariates where there are any."""
    log_p = log_class(model, parameters, covariates)
    latent = (log_p + rng.gumbel(size=(model.classes, n))).argmax(axis=0)
    columns: dict[str, NDArray[Any]] = {}
    rows = np.arange(n)
    for name in model.order:
        if name not in model.regressed:
            columns[name] = draw_variable(model, name, parameters, latent, columns, rng)
            continue
        terms = _terms(model, name, columns, covariates)
        if not model.variables[name].discrete:
            shift = shift_of(name, parameters, terms)
            columns[name] = draw_variable(model, name, parameters, latent, columns, rng, shift)
        else:
            log_table = log_table_given(model, name, parameters, terms)
            own = latent if model.variables[name].latent else 0
            index = tuple(columns[p] for p in model.variables[name].parents)
            chance = log_table[(rows, own, *index)]
            columns[name] = (chance + rng.gumbel(size=chance.shape)).argmax(axis=-1)
    return latent, columns
