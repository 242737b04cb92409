"""Sampling weights and clusters: what estimators see and what the bootstrap redraws."""

import numpy as np
import pytest

from pymc_mte import DataError, RefusedError, build_model, estimate, simulate, tabulate
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


def test_weights_must_be_positive_and_the_posterior_refuses_them(level3, frame):
    with pytest.raises(DataError, match="must be positive"):
        tabulate(frame.assign(w=0.0), level3, weight="w")
    with pytest.raises(DataError, match="missing values in cluster"):
        tabulate(frame.assign(g=np.nan), level3, cluster="g")
    with pytest.raises(RefusedError, match="sampling weights are for `estimate`"):
        build_model(level3, tabulate(frame.assign(w=1.5), level3, weight="w"))
