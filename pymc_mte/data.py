"""Tabulation: any dataframe, file or lazy engine becomes patterns with counts."""

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.coefficients import uncentred
from pymc_mte.columns import allowed_values, event_signs, level_codes, level_key, number_column
from pymc_mte.covariates import (
    STRATUM,
    check_conditioned,
    conditioned_columns,
    covariate_columns,
    describe_conditioned,
    stratum_codes,
)
from pymc_mte.datanotes import are_rows, data_findings, group_findings, is_missing as is_missing
from pymc_mte.errors import DataError
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.readers import COUNT, distinct_rows, open_frame
from pymc_mte.status import Note, Status, dump_notes, load_notes
from pymc_mte.variable import Level

SAMPLING_WEIGHT = "sampling_weight"
CLUSTER = "cluster"
GROUP = "group"


def tabulate(
    frame: Any,
    model: CausalModel,
    count: str | None = None,
    weight: str | None = None,
    cluster: str | None = None,
    group: str | None = None,
) -> xr.Dataset:
    """Reduce rows to distinct patterns with counts.

    Parameters
    ----------
    frame : dataframe, mapping of arrays, xarray.Dataset, str or Path
        Pandas, Polars, Arrow or anything narwhals reads, also lazily; or a CSV or Parquet file.
    model : CausalModel
        Says which columns are needed and which levels they may take.
    count : str, optional
        Column that says how often a row occurred (pre-counted data); by default the one that the
        model's ``[data]`` names, where the data have it. Population tables are input too: counts
        may be real numbers.
    weight : str, optional
        Column of sampling weights, positive; rescaled to mean 1 over the rows. For moment methods.
    cluster : str, optional
        Column that names each row's cluster (a school, a practice); the bootstrap resamples clusters.
    group : str, optional
        Column that names each row's group (a site, a donor): the posterior gives every group class
        weights of its own, partially pooled; classes and all else are shared. Moments ignore it.

    Returns
    -------
    xarray.Dataset
        One entry per distinct row along ``pattern``: level numbers of the discrete variables (the
        levels themselves in ``attrs["levels"]`` of each), values of the continuous ones, ``count``
        and, if asked for, ``sampling_weight``, ``cluster`` and ``group`` (numbers; the groups' names are
        in ``attrs["levels"]``); censored times with a minus sign; the model's covariates (text as
        indicators) under their names, its strata as one numbered ``stratum``.
        Attributes: ``n`` (sum of counts), ``notes`` (what was noticed, as JSON).

    Raises
    ------
    DataError
        For missing columns or values, unseen levels, infinities, text in a numeric column, values that
        the family does not have, no rows.

    Examples
    --------
    >>> from pymc_mte import CausalModel
    >>> model = CausalModel(classes=1, variables={"a": {"family": "bernoulli"}})
    >>> tabulate({"a": [0, 1, 1]}, model)["count"].values.tolist()
    [1, 2]
    """
    if isinstance(frame, xr.Dataset) and frame.attrs.get("tabulated"):
        return frame
    if group is not None and group in (taken := [*model.variables, *model.covariates, *model.strata]):
        raise DataError(f"group: {group!r} is part of the model; name a column beside {taken}")
    rows = open_frame(frame)
    if count is None and model.data is not None and model.data.count in rows.collect_schema().names():
        count = model.data.count
    extra = {SAMPLING_WEIGHT: weight, CLUSTER: cluster, GROUP: group}
    asked = {name: column for name, column in extra.items() if column is not None}
    events = [var.event for var in model.variables.values() if var.event is not None]
    needed = [*model.variables, *events, *model.covariates, *model.strata, *asked.values()]
    raw = distinct_rows(rows, list(dict.fromkeys(needed)), count)
    counts = raw.pop(COUNT).to_numpy(dtype=float)
    columns: dict[str, NDArray[Any]] = {}
    levels: dict[str, tuple[Level, ...]] = {}
    for name, var in model.variables.items():
        if var.discrete:
            columns[name], levels[name] = level_codes(
                raw[name], name, var.levels if var.trials is None else var.labels
            )
        else:
            columns[name] = allowed_values(number_column(raw[name], name), name, var.spec.values)
        if var.event is not None:
            signs = event_signs(raw[var.event], var.event)
            if not (signs > 0).any():
                raise DataError(
                    f"column {var.event!r}: no time {name!r} was seen to its end, so rows cannot tell how "
                    "long times are; follow up longer, or check that 1 means seen and 0 censored"
                )
            columns[name] = columns[name] * signs
    columns |= {name: _extra(raw[column], name, column) for name, column in asked.items()}
    if group is not None:
        levels[GROUP] = tuple(str(v) for v in pd.factorize(raw[group], sort=True)[1])
    covariates, text_levels = covariate_columns(raw, model)
    columns |= covariates
    if model.strata:
        columns[STRATUM], labels = stratum_codes(raw, model)
        levels[STRATUM] = tuple(labels)
    notes: list[Note] = []
    columns, counts = _without_missing(columns, counts, model, notes)
    columns, counts = _merge(columns, counts)
    table = _dataset(columns, counts, levels, model.with_levels({}, text_levels), notes)
    table.attrs |= {"covariates": json.dumps(list(covariates)), "conditioned_on": describe_conditioned(model)}
    table.attrs["covariate_levels"] = json.dumps(text_levels)
    return table


def resolve(model: CausalModel, data: Any, group: str | None = None) -> tuple[CausalModel, xr.Dataset]:
    """Tabulate if needed, and fill the levels that the data have into the model.

    Parameters
    ----------
    model : CausalModel
        A model whose bernoulli levels may be left open.
    data : tabulated Dataset, or whatever `tabulate` takes
        The rows; ``None`` means the model's own data file.
    group : str, optional
        See `tabulate`; tabulated data must have it already.
    """
    need_model("this analysis", model)
    if data is None:
        path = model.data_path
        if path is None:
            raise DataError(f"model {model.name!r} names no data file; pass the data")
        data = path
    table = tabulate(data, model, group=group)
    if group is not None and GROUP not in table:
        raise DataError(f"the tabulated data have no groups; tabulate them again with group={group!r}")
    if missing := [name for name in model.variables if name not in table]:
        raise DataError(f"the tabulated data lack {missing}; tabulate them again with this model")
    check_conditioned(table, model)
    found = {
        name: tuple(json.loads(table[name].attrs["levels"]))
        for name, var in model.variables.items()
        if var.discrete
    }
    text = {k: tuple(v) for k, v in json.loads(table.attrs.get("covariate_levels", "{}")).items()}
    return model.with_levels(found, text, _pooled_centres(table, model)), _in_model_levels(
        table, model, found
    )


def _pooled_centres(table: xr.Dataset, model: CausalModel) -> dict[str, float]:
    """Weighted means of the numbers that are linear parents and have no centre yet."""
    weight, out = effective_weights(table), {}
    for name in uncentred(model):
        column = table[name].values
        seen = ~is_missing(column)
        out[name] = float(np.average(column[seen], weights=weight[seen]))
    return out


def _in_model_levels(
    table: xr.Dataset, model: CausalModel, found: dict[str, tuple[Level, ...]]
) -> xr.Dataset:
    """Renumber a table that was made with another order of levels; refuse other levels."""
    changed = {}
    for name, levels in found.items():
        own = model.variables[name].levels
        if own is None or [level_key(v) for v in own] == [level_key(v) for v in levels]:
            continue
        place = {level_key(level): i for i, level in enumerate(own)}
        if set(place) != {level_key(level) for level in levels}:
            raise DataError(
                f"the tabulated data have the levels {list(levels)} for {name!r}, the model has {list(own)}; "
                "tabulate the rows again with this model"
            )
        lookup = np.array([place[level_key(level)] for level in levels])
        attrs = {"levels": json.dumps(list(own))}
        code = table[name].values
        changed[name] = ("pattern", np.where(code < 0, -1, lookup[code]), attrs)
    return table.assign(changed) if changed else table


def canonical_order(model: CausalModel, table: xr.Dataset) -> NDArray[np.int64]:
    """Order of the patterns that does not depend on how the model lists variables or levels."""
    keys = []
    for name in sorted(model.variables):
        column = table[name].values
        if model.variables[name].discrete:
            labels = np.array([str(level_key(v)) for v in model.variables[name].labels])
            column = np.where(column < 0, -1, np.unique(labels, return_inverse=True)[1][column])
        keys.append(column)
    keys += conditioned_columns(table).values()
    keys += [table[SAMPLING_WEIGHT].values] if SAMPLING_WEIGHT in table else []
    return np.lexsort(keys[::-1])


def fingerprint(model: CausalModel, table: xr.Dataset) -> str:
    """Identify a data set: equal for equal rows, whatever their order and that of the columns."""
    order = canonical_order(model, table)
    digest = hashlib.sha256()
    for name in sorted(model.variables):
        column = table[name].values[order]
        var = model.variables[name]
        text = (
            [str(level_key(var.labels[v])) if v >= 0 else "" for v in column]
            if var.discrete
            else column.astype(float).tobytes()
        )
        digest.update(f"{name}:".encode() + (text if isinstance(text, bytes) else "|".join(text).encode()))
    for name, column in conditioned_columns(table).items():
        digest.update(f"{name}:".encode() + column[order].astype(float).tobytes())
    for name in ("count", SAMPLING_WEIGHT):
        if name in table:
            digest.update(table[name].values[order].astype(float).tobytes())
    return digest.hexdigest()[:16]


def data_notes(data: xr.Dataset) -> list[Note]:
    """Read the notes that tabulation left in the data."""
    return load_notes(data.attrs["notes"])


def columns_of(data: xr.Dataset, model: CausalModel) -> dict[str, NDArray[Any]]:
    """Pattern columns as plain arrays."""
    return {name: data[name].values for name in model.variables}


def _extra(column: "pd.Series[Any]", name: str, source: str) -> NDArray[Any]:
    """Read sampling weights as numbers, clusters and groups as codes."""
    if name == GROUP:
        return np.asarray(pd.factorize(column, sort=True)[0])
    if name == CLUSTER:
        return np.asarray(pd.factorize(np.asarray(column, dtype=object), sort=False)[0])
    values = number_column(column, source)
    if (values <= 0).any():
        raise DataError(f"column {source!r}: sampling weights must be positive")
    return values


def _without_missing(
    columns: dict[str, NDArray[Any]],
    counts: NDArray[np.float64],
    model: CausalModel,
    notes: list[Note],
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    absent = {name: is_missing(column) for name, column in columns.items()}
    shown = {STRATUM: ", ".join(model.strata)}
    per_column = {shown.get(name, name): counts[gone].sum() for name, gone in absent.items() if gone.any()}
    if not per_column:
        return columns, counts
    listed = ", ".join(f"{name} ({number:g})" for name, number in per_column.items())
    if model.data is None or model.data.missing == "error":
        raise DataError(
            f'missing values in {listed}; set missing = "drop" in the model\'s [data] table (or pass '
            "DataSource(missing='drop')) to leave these rows out, \"sum\" to sum the values out (posterior "
            "and estimate(method='polished')), or impute them first"
        )
    if model.data.missing == "sum":
        _check_summable(model, {name for name, gone in absent.items() if gone.any()})
        rows = counts[np.any(list(absent.values()), axis=0)].sum()
        notes.append(Note(Status.MISSING_SUMMED, listed, f"{rows:g} of {counts.sum():g} rows"))
        return columns, counts
    keep = ~np.any(list(absent.values()), axis=0)
    if not keep.any():
        raise DataError(f"every row has a missing value ({listed}); remove a column or impute")
    lost = counts[~keep].sum()
    notes.append(Note(Status.ROWS_DROPPED, listed, f"{lost:g} of {counts.sum():g} rows"))
    return {name: column[keep] for name, column in columns.items()}, counts[keep]


def effective_weights(table: xr.Dataset) -> NDArray[np.float64]:
    """Weight of every pattern: its count, or with sampling weights its share of the effective number of rows.

    That number is Kish's: the square of the sum of weights over the sum of their squares.
    """
    count = table["count"].values.astype(float)
    if SAMPLING_WEIGHT not in table:
        return count
    weight = table[SAMPLING_WEIGHT].values
    total = (count * weight).sum()
    return np.asarray(count * weight * total / (count * weight**2).sum())


def has_missing(model: CausalModel, table: xr.Dataset) -> bool:
    """Whether a tabulated data set has values to be summed out."""
    return any(bool(is_missing(table[name].values).any()) for name in model.variables)


def complete_rows(model: CausalModel, table: xr.Dataset) -> xr.Dataset:
    """Keep the patterns without a missing value."""
    gone = np.any([is_missing(table[name].values) for name in model.variables], axis=0)
    return table.isel(pattern=~gone)


def _check_summable(model: CausalModel, missing: set[str]) -> None:
    """Refuse missing values that something observed depends on."""
    for name in sorted(missing):
        if name not in model.variables:
            raise DataError(
                f"missing values in {name!r}, which is conditioned on and has no distribution to be summed "
                "over; impute it or leave the rows out"
            )
        if children := sorted(model.graph.successors(name)):
            raise DataError(
                f"missing values in {name!r}, a parent of {children[0]!r}: only variables without observed "
                "children can be summed out; leave these rows out or impute them"
            )


def _merge(
    columns: dict[str, NDArray[Any]], counts: NDArray[np.float64]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Sort patterns by value and add up equal ones, so that the order of rows never matters."""
    matrix = np.column_stack([column.astype(float) for column in columns.values()])
    order = np.lexsort(matrix.T[::-1])
    matrix, counts = matrix[order], counts[order]
    filled = np.nan_to_num(matrix, nan=np.inf)  # a missing value equals another one
    first = np.concatenate([[True], (filled[1:] != filled[:-1]).any(axis=1)])
    summed = np.add.reduceat(counts, np.flatnonzero(first))
    kept = order[first]
    return {name: column[kept] for name, column in columns.items()}, summed


def _dataset(
    columns: dict[str, NDArray[Any]],
    counts: NDArray[np.float64],
    levels: dict[str, tuple[Level, ...]],
    model: CausalModel,
    notes: list[Note],
) -> xr.Dataset:
    for name, column in columns.items():
        seen = column[~is_missing(column)]
        if len(seen) == 0:
            raise DataError(f"column {name!r} has no value at all; take it out of the model")
    notes += data_findings(columns, counts, levels, model)
    notes += group_findings(columns[GROUP], counts) if GROUP in columns else []
    table = xr.Dataset(
        {name: ("pattern", column) for name, column in columns.items()}
        | {"count": ("pattern", counts.astype(np.int64) if are_rows(counts) else counts)}
    )
    for name, values in levels.items():
        table[name].attrs["levels"] = json.dumps(list(values))
    if SAMPLING_WEIGHT in table:
        table[SAMPLING_WEIGHT] /= np.average(table[SAMPLING_WEIGHT], weights=counts)
    table.attrs = {"tabulated": 1, "n": float(counts.sum()), "notes": dump_notes(notes)}
    return table
