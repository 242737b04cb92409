"""Readers: any dataframe or file as lazy rows, and their distinct rows with counts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import xarray as xr

from pymc_mte.errors import DataError

MAX_FILE_BYTES = 16 * 2**30
"""Largest data file that is opened."""

COUNT = "__count__"


def open_frame(frame: Any) -> "nw.LazyFrame[Any]":
    """Open any dataframe, mapping, Dataset of rows or data file lazily."""
    if isinstance(frame, (str, Path)):
        frame = _open_file(Path(frame))
    elif isinstance(frame, xr.Dataset):
        if len(frame.dims) != 1:
            raise DataError(f"an xarray Dataset of rows needs one dimension, got {list(frame.dims)}")
        frame = frame.to_dataframe().reset_index(drop=True)
    elif isinstance(frame, Mapping):
        lengths = {name: np.shape(column) for name, column in frame.items()}
        if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
            raise DataError(f"columns must be one-dimensional and equally long, got shapes {lengths}")
        frame = pd.DataFrame(dict(frame))
    try:
        lazy: nw.LazyFrame[Any] = nw.from_native(frame).lazy()
    except nw.exceptions.DuplicateError as err:
        raise DataError("the data have two columns of one name; rename or remove one") from err
    except TypeError as err:
        raise DataError(
            f"cannot read data of type {type(frame).__name__}; pass a dataframe, a mapping of "
            "arrays, an xarray Dataset, or the path of a CSV or Parquet file"
        ) from err
    return lazy


def _open_file(path: Path) -> Any:
    """Open a CSV or Parquet file in an engine that may touch this file and nothing else."""
    import duckdb

    if not path.is_file():
        raise DataError(f"{path}: no such data file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: cannot be read (the file is empty); it needs a header and rows")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise DataError(f"{path}: larger than {MAX_FILE_BYTES} bytes; tabulate it in parts and merge")
    if any(mark in str(path) for mark in "*?["):
        raise DataError(f"{path}: the characters * ? [ mean many files to the reader; rename the file")
    readers = {".csv": ("read_csv", {"header": True}), ".parquet": ("read_parquet", {})}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: only .csv and .parquet files are read; convert it or pass a dataframe")
    full = str(path.resolve())
    connection = duckdb.connect(
        ":memory:",
        config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"},
    )
    connection.execute("SET allowed_paths = ?", [[full]])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    try:
        name, options = readers[path.suffix.lower()]
        return getattr(connection, name)(full, hive_partitioning=False, **options)
    except duckdb.Error as err:
        raise DataError(f"{path}: cannot be read ({str(err).splitlines()[0]})") from None


def distinct_rows(frame: "nw.LazyFrame[Any]", names: list[str], count: str | None) -> pd.DataFrame:
    """Distinct rows of the named columns with their summed counts."""
    available = frame.collect_schema().names()
    wanted = names + ([count] if count is not None else [])
    if absent := [name for name in wanted if name not in available]:
        raise DataError(f"columns {absent} are not in the data, which have {available[:30]}; rename them")
    total = nw.len() if count is None else nw.col(count).sum()
    try:
        if not len(frame.select(wanted).head(1).collect()):
            raise DataError("the data have no rows; pass at least one row per treatment arm")
        if count is not None:
            _check_counts(frame, count)
        rows = frame.select(wanted).group_by(names, drop_null_keys=False).agg(total.alias(COUNT)).collect()
    except Exception as err:
        if "duckdb" not in type(err).__module__:
            raise
        raise DataError(f"the rows cannot be read ({str(err).splitlines()[0]}); mend the file") from None
    out: pd.DataFrame = rows.to_pandas()
    return out


def _check_counts(frame: "nw.LazyFrame[Any]", count: str) -> None:
    column = nw.col(count)
    if not frame.collect_schema()[count].is_numeric():
        raise DataError(f"column {count!r} is to hold counts and is not numeric")
    number = column.cast(nw.Float64)
    asked = frame.select(
        number.min().alias("low"),
        number.max().alias("high"),
        number.sum().alias("sum"),
        (column.is_null() | number.is_nan()).sum().alias("missing"),
    )
    low, high, total, missing = asked.collect().row(0)
    if missing or not 0 <= low <= high < np.inf:
        raise DataError(f"column {count!r}: counts must be finite and not negative")
    if total == 0:
        raise DataError(f"column {count!r}: all counts are zero")
