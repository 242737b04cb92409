"""Interventions where variables descend from numbers: averages over simulated ancestors. NumPy only."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pymc_mte.functionals import ancestors
from pymc_mte.mechanisms import Mechanisms, mirrored_points
from pymc_mte.model import CausalModel, Parameters

Array = NDArray[np.float64]

POINTS = 2_048
"""Simulated units, half of them mirror images of the others."""

MAX_BLOCK = 4_000_000
"""Numbers that are held at once, roughly: draws x classes x units x levels."""


def simulated_do(
    model: CausalModel, parameters: Parameters, levels: Mapping[str, int], outcome: str, rare: float
) -> dict[str, Array]:
    """Distribution or mean of an outcome in every class under an intervention, and what is seen without one.

    Every class and draw sees the same units; outcomes are exact given their parents. Errors are those of
    `pymc_mte.gcomputation.simulated_functionals`.

    Parameters
    ----------
    model : CausalModel
        The graph, without covariates.
    parameters : mapping of str to ndarray
        Draws (draw, ...).
    levels : mapping of str to int
        Level number that each intervened variable is set to.
    outcome : str
        Variable asked for.
    rare : float
        Share of each class's units, those least likely to have a value, that do not count for ``overlap``.

    Returns
    -------
    dict of str to ndarray
        ``overlap`` (draw,); of a discrete outcome ``distribution_by_class`` (draw, class, level) and
        ``naive_distribution`` (draw, level), else ``mean_by_class`` (draw, class) and ``naive_mean`` (draw,).
    """
    sizes = [model.size(v) for v in model.discrete_variables]
    each = POINTS * model.classes * max([1, *sizes])
    draws = len(parameters["class_weight"])
    parts = []
    for block in np.array_split(np.arange(draws), min(draws, 1 + draws * each // MAX_BLOCK)):
        own = {n: v[block] for n, v in parameters.items()}
        found = _answers(model, own, levels, outcome)
        parts.append(found | {"overlap": _overlap(model, own, levels, rare)})
    return {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}


def _followed(
    model: CausalModel, parameters: Parameters, targets: set[str], fixed: Mapping[str, int]
) -> Mechanisms:
    """Units with some variables and their ancestors; fixed ones have the same level everywhere."""
    wanted = ancestors(model, targets, stop=set())
    names = [name for name in model.order if name in wanted and name not in fixed]
    points = mirrored_points(POINTS // 2, len(names))
    state = {name: np.array([level]) for name, level in fixed.items()}
    at = Mechanisms(model=model, parameters=parameters, state=state, covariates=None)
    for i, name in enumerate(names):
        at.follow(name, points[:, i])
    return at


def _answers(
    model: CausalModel, parameters: Parameters, levels: Mapping[str, int], outcome: str
) -> dict[str, Array]:
    """Without an intervention, units count as likely as they are to have the values."""
    above = ancestors(model, set(levels), stop=set()) - set(levels)
    parents = set(model.variables[outcome].all_parents)
    at = _followed(model, parameters, above | parents, levels)
    discrete = model.variables[outcome].discrete
    weight = np.ones((1, 1, 1, 1))
    for name, level in levels.items():
        weight = weight * at.chances(name)[..., level]
    weight = weight * parameters["class_weight"][:, :, None, None]
    given = at.chances(outcome) if discrete else at.mean(outcome)
    seen = given
    if outcome in above:  # the values depend on it
        seen = at.state[outcome].astype(float)
        seen = (seen[..., None] == np.arange(model.size(outcome))).astype(float) if discrete else seen
    lead = (*parameters["class_weight"].shape, 1, POINTS)
    tail = given.shape[4:]
    given, seen = (np.broadcast_to(v, (*lead, *tail))[:, :, 0] for v in (given, seen))
    weight = np.broadcast_to(weight, lead)[:, :, 0]
    naive = np.einsum("dkn,dkn...->d...", weight, seen)
    total = weight.sum(axis=(1, 2)).reshape(-1, *(1,) * len(tail))
    kind = "distribution" if discrete else "mean"
    return {f"{kind}_by_class": given.mean(axis=2), f"naive_{kind}": naive / total}


def _overlap(model: CausalModel, parameters: Parameters, levels: Mapping[str, int], rare: float) -> Array:
    """Smallest P(value | class, parents) of the variables that are set, but for rare units and classes."""
    weight = parameters["class_weight"]
    lowest = np.ones(len(weight))
    for name, level in levels.items():
        at = _followed(model, parameters, set(model.variables[name].all_parents), {})
        chance = at.chances(name)[:, :, 0, :, level]
        by_class = np.quantile(chance, rare, axis=-1)
        lowest = np.minimum(lowest, np.where(weight > rare, by_class, 1.0).min(axis=1))
    return lowest
