"""Simulation-based calibration of one small model at a size that runs in minutes; drawn by ArviZ."""

import arviz as az
import pytest

from pymc_mte import calibrate

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
    az.plot_ecdf_pit(checked, var_names=["ate", "effect"], method="envelope")
