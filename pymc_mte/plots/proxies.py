"""Proxy strength per arm beside what noise alone would show: one figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pymc_mte.errors import ModelError
from pymc_mte.identify.identification import Identification
from pymc_mte.moments.rank import LEVEL
from pymc_mte.moments.rank_report import CORRELATION, NOISE
from pymc_mte.plots.said import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 1.645
"""Standard errors on each side of a 90% interval."""

FLOOR = "noise alone stays here in 95 of 100 samples"
LINE = "the classes need all above this line"

LOOKS: dict[tuple[bool, bool], tuple[str, dict[str, Any]]] = {
    (True, True): ("needed, and stands out from noise", {"color": "#0072B2", "marker": "o"}),
    (True, False): (
        "needed, but may be noise: weak proxies",
        {"color": "#D55E00", "marker": "s", "markerfacecolor": "white"},
    ),
    (False, False): (
        "not needed, and may be noise",
        {"color": "0.45", "marker": "o", "markerfacecolor": "white"},
    ),
    (False, True): ("not needed, but stands out: more classes?", {"color": "#AA3377", "marker": "D"}),
}
"""By (needed, told from noise): words and marker."""


def plot_proxies(identification: Identification) -> "Figure":
    """Draw how strongly the proxies of the two sides are tied in each arm, beside what noise would show.

    Parameters
    ----------
    identification : Identification
        From `identify` with data, for a model with a hidden class and proxies on both sides.

    Returns
    -------
    matplotlib Figure
        Canonical correlations per arm (and stratum) with 90% intervals from their standard errors. K
        classes need K - 1 of them; a dashed line parts these from the rest. The grey bar is the noise
        floor. Hollow points are those that the test of the report does not tell from noise (5%).

    Raises
    ------
    ModelError
        If the identification holds no correlations.

    Examples
    --------
    >>> from pymc_mte import identify, load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> figure = plot_proxies(identify(model, simulate(model, 2_000, rng=1), splits="none"))
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['t = 0, correlation 1', 't = 1, correlation 1']
    """
    from matplotlib.figure import Figure

    table = _strengths(identification)
    model = identification.model
    figure = Figure(
        figsize=(9.0, 2.1 + 0.36 * len(table) + 0.2 * table["where"].nunique()), layout="constrained"
    )
    axes = figure.subplots()
    places, lines = _places(table)
    for y, (_, row) in zip(places, table.iterrows(), strict=True):
        _draw(axes, y, row)
    for y in lines:
        axes.axhline(y, color="0.35", linewidth=1, linestyle="--", label=LINE)
    names = [f"{row['where']}, correlation {row['number']}" for _, row in table.iterrows()]
    axes.set_yticks(places, names)
    axes.set_ylim(max(places) + 0.6, -0.6)
    reach = np.nanmax(table[["value", "noise"]].to_numpy() + WIDTH * table[["se"]].fillna(0.0).to_numpy())
    axes.set_xlim(0.0, min(1.08 * reach + 0.02, 1.02))
    axes.set_xlabel("canonical correlation between the two sides' proxies")
    count, supported = model.classes - 1, identification.supported
    figure.suptitle(
        f"Proxy strength: {model.classes} classes need {count} correlation{'s' * (count > 1)} above noise in "
        f"every arm\nThe proxies support {supported} class{'es' * (supported != 1)}",
        fontsize=11,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
    _legend(figure, axes)
    plain_text(figure)
    return figure


def _strengths(identification: Identification) -> pd.DataFrame:
    """Correlations with their noise levels: where, number, value, se, p, noise, needed."""
    if not isinstance(identification, Identification):
        raise ModelError(
            f"plot_proxies: the answer of `identify` is wanted, got {type(identification).__name__}; call "
            "`identify(model, data)` first"
        )
    checks = identification.checks
    parts = {}
    for name in (CORRELATION, NOISE):
        part = checks[checks["check"].str.startswith(f"{name} ").astype(bool)]
        parts[name] = part.assign(number=part["check"].str.split().str[-1].astype(int))
    table = parts[CORRELATION]
    if not len(table):
        raise ModelError(
            "plot_proxies: this identification holds no proxy strength; it needs data, a hidden class and "
            "proxies with at least two levels on both sides: call `identify(model, data)` with these"
        )
    noise = parts[NOISE].set_index(["where", "number"])["value"]
    table = table.assign(
        noise=[noise[where, number] for where, number in zip(table["where"], table["number"], strict=True)],
        needed=table["number"] < identification.model.classes,
    )
    return table[["where", "number", "value", "se", "p", "noise", "needed"]].reset_index(drop=True)


def _places(table: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Heights of the rows, arms set apart, and of the lines below what the classes need."""
    places: list[float] = []
    lines = []
    for i, row in table.iterrows():
        y = places[-1] + 1 if places else 0.0
        if places and row["where"] != table["where"][int(str(i)) - 1]:
            y += 0.5
        elif places and not row["needed"] and table["needed"][int(str(i)) - 1]:
            lines.append(y - 0.5)
        places.append(y)
    return places, lines


def _draw(axes: "Axes", y: float, row: "pd.Series[Any]") -> None:
    if row["noise"] > 0:  # exact shares have none
        axes.barh(y, row["noise"], height=0.62, color="0.86", label=FLOOR, zorder=1)
    words, look = LOOKS[bool(row["needed"]), bool(row["p"] < LEVEL)]
    half = WIDTH * row["se"] if np.isfinite(row["se"]) else 0.0
    ends = np.clip([row["value"] - half, row["value"] + half], 0, 1)
    axes.plot(ends, [y, y], color=look["color"], linewidth=2, zorder=2)
    axes.plot([row["value"]], [y], linestyle="", markersize=7, label=words, zorder=3, clip_on=False, **look)


def _legend(figure: "Figure", axes: "Axes") -> None:
    """Name everything that is drawn once."""
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    order = [words for words, _ in LOOKS.values()] + [FLOOR, LINE]
    shown = [label for label in order if label in found]
    figure.legend(
        [found[label] for label in shown],
        shown,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
