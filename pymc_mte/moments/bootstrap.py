"""Resampled counts and robust spreads of replicates. NumPy only."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Resample = Literal["multinomial", "bayesian"]

RESAMPLES = ("multinomial", "bayesian")
"""Rows redrawn with replacement, or given Dirichlet weights of the same mean and spread."""

MAX_CHUNK = 4_000_000
"""Largest number of resampled counts (replicates x patterns) held at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the rows were drawn, so that they can be redrawn.

    Attributes
    ----------
    counts : ndarray of shape (patterns,)
        Rows per pattern.
    weight : ndarray of shape (patterns,), optional
        Sampling weight of a row of each pattern, of mean 1 over rows.
    cluster : ndarray of int, shape (patterns,), optional
        Cluster of each pattern's rows: whole clusters are redrawn.
    resample : {"multinomial", "bayesian"}
        Resamples of rows (or clusters), or the Bayesian bootstrap's smooth weights for them, which
        leave no row out: nothing that rests on rare rows is lost in some replicates.

    References
    ----------
    .. [1] Rubin, D. B. (1981). The Bayesian bootstrap. Annals of Statistics 9(1), 130-134.
    """

    counts: Array
    weight: Array | None = None
    cluster: NDArray[np.int64] | None = None
    resample: Resample = "multinomial"

    @property
    def effective(self) -> Array:
        """Counts times weights: what estimators see."""
        return self.counts if self.weight is None else self.counts * self.weight

    @property
    def whole(self) -> bool:
        """Whether the counts are numbers of rows, which can be redrawn."""
        return bool((self.counts == np.round(self.counts)).all())

    @property
    def exact(self) -> bool:
        """Whether the counts are shares or percentages of a population, which carry no sampling error."""
        total = float(self.counts.sum())
        return not self.whole and (total < 2 or abs(total - 100) < 1)

    @property
    def simple(self) -> bool:
        """Whether rows were drawn independently with equal weights."""
        return self.weight is None and self.cluster is None

    def part(self, rows: NDArray[np.bool_]) -> "Sampling":
        """Describe some of the patterns; they are redrawn with the others, not alone."""
        weight = None if self.weight is None else self.weight[rows]
        cluster = None if self.cluster is None else self.cluster[rows]
        return replace(self, counts=self.counts[rows], weight=weight, cluster=cluster)

    def redraw(self, n: int, rng: np.random.Generator) -> Array:
        """Draw ``n`` resamples of the pattern counts, times the weights: (n, patterns)."""
        if self.cluster is None:
            drawn = self._units(self.counts, n, rng)
        else:
            times = self._units(np.ones(int(self.cluster.max()) + 1), n, rng)
            drawn = times[:, self.cluster] * self.counts
        return drawn if self.weight is None else drawn * self.weight

    def _units(self, sizes: Array, n: int, rng: np.random.Generator) -> Array:
        """Redraw units of which there are ``sizes``; every resample has as many in all."""
        total = float(sizes.sum())
        if self.resample == "multinomial":
            return rng.multinomial(round(total), sizes / total, size=n).astype(float)
        mass = rng.standard_gamma(sizes, size=(n, len(sizes)))  # the sum of `size` exponential weights
        return np.asarray(total * mass / mass.sum(axis=1, keepdims=True))


def resampled_counts(sampling: Sampling, n_boot: int, rng: np.random.Generator) -> Iterator[Array]:
    """Resamples of pattern counts, in chunks of shape (replicates, patterns)."""
    size = max(1, min(n_boot, MAX_CHUNK // len(sampling.counts)))
    for first in range(0, n_boot, size):
        yield sampling.redraw(min(size, n_boot - first), rng)


def replicate(
    sampling: Sampling, n_boot: int, rng: np.random.Generator, statistic: Callable[[Array], dict[str, Array]]
) -> dict[str, Array]:
    """Apply a batched statistic to all resamples and join the answers along the first axis."""
    parts = [statistic(chunk) for chunk in resampled_counts(sampling, n_boot, rng)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def robust_se(draws: Array) -> Array:
    """Half the distance between the 16% and 84% quantiles along the first axis.

    Equal to the standard deviation for normal replicates; finite where a few replicates explode.
    Replicates without an answer (NaN) are left out; whoever calls reports their share.
    """
    if len(draws) < 2:
        return np.full(draws.shape[1:], np.nan)
    answered = np.isfinite(draws)
    enough = answered.sum(axis=0) >= 2
    filled = np.where(answered, draws, np.nan)
    filled = np.where(enough, filled, 0.0)
    low, high = np.nanquantile(filled, [0.158655, 0.841345], axis=0, method="weibull")
    return np.where(enough, (high - low) / 2, np.nan)
