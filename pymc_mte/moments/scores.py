"""Scores and information of the graph's likelihood, in an unconstrained parametrisation. NumPy only.

Tables and class weights enter as log-ratios to their first entry, probabilities as log-odds, positive
parameters as logarithms.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pymc_mte.coefficients import free_coefficients, with_linear_parents
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import Maximiser, responsibilities
from pymc_mte.network import RepeatedColumns, by_parents, log_joint, scores

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
ByCell = Callable[[Array, str], Array]
OverRows = Callable[[Array], Array]

MIN_P = 1e-6
"""Probabilities are kept this far from zero, where log-ratios end."""

MAX_STEP = 3.0
"""Longest move of one coordinate in one scoring step."""

STEP = 1e-5
"""Half-width of the central differences of functionals."""


def to_free(model: CausalModel, parameters: Parameters) -> Array:
    """Flatten parameters with one batch axis to unconstrained vectors: (batch, n_free)."""
    parts = []
    for name in model.dims:
        value = np.asarray(parameters[name], dtype=float)
        support = model.kind(name).support
        if support == "simplex":
            log_p = np.log(np.clip(value, MIN_P, None))
            value = log_p[..., 1:] - log_p[..., :1]
        elif support == "unit":
            value = special.logit(np.clip(value, MIN_P, 1 - MIN_P))
        elif support == "positive":
            value = np.log(value)
        parts.append(value.reshape(len(value), -1))
    for name in with_linear_parents(model):
        value = np.asarray(parameters[f"coef_{name}"], dtype=float)
        value = value[:, 1:] - value[:, :1] if value.ndim == 3 else value
        parts.append(value.reshape(len(value), -1))
    return np.concatenate(parts, axis=1)


def from_free(model: CausalModel, free: Array) -> Parameters:
    """Invert `to_free`."""
    out: Parameters = {}
    place = 0
    for name in model.dims:
        support, inner = model.kind(name).support, model.free_shape(name)
        size = int(np.prod(inner))
        value = free[:, place : place + size].reshape(len(free), *inner)
        place += size
        if support == "simplex":
            logits = np.concatenate([np.zeros((*value.shape[:-1], 1)), value], axis=-1)
            out[name] = special.softmax(logits, axis=-1)
        elif support == "unit":
            out[name] = special.expit(value)
        else:
            out[name] = value if support == "real" else np.exp(value)
    for name in with_linear_parents(model):
        size = free_coefficients(model, name)
        value, place = free[:, place : place + size], place + size
        if len(model.coefficient_dims[f"coef_{name}"]) == 2:
            value = value.reshape(len(free), model.size(name) - 1, -1)
            value = np.concatenate([np.zeros_like(value[:, :1]), value], axis=1)
        out[f"coef_{name}"] = value
    return out


class Scores:
    """Score of every pattern, and of whole tables of counts.

    Parameters
    ----------
    model : CausalModel
        The graph.
    columns : mapping of str to ndarray
        Pattern columns.
    """

    def __init__(self, model: CausalModel, columns: Columns) -> None:
        self.model, self.columns = model, RepeatedColumns(model, columns)
        self._maximiser = Maximiser(model, columns)

    def total(self, parameters: Parameters, counts: Array) -> Array:
        """Score of a batch of counts, each at its own parameters: (batch, n_free)."""
        mass = responsibilities(log_joint(self.model, parameters, self.columns)) * counts[:, None]
        return self._score(parameters, mass, self._maximiser.sums, _over_rows)

    def by_pattern(self, parameters: Parameters) -> Array:
        """Score of one row of every pattern at one set of parameters (batch of 1): (pattern, n_free)."""
        mass = responsibilities(log_joint(self.model, parameters, self.columns))
        return self._score(parameters, mass, self._maximiser.row_sums, _row_by_row)

    def _score(self, parameters: Parameters, mass: Array, by_cell: ByCell, over_rows: OverRows) -> Array:
        """Score of responsibilities times counts (batch, class, pattern), rows added up or kept apart."""
        model = self.model
        total = over_rows(mass)
        batch = len(total)
        weight = parameters["class_weight"]
        parts = [(total - weight * total.sum(axis=1, keepdims=True))[:, 1:]]
        for name, var in model.variables.items():
            part = mass if var.latent else mass.sum(axis=-2, keepdims=True)
            if var.trials is not None:
                p = parameters[f"p_{name}"]
                table = by_cell(part, name).reshape(batch, *model.shapes[f"p_{name}"], var.trials + 1)
                score = table @ np.arange(var.trials + 1.0) - var.trials * p * table.sum(axis=-1)
                parts.append(score.reshape(batch, -1))
            elif var.discrete:
                p = parameters[f"p_{name}"]
                table = by_cell(part, name).reshape(batch, *model.shapes[f"p_{name}"])
                parts.append((table - p * table.sum(axis=-1, keepdims=True))[..., 1:].reshape(batch, -1))
            else:
                parts += self._numbers(part, name, parameters, by_cell, over_rows)
        return np.concatenate(parts, axis=1)

    def _numbers(
        self, part: Array, name: str, parameters: Parameters, by_cell: ByCell, over_rows: OverRows
    ) -> list[Array]:
        """Scores of a variable without listed levels, one block per parameter."""
        var = self.model.variables[name]
        out = []
        for parameter, score in scores(self.model, name, parameters, self.columns).items():
            block = by_cell(part * score, name) if by_parents(var, parameter) else over_rows(part * score)
            shared = var.spec.parameters[parameter].scope == "shared"
            out.append(block.sum(axis=1, keepdims=True) if shared else block.reshape(len(block), -1))
        return out


def _over_rows(part: Array) -> Array:
    """Add rows up: (batch, class)."""
    return np.asarray(part.sum(axis=-1))


def _row_by_row(part: Array) -> Array:
    """Keep the rows of a batch of one apart: (pattern, class)."""
    return np.asarray(part[0].T)


def information(scores: Array, counts: Array) -> Array:
    """Empirical information of all rows: outer products of pattern scores, weighted by counts."""
    return np.asarray(scores.T @ (counts[:, None] * scores))


def inverse_information(matrix: Array, cutoff: float = 1e-9) -> Array:
    """Pseudo-inverse on the directions that the data inform, after scaling to unit diagonal."""
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    value, vector = np.linalg.eigh(matrix / np.outer(scale, scale))
    keep = value > cutoff * value.max()
    half = vector[:, keep] / np.sqrt(value[keep]) / scale[:, None]
    return np.asarray(half @ half.T)


def gradient(
    model: CausalModel, parameters: Parameters, functional: Callable[[Parameters], dict[str, Array]]
) -> dict[str, Array]:
    """Differentiate functionals by central differences: name -> (*shape, n_free)."""
    centre = to_free(model, parameters)
    n = centre.shape[1]
    moved = np.repeat(centre, 2 * n, axis=0)
    moved[np.arange(n), np.arange(n)] += STEP
    moved[np.arange(n) + n, np.arange(n)] -= STEP
    values = functional(from_free(model, moved))
    return {name: np.moveaxis((v[:n] - v[n:]) / (2 * STEP), 0, -1) for name, v in values.items()}


def scoring(
    model: CausalModel, columns: Columns, counts: Array, replicates: Array, point: Parameters, steps: int = 3
) -> Parameters:
    """Maximum-likelihood estimates of resampled counts by scoring steps from the point estimate.

    Parameters
    ----------
    model : CausalModel
        The graph.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (patterns,)
        The data; their information matrix is used for all replicates.
    replicates : ndarray of shape (batch, patterns)
        Resampled counts.
    point : mapping of str to ndarray
        The data's maximum-likelihood estimate, with a batch axis of length 1.
    steps : int
        Steps; one is the first-order bootstrap, further ones remove its curvature error.

    Notes
    -----
    The error of every replicate shrinks by the distance to the point at each step, so three steps
    leave less than the Monte Carlo error of the bootstrap.
    """
    score = Scores(model, columns)
    inverse = inverse_information(information(score.by_pattern(point), counts))
    free = np.repeat(to_free(model, point), len(replicates), axis=0)
    scale = (counts.sum() / replicates.sum(axis=1))[:, None]
    for _ in range(steps):
        move = scale * score.total(from_free(model, free), replicates) @ inverse
        free = free + np.clip(move, -MAX_STEP, MAX_STEP)
    return from_free(model, free)
