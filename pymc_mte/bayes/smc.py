"""Sequential Monte Carlo: draws and evidence where chains would stay in one mode."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray
from scipy.special import logsumexp

from pymc_mte.bayes.density import PosteriorDensity
from pymc_mte.bayes.gradient import PLAIN
from pymc_mte.bayes.labels import LabelRegion
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.errors import RefusedError, whole_number
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.methods import class_profile

Array = NDArray[np.float64]

EFFECTIVE = 0.5
"""Share of effective particles that each step towards the posterior leaves."""

FORGOTTEN = 0.3
"""Particles are moved until their mean correlation with where they were is below this,"""

MAX_SWEEPS = 60
"""or so many times."""

ACCEPTED = 0.25
"""Share of moves that the step size aims at."""

LEAP_EVERY = 5
"""Every so many moves are whole differences of two particles: they lead from mode to mode."""

NUDGE = 1e-4

LEAST_PARTICLES = 4
"""A particle moves by the difference of two of the other half, so each half has two."""


def run_smc(
    model: CausalModel,
    built: pm.Model,
    pivot: Parameters,
    scales: Mapping[str, float],
    chains: int,
    seed: int,
    options: dict[str, Any],
) -> xr.DataTree:
    """Lead particles from the prior to the posterior through tempered densities.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    built : pymc.Model
        Its PyMC model.
    pivot : mapping of str to ndarray
        Parameters whose order of classes the particles keep.
    scales : mapping of str to float
        Pooled standard deviation of every continuous variable.
    chains : int
        Independent runs.
    seed : int
        Seed.
    options : dict
        ``draws``: particles per run, at least 4.

    Returns
    -------
    DataTree
        ``posterior`` (chain, draw), ``sample_stats`` (``diverging``, all False) and ``evidence``:
        ``log_evidence`` of ordered rows, its ``error``, and ``log_evidence_run`` (run).

    Raises
    ------
    ModelError
        If particles are too few to move.
    RefusedError
        If covariates decide about class membership.

    Notes
    -----
    Where the prior is the same for all classes, every posterior has K! mirror images. Particles then
    live in the one whose classes are nearest to the pivot's in the order they have; moves out of it are
    refused. Prior and posterior have one K!-th of their mass there, so the evidence is unchanged. A
    particle moves by a multiple of the difference of two particles of the other half, and Metropolis'
    rule decides; that needs no gradient, fits its steps to the posterior and crosses between modes.

    References
    ----------
    .. [1] Del Moral, P., Doucet, A. and Jasra, A. (2006). Sequential Monte Carlo samplers. JRSS B 68.
    .. [2] ter Braak, C. J. F. (2006). A Markov chain Monte Carlo version of the genetic algorithm
       Differential Evolution. Statistics and Computing 16.
    """
    n = whole_number("draws (particles of sampler='smc')", options["draws"], LEAST_PARTICLES)
    if "class_weight" not in {rv.name for rv in built.free_RVs}:
        raise RefusedError("sequential Monte Carlo takes neither covariates nor groups; take nutpie")
    density = PosteriorDensity(model, built)
    start = class_profile(model, {name: value[None] for name, value in pivot.items()}, scales)[0]
    region = LabelRegion(model, start, scales)
    runs, reached = [], []
    for rng in np.random.default_rng(seed).spawn(chains):
        flat, value = _tempered(density, built, region, n, rng)
        runs.append(flat)
        reached.append(value)
    points = density.from_flat(np.concatenate(runs))
    shape = (chains, n)
    values = {n: v.reshape(*shape, *v.shape[1:]) for n, v in density.free_values(points).items()}
    dims = {n: tuple(f"{n}_{i}" for i in range(v.ndim - 2)) for n, v in values.items()}
    drawn = xr.Dataset({n: (("chain", "draw", *dims[n]), v) for n, v in values.items()})
    drawn = drawn.assign_coords(chain=np.arange(chains), draw=np.arange(shape[1]))
    value, error = pooled_evidence(np.array(reached))
    found = {"log_evidence": value, "error": error, "log_evidence_run": ("run", np.array(reached))}
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros(shape, dtype=bool))}, drawn.coords)
    groups = {"posterior": drawn, "sample_stats": stats}
    return xr.DataTree.from_dict(groups | {"evidence": xr.Dataset(found, attrs={"method": "smc"})})


def pooled_evidence(log_evidence: Array) -> tuple[float, float]:
    """Log of the mean of independent evidence estimates, and its standard error.

    Parameters
    ----------
    log_evidence : ndarray of shape (runs,)
        One estimate per run; each is unbiased on the plain scale.

    Examples
    --------
    >>> value, error = pooled_evidence(np.log([1.0, 3.0]))
    >>> round(value, 6) == round(float(np.log(2)), 6), round(error, 6)
    (True, 0.5)
    """
    n = len(log_evidence)
    value = float(logsumexp(log_evidence) - np.log(n))
    error = np.exp(log_evidence - value).std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return value, float(error)


def _tempered(
    density: PosteriorDensity, built: pm.Model, region: LabelRegion, n: int, rng: np.random.Generator
) -> tuple[Array, float]:
    """One run: particles (n, n_free) of the posterior, and the log evidence."""
    drawn = pm.draw(built.free_RVs, draws=n, random_seed=int(rng.integers(2**31)), mode=PLAIN)
    names = [rv.name for rv in built.free_RVs]
    values = with_first_levels(density.model, dict(zip(names, drawn, strict=True)))
    flat = density.to_flat(values)
    bounded = density.exchangeable(flat[:3])
    if bounded:
        flat = density.to_flat(region.aligned(values))
    prior, likelihood = density.parts(flat)
    heat, value, step = 0.0, 0.0, 1.0
    while heat < 1:
        rise = _next_rise(likelihood, 1 - heat)
        weight = rise * likelihood
        value += float(logsumexp(weight) - np.log(n))
        kept = _systematic(np.exp(weight - logsumexp(weight)), rng)
        flat, prior, likelihood = flat[kept], prior[kept], likelihood[kept]
        heat += rise
        inside = region if bounded else None
        flat, prior, likelihood, step = _moved(density, inside, (flat, prior, likelihood), heat, step, rng)
    return flat, value


def _next_rise(likelihood: Array, most: float) -> float:
    """Largest rise of the power of the likelihood, up to ``most``, that leaves enough particles."""

    def effective(rise: float) -> float:
        log_w = rise * (likelihood - likelihood.max())
        return float(np.exp(2 * logsumexp(log_w) - logsumexp(2 * log_w)))

    enough = EFFECTIVE * len(likelihood)
    if effective(most) >= enough:
        return most
    log_low, log_high = np.log(1e-12), np.log(most)
    for _ in range(60):
        middle = (log_low + log_high) / 2
        log_low, log_high = (middle, log_high) if effective(np.exp(middle)) >= enough else (log_low, middle)
    return float(np.exp(log_low))


def _systematic(weight: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Systematic resampling: places of the particles that are kept."""
    places = (rng.random() + np.arange(len(weight))) / len(weight)
    found: NDArray[np.int64] = np.searchsorted(np.cumsum(weight), places * weight.sum())
    return rng.permutation(np.minimum(found, len(weight) - 1))


def _moved(
    density: PosteriorDensity,
    region: LabelRegion | None,
    state: tuple[Array, Array, Array],
    heat: float,
    step: float,
    rng: np.random.Generator,
) -> tuple[Array, Array, Array, float]:
    """Move particles by Metropolis steps until they have forgotten where they were."""
    flat, prior, likelihood = (part.copy() for part in state)
    before, n, d = flat.copy(), *flat.shape
    halves = np.arange(n // 2), np.arange(n // 2, n)
    for sweep in range(1, MAX_SWEEPS + 1):
        leap = sweep % LEAP_EVERY == 0
        accepted = 0
        for own, others in (halves, halves[::-1]):
            pair = others[rng.integers(len(others), size=(2, len(own)))]
            length = 1.0 if leap else step * 2.38 / np.sqrt(2 * d)
            nudge = NUDGE * rng.normal(size=(len(own), d))
            point = flat[own] + length * (flat[pair[0]] - flat[pair[1]]) + nudge
            new_prior, new_likelihood = density.parts(point)
            gain = new_prior - prior[own] + heat * (new_likelihood - likelihood[own])
            yes = np.log(rng.random(len(own))) < gain
            if region is not None and yes.any():
                yes[yes] = region.holds(density.from_flat(point[yes]))
            flat[own[yes]], prior[own[yes]] = point[yes], new_prior[yes]
            likelihood[own[yes]] = new_likelihood[yes]
            accepted += int(yes.sum())
        if not leap:
            step = float(np.clip(step * np.exp(accepted / n - ACCEPTED), 0.05, 3.0))
        if sweep % LEAP_EVERY == 0 and _correlation(before, flat) < FORGOTTEN:
            break
    return flat, prior, likelihood, step


def _correlation(before: Array, after: Array) -> float:
    """Mean over coordinates of the correlation between old and new places."""
    one, two = before - before.mean(axis=0), after - after.mean(axis=0)
    spread = np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
    return float(np.mean((one * two).sum(axis=0) / np.maximum(spread, 1e-300)))
