"""Average effects by one of three bridges, with errors that need no resampling. NumPy only."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.methods import Values, all_arms, bridge_values
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.proximal import BridgeEstimate, bridge_errors, doubly_robust, treatment_bridge
from pymc_mte.moments.weakproxy import ConfidenceSet, anderson_rubin_set

Array = NDArray[np.float64]
Bridge = Literal["outcome", "treatment", "both"]

BRIDGES = ("outcome", "treatment", "both")
"""Outcome bridge, treatment bridge, and the doubly robust combination of both."""


def average_values(problem: Problem, counts: Array, bridge: Bridge) -> Values:
    """Average effects of a batch of counts; the treatment bridge gives no effect on the treated."""
    if bridge == "outcome":
        return bridge_values(problem, counts)
    arm_mean = all_arms(problem, np.stack([_solve(problem, row, bridge).arm_mean for row in counts]), axis=-1)
    ate = np.stack([arm_mean[:, b] - arm_mean[:, a] for b, a in problem.model.contrasts], axis=-1)
    ate = ate[:, 0] if len(problem.model.contrasts) == 1 else ate
    return {"arm_mean": arm_mean, "ate": ate, "att": np.full_like(ate, np.nan)}


def _solve(problem: Problem, counts: Array, bridge: Bridge) -> BridgeEstimate:
    solve = treatment_bridge if bridge == "treatment" else doubly_robust
    arm = np.searchsorted(problem.arms, problem.arm)
    return solve(
        problem.outcome,
        arm,
        problem.z.values,
        problem.x.values,
        weights=counts,
        rank=problem.model.classes,
    )


def average_errors(problem: Problem, bridge: Bridge) -> Values:
    """Compute delta-method errors of ``arm_mean``, ``ate`` and, for the outcome bridge, ``att``."""
    contrasts = [(problem.arms.index(b), problem.arms.index(a)) for b, a in problem.model.contrasts]
    if bridge == "outcome":
        arm = np.searchsorted(problem.arms, problem.arm)
        found = bridge_errors(
            problem.counts[None],
            problem.z.values,
            problem.x.values,
            arm,
            len(problem.arms),
            problem.outcome,
            problem.model.classes,
        )
        out = {
            "arm_mean": found.se_arm_mean[0],
            "ate": np.array([found.ate(b, a)[1][0] for b, a in contrasts]),
            "att": np.array([found.att(b, a)[1][0] for b, a in contrasts]),
        }
    else:
        solved = _solve(problem, problem.counts, bridge)
        out = {
            "arm_mean": np.sqrt(np.diag(solved.covariance)),
            "ate": np.array([solved.contrast(b, a)[1] for b, a in contrasts]),
        }
    if len(contrasts) == 1:
        out |= {name: out[name][0] for name in ("ate", "att") if name in out}
    return out


def robust_set(problem: Problem) -> ConfidenceSet | None:
    """Confidence set of the average effect that weak proxies do not spoil; two classes and arms only.

    The outcome-side score is the first principal component of the features: chosen without a look
    at the treatment side, the treatment or the outcome.
    """
    if problem.model.classes != 2 or len(problem.arms) != 2 or len(problem.model.arms) != 2:
        return None
    return anderson_rubin_set(
        problem.outcome,
        problem.arm,
        problem.z.values[:, 1:],
        problem.x.values[:, 1],
        weights=problem.counts,
        contrast=problem.model.contrasts[0],
    )
