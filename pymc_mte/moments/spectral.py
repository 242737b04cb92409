"""The spectral estimator: one subspace for all arms, shared eigenvectors. NumPy only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.features import Moments
from pymc_mte.moments.mixture import MixtureResult, Operators, eig_real, solve_batched

Array = NDArray[np.float64]

N_DIRECTIONS = 16
"""Linear combinations of the matrices tried for the first eigenvectors."""

N_REFINEMENTS = 4
"""First-order joint diagonalisation steps; they converge quadratically."""


def spectral(
    moments: Moments,
    classes: int,
    scales: Array | None = None,
    diagonalised: tuple[int, ...] = (0,),
    anchors: Sequence[int] | None = None,
) -> MixtureResult:
    r"""Recover the mixture by joint diagonalisation in the shared proxy subspace.

    The top K right singular vectors V of the stacked moments span the proxy profiles of the
    classes. There :math:`G_t(f) = (M_t V)^+ N_t(f) V` has the eigenvalues
    :math:`E[f(Y) \mid u, t]` and the same eigenvectors for every arm and function of the outcome.

    Parameters
    ----------
    moments : Moments
        Moments of whitened features, with any batch axes in front.
    classes : int
        Number of classes K; at most the number of features on each side.
    scales : ndarray of shape (functions,), optional
        Standard deviations of the functions of the outcome, which weigh equally after division.
    diagonalised : tuple of int
        Functions of the outcome that the shared eigenvectors are found from.
    anchors : sequence of int, optional
        Arms that the classes are found from; all by default. An arm that some class (almost)
        never gets would spoil the others.

    Returns
    -------
    MixtureResult
        Unclipped: weights may leave [0, 1] and means the range of the outcome in small samples.

    Notes
    -----
    Truncation to rank K before any inverse is what separates it from the textbook estimator when
    there are more features than classes.
    """
    m, n = moments.m, moments.n
    scales = np.ones(n.shape[-4]) if scales is None else scales
    arms, dz, dx = m.shape[-3:]
    used = list(range(arms)) if anchors is None else list(anchors)
    stacked = m[..., used, :, :].reshape(*m.shape[:-3], len(used) * dz, dx)
    basis = np.swapaxes(np.linalg.svd(stacked, full_matrices=False)[2][..., :classes, :], -1, -2)
    projected = m @ basis[..., None, :, :]
    inverse = np.linalg.pinv(projected, rcond=1e-13)
    g = inverse[..., None, :, :, :] @ (n @ basis[..., None, None, :, :])
    chosen = g[..., list(diagonalised), :, :, :] / scales[list(diagonalised), None, None, None]
    vectors, complex_roots = shared_eigenvectors(chosen[..., used, :, :])
    inside, singular = solve_batched(vectors, np.broadcast_to(np.eye(classes), vectors.shape))
    outcome = np.einsum("...ui,...tij,...ju->...ut", inside, g[..., 0, :, :, :], vectors)
    profile = inside @ np.swapaxes(basis, -1, -2)
    with np.errstate(all="ignore"):
        profile = profile / profile[..., :1]
    by_arm = np.stack([_weights(profile, moments.mean_x_by_arm[..., t, :]) for t in range(arms)], axis=-2)
    return MixtureResult(
        class_weight=_weights(profile, moments.mean_x),
        potential_outcome=outcome,
        weight_by_arm=by_arm,
        proxy_mean=profile,
        complex_roots=complex_roots,
        singular=singular,
        operators=Operators(
            matrices=g,
            vectors=vectors,
            constant=basis[..., 0, :],
            mean=np.einsum("...j,...jk->...k", moments.mean_x, basis),
        ),
    )


def _weights(profile: Array, mean: Array) -> Array:
    """Least-squares class weights that sum to 1: ``mean = profile' weights``."""
    k = profile.shape[-2]
    system = np.zeros((*profile.shape[:-2], k + 1, k + 1))
    system[..., :k, :k] = profile @ np.swapaxes(profile, -1, -2)
    system[..., :k, k] = system[..., k, :k] = 1.0
    right = np.ones((*profile.shape[:-2], k + 1, 1))
    right[..., :k, 0] = np.einsum("...uj,...j->...u", profile, mean)
    return solve_batched(system, right)[0][..., :k, 0]


def _directions(count: int, members: int) -> Array:
    """Spread out fixed unit vectors: half a circle for two matrices, else a seeded sample."""
    if members == 1:
        return np.ones((1, 1))
    if members == 2:
        angle = np.pi * np.arange(count) / count
        return np.column_stack([np.cos(angle), np.sin(angle)])
    sample = np.random.default_rng(0).normal(size=(2 * count, members))
    return np.asarray(sample / np.linalg.norm(sample, axis=1, keepdims=True))


def shared_eigenvectors(g: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Vectors that diagonalise all of ``g`` (..., functions, arms, k, k) as nearly as possible."""
    k = g.shape[-1]
    g = g.reshape(*g.shape[:-4], -1, k, k)
    trace = np.trace(g, axis1=-2, axis2=-1)[..., None, None] / k
    centred = np.nan_to_num(g - trace * np.eye(k))
    size = np.linalg.norm(centred, axis=(-2, -1), keepdims=True)
    scaled = centred / np.maximum(size.max(axis=-3, keepdims=True), 1e-300)
    directions = _directions(N_DIRECTIONS, g.shape[-3])
    combined = np.einsum("cm,...mij->...cij", directions, scaled)
    values, vectors, is_complex = eig_real(combined)
    gap = np.abs(values[..., :, None] - values[..., None, :]) + 1e9 * np.eye(k)
    with np.errstate(all="ignore"):
        condition = np.linalg.cond(vectors)
    score = gap.min(axis=(-2, -1)) / np.where(np.isfinite(condition), condition, np.inf)
    score = np.where(is_complex, -1.0, score)
    best = score.argmax(axis=-1)
    chosen = np.take_along_axis(vectors, best[..., None, None, None], axis=-3)[..., 0, :, :]
    none_real = is_complex.all(axis=-1)
    refined = _refine(scaled, chosen)
    return np.where(none_real[..., None, None], chosen, refined), none_real


def _refine(g: Array, vectors: Array) -> Array:
    """Least-squares joint diagonalisation by first-order steps from approximate eigenvectors."""
    k = g.shape[-1]
    off = ~np.eye(k, dtype=bool)
    for _ in range(N_REFINEMENTS):
        inverse, singular = solve_batched(vectors, np.broadcast_to(np.eye(k), vectors.shape))
        turned = np.nan_to_num(inverse[..., None, :, :] @ g @ vectors[..., None, :, :])
        diagonal = np.diagonal(turned, axis1=-2, axis2=-1)
        gap = diagonal[..., :, None] - diagonal[..., None, :]
        numerator = -(turned * gap).sum(axis=-3)
        denominator = (gap**2).sum(axis=-3)
        step = np.where(
            off & (denominator > 1e-12),
            numerator / np.where(denominator > 1e-12, denominator, 1.0),
            0.0,
        )
        step = np.clip(step, -0.5, 0.5)
        updated = vectors @ (np.eye(k) + step)
        updated /= np.linalg.norm(updated, axis=-2, keepdims=True)
        vectors = np.where(singular[..., None, None], vectors, updated)
    return vectors
