"""`do` against sums over cells, on estimates and their replicates; refusals."""

import json

import numpy as np
import pytest

from pymc_mte import (
    CausalModel,
    ModelError,
    RefusedError,
    do,
    estimate,
    load_model,
    population,
    simulate,
    truth,
)


@pytest.fixture(scope="module")
def model():
    return load_model("gallery:collider9")


@pytest.fixture(scope="module")
def tree(model):
    return estimate(model, population(model), method="network")


def cellwise(tools, model, setting, outcome, *, intervene):
    """P(class, outcome) under an intervention, or restricted to the rows that have the values."""
    p, out = model.true_parameters(), np.zeros((model.classes, model.size(outcome)))
    for u, cell in tools.walk(model):
        if any(cell[v] != level for v, level in setting.items()):
            continue
        term = p["class_weight"][u]
        for v in cell:
            if not (intervene and v in setting):
                term *= p[f"p_{v}"][(u, *(cell[q] for q in model.variables[v].parents), cell[v])]
        out[u, cell[outcome]] += term
    return out


@pytest.mark.parametrize(
    ("setting", "outcome"), [({"v6": 1}, "v7"), ({"v3": 0, "v5": 1}, "v9"), ({"v7": 1}, "v3"), ({}, "v4")]
)
def test_equals_the_sum_over_cells(tools, model, tree, setting, outcome):
    answer = do(tree, setting, outcome, group="estimate")
    wanted = cellwise(tools, model, setting, outcome, intervene=True)
    seen = cellwise(tools, model, setting, outcome, intervene=False).sum(axis=0)
    order = np.argsort(np.argsort(tree["estimate"]["class_weight"].values))
    sorted_truth = np.argsort(wanted.sum(axis=1))
    by_class = (wanted / wanted.sum(axis=1, keepdims=True))[sorted_truth][order]
    np.testing.assert_allclose(answer["distribution"], wanted.sum(axis=0), atol=1e-9)
    np.testing.assert_allclose(answer["distribution_by_class"], by_class, atol=1e-9)
    np.testing.assert_allclose(answer["naive_distribution"], seen / seen.sum(), atol=1e-9)
    assert float(answer["mean"]) == pytest.approx(wanted[:, 1].sum(), abs=1e-9)
    assert float(answer["naive_mean"]) == pytest.approx((seen / seen.sum())[1], abs=1e-9)


def test_no_relabelling_changes_an_average(model, tree):
    flipped = tree.copy()
    point = tree["estimate"].to_dataset().isel({"class": [1, 0]})
    flipped["estimate"].dataset = point.assign_coords({"class": [0, 1]})
    answers = [do(t, {"v6": 1}, "v7", group="estimate") for t in (tree, flipped)]
    assert float(answers[0]["mean"]) == pytest.approx(float(answers[1]["mean"]), abs=1e-12)


def test_replicates_carry_the_uncertainty(model):
    answer = estimate(model, simulate(model, 20_000, rng=1), n_boot=20)
    high, low = (do(answer, {"v6": x}, "v7")["mean"] for x in (1, 0))
    assert high.dims == ("chain", "draw")
    np.testing.assert_allclose(high - low, answer["posterior"]["ate"], atol=1e-12)


def test_overlap_is_measured_and_told():
    chain = load_model("gallery:chain5")
    fields = {n: getattr(chain, n) for n in type(chain).model_fields}
    rare = {**fields["truth"], "v2": {"p": [[0.4, 0.004], [0.7, 0.2]]}}
    rare = CausalModel(**fields | {"truth": rare})
    answer = estimate(rare, population(rare), method="network")
    found = do(answer, {"v2": 1}, "v3", group="estimate")
    assert float(found["overlap"]) == pytest.approx(0.004, abs=1e-9)
    assert [note[0] for note in json.loads(found.attrs["notes"])] == ["OVERLAP"]
    assert json.loads(do(answer, {"v2": 0}, "v3", group="estimate").attrs["notes"]) == []


def test_means_of_continuous_and_counted_outcomes():
    mixed = CausalModel(
        classes=2,
        variables={
            "x": {"family": "bernoulli"},
            "y": {"family": "normal", "parents": ["x"]},
            "s": {"family": "binomial", "trials": 4, "parents": ["x"]},
        },
        truth={
            "class_weight": [0.5, 0.5],
            "x": {"p": [0.2, 0.6]},
            "y": {"mean": [[0.0, 1.0], [2.0, 5.0]], "sd": [1.0, 1.0]},
            "s": {"p": [[0.1, 0.2], [0.5, 0.7]]},
        },
    )
    answer = estimate(mixed, simulate(mixed, 200, rng=1), n_boot=0)
    exact = answer.copy()
    exact["estimate"].dataset = truth(mixed)
    found = do(exact, {"x": 1}, "y", group="estimate")
    assert float(found["mean"]) == pytest.approx(3.0)
    assert float(found["naive_mean"]) == pytest.approx((0.2 * 1 + 0.6 * 5) / 0.8)
    assert "distribution" not in found
    counted = do(exact, {"x": 1}, "s", group="estimate")
    assert float(counted["mean"]) == pytest.approx(4 * 0.45)
    assert float(counted["naive_mean"]) == pytest.approx(4 * (0.2 * 0.2 + 0.6 * 0.7) / 0.8)
    assert float(counted["distribution"] @ counted["s"]) == pytest.approx(4 * 0.45)


def test_refusals(model, tree, level3):
    for setting, outcome, said in (
        ({"w": 1}, "v7", "no variable"),
        ({"v6": 2}, "v7", "no level"),
        ({"v7": 1}, "v7", "is the outcome"),
        ({"v6": 1}, "w", "no variable"),
    ):
        with pytest.raises(ModelError, match=said):
            do(tree, setting, outcome)
    with pytest.raises(RefusedError, match="tables of the network"):
        do(estimate(level3, population(level3), method="spectral"), {"t": 1})
    plain = CausalModel(classes=1, variables={"a": {"family": "bernoulli"}, "b": {"family": "bernoulli"}})
    with pytest.raises(ModelError, match="names none"):
        do(estimate(plain, {"a": [0, 1], "b": [1, 0]}, n_boot=0), {"a": 1})
