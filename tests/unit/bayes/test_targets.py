"""The posterior over targets: its density by hand, refusals, candidates, and draws of a small example."""

import json

import numpy as np
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import stats

from pymc_mte import (
    CausalModel,
    DataError,
    ModelError,
    base_model,
    build_model,
    estimate,
    fit,
    identify,
    load,
    load_model,
    population,
    sample,
    save,
    simulate,
)
from pymc_mte.bayes.target_draws import SMALL_SHARE, _mixed, _pointwise
from pymc_mte.bayes.targets import CONCENTRATION, candidate_sets
from pymc_mte.identify.targets import separation
from pymc_mte.moments.interventions.exact import admissible
from pymc_mte.moments.interventions.exclusions import plausible_choices
from pymc_mte.moments.interventions.network import Network, components
from pymc_mte.moments.interventions.rows import target_problem
from pymc_mte.status import load_notes

TRUTH = "[truth]\nclass_weight = [0.3, 0.3, 0.4]\ntargets = [{}, {a = 0}, {a = 0, c = 1}]\n"


def example(targets=None):
    text = load_model("gallery:violated_exclusion").to_toml().split("[truth]")[0] + TRUTH
    model = CausalModel.from_toml(text)
    if targets is None:
        return model
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    stated = model.interventions.model_dump() | {"targets": targets}
    return CausalModel(**fields | {"interventions": stated})


def every_target():
    return [
        {k: int(v) for k, v in zip("abc", target, strict=True) if v >= 0} for target in admissible((2, 2, 2))
    ]


@pytest.fixture(scope="module")
def rows():
    return simulate(example(), 4_000, rng=1)


@pytest.fixture(scope="module")
def base():
    return simulate(base_model(example()), 2_000, rng=2)


def log_density(built, values):
    point = built.initial_point()
    for name, value in values.items():
        transform = built.rvs_to_transforms[built[name]]
        inputs = built[name].owner.inputs
        key = built.rvs_to_values[built[name]].name
        point[key] = (
            transform.forward(pt.as_tensor(value), *inputs).eval(mode="FAST_COMPILE")
            if transform is not None
            else value
        )
    return float(built.compile_logp(vars=built.observed_RVs, jacobian=False, mode="FAST_COMPILE")(point))


def test_density_of_shares_by_hand(rows):
    targets = [{}, {"a": 0}, {"a": 0, "c": 1}]
    model = example(targets)
    problem = target_problem(model, rows)
    weight = np.array([0.2, 0.5, 0.3])
    cells = np.indices((2, 2, 2)).reshape(3, -1).T
    p = components(problem.network, cells, problem.candidates).toarray() @ weight
    count = np.zeros(8)
    np.add.at(count, np.ravel_multi_index(tuple(problem.rows.T), (2, 2, 2)), problem.counts)
    wanted = stats.multinomial.logpmf(count, 4_000, p)
    built = build_model(model, rows)
    assert [v.name for v in built.free_RVs] == ["target_weight"]
    assert log_density(built, {"target_weight": weight}) == pytest.approx(wanted, rel=1e-9)


def test_density_with_a_learnt_base_by_hand(rows, base):
    model = example([{}, {"a": 0}])
    problem = target_problem(model, rows, base)
    weight, tables = (
        np.array([0.6, 0.4]),
        {"p_a": 0.3, "p_b": np.array([0.2, 0.6]), "p_c": np.array([0.4, 0.9])},
    )
    full = tuple(
        np.stack([1 - np.asarray(tables[n]), np.asarray(tables[n])], -1) for n in ("p_a", "p_b", "p_c")
    )
    network = Network(parents=problem.network.parents, tables=full)
    p = components(network, problem.rows, problem.candidates).toarray() @ weight
    seen = problem.base[0]
    wanted = (problem.counts * np.log(np.maximum(p, 1e-12))).sum()
    wanted += (problem.base[1] * np.log(network.factors(seen)).sum(axis=1)).sum()
    other = {name: np.full_like(np.asarray(value), 0.5) for name, value in tables.items()}
    half = Network(parents=problem.network.parents, tables=tuple(np.full_like(t, 0.5) for t in full))
    q = components(half, problem.rows, problem.candidates).toarray() @ weight
    wanted -= (problem.counts * np.log(np.maximum(q, 1e-12))).sum()
    wanted -= (problem.base[1] * np.log(half.factors(seen)).sum(axis=1)).sum()
    built = build_model(model, rows, base=base)
    found = log_density(built, {"target_weight": weight, **tables})
    found -= log_density(built, {"target_weight": weight, **other})  # constants of the counts cancel
    assert found == pytest.approx(wanted, rel=1e-6)


def test_candidates_are_those_of_the_estimate(rows):
    model = example()
    start = estimate(model, rows, n_boot=0)
    built = build_model(model, rows, start=start)
    assert list(built.coords["target"]) == start["estimate"]["target"].values.tolist()
    assert CONCENTRATION == 0.5


def of_two(truth):
    text = load_model("gallery:violated_exclusion").to_toml().split("[truth]")[0]
    return CausalModel.from_toml(text.replace("classes = 3", "classes = 2") + truth)


def test_untouched_rows_are_always_a_candidate():
    model = of_two("[truth]\nclass_weight = [0.5, 0.5]\ntargets = [{a = 0}, {a = 0, c = 1}]\n")
    problem = target_problem(model, simulate(model, 3_000, rng=1))
    assert all((targets == -1).all(axis=1).any() for targets, _ in candidate_sets(problem))


def test_unclear_excluded_values_give_several_choices():
    model = of_two("[truth]\nclass_weight = [0.85, 0.15]\ntargets = [{}, {a = 0, b = 1}]\n")
    problem = target_problem(model, simulate(model, 150, rng=5))
    choices = plausible_choices(problem.network, problem.rows, problem.counts, 0.02)
    assert sum(choice.probability for choice in choices) == pytest.approx(1.0)
    assert len(choices) > 1
    assert choices[0].probability == max(choice.probability for choice in choices)
    for choice in choices:
        assert not (choice.support.targets == np.array(choice.excluded)).any()


def test_draws_of_several_choices_are_mixed(rng):
    def part(labels, value):
        weight = np.full((2, 500, len(labels)), value)
        coords = {"target": labels, "chain": [0, 1], "draw": np.arange(500)}
        return xr.Dataset({"target_weight": (("chain", "draw", "target"), weight)}, coords)

    parts = [part(["{}", "a=0"], 0.5), part(["{}", "b=1", "c=1"], 1 / 3)]
    mixed, choice = _mixed([0.7, 0.3], parts, rng)
    assert abs((choice == 0).mean() - 0.7) < 0.06  # four standard errors
    weight = mixed["target_weight"]
    np.testing.assert_allclose(weight.sum("target"), 1.0)
    np.testing.assert_array_equal(weight.sel(target="a=0"), np.where(choice == 0, 0.5, 0.0))
    np.testing.assert_allclose(weight.sel(target="{}"), np.where(choice == 0, 0.5, 1 / 3))


def test_separation_of_all_candidates_and_of_one_exclusion():
    network = target_problem(example(), simulate(example(), 10, rng=1)).network
    assert separation(network, admissible((2, 2, 2))).rank == 8
    assert not separation(network, admissible((2, 2, 2))).decided.any()
    assert separation(network, admissible((2, 2, 2), (1, 1, 0))).decided.all()


def test_identify_says_what_is_assumed(rows):
    found = identify(example(), rows)
    assert found.identified == {"target_weight": True}
    assert "exclusion is assumed" in str(found)
    assert "27 targets" in str(found)
    listed = identify(example(every_target()))
    assert listed.identified == {"target_weight": False}
    assert "only 8 dimensions" in str(listed)


def test_refusals(rows, base, level3):
    with pytest.raises(DataError, match="whole counts"):
        build_model(example(), population(example()))
    with pytest.raises(ModelError, match="positive concentration"):
        build_model(example(), rows, priors={"target_weight": -1.0})
    with pytest.raises(ModelError, match="only a model with interventions"):
        build_model(level3, simulate(level3, 50, rng=1), base=rows)
    with pytest.raises(ModelError, match="only a model with interventions"):
        identify(level3, base=rows)
    with pytest.raises(ModelError, match=r"interventions\.targets"):
        example().with_classes(3)
    with pytest.raises(ModelError, match="takes none"):
        build_model(example(), rows, group="a")
    for option in ({"grid": 0.5}, {"group": "a"}, {"measurement_first": True}):
        with pytest.raises(ModelError, match="not for a mixture of interventions"):
            sample(example(), rows, **option)
    other = load_model("gallery:unknown_interventions")
    answer = estimate(other, simulate(other, 500, rng=1), n_boot=0)
    with pytest.raises(ModelError, match="holds no targets"):
        build_model(example(), rows, start=answer)


QUICK = {"sampler": "pymc", "chains": 2, "cores": 1, "progressbar": False}


@pytest.mark.statistical
@pytest.mark.slow
def test_posterior_of_the_example_agrees_with_the_truth(rows, base, tmp_path):
    answer = fit(example(), rows, base=base, n_boot=20, draws=250, tune=300, **QUICK)
    weight = answer.posterior["posterior"]["target_weight"]
    targets = answer.posterior["targets"].to_dataset()
    for label, share in {"{}": 0.3, "a=0": 0.3, "a=0, c=1": 0.4}.items():
        draws = weight.sel(target=label)
        assert abs(float(draws.mean()) - share) < 3 * float(draws.std())
        assert float(targets["inclusion_probability"].sel(target=label)) > 0.9
    assert targets.attrs["small_share"] == SMALL_SHARE
    assert answer.summary()["identified"].all()
    assert "target_weight[a=0]" in str(answer)
    again = load(save(answer.to_datatree(), tmp_path / "a.nc"))
    np.testing.assert_array_equal(again["posterior"]["target_weight"], weight)


@pytest.mark.slow
def test_all_candidates_are_diffuse_and_said_to_be_so(rows):
    tree = sample(example(every_target()), rows, draws=400, tune=400, **QUICK)
    assert json.loads(tree.attrs["priors"]) == {"target_weight": f"Dirichlet({CONCENTRATION})"}
    weight = tree["posterior"]["target_weight"]
    assert float(weight.std(("chain", "draw")).max()) > 0.05
    assert not tree["targets"]["identified"].any()
    assert not tree["identification"]["identified"].any()
    assert "NOT_SEPARABLE" in {note.status.name for note in load_notes(tree.attrs["notes"])}


@pytest.mark.parametrize("known", [True, False])
def test_pointwise_probabilities_by_hand(rows, base, known):
    problem = target_problem(example(), rows, None if known else base)
    targets = np.array([[-1, -1, -1], [0, -1, 1]])
    values = {"target_weight": (("chain", "draw", "target"), np.array([[[0.25, 0.75]]]))}
    tables = dict(zip(problem.order, problem.network.tables, strict=True))
    if not known:
        tables = {name: np.roll(table, 1, axis=-1) for name, table in tables.items()}
        values |= {
            f"p_{n}": (("chain", "draw", *(f"{n}{i}" for i in range(t.ndim))), t[None, None])
            for n, t in tables.items()
        }
    found = _pointwise(problem, targets, xr.Dataset(values))["log_p"].values[0, 0]
    for (a, b, c), log_p in zip(problem.rows, found, strict=True):
        alone, forced = tables["a"][a] * tables["b"][a, b], (a == 0) * tables["b"][0, b] * (c == 1)
        assert np.exp(log_p) == pytest.approx(0.25 * alone * tables["c"][b, c] + 0.75 * forced, abs=1e-9)
