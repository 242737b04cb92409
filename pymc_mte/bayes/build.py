"""`build_model`: a plain PyMC model over patterns, the latent class summed out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr

from pymc_mte.bayes.mixture import continuous_mixture
from pymc_mte.bayes.priors import Prior, Tensor, add_parameter, free_dims, merge_priors
from pymc_mte.bayes.targets import MAX_FULL_TABLE, build_targets
from pymc_mte.data import SAMPLING_WEIGHT, columns_of, resolve
from pymc_mte.errors import DataError, ModelError, RefusedError
from pymc_mte.families import binomial_coefficients
from pymc_mte.model import CausalModel
from pymc_mte.network import cell_columns

Code = Mapping[str, Any]
"""Level numbers of every cell, by variable: arrays or symbolic data."""


def build_model(
    model: CausalModel,
    data: Any = None,
    *,
    base: Any = None,
    start: Any = None,
    priors: Mapping[str, Prior] | None = None,
) -> pm.Model:
    """Build (do not sample) the Bayesian latent-class causal model.

    The discrete variables enter as one multinomial over cells, the continuous ones as a mixture
    given the cell; together that is the exact joint likelihood with the class summed out.

    Parameters
    ----------
    model : CausalModel
        The graph and families.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default. Counts must be whole numbers.
    base : the same, optional
        For a model with interventions: rows of the untouched network, whose tables are then learnt
        together with the shares. By default its ``base`` parameters (known) or ``base_file``.
    start : DataTree, optional
        For a model with interventions that lists no targets: the answer of `estimate` whose targets
        are the candidates. They are searched anew where none is given.
    priors : mapping, optional
        Replacements by parameter name, e.g. ``{"p_z": 1.0}`` (Dirichlet concentration),
        ``{"mean_y": {"dist": "normal", "mu": 0, "sigma": 10}}`` or ``{"sd_y": f}`` with
        ``f(name, dims)`` returning a random variable.

    Returns
    -------
    pymc.Model
        Free variables named as in results (``class_weight``, ``p_z``, ``mean_y``); the ``p`` of a
        bernoulli variable is the probability of its second level, without a level axis, that of a
        binomial one the probability of success in one trial. Observed
        variables: ``counts`` and, with continuous variables, ``rows``. All data are `pymc.Data`.
        With interventions: ``target_weight`` (Dirichlet, concentration 0.5) and the tables of a learnt
        base; observed are ``counts`` and, per learnt table, ``base_a``, ...

    Raises
    ------
    DataError
        If counts are not whole numbers or an arm is empty of meaning.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> level3 = load_model("gallery:level3")
    >>> [v.name for v in build_model(level3, simulate(level3, 100)).free_RVs]
    ['class_weight', 'p_z', 'p_x', 'p_t', 'p_y']
    """
    if model.unbuilt is not None:
        raise RefusedError(f"no posterior for {model.name!r}: {model.unbuilt}")
    if model.interventions is not None:
        return build_targets(model, data, base=base, start=start, priors=priors)
    if base is not None or start is not None:
        raise ModelError("base and start: only a model with interventions takes them here; leave them out")
    model, table = resolve(model, data)
    if table["count"].dtype.kind != "i":
        raise DataError("the posterior needs whole counts; real-valued tables are for moment methods only")
    if SAMPLING_WEIGHT in table:
        raise RefusedError("sampling weights are for `estimate`; a weighted posterior is not supported")
    chosen = merge_priors(model, priors)
    layout = pattern_layout(model, table)
    coords = {
        name: list(values) for name, values in model.coords.items() if name not in ("treatment", "contrast")
    }
    coords |= {
        "cell": list(range(layout.sizes["cell"])),
        "continuous": list(model.continuous_variables),
    }
    with pm.Model(coords=coords) as built:
        scales = {v: _pooled(table, v) for v in model.continuous_variables}
        parameters = {
            name: add_parameter(
                model,
                name,
                chosen.get(name),
                *scales.get(model.owners.get(name, ("",))[0], (None, None)),
            )
            for name in model.dims
        }
        code = _level_numbers(model, layout)
        log_cells = _log_joint_cells(model, parameters, code)
        if model.discrete_variables:
            _observe_counts(log_cells, layout)
        if model.continuous_variables:
            _observe_rows(model, parameters, log_cells, code, layout)
    return built


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
    if model.continuous_variables:
        value = np.column_stack([columns[v] for v in model.continuous_variables])
        layout["value"] = (("row", "continuous"), value)
    return layout


def _level_numbers(model: CausalModel, layout: xr.Dataset) -> Code:
    """Level numbers per cell: fixed for the full table, data where only seen patterns are listed."""
    code = layout["code"].values
    if layout.attrs["rest"]:
        code = pm.Data("code", code)
    return {name: code[:, i] for i, name in enumerate(model.discrete_variables)}


def _pooled(table: xr.Dataset, variable: str) -> tuple[Tensor, Tensor]:
    """Pooled mean and standard deviation as data, so that a new data set needs no new compilation."""
    value, count = table[variable].values, table["count"].values
    mean = float(np.average(value, weights=count))
    sd = float(np.sqrt(np.average((value - mean) ** 2, weights=count))) or 1.0
    return pm.Data(f"pooled_mean_{variable}", mean), pm.Data(f"pooled_sd_{variable}", sd)


def _log_joint_cells(model: CausalModel, parameters: Mapping[str, Tensor], code: Code) -> Tensor:
    """Log P(class, cell) of the discrete variables: (class, cell).

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
            total = total + own * pt.log(p) + (trials - own) * pt.log1p(-p)
            if trials > 1:
                total = total + pt.as_tensor(np.log(binomial_coefficients(trials)))[own]
        else:
            total = total + _look_up(pt.log(value), model.dims[f"p_{name}"], code)
    return total


def _look_up(value: Tensor, dims: tuple[str, ...], code: Code) -> Tensor:
    """Take a parameter at the level numbers of every cell: (class or 1, cell or 1)."""
    index = tuple(code[d] for d in dims if d != "class")
    if "class" not in dims:
        return value[index][None, :] if index else value[None, None]
    return value[(slice(None), *index)] if index else value[:, None]


def _observe_counts(log_cells: Tensor, layout: xr.Dataset) -> None:
    p, count = pt.exp(log_cells).sum(axis=0), layout["count"].values
    if layout.attrs["rest"]:
        p = pt.join(0, p, pt.maximum(1.0 - p.sum(), 1e-300)[None])
        count = np.append(count, 0)
    counts = pm.Data("count", count.astype("int64"))
    pm.Multinomial("counts", n=pm.Data("n", np.int64(count.sum())), p=p, observed=counts)


def _observe_rows(
    model: CausalModel,
    parameters: Mapping[str, Tensor],
    log_cells: Tensor,
    code: Code,
    layout: xr.Dataset,
) -> None:
    where = pm.Data("cell_of_row", layout["cell_of_row"].values)
    log_class = log_cells - pm.math.logsumexp(log_cells, axis=0, keepdims=True)
    by_row: dict[str, list[Tensor]] = {"mean": [], "sd": [], "nu": []}
    for name in model.continuous_variables:
        for parameter, found in by_row.items():
            key = f"{parameter}_{name}"
            if key not in parameters:
                found.append(pt.zeros((1, 1)))
                continue
            cells = _look_up(parameters[key], model.dims[key], code)
            by_cell = any(d != "class" for d in model.dims[key])
            found.append(cells[:, where].T if by_cell else cells.T)
    continuous_mixture(
        "rows",
        tuple(model.variables[v].family for v in model.continuous_variables),
        log_class=log_class[:, where].T if model.discrete_variables else log_class.T + 0.0 * where[:, None],
        weight=pm.Data("row_count", layout["row_count"].values.astype(float)),
        parameters=by_row,
        observed=pm.Data("value", layout["value"].values),
    )
