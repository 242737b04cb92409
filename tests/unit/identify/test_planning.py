"""Expected errors against closed forms, published bounds and the plan's own arithmetic."""

import numpy as np
import pytest

from pymc_mte import CausalModel, ModelError, identify, load_model, simulate
from pymc_mte.identify import jacobian as home
from pymc_mte.identify.jacobian import smooth, spectrum
from pymc_mte.identify.planning import class_gaps, expected_errors, plan_errors, with_proxy_copy
from pymc_mte.moments.scores import gradient


def two_groups(family, share=0.3, **outcome):
    return CausalModel(
        classes=1,
        variables={"t": {"family": "bernoulli"}, "y": {"family": family, "parents": ["t"]}},
        treatment="t",
        outcome="y",
        truth={"t": {"p": [share]}, "y": outcome},
    )


def test_a_randomised_trial_has_its_textbook_error():
    model = two_groups("bernoulli", p=[[0.2, 0.6]])
    table = expected_errors(model, model.true_parameters(), 1_000)
    wanted = np.sqrt(0.2 * 0.8 / 700 + 0.6 * 0.4 / 300)
    np.testing.assert_allclose(table.loc["ate", "se"], wanted, rtol=1e-6)
    np.testing.assert_allclose(table.loc["p_t[class 0, t 1]", "se"], np.sqrt(0.21 / 1_000), rtol=1e-6)
    np.testing.assert_allclose(table.loc["ate", "value"], 0.4)
    assert table["identified"].all()


def test_a_normal_outcome_has_its_textbook_error():
    """20,000 drawn rows know an error of an arm of 6,000 to 1%: 5% is five standard errors."""
    model = two_groups("normal", mean=[[10.0, 12.0]], sd=[3.0])
    table = expected_errors(model, model.true_parameters(), 400)
    np.testing.assert_allclose(table.loc["ate", "se"], 3 * np.sqrt(1 / 280 + 1 / 120), rtol=0.05)
    np.testing.assert_allclose(table.loc["sd_y[class 0]", "se"], 3 / np.sqrt(800), rtol=0.05)


@pytest.mark.parametrize("unit", [1e12, 1e-12])
def test_errors_are_in_the_units_of_the_outcome(unit):
    plain = two_groups("normal", mean=[[10.0, 12.0]], sd=[3.0])
    other = two_groups("normal", mean=[[(10.0 + 3e9) * unit, (12.0 + 3e9) * unit]], sd=[3.0 * unit])
    first, second = (expected_errors(model, model.true_parameters(), 400) for model in (plain, other))
    for name in ("ate", "arm_mean[treatment 1]", "mean_y[class 0, t 1]", "sd_y[class 0]"):
        np.testing.assert_allclose(second.loc[name, "se"] / unit, first.loc[name, "se"], rtol=1e-4)
    assert second["identified"].all()


def test_gaps_of_classes_do_not_depend_on_the_unit():
    model = CausalModel(
        classes=2,
        variables={
            **{name: {"family": "bernoulli"} for name in "zx"},
            "t": {"family": "bernoulli"},
            "y": {"family": "normal"},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        truth={
            "class_weight": [0.4, 0.6],
            "z": {"p": [0.2, 0.8]},
            "x": {"p": [0.3, 0.9]},
            "t": {"p": [0.4, 0.6]},
            "y": {"mean": [[0.0, 1.0], [0.5, 2.5]], "sd": [1.0, 1.5]},
        },
    )
    point = model.true_parameters()
    rows = class_gaps(model, point, 1_000)
    large = {n: v * 1e12 if n in ("mean_y", "sd_y") else v for n, v in point.items()}
    scaled = class_gaps(model, large, 1_000)
    assert [row["check"] for row in scaled] == ["gap of effects", "gap of outcomes"]
    for one, other in zip(rows, scaled, strict=True):
        np.testing.assert_allclose(
            [other["value"], other["se"]], np.multiply([one["value"], one["se"]], 1e12)
        )


def pair_with_edges(joined):
    """The paper's second design where proxies may cause the treatment: as bits, or two bits as one."""
    plain = load_model("gallery:paper_pair")
    bits = plain.true_parameters()
    truth = {"class_weight": bits["class_weight"].tolist(), "y": {"p": bits["p_y"][..., 1].tolist()}}
    variables = {}
    for side in "zx":
        first, second = bits[f"p_{side}0"], bits[f"p_{side}1"]
        if joined:
            variables[side] = {"family": "categorical", "levels": [0, 1, 2, 3]}
            truth[side] = {"p": (first[:, :, None] * second[:, None, :]).reshape(2, 4).tolist()}
        else:
            variables |= {f"{side}{j}": {"family": "bernoulli"} for j in range(2)}
            truth |= {f"{side}0": {"p": first[:, 1].tolist()}, f"{side}1": {"p": second[:, 1].tolist()}}
    z, x = ([name for name in variables if name[0] == side] for side in "zx")
    treated = bits["p_t"][:, 1]
    shape = (4,) if joined else (2, 2)
    truth["t"] = {"p": np.broadcast_to(treated.reshape(2, *(1 for _ in shape)), (2, *shape)).tolist()}
    variables |= {"t": {"family": "bernoulli", "parents": z}, "y": {"family": "bernoulli"}}
    return CausalModel(
        classes=2,
        variables=variables,
        treatment="t",
        outcome="y",
        treatment_proxies=z,
        outcome_proxies=x,
        truth=truth,
    )


@pytest.mark.parametrize(
    ("model", "n", "published"),
    [
        (load_model("gallery:three_classes"), 2_000, 0.00435),
        (load_model("gallery:three_classes"), 200_000, 4.36e-5),
        (pair_with_edges(joined=True), 1_000, 0.0182),
        (pair_with_edges(joined=True), 500_000, 3.64e-5),
        (pair_with_edges(joined=False), 1_000, 0.0130),
        (pair_with_edges(joined=False), 500_000, 2.6e-5),
    ],
)
def test_published_medians_at_the_cramer_rao_bound(model, n, published):
    """Median summed squared effect error of 100,000 normal draws: known to 0.6%, published to 0.5%."""
    point = {n: v[None] for n, v in model.true_parameters().items()}
    found = spectrum(model, point, np.random.default_rng(0))
    slope = gradient(model, point, lambda q: smooth(model, q))["effect"]
    half = (slope / found.scale) @ found.vector.T / found.value
    drawn = np.random.default_rng(1).normal(size=(100_000, half.shape[1])) @ half.T / np.sqrt(n)
    np.testing.assert_allclose(np.median((drawn**2).sum(axis=1)), published, rtol=0.02)
    table = expected_errors(model, model.true_parameters(), n)
    wanted = np.linalg.norm(half, axis=1) / np.sqrt(n)
    found_errors = [table.loc[f"effect[class {u}]", "se"] for u in range(model.classes)]
    np.testing.assert_allclose(found_errors, wanted, rtol=1e-6)


def test_drawn_rows_estimate_the_errors_of_all_cells(level3, monkeypatch):
    """20,000 rows: a few per cent on every error."""
    exact = expected_errors(level3, level3.true_parameters(), 1_000)
    monkeypatch.setattr(home, "MAX_CELLS", 1)
    drawn = expected_errors(level3, level3.true_parameters(), 1_000)
    assert not np.array_equal(drawn["se"], exact["se"])
    np.testing.assert_allclose(drawn["se"], exact["se"], rtol=0.1)


def test_what_is_not_identified_has_no_finite_error():
    model = load_model("gallery:level4")
    table = expected_errors(model, model.true_parameters(), 1_000)
    assert np.isinf(table.loc[["effect[class 0]", "class_weight[class 1]"], "se"]).all()
    assert not table.loc["effect[class 0]", "identified"]
    assert table.loc[["ate", "att"], "identified"].all()
    assert np.isfinite(table.loc[["ate", "att"], "se"]).all()


def test_probabilities_of_zero_are_allowed(level3):
    edge = level3.true_parameters()
    edge["p_x"] = np.array([[1.0, 0.0], [0.25, 0.75]])
    assert np.isfinite(expected_errors(level3, edge, 1_000)["se"]).all()


def test_plan(level3):
    plan = plan_errors(level3, level3.true_parameters(), 1_000)
    wanted = expected_errors(level3, level3.true_parameters(), 1_000)
    np.testing.assert_array_equal(plan["now"], wanted.loc[plan.index, "se"])
    for times in (2, 4, 10):
        rows = expected_errors(level3, level3.true_parameters(), 1_000 * times)
        np.testing.assert_allclose(plan[f"{times} times the rows"], rows.loc[plan.index, "se"], rtol=1e-12)
    more = plan[["one more like z", "one more like x"]]
    assert (more.lt(plan["now"], axis=0)).all().all()
    assert "effect[class 1]" in plan.index
    assert not plan.index.str.startswith("p_").any()


def test_one_more_proxy_can_identify_what_was_not():
    """Level 4 with a second proxy that does not cause the outcome: three views of the class."""
    model = load_model("gallery:level4")
    parameters = model.true_parameters() | {
        "p_t": np.array([[[0.7, 0.3], [0.4, 0.6]], [[0.5, 0.5], [0.2, 0.8]]])
    }
    plan = plan_errors(model, parameters, 1_000, proxies=["x"])
    assert list(plan.columns)[-1] == "one more like x"
    assert np.isinf(plan.loc["effect[class 0]", "now"])
    assert np.isfinite(plan.loc["effect[class 0]", "one more like x"])


def test_copies_have_the_same_law_and_no_children():
    model = load_model("gallery:level4")
    larger, parameters = with_proxy_copy(model, model.true_parameters(), "x")
    assert larger.outcome_proxies == ("x", "x_copy")
    assert larger.variables["x_copy"] == model.variables["x"]
    assert not list(larger.graph.successors("x_copy"))
    assert set(parameters) == set(larger.dims)
    again, _ = with_proxy_copy(larger, parameters, "x")
    assert again.outcome_proxies == ("x", "x_copy", "x_copy_copy")
    assert with_proxy_copy(model, model.true_parameters(), "z")[0].treatment_proxies == ("z", "z_copy")


def test_callers_errors_say_what_was_wanted(level3):
    parameters = level3.true_parameters()
    with pytest.raises(ModelError, match="'y' is not a proxy of this model; its proxies are: z, x"):
        with_proxy_copy(level3, parameters, "y")
    with pytest.raises(ModelError, match="above 0, got 0"):
        expected_errors(level3, parameters, 0)
    with pytest.raises(ModelError, match=r"p_x.*shape \(2, 2\).*got the shape \(2,\)"):
        expected_errors(level3, parameters | {"p_x": np.array([0.5, 0.5])}, 10)
    parameters.pop("p_z")
    with pytest.raises(ModelError, match=r"p_z.*got nothing"):
        expected_errors(level3, parameters, 10)


def test_identify_plans_at_the_fitted_parameters(level3):
    found = identify(level3, simulate(level3, 20_000, rng=2))
    stated = plan_errors(level3, level3.true_parameters(), 20_000)
    ratio = found.planning.loc[["ate", "effect[class 0]", "class_weight[class 1]"]] / stated
    np.testing.assert_allclose(ratio.dropna().drop(columns="value"), 1, atol=0.1)
    assert any(line.startswith("At 20,000 rows the likelihood allows") for line in found.lines())
    gaps = found.checks[found.checks["check"] == "gap of effects"]
    assert gaps["verdict"].tolist() == ["ok"]
    np.testing.assert_allclose(gaps["value"], 1.5, atol=0.1)
    assert gaps["se"].item() < np.hypot(*found.planning.loc[["effect[class 0]", "effect[class 1]"], "now"])


def test_a_plan_that_would_take_long_or_mean_nothing_is_not_made(level3):
    assert identify(load_model("gallery:lalonde"), splits="none").planning is None
    rows = simulate(level3, 300, rng=1)
    few = identify(level3.with_classes(3), rows)
    assert few.planning is None or np.isinf(few.planning.loc["effect[class 0]", "now"])


def test_the_proxy_that_would_help_is_named():
    level4 = load_model("gallery:level4")
    (said,) = identify(level4).helpful
    assert said.startswith("One more proxy of the class")
    assert "effect" in said
    assert "ate" not in said.split("fix: ")[1].removesuffix(".").split(", ")
    assert identify(load_model("gallery:level3")).helpful == ()
    items = CausalModel(classes=3, variables={c: {"family": "bernoulli"} for c in "abcd"})
    assert "class_weight" in identify(items).helpful[0]  # five binary items tell three classes apart
