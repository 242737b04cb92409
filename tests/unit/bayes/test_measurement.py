"""Measurement first: the second step exact on noiseless rows, with the errors of a regression; end to end."""

import numpy as np
import pytest
import xarray as xr

from pymc_mte import (
    CausalModel,
    ModelError,
    compare,
    estimate,
    load,
    plot_comparison,
    sample,
    save,
    simulate,
    tabulate,
)
from pymc_mte.bayes.assemble import judged
from pymc_mte.bayes.groups import identification_dataset
from pymc_mte.bayes.measurement import outcome_means_given_classes, sample_outcome_last, without_outcome
from pymc_mte.network import log_joint
from pymc_mte.results import dataset, identified_functionals
from pymc_mte.status import Note, Status, dump_notes, load_notes
from pymc_mte.summary import posterior_summary

B = {"family": "bernoulli"}
N = {"family": "normal"}
MODEL = CausalModel(
    classes=2,
    variables={
        "z": B,
        "w": {**B, "parents": ["z"]},
        "x": {"family": "categorical", "levels": [0, 1, 2]},
        "t": {**B, "parents": ["z"]},
        "y": {**N, "parents": ["t"]},
    },
    treatment="t",
    outcome="y",
    treatment_proxies=["z"],
    outcome_proxies=["x"],
)


def probabilities(part, parameters, columns):
    p = np.exp(log_joint(part, parameters, columns))
    return (p / p.sum(axis=0)).T


def noiseless(tools, rng, model):
    """Rows whose outcome is its exact mean given everything else."""
    parameters = tools.random_truth(model, rng)
    frame = simulate(tools.with_truth(model, parameters), 400, rng=rng).to_dataframe()
    part, _ = without_outcome(model, tabulate(frame, model))
    table = tabulate(frame, model)
    share = probabilities(part, parameters, {n: table[n].values for n in part.variables})
    at = tuple(table[p].values for p in model.variables["y"].parents)
    mean = parameters["mean_y"][(slice(None), *at)].T
    return part, parameters, table.assign(y=("pattern", (share * mean).sum(axis=1)))


@pytest.mark.parametrize("parents", [["t"], ["x", "t"]])
def test_class_means_are_exact_where_the_outcome_has_no_noise(tools, rng, parents):
    fields = {name: getattr(MODEL, name) for name in type(MODEL).model_fields}
    variables = {**MODEL.variables, "y": {**N, "parents": parents}}
    roles = {"outcome_proxies": []} if "x" in parents else {}
    model = CausalModel(**{**fields, "variables": variables, **roles})
    part, parameters, table = noiseless(tools, rng, model)
    stacked = {n: np.stack([v, v]) for n, v in parameters.items() if n in part.dims}
    found = outcome_means_given_classes(model, part, stacked, table, rng)
    np.testing.assert_allclose(found, np.stack([parameters["mean_y"]] * 2), atol=1e-8)


def test_the_second_step_has_the_error_of_a_regression(tools, rng):
    """SDs over 2,000 draws at the true classes against the sandwich, row by row: within 10% (|z| > 6)."""
    parameters = tools.random_truth(MODEL, rng)
    table = tabulate(simulate(tools.with_truth(MODEL, parameters), 5_000, rng=rng), MODEL)
    part, rows = without_outcome(MODEL, table)
    assert rows["count"].sum() == 5_000
    assert rows.sizes["pattern"] <= 24
    stacked = {n: np.broadcast_to(parameters[n], (2_000, *parameters[n].shape)) for n in part.dims}
    found = outcome_means_given_classes(MODEL, part, stacked, table, rng)
    for arm in (0, 1):
        own = table["t"].values == arm
        share = probabilities(part, parameters, {n: table[n].values[own] for n in part.variables})
        y, weight = table["y"].values[own], table["count"].values[own]
        bread = np.linalg.inv((share.T * weight) @ share)
        mean = bread @ (share.T @ (weight * y))
        score = share * (y - share @ mean)[:, None]
        sandwich = np.sqrt(np.diag(bread @ (score.T * weight) @ score @ bread))
        np.testing.assert_allclose(found[..., arm].std(axis=0), sandwich, rtol=0.1)
        assert (np.abs(found[..., arm].mean(axis=0) - mean) < 6 * sandwich / np.sqrt(2_000) + 1e-3).all()


def test_what_cannot_be_taken_apart(level3):
    with pytest.raises(ModelError, match="no grid, start, store, groups"):
        sample(level3, simulate(level3, 50), measurement_first=True, grid=0.1)
    after = CausalModel(
        classes=2,
        variables={"t": B, "y": {**B, "parents": ["t"]}, "v": {**B, "parents": ["y"]}},
        treatment="t",
        outcome="y",
    )
    with pytest.raises(ModelError, match="follow the outcome"):
        sample(after, simulate(level3, 50)[["t", "y"]].assign(v=("row", [0, 1] * 25)), measurement_first=True)
    with pytest.raises(ModelError, match="names no outcome"):
        sample(CausalModel(classes=2, variables={"z": B}), {"z": [0, 1]}, measurement_first=True)


HURDLE = CausalModel(
    name="hurdle",
    classes=2,
    variables={
        "z": B,
        "x": B,
        "w": B,
        "t": {**B, "parents": ["z"]},
        "y": {**N, "parents": ["t"]},
    },
    treatment="t",
    outcome="y",
    treatment_proxies=["z"],
    outcome_proxies=["x", "w"],
)


def hurdle_rows(n, rng):
    """Costs: nothing with a probability by class and arm, else lognormal; and their true mean effects."""
    u = rng.integers(0, 2, n)
    z, x, w = (rng.random(n) < np.array(p)[u] for p in ([0.2, 0.8], [0.15, 0.85], [0.2, 0.75]))
    t = rng.random(n) < np.array([[0.3, 0.6], [0.4, 0.7]])[u, z.astype(int)]
    nothing = np.array([[0.6, 0.5], [0.4, 0.1]])
    location = np.array([[0.0, 0.3], [0.5, 1.2]])
    at = u, t.astype(int)
    y = np.where(rng.random(n) < nothing[at], 0.0, rng.lognormal(location[at], 0.6))
    mean = (1 - nothing) * np.exp(location + 0.18)
    columns = {"z": z, "x": x, "w": w, "t": t}
    return {name: column.astype(int) for name, column in columns.items()} | {"y": y}, mean[:, 1] - mean[:, 0]


HURDLE_CLASSES = {
    "class_weight": [0.5, 0.5],
    "p_z": [[0.8, 0.2], [0.2, 0.8]],
    "p_x": [[0.85, 0.15], [0.15, 0.85]],
    "p_w": [[0.8, 0.2], [0.25, 0.75]],
    "p_t": [[[0.7, 0.3], [0.4, 0.6]], [[0.6, 0.4], [0.3, 0.7]]],
}


def known_classes(classes, notes=()):
    """A first step whose draws are all the same, judged as `sample` judges it."""

    def sampled(part, rows):
        values = {n: np.broadcast_to(v, (2, 40, *np.shape(v))) for n, v in classes.items()}
        groups = {"posterior": dataset(part, values), "sample_stats": xr.Dataset()}
        tree = xr.DataTree.from_dict(groups | {"identification": identification_dataset(judged(part, rows))})
        tree.attrs = {"notes": dump_notes(notes)}
        return tree

    return sampled


def said(tree, status):
    return [note for note in load_notes(tree.attrs["notes"]) if note.status is status]


def test_nothing_is_identified_where_the_classes_need_the_outcome(level3, tmp_path):
    rows = simulate(level3, 2_000, rng=1)
    options = {"sampler": "laplace", "draws": 50, "chains": 2, "progressbar": False, "random_seed": 1}
    post = sample(level3, rows, measurement_first=True, **options)
    flags = identified_functionals(post)
    assert set(flags) == set(post["posterior"].data_vars)
    assert not any(flags.values())
    (note,) = said(post, Status.MEASUREMENT_NOT_IDENTIFIED)
    assert note.where == "without y"
    assert note.detail == "open: class_weight, p_z, p_x, p_t; the likelihood fixes 7 of 9 parameters"
    assert "measurement_first=False" in str(note)
    assert "Can be answered: nothing." in post["identification"].attrs["report"]
    assert not posterior_summary(post)["identified"].any()
    est = estimate(level3, rows, n_boot=20)
    table = compare(post, est, n_boot=20)
    assert table["verdict"].str.startswith("not identified").all()
    assert plot_comparison(post, est, table=table).axes
    assert identified_functionals(load(save(post, tmp_path / "post.nc"))) == flags


def test_all_is_identified_where_proxies_and_treatment_fix_the_classes(rng):
    table = tabulate(hurdle_rows(3_000, rng)[0], HURDLE)
    post = sample_outcome_last(HURDLE, table, known_classes(HURDLE_CLASSES), 1)
    flags = identified_functionals(post)
    assert {"ate", "effect", "effect_sd", "arm_mean", "class_weight", "p_x", "mean_y"} <= set(flags)
    assert "sd_y" not in flags
    assert all(flags.values())
    assert not said(post, Status.MEASUREMENT_NOT_IDENTIFIED)
    assert not said(post, Status.CLASS_MEANS_UNRESOLVED)
    assert post["identification"].attrs["level"] == "MTE"


def test_an_arm_with_one_proxy_pattern_is_named(rng):
    rows, _ = hurdle_rows(3_000, rng)
    rows |= {name: np.where(rows["t"] == 1, 1, rows[name]) for name in "zxw"}
    post = sample_outcome_last(HURDLE, tabulate(rows, HURDLE), known_classes(HURDLE_CLASSES), 1)
    (note,) = said(post, Status.CLASS_MEANS_UNRESOLVED)
    assert note.where == "t = 1"
    assert note.detail == f"{rows['t'].sum():,} rows of only 1 pattern for 2 classes"
    flags = identified_functionals(post)
    assert not any(flags[name] for name in ("ate", "att", "effect", "effect_sd", "weight_harmed"))
    assert flags["class_weight"]
    table = posterior_summary(post)
    assert table["mean"].isna()["ate"]
    assert np.isfinite(table["mean"]["arm_mean[treatment 0]"])


def test_class_probabilities_that_never_vary_give_no_class_means(rng):
    alike = {name: np.stack([np.asarray(table)[0]] * 2) for name, table in HURDLE_CLASSES.items()}
    table = tabulate(hurdle_rows(3_000, rng)[0], HURDLE)
    part, _ = without_outcome(HURDLE, table)
    mixed = {name: np.stack([alike[name], np.asarray(HURDLE_CLASSES[name])]) for name in alike}
    found = outcome_means_given_classes(HURDLE, part, mixed, table, rng)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()
    post = sample_outcome_last(HURDLE, table, known_classes(alike), 1)
    notes = said(post, Status.CLASS_MEANS_UNRESOLVED)
    assert [note.where for note in notes] == ["t = 0", "t = 1"]
    assert all("8 patterns with collinear class probabilities" in note.detail for note in notes)


def test_levels_of_other_parents_without_rows_are_named(rng):
    fields = {name: getattr(HURDLE, name) for name in type(HURDLE).model_fields}
    variables = {**HURDLE.variables, "y": {**N, "parents": ["w", "t"]}}
    model = CausalModel(**{**fields, "variables": variables, "outcome_proxies": ["x"]})
    rows, _ = hurdle_rows(3_000, rng)
    rows["w"] = np.where(rows["t"] == 1, 0, rows["w"])
    post = sample_outcome_last(model, tabulate(rows, model), known_classes(HURDLE_CLASSES), 1)
    (note,) = said(post, Status.CLASS_MEANS_UNRESOLVED)
    assert (note.where, note.detail) == ("t = 1", "0 rows (w = 1)")


def test_classes_that_priors_number_keep_their_numbers(rng):
    table = tabulate(hurdle_rows(3_000, rng)[0], HURDLE)
    turned = {name: np.asarray(values)[::-1] for name, values in HURDLE_CLASSES.items()}
    by_prior = [Note(Status.CLASSES_BY_PRIOR, "p_x")]
    for notes, sorted_by_effect in (((), True), (by_prior, False)):
        draws = sample_outcome_last(HURDLE, table, known_classes(turned, notes), 1)["posterior"]
        effect = draws["effect"].mean(("chain", "draw")).values.ravel()
        assert (effect[0] < effect[1]) == sorted_by_effect


@pytest.mark.slow
def test_a_hurdle_truth_declared_normal():
    """The average effect within 2 posterior SDs of the truth, class effects within 2.5."""
    rows, effect = hurdle_rows(20_000, np.random.default_rng(1))
    options = {"draws": 500, "tune": 300, "chains": 2, "progressbar": False, "random_seed": 1}
    post = sample(HURDLE, rows, measurement_first=True, **options)
    assert post.attrs["method"] == "measurement first"
    draws = post["posterior"]
    for name, true, limit in (("ate", effect.mean(), 2.0), ("effect", effect, 2.5)):
        mean, sd = (getattr(draws[name], f)(("chain", "draw")) for f in ("mean", "std"))
        assert (np.abs(mean - true) < limit * sd).all()
    assert "sd_y" not in draws
    assert all(identified_functionals(post).values())
    assert set(post["measurement"]["posterior"].data_vars) == {"class_weight", "p_z", "p_x", "p_w", "p_t"}
