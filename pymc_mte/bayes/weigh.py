"""Weights of posterior modes: by bridge sampling where chains stay apart, by shares where they mix."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pymc as pm
from numpy.typing import NDArray
from scipy.special import logsumexp

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.bayes.bridge import Normal
from pymc_mte.bayes.density import PosteriorDensity
from pymc_mte.bayes.evidence import region_integral
from pymc_mte.bayes.modes import Modes
from pymc_mte.bayes.rowdensity import density_of
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.methods import class_profile
from pymc_mte.moments.optima import relabelled

Array = NDArray[np.float64]
Index = NDArray[np.int64]

MIXES = 1.1
"""Split R-hat of the share of draws in each mode, below which chains count as moving freely."""

MIN_DRAWS = 50
"""A mode in whose region fewer draws lie than this, or than twice the parameters, is no mode of its own."""


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """Which mode each draw belongs to, and what the modes weigh.

    Attributes
    ----------
    reading : str
        ``one mode``; ``mixing``: chains move freely between modes, or all came to one, so their draws need
        no weights; ``weighted``: chains stay apart; ``not weighted``: they do, and the modes could not be
        weighed, because the prior treats the classes differently or the draws are too few.
    mode_of_draw : ndarray of int, shape (chains, draws)
        The mode whose region holds the draw.
    log_evidence, error : ndarray of shape (modes,)
        Log posterior mass of each mode, all labels together, and its standard error; of ordered
        rows. Minus infinity for a mode that chains left for good; NaN unless ``weighted``.
    """

    reading: str
    mode_of_draw: Index
    log_evidence: Array
    error: Array

    @property
    def chain_mode(self) -> Index:
        """Mode in which most draws of each chain lie: (chains,)."""
        counted = [np.bincount(row, minlength=len(self.error)) for row in self.mode_of_draw]
        return np.array([int(row.argmax()) for row in counted])

    @property
    def weight(self) -> Array:
        """Posterior probability of each mode: (modes,); NaN unless ``weighted``."""
        if self.reading != "weighted":
            return np.full(len(self.error), np.nan)
        return np.asarray(np.exp(self.log_evidence - logsumexp(self.log_evidence)))

    @property
    def weight_error(self) -> Array:
        """Standard error of the weights, by the delta method: (modes,)."""
        w, error = self.weight, np.nan_to_num(self.error)
        spread = np.array([((np.eye(len(w))[j] - w) ** 2 * error**2).sum() for j in range(len(w))])
        return np.asarray(w * np.sqrt(spread))


class ModeRegions:
    """Parameter space divided by normals fitted to the chains of each mode.

    Parameters
    ----------
    density : PosteriorDensity
        Maps parameters to the unconstrained scale.
    pivots : ndarray of shape (modes, classes, features)
        Class profile of each mode.
    scales : mapping of str to float
        Pooled standard deviation of every continuous variable.
    """

    def __init__(self, density: PosteriorDensity, pivots: Array, scales: Mapping[str, float]) -> None:
        self.density, self.pivots, self.scales = density, pivots, scales
        self.normals: dict[int, Normal] = {}

    def order(self, parameters: Parameters, mode: int) -> Index:
        """Return the nearest order of the classes, seen from a mode: (sets, classes)."""
        profile = class_profile(self.density.model, parameters, self.scales)
        return match_classes(profile, self.pivots[mode])[0]

    def flat(self, parameters: Parameters, mode: int) -> Array:
        """Unconstrained points, every set relabelled to the mode's order: (sets, n_free)."""
        order = self.order(parameters, mode)
        return self.density.to_flat(relabelled(self.density.model, parameters, order))

    def nearest(self, parameters: Parameters) -> Index:
        """Mode whose classes are most alike each set's: (sets,)."""
        profile = class_profile(self.density.model, parameters, self.scales)
        far = []
        for pivot in self.pivots:
            order = match_classes(profile, pivot)[0]
            far.append(((take_classes(profile, order, 1) - pivot) ** 2).sum(axis=(1, 2)))
        return np.argmin(far, axis=0)

    def which(self, parameters: Parameters) -> Index:
        """Mode whose normal is densest at each set of parameters, among those fitted: (sets,)."""
        modes = sorted(self.normals)
        heights = [self.normals[j].log_density(self.flat(parameters, j)) for j in modes]
        return np.array(modes)[np.argmax(heights, axis=0)]


@dataclass(frozen=True, kw_only=True)
class OneRegion:
    """The region of one mode, with its order of the classes."""

    regions: ModeRegions
    mode: int

    def holds(self, parameters: Parameters) -> NDArray[np.bool_]:
        """Whether each set of parameters lies in the region: (sets,)."""
        classes = self.regions.density.model.classes
        same = (self.regions.order(parameters, self.mode) == np.arange(classes)).all(axis=1)
        found: NDArray[np.bool_] = same & (self.regions.which(parameters) == self.mode)
        return found


def weigh(
    model: CausalModel,
    built: pm.Model,
    modes: Modes,
    values: Parameters,
    started: Index,
    scales: Mapping[str, float],
    seed: int,
    density: Callable[[], PosteriorDensity] | None = None,
) -> Weighing:
    """Judge whether chains that started in several modes mix; weigh the modes if they do not.

    Parameters
    ----------
    model : CausalModel
        The graph, its levels resolved.
    built : pymc.Model
        Its PyMC model.
    modes : Modes
        From `pymc_mte.bayes.modes.find_modes` or `pymc_mte.bayes.rowmodes.row_modes`.
    values : mapping of str to ndarray
        Draws (chain, draw, ...) in any labelling.
    started : ndarray of int, shape (chains,)
        Mode at which each chain started.
    scales : mapping of str to float
        Pooled standard deviation of every continuous variable.
    seed : int
        Seed of the bridge's proposals.
    density : callable, optional
        Gives the density of ``built``, if it is compiled already.

    Notes
    -----
    A mode's region is where its normal is denser than those of the other modes, after relabelling. The
    normals are fitted to the draws of the first halves that are nearest to each mode, whatever chain they
    are of: a chain may cross once, and would make the normal of the mode where it started too wide.
    Where all chains have the same shares of draws in all regions, they move freely. Where they stay
    apart, the mass of each region is integrated by a bridge between the second halves and the normal.
    """
    chains, draws = next(iter(values.values())).shape[:2]
    m = len(modes)
    nothing = np.full(m, np.nan)
    if len(np.unique(started)) < 2:
        return one_mode(m, chains, draws)
    pivots = modes.posterior.parameters
    at = density_of(model, built) if density is None else density()
    if model.covariates:  # proposals have no average over rows, so classes are told by baseline weights
        pivots, values = ({**v, "class_weight": v["baseline_weight"]} for v in (pivots, values))
    regions = ModeRegions(at, class_profile(model, pivots, scales), scales)
    half, enough = draws // 2, max(MIN_DRAWS, 2 * at.n_free)
    near = regions.nearest(_joined(values)).reshape(chains, draws)[:, :half]
    for j in np.unique(near):
        own = {name: value[:, :half][near == j] for name, value in values.items()}
        if (near == j).sum() >= enough:
            regions.normals[int(j)] = Normal.fitted(regions.flat(own, int(j)))
    if {int(np.bincount(row).argmax()) for row in near} - set(regions.normals):
        return one_mode(m, chains, draws, "not weighted")  # chains live in a mode of too few draws
    mode_of_draw = regions.which(_joined(values)).reshape(chains, draws)
    plain = Weighing(reading="not weighted", mode_of_draw=mode_of_draw, log_evidence=nothing, error=nothing)
    if len(regions.normals) == 1 or _mixing(mode_of_draw):  # wherever they started, they came to one mode
        return replace(plain, reading="mixing")
    if not at.exchangeable(at.to_flat({n: v[0, :3] for n, v in values.items()})):
        return plain
    scarce = [j for j in regions.normals if (mode_of_draw[:, half:] == j).sum() < enough]
    if len(scarce) == len(regions.normals):  # too few draws to weigh any
        return plain
    for j in scarce:
        del regions.normals[j]
    mode_of_draw = regions.which(_joined(values)).reshape(chains, draws)
    if len(regions.normals) == 1:
        return replace(plain, reading="mixing", mode_of_draw=mode_of_draw)
    late = {name: value[:, half:] for name, value in values.items()}
    log_evidence, error = _masses(at, regions, late, mode_of_draw[:, half:], m, seed)
    if not np.isfinite(error).all():
        return replace(plain, mode_of_draw=mode_of_draw)
    return Weighing(reading="weighted", mode_of_draw=mode_of_draw, log_evidence=log_evidence, error=error)


def _masses(
    density: PosteriorDensity,
    regions: ModeRegions,
    values: Parameters,
    mode_of_draw: Index,
    modes: int,
    seed: int,
) -> tuple[Array, Array]:
    """Log posterior mass of every region from the draws in it, with standard errors: (modes,)."""
    log_evidence, error = np.full(modes, -np.inf), np.zeros(modes)
    for j, normal in regions.normals.items():
        used = regions.flat({name: value[mode_of_draw == j] for name, value in values.items()}, j)
        part = OneRegion(regions=regions, mode=j)
        log_evidence[j], error[j] = region_integral(density, part, normal, used[None], seed + j)
    return log_evidence, error


def one_mode(modes: int, chains: int, draws: int, reading: str = "one mode") -> Weighing:
    """Return the reading of chains that all started at the best mode, or of draws without a history."""
    nothing, home = np.full(modes, np.nan), np.zeros((chains, draws), dtype=np.int64)
    return Weighing(reading=reading, mode_of_draw=home, log_evidence=nothing, error=nothing)


def resampled(weighing: Weighing, chains: int, draws: int, rng: np.random.Generator) -> Index:
    """Places of draws that make up a sample by weight: flat indices of (chain, draw), (chains, draws).

    Every mode gives each chain its share of draws, spread evenly over the chain; within a mode draws
    keep their order, so that repeats stand side by side and the effective size remains visible.
    """
    weight = weighing.weight
    pools = [np.flatnonzero(weighing.mode_of_draw.ravel() == j) for j in range(len(weight))]
    total = chains * draws
    ahead = np.cumsum(np.broadcast_to(weight, (total, len(weight))), axis=0) + rng.random(len(weight))
    taken, order = np.zeros(len(weight)), np.empty(total, dtype=np.int64)
    for place in range(total):
        order[place] = np.where(weight > 0, ahead[place] - taken, -np.inf).argmax()
        taken[order[place]] += 1
    out = np.empty(total, dtype=np.int64)
    for j, pool in enumerate(pools):
        places = np.flatnonzero(order == j)
        if len(places):
            out[places] = pool[(np.arange(len(places)) * len(pool)) // len(places)]
    return out.reshape(chains, draws)


def _joined(values: Parameters) -> Parameters:
    """Join chains."""
    return {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}


def _mixing(mode_of_draw: Index) -> bool:
    """Whether every chain spends alike shares of its draws in every mode."""
    return all(_split_rhat((mode_of_draw == j).astype(float)) < MIXES for j in np.unique(mode_of_draw))


def _split_rhat(series: Array) -> float:
    """Split R-hat of an indicator (chains, draws); infinite where chains are constant and differ."""
    half = series.shape[1] // 2
    parts = np.concatenate([series[:, :half], series[:, half : 2 * half]])
    within, between = parts.var(axis=1, ddof=1).mean(), parts.mean(axis=1).var(ddof=1)
    if within == 0:
        return 1.0 if between == 0 else np.inf
    return float(np.sqrt((half - 1) / half + between / within))
