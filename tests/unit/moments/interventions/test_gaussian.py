"""Linear Gaussian networks: likelihood, EM, errors and search against plain recomputations."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from pymc_mte.moments.interventions.gaussian import (
    LinearMixture,
    LinearRows,
    em_step,
    memberships,
    refit,
)
from pymc_mte.moments.interventions.gaussian_errors import base_information, replicates, scores
from pymc_mte.moments.interventions.gaussian_misfit import absent_edge
from pymc_mte.moments.interventions.gaussian_search import unmix_linear, unmix_listed
from pymc_mte.moments.interventions.linear import (
    NARROWEST,
    LinearNetwork,
    learn_linear,
    missing_edge,
    moments_of,
)

PARENTS = ((), (0,), (0, 1))
SLOPES = np.array([[0.0, 0.0, 0.0], [0.8, 0.0, 0.0], [-0.5, 0.6, 0.0]])
NETWORK = LinearNetwork(
    parents=PARENTS, intercept=np.array([0.5, 0.0, -1.0]), coefficient=SLOPES, sd=np.array([1.0, 0.7, 1.3])
)
VALUE = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, -3.0, 4.0]])
WEIGHT = np.array([0.5, 0.3, 0.2])
TRUTH = LinearMixture(
    network=NETWORK, weight=WEIGHT, touched=VALUE != 0, value=VALUE, spread=np.where(VALUE != 0, 0.5, 1.0)
)


def draw(kind, n, rng, mixture=TRUTH):
    network, rows = mixture.network, np.zeros((n, 3))
    label = rng.choice(len(mixture.weight), size=n, p=mixture.weight)
    for i in range(3):
        own, touched = mixture.value[label, i], mixture.touched[label, i]
        free = network.intercept[i] + rows @ network.coefficient[i] + network.sd[i] * rng.normal(size=n)
        forced = own + mixture.spread[label, i] * rng.normal(size=n)
        rows[:, i] = free + own if kind == "shift" else np.where(touched, forced, free)
    return rows


def data(kind, n, rng, n_base=3_000):
    base = draw(kind, n_base, rng, TRUTH.only(np.array([True, False, False])))
    return LinearRows(kind=kind, rows=draw(kind, n, rng), counts=np.ones(n), base=moments_of(base)), base


def plain_log_likelihood(found, mixture, base):
    """Every density written out, row by row and node by node."""
    network, kind = mixture.network, found.kind

    def density(rows, k):
        out = np.ones(len(rows))
        for i in range(rows.shape[1]):
            mean = network.intercept[i] + rows @ network.coefficient[i]
            sd = np.full(len(rows), network.sd[i])
            if k is not None and mixture.touched[k, i]:
                mean = mean + mixture.value[k, i] if kind == "shift" else mixture.value[k, i]
                sd = sd if kind == "shift" else mixture.spread[k, i]
            out = out * stats.norm.pdf(rows[:, i], mean, sd)
        return out

    total = sum(w * density(found.rows, k) for k, w in enumerate(mixture.weight))
    return found.counts @ np.log(total) + (np.log(density(base, None)).sum() if base is not None else 0.0)


@pytest.mark.parametrize("kind", ["shift", "do"])
def test_likelihood_by_hand(kind, rng):
    found, base = data(kind, 200, rng, 100)
    found = replace(found, counts=rng.integers(1, 4, size=200).astype(float))
    assert memberships(found, TRUTH)[1] == pytest.approx(plain_log_likelihood(found, TRUTH, base))


@pytest.mark.parametrize("kind", ["shift", "do"])
@pytest.mark.parametrize("known", [True, False])
def test_steps_climb_to_a_stationary_point(kind, known, rng):
    found, _ = data(kind, 400, rng, 300)
    found = replace(found, base=None) if known else found
    here, levels = TRUTH, []
    for _ in range(6):
        here = em_step(found, here)
        levels.append(here.log_likelihood)
    assert (np.diff(levels) > -1e-8).all()
    best = refit(found, TRUTH, 900, 1e-9)
    assert best.log_likelihood >= levels[-1]
    score = scores(found, best)
    if known:
        assert np.abs(score.sum(axis=0)).max() < 0.05 * np.sqrt((score**2).sum(axis=0)).max()
    assert (best.value[VALUE == 0] == 0).all()


@pytest.mark.parametrize("kind", ["shift", "do"])
def test_scores_are_the_derivatives(kind, rng):
    found, _ = data(kind, 50, rng, 60)
    score, step = scores(found, TRUTH), 1e-5
    k, i = 2, 1
    place = 3 + [tuple(p) for p in np.argwhere(TRUTH.touched)].index((k, i))

    def moved(mixture, by):
        value = mixture.value.copy()
        value[k, i] += by
        return replace(mixture, value=value)

    up, down = (memberships(found, moved(TRUTH, by))[1] for by in (step, -step))
    assert score[:, place].sum() == pytest.approx((up - down) / (2 * step), rel=1e-5)

    def bent(by):
        slopes = SLOPES.copy()
        slopes[2, 0] += by
        return replace(TRUTH, network=replace(NETWORK, coefficient=slopes))

    up, down = (memberships(replace(found, base=None), bent(by))[1] for by in (step, -step))
    assert score[:, -3].sum() == pytest.approx((up - down) / (2 * step), rel=1e-4)
    assert np.diag(base_information(found, TRUTH, score.shape[1]))[-4] == pytest.approx(
        60 / NETWORK.sd[2] ** 2
    )


@pytest.mark.parametrize("kind", ["shift", "do"])
def test_a_clear_mixture_is_unmixed(kind, rng):
    found, base = data(kind, 2_000, rng)
    mixture = unmix_linear(found, learn_linear(PARENTS, base), rng, max_components=4)
    assert mixture.touched.tolist() == (VALUE != 0).tolist()
    drawn = replicates(found, mixture, 200, rng)
    assert np.abs((mixture.weight - WEIGHT) / drawn.weight.std(axis=0)).max() < 4.5  # chance below 1e-4
    se = drawn.value.std(axis=0)[VALUE != 0]
    assert np.abs((mixture.value - VALUE)[VALUE != 0] / se).max() < 4.5
    assert (drawn.value[:, VALUE == 0] == 0).all()
    listed = unmix_listed(found, learn_linear(PARENTS, base), VALUE[::-1] != 0, rng)
    assert listed.log_likelihood == pytest.approx(mixture.log_likelihood, abs=0.01)


def test_one_step_replicates_agree_with_refits(rng):
    found, base = data("shift", 1_500, rng, 1_000)
    best = refit(found, TRUTH, 900, 1e-8)
    quick = replicates(found, best, 400, rng)
    slow = []
    for _ in range(60):
        drawn = found.rows[rng.integers(1_500, size=1_500)]
        again = moments_of(base[rng.integers(1_000, size=1_000)])
        slow.append(refit(replace(found, rows=drawn, base=again), best, 60, 1e-3).weight)
    ratio = quick.weight.std(axis=0) / np.std(slow, axis=0)
    assert (np.abs(np.log(ratio)) < 0.45).all()  # 60 refits: error 9%, so 4.5 of them


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["shift", "do"]))
@settings(max_examples=10, deadline=None)
def test_the_truth_is_stationary_in_a_large_sample(seed, kind):
    """At the truth the scores' mean is noise: 5 standard errors in 10 x 13 columns, chance 1e-4."""
    rng = np.random.default_rng(seed)
    found, _ = data(kind, 20_000, rng, 100)
    score = scores(found, TRUTH)
    z = score.sum(axis=0) / np.sqrt((score**2).sum(axis=0))
    assert np.abs(z).max() < 5


def test_forced_constants_have_a_finite_likelihood(rng):
    exact = replace(TRUTH, spread=np.zeros_like(VALUE))
    rows = draw("do", 2_000, rng, exact)
    mixture = unmix_linear(LinearRows(kind="do", rows=rows, counts=np.ones(2_000)), NETWORK, rng, 4)
    assert np.isfinite(mixture.log_likelihood)
    assert mixture.touched.tolist() == (VALUE != 0).tolist()
    assert mixture.weight == pytest.approx(WEIGHT, abs=0.05)
    assert mixture.value[1, 0] == pytest.approx(3.0, abs=NARROWEST)


@pytest.mark.parametrize("known", [True, False])
def test_a_missing_edge_is_flagged(known, rng):
    found, base = data("shift", 2_000, rng)
    found = replace(found, base=None) if known else found
    right = refit(found, TRUTH)
    assert absent_edge(found, right).p_value > 1e-3
    short = NETWORK if known else learn_linear(((), (0,), (0,)), base)
    if known:
        short = replace(NETWORK, parents=((), (0,), (0,)), coefficient=np.where(SLOPES == 0.6, 0, SLOPES))
    wrong = absent_edge(found, refit(found, replace(TRUTH, network=short)))
    assert wrong.later == 2
    assert wrong.p_value < 1e-3


def test_a_missing_edge_is_flagged_on_the_base_alone(rng):
    _, base = data("shift", 10, rng)
    earlier, later, p = missing_edge(learn_linear(((), (0,), (0,)), base), base)
    assert (earlier, later) == (1, 2)
    assert p < 1e-6
    assert missing_edge(learn_linear(PARENTS, base), base) == (-1, -1, 1.0)


def test_the_floor_of_spreads_is_fixed(rng):
    """Constants must not reward a smaller error sd: the same rows, one equation learnt with another sd."""
    rows = draw("do", 2_000, rng, replace(TRUTH, spread=np.zeros_like(VALUE)))
    base = draw("do", 2_000, rng, TRUTH.only(np.array([True, False, False])))
    found = LinearRows(kind="do", rows=rows, counts=np.ones(2_000), base=moments_of(base))
    learnt = learn_linear(PARENTS, base)
    fitted = refit(found, replace(TRUTH, network=learnt))
    floor = NARROWEST * learnt.sd
    assert fitted.spread[1, 0] == pytest.approx(floor[0], rel=1e-6)
    assert fitted.network.sd[0] != pytest.approx(learnt.sd[0], rel=1e-6)
    shrunk = replace(learnt, sd=0.5 * learnt.sd)
    assert shrunk.narrowest == pytest.approx(floor)
