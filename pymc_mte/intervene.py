"""`do`: what an intervention would give, from any result that holds the tables of the network."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.functionals import interventional_mean, interventional_table, joint_table, outcome_mean
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.results import model_of
from pymc_mte.simulated_do import simulated_do
from pymc_mte.sites import SHIFT
from pymc_mte.standardised import row_parameters, wide_terms, written_out
from pymc_mte.status import Note, Status, dump_notes
from pymc_mte.variable import Level

Array = NDArray[np.float64]

NO_MEAN = ("categorical", "ordinal")
"""Families whose levels are no numbers."""

MIN_OVERLAP = 0.01
"""A value that some class gets less often than this, given its parents, is extrapolated to it."""

MIN_MASS = 1e-3
"""Classes with parents' levels rarer than this do not count for the overlap."""


def do(
    result: xr.DataTree,
    values: Mapping[str, Level],
    outcome: str | None = None,
    *,
    group: Literal["posterior", "estimate"] = "posterior",
) -> xr.Dataset:
    """Compute an outcome's mean and distribution under an intervention, despite the hidden class.

    Parameters
    ----------
    result : DataTree
        From `estimate` or `sample`; it must hold the tables of the network (every posterior does, and
        the methods ``polished``, ``network``, ``unzip``, ``spectral`` without proxies and for coins).
    values : mapping of str to level
        Variables that are set, and the level that each is set to, as the model names it. Empty for
        no intervention.
    outcome : str, optional
        Variable asked for; the model's outcome by default.
    group : {"posterior", "estimate"}
        Draws (or bootstrap replicates), or the point values of a moment estimate.

    Returns
    -------
    xarray.Dataset
        ``mean`` and ``mean_by_class`` (class) of a bernoulli (probability of the second level),
        binomial or continuous outcome; ``distribution`` and ``distribution_by_class`` of a discrete
        one; ``naive_mean`` and ``naive_distribution``, which only condition on the values and so mix the
        effect with the classes' differences; ``overlap``, the smallest probability that a class gives
        the values, over its parents' levels; ``class_weight``. All with the axes of the group.
        Attribute ``notes``: whether the overlap is too small. Where a linear parent among the ancestors is a
        number, averages are over 2,048 quasi-random units (error about 0.001 to 0.01 SD of what is
        averaged), and ``overlap`` leaves out the thousandth of each class's units with the smallest.

    Raises
    ------
    ModelError
        For values that are no mapping, unknown variables or levels, an outcome that is set, or a continuous
        variable that is.
    RefusedError
        If the result lacks the group or tables, the model has covariates, or groups have effects of their
        own.

    Examples
    --------
    >>> from pymc_mte import estimate, load_model, population
    >>> model = load_model("gallery:level3")
    >>> answer = do(estimate(model, population(model)), {"t": 1}, group="estimate")
    >>> round(float(answer["mean"]), 6), round(float(answer["naive_mean"]), 6)
    (0.5, 0.40625)
    """
    model = model_of(result)
    if model.covariates:
        raise RefusedError(
            "do takes no covariates: read potential_outcome and effect of the result, which average over them"
        )
    if model.interventions is not None:
        raise RefusedError(
            "`do` takes no mixture of interventions; use `base_model` for the untouched network"
        )
    if group not in result:
        raise RefusedError(f"this result has no group {group!r}, only {sorted(result.children)}")
    if SHIFT in result[group]:
        raise RefusedError("`do` takes no effects of groups; read group_effect and potential_outcome")
    outcome = model.outcome if outcome is None else outcome
    levels = _level_numbers(model, values, outcome)
    assert outcome is not None
    draws = result[group].to_dataset()
    if missing := [name for name in model.posterior_dims if name not in draws]:
        raise RefusedError(
            f"this result (method {result.attrs.get('method', 'unknown')!r}) holds no {missing[0]!r}; `do` "
            "needs the tables of the network, so use estimate(method='polished') or a posterior"
        )
    lead = tuple(d for d in ("chain", "draw") if d in draws.dims)
    parameters = {n: draws[n].transpose(*lead, *d).values for n, d in model.posterior_dims.items()}
    answer = _linear_answers if model.linear_edges else _answers
    found, dims = answer(model, parameters, levels, outcome)
    coords: dict[str, Any] = {d: draws[d].values for d in lead if d in draws.coords}
    used = {d for names in dims.values() for d in names}
    coords |= {d: c for d, c in model.coords.items() if d in used}
    out = xr.Dataset({n: ((*lead, *dims[n]), v) for n, v in found.items()}, coords)
    lowest = float(out["overlap"].median()) if levels else 1.0
    notes = []
    if lowest < MIN_OVERLAP:
        where = ", ".join(f"{v} = {level}" for v, level in values.items())
        notes.append(Note(Status.OVERLAP, where, f"some class has it in {max(lowest, 0.0):.2%} of the cases"))
    return out.assign_attrs(do=str(dict(values)), outcome=outcome, group=group, notes=dump_notes(notes))


def _level_numbers(model: CausalModel, values: Mapping[str, Level], outcome: str | None) -> dict[str, int]:
    """Check the question and turn levels into their numbers."""
    if not isinstance(values, Mapping):
        raise ModelError(f"values: levels by variable are wanted, as in {{'t': 1}}, got {values!r}")
    if outcome is None:
        raise ModelError("outcome: this model names none; say which variable is asked for")
    if outcome not in model.variables:
        raise ModelError(f"outcome: {outcome!r} is no variable of this model")
    out = {}
    for name, level in values.items():
        if name not in model.variables:
            raise ModelError(f"values: {name!r} is no variable of this model")
        if name == outcome:
            raise ModelError(f"values: {name!r} is the outcome and cannot be set too; name another outcome")
        if not model.variables[name].discrete:
            raise ModelError(f"values: {name!r} is continuous; only variables with listed levels can be set")
        labels = model.variables[name].labels
        if level not in labels:
            raise ModelError(f"values: {level!r} is no level of {name!r}; choose one of {list(labels)}")
        out[name] = labels.index(level)
    return out


def _answers(
    model: CausalModel, parameters: Parameters, levels: Mapping[str, int], outcome: str
) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
    """Every variable of the answer, and its axes behind the leading ones."""
    var, weight = model.variables[outcome], parameters["class_weight"]
    found: dict[str, Array] = {"class_weight": weight, "overlap": _overlap(model, parameters, levels)}
    dims: dict[str, tuple[str, ...]] = {"class_weight": ("class",), "overlap": ()}
    if var.discrete:
        by_class = interventional_table(model, parameters, levels, outcome)
        joint = joint_table(model, parameters, levels, (outcome,)).sum(axis=-2)
        found["distribution_by_class"] = by_class
        found["distribution"] = (weight[..., None] * by_class).sum(axis=-2)
        found["naive_distribution"] = joint / joint.sum(axis=-1, keepdims=True)
        dims |= {"distribution_by_class": ("class", outcome)}
        dims |= dict.fromkeys(("distribution", "naive_distribution"), (outcome,))
    if var.family not in NO_MEAN:
        mean = interventional_mean(model, parameters, levels, outcome)
        mean = np.broadcast_to(mean, weight.shape)
        found["mean_by_class"] = np.array(mean)
        found["mean"] = (weight * mean).sum(axis=-1)
        found["naive_mean"] = _naive_mean(model, parameters, levels, outcome, found)
        dims |= {"mean_by_class": ("class",), "mean": (), "naive_mean": ()}
    return found, dims


def _linear_answers(
    model: CausalModel, parameters: Parameters, levels: Mapping[str, int], outcome: str
) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
    """As `_answers` with linear parents: written out as tables where these have levels, else simulated."""
    var, weight = model.variables[outcome], parameters["class_weight"]
    lead = weight.shape[:-1]
    flat = {n: v.reshape(-1, *v.shape[len(lead) :]) for n, v in parameters.items()}
    if (wide := written_out(model, {outcome, *levels})) is not None:
        own = row_parameters(model, wide, flat, None, wide_terms(model, wide, None))
        found, dims = _answers(wide, own, levels, outcome)
        return {n: v.reshape(*lead, *v.shape[2:]) for n, v in found.items()}, dims
    found = simulated_do(model, flat, levels, outcome, MIN_MASS) | {"class_weight": flat["class_weight"]}
    dims = {"class_weight": ("class",), "overlap": ()}
    for kind in ("distribution", "mean"):
        if (key := f"{kind}_by_class") in found:
            by_class = found[key]
            found[kind] = np.einsum("dk,dk...->d...", found["class_weight"], by_class)
            axes = (outcome,) if kind == "distribution" else ()
            dims |= {key: ("class", *axes), kind: axes, f"naive_{kind}": axes}
    if var.discrete and var.family not in NO_MEAN:
        scale = np.arange(model.size(outcome), dtype=float)
        for name in ("mean_by_class", "mean", "naive_mean"):
            found[name] = found[name.replace("mean", "distribution")] @ scale
        dims |= {"mean_by_class": ("class",), "mean": (), "naive_mean": ()}
    return {n: v.reshape(*lead, *v.shape[1:]) for n, v in found.items()}, dims


def _naive_mean(
    model: CausalModel,
    parameters: Parameters,
    levels: Mapping[str, int],
    outcome: str,
    found: Mapping[str, Array],
) -> Array:
    """E[outcome | values], without any intervention."""
    var = model.variables[outcome]
    if var.discrete:
        scale = np.arange(len(var.labels), dtype=float)
        return np.asarray(found["naive_distribution"] @ scale)
    free = tuple(p for p in var.parents if p not in levels)
    joint = joint_table(model, parameters, levels, free)
    mean = outcome_mean(model, parameters, outcome)
    fixed = tuple(levels.get(p, slice(None)) for p in var.parents)
    mean = mean[(Ellipsis, slice(None), *fixed)]
    axes = tuple(range(-1 - len(free), 0))
    return np.asarray((joint * mean).sum(axis=axes) / joint.sum(axis=axes))


def _overlap(model: CausalModel, parameters: Parameters, levels: Mapping[str, int]) -> Array:
    """Smallest P(value | class, parents) of the variables that are set, where class and parents occur."""
    lowest = np.ones(parameters["class_weight"].shape[:-1])
    for name, level in levels.items():
        parents = model.variables[name].parents
        whole = joint_table(model, parameters, {}, parents)
        with_value = joint_table(model, parameters, {name: level}, parents)
        share = np.where(whole > MIN_MASS, with_value / np.where(whole > MIN_MASS, whole, 1.0), 1.0)
        lowest = np.minimum(lowest, share.min(axis=tuple(range(-1 - len(parents), 0))))
    return lowest
