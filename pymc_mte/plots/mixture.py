"""The mixture of effects: how large each class is and what the treatment does in it, one figure."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pymc_mte.errors import RefusedError
from pymc_mte.model import CausalModel
from pymc_mte.plots.looks import class_look, interval, plain_frame, points
from pymc_mte.plots.said import plain_text
from pymc_mte.results import model_of
from pymc_mte.summary import is_identified

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

DOTS = 300
"""Draws that are shown as faint dots."""

VIEW = 0.01
"""Share of the draws on each side that may lie outside the picture."""


def plot_effect_mixture(result: xr.DataTree) -> "Figure":
    """Draw the size of every class against the treatment's effect in it, with the uncertainty of both.

    Parameters
    ----------
    result : DataTree
        From `sample` or `estimate`, with class effects.

    Returns
    -------
    matplotlib Figure
        One panel per contrast. A cross per class: its effect (in units of the outcome, 90% interval)
        and its weight (90% interval); faint dots are single draws, or bootstrap replicates. The dashed
        line is the average effect, which may describe nobody.

    Raises
    ------
    RefusedError
        If the result holds no class effects.

    Examples
    --------
    >>> from pymc_mte import estimate, load_model, simulate
    >>> model = load_model("gallery:level3")
    >>> figure = plot_effect_mixture(estimate(model, simulate(model, 2_000, rng=1), n_boot=8))
    >>> figure.axes[0].get_xlabel()
    'effect of t on y'
    """
    from matplotlib.figure import Figure

    model, draws = model_of(result), result["posterior"].to_dataset()
    if "effect" not in draws or not np.isfinite(draws["effect"].values).any():
        raise RefusedError(
            "plot_effect_mixture: this result holds no class effects; it needs a treatment and a method that "
            "answers by class (`identify` says whether the graph allows one)"
        )
    effect = draws["effect"].values.reshape(-1, model.classes, len(model.contrasts))
    weight = draws["class_weight"].values.reshape(-1, model.classes)
    average = draws["ate"].values.reshape(-1, len(model.contrasts))
    by_class, at_average = points(result, "effect").reshape(effect.shape[1:]), points(result, "ate").ravel()
    shares = points(result, "class_weight")
    figure = Figure(figsize=(7.5, 1.2 + 3.6 * len(model.contrasts)), layout="constrained")
    panels = figure.subplots(len(model.contrasts), 1, squeeze=False)[:, 0]
    for i, axes in enumerate(panels):
        _panel(axes, effect[..., i], weight, by_class[:, i], shares)
        middle = interval(average[:, i], at_average[i])[0]
        axes.axvline(middle, color="0.2", linewidth=1.2, linestyle="--", label="average effect")
        axes.set_xlabel(_axis(model, i))
    kind = "bootstrap replicates" if result["posterior"].attrs.get("kind") == "bootstrap" else "draws"
    doubt = "" if is_identified(result, "effect") else "\nnot identified: the prior decides the class effects"
    figure.suptitle(f"Mixture of effects: 90% intervals, dots are {kind}{doubt}", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    plain_text(figure)
    return figure


def _axis(model: CausalModel, contrast: int) -> str:
    said = f"effect of {model.treatment} on {model.outcome}"
    return f"{said}, {model.coords['contrast'][contrast]}" if len(model.contrasts) > 1 else said


def _panel(axes: "Axes", effect: Array, weight: Array, at: Array, shares: Array) -> None:
    step = max(1, len(effect) // DOTS)
    for k in range(effect.shape[1]):
        look = class_look(k)
        axes.plot(effect[::step, k], weight[::step, k], ".", color=look["color"], alpha=0.15, zorder=1)
        x, left, right = interval(effect[:, k], at[k])
        y, low, high = interval(weight[:, k], shares[k])
        axes.plot([left, right], [y, y], color=look["color"], linewidth=2, zorder=2)
        axes.plot([x, x], [low, high], color=look["color"], linewidth=2, zorder=2)
        axes.plot([x], [y], linestyle="", markersize=9, label=f"class {k}", zorder=3, **look)
    axes.axvline(0.0, color="0.6", linewidth=1, zorder=0)
    seen = effect[np.isfinite(effect)]
    low, high = np.quantile(seen, [VIEW, 1 - VIEW])
    low, high = min(low, 0.0, seen.mean()), max(high, 0.0, seen.mean())
    margin = 0.05 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(0, min(1.05, 1.15 * max(float(np.nanmax(weight)), 0.5)))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_ylabel("share of the population")
    plain_frame(axes)
