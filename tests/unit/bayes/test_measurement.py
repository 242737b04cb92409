"""Measurement first: the second step exact on noiseless rows, with the errors of a regression; end to end."""

import numpy as np
import pytest

from pymc_mte import CausalModel, ModelError, sample, simulate, tabulate
from pymc_mte.bayes.measurement import outcome_means_given_classes, without_outcome
from pymc_mte.network import log_joint

B = {"family": "bernoulli"}
N = {"family": "normal"}
MODEL = CausalModel(
    classes=2,
    variables={
        "z": B,
        "w": {**B, "parents": ["z"]},
        "x": {"family": "categorical", "levels": [0, 1, 2]},
        "t": {**B, "parents": ["z"]},
        "y": {**N, "parents": ["t"]},
    },
    treatment="t",
    outcome="y",
    treatment_proxies=["z"],
    outcome_proxies=["x"],
)


def probabilities(part, parameters, columns):
    p = np.exp(log_joint(part, parameters, columns))
    return (p / p.sum(axis=0)).T


def noiseless(tools, rng, model):
    """Rows whose outcome is its exact mean given everything else."""
    parameters = tools.random_truth(model, rng)
    frame = simulate(tools.with_truth(model, parameters), 400, rng=rng).to_dataframe()
    part, _ = without_outcome(model, tabulate(frame, model))
    table = tabulate(frame, model)
    share = probabilities(part, parameters, {n: table[n].values for n in part.variables})
    at = tuple(table[p].values for p in model.variables["y"].parents)
    mean = parameters["mean_y"][(slice(None), *at)].T
    return part, parameters, table.assign(y=("pattern", (share * mean).sum(axis=1)))


@pytest.mark.parametrize("parents", [["t"], ["x", "t"]])
def test_class_means_are_exact_where_the_outcome_has_no_noise(tools, rng, parents):
    fields = {name: getattr(MODEL, name) for name in type(MODEL).model_fields}
    variables = {**MODEL.variables, "y": {**N, "parents": parents}}
    roles = {"outcome_proxies": []} if "x" in parents else {}
    model = CausalModel(**{**fields, "variables": variables, **roles})
    part, parameters, table = noiseless(tools, rng, model)
    stacked = {n: np.stack([v, v]) for n, v in parameters.items() if n in part.dims}
    found = outcome_means_given_classes(model, part, stacked, table, rng)
    np.testing.assert_allclose(found, np.stack([parameters["mean_y"]] * 2), atol=1e-8)


def test_the_second_step_has_the_error_of_a_regression(tools, rng):
    """SDs over 2,000 draws at the true classes against the sandwich, row by row: within 10% (|z| > 6)."""
    parameters = tools.random_truth(MODEL, rng)
    table = tabulate(simulate(tools.with_truth(MODEL, parameters), 5_000, rng=rng), MODEL)
    part, rows = without_outcome(MODEL, table)
    assert rows["count"].sum() == 5_000
    assert rows.sizes["pattern"] <= 24
    stacked = {n: np.broadcast_to(parameters[n], (2_000, *parameters[n].shape)) for n in part.dims}
    found = outcome_means_given_classes(MODEL, part, stacked, table, rng)
    for arm in (0, 1):
        own = table["t"].values == arm
        share = probabilities(part, parameters, {n: table[n].values[own] for n in part.variables})
        y, weight = table["y"].values[own], table["count"].values[own]
        bread = np.linalg.inv((share.T * weight) @ share)
        mean = bread @ (share.T @ (weight * y))
        score = share * (y - share @ mean)[:, None]
        sandwich = np.sqrt(np.diag(bread @ (score.T * weight) @ score @ bread))
        np.testing.assert_allclose(found[..., arm].std(axis=0), sandwich, rtol=0.1)
        assert (np.abs(found[..., arm].mean(axis=0) - mean) < 6 * sandwich / np.sqrt(2_000) + 1e-3).all()


def test_what_cannot_be_taken_apart(level3):
    with pytest.raises(ModelError, match="no grid, start, store, groups"):
        sample(level3, simulate(level3, 50), measurement_first=True, grid=0.1)
    after = CausalModel(
        classes=2,
        variables={"t": B, "y": {**B, "parents": ["t"]}, "v": {**B, "parents": ["y"]}},
        treatment="t",
        outcome="y",
    )
    with pytest.raises(ModelError, match="follow the outcome"):
        sample(after, simulate(level3, 50)[["t", "y"]].assign(v=("row", [0, 1] * 25)), measurement_first=True)
    with pytest.raises(ModelError, match="names no outcome"):
        sample(CausalModel(classes=2, variables={"z": B}), {"z": [0, 1]}, measurement_first=True)


HURDLE = CausalModel(
    name="hurdle",
    classes=2,
    variables={
        "z": B,
        "x": B,
        "w": B,
        "t": {**B, "parents": ["z"]},
        "y": {**N, "parents": ["t"]},
    },
    treatment="t",
    outcome="y",
    treatment_proxies=["z"],
    outcome_proxies=["x", "w"],
)


def hurdle_rows(n, rng):
    """Costs: nothing with a probability by class and arm, else lognormal; and their true mean effects."""
    u = rng.integers(0, 2, n)
    z, x, w = (rng.random(n) < np.array(p)[u] for p in ([0.2, 0.8], [0.15, 0.85], [0.2, 0.75]))
    t = rng.random(n) < np.array([[0.3, 0.6], [0.4, 0.7]])[u, z.astype(int)]
    nothing = np.array([[0.6, 0.5], [0.4, 0.1]])
    location = np.array([[0.0, 0.3], [0.5, 1.2]])
    at = u, t.astype(int)
    y = np.where(rng.random(n) < nothing[at], 0.0, rng.lognormal(location[at], 0.6))
    mean = (1 - nothing) * np.exp(location + 0.18)
    columns = {"z": z, "x": x, "w": w, "t": t}
    return {name: column.astype(int) for name, column in columns.items()} | {"y": y}, mean[:, 1] - mean[:, 0]


@pytest.mark.slow
def test_a_hurdle_truth_declared_normal():
    """The average effect within 2 posterior SDs of the truth, class effects within 2.5."""
    rows, effect = hurdle_rows(20_000, np.random.default_rng(1))
    options = {"draws": 500, "tune": 300, "chains": 2, "progressbar": False, "random_seed": 1}
    post = sample(HURDLE, rows, measurement_first=True, **options)
    assert post.attrs["method"] == "measurement first"
    draws = post["posterior"]
    for name, true, limit in (("ate", effect.mean(), 2.0), ("effect", effect, 2.5)):
        mean, sd = (getattr(draws[name], f)(("chain", "draw")) for f in ("mean", "std"))
        assert (np.abs(mean - true) < limit * sd).all()
    assert "sd_y" not in draws
    assert set(post["measurement"]["posterior"].data_vars) == {"class_weight", "p_z", "p_x", "p_w", "p_t"}
