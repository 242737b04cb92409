"""What every mixture estimator returns, and what can be wrong with it. NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureResult:
    """Class weights and potential outcomes per class, for one data set or a batch.

    Attributes
    ----------
    class_weight : ndarray of shape (..., classes)
        P(class); may leave [0, 1] in small samples.
    potential_outcome : ndarray of shape (..., classes, arms)
        E[Y(t) | class], in the units of the outcome.
    weight_by_arm : ndarray of shape (..., arms, classes)
        P(class | T=t).
    proxy_mean : ndarray of shape (..., classes, d_x), optional
        E[phi_X | class] in the coordinates of the features; None where a method gives none.
    complex_roots, singular : ndarray of bool, shape (...,)
        Whether the equations had no real solution, or none at all.
    operators : Operators, optional
        The matrices whose eigenvalues the potential outcomes are; None where a method forms none.
    """

    class_weight: Array
    potential_outcome: Array
    weight_by_arm: Array
    proxy_mean: Array | None
    complex_roots: NDArray[np.bool_]
    singular: NDArray[np.bool_]
    operators: "Operators | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operators:
    """Outcome operators in the subspace of the proxy profiles.

    Attributes
    ----------
    matrices : ndarray of shape (..., functions, arms, K, K)
        ``G_t(f)``: eigenvalues E[f(Y) | class, t], eigenvectors shared by all arms and functions.
    vectors : ndarray of shape (..., K, K)
        The shared eigenvectors, in columns.
    constant : ndarray of shape (..., K)
        The constant feature in the subspace.
    mean : ndarray of shape (..., K)
        E[phi_X] in the subspace.
    """

    matrices: Array
    vectors: Array
    constant: Array
    mean: Array

    def synthetic_moment(self, n_orders: int) -> Array:
        """Moments E[ E[Y(t) | class]^l ], l = 1..n_orders, without diagonalising: (..., arms, order)."""
        return _powers(self.mean, self.matrices[..., 0, :, :, :], self.constant, n_orders)

    def effect_moment(self, contrast: tuple[int, int], n_orders: int) -> Array:
        """Moments E[ effect^l ], l = 1..n_orders, without diagonalising: (..., order)."""
        b, a = contrast
        step = self.matrices[..., 0, b, :, :] - self.matrices[..., 0, a, :, :]
        return np.asarray(_powers(self.mean, step[..., None, :, :], self.constant, n_orders)[..., 0, :])

    def expectation(self) -> Array:
        """E[f(Y) | class, t] of every function: (..., functions, class, arms)."""
        k = self.vectors.shape[-1]
        inside, _ = solve_batched(self.vectors, np.broadcast_to(np.eye(k), self.vectors.shape))
        return np.asarray(np.einsum("...ui,...ftij,...ju->...fut", inside, self.matrices, self.vectors))


def _powers(mean: Array, matrices: Array, constant: Array, n_orders: int) -> Array:
    vector = np.broadcast_to(constant[..., None, :, None], (*matrices.shape[:-1], 1))
    out = []
    for _ in range(n_orders):
        vector = matrices @ vector
        out.append(np.einsum("...k,...tk->...t", mean, vector[..., 0]))
    return np.stack(out, axis=-1)


def eig_real(matrices: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Eigenvalues and a real basis of eigenvectors, for a batch of square matrices.

    Where a pair of eigenvalues is complex, their common real part is returned twice, with the real
    and imaginary parts of the eigenvector as basis: the nearest real solution.

    Returns
    -------
    values : ndarray of shape (..., k)
    vectors : ndarray of shape (..., k, k)
    complex_roots : ndarray of bool, shape (...,)
    """
    finite = np.isfinite(matrices).all(axis=(-2, -1))
    k = matrices.shape[-1]
    values, vectors = np.linalg.eig(np.where(finite[..., None, None], matrices, np.eye(k)))
    conjugate = values.imag < 0
    basis = np.where(conjugate[..., None, :], -vectors.imag, vectors.real)
    return np.asarray(values.real), basis, np.asarray((values.imag != 0).any(axis=-1))


def solve_batched(a: Array, b: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Solve ``a x = b`` for a batch; singular members give NaN and a flag."""
    with np.errstate(all="ignore"):
        condition = np.linalg.cond(np.nan_to_num(a, nan=0.0, posinf=0.0, neginf=0.0))
    singular = ~(condition < 1e14) | ~np.isfinite(a).all(axis=(-2, -1))
    safe = np.where(singular[..., None, None], np.eye(a.shape[-1]), a)
    x = np.linalg.solve(safe, b)
    return np.where(singular[..., None, None], np.nan, x), np.asarray(singular)
