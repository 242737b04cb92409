"""Random networks and mixtures of interventions as in the paper's simulations."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.network import UNTOUCHED, Network

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A network and the interventions that are mixed.

    Attributes
    ----------
    network : Network
        The untouched network.
    targets : ndarray of int, shape (components, nodes)
        Forced values, `UNTOUCHED` elsewhere; all different.
    weight : ndarray of shape (components,)
        Sum 1.
    """

    network: Network
    targets: Ints
    weight: Array

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Ints, Array]:
        """Draw rows and collapse them to patterns and counts."""
        component = rng.choice(len(self.weight), size=n, p=self.weight)
        return collapse(draw_rows(self.network, self.targets[component], rng))

    def draw_base(self, n: int, rng: np.random.Generator) -> tuple[Ints, Array]:
        """Draw rows of the untouched network, collapsed."""
        free = np.full((n, len(self.network.tables)), UNTOUCHED)
        return collapse(draw_rows(self.network, free, rng))

    def population(self) -> tuple[Ints, Array]:
        """All rows with their exact probabilities."""
        from pymc_mte.moments.interventions.network import components

        sizes = self.network.sizes
        rows = np.indices(sizes).reshape(len(sizes), -1).T
        return rows, components(self.network, rows, self.targets) @ self.weight


def collapse(rows: Ints) -> tuple[Ints, Array]:
    """Distinct rows and how often each occurs."""
    order = np.lexsort(rows.T[::-1])
    ordered = rows[order]
    first = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
    return ordered[first], np.diff(np.r_[first, len(rows)]).astype(float)


def draw_rows(network: Network, forced: Ints, rng: np.random.Generator) -> Ints:
    """Draw one row per row of forced values (`UNTOUCHED`: by the network)."""
    out = np.empty(forced.shape, dtype=np.int64)
    for node, above in enumerate(network.parents):
        table = np.cumsum(network.tables[node], axis=-1)[tuple(out[:, j] for j in above)]
        uniform = rng.random(len(out))[:, None] * table[..., -1:]
        drawn = (uniform >= table[..., :-1]).sum(axis=-1)
        out[:, node] = np.where(forced[:, node] == UNTOUCHED, drawn, forced[:, node])
    return out


def random_network(nodes: int, size: int, rng: np.random.Generator) -> Network:
    """Draw a network whose edges prefer nodes that have edges already; tables are Dirichlet(2).

    The number of edges is uniform between ``nodes`` and the smaller of ``5 nodes`` and all.
    """
    pairs = np.array([(a, b) for b in range(nodes) for a in range(b)], dtype=np.int64).reshape(-1, 2)
    wanted = int(rng.integers(min(nodes, len(pairs)), min(5 * nodes, len(pairs)) + 1))
    degree = np.ones(nodes)
    chosen = np.zeros(len(pairs), dtype=bool)
    for _ in range(wanted):
        liking = np.where(chosen, 0.0, degree[pairs].prod(axis=1))
        pick = rng.choice(len(pairs), p=liking / liking.sum())
        chosen[pick] = True
        degree[pairs[pick]] += 1
    parents = tuple(tuple(int(a) for a, b in pairs[chosen] if b == node) for node in range(nodes))
    tables = tuple(rng.dirichlet(np.full(size, 2.0), size=(size,) * len(above)) for above in parents)
    return Network(parents=parents, tables=tables)


def random_mixture(
    nodes: int, size: int, rng: np.random.Generator, components: tuple[int, int] = (4, 16)
) -> Mixture:
    """Draw a network and a mixture that leaves one value of every node alone.

    Parameters
    ----------
    nodes, size : int
        Nodes, and values of each.
    rng : numpy.random.Generator
        Source of randomness.
    components : tuple of int
        Fewest and most components; the number is uniform. A target's number of nodes is uniform,
        its nodes and values too, weights are Dirichlet(2). Fewer where not so many exist.
    """
    network = random_network(nodes, size, rng)
    left_alone = rng.integers(size, size=nodes)
    wanted = int(rng.integers(components[0], components[1] + 1))
    found: set[tuple[int, ...]] = set()
    while len(found) < min(wanted, size**nodes):
        target = np.full(nodes, UNTOUCHED)
        forced = rng.permutation(nodes)[: rng.integers(nodes + 1)]
        value = rng.integers(size - 1, size=len(forced))
        target[forced] = value + (value >= left_alone[forced])
        found.add(tuple(target.tolist()))
    targets = np.array(sorted(found), dtype=np.int64)
    return Mixture(network=network, targets=targets, weight=rng.dirichlet(np.full(len(targets), 2.0)))
