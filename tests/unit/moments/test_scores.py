"""Scores, information and scoring steps against numeric derivatives and plain EM."""

import numpy as np
import pytest

from pymc_mte import CausalModel, estimate, load_model, population, simulate, truth
from pymc_mte.data import columns_of, resolve
from pymc_mte.functionals import functionals
from pymc_mte.moments.em import em
from pymc_mte.moments.likelihood import fit_likelihood, refit
from pymc_mte.moments.problem import make_problem
from pymc_mte.moments.scores import Scores, from_free, gradient, information, inverse_information, to_free
from pymc_mte.network import log_joint, log_sum_classes

OUTCOMES = {
    "bernoulli": {"p": [[0.2, 0.6], [0.5, 0.9]]},
    "normal": {"mean": [[0.0, 1.0], [2.0, 5.0]], "sd": [1.0, 1.5]},
    "student_t": {"mean": [[0.0, 1.0], [2.0, 5.0]], "sd": [1.0, 1.5], "nu": 4.0},
}


@pytest.fixture(params=OUTCOMES)
def fitted(request):
    fields = {n: getattr(load_model("gallery:level3"), n) for n in CausalModel.model_fields}
    variables = {**fields["variables"], "y": {"family": request.param, "parents": ["t"]}}
    model = CausalModel(
        **fields | {"variables": variables, "truth": {**fields["truth"], "y": OUTCOMES[request.param]}}
    )
    model, table = resolve(model, simulate(model, 300, rng=2))
    parameters = {n: v[None] for n, v in model.true_parameters().items()}
    return model, columns_of(table, model), table["count"].values.astype(float), parameters


def test_scores_are_the_derivatives_of_the_log_likelihood(fitted):
    model, columns, counts, parameters = fitted
    centre = to_free(model, parameters)[0]

    def value(free):
        return (counts * log_sum_classes(log_joint(model, from_free(model, free[None]), columns))[0]).sum()

    numeric = [(value(centre + 1e-5 * e) - value(centre - 1e-5 * e)) / 2e-5 for e in np.eye(len(centre))]
    score = Scores(model, columns)
    np.testing.assert_allclose(score.total(parameters, counts[None])[0], numeric, atol=1e-5)
    np.testing.assert_allclose(counts @ score.by_pattern(parameters), numeric, atol=1e-5)


def test_free_parameters_round_trip(fitted):
    model, _, _, parameters = fitted
    back = from_free(model, to_free(model, parameters))
    for name, value in parameters.items():
        np.testing.assert_allclose(back[name], value, atol=1e-12)


def test_the_bound_is_the_spread_of_the_maximum_likelihood_estimate():
    """SDs over 400 samples against Cramer-Rao: ratio 1 +- .035, so .85 to 1.15 is beyond 4 SEs."""
    model = load_model("gallery:paper_pair")
    law = population(model)
    columns, p = columns_of(law, model), law["count"].values
    parameters = {n: v[None] for n, v in model.true_parameters().items()}
    inverse = inverse_information(information(Scores(model, columns).by_pattern(parameters), p))
    slope = gradient(model, parameters, lambda q: functionals(model, q))["effect"]
    bound = np.sqrt(np.diag(slope @ inverse @ slope.T) / 50_000)
    samples = np.random.default_rng(8).multinomial(50_000, p / p.sum(), size=400).astype(float)
    found = functionals(model, em(model, columns, samples, parameters).parameters)["effect"]
    assert ((found.std(axis=0) / bound > 0.85) & (found.std(axis=0) / bound < 1.15)).all()


@pytest.mark.parametrize("name", ["level2", "level3", "paper_pair", "three_classes"])
def test_polished_is_exact_on_population_tables(name):
    model = load_model(f"gallery:{name}")
    point = estimate(model, population(model), method="polished", n_boot=0)["estimate"].to_dataset()
    right = truth(model)
    for key in ("effect", "ate", "att", "class_weight", "potential_outcome"):
        np.testing.assert_allclose(point[key].values, right[key].values, atol=1e-6)


def test_refits_of_resamples_equal_full_climbs(rng):
    model = load_model("gallery:paper_pair")
    model, table = resolve(model, simulate(model, 20_000, rng=5))
    columns, counts = columns_of(table, model), table["count"].values.astype(float)
    problem = make_problem(model, columns, counts)
    point, _ = fit_likelihood(problem)
    samples = rng.multinomial(20_000, counts / counts.sum(), size=50).astype(float)
    quick = functionals(model, refit(problem, samples, point).parameters)["effect"]
    full = functionals(model, em(model, columns, samples, point, tolerance=1e-12).parameters)["effect"]
    # a bootstrap of 400 knows its own standard errors to 3.5%: root-mean-square gaps stay below that
    assert (np.sqrt(((quick - full) ** 2).mean(axis=0)) < 0.035 * full.std(axis=0)).all()
