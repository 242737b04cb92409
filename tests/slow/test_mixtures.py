"""Mixtures without proxies in repeated samples: efficiency, seeds, sizes."""

import time

import numpy as np
import pytest
from scipy import stats

from pymc_mte import CausalModel, do, estimate, load_model, population, sample, simulate, tabulate, truth
from pymc_mte.data import columns_of
from pymc_mte.functionals import interventional_mean
from pymc_mte.moments.checks import cramer_rao
from pymc_mte.moments.classes import ClassProblem
from pymc_mte.moments.problem import make_problem, problem_of

pytestmark = pytest.mark.slow


def effect(model, parameters, x, y):
    low, high = (interventional_mean(model, parameters, {x: level}, y) for level in (0, 1))
    return {"ate": (parameters["class_weight"] * (high - low)).sum(axis=-1)}


def errors(model, x, y, rows, runs, rng):
    """Errors of the average effect in units of the Cramer-Rao standard error."""
    law = population(model)
    columns, p = columns_of(law, model), law["count"].values / law["count"].values.sum()
    exact = {n: v[None] for n, v in model.true_parameters().items()}
    bound = cramer_rao(make_problem(model, columns, rows * p), exact, lambda q: effect(model, q, x, y))["ate"]
    out = []
    for run in range(runs):
        counts = rng.multinomial(rows, p).astype(float)
        setup = ClassProblem(problem=make_problem(model, columns, counts, run), rows=float(rows))
        found = effect(model, setup.optima.parameters, x, y)["ate"][0]
        out.append((found - effect(model, exact, x, y)["ate"][0]) / bound[()])
    return np.array(out)


@pytest.mark.parametrize("name", ["chain8", "collider9", "chain10"])
def test_effects_reach_the_cramer_rao_bound(name, rng):
    """Sum of squares of 40 standardised errors: chi-square, false alarm 0.2%."""
    model = load_model(f"gallery:{name}")
    z = errors(model, str(model.treatment), str(model.outcome), 100_000, 40, rng)
    low, high = stats.chi2.ppf([0.001, 0.999], 40)
    assert low < (z**2).sum() < high, np.sort(np.abs(z))


def random_network(rng):
    """Sparse network of 7 or 8 variables in shuffled order, one ternary, with 2 or 3 classes."""
    n, k = int(rng.integers(7, 9)), int(rng.integers(2, 4))
    place, three = rng.permutation(n), int(rng.integers(n))
    size = [3 if v == three else 2 for v in range(n)]
    parents = {}
    for i, v in enumerate(place):
        parents[int(v)] = [int(w) for w in place[:i] if rng.random() < min(1.0, 1.3 / max(1, i))][:2]
    variables = {}
    tables = {"class_weight": (0.15 + (1 - 0.15 * k) * rng.dirichlet(np.ones(k))).tolist()}
    for v in range(n):
        shape = (k, *(size[w] for w in parents[v]))
        p = 0.05 + (1 - 0.05 * size[v]) * rng.dirichlet(np.ones(size[v]), size=shape)
        kind = {"family": "bernoulli"} if size[v] == 2 else {"family": "categorical", "levels": [0, 1, 2]}
        variables[f"v{v}"] = kind | {"parents": [f"v{w}" for w in parents[v]]}
        tables[f"v{v}"] = {"p": (p[..., 1] if size[v] == 2 else p).tolist()}
    edges = [(f"v{w}", f"v{v}") for v in range(n) for w in parents[v] if size[v] == 2]
    model = CausalModel(classes=k, variables=variables, truth=tables)
    return (model, *edges[int(rng.integers(len(edges)))]) if edges else random_network(rng)


def test_random_networks(rng):
    z = [abs(errors(*random_network(rng), 100_000, 1, rng)[0]) for _ in range(40)]
    assert np.mean(np.array(z) <= 4) >= 0.95, np.sort(z)[-5:]


def test_carcinoma_with_four_classes_is_found_from_any_seed():
    model = load_model("gallery:carcinoma").with_classes(4)
    table = tabulate(load_model("gallery:carcinoma").data_path, load_model("gallery:carcinoma"))
    found = [
        ClassProblem(problem=problem_of(model, table, seed=seed), rows=118.0).optima.log_likelihood
        for seed in range(100)
    ]
    assert (np.abs(np.array(found) + 289.2858) < 1e-3).sum() >= 95


def test_a_chain_of_eight_at_a_million_rows():
    model = load_model("gallery:chain8")
    rows = simulate(model, 1_000_000, rng=1)
    estimate(model, simulate(model, 1_000, rng=1), n_boot=0)  # imports
    begin = time.perf_counter()
    table = tabulate(rows, model)
    setup = ClassProblem(problem=problem_of(model, table), rows=1e6)
    assert setup.moment_start is not None
    assert setup.optima.converged
    assert time.perf_counter() - begin < 30  # 1 s on an idle core


def test_a_posterior_answers_interventions_too():
    model = load_model("gallery:chain7")
    post = sample(model, simulate(model, 10_000, rng=1), random_seed=1, progressbar=False)
    high, low = (do(post, {"v2": x}, "v3")["mean"] for x in (1, 0))
    np.testing.assert_allclose((high - low).values, post["posterior"]["ate"].values, atol=1e-10)
    spread = float(post["posterior"]["ate"].std())
    assert abs(float((high - low).mean()) - float(truth(model)["ate"])) < 4 * spread
