"""Gaps between rungs: nought on the population, calibrated on samples, blind where the design is."""

import numpy as np
import pytest
from scipy import special

from pymc_mte import CausalModel, ladder, load_model, population, simulate
from pymc_mte.ladder import joint_tests, verdict
from pymc_mte.moments.ladder import _tested, climb_ladder
from pymc_mte.moments.ladder_power import freed_edges, gap_power
from pymc_mte.moments.problem import make_problem
from pymc_mte.network import cell_columns

CONTROL_ARM = special.expit(
    special.logit(np.array([[0.3, 0.6], [0.5, 0.7]]))[:, None] + np.array([[0.0, 0.0], [2.0, 0.0]])
)


def changed(model, name, parents, truth):
    fields = {n: getattr(model, n) for n in CausalModel.model_fields}
    variables = dict(model.variables) | {
        name: model.variables[name].model_copy(update={"parents": tuple(parents)})
    }
    return CausalModel(**fields | {"variables": variables, "truth": truth})


def climbed(model, law, n, rng, boot=100):
    problem = make_problem(model, cell_columns(model), rng.multinomial(n, law).astype(float))
    return problem, climb_ladder(problem, boot, rng, errors=False)


def law(model):
    return population(model)["count"].values


def test_rungs_agree_on_the_population(level3):
    """Exact counts of a large population: every rung gives the truth, so every gap is nought."""
    problem = make_problem(level3, cell_columns(level3), np.round(law(level3) * 2**20))
    found = climb_ladder(problem, 8, np.random.default_rng(0), errors=False)
    assert [gap.rungs for gap in found.gaps] == [("bridge", "spectral"), ("spectral", "ml"), ("bridge", "ml")]
    for gap in found.gaps:
        np.testing.assert_allclose(gap.gap, 0.0, atol=2e-4)


@pytest.mark.slow
def test_right_graph_is_rarely_rejected(level3, rng):
    """60 samples of 5,000 rows at 5%: 3 rejections expected; more than 9 has a probability of 0.1%."""
    p, z = [], []
    for _ in range(60):
        gaps = climbed(level3, law(level3), 5_000, rng, 60)[1].gaps
        p.append([gap.p_value for gap in gaps[1:]])
        z.append(gaps[1].z[:2])
    assert (np.array(p) < 0.05).sum(axis=0).max() <= 9
    # A chi-squared of 60 degrees of freedom: the SD lies between these with probability 0.999.
    assert ((np.std(z, axis=0) > 0.7) & (np.std(z, axis=0) < 1.33)).all()


def test_left_out_edge_is_rejected_and_named(level3, rng):
    graph = changed(level3, "t", [], None)
    problem, found = climbed(graph, law(level3), 20_000, rng)
    tests = {test["rungs"]: test for test in joint_tests(problem, found)["tests"]}
    assert tests["spectral - ml"]["verdict"] == "differ"
    assert tests["spectral - ml"]["p"] < 1e-4
    assert (
        "assumes that z does not cause t; the spectral estimate does not"
        in tests["spectral - ml"]["assumption"]
    )


def test_edge_in_the_control_arm_sets_the_bridge_apart(level3, rng):
    truth = dict(level3.truth) | {"t": {"p": [[0.75, 0.25], [0.5, 0.25]]}, "y": {"p": CONTROL_ARM.tolist()}}
    generator = changed(level3, "y", ["x", "t"], truth)
    problem, found = climbed(level3, law(generator), 60_000, rng)
    gap = next(gap for gap in found.gaps if gap.rungs == ("bridge", "ml"))
    assert abs(gap.z[0]) > 2.6
    said = " ".join(joint_tests(problem, found)["says"])
    assert "bridge - ml: differ" in said
    assert "the likelihood assumes that x does not cause y; the bridge does not" in said


def test_blind_design_has_no_power(level3, rng):
    """In the paper's x -> y design the treated arm mirrors the control arm, and every rung gives 0."""
    generator = load_model("gallery:level4")
    problem, found = climbed(level3, law(generator), 20_000, rng)
    np.testing.assert_allclose(found.values["bridge_ate"], 0.0, atol=0.1)
    tests = {test["rungs"]: test for test in joint_tests(problem, found)["tests"]}
    assert tests["bridge - spectral"]["verdict"] == "no power here"
    assert any("changes its sign between arms" in blind for blind in tests["bridge - ml"]["blind"])


@pytest.mark.slow
def test_power_is_what_samples_show(level3, rng):
    """An edge of the strength that power is stated for is rejected about as often as foretold."""
    truth = dict(level3.truth)
    truth |= {"t": {"p": [[0.7, 0.3], [0.4, 0.2]]}, "y": {"p": [[0.3, 0.7], [0.6, 0.4]]}}
    truth |= {"x": {"p": [0.2, 0.8]}, "z": {"p": [0.2, 0.8]}}
    null = changed(level3, "y", ["t"], truth)
    n = 6_000
    problem = make_problem(level3, cell_columns(level3), np.round(law(null) * n))
    found = climb_ladder(problem, 200, rng, errors=False)
    gap = next(gap for gap in found.gaps if gap.rungs == ("bridge", "ml"))
    power = gap_power(problem, found, gap)[0]
    sd = 0.5  # of x, whose two values are equally frequent
    shifted = special.expit(
        special.logit(np.array(truth["y"]["p"]))[:, None] + np.array([0, 0.5 / sd])[:, None]
    )
    generator = changed(level3, "y", ["x", "t"], truth | {"y": {"p": shifted.tolist()}})
    seen = np.mean([climbed(level3, law(generator), n, rng, 60)[1].gaps[2].p_value < 0.05 for _ in range(40)])
    assert power.power[0] == pytest.approx(seen, abs=0.3)


def test_what_tells_rungs_apart():
    pair = load_model("gallery:paper_pair")
    assert freed_edges(pair, ("bridge", "spectral")) == (("x0", "y"), ("x1", "y"))
    assert freed_edges(pair, ("spectral", "ml")) == (
        ("z0", "t"),
        ("z1", "t"),
        ("z0", "z1"),
        ("x0", "x1"),
    )


def test_rungs_that_coincide_are_not_tested():
    entries = (("ate", "ate", ()), ("att", "att", ()))
    size = np.ones(2)
    gap = _tested(("spectral", "ml"), entries, np.full(2, 1e-12), 1e-12 * np.eye(2)[[0, 1] * 20], size)
    assert gap.df == 0
    assert np.isnan(gap.z).all()
    assert np.isnan(gap.p_value)
    assert verdict(gap.z[0]) == "no test possible: both coincide"


def test_table_of_all_rungs(level3):
    table = ladder(level3, simulate(level3, 3_000, rng=1), n_boot=20)
    assert set(table.index.get_level_values("rungs")) == {"bridge - spectral", "spectral - ml", "bridge - ml"}
    np.testing.assert_allclose(table["gap"], table["first"] - table["second"])
    np.testing.assert_allclose(table["z"], table["gap"] / table["se"])
    assert len(table.attrs["says"]) == len(table.attrs["tests"]) == 3


def test_shares_carry_no_test(level3):
    table = ladder(level3, population(level3))
    assert table.empty
    assert table.attrs["tests"] == []
