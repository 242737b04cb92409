"""Models with interventions: what is refused and how, round trips, rows and their population."""

import itertools

import numpy as np
import pytest

from pymc_mte import CausalModel, ModelError, base_model, load_model, population, simulate, tabulate, truth

GOOD = """
[variables.a]
family = "bernoulli"
[variables.b]
family = "categorical"
levels = ["x", "y", "z"]
parents = ["a"]
[interventions]
base.a.p = 0.3
base.b.p = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
[truth]
class_weight = [0.5, 0.3, 0.2]
targets = [{}, { a = 1 }, { a = 0, b = "z" }]
"""


def test_the_good_text_reads_and_round_trips():
    model = CausalModel.from_toml(GOOD)
    assert model.classes == 3
    assert model.dims["p_b"] == ("a", "b")
    assert CausalModel.from_toml(model.to_toml()) == model
    assert "latent" not in model.to_toml()


def test_a_base_file_and_candidates_round_trip():
    text = (
        GOOD.split("[interventions]")[0]
        + '[interventions]\nbase_file = "base.csv"\ntargets = [{}, {a = 1}]\n'
    )
    model = CausalModel.from_toml(text)
    assert model.classes == 2
    assert CausalModel.from_toml(model.to_toml()) == model


CHANGES = {
    "unknown key": ("base.a.p", "bse.a.p", r"interventions\.bse: unknown key"),
    "no targets": ('targets = [{}, { a = 1 }, { a = 0, b = "z" }]', "", r"truth\.targets: missing"),
    "too few": (', { a = 0, b = "z" }', "", r"expected the shape|truth\.class_weight"),
    "unknown variable": ("{ a = 1 }", "{ c = 1 }", r"truth\.targets: 'c' is not a variable"),
    "unknown level": (
        "{ a = 1 }",
        "{ a = 2 }",
        r"truth\.targets: 2 is no level of 'a'; choose one of",
    ),
    "twice": ("{ a = 1 }", "{}", r"truth\.targets: a target is listed twice"),
    "not a table": ("{ a = 1 }", "1", r"truth\.targets: a target is a table"),
    "base of a wrong shape": (
        "base.a.p = 0.3",
        "base.a.p = [0.3, 0.7]",
        r"interventions\.base\.a\.p: exp",
    ),
    "base without a table": ("base.a.p = 0.3", "", r"interventions\.base\.a\.p: missing"),
    "varying mechanism": ('parents = ["a"]', 'parents = ["a"]\nlatent = true', r"variables\.b\.latent"),
    "continuous": ('family = "bernoulli"', 'family = "normal"', "continuous"),
    "two bases": ("base.a.p", 'base_file = "x.csv"\nbase.a.p', "either base .* or base_file"),
    "roles": ("[variables.a]", '[roles]\ntreatment_proxies = ["a"]\n[variables.a]', "roles"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_refusals_name_the_key(case):
    old, new, message = CHANGES[case]
    assert old in GOOD
    with pytest.raises(ModelError, match=message):
        CausalModel.from_toml(GOOD.replace(old, new, 1))


def test_targets_need_the_table():
    text = 'classes = 1\n[variables.a]\nfamily = "bernoulli"\n[truth]\ntargets = [{}]\na.p = [0.5]\n'
    with pytest.raises(ModelError, match=r"truth\.targets: only a model with an \[interventions\]"):
        CausalModel.from_toml(text)


def test_population_by_hand():
    model = CausalModel.from_toml(GOOD)
    table = population(model)
    a = np.array([0.7, 0.3])
    b = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    for i, j in itertools.product(range(2), range(3)):
        wanted = 0.5 * a[i] * b[i, j] + 0.3 * (i == 1) * b[1, j] + 0.2 * (i == 0 and j == 2)
        cell = (table["a"].values == i) & (table["b"].values == j)
        assert table["count"].values[cell].sum() == pytest.approx(wanted, abs=1e-12)


def test_rows_follow_the_population_and_the_targets():
    model = load_model("gallery:unknown_interventions")
    n = 50_000
    rows = simulate(model, n, rng=1)
    second = rows.isel(row=rows["latent_class"].values == 1)
    assert (second["b"] == 0).all()
    assert len(np.unique(second["a"])) == 3
    table, exact = tabulate(rows, model), population(model)
    seen = np.zeros(model.n_cells)
    seen[np.ravel_multi_index([table[v].values for v in model.variables], (3,) * 4)] = table["count"].values
    p = exact["count"].values
    assert np.abs((seen - n * p) / np.sqrt(n * p)).max() < 5  # 81 cells: 5e-5 by chance


def test_truth_labels_the_targets():
    answer = truth(CausalModel.from_toml(GOOD))
    assert answer["target_weight"].sel(target="a=0, b=z") == 0.2
    assert answer["target"].values.tolist() == ["{}", "a=1", "a=0, b=z"]


def test_the_base_is_a_model_of_its_own():
    base = base_model(CausalModel.from_toml(GOOD))
    assert base.interventions is None
    assert base.classes == 1
    assert float(simulate(base, 20_000, rng=1)["a"].mean()) == pytest.approx(0.3, abs=0.015)
