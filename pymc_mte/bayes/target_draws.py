"""`sample` for a mixture of interventions: draws of the shares, averaged over unclear exclusions."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.checks import convergence
from pymc_mte.bayes.groups import MAX_POINTWISE, clean_stats, identification_dataset
from pymc_mte.bayes.priors import Prior
from pymc_mte.bayes.start import with_first_levels, without_first_levels
from pymc_mte.bayes.targets import SHARES, UNSEEN, build_shares, candidate_sets, check_counts, share_priors
from pymc_mte.data import data_notes, fingerprint
from pymc_mte.identify.identification import identify
from pymc_mte.identify.targets import separation
from pymc_mte.model import Parameters
from pymc_mte.moments.interventions.evidence import fit_support
from pymc_mte.moments.interventions.exclusions import unclear_nodes
from pymc_mte.moments.interventions.levels import climb
from pymc_mte.moments.interventions.methods import smallest_weight
from pymc_mte.moments.interventions.network import components
from pymc_mte.moments.interventions.rows import TargetProblem, target_problem
from pymc_mte.results import provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Run = Callable[[Any, list[Parameters], int, dict[str, Any]], xr.DataTree]

SMALL_SHARE = 0.01
"""A target counts as present in a draw whose share of it is larger; the smallest share of the paper."""

JITTER = 0.2
"""Spread of the chains' starts on the log scale."""


def sample_targets(
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
    """Sample shares (and the tables of a learnt base) for every set of candidates, and mix the draws.

    See `pymc_mte.sample`. A draw of the mixed posterior comes from one choice of excluded values,
    taken with its probability; targets outside its candidates have no share in it.
    """
    problem = target_problem(model, data, base)
    check_counts(problem)
    sets = candidate_sets(problem, start)
    rng = np.random.default_rng(seed)
    parts, stats = [], []
    for number, (targets, _) in enumerate(sets):
        built = build_shares(problem, targets, priors)
        starts = [_start(problem, targets, rng) for _ in range(chains)]
        raw = run(built, starts, seed + number, options)
        parts.append(_named(problem, targets, raw["posterior"].to_dataset()))
        stats.append(raw["sample_stats"].to_dataset())
    posterior, choice = _mixed([p for _, p in sets], parts, rng)
    every = _union([targets for targets, _ in sets], problem)
    posterior = posterior.sel(target=problem.labels(every))
    found = identify(problem.model, problem.table, base=base)
    notes = data_notes(problem.table)
    for part, stat in zip(parts, stats, strict=True):
        notes += [n for n in convergence(problem.model, part, stat, 0.0) if n not in notes]
    if len(sets) > 1:
        detail = f"{len(sets)} choices of excluded values, averaged; the best has {sets[0][1]:.0%}"
        notes.append(Note(Status.EXCLUSION_UNCLEAR, "targets", detail))
    notes += _untried(problem)
    notes += [note for note in found.notes if note not in notes]
    kept = chosen([clean_stats(stat) for stat in stats], choice)
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": kept})
    tree["posterior"].attrs |= {"kind": "mcmc"}
    tree["targets"] = xr.DataTree(_targets(problem, every, posterior, choice))
    tree["observed_data"] = xr.DataTree(problem.table)
    tree["identification"] = xr.DataTree(identification_dataset(found))
    if posterior.sizes["chain"] * posterior.sizes["draw"] * len(problem.counts) <= MAX_POINTWISE:
        tree["log_likelihood_pattern"] = xr.DataTree(_pointwise(problem, every, posterior))
    if start is not None:
        tree["estimate"] = xr.DataTree(start["estimate"].to_dataset())
    tree.attrs = provenance(
        problem.model,
        method="posterior",
        random_seed=seed,
        n=float(problem.counts.sum()),
        fingerprint=fingerprint(problem.model, problem.table),
        tune=int(options["tune"]),
        exclusion_choices=len(sets),
        priors=json.dumps(share_priors(problem.model, priors, built, SHARES)),  # alike in all sets
        notes=dump_notes(notes),
    )
    return tree


def _untried(problem: TargetProblem) -> list[Note]:
    """Say which unclear excluded values the draws do not average over."""
    if problem.candidates is not None:
        return []
    smallest = smallest_weight(problem.counts)
    best = climb(problem.network, problem.rows, problem.counts, smallest)
    left = unclear_nodes(problem.network, best)[1]
    detail = "too many are unclear: draws take the value found and no other"
    return [Note(Status.EXCLUSION_UNCLEAR, problem.order[node], detail) for node in left]


def _pointwise(problem: TargetProblem, every: Ints, posterior: xr.Dataset) -> xr.Dataset:
    """Log-probability of one row of each pattern, per draw: (chain, draw, pattern)."""
    rows, network = problem.rows, problem.network
    weight = posterior["target_weight"].values
    if problem.base is None:
        p = weight @ components(network, rows, every).toarray().T
    else:
        p = np.empty((*weight.shape[:2], len(rows)))
        for at in np.ndindex(weight.shape[:2]):
            tables = tuple(posterior[f"p_{name}"].values[at] for name in problem.order)
            p[at] = components(replace(network, tables=tables), rows, every) @ weight[at]
    return xr.Dataset({"log_p": (("chain", "draw", "pattern"), np.log(np.maximum(p, UNSEEN)))})


def _start(problem: TargetProblem, targets: Ints, rng: np.random.Generator) -> Parameters:
    """One chain's start: the likelihood's maximum, away from its edges, with noise."""
    support = fit_support(problem.network, problem.rows, problem.counts, targets, 1e-2)
    values: Parameters = {"target_weight": np.clip(support.weight, 1e-3, None)}
    if problem.base is not None:
        tables = zip(problem.order, support.network.tables, strict=True)
        values |= {f"p_{name}": np.clip(table, 1e-3, None) for name, table in tables}
    for name, value in values.items():
        noisy = value * np.exp(JITTER * rng.normal(size=value.shape))
        values[name] = noisy / noisy.sum(axis=-1, keepdims=True)
    return without_first_levels(problem.model, values)


def _named(problem: TargetProblem, targets: Ints, draws: xr.Dataset) -> xr.Dataset:
    """Give bernoulli tables both levels, and every axis its name."""
    model = problem.model
    values = with_first_levels(model, {str(name): draws[name].values for name in draws.data_vars})
    dims = {name: model.dims.get(name, ("target",)) for name in values}
    coords: dict[str, Any] = {"target": problem.labels(targets)}
    coords |= {d: model.coords[d] for axes in dims.values() for d in axes if d != "target"}
    out = xr.Dataset({n: (("chain", "draw", *dims[n]), value) for n, value in values.items()}, coords)
    return out.assign_coords(chain=np.arange(out.sizes["chain"]), draw=np.arange(out.sizes["draw"]))


def _mixed(chance: list[float], parts: list[xr.Dataset], rng: np.random.Generator) -> tuple[xr.Dataset, Ints]:
    """Take every draw from one part, at random; targets that a part lacks have no share in its draws."""
    shape = (parts[0].sizes["chain"], parts[0].sizes["draw"])
    choice = rng.choice(len(parts), size=shape, p=np.array(chance) / sum(chance)).astype(np.int64)
    if len(parts) == 1:
        return parts[0], choice
    return chosen(list(xr.align(*parts, join="outer", fill_value=0.0)), choice), choice


def chosen(parts: list[xr.Dataset], choice: Ints) -> xr.Dataset:
    """Take every draw from the part that was chosen for it, of what all parts have."""
    common = [name for name in parts[0].data_vars if all(name in part for part in parts)]
    if not common:
        return xr.Dataset()
    picked = xr.DataArray(choice, dims=("chain", "draw"))
    return xr.concat([part[common] for part in parts], "part", join="override").isel(part=picked)


def _union(sets: list[Ints], problem: TargetProblem) -> Ints:
    """All candidates, each once, in order of appearance."""
    seen: dict[str, Ints] = {}
    for targets in sets:
        for label, target in zip(problem.labels(targets), targets, strict=True):
            seen.setdefault(label, target)
    return np.array(list(seen.values()), dtype=np.int64)


def _targets(problem: TargetProblem, every: Ints, posterior: xr.Dataset, choice: Ints) -> xr.Dataset:
    """Per target: probability of being present, whether rows decide its share, what it forces."""
    weight = posterior["target_weight"]
    decided = np.ones(len(every), dtype="int8")
    if problem.candidates is not None:  # else exclusion decides; the candidates never break it
        decided = separation(problem.network, every, problem.rows).decided.astype("int8")
    out = xr.Dataset(
        {
            "inclusion_probability": (weight > SMALL_SHARE).mean(("chain", "draw")),
            "identified": ("target", decided),
            "forced": (("target", "variable"), every[:, problem.back]),
            "exclusion_choice": (("chain", "draw"), choice),
        },
        coords={"target": weight["target"].values, "variable": list(problem.model.variables)},
    )
    out.attrs = {"small_share": SMALL_SHARE}
    return out
