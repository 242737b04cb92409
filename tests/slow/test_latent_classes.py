"""Published tables through the PyMC model, and the weights of several optima by two samplers. Minutes."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from pymc_mte import load_model, sample
from pymc_mte.moments.optima import distinct_optima

pytestmark = pytest.mark.slow

TABLES = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "latent_class_tables.py"))
PUBLISHED = TABLES["PUBLISHED"]


@pytest.mark.parametrize(("name", "classes"), [key for key in PUBLISHED if key[0] != "gss82"])
def test_the_flat_mode_of_the_built_model_is_the_published_fit(name, classes):
    """Flat priors, no Jacobian: the mode is the maximum of the likelihood; the default prior lowers it."""
    model, table, problem = TABLES["problem_with"](name, classes)
    best = {n: v[0] for n, v in distinct_optima(problem).parameters.items()}
    published = PUBLISHED[name, classes]
    assert TABLES["mode_of_built"](model, table, best, flat=True) == pytest.approx(published, abs=1e-2)
    pulled = distinct_optima(problem, penalty=1.0)
    start = {n: v[0] for n, v in pulled.parameters.items()}
    default = TABLES["mode_of_built"](model, table, start, flat=False)
    assert default == pytest.approx(float(pulled.log_likelihood[0]), abs=1e-2)
    assert default < published - 0.5


def test_weights_of_the_optima_of_gss82_agree_with_smc():
    """Flat priors: the shares of the three best optima differ by less than 4 joint standard errors."""
    model = load_model("gallery:gss82")
    options = {"priors": dict.fromkeys(model.dims, 1.0), "random_seed": 1, "progressbar": False}
    nuts, smc = (
        sample(model, sampler=sampler, draws=1_000, **options)["modes"].to_dataset()
        for sampler in ("nutpie", "smc")
    )
    assert nuts.attrs["reading"] == "mixing"
    for group in (nuts, smc):
        levels = group["optimum_log_likelihood"].values
        np.testing.assert_allclose(levels[:3], [-2754.545, -2755.617, -2755.739], atol=1e-3)
    gap = (nuts["optimum_weight"] - smc["optimum_weight"])[:3].values
    error = np.hypot(nuts["optimum_weight_error"], smc["optimum_weight_error"])[:3].values
    assert (np.abs(gap) < 4 * error).all(), (gap / error).round(1)
    assert (error < 0.1).all()
