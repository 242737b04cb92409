"""`do` with linear parents: against sums over cells, formulas and quadrature written out here."""

import numpy as np
import pytest
import xarray as xr
from scipy import special

from pymc_mte import CausalModel, do
from pymc_mte.intervene import MIN_MASS
from pymc_mte.results import dataset, provenance

B = {"family": "bernoulli"}
C3 = {"family": "categorical", "levels": ["a", "b", "c"]}
N = {"family": "normal"}
X = {"family": "normal", "centre": 0.3}
LEVELS = {
    "a": {**C3, "latent": False},
    "b": {**B, "linear_parents": ["a"]},
    "c": {**C3, "parents": ["b"], "linear_parents": ["a"]},
    "d": {"family": "binomial", "trials": 2, "linear_parents": ["b", "c"]},
    "e": {"family": "ordinal", "levels": [1, 2, 3], "linear_parents": ["c"]},
}
NODES, HERMITE = np.polynomial.hermite_e.hermegauss(80)
HERMITE = HERMITE / HERMITE.sum()


def drawn(tools, model, rng, n=2):
    out = []
    for _ in range(n):
        own = tools.random_truth(model, rng)
        for name, dims in model.coefficient_dims.items():
            own[name] = rng.normal(0, 0.7, tuple(model.size(d) for d in dims))
        out.append(own)
    return out


def result(model, draws):
    stacked = {n: np.stack([d[n] for d in draws])[None] for n in draws[0]}
    tree = xr.DataTree.from_dict({"posterior": dataset(model, stacked)})
    tree.attrs = provenance(model, method="posterior")
    return tree


def tilted(p, lift):
    p = p * np.exp(lift)
    return p / p.sum()


def law_of(par, name, u, cell):
    """Distribution of one of `LEVELS` in a class, its linear part written out."""
    a, c = np.arange(1, 3) == cell["a"], np.arange(1, 3) == cell["c"]
    if name == "a":
        return par["p_a"]
    if name == "b":
        return tilted(par["p_b"][u], [0.0, par["coef_b"] @ a])
    if name == "c":
        return tilted(par["p_c"][u, cell["b"]], par["coef_c"] @ a)
    if name == "e":
        return tilted(par["p_e"][u], par["coef_e"] @ c)
    p = special.expit(special.logit(par["p_d"][u]) + par["coef_d"] @ [cell["b"], *c])
    return np.array([(1 - p) ** 2, 2 * p * (1 - p), p * p])


def by_cells(par, setting, outcome, intervene):
    """P(class, outcome) under an intervention, or restricted to the cells that have the values."""
    out = np.zeros((2, 2 if outcome == "b" else 3))
    for u, *levels in np.ndindex(2, 3, 2, 3, 3, 3):
        cell = dict(zip(LEVELS, levels, strict=True))
        if all(cell[v] == level for v, level in setting.items()):
            kept = [v for v in LEVELS if not (intervene and v in setting)]
            out[u, cell[outcome]] += par["class_weight"][u] * np.prod(
                [law_of(par, v, u, cell)[cell[v]] for v in kept]
            )
    return out


@pytest.mark.parametrize(
    ("setting", "outcome"),
    [({"c": 1}, "d"), ({"b": 1, "c": 2}, "d"), ({"b": 0}, "e"), ({"d": 2}, "b"), ({}, "c")],
)
def test_levels_are_summed_exactly(tools, rng, setting, outcome):
    model = CausalModel(classes=2, variables=LEVELS)
    draws = drawn(tools, model, rng)
    values = {name: model.variables[name].labels[level] for name, level in setting.items()}
    found = do(result(model, draws), values, outcome).isel(chain=0)
    for i, par in enumerate(draws):
        wanted = by_cells(par, setting, outcome, intervene=True)
        seen = by_cells(par, setting, outcome, intervene=False).sum(axis=0)
        got = found.isel(draw=i)
        np.testing.assert_allclose(got["distribution"], wanted.sum(axis=0), atol=1e-12)
        by_class = wanted / par["class_weight"][:, None]
        np.testing.assert_allclose(got["distribution_by_class"], by_class, atol=1e-12)
        np.testing.assert_allclose(got["naive_distribution"], seen / seen.sum(), atol=1e-12)
        if outcome in ("b", "d"):
            scale = np.arange(wanted.shape[1])
            assert float(got["mean"]) == pytest.approx(wanted.sum(axis=0) @ scale)
            assert float(got["naive_mean"]) == pytest.approx(seen @ scale / seen.sum())
        else:
            assert "mean" not in got
    if setting == {"b": 0}:
        lowest = min(
            law_of(p, "b", u, {"a": a, "c": 0})[0] for p in draws[:1] for u in (0, 1) for a in range(3)
        )
        assert float(found["overlap"][0]) == pytest.approx(lowest)


def test_more_cells_than_are_written_out_are_simulated(tools, rng, monkeypatch):
    """The same answers from points: 2,048 of them leave about 0.01 where ancestors have levels."""
    model = CausalModel(classes=2, variables=LEVELS)
    tree = result(model, drawn(tools, model, rng))
    questions = [({"c": "b"}, "d"), ({"b": 0}, "e"), ({"d": 2}, "b"), ({"d": 1, "b": 1}, "c")]
    exact = [do(tree, *question) for question in questions]
    monkeypatch.setattr("pymc_mte.standardised.MAX_EXPANDED", 1)
    for question, wanted in zip(questions, exact, strict=True):
        found = do(tree, *question)
        assert set(found) == set(wanted)
        assert {n: v.dims for n, v in found.items()} == {n: v.dims for n, v in wanted.items()}
        for name in set(found) - {"overlap"}:
            np.testing.assert_allclose(found[name], wanted[name], atol=0.03, err_msg=name)


def numbers(**outcome):
    variables = {
        "x": X,
        "t": {**B, "linear_parents": ["x"]},
        "m": {**N, "parents": ["t"], "linear_parents": ["x"], "centre": 1.0},
        "y": {**N, "linear_parents": ["m", "x"], **outcome},
    }
    return CausalModel(classes=2, variables=variables, treatment="t", outcome="y")


def mean_of_y(par, u, arm, x, m):
    return par["mean_y"][u, arm] + par["coef_y"] @ np.stack(np.broadcast_arrays(m - 1.0, x - 0.3))


def test_numbers_that_enter_linearly_are_averaged_exactly(tools, rng):
    model = numbers()
    draws = drawn(tools, model, rng)
    for arm in (0, 1):
        found = do(result(model, draws), {"t": arm}).isel(chain=0)
        for i, par in enumerate(draws):
            by_class, chance, seen = np.zeros(2), np.zeros(2), np.zeros(2)
            for u in (0, 1):
                at_m = par["mean_m"][u, arm] + par["coef_m"][0] * (par["mean_x"][u] - 0.3)
                by_class[u] = mean_of_y(par, u, arm, par["mean_x"][u], at_m)
                x = par["mean_x"][u] + par["sd_x"][u] * NODES
                p = special.expit(special.logit(par["p_t"][u, 1]) + par["coef_t"][0] * (x - 0.3))
                p = p if arm else 1 - p
                chance[u] = par["class_weight"][u] * (p @ HERMITE)
                at_m = par["mean_m"][u, arm] + par["coef_m"][0] * (x - 0.3)
                seen[u] = par["class_weight"][u] * ((p * mean_of_y(par, u, arm, x, at_m)) @ HERMITE)
            np.testing.assert_allclose(found["mean_by_class"][i], by_class, atol=1e-11)
            assert float(found["mean"][i]) == pytest.approx(par["class_weight"] @ by_class, abs=1e-11)
            assert float(found["naive_mean"][i]) == pytest.approx(seen.sum() / chance.sum(), abs=5e-3)
        assert set(found) == {"class_weight", "overlap", "mean", "mean_by_class", "naive_mean"}


def test_a_discrete_outcome_of_numbers_matches_quadrature(tools, rng):
    model = numbers(family="bernoulli")
    par = drawn(tools, model, rng, n=1)[0]
    found = do(result(model, [par]), {"t": 1}).isel(chain=0, draw=0)
    by_class, lowest = [], []
    for u in (0, 1):
        x = par["mean_x"][u] + par["sd_x"][u] * NODES[:, None]
        m = par["mean_m"][u, 1] + par["coef_m"][0] * (x - 0.3) + par["sd_m"][u] * NODES
        shift = par["coef_y"][0] * (m - 1.0) + par["coef_y"][1] * (x - 0.3)
        by_class.append(HERMITE @ special.expit(special.logit(par["p_y"][u, 1, 1]) + shift) @ HERMITE)
        worst = par["mean_x"][u] - np.sign(par["coef_t"][0]) * special.ndtri(1 - MIN_MASS) * par["sd_x"][u]
        lowest.append(special.expit(special.logit(par["p_t"][u, 1]) + par["coef_t"][0] * (worst - 0.3)))
    np.testing.assert_allclose(found["distribution_by_class"][:, 1], by_class, atol=2e-3)
    np.testing.assert_allclose(found["mean_by_class"], by_class, atol=2e-3)
    assert float(found["mean"]) == pytest.approx(par["class_weight"] @ by_class, abs=2e-3)
    assert float(found["overlap"]) == pytest.approx(min(lowest), rel=0.15)


def test_an_answer_above_what_is_set_does_not_move_and_is_seen_otherwise(tools, rng):
    """x causes t: setting t leaves x alone, seeing t tells about x."""
    model = numbers()
    par = drawn(tools, model, rng, n=1)[0]
    found = do(result(model, [par]), {"t": 1}, "x").isel(chain=0, draw=0)
    np.testing.assert_allclose(found["mean_by_class"], par["mean_x"], atol=1e-12)
    seen = np.zeros(2)
    for u in (0, 1):
        x = par["mean_x"][u] + par["sd_x"][u] * NODES
        p = special.expit(special.logit(par["p_t"][u, 1]) + par["coef_t"][0] * (x - 0.3))
        seen += par["class_weight"][u] * np.array([(p * x) @ HERMITE, p @ HERMITE])
    assert float(found["naive_mean"]) == pytest.approx(seen[0] / seen[1], abs=5e-3)
