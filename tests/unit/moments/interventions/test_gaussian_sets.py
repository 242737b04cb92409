"""Plausible sets of targets: their evidence by integration, the walk between them, and averages."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pymc_mte.moments.interventions.gaussian import LinearMixture, LinearRows, refit
from pymc_mte.moments.interventions.gaussian_average import align, average, average_replicates
from pymc_mte.moments.interventions.gaussian_evidence import TYPICAL, WIDTH, log_evidence, log_prior_of_set
from pymc_mte.moments.interventions.gaussian_search import untouched
from pymc_mte.moments.interventions.gaussian_sets import TargetSet, _key, neighbours, plausible_sets
from pymc_mte.moments.interventions.linear import LinearNetwork

ONE = LinearNetwork(parents=((),), intercept=np.zeros(1), coefficient=np.zeros((1, 1)), sd=np.array([2.0]))
THREE = LinearNetwork(
    parents=((), (0,), (1,)),
    intercept=np.zeros(3),
    coefficient=np.array([[0.0, 0.0, 0.0], [0.8, 0.0, 0.0], [0.0, 0.7, 0.0]]),
    sd=np.ones(3),
)
VALUE = np.array([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [0.0, -1.5, 1.5]])
WEIGHT = np.array([0.4, 0.35, 0.25])


def mixture(network, weight, value, spread=1.0):
    value = np.atleast_2d(np.asarray(value, dtype=float))
    spread = np.where(value != 0, spread, 1.0)
    return LinearMixture(
        network=network, weight=np.asarray(weight), touched=value != 0, value=value, spread=spread
    )


def draw(n, rng):
    label, rows = rng.choice(3, size=n, p=WEIGHT), np.zeros((n, 3))
    for i in range(3):
        rows[:, i] = rows @ THREE.coefficient[i] + rng.normal(size=n) + VALUE[label, i]
    return LinearRows(kind="shift", rows=rows, counts=np.ones(n))


@pytest.mark.parametrize("kind", ["shift", "do"])
def test_evidence_is_the_integral(kind, rng):
    """One node, one component beside the untouched one: share, value (and spread) on a grid."""
    own = 1.5 if kind == "do" else 2.0
    x = np.concatenate([rng.normal(0, 2, size=150), rng.normal(6, own, size=150)])
    data = LinearRows(kind=kind, rows=x[:, None], counts=np.ones(300))
    found = refit(data, mixture(ONE, [0.5, 0.5], [[0.0], [6.0]], 1.5), 3_000, 1e-9)
    share = np.linspace(0.002, 0.998, 81)[:, None, None]
    value = np.linspace(4.5, 7.5, 81)[None, :, None]
    spread = np.linspace(0.9, 2.4, 41)[None, None] if kind == "do" else np.full((1, 1, 1), 2.0)
    level = np.zeros(np.broadcast_shapes(share.shape, value.shape, spread.shape))
    for row in x:
        one = (1 - share) * stats.norm.pdf(row, 0, 2) + share * stats.norm.pdf(row, value, spread)
        level += np.log(one)
    if kind == "do":
        prior = stats.norm.pdf(value, x.mean(), WIDTH * x.std()) * stats.halfnorm.pdf(spread, 0, x.std())
        steps = np.diff(spread[0, 0])[0]
    else:
        scaled = value / (2 * TYPICAL)
        prior, steps = scaled**2 * stats.norm.pdf(value, 0, 2 * TYPICAL), 1.0
    top = level.max()
    total = (np.exp(level - top) * prior).sum() * np.diff(share[:, 0, 0])[0] * np.diff(value[0, :, 0])[0]
    by_hand = top + np.log(total * steps) + log_prior_of_set(found)
    assert log_evidence(data, found) == pytest.approx(by_hand, abs=0.1)


def test_prior_of_sets_sums_to_one_for_each_number():
    """Two nodes: four targets, ordered pairs of components; a set of two has both orders."""
    every = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    pair = LinearNetwork(parents=((), ()), intercept=np.zeros(2), coefficient=np.zeros((2, 2)), sd=np.ones(2))
    single = sum(np.exp(log_prior_of_set(mixture(pair, [1.0], [v]))) for v in every)
    assert single == pytest.approx(1.0)
    double = [
        np.exp(log_prior_of_set(mixture(pair, [0.5, 0.5], [v, w]))) for v in every for w in every if v != w
    ]
    twins = sum(np.exp(2 * log_prior_of_set(mixture(pair, [1.0], [v]))) for v in every)
    assert sum(double) / 2 == pytest.approx(1.0 - twins)


def test_a_walk_from_a_wrong_set_arrives_at_the_right_one(rng):
    data = draw(4_000, rng)
    for start in (mixture(THREE, [0.6, 0.4], VALUE[1:]), untouched(THREE)):
        sets = plausible_sets(data, refit(data, start))
        best = sets[0].mixture
        assert sorted(best.touched.tolist()) == sorted((VALUE != 0).tolist())
        assert sum(one.probability for one in sets) == pytest.approx(1.0)
        assert all((~one.mixture.touched.any(axis=1)).sum() <= 1 for one in sets)
        assert len({_key(one.mixture) for one in sets}) == len(sets)


@pytest.mark.parametrize("kind", ["shift", "do"])
def test_a_target_inside_another_is_split_off(kind, rng):
    """From {c} alone to {c} and {a, c}: a component more with a touch more, whose value is to be found."""
    value = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -2.0], [2.0, 0.0, -2.0]])
    label, rows = rng.choice(3, size=3_000, p=WEIGHT), np.zeros((3_000, 3))
    for i in range(3):
        free, own = rows @ THREE.coefficient[i] + rng.normal(size=3_000), value[label, i]
        rows[:, i] = free + own if kind == "shift" else np.where(own != 0, own, free)
    data = LinearRows(kind=kind, rows=rows, counts=np.ones(3_000))
    merged = refit(data, mixture(THREE, [0.4, 0.6], value[:2], 0.01))
    best = plausible_sets(data, merged)[0].mixture
    assert sorted(best.touched.tolist()) == sorted((value != 0).tolist())
    at = int(best.touched.sum(axis=1).argmax())
    assert best.value[at] == pytest.approx(value[2], abs=0.3)


def test_forecasts_are_about_the_gains(rng):
    """A quadratic expansion at the fit, against fits of the neighbours that change one touch."""
    data = draw(4_000, rng)
    found = refit(data, mixture(THREE, WEIGHT, VALUE))
    price = 0.5 * data.price
    checked = 0
    for forecast, start in neighbours(data, found):
        if len(start.weight) != 3 or start.touched.sum() != found.touched.sum() + 1:
            continue
        gain = refit(data, start).log_likelihood - found.log_likelihood
        assert forecast + price == pytest.approx(gain, abs=0.3 + 0.3 * gain)
        checked += 1
    assert checked == 6


def two_sets(data):
    whole = refit(data, mixture(THREE, WEIGHT, VALUE))
    less = refit(data, mixture(THREE, [0.6, 0.4], VALUE[1:]))
    return [
        TargetSet(mixture=whole, probability=0.6, level=0.0),
        TargetSet(mixture=less, probability=0.4, level=-0.4),
    ]


def test_averages_and_replicates_over_sets(rng):
    data = draw(600, rng)
    sets = two_sets(data)
    over = average(sets)
    assert over.inclusion.tolist() == [0.6, 1.0, 1.0]
    assert over.mean_weight.sum() == pytest.approx(1.0)
    assert over.mean_weight[0] == pytest.approx(0.6 * sets[0].mixture.weight[0])
    value = 0.6 * sets[0].mixture.value[1] + 0.4 * sets[1].mixture.value[0]
    assert over.mean(over.value)[1] == pytest.approx(value)
    drawn = average_replicates(data, sets, over, 1_000, rng)
    assert drawn.weight.sum(axis=1) == pytest.approx(1.0)
    assert (drawn.weight[:, 0] == 0).mean() == pytest.approx(0.4, abs=0.07)  # 4.5 standard errors
    assert drawn.weight.mean(axis=0) == pytest.approx(over.mean_weight, abs=0.05)
    assert (drawn.value[:, over.touched] != 0).all()


def test_equal_targets_are_matched_by_their_values():
    near = mixture(THREE, [0.5, 0.5], [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    other = mixture(THREE, [0.2, 0.3, 0.5], [[-1.1, 0.0, 0.0], [1.2, 0.0, 0.0], [0.0, 2.0, 0.0]])
    touched, places = align([near, other])
    assert len(touched) == 3
    assert places == [[0, 1], [1, 0, 2]]
    swapped = replace(other, touched=other.touched[::-1], value=other.value[::-1])
    assert align([near, swapped])[1][1] == [2, 0, 1]
