"""Sets of targets that explain the rows about as well: a walk over neighbours, and their probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.gaussian import (
    LinearMixture,
    LinearRows,
    component_density,
    memberships,
    refit,
)
from pymc_mte.moments.interventions.gaussian_errors import base_information, scores
from pymc_mte.moments.interventions.gaussian_evidence import log_evidence
from pymc_mte.moments.interventions.gaussian_search import (
    ROUGH,
    flipped,
    gains,
    in_order,
    tidy,
    unmix_linear,
    untouched,
)
from pymc_mte.moments.interventions.linear import LinearNetwork

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

WINDOW = 5.0
"""Neighbours of sets that are at most so many nats behind the best are looked at."""

DOUBT = 4.0
"""A neighbour is fitted unless the quadratic forecast puts it further than this behind the window."""

MOST_SETS, MOST_NEIGHBOURS = 8, 16
"""Sets whose neighbours are looked at without a better one being found, and neighbours fitted of each."""

MOST_COMPONENTS = 12
"""Most components that are tried by default."""

FEWEST_ROWS = 10.0
"""A set with a component of fewer rows is left out."""

SMALLEST_CHANCE = 0.02
"""Less probable sets are left out."""

APART = 0.5
"""Components with the same targets and values closer than this, in error sds, are no two components."""

CLEAR_GAIN = 3.0
"""A component with one touch more than another is tried if its forecast is more nats."""

CONSTANTS = 3
"""Most frequent values of a node that are tried as forced ones."""

EMPTY_SHARE = 0.1
"""Share that an added component without touches begins with."""


@dataclass(frozen=True, kw_only=True)
class TargetSet:
    """Targets with their values and shares, and how probable the set is.

    Attributes
    ----------
    mixture : LinearMixture
        Fitted, the heaviest component first.
    probability : float
        Among all sets kept, which sum to 1.
    level : float
        `log_evidence` of the set, in nats.
    """

    mixture: LinearMixture
    probability: float
    level: float


def find_sets(
    data: LinearRows, network: LinearNetwork, rng: np.random.Generator, max_components: int = MOST_COMPONENTS
) -> list[TargetSet]:
    """Search for targets, then weigh the sets near the one found; the most probable one first.

    Parameters
    ----------
    data : LinearRows
        The mixture's rows and what is known of the untouched system.
    network : LinearNetwork
        The untouched equations, known or learnt from the untouched rows.
    rng : numpy.random.Generator
        Source of the starts.
    max_components : int
        Most components tried.
    """
    return plausible_sets(data, unmix_linear(data, network, rng, max_components), max_components)


def plausible_sets(
    data: LinearRows, found: LinearMixture, max_components: int = MOST_COMPONENTS
) -> list[TargetSet]:
    """Walk from set to neighbouring set, the most probable first, and weigh all that were met.

    Neighbours differ by one touch, by a component less, by an untouched component more, or by a
    component whose target is another's but for one node.
    """
    nothing = refit(data, untouched(found.network))
    pool = {_key(mixture): mixture for mixture in (nothing, found)}
    level = {key: log_evidence(data, mixture) for key, mixture in pool.items()}
    looked: set[bytes] = set()
    idle, top = 0, -np.inf
    while idle < MOST_SETS:
        idle, top = (0 if max(level.values()) > top else idle + 1), max(level.values())
        floor = top - WINDOW
        left = [key for key in level if key not in looked and level[key] > floor]
        if not left:
            break
        here = max(left, key=level.__getitem__)
        looked.add(here)
        fresh = sorted(neighbours(data, pool[here]), key=lambda pair: -pair[0])
        fresh = [(gain, start) for gain, start in fresh if _key(start) not in pool]
        for gain, start in fresh[:MOST_NEIGHBOURS]:
            hopeless = level[here] + gain < floor - DOUBT or len(start.weight) > max_components
            if hopeless or _key(start) in pool:
                continue
            fitted = refit(data, start, *ROUGH)
            enough = len(fitted.weight) == 1 or fitted.weight.min() * data.n >= FEWEST_ROWS
            if enough and _distinct(fitted):
                pool[_key(start)], level[_key(start)] = fitted, log_evidence(data, fitted)
    return _weighed(data, [pool[key] for key, value in level.items() if value > max(level.values()) - WINDOW])


def _weighed(data: LinearRows, mixtures: Sequence[LinearMixture]) -> list[TargetSet]:
    """Fit to the end, turn evidence into probabilities, leave improbable sets out."""
    fitted = [refit(data, mixture) for mixture in mixtures]
    level = np.array([log_evidence(data, mixture) for mixture in fitted])
    chance = np.exp(level - level.max())
    keep = chance / chance.sum() >= SMALLEST_CHANCE
    keep[chance.argmax()] = True
    chance = chance / chance[keep].sum()
    return [
        TargetSet(
            mixture=in_order(fitted[place]), probability=float(chance[place]), level=float(level[place])
        )
        for place in np.argsort(-level)
        if keep[place]
    ]


def neighbours(data: LinearRows, mixture: LinearMixture) -> list[tuple[float, LinearMixture]]:
    """List neighbouring sets as starts for a fit, each with a forecast of the nats it gains."""
    size = len(mixture.weight)
    at = _Expansion(data, mixture)
    price = 0.5 * data.price * (1 if data.kind == "shift" else 2)
    out: list[tuple[float, LinearMixture]] = []
    for place, gain in enumerate(at.touch_gains().ravel()):
        touched = mixture.touched.flat[place]
        out.append((price - gain if touched else gain - price, tidy(flipped(mixture, place))))
    if size > 1:
        out += [(0.0, mixture.only(np.arange(size) != k)) for k in range(size)]
    if mixture.touched.any(axis=1).all():
        start = _with_component(mixture, None)
        out.append((at.component_gain(start) - 0.5 * data.price, start))
    for k, node in np.argwhere(mixture.touched):
        start = _with_component(mixture, int(k), node)
        target = start.touched[-1]
        if target.any() and not (mixture.touched == target).all(axis=1).any():
            out.append((at.component_gain(start) - 0.5 * data.price, start))
    values = [_typical_values(data, mixture.network.sd, node) for node in range(mixture.touched.shape[1])]
    for k, node in np.argwhere(~mixture.touched):
        for value, spread in values[node]:
            start = _with_component(mixture, int(k), node, value, spread)
            more = at.component_gain(start)
            if more > CLEAR_GAIN:
                out.append((more - price - 0.5 * data.price, start))
    return out


def _typical_values(data: LinearRows, sd: Array, node: int) -> list[tuple[float, float]]:
    """Values that a further touch of a node may have, with their spread: constants that rows repeat first."""
    if data.kind == "shift":
        return [(-float(sd[node]), 1.0), (float(sd[node]), 1.0)]
    values, place = np.unique(data.rows[:, node], return_inverse=True)
    often = np.bincount(place, weights=data.counts)
    top = [int(j) for j in np.argsort(-often)[:CONSTANTS] if often[j] >= FEWEST_ROWS]
    if top:
        return [(float(values[j]), 0.0) for j in top]
    mean = float(data.counts @ data.rows[:, node] / data.n)
    wide = float(np.sqrt(data.counts @ (data.rows[:, node] - mean) ** 2 / data.n))
    return [(mean - wide, 0.5 * wide), (mean + wide, 0.5 * wide)]


class _Expansion:
    """Quadratic expansion of the likelihood at a fit: what another parameter would gain."""

    def __init__(self, data: LinearRows, mixture: LinearMixture) -> None:
        self.data, self.mixture = data, mixture
        self.root = np.sqrt(data.counts)
        self.score = scores(data, mixture) * self.root[:, None]
        known = base_information(data, mixture, self.score.shape[1])
        self.inverse = np.linalg.pinv(self.score.T @ self.score + known, rcond=1e-12, hermitian=True)
        ratio = component_density(data, mixture)[1] + np.log(np.maximum(mixture.weight, 1e-300))
        self.ratio = np.logaddexp.reduce(ratio, axis=1)

    def touch_gains(self) -> Array:
        """Nats that each touch is worth, all else being refitted: (components, nodes).

        Forced values: by the rows' memberships held fixed.
        """
        data, mixture = self.data, self.mixture
        member, _ = memberships(data, mixture)
        if data.kind == "do":
            return gains(data, mixture, member)
        z, size = mixture.network.residuals(data.rows), len(mixture.weight)
        out = np.empty(mixture.touched.shape)
        for column, (k, i) in enumerate(np.argwhere(mixture.touched)):
            spread = self.inverse[size + column, size + column]
            out[k, i] = 0.5 * mixture.value[k, i] ** 2 / max(spread, 1e-300)
        for k, i in np.argwhere(~mixture.touched):
            out[k, i] = self._gain(member[:, k] * z[:, i])
        return out

    def component_gain(self, more: LinearMixture) -> float:
        """Nats gained by the last component of ``more``, its values held fixed."""
        last = more.only(np.arange(len(more.weight)) == len(more.weight) - 1)
        ratio = component_density(self.data, last)[1][:, 0] - self.ratio
        column = np.exp(np.minimum(ratio, 50.0)) - 1
        return self._gain(column) if self.data.counts @ column > 0 else 0.0

    def _gain(self, column: Array) -> float:
        """Half the score statistic of one more parameter, the others being refitted."""
        column = column * self.root
        along, own = self.score.T @ column, float(column @ column)
        spread = max(own - float(along @ self.inverse @ along), 1e-9 * own)
        return 0.5 * float(self.root @ column) ** 2 / max(spread, 1e-300)


def _with_component(
    mixture: LinearMixture, parent: int | None, node: int = 0, value: float = 0.0, spread: float = 1.0
) -> LinearMixture:
    """Add an untouched component, or one that takes half of its parent's rows.

    It has the parent's target but for one node, which is left alone where the parent touches it and
    else takes a value.
    """
    nodes = mixture.touched.shape[1]
    if parent is None:
        weight, share = mixture.weight * (1 - EMPTY_SHARE), EMPTY_SHARE
        target, values, spreads = np.zeros(nodes, dtype=bool), np.zeros(nodes), np.ones(nodes)
    else:
        share = mixture.weight[parent] / 2
        weight = np.where(np.arange(len(mixture.weight)) == parent, share, mixture.weight)
        target, values = mixture.touched[parent].copy(), mixture.value[parent].copy()
        spreads = mixture.spread[parent].copy()
        target[node] = not target[node]
        values[node] = value if target[node] else 0.0
        spreads[node] = max(spread, float(mixture.network.narrowest[node])) if target[node] else 1.0
    return replace(
        mixture,
        weight=np.append(weight, share),
        touched=np.vstack([mixture.touched, target]),
        value=np.vstack([mixture.value, values]),
        spread=np.vstack([mixture.spread, spreads]),
    )


def _distinct(mixture: LinearMixture) -> bool:
    """Whether components that touch the same nodes do so by different values."""
    for k, target in enumerate(mixture.touched):
        same = np.flatnonzero((mixture.touched[:k] == target).all(axis=1))
        away = np.abs(mixture.value[same] - mixture.value[k]) / mixture.network.sd
        if len(same) and away.max(axis=1).min() < APART:
            return False
    return True


def _key(mixture: LinearMixture) -> bytes:
    """Name a set: its targets, whatever their order."""
    touched = mixture.touched
    return touched[np.lexsort(touched.T)].tobytes() + bytes([len(touched)])
