"""Parts that meet: samplers that name no axes, share-safe files, results that hold less than others."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytensor
import pytest
import xarray as xr

from pymc_mte import (
    CausalModel,
    DataError,
    ModelError,
    RefusedError,
    baselines,
    bivariate_residuals,
    build_model,
    calibrate,
    choose_classes,
    compare,
    compare_models,
    compile,
    do,
    estimate,
    fit,
    functional_ranges,
    ladder,
    load,
    load_model,
    log_evidence,
    loo,
    merge,
    plan,
    plot_baselines,
    plot_class_choice,
    plot_classes,
    plot_effects,
    plot_plan,
    plot_predictive,
    plot_role_splits,
    policy,
    population,
    predict,
    resume,
    role_splits,
    sample,
    save,
    sensitivity,
    simulate,
    tabulate,
    truth,
)
from pymc_mte.bayes.linear_draws import sample_linear
from pymc_mte.bayes.samplers import labelled
from pymc_mte.bayes.target_draws import sample_targets
from pymc_mte.compare import why_not_comparable
from pymc_mte.errors import whole_number
from pymc_mte.fit import Fit
from pymc_mte.identify.identification import identify
from pymc_mte.sharing import safe_tree


def starts_as_draws(built, starts, seed, options):
    """What a sampler hands back, without the sampling: each chain stays near its start."""
    rng = np.random.default_rng(seed)
    values = {}
    for name in starts[0]:
        each = np.stack([np.stack([start[name]] * options["draws"]) for start in starts])
        values[name] = each * np.exp(0.01 * rng.normal(size=each.shape))
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((len(starts), options["draws"])))})
    return xr.DataTree.from_dict({"posterior": labelled(values), "sample_stats": stats})


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
@pytest.mark.parametrize(
    ("name", "draw"), [("linear_shifts", sample_linear), ("unknown_interventions", sample_targets)]
)
def test_draws_of_targets_are_named_and_weighed(name, draw):
    model = load_model(f"gallery:{name}")
    rows = simulate(model, 400, rng=1)
    found = estimate(model, rows, n_boot=0)
    settings = {"base": None, "start": found, "chains": 2, "priors": None, "seed": 0}
    tree = draw(model, rows, run=starts_as_draws, options={"draws": 20, "tune": 1}, **settings)
    weight = tree["posterior"]["target_weight"]
    assert set(tree["targets"]["target"].values) == set(weight["target"].values)
    assert loo(tree).n_data_points == 400
    with pytest.raises(RefusedError, match="at least 25 draws, got 4"):
        loo(tree.isel(draw=slice(0, 2)))
    with pytest.raises(RefusedError, match="shares"):
        predict(tree, rows)
    with pytest.raises(RefusedError, match="shares"):
        plot_predictive(tree)
    with pytest.raises(RefusedError, match="base_model"):
        do(tree, {"a": 0}, "b")


def test_a_share_safe_result_says_that_its_rows_are_missing(tools, level3):
    posterior = tools.made_posterior(level3, simulate(level3, 300, rng=1))
    shared = safe_tree(posterior, level3)
    with pytest.raises(RefusedError, match="share-safe file has no rows"):
        loo(shared)
    with pytest.raises(RefusedError, match="share-safe"):
        bivariate_residuals(level3, posterior=shared)
    with pytest.raises(RefusedError, match="this result has none"):
        loo(estimate(level3, simulate(level3, 300, rng=1), n_boot=0))


def test_a_saved_comparison_keeps_its_sentences(tools, level3):
    rows = simulate(level3, 300, rng=1)
    table = pd.DataFrame({"mean": [0.1]}, index=pd.Index(["ate"], name="functional"))
    table.attrs = {"says": ["Bridge and spectral agree."], "tests": [{"rungs": "bridge - ml", "p": 0.5}]}
    fitted = Fit(
        model=level3,
        identification=identify(level3),
        moments=estimate(level3, rows, n_boot=0),
        posterior=tools.made_posterior(level3, rows),
        comparison=table,
    )
    kept = fitted.to_datatree()["comparison"].attrs
    assert {name: json.loads(value) for name, value in kept.items()} == table.attrs


TIMED = CausalModel(
    classes=2,
    variables={
        "z": {"family": "bernoulli"},
        "x": {"family": "bernoulli"},
        "t": {"family": "bernoulli"},
        "y": {"family": "weibull", "event": "seen"},
    },
    treatment="t",
    outcome="y",
    treatment_proxies=["z"],
    outcome_proxies=["x"],
)


def timed_rows(rng, n=80):
    rows = {name: rng.integers(0, 2, n) for name in ("z", "x", "t", "seen")}
    return rows | {"y": rng.weibull(1.5, n)}


def test_means_of_censored_times_are_not_compared(rng):
    """The sign of a censored time marks it; its means would have even the wrong sign."""
    rows = timed_rows(rng)
    with pytest.raises(RefusedError, match="censored times"):
        baselines(TIMED, rows)
    with pytest.raises(RefusedError, match="censored times"):
        ladder(TIMED, rows)
    assert "censored" in why_not_comparable(TIMED, tabulate(rows, TIMED))
    with pytest.raises(DataError, match="was seen to its end"):
        tabulate(rows | {"seen": np.zeros(80)}, TIMED)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"y": [1e300, 1.0]}, "above 1e[+]100"),
        ({"y": np.array([1j, 2.0])}, "complex"),
        (pd.DataFrame([[1.0, 2.0]], columns=["y", "y"]), "two columns of one name"),
    ],
)
def test_values_beyond_arithmetic_are_refused(rows, said):
    with pytest.raises(DataError, match=said):
        tabulate(rows, CausalModel(classes=1, variables={"y": {"family": "normal"}}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target_accept": 2.0}, "between 0 and 1, got 2.0"),
        ({"random_seed": -1}, "random_seed"),
        ({"start": 3}, "what `estimate` gave, got int"),
        ({"cores": "all"}, "cores"),
        ({"cores": 0}, "cores must be a whole number of at least 1, got 0"),
        ({"draws": True}, "draws must be a whole number of at least 1, got True"),
        ({"measurement_first": "no"}, "measurement_first must be True or False, got 'no'"),
    ],
)
def test_options_are_checked_before_anything_is_compiled(level3, options, said):
    with pytest.raises(ModelError, match=said):
        sample(level3, {}, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"drawz": 10}, "drawz: no options of `sample`; choose from base, draws"),
        ({"draws": 0}, "draws must be a whole number of at least 1, got 0"),
        ({"target_accept": "high"}, "between 0 and 1, got 'high'"),
        ({"measurement_first": 1}, "measurement_first must be True or False, got 1"),
        ({"random_seed": True}, "random_seed must be a whole number of at least 0, got True"),
    ],
)
def test_fit_checks_options_of_the_sampler_first(level3, options, said):
    rows = simulate(level3, 50, rng=1)
    with pytest.raises(ModelError, match=said):
        fit(level3, rows, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_simulations": "a"}, "n_simulations must be a whole number"),
        ({"draws": 0}, "draws must be a whole number of at least 1, got 0"),
        ({"chains": -1}, "chains must be a whole number of at least 1, got -1"),
        ({"random_seed": -1}, "random_seed must be a whole number of at least 0, got -1"),
    ],
)
def test_calibrate_checks_its_numbers_first(level3, options, said):
    with pytest.raises(ModelError, match=said):
        calibrate(level3, **{"n_simulations": 2} | options)


@pytest.mark.parametrize("cost", ["a", None, [1], True, np.inf])
def test_a_cost_is_a_number(level3, cost):
    found = estimate(level3, population(level3))
    with pytest.raises(ModelError, match="cost must be a finite number"):
        policy(found, {"z": [0], "x": [0]}, cost=cost)


def test_groups_are_columns_beside_the_model(level3):
    rows = simulate(level3, 50, rng=1)
    with pytest.raises(DataError, match="'z' is part of the model"):
        sample(level3, rows, group="z")


TAKE_A_MODEL = (
    baselines,
    calibrate,
    fit,
    partial(sensitivity, edge=("x", "y")),
    bivariate_residuals,
    build_model,
    choose_classes,
    compile,
    estimate,
    functional_ranges,
    identify,
    ladder,
    log_evidence,
    plan,
    plot_plan,
    population,
    role_splits,
    sample,
    simulate,
    truth,
)


@pytest.mark.parametrize("use", TAKE_A_MODEL, ids=lambda use: getattr(use, "__name__", "sensitivity"))
def test_a_name_or_data_in_place_of_the_model_is_said(use, level3):
    alone = use in (plan, plot_plan, population, truth)
    for wrong in ("gallery:level3", pd.DataFrame({"z": [0, 1]})):
        with pytest.raises(ModelError, match=f"a CausalModel is wanted first, got {type(wrong).__name__}"):
            use(wrong, *([] if alone else [{}]))


@pytest.mark.parametrize(
    ("said", "use"),
    [
        ("draws must be a whole number", lambda found: predict(found, {"z": [0]}, draws=True)),
        ("values: levels by variable are wanted", lambda found: do(found, ["t"])),
        ("no group 'prior', only", lambda found: do(found, {"t": 1}, group="prior")),
    ],
)
def test_arguments_of_another_kind_are_said(said, use, level3):
    with pytest.raises((ModelError, RefusedError), match=said):
        use(estimate(level3, population(level3)))


def test_numbers_of_numpy_are_whole_numbers():
    found = whole_number("draws", np.int64(20))
    assert (found, type(found)) == (20, int)
    for wrong in (np.bool_(True), 20.0, "20", None):
        with pytest.raises(ModelError, match="draws must be a whole number"):
            whole_number("draws", wrong)


def test_a_store_that_cannot_be_made_is_refused_at_once(level3, tmp_path):
    rows = simulate(level3, 50, rng=1)
    (tmp_path / "file").write_text("text")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "more").write_text("text")
    for store, said in (
        (tmp_path / "file", "is a file; name a new folder"),
        (tmp_path / "file" / "run", "cannot be made"),
        (tmp_path / "used", "is in use"),
        (3, "the path of a new folder is wanted, got int"),
        ("", "the path of a new folder is wanted, got ''"),
    ):
        with pytest.raises(ModelError, match=said):
            sample(level3, rows, store=store)


def test_what_cannot_be_written_is_said_once(tmp_path):
    tree = xr.DataTree(xr.Dataset({"ate": 0.5}))
    (tmp_path / "file").write_text("text")
    for target in (tmp_path, tmp_path / "file" / "answer.nc"):
        with pytest.raises(DataError, match="cannot be written"):
            save(tree, target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_numbers_of_replicates_that_cannot_test_anything(level3):
    rows = simulate(level3, 100, rng=1)
    found = estimate(level3, rows, n_boot=np.int64(4))
    assert found.attrs["n_boot"] == 4
    for n_boot in (0, 1.5, "many"):
        with pytest.raises(ModelError, match="n_boot must be a whole number of at least 20"):
            ladder(level3, rows, n_boot=n_boot)
        with pytest.raises(ModelError, match="n_boot must be a whole number of at least 20"):
            compare(found, found, n_boot=n_boot)
    with pytest.raises(ModelError, match="draws must be a whole number of at least 4"):
        log_evidence(level3, rows, draws=0)
    with pytest.raises(ModelError, match="random_seed must be a whole number"):
        log_evidence(level3, rows, random_seed=True)
    with pytest.raises(RefusedError, match="replicates of `estimate`"):
        log_evidence(level3, rows, posterior=found)
    with pytest.raises(ModelError, match="max_classes must be at most 50, got 60"):
        choose_classes(level3, rows, max_classes=60)


def test_too_few_draws_give_no_evidence(level3, tools):
    rows = simulate(level3, 300, rng=1)
    with pytest.raises(ModelError, match=r"particles of sampler='smc'.* at least 4, got 1"):
        sample(level3, rows, sampler="smc", draws=1, progressbar=False)
    short = tools.made_posterior(level3, rows, draws=1)
    short["posterior"].attrs["kind"] = "mcmc"
    with pytest.raises(RefusedError, match=r"of 13 parameters needs at least 26 draws in .* 2 chains, got 1"):
        log_evidence(level3, rows, posterior=short)


def test_seeds_are_compared_as_numbers(level3, tools):
    runs = [tools.made_posterior(level3, simulate(level3, 100, rng=1)) for _ in range(3)]
    for tree, seed in zip(runs, (True, np.int64(1), "0, 1"), strict=True):
        tree["posterior"].attrs["kind"] = "mcmc"
        tree.attrs["random_seed"] = seed
    for pair, said in ((runs[:2], r"\[1, 1\]"), (runs[1:], r"\[1, 0, 1\]")):
        with pytest.raises(DataError, match=f"random_seed {said} repeats"):
            merge(*pair)


def test_other_rows_are_told_in_plain_numbers(level3, tools):
    posts = {str(n): tools.made_posterior(level3, simulate(level3, n, rng=1)) for n in (100, 2_000)}
    with pytest.raises(DataError, match=r"numbers of rows: 100 100, 2000 2,000\)"):
        compare_models(posts)


def test_things_of_another_kind_are_named(level3, tmp_path):
    for figure in (plot_baselines, plot_class_choice, plot_role_splits):
        with pytest.raises(ModelError, match="CausalModel"):
            figure(level3)
    for use in (loo, plot_classes, plot_predictive):
        with pytest.raises(DataError, match="got CausalModel"):
            use(level3)
    with pytest.raises(DataError, match="got int"):
        merge(3, 3)
    with pytest.raises(DataError, match="save: a result"):
        save(level3, tmp_path / "new.nc")
    with pytest.raises(DataError, match="load: the path"):
        load(3)
    with pytest.raises(DataError, match="resume: the folder of a stored run is wanted, got int"):
        resume(3)
    (tmp_path / "text.nc").write_text("no result")
    for use in (loo, plot_classes):
        with pytest.raises(DataError, match="got NoneType"):
            use(None)
    for wrong, said in (([level3], "got list"), ({}, "got none"), (None, "got NoneType")):
        with pytest.raises(ModelError, match=said):
            compare_models(wrong)
    with pytest.raises(DataError, match="got CausalModel"):
        compare_models({"a": level3})
    with pytest.raises(ModelError, match="a result or a mapping"):
        plot_effects(None)
    with pytest.raises(ModelError, match="lacks"):
        plot_role_splits(pd.DataFrame({"ate": [1.0]}))
    with pytest.raises(DataError, match="NetCDF file from `save`"):
        load(tmp_path / "text.nc")
    with pytest.raises(ModelError, match=r"whole number of at least 1, got 2\.5"):
        simulate(level3, 2.5)
    with pytest.raises(ModelError, match="got int"):
        load_model(3)
    found = estimate(level3, simulate(level3, 100, rng=1), n_boot=0)
    with pytest.raises(RefusedError, match="given first"):
        compare(found, found)


def test_single_precision_is_refused(level3):
    with pytensor.config.change_flags(floatX="float32"), pytest.raises(RefusedError, match="floatX=float32"):
        build_model(level3, simulate(level3, 50, rng=1))


def test_mixtures_of_interventions_have_no_evidence():
    model = load_model("gallery:unknown_interventions")
    with pytest.raises(RefusedError, match="no evidence for a mixture of interventions"):
        log_evidence(model, simulate(model, 50, rng=1))
