"""`merge`: results of the same model and data, run with different seeds, become one."""

import numpy as np
import xarray as xr

from pymc_mte.bayes.checks import convergence
from pymc_mte.bayes.labels import align_chains
from pymc_mte.bayes.learnt import disagreement
from pymc_mte.data import columns_of
from pymc_mte.errors import DataError
from pymc_mte.model import CausalModel, Parameters
from pymc_mte.moments.methods import pooled_scales
from pymc_mte.regression import given_rows
from pymc_mte.results import dataset, labels, model_of
from pymc_mte.sites import BY_GROUP
from pymc_mte.standardised import functionals_given
from pymc_mte.status import Status, dump_notes, load_notes

JUDGED_ANEW = (
    Status.NOT_MIXED,
    Status.NOT_CHECKED,
    Status.DIVERGENCES,
    Status.LABEL_SWITCHING,
    Status.CHAINS_APART,
)
"""What joined chains are asked again."""


def merge(*trees: xr.DataTree) -> xr.DataTree:
    """Join posteriors of the same model and data along the chains.

    Parameters
    ----------
    *trees : DataTree
        Results of `sample`, each with its own ``random_seed`` (on another machine, say). Their classes
        are aligned to the first one's; unequal numbers of draws are cut to the least.

    Returns
    -------
    xarray.DataTree
        As from `sample`, all chains judged together; prior, estimate and identification are the
        first one's, ``attrs["merged"]`` the number of results.

    Raises
    ------
    DataError
        If there are fewer than two, one is an approximation, models, data or priors differ, or a seed
        repeats.

    Examples
    --------
    >>> import pymc_mte as mte
    >>> level3 = mte.load_model("gallery:level3")
    >>> rows, few = mte.simulate(level3, 500), {"draws": 30, "tune": 100, "chains": 2, "progressbar": False}
    >>> runs = [mte.sample(level3, rows, random_seed=seed, **few) for seed in (1, 2)]
    >>> mte.merge(*runs)["posterior"].sizes["chain"]
    4
    """
    _check(trees)
    first = trees[0]
    model, table = model_of(first), first["observed_data"].to_dataset()
    counts = np.asarray(table["count"].values, dtype=float)
    scales = pooled_scales(model, columns_of(table, model), counts)
    draws = min(tree["posterior"].sizes["draw"] for tree in trees)
    drawn: list[Parameters] = [
        {n: tree["posterior"].to_dataset()[n].values[:, :draws] for n in model.posterior_dims}
        for tree in trees
    ]
    values = {n: np.concatenate([part[n] for part in drawn]) for n in model.posterior_dims}
    chains = len(values["class_weight"])
    pivots = {n: np.repeat(v.mean(axis=(0, 1))[None], chains, axis=0) for n, v in drawn[0].items()}
    values, share = align_chains(model, values, pivots, scales)
    values |= functionals_given(model, values, *given_rows(model, table))
    posterior = dataset(model, values).assign_attrs(first["posterior"].attrs)
    out = first.copy()
    out["posterior"] = xr.DataTree(posterior)
    for group in ("sample_stats", "log_likelihood_pattern", "posterior_predictive"):
        if all(group in tree for tree in trees):
            out[group] = xr.DataTree(_joined([tree[group].to_dataset() for tree in trees]))
        elif group in out:
            del out[group]
    said = [note for tree in trees for note in load_notes(str(tree.attrs["notes"]))]
    notes = {(note.status, note.where): note for note in said}
    doubts = [note for note in notes.values() if note.status not in JUDGED_ANEW]
    doubts += convergence(model, posterior, out["sample_stats"].to_dataset(), share)
    out["identification"] = xr.DataTree(
        _compared_again(model, first["identification"].to_dataset(), posterior)
    )
    seeds = ", ".join(str(seed) for tree in trees for seed in _seeds(tree))
    out.attrs |= {"merged": len(trees), "random_seed": seeds, "switching_share": share}
    out.attrs["notes"] = dump_notes(doubts)
    return out


def _check(trees: tuple[xr.DataTree, ...]) -> None:
    if len(trees) < 2:
        raise DataError(f"merge joins at least two results, given one by one, got {len(trees)}")
    for tree in trees:
        model_of(tree)
        if "posterior" not in tree or tree["posterior"].attrs.get("kind") != "mcmc" or "targets" in tree:
            raise DataError("merge joins posteriors of `sample`, no approximations and no shares of targets")
        if "measurement" in tree:
            raise DataError("merge joins no results of measurement_first; sample more chains in one run")
        if BY_GROUP in tree["posterior"]:
            raise DataError("merge does not join class weights by group; sample more chains in one run")
    for key, what in (("model", "models"), ("fingerprint", "data"), ("priors", "priors"), ("grid", "grids")):
        if len({str(tree.attrs.get(key)) for tree in trees}) > 1:
            raise DataError(f"the {what} of these results differ; merge joins runs of one posterior")
    seeds = [seed for tree in trees for seed in _seeds(tree)]
    if len(set(seeds)) < len(seeds):
        raise DataError(f"random_seed {seeds} repeats: equal seeds give equal draws, not more of them")


def _seeds(tree: xr.DataTree) -> list[int]:
    """Seed of a result, or those of the results that it was merged from."""
    kept = tree.attrs["random_seed"]
    return [int(seed) for seed in kept.split(", ")] if isinstance(kept, str) else [int(kept)]


def _joined(parts: list[xr.Dataset]) -> xr.Dataset:
    """Join groups along the chain, numbered from 0, over their common variables and draws."""
    names = [n for n in parts[0].data_vars if all(n in part for part in parts)]
    draws = min(part.sizes["draw"] for part in parts)
    cut = [part[names].isel(draw=slice(0, draws)).drop_vars("chain", errors="ignore") for part in parts]
    joined = xr.concat(cut, "chain")
    return joined.assign_coords(chain=np.arange(joined.sizes["chain"]))


def _compared_again(model: CausalModel, report: xr.Dataset, posterior: xr.Dataset) -> xr.Dataset:
    """Compare the chains of every functional anew."""
    if "entry" not in report.dims:
        return report
    known = {label: (name, at) for name in map(str, posterior) for label, at in labels(model, name)}
    found = [known[str(entry)] for entry in report["entry"].values]
    apart = [disagreement(posterior[name].values[(..., *at)]) for name, at in found]
    return report.assign(chain_disagreement=("entry", apart))
