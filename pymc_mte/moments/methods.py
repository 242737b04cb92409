"""The moment methods on arrays: counts in, functionals per replicate out. NumPy only."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.functionals import effect_cdf, effect_grid, effects_from_classes, functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.bridge import solve_bridge
from pymc_mte.moments.likelihood import fit_likelihood, refit
from pymc_mte.moments.mixture import MixtureResult
from pymc_mte.moments.pencil import pencil
from pymc_mte.moments.problem import Problem
from pymc_mte.moments.spectral import spectral

Array = NDArray[np.float64]
Values = dict[str, Array]

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Quantiles of the outcome reported per class and arm."""


def bridge_values(problem: Problem, counts: Array) -> Values:
    """Average effects by the outcome bridge: ``arm_mean``, ``ate``, ``att``."""
    solved = solve_bridge(problem.moments(counts), problem.model.classes)
    arm_mean = all_arms(problem, solved.arm_mean, axis=-1)
    among = all_arms(problem, all_arms(problem, solved.among, axis=-1), axis=-2)
    contrasts = problem.model.contrasts
    ate = np.stack([arm_mean[..., b] - arm_mean[..., a] for b, a in contrasts], axis=-1)
    att = np.stack([among[..., b, b] - among[..., a, b] for b, a in contrasts], axis=-1)
    if len(contrasts) == 1:
        ate, att = ate[..., 0], att[..., 0]
    coefficients = all_arms(problem, solved.coefficients @ problem.x.whiten.T, axis=-2)
    return {"arm_mean": arm_mean, "ate": ate, "att": att, "bridge": coefficients}


def all_arms(problem: Problem, value: Array, axis: int) -> Array:
    """Give arms without data a NaN."""
    shape = list(value.shape)
    shape[axis] = len(problem.model.arms)
    out = np.full(shape, np.nan)
    index: list[object] = [slice(None)] * value.ndim
    index[axis] = list(problem.arms)
    out[tuple(index)] = value  # type: ignore[index]
    return out


def _mixture_values(problem: Problem, solved: MixtureResult) -> Values:
    model = problem.model
    outcomes = all_arms(problem, solved.potential_outcome, axis=-1)
    by_arm = all_arms(problem, solved.weight_by_arm, axis=-2)
    values: Values = {"class_weight": solved.class_weight, "potential_outcome": outcomes}
    values |= effects_from_classes(model, solved.class_weight, outcomes)
    att = [
        (by_arm[..., b, :] * (outcomes[..., b] - outcomes[..., a])).sum(axis=-1) for b, a in model.contrasts
    ]
    values["att"] = att[0] if len(att) == 1 else np.stack(att, axis=-1)
    values |= _class_moments(problem, values)
    values["complex_roots"] = solved.complex_roots.astype(float)
    values["singular"] = solved.singular.astype(float)
    profile = [solved.class_weight[..., None], outcomes / problem.outcome_sd]
    if solved.proxy_mean is not None:
        profile.append(solved.proxy_mean[..., 1:])
    values["profile"] = np.concatenate(profile, axis=-1)
    return values


def _class_moments(problem: Problem, values: Values) -> Values:
    """Distribution of effects over classes, and moments over classes, from class-level answers."""
    weight, effect, outcomes = values["class_weight"], values["effect"], values["potential_outcome"]
    orders = np.arange(1, 2 * problem.model.classes)
    first = effect if effect.ndim == weight.ndim else effect[..., 0]
    grid = effect_grid(problem.model, problem.outcome_sd)
    return {
        "effect_cdf": effect_cdf(weight, effect, grid),
        "effect_moment": (weight[..., None] * first[..., None] ** orders).sum(axis=-2),
        "synthetic_moment": (weight[..., None, None] * outcomes[..., None] ** orders).sum(axis=-3),
    }


def spectral_values(problem: Problem, counts: Array) -> Values:
    """Class weights, class effects, distributions and averages by joint diagonalisation.

    Synthetic moments come from the operators themselves, without their eigenvalues.
    """
    model = problem.model
    solved = spectral(
        problem.moments(counts), model.classes, problem.function_sds, problem.diagonalised, problem.anchors
    )
    values = _mixture_values(problem, solved)
    assert solved.operators is not None
    n_orders = 2 * model.classes - 1
    if len(problem.arms) == len(model.arms):
        values["synthetic_moment"] = solved.operators.synthetic_moment(n_orders)
        values["effect_moment"] = solved.operators.effect_moment(model.contrasts[0], n_orders)
    if len(problem.cuts):
        below = all_arms(problem, solved.operators.expectation()[..., 1:, :, :], axis=-1)
        cdf = np.clip(np.maximum.accumulate(np.moveaxis(below, -3, -1), axis=-1), 0.0, 1.0)
        values |= {"outcome_cdf": cdf, "outcome_quantile": _quantiles(cdf, problem.cuts)}
    return values


def _quantiles(cdf: Array, cuts: Array) -> Array:
    """Invert monotone distribution functions by interpolation; NaN beyond the cuts: (..., quantile)."""
    flat = cdf.reshape(-1, cdf.shape[-1])
    rows = [
        np.interp(QUANTILES, row, cuts, left=np.nan, right=np.nan)
        if np.isfinite(row).all()
        else np.full(len(QUANTILES), np.nan)
        for row in flat
    ]
    return np.array(rows).reshape(*cdf.shape[:-1], len(QUANTILES))


def pencil_values(problem: Problem, counts: Array) -> Values:
    """Class weights, class effects and averages by the papers' Hankel pencil."""
    b, a = problem.model.contrasts[0]
    contrast = (problem.arms.index(b), problem.arms.index(a))
    return _mixture_values(problem, pencil(problem.moments(counts), problem.model.classes, contrast))


def polished_values(problem: Problem, counts: Array) -> Values:
    """Maximum likelihood of the graph on patterns; replicates start at the point estimate."""
    model = problem.model
    if "point" not in problem.cache:
        problem.cache["point"] = fit_likelihood(problem)[0]
    fitted = refit(problem, counts, problem.cache["point"])
    values: Values = dict(fitted.parameters)
    values |= functionals(model, fitted.parameters)
    values |= _class_moments(problem, values)
    values["not_converged"] = (~fitted.converged).astype(float)
    values["log_likelihood"] = fitted.log_likelihood
    scales = pooled_scales(model, problem.columns, problem.counts)
    values["profile"] = class_profile(model, fitted.parameters, scales)
    return values


def prony_values(problem: Problem, counts: Array) -> Values:
    """As `pencil_values`, the effects as roots of Prony's polynomial (the papers' k-coin step)."""
    b, a = problem.model.contrasts[0]
    contrast = (problem.arms.index(b), problem.arms.index(a))
    solved = pencil(problem.moments(counts), problem.model.classes, contrast, roots="prony")
    return _mixture_values(problem, solved)


METHODS: dict[str, Callable[[Problem, Array], Values]] = {
    "bridge": bridge_values,
    "pencil": pencil_values,
    "prony": prony_values,
    "spectral": spectral_values,
    "polished": polished_values,
}
"""Every method by its public name: counts (replicates, patterns) in, values per replicate out."""


def pooled_scales(model: CausalModel, columns: Mapping[str, NDArray[Any]], counts: Array) -> dict[str, float]:
    """Pooled standard deviation of every continuous variable."""
    share = counts / counts.sum()
    out = {}
    for name in model.continuous_variables:
        value = np.asarray(columns[name], dtype=float)
        value = np.abs(value) if model.variables[name].event is not None else value
        seen = ~np.isnan(value)
        value, own = value[seen], share[seen] / share[seen].sum()
        out[name] = float(np.sqrt(own @ (value - own @ value) ** 2)) or 1.0
    return out


def class_profile(model: CausalModel, parameters: Parameters, scales: Mapping[str, float]) -> Array:
    """Stack the parameters of each class on comparable scales: (batch, classes, features)."""
    parts = [parameters["class_weight"][..., None]]
    for name, (variable, _) in model.owners.items():
        if model.dims[name][:1] == ("class",):
            value = parameters[name] / (scales.get(variable, 1.0) if model.kind(name).in_units else 1.0)
            parts.append(value.reshape(*parts[0].shape[:-1], -1))
    return np.concatenate(parts, axis=-1)


def align_values(
    model: CausalModel, values: Values, pivot: Array, class_axes: Mapping[str, int]
) -> tuple[Values, float]:
    """Relabel every replicate's classes to the pivot; return the share of ambiguous matches."""
    order, ambiguous = match_classes(values["profile"], pivot)
    out = {
        name: take_classes(value, order, class_axes[name]) if name in class_axes else value
        for name, value in values.items()
    }
    return out, float(ambiguous.mean())
