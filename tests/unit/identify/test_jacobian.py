"""Ranks and row spaces against published counts and against derivatives that use no code of ours."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from pymc_mte import CausalModel, identify, load_model
from pymc_mte.identify import jacobian as home
from pymc_mte.identify.jacobian import all_cells, interior_point, jacobian, n_free, spectrum
from pymc_mte.moments.scores import Scores, from_free, to_free
from pymc_mte.network import cell_columns, log_joint

CLASS_LEVEL = ("class_weight", "effect", "potential_outcome", "effect_sd", "weight_harmed")


def items(n, classes, levels=2):
    family = {"family": "categorical", "levels": list(range(levels))}
    return CausalModel(classes=classes, variables={f"v{i}": family for i in range(n)})


def graph(edges, *, classes=2, y=None, latent=()):
    variables = {
        v: {"family": "bernoulli", "parents": [a for a, b in edges if b == v], "latent": v not in latent}
        for v in "zxty"
    }
    variables["y"] |= y or {}
    return CausalModel(
        classes=classes,
        variables=variables,
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
    )


@pytest.mark.parametrize(
    ("model", "rank", "n_parameters"),
    [
        (items(3, 2), 7, 7),
        (items(3, 3), 7, 11),
        (items(4, 2), 9, 9),
        (items(4, 3), 13, 14),  # fewer than the 15 degrees of freedom: counting them is not enough
        (items(4, 4), 15, 19),
        (items(2, 2), 3, 5),
        (items(10, 5), 54, 54),
        (items(3, 3, levels=3), 20, 20),
        (items(3, 4, levels=3), 25, 27),  # 26 degrees of freedom; Strassen's defective case
        (graph([("z", "t")]), 13, 13),
        (graph([("z", "t"), ("x", "y")]), 15, 17),
        (graph([("x", "y")]), 15, 15),
        (graph([("z", "t")], classes=1), 6, 6),
    ],
)
def test_known_ranks(model, rank, n_parameters):
    found = jacobian(model)
    assert (found.rank, found.n_parameters, found.missing) == (rank, n_parameters, n_parameters - rank)
    assert found.clear
    assert all(found.identified.values()) == (rank == n_parameters)
    assert set(found.free) == {name for name, value in found.residual.items() if value.max() > 1e-6}


@pytest.mark.parametrize(("level", "rank", "n"), [(1, 13, 13), (2, 11, 11), (3, 13, 13), (4, 15, 17)])
def test_the_four_graphs_of_the_hierarchy(level, rank, n):
    model = load_model(f"gallery:level{level}")
    found = identify(model)
    assert (found.rank, found.n_parameters) == (rank, n)
    assert all(found.identified[name] for name in ("ate", "att", "arm_mean"))
    for name in (*CLASS_LEVEL, *model.owners):
        assert found.identified[name] == (level < 4)


def test_on_level_4_averages_lie_in_the_row_space_and_class_effects_do_not():
    found = jacobian(load_model("gallery:level4"))
    assert max(found.residual[n].max() for n in ("ate", "att", "arm_mean")) < 1e-8
    assert min(found.residual["effect"].min(), found.residual["class_weight"].min()) > 0.02
    assert np.isfinite(found.error["ate"])
    assert np.isinf(found.error["effect"]).all()
    assert " against " in found.trade("class_weight")
    assert found.gap > 1e10
    assert 0 < found.smallest <= 1


def natural_jacobian(model, tools, rng):
    """Central differences of cell probabilities, averages and effects over free probabilities."""
    parameters = tools.random_truth(model, rng)
    places = [(n, i) for n, v in parameters.items() for i in np.ndindex(*v.shape[:-1], v.shape[-1] - 1)]

    def law(values):
        cell: dict[tuple[int, ...], float] = {}
        for u, at in tools.walk(model):
            key = tuple(at.values())
            cell[key] = cell.get(key, 0.0) + tools.natural_probability(model, values, u, at)
        means = np.array(
            [[tools.interventional(model, values, arm, u) for arm in range(2)] for u in range(2)]
        )
        effect = means[:, 1] - means[:, 0]
        return np.array([*cell.values(), values["class_weight"] @ effect, *effect, values["class_weight"][0]])

    columns = []
    for name, index in places:
        sides = []
        for step in (1e-5, -1e-5):
            moved = {n: v.copy() for n, v in parameters.items()}
            moved[name][index] += step
            moved[name][(*index[:-1], -1)] -= step
            sides.append(law(moved))
        columns.append((sides[0] - sides[1]) / 2e-5)
    found = np.array(columns).T
    return found[:-4], found[-4:]


@pytest.mark.parametrize("edges", [[("z", "t")], [("z", "t"), ("x", "y")]])
def test_brute_force_in_other_coordinates_agrees(edges, tools, rng):
    model = graph(edges)
    slope, answers = natural_jacobian(model, tools, rng)
    found = jacobian(model)
    _, value, vector = np.linalg.svd(slope)
    rank = int((value > 1e-7 * value[0]).sum())
    assert (rank, slope.shape[1]) == (found.rank, found.n_parameters)
    outside = np.linalg.norm(answers @ vector[rank:].T, axis=1) / np.linalg.norm(answers, axis=1)
    known = found.identified
    expected = [known["ate"], known["effect"], known["effect"], known["class_weight"]]
    assert (outside < 1e-6).tolist() == expected
    assert (outside[np.logical_not(expected)] > 1e-3).all()


@st.composite
def networks(draw):
    """Random small models: levels, edges and which variables vary with the class."""
    n = draw(st.integers(1, 4))
    names = [f"v{i}" for i in range(n)]
    variables = {}
    for i, name in enumerate(names):
        levels = draw(st.integers(2, 3))
        parents = [p for p in names[:i] if draw(st.booleans())][:2]
        latent = draw(st.booleans())
        family = {"family": "categorical", "levels": list(range(levels))}
        variables[name] = {**family, "parents": parents, "latent": latent}
    return CausalModel(classes=draw(st.integers(1, 3)), variables=variables), draw(st.integers(0, 10**6))


@given(networks())
def test_scores_times_cells_are_the_derivatives_of_the_cells(case):
    model, seed = case
    point = interior_point(model, np.random.default_rng(seed))
    cells = cell_columns(model)

    def law(free):
        return np.exp(log_joint(model, from_free(model, free[None]), cells)).sum(axis=1)[0]

    centre = to_free(model, point)[0]
    numeric = [(law(centre + 1e-5 * e) - law(centre - 1e-5 * e)) / 2e-5 for e in np.eye(len(centre))]
    exact = law(centre)[:, None] * Scores(model, cells).by_pattern(point)
    np.testing.assert_allclose(exact, np.array(numeric).reshape(exact.T.shape).T, atol=1e-9)
    assert n_free(model) == len(centre)


@pytest.mark.parametrize(
    "model", [items(4, 3), graph([("z", "t"), ("x", "y")]), items(5, 2)], ids=["open", "level4", "whole"]
)
def test_drawn_rows_answer_as_all_cells_do(model, monkeypatch):
    exact = jacobian(model)
    monkeypatch.setattr(home, "MAX_CELLS", 1)
    drawn = jacobian(model)
    assert exact.exact
    assert not drawn.exact
    assert drawn.ranks == exact.ranks
    assert drawn.identified == exact.identified


@pytest.mark.parametrize("family", ["normal", "student_t"])
def test_the_shape_of_an_outcome_may_identify_what_levels_do_not(family):
    model = graph([("z", "t"), ("x", "y")], y={"family": family})
    found = identify(model)
    assert found.rank == found.n_parameters == 19 + (family == "student_t")
    assert found.level == "ATE"
    assert all(found.identified.values())
    assert found.jacobian.needs_shape
    assert f"assumed shape alone ({family} y)" in str(found)
    assert "answers more than moment methods: class_weight" in str(found)
    assert not jacobian(graph([("z", "t")], y={"family": family})).needs_shape


def test_two_normal_classes_need_no_proxies_but_their_shape():
    found = jacobian(CausalModel(classes=2, variables={"a": {"family": "normal"}}))
    assert (found.rank, found.n_parameters, found.needs_shape) == (5, 5, True)


def test_a_class_that_leaves_no_trace_is_not_identified():
    """Without a variable that varies with the class, the score of the weight is zero."""
    found = jacobian(graph([("z", "t")], latent="zxty"))
    assert (found.rank, found.n_parameters) == (6, 7)
    assert found.free["class_weight"] == ("class_weight[class 1]",)
    assert found.identified["ate"]


def test_points_are_interior_and_classes_distinct(rng):
    model = items(3, 4, levels=3)
    point = interior_point(model, rng)
    assert point["class_weight"].min() > 0.1
    assert min(point[f"p_v{i}"].min() for i in range(3)) > 0.03
    gaps = np.abs(point["p_v0"][0][:, None] - point["p_v0"][0][None]).sum(axis=-1)
    assert gaps[np.triu_indices(4, 1)].min() > 1e-3
    assert spectrum(model, point, rng).rank == 25


def test_too_many_parameters_are_not_judged():
    wide = {"family": "categorical", "levels": list(range(400))}
    model = CausalModel(classes=3, variables={"a": wide, "b": {"family": "bernoulli"}})
    assert n_free(model) == 2 + 3 * 399 + 3
    assert jacobian(model) is None
    found = identify(model)
    assert (found.rank, found.n_parameters) == (None, 1202)
    assert "was not judged" in str(found)
    assert found.identified == {"class_weight": False}


def test_tables_beyond_the_limit_are_sampled():
    model = items(18, 3)
    assert not all_cells(model)
    found = jacobian(model, points=1)
    assert found.rank == found.n_parameters == 56


def test_rare_levels_of_parents_are_drawn_too():
    """64 combinations of parents, some with a probability of 1e-4: rows of the model alone miss them."""
    levels = {"family": "categorical", "levels": [0, 1, 2, 3]}
    child = {"family": "bernoulli", "parents": ["a", "b", "c"]}
    model = CausalModel(
        classes=1, variables={"a": levels, "b": levels, "c": levels, "d": child, "e": {"family": "normal"}}
    )
    assert jacobian(model, points=6).ranks == (3 * 3 + 64 + 2,) * 6


def test_disagreeing_points_are_reported():
    found = identify(load_model("gallery:level3"))
    doubtful = replace(found, jacobian=replace(found.jacobian, ranks=(13, 12, 13)))
    assert doubtful.rank == 13
    assert "not clear-cut: ranks 13, 12, 13" in str(doubtful)
    assert "not clear-cut" not in str(found)
