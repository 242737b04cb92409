"""Partial pooling: class weights over groups, a mechanism over classes; non-centred, on the link scale."""

import json
from collections.abc import Container, Mapping

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.priors import (
    TABLE_CONCENTRATION,
    WIDTH,
    LogRatio,
    Prior,
    Tensor,
    add_parameter,
    concentration,
    free_dims,
    is_bernoulli,
)
from pymc_mte.data import GROUP
from pymc_mte.errors import ModelError
from pymc_mte.families import LINKS
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.sites import BY_GROUP, SHIFT, group_functionals, why_not_shifted
from pymc_mte.standardised import functionals_given

Array = NDArray[np.float64]

GROUP_SPREAD = 1.0
"""Scale of the half-normal prior of the spread of log class weights over groups."""

GROUP_EFFECT = "group_effect"
"""Name in ``priors`` that lets every group have an outcome level and effects of its own."""

START_SPREAD = 0.3
"""Spread at a chain's start."""


def add_group_weights(model: CausalModel, table: xr.Dataset, prior: Prior | None) -> tuple[Tensor, Tensor]:
    """Add class weights of every group, pooled, and their average over the rows.

    ``log w_g = log shared + spread * offset_g`` up to normalisation, ``spread`` half-normal(1), offsets
    standard normal: exchangeable over groups and over classes.

    Parameters
    ----------
    model : CausalModel
        The graph.
    table : xarray.Dataset
        Tabulated with groups.
    prior : Prior, optional
        Concentration of the Dirichlet prior of the shared weights.

    Returns
    -------
    by_group : tensor of shape (groups, classes)
        ``group_class_weight``.
    average : tensor of shape (classes,)
        ``class_weight``, weighted by the groups' numbers of rows.
    """
    if callable(prior) or isinstance(prior, Mapping):
        raise ModelError(
            "prior of class_weight: with groups it is a concentration, a number or one per class"
        )
    labels = group_labels(table)
    pm.modelcontext(None).add_coords({GROUP: labels})
    name = "class_weight"
    shared = _simplex(model, name, prior, ("class",))
    spread = pm.HalfNormal(f"{name}_spread", sigma=GROUP_SPREAD)
    offset = pm.Normal(f"{name}_offset", dims=(GROUP, "class"))
    by_group = pm.Deterministic(BY_GROUP, _softmax(pt.log(shared) + spread * offset), dims=(GROUP, "class"))
    rows = np.bincount(table[GROUP].values, table["count"].values, minlength=len(labels)).astype(float)
    share = pm.Data("group_share", rows / rows.sum())
    return by_group, pm.Deterministic(name, share @ by_group, dims="class")


def add_group_shift(model: CausalModel, prior: Prior, table: xr.Dataset, spread: Tensor | None) -> Tensor:
    """Add what every group adds to the outcome on its link's scale, pooled: (groups, treatment levels).

    In the reference arm ``group_level_spread * offset``, in another arm ``group_effect_spread * offset``
    besides; both spreads half-normal, offsets standard normal less their mean over groups: without that,
    level and outcome parameters trade against each other, and chains mix ten times as slowly. All classes are
    shifted alike.

    Parameters
    ----------
    model : CausalModel
        The graph.
    prior : Prior
        ``{"pooled": scale}``, the scale of both half-normal priors: in log-odds, logs, or pooled standard
        deviations.
    table : xarray.Dataset
        Tabulated with groups.
    spread : tensor, optional
        Pooled standard deviation of a continuous outcome.
    """
    if reason := why_not_shifted(model):
        raise ModelError(f"prior of {GROUP_EFFECT}: {reason}")
    if not isinstance(prior, Mapping) or set(prior) != {"pooled"}:
        raise ModelError(f"prior of {GROUP_EFFECT}: it is of the form {{'pooled': scale}}; got {prior!r}")
    scale, groups = _scale(GROUP_EFFECT, prior), len(group_labels(table))
    level = pm.Normal("group_level_offset", dims=GROUP)
    level = pm.HalfNormal("group_level_spread", sigma=scale) * (level - level.mean())
    away = pm.Normal("group_effect_offset", shape=(groups, len(model.contrasts)))
    away = pm.HalfNormal("group_effect_spread", sigma=scale) * (away - away.mean(axis=0))
    in_arm = np.zeros((len(model.contrasts), len(model.arms)))
    in_arm[np.arange(len(in_arm)), [b for b, _ in model.contrasts]] = 1.0
    shift = level[:, None] + away @ in_arm
    if LINKS[model.variables[str(model.outcome)].family][1] == "identity":
        shift = shift * spread
    return pm.Deterministic(SHIFT, shift, dims=(GROUP, str(model.treatment)))


def _scale(name: str, prior: Mapping[str, object]) -> float:
    scale = prior["pooled"]
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 < scale < np.inf:
        raise ModelError(f"prior of {name}: pooled takes a positive scale, got {scale!r}")
    return float(scale)


def group_labels(table: xr.Dataset) -> list[str]:
    """Names of the groups, in the order of their numbers."""
    return [str(label) for label in json.loads(table[GROUP].attrs["levels"])]


def add_pooled(model: CausalModel, name: str, prior: Prior | None, centre: Tensor, spread: Tensor) -> Tensor:
    """Add one parameter; with ``{"pooled": scale}`` its classes vary around a shared value.

    Probabilities vary on the logit (tables: log) scale, means in pooled standard deviations, with a
    spread that is half-normal(scale).

    Parameters
    ----------
    model : CausalModel
        The graph.
    name : str
        Name in results.
    prior : Prior, optional
        Any other prior is left to `add_parameter`.
    centre, spread : tensors
        Pooled mean and standard deviation of the variable.
    """
    if not isinstance(prior, Mapping) or set(prior) != {"pooled"}:
        return add_parameter(model, name, prior, centre, spread)
    scale = _scale(name, prior)
    dims = free_dims(model, name)
    if dims[:1] != ("class",) or name == "class_weight":
        raise ModelError(f"prior of {name}: only what varies with the class can be pooled over classes")
    support, shared_dims = model.kind(name).support, dims[1:]
    tau = pm.HalfNormal(f"{name}_spread", sigma=scale)
    away = tau * pm.Normal(f"{name}_offset", dims=dims)
    if support == "simplex" and not is_bernoulli(model, name):
        shared = _simplex(model, name, None, shared_dims)
        value = _softmax(pt.log(shared) + away)
    elif support in ("simplex", "unit"):
        shared = pm.Beta(f"{name}_shared", TABLE_CONCENTRATION, TABLE_CONCENTRATION, dims=shared_dims)
        value = pm.math.sigmoid(pm.math.logit(shared) + away)
    elif support == "real":
        shared = pm.Normal(f"{name}_shared", centre, WIDTH * spread, dims=shared_dims)
        value = shared + spread * away
    else:
        raise ModelError(f"prior of {name}: only probabilities and means can be pooled over classes")
    return pm.Deterministic(name, value, dims=dims)


def _simplex(model: CausalModel, name: str, prior: Prior | None, dims: tuple[str, ...]) -> Tensor:
    a = concentration(model, name, TABLE_CONCENTRATION if prior is None else prior)
    a = a if name == "class_weight" else a[0]
    transform = {} if a.shape[-1] == 1 else {"default_transform": LogRatio(a.shape[-1])}
    return pm.Dirichlet(f"{name}_shared", a=a, dims=dims, **transform)


def _softmax(value: Tensor) -> Tensor:
    top = pt.exp(value - value.max(axis=-1, keepdims=True))
    return top / top.sum(axis=-1, keepdims=True)


def pooled_values(
    built: pm.Model, model: CausalModel, values: Parameters, scales: dict[str, float]
) -> Parameters:
    """Turn a chain's start into values of the random variables behind pooled parameters.

    Parameters
    ----------
    built : pymc.Model
        The posterior.
    model : CausalModel
        The graph.
    values : mapping of str to ndarray
        Start by parameter name.
    scales : mapping of str to float
        Pooled standard deviations.
    """
    out: Parameters = {}
    for name, value in values.items():
        if f"{name}_offset" not in built.named_vars:
            out[name] = value
        elif name == "class_weight":
            out |= {f"{name}_shared": value, f"{name}_spread": np.asarray(START_SPREAD)}
            out[f"{name}_offset"] = np.zeros((len(built.coords[GROUP]), len(value)))
        else:
            out |= _around(model, name, value, scales)
    if SHIFT in built.named_vars:
        groups = len(built.coords[GROUP])
        out |= dict.fromkeys(("group_level_spread", "group_effect_spread"), np.asarray(START_SPREAD))
        out["group_level_offset"] = np.zeros(groups)
        out["group_effect_offset"] = np.zeros((groups, len(model.contrasts)))
    return out


def functionals_of(
    model: CausalModel, built: pm.Model, values: Parameters, given: tuple[Array | None, Array]
) -> Parameters:
    """Functionals of draws: averages over the rows' covariates, or over groups with outcomes of their own.

    Parameters
    ----------
    model : CausalModel
        The graph.
    built : pymc.Model
        The posterior.
    values : mapping of str to ndarray
        Draws of the parameters, and of what `by_group_names` names.
    given : covariates and shares of the rows
        From `pymc_mte.regression.given_rows`.
    """
    if SHIFT not in values:
        return functionals_given(model, values, *given)
    return group_functionals(model, values, built["group_share"].get_value())[0]


def by_group_names(names: Container[str]) -> list[str]:
    """Name what decides the outcomes of groups, where they have their own."""
    return [BY_GROUP, SHIFT] if SHIFT in names else []


def _around(model: CausalModel, name: str, value: Array, scales: dict[str, float]) -> Parameters:
    """Values behind a parameter that is pooled over classes."""
    support = model.kind(name).support
    if support == "real":
        shared = value.mean(axis=0)
        away = (value - shared) / scales[model.owners[name][0]]
    elif support == "simplex" and not is_bernoulli(model, name):
        shared = np.exp(np.log(value).mean(axis=0))
        shared /= shared.sum(axis=-1, keepdims=True)
        away = np.log(value) - np.log(shared)
    else:
        odds = np.log(value) - np.log1p(-value)
        away = odds - odds.mean(axis=0)
        shared = 1 / (1 + np.exp(-odds.mean(axis=0)))
    tau = max(float(np.sqrt((away**2).mean())), START_SPREAD)
    return {f"{name}_shared": shared, f"{name}_spread": np.asarray(tau), f"{name}_offset": away / tau}
