"""Weights of given components by maximum likelihood: a concave problem, solved to the end."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, sparse

Array = NDArray[np.float64]

WARM_UP = 8
"""EM steps before the first Newton step, which wants weights of about the right size."""

MAX_STEPS = 60

RIDGE = 1e-10
"""Relative to the information's mean diagonal: keeps components that coincide from stopping it."""

STALL = 1e-10
"""Below this gap per row a step that does not halve it only moves rounding errors."""

ROUNDING, SHORTEST = 1e-14, 1e-8

UNSEEN = 1e-12
"""Probability given to a row that no component can produce."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Maximum-likelihood weights.

    Attributes
    ----------
    weight : ndarray of shape (components,)
        Non-negative, sum 1.
    log_likelihood : float
        In nats, for all rows together.
    gap : float
        No other weights gain more than this, in nats.
    """

    weight: Array
    log_likelihood: float
    gap: float


def fit_weights(
    matrix: sparse.csc_array, counts: Array, start: Array | None = None, tolerance: float = 1e-6
) -> Weights:
    r"""Maximise :math:`\sum_v c_v \log(L w)_v` over weights.

    A few EM steps, then Newton steps under the constraint :math:`w \ge 0`: each maximises the
    quadratic expansion, as a non-negative least-squares problem.

    Parameters
    ----------
    matrix : sparse array of shape (rows, components)
        Probability of each row under each component.
    counts : ndarray of shape (rows,)
        Rows of each kind, or probabilities.
    start : ndarray of shape (components,), optional
        Where to begin; equal weights by default.
    tolerance : float
        Stop when no weights can gain more than this many nats.

    Examples
    --------
    >>> two = sparse.csc_array(np.array([[0.9, 0.2], [0.1, 0.8]]))
    >>> fit_weights(two, np.array([55.0, 45.0])).weight.round(6).tolist()
    [0.5, 0.5]
    """
    total = float(counts.sum())
    rows = matrix.tocsr()
    size = rows.shape[1]
    weight = np.full(size, 1.0 / size) if start is None else np.maximum(start, 1e-3 / size)
    weight = weight / weight.sum()
    covered = np.asarray(rows.sum(axis=1)).ravel() > 0
    lost = float(counts[~covered].sum())
    if lost == total:
        return Weights(weight=weight, log_likelihood=total * np.log(UNSEEN), gap=0.0)
    rows = rows if covered.all() else rows[covered]
    share = counts[covered] / counts[covered].sum()
    across = rows.T.tocsr()
    for _ in range(WARM_UP):
        weight = weight * (across @ (share / (rows @ weight)))
    gap = np.inf
    for _ in range(MAX_STEPS):
        mean = rows @ weight
        slope = across @ (share / mean)
        last, gap = gap, float(slope.max() - 1.0) * total
        if gap <= tolerance or (gap < STALL * total and gap > last / 2):
            break
        target = _newton_target(rows, share, mean, slope)
        weight = _line_search(rows, share, weight, target)
    weight = weight / weight.sum()
    log_likelihood = (total - lost) * float(share @ np.log(rows @ weight)) + lost * np.log(UNSEEN)
    return Weights(weight=weight, log_likelihood=log_likelihood, gap=gap)


def large(weight: Array, smallest: float) -> NDArray[np.bool_]:
    """Which weights are kept: those above the smallest one, and never none."""
    return np.asarray(weight > min(smallest, weight.max() / 2))


def _newton_target(rows: sparse.csr_array, share: Array, mean: Array, slope: Array) -> Array:
    """Maximiser of the quadratic expansion over non-negative weights.

    With information H and slope g, H w = g, so it minimises v'Hv/2 - v'(2g - 1).
    """
    scaled = sparse.diags_array(np.sqrt(share) / mean) @ rows
    information = (scaled.T @ scaled).toarray()
    information[np.diag_indices_from(information)] += RIDGE * np.trace(information) / len(slope)
    root = linalg.cholesky(information)
    wanted = linalg.solve_triangular(root, 2 * slope - 1, trans="T")
    try:
        return np.asarray(optimize.nnls(root, wanted, maxiter=20 * len(slope))[0])
    except RuntimeError:
        return np.asarray(np.maximum(linalg.solve_triangular(root, wanted), 0.0))


def _line_search(rows: sparse.csr_array, share: Array, weight: Array, target: Array) -> Array:
    """Halve the step until the likelihood does not fall by more than rounding."""

    def level(tried: Array) -> float:
        mean = rows @ tried
        return float(share @ np.log(mean) - tried.sum()) if (mean > 0).all() else -np.inf

    before = level(weight)
    before -= ROUNDING * abs(before)
    step = 1.0
    while step > SHORTEST:
        tried = weight + step * (target - weight)
        if level(tried) >= before:
            return tried
        step /= 2
    return weight
