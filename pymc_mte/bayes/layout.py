"""The data as the likelihood takes them: cells with counts, rows that point to their cell."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.priors import Tensor
from pymc_mte.data import GROUP, columns_of
from pymc_mte.errors import DataError
from pymc_mte.families import Family
from pymc_mte.model import CausalModel
from pymc_mte.network import cell_columns

MAX_FULL_TABLE = 4_096
"""Up to this many cells the counts of all cells are observed; beyond, the seen patterns and one rest."""

ROUNDED = "grid"
"""Attribute of a tabulated column that has been rounded: the width of its bins."""

Code = Mapping[str, Any]
"""Level numbers of every cell, by variable: arrays or symbolic data."""


def pattern_layout(model: CausalModel, table: xr.Dataset) -> xr.Dataset:
    """Lay the data out for the likelihood: cells with counts, and rows that point to their cell.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : xarray.Dataset
        Tabulated data.

    Returns
    -------
    xarray.Dataset
        ``code`` (cell, variable) and ``count`` (cell) of the discrete part; ``cell_of_row``,
        ``row_count`` and ``value`` (row, continuous) of the patterns. ``attrs["rest"]`` is 1 when
        the last count belongs to all cells that were not seen.
    """
    names = model.discrete_variables
    columns, counts = columns_of(table, model), table["count"].values.astype("int64")
    if model.n_cells <= MAX_FULL_TABLE:
        cells = cell_columns(model)
        code = np.column_stack([cells[v] for v in names]) if names else np.zeros((1, 0), dtype=np.int64)
        sizes = tuple(model.size(v) for v in names)
        where = (
            np.ravel_multi_index([columns[v] for v in names], sizes) if names else np.zeros(len(counts), int)
        )
        rest = 0
    else:
        seen = np.column_stack([columns[v] for v in names])
        code, where = np.unique(seen, axis=0, return_inverse=True)
        rest = 1
    total = np.bincount(where.ravel(), weights=counts, minlength=len(code)).astype("int64")
    layout = xr.Dataset(
        {
            "code": (("cell", "discrete"), code.astype("int64")),
            "count": ("cell", total),
            "cell_of_row": ("row", where.ravel().astype("int64")),
            "row_count": ("row", counts),
        },
        attrs={"rest": rest},
    )
    if GROUP in table:
        layout[GROUP] = ("row", table[GROUP].values)
    if model.continuous_variables:
        value = np.column_stack([columns[v] for v in model.continuous_variables])
        layout["value"] = (("row", "continuous"), value)
    return layout


def level_numbers(model: CausalModel, layout: xr.Dataset) -> Code:
    """Level numbers per cell: fixed for the full table, data where only seen patterns are listed."""
    code = layout["code"].values
    if layout.attrs["rest"]:
        code = pm.Data("code", code)
    return {name: code[:, i] for i, name in enumerate(model.discrete_variables)}


def pooled_moments(
    family: Family, value: NDArray[np.float64], count: NDArray[np.float64]
) -> tuple[float, float]:
    """Pooled mean and standard deviation of a variable's values.

    Censored times count as if they had ended; zeros with a probability of their own are left out.
    """
    if family.values == "real":
        mean = float(np.average(value, weights=count))
    else:
        value = np.abs(value)
        if family.zeros_apart and (value > 0).any():
            value, count = value[value > 0], count[value > 0]
        mean = float(np.average(value, weights=count)) or 1.0
    return mean, float(np.sqrt(np.average((value - mean) ** 2, weights=count))) or 1.0


def refuse_constants(model: CausalModel, table: xr.Dataset, but: str | None = None) -> None:
    """Refuse numbers without spread: as a standard deviation falls to 0, their density has no bound.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    table : xarray.Dataset
        Tabulated data. Rounded variables pass: the probability of a bin has a bound.
    but : str, optional
        A variable that has a density of its own.
    """
    for name in model.continuous_variables:
        spec = model.variables[name].spec
        if "sd" not in spec.parameters or name == but or ROUNDED in table[name].attrs:
            continue
        value, count = table[name].values, table["count"].values
        kept = ~np.isnan(value) & ((value > 0) | (not spec.zeros_apart))
        if count[kept].sum() > 1 and np.ptp(value[kept]) == 0:
            raise DataError(
                f"column {name!r} holds {value[kept][0]:g} in all {count[kept].sum():g} rows"
                f"{' that are not zero' if spec.zeros_apart else ''}: no {spec.name} density fits best, so "
                "there is no posterior. Check the column; take it out of the model, or give it a family with "
                "levels"
            )


def pooled_scale(model: CausalModel, table: xr.Dataset, variable: str) -> tuple[Tensor, Tensor]:
    """Pooled mean and standard deviation as data, so that a new data set needs no new compilation."""
    value, count = table[variable].values, table["count"].values
    mean, sd = pooled_moments(model.variables[variable].spec, value, count)
    return pm.Data(f"pooled_mean_{variable}", mean), pm.Data(f"pooled_sd_{variable}", sd)
