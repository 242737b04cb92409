"""Parts of a user's own PyMC model: log-density against brute force, effects against NumPy."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import special, stats

from pymc_mte import CausalModel, DataError, ModelError, add_to_model, build_model, population, simulate
from pymc_mte.bayes.effects import symbolic_functionals
from pymc_mte.bayes.start import with_first_levels, without_first_levels
from pymc_mte.families import FAMILIES
from pymc_mte.functionals import functionals

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal"}
MODE = "FAST_COMPILE"
ROLES = {"treatment": "t", "outcome": "y"}
PROXIES = {"treatment_proxies": ["z"], "outcome_proxies": ["x"]}


def own_model(y=N, **more):
    variables = {"z": B, "x": B, "t": {**B, "parents": ["z"]}, "y": y, **more}
    return CausalModel(classes=2, variables=variables, **ROLES, **PROXIES)


def moved(built, rng):
    """A random point of the unconstrained space."""
    return {n: v + rng.normal(size=np.shape(v)) for n, v in built.initial_point().items()}


def at(built, point, tensors):
    """Values of tensors at a point."""
    replaced = built.replace_rvs_by_values(list(tensors))
    compiled = built.compile_fn(replaced, inputs=built.value_vars, mode=MODE, on_unused_input="ignore")
    return compiled(point)


def observed_density(built, point):
    return float(built.compile_logp(vars=built.observed_RVs, mode=MODE)(point))


def coefficient(counts):
    return special.gammaln(counts.sum() + 1) - special.gammaln(counts + 1).sum()


def frame_of(rng, n):
    return {name: rng.integers(0, 2, n) for name in "zxt"} | {"y": rng.weibull(1.5, n).round(1) + 0.1}


def two_sites(model, sites):
    """The model that a user writes: sites share tables and a Weibull outcome, weights are pooled."""
    with pm.Model() as own:
        typical, spread = pm.Normal("typical"), pm.HalfNormal("spread")
        shape = pm.Gamma("shape", 4, 2, shape=2)
        scale = pm.HalfNormal("scale", 3, shape=(2, 2))
        tables = {name: pm.Beta(name, 2, 2, shape=s) for name, s in (("p_z", 2), ("p_x", 2), ("p_t", (2, 2)))}
        for site, rows in sites.items():
            share = pm.math.sigmoid(pm.Normal(f"logit_{site}", typical, spread))
            weight = pm.math.stack([share, 1 - share])
            priors = {n: lambda _, dims, v=v: v for n, v in (tables | {"class_weight": weight}).items()}
            weibull = lambda u, t, row: pm.logp(pm.Weibull.dist(shape[u], scale[u, t]), row["y"])  # noqa: E731
            add_to_model(model, rows, prefix=site, priors=priors, outcome=weibull)
    return own


@pytest.mark.slow
def test_two_sites_with_pooled_weights_and_an_own_weibull_outcome(rng):
    sites = {"north": frame_of(rng, 60), "south": frame_of(rng, 45)}
    own = two_sites(own_model(), sites)
    point = moved(own, rng)
    names = ("shape", "scale", "p_z", "p_x", "p_t", "logit_north", "logit_south")
    shape, scale, p_z, p_x, p_t, *logits = at(own, point, [own[n] for n in names])
    wanted = 0.0
    for logit, rows in zip(logits, sites.values(), strict=True):
        share = special.expit(logit)
        for z, x, t, y in zip(*(rows[n] for n in "zxty"), strict=True):
            p = 0.0
            for u, weight in enumerate((share, 1 - share)):
                own_p = stats.bernoulli(p_z[u]).pmf(z) * stats.bernoulli(p_x[u]).pmf(x)
                own_p *= stats.bernoulli(p_t[u, z]).pmf(t)
                p += weight * own_p * stats.weibull_min(shape[u], scale=scale[u, t]).pdf(y)
            wanted += np.log(p)
        wanted += coefficient(np.bincount(rows["z"] * 4 + rows["x"] * 2 + rows["t"], minlength=8))
    assert observed_density(own, point) == pytest.approx(wanted, rel=1e-10)


def test_own_outcome_beside_another_continuous_variable(rng):
    """The family's own normal, written by hand, is the family's normal."""
    model = own_model(w={**N, "parents": ["z"]})
    rows = frame_of(rng, 40)
    rows["w"] = rng.normal(size=40)
    built = build_model(model, rows)
    point = moved(built, rng)
    with pm.Model() as own:
        mean, sd = pm.Normal("mean_y", shape=(2, 2)), pm.HalfNormal("sd_y", shape=2)
        add_to_model(
            model, rows, outcome=lambda u, t, row: pm.logp(pm.Normal.dist(mean[u, t], sd[u]), row["y"])
        )
    assert observed_density(own, point) == pytest.approx(observed_density(built, point), rel=1e-12)
    assert not {"effect", "ate"} & set(own.named_vars)
    with own, pytest.raises(NotImplementedError, match="predictive draws"):
        pm.sample_prior_predictive(1, compile_kwargs={"mode": MODE})


EFFECTS = {
    "level 3": own_model({**B}),
    "normal": own_model(),
    "binomial": own_model({"family": "binomial", "trials": 3, "parents": ["x"]}),
    "not latent": own_model({**N, "latent": False}),
    "mediator, three arms": CausalModel(
        classes=3,
        variables={
            "z": {**B, "latent": False},
            "t": {**C3, "parents": ["z"]},
            "m": {**C3, "parents": ["t", "z"]},
            "s": {"family": "binomial", "trials": 2, "parents": ["t"]},
            "y": {**N, "parents": ["m", "z", "s"]},
        },
        **ROLES,
        reference="b",
        better="lower",
        practical=0.1,
    ),
}


EFFECTS |= {
    name: own_model({"family": name, "latent": name != "gamma"})
    for name, family in FAMILIES.items()
    if not family.discrete and name not in ("normal", "student_t")
}


@pytest.mark.parametrize("name", EFFECTS)
def test_effects_equal_those_computed_after_sampling(tools, rng, name):
    model = EFFECTS[name]
    truth = without_first_levels(model, tools.random_truth(model, rng))
    found = symbolic_functionals(model, {n: pt.as_tensor(np.asarray(v, float)) for n, v in truth.items()})
    values = dict(zip(found, pytensor.function([], list(found.values()), mode=MODE)(), strict=True))
    parameters = with_first_levels(model, truth)
    wanted = functionals(model, parameters)
    assert values.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_allclose(values[key], value, atol=1e-12, err_msg=key)


def test_build_model_is_add_to_model_in_an_empty_model(tools, level3, rng):
    rows = simulate(level3, 60, rng=rng)
    built = build_model(level3, rows)
    with pm.Model() as own:
        part = add_to_model(level3, rows, prefix="trial", priors={"p_z": 1.0})
        offset = pm.Normal("offset", part["ate"])
    assert {v.name for v in own.free_RVs} == {f"trial::{v.name}" for v in built.free_RVs} | {"offset"}
    assert own["trial::ate"] is part["ate"]
    for name in functionals(level3, tools.random_truth(level3, rng)):
        assert len(own.named_vars_to_dims.get(f"trial::{name}", ())) == part[name].ndim
    point = moved(built, rng)
    there = {f"trial::{n}": v for n, v in point.items()} | {"offset": np.zeros(())}
    assert observed_density(own, there) == pytest.approx(observed_density(built, point), rel=1e-12)
    gradient = own.compile_dlogp(vars=[own["trial::p_y"]], mode=MODE)(there)
    without = built.compile_dlogp(vars=[built["p_y"]], mode=MODE)(point)
    assert np.abs(gradient - without).max() > 1e-3  # `offset` learns about the effect, and back
    assert offset.name == "offset"


def test_parts_that_disagree_on_an_axis(rng):
    rows = frame_of(rng, 20)
    with pm.Model():
        add_to_model(own_model(), rows, prefix="a")
        with pytest.raises(ModelError, match="need the same classes and levels"):
            add_to_model(own_model().with_classes(3), rows, prefix="b")


def test_what_an_own_density_must_be(rng):
    model = own_model()
    rows = {name: rng.integers(0, 2, 20) for name in "zxt"} | {"y": rng.normal(size=20)}
    for outcome, said in (
        (3, "a function f\\(u, t, row\\) is wanted, got int"),
        (lambda u, t, row: None, "got NoneType"),
        (lambda u, t, row: pt.sum(row["y"]), "got 0 axes"),
        (lambda u, t, row: row["q"], "no column 'q'; its columns are z, x, t, y"),
        (
            lambda u, t, row: pm.logp(pm.Normal.dist(u, 1.0), row["y"]).T,
            r"\(rows, classes\) = \(20, 2\) is wanted, got \(2, 20\)",
        ),
        (lambda u, t, row: pm.logp(pm.Normal.dist(np.ones((1, 3)), 1.0), row["y"]), r"got \(20, 3\)"),
    ):
        with pm.Model(), pytest.raises(ModelError, match=said):
            add_to_model(model, rows, outcome=outcome)


def test_a_density_that_no_class_changes_may_have_one_column(rng):
    rows = {name: rng.integers(0, 2, 20) for name in "zxt"} | {"y": rng.normal(size=20)}
    with pm.Model() as own:
        add_to_model(own_model(), rows, outcome=lambda u, t, row: pm.logp(pm.Normal.dist(t, 1.0), row["y"]))
    assert np.isfinite(observed_density(own, own.initial_point()))


def test_a_prefix_is_text(level3):
    for wrong in (3, None):
        with pm.Model(), pytest.raises(ModelError, match=f"prefix: a name .* as text, got {wrong}"):
            add_to_model(level3, {}, prefix=wrong)


def test_two_parts_need_two_names(level3, rng):
    rows = simulate(level3, 50, rng=rng)
    with pm.Model():
        add_to_model(level3, rows)
        with pytest.raises(ModelError, match="Give this part a `prefix`"):
            add_to_model(level3, rows)


def test_calls_that_cannot_work(level3, rng):
    rows = frame_of(rng, 20)
    with pytest.raises(ModelError, match="no PyMC model is open"):
        add_to_model(own_model(), rows)
    with pm.Model():
        with pytest.raises(ModelError, match="declared with a continuous family"):
            add_to_model(level3, simulate(level3, 20), outcome=lambda u, t, row: 0.0)
        with pytest.raises(ModelError, match="names none"):
            add_to_model(CausalModel(classes=2, variables={"z": B}), rows, outcome=lambda u, t, row: 0.0)
        with pytest.raises(DataError, match="whole counts"):
            add_to_model(level3, population(level3))
