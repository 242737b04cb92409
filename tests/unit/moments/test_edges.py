"""Score tests against those of the larger model, likelihood ratios, and what a design cannot see."""

import dataclasses

import numpy as np
import pytest

from pymc_mte import CausalModel, load_model, population, simulate
from pymc_mte.data import columns_of, resolve
from pymc_mte.moments.bootstrap import Sampling
from pymc_mte.moments.edges import _Layout, edge_tests, forbidden_edges
from pymc_mte.moments.em import em
from pymc_mte.moments.likelihood import fit_likelihood
from pymc_mte.moments.problem import make_problem
from pymc_mte.moments.scores import Scores, information, inverse_information
from pymc_mte.network import cell_columns, log_joint, log_sum_classes

OUTCOMES = {
    "bernoulli": {"p": [[0.2, 0.6], [0.5, 0.9]]},
    "normal": {"mean": [[0.0, 1.0], [2.0, 5.0]], "sd": [1.0, 1.5]},
    "student_t": {"mean": [[0.0, 1.0], [2.0, 5.0]], "sd": [1.0, 1.5], "nu": 4.0},
}


def with_edge(model, parent, child):
    """The model with one more observed edge."""
    fields = {n: getattr(model, n) for n in type(model).model_fields}
    var = model.variables[child]
    parents = (parent, *var.parents)
    larger = fields["variables"] | {child: var.model_copy(update={"parents": parents})}
    bare = {"variables": larger, "truth": None, "treatment_proxies": (), "outcome_proxies": ()}
    return CausalModel(**fields | bare)


def repeated(model, larger, parent, child, parameters):
    """The same law in the larger model: tables repeated along the new parent."""
    out = dict(parameters)
    for name, dims in larger.dims.items():
        if dims != model.dims[name]:
            axis = 1 + dims.index(parent)
            out[name] = np.repeat(np.expand_dims(parameters[name], axis), larger.size(parent), axis=axis)
    return out


def problem_with(model, n, seed):
    model, table = resolve(model, simulate(model, n, rng=seed))
    return make_problem(model, columns_of(table, model), table["count"].values.astype(float))


def variant(**parts):
    fields = {n: getattr(load_model("gallery:level3"), n) for n in CausalModel.model_fields}
    return CausalModel(**fields | {key: {**fields[key], **value} for key, value in parts.items()})


@pytest.mark.parametrize("family", OUTCOMES)
@pytest.mark.parametrize("scale_parents", [False, True])
def test_scores_are_those_of_the_larger_model(family, scale_parents):
    outcome = {"family": family, "parents": ["t"]}
    value = dict(OUTCOMES[family])
    if scale_parents and family == "bernoulli":
        return
    if scale_parents:
        outcome["scale_parents"] = True
        value["sd"] = [[1.0, 1.2], [1.5, 0.8]]
    problem = problem_with(variant(variables={"y": outcome}, truth={"y": value}), 200, 1)
    model = problem.model
    point = {n: v[None] for n, v in model.true_parameters().items()}
    layout = _Layout(problem, point)
    np.testing.assert_allclose(np.abs(layout.base).sum(axis=0) > 0, np.ones(layout.base.shape[1], dtype=bool))
    own = Scores(model, layout.columns).by_pattern(point)
    np.testing.assert_allclose(span(layout.base), span(own), atol=1e-9)
    if family == "bernoulli":
        np.testing.assert_allclose(layout.base, own, atol=1e-12)
    for parent, child in (("x", "y"), ("z", "y"), ("t", "x"), ("z", "x")):
        larger = with_edge(model, parent, child)
        if scale_parents and child == "y":
            continue  # there the larger model's scale would vary with the new parent too
        wide = Scores(larger, layout.columns).by_pattern(repeated(model, larger, parent, child, point))
        ours = np.column_stack([layout.base, layout.block(parent, child)[0]])
        np.testing.assert_allclose(span(ours), span(wide), atol=1e-8)


def span(columns):
    """Projection on the columns."""
    u, s, _ = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), full_matrices=False)
    u = u[:, s > 1e-9 * s[0]]
    return u @ u.T


def test_statistic_is_the_larger_models_score_statistic():
    """Rao's form: score of the larger model in its expected information, at the fit without the edge."""
    problem = problem_with(load_model("gallery:paper_pair"), 5_000, 3)
    model = problem.model
    point, _ = fit_likelihood(problem)
    one = dataclasses.replace(problem)
    found = _Layout(one, point)
    cells = cell_columns(model)
    law = np.exp(log_sum_classes(log_joint(model, point, cells)))[0] * problem.counts.sum()
    for parent, child in (("x1", "y"), ("z0", "y"), ("t", "x0"), ("z1", "x0")):
        larger = with_edge(model, parent, child)
        score = Scores(larger, cells).by_pattern(repeated(model, larger, parent, child, point))
        total = found.counts @ score
        matrix = information(score, law)
        want = total @ inverse_information(matrix) @ total
        got = found.test(((parent, child),), "")
        np.testing.assert_allclose(got.statistic, want, rtol=1e-3, atol=1e-3)
        own = information(found.base, law)
        assert got.df == np.linalg.matrix_rank(matrix, tol=1e-7) - np.linalg.matrix_rank(own, tol=1e-7)


def test_zero_at_the_population_and_the_likelihood_ratio_near_it():
    """Score and likelihood-ratio statistics differ by a smaller order: within a third for a weak edge."""
    model = load_model("gallery:paper_pair")
    law = population(model)
    point = {n: v[None] for n, v in model.true_parameters().items()}
    problem = make_problem(model, columns_of(law, model), law["count"].values * 1e4)
    for test in edge_tests(problem, point):
        assert test.statistic < 1e-12
        assert test.p_value > 0.999
    larger = with_edge(model, "x0", "y")
    start = repeated(model, larger, "x0", "y", point)
    shift = np.array([-0.05, 0.05])[:, None] * np.array([1.0, -1.0])
    moved = start | {
        "p_y": np.stack([1 - start["p_y"][..., 1] - shift, start["p_y"][..., 1] + shift], axis=-1)
    }
    cells = cell_columns(model)
    p = np.exp(log_sum_classes(log_joint(larger, moved, cells)))[0]
    problem = make_problem(model, cells, p)
    point, _ = fit_likelihood(problem)
    test = edge_tests(problem, point)[0]
    small, large = (
        em(m, cells, p[None], q, tolerance=1e-15, max_iterations=20_000).log_likelihood[0]
        for m, q in ((model, point), (larger, moved))
    )
    assert 0.75 < test.statistic / (2 * (large - small)) < 1.33


def test_edges_by_level():
    kinds = {name: forbidden_edges(load_model(f"gallery:{name}")) for name in ("level2", "level3", "level4")}
    edges = {name: [edge for group in found.values() for edge in group] for name, found in kinds.items()}
    assert edges["level4"] == [("z", "y"), ("t", "x"), ("z", "x")]
    assert edges["level3"] == [("x", "y"), *edges["level4"]]
    assert edges["level2"] == [*edges["level3"], ("z", "t")]
    assert list(kinds["level3"])[1] == "z independent of y given latent class, t"
    assert [len(group) for group in forbidden_edges(load_model("gallery:paper_pair")).values()] == [
        2,
        2,
        2,
        4,
        2,
    ]


def test_binary_level_3_has_two_degrees_of_freedom_and_is_blind_to_the_mirror():
    """15 cells, 13 parameters; a slope of X with opposite signs in mirrored arms leaves no trace."""
    model = load_model("gallery:level3")
    law = population(model)
    problem = make_problem(model, columns_of(law, model), law["count"].values * 20_000)
    point = {n: v[None] for n, v in model.true_parameters().items()}
    tests = {test.edges[0]: test for test in edge_tests(problem, point)}
    assert tests["x", "y"].df == tests["z", "y"].df == tests["t", "x"].df == 2
    alike, apart, against = tests["x", "y"].power
    assert alike > 0.99
    assert 0.5 < apart < 0.8
    assert against < 0.0501
    assert tests["z", "x"].df == 0
    assert tests["z", "x"].power == (0.0, 0.0, 0.0)
    assert np.isnan(tests["z", "x"].p_value)


def test_power_is_what_samples_show():
    """Normal approximation of the power against 200 samples: 5 SEs are .18, and .05 for the local theory."""
    model = load_model("gallery:paper_pair")
    point = {n: v[None] for n, v in model.true_parameters().items()}
    larger = with_edge(model, "t", "x0")
    q = point["p_x0"][0, :, 1]
    logit = np.log(q / (1 - q))[:, None] + 0.1 * np.array([-1.0, 1.0])
    p = 1 / (1 + np.exp(-logit))
    cells = cell_columns(model)
    law = np.exp(
        log_sum_classes(log_joint(larger, point | {"p_x0": np.stack([1 - p, p], axis=-1)[None]}, cells))
    )[0]
    n = 20_000
    samples = np.random.default_rng(3).multinomial(n, law, size=200).astype(float)
    fits = em(model, cells, samples, point, tolerance=1e-9).parameters
    base = make_problem(model, cells, law * n)
    hits, power = 0, []
    for i, row in enumerate(samples):
        own = dataclasses.replace(base, counts=row, sampling=Sampling(counts=row))
        layout = _Layout(own, {name: value[i : i + 1] for name, value in fits.items()})
        test = layout.test((("t", "x0"),), "")
        hits += test.p_value < 0.05
        if i < 10:
            # the shift is 0.2 in the log-odds from arm to arm, so 0.1 per SD: a fifth of the one judged
            scaled = dataclasses.replace(test, noncentrality=tuple(v / 25 for v in test.noncentrality))
            power.append(scaled.power[0])
    assert abs(hits / 200 - np.mean(power)) < 0.23


def test_large_tables_fall_back_on_the_rows(monkeypatch):
    problem = problem_with(load_model("gallery:paper_pair"), 20_000, 4)
    point, _ = fit_likelihood(problem)
    expected = edge_tests(problem, point)
    monkeypatch.setattr("pymc_mte.moments.edges.MAX_CELLS", 10)
    for one, two in zip(expected, edge_tests(problem, point), strict=True):
        assert one.df == two.df
        np.testing.assert_allclose(one.statistic, two.statistic, rtol=0.1)
