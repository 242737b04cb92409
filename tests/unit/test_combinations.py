"""Parts that meet: samplers that name no axes, share-safe files, results that hold less than others."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pymc_mte import (
    RefusedError,
    bivariate_residuals,
    do,
    estimate,
    load_model,
    loo,
    plot_predictive,
    predict,
    simulate,
)
from pymc_mte.bayes.linear_draws import sample_linear
from pymc_mte.bayes.samplers import labelled
from pymc_mte.bayes.target_draws import sample_targets
from pymc_mte.fit import Fit
from pymc_mte.identify.identification import identify
from pymc_mte.sharing import safe_tree


def starts_as_draws(built, starts, seed, options):
    """What a sampler hands back, without the sampling: each chain stays near its start."""
    rng = np.random.default_rng(seed)
    values = {}
    for name in starts[0]:
        each = np.stack([np.stack([start[name]] * options["draws"]) for start in starts])
        values[name] = each * np.exp(0.01 * rng.normal(size=each.shape))
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((len(starts), options["draws"])))})
    return xr.DataTree.from_dict({"posterior": labelled(values), "sample_stats": stats})


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
@pytest.mark.parametrize(
    ("name", "draw"), [("linear_shifts", sample_linear), ("unknown_interventions", sample_targets)]
)
def test_draws_of_targets_are_named_and_weighed(name, draw):
    model = load_model(f"gallery:{name}")
    rows = simulate(model, 400, rng=1)
    found = estimate(model, rows, n_boot=0)
    settings = {"base": None, "start": found, "chains": 2, "priors": None, "seed": 0}
    tree = draw(model, rows, run=starts_as_draws, options={"draws": 20, "tune": 1}, **settings)
    weight = tree["posterior"]["target_weight"]
    assert set(tree["targets"]["target"].values) == set(weight["target"].values)
    assert loo(tree).n_data_points == 400
    with pytest.raises(RefusedError, match="at least 25 draws, got 4"):
        loo(tree.isel(draw=slice(0, 2)))
    with pytest.raises(RefusedError, match="shares"):
        predict(tree, rows)
    with pytest.raises(RefusedError, match="shares"):
        plot_predictive(tree)
    with pytest.raises(RefusedError, match="base_model"):
        do(tree, {"a": 0}, "b")


def test_a_share_safe_result_says_that_its_rows_are_missing(tools, level3):
    posterior = tools.made_posterior(level3, simulate(level3, 300, rng=1))
    shared = safe_tree(posterior, level3)
    with pytest.raises(RefusedError, match="share-safe file has no rows"):
        loo(shared)
    with pytest.raises(RefusedError, match="share-safe"):
        bivariate_residuals(level3, posterior=shared)
    with pytest.raises(RefusedError, match="this result has none"):
        loo(estimate(level3, simulate(level3, 300, rng=1), n_boot=0))


def test_a_saved_comparison_keeps_its_sentences(tools, level3):
    rows = simulate(level3, 300, rng=1)
    table = pd.DataFrame({"mean": [0.1]}, index=pd.Index(["ate"], name="functional"))
    table.attrs = {"says": ["Bridge and spectral agree."], "tests": [{"rungs": "bridge - ml", "p": 0.5}]}
    fitted = Fit(
        model=level3,
        identification=identify(level3),
        moments=estimate(level3, rows, n_boot=0),
        posterior=tools.made_posterior(level3, rows),
        comparison=table,
    )
    kept = fitted.to_datatree()["comparison"].attrs
    assert {name: json.loads(value) for name, value in kept.items()} == table.attrs
