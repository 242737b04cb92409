"""What the rows say against a model before anything is estimated, and that every way of answering says it."""

import numpy as np
import pandas as pd
import pytest

from pymc_mte import CausalModel, estimate, fit, identify, load_model, population, simulate, tabulate
from pymc_mte.data import data_notes
from pymc_mte.datanotes import ARM_GIVEN, PROXY_GIVEN, by_threshold, explained, n_parameters
from pymc_mte.identify.jacobian import n_free
from pymc_mte.status import Status, load_notes

BINARY = {"family": "bernoulli"}
ROLES = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["x"]}


def clinic(rng, n=500, arms=2, **fields):
    """Rows of independent columns, and a model of them with the covariates age and dose."""
    frame = pd.DataFrame(rng.normal(size=(n, 4)), columns=["y", "x", "age", "dose"])
    frame = frame.assign(z=rng.integers(0, 2, n), t=rng.permutation(np.arange(n) % arms))
    arm = BINARY if arms == 2 else {"family": "categorical", "levels": list(range(arms))}
    variables = {"z": BINARY, "x": {"family": "normal"}, "t": arm, "y": {"family": "normal"}}
    fields = {"classes": 2, "variables": variables, "covariates": ["age", "dose"]} | fields
    return frame, CausalModel(**fields, **ROLES)


def found(frame, model, *statuses, **options):
    notes = data_notes(tabulate(frame, model, **options))
    return [(note.where, note.detail) for note in notes if note.status in statuses]


@pytest.mark.parametrize("adjusted", [False, True])
def test_shares_explained_are_those_of_least_squares_over_rows(rng, adjusted):
    """Patterns with counts give what their rows give, collinear and constant columns included."""
    given = rng.normal(size=(60, 3))
    given = np.column_stack([given, given @ [1.0, -2.0, 0.5], np.full(60, 3.7)])
    target = given @ [1.0, 0.0, 2.0, 0.0, 0.0] + rng.normal(size=60)
    count = rng.integers(1, 5, 60)
    n = count.sum() if adjusted else np.inf
    r2, nearest = explained(list(given.T), [target, np.full(60, 0.1)], count.astype(float), n)
    rows, y = np.repeat(given, count, axis=0), np.repeat(target, count)
    design = np.column_stack([rows, np.ones(len(y))])
    left = y - design @ np.linalg.lstsq(design, y, rcond=1e-10)[0]
    wanted = (left @ left) / ((y - y.mean()) @ (y - y.mean()))
    wanted *= (n - 1) / (n - 4) if adjusted else 1
    np.testing.assert_allclose(1 - r2[0], wanted, rtol=1e-9)
    assert r2[1] <= 1e-12
    correlation = [abs(np.corrcoef(rows[:, i], y)[0, 1]) for i in range(4)]
    assert nearest[0] == int(np.argmax(correlation))


def test_no_more_rows_than_terms_explain_nothing(rng):
    r2, _ = explained(list(rng.normal(size=(3, 4))), [rng.normal(size=4)], np.ones(4), 4.0)
    assert np.isnan(r2).all()


def test_a_covariate_that_determines_the_treatment_is_said(rng):
    frame, model = clinic(rng)
    assert found(frame, model, Status.NO_OVERLAP) == []
    for noise, said in ((0.0, True), (0.05, True), (0.3, False)):
        changed = frame.assign(age=40 + 2 * frame["t"] + 2 * noise * rng.normal(size=len(frame)))
        notes = found(changed, model, Status.NO_OVERLAP)
        assert [where for where, _ in notes] == ["t given the covariates"] * said
        assert all(detail.endswith("most by age") for _, detail in notes)
    far, near = 0.25 / (0.25 + np.array([0.3, 0.05]) ** 2)
    assert far < ARM_GIVEN < near


def test_of_several_arms_the_determined_one_is_named(rng):
    frame, model = clinic(rng, arms=3)
    notes = found(frame.assign(dose=1.0 * (frame["t"] == 2)), model, Status.NO_OVERLAP)
    assert notes == [("t = 2 given the covariates", "R^2 1, most by dose")]


def test_a_threshold_that_determines_the_treatment_is_said(rng):
    """The least squares of a threshold explain two thirds; one exception in twenty is let pass."""
    frame, model = clinic(rng)
    cut = 1.0 * (frame["age"] > frame["age"].quantile(0.6))
    assert found(frame.assign(t=cut), model, Status.NO_OVERLAP) == [
        ("t given the covariates", "R^2 1 by a threshold of age")
    ]
    for exceptions, said in ((0.005, True), (0.05, False)):
        other = rng.random(len(frame)) < exceptions
        assert bool(found(frame.assign(t=np.where(other, 1 - cut, cut)), model, Status.NO_OVERLAP)) is said
    few = frame.assign(t=1.0 * (frame["age"] >= frame["age"].nlargest(7).min()))
    assert found(few, model, Status.NO_OVERLAP) == []


def test_thresholds_explain_what_every_split_explains_at_most(rng):
    column, target = rng.integers(0, 6, 80).astype(float), rng.normal(size=80)
    weight = rng.integers(1, 4, 80).astype(float)
    total = np.average((target - np.average(target, weights=weight)) ** 2, weights=weight)
    left = []
    for cut in np.unique(column)[:-1]:
        parts = [column <= cut, column > cut]
        error = [(target[p] - np.average(target[p], weights=weight[p])) ** 2 @ weight[p] for p in parts]
        left.append(sum(error) / weight.sum())
    r2, which = by_threshold([np.ones(80), column], [target, np.ones(80)], weight)
    np.testing.assert_allclose(r2, [1 - min(left) / total, 0.0], atol=1e-12)
    assert which[0] == 1
    for _ in range(50):  # rounding errors of a constant are not variance
        assert by_threshold([column], [np.ones(80)], rng.dirichlet(np.ones(80)))[0] == 0


def test_text_that_determines_the_treatment_is_said(rng):
    frame, model = clinic(rng)
    named = frame.assign(age=np.where(frame["t"] == 1, "ward b", "ward a"))
    assert found(named, model, Status.NO_OVERLAP) == [
        ("t given the covariates", "R^2 1, most by age = ward b")
    ]


def test_many_covariates_of_few_rows_determine_nothing(rng):
    """Without the adjustment, 56 columns of noise explain 95% of 60 rows."""
    frame, _ = clinic(rng, n=60)
    names = [f"c{i}" for i in range(56)]
    frame = pd.concat([frame, pd.DataFrame(rng.normal(size=(60, 56)), columns=names)], axis=1)
    _, model = clinic(rng, covariates=names)
    assert found(frame, model, Status.NO_OVERLAP, Status.PROXY_FROM_COVARIATES) == []


def test_a_proxy_that_follows_from_the_covariates_is_named(rng):
    frame, model = clinic(rng)
    assert found(frame, model, Status.PROXY_FROM_COVARIATES) == []
    made = 3 + frame["age"] - 2 * frame["dose"]
    for noise, said in ((0.0, True), (0.02, True), (0.3, False)):
        changed = frame.assign(x=made + noise * rng.normal(size=len(frame)))
        notes = found(changed, model, Status.PROXY_FROM_COVARIATES)
        assert [where for where, _ in notes] == ["x given the covariates"] * said
        assert all(detail.endswith("most by dose") for _, detail in notes)
    assert 5 / (5 + 0.3**2) < PROXY_GIVEN < 5 / (5 + 0.02**2)
    alone = model.with_classes(1)
    assert found(frame.assign(x=made), alone, Status.PROXY_FROM_COVARIATES) == []


@pytest.mark.parametrize("levels", [["low", "middle", "high"], [0, 1, 5]])
def test_listed_levels_follow_from_a_column_of_theirs(rng, levels):
    frame, model = clinic(rng)
    band = {"family": "categorical", "levels": levels}
    model = model.with_fields(variables={**model.variables, "z": band})
    picked = np.array(levels, dtype=object)[rng.integers(0, 3, len(frame))]
    assert found(frame.assign(z=picked), model, Status.PROXY_FROM_COVARIATES) == []
    notes = found(frame.assign(z=picked, age=picked), model, Status.PROXY_FROM_COVARIATES)
    assert [where for where, _ in notes] == ["z given the covariates"]


def test_a_proxy_with_missing_values_is_judged_where_it_was_seen(rng):
    frame, model = clinic(rng, data={"missing": "sum"})
    frame = frame.assign(x=frame["age"].where(rng.random(len(frame)) < 0.7))
    notes = found(frame, model, Status.PROXY_FROM_COVARIATES)
    assert notes == [("x given the covariates", "R^2 1, most by age")]


def test_rows_below_the_number_of_parameters_are_said(level3):
    free = n_free(level3)
    assert n_parameters(level3) == free == 13
    for n in (3, 12, 13):
        notes = found(simulate(level3, n, rng=1), level3, Status.FEWER_ROWS_THAN_PARAMETERS)
        assert notes == [("all rows", f"{n} rows, 13 free parameters")] * (n < free)
    assert found(population(level3), level3, Status.FEWER_ROWS_THAN_PARAMETERS) == []  # shares, no rows


def test_coefficients_count_as_parameters(rng):
    """Each of two covariates shifts one class, the treatment and the outcome; text gives two columns."""
    frame, model = clinic(rng, n=10)
    plain = model.with_fields(covariates=())
    assert n_parameters(model) == n_free(plain) + 3 * 2
    named = frame.assign(age=["a", "b", "c", "a", "b"] * 2)
    notes = found(named, model, Status.FEWER_ROWS_THAN_PARAMETERS)
    assert notes == [("all rows", f"10 rows, {n_free(plain) + 3 * 3} free parameters")]


def test_few_long_rows_of_a_mixture_are_not_called_too_few(rng):
    model = CausalModel(classes=2, variables={f"v{i}": BINARY for i in range(30)})
    rows = {name: rng.integers(0, 2, 40) for name in model.variables}
    assert n_free(model) > 40
    assert found(rows, model, Status.FEWER_ROWS_THAN_PARAMETERS) == []


def test_every_way_of_answering_says_that_rows_are_few(level3):
    rows = {"z": [0, 1, 1], "x": [0, 1, 1], "t": [0, 1, 0], "y": [0, 1, 0]}
    whole = fit(level3, rows, n_boot=4, draws=20, tune=20, chains=2, progressbar=False)
    trees = (whole.moments, whole.posterior, estimate(level3, rows, n_boot=0))
    told = [load_notes(tree.attrs["notes"]) for tree in trees] + [whole.notes, identify(level3, rows).notes]
    for notes in told:
        assert Status.FEWER_ROWS_THAN_PARAMETERS in [note.status for note in notes]


@pytest.mark.parametrize(
    ("sizes", "few", "single"),
    [
        ([40], ["1 group"], []),
        ([20, 20], ["2 groups"], []),
        ([20, 10, 10], [], []),
        ([1] * 40, [], ["40 of 40 have one row"]),
        ([20, 1, 1, 18], [], []),
        ([37, 1, 1, 1], [], ["3 of 4 have one row"]),
    ],
)
def test_groups_that_cannot_tell_their_spread_are_said(level3, sizes, few, single):
    frame = simulate(level3, sum(sizes), rng=1).to_dataframe()
    frame["site"] = np.repeat(np.arange(len(sizes)), sizes)
    for status, details in ((Status.FEW_GROUPS, few), (Status.SINGLE_ROW_GROUPS, single)):
        assert found(frame, level3, status, group="site") == [("groups", detail) for detail in details]
        assert found(frame, level3, status) == []


def test_no_gallery_model_with_rows_is_doubted_by_these_notes():
    new = (Status.NO_OVERLAP, Status.PROXY_FROM_COVARIATES, Status.FEWER_ROWS_THAN_PARAMETERS)
    for name in ("nhefs", "lalonde"):
        model = load_model(f"gallery:{name}")
        assert found(model.data_path, model, *new) == []


@pytest.mark.parametrize("family", ["normal", "lognormal", "hurdle_gamma", "poisson"])
def test_heaps_are_told_where_a_class_could_shrink_to_them(rng, family):
    model = CausalModel(classes=2, variables={"y": {"family": family}, "x": {"family": "normal"}})
    y = np.where(np.arange(200) < 30, 2.0, rng.gamma(3.0, size=200))
    y = y.round() if family == "poisson" else y
    found = [n for n in data_notes(tabulate({"y": y, "x": rng.normal(size=200)}, model)) if n.where == "y"]
    if family == "poisson":  # probabilities have a bound
        assert not found
        return
    assert [(note.status, note.detail) for note in found] == [(Status.HEAP, "2 in 15% of the rows")]
    y[:30] = 0.0 if family == "hurdle_gamma" else y[:30] + 0.01 * np.arange(30)
    assert not data_notes(tabulate({"y": y, "x": rng.normal(size=200)}, model))
    assert not data_notes(tabulate({"y": np.full(200, 2.0) + (y > 3), "x": y}, model.with_classes(1)))
