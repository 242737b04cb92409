"""Functionals averaged over the rows' covariates and over linear parents. NumPy only."""

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pymc_mte.coefficients import takes_covariates
from pymc_mte.families import LINKS
from pymc_mte.functionals import (
    ancestors,
    arm_weight,
    effects_from_classes,
    functionals,
    mean_among,
    potential_outcomes,
)
from pymc_mte.gcomputation import simulated_functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.network import by_parents
from pymc_mte.regression import class_given, regressors, shift_of, table_given
from pymc_mte.threads import ONE_BLAS_THREAD

Array = NDArray[np.float64]

MAX_BLOCK = 250_000
"""Numbers (draws x rows x classes x levels) that are held at once while draws are averaged over rows; larger
blocks leave the processor's cache."""

MAX_EXPANDED = 2_000
"""Tables of up to this many cells per class are written out over linear parents; others are simulated."""


def functionals_given(
    model: CausalModel, parameters: Parameters, covariates: Array | None, share: Array
) -> dict[str, Array]:
    """All functionals of draws, averaged over the rows' covariates and over linear parents.

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

    Notes
    -----
    Linear parents follow their own distributions within the class, and under the arm where the treatment
    precedes them. Exact sums where those that treatment and outcome descend from are discrete;
    otherwise `simulated_functionals`, which says how near it comes.
    """
    if model.treatment is None:
        return {}
    if not model.regressed:
        return functionals(model, parameters)
    linear = bool(model.linear_edges)
    wide = written_out(model, {model.treatment, str(model.outcome)}) if linear else model
    weight = parameters["class_weight" if covariates is None else "baseline_weight"]
    lead = weight.shape[:-1]
    flat = {n: v.reshape(-1, *v.shape[len(lead) :]) for n, v in parameters.items()}
    if wide is None:
        found = simulated_functionals(model, flat, covariates, share, MAX_BLOCK)
        return {n: v.reshape((*lead, *v.shape[1:])) for n, v in found.items()}
    found = _from_sums(wide, _summed(model, wide, flat, covariates, share))
    return {
        n: v.reshape((*lead, *v.shape[1:]))
        for n, v in found.items()
        if covariates is not None or n != "class_weight"
    }


def _summed(
    model: CausalModel, wide: CausalModel, parameters: Parameters, covariates: Array | None, share: Array
) -> dict[str, Array]:
    """Sum over all rows what `averaged` needs, some rows and some draws at a time."""
    share = np.ones(1) if covariates is None else share
    draws, rows = len(next(iter(parameters.values()))), len(share)
    width = _width(model, wide)
    held = max(rows * width, *(math.prod(shape) for shape in wide.shapes.values()))
    blocks = np.array_split(np.arange(draws), max(1, min(draws, draws * held // MAX_BLOCK)))

    def of_block(
        block: NDArray[np.int64], given: Array | None, portion: Array, terms: Mapping[str, Array]
    ) -> dict[str, Array]:
        part = {n: v[block] for n, v in parameters.items()}
        return _row_sums(wide, row_parameters(model, wide, part, given, terms), portion)

    sums: dict[str, Array] = {}
    # NumPy lets go of the interpreter's lock; threads inside its products would only wait for each other.
    with ONE_BLAS_THREAD, ThreadPoolExecutor(os.cpu_count()) as pool:
        for piece in np.array_split(np.arange(rows), max(1, min(rows, rows * width // MAX_BLOCK))):
            given = None if covariates is None else covariates[piece]
            terms = wide_terms(model, wide, given)
            parts = list(pool.map(partial(of_block, given=given, portion=share[piece], terms=terms), blocks))
            found = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
            sums = {n: v + sums[n] for n, v in found.items()} if sums else found
    return sums


def _width(model: CausalModel, wide: CausalModel) -> int:
    """Numbers that one row takes per draw: the widest table that is computed for it, or its outcomes."""
    tables = []
    for name in model.regressed:
        if name in wide.variables:
            var = wide.variables[name]
            tables.append(math.prod(model.size(a) for a in (*var.parents, *([name] if var.discrete else []))))
    return model.classes * max(2 * max(len(model.arms), 2), *tables)


def written_out(model: CausalModel, targets: set[str]) -> CausalModel | None:
    """Network of some variables and their ancestors with tables over linear parents; None if it cannot be."""
    relevant = ancestors(model, targets, stop=set())
    variables = {}
    for name in model.variables:
        if name in relevant:
            var = model.variables[name]
            axes = (*var.all_parents, *([name] if var.discrete else []))
            if any(not model.variables[p].discrete for p in var.linear_parents):
                return None
            if var.linear_parents and np.prod([float(model.size(a)) for a in axes]) > MAX_EXPANDED:
                return None
            variables[name] = var.model_copy(update={"parents": var.all_parents, "linear_parents": ()})
    roles: dict[str, Any] = {"treatment_proxies": (), "outcome_proxies": (), "strata": ()}
    roles |= {"covariates": (), "covariate_levels": {}}
    if not {model.treatment, model.outcome} <= relevant:
        roles |= {"treatment": None, "outcome": None, "reference": None}
    return model.with_fields(variables=variables, truth=None, priors={}, **roles)


def wide_terms(model: CausalModel, wide: CausalModel, covariates: Array | None) -> dict[str, Array]:
    """Columns that shift each variable, for every row and all levels of linear parents in turn."""
    out: dict[str, Array] = {}
    for name in model.regressed:
        if name not in wide.variables:
            continue
        linear = model.variables[name].linear_parents
        sizes = tuple(model.size(p) for p in linear)
        cells = int(np.prod(sizes))
        given = covariates if takes_covariates(model, name) else None
        rows = 1 if given is None else len(given)
        grid = np.indices(sizes).reshape(len(sizes), cells)
        columns = {p: np.tile(grid[i], rows) for i, p in enumerate(linear)}
        repeated = None if given is None else np.repeat(given, cells, axis=0)
        out |= regressors(model, columns, repeated, [name])
    return out


def row_parameters(
    model: CausalModel,
    wide: CausalModel,
    parameters: Parameters,
    covariates: Array | None,
    terms: Mapping[str, Array],
) -> Parameters:
    """Parameters of every row's own network, from draws: (draw, row or 1, ...).

    ``class_weight`` becomes P(class | covariates), tables and means those at the row's covariates, with
    axes for the linear parents where ``wide`` has them as parents. ``terms`` come from `wide_terms`. In
    memory the rows lie next to each other, because sums over the few classes and levels then run along them.
    """
    out: Parameters = {n: parameters[n][:, None] for n in wide.owners}
    out["class_weight"] = np.moveaxis(class_given(model, parameters, covariates), -1, 1)
    for name in terms:
        out |= _shifted(model, name, parameters, terms[name])
    return {n: np.moveaxis(np.ascontiguousarray(np.moveaxis(v, 1, -1)), -1, 1) for n, v in out.items()}


def _shifted(model: CausalModel, name: str, parameters: Parameters, terms: Array) -> Parameters:
    """Parameters of one variable at every row's covariates and every level of its linear parents."""
    var = model.variables[name]
    moved, link = LINKS[var.family]
    sizes = tuple(model.size(p) for p in var.linear_parents)
    rows, more = len(terms) // int(np.prod(sizes)), len(sizes)
    out: Parameters = {}
    for parameter in var.spec.parameters:
        value = parameters[key := f"{parameter}_{name}"]
        draws, own = len(value), value.shape[1:]
        if parameter == moved and link == "logit" and var.trials is None:
            table = table_given(model, name, parameters, terms)
            table = table.reshape(draws, rows, *sizes, *table.shape[2:])
            table = np.moveaxis(table, range(2, 2 + more), range(-1 - more, -1))
            out[key] = table if var.latent else table[:, :, 0]
            continue
        extra = more if by_parents(var, parameter) else 0
        value = value.reshape(draws, 1, *own, *(1,) * extra)
        if parameter != moved:
            out[key] = np.broadcast_to(value, (draws, 1, *own, *sizes[:extra]))
            continue
        shift = shift_of(name, parameters, terms).reshape(draws, rows, *(1,) * len(own), *sizes)
        if link == "logit":
            out[key] = special.expit(special.logit(value) + shift)
        else:
            out[key] = value + shift if link == "identity" else value * np.exp(shift)
    return out


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
    return _from_sums(model, _row_sums(model, own, share))


def _row_sums(model: CausalModel, own: Parameters, share: Array) -> dict[str, Array]:
    """Sum over rows what `averaged` needs; the sums of parts of the rows add up."""
    outcomes = potential_outcomes(model, own)
    by_row = np.broadcast_to(outcomes, (*own["class_weight"].shape, outcomes.shape[-1]))
    got = arm_weight(model, own).sum(axis=-2)
    gains = []
    for b, a in model.contrasts:
        gain = mean_among(model, own, b, b) - mean_among(model, own, a, b)
        gains.append((gain * got[..., b]) @ share)
    return {
        "weight": np.einsum("r,drk->dk", share, own["class_weight"]),
        "outcome": np.einsum("r,drk,drka->dka", share, own["class_weight"], by_row),
        "got": np.stack([got[..., b] @ share for b, _ in model.contrasts], axis=-1),
        "gain": np.stack(gains, axis=-1),
    }


def _from_sums(model: CausalModel, sums: Mapping[str, Array]) -> dict[str, Array]:
    """Functionals from the sums over all rows."""
    weight = sums["weight"]
    out = {"class_weight": weight, "potential_outcome": sums["outcome"] / weight[..., None]}
    out |= effects_from_classes(model, weight, out["potential_outcome"])
    att = sums["gain"] / sums["got"]
    out["att"] = att[..., 0] if len(model.contrasts) == 1 else att
    return out
