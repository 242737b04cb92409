"""Estimates inside strata of observed columns, averaged over them. NumPy only.

Inside a stratum every mechanism is its own, class weights included; classes are matched across strata
by their profiles, which is a guess where these differ much between strata.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.covariates import STRATUM
from pymc_mte.functionals import effect_cdf, effect_grid, effects_from_classes
from pymc_mte.model import CausalModel
from pymc_mte.moments.methods import Values
from pymc_mte.moments.positivity import ArmSupport, arm_support
from pymc_mte.moments.problem import Problem

Array = NDArray[np.float64]
Statistic = Callable[[Problem, Array], Values]
Ordering = Callable[[CausalModel, Values], NDArray[np.int64]]

BY_CLASS = ("class_weight", "effect", "potential_outcome")
FLAGS = ("complex_roots", "singular", "not_converged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Patterns of one stratum.

    Attributes
    ----------
    label : str
        The values of the strata's columns in words.
    rows : ndarray of bool, shape (patterns,)
        Its patterns.
    problem : Problem
        These patterns laid out; the features are those of everybody, so that classes compare.
    """

    label: str
    rows: NDArray[np.bool_]
    problem: Problem


def split(problem: Problem, table: Any) -> tuple[Stratum, ...]:
    """Lay out every stratum of a tabulated data set that has rows; none without strata."""
    if STRATUM not in table:
        return ()
    codes = table[STRATUM].values
    masks = [(label, codes == i) for i, label in enumerate(json.loads(table[STRATUM].attrs["levels"]))]
    return tuple(
        Stratum(label=label, rows=rows, problem=problem.part(rows))
        for label, rows in masks
        if problem.counts[rows].sum() > 0
    )


def support_by_stratum(problem: Problem, strata: tuple[Stratum, ...]) -> tuple[ArmSupport, ...]:
    """How rarely some class gets each arm, in every stratum (or over everybody, without strata)."""
    if not strata:
        return arm_support(problem.model, problem.columns, problem.counts)
    return tuple(
        replace(arm, stratum=stratum.label)
        for stratum in strata
        for arm in arm_support(problem.model, stratum.problem.columns, stratum.problem.counts)
    )


class Stratified:
    """A statistic computed inside strata and averaged.

    Parameters
    ----------
    problem : Problem
        Everybody.
    strata : tuple of Stratum
        The strata.
    statistic : callable
        Values of a problem at a batch of counts.
    ordering : callable
        Order of the classes of a point estimate (a batch of one).
    """

    def __init__(
        self, problem: Problem, strata: tuple[Stratum, ...], statistic: Statistic, ordering: Ordering
    ) -> None:
        self.problem, self.strata, self.statistic, self.ordering = problem, strata, statistic, ordering
        self._pivots: list[Array] = []
        self.point = self._aligned(problem.counts[None])

    def __call__(self, counts: Array) -> Values:
        """Averages over strata for a batch of counts."""
        parts = self._aligned(counts)
        size = np.stack([counts[:, s.rows].sum(axis=1) for s in self.strata])
        share = size / size.sum(axis=0)
        out = self._class_level(parts, share) if "class_weight" in parts[0] else {}
        out["stratum_ate"] = np.stack([part["ate"] for part in parts], axis=1)
        for name in ("arm_mean", "ate", "ate_bridge"):
            if name in parts[0] and name not in out:
                out[name] = _weighted([part[name] for part in parts], share)
        for name in ("att", "att_bridge"):
            if name in parts[0]:
                out[name] = _weighted([part[name] for part in parts], self._treated_share(counts))
        return out | {
            flag: np.asarray(np.max([part[flag] for part in parts], axis=0))
            for flag in FLAGS
            if flag in parts[0]
        }

    def _class_level(self, parts: list[Values], share: Array) -> Values:
        """Weights and potential outcomes of classes over all strata, and what follows from them."""
        model = self.problem.model
        joint = np.stack([s[:, None] * part["class_weight"] for s, part in zip(share, parts, strict=True)])
        outcomes = np.stack([part["potential_outcome"] for part in parts])
        weight: Array = joint.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (joint[..., None] * outcomes).sum(axis=0) / weight[..., None]
        values: Values = {"class_weight": weight, "potential_outcome": mean}
        values |= effects_from_classes(model, weight, mean)
        # What varies is counted over strata and classes: averages over strata would hide it.
        effect = np.stack([part["effect"] for part in parts], axis=1)
        cells = np.moveaxis(joint, 0, 1).reshape(len(weight), -1)
        each = np.moveaxis(outcomes, 0, 1).reshape(*cells.shape, -1)
        spread = effects_from_classes(model, cells, each)
        values |= {name: spread[name] for name in ("effect_sd", "weight_harmed")}
        grid = effect_grid(model, self.problem.outcome_sd)
        values["effect_cdf"] = effect_cdf(cells, spread["effect"], grid)
        values |= {"stratum_effect": effect, "stratum_weight": np.moveaxis(joint, 0, 1)}
        if "profile" in parts[0]:
            values["profile"] = np.concatenate([part["profile"] for part in parts], axis=-1)
        return values

    def _treated_share(self, counts: Array) -> Array:
        """P(stratum | arm) for the arm of every contrast: (strata, replicates[, contrasts])."""
        model, arm = self.problem.model, self.problem.arm
        size = np.stack(
            [
                np.stack([counts[:, s.rows & (arm == b)].sum(axis=1) for b, _ in model.contrasts], axis=-1)
                for s in self.strata
            ]
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            share = size / size.sum(axis=0)
        return share[..., 0] if len(model.contrasts) == 1 else share

    def _aligned(self, counts: Array) -> list[Values]:
        """Values of every stratum, its classes in the order of the largest one's point estimate."""
        parts = [self.statistic(s.problem, _present(counts[:, s.rows], s.problem)) for s in self.strata]
        if "profile" not in parts[0]:
            return parts
        if not self._pivots:
            return self._first(parts)
        both = zip(parts, self._pivots, strict=True)
        return [self._ordered(part, match_classes(part["profile"], pivot)[0]) for part, pivot in both]

    def _first(self, parts: list[Values]) -> list[Values]:
        """Order the classes of the point estimate: the largest stratum by effect, the others as it."""
        largest = int(np.argmax([s.problem.counts.sum() for s in self.strata]))
        leading = self._ordered(parts[largest], self.ordering(self.problem.model, parts[largest])[None])
        out = [self._ordered(p, match_classes(p["profile"], leading["profile"][0])[0]) for p in parts]
        self._pivots = [part["profile"][0] for part in out]
        return out

    @staticmethod
    def _ordered(values: Values, order: NDArray[np.int64]) -> Values:
        by_class = {*BY_CLASS, "profile"}
        return {n: take_classes(v, order, 1) if n in by_class else v for n, v in values.items()}


def _present(counts: Array, problem: Problem) -> Array:
    """Put the data in the place of resamples that lost the whole stratum; they get no weight."""
    return np.where(counts.sum(axis=1, keepdims=True) > 0, counts, problem.counts)


def _weighted(values: list[Array], share: Array) -> Array:
    """Average over strata; an absent stratum has no weight and spoils nothing."""
    stacked = np.stack(values)
    weight = share.reshape(*share.shape, *(1,) * (stacked.ndim - share.ndim))
    return np.where(weight > 0, weight * stacked, 0.0).sum(axis=0)
