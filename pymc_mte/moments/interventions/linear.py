"""Linear structural equations with normal errors: learning them, and a test of the graph."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

FALSE_ALARMS = 0.05
"""Stated rate of false alarms of all tests of the graph together. With base rows at hand they are two, on the
base rows alone and on all rows, each at half of this level."""


NARROWEST = 1e-3
"""Smallest standard deviation of a forced value, in error standard deviations of its node: a value
that never varies has no density."""


@dataclass(frozen=True, kw_only=True)
class LinearNetwork:
    """Linear structural equations with independent normal errors.

    Attributes
    ----------
    parents : tuple of tuple of int
        Parents of every node, all smaller than the node.
    intercept : ndarray of shape (nodes,)
        In the units of the node.
    coefficient : ndarray of shape (nodes, nodes)
        Entry (i, j): change of node i per unit of its parent j; 0 where there is no edge.
    sd : ndarray of shape (nodes,)
        Standard deviation of the errors.
    unit : ndarray of shape (nodes,), optional
        Fixed scale of the nodes, where ``sd`` is learnt again: as it was first learnt.
    """

    parents: tuple[tuple[int, ...], ...]
    intercept: Array
    coefficient: Array
    sd: Array
    unit: Array | None = None

    @property
    def narrowest(self) -> Array:
        """Smallest standard deviation of forced values.

        A share of a fixed unit: a floor that followed ``sd`` would let values that never vary reward
        whatever makes ``sd`` smaller.
        """
        return NARROWEST * (self.sd if self.unit is None else self.unit)

    def residuals(self, rows: Array) -> Array:
        """Errors in standard deviations: independent standard normals in the untouched system."""
        return np.asarray((rows - self.intercept - rows @ self.coefficient.T) / self.sd)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Weighted sums over some rows, all that a linear equation needs of them.

    Attributes
    ----------
    n : float
        Sum of the weights.
    mean : ndarray of shape (nodes,)
        Weighted mean.
    scatter : ndarray of shape (nodes, nodes)
        Weighted sum of products of deviations from the mean.
    """

    n: float
    mean: Array
    scatter: Array

    def __add__(self, other: "Moments") -> "Moments":
        """Join two sets of rows."""
        n = max(self.n + other.n, 1e-300)
        apart = other.mean - self.mean
        return Moments(
            n=self.n + other.n,
            mean=self.mean + apart * (other.n / n),
            scatter=self.scatter + other.scatter + np.outer(apart, apart) * (self.n * other.n / n),
        )


def moments_of(rows: Array, weight: Array | None = None) -> Moments:
    """Sum rows, each counting as often as its weight says."""
    weight = np.ones(len(rows)) if weight is None else weight
    n = float(weight.sum())
    mean = weight @ rows / max(n, 1e-300)
    apart = rows - mean
    return Moments(n=n, mean=mean, scatter=(apart * weight[:, None]).T @ apart)


def regress(scatter: Array, node: int, above: Sequence[int]) -> tuple[Array, float]:
    """Slopes of a node on its parents, and the sum of squares that they leave."""
    own = float(scatter[node, node])
    if not above:
        return np.zeros(0), own
    place = list(above)
    slope = np.linalg.lstsq(scatter[np.ix_(place, place)], scatter[place, node])[0]
    return slope, max(own - float(scatter[place, node] @ slope), 1e-12 * own)


def learn_linear(
    parents: Sequence[tuple[int, ...]], rows: Array, counts: Array | None = None
) -> LinearNetwork:
    """Learn the equations from rows of the untouched system, by maximum likelihood.

    Parameters
    ----------
    parents : sequence of tuple of int
        The known graph, nodes in topological order.
    rows : ndarray of shape (rows, nodes)
        Values in the nodes' units.
    counts : ndarray of shape (rows,), optional
        How often each row occurred.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> a = rng.normal(size=1_000)
    >>> found = learn_linear([(), (0,)], np.column_stack([a, 2 * a + rng.normal(size=1_000)]))
    >>> found.coefficient.round(1).tolist()
    [[0.0, 0.0], [2.0, 0.0]]
    """
    seen = moments_of(rows, counts)
    nodes = len(parents)
    intercept, sd, coefficient = np.zeros(nodes), np.ones(nodes), np.zeros((nodes, nodes))
    for node, above in enumerate(parents):
        slope, left = regress(seen.scatter, node, above)
        coefficient[node, list(above)] = slope
        intercept[node] = seen.mean[node] - seen.mean @ coefficient[node]
        sd[node] = np.sqrt(left / seen.n)
    return LinearNetwork(parents=tuple(parents), intercept=intercept, coefficient=coefficient, sd=sd, unit=sd)


def missing_edge(network: LinearNetwork, rows: Array, counts: Array | None = None) -> tuple[int, int, float]:
    """Test the graph on rows of the untouched system: errors must not depend on earlier nodes.

    Parameters
    ----------
    network : LinearNetwork
        Learnt from these rows.
    rows : ndarray of shape (rows, nodes)
        Values in the nodes' units.
    counts : ndarray of shape (rows,), optional
        How often each row occurred.

    Returns
    -------
    tuple of (int, int, float)
        The pair of nodes (earlier, later) without an edge whose errors are most correlated, and its
        p-value, corrected for all pairs (Bonferroni); (-1, -1, 1.0) if every pair has an edge.
    """
    seen = moments_of(network.residuals(rows), counts)
    scale = np.sqrt(np.diag(seen.scatter))
    worst, pairs = (-1, -1, 1.0), 0
    for later, above in enumerate(network.parents):
        for earlier in (j for j in range(later) if j not in above):
            pairs += 1
            r = float(seen.scatter[earlier, later] / (scale[earlier] * scale[later]))
            p = 2 * float(stats.norm.sf(abs(np.arctanh(r)) * np.sqrt(seen.n - 3)))
            if p < worst[2]:
                worst = (earlier, later, p)
    return (*worst[:2], min(1.0, worst[2] * max(pairs, 1)))
