"""Feature maps of proxies: exact on the population with each map, and chosen by the stated rule."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from pymc_mte import CausalModel, ModelError, estimate, identify, load_model, population, simulate, truth
from pymc_mte.data import columns_of
from pymc_mte.moments.features import MAX_FEATURES, build_features, powers_serve
from pymc_mte.moments.likelihood import proxy_tables
from pymc_mte.moments.methods import spectral_values
from pymc_mte.moments.problem import make_problem
from pymc_mte.network import log_joint

B = {"family": "bernoulli"}
VALUES = {  # what the levels of a proxy stand for, so that the rule takes this map
    "scores": None,
    "powers": lambda level: level.astype(float),
    "bins": lambda level: np.exp(8.0 * level),
}
seeds = st.integers(0, 2**32 - 1)


def as_family(model, family, names):
    """Give some variables another family, without the edges that it cannot have."""
    variables = {}
    for name, var in model.variables.items():
        keep = {} if family == "normal" else {"levels": var.levels}
        parents = tuple(p for p in var.parents if family != "normal" or p not in names)
        changed = {"family": family, **keep} if name in names else var.model_dump(exclude_none=True)
        variables[name] = {**changed, "parents": parents}
    fields = {n: getattr(model, n) for n in type(model).model_fields}
    return CausalModel(**fields | {"variables": variables, "truth": None})


def separation(model, problem, cells):
    """Smallest singular value of the class means of the features, of x and of z in every arm."""
    joint = np.exp(log_joint(model, model.true_parameters(), cells))
    sides = [(problem.x.values, joint)]
    sides += [(problem.z.values, joint * (cells["t"] == arm)) for arm in (0, 1)]
    means = [(weight @ values) / weight.sum(axis=1, keepdims=True) for values, weight in sides]
    return min(np.linalg.svd(m, compute_uv=False)[model.classes - 1] for m in means)


@pytest.mark.parametrize("kind", VALUES)
@given(seed=seeds, classes=st.integers(2, 3), extra=st.tuples(st.integers(0, 2), st.integers(0, 2)))
@settings(max_examples=15)
def test_spectral_is_exact_with_every_map(tools, kind, seed, classes, extra):
    model = tools.draw_level3(seed, classes, classes + extra[0], classes + extra[1])
    assume(model is not None)
    table, family = population(model), "ordinal" if kind == "scores" else "normal"
    cells, counts = columns_of(table, model), table["count"].values
    value = VALUES[kind] or (lambda level: level)
    columns = {n: value(c) if n in ("z", "x") else c for n, c in cells.items()}
    problem = make_problem(as_family(model, family, ("z", "x")), columns, counts)
    assume(set(problem.z.maps.values()) | set(problem.x.maps.values()) == {kind})
    assume(min(problem.z.values.shape[1], problem.x.values.shape[1]) >= classes)
    assume(separation(model, problem, cells) > 0.1)
    found, wanted = spectral_values(problem, counts[None]), truth(model)
    order = np.argsort(found["effect"][0])
    for name in ("class_weight", "effect"):
        np.testing.assert_allclose(found[name][0][order], wanted[name], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found["att"][0], wanted["att"], rtol=0, atol=1e-8)


def features_of(var, column, classes=2, counts=None):
    model = CausalModel(classes=classes, variables={"x": var})
    counts = np.ones(len(column)) if counts is None else counts
    return build_features(model, {"x": column}, counts, ["x"])


@pytest.mark.parametrize(
    ("classes", "levels", "wanted"), [(1, 4, 1), (2, 4, 1), (3, 4, 2), (9, 4, 3), (3, 2, 1)]
)
def test_scores_are_orthonormal_polynomials_of_mid_ranks(rng, classes, levels, wanted):
    column, counts = np.arange(levels), rng.uniform(1, 3, levels)
    share = counts / counts.sum()
    found = features_of({"family": "ordinal", "levels": list(range(levels))}, column, classes, counts)
    assert found.names == ("1", *(f"x, score {d}" for d in range(1, wanted + 1)))
    np.testing.assert_allclose((found.raw.T * share) @ found.raw, np.eye(wanted + 1), atol=1e-12)
    ridit = np.cumsum(share) - share / 2
    slope = np.diff(found.raw[:, 1]) / np.diff(ridit)
    np.testing.assert_allclose(slope, slope[0])  # the first score is linear in the ridits, ascending
    assert slope[0] > 0


def test_levels_that_never_occur_change_nothing(rng):
    column = rng.integers(0, 4, 200)
    few = features_of({"family": "ordinal", "levels": [1, 2, 3, 4]}, column, 4)
    many = features_of({"family": "ordinal", "levels": [0, 1, 2, 3, 4, 5]}, column + 1, 4)
    np.testing.assert_allclose(few.raw, many.raw, atol=1e-12)


def test_the_order_of_levels_counts(rng):
    """Reversed levels turn the odd scores round and nothing else."""
    column = rng.integers(0, 5, 300)
    var = {"family": "ordinal", "levels": list(range(5))}
    ahead, back = features_of(var, column, 4).raw, features_of(var, 4 - column, 4).raw
    np.testing.assert_allclose(back, ahead * [1, -1, 1, -1], atol=1e-10)


DRAWS = {
    "normal": lambda rng: rng.normal(size=3_000),
    "uniform": lambda rng: rng.uniform(size=3_000),
    "t_2": lambda rng: rng.standard_t(2, size=3_000),
    "lognormal": lambda rng: rng.lognormal(size=3_000),
    "zero-inflated": lambda rng: rng.exponential(size=3_000) * (rng.random(3_000) < 0.4),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("classes", [2, 3])
def test_long_tails_are_cut_into_bins(rng, name, classes):
    column = 1e3 + 1e-3 * DRAWS[name](rng)  # units do not matter
    found = features_of({"family": "normal"}, column, classes)
    short = name == "uniform" or (name == "normal" and classes == 2)
    assert found.maps == {"x": "powers" if short else "bins"}
    if short:
        assert found.names == ("1", "x", "x^2")[: max(2, classes)]
        return
    indicators = found.raw[:, 1:]
    assert indicators.shape[1] == max(4, classes) - 1
    assert set(np.unique(indicators)) == {0.0, 1.0}
    shares = np.append(1 - indicators.sum(axis=1).mean(), indicators.mean(axis=0))
    if name == "zero-inflated":  # the frequent value is the bin left out, the others share the rest
        assert shares[0] == (column == 1e3).mean()
        np.testing.assert_allclose(shares[1:], shares[1:].mean(), atol=2e-3)
    else:
        np.testing.assert_allclose(shares, 1 / 4, atol=2e-3)


def test_the_rule_at_its_limit():
    """Two values at -1 and 1 and zeros between: kurtosis 1 / (share of the ends), whatever the power."""
    for highest, uniform in ((1, 9 / 5), (2, 25 / 9)):
        for ends, serves in ((1 / (2 * uniform) + 1e-6, True), (1 / (2 * uniform) - 1e-6, False)):
            share = np.array([ends / 2, 1 - ends, ends / 2])
            assert powers_serve(np.array([-7.0, 0.0, 7.0]), share, highest) is serves


def test_high_powers_do_not_overflow():
    assert powers_serve(np.array([-1e200, 0.0, 1e200]), np.array([0.4, 0.2, 0.4]), 49)


def four_proxies(families=("bernoulli",) * 4):
    variables = {n: {"family": f} for n, f in zip(("z0", "z1", "x0", "x1"), families, strict=True)}
    return CausalModel(
        classes=2,
        variables=variables | {"t": B, "y": B},
        treatment="t",
        outcome="y",
        treatment_proxies=["z0", "z1"],
        outcome_proxies=["x0", "x1"],
    )


def joined(rows):
    """Two binary proxies of a side as one of four levels."""
    out = {n: rows[n].values for n in ("t", "y")}
    return out | {side: 2 * rows[f"{side}0"].values + rows[f"{side}1"].values for side in "zx"}


@pytest.mark.parametrize("method", ["spectral", "bridge"])
def test_interactions_of_two_binary_proxies_are_the_joint_table(method):
    pair = load_model("gallery:paper_pair")
    rows = simulate(pair, 4_000, rng=3)
    four = {"family": "categorical", "levels": [0, 1, 2, 3]}
    other = CausalModel(
        classes=2,
        variables={"z": four, "x": four, "t": B, "y": B},
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
    )
    one = estimate(pair, rows, method=method, interactions=True, n_boot=8)
    two = estimate(other, joined(rows), method=method, n_boot=0)
    main = estimate(pair, rows, method=method, n_boot=0)["estimate"]
    names = ("ate", "att") if method == "bridge" else ("effect", "class_weight", "potential_outcome", "att")
    for name in names:
        np.testing.assert_allclose(one["estimate"][name], two["estimate"][name], rtol=0, atol=1e-8)
        assert np.abs(one["estimate"][name] - main[name]).max() > 1e-5
    assert one.attrs["interactions"] == 1
    assert json.loads(one.attrs["feature_maps"]) == dict.fromkeys(("z0", "z1", "x0", "x1"), "indicators")


def test_only_pairs_interact(rng):
    names = [f"x{i}" for i in range(5)]
    model = CausalModel(classes=2, variables=dict.fromkeys(names, B))
    columns = {n: rng.integers(0, 2, 500) for n in names}
    found = build_features(model, columns, np.ones(500), names, interactions=True)
    assert len(found.names) == 1 + 5 + 10
    place = found.names.index("x1 = 1 * x3 = 1")
    np.testing.assert_array_equal(found.raw[:, place], columns["x1"] * columns["x3"])


def test_too_many_interactions_are_refused(rng):
    names = [f"x{i}" for i in range(20)]  # 20 + 190 features
    model = CausalModel(classes=2, variables=dict.fromkeys(names, B))
    columns = {n: rng.integers(0, 2, 100) for n in names}
    with pytest.raises(ModelError, match=rf"210 features.*more than {MAX_FEATURES}; use fewer proxies"):
        build_features(model, columns, np.ones(100), names, interactions=True)
    assert len(build_features(model, columns, np.ones(100), names).names) == 21


def test_interactions_reach_more_classes():
    """Two binary proxies a side have three features, and four with their product."""
    four = load_model("gallery:paper_pair").with_classes(4)
    rows = simulate(load_model("gallery:paper_pair"), 2_000, rng=1)
    for data in (None, rows):
        notes = [n.status.name for n in identify(four, data).notes]
        assert "TOO_FEW_FEATURES" in notes
        notes = [n.status.name for n in identify(four, data, interactions=True).notes]
        assert "TOO_FEW_FEATURES" not in notes


def ordinal_model():
    """Five ordered levels a side, shifted by the class; effects -0.6 and 0.5."""
    low = [0.4, 0.3, 0.15, 0.1, 0.05]
    var = {"family": "ordinal", "levels": ["never", "rarely", "sometimes", "often", "always"]}
    return CausalModel(
        classes=2,
        variables={"z": var, "x": var, "t": {**B, "parents": ["z"]}, "y": {**B, "parents": ["t"]}},
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        truth={
            "class_weight": [0.4, 0.6],
            "z": {"p": [low, low[::-1]]},
            "x": {"p": [low, low[::-1]]},
            "t": {"p": [[0.7, 0.6, 0.5, 0.4, 0.3], [0.6, 0.5, 0.5, 0.4, 0.4]]},
            "y": {"p": [[0.8, 0.2], [0.3, 0.8]]},
        },
    )


@pytest.mark.parametrize("family", ["categorical", "ordinal"])
def test_class_means_of_all_features_give_the_tables_back(tools, family):
    """As many scores as levels but one hold the whole table; the likelihood climb starts from it."""
    model = tools.draw_level3(1, 3, 3, 3)
    table = population(model)
    cells, counts = columns_of(table, model), table["count"].values
    problem = make_problem(as_family(model, family, ("x",)), cells, counts)
    joint = np.exp(log_joint(model, model.true_parameters(), cells))
    means = (joint @ problem.x.raw) / joint.sum(axis=1, keepdims=True)
    found = proxy_tables(problem, means[None])["p_x"][0]
    np.testing.assert_allclose(found, model.true_parameters()["p_x"], atol=1e-12)


@pytest.mark.parametrize("method", ["spectral", "polished", "bridge"])
def test_ordinal_proxies_from_rows_to_answers(method):
    """Text levels in, the truth within 4.5 standard errors out: 7e-6 by chance per number."""
    model = ordinal_model()
    answer = estimate(model, simulate(model, 8_000, rng=2), method=method, n_boot=80)
    wanted, point = truth(model), answer["estimate"]
    for name in ("ate", "att") if method == "bridge" else ("ate", "att", "effect", "class_weight"):
        z = (point[name] - wanted[name]) / point[f"se_{name}"]
        assert np.abs(z).max() < 4.5, name
    assert json.loads(answer.attrs["feature_maps"]) == {"z": "scores", "x": "scores"}
    exact = estimate(model, population(model), method=method, n_boot=0)["estimate"]
    np.testing.assert_allclose(exact["ate"], wanted["ate"], atol=1e-6)
