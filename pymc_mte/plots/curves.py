"""Simulation studies: how an error, a recall or a coverage changes, one line per method."""

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from pymc_mte.errors import ModelError
from pymc_mte.plots.looks import class_look
from pymc_mte.plots.said import need_kind, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE, ERROR = "line", "_error"
PANEL_WIDTH, HEIGHT = 4.2, 3.6


def plot_curves(curves: xr.Dataset) -> "Figure":
    """Draw the curves of a simulation study, one panel per measure and one line per method.

    Parameters
    ----------
    curves : xarray.Dataset
        Every variable is a panel: a measure along ``line`` (methods, published curves) and one more axis
        with numbers (rows, strength of an edge). NaN is left out. A variable ``<measure>_error`` gives the
        measure's standard errors. Attributes of a measure or axis: ``long_name``, its label; ``scale``,
        "linear" (default) or "log".

    Returns
    -------
    matplotlib Figure
        Colours and markers go with the lines in all panels; bars are one standard error either way.

    Raises
    ------
    ModelError
        If a measure has other axes.

    Examples
    --------
    >>> recall = xr.DataArray([[0.5, 0.9], [0.4, 0.7]], dims=("line", "rows"))
    >>> recall = recall.assign_coords(line=["polished", "paper"], rows=[256, 4096])
    >>> recall["rows"].attrs["scale"] = "log"
    >>> figure = plot_curves(recall.to_dataset(name="recall"))
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('rows', 'recall')
    """
    from matplotlib.figure import Figure

    need_kind("plot_curves", curves, xr.Dataset, "a simulation study, an xarray.Dataset,")
    names = [name for name in curves.data_vars if not str(name).endswith(ERROR)]
    for name in names:
        if LINE not in curves[name].dims or curves[name].ndim != 2:
            raise ModelError(
                f"plot_curves: {name!r} needs the axes 'line' and one with numbers, got {curves[name].dims}"
            )
    if not names:
        raise ModelError("plot_curves: the dataset has no measure; give at least one variable")
    figure = Figure(figsize=(PANEL_WIDTH * len(names) + 0.6, HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=True):
        _panel(axes, curves, name)
    if curves.sizes[LINE] > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    plain_text(figure)
    return figure


def _panel(axes: "Axes", curves: xr.Dataset, name: Hashable) -> None:
    """Draw one measure."""
    from matplotlib.ticker import LogFormatter

    value = curves[name]
    (along,) = (d for d in value.dims if d != LINE)
    x = value[along].values.astype(float)
    error = curves.get(f"{name}{ERROR}")
    for i, line in enumerate(value[LINE].values):
        y = value.isel({LINE: i}).values
        spread = None if error is None else np.nan_to_num(error.isel({LINE: i}).values)
        known = np.isfinite(y)
        bars = None if spread is None else spread[known]
        axes.errorbar(x[known], y[known], bars, label=str(line), ms=4.5, lw=1.2, **class_look(i))
    axes.set(
        xlabel=value[along].attrs.get("long_name", str(along)),
        ylabel=value.attrs.get("long_name", str(name)),
        xscale=value[along].attrs.get("scale", "linear"),
        yscale=value.attrs.get("scale", "linear"),
    )
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":  # plain numbers: formulas are switched off
            axis.set_major_formatter(LogFormatter(labelOnlyBase=False))
            axis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
