"""The Bayesian network inside a class: densities, tables and draws. NumPy only.

Parameter arrays may have any leading batch axes (chain, draw, replicate) before the axes that
`CausalModel.dims` lists.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.errors import RefusedError
from pymc_mte.families import LINKS, binomial_table
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.variable import Variable

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

TINY = 1e-300
"""Keeps the logarithm of a zero probability finite."""

MAX_LOG_SHIFT = 30.0
"""Draws go no further on a logarithmic scale: under a prior, linear parents lie far from any row."""


def full_table(model: CausalModel, variable: str) -> Variable:
    """Return a variable whose tables say everything; refuse one that linear parents shift.

    Whatever reads tables alone passes here, so that it can never leave linear parents out unnoticed.
    """
    var = model.variables[variable]
    if var.linear_parents:
        raise RefusedError(
            f"this analysis reads full tables, and linear parents ({', '.join(var.linear_parents)}) shift "
            f"{variable!r}; use `sample`, whose result holds the effects, or list discrete ones in parents"
        )
    return var


def with_class_axis(model: CausalModel, name: str, value: Array) -> Array:
    """Return a parameter with a class axis, of length 1 if it is the same in every class."""
    dims = model.dims[name]
    if "class" in dims:
        return value
    return np.expand_dims(value, value.ndim - len(dims))


def table_of(model: CausalModel, variable: str, parameters: Parameters) -> Array:
    """P(level | class, parents) of a discrete variable: (..., class if latent, *parents, level)."""
    value, trials = parameters[f"p_{variable}"], model.variables[variable].trials
    return value if trials is None else binomial_table(value, trials)


def by_parents(var: Variable, parameter: str) -> bool:
    """Whether a parameter has an axis for every parent."""
    scope = var.spec.parameters[parameter].scope
    return scope in ("table", "location") or (scope == "scale" and var.scale_parents)


def gathered(model: CausalModel, variable: str, parameters: Parameters, columns: Columns) -> dict[str, Array]:
    """Parameters of a variable without listed levels, per class and pattern: (..., class, pattern)."""
    var = model.variables[variable]
    index: tuple[Any, ...] = tuple(np.asarray(columns[p]) for p in var.parents)
    out = {}
    for parameter in var.spec.parameters:
        value = with_class_axis(model, f"{parameter}_{variable}", parameters[f"{parameter}_{variable}"])
        if var.parents and by_parents(var, parameter):
            out[parameter] = value[(..., slice(None), *index)]
        else:
            out[parameter] = value[..., None]
    return out


def log_density(model: CausalModel, variable: str, parameters: Parameters, columns: Columns) -> Array:
    """Log-density of one variable given its parents, per class and pattern: (..., class, pattern).

    A negative level number or NaN stands for a missing value and contributes zero.
    """
    var = full_table(model, variable)
    column = np.asarray(columns[variable])
    if var.discrete:
        table = table_of(model, variable, parameters)
        if not var.latent:
            table = np.expand_dims(table, table.ndim - len(var.parents) - 1)
        index: tuple[Any, ...] = tuple(np.asarray(columns[p]) for p in var.parents)
        log_p = np.log(np.maximum(table, TINY))[(..., slice(None), *index, column)]
        missing = column < 0
        return np.where(missing, 0.0, log_p) if missing.any() else log_p
    if not isinstance(columns, RepeatedColumns) or variable not in columns.repeated:
        return number_log_density(model, variable, parameters, columns)
    own, place = columns.repeated[variable]
    return np.take(number_log_density(model, variable, parameters, own), place, axis=-1)


def number_log_density(model: CausalModel, variable: str, parameters: Parameters, columns: Columns) -> Array:
    """`log_density` of a variable without listed levels, computed for every pattern."""
    var, column = full_table(model, variable), np.asarray(columns[variable])
    log_p = var.spec.log_density(column, **gathered(model, variable, parameters, columns))
    missing = np.isnan(column)
    return np.where(missing, 0.0, log_p) if missing.any() else log_p


def scores(model: CausalModel, variable: str, parameters: Parameters, columns: Columns) -> dict[str, Array]:
    """Differentiate `log_density` by the free coordinate of each parameter: (..., class, pattern)."""
    if not isinstance(columns, RepeatedColumns) or variable not in columns.repeated:
        return number_scores(model, variable, parameters, columns)
    own, place = columns.repeated[variable]
    found = number_scores(model, variable, parameters, own)
    return {name: np.take(score, place, axis=-1) for name, score in found.items()}


def number_scores(
    model: CausalModel, variable: str, parameters: Parameters, columns: Columns
) -> dict[str, Array]:
    """`scores`, computed for every pattern."""
    law, own = full_table(model, variable).spec.law, gathered(model, variable, parameters, columns)
    assert law is not None
    return dict(zip(own, law.scores(np.asarray(columns[variable]), *own.values()), strict=True))


class RepeatedColumns(dict[str, NDArray[Any]]):
    """Pattern columns that are asked for densities again and again: those of repeated values are looked up.

    Parameters
    ----------
    model : CausalModel
        The graph.
    columns : mapping of str to ndarray of shape (patterns,)
        Pattern columns.

    Attributes
    ----------
    repeated : dict
        By count, from `distinct_values`; not those of which most values occur once.
    """

    def __init__(self, model: CausalModel, columns: Columns) -> None:
        super().__init__(columns)
        self.repeated: dict[str, tuple[Columns, NDArray[np.int64]]] = {}
        for name in model.continuous_variables:
            if model.variables[name].spec.repeats:
                own, place = distinct_values(model, name, columns)
                if len(own[name]) <= len(place) / 2:
                    self.repeated[name] = own, place


def distinct_values(model: CausalModel, variable: str, columns: Columns) -> tuple[Columns, NDArray[np.int64]]:
    """Take a variable's distinct values with its parents' levels, and where among them every pattern is."""
    parents = model.variables[variable].parents
    own = {name: np.asarray(columns[name]) for name in (*parents, variable)}
    value, place = np.unique(own[variable], return_inverse=True)
    if not parents:
        return {variable: value}, place
    sizes = [*(model.size(p) for p in parents), len(value)]
    cell = np.ravel_multi_index([*(own[p] for p in parents), place], sizes)
    _, first, place = np.unique(cell, return_index=True, return_inverse=True)
    return {name: column[first] for name, column in own.items()}, place


def log_joint(
    model: CausalModel,
    parameters: Parameters,
    columns: Columns,
    variables: tuple[str, ...] | None = None,
) -> Array:
    """Log of P(class, pattern), for all or some variables: shape (..., class, pattern)."""
    weight = np.maximum(parameters["class_weight"], TINY)
    total: Array = np.log(weight)[..., None]
    for variable in model.variables if variables is None else variables:
        total = total + log_density(model, variable, parameters, columns)
    return total


def log_sum_classes(log_p: Array) -> Array:
    """Sum the class out of log P(class, pattern): shape (..., pattern)."""
    top = log_p.max(axis=-2, keepdims=True)
    total: Array = np.log(np.exp(log_p - top).sum(axis=-2)) + top[..., 0, :]
    return total


def cell_columns(model: CausalModel) -> dict[str, NDArray[np.int64]]:
    """Level numbers of every cell of the table of discrete variables, last variable fastest."""
    names = model.discrete_variables
    grid = np.indices([model.size(v) for v in names]).reshape(len(names), model.n_cells)
    return {name: grid[i].astype(np.int64) for i, name in enumerate(names)}


def draw_rows(
    model: CausalModel,
    parameters: Parameters,
    n: int,
    rng: np.random.Generator,
    targets: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Draw latent classes and rows (level numbers or values) from one set of parameters.

    ``targets`` (classes, variables) are level numbers that a class forces, -1 where it forces none.
    """
    weight = parameters["class_weight"]
    latent = rng.choice(model.classes, size=n, p=weight / weight.sum())
    columns: dict[str, NDArray[Any]] = {}
    for variable in model.order:
        columns[variable] = draw_variable(model, variable, parameters, latent, columns, rng)
        if targets is not None:
            forced = targets[latent, list(model.variables).index(variable)]
            columns[variable] = np.where(forced < 0, columns[variable], forced)
    return latent, columns


def draw_variable(
    model: CausalModel,
    variable: str,
    parameters: Parameters,
    latent: NDArray[np.int64],
    columns: Columns,
    rng: np.random.Generator,
    shift: Array | None = None,
) -> NDArray[Any]:
    """Draw one variable for rows whose classes and parents are known.

    ``shift`` (rows) moves the location of a variable without listed levels, on the scale of its link.
    """
    var = full_table(model, variable) if shift is None else model.variables[variable]
    own, n = [], len(latent)
    for parameter, kind in var.spec.parameters.items():
        value = parameters[f"{parameter}_{variable}"]
        if var.discrete:
            value = table_of(model, variable, parameters)
        index: tuple[Any, ...] = (latent,) if var.latent else ()
        if by_parents(var, parameter):
            index += tuple(columns[p] for p in var.parents)
        if kind.scope == "shared":
            own.append(value)
            continue
        value = value[index] if index else np.broadcast_to(value, (n, *value.shape))
        if shift is not None and parameter == LINKS[var.family][0]:
            log_shift = np.clip(shift, -MAX_LOG_SHIFT, MAX_LOG_SHIFT)
            value = value + shift if LINKS[var.family][1] == "identity" else value * np.exp(log_shift)
        own.append(value)
    drawn = var.spec.draw(rng, *own)
    return drawn if var.censor_at is None else np.where(drawn > var.censor_at, -var.censor_at, drawn)
