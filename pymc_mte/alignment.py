"""Matching classes across draws, replicates and estimators. NumPy and SciPy only."""

from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Array = NDArray[np.float64]

MAX_ENUMERATED = 6
"""Up to this many classes all permutations are tried at once; beyond, one assignment per draw."""

AMBIGUOUS_RATIO = 0.5
"""A match is ambiguous when its cost exceeds this share of the second-best permutation's cost."""


def match_classes(candidates: Array, pivot: Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find, per draw, which of its classes plays each class of the pivot.

    Parameters
    ----------
    candidates : ndarray of shape (draws, classes, features)
        Class descriptions on comparable scales (probabilities; means in standard deviations).
    pivot : ndarray of shape (classes, features)
        The classes to be matched.

    Returns
    -------
    order : ndarray of int, shape (draws, classes)
        ``order[d, k]`` is the draw's class that plays pivot class ``k``.
    ambiguous : ndarray of bool, shape (draws,)
        Whether another permutation fits almost as well.

    Examples
    --------
    >>> order, ambiguous = match_classes(np.array([[[0.9], [0.1]]]), np.array([[0.0], [1.0]]))
    >>> order.tolist(), ambiguous.tolist()
    ([[1, 0]], [False])
    """
    n, k, _ = candidates.shape
    cost = ((candidates[:, :, None, :] - pivot[None, None]) ** 2).sum(-1)
    cost = np.nan_to_num(cost, nan=1e6, posinf=1e6)
    if k == 1:
        return np.zeros((n, 1), dtype=np.int64), np.zeros(n, dtype=bool)
    if k > MAX_ENUMERATED:
        order = np.array([linear_sum_assignment(c.T)[1] for c in cost], dtype=np.int64).reshape(n, k)
        return order, np.zeros(n, dtype=bool)
    options = np.array(list(permutations(range(k))), dtype=np.int64)
    totals = cost[:, options, np.arange(k)].sum(-1)
    ranked = np.sort(totals, axis=1)
    return options[totals.argmin(axis=1)], ranked[:, 0] > AMBIGUOUS_RATIO * ranked[:, 1]


def take_classes(value: Array, order: NDArray[np.int64], axis: int) -> Array:
    """Reorder the class axis of an array whose first axis is the draw."""
    shape = [1] * value.ndim
    shape[0], shape[axis] = order.shape
    return np.take_along_axis(value, order.reshape(shape), axis=axis)
