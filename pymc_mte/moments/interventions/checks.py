"""Checks of the answer: zeros and rare rows in the base, misfit of the untouched mechanisms, rank."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special, stats

from pymc_mte.moments.interventions.evidence import Support, left_alone
from pymc_mte.moments.interventions.network import Network, normalise, table_counts

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

RARE_ROWS = 5.0
"""Fewer base rows for some values of a variable's parents are called rare."""

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
        The deviation in standard errors; positive where the value is more frequent than expected.
    p_value : float
        Two-sided, corrected for the number of cells tested (Bonferroni); 1 if nothing was tested.
    """

    node: int
    z: float
    p_value: float


def mechanism_misfit(base: Network, support: Support, rows: Ints, counts: Array) -> Misfit:
    """Test whether rows that left a node alone follow its table given its parents.

    For each table cell: the share of the value among rows that left the node alone (each weighted by
    the probability that it did) against the table or, where the table was learnt, against the base
    rows behind it. By the signed root of the likelihood ratio, whose tails hold in thin cells and
    where the base has fewer rows than the mixture; a difference over its estimated standard error
    raised false alarms in 14% of clean mixtures of 12 nodes. Weighted sums vary less than the whole
    rows that they are taken for, and the weights were fitted: both make the test conservative.

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
    worst, tested = Misfit(node=-1, z=0.0, p_value=1.0), 0
    for node, table in enumerate(base.tables):
        learnt = None if base.base_counts is None else base.base_counts[node]
        z, enough = _deviation(seen[node], seen[node].sum(axis=-1, keepdims=True), table, learnt)
        tested += int(enough.sum())
        far = float(z.flat[np.abs(z).argmax()])
        if abs(far) > abs(worst.z):
            worst = Misfit(node=node, z=far, p_value=1.0)
    p_value = min(1.0, tested * 2 * float(stats.norm.sf(abs(worst.z)))) if tested else 1.0
    return Misfit(node=worst.node, z=worst.z, p_value=p_value)


def _deviation(seen: Array, n: Array, table: Array, learnt: Array | None) -> tuple[Array, NDArray[np.bool_]]:
    """Signed root of the likelihood ratio in every cell, 0 where too few rows are expected.

    ``seen`` of ``n`` rows against probabilities, or against rows that they were ``learnt`` from.
    """
    if learnt is None:
        ratio, p, fewest = _surprise(seen, n, table), table, n
    else:
        n_learnt = learnt.sum(axis=-1, keepdims=True)
        p = (seen + learnt) / np.maximum(n + n_learnt, 1.0)
        ratio = _surprise(seen, n, p) + _surprise(learnt, n_learnt, p)
        fewest = np.minimum(n, n_learnt)
    enough = fewest * p * (1 - p) >= LEAST_ROWS
    z = np.sign(seen - n * p) * np.sqrt(2 * np.maximum(ratio, 0.0))
    return np.where(enough, z, 0.0), enough


def _surprise(seen: Array, n: Array, p: Array) -> Array:
    """Log-likelihood ratio of the observed share against the share p, in nats."""
    inside = np.clip(p, 1e-300, 1 - 1e-16)
    rest, expected = np.maximum(n - seen, 0.0), n * inside
    some = np.where(expected > 0, expected, 1.0)
    gain = special.xlogy(seen, seen / some)
    return np.asarray(gain + special.xlogy(rest, rest / np.where(n > 0, n * (1 - inside), 1.0)))


def smallest_base(network: Network) -> tuple[int, float, float]:
    """Rarest node, smallest share of a value given its parents, fewest base rows for given parents.

    Shares of the base rows as they are, without a prior. The number of rows is infinite where the network
    is known. The node is the one with the fewest rows or, where those are enough, the smallest share.
    """
    if network.base_counts is None:
        entries = [float(table.min()) for table in network.tables]
        return int(np.argmin(entries)), min(entries), np.inf
    entries = [float(normalise(seen).min()) for seen in network.base_counts]
    fewest = [float(seen.sum(axis=-1).min()) for seen in network.base_counts]
    node = int(np.argmin(fewest if min(fewest) < RARE_ROWS else entries))
    return node, min(entries), min(fewest)


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
