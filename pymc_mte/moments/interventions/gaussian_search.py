"""Targets in linear Gaussian networks: structural EM from many starts, then single changes by BIC."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.gaussian import (
    LinearMixture,
    LinearRows,
    component_density,
    maximise,
    memberships,
    refit,
)
from pymc_mte.moments.interventions.linear import NARROWEST, LinearNetwork

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

STARTS, START_ROWS, START_STEPS = 8, 3_000, 20
"""Starts per number of components, each tried on some of the rows for some steps."""

FINALISTS = 2
"""Starts that are carried on with all rows."""

PATIENCE = 2
"""The search stops when this many more components have not lowered the criterion."""

TRIED = 3
"""Weakest touches and strongest untouched places that are tried one by one in each round."""

MAX_ROUNDS = 20

CLEARLY = 0.1
"""A smaller fall of BIC is the optimiser's."""

ROUGH = (60, 0.02)
"""Steps and tolerance in nats while mixtures are only compared."""


def unmix_linear(
    data: LinearRows, network: LinearNetwork, rng: np.random.Generator, max_components: int = 12
) -> LinearMixture:
    """Find the components of a mixture of interventions on a linear Gaussian network.

    For each number of components EM runs from several starts; each step also decides which nodes a
    component touches, at the price that BIC puts on a parameter. Then single touches are taken away
    or added as long as BIC falls. The number of components with the lowest BIC is returned.

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

    Returns
    -------
    LinearMixture
        In descending order of weight.
    """
    best = _improve(data, refit(data, untouched(network), *ROUGH))
    last, best_here = 1, best
    for size in range(2, max_components + 1):
        some = replace(data.some(START_ROWS, rng), base=None)  # equations as learnt, for the starts
        tried = [_start(some, network, best_here, size, number, rng) for number in range(STARTS)]
        tried.sort(key=lambda found: found.criterion(some))
        here = [_improve(data, refit(data, found, *ROUGH)) for found in tried[:FINALISTS]]
        best_here = min(here, key=lambda found: found.criterion(data))
        if best_here.criterion(data) < best.criterion(data) - CLEARLY:
            best, last = best_here, len(best_here.weight)
        elif size - last >= PATIENCE:
            break
    return in_order(refit(data, best))


def unmix_listed(
    data: LinearRows, network: LinearNetwork, targets: Flags, rng: np.random.Generator
) -> LinearMixture:
    """Fit components whose targets are known; their values are searched from many starts."""
    some = replace(data.some(START_ROWS, rng), base=None)
    found = []
    for _ in range(2 * STARTS):
        member = _membership(
            some, untouched(network), _far_rows(some, untouched(network), len(targets) - 1, rng)
        )
        order = rng.permutation(len(targets))
        spread = np.where(targets, network.sd, 1.0)
        start = LinearMixture(
            network=network,
            weight=np.full(len(targets), 1 / len(targets)),
            touched=targets,
            value=np.zeros(targets.shape),
            spread=spread,
        )
        found.append(refit(some, maximise(some, start, member[:, order]), START_STEPS))
    found.sort(key=lambda mixture: -mixture.log_likelihood)
    return max((refit(data, mixture) for mixture in found[:FINALISTS]), key=lambda m: m.log_likelihood)


def untouched(network: LinearNetwork) -> LinearMixture:
    """Describe the untouched system as a mixture of one component."""
    shape = (1, len(network.parents))
    return LinearMixture(
        network=network,
        weight=np.ones(1),
        touched=np.zeros(shape, dtype=bool),
        value=np.zeros(shape),
        spread=np.ones(shape),
    )


def in_order(mixture: LinearMixture) -> LinearMixture:
    """Sort the components, the heaviest first."""
    order = np.argsort(-mixture.weight, kind="stable")
    return replace(
        mixture,
        weight=mixture.weight[order],
        touched=mixture.touched[order],
        value=mixture.value[order],
        spread=mixture.spread[order],
    )


def gains(data: LinearRows, mixture: LinearMixture, member: Array) -> Array:
    """Nats gained by touching each node in each component, memberships held fixed.

    Returns
    -------
    ndarray of shape (components, nodes)
        Of touching against leaving alone. Where the equations are learnt, the rows that they are
        learnt from limit what is known of a shift.
    """
    share = member * data.counts[:, None]
    mass = np.maximum(share.sum(axis=0), 1e-9)[:, None]
    z = mixture.network.residuals(data.rows)
    mean = share.T @ z / mass
    if data.kind == "do":
        own = share.T @ data.rows / mass
        spread = np.sqrt(np.maximum(share.T @ data.rows**2 / mass - own**2, 1e-12))
        narrow = np.log(np.maximum(spread / mixture.network.sd, NARROWEST))
        return np.asarray(mass * (0.5 * (share.T @ z**2 / mass) - narrow - 0.5))
    if data.base is None:
        return np.asarray(0.5 * mass * mean**2)
    pooled = data.base.n + (mass * ~mixture.touched).sum(axis=0)
    rest = np.where(mixture.touched, pooled / (pooled + mass), pooled / np.maximum(pooled - mass, 1.0))
    return np.asarray(0.5 * mass * mean**2 * rest)


def _far_rows(data: LinearRows, mixture: LinearMixture, number: int, rng: np.random.Generator) -> Array:
    """Draw rows far from every component and from each other; as errors: (number, nodes)."""
    z = mixture.network.residuals(data.rows)
    plain, ratio = component_density(data, mixture)
    far = -2 * (plain[:, None] + ratio).max(axis=1)
    far = np.maximum(far - far.min(), 1e-9)
    drawn = np.empty((number, z.shape[1]))
    for place in range(number):
        drawn[place] = z[rng.choice(len(z), p=far * data.counts / (far @ data.counts))]
        far = np.minimum(far, ((z - drawn[place]) ** 2).sum(axis=1) + 1e-9)
    return drawn


def _membership(data: LinearRows, mixture: LinearMixture, centres: Array) -> Array:
    """Probability of the components and of new ones around some rows, all equally frequent."""
    z = mixture.network.residuals(data.rows)
    _, ratio = component_density(data, mixture)
    log_p = np.column_stack([ratio, z @ centres.T - 0.5 * (centres**2).sum(axis=1)])
    member = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return np.asarray(member / member.sum(axis=1, keepdims=True))


def _start(
    data: LinearRows,
    network: LinearNetwork,
    smaller: LinearMixture,
    size: int,
    number: int,
    rng: np.random.Generator,
) -> LinearMixture:
    """One start: half of them add a component to the best smaller mixture, half are new."""
    seed = smaller if number % 2 and len(smaller.weight) < size else untouched(network)
    centres = _far_rows(data, seed, size - len(seed.weight), rng)
    member = _membership(data, seed, centres)
    more = len(centres)
    grown = replace(
        seed,
        weight=np.full(size, 1 / size),
        touched=np.vstack([seed.touched, np.ones((more, seed.touched.shape[1]), dtype=bool)]),
        value=np.vstack([seed.value, np.zeros((more, seed.value.shape[1]))]),
        spread=np.vstack([seed.spread, np.tile(network.sd, (more, 1))]),
    )
    return _settle(data, grown, member)


def _settle(data: LinearRows, mixture: LinearMixture, member: Array) -> LinearMixture:
    """Structural EM: every step also decides what is touched, at a price that rises to BIC's."""
    each = 0.5 * data.price * (1 if data.kind == "shift" else 2)
    for step in range(START_STEPS):
        price = each * min(1.0, (step + 1) / (START_STEPS / 2))
        mixture = replace(mixture, touched=gains(data, mixture, member) > price)
        mixture = tidy(maximise(data, mixture, member))
        member, value = memberships(data, mixture)
    return replace(mixture, log_likelihood=value)


def tidy(mixture: LinearMixture) -> LinearMixture:
    """Join the components that touch nothing: they are one."""
    plain = np.flatnonzero(~mixture.touched.any(axis=1))
    if len(plain) < 2:
        return mixture
    weight = mixture.weight.copy()
    weight[plain[0]] = weight[plain].sum()
    keep = np.ones(len(weight), dtype=bool)
    keep[plain[1:]] = False
    return replace(mixture, weight=weight).only(keep)


def _improve(data: LinearRows, mixture: LinearMixture) -> LinearMixture:
    """Take single touches away, or add them, as long as the criterion falls."""
    for _ in range(MAX_ROUNDS):
        for changed in changes(data, mixture):
            tried = refit(data, changed, *ROUGH)
            if tried.criterion(data) < mixture.criterion(data) - CLEARLY:
                mixture = tried
                break
        else:
            return mixture
    return mixture


def changes(data: LinearRows, mixture: LinearMixture) -> Iterator[LinearMixture]:
    """Propose the likeliest single changes: a weak touch less, a strong one more, a component less."""
    member, _ = memberships(data, mixture)
    gain = gains(data, mixture, member)
    each = 0.5 * data.price * (1 if data.kind == "shift" else 2)
    weak = np.where(mixture.touched, gain, np.inf)
    strong = np.where(mixture.touched, -np.inf, gain)
    for place in np.argsort(weak, axis=None)[:TRIED]:
        if np.isfinite(weak.flat[place]) and weak.flat[place] < 6 * each:
            yield tidy(maximise(data, flipped(mixture, int(place)), member))
    for place in np.argsort(-strong, axis=None)[:TRIED]:
        if strong.flat[place] > each:
            yield maximise(data, flipped(mixture, int(place)), member)
    if len(mixture.weight) > 1:
        yield mixture.only(np.arange(len(mixture.weight)) != np.argmin(mixture.weight))


def flipped(mixture: LinearMixture, place: int) -> LinearMixture:
    """Touch one place (component times nodes plus node), or leave it alone."""
    touched = mixture.touched.copy()
    touched.flat[place] = ~touched.flat[place]
    return replace(mixture, touched=touched)
