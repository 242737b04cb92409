"""`sample`: the posterior, aligned, with everything that comparison and checking need."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from pymc_mte.bayes.assemble import assemble
from pymc_mte.bayes.attach import ROW_BY_ROW
from pymc_mte.bayes.grid import Grid, on_grid, widths_of
from pymc_mte.bayes.linear_draws import sample_linear
from pymc_mte.bayes.measurement import sample_outcome_last
from pymc_mte.bayes.prepare import prepare
from pymc_mte.bayes.priors import Prior, prior_record
from pymc_mte.bayes.rowwise import needs_rows
from pymc_mte.bayes.samplers import SAMPLERS, run_sampler
from pymc_mte.bayes.store import new_folder, sample_stored
from pymc_mte.bayes.target_draws import sample_targets
from pymc_mte.data import GROUP, fingerprint, resolve
from pymc_mte.errors import ModelError, RefusedError, truth_value, whole_number
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model


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
    sampler: Literal["nutpie", "pymc", "numpyro", "smc", "laplace"] = "nutpie",
    priors: Mapping[str, Prior] | None = None,
    grid: Grid | None = None,
    group: str | None = None,
    measurement_first: bool = False,
    target_accept: float = 0.9,
    random_seed: int = 0,
    store: str | Path | None = None,
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
        (``polished``). Chains start, with jitter, at the modes that spectral and random starts reach, in
        turn; more chains are run if so many modes lie within 5 log units of the best. With
        interventions its targets are the candidates, where the model lists none.
    base : tabulated Dataset, dataframe, mapping or path, optional
        For a model with interventions: rows of the untouched network, see `build_model`.
    draws, tune, chains : int
        Kept draws and warm-up draws per chain; number of chains.
    cores : int, optional
        Processes or threads; all of the machine, at most one per chain, by default.
    sampler : {"nutpie", "pymc", "numpyro", "smc", "laplace"}
        The first three run NUTS; ``pymc`` samples slower, ``numpyro`` needs the extra ``[jax]``. ``smc``
        is sequential Monte Carlo for small models with several modes: ``draws`` particles in each of
        ``chains`` independent runs, every particle's classes matched to the best mode on its own; not
        for interventions. ``laplace`` is a normal approximation around the best mode, in a second; its
        attributes, notes and tables say so.
    priors : mapping, optional
        See `build_model`.
    grid : float, mapping or "auto", optional
        Round continuous variables to bins of this width, see `build_model`; everything that the result
        holds is then of the rounded values, whose widths its attribute ``grid`` says.
    group : str, optional
        Column of groups whose class weights are partially pooled, see `build_model`; ``posterior`` then
        has ``group_class_weight`` (group, class) too. Where ``priors`` name ``group_effect``, effects are
        pooled as well: ``posterior`` has ``group_effect`` (group, class) and ``group_ate`` (group), on the
        outcome's scale, and ``effect``, ``ate`` and the others are averages over the groups' people.
    measurement_first : bool
        Learn the classes from all variables but the outcome, and the outcome's class means afterwards,
        by regression on the class probabilities of every draw with Bayesian bootstrap weights. Slower
        to learn from the data, but right whatever the outcome's family; the rest of the graph must
        identify the classes, else ``identification`` and a note say that nothing is identified.
        ``posterior`` then holds no parameters of the outcome but its means, and ``measurement`` is the
        result of the first step.
    target_accept : float
        Raise it towards 1 when divergences are reported.
    random_seed : int
        Seed of starts, draws and predictive data.
    store : str or Path, optional
        A new folder (``"run.zarr"``) that takes the draws while sampling, every 16 per chain. After a crash
        `pymc_mte.load` reads what was drawn and `pymc_mte.resume` goes on. For ``sampler="nutpie"``.
    progressbar : bool
        Whether the sampler shows its progress.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` (parameters and functionals, classes aligned to the start),
        ``sample_stats``, ``prior``, ``prior_predictive``, ``posterior_predictive``,
        ``observed_data``, ``log_likelihood_pattern`` (log p of one row of each pattern),
        ``identification`` (with what was learnt beyond the prior), ``modes`` (posterior modes and
        likelihood optima with their weights) and, if given, the start's ``estimate``; with ``smc`` also
        ``evidence``. Where chains stay in separate modes, the draws are resampled by the modes'
        weights. With interventions ``posterior``
        holds ``target_weight`` and the tables of a learnt base, and ``targets`` per target
        ``inclusion_probability`` (posterior probability of a share above 0.01) and ``identified``.
        Where the data leave the excluded values open (in linear networks: the targets), the draws
        average over the plausible choices.
        The attribute ``priors`` says every parameter's prior (JSON).

    Raises
    ------
    RefusedError
        If the model file says that its posterior must not be computed.
    """
    _check(model, sampler)
    _check_rest(random_seed, start)
    truth_value("measurement_first", measurement_first)
    steering: dict[str, Any] = {"draws": draws, "tune": tune, "chains": chains, "cores": cores}
    options = sampling_options(**steering, target_accept=target_accept)
    chains, tune = options.pop("chains"), options["tune"]
    options["progressbar"] = progressbar
    if model.interventions is not None:
        if store is not None:
            raise ModelError("store: a mixture of interventions is sampled in short runs; leave it out")
        if grid is not None or group is not None or measurement_first:
            raise ModelError(
                "grid, group and measurement_first are not for a mixture of interventions; leave them out"
            )
        mixture: dict[str, Any] = {"base": base, "start": start, "run": SAMPLERS[sampler], "chains": chains}
        draw = sample_linear if model.linear else sample_targets
        return draw(model, data, priors=priors, seed=random_seed, options=options, **mixture)
    if base is not None:
        raise ModelError("base: only a model with interventions has base rows; leave it out")
    model, table = resolve(model, data, group)
    if measurement_first:
        asked = grid is not None or start is not None or store is not None
        if asked or GROUP in table or needs_rows(model, table):
            raise ModelError(
                "measurement_first: it takes no grid, start, store, groups, covariates, linear parents, "
                "missing values or weights; leave them out"
            )
        options |= {"chains": chains, "sampler": sampler, "priors": priors, "random_seed": random_seed}
        return sample_outcome_last(model, table, lambda p, rows: sample(p, rows, **options), random_seed)
    if store is not None:
        _check_store(store, sampler, grid)
    if grid is not None and needs_rows(model, table):
        raise ModelError(f"grid: {ROW_BY_ROW}")
    rounded = table if grid is None else on_grid(model, table, grid)
    ready = prepare(model, rounded, start=start, priors=priors, chains=chains, seed=random_seed)
    if store is not None:
        return sample_stored(store, ready, options, priors=priors, seed=random_seed)
    raw = run_sampler(ready, sampler, random_seed, options)
    tree = assemble(ready, raw, sampler=sampler, seed=random_seed, tune=tune)
    tree.attrs["priors"] = json.dumps(prior_record(model, priors))
    if grid is not None:
        tree.attrs |= {
            "grid": json.dumps(widths_of(model, rounded)),
            "fingerprint": fingerprint(model, table),
        }
    return tree


def sampling_options(
    *,
    draws: int = 1_000,
    tune: int = 500,
    chains: int = 4,
    cores: int | None = None,
    target_accept: float = 0.9,
    **_: Any,
) -> dict[str, Any]:
    """Check the numbers that steer a sampler; other options of `sample` are let pass.

    Raises
    ------
    ModelError
        If one is of another kind or out of range.
    """
    sizes = {"draws": draws, "tune": tune, "chains": chains}
    options: dict[str, Any] = {name: whole_number(name, value) for name, value in sizes.items()}
    if not isinstance(target_accept, (int, float)) or not 0 < target_accept < 1:
        raise ModelError(f"target_accept must be a number between 0 and 1, got {target_accept!r}")
    workers = os.cpu_count() or 1 if cores is None else whole_number("cores", cores)
    return options | {"target_accept": target_accept, "cores": min(options["chains"], workers)}


def _check(model: CausalModel, sampler: str) -> None:
    """Refuse what cannot be sampled."""
    need_model("sample", model)
    if model.why_no_posterior is not None:
        raise RefusedError(f"no posterior for {model.name!r}: {model.why_no_posterior}")
    if sampler not in (known := (*SAMPLERS, "smc")):
        raise ModelError(f"sampler {sampler!r} is unknown; choose one of {', '.join(known)}")
    if sampler in ("smc", "laplace") and model.interventions is not None:
        raise ModelError(f"sampler {sampler!r} is not for interventions; choose nutpie or pymc")


def _check_rest(random_seed: int, start: Any) -> None:
    """Refuse values of the wrong kind before anything is compiled."""
    whole_number("random_seed", random_seed, 0)
    if start is not None and not (isinstance(start, xr.DataTree) and "estimate" in start):
        raise ModelError(f"start must be what `estimate` gave, got {type(start).__name__}")


def _check_store(store: Any, sampler: str, grid: Grid | None) -> None:
    """Refuse what cannot be stored now, and not after the modes were searched."""
    if sampler != "nutpie":
        raise ModelError(f"store: only sampler='nutpie' stores draws while it runs, not {sampler!r}")
    if grid is not None:
        raise ModelError("store: rounded values are sampled in seconds; leave store or grid out")
    new_folder(store)
