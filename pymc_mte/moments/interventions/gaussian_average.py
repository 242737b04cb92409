"""Shares, values and replicates averaged over the plausible sets of targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.gaussian import LinearMixture, LinearRows
from pymc_mte.moments.interventions.gaussian_errors import Replicates, replicates
from pymc_mte.moments.interventions.gaussian_sets import TargetSet

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Average:
    """Shares and values over all plausible sets.

    Attributes
    ----------
    touched : ndarray of bool, shape (targets, nodes)
        Targets of all sets: those of the most probable one first.
    included : ndarray of bool, shape (sets, targets)
        Which set has which target.
    weight : ndarray of shape (sets, targets)
        Shares, 0 where a set lacks the target.
    value, spread : ndarray of shape (sets, targets, nodes)
        Values of the components; 0 and 1 where a set lacks the target.
    probability : ndarray of shape (sets,)
        Of the sets.
    places : tuple of tuple of int
        Per set, the targets of its components.
    """

    touched: Flags
    included: Flags
    weight: Array
    value: Array
    spread: Array
    probability: Array
    places: tuple[tuple[int, ...], ...]

    @property
    def inclusion(self) -> Array:
        """Probability that each target is there: (targets,)."""
        return np.minimum(self.probability @ self.included, 1.0)

    @property
    def mean_weight(self) -> Array:
        """Share of each target, averaged over the sets."""
        return self.probability @ self.weight

    def mean(self, values: Array) -> Array:
        """Average over the sets that have the target: (sets, targets, nodes) to (targets, nodes)."""
        chance = self.probability[:, None] * self.included
        return np.asarray((chance[..., None] * values).sum(axis=0) / chance.sum(axis=0)[:, None])


def align(mixtures: Sequence[LinearMixture]) -> tuple[Flags, list[list[int]]]:
    """Lay targets side by side: the same nodes are the same target, the nearest values first.

    Returns
    -------
    touched : ndarray of bool, shape (targets, nodes)
        Targets of all mixtures, those of the first one first.
    places : list of list of int
        Per mixture, the targets of its components.
    """
    targets, centres = list(mixtures[0].touched), list(mixtures[0].value)
    places = []
    for mixture in mixtures:
        taken: list[int] = []
        for target, value in zip(mixture.touched, mixture.value, strict=True):
            alike = [j for j, t in enumerate(targets) if j not in taken and (t == target).all()]
            if not alike:
                alike, targets, centres = [len(targets)], [*targets, target], [*centres, value]
            near = [np.abs((centres[j] - value) / mixture.network.sd).sum() for j in alike]
            taken.append(alike[int(np.argmin(near))])
        places.append(taken)
    return np.array(targets), places


def average(sets: Sequence[TargetSet]) -> Average:
    """Put shares and values of all sets into one table."""
    touched, places = align([one.mixture for one in sets])
    shape = (len(sets), len(touched))
    included, weight = np.zeros(shape, dtype=bool), np.zeros(shape)
    value, spread = np.zeros((*shape, touched.shape[1])), np.ones((*shape, touched.shape[1]))
    for s, (one, taken) in enumerate(zip(sets, places, strict=True)):
        included[s, taken], weight[s, taken] = True, one.mixture.weight
        value[s, taken], spread[s, taken] = one.mixture.value, one.mixture.spread
    return Average(
        touched=touched,
        included=included,
        weight=weight,
        value=value,
        spread=spread,
        probability=np.array([one.probability for one in sets]),
        places=tuple(tuple(taken) for taken in places),
    )


def average_replicates(
    data: LinearRows, sets: Sequence[TargetSet], over: Average, n_boot: int, rng: np.random.Generator
) -> Replicates:
    """Take every replicate from one set, drawn by its probability; shares of targets it lacks are 0.

    Values are given that the target is there: where a replicate lacks it, those of another are used.
    """
    choice = rng.choice(len(sets), size=n_boot, p=over.probability / over.probability.sum())
    weight = np.zeros((n_boot, len(over.touched)))
    value = np.tile(over.mean(over.value), (n_boot, 1, 1))
    for s, one in enumerate(sets):
        mine = np.flatnonzero(choice == s)
        if len(mine):
            drawn = replicates(data, one.mixture, len(mine), rng)
            weight[np.ix_(mine, over.places[s])] = drawn.weight
            value[np.ix_(mine, over.places[s])] = drawn.value
    for target in range(len(over.touched)):
        there = over.included[choice, target]
        if there.any() and not there.all():
            value[~there, target] = value[rng.choice(np.flatnonzero(there), size=(~there).sum()), target]
    return Replicates(weight=weight, value=value)
