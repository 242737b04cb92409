"""Posterior and evidence of tiny data against the exact sum over all class assignments.

Given who belongs to which class, all tables are independent Dirichlets, so weights, effects and the
evidence are sums of products of gamma functions. The sum runs over every assignment; rows with equal
values are interchangeable, so it runs over the numbers of each pattern in each class instead.
"""

import itertools

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp

from pymc_mte import CausalModel
from pymc_mte.bayes.bridge import Normal, bridge
from pymc_mte.bayes.build import build_model
from pymc_mte.bayes.density import PosteriorDensity
from pymc_mte.bayes.evidence import region_integral
from pymc_mte.bayes.labels import LabelRegion
from pymc_mte.bayes.smc import run_smc
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.functionals import functionals
from pymc_mte.moments.methods import class_profile

VARIABLES = ("z", "x", "t", "y")


def model_of(classes, names=VARIABLES):
    """Binary proxies, treatment and outcome; only the treatment is a parent, of the outcome."""
    roles = {"treatment_proxies": ["z"], "outcome_proxies": ["x"]} if "z" in names else {}
    variables = {name: {"family": "bernoulli", "parents": ["t"] if name == "y" else []} for name in names}
    return CausalModel(classes=classes, variables=variables, treatment="t", outcome="y", **roles)


def rows_of(n, seed, names=VARIABLES, strength=0.8):
    """Two classes of which one gains by treatment and the other loses."""
    rng = np.random.default_rng(seed)
    u = rng.random(n) < 0.5
    rows = {name: (rng.random(n) < np.where(u, strength, 1 - strength)).astype(int) for name in names}
    rows["y"] = (rng.random(n) < np.where(u == rows["t"], 0.8, 0.3)).astype(int)
    return rows


def allocations(counts, classes):
    """Every way to split the patterns' counts over the classes, and the log number of assignments."""
    each, ways = [], []
    for count in counts:
        split = [s for s in itertools.product(range(count + 1), repeat=classes) if sum(s) == count]
        each.append(np.array(split))
        ways.append(gammaln(count + 1) - gammaln(np.array(split) + 1.0).sum(axis=1))
    index = np.stack([i.ravel() for i in np.meshgrid(*(range(len(e)) for e in each), indexing="ij")], axis=1)
    numbers = np.stack([e[index[:, p]] for p, e in enumerate(each)], axis=-1)
    return numbers, sum(w[index[:, p]] for p, w in enumerate(ways))


def dirichlet_multinomial(counts, alpha):
    """Log probability of ordered draws with these counts, the last axis being the levels."""
    total = counts.sum(axis=-1)
    size = alpha * counts.shape[-1]
    return gammaln(size) - gammaln(total + size) + (gammaln(counts + alpha) - gammaln(alpha)).sum(axis=-1)


def exact(rows, classes, alpha, names=VARIABLES):
    """Log evidence, mean and SD of the ATE, and mean of the squared effect SD."""
    matrix = np.column_stack([rows[name] for name in names])
    patterns, counts = np.unique(matrix, axis=0, return_counts=True)
    n, weight = allocations(counts, classes)  # (assignments, classes, patterns)
    size = n.sum(axis=-1)
    log_p = weight + dirichlet_multinomial(size, alpha)
    column = dict(zip(names, patterns.T, strict=True))
    for name in names:
        if name != "y":
            table = np.stack([n @ (column[name] == level) for level in (0, 1)], axis=-1)
            log_p = log_p + dirichlet_multinomial(table, alpha).sum(axis=-1)
    outcome = np.stack(
        [
            np.stack([n @ ((column["t"] == arm) & (column["y"] == level)) for level in (0, 1)], axis=-1)
            for arm in (0, 1)
        ],
        axis=-2,
    )
    log_p = log_p + dirichlet_multinomial(outcome, alpha).sum(axis=(-1, -2))
    evidence = logsumexp(log_p)
    share = np.exp(log_p - evidence)
    yes, total = outcome[..., 1] + alpha, outcome.sum(axis=-1) + 2 * alpha
    mean = yes / total
    square = yes * (yes + 1) / total / (total + 1)
    d = mean[..., 1] - mean[..., 0]
    d2 = square[..., 1] + square[..., 0] - 2 * mean[..., 1] * mean[..., 0]
    a, total_a = size + alpha, (size + alpha).sum(axis=-1, keepdims=True)
    w = a / total_a
    ww = a[..., None] * a[..., None, :] / (total_a * (total_a + 1))[..., None]
    ww[..., range(classes), range(classes)] = a * (a + 1) / (total_a * (total_a + 1))
    dd = d[..., None] * d[..., None, :]
    dd[..., range(classes), range(classes)] = d2
    ate, ate2 = (w * d).sum(axis=-1), (ww * dd).sum(axis=(-1, -2))
    variance = (w * d2).sum(axis=-1) - ate2
    ate_mean = share @ ate
    return evidence, ate_mean, np.sqrt(share @ ate2 - ate_mean**2), share @ variance


def test_a_bridge_to_a_proposal_that_misses_has_a_large_error(rng):
    x = rng.normal(size=(2, 200))
    value, error = bridge(0.0 * x, 2_000.0 + rng.normal(size=500))  # far denser than any draw was
    assert np.isfinite([value, error]).all()
    assert bridge(0.0 * x, np.full(500, -np.inf)) == (-np.inf, np.inf)


def test_the_exact_sum_is_one_over_assignments():
    """Six rows: the sum over patterns equals a loop over all 2^6 assignments, one row at a time."""
    rows = rows_of(6, 3)
    total = []
    for classes in itertools.product(range(2), repeat=6):
        log_p, seen = 0.0, {}
        for i, u in enumerate(classes):
            for key, value in (("u", u), *((v, rows[v][i]) for v in VARIABLES)):
                cell = (key, None if key == "u" else u, rows["t"][i] if key == "y" else None)
                table = seen.setdefault(cell, np.full(2, 1.5))
                log_p += np.log(table[value] / table.sum())
                table[value] += 1
        total.append(log_p)
    assert exact(rows, 2, 1.5)[0] == pytest.approx(logsumexp(total), abs=1e-10)


def summaries(drawn, model):
    """Per run: mean of the ATE, its square, and of the squared effect SD."""
    values = functionals(model, drawn)
    ate, sd = values["ate"], values["effect_sd"]
    return np.stack([ate.mean(axis=1), (ate**2).mean(axis=1), (sd**2).mean(axis=1)])


CASES = {
    "one class": (1, 12, VARIABLES, 1.0),
    "identified": (2, 20, VARIABLES, 2.0),
    "not identified": (2, 12, ("t", "y"), 1.0),
    "30 rows": (2, 30, ("t", "y"), 2.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_smc_equals_the_exact_sum(case):
    """Eight independent runs; 4 standard errors between runs: by chance 0.5% each (t, 7 df)."""
    classes, n, names, alpha = CASES[case]
    model, rows = model_of(classes, names), rows_of(n, 7, names)
    evidence, mean, sd, spread = exact(rows, classes, alpha, names)
    built = build_model(model, rows, priors=dict.fromkeys(model.dims, alpha))
    pivot = {n: np.full(s, 1 / s[-1]) + _tilt(s, n, model) for n, s in model.shapes.items()}
    tree = run_smc(model, built, pivot, {}, 8, 1, {"draws": 500})
    density = PosteriorDensity(model, built)
    found = tree["evidence"].to_dataset()
    assert abs(float(found["log_evidence"]) - evidence) < 4 * float(found["error"])
    values = parameters(model, tree["posterior"].to_dataset())
    got = summaries(values, model)
    wanted = np.array([mean, sd**2 + mean**2, spread])
    errors = got.std(axis=1, ddof=1) / np.sqrt(8)
    assert (np.abs(got.mean(axis=1) - wanted) < 4 * errors + 1e-12).all()
    region = LabelRegion(model, class_profile(model, values, {}).mean(axis=(0, 1)), {})
    joined = {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}
    flat = density.to_flat(region.aligned(joined)).reshape(8, 500, -1)
    fit = Normal.fitted(flat[:, :250].reshape(2_000, -1))
    value, error = region_integral(density, region, fit, flat[:, 250:], 1)
    assert abs(value - evidence) < 4 * error


def _tilt(shape, name, model):
    """A little difference between the classes, so that the pivot orders them."""
    out = np.zeros(shape)
    if model.classes > 1 and name != "class_weight":
        out[0, ..., 0], out[0, ..., 1] = 0.2, -0.2
    return out


def parameters(model, drawn):
    return with_first_levels(model, {name: drawn[name].values for name in model.dims})
