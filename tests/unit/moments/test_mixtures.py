"""Coins, products and networks on exact tables: every route recovers the truth, labels apart."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from pymc_mte import CausalModel, DataError, ModelError, RefusedError, do, estimate, plan, population, truth
from pymc_mte.alignment import match_classes
from pymc_mte.moments.coins import factorial_moments, histogram, rank_eigenvalues, solve_coins
from pymc_mte.moments.product import diagonalise, groupings

COLLIDER = {1: [], 2: [], 3: [1, 2], 4: [3], 5: [], 6: [4, 5], 7: [6], 8: [], 9: [7, 8]}
seeds = st.integers(0, 10**6)


def chain(n):
    return {i: [i - 1] if i > 1 else [] for i in range(1, n + 1)}


def separated(rng, k, gap=0.1, low=0.02, high=0.98):
    """Numbers at least ``gap`` apart, in random order."""
    slack = np.sort(rng.uniform(0, high - low - gap * (k - 1), size=k))
    return rng.permutation(low + slack + gap * np.arange(k))


def weights(rng, k):
    return 0.1 + (1 - 0.1 * k) * rng.dirichlet(np.ones(k))


def network(rng, parents, k, levels=None):
    """Random network; binary tables have classes at least 0.1 apart for all parents' levels."""
    levels = levels or {}
    size = {i: levels.get(i, 2) for i in parents}
    variables, tables = {}, {"class_weight": weights(rng, k).tolist()}
    for i, found in parents.items():
        shape = [size[j] for j in found]
        cells = int(np.prod(shape)) if shape else 1
        name, own = f"v{i}", {"parents": [f"v{j}" for j in found]}
        if size[i] == 2:
            variables[name] = {"family": "bernoulli", **own}
            table = np.stack([separated(rng, k) for _ in range(cells)], axis=1).reshape(k, *shape)
        else:
            variables[name] = {"family": "categorical", "levels": list(range(size[i])), **own}
            table = 0.03 + (1 - 0.03 * size[i]) * rng.dirichlet(np.ones(size[i]), size=(k, *shape))
        tables[name] = {"p": table.tolist()}
    return CausalModel(classes=k, variables=variables, truth=tables)


def worst_error(model, tree):
    """Largest error of any parameter, after matching the classes."""
    exact, found = truth(model), tree["estimate"].to_dataset()

    def profile(answer):
        return np.concatenate([answer[n].values.reshape(model.classes, -1) for n in model.dims], axis=1)

    order = match_classes(profile(found)[None], profile(exact))[0][0]
    return np.abs(profile(found)[order] - profile(exact)).max()


def brute_do(model, setting, outcome):
    """E[outcome | do(setting)] cell by cell, with nothing of the package's."""
    p, names, total = model.true_parameters(), list(model.variables), 0.0
    for u in range(model.classes):
        for cell in itertools.product(*(range(model.size(v)) for v in names)):
            row = dict(zip(names, cell, strict=True))
            if any(row[v] != level for v, level in setting.items()):
                continue
            term = p["class_weight"][u] * row[outcome]
            for v in names:
                if v not in setting:
                    parents = tuple(row[q] for q in model.variables[v].parents)
                    term *= p[f"p_{v}"][(u, *parents, row[v])]
            total += term
    return total


@given(seed=seeds, k=st.integers(1, 5), roots=st.sampled_from(["pencil", "prony"]))
@settings(max_examples=60)
def test_coins_from_exact_moments(seed, k, roots):
    rng = np.random.default_rng(seed)
    m, w = np.sort(separated(rng, k, low=0.0, high=1.0)), weights(rng, k)
    moments = (m.astype(np.longdouble) ** np.arange(2 * k)[:, None] * w).sum(axis=1)
    found = solve_coins(moments, k, roots)
    assert np.abs(found.mean - m).max() < 1e-9
    assert np.abs(found.weight - w).max() < 1e-9
    assert not found.complex_roots
    assert not found.singular


def test_five_coins_in_double_precision_lose_what_rounding_loses():
    m, w = np.linspace(0.3, 0.7, 5), np.full(5, 0.2)
    power = np.arange(10)[:, None]
    found = solve_coins((m**power * w).sum(axis=1), 5)
    jacobian = np.hstack([power * m ** np.maximum(power - 1, 0) * w, m**power])
    magnified = np.abs(np.linalg.inv(jacobian)).sum(axis=1).max() * 2**-53
    assert 1e-12 < magnified < 1e-6
    assert np.abs(found.mean - m).max() < 10 * magnified


def test_factorial_moments_are_unbiased_and_counts_bits_and_sums_agree():
    bits = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0]])
    counts = histogram(bits)
    assert counts.tolist() == [1, 1, 1, 1]
    assert histogram(bits.sum(axis=1), 3).tolist() == counts.tolist()
    p = 0.3
    exact = np.array([(1 - p) ** 3, 3 * p * (1 - p) ** 2, 3 * p**2 * (1 - p), p**3])
    np.testing.assert_allclose(factorial_moments(exact, 3), p ** np.arange(4), atol=1e-15)
    with pytest.raises(DataError, match="more draws"):
        factorial_moments(exact, 4)
    with pytest.raises(DataError, match="0 or 1"):
        histogram(np.array([[0, 2]]))


def test_one_class_too_many_is_singular_and_the_rank_says_so():
    moments = np.array([0.3, 0.7]) ** np.arange(8)[:, None] @ np.array([0.4, 0.6])
    value = rank_eigenvalues(moments, 3)
    assert (value[:2] > 1e-3).all()
    assert np.abs(value[2:]).max() < 1e-12
    assert solve_coins(moments, 3).singular


@given(seed=seeds)
@settings(max_examples=15)
def test_products_of_five_bits_with_three_classes(seed):
    rng = np.random.default_rng(seed)
    model = network(rng, {i: [] for i in range(1, 6)}, 3)
    assert worst_error(model, estimate(model, population(model), method="spectral")) < 1e-10


@given(seed=seeds)
@settings(max_examples=6)
def test_products_of_any_cardinalities(seed):
    rng = np.random.default_rng(seed)
    model = network(rng, {i: [] for i in range(1, 6)}, 3, {1: 4, 2: 3, 4: 5})
    tree = estimate(model, population(model), method="spectral")
    checks = tree["checks"].to_dataset()
    gap = float(checks["value"][checks["check"] == "gap between classes, worst run"].values[0])
    assume(gap > 0.05)
    assert worst_error(model, tree) < 1e-10


@given(seed=seeds)
def test_two_classes_and_three_bits_have_a_closed_form(seed):
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.1, 0.9)
    low, high = np.array([separated(rng, 2) for _ in range(3)]).T
    table = sum(
        share * np.einsum("a,b,c->abc", *(np.array([1 - p, p]) for p in means))
        for share, means in ((1 - w, low), (w, high))
    )
    mean = [table.sum(axis=tuple(j for j in range(3) if j != i))[1] for i in range(3)]
    bits = [np.array([-mean[i], 1 - mean[i]]) for i in range(3)]
    one = np.ones(2)
    c01, c02, c12 = (
        np.einsum("abc,a,b,c->", table, *(bits[i] if i in pair else one for i in range(3)))
        for pair in ((0, 1), (0, 2), (1, 2))
    )
    c012 = np.einsum("abc,a,b,c->", table, *bits)
    sign = np.sign(high - low)
    r = c012**2 / (c01 * c02 * c12)
    upper = (1 - np.sign(c012 * sign.prod()) * np.sqrt(r / (4 + r))) / 2
    step = sign * np.sqrt(np.abs([c01 * c02 / c12, c01 * c12 / c02, c02 * c12 / c01]) / (upper * (1 - upper)))
    assert upper == pytest.approx(w, abs=1e-7)
    found = diagonalise(table, 2)
    profile = np.stack([g[1] for g in found.groups], axis=1)
    order = match_classes(profile[None], np.stack([mean - upper * step, mean + (1 - upper) * step]))[0][0]
    np.testing.assert_allclose(profile[order], [mean - upper * step, mean + (1 - upper) * step], atol=1e-6)
    np.testing.assert_allclose(profile[order], [low, high], atol=1e-10)


@given(seed=seeds)
@settings(max_examples=8)
def test_synthetic_bits_give_the_same_product_mixture(seed):
    """The construction of the reduction: powers of one bit's mean, made from products of other bits."""
    rng = np.random.default_rng(seed)
    k, n = 3, 5
    means, w = np.array([separated(rng, k) for _ in range(n)]), weights(rng, k)
    sets = [(), (1,), (2,), (1, 2)], [(), (3,), (4,), (3, 4)]

    def products(chosen):
        return np.array([means[list(s)].prod(axis=0) for s in chosen])

    best = max(
        itertools.product(itertools.combinations(sets[0][1:], 2), itertools.combinations(sets[1][1:], 2)),
        key=lambda pair: np.linalg.svd(
            products(((), *pair[0])) * w @ products(((), *pair[1])).T, compute_uv=False
        )[-1],
    )
    a, b = products(((), *best[0])), products(((), *best[1]))
    c, c_with = (b * w) @ a.T, (b * w * means[0]) @ a.T
    assume(np.linalg.svd(c, compute_uv=False)[-1] > 1e-4)
    vectors = [(w * a).sum(axis=1)]
    for _ in range(2 * k - 1):
        vectors.append(np.linalg.solve(c.T, vectors[-1]) @ c_with)
    oracle = solve_coins(np.array([v[0] for v in vectors]), k)
    model = CausalModel(
        classes=k,
        variables={f"v{i}": {"family": "bernoulli"} for i in range(n)},
        truth={"class_weight": w.tolist()} | {f"v{i}": {"p": means[i].tolist()} for i in range(n)},
    )
    found = estimate(model, population(model), method="spectral")["estimate"]
    np.testing.assert_allclose(found["p_v0"].values[:, 1], oracle.mean, atol=1e-6)
    np.testing.assert_allclose(found["class_weight"].values, oracle.weight, atol=1e-6)


NETWORKS = {
    "chain5": (chain(5), 2),
    "chain7": (chain(7), 2),
    "chain8": (chain(8), 2),
    "chain10": (chain(10), 3),
    "collider9": (COLLIDER, 2),
}


@pytest.mark.parametrize("chosen", [range(2), pytest.param(range(2, 40), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_from_exact_tables(name, chosen):
    parents, k = NETWORKS[name]
    for seed in chosen:
        model = network(np.random.default_rng(seed), parents, k)
        table = population(model)
        for method in ("network", "unzip"):
            tree = estimate(model, table, method=method)
            assert worst_error(model, tree) < 1e-9
            for x in (0, 1):
                answer = do(tree, {"v2": x}, "v3", group="estimate")
                assert float(answer["mean"]) == pytest.approx(brute_do(model, {"v2": x}, "v3"), abs=1e-9)


def test_a_graph_with_an_edge_too_many_gives_the_same_answer():
    model = network(np.random.default_rng(5), chain(7), 2)
    fields = {n: getattr(model, n) for n in type(model).model_fields}
    wider = {**model.variables, "v3": {"family": "bernoulli", "parents": ["v2", "v1"]}}
    other = CausalModel(**fields | {"variables": wider, "truth": None})
    tree = estimate(other, population(model), method="network")
    for x in (0, 1):
        answer = do(tree, {"v2": x}, "v3", group="estimate")
        assert float(answer["mean"]) == pytest.approx(brute_do(model, {"v2": x}, "v3"), abs=1e-9)


def test_networks_with_more_levels():
    rng = np.random.default_rng(3)
    model = network(rng, chain(7), 3, {1: 3, 2: 4, 4: 3, 6: 3, 7: 3})
    assert worst_error(model, estimate(model, population(model), method="network")) < 1e-9


def test_networks_with_counted_variables_and_ones_that_no_class_changes():
    base = network(np.random.default_rng(1), chain(7), 2)
    fields = {n: getattr(base, n) for n in type(base).model_fields}
    variables = {n: var.model_dump() for n, var in base.variables.items()}
    variables["v4"] |= {"latent": False}
    variables["v7"] = {"family": "binomial", "trials": 4, "parents": ["v6"]}
    tables = {**base.truth, "v4": {"p": [0.3, 0.8]}, "v7": {"p": [[0.2, 0.5], [0.7, 0.4]]}}
    model = CausalModel(**fields | {"variables": variables, "truth": tables})
    exact = truth(model)
    for method in ("network", "unzip"):
        found = estimate(model, population(model), method=method)["estimate"]
        order = np.argsort(found["class_weight"].values), np.argsort(exact["class_weight"].values)
        for name in ("p_v3", "p_v7", "class_weight"):
            np.testing.assert_allclose(found[name].values[order[0]], exact[name].values[order[1]], atol=1e-9)
        np.testing.assert_allclose(found["p_v4"].values, exact["p_v4"].values, atol=1e-9)


def test_a_plan_reads_well_and_cuts_the_graph(rng):
    model = network(rng, chain(8), 2)
    found = plan(model)
    family = found.families[0]
    assert str(family) == "given v3, v6: {v1, v2} | {v4, v5} | {v7, v8}"
    assert family.boundaries == (("v3",), ("v3", "v6"), ("v6",))
    assert found.n_runs[0] == 4
    assert "4 runs" in str(found)
    assert {v for f in found.families for b in f.blocks for v in b} == set(model.variables)
    complete = {i: list(range(1, i)) for i in range(1, 5)}
    assert "no plan" in str(plan(network(rng, complete, 2)))
    with pytest.raises(ModelError, match="classes = 1"):
        plan(model.with_classes(1))


def test_groupings_hold_every_class():
    assert groupings([2, 2, 2], 3) == []
    for a, b, c in groupings([2] * 9, 3):
        assert min(2 ** len(a), 2 ** len(b)) >= 3
        assert not set(a) & set(b) | set(a) & set(c) | set(b) & set(c)


def test_refusals(rng):
    model = network(rng, chain(5), 2)
    table = population(model)
    with pytest.raises(ModelError, match="does not go with a network"):
        estimate(model, table, method="pencil")
    complete = network(rng, {i: list(range(1, i)) for i in range(1, 5)}, 2)
    table = population(complete)
    with pytest.raises(RefusedError, match="no plan"):
        estimate(complete, table, method="network")
    table = population(model)
    coins = CausalModel(classes=3, variables={"heads": {"family": "binomial", "trials": 4}})
    with pytest.raises(RefusedError, match="too few moments"):
        estimate(coins, {"heads": [0, 1, 4]}, method="pencil")
    with pytest.raises(RefusedError, match="classes = 1"):
        estimate(model.with_classes(1), table, method="network")
