"""All optima of one likelihood that matter, each once whatever its labels. NumPy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import Maximiser, em, random_starts
from pymc_mte.moments.likelihood import moment_start
from pymc_mte.moments.methods import class_profile, pooled_scales
from pymc_mte.moments.msteps import MIN_SD_SHARE
from pymc_mte.moments.multistart import leap, thinned
from pymc_mte.moments.problem import Problem
from pymc_mte.network import log_joint, log_sum_classes

Array = NDArray[np.float64]

ROUND = 64
"""Random starts per round."""

MAX_ROUNDS = 4

MAX_WORK = 500_000
"""Rounds are cut so that starts x patterns x classes stay below this; one is always made."""

HARD = 0.02
"""Concentration of the random responsibilities: nearly hard partitions find optima that soft ones miss."""

SAME = 0.1
"""Ends this close in the objective, and alike in their classes, are one optimum."""

ALIKE = 0.15
"""Largest difference of two optima's class profiles (probabilities, pooled SDs) that counts as none."""

RIDGE = 0.1
"""Two ends with less than this fall between them lie on one ridge: one optimum."""

EQUAL = 1e-3
"""Without a penalty, ends as equal as this lie on one ridge, however bent."""

MAX_OPTIMA = 12
ROUGH, FINE = 1e-4, 1e-10
CYCLES, STEPS = 150, 3_000


@dataclass(frozen=True, kw_only=True)
class DistinctOptima:
    """Optima of a penalised likelihood, best first; relabelled copies count as one.

    Attributes
    ----------
    parameters : mapping of str to ndarray
        One set per optimum along the first axis; classes matched to those of the best.
    objective : ndarray of shape (optima,)
        Log-likelihood plus penalty.
    log_likelihood : ndarray of shape (optima,)
        Without penalty and multinomial coefficient.
    share : ndarray of shape (optima,)
        Share of all starts that ended there.
    n_starts : int
        Number of starts.
    """

    parameters: Parameters
    objective: Array
    log_likelihood: Array
    share: Array
    n_starts: int


def distinct_optima(
    problem: Problem,
    *,
    penalty: float = 0.0,
    given: Parameters | None = None,
    rounds: int = MAX_ROUNDS,
    window: float = 10.0,
) -> DistinctOptima:
    """Find the optima that the spectral start, given starts and many random starts climb to.

    Parameters
    ----------
    problem : Problem
        The data.
    penalty : float
        Pseudo-counts per table cell and class, see `pymc_mte.moments.em.Maximiser`.
    given : mapping of str to ndarray, optional
        Further starts, along a leading axis.
    rounds : int
        Most rounds of random starts; 0 leaves only the spectral start and the given ones.
    window : float
        Optima whose objective lies further below the best one are left out.

    Returns
    -------
    DistinctOptima
        At most 12 of them.

    Notes
    -----
    Random starts are nearly hard partitions of the patterns. Rounds end once no optimum was met by a
    single start only: by Good and Turing's rule the optima not met yet then attract few starts. With
    more than 3,000 patterns the random climbs use a sample of the rows, and its optima are climbed
    from with all rows.

    References
    ----------
    .. [1] Good, I. J. (1953). The population frequencies of species and the estimation of population
       parameters. Biometrika 40.
    """
    rng = np.random.default_rng(problem.seed)
    first = moment_start(problem, problem.counts[None], rng)
    starts = first if given is None else _joined([first, given])
    small = thinned(problem, rng)
    if problem.model.classes == 1:
        rounds = 0
    if small is problem:
        ends, copies, n_starts = _climbed(problem, starts, penalty, rounds, window, rng)
    else:
        ends, copies, n_starts = _climbed(small, starts, penalty, rounds, window, rng)
        ends, copies = _joined([ends, starts]), np.append(copies, np.zeros(len(starts["class_weight"])))
    ends, objective, likelihood = _finished(problem, ends, penalty)
    merged = _merge(problem, ends, objective, copies, penalty, window)
    ends, objective, likelihood = _picked(ends, merged[0]), objective[merged[0]], likelihood[merged[0]]
    return DistinctOptima(
        parameters=_matched(problem, ends),
        objective=objective,
        log_likelihood=likelihood,
        share=merged[1] / n_starts,
        n_starts=n_starts,
    )


def objective_of(problem: Problem, parameters: Parameters, penalty: float) -> tuple[Array, Array]:
    """Penalised and plain log-likelihood of sets of parameters: two arrays of shape (sets,)."""
    log_p = log_sum_classes(log_joint(problem.model, parameters, problem.columns))
    plain = np.asarray(log_p @ problem.counts)
    return plain + Maximiser(problem.model, problem.columns, penalty).log_penalty(parameters), plain


def profiles(problem: Problem, parameters: Parameters) -> Array:
    """Class profiles on comparable scales: (sets, classes, features)."""
    scales = pooled_scales(problem.model, problem.columns, problem.counts)
    return class_profile(problem.model, parameters, scales)


def relabelled(model: CausalModel, parameters: Parameters, order: NDArray[np.int64]) -> Parameters:
    """Reorder the classes of every set of parameters: ``order`` (sets, classes)."""
    return {
        name: take_classes(value, order, 1) if model.posterior_dims.get(name, ())[:1] == ("class",) else value
        for name, value in parameters.items()
    }


def _joined(parts: list[Parameters]) -> Parameters:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _picked(parameters: Parameters, index: NDArray[np.int64]) -> Parameters:
    return {name: value[index] for name, value in parameters.items()}


def _climbed(
    problem: Problem,
    starts: Parameters,
    penalty: float,
    rounds: int,
    window: float,
    rng: np.random.Generator,
) -> tuple[Parameters, Array, int]:
    """Climb from all starts: the distinct ends, how many starts met each, and the number of starts."""
    model, columns, counts = problem.model, problem.columns, problem.counts[None]
    affordable = max(1, MAX_WORK // (ROUND * len(problem.counts) * model.classes))
    ends, objective, copies = _leapt(problem, starts, penalty)
    n_starts = len(copies)
    for _ in range(min(rounds, affordable)):
        drawn = _joined([random_starts(model, columns, counts, rng, HARD) for _ in range(ROUND)])
        more, reached, once = _leapt(problem, drawn, penalty)
        ends, objective = _joined([ends, more]), np.concatenate([objective, reached])
        copies, n_starts = np.concatenate([copies, once]), n_starts + ROUND
        kept, met = _merge(problem, ends, objective, copies, penalty, window)
        ends, objective, copies = _picked(ends, kept), objective[kept], met
        if (copies > 1).all():
            break
    return ends, copies, n_starts


def _leapt(problem: Problem, starts: Parameters, penalty: float) -> tuple[Parameters, Array, Array]:
    tiled = np.repeat(problem.counts[None], len(starts["class_weight"]), axis=0)
    fitted = leap(problem, tiled, starts, tolerance=ROUGH, cycles=CYCLES, penalty=penalty)
    return fitted.parameters, np.nan_to_num(fitted.log_likelihood, nan=-np.inf), np.ones(len(tiled))


def _finished(problem: Problem, ends: Parameters, penalty: float) -> tuple[Parameters, Array, Array]:
    """Finish climbs with all rows by EM, which also reaches probabilities of 0 and 1."""
    tiled = np.repeat(problem.counts[None], len(ends["class_weight"]), axis=0)
    near = leap(problem, tiled, ends, tolerance=ROUGH, cycles=CYCLES, penalty=penalty).parameters
    model, columns = problem.model, problem.columns
    fitted = em(model, columns, tiled, near, penalty=penalty, tolerance=FINE, max_iterations=STEPS)
    return fitted.parameters, *objective_of(problem, fitted.parameters, penalty)


def _merge(
    problem: Problem, ends: Parameters, objective: Array, copies: Array, penalty: float, window: float
) -> tuple[NDArray[np.int64], Array]:
    """Places of the distinct ends within the window, best first, and how many starts met each."""
    usable = np.isfinite(objective)
    sound = usable & ~_collapsed(problem, ends)
    usable = sound if sound.any() else usable
    ranked = [int(i) for i in np.argsort(-objective, kind="stable") if usable[i]]
    profile = profiles(problem, ends)
    kept: list[int] = []
    met: list[float] = []
    for i in ranked:
        if objective[i] < objective[ranked[0]] - window:
            break
        twin = next(
            (j for j, k in enumerate(kept) if _same(problem, ends, profile, objective, (k, i), penalty)), -1
        )
        if twin >= 0:
            met[twin] += copies[i]
        elif len(kept) < MAX_OPTIMA:
            kept.append(i)
            met.append(copies[i])
    return np.array(kept, dtype=np.int64), np.array(met)


def _same(
    problem: Problem,
    ends: Parameters,
    profile: Array,
    objective: Array,
    pair: tuple[int, int],
    penalty: float,
) -> bool:
    """Whether two ends are one optimum: alike after relabelling, or on one flat ridge."""
    a, b = pair
    gap = abs(objective[a] - objective[b])
    if gap > SAME:
        return False
    if penalty == 0 and gap < EQUAL:
        return True
    order, _ = match_classes(profile[b : b + 1], profile[a])
    if np.abs(profile[b][order[0]] - profile[a]).max() < ALIKE:
        return True
    other = relabelled(problem.model, _picked(ends, np.array([b])), order)
    middle = {name: (value + ends[name][a : a + 1]) / 2 for name, value in other.items()}
    return bool(objective_of(problem, middle, penalty)[0][0] > objective[b] - RIDGE)


def _collapsed(problem: Problem, ends: Parameters) -> NDArray[np.bool_]:
    """Find ends at which a scale has shrunk to its floor, where the likelihood is unbounded."""
    out = np.zeros(len(ends["class_weight"]), dtype=bool)
    for name, scale in pooled_scales(problem.model, problem.columns, problem.counts).items():
        if f"sd_{name}" in ends:
            sd = ends[f"sd_{name}"].reshape(len(out), -1)
            out |= (sd < 2 * MIN_SD_SHARE * scale).any(axis=1)
    return out


def _matched(problem: Problem, ends: Parameters) -> Parameters:
    """Give the classes of every optimum the numbers of the best one's classes."""
    profile = profiles(problem, ends)
    return relabelled(problem.model, ends, match_classes(profile, profile[0])[0])


def nearest_optimum(
    problem: Problem, found: DistinctOptima, points: Parameters, penalty: float
) -> NDArray[np.int64]:
    """Climb from points and say at which optimum each ends: (points,); -1 where at none of them."""
    tiled = np.repeat(problem.counts[None], len(points["class_weight"]), axis=0)
    fitted = leap(problem, tiled, points, tolerance=ROUGH, cycles=CYCLES, penalty=penalty)
    own, known = profiles(problem, fitted.parameters), profiles(problem, found.parameters)
    gaps = []
    for pivot, height in zip(known, found.objective, strict=True):
        order = match_classes(own, pivot)[0]
        gap = np.abs(np.take_along_axis(own, order[..., None], axis=1) - pivot).max(axis=(1, 2))
        gaps.append(np.where(np.abs(fitted.log_likelihood - height) < 3 * SAME, gap, np.inf))
    best = np.argmin(gaps, axis=0)
    return np.where(np.isfinite(np.min(gaps, axis=0)), best, -1)
