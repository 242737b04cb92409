"""Linear systems at a rank, with gradients, and weighted orthonormal bases. NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DEPENDENT = 1e-8
"""A column whose part outside the earlier ones is relatively smaller than this repeats them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedSolution:
    """``e' pinv_r(M) b`` for several ``e``, with its gradients.

    Attributes
    ----------
    value : ndarray of shape (..., targets)
        The functionals.
    by_target : ndarray of shape (..., targets, d_z)
        Gradient by b: coefficients of the treatment bridge.
    by_moments : ndarray of shape (..., targets, d_z, d_x)
        Gradient by M, the turning of the kept directions included.
    coefficients : ndarray of shape (..., d_x)
        Gradient by e: coefficients of the outcome bridge.
    """

    value: Array
    by_target: Array
    by_moments: Array
    coefficients: Array


def truncated_solution(m: Array, b: Array, e: Array, rank: int) -> TruncatedSolution:
    """Solve ``M a = b`` at a rank and differentiate ``e . a``.

    Parameters
    ----------
    m : ndarray of shape (..., d_z, d_x)
        Moments.
    b : ndarray of shape (..., d_z)
        Right-hand sides.
    e : ndarray of shape (..., targets, d_x)
        Functionals of the solution.
    rank : int
        Singular values kept.
    """
    dz, dx = m.shape[-2:]
    k = max(dz, dx)
    left, singular, right = np.linalg.svd(m)
    lead = [(0, 0)] * (m.ndim - 1)
    u, v = np.pad(left, [*lead, (0, k - dz)]), np.pad(np.swapaxes(right, -1, -2), [*lead, (0, k - dx)])
    s = np.pad(singular, [*lead[1:], (0, k - min(dz, dx))])
    kept = (np.arange(k) < min(rank, dz, dx)) & (s > 1e-14)
    inverse = np.divide(1.0, s, out=np.zeros_like(s), where=kept)
    ub, ve = np.einsum("...zk,...z->...k", u, b), np.einsum("...xk,...tx->...tk", v, e)
    solved, adjoint = inverse * ub, inverse[..., None, :] * ve
    # Perturbed moments turn the kept directions j towards the left-out ones i: first-order theory of
    # singular subspaces. Both terms vanish where nothing is left out.
    square = s**2
    gap = square[..., None, :] - square[..., :, None]
    pairs = ~kept[..., :, None] & kept[..., None, :] & (gap > 0)
    weight = np.divide(1.0, gap, out=np.zeros_like(gap), where=pairs)[..., None, :, :]
    turn_v = weight * ve[..., :, None] * solved[..., None, None, :]
    turn_u = weight * ub[..., None, :, None] * adjoint[..., None, :]
    si, sj = s[..., None, :, None], s[..., None, None, :]
    inner = -adjoint[..., :, None] * solved[..., None, None, :]
    inner = inner + si * turn_v + sj * turn_u + np.swapaxes(sj * turn_v + si * turn_u, -1, -2)
    return TruncatedSolution(
        value=np.einsum("...tk,...k->...t", ve, solved),
        by_target=np.einsum("...zk,...tk->...tz", u, adjoint),
        by_moments=np.einsum("...zk,...tkl,...xl->...tzx", u, inner, v),
        coefficients=np.einsum("...xk,...k->...x", v, solved),
    )


def matrix(columns: Array) -> Array:
    """Shape one column or several as (rows, columns)."""
    return np.asarray(columns, dtype=float).reshape(len(columns), -1)


def partial(columns: Array, on: Array, share: Array) -> Array:
    """Take the residuals of a weighted regression; dependent regressors do no harm."""
    return beyond(columns, on @ independent(on, share), share)


def beyond(columns: Array, basis: Array, share: Array) -> Array:
    """Residuals of columns given an orthonormal basis; what is nothing but rounding becomes 0."""
    rest = columns - basis @ (basis.T @ (share[:, None] * columns))
    rest -= basis @ (basis.T @ (share[:, None] * rest))  # once more: rounding of large parts
    size, left = share @ columns**2, share @ rest**2
    return np.asarray(np.where(left > DEPENDENT**2 * size, rest, 0.0))


def independent(columns: Array, share: Array) -> Array:
    """Map columns to an orthonormal basis in their order, leaving out columns that repeat earlier ones."""
    rows = np.flatnonzero(share)
    weighted = np.sqrt(share[rows])[:, None] * columns[rows]
    scale = np.linalg.norm(weighted, axis=0)
    scale[scale == 0] = 1.0
    r = np.linalg.qr(weighted / scale, mode="r")
    keep = np.flatnonzero(np.abs(np.diagonal(r)) > DEPENDENT)
    if len(keep) < columns.shape[1]:
        r = np.linalg.qr(weighted[:, keep] / scale[keep], mode="r")
    out = np.zeros((columns.shape[1], len(keep)))
    out[keep] = np.linalg.inv(r * np.sign(np.diagonal(r))[:, None]) / scale[keep, None]
    return out
