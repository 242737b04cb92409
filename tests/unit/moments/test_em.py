"""The likelihood climb: it never goes down, ends at a maximum, and is plain counting for one class."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from pymc_mte import CausalModel, estimate, simulate, tabulate
from pymc_mte.data import columns_of
from pymc_mte.moments.em import em
from pymc_mte.moments.likelihood import fit_likelihood
from pymc_mte.moments.problem import make_problem
from pymc_mte.network import log_joint

B = {"family": "bernoulli"}
ROLES = {
    "treatment": "t",
    "outcome": "y",
    "treatment_proxies": ["z"],
    "outcome_proxies": ["x"],
}
OUTCOMES = {
    "bernoulli": B,
    "normal": {"family": "normal"},
    "normal, scale by arm": {"family": "normal", "scale_parents": True},
    "normal, one for all": {"family": "normal", "latent": False},
    "student_t": {"family": "student_t"},
}


def model_with(outcome, classes=2):
    variables = {
        "z": B,
        "x": {"family": "categorical", "levels": [0, 1, 2]},
        "t": {**B, "parents": ["z"]},
        "y": OUTCOMES[outcome],
    }
    return CausalModel(classes=classes, variables=variables, **ROLES)


def likelihood(model, parameters, columns, counts):
    """Log-likelihood from `log_joint`, itself tested against brute force."""
    log_p = log_joint(model, parameters, columns)
    return float((counts * np.logaddexp.reduce(log_p, axis=-2)).sum())


def starts(tools, model, rng, count):
    """Random parameters with a batch axis in front."""
    drawn = [tools.random_truth(model, rng) for _ in range(count)]
    return {name: np.stack([one[name] for one in drawn]) for name in drawn[0]}


def data_for(tools, model, rng, n=400):
    true = tools.with_truth(model, tools.random_truth(model, rng))
    table = tabulate(simulate(true, n, rng=rng), model)
    return columns_of(table, model), table["count"].values.astype(float)


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_no_step_goes_down(tools, rng, outcome, penalty):
    model = model_with(outcome)
    columns, counts = data_for(tools, model, rng)
    start = starts(tools, model, rng, 3)
    for b in range(3):
        now = {name: value[b : b + 1] for name, value in start.items()}
        last = -np.inf
        for _ in range(25):
            value = likelihood(model, {n: v[0] for n, v in now.items()}, columns, counts)
            if penalty:
                tables = [n for n in now if n.startswith(("p_", "class_weight"))]
                value += penalty * sum(np.log(np.maximum(now[n], 1e-300)).sum() for n in tables)
            assert value >= last - 1e-7 * abs(value)
            last = value
            now = em(model, columns, counts[None], now, penalty=penalty, max_iterations=1).parameters


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 3))
@settings(max_examples=15)
def test_no_step_goes_down_on_random_tables(tools, seed, classes):
    rng = np.random.default_rng(seed)
    model = model_with("bernoulli", classes)
    columns, counts = data_for(tools, model, rng, n=100)
    start = starts(tools, model, rng, 2)
    values = [
        em(model, columns, np.repeat(counts[None], 2, 0), start, max_iterations=i, tolerance=0.0)
        for i in range(1, 12)
    ]
    climbs = np.array([v.log_likelihood for v in values])
    assert (np.diff(climbs, axis=0) >= -1e-9 * np.abs(climbs[1:])).all()


def logits(model, parameters):
    """Free coordinates: logs of tables and scales, plain means."""
    return {n: v if n.startswith("mean") else np.log(np.maximum(v, 1e-12)) for n, v in parameters.items()}


def back(free):
    out = {}
    for name, value in free.items():
        if name.startswith("mean"):
            out[name] = value
        elif name.startswith(("sd", "nu")):
            out[name] = np.exp(value)
        else:
            shifted = np.exp(value - value.max(axis=-1, keepdims=True))
            out[name] = shifted / shifted.sum(axis=-1, keepdims=True)
    return out


@pytest.mark.parametrize("outcome", [o for o in OUTCOMES if o != "student_t"])
def test_the_end_is_a_maximum(tools, rng, outcome):
    """Zero numeric gradient in every free coordinate, and no random step goes up."""
    model = model_with(outcome)
    columns, counts = data_for(tools, model, rng, n=3_000)
    problem = make_problem(model, columns, counts)
    fitted = em(
        model,
        columns,
        counts[None],
        fit_likelihood(problem)[0],
        tolerance=1e-15,
        max_iterations=50_000,
    )
    free = logits(model, {n: v[0] for n, v in fitted.parameters.items()})
    top = likelihood(model, back(free), columns, counts)
    assert top == pytest.approx(fitted.log_likelihood[0], rel=1e-9)
    step = 1e-4
    for name, value in free.items():
        for index in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = np.array(value)
                moved[index] += sign * step
                ends.append(likelihood(model, back({**free, name: moved}), columns, counts))
            gradient = (ends[0] - ends[1]) / (2 * step) / counts.sum()
            assert abs(gradient) < 2e-5, (name, index)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(30):
            moved = {n: v + size * rng.normal(size=v.shape) for n, v in free.items()}
            assert likelihood(model, back(moved), columns, counts) <= top + 1e-6


def test_student_t_of_one_class_equals_a_direct_fit(tools, rng):
    model = CausalModel(
        classes=1, variables={"y": {"family": "student_t"}, "t": B}, treatment="t", outcome="y"
    )
    y = 3 + 2 * rng.standard_t(4, size=4_000)
    columns, counts = {"t": np.zeros(4_000, int), "y": y}, np.ones(4_000)
    start = starts(tools, model, rng, 1)
    fitted = em(model, columns, counts[None], start, tolerance=1e-12).parameters
    nu, mean, sd = stats.t.fit(y)
    got = stats.t(fitted["nu_y"][0], fitted["mean_y"][0, 0, 0], fitted["sd_y"][0, 0])
    assert got.logpdf(y).sum() >= stats.t(nu, mean, sd).logpdf(y).sum() - 1e-2
    assert fitted["mean_y"][0, 0, 0] == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("outcome", ["bernoulli", "normal"])
def test_one_class_is_plain_counting(tools, rng, outcome):
    model = CausalModel(
        classes=1,
        variables={"w": B, "t": {**B, "parents": ["w"]}, "y": {**OUTCOMES[outcome], "parents": ["w"]}},
        treatment="t",
        outcome="y",
    )
    true = tools.with_truth(model, tools.random_truth(model, rng))
    frame = simulate(true, 2_000, rng=rng).to_dataframe()
    point = estimate(model, frame, n_boot=0)["estimate"]
    w = frame["w"].mean()
    means = frame.groupby(["w", "t"])["y"].mean()
    effect = {level: means[level, 1] - means[level, 0] for level in (0, 1)}
    assert float(point["ate"]) == pytest.approx((1 - w) * effect[0] + w * effect[1], abs=1e-10)
    among = frame.loc[frame["t"] == 1, "w"].mean()
    att = (1 - among) * effect[0] + among * effect[1]
    assert float(point["att"]) == pytest.approx(att, abs=1e-10)
    np.testing.assert_allclose(point["p_w"][0], [1 - w, w], atol=1e-12)
    assert float(point["class_weight"][0]) == 1.0


def test_batches_do_not_talk_to_each_other(tools, rng):
    model = model_with("bernoulli")
    columns, counts = data_for(tools, model, rng)
    other = rng.multinomial(int(counts.sum()), counts / counts.sum()).astype(float)
    start = starts(tools, model, rng, 1)
    both = em(model, columns, np.stack([counts, other]), start, max_iterations=200)
    for i, c in enumerate((counts, other)):
        alone = em(model, columns, c[None], start, max_iterations=200)
        for name in both.parameters:
            np.testing.assert_allclose(
                both.parameters[name][i], alone.parameters[name][0], rtol=0, atol=1e-10
            )


def test_polished_beats_spectral_in_likelihood(level3):
    """Maximum likelihood is at least the truth's likelihood."""
    table = tabulate(simulate(level3, 5_000, rng=3), level3)
    columns, counts = columns_of(table, level3), table["count"].values.astype(float)
    best = fit_likelihood(make_problem(level3, columns, counts))[0]
    top = likelihood(level3, {n: v[0] for n, v in best.items()}, columns, counts)
    assert top >= likelihood(level3, level3.true_parameters(), columns, counts)
