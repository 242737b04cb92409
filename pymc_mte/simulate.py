"""Rows from a model with known parameters, its population table and its true functionals."""

import json
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.errors import ModelError, whole_number
from pymc_mte.functionals import functional_dims
from pymc_mte.interventions import target_array, target_label, target_values, value_labels
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.network import cell_columns, draw_rows, log_density
from pymc_mte.randomness import as_generator
from pymc_mte.regression import draw_given, log_joint_given
from pymc_mte.results import sorted_classes
from pymc_mte.standardised import functionals_given
from pymc_mte.status import dump_notes


def simulate(model: CausalModel, n: int, *, rng: int | np.random.Generator = 0) -> xr.Dataset:
    """Draw rows from a model's stated truth.

    Parameters
    ----------
    model : CausalModel
        A model with a ``[truth]`` table.
    n : int
        Number of rows, at least 1.
    rng : int or numpy.random.Generator
        Source of randomness.

    Returns
    -------
    xarray.Dataset
        One column per variable along ``row``, with the levels as they are named in the model, for a
        censored time its ``event`` column too, and the hidden ``latent_class``, which no estimator
        looks at.

    Examples
    --------
    >>> from pymc_mte import load_model
    >>> sorted(simulate(load_model("gallery:level3"), 5, rng=1).data_vars)
    ['latent_class', 't', 'x', 'y', 'z']
    """
    need_model("simulate", model)
    n = whole_number("n", n)
    generator = as_generator(rng)
    if model.linear:
        latent, columns = draw_linear(model, n, generator)
    elif model.linear_edges:
        latent, columns = draw_given(model, model.true_parameters(), None, n, generator)
    else:
        latent, columns = draw_rows(model, model.true_parameters(), n, generator, true_targets(model))
    out: dict[str, Any] = {"latent_class": ("row", latent)}
    for name, var in model.variables.items():
        values = np.asarray(var.labels)[columns[name]] if var.discrete else columns[name]
        if var.event is not None:
            out[var.event] = ("row", (values > 0).astype(int))
            values = np.abs(values)
        out[name] = ("row", values)
    return xr.Dataset(out)


def true_targets(model: CausalModel) -> NDArray[np.int64] | None:
    """Level numbers that each class of the truth forces; None without interventions."""
    if model.interventions is None or model.truth is None or model.linear:
        return None
    return target_array(model, model.truth["targets"])


def draw_linear(
    model: CausalModel, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Draw classes and rows of a linear Gaussian network whose classes shift or force some variables."""
    assert model.interventions is not None
    assert model.truth is not None
    parameters, values = model.true_parameters(), target_values(model, model.truth["targets"])
    weight = parameters["class_weight"]
    latent = rng.choice(len(values), size=n, p=weight / weight.sum())
    columns: dict[str, NDArray[np.float64]] = {}
    for name in model.order:
        mean = np.full(n, parameters[f"intercept_{name}"])
        for place, parent in enumerate(model.variables[name].parents):
            mean += parameters[f"coefficient_{name}"][place] * columns[parent]
        column = mean + parameters[f"sd_{name}"] * rng.normal(size=n)
        own = values[latent, list(model.variables).index(name)]
        changed = column + own if model.interventions.kind == "shift" else own
        columns[name] = np.where(np.isnan(own), column, changed)
    return latent, columns


def population(model: CausalModel) -> xr.Dataset:
    """Exact population table of a discrete model: the tabulated form with real-valued counts.

    Parameters
    ----------
    model : CausalModel
        A model with a ``[truth]`` table whose variables are all discrete.

    Returns
    -------
    xarray.Dataset
        As from `tabulate`, the counts being cell probabilities that sum to 1.
    """
    need_model("population", model)
    if model.continuous_variables:
        raise ModelError(
            f"{model.continuous_variables[0]!r} is continuous: there is no finite population table"
        )
    cells = cell_columns(model)
    parameters, targets = model.true_parameters(), true_targets(model)
    if targets is None:
        p = np.exp(log_joint_given(model, parameters, cells, None)).sum(axis=0)
    else:
        p = np.full((model.classes, model.n_cells), parameters["class_weight"][:, None])
        for name, forced in zip(model.variables, targets.T, strict=True):
            free = np.exp(log_density(model, name, parameters, cells))
            p *= np.where(forced[:, None] < 0, free, cells[name] == forced[:, None])
        p = p.sum(axis=0)
    table = xr.Dataset(
        {name: ("pattern", column) for name, column in cells.items()} | {"count": ("pattern", p)}
    )
    for name in cells:
        table[name].attrs["levels"] = json.dumps(list(model.variables[name].labels))
    table.attrs = {"tabulated": 1, "n": 1.0, "notes": dump_notes([])}
    return table


def truth(model: CausalModel) -> xr.Dataset:
    """Compute the functionals and parameters that a model's ``[truth]`` implies.

    Parameters
    ----------
    model : CausalModel
        A model with a ``[truth]`` table.

    Returns
    -------
    xarray.Dataset
        The variables of a result without uncertainty: ``ate``, ``effect``, ``class_weight``, ...
    """
    need_model("truth", model)
    parameters = model.true_parameters()
    values = dict(parameters)
    dims = dict(model.posterior_dims)
    if model.treatment is not None:
        values |= functionals_given(model, parameters, None, np.ones(1))
        dims |= functional_dims(model)
    coords = {d: c for d, c in model.coords.items() if any(d in dims[v] for v in values)}
    known = sorted_classes(xr.Dataset({v: (dims[v], values[v]) for v in values}, coords=coords), model)
    if model.linear and model.truth is not None:
        labels = value_labels(model, target_values(model, model.truth["targets"]))
    elif (targets := true_targets(model)) is None:
        return known
    else:
        labels = [target_label(model, target) for target in targets]
    return known.assign(target_weight=("target", values["class_weight"])).assign_coords(target=labels)
