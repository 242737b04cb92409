"""Posteriors of few rows against prior draws weighted by the likelihood: no sampler, no PyTensor density.

Draws of the prior, weighted by the likelihood that NumPy computes, are the posterior. The sampler's
quartiles of averages must be quartiles of them. Four label-free averages, three quartiles and one data set
per family: within 4.5 standard errors, a false alarm in 0.1% of all runs.
"""

import sys
from pathlib import Path

import arviz as az
import numpy as np
import pytest

from pymc_mte.bayes.compiled import compile
from pymc_mte.bayes.learnt import prior_draws
from pymc_mte.bayes.reference import with_terms_of
from pymc_mte.bayes.samplers import sample_density
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.calibration import PRIOR_DATA, rows_of
from pymc_mte.data import columns_of
from pymc_mte.families import FAMILIES
from pymc_mte.functionals import functionals
from pymc_mte.network import log_joint, log_sum_classes

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from families import family_model, rows_of_levels  # the designs of the calibration study

pytestmark = pytest.mark.slow

DRAWS, BLOCK = 400_000, 20_000
ROWS = {"counts": 8, "real": 3, "positive": 2, "nonnegative": 2}
"""Rows by kind of values: more of them would leave few of the prior's draws."""

NUMBERS = [name for name, family in FAMILIES.items() if not family.discrete]


def quantities(model, values):
    found = functionals(model, values)
    return np.column_stack(
        [found[name].reshape(len(found["ate"]), -1) for name in ("ate", "effect_sd", "arm_mean")]
    )


def weighted(model, drawn, table):
    """Weights of prior draws."""
    columns, counts = columns_of(table, model), table["count"].values.astype(float)
    parts = [
        {n: drawn[n][i : i + BLOCK] for n in model.posterior_dims} for i in range(0, len(drawn["ate"]), BLOCK)
    ]
    level = np.concatenate([log_sum_classes(log_joint(model, part, columns)) @ counts for part in parts])
    weight = np.exp(level - level.max())
    return weight / weight.sum()


@pytest.mark.parametrize("family", NUMBERS)
def test_quartiles_are_those_of_weighted_prior_draws(family):
    compiled = compile(family_model(family), rows_of_levels(family_model(family)))
    model = compiled.model
    drawn = prior_draws(model, compiled.built, DRAWS, 1, (None, np.ones(1)), by_effect=False)
    truth = {name: drawn[name][0] for name in model.posterior_dims}
    drawn = {name: value[1:] for name, value in drawn.items()}  # the truth itself would weigh too much
    table = rows_of(model, truth, ROWS[FAMILIES[family].values], np.random.default_rng(2))
    weight = weighted(model, drawn, table)
    assert 1 / (weight**2).sum() > 200, "too few prior draws count"

    ready, _ = compiled.prepare(table, chains=4, random_seed=3)
    ready = with_terms_of(ready, compiled.built)
    density = compiled.density.with_data(ready.built, keep=PRIOR_DATA)
    starts = [density.maps.unconstrain(start) for start in ready.starts[:4]]
    options = {"draws": 2_000, "tune": 600, "target_accept": 0.95, "cores": 2, "progressbar": False}
    raw = sample_density(density, starts, 4, options | {"chains": 4})["posterior"]
    values = with_first_levels(model, {n: raw[n].values for n in model.posterior_dims})
    flat = {n: v.reshape(-1, *v.shape[2:]) for n, v in values.items()}
    theirs, ours = quantities(model, drawn), quantities(model, flat)
    for mine, other in zip(ours.T, theirs.T, strict=True):
        ess = float(az.ess(mine.reshape(4, -1)))
        for share in (0.25, 0.5, 0.75):
            below = other < np.quantile(mine, share)
            found = weight @ below
            error = np.sqrt(weight**2 @ (below - found) ** 2 + share * (1 - share) / ess)
            assert abs(found - share) < 4.5 * error, (found, share, error, 1 / (weight**2).sum())
