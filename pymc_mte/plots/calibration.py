"""Whether posterior intervals hold the truth as often as they say: one figure from simulated data sets."""

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.errors import RefusedError
from pymc_mte.plots.looks import TAIL
from pymc_mte.plots.said import need_kind, plain_text
from pymc_mte.results import INTERVAL
from pymc_mte.summary import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

COLUMNS, MAX_PANELS = 3, 12
GRID = np.linspace(0.0, 1.0, 101)
SIMULATED = 2_000
"""Uniform samples behind the band."""

INSIDE, OUTSIDE = "#0072B2", "#D55E00"


def plot_calibration(calibration: xr.DataTree) -> "Figure":
    """Draw, per quantity, how far the ranks of the truth among its draws are from uniform.

    Parameters
    ----------
    calibration : DataTree
        With a group ``prior_sbc`` of ranks scaled to [0, 1], one per simulated data set: axis ``sample``,
        or ``chain`` and ``draw``. Other axes are parts of a quantity.

    Returns
    -------
    matplotlib Figure
        One panel per quantity (12 at most): the share of data sets with a rank up to each value, minus that
        value. With calibrated draws the whole line stays in the grey band in 90 of 100 panels. A hump
        first up, then down means intervals that are too narrow; the reverse, too wide; all above, answers
        too high; all below, too low. Titles give how many 90% intervals held the truth.

    Raises
    ------
    RefusedError
        If there is no such group.

    Examples
    --------
    >>> ranks = np.random.default_rng(1).uniform(size=200)
    >>> tree = xr.DataTree.from_dict({"prior_sbc": xr.Dataset({"ate": ("sample", ranks)})})
    >>> plot_calibration(tree).axes[0].get_title().splitlines()
    ['average effect', 'inside the band; 90% in 90% intervals']
    """
    from matplotlib.figure import Figure

    need_kind("plot_calibration", calibration, xr.DataTree, "calibrate")
    if "prior_sbc" not in calibration:
        raise RefusedError("plot_calibration: a DataTree with the group prior_sbc is wanted")
    entries = _entries(calibration["prior_sbc"].to_dataset())
    shown = dict(list(entries.items())[:MAX_PANELS])
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(3.6 * columns, 5.5), 1.4 + 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    number = len(next(iter(shown.values())))
    low, high = _band(number)
    for axes, (label, ranks) in zip(panels, shown.items(), strict=False):
        _panel(axes, label, ranks, low, high)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    more = f", {len(shown)} of {len(entries)} quantities" if len(shown) < len(entries) else ""
    figure.suptitle(f"Calibration over {number} simulated data sets{more}", fontsize=11)
    figure.supxlabel("rank of the truth among the draws (0: below all)", fontsize=10)
    figure.supylabel("share up to it, minus expected", fontsize=10)
    plain_text(figure)
    return figure


def _entries(ranks: xr.Dataset) -> dict[str, Array]:
    """Ranks of every quantity and part: (data set,)."""
    samples = ("sample",) if "sample" in ranks.dims else ("chain", "draw")
    out: dict[str, Array] = {}
    for name, values in ranks.data_vars.items():
        parts = [d for d in values.dims if d not in samples]
        held = values.transpose(*parts, *(d for d in values.dims if d in samples))
        for index in product(*(range(held.sizes[d]) for d in parts)):
            inside = ", ".join(f"{d} {held[d].values[i]}" for d, i in zip(parts, index, strict=True))
            out[f"{name}[{inside}]" if inside else str(name)] = held.values[index].ravel()
    return out


def _band(number: int) -> tuple[Array, Array]:
    """Give the ends of a band that 90% of uniform samples never leave, equally deep at every point."""
    uniform = np.random.default_rng(0).uniform(size=(SIMULATED, number))
    gaps = np.stack([(uniform <= at).mean(axis=1) - at for at in GRID], axis=1)
    spread = np.sqrt(np.maximum(GRID * (1 - GRID), 1e-12) / number)
    reach = np.quantile(np.abs(gaps[:, 1:-1] / spread[1:-1]).max(axis=1), INTERVAL)
    return -reach * spread, reach * spread


def _panel(axes: "Axes", label: str, ranks: Array, low: Array, high: Array) -> None:
    gap = np.array([(ranks <= at).mean() - at for at in GRID])
    left = bool(((gap < low - 1e-9) | (gap > high + 1e-9))[1:-1].any())
    held = float(((ranks >= TAIL) & (ranks <= 1 - TAIL)).mean())
    axes.fill_between(GRID, low, high, color="0.88", linewidth=0)
    axes.plot(GRID, gap, color=OUTSIDE if left else INSIDE, linewidth=1.8)
    axes.axhline(0.0, color="0.6", linewidth=0.8)
    said = "leaves the band" if left else "inside the band"
    axes.set_title(f"{words(label)}\n{said}; {held:.0%} in {INTERVAL:.0%} intervals", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
