"""Causal groups, the test of equal effects, and the moments of effects over classes."""

import numpy as np
import pytest

from pymc_mte import CausalModel, estimate, load_model, population, simulate, tabulate
from pymc_mte.moments.groups import causal_groups, equal_effects
from pymc_mte.status import load_notes


@pytest.fixture
def tied():
    """Three classes with effects .1, .1 and .6 (weights .3, .3, .4): two causal groups."""
    model = load_model("gallery:three_classes")
    fields = {n: getattr(model, n) for n in type(model).model_fields}
    truth = {**model.truth, "y": {"p": [[0.2, 0.3], [0.6, 0.7], [0.1, 0.7]]}}
    return CausalModel(**fields | {"truth": truth})


@pytest.mark.parametrize("method", ["spectral", "polished"])
def test_classes_with_one_effect_are_one_causal_group(tied, method):
    point = estimate(tied, population(tied), method=method, n_boot=0)["estimate"].to_dataset()
    np.testing.assert_allclose(np.sort(point["effect"].values), [0.1, 0.1, 0.6], atol=1e-8)
    group, weight = point["causal_groups"].values, point["class_weight"].values
    assert len(set(group)) == 2
    assert [weight[group == g].sum() for g in (0, 1)] == pytest.approx([0.6, 0.4], abs=1e-8)


def test_the_pencil_says_that_it_cannot_separate_equal_effects(tied):
    answer = estimate(tied, population(tied), method="pencil", n_boot=0)
    names = {note.status.name for note in load_notes(answer.attrs["notes"])}
    assert names & {"SINGULAR", "WEIGHT_OUTSIDE", "EFFECT_OUTSIDE", "COMPLEX_ROOTS"}


@pytest.mark.parametrize("name", ["level3", "paper_pair", "three_classes"])
def test_moments_over_classes_are_exact(name):
    model = load_model(f"gallery:{name}")
    answer = estimate(model, population(model), method="spectral", n_boot=0)["estimate"].to_dataset()
    weight = np.array(model.truth["class_weight"])
    outcome = np.array(model.truth["y"]["p"])
    orders = np.arange(1, 2 * model.classes)
    wanted = (weight[:, None, None] * outcome[..., None] ** orders).sum(0)
    np.testing.assert_allclose(answer["synthetic_moment"].values, wanted, atol=1e-10)
    effect = outcome[:, 1] - outcome[:, 0]
    np.testing.assert_allclose(
        answer["effect_moment"].values, (weight[:, None] * effect[:, None] ** orders).sum(0), atol=1e-10
    )
    grid = answer["effect_value"].values
    clear = np.abs(grid[:, None] - effect).min(axis=1) > 1e-6
    below = (weight * (effect <= grid[:, None])).sum(axis=1)
    np.testing.assert_allclose(answer["effect_cdf"].values[clear], below[clear], atol=1e-8)


def test_bridge_coefficients_reproduce_the_outcome_of_each_arm():
    """E[phi_Z (Y - phi_X a_t) 1(T=t)] = 0 in the raw features that the coefficients are given for."""
    model = load_model("gallery:level3")
    law = population(model)
    a = estimate(model, law, method="bridge", n_boot=0)["estimate"]["bridge"]
    assert list(a["feature"].values) == ["1", "x = 1"]
    p, z, x, t, y = (law[n].values for n in ("count", "z", "x", "t", "y"))
    for arm in (0, 1):
        residual = (y - a.values[arm, 0] - a.values[arm, 1] * x) * (t == arm) * p
        np.testing.assert_allclose([residual.sum(), (residual * z).sum()], 0.0, atol=1e-12)


def test_outcome_distributions_per_class_and_arm():
    """Well-separated normal classes: the CDF at the cuts is the normal one, to sampling error."""
    fields = {n: getattr(load_model("gallery:level3"), n) for n in CausalModel.model_fields}
    variables = {**fields["variables"], "y": {"family": "normal", "parents": ["t"]}}
    truth = {**fields["truth"], "y": {"mean": [[0.0, 1.0], [3.0, 6.0]], "sd": [1.0, 1.0]}}
    model = CausalModel(**fields | {"variables": variables, "truth": truth})
    point = estimate(model, simulate(model, 40_000, rng=3), n_boot=0)["estimate"].to_dataset()
    from scipy.stats import norm

    cuts = point["outcome_value"].values
    for u, means in enumerate(truth["y"]["mean"]):
        for t, mean in enumerate(means):
            # the largest standard error of an entry is about .02: 5 of them
            found = point["outcome_cdf"].values[u, t]
            np.testing.assert_allclose(found, norm.cdf(cuts - mean), atol=0.1)
            assert (np.diff(found) >= 0).all()


def test_equal_effects_with_known_covariance(rng):
    draws = rng.normal([0.0, 1.0, 1.0], 0.1, size=(4_000, 3))
    test = equal_effects(np.array([0.0, 1.0, 1.0]), draws)
    assert test.df == 2
    assert test.p_value < 1e-10
    same = equal_effects(np.array([1.0, 1.05, 1.0]), draws)
    assert same.p_value > 0.5
    assert np.isnan(equal_effects(np.array([1.0]), draws[:, :1]).p_value)
    assert np.isnan(equal_effects(np.array([0.0, 1.0]), np.zeros((0, 2))).p_value)


def test_causal_groups_merge_neighbours_only(rng):
    effect = np.array([1.0, 0.0, 1.05])
    draws = effect + rng.normal(0, 0.1, size=(2_000, 3))
    assert causal_groups(effect, draws).tolist() == [1, 0, 1]
    assert causal_groups(effect, np.zeros((0, 3))).tolist() == [1, 0, 2]


def test_an_unsupported_arm_does_not_spoil_the_others():
    """Three arms, one hardly ever given to class 1: only what needs that arm is refused."""
    model = CausalModel(
        classes=2,
        variables={
            "z": {"family": "bernoulli"},
            "x": {"family": "bernoulli"},
            "t": {"family": "categorical", "levels": ["low", "none", "high"]},
            "y": {"family": "bernoulli"},
        },
        treatment="t", outcome="y", treatment_proxies=["z"], outcome_proxies=["x"], reference="low",
        truth={
            "class_weight": [0.5, 0.5],
            "z": {"p": [0.1, 0.9]},
            "x": {"p": [0.02, 0.98]},
            "t": {"p": [[0.4, 0.4, 0.2], [0.5, 0.4995, 0.0005]]},
            "y": {"p": [[0.2, 0.2, 0.5], [0.7, 0.7, 0.9]]},
        },
    )  # fmt: skip
    rows = tabulate(simulate(model, 20_000, rng=4), model)
    answer = estimate(model, rows, method="spectral", n_boot=40)
    point = answer["estimate"].to_dataset()
    kept, refused = point["ate"].values
    assert abs(kept) < 5 * point["se_ate"].values[0]
    assert point["se_ate"].values[0] < 0.05
    assert np.isnan(refused)
    assert np.isnan(point["effect_cdf"].values[:, 1]).all()
    assert np.isfinite(point["effect_cdf"].values[:, 0]).all()
    assert np.isfinite(point["att"].values).all()
    assert "REPLICATES_FAILED" not in answer.attrs["notes"]
