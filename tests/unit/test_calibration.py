"""The parts of a calibration that need no posterior: band, verdict, simulated tables, refusals."""

import numpy as np
import pytest

from pymc_mte import (
    CausalModel,
    DataError,
    DataSource,
    ModelError,
    RefusedError,
    calibrate,
    load_model,
    sample,
    simulate,
    tabulate,
)
from pymc_mte.bayes import samplers
from pymc_mte.calibration import BAND, _result, _strays, _unit_scale, fixed_people, rows_of
from pymc_mte.data import resolve
from pymc_mte.regression import covariate_means

N = 400


def verdict(model, draw):
    places = [{"ate": np.asarray(draw(i)), "log_likelihood": np.asarray((i + 0.5) / N)} for i in range(N)]
    return _result(model, places)


def test_the_band_holds_uniform_places_as_often_as_it_says(rng):
    null = _strays(rng.random((4_000, N)))
    fresh = _strays(rng.random((1_000, N)))
    outside = np.mean([(null <= s).mean() < 1 - BAND for s in fresh])
    assert outside < 0.025  # 1% expected: false alarm of this test under 1e-4


def test_overconfidence_and_bias_are_outside(level3, rng):
    uniform = rng.random(N)
    assert verdict(level3, lambda i: uniform[i])["verdict"]["inside_ate"].item() == 1
    wide = np.clip(0.5 + 1.4 * (uniform - 0.5), 0.0, 1.0)  # intervals a third too narrow
    found = verdict(level3, lambda i: wide[i])
    assert found["verdict"]["inside_ate"].item() == 0
    assert "outside the 99% band: ate" in found.attrs["verdict"]
    assert float(found["coverage"]["ate"].sel(level=0.9)) < float(found["coverage"]["lower"].sel(level=0.9))
    assert verdict(level3, lambda i: uniform[i] ** 1.5)["verdict"]["inside_ate"].item() == 0
    assert verdict(level3, lambda i: uniform[i])["verdict"]["inside_log_likelihood"].item() == 1


def test_rows_are_tabulated_with_every_level(level3, rng):
    table = rows_of(level3, level3.true_parameters(), 3, rng)  # too few rows to show all levels
    assert int(table["count"].sum()) == 3
    model, same = resolve(level3, table)
    assert model == resolve(level3, simulate(level3, 500))[0]
    assert same.equals(table)


GIVEN = CausalModel(
    classes=2,
    variables={"t": {"family": "bernoulli"}, "x": {"family": "normal"}, "y": {"family": "normal"}},
    treatment="t",
    outcome="y",
    covariates=["age", "site"],
    data=DataSource(missing="sum"),
)


def people_of(n=30):
    return {
        "t": [0, 1] * (n // 2),
        "x": np.arange(n) * 1.0,
        "y": np.arange(n) * 1.0,
        "age": [40.0, 40.0, 50.0] * (n // 3),
        "site": ["p", "q"] * (n // 2),
    }


def test_covariates_stay_while_rows_are_drawn(tools, rng):
    frame = people_of()
    people = fixed_people(GIVEN, frame, 30, rng)  # as many as there are: every row once
    model, _ = resolve(GIVEN, frame)
    truth = tools.random_truth(model, rng)
    truth |= {"baseline_weight": truth["class_weight"], "coef_class": rng.normal(size=(2, 2))}
    truth |= {"coef_t": rng.normal(size=2), "coef_y": rng.normal(size=2)}
    table = rows_of(model, truth, 30, rng, people)
    again, same = resolve(model, table)
    assert again == model
    assert same.equals(table)
    own = tabulate(frame, GIVEN)
    assert covariate_means(table) == pytest.approx(covariate_means(own))
    for name in ("age", "site = q"):
        drawn = np.repeat(table[name].values, table["count"].values)
        np.testing.assert_array_equal(np.sort(drawn), np.sort(np.repeat(own[name].values, own["count"])))


def test_more_rows_than_the_data_have_repeat_their_covariates(rng):
    frame = people_of() | {"x": [np.nan] + [1.0] * 29}
    people = fixed_people(GIVEN, frame, 200, rng)
    assert people.sizes["pattern"] == int(people["count"].sum()) == 200
    assert not np.isnan(people["x"].values).any()
    seen = set(zip(people["age"].values.tolist(), people["site = q"].values.tolist(), strict=True))
    assert seen <= set(zip(frame["age"], [float(s == "q") for s in frame["site"]], strict=True))


def test_without_data_the_scale_is_one():
    model = CausalModel(
        classes=2,
        variables={"a": {"family": "categorical", "levels": [1, 2, 5]}, "y": {"family": "normal"}},
    )
    rows = _unit_scale(model)
    assert set(rows["a"]) == {1, 2, 5}
    assert (np.mean(rows["y"]), np.std(rows["y"])) == (0.0, 1.0)


LINEAR = CausalModel(
    classes=2,
    variables={
        "g": {"family": "categorical", "levels": ["p", "q", "r"]},
        "x": {"family": "normal", "centre": 40.0},
        "t": {"family": "bernoulli", "linear_parents": ["x", "g"]},
        "y": {"family": "normal", "linear_parents": ["x"]},
    },
    treatment="t",
    outcome="y",
)


def test_rows_with_linear_parents_are_drawn_with_them(tools, rng):
    """By least squares; three standard errors of a slope are 0.0064 (false alarm 0.3%, seed fixed)."""
    truth = tools.random_truth(LINEAR, rng) | {
        "coef_y": np.array([0.7]),
        "coef_t": np.array([0.1, 1.0, -1.0]),
    }
    truth |= {"mean_x": np.array([40.0, 40.0]), "sd_x": np.array([5.0, 5.0]), "sd_y": np.ones(2)}
    truth |= {"mean_y": np.zeros((2, 2))}
    table = rows_of(LINEAR, truth, 9_000, rng)
    x, y, n = table["x"].values - 40, table["y"].values, table["count"].values
    assert (n * x * y).sum() / (n * x * x).sum() == pytest.approx(0.7, abs=0.0064)
    model, same = resolve(LINEAR, table)
    assert (model, model.variables["x"].centre) == (LINEAR, 40.0)
    assert same.equals(table)


def test_unit_rows_of_linear_parents_are_unrelated():
    rows = _unit_scale(LINEAR)
    codes = np.array([*(np.array(rows["g"]) == level for level in "qr"), rows["x"], rows["t"]], dtype=float)
    assert np.abs(np.corrcoef(codes[[0, 2, 3]]) - np.eye(3)).max() < 0.1
    assert (np.mean(rows["x"]), np.std(rows["x"]), np.std(rows["y"])) == (40.0, 1.0, 1.0)
    rows = _unit_scale(LINEAR.with_fields(variables={**LINEAR.variables, "x": {"family": "normal"}}))
    assert (np.mean(rows["x"]), np.std(rows["x"])) == (0.0, 1.0)


@pytest.mark.parametrize("family", ["gamma", "weibull", "negative_binomial", "hurdle_lognormal"])
def test_without_data_the_values_are_the_familys(family):
    event = {"event": "seen"} if family == "weibull" else {}
    model = CausalModel(classes=2, variables={"a": {"family": "bernoulli"}, "y": {"family": family, **event}})
    table = resolve(model, _unit_scale(model))[1]
    assert table["y"].values.min() > 0
    assert np.std(_unit_scale(model)["y"]) == 1.0


def test_what_cannot_be_calibrated_or_sampled_is_refused(level3, monkeypatch):
    with pytest.raises(ModelError, match="at least 1"):
        calibrate(level3, 0)
    with pytest.raises(RefusedError, match="interventions"):
        calibrate(load_model("gallery:unknown_interventions"), 2)
    with pytest.raises(DataError, match="pass data, whose covariates are kept"):
        calibrate(GIVEN, 2)
    with pytest.raises(RefusedError, match="list them as covariates"):
        calibrate(GIVEN.with_fields(covariates=(), strata=("site",)), 2)
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pymc-mte\[jax\]"):
        sample(level3, simulate(level3, 100, rng=1), sampler="numpyro", chains=1)
