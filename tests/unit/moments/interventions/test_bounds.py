"""Bounds without excluded values: worked examples, candidates, and data that contradict the candidates."""

import numpy as np
import pytest

from pymc_mte.moments.interventions.bounds import share_bounds
from pymc_mte.moments.interventions.design import Mixture
from pymc_mte.moments.interventions.exact import admissible
from pymc_mte.moments.interventions.network import Network, learn

COIN = Network(parents=((),), tables=(np.array([0.4, 0.6]),))


def violated():
    """{}: .3, {0=0}: .3, {0=1}: .4 in a chain of three binary nodes."""
    tables = (np.array([0.4, 0.6]), np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([[0.75, 0.25], [0.3, 0.7]]))
    network = Network(parents=((), (0,), (1,)), tables=tables)
    targets = np.array([[-1, -1, -1], [0, -1, -1], [1, -1, -1]])
    return Mixture(network=network, targets=targets, weight=np.array([0.3, 0.3, 0.4]))


def test_a_single_node_by_hand():
    """Untouched t, forced to 0 by 1 - t - (q - .6 t), forced to 1 by q - .6 t, for 0 <= t."""
    q = 0.5
    found = share_bounds(COIN, np.array([[0], [1]]), np.array([1 - q, q]), np.array([[-1], [0], [1]]))
    top = min(q / 0.6, (1 - q) / 0.4)
    assert found[0] == pytest.approx([0, top], abs=1e-7)
    assert found[1] == pytest.approx([1 - q - 0.4 * top, 1 - q], abs=1e-7)
    assert found[2] == pytest.approx([q - 0.6 * top, q], abs=1e-7)


def test_bounds_contain_the_truth_of_the_violated_example():
    mixture = violated()
    found = share_bounds(mixture.network, *mixture.population(), mixture.targets)
    assert (found[:, 0] <= mixture.weight + 1e-7).all()
    assert (found[:, 1] >= mixture.weight - 1e-7).all()
    assert found[:, 0] == pytest.approx(0.0, abs=1e-7)


def test_separable_candidates_pin_the_shares_down():
    mixture = violated()
    candidates = mixture.targets[:2]
    pure = Mixture(network=mixture.network, targets=candidates, weight=np.array([0.6, 0.4]))
    found = share_bounds(mixture.network, *pure.population(), candidates, candidates)
    assert found == pytest.approx(np.array([[0.6, 0.6], [0.4, 0.4]]), abs=1e-6)


def test_wrong_candidates_have_no_bounds():
    mixture = violated()
    candidates = np.array([[-1, -1, -1], [-1, -1, 1]])
    assert np.isnan(share_bounds(mixture.network, *mixture.population(), candidates, candidates)).all()


@pytest.mark.parametrize("seed", range(5))
def test_bounds_of_samples_allow_for_chance(seed):
    """All cell intervals hold with probability .9 at least, and then so do all bounds."""
    mixture = violated()
    data = mixture.draw(2_000, np.random.default_rng(seed))
    found = share_bounds(mixture.network, *data, mixture.targets, admissible((2, 2, 2)))
    assert (found[:, 0] <= mixture.weight).all()
    assert (found[:, 1] >= mixture.weight).all()


@pytest.mark.parametrize("seed", range(5))
def test_bounds_allow_for_the_errors_of_a_learnt_base(seed):
    """Few base rows and many of the mixture: with the tables taken as exact nothing agreed with the rows."""
    mixture, rng = violated(), np.random.default_rng(seed)
    network = learn(mixture.network, *mixture.draw_base(200, rng))
    two = Mixture(
        network=mixture.network, targets=np.array([[-1, -1, -1], [-1, 1, -1]]), weight=np.array([0.7, 0.3])
    )
    found = share_bounds(network, *two.draw(500_000, rng), two.targets, two.targets)
    assert (found[:, 0] <= two.weight).all()
    assert (found[:, 1] >= two.weight).all()
    exact = share_bounds(two.network, *two.population(), two.targets, two.targets)
    assert (found[:, 0] <= exact[:, 0]).all()


def test_large_networks_are_bounded_on_the_rows_that_were_seen(rng):
    """A table of all 2^26 cells does not fit into memory."""
    nodes = 26
    parents = tuple((i - 1,) if i else () for i in range(nodes))
    tables = tuple(np.array([[0.9, 0.1], [0.2, 0.8]]) if i else np.array([0.6, 0.4]) for i in range(nodes))
    network = Network(parents=parents, tables=tables)
    targets = np.full((2, nodes), -1)
    targets[1, 0] = 1
    mixture = Mixture(network=network, targets=targets, weight=np.array([0.4, 0.6]))
    found = share_bounds(network, *mixture.draw(300, rng), targets, targets)
    assert (found[:, 0] <= mixture.weight).all()
    assert (found[:, 1] >= mixture.weight).all()
