"""Rows of numbers that repeat themselves: their densities once per distinct value, then looked up."""

from collections.abc import Mapping, Sequence

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.densities import LOG_DENSITY
from pymc_mte.bayes.grid import bin_table
from pymc_mte.bayes.priors import Tensor
from pymc_mte.bayes.scored import scored_mixture
from pymc_mte.families import FAMILIES
from pymc_mte.model import CausalModel
from pymc_mte.network import distinct_values

Array = NDArray[np.float64]


def observe_looked_up(
    model: CausalModel,
    parameters: Mapping[str, Tensor],
    layout: xr.Dataset,
    widths: Mapping[str, float],
    *,
    looked_up: Sequence[str],
    log_class: Tensor,
    by_row: Mapping[str, Sequence[Tensor]],
    row: Mapping[str, Tensor],
) -> None:
    """Observe rows of numbers some of which repeat themselves.

    Parameters
    ----------
    model : CausalModel
        The graph.
    parameters : mapping of str to tensor
        By result name.
    layout : xarray.Dataset
        From `pymc_mte.bayes.layout.pattern_layout`.
    widths : mapping of str to float
        Widths of the bins of rounded variables.
    looked_up : sequence of str
        Variables whose densities are computed per distinct value.
    log_class : tensor of shape (rows, classes)
        Log P(class | discrete part of the row).
    by_row : mapping of str to sequence of tensors
        Parameters of every continuous variable at every row.
    row : mapping of str to tensor of shape (rows,)
        Level numbers of the discrete variables.
    """
    total, names, seen = log_class, model.continuous_variables, []
    plain = [i for i, name in enumerate(names) if name not in widths and name not in looked_up]
    value = pm.Data("value", layout["value"].values[:, plain]) if plain else None
    for i, name in enumerate(names):
        column = layout["value"].values[:, i]
        if value is not None and i in plain:
            observed = value[:, plain.index(i)]
            density = LOG_DENSITY[model.variables[name].family](observed[:, None], *by_row[name])
        elif name in widths:
            density, observed = _rounded(model, name, parameters, column, widths[name], row)
        else:
            density, observed = _repeated(model, name, parameters, layout, column)
        total = total + density
        seen.append(observed)

    families = [model.variables[name].family for name in names]
    stops = np.cumsum([0, *(len(by_row[name]) for name in names)])

    def draw(rng: np.random.Generator, log_u: Array, *rest: Array) -> Array:
        latent = (log_u + rng.gumbel(size=log_u.shape)).argmax(axis=1)
        at = np.arange(len(latent)), latent
        columns = []
        for name, family, a, b in zip(names, families, stops[:-1], stops[1:], strict=True):
            own = [np.broadcast_to(value, log_u.shape)[at] for value in rest[a:b]]
            drawn = FAMILIES[family].draw(rng, *own)
            columns.append(np.round(drawn / widths[name]) * widths[name] if name in widths else drawn)
        return np.column_stack(columns)

    scored_mixture(
        "rows",
        total,
        weight=pm.Data("row_count", layout["row_count"].values.astype(float)),
        observed=pt.stack(seen, axis=1),  # of the data that the densities are of: no second copy
        draw=draw,
        arguments=[log_class, *(tensor for name in names for tensor in by_row[name])],
    )


def _rounded(
    model: CausalModel,
    name: str,
    parameters: Mapping[str, Tensor],
    column: Array,
    width: float,
    row: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Log-probability of every row's bin (rows, classes or 1), and the bin's middle (rows,)."""
    distinct, place = np.unique(column, return_inverse=True)
    middle, bin_of_row = pm.Data(f"bin_{name}", distinct), pm.Data(f"bin_of_row_{name}", place.ravel())
    index = tuple(row[p] for p in model.variables[name].parents)
    table = bin_table(model, name, parameters, middle, width)
    return table[(slice(None), *index, bin_of_row)].T, middle[bin_of_row]


def _repeated(
    model: CausalModel, name: str, parameters: Mapping[str, Tensor], layout: xr.Dataset, column: Array
) -> tuple[Tensor, Tensor]:
    """Log-density of every row (rows, classes or 1), by its value and parents' levels; the value."""
    var, code = model.variables[name], layout["code"].values[layout["cell_of_row"].values]
    columns = {p: code[:, model.discrete_variables.index(p)] for p in var.parents}
    own, where = distinct_values(model, name, columns | {name: column})
    level = {p: pm.Data(f"{p}_of_distinct_{name}", own[p]) for p in var.parents}
    value, place = pm.Data(f"distinct_{name}", own[name]), pm.Data(f"distinct_of_row_{name}", where)
    arguments = []
    for parameter in var.spec.parameters:
        dims = model.dims[key := f"{parameter}_{name}"]
        by_class = parameters[key] if "class" in dims else parameters[key][None]
        index = tuple(level[d] for d in dims if d != "class")
        arguments.append(by_class[(slice(None), *index)] if index else by_class[:, None])
    table = LOG_DENSITY[var.family](value[None], *arguments)
    return table[:, place].T, value[place]
