"""Small networks: every choice of excluded values, with all targets that it allows."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.levels import Found
from pymc_mte.moments.interventions.network import UNTOUCHED, Network, components
from pymc_mte.moments.interventions.weights import fit_weights, large

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_CELLS = 256
"""Largest number of configurations: there are as many choices, each with as many targets."""

SAME = 1e-3
"""Choices whose fits differ by fewer nats fit alike."""


def admissible(sizes: tuple[int, ...], excluded: tuple[int, ...] | None = None) -> Ints:
    """All targets, or those that force no excluded value: (targets, nodes)."""
    values = [
        [UNTOUCHED, *(v for v in range(size) if excluded is None or v != excluded[node])]
        for node, size in enumerate(sizes)
    ]
    return np.array(list(product(*values)), dtype=np.int64).reshape(-1, len(sizes))


def enumerate_exclusions(
    network: Network, rows: Ints, counts: Array, smallest: float, tolerance: float = 1e-4
) -> tuple[Found, int]:
    """Fit every choice of excluded values with all its targets; keep the most likely one.

    Returns
    -------
    found : Found
        Targets of at least the smallest weight. The gap of a node is how much worse the best
        choice with another excluded value fits there.
    alike : int
        Number of choices that fit as well as the best one.
    """
    sizes = network.sizes
    every = admissible(sizes)
    matrix = components(network, rows, every)
    best: tuple[Ints, Array] | None = None
    choices = list(product(*(range(size) for size in sizes)))
    levels = np.empty(len(choices))
    for number, choice in enumerate(choices):
        keep = (every != np.array(choice)).all(axis=1)
        fit = fit_weights(matrix[:, np.flatnonzero(keep)], counts, None, tolerance)
        levels[number] = fit.log_likelihood
        if best is None or fit.log_likelihood > levels[:number].max():
            best = every[keep], fit.weight
    assert best is not None
    top = choices[int(np.argmax(levels))]
    other = np.array(choices) != np.array(top)
    gap = tuple(float(levels.max() - levels[other[:, node]].max()) for node in range(len(sizes)))
    targets, weight = best
    big = large(weight, smallest)
    found = Found(targets=targets[big], weight=weight[big] / weight[big].sum(), excluded=top, gap=gap)
    return found, int((levels >= levels.max() - SAME).sum())
