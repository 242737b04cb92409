"""`sample`: the posterior, aligned, with everything that comparison and checking need."""

import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.bayes.build import build_model
from pymc_mte.bayes.checks import convergence
from pymc_mte.bayes.groups import (
    add_observed,
    add_predictive,
    clean_stats,
    identification_dataset,
    total_log_likelihood,
)
from pymc_mte.bayes.learnt import agreement, learnt_notes, log_prior_density, what_was_learnt
from pymc_mte.bayes.priors import Prior
from pymc_mte.bayes.samplers import run_nutpie, run_pymc
from pymc_mte.bayes.start import (
    jittered,
    order_classes,
    starting_point,
    with_first_levels,
    without_first_levels,
)
from pymc_mte.bayes.target_draws import sample_targets
from pymc_mte.data import CLUSTER, columns_of, data_notes, fingerprint, resolve
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.functionals import functionals
from pymc_mte.identify.identification import Identification, identify
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.methods import class_profile, pooled_scales
from pymc_mte.moments.problem import make_problem
from pymc_mte.results import dataset, provenance
from pymc_mte.status import Note, Status, dump_notes

Array = NDArray[np.float64]

SWITCH_EVERY = 10
"""Every so many draws the label of a draw is compared with its chain's."""


def sample(
    model: CausalModel,
    data: Any = None,
    *,
    start: xr.DataTree | None = None,
    base: Any = None,
    draws: int = 1_000,
    tune: int = 500,
    chains: int = 4,
    cores: int | None = None,
    sampler: Literal["nutpie", "pymc"] = "nutpie",
    priors: Mapping[str, Prior] | None = None,
    target_accept: float = 0.9,
    random_seed: int = 0,
    progressbar: bool = True,
) -> xr.DataTree:
    """Sample the posterior of the Bayesian latent-class causal model.

    Parameters
    ----------
    model : CausalModel
        The graph and families.
    data : tabulated Dataset, dataframe, mapping or path, optional
        The rows; the model's own data file by default.
    start : DataTree, optional
        An answer of `estimate`: kept in the result, and one more start where it holds tables
        (``polished``). Chains start, with jitter, at the best mode that spectral and random starts
        reach. With interventions its targets are the candidates, where the model lists none.
    base : tabulated Dataset, dataframe, mapping or path, optional
        For a model with interventions: rows of the untouched network, see `build_model`.
    draws, tune, chains : int
        Kept draws and warm-up draws per chain; number of chains.
    cores : int, optional
        Processes or threads; all of the machine, at most one per chain, by default.
    sampler : {"nutpie", "pymc"}
        Both run NUTS; ``pymc`` compiles faster and samples slower.
    priors : mapping, optional
        See `build_model`.
    target_accept : float
        Raise it towards 1 when divergences are reported.
    random_seed : int
        Seed of starts, draws and predictive data.
    progressbar : bool
        Whether the sampler shows its progress.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` (parameters and functionals, classes aligned to the start),
        ``sample_stats``, ``prior``, ``prior_predictive``, ``posterior_predictive``,
        ``observed_data``, ``log_likelihood_pattern`` (log p of one row of each pattern),
        ``identification`` (with what was learnt beyond the prior) and, if given, the start's
        ``estimate``. With interventions ``posterior``
        holds ``target_weight`` and the tables of a learnt base, and ``targets`` per target
        ``inclusion_probability`` (posterior probability of a share above 0.01) and ``identified``.
        Where the data leave the excluded values open, the draws average over the plausible choices.

    Raises
    ------
    RefusedError
        If the model file says that its posterior must not be computed.
    """
    _check(model, sampler, {"draws": draws, "tune": tune, "chains": chains})
    run = run_nutpie if sampler == "nutpie" else run_pymc
    options: dict[str, Any] = {"draws": draws, "tune": tune, "target_accept": target_accept}
    options |= {"cores": min(chains, cores or os.cpu_count() or 1), "progressbar": progressbar}
    if model.interventions is not None:
        mixture: dict[str, Any] = {"base": base, "start": start, "run": run, "chains": chains}
        return sample_targets(model, data, priors=priors, seed=random_seed, options=options, **mixture)
    if base is not None:
        raise ModelError("base: only a model with interventions has base rows; leave it out")
    model, table = resolve(model, data)
    columns, counts = columns_of(table, model), np.asarray(table["count"].values, dtype=float)
    problem = make_problem(model, columns, counts, seed=random_seed)
    rng = np.random.default_rng(random_seed)
    point, at_best = starting_point(problem, start)
    point = order_classes(model, point)
    scales = pooled_scales(model, columns, counts)
    starts = [without_first_levels(model, jittered(model, point, scales, rng)) for _ in range(chains)]
    built = build_model(model, table, priors=priors)
    raw = run(built, starts, random_seed, options)
    kept, stats = raw["posterior"].to_dataset(), raw["sample_stats"].to_dataset()
    values = with_first_levels(model, {name: kept[name].values for name in model.dims})
    values, switching = _aligned(model, values, point, scales)
    if model.treatment is not None:
        values |= functionals(model, values)
    posterior = dataset(model, values)
    tree = xr.DataTree.from_dict({"posterior": posterior, "sample_stats": clean_stats(stats)})
    tree["posterior"].attrs |= {"kind": "mcmc", "inference_library": sampler}
    add_predictive(tree, built, model, values, random_seed)
    add_observed(tree, model, table)
    found = identify(model, table)
    densities = log_prior_density(built, kept), total_log_likelihood(tree, model, table)
    learnt = what_was_learnt(model, built, posterior, *densities, random_seed)
    report = identification_dataset(found)
    tree["identification"] = xr.DataTree(report.merge(learnt).assign_attrs(agreement(stats, at_best)))
    notes = convergence(model, posterior, stats, switching) + learnt_notes(learnt, found.identified)
    if start is not None:
        tree["estimate"] = xr.DataTree(start["estimate"].to_dataset())
    tree.attrs = provenance(
        model,
        method="posterior",
        sampler=sampler,
        random_seed=random_seed,
        n=float(counts.sum()),
        fingerprint=fingerprint(model, table),
        tune=tune,
        switching_share=switching,
        notes=dump_notes(_with_known(notes, table, found)),
    )
    return tree


def _check(model: CausalModel, sampler: str, sizes: Mapping[str, Any]) -> None:
    """Refuse what cannot be sampled."""
    if model.why_no_posterior is not None:
        raise RefusedError(f"no posterior for {model.name!r}: {model.why_no_posterior}")
    if sampler not in ("nutpie", "pymc"):
        raise ModelError(f"sampler {sampler!r} is unknown; choose nutpie or pymc")
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ModelError(f"{name} must be a whole number of at least 1, got {value!r}")


def _with_known(notes: list[Note], table: xr.Dataset, found: Identification) -> list[Note]:
    """Join what the draws say with what data and identification said before."""
    clustered = [Note(Status.CLUSTERS_IGNORED, CLUSTER)] if CLUSTER in table else []
    out = [*data_notes(table), *clustered, *notes]
    known = {note.where for note in out}
    return out + [
        note for note in found.notes if note.where not in known and note.status is not Status.CONSTANT_COLUMN
    ]


def _aligned(
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
