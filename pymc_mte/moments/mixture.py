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
    """

    class_weight: Array
    potential_outcome: Array
    weight_by_arm: Array
    proxy_mean: Array | None
    complex_roots: NDArray[np.bool_]
    singular: NDArray[np.bool_]


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
