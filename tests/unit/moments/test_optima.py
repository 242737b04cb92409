"""All optima of a likelihood: published ones, each once, and found only because starts are many."""

import numpy as np
import pytest

from pymc_mte import CausalModel, load_model, tabulate
from pymc_mte.data import resolve
from pymc_mte.moments.optima import distinct_optima, nearest_optimum, objective_of
from pymc_mte.moments.problem import problem_of

GSS82 = [-2754.5454, -2755.617, -2755.739, -2762.005, -2762.231]


def problem(name, classes, seed=0):
    model, table = resolve(load_model(f"gallery:{name}").with_classes(classes), None)
    return problem_of(model, table, seed=seed)


@pytest.fixture(scope="module")
def gss82():
    return problem("gss82", 3)


@pytest.fixture(scope="module")
def found(gss82):
    return distinct_optima(gss82)


def test_gss82_has_its_five_optima(gss82, found):
    np.testing.assert_allclose(found.log_likelihood, GSS82, atol=1e-3)
    np.testing.assert_allclose(found.objective, found.log_likelihood, rtol=1e-12)
    assert found.share.sum() == pytest.approx(1, abs=0.05)  # the rest fell outside the window
    assert (found.share > 0).all()
    assert {n: v.shape[1:] for n, v in found.parameters.items()} == gss82.model.shapes


def test_without_random_starts_optima_are_lost(gss82):
    """What the multi-start is for: the spectral start, random for a product mixture, meets one of five."""
    assert len(distinct_optima(gss82, rounds=0).objective) == 1


def test_another_seed_finds_the_same(found):
    other = distinct_optima(problem("gss82", 3, seed=5))
    np.testing.assert_allclose(other.log_likelihood, found.log_likelihood, atol=1e-3)


def test_carcinoma_with_four_classes_has_the_optimum_of_the_manual_second():
    """A manual prints -289.789; climbs that end there are as many as those that reach the best."""
    optima = distinct_optima(problem("carcinoma", 4)).log_likelihood
    np.testing.assert_allclose(optima[0], -289.2858, atol=1e-3)
    assert np.abs(optima + 289.789).min() < 1e-3


def test_relabelled_copies_are_one_optimum():
    """Shuffled copies of the optimum, given as starts, end at it and do not count as new."""
    setup = problem("stouffer_toby", 2)
    found = distinct_optima(setup)
    turned = {
        n: v[:, ::-1] if setup.model.dims[n][:1] == ("class",) else v for n, v in found.parameters.items()
    }
    again = distinct_optima(setup, given=turned, rounds=0)
    assert len(found.objective) == len(again.objective) == 1
    assert nearest_optimum(setup, found, turned, 0.0).tolist() == [0]


def test_a_penalty_joins_optima_that_differ_by_noise(gss82, found):
    """The default prior leaves one mode, and its objective is log-likelihood plus log pseudo-counts."""
    joined = distinct_optima(gss82, penalty=1.0)
    assert len(joined.objective) == 1
    logs = sum(np.log(v).sum() for v in joined.parameters.values())
    assert joined.objective[0] - joined.log_likelihood[0] == pytest.approx(logs, rel=1e-10)
    assert joined.log_likelihood[0] < found.log_likelihood[0]
    assert (objective_of(gss82, found.parameters, 1.0)[0] < joined.objective[0]).all()


def test_a_ridge_is_one_optimum(rng):
    """Three binary variables cannot carry three classes: the optimum is a ridge, not twelve optima."""
    model = CausalModel(classes=3, variables={c: {"family": "bernoulli"} for c in "abc"})
    hidden = rng.random(500) < 0.5
    rows = {c: (rng.random(500) < np.where(hidden, 0.8, 0.3)).astype(int) for c in "abc"}
    table = tabulate(rows, model)
    assert len(distinct_optima(problem_of(*resolve(model, table), seed=0)).objective) == 1


def test_collapsed_scales_are_not_optima(rng):
    """Two equal values let a class shrink onto them; such ends do not count where others exist."""
    model = CausalModel(
        classes=2,
        variables={"a": {"family": "normal"}, "b": {"family": "normal"}, "c": {"family": "bernoulli"}},
    )
    hidden = rng.random(150) < 0.5
    rows = {n: np.round(rng.normal(np.where(hidden, 1.0, -1.0)), 1) for n in "ab"}
    rows["c"] = (rng.random(150) < np.where(hidden, 0.8, 0.2)).astype(int)
    found = distinct_optima(problem_of(*resolve(model, tabulate(rows, model)), seed=0), penalty=1.0)
    assert (found.parameters["sd_a"] > 0.01).all()
    assert np.sort(found.parameters["mean_a"][0])[1] == pytest.approx(1, abs=0.5)
