"""Modes of the row-wise posterior: those of the patterns, weighed with covariates, chains in all of them."""

import numpy as np
import pandas as pd
import pytest

from pymc_mte import CausalModel, build_model, sample
from pymc_mte.bayes.modes import find_modes
from pymc_mte.bayes.prepare import prepare
from pymc_mte.bayes.rowdensity import RowDensity
from pymc_mte.bayes.rowmodes import row_modes
from pymc_mte.data import SAMPLING_WEIGHT, resolve
from pymc_mte.moments.problem import problem_of

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": [0, 1, 2]}
ROLES = {"treatment": "t", "outcome": "y", "covariates": ["age"]}


def mirrored(n, rng):
    """Two tied pairs of columns, every row there twice with the pairs exchanged: two equal explanations."""
    u, v = rng.integers(0, 2, (2, n))
    flips = rng.random((4, n)) < 0.1
    pairs = np.stack([u ^ flips[0], u ^ flips[1], v ^ flips[2], v ^ flips[3]])
    rest = {"t": rng.integers(0, 2, n), "y": rng.integers(0, 2, n), "age": rng.normal(size=n)}
    one = pd.DataFrame(dict(zip("abcd", pairs, strict=True)) | rest)
    return pd.concat([one, one.rename(columns=dict(zip("abcd", "cdab", strict=True)))])


def test_rows_have_the_modes_of_their_patterns(rng):
    """Sampling weights of 1 change nothing but the way: the heights are those of the table."""
    model, table = resolve(CausalModel(classes=2, variables=dict.fromkeys([*"abcd"], B)), mirrored(80, rng))
    wanted = find_modes(problem_of(model, table)).posterior
    one = ("pattern", np.ones(table.sizes["pattern"]))
    found = row_modes(model, table.assign({SAMPLING_WEIGHT: one}), None, 0).posterior
    assert len(found.objective) == len(wanted.objective) > 1
    np.testing.assert_allclose(found.objective, wanted.objective, atol=0.1)
    np.testing.assert_allclose(found.log_likelihood, wanted.log_likelihood, atol=0.1)
    assert 0.5 < found.share.sum() <= 1
    tied = [np.abs(np.diff(p["p_a"][..., 1])[0]) > 0.5 for p in (modes_at(found, 0), modes_at(found, 1))]
    assert sorted(tied) == [False, True]  # one mode ties a and b, the other c and d


def modes_at(found, mode):
    return {name: value[mode] for name, value in found.parameters.items()}


def test_chains_start_in_all_modes(rng):
    model = CausalModel(classes=2, variables=dict.fromkeys([*"abcdty"], B), **ROLES)
    ready = prepare(*resolve(model, mirrored(60, rng)), start=None, priors=None, chains=4, seed=0)
    modes = ready.modes.posterior
    assert len(ready.modes) > 1
    assert (np.diff(modes.objective) <= 0).all()
    assert modes.objective[1] == pytest.approx(modes.objective[0], abs=0.5)
    assert modes.objective[-1] > modes.objective[0] - 10
    assert ready.started.tolist() == [c % len(ready.modes) for c in range(max(4, len(ready.modes)))]
    for start, mode in zip(ready.starts, ready.started, strict=True):
        far = sum(np.abs(start[f"p_{v}"] - modes.parameters[f"p_{v}"][..., 1]).sum(axis=1) for v in "abcd")
        assert far.argmin() == mode


@pytest.mark.parametrize("treatment", [B, C3])
@pytest.mark.parametrize("classes", [1, 3])
def test_density_at_parameters_of_results(classes, treatment, rng):
    """There and back, equal to the model's own density, and blind to labels."""
    variables = {"z": B, "x": {"family": "normal"}, "t": treatment, "y": {"family": "normal"}}
    model = CausalModel(classes=classes, variables=variables, **{**ROLES, "covariates": ["age", "site"]})
    frame = {"z": rng.integers(0, 2, 40), "x": rng.normal(size=40), "t": np.arange(40) % 2}
    frame |= {"y": rng.normal(size=40), "age": rng.normal(50, 9, 40), "site": rng.choice(["p", "q"], 40)}
    if treatment is C3:
        frame["t"] = np.arange(40) % 3
    model, table = resolve(model, frame)
    built = build_model(model, table)
    density = RowDensity(model, built)
    flat = 0.5 * rng.normal(size=(4, density.n_free))
    parameters = density.from_flat(flat)
    np.testing.assert_allclose(density.to_flat(parameters), flat, atol=1e-9)
    assert density.exchangeable(flat)
    coefficients = [built[n] for n in model.coefficient_dims]
    at_values = built.compile_fn(
        [built.logp(), *built.replace_rvs_by_values(coefficients)],
        inputs=built.value_vars,
        mode="FAST_COMPILE",
        on_unused_input="ignore",
    )
    sizes = [int(np.prod(shape)) for shape in density.shapes]
    for i in range(4):
        parts = np.split(flat[i], np.cumsum(sizes)[:-1])
        point = {
            v.name: part.reshape(shape)
            for v, part, shape in zip(built.value_vars, parts, density.shapes, strict=True)
        }
        wanted, *values = at_values(point)
        assert density.log_density(flat[i : i + 1])[0] == pytest.approx(float(wanted), rel=1e-10)
        for name, value in zip(model.coefficient_dims, values, strict=True):
            np.testing.assert_allclose(parameters[name][i], value, atol=1e-10)


@pytest.mark.slow
def test_mirrored_explanations_weigh_the_same():
    """With a covariate: chains stay in either mode, and each weighs 1/2."""
    model = CausalModel(classes=2, variables=dict.fromkeys([*"abcdty"], B), **ROLES)
    frame = mirrored(150, np.random.default_rng(1))
    post = sample(model, frame, draws=600, tune=500, chains=4, progressbar=False)
    modes = post["modes"].to_dataset()
    assert modes.attrs["reading"] == "weighted"
    weight, error = modes["mode_weight"].values, modes["mode_weight_error"].values
    heavy = np.argsort(-weight)[:2]
    assert (error[heavy] < 0.1).all()
    assert (np.abs(weight[heavy] - 0.5) < 4 * error[heavy] + 0.01).all()
    assert "SEVERAL_MODES" in post.attrs["notes"]
