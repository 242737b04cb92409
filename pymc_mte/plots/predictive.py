"""Data that the model expects beside the data that came, by pattern: one figure for prior or posterior."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.errors import RefusedError
from pymc_mte.model import CausalModel
from pymc_mte.network import cell_columns
from pymc_mte.plots.looks import TAIL, plain_frame
from pymc_mte.plots.said import plain_text
from pymc_mte.results import model_of
from pymc_mte.sharing import safe_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

MAX_CELLS = 32
"""Combinations of values that are shown: the most frequent ones."""

BINS = 24
VIEW = 0.005
"""Share of the observed values on each side that lies outside the picture."""

POSTERIOR, PRIOR = "#0072B2", "#8A8A8A"


def plot_predictive(posterior: xr.DataTree, *, share_safe: bool = False) -> "Figure":
    """Draw observed counts beside those that the fitted model predicts, combination by combination.

    Parameters
    ----------
    posterior : DataTree
        From `sample`, with its predictive data sets.
    share_safe : bool
        Leave out cells that fewer than 5 rows have, and what would give them away.

    Returns
    -------
    matplotlib Figure
        One row per combination of the discrete variables' values (the 32 most frequent ones): 90% of the
        predicted data sets lie on the bar, the point is what was observed. Points off their bars are what
        the model cannot explain; of 10 about one is expected. Below, one panel per continuous variable
        with its histogram (censored times have none). Rows with a missing value are left out where it
        would be shown.

    Raises
    ------
    RefusedError
        If the result holds no predicted data sets, or no observed rows to set beside them.
    """
    return _figure(posterior, "posterior_predictive", share_safe)


def plot_prior(posterior: xr.DataTree, *, share_safe: bool = False) -> "Figure":
    """Draw what the prior expected before the data, beside the data that came.

    Parameters
    ----------
    posterior : DataTree
        From `sample`, with its prior predictive data sets.
    share_safe : bool
        Leave out cells that fewer than 5 rows have, and what would give them away.

    Returns
    -------
    matplotlib Figure
        As from `plot_predictive`. Bars should be wide and hold most points. The combinations shown are the
        most frequent ones, which lie high among all of them; only points far beyond their bars say that the
        prior all but excluded what happened.

    Raises
    ------
    RefusedError
        If the result holds no predicted data sets, or no observed rows to set beside them.
    """
    return _figure(posterior, "prior_predictive", share_safe)


def _figure(
    result: xr.DataTree, group: Literal["posterior_predictive", "prior_predictive"], share_safe: bool
) -> "Figure":
    from matplotlib.figure import Figure

    model = model_of(result)
    if model.interventions is not None:
        raise RefusedError(
            "no data sets are predicted for a mixture of interventions: it answers with shares of targets"
        )
    if group not in result or "observed_data" not in result:
        raise RefusedError(
            f"this result holds no {group} data sets beside observed rows; draw a posterior with `sample` "
            "(a share-safe file has no rows any more)"
        )
    predicted, table = result[group].to_dataset(), result["observed_data"].to_dataset()
    colour = POSTERIOR if group == "posterior_predictive" else PRIOR
    cells = _cells(model, table, share_safe)
    shown = len(cells[0])
    timed = [name for name in model.continuous_variables if model.variables[name].event is None]
    heights = [0.9 + 0.24 * shown] * bool(shown) + [2.4] * len(timed)
    figure = Figure(figsize=(9.0, 1.2 + sum(heights)), layout="constrained")
    panels = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    if shown:
        _draw_cells(panels[0], model, cells, _predicted_counts(model, predicted, table), colour)
    for axes, name in zip(panels[bool(shown) :], timed, strict=True):
        rows = _predicted_rows(model, predicted, name)
        _draw_histogram(axes, table, name, rows, colour, share_safe)
    when = "the fitted model expects" if group == "posterior_predictive" else "the prior expected"
    figure.suptitle(f"What {when} (bar: 90% of simulated data sets) and what was observed", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=2, frameon=False)
    plain_text(figure)
    return figure


def _cell_numbers(model: CausalModel, columns: Mapping[str, Array]) -> NDArray[np.int64]:
    """Give the number of every row's cell, last variable fastest; -1 where a value is missing."""
    names = model.discrete_variables
    values = [np.asarray(columns[v]).astype(np.int64) for v in names]
    if not names:
        return np.full(1, -1)
    missing = np.any([v < 0 for v in values], axis=0)
    number = np.ravel_multi_index([np.maximum(v, 0) for v in values], [model.size(v) for v in names])
    return np.where(missing, -1, number)


def _cells(model: CausalModel, table: xr.Dataset, share_safe: bool) -> tuple[NDArray[np.int64], Array, int]:
    """Numbers of the cells that are shown, the observed count of every cell, and how many there are."""
    number = _cell_numbers(model, {v: table[v].values for v in model.discrete_variables})
    if not model.discrete_variables:
        return number[:0], np.zeros(0), 0
    known = number >= 0
    observed = np.bincount(number[known], table["count"].values[known], minlength=model.n_cells)
    allowed = safe_cells(observed) if share_safe else np.ones(len(observed), dtype=bool)
    order = np.argsort(-observed, kind="stable")
    kept = np.sort(order[allowed[order]][:MAX_CELLS])
    return kept.astype(np.int64), observed, len(observed)


def _predicted_counts(model: CausalModel, predicted: xr.Dataset, table: xr.Dataset) -> Array:
    """Return the counts of all cells in every predicted data set: (data set, cell)."""
    if "counts" in predicted:
        counts = predicted["counts"].values
        return np.asarray(counts.reshape(-1, counts.shape[-1]))
    columns = {v: _predicted_rows(model, predicted, v) for v in model.discrete_variables}
    number = _cell_numbers(model, columns)
    weights = _weights(table, number.shape[1])
    return np.array([np.bincount(row, weights, minlength=model.n_cells) for row in number])


def _predicted_rows(model: CausalModel, predicted: xr.Dataset, name: str) -> Array:
    """Predicted values of one variable: (data set, row)."""
    rows = predicted["rows"]
    if "variable" in rows.dims:
        values = rows.sel(variable=name).values
    else:
        values = rows.values[..., model.continuous_variables.index(name)]
    return np.asarray(values.reshape(-1, values.shape[-1]))


def _weights(table: xr.Dataset, rows: int) -> Array:
    """Rows that each predicted row stands for: patterns are predicted once each, or row by row."""
    counts = table["count"].values.astype(float)
    return counts if rows == len(counts) else np.ones(rows)


def _draw_cells(
    axes: "Axes",
    model: CausalModel,
    cells: tuple[NDArray[np.int64], Array, int],
    predicted: Array,
    colour: str,
) -> None:
    kept, observed, total = cells
    low, high = np.quantile(predicted[:, kept], [TAIL, 1 - TAIL], axis=0)
    place = np.arange(len(kept))
    axes.hlines(place, low, high, color=colour, linewidth=6, alpha=0.45, label="predicted, 90%")
    axes.plot(observed[kept], place, "k.", markersize=7, label="observed", clip_on=False)
    columns = cell_columns(model)
    names = model.discrete_variables
    labels = [", ".join(str(model.variables[v].labels[columns[v][c]]) for v in names) for c in kept]
    axes.set_yticks(place, labels, fontsize=8)
    axes.set_ylim(len(kept) - 0.4, -0.6)
    axes.set_xlim(left=0)
    more = f" ({len(kept)} of {total} combinations)" if len(kept) < total else ""
    axes.set_xlabel(f"rows with this combination of {', '.join(names)}{more}")
    plain_frame(axes)


def _draw_histogram(
    axes: "Axes", table: xr.Dataset, name: str, predicted: Array, colour: str, share_safe: bool
) -> None:
    """Compare histograms: rows in the same bins, all else outside the picture."""
    known = np.isfinite(table[name].values)
    values, counts = table[name].values[known], table["count"].values[known].astype(float)
    order = np.argsort(values)
    reached = np.cumsum(counts[order]) / counts.sum()
    ends = values[order][np.searchsorted(reached, [VIEW, 1 - VIEW])]
    edges = (
        np.linspace(ends[0], ends[1], BINS + 1)
        if ends[1] > ends[0]
        else np.array([ends[0] - 0.5, ends[0] + 0.5])
    )
    weights = _weights(table, predicted.shape[1])
    if len(weights) == len(known):
        predicted, weights = predicted[:, known], weights[known]
    bins = np.array([np.histogram(row, edges, weights=weights)[0] for row in predicted])
    low, high = np.quantile(bins, [TAIL, 1 - TAIL], axis=0)
    axes.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=0.45, label="predicted, 90%")
    seen = np.histogram(values, edges, weights=counts)[0]
    allowed = safe_cells(seen) if share_safe else np.ones(len(seen), dtype=bool)
    middle = (edges[1:] + edges[:-1]) / 2
    axes.plot(middle[allowed], seen[allowed], "k.", markersize=7, label="observed", clip_on=False)
    axes.set_xlabel(f"{name} (the outer 1% of the values lies outside)")
    axes.set_ylabel("rows")
    axes.set_ylim(bottom=0)
    plain_frame(axes)
