"""Exact distributions give back exactly their targets; parts agree with plain recomputations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import optimize, sparse

from pymc_mte.moments.interventions.checks import mechanism_misfit, separable
from pymc_mte.moments.interventions.design import Mixture, random_mixture
from pymc_mte.moments.interventions.evidence import (
    Support,
    base_log_likelihood,
    fit_support,
    standard_errors,
)
from pymc_mte.moments.interventions.exact import admissible
from pymc_mte.moments.interventions.exclusions import MAX_CHOICES, unclear_nodes
from pymc_mte.moments.interventions.levels import Found
from pymc_mte.moments.interventions.methods import unmix
from pymc_mte.moments.interventions.network import Network, components, extend, learn, lengthen, levels_of
from pymc_mte.moments.interventions.weights import fit_weights


def assert_found(answer, mixture, tolerance=1e-9):
    found = dict(zip(map(tuple, answer.support.targets.tolist()), answer.support.weight, strict=True))
    wanted = dict(zip(map(tuple, mixture.targets.tolist()), mixture.weight, strict=True))
    assert found.keys() == wanted.keys()
    assert max(abs(found[t] - wanted[t]) for t in wanted) < tolerance


@given(
    st.integers(0, 10_000),
    st.sampled_from([(1, 2), (2, 3), (3, 2), (4, 2), (4, 3), (5, 2)]),
    st.sampled_from(["polished", "lifting"]),
)
@settings(max_examples=12)
def test_exact_distributions_of_small_networks(seed, shape, method):
    mixture = random_mixture(*shape, np.random.default_rng(seed))
    assert_found(unmix(mixture.network, *mixture.population(), method), mixture)


@pytest.mark.parametrize("shape", [(6, 3), (8, 2)])
@pytest.mark.parametrize("method", ["polished", "lifting"])
def test_exact_distributions_of_larger_networks(shape, method):
    mixture = random_mixture(*shape, np.random.default_rng(shape))
    assert_found(unmix(mixture.network, *mixture.population(), method), mixture)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["polished", "lifting"])
@pytest.mark.parametrize("nodes", [4, 6, 8])
@pytest.mark.parametrize("seed", range(5))
def test_exact_distributions_of_ternary_networks(nodes, seed, method):
    mixture = random_mixture(nodes, 3, np.random.default_rng([nodes, seed]))
    assert_found(unmix(mixture.network, *mixture.population(), method), mixture)


@pytest.mark.parametrize("seed", range(3))
def test_enumeration_finds_the_same_for_every_feasible_exclusion(seed):
    mixture = random_mixture(3, 2, np.random.default_rng(seed))
    answer = unmix(mixture.network, *mixture.population(), "exact")
    assert answer.alike >= 1
    assert_found(answer, mixture)


def test_components_by_brute_force(rng):
    mixture = random_mixture(4, 3, rng)
    rows, _ = mixture.population()
    found = components(mixture.network, rows, mixture.targets).toarray()
    for row, column in itertools.product(range(0, 81, 7), range(len(mixture.targets))):
        p = 1.0
        for node, above in enumerate(mixture.network.parents):
            forced, value = mixture.targets[column, node], rows[row, node]
            entry = mixture.network.tables[node][tuple(rows[row, list(above)])][value]
            p *= entry if forced < 0 else float(forced == value)
        assert found[row, column] == pytest.approx(p, abs=1e-15)
    assert found.sum(axis=0) == pytest.approx(1.0)


def test_levels_extend_to_the_components(rng):
    mixture = random_mixture(3, 3, rng)
    rows, counts = mixture.draw(200, rng)
    matrix, targets = sparse.csc_array(np.ones((1, 1))), np.zeros((1, 0), dtype=np.int64)
    for node, level in enumerate(levels_of(rows, counts)):
        assert level.counts.sum() == 200
        matrix = extend(matrix, level, mixture.network.factor(level.rows, node), 3)
        targets = lengthen(targets, 3)
    assert len(targets) == 64
    wanted = components(mixture.network, level.rows, targets)
    assert np.abs((matrix - wanted).toarray()).max() < 1e-15


@given(st.integers(0, 10_000))
@settings(max_examples=8)
def test_weights_against_a_general_optimiser(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.dirichlet(np.ones(12), size=5).T
    counts = rng.multinomial(500, matrix @ rng.dirichlet(np.full(5, 0.5))).astype(float)

    def loss(free):
        w = np.exp(free - free.max())
        return -counts @ np.log(matrix @ (w / w.sum()))

    slow = min(optimize.minimize(loss, rng.normal(size=5), method="BFGS").fun for _ in range(2))
    fit = fit_weights(sparse.csc_array(matrix), counts)
    assert -fit.log_likelihood <= slow + 1e-5
    assert fit.weight.sum() == pytest.approx(1.0)
    assert (matrix.T @ (counts / (matrix @ fit.weight))).max() <= 500 * (1 + 1e-8)  # first-order optimum


def test_rows_that_no_component_produces_do_not_stop_the_fit():
    matrix = sparse.csc_array(np.array([[0.5, 0.0], [0.5, 1.0], [0.0, 0.0]]))
    fit = fit_weights(matrix, np.array([30.0, 60.0, 10.0]))
    assert fit.weight == pytest.approx([2 / 3, 1 / 3], abs=1e-6)
    assert fit.log_likelihood < -200


def test_learnt_tables(rng):
    shape = Network(parents=((), (0,)), tables=(np.ones(2), np.ones((2, 3))))
    rows = np.array([[0, 0], [0, 2], [1, 1]])
    found = learn(shape, rows, np.array([6.0, 3.0, 1.0]))
    assert found.tables[0] == pytest.approx([10 / 12, 2 / 12])  # one pseudo-row per cell
    assert found.tables[1][0] == pytest.approx([7 / 12, 1 / 12, 4 / 12])
    assert found.base_counts[1][1].tolist() == [0, 1, 0]


def test_relearnt_tables_are_those_of_both_samples(rng):
    """With the untouched target alone, the mixture is a second base sample."""
    mixture = random_mixture(3, 2, rng)
    free = np.full((1, 3), -1)
    one, two = mixture.draw_base(500, rng), mixture.draw_base(700, rng)
    joint = fit_support(learn(mixture.network, *one), *two, free).network
    both = learn(mixture.network, np.vstack([one[0], two[0]]), np.concatenate([one[1], two[1]]))
    for found, wanted in zip(joint.tables, both.tables, strict=True):
        assert found == pytest.approx(wanted)


def test_standard_errors_of_a_known_case():
    """Two components that never overlap: the weight is a binomial share."""
    matrix = sparse.csc_array(np.eye(2))
    counts = np.array([300.0, 700.0])
    # the information counts the sum of the weights as free, so each count is Poisson
    assert standard_errors(matrix, counts, np.array([0.3, 0.7])) == pytest.approx(np.sqrt(counts) / 1000)


def test_separable_says_when_shares_cannot_be_told_apart():
    coin = Network(parents=((),), tables=(np.array([0.4, 0.6]),))
    rows = np.array([[0], [1]])
    assert separable(components(coin, rows, admissible((2,), (1,))))
    assert not separable(components(coin, rows, admissible((2,))))


STEEP = np.array([[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.2, 0.1, 0.7]])


def chain():
    """A chain of four nodes, each mostly like the one before; the last one forced in 2 of 5 rows."""
    network = Network(parents=((), (0,), (1,), (2,)), tables=(np.array([0.5, 0.3, 0.2]), STEEP, STEEP, STEEP))
    targets = np.array([[-1, -1, -1, -1], [-1, -1, -1, 0]])
    return Mixture(network=network, targets=targets, weight=np.array([0.6, 0.4]))


def inverted(mixture, n, rng):
    """Rows of which three in ten come from the network with another order of values at node 1."""
    tables = list(mixture.network.tables)
    tables[1] = np.roll(STEEP, 1, axis=1)
    other = Network(parents=mixture.network.parents, tables=tuple(tables))
    changed = Mixture(network=other, targets=np.full((1, 4), -1), weight=np.ones(1))
    parts = [mixture.draw(n - 3 * n // 10, rng), changed.draw(3 * n // 10, rng)]
    return np.vstack([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


@pytest.mark.slow
def test_soft_interventions_and_false_alarms():
    """100 clean mixtures: 5% false alarms are stated; 11 or more of 100 have a chance of .011."""
    flags = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        mixture = chain()
        learnt = learn(mixture.network, *mixture.draw_base(4_000, rng))
        data = [mixture.draw(4_000, rng), inverted(mixture, 4_000, rng)]
        flags.append([unmix(learnt, *rows).misfit.p_value < 0.05 for rows in data])
    alarms, hits = np.sum(flags, axis=0)
    assert alarms <= 10
    assert hits >= 90


@pytest.mark.parametrize("seed", range(3))
def test_a_soft_intervention_is_flagged_at_its_node(seed):
    rng = np.random.default_rng(seed)
    mixture = chain()
    learnt = learn(mixture.network, *mixture.draw_base(4_000, rng))
    misfit = unmix(learnt, *inverted(mixture, 4_000, rng)).misfit
    assert misfit.p_value < 0.05
    assert misfit.node == 1


def test_misfit_counts_the_errors_of_a_learnt_base(rng):
    """Two equal small samples differ by chance, the learnt table's part of it included."""
    mixture = chain()
    free = np.full((1, 4), -1)
    low = 0
    for _ in range(60):
        learnt = learn(mixture.network, *mixture.draw_base(1_000, rng))
        data = mixture.draw_base(1_000, rng)
        support = fit_support(Network(parents=learnt.parents, tables=learnt.tables), *data, free)
        low += mechanism_misfit(learnt, support, *data).p_value < 0.05
    assert low <= 7  # binomial(60, .05): 8 or more have a chance of .011


def test_misfit_holds_its_level_in_many_thin_cells_with_a_small_base(rng):
    """A base with a fifth of the mixture's rows: variances estimated from it alone alarm too often."""
    above = (tuple(range(0)), (0,), (0, 1))
    low = 0
    for _ in range(100):
        tables = tuple(rng.dirichlet(np.full(8, 2.0), size=(8,) * len(a)) for a in above)
        mixture = Mixture(
            network=Network(parents=above, tables=tables), targets=np.full((1, 3), -1), weight=np.ones(1)
        )
        learnt = learn(mixture.network, *mixture.draw_base(4_000, rng))
        data = mixture.draw(20_000, rng)
        matrix = components(learnt, data[0], mixture.targets)
        support = Support(
            network=learnt, targets=mixture.targets, weight=np.ones(1), matrix=matrix, log_likelihood=0.0
        )
        low += mechanism_misfit(learnt, support, *data).p_value < 0.05
    assert low <= 11  # binomial(100, .05): 12 or more have a chance of .004


def test_rows_without_probability_are_set_aside():
    """Stored zeros are no cover: such rows have the probability of a row that nothing explains."""
    matrix = sparse.csc_array(np.array([[0.9, 0.2], [0.1, 0.8], [0.5, 0.0]]))
    matrix.data[matrix.data == 0.5] = 0.0
    fit = fit_weights(matrix, np.array([55.0, 45.0, 10.0]))
    assert fit.weight == pytest.approx([0.5, 0.5], abs=1e-5)
    none = fit_weights(sparse.csc_array(np.zeros((2, 2))), np.array([1.0, 2.0]))
    assert none.weight.tolist() == [0.5, 0.5]
    assert none.log_likelihood < -80


def test_base_rows_count_in_the_weight_of_a_choice(rng):
    """Tables that the mixture bends away from the base rows are less likely by what those rows say."""
    mixture = random_mixture(2, 2, rng)
    rows, counts = mixture.draw_base(50, rng)
    network = learn(mixture.network, rows, counts)
    by_hand = counts @ np.log(network.factors(rows)).sum(axis=1)
    prior = sum(np.log(table).sum() for table in network.tables)
    assert base_log_likelihood(network) == pytest.approx(by_hand + prior)
    assert base_log_likelihood(mixture.network) == 0.0


def test_too_many_unclear_values_are_cut_and_named():
    sizes, gap = (3,) * 6, (2.0, 0.1, 5.0, 0.5, 1.0, 1.5)
    network = Network(parents=((),) * 6, tables=tuple(np.full(k, 1 / k) for k in sizes))
    found = Found(targets=np.array([[0, 1, 2, 0, 1, 2]]), weight=np.ones(1), excluded=(1,) * 6, gap=gap)
    tried, left = unclear_nodes(network, found)
    assert tried == [1, 3, 4]
    assert left == [5, 0]
    assert 3 ** len(tried) <= MAX_CHOICES
