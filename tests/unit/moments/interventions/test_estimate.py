"""`estimate` for models with interventions: labels, replicates, refusals and notes."""

import numpy as np
import pytest

from pymc_mte import (
    CausalModel,
    DataError,
    ModelError,
    RefusedError,
    base_model,
    estimate,
    load,
    load_model,
    population,
    save,
    simulate,
)
from pymc_mte.status import load_notes


@pytest.fixture(scope="module")
def model():
    return load_model("gallery:unknown_interventions")


@pytest.fixture(scope="module")
def rows(model):
    return simulate(model, 5_000, rng=1)


@pytest.fixture(scope="module")
def found(model, rows):
    return estimate(model, rows, n_boot=20)


def statuses(tree):
    return {note.status.name for note in load_notes(tree.attrs["notes"])}


def test_shares_are_labelled_and_near_the_truth(model, found):
    weights = dict(
        zip(["{}", "b=0", "a=1", "a=1, c=0", "b=1, d=2"], [0.4, 0.2, 0.15, 0.15, 0.1], strict=True)
    )
    point = found["estimate"].to_dataset()
    assert point["target_weight"].dims == ("target",)
    assert float(point["target_weight"].sum()) == pytest.approx(1.0)
    for label, weight in weights.items():
        at = point.sel(target=label)
        assert bool(at["selected"])
        assert abs(float(at["selected_weight"]) - weight) < 0.05
    assert found.attrs["method"] == "polished"
    assert found["posterior"]["target_weight"].dims == ("chain", "draw", "target")
    assert found["posterior"].sizes["chain"] == 4
    assert (point["se_target_weight"] > 0).any()


def test_the_report_says_what_it_rests_on(found):
    assert "EXCLUSION_ASSUMED" in statuses(found)
    assert "MECHANISM_MISFIT" not in statuses(found)


def test_saved_and_loaded(found, tmp_path):
    again = load(save(found, tmp_path / "a.nc"))
    np.testing.assert_array_equal(again["estimate"]["target_weight"], found["estimate"]["target_weight"])


@pytest.mark.parametrize("method", ["auto", "lifting", "exact"])
def test_population_tables_are_solved_exactly(method):
    model = load_model("gallery:violated_exclusion")
    legal = CausalModel.from_toml(model.to_toml().replace("a = 1", "b = 1"))
    tree = estimate(legal, population(legal), method=method)
    point = tree["estimate"].to_dataset()
    for label, weight in {"{}": 0.3, "a=0": 0.3, "b=1": 0.4}.items():
        assert float(point["target_weight"].sel(target=label)) == pytest.approx(weight, abs=1e-9)
    assert point.sizes["target"] == 3
    assert "SHARES_ONLY" in statuses(tree)


def test_violated_exclusion_is_silent_in_the_fit_and_shown_by_the_bounds():
    model = load_model("gallery:violated_exclusion")
    tree = estimate(model, population(model), n_boot=0)
    point = tree["estimate"].to_dataset()
    assert tree.attrs["total_variation"] < 1e-9
    assert float(point["target_weight"].sel(target="{}")) > 0.9
    for label, weight in {"{}": 0.3, "a=0": 0.3, "a=1": 0.4}.items():
        at = point.sel(candidate=label)
        assert float(at["weight_lower"]) <= weight <= float(at["weight_upper"])
    note = next(n for n in load_notes(tree.attrs["notes"]) if n.status.name == "EXCLUSION_ASSUMED")
    assert "none" in note.detail


def test_the_order_of_the_variables_does_not_matter(model, rows, found):
    text = model.to_toml()
    parts = text.split("[variables.")
    parts[1:5] = [parts[4].split("[interventions")[0], parts[2], parts[3], parts[1]]
    tail = "[interventions" + text.split("[interventions", 1)[1]
    turned = CausalModel.from_toml("[variables.".join(parts[:5]) + tail)
    assert list(turned.variables) == ["d", "b", "c", "a"]
    other = estimate(turned, rows, n_boot=0)["estimate"].to_dataset()
    mine = found["estimate"].to_dataset()
    assert np.sort(other["target_weight"].values) == pytest.approx(
        np.sort(mine["target_weight"].values), abs=1e-6
    )
    assert float(other["target_weight"].sel(target="d=2, b=1")) == pytest.approx(
        float(mine["target_weight"].sel(target="b=1, d=2")), abs=1e-6
    )


def test_base_rows_take_the_place_of_a_known_base(model, rows):
    tree = estimate(model, rows, base=simulate(base_model(model), 5_000, rng=2), n_boot=4)
    assert abs(float(tree["estimate"]["target_weight"].sel(target="{}")) - 0.4) < 0.08


def test_candidates_are_the_only_targets(model, rows):
    text = model.to_toml().replace("[interventions.base.a]", "[interventions.base.a]", 1)
    listed = CausalModel.from_toml(text).interventions.model_copy(
        update={"targets": ({}, {"b": 0}, {"a": 1})}
    )
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    few = CausalModel(**fields | {"interventions": listed})
    tree = estimate(few, rows, n_boot=0)
    assert set(tree["estimate"]["target"].values) == {"{}", "b=0", "a=1"}
    assert "MECHANISM_MISFIT" in statuses(tree)  # two targets of the truth are missing
    assert "EXCLUSION_ASSUMED" not in statuses(tree)


def test_refusals(model, rows, level3):
    with pytest.raises(ModelError, match="method 'bridge' is unknown; choose auto, polished"):
        estimate(model, rows, method="bridge")
    with pytest.raises(ModelError, match="base: only a model with interventions"):
        estimate(level3, simulate(level3, 10), base=rows)
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    unknown = CausalModel(**fields | {"interventions": {}, "truth": None})
    with pytest.raises(RefusedError, match="the untouched network is not known: pass rows"):
        estimate(unknown, rows)


@pytest.mark.parametrize("method", ["polished", "exact", "lifting"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_few_rows_have_an_answer(model, rows, method, n):
    """The smallest weight that is kept is two rows, more than any target of three rows has."""
    point = estimate(model, rows.isel(row=slice(n)), method=method, n_boot=4)["estimate"]
    assert float(point["target_weight"].sum()) == pytest.approx(1.0)


ZEROS = """
[variables.a]
family = "bernoulli"
[variables.b]
family = "bernoulli"
parents = ["a"]
[interventions]
base.a.p = 1.0
base.b.p = [0.0, 0.8]
"""


def test_values_that_the_base_never_takes():
    """Rows that only a forced value explains count for it, and what divides by zeros refuses."""
    model = CausalModel.from_toml(ZEROS)
    data = {"a": [0] * 40 + [1] * 60, "b": [0] * 40 + [1] * 48 + [0] * 12}
    for method in ("polished", "exact"):
        tree = estimate(model, data, method=method, n_boot=4)
        point = tree["estimate"]
        forced = point["forced"].sel(variable="a").values == 0
        assert float(point["target_weight"].values[forced].sum()) == pytest.approx(0.4)
        assert "RARE_BASE" in statuses(tree)
    with pytest.raises(RefusedError, match="'lifting' divides by the probabilities"):
        estimate(model, data, method="lifting")


def test_candidates_that_explain_no_row_are_flagged():
    model = CausalModel.from_toml(ZEROS + "targets = [{ b = 1 }]\n")
    tree = estimate(model, {"a": [0] * 20, "b": [0] * 20}, n_boot=4)
    assert "MECHANISM_MISFIT" in statuses(tree)


def test_an_empty_list_of_targets_is_refused():
    for text in (ZEROS, ZEROS.replace("bernoulli", "normal").split("base")[0]):
        with pytest.raises(ModelError, match="list at least one target"):
            CausalModel.from_toml(text + "targets = []\n")


def test_a_value_that_base_rows_never_take_is_flagged(model, rows):
    """A leaf's value: no table has an empty row, and the prior of the tables hides the zero."""
    base = simulate(base_model(model), 4_000, rng=2)
    base = base.where(base["d"] != 2, drop=True)
    tree = estimate(model, rows, base=base, n_boot=0)
    note = next(n for n in load_notes(tree.attrs["notes"]) if n.status.name == "RARE_BASE")
    assert note.where == "d"
    whole = estimate(model, rows, base=simulate(base_model(model), 4_000, rng=2), n_boot=0)
    assert "RARE_BASE" not in statuses(whole)


def test_missing_values_are_not_summed_out(model, rows):
    """Summed-out values have no level, and -1 would stand for "not forced"."""
    summed = CausalModel.from_toml(model.to_toml() + '\n[data]\nmissing = "sum"\n')
    holes = rows.assign(d=("row", np.where(np.arange(5_000) < 50, np.nan, rows["d"].values.astype(float))))
    for data, base in ((holes, None), (rows, holes)):
        with pytest.raises(DataError, match="not summed out of a mixture"):
            estimate(summed, data, base=base, n_boot=0)
