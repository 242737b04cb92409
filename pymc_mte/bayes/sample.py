"""`sample`: the posterior, aligned, with everything that comparison and checking need."""

import dataclasses
import logging
import os
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.alignment import match_classes, take_classes
from pymc_mte.bayes.build import build_model
from pymc_mte.bayes.checks import convergence
from pymc_mte.bayes.priors import Prior
from pymc_mte.bayes.start import (
    flat_start,
    from_free,
    jittered,
    order_classes,
    starting_point,
    to_free,
)
from pymc_mte.data import columns_of, data_notes, resolve
from pymc_mte.errors import ModelError, RefusedError
from pymc_mte.functionals import functionals
from pymc_mte.identify.identification import Identification, identify
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.methods import class_profile, make_problem, pooled_scales
from pymc_mte.network import log_joint, log_sum_classes
from pymc_mte.results import dataset, provenance
from pymc_mte.status import Status, dump_notes

Array = NDArray[np.float64]

MAX_POINTWISE = 10_000_000
"""Largest number of pointwise log-likelihoods (draws x patterns) that is kept in a result."""

N_PREDICTIVE = 100
"""Prior and posterior predictive data sets."""

SWITCH_EVERY = 10
"""Every so many draws the label of a draw is compared with its chain's."""

logger = logging.getLogger(__name__)


def sample(
    model: CausalModel,
    data: Any = None,
    *,
    start: xr.DataTree | None = None,
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
        An answer of `estimate`: one of the starts, kept in the result. Chains start, with jitter,
        at the best mode that moment and random starts reach.
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
        ``identification`` and, if given, the start's ``estimate``.

    Raises
    ------
    RefusedError
        If the model file says that its posterior must not be computed.
    """
    if model.moments_only is not None:
        raise RefusedError(f"no posterior for {model.name!r}: {model.moments_only}")
    if sampler not in ("nutpie", "pymc"):
        raise ModelError(f"sampler {sampler!r} is unknown; choose nutpie or pymc")
    model, table = resolve(model, data)
    columns, counts = columns_of(table, model), np.asarray(table["count"].values, dtype=float)
    problem = make_problem(model, columns, counts)
    rng = np.random.default_rng(random_seed)
    point = order_classes(model, starting_point(problem, start))
    scales = pooled_scales(model, columns, counts)
    starts = [to_free(model, jittered(model, point, scales, rng)) for _ in range(chains)]
    built = build_model(model, table, priors=priors)
    options: dict[str, Any] = {"draws": draws, "tune": tune, "target_accept": target_accept}
    options |= {"cores": min(chains, cores or os.cpu_count() or 1), "progressbar": progressbar}
    run = _run_nutpie if sampler == "nutpie" else _run_pymc
    raw = run(built, starts, random_seed, options)
    values = from_free(model, {name: raw["posterior"][name].values for name in model.dims})
    values, switching = _aligned(model, values, point, scales)
    if model.treatment is not None:
        values |= functionals(model, values)
    posterior = dataset(model, values)
    found = identify(model, table)
    notes = [
        *data_notes(table),
        *convergence(model, posterior, raw["sample_stats"].to_dataset(), switching),
    ]
    known = {note.where for note in notes}
    notes += [
        note
        for note in found.notes
        if note.where not in known and note.status is not Status.CONSTANT_COLUMN
    ]
    tree = xr.DataTree.from_dict(
        {"posterior": posterior, "sample_stats": _clean_stats(raw["sample_stats"].to_dataset())}
    )
    tree["posterior"].attrs |= {"kind": "mcmc", "inference_library": sampler}
    _add_predictive(tree, built, model, values, random_seed)
    _add_observed(tree, model, table)
    tree["identification"] = xr.DataTree(identification_dataset(found))
    if start is not None:
        tree["estimate"] = xr.DataTree(start["estimate"].to_dataset())
    tree.attrs = provenance(
        model,
        method="posterior",
        sampler=sampler,
        random_seed=random_seed,
        n=float(counts.sum()),
        tune=tune,
        switching_share=switching,
        notes=dump_notes(notes),
    )
    return tree


def _run_nutpie(
    built: pm.Model, starts: list[Parameters], seed: int, options: dict[str, Any]
) -> xr.DataTree:
    """Sample with nutpie, every chain at its own start.

    nutpie has no per-chain starts, but asks for each chain's start with that chain's seed; a dry
    run of one draw lists the seeds in the order of the chains.
    """
    import nutpie

    with _quiet_compilation():
        compiled = nutpie.compile_pymc_model(built, initial_points=starts[0], jitter_rvs=set())
    flat = [flat_start(built, start) for start in starts]
    seen: list[int] = []

    def listening(chain_seed: int) -> Array:
        seen.append(chain_seed)
        return flat[0]

    chains = len(flat)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Found chain dimension to be longer", category=UserWarning
        )
        nutpie.sample(
            dataclasses.replace(compiled, initial_point_func=listening),
            draws=1,
            tune=1,
            chains=chains,
            cores=1,
            seed=seed,
            progress_bar=False,
        )
    by_seed = dict(zip(seen, flat, strict=True))
    if len(by_seed) != chains:
        raise RuntimeError("nutpie handed out one seed to two chains; choose another random_seed")
    tree: xr.DataTree = nutpie.sample(
        dataclasses.replace(compiled, initial_point_func=lambda chain_seed: by_seed[chain_seed]),
        draws=options["draws"],
        tune=options["tune"],
        chains=chains,
        cores=options["cores"],
        seed=seed,
        target_accept=options["target_accept"],
        save_warmup=False,
        progress_bar=options["progressbar"],
    )
    return tree


def _run_pymc(
    built: pm.Model, starts: list[Parameters], seed: int, options: dict[str, Any]
) -> xr.DataTree:
    """Sample with PyMC's own NUTS, every chain at its own start."""
    with built, _quiet_compilation():
        tree: xr.DataTree = pm.sample(
            draws=options["draws"],
            tune=options["tune"],
            chains=len(starts),
            cores=options["cores"],
            initvals=starts,
            init="adapt_diag",
            nuts_sampler="pymc",
            random_seed=seed,
            nuts={"target_accept": options["target_accept"]},
            progressbar=options["progressbar"],
            compute_convergence_checks=False,
        )
    return tree


class _quiet_compilation(warnings.catch_warnings):
    """Silence what compilation says about its own fallbacks; our checks judge the draws."""

    def __init__(self) -> None:
        super().__init__()

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings(
            "ignore", message="Numba will use object mode", category=UserWarning
        )


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
    out = {
        n: take_classes(v, order, 2) if model.dims[n][:1] == ("class",) else v
        for n, v in values.items()
    }
    return out, switching


def _clean_stats(stats: xr.Dataset) -> xr.Dataset:
    """Keep the statistics that are numbers per draw."""
    kept = [
        str(n)
        for n in stats.data_vars
        if set(stats[n].dims) == {"chain", "draw"} and stats[n].dtype.kind in "bif"
    ]
    return stats[kept].reset_coords(drop=True)


def _add_predictive(
    tree: xr.DataTree, built: pm.Model, model: CausalModel, values: Parameters, seed: int
) -> None:
    """Add prior draws, prior predictive and posterior predictive data sets."""
    fast = {"mode": "FAST_COMPILE"}
    level = logging.getLogger("pymc").level
    logging.getLogger("pymc").setLevel(logging.ERROR)
    try:
        with built:
            prior = pm.sample_prior_predictive(N_PREDICTIVE, random_seed=seed, compile_kwargs=fast)
            thin = _thinned(to_free(model, {n: values[n] for n in model.dims}))
            predicted = pm.sample_posterior_predictive(
                thin,
                random_seed=seed,
                progressbar=False,
                compile_kwargs=fast,
                freeze_vars=list(model.dims),
            )
    finally:
        logging.getLogger("pymc").setLevel(level)
    prior_values = from_free(model, {n: prior["prior"][n].values for n in model.dims})
    if model.treatment is not None:
        prior_values |= functionals(model, prior_values)
    tree["prior"] = xr.DataTree(dataset(model, prior_values))
    tree["prior_predictive"] = xr.DataTree(_predictive(prior["prior_predictive"].to_dataset()))
    tree["posterior_predictive"] = xr.DataTree(
        _predictive(predicted["posterior_predictive"].to_dataset())
    )


def _thinned(values: Parameters) -> xr.DataTree:
    chains, draws = values["class_weight"].shape[:2]
    step = max(1, draws * chains // N_PREDICTIVE)
    kept = {
        n: (("chain", "draw", *(f"{n}_{i}" for i in range(v.ndim - 2))), v[:, ::step])
        for n, v in values.items()
    }
    return xr.DataTree.from_dict({"posterior": xr.Dataset(kept)})


def _predictive(drawn: xr.Dataset) -> xr.Dataset:
    """Name the axes of predictive draws: ``counts`` (cell), ``rows`` (row, continuous)."""
    names = {"counts": ("cell",), "rows": ("row", "continuous")}
    return xr.Dataset(
        {str(n): (("chain", "draw", *names[str(n)]), drawn[n].values) for n in drawn.data_vars}
    )


def _add_observed(tree: xr.DataTree, model: CausalModel, table: xr.Dataset) -> None:
    """Add the patterns and, where it is not too large, the log-likelihood of one row of each."""
    tree["observed_data"] = xr.DataTree(table)
    sizes = tree["posterior"].sizes
    if sizes["chain"] * sizes["draw"] * table.sizes["pattern"] <= MAX_POINTWISE:
        pointwise = pattern_log_likelihood(model, tree["posterior"].to_dataset(), table)
        tree["log_likelihood_pattern"] = xr.DataTree(pointwise.to_dataset(name="log_p"))


def pattern_log_likelihood(
    model: CausalModel, posterior: xr.Dataset, table: xr.Dataset
) -> xr.DataArray:
    """Log p of ONE row of each pattern, per draw: (chain, draw, pattern)."""
    parameters = {n: posterior[n].values for n in model.dims}
    columns = columns_of(table, model)
    chains = []
    for c in range(posterior.sizes["chain"]):
        blocks = np.array_split(
            np.arange(posterior.sizes["draw"]), max(1, posterior.sizes["draw"] // 100)
        )
        parts = [
            log_sum_classes(
                log_joint(model, {n: v[c, block] for n, v in parameters.items()}, columns)
            )
            for block in blocks
        ]
        chains.append(np.concatenate(parts))
    return xr.DataArray(np.stack(chains), dims=("chain", "draw", "pattern"))


def identification_dataset(found: Identification) -> xr.Dataset:
    """Lay an identification report out for saving: flags per functional, the text in attributes."""
    names = list(found.identified)
    out = xr.Dataset(
        {"identified": ("functional", np.array([found.identified[n] for n in names], dtype="int8"))}
    )
    out = out.assign_coords({"functional": np.array(names, dtype=object)}) if names else out
    out.attrs = {
        "level": found.level,
        "report": str(found),
        "supported_classes": found.supported or -1,
    }
    return out
