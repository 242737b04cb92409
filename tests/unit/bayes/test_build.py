"""The log-density of the PyMC model, against a sum over classes and rows written out here."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import special, stats

from pymc_mte import CausalModel, DataError, ModelError, build_model, population, simulate, tabulate
from pymc_mte.bayes.layout import pattern_layout
from pymc_mte.bayes.start import with_first_levels, without_first_levels

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
O3 = {"family": "ordinal", "levels": ["low", "mid", "high"]}
N = {"family": "normal"}
T = {"family": "student_t"}

MODELS = {
    "bernoulli": {"z": B, "x": B, "t": {**B, "parents": ["z"]}, "y": {**B, "parents": ["x", "t"]}},
    "categorical": {"z": C3, "x": C3, "t": {**C3, "parents": ["z"]}, "y": {**B, "parents": ["t"]}},
    "ordinal": {
        "z": O3,
        "x": {**O3, "parents": ["z"]},
        "t": {**B, "parents": ["z"]},
        "y": {**N, "parents": ["t"]},
    },
    "normal": {"z": C3, "t": {**B, "parents": ["z"]}, "y": {**N, "parents": ["z", "t"]}},
    "student_t": {"z": B, "t": {**B, "parents": ["z"]}, "y": {**T, "parents": ["t"]}},
    "scale by parents": {"t": B, "y": {**N, "parents": ["t"], "scale_parents": True}},
    "scale by parents, student_t": {"t": B, "y": {**T, "parents": ["t"], "scale_parents": True}},
    "not latent": {
        "w": {**C3, "latent": False},
        "v": {**B, "latent": False, "parents": ["w"]},
        "t": {**B, "parents": ["w"]},
        "y": {**N, "parents": ["t"]},
    },
    "nothing of the outcome latent": {"t": B, "y": {**N, "parents": ["t"], "latent": False}},
    "two continuous": {"t": B, "x": N, "y": {**T, "parents": ["t"]}},
    "no discrete variables": {"x": N, "y": T},
    "one binomial": {"s": {"family": "binomial", "trials": 5}},
    "binomials": {
        "a": B,
        "s": {"family": "binomial", "trials": 3, "parents": ["a"]},
        "w": {"family": "binomial", "trials": 1, "latent": False, "parents": ["a"]},
        "t": {**B, "parents": ["s"]},
        "y": {**N, "parents": ["t"]},
    },
}


def build(name, classes):
    return CausalModel(classes=classes, variables=MODELS[name])


def rowwise(model, parameters, frame):
    """log p of all rows: for each row, sum over classes the product of its factors."""
    total = 0.0
    for i in range(len(frame)):
        row = frame.iloc[i]
        terms = []
        for u in range(model.classes):
            term = np.log(parameters["class_weight"][u])
            for name, var in model.variables.items():
                own = (u,) if var.latent else ()
                at = tuple(model.variables[p].labels.index(row[p]) for p in var.parents)
                if var.trials is not None:
                    p = parameters[f"p_{name}"][(*own, *at)]
                    term += stats.binom.logpmf(row[name], var.trials, p)
                    continue
                if var.discrete:
                    p = parameters[f"p_{name}"][(*own, *at, var.labels.index(row[name]))]
                    term += np.log(p)
                    continue
                mean = parameters[f"mean_{name}"][(*own, *at)]
                sd = parameters[f"sd_{name}"][(*own, *at) if var.scale_parents else own]
                law = stats.norm(mean, sd)
                if var.family == "student_t":
                    law = stats.t(parameters[f"nu_{name}"], mean, sd)
                term += law.logpdf(row[name])
            terms.append(term)
        total += special.logsumexp(terms)
    return float(total)


def log_density(built, parameters, model):
    """Observed log-density of the PyMC model at these parameters."""
    point = built.initial_point()
    for name, value in without_first_levels(model, parameters).items():
        rv = built[name]
        value_var = built.rvs_to_values[rv]
        transform = built.rvs_to_transforms[rv]
        if transform is not None:
            value = transform.forward(value, *rv.owner.inputs).eval()
        point[value_var.name] = np.asarray(value, dtype=float)
    compiled = built.compile_logp(vars=built.observed_RVs, mode="FAST_COMPILE")
    return float(compiled(point))


def coefficient(table, model):
    """Log multinomial coefficient of the counts of cells of the discrete variables."""
    if not model.discrete_variables:
        return 0.0
    layout = pattern_layout(model, table)
    counts = layout["count"].values
    assert counts.sum() == table["count"].sum()
    return float(special.gammaln(counts.sum() + 1) - special.gammaln(counts + 1).sum())


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_log_density_equals_brute_force(tools, rng, name, classes):
    model = build(name, classes)
    true = tools.with_truth(model, tools.random_truth(model, rng))
    frame = simulate(true, 40, rng=rng).to_dataframe()
    frame = frame.iloc[np.concatenate([np.arange(40), [0, 0, 1]])]  # repeated rows too
    table = tabulate(frame, model)
    elsewhere = tools.random_truth(model, rng)
    built = build_model(model, table)
    got = log_density(built, elsewhere, model) - coefficient(table, model)
    assert got == pytest.approx(rowwise(model, elsewhere, frame), rel=1e-10)


def test_tables_too_large_for_all_cells(tools, rng):
    """Beyond 4,096 cells only seen patterns are listed; the rest is one cell with count 0."""
    variables = {f"v{i}": B if i == 0 else {**B, "parents": [f"v{i - 1}"]} for i in range(13)}
    model = CausalModel(classes=2, variables=variables)
    assert model.n_cells == 8_192
    true = tools.with_truth(model, tools.random_truth(model, rng))
    frame = simulate(true, 60, rng=rng).to_dataframe()
    table = tabulate(frame, model)
    assert pattern_layout(model, table).attrs["rest"] == 1
    built = build_model(model, table)
    elsewhere = tools.random_truth(model, rng)
    got = log_density(built, elsewhere, model) - coefficient(table, model)
    assert got == pytest.approx(rowwise(model, elsewhere, frame), rel=1e-10)


def test_binomials_in_large_tables_and_their_prior(tools, rng):
    """Where only seen patterns are listed, their level numbers are data."""
    variables = {f"v{i}": B for i in range(10)} | {
        "s": {"family": "binomial", "trials": 7, "parents": ["v0"]}
    }
    model = CausalModel(classes=2, variables=variables)
    true = tools.with_truth(model, tools.random_truth(model, rng))
    frame = simulate(true, 30, rng=rng).to_dataframe()
    table = tabulate(frame, model)
    assert pattern_layout(model, table).attrs["rest"] == 1
    built = build_model(model, table)
    elsewhere = tools.random_truth(model, rng)
    got = log_density(built, elsewhere, model) - coefficient(table, model)
    assert got == pytest.approx(rowwise(model, elsewhere, frame), rel=1e-10)
    p = np.array([[0.2, 0.6], [0.5, 0.9]])
    wanted = stats.beta(2, 2).logpdf(p).sum()
    assert log_prior(built, "p_s", p) == pytest.approx(wanted, rel=1e-6)
    built = build_model(model, table, priors={"s.p": [3.0, 1.0]})
    wanted = stats.beta(1, 3).logpdf(p).sum()  # the second concentration belongs to success
    assert log_prior(built, "p_s", p) == pytest.approx(wanted, rel=1e-6)


def test_large_tables_with_a_continuous_variable(tools, rng):
    variables = {f"v{i}": B for i in range(13)} | {"y": {**N, "parents": ["v0"]}}
    model = CausalModel(classes=2, variables=variables)
    true = tools.with_truth(model, tools.random_truth(model, rng))
    frame = simulate(true, 30, rng=rng).to_dataframe()
    table = tabulate(frame, model)
    built = build_model(model, table)
    elsewhere = tools.random_truth(model, rng)
    got = log_density(built, elsewhere, model) - coefficient(table, model)
    assert got == pytest.approx(rowwise(model, elsewhere, frame), rel=1e-10)


def test_bernoulli_is_free_in_its_second_level(tools, rng, level3):
    parameters = tools.random_truth(level3, rng)
    free = without_first_levels(level3, parameters)
    np.testing.assert_array_equal(free["p_t"], parameters["p_t"][..., 1])
    for name, value in with_first_levels(level3, free).items():
        np.testing.assert_allclose(value, parameters[name], atol=1e-15)
    built = build_model(level3, simulate(level3, 50))
    assert built.named_vars_to_dims["p_t"] == ("class", "z")
    assert [v.name for v in built.free_RVs] == ["class_weight", "p_z", "p_x", "p_t", "p_y"]
    assert {"count", "n"} <= set(built.named_vars)


def test_classes_are_exchangeable(tools, rng, level3):
    """Permuting the classes changes neither the likelihood nor the prior."""
    built = build_model(level3, simulate(level3, 200, rng=1))
    compiled = built.compile_logp(mode="FAST_COMPILE")
    point = built.initial_point()
    for name, value in point.items():
        if not name.startswith("class_weight"):
            point[name] = value + rng.normal(size=np.shape(value))
    turned = {n: v if n.startswith("class_weight") else v[::-1] for n, v in point.items()}
    assert float(compiled(point)) == pytest.approx(float(compiled(turned)), rel=1e-12)


def test_real_counts_are_refused(level3):
    with pytest.raises(DataError, match="whole counts"):
        build_model(level3, population(level3))


@pytest.mark.parametrize("family", ["normal", "student_t", "gamma", "lognormal", "hurdle_gamma"])
@pytest.mark.parametrize("given", [{}, {"covariates": ["c"]}], ids=["patterns", "rows"])
def test_numbers_without_spread_are_refused(rng, family, given):
    """Their density has no bound as the standard deviation falls to 0; bins have one."""
    b, roles = {"family": "bernoulli"}, {"treatment": "t", "outcome": "y"}
    model = CausalModel(classes=2, variables={"t": b, "x": b, "y": {"family": family}}, **roles, **given)
    if model.unbuilt is not None:
        assert family == "hurdle_gamma"  # which takes no covariates
        return
    rows = {name: rng.integers(2, size=40) for name in "tx"}
    rows |= {"y": np.full(40, 0.1), "c": rng.normal(size=40)}
    if family.startswith("hurdle"):
        rows["y"] = rows["y"] * rows["x"]
    with pytest.raises(DataError, match=r"'y' holds 0\.1 in all .* no posterior"):
        build_model(model, rows)
    if family in ("normal", "student_t") and not given:
        assert build_model(model, rows, grid=0.5).free_RVs
    rows["y"][np.flatnonzero(rows["y"])[0]] = 0.3
    assert build_model(model, rows).free_RVs


def test_predictive_draws_have_the_layout_and_the_law(level3, rng):
    """Cell shares of 300 prior draws against a plain simulation of the same prior: |z| < 4.5."""
    built = build_model(level3, simulate(level3, 500, rng=1))
    fast = {"mode": "FAST_COMPILE"}
    with built:
        drawn = pm.sample_prior_predictive(300, random_seed=1, compile_kwargs=fast)
    counts = drawn["prior_predictive"]["counts"].values[0]
    assert counts.shape == (300, 16)
    assert (counts.sum(axis=1) == 500).all()
    shares = counts / 500
    error = shares.std(axis=0, ddof=1) / np.sqrt(300)
    assert (np.abs(shares.mean(axis=0) - 1 / 16) < 4.5 * error).all()  # exchangeable levels


@pytest.mark.parametrize("name", ["normal", "student_t", "two continuous"])
def test_predictive_rows(tools, rng, name):
    """Posterior predictive at one fixed parameter: mean of each cell's rows, |z| < 5 (6e-7 each)."""
    model = build(name, 2)
    parameters = tools.random_truth(model, rng)
    true = tools.with_truth(model, parameters)
    table = tabulate(simulate(true, 60, rng=rng), model)
    built = build_model(model, table)
    fixed = {
        n: (("chain", "draw", *(f"{n}{i}" for i in range(v.ndim))), v[None, None])
        for n, v in without_first_levels(model, parameters).items()
    }
    point = xr.DataTree.from_dict({"posterior": xr.Dataset(fixed)})
    point = xr.DataTree.from_dict(
        {"posterior": xr.concat([point["posterior"].to_dataset()] * 400, dim="draw")}
    )
    with built:
        drawn = pm.sample_posterior_predictive(
            point,
            random_seed=1,
            progressbar=False,
            compile_kwargs={"mode": "FAST_COMPILE"},
            freeze_vars=list(model.dims),
        )
    rows = drawn["posterior_predictive"]["rows"].values[0]
    assert rows.shape == (400, table.sizes["pattern"], len(model.continuous_variables))
    for j, v in enumerate(model.continuous_variables):
        for i in range(table.sizes["pattern"]):
            cell = {p: int(table[p][i]) for p in model.discrete_variables}
            weight = np.array([tools.natural_probability(model, parameters, u, cell) for u in range(2)])
            at = tuple(cell[p] for p in model.variables[v].parents)
            wanted = (weight / weight.sum()) @ parameters[f"mean_{v}"][(slice(None), *at)]
            got = rows[:, i, j]
            assert abs(got.mean() - wanted) < 5 * got.std(ddof=1) / 20


def density_of(built, name):
    return built[name].owner.op.__class__.__name__


def test_default_priors(level3):
    built = build_model(level3, simulate(level3, 100, rng=1))
    assert density_of(built, "class_weight") == "DirichletRV"
    assert density_of(built, "p_z") == "BetaRV"
    model = build("normal", 2)
    frame = {"z": ["a", "b", "c"] * 4, "t": [0, 1] * 6, "y": np.arange(12.0)}
    built = build_model(model, frame)
    assert density_of(built, "mean_y") == "NormalRV"
    assert density_of(built, "sd_y") == "HalfNormalRV"
    assert float(built["pooled_mean_y"].eval()) == pytest.approx(5.5)
    assert float(built["pooled_sd_y"].eval()) == pytest.approx(np.arange(12.0).std())


def log_prior(built, name, value):
    return float(pm.logp(built[name], value).sum().eval())


@pytest.mark.parametrize("key", ["p_z", "z.p"])
@pytest.mark.parametrize(
    ("prior", "law"), [(1.0, stats.beta(1, 1)), ([2.0, 5.0], stats.beta(5, 2)), (None, stats.beta(2, 2))]
)
def test_tables_take_a_concentration(level3, key, prior, law):
    rows = simulate(level3, 50, rng=1)
    built = build_model(level3, rows, priors=None if prior is None else {key: prior})
    p = np.array([0.2, 0.6])  # P(second level): the second concentration belongs to it
    # PyTensor keeps constants such as 2.0 in single precision: 1e-6, in the normaliser only
    assert log_prior(built, "p_z", p) == pytest.approx(law.logpdf(p).sum(), rel=1e-6)


def test_class_weight_takes_a_list(level3):
    built = build_model(level3, simulate(level3, 50), priors={"class_weight": [2.0, 7.0]})
    wanted = stats.dirichlet([2.0, 7.0]).logpdf([0.3, 0.7])
    assert log_prior(built, "class_weight", np.array([0.3, 0.7])) == pytest.approx(wanted, rel=1e-6)


def test_locations_take_a_table_or_a_callable():
    model = build("normal", 2)
    frame = {"z": ["a", "b", "c"] * 4, "t": [0, 1] * 6, "y": np.arange(12.0)}
    priors = {
        "mean_y": {"dist": "normal", "mu": 1.0, "sigma": 3.0},
        "y.sd": lambda name, dims: pm.Exponential(name, 2.0, dims=dims),
    }
    built = build_model(model, frame, priors=priors)
    at = np.full((2, 3, 2), 0.5)
    assert log_prior(built, "mean_y", at) == pytest.approx(12 * stats.norm(1, 3).logpdf(0.5))
    assert density_of(built, "sd_y") == "ExponentialRV"


def test_priors_of_the_model_file_are_used_and_overridden(level3):
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    model = CausalModel(**{**fields, "priors": {"z": {"p": 9.0}, "class_weight": 3.0}})
    rows = simulate(level3, 50)
    p = np.array([0.2, 0.6])
    built = build_model(model, rows)
    assert log_prior(built, "p_z", p) == pytest.approx(stats.beta(9, 9).logpdf(p).sum())
    built = build_model(model, rows, priors={"p_z": 1.0})
    assert log_prior(built, "p_z", p) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ({"p_q": 1.0}, r"priors\.p_q: no such parameter; choose one of \['class_weight', 'p_t'"),
        ({"p_z": {"dist": "normal", "mu": 0, "sigma": 1}}, "prior of p_z: .*concentration"),
        ({"p_z": [1.0, 2.0, 3.0]}, "p_z"),
        ({"p_z": -1.0}, "p_z"),
    ],
)
def test_unknown_or_unfit_priors(level3, priors, message):
    with pytest.raises(ModelError, match=message):
        build_model(level3, simulate(level3, 50), priors=priors)


@pytest.mark.parametrize(
    "prior", [3.0, {"dist": "cauchy", "alpha": 0, "beta": 1}, {"mu": 0}, {"dist": "normal", "muu": 1}]
)
def test_locations_refuse_other_priors(prior):
    frame = {"z": ["a", "b", "c"] * 4, "t": [0, 1] * 6, "y": np.arange(12.0)}
    with pytest.raises(ModelError, match="prior of mean_y"):
        build_model(build("normal", 2), frame, priors={"mean_y": prior})


@pytest.mark.parametrize("few", [True, False])
def test_log_ratio_transform_is_a_change_of_variables(rng, few, monkeypatch):
    """Round trip, and the log-determinant against a numeric Jacobian."""
    from pymc_mte.bayes import priors

    monkeypatch.setattr(priors, "FEW", 32 if few else 0)
    value = pt.vector("value")
    transform = priors.LogRatio(4)
    inverse = pytensor.function([value], transform.backward(value), mode="FAST_COMPILE")
    volume = pytensor.function([value], transform.log_jac_det(value), mode="FAST_COMPILE")
    free = rng.normal(size=3)
    p = inverse(free)
    assert p.sum() == pytest.approx(1)
    np.testing.assert_allclose(transform.forward(pt.as_tensor(p)).eval(mode="FAST_COMPILE"), free, atol=1e-10)
    steps = 1e-6 * np.eye(3)
    jacobian = [(inverse(free + step) - inverse(free - step))[:-1] / 2e-6 for step in steps]
    assert float(volume(free)) == pytest.approx(np.linalg.slogdet(np.array(jacobian))[1], abs=1e-7)
    far = inverse(np.array([800.0, -800.0, 0.0]))
    assert np.isfinite(far).all()
