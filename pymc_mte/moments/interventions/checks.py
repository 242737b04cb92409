"""Checks of the answer: zeros and rare rows in the base, misfit of the untouched mechanisms, rank."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from pymc_mte.moments.interventions.evidence import Support, left_alone
from pymc_mte.moments.interventions.network import Network, normalise, table_counts

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_ROWS = 10.0
"""Cells of a table are tested where at least this many rows are expected in them and beside them."""


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """The largest deviation of an untouched mechanism, over all cells of all tables.

    Attributes
    ----------
    node : int
        Where it is; -1 if nothing could be tested.
    z : float
        Rows in the cell minus rows expected, in standard errors.
    p_value : float
        Two-sided, corrected for the number of cells tested (Bonferroni); 1 if nothing was tested.
    """

    node: int
    z: float
    p_value: float


def mechanism_misfit(base: Network, support: Support, rows: Ints, counts: Array) -> Misfit:
    """Test whether rows that left a node alone follow its table given its parents.

    The score of each table cell: rows that left the node alone (each weighted by the probability
    that it did) against those expected, given the parents. Errors of a learnt table count too;
    that the weights were fitted does not, which makes the test conservative.

    Parameters
    ----------
    base : Network
        The untouched network, before the mixture helped to learn it.
    support : Support
        The answer, fitted with ``base``'s tables held fixed.
    rows : ndarray of int, shape (patterns, nodes)
        The mixture's rows.
    counts : ndarray of shape (patterns,)
        Rows per pattern.
    """
    alone = left_alone(support.targets, support.matrix, support.weight)
    seen = table_counts(base, rows, alone * counts[:, None])
    squares = table_counts(base, rows, alone**2 * counts[:, None])
    worst, tested = Misfit(node=-1, z=0.0, p_value=1.0), 0
    tables = base.tables if base.base_counts is None else tuple(map(normalise, base.base_counts))
    for node, table in enumerate(tables):
        n, n2 = (part[node].sum(axis=-1, keepdims=True) for part in (seen, squares))
        # variance of sum_v c_v a_v (1[v = l] - p): the rows' own, then the learnt table's
        variance = squares[node] * (1 - 2 * table) + n2 * table**2
        if base.base_counts is not None:
            learnt = base.base_counts[node].sum(axis=-1, keepdims=True)
            variance = variance + n**2 * table * (1 - table) / np.maximum(learnt, 1.0)
            enough = learnt * table * (1 - table) >= LEAST_ROWS
        else:
            enough = np.ones_like(table, dtype=bool)
        enough = enough & (n * table * (1 - table) >= LEAST_ROWS) & (variance > 0)
        z = np.where(enough, (seen[node] - n * table) / np.sqrt(np.where(enough, variance, 1.0)), 0.0)
        tested += int(enough.sum())
        far = float(z.flat[np.abs(z).argmax()])
        if abs(far) > abs(worst.z):
            worst = Misfit(node=node, z=far, p_value=1.0)
    p_value = min(1.0, tested * 2 * float(stats.norm.sf(abs(worst.z)))) if tested else 1.0
    return Misfit(node=worst.node, z=worst.z, p_value=p_value)


def smallest_base(network: Network) -> tuple[int, float, float]:
    """Node with the rarest table row, the smallest table entry, and the fewest base rows of a parent set.

    The last is infinite where the network is known.
    """
    entry = min(float(table.min()) for table in network.tables)
    if network.base_counts is None:
        node = int(np.argmin([table.min() for table in network.tables]))
        return node, entry, np.inf
    fewest = [float(seen.sum(axis=-1).min()) for seen in network.base_counts]
    return int(np.argmin(fewest)), entry, min(fewest)


def separable(matrix: sparse.csc_array) -> bool:
    """Whether the components are linearly independent on the rows that occur."""
    gram = (matrix.T @ matrix).toarray()
    scale = np.sqrt(np.diag(gram))
    if (scale == 0).any():
        return False
    return bool(np.linalg.eigvalsh(gram / np.outer(scale, scale))[0] > 1e-10)


def total_variation(matrix: sparse.csc_array, counts: Array, weight: Array) -> float:
    """Distance between observed and fitted shares over the rows that occur and the rest together."""
    fitted = matrix @ weight
    return 0.5 * float(np.abs(counts / counts.sum() - fitted).sum() + max(1.0 - fitted.sum(), 0.0))
