"""One column at a time: levels become their numbers, text and dates are refused, events become signs."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pymc_mte.errors import DataError
from pymc_mte.families import Values
from pymc_mte.variable import Level


def level_key(value: Any) -> Any:
    """Make 0, 0.0, False and numpy scalars one key; text stays text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def level_codes(
    column: "pd.Series[Any]", name: str, levels: tuple[Level, ...] | None
) -> tuple[NDArray[np.int64], tuple[Level, ...]]:
    """Turn levels into their numbers, -1 for a missing value; refuse levels that are not listed."""
    codes, uniques = pd.factorize(np.asarray(column, dtype=object), use_na_sentinel=True)
    found = [level_key(value) for value in uniques[:1001]]
    if levels is None:
        levels = _recognised(found, name)
    place = {level_key(level): i for i, level in enumerate(levels)}
    unseen = [value for value in found if value not in place]
    if unseen or len(uniques) > len(found):
        raise DataError(
            f"column {name!r} holds {unseen[:5]}, which are not among its levels {list(levels)[:10]}; "
            "list them as levels in the model, or recode the column"
        )
    lookup = np.array([place[value] for value in found] + [-1], dtype=np.int64)
    return lookup[codes], levels


def _recognised(found: list[Any], name: str) -> tuple[Level, ...]:
    """Levels of a bernoulli variable that leaves them open: 0/1, booleans or two strings."""
    if all(not isinstance(value, str) and value in (0, 1) for value in found):
        return (0, 1)
    if len(found) == 2 and all(isinstance(value, str) for value in found):
        return tuple(sorted(found))
    raise DataError(
        f"column {name!r} is bernoulli without listed levels and holds {found[:5]}; only 0/1, booleans "
        "or two strings are recognised, so list its two levels in the model or recode the column"
    )


LARGEST = 1e100
"""Squares and products of larger numbers overflow."""


def number_column(column: "pd.Series[Any]", name: str) -> NDArray[np.float64]:
    """Read a numeric column, missing values as NaN; refuse text, dates and infinities."""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise DataError(f"column {name!r} holds dates or times; turn them into numbers first")
    if np.iscomplexobj(column):
        raise DataError(f"column {name!r} holds complex numbers; give their real parts or sizes")
    try:
        values = pd.to_numeric(column, errors="raise").to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError):
        numeric = pd.to_numeric(column, errors="coerce")
        bad = column[numeric.isna() & column.notna()].iloc[:3].tolist()
        raise DataError(
            f"column {name!r} must be numeric and holds {bad}; recode these values or make them missing"
        ) from None
    if np.isinf(values).any():
        raise DataError(
            f"column {name!r} holds {int(np.isinf(values).sum())} infinite values; replace or remove them"
        )
    if (values[np.abs(values) > LARGEST]).size:
        raise DataError(
            f"column {name!r} holds numbers above {LARGEST:g} in size; measure it in larger units"
        )
    if any(isinstance(value, str) for value in column.iloc[:1000]):
        raise DataError(f"column {name!r} holds numbers written as text; convert it to numbers")
    return values


VALUES = {
    "positive": "positive numbers; a family that starts with hurdle_ has zeros too",
    "nonnegative": "zero and positive numbers",
    "counts": "whole numbers from 0 on",
}


def allowed_values(column: NDArray[np.float64], name: str, values: Values) -> NDArray[np.float64]:
    """Refuse numbers that a family does not have; missing ones pass."""
    if values == "real":
        return column
    bad = column <= 0 if values == "positive" else column < 0
    if values == "counts":
        bad |= (column != np.round(column)) & ~np.isnan(column)
    if bad.any():
        raise DataError(
            f"column {name!r} holds {np.unique(column[bad])[:3].tolist()}; its family has {VALUES[values]}. "
            "Recode the column or name another family"
        )
    return column


def event_signs(column: "pd.Series[Any]", name: str) -> NDArray[np.float64]:
    """Minus where a time was censored; a missing mark stays missing."""
    seen = number_column(column, name)
    if not np.isin(seen[~np.isnan(seen)], (0, 1)).all():
        raise DataError(f"column {name!r} marks events and must hold 1 (seen) or 0 (censored) only")
    return 2 * seen - 1
