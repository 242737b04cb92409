"""Frequentist checks of the posterior, and sizes that take a while."""

import arviz as az
import numpy as np
import pandas as pd
import pytest

from pymc_mte import DataError, sample, simulate, tabulate, truth

pytestmark = pytest.mark.slow

SEEDS, ROWS = 40, 20_000
LOW = 31  # binomial(40, 0.9): P(< 31) = .0045 per quantity; 31 to 40 is allowed
MAX_RHAT = 1.01


@pytest.fixture(scope="module")
def posteriors(level3):
    """Posteriors of 40 data sets, each by the whole of `sample`: starts, chains, alignment."""
    out = []
    for seed in range(SEEDS):
        rows = simulate(level3, ROWS, rng=seed)
        tree = sample(level3, rows, random_seed=seed, progressbar=False)
        out.append(tree["posterior"].to_dataset()[["effect", "class_weight", "ate", "att"]])
    return out


def test_posterior_intervals_cover(posteriors, level3):
    wanted = truth(level3)
    for name in ("effect", "ate", "att", "class_weight"):
        hits = 0
        for draws in posteriors:
            low, high = np.quantile(draws[name].values, [0.05, 0.95], axis=(0, 1))
            hits = hits + ((low <= wanted[name].values) & (wanted[name].values <= high))
        assert np.min(hits) >= LOW, f"{name}: {hits} of {SEEDS}"


def test_chains_mix(posteriors):
    for seed, draws in enumerate(posteriors):
        rhat = az.rhat(draws)
        worst = max(float(np.max(rhat[n].values)) for n in rhat.data_vars)
        assert worst < MAX_RHAT, f"seed {seed}: R-hat {worst:.4f}"


def test_ten_million_levels_are_refused(level3):
    n = 10_000_000
    frame = {v: np.zeros(n, dtype=np.int8) for v in level3.variables} | {"z": np.arange(n)}
    with pytest.raises(DataError, match="'z'"):
        tabulate(pd.DataFrame(frame), level3)
