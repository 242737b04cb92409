"""Models against models: leave-one-out predictive accuracy by pattern, stacking, information criteria."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

from pymc_mte.bayes.groups import pattern_log_likelihood, total_log_likelihood
from pymc_mte.data import GROUP, SAMPLING_WEIGHT, canonical_order, columns_of, effective_weights
from pymc_mte.errors import DataError, ModelError, RefusedError
from pymc_mte.moments.class_number import n_free
from pymc_mte.moments.em import EMResult, em
from pymc_mte.results import model_of
from pymc_mte.sharing import SHARED

EVIDENCE = "log_evidence"
"""Attribute of a result that holds the logarithm of its marginal likelihood, if it was computed."""

LEAST_ROWS = 2
LEAST_DRAWS = 25
"""Draws with which five lie in the tail that Pareto smoothing fits."""

TOLERANCE = 1e-9
"""Gain per row at which a climb from the best draw stops."""


def loo(posterior: xr.DataTree) -> Any:
    """Leave-one-row-out predictive accuracy, computed per pattern and weighted by counts.

    Parameters
    ----------
    posterior : DataTree
        From `sample`.

    Returns
    -------
    arviz ELPDData
        Equal to row-wise PSIS-LOO, at the memory of patterns.

    Raises
    ------
    RefusedError
        If the posterior is one of ``measurement_first``, of sampling weights, or holds fewer than 25 draws or
        no observed rows: no posterior, or a share-safe file.
    """
    model_of(posterior)
    if "measurement" in posterior:
        raise RefusedError("measurement first has no likelihood of the outcome, so rows cannot be left out")
    _check_rows(posterior)
    model, table = model_of(posterior), posterior["observed_data"].to_dataset()
    if SAMPLING_WEIGHT in table:
        raise RefusedError("with sampling weights rows have powers of a likelihood, which predict no row")
    draws = posterior["posterior"].to_dataset()
    if "log_likelihood_pattern" in posterior:
        log_p = posterior["log_likelihood_pattern"].to_dataset()["log_p"]
    else:
        log_p = pattern_log_likelihood(model, draws, table)
    order = canonical_order(model, table)
    log_p, count = log_p.isel(pattern=order), table["count"].values[order].astype(int)
    if count.sum() < LEAST_ROWS:
        raise RefusedError(f"leave-one-out needs at least {LEAST_ROWS} rows for its error, got {count.sum()}")
    log_p, count = log_p.isel(pattern=count > 0), count[count > 0]
    small = xr.DataTree.from_dict(
        {
            "posterior": draws[["class_weight" if "class_weight" in draws else "target_weight"]],
            "log_likelihood": xr.Dataset({"row": log_p.astype(float)}),
        }
    )
    per_pattern = az.loo(small, pointwise=True)
    flat = log_p.values.reshape(-1, len(count))
    lpd = np.logaddexp.reduce(flat, axis=0) - np.log(len(flat))
    each = np.repeat(per_pattern.elpd_i.values, count)
    return dataclasses.replace(
        per_pattern,
        elpd=each.sum(),
        se=np.sqrt(len(each) * each.var(ddof=1)),
        p=(count * (lpd - per_pattern.elpd_i.values)).sum(),
        n_data_points=len(each),
        elpd_i=xr.DataArray(each, dims="row"),
        pareto_k=xr.DataArray(np.repeat(per_pattern.pareto_k.values, count), dims="row"),
    )


def _check_rows(posterior: xr.DataTree) -> None:
    """Refuse results without observed rows, or with too few draws to fit their tails."""
    if "observed_data" not in posterior:
        why = "a share-safe file has no rows any more" if SHARED in posterior else "this result has none"
        raise RefusedError(
            f"leave-one-out needs the rows that a posterior saw, and {why}; use what `sample` gave"
        )
    draws = posterior["posterior"].sizes["chain"] * posterior["posterior"].sizes["draw"]
    if draws < LEAST_DRAWS:
        raise RefusedError(f"leave-one-out needs at least {LEAST_DRAWS} draws, got {draws}; sample more")


def compare_models(posteriors: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """Rank models by leave-one-row-out predictive accuracy, with stacking weights, through ArviZ.

    Parameters
    ----------
    posteriors : mapping of str to DataTree
        Results of `sample` on the same rows, by name.

    Returns
    -------
    pandas.DataFrame
        As from `arviz.compare`: rank, elpd, differences with standard errors, stacking weights. Beside
        them ``log_likelihood`` (its maximum, climbed to from the best draw), ``parameters`` and ``bic``
        (lower is better; parameters that the rows do not identify count too, against the larger model), and
        ``log_evidence`` where a result carries it in its attributes (left out where grids differ: bins of
        another width have other probabilities).

    Raises
    ------
    DataError
        If the models saw different rows, columns or levels.
    """
    if not isinstance(posteriors, Mapping) or not posteriors:
        raise ModelError(
            "compare_models: results of `sample` by name are wanted, as in {'two classes': post}, got "
            + ("none" if isinstance(posteriors, Mapping) else type(posteriors).__name__)
        )
    for tree in posteriors.values():
        model_of(tree)
    if len({tree.attrs.get("fingerprint") for tree in posteriors.values()}) > 1:
        saw = ", ".join(f"{name} {tree.attrs.get('n', np.nan):,.12g}" for name, tree in posteriors.items())
        raise DataError(
            "models can be compared on the same rows and columns only; these saw rows of different data, "
            f"columns or levels (numbers of rows: {saw})"
        )
    table: pd.DataFrame = az.compare({name: loo(tree) for name, tree in posteriors.items()})
    for column, values in _criteria(posteriors).items():
        table[column] = [values[str(name)] for name in table.index]
    return table


def _criteria(posteriors: Mapping[str, xr.DataTree]) -> dict[str, dict[str, float]]:
    """Information criteria of every model, and its evidence if any model carries it."""
    columns: dict[str, dict[str, float]] = {"log_likelihood": {}, "parameters": {}, "bic": {}}
    for name, tree in posteriors.items():
        reached, size = maximum_likelihood(tree)
        rows = float(tree["observed_data"]["count"].sum())
        columns["log_likelihood"][name], columns["parameters"][name] = reached, size
        columns["bic"][name] = -2 * reached + size * np.log(rows)
    evidence = {
        n: float(tree.attrs["log_evidence"]) for n, tree in posteriors.items() if EVIDENCE in tree.attrs
    }
    if evidence and len({str(tree.attrs.get("grid")) for tree in posteriors.values()}) == 1:
        columns[EVIDENCE] = {name: evidence.get(name, np.nan) for name in posteriors}
    return columns


def maximum_likelihood(posterior: xr.DataTree) -> tuple[float, int]:
    """Climb the likelihood from the best draw: its maximum, and the number of free parameters."""
    model, draws = model_of(posterior), posterior["posterior"].to_dataset()
    own = model.interventions is not None or model.regressed or GROUP in posterior["observed_data"]
    if own or not set(model.dims) <= set(draws.data_vars):
        return np.nan, 0  # EM climbs the likelihood of the graph alone
    return float(best_fit(posterior).log_likelihood[0]), n_free(model)


def best_fit(posterior: xr.DataTree) -> EMResult:
    """Maximum likelihood by EM from the best draw; a batch of one."""
    model, table = model_of(posterior), posterior["observed_data"].to_dataset()
    draws = posterior["posterior"].to_dataset()
    total = total_log_likelihood(posterior, model, table)
    chain, draw = np.unravel_index(int(total.argmax()), total.shape)
    start = {name: draws[name].values[chain, draw][None] for name in model.dims}
    return em(model, columns_of(table, model), effective_weights(table)[None], start, tolerance=TOLERANCE)
