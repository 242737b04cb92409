"""Walks along the parameters that fit the data, uphill in a functional. NumPy only.

Probabilities enter as squares of coordinates on a sphere: there the likelihood is smooth up to and
including the boundary, where many extremes lie, and one step length suits all tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import responsibilities
from pymc_mte.network import log_joint, log_sum_classes

Array = NDArray[np.float64]
Answers = Callable[[Parameters], Array]

SMALL = 1e-6
"""Coordinates stay above this, hence probabilities above its square."""

STEP = 1e-5
"""Half-width of the central differences of functionals."""

RADIUS, MIN_RADIUS, MAX_RADIUS = 0.1, 1e-4, 1.0
"""Trust radius of a step, in radians: at the start, at the end of a walk, at most."""

CORRECTIONS = 3
"""Scoring steps that bring a point back to the data after a step along the tangent."""

SLACK_USED = 0.9
"""Share of the slack in the log-likelihood that one step plans to use."""

MAX_MOVE = 0.5
"""Longest move of one coordinate in one step."""

PATIENCE, LEAST_GAIN = 10, 1e-5
"""A walk stops when so many steps gained less than this."""


@dataclass(frozen=True, slots=True)
class Block:
    """Place of one parameter among the coordinates, and what every pattern adds to it."""

    name: str
    place: slice
    shape: tuple[int, ...]
    binomial: bool
    member: Array


class Sphere:
    """Coordinates of a discrete model's parameters, and the likelihood of counts in them.

    Parameters
    ----------
    model : CausalModel
        Discrete variables only.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (patterns,)
        Rows per pattern; any positive total.
    drop : float
        Units of log-likelihood that may be lost against ``top``, the maximum, which the caller sets
        (infinite until then).
    """

    def __init__(
        self, model: CausalModel, columns: Mapping[str, NDArray[Any]], counts: Array, drop: float
    ) -> None:
        self.model, self.columns, self.counts, self.drop = model, columns, counts, drop
        self.top = np.inf
        self.blocks: list[Block] = []
        place, k = 0, model.classes
        for name in model.dims:
            width = k if name == "class_weight" else 1
            if name != "class_weight":
                variable = model.owners[name][0]
                var = model.variables[variable]
                rows = int(np.prod([model.size(p) for p in var.parents]))
                width = 2 if var.trials is not None else model.size(variable)
                shape = (k if var.latent else 1, rows, width)
                member = _member(model, variable, columns, rows, width)
                binomial = var.trials is not None
            else:
                shape, member, binomial = (1, 1, k), np.zeros(0), False
            size = int(np.prod(shape))
            self.blocks.append(Block(name, slice(place, place + size), shape, binomial, member))
            place += size
        self.size = place

    def coordinates(self, parameters: Parameters) -> Array:
        """Flatten parameters with one batch axis: (batch, size)."""
        parts = []
        for block in self.blocks:
            value = parameters[block.name]
            if block.binomial:
                value = np.stack([1 - value, value], axis=-1)
            parts.append(np.sqrt(value).reshape(len(value), -1))
        return self.normalised(np.concatenate(parts, axis=1))

    def normalised(self, v: Array) -> Array:
        """Bring coordinates back to the positive part of the sphere of every table row."""
        out = np.empty_like(v)
        for block in self.blocks:
            part = np.maximum(np.abs(v[:, block.place]), SMALL).reshape(len(v), *block.shape)
            part = part / np.linalg.norm(part, axis=-1, keepdims=True)
            out[:, block.place] = part.reshape(v[:, block.place].shape)
        return out

    def parameters(self, v: Array) -> Parameters:
        """Parameters at coordinates of any length (batch, size)."""
        out: Parameters = {}
        for block in self.blocks:
            square = np.square(v[:, block.place]).reshape(len(v), *block.shape)
            p = square / square.sum(axis=-1, keepdims=True)
            p = p[..., 1] if block.binomial else p
            out[block.name] = p.reshape(len(v), *self.model.shapes[block.name])
        return out

    def log_likelihood(self, v: Array) -> Array:
        """Log-likelihood of the counts: (batch,)."""
        log_p = log_sum_classes(log_joint(self.model, self.parameters(v), self.columns))
        return np.asarray(log_p @ self.counts)

    def slope(self, v: Array) -> tuple[Array, Array, Array]:
        """Log-likelihood, score (batch, size) and information (batch, size, size) of the counts."""
        parameters = self.parameters(v)
        log_p = log_joint(self.model, parameters, self.columns)
        share = responsibilities(log_p)
        each = np.empty((len(v), len(self.counts), self.size))
        for block in self.blocks:
            each[..., block.place] = _scores(block, share, v)
        score = np.einsum("bms,m->bs", each, self.counts)
        scaled = each * np.sqrt(self.counts)[:, None]
        return (
            log_sum_classes(log_p) @ self.counts,
            score,
            np.swapaxes(scaled, 1, 2) @ scaled,
        )

    def climbed(self, v: Array, radius: float | Array, steps: int) -> Array:
        """Bring points that are more than the drop below ``top`` inside by damped scoring steps."""
        ridge = np.broadcast_to(2 * self.drop / np.square(radius), len(v))
        v = v.copy()
        for _ in range(steps):
            below = self.top - self.log_likelihood(v)
            far = np.flatnonzero(below > self.drop)
            if not len(far):
                break
            _, score, information = self.slope(v[far])
            damped = information + ridge[far, None, None] * np.eye(self.size)
            move = np.linalg.solve(damped, score[..., None])[..., 0]
            offered = np.maximum((move * score).sum(axis=1), 1e-300)
            wanted = below[far] - SLACK_USED * self.drop
            share = 1 - np.sqrt(np.maximum(1 - 2 * wanted / offered, 0.0))
            v[far] = self.normalised(v[far] + np.clip(share[:, None] * move, -MAX_MOVE, MAX_MOVE))
        return v


def _member(
    model: CausalModel, variable: str, columns: Mapping[str, NDArray[Any]], rows: int, width: int
) -> Array:
    """Count the successes that every pattern adds to every entry: (pattern, row, entry)."""
    var = model.variables[variable]
    value = np.asarray(columns[variable])
    row = np.zeros(len(value), dtype=np.int64)
    for parent in var.parents:
        row = row * model.size(parent) + np.asarray(columns[parent])
    out = np.zeros((len(value), rows, width))
    seen = np.flatnonzero(value >= 0)
    if var.trials is not None:
        out[seen, row[seen], 1] = value[seen]
        out[seen, row[seen], 0] = var.trials - value[seen]
    else:
        out[seen, row[seen], value[seen]] = 1.0
    return out


def _scores(block: Block, share: Array, v: Array) -> Array:
    """Score of every pattern for one block, from P(class | pattern): (batch, pattern, block)."""
    part = v[:, block.place].reshape(len(v), *block.shape)
    p = np.square(part)  # the rows have unit length
    if block.name == "class_weight":
        score = np.swapaxes(share, 1, 2) - p.reshape(len(v), 1, -1)
        return np.asarray(2 * score / part.reshape(len(v), 1, -1))
    held = share if block.shape[0] > 1 else np.ones_like(share[:, :1])
    total = block.member.sum(axis=-1, keepdims=True)
    own = block.member[None, :, None] - total[None, :, None] * p[:, None]
    score = 2 * np.swapaxes(held, 1, 2)[..., None, None] * own / part[:, None]
    return np.asarray(score.reshape(len(v), len(block.member), -1))


def walk(
    sphere: Sphere, answers: Answers, start: Array, pick: NDArray[np.int64], sign: Array, steps: int
) -> Array:
    """Move every start uphill in its functional, inside the set that fits.

    Parameters
    ----------
    sphere : Sphere
        The set: less than ``drop`` below ``top``.
    answers : callable
        Functionals of parameters: (batch, functional).
    start : ndarray of shape (batch, size)
        Coordinates inside the set.
    pick, sign : ndarray of shape (batch,)
        Number of the functional of every walk, and +1 or -1 for up or down.
    steps : int
        Limit on steps.

    Returns
    -------
    ndarray of shape (2, functional)
        Lowest and highest value of every functional at all points that were reached.
    """
    v, radius = start.copy(), np.full(len(start), RADIUS)
    now = answers(sphere.parameters(v))
    extreme = np.stack([now.min(axis=0), now.max(axis=0)])
    active = np.arange(len(v))
    earlier = np.full(len(v), -np.inf)
    for turn in range(1, steps + 1):
        here, own, way = v[active], pick[active], sign[active]
        moved = _step(sphere, answers, here, own, way, radius[active])
        fits = sphere.top - sphere.log_likelihood(moved) <= sphere.drop
        value = answers(sphere.parameters(moved))
        if fits.any():
            extreme[0] = np.minimum(extreme[0], value[fits].min(axis=0))
            extreme[1] = np.maximum(extreme[1], value[fits].max(axis=0))
        order = np.arange(len(active))
        gain = way * (value[order, own] - now[active, own])
        good = fits & (gain > 0)
        v[active[good]], now[active[good]] = moved[good], value[good]
        radius[active] = np.where(good, np.minimum(2 * radius[active], MAX_RADIUS), radius[active] / 4)
        going = radius[active] > MIN_RADIUS
        if turn % PATIENCE == 0:
            height = way * now[active, own]
            going &= height - earlier[active] > LEAST_GAIN
            earlier[active] = height
        active = active[going]
        if not len(active):
            break
    return extreme


def _step(
    sphere: Sphere, answers: Answers, v: Array, pick: NDArray[np.int64], sign: Array, radius: Array
) -> Array:
    """Solve the step of the local quadratic model, and bring the end back to the data."""
    reached, score, information = sphere.slope(v)
    slope = sign[:, None] * _gradient(sphere, answers, v, pick)
    damped = information + (2 * sphere.drop / radius**2)[:, None, None] * np.eye(sphere.size)
    both = np.linalg.solve(damped, np.stack([slope, score], axis=-1))
    along, back = both[..., 0], both[..., 1]
    slack = np.maximum(sphere.drop - (sphere.top - reached), 0.0)
    room = 2 * SLACK_USED * slack + (back * score).sum(axis=1)
    length = np.sqrt(np.maximum(room, 0) / np.maximum((along * slope).sum(axis=1), 1e-300))
    move = length[:, None] * along + back
    return sphere.climbed(sphere.normalised(v + np.clip(move, -MAX_MOVE, MAX_MOVE)), radius, CORRECTIONS)


def _gradient(sphere: Sphere, answers: Answers, v: Array, pick: NDArray[np.int64]) -> Array:
    """Central differences of one functional per batch member: (batch, size)."""
    n, size = v.shape
    shift = STEP * np.eye(size)
    moved = np.concatenate([v[:, None] + shift, v[:, None] - shift], axis=1).reshape(-1, size)
    value = answers(sphere.parameters(moved)).reshape(n, 2, size, -1)
    own = value[np.arange(n), :, :, pick]
    return np.asarray((own[:, 0] - own[:, 1]) / (2 * STEP))
