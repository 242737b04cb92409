"""Mixtures of shifts or forced values in linear Gaussian networks: likelihood and accelerated EM."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pymc_mte.moments.interventions.linear import LinearNetwork, Moments, regress

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Kind = Literal["shift", "do"]

MAX_STEPS, TOLERANCE = 500, 1e-4
"""EM stops after this many steps, or when a step gains fewer nats."""

DEAD = 2.0
"""A component of fewer rows is held at its values."""


@dataclass(frozen=True, kw_only=True)
class LinearRows:
    """The mixture's rows and, where the equations are learnt, sums over the untouched rows.

    Attributes
    ----------
    kind : {"shift", "do"}
        What interventions do: add a constant to an equation, or replace the equation.
    rows : ndarray of shape (rows, nodes)
        In the nodes' units, nodes in topological order.
    counts : ndarray of shape (rows,)
        How often each row occurred.
    base : Moments, optional
        Of the untouched rows; none where the equations are known.
    """

    kind: Kind
    rows: Array
    counts: Array
    base: Moments | None = None

    @cached_property
    def products(self) -> tuple[Array, Array]:
        """Columns of the rows about their mean, and their products: (rows, pairs); and that mean."""
        centre = self.counts @ self.rows / self.n
        apart = self.rows - centre
        first, second = np.triu_indices(apart.shape[1])
        return np.column_stack([apart, apart[:, first] * apart[:, second]]), centre

    def sums(self, share: Array) -> list[Moments]:
        """Moments of the rows under each column of weights: (rows, components)."""
        columns, centre = self.products
        mass = share.sum(axis=0)
        found = share.T @ columns / np.maximum(mass, 1e-300)[:, None]
        nodes = len(centre)
        first, second = np.triu_indices(nodes)
        out = []
        for n, row in zip(mass, found, strict=True):
            scatter = np.empty((nodes, nodes))
            scatter[first, second] = scatter[second, first] = row[nodes:]
            scatter -= np.outer(row[:nodes], row[:nodes])
            out.append(Moments(n=float(n), mean=centre + row[:nodes], scatter=n * scatter))
        return out

    @property
    def n(self) -> float:
        """Number of the mixture's rows."""
        return float(self.counts.sum())

    @property
    def price(self) -> float:
        """What a parameter costs in BIC: the logarithm of the number of the mixture's rows."""
        return float(np.log(self.n))

    def some(self, most: int, rng: np.random.Generator) -> "LinearRows":
        """Part of the rows, drawn by their counts; what is known of the untouched rows stays."""
        if len(self.rows) <= most:
            return self
        keep = rng.choice(len(self.rows), size=most, replace=False, p=self.counts / self.n)
        return replace(self, rows=self.rows[keep], counts=np.ones(most))


@dataclass(frozen=True, kw_only=True)
class LinearMixture:
    """Components that change the equations of some nodes.

    Attributes
    ----------
    network : LinearNetwork
        The untouched equations: known, or learnt from untouched rows and mixture together.
    weight : ndarray of shape (components,)
        Sum 1.
    touched : ndarray of bool, shape (components, nodes)
        The targets.
    value : ndarray of shape (components, nodes)
        Shift of the equation, or mean of the forced values, in the node's units; 0 where untouched.
    spread : ndarray of shape (components, nodes)
        Standard deviation of forced values, in the node's units; unused by shifts.
    log_likelihood : float
        Of mixture and untouched rows, in nats.
    """

    network: LinearNetwork
    weight: Array
    touched: Flags
    value: Array
    spread: Array
    log_likelihood: float = -np.inf

    def n_parameters(self, kind: Kind) -> int:
        """Free parameters of the components; those of the equations are the same in all mixtures."""
        return len(self.weight) - 1 + int(self.touched.sum()) * (1 if kind == "shift" else 2)

    def criterion(self, data: LinearRows) -> float:
        """BIC: lower is better."""
        return self.n_parameters(data.kind) * data.price - 2 * self.log_likelihood

    def only(self, keep: Flags) -> "LinearMixture":
        """Leave components out."""
        weight = self.weight[keep] / self.weight[keep].sum()
        return replace(
            self, weight=weight, touched=self.touched[keep], value=self.value[keep], spread=self.spread[keep]
        )


def component_density(data: LinearRows, mixture: LinearMixture) -> tuple[Array, Array]:
    """Log-density of every row if untouched (rows,), and log ratios to it (rows, components)."""
    network = mixture.network
    z = network.residuals(data.rows)
    nodes = z.shape[1]
    plain = -0.5 * (z**2).sum(axis=1) - np.log(network.sd).sum() - 0.5 * nodes * np.log(2 * np.pi)
    if data.kind == "shift":
        shift = np.where(mixture.touched, mixture.value / network.sd, 0.0)
        return plain, z @ shift.T - 0.5 * (shift**2).sum(axis=1)
    ratio = np.zeros((len(z), len(mixture.weight)))
    for k, i in np.argwhere(mixture.touched):
        away = (data.rows[:, i] - mixture.value[k, i]) / mixture.spread[k, i]
        ratio[:, k] += 0.5 * (z[:, i] ** 2 - away**2) - np.log(mixture.spread[k, i] / network.sd[i])
    return plain, ratio


def memberships(data: LinearRows, mixture: LinearMixture) -> tuple[Array, float]:
    """Probability of each component given each row, and the log-likelihood of all rows."""
    plain, ratio = component_density(data, mixture)
    log_p = ratio + np.log(np.maximum(mixture.weight, 1e-300))
    top = log_p.max(axis=1)
    member = np.exp(log_p - top[:, None])
    total = member.sum(axis=1)
    member /= total[:, None]
    value = float(data.counts @ (np.log(total) + top + plain))
    return member, value + base_log_likelihood(data.base, mixture.network)


def base_log_likelihood(base: Moments | None, network: LinearNetwork) -> float:
    """Log-likelihood of the untouched rows; 0 where there are none."""
    if base is None:
        return 0.0
    total = 0.0
    for i, sd in enumerate(network.sd):
        side = -network.coefficient[i].copy()
        side[i] += 1.0
        away = float(base.mean @ side) - network.intercept[i]
        squares = float(side @ base.scatter @ side) + base.n * away**2
        total -= 0.5 * squares / sd**2 + base.n * (np.log(sd) + 0.5 * np.log(2 * np.pi))
    return float(total)


def em_step(data: LinearRows, mixture: LinearMixture) -> LinearMixture:
    """One EM step; its ``log_likelihood`` is that of the mixture it was given."""
    member, value = memberships(data, mixture)
    return replace(maximise(data, mixture, member), log_likelihood=value)


def maximise(data: LinearRows, mixture: LinearMixture, member: Array) -> LinearMixture:
    """Fit everything to rows whose components are known up to probabilities."""
    share = member * data.counts[:, None]
    mass = share.sum(axis=0)
    weight = mass / mass.sum()
    if data.base is None:
        changed = _values(data, mixture, share, mass)
    else:
        changed = _relearn(data, mixture, data.sums(share))
    dead = (mass < DEAD)[:, None]
    return replace(
        changed,
        weight=weight,
        value=np.where(dead, mixture.value, changed.value),
        spread=np.where(dead, mixture.spread, changed.spread),
    )


def _values(data: LinearRows, mixture: LinearMixture, share: Array, mass: Array) -> LinearMixture:
    """Fit shifts or forced values under known equations."""
    network, safe = mixture.network, np.maximum(mass, 1e-9)[:, None]
    if data.kind == "shift":
        mean = share.T @ network.residuals(data.rows) / safe * network.sd
        return replace(mixture, value=np.where(mixture.touched, mean, 0.0))
    mean = share.T @ data.rows / safe
    spread = np.zeros_like(mean)
    for k, i in np.argwhere(mixture.touched):
        spread[k, i] = np.sqrt(share[:, k] @ (data.rows[:, i] - mean[k, i]) ** 2 / safe[k, 0])
    return _forced(mixture, mean, spread)


def _forced(mixture: LinearMixture, mean: Array, spread: Array) -> LinearMixture:
    touched = mixture.touched
    return replace(
        mixture,
        value=np.where(touched, mean, 0.0),
        spread=np.where(touched, np.maximum(spread, mixture.network.narrowest), 1.0),
    )


def _relearn(data: LinearRows, mixture: LinearMixture, seen: list[Moments]) -> LinearMixture:
    """Fit the equations too: rows that left a node alone share its intercept, shifted ones its slopes."""
    assert data.base is not None
    network, touched = mixture.network, mixture.touched
    intercept, coefficient, sd = (
        np.empty_like(network.sd),
        np.zeros_like(network.coefficient),
        network.sd.copy(),
    )
    value = np.zeros_like(mixture.value)
    for i, above in enumerate(network.parents):
        pooled = data.base
        for k in np.flatnonzero(~touched[:, i]):
            pooled = pooled + seen[k]
        scatter, n = pooled.scatter, pooled.n
        if data.kind == "shift":
            for k in np.flatnonzero(touched[:, i]):
                scatter, n = scatter + seen[k].scatter, n + seen[k].n
        slope, left = regress(scatter, i, above)
        coefficient[i, list(above)] = slope
        sd[i] = np.sqrt(left / n)
        intercept[i] = pooled.mean[i] - pooled.mean @ coefficient[i]
        for k in np.flatnonzero(touched[:, i]):
            value[k, i] = seen[k].mean[i] - seen[k].mean @ coefficient[i] - intercept[i]
    learnt = replace(network, intercept=intercept, coefficient=coefficient, sd=sd)
    changed = replace(mixture, network=learnt)
    if data.kind == "shift":
        return replace(changed, value=value)
    mean = np.array([m.mean for m in seen])
    spread = np.array([np.sqrt(np.maximum(np.diag(m.scatter), 0.0) / max(m.n, 1e-9)) for m in seen])
    return _forced(changed, mean, spread)


def refit(
    data: LinearRows, start: LinearMixture, steps: int = MAX_STEPS, tolerance: float = TOLERANCE
) -> LinearMixture:
    """Climb the likelihood by accelerated EM (SQUAREM); the targets stay as they are."""
    state = start
    for _ in range(steps // 3 + 1):
        one = em_step(data, state)
        two = em_step(data, one)
        if two.log_likelihood - one.log_likelihood < tolerance:
            state = two
            break
        state = _leap(data, state, one, two)
    return replace(state, log_likelihood=memberships(data, state)[1])


def _vector(mixture: LinearMixture) -> Array:
    network = mixture.network
    edges = np.concatenate([network.coefficient[i, list(p)] for i, p in enumerate(network.parents)])
    spread = np.log(mixture.spread[mixture.touched])
    parts = [np.log(np.maximum(mixture.weight, 1e-12)), mixture.value[mixture.touched], spread]
    return np.concatenate([*parts, network.intercept, np.log(network.sd), edges])


def _from_vector(mixture: LinearMixture, vector: Array) -> LinearMixture:
    network, at = mixture.network, 0
    sizes = [len(mixture.weight), *([int(mixture.touched.sum())] * 2), *([len(network.sd)] * 2)]
    parts = []
    for size in sizes:
        parts.append(vector[at : at + size])
        at += size
    coefficient = np.zeros_like(network.coefficient)
    for i, above in enumerate(network.parents):
        coefficient[i, list(above)] = vector[at : at + len(above)]
        at += len(above)
    weight = np.exp(parts[0] - parts[0].max())
    value, spread = np.zeros_like(mixture.value), np.ones_like(mixture.spread)
    value[mixture.touched] = parts[1]
    sd = np.exp(parts[4])
    spread[mixture.touched] = np.exp(parts[2])
    spread = np.where(mixture.touched, np.maximum(spread, network.narrowest), 1.0)
    learnt = replace(network, intercept=parts[3], coefficient=coefficient, sd=sd)
    return replace(mixture, network=learnt, weight=weight / weight.sum(), value=value, spread=spread)


def _leap(data: LinearRows, state: LinearMixture, one: LinearMixture, two: LinearMixture) -> LinearMixture:
    """Leap along the last two EM steps; the second step itself if the leap is worse."""
    points = [_vector(m) for m in (state, one, two)]
    r = points[1] - points[0]
    v = points[2] - points[1] - r
    length = float(np.linalg.norm(v))
    leap = -float(np.linalg.norm(r)) / length if length > 0 else -1.0
    if leap > -1.0:
        return two
    leap = max(leap, -64.0)
    tried = em_step(data, _from_vector(two, points[0] - 2 * leap * r + leap**2 * v))
    return tried if tried.log_likelihood >= two.log_likelihood else two
