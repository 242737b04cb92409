"""The default estimator: the likelihood of the rows' beginnings, node by node along the order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pymc_mte.moments.interventions.network import UNTOUCHED, Level, Network, extend, lengthen, levels_of
from pymc_mte.moments.interventions.weights import fit_weights, large

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Targets that explain the rows' beginnings.

    Attributes
    ----------
    targets : ndarray of int, shape (targets, nodes)
        Forced values, `UNTOUCHED` elsewhere.
    weight : ndarray of shape (targets,)
        Sum 1.
    excluded : tuple of int
        Per node, the value that no target forces.
    gap : tuple of float
        Per node, by how many nats the next best choice of that value fits worse.
    """

    targets: Ints
    weight: Array
    excluded: tuple[int, ...] = ()
    gap: tuple[float, ...] = ()


def climb(
    network: Network,
    rows: Ints,
    counts: Array,
    smallest: float,
    tolerance: float = 1e-4,
    fixed: Mapping[int, int] | None = None,
) -> Found:
    """Find targets level by level: each is left alone at the new node or forced to a value.

    At every node the value that no target forces is the one whose exclusion costs least likelihood.
    Targets of a smaller weight than ``smallest`` are dropped on the way.

    Parameters
    ----------
    network : Network
        The untouched network.
    rows : ndarray of int, shape (patterns, nodes)
        The mixture's rows, nodes in topological order.
    counts : ndarray of shape (patterns,)
        Rows per pattern, or probabilities.
    smallest : float
        Smallest weight that is kept.
    tolerance : float
        Accuracy of each fit, in nats.
    fixed : mapping, optional
        Excluded values of some nodes, taken as known.

    Notes
    -----
    Every fit uses all rows, collapsed to their beginnings. Cost per node: values x targets x
    distinct beginnings that a target can produce.
    """
    found = Found(targets=np.zeros((1, 0), dtype=np.int64), weight=np.ones(1))
    matrix = sparse.csc_array(np.ones((1, 1)))
    for node, level in enumerate(levels_of(rows, counts)):
        size = network.sizes[node]
        longer = extend(matrix, level, network.factor(level.rows, node), size)
        stated = None if fixed is None else fixed.get(node)
        tried = range(size) if stated is None else (stated,)
        found, columns = _best_exclusion(found, longer, level, size, tried, smallest, tolerance)
        matrix = longer[:, columns]
    return found


def _best_exclusion(
    found: Found,
    matrix: sparse.csc_array,
    level: Level,
    size: int,
    tried: Sequence[int],
    smallest: float,
    tolerance: float,
) -> tuple[Found, Ints]:
    """Fit one level with each tried value excluded; the best fit and its columns of the matrix."""
    targets = lengthen(found.targets, size)
    last = targets[:, -1]
    start = np.where(last == UNTOUCHED, 0.5, 0.5 / (size - 1)) * np.tile(found.weight, size + 1)
    kept = [np.flatnonzero(last != value) for value in tried]
    fits = [fit_weights(matrix[:, keep], level.counts, start[keep], tolerance) for keep in kept]
    order = np.argsort([-fit.log_likelihood for fit in fits], kind="stable")
    best = int(order[0])
    big = large(fits[best].weight, smallest)
    gap = fits[best].log_likelihood - fits[order[1]].log_likelihood if len(order) > 1 else np.inf
    columns, weight = kept[best][big], fits[best].weight[big]
    return (
        Found(
            targets=targets[columns],
            weight=weight / weight.sum(),
            excluded=(*found.excluded, tried[best]),
            gap=(*found.gap, gap),
        ),
        columns,
    )
