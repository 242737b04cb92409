"""Linear Gaussian networks under shift interventions: targets, shifts and shares by EM."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

MAX_STEPS, TOLERANCE = 300, 1e-4
"""EM stops after this many steps, or when a step gains fewer nats."""

STARTS, START_ROWS, START_STEPS = 12, 4_000, 60
"""Random starts per number of components, each tried on some of the rows for some steps."""

CLEARLY_ZERO = 2.0
"""Shifts below this many standard errors are set to 0 together before the others are tried singly."""

PATIENCE = 2
"""The search stops when this many more components have not lowered the criterion."""


@dataclass(frozen=True, kw_only=True)
class LinearNetwork:
    """Linear structural equations with independent normal errors.

    Attributes
    ----------
    parents : tuple of tuple of int
        Parents of every node, all smaller than the node.
    intercept : ndarray of shape (nodes,)
        In the units of the node.
    coefficient : ndarray of shape (nodes, nodes)
        Entry (i, j): change of node i per unit of its parent j; 0 where there is no edge.
    sd : ndarray of shape (nodes,)
        Standard deviation of the errors.
    base_rows : float
        Rows that the equations were learnt from; infinite where they are known.
    """

    parents: tuple[tuple[int, ...], ...]
    intercept: Array
    coefficient: Array
    sd: Array
    base_rows: float = np.inf

    def residuals(self, rows: Array) -> Array:
        """Errors in standard deviations: independent standard normals in the untouched system."""
        return np.asarray((rows - self.intercept - rows @ self.coefficient.T) / self.sd)


@dataclass(frozen=True, kw_only=True)
class ShiftMixture:
    """Components that shift the equations of some nodes by a constant.

    Attributes
    ----------
    weight : ndarray of shape (components,)
        Sum 1, descending.
    shift : ndarray of shape (components, nodes)
        Shifts in error standard deviations; exactly 0 at nodes that are left alone.
    log_likelihood : float
        Of the standardised errors, in nats.
    criterion : float
        BIC: lower is better; every shift that is not 0 counts as a parameter.
    price : float
        What a parameter costs in it: log(rows), times 1 + rows / base rows, since errors of the learnt
        equations look like shifts.
    """

    weight: Array
    shift: Array
    log_likelihood: float
    criterion: float
    price: float

    @property
    def targets(self) -> Flags:
        """Which nodes each component shifts: (components, nodes)."""
        return np.asarray(self.shift != 0)


def learn_linear(parents: Sequence[tuple[int, ...]], rows: Array) -> LinearNetwork:
    """Learn the equations from rows of the untouched system, by least squares.

    Parameters
    ----------
    parents : sequence of tuple of int
        The known graph, nodes in topological order.
    rows : ndarray of shape (rows, nodes)
        Values in the nodes' units.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> a = rng.normal(size=1_000)
    >>> found = learn_linear([(), (0,)], np.column_stack([a, 2 * a + rng.normal(size=1_000)]))
    >>> found.coefficient.round(1).tolist()
    [[0.0, 0.0], [2.0, 0.0]]
    """
    nodes = len(parents)
    intercept, sd, coefficient = np.zeros(nodes), np.ones(nodes), np.zeros((nodes, nodes))
    for node, above in enumerate(parents):
        design = np.column_stack([np.ones(len(rows)), rows[:, list(above)]])
        found = np.linalg.lstsq(design, rows[:, node])[0]
        error = rows[:, node] - design @ found
        intercept[node], coefficient[node, list(above)] = found[0], found[1:]
        sd[node] = np.sqrt(error @ error / (len(rows) - design.shape[1]))
    return LinearNetwork(
        parents=tuple(parents), intercept=intercept, coefficient=coefficient, sd=sd, base_rows=len(rows)
    )


def unmix_shifts(
    network: LinearNetwork, rows: Array, rng: np.random.Generator, max_components: int = 12
) -> ShiftMixture:
    """Find the components of a mixture of shift interventions.

    Standardised errors are a mixture of normals with unit covariance and sparse means. For each
    number of components EM runs from several starts; shifts are then set to 0 one by one as long as
    BIC falls, and the number of components with the lowest BIC is returned.

    Parameters
    ----------
    network : LinearNetwork
        The untouched network.
    rows : ndarray of shape (rows, nodes)
        The mixture's rows.
    rng : numpy.random.Generator
        Source of the starts.
    max_components : int
        Most components tried.
    """
    z = network.residuals(rows)
    price = float(np.log(len(rows)) * (1 + len(rows) / network.base_rows))
    best: ShiftMixture | None = None
    for components in range(1, max_components + 1):
        found = _sparse(z, _best_start(z, components, price, rng))
        if best is None or found.criterion < best.criterion:
            best, last = found, components
        elif components - last >= PATIENCE:
            break
    assert best is not None
    order = np.argsort(-best.weight, kind="stable")
    return replace(best, weight=best.weight[order], shift=best.shift[order])


def refit_shifts(z: Array, start: ShiftMixture, steps: int = MAX_STEPS) -> ShiftMixture:
    """Run accelerated EM on standardised errors from a given mixture; shifts that are 0 stay 0."""
    free = start.targets
    state = _step(z, start.weight, start.shift, free)
    for _ in range(steps):
        one = _step(z, state.weight, state.shift, free)
        two = _step(z, one.weight, one.shift, free)
        if two.value - one.value < TOLERANCE:
            state = two
            break
        state = _extrapolate(z, state, one, two, free)
    value = _step(z, state.weight, state.shift, free).value
    criterion = float((len(state.weight) - 1 + free.sum()) * start.price - 2 * value)
    return replace(start, weight=state.weight, shift=state.shift, log_likelihood=value, criterion=criterion)


@dataclass(frozen=True, kw_only=True)
class _State:
    """Parameters after an EM step, and the log-likelihood of those before it."""

    weight: Array
    shift: Array
    value: float


def _step(z: Array, weight: Array, shift: Array, free: Flags) -> _State:
    log_p = z @ shift.T + (np.log(np.maximum(weight, 1e-300)) - 0.5 * (shift**2).sum(axis=1))
    top = log_p.max(axis=1)
    member = np.exp(log_p - top[:, None])
    total = member.sum(axis=1)
    member /= total[:, None]
    constant = -0.5 * float((z**2).sum()) - 0.5 * z.size * np.log(2 * np.pi)
    mass = member.sum(axis=0)
    found = np.where(free, member.T @ z / np.maximum(mass, 1e-9)[:, None], 0.0)
    return _State(weight=mass / len(z), shift=found, value=float((np.log(total) + top).sum()) + constant)


def _extrapolate(z: Array, state: _State, one: _State, two: _State, free: Flags) -> _State:
    """Leap along the last two EM steps (SQUAREM); the second step itself if the leap is worse."""
    points = [np.concatenate([s.weight, s.shift.ravel()]) for s in (state, one, two)]
    r = points[1] - points[0]
    v = points[2] - points[1] - r
    length = float(np.linalg.norm(v))
    leap = -float(np.linalg.norm(r)) / length if length > 0 else -1.0
    if leap > -1.0:
        return two
    point = points[0] - 2 * leap * r + leap**2 * v
    weight = np.maximum(point[: len(state.weight)], 1e-6)
    shift = point[len(weight) :].reshape(state.shift.shape)
    tried = _step(z, weight / weight.sum(), shift, free)
    return tried if tried.value >= two.value else two


def _best_start(z: Array, components: int, price: float, rng: np.random.Generator) -> ShiftMixture:
    """Fit unrestricted shifts; starts are rows far from each other, one component starts untouched."""
    best: ShiftMixture | None = None
    some = z[rng.permutation(len(z))[:START_ROWS]]
    for _ in range(STARTS if components > 1 else 1):
        centres = [np.zeros(z.shape[1])]
        for _ in range(components - 1):
            near = np.min([((some - c) ** 2).sum(axis=1) for c in centres], axis=0)
            centres.append(some[rng.choice(len(some), p=near / near.sum())])
        shift = np.array(centres) + 1e-6  # not exactly 0: all shifts are free
        weight = np.full(components, 1 / components)
        start = ShiftMixture(
            weight=weight, shift=shift, log_likelihood=-np.inf, criterion=np.inf, price=price
        )
        found = refit_shifts(some, start, START_STEPS)
        if best is None or found.log_likelihood > best.log_likelihood:
            best = found
    assert best is not None
    return refit_shifts(z, best)


def _sparse(z: Array, mixture: ShiftMixture) -> ShiftMixture:
    """Set shifts to 0, smallest in standard errors first, as long as the criterion falls."""
    size = np.abs(mixture.shift) * np.sqrt(mixture.weight * len(z))[:, None]
    tried = refit_shifts(z, replace(mixture, shift=np.where(size < CLEARLY_ZERO, 0.0, mixture.shift)))
    mixture = tried if tried.criterion < mixture.criterion else mixture
    while mixture.targets.any():
        size = np.abs(mixture.shift) * np.sqrt(mixture.weight * len(z))[:, None]
        place = np.unravel_index(np.argmin(np.where(mixture.targets, size, np.inf)), size.shape)
        shift = mixture.shift.copy()
        shift[place] = 0.0
        tried = refit_shifts(z, replace(mixture, shift=shift))
        if tried.criterion >= mixture.criterion:
            return mixture
        mixture = tried
    return mixture


def bootstrap_shifts(
    base_rows: Array,
    parents: Sequence[tuple[int, ...]],
    rows: Array,
    mixture: ShiftMixture,
    n_boot: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Resample base and mixture rows; the targets stay as found.

    Returns
    -------
    weight : ndarray of shape (n_boot, components)
    shift : ndarray of shape (n_boot, components, nodes)
    """
    weights, shifts = [], []
    for _ in range(n_boot):
        learnt = learn_linear(parents, base_rows[rng.integers(len(base_rows), size=len(base_rows))])
        z = learnt.residuals(rows[rng.integers(len(rows), size=len(rows))])
        found = refit_shifts(z, mixture)
        weights.append(found.weight)
        shifts.append(found.shift)
    return np.array(weights), np.array(shifts)


def missing_edge(network: LinearNetwork, rows: Array) -> tuple[int, int, float]:
    """Test the graph on rows of the untouched system: errors must not depend on earlier nodes.

    Parameters
    ----------
    network : LinearNetwork
        Learnt from these rows.
    rows : ndarray of shape (rows, nodes)
        Values in the nodes' units.

    Returns
    -------
    tuple of (int, int, float)
        The pair of nodes (earlier, later) without an edge that is most correlated, and its p-value,
        corrected for all pairs (Bonferroni); (-1, -1, 1.0) if every pair has an edge.
    """
    z = network.residuals(rows)
    worst, pairs = (-1, -1, 1.0), 0
    for later, above in enumerate(network.parents):
        for earlier in (j for j in range(later) if j not in above):
            pairs += 1
            r = float(np.corrcoef(z[:, earlier], z[:, later])[0, 1])
            p = 2 * float(stats.norm.sf(abs(np.arctanh(r)) * np.sqrt(len(z) - 3)))
            if p < worst[2]:
                worst = (earlier, later, p)
    return (*worst[:2], min(1.0, worst[2] * max(pairs, 1)))
