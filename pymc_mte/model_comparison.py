"""Models against models: leave-one-out predictive accuracy by pattern, stacking, information criteria."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

from pymc_mte.bayes.groups import pattern_log_likelihood
from pymc_mte.data import canonical_order
from pymc_mte.errors import DataError
from pymc_mte.results import model_of


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
    """
    model, table = model_of(posterior), posterior["observed_data"].to_dataset()
    draws = posterior["posterior"].to_dataset()
    if "log_likelihood_pattern" in posterior:
        log_p = posterior["log_likelihood_pattern"].to_dataset()["log_p"]
    else:
        log_p = pattern_log_likelihood(model, draws, table)
    order = canonical_order(model, table)
    log_p, count = log_p.isel(pattern=order), table["count"].values[order].astype(int)
    log_p, count = log_p.isel(pattern=count > 0), count[count > 0]
    small = xr.DataTree.from_dict(
        {
            "posterior": draws[["class_weight"]],
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


def compare_models(posteriors: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """Rank models by leave-one-row-out predictive accuracy, through ArviZ.

    Parameters
    ----------
    posteriors : mapping of str to DataTree
        Results of `sample` on the same rows, by name.

    Returns
    -------
    pandas.DataFrame
        As from `arviz.compare`: rank, elpd, differences with standard errors, stacking weights.
    """
    if len({tree.attrs.get("fingerprint") for tree in posteriors.values()}) > 1:
        sizes = {name: tree.attrs.get("n") for name, tree in posteriors.items()}
        raise DataError(
            f"models can be compared on the same rows and columns only; these saw {sizes} rows of "
            "different data, columns or levels"
        )
    table: pd.DataFrame = az.compare({name: loo(tree) for name, tree in posteriors.items()})
    return table
