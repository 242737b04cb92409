"""A first model file for a data file: families guessed from the columns, roles left to be argued."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from pymc_mte.errors import DataError, ModelError
from pymc_mte.modelfile import parse_toml
from pymc_mte.readers import open_frame

MAX_ROWS = 100_000
"""Rows that the guesses are made from."""

MAX_LEVELS = 10
"""A column with more values is taken for a number, or left out if it is text."""

ADVICE = """\
# Written from the columns of {file}: families are guesses, check every line.
# Fill in the roles. A treatment proxy says something about the hidden class and never causes the outcome;
# an outcome proxy says something about it and is never caused by the treatment. Defend each by what you
# know of the subject. Draw every edge that may exist: parents = ["z"]; edges from treatment proxies to the
# treatment are drawn already. Remove columns that play no part.
# Then ask: pymc-mte identify {model}
"""

EMPTY_ROLES = """\
# [roles]
# treatment = ""            # a column with listed arms
# outcome = ""
# treatment_proxies = []
# outcome_proxies = []
"""


def draft_model(
    data: Path, target: Path, *, classes: int = 2, roles: Mapping[str, str | list[str] | None]
) -> str:
    """Write the text of a model file for a data file.

    Parameters
    ----------
    data : Path
        CSV or Parquet file.
    target : Path
        Where the model file will stand; its stem becomes the model's name.
    classes : int
        Number of classes to begin with.
    roles : mapping
        ``treatment``, ``outcome`` (column names), ``treatment_proxies``, ``outcome_proxies`` (lists); what
        is missing is left for the reader to fill in.

    Returns
    -------
    str
        TOML that is a valid model, with comments.

    Raises
    ------
    DataError
        If the file cannot be read or no column can be used.
    ModelError
        If a role names no usable column, or a column's name cannot be used.
    """
    frame = open_frame(data).head(MAX_ROWS).collect().to_pandas()
    variables: dict[str, dict[str, Any]] = {}
    left: list[str] = []
    for name in map(str, frame.columns):
        guess, why = _guess(frame[name])
        if guess is None:
            left.append(f"# left out: {' '.join(name.split())} ({why})\n")
        else:
            variables[name] = guess
    if not variables:
        raise DataError(f"{data}: no column can be used as a variable; see the families in the README")
    named = {key: value for key, value in roles.items() if value}
    for key, value in named.items():
        for name in [value] if isinstance(value, str) else value:
            if name not in variables:
                raise ModelError(f"{key}: {name!r} is no usable column; there are {', '.join(variables)}")
    if isinstance(treated := named.get("treatment"), str):
        edges = [n for n in named.get("treatment_proxies") or [] if variables[n]["family"] != "normal"]
        variables[treated] |= {"parents": edges} if edges else {}  # no edge is the stronger claim
    parts = [ADVICE.format(file=data.name, model=target.name), *left, "\n"]
    parts.append(_dumped({"name": target.stem, "summary": "", "classes": classes}))
    parts.append("\n" + (_dumped({"roles": named}) if named else EMPTY_ROLES))
    parts += ["\n" + _dumped({"variables": {name: var}}) for name, var in variables.items()]
    parts.append("\n" + _source(data, target, bool(frame[list(variables)].isna().any(axis=None))))
    text = "".join(parts)
    parse_toml(text, default_name=target.stem)
    return text


def _dumped(table: dict[str, Any]) -> str:
    """Write TOML with every list on one line; no string holds a line break in TOML's basic form."""
    out: list[str] = []
    inside = False
    for line in tomli_w.dumps(table).splitlines():
        if inside:
            inside = line != "]"
            out[-1] = out[-1].removesuffix(", ") + "]" if line == "]" else out[-1] + line.strip() + " "
        else:
            inside = line.endswith(" = [")
            out.append(line)
    return "\n".join(out) + "\n"


def _guess(column: "pd.Series[Any]") -> tuple[dict[str, Any] | None, str]:
    """Family and levels of a column, or why it cannot be a variable."""
    known = column.dropna()
    if pd.api.types.is_datetime64_any_dtype(column):
        return None, "dates: turn them into numbers first"
    values = [v.item() if hasattr(v, "item") else v for v in known.unique()[: MAX_LEVELS + 1]]
    if len(values) < 2:
        return None, "one value only"
    text = not pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if len(values) > MAX_LEVELS:
        return (None, f"text with more than {MAX_LEVELS} values") if text else ({"family": "normal"}, "")
    if not text and any(float(v) != int(v) for v in values):
        return {"family": "normal"}, ""
    levels = sorted(str(v) for v in values) if text else sorted(int(v) for v in values)
    if levels == [0, 1]:
        return {"family": "bernoulli"}, ""
    family = "bernoulli" if len(levels) == 2 else "categorical" if text else "ordinal"
    return {"family": family, "levels": levels}, ""


def _source(data: Path, target: Path, missing: bool) -> str:
    """Name the data file where a model file may: inside the model's own folder."""
    path, folder = data.resolve(), target.resolve().parent
    if not path.is_relative_to(folder):
        return "# The data are not in this file's folder; pass them with --data.\n"
    said = {"data": {"file": path.relative_to(folder).as_posix()}}
    text = _dumped(said)
    return text + (
        'missing = "drop"  # some values are missing: "error", or leave rows out\n' if missing else ""
    )
