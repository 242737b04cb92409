"""Predictions for new rows: against sums over all cells written out, calibration, decisions."""

import tracemalloc

import numpy as np
import pytest
import xarray as xr
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
from pymc_mte.predict import AVERAGES_ONLY, LABELS_SWITCH, NO_CLASSES, NO_EFFECTS, NO_INDIVIDUAL
from pymc_mte.results import dataset, load, provenance, save

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


@pytest.mark.parametrize(
    ("draws", "kept"), [(1, (1, 1)), (3, (3, 1)), (4, (4, 1)), (11, (4, 2)), (400, (4, 5))]
)
def test_at_most_so_many_draws_are_used(level3, tools, rng, draws, kept):
    """Four chains of five draws."""
    truths = [tools.random_truth(level3, rng) for _ in range(20)]
    values = {n: np.stack([d[n] for d in truths]).reshape(4, 5, *truths[0][n].shape) for n in truths[0]}
    post = xr.DataTree.from_dict({"posterior": dataset(level3, values)})
    post.attrs = provenance(level3, method="posterior")
    found = predict(post, {"z": [0]}, draws=draws)["class_probability"]
    assert (found.sizes["chain"], found.sizes["draw"]) == kept
    every = predict(post, {"z": [0]})["class_probability"].values.reshape(20, -1)
    assert all((every == one).all(axis=1).any() for one in found.values.reshape(-1, 2))


def most_held(post, rows):
    """Bytes at the height of a prediction."""
    tracemalloc.start()
    try:
        predict(post, rows)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_combinations_of_missing_levels(tools, rng):
    """Six missing parents, 64 combinations, against none missing: below twice the memory."""
    parents = [f"b{i}" for i in range(6)]
    variables = {**dict.fromkeys(parents, B), "t": B, "y": {**N, "parents": ["t", *parents]}}
    model = CausalModel(classes=2, variables=variables, **ROLES)
    post = result(model, [tools.random_truth(model, rng) for _ in range(20)])
    rows = {"y": rng.normal(size=2_000), "t": rng.integers(0, 2, 2_000)}
    whole = rows | {name: rng.integers(0, 2, 2_000) for name in parents}
    predict(post, whole)  # what is loaded once does not count
    assert most_held(post, rows) < 2 * most_held(post, whole)


def test_levels_that_rule_each_other_out_are_added_up(tools, rng):
    """A number that only one of the two missing levels explains, by some thousands of log units."""
    model = CausalModel(
        classes=2, variables={"w": B, "t": B, "y": {**N, "parents": ["w", "t"]}}, treatment="t", outcome="y"
    )
    par = tools.random_truth(model, rng)
    for far in (0, 1):
        par["mean_y"] = np.zeros((2, 2, 2))
        par["mean_y"][:, far] = [[100.0, 101.0], [99.0, 103.0]]
        par["sd_y"] = np.ones(2)
        found = predict(result(model, [par]), {"y": [100.0], "t": [0]}).isel(chain=0, draw=0, row=0)
        share = par["class_weight"] * par["p_t"][:, 0] * par["p_w"][:, far]
        share = share * stats.norm(par["mean_y"][:, far, 0], 1).pdf(100.0)
        np.testing.assert_allclose(found["class_probability"], share / share.sum(), rtol=1e-12)
        wanted = share @ par["mean_y"][:, far] / share.sum()
        np.testing.assert_allclose(found["unit_potential_outcome"], wanted, rtol=1e-12)


def judged(post, known, switching=0.0):
    """The same result with an identification report in which some answers are open."""
    out = post.copy()
    flags = xr.Dataset({"identified": ("functional", np.array(list(known.values()), dtype="int8"))})
    out["identification"] = xr.DataTree(flags.assign_coords(functional=np.array(list(known), dtype=object)))
    out.attrs = post.attrs | {"switching_share": switching}
    return out


ALL = dict.fromkeys(("ate", "att", "arm_mean", "class_weight", "potential_outcome", "effect"), True)
CLASS_LEVEL = dict.fromkeys(("class_weight", "potential_outcome", "effect"), False)


@pytest.mark.parametrize(
    ("known", "switching", "flags", "said"),
    [
        (ALL, 0.005, (1, 0), []),
        (ALL, 0.5, (1, 1), [LABELS_SWITCH]),
        (ALL | CLASS_LEVEL, 0.0, (0, 0), [AVERAGES_ONLY]),
        (ALL | {"p_z": False}, 0.0, (0, 0), [AVERAGES_ONLY]),
        (dict.fromkeys(ALL, False), 0.5, (0, 1), [NO_EFFECTS, LABELS_SWITCH]),
    ],
)
def test_what_is_not_identified_is_said(level3, tools, rng, tmp_path, known, switching, flags, said):
    sure = result(level3, [tools.random_truth(level3, rng) for _ in range(2)])
    post, rows = judged(sure, known, switching), {"z": [0, 1]}
    found, table = predict(post, rows), policy(post, rows)
    assert found.attrs["text"] == " ".join([NO_INDIVIDUAL, *said])
    assert table.attrs["text"] == " ".join([policy(sure, rows).attrs["text"], *said])
    for attrs in (found.attrs, table.attrs):
        assert (attrs["identified"], attrs["weakly_identified"]) == flags
    back = load(save(xr.DataTree(found), tmp_path / "rows.nc"))
    assert back.attrs == found.attrs


def test_without_a_treatment_classes_may_be_open(tools, rng):
    model = CausalModel(classes=2, variables={"a": B, "b": B})
    post = result(model, [tools.random_truth(model, rng)])
    assert "text" not in predict(post, {"a": [1]}).attrs
    assert predict(judged(post, {"class_weight": False}), {"a": [1]}).attrs["text"] == NO_CLASSES


def test_estimates_are_judged_by_their_graph(level3):
    open_classes = load_model("gallery:level4")
    for model, said in ((level3, False), (open_classes, True)):
        found = estimate(model, simulate(model, 2_000, rng=1), method="polished", n_boot=4)
        assert (AVERAGES_ONLY in policy(found, {"z": [0, 1]}).attrs["text"]) == said
        assert predict(found, {"z": [0, 1]}).attrs["identified"] == 1 - said
