"""Starting values: from moments and likelihood climbs, spread per chain, given to each sampler."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.priors import is_bernoulli
from pymc_mte.functionals import functionals
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.classes import ClassProblem, lacks_proxies
from pymc_mte.moments.problem import Problem
from pymc_mte.results import class_order, dataset, reorder

Array = NDArray[np.float64]

PENALTY = 1.0
"""Pseudo-counts of the climbs: the mode under the default Dirichlet(2) priors."""

JITTER = 0.2
"""Spread of the chains' starts: standard deviation on the log or logit scale, and in pooled SDs."""


def estimated_point(problem: Problem, start: xr.DataTree | None) -> Parameters | None:
    """Parameters that an estimate gives a climb, or moments where proxies are lacking; None without."""
    model = problem.model
    if model.classes == 1:
        return None
    partial = None if start is None else _partial(model, start["estimate"].to_dataset())
    if partial is None and lacks_proxies(model):
        setup = ClassProblem(problem=problem, rows=float(problem.counts.sum()))
        optimum = setup.optima.parameters
        partial = _partial(model, dataset(model, {n: v[0] for n, v in optimum.items()}, lead=()))
    return partial


def _partial(model: CausalModel, point: xr.Dataset) -> Parameters | None:
    """Take the parameters that an estimate of this graph holds; None if they cannot start a climb."""
    found = {
        name: np.asarray(point[name].values, float)
        for name, dims in model.dims.items()
        if name in point and point[name].dims == dims
    }
    weight = found.get("class_weight")
    if weight is None or not np.isfinite(weight).all():
        return None
    weight = np.clip(weight, 0.02, None)
    found["class_weight"] = weight / weight.sum()
    for name, value in found.items():
        support = model.kind(name).support
        if support == "unit":
            found[name] = np.clip(np.nan_to_num(value, nan=0.5), 0.01, 0.99)
        elif support == "simplex" and name != "class_weight":
            table = np.clip(np.nan_to_num(value, nan=0.5), 0.01, None)
            found[name] = table / table.sum(axis=-1, keepdims=True)
    return found if len(found) > 1 else None


def jittered(
    model: CausalModel,
    point: Parameters,
    scales: dict[str, float],
    rng: np.random.Generator,
    spread: float = JITTER,
) -> Parameters:
    """One chain's start: the point with noise on a scale that fits each parameter."""
    out: Parameters = {}
    for name, value in point.items():
        support, noise = model.kind(name).support, spread * rng.normal(size=value.shape)
        if support == "unit":
            odds = np.clip(value, 1e-3, 1 - 1e-3)
            odds = odds / (1 - odds) * np.exp(noise)
            out[name] = odds / (1 + odds)
        elif support == "simplex":
            table = np.clip(value, 1e-3, None) * np.exp(noise)
            out[name] = table / table.sum(axis=-1, keepdims=True)
        elif support == "real":
            out[name] = value + noise * scales[model.owners[name][0]]
        else:
            out[name] = value * np.exp(noise)
    return out


def without_first_levels(model: CausalModel, parameters: Parameters) -> Parameters:
    """Values of the model's random variables: a bernoulli table by its second level."""
    out = {}
    for name, value in parameters.items():
        out[name] = value[..., 1] if is_bernoulli(model, name) else value
    return out


def with_first_levels(model: CausalModel, values: Parameters) -> Parameters:
    """Invert `without_first_levels`, with any leading axes."""
    out = {}
    for name, value in values.items():
        out[name] = np.stack([1 - value, value], axis=-1) if is_bernoulli(model, name) else value
    return out


def order_classes(model: CausalModel, parameters: Parameters) -> Parameters:
    """Sort the classes of one set of parameters in the order of the package."""
    return reorder(model, parameters, class_numbers(model, parameters))


def class_numbers(model: CausalModel, parameters: Parameters) -> NDArray[np.int64]:
    """Which class of one set of parameters bears each number of the package's order."""
    values = parameters if model.treatment is None else {**parameters, **functionals(model, parameters)}
    return class_order(model, values)
