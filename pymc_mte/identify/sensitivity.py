"""`sensitivity`: how the answers move when one forbidden edge is allowed with a stated strength."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from pymc_mte.data import resolve
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.functionals import functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.likelihood import ordered_fit
from pymc_mte.moments.problem import Problem, problem_of
from pymc_mte.moments.scores import (
    Scores,
    from_free,
    gradient,
    information,
    inverse_information,
    to_free,
)
from pymc_mte.network import log_joint, log_sum_classes
from pymc_mte.results import INTERVAL

Array = NDArray[np.float64]

REPORTED = ("ate", "att", "effect", "class_weight")
STEPS_PER_SIDE = 2
"""Strengths between zero and the stated one that are fitted, on each side, without arms."""

FARTHEST = 12.0
"""Longest move of a free parameter: beyond, probabilities are 0 or 1 for any purpose."""

CHILDREN = ("bernoulli", "normal", "student_t")
"""Families that a shift is defined for: log-odds, or standard deviations of the child."""


def sensitivity(
    model: CausalModel,
    data: Any = None,
    *,
    edge: tuple[str, str],
    strength: Sequence[float] = (0.0, 0.25, 0.5),
) -> pd.DataFrame:
    """Bound the answers while one edge that the graph forbids is allowed.

    The edge shifts its child by at most ``strength``: in log-odds for a binary child, in pooled
    standard deviations for a continuous one, per pooled standard deviation of the parent. A child
    that also depends on the treatment may be shifted by another amount, even another sign, in
    every arm. Each shift is held fixed while the rest of the model is fitted again by maximum
    likelihood.

    Parameters
    ----------
    model : CausalModel
        A model with treatment and outcome, whose graph lacks the edge.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    edge : tuple of str
        Parent and child. The parent must be discrete, the child bernoulli, normal or student_t.
    strength : sequence of float
        Largest shifts, not negative; 0 gives the answer of the graph as it is.

    Returns
    -------
    pandas.DataFrame
        Indexed by functional and strength. ``low``, ``high``: range of the estimates over all shifts
        up to the strength; ``low_90``, ``high_90``: the same with the sampling error of each added;
        ``posterior_mean``, ``posterior_low``, ``posterior_high``: shifts weighted by a Normal(0,
        strength / 2) prior and by how well they fit (normal approximation); ``misfit``: how much
        log-likelihood the best shift gains over none.

    Raises
    ------
    ModelError
        If the edge is in the graph already, closes a cycle, or joins variables of other families.

    Examples
    --------
    >>> from pymc_mte import load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> table = sensitivity(model, simulate(model, 2_000, rng=1), edge=("x", "y"), strength=[0, 0.5])
    >>> bool(table.loc[("ate", 0.5), "low"] <= table.loc[("ate", 0.0), "low"])
    True
    """
    wanted = sorted({float(s) for s in strength})
    if not wanted or wanted[0] < 0 or not np.isfinite(wanted).all():
        raise ModelError(f"strength must list finite numbers that are not negative, got {list(strength)}")
    model, table = resolve(model, data)
    if model.why_no_posterior is not None and (model.covariates or model.strata):
        raise RefusedError("sensitivity fits the graph's likelihood, which takes no covariates or strata yet")
    problem = problem_of(model, table)
    allowed = _Allowed(problem, *edge)
    base = ordered_fit(problem)
    fits = {shift: allowed.fit(base, np.array(shift)) for shift in _grid(wanted, allowed.n_shifts)}
    rows = [row for s in wanted for row in _rows(fits, s)]
    return pd.DataFrame(rows).set_index(["functional", "strength"]).sort_index(kind="stable")


def _grid(strengths: list[float], n_shifts: int) -> list[tuple[float, ...]]:
    """Shifts to fit, nearest to zero first: corners and centres of the boxes, nested over strengths."""
    found: set[tuple[float, ...]] = {(0.0,) * n_shifts}
    for s in strengths:
        side = [-s, 0.0, s] if n_shifts > 1 else list(np.linspace(-s, s, 2 * STEPS_PER_SIDE + 1))
        found |= {tuple(float(v) for v in shift) for shift in product(side, repeat=n_shifts)}
    return sorted(found, key=lambda shift: (max(map(abs, shift)), shift))


@dataclass(frozen=True, slots=True)
class _Fit:
    """Answers under one fixed shift."""

    values: dict[str, Array]
    errors: dict[str, Array]
    log_likelihood: float


class _Allowed:
    """The graph with one more edge whose strength is fixed.

    The larger model's free parameters are those of the smaller one, each repeated over the levels of
    the new parent, plus a known offset.
    """

    def __init__(self, problem: Problem, parent: str, child: str) -> None:
        self.problem, self.parent, self.child = problem, parent, child
        model = problem.model
        _check_edge(model, parent, child)
        var = model.variables[child]
        fields = {n: getattr(model, n) for n in type(model).model_fields}
        wider = var.model_copy(update={"parents": (*var.parents, parent)})
        # Roles are promises about edges, and this one breaks them.
        fields |= {"treatment_proxies": (), "outcome_proxies": (), "truth": None}
        self.model = CausalModel(**fields | {"variables": model.variables | {child: wider}})
        self.by_arm = str(model.treatment) in var.parents
        self.n_shifts = len(model.arms) if self.by_arm else 1
        self._scores = Scores(self.model, problem.columns)

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
        unit = 1.0 if target == "p" else self._child_sd()
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

    def _child_sd(self) -> float:
        share = self.problem.counts / self.problem.counts.sum()
        value = np.asarray(self.problem.columns[self.child], dtype=float)
        return float(np.sqrt(share @ (value - share @ value) ** 2)) or 1.0

    def fit(self, base: Parameters, shift: Array) -> _Fit:
        """Maximise the likelihood with the shift held fixed, from the smaller model's optimum."""
        model, counts = self.model, self.problem.counts
        total, offset = counts.sum(), self.offset(shift)
        collect = np.eye(int(self.source.max()) + 1)[self.source]
        start = to_free(self.problem.model, base)[0]

        def parameters(free: Array) -> Parameters:
            return from_free(model, (free[self.source] + offset)[None])

        def scores(free: Array) -> Array:
            return self._scores.by_pattern(parameters(free)) @ collect

        # Coordinates in which the information is about the identity: a few dozen steps then do.
        value, vector = np.linalg.eigh(inverse_information(information(scores(start), counts)) * total)
        half = vector * np.sqrt(np.maximum(value, 1e-12))

        def place(step: Array) -> Array:
            return np.asarray(start + np.clip(half @ step, -FARTHEST, FARTHEST))

        def loss(step: Array) -> tuple[float, Array]:
            now = parameters(place(step))
            found = counts @ log_sum_classes(log_joint(model, now, self.problem.columns))[0]
            slope = self._scores.total(now, counts[None])[0] @ collect
            return -float(found) / total, -(slope @ half) / total

        result = optimize.minimize(
            loss, np.zeros(half.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-9}
        )
        best = place(result.x)
        answer = parameters(best)
        spread = inverse_information(information(scores(best), counts))
        slopes = gradient(model, answer, self._answers)
        errors = {n: _standard_error(g @ collect, spread) for n, g in slopes.items()}
        values = {n: v[0] for n, v in self._answers(answer).items()}
        return _Fit(values, errors, -result.fun * total)

    def _answers(self, parameters: Parameters) -> dict[str, Array]:
        found = functionals(self.model, parameters) | {"class_weight": parameters["class_weight"]}
        return {name: found[name] for name in REPORTED}


def _standard_error(slope: Array, spread: Array) -> Array:
    return np.asarray(np.sqrt(np.maximum(np.einsum("...i,ij,...j->...", slope, spread, slope), 0.0)))


def _check_edge(model: CausalModel, parent: str, child: str) -> None:
    """Refuse edges that are there already, close a cycle, or have no shift defined for them."""
    for name in (parent, child):
        if name not in model.variables:
            raise ModelError(
                f"edge: {name!r} is not a variable of this model; it has {list(model.variables)}"
            )
    if model.treatment is None:
        raise ModelError("sensitivity needs a treatment and an outcome; name both in the model")
    if parent in model.variables[child].parents:
        raise ModelError(f"edge: {parent} -> {child} is in the graph already; name one that is not")
    if not model.variables[parent].discrete:
        raise ModelError(f"edge: {parent!r} is continuous; cut it into levels to let it be a parent")
    family = model.variables[child].family
    if family not in CHILDREN:
        raise ModelError(f"edge: {child!r} is {family}; a shift is defined for {', '.join(CHILDREN)}")


def _rows(fits: dict[tuple[float, ...], _Fit], strength: float) -> Iterable[dict[str, object]]:
    """One row per functional: the range over all shifts up to a strength."""
    inside = {s: f for s, f in fits.items() if max(map(abs, s)) <= strength + 1e-12}
    z = stats.norm.ppf(0.5 + INTERVAL / 2)
    scale = strength / 2 if strength > 0 else 1.0
    log_weight = np.array(
        [f.log_likelihood - 0.5 * sum((v / scale) ** 2 for v in s) for s, f in inside.items()]
    )
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    none = next(f for s, f in fits.items() if not any(s))
    gain = max(f.log_likelihood for f in inside.values()) - none.log_likelihood
    for name in REPORTED:
        for place in np.ndindex(none.values[name].shape):
            value = np.array([f.values[name][place] for f in inside.values()])
            error = np.array([f.errors[name][place] for f in inside.values()])
            low, high = _mixture_interval(value, error, weight)
            yield {
                "functional": name + "".join(f"[{i}]" for i in place),
                "strength": strength,
                "low": value.min(),
                "high": value.max(),
                "low_90": (value - z * error).min(),
                "high_90": (value + z * error).max(),
                "posterior_mean": float(weight @ value),
                "posterior_low": low,
                "posterior_high": high,
                "misfit": gain,
            }


def _mixture_interval(mean: Array, sd: Array, weight: Array) -> tuple[float, float]:
    """Equal-tailed interval of a mixture of normals."""
    sd = np.maximum(sd, 1e-12)
    ends = float((mean - 8 * sd).min()), float((mean + 8 * sd).max())

    def below(x: float) -> float:
        return float(weight @ stats.norm.cdf((x - mean) / sd))

    tail = (1 - INTERVAL) / 2
    low = optimize.brentq(lambda x: below(x) - tail, *ends)
    high = optimize.brentq(lambda x: below(x) - 1 + tail, *ends)
    return float(low), float(high)
