"""Sampling weights and clusters: what estimators see and what the bootstrap redraws."""

import numpy as np
import pytest
from scipy import stats

from pymc_mte import DataError, ModelError, estimate, simulate, tabulate
from pymc_mte.moments.bootstrap import Sampling
from pymc_mte.moments.problem import problem_of


@pytest.fixture
def frame(level3):
    return simulate(level3, 3_000, rng=6).drop_vars("latent_class").to_dataframe()


def test_weights_undo_an_oversample(level3, frame, rng):
    """Rows with x = 1 were kept with probability 1/4; the weights give the full sample's estimate."""
    kept = frame[(frame["x"] == 0) | (rng.random(len(frame)) < 0.25)]
    weighted = kept.assign(w=np.where(kept["x"] == 1, 4.0, 1.0))
    full = estimate(level3, frame, n_boot=40)["estimate"]
    table = tabulate(weighted, level3, weight="w")
    assert table.attrs["n"] == len(kept)
    assert (table["count"] * table["sampling_weight"]).sum().item() == pytest.approx(len(kept))
    answer = estimate(level3, table, n_boot=200)["estimate"]
    # about 4 standard errors of the subsample's estimate
    assert answer["ate"].item() == pytest.approx(full["ate"].item(), abs=4 * answer["se_ate"].item())
    share = (table["count"] * table["sampling_weight"] * table["x"]).sum().item() / len(kept)
    assert share == pytest.approx(frame["x"].mean(), abs=0.03)


def test_equal_weights_change_nothing(level3, frame):
    plain = estimate(level3, frame, n_boot=0)["estimate"]
    same = estimate(level3, tabulate(frame.assign(w=2.5), level3, weight="w"), n_boot=0)["estimate"]
    assert same["ate"].item() == pytest.approx(plain["ate"].item(), abs=1e-9)


def test_clusters_of_copies_widen_the_errors(level3, frame):
    """Every row four times in a cluster of its own: the errors are those of the single rows."""
    copies = frame.loc[frame.index.repeat(4)].assign(school=np.repeat(np.arange(len(frame)), 4))
    single = estimate(level3, frame, method="spectral", n_boot=400)["estimate"]["se_ate"].item()
    naive = estimate(level3, copies, method="spectral", n_boot=400)["estimate"]["se_ate"].item()
    table = tabulate(copies, level3, cluster="school")
    honest = estimate(level3, table, method="spectral", n_boot=400)["estimate"]["se_ate"].item()
    assert naive == pytest.approx(single / 2, rel=0.25)
    assert honest == pytest.approx(single, rel=0.25)  # two bootstraps of 400: 5% each


def test_resamples_keep_whole_clusters(rng):
    design = Sampling(counts=np.array([2.0, 3.0, 5.0]), cluster=np.array([0, 0, 1]))
    drawn = design.redraw(200, rng)
    np.testing.assert_allclose(drawn[:, 0] / 2, drawn[:, 1] / 3)
    assert set(np.unique(drawn[:, 2])) <= {0.0, 5.0, 10.0}
    weighted = Sampling(counts=np.array([2.0, 3.0]), weight=np.array([0.5, 2.0]))
    assert weighted.effective.tolist() == [1.0, 6.0]
    assert not weighted.simple


def test_no_delta_errors_where_rows_are_not_alike(level3, frame):
    table = tabulate(frame.assign(w=np.arange(1, 3_001) / 100), level3, weight="w")
    answer = estimate(level3, table, method="bridge", n_boot=40)
    assert "se_delta_ate" not in answer["estimate"]
    assert "ate_robust_set" not in answer.attrs
    assert problem_of(level3, table).counts.sum() == pytest.approx(3_000)


def test_weights_must_be_positive(level3, frame):
    with pytest.raises(DataError, match="must be positive"):
        tabulate(frame.assign(w=0.0), level3, weight="w")
    with pytest.raises(DataError, match="missing values in cluster"):
        tabulate(frame.assign(g=np.nan), level3, cluster="g")


def bayesian(**fields):
    return Sampling(resample="bayesian", **{n: np.asarray(v) for n, v in fields.items()})


def test_bayesian_weights_spread_like_resamples(rng):
    """Variances n p (1 - p) of 20,000 draws: known to 1%, and 5 standard errors are allowed."""
    counts = np.array([40.0, 25.0, 0.0, 5.0, 30.0])
    drawn = bayesian(counts=counts).redraw(20_000, rng)
    np.testing.assert_allclose(drawn.sum(axis=1), 100)
    np.testing.assert_allclose(drawn.mean(axis=0), counts, atol=5 * 5 / np.sqrt(20_000))
    wanted = counts * (1 - counts / 100) * 100 / 101
    np.testing.assert_allclose(drawn.var(axis=0), wanted, rtol=0.05)
    assert (drawn[:, counts > 0] > 0).all()
    assert (drawn[:, 2] == 0).all()


def test_bayesian_weights_do_not_care_how_rows_are_collapsed(rng):
    """Twelve single rows or one pattern of twelve: the same law of their total weight."""
    rows = bayesian(counts=np.ones(30)).redraw(20_000, rng)[:, :12].sum(axis=1)
    pattern = bayesian(counts=[12.0, 18.0]).redraw(20_000, rng)[:, 0]
    # Kolmogorov-Smirnov: fails once in 10,000 fresh seeds
    assert stats.ks_2samp(rows, pattern).pvalue > 1e-4


def test_bayesian_weights_belong_to_clusters_and_come_times_sampling_weights(rng):
    design = bayesian(counts=[2.0, 3.0, 5.0], cluster=np.array([0, 0, 1]), weight=[1.0, 2.0, 0.5])
    drawn = design.redraw(5_000, rng)
    np.testing.assert_allclose(drawn[:, 0] / 2, drawn[:, 1] / 6)
    np.testing.assert_allclose(drawn[:, 0] / 2 + drawn[:, 2] / 2.5, 2)  # two clusters, two in all
    share = drawn[:, 0] / 4
    # two exponential weights, normalised: uniform, of standard deviation .289 / sqrt(5,000)
    assert share.mean() == pytest.approx(0.5, abs=5 * 0.289 / np.sqrt(5_000))
    assert share.var() == pytest.approx(1 / 12, rel=0.1)


@pytest.mark.parametrize("method", ["spectral", "polished", "bridge"])
def test_both_bootstraps_know_the_same_errors(level3, frame, method):
    """Robust errors from 1,000 replicates are known to 3%, their ratio to 4.3%: 15% is 3.5 of those."""
    found = [
        estimate(level3, frame, method=method, n_boot=1_000, resample=resample)
        for resample in ("multinomial", "bayesian")
    ]
    assert [answer.attrs["resample"] for answer in found] == ["multinomial", "bayesian"]
    for name in ("ate", "att"):
        one, other = (answer["estimate"][f"se_{name}"].item() for answer in found)
        assert other == pytest.approx(one, rel=0.15)
    assert found[0]["estimate"]["ate"].item() == found[1]["estimate"]["ate"].item()


def test_an_unknown_resample_is_refused(level3, frame):
    with pytest.raises(ModelError, match="resample is one of multinomial, bayesian, got 'jackknife'"):
        estimate(level3, frame, resample="jackknife")
