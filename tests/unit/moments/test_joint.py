"""Proxies of one side with any joint distribution given the class."""

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from pymc_mte import CausalModel, ModelError, estimate, load_model, population, simulate, truth
from pymc_mte.data import columns_of, resolve
from pymc_mte.functionals import functionals
from pymc_mte.hierarchy import hierarchy
from pymc_mte.moments.joint import MAX_JOINT_CELLS, joint_proxies
from pymc_mte.moments.likelihood import fit_likelihood
from pymc_mte.moments.problem import make_problem
from pymc_mte.network import log_joint, log_sum_classes

B = {"family": "bernoulli"}


def model_with(variables, z=("z0", "z1"), x=("x0", "x1"), **more):
    variables = {n: B for n in (*z, *x, "t", "y") if n not in variables} | variables
    return CausalModel(
        **{"classes": 2, **more},
        variables=variables,
        treatment="t",
        outcome="y",
        treatment_proxies=z,
        outcome_proxies=x,
    )


def dependent_pair(tools, seed):
    """The appendix design's graph, the proxies of a side depending on each other given the class."""
    joint = joint_proxies(load_model("gallery:paper_pair"))
    parameters = tools.random_truth(joint, np.random.default_rng(seed))
    parameters |= {n: v for n, v in joint.true_parameters().items() if n in ("p_t", "p_y", "class_weight")}
    for side, p in {"z": [[0.75, 0.15], [0.2, 0.9]], "x": [[0.7, 0.1], [0.3, 0.85]]}.items():
        parameters[f"p_{side}0"] = np.array([[0.65, 0.35], [0.35, 0.65]])
        parameters[f"p_{side}1"] = np.stack([np.array(p), 1 - np.array(p)], axis=-1)
    return tools.with_truth(joint, parameters)


def top(model, columns, counts):
    fitted = fit_likelihood(make_problem(model, columns, counts))[0]
    log_p = log_sum_classes(log_joint(model, fitted, columns))[0]
    return float(counts @ log_p), np.sort(functionals(model, fitted)["effect"][0])


@pytest.mark.parametrize("dependent", [False, True])
def test_the_chain_is_the_joint_table(tools, dependent):
    """Tied binary proxies and one proxy of four levels a side have the same maximum likelihood."""
    pair = load_model("gallery:paper_pair")
    rows = simulate(dependent_pair(tools, 1) if dependent else pair, 3_000, rng=4)
    pair, table = resolve(pair, rows)
    columns, counts = columns_of(table, pair), table["count"].values.astype(float)
    four = {"family": "categorical", "levels": [0, 1, 2, 3]}
    joined = model_with({"z": four, "x": four}, ("z",), ("x",))
    wide = {n: columns[n] for n in "ty"} | {s: 2 * columns[f"{s}0"] + columns[f"{s}1"] for s in "zx"}
    reached, effect = top(joint_proxies(pair), columns, counts)
    wanted, right = top(joined, wide, counts)
    assert reached == pytest.approx(wanted, abs=1e-6)
    np.testing.assert_allclose(effect, right, atol=1e-4)
    assert reached > top(pair, columns, counts)[0] + (10.0 if dependent else 0.0)


def test_a_stated_truth_carries_over(tools):
    three = load_model("gallery:three_classes")
    ordinal = {"family": "ordinal", "levels": [0, 1, 2]}
    mixed = model_with({"z1": {**ordinal, "parents": ["t"]}, "x0": {**ordinal, "parents": ["x1"]}})
    mixed = tools.with_truth(mixed, tools.random_truth(mixed, np.random.default_rng(5)))
    for model in (three, mixed):
        joint = joint_proxies(model)
        np.testing.assert_allclose(population(joint)["count"], population(model)["count"], atol=1e-15)
        assert joint.shapes != model.shapes


def test_edges_follow_the_order_of_the_graph():
    model = model_with(
        {"x0": {**B, "parents": ["x1"]}, "t": {**B, "parents": ["z0"]}, "z0": {**B, "parents": ["z2"]}},
        z=("z0", "z1", "z2"),
    )
    joint = joint_proxies(model)
    assert joint.variables["x0"].parents == ("x1",)
    assert joint.variables["x1"].parents == ()
    side = {n: set(joint.variables[n].parents) for n in ("z0", "z1", "z2")}
    assert sorted(map(len, side.values())) == [0, 1, 2]
    assert "z2" in side["z0"]
    assert joint_proxies(joint) == joint


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_the_level_of_the_graph_stays(seed):
    """Random edges between all roles; impossible graphs are left out."""
    rng = np.random.default_rng(seed)
    z, x = [f"z{i}" for i in range(rng.integers(1, 4))], [f"x{i}" for i in range(rng.integers(1, 4))]
    order = [*rng.permutation([*z, *x, "t"]), "y"]
    variables = {
        str(name): {**B, "parents": [str(p) for p in order[:i] if rng.random() < 0.15]}
        for i, name in enumerate(order)
    }
    try:
        model = model_with(variables, tuple(z), tuple(x))
    except ModelError:
        assume(False)
    assert hierarchy(joint_proxies(model)).level == hierarchy(model).level


def test_dependent_proxies_mislead_unless_they_are_tied(tools):
    law = dependent_pair(tools, 2)
    pair, table, wanted = load_model("gallery:paper_pair"), population(law), truth(law)
    tied = estimate(pair, table, method="polished", proxies="joint", n_boot=0)["estimate"]
    for name in ("effect", "class_weight", "ate"):
        np.testing.assert_allclose(tied[name], wanted[name], atol=1e-6)
    free = estimate(pair, table, method="polished", n_boot=0)["estimate"]
    assert np.abs(free["effect"] - wanted["effect"]).max() > 0.03


def test_what_the_result_records():
    pair = load_model("gallery:paper_pair")
    rows = simulate(pair, 4_000, rng=1)
    answer = estimate(pair, rows, proxies="joint", n_boot=4)
    assert answer.attrs["method"] == "polished"
    assert answer.attrs["proxies"] == "joint"
    assert CausalModel.from_toml(answer.attrs["model"]) == joint_proxies(pair)
    assert answer["estimate"]["p_x1"].dims == ("class", "x0", "x1")
    assert np.isfinite(answer["posterior"]["effect"]).all()


def test_a_side_with_one_proxy_stays(level3):
    assert joint_proxies(level3) == level3


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"x1": {"family": "normal"}}, "'x1' is continuous.*cut it into levels"),
        ({"z0": {**B, "latent": False}}, "'z0' does not vary with the class"),
        (
            {n: {"family": "categorical", "levels": list(range(65))} for n in ("x0", "x1")},
            f"x0, x1 would have 4225 cells per class, more than {MAX_JOINT_CELLS}; use fewer",
        ),
    ],
)
def test_what_cannot_be_tied(variables, message):
    with pytest.raises(ModelError, match=f"proxies='joint'.*{message}"):
        joint_proxies(model_with(variables))


@pytest.mark.parametrize("options", [{"proxies": "both"}, {"proxies": "joint", "method": "spectral"}])
def test_options_that_do_not_go_together(options):
    pair = load_model("gallery:paper_pair")
    with pytest.raises(ModelError, match="use 'independent' with any method, or 'joint'"):
        estimate(pair, simulate(pair, 200), n_boot=0, **options)
