"""A model with interventions and its data as arrays: nodes in topological order."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.data import resolve
from pymc_mte.errors import DataError, RefusedError
from pymc_mte.interventions import base_model, target_array, target_label
from pymc_mte.model import CausalModel
from pymc_mte.moments.interventions.network import Network, learn

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

NO_BASE = (
    "the untouched network is not known: pass rows of it as `base`, name their file in "
    "interventions.base_file, or state its parameters in interventions.base"
)

MISSING = (
    'missing values are not summed out of a mixture of interventions; set missing = "drop" in the model\'s '
    "[data] table to leave these rows out, or impute them first"
)


@dataclass(frozen=True, kw_only=True)
class TargetProblem:
    """One data set of a model with interventions.

    Attributes
    ----------
    model : CausalModel
        Its levels resolved.
    table : Dataset
        The mixture's rows as `pymc_mte.tabulate` gives them.
    order : tuple of str
        Variables in topological order, that of all columns below.
    back : ndarray of int, shape (variables,)
        Column of every variable of the description.
    network : Network
        The untouched network, known or learnt.
    rows : ndarray of int, shape (patterns, variables)
        The mixture's rows.
    counts : ndarray of shape (patterns,)
        Rows per pattern, or probabilities.
    base : tuple of ndarray, optional
        Rows and counts that the network was learnt from.
    candidates : ndarray of int, shape (candidates, variables), optional
        The only possible targets, where the model lists them.
    """

    model: CausalModel
    table: Any
    order: tuple[str, ...]
    back: Ints
    network: Network
    rows: Ints
    counts: Array
    base: tuple[Ints, Array] | None
    candidates: Ints | None

    def labels(self, targets: Ints) -> list[str]:
        """Write targets in words, as all results do."""
        return [target_label(self.model, target) for target in targets[:, self.back]]


def target_problem(model: CausalModel, data: Any = None, base: Any = None) -> TargetProblem:
    """Lay out the mixture's rows and the untouched network.

    Parameters
    ----------
    model : CausalModel
        A model with interventions.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The mixture's rows; the model's own data file by default.
    base : the same, optional
        Rows of the untouched network. By default the model's ``base`` parameters or ``base_file``.

    Raises
    ------
    RefusedError
        If no untouched network is known.
    """
    model, table = resolve(model, data)
    order = model.order
    network, base_rows = _base_network(model, base)
    rows, counts = _columns(table, order)
    return TargetProblem(
        model=model,
        table=table,
        order=order,
        back=np.argsort(_places(model)),
        network=network,
        rows=rows,
        counts=counts,
        base=base_rows,
        candidates=listed_targets(model),
    )


def _columns(table: Any, order: tuple[str, ...]) -> tuple[Ints, Array]:
    rows = np.stack([table[name].values for name in order], axis=1)
    if (rows < 0).any():
        raise DataError(MISSING)
    return rows, np.asarray(table["count"].values, dtype=float)


def _places(model: CausalModel) -> list[int]:
    return [list(model.variables).index(name) for name in model.order]


def listed_targets(model: CausalModel) -> Ints | None:
    """List the only possible targets, nodes in topological order; None where any is."""
    stated = model.interventions
    assert stated is not None
    return None if stated.targets is None else target_array(model, stated.targets)[:, _places(model)]


def known_network(model: CausalModel) -> Network | None:
    """Return the untouched network, where the model states its parameters."""
    stated = model.interventions
    assert stated is not None
    if stated.base is None:
        return None
    tables = base_model(model).true_parameters()
    return Network(parents=_parents(model), tables=tuple(tables[f"p_{v}"] for v in model.order))


def _parents(model: CausalModel) -> tuple[tuple[int, ...], ...]:
    order = model.order
    return tuple(tuple(order.index(p) for p in model.variables[v].parents) for v in order)


def base_source(model: CausalModel, base: Any) -> Any:
    """Rows of the untouched network: those passed, else the file that the model names; None without."""
    stated = model.interventions
    assert stated is not None
    if base is not None or stated.base_file is None:
        return base
    from pymc_mte.modelfile import resolve_beside

    return resolve_beside(stated.base_file, model._folder)


def _base_network(model: CausalModel, base: Any) -> tuple[Network, tuple[Ints, Array] | None]:
    """Return the untouched network, and the rows that it was learnt from if it was."""
    base = base_source(model, base)
    if base is None:
        if (known := known_network(model)) is None:
            raise RefusedError(NO_BASE)
        return known, None
    _, table = resolve(model, base)
    rows, counts = _columns(table, model.order)
    empty = tuple(np.ones(model.shapes[f"p_{v}"]) for v in model.order)
    return learn(Network(parents=_parents(model), tables=empty), rows, counts), (rows, counts)
