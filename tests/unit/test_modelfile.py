"""Model files: what is refused and how, round trips, and the gallery."""

import numpy as np
import pytest

from pymc_mte import CausalModel, ModelError, gallery_names, load_model, simulate, truth

GOOD = """
name = "m"
classes = 2
[roles]
treatment = "t"
outcome = "y"
treatment_proxies = ["z"]
outcome_proxies = ["x"]
[variables.z]
family = "bernoulli"
[variables.x]
family = "categorical"
levels = ["low", "mid", "high"]
[variables.t]
family = "bernoulli"
parents = ["z"]
[variables.y]
family = "normal"
parents = ["t"]
[truth]
class_weight = [0.5, 0.5]
z.p = [0.25, 0.75]
x.p = [[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]]
t.p = [[0.75, 0.5], [0.5, 0.25]]
y.mean = [[0.0, 1.0], [2.0, 5.0]]
y.sd = [1.0, 1.0]
"""


def load(text, folder, name="m.toml"):
    path = folder / name
    path.write_text(text)
    return load_model(path)


def test_the_good_file_loads(tmp_path):
    model = load(GOOD, tmp_path)
    assert model.dims["p_x"] == ("class", "x")
    assert model.shapes["mean_y"] == (2, 2)
    assert model.true_parameters()["p_z"].tolist() == [[0.75, 0.25], [0.25, 0.75]]


CHANGES = {
    "unknown key at the top": ("classes = 2", "classes = 2\nclases = 3", "clases: unknown key"),
    "unknown key of a role": (
        'outcome = "y"',
        'outcome = "y"\ntreatmnt = "t"',
        "roles.treatmnt: unknown key; allowed are treatment",
    ),
    "unknown key of a variable": (
        'parents = ["z"]',
        'parents = ["z"]\nparnts = []',
        r"variables\.t\.parnts: unknown key",
    ),
    "unknown key of the truth": (
        "[truth]",
        "[truth]\nq.p = [0.1, 0.2]",
        r"truth: unknown keys \['q'\]; allowed are",
    ),
    "unknown parameter of the truth": (
        "y.sd = [1.0, 1.0]",
        "y.sd = [1.0, 1.0]\ny.nu = 3.0",
        r"truth\.y: unknown keys \['nu'\]; allowed are",
    ),
    "unknown key of the data": ("[truth]", '[data]\nfil = "a.csv"\n[truth]', r"data\.fil: unknown key"),
    "unknown family": (
        'family = "normal"',
        'family = "gausian"',
        r"variables\.y: family 'gausian' is unknown; choose one of bernoulli",
    ),
    "cycle": (
        '[variables.z]\nfamily = "bernoulli"',
        '[variables.z]\nfamily = "bernoulli"\nparents = ["t"]',
        "form a cycle.*remove one of its edges",
    ),
    "z causes y": (
        'parents = ["t"]',
        'parents = ["t", "z"]',
        "edge z -> y breaks the role of 'z' as treatment proxy; remove the edge",
    ),
    "t causes x": (
        'levels = ["low", "mid", "high"]',
        'levels = ["low", "mid", "high"]\nparents = ["t"]',
        "edge t -> x breaks the role of 'x' as outcome proxy",
    ),
    "x causes t": (
        'parents = ["z"]',
        'parents = ["z", "x"]',
        "edge x -> t breaks the role of 'x' as outcome proxy",
    ),
    "continuous parent": (
        'parents = ["z"]',
        'parents = ["z", "y"]',
        r"variables\.t\.parents: 'y' is continuous.*cut it into levels",
    ),
    "unknown parent": (
        'parents = ["z"]',
        'parents = ["zz"]',
        r"variables\.t\.parents: 'zz' is not a variable",
    ),
    "parent twice": (
        'parents = ["z"]',
        'parents = ["z", "z"]',
        r"variables\.t\.parents: a parent is listed twice",
    ),
    "shape of the truth": (
        "z.p = [0.25, 0.75]",
        "z.p = [0.25, 0.75, 0.5]",
        r"truth\.z\.p: expected the shape \(2, 2\) \(class, z\), got \(3, 2\)",
    ),
    "missing truth": ("z.p = [0.25, 0.75]", "", r"truth\.z\.p: missing; it needs the shape"),
    "ragged truth": (
        "t.p = [[0.75, 0.5], [0.5, 0.25]]",
        "t.p = [[0.75, 0.5], [0.5]]",
        "truth.*regular table",
    ),
    "no probability": (
        "z.p = [0.25, 0.75]",
        "z.p = [0.25, 1.75]",
        r"truth\.z\.p: probabilities must lie in \[0, 1\]",
    ),
    "does not sum to one": (
        "class_weight = [0.5, 0.5]",
        "class_weight = [0.5, 0.6]",
        r"truth\.class_weight: probabilities.*sum to 1",
    ),
    "negative scale": ("y.sd = [1.0, 1.0]", "y.sd = [1.0, -1.0]", r"truth\.y\.sd: must be positive"),
    "not TOML": ("classes = 2", "classes == 2", "not valid TOML"),
    "no classes": ("classes = 2", "", "classes: missing; every model file needs it"),
    "another name": ('name = "m"', 'name = "n"', "name: must equal the file's name 'm', got 'n'"),
    "role at the top": (
        "classes = 2",
        'classes = 2\ntreatment = "t"',
        r"treatment: belongs into the \[roles\] table",
    ),
    "covariates": (
        'outcome = "y"',
        'outcome = "y"\ncovariates = ["x"]',
        r"roles\.covariates: 'x' is also a variable.*not modelled",
    ),
    "strata twice": (
        'outcome = "y"',
        'outcome = "y"\nstrata = ["site", "site"]',
        r"roles\.strata: 'site' is listed twice",
    ),
    "covariates of a simulation": (
        'outcome = "y"',
        'outcome = "y"\ncovariates = ["age"]',
        r"roles\.covariates: a model with a \[truth\] is simulated",
    ),
    "instruments": (
        "classes = 2",
        'classes = 2\ninstruments = ["z"]',
        "instruments:.*not supported.*two-stage",
    ),
    "panel": ("classes = 2", 'classes = 2\npanel = "id"', "panel:.*not supported"),
    "continuous treatment": (
        'treatment = "t"\noutcome = "y"',
        'treatment = "y"\noutcome = "t"',
        "continuous",
    ),
    "treatment without outcome": ('outcome = "y"\n', "", "roles: name both the treatment and the outcome"),
    "unknown role": (
        'treatment_proxies = ["z"]',
        'treatment_proxies = ["q"]',
        r"roles\.treatment_proxies: 'q' is not a variable",
    ),
    "two roles": (
        'outcome_proxies = ["x"]',
        'outcome_proxies = ["z"]',
        "roles: 'z' has two roles; give it one",
    ),
    "unknown reference": (
        'outcome = "y"',
        'outcome = "y"\nreference = "placebo"',
        r"roles\.reference: 'placebo' is no level of 't'; choose one of",
    ),
    "levels of a normal": (
        'family = "normal"',
        'family = "normal"\nlevels = [0, 1]',
        r"variables\.y: levels: a normal variable has none",
    ),
    "no levels": (
        'levels = ["low", "mid", "high"]',
        "",
        r"variables\.x: levels: a categorical variable must list its levels",
    ),
    "no levels of an ordinal": (
        'family = "categorical"\nlevels = ["low", "mid", "high"]',
        'family = "ordinal"',
        r"variables\.x: levels: an ordinal variable must list its levels",
    ),
    "level twice": (
        '"mid", "high"]',
        '"mid", "low"]',
        r"variables\.x: levels: every level must be listed once",
    ),
    "three levels of a bernoulli": (
        '[variables.t]\nfamily = "bernoulli"',
        '[variables.t]\nfamily = "bernoulli"\nlevels = [0, 1, 2]',
        r"variables\.t: levels: a bernoulli variable has two, got 3",
    ),
    "roles as a list": (
        '[roles]\ntreatment = "t"\noutcome = "y"\ntreatment_proxies = ["z"]\noutcome_proxies = ["x"]',
        'roles = ["t"]',
        "roles: must be a table",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_wrong_is_named_with_its_mend(tmp_path, change):
    old, new, message = CHANGES[change]
    assert GOOD.count(old) == 1 or change in ("unknown key of the truth",), GOOD.count(old)
    with pytest.raises(ModelError, match=rf"m\.toml: (?s:.*){message}") as error:
        load(GOOD.replace(old, new), tmp_path)
    assert isinstance(error.value, ValueError)
    assert "pydantic" not in str(error.value)


def test_outcome_causing_a_treatment_proxy(tmp_path):
    variables = {
        "z": {"family": "bernoulli", "parents": ["y"]},
        "x": {"family": "bernoulli"},
        "t": {"family": "bernoulli"},
        "y": {"family": "bernoulli"},
    }
    with pytest.raises(ModelError, match="edge y -> z breaks the role of 'z'"):
        CausalModel(
            classes=2,
            variables=variables,
            treatment="t",
            outcome="y",
            treatment_proxies=["z"],
            outcome_proxies=["x"],
        )


def test_continuous_treatment_is_refused():
    variables = {"t": {"family": "normal"}, "y": {"family": "normal", "parents": []}}
    with pytest.raises(ModelError, match="continuous"):
        CausalModel(classes=1, variables=variables, treatment="t", outcome="y")


def test_a_continuous_treatment_is_called_a_treatment(tmp_path):
    """The user did not list 't' as a parent of 'y'; the message should speak of the role."""
    variables = {"t": {"family": "normal"}, "y": {"family": "normal"}}
    with pytest.raises(ModelError, match=r"roles\.treatment.*continuous treatment"):
        CausalModel(classes=1, variables=variables, treatment="t", outcome="y")


@pytest.mark.parametrize("family", ["categorical", "ordinal"])
def test_categorical_outcome_has_no_mean(family):
    variables = {
        "t": {"family": "bernoulli"},
        "y": {"family": family, "levels": [0, 1, 2]},
    }
    with pytest.raises(ModelError, match=rf"roles\.outcome: 'y' is {family}"):
        CausalModel(classes=1, variables=variables, treatment="t", outcome="y")


@pytest.mark.parametrize("name", ["class", "ate", "effect", "pattern", "latent_class", ""])
def test_names_of_results_are_taken(name):
    with pytest.raises(ModelError, match="rename the variable"):
        CausalModel(classes=1, variables={name: {"family": "bernoulli"}})


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": 2, "variables": {}},
        {"classes": 2},
        {"variables": {"z": {"family": "bernoulli"}}},
        {"classes": 2, "variables": {"z": "bernoulli"}},
        {"classes": 2, "variables": ["z"]},
        {"classes": 2, "variables": {"z": {"family": "bernoulli"}}, "better": "more"},
    ],
)
def test_other_nonsense(fields):
    with pytest.raises(ModelError):
        CausalModel(**fields)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ModelError, match=r"none\.toml: no such model file"):
        load_model(tmp_path / "none.toml")
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"m\.toml: not a text file"):
        load_model(tmp_path / "m.toml")
    with pytest.raises(ModelError, match="the gallery has no model 'nope'; it has"):
        load_model("gallery:nope")
    with pytest.raises(ModelError, match="the gallery has no model"):
        load_model("gallery:../pyproject")


def test_an_empty_level_or_nan_truth_is_refused(tmp_path):
    with pytest.raises(ModelError, match="truth"):
        load(GOOD.replace("y.mean = [[0.0, 1.0]", "y.mean = [[nan, 1.0]"), tmp_path)


@pytest.mark.parametrize("name", gallery_names())
def test_gallery_round_trip(name):
    model = load_model(f"gallery:{name}")
    again = CausalModel.from_toml(model.to_toml())
    assert again == model
    assert again.to_toml() == model.to_toml()
    assert model.summary
    assert model.source


def test_round_trip_of_everything(tmp_path):
    text = GOOD.replace('outcome = "y"', 'outcome = "y"\nreference = 1\nbetter = "lower"\npractical = 0.5')
    text = text.replace('family = "normal"', 'family = "normal"\nscale_parents = true\nlatent = false')
    text = text.split("[truth]")[0] + (
        '[data]\nfile = "a.csv"\nmissing = "drop"\ncount = "n"\n'
        '[priors]\nclass_weight = 3.0\nz.p = [1.0, 2.0]\ny.mean = {dist = "normal", mu = 0, sigma = 9}\n'
        '[published.ate]\nvalue = 1.0\ninterval = [0.0, 2.0]\nsource = "a book"\n'
    )
    model = load(text, tmp_path)
    assert CausalModel.from_toml(model.to_toml()) == model
    assert model.contrasts == ((0, 1),)


WITH_EFFECTS = [
    name
    for name, model in ((name, load_model(f"gallery:{name}")) for name in gallery_names())
    if model.truth is not None and model.treatment is not None
]


@pytest.mark.parametrize("name", WITH_EFFECTS)
def test_gallery_truth(name):
    model = load_model(f"gallery:{name}")
    answer = truth(model)
    assert simulate(model, 3, rng=1).sizes["row"] == 3
    if model.treatment is None:
        first = answer[f"p_{next(iter(model.variables))}"].values.reshape(model.classes, -1)[:, -1]
        assert (np.diff(first) >= 0).all()
        return
    total = (answer["class_weight"] * answer["effect"]).sum()
    assert float(total) == pytest.approx(float(answer["ate"]), abs=1e-12)
    assert (np.diff(answer["effect"].values.reshape(model.classes)) >= 0).all()


@pytest.mark.parametrize(("name", "functional"), [("nhefs", "ate"), ("lalonde", "att")])
def test_published_answers_are_cited(name, functional):
    answer = load_model(f"gallery:{name}").published[functional]
    assert answer.source
    assert answer.interval is not None or answer.se is not None


def test_effects_of_the_papers_levels_agree():
    """Levels 2 and 3 differ by the edge z -> t alone, so their class effects are the same."""
    two, three = truth(load_model("gallery:level2")), truth(load_model("gallery:level3"))
    np.testing.assert_allclose(two["effect"], three["effect"], atol=1e-15)


def test_simulate_draws_from_the_truth(level3):
    """Frequencies of 40,000 rows; |z| > 4.5 happens by chance 7e-6 per comparison."""
    rows = simulate(level3, 40_000, rng=2)
    parameters = level3.true_parameters()
    u = rows["latent_class"].values
    for k in range(2):
        own = rows["z"].values[u == k]
        p = parameters["p_z"][k, 1]
        assert abs(own.mean() - p) < 4.5 * np.sqrt(p * (1 - p) / len(own))
    assert (simulate(level3, 100, rng=5)["y"] == simulate(level3, 100, rng=5)["y"]).all()
    with pytest.raises(ModelError, match="at least 1"):
        simulate(level3, 0)


def test_models_are_values(level3):
    with pytest.raises(Exception, match="frozen"):
        level3.classes = 3
    assert level3 != "level3"
