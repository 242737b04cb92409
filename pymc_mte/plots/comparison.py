"""Posterior beside moment estimates: one figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from pymc_mte.compare import compare
from pymc_mte.results import INTERVAL, model_of
from pymc_mte.summary import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"posterior": "#0072B2", "spectral": "#D55E00", "bridge": "#009E73"}
"""Okabe-Ito colours: distinguishable without colour vision of one kind or another."""

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
        Effects on the left in units of the outcome, class weights on the right.
    """
    from matplotlib.figure import Figure

    table = compare(posterior, estimate) if table is None else table
    model = model_of(posterior)
    effects = [n for n in table.index if n.split("[")[0] in ("ate", "att", "effect")]
    weights = [n for n in table.index if n.startswith("class_weight")] if model.classes > 1 else []
    figure = Figure(
        figsize=(11 if weights else 7, 1.9 + 0.62 * max(len(effects), len(weights))),
        layout="constrained",
    )
    ratio = [3, 2] if weights else [1]
    axes: Any = figure.subplots(1, len(ratio), squeeze=False, width_ratios=ratio)
    _forest(axes[0, 0], table, effects)
    axes[0, 0].axvline(0.0, color="0.6", linewidth=1, zorder=0)
    unit = f"effect of {model.treatment} on {model.outcome}"
    axes[0, 0].set_xlabel(unit)
    axes[0, 0].set_title(f"Effects, {INTERVAL:.0%} intervals", fontsize=11)
    if weights:
        _forest(axes[0, 1], table, weights)
        axes[0, 1].set_xlabel("share of the population")
        axes[0, 1].set_title("Class weights", fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _forest(axes: "Axes", table: pd.DataFrame, names: list[str]) -> None:
    """Draw one row per functional and one interval per method."""
    methods = [m for m in COLOURS if m == "posterior" or table[m].notna().any()]
    offsets = np.linspace(-0.22, 0.22, len(methods))
    for method, offset in zip(methods, offsets, strict=True):
        label: str | None = method
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
            colour = COLOURS[method]
            axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot([middle], [y], MARKERS[method], color=colour, markersize=6, label=label)
            label = None
    axes.set_yticks(range(len(names)), [words(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
