"""Mean potential outcomes of units: given the class and what precedes the treatment. NumPy only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.errors import RefusedError
from pymc_mte.functionals import ancestors, outcome_means, what_precedes
from pymc_mte.mechanisms import Mechanisms, mirrored_points
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.standardised import row_parameters, wide_terms

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

MAX_COMBINATIONS = 4_096
"""Most combinations of levels that are enumerated for one row."""

POINTS = 512
"""Quasi-random values of the numbers that a unit's outcome is averaged over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """What is missing in rows that lack the same, and what is done about it.

    Attributes
    ----------
    used : tuple of str
        Variables whose densities weigh classes and levels: what is observed, and ``enumerated``.
    enumerated : tuple of str
        Missing variables whose levels are summed over, weighed by what is observed.
    averaged : tuple of str
        Variables that outcomes are averaged over along their own distributions, parents first: what lies
        between treatment and outcome, and missing numbers, and what follows from them, that nothing
        observed depends on.
    """

    used: tuple[str, ...]
    enumerated: tuple[str, ...]
    averaged: tuple[str, ...]


def gaps_of(model: CausalModel, missing: set[str]) -> Gaps:
    """Say what is done about the variables that rows lack.

    Parameters
    ----------
    model : CausalModel
        The graph.
    missing : set of str
        Variables without a value.

    Raises
    ------
    RefusedError
        If a number is missing on which something observed depends, or if there are too many levels.
    """
    between, before = what_precedes(model) if model.treatment is not None else ((), ())
    observed = set(model.variables) - missing
    certain = ancestors(model, observed, stop=set())
    lost = [name for name in model.order if name in certain & missing and not model.variables[name].discrete]
    if lost:
        known = [v for v in model.order if v in observed and ancestors(model, {v}, stop=set()) & set(lost)]
        raise RefusedError(
            f"the new rows give {known}, which depend on the numbers {lost}, missing in some rows: missing "
            f"levels are summed over, numbers are not. Give {lost} (or impute), or leave out those rows, "
            f"or {known}"
        )
    wanted = ancestors(model, observed | set(before), stop=set())
    enumerated: list[str] = []
    averaged: list[str] = []
    for name in model.order:
        if name in between:
            averaged.append(name)
        if name in wanted & missing:
            above = ancestors(model, {name}, stop=set()) & missing
            listed = all(model.variables[v].discrete for v in above)
            (enumerated if listed else averaged).append(name)
    _check_number(model, enumerated)
    if model.linear_edges:  # tables are summed over variable by variable
        _check_number(model, [name for name in averaged if model.variables[name].discrete])
    used = tuple(v for v in model.variables if v in wanted and (v in certain or v not in averaged))
    return Gaps(used=used, enumerated=tuple(enumerated), averaged=tuple(averaged))


def combinations(model: CausalModel, names: tuple[str, ...]) -> list[tuple[int, ...]]:
    """All combinations of levels of some variables."""
    return list(product(*(range(model.size(name)) for name in names)))


def _check_number(model: CausalModel, names: list[str]) -> None:
    if (number := math.prod(model.size(name) for name in names)) > MAX_COMBINATIONS:
        raise RefusedError(
            f"a row is summed over the levels of {names}, {number:,} combinations; at most "
            f"{MAX_COMBINATIONS:,} are. Leave out the observed children of what is missing, or impute"
        )


class TableOutcomes:
    """Mean potential outcomes of rows given class and what precedes the treatment, from full tables.

    Parameters
    ----------
    model : CausalModel
        With treatment and outcome, without linear parents.
    parameters : mapping of str to ndarray
        Draws (draw, ...).
    """

    def __init__(self, model: CausalModel, parameters: Parameters) -> None:
        self.model, self.parameters = model, parameters
        self.before = what_precedes(model)[1]
        self.shared = None if model.covariates else outcome_means(model, parameters)[1][:, :, None]

    def at(self, columns: Columns, covariates: Array | None) -> Array:
        """Means of rows: (draw, class, row, arm)."""
        by_row = self.shared
        if by_row is None:
            terms = wide_terms(self.model, self.model, covariates)
            own = row_parameters(self.model, self.model, self.parameters, covariates, terms)
            by_row = np.moveaxis(outcome_means(self.model, own)[1], 1, 2)
        place = np.minimum(np.arange(_rows(columns)), by_row.shape[2] - 1)  # one set of means, or one per row
        index: tuple[Any, ...] = (place, *(columns[name] for name in self.before))
        return by_row[(slice(None), slice(None), *index)]


class UnitOutcomes:
    """Mean potential outcomes of rows that lack the same, given class and what precedes the treatment.

    Exact sums, unless an outcome is averaged over numbers: then `POINTS` quasi-random values stand for these,
    which is still exact where normal numbers enter linearly. Otherwise the error, measured in standard
    deviations of what is averaged, is below 0.001 for probabilities and some 0.01 for exponentials (worst
    cases 0.006 and 0.06).

    Parameters
    ----------
    model : CausalModel
        With treatment and outcome.
    parameters : mapping of str to ndarray
        Draws (draw, ...).
    averaged : tuple of str
        What outcomes are averaged over, from `gaps_of`.
    block : int
        Numbers that are held at once, roughly.
    """

    def __init__(
        self, model: CausalModel, parameters: Parameters, averaged: tuple[str, ...], block: int
    ) -> None:
        self.model, self.parameters, self.averaged, self.block = model, parameters, averaged, block
        listed = tuple(name for name in averaged if model.variables[name].discrete)
        numbers = [name for name in averaged if name not in listed]
        levels = np.array(combinations(model, listed), dtype=np.int64)
        points = mirrored_points(POINTS // 2, len(numbers)) if numbers else np.ones((1, 0))
        self.levels = {name: np.repeat(levels[:, i], len(points)) for i, name in enumerate(listed)}
        self.uniform = {name: np.tile(points[:, i], len(levels)) for i, name in enumerate(numbers)}
        self.share = 1.0 / len(points)
        self.units = len(levels) * len(points)

    def at(self, columns: Columns, covariates: Array | None) -> Array:
        """Means of rows: (draw, class, row, arm)."""
        model, n = self.model, _rows(columns)
        draws = len(self.parameters["class_weight"])
        widest = max([1, *(model.size(name) for name in self.levels)])
        each = self.units * model.classes * len(model.arms) * widest
        at_once = max(1, self.block // (each * draws))
        out = np.empty((draws, model.classes, n, len(model.arms)))
        for rows in np.array_split(np.arange(n), -(-n // at_once)):
            own = {name: column[rows] for name, column in columns.items()}
            given = None if covariates is None else covariates[rows]
            for part in np.array_split(np.arange(draws), min(draws, 1 + each * draws // self.block)):
                values = {name: value[part] for name, value in self.parameters.items()}
                out[part[0] : part[-1] + 1, :, rows] = self._of_block(values, len(part), own, given)
        return out

    def _of_block(
        self, parameters: Parameters, draws: int, columns: Columns, covariates: Array | None
    ) -> Array:
        """Every row is as many units as there are combinations of points and levels."""
        model, n = self.model, _rows(columns)
        row = np.repeat(np.arange(n), self.units)
        known = {name: columns[name][row] for name in model.variables if name not in self.averaged}
        at = Mechanisms(
            model=model,
            parameters=parameters,
            state=known | {str(model.treatment): np.arange(len(model.arms))[:, None]},
            covariates=None if covariates is None else covariates[row],
        )
        weight = np.full((1, 1, 1, len(row)), self.share)
        for name in self.averaged:
            if name in self.levels:
                at.state[name] = level = np.tile(self.levels[name], n)
                chance = at.chances(name)
                chance = np.broadcast_to(chance, (*chance.shape[:3], len(row), chance.shape[-1]))
                weight = weight * chance[..., np.arange(len(row)), level]
            else:
                at.follow(name, np.tile(self.uniform[name], n))
        wanted = (draws, model.classes, len(model.arms), len(row))
        total = np.broadcast_to(weight * at.mean(str(model.outcome)), wanted)
        return np.moveaxis(total.reshape(*wanted[:3], n, self.units).sum(axis=-1), 2, 3)


def _rows(columns: Columns) -> int:
    return len(next(iter(columns.values())))
