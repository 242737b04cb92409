"""Simulation-based calibration of one small model at a size that runs in minutes; drawn by ArviZ."""

import arviz as az
import pytest

from pymc_mte import CausalModel, calibrate, load_model

pytestmark = pytest.mark.slow


def test_level3_is_calibrated_and_drawn(level3):
    """14 quantities at 99% each: a calibrated posterior fails one in eight runs somewhere, none at 0.1%."""
    checked = calibrate(level3, 200, n=1_000, progressbar=False)
    assert checked.attrs["failures"] == "{}"
    verdict = checked["verdict"].to_dataset()
    worst = min(float(verdict[n].min()) for n in verdict.data_vars if str(n).startswith("band_p_"))
    assert worst > 0.001
    covered = checked["coverage"]["ate"].sel(level=0.9)
    assert (
        checked["coverage"]["lower"].sel(level=0.9) <= covered <= checked["coverage"]["upper"].sel(level=0.9)
    )
    az.plot_ecdf_pit(checked, var_names=["ate", "effect"])


def test_posteriors_given_covariates_are_calibrated(rng):
    """22 quantities of which some repeat each other; `inside` is the 99% band of each."""
    n, binary, number = 150, {"family": "bernoulli"}, {"family": "normal"}
    model = CausalModel(
        classes=2,
        variables={"z": binary, "x": number, "t": {**binary, "parents": ["z"]}, "y": number},
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        covariates=["age", "site"],
    )
    frame = {"z": rng.integers(0, 2, n), "t": rng.integers(0, 2, n)}
    frame |= {"x": rng.normal(size=n), "y": rng.normal(size=n)}
    frame |= {"age": rng.normal(50, 9, n).round(), "site": rng.choice(["p", "q"], n)}
    checked = calibrate(model, 60, n=n, data=frame, draws=150, tune=200, progressbar=False)
    assert checked.attrs["failures"] == "{}"
    places = checked["prior_sbc"].to_dataset()
    assert {"ate", "effect", "coef_class", "coef_t", "coef_y"} <= set(places.data_vars)
    assert all(((v >= 0) & (v <= 1)).all() for v in places.data_vars.values())
    assert "every quantity inside its 99% band" in checked.attrs["verdict"]


def test_posteriors_with_linear_parents_are_calibrated():
    """16 quantities; linear parents, and so the scale of their terms, differ in every round."""
    model = load_model("gallery:measured_confounder").with_fields(truth=None)
    priors = {"coef_t": 1.0, "coef_y": 1.0, "mean_severity": {"dist": "normal", "mu": 0.0, "sigma": 1.5}}
    checked = calibrate(model, 60, n=300, priors=priors, draws=150, tune=200, progressbar=False)
    assert checked.attrs["failures"] == "{}"
    assert {"ate", "effect", "coef_t", "coef_y"} <= set(checked["prior_sbc"].data_vars)
    assert "every quantity inside its 99% band" in checked.attrs["verdict"]
