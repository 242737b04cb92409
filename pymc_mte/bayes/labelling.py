"""Priors that differ between classes: the numbers that they give the classes."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pymc as pm
from numpy.typing import NDArray

from pymc_mte.bayes.density import PosteriorDensity
from pymc_mte.bayes.modes import ALWAYS, Modes
from pymc_mte.bayes.priors import Prior, merge_priors
from pymc_mte.bayes.rowdensity import density_of
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.optima import DistinctOptima, relabelled
from pymc_mte.status import Note, Status

Index = NDArray[np.int64]

ALL_ORDERS = 6
"""Up to so many classes all their orders are tried; of more, pairs change places."""

ALIKE = 1e-6
"""A difference of log-densities below this is rounding."""


def numbered_by_prior(
    model: CausalModel, built: pm.Model, priors: Mapping[str, Prior] | None, modes: Modes
) -> tuple[Modes, Note | None]:
    """Give the classes of all modes the numbers that fit the prior best, if it tells classes apart.

    Climbs do not see what priors say of single classes, and chains keep to the numbers that they start
    with: started with others they would stay in a lesser copy of the posterior.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    built : pymc.Model
        Its PyMC model.
    priors : mapping, optional
        As given to `build_model`.
    modes : Modes
        With classes numbered by the package.

    Returns
    -------
    modes : Modes
        The same with the prior's numbers; untouched where all orders are as dense.
    note : Note or None
        That the prior numbers the classes, and how far below the next order is.
    """
    chosen = merge_priors(model, priors).values()
    if model.classes == 1 or all(map(_alike, chosen)):
        return modes, None
    density = density_of(model, built)
    known = {*modes.posterior.parameters, *(f"raw_{name}" for name in model.coefficient_dims)}
    if not set(density.names) <= known:  # pooled parameters are made of others, which have no numbers
        return modes, None

    def best(found: DistinctOptima) -> tuple[DistinctOptima, float]:
        points = [{n: v[j] for n, v in found.parameters.items()} for j in range(len(found.objective))]
        orders, gaps = zip(*(_best_order(model, density, point) for point in points), strict=True)
        return replace(found, parameters=relabelled(model, found.parameters, np.stack(orders))), gaps[0]

    posterior, gap = best(modes.posterior)
    if gap < ALIKE:
        return modes, None
    likelihood = posterior if modes.likelihood is modes.posterior else best(modes.likelihood)[0]
    detail = f"the next order of the classes is {gap:.1f} log units below"
    detail += ", near enough to count, and is not averaged over" if gap < ALWAYS else ""
    return replace(modes, posterior=posterior, likelihood=likelihood), Note(
        Status.CLASSES_BY_PRIOR, "prior", detail
    )


def _alike(prior: Prior) -> bool:
    """Whether a prior is certainly the same for all classes: made of single numbers."""
    parts: list[Any] = list(prior.values()) if isinstance(prior, Mapping) else [prior]
    return not callable(prior) and all(isinstance(part, str) or np.ndim(part) == 0 for part in parts)


def _best_order(model: CausalModel, density: PosteriorDensity, point: Parameters) -> tuple[Index, float]:
    """Order of the classes in which a point is densest, and how far below the next one is."""
    order = np.arange(model.classes)
    while True:
        orders = order[_orders(model.classes)]
        copies = {n: np.repeat(v[None], len(orders), axis=0) for n, v in point.items()}
        level = density.log_density(density.to_flat(relabelled(model, copies, orders)))
        place = int(level.argmax())
        if place == 0 or not level[place] > level[0] + ALIKE:
            return order, float(level[0] - np.delete(level, 0).max())
        order = orders[place]


def _orders(classes: int) -> Index:
    """Orders to try, the present one first."""
    if classes <= ALL_ORDERS:
        return np.array(list(permutations(range(classes))))
    pairs = list(combinations(range(classes), 2))
    out = np.tile(np.arange(classes), (len(pairs) + 1, 1))
    for row, (a, b) in zip(out[1:], pairs, strict=True):
        row[[a, b]] = b, a
    return out
