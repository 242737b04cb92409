"""Modes of the posterior: where chains start, what the modes weigh, one sample of the whole."""

import itertools

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp

from pymc_mte import CausalModel, load_model, log_evidence, sample, tabulate
from pymc_mte.bayes.build import build_model
from pymc_mte.bayes.density import PosteriorDensity
from pymc_mte.bayes.modes import (
    basin_shares,
    chain_modes,
    chain_starts,
    find_modes,
    optima_notes,
    prior_penalty,
)
from pymc_mte.bayes.prepare import prepare
from pymc_mte.bayes.settle import _mode_notes
from pymc_mte.bayes.start import without_first_levels
from pymc_mte.bayes.store import create_run, open_run
from pymc_mte.bayes.weigh import Weighing, resampled, weigh
from pymc_mte.data import resolve
from pymc_mte.moments.problem import problem_of
from pymc_mte.status import Status, load_notes
from pymc_mte.summary import posterior_summary

PATTERNS = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
COUNTS = np.array([24, 18, 16, 20])
"""a equals b, c equals d, and the two pairs know nothing of each other: two classes can explain one pair."""

ALPHA = 2.0


@pytest.fixture(scope="module")
def pairs():
    """Model and table with two modes of nearly equal weight, far apart."""
    model = CausalModel(classes=2, variables={c: {"family": "bernoulli"} for c in "abcd"})
    cells = {c: PATTERNS[:, i] for i, c in enumerate("abcd")}
    return resolve(model, tabulate(cells | {"n": COUNTS}, model, count="n"))


@pytest.fixture(scope="module")
def modes(pairs):
    return find_modes(problem_of(*pairs, seed=0))


@pytest.fixture(scope="module")
def exact():
    """Log evidence, and posterior probability that the classes go with (a, b): sum over assignments."""
    n = np.array(list(itertools.product(*(range(c + 1) for c in COUNTS))))
    split = np.stack([n, COUNTS - n], axis=1)  # (assignments, classes, patterns)
    log_p = (gammaln(COUNTS + 1) - gammaln(n + 1) - gammaln(COUNTS - n + 1)).sum(axis=1)
    log_p = log_p + _ordered(split.sum(axis=2))
    for variable in PATTERNS.T:
        table = np.stack([split @ (variable == level) for level in (0, 1)], axis=-1)
        log_p = log_p + _ordered(table).sum(axis=1)
    evidence = logsumexp(log_p)
    share = split / COUNTS  # of each pattern in each class
    by_ab = np.abs(share[:, 0, :2].mean(axis=1) - share[:, 0, 2:].mean(axis=1))
    by_cd = np.abs(share[:, 0, ::2].mean(axis=1) - share[:, 0, 1::2].mean(axis=1))
    return evidence, float(np.exp(log_p - evidence) @ (by_ab > by_cd))


def _ordered(counts):
    """Log probability of ordered draws under a Dirichlet prior, levels on the last axis."""
    size = ALPHA * counts.shape[-1]
    total = counts.sum(axis=-1)
    return gammaln(size) - gammaln(total + size) + (gammaln(counts + ALPHA) - gammaln(ALPHA)).sum(axis=-1)


def gibbs(start, draws, rng):
    """Draw classes, then parameters, in turn: exact for this model, and it stays in its mode."""
    weight, p = start["class_weight"], np.stack([start[f"p_{c}"][:, 1] for c in "abcd"])  # (variable, class)
    out = {"class_weight": [], **{f"p_{c}": [] for c in "abcd"}}
    for _ in range(draws):
        one = np.prod(np.where(PATTERNS.T[..., None] == 1, p[:, None], 1 - p[:, None]), axis=0) * weight
        first = rng.binomial(COUNTS, one[:, 0] / one.sum(axis=1))
        split = np.stack([first, COUNTS - first])
        weight = rng.dirichlet(split.sum(axis=1) + ALPHA)
        p = rng.beta(PATTERNS.T @ split.T + ALPHA, (1 - PATTERNS.T) @ split.T + ALPHA)
        out["class_weight"].append(weight)
        for i, c in enumerate("abcd"):
            out[f"p_{c}"].append(np.stack([1 - p[i], p[i]], axis=-1))
    return {name: np.array(value) for name, value in out.items()}


def test_two_modes_are_found_once_each(modes):
    assert len(modes) == 2
    gap = np.abs(np.diff(modes.posterior.parameters["p_a"][..., 1], axis=1))[:, 0]
    other = np.abs(np.diff(modes.posterior.parameters["p_c"][..., 1], axis=1))[:, 0]
    assert sorted(gap > other) == [False, True]  # one goes with (a, b), the other with (c, d)
    assert [note.status for note in optima_notes(modes)] == [Status.SECOND_OPTIMUM]


def test_chains_start_at_the_modes_in_turn(pairs, modes, rng):
    started = chain_modes(modes, 5)
    assert started.tolist() == [0, 1, 0, 1, 0]
    starts = chain_starts(problem_of(*pairs, seed=0), modes, started, rng)
    for start, mode in zip(starts, started, strict=True):
        gaps = [np.abs(start["p_a"] - p).max() for p in modes.posterior.parameters["p_a"]]
        assert np.argmin(gaps) == mode
    assert chain_modes(modes, 1).tolist() == [0, 1]  # both lie within 5 units, so a chain is added


def test_a_single_mode_starts_every_second_chain_far_away(level3, rng):
    from pymc_mte import simulate

    model, table = resolve(level3, simulate(level3, 2_000, rng=1))
    setup = problem_of(model, table, seed=0)
    found = find_modes(setup)
    assert len(found) == len(found.likelihood.objective) == 1
    started = chain_modes(found, 40)
    assert set(started) == {0}
    starts = chain_starts(setup, found, started, rng)
    odds = np.array([np.log(s["p_x"][0, 1] / s["p_x"][0, 0]) for s in starts])
    assert odds[1::2].std() > 2 * odds[::2].std()  # 5 times on average


def test_likelihood_optima_that_the_prior_joins_start_chains(rng):
    """gss82: one mode under the default prior; the odd chains start at the likelihood's other optima."""
    model, table = resolve(load_model("gallery:gss82"), None)
    setup = problem_of(model, table, seed=0)
    found = find_modes(setup)
    assert len(found) == 1
    np.testing.assert_allclose(
        found.likelihood.log_likelihood[:3], [-2754.5454, -2755.617, -2755.739], atol=1e-3
    )
    starts = chain_starts(setup, found, chain_modes(found, 4), rng)
    others = found.likelihood.parameters["class_weight"]
    assert np.abs(starts[1]["class_weight"] - others[1]).max() < 0.2
    assert np.abs(starts[3]["class_weight"] - others[2]).max() < 0.2
    assert "-2755.617" in optima_notes(found)[0].detail


def test_the_weakest_prior_decides_the_penalty(pairs):
    model = pairs[0]
    assert prior_penalty(model) == 1
    assert prior_penalty(model, {"p_a": 1.0}) == 0
    assert prior_penalty(model, {"p_a": [1.5, 4.0], "p_b": 9.0}) == 0.5


def test_weights_and_their_errors():
    """Two modes whose log masses are known to 0.1: the weight's error is w (1 - w) sqrt(2) 0.1."""
    reading = Weighing(
        reading="weighted",
        mode_of_draw=np.zeros((1, 4), dtype=np.int64),
        log_evidence=np.log([0.3, 0.7]),
        error=np.full(2, 0.1),
    )
    np.testing.assert_allclose(reading.weight, [0.3, 0.7])
    np.testing.assert_allclose(reading.weight_error, 0.3 * 0.7 * np.sqrt(2) * 0.1)


def test_resampling_gives_every_mode_its_share_in_every_chain(rng):
    home = np.repeat([[0], [1], [0], [1]], 100, axis=1)
    reading = Weighing(
        reading="weighted", mode_of_draw=home, log_evidence=np.log([0.8, 0.2]), error=np.zeros(2)
    )
    index = resampled(reading, 3, 100, rng)
    drawn = home.ravel()[index]
    assert (np.abs((drawn == 1).sum(axis=1) - 20) <= 1).all()
    firsts = np.array([(row[:50] == 1).sum() for row in drawn])
    assert (np.abs(firsts - 10) <= 1).all()
    of_one = index.ravel()[drawn.ravel() == 0]
    assert (np.diff(of_one) >= 0).all()  # their order is kept, and all of them are used
    assert len(np.unique(of_one)) == 200


def test_shares_of_basins_count_the_draws(pairs, modes, rng):
    """Draws around each mode climb back to it."""
    setup = problem_of(*pairs, seed=0)
    chains = [gibbs(start, 40, rng) for start in chain_starts(setup, modes, np.array([0, 0, 0, 1]), rng)]
    values = {name: np.stack([chain[name] for chain in chains]) for name in chains[0]}
    share, error = basin_shares(setup, modes.posterior, values, modes.penalty)
    np.testing.assert_allclose(share, [0.75, 0.25], atol=0.01)
    assert (error > 0.1).all()  # chains disagree: one in four


@pytest.mark.slow
def test_weights_and_evidence_equal_the_exact_sum(pairs, modes, exact, rng):
    """Chains by Gibbs sampling, one mode each: within 4 standard errors (6e-5 by chance)."""
    setup = problem_of(*pairs, seed=0)
    started = chain_modes(modes, 4)
    chains = [gibbs(start, 1_000, rng) for start in chain_starts(setup, modes, started, rng)]
    values = {name: np.stack([chain[name] for chain in chains]) for name in chains[0]}
    built = build_model(*pairs)
    found = weigh(pairs[0], built, modes, values, started, {}, 1)
    assert found.reading == "weighted"
    assert found.chain_mode.tolist() == started.tolist()
    ab = _of_ab(modes)
    assert found.weight_error.max() < 0.02
    assert abs(found.weight[ab] - exact[1]) < 4 * found.weight_error[ab]
    total, w = logsumexp(found.log_evidence), found.weight
    assert abs(total - exact[0]) < 4 * np.sqrt(((w * found.error) ** 2).sum())
    both = {name: np.concatenate([value[:, ::2], value[::-1, ::2]], axis=1) for name, value in values.items()}
    mixed = {
        name: value[:, np.argsort(np.tile(np.arange(500), 2), kind="stable")] for name, value in both.items()
    }
    assert weigh(pairs[0], built, modes, mixed, started, {}, 1).reading == "mixing"
    uneven = build_model(*pairs, priors={"class_weight": [2.0, 5.0]})
    assert weigh(pairs[0], uneven, modes, values, started, {}, 1).reading == "not weighted"


def _of_ab(modes):
    gap = np.abs(np.diff(modes.posterior.parameters["p_a"][..., 1], axis=1))[:, 0]
    return int(gap.argmax())


@pytest.mark.slow
def test_the_sample_holds_every_mode_by_its_weight(pairs, modes, exact):
    """End to end: the draws' share of each mode is the exact one, R-hat is judged within modes."""
    post = sample(*pairs, draws=1_000, tune=500, cores=1, random_seed=2, progressbar=False)
    group, ab = post["modes"].to_dataset(), _of_ab(modes)
    assert group.attrs["reading"] == "weighted"
    assert dict(post["posterior"].sizes)["chain"] == 4
    weight, error = float(group["mode_weight"][ab]), float(group["mode_weight_error"][ab])
    assert abs(weight - exact[1]) < 4 * error
    p = post["posterior"]
    gaps = [np.abs(p[n].values[..., 0, 1] - p[n].values[..., 1, 1]).ravel() for n in ("p_a", "p_c")]
    assert (gaps[0] > gaps[1]).mean() == pytest.approx(weight, abs=0.05)
    np.testing.assert_allclose((post["sample_stats"]["mode"] == ab).mean(), weight, atol=1e-3)
    said = load_notes(post.attrs["notes"])
    assert Status.SEVERAL_MODES in {note.status for note in said}
    assert Status.NOT_MIXED not in {note.status for note in said}
    assert (posterior_summary(post)["r_hat"] < 1.05).all()
    by_bridge = log_evidence(*pairs, posterior=post)
    assert abs(float(by_bridge["log_evidence"]) - exact[0]) < 4 * float(by_bridge["error"])
    assert without_first_levels(pairs[0], {"p_a": p["p_a"].values})["p_a"].shape == (4, 1_000, 2)


def test_a_stored_run_remembers_the_chains_asked_for(pairs, tmp_path):
    ready = prepare(*pairs, start=None, priors=None, chains=1, seed=0)
    create_run(tmp_path / "run", ready, {"draws": 10, "tune": 10}, priors=None, seed=0)
    again = open_run(tmp_path / "run")
    assert (again.ready.chains, len(again.ready.starts)) == (1, 2)


def test_too_few_draws_weigh_no_mode(pairs, modes, rng):
    """Fewer draws in every region than a normal needs: said, and no mode is chosen for lack of others."""
    setup, started = problem_of(*pairs, seed=0), chain_modes(modes, 4)
    chains = [gibbs(start, 20, rng) for start in chain_starts(setup, modes, started, rng)]
    values = {name: np.stack([chain[name] for chain in chains]) for name in chains[0]}
    assert weigh(pairs[0], build_model(*pairs), modes, values, started, {}, 1).reading == "not weighted"


def test_chains_that_all_came_to_one_mode_need_no_weights(pairs, modes, rng):
    """Starts in several modes are no sign of several explanations when all chains leave for the same one."""
    setup, started = problem_of(*pairs, seed=0), np.array([0, 1, 0, 1])
    home = chain_starts(setup, modes, np.zeros(4, dtype=int), rng)
    chains = [gibbs(start, 150, rng) for start in home]
    values = {name: np.stack([chain[name] for chain in chains]) for name in chains[0]}
    found = weigh(pairs[0], build_model(*pairs), modes, values, started, {}, 1)
    assert found.reading == "mixing"
    assert found.chain_mode.tolist() == [0] * 4


@pytest.mark.parametrize(("weights", "listed"), [([0.7, 0.3], 2), ([0.995, 0.005], 0), ([1.0, 0.0], 0)])
def test_a_mode_that_weighs_everything_is_no_case_of_several(modes, weights, listed):
    with np.errstate(divide="ignore"):
        level = np.log(weights)
    home = np.zeros((2, 10), dtype=np.int64)
    found = Weighing(reading="weighted", mode_of_draw=home, log_evidence=level, error=np.full(2, 0.1))
    notes = _mode_notes(modes, found)
    assert [note.status for note in notes] == [Status.SEVERAL_MODES] * (listed > 0)
    assert all(note.detail.count("log-likelihood") == listed for note in notes)


def test_a_compiled_density_takes_other_data(pairs, rng):
    """Nothing is compiled again, and the values are those of a density built anew."""
    model, table = pairs
    built = build_model(model, table)
    other = build_model(model, table.assign(count=table["count"][::-1] + 3))
    first = PosteriorDensity(model, built)
    flat = rng.normal(size=(5, first.n_free))
    moved = first.with_data(other)
    assert moved._density.compiled is not first._density.compiled
    np.testing.assert_allclose(moved.log_density(flat), PosteriorDensity(model, other).log_density(flat))
    np.testing.assert_allclose(first.log_density(flat), PosteriorDensity(model, built).log_density(flat))
    assert np.abs(moved.log_density(flat) - first.log_density(flat)).min() > 1
