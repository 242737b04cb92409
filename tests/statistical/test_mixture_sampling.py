"""The posterior of four coins, compiled and drawn once."""

import numpy as np
import pytest

from pymc_mte import do, load_model, loo, sample, simulate, truth

pytestmark = pytest.mark.statistical

N, DRAWS = 600, 100


@pytest.fixture(scope="module")
def coins():
    return load_model("gallery:coins16")


@pytest.fixture(scope="module")
def post(coins):
    rows = simulate(coins, N, rng=1)
    options = {"draws": DRAWS, "tune": 150, "chains": 2, "cores": 1, "random_seed": 1}
    return sample(coins, rows, sampler="pymc", progressbar=False, **options)


def test_truth_lies_in_wide_intervals(post, coins):
    """Posterior mean within 4.5 posterior SD of the truth, for eight numbers: by chance 5e-5."""
    wanted = truth(coins)
    for name in ("p_heads", "class_weight"):
        draws = post["posterior"][name]
        assert draws.dims == ("chain", "draw", "class")
        gap = np.abs(draws.mean(("chain", "draw")) - wanted[name])
        assert (gap < 4.5 * draws.std(("chain", "draw"))).all()
    assert (np.diff(post["posterior"]["p_heads"].mean(("chain", "draw"))) > 0).all()


def test_predictive_draws_loo_and_do(post):
    predicted = post["posterior_predictive"]["counts"]
    assert predicted.sizes["cell"] == 17
    assert (predicted.sum("cell") == N).all()
    assert ((post["prior"]["p_heads"] > 0) & (post["prior"]["p_heads"] < 1)).all()
    answer = loo(post)
    assert answer.n_data_points == N
    # in-sample density of the cells at the posterior mean, less about as many units as parameters
    count = np.zeros(17)
    table = post["observed_data"].to_dataset()
    count[table["heads"].values] = table["count"].values
    seen = count > 0
    ceiling = (count[seen] * np.log(count[seen] / N)).sum()
    assert ceiling - 40 < answer.elpd < ceiling
    assert answer.p == pytest.approx(7, abs=4)
    assert float(do(post, {}, "heads")["mean"].mean()) == pytest.approx(8.0, abs=0.8)
