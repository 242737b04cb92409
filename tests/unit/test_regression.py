"""Mechanisms given covariates, against loops over rows and classes written out here."""

import threading

import numpy as np
import pytest
from scipy import special, stats
from threadpoolctl import threadpool_info

from pymc_mte import CausalModel, standardised
from pymc_mte.regression import draw_given, log_joint_given
from pymc_mte.standardised import functionals_given
from pymc_mte.threads import SharedLimit

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal"}

MODELS = {
    "normal outcome": {"z": C3, "x": N, "t": {**B, "parents": ["z"]}, "y": {**N, "parents": ["t"]}},
    "bernoulli outcome": {"z": B, "x": B, "t": {**B, "parents": ["z"]}, "y": {**B, "parents": ["x", "t"]}},
    "three arms": {"z": B, "x": B, "t": {**C3, "parents": ["z"]}, "y": {"family": "student_t"}},
    "binomial outcome": {"z": B, "x": N, "t": B, "y": {"family": "binomial", "trials": 3}},
    "outcome not latent": {"z": B, "x": B, "t": B, "y": {**N, "latent": False}},
    "counts": {"z": B, "x": B, "t": B, "y": {"family": "poisson"}},
    "treatment not latent": {"z": B, "x": B, "t": {**B, "latent": False}, "y": B},
}


def make(name, classes=2):
    return CausalModel(
        classes=classes,
        variables=MODELS[name],
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        covariates=["age", "sex"],
        covariate_levels={"sex": ["f", "m", "x"]},
    )


def parameters_of(tools, model, rng):
    out = tools.random_truth(model, rng)
    out["baseline_weight"] = out.pop("class_weight")
    for name, dims in model.coefficient_dims.items():
        shape = tuple(model.size(d) for d in dims)
        out[name] = rng.normal(0, 0.7, shape)
    return out


def class_chance(model, par, c):
    odds = np.log(par["baseline_weight"])
    if model.classes > 1:
        odds = odds + par["coef_class"] @ c
    return np.exp(odds - special.logsumexp(odds))


def table_at(model, par, name, u, cell, c):
    """P(level) of a discrete variable in one class at one row's covariates."""
    var = model.variables[name]
    p = par[f"p_{name}"]
    p = p[u] if var.latent else p
    for parent in var.parents:
        p = p[cell[parent]]
    if name not in model.regressed:
        return p
    coef = par[f"coef_{name}"]
    if var.trials is not None:
        rate = special.expit(special.logit(p) + coef @ c)
        return stats.binom.pmf(np.arange(var.trials + 1), var.trials, rate)
    tilt = np.array([0, coef @ c]) if var.family == "bernoulli" else coef @ c
    p = p * np.exp(tilt)
    return p / p.sum()


def mean_at(model, par, name, u, cell, c):
    var = model.variables[name]
    if var.discrete:
        p = table_at(model, par, name, u, cell, c)
        return p @ np.arange(len(p))
    mean = par[f"rate_{name}" if var.family == "poisson" else f"mean_{name}"]
    mean = mean[u] if var.latent else mean
    for parent in var.parents:
        mean = mean[cell[parent]]
    if var.family == "poisson":
        return mean * np.exp(par[f"coef_{name}"] @ c)
    return mean + (par[f"coef_{name}"] @ c if name in model.regressed else 0.0)


def density_at(model, par, row, u, c):
    """Log-density of one row in one class."""
    total = np.log(class_chance(model, par, c)[u])
    for name, var in model.variables.items():
        if var.discrete:
            total += np.log(table_at(model, par, name, u, row, c)[row[name]])
            continue
        mean = mean_at(model, par, name, u, row, c)
        if var.family == "poisson":
            total += stats.poisson(mean).logpmf(row[name])
            continue
        sd = par[f"sd_{name}"]
        sd = sd[u] if var.latent else sd
        law = stats.norm(mean, sd) if var.family == "normal" else stats.t(par[f"nu_{name}"], mean, sd)
        total += law.logpdf(row[name])
    return total


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_log_joint_equals_a_loop(tools, rng, name, classes):
    model = make(name, classes)
    par = parameters_of(tools, model, rng)
    c = rng.normal(size=(8, 3))
    _, columns = draw_given(model, par, c, 8, rng)
    got = log_joint_given(model, par, columns, c)
    for r in range(8):
        row = {n: columns[n][r] for n in model.variables}
        for u in range(classes):
            assert got[u, r] == pytest.approx(density_at(model, par, row, u, c[r]), rel=1e-11)


def walk_rows(model, par, c, weight, arm_of_interest):
    """Sum over rows, classes and cells: class weights, class means under every arm, ATT."""
    arms, k = len(model.arms), model.classes
    total, outcome, treated, gain = np.zeros(k), np.zeros((k, arms)), 0.0, 0.0
    names = [n for n in model.order if model.variables[n].discrete and n not in ("t", "y")]
    sizes = [model.size(n) for n in names]
    for r in range(len(c)):
        chance = class_chance(model, par, c[r])
        for u in range(k):
            total[u] += weight[r] * chance[u]
            for levels in np.ndindex(*sizes):
                cell = dict(zip(names, levels, strict=True))
                p = weight[r] * chance[u]
                for n in names:
                    p *= table_at(model, par, n, u, cell, c[r])[cell[n]]
                means = [mean_at(model, par, "y", u, {**cell, "t": a}, c[r]) for a in range(arms)]
                outcome[u] += p * np.array(means)
                got = p * table_at(model, par, "t", u, cell, c[r])[arm_of_interest]
                treated += got
                gain += got * (means[arm_of_interest] - means[0])
    return total, outcome / total[:, None], gain / treated


@pytest.mark.parametrize("name", MODELS)
def test_functionals_equal_a_loop(tools, rng, name):
    model = make(name)
    par = parameters_of(tools, model, rng)
    c, weight = rng.normal(size=(6, 3)), rng.dirichlet(np.ones(6))
    draws = {n: np.stack([v, v])[None] for n, v in par.items()}
    got = functionals_given(model, draws, c, weight)
    total, outcome, att = walk_rows(model, par, c, weight, 1)
    assert got["class_weight"].shape == (1, 2, 2)
    np.testing.assert_allclose(got["class_weight"][0, 1], total, rtol=1e-12)
    np.testing.assert_allclose(got["potential_outcome"][0, 1], outcome, rtol=1e-11)
    effect = outcome[:, 1] - outcome[:, 0]
    first = (..., 0) if len(model.contrasts) > 1 else ...
    np.testing.assert_allclose(got["ate"][0, 1][first], total @ effect, rtol=1e-10)
    np.testing.assert_allclose(got["att"][0, 1][first], att, rtol=1e-10)


def test_draws_follow_the_density(tools, rng):
    """Means of 40,000 drawn rows at one row's covariates against exact ones: |z| < 5 (6e-7 each)."""
    model = make("bernoulli outcome")
    par = parameters_of(tools, model, rng)
    c = np.repeat(rng.normal(size=(1, 3)), 40_000, axis=0)
    latent, columns = draw_given(model, par, c, len(c), rng)
    chance = class_chance(model, par, c[0])
    wanted = {"latent": chance[1]}
    for name in ("z", "x"):
        wanted[name] = sum(chance[u] * table_at(model, par, name, u, {}, c[0])[1] for u in range(2))
    wanted["t"] = sum(
        chance[u] * par["p_z"][u, z] * table_at(model, par, "t", u, {"z": z}, c[0])[1]
        for u in range(2)
        for z in range(2)
    )
    for name, share in wanted.items():
        got = (latent if name == "latent" else columns[name]).mean()
        assert abs(got - share) < 5 * np.sqrt(share * (1 - share) / len(c))


def test_overlapping_calls_leave_the_threads_of_blas_as_they_were(tools, rng, monkeypatch):
    """The first call waits for the second inside, the second for the end of the first."""
    model = make("counts")
    draws = {n: v[None] for n, v in parameters_of(tools, model, rng).items()}
    c, share, terms = rng.normal(size=(6, 3)), np.full(6, 1 / 6), standardised.wide_terms
    inside, overlap, done = threading.Event(), threading.Event(), threading.Event()

    def waiting(*args):
        if threading.current_thread().name == "first":
            inside.set()
            overlap.wait(0.5)
        else:
            overlap.set()
            done.wait(10)
        return terms(*args)

    def first():
        functionals_given(model, draws, c, share)
        done.set()

    monkeypatch.setattr(standardised, "wide_terms", waiting)
    before = threadpool_info()  # shows nothing where BLAS has one thread anyway
    calls = [threading.Thread(target=first, name="first")]
    calls.append(threading.Thread(target=functionals_given, args=(model, draws, c, share)))
    calls[0].start()
    assert inside.wait(10)
    calls[1].start()
    for call in calls:
        call.join(20)
    assert threadpool_info() == before


def test_the_limit_of_threads_is_nested_and_outlives_no_error():
    before, limit = threadpool_info(), SharedLimit()

    @limit
    def failing():
        with limit:
            raise ValueError("inside")

    with limit:
        with pytest.raises(ValueError, match="inside"):
            failing()
        assert all(own["num_threads"] == 1 for own in threadpool_info() if own["user_api"] == "blas")
    assert threadpool_info() == before


@pytest.mark.parametrize("outcome", [N, B])
def test_wide_tables_come_in_blocks(tools, rng, monkeypatch, outcome):
    """Treatment with three proxies of five levels: no array is larger than two blocks, sums are the same."""
    c5 = {"family": "categorical", "levels": list("abcde")}
    proxies = {"z1": c5, "z2": c5, "z3": c5}
    model = CausalModel(
        classes=2,
        variables={**proxies, "x": B, "t": {**B, "parents": list(proxies)}, "y": outcome},
        treatment="t",
        outcome="y",
        treatment_proxies=list(proxies),
        outcome_proxies=["x"],
        covariates=["age"],
    )
    draws = [parameters_of(tools, model, rng) for _ in range(30)]
    draws = {n: np.stack([d[n] for d in draws]) for n in draws[0]}
    c, share = rng.normal(size=(130, 1)), rng.dirichlet(np.ones(130))
    monkeypatch.setattr(standardised, "MAX_BLOCK", 10**9)
    wanted = functionals_given(model, draws, c, share)
    sizes, whole = [], standardised.row_parameters

    def watched(*args):
        out = whole(*args)
        sizes.append(max(value.size for value in out.values()))
        return out

    monkeypatch.setattr(standardised, "MAX_BLOCK", 20_000)
    monkeypatch.setattr(standardised, "row_parameters", watched)
    found = functionals_given(model, draws, c, share)
    assert max(sizes) <= 2 * 20_000
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-13)
