"""An observed common cause of treatment and outcome, and what else must not be answered in silence."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pymc_mte import (
    CausalModel,
    DataError,
    Fit,
    ModelError,
    RefusedError,
    baselines,
    estimate,
    identify,
    load_model,
    predict,
    sample,
    simulate,
)
from pymc_mte.bayes.laplace import normal_frame
from pymc_mte.bayes.weigh import weigh
from pymc_mte.hierarchy import failing, hierarchy
from pymc_mte.moments.interventions.gaussian_sets import plausible_sets
from pymc_mte.plainly import APART, in_words

BINARY = {"family": "bernoulli"}


@pytest.fixture(scope="module")
def measured():
    model = load_model("gallery:measured_confounder")
    return model, simulate(model, 300, rng=1)


@pytest.mark.parametrize("key", ["parents", "linear_parents"])
def test_a_common_cause_of_treatment_and_outcome_leaves_no_level(key):
    """Proxies tell the class; they do not close the path through what is measured."""
    roles = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["x"]}
    clean = {"z": BINARY, "x": BINARY, "s": BINARY}
    full = {"parents": ["t", "s"]} if key == "parents" else {"parents": ["t"], key: ["s"]}
    model = CausalModel(
        classes=2, variables=clean | {"t": BINARY | {key: ["s"]}, "y": BINARY | full}, **roles
    )
    found = hierarchy(model)
    assert found.level == "none"
    assert "they share s" in str(found.needed[0])
    assert "they share s" in str(failing(model, "ATE")[0])
    assert {("s", "t"), ("s", "y")} & set(found.costing)
    rows = {name: np.random.default_rng(1).integers(0, 2, 200) for name in model.variables}
    with pytest.raises(RefusedError):
        estimate(model, rows, n_boot=0)
    one_sided = CausalModel(classes=2, variables=clean | {"t": BINARY | {key: ["s"]}, "y": BINARY}, **roles)
    assert hierarchy(one_sided).level == "mixture"


def test_models_with_linear_parents_are_refused_where_they_would_be_ignored(measured):
    with pytest.raises(RefusedError, match="linear parents"):
        baselines(*measured)
    with pytest.raises(ModelError, match="grid"):
        sample(*measured, grid=3.0, progressbar=False)
    with pytest.raises(RefusedError, match="smc takes neither"):
        sample(*measured, sampler="smc", draws=10, chains=1, progressbar=False)


def test_one_class_with_covariates_and_rows_with_nothing_else(rng):
    frame = pd.DataFrame({"w": rng.normal(size=200), "t": rng.integers(0, 2, 200)})
    frame["y"] = frame["t"] + frame["w"] + rng.normal(size=200)
    model = CausalModel(
        classes=1,
        variables={"t": BINARY, "y": {"family": "normal", "parents": ["t"]}},
        treatment="t",
        outcome="y",
        covariates=["w"],
    )
    post = sample(model, frame, draws=60, tune=100, chains=2, progressbar=False)
    ate = post["posterior"]["ate"].values
    assert abs(ate.mean() - 1) < 5 * ate.std()
    found = predict(post, {"w": [0.0, 1.0]})
    np.testing.assert_allclose(found["class_probability"], 1.0)
    with pytest.raises(DataError, match="no new rows"):
        predict(post, {"w": []})


def test_a_fit_with_covariates_says_whose_answers_are_listed(monkeypatch):
    """Moments reach averages only; the table of the posterior may hold identified class effects."""
    variables = {"z": BINARY, "x": BINARY, "t": BINARY, "y": BINARY}
    roles = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["x"]}
    model = CausalModel(classes=2, variables=variables, covariates=["age"], **roles)
    table = pd.DataFrame({"mean": [1.0], "identified": [True]}, index=["effect[class 0]"])
    monkeypatch.setattr(Fit, "summary", lambda self: table)
    answered, tree = identify(model), xr.DataTree(xr.Dataset(attrs={"notes": "[]"}))
    parts = {"model": model, "identification": answered, "moments": tree, "comparison": None}
    both = Fit(posterior=tree, **parts)
    for shown in (str(both), both._repr_html_()):
        said, listed = shown.index(APART), shown.index("Cannot be answered: class_weight")
        assert said < listed < shown.index("effect[class 0]")
    assert APART not in str(Fit(posterior=None, **parts))
    assert sum(APART in in_words(line) for line in answered.lines()) == 1  # the page and the terminal
    plain = identify(model.with_fields(covariates=()))
    assert not any(APART in in_words(line) for line in plain.lines())


def test_a_frame_is_given_up_where_the_density_has_an_edge():
    def density(x):
        return (-1e6 * float(x[0]), -1e6 * np.ones(1)) if x[0] >= 0 else (-np.inf, np.full(1, np.nan))

    assert normal_frame(density, np.array([1e-7])) is None


def test_chains_in_a_mode_of_too_few_draws_are_not_weighed():
    """Weight 0 with standard error 0 would be certain of what nobody looked at."""
    values = {"class_weight": np.full((3, 90, 2), 0.5), "p_a": np.full((3, 90, 2, 2), 0.5)}
    values["p_a"][:2, ..., 1] = [0.2, 0.8]
    values["p_a"][2, ..., 1] = [0.45, 0.55]
    values["p_a"][..., 0] = 1 - values["p_a"][..., 1]
    values = {n: v + 1e-3 * np.random.default_rng(1).normal(size=v.shape) for n, v in values.items()}
    model = CausalModel(classes=2, variables={"a": BINARY})

    class Modes:
        posterior = type("P", (), {"parameters": {n: v[[0, 2], 0] for n, v in values.items()}})()

        def __len__(self):
            return 2

    class At:
        n_free = 3

        def __init__(self):
            self.model = model

        def to_flat(self, parameters):
            return np.concatenate([v.reshape(len(v), -1)[:, :1] for v in parameters.values()], axis=1)

    found = weigh(model, None, Modes(), values, np.array([0, 0, 1]), {}, 1, At)
    assert found.reading == "not weighted"


def test_few_rows_do_not_make_a_target_set_certain():
    """The untouched set is always among those that are weighed."""
    from pymc_mte.moments.interventions.gaussian import LinearRows
    from pymc_mte.moments.interventions.gaussian_search import unmix_linear
    from pymc_mte.moments.interventions.linear import LinearNetwork, moments_of

    network = LinearNetwork(
        parents=((), (0,)),
        intercept=np.zeros(2),
        coefficient=np.array([[0.0, 0.0], [0.8, 0.0]]),
        sd=np.ones(2),
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8, 2))
    data = LinearRows(rows=x, counts=np.ones(8), kind="shift", base=moments_of(rng.normal(size=(500, 2))))
    found = plausible_sets(data, unmix_linear(data, network, rng))
    levels = {len(s.mixture.weight): s.level for s in found}
    assert 1 in levels
