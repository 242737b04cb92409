"""A forbidden edge of stated strength: no change at zero, an exact shift, and the truth inside."""

import numpy as np
import pytest
from scipy.special import logit

from pymc_mte import CausalModel, ModelError, estimate, sensitivity, simulate, tabulate, truth
from pymc_mte.identify.sensitivity import _Allowed
from pymc_mte.moments.likelihood import fit_likelihood
from pymc_mte.moments.problem import problem_of
from pymc_mte.moments.scores import from_free, to_free
from pymc_mte.network import log_joint, log_sum_classes

EDGES = [("x", "y"), ("z", "y"), ("t", "x")]


def violated(level3, edge, shift, outcome="bernoulli"):
    """Level 3 with one more edge that shifts the child's log-odds (or mean) per SD of the parent."""
    parent, child = edge
    truths = {k: np.array(v["p"]) for k, v in level3.truth.items() if k != "class_weight"}
    p_parent = 0.5  # of z, x and t in this design, by its symmetry
    step = (np.arange(2) - p_parent) / np.sqrt(p_parent * (1 - p_parent))
    base = truths[child]
    amount = np.broadcast_to(shift, base.shape)[..., None] * step
    variables = {n: v.model_dump(exclude_none=True) for n, v in level3.variables.items()}
    variables[child]["parents"] = [*variables[child].get("parents", ()), parent]
    stated = {n: {"p": v.tolist()} for n, v in truths.items()} | {"class_weight": [0.5, 0.5]}
    if outcome == "normal" and child == "y":
        variables["y"] |= {"family": "normal"}
        mean = np.array([[0.0, 1.0], [2.0, 1.5]])
        stated["y"] = {"mean": (mean[..., None] + amount).tolist(), "sd": [1.0, 1.0]}
    else:
        stated[child] = {"p": (1 / (1 + np.exp(-logit(base)[..., None] - amount))).tolist()}
    return CausalModel(classes=2, variables=variables, treatment="t", outcome="y", truth=stated)


def assumed(level3, outcome="bernoulli"):
    """The same graph without the edge."""
    variables = {n: v.model_dump(exclude_none=True) for n, v in level3.variables.items()}
    variables["y"]["family"] = outcome
    roles = {"treatment_proxies": ["z"], "outcome_proxies": ["x"]}
    return CausalModel(classes=2, variables=variables, treatment="t", outcome="y", **roles)


@pytest.mark.parametrize("edge", EDGES)
def test_no_strength_is_the_estimate_and_bounds_are_nested(level3, edge):
    rows = simulate(level3, 4_000, rng=3)
    table = sensitivity(level3, rows, edge=edge, strength=[0, 0.2, 0.5])
    point = estimate(level3, rows, method="polished", n_boot=0)["estimate"]
    for name, value in {"ate": point["ate"], "att": point["att"], "effect[1]": point["effect"][1]}.items():
        np.testing.assert_allclose(table.loc[(name, 0.0), ["low", "high"]], float(value), atol=2e-5)
    for name in ("ate", "effect[0]", "class_weight[1]"):
        own = table.loc[name]
        assert (np.diff(own["low"]) <= 1e-9).all()
        assert (np.diff(own["high"]) >= -1e-9).all()
        assert (own["low_90"] <= own["low"]).all()
        assert own["posterior_mean"].between(own["low"] - 1e-9, own["high"] + 1e-9).all()


def test_the_shift_is_what_was_asked_for_and_the_fit_is_a_maximum(level3, rng):
    table = tabulate(simulate(level3, 3_000, rng=4), level3)
    problem = problem_of(level3, table)
    allowed = _Allowed(problem, "x", "y")
    base = fit_likelihood(problem)[0]
    shift = np.array([0.4, -0.3])
    free = to_free(level3, base)[0]
    p = from_free(allowed.model, (free[allowed.source] + allowed.offset(shift))[None])["p_y"][0]
    x, counts = table["x"].values, table["count"].values
    sd = np.sqrt(np.average((x - np.average(x, weights=counts)) ** 2, weights=counts))
    np.testing.assert_allclose(np.diff(logit(p[..., 1]), axis=-1)[..., 0], [shift / sd] * 2, atol=1e-9)
    best = allowed.fit(base, shift)
    for _ in range(20):
        moved = (
            free[allowed.source] + allowed.offset(shift) + (0.05 * rng.normal(size=len(free)))[allowed.source]
        )
        found = log_joint(allowed.model, from_free(allowed.model, moved[None]), problem.columns)
        assert counts @ log_sum_classes(found)[0] <= best.log_likelihood + 1e-9


def contained(level3, edge, seed, n=5_000, outcome="bernoulli"):
    """Whether the true answers of a violated graph lie in the bounds of twice the true strength."""
    arms = np.array([0.25, -0.25]) if edge[1] == "y" else np.array(0.25)
    true = violated(level3, edge, arms, outcome)
    rows = simulate(true, n, rng=seed)
    table = sensitivity(assumed(level3, outcome), rows, edge=edge, strength=[0.5])
    wanted = truth(true)
    names = {"ate": wanted["ate"], "effect[0]": wanted["effect"][0], "effect[1]": wanted["effect"][1]}
    limits = {name: table.loc[(name, 0.5)] for name in names}
    return all(limits[n]["low_90"] <= float(v) <= limits[n]["high_90"] for n, v in names.items())


@pytest.mark.parametrize(
    ("edge", "outcome"), [(EDGES[0], "bernoulli"), (EDGES[1], "normal"), (EDGES[2], "bernoulli")]
)
def test_the_truth_is_inside(level3, edge, outcome):
    """Three fixed seeds each; the slow test counts 100."""
    assert all(contained(level3, edge, seed, 2_000, outcome) for seed in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("edge", EDGES)
def test_the_truth_is_inside_in_100_of_100(level3, edge):
    assert sum(contained(level3, edge, 1_000 + seed) for seed in range(100)) == 100


def test_impossible_edges_are_refused(level3):
    rows = simulate(level3, 200, rng=1)
    for edge, words in {
        ("z", "t"): "in the graph already",
        ("q", "y"): "'q' is not a variable",
        ("y", "z"): "cycle",
    }.items():
        with pytest.raises(ModelError, match=words):
            sensitivity(level3, rows, edge=edge)
    with pytest.raises(ModelError, match="not negative"):
        sensitivity(level3, rows, edge=("x", "y"), strength=[-1.0])
