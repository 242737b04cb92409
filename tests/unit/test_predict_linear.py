"""Predictions with linear parents, against loops over cells, closed forms and quadrature written out here."""

import numpy as np
import pytest
import xarray as xr
from scipy import special, stats

from pymc_mte import CausalModel, RefusedError, load_model, policy, predict, sample, simulate
from pymc_mte.results import dataset, provenance
from pymc_mte.standardised import functionals_given
from pymc_mte.unit_outcomes import UnitOutcomes

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal"}
X = {"family": "normal", "centre": 0.3}
ROLES = {"treatment": "t", "outcome": "y"}
LEVELS = {
    "v": {**B, "latent": False},
    "z": {**C3, "parents": ["v"]},
    "t": {"family": "categorical", "levels": [0, 1, 2], "linear_parents": ["z", "v"]},
    "m": {**B, "parents": ["z"], "linear_parents": ["t"]},
    "s": {**B, "linear_parents": ["m"]},
    "y": {**B, "parents": ["t"], "linear_parents": ["m", "z"]},
}
NODES, HERMITE = np.polynomial.hermite_e.hermegauss(80)
HERMITE = HERMITE / HERMITE.sum()


def result(model, draws, **about):
    """A result with these sets of parameters as its draws, in one chain."""
    stacked = {n: np.stack([d[n] for d in draws])[None] for n in draws[0]}
    tree = xr.DataTree.from_dict({"posterior": dataset(model, stacked)})
    tree.attrs = provenance(model, method="posterior", **about)
    return tree


def random_draws(tools, model, rng, n=2):
    out = []
    for _ in range(n):
        own = tools.random_truth(model, rng)
        if model.covariates:
            own["baseline_weight"] = own["class_weight"]
        for name, dims in model.coefficient_dims.items():
            own[name] = rng.normal(0, 0.6, tuple(model.size(d) for d in dims))
        out.append(own)
    return out


def tilted(p, lift):
    p = p * np.exp(lift)
    return p / p.sum()


def law_of(par, name, u, cell, c):
    """Distribution of one of `LEVELS` in a class, its linear part written out."""
    z, t = np.arange(1, 3) == cell["z"], np.arange(1, 3) == cell["t"]
    if name == "v":
        return par["p_v"]
    if name == "z":
        return par["p_z"][u, cell["v"]]
    if name == "t":
        return tilted(par["p_t"][u], par["coef_t"] @ np.array([*c, *z, cell["v"]]))
    if name == "m":
        return tilted(par["p_m"][u, cell["z"]], [0.0, par["coef_m"] @ t])
    if name == "s":
        return tilted(par["p_s"][u], [0.0, par["coef_s"] @ [cell["m"]]])
    return tilted(par["p_y"][u, cell["t"]], [0.0, par["coef_y"] @ np.array([*c, cell["m"], *z])])


def brute(par, seen, c=()):
    """Class probabilities and E[Y(t) | class, what precedes t], averaged: loops over all cells."""
    weight = par["class_weight"]
    if len(c):
        weight = tilted(par["baseline_weight"], par["coef_class"] @ c)
    shares, outcome = np.zeros(2), np.zeros(3)
    for u, *levels in np.ndindex(2, 2, 3, 3, 2, 2, 2):
        cell = dict(zip(LEVELS, levels, strict=True))
        if any(cell[name] != level for name, level in seen.items()):
            continue
        p = weight[u] * np.prod([law_of(par, name, u, cell, c)[cell[name]] for name in LEVELS])
        shares[u] += p
        for arm, m in np.ndindex(3, 2):
            under = {**cell, "t": arm, "m": m}
            outcome[arm] += p * law_of(par, "m", u, under, c)[m] * law_of(par, "y", u, under, c)[1]
    return shares / shares.sum(), outcome / shares.sum()


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
@pytest.mark.parametrize(
    "seen",
    [
        {"v": 1, "z": 2, "t": 0, "m": 1, "s": 0, "y": 1},
        {"z": 1},
        {"s": 1},
        {"v": 1, "y": 0},
        {"t": 2, "s": 1},
        {"v": 0, "m": 1},
    ],
)
def test_predictions_from_levels_equal_brute_force(tools, rng, seen, covariates):
    model = CausalModel(classes=2, variables=LEVELS, covariates=covariates, **ROLES)
    draws = random_draws(tools, model, rng)
    rows = {name: [model.variables[name].labels[level]] for name, level in seen.items()}
    about, c = {}, ()
    if covariates:
        rows |= {"age": [30.0], "sex": [1.0]}
        about, c = {"covariate_means": '{"age": 28.5, "sex": 0.4}'}, (1.5, 0.6)
    found = predict(result(model, draws, **about), rows)
    for d, par in enumerate(draws):
        shares, outcome = brute(par, seen, c)
        got = found.isel(chain=0, draw=d, row=0)
        np.testing.assert_allclose(got["class_probability"], shares, atol=1e-12)
        np.testing.assert_allclose(got["unit_potential_outcome"], outcome, atol=1e-12)
        np.testing.assert_allclose(got["unit_effect"], outcome[1:] - outcome[0], atol=1e-12)


def test_policy_values_rules(tools, rng):
    model = CausalModel(classes=2, variables=LEVELS, **ROLES)
    draws = random_draws(tools, model, rng)
    table = policy(result(model, draws), {"z": ["a", "b", "b", "c"]}, cost=0.05)
    outcome = np.array([[brute(p, {"z": z})[1] for z in (0, 1, 1, 2)] for p in draws])
    net = outcome - 0.05 * np.array([0, 1, 1])
    arm = net.mean(axis=0).argmax(axis=1)
    np.testing.assert_allclose(table["value"].iloc[:3], net.mean(axis=(0, 1)), atol=1e-12)
    assert table.loc["those who gain", "value"] == pytest.approx(net[:, np.arange(4), arm].mean())


def numbers(**outcome):
    """A number before treatment and outcome, a number in between, levels that tell the class."""
    variables = {
        "g": B,
        "w": {**N, "parents": ["g"], "centre": -0.2},
        "d": {**B, "linear_parents": ["w"]},
        "t": {**B, "linear_parents": ["w"]},
        "m": {**N, "parents": ["t"], "linear_parents": ["w"], "centre": 1.0},
        "y": {**N, "linear_parents": ["m", "w"], **outcome},
    }
    return CausalModel(classes=2, variables=variables, **ROLES)


def expected(par, u, arm, w):
    """E[Y(arm) | class, w] of a normal outcome: w acts by itself and through m."""
    m = par["mean_m"][u, arm] + par["coef_m"][0] * (w + 0.2)
    return par["mean_y"][u, arm] + par["coef_y"] @ [m - 1.0, w + 0.2]


def test_observed_numbers_enter_linearly(tools, rng):
    model = numbers()
    draws = random_draws(tools, model, rng)
    rows = {"g": [0, 1, np.nan], "w": [0.4, -1.0, 2.0], "t": [1, np.nan, 0], "m": [0.5, np.nan, np.nan]}
    rows |= {"d": [np.nan, np.nan, 1], "y": [1.0, np.nan, np.nan]}
    found = predict(result(model, draws), rows).isel(chain=0)
    for d, par in enumerate(draws):
        p_g, weight, shares = par["p_g"], par["class_weight"], np.zeros((3, 2))
        for u in (0, 1):
            mean, sd = par["mean_w"][u], par["sd_w"][u]
            odds = {n: special.logit(par[f"p_{n}"][u, 1]) for n in ("t", "d")}
            p = {n: special.expit(odds[n] + par[f"coef_{n}"][0] * (np.array(rows["w"]) + 0.2)) for n in odds}
            in_w = [[stats.norm(mean[g], sd).pdf(w) for g in (0, 1)] for w in rows["w"]]
            shares[0, u] = weight[u] * p_g[u, 0] * in_w[0][0] * p["t"][0]
            at_m = par["mean_m"][u, 1] + par["coef_m"][0] * 0.6
            shares[0, u] *= stats.norm(at_m, par["sd_m"][u]).pdf(0.5)
            at_y = par["mean_y"][u, 1] + par["coef_y"] @ [0.5 - 1.0, 0.6]
            shares[0, u] *= stats.norm(at_y, par["sd_y"][u]).pdf(1.0)
            shares[1, u] = weight[u] * p_g[u, 1] * in_w[1][1]
            shares[2, u] = weight[u] * (p_g[u] @ in_w[2]) * (1 - p["t"][2]) * p["d"][2]
        shares /= shares.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found["class_probability"][d], shares, atol=1e-12)
        for i, w in enumerate(rows["w"]):
            wanted = [sum(shares[i, u] * expected(par, u, arm, w) for u in (0, 1)) for arm in (0, 1)]
            np.testing.assert_allclose(found["unit_potential_outcome"][d, i], wanted, atol=1e-12)


def test_missing_numbers_are_averaged_over_where_nothing_known_depends_on_them(tools, rng):
    """With g known or not; a normal number that enters linearly is averaged over exactly."""
    model = numbers()
    draws = random_draws(tools, model, rng)
    found = predict(result(model, draws), {"g": [1, np.nan]}).isel(chain=0)
    for d, par in enumerate(draws):
        for i, g_known in enumerate(([0.0, 1.0], [1.0, 1.0])):
            joint = par["class_weight"][:, None] * par["p_g"] * g_known
            joint /= joint.sum()
            np.testing.assert_allclose(found["class_probability"][d, i], joint.sum(axis=1), atol=1e-12)
            for arm in (0, 1):
                by_cell = [[expected(par, u, arm, par["mean_w"][u, g]) for g in (0, 1)] for u in (0, 1)]
                got = float(found["unit_potential_outcome"][d, i, arm])
                assert got == pytest.approx((joint * by_cell).sum(), abs=1e-11)


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
def test_averages_over_numbers_match_quadrature(tools, rng, family):
    """A normal mediator of an outcome on another scale; then a missing number before the treatment too."""
    model = numbers(family=family)
    par = random_draws(tools, model, rng, n=1)[0]
    found = predict(result(model, [par]), {"g": [0, 0], "w": [0.7, np.nan]}).isel(chain=0, draw=0)
    weight = par["class_weight"] * par["p_g"][:, 0]
    first = weight * stats.norm(par["mean_w"][:, 0], par["sd_w"]).pdf(0.7)
    for i, share in enumerate((first / first.sum(), weight / weight.sum())):
        np.testing.assert_allclose(found["class_probability"][i], share, atol=1e-12)
        for arm in (0, 1):
            total = 0.0
            for u in (0, 1):
                w = np.array([[0.7]]) if i == 0 else par["mean_w"][u, 0] + par["sd_w"][u] * NODES[:, None]
                over_w = np.ones(1) if i == 0 else HERMITE
                m = par["mean_m"][u, arm] + par["coef_m"][0] * (w + 0.2) + par["sd_m"][u] * NODES
                shift = par["coef_y"][0] * (m - 1.0) + par["coef_y"][1] * (w + 0.2)
                if family == "bernoulli":
                    value = special.expit(special.logit(par["p_y"][u, arm, 1]) + shift)
                else:
                    value = par["rate_y"][u, arm] * np.exp(shift)
                total += share[u] * (over_w @ value @ HERMITE)
            got = float(found["unit_potential_outcome"][i, arm])
            assert got == pytest.approx(total, abs=1e-3 if family == "bernoulli" else 0.02 * total)


def test_levels_below_a_missing_number_follow_it(tools, rng):
    """z (a number) and what follows from it precede the treatment; levels in between are summed exactly."""
    variables = {
        "z": X,
        "d": {**B, "linear_parents": ["z"]},
        "t": B,
        "m": {**C3, "linear_parents": ["d"], "parents": ["t"]},
        "y": {**N, "parents": ["d"], "linear_parents": ["m"]},
    }
    model = CausalModel(classes=2, variables=variables, **ROLES)
    par = random_draws(tools, model, rng, n=1)[0]
    found = predict(result(model, [par]), {"t": [0]}).isel(chain=0, draw=0, row=0)
    share = par["class_weight"] * par["p_t"][:, 0]
    share /= share.sum()
    np.testing.assert_allclose(found["class_probability"], share, atol=1e-12)
    for arm in (0, 1):
        total = 0.0
        for u in (0, 1):
            z = par["mean_z"][u] + par["sd_z"][u] * NODES
            p = special.expit(special.logit(par["p_d"][u, 1]) + par["coef_d"][0] * (z - 0.3)) @ HERMITE
            for d, p_d in enumerate((1 - p, p)):
                p_m = tilted(par["p_m"][u, arm], par["coef_m"][:, 0] * d)
                mean = par["mean_y"][u, d, arm] + p_m @ [0.0, *par["coef_y"]]
                total += share[u] * p_d * mean
        assert float(found["unit_potential_outcome"][arm]) == pytest.approx(total, abs=1e-3)


def test_blocks_of_rows_and_draws_change_nothing(tools, rng):
    model = numbers(family="bernoulli")
    draws = random_draws(tools, model, rng, n=5)
    stacked = {n: np.stack([d[n] for d in draws]) for n in draws[0]}
    columns = {name: rng.normal(size=7) for name in ("w", "m", "y")}
    columns |= {name: rng.integers(0, 2, 7) for name in ("g", "d", "t")}
    whole = UnitOutcomes(model, stacked, ("m",), 10**9).at(columns, None)
    assert whole.shape == (5, 2, 7, 2)
    for block in (30_000, 5_000, 1):
        np.testing.assert_array_equal(UnitOutcomes(model, stacked, ("m",), block).at(columns, None), whole)


def test_nobody_known_is_the_average_of_all(tools, rng):
    """A row of which nothing is known has the class weights and the average effect of the result."""
    model = load_model("gallery:measured_confounder")
    draws = random_draws(tools, model, rng)
    found = predict(result(model, draws), {"z": [np.nan]}).isel(chain=0, row=0)
    stacked = {n: np.stack([d[n] for d in draws]) for n in draws[0]}
    wanted = functionals_given(model, stacked, None, np.ones(1))
    np.testing.assert_allclose(found["class_probability"], stacked["class_weight"], atol=1e-12)
    np.testing.assert_allclose(found["unit_effect"], wanted["ate"], atol=1e-10)
    np.testing.assert_allclose(found["unit_potential_outcome"], wanted["arm_mean"], atol=1e-10)


def test_missing_numbers_with_observed_children_are_refused(tools, rng):
    post = result(numbers(), random_draws(tools, numbers(), rng))
    with pytest.raises(RefusedError, match=r"give \['t'\], which depend on the numbers \['w'\], missing"):
        predict(post, {"g": [1, 1], "w": [0.5, np.nan], "t": [1, 1]})
    with pytest.raises(RefusedError, match=r"give \['y'\].* numbers \['w', 'm'\].*Give \['w', 'm'\]"):
        policy(post, {"y": [1.0]})
    many = {f"d{i}": {**B, "linear_parents": [f"d{i - 1}"] if i else []} for i in range(14)}
    long = CausalModel(classes=2, variables=many)
    far = result(long, random_draws(tools, long, rng))
    with pytest.raises(RefusedError, match=r"8,192 combinations"):
        predict(far, {"d13": [1]})
    assert set(predict(far, {"d0": [1]})) == {"class_probability"}


def test_class_probabilities_are_calibrated():
    """Learnt from 20,000 rows, checked on 20,000 others: expected calibration error in ten bins <= 0.02."""
    model = load_model("gallery:measured_confounder")
    options = {"sampler": "laplace", "draws": 50, "chains": 2, "progressbar": False}
    post = sample(model, simulate(model, 20_000, rng=1), **options)
    rows = simulate(model, 20_000, rng=2)
    hidden = rows["latent_class"].values  # class 0 has the lower effect, in the truth too
    for columns in (["z", "x"], ["z", "x", "severity"], list(model.variables)):
        share = (
            predict(post, rows[columns], draws=50)["class_probability"].mean(("chain", "draw")).values[:, 1]
        )
        bins = np.minimum((share * 10).astype(int), 9)
        error = [abs((hidden[bins == b] - share[bins == b]).sum()) for b in range(10)]
        assert sum(error) / 20_000 <= 0.02
