"""Average effects by one of three bridges, with errors that need no resampling. NumPy only."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.adjusted import adjusted_averages, adjusted_effect
from pymc_mte.moments.methods import Values, all_arms, bridge_values
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.proximal import (
    BridgeEstimate,
    bridge_errors,
    doubly_robust,
    outcome_bridge,
    treatment_bridge,
)
from pymc_mte.moments.twostage import two_stage
from pymc_mte.moments.weakproxy import ConfidenceSet, anderson_rubin_set

Array = NDArray[np.float64]
Bridge = Literal["outcome", "treatment", "both", "two-stage"]

BRIDGES = ("outcome", "treatment", "both", "two-stage")
"""Outcome bridge, treatment bridge, the doubly robust combination, and two-stage least squares."""

SOLVERS = {"outcome": outcome_bridge, "treatment": treatment_bridge, "both": doubly_robust}


def average_values(problem: Problem, counts: Array, bridge: Bridge) -> Values:
    """Average effects of a batch of counts.

    The treatment bridge gives no effect on the treated; two-stage least squares gives one effect
    for everybody and no means of arms.
    """
    if bridge == "outcome" and problem.covariates is None:
        return bridge_values(problem, counts)
    if bridge == "two-stage":
        effect = adjusted_effect(problem.grams(counts))
        over_first = np.column_stack([np.zeros(len(counts)), effect])
        arm_mean = all_arms(problem, over_first, axis=-1)
        values = _contrasts(problem, arm_mean)
        return values | {"arm_mean": np.full_like(arm_mean, np.nan)}
    if bridge != "outcome" and problem.covariates is None:
        solved = np.stack([_solve(problem, row, bridge).arm_mean for row in counts])
        return _contrasts(problem, all_arms(problem, solved, axis=-1))
    # Linear bridges in the same directions coincide, so one form serves all three, point and resamples.
    solved, among = adjusted_averages(problem.grams(counts), problem.model.classes)
    values = _contrasts(problem, all_arms(problem, solved, axis=-1))
    if bridge == "outcome":
        among = all_arms(problem, all_arms(problem, among, axis=-1), axis=-2)
        att = [among[:, b, b] - among[:, a, b] for b, a in problem.model.contrasts]
        values["att"] = att[0] if len(att) == 1 else np.stack(att, axis=-1)
    return values


def _contrasts(problem: Problem, arm_mean: Array) -> Values:
    """Average effects from means of arms; no effect on the treated."""
    ate = [arm_mean[:, b] - arm_mean[:, a] for b, a in problem.model.contrasts]
    value = ate[0] if len(ate) == 1 else np.stack(ate, axis=-1)
    return {"arm_mean": arm_mean, "ate": value, "att": np.full_like(value, np.nan)}


def _solve(problem: Problem, counts: Array, bridge: Bridge) -> BridgeEstimate:
    return SOLVERS[bridge](
        problem.outcome,
        problem.arm_place,
        problem.z.values,
        problem.x.values,
        problem.covariates,
        counts,
        rank=problem.model.classes,
    )


def average_errors(problem: Problem, bridge: Bridge) -> Values:
    """Compute delta-method errors of ``arm_mean``, ``ate`` and, where a formula is here, ``att``."""
    contrasts = [(problem.arms.index(b), problem.arms.index(a)) for b, a in problem.model.contrasts]
    if bridge == "outcome" and problem.covariates is None:
        found = bridge_errors(
            problem.counts[None],
            problem.z.values,
            problem.x.values,
            problem.arm_place,
            len(problem.arms),
            problem.outcome,
            problem.model.classes,
        )
        out = {
            "arm_mean": found.se_arm_mean[0],
            "ate": np.array([found.ate(b, a)[1][0] for b, a in contrasts]),
            "att": np.array([found.att(b, a)[1][0] for b, a in contrasts]),
        }
    elif bridge == "two-stage":
        out = {"ate": _sandwich(problem)}
    else:
        solved = _solve(problem, problem.counts, bridge)
        out = {
            "arm_mean": np.sqrt(np.diag(solved.covariance)),
            "ate": np.array([solved.contrast(b, a)[1] for b, a in contrasts]),
        }
    if len(contrasts) == 1:
        out |= {name: out[name][0] for name in ("ate", "att") if name in out}
    return out


def _sandwich(problem: Problem) -> Array:
    """Heteroscedasticity-robust errors of two-stage least squares, one per contrast."""
    reference = problem.model.reference_arm
    numbered = np.where(problem.arm == reference, -1, problem.arm)  # the lowest number is the reference
    return two_stage(
        problem.outcome,
        numbered,
        problem.x.values[:, 1:],
        problem.z.values[:, 1:],
        problem.covariates,
        problem.counts,
    ).se


def robust_set(problem: Problem) -> ConfidenceSet | None:
    """Confidence set of the average effect that weak proxies do not spoil.

    For two classes and arms, without covariates.

    The outcome-side score is the first principal component of the features: chosen without a look
    at the treatment side, the treatment or the outcome.
    """
    model = problem.model
    if model.classes != 2 or len(problem.arms) != 2 or len(model.arms) != 2 or problem.covariates is not None:
        return None
    return anderson_rubin_set(
        problem.outcome,
        problem.arm,
        problem.z.values[:, 1:],
        problem.x.values[:, 1],
        weights=problem.counts,
        contrast=problem.model.contrasts[0],
    )
