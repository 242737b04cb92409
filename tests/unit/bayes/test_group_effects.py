"""Groups with class weights and effects of their own: densities and answers against plain loops."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from scipy import special, stats

from pymc_mte import (
    CausalModel,
    ModelError,
    RefusedError,
    add_to_model,
    build_model,
    do,
    predict,
    sample,
    simulate,
    tabulate,
)
from pymc_mte.bayes.groups import pattern_log_likelihood
from pymc_mte.bayes.learnt import prior_draws
from pymc_mte.bayes.pooling import pooled_values
from pymc_mte.bayes.priors import prior_record
from pymc_mte.bayes.start import with_first_levels, without_first_levels
from pymc_mte.functionals import functionals
from pymc_mte.regression import given_rows
from pymc_mte.results import dataset, provenance
from pymc_mte.sites import group_functionals

B = {"family": "bernoulli"}
MODE = "FAST_COMPILE"
SITES = ["east", "north", "west"]
PRIORS = {"group_effect": {"pooled": 0.8}}
OUTCOMES = {
    "bernoulli": B,
    "binomial": {"family": "binomial", "trials": 3},
    "normal": {"family": "normal"},
    "student_t": {"family": "student_t", "latent": False},
    "poisson": {"family": "poisson"},
    "weibull": {"family": "weibull"},
}


def make(outcome, reference=None):
    return CausalModel(
        classes=2,
        variables={
            "z": {"family": "categorical", "levels": ["a", "b", "c"]},
            "w": {"family": "normal"},
            "t": {"family": "categorical", "levels": [0, 1, 2], "parents": ["z"]},
            "y": {**OUTCOMES[outcome], "parents": ["z", "t"]},
        },
        treatment="t",
        outcome="y",
        reference=reference,
    )


def frame_of(model, tools, rng, n=60):
    frame = simulate(tools.with_truth(model, tools.random_truth(model, rng)), n, rng=rng).to_dataframe()
    return frame.assign(site=[*SITES, *rng.choice(SITES, n - 3)])


def at(built, point, names):
    replaced = built.replace_rvs_by_values([built[n] for n in names])
    compiled = built.compile_fn(replaced, inputs=built.value_vars, mode=MODE, on_unused_input="ignore")
    return dict(zip(names, compiled(point), strict=True))


def law(model, par, u, z, t, add):
    """Outcome of one class, cell and shift: a frozen distribution of SciPy."""
    family = model.variables["y"].family
    if family in ("bernoulli", "binomial"):
        p = par["p_y"][u, z, t, 1] if family == "bernoulli" else par["p_y"][u, z, t]
        return stats.binom(3 if family == "binomial" else 1, special.expit(special.logit(p) + add))
    if family == "poisson":
        return stats.poisson(par["rate_y"][u, z, t] * np.exp(add))
    if family == "weibull":
        return stats.weibull_min(par["shape_y"][u], scale=par["scale_y"][u, z, t] * np.exp(add))
    if family == "student_t":
        return stats.t(par["nu_y"], par["mean_y"][z, t] + add, par["sd_y"])
    return stats.norm(par["mean_y"][u, z, t] + add, par["sd_y"][u])


def rows_log_p(model, par, weight, shift, frame):
    discrete = model.variables["y"].discrete
    out = []
    for row in frame.to_dict("records"):
        g, z, t = SITES.index(row["site"]), "abc".index(row["z"]), row["t"]
        p = 0.0
        for u in range(2):
            own = law(model, par, u, z, t, shift[g, t])
            y = (own.pmf if discrete or model.variables["y"].family == "poisson" else own.pdf)(row["y"])
            own = weight[g, u] * par["p_z"][u, z] * par["p_t"][u, z, t] * y
            p += own * stats.norm(par["mean_w"][u], par["sd_w"][u]).pdf(row["w"])
        out.append(np.log(p))
    return np.array(out)


@pytest.mark.parametrize(
    ("outcome", "reference"), [*((outcome, None) for outcome in OUTCOMES), ("normal", 2)]
)
def test_log_density_equals_a_loop(tools, rng, outcome, reference):
    model = make(outcome, reference)
    frame = frame_of(model, tools, rng)
    built = build_model(model, frame, group="site", priors=PRIORS)
    point = {n: v + 0.5 * rng.normal(size=np.shape(v)) for n, v in built.initial_point().items()}
    spreads, offsets = (
        ("group_level_spread", "group_effect_spread"),
        ("group_level_offset", "group_effect_offset"),
    )
    found = at(built, point, [*model.dims, "group_class_weight", "group_shift", *spreads, *offsets])
    scale = float(built["pooled_sd_y"].get_value()) if outcome in ("normal", "student_t") else 1.0
    level, away = (found[o] - found[o].mean(axis=0) for o in offsets)
    shift = np.tile(found[spreads[0]] * level[:, None], 3)
    away = found[spreads[1]] * away
    shift[:, [t for t in range(3) if t != (reference or 0)]] += away
    np.testing.assert_allclose(found["group_shift"], scale * shift, atol=1e-12)
    par = with_first_levels(model, {n: found[n] for n in model.dims})
    wanted = rows_log_p(model, par, found["group_class_weight"], scale * shift, frame)
    got = float(built.compile_logp(vars=built.observed_RVs, mode=MODE)(point))
    counts = built["count"].get_value()
    got -= special.gammaln(counts.sum(axis=1) + 1).sum() - special.gammaln(counts + 1).sum()
    assert got == pytest.approx(wanted.sum(), rel=1e-10)
    table = tabulate(frame, model, group="site")
    drawn = par | {n: found[n] for n in ("group_class_weight", "group_shift")}
    draws = xr.Dataset(
        {n: (("chain", "draw", *(f"{n}{i}" for i in range(v.ndim))), v[None, None]) for n, v in drawn.items()}
    )
    log_p = pattern_log_likelihood(model, draws, table).values[0, 0]
    assert log_p @ table["count"].values == pytest.approx(wanted.sum(), rel=1e-10)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_answers_equal_a_loop(tools, rng, outcome):
    model, share = make(outcome), np.array([0.2, 0.5, 0.3])
    draws = [tools.random_truth(model, rng) for _ in range(2)]
    weight, shift = rng.dirichlet([2, 2], size=(2, 3)), rng.normal(size=(2, 3, 3))
    values = {n: np.stack([d[n] for d in draws])[None] for n in draws[0]}
    values |= {"group_class_weight": weight[None], "group_shift": shift[None]}
    over_all, each = group_functionals(model, values, share)
    for d, par in enumerate(draws):
        people, total, treated, gain = np.zeros(2), np.zeros((2, 3)), 0.0, 0.0
        for g, u in np.ndindex(3, 2):
            mean = np.array(
                [[law(model, par, u, z, t, shift[d, g, t]).mean() for t in range(3)] for z in range(3)]
            )
            own = par["p_z"][u] @ mean
            np.testing.assert_allclose(each["group_effect"][0, d, g, u], own[1:] - own[0], atol=1e-10)
            here = share[g] * weight[d, g, u]
            people[u] += here
            total[u] += here * own
            got = here * par["p_z"][u] * par["p_t"][u][:, 1]
            treated += got.sum()
            gain += got @ (mean[:, 1] - mean[:, 0])
        outcomes = total / people[:, None]
        np.testing.assert_allclose(over_all["class_weight"][0, d], people, atol=1e-12)
        np.testing.assert_allclose(over_all["potential_outcome"][0, d], outcomes, atol=1e-10)
        ate = people @ (outcomes[:, 1:] - outcomes[:, :1])
        np.testing.assert_allclose(over_all["ate"][0, d], ate, atol=1e-10)
        np.testing.assert_allclose(over_all["att"][0, d, 0], gain / treated, atol=1e-10)
        np.testing.assert_allclose(share @ each["group_ate"][0, d], ate, atol=1e-10)


def test_no_shift_gives_the_answers_without_groups(tools, rng):
    model = make("bernoulli")
    par = tools.random_truth(model, rng)
    values = {n: v[None] for n, v in par.items()} | {"group_shift": np.zeros((1, 4, 3))}
    values["group_class_weight"] = np.tile(par["class_weight"], (1, 4, 1))
    over_all, each = group_functionals(model, values, np.full(4, 0.25))
    for name, value in functionals(model, par).items():
        np.testing.assert_allclose(over_all[name][0], value, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(each["group_effect"][0], np.tile(functionals(model, par)["effect"], (4, 1, 1)))


def test_starts_prior_draws_and_record(tools, rng):
    model = make("normal")
    frame = frame_of(model, tools, rng)
    built = build_model(model, frame, group="site", priors=PRIORS)
    start = without_first_levels(model, tools.random_truth(model, rng))
    values = pooled_values(built, model, start, {"y": 1.0, "w": 1.0})
    assert set(values) == {rv.name for rv in built.free_RVs}
    there = pm.do(built, values)
    np.testing.assert_array_equal(pm.draw(there["group_shift"], mode=MODE), np.zeros((3, 3)))
    table = tabulate(frame, model, group="site")
    drawn = prior_draws(model, built, 300, 1, given_rows(model, table))
    np.testing.assert_allclose(drawn["class_weight"].sum(axis=1), 1.0)
    ate = (drawn["class_weight"][..., None] * drawn["effect"]).sum(axis=1)
    np.testing.assert_allclose(drawn["ate"], ate, atol=1e-9)
    assert "group_shift" not in drawn
    assert prior_record(model, PRIORS)["group_effect"] == {"pooled": 0.8}
    assert "group_effect" not in prior_record(model, None)


def test_what_is_refused(tools, rng):
    model = make("normal")
    frame = frame_of(model, tools, rng)
    with pytest.raises(ModelError, match="name their column as group"):
        build_model(model, frame, priors=PRIORS)
    for prior, said in ((0.5, "of the form"), ({"pooled": 0}, "positive scale")):
        with pytest.raises(ModelError, match=said):
            build_model(model, frame, group="site", priors={"group_effect": prior})
    with pytest.raises(ModelError, match="leave grid or group_effect out"):
        build_model(model, frame, group="site", priors=PRIORS, grid=0.5)
    with pm.Model(), pytest.raises(ModelError, match="use `build_model`"):
        add_to_model(model, frame, group="site", priors=PRIORS)
    costs = {"family": "hurdle_gamma"}
    other = CausalModel(classes=2, variables={"z": B, "t": B, "y": costs}, treatment="t", outcome="y")
    rows = {"z": [0, 1] * 3, "t": [0, 1, 1] * 2, "y": [0.0, 1.0, 2.0] * 2, "site": list("aabbcc")}
    with pytest.raises(ModelError, match="no one scale"):
        build_model(other, rows, group="site", priors=PRIORS)
    alone = CausalModel(classes=2, variables={"z": B})
    with pytest.raises(ModelError, match="no such parameter"):
        build_model(alone, rows, group="site", priors=PRIORS)
    values = {n: v[None, None] for n, v in tools.random_truth(model, rng).items()}
    post = dataset(model, values).assign(
        group_shift=(("chain", "draw", "group", "treatment"), np.zeros((1, 1, 2, 3)))
    )
    tree = xr.DataTree.from_dict({"posterior": post})
    tree.attrs = provenance(model, method="posterior")
    with pytest.raises(RefusedError, match="groups have effects of their own"):
        predict(tree, {"z": ["a"]})
    with pytest.raises(RefusedError, match="effects of groups"):
        do(tree, {"t": 1})


SITE_LEVEL = np.array([-0.9, -0.3, 0.0, 0.2, 0.4, 0.8])
SITE_EFFECT = np.array([-1.0, 0.6, 0.0, -0.4, 0.9, 0.3])
SITE_WEIGHT = np.array([0.3, 0.4, 0.5, 0.5, 0.6, 0.7])


@pytest.mark.slow
def test_six_sites_are_recovered():
    """Normal outcome, 400 rows a site: every site's effects within 4 posterior SDs and near."""
    truth = {"class_weight": [0.5, 0.5], "z": {"p": [0.2, 0.8]}}
    truth |= {"x": {"mean": [-1.0, 1.0], "sd": [0.7, 0.7]}}
    truth |= {"t": {"p": [[0.3, 0.5], [0.5, 0.7]]}}
    frames, number = [], {"family": "normal"}
    for i in range(6):
        mean = np.array([[0.0, -0.5], [1.0, 2.5]]) + SITE_LEVEL[i] + SITE_EFFECT[i] * np.array([0, 1])
        own = truth | {"class_weight": [1 - SITE_WEIGHT[i], SITE_WEIGHT[i]]}
        model = CausalModel(
            classes=2,
            variables={"z": B, "x": number, "t": {**B, "parents": ["z"]}, "y": number},
            treatment="t",
            outcome="y",
            treatment_proxies=["z"],
            outcome_proxies=["x"],
            truth=own | {"y": {"mean": mean.tolist(), "sd": [0.8, 0.8]}},
        )
        frames.append(simulate(model, 400, rng=i).to_dataframe().assign(site=f"s{i}"))
    options = {"draws": 400, "tune": 400, "chains": 2, "progressbar": False}
    post = sample(model, pd.concat(frames), group="site", priors={"group_effect": {"pooled": 0.5}}, **options)
    draws = post["posterior"].to_dataset()
    assert draws["group_effect"].dims == ("chain", "draw", "group", "class")
    effect = np.array([-0.5, 1.5]) + SITE_EFFECT[:, None]
    ate = (1 - SITE_WEIGHT) * effect[:, 0] + SITE_WEIGHT * effect[:, 1]
    for name, right in (("group_effect", effect), ("group_ate", ate), ("ate", ate.mean())):
        mean, sd = (draws[name].mean(("chain", "draw")).values, draws[name].std(("chain", "draw")).values)
        assert (np.abs(mean - right) < 4 * sd).all(), name
        assert (sd < 0.15).all(), name
    np.testing.assert_allclose(draws["group_ate"].mean("group"), draws["ate"], atol=1e-9)
    assert "group_effect_spread" in draws
    assert '"group_effect": {"pooled": 0.5}' in post.attrs["priors"]
