"""Identification of mixtures without proxies: coins, products and networks."""

import numpy as np
import pytest

from pymc_mte import CausalModel, estimate, identify, load_model, population, simulate
from pymc_mte.status import Status

B = {"family": "bernoulli"}


def statuses(found):
    return {note.status for note in found.notes}


def value(found, check, where=None):
    rows = found.checks[found.checks["check"] == check]
    rows = rows if where is None else rows[rows["where"] == where]
    return rows["value"].iloc[0]


@pytest.mark.parametrize("name", ["chain5", "chain7", "collider9", "chain10", "coins16", "carcinoma"])
def test_the_gallery_is_reached_by_moments(name):
    found = identify(load_model(f"gallery:{name}"))
    assert found.level == "mixture"
    assert all(found.identified.values())
    assert statuses(found) == set()


def test_a_chain_with_data():
    model = load_model("gallery:chain7")
    found = identify(model, simulate(model, 20_000, rng=1))
    text = str(found)
    assert "given v2, v5: {v1} | {v3, v4} | {v6, v7}, in 4 runs" in text
    assert "ranks 2 + 2 + 2 = 6, and 6 are enough for 2 classes" in text
    assert "The moments show at least 2 classes" in text
    assert "proxies" not in text
    assert found.supported == 2
    assert value(found, "runs used") == 4
    assert value(found, "share of arm", "v2 = 1") == pytest.approx(0.58, abs=0.02)


def test_checks_are_exact_on_a_population():
    """Separation and lightest class of the truth come out of the table."""
    model = load_model("gallery:chain5")
    found = identify(model, population(model))
    table = model.true_parameters()["p_v1"]
    own = value(found, "separation of the closest classes, by moments", "v1")
    assert own == pytest.approx(abs(table[0, 1] - table[1, 1]), abs=1e-9)
    lightest = model.true_parameters()["class_weight"].min()
    assert value(found, "smallest class weight, by moments") == pytest.approx(lightest, abs=1e-9)


@pytest.mark.parametrize(
    ("trials", "level", "status"),
    [(4, "none", Status.TOO_FEW_DRAWS), (5, "mixture", Status.WEAK_DESIGN), (6, "mixture", None)],
)
def test_three_coins_need_five_draws(trials, level, status):
    """Moments and the rank of the likelihood agree."""
    model = CausalModel(classes=3, variables={"heads": {"family": "binomial", "trials": trials}})
    found = identify(model)
    assert found.level == level
    assert found.identified["p_heads"] == (level == "mixture")
    assert statuses(found) == ({status} if status else set())
    assert "need 5 draws" in str(found) or "5 draws per row (2K - 1) identify" in str(found)


@pytest.mark.parametrize(("classes", "unique"), [(2, True), (3, False), (4, False)])
def test_products_beyond_two_k_minus_one_are_generic_only(classes, unique):
    """Three variables of four levels: unique for every separated table with K = 2, else for almost all."""
    levels = {"family": "categorical", "levels": [0, 1, 2, 3]}
    found = identify(CausalModel(classes=classes, variables=dict.fromkeys("abc", levels)))
    assert found.level == "mixture"
    assert ("the answer is unique for every table" in str(found)) == unique
    assert ("so exceptions exist" in str(found)) == (not unique)


def test_graphs_without_a_plan_say_so():
    variables = {"a": B, "b": {**B, "parents": ["a"]}, "c": {**B, "parents": ["a", "b"]}}
    found = identify(CausalModel(classes=2, variables=variables, treatment="b", outcome="c"))
    assert found.level == "none"
    assert statuses(found) == {Status.NO_PLAN}
    assert not found.identified["ate"]
    assert "no choice of variables to condition on" in str(found)


def test_continuous_variables_and_one_class():
    variables = {"a": B, "b": B, "c": B, "y": {"family": "normal"}}
    found = identify(CausalModel(classes=2, variables=variables))
    assert found.level == "none"
    assert found.identified["class_weight"]
    assert "y is continuous" in str(found)
    rows = {v: np.array([0, 1, 1, 0]) for v in "abc"} | {"y": np.arange(4.0)}
    assert identify(CausalModel(classes=2, variables=variables), rows).level == "none"
    assert identify(CausalModel(classes=1, variables=variables), rows).level == "mixture"


def test_identify_and_estimate_find_the_same_runs():
    model = load_model("gallery:collider9")
    rows = simulate(model, 20_000, rng=1)
    found, answer = identify(model, rows), estimate(model, rows, method="network", n_boot=0)
    kept = answer["checks"].to_dataset().to_dataframe().set_index("check")["value"]
    for check in ("runs used", "run quality, worst", "matching, weakest edge", "Kruskal sum"):
        assert value(found, check) == pytest.approx(kept[check])
