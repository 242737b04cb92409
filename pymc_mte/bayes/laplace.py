"""Laplace's approximation: a normal around the mode of the unconstrained posterior, fast and crude."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from pymc_mte.bayes.native import Frame

Array = NDArray[np.float64]
LogDensity = Callable[[Array], tuple[float, Array]]

STEP = 1e-4
"""Step of the differences of the gradient, which are central: their error is of order 1e-8."""

FLOOR = 1e-2
"""Smallest curvature: along a flat direction the normal gets the standard deviation 10."""


def laplace_draws(
    density: LogDensity, vectors: list[Array], draws: int, seed: int
) -> tuple[Array, Array, dict[str, float]]:
    """Climb to the mode, and draw from the normal with the inverse curvature as its covariance.

    Parameters
    ----------
    density : callable
        Log-density and gradient of an unconstrained vector.
    vectors : list of ndarray
        Starts; the highest mode that they reach is taken, and every start stands for a chain.
    draws : int
        Draws per chain.
    seed : int
        Seed of the draws.

    Returns
    -------
    drawn : ndarray of shape (chain, draw, size)
    log_density : ndarray of shape (chain, draw)
        The true one, up to its constant, at every draw.
    about : dict
        ``mode_log_density``; ``log_evidence``, the approximation's; ``flat_directions``, how many had
        no curvature; ``ess_share``, the effective share of the draws if they were reweighted to the
        posterior (near 1 where it is close to normal).
    """
    mode, value, basis = mode_and_curvature(density, vectors)
    size, spread = len(mode), 1 / np.sqrt(np.maximum(value, FLOOR))
    normal = np.random.default_rng(seed).normal(size=(len(vectors), draws, size))
    drawn = mode + (normal * spread) @ basis.T
    log_density = np.array([[density(x)[0] for x in chain] for chain in drawn])
    own = -0.5 * (normal**2).sum(axis=-1)
    excess = log_density - density(mode)[0] - own
    weight = np.exp(excess - excess.max())
    about = {
        "mode_log_density": density(mode)[0],
        "log_evidence": float(density(mode)[0] + 0.5 * size * np.log(2 * np.pi) + np.log(spread).sum()),
        "flat_directions": int((value < FLOOR).sum()),
        "ess_share": float(weight.sum() ** 2 / (weight**2).sum() / weight.size),
    }
    return drawn, log_density, about


def mode_and_curvature(density: LogDensity, vectors: list[Array]) -> tuple[Array, Array, Array]:
    """Climb from some vectors; give the highest mode with the curvature's eigenvalues and -vectors there."""
    settings = {"jac": True, "method": "L-BFGS-B", "options": {"maxiter": 5_000}}
    found = [minimize(lambda x: _negative(density, x), start, **settings) for start in vectors]
    mode = min(found, key=lambda result: float(result.fun)).x
    steps = STEP * np.eye(len(mode))
    curvature = -np.stack([density(mode + h)[1] - density(mode - h)[1] for h in steps]) / (2 * STEP)
    if not np.isfinite(curvature).all():
        return mode, np.full(len(mode), np.nan), np.eye(len(mode))
    value, basis = np.linalg.eigh((curvature + curvature.T) / 2)
    return mode, value, basis


def normal_frame(density: LogDensity, start: Array) -> Frame | None:
    """Find coordinates in which the posterior around the mode is a standard normal.

    None where the density is not finite around the mode. Whatever the frame, a sampler draws from the
    same posterior; in this one it needs fewer steps.
    """
    mode, value, basis = mode_and_curvature(density, [start])
    if not (np.isfinite(mode).all() and np.isfinite(value).all()):
        return None
    spread = 1 / np.sqrt(np.maximum(value, FLOOR))
    return Frame(np.ascontiguousarray(mode), np.ascontiguousarray(basis * spread))


def _negative(density: LogDensity, x: Array) -> tuple[float, Array]:
    value, gradient = density(x)
    return (-value, -gradient) if np.isfinite(value) else (1e300, np.zeros_like(gradient))
