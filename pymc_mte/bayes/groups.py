"""The groups of a posterior's DataTree beside the draws: predictive data, patterns, identification."""

import logging
from collections.abc import Iterator

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.bayes.gradient import PLAIN
from pymc_mte.bayes.pooling import by_group_names, functionals_of
from pymc_mte.bayes.rowwise import needs_rows
from pymc_mte.bayes.start import with_first_levels
from pymc_mte.data import GROUP, columns_of, effective_weights
from pymc_mte.identify.identification import Identification
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.network import Columns, log_joint, log_sum_classes
from pymc_mte.regression import centred_covariates, log_joint_given
from pymc_mte.results import dataset
from pymc_mte.sites import BY_GROUP, SHIFT, group_parameters
from pymc_mte.standardised import MAX_BLOCK

Array = NDArray[np.float64]

MAX_POINTWISE = 10_000_000
"""Largest number of pointwise log-likelihoods (draws x patterns) that is kept in a result."""

N_PREDICTIVE = 100
"""Prior and posterior predictive data sets."""

MIN_PREDICTIVE = 10
MAX_PREDICTIVE = 5_000_000
"""Fewer data sets are drawn where all would hold more numbers than this."""

MAX_THINNED = 5_000_000
MIN_THINNED = 100
"""Log-likelihoods (draws x rows) that are computed to judge the pull of the prior; draws at least."""


def clean_stats(stats: xr.Dataset) -> xr.Dataset:
    """Keep the statistics that are numbers per draw."""
    kept = [
        str(n)
        for n in stats.data_vars
        if set(stats[n].dims) == {"chain", "draw"} and stats[n].dtype.kind in "biuf"
    ]
    signed = {n: stats[n].astype("int64") for n in kept if stats[n].dtype.kind == "u"}
    return stats[kept].assign(signed).reset_coords(drop=True)


def add_predictive(
    tree: xr.DataTree,
    built: pm.Model,
    model: CausalModel,
    drawn: xr.Dataset,
    given: tuple[Array | None, Array],
    seed: int,
) -> None:
    """Add prior draws, prior predictive and posterior predictive data sets.

    ``drawn`` are the sampler's own draws: labels do not matter here. ``given`` are the rows' covariates
    and shares, over which prior functionals are averaged.
    """
    size = max(int(np.prod(rv.shape.eval())) for rv in built.observed_RVs)
    number = min(N_PREDICTIVE, max(MIN_PREDICTIVE, MAX_PREDICTIVE // size))
    free = [rv.name for rv in built.free_RVs]
    fast = {"mode": PLAIN}
    level = logging.getLogger("pymc").level
    logging.getLogger("pymc").setLevel(logging.ERROR)
    try:
        with built:
            prior = pm.sample_prior_predictive(number, random_seed=seed, compile_kwargs=fast)
            thin = _thinned({n: drawn[n].values for n in free}, number)
            predicted = pm.sample_posterior_predictive(
                thin,
                random_seed=seed,
                progressbar=False,
                compile_kwargs=fast,
                freeze_vars=free,
            )
    finally:
        logging.getLogger("pymc").setLevel(level)
    names = [*model.posterior_dims, *by_group_names(built.named_vars)]
    prior_values = with_first_levels(model, {n: prior["prior"][n].values for n in names})
    prior_values |= functionals_of(model, built, prior_values, given)
    known = {n: v for n, v in prior_values.items() if n not in (BY_GROUP, SHIFT)}
    tree["prior"] = xr.DataTree(dataset(model, known))
    for group, found in (("prior_predictive", prior), ("posterior_predictive", predicted)):
        tree[group] = xr.DataTree(_predictive(model, found[group].to_dataset()))


def _thinned(values: Parameters, number: int) -> xr.DataTree:
    chains, draws = next(iter(values.values())).shape[:2]
    step = max(1, draws * chains // number)
    if -(-draws // step) < chains:  # ArviZ takes more chains than draws for mistaken axes
        values = {n: v.reshape(1, -1, *v.shape[2:]) for n, v in values.items()}
    kept = {
        n: (("chain", "draw", *(f"{n}_{i}" for i in range(v.ndim - 2))), v[:, ::step])
        for n, v in values.items()
    }
    return xr.DataTree.from_dict({"posterior": xr.Dataset(kept)})


def _predictive(model: CausalModel, drawn: xr.Dataset) -> xr.Dataset:
    """Name the axes of predictive draws: ``counts`` (cell), ``rows`` (row, continuous).

    The row-wise likelihood draws whole rows: ``rows`` (row, variable), level numbers and values.
    """
    whole = "counts" not in drawn and bool(model.discrete_variables)
    cells = ("group", "cell") if "counts" in drawn and drawn["counts"].ndim == 4 else ("cell",)
    names = {"counts": cells, "rows": ("row", "variable" if whole else "continuous")}
    out = xr.Dataset({str(n): (("chain", "draw", *names[str(n)]), drawn[n].values) for n in drawn.data_vars})
    return out.assign_coords(variable=list(model.variables)) if whole else out


def add_observed(tree: xr.DataTree, model: CausalModel, table: xr.Dataset) -> None:
    """Add the patterns and, where it is not too large, the log-likelihood of one row of each."""
    tree["observed_data"] = xr.DataTree(table)
    sizes = tree["posterior"].sizes
    if sizes["chain"] * sizes["draw"] * table.sizes["pattern"] <= MAX_POINTWISE:
        pointwise = pattern_log_likelihood(model, tree["posterior"].to_dataset(), table)
        tree["log_likelihood_pattern"] = xr.DataTree(pointwise.to_dataset(name="log_p"))


def pattern_log_likelihood(model: CausalModel, posterior: xr.Dataset, table: xr.Dataset) -> xr.DataArray:
    """Log p of ONE row of each pattern, per draw: (chain, draw, pattern)."""
    chains = [np.concatenate(list(_log_p(model, chain, table))) for chain in _chains(model, posterior)]
    return xr.DataArray(np.stack(chains), dims=("chain", "draw", "pattern"))


def total_log_likelihood(tree: xr.DataTree, model: CausalModel, table: xr.Dataset) -> Array:
    """Log-likelihood of all rows, per draw: (chain, draw); of every s-th draw where rows are many."""
    count = effective_weights(table)
    seen = count > 0
    if "log_likelihood_pattern" in tree:
        log_p = tree["log_likelihood_pattern"].to_dataset()["log_p"].values
        return np.asarray(log_p[..., seen] @ count[seen])
    draws = tree["posterior"].to_dataset()
    wanted = max(MIN_THINNED, MAX_THINNED // table.sizes["pattern"]) // draws.sizes["chain"]
    if needs_rows(model, table):
        draws = draws.isel(draw=slice(None, None, max(1, draws.sizes["draw"] // max(wanted, 1))))
    chains = _chains(model, draws)
    return np.stack(
        [np.concatenate([log_p[:, seen] @ count[seen] for log_p in _log_p(model, c, table)]) for c in chains]
    )


def _chains(model: CausalModel, posterior: xr.Dataset) -> list[Parameters]:
    names = [*model.posterior_dims, *(n for n in (BY_GROUP, SHIFT) if n in posterior)]
    return [{n: posterior[n].values[c] for n in names} for c in range(posterior.sizes["chain"])]


def _log_p(model: CausalModel, parameters: Parameters, table: xr.Dataset) -> Iterator[Array]:
    """Log p of one row of each pattern, at most 100 draws at a time: (draw, pattern)."""
    columns, draws = columns_of(table, model), len(parameters["class_weight"])
    given = centred_covariates(table)
    size = min(100, max(1, MAX_BLOCK // (model.classes * table.sizes["pattern"])))
    for block in np.array_split(np.arange(draws), max(1, draws // size)):
        part = {n: v[block] for n, v in parameters.items()}
        if BY_GROUP in part:
            log_p = _log_joint_by_group(model, part, columns, table[GROUP].values)
        else:
            log_p = log_joint_given(model, part, columns, given)
        yield log_sum_classes(log_p)


def _log_joint_by_group(
    model: CausalModel, parameters: Parameters, columns: Columns, group: NDArray[np.int64]
) -> Array:
    """Log P(class, row) where every group has class weights, and perhaps outcomes, of its own."""
    by_group = parameters[BY_GROUP]
    out = np.empty((len(by_group), model.classes, len(group)))
    own = {n: parameters[n][:, None] for n in model.owners} | {"class_weight": by_group}
    if SHIFT in parameters:
        own = group_parameters(model, parameters, by_group, parameters[SHIFT])
    for g in np.unique(group):
        at = np.flatnonzero(group == g)
        its = {n: v[:, min(g, v.shape[1] - 1)] for n, v in own.items()}
        out[..., at] = log_joint(model, its, {n: column[at] for n, column in columns.items()})
    return out


def identification_dataset(found: Identification) -> xr.Dataset:
    """Lay an identification report out for saving: flags per functional, the text in attributes."""
    names = list(found.identified)
    out = xr.Dataset(
        {"identified": ("functional", np.array([found.identified[n] for n in names], dtype="int8"))}
    )
    out = out.assign_coords({"functional": np.array(names, dtype=object)}) if names else out
    out.attrs = {
        "level": found.level,
        "rank": -1 if found.rank is None else found.rank,
        "n_parameters": found.n_parameters,
        "report": str(found),
        "supported_classes": found.supported or -1,
    }
    return out
