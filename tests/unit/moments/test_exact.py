"""Exact population tables in, exact truth out: no randomness in the claim."""

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from pymc_mte import CausalModel, estimate, population, truth

ANSWERS = ("class_weight", "effect", "potential_outcome", "ate", "att")

sizes = st.integers(2, 4).flatmap(
    lambda k: st.tuples(st.just(k), st.integers(k, k + 2), st.integers(k, k + 2))
)
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("method", ["pencil", "prony", "spectral"])
@given(size=sizes, seed=seeds)
@settings(max_examples=60)
def test_mixture_is_exact_on_level_3(tools, method, size, seed):
    model = tools.draw_level3(seed, *size)
    assume(model is not None)
    answer = estimate(model, population(model), method=method, n_boot=0)["estimate"]
    wanted = truth(model)
    for name in ANSWERS:
        np.testing.assert_allclose(answer[name].values, wanted[name].values, rtol=0, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("x_to_y", [False, True])
@given(size=sizes, seed=seeds)
def test_bridge_is_exact_on_levels_3_and_4(tools, x_to_y, size, seed):
    model = tools.draw_level3(seed, *size, x_to_y=x_to_y)
    assume(model is not None)
    answer = estimate(model, population(model), method="bridge", n_boot=0)["estimate"]
    wanted = truth(model)
    for name in ("ate", "att", "arm_mean"):
        np.testing.assert_allclose(answer[name].values, wanted[name].values, rtol=0, atol=1e-8, err_msg=name)


@given(size=sizes, seed=seeds)
@settings(max_examples=10)
def test_order_of_classes_and_levels_does_not_matter(tools, size, seed):
    model = tools.draw_level3(seed, *size)
    assume(model is not None)
    back = tools.with_truth(model, {n: v[::-1] for n, v in model.true_parameters().items()})
    one = estimate(model, population(model), method="spectral", n_boot=0)["estimate"]
    other = estimate(back, population(back), method="spectral", n_boot=0)["estimate"]
    for name in ANSWERS:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-8)
    assert (np.diff(one["effect"]) > 0).all()


@given(seed=seeds)
@settings(max_examples=8)
def test_polished_stays_at_the_truth(tools, seed):
    model = tools.draw_level3(seed, 2, 2, 3)
    assume(model is not None)
    answer = estimate(model, population(model), method="polished", n_boot=0)["estimate"]
    wanted = truth(model)
    for name in ANSWERS:  # EM stops at a gain of 1e-10 per row, so this far and no further
        np.testing.assert_allclose(answer[name], wanted[name], rtol=0, atol=2e-2, err_msg=name)


def three_arms() -> CausalModel:
    return CausalModel(
        classes=2,
        variables={
            "z": {"family": "bernoulli"},
            "x": {"family": "bernoulli"},
            "t": {"family": "categorical", "levels": ["a", "b", "c"], "parents": ["z"]},
            "y": {"family": "bernoulli", "parents": ["t"]},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        reference="b",
        truth={
            "class_weight": [0.4, 0.6],
            "z": {"p": [0.2, 0.8]},
            "x": {"p": [0.3, 0.7]},
            "t": {"p": [[[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], [[0.3, 0.3, 0.4], [0.3, 0.5, 0.2]]]},
            "y": {"p": [[0.1, 0.3, 0.9], [0.7, 0.2, 0.3]]},
        },
    )


@pytest.mark.parametrize("method", ["pencil", "spectral", "bridge"])
def test_three_arms_with_another_reference(method):
    model = three_arms()
    answer = estimate(model, population(model), method=method, n_boot=0)["estimate"]
    wanted = truth(model)
    assert wanted["contrast"].values.tolist() == ["a - b", "c - b"]
    names = ("ate", "att") if method == "bridge" else ANSWERS
    for name in names:
        assert answer[name].dims == wanted[name].dims
        np.testing.assert_allclose(answer[name], wanted[name], rtol=0, atol=1e-8, err_msg=name)


def test_spectral_separates_classes_with_equal_effects():
    """The pencil cannot: its effects coincide. The outcome levels still differ."""
    base = three_arms()
    model = CausalModel(
        **{
            **{n: getattr(base, n) for n in type(base).model_fields},
            "truth": {**base.truth, "y": {"p": [[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]]}},
        }
    )
    answer = estimate(model, population(model), method="spectral", n_boot=0)["estimate"]
    got = np.sort(answer["potential_outcome"].sel(treatment="a").values)
    np.testing.assert_allclose(got, [0.1, 0.5], atol=1e-8)
    np.testing.assert_allclose(answer["effect"], [[-0.1, 0.1], [-0.1, 0.1]], atol=1e-8)


def test_two_proxies_a_side_are_exact(tools, rng):
    """Main effects only: two binary proxies a side give three features for two classes."""
    base = CausalModel(
        classes=2,
        variables={
            "z1": {"family": "bernoulli"},
            "z2": {"family": "bernoulli"},
            "x1": {"family": "bernoulli"},
            "x2": {"family": "bernoulli"},
            "t": {"family": "bernoulli", "parents": ["z1", "z2"]},
            "y": {"family": "bernoulli"},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z1", "z2"],
        outcome_proxies=["x1", "x2"],
    )
    parameters = tools.random_truth(base, rng)
    for name, p in {"z1": (0.2, 0.7), "z2": (0.8, 0.4), "x1": (0.3, 0.7), "x2": (0.25, 0.6)}.items():
        parameters[f"p_{name}"] = np.array([[1 - q, q] for q in p])
    parameters["p_y"] = np.array([[[0.9, 0.1], [0.4, 0.6]], [[0.3, 0.7], [0.7, 0.3]]])
    model = tools.with_truth(base, parameters)
    answer = estimate(model, population(model), method="spectral", n_boot=0)["estimate"]
    for name in ANSWERS:
        np.testing.assert_allclose(answer[name], truth(model)[name], rtol=0, atol=1e-8)
