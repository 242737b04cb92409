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

N_FINISHED = 6
"""Best starts whose climb is finished before they are compared."""


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
    top = np.argsort(-reached, kind="stable")[:N_FINISHED]
    finished = em(
        model,
        columns,
        np.repeat(counts, len(top), axis=0),
        {name: v[top] for name, v in found.items()},
        tolerance=1e-5 / scale,
        max_iterations=5_000,
    )
    reached[top] = finished.log_likelihood
    order = np.argsort(-finished.log_likelihood, kind="stable")
    best = order[0]
    point = sharpen(problem, {name: v[best : best + 1] for name, v in finished.parameters.items()})
    own = float(em(model, columns, counts, point, max_iterations=1).log_likelihood[0])
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
