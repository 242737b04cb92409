"""Baselines: right where what they assume holds, one effect for everybody where classes overlap."""

from types import SimpleNamespace

import numpy as np
import pytest

import pymc_mte.forest as forest
from pymc_mte import (
    ModelError,
    RefusedError,
    baselines,
    estimate,
    load_model,
    plot_baselines,
    population,
    simulate,
    truth,
)
from pymc_mte.baselines import _grouped
from pymc_mte.moments.grouping import contrast, gaussian_mixture, k_means, regression


@pytest.fixture(scope="module")
def pair():
    model = load_model("gallery:paper_pair")
    return model, simulate(model, 20_000, rng=1)


@pytest.fixture(scope="module")
def table(pair):
    return baselines(*pair)


def test_only_the_oracle_finds_both_effects(pair, table):
    """True effects are 0 and 1/2; groups by similar proxies blur them. Standard errors are about 0.015."""
    oracle = table.loc["measured class (oracle)"]
    assert oracle["effect[class 0]"] == pytest.approx(0.0, abs=0.06)
    assert oracle["effect[class 1]"] == pytest.approx(0.5, abs=0.06)
    for name in ("k-means groups", "Gaussian-mixture groups", "latent classes of proxies"):
        row = table.loc[name]
        assert row["effect[class 1]"] - row["effect[class 0]"] < 0.45, name
        assert row["class_weight[class 0]"] + row["class_weight[class 1]"] == pytest.approx(1.0)


def test_naive_difference_and_regression_are_the_textbook_ones(pair, table):
    model, rows = pair
    y, t = (np.asarray(rows[n].values, dtype=float) for n in ("y", "t"))
    assert table.loc["naive difference", "ate"] == pytest.approx(y[t == 1].mean() - y[t == 0].mean())
    proxies = [rows[n].values for n in (*model.treatment_proxies, *model.outcome_proxies)]
    design = np.column_stack([t, np.ones(len(t)), *proxies])
    slope = np.linalg.lstsq(design, y)[0][0]
    assert table.loc["regression on all proxies", "ate"] == pytest.approx(slope)


def test_groups_that_do_not_overlap_are_found(rng):
    centre = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    points = np.repeat(centre, 30, axis=0) + rng.normal(size=(90, 2))
    for method in (k_means, gaussian_mixture):
        member = method(points, np.ones(90), 3, rng)
        assert (np.sort(member.sum(axis=1).round()) == 30).all()
        np.testing.assert_allclose(member.sum(axis=0), 1.0)


def test_counts_stand_for_rows(rng):
    """Patterns with counts give what the same rows one by one give."""
    y, t, x = rng.integers(0, 2, size=(3, 12)).astype(float)
    t[:2] = 0, 1
    counts = rng.integers(1, 6, size=12)
    long = [np.repeat(v, counts) for v in (y, t, x)]
    ones = np.ones(counts.sum())
    assert contrast(y, t.astype(int), counts, (1, 0)) == pytest.approx(
        contrast(long[0], long[1].astype(int), ones, (1, 0))
    )
    assert regression(y, t, x[:, None], counts) == pytest.approx(
        regression(long[0], long[1], long[2][:, None], ones)
    )


def test_few_rows_give_no_standard_error():
    """One row in an arm, or as many coefficients as rows: nothing is left that would show an error."""
    outcome, arm, ones = np.array([0.0, 1.0, 3.0]), np.array([0, 1, 1]), np.ones(3)
    assert contrast(outcome, arm, ones, (1, 0)) == (2.0, pytest.approx(np.nan, nan_ok=True))
    assert contrast(outcome, arm, 2 * ones, (1, 0)) == (2.0, pytest.approx(0.5))
    slope, se = regression(outcome, arm.astype(float), np.array([[0.0], [0.0], [1.0]]), ones)
    assert (slope, np.isnan(se)) == (pytest.approx(1.0), True)
    assert np.isfinite(regression(outcome, arm.astype(float), np.zeros((3, 1)), ones)[1])


def test_groups_without_one_arm_leave_average_and_error_to_the_others():
    """By hand: a group of 4 (effect 2, variances 1 / 2 and 0) counts whole beside one of 6 untreated rows."""
    outcome, arm = np.array([1.0, 1.0, 2.0, 4.0, *range(6)]), np.array([0, 0, 1, 1, *[0] * 6])
    mass = np.repeat(np.eye(2), (4, 6), axis=1)
    found = _grouped(outcome, arm, mass, (1, 0))
    assert (found["ate"], found["se"]) == (2.0, pytest.approx(np.sqrt(0.5)))
    assert (found["effect[class 0]"], found["class_weight[class 0]"]) == (2.0, 0.4)
    tiny = np.vstack([mass, 1e-9 * np.ones(10)])
    assert _grouped(outcome, arm, tiny, (1, 0))["se"] == pytest.approx(np.sqrt(0.5))
    assert np.isnan(_grouped(outcome, arm, mass * (np.arange(10) != 3), (1, 0))["se"])


def test_figure(pair, table):
    model, rows = pair
    ours = estimate(model, rows, method="spectral", n_boot=4)
    figure = plot_baselines(table, ours, truth=truth(model))
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == [*table.index, "mixture of effects"]
    figure.draw_without_rendering()
    assert figure.axes[0].yaxis.get_tightbbox().x0 >= 0


def test_replicates_without_an_answer_leave_the_interval_of_the_others(pair, table):
    model, rows = pair
    ours = estimate(model, rows, method="spectral", n_boot=8)
    ate = ours["posterior"]["ate"].values
    ate[0, 0] = np.nan
    drawn = plot_baselines(table, ours).axes[0].lines
    widths = [np.ptp(line.get_xdata()) for line in drawn if len(line.get_xdata())]
    assert np.isclose(widths, 2 * 1.645 * np.nanstd(ate)).any()


def test_refusal():
    with pytest.raises(RefusedError, match="treatment"):
        baselines(load_model("gallery:carcinoma"))


def test_an_arm_without_rows_is_refused(pair):
    model, rows = pair
    frame = {name: rows[name].values for name in model.variables}
    with pytest.raises(RefusedError, match="0 has no rows"):
        baselines(model, frame | {"t": np.ones(len(frame["t"]), dtype=int)})


def test_figure_of_another_table(table):
    with pytest.raises(ModelError, match="table of `baselines`"):
        plot_baselines(table.drop(columns="assumes"))


def test_no_forest_without_the_extra(pair, monkeypatch):
    monkeypatch.setattr(forest, "find_spec", lambda name: None)
    assert "causal forest" not in baselines(*pair).index


def test_forest_is_grown_on_rows(rng, monkeypatch):
    """Patterns become rows; of too many a part is drawn, each at most as often as it occurs."""
    assert forest._drawn(np.array([2.0, 0.0, 3.0, 1.0]), rng).tolist() == [0, 0, 2, 2, 2, 3]
    assert forest._drawn(np.array([0.4, 2.6]), rng).tolist() == [1, 1, 1]  # a population's
    monkeypatch.setattr(forest, "MAX_ROWS", 100)
    counts = np.array([1.0, 60.0, 139.0])
    drawn = np.bincount(forest._drawn(counts, rng), minlength=3)
    assert drawn.sum() == 100
    assert (drawn <= counts).all()
    assert abs(drawn[1] - 30) < 15  # hypergeometric, standard deviation 3.3: by chance 1e-5


def adjusted(model):
    """Share and effect of every combination of the proxies in the population, the class unknown."""
    proxies = [*model.treatment_proxies, *model.outcome_proxies]
    cells = population(model).to_dataframe()
    cells["yes"] = cells["count"] * cells["y"]
    sums = cells.groupby([*proxies, "t"])[["count", "yes"]].sum()
    mean = (sums["yes"] / sums["count"]).unstack("t")
    share = sums["count"].groupby(proxies).sum()
    return share / share.sum(), mean[1] - mean[0]


@pytest.mark.statistical
def test_forest_adjusts_for_the_proxies_and_finds_no_classes(pair):
    """It estimates what adjusting for the proxies gives; |z| > 4.5 by chance: 7e-6."""
    pytest.importorskip("econml")
    share, effect = adjusted(pair[0])
    row = baselines(*pair).loc["causal forest"]
    assert abs(row["ate"] - share @ effect) < 4.5 * row["se"]
    assert 0.005 < row["se"] < 0.01  # 20,000 rows with an SD near 1/2 in two arms: 0.007
    low, high = row["effect[class 0]"], row["effect[class 1]"]
    assert effect.min() - 0.05 < low < high < effect.max() + 0.05
    assert 0.1 < high - low < 0.4  # the classes' effects differ by 1/2
    assert row["class_weight[class 0]"] + row["class_weight[class 1]"] == pytest.approx(1.0)


def confounded(rng, n):
    """Effect 0 where x is 0, 1 where it is 1; x raises treatment and outcome. The second column is noise."""
    x, noise = rng.random(n) < 0.5, rng.normal(size=n)
    treated = rng.random(n) < np.where(x, 0.7, 0.3)
    outcome = 2.0 * x + treated * x + 0.3 * rng.normal(size=n)
    return np.column_stack([x, noise]), treated, outcome


@pytest.mark.statistical
def test_forest_with_sampling_weights(rng):
    """Rows with x = 1 weigh three times as much: the average effect is 3/4, the naive difference above 1."""
    pytest.importorskip("econml")
    points, treated, outcome = confounded(rng, 4_000)
    weights = np.where(points[:, 0] > 0, 3.0, 1.0)
    found = forest.causal_forest(points, treated, outcome, np.ones(4_000), weights, 2, rng)
    assert abs(found["ate"] - 0.75) < 4.5 * found["se"]
    assert 0.005 < found["se"] < 0.03
    assert found["effect[class 0]"] == pytest.approx(0.0, abs=0.1)
    assert found["effect[class 1]"] == pytest.approx(1.0, abs=0.1)
    assert found["class_weight[class 1]"] == pytest.approx(0.75, abs=0.03)


@pytest.mark.statistical
def test_forest_takes_counts_for_rows(rng):
    """Other folds, the same rows: within one standard error of each other."""
    pytest.importorskip("econml")
    points, treated, outcome = confounded(rng, 4_000)
    rows = np.column_stack([points > 0, treated, outcome > 1])
    ones = np.ones(4_000)
    single = forest.causal_forest(rows[:, :2], rows[:, 2], rows[:, 3] * 1.0, ones, ones, 2, rng)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    ones = np.ones(len(cells))
    counted = forest.causal_forest(cells[:, :2], cells[:, 2], cells[:, 3] * 1.0, counts, ones, 2, rng)
    assert counted["ate"] == pytest.approx(single["ate"], abs=single["se"])
    assert counted["se"] == pytest.approx(single["se"], rel=0.1)


@pytest.mark.statistical
def test_scores_are_right_with_the_right_treatment_probability_alone(rng, monkeypatch):
    """Whatever the forests of outcome and effect say; |z| > 4.5 by chance: 7e-6."""
    pytest.importorskip("sklearn")

    def says(function):
        return SimpleNamespace(predict=function)

    told = {
        "treated": says(lambda points: np.where(points[:, 0] > 0, 0.7, 0.3)),
        "outcome": says(lambda points: points[:, 0] - 1.0),
        "effect": says(lambda points: np.full((len(points), 1), 3.0)),
    }
    monkeypatch.setattr(forest, "_grow", lambda *given: told)
    points, treated, outcome = confounded(rng, 20_000)
    _, score = forest._scores(points, treated, outcome, np.ones(20_000), 1)
    for value in (0, 1):
        part = score[points[:, 0] == value]
        assert abs(part.mean() - value) < 4.5 * part.std() / np.sqrt(len(part))


@pytest.mark.statistical
def test_forest_of_effects_is_grown_on_what_the_others_leave(rng):
    """No effect, strong confounding: without taking the confounder out, single effects are above 1."""
    pytest.importorskip("econml")
    x = rng.normal(size=2_000)
    treated = rng.random(2_000) < 1 / (1 + np.exp(-2 * x))
    outcome = 5 * x + 0.3 * rng.normal(size=2_000)
    effect, _ = forest._scores(x[:, None], treated, outcome, np.ones(2_000), 1)
    assert np.abs(effect).mean() < 0.4


@pytest.mark.statistical
def test_forest_agrees_with_the_doubly_robust_average_of_its_library(rng):
    """Same rows, other folds and out-of-bag effects: within one standard error of each other."""
    dml = pytest.importorskip("econml.dml")
    ensemble = pytest.importorskip("sklearn.ensemble")
    points, treated, outcome = confounded(rng, 2_000)
    ones = np.ones(2_000)
    found = forest.causal_forest(points, treated, outcome, ones, ones, 2, rng)
    theirs = dml.CausalForestDML(
        model_y=ensemble.RandomForestRegressor(min_samples_leaf=20, random_state=1),
        model_t=ensemble.RandomForestClassifier(min_samples_leaf=20, random_state=1),
        discrete_treatment=True,
        n_jobs=1,
        random_state=1,
    ).fit(outcome, treated.astype(int), X=points)
    assert found["ate"] == pytest.approx(float(theirs.ate_.item()), abs=found["se"])
    assert found["se"] == pytest.approx(float(theirs.ate_stderr_.item()), rel=0.2)


def test_no_forest_from_a_handful_of_rows(rng):
    points, treated, outcome = confounded(rng, 25)
    found = forest.causal_forest(points, treated, outcome, np.ones(25), np.ones(25), 2, rng)
    assert np.isnan(found["ate"])
