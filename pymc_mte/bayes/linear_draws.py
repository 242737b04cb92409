"""`sample` for interventions on a linear Gaussian network: draws of shares, values and equations."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.checks import convergence
from pymc_mte.bayes.groups import MAX_POINTWISE, clean_stats, identification_dataset
from pymc_mte.bayes.linear_targets import CHANGE, DEFAULTS, build_changes, starting_sets, varying
from pymc_mte.bayes.priors import Prior
from pymc_mte.bayes.target_draws import JITTER, SMALL_SHARE, Run, chosen
from pymc_mte.bayes.targets import share_priors
from pymc_mte.data import data_notes, fingerprint
from pymc_mte.identify.identification import identify
from pymc_mte.model import Parameters
from pymc_mte.moments.interventions.gaussian import LinearMixture, component_density
from pymc_mte.moments.interventions.gaussian_average import align
from pymc_mte.moments.interventions.linear import LinearNetwork
from pymc_mte.moments.interventions.linear_estimate import UNCLEAR, value_name
from pymc_mte.moments.interventions.linear_rows import LinearProblem, linear_problem, network_parameters
from pymc_mte.results import provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


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

    Every set of targets of a probability of at least 0.05 is sampled, four at most. A draw of the mixed
    posterior comes from one of them, taken with its probability; targets that it lacks have no share.
    """
    problem = linear_problem(model, data, base)
    sets = starting_sets(problem, start, seed)
    touched, places = align([mixture for mixture, _ in sets])
    rng = np.random.default_rng(seed)
    parts, stats = [], []
    record: dict[str, Any] = {}
    defaults = DEFAULTS | {"change": CHANGE[problem.data.kind]}
    for number, (mixture, _) in enumerate(sets):
        built = build_changes(problem, mixture, priors)
        record |= share_priors(problem.model, priors, built, defaults)
        free = {rv.name for rv in built.free_RVs}
        starts = [_start(problem, mixture, free, rng) for _ in range(chains)]
        raw = run(built, starts, seed + number, options)
        parts.append(_named(problem, mixture, raw["posterior"].to_dataset()))
        stats.append(raw["sample_stats"].to_dataset())
    posterior, choice = _mixed(problem, sets, (touched, places), parts, rng)
    found = identify(problem.model, problem.table, base=base)
    notes = data_notes(problem.table)
    for part, stat in zip(parts, stats, strict=True):
        notes += [n for n in convergence(problem.model, part, stat, 0.0) if n not in notes]
    notes += found.notes
    kept = chosen([clean_stats(stat) for stat in stats], choice)
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": kept})
    tree["posterior"].attrs |= {"kind": "mcmc"}
    weight = posterior["target_weight"]
    present = (weight > SMALL_SHARE).mean(("chain", "draw"))
    if ((present > UNCLEAR[0]) & (present < UNCLEAR[1])).any():
        detail = f"{len(sets)} sets of targets, averaged; the best has {sets[0][1]:.0%}"
        notes.append(Note(Status.TARGETS_UNCLEAR, "targets", detail))
    targets = xr.Dataset(
        {
            "inclusion_probability": present,
            "identified": ("target", np.ones(len(touched), dtype="int8")),
            "touched": (("target", "variable"), touched[:, problem.back].astype("int8")),
            "target_set": (("chain", "draw"), choice),
        },
        coords={"target": weight["target"].values, "variable": list(problem.model.variables)},
    )
    tree["targets"] = xr.DataTree(targets.assign_attrs(small_share=SMALL_SHARE))
    tree["observed_data"] = xr.DataTree(problem.table)
    tree["identification"] = xr.DataTree(identification_dataset(found))
    if weight.sizes["chain"] * weight.sizes["draw"] * len(problem.data.rows) <= MAX_POINTWISE:
        union = replace(sets[0][0], touched=touched)
        tree["log_likelihood_pattern"] = xr.DataTree(_pointwise(problem, union, posterior))
    if start is not None:
        tree["estimate"] = xr.DataTree(start["estimate"].to_dataset())
    tree.attrs = provenance(
        problem.model,
        method="posterior",
        random_seed=seed,
        n=problem.data.n,
        fingerprint=fingerprint(problem.model, problem.table),
        tune=int(options["tune"]),
        target_sets=len(sets),
        priors=json.dumps(record),
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


def _mixed(
    problem: LinearProblem,
    sets: list[tuple[LinearMixture, float]],
    aligned: tuple[NDArray[np.bool_], list[list[int]]],
    parts: list[xr.Dataset],
    rng: np.random.Generator,
) -> tuple[xr.Dataset, Ints]:
    """Take every draw from one set; targets that it lacks have no share, and values from a set with them."""
    touched, places = aligned
    chance = np.array([p for _, p in sets])
    shape = (parts[0].sizes["chain"], parts[0].sizes["draw"])
    choice = rng.choice(len(parts), size=shape, p=chance).astype(np.int64)
    if len(parts) == 1:
        return parts[0], choice
    along = [str(name) for name in parts[0].data_vars if "target" in parts[0][name].dims]
    out = chosen([part.drop_dims("target") for part in parts], choice)
    arrays = {n: np.zeros((*shape, len(touched), *parts[0][n].shape[3:])) for n in along}
    for target in range(len(touched)):
        have = [s for s, place in enumerate(places) if target in place]
        other = rng.choice(have, size=shape, p=chance[have] / chance[have].sum())
        here = np.isin(choice, have)
        for s in have:
            k, mine = places[s].index(target), np.where(here, choice, other) == s
            for name in along:
                arrays[name][mine, target] = parts[s][name].values[mine][:, k]
        arrays["target_weight"][~here, target] = 0.0
    values = np.zeros(touched.shape)
    if (name := value_name(problem.model)) in arrays:
        values = arrays[name].mean(axis=(0, 1))[:, np.argsort(problem.back)]
    coords: dict[str, Any] = {
        "target": problem.labels(touched, values),
        "variable": list(problem.model.variables),
    }
    coords |= {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    lead = ("chain", "draw", "target", "variable")
    return out.assign({n: (lead[: a.ndim], a) for n, a in arrays.items()}).assign_coords(coords), choice


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
