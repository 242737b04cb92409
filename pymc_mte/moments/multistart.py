"""Many climbs of one likelihood, and what they say about its optima. NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pymc_mte.model import Parameters
from pymc_mte.moments.em import EMResult, Maximiser, em, random_starts, responsibilities
from pymc_mte.moments.likelihood import sharpen
from pymc_mte.moments.problem import Problem, make_problem
from pymc_mte.moments.scores import from_free, to_free
from pymc_mte.network import RepeatedColumns, log_joint, log_sum_classes

Array = NDArray[np.float64]

ROUND = 16
"""Random starts per round."""

MAX_ROUNDS = 8

MAX_PATTERNS = 3_000
"""Random starts climb on a sample of so many rows where the data have more patterns."""

MAX_WORK = 1_000_000
"""Rounds are cut so that starts x patterns x classes stay below this; one is always made."""

ENOUGH = 4
"""Rounds stop once so many starts have reached the best optimum."""

SAME = 0.05
"""Log-likelihoods this close belong to one optimum."""

N_FINISHED = 3
"""Best distinct ends whose climb is finished before they are compared."""

ROUGH_STARTS, ROUGH_CYCLES = 6, 60
MAX_CYCLES = 200
MAX_LEAP = 10.0
"""Longest move of one coordinate (log-odds, standard deviations) in one cycle."""

MAX_STRETCH = 100.0
"""Longest extrapolation, in lengths of two EM steps."""


@dataclass(frozen=True, kw_only=True)
class Optima:
    """The best optimum found, and the others.

    Attributes
    ----------
    parameters : mapping of str to ndarray
        At the best optimum, with a batch axis of length 1.
    log_likelihood : float
        There (no multinomial coefficient).
    share : float
        Share of the starts that ended within half a unit of it.
    n_starts : int
        Number of starts.
    moment_start : float
        Log-likelihood reached from the moment start; NaN without one.
    second : mapping of str to ndarray, optional
        Parameters of the next best optimum that was found, if any.
    second_log_likelihood : float
        NaN if there is none.
    converged : bool
        Whether the best climb settled.
    """

    parameters: Parameters
    log_likelihood: float
    share: float
    n_starts: int
    moment_start: float
    second: Parameters | None
    second_log_likelihood: float
    converged: bool


def climb_from_many(problem: Problem, moment: Parameters | None, *, rounds: int = MAX_ROUNDS) -> Optima:
    """Maximise the likelihood of the data from the moment start and rounds of random starts.

    Parameters
    ----------
    problem : Problem
        The data.
    moment : mapping of str to ndarray, optional
        Moment start with a batch axis of length 1, inside its ranges.
    rounds : int
        Most rounds of random starts; fewer are made once the best optimum has come up often enough.
    """
    rng = np.random.default_rng(problem.seed)
    small = thinned(problem, rng)
    found, reached, from_moments = _rounds(small, moment, rounds, rng)
    n_starts, share = len(reached), float((reached > reached.max() - 0.5).mean())
    if small is not problem:
        top = _distinct(reached)
        found = {name: v[top] for name, v in found.items()}
        if moment is not None:
            found = {name: np.concatenate([moment[name], v]) for name, v in found.items()}
        counts = np.repeat(problem.counts[None], len(found["class_weight"]), axis=0)
        fitted = leap(problem, counts, found, tolerance=1e-2, cycles=MAX_CYCLES)
        found, reached = fitted.parameters, np.nan_to_num(fitted.log_likelihood, nan=-np.inf)
        from_moments = float(reached[0]) if moment is not None else np.nan
    top = _distinct(reached)
    finished = _finished(problem, {name: v[top] for name, v in found.items()}, exact=small is problem)
    order = np.argsort(-finished.log_likelihood, kind="stable")
    best, own = order[0], float(finished.log_likelihood[order[0]])
    others = [i for i in order if finished.log_likelihood[i] < own - SAME]
    if abs(from_moments - reached[top[best]]) < 2 * SAME:
        from_moments = own  # finished, as that climb's twin
    return Optima(
        parameters={name: v[best : best + 1] for name, v in finished.parameters.items()},
        log_likelihood=own,
        share=share,
        n_starts=n_starts,
        moment_start=from_moments,
        second={n: v[others[0]][None] for n, v in finished.parameters.items()} if others else None,
        second_log_likelihood=float(finished.log_likelihood[others[0]]) if others else np.nan,
        converged=bool(finished.converged[best]),
    )


def thinned(problem: Problem, rng: np.random.Generator) -> Problem:
    """Return the data, or a sample of their rows where so many patterns would make starts slow."""
    if len(problem.counts) <= MAX_PATTERNS:
        return problem
    counts = rng.multinomial(MAX_PATTERNS, problem.counts / problem.counts.sum()).astype(float)
    kept = np.flatnonzero(counts)
    columns = {name: np.asarray(column)[kept] for name, column in problem.columns.items()}
    return make_problem(problem.model, columns, counts[kept], problem.seed)


def _rounds(
    problem: Problem, moment: Parameters | None, rounds: int, rng: np.random.Generator
) -> tuple[Parameters, Array, float]:
    """Climb from the moment start and rounds of random ones: ends, log-likelihoods, the moment start's."""
    model, columns, counts = problem.model, problem.columns, problem.counts[None]
    found: Parameters = {}
    reached, from_moments, ceiling = np.zeros(0), np.nan, _saturated(problem)
    affordable = MAX_WORK // (ROUND * len(problem.counts) * model.classes)
    for turn in range(max(1, min(rounds, affordable)) if model.classes > 1 else 1):
        n = ROUND if model.classes > 1 else 1
        starts = [random_starts(model, columns, counts, rng) for _ in range(n)]
        if turn == 0 and moment is not None:
            starts.insert(0, moment)
        joined = {name: np.concatenate([s[name] for s in starts]) for name in starts[0]}
        tiled = np.repeat(counts, len(starts), axis=0)
        fitted = leap(problem, tiled, joined, tolerance=1e-3, cycles=MAX_CYCLES)
        if turn == 0 and moment is not None:
            from_moments = float(fitted.log_likelihood[0])
        found = {
            name: np.concatenate([found[name], v]) if found else v for name, v in fitted.parameters.items()
        }
        reached = np.concatenate([reached, np.nan_to_num(fitted.log_likelihood, nan=-np.inf)])
        if (reached > reached.max() - 2 * SAME).sum() >= ENOUGH or reached.max() > ceiling - SAME:
            break
    return found, reached, from_moments


def _finished(problem: Problem, found: Parameters, *, exact: bool) -> EMResult:
    """Finish climbs by scoring steps and EM, which also reaches probabilities of 0 and 1."""
    n = len(found["class_weight"])
    if exact:
        parts = [sharpen(problem, {name: v[i : i + 1] for name, v in found.items()}) for i in range(n)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in found}
    scale = max(1.0, float(problem.counts.sum()))
    return em(
        problem.model,
        problem.columns,
        np.repeat(problem.counts[None], n, axis=0),
        found,
        tolerance=(1e-7 if exact else 1e-3) / scale,
        max_iterations=2_000 if exact else 200,
    )


def _saturated(problem: Problem) -> float:
    """Log-likelihood that no model of discrete variables exceeds."""
    if problem.model.continuous_variables:
        return np.inf
    seen = problem.counts[problem.counts > 0]
    return float((seen * np.log(seen / seen.sum())).sum())


def leap(
    problem: Problem,
    counts: Array,
    start: Parameters,
    *,
    tolerance: float,
    cycles: int,
    penalty: float = 0.0,
) -> EMResult:
    """Climb by pairs of EM steps, each pair extrapolated where that gains.

    Parameters
    ----------
    problem : Problem
        Model and columns.
    counts : ndarray of shape (batch, patterns)
        Counts per member.
    start : mapping of str to ndarray
        Starting parameters with the same batch axis.
    tolerance : float
        A member stops when one cycle gains less log-likelihood.
    cycles : int
        Limit on cycles, of three EM steps each.
    penalty : float
        See `pymc_mte.moments.em.Maximiser`; the log-likelihood that comes back includes it.

    References
    ----------
    .. [1] Varadhan, R. and Roland, C. (2008). Simple and globally convergent methods for accelerating
       the convergence of any EM algorithm. Scandinavian Journal of Statistics 35.
    """
    model, columns = problem.model, RepeatedColumns(problem.model, problem.columns)
    maximiser = Maximiser(model, columns, penalty)

    def step(now: Parameters, own: Array) -> tuple[Array, Parameters]:
        log_p = log_joint(model, now, columns)
        value = (own * log_sum_classes(log_p)).sum(axis=1) + maximiser.log_penalty(now)
        return value, maximiser.step(responsibilities(log_p) * own[:, None], now)

    now = {name: value.copy() for name, value in start.items()}
    reached, active = np.full(len(counts), -np.inf), np.arange(len(counts))
    for _ in range(cycles):
        own, here = counts[active], {name: value[active] for name, value in now.items()}
        value, one = step(here, own)
        gained = value - reached[active] > tolerance
        reached[active] = value
        middle, two = step(one, own)
        first, second, third = (to_free(model, p) for p in (here, one, two))
        r, v = second - first, third - 2 * second + first
        stretch = np.linalg.norm(r, axis=1) / np.maximum(np.linalg.norm(v, axis=1), 1e-300)
        stretch = np.clip(stretch, 1.0, MAX_STRETCH)[:, None]
        move = np.clip(2 * stretch * r + stretch**2 * v, -MAX_LEAP, MAX_LEAP)
        far = from_free(model, first + move)
        end, after = step(far, own)
        better = end >= middle
        for name, plain in two.items():
            now[name][active] = np.where(better.reshape(-1, *(1,) * (plain.ndim - 1)), after[name], plain)
        active = active[gained]
        if not len(active):
            break
    converged = np.ones(len(counts), dtype=bool)
    converged[active] = False
    return EMResult(parameters=now, log_likelihood=reached, converged=converged)


def _distinct(reached: Array) -> list[int]:
    """Places of the best ends that differ in their log-likelihood."""
    out: list[int] = []
    for i in np.argsort(-reached, kind="stable"):
        if not out or reached[i] < reached[out[-1]] - 2 * SAME:
            out.append(int(i))
    return out[:N_FINISHED]


def rough_maximum(problem: Problem) -> float:
    """Log-likelihood near the best optimum, from few starts: enough to compare numbers of classes."""
    model, columns, counts = problem.model, problem.columns, problem.counts[None]
    rng = np.random.default_rng(problem.seed)
    starts = [random_starts(model, columns, counts, rng) for _ in range(ROUGH_STARTS)]
    joined = {name: np.concatenate([s[name] for s in starts]) for name in starts[0]}
    tiled = np.repeat(counts, len(starts), axis=0)
    fitted = leap(problem, tiled, joined, tolerance=1e-2, cycles=ROUGH_CYCLES)
    best = int(np.nan_to_num(fitted.log_likelihood, nan=-np.inf).argmax())
    point = sharpen(problem, {name: v[best : best + 1] for name, v in fitted.parameters.items()})
    return float(em(model, columns, counts, point, max_iterations=1).log_likelihood[0])
