"""The untouched network, its components under interventions, and sparse tables of rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

UNTOUCHED = -1
"""Entry of a target at a node that is not forced."""

PSEUDO = 1.0
"""Pseudo-rows per cell of a learnt table: the mode under the package's Dirichlet(2) prior."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A discrete Bayesian network with its nodes in topological order.

    Attributes
    ----------
    parents : tuple of tuple of int
        Parents of every node, all smaller than the node, in the order of its table's axes.
    tables : tuple of ndarray
        P(node | parents), shape (*parents' sizes, own size); rows sum to 1.
    base_counts : tuple of ndarray, optional
        Rows behind every table where it was learnt, same shapes; none where it is known.
    """

    parents: tuple[tuple[int, ...], ...]
    tables: tuple[Array, ...]
    base_counts: tuple[Array, ...] | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of every node."""
        return tuple(table.shape[-1] for table in self.tables)

    def factors(self, rows: Ints) -> Array:
        """P(value | parents) of every node in every row: (rows, nodes); rows may stop early."""
        return np.stack([self.factor(rows, i) for i in range(rows.shape[1])], axis=1)

    def factor(self, rows: Ints, node: int) -> Array:
        """P(value of one node | parents) in every row: (rows,)."""
        index = tuple(rows[:, j] for j in (*self.parents[node], node))
        return np.asarray(self.tables[node][index])


@dataclass(frozen=True, kw_only=True)
class Level:
    """The distinct beginnings of the rows up to one node.

    Attributes
    ----------
    rows : ndarray of int, shape (beginnings, node + 1)
        In lexicographic order.
    counts : ndarray of shape (beginnings,)
        Rows that begin so.
    shorter : ndarray of int, shape (beginnings,)
        Place of the beginning without its last node among those of the level before.
    """

    rows: Ints
    counts: Array
    shorter: Ints


def levels_of(rows: Ints, counts: Array) -> list[Level]:
    """Collapse a sparse table to the beginnings of its rows, node by node.

    Parameters
    ----------
    rows : ndarray of int, shape (patterns, nodes)
        Values, nodes in topological order.
    counts : ndarray of shape (patterns,)
        Rows per pattern, or probabilities.
    """
    keep = counts > 0
    order = np.lexsort(rows[keep].T[::-1])
    rows, counts = rows[keep][order], counts[keep][order]
    changed = np.ones(rows.shape, dtype=bool)
    changed[1:] = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
    out: list[Level] = []
    longer = np.zeros(len(rows), dtype=np.int64)
    for node in range(rows.shape[1]):
        starts = np.flatnonzero(changed[:, node])
        shorter = longer[starts]
        summed = np.add.reduceat(counts, starts)
        out.append(Level(rows=rows[starts, : node + 1], counts=summed, shorter=shorter))
        longer = np.cumsum(changed[:, node]) - 1
    return out


def components(network: Network, rows: Ints, targets: Ints) -> sparse.csc_array:
    """Probability of every row under every target: a sparse matrix (rows, targets).

    Parameters
    ----------
    network : Network
        The untouched network.
    rows : ndarray of int, shape (rows, nodes)
        Full rows.
    targets : ndarray of int, shape (targets, nodes)
        Forced values, `UNTOUCHED` elsewhere.
    """
    factors = network.factors(rows)
    found, values, pointer = [], [], [0]
    for target in targets:
        forced = target != UNTOUCHED
        agree = np.flatnonzero((rows[:, forced] == target[forced]).all(axis=1))
        found.append(agree)
        values.append(factors[np.ix_(agree, ~forced)].prod(axis=1))
        pointer.append(pointer[-1] + len(agree))
    return sparse.csc_array(
        (np.concatenate(values), np.concatenate(found), pointer), shape=(len(rows), len(targets))
    )


def extend(matrix: sparse.csc_array, level: Level, factor: Array, size: int) -> sparse.csc_array:
    """Lengthen the components of one level by a node: left alone, or forced to each value.

    Parameters
    ----------
    matrix : sparse array of shape (shorter beginnings, targets)
        Components of the level before.
    level : Level
        The level that is one node longer.
    factor : ndarray of shape (beginnings,)
        P(value of the new node | parents).
    size : int
        Number of values of the new node.

    Returns
    -------
    sparse array of shape (beginnings, (size + 1) * targets)
        Blocks of columns: left alone, forced to 0, to 1, ...
    """
    longer = matrix.tocsr()[level.shorter]
    value = level.rows[:, -1]
    blocks = [sparse.diags_array(factor) @ longer]
    for forced in range(size):
        blocks.append(sparse.diags_array((value == forced).astype(float)) @ longer)
    stacked = sparse.hstack(blocks, format="csc")
    stacked.eliminate_zeros()
    return sparse.csc_array(stacked)


def lengthen(targets: Ints, size: int) -> Ints:
    """Targets of the columns that `extend` returns: ((size + 1) * targets, nodes + 1)."""
    last = np.repeat(np.arange(-1, size), len(targets))
    return np.column_stack([np.tile(targets, (size + 1, 1)), last])


def table_counts(network: Network, rows: Ints, counts: Array) -> tuple[Array, ...]:
    """Rows per cell of every table, each row counting as often as ``counts`` says.

    ``counts`` may have a column per node: (rows,) or (rows, nodes).
    """
    share = np.broadcast_to(counts.reshape(len(rows), -1), (len(rows), len(network.parents)))
    out = []
    for node, above in enumerate(network.parents):
        shape = network.tables[node].shape
        cell = np.ravel_multi_index(tuple(rows[:, j] for j in (*above, node)), shape)
        seen = np.bincount(cell, weights=share[:, node], minlength=int(np.prod(shape)))
        out.append(seen.reshape(shape))
    return tuple(out)


def learn(network: Network, rows: Ints, counts: Array) -> Network:
    """Learn the tables from rows of the untouched system: the mode under Dirichlet(2) priors.

    Parameters
    ----------
    network : Network
        Gives the graph and the sizes; its tables are not used.
    rows : ndarray of int, shape (patterns, nodes)
        Values, nodes in topological order.
    counts : ndarray of shape (patterns,)
        Rows per pattern; probabilities are taken as exact, without the prior.
    """
    seen = table_counts(network, rows, counts)
    pseudo = PSEUDO if is_sample(counts) else 0.0
    kept = seen if is_sample(counts) else None
    return Network(
        parents=network.parents, tables=tuple(normalise(s + pseudo) for s in seen), base_counts=kept
    )


def normalise(table: Array) -> Array:
    """Scale the rows of a table to sum 1; a row of zeros becomes uniform."""
    total = table.sum(axis=-1, keepdims=True)
    return np.where(total > 0, table / np.where(total > 0, total, 1.0), 1.0 / table.shape[-1])


def is_sample(counts: Array) -> bool:
    """Whether counts are whole numbers of rows, so that they carry sampling error."""
    return bool((counts == np.round(counts)).all())
