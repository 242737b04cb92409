"""Posterior beside moment estimates: one figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from pymc_mte.compare import compare
from pymc_mte.plots.said import plain_text
from pymc_mte.results import INTERVAL, model_of
from pymc_mte.summary import is_identified, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"posterior": "#0072B2", "spectral": "#D55E00", "bridge": "#009E73"}
"""Okabe-Ito colours: distinguishable without colour vision of one kind or another."""

UNIDENTIFIED = "not identified: the prior decides"
GREY = "0.55"
MARKERS = {"posterior": "o", "spectral": "s", "bridge": "D"}
WIDTH = 1.645
"""Standard errors on each side of a 90% interval."""


def plot_comparison(
    posterior: xr.DataTree, estimate: xr.DataTree, *, table: pd.DataFrame | None = None
) -> "Figure":
    """Draw 90% intervals of the posterior, the spectral estimate and the bridge beside each other.

    Parameters
    ----------
    posterior : DataTree
        From `sample`.
    estimate : DataTree
        From `estimate`, on the same data.
    table : pandas.DataFrame, optional
        Their comparison from `compare`, if it is at hand already.

    Returns
    -------
    matplotlib Figure
        Effects on the left in units of the outcome, class weights on the right. Posterior intervals
        that graph and data do not carry are dashed and grey. With one class only the averages are
        drawn: its effect is the average.
    """
    from matplotlib.figure import Figure

    table = compare(posterior, estimate) if table is None else table
    model = model_of(posterior)
    drawn = ("ate", "att", "effect") if model.classes > 1 else ("ate", "att")
    effects = [n for n in table.index if n.split("[")[0] in drawn]
    weights = [n for n in table.index if n.startswith("class_weight")] if model.classes > 1 else []
    figure = Figure(
        figsize=(11 if weights else 7, 1.9 + 0.62 * max(len(effects), len(weights))),
        layout="constrained",
    )
    ratio = [3, 2] if weights else [1]
    axes: Any = figure.subplots(1, len(ratio), squeeze=False, width_ratios=ratio)
    known = {n: bool(table.loc[n].get("identified", is_identified(posterior, n))) for n in table.index}
    _forest(axes[0, 0], table, effects, known)
    axes[0, 0].axvline(0.0, color="0.6", linewidth=1, zorder=0)
    unit = f"effect of {model.treatment} on {model.outcome}"
    axes[0, 0].set_xlabel(unit)
    axes[0, 0].set_title(f"Effects, {INTERVAL:.0%} intervals", fontsize=11)
    if weights:
        _forest(axes[0, 1], table, weights, known)
        axes[0, 1].set_xlabel("share of the population")
        axes[0, 1].set_title("Class weights", fontsize=11)
    _legend(figure)
    plain_text(figure)
    return figure


def _legend(figure: "Figure") -> None:
    """Name every method that is drawn in any panel once."""
    found: dict[str, Any] = {}
    for panel in figure.axes:
        handles, labels = panel.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    labels = [label for label in (*COLOURS, UNIDENTIFIED) if label in found]
    columns = 3 if len(labels) <= 3 else 2
    handles = [found[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def _forest(axes: "Axes", table: pd.DataFrame, names: list[str], known: dict[str, bool]) -> None:
    """Draw one row per functional and one interval per method, dashed where nothing carries it."""
    methods = [m for m in COLOURS if m == "posterior" or table[m].notna().any()]
    offsets = np.linspace(-0.22, 0.22, len(methods))
    for method, offset in zip(methods, offsets, strict=True):
        for place, name in enumerate(names):
            row = table.loc[name]
            if method == "posterior":
                middle, low, high = row["mean"], row["lower"], row["upper"]
            else:
                middle, se = row[method], row[f"{method}_se"]
                low, high = middle - WIDTH * se, middle + WIDTH * se
            if not np.isfinite(middle):
                continue
            y = place + offset
            doubtful = method == "posterior" and not known[name]
            colour, label = (GREY, UNIDENTIFIED) if doubtful else (COLOURS[method], method)
            style, fill = ("--", "white") if doubtful else ("-", colour)
            axes.plot([low, high], [y, y], style, color=colour, linewidth=2, solid_capstyle="round")
            point = axes.plot([middle], [y], MARKERS[method], color=colour, markersize=6, label=label)
            point[0].set_markerfacecolor(fill)
    axes.set_yticks(range(len(names)), [words(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
