"""The row-wise log-density of the PyMC model, against the loops of the NumPy tests."""

import numpy as np
import pytest
from scipy import special

from pymc_mte import CausalModel, DataSource, build_model, tabulate
from pymc_mte.bayes.coefficients import raw_coefficients
from pymc_mte.bayes.rowlayout import row_layout
from pymc_mte.bayes.start import without_first_levels
from pymc_mte.regression import centred_covariates, draw_given, log_joint_given

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
