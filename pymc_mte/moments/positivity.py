"""Positivity of every arm in every class, bounded from the outcome-side proxies. NumPy and SciPy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pymc_mte.model import CausalModel

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

MIN_PROPENSITY = 0.01
"""An arm that some class gets less often than this is not extrapolated to that class."""

N_BINS = 10
"""Bins of a continuous proxy, by quantiles."""


@dataclass(frozen=True, slots=True)
class ArmSupport:
    """How rarely some class gets an arm.

    Attributes
    ----------
    arm : int
        Level number of the arm.
    share : float
        P(T=arm) over everybody.
    lowest : float
        Smallest share of the arm in any bin of an outcome proxy: because these proxies do not depend
        on the treatment given the class, at least one class gets the arm no more often than this.
    upper : float
        Upper 97.5% confidence limit of ``lowest``.
    where : str
        The bin in words.
    stratum : str
        The stratum in words; empty without strata.
    """

    arm: int
    share: float
    lowest: float
    upper: float
    where: str
    stratum: str = ""

    @property
    def place(self) -> str:
        """The bin, and the stratum it lies in."""
        return f"{self.where} ({self.stratum})" if self.stratum else self.where

    @property
    def holds(self) -> bool:
        """Whether the data do not contradict positivity."""
        return self.share > 0 and self.upper >= MIN_PROPENSITY


def arm_support(model: CausalModel, columns: Columns, counts: Array) -> tuple[ArmSupport, ...]:
    """Bound the smallest treatment probability over classes, for every arm.

    Parameters
    ----------
    model : CausalModel
        A model with a treatment.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (patterns,)
        Counts.
    """
    arm = np.asarray(columns[str(model.treatment)])
    n_arms = len(model.arms)
    found = []
    total = counts.sum()
    for t in range(n_arms):
        share = float(counts[arm == t].sum() / total)
        best = ArmSupport(t, share, share, _upper(share * total, total), "everybody")
        for proxy in model.outcome_proxies:
            for label, rows in _bins(model, columns, counts, proxy):
                size = counts[rows].sum()
                hits = counts[rows & (arm == t)].sum()
                upper = _upper(hits, size)
                if upper < best.upper:
                    best = ArmSupport(t, share, float(hits / size), upper, label)
        found.append(best)
    return tuple(found)


def failing_arms(model: CausalModel, support: tuple[ArmSupport, ...]) -> set[int]:
    """Arms that are empty or, with latent classes, lack positivity."""
    return {arm.arm for arm in support if not arm.holds and (model.classes > 1 or arm.share == 0)}


def empty_arms(support: tuple[ArmSupport, ...]) -> frozenset[int]:
    """Arms that nobody got, in some stratum if there are strata."""
    return frozenset(arm.arm for arm in support if arm.share == 0)


def refused_mask(
    model: CausalModel, name: str, failing: set[int], empty: frozenset[int] = frozenset()
) -> NDArray[np.bool_]:
    """Entries of a functional that would extrapolate an arm to a class that (almost) never gets it.

    Parameters
    ----------
    model : CausalModel
        Gives the contrasts.
    name : str
        Functional or parameter.
    failing : set of int
        Arms without positivity.
    empty : frozenset of int
        Arms that nobody got: there is no effect among those who got them.

    Returns
    -------
    ndarray of bool
        Along the ``treatment`` axis for what exists per arm, along ``contrast`` for what compares
        arms, of shape () for what does neither. Functionals that are not listed are refused.
    """
    if name == "class_weight" or name in model.dims:
        return np.zeros((), dtype=bool)
    if name in PER_ARM:
        return np.array([arm in failing for arm in range(len(model.arms))])
    if name in AMONG_TREATED:
        return np.array([a in failing or b in empty for b, a in model.contrasts])
    pairs = np.array([bool(failing & {a, b}) for b, a in model.contrasts])
    return np.asarray(pairs[0]) if name in FIRST_CONTRAST else pairs


PER_ARM = frozenset(
    {"arm_mean", "potential_outcome", "synthetic_moment", "bridge", "outcome_cdf", "outcome_quantile"}
)
AMONG_TREATED = frozenset({"att", "att_bridge"})
FIRST_CONTRAST = frozenset({"effect_moment", "causal_groups"})


def _upper(hits: float, size: float) -> float:
    """Upper Clopper-Pearson limit; population tables count as large samples."""
    if hits >= size:
        return 1.0
    return float(stats.beta.ppf(0.975, hits + 1, size - hits))


def _bins(
    model: CausalModel, columns: Columns, counts: Array, proxy: str
) -> list[tuple[str, NDArray[np.bool_]]]:
    column = np.asarray(columns[proxy])
    var = model.variables[proxy]
    if var.discrete:
        bins = [(f"{proxy} = {label}", column == i) for i, label in enumerate(var.labels)]
    else:
        order = np.argsort(column, kind="stable")
        edge = np.cumsum(counts[order]) / counts.sum()
        cuts = np.unique([column[order][np.searchsorted(edge, q)] for q in np.arange(1, N_BINS) / N_BINS])
        place = np.searchsorted(cuts, column, side="right")
        limits = ["lowest", *(f"{cut:.4g}" for cut in cuts), "highest"]
        bins = [(f"{proxy} from {limits[i]} to {limits[i + 1]}", place == i) for i in range(len(cuts) + 1)]
    return [(label, rows) for label, rows in bins if rows.any()]
