"""The average effect under every split of the proxies: one figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pymc_mte.errors import ModelError
from pymc_mte.plots.said import need_kind, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"model's roles": "#D55E00", "other roles": "#0072B2", "one left out": "#009E73"}
"""Okabe-Ito colours: distinguishable without colour vision of one kind or another."""

MARKERS = {"model's roles": "s", "other roles": "o", "one left out": "D"}
WIDTH = 1.645
"""Standard errors on each side of a 90% interval."""

LEVEL = 0.05
REACH = 6.0
"""Intervals are cut at this many widths of the model's own one, so that a weak split hides nothing."""

WEAK = "hollow: a direction is noise in some arm"
CUT = "arrow: goes on"


def plot_role_splits(table: pd.DataFrame) -> "Figure":
    """Draw the average effect with its 90% interval under every split of the proxies.

    Parameters
    ----------
    table : pandas.DataFrame
        From `role_splits`.

    Returns
    -------
    matplotlib Figure
        One panel per contrast, in units of the outcome: the model's roles on top with their interval shaded,
        then the other splits by size of the answer. Hollow points rest on a direction that is noise in some
        arm; arrows stand for intervals or answers that leave the picture.

    Raises
    ------
    ModelError
        If the input is of another kind.

    Examples
    --------
    >>> from pymc_mte import load_model, role_splits, simulate
    >>> model = load_model("gallery:paper_pair")
    >>> figure = plot_role_splits(role_splits(model, simulate(model, 5_000, rng=1)))
    >>> figure.axes[0].get_xlabel()
    'effect of t on y'
    """
    from matplotlib.figure import Figure

    need_kind("plot_role_splits", table, pd.DataFrame, "role_splits")
    if lacking := [name for name in ("contrast", "ate") if name not in table]:
        raise ModelError(f"plot_role_splits: the table of `role_splits` is wanted; this one lacks {lacking}")
    contrasts = list(dict.fromkeys(table["contrast"]))
    height = 1.6 + 0.34 * len(table) / max(len(contrasts), 1)
    figure = Figure(figsize=(9.0, max(height, 3.0) * max(len(contrasts), 1)), layout="constrained")
    panels: Any = figure.subplots(max(len(contrasts), 1), 1, squeeze=False)
    for axes, contrast in zip(panels[:, 0], contrasts, strict=False):
        part = table[table["contrast"] == contrast]
        _panel(axes, pd.concat([part.iloc[:1], part.iloc[1:].sort_values("ate", na_position="last")]))
        axes.set_xlabel(str(table.attrs.get("effect", "average effect")))
        shown = f" of {contrast}" if len(contrasts) > 1 else ""
        axes.set_title(f"Average effect{shown} by roles of the proxies, 90% intervals", fontsize=11)
    found: dict[str, Any] = {}
    for axes in panels[:, 0]:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    labels = [label for label in (*COLOURS, WEAK, CUT) if label in found]
    figure.legend([found[n] for n in labels], labels, loc="outside lower center", ncols=3, frameon=False)
    plain_text(figure)
    return figure


def _panel(axes: "Axes", part: pd.DataFrame) -> None:
    """Draw the splits of one contrast, in the order given."""
    low, high = _limits(part)
    own = part.iloc[0]
    if np.isfinite(own["se"]):
        half = WIDTH * own["se"]
        axes.axvspan(own["ate"] - half, own["ate"] + half, color=COLOURS["model's roles"], alpha=0.12, lw=0)
    axes.axvline(0.0, color="0.6", linewidth=1, zorder=0)
    names = []
    for place, (_, row) in enumerate(part.iterrows()):
        names.append(f"{row['treatment_side']}  |  {row['outcome_side']}")
        if np.isfinite(row["ate"]):
            _draw(axes, row, place, low, high)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylabel("treatment side  |  outcome side")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(low, high)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.92")


def _draw(axes: "Axes", row: "pd.Series[Any]", place: int, low: float, high: float) -> None:
    colour, weak = COLOURS[row["kind"]], bool(row["p"] >= LEVEL)
    half = WIDTH * row["se"] if np.isfinite(row["se"]) else 0.0
    ends = row["ate"] - half, row["ate"] + half
    axes.plot(np.clip(ends, low, high), [place, place], color=colour, linewidth=2, solid_capstyle="butt")
    for end, marker, edge in ((ends[0], "<", low), (ends[1], ">", high)):
        if (end < low) if marker == "<" else (end > high):
            axes.plot([edge], [place], marker, color=colour, markersize=7, clip_on=False)
            axes.plot([], [], ">", color="0.4", label=CUT)
    if low <= row["ate"] <= high:
        fill = "white" if weak else colour
        axes.plot(
            [row["ate"]], [place], MARKERS[row["kind"]], color=colour, markerfacecolor=fill, markersize=6
        )
    axes.plot([], [], MARKERS[row["kind"]], color=colour, label=row["kind"])
    if weak:
        axes.plot([], [], "o", color="0.4", markerfacecolor="white", label=WEAK)


def _limits(part: pd.DataFrame) -> tuple[float, float]:
    """Show every supported answer, and of the others what lies within reach of the model's own."""
    answered = part[part["ate"].notna()]
    if not len(answered):
        return -1.0, 1.0
    se = answered["se"].fillna(0.0)
    own, width = answered["ate"].iloc[0], 2 * WIDTH * se.iloc[0]
    low, high = (answered["ate"] - WIDTH * se).to_numpy(), (answered["ate"] + WIDTH * se).to_numpy()
    reach = REACH * width if width > 0 else np.inf
    low, high = np.maximum(low, own - reach).min(), np.minimum(high, own + reach).max()
    firm = answered[answered["p"] < LEVEL]["ate"]
    low, high = min(low, firm.min() if len(firm) else low), max(high, firm.max() if len(firm) else high)
    margin = 0.05 * (high - low) or 1.0
    return float(low - margin), float(high + margin)
