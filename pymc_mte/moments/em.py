"""Maximum likelihood of the graph's own model by EM on patterns, batched. NumPy and SciPy only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from pymc_mte.model import CausalModel, Parameters
from pymc_mte.network import log_density, log_joint, log_sum_classes

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

MIN_SD_SHARE = 1e-3
"""Scales are kept above this share of the pooled one: the likelihood is unbounded at zero."""

DENSE_CELLS = 16
"""Up to this many cells, sums over them are quicker by a dense product."""

NU_RANGE = (1.5, 200.0)


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
        self.model, self.columns, self.penalty = model, columns, penalty
        self._members = {
            name: _indicator(model, columns, (*var.parents, name) if var.discrete else var.parents)
            for name, var in model.variables.items()
        }
        self._summed = {
            name: cells.toarray() if cells.shape[1] <= DENSE_CELLS else cells
            for name, cells in self._members.items()
        }

    def step(self, mass: Array, previous: Parameters) -> Parameters:
        """Maximise over parameters given responsibilities times counts (batch, class, pattern)."""
        total = mass.sum(axis=-1) + self.penalty
        out: Parameters = {"class_weight": total / total.sum(axis=-1, keepdims=True)}
        for name, var in self.model.variables.items():
            part = mass if var.latent else mass.sum(axis=-2, keepdims=True)
            if var.trials is not None:
                out[f"p_{name}"] = self._rate(part, name, var.trials)
            elif var.discrete:
                shape = self.model.shapes[f"p_{name}"]
                table = self.sums(part, name).reshape(len(mass), *shape) + self.penalty
                whole = table.sum(axis=-1, keepdims=True)
                out[f"p_{name}"] = np.where(
                    whole > 0, table / np.where(whole > 0, whole, 1.0), 1.0 / shape[-1]
                )
            else:
                out |= self._continuous(part, name, previous)
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
        tables = ["class_weight", *(f"p_{v}" for v in self.model.discrete_variables)]
        for name in tables:
            p = parameters[name]
            if name != "class_weight" and self.model.variables[name.removeprefix("p_")].trials is not None:
                p = np.stack([1 - p, p], axis=-1)
            log_p = np.log(np.maximum(p, 1e-300))
            total = total + self.penalty * log_p.reshape(len(total), -1).sum(axis=1)
        return total

    def sums(self, part: Array, name: str) -> Array:
        """Add mass up over the cells of a variable's table: (batch, class, cells)."""
        flat = part.reshape(-1, part.shape[-1])
        return np.asarray(flat @ self._summed[name]).reshape(*part.shape[:-1], -1)

    def row_sums(self, part: Array, name: str) -> Array:
        """Keep the rows of a batch of one apart: (pattern, class, cells), zero but for each row's cell."""
        classes, patterns = part.shape[1:]
        out = np.zeros((patterns, classes, self._members[name].shape[1]))
        out[np.arange(patterns), :, self._members[name].indices] = part[0].T
        return out

    def _continuous(self, part: Array, name: str, previous: Parameters) -> Parameters:
        """Weighted mean and scale of a normal or (by its scale mixture) Student variable."""
        model, var = self.model, self.model.variables[name]
        value = np.asarray(self.columns[name], dtype=float)
        old = {p: previous[f"{p}_{name}"] for p in var.spec.parameters if f"{p}_{name}" in previous}
        out: Parameters = {}
        precision = np.ones(())
        if "nu" in var.spec.parameters and "sd" in old:
            z = (value - self.spread(old["mean"], name)) / self.spread(old["sd"], name, scale=True)
            nu = old["nu"][:, None, None]
            precision = (nu + 1) / (nu + z * z)
            out[f"nu_{name}"] = _solve_nu(part, precision, old["nu"])
        elif "nu" in var.spec.parameters:
            out[f"nu_{name}"] = np.full(len(part), 5.0)
        weighted = part * precision
        mass = self.sums(weighted, name)
        with np.errstate(all="ignore"):
            mean = self.sums(weighted * value, name) / mass
        pooled = (part * value).sum(axis=(-2, -1)) / part.sum(axis=(-2, -1))
        mean = np.where(mass > 0, mean, pooled[:, None, None])
        out[f"mean_{name}"] = mean.reshape(len(part), *model.shapes[f"mean_{name}"])
        residual = weighted * (value - self.spread(out[f"mean_{name}"], name)) ** 2
        if var.scale_parents:
            square, count = self.sums(residual, name), self.sums(part, name)
        else:
            square, count = residual.sum(axis=-1), part.sum(axis=-1)
        variance = (part * (value - pooled[:, None, None]) ** 2).sum(axis=(-2, -1)) / part.sum(axis=(-2, -1))
        variance = np.where(variance > 0, variance, 1.0)  # a constant column: any scale will do
        floor = MIN_SD_SHARE**2 * variance.reshape(-1, *(1,) * (square.ndim - 1))
        sd = np.sqrt(np.maximum(square / np.where(count > 0, count, 1.0), floor))
        out[f"sd_{name}"] = sd.reshape(len(part), *model.shapes[f"sd_{name}"])
        return out

    def spread(self, value: Array, name: str, scale: bool = False) -> Array:
        """Put a location or scale parameter on patterns: (batch, class or 1, pattern)."""
        var = self.model.variables[name]
        lead = value.reshape(len(value), self.model.classes if var.latent else 1, -1)
        if scale and not var.scale_parents:
            return lead
        return np.asarray((self._members[name] @ lead.reshape(-1, lead.shape[-1]).T).T).reshape(
            *lead.shape[:2], -1
        )


def _indicator(model: CausalModel, columns: Columns, names: tuple[str, ...]) -> sparse.csr_array:
    """Sparse membership of patterns in the joint levels of some variables: (pattern, cell)."""
    n = len(next(iter(columns.values())))
    sizes = tuple(model.size(v) for v in names)
    cell = np.ravel_multi_index([np.asarray(columns[v]) for v in names], sizes) if names else np.zeros(n, int)
    return sparse.csr_array(
        (np.ones(n), (np.arange(n), cell)), shape=(n, int(np.prod(sizes)) if names else 1)
    )


def _solve_nu(part: Array, precision: Array, nu: Array) -> Array:
    """Degrees of freedom by bisection of their expected score, one per batch member."""
    mass = part.sum(axis=(-2, -1))
    observed = (part * (np.log(precision) - precision)).sum(axis=(-2, -1)) / mass
    constant = 1 + observed + special.digamma((nu + 1) / 2) - np.log((nu + 1) / 2)
    low, high = np.full_like(nu, NU_RANGE[0]), np.full_like(nu, NU_RANGE[1])
    for _ in range(50):
        middle = np.sqrt(low * high)
        score = constant + np.log(middle / 2) - special.digamma(middle / 2)
        low, high = np.where(score > 0, middle, low), np.where(score > 0, high, middle)
    return np.asarray(np.sqrt(low * high))


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
    maximiser = Maximiser(model, columns, penalty)
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
