"""Simpler methods beside the mixture of effects: one figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from pymc_mte.errors import ModelError
from pymc_mte.plots.said import need_kind, plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.45"
"""Okabe-Ito colours, apart without colour vision of one kind or another."""

Z90 = 1.645

LARGEST = 600.0
"""Area of the circle of a group that holds everybody, in points squared."""


def plot_baselines(
    table: pd.DataFrame, estimate: xr.DataTree | None = None, *, truth: xr.Dataset | None = None
) -> "Figure":
    """Draw group effects and average effects of every baseline, ours below, the truth as lines.

    Parameters
    ----------
    table : pandas.DataFrame
        From `pymc_mte.baselines`.
    estimate : DataTree, optional
        From `estimate` or `sample` on the same rows: drawn as the last row.
    truth : Dataset, optional
        From `truth`, for simulated rows: its class effects and average effect are vertical lines.

    Returns
    -------
    matplotlib Figure
        One row per method: circles are effects of groups, their area the group's weight; bars are average
        effects with 90% intervals (those of groups take the groups as known). Groups by similar proxies show
        about one effect where the classes' proxies overlap.

    Raises
    ------
    ModelError
        If the input is of another kind.
    """
    from matplotlib.figure import Figure

    need_kind("plot_baselines", table, pd.DataFrame, "baselines")
    if not {"ate", "se", "assumes"} <= set(table.columns):
        raise ModelError(f"plot_baselines wants the table of `baselines`, got columns {list(table.columns)}")
    rows = [(str(name), *_groups(row)) for name, row in table.iterrows()]
    if estimate is not None:
        rows.append(("mixture of effects", *_ours(estimate)))
    figure = Figure(figsize=(8.5, 1.6 + 0.55 * len(rows)), layout="constrained")
    axes: Any = figure.subplots()
    for place, (name, average, se, effect, weight) in enumerate(rows):
        colour = GREEN if name == "mixture of effects" else BLUE
        shown = np.isfinite(effect) & (weight > 0)
        area = LARGEST * weight[shown]
        axes.scatter(effect[shown], [place] * int(shown.sum()), s=area, color=colour, alpha=0.55, linewidth=0)
        axes.plot([average] * 2, [place - 0.32, place + 0.32], color=ORANGE, linewidth=2.5)
        axes.plot(average + Z90 * np.array([-se, se]), [place] * 2, color=ORANGE, linewidth=1.5)
    handles = [
        axes.scatter([], [], s=60, color=BLUE, alpha=0.55, label="effect in a group (area: its weight)"),
        *axes.plot([], [], color=ORANGE, linewidth=2.5, label="average effect, 90% interval"),
    ]
    if estimate is not None:
        ours = axes.scatter([], [], s=60, color=GREEN, alpha=0.55, label="effect in a class of ours")
        handles.insert(1, ours)
    if truth is not None:
        known = truth["effect"].values.reshape(truth.sizes["class"], -1)[:, 0]
        for value in known:
            axes.axvline(value, color=GREY, linestyle=":", linewidth=1.5, zorder=0)
        handles += axes.plot([], [], color=GREY, linestyle=":", linewidth=1.5, label="true class effects")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.margins(x=0.1)
    axes.set_xlabel(table.attrs.get("contrast", "effect, in units of the outcome"))
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
    figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside upper center", ncols=2)
    plain_text(figure)
    return figure


def _groups(row: "pd.Series[Any]") -> tuple[float, float, Any, Any]:
    """Average, its error, group effects and weights of one baseline."""
    names = [n.removeprefix("effect") for n in row.index if n.startswith("effect[")]
    effect = np.array([row[f"effect{n}"] for n in names], dtype=float)
    weight = np.array([row[f"class_weight{n}"] for n in names], dtype=float)
    return float(row["ate"]), float(row["se"]), effect, np.nan_to_num(weight)


def _ours(tree: xr.DataTree) -> tuple[float, float, Any, Any]:
    """Average, its error, class effects and weights of a result: point values, or means over draws."""
    draws = tree["posterior"].to_dataset()[["ate", "effect", "class_weight"]]
    point = draws.mean(("chain", "draw"))
    se = float(draws["ate"].std(("chain", "draw")).values.reshape(-1)[0])  # of replicates that gave an answer
    if "estimate" in tree and tree["posterior"].attrs.get("kind") == "bootstrap":
        point = tree["estimate"].to_dataset()
    effect = point["effect"].values.reshape(point.sizes["class"], -1)[:, 0]
    return float(point["ate"].values.reshape(-1)[0]), se, effect, point["class_weight"].values
