"""What is learnt beyond the prior: against exact posteriors and densities written out here."""

import arviz as az
import numpy as np
import pymc as pm
import pytest
import xarray as xr
from scipy import stats

from pymc_mte import CausalModel, build_model, identify, load_model, simulate, tabulate
from pymc_mte.bayes.assemble import judged
from pymc_mte.bayes.groups import total_log_likelihood
from pymc_mte.bayes.learnt import (
    CONFLICT,
    UNMOVED,
    WEAK,
    agreement,
    diagnosis,
    disagreement,
    learnt_notes,
    log_prior_density,
    power_scaling,
    prior_draws,
    what_was_learnt,
)
from pymc_mte.bayes.start import without_first_levels
from pymc_mte.data import columns_of, resolve
from pymc_mte.functionals import functionals
from pymc_mte.results import class_order, dataset
from pymc_mte.status import Status

B = {"family": "bernoulli"}
NOTHING = (None, np.ones(1))
"""Given rows of a model without covariates."""

TREATED, CONTROLS, N_DRAWS = (30, 10), (24, 36), 4 * 2_000  # outcomes 1 and 0 in each arm


@pytest.fixture(scope="module")
def trial():
    """One class: arms and outcomes are Beta given the data."""
    return CausalModel(
        classes=1, variables={"t": B, "y": {**B, "parents": ["t"]}}, treatment="t", outcome="y"
    )


def exact(model, rng, a):
    """Draws from the exact posterior of the trial under Beta(a, a) priors, and their log-likelihood."""
    successes, failures = np.array([CONTROLS[0], TREATED[0]]), np.array([CONTROLS[1], TREATED[1]])
    p = rng.beta(a + successes, a + failures, size=(4, N_DRAWS // 4, 2))
    t = rng.beta(a + sum(TREATED), a + sum(CONTROLS), size=p.shape[:2])
    values = {"class_weight": np.ones((*p.shape[:2], 1))}
    values["p_t"] = np.stack([1 - t, t], axis=-1)[:, :, None]
    values["p_y"] = np.stack([1 - p, p], axis=-1)[:, :, None]
    log_likelihood = sum(TREATED) * np.log(t) + sum(CONTROLS) * np.log1p(-t)
    log_likelihood += (successes * np.log(p) + failures * np.log1p(-p)).sum(-1)
    return dataset(model, values | functionals(model, values)), log_likelihood


def draws_of(values):
    axes = {n: ("chain", "draw", *(f"{n}{i}" for i in range(v.ndim - 2))) for n, v in values.items()}
    return xr.Dataset({n: (axes[n], v) for n, v in values.items()})


def dataset_of_rvs(model, values):
    """Draws of the model's random variables: bernoulli tables by their second level."""
    return draws_of(without_first_levels(model, {n: np.asarray(values[n]) for n in model.dims}))


def trial_rows():
    t = np.repeat([1, 0], [sum(TREATED), sum(CONTROLS)])
    return {"t": t, "y": np.repeat([1, 0, 1, 0], [*TREATED, *CONTROLS])}


def learnt_of(model, rng, a):
    prior = {"p_t": a, "p_y": a}
    built = build_model(model, trial_rows(), priors=prior)
    posterior, log_likelihood = exact(model, rng, a)
    tables = {n: posterior[n].values[..., 1] for n in ("p_t", "p_y")}
    density = sum(stats.beta(a, a).logpdf(p).reshape(*p.shape[:2], -1).sum(-1) for p in tables.values())
    found = log_prior_density(built, dataset_of_rvs(model, posterior))
    np.testing.assert_allclose(found - found.mean(), density - density.mean(), atol=1e-9)
    learnt = what_was_learnt(model, built, posterior, found, log_likelihood, 1, NOTHING)
    return learnt, posterior, density, log_likelihood


@pytest.mark.parametrize("a", [2.0, 1.0, 400.0])
def test_contraction_of_a_beta_posterior(trial, rng, a):
    """Within 5 standard errors of the exact value: normal variances err by sqrt(2/n) relatively."""
    learnt, *_ = learnt_of(trial, rng, a)
    after = sum(stats.beta(a + s, a + f).var() for s, f in (TREATED, CONTROLS))
    ratio = after / (2 * stats.beta(a, a).var())
    error = ratio * np.sqrt(2 / 4_000 + 2 / N_DRAWS)
    for label in ("ate", "effect[class 0]", "att"):
        assert float(learnt["contraction"].sel(entry=label)) == pytest.approx(1 - ratio, abs=5 * error)
    assert np.isnan(learnt["contraction"].sel(entry="class_weight[class 0]"))  # one class weighs 1
    assert learnt["diagnosis"].sel(entry="class_weight[class 0]") == "not checked"
    notes = learnt_notes(learnt, dict.fromkeys(("ate", "att", "effect", "arm_mean"), True))
    if a == 400.0:  # 100 rows against 1,600 pseudo-rows, and rates of 0.75 and 0.4 against 0.5
        assert learnt["diagnosis"].sel(entry="ate") == CONFLICT
        assert [note.status for note in notes] == [Status.PRIOR_DOMINATED]
        assert f"ate {1 - ratio:.0%}"[:4] in notes[0].detail
    else:
        assert learnt["diagnosis"].sel(entry="ate") == "ok"
        assert notes == []
    if a == 1.0:  # a flat prior cannot be scaled
        assert float(learnt["prior_sensitivity"].sel(entry="ate")) == 0.0


@pytest.mark.parametrize("a", [2.0, 12.0, 400.0])
def test_sensitivities_and_words_are_those_of_arviz(trial, rng, a):
    learnt, posterior, density, log_likelihood = learnt_of(trial, rng, a)
    dims = ("chain", "draw")
    tree = xr.DataTree.from_dict(
        {
            "posterior": posterior[["ate", "att"]],
            "log_prior": xr.Dataset({"a": (dims, density)}),
            "log_likelihood": xr.Dataset({"b": (dims, log_likelihood)}),
        }
    )
    wanted = az.psense_summary(tree, round_to=10)
    said = {"✓": "ok", f"potential {WEAK}": WEAK, f"potential {CONFLICT}": CONFLICT}
    for name in ("ate", "att"):
        row = learnt.sel(entry=name)
        assert float(row["prior_sensitivity"]) == pytest.approx(wanted.loc[name, "prior"], rel=1e-6)
        assert float(row["likelihood_sensitivity"]) == pytest.approx(wanted.loc[name, "likelihood"], rel=1e-6)
        assert str(row["diagnosis"].values) == said[wanted.loc[name, "diagnosis"]]


@pytest.mark.parametrize(
    ("prior", "likelihood", "said"),
    [
        (0.01, 0.1, "ok"),
        (0.01, 0.01, UNMOVED),
        (0.1, 0.1, CONFLICT),
        (0.1, 0.01, WEAK),
        (np.nan, 0.1, "not checked"),
    ],
)
def test_diagnosis(prior, likelihood, said):
    assert diagnosis(prior, likelihood) == said


def gibbs(model, table, rng, chains=60, draws=800, warm=200):
    """Draws of level 4 with Beta(2, 2) and Dirichlet(2) priors, from its truth on, rows' classes drawn."""
    columns, counts = columns_of(table, model), table["count"].values
    z, x, t, y = (columns[v] for v in "zxty")
    start = {n: np.tile(v, (chains, *(1,) * v.ndim)) for n, v in model.true_parameters().items()}
    weight, (pz, px, pt, py) = start["class_weight"], (start[f"p_{v}"][..., 1] for v in "zxty")
    kept = []

    def of(p, v):
        return np.where(v == 1, p, 1 - p)

    def drawn(rows, v, *by):
        out = np.empty((chains, 2, *(2,) * len(by)))
        for at in np.ndindex(*(2,) * len(by)):
            here = np.all([np.ones_like(v, bool), *(b == i for b, i in zip(by, at, strict=True))], axis=0)
            yes, no = (rows[..., here & (v == level)].sum(-1) for level in (1, 0))
            out[(slice(None), slice(None), *at)] = rng.beta(2 + yes, 2 + no)
        return out

    for step in range(warm + draws):
        joint = weight[..., None] * of(pz[..., None], z) * of(px[..., None], x)
        joint = joint * of(pt[:, :, z], t) * of(py[:, :, x, t], y)
        ones = rng.binomial(counts, joint[:, 1] / joint.sum(axis=1))
        rows = np.stack([counts - ones, ones], axis=1)
        one = rng.beta(2 + rows[:, 1].sum(-1), 2 + rows[:, 0].sum(-1))
        weight = np.stack([1 - one, one], axis=-1)
        pz, px, pt, py = drawn(rows, z), drawn(rows, x), drawn(rows, t, z), drawn(rows, y, x, t)
        if step >= warm:
            kept.append((weight, pz, px, pt, py))
    weight, *tables = (np.stack(v, axis=1) for v in zip(*kept, strict=True))
    names = ("p_z", "p_x", "p_t", "p_y")
    return {"class_weight": weight} | {
        n: np.stack([1 - p, p], axis=-1) for n, p in zip(names, tables, strict=True)
    }


def test_level_4_averages_are_learnt_and_classes_are_the_priors(rng):
    """Contraction alone would not tell: the data cut the effects' range, and the prior rules inside it."""
    n = 4_000
    model = load_model("gallery:level4")
    table = tabulate(simulate(model, n, rng=1), model)
    drawn = gibbs(model, table, rng)
    posterior = dataset(model, drawn | functionals(model, drawn))
    tree = xr.DataTree.from_dict({"posterior": posterior})
    built = build_model(model, table)
    log_prior = log_prior_density(built, dataset_of_rvs(model, drawn))
    learnt = what_was_learnt(
        model, built, posterior, log_prior, total_log_likelihood(tree, model, table), 1, NOTHING
    )
    said = dict(zip(learnt["entry"].values.tolist(), learnt["diagnosis"].values.tolist(), strict=True))
    kept = dict(
        zip(learnt["entry"].values.tolist(), (1 - learnt["contraction"].values).tolist(), strict=True)
    )
    assert said["ate"] == said["att"] == "ok"
    assert kept["ate"] < 50 / n
    assert said["class_weight[class 0]"] in (WEAK, UNMOVED)
    for label in ("effect[class 0]", "effect[class 1]"):
        assert said[label] == WEAK
        assert kept[label] > 0.2
    flags = identify(model).identified
    assert Status.PRIOR_DOMINATED not in {note.status for note in learnt_notes(learnt, flags)}
    wrong = {note.status: note.detail for note in learnt_notes(learnt, dict.fromkeys(flags, True))}
    assert f"effect[class 1] {1 - kept['effect[class 1]']:.0%}, {WEAK}" in wrong[Status.PRIOR_DOMINATED]


def test_prior_of_classes_is_sorted_by_effect(level3):
    values = prior_draws(level3, build_model(level3, simulate(level3, 50, rng=1)), 3_000, 1, NOTHING)
    assert (np.diff(values["effect"], axis=1) >= 0).all()
    outcome = values["potential_outcome"]
    np.testing.assert_allclose(outcome[..., 1] - outcome[..., 0], values["effect"], atol=1e-12)
    np.testing.assert_allclose(values["p_y"][..., 0, 1], outcome[..., 0], atol=1e-12)  # tables go along
    unsorted = values["effect"].ravel()  # both classes together: two Beta(2, 2), 5 standard errors
    assert unsorted.var() == pytest.approx(0.1, rel=5 * np.sqrt(2 / 3_000))


def test_class_order_takes_leading_axes(level3, rng):
    effect = rng.normal(size=(5, 3, 2))
    order = class_order(level3, {"effect": effect})
    for at in np.ndindex(5, 3):
        assert order[at].tolist() == class_order(level3, {"effect": effect[at]}).tolist()


def test_hierarchical_priors(rng):
    """A prior that brings a random variable of its own: joint draws, and the density of all of them."""
    model = CausalModel(classes=2, variables={"t": B, "y": {"family": "normal", "parents": ["t"]}})

    def tied(name, dims):
        return pm.Normal(name, pm.Normal("centre", 0.0, 3.0), 0.1, dims=dims)

    built = build_model(model, {"t": [0, 1] * 6, "y": np.arange(12.0)}, priors={"mean_y": tied})
    mean = prior_draws(model, built, 4_000, 2, NOTHING)["mean_y"].reshape(4_000, 4)
    assert np.corrcoef(mean.T).min() > 0.99  # 9 / 9.01
    assert mean.var() == pytest.approx(9.01, rel=5 * np.sqrt(2 / 4_000))
    value = {"centre": rng.normal(size=(2, 3)), "mean_y": rng.normal(size=(2, 3, 2, 2))}
    value |= {
        "class_weight": np.full((2, 3, 2), 0.5),
        "p_t": np.full((2, 3, 2), 0.5),
        "sd_y": np.ones((2, 3, 2)),
    }
    got = log_prior_density(built, draws_of(value))
    wanted = stats.norm(0, 3).logpdf(value["centre"])
    wanted += stats.norm(value["centre"][..., None, None], 0.1).logpdf(value["mean_y"]).sum((2, 3))
    np.testing.assert_allclose(got - got.mean(), wanted - wanted.mean(), rtol=1e-9)


def test_disagreement_is_in_deviations_within_chains(rng):
    within = rng.normal(size=(2, 5_000))
    apart = within + np.array([[0.0], [6.0]])
    assert disagreement(apart) == pytest.approx(3.0, abs=0.1)  # never above 1 in deviations over all chains
    assert disagreement(within) < 0.1
    assert np.isnan(disagreement(within[:1]))
    assert np.isnan(disagreement(np.ones((2, 50))))
    learnt = (
        xr.Dataset({n: ("entry", [v, v]) for n, v in (("contraction", 0.9), ("chain_disagreement", 3.0))})
        .assign(diagnosis=("entry", ["ok", "ok"]))
        .assign_coords(entry=["ate", "effect[class 0]"])
    )
    (note,) = learnt_notes(learnt, {})
    assert note.status is Status.CHAINS_APART
    assert note.detail == "in SDs within chains: ate 3.0; effect[class 0] 3.0"


def test_few_draws_are_not_reweighted(rng):
    found = power_scaling({"ate": rng.normal(size=(2, 20))}, *rng.normal(size=(2, 2, 20)))
    assert np.isnan(found).all()


def test_chains_that_did_not_move_are_not_checked(rng):
    log_prior = np.zeros((2, 60))
    log_prior[0, 0] = 1.0  # all tail weights but one alike
    found = power_scaling({"ate": rng.normal(size=(2, 60))}, log_prior, rng.normal(size=(2, 60)))
    assert np.isnan(found[0, 0])
    assert np.isfinite(found[0, 1])


def test_large_likelihoods_do_not_overflow(rng):
    values, density = rng.normal(size=(2, 400)), rng.normal(size=(2, 400))
    near, far = (power_scaling({"ate": values}, density, density + shift) for shift in (0.0, -1e7))
    np.testing.assert_allclose(near, far, rtol=1e-4)


def test_agreement_counts_chains_near_the_best():
    level = np.array([[-10.0], [-11.0], [-40.0], [-12.0]]) + np.zeros((4, 3))
    found = agreement(xr.Dataset({"logp": (("chain", "draw"), level)}), 0.5)
    assert found == {"starts_at_best": 0.5, "chains_at_best": 0.75}


@pytest.mark.parametrize("classes", [1, 2])
def test_identification_given_covariates_is_that_of_the_graph_and_the_rows(rng, classes):
    b, n = {"family": "bernoulli"}, 300
    model = CausalModel(
        classes=classes,
        variables={"z": b, "x": b, "t": {**b, "parents": ["z"]}, "y": {"family": "normal"}},
        treatment="t",
        outcome="y",
        treatment_proxies=["z"],
        outcome_proxies=["x"],
        covariates=["c"],
    )
    rows = {v: rng.integers(2, size=n) for v in "zxt"} | {"y": rng.normal(size=n), "c": rng.normal(size=n)}
    found = judged(*resolve(model, rows)).identified
    assert all(found.values())
    if classes == 2:
        rows["t"] = (np.arange(n) < 2).astype(int)  # two rows show no contrast
        found = judged(*resolve(model, rows)).identified
        assert not found["ate"]
        assert not found["effect"]
        assert found["class_weight"]
