"""Two ranks: classes that the proxies support, and distinct effects."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from pymc_mte import CausalModel, estimate, identify, population, simulate
from pymc_mte.data import columns_of, resolve
from pymc_mte.moments.bootstrap import Sampling
from pymc_mte.moments.problem import make_problem, problem_of
from pymc_mte.moments.rank import N_BOOT, measure_ranks
from pymc_mte.moments.strength import noise_level
from pymc_mte.status import Status, load_notes

TIED = (0.1, 0.1, 0.6)
Z = [[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.15, 0.75]]
X = [[0.75, 0.15, 0.1], [0.1, 0.8, 0.1], [0.15, 0.15, 0.7]]


def three_classes(effect, z=Z):
    """Weights (.3, .3, .4); the treatment depends on class and z, the outcome on class and treatment."""
    levels = {"family": "categorical", "levels": [0, 1, 2]}
    return CausalModel(
        classes=3,
        variables={
            "z": levels,
            "x": levels,
            "t": {"family": "bernoulli", "parents": ["z"]},
            "y": {"family": "bernoulli", "parents": ["t"]},
        },
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        truth={
            "class_weight": [0.3, 0.3, 0.4],
            "z": {"p": z},
            "x": {"p": X},
            "t": {"p": [[0.3, 0.5, 0.4], [0.6, 0.4, 0.5], [0.5, 0.7, 0.6]]},
            "y": {"p": [[low, low + e] for low, e in zip((0.2, 0.35, 0.3), effect, strict=True)]},
        },
    )


def ranks_of(model, data, n_boot=0, seed=0):
    model, table = resolve(model, data)
    return measure_ranks(problem_of(model, table), n_boot, np.random.default_rng(seed))


def statuses(answer):
    return {note.status for note in load_notes(answer.attrs["notes"])}


# exact input


@settings(max_examples=20)
@given(
    size=st.integers(2, 4).flatmap(
        lambda k: st.tuples(st.just(k), st.integers(k, k + 2), st.integers(k, k + 2))
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_ranks_are_exact_on_population_input(tools, size, seed):
    model = tools.draw_level3(seed, *size)
    assume(model is not None)
    found = ranks_of(model, population(model))
    assert (found.evidence, found.supported, found.effects.distinct) == ("exact", size[0], size[0])


@pytest.mark.parametrize(
    ("effect", "distinct"), [(TIED, 2), ((0.2, 0.2, 0.2), 1), ((0.1, 0.3, 0.6), 3), ((0.6, -0.1, -0.1), 2)]
)
def test_distinct_effects_are_the_rank_of_the_hankel_matrix(effect, distinct):
    found = ranks_of(three_classes(effect), population(three_classes(effect)))
    weight = np.array([0.3, 0.3, 0.4])
    powers = np.array(effect)[:, None] ** np.arange(6)
    np.testing.assert_allclose(found.effects.moment, weight @ powers, rtol=0, atol=1e-12)
    hankel = found.effects.moment[np.add.outer(range(3), range(3))]
    assert np.linalg.matrix_rank(hankel, tol=1e-10) == distinct
    assert (found.supported, found.effects.distinct) == (3, distinct)


def test_classes_that_a_proxy_does_not_tell_apart_are_not_supported():
    model = three_classes((0.1, 0.3, 0.6), z=[Z[0], Z[0], Z[2]])
    same = {**model.truth, "t": {"p": [[0.3, 0.5, 0.4]] * 3}}
    fields = {n: getattr(model, n) for n in type(model).model_fields}
    model = CausalModel(**{**fields, "truth": same})
    found = estimate(model, population(model), method="bridge", n_boot=0)
    assert found.attrs["supported_classes"] == 2
    assert Status.WEAK_PROXIES in statuses(found)


@pytest.mark.parametrize("method", ["spectral", "polished"])
def test_three_classes_with_two_effects_are_two_causal_groups(method):
    model = three_classes(TIED)
    answer = estimate(model, population(model), method=method, n_boot=0)
    group = answer["estimate"]["causal_groups"].values
    weight = answer["estimate"]["class_weight"].values
    np.testing.assert_allclose(np.bincount(group.astype(int), weight), [0.6, 0.4], rtol=0, atol=1e-8)
    assert (answer.attrs["supported_classes"], answer.attrs["distinct_effects"]) == (3, 2)
    (note,) = load_notes(answer.attrs["notes"])
    assert note.status is Status.FEWER_EFFECTS
    assert "2 distinct effects, 3 classes supported" in note.detail


@pytest.mark.parametrize("method", ["pencil", "prony"])
@given(low=st.floats(-0.15, 0.2), gap=st.floats(0.05, 0.4), first=st.booleans())
@settings(max_examples=5)
def test_textbook_methods_return_a_status_when_two_classes_tie(method, low, gap, first):
    effect = (low, low, low + gap) if first else (low + gap, low, low + gap)
    model = three_classes(effect)
    answer = estimate(model, population(model), method=method, n_boot=0)
    assert {Status.SINGULAR, Status.FEWER_EFFECTS} <= statuses(answer)
    assert np.isnan(answer["estimate"]["effect"]).all()


# samples


def test_a_sample_tells_three_classes_and_two_effects():
    """Seeds fixed; a false third effect would appear in about 5% of samples."""
    model = three_classes(TIED)
    rows = simulate(model, 20_000, rng=3)
    answer = estimate(model, rows, method="spectral", n_boot=100)
    assert (answer.attrs["supported_classes"], answer.attrs["distinct_effects"]) == (3, 2)
    assert answer.attrs["rank_evidence"] == "bootstrap"
    p = json.loads(answer.attrs["rank_p"])
    assert set(p) == {"t = 0", "t = 1", "effects"}
    assert p["effects"][0] < 1e-6
    found = identify(model, rows)
    table = found.checks.set_index("check")
    assert table.loc["distinct effects", "value"] == 2
    assert table.loc["at most 1 distinct effect", "verdict"] == "ok"
    assert table.loc["at most 2 distinct effects", "verdict"] == "doubt"
    assert table.loc["classes supported", "value"] == found.supported == 3
    assert "bootstrap" in table.loc["classes supported", "where"]
    assert Status.FEWER_EFFECTS in {note.status for note in found.notes}


def test_bartlett_stands_in_and_is_named(level3):
    rows = simulate(level3, 3_000, rng=1)
    few = estimate(level3, rows, method="spectral", n_boot=20)
    assert few.attrs["rank_evidence"] == "bartlett"
    assert "distinct_effects" not in few.attrs
    _, table = resolve(level3, rows)
    halves = table.assign(count=table["count"] * 1.5 + 0.25)
    assert ranks_of(level3, halves, N_BOOT).evidence == "bartlett"
    noise = {v: np.random.default_rng(2).integers(0, 2, 3_000) for v in level3.variables}
    weak = estimate(level3, noise, method="bridge", n_boot=0)
    assert "Bartlett" in next(
        n.detail for n in load_notes(weak.attrs["notes"]) if n.status is Status.WEAK_PROXIES
    )


def test_averages_ask_for_no_distinct_effects():
    model = three_classes(TIED)
    answer = estimate(model, population(model), method="bridge", n_boot=0)
    assert "distinct_effects" not in answer.attrs
    assert answer.attrs["supported_classes"] == 3


def test_estimates_do_not_depend_on_the_rank_test(level3, monkeypatch):
    """The test has a stream of its own: two seeds of it give the same replicates."""
    rows = simulate(level3, 2_000, rng=1)
    one = estimate(level3, rows, method="spectral", n_boot=100, rng=4)
    monkeypatch.setattr("pymc_mte.moments.rank.N_BOOT", 150)
    other = estimate(level3, rows, method="spectral", n_boot=100, rng=4)
    np.testing.assert_array_equal(one["posterior"]["ate"], other["posterior"]["ate"])


def test_units_and_origin_of_the_outcome_do_not_matter():
    columns = simulate(three_classes(TIED), 4_000, rng=5)
    p = []
    for scale, shift in ((1.0, 0.0), (250.0, -40.0)):
        fields = {n: getattr(three_classes(TIED), n) for n in CausalModel.model_fields}
        variables = {**fields["variables"], "y": {"family": "normal", "parents": ["t"]}}
        model = CausalModel(**{**fields, "variables": variables, "truth": None})
        moved = columns.assign(y=scale * columns["y"] + shift)
        p.append(ranks_of(model, moved, N_BOOT).effects.p_value)
    np.testing.assert_allclose(p[0], p[1], rtol=1e-6)


def covariances(problem, counts):
    """Cov(phi_Z, effect^l), l = 1, 2, by the textbook inverse of square moments."""
    share, t, y = counts / counts.sum(), problem.arm, problem.outcome
    z, x = problem.z.values, problem.x.values
    m = [(share * (t == a) * z.T) @ x for a in (0, 1)]
    n = [(share * (t == a) * y * z.T) @ x for a in (0, 1)]
    g = np.linalg.inv(m[1]) @ n[1] - np.linalg.inv(m[0]) @ n[0]
    first = (m[0] + m[1]) @ g[:, 0]
    second = (m[0] + m[1]) @ g @ g[:, 0]
    mean = share @ z
    return np.column_stack([v[1:] - mean[1:] * v[0] for v in (first, second)])


def test_effect_statistics_agree_with_the_delta_method():
    """The trace of a bootstrap covariance of 200 replicates has a relative error of 10% (df 1)."""
    model = three_classes((0.6, -0.1, -0.1))  # skew, so that both covariances matter
    problem = problem_of(*resolve(model, simulate(model, 100_000, rng=8)))
    found = measure_ranks(problem, N_BOOT, np.random.default_rng(1)).effects
    point = covariances(problem, problem.counts)
    slope = point[:, 0] @ point[:, 1] / (point[:, 0] @ point[:, 0])
    across = np.array([-point[1, 0], point[0, 0]]) / np.linalg.norm(point[:, 0])

    def statistics(counts):
        cov = covariances(problem, counts)
        return np.array([*cov[:, 0], across @ (cov[:, 1] - slope * cov[:, 0])])

    step = np.diag(1e-4 * problem.counts)
    gradient = np.array(
        [(statistics(problem.counts + d) - statistics(problem.counts - d)) / (2 * d.sum()) for d in step]
    )
    variance = problem.counts @ gradient**2
    value = statistics(problem.counts) ** 2
    wanted = [value[:2].sum() / variance[:2].sum(), value[2] / variance[2]]
    np.testing.assert_allclose(found.statistic / found.df, wanted, rtol=0.35)


def noise_problem(level3, rng, cluster=None, weight=None):
    """Proxies without any class; ``cluster`` rows in a row are copies of each other."""
    n = 150
    columns = {v: np.repeat(rng.integers(0, 2, n), cluster or 1) for v in level3.variables}
    size = n * (cluster or 1)
    sampling = Sampling(
        counts=np.ones(size),
        cluster=None if cluster is None else np.repeat(np.arange(n), cluster),
        weight=None if weight is None else rng.choice(weight, size) / np.mean(weight),
    )
    return make_problem(level3, columns, sampling)


@pytest.mark.parametrize(("cluster", "weight"), [(4, None), (None, [0.2, 0.2, 0.2, 3.4])])
def test_clusters_and_weights_are_respected(level3, cluster, weight, rng):
    """Two arms in each of 50 samples of noise: binomial(100, 0.05), above 15 by chance 4e-5."""
    hits = {0: 0, 100: 0}
    for _ in range(50):
        problem = noise_problem(level3, rng, cluster, weight)
        for n_boot in hits:
            found = measure_ranks(problem, n_boot, rng)
            hits[n_boot] += sum(arm.p_value[0] < 0.05 for arm in found.arms)
    assert hits[100] <= 15
    assert hits[0] > 20  # Bartlett's test takes the rows for independent and equal


def test_rare_levels_fool_bartlett_and_not_the_bootstrap(rng):
    """True rank 1 in each of 25 x 2 arms: binomial(50, 0.05), above 10 by chance 3e-5."""
    z = [[0.01, 0.3], [0.02, 0.2], [0.02, 0.3], [0.01, 0.25]]
    x = [[0.02, 0.3], [0.01, 0.3], [0.01, 0.2], [0.03, 0.2]]
    names = [f"{side}{i}" for side in "zx" for i in range(4)]
    one = {"family": "bernoulli"}
    model = CausalModel(
        classes=2,
        variables=dict.fromkeys(names, one) | {"t": one, "y": one | {"parents": ["t"]}},
        treatment="t",
        outcome="y",
        treatment_proxies=names[:4],
        outcome_proxies=names[4:],
        truth={
            "class_weight": [0.85, 0.15],
            **{n: {"p": p} for n, p in zip(names, z + x, strict=True)},
            "t": {"p": [0.5, 0.5]},
            "y": {"p": [[0.2, 0.3], [0.4, 0.9]]},
        },
    )
    table = population(model)
    columns, share = columns_of(table, model), table["count"].values
    hits = {0: 0, 100: 0}
    for _ in range(25):
        counts = rng.multinomial(2_000, share / share.sum()).astype(float)
        seen = counts > 0
        problem = make_problem(model, {n: v[seen] for n, v in columns.items()}, counts[seen])
        for n_boot in hits:
            arms = measure_ranks(problem, n_boot, rng).arms
            hits[n_boot] += sum(arm.p_value[1] < 0.05 for arm in arms)
    assert hits[100] <= 10
    assert hits[0] > 20


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "place"), [((0.2, 0.2, 0.2), 0), (TIED, 1)])
def test_level_of_the_effect_test(effect, place):
    """Binomial(600, 0.05): outside 14 to 50 by chance 3e-4 (two-sided)."""
    model = three_classes(effect)
    table = population(model)
    columns, share = columns_of(table, model), table["count"].values
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(600):
        counts = rng.multinomial(20_000, share / share.sum()).astype(float)
        found = measure_ranks(make_problem(model, columns, counts), N_BOOT, rng)
        hits += found.effects.p_value[place] < 0.05
    assert 14 <= hits <= 50


@pytest.mark.parametrize(("dz", "dx"), [(1, 1), (1, 3), (2, 2), (4, 4), (3, 8)])
def test_noise_exceeds_its_level_in_one_sample_of_twenty(dz, dx, rng):
    """4,000 noise matrices each: standard error .0034; found .044 to .047."""
    largest = np.linalg.svd(rng.normal(size=(4_000, dz, dx)), compute_uv=False)[:, 0]
    assert 0.035 < (largest > 1e3 * noise_level(dz, dx, 1e-6)).mean() < 0.062


def test_noise_level_of_independent_proxies(rng):
    """Three levels a side, independent: 60 samples of 500 rows (a longer run: 6.3% of 600 arms)."""
    model = three_classes(TIED)
    beyond = []
    for _ in range(60):
        _, table = resolve(model, {v: rng.integers(0, 2 if v in "ty" else 3, 500) for v in model.variables})
        (arm, *_) = measure_ranks(problem_of(model, table), 100, rng).arms
        beyond.append(arm.correlation[0] > arm.noise[0])
        assert (np.diff(arm.noise) < 0).all()
    assert np.mean(beyond) <= 0.15


def test_noise_level_without_replicates_is_that_of_the_rows(level3):
    ranks = ranks_of(level3, simulate(level3, 3_000, rng=1), 0)
    for arm in ranks.arms:
        np.testing.assert_allclose(arm.noise, noise_level(1, 1, 1 / arm.n))
    assert [a.noise.tolist() for a in ranks_of(level3, population(level3), 0).arms] == [[0.0], [0.0]]
