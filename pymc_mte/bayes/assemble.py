"""Last stage of `sample`: draws become an aligned result with functionals, checks and notes."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.bayes.checks import convergence
from pymc_mte.bayes.groups import (
    add_observed,
    add_predictive,
    clean_stats,
    identification_dataset,
    total_log_likelihood,
)
from pymc_mte.bayes.learnt import agreement, learnt_notes, log_prior_density, what_was_learnt
from pymc_mte.bayes.prepare import Prepared
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.data import CLUSTER, data_notes, fingerprint
from pymc_mte.functionals import functionals
from pymc_mte.identify.identification import Identification, identify
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.methods import class_profile
from pymc_mte.results import dataset, provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]

SWITCH_EVERY = 10
"""Every so many draws the label of a draw is compared with its chain's."""


def assemble(ready: Prepared, raw: xr.DataTree, *, sampler: str, seed: int, tune: int) -> xr.DataTree:
    """Lay a sampler's draws out as a result of `pymc_mte.sample`.

    Parameters
    ----------
    ready : Prepared
        What the draws were made from.
    raw : DataTree
        The sampler's ``posterior`` and ``sample_stats``.
    sampler : str
        Its name.
    seed : int
        Seed of the predictive data and of the prior's draws.
    tune : int
        Warm-up draws.
    """
    model, table = ready.model, ready.table
    kept, stats = raw["posterior"].to_dataset(), raw["sample_stats"].to_dataset()
    posterior, switching = posterior_dataset(ready, kept)
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": clean_stats(stats)})
    approximate = "approximation" in raw.attrs
    kind = "approximation" if approximate else "mcmc"
    tree["posterior"].attrs |= {
        "kind": kind,
        "inference_library": sampler,
        **raw.attrs.get("approximation", {}),
    }
    add_predictive(tree, ready.built, model, {n: posterior[n].values for n in model.dims}, seed)
    add_observed(tree, model, table)
    found = identify(model, table)
    densities = log_prior_density(ready.built, kept), total_log_likelihood(tree, model, table)
    learnt = what_was_learnt(model, ready.built, posterior, *densities, seed)
    report = identification_dataset(found).merge(learnt).assign_attrs(agreement(stats, ready.at_best))
    tree["identification"] = xr.DataTree(report)
    notes = _sampling_notes(ready, raw, posterior, switching) + learnt_notes(learnt, found.identified)
    if ready.start is not None:
        tree["estimate"] = xr.DataTree(ready.start["estimate"].to_dataset())
    tree.attrs = provenance(
        model,
        method=f"approximate posterior ({sampler})" if approximate else "posterior",
        sampler=sampler,
        random_seed=seed,
        n=ready.n,
        fingerprint=fingerprint(model, table),
        tune=tune,
        switching_share=switching,
        notes=dump_notes(_with_known(notes, table, found)),
    )
    return tree


def _sampling_notes(ready: Prepared, raw: xr.DataTree, posterior: xr.Dataset, switching: float) -> list[Note]:
    """Say what to doubt about the draws themselves."""
    if "approximation" in raw.attrs:
        about = raw.attrs["approximation"]
        detail = f"reweighted to the posterior, {about['ess_share']:.0%} of the draws count"
        if about["flat_directions"]:
            detail += f"; {about['flat_directions']} directions without curvature"
        return [Note(Status.APPROXIMATION, "sampler", detail)]
    stopped = raw.attrs.get("interrupted")
    early = [] if stopped is None else [Note(Status.INTERRUPTED, "sampler", stopped)]
    return early + convergence(ready.model, posterior, raw["sample_stats"].to_dataset(), switching)


def posterior_dataset(ready: Prepared, kept: xr.Dataset) -> tuple[xr.Dataset, float]:
    """Align the draws and add their functionals; return the share of draws that prefer other labels."""
    model = ready.model
    values = with_first_levels(model, {name: kept[name].values for name in model.dims})
    values, switching = aligned(model, values, ready.pivot, ready.scales)
    if model.treatment is not None:
        values |= functionals(model, values)
    return dataset(model, values), switching


def _with_known(notes: list[Note], table: xr.Dataset, found: Identification) -> list[Note]:
    """Join what the draws say with what data and identification said before."""
    clustered = [Note(Status.CLUSTERS_IGNORED, CLUSTER)] if CLUSTER in table else []
    out = [*data_notes(table), *clustered, *notes]
    known = {note.where for note in out}
    return out + [
        note for note in found.notes if note.where not in known and note.status is not Status.CONSTANT_COLUMN
    ]


def aligned(
    model: CausalModel, values: Parameters, pivot: Parameters, scales: Mapping[str, float]
) -> tuple[Parameters, float]:
    """Relabel each chain by one permutation; return the share of draws that prefer another one."""
    profile = class_profile(model, values, scales)
    target = class_profile(model, {n: v[None] for n, v in pivot.items()}, scales)[0]
    order, _ = match_classes(profile.mean(axis=1), target)
    thinned = profile[:, ::SWITCH_EVERY]
    flat = thinned.reshape(-1, *thinned.shape[2:])
    own = match_classes(flat, target)[0].reshape(*thinned.shape[:2], -1)
    switching = float((own != order[:, None]).any(axis=-1).mean())
    out = {n: take_classes(v, order, 2) if model.dims[n][:1] == ("class",) else v for n, v in values.items()}
    return out, switching
