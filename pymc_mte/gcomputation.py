"""Functionals where treatment or outcome descend from numbers: averages over simulated ancestors. NumPy."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.stats import qmc

from pymc_mte.coefficients import takes_covariates
from pymc_mte.families import LINKS, binomial_table
from pymc_mte.functionals import ancestors, effects_from_classes
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.network import MAX_LOG_SHIFT, TINY, by_parents, with_class_axis
from pymc_mte.quantiles import quantile
from pymc_mte.regression import log_class, parent_terms

Array = NDArray[np.float64]

POINTS = 2_048
"""Simulated units without covariates, and at least as many with them."""


def simulated_functionals(
    model: CausalModel, parameters: Parameters, covariates: Array | None, share: Array, block: int
) -> dict[str, Array]:
    """Average over simulated ancestors of treatment and outcome; outcome means are exact given these.

    Every class and arm sees the same units, and every draw too: fixed quasi-random points, each with its
    mirror image, turned into values by the quantiles of each variable given its parents. Linear averages
    over normal ancestors are therefore exact. Else 2,048 points leave an error, measured in standard
    deviations of what is averaged, of about 0.001 for probabilities and 0.003 for exponentials of normal
    ancestors, 0.01 where ancestors have levels (worst cases three times that); it is nearly the same in all
    draws. With covariates the points are spread over the rows, two at least to each.

    Parameters
    ----------
    model : CausalModel
        With treatment and outcome.
    parameters : mapping of str to ndarray
        Draws (draw, ...).
    covariates : ndarray of shape (row, columns), optional
        Deviations from the means.
    share : ndarray of shape (row,)
        Share of every row.
    block : int
        Numbers that are held at once.
    """
    names = _simulated(model)
    units = _Units(len(names), covariates, share)
    levels = max([2, *(model.size(n) for n in names if model.variables[n].discrete)])
    size = units.count * model.classes * len(model.arms) * levels
    draws = len(parameters["class_weight" if covariates is None else "baseline_weight"])
    blocks = np.array_split(np.arange(draws), min(draws, max(1, draws * size // block)))
    with np.errstate(all="ignore"):  # draws from a prior may have infinite means
        parts = [_of_block(model, {n: v[b] for n, v in parameters.items()}, names, units) for b in blocks]
    return {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}


def _simulated(model: CausalModel) -> list[str]:
    """Ancestors of treatment and outcome, parents first."""
    t, y = str(model.treatment), str(model.outcome)
    relevant = ancestors(model, {t, y}, stop=set())
    return [name for name in model.order if name in relevant and name not in (t, y)]


class _Units:
    """Scrambled Sobol points in the unit cube, and the covariates of the row that each belongs to."""

    def __init__(self, dimensions: int, covariates: Array | None, share: Array) -> None:
        rows = 1 if covariates is None else len(covariates)
        each = max(1, -(-POINTS // (2 * rows)))
        half = each * rows
        sobol = qmc.Sobol(max(dimensions, 1), rng=0).random_base2(int(half - 1).bit_length())
        points = np.clip(sobol[:half], 1e-12, 1 - 1e-12)
        self.uniform = np.concatenate([points, 1 - points])
        row = np.random.default_rng(0).permutation(np.arange(half) % rows)
        self.row = np.concatenate([row, row])
        self.share = np.full(2 * half, 0.5 / half) if covariates is None else share[self.row] / (2 * each)
        self.covariates = None if covariates is None else covariates[self.row]
        self.of_row = covariates
        self.count = 2 * half


def _of_block(
    model: CausalModel, parameters: Parameters, names: list[str], units: _Units
) -> dict[str, Array]:
    """Functionals of some draws; columns have the axes (draw, class, arm, unit)."""
    t, y = str(model.treatment), str(model.outcome)
    state: dict[str, NDArray[np.generic]] = {t: np.arange(len(model.arms))[:, None]}
    for name in model.order:
        if name == t:
            got = _chances(model, t, parameters, state, units)
        elif name in names:
            u = units.uniform[:, names.index(name)]
            if model.variables[name].discrete:
                rising = np.cumsum(_chances(model, name, parameters, state, units), axis=-1)
                state[name] = (u[..., None] >= rising[..., :-1]).sum(axis=-1)
            else:
                own = _at(model, name, parameters, state, units)
                state[name] = quantile(model.variables[name].family, u, *own.values())
    log_p = log_class(model, parameters, units.of_row)
    weight = np.exp(log_p) if units.covariates is None else np.exp(log_p)[..., units.row]
    weight = weight * units.share  # (draw, class, unit)
    wanted = (*weight.shape[:2], len(model.arms), units.count)
    mean = np.broadcast_to(_mean(model, y, parameters, state, units), wanted)
    total = weight.sum(axis=-1)
    out = {"potential_outcome": np.einsum("dkn,dkan->dka", weight, mean) / total[..., None]}
    out |= effects_from_classes(model, total, out["potential_outcome"])
    chance = np.broadcast_to(got[:, :, 0], (*weight.shape, len(model.arms)))
    att = []
    for b, a in model.contrasts:
        treated = weight * chance[..., b]
        gain = (treated * (mean[:, :, b] - mean[:, :, a])).sum(axis=(1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):  # nobody got the arm: not a number
            att.append(gain / treated.sum(axis=(1, 2)))
    out["att"] = att[0] if len(att) == 1 else np.stack(att, axis=-1)
    return out if units.covariates is None else {"class_weight": total, **out}


def _gather(
    model: CausalModel,
    name: str,
    parameter: str,
    parameters: Parameters,
    state: Mapping[str, NDArray[np.generic]],
) -> Array:
    """Take a parameter at every unit's parents: (draw, class or 1, arm or 1, unit or 1, level if a table)."""
    var = model.variables[name]
    value = with_class_axis(model, key := f"{parameter}_{name}", parameters[key])
    if not var.parents or not by_parents(var, parameter):
        return value[:, :, None, None]
    draws, classes = value.shape[:2]
    index = (np.arange(draws)[:, None, None, None], np.arange(classes)[:, None, None])
    return np.asarray(value[(*index, *(np.atleast_2d(state[p]) for p in var.parents))])


def _shift(
    model: CausalModel,
    name: str,
    parameters: Parameters,
    state: Mapping[str, NDArray[np.generic]],
    units: _Units,
) -> Array | None:
    """Linear part: (draw, class or 1, arm or 1, unit), with the level last where levels have their own."""
    if name not in model.regressed:
        return None
    terms: list[Array] = []
    if takes_covariates(model, name) and units.covariates is not None:
        terms += list(units.covariates.T)
    for parent in model.variables[name].linear_parents:
        terms += parent_terms(model, parent, state[parent])
    coef = parameters[f"coef_{name}"]
    if coef.ndim == 3:  # one for each level
        return np.asarray(
            sum(
                c[:, None, None, None] * t[..., None]
                for c, t in zip(coef.T.swapaxes(1, 2), terms, strict=True)
            )
        )
    return np.asarray(sum(c[:, None, None, None] * t for c, t in zip(coef.T, terms, strict=True)))


def _at(
    model: CausalModel,
    name: str,
    parameters: Parameters,
    state: Mapping[str, NDArray[np.generic]],
    units: _Units,
) -> dict[str, Array]:
    """Parameters of a number at every unit's parents."""
    var = model.variables[name]
    own = {p: _gather(model, name, p, parameters, state) for p in var.spec.parameters}
    shift = _shift(model, name, parameters, state, units)
    if shift is not None:
        moved, link = LINKS[var.family]
        if link == "identity":
            own[moved] = own[moved] + shift
        else:
            own[moved] = own[moved] * np.exp(np.clip(shift, -MAX_LOG_SHIFT, MAX_LOG_SHIFT))
    return own


def _success(
    model: CausalModel,
    name: str,
    parameters: Parameters,
    state: Mapping[str, NDArray[np.generic]],
    units: _Units,
) -> Array:
    """P(second level) of a bernoulli variable, or of success in one trial, at every unit's parents."""
    p = _gather(model, name, "p", parameters, state)
    p = p if model.variables[name].trials is not None else p[..., 1]
    shift = _shift(model, name, parameters, state, units)
    return np.asarray(p if shift is None else special.expit(special.logit(p) + shift))


def _chances(
    model: CausalModel,
    name: str,
    parameters: Parameters,
    state: Mapping[str, NDArray[np.generic]],
    units: _Units,
) -> Array:
    """P(level) of a discrete variable at every unit's parents, axes as of `_gather`."""
    var = model.variables[name]
    if var.trials is not None:
        return binomial_table(_success(model, name, parameters, state, units), var.trials)
    if var.family == "bernoulli":
        p = _success(model, name, parameters, state, units)
        return np.stack([1 - p, p], axis=-1)
    p, shift = _gather(model, name, "p", parameters, state), _shift(model, name, parameters, state, units)
    return p if shift is None else np.asarray(special.softmax(np.log(np.maximum(p, TINY)) + shift, axis=-1))


def _mean(
    model: CausalModel,
    name: str,
    parameters: Parameters,
    state: Mapping[str, NDArray[np.generic]],
    units: _Units,
) -> Array:
    """Mean of the outcome at every unit's parents."""
    var = model.variables[name]
    if var.discrete:  # bernoulli or binomial: others have no mean
        return np.asarray((var.trials or 1) * _success(model, name, parameters, state, units))
    assert var.spec.law is not None
    return np.asarray(var.spec.law.mean(*_at(model, name, parameters, state, units).values()))
