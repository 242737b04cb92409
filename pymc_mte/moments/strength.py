"""Proxy strength: canonical correlations between the two sides, per arm. NumPy and SciPy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.moments.adjusted import adjusted_cross, inverse_root
from pymc_mte.moments.bootstrap import replicate
from pymc_mte.moments.problem import Problem
from pymc_mte.status import Note, Status

Array = NDArray[np.float64]

COPIES = 0.99
"""Beyond this canonical correlation two proxies are taken for copies of each other."""

LEVEL = 0.05
"""A canonical correlation counts as more than noise below this p-value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStrength:
    """Canonical correlations of the proxies within one arm.

    Attributes
    ----------
    arm : int
        Level number of the arm.
    n : float
        Rows in the arm.
    correlation : ndarray of shape (directions,)
        Canonical correlations, largest first; the constant is left out.
    se : ndarray of shape (directions,)
        Bootstrap standard deviations (NaN without replicates).
    p_value : ndarray of shape (directions,)
        Bartlett's test that this and all smaller correlations are zero.
    """

    arm: int
    n: float
    correlation: Array
    se: Array
    p_value: Array


def proxy_strength(problem: Problem, n_boot: int, rng: np.random.Generator) -> tuple[ArmStrength, ...]:
    """Measure the proxies in every arm that occurs.

    Parameters
    ----------
    problem : Problem
        Features of both sides.
    n_boot : int
        Bootstrap replicates for the standard deviations.
    rng : numpy.random.Generator
        Source of the resamples.

    References
    ----------
    .. [1] Bartlett, M. S. (1941). The statistical significance of canonical correlations.
       Biometrika 32, 29-37.
    """
    point = _correlations(problem, problem.counts[None])[0]
    if n_boot:
        draws = replicate(problem.sampling, n_boot, rng, lambda c: {"r": _correlations(problem, c)})["r"]
        spread = draws.std(axis=0, ddof=1)
    else:
        spread = np.full_like(point, np.nan)
    arm = np.asarray(problem.columns[str(problem.model.treatment)])
    given = 0 if problem.covariates is None else problem.covariates.shape[1]
    out = []
    for i, t in enumerate(problem.arms):
        n = float(problem.counts[arm == t].sum())
        dz, dx = problem.z.values.shape[1] - 1, problem.x.values.shape[1] - 1
        out.append(
            ArmStrength(
                arm=t,
                n=n,
                correlation=point[i],
                se=spread[i],
                p_value=_bartlett(point[i], n - given, dz, dx),
            )
        )
    return tuple(out)


def _bartlett(correlation: Array, n: float, dz: int, dx: int) -> Array:
    gain = -np.log1p(-(np.minimum(correlation, 1 - 1e-12) ** 2))
    scale = max(n - 1 - (dz + dx + 1) / 2, 0.0)
    out = []
    for i in range(len(correlation)):
        out.append(stats.chi2.sf(scale * gain[i:].sum(), (dz - i) * (dx - i)))
    return np.array(out)


def strength_notes(problem: Problem, strength: tuple[ArmStrength, ...]) -> list[Note]:
    """Alarms about proxies that are too weak for the model's classes, or too good to be true.

    Arms that lack positivity have their own alarm and are left out here.
    """
    model, notes = problem.model, []
    last = model.classes - 2
    for arm in strength:
        if problem.arms.index(arm.arm) not in problem.anchors:
            continue
        label = f"{model.treatment} = {model.arms[arm.arm]}"
        if 0 <= last < len(arm.correlation) and not arm.p_value[last] < LEVEL:
            value, p = arm.correlation[last], arm.p_value[last]
            detail = f"canonical correlation {last + 1} is {value:.3f} (p = {p:.2g})"
            notes.append(Note(Status.WEAK_PROXIES, label, detail))
        if len(arm.correlation) and arm.correlation[0] > COPIES:
            notes.append(
                Note(Status.DIRECT_DEPENDENCE, label, f"canonical correlation 1 is {arm.correlation[0]:.3f}")
            )
    supported = supported_classes(strength)
    if supported > model.classes:
        detail = f"{supported} classes supported in every arm, {model.classes} assumed"
        notes.append(Note(Status.MORE_DIRECTIONS, "proxies", detail))
    return notes


def supported_classes(strength: tuple[ArmStrength, ...]) -> int:
    """Count the classes that the proxies tell from noise in every arm."""
    if not strength:
        return 1
    per_arm = [int(np.cumprod(arm.p_value < LEVEL).sum()) for arm in strength]
    return 1 + min(per_arm)


def _correlations(problem: Problem, counts: Array) -> Array:
    """Canonical correlations per replicate and arm, given covariates: (replicates, arms, directions)."""
    if problem.covariates is not None:
        cross = adjusted_cross(problem.grams(counts))
        return np.clip(np.linalg.svd(cross, compute_uv=False), 0.0, 1.0)
    arm = np.asarray(problem.columns[str(problem.model.treatment)])
    z, x = problem.z.values[:, 1:], problem.x.values[:, 1:]
    both = np.concatenate([z, x], axis=1)
    d, dz = both.shape[1], z.shape[1]
    out = np.zeros((len(counts), len(problem.arms), min(dz, d - dz)))
    for i, t in enumerate(problem.arms):
        rows = arm == t
        part = counts[:, rows]
        share = part / np.maximum(part.sum(axis=1, keepdims=True), 1e-300)
        mean = share @ both[rows]
        products = (both[rows, :, None] * both[rows, None, :]).reshape(-1, d * d)
        cov = (share @ products).reshape(-1, d, d) - mean[:, :, None] * mean[:, None, :]
        cross = inverse_root(cov[:, :dz, :dz]) @ cov[:, :dz, dz:] @ inverse_root(cov[:, dz:, dz:])
        out[:, i] = np.clip(np.linalg.svd(cross, compute_uv=False), 0.0, 1.0)
    return out
