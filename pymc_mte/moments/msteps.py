"""M-steps of variables without listed levels: closed forms, else scoring steps. NumPy and SciPy only."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pymc_mte.laws import START_NU
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.network import by_parents, gathered, number_log_density, number_scores

Array = NDArray[np.float64]

MIN_SD_SHARE = 1e-3
"""Scales are kept above this share of the pooled one, as the likelihood is unbounded at zero, and below its
inverse."""

MIN_MEAN_SHARE = 1e-6
"""Positive means are kept above this share of the pooled one, and below its inverse."""

SHAPE_RANGE = (1e-6, 1e3)
NU_RANGE = (1.5, 200.0)

LONGEST_STEP = 1.0
"""Longest move of a logarithm in one M-step."""

HALVINGS = 8
"""A step that lowers the likelihood is halved so often, then left out."""

ROUNDING = 1e-13
"""Relative error of a sum over rows."""

NO_INFORMATION = 1e-9
"""Share of a parameter's own information below which the others explain all of it."""


class Sums(Protocol):
    """What a step needs of the patterns."""

    @property
    def model(self) -> CausalModel:
        """The graph."""

    @property
    def penalty(self) -> float:
        """Pseudo-counts of the tables."""

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Pattern columns."""

    def sums(self, part: Array, name: str) -> Array:
        """Add mass up over the cells of a variable's parents: (batch, class, cells)."""


def number_step(cells: Sums, part: Array, name: str, previous: Parameters) -> Parameters:
    """Maximise over the parameters of one variable, or move them uphill where there is no closed form.

    Parameters
    ----------
    cells : Sums
        Patterns and their bookkeeping.
    part : ndarray of shape (batch, class or 1, patterns)
        Responsibilities times counts.
    name : str
        The variable.
    previous : mapping of str to ndarray
        Parameters before the step; without those of the variable a guess from means and standard
        deviations is made.
    """
    model, var = cells.model, cells.model.variables[name]
    if var.spec.values == "real":
        return _real(cells, part, name, previous)
    out: Parameters = {}
    column = np.asarray(cells.columns[name], dtype=float)
    if var.spec.zeros_apart:
        zero = cells.sums(part * (column == 0), name) + cells.penalty
        whole = cells.sums(part, name) + 2 * cells.penalty
        share = np.where(whole > 0, zero / np.where(whole > 0, whole, 1.0), 0.5)
        out[f"p_zero_{name}"] = share.reshape(len(part), *model.shapes[f"p_zero_{name}"])
        part = part * (column > 0)
    own = [f"{p}_{name}" for p in var.spec.parameters if p != "p_zero"]
    if own[0] in previous and (len(own) > 1 or var.spec.zeros_apart):
        moved = _climb(cells, part, name, {**{p: previous[p] for p in own}, **out})
    else:  # with one parameter, the mean says it all
        moved = _guess(cells, part, name)
    return out | _bounded(cells, part, name, {p: moved[p] for p in own})


def _guess(cells: Sums, part: Array, name: str) -> Parameters:
    """Guess parameters from weighted means and standard deviations."""
    model, var = cells.model, cells.model.variables[name]
    assert var.spec.law is not None
    size = np.abs(np.asarray(cells.columns[name], dtype=float))
    seen = part * (np.asarray(cells.columns[name]) > 0) if var.spec.censored else part
    pooled = _ratio((part * size).sum(axis=(-2, -1)), seen.sum(axis=(-2, -1)), 1.0)[:, None, None]
    mean = _ratio(cells.sums(part * size, name), cells.sums(seen, name), pooled)
    mean = np.minimum(mean, pooled / MIN_MEAN_SHARE)  # times that are all censored have none
    error = part * (size - _on_patterns(cells, mean, name)) ** 2
    if var.scale_parents:
        place, variance = mean, _ratio(cells.sums(error, name), cells.sums(part, name), pooled**2)
    else:
        place = _ratio((part * size).sum(-1, keepdims=True), seen.sum(-1, keepdims=True), pooled)
        variance = _ratio(error.sum(-1, keepdims=True), part.sum(-1, keepdims=True), pooled**2)
    sd = np.sqrt(np.maximum(variance, (MIN_SD_SHARE * pooled) ** 2))
    by_cell, by_class = var.spec.law.guess(mean, sd), var.spec.law.guess(place, sd)
    out: Parameters = {}
    for i, parameter in enumerate(var.spec.parameters):
        shape = model.shapes[f"{parameter}_{name}"]
        value = by_cell[i] if by_parents(var, parameter) else by_class[i]
        wide = np.broadcast_to(value, np.broadcast_shapes(np.shape(value), (len(part), 1, 1)))
        if parameter != "p_zero":
            out[f"{parameter}_{name}"] = wide.reshape(len(part), *shape)
    return out


def _climb(cells: Sums, part: Array, name: str, now: Parameters) -> Parameters:
    """Take one scoring step in location and scale, halved in the classes where it leads down.

    The information is that of the scores' own products, which needs no further derivatives and always
    points uphill.
    """
    model, var = cells.model, cells.model.variables[name]
    slope = {p: s for p, s in number_scores(model, name, now, cells.columns).items() if p != "p_zero"}
    moves = _moves(cells, part, name, slope, var.scale_parents)
    reached = _by_class(cells, part, name, now)
    share = np.ones_like(reached)
    for attempt in range(HALVINGS):
        moved = dict(now)
        for parameter, move in moves.items():
            length = np.clip(np.nan_to_num(move), -LONGEST_STEP, LONGEST_STEP)
            key, step = f"{parameter}_{name}", share[..., None] * length
            moved[key] = now[key] * np.exp(step.reshape(now[key].shape))
        lower = ~(_by_class(cells, part, name, moved) >= reached - ROUNDING * np.abs(reached))  # NaN too
        if not lower.any():
            break
        share = np.where(lower, share / 2 if attempt < HALVINGS - 2 else 0.0, share)
    return moved


def _moves(
    cells: Sums, part: Array, name: str, slope: Mapping[str, Array], by_cell: bool
) -> dict[str, Array]:
    """Scoring moves of one location and at most one scale: (batch, class, cells or 1)."""
    location, *rest = slope
    with_mass = {p: np.where(part > 0, s, 0.0) for p, s in slope.items()}  # infinite where a class cannot be
    first = with_mass[location]
    pull, own = cells.sums(part * first, name), cells.sums(part * first * first, name)
    if not rest:
        return {location: _ratio(pull, own, 0.0)}
    second = with_mass[rest[0]]
    both = cells.sums(part * first * second, name)
    force, room = part * second, part * second * second
    force, room = (
        cells.sums(p, name) if by_cell else np.asarray(p.sum(axis=-1, keepdims=True)) for p in (force, room)
    )
    explained, pulled = _ratio(both * both, own, 0.0), _ratio(both * pull, own, 0.0)
    if not by_cell:
        explained, pulled = (np.asarray(v.sum(axis=-1, keepdims=True)) for v in (explained, pulled))
    left = room - explained
    scale = _ratio(force - pulled, np.where(left > NO_INFORMATION * room, left, 0.0), 0.0)
    return {location: _ratio(pull - both * scale, own, 0.0), rest[0]: scale}


def _by_class(cells: Sums, part: Array, name: str, parameters: Parameters) -> Array:
    """Sum the expected log-likelihood of one variable: (batch, class or 1)."""
    value = np.where(part > 0, number_log_density(cells.model, name, parameters, cells.columns), 0.0)
    return np.asarray((part * value).sum(axis=-1))


def _bounded(cells: Sums, part: Array, name: str, parameters: Parameters) -> Parameters:
    """Keep positive parameters away from zero and infinity."""
    size = np.abs(np.asarray(cells.columns[name], dtype=float))
    total = part.sum(axis=(-2, -1))
    mean = _ratio((part * size).sum(axis=(-2, -1)), total, 1.0)
    variance = _ratio((part * (size - mean[:, None, None]) ** 2).sum(axis=(-2, -1)), total, 1.0)
    out: Parameters = {}
    for key, value in parameters.items():
        kind = cells.model.kind(key)
        if not kind.in_units:
            out[key] = np.clip(value, *SHAPE_RANGE)
            continue
        pooled, share = (
            (mean, MIN_MEAN_SHARE) if kind.scope == "location" else (np.sqrt(variance), MIN_SD_SHARE)
        )
        usual = np.where(pooled > 0, pooled, 1.0).reshape(-1, *(1,) * (value.ndim - 1))
        out[key] = np.clip(value, share * usual, usual / share)
    return out


def _ratio(top: Array, bottom: Array, otherwise: Array | float) -> Array:
    """Divide where there is something to divide by; infinite where it is next to nothing."""
    with np.errstate(over="ignore"):  # bounds hold what is too large
        return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), otherwise)


def _on_patterns(cells: Sums, value: Array, name: str) -> Array:
    """Put values by cell (batch, class, cells) on patterns: (batch, class, pattern)."""
    parents = cells.model.variables[name].parents
    if not parents:
        return value
    sizes = tuple(cells.model.size(p) for p in parents)
    return np.asarray(
        value[..., np.ravel_multi_index([np.asarray(cells.columns[p]) for p in parents], sizes)]
    )


def _real(cells: Sums, part: Array, name: str, previous: Parameters) -> Parameters:
    """Weighted mean and scale of a normal or (by its scale mixture) Student variable."""
    model, var = cells.model, cells.model.variables[name]
    value = np.asarray(cells.columns[name], dtype=float)
    out: Parameters = {}
    precision = np.ones(())
    if "nu" in var.spec.parameters and f"sd_{name}" in previous:
        old = gathered(model, name, previous, cells.columns)
        z = (value - old["mean"]) / old["sd"]
        precision = (old["nu"] + 1) / (old["nu"] + z * z)
        out[f"nu_{name}"] = _solve_nu(part, precision, previous[f"nu_{name}"])
    elif "nu" in var.spec.parameters:
        out[f"nu_{name}"] = np.full(len(part), START_NU)
    weighted = part * precision
    pooled = ((part * value).sum(axis=(-2, -1)) / part.sum(axis=(-2, -1)))[:, None, None]
    mean = _ratio(cells.sums(weighted * value, name), cells.sums(weighted, name), pooled)
    out[f"mean_{name}"] = mean.reshape(len(part), *model.shapes[f"mean_{name}"])
    residual = weighted * (value - _on_patterns(cells, mean, name)) ** 2
    if var.scale_parents:
        square, count = cells.sums(residual, name), cells.sums(part, name)
    else:
        square, count = residual.sum(axis=-1), part.sum(axis=-1)
    variance = (part * (value - pooled) ** 2).sum(axis=(-2, -1)) / part.sum(axis=(-2, -1))
    variance = np.where(variance > 0, variance, 1.0)  # a constant column: any scale will do
    floor = MIN_SD_SHARE**2 * variance.reshape(-1, *(1,) * (square.ndim - 1))
    sd = np.sqrt(np.maximum(square / np.where(count > 0, count, 1.0), floor))
    out[f"sd_{name}"] = sd.reshape(len(part), *model.shapes[f"sd_{name}"])
    return out


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
