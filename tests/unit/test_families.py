"""Families of numbers: derivatives, means and draws; model files, tables, EM, identification."""

import numpy as np
import pytest
from scipy import stats

from pymc_mte import CausalModel, DataError, ModelError, RefusedError, estimate, simulate, tabulate, truth
from pymc_mte.data import columns_of
from pymc_mte.families import FAMILIES
from pymc_mte.identify.jacobian import jacobian
from pymc_mte.laws import NEGATIVE_BINOMIAL_ABOVE_ZERO, POISSON_ABOVE_ZERO
from pymc_mte.moments.em import Maximiser, em, random_starts
from pymc_mte.moments.msteps import number_step
from pymc_mte.moments.scores import Scores, from_free, information, to_free
from pymc_mte.network import (
    RepeatedColumns,
    log_density,
    log_joint,
    log_sum_classes,
    scores,
)

B = {"family": "bernoulli"}
NUMBERS = [name for name, family in FAMILIES.items() if not family.discrete]
NEW = [name for name in NUMBERS if name not in ("normal", "student_t")]
OWN = {
    "mean": [[2.0, 4.0], [6.0, 3.0]],
    "rate": [[2.0, 4.0], [6.0, 3.0]],
    "scale": [[2.0, 4.0], [6.0, 3.0]],
    "sd": [1.0, 2.0],
    "dispersion": [0.3, 0.8],
    "shape": [1.5, 0.8],
    "nu": 4.0,
    "p_zero": [[0.2, 0.4], [0.5, 0.3]],
}
CENSORED = {"event": "died", "censor_at": 5.0}


def model_of(family, **options):
    y = {name: OWN[name] for name in FAMILIES[family].parameters}
    return CausalModel(
        classes=2,
        variables={
            "z": B,
            "x": {"family": "categorical", "levels": [0, 1, 2]},
            "t": {**B, "parents": ["z"]},
            "y": {"family": family, **options},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        truth={
            "class_weight": [0.4, 0.6],
            "z": {"p": [0.2, 0.8]},
            "x": {"p": [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]},
            "t": {"p": [[0.3, 0.5], [0.5, 0.7]]},
            "y": y,
        },
    )


def parameters_of(model):
    return {name: value[None] for name, value in model.true_parameters().items()}


CASES = [*((family, {}) for family in NEW), ("weibull", CENSORED), ("exponential", CENSORED)]
IDS = [family + (", censored" if options else "") for family, options in CASES]


@pytest.mark.parametrize("family", NUMBERS)
def test_draws_have_the_mean_and_the_law(rng, family):
    """Mean within 4.5 standard errors; Kolmogorov-Smirnov or chi-square p > 1e-5."""
    law = FAMILIES[family].law
    own = [np.asarray(OWN[name], dtype=float) for name in FAMILIES[family].parameters]
    own = [v[0, 1] if v.ndim == 2 else v[1] if v.ndim else v for v in own]
    drawn = FAMILIES[family].draw(rng, *(np.full(20_000, v) for v in own))
    error = drawn.std() / np.sqrt(len(drawn))
    assert abs(drawn.mean() - law.mean(*own)) < 4.5 * error
    if FAMILIES[family].values == "counts":
        levels = np.arange(200.0)
        p = np.exp(law.log_density(levels, *own))
        assert p.sum() == pytest.approx(1, abs=1e-9)
        few = int(np.flatnonzero(p * len(drawn) < 10)[0])
        seen = np.bincount(np.minimum(drawn, few).astype(int), minlength=few + 1)
        wanted = np.append(p[:few], 1 - p[:few].sum()) * len(drawn)
        assert stats.chisquare(seen, wanted).pvalue > 1e-5
        return
    above = drawn[drawn != 0]
    assert len(above) < len(drawn) if FAMILIES[family].zeros_apart else len(above) == len(drawn)
    grid = np.linspace(above.min(), above.max(), 200_001)
    density = np.exp(law.log_density(grid, *own))
    cdf = np.cumsum(density) * (grid[1] - grid[0])
    p = stats.kstest(above, lambda x: np.interp(x, grid, cdf / cdf[-1])).pvalue
    assert p > 1e-5


@pytest.mark.parametrize(("family", "options"), CASES, ids=IDS)
def test_scores_are_derivatives(family, options):
    model = model_of(family, **options)
    table = tabulate(simulate(model, 150, rng=1), model)
    columns, counts = columns_of(table, model), table["count"].values.astype(float)
    centre = to_free(model, parameters_of(model))[0]

    def value(free):
        return (counts * log_sum_classes(log_joint(model, from_free(model, free[None]), columns))[0]).sum()

    steps = 1e-5 * np.eye(len(centre))
    numeric = [(value(centre + step) - value(centre - step)) / 2e-5 for step in steps]
    found = Scores(model, columns).total(parameters_of(model), counts[None])[0]
    np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=1e-5)


QUICK = ("weibull, censored", "gamma")


@pytest.mark.parametrize(
    ("family", "options"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] * (not quick))
        for case, name in zip(CASES, IDS, strict=True)
        for quick in [FAMILIES[case[0]].collapsible or name in QUICK]
    ],
)
def test_climbs_find_the_truth(rng, family, options):
    """From random starts at n = 20,000: all free parameters within 4 standard errors, joint |z| < 4.

    20 parameters by 14 cases: false alarm below 2% in all; the seed is fixed.
    """
    model = model_of(family, **options)
    table = tabulate(simulate(model, 20_000, rng=3), model)
    columns, counts = columns_of(table, model), table["count"].values.astype(float)
    right = parameters_of(model)
    start = random_starts(model, columns, counts[None], rng)
    few = em(model, columns, counts[None], start, tolerance=1e-5)
    found = em(model, columns, counts[None], few.parameters, tolerance=1e-9)
    point = found.parameters
    at_truth = (counts * log_sum_classes(log_joint(model, right, columns))).sum()
    assert found.log_likelihood[0] >= at_truth
    if point["class_weight"][0, 0] > point["class_weight"][0, 1]:
        point = {n: v[:, ::-1] for n, v in point.items()}
    score = Scores(model, columns).by_pattern(point)
    error = np.sqrt(np.diag(np.linalg.inv(information(score, counts))))
    z = (to_free(model, point) - to_free(model, right))[0] / error
    assert np.abs(z).max() < 4, z.round(1)


@pytest.mark.parametrize("scale_parents", [False, True])
@pytest.mark.parametrize("family", [f for f in NEW if len(FAMILIES[f].parameters) > 1])
def test_no_step_of_em_goes_down(rng, family, scale_parents):
    model = model_of(family)
    if scale_parents:
        fields = {n: getattr(model, n) for n in CausalModel.model_fields} | {"truth": None}
        y = model.variables["y"].model_copy(update={"scale_parents": True})
        model = CausalModel(**fields | {"variables": {**model.variables, "y": y}})
    table = tabulate(simulate(model_of(family), 300, rng=rng), model)
    columns, counts = columns_of(table, model), table["count"].values.astype(float)
    now, last = random_starts(model, columns, counts[None], rng), -np.inf
    for _ in range(15):
        step = em(model, columns, counts[None], now, max_iterations=1)
        assert step.log_likelihood[0] >= last - 1e-9 * abs(last)
        now, last = step.parameters, step.log_likelihood[0]


@pytest.mark.parametrize(
    "law", [POISSON_ABOVE_ZERO, NEGATIVE_BINOMIAL_ABOVE_ZERO], ids=["poisson", "binomial"]
)
def test_slopes_vanish_where_zeros_are_beyond_arithmetic(law):
    parameters = (np.array(5_000.0),) if law is POISSON_ABOVE_ZERO else (np.array(1e6), np.array(1e-4))
    assert all(slope == 0 for slope in law.slopes(*parameters))


@pytest.mark.parametrize("family", NEW)
def test_first_guesses_of_cells_of_zeros_are_numbers(family):
    """Counts of a class and arm may all be zero; so may what a hurdle leaves of them."""
    guess = FAMILIES[family].law.guess(np.array([0.0, 2.0]), np.array([1.0, 0.5]))
    assert all((np.isfinite(value) & (value >= 0)).all() for value in guess)


def test_a_time_far_beyond_a_class_does_not_stop_its_climb():
    """Its chance of lasting so long is zero, the derivatives there are infinite, and it carries no mass."""
    model = model_of("weibull")
    rows = simulate(model, 400, rng=3)
    rows["y"][0] = 1e9
    table = tabulate(rows, model)
    columns, counts = columns_of(table, model), table["count"].values.astype(float)
    start = parameters_of(model) | {"shape_y": np.array([[60.0, 0.8]])}
    found = em(model, columns, counts[None], start, max_iterations=200)
    assert np.isfinite(found.log_likelihood).all()
    assert all(np.isfinite(value).all() for value in found.parameters.values())
    assert found.parameters["shape_y"][0, 0] < 10  # it was moved


@pytest.mark.parametrize("family", ["gamma", "hurdle_negative_binomial", "weibull"])
def test_the_likelihood_identifies_such_models(family):
    model = model_of(family)
    found = jacobian(model, points=1)
    assert found.rank == found.n_parameters
    assert found.identified["ate"]


def test_effects_are_differences_of_means():
    """Of positive parts times the chance of being positive; of counts that are positive, corrected."""
    model = model_of("hurdle_poisson")
    rate, zero = np.array(OWN["rate"]), np.array(OWN["p_zero"])
    mean = (1 - zero) * rate / (1 - np.exp(-rate))
    np.testing.assert_allclose(truth(model)["potential_outcome"].sortby("class").values.sum(), mean.sum())
    assert float(truth(model)["ate"]) == pytest.approx(np.array([0.4, 0.6]) @ (mean[:, 1] - mean[:, 0]))
    model = model_of("weibull", scale_parents=False)
    mean = stats.weibull_min(np.array([[1.5], [0.8]]), scale=OWN["scale"]).mean()
    assert float(truth(model)["ate"]) == pytest.approx(np.array([0.4, 0.6]) @ (mean[:, 1] - mean[:, 0]))


@pytest.mark.parametrize(("family", "options"), CASES, ids=IDS)
def test_model_files_round_trip(family, options):
    model = model_of(family, **options)
    assert CausalModel.from_toml(model.to_toml()) == model


def test_censored_times_are_negative_in_tables():
    model = model_of("weibull", **CENSORED)
    rows = simulate(model, 500, rng=1)
    censored = rows["died"].values == 0
    assert 0 < censored.sum() < 500
    np.testing.assert_array_equal(rows["y"].values[censored], 5.0)
    assert rows["y"].values.max() == 5.0
    table = tabulate(rows, model)
    y, count = table["y"].values, table["count"].values
    assert count[y < 0].sum() == censored.sum()
    assert (y[y < 0] == -5.0).all()
    without = tabulate(rows, model_of("weibull"))
    assert (without["y"].values > 0).all()


@pytest.mark.parametrize(
    ("family", "values", "said"),
    [
        ("poisson", [1.0, 2.5], r"holds \[2.5\]; its family has whole numbers from 0 on"),
        ("hurdle_poisson", [1.0, -2.0], r"holds \[-2.0\]"),
        ("gamma", [1.0, 0.0], r"holds \[0.0\]; its family has positive numbers; .*hurdle_"),
        ("hurdle_gamma", [0.0, -1.0], r"holds \[-1.0\]; its family has zero and positive"),
        ("weibull", [1.0, 0.0], r"holds \[0.0\]; its family has positive numbers"),
    ],
)
def test_values_that_a_family_does_not_have(family, values, said):
    model = CausalModel(classes=1, variables={"y": {"family": family}})
    with pytest.raises(DataError, match="column 'y' " + said):
        tabulate({"y": values}, model)


def test_marks_of_events():
    model = CausalModel(classes=1, variables={"y": {"family": "exponential", "event": "died"}})
    with pytest.raises(DataError, match="'died' marks events and must hold 1"):
        tabulate({"y": [1.0, 2.0], "died": [1, 2]}, model)
    with pytest.raises(DataError, match="missing values in y"):
        tabulate({"y": [1.0, 2.0], "died": [1, np.nan]}, model)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"y": {"family": "gamma", "event": "died"}}, "event: only times have one .exponential, weibull"),
        ({"y": {"family": "weibull", "censor_at": 2.0}}, "censor_at: name the column"),
        ({"y": {"family": "weibull", "event": "b"}, "b": B}, "event: 'b' is used for something else"),
        ({"zero_a": B, "a": {"family": "hurdle_gamma"}}, "two parameters would have one name"),
    ],
)
def test_impossible_descriptions(variables, said):
    with pytest.raises(ModelError, match=said):
        CausalModel(classes=2, variables=variables)


def test_censored_proxies_are_refused():
    fields = {n: getattr(model_of("normal"), n) for n in CausalModel.model_fields}
    time = {"family": "weibull", "event": "died"}
    with pytest.raises(ModelError, match="'x' is a proxy, and censored times have no features"):
        CausalModel(**fields | {"variables": {**fields["variables"], "x": time}, "truth": None})


def test_a_class_without_events_does_not_climb_to_infinity():
    """Its scale has no maximum: it is held where squares do not overflow."""
    model = model_of("exponential", event="died")
    x, n = np.repeat([0, 0, 2, 2], 25), 100
    rows = {"z": x // 2, "x": x, "t": np.tile([0, 1], n // 2), "y": 1.0 + np.arange(n) % 7}
    table = tabulate(rows | {"died": (x == 0).astype(int)}, model)
    columns, counts = columns_of(table, model), table["count"].values[None].astype(float)
    start = parameters_of(model) | {"p_x": np.array([[[0.98, 0.01, 0.01], [0.01, 0.01, 0.98]]])}
    found = em(model, columns, counts, start, max_iterations=3_000)
    assert 1e3 < found.parameters["scale_y"].max() < 1e8
    assert np.isfinite(found.log_likelihood).all()
    died = columns["y"] > 0
    mass = counts * np.stack([np.where(died, 1e-310, 1.0), np.where(died, 1.0, 0.0)])[None]
    assert Maximiser(model, columns).step(mass, {})["scale_y"].max() < 1e8  # and without a warning


def test_moments_of_censored_times_are_refused_and_the_likelihood_answers():
    model = model_of("weibull", **CENSORED)
    rows = simulate(model, 1_000, rng=4)
    for method in ("spectral", "bridge", "pencil"):
        with pytest.raises(RefusedError, match="means of 'y', and censored times have none"):
            estimate(model, rows, method=method, n_boot=0)
    answer = estimate(model, rows, n_boot=40, rng=1)
    assert answer.attrs["method"] == "polished"
    point = answer["estimate"]
    assert abs(float(point["ate"] - truth(model)["ate"])) < 4 * float(point["se_ate"])


def test_counts_collapse():
    assert [name for name, family in FAMILIES.items() if family.collapsible] == [
        *("bernoulli", "categorical", "ordinal", "binomial"),
        *("poisson", "negative_binomial", "hurdle_poisson", "hurdle_negative_binomial"),
    ]
    model = model_of("poisson")
    assert tabulate(simulate(model, 5_000, rng=1), model).sizes["pattern"] < 250


@pytest.mark.parametrize("options", [{}, {"latent": False}, {"scale_parents": True}])
@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.repeats])
def test_densities_of_counts_are_computed_once_per_value(rng, family, options):
    """Looked-up densities, scores and M-steps are those of the patterns; missing values add nothing."""
    model, known = model_of(family), parameters_of(model_of(family))
    table = tabulate(simulate(model, 2_000, rng=rng), model)
    model = model.with_fields(
        variables=model.variables | {"y": model.variables["y"].model_copy(update=options)}, truth=None
    )
    wide = {n: np.broadcast_to(known[n].mean(), (1, *model.shapes[n])) for n in known if n.endswith("_y")}
    columns, point = columns_of(table, model), known | wide
    gaps = columns | {"y": np.where(np.arange(len(columns["y"])) % 7 == 0, np.nan, columns["y"])}
    repeated = RepeatedColumns(model, gaps)
    few, place = repeated.repeated["y"]
    assert len(few["y"]) < len(gaps["y"]) / 2
    for name in ("t", "y"):
        np.testing.assert_array_equal(few[name][place], gaps[name])
    found = log_density(model, "y", point, repeated)
    np.testing.assert_array_equal(found, log_density(model, "y", point, gaps))
    assert (found[..., np.isnan(gaps["y"])] == 0).all()

    slopes = scores(model, "y", point, columns)
    for name, slope in scores(model, "y", point, RepeatedColumns(model, columns)).items():
        np.testing.assert_array_equal(np.broadcast_arrays(slope, slopes[name])[0], slopes[name])
    counts = table["count"].values.astype(float)
    maximiser, mass = Maximiser(model, columns), rng.dirichlet([1, 1], len(counts)).T[None] * counts
    part = mass if model.variables["y"].latent else mass.sum(axis=1, keepdims=True)
    step, by_pattern = maximiser.step(mass, point), number_step(maximiser, part, "y", point)
    for name, value in by_pattern.items():
        np.testing.assert_allclose(step[name], value, rtol=1e-10)


def test_numbers_that_hardly_repeat_are_not_looked_up(rng):
    model = model_of("poisson")
    columns = {name: np.zeros(50, dtype=int) for name in model.variables} | {"y": np.arange(50.0)}
    assert RepeatedColumns(model, columns).repeated == {}
