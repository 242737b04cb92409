"""Parameters and collapsed likelihood of a causal model, inside a PyMC model."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr

from pymc_mte.bayes.densities import LOG_DENSITY
from pymc_mte.bayes.grid import widths_of
from pymc_mte.bayes.layout import Code, level_numbers, pattern_layout, pooled_scale, refuse_constants
from pymc_mte.bayes.lookedup import observe_looked_up
from pymc_mte.bayes.mixture import continuous_mixture
from pymc_mte.bayes.pooling import GROUP_EFFECT, add_group_shift, add_group_weights, add_pooled
from pymc_mte.bayes.priors import Prior, Tensor, free_dims
from pymc_mte.bayes.rowwise import compose_rows, needs_rows
from pymc_mte.bayes.scored import scored_mixture
from pymc_mte.data import GROUP
from pymc_mte.errors import ModelError
from pymc_mte.families import LINKS, binomial_coefficients
from pymc_mte.model import CausalModel
from pymc_mte.sites import SHIFT

OutcomeDensity = Callable[[Any, Tensor, Mapping[str, Tensor]], Tensor]
"""``f(class, treatment, row)`` -> log-density (rows, classes), see `pymc_mte.add_to_model`."""


MAX_INDICATORS = 32
"""Tables of up to so many cells are looked up by a product with indicators, which compiles sooner."""


def compose(
    model: CausalModel,
    table: xr.Dataset,
    priors: Mapping[str, Prior],
    outcome: OutcomeDensity | None = None,
) -> dict[str, Tensor]:
    """Add parameters and observed variables to the current PyMC model.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : xarray.Dataset
        Tabulated data.
    priors : mapping
        By result name, see `merge_priors`.
    outcome : callable, optional
        The outcome's own log-density, see `pymc_mte.add_to_model`; its family then has no parameters here.

    Returns
    -------
    dict of str to tensor
        The parameters by result name.
    """
    if GROUP_EFFECT in priors and GROUP not in table:
        raise ModelError(f"prior of {GROUP_EFFECT}: effects vary over groups; name their column as group")
    refuse_constants(model, table, None if outcome is None else model.outcome)
    if needs_rows(model, table):
        return compose_rows(model, table, priors)
    layout = pattern_layout(model, table)
    current = pm.modelcontext(None)
    coords = {
        name: list(values) for name, values in model.coords.items() if name not in ("treatment", "contrast")
    }
    current.add_coords(coords)
    scales = {v: pooled_scale(model, table, v) for v in model.continuous_variables}
    parameters: dict[str, Tensor] = {}
    if GROUP in table:
        by_group, average = add_group_weights(model, table, priors.get("class_weight"))
        parameters["class_weight"] = average
    parameters |= {
        name: add_pooled(model, name, priors.get(name), *scales.get(_owner(model, name), (None, None)))
        for name in model.dims
        if name not in parameters and (outcome is None or _owner(model, name) != model.outcome)
    }
    code = level_numbers(model, layout)
    if GROUP in table:
        unweighted = parameters | {"class_weight": pt.ones(model.classes)}
        if GROUP_EFFECT in priors:
            scale = scales.get(str(model.outcome), (None, None))[1]
            parameters[SHIFT] = unweighted[SHIFT] = add_group_shift(model, priors[GROUP_EFFECT], table, scale)
        cells = _log_joint_cells(model, unweighted, code)
        log_cells = pt.log(by_group)[:, :, None] + (cells if cells.ndim == 3 else cells[None])
    else:
        log_cells = _log_joint_cells(model, parameters, code)
    if model.discrete_variables:
        _observe_counts(log_cells, layout)
    if outcome is not None:
        _observe_own(model, parameters, log_cells, code, layout, outcome)
    elif model.continuous_variables:
        _observe_rows(model, parameters, log_cells, code, layout, widths_of(model, table))
    return parameters


def _owner(model: CausalModel, name: str) -> str:
    return model.owners.get(name, ("",))[0]


def _log_joint_cells(model: CausalModel, parameters: Mapping[str, Tensor], code: Code) -> Tensor:
    """Log P(class, cell) of the discrete variables: (class, cell), or (group, class, cell).

    Element-wise sums over looked-up values: this form compiles in half the time of products of
    broadcast tables.
    """
    total = pt.log(parameters["class_weight"])[:, None]
    for name in model.discrete_variables:
        value, own = parameters[f"p_{name}"], code[name]
        var = model.variables[name]
        if var.family == "bernoulli" or var.trials is not None:
            trials = var.trials or 1
            p = _look_up(value, free_dims(model, f"p_{name}"), code)
            if name == model.outcome and SHIFT in parameters:
                odds = pt.log(p) - pt.log1p(-p) + parameters[SHIFT][:, None, code[str(model.treatment)]]
                total = total + own * odds - trials * pt.softplus(odds)
            else:
                total = total + own * pt.log(p) + (trials - own) * pt.log1p(-p)
            if trials > 1:
                total = total + pt.as_tensor(np.log(binomial_coefficients(trials)))[own]
        else:
            total = total + pt.log(_look_up(value, model.dims[f"p_{name}"], code))
    return total


def _look_up(value: Tensor, dims: tuple[str, ...], code: Code) -> Tensor:
    """Take a parameter at the level numbers of every cell: (class or 1, cell or 1)."""
    names = [d for d in dims if d != "class"]
    if not names:
        return value[:, None] if "class" in dims else value[None, None]
    if all(isinstance(code[d], np.ndarray) for d in names):  # a full table, whose cells are known
        size = [int(code[d].max()) + 1 for d in names]
        cell = np.ravel_multi_index([code[d] for d in names], size)
        if (cells := int(np.prod(size))) <= MAX_INDICATORS:
            indicator = (cell == np.arange(cells)[:, None]).astype(float)
            value = value.reshape((value.shape[0] if "class" in dims else 1, cells))
            return (value[:, :, None] * indicator).sum(axis=1)
    index = tuple(code[d] for d in names)
    return value[(slice(None), *index)] if "class" in dims else value[index][None, :]


def _observe_counts(log_cells: Tensor, layout: xr.Dataset) -> None:
    p, count = pt.exp(log_cells).sum(axis=-2), layout["count"].values
    if GROUP in layout:
        group = layout[GROUP].values
        count = np.zeros((len(pm.modelcontext(None).coords[GROUP]), layout.sizes["cell"]), dtype="int64")
        np.add.at(count, (group, layout["cell_of_row"].values), layout["row_count"].values)
    if layout.attrs["rest"]:
        p = pt.join(-1, p, pt.maximum(1.0 - p.sum(axis=-1, keepdims=True), 1e-300))
        count = np.concatenate([count, np.zeros_like(count[..., :1])], axis=-1)
    counts = pm.Data("count", count.astype("int64"))
    pm.Multinomial("counts", n=pm.Data("n", count.sum(axis=-1).astype("int64")), p=p, observed=counts)


def _observe_rows(
    model: CausalModel,
    parameters: Mapping[str, Tensor],
    log_cells: Tensor,
    code: Code,
    layout: xr.Dataset,
    widths: Mapping[str, float],
) -> None:
    where = pm.Data("cell_of_row", layout["cell_of_row"].values)
    log_class = _log_class(model, log_cells, where, layout)
    names = model.continuous_variables
    by_row = {name: _by_row(model, parameters, name, code, where) for name in names}
    shifted = model.outcome if SHIFT in parameters else None
    if shifted in widths:
        raise ModelError("grid: bins are alike in all groups; leave grid or group_effect out")
    repeated = [n for n in names if model.variables[n].spec.repeats and n != shifted]
    if widths or repeated:
        row = {name: pt.as_tensor(code[name])[where] for name in model.discrete_variables}
        given = {"log_class": log_class, "by_row": by_row, "row": row}
        observe_looked_up(model, parameters, layout, widths, looked_up=repeated, **given)
        return
    continuous_mixture(
        "rows",
        tuple(model.variables[name].family for name in names),
        log_class=log_class,
        weight=pm.Data("row_count", layout["row_count"].values.astype(float)),
        parameters=list(by_row.values()),
        observed=pm.Data("value", layout["value"].values),
    )


def _log_class(model: CausalModel, log_cells: Tensor, where: Tensor, layout: xr.Dataset) -> Tensor:
    """Log P(class | discrete part of the row, group): (row, class)."""
    log_class = log_cells - pm.math.logsumexp(log_cells, axis=-2, keepdims=True)
    if GROUP in layout:
        group = pm.Data("group_of_row", layout[GROUP].values)
        return log_class[group, :, where if model.discrete_variables else 0]
    return log_class[:, where].T if model.discrete_variables else log_class.T + 0.0 * where[:, None]


def _by_row(
    model: CausalModel, parameters: Mapping[str, Tensor], variable: str, code: Code, where: Tensor
) -> list[Tensor]:
    """Take the parameters of a continuous variable at every row: each (row or 1, class or 1)."""
    own = []
    for parameter in model.variables[variable].spec.parameters:
        name = f"{parameter}_{variable}"
        cells = _look_up(parameters[name], model.dims[name], code)
        by_cell = any(d != "class" for d in model.dims[name])
        own.append(cells[:, where].T if by_cell else cells.T)
    if variable == model.outcome and SHIFT in parameters:
        place, link = LINKS[model.variables[variable].family]
        i = list(model.variables[variable].spec.parameters).index(place)
        arm = pt.as_tensor(code[str(model.treatment)])[where]
        shift = parameters[SHIFT][pm.modelcontext(None)["group_of_row"], arm][:, None]
        own[i] = own[i] + shift if link == "identity" else own[i] * pt.exp(shift)
    return own


def _observe_own(
    model: CausalModel,
    parameters: Mapping[str, Tensor],
    log_cells: Tensor,
    code: Code,
    layout: xr.Dataset,
    outcome: OutcomeDensity,
) -> None:
    """Observe the rows where the outcome's density is the caller's."""
    where = pm.Data("cell_of_row", layout["cell_of_row"].values)
    observed = pm.Data("value", layout["value"].values)
    row = {name: pt.as_tensor(code[name])[where][:, None] for name in model.discrete_variables}
    row |= {name: observed[:, [i]] for i, name in enumerate(model.continuous_variables)}
    total = _log_class(model, log_cells, where, layout)
    own_density = outcome(np.arange(model.classes)[None, :], row[str(model.treatment)], row)
    if (axes := getattr(own_density, "ndim", None)) != 2:
        came = type(own_density).__name__ if axes is None else f"{axes} axes"
        raise ModelError(f"outcome: a log-density with the axes (rows, classes) is wanted, got {came}")
    total = total + own_density
    for name in model.continuous_variables:
        if name != model.outcome:
            own = _by_row(model, parameters, name, code, where)
            total = total + LOG_DENSITY[model.variables[name].family](row[name], *own)
    weight = pm.Data("row_count", layout["row_count"].values.astype(float))
    scored_mixture("rows", total, weight=weight, observed=observed)
