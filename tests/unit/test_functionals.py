"""Functionals and densities against brute-force sums written out in the test helpers."""

import numpy as np
import pytest
from scipy import stats

from pymc_mte import CausalModel, population, truth
from pymc_mte.functionals import functionals
from pymc_mte.network import cell_columns, log_joint, log_sum_classes

ROLES = {"treatment": "t", "outcome": "y"}
BOTH = {"treatment_proxies": ["z"], "outcome_proxies": ["x"]}
B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}

GRAPHS = {
    "plain": {"z": B, "x": C3, "t": {**B, "parents": ["z"]}, "y": {**B, "parents": ["t"]}},
    "x causes y": {"z": C3, "x": C3, "t": {**B, "parents": ["z"]}, "y": {**B, "parents": ["x"]}},
    "mediator": {
        "z": B,
        "x": B,
        "t": {**B, "parents": ["z"]},
        "m": {**C3, "parents": ["t"]},
        "y": {**B, "parents": ["m", "t"]},
    },
    "mediator only by name of parents": {
        "y": {**B, "parents": ["m"]},
        "m": {**C3, "parents": ["t"]},
        "t": B,
        "z": B,
        "x": B,
    },
    "observed confounder": {
        "w": C3,
        "z": B,
        "x": B,
        "t": {**B, "parents": ["w", "z"]},
        "y": {**B, "parents": ["w"]},
    },
    "confounder and mediator": {
        "w": B,
        "z": B,
        "x": B,
        "t": {**B, "parents": ["w", "z"]},
        "m": {**B, "parents": ["t", "w"]},
        "y": {**B, "parents": ["w", "m"]},
    },
    "three arms": {"z": B, "x": B, "t": {**C3, "parents": ["z"]}, "y": {**B, "parents": ["t"]}},
    "normal outcome": {
        "w": B,
        "z": B,
        "x": B,
        "t": {**B, "parents": ["w", "z"]},
        "y": {"family": "normal", "parents": ["w", "t"]},
    },
    "shared mechanisms": {
        "w": {**C3, "latent": False},
        "z": B,
        "x": B,
        "t": {**B, "parents": ["w", "z"], "latent": False},
        "y": {"family": "normal", "parents": ["w", "t"], "latent": False},
    },
}


def build(graph, classes=3):
    return CausalModel(classes=classes, variables=GRAPHS[graph], **ROLES, **BOTH)


@pytest.mark.parametrize("graph", GRAPHS)
def test_functionals_equal_brute_force(tools, rng, graph):
    model = build(graph)
    parameters = tools.random_truth(model, rng)
    got = functionals(model, parameters)
    arms, pi = range(len(model.arms)), parameters["class_weight"]
    outcome = np.array([[tools.interventional(model, parameters, t, u) for t in arms] for u in range(3)])
    np.testing.assert_allclose(got["potential_outcome"], outcome, rtol=0, atol=1e-12)
    effect = np.stack([outcome[:, b] - outcome[:, a] for b, a in model.contrasts], -1)
    ate = np.array([sum(pi[u] * effect[u, c] for u in range(3)) for c in range(effect.shape[1])])
    att = np.array(
        [
            tools.potential(model, parameters, b, b) - tools.potential(model, parameters, a, b)
            for b, a in model.contrasts
        ]
    )
    spread = np.sqrt(sum(pi[u] * (effect[u] - ate) ** 2 for u in range(3)))
    harmed = sum(pi[u] * (effect[u] < 0) for u in range(3))
    single = len(model.contrasts) == 1
    wanted = {"effect": effect, "ate": ate, "att": att, "effect_sd": spread, "weight_harmed": harmed}
    for name, value in wanted.items():
        np.testing.assert_allclose(
            got[name], value[..., 0] if single else value, rtol=0, atol=1e-12, err_msg=name
        )


@pytest.mark.parametrize("graph", ["confounder and mediator", "three arms"])
def test_leading_axes_are_carried(tools, rng, graph):
    model = build(graph)
    draws = [[tools.random_truth(model, rng) for _ in range(3)] for _ in range(2)]
    batch = {name: np.array([[draw[name] for draw in chain] for chain in draws]) for name in draws[0][0]}
    got = functionals(model, batch)
    for c in range(2):
        for d in range(3):
            one = functionals(model, draws[c][d])
            for name, value in one.items():
                np.testing.assert_allclose(got[name][c, d], value, rtol=0, atol=1e-13)


def test_functionals_under_no_confounding_equal_adjustment(tools, rng):
    """One class and an observed confounder: the effect is the adjustment formula's."""
    model = CausalModel(
        classes=1,
        variables={"w": C3, "t": {**B, "parents": ["w"]}, "y": {**B, "parents": ["w"]}},
        **ROLES,
    )
    p = tools.random_truth(model, rng)
    w, y = p["p_w"][0], p["p_y"][0, :, :, 1]
    assert functionals(model, p)["ate"] == pytest.approx(w @ (y[:, 1] - y[:, 0]), abs=1e-13)


@pytest.mark.parametrize("graph", ["plain", "mediator", "observed confounder", "three arms", "x causes y"])
def test_log_joint_and_population_equal_brute_force(tools, rng, graph):
    model = build(graph)
    parameters = tools.random_truth(model, rng)
    columns = cell_columns(model)
    got = log_joint(model, parameters, columns)
    table = population(tools.with_truth(model, parameters))
    place = {cell: i for i, cell in enumerate(zip(*(c.tolist() for c in columns.values()), strict=True))}
    total = np.zeros(len(place))
    for u, cell in tools.walk(model):
        p = tools.natural_probability(model, parameters, u, cell)
        i = place[tuple(cell.values())]
        assert got[u, i] == pytest.approx(np.log(p), abs=1e-12)
        total[i] += p
    assert total.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(log_sum_classes(got), np.log(total), rtol=0, atol=1e-12)
    np.testing.assert_allclose(table["count"], total, rtol=0, atol=1e-13)


@pytest.mark.parametrize("family", ["normal", "student_t"])
@pytest.mark.parametrize("scale_parents", [False, True])
def test_log_joint_of_continuous_variables(tools, rng, family, scale_parents):
    model = CausalModel(
        classes=2,
        variables={
            "t": B,
            "y": {"family": family, "parents": ["t"], "scale_parents": scale_parents},
        },
        **ROLES,
    )
    p = tools.random_truth(model, rng)
    columns = {"t": np.array([0, 1, 1]), "y": np.array([-1.0, 0.3, 9.0])}
    got = log_joint(model, p, columns)
    for u in range(2):
        for i in range(3):
            t, y = columns["t"][i], columns["y"][i]
            sd = p["sd_y"][u, t] if scale_parents else p["sd_y"][u]
            mean = p["mean_y"][u, t]
            law = stats.norm(mean, sd) if family == "normal" else stats.t(p["nu_y"], mean, sd)
            wanted = np.log(p["class_weight"][u]) + np.log(p["p_t"][u, t]) + law.logpdf(y)
            assert got[u, i] == pytest.approx(wanted, abs=1e-12)


def test_means_beyond_arithmetic_are_no_numbers():
    """A weibull of almost no shape: two such means have no difference, and others keep theirs."""
    model = CausalModel(classes=1, variables={"t": B, "y": {"family": "weibull", "parents": ["t"]}}, **ROLES)
    shape = np.array([0.004, 1.0])[:, None]
    values = {"class_weight": np.ones((2, 1)), "p_t": np.full((2, 1, 2), 0.5), "shape_y": shape}
    values["scale_y"] = np.array([2.0, 3.0]) * np.ones((2, 1, 2))
    found = functionals(model, values)
    for name in ("ate", "att"):
        np.testing.assert_allclose(found[name], [np.nan, 1.0], atol=1e-12)
    np.testing.assert_allclose(found["arm_mean"], [[np.nan] * 2, [2.0, 3.0]])


def test_better_and_practical_decide_who_is_harmed(level3):
    def harmed(**fields):
        whole = {n: getattr(level3, n) for n in type(level3).model_fields}
        return float(truth(CausalModel(**{**whole, **fields}))["weight_harmed"])

    assert harmed() == pytest.approx(0.5)
    assert harmed(better="lower") == pytest.approx(0.5)
    assert harmed(practical=0.8) == 0.0  # both effects are 0.75 in size


def test_truth_of_the_paper(level3):
    """P(U) = 1/2 and class effects of -3/4 and +3/4, as the paper states them."""
    answer = truth(level3)
    np.testing.assert_allclose(answer["effect"], [-0.75, 0.75])
    assert float(answer["ate"]) == pytest.approx(0.0, abs=1e-15)
    np.testing.assert_allclose(answer["class_weight"], [0.5, 0.5])
