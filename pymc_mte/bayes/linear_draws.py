"""`sample` for interventions on a linear Gaussian network: draws of shares, values and equations."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.checks import convergence
from pymc_mte.bayes.groups import MAX_POINTWISE, clean_stats, identification_dataset
from pymc_mte.bayes.linear_targets import build_changes, starting_mixture, varying
from pymc_mte.bayes.priors import Prior
from pymc_mte.bayes.target_draws import JITTER, SMALL_SHARE, Run
from pymc_mte.data import data_notes, fingerprint
from pymc_mte.identify.identification import identify
from pymc_mte.model import Parameters
from pymc_mte.moments.interventions.gaussian import LinearMixture, component_density
from pymc_mte.moments.interventions.linear import LinearNetwork
from pymc_mte.moments.interventions.linear_estimate import value_name
from pymc_mte.moments.interventions.linear_rows import LinearProblem, linear_problem, network_parameters
from pymc_mte.results import provenance
from pymc_mte.status import dump_notes

Array = NDArray[np.float64]


def sample_linear(
    model: Any,
    data: Any,
    *,
    base: Any,
    start: xr.DataTree | None,
    run: Run,
    chains: int,
    priors: Mapping[str, Prior] | None,
    seed: int,
    options: dict[str, Any],
) -> xr.DataTree:
    """Sample shares, values and learnt equations over the targets of the estimate; see `pymc_mte.sample`.

    The targets (which nodes are touched) are held as found, so draws carry no doubt about them: compare
    posteriors over other lists in ``interventions.targets`` by `pymc_mte.loo`.
    """
    problem = linear_problem(model, data, base)
    mixture = starting_mixture(problem, start, seed)
    rng = np.random.default_rng(seed)
    built = build_changes(problem, mixture, priors)
    free = {rv.name for rv in built.free_RVs}
    starts = [_start(problem, mixture, free, rng) for _ in range(chains)]
    raw = run(built, starts, seed, options)
    draws, stats = raw["posterior"].to_dataset(), raw["sample_stats"].to_dataset()
    posterior = _named(problem, mixture, draws)
    found = identify(problem.model, problem.table, base=base)
    notes = [*data_notes(problem.table), *convergence(problem.model, posterior, stats, 0.0), *found.notes]
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": clean_stats(stats)})
    tree["posterior"].attrs |= {"kind": "mcmc"}
    weight = posterior["target_weight"]
    targets = xr.Dataset(
        {
            "inclusion_probability": (weight > SMALL_SHARE).mean(("chain", "draw")),
            "identified": ("target", np.ones(len(mixture.weight), dtype="int8")),
            "touched": (("target", "variable"), mixture.touched[:, problem.back].astype("int8")),
        },
        coords={"target": weight["target"].values, "variable": list(problem.model.variables)},
    )
    tree["targets"] = xr.DataTree(targets.assign_attrs(small_share=SMALL_SHARE))
    tree["observed_data"] = xr.DataTree(problem.table)
    tree["identification"] = xr.DataTree(identification_dataset(found))
    if weight.sizes["chain"] * weight.sizes["draw"] * len(problem.data.rows) <= MAX_POINTWISE:
        tree["log_likelihood_pattern"] = xr.DataTree(_pointwise(problem, mixture, posterior))
    if start is not None:
        tree["estimate"] = xr.DataTree(start["estimate"].to_dataset())
    tree.attrs = provenance(
        problem.model,
        method="posterior",
        random_seed=seed,
        n=problem.data.n,
        fingerprint=fingerprint(problem.model, problem.table),
        tune=int(options["tune"]),
        notes=dump_notes(notes),
    )
    return tree


def _start(
    problem: LinearProblem, mixture: LinearMixture, free: set[str], rng: np.random.Generator
) -> Parameters:
    """One chain's start: the likelihood's maximum with noise."""
    touched, sd = mixture.touched, mixture.network.sd
    weight = np.clip(mixture.weight, 1e-3, None) * np.exp(JITTER * rng.normal(size=len(mixture.weight)))
    unit = problem.network.sd if problem.data.kind == "shift" else np.ones(len(sd))
    step = np.minimum(JITTER * sd, mixture.spread) if problem.data.kind == "do" else JITTER * sd
    noise = 0.5 * step * rng.normal(size=touched.shape)
    values: Parameters = {
        "target_weight": weight / weight.sum(),
        "change": ((mixture.value + noise) / unit)[touched],
        "change_sd": mixture.spread[touched][varying(problem, mixture)[touched]],
    }
    for name, value in network_parameters(problem.model, mixture.network).items():
        values[name] = np.asarray(value) * np.exp(0.02 * rng.normal(size=np.shape(value)))
    return {name: value for name, value in values.items() if name in free}


def _named(problem: LinearProblem, mixture: LinearMixture, draws: xr.Dataset) -> xr.Dataset:
    """Put the values at their places and name every axis."""
    model, touched = problem.model, mixture.touched
    lead = draws["target_weight"].shape[:2]
    coords: dict[str, Any] = {"chain": np.arange(lead[0]), "draw": np.arange(lead[1])}
    coords |= {"target": problem.labels(touched, mixture.value), "variable": list(model.variables)}
    value = np.zeros((*lead, *touched.shape))
    if "change" in draws:
        value[..., touched] = draws["change"].values
    if problem.data.kind == "shift":
        value = value * problem.network.sd
    both = ("chain", "draw", "target", "variable")
    out = {
        "target_weight": (("chain", "draw", "target"), draws["target_weight"].values),
        value_name(model): (both, value[..., problem.back]),
    }
    if problem.data.kind == "do":
        spread = np.where(touched, mixture.spread, 0.0) + np.zeros((*lead, 1, 1))
        if "change_sd" in draws:
            spread[..., varying(problem, mixture)] = draws["change_sd"].values
        out["spread"] = (both, spread[..., problem.back])
    for name in model.owners:
        if name in draws:
            out[name] = (("chain", "draw", *model.dims[name]), draws[name].values)
            coords |= {d: model.coords[d] for d in model.dims[name]}
    return xr.Dataset(out, coords)


def _pointwise(problem: LinearProblem, mixture: LinearMixture, posterior: xr.Dataset) -> xr.Dataset:
    """Log-density of one row of each pattern, per draw: (chain, draw, pattern)."""
    order, network = problem.order, problem.network
    shape = (posterior.sizes["chain"], posterior.sizes["draw"])
    placed = posterior.sel(variable=list(order))
    arrays = {str(name): placed[name].values for name in placed.data_vars}
    out = np.empty((*shape, len(problem.data.rows)))
    for at in np.ndindex(shape):
        own = {name: value[at] for name, value in arrays.items()}
        equations = network if problem.base is None else _network(problem, own)
        spread = np.where(mixture.touched, own.get("spread", 1.0), 1.0)
        value = own[value_name(problem.model)]
        here = replace(mixture, network=equations, value=value, spread=spread, weight=own["target_weight"])
        plain, ratio = component_density(problem.data, here)
        out[at] = plain + np.logaddexp.reduce(ratio + np.log(np.maximum(here.weight, 1e-300)), axis=1)
    return xr.Dataset({"log_p": (("chain", "draw", "pattern"), out)})


def _network(problem: LinearProblem, own: Mapping[str, Array]) -> LinearNetwork:
    """Collect the equations of one draw."""
    coefficient = np.zeros_like(problem.network.coefficient)
    for i, name in enumerate(problem.order):
        if above := list(problem.network.parents[i]):
            coefficient[i, above] = own[f"coefficient_{name}"]
    return replace(
        problem.network,
        intercept=np.array([own[f"intercept_{name}"] for name in problem.order]),
        sd=np.array([own[f"sd_{name}"] for name in problem.order]),
        coefficient=coefficient,
    )
