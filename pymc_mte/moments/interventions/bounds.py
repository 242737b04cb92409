"""What the data say about every target's share without any excluded values: linear programming."""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse, stats

from pymc_mte.moments.interventions.exact import admissible
from pymc_mte.moments.interventions.network import Network, components, is_sample

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_TARGETS = 4096
"""Largest number of targets for which bounds over all of them are computed."""

ROUNDING = 1e-9


def share_bounds(
    network: Network,
    rows: Ints,
    counts: Array,
    wanted: Ints,
    candidates: Ints | None = None,
    level: float = 0.9,
) -> Array:
    """Bound the share of each wanted target over all mixtures that agree with the data.

    Parameters
    ----------
    network : Network
        The untouched network, taken as known.
    rows : ndarray of int, shape (patterns, nodes)
        The mixture's rows, nodes in topological order.
    counts : ndarray of shape (patterns,)
        Rows per pattern: cell probabilities may then be anywhere in simultaneous intervals of this
        ``level``. Probabilities: they must be met.
    wanted : ndarray of int, shape (targets, nodes)
        Targets to bound.
    candidates : ndarray of int, shape (candidates, nodes), optional
        All targets that are possible; every target by default.
    level : float
        Probability that all cell intervals hold.

    Returns
    -------
    ndarray of shape (targets, 2)
        Lower and upper bounds; NaN where no mixture agrees with the data (the candidates or the
        network are wrong) or where there are too many targets to ask.

    Examples
    --------
    A single binary node: leaving it alone looks like a mixture of both forced values.

    >>> coin = Network(parents=((),), tables=(np.array([0.5, 0.5]),))
    >>> found = share_bounds(coin, np.array([[0], [1]]), np.array([0.8, 0.2]), np.array([[-1], [0]]))
    >>> found.round(3).tolist()
    [[0.0, 0.4], [0.6, 0.8]]
    """
    sizes = network.sizes
    if candidates is None:
        if np.prod([float(size + 1) for size in sizes]) > MAX_TARGETS:
            return np.full((len(wanted), 2), np.nan)
        candidates = admissible(sizes)
    cells, low, high = _cell_intervals(sizes, rows, counts, level)
    matrix = components(network, cells, candidates)
    place = {tuple(target): i for i, target in enumerate(candidates.tolist())}
    both = sparse.vstack([matrix, -matrix], format="csc")
    limits = np.concatenate([high, -low])
    out = np.full((len(wanted), 2), np.nan)
    for row, target in enumerate(wanted.tolist()):
        if tuple(target) not in place:
            out[row] = 0.0
            continue
        cost = np.zeros(len(candidates))
        cost[place[tuple(target)]] = 1.0
        for column, sign in enumerate((1.0, -1.0)):
            found = optimize.linprog(
                sign * cost, A_ub=both, b_ub=limits, A_eq=np.ones((1, len(cost))), b_eq=[1.0], method="highs"
            )
            out[row, column] = sign * found.fun if found.status == 0 else np.nan
    return np.asarray(np.clip(out, 0.0, 1.0))


def _cell_intervals(
    sizes: tuple[int, ...], rows: Ints, counts: Array, level: float
) -> tuple[Ints, Array, Array]:
    """Every cell with simultaneous exact intervals of its probability (Bonferroni)."""
    cells = np.indices(sizes).reshape(len(sizes), -1).T
    seen = np.zeros(len(cells))
    np.add.at(seen, np.ravel_multi_index(tuple(rows.T), sizes), counts)
    total = seen.sum()
    if not is_sample(counts):
        share = seen / total
        return cells, share - ROUNDING, share + ROUNDING
    tail = (1 - level) / (2 * len(cells))
    low = np.where(seen > 0, stats.beta.ppf(tail, np.maximum(seen, 1), total - seen + 1), 0.0)
    high = np.where(seen < total, stats.beta.isf(tail, seen + 1, np.maximum(total - seen, 1)), 1.0)
    return cells, low, high
