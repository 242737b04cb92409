"""The paper's algorithm: weights of longer targets from one configuration of the rows each."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.levels import Found
from pymc_mte.moments.interventions.network import UNTOUCHED, Level, Network, lengthen, levels_of, normalise

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

EPSILON = 1e-3
"""Smallest weight that the finite-sample form keeps by default."""

EXACT = 1e-9
"""The same in the population form: only rounding lies below."""


@dataclass(frozen=True, kw_only=True)
class _Split:
    """How the weight of every target divides at a new node."""

    forced: Array
    alone: Array


def lift(network: Network, rows: Ints, counts: Array, epsilon: float, exact: bool = False) -> Found:
    """Lift targets along the order, as Kumar and Sinha (2021) do.

    Parameters
    ----------
    network : Network
        The untouched network.
    rows : ndarray of int, shape (patterns, nodes)
        The mixture's rows, nodes in topological order.
    counts : ndarray of shape (patterns,)
        Rows per pattern, or probabilities.
    epsilon : float
        Smallest weight kept.
    exact : bool
        Use the population form: equations solved exactly, no clipping or rescaling.

    Notes
    -----
    Each weight rests on the rows of one configuration only, so errors grow with the number of
    nodes. Only the rows that occur are stored; no table over all configurations is built.

    References
    ----------
    Kumar, Sinha (2021). Disentangling mixtures of unknown causal interventions. UAI.
    """
    network = network if exact else _with_paper_tables(network)
    total = counts.sum()
    targets, weight = np.zeros((1, 0), dtype=np.int64), np.ones(1)
    excluded: tuple[int, ...] = ()
    place = np.zeros(1, dtype=np.int64)
    for node, level in enumerate(levels_of(rows, counts)):
        size = network.sizes[node]
        seen, places = _lookup(level, place, size)
        split = _solve(network, targets, weight, excluded, seen / total, epsilon, exact)
        value, forced, alone = _exclude(split)
        share = np.concatenate([alone, forced.T.ravel()])
        big = share > epsilon
        longer = lengthen(targets, size)
        last = np.where(longer[:, -1] == UNTOUCHED, value, longer[:, -1])
        place = places[np.tile(np.arange(len(targets)), size + 1), last][big]
        targets, weight, excluded = longer[big], share[big], (*excluded, value)
    return Found(targets=targets, weight=weight / weight.sum(), excluded=excluded)


def _with_paper_tables(network: Network) -> Network:
    """Use relative frequencies for learnt tables; rows with an empty cell get 1/M in every cell."""
    if network.base_counts is None:
        return network
    delta = 1.0 / max(float(network.base_counts[0].sum()), 1.0)
    filled = [
        np.where((seen == 0).any(axis=-1, keepdims=True), seen + delta, seen) for seen in network.base_counts
    ]
    return replace(network, tables=tuple(normalise(table) for table in filled))


def _lookup(level: Level, place: Ints, size: int) -> tuple[Array, Ints]:
    """Look up counts and places of the beginnings (place, value); place -1: unseen."""
    code = level.shorter * size + level.rows[:, -1]
    wanted = place[:, None] * size + np.arange(size)
    at = np.minimum(np.searchsorted(code, wanted), len(code) - 1)
    hit = (code[at] == wanted) & (place[:, None] >= 0)
    return np.where(hit, level.counts[at], 0.0), np.where(hit, at, -1)


def _solve(
    network: Network,
    targets: Ints,
    weight: Array,
    excluded: tuple[int, ...],
    seen: Array,
    epsilon: float,
    exact: bool,
) -> _Split:
    """Split all weights at the next node, smaller targets first."""
    node, size = len(excluded), seen.shape[1]
    base = np.where(targets == UNTOUCHED, np.array(excluded, dtype=np.int64), targets)
    table = network.tables[node][tuple(base[:, j] for j in network.parents[node])]
    table = np.broadcast_to(table, (len(targets), size))
    factors = network.factors(base) if node else np.ones((len(targets), 0))
    alone = weight.copy()  # until a target is solved, all of its weight counts as left alone
    forced = np.zeros((len(targets), size))
    solved: list[int] = []
    for s in np.argsort((targets != UNTOUCHED).sum(axis=1), kind="stable"):
        before = np.array(solved, dtype=np.int64)
        agree = ((targets[before] == UNTOUCHED) | (targets[before] == base[s])).all(axis=1)
        below = before[agree]
        c = np.where(targets[below] == UNTOUCHED, factors[s], 1.0).prod(axis=1)
        own = float(factors[s][targets[s] == UNTOUCHED].prod())
        rest = seen[s] - own * weight[s] * table[s] - (c @ alone[below]) * table[s] - c @ forced[below]
        found = _closed_form(rest, table[s], own) if exact else _best_zero(rest, table[s], own)
        if not exact and weight[s] - found.sum() < epsilon and found.sum() > 0:
            found = found * weight[s] / found.sum()
        forced[s], alone[s] = found, weight[s] - found.sum()
        solved.append(int(s))
    return _Split(forced=forced, alone=np.maximum(alone, 0.0))


def _closed_form(rest: Array, p: Array, own: float) -> Array:
    """Solve ``own (x - p sum(x)) = rest`` with the smallest x zero."""
    return np.asarray((rest - p * (rest / p).min()) / own)


def _best_zero(rest: Array, p: Array, own: float) -> Array:
    """Set each x to zero in turn, clip the others at zero, keep the one that fits best."""
    tried = np.maximum((rest - p * (rest / p)[:, None]) / own, 0.0)
    misfit = own * (tried - p * tried.sum(axis=1, keepdims=True)) - rest
    return np.asarray(tried[np.argmin((misfit**2).sum(axis=1))])


def _exclude(split: _Split) -> tuple[int, Array, Array]:
    """Choose the value that is forced least; what it was given by error was left alone.

    Sharing it out among the other values instead costs a tenth of recall at 1,024 rows.
    """
    value = int(np.argmin(split.forced.sum(axis=0)))
    forced = split.forced.copy()
    forced[:, value] = 0.0
    return value, forced, split.alone + split.forced[:, value]
