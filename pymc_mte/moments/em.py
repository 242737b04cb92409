"""Maximum likelihood of the graph's own model by EM on patterns, batched. NumPy and SciPy only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pymc_mte.data import is_missing
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.msteps import number_step
from pymc_mte.network import RepeatedColumns, log_density, log_joint, log_sum_classes

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
Membership = Any
"""Array, or sparse array where cells are many: (pattern, cell)."""

DENSE_CELLS = 16
DENSE_PATTERNS = 200_000
"""Up to this many cells and patterns, sums over them are quicker by a dense product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EMResult:
    """A batch of maximum-likelihood fits.

    Attributes
    ----------
    parameters : mapping of str to ndarray
        Parameter arrays with the batch axis first.
    log_likelihood : ndarray of shape (batch,)
        Log-likelihood of the counts (no multinomial coefficient, no penalty).
    converged : ndarray of bool, shape (batch,)
        Whether the last step gained less than the tolerance.
    """

    parameters: Parameters
    log_likelihood: Array
    converged: NDArray[np.bool_]


class Maximiser:
    """M-steps of every family, with the bookkeeping of one set of patterns done once.

    Parameters
    ----------
    model : CausalModel
        The graph.
    columns : mapping of str to ndarray
        Pattern columns.
    penalty : float
        Pseudo-counts added to every table cell and class: the mode under Dirichlet(1 + penalty).
    """

    def __init__(self, model: CausalModel, columns: Columns, penalty: float = 0.0) -> None:
        self.model, self.penalty = model, penalty
        self._members = {
            name: _indicator(model, columns, (*var.parents, name) if var.discrete else var.parents)
            for name, var in model.variables.items()
        }
        seen = {name: ~is_missing(np.asarray(columns[name])) for name in model.variables}
        self._gaps = {name: known for name, known in seen.items() if not known.all()}
        # A value that was seen stands in for missing ones: finite, and they have no mass.
        self.columns: Columns = {
            name: np.where(seen[name], column, np.asarray(column)[seen[name]][:1])
            if name in self._gaps
            else column
            for name, column in columns.items()
        }
        self._summed = {name: _for_products(cells) for name, cells in self._members.items()}
        self._repeated = {
            name: _repeated_values(model, own, name, place, penalty)
            for name, (own, place) in RepeatedColumns(model, self.columns).repeated.items()
        }

    def step(self, mass: Array, previous: Parameters) -> Parameters:
        """Maximise over parameters given responsibilities times counts (batch, class, pattern)."""
        total = mass.sum(axis=-1) + self.penalty
        out: Parameters = {"class_weight": total / total.sum(axis=-1, keepdims=True)}
        for name, var in self.model.variables.items():
            part = mass if var.latent else mass.sum(axis=-2, keepdims=True)
            if name in self._gaps:
                part = part * self._gaps[name]
            if var.trials is not None:
                out[f"p_{name}"] = self._rate(part, name, var.trials)
            elif var.discrete:
                shape = self.model.shapes[f"p_{name}"]
                table = self.sums(part, name).reshape(len(mass), *shape) + self.penalty
                whole = table.sum(axis=-1, keepdims=True)
                out[f"p_{name}"] = np.where(
                    whole > 0, table / np.where(whole > 0, whole, 1.0), 1.0 / shape[-1]
                )
            elif name in self._repeated:
                values = self._repeated[name]
                out |= number_step(values, values.added_up(part), name, previous)
            else:
                out |= number_step(self, part, name, previous)
        return out

    def _rate(self, part: Array, name: str, trials: int) -> Array:
        """Success probability of a binomial variable."""
        shape = self.model.shapes[f"p_{name}"]
        table = self.sums(part, name).reshape(len(part), *shape, trials + 1)
        hits = table @ np.arange(trials + 1.0) + self.penalty
        whole = trials * table.sum(axis=-1) + 2 * self.penalty
        return np.asarray(np.where(whole > 0, hits / np.where(whole > 0, whole, 1.0), 0.5))

    def log_penalty(self, parameters: Parameters) -> Array:
        """Log-density of the pseudo-counts: (batch,); zero without a penalty."""
        total = np.zeros(len(parameters["class_weight"]))
        if self.penalty == 0:
            return total
        for name in self.model.dims:
            p, support = parameters[name], self.model.kind(name).support
            if support not in ("simplex", "unit"):
                continue
            if support == "unit":
                p = np.stack([1 - p, p], axis=-1)
            log_p = np.log(np.maximum(p, 1e-300))
            total = total + self.penalty * log_p.reshape(len(total), -1).sum(axis=1)
        return total

    def sums(self, part: Array, name: str) -> Array:
        """Add mass up over the cells of a variable's table: (batch, class, cells)."""
        return _product(part, self._summed[name])

    def row_sums(self, part: Array, name: str) -> Array:
        """Keep the rows of a batch of one apart: (pattern, class, cells), zero but for each row's cell."""
        classes, patterns = part.shape[1:]
        out = np.zeros((patterns, classes, self._members[name].shape[1]))
        out[np.arange(patterns), :, self._members[name].indices] = part[0].T
        return out


@dataclass(frozen=True, kw_only=True)
class RepeatedValues:
    """One variable's distinct values with its parents' levels, in place of patterns.

    Attributes
    ----------
    model : CausalModel
        The graph.
    penalty : float
        As of the maximiser.
    columns : mapping of str to ndarray of shape (values,)
        The values and the parents' levels.
    place : array of shape (pattern, values)
        Membership of the patterns.
    cells : array of shape (values, cell)
        Membership of the values in the parents' joint levels.
    """

    model: CausalModel
    penalty: float
    columns: Columns
    place: Membership
    cells: Membership

    def added_up(self, part: Array) -> Array:
        """Add the mass of patterns up over equal values: (batch, class, values)."""
        return _product(part, self.place)

    def sums(self, part: Array, name: str) -> Array:
        """Add mass up over the parents' joint levels: (batch, class, cells)."""
        return _product(part, self.cells)


def _repeated_values(
    model: CausalModel, own: Columns, name: str, place: NDArray[np.int64], penalty: float
) -> RepeatedValues:
    """Lay one variable's distinct values out for M-steps."""
    n = len(place)
    member = sparse.csr_array((np.ones(n), (np.arange(n), place)), shape=(n, len(own[name])))
    return RepeatedValues(
        model=model,
        penalty=penalty,
        columns=own,
        place=_for_products(member),
        cells=_for_products(_indicator(model, own, model.variables[name].parents)),
    )


def _for_products(member: sparse.csr_array) -> Membership:
    """Write few cells of few patterns out: products with them are faster so."""
    few = member.shape[1] <= DENSE_CELLS and member.shape[0] <= DENSE_PATTERNS
    return member.toarray() if few else member


def _product(part: Array, member: Membership) -> Array:
    """Add mass (..., pattern) up by membership (pattern, cell): (..., cell)."""
    return np.asarray(part.reshape(-1, part.shape[-1]) @ member).reshape(*part.shape[:-1], -1)


def _indicator(model: CausalModel, columns: Columns, names: tuple[str, ...]) -> sparse.csr_array:
    """Sparse membership of patterns in the joint levels of some variables: (pattern, cell)."""
    n = len(next(iter(columns.values())))
    sizes = tuple(model.size(v) for v in names)
    levels = [np.maximum(np.asarray(columns[v]), 0) for v in names]  # missing ones get no mass anyhow
    cell = np.ravel_multi_index(levels, sizes) if names else np.zeros(n, int)
    return sparse.csr_array(
        (np.ones(n), (np.arange(n), cell)), shape=(n, int(np.prod(sizes)) if names else 1)
    )


def responsibilities(log_p: Array) -> Array:
    """P(class | pattern) from log P(class, pattern)."""
    shifted = np.exp(log_p - log_p.max(axis=-2, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-2, keepdims=True))


def em(
    model: CausalModel,
    columns: Columns,
    counts: Array,
    start: Parameters,
    *,
    penalty: float = 0.0,
    max_iterations: int = 2_000,
    tolerance: float = 1e-8,
) -> EMResult:
    """Climb to a maximum of the likelihood from each start.

    Parameters
    ----------
    model : CausalModel
        The graph.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (batch, patterns)
        Counts per batch member.
    start : mapping of str to ndarray
        Starting parameters with a batch axis of the same length (or length 1).
    penalty : float
        See `Maximiser`.
    max_iterations : int
        Limit on the number of steps.
    tolerance : float
        A member stops when one step gains less than this per row.
    """
    maximiser, columns = Maximiser(model, columns, penalty), RepeatedColumns(model, columns)
    batch = len(counts)
    now = {name: np.repeat(v, batch, axis=0) if len(v) == 1 else v.copy() for name, v in start.items()}
    likelihood, objective = np.full(batch, -np.inf), np.full(batch, -np.inf)
    active = np.arange(batch)
    size = counts.sum(axis=1)
    for _ in range(max_iterations):
        part = {name: value[active] for name, value in now.items()}
        log_p = log_joint(model, part, columns)
        value = (counts[active] * log_sum_classes(log_p)).sum(axis=1)
        penalised = value + maximiser.log_penalty(part)
        still = penalised - objective[active] > tolerance * size[active]
        likelihood[active], objective[active] = value, penalised
        if not still.any():
            active = active[:0]
            break
        mass = responsibilities(log_p[still]) * counts[active[still], None]
        moved = maximiser.step(mass, {name: v[still] for name, v in part.items()})
        active = active[still]
        for name, v in moved.items():
            now[name][active] = v
    converged = np.isfinite(likelihood)
    converged[active] = False
    return EMResult(parameters=now, log_likelihood=likelihood, converged=converged)


def random_starts(
    model: CausalModel,
    columns: Columns,
    counts: Array,
    rng: np.random.Generator,
    concentration: float = 1.0,
) -> Parameters:
    """Draw one start per sample from random responsibilities that are constant within patterns.

    They are Dirichlet draws; a small ``concentration`` sends whole patterns to one class.
    """
    drawn = rng.dirichlet(np.full(model.classes, concentration), size=counts.shape)
    return Maximiser(model, columns, 1.0).step(np.swapaxes(drawn, 1, 2) * counts[:, None], {})


def start_from_classes(
    model: CausalModel, columns: Columns, counts: Array, partial: Parameters
) -> Parameters:
    """Complete starting parameters from some of them: one E-step on those, one M-step on all.

    Parameters
    ----------
    model : CausalModel
        The graph.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (batch, patterns)
        Counts.
    partial : mapping of str to ndarray
        ``class_weight`` and the parameters of at least one variable, with a batch axis.
    """
    total = np.log(partial["class_weight"])[..., None] + np.zeros(counts.shape[1])
    for name, var in model.variables.items():
        if all(f"{p}_{name}" in partial for p in var.spec.parameters):
            total = total + log_density(model, name, partial, columns)
    mass = responsibilities(total) * counts[:, None]
    return Maximiser(model, columns, 0.5).step(mass, {})
