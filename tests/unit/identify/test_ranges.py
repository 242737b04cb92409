"""Ranges of open answers against all solutions of a two-class design, which two numbers index."""

import numpy as np
import pytest

from pymc_mte import CausalModel, ModelError, identify, load_model, simulate
from pymc_mte.identify.jacobian import interior_point
from pymc_mte.identify.ranges import answer_table, functional_ranges, why_no_ranges
from pymc_mte.network import cell_columns, log_joint, log_sum_classes

NAMES = ("ate", "att", "effect", "class_weight", "effect_sd")
GRID = 400


def probability(table):
    return ((table >= -1e-9) & (table <= 1 + 1e-9)).reshape(len(table), -1).all(axis=1)


def all_solutions(model, parameters):
    """Functionals of every law-preserving parameter on a grid of P(z | class): ate, effects, weights, sd.

    Given these, the table of z and x gives the weights and P(x | class), that with t gives P(t | z,
    class), and the whole table gives P(y | x, t, class), each by a linear system of two unknowns.
    """
    cells = cell_columns(model)
    law = np.zeros((2, 2, 2, 2))
    point = {name: value[None] for name, value in parameters.items()}
    order = tuple(cells[name] for name in "tzxy")
    law[order] = np.exp(log_sum_classes(log_joint(model, point, cells))[0])
    low, high = (a.ravel() for a in np.meshgrid(*[np.linspace(1e-9, 1 - 1e-9, GRID + 1)] * 2, indexing="ij"))
    share = law[:, 1].sum()
    inside = (low < share - 1e-9) & (high > share + 1e-9)
    low, high = low[inside], high[inside]
    weight = (share - low) / (high - low)
    weight = np.stack([1 - weight, weight], axis=-1)
    z = np.stack([np.stack([1 - low, 1 - high], axis=-1), np.stack([low, high], axis=-1)], axis=-2)
    z = z * weight[:, None]  # P(z, class)
    x = np.linalg.solve(z, law.sum(axis=(0, 3)))
    good = probability(x) & (np.abs(np.linalg.det(x)) > 1e-9)
    z, x, weight = z[good], x[good], weight[good]
    zt = law.sum(axis=3) @ np.linalg.inv(x)[:, None]  # P(t, z, class)
    good = probability(zt / z[:, None]) & (np.abs(np.linalg.det(zt)) > 1e-12).all(axis=1)
    zt, x, weight = zt[good], x[good], weight[good]
    y = np.linalg.solve(zt, law[..., 1]) / x[:, None]
    good = probability(y)
    effect = (x * (y[:, 1] - y[:, 0])).sum(axis=-1)[good]
    weight, order = weight[good], effect.argsort(axis=1)
    ate = (weight * effect).sum(axis=1)
    sd = np.sqrt((weight * (effect - ate[:, None]) ** 2).sum(axis=1))
    ordered = [np.take_along_axis(v, order, axis=1) for v in (effect, weight)]
    return np.column_stack([ate, *ordered, sd])


@pytest.mark.parametrize("seed", range(3))
def test_ranges_are_those_of_all_solutions(seed):
    """A walk is local, so it must reach all of the grid; a grid of 400 with
    1,000 solutions misses at most 0.03 of a range.

    Few solutions on the grid say little about the ends: such draws are passed over.
    """
    model = load_model("gallery:level4")
    parameters = {name: v[0] for name, v in interior_point(model, np.random.default_rng(seed)).items()}
    found = functional_ranges(model, parameters, names=NAMES).drop(index=1)
    wanted = all_solutions(model, parameters)
    low, high = found["low"].to_numpy(), found["high"].to_numpy()
    if len(wanted):
        assert (low < wanted.min(axis=0) + 1e-3).all()
        assert (high > wanted.max(axis=0) - 1e-3).all()
    if len(wanted) > 1_000:
        assert (low > wanted.min(axis=0) - 0.03).all()
        assert (high < wanted.max(axis=0) + 0.03).all()


def test_identified_answers_have_no_width_and_the_truth_lies_inside():
    model = load_model("gallery:level4")
    parameters = model.true_parameters()
    table = functional_ranges(model, parameters, names=NAMES)
    truth = answer_table(model, {name: value[None] for name, value in parameters.items()}, NAMES)[0]
    width = table["high"] - table["low"]
    assert (width[:2] < 1e-4).all()
    assert (width[2:] > 0.4).all()
    assert ((table["low"] <= truth + 1e-9) & (truth - 1e-9 <= table["high"])).all()


def test_every_answer_of_an_identified_model_is_a_point():
    model = load_model("gallery:level3")
    table = functional_ranges(model, model.true_parameters(), names=NAMES)
    assert (table["high"] - table["low"] < 1e-4).all()


def test_sampling_error_of_an_identified_answer_is_its_profile_interval():
    """In a randomised trial the log-likelihood is nearly a parabola: +-1.645 standard errors."""
    truth = {"t": {"p": [0.5]}, "y": {"p": [[0.3, 0.6]]}}
    variables = {"t": {"family": "bernoulli"}, "y": {"family": "bernoulli"}}
    model = CausalModel(classes=1, variables=variables, treatment="t", outcome="y", truth=truth)
    cells = cell_columns(model)
    share = np.where(
        cells["t"] == 1, np.where(cells["y"] == 1, 0.6, 0.4), np.where(cells["y"] == 1, 0.3, 0.7)
    )
    table = functional_ranges(model, model.true_parameters(), cells, 20_000 * share / 2, names=("ate",))
    error = 1.6449 * np.sqrt(0.3 * 0.7 / 10_000 + 0.6 * 0.4 / 10_000)
    row = table.loc[0]
    np.testing.assert_allclose([row["low_90"], row["high_90"]], [0.3 - error, 0.3 + error], atol=0.01 * error)
    np.testing.assert_allclose([row["low"], row["high"]], 0.3, atol=1e-5)


def test_identify_says_the_bounds():
    model = load_model("gallery:level4")
    answer = identify(model, simulate(model, 5_000, rng=3))
    ranges = answer.ranges.set_index("functional")
    assert list(ranges.index) == [
        "effect[class 0]", "effect[class 1]", "class_weight[class 0]", "class_weight[class 1]", "effect_sd"
    ]  # fmt: skip
    assert (ranges["low_90"] <= ranges["low"]).all()
    assert (ranges["high_90"] >= ranges["high"]).all()
    low, high = ranges.loc["effect[class 1]", ["low_90", "high_90"]]
    assert low < 0.5625 < high
    assert "bounded by the data: smallest class effect between -0." in str(answer)
    assert "Bounds on what stays open" in answer._repr_html_()


def test_nothing_is_bounded_where_nothing_is_open_or_no_data_are_given():
    assert identify(load_model("gallery:level4")).ranges is None
    model = load_model("gallery:level3")
    assert identify(model, simulate(model, 2_000, rng=0)).ranges is None


def test_other_models_are_refused_in_a_sentence():
    model = load_model("gallery:level4")
    variables = {**model.variables, "y": {"family": "normal", "parents": ["x", "t"]}}
    roles = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["x"]}
    other = CausalModel(classes=2, variables=variables, **roles)
    assert "discrete" in why_no_ranges(other)
    many = {f"z{j}": {"family": "bernoulli"} for j in range(12)} | model.variables
    assert "cells" in why_no_ranges(CausalModel(classes=2, variables=many, **roles))
    with pytest.raises(ModelError, match="discrete"):
        functional_ranges(other, {})
    with pytest.raises(ModelError, match="arm_mean"):
        functional_ranges(model, model.true_parameters(), names=("arm_mean",))
