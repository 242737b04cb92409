"""Consequences of the independences: exact on population tables, brute force, sizes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from pymc_mte import CausalModel, load_model, population, simulate, truth
from pymc_mte.data import columns_of, resolve
from pymc_mte.moments.admissible import admissible
from pymc_mte.moments.bootstrap import Sampling
from pymc_mte.moments.overid import common_span, commuting, hansen_j, outcome_span, proxy_rank
from pymc_mte.moments.problem import make_problem

PER_ARM = {"J": hansen_j, "rank": proxy_rank, "span of N": outcome_span}


def problem_of_law(model):
    table = population(model)
    return make_problem(model, columns_of(table, model), table["count"].values)


def all_tests(problem, counts):
    arms = range(len(problem.arms))
    found = {f"{name} {t}": test(problem, counts, t) for name, test in PER_ARM.items() for t in arms}
    return found | {"span": common_span(problem, counts, "x"), "commute": commuting(problem, counts)}


def per_row(problem, n=1e8):
    """Statistics of the population over the number of rows, of which there are very many."""
    found = all_tests(problem, problem.counts[None] * n / problem.counts.sum())
    return {name: test.statistic[0] / n for name, test in found.items()}


@given(st.integers(0, 10_000), st.sampled_from([(2, 2, 2), (2, 4, 3), (2, 2, 4), (3, 3, 3), (3, 4, 5)]))
def test_zero_and_p_1_under_the_graph(tools, seed, shape):
    model = tools.draw_level3(seed, *shape)
    if model is None:
        return
    problem = problem_of_law(model)
    k, dz, dx = shape
    df = {"J": dz - k, "rank": (dz - k) * (dx - k), "span of N": k * (dx - k)}
    for name, test in all_tests(problem, problem.counts[None] * 1e4).items():
        want = {"span": k * (dx - k), "commute": k * (k - 1)}.get(name, df.get(name[:-2]))
        assert test.df[0] == want, name
        assert abs(test.statistic[0]) < 1e-6, name
        assert (test.p_value[0] > 0.99) if want else np.isnan(test.p_value[0]), name


def test_bridge_tests_hold_at_level_4(tools):
    """X may cause Y there: the bridge and the span over arms are unmoved, the operators are not."""
    model = next(m for m in (tools.draw_level3(s, 2, 3, 3, x_to_y=True) for s in range(99)) if m)
    problem = problem_of_law(model)
    found = per_row(problem)
    for name in ("J 0", "J 1", "rank 0", "rank 1", "span"):
        assert abs(found[name]) < 1e-9, name
    for name in ("span of N 0", "span of N 1", "commute"):
        assert found[name] > 1e-6, name


def sides(edge):
    """Two classes and three levels a side, with one forbidden edge of stated child."""
    parents = {"t": ["z"], "y": ["t"]}
    table = {
        "z": [[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]],
        "x": [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]],
        "t": [[0.3, 0.5, 0.6], [0.4, 0.5, 0.8]],
        "y": [[0.2, 0.5], [0.5, 0.9]],
    }
    p = {name: np.array(value) for name, value in table.items()}
    tilt = np.array([[0.0, 0.1, -0.1], [0.0, -0.1, 0.1], [0.05, 0.0, -0.05]])
    if edge in (("x", "y"), ("z", "y")):
        parents["y"] = [edge[0], "t"]
        p["y"] = p["y"][:, None] + np.array([-0.1, 0.0, 0.1])[None, :, None] * np.array([0.3, 1.0])
    if edge == ("t", "x"):
        parents["x"], p["x"] = ["t"], p["x"][:, None] + tilt[:2]
    if edge == ("z", "x"):
        parents["x"], p["x"] = ["z"], p["x"][:, None] + tilt
    variables = {
        n: {"family": "bernoulli" if n in "ty" else "categorical", "parents": parents.get(n, [])}
        | ({} if n in "ty" else {"levels": [0, 1, 2]})
        for n in "zxty"
    }
    return CausalModel(
        classes=2,
        variables=variables,
        treatment="t",
        outcome="y",
        treatment_proxies=["z"] if edge is None else [],
        outcome_proxies=["x"] if edge is None else [],
        truth={"class_weight": [0.4, 0.6]} | {n: {"p": v.tolist()} for n, v in p.items()},
    )


@pytest.mark.parametrize(
    ("edge", "seen", "unseen"),
    [
        (("x", "y"), ["span of N 0", "span of N 1", "commute"], ["J 0", "J 1", "rank 0", "span"]),
        (("z", "y"), ["J 0", "J 1", "commute"], ["rank 0", "span", "span of N 0", "span of N 1"]),
        (("t", "x"), ["span"], ["J 0", "J 1", "rank 0", "rank 1", "span of N 0", "span of N 1"]),
        (("z", "x"), ["rank 0", "rank 1"], []),
    ],
)
def test_each_edge_moves_its_own_tests(edge, seen, unseen):
    """At the population: rounding leaves 1e-30, and the benchmark tells how much is seen in samples."""
    forbidden, bare = sides(edge), sides(None)
    law = population(forbidden)
    problem = make_problem(bare, columns_of(law, bare), law["count"].values)
    found = per_row(problem)
    assert all(found[name] > 1e-6 for name in seen), found
    assert all(abs(found[name]) < 1e-20 for name in unseen), found


def test_hansens_j_is_the_brute_force_one(rng):
    """Row by row: residuals of the bridge, times the left null vectors, in their own covariance."""
    model = sides(("z", "y"))
    bare, table = resolve(sides(None), simulate(model, 3_000, rng=2))
    counts = table["count"].values.astype(float)
    problem = make_problem(bare, columns_of(table, bare), counts)
    rows = np.repeat(np.arange(len(counts)), counts.astype(int))
    z, x, y = problem.z.values[rows], problem.x.values[rows], problem.outcome[rows]
    y = (y - y.mean()) / y.std()
    for place in (0, 1):
        inside = problem.arm[rows] == place
        m = sum(np.outer(z[i], x[i]) for i in np.flatnonzero(inside)) / len(rows)
        b = sum(z[i] * y[i] for i in np.flatnonzero(inside)) / len(rows)
        u, s, vt = np.linalg.svd(m)
        a = vt[:2].T @ ((u[:, :2].T @ b) / s[:2])
        g = np.array([(u[:, 2:].T @ z[i]) * (y[i] - x[i] @ a) * inside[i] for i in range(len(rows))])
        want = (
            len(rows)
            * g.mean(axis=0)
            @ np.linalg.solve(np.atleast_2d(np.cov(g.T, bias=True)), g.mean(axis=0))
        )
        # a million copies of the rows: what the estimated directions add to the covariance vanishes
        many = hansen_j(problem, counts[None] * 1e6, place).statistic[0] / 1e6
        np.testing.assert_allclose(many, want, rtol=1e-7)


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 3, 3), (3, 4, 3)])
def test_the_commutators_covariance_is_that_of_resamples(tools, shape):
    """Quadratic forms of 4,000 samples of the truth: mean df, +- 5 sqrt(2 df / 4000)."""
    model = next(m for m in (tools.draw_level3(s, *shape) for s in range(3, 99)) if m)
    problem = problem_of_law(model)
    samples = np.random.default_rng(5).multinomial(200_000, problem.counts, size=4_000 // shape[0] ** 2)
    found = commuting(problem, samples.astype(float)).statistic
    df = shape[0] * (shape[0] - 1)
    assert abs(found.mean() - df) < 5 * np.sqrt(2 * df / len(samples))


def test_sizes(tools):
    """500 samples of 20,000 rows at 5%: 5 SEs are .049, so each share is in .001 to .099 but for 1e-6."""
    model = next(m for m in (tools.draw_level3(s, 2, 3, 3) for s in range(99)) if m)
    problem = problem_of_law(model)
    samples = np.random.default_rng(1).multinomial(20_000, problem.counts, size=500).astype(float)
    for name, test in all_tests(problem, samples).items():
        assert 0.001 < (test.p_value < 0.05).mean() < 0.099, name
        # all of the distribution: the largest distance to the chi-squared law has p > 1e-5
        assert stats.kstest(test.statistic, stats.chi2(test.df[0]).cdf).pvalue > 1e-5, name


def test_three_arms(tools):
    model = CausalModel(
        classes=2,
        variables={
            "z": {"family": "categorical", "levels": [0, 1, 2]},
            "x": {"family": "categorical", "levels": [0, 1, 2]},
            "t": {"family": "categorical", "levels": [0, 1, 2], "parents": ["z"]},
            "y": {"family": "bernoulli"},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
    )
    problem = problem_of_law(tools.with_truth(model, tools.random_truth(model, np.random.default_rng(3))))
    found = all_tests(problem, problem.counts[None])
    assert found["commute"].df[0] == found["span"].df[0] == 4  # (arms - 1) times 2
    assert max(abs(test.statistic[0]) for test in found.values()) < 1e-12
    samples = np.random.default_rng(2).multinomial(300_000, problem.counts, size=300).astype(float)
    for name in ("commute", "span"):
        assert abs(all_tests(problem, samples)[name].statistic.mean() - 4) < 5 * np.sqrt(8 / 300)


def test_clusters_and_weights_widen_the_covariance(level3):
    """Every row twice in its own cluster is half as many rows; equal weights change nothing."""
    model = sides(("x", "y"))
    bare, table = resolve(sides(None), simulate(model, 1_000, rng=1))
    counts, columns = table["count"].values.astype(float), columns_of(table, bare)
    rows = np.repeat(np.arange(len(counts)), counts.astype(int))
    single = {name: column[rows] for name, column in columns.items()}
    double = {name: np.tile(column, 2) for name, column in single.items()}
    cluster = np.tile(np.arange(len(rows)), 2)
    plain = make_problem(bare, single, Sampling(counts=np.ones(len(rows))))
    paired = make_problem(bare, double, Sampling(counts=np.ones(2 * len(rows)), cluster=cluster))
    weighted = make_problem(bare, single, Sampling(counts=np.ones(len(rows)), weight=np.ones(len(rows))))
    naive = make_problem(bare, double, Sampling(counts=np.ones(2 * len(rows))))
    for other, factor in ((paired, 1.0), (weighted, 1.0), (naive, 2.0)):
        for (name, one), two in zip(
            all_tests(plain, plain.counts[None]).items(),
            all_tests(other, other.counts[None]).values(),
            strict=True,
        ):
            # twice the rows estimate the directions better
            rtol = 0.2 if factor == 2 else 1e-6
            np.testing.assert_allclose(two.statistic[0], factor * one.statistic[0], rtol=rtol, err_msg=name)


def test_admissible_at_the_population_and_beyond(level3):
    problem = problem_of_law(level3)
    found = {item.name: item for item in admissible(problem, 0, np.random.default_rng(0))}
    right = truth(level3)
    effect = right["effect"].values / problem.outcome_sd
    np.testing.assert_allclose(found["weights within [0, 1]"].value, right["class_weight"].min())
    np.testing.assert_allclose(found["effects are real numbers"].value, (effect[1] - effect[0]) ** 2)
    np.testing.assert_allclose(found["probabilities within [0, 1]"].value, 0.125)
    assert np.isnan(found["effects are real numbers"].p_value)


def test_complex_effects_are_rejected():
    """A table of one binary proxy a side whose contrast of operators turns the plane: no real effects."""
    m, turn = np.diag([1.0, 0.25]), np.array([[0.0, 1.0], [-1.0, 0.0]])
    share = []
    for t, y in itertools.product((0, 1), repeat=2):  # features are signs, uncorrelated within the arms
        sign = 1 if t == y else -1
        for z, x in itertools.product((-1, 1), repeat=2):
            f, g = np.array([1, z]), np.array([1, x])
            share.append(f @ (m + sign * 0.2 * m @ turn) @ g / 16)
    cells = np.array([(z, x, t, y) for t, y, z, x in itertools.product((0, 1), repeat=4)])
    columns = dict(zip("zxty", cells.T, strict=True))
    counts = np.round(np.array(share) * 1e5)
    assert (counts > 0).all()
    problem = make_problem(load_model("gallery:level3"), columns, counts)
    found = {item.name: item for item in admissible(problem, 100, np.random.default_rng(0))}
    assert found["effects are real numbers"].value < 0
    assert found["effects are real numbers"].p_value < 1e-6


def many_proxies(d, n, rng, low=0.4, high=0.6):
    """Draw rows of two classes with d moderate binary proxies a side, the graph true."""
    binary = {"family": "bernoulli"}
    z, x = ([f"{side}{i}" for i in range(d)] for side in "zx")
    model = CausalModel(
        classes=2,
        variables=dict.fromkeys([*z, *x], binary) | {"t": binary, "y": binary | {"parents": ["t"]}},
        treatment="t",
        outcome="y",
        treatment_proxies=z,
        outcome_proxies=x,
    )
    u = rng.integers(0, 2, n)
    columns = {name: rng.binomial(1, np.where(u == 1, high, low)) for name in (*z, *x)}
    columns["t"] = rng.binomial(1, np.where(u == 1, 0.6, 0.4))
    columns["y"] = rng.binomial(1, np.array([[0.2, 0.5], [0.5, 0.9]])[columns["t"], u])
    return make_problem(model, columns, np.ones(n))


@pytest.mark.slow
def test_estimated_directions_are_paid_for():
    """Ten moderate proxies a side, 3,000 rows, 300 samples: means within 5 standard errors of df, sizes too.

    Without the noise of the directions the means of the spans are 1.13 times df: 7 standard errors.
    """
    rng, means, low = np.random.default_rng(8), [], []
    for _ in range(300):
        problem = many_proxies(10, 3_000, rng)
        tests = [common_span(problem, problem.counts[None], side) for side in ("z", "x")]
        tests += [hansen_j(problem, problem.counts[None], t) for t in (0, 1)]
        means.append([float(test.statistic[0]) / int(test.df[0]) for test in tests])
        low.append([bool(test.p_value[0] < 0.05) for test in tests])
    assert abs(np.mean(means, axis=0)[:2] - 1).max() < 5 * np.sqrt(2 / 18 / 300)
    assert np.mean(low, axis=0).max() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300)


def test_too_weak_proxies_give_no_test():
    """Correlations of .04: 2 of 10 noise directions are as long as the class's."""
    problem = many_proxies(5, 1_000, np.random.default_rng(1), 0.48, 0.52)
    test = common_span(problem, problem.counts[None], "x")
    assert test.df[0] == 8
    assert test.too_weak[0]
    assert np.isnan(test.p_value[0])
