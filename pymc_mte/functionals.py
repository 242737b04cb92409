"""Causal functionals of parameters: exact sums over the network, vectorised over draws.

Everything is computed by `einsum` over the tables of the class-conditional network, so any number
of leading axes (chain, draw, replicate) is carried along.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.network import by_parents, full_table, table_of, with_class_axis

Array = NDArray[np.float64]

CLASS = 0
"""Axis number of the class in `einsum` calls; variables follow from 1 on."""


class _Sum:
    """A product of factors over named axes, summed by one `einsum`."""

    def __init__(self, model: CausalModel) -> None:
        for _, child in model.linear_edges:
            full_table(model, child)
        self.model = model
        self.axes = {name: i + 1 for i, name in enumerate(model.variables)}
        self.operands: list[Any] = []

    def add(self, value: Array, axes: list[int], fixed: Mapping[int, int] | None = None) -> None:
        """Multiply by a factor whose trailing axes are ``axes``; ``fixed`` sets some to a level."""
        fixed = fixed or {}
        lead = value.ndim - len(axes)
        index = tuple(fixed.get(axis, slice(None)) for axis in axes)
        kept = [axis for axis in axes if axis not in fixed]
        self.operands += [value[(slice(None),) * lead + index], [Ellipsis, *kept]]

    def add_table(self, variable: str, parameters: Parameters, fixed: Mapping[int, int]) -> None:
        """Multiply by P(variable | class, parents)."""
        names = (*self.model.variables[variable].parents, variable)
        table = table_of(self.model, variable, parameters)
        lead = [CLASS] if self.model.variables[variable].latent else []
        self.add(table, [*lead, *(self.axes[v] for v in names)], fixed)

    def total(self, keep: list[int]) -> Array:
        """Sum over every axis except ``keep``."""
        return np.asarray(np.einsum(*self.operands, [Ellipsis, *keep], optimize="greedy"))


def outcome_mean(model: CausalModel, parameters: Parameters, outcome: str) -> Array:
    """Mean of a variable given class and parents: (..., class, *parents).

    For a bernoulli variable it is the probability of the second level.
    """
    var = full_table(model, outcome)
    if var.family == "bernoulli":
        name = f"p_{outcome}"
        value = with_class_axis(model, name, parameters[name])[..., 1]
    elif var.trials is not None:
        value = var.trials * with_class_axis(model, f"p_{outcome}", parameters[f"p_{outcome}"])
    elif var.spec.law is not None:
        cells = (_by_cell(model, outcome, p, parameters) for p in var.spec.parameters)
        with np.errstate(over="ignore"):
            value = np.asarray(var.spec.law.mean(*cells))
        value = np.where(np.isinf(value), np.nan, value)  # beyond arithmetic, as is any difference from it
    else:
        raise ModelError(f"{outcome!r} is {var.family} and has no mean; ask for its distribution")
    axis = value.ndim - 1 - len(var.parents)
    return np.repeat(value, model.classes, axis=axis) if value.shape[axis] == 1 else value


def _by_cell(model: CausalModel, variable: str, parameter: str, parameters: Parameters) -> Array:
    """Return a parameter with axes for class and all parents, of length 1 where it does not vary."""
    var, name = model.variables[variable], f"{parameter}_{variable}"
    value = with_class_axis(model, name, parameters[name])
    lacking = 0 if by_parents(var, parameter) else len(var.parents)
    return value.reshape(*value.shape, *(1,) * lacking)


def interventional_mean(
    model: CausalModel, parameters: Parameters, do: Mapping[str, int], outcome: str
) -> Array:
    """Mean of the outcome in each class under an intervention: (..., class).

    Parameters
    ----------
    model : CausalModel
        The graph.
    parameters : mapping of str to ndarray
        Parameter arrays, any leading axes.
    do : mapping of str to int
        Level number that each intervened variable is set to.
    outcome : str
        Variable whose mean is wanted.

    Returns
    -------
    ndarray of shape (..., class)
        In the units of the outcome.
    """
    total = _Sum(model)
    fixed = {total.axes[v]: level for v, level in do.items()}
    needed = ancestors(model, {outcome}, stop=set(do)) - {outcome} - set(do)
    for variable in needed:
        total.add_table(variable, parameters, fixed)
    parents = [total.axes[p] for p in model.variables[outcome].parents]
    total.add(outcome_mean(model, parameters, outcome), [CLASS, *parents], fixed)
    return total.total([CLASS])


def interventional_table(
    model: CausalModel, parameters: Parameters, do: Mapping[str, int], outcome: str
) -> Array:
    """Distribution of a discrete variable in each class under an intervention: (..., class, level)."""
    total = _Sum(model)
    fixed = {total.axes[v]: level for v, level in do.items()}
    total.add(np.ones(model.classes), [CLASS])  # so that variables that no class changes keep the axis
    for variable in ancestors(model, {outcome}, stop=set(do)) - set(do):
        total.add_table(variable, parameters, fixed)
    return total.total([CLASS, total.axes[outcome]])


def joint_table(
    model: CausalModel, parameters: Parameters, given: Mapping[str, int], keep: tuple[str, ...] = ()
) -> Array:
    """P(class, keep, given) without any intervention: (..., class, *keep)."""
    total = _Sum(model)
    fixed = {total.axes[v]: level for v, level in given.items()}
    total.add(parameters["class_weight"], [CLASS])
    for variable in ancestors(model, {*given, *keep}, stop=set()):
        total.add_table(variable, parameters, fixed)
    return total.total([CLASS, *(total.axes[v] for v in keep)])


def ancestors(model: CausalModel, targets: set[str], stop: set[str]) -> set[str]:
    """Return the targets and their ancestors, not looking behind ``stop``."""
    found: set[str] = set()
    queue = list(targets)
    while queue:
        variable = queue.pop()
        if variable in found:
            continue
        found.add(variable)
        if variable not in stop:
            queue += model.variables[variable].all_parents
    return found


def potential_outcomes(model: CausalModel, parameters: Parameters) -> Array:
    """Mean potential outcome per class and arm, E[Y(t) | class]: (..., class, treatment)."""
    t, y = _roles(model)
    return np.stack(
        [interventional_mean(model, parameters, {t: arm}, y) for arm in range(len(model.arms))],
        axis=-1,
    )


def what_precedes(model: CausalModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Variables between treatment and outcome, parents first, and those that precede the treatment.

    The latter do not follow the treatment and have the outcome, or one in between, as a child.
    """
    t, y = _roles(model)
    below = {v for v in model.variables if v != t and t in ancestors(model, {v}, stop=set())}
    between = (ancestors(model, {y}, stop={t}) & below) - {y}
    parents = {p for v in between | {y} for p in model.variables[v].all_parents}
    before = tuple(v for v in model.variables if v in parents - between - {t})
    return tuple(v for v in model.order if v in between), before


def outcome_means(model: CausalModel, parameters: Parameters) -> tuple[tuple[str, ...], Array]:
    """Mean potential outcomes given class and what precedes the treatment.

    Returns
    -------
    before : tuple of str
        What precedes the treatment, from `what_precedes`.
    means : ndarray of shape (..., class, *levels of before, treatment)
        E[Y(t) | class, before]; what lies between treatment and outcome is averaged over.
    """
    between, before = what_precedes(model)
    t, y = _roles(model)
    by_arm = []
    for arm in range(len(model.arms)):
        total = _Sum(model)
        fixed = {total.axes[t]: arm}
        total.add(np.ones(model.classes), [CLASS])
        for variable in between:
            total.add_table(variable, parameters, fixed)
        axes = [total.axes[p] for p in model.variables[y].parents]
        total.add(outcome_mean(model, parameters, y), [CLASS, *axes], fixed)
        by_arm.append(total.total([CLASS, *(total.axes[v] for v in before)]))
    return before, np.stack(by_arm, axis=-1)


def arm_weight(model: CausalModel, parameters: Parameters) -> Array:
    """Probability of class and arm, P(class, T=t): (..., class, treatment)."""
    t, _ = _roles(model)
    total = _Sum(model)
    total.add(parameters["class_weight"], [CLASS])
    for variable in ancestors(model, {t}, stop=set()):
        total.add_table(variable, parameters, {})
    return total.total([CLASS, total.axes[t]])


def mean_among(model: CausalModel, parameters: Parameters, arm: int, given: int) -> Array:
    """Mean potential outcome under ``arm`` among those who got ``given``: (...)."""
    t, y = _roles(model)
    total = _Sum(model)
    t_axis = total.axes[t]
    below = {v for v in model.variables if v != t and t in ancestors(model, {v}, stop=set())}
    mutilated = ancestors(model, {y}, stop={t}) - {t, y}
    total.add(parameters["class_weight"], [CLASS])
    for variable in (ancestors(model, {t}, stop=set()) | mutilated) - {t}:
        total.add_table(variable, parameters, {t_axis: arm} if variable in below else {})
    total.add_table(t, parameters, {t_axis: given})
    parents = [total.axes[p] for p in model.variables[y].parents]
    total.add(outcome_mean(model, parameters, y), [CLASS, *parents], {t_axis: arm})
    with np.errstate(invalid="ignore", divide="ignore"):  # nobody got the arm: not a number
        return total.total([]) / arm_weight(model, parameters).sum(axis=-2)[..., given]


def _roles(model: CausalModel) -> tuple[str, str]:
    if model.treatment is None or model.outcome is None:
        raise ModelError("roles: effects need a treatment and an outcome; name both in [roles]")
    return model.treatment, model.outcome


def effects_from_classes(model: CausalModel, weight: Array, outcomes: Array) -> dict[str, Array]:
    """Effects that follow from class weights and potential outcomes alone.

    Parameters
    ----------
    model : CausalModel
        Gives the contrasts, the good direction and the practical size.
    weight : ndarray of shape (..., class)
        Class weights.
    outcomes : ndarray of shape (..., class, treatment)
        Mean potential outcomes.

    Returns
    -------
    dict of str to ndarray
        ``effect`` (..., class[, contrast]), ``ate``, ``effect_sd``, ``weight_harmed`` (...[, contrast])
        and ``arm_mean`` (..., treatment), the mean potential outcome over everybody.
    """
    effect = np.stack([outcomes[..., b] - outcomes[..., a] for b, a in model.contrasts], axis=-1)
    share = weight[..., None]
    ate = (share * effect).sum(axis=-2)
    variance = (share * (effect - ate[..., None, :]) ** 2).sum(axis=-2)
    sign = 1.0 if model.better == "higher" else -1.0
    harmed = sign * effect < -model.practical
    out = {
        "effect": effect,
        "ate": ate,
        "effect_sd": _root(variance),
        "weight_harmed": np.where(harmed, share, 0.0).sum(axis=-2),
    }
    if len(model.contrasts) == 1:
        out = {name: value[..., 0] for name, value in out.items()}
    return out | {"arm_mean": (share * outcomes).sum(axis=-2)}


def _root(variance: Array) -> Array:
    """Square root; NaN for a negative variance, which class weights outside [0, 1] may give."""
    rounding = 1e-12 * np.abs(variance).max(initial=1.0)
    clean = np.where(np.abs(variance) < rounding, np.maximum(variance, 0.0), variance)
    return np.where(clean >= 0, np.sqrt(np.abs(clean)), np.nan)


def functionals(model: CausalModel, parameters: Parameters) -> dict[str, Array]:
    """All standard functionals of a model with treatment and outcome.

    Parameters
    ----------
    model : CausalModel
        Must name a treatment and an outcome.
    parameters : mapping of str to ndarray
        Parameter arrays with any leading axes.

    Returns
    -------
    dict of str to ndarray
        ``potential_outcome``, ``effect``, ``ate``, ``att``, ``effect_sd``, ``weight_harmed``,
        ``arm_mean``.
    """
    outcomes = potential_outcomes(model, parameters)
    out = {"potential_outcome": outcomes}
    out |= effects_from_classes(model, parameters["class_weight"], outcomes)
    att = [
        mean_among(model, parameters, b, b) - mean_among(model, parameters, a, b) for b, a in model.contrasts
    ]
    out["att"] = att[0] if len(att) == 1 else np.stack(att, axis=-1)
    return out


def effect_cdf(weight: Array, effect: Array, grid: Array) -> Array:
    """Weight of the classes whose effect is at most each grid value: (..., effect_value[, contrast]).

    Parameters
    ----------
    weight : ndarray of shape (..., class)
        Class weights.
    effect : ndarray of shape (..., class[, contrast])
        Class effects.
    grid : ndarray of shape (effect_value,)
        Values, in units of the outcome.
    """
    contrast = effect.ndim > weight.ndim
    value = effect if contrast else effect[..., None]
    below = value[..., None, :, :] <= grid[:, None, None]
    total = (below * weight[..., None, :, None]).sum(axis=-2)
    return np.asarray(total if contrast else total[..., 0])


def effect_grid(model: CausalModel, scale: float) -> Array:
    """Values at which the distribution of class effects is reported: +-1, or +-4 outcome SDs."""
    bernoulli = model.variables[_roles(model)[1]].family == "bernoulli"
    return np.linspace(-1.0, 1.0, 81) if bernoulli else np.linspace(-4.0, 4.0, 81) * scale


def functional_dims(model: CausalModel) -> dict[str, tuple[str, ...]]:
    """Axes of every functional, by name."""
    contrast = ("contrast",) if len(model.contrasts) > 1 else ()
    by_stratum = {
        "stratum_ate": ("stratum", *contrast),
        "stratum_effect": ("stratum", "class", *contrast),
        "stratum_weight": ("stratum", "class"),
    }
    return {
        **(by_stratum if model.strata else {}),
        "potential_outcome": ("class", "treatment"),
        "effect": ("class", *contrast),
        "arm_mean": ("treatment",),
        "effect_cdf": ("effect_value", *contrast),
        "causal_groups": ("class",),
        "bridge": ("treatment", "feature"),
        "synthetic_moment": ("treatment", "order"),
        "effect_moment": ("order",),
        "outcome_cdf": ("class", "treatment", "outcome_value"),
        "outcome_quantile": ("class", "treatment", "quantile"),
        **dict.fromkeys(("ate", "att", "effect_sd", "weight_harmed", "ate_bridge", "att_bridge"), contrast),
    }
