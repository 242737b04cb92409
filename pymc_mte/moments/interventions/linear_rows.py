"""A linear Gaussian model with interventions and its data as arrays: nodes in topological order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.data import resolve
from pymc_mte.errors import DataError, RefusedError
from pymc_mte.interventions import base_model, touched_array, value_labels
from pymc_mte.model import CausalModel
from pymc_mte.moments.interventions.gaussian import LinearRows
from pymc_mte.moments.interventions.linear import LinearNetwork, learn_linear, moments_of
from pymc_mte.moments.interventions.network import is_sample
from pymc_mte.moments.interventions.rows import MISSING, NO_BASE, base_source

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

EXACT = 1e-5
"""Errors of a smaller sd, relative to the variable's, are rounding."""


@dataclass(frozen=True, kw_only=True)
class LinearProblem:
    """One data set of a linear Gaussian model with interventions.

    Attributes
    ----------
    model : CausalModel
        The description.
    table : Dataset
        The mixture's rows as `pymc_mte.tabulate` gives them.
    order : tuple of str
        Variables in topological order, that of all columns below.
    back : ndarray of int, shape (variables,)
        Column of every variable of the description.
    network : LinearNetwork
        The untouched equations, known or learnt from the base rows.
    data : LinearRows
        The mixture's rows, and sums over the base rows.
    base : tuple of ndarray, optional
        Base rows and their counts.
    candidates : ndarray of bool, shape (candidates, variables), optional
        The only possible targets, where the model lists them.
    """

    model: CausalModel
    table: Any
    order: tuple[str, ...]
    back: Ints
    network: LinearNetwork
    data: LinearRows
    base: tuple[Array, Array] | None
    candidates: NDArray[np.bool_] | None

    def labels(self, touched: NDArray[np.bool_], value: Array) -> list[str]:
        """Write targets in words, as all results do."""
        return value_labels(self.model, np.where(touched, value, np.nan)[:, self.back])


def linear_problem(model: CausalModel, data: Any = None, base: Any = None) -> LinearProblem:
    """Lay out the mixture's rows and the untouched equations.

    Parameters
    ----------
    model : CausalModel
        A linear Gaussian model with interventions.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The mixture's rows; the model's own data file by default.
    base : the same, optional
        Rows of the untouched network. By default the model's ``base`` parameters or ``base_file``.

    Raises
    ------
    RefusedError
        If no untouched network is known.
    DataError
        If counts are not whole numbers, or there are fewer base rows than parameters.
    """
    model, table = resolve(model, data)
    stated = model.interventions
    assert stated is not None
    rows, counts = _columns(table, model.order, "mixture")
    network, base_rows = known_linear(model), None
    source = base_source(model, base)
    if source is not None:
        base_rows = _columns(resolve(model, source)[1], model.order, "base")
        if base_rows[1].sum() < 2 * len(model.owners):
            raise DataError(
                f"{base_rows[1].sum():.0f} base rows are too few for {len(model.owners)} parameters of the "
                "untouched network; collect more, or state the parameters in interventions.base"
            )
        network = learn_linear(_parents(model), *base_rows)
        _check_errors(model, network, base_rows[0])
    if network is None:
        raise RefusedError(NO_BASE)
    places = [list(model.variables).index(name) for name in model.order]
    seen = None if base_rows is None else moments_of(*base_rows)
    candidates = None if stated.targets is None else touched_array(model, stated.targets)[:, places]
    return LinearProblem(
        model=model,
        table=table,
        order=model.order,
        back=np.argsort(places),
        network=network,
        data=LinearRows(kind=stated.kind, rows=rows, counts=counts, base=seen),
        base=base_rows,
        candidates=candidates,
    )


def known_linear(model: CausalModel) -> LinearNetwork | None:
    """Return the untouched equations, where the model states their parameters."""
    stated = model.interventions
    assert stated is not None
    if stated.base is None:
        return None
    parameters, order = base_model(model).true_parameters(), model.order
    coefficient = np.zeros((len(order), len(order)))
    for node, above in enumerate(_parents(model)):
        if above:
            coefficient[node, list(above)] = parameters[f"coefficient_{order[node]}"]
    return LinearNetwork(
        parents=_parents(model),
        intercept=np.array([float(parameters[f"intercept_{name}"]) for name in order]),
        coefficient=coefficient,
        sd=np.array([float(parameters[f"sd_{name}"]) for name in order]),
    )


def network_parameters(model: CausalModel, network: LinearNetwork) -> dict[str, Array]:
    """Name the parameters of the equations as results do."""
    out: dict[str, Array] = {}
    for node, name in enumerate(model.order):
        out[f"intercept_{name}"], out[f"sd_{name}"] = network.intercept[node], network.sd[node]
        if above := list(network.parents[node]):
            out[f"coefficient_{name}"] = network.coefficient[node, above]
    return out


def _parents(model: CausalModel) -> tuple[tuple[int, ...], ...]:
    order = model.order
    return tuple(tuple(order.index(p) for p in model.variables[v].parents) for v in order)


def _check_errors(model: CausalModel, network: LinearNetwork, rows: Array) -> None:
    """Refuse base rows in which a variable has no error of its own."""
    exact = network.sd <= EXACT * np.maximum(rows.std(axis=0), 1e-300)
    for name, none in zip(model.order, exact | (rows.std(axis=0) == 0), strict=True):
        if none:
            raise DataError(
                f"column {name!r} of the base rows is constant or an exact function of its parents, so its "
                "equation has no error; leave the variable out, or state the parameters in interventions.base"
            )


def _columns(table: Any, order: tuple[str, ...], what: str) -> tuple[Array, Array]:
    counts = np.asarray(table["count"].values, dtype=float)
    if not is_sample(counts):
        raise DataError(f"continuous variables need whole counts of the {what} rows")
    rows = np.stack([np.asarray(table[name].values, dtype=float) for name in order], axis=1)
    if np.isnan(rows).any():
        raise DataError(MISSING)
    return rows, counts
