"""A graph with one more edge of known strength: maximum likelihood of the rest, and its errors. NumPy, SciPy.

The larger model's free parameters are those of the smaller one, each repeated over the levels of the
new parent, plus a known offset.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.coefficients import refuse_linear
from pymc_mte.errors import ModelError
from pymc_mte.functionals import functionals
from pymc_mte.identify.jacobian import TOLERANCE, Spectrum, all_cells
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.em import em, random_starts
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.scores import (
    Scores,
    from_free,
    gradient,
    information,
    inverse_information,
    to_free,
)
from pymc_mte.network import cell_columns, log_joint, log_sum_classes
from pymc_mte.results import labels

Array = NDArray[np.float64]

ANSWERS = ("ate", "att", "effect", "class_weight")

FARTHEST = 12.0
"""Longest move of a free parameter: beyond, probabilities are 0 or 1 for any purpose."""

N_RANDOM, WARM_UP = 2, 30
"""Random starts that look for other optima, and the steps of EM that each takes first."""

GAIN = 1e-6
"""Another optimum is better if it gains this much log-likelihood per row."""

CHILDREN = ("bernoulli", "normal", "student_t")
"""Families that a shift is defined for: log-odds, or standard deviations of the child."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Answers under one fixed shift.

    Attributes
    ----------
    value : ndarray of shape (answers,)
        Maximum-likelihood estimates, in the order of `ExtraEdge.answers`.
    error : ndarray of shape (answers,)
        Standard errors (sandwich, by cluster if there are any); infinite where the likelihood does
        not fix the answer.
    log_likelihood : float
        At the estimates.
    inflation : float
        Variance of a score, relative to that of independent rows of equal weight.
    free : ndarray of shape (n_free,)
        The smaller model's free parameters.
    """

    value: Array
    error: Array
    log_likelihood: float
    inflation: float
    free: Array


class ExtraEdge:
    """The graph with one more edge whose strength is fixed.

    Parameters
    ----------
    problem : Problem
        The data and the graph without the edge.
    parent, child : str
        The edge.
    """

    def __init__(self, problem: Problem, parent: str, child: str) -> None:
        self.problem, self.parent, self.child = problem, parent, child
        model = problem.model
        var = model.variables[child]
        fields = {n: getattr(model, n) for n in type(model).model_fields}
        wider = var.model_copy(update={"parents": (*var.parents, parent)})
        # Roles are promises about edges, and this one breaks them.
        fields |= {"treatment_proxies": (), "outcome_proxies": (), "truth": None}
        self.model = CausalModel(**fields | {"variables": model.variables | {child: wider}})
        self.by_arm = str(model.treatment) in var.parents
        self.n_shifts = len(model.arms) if self.by_arm else 1
        self.answers = [(name, *entry) for name in ANSWERS for entry in labels(model, name)]
        self._scores = Scores(self.model, problem.columns)
        self._collect = np.eye(int(self.source.max()) + 1)[self.source]

    @cached_property
    def source(self) -> NDArray[np.int64]:
        """Place in the smaller model's free vector of every entry of the larger one's."""
        parts, start = [], 0
        for name in self.problem.model.dims:
            inner = self.problem.model.free_shape(name)
            place = start + np.arange(int(np.prod(inner))).reshape(inner)
            start += place.size
            dims = self.model.dims[name]
            if self.model.owners.get(name, ("",))[0] == self.child and self.parent in dims:
                axis = dims.index(self.parent)
                place = np.repeat(np.expand_dims(place, axis), self.model.size(self.parent), axis=axis)
            parts.append(place.ravel())
        return np.concatenate(parts)

    def offset(self, shift: Array) -> Array:
        """Known part of the larger model's free vector under a shift (one per arm, or one)."""
        counts, column = self.problem.counts, np.asarray(self.problem.columns[self.parent])
        levels = np.arange(self.model.size(self.parent), dtype=float)
        share = np.bincount(column, weights=counts, minlength=len(levels)) / counts.sum()
        spread = np.sqrt(share @ (levels - share @ levels) ** 2)
        step = (levels - share @ levels) / (spread if spread > 0 else 1.0)
        target = "p" if self.model.variables[self.child].discrete else "mean"
        unit = 1.0 if target == "p" else self._sd(self.child)
        parts = []
        for name in self.model.dims:
            part = np.zeros(self.model.free_shape(name))
            if name == f"{target}_{self.child}":
                dims = self.model.dims[name]
                step_axis = [1] * part.ndim
                step_axis[dims.index(self.parent)] = len(step)
                amount = np.asarray(shift, dtype=float)
                if self.by_arm:
                    arms = [1] * part.ndim
                    arms[dims.index(str(self.model.treatment))] = self.n_shifts
                    amount = amount.reshape(arms)
                part = part + unit * amount * step.reshape(step_axis)
            parts.append(part.ravel())
        return np.concatenate(parts)

    def _sd(self, variable: str) -> float:
        share = self.problem.counts / self.problem.counts.sum()
        value = np.asarray(self.problem.columns[variable], dtype=float)
        return float(np.sqrt(share @ (value - share @ value) ** 2)) or 1.0

    def limits(self) -> Array:
        """Smallest and largest value that each answer can take: (answers, 2)."""
        model, y = self.model, str(self.model.outcome)
        values = self.problem.outcome
        var = model.variables[y]
        width = float(values.max() - values.min()) or 1.0
        if var.discrete:
            width = float(var.trials or model.size(y) - 1)
        return np.array([[0.0, 1.0] if n == "class_weight" else [-width, width] for n, *_ in self.answers])

    def start(self, parameters: Parameters) -> Array:
        """Free vector of the smaller model's parameters (batch axis of length 1)."""
        return np.asarray(to_free(self.problem.model, parameters)[0])

    def starts(self, base: Array, corners: Sequence[Array]) -> list[Array]:
        """Join to the base any better optimum that random starts find at a corner, its classes matched."""
        problem, found = self.problem, [base]
        if problem.model.classes == 1:
            return found
        counts = np.repeat(problem.counts[None], N_RANDOM, axis=0)
        drawn = random_starts(problem.model, problem.columns, counts, np.random.default_rng(problem.seed))
        warm = em(problem.model, problem.columns, counts, drawn, max_iterations=WARM_UP).parameters
        for corner in corners:
            best = max(self.climb(start, corner)[1] for start in found)
            for start in to_free(problem.model, warm):
                free, reached = self.climb(start, corner)
                if reached > best + GAIN * problem.counts.sum():
                    best = reached
                    found.append(self._matched(free, base))
        return found

    def _matched(self, free: Array, base: Array) -> Array:
        """Give the classes of a free vector the order of the base's."""
        model = self.problem.model
        both = from_free(model, np.stack([free, base]))
        profile = []
        for name, value in both.items():
            kind = model.kind(name)
            if model.dims[name][:1] == ("class",) and kind.scope in ("table", "location"):
                unit = self._sd(model.owners[name][0]) if kind.in_units else 1.0
                profile.append(value.reshape(2, model.classes, -1) / unit)
        joined = np.concatenate(profile, axis=-1)
        order = match_classes(joined[:1], joined[1])[0]
        moved = {
            name: take_classes(value[:1], order, 1) if model.dims[name][:1] == ("class",) else value[:1]
            for name, value in both.items()
        }
        return self.start(moved)

    def climb(self, start: Array, shift: Array) -> tuple[Array, float]:
        """Maximise the likelihood from a free vector, the shift held fixed; where, and how high."""
        model, counts = self.model, self.problem.counts
        total, offset = counts.sum(), self.offset(shift)

        def parameters(free: Array) -> Parameters:
            return from_free(model, (free[self.source] + offset)[None])

        # Coordinates in which the information is about the identity: a few dozen steps then do.
        score = self._scores.by_pattern(parameters(start)) @ self._collect
        value, vector = np.linalg.eigh(inverse_information(information(score, counts)) * total)
        half = vector * np.sqrt(np.maximum(value, 1e-12))

        def loss(step: Array) -> tuple[float, Array]:
            move = half @ step
            now = parameters(start + np.clip(move, -FARTHEST, FARTHEST))
            found = counts @ log_sum_classes(log_joint(model, now, self.problem.columns))[0]
            slope = self._scores.total(now, counts[None])[0] @ self._collect
            slope = np.where(np.abs(move) < FARTHEST, slope, 0.0)
            return -float(found) / total, -(slope @ half) / total

        result = optimize.minimize(
            loss,
            np.zeros(half.shape[1]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 500, "gtol": 1e-9, "ftol": 1e-12},
        )
        return start + np.clip(half @ result.x, -FARTHEST, FARTHEST), -float(result.fun * total)

    def fit(self, starts: Sequence[Array], shift: Array) -> Fit:
        """Answers at the best optimum that is reached from the starts."""
        free, reached = max((self.climb(start, shift) for start in starts), key=lambda found: found[1])
        answer = from_free(self.model, (free[self.source] + self.offset(shift))[None])
        values = self._answers(answer)
        # Scores end where probabilities do.
        point = from_free(self.model, to_free(self.model, answer))
        slopes = gradient(self.model, point, self._answers)
        slope = np.concatenate([slopes[n].reshape(-1, len(self.source)) for n in ANSWERS]) @ self._collect
        error, inflation = self._errors(point, slope)
        return Fit(
            value=np.concatenate([np.ravel(values[n]) for n in ANSWERS]),
            error=error,
            log_likelihood=reached,
            inflation=inflation,
            free=free,
        )

    def _answers(self, parameters: Parameters) -> dict[str, Array]:
        found = functionals(self.model, parameters) | {"class_weight": parameters["class_weight"]}
        return {name: found[name] for name in ANSWERS}

    def _errors(self, point: Parameters, slope: Array) -> tuple[Array, float]:
        """Sandwich errors: the model's information around the scores' variance over rows or clusters."""
        sampling, counts = self.problem.sampling, self.problem.counts
        score = self._scores.by_pattern(point) @ self._collect
        found = self._spectrum(point, score)
        known = found.vector[: found.rank].T / found.value[: found.rank]
        standard = (score / found.scale) @ known  # of variance 1 per row, where the model is right
        if sampling.cluster is None:
            unit = np.sqrt(counts * (1.0 if sampling.weight is None else sampling.weight))[:, None] * standard
        else:
            unit = np.zeros((int(sampling.cluster.max()) + 1, found.rank))
            np.add.at(unit, sampling.cluster, counts[:, None] * standard)
        spread = unit.T @ unit / counts.sum()
        along = (slope / found.scale) @ known
        variance = np.einsum("ai,ij,aj->a", along, spread, along) / counts.sum()
        error = np.where(np.isfinite(found.error(slope)), np.sqrt(np.maximum(variance, 0.0)), np.inf)
        return error, 1.0 if sampling.simple else float(np.trace(spread) / found.rank)

    def _spectrum(self, point: Parameters, score: Array) -> Spectrum:
        """Decompose the free parameters' Jacobian over all cells; over the data where these are too many."""
        weight = np.sqrt(self.problem.counts / self.problem.counts.sum())
        if all_cells(self.model):
            columns = cell_columns(self.model)
            weight = np.exp(0.5 * log_sum_classes(log_joint(self.model, point, columns))[0])
            score = Scores(self.model, columns).by_pattern(point) @ self._collect
        weighted = weight[:, None] * score
        scale = np.linalg.norm(weighted, axis=0)
        scale = np.where(scale > 1e-12, scale, 1.0)
        triangle = np.linalg.qr(weighted / scale, mode="r")
        _, found, vector = np.linalg.svd(triangle, full_matrices=True)
        value = np.zeros(len(scale))
        value[: len(found)] = found
        rank = int((value > TOLERANCE * value.max(initial=0.0)).sum())
        return Spectrum(scale=scale, value=value, vector=vector, rank=rank)


def check_edge(model: CausalModel, edge: Sequence[str]) -> tuple[str, str]:
    """Refuse edges that are there already, close a cycle, or have no shift defined for them."""
    if isinstance(edge, str) or len(edge) != 2:
        raise ModelError(f"edge: name a parent and a child, as in ('x', 'y'); got {edge!r}")
    parent, child = edge
    for name in edge:
        if name not in model.variables:
            raise ModelError(
                f"edge: {name!r} is not a variable of this model; it has {list(model.variables)}"
            )
    if parent == child:
        raise ModelError(f"edge: {parent!r} cannot cause itself; name two variables")
    if model.treatment is None:
        raise ModelError("sensitivity needs a treatment and an outcome; name both in the model")
    refuse_linear(model, "sensitivity")
    if parent in model.variables[child].parents:
        raise ModelError(f"edge: {parent} -> {child} is in the graph already; name one that is not")
    if not model.variables[parent].discrete:
        raise ModelError(f"edge: {parent!r} is continuous; cut it into levels to let it be a parent")
    family = model.variables[child].family
    if family not in CHILDREN:
        raise ModelError(f"edge: {child!r} is {family}; a shift is defined for {', '.join(CHILDREN)}")
    return parent, child
