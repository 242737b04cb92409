"""Other choices of the excluded values that fit almost as well, each with the targets it leads to."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.evidence import Support, base_log_likelihood, fit_support
from pymc_mte.moments.interventions.levels import Found, climb
from pymc_mte.moments.interventions.network import UNTOUCHED, Network
from pymc_mte.moments.interventions.weights import large

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

CLEAR_GAP = 3.0
"""Another excluded value is ruled out if it fits worse by this many nats."""

MAX_CHOICES = 32
"""Most choices of excluded values that are fitted; the clearest nodes keep theirs."""

SMALLEST_CHANCE = 0.02
"""Choices of a smaller probability are left out."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One choice of excluded values.

    Attributes
    ----------
    excluded : tuple of int
        Per node, the value that no target forces.
    support : Support
        Targets with weights.
    probability : float
        Of this choice among those considered.
    """

    excluded: tuple[int, ...]
    support: Support
    probability: float


def unclear_nodes(network: Network, found: Found) -> tuple[list[int], list[int]]:
    """Nodes that are forced and whose excluded value is unclear: those that are tried, and the rest.

    Only so many choices are tried; the least clear nodes come first.
    """
    gap = np.array(found.gap)
    forced = (found.targets != UNTOUCHED).any(axis=0)
    unclear = [int(i) for i in np.argsort(gap) if forced[i] and gap[i] < CLEAR_GAP]
    kept = len(unclear)
    while np.prod([float(network.sizes[i]) for i in unclear[:kept]]) > MAX_CHOICES:
        kept -= 1
    return unclear[:kept], unclear[kept:]


def plausible_choices(network: Network, rows: Ints, counts: Array, smallest: float) -> list[Choice]:
    """Weigh the choices of excluded values that the data leave open.

    Every node that is ever forced and whose choice is unclear takes each of its values in turn.
    Choices that end with the same targets are one. Probabilities are by the Bayesian information
    criterion, all choices being equally likely beforehand.

    Parameters
    ----------
    network : Network
        The untouched network.
    rows : ndarray of int, shape (patterns, nodes)
        The mixture's rows, nodes in topological order.
    counts : ndarray of shape (patterns,)
        Rows per pattern.
    smallest : float
        Smallest weight of a target.

    Returns
    -------
    list of Choice
        The most probable one first; usually one.
    """
    best = climb(network, rows, counts, smallest)
    unclear, _ = unclear_nodes(network, best)
    found: dict[bytes, tuple[float, tuple[int, ...], Support]] = {}
    for values in product(*(range(network.sizes[i]) for i in unclear)):
        fixed = dict(zip(unclear, values, strict=True))
        tried = climb(network, rows, counts, smallest, fixed=fixed)
        support = fit_support(network, rows, counts, tried.targets)
        keep = large(support.weight, smallest)
        support = support if keep.all() else support.only(keep, counts)
        key = support.targets[np.lexsort(support.targets.T)].tobytes()
        level = support.log_likelihood + base_log_likelihood(support.network)
        level -= 0.5 * len(support.targets) * np.log(counts.sum())
        if key not in found or level > found[key][0]:
            found[key] = (level, tried.excluded, support)
    ranked = sorted(found.values(), key=lambda entry: -entry[0])
    chance = np.exp(np.array([entry[0] for entry in ranked]) - ranked[0][0])
    keep = chance / chance.sum() >= SMALLEST_CHANCE
    chance = chance[keep] / chance[keep].sum()
    return [
        Choice(excluded=excluded, support=support, probability=float(p))
        for (_, excluded, support), p in zip(ranked, chance, strict=False)
    ]
