"""One to several classes side by side: evidence and effects."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pymc_mte.class_choice import STACKED, ClassChoice
from pymc_mte.plots.said import need_kind, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.55"
"""Okabe-Ito colours, apart without colour vision of one kind or another."""

LARGEST = 700.0
"""Area of the circle of a class that holds everybody, in points squared."""

TOP = 60.0
"""BIC differences beyond this are drawn on a logarithmic scale."""


def plot_class_choice(choice: ClassChoice) -> "Figure":
    """Draw the BIC under each number of classes, and the class effects with their weights.

    Parameters
    ----------
    choice : ClassChoice
        From `pymc_mte.choose_classes`.

    Returns
    -------
    matplotlib Figure
        Left: how much worse than the best each number of classes is, as it stands and with the best
        added edge. Right: class effects, the area of a circle being the class's weight, the average
        effect as a bar, and the averages stacked. Without a treatment only the left part is drawn.

    Raises
    ------
    ModelError
        If the input is of another kind.
    """
    from matplotlib.figure import Figure

    need_kind("plot_class_choice", choice, ClassChoice, "choose_classes")
    table = choice.table.drop(index=STACKED)
    with_effects = "ate" in table
    figure = Figure(
        figsize=(10.5 if with_effects else 6, 1.9 + 0.55 * (len(table) + 1)), layout="constrained"
    )
    axes: Any = figure.subplots(1, 2 if with_effects else 1, squeeze=False)
    _draw_evidence(axes[0, 0], choice)
    if with_effects:
        _draw_effects(axes[0, 1], choice)
    plain_text(figure)
    return figure


def _draw_evidence(axes: "Axes", choice: ClassChoice) -> None:
    table = choice.table.drop(index=STACKED)
    places = np.arange(len(table))
    bic, edged = table["bic"].to_numpy(float), table["bic_edge"].to_numpy(float)
    least = np.nanmin([bic, edged])
    axes.plot(bic - least, places, "o", color=BLUE, markersize=8, label="the graph as it is")
    if np.isfinite(edged).any():
        axes.plot(edged - least, places, "D", mfc="white", mec=ORANGE, markersize=8, label="one edge added")
        for place, (value, edge) in enumerate(zip(edged - least, table["edge"], strict=True)):
            if edge:
                axes.annotate(
                    edge.replace("->", "→"),
                    (value, place),
                    (0, 9),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
    if np.nanmax(np.append(bic, edged)) - least > TOP:
        axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(left=-0.6)
    axes.set_yticks(places, [str(k) for k in table.index])
    axes.set_ylim(len(table) - 0.4, -0.6)
    if choice.recommended is None:
        axes.set_ylabel("number of classes (none recommended)")
    else:
        chosen = list(table.index).index(choice.recommended)
        axes.axhspan(chosen - 0.4, chosen + 0.4, color="0.93", zorder=0)
        axes.set_ylabel("number of classes (recommended: shaded)")
    axes.set_xlabel("BIC above the lowest (0 is best)")
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 1.17), ncols=2)
    _tidy(axes)


def _draw_effects(axes: "Axes", choice: ClassChoice) -> None:
    from matplotlib.collections import PathCollection

    table = choice.table
    for place, (label, row) in enumerate(table.iterrows()):
        axes.plot(
            [row["ate"]] * 2,
            [place - 0.32, place + 0.32],
            color=ORANGE,
            linewidth=2.5,
            label="average effect",
        )
        for k in range(0 if label == STACKED else int(str(label))):
            area = LARGEST * row[f"class_weight[class {k}]"]
            effect = row[f"effect[class {k}]"]
            axes.scatter([effect], [place], s=area, color=BLUE, alpha=0.55, linewidth=0, label="class effect")
    axes.axvline(0, color=GREY, linewidth=1, zorder=0)
    axes.set_yticks(range(len(table)), [str(k) for k in table.index])
    axes.set_ylim(len(table) - 0.5, -0.6)
    axes.margins(x=0.12)
    axes.set_xlabel("effect, in units of the outcome (area: weight of the class)")
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    legend = axes.legend(
        found.values(),
        found.keys(),
        frameon=False,
        fontsize=9,
        loc="upper center",
        bbox_to_anchor=(0.5, 1.17),
        ncols=2,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([60])
    _tidy(axes)


def _tidy(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
