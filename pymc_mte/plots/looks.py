"""What figures of classes share: one colour and one marker per class, intervals, plain frames."""

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.results import INTERVAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe-Ito colours: distinguishable without colour vision of one kind or another."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X")

TAIL = (1 - INTERVAL) / 2


def class_look(number: int) -> dict[str, Any]:
    """Colour and marker of a class; colours and markers come round together only after 42 classes."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number * 8 // 7 % len(MARKERS)]}


def interval(draws: Array, point: float = np.nan) -> tuple[float, float, float]:
    """Mean and the ends of the 90% equal-tailed interval of all draws; NaN draws are left out.

    A known ``point`` takes the place of the mean: bootstrap replicates lie around it, and a little to a side.
    """
    known = draws[np.isfinite(draws)]
    if not known.size:
        return np.nan, np.nan, np.nan
    low, high = np.quantile(known, [TAIL, 1 - TAIL])
    return float(point if np.isfinite(point) else known.mean()), float(low), float(high)


def points(result: xr.DataTree, name: str) -> Array:
    """Values of a moment estimate, as its tables show them; not a number for a posterior's functional."""
    draws = result["posterior"].to_dataset()
    drawn = draws[name].isel(chain=0, draw=0).values
    if draws.attrs.get("kind") != "bootstrap" or "estimate" not in result or name not in result["estimate"]:
        return np.full(drawn.shape, np.nan)
    return np.asarray(result["estimate"][name].values, dtype=float)


def offsets(number: int, width: float = 0.44) -> Array:
    """Heights of ``number`` things that share one row, evenly around it."""
    return np.linspace(-width / 2, width / 2, number) if number > 1 else np.zeros(1)


def plain_frame(axes: "Axes") -> None:
    """Leave the left and lower edge of the frame, and light vertical lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
