"""Baselines: right where what they assume holds, one effect for everybody where classes overlap."""

import numpy as np
import pytest

from pymc_mte import RefusedError, baselines, estimate, load_model, plot_baselines, simulate, truth
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


def test_figure(pair, table):
    model, rows = pair
    ours = estimate(model, rows, method="spectral", n_boot=4)
    figure = plot_baselines(table, ours, truth=truth(model))
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == [*table.index, "mixture of effects"]
    figure.draw_without_rendering()
    assert figure.axes[0].yaxis.get_tightbbox().x0 >= 0


def test_refusal():
    with pytest.raises(RefusedError, match="treatment"):
        baselines(load_model("gallery:carcinoma"))
