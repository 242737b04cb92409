"""Observed covariates and strata: conditioned on, never modelled."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.errors import DataError
from pymc_mte.model import CausalModel

STRATUM = "stratum"

MAX_COVARIATE_LEVELS = 50
"""A text covariate with more values is refused: each but the first becomes a column."""

MAX_STRATA = 100


def covariate_columns(
    raw: pd.DataFrame, model: CausalModel
) -> tuple[dict[str, NDArray[np.float64]], dict[str, tuple[str, ...]]]:
    """Covariates as numbers: text gives an indicator of every value but the first, in sorted order.

    Missing values stay missing in every column that they belong to. The second answer is the values of
    the text covariates; those that the model lists are taken as they stand, and others refused.
    """
    out: dict[str, NDArray[np.float64]] = {}
    levels: dict[str, tuple[str, ...]] = {}
    for name in model.covariates:
        column = raw[name]
        if pd.api.types.is_datetime64_any_dtype(column):
            raise DataError(f"covariate {name!r} holds dates; turn it into a number of days first")
        numeric = pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column)
        if numeric and name not in model.covariate_levels:
            out[name] = _finite(column.to_numpy(dtype=float, na_value=np.nan), name)
            continue
        text = column.astype(object).where(column.notna(), None)
        values = sorted({str(value) for value in text if value is not None})
        if name in model.covariate_levels:
            if unseen := set(values) - set(model.covariate_levels[name]):
                raise DataError(
                    f"covariate {name!r} holds {sorted(unseen)[:5]}, which are not among its levels "
                    f"{list(model.covariate_levels[name])[:10]}; recode them, or list them in "
                    "roles.covariate_levels"
                )
            values = list(model.covariate_levels[name])
        levels[name] = tuple(values)
        if len(values) > MAX_COVARIATE_LEVELS:
            raise DataError(
                f"covariate {name!r} is text with {len(values)} values, more than {MAX_COVARIATE_LEVELS}; "
                "merge rare ones, or make it a number"
            )
        absent = np.array([value is None for value in text])
        for value in values[1:]:
            hit = np.array([str(item) == value for item in text], dtype=float)
            out[f"{name} = {value}"] = np.where(absent, np.nan, hit)
    return out, levels


def new_covariates(
    raw: pd.DataFrame, model: CausalModel, means: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """Covariates of new rows, as deviations from the means of the rows that a result was learnt from.

    Parameters
    ----------
    raw : pandas.DataFrame
        The new rows.
    model : CausalModel
        With the values of its text covariates filled in.
    means : mapping of str to float
        By column, a text covariate's indicators included.
    """
    if absent := [name for name in model.covariates if name not in raw]:
        raise DataError(
            f"the new rows lack the covariates {absent}, which the result was learnt given; add these columns"
        )
    for name in model.covariates:
        column = raw[name]
        if gone := int(column.isna().sum()):
            raise DataError(
                f"covariate {name!r} is missing in {gone} of the new rows; it is conditioned on and has no "
                "distribution to be summed over, so fill it in (with its mean, say) or leave the rows out"
            )
        if name in model.covariate_levels:
            known = model.covariate_levels[name]
            if unseen := sorted({str(value) for value in column} - set(known)):
                raise DataError(
                    f"covariate {name!r} holds {unseen[:5]} in the new rows, and the result knows "
                    f"{list(known)}; recode them, or sample again from rows that have them"
                )
        elif not pd.api.types.is_numeric_dtype(column):
            raise DataError(
                f"covariate {name!r} is a number in the rows that the result was learnt from, and the new "
                f"rows hold {column.iloc[:3].tolist()}; convert it to numbers"
            )
    columns, _ = covariate_columns(raw, model)
    return {name: column - means[name] for name, column in columns.items()}


def _finite(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if np.isinf(values).any():
        raise DataError(f"covariate {name!r} holds infinite values; replace or remove them")
    return values


def stratum_codes(raw: pd.DataFrame, model: CausalModel) -> tuple[NDArray[np.int64], list[str]]:
    """Give every combination of the strata's values that occurs a number; -1 where one is missing."""
    columns = [raw[name] for name in model.strata]
    absent = np.any([column.isna() for column in columns], axis=0)
    words = [
        ", ".join(f"{name} = {value}" for name, value in zip(model.strata, row, strict=True))
        for row in zip(*columns, strict=True)
    ]
    labels = sorted({word for word, gone in zip(words, absent, strict=True) if not gone})
    if len(labels) > MAX_STRATA:
        raise DataError(
            f"strata {list(model.strata)} have {len(labels)} combinations, more than {MAX_STRATA}; use "
            "fewer or coarser strata, or list continuous ones as covariates"
        )
    place = {label: i for i, label in enumerate(labels)}
    codes = [-1 if gone else place[word] for word, gone in zip(words, absent, strict=True)]
    return np.array(codes, dtype=np.int64), labels


def covariate_names(table: xr.Dataset) -> list[str]:
    """Names of the covariate columns of a tabulated data set; text covariates expanded."""
    return list(json.loads(table.attrs.get("covariates", "[]")))


def covariate_matrix(table: xr.Dataset) -> NDArray[np.float64] | None:
    """Covariates of the patterns (patterns, columns), or None without covariates."""
    names = covariate_names(table)
    return np.column_stack([table[name].values for name in names]) if names else None


def conditioned_columns(table: xr.Dataset) -> dict[str, NDArray[Any]]:
    """Columns of a tabulated data set that are conditioned on."""
    names = covariate_names(table) + ([STRATUM] if STRATUM in table else [])
    return {name: table[name].values for name in names}


def describe_conditioned(model: CausalModel) -> str:
    """Write down which columns a table is conditioned on, for its attributes."""
    return json.dumps([list(model.covariates), list(model.strata)])


def check_conditioned(table: xr.Dataset, model: CausalModel) -> None:
    """Refuse a table that was made with other covariates or strata."""
    if table.attrs.get("conditioned_on", "[[], []]") != describe_conditioned(model):
        raise DataError(
            f"the tabulated data do not have the model's covariates {list(model.covariates)} and strata "
            f"{list(model.strata)}; tabulate the rows again with this model"
        )
