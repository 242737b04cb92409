"""Last stage of `sample`: draws become an aligned result with functionals, checks and notes."""

import json
from dataclasses import replace

import xarray as xr

from pymc_mte.bayes.coefficients import repeated_terms
from pymc_mte.bayes.groups import (
    add_observed,
    add_predictive,
    clean_stats,
    identification_dataset,
    total_log_likelihood,
)
from pymc_mte.bayes.learnt import agreement, learnt_notes, log_prior_density, what_was_learnt
from pymc_mte.bayes.prepare import Prepared
from pymc_mte.bayes.settle import settle
from pymc_mte.data import CLUSTER, SAMPLING_WEIGHT, columns_of, complete_rows, data_notes, fingerprint
from pymc_mte.identify.identification import Identification, identify
from pymc_mte.model import CausalModel
from pymc_mte.moments.positivity import arm_support, empty_arms, failing_arms, refused_mask
from pymc_mte.regression import covariate_means, covariate_ranges, given_rows
from pymc_mte.results import provenance
from pymc_mte.status import Note, Status, dump_notes
from pymc_mte.threads import ONE_BLAS_THREAD


@ONE_BLAS_THREAD  # thousands of small products: threads would wait for each other
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
    if "kept_chains" in raw.attrs:  # an interruption may have left some out
        ready = replace(ready, started=ready.started[raw.attrs["kept_chains"]])
    model, table, about = ready.model, ready.table, dict(raw.attrs.get("approximation", {}))
    if ready.by_prior is not None:
        about.pop("log_evidence", None)  # it counts every order of the classes as much as the one drawn from
    given = given_rows(model, table)
    settled = settle(ready, raw, given, sampler=sampler, seed=seed)
    posterior, kept = settled.posterior, settled.kept
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": clean_stats(settled.stats)})
    tree["posterior"].attrs |= {"kind": settled.kind, "inference_library": settled.library, **about}
    for name, group in settled.groups.items():
        tree[name] = xr.DataTree(group)
    add_predictive(tree, ready.built, model, kept, given, seed)
    add_observed(tree, model, table)
    found = judged(model, table)
    densities = log_prior_density(ready.built, kept), total_log_likelihood(tree, model, table)
    by_effect = ready.by_prior is None
    learnt = what_was_learnt(model, ready.built, posterior, *densities, seed, given, by_effect=by_effect)
    shares = agreement(raw["sample_stats"].to_dataset(), ready.at_best)
    report = identification_dataset(found).merge(learnt).assign_attrs(shares)
    tree["identification"] = xr.DataTree(report)
    notes = [*settled.notes, *learnt_notes(learnt, found.identified), *repeated_terms(model, ready.built)]
    notes += [] if ready.by_prior is None else [ready.by_prior]
    if ready.start is not None:
        tree["estimate"] = xr.DataTree(ready.start["estimate"].to_dataset())
    about_rows = {}
    if model.covariates:
        of_rows = {"covariate_means": covariate_means(table), "covariate_ranges": covariate_ranges(table)}
        about_rows = {name: json.dumps(value) for name, value in of_rows.items()}
    tree.attrs = provenance(
        model,
        **about_rows,
        method=f"approximate posterior ({sampler})" if about else "posterior",
        sampler=sampler,
        random_seed=seed,
        n=ready.n,
        fingerprint=fingerprint(model, table),
        tune=tune,
        switching_share=settled.switching,
        **settled.evidence,
        notes=dump_notes(_with_known(notes, table, found)),
    )
    return tree


def judged(model: CausalModel, table: xr.Dataset) -> Identification:
    """Identification report of the complete rows.

    Given its covariates a row follows the same graph, so what the likelihood identifies is judged without
    them; what arms without positivity cost is taken back.
    """
    complete = complete_rows(model, table)
    found = identify(model, complete if complete.sizes["pattern"] else None)
    if not model.covariates:
        return found
    plain = identify(model.with_fields(covariates=(), covariate_levels={})).identified
    lost: set[str] = set()
    if model.treatment is not None:
        columns, counts = columns_of(complete, model), complete["count"].values.astype(float)
        support = arm_support(model, columns, counts)
        failing, empty = failing_arms(model, support), empty_arms(support)
        lost = {name for name in plain if refused_mask(model, name, failing, empty).all()}
        if not found.identified["ate"] and identify(model).identified["ate"]:  # too few rows for any contrast
            lost |= {name for name in plain if name not in (*model.dims, "class_weight")}
    return replace(found, identified={n: good and n not in lost for n, good in plain.items()})


def _with_known(notes: list[Note], table: xr.Dataset, found: Identification) -> list[Note]:
    """Join what the draws say with what data and identification said before."""
    clustered = [Note(Status.CLUSTERS_IGNORED, CLUSTER)] if CLUSTER in table else []
    weighted = [Note(Status.WEIGHTED_LIKELIHOOD, SAMPLING_WEIGHT)] if SAMPLING_WEIGHT in table else []
    out = [*data_notes(table), *clustered, *weighted, *notes]
    known = {note.where for note in out}
    of_moments = (Status.CONSTANT_COLUMN, Status.COVARIATES_ADJUSTED)
    return out + [note for note in found.notes if note.where not in known and note.status not in of_moments]
