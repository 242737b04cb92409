"""The compiled density: value, gradient and maps against PyMC's own; new data without compilation."""

from dataclasses import replace

import numpy as np
import pytest

from pymc_mte import (
    CausalModel,
    DataError,
    ModelError,
    RefusedError,
    build_model,
    compile,
    load_model,
    simulate,
)
from pymc_mte.bayes.compiled import CompiledPosterior
from pymc_mte.bayes.gradient import AT_ONCE
from pymc_mte.bayes.laplace import laplace_draws
from pymc_mte.bayes.start import without_first_levels
from pymc_mte.data import resolve


@pytest.fixture(scope="module")
def normal():
    return CausalModel(
        classes=2,
        variables={"a": {"family": "bernoulli"}, "y": {"family": "normal"}},
        truth={
            "class_weight": [0.4, 0.6],
            "a": {"p": [0.2, 0.8]},
            "y": {"mean": [0.0, 2.0], "sd": [1.0, 0.5]},
        },
    )


@pytest.fixture(scope="module")
def compiled(normal):
    return compile(normal, simulate(normal, 60, rng=1))


def test_density_maps_and_new_data_agree_with_pymc(normal, compiled, rng):
    """The second data set has another number of rows, pooled mean and SD; nothing is compiled again."""
    model, table = resolve(normal, simulate(normal, 90, rng=2))
    built = build_model(model, table)
    density, maps = compiled.density.with_data(built), compiled.density.maps
    assert density.function is compiled.density.function
    value = without_first_levels(model, model.true_parameters())
    x = maps.unconstrain(value) + 0.1 * rng.normal(size=maps.size)
    back = maps.constrain(np.stack([x, maps.unconstrain(value)]))
    for name in value:
        np.testing.assert_allclose(back[name][1], value[name], rtol=1e-12)
    own = {n: v[0] for n, v in back.items()}
    parts = dict(zip([v.name for v in built.value_vars], maps.to_vectors(*own.values()), strict=True))
    found, gradient = density(x)
    assert found == pytest.approx(float(built.compile_logp(mode="FAST_COMPILE")(parts)), rel=1e-12)
    steps = 1e-5 * np.eye(maps.size)
    numeric = [(density(x + h)[0] - density(x - h)[0]) / 2e-5 for h in steps]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5)


def test_counts_of_other_values_need_no_compilation(rng):
    """More, fewer and a single distinct value, by arm: densities are looked up in the new data."""
    variables = {"t": {"family": "bernoulli"}, "y": {"family": "negative_binomial", "parents": ["t"]}}
    model = CausalModel(classes=2, variables=variables)
    rows = {n: {"t": rng.integers(0, 2, n), "y": rng.poisson(mean, n)} for n, mean in ((60, 2), (90, 40))}
    rows[40] = {"t": np.repeat([0, 1], 20), "y": np.full(40, 7)}
    compiled = compile(model, rows[60])
    for own in rows.values():
        built = build_model(*resolve(model, own))
        density, maps = compiled.density.with_data(built), compiled.density.maps
        x = rng.normal(size=maps.size)
        free = {n: v[0] for n, v in maps.constrain(x[None]).items()}
        parts = dict(zip([v.name for v in built.value_vars], maps.to_vectors(*free.values()), strict=True))
        wanted = float(built.compile_logp(mode="FAST_COMPILE")(parts))
        assert density(x)[0] == pytest.approx(wanted, rel=1e-12)


def test_many_draws_are_turned_into_values_in_parts(compiled, rng):
    maps = compiled.density.maps
    x = rng.normal(size=(2, 3, maps.size))
    at_once, one_by_one = maps.constrain(x), replace(maps, rows=10 * AT_ONCE).constrain(x)
    for name, value in at_once.items():
        assert value.shape[:2] == (2, 3)
        np.testing.assert_array_equal(one_by_one[name], value)


def test_data_of_another_form_are_refused(normal, compiled):
    with pytest.raises(DataError, match="compiled"):
        compiled.density.with_data(build_model(normal.with_classes(3), simulate(normal, 60, rng=3)))
    with pytest.raises(DataError, match="levels"):
        compiled.draws({"a": ["no", "yes", "no"], "y": [0.0, 1.0, 2.0]})
    with pytest.raises(RefusedError, match="interventions"):
        compile(load_model("gallery:unknown_interventions"))


def test_rows_whose_terms_have_other_directions_are_refused():
    """Without level c the coefficients run along one direction, and the compiled density has two."""
    variables = {
        "g": {"family": "categorical", "levels": ["a", "b", "c"]},
        "y": {"family": "bernoulli", "linear_parents": ["g"]},
    }
    rows = {"g": ["a", "b", "c", "a", "b"], "y": [0, 1, 1, 1, 0]}
    found = compile(CausalModel(classes=1, variables=variables), rows)
    fewer = {"g": ["a", "b", "b", "a", "b"], "y": [0, 1, 1, 1, 0]}
    for use in (found.draws, found.sample):
        with pytest.raises(DataError, match="shift 'y' vary in 1 directions in these rows, and in 2 where"):
            use(fewer)
    assert found.draws({n: v * 4 for n, v in rows.items()}, draws=10, tune=10).sizes["draw"] == 10


def test_laplace_is_exact_for_a_normal_density():
    precision = np.array([[2.0, 0.6], [0.6, 1.0]])
    centre = np.array([1.0, -2.0])

    def density(x):
        return float(-0.5 * (x - centre) @ precision @ (x - centre)), -precision @ (x - centre)

    drawn, log_density, about = laplace_draws(density, [np.zeros(2), np.ones(2)], 20_000, 1)
    assert drawn.shape == (2, 20_000, 2)
    assert log_density.shape == (2, 20_000)
    flat = drawn.reshape(-1, 2)
    np.testing.assert_allclose(flat.mean(axis=0), centre, atol=0.03)  # 4 standard errors
    np.testing.assert_allclose(np.cov(flat.T), np.linalg.inv(precision), atol=0.06)
    exact = 0.5 * (2 * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1])
    assert about["log_evidence"] == pytest.approx(exact, abs=1e-5)
    assert about["ess_share"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"draws": 0}, {"chains": 0}, {"tune": "a"}, {"target_accept": 2.0}, {"random_seed": -1}]
)
def test_options_of_a_compiled_posterior_are_checked(level3, wrong):
    compiled = CompiledPosterior(model=level3, built=None, density=None, priors=None, form={})
    for call in (compiled.draws, compiled.sample):
        with pytest.raises(ModelError, match=next(iter(wrong))):
            call(simulate(level3, 50, rng=1), **wrong)
