"""Linear Gaussian networks: parts against plain recomputations, a clear mixture, a missing edge."""

import numpy as np
import pytest
from scipy import stats

from pymc_mte.moments.interventions.gaussian import (
    ShiftMixture,
    bootstrap_shifts,
    learn_linear,
    missing_edge,
    refit_shifts,
    unmix_shifts,
)

PARENTS = ((), (0,), (0, 1))
SLOPES = np.array([[0.0, 0.0, 0.0], [0.8, 0.0, 0.0], [-0.5, 0.6, 0.0]])
SHIFT = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, -3.0, 3.0]])
WEIGHT = np.array([0.5, 0.3, 0.2])


def draw(n, weight, shift, rng):
    rows = rng.normal(size=(n, 3)) + shift[rng.choice(len(weight), size=n, p=weight)]
    for node in range(3):
        rows[:, node] += rows @ SLOPES[node]
    return rows


@pytest.fixture
def base(rng):
    return draw(3_000, np.ones(1), np.zeros((1, 3)), rng)


def test_residuals_are_standard_normal(base):
    network = learn_linear(PARENTS, base)
    assert network.coefficient == pytest.approx(SLOPES, abs=0.08)
    z = network.residuals(base)
    assert np.cov(z.T) == pytest.approx(np.eye(3), abs=0.02)


def test_likelihood_and_first_order_condition(rng):
    z = rng.normal(size=(400, 3)) + SHIFT[rng.choice(3, size=400, p=WEIGHT)]
    start = ShiftMixture(
        weight=WEIGHT, shift=SHIFT, log_likelihood=-np.inf, criterion=np.inf, price=float(np.log(400))
    )
    found = refit_shifts(z, start)
    density = np.stack(
        [w * stats.norm.pdf(z, s).prod(axis=1) for w, s in zip(found.weight, found.shift, strict=True)],
        axis=1,
    )
    assert found.log_likelihood == pytest.approx(np.log(density.sum(axis=1)).sum())
    member = density / density.sum(axis=1, keepdims=True)
    assert member.mean(axis=0) == pytest.approx(found.weight, abs=1e-3)
    assert (found.shift[SHIFT == 0] == 0).all()


def test_a_clear_mixture_is_unmixed(base, rng):
    rows = draw(3_000, WEIGHT, SHIFT, rng)
    found = unmix_shifts(learn_linear(PARENTS, base), rows, rng, max_components=5)
    assert found.targets.tolist() == (SHIFT != 0).tolist()
    assert found.weight == pytest.approx(WEIGHT, abs=0.05)
    assert found.shift == pytest.approx(SHIFT, abs=0.25)
    weight, shift = bootstrap_shifts(base, PARENTS, rows, found, 10, rng)
    assert weight.std(axis=0) == pytest.approx(np.sqrt(WEIGHT * (1 - WEIGHT) / 3_000), rel=0.8)
    assert (shift[:, SHIFT == 0] == 0).all()


def test_a_missing_edge_is_flagged(base):
    earlier, later, p = missing_edge(learn_linear(((), (0,), (0,)), base), base)
    assert (earlier, later) == (1, 2)
    assert p < 1e-6
    assert missing_edge(learn_linear(PARENTS, base), base) == (-1, -1, 1.0)
