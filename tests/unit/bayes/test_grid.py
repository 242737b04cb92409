"""Rounded continuous variables: intervals against SciPy, the likelihood against a sum over rows."""

import json

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import special, stats

from pymc_mte import CausalModel, ModelError, build_model, simulate, tabulate
from pymc_mte.bayes.grid import log_interval, on_grid, widths_of
from pymc_mte.bayes.start import with_first_levels

B = {"family": "bernoulli"}
N = {"family": "normal"}
MODE = "FAST_COMPILE"
MODEL = CausalModel(
    classes=2,
    variables={
        "z": B,
        "t": {**B, "parents": ["z"]},
        "x": {"family": "student_t", "parents": ["z"]},
        "w": {**N, "latent": False},
        "y": {**N, "parents": ["z", "t"], "scale_parents": True},
    },
)


def log_normal_interval(a, b):
    """Log of Phi(b) - Phi(a) by SciPy, from the side where both are small."""
    a, b = np.where(a + b > 0, (-b, -a), (a, b))
    low, high = special.log_ndtr(a), special.log_ndtr(b)
    return high + np.log(-np.expm1(low - high))


def test_normal_intervals_are_exact_far_into_the_tails():
    middle = np.concatenate([np.linspace(-12, 12, 97), [-300.0, -40.0, 40.0, 300.0, 1e5]])
    m, s = pt.dscalars("m", "s")
    low, high = pt.dvectors("low", "high")
    out = log_interval("normal", low, high, m, s)
    density = pytensor.function([low, high, m, s], [out, *pt.grad(out.sum(), [m, s])], mode=MODE)
    for width in (1e-4, 0.1, 1.0, 7.0):
        low, high = middle - width / 2, middle + width / 2
        got, *slopes = density(low, high, 0.3, 1.7)
        wanted = log_normal_interval((low - 0.3) / 1.7, (high - 0.3) / 1.7)
        np.testing.assert_allclose(got, wanted, rtol=1e-11 / width**0.5, atol=3e-12 / width)
        assert np.isfinite(slopes).all()
    narrow, *slopes = density(low, high, 0.3, 1e-3)  # bins much wider than the law
    assert np.isfinite(slopes).all()
    assert narrow[np.abs(middle - 0.3).argmin()] == pytest.approx(0.0, abs=1e-12)


def test_student_intervals_narrow_and_wide():
    middle = np.linspace(-60, 60, 201)
    for width in (0.01, 0.2, 1.0, 3.0, 10.0):
        low, high = middle - width / 2, middle + width / 2
        law = (pt.constant(np.float64(v)) for v in (0.3, 1.0, 3.0))
        got = log_interval("student_t", low, high, *law).eval(mode=MODE)
        left, right = np.where(middle > 0.3, (0.6 - high, 0.6 - low), (low, high))  # by symmetry
        law = stats.t(3.0, 0.3, 1.0)
        np.testing.assert_allclose(np.exp(got), law.cdf(right) - law.cdf(left), rtol=1e-9, atol=1e-17)


@pytest.mark.parametrize("scale", [1e-1, 1e-2, 1e-4, 1e-8])
def test_no_student_bin_is_more_than_certain(scale):
    """A class whose values share one bin may shrink into it, and gains nothing by that."""
    middle = np.linspace(-3.0, 3.0, 13)
    law = (pt.constant(np.float64(v)) for v in (0.0, scale, 30.0))
    got = log_interval("student_t", middle - 0.5, middle + 0.5, *law).eval(mode=MODE)
    assert got.max() <= 0
    assert got[6] > -1e-3 or scale < 1e-2


def brute(model, parameters, frame, widths):
    total = 0.0
    for row in frame.to_dict("records"):
        terms = []
        for u in range(2):
            p = parameters["class_weight"][u] * parameters["p_z"][u, row["z"]]
            p *= parameters["p_t"][u, row["z"], row["t"]]
            laws = {
                "x": stats.t(parameters["nu_x"], parameters["mean_x"][u, row["z"]], parameters["sd_x"][u]),
                "w": stats.norm(parameters["mean_w"], parameters["sd_w"]),
                "y": stats.norm(*(parameters[f"{n}_y"][u, row["z"], row["t"]] for n in ("mean", "sd"))),
            }
            for name, law in laws.items():
                b, h = np.round(row[name] / widths[name]) * widths[name], widths[name]
                p *= law.cdf(b + h / 2) - law.cdf(b - h / 2)
            terms.append(p)
        total += np.log(np.sum(terms))
    return float(total)


@pytest.mark.slow
def test_log_density_of_rounded_rows_equals_brute_force(tools, rng):
    frame = simulate(tools.with_truth(MODEL, tools.random_truth(MODEL, rng)), 60, rng=rng).to_dataframe()
    widths = {"x": 0.3, "w": 0.25, "y": 0.2}
    built = build_model(MODEL, frame, grid=widths)
    point = {n: v + 0.5 * rng.normal(size=np.shape(v)) for n, v in built.initial_point().items()}
    free = built.replace_rvs_by_values([built[name] for name in MODEL.dims])
    compiled = built.compile_fn(free, inputs=built.value_vars, mode=MODE, on_unused_input="ignore")
    elsewhere = with_first_levels(MODEL, dict(zip(MODEL.dims, compiled(point), strict=True)))
    got = float(built.compile_logp(vars=built.observed_RVs, mode=MODE)(point))
    counts = built["count"].get_value()
    got -= special.gammaln(counts.sum() + 1) - special.gammaln(counts + 1).sum()
    assert got == pytest.approx(brute(MODEL, elsewhere, frame, widths), rel=1e-10)
    with built:
        drawn = pm.sample_prior_predictive(2, random_seed=1, compile_kwargs={"mode": MODE})
    rows = drawn["prior_predictive"]["rows"].values[0]
    np.testing.assert_allclose(
        rows / list(widths.values()), np.round(rows / list(widths.values())), atol=1e-6
    )


def test_rounding_keeps_rows_and_adds_up_counts(rng):
    model = CausalModel(classes=2, variables={"t": B, "y": {**N, "parents": ["t"]}})
    frame = {"t": rng.integers(0, 2, 5_000), "y": rng.normal(size=5_000)}
    table = tabulate(frame, model)
    found = on_grid(model, table, 0.2)
    assert found["count"].sum() == 5_000
    assert found.sizes["pattern"] < 100
    assert widths_of(model, found) == {"y": 0.2}
    assert widths_of(model, table) == {}
    for t in (0, 1):
        mean = np.average(found["y"][found["t"] == t], weights=found["count"][found["t"] == t])
        assert mean == pytest.approx(np.round(frame["y"][frame["t"] == t] / 0.2).mean() * 0.2)
    assert found["t"].attrs == table["t"].attrs
    assert json.loads(found["t"].attrs["levels"]) == [0, 1]


def test_auto_is_a_tenth_of_the_narrowest_class(rng):
    """Two classes 6 apart, SDs 1 and 0.5: the width is 0.05, up to the error of an SD (3%)."""
    model = CausalModel(classes=2, variables={"z": B, "t": B, "y": {**N, "parents": ["t"]}})
    u = rng.random(4_000) < 0.5
    frame = {"z": (rng.random(4_000) < np.where(u, 0.8, 0.2)).astype(int), "t": rng.integers(0, 2, 4_000)}
    frame["y"] = np.where(u, 6 + rng.normal(size=4_000), 0.5 * rng.normal(size=4_000))
    table = tabulate(frame, model)
    assert widths_of(model, on_grid(model, table, "auto"))["y"] == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("grid", [0.0, -1.0, "wide", {"y": 1.0, "q": 1.0}, True, np.inf])
def test_widths_that_make_no_sense(grid):
    model = CausalModel(classes=2, variables={"t": B, "y": {**N, "parents": ["t"]}})
    with pytest.raises(ModelError, match="positive width"):
        build_model(model, {"t": [0, 1], "y": [0.0, 1.0]}, grid=grid)


def test_nothing_to_round(level3):
    with pytest.raises(ModelError, match="no continuous variable"):
        build_model(level3, simulate(level3, 20), grid=0.1)


def test_bins_wider_than_the_variable_varies_are_refused():
    model = CausalModel(classes=1, variables={"y": {"family": "normal"}})
    rows = {"y": [0.0, 1.0, 2.0, 3.0]}
    assert build_model(model, rows, grid=1.0)
    with pytest.raises(
        ModelError, match=r"grid: bins 50 wide hide how 'y' varies \(standard deviation 1\.12\)"
    ):
        build_model(model, rows, grid=50.0)
