"""Do the solved moment equations describe a mixture at all? NumPy and SciPy."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.moments.bootstrap import replicate, robust_se
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.spectral import spectral

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admissible:
    """One quantity that is not negative in any mixture.

    Attributes
    ----------
    name : str
        What must not be negative.
    value, se : float
        The quantity and its bootstrap standard error (NaN without replicates).
    p_value : float
        One-sided, corrected for taking the least of several; near 1 well inside the admissible range.
    """

    name: str
    value: float
    se: float
    p_value: float


def admissible(problem: Problem, n_boot: int, rng: np.random.Generator) -> tuple[Admissible, ...]:
    """Test that effects are real, weights between 0 and 1, and probabilities too.

    Parameters
    ----------
    problem : Problem
        A problem with at least K features on both sides.
    n_boot : int
        Bootstrap replicates.
    rng : numpy.random.Generator
        Source of the resamples.

    Notes
    -----
    The effects are the roots of a polynomial. Its discriminant is positive for distinct real roots and
    negative for one pair of complex ones. With more than two arms the least discriminant over the pairs of
    arms counts.
    """
    point = _least(problem, problem.counts[None])
    draws = replicate(problem.sampling, n_boot, rng, lambda c: _least(problem, c)) if n_boot else {}
    n_arms = len(problem.anchors)
    n_tried = {"effects are real numbers": n_arms * (n_arms - 1) // 2}
    n_tried |= {"weights within [0, 1]": problem.model.classes}
    n_tried["probabilities within [0, 1]"] = 2 * problem.model.classes * n_arms
    out = []
    for name, found in point.items():
        value, se = float(found[0]), float(robust_se(draws[name])) if draws else np.nan
        p = n_tried[name] * stats.norm.cdf(value / se) if se > 0 else np.nan
        out.append(Admissible(name=name, value=value, se=se, p_value=min(float(p), 1.0)))
    return tuple(out)


def _least(problem: Problem, counts: Array) -> dict[str, Array]:
    """Smallest value of everything that must not be negative: (batch,) each."""
    k, used = problem.model.classes, list(problem.anchors)
    moments = problem.moments(counts)
    solved = spectral(moments, k, problem.function_sds, problem.diagonalised, used)
    out = {"weights within [0, 1]": solved.class_weight.min(axis=-1)}
    if len(used) > 1 and solved.operators is not None:
        g = solved.operators.matrices[:, 0]
        one, two = np.transpose(list(combinations(used, 2)))
        root = np.linalg.eigvals((g[:, two] - g[:, one]) / problem.outcome_sd)
        pair = np.triu_indices(k, 1)
        gap = root[..., pair[0]] - root[..., pair[1]]
        out["effects are real numbers"] = np.prod(gap**2, axis=-1).real.min(axis=-1)
    if problem.model.variables[str(problem.model.outcome)].discrete:
        p = solved.potential_outcome[..., used].reshape(len(counts), -1)
        out["probabilities within [0, 1]"] = np.minimum(p, 1 - p).min(axis=-1)
    return out
