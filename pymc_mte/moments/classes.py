"""Mixtures without proxies: repeated draws, products and networks, solved on arrays. NumPy only."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pymc_mte.coefficients import refuse_linear
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.functionals import functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.coins import factorial_moments, solve_coins
from pymc_mte.moments.em import EMResult, em, start_from_classes
from pymc_mte.moments.likelihood import FLOOR, REPLICATE_TOLERANCE, refit
from pymc_mte.moments.methods import Values, class_profile, pooled_scales
from pymc_mte.moments.multistart import Optima, climb_from_many
from pymc_mte.moments.plan import Plan, plan
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.reassembly import Solution, again, solve
from pymc_mte.network import table_of

Array = NDArray[np.float64]
Kind = Literal["coins", "product", "network"]

COIN_FLOOR = 1e-3
"""Weights and coins of a resample start this far inside their ranges."""

METHODS_OF: dict[Kind, tuple[str, ...]] = {
    "coins": ("pencil", "prony", "polished"),
    "product": ("spectral", "polished"),
    "network": ("network", "unzip", "polished"),
}
"""Methods of each kind of mixture; ``polished`` climbs the likelihood from the others' answer."""


def lacks_proxies(model: CausalModel) -> bool:
    """Whether a model is a mixture without the roles that synthetic potential outcomes need."""
    if model.treatment is None:
        return True
    return model.classes > 1 and not model.treatment_proxies and not model.outcome_proxies


def kind_of(model: CausalModel) -> Kind:
    """Name the problem that a graph poses: one repeated draw, no edges, or a network."""
    if len(model.variables) == 1 and next(iter(model.variables.values())).trials is not None:
        return "coins"
    return "network" if any(var.parents for var in model.variables.values()) else "product"


def choose_class_method(model: CausalModel, method: str) -> str:
    """Resolve ``auto`` and refuse what the graph does not carry."""
    refuse_linear(model, "estimate without proxies")
    kind = kind_of(model)
    if method == "auto":
        return "polished"
    if method not in METHODS_OF[kind]:
        known = ", ".join(("auto", *METHODS_OF[kind]))
        words = {"coins": "one repeated draw", "product": "a graph without edges", "network": "a network"}
        raise ModelError(f"method {method!r} does not go with {words[kind]} without proxies; choose {known}")
    if method == "polished":
        return method
    if model.classes == 1:
        raise RefusedError(
            f"method {method!r} takes classes apart, and this model has classes = 1; use polished"
        )
    if model.continuous_variables:
        raise RefusedError(
            f"method {method!r} works on tables, and {model.continuous_variables[0]!r} is continuous; "
            "use polished"
        )
    if kind == "coins" and draws_of(model) < 2 * model.classes - 1:
        raise RefusedError(
            f"{draws_of(model)} draws per row give too few moments for {model.classes} classes, which need "
            f"{2 * model.classes - 1}; take more draws or fewer classes"
        )
    if kind != "coins" and not plan(model).families:
        raise RefusedError(f"method {method!r} is refused: {plan(model)}. Use method='polished'")
    return method


def draws_of(model: CausalModel) -> int:
    """Draws per row of a model of one repeated draw."""
    return int(next(iter(model.variables.values())).trials or 0)


@dataclass(frozen=True, kw_only=True)
class ClassProblem:
    """A mixture without proxies on one data set; its parts are solved once, when they are needed.

    Attributes
    ----------
    problem : Problem
        The data.
    rows : float
        Number of rows; infinite for a population table.
    """

    problem: Problem
    rows: float

    @property
    def model(self) -> CausalModel:
        """The graph."""
        return self.problem.model

    @cached_property
    def kind(self) -> Kind:
        """What the graph poses."""
        return kind_of(self.model)

    @cached_property
    def plan(self) -> Plan | None:
        """How moments take the network apart; None for repeated draws and single classes."""
        return plan(self.model) if self.kind != "coins" and self.model.classes > 1 else None

    @cached_property
    def solution(self) -> Solution | None:
        """The plan followed on the data."""
        if self.plan is None or not self.plan.families:
            return None
        return solve(self.plan, self.problem.columns, self.problem.counts, self.rows)

    @cached_property
    def moment_start(self) -> Parameters | None:
        """The moment answer moved inside the ranges and completed: where the climb starts."""
        found = self._moment_answer()
        if found is None or not np.isfinite(found["class_weight"]).all():
            return None
        weight = np.clip(found.pop("class_weight"), FLOOR, None)
        partial: Parameters = {"class_weight": weight / weight.sum(axis=1, keepdims=True)}
        for name, value in found.items():
            binomial = self.model.variables[self.model.owners[name][0]].trials is not None
            table = np.clip(
                np.nan_to_num(value, nan=0.5 if binomial else 1 / value.shape[-1]), FLOOR, 1 - FLOOR
            )
            partial[name] = table if binomial else table / table.sum(axis=-1, keepdims=True)
        if set(partial) == set(self.model.dims):
            return partial
        return start_from_classes(self.model, self.problem.columns, self.problem.counts[None], partial)

    def _moment_answer(self) -> Parameters | None:
        counts = self.problem.counts[None]
        if self.model.classes == 1:
            return None
        if self.kind == "coins":
            if draws_of(self.model) < 2 * self.model.classes - 1:
                return None
            return {n: v for n, v in self._coins(counts, "pencil").items() if n in self.model.dims}
        return None if self.solution is None else again(self.solution, self.problem.columns, counts)

    @cached_property
    def optima(self) -> Optima:
        """Optima of the likelihood."""
        return climb_from_many(self.problem, self.moment_start)

    def _refit(self, counts: Array) -> EMResult:
        """Maximum likelihood of resamples; of repeated draws also from their own moments.

        With few draws the likelihood is flat, and a climb from the point estimate would stop too early.
        """
        if len(counts) == 1 and np.array_equal(counts[0], self.problem.counts):
            found = self.optima
            return EMResult(
                parameters=found.parameters,
                log_likelihood=np.array([found.log_likelihood]),
                converged=np.array([found.converged]),
            )
        fitted = refit(self.problem, counts, self.optima.parameters)
        if self.kind != "coins" or draws_of(self.model) < 2 * self.model.classes - 1:
            return fitted
        solved = self._coins(counts, "pencil")
        name = f"p_{next(iter(self.model.variables))}"
        usable = (solved["complex_roots"] == 0) & np.isfinite(solved[name]).all(axis=1)
        start = {
            n: np.where(usable[:, None], solved[n], fitted.parameters[n]) for n in ("class_weight", name)
        }
        weight = np.clip(start["class_weight"], COIN_FLOOR, None)
        start["class_weight"] = weight / weight.sum(axis=1, keepdims=True)
        start[name] = np.clip(start[name], COIN_FLOOR, 1 - COIN_FLOOR)
        other = em(self.model, self.problem.columns, counts, start, tolerance=REPLICATE_TOLERANCE)
        better = other.log_likelihood > fitted.log_likelihood
        return EMResult(
            parameters={
                n: np.where(better[:, None], other.parameters[n], v) for n, v in fitted.parameters.items()
            },
            log_likelihood=np.maximum(other.log_likelihood, fitted.log_likelihood),
            converged=np.where(better, other.converged, fitted.converged),
        )

    def moments(self, counts: Array) -> Array:
        """Factorial moments of repeated draws, for a batch of counts."""
        name, n = next(iter(self.model.variables)), draws_of(self.model)
        table = np.zeros((len(counts), n + 1))
        np.add.at(table.T, np.asarray(self.problem.columns[name]), counts.T)
        return factorial_moments(table, min(n, 2 * self.model.classes))

    def _coins(self, counts: Array, roots: Literal["pencil", "prony"]) -> Values:
        solved = solve_coins(self.moments(counts), self.model.classes, roots)
        return {
            "class_weight": solved.weight,
            f"p_{next(iter(self.model.variables))}": solved.mean,
            "complex_roots": solved.complex_roots.astype(float),
            "singular": solved.singular.astype(float),
        }

    def values(self, method: str, counts: Array) -> Values:
        """Parameters, functionals and flags by one method, for a batch of counts."""
        model = self.model
        if method == "polished":
            fitted = self._refit(counts)
            values: Values = dict(fitted.parameters) | {"not_converged": (~fitted.converged).astype(float)}
        elif method in ("pencil", "prony"):
            values = self._coins(counts, "pencil" if method == "pencil" else "prony")
        elif self.solution is None:
            values = {n: np.full((len(counts), *s), np.nan) for n, s in model.shapes.items()}
            values["singular"] = np.ones(len(counts))
        else:
            values = dict(again(self.solution, self.problem.columns, counts, unzip=method == "unzip"))
        parameters = {n: v for n, v in values.items() if n in model.dims}
        if model.treatment is not None:
            values |= functionals(model, parameters)
        scales = pooled_scales(model, self.problem.columns, self.problem.counts)
        return values | {"profile": class_profile(model, parameters, scales)}


def separation(model: CausalModel, parameters: Parameters) -> dict[str, Array]:
    """Distance of the two classes that a discrete variable tells apart least: (batch,) per variable.

    Total variation distance, the largest over the levels of its parents.
    """
    out = {}
    for name in model.discrete_variables:
        if not model.variables[name].latent or model.classes == 1:
            continue
        table = table_of(model, name, parameters)
        table = table.reshape(*table.shape[:2], -1, table.shape[-1])
        gap = np.abs(table[:, :, None] - table[:, None, :]).sum(axis=-1).max(axis=-1) / 2
        out[name] = (gap + 9.0 * np.eye(model.classes)).min(axis=(1, 2))
    return out
