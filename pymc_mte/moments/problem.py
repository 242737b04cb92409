"""One data set laid out for the moment methods. NumPy only."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.covariates import covariate_matrix
from pymc_mte.data import CLUSTER, SAMPLING_WEIGHT, columns_of, has_missing
from pymc_mte.errors import RefusedError
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.adjusted import ArmGrams, arm_grams
from pymc_mte.moments.bootstrap import Resample, Sampling
from pymc_mte.moments.features import Features, Moments, build_features, build_moments
from pymc_mte.moments.positivity import arm_support

Array = NDArray[np.float64]

N_CUTS = 19
"""Points at which the distribution of a continuous outcome is estimated."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One data set laid out for the moment methods.

    Attributes
    ----------
    model : CausalModel
        The graph, its levels resolved.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (patterns,)
        Counts, times sampling weights if there are any.
    sampling : Sampling
        How to redraw the rows.
    arms : tuple of int
        Arms that occur in the data.
    z, x : Features
        Whitened features of the two sides.
    covariates : ndarray of shape (patterns, p), optional
        Observed covariates, in their units.
    interactions : bool
        Whether the features include products of two proxies of a side.
    seed : int
        Seed of random starts.
    cache : dict
        The likelihood fit of the data, once it was needed.
    """

    model: CausalModel
    columns: Mapping[str, NDArray[Any]]
    counts: Array
    sampling: Sampling
    arms: tuple[int, ...]
    z: Features
    x: Features
    covariates: Array | None = None
    interactions: bool = False
    seed: int = 0
    cache: dict[str, Parameters] = field(default_factory=dict)

    @property
    def outcome(self) -> Array:
        """Outcome values of the patterns; level numbers of a bernoulli outcome; times seen, if censored."""
        value = np.asarray(self.columns[str(self.model.outcome)], dtype=float)
        return np.abs(value) if self.model.censored else value

    @cached_property
    def arm(self) -> NDArray[np.int64]:
        """Treatment arm of every pattern; one arm for everybody in a model without treatment."""
        return arm_of(self.model, self.columns)

    @cached_property
    def anchors(self) -> tuple[int, ...]:
        """Places in ``arms`` of those with positivity: the classes are found from these alone."""
        if self.model.treatment is None:
            return (0,)
        holds = {s.arm for s in arm_support(self.model, self.columns, self.counts) if s.holds}
        found = tuple(i for i, arm in enumerate(self.arms) if arm in holds)
        return found or tuple(range(len(self.arms)))

    @cached_property
    def cuts(self) -> Array:
        """Values at which the outcome's distribution is estimated: its ventiles; none if discrete."""
        if self.model.variables[str(self.model.outcome)].discrete:
            return np.zeros(0)
        levels = np.arange(1, N_CUTS + 1) / (N_CUTS + 1)
        found = np.quantile(self.outcome, levels, weights=self.counts, method="inverted_cdf")
        return np.unique(found)

    @cached_property
    def functions(self) -> Array:
        """Functions of the outcome whose moments share eigenvectors: (functions, patterns).

        The identity and, for a continuous outcome, the indicators of being at most each cut.
        """
        return np.stack([self.outcome, *((self.outcome <= cut).astype(float) for cut in self.cuts)])

    @cached_property
    def diagonalised(self) -> tuple[int, ...]:
        """Functions used to find the shared eigenvectors: the identity and about the quartiles.

        Classes whose means tie may still differ in their distributions; more indicators would
        repeat each other.
        """
        n = len(self.cuts)
        return (0, *sorted({1 + round(q * (n - 1)) for q in (0.25, 0.5, 0.75)})) if n else (0,)

    @cached_property
    def function_sds(self) -> Array:
        """Pooled standard deviations of the functions; 1 for a constant one."""
        share = self.counts / self.counts.sum()
        centred = self.functions - (self.functions @ share)[:, None]
        sd = np.sqrt(centred**2 @ share)
        return np.where(sd > 0, sd, 1.0)

    @property
    def outcome_sd(self) -> float:
        """Pooled standard deviation of the outcome."""
        return float(self.function_sds[0])

    def arm_counts(self, counts: Array) -> Array:
        """Rows per arm that occurs in the data, for a batch of counts: (batch, arms)."""
        return np.stack([counts[:, self.arm == t].sum(axis=1) for t in self.arms], axis=1)

    @property
    def n_given(self) -> int:
        """Number of columns that are conditioned on, the constant counted."""
        return 1 + (0 if self.covariates is None else self.covariates.shape[1])

    @property
    def arm_place(self) -> NDArray[np.int64]:
        """Place of every pattern's arm in ``arms``."""
        return np.searchsorted(self.arms, self.arm)

    def moments(self, counts: Array) -> Moments:
        """Moments of a batch of counts, over the arms that occur."""
        z, x = self.z.values, self.x.values
        return build_moments(counts, z, x, self.arm_place, len(self.arms), self.functions)

    def grams(self, counts: Array) -> ArmGrams:
        """Second moments of covariates, features and outcome within the arms that occur."""
        more = np.zeros((len(self.outcome), 0)) if self.covariates is None else self.covariates
        z, x = self.z.values, self.x.values
        return arm_grams(counts, z, x, self.arm_place, len(self.arms), self.outcome, more)

    def part(self, rows: NDArray[np.bool_]) -> "Problem":
        """Lay out the patterns of one stratum; the features stay those of everybody, so classes compare."""
        arm, counts = self.arm[rows], self.counts[rows]
        return replace(
            self,
            columns={name: np.asarray(column)[rows] for name, column in self.columns.items()},
            counts=counts,
            sampling=self.sampling.part(rows),
            arms=tuple(t for t in self.arms if counts[arm == t].sum() > 0),
            z=self.z.part(rows),
            x=self.x.part(rows),
            covariates=None if self.covariates is None else self.covariates[rows],
            cache={},
        )


def arm_of(model: CausalModel, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Treatment arm of every pattern; zeros without a treatment."""
    if model.treatment is None:
        return np.zeros(len(next(iter(columns.values()))), dtype=np.int64)
    return np.asarray(columns[model.treatment])


def problem_of(
    model: CausalModel,
    table: Any,
    seed: int = 0,
    *,
    interactions: bool = False,
    linear: bool = False,
    resample: Resample = "multinomial",
) -> Problem:
    """Lay out a tabulated data set, with its sampling weights and clusters if it has them.

    Raises
    ------
    RefusedError
        If values are missing: moments are sums over whole rows.
    """
    if has_missing(model, table):
        raise RefusedError(
            "moments need whole rows, and these have missing values; `sample` sums them out, and "
            'missing = "drop" in the model\'s [data] table leaves such rows out'
        )
    sampling = Sampling(
        counts=np.asarray(table["count"].values, dtype=float),
        weight=table[SAMPLING_WEIGHT].values if SAMPLING_WEIGHT in table else None,
        cluster=table[CLUSTER].values if CLUSTER in table else None,
        resample=resample,
    )
    return make_problem(
        model,
        columns_of(table, model),
        sampling,
        seed,
        covariates=covariate_matrix(table),
        interactions=interactions,
        linear=linear,
    )


def make_problem(
    model: CausalModel,
    columns: Mapping[str, NDArray[Any]],
    sampling: Array | Sampling,
    seed: int = 0,
    *,
    covariates: Array | None = None,
    interactions: bool = False,
    linear: bool = False,
) -> Problem:
    """Build the features of a data set once, for all methods and replicates.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    columns : mapping of str to ndarray
        Pattern columns.
    sampling : ndarray of shape (patterns,) or Sampling
        Counts of independent rows, or how the rows were drawn.
    seed : int
        Seed of random starts.
    covariates : ndarray of shape (patterns, p), optional
        Observed covariates.
    interactions : bool
        Whether features of two proxies of one side are multiplied too.
    linear : bool
        Whether every continuous proxy enters as it is, whatever its tails.
    """
    sampling = sampling if isinstance(sampling, Sampling) else Sampling(counts=sampling)
    counts = sampling.effective
    arm = arm_of(model, columns)
    n_arms = len(model.arms) if model.treatment is not None else 1
    arms = tuple(t for t in range(n_arms) if counts[arm == t].sum() > 0)
    z, x = (
        build_features(model, columns, counts, side, interactions=interactions, linear=linear)
        for side in (model.treatment_proxies, model.outcome_proxies)
    )
    return Problem(
        model=model,
        columns=columns,
        counts=counts,
        sampling=sampling,
        arms=arms,
        z=z,
        x=x,
        covariates=covariates,
        interactions=interactions,
        seed=seed,
    )
