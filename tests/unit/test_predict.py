"""Predictions for new rows: against sums over all cells written out, calibration, decisions."""

import numpy as np
import pytest
from scipy import stats

from pymc_mte import (
    CausalModel,
    DataError,
    ModelError,
    RefusedError,
    estimate,
    load_model,
    policy,
    population,
    predict,
    simulate,
    truth,
)
from pymc_mte.functionals import functionals
from pymc_mte.results import dataset, provenance

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal"}
ROLES = {"treatment": "t", "outcome": "y"}
MEDIATED = CausalModel(
    classes=2,
    variables={
        "v": {**B, "latent": False},
        "z": {**C3, "parents": ["v"]},
        "t": {**C3, "parents": ["z"]},
        "m": {**B, "parents": ["t", "z"]},
        "s": {**B, "parents": ["m"]},
        "y": {**B, "parents": ["m", "z"]},
    },
    **ROLES,
)


def result(model, draws):
    """A result with these sets of parameters as its draws, in one chain."""
    import xarray as xr

    stacked = {n: np.stack([d[n] for d in draws])[None] for n in draws[0]}
    tree = xr.DataTree.from_dict({"posterior": dataset(model, stacked)})
    tree.attrs = provenance(model, method="posterior")
    return tree


def brute(tools, model, parameters, seen):
    """Class probabilities and E[Y(t) | class, what precedes t], averaged: loops over all cells."""
    shares, outcome = np.zeros(model.classes), np.zeros(len(model.arms))
    for u, cell in tools.walk(model):
        if any(cell[name] != level for name, level in seen.items()):
            continue
        p = tools.natural_probability(model, parameters, u, cell)
        shares[u] += p
        for arm in range(len(model.arms)):
            for m in (0, 1):
                p_m = parameters["p_m"][u, arm, cell["z"], m]
                outcome[arm] += p * p_m * parameters["p_y"][u, m, cell["z"], arm, 1]
    return shares / shares.sum(), outcome / shares.sum()


@pytest.mark.parametrize(
    "seen",
    [
        {"v": 1, "z": 2, "t": 0, "m": 1, "s": 0, "y": 1},
        {"z": 1},
        {"s": 1},
        {"v": 1, "y": 0},
        {"t": 2, "s": 1},
        {"v": 0, "m": 1},
    ],
)
def test_predictions_equal_brute_force(tools, rng, seen):
    draws = [tools.random_truth(MEDIATED, rng) for _ in range(2)]
    rows = {name: [MEDIATED.variables[name].labels[level]] for name, level in seen.items()}
    found = predict(result(MEDIATED, draws), rows)
    for d, parameters in enumerate(draws):
        shares, outcome = brute(tools, MEDIATED, parameters, seen)
        got = found.isel(chain=0, draw=d, row=0)
        np.testing.assert_allclose(got["class_probability"], shares, atol=1e-12)
        np.testing.assert_allclose(got["unit_potential_outcome"], outcome, atol=1e-12)
        np.testing.assert_allclose(got["unit_effect"], outcome[1:] - outcome[0], atol=1e-12)


def test_rows_that_lack_different_things_keep_their_order(tools, rng):
    draws = [tools.random_truth(MEDIATED, rng)]
    rows = {"z": ["a", None, "c", "a"], "y": [1.0, 0.0, np.nan, 1.0], "ignored": [1, 2, 3, 4]}
    found = predict(result(MEDIATED, draws), rows).isel(chain=0, draw=0)
    for i, seen in enumerate(({"z": 0, "y": 1}, {"y": 0}, {"z": 2}, {"z": 0, "y": 1})):
        shares, outcome = brute(tools, MEDIATED, draws[0], seen)
        np.testing.assert_allclose(found["class_probability"][i], shares, atol=1e-12)
        np.testing.assert_allclose(found["unit_potential_outcome"][i], outcome, atol=1e-12)


def test_continuous_variables_and_nothing_known(tools, rng):
    model = CausalModel(classes=2, variables={"x": N, "t": B, "y": {**N, "parents": ["t"]}}, **ROLES)
    parameters = tools.random_truth(model, rng)
    weight, mean, sd = (parameters[n] for n in ("class_weight", "mean_x", "sd_x"))
    found = predict(result(model, [parameters]), {"x": [0.3, np.nan]}).isel(chain=0, draw=0)
    wanted = weight * stats.norm(mean, sd).pdf(0.3)
    np.testing.assert_allclose(found["class_probability"], [wanted / wanted.sum(), weight], atol=1e-12)
    ate = functionals(model, parameters)["ate"]
    assert float(found["unit_effect"][1]) == pytest.approx(float(ate))
    assert "no data can show both outcomes" in found.attrs["text"]


def test_class_probabilities_are_calibrated():
    """Learnt from 20,000 rows, checked on 20,000 others: expected calibration error in ten bins <= 0.02."""
    model = load_model("gallery:level3")
    learnt = estimate(model, simulate(model, 20_000, rng=1), method="polished", n_boot=20)
    rows = simulate(model, 20_000, rng=2)
    number = {u: k for k, u in enumerate(np.argsort(model_effects(model)))}
    hidden = np.array([number[u] for u in rows["latent_class"].values])
    for columns in (["z", "x"], ["z", "x", "t", "y"]):
        share = predict(learnt, rows[columns])["class_probability"].mean(("chain", "draw")).values[:, 1]
        bins = np.minimum((share * 10).astype(int), 9)
        error = [abs((hidden[bins == b] - share[bins == b]).sum()) for b in range(10)]
        assert sum(error) / 20_000 <= 0.02
    assert np.allclose(truth(model)["effect"], np.sort(model_effects(model)))


def model_effects(model):
    return functionals(model, model.true_parameters())["effect"]


def test_policy_values_rules(tools, rng):
    """By hand: two draws, rows known by z alone, three arms."""
    draws = [tools.random_truth(MEDIATED, rng) for _ in range(2)]
    rows, cost = {"z": ["a", "b", "b", "c"]}, 0.05
    table = policy(result(MEDIATED, draws), rows, cost=cost)
    outcome = np.array(
        [[brute(tools, MEDIATED, p, {"z": z})[1] for z in (0, 1, 1, 2)] for p in draws]
    )  # draw, row, arm
    net = outcome - cost * np.array([0, 1, 1])
    arm = net.mean(axis=0).argmax(axis=1)
    chosen = net[:, np.arange(4), arm].mean(axis=1)
    assert list(table.index) == ["none", "all: b", "all: c", "those who gain"]
    np.testing.assert_allclose(table["value"][:3], net.mean(axis=(0, 1)), atol=1e-12)
    assert table.loc["those who gain", "value"] == pytest.approx(chosen.mean())
    assert table.loc["those who gain", "sd"] == pytest.approx(chosen.std(ddof=1))
    gain = chosen - net[:, :, 0].mean(axis=1)
    assert table.loc["those who gain", "gain"] == pytest.approx(gain.mean())
    assert table["treated"].tolist() == [0.0, 1.0, 1.0, (arm != 0).mean()]
    assert "same draws" in table.attrs["text"]


def test_lower_may_be_better(tools, rng):
    """Mirrored outcomes and `better`: the same decisions, mirrored values."""
    variables = {"z": B, "t": B, "y": {**N, "parents": ["z", "t"]}}
    high = CausalModel(classes=2, variables=variables, **ROLES)
    low = CausalModel(classes=2, variables=variables, **ROLES, better="lower")
    draws = [tools.random_truth(high, rng) for _ in range(3)]
    mirrored = [{**p, "mean_y": -p["mean_y"]} for p in draws]
    rows = {"z": [0, 1, 1]}
    one, two = policy(result(high, draws), rows, 0.1), policy(result(low, mirrored), rows, 0.1)
    np.testing.assert_allclose(one["value"], -two["value"])
    np.testing.assert_allclose(one["gain"], two["gain"])
    np.testing.assert_allclose(one["treated"], two["treated"])


def test_what_cannot_be_predicted(tools, rng, level3):
    post = result(MEDIATED, [tools.random_truth(MEDIATED, rng)])
    with pytest.raises(DataError, match="none of the model's columns"):
        predict(post, {"q": [1]})
    with pytest.raises(DataError, match="not among its levels"):
        predict(post, {"z": ["d"]})
    with pytest.raises(ModelError, match="draws"):
        predict(post, {"z": ["a"]}, draws=0)
    with pytest.raises(ModelError, match="cost"):
        policy(post, {"z": ["a"]}, cost=np.nan)
    with pytest.raises(RefusedError, match="tables of the network"):
        predict(estimate(level3, population(level3), method="bridge"), {"z": [0]})
    chain = {f"v{i}": B if i == 0 else {**B, "parents": [f"v{i - 1}"]} for i in range(15)}
    long = CausalModel(classes=2, variables=chain)
    far = result(long, [tools.random_truth(long, rng)])
    with pytest.raises(RefusedError, match=r"16,384 combinations"):
        predict(far, {"v14": [1]})
    assert "unit_effect" not in predict(far, {"v0": [1]})
    with pytest.raises(ModelError, match="names no treatment"):
        policy(far, {"v0": [1]})
