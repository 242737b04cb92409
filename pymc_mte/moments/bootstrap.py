"""Resampled counts and robust spreads of replicates. NumPy only."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_CHUNK = 4_000_000
"""Largest number of resampled counts (replicates x patterns) held at a time."""


def resampled_counts(counts: Array, n_boot: int, rng: np.random.Generator) -> Iterator[Array]:
    """Multinomial resamples of pattern counts, in chunks of shape (replicates, patterns)."""
    total = float(counts.sum())
    size = max(1, min(n_boot, MAX_CHUNK // len(counts)))
    for first in range(0, n_boot, size):
        yield rng.multinomial(round(total), counts / total, size=min(size, n_boot - first)).astype(float)


def replicate(
    counts: Array,
    n_boot: int,
    rng: np.random.Generator,
    statistic: Callable[[Array], dict[str, Array]],
) -> dict[str, Array]:
    """Apply a batched statistic to all resamples and join the answers along the first axis."""
    parts = [statistic(chunk) for chunk in resampled_counts(counts, n_boot, rng)]
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
    low, high = np.nanquantile(filled, [0.158655, 0.841345], axis=0)
    return np.where(enough, (high - low) / 2, np.nan)
