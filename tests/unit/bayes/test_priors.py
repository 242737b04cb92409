"""Priors that cannot be: told by name before anything is built, compiled or computed."""

import sys

import numpy as np
import pymc as pm
import pytest

from pymc_mte import CausalModel, ModelError, add_to_model, fit
from pymc_mte.bayes.priors import merge_priors

B = {"family": "bernoulli"}
MODEL = CausalModel(
    classes=2,
    variables={
        "z": B,
        "x": {"family": "gamma"},
        "w": {"family": "normal", "centre": 0.0},
        "t": {**B, "parents": ["z"]},
        "y": {"family": "student_t", "linear_parents": ["w"]},
    },
    treatment="t",
    outcome="y",
    treatment_proxies=["z"],
    outcome_proxies=["x"],
)

CANNOT_BE = [
    (
        {"sd_y": {"dist": "halfnormal", "sigma": -1}},
        "prior of sd_y: sigma of halfnormal must be positive, got -1",
    ),
    (
        {"mean_y": {"dist": "normal", "mu": 0, "sigma": 0}},
        "prior of mean_y: sigma of normal must be positive",
    ),
    (
        {"mean_y": {"dist": "normal", "mu": np.inf, "sigma": 1}},
        "prior of mean_y: mu of normal must be a finite",
    ),
    ({"mean_y": {"dist": "normal", "mu": "a", "sigma": 1}}, "mu of normal must be a finite number, got 'a'"),
    ({"mean_w": {"dist": "normal", "mu": 0, "sigma": [1.0, -1.0]}}, "prior of mean_w: sigma .* positive"),
    ({"nu_y": {"dist": "gamma", "alpha": 2, "beta": -0.1}}, "prior of nu_y: beta of gamma must be positive"),
    ({"mean_x": {"dist": "gamma", "mu": -1, "sigma": 1}}, "prior of mean_x: mu of gamma must be positive"),
    ({"sd_y": {"dist": "exponential", "lam": 0}}, "prior of sd_y: lam of exponential must be positive"),
    ({"sd_y": {"dist": "normal", "mu": 1, "sigma": 1}}, "prior of sd_y: it is always positive"),
    ({"mean_y": {"dist": "uniform"}}, "prior of mean_y: .*dist among"),
    ({"mean_y": 2.0}, "prior of mean_y: give a table"),
    ({"p_z": -1.0}, "prior of p_z: give a positive concentration"),
    ({"p_z": np.inf}, "prior of p_z: give a positive concentration"),
    ({"class_weight": [1.0, 0.0]}, "prior of class_weight: give a positive concentration"),
    ({"coef_y": -2.0}, "prior of coef_y: give a positive number"),
    ({"coef_y": np.inf}, "prior of coef_y: give a positive number"),
    ({"coef_y": True}, "prior of coef_y: give a positive number"),
    ({"mean_y": {"dist": "normal", "kwargs": 3}}, r"normal has no \['kwargs'\]; it takes .*'tau'\]"),
    (
        {"mean_q": 1.0},
        r"priors.mean_q: no such parameter; choose one of \['class_weight', 'coef_y', 'mean_w'.*"
        "; with a group also group_effect",
    ),
    (
        {"p_t": lambda name: 1},
        r"prior of p_t: f\(name, dims\) must .* of shape \(2, 2\) \(class, z\), got \(name\) \(too many",
    ),
]


@pytest.mark.parametrize(("priors", "said"), CANNOT_BE)
def test_priors_that_cannot_be_are_told_before_anything_is_built(priors, said):
    with pytest.raises(ModelError, match=said):
        merge_priors(MODEL, priors)


def test_priors_that_are_no_mapping_are_told():
    with pytest.raises(ModelError, match=r"priors by parameter are wanted, .* got \['sd_y'\]"):
        merge_priors(MODEL, ["sd_y"])


def test_the_model_files_priors_are_checked_too():
    model = MODEL.with_fields(priors={"y": {"sd": {"dist": "halfnormal", "sigma": -1}}})
    with pytest.raises(ModelError, match="prior of sd_y: sigma"):
        merge_priors(model, None)


def test_priors_that_can_be_pass():
    own = {
        "sd_y": {"dist": "lognormal", "mu": -3, "sigma": 2},
        "mean_y": {"dist": "student_t", "nu": 4, "mu": [[0.0, 1.0], [2.0, 3.0]], "sigma": 2},
        "mean_w": lambda name, dims: pm.Normal(name, dims=dims),
        "p_x": {"pooled": 0.5},
        "mean_x": {"dist": "gamma", "mu": 1.0, "sigma": 2.0},
        "coef_y": np.int64(1),
        "class_weight": [1.0, 2.0],
        "nu_y": {"dist": "exponential", "scale": pm.Exponential.dist(1.0)},
    }
    own["p_z"] = own.pop("p_x")
    assert merge_priors(MODEL, own) == own


def of_shape(*shape):
    return lambda name, dims: pm.Beta(name, 2, 2, shape=shape)


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        (lambda name, dims: 3, r"got one of shape \(\)"),
        (lambda name, dims: None, "got NoneType"),
        (lambda name, dims: "beta", "got str"),
        (lambda name, dims: np.full(4, 0.5), r"got one of shape \(4,\)"),
        (lambda name, dims: pm.Beta(name, 2, 2, dims="site"), r"got one of shape \(3,\)"),
        (of_shape(2, 2), r"got one of shape \(2, 2\)"),
    ],
)
def test_functions_that_give_something_else_are_told(level3, prior, said):
    wanted = r"prior of p_z: f\(name, dims\) must return a random variable .* of shape \(2,\) \(class\), "
    rows = {name: [0, 1, 1, 0] for name in level3.variables}
    with pm.Model(coords={"site": range(3)}), pytest.raises(ModelError, match=wanted + said):
        add_to_model(level3, rows, priors={"p_z": prior})


@pytest.mark.parametrize(
    "prior",
    [lambda name, dims: pm.Beta(name, 2, 2, dims=dims), lambda *_: [0.3, 0.7], of_shape(2)],
    ids=["named axes", "numbers", "a shape"],
)
def test_functions_may_give_variables_and_numbers(level3, prior):
    rows = {name: [0, 1, 1, 0] for name in level3.variables}
    with pm.Model() as own:
        add_to_model(level3, rows, priors={"p_z": prior})
    assert "p_x" in own.named_vars


def test_fit_tells_before_it_computes(monkeypatch):
    def never(*_, **__):
        raise AssertionError("computed before the priors were checked")

    monkeypatch.setattr(sys.modules["pymc_mte.fit"], "identify", never)
    rows = {name: [0, 1, 1, 0] for name in "zt"} | {name: [1.0, 2.0, 3.0, 1.5] for name in "xwy"}
    with pytest.raises(ModelError, match="prior of sd_y: sigma of halfnormal must be positive"):
        fit(MODEL, rows, priors={"sd_y": {"dist": "halfnormal", "sigma": -1}})
