"""Residuals: nothing to see where the model fits, the missing edge first where it does not."""

import numpy as np
import pytest
import xarray as xr

from pymc_mte import (
    CausalModel,
    RefusedError,
    bivariate_residuals,
    estimate,
    load_model,
    pattern_residuals,
    simulate,
    tabulate,
)
from pymc_mte.fitcheck import _holm

N = 3_000


@pytest.fixture(scope="module")
def pair():
    model = load_model("gallery:paper_pair")
    return model, simulate(model, N, rng=1)


@pytest.fixture(scope="module")
def replicates(pair):
    """Bootstrap replicates of the likelihood fit, which stand in for a posterior."""
    model, rows = pair
    found = estimate(model, rows, method="polished", n_boot=40)
    tree = xr.DataTree.from_dict(
        {"posterior": found["posterior"].to_dataset(), "observed_data": tabulate(rows, model)}
    )
    tree.attrs = found.attrs
    return tree


def test_counts_are_predicted(pair):
    table = pattern_residuals(*pair)
    assert table["observed"].sum() == N
    assert table["expected"].sum() == pytest.approx(N, rel=0.01)
    assert (np.diff(table["residual"].abs()) <= 0).all()
    # 64 patterns less 15 parameters: the mean square of residuals is below 1, p-values are spread out.
    assert (table["residual"] ** 2).mean() < 1.3
    assert 0.0 <= (table["p"] < 0.05).mean() < 0.15


def test_predictive_draws_agree_with_the_fit(pair, replicates):
    fitted, drawn = pattern_residuals(*pair), pattern_residuals(*pair, posterior=replicates)
    expected = drawn.loc[fitted.index, "expected"]
    np.testing.assert_allclose(fitted["expected"], expected, rtol=0.25, atol=1.5)
    inside = (drawn["lower"] <= drawn["observed"]) & (drawn["observed"] <= drawn["upper"])
    assert inside.mean() > 0.85


def test_pairs_of_a_right_model_pass(pair, replicates):
    table = bivariate_residuals(*pair)
    assert (table["p_holm"].dropna() > 0.01).all()
    again = bivariate_residuals(*pair, posterior=replicates)
    np.testing.assert_allclose(again.loc[table.index, "p"], table["p"], rtol=0.05, atol=1e-3)


def test_missing_edge_comes_first(pair):
    model, _ = pair
    fields = {n: getattr(model, n) for n in CausalModel.model_fields}
    x1 = model.variables["x1"].model_copy(update={"parents": ("x0",)})
    p = np.array([[0.25, 0.55], [0.45, 0.8]])
    truth = dict(model.truth) | {"x1": {"p": p.tolist()}}
    generator = CausalModel(**fields | {"variables": dict(model.variables) | {"x1": x1}, "truth": truth})
    table = bivariate_residuals(model, simulate(generator, 6_000, rng=2))
    assert table.index[0] == ("x0", "x1")
    assert table["p_holm"].iloc[0] < 0.001


def test_holm():
    np.testing.assert_allclose(_holm(np.array([0.04, np.nan, 0.01, 0.9])), [0.08, np.nan, 0.03, 0.9])


def test_refusals():
    with pytest.raises(RefusedError, match="continuous"):
        pattern_residuals(load_model("gallery:lalonde"))
