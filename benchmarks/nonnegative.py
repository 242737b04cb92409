"""Non-negative CP decomposition of (Z) x (T, Y) x (X): the comparator of the paper. NumPy only."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TINY = 1e-12
"""Keeps divisors of the multiplicative updates positive."""


def three_way(columns: dict[str, NDArray[np.int64]], counts: Array, names: tuple[str, ...]) -> Array:
    """Shares of a batch of counts as tables over binary (z, 2 t + y, x): (batch, 2, 4, 2)."""
    z, t, y, x = (columns[n] for n in names)
    cell = np.ravel_multi_index((z, 2 * t + y, x), (2, 4, 2))
    out = np.zeros((len(counts), 16))
    for c in range(16):
        out[:, c] = counts[:, cell == c].sum(axis=1)
    return (out / counts.sum(axis=1, keepdims=True)).reshape(-1, 2, 4, 2)


def nonnegative_cp(tables: Array, rank: int, iterations: int) -> tuple[Array, ...]:
    """Factors of least squares under non-negativity, by multiplicative updates from a spectral start.

    Parameters
    ----------
    tables : ndarray of shape (batch, a, b, c)
        Non-negative tables.
    rank : int
        Components.
    iterations : int
        Rounds of updates; fewer leave it nearer to its start.

    Returns
    -------
    tuple of ndarray
        One factor per axis, (batch, levels, rank), not normalised.
    """
    batch = len(tables)
    factors = []
    for axis in (1, 2, 3):
        flat = np.moveaxis(tables, axis, 1).reshape(batch, tables.shape[axis], -1)
        factors.append(np.abs(np.linalg.svd(flat, full_matrices=False)[0][..., :rank]) + TINY)
    others = {0: (1, 2, "nabc,nbr,ncr->nar"), 1: (0, 2, "nabc,nar,ncr->nbr"), 2: (0, 1, "nabc,nar,nbr->ncr")}
    for _ in range(iterations):
        for place, (i, j, sums) in others.items():
            top = np.einsum(sums, tables, factors[i], factors[j], optimize=True)
            gram = np.einsum("nir,nis->nrs", factors[i], factors[i])
            gram = gram * np.einsum("nir,nis->nrs", factors[j], factors[j])
            factors[place] = factors[place] * top / (factors[place] @ gram + TINY)
    return tuple(factors)


def component_effects(factors: tuple[Array, ...]) -> dict[str, Array]:
    """Effects P(Y=1 | T=1) - P(Y=1 | T=0) and weights of the components."""
    _, ty, _ = factors
    arms = ty.reshape(len(ty), 2, 2, -1)  # (batch, t, y, component)
    mean = arms[:, :, 1] / (arms.sum(axis=2) + TINY)
    weight = np.prod([f.sum(axis=1) for f in factors], axis=0)
    return {"effect": mean[:, 1] - mean[:, 0], "class_weight": weight / weight.sum(axis=1, keepdims=True)}
