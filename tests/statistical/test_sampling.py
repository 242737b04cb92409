"""One real, small posterior of level3, looked at from every side; compiled and drawn once."""

import arviz as az
import numpy as np
import pytest
import xarray as xr

from pymc_mte import (
    CausalModel,
    DataError,
    ModelError,
    RefusedError,
    compare,
    compare_models,
    estimate,
    load,
    load_model,
    loo,
    plot_comparison,
    sample,
    save,
    simulate,
    tabulate,
    truth,
)
from pymc_mte.bayes.groups import total_log_likelihood
from pymc_mte.data import columns_of, fingerprint
from pymc_mte.moments.likelihood import fit_likelihood
from pymc_mte.moments.problem import problem_of
from pymc_mte.network import log_joint
from pymc_mte.results import model_of
from pymc_mte.status import Status, load_notes
from pymc_mte.summary import posterior_summary

pytestmark = pytest.mark.statistical

N, CHAINS, DRAWS = 2_000, 2, 200
GROUPS = {
    "posterior",
    "sample_stats",
    "prior",
    "prior_predictive",
    "posterior_predictive",
    "observed_data",
    "log_likelihood_pattern",
    "identification",
    "modes",
    "estimate",
}


@pytest.fixture(scope="module")
def rows(level3):
    return simulate(level3, N, rng=1)


@pytest.fixture(scope="module")
def start(level3, rows):
    return estimate(level3, rows, n_boot=100, rng=1)


@pytest.fixture(scope="module")
def post(level3, rows, start):
    return sample(
        level3,
        rows,
        start=start,
        draws=DRAWS,
        tune=300,
        chains=CHAINS,
        random_seed=1,
        progressbar=False,
    )


@pytest.fixture(scope="module")
def table(post, start):
    return compare(post, start, n_boot=40)


def test_groups_and_axes(post, level3):
    assert {g.strip("/") for g in post.groups} - {""} == GROUPS
    assert "log_likelihood" not in post.children  # so that az.loo refuses instead of misleading
    p = post["posterior"]
    assert dict(p.sizes) | {"chain": CHAINS, "draw": DRAWS} == dict(p.sizes)
    assert p["effect"].dims == ("chain", "draw", "class")
    assert p["p_t"].dims == ("chain", "draw", "class", "z", "t")
    np.testing.assert_allclose(p["p_t"].sum("t"), 1.0, atol=1e-12)
    assert p.attrs["kind"] == "mcmc"
    assert int(post["observed_data"]["count"].sum()) == N
    assert post["posterior_predictive"]["counts"].dims == ("chain", "draw", "cell")
    assert (post["posterior_predictive"]["counts"].sum("cell") == N).all()
    assert (post["prior_predictive"]["counts"].sum("cell") == N).all()
    assert {"ate", "effect", "p_z"} <= set(post["prior"].data_vars)
    assert model_of(post) == level3
    assert post.attrs["n"] == N
    assert post.attrs["random_seed"] == 1


def test_prior_of_effects_is_symmetric(post):
    """The default prior is exchangeable: mean effects of 100 draws are within 4.5 SE of zero."""
    effect = post["prior"]["ate"].values.ravel()
    assert abs(effect.mean()) < 4.5 * effect.std(ddof=1) / np.sqrt(effect.size)


def test_labels_are_aligned(post, start):
    """Every chain has its classes in the order of the start; no draw is on the other side."""
    effect = post["posterior"]["effect"].values
    assert (effect.mean(axis=1)[:, 0] < effect.mean(axis=1)[:, 1]).all()
    assert post.attrs["switching_share"] < 0.01
    means = effect.mean(axis=(0, 1))
    np.testing.assert_allclose(means, start["estimate"]["effect"], atol=0.3)


def test_truth_lies_in_wide_intervals(post, level3):
    """Posterior mean within 4.5 posterior SD of the truth: by chance about 7e-6 each."""
    wanted = truth(level3)
    for name in ("effect", "class_weight", "ate", "att", "potential_outcome", "p_z", "p_t"):
        draws = post["posterior"][name]
        sd = draws.std(("chain", "draw")).values
        gap = np.abs(draws.mean(("chain", "draw")).values - wanted[name].values)
        assert (gap < 4.5 * sd).all(), name
    assert float(post["posterior"]["ate"].std()) < 0.15


def test_functionals_follow_from_the_parameters(post, level3, tools):
    draw = {n: post["posterior"][n].values[1, 7] for n in level3.dims}
    for arm in range(2):
        for u in range(2):
            assert float(post["posterior"]["potential_outcome"][1, 7, u, arm]) == pytest.approx(
                tools.interventional(level3, draw, arm, u), abs=1e-12
            )


def test_few_predictive_data_sets_of_large_data_come_as_one_chain(level3, rows, monkeypatch):
    monkeypatch.setattr("pymc_mte.bayes.groups.MAX_PREDICTIVE", 1)
    short = sample(level3, rows, draws=30, tune=100, chains=4, random_seed=1, progressbar=False)
    predicted = short["posterior_predictive"].to_dataset()
    assert (predicted.sizes["chain"], predicted.sizes["draw"]) == (1, 10)


def test_posterior_predictive_resembles_the_data(post, level3, rows):
    """Each cell's count within 6 predictive SD of the observed one (about 2e-9 each)."""
    drawn = post["posterior_predictive"]["counts"].values.reshape(-1, 16)
    observed = np.zeros(16)
    data = post["observed_data"]
    where = np.ravel_multi_index([data[v].values for v in ("z", "x", "t", "y")], (2,) * 4)
    observed[where] = data["count"].values
    assert (np.abs(drawn.mean(axis=0) - observed) < 6 * drawn.std(axis=0)).all()


def test_log_likelihood_is_that_of_one_row(post, level3, tools):
    draw = {n: post["posterior"][n].values[0, 3] for n in level3.dims}
    data = post["observed_data"]
    for i in range(data.sizes["pattern"]):
        cell = {v: int(data[v][i]) for v in level3.variables}
        p = sum(tools.natural_probability(level3, draw, u, cell) for u in range(2))
        got = float(post["log_likelihood_pattern"]["log_p"][0, 3, i])
        assert got == pytest.approx(np.log(p), abs=1e-12)


def test_loo_equals_the_row_wise_one(post, level3, rows):
    data = post["observed_data"].to_dataset()
    columns, repeat = columns_of(data, level3), data["count"].values.astype(int)
    draws = {n: post["posterior"][n].values for n in level3.dims}
    log_p = np.logaddexp.reduce(log_joint(level3, draws, columns), axis=-2)
    each = np.repeat(log_p, repeat, axis=-1)
    tree = xr.DataTree.from_dict(
        {
            "posterior": post["posterior"].to_dataset()[["class_weight"]],
            "log_likelihood": xr.Dataset({"log_p": (("chain", "draw", "row"), each)}),
        }
    )
    wanted, got = az.loo(tree, pointwise=True), loo(post)
    assert got.elpd == pytest.approx(wanted.elpd, rel=1e-6)
    assert got.se == pytest.approx(wanted.se, rel=1e-6)
    assert got.p == pytest.approx(wanted.p, rel=1e-6)
    assert got.n_data_points == N
    # rows come in an order that every model of the same data shares, not in that of the columns
    np.testing.assert_allclose(np.sort(got.elpd_i), np.sort(wanted.elpd_i), rtol=1e-6)
    np.testing.assert_allclose(np.sort(got.pareto_k), np.sort(wanted.pareto_k), atol=1e-6)


def test_rows_of_models_that_list_variables_differently_are_paired(post, level3, rows):
    """The same draws under another order of the columns differ from themselves by nothing."""
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    turned = CausalModel(**fields | {"variables": dict(reversed(level3.variables.items()))})
    other = post.copy()
    other["observed_data"] = xr.DataTree(tabulate(rows, turned))
    other.attrs = {**post.attrs, "model": turned.to_toml()}
    del other["log_likelihood_pattern"]
    assert fingerprint(turned, other["observed_data"].to_dataset()) == post.attrs["fingerprint"]
    ranked = compare_models({"one": post, "other": other})
    assert ranked["dse"].max() < 1e-6


def test_loo_does_not_need_the_stored_likelihood(post):
    without = post.copy()
    del without["log_likelihood_pattern"]
    assert loo(without).elpd == pytest.approx(loo(post).elpd, rel=1e-12)


def test_compare_models_ranks(post, level3):
    other = post.copy()
    shifted = other["log_likelihood_pattern"]["log_p"] - 0.1
    other["log_likelihood_pattern"] = xr.DataTree(shifted.to_dataset(name="log_p"))
    ranked = compare_models({"good": post, "bad": other})
    assert list(ranked.index) == ["good", "bad"]
    assert "log_evidence" not in ranked
    assert (ranked["parameters"] == 13).all()
    best = fit_likelihood(problem_of(level3, post["observed_data"].to_dataset()))[0]
    columns = columns_of(post["observed_data"].to_dataset(), level3)
    top = np.logaddexp.reduce(log_joint(level3, best, columns), axis=-2)[0]
    top = float(top @ post["observed_data"]["count"].values)
    assert ranked.loc["good", "log_likelihood"] == pytest.approx(top, abs=0.01)
    assert ranked.loc["good", "bic"] == pytest.approx(-2 * top + 13 * np.log(N), abs=0.02)
    other.attrs["log_evidence"] = -1234.5
    ranked = compare_models({"good": post, "bad": other})
    assert ranked.loc["bad", "log_evidence"] == -1234.5
    assert np.isnan(ranked.loc["good", "log_evidence"])
    other.attrs["fingerprint"] = "of other rows"
    with pytest.raises(DataError, match="same rows and columns only"):
        compare_models({"good": post, "bad": other})


def test_comparison_with_the_moments(table, start, post):
    assert table.index.name == "functional"
    assert list(table.index[:3]) == ["ate", "att", "effect_sd"]
    assert {"effect[class 0]", "class_weight[class 1]"} <= set(table.index)
    row = table.loc["ate"]
    draws = post["posterior"]["ate"].values
    assert row["mean"] == pytest.approx(draws.mean())
    assert row["lower"] == pytest.approx(np.quantile(draws, 0.05))
    assert row["upper"] == pytest.approx(np.quantile(draws, 0.95))
    assert row["bridge"] == pytest.approx(float(start["estimate"]["ate_bridge"]), abs=1e-8)
    assert row["ml"] == pytest.approx(float(start["estimate"]["ate"]), abs=1e-3)
    assert table.loc["effect_sd", "verdict"] == "not tested"
    tested = table[np.isfinite(table["z"])]
    assert len(table.attrs["tests"]) == 3
    assert table["contraction"].loc["ate"] > 0.5
    assert np.isfinite(table.loc["ate", ["z", "z_bridge_spectral", "z_bridge_ml"]].astype(float)).all()
    # The model is true. |z| > 2.6: 1% of rows; here none of about ten dependent ones (seed fixed).
    assert (tested["verdict"] == "agree").all()


def test_comparison_wants_the_same_question(post, level3, rows):
    other = estimate(level3, simulate(level3, 500, rng=2), n_boot=4)
    with pytest.raises(DataError, match=r"different data.*2000 and\s+500"):
        compare(post, other)
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    renamed = estimate(CausalModel(**{**fields, "better": "lower"}), rows, n_boot=4)
    with pytest.raises(DataError, match="different models"):
        compare(post, renamed)


def test_summary_is_of_ninety_percent(post):
    summary = posterior_summary(post)
    draws = post["posterior"]["effect"].values[..., 1]
    row = summary.loc["effect[class 1]"]
    assert row["lower"] == pytest.approx(np.quantile(draws, 0.05))
    assert row["upper"] == pytest.approx(np.quantile(draws, 0.95))
    assert (summary["r_hat"].dropna() < 1.1).all()


def test_what_was_learnt_is_kept_and_shown(post):
    """An easy model: every variance falls by more than half, no word of doubt, one optimum."""
    learnt, summary = post["identification"].to_dataset(), posterior_summary(post)
    assert learnt["entry"].values.tolist() == summary.index.tolist()
    np.testing.assert_array_equal(learnt["contraction"], summary["contraction"])
    assert learnt["diagnosis"].values.tolist() == summary["diagnosis"].tolist()
    assert (summary["contraction"] > 0.5).all()
    assert not summary["diagnosis"].isin(["not checked", "strong prior / weak likelihood"]).any()
    assert (learnt["chain_disagreement"] < 1).all()
    assert learnt.attrs["chains_at_best"] == 1
    assert 0 < learnt.attrs["starts_at_best"] <= 1
    said = {note.status for note in load_notes(post.attrs["notes"])}
    assert not said & {Status.PRIOR_DOMINATED, Status.CHAINS_APART}


def test_total_log_likelihood_does_not_need_the_stored_one(post, level3):
    without = post.copy()
    del without["log_likelihood_pattern"]
    table = post["observed_data"].to_dataset()
    stored, anew = (total_log_likelihood(tree, level3, table) for tree in (post, without))
    np.testing.assert_allclose(stored, anew, rtol=1e-12)
    density = post["sample_stats"]["logp"].values  # adds the prior: by far the smaller part
    assert np.corrcoef(stored.ravel(), density.ravel())[0, 1] > 0.5


def test_figure_has_both_answers(post, start, table):
    from matplotlib.figure import Figure

    figure = plot_comparison(post, start, table=table)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 2
    figure.canvas.draw()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["posterior", "spectral", "bridge"]


def test_save_and_load_change_nothing(post, tmp_path):
    again = load(save(post, tmp_path / "post.nc"))
    assert set(again.groups) == set(post.groups)
    assert dict(again.attrs) == dict(post.attrs)
    for group in post.groups:
        xr.testing.assert_identical(again[group].to_dataset(), post[group].to_dataset())
    assert loo(again).elpd == pytest.approx(loo(post).elpd, rel=1e-12)


def test_arviz_takes_it_as_it_is(post):
    assert len(az.summary(post, var_names=["ate", "effect"])) == 3


def test_chains_start_where_they_were_told(post, level3):
    """Chains differ: jittered starts, distinct seeds."""
    first = post["posterior"]["ate"].values
    assert not np.allclose(first[0], first[1])


@pytest.mark.slow
def test_same_seed_same_draws(level3, rows, start):
    options = {"draws": 20, "tune": 50, "chains": 2, "random_seed": 3, "progressbar": False}
    one, two = (sample(level3, rows, start=start, **options) for _ in range(2))
    xr.testing.assert_identical(one["posterior"].to_dataset(), two["posterior"].to_dataset())


@pytest.mark.slow
def test_pymc_sampler_gives_the_same_answer(level3, rows, start, post):
    """Difference of two chains' means under 4.5 standard errors, ESS at least 50 assumed."""
    other = sample(
        level3,
        rows,
        start=start,
        sampler="pymc",
        draws=200,
        tune=300,
        chains=2,
        cores=1,
        random_seed=1,
        progressbar=False,
    )
    assert {g.strip("/") for g in other.groups} - {""} == GROUPS
    for name in ("ate", "effect", "class_weight"):
        a, b = (t["posterior"][name] for t in (post, other))
        gap = np.abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw")))
        assert (gap < 4.5 * np.sqrt(2 / 50) * a.std(("chain", "draw"))).all()


def test_sampling_is_refused_where_the_model_says_so():
    with pytest.raises(RefusedError, match="hurdle"):
        sample(load_model("gallery:lalonde"))


def test_unknown_sampler(level3, rows):
    with pytest.raises(ModelError, match="choose one of nutpie, pymc"):
        sample(level3, rows, sampler="stan")


def test_tabulated_rows_are_enough(level3, rows, post):
    xr.testing.assert_equal(tabulate(rows, level3), post["observed_data"].to_dataset())
