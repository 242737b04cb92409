"""Covariates and strata: exact where theory says so, equal to the long way, and honest refusals."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st

from pymc_mte import (
    CausalModel,
    DataError,
    RefusedError,
    build_model,
    estimate,
    identify,
    population,
    tabulate,
    truth,
)
from pymc_mte.moments.adjusted import adjusted_averages, adjusted_cross, adjusted_effect, arm_grams
from pymc_mte.moments.problem import problem_of
from pymc_mte.moments.proximal import outcome_bridge
from pymc_mte.moments.rank import measure_ranks
from pymc_mte.moments.twostage import two_stage
from pymc_mte.status import Status, load_notes

VARIABLES = {
    "z": {"family": "bernoulli"},
    "x": {"family": "bernoulli"},
    "t": {"family": "bernoulli", "parents": ["z"]},
    "y": {"family": "normal"},
}
ROLES = {"treatment": "t", "outcome": "y", "treatment_proxies": ["z"], "outcome_proxies": ["x"]}


def described(**more):
    return CausalModel(classes=2, variables=VARIABLES, **(ROLES | more))


def clinic(n, rng):
    """Two sites with other class shares, arms and effects; class effects -0.2 and 0.6 plus 0.3 at site b."""
    site = rng.integers(0, 2, n)
    u = (rng.random(n) < np.array([0.25, 0.65])[site]).astype(int)
    z = (rng.random(n) < np.where(u == 1, 0.85, 0.2)).astype(int)
    x = (rng.random(n) < np.where(u == 1, 0.8, 0.25)).astype(int)
    t = (rng.random(n) < np.array([0.3, 0.5])[site] + 0.25 * u - 0.1 * z).astype(int)
    effect = np.where(u == 1, 0.6, -0.2) + 0.3 * site
    y = rng.normal(u + 2.0 * site + effect * t)
    frame = pd.DataFrame({"site": np.array(["a", "b"])[site], "z": z, "x": x, "t": t, "y": y})
    return frame, effect, u


def features(rng, n, classes=3):
    """Proxies, covariates (dependent ones among them), arms and counts without any structure to respect."""
    c = rng.normal(size=(n, 4))
    c = np.column_stack([c, c[:, 0] - c[:, 1], np.ones(n)])
    u = rng.integers(0, classes, n)
    z = np.column_stack([np.ones(n), rng.normal(u) + c[:, 0], (u == 1) + rng.normal(size=n)])
    x = np.column_stack(
        [np.ones(n), rng.normal(u) - c[:, 1], (u == 1) + rng.normal(size=n), rng.normal(size=n)]
    )
    arm = rng.integers(0, 3, n)
    return u * (arm + 1.0) + c[:, 0] + rng.normal(size=n), arm, z, x, c, rng.integers(0, 3, n).astype(float)


@given(seed=st.integers(0, 2**32 - 1), rank=st.integers(2, 3))
@settings(max_examples=15)
def test_grams_give_what_row_by_row_algebra_gives(seed, rank):
    y, arm, z, x, c, w = features(np.random.default_rng(seed), 400)
    grams = arm_grams(w[None], z, x, arm, 3, y, c)
    slow = outcome_bridge(y, arm, z, x, c, w, rank=rank)
    mean, among = adjusted_averages(grams, rank)
    np.testing.assert_allclose(mean[0], slow.arm_mean, rtol=0, atol=1e-9)
    untreated = np.average(slow.outcome_bridge[arm == 2, 0], weights=w[arm == 2])
    np.testing.assert_allclose(among[0, 0, 2], untreated, rtol=0, atol=1e-9)
    stages = two_stage(y, arm, x[:, 1:], z[:, 1:], c, w)
    np.testing.assert_allclose(adjusted_effect(grams)[0], stages.effect, rtol=0, atol=1e-9)
    for t, found in enumerate(stages.directions[1:]):
        strength = np.linalg.svd(adjusted_cross(grams)[0, t], compute_uv=False)
        np.testing.assert_allclose(strength, found.correlation, atol=1e-9)


def stratified_population(tools, seeds, share):
    """Two random level-3 populations side by side, told apart by a column, and the true averages."""
    models = [tools.draw_level3(s, 2, 2, 2, x_to_y=False) for s in seeds]
    if any(m is None for m in models):
        return None
    tables = [population(m) for m in models]
    frames = []
    for label, table, part in zip("ab", tables, share, strict=True):
        frame = table.to_dataframe().reset_index(drop=True)
        frame["count"] *= part / frame["count"].sum()
        frames.append(frame.assign(site=label))
    described = {n: getattr(models[0], n) for n in ("variables", "treatment", "outcome")}
    described |= {n: getattr(models[0], n) for n in ("treatment_proxies", "outcome_proxies")}
    model = CausalModel(classes=2, strata=["site"], **described)
    wanted = sum(part * truth(m)["ate"] for m, part in zip(models, share, strict=True))
    return model, pd.concat(frames), wanted


@pytest.mark.parametrize("method", ["bridge", "spectral", "polished"])
@given(seeds=st.tuples(st.integers(0, 2**31), st.integers(0, 2**31)))
@settings(max_examples=6)
def test_strata_are_exact_on_the_population(tools, method, seeds):
    found = stratified_population(tools, seeds, (0.3, 0.7))
    assume(found is not None)
    model, frame, wanted = found
    answer = estimate(model, tabulate(frame, model, count="count"), method=method, n_boot=0)["estimate"]
    tolerance = 1e-5 if method == "polished" else 1e-8
    np.testing.assert_allclose(answer["ate"], wanted, rtol=0, atol=tolerance)
    if method != "bridge":
        np.testing.assert_allclose(answer["class_weight"].sum(), 1, atol=1e-10)
        np.testing.assert_allclose(answer["ate"], answer["class_weight"] @ answer["effect"], atol=1e-10)


def test_strata_and_covariates_in_a_sample(rng):
    """A fresh seed misses the four-standard-error bounds once in 2,000 runs."""
    frame, effect, u = clinic(20_000, rng)
    strata = described(strata=["site"])
    answer = estimate(strata, frame, method="spectral", n_boot=100)["estimate"]
    assert abs(answer["ate"] - effect.mean()) < 4 * answer["se_ate"]
    assert abs(answer["att"] - effect[frame["t"] == 1].mean()) < 4 * answer["se_att"]
    for k in (0, 1):
        error = answer["effect"][k] - effect[u == k].mean()
        assert abs(error) < 4 * answer["se_effect"][k]
    ignored = estimate(described(), frame, method="bridge", n_boot=0)["estimate"]["ate"]
    assert abs(ignored - effect.mean()) > 10 * answer["se_ate"]
    adjusted = estimate(described(covariates=["site"]), frame, n_boot=40)["estimate"]
    assert abs(adjusted["ate"] - effect.mean()) < 4 * adjusted["se_delta_ate"]
    assert 0.6 < adjusted["se_ate"] / adjusted["se_delta_ate"] < 1.5


def test_all_linear_forms_with_covariates_agree_and_their_replicates_too(rng):
    frame, _, _ = clinic(1_500, rng)
    model = described(covariates=["site"])
    found = {b: estimate(model, frame, bridge=b, n_boot=8) for b in ("outcome", "treatment", "both")}
    for answer in found.values():
        for group in ("estimate", "posterior"):
            np.testing.assert_allclose(answer[group]["ate"], found["outcome"][group]["ate"], atol=1e-9)
    stages = estimate(model, frame, bridge="two-stage", n_boot=8)["estimate"]
    slow = two_stage(
        frame["y"].to_numpy(), frame["t"].to_numpy(), frame["x"], frame["z"], frame["site"] == "b"
    )
    np.testing.assert_allclose(stages["ate"], slow.effect[0], atol=1e-9)
    np.testing.assert_allclose(stages["se_delta_ate"], slow.se[0], atol=1e-9)


def test_an_arm_missing_in_a_stratum_is_said_and_refused(rng):
    frame, _, _ = clinic(2_000, rng)
    frame.loc[frame["site"] == "a", "t"] = 0
    answer = estimate(described(strata=["site"]), frame, method="bridge", n_boot=8)
    assert np.isnan(answer["estimate"]["ate"])
    notes = load_notes(answer.attrs["notes"])
    assert any(note.status is Status.EMPTY_ARM_IN_STRATUM and "site = a" in note.where for note in notes)
    assert not identify(described(strata=["site"]), frame).identified["ate"]


def test_text_and_missing_values_of_covariates(rng):
    frame, _, _ = clinic(300, rng)
    frame["age"] = rng.normal(size=300)
    model = described(covariates=["site", "age"])
    table = tabulate(frame, model)
    assert json.loads(table.attrs["covariates"]) == ["site = b", "age"]
    assert table["site = b"].values.sum() == (frame["site"] == "b").sum()
    frame.loc[0, "site"] = None
    with pytest.raises(DataError, match=r"missing values in site = b \(1\)"):
        tabulate(frame, model)
    with pytest.raises(DataError, match="tabulate the rows again with this model"):
        estimate(described(covariates=["age"]), table)
    frame["many"] = [f"v{i}" for i in range(300)]
    with pytest.raises(DataError, match="'many' is text with 300 values, more than 50; merge rare ones"):
        tabulate(frame, described(covariates=["many"]))
    with pytest.raises(DataError, match="300 combinations, more than 100; use fewer or coarser strata"):
        tabulate(frame, described(strata=["many"]))


def test_effects_that_reverse_between_strata_are_not_averaged_away(rng):
    """Class effects -0.6 and 0.6 in one stratum, the other way round in the other."""
    n = 20_000
    site, u = rng.integers(0, 2, n), rng.integers(0, 2, n)
    z, x, t = ((rng.random(n) < np.where(u == 1, p, 1 - p)).astype(int) for p in (0.85, 0.85, 0.6))
    effect = np.where((u == 1) == (site == 1), 0.6, -0.6)
    frame = pd.DataFrame({"site": site, "z": z, "x": x, "t": t, "y": rng.normal(2.0 * u + effect * t)})
    answer = estimate(described(strata=["site"]), frame, method="spectral", n_boot=100)
    point = answer["estimate"]
    assert abs(point["effect_sd"] - 0.6) < 0.1
    assert answer.attrs["equal_effects_p"] < 1e-6
    assert Status.EFFECTS_VARY_WITHIN_CLASSES in [n.status for n in load_notes(answer.attrs["notes"])]
    assert point["stratum_effect"].dims == ("stratum", "class")
    np.testing.assert_allclose(point["stratum_weight"].sum(), 1, atol=1e-9)
    spread = (point["stratum_weight"] * (point["stratum_effect"] - point["ate"]) ** 2).sum() ** 0.5
    np.testing.assert_allclose(point["effect_sd"], spread, atol=1e-9)


def test_few_rows_for_many_covariates_are_said_and_too_few_refused(rng):
    frame, _, _ = clinic(200, rng)
    names = [f"c{i}" for i in range(90)]
    frame = pd.concat([frame, pd.DataFrame(rng.normal(size=(200, 90)), columns=names)], axis=1)
    for covariates, refused in ((names[:30], False), (names, True)):
        model = described(covariates=covariates)
        answer = estimate(model, frame, n_boot=0)
        assert Status.FEW_ROWS in [note.status for note in load_notes(answer.attrs["notes"])]
        assert bool(np.isnan(answer["estimate"]["ate"])) is refused
        report = identify(model, frame)
        assert report.identified["ate"] is not refused
        assert Status.FEW_ROWS in [note.status for note in report.notes]


@pytest.mark.slow
def test_bartletts_fallback_counts_the_covariates(rng):
    """Independent proxies given 60 covariates, 150 samples: a right test leaves 1 to 11% once in 500."""
    variables = VARIABLES | {
        "z": {"family": "normal"},
        "x": {"family": "normal"},
        "t": {"family": "bernoulli"},
    }
    model = CausalModel(classes=2, variables=variables, covariates=[f"c{i}" for i in range(60)], **ROLES)
    rejected = 0
    for _ in range(150):
        c, (z, x) = rng.normal(size=(150, 60)), rng.normal(size=(2, 150))
        frame = pd.DataFrame(c, columns=[f"c{i}" for i in range(60)])
        frame = frame.assign(z=z, x=x, t=np.arange(150) % 2, y=rng.normal(size=150))
        ranks = measure_ranks(problem_of(model, tabulate(frame, model)), 0, rng)
        rejected += ranks.arms[0].p_value[0] < 0.05
    assert 0.01 < rejected / 150 < 0.11


def test_the_order_of_rows_does_not_matter(rng):
    frame, _, _ = clinic(500, rng)
    model = described(covariates=["site"])
    one, other = (estimate(model, f, n_boot=8, rng=1) for f in (frame, frame.sample(frac=1, random_state=2)))
    assert one.attrs["fingerprint"] == other.attrs["fingerprint"]
    np.testing.assert_array_equal(one["posterior"]["ate"], other["posterior"]["ate"])


def test_what_covariates_do_not_allow_is_refused_in_words(rng):
    frame, _, _ = clinic(300, rng)
    model = described(covariates=["site"])
    with pytest.raises(RefusedError, match="classes given covariates cannot be told apart by moments"):
        estimate(model, frame, method="spectral")
    with pytest.raises(RefusedError, match="takes no strata"):
        build_model(described(strata=["site"]), frame)
    report = identify(model, frame)
    assert report.identified["ate"]
    assert not report.identified["effect"]
    assert "All of this is meant given site." in report.lines()


@pytest.mark.parametrize("key", ["covariates", "strata"])
def test_round_trip_through_a_model_file(key):
    model = described(**{key: ["age", "sex"]})
    assert CausalModel.from_toml(model.to_toml()) == model


def test_three_arms_and_a_reference_in_the_middle(rng):
    y, arm, z, x, _, _ = features(rng, 3_000)
    frame = pd.DataFrame({"z": z[:, 1], "x": x[:, 1], "t": np.array(["a", "b", "c"])[arm], "y": y})
    variables = VARIABLES | {
        "z": {"family": "normal"},
        "x": {"family": "normal"},
        "t": {"family": "categorical", "levels": ["a", "b", "c"]},
    }
    effects = {}
    for reference in "abc":
        model = CausalModel(classes=2, variables=variables, reference=reference, **ROLES)
        answer = estimate(model, frame, method="bridge", bridge="two-stage", n_boot=0)["estimate"]["ate"]
        effects |= {
            tuple(str(c).split(" - ")): float(v)
            for c, v in zip(answer["contrast"].values, answer, strict=True)
        }
    for b, a in itertools.permutations("abc", 2):
        np.testing.assert_allclose(effects[b, a], -effects[a, b], atol=1e-9)
