"""Groups of rows (sites) with class weights and outcomes of their own. NumPy only.

Parameters have one leading axis, the draws, behind which every group's own have an axis of groups.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pymc_mte.families import LINKS
from pymc_mte.functionals import potential_outcomes
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.standardised import averaged

Array = NDArray[np.float64]

BY_GROUP = "group_class_weight"
"""Class weights of every group: (group, class)."""

SHIFT = "group_shift"
"""What every group adds to the outcome on the scale of its link, in each arm: (group, treatment)."""


def why_not_shifted(model: CausalModel) -> str | None:
    """Sentence that says why groups cannot shift a model's outcome; None if they can."""
    if model.outcome is None:
        return "the model names no treatment and outcome; add the roles"
    family = model.variables[model.outcome].family
    if family not in LINKS or family in ("categorical", "ordinal"):
        return f"the outcome {model.outcome!r} is {family}, which has no one scale to be shifted on"
    return None


def group_parameters(model: CausalModel, parameters: Parameters, by_group: Array, shift: Array) -> Parameters:
    """Parameters of every group's own network: (draw, group or 1, ...).

    Parameters
    ----------
    model : CausalModel
        The graph.
    parameters : mapping of str to ndarray
        Draws of the parameters, the outcome's those of a group whose shift is 0.
    by_group : ndarray of shape (draw, group, class)
        Class weights.
    shift : ndarray of shape (draw, group, treatment)
        See `SHIFT`.
    """
    out: Parameters = {n: parameters[n][:, None] for n in model.owners}
    out["class_weight"] = by_group
    outcome = model.variables[str(model.outcome)]
    parameter, link = LINKS[outcome.family]
    key = f"{parameter}_{model.outcome}"
    binary = outcome.family == "bernoulli"
    axes = model.dims[key][:-1] if binary else model.dims[key]
    shape = (shift.shape[-1] if axis == model.treatment else 1 for axis in axes)
    moved, value = shift.reshape(*shift.shape[:2], *shape), out[key]
    if binary:
        odds = special.logit(value[..., 1]) + moved
        out[key] = np.stack([special.expit(-odds), special.expit(odds)], axis=-1)
    elif link == "logit":
        out[key] = special.expit(special.logit(value) + moved)
    else:
        out[key] = value + moved if link == "identity" else value * np.exp(moved)
    return out


def group_functionals(
    model: CausalModel, values: Parameters, share: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Functionals over all groups, and the effects of each.

    Parameters
    ----------
    model : CausalModel
        The graph.
    values : mapping of str to ndarray
        Draws of the parameters, `BY_GROUP` and `SHIFT`, with any leading axes.
    share : ndarray of shape (group,)
        Share of the rows in every group.

    Returns
    -------
    over_all : dict of str to ndarray
        As from `pymc_mte.functionals.functionals`: ``potential_outcome`` averages over a class's members.
    by_group : dict of str to ndarray
        ``group_effect`` (..., group, class[, contrast]) and ``group_ate`` (..., group[, contrast]).
    """
    lead = values[BY_GROUP].shape[:-2]
    flat = {n: v.reshape(-1, *v.shape[len(lead) :]) for n, v in values.items()}
    own = group_parameters(model, flat, flat[BY_GROUP], flat[SHIFT])
    outcomes = potential_outcomes(model, own)
    effect = np.stack([outcomes[..., b] - outcomes[..., a] for b, a in model.contrasts], axis=-1)
    effect = np.broadcast_to(effect, (*own["class_weight"].shape, len(model.contrasts)))
    ate = (own["class_weight"][..., None] * effect).sum(axis=-2)
    each = {"group_effect": effect, "group_ate": ate}
    if len(model.contrasts) == 1:
        each = {n: v[..., 0] for n, v in each.items()}
    answers = averaged(model, own, share), each
    over_all, by_group = ({n: v.reshape(*lead, *v.shape[1:]) for n, v in a.items()} for a in answers)
    return over_all, by_group
