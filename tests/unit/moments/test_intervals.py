"""Percentile and bias-corrected intervals, against their definitions."""

import numpy as np
import pytest
from scipy import stats

from pymc_mte import ModelError, estimate, simulate
from pymc_mte.moments.intervals import bias_corrected_interval, percentile_interval
from pymc_mte.summary import moment_summary


@pytest.mark.parametrize("n", [39, 199, 399])
def test_tails_hold_their_share_of_fresh_replicates(rng, n):
    """Of n + 1 exchangeable draws the last one is below order statistic i with probability i / (n + 1)."""
    draws = rng.permutation(np.arange(1.0, n + 1))
    np.testing.assert_allclose(percentile_interval(draws, 0.9), [0.05 * (n + 1), 0.95 * (n + 1)])


def test_a_point_at_the_median_needs_no_correction(rng):
    draws = rng.gamma(2.0, size=(201, 3, 2))
    point = np.median(draws, axis=0)
    corrected = bias_corrected_interval(draws, point, 0.8)
    np.testing.assert_allclose(corrected, percentile_interval(draws, 0.8), rtol=0, atol=1e-12)
    assert corrected.shape == (2, 3, 2)


@pytest.mark.parametrize("bias", [-0.5, 0.0, 0.3])
def test_the_correction_moves_by_twice_the_median_bias(bias):
    """Normal replicates centred at point + bias: the interval is centred at point - bias."""
    grid = stats.norm.ppf(np.arange(1, 20_000) / 20_000)
    found = bias_corrected_interval(2.0 + bias + grid, np.array(2.0), 0.9)
    np.testing.assert_allclose(found, 2.0 - bias + stats.norm.ppf([0.05, 0.95]), atol=2e-3)
    # and it follows the replicates to any scale
    other = bias_corrected_interval(np.exp(2.0 + bias + grid), np.exp(np.array(2.0)), 0.9)
    np.testing.assert_allclose(np.log(other), found, atol=1e-3)


def test_replicates_without_an_answer_are_left_out(rng):
    draws = rng.normal(size=100)
    gaps = np.concatenate([draws, np.full(20, np.nan)])
    np.testing.assert_array_equal(percentile_interval(gaps, 0.9), percentile_interval(draws, 0.9))
    point = np.array(0.1)
    np.testing.assert_array_equal(
        bias_corrected_interval(gaps, point, 0.9), bias_corrected_interval(draws, point, 0.9)
    )
    for few in (np.zeros(0), np.ones(1), np.full(5, np.nan)):
        assert np.isnan(percentile_interval(few, 0.9)).all()
        assert np.isnan(bias_corrected_interval(few, point, 0.9)).all()
    assert np.isnan(bias_corrected_interval(draws, np.array(np.nan), 0.9)).all()


def test_a_point_beyond_all_replicates_shrinks_to_the_extreme_one():
    draws = np.arange(1.0, 100.0)
    np.testing.assert_array_equal(bias_corrected_interval(draws, np.array(0.0), 0.9), [1.0, 1.0])
    np.testing.assert_array_equal(bias_corrected_interval(draws, np.array(200.0), 0.9), [99.0, 99.0])


def test_the_table_has_either_interval(level3):
    tree = estimate(level3, simulate(level3, 2_000, rng=3), method="spectral", n_boot=200)
    draws = tree["posterior"]["ate"].values.ravel()
    plain, other = moment_summary(tree), moment_summary(tree, interval="bias_corrected")
    np.testing.assert_allclose(plain.loc["ate", ["lower", "upper"]], percentile_interval(draws, 0.9))
    point = tree["estimate"]["ate"].values
    wanted = bias_corrected_interval(draws, point, 0.9)
    np.testing.assert_allclose(other.loc["ate", ["lower", "upper"]], wanted)
    np.testing.assert_array_equal(plain["value"], other["value"])
    with pytest.raises(ModelError, match="interval is one of percentile, bias_corrected, got 'wide'"):
        moment_summary(tree, interval="wide")


def test_no_replicates_no_interval(level3):
    tree = estimate(level3, simulate(level3, 500, rng=3), method="spectral", n_boot=0)
    for kind in ("percentile", "bias_corrected"):
        assert moment_summary(tree, interval=kind)[["lower", "upper"]].isna().all(axis=None)
