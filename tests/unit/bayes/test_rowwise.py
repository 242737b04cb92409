"""The row-wise log-density of the PyMC model, against the loops of the NumPy tests."""

import itertools

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import special

from pymc_mte import CausalModel, DataError, DataSource, ModelError, build_model, tabulate
from pymc_mte.bayes.coefficients import raw_coefficients, repeated_terms
from pymc_mte.bayes.gradient import Density, compile_maps
from pymc_mte.bayes.priors import prior_record
from pymc_mte.bayes.rowlayout import orthogonalise, row_layout
from pymc_mte.bayes.rowmodes import row_modes
from pymc_mte.bayes.rowwise import log_add_exp
from pymc_mte.bayes.start import without_first_levels
from pymc_mte.data import resolve
from pymc_mte.moments.em import em, random_starts
from pymc_mte.regression import centred_covariates, draw_given, log_joint_given
from pymc_mte.status import Status

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal"}

MODELS = {
    "normal outcome": {"z": C3, "x": N, "t": {**B, "parents": ["z"]}, "y": {**N, "parents": ["t"]}},
    "bernoulli outcome": {"z": B, "x": B, "t": {**B, "parents": ["z"]}, "y": {**B, "parents": ["x", "t"]}},
    "three arms": {
        "z": {"family": "categorical", "levels": list(range(40))},
        "x": {**N, "parents": ["z"]},
        "t": {**C3, "parents": ["z"]},
        "y": {"family": "student_t"},
    },
    "binomial outcome": {
        "z": B,
        "x": {**N, "latent": False},
        "t": B,
        "y": {"family": "binomial", "trials": 3},
    },
    "nothing latent": {
        "z": {**B, "latent": False},
        "x": {**C3, "latent": False},
        "t": {**B, "latent": False},
        "y": {**B, "latent": False},
    },
}


def make(name, classes=2, covariates=("age", "sex"), missing="error"):
    levels = {"sex": ["f", "m", "x"]} if "sex" in covariates else {}
    return CausalModel(
        classes=classes,
        variables=MODELS[name],
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        covariates=covariates,
        covariate_levels=levels,
        data=DataSource(missing=missing),
    )


def parameters_of(tools, model, rng):
    out = tools.random_truth(model, rng)
    if model.covariates:
        out["baseline_weight"] = out["class_weight"]
    for name, dims in model.coefficient_dims.items():
        out[name] = rng.normal(0, 0.7, tuple(model.size(d) for d in dims))
        if name == "coef_class":
            out[name] -= out[name].mean(axis=0)
        elif len(dims) == 2:
            out[name][0] = 0.0
    return out


def frame_of(model, tools, rng, n=40):
    """Rows with covariates; some repeated."""
    frame = {}
    if model.covariates:
        frame = {"age": rng.normal(50, 9, n), "sex": rng.choice(["f", "m", "x"], n)}
    plain = make_plain(model)
    _, columns = draw_given(plain, tools.random_truth(plain, rng), None, n, rng)
    for name, var in model.variables.items():
        frame[name] = np.asarray(var.labels)[columns[name]] if var.discrete else columns[name]
    return {name: np.concatenate([v, v[:2]]) for name, v in frame.items()}


def make_plain(model):
    return CausalModel(classes=model.classes, variables=dict(model.variables))


def compiled(built):
    return built.compile_logp(vars=built.observed_RVs, mode="FAST_COMPILE", sum=True)


def point_at(built, model, table, parameters):
    """The model's unconstrained point at given parameters."""
    values = without_first_levels(model, {n: parameters[n] for n in model.owners})
    if model.covariates:
        values["baseline_weight"] = parameters["baseline_weight"]
        values |= raw_coefficients(model, row_layout(model, table), parameters)
    else:
        values["class_weight"] = parameters["class_weight"]
    point = built.initial_point()
    for rv in built.free_RVs:
        transform = built.rvs_to_transforms[rv]
        value = np.asarray(values[rv.name], dtype=float)
        if transform is not None:
            value = transform.forward(value, *rv.owner.inputs).eval()
        point[built.rvs_to_values[rv].name] = np.asarray(value, dtype=float)
    return point


def wanted(model, table, parameters):
    """Sum over rows of the log of the sum over classes, by the NumPy density tested on its own."""
    columns = {n: table[n].values for n in model.variables}
    log_p = log_joint_given(model, parameters, columns, centred_covariates(table))
    return float(table["count"].values @ special.logsumexp(log_p, axis=0))


def check_gradient(built, point):
    """Gradient along a random direction against a central difference."""
    function = built.logp_dlogp_function(ravel_inputs=True, mode="FAST_COMPILE")
    function.set_extra_values({})
    flat = np.concatenate([np.ravel(point[v.name]) for v in built.continuous_value_vars])
    rng = np.random.default_rng(0)
    direction = rng.normal(size=flat.shape)
    _, gradient = function(flat)
    step = 1e-5
    numeric = (function(flat + step * direction)[0] - function(flat - step * direction)[0]) / (2 * step)
    assert float(gradient @ direction) == pytest.approx(float(numeric), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "classes"), [(n, 2) for n in MODELS] + [("normal outcome", 1), ("three arms", 3)]
)
def test_log_density_with_covariates(tools, rng, name, classes):
    model = make(name, classes)
    table = tabulate(frame_of(model, tools, rng), model)
    built = build_model(model, table)
    parameters = parameters_of(tools, model, rng)
    point = point_at(built, model, table, parameters)
    assert float(compiled(built)(point)) == pytest.approx(wanted(model, table, parameters), rel=1e-10)


def test_gradient(tools, rng):
    model = make("bernoulli outcome")
    table = tabulate(frame_of(model, tools, rng), model)
    built = build_model(model, table)
    check_gradient(built, point_at(built, model, table, parameters_of(tools, model, rng)))


def holes(frame, rng, names):
    """The rows with a fifth of the values of some columns missing."""
    out = {name: np.asarray(v, dtype=object) for name, v in frame.items()}
    for name in names:
        out[name] = np.where(rng.random(len(out[name])) < 0.2, None, out[name])
    return out


def summed_out(model, table, parameters):
    """Log-likelihood with missing levels summed over one by one; missing numbers integrate to 1."""
    total = 0.0
    for r in range(table.sizes["pattern"]):
        row = {n: table[n].values[r : r + 1] for n in model.variables}
        gaps = [n for n in model.variables if model.variables[n].discrete and row[n][0] < 0]
        c = centred_covariates(table)
        c = None if c is None else c[r : r + 1]
        log_p = []
        for levels in np.ndindex(*(model.size(n) for n in gaps)):
            filled = row | {n: np.array([level]) for n, level in zip(gaps, levels, strict=True)}
            log_p.append(special.logsumexp(log_joint_given(model, parameters, filled, c)))
        total += float(table["count"][r]) * special.logsumexp(log_p)
    return total


@pytest.mark.parametrize("covariates", [(), ("age",)])
@pytest.mark.parametrize("name", ["normal outcome", "bernoulli outcome"])
def test_missing_values_are_summed_out(tools, rng, name, covariates):
    model = make(name, covariates=covariates, missing="sum")
    missing = [n for n in model.variables if not list(model.graph.successors(n))]
    table = tabulate(holes(frame_of(model, tools, rng), rng, missing), model)
    assert "MISSING_SUMMED" in table.attrs["notes"]
    built = build_model(model, table)
    parameters = parameters_of(tools, model, rng)
    point = point_at(built, model, table, parameters)
    assert float(compiled(built)(point)) == pytest.approx(summed_out(model, table, parameters), rel=1e-10)


def test_other_rows_under_the_same_priors(tools, rng):
    """The scale of the priors stays while rows of another scale are put in: their likelihood is their own."""
    model = make("normal outcome")
    old = build_model(model, tabulate(frame_of(model, tools, rng), model))
    frame = frame_of(model, tools, rng, 30)
    table = tabulate(frame | {"x": 3 * frame["x"] + 7}, model)
    new = build_model(model, table)
    kept = {v.name: v.get_value() for v in new.data_vars if not v.name.startswith("pooled_")}
    pm.set_data(kept, model=old)
    parameters = parameters_of(tools, model, rng)
    point = point_at(old, model, table, parameters)
    assert float(compiled(old)(point)) == pytest.approx(float(compiled(new)(point)), rel=1e-12)


def test_values_that_use_data_follow_other_data(tools, rng):
    """Coefficients and class weights of other rows, by the maps compiled with the first ones."""
    model = make("normal outcome")
    built = [build_model(model, tabulate(frame_of(model, tools, rng, n), model)) for n in (40, 25, 30)]
    point = dict(
        zip([v.name for v in built[0].free_RVs], pm.draw(built[0].free_RVs, random_seed=1), strict=True)
    )
    density = Density(function=None, keys=(), data=(), maps=compile_maps(built[0], point))
    x = rng.normal(size=(2, density.maps.size))
    for other in built[1:]:  # one after the other
        density = density.with_data(other)
        wanted = compile_maps(other, point).constrain(x)
        for name, value in density.maps.constrain(x).items():
            np.testing.assert_allclose(value, wanted[name], rtol=1e-12, err_msg=name)


def test_missing_parents_are_refused(tools, rng):
    model = make("normal outcome", covariates=(), missing="sum")
    frame = frame_of(model, tools, rng)
    with pytest.raises(DataError, match="missing values in 'z', a parent of 't'"):
        tabulate(holes(frame, rng, ["z"]), model)
    model = make("normal outcome", missing="sum")
    frame = frame_of(model, tools, rng)
    with pytest.raises(DataError, match="'age', which is conditioned on"):
        tabulate(frame | {"age": np.where(frame["age"] > 50, np.nan, frame["age"])}, model)


def test_sampling_weights_are_powers_scaled_to_the_effective_number_of_rows(tools, rng):
    model = make("normal outcome", covariates=())
    frame = frame_of(model, tools, rng)
    weight = rng.uniform(0.5, 4.0, len(frame["z"]))
    table = tabulate(frame | {"w": weight}, model, weight="w")
    built = build_model(model, table)
    parameters = parameters_of(tools, model, rng)
    columns = {n: table[n].values for n in model.variables}
    each = special.logsumexp(log_joint_given(model, parameters, columns, None), axis=0)
    own = table["sampling_weight"].values * table["count"].values
    effective = weight.sum() ** 2 / (weight**2).sum()
    wanted_value = effective * (own @ each) / own.sum()
    point = point_at(built, model, table, parameters)
    assert float(compiled(built)(point)) == pytest.approx(wanted_value, rel=1e-10)


def test_directions_are_uncorrelated_and_turn_back(rng):
    raw = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 3)) * [1.0, 50.0, 0.01]
    raw = np.column_stack([raw, raw[:, 0] - raw[:, 1], np.zeros(60)])
    share = rng.dirichlet(np.ones(60))
    centred = raw - share @ raw
    found = orthogonalise(centred, share)
    assert found.values.shape == (60, 3)  # a collinear and a constant column add nothing
    np.testing.assert_allclose(found.values.T @ (share[:, None] * found.values), np.eye(3), atol=1e-10)
    coef = rng.normal(size=5)
    linear = found.values @ (found.from_covariates @ coef)
    np.testing.assert_allclose(linear, centred @ coef, atol=1e-9)
    along = rng.normal(size=3)
    np.testing.assert_allclose(found.values @ along, centred @ (found.to_covariates @ along), atol=1e-9)


def test_sums_over_classes_take_zeros_ties_and_any_order(rng):
    value = pt.matrix("value")
    total = log_add_exp(value, 3)
    both = pytensor.function([value], [total, pytensor.grad(total.sum(), value)])
    at = np.array([[0.0, -np.inf, 2.0, -np.inf], [0.0, 1.0, -np.inf, -np.inf], [0.0, -700.0, 3.0, 1.0]])
    for order in itertools.permutations(range(3)):
        found, slope = both(at[list(order)])
        np.testing.assert_allclose(found, special.logsumexp(at, axis=0), rtol=1e-15)
        np.testing.assert_allclose(slope, special.softmax(at[list(order)], axis=0), atol=1e-15)


def test_columns_that_repeat_each_other_are_told(rng):
    n = 80
    frame = {"z": rng.integers(2, size=n), "t": rng.integers(2, size=n), "y": rng.normal(size=n)}
    frame |= {"age": rng.normal(50.0, 9.0, n), "sex": rng.integers(2, size=n), "same": np.ones(n)}
    frame |= {"months": 12 * frame["age"] - 3, "own": rng.normal(size=n)}
    variables = {"z": B, "t": B, "y": {**N, "linear_parents": ["z"]}}
    given = {"treatment": "t", "outcome": "y", "covariates": ["age", "sex", "months", "own", "same"]}
    model = CausalModel(classes=2, variables=variables, **given)
    model, table = resolve(model, frame)
    notes = repeated_terms(model, build_model(model, table))
    assert [(note.status, note.where) for note in notes] == [(Status.REPEATED_TERMS, "age, months")]
    model = model.with_fields(covariates=("age", "sex", "own", "same"))
    model, table = resolve(model, frame)
    assert repeated_terms(model, build_model(model, table)) == []


def test_prior_of_the_linear_part(tools, rng):
    """Its standard deviation over rows is 2.5, whatever the covariates: relative error 3% of 4,000 draws."""
    model = make("normal outcome")
    table = tabulate(frame_of(model, tools, rng, 200), model)
    built = build_model(model, table, priors={"coef_t": 1.0})
    record = prior_record(model, {"coef_t": 1.0})
    assert record["coef_t"] == 1.0
    assert record["coef_y"] == "Normal, joint contribution of SD 2.5"
    names = ["coef_class", "coef_t", "coef_y"]
    drawn = dict(
        zip(names, pm.draw([built[n] for n in names], 4_000, random_seed=1, mode="FAST_COMPILE"), strict=True)
    )
    c, share = centred_covariates(table), table["count"].values / table["count"].values.sum()
    odds = (drawn["coef_class"][:, 1] - drawn["coef_class"][:, 0]) @ c.T
    assert np.sqrt((odds**2).mean(axis=0) @ share) == pytest.approx(2.5, rel=0.06)
    assert np.sqrt(((drawn["coef_t"] @ c.T) ** 2).mean(axis=0) @ share) == pytest.approx(1.0, rel=0.06)
    y = table["y"].values
    sd = np.sqrt(share @ (y - share @ y) ** 2)
    assert np.sqrt(((drawn["coef_y"] @ c.T) ** 2).mean(axis=0) @ share) == pytest.approx(2.5 * sd, rel=0.06)
    with pytest.raises(ModelError, match="prior of coef_t: give a positive number"):
        build_model(model, table, priors={"coef_t": -1.0})


def test_draws_of_the_observed_rows(tools, rng):
    """Prior predictive rows are whole rows: shape, levels and the share of treated among 400 data sets."""
    model = make("normal outcome")
    table = tabulate(frame_of(model, tools, rng), model)
    built = build_model(model, table)
    with built:
        drawn = pm.sample_prior_predictive(50, random_seed=1, compile_kwargs={"mode": "FAST_COMPILE"})
    rows = drawn["prior_predictive"]["rows"].values[0]
    assert rows.shape == (50, table.sizes["pattern"], 4)
    assert set(np.unique(rows[:, :, 2])) == {0.0, 1.0}
    assert np.isfinite(rows).all()


def test_climb_with_covariates_finds_them(tools, rng):
    """EM at 4,000 rows: coefficients within 5 rough standard errors (2 / sqrt(n)) of the truth, scaled."""
    model = make("normal outcome", covariates=("age",))
    n = 4_000
    par = {
        "baseline_weight": np.array([0.45, 0.55]),
        "p_z": np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]),
        "mean_x": np.array([-1.0, 1.0]),
        "sd_x": np.array([0.6, 0.6]),
        "p_t": np.array([[[0.7, 0.3], [0.5, 0.5], [0.3, 0.7]]] * 2),
        "mean_y": np.array([[0.0, -1.0], [1.0, 3.0]]),
        "sd_y": np.array([1.0, 0.7]),
        "coef_class": np.array([[0.4], [-0.4]]),
        "coef_t": np.array([0.5]),
        "coef_y": np.array([1.0]),
    }
    age = rng.normal(size=(n, 1))
    _, columns = draw_given(model, par, age - age.mean(), n, rng)
    frame = {**columns, "z": np.array(["a", "b", "c"])[columns["z"]], "age": age[:, 0]}
    model, table = resolve(model, frame)
    found = row_modes(model, table, None, 0).at(0)
    for name in ("coef_t", "coef_y", "coef_class", "mean_y", "baseline_weight"):
        np.testing.assert_allclose(found[name], par[name], atol=10 / np.sqrt(n), err_msg=name)


def test_em_uses_what_was_seen(tools, rng):
    """One class: the share of a level is that among the rows that have one."""
    model = CausalModel(
        classes=1, variables={"a": B, "b": {**N, "parents": ["a"]}}, data=DataSource(missing="sum")
    )
    frame = {"a": rng.integers(0, 2, 50), "b": np.where(rng.random(50) < 0.3, np.nan, rng.normal(size=50))}
    table = tabulate(frame, model)
    columns = {n: table[n].values for n in model.variables}
    counts = table["count"].values.astype(float)[None]
    found = em(model, columns, counts, random_starts(model, columns, counts, rng))
    for level in (0, 1):
        seen = frame["b"][(frame["a"] == level) & ~np.isnan(frame["b"])]
        assert found.parameters["mean_b"][0, 0, level] == pytest.approx(seen.mean())
