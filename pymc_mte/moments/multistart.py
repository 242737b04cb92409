"""Many climbs of one likelihood, and what they say about its optima. NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pymc_mte.model import Parameters
from pymc_mte.moments.em import em, random_starts
from pymc_mte.moments.likelihood import sharpen
from pymc_mte.moments.problem import Problem

Array = NDArray[np.float64]

ROUND = 16
"""Random starts per round."""

MAX_ROUNDS = 8

ENOUGH = 4
"""Rounds stop once so many starts have reached the best optimum."""

SAME = 0.05
"""Log-likelihoods this close belong to one optimum."""

N_FINISHED = 3
"""Best distinct ends whose climb is finished before they are compared."""

ROUGH_STARTS, ROUGH_ITERATIONS = 6, 200


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
    model, columns, counts = problem.model, problem.columns, problem.counts[None]
    rng = np.random.default_rng(problem.seed)
    found: Parameters = {}
    reached = np.zeros(0)
    from_moments = np.nan
    scale = max(1.0, float(counts.sum()))
    for turn in range(rounds if model.classes > 1 else 1):
        n = ROUND if model.classes > 1 else 1
        starts = [random_starts(model, columns, counts, rng) for _ in range(n)]
        if turn == 0 and moment is not None:
            starts.insert(0, moment)
        joined = {name: np.concatenate([s[name] for s in starts]) for name in starts[0]}
        tiled = np.repeat(counts, len(starts), axis=0)
        fitted = em(model, columns, tiled, joined, tolerance=min(1e-6, 1e-3 / scale), max_iterations=500)
        if turn == 0 and moment is not None:
            from_moments = float(fitted.log_likelihood[0])
        found = {name: np.concatenate([found[name], v]) if found else v for name, v in fitted.parameters.items()}
        reached = np.concatenate([reached, np.nan_to_num(fitted.log_likelihood, nan=-np.inf)])
        if (reached > reached.max() - 2 * SAME).sum() >= ENOUGH:
            break
    top = _distinct(reached)
    sharpened = [sharpen(problem, {name: v[i : i + 1] for name, v in found.items()}) for i in top]
    finished = em(
        model,
        columns,
        np.repeat(counts, len(top), axis=0),
        {name: np.concatenate([s[name] for s in sharpened]) for name in found},
        tolerance=1e-7 / scale,
        max_iterations=2_000,
    )
    order = np.argsort(-finished.log_likelihood, kind="stable")
    best = order[0]
    point = {name: v[best : best + 1] for name, v in finished.parameters.items()}
    own = float(finished.log_likelihood[best])
    reached[reached > reached[top[best]] - 2 * SAME] = own
    others = [i for i in order if finished.log_likelihood[i] < own - SAME]
    return Optima(
        parameters=point,
        log_likelihood=own,
        share=float((reached > own - 0.5).mean()),
        n_starts=len(reached),
        moment_start=from_moments,
        second={n: v[others[0]][None] for n, v in finished.parameters.items()} if others else None,
        second_log_likelihood=float(finished.log_likelihood[others[0]]) if others else np.nan,
        converged=bool(finished.converged[best]),
    )


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
    fitted = em(
        model,
        columns,
        np.repeat(counts, len(starts), axis=0),
        joined,
        tolerance=1e-2 / max(1.0, float(counts.sum())),
        max_iterations=ROUGH_ITERATIONS,
    )
    best = int(np.nan_to_num(fitted.log_likelihood, nan=-np.inf).argmax())
    point = sharpen(problem, {name: v[best : best + 1] for name, v in fitted.parameters.items()})
    return float(em(model, columns, counts, point, max_iterations=1).log_likelihood[0])
