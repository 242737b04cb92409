"""What the data say about every target's share without any excluded values: linear programming."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse, stats

from pymc_mte.moments.interventions.exact import admissible
from pymc_mte.moments.interventions.network import Network, components, is_sample

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_TARGETS = 4096
"""Largest number of targets for which bounds over all of them are computed."""

MAX_CELLS = 4096
"""Largest number of cells that are all bounded; beyond, the cells that were seen."""

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
        The untouched network. Where it was learnt, its table entries may be anywhere in simultaneous
        intervals too.
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
        Probability that all intervals hold.

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
    learnt = network.base_counts is not None
    tail = (1 - level) / (2 if learnt and is_sample(counts) else 1)
    cells, low, high = _cell_intervals(sizes, rows, counts, tail)
    least, most = _table_limits(network, tail) if learnt else (network, network)
    place = {tuple(target): i for i, target in enumerate(candidates.tolist())}
    under, over = components(least, cells, candidates), components(most, cells, candidates)
    both = sparse.vstack([under, -over], format="csc")
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
    sizes: tuple[int, ...], rows: Ints, counts: Array, error: float
) -> tuple[Ints, Array, Array]:
    """Cells with simultaneous intervals of their probability: all cells, or the seen ones of a large table.

    Leaving out cells that were not seen widens the bounds.
    """
    number = float(np.prod([float(size) for size in sizes]))
    cells, seen = rows, counts
    if number <= MAX_CELLS:
        cells = np.indices(sizes).reshape(len(sizes), -1).T
        seen = np.zeros(len(cells))
        np.add.at(seen, np.ravel_multi_index(tuple(rows.T), sizes), counts)
    if not is_sample(counts):
        share = seen / seen.sum()
        return cells, share - ROUNDING, share + ROUNDING
    return cells, *_limits(seen, np.asarray(seen.sum()), error / number)


def _table_limits(network: Network, error: float) -> tuple[Network, Network]:
    """Smallest and largest probabilities that the base rows leave to every table entry, all at once."""
    assert network.base_counts is not None
    tests = sum(seen.size // (2 if seen.shape[-1] == 2 else 1) for seen in network.base_counts)
    pairs = [_limits(seen, seen.sum(axis=-1, keepdims=True), error / tests) for seen in network.base_counts]
    least, most = (tuple(pair[side] for pair in pairs) for side in (0, 1))
    return replace(network, tables=least), replace(network, tables=most)


def _limits(seen: Array, total: Array, error: float) -> tuple[Array, Array]:
    """Exact intervals of probabilities (Clopper and Pearson), each missing with this probability at most."""
    rest = total - seen
    low = np.where(seen > 0, stats.beta.ppf(error / 2, np.maximum(seen, 1), rest + 1), 0.0)
    high = np.where(rest > 0, stats.beta.isf(error / 2, seen + 1, np.maximum(rest, 1)), 1.0)
    return low, high
