"""Predictions and decisions given covariates, against loops over classes and cells written out here."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy import special, stats

from pymc_mte import CausalModel, DataError, load, policy, predict, sample, save, tabulate
from pymc_mte.regression import covariate_means, given_rows
from pymc_mte.results import dataset, provenance
from pymc_mte.standardised import functionals_given

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
OUTCOMES = {
    "bernoulli": B,
    "normal": {"family": "normal"},
    "student_t": {"family": "student_t", "latent": False},
    "poisson": {"family": "poisson"},
    "binomial": {"family": "binomial", "trials": 2},
}
MEANS = {"age": 47.0, "sex = m": 0.3, "sex = x": 0.1}
PEOPLE = {
    "age": [30, 47, 61.5, 61.5, 50],
    "sex": ["m", "f", "x", "x", "m"],
    "v": [1, None, 0, 0, 1],
    "z": ["a", "b", None, None, "c"],
    "t": [0, None, 2, 2, None],
    "m": [1, 0, None, None, None],
    "w": [0.5, np.nan, -1.0, -1.0, 0.2],
}


def make(outcome="bernoulli", **more):
    """Treatment with three arms, a variable between treatment and outcome, one before both."""
    variables = {
        "v": {**B, "latent": False},
        "z": {**C3, "parents": ["v"]},
        "w": {"family": "normal"},
        "t": {"family": "categorical", "levels": [0, 1, 2], "parents": ["z"]},
        "m": {**B, "parents": ["t", "z"]},
        "y": {**OUTCOMES[outcome], "parents": ["m", "z"]},
    }
    roles = {"treatment": "t", "outcome": "y", "covariates": ["age", "sex"]}
    return CausalModel(
        classes=2, variables=variables, **roles, covariate_levels={"sex": ["f", "m", "x"]}, **more
    )


def random_draws(tools, model, rng, n=2):
    out = []
    for _ in range(n):
        own = tools.random_truth(model, rng)
        own["baseline_weight"] = own["class_weight"]
        scale = {"age": 0.05, "sex = m": 0.8, "sex = x": 0.8}
        for name, dims in model.coefficient_dims.items():
            own[name] = rng.normal(0, list(scale.values()), tuple(model.size(d) for d in dims))
        out.append(own)
    return out


def result(model, draws):
    stacked = {n: np.stack([d[n] for d in draws])[None] for n in draws[0]}
    tree = xr.DataTree.from_dict({"posterior": dataset(model, stacked)})
    about = '{"age": 47.0, "sex = m": 0.3, "sex = x": 0.1}'
    tree.attrs = provenance(model, method="posterior", covariate_means=about)
    return tree


def deviations(people, i):
    sex = people["sex"][i]
    return np.array([people["age"][i], sex == "m", sex == "x"], dtype=float) - list(MEANS.values())


def tilted(p, lift):
    p = p * np.exp(lift)
    return p / p.sum()


def outcome_law(family, par, u, m, z, t, c):
    """Mean and density of the outcome in one class at one row's covariates."""
    shift = par["coef_y"] @ c
    if family == "bernoulli":
        p = special.expit(special.logit(par["p_y"][u, m, z, t, 1]) + shift)
        return p, lambda y: p if y == 1 else 1 - p
    if family == "binomial":
        p = special.expit(special.logit(par["p_y"][u, m, z, t]) + shift)
        return 2 * p, stats.binom(2, p).pmf
    if family == "poisson":
        rate = par["rate_y"][u, m, z, t] * np.exp(shift)
        return rate, stats.poisson(rate).pmf
    if family == "student_t":
        mean = par["mean_y"][m, z, t] + shift
        return mean, stats.t(par["nu_y"], mean, par["sd_y"]).pdf
    mean = par["mean_y"][u, m, z, t] + shift
    return mean, stats.norm(mean, par["sd_y"][u]).pdf


def brute(model, par, seen, c):
    """Class probabilities and E[Y(t) | class, what precedes t], averaged: loops over all cells."""
    family = model.variables["y"].family
    weight = tilted(par["baseline_weight"], par["coef_class"] @ c)
    shares, outcome = np.zeros(2), np.zeros(3)
    for u, v, z, t, m in np.ndindex(2, 2, 3, 3, 2):
        cell = {"v": v, "z": z, "t": t, "m": m}
        if any(seen.get(name, level) != level for name, level in cell.items()):
            continue
        p = weight[u] * par["p_v"][v] * par["p_z"][u, v, z] * par["p_m"][u, t, z, m]
        p *= tilted(par["p_t"][u, z], par["coef_t"] @ c)[t]
        p *= stats.norm(par["mean_w"][u], par["sd_w"][u]).pdf(seen["w"]) if "w" in seen else 1.0
        p *= outcome_law(family, par, u, m, z, t, c)[1](seen["y"]) if "y" in seen else 1.0
        shares[u] += p
        for arm in range(3):
            for between in (0, 1):
                mean = outcome_law(family, par, u, between, z, arm, c)[0]
                outcome[arm] += p * par["p_m"][u, arm, z, between] * mean
    return shares / shares.sum(), outcome / shares.sum()


def seen_of(people, i):
    out = {}
    for name in ("v", "z", "t", "m", "w", "y"):
        value = people.get(name, [None] * (i + 1))[i]
        if value is not None and value == value:
            out[name] = "abc".index(value) if name == "z" else value
    return out


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_predictions_equal_brute_force(tools, rng, outcome):
    model = make(outcome)
    draws = random_draws(tools, model, rng)
    people = PEOPLE | {"y": [1, None, 0, 0, None]}
    found = predict(result(model, draws), people).isel(chain=0)
    assert dict(found.sizes) == {"draw": 2, "row": 5, "class": 2, "treatment": 3, "contrast": 2}
    for d, par in enumerate(draws):
        for i in range(5):
            shares, by_arm = brute(model, par, seen_of(people, i), deviations(people, i))
            got = found.isel(draw=d, row=i)
            np.testing.assert_allclose(got["class_probability"], shares, atol=1e-12)
            np.testing.assert_allclose(got["unit_potential_outcome"], by_arm, atol=1e-11)
            np.testing.assert_allclose(got["unit_effect"], by_arm[1:] - by_arm[0], atol=1e-11)


def test_covariates_alone_say_something(tools, rng):
    """Nothing but covariates is known: the class follows from them."""
    model = make()
    draws = random_draws(tools, model, rng)
    people = {"age": [30, 60], "sex": ["f", "m"], "v": [None, None]}
    found = predict(result(model, draws), people).isel(chain=0)
    for d, par in enumerate(draws):
        for i in (0, 1):
            wanted = tilted(par["baseline_weight"], par["coef_class"] @ deviations(people, i))
            np.testing.assert_allclose(found["class_probability"][d, i], wanted, atol=1e-12)


def test_policy_averages_over_the_rows_covariates(tools, rng):
    model = make("normal")
    draws, cost = random_draws(tools, model, rng), 0.05
    table = policy(result(model, draws), PEOPLE, cost=cost)
    outcome = np.array(
        [[brute(model, p, seen_of(PEOPLE, i), deviations(PEOPLE, i))[1] for i in range(5)] for p in draws]
    )
    net = outcome - cost * np.array([0, 1, 1])
    arm = net.mean(axis=0).argmax(axis=1)
    chosen = net[:, np.arange(5), arm].mean(axis=1)
    np.testing.assert_allclose(table["value"][:3], net.mean(axis=(0, 1)), atol=1e-11)
    assert table.loc["those who gain", "value"] == pytest.approx(chosen.mean())
    assert table.loc["those who gain", "gain"] == pytest.approx((chosen - net[:, :, 0].mean(axis=1)).mean())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"age": [30, None]}, r"'age' is missing in 1 of the new rows.*fill it in"),
        ({"sex": ["f", None]}, "'sex' is missing in 1"),
        ({"sex": ["f", "q"]}, r"\['q'\] in the new rows, and the result knows \['f', 'm', 'x'\]"),
        ({"age": ["old", "young"]}, "'age' is a number in the rows .* convert it"),
        ({"age": [30, np.inf]}, "infinite"),
    ],
)
def test_covariates_that_cannot_be_used(tools, rng, changed, said):
    model = make()
    post = result(model, random_draws(tools, model, rng))
    people = {"age": [30, 50], "sex": ["f", "m"], "z": ["a", "b"]}
    with pytest.raises(DataError, match=said):
        predict(post, people | changed)


def test_covariates_that_are_not_there(tools, rng):
    model = make()
    post = result(model, random_draws(tools, model, rng))
    with pytest.raises(DataError, match=r"lack the covariates \['sex'\]"):
        predict(post, {"age": [30], "z": ["a"]})
    del post.attrs["covariate_means"]
    with pytest.raises(DataError, match="sample again"):
        predict(post, {"age": [30], "sex": ["f"], "z": ["a"]})


def test_rows_beyond_the_rows_learnt_from_are_said(tools, rng):
    model = make()
    post = result(model, random_draws(tools, model, rng))
    people = {"age": [30, 50, 50.1, 12], "sex": ["f"] * 4, "z": ["a"] * 4}
    assert "extrapolated" not in predict(post, people)  # a result that does not know
    ranges = {"age": [30.0, 50.0], "sex = m": [0.0, 1.0], "sex = x": [0.0, 1.0]}
    post.attrs["covariate_ranges"] = json.dumps(ranges)
    found = predict(post, people)
    assert found["extrapolated"].values.tolist() == [0, 0, 1, 1]
    said = "2 of 4 rows have a covariate outside the values that the result was learnt from (age in 2)"
    assert said in found.attrs["text"]
    assert said in policy(post, people).attrs["text"]
    assert "outside the values" not in predict(post, {n: v[:2] for n, v in people.items()}).attrs["text"]


def test_predictions_average_to_the_posteriors_answers(tools, rng):
    """Rows of which only the covariates are known: their mean is the class weight and the ATE."""
    model, n = make("normal"), 60
    people = {"age": rng.normal(50, 9, n).round(), "sex": rng.choice(["f", "m", "x"], n)}
    frame = people | {"v": rng.integers(0, 2, n), "z": rng.choice(list("abc"), n), "w": rng.normal(size=n)}
    frame |= {"t": rng.integers(0, 3, n), "m": rng.integers(0, 2, n), "y": rng.normal(size=n)}
    table = tabulate(frame, model)
    post = result(model, random_draws(tools, model, rng))
    means = {"age": people["age"].mean()} | {f"sex = {s}": (people["sex"] == s).mean() for s in "mx"}
    assert covariate_means(table) == pytest.approx(means)
    post.attrs["covariate_means"] = json.dumps(covariate_means(table))
    drawn = {str(k): v.values for k, v in post["posterior"].to_dataset().items()}
    wanted = functionals_given(model, drawn, *given_rows(model, table))
    found = predict(post, people | {"v": [None] * n})
    np.testing.assert_allclose(found["class_probability"].mean("row"), wanted["class_weight"], atol=1e-12)
    np.testing.assert_allclose(found["unit_effect"].mean("row"), wanted["ate"], atol=1e-10)


@pytest.mark.slow
def test_a_loaded_result_predicts_the_same(rng, tmp_path):
    """The training data's means travel with a result."""
    model = CausalModel(
        classes=2,
        variables={"z": B, "x": B, "t": {**B, "parents": ["z"]}, "y": B},
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        covariates=["age", "site", "months"],
    )
    n = 300
    frame = {name: rng.integers(0, 2, n) for name in model.variables}
    frame |= {"age": rng.normal(50, 9, n).round(), "site": rng.choice(["p", "q"], n)}
    frame["months"] = 12 * frame["age"]
    post = sample(model, frame, draws=20, chains=2, sampler="laplace", progressbar=False)
    ages = [float(np.min(frame["age"])), float(np.max(frame["age"]))]
    assert json.loads(post.attrs["covariate_ranges"])["age"] == pytest.approx(ages)
    assert "age, months" in post.attrs["notes"]  # averages over rows do not suffer from the repetition
    found = predict(post, frame)
    xr.testing.assert_identical(found, predict(load(save(post, tmp_path / "post.nc")), frame))
    everybody = predict(post, {name: frame[name] for name in model.covariates} | {"z": [None] * n})
    posterior = post["posterior"].to_dataset()
    for mine, theirs in (("class_probability", "class_weight"), ("unit_effect", "ate")):
        np.testing.assert_allclose(everybody[mine].mean("row"), posterior[theirs], atol=1e-9)
