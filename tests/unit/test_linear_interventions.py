"""Linear Gaussian models with interventions through the public door: files, rows, answers, refusals."""

import numpy as np
import pytest

from pymc_mte import (
    CausalModel,
    DataError,
    ModelError,
    RefusedError,
    base_model,
    estimate,
    identify,
    load,
    load_model,
    population,
    save,
    simulate,
    truth,
)
from pymc_mte.status import load_notes
from pymc_mte.summary import moment_summary

GOOD = """
[variables.b]
family = "normal"
parents = ["a"]
[variables.a]
family = "normal"
[interventions]
kind = "do"
base.a = { intercept = 1.0, sd = 1.0 }
base.b = { intercept = 0.0, coefficient = [2.0], sd = 0.5 }
[truth]
class_weight = [0.6, 0.4]
targets = [{}, { a = -2.0 }]
"""


def test_the_good_text_reads_and_round_trips():
    model = CausalModel.from_toml(GOOD)
    assert model.linear
    assert model.dims["coefficient_b"] == ("parent_b",)
    assert model.coords["parent_b"] == ["a"]
    assert CausalModel.from_toml(model.to_toml()) == model
    assert truth(model)["target"].values.tolist() == ["{}", "a=-2"]
    base = base_model(model)
    assert base.classes == 1
    assert CausalModel.from_toml(base.to_toml()) == base


CHANGES = {
    "discrete beside": (
        '[variables.a]\nfamily = "normal"',
        '[variables.a]\nfamily = "bernoulli"',
        "normal ones",
    ),
    "unknown variable": ("{ a = -2.0 }", "{ c = 1.0 }", r"truth\.targets: 'c' is not a variable"),
    "no number": ("{ a = -2.0 }", '{ a = "x" }', r"truth\.targets: 'a' needs a finite number"),
    "twice": ("[{}, { a = -2.0 }]", "[{}, {}]", "listed twice"),
    "coefficients": ("[2.0]", "[2.0, 1.0]", r"base\.b\.coefficient: expected the shape \(1,\)"),
    "mean": ("intercept = 1.0", "mean = 1.0", r"base\.a\.intercept: missing"),
    "sd": ("sd = 0.5", "sd = -0.5", r"base\.b\.sd: must be positive"),
    "kind": ('kind = "do"', 'kind = "soft"', r"interventions\.kind"),
    "tables as candidates": ('kind = "do"', 'kind = "do"\ntargets = [{ a = 1.0 }]', "list the variables"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_refusals_name_the_key(case):
    old, new, message = CHANGES[case]
    assert old in GOOD
    with pytest.raises(ModelError, match=message):
        CausalModel.from_toml(GOOD.replace(old, new, 1))


def test_discrete_models_are_not_shifted():
    text = '[variables.a]\nfamily = "bernoulli"\n[interventions]\nkind = "shift"\n'
    with pytest.raises(ModelError, match="only linear Gaussian networks are shifted"):
        CausalModel.from_toml(text)


def test_rows_follow_the_equations():
    model, n = CausalModel.from_toml(GOOD), 40_000
    rows = simulate(model, n, rng=1)
    forced = rows["latent_class"].values == 1
    assert (rows["a"].values[forced] == -2.0).all()
    error = rows["b"].values - 2 * rows["a"].values
    assert error.mean() == pytest.approx(0, abs=5 * 0.5 / np.sqrt(n))
    assert error.std() == pytest.approx(0.5, rel=5 / np.sqrt(2 * n))
    with pytest.raises(ModelError, match="continuous"):
        population(model)


def test_estimate_reads_back_the_truth_with_a_learnt_base(tmp_path):
    model = load_model("gallery:linear_shifts")
    rows, base = simulate(model, 5_000, rng=1), simulate(base_model(model), 4_000, rng=2)
    found = estimate(model, rows, base=base, n_boot=200, rng=0)
    point, known = found["estimate"].to_dataset(), truth(model)
    assert point["touched"].sum("variable").values.tolist() == [0, 1, 2, 2]
    z = (point["target_weight"].values - known["target_weight"].values) / point["se_target_weight"].values
    assert np.abs(z).max() < 4.5
    assert point["selected"].all()
    assert found["posterior"]["shift"].dims == ("chain", "draw", "target", "variable")
    table = moment_summary(found)
    assert table.index[0] == "target_weight[{}]"
    assert table["selected"].all()
    assert (table["present"] > 0.9).all()
    assert not load_notes(found.attrs["notes"])
    back = load(save(found, tmp_path / "found.nc"))
    assert back["estimate"]["shift"].equals(found["estimate"]["shift"])


def test_listed_targets_are_the_components():
    model = CausalModel.from_toml(GOOD)
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    stated = model.interventions.model_dump() | {"targets": [[], ["a"]]}
    listed = CausalModel(**fields | {"interventions": stated})
    assert CausalModel.from_toml(listed.to_toml()) == listed
    rows = simulate(model, 3_000, rng=1)
    point = estimate(listed, rows, n_boot=0)["estimate"]
    assert point["target"].values.tolist() == ["{}", "a=-2"]
    assert float(point["target_weight"][1]) == pytest.approx(0.4, abs=0.04)
    assert float(point["spread"].sel(target="a=-2", variable="a")) < 0.01


def test_identify_tests_the_graph_on_the_base():
    model = load_model("gallery:linear_shifts")
    rows, base = simulate(model, 500, rng=1), simulate(base_model(model), 2_000, rng=2)
    assert identify(model).identified["target_weight"]
    fine = identify(model, rows, base=base)
    assert fine.level == "targets"
    assert fine.checks["verdict"].tolist() == ["ok"]
    text = model.to_toml().replace('parents = [\n    "d",\n]', "").split("[interventions]")[0]
    cut = CausalModel.from_toml(text + '[interventions]\nkind = "shift"\n')
    flagged = identify(cut, rows, base=base)
    assert flagged.checks["verdict"].tolist() == ["doubt"]
    assert [n.where for n in flagged.notes] == ["e"]
    assert not estimate(cut, rows, base=base, n_boot=0).attrs["misfit_p"] > 1e-6


def test_refusals_of_data():
    model = load_model("gallery:linear_shifts")
    rows = simulate(model, 50, rng=1)
    text = model.to_toml().split("[interventions]")[0] + '[interventions]\nkind = "shift"\n'
    bare = CausalModel.from_toml(text)
    with pytest.raises(RefusedError, match="untouched network is not known"):
        estimate(bare, rows)
    with pytest.raises(DataError, match="too few"):
        estimate(bare, rows, base=rows.isel(row=slice(10)))
    with pytest.raises(ModelError, match="auto or polished"):
        estimate(model, rows, method="lifting")
    with pytest.raises(DataError, match="'b' of the base rows is constant or an exact function"):
        estimate(bare, rows, base=rows.assign(b=("row", np.zeros(50))))
    with pytest.raises(DataError, match="'b' of the base rows is constant or an exact function"):
        estimate(bare, rows, base=rows.assign(b=("row", 2.0 * rows["a"].values)))
    summed = CausalModel.from_toml(model.to_toml() + '\n[data]\nmissing = "sum"\n')
    holes = rows.assign(e=("row", np.where(np.arange(50) < 5, np.nan, rows["e"].values)))
    with pytest.raises(DataError, match="not summed out of a mixture"):
        estimate(summed, holes)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("kind", ["shift", "do"])
def test_a_few_rows_have_an_answer(kind, n):
    model = load_model("gallery:linear_shifts")
    other = CausalModel.from_toml(model.to_toml().replace('kind = "shift"', f'kind = "{kind}"'))
    point = estimate(other, simulate(model, n, rng=1), n_boot=4)["estimate"]
    assert float(point["target_weight"].sum()) == pytest.approx(1.0)


def test_near_ties_are_averaged(tmp_path):
    """Few rows of overlapping components: several sets, and shares over all of them."""
    model = load_model("gallery:linear_shifts")
    found = estimate(model, simulate(model, 300, rng=3), n_boot=100, rng=0)
    point = found["estimate"].to_dataset()
    assert point.sizes["target_set"] > 1
    assert float(point["set_probability"].sum()) == pytest.approx(1.0)
    assert float(point["target_weight"].sum()) == pytest.approx(1.0)
    chance = (point["included"] * point["set_probability"]).sum("target_set")
    assert point["inclusion_probability"].values == pytest.approx(chance.values)
    best = point["included"].values[0].astype(bool)
    assert (point["selected_weight"].values[~best] == 0).all()
    assert not point["selected"].values[~best].any()
    assert (point["log_evidence"].values[~best] <= 0).all()
    drawn = found["posterior"]["target_weight"].values.reshape(100, -1)
    assert drawn.sum(axis=1) == pytest.approx(1.0)
    absent = (drawn == 0).mean(axis=0)
    assert absent == pytest.approx(1 - chance.values, abs=0.25)  # 4.5 standard errors of 100 draws
    assert "TARGETS_UNCLEAR" in {note.status.name for note in load_notes(found.attrs["notes"])}
    assert load(save(found, tmp_path / "a.nc"))["estimate"]["included"].equals(point["included"])
