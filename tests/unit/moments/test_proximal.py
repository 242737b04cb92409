"""Bridges with covariates, errors without resampling and the weak-proxy-robust set.

No claim here fails by chance: seeds are fixed, and each random claim names how often a right
implementation would miss it on a fresh seed.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from scipy import optimize, stats

from pymc_mte import ModelError, population, simulate, tabulate, truth
from pymc_mte.data import columns_of
from pymc_mte.moments.bootstrap import Sampling, resampled_counts
from pymc_mte.moments.bridge import solve_bridge
from pymc_mte.moments.features import build_features, build_moments
from pymc_mte.moments.proximal import bridge_errors, doubly_robust, outcome_bridge, treatment_bridge
from pymc_mte.moments.truncated import truncated_solution
from pymc_mte.moments.twostage import two_stage
from pymc_mte.moments.weakproxy import anderson_rubin_set

METHODS = (outcome_bridge, treatment_bridge, doubly_robust)
seeds = st.integers(0, 2**32 - 1)


def layout(model, table):
    """Outcome, arm, whitened features of both sides, counts."""
    columns, counts = columns_of(table, model), table["count"].values.astype(float)
    z = build_features(model, columns, counts, model.treatment_proxies).values
    x = build_features(model, columns, counts, model.outcome_proxies).values
    return columns[model.outcome].astype(float), columns[model.treatment], z, x, counts


def simulated(model, n, seed):
    return layout(model, tabulate(simulate(model, n, rng=seed), model))


# Exactness on the population.


@pytest.mark.parametrize("link", ["linear", "logistic"])
@pytest.mark.parametrize("x_to_y", [False, True])
@given(seed=seeds, classes=st.integers(2, 3))
@settings(max_examples=15)
def test_all_bridges_are_exact_and_coincide_at_full_rank(tools, link, x_to_y, seed, classes):
    model = tools.draw_level3(seed, classes, classes, classes, x_to_y=x_to_y)
    assume(model is not None)
    y, arm, z, x, counts = layout(model, population(model))
    ways = [outcome_bridge, *(METHODS[1:] if link == "linear" else ())]
    found = [way(y, arm, z, x, weights=counts) for way in ways]
    if link == "logistic":
        other = treatment_bridge(y, arm, z, x, weights=counts, link=link)
        assume((other.unsolved < 1e-6).all())  # needs a bridge above 1 everywhere
        found += [other, doubly_robust(y, arm, z, x, weights=counts, link=link)]
    for one in found:
        np.testing.assert_allclose(one.arm_mean, truth(model)["arm_mean"], rtol=0, atol=1e-8)
        np.testing.assert_allclose(one.arm_mean, found[0].arm_mean, rtol=0, atol=1e-10)
        np.testing.assert_allclose(one.covariance, found[0].covariance, rtol=1e-6, atol=1e-10)


@given(seed=seeds, extra=st.tuples(st.integers(0, 2), st.integers(0, 2)))
@settings(max_examples=20)
def test_more_features_than_classes_at_rank_k(tools, seed, extra):
    model = tools.draw_level3(seed, 2, 2 + extra[0], 2 + extra[1], x_to_y=True)
    assume(model is not None)
    y, arm, z, x, counts = layout(model, population(model))
    wanted = truth(model)
    for way in METHODS:
        found = way(y, arm, z, x, weights=counts, rank=2)
        np.testing.assert_allclose(found.arm_mean, wanted["arm_mean"], rtol=0, atol=1e-8)
    errors = bridge_errors(counts[None], z, x, arm, 2, y, 2)
    np.testing.assert_allclose(errors.ate(1)[0][0], wanted["ate"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(errors.att(1)[0][0], wanted["att"], rtol=0, atol=1e-8)


def test_the_three_coincide_in_a_sample_with_covariates(level3, rng):
    y, arm, z, x, counts = simulated(level3, 2_000, 3)
    rows = np.repeat(np.arange(len(y)), counts.astype(int))
    c = rng.normal(size=(len(rows), 3)) + z[rows, 1:]
    found = [way(y[rows], arm[rows], z[rows], x[rows], c).arm_mean for way in METHODS]
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found[2], found[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_linear_bridge_with_covariates_is_the_plain_linear_system(level3, rng, weighted):
    y, arm, z, x, counts = simulated(level3, 1_000, 4)
    rows = np.repeat(np.arange(len(y)), counts.astype(int))
    y, arm, z, x, c = y[rows], arm[rows], z[rows], x[rows], rng.normal(size=(len(rows), 2))
    w = rng.integers(1, 4, len(y)).astype(float) if weighted else np.ones(len(y))
    left, right = np.column_stack([z, c]), np.column_stack([x, c])
    means = []
    for t in (0, 1):
        v = w * (arm == t)
        means.append(w @ right @ np.linalg.solve((left.T * v) @ right, (left.T * v) @ y) / w.sum())
    for way in METHODS:
        repeated = np.column_stack([c, c[:, 0] - c[:, 1], np.ones(len(y))])  # no new information
        for columns in (c, repeated):
            np.testing.assert_allclose(way(y, arm, z, x, columns, w).arm_mean, means, rtol=0, atol=1e-9)


def test_logistic_bridge_without_a_solution_gives_no_number():
    # In arm 1 x stays below its mean over everybody: no positive weights can lift it there.
    z = np.array([0, 1, 0, 1, 0, 1, 0, 1.0])
    x = np.array([0, 1, 0, 0, 0, 1e-3, 0, 0])
    arm = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    features = [np.column_stack([np.ones(8), column]) for column in (z, x)]
    found = treatment_bridge(np.arange(8.0), arm, *features, link="logistic")
    assert found.unsolved[1] > 1e-6
    assert np.isnan(found.arm_mean[1])
    assert np.isfinite(found.arm_mean[0])


# Two stages.


def linear_rows(rng, n=1_500):
    u, c = rng.normal(size=n), rng.normal(size=(n, 3))
    t = (u + c[:, 0] + rng.normal(size=n) > 0).astype(int)
    z = np.column_stack([u + c[:, 1], -u + t]) + rng.normal(size=(n, 2))
    x = np.column_stack([u - c[:, 2], 0.5 * u]) + rng.normal(size=(n, 2))
    y = 2 * t - u + c[:, 0] + (1 + t) * rng.normal(size=n)
    return y, t, x, z, c


@pytest.mark.parametrize("n_x", [1, 2])
def test_two_stage_is_the_textbook(rng, n_x):
    y, t, x, z, c = linear_rows(rng)
    x = x[:, :n_x]
    outer = np.column_stack([t, z, np.ones(len(y)), c])
    inner = np.column_stack([t, x, np.ones(len(y)), c])
    fitted = outer @ np.linalg.lstsq(outer, inner, rcond=None)[0]
    beta = np.linalg.lstsq(fitted, y, rcond=None)[0]
    bread = np.linalg.inv(fitted.T @ fitted)
    meat = (fitted.T * (y - inner @ beta) ** 2) @ fitted
    found = two_stage(y, t, x, z, c)
    np.testing.assert_allclose(found.effect, beta[0], rtol=1e-9)
    np.testing.assert_allclose(found.se, np.sqrt((bread @ meat @ bread)[0, 0]), rtol=1e-8)
    design = np.column_stack([t, np.ones(len(y)), c, z, x])
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    bread = np.linalg.inv(design.T @ design)
    meat = (design.T * (y - design @ beta) ** 2) @ design
    np.testing.assert_allclose(found.ordinary, beta[0], rtol=1e-9)
    np.testing.assert_allclose(found.se_ordinary, np.sqrt((bread @ meat @ bread)[0, 0]), rtol=1e-8)


def test_two_stage_weights_are_repetitions_and_units_do_not_matter(rng):
    y, t, x, z, c = linear_rows(rng, 400)
    w = rng.integers(0, 3, len(y))
    one = two_stage(y, t, x, z, c, w)
    rows = np.repeat(np.arange(len(y)), w)
    two = two_stage(y[rows], t[rows], 7 * x[rows] - 3, z[rows] @ [[1, 2], [0, 5]], 1e4 * c[rows])
    for name in ("effect", "se", "ordinary", "se_ordinary"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-7)
    for a, b in zip(one.directions, two.directions, strict=True):
        np.testing.assert_allclose(a.correlation, b.correlation, rtol=1e-7, atol=1e-9)


def test_unsupported_direction_is_named_and_truncation_mends_it(rng):
    # One hidden cause behind two proxies a side: the second direction is noise. Three tests at 5% err
    # for at most 15% of fresh seeds; 4 standard errors for fewer than 1 in 10,000.
    y, t, x, z, c = linear_rows(rng, 3_000)
    z[:, 1] = rng.normal(size=len(y)) - z[:, 0]
    found = two_stage(y, t, x, z, c, rank=1)
    assert [item.arm for item in found.directions] == [None, 0, 1]
    assert all(1 in item.unsupported and 0 not in item.unsupported for item in found.directions)
    assert abs(found.effect[0] - 2) < 4 * found.se[0]
    assert found.se[0] < two_stage(y, t, x, z, c).se[0]


def test_three_arms_give_two_effects(rng):
    y, t, x, z, c = linear_rows(rng, 3_000)
    t = t + (rng.random(len(y)) < 0.3) * (t == 1)
    found = two_stage(y + 3.0 * (t == 2), t, x[:, 0], z[:, 0], c)
    assert (np.abs(found.effect - [2, 7]) < 5 * found.se + 2 * (found.effect > 4)).all()
    assert found.effect.shape == found.se.shape == (2,)


# Standard errors.


@given(seed=seeds, sizes=st.tuples(st.integers(2, 4), st.integers(2, 4)))
@settings(max_examples=20)
def test_gradients_agree_with_finite_differences(seed, sizes):
    rng = np.random.default_rng(seed)
    m, b, e = rng.normal(size=sizes), rng.normal(size=sizes[0]), rng.normal(size=(1, sizes[1]))
    s = np.linalg.svd(m, compute_uv=False)
    assume((s[:-1] - s[1:]).min(initial=1.0) > 0.1 and s[-1] > 0.1)
    for rank in range(1, min(sizes) + 1):
        found = truncated_solution(m, b, e, rank)
        dm, db, de = rng.normal(size=sizes), rng.normal(size=sizes[0]), rng.normal(size=sizes[1])
        step = 1e-5
        ends = [truncated_solution(m + h * dm, b + h * db, e + h * de, rank).value[0] for h in (step, -step)]
        slope = (found.by_moments[0] * dm).sum() + found.by_target[0] @ db + found.coefficients @ de
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["level3", "more features than classes", "bridges at rank K"])
def test_delta_method_agrees_with_the_bootstrap(tools, level3, case):
    # 4,000 replicates: the bootstrap's own error is 1.1%, so 5% is missed by chance in 1 of 10^5.
    model = level3 if case == "level3" else tools.draw_level3(5, 2, 4, 4, x_to_y=True)
    assert model is not None
    y, arm, z, x, counts = simulated(model, 20_000, 8)
    weights = np.concatenate(list(resampled_counts(Sampling(counts=counts), 4_000, np.random.default_rng(9))))
    solved = solve_bridge(build_moments(weights, z, x, arm, 2, y[None]), 2)
    errors = bridge_errors(counts[None], z, x, arm, 2, y, 2)
    np.testing.assert_allclose(errors.se_arm_mean[0], solved.arm_mean.std(axis=0), rtol=0.05)
    np.testing.assert_allclose(errors.ate(1)[1], np.diff(solved.arm_mean).std(), rtol=0.05)
    att = solved.among[:, 1, 1] - solved.among[:, 0, 1]
    np.testing.assert_allclose(errors.att(1)[1], att.std(), rtol=0.05)
    if case == "bridges at rank K":
        for way in METHODS:
            se = way(y, arm, z, x, weights=counts, rank=2).contrast(1)[1]
            np.testing.assert_allclose(se, errors.ate(1)[1], rtol=0.05)


def test_batches_are_single_runs(level3):
    y, arm, z, x, counts = simulated(level3, 500, 2)
    weights = np.concatenate(list(resampled_counts(Sampling(counts=counts), 3, np.random.default_rng(1))))
    batch = bridge_errors(weights, z, x, arm, 2, y, 2)
    for i in range(3):
        one = bridge_errors(weights[i : i + 1], z, x, arm, 2, y, 2)
        np.testing.assert_allclose(batch.covariance[i], one.covariance[0], rtol=1e-10, atol=1e-16)


def test_an_empty_arm_is_not_a_number(level3):
    y, arm, z, x, counts = simulated(level3, 500, 2)
    errors = bridge_errors((counts * (arm == 0))[None], z, x, arm, 2, y, 2)
    assert np.isnan(errors.att(1)[1]).all()


# The weak-proxy-robust set.


def smallest_statistic(y, arm, z, x, w, tau, starts):
    """Plain two-step recomputation: the statistic of an effect, minimised over both slopes."""
    p = w / w.sum()

    def statistic(slopes):
        parts, effect, own = [], np.zeros(len(y)), 0.0
        for t, b, sign in ((1, slopes[0], 1), (0, slopes[1], -1)):
            v = p * (arm == t)
            r = y - b * x - (v @ (y - b * x)) / v.sum()
            c = v @ ((z - v @ z / v.sum()) * r) / v.sum()
            parts.append((c, (arm == t) / v.sum() * ((z - v @ z / v.sum()) * r - c)))
            effect = effect + sign * ((arm == t) / v.sum() * r + b * (x - p @ x))
            own += sign * (v @ (y - b * x) / v.sum() + b * (p @ x))
        mean = np.array([parts[0][0], parts[1][0], own - tau])
        influence = np.array([parts[0][1], parts[1][1], effect])
        return w.sum() * mean @ np.linalg.solve((influence * p) @ influence.T, mean)

    return min(optimize.minimize(statistic, s, method="Nelder-Mead").fun for s in starts)


def binary_rows(seed, strength, n=2_000):
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 2, n)
    z = (rng.random(n) < 0.5 + strength * (u - 0.5)).astype(float)
    x = (rng.random(n) < 0.1 + 0.8 * u).astype(float)
    t = (rng.random(n) < 0.3 + 0.4 * u).astype(int)
    y = (rng.random(n) < 0.2 + 0.3 * u + t * (0.3 + 0.1 * u)).astype(float)
    return y, t, z, x


@pytest.mark.parametrize("strength", [0.8, 0.5])
def test_robust_set_ends_where_the_statistic_meets_the_quantile(strength):
    y, t, z, x = binary_rows(1, strength)
    found = anderson_rubin_set(y, t, z, x)
    assert found.bounded
    assert found.df == 3
    (low, high), limit = found.intervals[0], stats.chi2.ppf(0.9, 3)
    starts = [(a, b) for a in (0.2, 0.8) for b in (0.2, 0.8)]
    for end, out in ((low, -1), (high, 1)):
        width = 0.02 * (high - low)
        beyond = smallest_statistic(y, t, z, x, np.ones(len(y)), end + out * width, starts)
        within = smallest_statistic(y, t, z, x, np.ones(len(y)), end - out * width, starts)
        assert within < limit < beyond


@given(seed=seeds)
@settings(max_examples=10)
def test_robust_set_holds_the_point_estimate_and_ignores_units(seed):
    y, t, z, x = binary_rows(seed, 0.6)
    one = np.ones(len(y))
    ate = outcome_bridge(y, t, np.column_stack([one, z]), np.column_stack([one, x])).contrast(1)[0]
    found = anderson_rubin_set(y, t, z, x)
    assert found.contains(ate)
    scaled = anderson_rubin_set(100 * y + 7, t, 1 - 3 * z, 5 + 0.01 * x)
    assert scaled.bounded == found.bounded
    if found.bounded:
        np.testing.assert_allclose(scaled.intervals, 100 * np.array(found.intervals), rtol=0.02, atol=0.2)
    swapped = anderson_rubin_set(y, t, z, x, contrast=(0, 1))
    assert swapped.contains(-ate)


def test_robust_set_covers_and_is_unbounded_for_independent_proxies():
    # Of 100 sets at least 87 hold the truth (a set of exact level 90% would miss that for 1 in 8 fresh
    # seeds, this conservative one for fewer than 1 in 10^6), and at least 95 are unbounded: a set is
    # as soon as one arm's first stage stays below the quantile, which fails in fewer than 1 of 1,000.
    held = unbounded = 0
    for seed in range(100):
        y, t, z, x = binary_rows(seed, 0.0, 1_000)
        pattern, counts = np.unique(np.column_stack([y, t, z, x]), axis=0, return_counts=True)
        found = anderson_rubin_set(
            pattern[:, 0], pattern[:, 1].astype(int), pattern[:, 2], pattern[:, 3], counts
        )
        held += found.contains(0.35)
        unbounded += not found.bounded
    assert held >= 87
    assert unbounded >= 95


@pytest.mark.parametrize("flat", ["z", "x", "x in an arm"])
def test_proxies_that_say_nothing_give_the_whole_line(flat):
    y, t, z, x = binary_rows(1, 0.5, 200)
    z, x = (0 * z if flat == "z" else z), {"x": 0 * x, "x in an arm": x * t}.get(flat, x)
    found = anderson_rubin_set(y, t, z, x)
    assert found.intervals == ((-np.inf, np.inf),)
    assert not found.bounded


def test_a_repeated_feature_changes_nothing():
    y, t, z, x = binary_rows(1, 0.8)
    one, two = (anderson_rubin_set(y, t, zz, x) for zz in (z, np.column_stack([z, 1 - z])))
    assert one.df == two.df == 3
    np.testing.assert_allclose(one.intervals, two.intervals, rtol=1e-8)


def test_several_outcome_scores_are_refused():
    y, t, z, x = binary_rows(1, 0.5, 200)
    with pytest.raises(ModelError, match="one outcome-side score"):
        anderson_rubin_set(y, t, z, np.column_stack([x, x]))
    with pytest.raises(ModelError, match="link"):
        doubly_robust(y, t, z[:, None], x[:, None], link="probit")
    with pytest.raises(ModelError, match="two arms"):
        two_stage(y, np.zeros(len(y)), x, z)
