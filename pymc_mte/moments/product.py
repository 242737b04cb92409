"""Mixtures of product distributions: simultaneous diagonalisation of a grouped three-way table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.mixture import solve_batched
from pymc_mte.moments.spectral import shared_eigenvectors

Array = NDArray[np.float64]
Grouping = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

MAX_GROUP_CELLS = 64
"""A group takes no further variable that would give it more cells."""

MAX_GROUPINGS = 32
"""Groupings that are tried on the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeWay:
    """A three-way table taken apart into classes.

    Attributes
    ----------
    weight : ndarray of shape (..., K)
        Class weights; unclipped.
    groups : tuple of three ndarrays of shape (..., cells, K)
        Distribution of each group of variables in each class; unclipped.
    singular_value : ndarray of shape (...,)
        K-th singular value of the table of the first two groups: zero if they do not separate K
        classes.
    gap : ndarray of shape (...,)
        Smallest distance between two classes in the third group.
    residual : ndarray of shape (...,)
        What no common eigenvectors diagonalise, relative; zero for an exact mixture.
    complex_roots : ndarray of bool, shape (...,)
        Whether the eigenvalues were complex, so that the nearest real solution is returned.
    """

    weight: Array
    groups: tuple[Array, Array, Array]
    singular_value: Array
    gap: Array
    residual: Array
    complex_roots: NDArray[np.bool_]

    @property
    def score(self) -> Array:
        """How well the grouping separates the classes: larger is better; NaN counts as zero."""
        found = np.nan_to_num(self.singular_value * self.gap)
        return np.asarray(np.where(self.complex_roots, 1e-3 * found, found))


def diagonalise(table: Array, classes: int) -> ThreeWay:
    r"""Recover a mixture of K products from the joint table of three groups.

    In the span of the first two groups the slices :math:`T_c` of the table along the third satisfy
    :math:`T_c M^{-1} = R\,\mathrm{diag}(C_c)\,R^{-1}` with one R for all c, M being their sum.

    Parameters
    ----------
    table : ndarray of shape (..., a, b, c)
        Probabilities, with any batch axes in front; a and b at least K.
    classes : int
        Number of classes K.

    Returns
    -------
    ThreeWay
        Classes in no particular order.
    """
    a, b, c = table.shape[-3:]
    lead = table.shape[:-3]
    bad = ~np.isfinite(table).all(axis=(-3, -2, -1))
    table = np.where(bad[..., None, None, None], 1.0 / (a * b * c), table)
    left, value, right = np.linalg.svd(table.sum(axis=-1), full_matrices=False)
    left, right = left[..., :classes], np.swapaxes(right[..., :classes, :], -1, -2)
    scale = value[..., :classes]
    singular = scale[..., -1] <= 1e-13 * scale[..., 0]
    slices = np.moveaxis(table, -1, -3)
    projected = np.swapaxes(left, -1, -2)[..., None, :, :] @ slices @ right[..., None, :, :]
    with np.errstate(all="ignore"):
        slices = np.nan_to_num(projected / scale[..., None, None, :])
    vectors, complex_roots = shared_eigenvectors(slices[..., None, :, :, :])
    inverse, collapsed = solve_batched(vectors, np.broadcast_to(np.eye(classes), vectors.shape))
    turned = inverse[..., None, :, :] @ slices @ vectors[..., None, :, :]
    off = turned * ~np.eye(classes, dtype=bool)
    first = left @ vectors
    with np.errstate(all="ignore"):
        first = first / first.sum(axis=-2, keepdims=True)
        rest = np.linalg.pinv(np.nan_to_num(first)) @ table.reshape(*lead, a, b * c)
        weight = rest.sum(axis=-1)
        share = (rest / weight[..., None]).reshape(*lead, classes, b, c)
    second, third = share.sum(axis=-1), share.sum(axis=-2)
    pairs = np.abs(third[..., :, None, :] - third[..., None, :, :]).max(axis=-1) + 9.0 * np.eye(classes)
    failed = (bad | singular | collapsed)[..., None]
    blank = failed[..., None]
    return ThreeWay(
        weight=np.where(failed, np.nan, weight),
        groups=(
            np.where(blank, np.nan, first),
            np.where(blank, np.nan, np.swapaxes(second, -1, -2)),
            np.where(blank, np.nan, np.swapaxes(third, -1, -2)),
        ),
        singular_value=np.where(bad, 0.0, scale[..., -1]),
        gap=np.where(failed[..., 0], 0.0, pairs.min(axis=(-2, -1)) if classes > 1 else 1.0),
        residual=np.sqrt(
            (off**2).sum(axis=(-3, -2, -1)) / np.maximum((turned**2).sum(axis=(-3, -2, -1)), 1e-300)
        ),
        complex_roots=complex_roots,
    )


def groupings(sizes: Sequence[int], classes: int, seed: int = 0) -> list[Grouping]:
    """Ways to put variables into three groups, of which the first two have at least K cells.

    Parameters
    ----------
    sizes : sequence of int
        Levels of each variable.
    classes : int
        Number of classes K.
    seed : int
        Seed of the sample that is taken when there are many.

    Returns
    -------
    list of three tuples of int
        Places of the variables, at most `MAX_GROUPINGS` of them; empty if there is no way. Variables
        that fit into no group are left out.

    Examples
    --------
    >>> groupings([2, 2, 2], 2)[0]
    ((0,), (1,), (2,))
    >>> groupings([2, 2, 2], 3)
    []
    """
    n = len(sizes)
    found: dict[frozenset[tuple[int, ...]], Grouping] = {}
    choices: Iterable[tuple[int, ...]]
    if n <= 7:
        choices = product(range(3), repeat=n)
    else:
        rng = np.random.default_rng(seed)
        choices = (tuple(row) for row in _balanced(n, rng))
    for choice in choices:
        groups: list[list[int]] = [[], [], []]
        cells = [1, 1, 1]
        for place, group in enumerate(choice):
            if not groups[group] or cells[group] * sizes[place] <= MAX_GROUP_CELLS:
                groups[group].append(place)
                cells[group] *= sizes[place]
        order = sorted(range(3), key=lambda g: -cells[g])
        if cells[order[1]] < max(classes, 2) or cells[order[2]] < 2:
            continue
        triple = (tuple(groups[order[0]]), tuple(groups[order[1]]), tuple(groups[order[2]]))
        found.setdefault(frozenset(triple), triple)
    ranked = sorted(found.values(), key=lambda g: _balance(g, sizes, classes))
    return ranked[:MAX_GROUPINGS]


def _balanced(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random assignments of n variables to three groups of nearly equal size."""
    base = np.arange(n) % 3
    return np.array([rng.permutation(base) for _ in range(4 * MAX_GROUPINGS)])


def _balance(grouping: Grouping, sizes: Sequence[int], classes: int) -> tuple[float, float]:
    """Sort key: groups that can separate all classes first, then even ones."""
    cells = [float(np.prod([sizes[i] for i in group])) for group in grouping]
    rank = sum(min(classes, c) for c in cells)
    return -rank, max(cells) / min(cells)
