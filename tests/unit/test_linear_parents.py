"""Linear parents: descriptions, densities and functionals, against sums and formulas written out here."""

from itertools import product

import networkx as nx
import numpy as np
import pytest
from scipy import special, stats

from pymc_mte import CausalModel, ModelError, RefusedError, population, simulate, tabulate, truth
from pymc_mte.data import columns_of, data_notes, resolve
from pymc_mte.families import FAMILIES, LINKS
from pymc_mte.functionals import functionals
from pymc_mte.gcomputation import simulated_functionals
from pymc_mte.network import draw_rows
from pymc_mte.quantiles import QUANTILE, quantile
from pymc_mte.regression import draw_given, log_joint_given
from pymc_mte.standardised import MAX_BLOCK, functionals_given
from pymc_mte.status import Status

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal"}
X = {"family": "normal", "centre": 0.3}
ROLES = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["x"]}

GRAPHS = {
    "number to number": {"z": B, "x": X, "t": {**B, "parents": ["z"]}, "y": {**N, "linear_parents": ["x"]}},
    "levels add up": {
        "z": C3,
        "x": C3,
        "t": {**B, "linear_parents": ["z"]},
        "y": {**B, "linear_parents": ["x", "m"]},
        "m": {**B, "linear_parents": ["t"]},
    },
    "both kinds of parents": {
        "z": X,
        "x": B,
        "t": {**B, "linear_parents": ["z"]},
        "y": {"family": "student_t", "parents": ["x"], "linear_parents": ["m"]},
        "m": {**X, "parents": ["t"], "scale_parents": True},
    },
    "by level": {
        "z": X,
        "x": {**C3, "linear_parents": ["g"]},
        "g": {"family": "ordinal", "levels": [1, 2, 3]},
        "t": {**C3, "linear_parents": ["z", "g"]},
        "y": {"family": "poisson", "linear_parents": ["x"], "latent": False},
    },
    "trials and logs": {
        "z": {"family": "binomial", "trials": 2, "linear_parents": ["g"]},
        "x": {"family": "gamma", "centre": 1.0},
        "g": {"family": "poisson", "centre": 2.0},
        "t": {**B, "linear_parents": ["z"]},
        "y": {"family": "binomial", "trials": 3, "linear_parents": ["x", "z2"]},
        "z2": {"family": "weibull", "linear_parents": ["g"], "centre": 1.5},
    },
}


def make(name, classes=2, **more):
    return CausalModel(classes=classes, variables=GRAPHS[name], **{**ROLES, **more})


def parameters_of(tools, model, rng, lead=()):
    out = tools.random_truth(model, rng)
    if model.covariates:
        out["baseline_weight"] = out.pop("class_weight")
    for name, dims in model.coefficient_dims.items():
        out[name] = rng.normal(0, 0.5, tuple(model.size(d) for d in dims))
    return out


def linear_part(model, par, name, row, c):
    """Sum of coefficients times terms, written out: a number, or one per level."""
    total, at = 0.0, 0
    coef = par[f"coef_{name}"]
    if model.covariates and name in ("t", "y"):
        for value in c:
            total, at = total + coef[..., at] * value, at + 1
    for parent in model.variables[name].linear_parents:
        var = model.variables[parent]
        if var.discrete:
            for level in range(1, len(var.labels)):
                total, at = total + coef[..., at] * (row[parent] == level), at + 1
        else:
            total, at = total + coef[..., at] * (row[parent] - var.centre), at + 1
    return total


def at_parents(model, par, name, parameter, u, row):
    var = model.variables[name]
    value = par[f"{parameter}_{name}"]
    dims = model.dims[f"{parameter}_{name}"]
    value = value[u] if "class" in dims else value
    for parent in var.parents:
        value = value[row[parent]] if parent in dims else value
    return value


def table_at(model, par, name, u, row, c):
    var, p = model.variables[name], at_parents(model, par, name, "p", u, row)
    if name in model.regressed:
        shift = linear_part(model, par, name, row, c)
        if var.trials is not None:
            p = special.expit(special.logit(p) + shift)
        else:
            p = p * np.exp(np.array([0.0, shift]) if var.family == "bernoulli" else shift)
            p = p / p.sum()
    return p if var.trials is None else stats.binom.pmf(np.arange(var.trials + 1), var.trials, p)


def numbers_at(model, par, name, u, row, c):
    var = model.variables[name]
    own = {p: at_parents(model, par, name, p, u, row) for p in var.spec.parameters}
    if name in model.regressed:
        moved, link = LINKS[var.family]
        shift = linear_part(model, par, name, row, c)
        own[moved] = own[moved] + shift if link == "identity" else own[moved] * np.exp(shift)
    return own


def scipy_law(family, own):
    if family == "normal":
        return stats.norm(own["mean"], own["sd"])
    if family == "student_t":
        return stats.t(own["nu"], own["mean"], own["sd"])
    if family == "poisson":
        return stats.poisson(own["rate"])
    if family == "gamma":
        return stats.gamma((own["mean"] / own["sd"]) ** 2, scale=own["sd"] ** 2 / own["mean"])
    return stats.weibull_min(own["shape"], scale=own["scale"])


def class_chance(model, par, c):
    if not model.covariates:
        return par["class_weight"]
    odds = np.log(par["baseline_weight"]) + par["coef_class"] @ c
    return np.exp(odds - special.logsumexp(odds))


def density_at(model, par, row, u, c):
    total = np.log(class_chance(model, par, c)[u])
    for name, var in model.variables.items():
        if var.discrete:
            total += np.log(table_at(model, par, name, u, row, c)[row[name]])
            continue
        law = scipy_law(var.family, numbers_at(model, par, name, u, row, c))
        total += law.logpmf(row[name]) if var.family == "poisson" else law.logpdf(row[name])
    return total


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
@pytest.mark.parametrize("name", GRAPHS)
def test_log_joint_equals_a_sum_written_out(tools, rng, name, covariates):
    model = make(name, covariates=covariates)
    par = parameters_of(tools, model, rng)
    c = rng.normal(size=(8, 2))
    given = c if covariates else None
    _, columns = draw_given(model, par, given, 8, rng)
    got = log_joint_given(model, par, columns, given)
    for r, u in product(range(8), range(2)):
        row = {n: columns[n][r] for n in model.variables}
        assert got[u, r] == pytest.approx(density_at(model, par, row, u, c[r]), rel=1e-11)


def walk(model, par, c, chance):
    """Sum over all cells of discrete variables: potential outcomes, the treated, what they gain."""
    arms = model.size("t")
    names = [n for n in model.order if n not in ("t", "y")]
    below = nx.descendants(model.graph, "t") & set(names)
    mean, treated, gain = np.zeros((2, arms)), 0.0, 0.0
    for u, cell in product(range(2), product(*(range(model.size(n)) for n in names))):
        row = dict(zip(names, cell, strict=True))
        for arm in range(arms):
            under = {**row, "t": arm}
            p = np.prod([table_at(model, par, n, u, under, c)[row[n]] for n in names])
            p_y = table_at(model, par, "y", u, under, c)
            value = p * (p_y @ np.arange(len(p_y)))
            mean[u, arm] += value
            before = [n for n in names if n not in below]
            if all(row[n] == 0 for n in below):  # once per cell of what precedes the treatment
                p_before = np.prod([table_at(model, par, n, u, row, c)[row[n]] for n in before])
                got = table_at(model, par, "t", u, row, c)[1]
                treated += chance[u] * p_before * got / arms
            got = table_at(model, par, "t", u, row, c)[1]
            gain += chance[u] * value * got * ((arm == 1) - (arm == 0))
    return mean, treated, gain


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
def test_functionals_over_levels_are_exact_sums(tools, rng, covariates):
    model = make("levels add up", covariates=covariates)
    par = parameters_of(tools, model, rng)
    c = rng.normal(size=(5, 2)) if covariates else np.zeros((1, 2))
    share = rng.dirichlet(np.ones(len(c)))
    found = functionals_given(model, {n: v[None] for n, v in par.items()}, c if covariates else None, share)
    weight, mean, treated, gain = np.zeros(2), np.zeros((2, 2)), 0.0, 0.0
    for s, row in zip(share, c, strict=True):
        chance = class_chance(model, par, row)
        by_class, got, more = walk(model, par, row, chance)
        weight, mean = weight + s * chance, mean + s * chance[:, None] * by_class
        treated, gain = treated + s * got, gain + s * more
    np.testing.assert_allclose(found["potential_outcome"][0], mean / weight[:, None], rtol=1e-11)
    np.testing.assert_allclose(found["ate"][0], (mean[:, 1] - mean[:, 0]).sum(), rtol=1e-10)
    np.testing.assert_allclose(found["att"][0], gain / treated, rtol=1e-10)


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
def test_simulated_functionals_come_near_the_exact_ones(tools, rng, covariates):
    model = make("levels add up", covariates=covariates)
    par = {n: v[None] for n, v in parameters_of(tools, model, rng).items()}
    c = rng.normal(size=(300, 2)) if covariates else None
    share = np.full(300, 1 / 300)
    exact = functionals_given(model, par, c, share)
    near = simulated_functionals(model, par, c, share, MAX_BLOCK)
    assert set(near) == set(exact)
    for name, value in near.items():
        np.testing.assert_allclose(value, exact[name], atol=0.01, err_msg=name)


def test_simulated_functionals_of_several_levels_and_trials(tools, rng):
    variables = {
        "g": C3,
        "x": {**C3, "linear_parents": ["g"]},
        "t": {**C3, "parents": ["g"], "linear_parents": ["x"]},
        "m": {"family": "binomial", "trials": 2, "linear_parents": ["t"]},
        "y": {"family": "binomial", "trials": 3, "parents": ["g"], "linear_parents": ["x", "m"]},
    }
    model = CausalModel(classes=2, variables=variables, treatment="t", outcome="y")
    par = {n: v[None] for n, v in parameters_of(tools, model, rng).items()}
    exact = functionals_given(model, par, None, np.ones(1))
    near = simulated_functionals(model, par, None, np.ones(1), MAX_BLOCK)
    assert set(near) == set(exact)
    for name, value in near.items():
        assert value.shape == exact[name].shape
        np.testing.assert_allclose(value, exact[name], atol=0.03, err_msg=name)


NODES, HERMITE = np.polynomial.hermite_e.hermegauss(80)
HERMITE = HERMITE / HERMITE.sum()


def confounded(family, linear):
    """Model where a number z precedes the treatment and a number x the outcome, and its parameters."""
    model = CausalModel(
        classes=2,
        variables={
            "z": X,
            "x": X,
            "t": {**B, "linear_parents": ["z"]},
            "y": {**family, "linear_parents": linear},
        },
        treatment="t",
        outcome="y",
    )
    par = {
        "class_weight": [0.6, 0.4], "mean_z": [-0.5, 1.0], "sd_z": [1.0, 0.7], "mean_x": [1.0, -1.0],
        "sd_x": [0.8, 1.2], "p_t": [[0.6, 0.4], [0.3, 0.7]], "coef_t": [0.9],
        "coef_y": [0.5, -0.7][: len(linear)],
    }  # fmt: skip
    return model, {n: np.asarray(v, dtype=float) for n, v in par.items()}


def test_normal_ancestors_of_a_normal_outcome_are_averaged_exactly():
    model, par = confounded(N, ["x"])
    par |= {"mean_y": np.array([[0.0, 1.0], [0.5, 3.0]]), "sd_y": np.ones(2)}
    found = functionals_given(model, par, None, np.ones(1))
    wanted = par["mean_y"] + 0.5 * (par["mean_x"] - 0.3)[:, None]
    np.testing.assert_allclose(found["potential_outcome"], wanted, atol=1e-12)
    odds = special.logit([0.4, 0.7])[:, None] + 0.9 * (
        par["mean_z"][:, None] + par["sd_z"][:, None] * NODES - 0.3
    )
    treated = par["class_weight"] * (special.expit(odds) @ HERMITE)
    np.testing.assert_allclose(
        found["att"], treated @ (wanted[:, 1] - wanted[:, 0]) / treated.sum(), atol=1e-3
    )


def test_mediators_follow_the_arm():
    model = CausalModel(
        classes=1,
        variables={
            "x": X,
            "t": {**B, "linear_parents": ["x"]},
            "m": {**N, "parents": ["t"], "linear_parents": ["x"], "centre": 0.0},
            "y": {**N, "linear_parents": ["m", "x"]},
        },
        treatment="t",
        outcome="y",
    )
    par = {n: np.asarray(v, dtype=float) for n, v in {
        "class_weight": [1.0], "mean_x": [0.2], "sd_x": [1.0], "p_t": [[0.5, 0.5]], "coef_t": [1.1],
        "mean_m": [[0.0, 2.0]], "sd_m": [0.5], "coef_m": [0.4], "mean_y": [[1.0, 1.5]], "sd_y": [1.0],
        "coef_y": [0.6, -0.3],
    }.items()}  # fmt: skip
    found = functionals_given(model, par, None, np.ones(1))
    np.testing.assert_allclose(found["ate"], 0.5 + 0.6 * 2.0, atol=1e-12)
    arm = np.array([1.0, 1.5]) + 0.6 * (np.array([0.0, 2.0]) + 0.4 * (0.2 - 0.3)) - 0.3 * (0.2 - 0.3)
    np.testing.assert_allclose(found["arm_mean"], arm, atol=1e-12)
    np.testing.assert_allclose(found["att"], found["ate"], atol=1e-12)


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
def test_simulated_means_match_numerical_integrals(family):
    model, par = confounded({"family": family}, ["x", "z"])
    at = np.array([[0.3, 0.6], [0.5, 0.8]])
    par |= {"p_y": np.stack([1 - at, at], axis=-1)} if family == "bernoulli" else {"rate_y": at}
    found = functionals_given(model, par, None, np.ones(1))
    z = par["mean_z"][:, None, None] + par["sd_z"][:, None, None] * NODES[:, None] - 0.3
    x = par["mean_x"][:, None, None] + par["sd_x"][:, None, None] * NODES - 0.3
    shift = (0.5 * x - 0.7 * z)[:, None]
    base = at[:, :, None, None]
    mean = special.expit(special.logit(base) + shift) if family == "bernoulli" else base * np.exp(shift)
    weight = HERMITE[:, None] * HERMITE
    outcomes = (mean * weight).sum(axis=(-1, -2))
    np.testing.assert_allclose(found["potential_outcome"], outcomes, rtol=4e-3)
    got = (
        special.expit(special.logit([0.4, 0.7])[:, None, None] + 0.9 * z) * par["class_weight"][:, None, None]
    )
    gain = (got * weight * (mean[:, 1] - mean[:, 0])).sum() / (got * weight).sum()
    np.testing.assert_allclose(found["att"], gain, rtol=4e-3)


@pytest.mark.parametrize("family", [n for n, f in FAMILIES.items() if not f.discrete])
def test_quantiles_invert_the_distribution(rng, family):
    spec = FAMILIES[family]
    values = {
        "mean": 2.0,
        "sd": 1.5,
        "nu": 6.0,
        "rate": 1.7,
        "dispersion": 0.8,
        "scale": 2.0,
        "shape": 1.4,
        "p_zero": 0.3,
    }
    own = [np.asarray(values[p]) for p in spec.parameters]
    u = (np.arange(20_000) + 0.5) / 20_000
    found = quantile(family, u, *own)
    assert (np.diff(found) >= 0).all()
    assert found.mean() == pytest.approx(float(spec.law.mean(*own)), rel=2e-3)
    spread = own[:2] if family == "student_t" else own
    drawn = spec.draw(rng, *(np.full(20_000, v) for v in spread), *own[len(spread) :])
    assert stats.ks_2samp(found, drawn).pvalue > 1e-4
    assert family.removeprefix("hurdle_") in QUANTILE


@pytest.mark.parametrize("mean", [0.3, 7.0, 400.0, 3_000.0])
def test_quantiles_of_counts_are_scipys(mean):
    u = np.linspace(0.0007, 0.9993, 500)
    np.testing.assert_array_equal(quantile("poisson", u, np.asarray(mean)), stats.poisson.ppf(u, mean))
    found = quantile("negative_binomial", u, np.asarray(mean), np.asarray(0.6))
    np.testing.assert_array_equal(found, stats.nbinom.ppf(u, 1 / 0.6, 1 / (1 + 0.6 * mean)))


STATED = {
    "class_weight": [0.6, 0.4],
    "z": {"p": [0.2, 0.8]},
    "x": {"mean": [-1.0, 1.5], "sd": [1.0, 1.0]},
    "t": {"p": [[0.2, 0.5], [0.5, 0.8]]},
    "y": {"mean": [[0.0, 1.0], [1.0, 3.0]], "sd": [1.0, 1.0], "coef": [0.7]},
}


def test_simulate_and_truth():
    model = make("number to number", truth=STATED)
    known = truth(model)
    assert known["ate"] == pytest.approx(0.6 * 1 + 0.4 * 2)
    assert known["coef_y"].dims == ("y_term",)
    assert known["y_term"].values.tolist() == ["x"]
    rows = simulate(model, 40_000, rng=1).to_dataframe()
    for (u, arm), part in rows.groupby(["latent_class", "t"]):
        wanted = STATED["y"]["mean"][u][arm] + 0.7 * (STATED["x"]["mean"][u] - 0.3)
        assert part["y"].mean() == pytest.approx(wanted, abs=0.06)
        assert np.polyfit(part["x"], part["y"], 1)[0] == pytest.approx(0.7, abs=0.03)


def test_population_of_levels_sums_to_one_and_matches_draws(tools, rng):
    model = make("levels add up")
    par = parameters_of(tools, model, rng)
    stated = {n: {} for n in model.variables} | {"class_weight": par["class_weight"].tolist()}
    for name, value in par.items():
        if name.startswith("coef_"):
            stated[name.removeprefix("coef_")]["coef"] = value.tolist()
        elif name != "class_weight":
            variable, parameter = model.owners[name]
            last = value[..., 1] if model.variables[variable].family == "bernoulli" else value
            stated[variable][parameter] = last.tolist()
    model = model.with_fields(truth=stated)
    table = population(model)
    assert float(table["count"].sum()) == pytest.approx(1.0)
    drawn = tabulate(simulate(model, 50_000, rng=2), model)
    share = {
        tuple(int(v[i]) for v in columns_of(drawn, model).values()): n / 50_000
        for i, n in enumerate(drawn["count"].values)
    }
    for i, p in enumerate(table["count"].values):
        cell = tuple(int(v[i]) for v in columns_of(table, model).values())
        assert share.get(cell, 0.0) == pytest.approx(p, abs=0.01)


def test_centres_are_the_means_of_the_rows():
    plain = CausalModel(**{"classes": 2, "variables": {**GRAPHS["number to number"], "x": N}, **ROLES})
    rows = simulate(make("number to number", truth=STATED), 500, rng=3)
    model, _ = resolve(plain, rows)
    assert model.variables["x"].centre == pytest.approx(float(rows["x"].mean()))
    assert CausalModel.from_toml(model.to_toml()) == model
    again, _ = resolve(model, rows.isel(row=slice(0, 50)))
    assert again.variables["x"].centre == model.variables["x"].centre


@pytest.mark.parametrize(("centre", "told"), [(0.3, 0), (-2.0, 0), (-2.2, 1), (7.0, 0), (7.2, 1)])
def test_a_centre_far_outside_the_values_is_told(centre, told):
    """The values go from 0 to 5 with a standard deviation of 2.1; more than one of these outside counts."""
    variables = {**GRAPHS["number to number"], "x": {**N, "centre": centre}}
    model = CausalModel(classes=2, variables=variables, **ROLES)
    rows = {"z": [0, 1, 0, 1, 1], "x": [0.0, 1.0, 4.0, 5.0, 0.0], "t": [0, 1, 1, 0, 1], "y": np.arange(5.0)}
    notes = [note for note in data_notes(tabulate(rows, model)) if note.status is Status.CENTRE_OUTSIDE]
    assert len(notes) == told
    if told:
        assert (notes[0].where, notes[0].detail) == ("x", f"{centre:g}, and the values go from 0 to 5")


def test_a_centre_of_no_linear_parent_is_not_told():
    variables = {"x": {**N, "centre": 99.0}, "y": N}
    rows = {"x": [0.0, 1.0, 4.0], "y": np.arange(3.0)}
    assert data_notes(tabulate(rows, CausalModel(classes=2, variables=variables))) == []


def test_linear_parts_that_do_not_vary_are_told():
    """Their coefficients do not vary either, so that no interval shows it; of tables the priors speak."""
    levels = {"family": "categorical", "levels": ["a", "b", "c", "d"]}
    variables = {"g": levels, "h": levels, "w": N, "y": {**N, "linear_parents": ["g", "w"]}, "t": B}
    given = {"treatment": "t", "outcome": "y", "covariates": ["age", "sex", "site"]}
    model = CausalModel(classes=2, variables=variables, **given)
    rows = {"g": ["b", "d", "b"], "h": ["a", "a", "b"], "w": [2.0] * 3, "y": [0.0, 1.0, 2.0], "t": [0, 1, 1]}
    rows |= {"age": [30.0] * 3, "sex": [0.0, 1.0, 1.0], "site": ["p", "q", "q"]}
    found = [note for note in data_notes(tabulate(rows, model)) if note.status is Status.NO_VARIATION]
    told = {"g": "no row has a, c", "w": "2 in all rows", "age": "30 in all rows"}
    assert {note.where: note.detail for note in found} == told
    rows |= {"g": ["b", "d", "c"], "w": [0.0, 1.0, 2.0], "age": [30.0, 31.0, 30.0]}
    variables["g"] = {**levels, "levels": ["b", "c", "d"]}
    varied = data_notes(tabulate(rows, CausalModel(classes=2, variables=variables, **given)))
    assert [note.status for note in varied] == [Status.FEWER_ROWS_THAN_PARAMETERS]


def test_the_graph_counts_linear_parents():
    model = make("levels add up")
    assert set(model.graph.edges) == {("z", "t"), ("t", "y"), ("x", "y"), ("m", "y"), ("t", "m")}
    assert model.order.index("m") < model.order.index("y")
    assert model.terms == {"t": ("z = b", "z = c"), "y": ("x = b", "x = c", "m = 1"), "m": ("t = 1",)}


def refused(variables, match, **more):
    with pytest.raises(ModelError, match=match):
        CausalModel(**{"classes": 2, "variables": variables, **ROLES, **more})


PLAIN = {"z": B, "x": N, "t": {**B, "parents": ["z"]}, "y": N}


def test_descriptions_that_are_refused():
    refused({**PLAIN, "y": {**N, "parents": ["x"]}}, "list it in linear_parents")
    refused({**PLAIN, "y": {**N, "linear_parents": ["q"]}}, "y.linear_parents: 'q' is not a variable")
    refused({**PLAIN, "y": {**N, "linear_parents": ["t"]}}, "list it in parents")
    refused({**PLAIN, "y": {**N, "linear_parents": ["x", "x"]}}, "listed twice")
    refused({**PLAIN, "t": {**B, "parents": ["z"], "linear_parents": ["z"]}}, "listed twice")
    refused(
        {**PLAIN, "y": {**N, "linear_parents": ["z"]}}, "y.linear_parents: the edge z -> y breaks the role"
    )
    refused({**PLAIN, "x": {**N, "linear_parents": ["y"]}}, "breaks the role of 'x'")
    refused({**PLAIN, "z": {**B, "linear_parents": ["t"]}}, "cycle")
    refused({**PLAIN, "y": {"family": "hurdle_gamma", "linear_parents": ["x"]}}, "'y' is hurdle_gamma")
    refused(
        {**PLAIN, "x": {**N, "linear_parents": ["g"]}, "g": {"family": "weibull", "event": "seen"}},
        "censored time",
    )
    refused({**PLAIN, "y": {**N, "linear_parents": ["x"]}, "y_term": N}, "axis of the coefficients")
    refused({**PLAIN, "x": {**B, "centre": 1.0}}, "centre: a bernoulli variable has levels")


def test_truths_that_are_refused():
    with pytest.raises(ModelError, match=r"variables\.x\.centre: missing"):
        CausalModel(
            **{"classes": 2, "variables": {**GRAPHS["number to number"], "x": N}, **ROLES, "truth": STATED}
        )
    lacking = {**STATED, "y": {k: v for k, v in STATED["y"].items() if k != "coef"}}
    with pytest.raises(ModelError, match=r"truth.y.coef: missing; it needs one for \['x'\]"):
        make("number to number", truth=lacking)
    with pytest.raises(ModelError, match=r"truth.y.coef: expected the shape \(1,\)"):
        make("number to number", truth={**STATED, "y": {**STATED["y"], "coef": [1.0, 2.0]}})


def test_what_reads_tables_alone_never_answers(rng):
    model = make("number to number", truth=STATED)
    with pytest.raises(RefusedError, match="this analysis reads full tables"):
        draw_rows(model, model.true_parameters(), 5, rng)
    with pytest.raises(RefusedError, match=r"linear parents \(x\) shift 'y'"):
        functionals(model, model.true_parameters())
