"""Coefficients of linear parents keep their prior while other data are put into a density."""

import numpy as np
import pytest
from scipy import special, stats

from pymc_mte import CausalModel, build_model
from pymc_mte.bayes.prepare import prepare
from pymc_mte.bayes.reference import with_terms_of
from pymc_mte.bayes.rowdensity import RowDensity
from pymc_mte.calibration import PRIOR_DATA
from pymc_mte.data import columns_of, resolve
from pymc_mte.regression import centred_covariates, draw_given, log_joint_given

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal", "centre": 0.5}
VARIABLES = {
    "z": C3,
    "x": {**N, "latent": False},
    "t": {**C3, "linear_parents": ["z"]},
    "y": {**N, "linear_parents": ["x", "z"]},
}


def random_parameters(tools, model, rng):
    out = tools.random_truth(model, rng)
    if model.covariates:
        out["baseline_weight"] = out["class_weight"]
    for name, dims in model.coefficient_dims.items():
        out[name] = rng.normal(0, 0.4, tuple(model.size(d) for d in dims))
        if name == "coef_class":
            out[name] -= out[name].mean(axis=0)
        elif len(dims) == 2:
            out[name][0] = 0.0
    return out


def drawn(tools, model, rng, given, spread):
    """Rows; linear parents are spread differently in every data set."""
    par = random_parameters(tools, model, rng) | {"mean_x": np.array(0.5), "sd_x": np.array(spread)}
    columns = draw_given(model, par, given if model.covariates else None, len(given), rng)[1]
    frame = {
        name: np.asarray(var.labels)[columns[name]] if var.discrete else columns[name]
        for name, var in model.variables.items()
    }
    return frame | {name: given[:, i] for i, name in enumerate(model.covariates)}


@pytest.mark.parametrize("covariates", [(), ("age",)])
def test_the_prior_stays_and_the_likelihood_is_that_of_the_new_rows(tools, rng, covariates):
    """Covariates are the same. Normal(0, width / sqrt(terms)) along the first data's directions, by SciPy."""
    model = CausalModel(classes=2, variables=VARIABLES, treatment="t", outcome="y", covariates=covariates)
    given = rng.normal(size=(60, len(covariates)))
    model, table = resolve(model, drawn(tools, model, rng, given, 1.0))
    first = build_model(model, table)
    _, other = resolve(model, drawn(tools, model, rng, given, 4.0))
    ready = prepare(model, other, start=None, priors=None, chains=2, seed=0)
    before = [
        {n: ready.built[f"to_terms_{n}"].get_value() @ s[f"raw_coef_{n}"] for n in "ty"} for s in ready.starts
    ]
    kept = with_terms_of(ready, first)
    for start, wanted in zip(kept.starts, before, strict=True):
        for n in "ty":
            got = first[f"to_terms_{n}"].get_value() @ start[f"raw_coef_{n}"]
            np.testing.assert_allclose(got, wanted[n], atol=1e-12)

    density = RowDensity(model, first)
    par = {n: v[None] for n, v in random_parameters(tools, model, rng).items()}
    flat = density.to_flat(par)
    new = density.with_data(kept.built, keep=PRIOR_DATA)
    np.testing.assert_allclose(new.to_flat(par), flat, atol=1e-12)
    np.testing.assert_allclose(new.parts(flat)[0], density.parts(flat)[0], rtol=1e-12)
    columns = columns_of(other, model)
    by_row = special.logsumexp(log_joint_given(model, par, columns, centred_covariates(other))[0], axis=0)
    np.testing.assert_allclose(new.parts(flat)[1], by_row @ other["count"].values, rtol=1e-10)

    moved = {n: v + (0.3 if n == "coef_y" else 0.0) for n, v in par.items()}
    along = np.linalg.pinv(first["to_terms_y"].get_value())
    sd = 2.5 * first["pooled_sd_y"].get_value() / np.sqrt(len(along))
    wanted = [stats.norm(0, sd).logpdf(along @ p["coef_y"][0]).sum() for p in (par, moved)]
    got = [float(new.parts(new.to_flat(p))[0][0]) for p in (par, moved)]
    assert got[1] - got[0] == pytest.approx(wanted[1] - wanted[0], rel=1e-9)


def test_models_without_linear_parents_pass(tools, rng):
    model = CausalModel(classes=2, variables={"a": B, "b": B, "c": B})
    table = resolve(model, {name: rng.integers(0, 2, 50) for name in "abc"})[1]
    ready = prepare(model, table, start=None, priors=None, chains=1, seed=0)
    assert with_terms_of(ready, ready.built) is ready
