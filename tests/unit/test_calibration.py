"""The parts of a calibration that need no posterior: band, verdict, simulated tables, refusals."""

import numpy as np
import pytest

from pymc_mte import CausalModel, ModelError, RefusedError, calibrate, load_model, sample, simulate
from pymc_mte.bayes import samplers
from pymc_mte.calibration import BAND, _result, _strays, _unit_scale, rows_of
from pymc_mte.data import resolve

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


def test_without_data_the_scale_is_one():
    model = CausalModel(
        classes=2,
        variables={"a": {"family": "categorical", "levels": [1, 2, 5]}, "y": {"family": "normal"}},
    )
    rows = _unit_scale(model)
    assert set(rows["a"]) == {1, 2, 5}
    assert (np.mean(rows["y"]), np.std(rows["y"])) == (0.0, 1.0)


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
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pymc-mte\[jax\]"):
        sample(level3, simulate(level3, 100, rng=1), sampler="numpyro", chains=1)
