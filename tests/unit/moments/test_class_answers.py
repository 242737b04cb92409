"""`estimate` without proxies: layout, order, checks, notes; binomial variables; published fits."""

import json

import numpy as np
import pytest
from scipy import stats

from pymc_mte import (
    CausalModel,
    DataError,
    ModelError,
    RefusedError,
    estimate,
    load,
    load_model,
    population,
    save,
    simulate,
    tabulate,
    truth,
)
from pymc_mte.moments.em import em
from pymc_mte.moments.scores import Scores, from_free, to_free
from pymc_mte.network import log_joint, log_sum_classes


def checks(tree, name):
    lines = tree["checks"].to_dataset()
    return lines["value"].values[lines["check"].values == name]


def statuses(tree):
    return [note[0] for note in json.loads(tree.attrs["notes"])]


@pytest.fixture(scope="module")
def parts():
    """Two classes, a binomial child of a bernoulli variable."""
    return CausalModel(
        classes=2,
        variables={
            "a": {"family": "bernoulli"},
            "s": {"family": "binomial", "trials": 3, "parents": ["a"]},
        },
        truth={"class_weight": [0.4, 0.6], "a": {"p": [0.3, 0.8]}, "s": {"p": [[0.2, 0.6], [0.5, 0.9]]}},
    )


def test_binomial_density_is_the_binomials(parts):
    cells = {"a": np.array([0, 1, 1]), "s": np.array([2, 0, 3])}
    found = np.exp(log_joint(parts, parts.true_parameters(), cells))
    p = np.array([[0.2, 0.6], [0.5, 0.9]])
    for u, (w, pa) in enumerate(((0.4, 0.3), (0.6, 0.8))):
        for i, (a, s) in enumerate(zip(cells["a"], cells["s"], strict=True)):
            wanted = w * (pa if a else 1 - pa) * stats.binom.pmf(s, 3, p[u, a])
            assert found[u, i] == pytest.approx(wanted, rel=1e-12)
    assert float(population(parts)["count"].sum()) == pytest.approx(1.0)


def test_binomial_scores_are_gradients_and_em_stays_at_its_maximum(parts, rng):
    table = population(parts)
    columns = {v: table[v].values for v in parts.variables}
    counts = rng.multinomial(500, table["count"].values)[None].astype(float)
    parameters = {n: v[None] for n, v in parts.true_parameters().items()}
    free = to_free(parts, parameters)
    score = Scores(parts, columns).total(parameters, counts)[0]

    def value(x):
        return float(counts[0] @ log_sum_classes(log_joint(parts, from_free(parts, x[None]), columns))[0])

    for i in range(free.shape[1]):
        step = 1e-5 * np.eye(free.shape[1])[i]
        slope = (value(free[0] + step) - value(free[0] - step)) / 2e-5
        assert slope == pytest.approx(score[i], rel=1e-5, abs=1e-4)
    exact = em(parts, columns, table["count"].values[None], parameters, max_iterations=3, tolerance=-1.0)
    for name, kept in parameters.items():
        np.testing.assert_allclose(exact.parameters[name], kept, atol=1e-12)


def test_binomial_models_are_files_and_data(parts):
    assert CausalModel.from_toml(parts.to_toml()) == parts
    assert parts.dims["p_s"] == ("class", "a")
    assert parts.coords["s"] == [0, 1, 2, 3]
    rows = simulate(parts, 200, rng=1)
    assert int(tabulate(rows, parts)["count"].sum()) == 200
    with pytest.raises(DataError, match="not among its levels"):
        tabulate({"a": [0, 1], "s": [0, 4]}, parts)
    for wrong in ({"family": "binomial"}, {"family": "bernoulli", "trials": 3}):
        with pytest.raises(ModelError, match="trials"):
            CausalModel(classes=1, variables={"s": wrong})
    with pytest.raises(ModelError, match=r"\[0, 1\]"):
        CausalModel(
            classes=1, variables={"s": {"family": "binomial", "trials": 3}}, truth={"s": {"p": [1.5]}}
        )


@pytest.mark.parametrize("method", ["network", "unzip", "auto"])
def test_layout_is_that_of_a_posterior(method, tmp_path):
    model = load_model("gallery:chain5")
    tree = estimate(model, simulate(model, 20_000, rng=1), method=method, n_boot=8)
    point = tree["estimate"].to_dataset()
    assert tree.attrs["method"] == ("polished" if method == "auto" else method)
    assert tree["posterior"].sizes["chain"] == 4
    assert tree["posterior"]["p_v2"].dims == ("chain", "draw", "class", "v1", "v2")
    assert {"ate", "effect", "se_ate", "se_class_weight", "se_p_v3"} <= set(point.data_vars)
    assert (np.diff(point["effect"].values) >= 0).all()
    assert "given v2, v4" in tree.attrs["plan"]
    assert {"runs used", "matching, weakest edge", "Kruskal sum"} <= set(tree["checks"]["check"].values)
    loaded = load(save(tree, tmp_path / "answer.nc"))
    assert loaded["checks"].to_dataset().equals(tree["checks"].to_dataset())


def test_the_hidden_class_flips_the_sign():
    model = load_model("gallery:chain7")
    tree = estimate(model, simulate(model, 100_000, rng=3), n_boot=0)
    exact = truth(model)
    assert float(exact["ate"]) < -0.15
    assert float(tree["estimate"]["ate"]) == pytest.approx(float(exact["ate"]), abs=0.02)
    assert checks(tree, "G2, p") > 0.001
    assert checks(tree, "rank: classes that the moments show") == 2
    assert statuses(tree) == []


@pytest.mark.parametrize(
    ("name", "classes", "published"),
    [
        ("carcinoma", 2, -317.2568),
        ("carcinoma", 3, -293.7050),
        ("carcinoma", 4, -289.2858),
        ("stouffer_toby", 2, -504.4677),
    ],
)
def test_published_fits_come_out(name, classes, published):
    model = load_model(f"gallery:{name}").with_classes(classes)
    tree = estimate(model, n_boot=0)
    assert checks(tree, "log-likelihood") == pytest.approx(published, abs=1e-3)
    assert ("WEAK_DESIGN" in statuses(tree)) == (classes == 4)


def test_few_draws_are_called_too_weak():
    for name, weak in (("coins16", False), ("coins7", True)):
        model = load_model(f"gallery:{name}")
        tree = estimate(model, simulate(model, 10_000, rng=2), n_boot=40)
        assert ("WEAK_DESIGN" in statuses(tree)) == weak
        error = np.abs(tree["estimate"]["p_heads"].values - truth(model)["p_heads"].values)
        assert (error.max() < 0.03) != weak
        spread = tree["estimate"]["se_p_heads"].values.max()
        assert (spread > 0.03) == weak


def test_a_missing_edge_is_a_misfit_and_another_number_of_classes_is_told():
    model = load_model("gallery:chain5")
    rows = simulate(model, 20_000, rng=1)
    other = {n: {"family": "bernoulli"} for n in model.variables}
    loose = CausalModel(classes=2, variables=other)
    assert "MISFIT" in statuses(estimate(loose, rows, n_boot=0))
    assert "OTHER_CLASSES" in statuses(estimate(loose.with_classes(1), rows, n_boot=0))


def test_one_class_and_continuous_variables():
    mixed = CausalModel(
        classes=2,
        variables={
            "a": {"family": "bernoulli"},
            "b": {"family": "bernoulli", "parents": ["a"]},
            "y": {"family": "normal"},
        },
        truth={
            "class_weight": [0.5, 0.5],
            "a": {"p": [0.2, 0.8]},
            "b": {"p": [[0.3, 0.6], [0.6, 0.2]]},
            "y": {"mean": [0.0, 6.0], "sd": [1.0, 1.0]},
        },
    )
    rows = simulate(mixed, 300, rng=1)
    tree = estimate(mixed, rows, n_boot=0)
    assert tree["estimate"]["mean_y"].values == pytest.approx(np.array([0, 6]), abs=0.4)
    with pytest.raises(ModelError, match="does not go"):
        estimate(mixed, rows, method="spectral")
    with pytest.raises(RefusedError, match="continuous"):
        estimate(mixed, rows, method="network")
    one = estimate(mixed.with_classes(1), rows, n_boot=4)
    assert float(one["estimate"]["p_a"].values[0, 1]) == pytest.approx(float(rows["a"].mean()))


def test_options_without_meaning_are_refused():
    chain = load_model("gallery:chain5")
    rows = simulate(chain, 500, rng=1)
    for option in ({"bridge": "both"}, {"interactions": True}, {"proxies": "joint"}):
        with pytest.raises(ModelError, match="no meaning for a model without proxies"):
            estimate(chain, rows, **option)
    smooth = estimate(chain, rows, n_boot=4, resample="bayesian")
    assert smooth.attrs["resample"] == "bayesian"
