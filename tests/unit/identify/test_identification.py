"""What the graph and the data carry, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from pymc_mte import CausalModel, RefusedError, estimate, identify, load_model, simulate, tabulate
from pymc_mte.hierarchy import hierarchy
from pymc_mte.moments.problem import problem_of
from pymc_mte.moments.rank import measure_ranks
from pymc_mte.status import Status

CLASS_LEVEL = ("class_weight", "effect", "potential_outcome", "effect_sd", "weight_harmed")


@pytest.mark.parametrize(
    ("name", "level", "by_class"),
    [
        ("level1", "HTE", True),
        ("level2", "mixture", True),
        ("level3", "MTE", True),
        ("level4", "ATE", False),
    ],
)
def test_levels_of_the_gallery(name, level, by_class):
    found = identify(load_model(f"gallery:{name}"))
    assert found.level == level
    assert found.identified["ate"]
    assert found.identified["att"]
    assert all(found.identified[n] == by_class for n in CLASS_LEVEL)


def test_edges_that_cost_a_level():
    assert hierarchy(load_model("gallery:level2")).costing == ()
    assert hierarchy(load_model("gallery:level3")).costing == (("z", "t"),)
    assert hierarchy(load_model("gallery:level4")).costing == (("x", "y"),)


def graph(edges, **roles):
    parents = {v: [a for a, b in edges if b == v] for v in "zxty"}
    return CausalModel(
        classes=2,
        variables={v: {"family": "bernoulli", "parents": parents[v]} for v in "zxty"},
        treatment="t",
        outcome="y",
        **({"treatment_proxies": ["z"], "outcome_proxies": ["x"]} | roles),
    )


@pytest.mark.parametrize(
    ("edges", "level"),
    [
        ((), "mixture"),
        ((("z", "t"),), "MTE"),
        ((("x", "y"),), "ATE"),
        ((("z", "t"), ("x", "y")), "ATE"),
        ((("z", "x"),), "none"),
        ((("x", "z"),), "none"),
    ],
)
def test_levels_by_edges(edges, level):
    assert hierarchy(graph(edges)).level == level


def test_without_proxies_nothing_is_reached():
    assert hierarchy(graph((), treatment_proxies=[], outcome_proxies=[])).level == "none"


def test_refusal_names_the_missing_independence(level3):
    model = graph((("z", "x"),))
    rows = simulate(level3, 500, rng=1)
    for method in ("spectral", "pencil", "bridge"):
        with pytest.raises(RefusedError, match=r"independent of .*given latent class") as error:
            estimate(model, rows, method=method)
        assert isinstance(error.value, RuntimeError)
        assert "z independent of x, y given latent class, t" in str(error.value)
        assert "Without the edge z -> x" in str(error.value)
    found = identify(model, rows)
    assert not any(found.identified.values())
    assert Status.NO_MOMENT_METHOD in [n.status for n in found.notes]


def test_class_effects_are_refused_on_level_4():
    model = load_model("gallery:level4")
    rows = simulate(model, 2_000, rng=1)
    with pytest.raises(RefusedError, match=r"x -> y.*Use method='bridge' for averages"):
        estimate(model, rows, method="spectral")
    assert estimate(model, rows, n_boot=4).attrs["method"] == "bridge"


def test_one_class_needs_no_proxies():
    model = load_model("gallery:level1")
    rows = simulate(model, 2_000, rng=1)
    assert estimate(model, rows, n_boot=4).attrs["method"] == "polished"
    with pytest.raises(RefusedError, match="classes = 1"):
        estimate(model, rows, method="spectral")


def test_effects_need_roles():
    model = CausalModel(classes=2, variables={"a": {"family": "bernoulli"}})
    assert "effect" not in estimate(model, {"a": [0, 1]}, n_boot=0)["estimate"]
    found = identify(model, {"a": [0, 1]})
    assert found.level == "none"
    assert found.identified == {"class_weight": False, "p_a": False}
    assert (found.rank, found.n_parameters) == (1, 3)
    assert "No effect is asked for" in str(found)


def test_strong_proxies_are_ok(level3):
    """Three correlations of level3 are 0.3 to 0.6; at n = 20,000 none can look like noise."""
    found = identify(level3, simulate(level3, 20_000, rng=1))
    first = found.checks[found.checks["check"] == "canonical correlation 1"]
    assert (first["verdict"] == "ok").all()
    assert (first["se"] > 0).all()
    assert found.supported == 2
    assert Status.WEAK_PROXIES not in [n.status for n in found.notes]
    assert "support 2 classes" in str(found)
    assert "<table" in found._repr_html_()


def test_proxies_of_noise_raise_the_alarm(level3, rng):
    """Independent proxies pass Bartlett's test in an arm with probability 0.05; seed fixed."""
    n = 4_000
    frame = {v: rng.integers(0, 2, n) for v in level3.variables}
    found = identify(level3, frame)
    weak = [n for n in found.notes if n.status is Status.WEAK_PROXIES]
    assert weak
    assert found.supported == 1
    assert "canonical correlation 1" in weak[0].detail


def test_size_of_the_noise_alarm(level3, rng):
    """Share of p < 0.05 under independence: binomial(200, 0.05), more than 24 by chance: 3e-5."""
    hits = 0
    for _ in range(100):
        frame = {v: rng.integers(0, 2, 1_000) for v in level3.variables}
        ranks = measure_ranks(problem_of(level3, tabulate(frame, level3)), 200, rng)
        hits += sum(int(arm.p_value[0] < 0.05) for arm in ranks.arms)
    assert hits <= 24


def test_too_few_features(level3):
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    three = CausalModel(**{**fields, "classes": 3, "truth": None})
    rows = simulate(level3, 2_000, rng=1)
    found = identify(three, rows)
    assert Status.TOO_FEW_FEATURES in [n.status for n in found.notes]
    assert not any(found.identified.values())
    answer = estimate(three, rows, method="spectral", n_boot=4)
    assert np.isnan(answer["estimate"]["ate"])
    assert "TOO_FEW_FEATURES" in answer.attrs["notes"]


def test_the_likelihood_may_do_with_fewer_features_than_moments():
    """Seven binary items fix three classes, although one side has a single one of them."""
    names = ["z", "x0", "x1", "x2", "x3", "t", "y"]
    model = CausalModel(
        classes=3,
        variables={name: {"family": "bernoulli"} for name in names},
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=names[1:5],
    )
    found = identify(model)
    assert Status.TOO_FEW_FEATURES in [n.status for n in found.notes]
    assert all(found.identified.values())
    assert "Moment methods need 3 distinguishable values" in str(found)
    assert "every parameter table" in str(found)


def test_a_proxy_that_never_varies_takes_everything(level3):
    rows = simulate(level3, 2_000, rng=1)
    found = identify(level3, rows.assign(x=rows["x"] * 0))
    assert Status.TOO_FEW_FEATURES in [n.status for n in found.notes]
    assert not any(found.identified.values())


def test_more_classes_than_levels_allow_is_said(level3):
    text = str(identify(level3.with_classes(3)))
    assert "fixes 15 of 20 parameters" in text
    assert "5 directions stay free" in text
    assert "too few levels for 3 classes" in text
    assert "Can be answered: nothing." in text


def test_likelihood_and_moments_part_where_only_x_causes_the_outcome():
    found = identify(graph((("x", "y"),)))
    assert (found.level, found.rank, found.n_parameters) == ("ATE", 15, 15)
    assert all(found.identified.values())
    assert "By moments, the graph reaches average effects only" in str(found)
    assert "more than moment methods: class_weight, potential_outcome, effect" in str(found)


def test_items_without_treatment():
    model = CausalModel(classes=3, variables={f"v{i}": {"family": "bernoulli"} for i in range(4)})
    found = identify(model)
    assert set(found.identified) == {"class_weight", "p_v0", "p_v1", "p_v2", "p_v3"}
    assert not any(found.identified.values())
    assert "fixes 13 of 14 parameters (class weights included): 1 direction stays free" in str(found)
    assert "Can be answered: class_weight, every parameter table." in str(identify(model.with_classes(2)))


@pytest.fixture(scope="module")
def rare():
    """Rows where the class behind x = 1 almost never gets the treatment."""
    model = load_model("gallery:level3")
    parameters = {**model.truth, "t": {"p": [[0.6, 0.4], [0.0005, 0.0005]]}, "x": {"p": [0.002, 0.998]}}
    fields = {n: getattr(model, n) for n in type(model).model_fields}
    model = CausalModel(**{**fields, "truth": parameters})
    return model, simulate(model, 20_000, rng=1)


def test_positivity_is_refused(rare):
    found = identify(*rare)
    note = next(n for n in found.notes if n.status is Status.POSITIVITY)
    assert note.where == "t = 1"
    assert not found.identified["ate"]
    assert not found.identified["effect"]
    assert found.identified["att"]
    assert "fail" in found.checks["verdict"].tolist()


@pytest.mark.parametrize("method", ["auto", "bridge", "spectral", "polished"])
def test_refused_averages_are_blank_and_the_att_stays(rare, method):
    answer = estimate(*rare, method=method, n_boot=20)
    assert np.isnan(answer["estimate"]["ate"])
    assert np.isnan(answer["posterior"]["ate"]).all()
    assert np.isfinite(answer["estimate"]["att"])
    assert np.isfinite(answer["posterior"]["att"]).all()
    assert np.isnan(answer["estimate"]["arm_mean"].sel(treatment=1))
    assert np.isfinite(answer["estimate"]["arm_mean"].sel(treatment=0))
    if method in ("spectral", "polished"):
        assert np.isnan(answer["estimate"]["effect"]).all()
        assert np.isfinite(answer["estimate"]["class_weight"]).all()
    assert "POSITIVITY" in answer.attrs["notes"]
    if method == "auto":
        assert answer.attrs["method"] == "bridge"


def test_the_att_does_not_survive_a_rare_reference_arm(rare):
    model, rows = rare
    flipped = rows.assign(t=1 - rows["t"])
    answer = estimate(model, flipped, method="bridge", n_boot=4)
    assert np.isnan(answer["estimate"]["att"])
    assert not identify(model, flipped).identified["att"]


def test_lalonde_is_refused_an_ate_and_keeps_its_att():
    model = load_model("gallery:lalonde")
    found = identify(model, model.data_path)
    assert not found.identified["ate"]
    assert found.identified["att"]
    assert found.supported == 6  # in the controls; the 185 treated rows lack positivity
    assert isinstance(found.checks, pd.DataFrame)


def test_lines_say_the_assumptions(level3):
    text = str(identify(level3))
    assert "This rests on: x independent of t, y, z given latent class" in text
    assert "without z -> t" in text


def test_with_covariates_the_moments_answer(level3):
    """No likelihood describes them, so nothing but the averages of the bridge is promised."""
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    found = identify(CausalModel(**{**fields, "truth": None, "covariates": ["age"]}))
    assert found.rank is None
    assert "covariates are conditioned on, not modelled" in str(found)
    assert found.identified["ate"]
    assert found.identified["arm_mean"]
    assert not any(found.identified[name] for name in CLASS_LEVEL)
    assert set(found.identified) == {"ate", "att", "arm_mean", *CLASS_LEVEL}


def test_an_arm_that_nobody_got_has_no_effect_on_the_treated(level3):
    rows = {name: column.values for name, column in simulate(level3, 2_000, rng=1).data_vars.items()}
    rows["t"] = np.zeros(2_000, dtype=int)
    found = identify(level3, rows)
    assert not found.identified["att"]
    assert not found.identified["ate"]
    assert any("arm_mean (not for 1)" in line for line in found.lines())
    assert np.isnan(estimate(level3, rows, n_boot=0)["estimate"]["att"])


def test_a_constant_outcome_answers_nothing(level3):
    rows = {name: column.values for name, column in simulate(level3, 500, rng=1).data_vars.items()}
    found = identify(level3, rows | {"y": np.ones(500, dtype=int)})
    assert not any(found.identified.values())
    assert found.planning is None


def test_three_rows_are_a_matter_of_the_data(level3):
    rows = {"z": [0, 1, 1], "x": [0, 1, 0], "t": [0, 1, 1], "y": [0, 1, 0]}
    found = identify(level3, rows)
    assert found.splits["ate"].isna().all()
    assert not found.checks.empty
