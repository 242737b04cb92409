"""Linear parents in the row-wise posterior: density, gradient, draws, starts, an answer that needs them."""

import numpy as np
import pymc as pm
import pytest
from scipy import special, stats

from pymc_mte import (
    CausalModel,
    DataError,
    DataSource,
    ModelError,
    RefusedError,
    bivariate_residuals,
    build_model,
    choose_classes,
    do,
    estimate,
    ladder,
    plan,
    plot_classes,
    predict,
    sample,
    sensitivity,
    simulate,
    tabulate,
)
from pymc_mte.bayes.coefficients import raw_coefficients
from pymc_mte.bayes.rowdensity import RowDensity
from pymc_mte.bayes.rowlayout import row_layout
from pymc_mte.bayes.rowmodes import row_modes
from pymc_mte.bayes.start import without_first_levels
from pymc_mte.data import resolve
from pymc_mte.regression import centred_covariates, draw_given, log_joint_given
from pymc_mte.standardised import functionals_given

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal"}
ROLES = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["x"]}

GRAPHS = {
    "number to number": {"z": B, "x": N, "t": {**B, "parents": ["z"]}, "y": {**N, "linear_parents": ["x"]}},
    "levels and numbers": {
        "z": C3,
        "x": {**N, "latent": False},
        "t": {**C3, "linear_parents": ["z"]},
        "m": {"family": "poisson", "parents": ["t"]},
        "y": {"family": "binomial", "trials": 2, "linear_parents": ["x", "m"]},
    },
    "proxies": {
        "g": {"family": "gamma"},
        "z": {**N, "linear_parents": ["g"]},
        "x": {**C3, "linear_parents": ["g"], "latent": False},
        "t": {**B, "linear_parents": ["z"]},
        "y": {"family": "gamma", "parents": ["x"], "linear_parents": ["g"]},
    },
}


def make(name, covariates=(), **more):
    return CausalModel(classes=2, variables=GRAPHS[name], covariates=covariates, **ROLES, **more)


def rows_of(tools, model, rng, n=40):
    """Rows of the graph without linear parts; the model with centres and levels, and its table."""
    plain = CausalModel(
        classes=2,
        variables={k: v.model_copy(update={"linear_parents": ()}) for k, v in model.variables.items()},
    )
    _, columns = draw_given(plain, tools.random_truth(plain, rng), None, n, rng)
    frame = {
        name: np.asarray(var.labels)[columns[name]] if var.discrete else columns[name]
        for name, var in model.variables.items()
    }
    return resolve(model, frame | {name: rng.normal(50, 9, n) for name in model.covariates})


def parameters_of(tools, model, rng):
    out = tools.random_truth(model, rng)
    if model.covariates:
        out["baseline_weight"] = out["class_weight"]
    for name, dims in model.coefficient_dims.items():
        out[name] = rng.normal(0, 0.3, tuple(model.size(d) for d in dims))
        if name == "coef_class":
            out[name] -= out[name].mean(axis=0)
        elif len(dims) == 2:
            out[name][0] = 0.0
    return out


def point_at(built, model, table, parameters):
    """The model's unconstrained point at given parameters."""
    values = without_first_levels(model, {n: parameters[n] for n in model.owners})
    weight = "baseline_weight" if model.covariates else "class_weight"
    values[weight] = parameters[weight]
    values |= raw_coefficients(model, row_layout(model, table), parameters)
    point = built.initial_point()
    for rv in built.free_RVs:
        transform = built.rvs_to_transforms[rv]
        value = np.asarray(values[rv.name], dtype=float)
        if transform is not None:
            value = transform.forward(value, *rv.owner.inputs).eval(mode="FAST_COMPILE")
        point[built.rvs_to_values[rv].name] = np.asarray(value, dtype=float)
    return point


def log_p(built, point):
    return float(built.compile_logp(vars=built.observed_RVs, mode="FAST_COMPILE", sum=True)(point))


@pytest.mark.parametrize(
    ("name", "covariates"), [("proxies", ()), ("levels and numbers", ()), ("levels and numbers", ("age",))]
)
def test_log_density_equals_the_numpy_one(tools, rng, name, covariates):
    model, table = rows_of(tools, make(name, covariates), rng)
    parameters = parameters_of(tools, model, rng)
    built = build_model(model, table)
    columns = {n: table[n].values for n in model.variables}
    by_row = special.logsumexp(log_joint_given(model, parameters, columns, centred_covariates(table)), axis=0)
    found = log_p(built, point_at(built, model, table, parameters))
    assert found == pytest.approx(float(table["count"].values @ by_row), rel=1e-10)


def test_log_density_and_gradient_of_a_sum_written_out(tools, rng):
    """Normal x -> y and three levels z -> t, class by class with SciPy's densities."""
    variables = {"z": C3, "x": N, "t": {**B, "linear_parents": ["z"]}, "y": {**N, "linear_parents": ["x"]}}
    model, table = rows_of(tools, CausalModel(classes=2, variables=variables, **ROLES), rng)
    par = parameters_of(tools, model, rng)
    built = build_model(model, table)
    z, x, t, y = (table[n].values for n in "zxty")
    total = np.zeros((2, len(x)))
    for u in range(2):
        odds = special.logit(par["p_t"][u, 1]) + par["coef_t"][0] * (z == 1) + par["coef_t"][1] * (z == 2)
        mean = par["mean_y"][u][t] + par["coef_y"][0] * (x - np.average(x, weights=table["count"].values))
        total[u] = np.log(par["class_weight"][u]) + np.log(par["p_z"][u][z])
        total[u] += stats.norm(par["mean_x"][u], par["sd_x"][u]).logpdf(x)
        total[u] += stats.bernoulli(special.expit(odds)).logpmf(t) + stats.norm(mean, par["sd_y"][u]).logpdf(
            y
        )
    point = point_at(built, model, table, par)
    assert log_p(built, point) == pytest.approx(
        float(table["count"].values @ special.logsumexp(total, axis=0)), rel=1e-10
    )
    function = built.logp_dlogp_function(ravel_inputs=True, mode="FAST_COMPILE")
    function.set_extra_values({})
    flat = np.concatenate([np.ravel(point[v.name]) for v in built.continuous_value_vars])
    along, step = np.random.default_rng(0).normal(size=flat.shape), 1e-5
    numeric = (function(flat + step * along)[0] - function(flat - step * along)[0]) / (2 * step)
    assert float(function(flat)[1] @ along) == pytest.approx(float(numeric), rel=1e-6)


def test_rows_are_drawn_whole(tools, rng):
    model, table = rows_of(tools, make("levels and numbers"), rng)
    built = build_model(model, table)
    with built:
        drawn = pm.sample_prior_predictive(20, random_seed=1, compile_kwargs={"mode": "FAST_COMPILE"})
    rows = drawn["prior_predictive"]["rows"].values[0]
    assert rows.shape == (20, table.sizes["pattern"], 5)
    assert np.isfinite(rows).all()
    assert drawn["prior"]["coef_y"].dims[-1] == "y_term"


STATED = {
    "class_weight": [0.55, 0.45],
    "z": {"p": [0.15, 0.85]},
    "w": {"mean": [-1.2, 1.2], "sd": [1.0, 1.0]},
    "x": {"mean": [-1.0, 1.0], "sd": [1.0, 1.0]},
    "t": {"p": [[0.2, 0.4], [0.6, 0.8]], "coef": [1.0]},
    "y": {"mean": [[0.0, 1.0], [0.5, 2.5]], "sd": [1.0, 1.0], "coef": [1.2]},
}
ATE = 0.55 * 1.0 + 0.45 * 2.0


def with_edge(edge=True, truth=None):
    """A measured number x that tells the class, and causes both treatment and outcome."""
    number = {**N, "centre": 0.0}
    variables = {
        "z": B,
        "w": number,
        "x": number,
        "t": {**B, "parents": ["z"], "linear_parents": ["x"]},
        "y": {**N, "linear_parents": ["x"] if edge else []},
    }
    roles = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["w"]}
    return CausalModel(classes=2, variables=variables, truth=truth, **roles)


def test_climb_finds_the_coefficients_and_leaving_an_edge_out_costs_the_average_effect():
    model = with_edge(truth=STATED)
    model, table = resolve(model, simulate(model, 4_000, rng=3))
    found = row_modes(model, table, None, 0).at(0)
    assert "baseline_weight" not in found
    for name, value in model.true_parameters().items():
        np.testing.assert_allclose(found[name], value, atol=10 / np.sqrt(4_000), err_msg=name)
    with_it = functionals_given(model, found, None, np.ones(1))["ate"]
    plain, table = resolve(with_edge(edge=False), simulate(with_edge(truth=STATED), 4_000, rng=3))
    without = functionals_given(plain, row_modes(plain, table, None, 0).at(0), None, np.ones(1))["ate"]
    assert abs(with_it - ATE) < 0.15
    assert without - ATE > 0.5


@pytest.mark.parametrize("options", [{"family": "poisson"}, C3])
def test_climbs_start_chains_of_other_families(tools, rng, options):
    variables = {
        "z": B,
        "x": N,
        "t": {**B, "linear_parents": ["x"]},
        "y": {**options, "linear_parents": ["x"]},
    }
    model, table = rows_of(tools, CausalModel(classes=2, variables=variables), rng, n=80)
    found = row_modes(model, table, None, 0).at(0)
    assert all(np.isfinite(value).all() for value in found.values())


def test_missing_values_of_a_linear_parent_are_refused_and_those_of_its_child_summed_out(rng):
    model = with_edge().with_fields(data=DataSource(missing="sum"))
    frame = {k: v.values for k, v in simulate(with_edge(truth=STATED), 40, rng=1).items()}
    with pytest.raises(DataError, match="'x', a parent of 't'"):
        tabulate(frame | {"x": np.where(np.arange(40) < 3, np.nan, frame["x"])}, model)
    gaps = frame | {"y": np.where(np.arange(40) < 3, np.nan, frame["y"])}
    model, table = resolve(model, gaps)
    par = with_edge(truth=STATED).true_parameters()
    built = build_model(model, table)
    columns = {n: table[n].values for n in model.variables}
    wanted = special.logsumexp(log_joint_given(model, par, columns, None), axis=0).sum()
    assert log_p(built, point_at(built, model, table, par)) == pytest.approx(float(wanted), rel=1e-10)


TABLES_ONLY = {
    "polished": lambda model, rows: estimate(model, rows, method="polished"),
    "choose_classes": choose_classes,
    "ladder": ladder,
    "bivariate_residuals": bivariate_residuals,
    "sensitivity": lambda model, rows: sensitivity(model, rows, edge=("z", "y")),
    "plan": lambda model, rows: plan(model),
    "without proxies": lambda model, rows: estimate(
        model.with_fields(treatment_proxies=(), outcome_proxies=()), rows
    ),
    "one class": lambda model, rows: estimate(model.with_fields(classes=1), rows),
}


@pytest.mark.parametrize("name", TABLES_ONLY)
def test_what_reads_tables_alone_is_refused(name):
    with pytest.raises(RefusedError, match="takes no linear parents yet"):
        TABLES_ONLY[name](with_edge(), simulate(with_edge(truth=STATED), 100, rng=1))


def test_moments_that_read_proxies_alone_go_on():
    """An edge x -> y that is a proxy's own costs the classes, not the average; more paths cost that too."""
    variables = {**with_edge().variables, "t": {**B, "parents": ["z"]}}
    roles = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["w", "x"]}
    model = CausalModel(classes=2, variables=variables, **roles)
    rows = simulate(with_edge(truth=STATED), 300, rng=1)
    assert estimate(model, rows, n_boot=0).attrs["method"] == "bridge"
    with pytest.raises(RefusedError, match="the graph reaches nothing"):
        estimate(with_edge(), rows)


def test_options_that_collapse_rows_are_refused():
    rows = simulate(with_edge(truth=STATED), 50, rng=1)
    with pytest.raises(ModelError, match="grid: with covariates, linear parents"):
        build_model(with_edge(), rows, grid=0.5)
    with pytest.raises(ModelError, match="measurement_first: it takes no grid"):
        sample(with_edge(), rows, measurement_first=True, progressbar=False)
    with pytest.raises(ModelError, match="no such parameter"):
        build_model(with_edge(), rows, priors={"coef_z": 1.0})


@pytest.mark.slow
def test_the_posterior_with_the_edge_holds_the_average_effect():
    """1,500 rows: the truth within 3 posterior SDs, the coefficients within 0.2."""
    rows = simulate(with_edge(truth=STATED), 1_500, rng=7)
    post = sample(with_edge(), rows, draws=250, tune=250, chains=2, progressbar=False)
    ate = post["posterior"]["ate"]
    assert abs(float(ate.mean()) - ATE) < 3 * float(ate.std())
    assert float(post["posterior"]["coef_y"].mean()) == pytest.approx(1.2, abs=0.2)
    assert float(post["posterior"]["coef_t"].mean()) == pytest.approx(1.0, abs=0.3)
    flags = post["identification"].to_dataset()
    assert dict(zip(flags["functional"].values, flags["identified"].values, strict=True))["effect"] == 1
    assert post["posterior_predictive"]["rows"].sizes["row"] == len(rows["y"])
    with pytest.raises(RefusedError, match="takes no linear parents yet"):
        plot_classes(post)
    everybody = predict(post, {"z": [np.nan]})["unit_effect"].isel(row=0)
    np.testing.assert_allclose(everybody.mean(), ate.mean(), rtol=0.02)  # 400 of 500 draws
    np.testing.assert_allclose(do(post, {"t": 1})["mean"] - do(post, {"t": 0})["mean"], ate, atol=1e-9)


@pytest.mark.parametrize("covariates", [(), ("age",)])
def test_points_of_the_row_density_turn_back(tools, rng, covariates):
    """Modes are weighed at these points: parameters to points and back, every variable by its own matrix."""
    model, table = rows_of(tools, make("levels and numbers", covariates), rng)
    par = {n: v[None] for n, v in parameters_of(tools, model, rng).items()}
    density = RowDensity(model, build_model(model, table))
    back = density.from_flat(density.to_flat(par))
    for name in model.posterior_dims:
        np.testing.assert_allclose(back[name], par[name], atol=1e-8, err_msg=name)
