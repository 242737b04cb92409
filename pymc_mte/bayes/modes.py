"""Modes of the posterior and optima of the likelihood: where chains start, what is reported."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.priors import TABLE_CONCENTRATION, Prior, merge_priors
from pymc_mte.bayes.start import JITTER, class_numbers, estimated_point, jittered
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import start_from_classes
from pymc_mte.moments.methods import pooled_scales
from pymc_mte.moments.optima import MAX_ROUNDS, DistinctOptima, distinct_optima, nearest_optimum, relabelled
from pymc_mte.moments.problem import Problem
from pymc_mte.status import Note, Status

Array = NDArray[np.float64]

WINDOW = 10.0
"""Log units below the best mode within which a mode starts chains."""

ALWAYS = 5.0
"""Log units below the best mode within which every mode is sampled, by further chains if need be."""

N_BASIN, MIN_BASIN = 400, 10
"""Most draws that are climbed from, and fewest per chain."""

MAX_CLIMBS = 500_000
"""Fewer draws are climbed from so that draws x patterns x classes stay below this."""

OVERDISPERSED = 1.0
"""Spread of overdispersed starts around the mode: SD on the log or logit scale, and in pooled SDs."""


@dataclass(frozen=True, kw_only=True)
class Modes:
    """What the climbs found, classes numbered alike throughout.

    Attributes
    ----------
    posterior : DistinctOptima
        Optima of likelihood times prior of the tables, on the scale of probabilities: they start
        the chains. At least one.
    likelihood : DistinctOptima
        Optima of the likelihood alone. The prior may join several of them into one mode.
    penalty : float
        Pseudo-counts that stood for the prior.
    """

    posterior: DistinctOptima
    likelihood: DistinctOptima
    penalty: float

    def at(self, mode: int) -> Parameters:
        """Parameters of one mode, the highest first, without a leading axis."""
        return {name: value[mode] for name, value in self.posterior.parameters.items()}

    def __len__(self) -> int:
        """Return the number of posterior modes."""
        return len(self.posterior.objective)


def prior_penalty(model: CausalModel, priors: Mapping[str, Prior] | None = None) -> float:
    """Pseudo-counts that stand for the Dirichlet priors: the weakest decides, so that no mode is hidden.

    A prior that is not a number counts as the default one. At most the default's pseudo-count is used.
    """
    chosen = merge_priors(model, priors)
    tables = ["class_weight", *(f"p_{v}" for v in model.discrete_variables)]
    given = [chosen.get(name, TABLE_CONCENTRATION) for name in tables]
    numbers = [np.min(v) for v in given if isinstance(v, int | float | list)]
    return float(np.clip(min(numbers, default=TABLE_CONCENTRATION) - 1, 0.0, TABLE_CONCENTRATION - 1))


def find_modes(
    problem: Problem,
    start: xr.DataTree | None = None,
    *,
    priors: Mapping[str, Prior] | None = None,
    rounds: int = MAX_ROUNDS,
    likelihood: bool = True,
) -> Modes:
    """Climb from the spectral start, a given estimate and many random starts, with and without prior.

    Parameters
    ----------
    problem : Problem
        The data.
    start : DataTree, optional
        An answer of `estimate`, used as one more start.
    priors : mapping, optional
        As in `build_model`.
    rounds : int
        Most rounds of 64 random starts each.
    likelihood : bool
        Whether optima of the likelihood alone are looked for too; else the posterior's stand for them.

    Returns
    -------
    Modes
        Posterior modes within 10 log units of the best, likelihood optima likewise.
    """
    penalty, given = prior_penalty(problem.model, priors), given_start(problem, start)
    posterior = distinct_optima(problem, penalty=penalty, given=given, rounds=rounds, window=WINDOW)
    posterior = _ordered(problem.model, posterior)
    if penalty == 0 or not likelihood:
        return Modes(posterior=posterior, likelihood=posterior, penalty=penalty)
    known = (
        posterior.parameters
        if given is None
        else {name: np.concatenate([value, given[name]]) for name, value in posterior.parameters.items()}
    )
    alone = distinct_optima(problem, given=known, rounds=rounds, window=WINDOW)
    return Modes(posterior=posterior, likelihood=_ordered(problem.model, alone), penalty=penalty)


def one_mode(point: Parameters, share: float) -> Modes:
    """Take the only mode that was looked for: ``share`` of the climbs ended there."""
    unknown = np.full(1, np.nan)
    found = DistinctOptima(
        parameters={name: value[None] for name, value in point.items()},
        objective=unknown,
        log_likelihood=unknown,
        share=np.array([share]),
        n_starts=1,
    )
    return Modes(posterior=found, likelihood=found, penalty=0.0)


def given_start(problem: Problem, start: xr.DataTree | None) -> Parameters | None:
    """Complete the parameters that an estimate holds to one start of a climb."""
    partial = estimated_point(problem, start)
    if partial is None:
        return None
    batch = {name: value[None] for name, value in partial.items()}
    return start_from_classes(problem.model, problem.columns, problem.counts[None], batch)


def _ordered(model: CausalModel, found: DistinctOptima) -> DistinctOptima:
    """Give the classes the package's numbers at the best optimum, in all optima alike."""
    order = class_numbers(model, {name: value[0] for name, value in found.parameters.items()})
    everywhere = np.repeat(order[None], len(found.objective), axis=0)
    return replace(found, parameters=relabelled(model, found.parameters, everywhere))


def chain_modes(modes: Modes, chains: int) -> NDArray[np.int64]:
    """Mode at which each chain starts: in turn, with as many chains as the modes within 5 units need."""
    near = int((modes.posterior.objective > modes.posterior.objective[0] - ALWAYS).sum())
    return np.arange(max(chains, near if len(modes) > 1 else 1)) % len(modes)


def chain_starts(
    problem: Problem, modes: Modes, started: NDArray[np.int64], rng: np.random.Generator
) -> list[Parameters]:
    """One start per chain: its mode with jitter.

    With a single mode every second chain starts far from it: at another optimum of the likelihood, in
    turn, or, if there is none, with wide jitter.

    Parameters
    ----------
    problem : Problem
        The data.
    modes : Modes
        From `find_modes`.
    started : ndarray of int, shape (chains,)
        From `chain_modes`.
    rng : numpy.random.Generator
        Source of the jitter.
    """
    scales = pooled_scales(problem.model, problem.columns, problem.counts)
    others = len(modes.likelihood.objective) - 1
    out = []
    for chain, mode in enumerate(started):
        source, spread = modes.posterior, JITTER
        if len(modes) == 1 and chain % 2 == 1:
            source, spread = (modes.likelihood, JITTER) if others else (source, OVERDISPERSED)
            mode = 1 + chain // 2 % others if others else 0
        point = {name: value[mode] for name, value in source.parameters.items()}
        out.append(jittered(problem.model, point, scales, rng, spread))
    return out


def at_best(modes: Modes) -> float:
    """Share of the climbs to posterior modes that ended at the best one."""
    return float(modes.posterior.share[0])


def basin_shares(
    problem: Problem | None, found: DistinctOptima, values: Parameters, penalty: float
) -> tuple[Array, Array]:
    """Posterior mass of the parameters from which a climb leads to each optimum, with standard errors.

    Parameters
    ----------
    problem : Problem or None
        The data; None with the row-wise likelihood.
    found : DistinctOptima
        The optima.
    values : mapping of str to ndarray
        Draws (chain, draw, ...) of the posterior.
    penalty : float
        That of the optima.

    Returns
    -------
    share, error : ndarray of shape (optima,)
        From at most 400 draws, fewer with many patterns. The error is the larger one of that between
        chains and that of independent draws. Shares may add up to less than 1: some draws lead to
        optima outside the window. NaN where the data are too large to climb from draws, or row-wise.
    """
    chains, draws = values["class_weight"].shape[:2]
    optima = len(found.objective)
    if optima == 1:
        return np.ones(1), np.zeros(1)
    if problem is None:
        return np.full(optima, np.nan), np.full(optima, np.nan)
    affordable = MAX_CLIMBS // (len(problem.counts) * problem.model.classes)
    each = min(N_BASIN // chains, affordable // chains, draws)
    if each < MIN_BASIN:
        return np.full(optima, np.nan), np.full(optima, np.nan)
    places = np.linspace(0, draws - 1, each).astype(int)
    points = {
        name: values[name][:, places].reshape(-1, *values[name].shape[2:]) for name in problem.model.dims
    }
    ended = nearest_optimum(problem, found, points, penalty).reshape(chains, each)
    by_chain = np.stack([(ended == j).mean(axis=1) for j in range(optima)])
    share = by_chain.mean(axis=1)
    error = np.sqrt(share * (1 - share) / ended.size)
    if chains > 1:
        error = np.maximum(error, by_chain.std(axis=1, ddof=1) / np.sqrt(chains))
    return share, error


def optima_notes(modes: Modes) -> list[Note]:
    """Say which other optima of the likelihood fit almost as well."""
    found = modes.likelihood
    near = found.log_likelihood > found.log_likelihood[0] - ALWAYS
    if near.sum() < 2:
        return []
    listed = ", ".join(
        f"{value:.3f} ({share:.0%} of starts)"
        for value, share in zip(found.log_likelihood[near], found.share[near], strict=True)
    )
    return [Note(Status.SECOND_OPTIMUM, "likelihood", f"log-likelihoods {listed}")]
