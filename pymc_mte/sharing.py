"""Results that may be handed on: cells with few people are left out."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.model import CausalModel
from pymc_mte.status import Note, dump_notes, load_notes

LEAST = 5
"""Cells with fewer people are left out."""

SHARED = "observed_cells"
"""Group that takes the place of ``observed_data``, so that nothing computes with half the rows unawares."""

STATEMENT = (
    f"Share-safe: combinations of values that fewer than {LEAST} rows have are left out, and more where a "
    "single one could be worked out from the total. Answers and figures of them are those of all rows."
)

_FEW = re.compile(rf"(?<![\d.,])[1-{LEAST - 1}](?= of [\d.,e+]+ rows| rows)|(?<=\()[1-{LEAST - 1}](?=\))")


def safe_cells(counts: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which cells may be shown.

    Cells under 5 are not. What is hidden must not follow from the total either, so the smallest shown
    cells are hidden too, until at least two cells and 5 rows are.

    Parameters
    ----------
    counts : ndarray of shape (cells,)
        Rows per cell; cells without rows are not shown and hide nothing.

    Returns
    -------
    ndarray of bool of shape (cells,)

    Examples
    --------
    >>> safe_cells(np.array([50.0, 3.0, 20.0, 9.0, 0.0])).tolist()
    [True, False, True, False, False]
    """
    shown = np.asarray(counts) >= LEAST
    for smallest in np.argsort(counts, kind="stable"):
        hidden = (~shown) & (counts > 0)
        if not hidden.any() or (hidden.sum() >= 2 and counts[hidden].sum() >= LEAST):
            break
        if shown[smallest]:
            shown[smallest] = False
    return np.asarray(shown)


def safe_text(text: str) -> str:
    """Put "fewer than 5" for small numbers of rows: ``3 rows``, ``2 of 800 rows``, ``age (4)``."""
    return _FEW.sub(f"fewer than {LEAST}", text)


def safe_note(note: Note) -> Note:
    """Make a note safe to share, see `safe_text`."""
    return replace(note, where=safe_text(note.where), detail=safe_text(note.detail))


def safe_tree(tree: xr.DataTree, model: CausalModel) -> xr.DataTree:
    """Copy a result without what tells of fewer than 5 people.

    Patterns under 5 are left out of the observed data, whose group is then called ``observed_cells``;
    the log-likelihoods of the patterns go with them, and so do answers of strata with fewer rows in
    some class. The fingerprint of the rows is removed: it would let somebody who knows all rows but one
    check a guess.
    """
    out = tree.copy()
    for group in ("log_likelihood_pattern", "observed_data"):
        if group in out:
            del out[group]
    if "observed_data" in tree:
        table = tree["observed_data"].to_dataset()
        kept = table.isel(pattern=safe_cells(table["count"].values.astype(float)))
        kept.attrs["notes"] = "[]"
        out[SHARED] = xr.DataTree(kept)
    if model.strata:
        _hide_strata(out, float(tree.attrs["n"]))
    if "identification" in out:
        known = out["identification"].attrs
        known["report"] = safe_text(str(known["report"]))
    notes = [safe_note(note) for note in load_notes(str(tree.attrs["notes"]))]
    attrs = {k: v for k, v in tree.attrs.items() if k != "fingerprint"}
    out.attrs = {**attrs, "notes": dump_notes(notes), "share_safe": STATEMENT}
    return out


def _hide_strata(tree: xr.DataTree, n: float) -> None:
    """Blank the answers of strata that hold fewer than 5 rows, of all where their sizes are not known."""
    point = tree["estimate"].to_dataset()
    safe: Any = False
    if "stratum_weight" in point:
        safe = point["stratum_weight"].sum("class") * n >= LEAST
    for group in ("estimate", "moments", "posterior"):
        if group in tree:
            held = tree[group].to_dataset()
            parts = {name: held[name].where(safe) for name in held.data_vars if "stratum" in held[name].dims}
            tree[group] = xr.DataTree(held.assign(parts))
