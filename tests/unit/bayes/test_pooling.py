"""Partial pooling: log-densities against brute force; a fit with sites has one set of classes."""

import json

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from scipy import special, stats

from pymc_mte import CausalModel, DataError, ModelError, build_model, load_model, sample, simulate, tabulate
from pymc_mte.bayes.groups import pattern_log_likelihood
from pymc_mte.bayes.pooling import pooled_values
from pymc_mte.bayes.priors import prior_record
from pymc_mte.bayes.start import with_first_levels, without_first_levels
from pymc_mte.functionals import functionals

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal"}
MODE = "FAST_COMPILE"
MODEL = CausalModel(
    classes=2, variables={"z": C3, "t": {**B, "parents": ["z"]}, "y": {**N, "parents": ["t"]}}
)


def frame_of(model, tools, rng, n):
    frame = simulate(tools.with_truth(model, tools.random_truth(model, rng)), n, rng=rng).to_dataframe()
    return frame.assign(site=rng.choice(["north", "south", "west"], n))


def at(built, point, names):
    replaced = built.replace_rvs_by_values([built[n] for n in names])
    compiled = built.compile_fn(replaced, inputs=built.value_vars, mode=MODE, on_unused_input="ignore")
    return dict(zip(names, compiled(point), strict=True))


def moved(built, rng):
    return {n: v + 0.5 * rng.normal(size=np.shape(v)) for n, v in built.initial_point().items()}


def row_probability(parameters, weight, row):
    p = 0.0
    for u in range(2):
        own = (
            parameters["p_z"][u, "abc".index(row["z"])]
            * parameters["p_t"][u, "abc".index(row["z"]), row["t"]]
        )
        own *= stats.norm(parameters["mean_y"][u, row["t"]], parameters["sd_y"][u]).pdf(row["y"])
        p += weight[u] * own
    return p


@pytest.mark.parametrize("grid", [None, 1e-5])
def test_class_weights_by_group(tools, rng, grid):
    frame = frame_of(MODEL, tools, rng, 50)
    built = build_model(MODEL, frame, group="site", grid=grid)
    point = moved(built, rng)
    names = [
        *MODEL.dims,
        "group_class_weight",
        "class_weight_shared",
        "class_weight_spread",
        "class_weight_offset",
    ]
    found = at(built, point, names)
    parameters = with_first_levels(MODEL, {n: found[n] for n in MODEL.dims})
    wanted = found["class_weight_shared"] * np.exp(
        found["class_weight_spread"] * found["class_weight_offset"]
    )
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["group_class_weight"], wanted, atol=1e-12)
    sites = ["north", "south", "west"]
    share = [(frame["site"] == s).mean() for s in sites]
    np.testing.assert_allclose(found["class_weight"], share @ wanted, atol=1e-12)
    total = 0.0
    for row in frame.to_dict("records"):
        total += np.log(row_probability(parameters, wanted[sites.index(row["site"])], row))
    got = float(built.compile_logp(vars=built.observed_RVs, mode=MODE)(point))
    counts = built["count"].get_value()
    assert counts.shape == (3, 6)
    got -= special.gammaln(counts.sum(axis=1) + 1).sum() - special.gammaln(counts + 1).sum()
    assert got - (0 if grid is None else 50 * np.log(grid)) == pytest.approx(
        total, rel=1e-10 if grid is None else 1e-4
    )
    table = tabulate(frame, MODEL, group="site")
    draws = xr.Dataset(
        {
            n: (("chain", "draw", *(f"{n}{i}" for i in range(v.ndim))), v[None, None])
            for n, v in (parameters | {"group_class_weight": wanted}).items()
        }
    )
    log_p = pattern_log_likelihood(MODEL, draws, table).values[0, 0]
    assert log_p @ table["count"].values == pytest.approx(total, rel=1e-10)


POOLED = CausalModel(
    classes=2,
    variables={
        "z": C3,
        "x": B,
        "s": {"family": "binomial", "trials": 2},
        "t": {**B, "parents": ["z"]},
        "y": {**N, "parents": ["t"]},
    },
)


def test_mechanisms_pooled_over_classes(tools, rng):
    frame = frame_of(POOLED, tools, rng, 40)
    priors = {n: {"pooled": 0.5} for n in ("p_z", "p_t", "p_s", "mean_y")}
    built = build_model(POOLED, frame, priors=priors)
    point = moved(built, rng)
    names = [f"{n}{part}" for n in priors for part in ("", "_shared", "_spread", "_offset")]
    found = at(built, point, names)
    scale = float(built["pooled_sd_y"].get_value())
    for name in priors:
        shared, spread, offset = (found[f"{name}_{part}"] for part in ("shared", "spread", "offset"))
        if name == "p_z":
            wanted = special.softmax(np.log(shared) + spread * offset, axis=-1)
        elif name == "mean_y":
            wanted = shared + scale * spread * offset
        else:
            wanted = special.expit(special.logit(shared) + spread * offset)
        np.testing.assert_allclose(found[name], wanted, atol=1e-12)
        assert found[f"{name}_shared"].shape == found[name].shape[1:]
    assert pm.logp(built["p_t_spread"], 0.3).eval(mode=MODE) == pytest.approx(
        stats.halfnorm(0, 0.5).logpdf(0.3), rel=1e-6
    )
    wanted = stats.beta(2, 2).logpdf([0.2, 0.3, 0.6])
    np.testing.assert_allclose(
        pm.logp(built["p_t_shared"], np.array([0.2, 0.3, 0.6])).eval(mode=MODE), wanted, rtol=1e-6
    )


def test_starts_of_pooled_parameters_are_the_given_point(tools, rng):
    frame = frame_of(POOLED, tools, rng, 40)
    priors = {n: {"pooled": 0.5} for n in ("p_z", "p_t", "p_s", "mean_y")}
    built = build_model(POOLED, frame, priors=priors, group="site")
    start = without_first_levels(POOLED, tools.random_truth(POOLED, rng))
    values = pooled_values(built, POOLED, start, {"y": float(built["pooled_sd_y"].get_value())})
    assert set(values) == {rv.name for rv in built.free_RVs}
    there = pm.do(built, values)
    found = pm.draw([there[n] for n in (*priors, "group_class_weight", "class_weight")], mode=MODE)
    for name, value in zip(priors, found, strict=False):
        np.testing.assert_allclose(value, start[name], atol=1e-10)
    np.testing.assert_allclose(found[-2], np.tile(start["class_weight"], (3, 1)), atol=1e-12)


def test_what_cannot_be_pooled(level3):
    rows = simulate(level3, 30)
    with pytest.raises(ModelError, match="positive scale"):
        build_model(level3, rows, priors={"p_x": {"pooled": -1}})
    with pytest.raises(ModelError, match="varies with the class"):
        build_model(level3, rows, priors={"class_weight": {"pooled": 1}})
    with pytest.raises(DataError, match="have no groups"):
        build_model(level3, tabulate(rows, level3), group="site")
    with pytest.raises(ModelError, match="with groups it is a concentration"):
        build_model(level3, rows.assign(s=rows["z"]), group="s", priors={"class_weight": {"pooled": 1.0}})


@pytest.mark.slow
def test_sites_share_their_classes():
    """Two sites with class weights 0.2 and 0.7: each within 4 posterior SDs, classes aligned alike."""
    level3 = load_model("gallery:level3")
    fields = {n: getattr(level3, n) for n in type(level3).model_fields}
    frames = []
    for i, share in enumerate((0.2, 0.7)):
        truth = {**fields["truth"], "class_weight": [share, 1 - share]}
        site = CausalModel(**{**fields, "truth": truth})
        frames.append(simulate(site, 8_000, rng=i).to_dataframe().assign(site=f"s{i}"))
    post = sample(level3, pd.concat(frames), group="site", draws=400, tune=400, chains=2, progressbar=False)
    draws = post["posterior"]["group_class_weight"]
    assert draws.dims == ("chain", "draw", "group", "class")
    first = draws.sel({"class": int(np.argmin(level3_effects(level3)) != 0)})  # class 0 of the truth
    for i, share in enumerate((0.2, 0.7)):
        own = first.isel(group=i)
        assert abs(float(own.mean()) - share) < 4 * float(own.std())
    assert post["posterior_predictive"]["counts"].dims == ("chain", "draw", "group", "cell")


def level3_effects(model):
    return functionals(model, model.true_parameters())["effect"]


def test_the_record_of_priors_covers_every_parameter():
    found = prior_record(POOLED, {"p_x": {"pooled": 0.5}, "mean_y": lambda name, dims: None, "p_t": 3.0})
    assert json.loads(json.dumps(found)) == {
        "class_weight": "Dirichlet(2)",
        "p_z": "Dirichlet(2)",
        "p_x": {"pooled": 0.5},
        "p_s": "Beta(2, 2)",
        "p_t": 3.0,
        "mean_y": "a function of the caller",
        "sd_y": "HalfNormal(2.5 pooled SD)",
    }
