"""The posterior of linear Gaussian interventions: its density by hand, its start, what draws are named."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from pymc_mte import CausalModel, ModelError, base_model, build_model, estimate, simulate
from pymc_mte.bayes.linear_draws import _mixed, _named, _pointwise
from pymc_mte.bayes.linear_targets import CHANGE, DEFAULTS, build_changes, starting_sets
from pymc_mte.bayes.targets import share_priors
from pymc_mte.moments.interventions.gaussian import memberships
from pymc_mte.moments.interventions.gaussian_average import align
from pymc_mte.moments.interventions.linear_rows import linear_problem

TEXT = """
[variables.b]
family = "normal"
parents = ["a"]
[variables.a]
family = "normal"
[interventions]
kind = "KIND"
targets = [[], ["a"], ["b"]]
base.a = { intercept = 1.0, sd = 1.0 }
base.b = { intercept = 0.0, coefficient = [2.0], sd = 0.5 }
[truth]
class_weight = [0.5, 0.3, 0.2]
targets = [{}, { a = -3.0 }, { b = 4.0 }]
"""


def problem_of(kind, known=True):
    model = CausalModel.from_toml(TEXT.replace("KIND", kind))
    rows = simulate(model, 60, rng=1)
    base = None if known else simulate(base_model(model), 50, rng=2)
    return linear_problem(model, rows, base)


def untransformed(built, name, point):
    transform = built.rvs_to_transforms[built[name]]
    value = point[built.rvs_to_values[built[name]].name]
    return value if transform is None else transform.backward(value, *built[name].owner.inputs).eval()


@pytest.mark.parametrize(("kind", "known"), [("shift", True), ("shift", False), ("do", True)])
def test_density_of_rows_by_hand(kind, known):
    problem = problem_of(kind, known)
    mixture = starting_sets(problem, None, 0)[0][0]
    built = build_changes(problem, mixture)
    point = built.initial_point()
    point["change"] = point["change"] + np.arange(2) - 0.5
    names = [rv.name for rv in built.free_RVs]
    assert names[:2] == ["target_weight", "change"] if known else "coefficient_b" in names
    values = {name: untransformed(built, name, point) for name in names}
    draws = xr.Dataset(
        {
            name: (("chain", "draw", *(f"{name}_{i}" for i in range(np.ndim(v)))), np.asarray(v)[None, None])
            for name, v in values.items()
        }
    )
    posterior = _named(problem, mixture, draws)  # samplers name no axes
    each = _pointwise(problem, mixture, posterior)["log_p"].values[0, 0]
    rows = built.compile_logp(vars=[built["rows"]], jacobian=False, mode="FAST_COMPILE")(point)
    assert float(rows) == pytest.approx(each @ problem.data.counts, rel=1e-8)
    if not known:
        slope, sd = values["coefficient_b"][0], values["sd_b"]
        base = problem.base[0]
        by_hand = stats.norm.logpdf(base[:, 1], values["intercept_b"] + slope * base[:, 0], sd).sum()
        found = built.compile_logp(vars=[built["base_b"]], jacobian=False, mode="FAST_COMPILE")(point)
        assert float(found) == pytest.approx(by_hand, rel=1e-8)


def test_pointwise_density_at_the_fit_is_the_estimators():
    problem = problem_of("shift")
    mixture = starting_sets(problem, None, 0)[0][0]
    change = (mixture.value / problem.network.sd)[mixture.touched]
    draws = xr.Dataset(
        {
            "target_weight": (("chain", "draw", "target"), mixture.weight[None, None]),
            "change": (("chain", "draw", "c"), change[None, None]),
        },
        coords={"target": problem.labels(mixture.touched, mixture.value)},
    )
    posterior = _named(problem, mixture, draws)
    assert posterior["shift"].sel(variable="a").values.ravel() == pytest.approx(mixture.value[:, 0])
    each = _pointwise(problem, mixture, posterior)["log_p"].values[0, 0]
    assert each @ problem.data.counts == pytest.approx(memberships(problem.data, mixture)[1])


def test_start_is_an_answer_of_estimate():
    problem = problem_of("do")
    found = estimate(problem.model, problem.table, n_boot=0)
    mixture = starting_sets(problem, found, 0)[0][0]
    assert mixture.touched.tolist() == found["estimate"]["touched"].sel(variable=["a", "b"]).values.tolist()
    built = build_model(problem.model, problem.table, start=found)
    assert list(built.coords["target"]) == found["estimate"]["target"].values.tolist()
    assert "change_sd" not in built.named_vars  # forced to constants
    with pytest.raises(ModelError, match="holds no targets"):
        starting_sets(problem, xr.DataTree.from_dict({"estimate": xr.Dataset()}), 0)


def test_draws_of_several_sets_are_mixed(rng):
    """Shares are 0 where a set lacks the target; its values come from sets that have it."""
    problem = problem_of("shift")
    whole = starting_sets(problem, None, 0)[0][0]
    target = int(np.flatnonzero(whole.touched[:, 1])[0])
    less = whole.only(np.arange(3) != target)
    parts = []
    for number, mixture in enumerate([whole, less]):
        size = len(mixture.weight)
        draws = {
            "target_weight": (("chain", "draw", "t"), np.tile(mixture.weight, (2, 500, 1))),
            "change": (("chain", "draw", "c"), np.full((2, 500, int(mixture.touched.sum())), 1.0 + number)),
        }
        parts.append(_named(problem, mixture, xr.Dataset(draws)))
        assert parts[-1].sizes["target"] == size
    sets = [(whole, 0.7), (less, 0.3)]
    posterior, choice = _mixed(problem, sets, align([whole, less]), parts, rng)
    assert choice.mean() == pytest.approx(0.3, abs=0.065)  # 4.5 standard errors
    weight = posterior["target_weight"].values
    assert weight.sum(axis=-1) == pytest.approx(1.0)
    assert (weight[choice == 1][:, target] == 0).all()
    assert (weight[choice == 0][:, target] > 0).all()
    shift = posterior["shift"].sel(variable="b").values[..., target] / problem.network.sd[1]
    assert shift == pytest.approx(1.0)
    other = posterior["shift"].sel(variable="a").values.max(axis=-1) / problem.network.sd[0]
    assert other[choice == 1] == pytest.approx(2.0)


def test_every_free_variable_has_its_prior_on_record():
    problem = problem_of("shift", known=False)
    given = {"target_weight": [1.0, 2.0, 2.0], "sd_a": {"dist": "gamma", "alpha": 2.0, "beta": 1.0}}
    built = build_changes(problem, starting_sets(problem, None, 0)[0][0], given)
    found = share_priors(problem.model, given, built, DEFAULTS | {"change": CHANGE["shift"]})
    assert set(found) == {rv.name for rv in built.free_RVs}
    assert {name: found[name] for name in given} == given
    assert found["change"] == "Normal(0, 2.5 error SD)"
    assert found["sd_b"] == "HalfNormal(2.5 base SD)"
