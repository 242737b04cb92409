"""The moment methods on arrays: counts in, functionals per replicate out. NumPy only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.functionals import effects_from_classes, functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.bridge import solve_bridge
from pymc_mte.moments.em import em, random_starts, start_from_classes
from pymc_mte.moments.features import Features, Moments, build_features, build_moments
from pymc_mte.moments.mixture import MixtureResult
from pymc_mte.moments.pencil import pencil
from pymc_mte.moments.spectral import spectral

Array = NDArray[np.float64]
Values = dict[str, Array]

N_RANDOM_STARTS = 8
"""Random starts of the likelihood climb, beside the moment start."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One data set laid out for the moment methods.

    Attributes
    ----------
    model : CausalModel
        The graph, its levels resolved.
    columns : mapping of str to ndarray
        Pattern columns.
    counts : ndarray of shape (patterns,)
        Counts.
    arms : tuple of int
        Arms that occur in the data.
    z, x : Features
        Whitened features of the two sides.
    """

    model: CausalModel
    columns: Mapping[str, NDArray[Any]]
    counts: Array
    arms: tuple[int, ...]
    z: Features
    x: Features
    seed: int = 0
    cache: dict[str, Parameters] = field(default_factory=dict)

    @property
    def outcome(self) -> Array:
        """Outcome values of the patterns; level numbers of a bernoulli outcome."""
        return np.asarray(self.columns[str(self.model.outcome)], dtype=float)

    @property
    def outcome_sd(self) -> float:
        """Pooled standard deviation of the outcome."""
        share = self.counts / self.counts.sum()
        return float(np.sqrt(share @ (self.outcome - share @ self.outcome) ** 2)) or 1.0

    def arm_counts(self, counts: Array) -> Array:
        """Rows per arm that occurs in the data, for a batch of counts: (batch, arms)."""
        arm = np.asarray(self.columns[str(self.model.treatment)])
        return np.stack([counts[:, arm == t].sum(axis=1) for t in self.arms], axis=1)

    def moments(self, counts: Array) -> Moments:
        """Moments of a batch of counts, over the arms that occur."""
        arm = np.searchsorted(self.arms, np.asarray(self.columns[str(self.model.treatment)]))
        return build_moments(counts, self.z.values, self.x.values, arm, len(self.arms), self.outcome[None])


def make_problem(model: CausalModel, columns: Mapping[str, NDArray[Any]], counts: Array) -> Problem:
    """Build the features of a data set once, for all methods and replicates."""
    arm = np.asarray(columns[str(model.treatment)])
    arms = tuple(t for t in range(len(model.arms)) if counts[arm == t].sum() > 0)
    z = build_features(model, columns, counts, model.treatment_proxies)
    x = build_features(model, columns, counts, model.outcome_proxies)
    return Problem(model=model, columns=columns, counts=counts, arms=arms, z=z, x=x)


def bridge_values(problem: Problem, counts: Array) -> Values:
    """Average effects by the outcome bridge: ``arm_mean``, ``ate``, ``att``."""
    solved = solve_bridge(problem.moments(counts), problem.model.classes)
    arm_mean = _all_arms(problem, solved.arm_mean, axis=-1)
    among = _all_arms(problem, _all_arms(problem, solved.among, axis=-1), axis=-2)
    contrasts = problem.model.contrasts
    ate = np.stack([arm_mean[..., b] - arm_mean[..., a] for b, a in contrasts], axis=-1)
    att = np.stack([among[..., b, b] - among[..., a, b] for b, a in contrasts], axis=-1)
    if len(contrasts) == 1:
        ate, att = ate[..., 0], att[..., 0]
    return {"arm_mean": arm_mean, "ate": ate, "att": att}


def _all_arms(problem: Problem, value: Array, axis: int) -> Array:
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
    outcomes = _all_arms(problem, solved.potential_outcome, axis=-1)
    by_arm = _all_arms(problem, solved.weight_by_arm, axis=-2)
    values: Values = {"class_weight": solved.class_weight, "potential_outcome": outcomes}
    values |= effects_from_classes(model, solved.class_weight, outcomes)
    att = [
        (by_arm[..., b, :] * (outcomes[..., b] - outcomes[..., a])).sum(axis=-1) for b, a in model.contrasts
    ]
    values["att"] = att[0] if len(att) == 1 else np.stack(att, axis=-1)
    values["complex_roots"] = solved.complex_roots.astype(float)
    values["singular"] = solved.singular.astype(float)
    profile = [solved.class_weight[..., None], outcomes / problem.outcome_sd]
    if solved.proxy_mean is not None:
        profile.append(solved.proxy_mean[..., 1:])
    values["profile"] = np.concatenate(profile, axis=-1)
    return values


def spectral_values(problem: Problem, counts: Array) -> Values:
    """Class weights, class effects and averages by joint diagonalisation."""
    return _mixture_values(problem, spectral(problem.moments(counts), problem.model.classes))


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
    fitted = em(model, problem.columns, counts, problem.cache["point"])
    values: Values = dict(fitted.parameters)
    values |= functionals(model, fitted.parameters)
    values["not_converged"] = (~fitted.converged).astype(float)
    values["log_likelihood"] = fitted.log_likelihood
    values["profile"] = parameter_profile(problem, fitted.parameters)
    return values


METHODS: dict[str, Callable[[Problem, Array], Values]] = {
    "bridge": bridge_values,
    "pencil": pencil_values,
    "spectral": spectral_values,
    "polished": polished_values,
}
"""Every method by its public name: counts (replicates, patterns) in, values per replicate out."""


def fit_likelihood(problem: Problem, *, penalty: float = 0.0) -> tuple[Parameters, Array]:
    """Best of several likelihood climbs: from the spectral estimate and from random starts.

    Returns
    -------
    parameters : mapping of str to ndarray
        The best optimum, with a batch axis of length 1.
    log_likelihood : ndarray
        Log-likelihood reached from every start, the moment start (if there is one) first.
    """
    model, columns, counts = problem.model, problem.columns, problem.counts
    starts = random_starts(model, columns, counts, N_RANDOM_STARTS, np.random.default_rng(problem.seed))
    informed = moment_start(problem)
    if informed is not None:
        starts = {name: np.concatenate([informed[name], value]) for name, value in starts.items()}
    if model.classes == 1:
        starts = {name: value[:1] for name, value in starts.items()}
    n = len(starts["class_weight"])
    rough = em(model, columns, np.repeat(counts[None], n, axis=0), starts, penalty=penalty, tolerance=1e-6)
    best = int(rough.log_likelihood.argmax())
    chosen = {name: value[best : best + 1] for name, value in rough.parameters.items()}
    final = em(model, columns, counts[None], chosen, penalty=penalty, tolerance=1e-10, max_iterations=5_000)
    return final.parameters, rough.log_likelihood


def moment_start(problem: Problem) -> Parameters | None:
    """Derive starting parameters from the spectral estimate, or None where it is unusable."""
    model, k = problem.model, problem.model.classes
    if k == 1 or not model.treatment_proxies or min(problem.z.values.shape[1], problem.x.values.shape[1]) < k:
        return None
    solved = spectral(problem.moments(problem.counts[None]), k)
    if solved.singular[0] or solved.proxy_mean is None or not np.isfinite(solved.proxy_mean).all():
        return None
    weight = np.clip(solved.class_weight[0], 0.05, None)
    partial: Parameters = {"class_weight": weight / weight.sum()}
    raw = solved.proxy_mean[0] @ problem.x.unwhiten
    partial |= _proxy_tables(problem, raw)
    y = str(model.outcome)
    outcomes = solved.potential_outcome[0]
    if model.variables[y].parents == (model.treatment,) and len(problem.arms) == len(model.arms):
        if model.variables[y].discrete:
            p = np.clip(outcomes, 0.02, 0.98)
            partial[f"p_{y}"] = np.stack([1 - p, p], axis=-1)
        elif model.variables[y].family == "normal" and not model.variables[y].scale_parents:
            low, high = np.quantile(problem.outcome, [0.01, 0.99])
            partial[f"mean_{y}"] = np.clip(outcomes, low, high)
            partial[f"sd_{y}"] = np.full(k, problem.outcome_sd)
    return start_from_classes(model, problem.columns, problem.counts, partial)


def _proxy_tables(problem: Problem, raw: Array) -> Parameters:
    """Level probabilities of parentless discrete outcome proxies from class means of features."""
    out: Parameters = {}
    for name in problem.model.outcome_proxies:
        var = problem.model.variables[name]
        first = f"{name} = {var.labels[1]}" if var.discrete else ""
        if not var.discrete or var.parents or not var.latent or first not in problem.x.names:
            continue
        place = problem.x.names.index(first)
        upper = raw[:, place : place + len(var.labels) - 1]
        table = np.clip(np.column_stack([1 - upper.sum(axis=1), upper]), 0.02, 0.98)
        out[f"p_{name}"] = table / table.sum(axis=1, keepdims=True)
    return out


def parameter_profile(problem: Problem, parameters: Parameters) -> Array:
    """Describe classes by all their parameters on comparable scales: (batch, classes, features)."""
    return class_profile(
        problem.model, parameters, pooled_scales(problem.model, problem.columns, problem.counts)
    )


def pooled_scales(model: CausalModel, columns: Mapping[str, NDArray[Any]], counts: Array) -> dict[str, float]:
    """Pooled standard deviation of every continuous variable."""
    share = counts / counts.sum()
    out = {}
    for name in model.continuous_variables:
        value = np.asarray(columns[name], dtype=float)
        out[name] = float(np.sqrt(share @ (value - share @ value) ** 2)) or 1.0
    return out


def class_profile(model: CausalModel, parameters: Parameters, scales: Mapping[str, float]) -> Array:
    """Stack the parameters of each class on comparable scales: (batch, classes, features)."""
    parts = [parameters["class_weight"][..., None]]
    for name, (variable, _) in model.owners.items():
        if model.dims[name][:1] == ("class",):
            value = parameters[name] / scales.get(variable, 1.0)
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
