"""Scores of the likelihood of a model with linear parents, row by row. NumPy only."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pymc_mte.coefficients import with_linear_parents
from pymc_mte.families import LINKS
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import responsibilities
from pymc_mte.network import Columns, by_parents, gathered, with_class_axis
from pymc_mte.regression import log_joint_of_terms, log_table_given, regressors, shift_of

Array = NDArray[np.float64]


def interior_coefficients(model: CausalModel, rng: np.random.Generator) -> Parameters:
    """Draw coefficients of linear parents, small ones where logs or large numbers could run away."""
    out = {}
    for name in with_linear_parents(model):
        var = model.variables[name]
        above = {model.variables[p].spec.values for p in var.linear_parents}
        scale = 0.7 if LINKS[var.family][1] != "log" and above <= {"levels", "real"} else 0.1
        out[f"coef_{name}"] = rng.normal(
            0.0, scale, [model.size(d) for d in model.coefficient_dims[f"coef_{name}"]]
        )
    return out


def linear_scores(model: CausalModel, columns: Columns, parameters: Parameters) -> Array:
    """Score of one row of every pattern: (pattern, free), coordinates as `to_free` lays them out.

    Parameters
    ----------
    model : CausalModel
        Without covariates.
    columns : mapping of str to ndarray
        Complete rows.
    parameters : mapping of str to ndarray
        One set, each with a batch axis of length 1.
    """
    one = {name: value[0] for name, value in parameters.items()}
    terms = regressors(model, columns, None, model.regressed)
    mass = responsibilities(log_joint_of_terms(model, one, columns, None, terms)).T  # (pattern, class)
    tables = [(mass - one["class_weight"])[:, 1:]]
    coefficients = []
    for name, var in model.variables.items():
        part = mass if var.latent else np.ones((len(mass), 1))
        of_variable = _of_levels if var.discrete else _of_numbers
        own, moved = of_variable(model, name, one, columns, terms.get(name), part)
        tables += own
        if name in terms:  # (pattern, level or 1, term)
            coefficients.append((moved[..., None] * terms[name][:, None]).reshape(len(mass), -1))
    return np.concatenate([*tables, *coefficients], axis=1)


def _cells(model: CausalModel, name: str, columns: Columns, value: Array) -> Array:
    """Put (pattern, class, ...) into the cell of the parents' levels: (pattern, class * cells * ...)."""
    parents = model.variables[name].parents
    sizes = tuple(model.size(p) for p in parents)
    rows = np.arange(len(value))
    cell = np.ravel_multi_index([np.asarray(columns[p]) for p in parents], sizes) if parents else 0 * rows
    out = np.zeros((*value.shape[:2], int(np.prod(sizes)), *value.shape[2:]))
    out[rows, :, cell] = value
    return out.reshape(len(value), -1)


def _of_levels(
    model: CausalModel, name: str, one: Parameters, columns: Columns, terms: Array | None, part: Array
) -> tuple[list[Array], Array]:
    """Scores of a table, and of what shifts it: (pattern, level or 1)."""
    var, level = model.variables[name], np.asarray(columns[name])
    rows = np.arange(len(level))
    index = tuple(np.asarray(columns[p]) for p in var.parents)
    p = with_class_axis(model, f"p_{name}", one[f"p_{name}"])
    if var.trials is not None:
        odds = np.moveaxis(special.logit(p)[(slice(None), *index)].reshape(len(p), -1), 0, 1)
        odds = odds if terms is None else odds + shift_of(name, one, terms)[:, None]
        score = part * (level[:, None] - var.trials * special.expit(odds))
        return [_cells(model, name, columns, score)], score.sum(axis=1, keepdims=True)
    if terms is None:
        chance = np.broadcast_to(p[None], (len(rows), *p.shape))
    else:
        chance = np.exp(log_table_given(model, name, one, terms))
    chance = np.stack([chance[(rows, u, *index)] for u in range(chance.shape[1])], axis=1)
    score = part[..., None] * ((level[:, None] == np.arange(chance.shape[-1]))[:, None] - chance)
    return [_cells(model, name, columns, score[..., 1:])], score[..., 1:].sum(axis=1)


def _of_numbers(
    model: CausalModel, name: str, one: Parameters, columns: Columns, terms: Array | None, part: Array
) -> tuple[list[Array], Array]:
    """Scores of a number's parameters, and of what shifts it: (pattern, 1)."""
    var, moved = model.variables[name], LINKS.get(model.variables[name].family, ("", "identity"))
    own = gathered(model, name, one, columns)
    if terms is not None:
        shift = shift_of(name, one, terms)
        own[moved[0]] = own[moved[0]] + shift if moved[1] == "identity" else own[moved[0]] * np.exp(shift)
    assert var.spec.law is not None
    found = var.spec.law.scores(np.asarray(columns[name]), *own.values())
    out, along = [], np.zeros((len(part), 1))
    for parameter, value in zip(own, found, strict=True):
        score = part * np.broadcast_to(value, part.T.shape).T
        if parameter == moved[0]:
            along = score.sum(axis=1, keepdims=True)
        if by_parents(var, parameter):
            out.append(_cells(model, name, columns, score))
        else:
            shared = var.spec.parameters[parameter].scope == "shared"
            out.append(score.sum(axis=1, keepdims=True) if shared else score)
    return out, along
