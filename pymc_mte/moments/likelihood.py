"""Maximum likelihood of the graph from good starts: spectral ones and random ones. NumPy only."""

import numpy as np
from numpy.typing import NDArray

from pymc_mte.functionals import functionals
from pymc_mte.model import Parameters
from pymc_mte.moments.em import EMResult, em, random_starts, start_from_classes
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.scores import scoring
from pymc_mte.moments.spectral import spectral
from pymc_mte.network import log_joint, log_sum_classes
from pymc_mte.results import class_order

Array = NDArray[np.float64]

N_RANDOM_STARTS = 8
"""Random starts of the likelihood climb, beside the moment start."""

SCORING_STEPS = 3
"""Scoring steps of a resample before it climbs: few are left to climb then, if n is not small."""

REPLICATE_TOLERANCE = 1e-7
"""Resamples start next to their optimum and stop at this gain per row."""

MAX_SHARPENING = 30
MAX_SCORES = 20_000_000
"""Largest matrix of pattern scores (patterns x parameters) that is formed."""

FLOOR = 0.02
"""Starting probabilities and weights keep this distance from 0 and 1."""


def fit_likelihood(problem: Problem, *, penalty: float = 0.0) -> tuple[Parameters, Array]:
    """Best of several likelihood climbs: from the spectral estimate and from random starts.

    Returns
    -------
    parameters : mapping of str to ndarray
        The best optimum, with a batch axis of length 1.
    log_likelihood : ndarray of shape (starts,)
        Log-likelihood reached from every start; the moment start comes first.
    """
    fitted, reached = climb(problem, problem.counts[None], n_random=N_RANDOM_STARTS, penalty=penalty)
    final = em(
        problem.model,
        problem.columns,
        problem.counts[None],
        fitted.parameters,
        penalty=penalty,
        tolerance=1e-10,
        max_iterations=5_000,
    )
    return (final.parameters if penalty else sharpen(problem, final.parameters)), reached[0]


def ordered_fit(problem: Problem) -> Parameters:
    """Maximum-likelihood parameters (batch axis of length 1), the classes in the order of answers."""
    model, best = problem.model, fit_likelihood(problem)[0]
    known = {name: value[0] for name, value in best.items()}
    if model.treatment is not None:
        known |= {"effect": functionals(model, best)["effect"][0]}
    order = class_order(model, known)
    return {n: v[:, order] if model.dims[n][:1] == ("class",) else v for n, v in best.items()}


def sharpen(problem: Problem, point: Parameters) -> Parameters:
    """Finish a climb by scoring steps for as long as they gain: EM slows down before the top."""
    counts = problem.counts[None]
    if _n_scores(problem) > MAX_SCORES:
        return point
    best = _log_likelihood(problem, point, counts)[0]
    for _ in range(MAX_SHARPENING):
        moved = scoring(problem.model, problem.columns, problem.counts, counts, point, steps=1)
        reached = _log_likelihood(problem, moved, counts)[0]
        if not reached > best:
            break
        point, best = moved, reached
    return point


def _n_scores(problem: Problem) -> int:
    return len(problem.counts) * sum(int(np.prod(shape)) for shape in problem.model.shapes.values())


def refit(problem: Problem, counts: Array, point: Parameters) -> EMResult:
    """Maximum likelihood of resampled counts, from scoring steps where they help, else from the point.

    Parameters
    ----------
    problem : Problem
        The data that were resampled.
    counts : ndarray of shape (batch, patterns)
        Resampled counts.
    point : mapping of str to ndarray
        The data's own optimum, with a batch axis of length 1.
    """
    model, columns = problem.model, problem.columns
    if _n_scores(problem) > MAX_SCORES:
        return em(model, columns, counts, point, tolerance=REPLICATE_TOLERANCE)
    moved = scoring(model, columns, problem.counts, counts, point, steps=SCORING_STEPS)
    better = _log_likelihood(problem, moved, counts) > _log_likelihood(problem, point, counts)
    start = {
        name: np.where(better.reshape(-1, *(1,) * (value.ndim - 1)), value, point[name])
        for name, value in moved.items()
    }
    return em(model, columns, counts, start, tolerance=REPLICATE_TOLERANCE)


def _log_likelihood(problem: Problem, parameters: Parameters, counts: Array) -> Array:
    log_p = log_sum_classes(log_joint(problem.model, parameters, problem.columns))
    return np.asarray((counts * log_p).sum(axis=1))


def climb(
    problem: Problem, counts: Array, *, n_random: int, penalty: float = 0.0, tolerance: float = 1e-6
) -> tuple[EMResult, Array]:
    """Climb from the spectral estimate and random starts, for a batch of independent samples.

    Parameters
    ----------
    problem : Problem
        Columns and features.
    counts : ndarray of shape (batch, patterns)
        One sample per row, each with starts of its own.
    n_random : int
        Random starts per sample.
    penalty, tolerance : float
        See `pymc_mte.moments.em.em`.

    Returns
    -------
    best : EMResult
        The best optimum of every sample.
    log_likelihood : ndarray of shape (batch, 1 + n_random)
        Log-likelihood reached from every start.
    """
    model, columns = problem.model, problem.columns
    n_random = 0 if model.classes == 1 else n_random
    rng = np.random.default_rng(problem.seed)
    starts = [moment_start(problem, counts, rng)]
    for _ in range(n_random):
        starts.append(random_starts(model, columns, counts, rng))
    joined = {name: np.concatenate([start[name] for start in starts]) for name in starts[0]}
    tiled = np.tile(counts, (len(starts), 1))
    found = em(model, columns, tiled, joined, penalty=penalty, tolerance=tolerance)
    reached = found.log_likelihood.reshape(len(starts), len(counts))
    pick = np.nan_to_num(reached, nan=-np.inf).argmax(axis=0) * len(counts) + np.arange(len(counts))
    best = EMResult(
        parameters={name: value[pick] for name, value in found.parameters.items()},
        log_likelihood=found.log_likelihood[pick],
        converged=found.converged[pick],
    )
    return best, reached.T


def moment_start(problem: Problem, counts: Array, rng: np.random.Generator) -> Parameters:
    """Derive starting parameters from the spectral estimate of every sample; random where it fails."""
    model, columns, k = problem.model, problem.columns, problem.model.classes
    narrow = min(problem.z.values.shape[1], problem.x.values.shape[1])
    start = random_starts(model, columns, counts, rng)
    if k == 1 or not model.treatment_proxies or narrow < k or len(problem.arms) < len(model.arms):
        return start
    solved = spectral(problem.moments(counts), k, problem.function_sds, problem.diagonalised, problem.anchors)
    assert solved.proxy_mean is not None
    usable = np.isfinite(solved.proxy_mean).all(axis=(1, 2)) & np.isfinite(solved.class_weight).all(axis=1)
    usable &= np.isfinite(solved.potential_outcome).all(axis=(1, 2))
    if not usable.any():
        return start
    weight = np.clip(solved.class_weight[usable], FLOOR, None)
    partial: Parameters = {"class_weight": weight / weight.sum(axis=1, keepdims=True)}
    partial |= proxy_tables(problem, solved.proxy_mean[usable] @ problem.x.unwhiten)
    partial |= _outcome_parameters(problem, solved.potential_outcome[usable])
    informed = start_from_classes(model, columns, counts[usable], partial)
    for name, value in informed.items():
        start[name][usable] = value
    return start


def _outcome_parameters(problem: Problem, outcomes: Array) -> Parameters:
    """Outcome parameters that the potential outcomes give where the treatment is the only parent."""
    y = str(problem.model.outcome)
    var = problem.model.variables[y]
    if var.parents != (problem.model.treatment,) or not var.latent:
        return {}
    if var.trials is not None:
        return {}
    if var.discrete:
        p = np.clip(outcomes, FLOOR, 1 - FLOOR)
        return {f"p_{y}": np.stack([1 - p, p], axis=-1)}
    if var.family != "normal" or var.scale_parents:
        return {}
    low, high = np.quantile(problem.outcome, [0.01, 0.99])
    sd = np.full((len(outcomes), problem.model.classes), problem.outcome_sd)
    return {f"mean_{y}": np.clip(outcomes, low, high), f"sd_{y}": sd}


def proxy_tables(problem: Problem, raw: Array) -> Parameters:
    """Level probabilities of parentless discrete outcome proxies from class means of features.

    Parameters
    ----------
    problem : Problem
        Gives the outcome-side features.
    raw : ndarray of shape (batch, classes, r)
        Class means of the raw features.
    """
    out: Parameters = {}
    for name, place in problem.x.places.items():
        var, own = problem.model.variables[name], raw[..., place]
        if not var.discrete or var.trials is not None or var.parents or not var.latent:
            continue
        if problem.x.maps[name] == "scores":
            table = _table_of_scores(problem, name, own)
        else:
            table = np.concatenate([1 - own.sum(axis=-1, keepdims=True), own], axis=-1)
        table = np.clip(table, FLOOR, 1 - FLOOR)
        out[f"p_{name}"] = table / table.sum(axis=-1, keepdims=True)
    return out


def _table_of_scores(problem: Problem, name: str, means: Array) -> Array:
    """Level probabilities per class from class means of orthonormal scores: their series, cut off."""
    column, raw = np.asarray(problem.columns[name]), problem.x.raw[:, problem.x.places[name]]
    pooled = np.bincount(column, weights=problem.counts, minlength=problem.model.size(name))
    scores = np.zeros((len(pooled), raw.shape[1]))
    seen, first = np.unique(column, return_index=True)
    scores[seen] = raw[first]
    return np.asarray(pooled / pooled.sum() * (1 + means @ scores.T))
